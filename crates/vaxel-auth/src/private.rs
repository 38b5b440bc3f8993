//! Files that nobody but their owner reads (mode 0600), and that are there whole or not at all, also after the machine
//! lost its power: the bytes are on the disk before the name is, and the name before anybody is told.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What the name of a file ends with until it takes its place.
const DRAFT: &str = ".new";

/// Where what is to take the place of `path` lies until then: beside it.
pub fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(DRAFT);
    draft.into()
}

/// Puts a file with these bytes in the place of what is there. What is left of an earlier try that was killed is
/// overwritten. One at a time per path.
///
/// # Errors
/// Those of the file system; what was there is there still.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = Draft(draft_of(path));
    write(&draft.0, bytes)?;
    publish(&draft.0, path)
}

/// Makes a file with these bytes, whose name may be gone after a crash: for [`publish`].
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A file that is there may have another mode, or be a link to somewhere else.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a file another name, for good.
///
/// # Errors
/// Those of the file system; when the folder cannot be synced, it has the name already.
pub fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    fs::rename(draft, path)?;
    sync_folder(path)
}

/// Removes a file, if there is one, for good.
///
/// # Errors
/// Those of the file system.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path),
    }
}

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// A file that goes away when it is no longer needed.
pub(crate) struct Draft(pub(crate) PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // What stays behind when this fails lies in the same folder with the same permissions.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_takes_the_place_of_another_one_whatever_an_earlier_try_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        fs::write(&path, "before").unwrap();
        std::os::unix::fs::symlink(&elsewhere, draft_of(&path)).unwrap();
        replace(&path, b"after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!draft_of(&path).exists());
        let missing = folder.path().join("none/a.key");
        assert!(replace(&missing, b"x").is_err());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
