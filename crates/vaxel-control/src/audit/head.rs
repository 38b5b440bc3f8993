//! The newest link of the chain, in a file: who has the database alone cannot take it back to an earlier state
//! unnoticed, neither while Vaxel is down nor while it runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use vaxel_auth::private;
use vaxel_core::audit::chain::Link;

use crate::control::Control;

/// Its name, in the data directory.
pub(super) const NAME: &str = "audit.head";
/// After a write the newest link is written into its file so much later, for many writes once.
const GATHER: Duration = Duration::from_secs(1);

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The newest link.
    #[serde(flatten)]
    pub(super) link: Link,
    /// What the root key is recognised by that the key of the chain is sealed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<String>,
    /// A backup was restored since: other lines are no surprise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) restored: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "it is the function that serde wants"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Control {
    pub(super) fn head_file(&self) -> PathBuf {
        self.inner.context.config.server.data_dir.join(NAME)
    }

    /// What is to be kept now, after it was held against what was kept before.
    async fn newest(&self, before: Option<&Kept>) -> Result<Kept, vaxel_core::failure::Failure> {
        if let Some(before) = before {
            self.compare(before).await?;
        }
        let head = self.store().audit_chain().await?.head;
        Ok(Kept {
            link: head.unwrap_or_default(),
            root: Some(self.inner.roots.keys.facts().id),
            restored: false,
        })
    }

    /// Keeps the newest link in its file, once; what was kept, when that went well.
    pub(super) async fn keep_newest(&self, before: Option<&Kept>) -> Option<Kept> {
        // Who reads it next finds an older one, which is right, too.
        let newest = self.newest(before).await.ok()?;
        if before == Some(&newest) {
            return Some(newest);
        }
        let (path, content) = (self.head_file(), newest.clone());
        let writing = tokio::task::spawn_blocking(move || write(&path, &content));
        match writing.await {
            Ok(Ok(())) => return Some(newest),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the end of the audit could not be written to {NAME}");
            }
            Err(error) => tracing::error!(%error, "the end of the audit was not written"),
        }
        None
    }
}

/// Keeps the newest link in its file, until `stop` and then once more.
pub(crate) async fn keep(control: Control, stop: CancellationToken) {
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
        if let Some(newest) = control.keep_newest(kept.as_ref()).await {
            kept = Some(newest);
        }
    }
}

/// What the file says; `None` when there is none.
///
/// # Errors
/// When it is damaged: whoever writes it does so whole or not at all, so that a crash does not do that.
pub(super) fn read(path: &Path) -> io::Result<Option<Kept>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A crash may leave an older one, which is right, too; never half of one.
fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    private::replace(path, &serde_json::to_vec(kept)?)
}

/// A backup was restored into a data directory: its audit is another one than the one that is known there, and that is
/// no surprise to the next start.
///
/// # Errors
/// When the file there cannot be written.
pub fn expect_another_audit(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(NAME);
    let kept = match read(&path) {
        Ok(None) => return Ok(()),
        Ok(Some(kept)) => kept,
        Err(_) => Kept::default(),
    };
    let restored = true;
    write(&path, &Kept { restored, ..kept })
}
