//! No orphan: whoever ends, in whatever way, nothing of its tree stays.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdout, Command, Stdio},
};

use tokio::io::AsyncWriteExt;
use vaxel_supervisor::Process;

use crate::home::{Home, folder, line, marked, parent, shim, status, until};

/// A tree that does everything to get away: sessions of its own, double forks, forks below those.
const FUGITIVE: &str = "
    trap '' TERM HUP INT
    setsid sh -c 'trap \"\" TERM HUP; (setsid sleep 1000 &) ; sleep 1000 & wait' &
    (sh -c 'sleep 1000 & (sleep 1000 &) ; exec setsid sleep 1000' &)
    sleep 1000 &
    echo ready
";
/// Processes of [`FUGITIVE`] beside its main process.
const FUGITIVES: usize = 7;

/// A program that hosts a supervisor, so that it can be killed.
struct Host {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    home: tempfile::TempDir,
}

impl Host {
    fn start(script: &str) -> Self {
        let home = folder();
        let mut child = Command::new(shim())
            .arg("host")
            .args([shim().as_path(), home.path()])
            .args(["", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, home }
    }

    fn line(&mut self, prefix: &str) -> String {
        let line = self.lines.next().unwrap().unwrap();
        line.strip_prefix(prefix)
            .unwrap_or_else(|| panic!("{line}"))
            .trim()
            .to_owned()
    }

    fn living(&self) -> usize {
        marked(&self.home.path().display().to_string()).len()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Dead already in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, name: &str) {
    assert!(
        Command::new("kill")
            .args([name, &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

async fn fugitive(home: &Home, end: &str) -> Process {
    let mut process = home.sh(&format!("{FUGITIVE}{end}")).await;
    assert_eq!(line(&mut process.stdout).await, "ready");
    process
}

#[tokio::test]
async fn nothing_is_left_when_the_main_process_exits() {
    let home = Home::new();
    let process = fugitive(&home, "exit 5").await;
    assert_eq!(process.handle.exited().await.code, Some(5));
    assert_eq!(home.living(), Vec::<u32>::new());
}

#[tokio::test]
async fn nothing_is_left_when_a_process_is_killed() {
    let home = Home::new();
    let process = fugitive(&home, "while :; do sleep 1000; done").await;
    until("all run", || home.living().len() >= FUGITIVES).await;
    process.handle.kill("killed: for a test");
    process.handle.exited().await;
    assert_eq!(home.living(), Vec::<u32>::new());
}

#[tokio::test]
async fn nothing_is_left_when_vaxel_is_killed() {
    let mut host = Host::start(&format!("{FUGITIVE} while :; do sleep 1000; done"));
    host.line("hidden false");
    host.line("started");
    until("all run", || host.living() >= FUGITIVES).await;
    signal(host.child.id(), "-KILL");
    host.child.wait().unwrap();
    until("nothing is left", || host.living() == 0).await;
}

#[tokio::test]
async fn nothing_is_left_when_vaxel_is_killed_while_it_starts_a_process() {
    for _ in 0..20 {
        let mut host = Host::start(&format!("{FUGITIVE} while :; do sleep 1000; done"));
        // Right after the shim appeared, or the child, or neither.
        until("something below it runs", || {
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.child.id()))
                .is_ok_and(|all| !all.is_empty())
                || host.living() > 0
        })
        .await;
        signal(host.child.id(), "-KILL");
        host.child.wait().unwrap();
        until("nothing is left", || host.living() == 0).await;
    }
}

#[tokio::test]
async fn nothing_is_left_when_a_shim_is_killed_and_vaxel_is_told() {
    let mut host = Host::start(&format!("{FUGITIVE} while :; do sleep 1000; done"));
    host.line("hidden false");
    let child: u32 = host.line("started").parse().unwrap();
    until("all run", || host.living() >= FUGITIVES).await;
    signal(parent(child), "-KILL");
    until("nothing is left", || host.living() == 0).await;
    assert_eq!(host.line("child"), "ready");
    let ended = host.line("ended");
    assert!(
        ended.contains("its shim ended first (signal: 9 (SIGKILL))"),
        "{ended}"
    );
    let own = format!("/proc/{0}/task/{0}/children", host.child.id());
    assert_eq!(
        fs::read_to_string(own).unwrap(),
        "",
        "no zombie is left below Vaxel either"
    );
}

#[tokio::test]
async fn a_package_runner_between_is_no_shelter() {
    if Command::new("npx").arg("--version").output().is_err() {
        eprintln!("SKIPPED: npx is not installed");
        return;
    }
    let home = Home::new();
    let bin = home.path().join("node_modules/.bin");
    fs::create_dir_all(&bin).unwrap();
    let server = "#!/usr/bin/env node\nconsole.log('up'); process.on('SIGTERM', () => {}); setInterval(() => {}, 1000)";
    fs::write(bin.join("server"), server).unwrap();
    fs::set_permissions(bin.join("server"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut process = home.sh("npx --no server; true").await;
    assert_eq!(line(&mut process.stdout).await, "up");
    assert!(home.living().len() >= 3);
    process.handle.kill("killed: for a test");
    process.handle.exited().await;
    assert_eq!(home.living(), Vec::<u32>::new());
}

#[tokio::test]
async fn orphans_inside_the_tree_are_waited_for() {
    let home = Home::new();
    let mut process = home
        .sh("for i in 1 2 3 4 5 6 7 8; do (true &) ; done; echo ready; sleep 1000")
        .await;
    assert_eq!(line(&mut process.stdout).await, "ready");
    let shim = parent(process.handle.pid());
    let children = || fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    until("only the main process is left below the shim", || {
        children().trim() == process.handle.pid().to_string()
    })
    .await;
    process.handle.kill("killed: seen enough");
    process.handle.exited().await;
}

#[tokio::test]
async fn a_tree_cannot_reach_the_process_group_of_vaxel() {
    let home = Home::new();
    let process = home.sh("sleep 1000").await;
    let session = |pid: u32| status(pid, "NSsid").unwrap();
    let child = process.handle.pid();
    assert_eq!(
        session(child),
        parent(child).to_string(),
        "the shim leads the session of its tree"
    );
    assert_ne!(session(child), session(std::process::id()));
    process.handle.kill("killed: seen enough");
    process.handle.exited().await;
}

#[tokio::test]
async fn a_signal_to_every_process_at_once_does_not_take_the_reaper_before_its_tree() {
    let home = Home::new();
    let mut process = home
        .sh("trap 'echo asked' TERM; echo ready; while :; do read word && exit 6; done")
        .await;
    assert_eq!(line(&mut process.stdout).await, "ready");
    let child = process.handle.pid();
    for name in ["-TERM", "-INT", "-HUP", "-QUIT"] {
        signal(parent(child), name);
    }
    assert_eq!(
        status(child, "SigBlk").unwrap(),
        "0000000000000000",
        "the child hears everything"
    );
    signal(child, "-TERM");
    assert_eq!(line(&mut process.stdout).await, "asked");
    process.stdin.write_all(b"now\n").await.unwrap();
    let exit = process.handle.exited().await;
    assert_eq!((exit.code, exit.reason), (Some(6), None));
}

#[tokio::test]
async fn two_hundred_starts_and_ends_leave_neither_processes_nor_descriptors() {
    let home = Home::new();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    home.sh("true").await.handle.exited().await;
    let before = open();
    for round in 0..200 {
        let process = home.sh("setsid sleep 1000 & sleep 1000 & wait").await;
        if round % 2 == 0 {
            process.handle.kill("killed: for a test");
        } else {
            signal(process.handle.pid(), "-KILL");
        }
        drop((process.stdin, process.stdout));
        process.handle.exited().await;
    }
    assert_eq!(home.living(), Vec::<u32>::new());
    until("every descriptor is closed", || open() <= before).await;
    let own = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(own, "", "no shim is left as a zombie");
}
