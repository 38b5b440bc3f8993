//! Files with the texts of keys: `admin.key`, and one for each key that gets another secret by itself, so that the
//! program that uses it finds it there. Mode 0600.
//!
//! A new text lies beside the old one before the store knows of it, and takes its place afterwards. So the store says of
//! a text that lies there whether it is the new one or never was: at a start, and when its answer was lost.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use vaxel_auth::{
    key::StoredKey,
    private::{draft_of, publish, write},
};
use vaxel_core::{
    failure::{Failure, Kind},
    secret::Secret,
};
use vaxel_store::KeyRow;

use crate::control::Control;

/// The file of the first key, which the command line on this machine uses.
const ADMIN_KEY: &str = "admin.key";
/// The folder of the files of other keys.
const FOLDER: &str = "keys";
/// A text that lies beside the one that it is to replace. It goes away with this value, unless the store was told of
/// it.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    draft: PathBuf,
    /// The store may know of it.
    is_entrusted: bool,
}

impl KeyFile {
    /// The store is told of it now: from here on only what the store says decides, also when nobody hears that.
    pub(crate) fn entrust(&mut self) {
        self.is_entrusted = true;
    }

    /// The store said that it knows nothing of it.
    pub(crate) fn discard(mut self) {
        self.is_entrusted = false;
    }

    /// Puts it in its place. When that fails it stays where it is.
    pub(crate) async fn publish(&self) -> Result<(), Failure> {
        let (draft, path) = (self.draft.clone(), self.path.clone());
        let publishing = tokio::task::spawn_blocking(move || publish(&draft, &path));
        let published = publishing.await.map_err(Failure::internal)?;
        published.map_err(|error| unwritten(&self.path, error))
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        if !self.is_entrusted {
            // One that stays is removed when it is settled.
            let _ = fs::remove_file(&self.draft);
        }
    }
}

/// Where the text of such a key stands, in the data directory.
pub fn place_of(name: &str) -> String {
    format!("{FOLDER}/{name}.key")
}

/// Whether a key can have a file of that name.
pub(crate) fn can_be_named(name: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-@".contains(letter);
    !name.starts_with('.') && name.chars().all(fits)
}

impl Control {
    /// Writes the text of a key beside its file.
    pub(super) async fn prepare_key_file(
        &self,
        name: &str,
        text: &Secret<String>,
    ) -> Result<KeyFile, Failure> {
        self.prepare(self.data_dir().join(place_of(name)), text)
            .await
    }

    /// The same for `admin.key`, when that has the text whose digest this is.
    pub(super) async fn prepare_admin_file(
        &self,
        digest: [u8; 32],
        text: &Secret<String>,
    ) -> Result<Option<KeyFile>, Failure> {
        let path = self.data_dir().join(ADMIN_KEY);
        let known = read(&path);
        if known.is_none_or(|known| known.digest != digest) {
            return Ok(None);
        }
        self.prepare(path, text).await.map(Some)
    }

    /// A key that is revoked has no file any more.
    pub(crate) async fn remove_key_file(&self, row: &KeyRow) {
        if row.rotate_every.is_none() {
            return;
        }
        let path = self.data_dir().join(place_of(&row.name));
        let removing = tokio::task::spawn_blocking(move || {
            let is_it = |kept: StoredKey| kept.digest;
            (read(&path).map(is_it), path)
        });
        let Ok((digest, path)) = removing.await else {
            return;
        };
        // Another key may have that name since.
        if digest == Some(row.digest)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(%error, path = %path.display(), "the file of a revoked key cannot be removed");
        }
    }

    /// Puts texts that the store knows of in their place, and throws the others away; whether that went well for all.
    /// For who has the turn, or is alone.
    pub(crate) async fn settle_key_files(&self) -> bool {
        let dir = self.data_dir();
        let drafts = fs::read_dir(dir.join(FOLDER))
            .into_iter()
            .flatten()
            .flatten();
        let drafts = drafts.map(|entry| entry.path());
        let admin = Some(draft_of(&dir.join(ADMIN_KEY))).filter(|path| path.exists());
        let mut all = true;
        for draft in drafts.chain(admin).filter(|path| is_draft(path)) {
            if let Err(failure) = self.settle(&draft).await {
                tracing::warn!(%failure, "the new text of a key is not in its place yet; it is tried again");
                all = false;
            }
        }
        all
    }

    async fn settle(&self, draft: &Path) -> Result<(), Failure> {
        let Some(kept) = read(draft) else {
            return Ok(());
        };
        // A write whose answer was lost may be on its way still.
        self.store().settle_writes().await?;
        let row = self.store().key_with_prefix(kept.prefix.as_str()).await?;
        let row = row.filter(|row| row.digest == kept.digest && row.revoked_at.is_none());
        let settled = match &row {
            Some(_) => publish(draft, &draft.with_extension("")),
            None => fs::remove_file(draft),
        };
        settled.map_err(|error| unwritten(draft, error))
    }

    async fn prepare(&self, path: PathBuf, text: &Secret<String>) -> Result<KeyFile, Failure> {
        let (failed, text) = (path.clone(), text.clone());
        let file = KeyFile {
            draft: draft_of(&path),
            path,
            is_entrusted: false,
        };
        if file.draft.exists() {
            self.settle(&file.draft).await?;
        }
        let writing = tokio::task::spawn_blocking(move || {
            if let Some(folder) = file.draft.parent() {
                let mut make = fs::DirBuilder::new();
                make.recursive(true).mode(0o700).create(folder)?;
            }
            let line = Secret::new(format!("{}\n", text.expose()));
            write(&file.draft, line.expose().as_bytes())?;
            Ok(file)
        });
        let written: io::Result<KeyFile> = writing.await.map_err(Failure::internal)?;
        written.map_err(|error| unwritten(&failed, error))
    }

    fn data_dir(&self) -> &Path {
        &self.inner.context.config.server.data_dir
    }
}

fn is_draft(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "new")
}

/// What would be kept of the key whose text stands in a file.
fn read(path: &Path) -> Option<StoredKey> {
    let text = Secret::new(fs::read_to_string(path).ok()?);
    StoredKey::of(text.expose().trim())
}

fn unwritten(path: &Path, error: io::Error) -> Failure {
    let detail = format!(
        "The file {} of the key cannot be written: {error}",
        path.display()
    );
    Failure::new(Kind::StoreUnavailable, detail).caused_by(error)
}
