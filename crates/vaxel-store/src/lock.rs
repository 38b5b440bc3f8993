//! One Vaxel per data directory: a lock on a file in it, for the life of the process.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::error::Error;

/// How long the lock of a process that is ending is waited for: looks, and the time between two.
const LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Held as long as the directory is used; the system lets go of it when the process ends.
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("lock");
        let unusable = |source: std::io::Error| Error::unusable(&path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        for look in 0.. {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(unusable(errno.into())),
            }
            let holder = holder(&mut file);
            if look == LOOKS || !is_ending(&holder) {
                let dir = dir.to_owned();
                return Err(Error::InUse { dir, pid: holder });
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        file.set_len(0).map_err(unusable)?;
        file.rewind().map_err(unusable)?;
        writeln!(file, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self { _file: file })
    }
}

/// Process id of who has the lock: a help, no more.
fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let _ = file.rewind();
    let _ = file.read_to_string(&mut pid);
    match pid.trim() {
        "" => "unknown".to_owned(),
        pid => pid.to_owned(),
    }
}

/// Whether a process has ended but for what the system still does for it. It has its files that long.
fn is_ending(pid: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The state follows the name, which stands in brackets and may hold any character.
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    state.starts_with(['Z', 'X'])
}
