//! The supervisor: starts processes on request, knows all that run, and ends them all.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::{OnceCell, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vaxel_core::time::Clock;

use crate::{
    Error, Logs, Order, Process, ProcessHandle,
    census::Census,
    cgroup::Cgroups,
    driver,
    logs::{self, Bounds, Rotation, Writer},
    process::KILL_BOUND,
    sandbox::View,
    watch,
};

/// For how long one walk over `/proc` answers questions about usage.
const CENSUS_AGE: Duration = Duration::from_millis(250);

/// What a supervisor needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is run as shim; normally the running binary itself.
    pub program: PathBuf,
    /// Its arguments before the name of the socket; normally `shim`.
    pub shim_args: Vec<OsString>,
    /// Variables of every child, below those of its order: `PATH`, `HOME`, locale, proxies.
    pub base_env: BTreeMap<String, String>,
    /// Longest time from the order to the running child.
    pub start_timeout: Duration,
    /// How long a stopped tree has between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// Where the log files are; made when missing, its parent is not.
    pub log_dir: PathBuf,
    /// Bytes after which a log file is rotated.
    pub log_max_bytes: u64,
    /// Rotated files that are kept per service.
    pub log_files: u32,
    /// Longest line in bytes; the rest is cut and counted.
    pub log_line_max: usize,
    /// Lines of each log that are kept in memory (at most 1 MiB of them).
    pub log_tail: usize,
}

/// Starts, knows and ends processes. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) cgroups: Cgroups,
    /// Children of this process that are shims. Locked while one is started, so that
    /// [`crate::orphans`] never mistakes a new shim for an orphan.
    pub(crate) shims: Mutex<HashSet<u32>>,
    /// What runs, by the pid of its shim.
    pub(crate) running: Mutex<HashMap<u32, ProcessHandle>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopped: CancellationToken,
    /// What the sandbox can do here, once somebody asked.
    pub(crate) view: OnceCell<Option<View>>,
    watching: AtomicBool,
    logs: Mutex<HashMap<String, Logs>>,
    rotation: Rotation,
    writer: Writer,
    census: Mutex<Option<(Instant, Arc<Census>)>>,
}

impl Supervisor {
    /// A supervisor without processes. Starts the thread that writes log files.
    pub fn new(config: Config, clock: Clock) -> Self {
        Self::with_cgroups(config, clock, Cgroups::system())
    }

    /// The same for machines whose control groups must not be touched: bounds are kept by watching.
    pub fn without_cgroups(config: Config, clock: Clock) -> Self {
        Self::with_cgroups(config, clock, Cgroups::none())
    }

    fn with_cgroups(config: Config, clock: Clock, cgroups: Cgroups) -> Self {
        let rotation = Rotation {
            dir: config.log_dir.clone(),
            max_bytes: config.log_max_bytes,
            files: config.log_files,
        };
        let inner = Inner {
            writer: Writer::new(rotation.clone()),
            config,
            clock,
            cgroups,
            shims: Mutex::default(),
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            stopped: CancellationToken::new(),
            view: OnceCell::new(),
            watching: AtomicBool::new(false),
            logs: Mutex::default(),
            rotation,
            census: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What would keep the process of `order` from starting, as far as can be seen without starting it:
    /// every problem, not only the first. Looks at the file system, so not for threads that must not wait.
    pub fn check(&self, order: &Order) -> Vec<Error> {
        crate::launch::problems(&self.inner, order)
    }

    /// Starts a process and returns when it runs. Dropping the future ends what was started.
    pub async fn spawn(&self, order: Order) -> Result<Process, Error> {
        if self.inner.stopped.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        if order.limits.bounds_the_tree() && !self.inner.watching.swap(true, Ordering::Relaxed) {
            self.inner.tasks.spawn(watch::run(
                Arc::downgrade(&self.inner),
                self.inner.stopped.clone(),
            ));
        }
        let (answer, process) = oneshot::channel();
        self.inner
            .tasks
            .spawn(driver::run(Arc::clone(&self.inner), order, answer));
        // The driver always answers unless its runtime is shut down.
        process.await.unwrap_or(Err(Error::ShuttingDown))
    }

    /// The log of a service; begun when it has none. Blocks for one short read of its file then.
    pub fn logs(&self, name: &str) -> Logs {
        self.inner.logs(name)
    }

    /// Starts nothing more, stops everything at once, and writes the logs out. Takes at most
    /// 1.25 × the grace and ten seconds.
    pub async fn shutdown(&self) {
        self.inner.stopped.cancel();
        self.inner.tasks.close();
        let running: Vec<ProcessHandle> = self.inner.running.lock().values().cloned().collect();
        for handle in running {
            self.inner.tasks.spawn(async move { handle.stop().await });
        }
        // A process that was just being started is killed by its driver.
        let bound = self.inner.config.stop_grace.mul_f32(1.25) + 2 * KILL_BOUND;
        if timeout(bound, self.inner.tasks.wait()).await.is_err() {
            tracing::error!("Not every process could be ended in time");
        }
        let writer = self.inner.writer.clone();
        let flushed = tokio::task::spawn_blocking(move || writer.flush(Duration::from_secs(1)));
        if flushed.await.is_err() {
            tracing::warn!("The last lines of the log files may be missing");
        }
    }
}

impl Inner {
    pub(crate) fn logs(&self, name: &str) -> Logs {
        let mut logs = self.logs.lock();
        if let Some(found) = logs.get(name) {
            return found.clone();
        }
        let bounds = Bounds {
            line_max: self.config.log_line_max,
            tail_max: self.config.log_tail,
        };
        let before = logs::recover(&self.rotation, name);
        let new = Logs::new(
            name,
            self.clock.clone(),
            &bounds,
            self.writer.clone(),
            before,
        );
        logs.insert(name.to_owned(), new.clone());
        new
    }

    /// A recent walk over `/proc`.
    pub(crate) fn census(&self) -> Arc<Census> {
        let now = self.clock.instant();
        let mut kept = self.census.lock();
        match &*kept {
            Some((at, census)) if now.duration_since(*at) < CENSUS_AGE => Arc::clone(census),
            _ => {
                let census = Arc::new(Census::take());
                *kept = Some((now, Arc::clone(&census)));
                census
            }
        }
    }
}
