//! A running process as its owner sees it: pipes, a handle, and how it ended.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    process::{ChildStdin, ChildStdout},
    sync::watch,
    time::timeout,
};
use vaxel_core::time::Timestamp;

use crate::{Limits, cgroup::Cgroup, supervisor::Inner};

/// How long a killed tree may take to disappear before its owner is told that it ended anyway
/// (a process in uninterruptible sleep cannot be killed).
pub(crate) const KILL_BOUND: Duration = Duration::from_secs(3);

/// A process that was started: its pipes and its handle. Standard error is read by the supervisor.
#[derive(Debug)]
pub struct Process {
    /// Standard input of the child.
    pub stdin: ChildStdin,
    /// Standard output of the child.
    pub stdout: ChildStdout,
    /// Everything else.
    pub handle: ProcessHandle,
}

/// Knows and ends one process tree. Cheap to clone; dropping it ends nothing (the supervisor keeps
/// the process until it is stopped, killed or exits).
#[derive(Clone)]
pub struct ProcessHandle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) replica: u16,
    pub(crate) pid: u32,
    pub(crate) shim: u32,
    pub(crate) started_at: Timestamp,
    pub(crate) sandbox: SandboxReport,
    pub(crate) limits: Limits,
    pub(crate) cgroup: Cgroup,
    pub(crate) reason: Mutex<Option<String>>,
    pub(crate) exit: watch::Receiver<Option<Exit>>,
    /// Only ever raised.
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) inner: Arc<Inner>,
}

/// What is to become of a process, in the order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    Running,
    Stopped,
    Killed,
}

impl ProcessHandle {
    /// Id of the main process.
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// When it was started.
    pub fn started_at(&self) -> Timestamp {
        self.shared.started_at
    }

    /// What the whole tree uses now. Reads `/proc`, at most four times a second for all handles
    /// together; in between the last answer is repeated.
    pub fn usage(&self) -> Usage {
        self.shared.inner.census().usage(self.shared.shim)
    }

    /// Waits until the tree is gone and says how the main process ended.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.shared.exit.clone();
        match exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exit)) => exit.clone(),
            // The runtime of the driver was shut down under it.
            _ => Exit::lost(self.shared.inner.clock.now()),
        }
    }

    /// Ends the tree: waits a quarter of the grace for the process to follow the end of its standard
    /// input (which the caller has closed), sends SIGTERM to the tree, waits the grace, kills the
    /// tree. Takes at most 1.25 × the grace and three seconds. It goes on when the future is dropped.
    pub async fn stop(&self) -> Exit {
        self.set_reason("stopped");
        self.want(Wanted::Stopped);
        let bound = self.shared.inner.config.stop_grace.mul_f32(1.25) + KILL_BOUND;
        let exited = timeout(bound, self.exited()).await;
        exited.unwrap_or_else(|_| Exit::lost(self.shared.inner.clock.now()))
    }

    /// Kills the tree at once, without waiting. `reason` becomes [`Exit::reason`] unless an earlier
    /// one stands.
    pub fn kill(&self, reason: &str) {
        self.set_reason(reason);
        self.want(Wanted::Killed);
    }

    /// What the tree cannot reach.
    pub fn sandbox(&self) -> &SandboxReport {
        &self.shared.sandbox
    }

    fn set_reason(&self, reason: &str) {
        self.shared
            .reason
            .lock()
            .get_or_insert_with(|| reason.to_owned());
    }

    fn want(&self, wanted: Wanted) {
        self.shared.wanted.send_if_modified(|now| {
            let raised = wanted > *now;
            *now = wanted.max(*now);
            raised
        });
    }
}

impl fmt::Debug for ProcessHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessHandle")
            .field("name", &self.shared.name)
            .field("replica", &self.shared.replica)
            .field("pid", &self.shared.pid)
            .finish_non_exhaustive()
    }
}

/// What a process tree uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time since the start, user and system, of every process of the tree that lives or was
    /// waited for.
    pub cpu: Duration,
    /// Memory in bytes: what each process has for itself, plus the shared pages of the largest one.
    pub memory_bytes: u64,
    /// Living processes.
    pub processes: u32,
}

/// How a process ended. `Display` is a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit code of the main process, when it ended by itself.
    pub code: Option<i32>,
    /// Signal that ended the main process.
    pub signal: Option<i32>,
    /// Why we ended it, or what is known beyond code and signal; `killed: 612 MiB of memory, limit
    /// 512 MiB`.
    pub reason: Option<String>,
    /// When the end was noticed.
    pub at: Timestamp,
}

impl Exit {
    /// An end about which nothing is known.
    pub(crate) fn lost(at: Timestamp) -> Self {
        Self {
            code: None,
            signal: None,
            reason: Some("its end could not be observed in time".to_owned()),
            at,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "The process exited with code {code}")?,
            (None, Some(signal)) => {
                write!(
                    f,
                    "The process ended by signal {signal}{}",
                    signal_name(signal)
                )?;
            }
            (None, None) => f.write_str("The process ended")?,
        }
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// What the sandbox of one process does, and what could not be done here.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxReport {
    /// The tree can reach none of [`Order::hidden`](crate::Order::hidden).
    pub data_dir_hidden: bool,
    /// What this kernel or this layout of directories did not allow, and what the hiding costs.
    /// Sentences.
    pub notes: Vec<String>,
}
