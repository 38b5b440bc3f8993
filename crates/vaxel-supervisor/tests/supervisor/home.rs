//! A supervisor in a folder of its own, and eyes on the processes of the machine.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use vaxel_core::time::Clock;
use vaxel_supervisor::{Config, Limits, Order, Process, Supervisor};

/// The longest that anything here may take; reaching it is a failure, not a measurement.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn shim() -> PathBuf {
    env!("CARGO_BIN_EXE_vaxel-test-shim").into()
}

/// A folder and a supervisor; every process started from it carries its path as `MARK`.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) supervisor: Supervisor,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = folder();
        let mut config = config(dir.path());
        change(&mut config);
        let supervisor = Supervisor::new(config, Clock::system());
        Self { dir, supervisor }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn mark(&self) -> String {
        self.path().display().to_string()
    }

    pub(crate) async fn sh(&self, script: &str) -> Process {
        self.supervisor.spawn(sh(script)).await.unwrap()
    }

    /// Living processes that this home started, directly or not.
    pub(crate) fn living(&self) -> Vec<u32> {
        marked(&self.mark())
    }
}

/// Not below `/tmp`: what is hidden in a test must not be beside what everyone needs.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("supervisor-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
}

pub(crate) fn config(dir: &Path) -> Config {
    let base_env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("HOME".to_owned(), dir.display().to_string()),
        ("MARK".to_owned(), dir.display().to_string()),
    ]);
    Config {
        program: shim(),
        shim_args: Vec::new(),
        base_env,
        start_timeout: DEADLINE,
        stop_grace: Duration::from_secs(10),
        log_dir: dir.join("logs"),
        log_max_bytes: 10 << 20,
        log_files: 3,
        log_line_max: 1024,
        log_tail: 100,
    }
}

pub(crate) fn sh(script: &str) -> Order {
    Order {
        name: "test".to_owned(),
        replica: 0,
        program: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::new(),
        cwd: None,
        limits: Limits::default(),
        hidden: Vec::new(),
    }
}

/// Living processes whose environment holds `MARK=mark`. Zombies have no environment any more.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("MARK={mark}");
    let holds = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    };
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(holds)
        .collect()
}

/// The field of `/proc/PID/status`, if the process is there.
pub(crate) fn status(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

pub(crate) fn parent(pid: u32) -> u32 {
    status(pid, "PPid").unwrap().parse().unwrap()
}

/// Waits until `is` holds.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, wait).await.is_ok(),
        "never: {what}"
    );
}

/// The next line that the process writes.
pub(crate) async fn line(stdout: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, stdout);
    tokio::time::timeout(DEADLINE, reader.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    line.trim_end().to_owned()
}

/// All that it writes until it closes its standard output.
pub(crate) async fn all(stdout: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    tokio::time::timeout(DEADLINE, stdout.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    text
}
