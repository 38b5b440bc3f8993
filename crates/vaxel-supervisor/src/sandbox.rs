//! Hides paths from a process tree.
//!
//! The tree gets a view of the file system of its own (a mount namespace) in which an empty,
//! read-only file system lies over every hidden path. Landlock, the other candidate, can only allow:
//! to hide one directory below the home directory, everything beside it would have to be listed, and
//! what is created later (`~/.npm`, a clone of a repository) could not be used by the tree that
//! created it. Where no mount namespace can be made, the report says so.

use std::{fs, path::PathBuf};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, getgid, getuid},
};

use crate::SandboxReport;

/// Hides `paths` from this process and everything that it starts. Called while the process has one
/// thread, which a user namespace asks for.
pub(crate) fn hide(paths: &[PathBuf]) -> SandboxReport {
    let paths: Vec<&PathBuf> = paths.iter().filter(|path| path.exists()).collect();
    if paths.is_empty() {
        return SandboxReport::default();
    }
    let mut report = SandboxReport::default();
    match own_view() {
        Ok(()) => {}
        Err(error) => {
            report.notes.push(format!(
                "the data directory is not hidden from this service: this kernel or container \
                 refuses a file system view of its own ({error})"
            ));
            return report;
        }
    }
    report.data_dir_hidden = true;
    for path in paths {
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let options = Some("size=4k,mode=0555");
        if let Err(error) = mount(Some("vaxel-hidden"), path, Some("tmpfs"), flags, options) {
            report.data_dir_hidden = false;
            report
                .notes
                .push(format!("{} could not be hidden ({error})", path.display()));
        }
    }
    report
}

/// A mount namespace whose changes nobody else sees.
fn own_view() -> nix::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        stay_who_we_are(uid, gid)?;
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
}

/// In a new user namespace nobody is anybody until the ids are mapped; ours are mapped to themselves.
fn stay_who_we_are(uid: Uid, gid: Gid) -> nix::Result<()> {
    let write = |file: &str, text: String| {
        fs::write(file, text)
            .map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}
