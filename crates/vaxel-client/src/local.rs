//! Finds the Vaxel that runs on this machine, and its admin key.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use url::Url;
use vaxel_egress::{Pins, Roots};

use crate::trust::fingerprint;

/// What a running Vaxel writes into its data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFile {
    /// Process id.
    pub pid: u32,
    /// Base URL.
    pub url: Url,
    /// When it was started.
    pub started_at: String,
    /// Its version.
    pub version: String,
    /// Where it speaks TLS, the fingerprint of its certificate; of two, while one takes the place of the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
}

/// A Vaxel on this machine.
#[derive(Debug, Clone)]
pub struct Local {
    /// Base URL.
    pub url: Url,
    /// Process id.
    pub pid: u32,
    /// The admin key, when this user may read it.
    pub key: Option<String>,
}

impl RunFile {
    /// Name of the file in the data directory.
    pub const NAME: &'static str = "run.json";
}

/// Name of the file with the admin key in the data directory.
pub const ADMIN_KEY: &str = "admin.key";

/// Whether a process runs. One that has ended, and that its parent has not asked for yet, does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in brackets and may hold any character.
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

impl Local {
    /// How it is known: by what it writes about itself, at every connection anew, since certificates are replaced.
    pub fn roots(data_dir: &Path) -> Roots {
        let file = data_dir.join(RunFile::NAME);
        Roots::Pinned(Pins::new(move |shown| {
            let run: Option<RunFile> = fs::read_to_string(&file)
                .ok()
                .and_then(|text| serde_json::from_str(&text).ok());
            let known = run.map_or_else(Vec::new, |run| run.certificates);
            known
                .iter()
                .any(|known| fingerprint(known).as_ref() == Some(shown))
        }))
    }

    /// The Vaxel that uses `data_dir`, when its file says that one runs and its process is alive.
    pub fn find(data_dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(data_dir.join(RunFile::NAME)).ok()?;
        let run: RunFile = serde_json::from_str(&text).ok()?;
        if !is_alive(run.pid) {
            return None;
        }
        let key = fs::read_to_string(data_dir.join(ADMIN_KEY)).ok();
        Some(Self {
            url: run.url,
            pid: run.pid,
            key: key.map(|key| key.trim().to_owned()),
        })
    }
}
