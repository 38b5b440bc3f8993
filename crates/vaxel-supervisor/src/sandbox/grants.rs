//! Landlock: what a tree may reach, when hidden paths cannot be covered.
//!
//! Landlock only grants: what is beneath a granted directory is reachable, the rest is not, and a
//! grant cannot be taken back further down. To hide one directory, everything *beside* it and beside
//! each of its ancestors is granted. Consequences, and what is done about them:
//!
//! - What is created later directly in an ancestor (`~/.thing`, for a data directory in `~`) was not
//!   there to be granted: the tree can make such a directory but no file in it until it is started
//!   again. The folders that package runners and the XDG base directories use are therefore made
//!   beforehand, and a temporary directory that is an ancestor is replaced by one inside it. What
//!   remains stands in the report.
//! - Rights that keep no secret are left alone, so that they harm nobody: listing and making
//!   directories, executing.
//! - A file that is replaced (not rewritten) directly in an ancestor is a new file.
//!
//! Every domain also forbids mounts, tracing of processes outside the tree (so nothing is read through
//! `/proc/PID` of Vaxel) and gain by set-user-ID programs (`sudo`). Other mounts of the same file
//! system that show the hidden directory elsewhere are not covered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, make_bitflags,
};
use rustix::{
    fs::{Access, access},
    process::geteuid,
};

/// Folders below HOME that are made before grants that would keep the tree from using them.
const EXPECTED: &[&str] = &[
    ".cache",
    ".config",
    ".local/bin",
    ".local/share/uv",
    ".local/state",
    ".mcp-auth",
    ".npm",
];
/// More grants than this (a temporary directory with very many entries) are not made.
const GRANTS_MAX: usize = 16 * 1024;

/// Rights that are granted on a file.
const ON_FILES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile});
/// Rights that are handled at all, and granted on a directory. `Refer` must be among them: unhandled,
/// it forbids moving files between directories.
const HANDLED: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | WriteFile | RemoveFile | RemoveDir | MakeReg | MakeSym | MakeSock | MakeFifo
    | MakeChar | MakeBlock | Refer
});
/// The least that makes a domain.
const LOCK: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeBlock | Refer});

/// What to grant so that `hidden` is out of reach, and what that costs. Prepares the folders that the
/// tree will miss otherwise. The error says why it is not possible.
pub(super) fn plan(
    hidden: &BTreeSet<PathBuf>,
    env: &mut BTreeMap<String, String>,
) -> Result<(Vec<PathBuf>, Vec<String>), String> {
    let chain: BTreeSet<PathBuf> = hidden
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .map(Path::to_owned)
        .collect();
    let home = env.get("HOME").and_then(|home| fs::canonicalize(home).ok());
    let mut notes = prepare(&chain, home.as_deref(), env);
    notes.extend(costs(&chain));
    Ok((beside(hidden, &chain)?, notes))
}

/// Restricts the calling thread, and what it starts, to `grants`; with a note when this kernel cannot
/// do all of it.
pub(super) fn restrict(grants: &[PathBuf]) -> Result<Option<String>, String> {
    match try_restrict(grants) {
        Ok(RulesetStatus::FullyEnforced) => Ok(None),
        Ok(RulesetStatus::PartiallyEnforced) => Ok(Some(
            "This kernel (before 6.2) cannot keep the process from emptying files in the data directory."
                .to_owned(),
        )),
        Ok(RulesetStatus::NotEnforced) => Err("this kernel has no Landlock".to_owned()),
        Err(error) => Err(too_old(&error)),
    }
}

/// Puts the calling thread, and what it starts, into a domain that grants everything but mounts and
/// tracing.
pub(super) fn lock() -> Result<(), String> {
    let attempt = || {
        let file = PathFd::new("/").ok();
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(LOCK)?
            .create()?;
        if let Some(file) = file {
            ruleset = ruleset.add_rule(PathBeneath::new(file, LOCK))?;
        }
        ruleset.restrict_self()
    };
    match attempt() {
        Ok(_) => Ok(()),
        Err(error) => Err(too_old(&error)),
    }
}

fn too_old(error: &RulesetError) -> String {
    format!("this kernel has no Landlock of Linux 5.19 or newer ({error})")
}

fn try_restrict(grants: &[PathBuf]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        // Version 1 would forbid moving files between any directories: worse than no sandbox.
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(HANDLED)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::Truncate)?
        .create()?;
    for path in grants {
        grant(&mut ruleset, path);
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

fn grant(ruleset: &mut RulesetCreated, path: &Path) {
    let Ok(file) = PathFd::new(path) else {
        // Gone meanwhile, or not to be reached by this user anyway.
        return;
    };
    let rights = if path.is_dir() { HANDLED } else { ON_FILES };
    // A path that cannot be granted (of an internal file system) is unreachable: the safe side.
    let _ = ruleset.add_rule(PathBeneath::new(file, rights | AccessFs::Truncate));
}

/// Every entry of the directories of `chain` that is neither hidden nor on the way to what is.
fn beside(hidden: &BTreeSet<PathBuf>, chain: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, String> {
    let mut grants = Vec::new();
    // A hidden path can be inside another one.
    for dir in chain
        .iter()
        .filter(|dir| !hidden.iter().any(|hidden| dir.starts_with(hidden)))
    {
        let entries = fs::read_dir(dir)
            .map_err(|error| format!("{} cannot be listed: {error}", dir.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            // A symbolic link needs no right of its own, and a grant for it would be one for its target.
            let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if !link && !hidden.contains(&path) && !chain.contains(&path) {
                grants.push(path);
            }
        }
        if grants.len() > GRANTS_MAX {
            return Err(format!(
                "{} and its ancestors hold more than {GRANTS_MAX} entries",
                dir.display()
            ));
        }
    }
    Ok(grants)
}

/// Makes what the tree could not make for itself. What fails is no worse than without.
fn prepare(
    chain: &BTreeSet<PathBuf>,
    home: Option<&Path>,
    env: &mut BTreeMap<String, String>,
) -> Vec<String> {
    if let Some(home) = home.filter(|home| chain.contains(*home)) {
        for expected in EXPECTED {
            let mut dir = home.to_owned();
            for part in Path::new(expected) {
                if !chain.contains(&dir) {
                    break;
                }
                dir.push(part);
                if let Err(error) = private_dir(&dir) {
                    tracing::debug!(dir = %dir.display(), %error, "A folder for packages was not made");
                }
            }
        }
    }
    let temporary = env.get("TMPDIR").map_or("/tmp", String::as_str);
    let temporary = fs::canonicalize(temporary)
        .ok()
        .filter(|dir| chain.contains(dir));
    let Some(temporary) = temporary else {
        return Vec::new();
    };
    let inner = temporary.join(format!("vaxel-{}", geteuid().as_raw()));
    match private_dir(&inner) {
        Ok(()) => {
            let note = format!(
                "TMPDIR is {}, because {} holds the data directory.",
                inner.display(),
                temporary.display()
            );
            env.insert("TMPDIR".to_owned(), inner.to_string_lossy().into_owned());
            vec![note]
        }
        Err(error) => vec![format!(
            "No temporary directory could be made in {}: {error}.",
            temporary.display()
        )],
    }
}

/// Makes a directory for this user alone; one that exists must be this user's.
fn private_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(dir)?;
            if found.is_dir() && found.uid() == geteuid().as_raw() {
                return Ok(());
            }
            Err(io::Error::other(format!(
                "{} belongs to someone else or is no directory",
                dir.display()
            )))
        }
        other => other,
    }
}

/// What the hiding costs this user.
fn costs(chain: &BTreeSet<PathBuf>) -> Option<String> {
    let writable: Vec<String> = chain
        .iter()
        .filter(|dir| access(*dir, Access::WRITE_OK).is_ok())
        .map(|dir| dir.display().to_string())
        .collect();
    (!writable.is_empty()).then(|| {
        let dirs = writable.join(", ");
        format!("Hiding the data directory means: what is created directly in {dirs} while this process runs is out of its reach until it is started again.")
    })
}
