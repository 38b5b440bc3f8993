//! The newest link of the chain, in a file: who has the database alone cannot take it back to an earlier state
//! unnoticed.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use vaxel_core::audit::chain::Link;

use crate::control::Control;

/// Its name, in the data directory.
pub(super) const NAME: &str = "audit.head";
/// After a write the newest link is written into its file so much later, for many writes once.
const GATHER: Duration = Duration::from_secs(1);

impl Control {
    pub(super) fn head_file(&self) -> PathBuf {
        self.inner.context.config.server.data_dir.join(NAME)
    }
}

/// Keeps the newest link in its file, until `stop` and then once more.
pub(crate) async fn keep(control: Control, stop: CancellationToken) {
    let path = control.head_file();
    let mut writes = control.store().writes();
    let mut kept = None;
    let mut last = false;
    while !last {
        tokio::select! {
            () = stop.cancelled() => last = true,
            // An error would mean that the store is gone, and this handle holds it.
            _ = writes.changed() => tokio::select! {
                () = stop.cancelled() => last = true,
                () = tokio::time::sleep(GATHER) => {}
            },
        }
        writes.mark_unchanged();
        let Ok(chain) = control.store().audit_chain().await else {
            // Who reads it next finds an older one, which is right, too.
            continue;
        };
        if chain.head == kept {
            continue;
        }
        let (path, head) = (path.clone(), chain.head.unwrap_or_default());
        let written = tokio::task::spawn_blocking(move || write(&path, head)).await;
        match written {
            Ok(Ok(())) => kept = chain.head,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the end of the audit could not be written to {NAME}");
            }
            Err(error) => tracing::error!(%error, "the end of the audit was not written"),
        }
    }
}

pub(super) fn read(path: &Path) -> Option<Link> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A crash may leave an older one, which is right, too; never half of one.
fn write(path: &Path, head: Link) -> std::io::Result<()> {
    let fresh = path.with_extension("head.new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(&serde_json::to_vec(&head)?)?;
    fs::rename(&fresh, path)
}
