//! Keeps a tree away from the paths it must not reach, in the best of the ways this machine has.
//!
//! **A view of its own** ([`view`]): in a mount namespace an empty, read-only file system lies over
//! each hidden path. Nothing else changes for the tree, so this comes first. As root the tree could
//! take that mount away again, or go around it through `/proc/PID/root`; a Landlock domain that grants
//! everything ([`grants::lock`]) forbids both, as it forbids all mounts and all tracing of processes
//! outside. Other users need a user namespace for it, in which the set-user-ID bit (`sudo`) means
//! nothing and files of other users belong to `nobody`.
//!
//! **Grants** ([`grants`]): where namespaces are refused (many containers, some distributions),
//! Landlock grants everything *beside* the hidden paths. What that costs stands in the report.
//!
//! Whether namespaces work is found out once, in a process that is thrown away ([`probe`]): half of a
//! user namespace cannot be left again. Neither way restricts signals. An order without hidden paths
//! gets no sandbox.

mod grants;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::{Deserialize, Serialize};

use crate::SandboxReport;

pub(crate) use view::View;

/// What a [`probe`] ends with when a mount namespace can be had.
const PLAIN: u8 = 100;
/// The same, within a user namespace.
const USER: u8 = 101;

/// Tries what this machine allows; for a process of its own. Its exit code is for [`View::probed`].
pub(crate) fn probe() -> ExitCode {
    match view::try_all() {
        Some(View::Plain) => ExitCode::from(PLAIN),
        Some(View::User) => ExitCode::from(USER),
        None => ExitCode::SUCCESS,
    }
}

impl View {
    /// What the exit code of [`probe`] says.
    pub(crate) fn probed(code: Option<i32>) -> Option<Self> {
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(PLAIN) => Some(Self::Plain),
            Some(USER) => Some(Self::User),
            _ => None,
        }
    }
}

/// What is hidden, and for which program.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Hiding {
    pub(crate) paths: Vec<PathBuf>,
    /// Absent: namespaces are refused here.
    pub(crate) view: Option<View>,
}

/// A sandbox that waits for the thread that starts the program.
pub(crate) struct Sandbox {
    rest: Rest,
    notes: Vec<String>,
}

/// What is still to be done by that thread.
enum Rest {
    /// Nothing is hidden.
    Open,
    /// The view is in place.
    Done,
    /// The view is in place, and must be kept there.
    Lock,
    Grant(Vec<PathBuf>),
}

/// First half, while this process has one thread (a user namespace asks for that): gives the process
/// a view of its own, or decides what to grant. `TMPDIR` may change.
pub(crate) fn begin(
    hiding: &Hiding,
    program: &Path,
    cwd: &Path,
    env: &mut BTreeMap<String, String>,
) -> Sandbox {
    if hiding.paths.is_empty() {
        return Sandbox {
            rest: Rest::Open,
            notes: Vec::new(),
        };
    }
    let begun = resolve(&hiding.paths, program, cwd, env).and_then(|hidden| {
        let seen = hiding.view.map(|view| view::hide(view, &hidden));
        match seen {
            Some(Ok(())) if rustix::process::geteuid().is_root() => Ok(Sandbox {
                rest: Rest::Lock,
                notes: Vec::new(),
            }),
            Some(Ok(())) => Ok(Sandbox {
                rest: Rest::Done,
                notes: Vec::new(),
            }),
            Some(Err(_)) | None => {
                let (grants, notes) = grants::plan(&hidden, env)?;
                Ok(Sandbox {
                    rest: Rest::Grant(grants),
                    notes,
                })
            }
        }
    });
    begun.unwrap_or_else(|why| Sandbox {
        rest: Rest::Open,
        notes: vec![not_hidden(&why)],
    })
}

impl Sandbox {
    /// Second half: binds the calling thread and everything it starts.
    pub(crate) fn enter(self) -> SandboxReport {
        let Self { rest, mut notes } = self;
        let hidden = match rest {
            Rest::Open => false,
            Rest::Done => true,
            Rest::Lock => {
                if let Err(why) = grants::lock() {
                    notes.push(format!(
                        "The data directory is hidden, but as root this process can uncover it: {why}."
                    ));
                }
                true
            }
            Rest::Grant(grants) => match grants::restrict(&grants) {
                Ok(note) => {
                    notes.extend(note);
                    true
                }
                Err(why) => {
                    notes = vec![not_hidden(&why)];
                    false
                }
            },
        };
        SandboxReport {
            data_dir_hidden: hidden,
            notes,
        }
    }
}

fn not_hidden(why: &str) -> String {
    format!("The data directory is not hidden from this process: {why}.")
}

/// The real paths, unless what the process needs is inside one of them.
fn resolve(
    paths: &[PathBuf],
    program: &Path,
    cwd: &Path,
    env: &BTreeMap<String, String>,
) -> Result<BTreeSet<PathBuf>, String> {
    let real = |path: &PathBuf| {
        fs::canonicalize(path)
            .map_err(|error| format!("{} cannot be found ({error})", path.display()))
    };
    let hidden: BTreeSet<PathBuf> = paths.iter().map(real).collect::<Result<_, _>>()?;
    let home = env.get("HOME").and_then(|home| fs::canonicalize(home).ok());
    let needed = [
        ("its program", fs::canonicalize(program).ok()),
        ("its working directory", Some(cwd.to_owned())),
        ("its HOME", home),
    ];
    for (what, path) in needed {
        let inside = |path: &PathBuf| hidden.iter().any(|hidden| path.starts_with(hidden));
        if let Some(path) = path.filter(inside) {
            return Err(format!("{what} is inside it ({})", path.display()));
        }
    }
    Ok(hidden)
}
