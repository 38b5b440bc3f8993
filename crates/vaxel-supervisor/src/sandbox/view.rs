//! A view of the file system in which hidden paths are covered.

use std::{collections::BTreeSet, fs, path::PathBuf};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use serde::{Deserialize, Serialize};

/// How a process comes to a view of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum View {
    /// By its rights.
    Plain,
    /// Within a user namespace.
    User,
}

/// The first way that works for this process, which is of no further use.
pub(super) fn try_all() -> Option<View> {
    let covered = BTreeSet::from([PathBuf::from("/")]);
    [View::Plain, View::User]
        .into_iter()
        .find(|view| hide(*view, &covered).is_ok())
}

/// Covers `paths` for this process and everything it starts.
pub(super) fn hide(view: View, paths: &BTreeSet<PathBuf>) -> nix::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    match view {
        View::Plain => unshare(CloneFlags::CLONE_NEWNS)?,
        View::User => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
            // Until the ids are mapped nobody is anybody; ours are mapped to themselves.
            write("/proc/self/setgroups", "deny")?;
            write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
            write("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
        }
    }
    // What is mounted here must not appear for anyone else; later mounts of others may appear here.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for path in paths {
        mount(
            Some("vaxel-hidden"),
            path,
            Some("tmpfs"),
            flags,
            Some("size=4k,mode=0555"),
        )?;
    }
    Ok(())
}

fn write(file: &str, text: &str) -> nix::Result<()> {
    fs::write(file, text).map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))
}
