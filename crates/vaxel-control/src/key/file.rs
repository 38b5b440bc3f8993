//! Files with the texts of keys: `admin.key`, and one for each key that gets another secret by itself, so that the
//! program that uses it finds it there. Mode 0600.
//!
//! A new text lies beside the old one before the store knows of it, and takes its place afterwards. So at a start
//! the store says of a text that lies there whether it is the new one or never was.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use vaxel_auth::key::StoredKey;
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
/// What the name of a text ends with until the store knows of it.
const DRAFT: &str = ".new";

/// A text that lies beside the one that it is to replace. Unless it is published it goes away.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    draft: PathBuf,
}

impl KeyFile {
    /// Puts it in its place.
    pub(crate) async fn publish(self) -> Result<(), Failure> {
        let path = self.path.clone();
        let publishing = tokio::task::spawn_blocking(move || publish(&self.draft, &self.path));
        let published = publishing.await.map_err(Failure::internal)?;
        published.map_err(|error| unwritten(&path, error))
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        // It is gone already when it was published; otherwise the next start removes it.
        let _ = fs::remove_file(&self.draft);
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

    /// Puts texts of an earlier run in their place, or throws them away.
    pub(crate) async fn settle_key_files(&self) -> Result<(), Failure> {
        let dir = self.data_dir();
        let drafts = fs::read_dir(dir.join(FOLDER))
            .into_iter()
            .flatten()
            .flatten();
        let drafts = drafts.map(|entry| entry.path());
        let admin = draft_of(&dir.join(ADMIN_KEY));
        for draft in drafts.chain([admin]).filter(|path| is_draft(path)) {
            let Some(kept) = read(&draft) else { continue };
            let row = self.store().key_with_prefix(kept.prefix.as_str()).await?;
            let counts =
                row.is_some_and(|row| row.digest == kept.digest && row.revoked_at.is_none());
            let settled = if counts {
                publish(&draft, &draft.with_extension(""))
            } else {
                fs::remove_file(&draft)
            };
            settled.map_err(|error| unwritten(&draft, error))?;
        }
        Ok(())
    }

    async fn prepare(&self, path: PathBuf, text: &Secret<String>) -> Result<KeyFile, Failure> {
        let (failed, text) = (path.clone(), text.clone());
        let file = KeyFile {
            draft: draft_of(&path),
            path,
        };
        let writing = tokio::task::spawn_blocking(move || {
            write(&file.draft, &text)?;
            Ok(file)
        });
        let written: io::Result<KeyFile> = writing.await.map_err(Failure::internal)?;
        written.map_err(|error| unwritten(&failed, error))
    }

    fn data_dir(&self) -> &Path {
        &self.inner.context.config.server.data_dir
    }
}

fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(DRAFT);
    draft.into()
}

fn is_draft(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "new")
}

/// What would be kept of the key whose text stands in a file.
fn read(path: &Path) -> Option<StoredKey> {
    let text = Secret::new(fs::read_to_string(path).ok()?);
    StoredKey::of(text.expose().trim())
}

fn write(draft: &Path, text: &Secret<String>) -> io::Result<()> {
    if let Some(folder) = draft.parent() {
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o700).create(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(draft)?;
    file.write_all(text.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    fs::rename(draft, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn unwritten(path: &Path, error: io::Error) -> Failure {
    let detail = format!(
        "The file {} of the key cannot be written: {error}",
        path.display()
    );
    Failure::new(Kind::StoreUnavailable, detail).caused_by(error)
}
