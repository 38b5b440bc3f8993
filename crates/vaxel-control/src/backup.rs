//! Backups: everything that is stored, in one file. Made by the running server; read back by [`BackupFile`], for
//! which none has to run.

mod file;
mod kept;

use std::{
    fs::{self, File},
    io::{BufWriter, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use serde_json::json;
use vaxel_auth::{passphrase::Recipe, root::RootKeys};
use vaxel_core::{
    access::require,
    failure::Failure,
    principal::{Permission, Principal},
    secret::Secret,
};
use vaxel_store::{PRIVATE, Schema};

use crate::control::{Control, conflict};

pub use file::{BackupContents, BackupFile, BackupHead, DataFile};
use file::{FILES, ROOTS, Writer};
pub use kept::{KeptService, VALUES};

/// Longest time that writing a backup takes.
const LONGEST: Duration = Duration::from_hours(1);
/// What a backup is written to before it is sent. The file has no name any more then.
const DRAFT: &str = "backup.new";

/// A backup that was written, at its beginning; it goes away with this value.
#[derive(Debug)]
pub struct Backup {
    /// To be read.
    pub file: File,
    /// Its length.
    pub bytes: u64,
}

impl Control {
    /// Writes a backup of everything: with keys and sealed values, and itself sealed, when there is a
    /// passphrase, and without them otherwise. `system:manage`, and `keys:manage` with a passphrase.
    ///
    /// # Errors
    /// `NotPermitted`, `Conflict` while another one is written, `Invalid` for a passphrase that is too
    /// short, `StoreUnavailable` also when the disk is full.
    pub async fn backup(
        &self,
        caller: &Principal,
        passphrase: Option<Secret<String>>,
    ) -> Result<Backup, Failure> {
        require(caller, Permission::SystemManage)?;
        if passphrase.is_some() {
            require(caller, Permission::KeysManage)?;
        }
        let Ok(_turn) = self.inner.backup.try_lock() else {
            return Err(conflict(
                "Another backup is being written; try again when it is done".to_owned(),
            ));
        };
        let target = ("server", String::new(), String::new());
        let mut audit = self.line(caller, "backup.create", target);
        audit.detail = json!({ "with_keys": passphrase.is_some() });
        self.store().audit(audit.clone()).await?;
        let writing = tokio::time::timeout(LONGEST, self.write_backup(passphrase));
        let written = writing.await.map_err(Failure::internal).flatten();
        if let Err(failure) = &written {
            audit.outcome = failure.into();
            self.store().audit(audit).await?;
        }
        written
    }

    async fn write_backup(&self, passphrase: Option<Secret<String>>) -> Result<Backup, Failure> {
        let dir = self.inner.context.config.server.data_dir.clone();
        let without = if passphrase.is_some() { &[] } else { PRIVATE };
        let mut head = BackupHead::new(
            self.inner.context.config.server.version.clone(),
            self.store().stats().engine.to_owned(),
            self.now(),
            Schema::NEWEST,
        );
        let roots = self.inner.roots.keys.clone();
        let beginning = tokio::task::spawn_blocking(move || {
            let invented = passphrase.map(|passphrase| Recipe::invent(passphrase.expose()));
            let (recipe, key) = invented.transpose()?.unzip();
            head.keys = recipe;
            let draft = draft(&dir).map_err(unwritten)?;
            let mut writer = Writer::begin(draft, &head, key.as_ref()).map_err(unwritten)?;
            if key.is_some() {
                add_files(&mut writer, &dir, &roots)?;
            }
            Ok::<_, Failure>(writer)
        });
        let writer = beginning.await.map_err(Failure::internal)??;
        let writer = self.store().dump(without, writer).await?;
        let ending = tokio::task::spawn_blocking(move || {
            let mut file = writer
                .finish()?
                .into_inner()
                .map_err(std::io::Error::from)?;
            let bytes = file.stream_position()?;
            file.rewind()?;
            Ok(Backup { file, bytes })
        });
        ending.await.map_err(Failure::internal)?.map_err(unwritten)
    }
}

/// An empty file without a name.
fn draft(dir: &Path) -> std::io::Result<BufWriter<File>> {
    let path = dir.join(DRAFT);
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(BufWriter::with_capacity(64 << 10, file))
}

fn add_files(
    writer: &mut Writer<BufWriter<File>>,
    dir: &Path,
    roots: &RootKeys,
) -> Result<(), Failure> {
    // Also where they are given, and no files: it must open without anything else.
    for (name, key) in roots.files() {
        writer.file(name, &key).map_err(unwritten)?;
    }
    for name in FILES.into_iter().filter(|name| !ROOTS.contains(name)) {
        match fs::read(dir.join(name)) {
            Ok(bytes) => writer.file(name, &Secret::new(bytes)).map_err(unwritten)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritten(error)),
        }
    }
    writer.flush().map_err(unwritten)
}

fn unwritten(error: std::io::Error) -> Failure {
    use std::io::ErrorKind;
    let kind = vaxel_core::failure::Kind::StoreUnavailable;
    let detail = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "The backup cannot be written: the disk of the data directory is full"
        }
        _ => "The backup cannot be written to the data directory",
    };
    Failure::new(kind, detail).caused_by(error)
}
