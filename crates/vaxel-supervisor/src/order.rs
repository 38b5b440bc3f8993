//! What a caller asks for: one process, with its environment, bounds and what it must not reach.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use vaxel_core::secret::Secret;

/// One process to start.
#[derive(Debug, Clone)]
pub struct Order {
    /// Name of the service; its log file is `<name>.log`.
    pub name: String,
    /// Which replica of the service; shown in log lines.
    pub replica: u16,
    /// A path, or a name that is looked up in the `PATH` of the child.
    pub program: String,
    /// Arguments after the program's own name.
    pub args: Vec<String>,
    /// Variables on top of [`Config::base_env`](crate::Config::base_env). Names that begin with
    /// `VAXEL_` are left out.
    pub env: BTreeMap<String, Secret<String>>,
    /// Working directory, absolute; absent: the child's HOME, or `/` without one.
    pub cwd: Option<PathBuf>,
    /// Bounds of the process and everything below it.
    pub limits: Limits,
    /// Paths that the tree must not reach, such as the data directory. See [`SandboxReport`]
    /// for what came of it.
    ///
    /// [`SandboxReport`]: crate::SandboxReport
    pub hidden: Vec<PathBuf>,
}

/// Bounds of one process tree; what is absent is unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of the whole tree, in bytes. Above it the tree is killed.
    pub memory_bytes: Option<u64>,
    /// Processes in the tree. Where the kernel's controller is at hand further ones are refused,
    /// elsewhere the tree is killed.
    pub processes: Option<u32>,
    /// Open files of each process; at least 64.
    pub open_files: Option<u64>,
}

impl Limits {
    /// Whether the tree as a whole has a bound that somebody must watch.
    pub(crate) const fn bounds_the_tree(self) -> bool {
        self.memory_bytes.is_some() || self.processes.is_some()
    }
}
