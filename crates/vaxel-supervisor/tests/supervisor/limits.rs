//! Bounds: what is over them is ended with a reason that a person understands.

use std::{fs, path::Path};

use vaxel_core::time::Clock;
use vaxel_supervisor::{Exit, Limits, Order, Supervisor};

use crate::home::{Home, all, config, folder, line, marked, parent, sh, until};

/// Holds 180 MB until it is killed: `tail` keeps what nobody takes from it.
const HOARD: &str = "head -c 180000000 /dev/zero | tail -c 170000000 | sleep 1000";

fn with(script: &str, limits: Limits) -> Order {
    Order {
        limits,
        ..sh(script)
    }
}

const SMALL: Limits = Limits {
    memory_bytes: Some(64 << 20),
    processes: None,
    open_files: None,
};

#[tokio::test]
async fn a_tree_over_its_memory_is_killed_and_says_so() {
    let home = folder();
    let supervisor = Supervisor::without_cgroups(config(home.path()), Clock::system());
    let process = supervisor.spawn(with(HOARD, SMALL)).await.unwrap();
    let reason = process.handle.exited().await.reason.unwrap();
    assert!(
        reason.starts_with("killed: ") && reason.ends_with(" MiB of memory, limit 64 MiB"),
        "{reason}"
    );
    assert_eq!(
        marked(&home.path().display().to_string()),
        Vec::<u32>::new()
    );
}

#[tokio::test]
async fn the_kernels_memory_controller_gives_the_same_answer_and_leaves_no_group() {
    let home = Home::new();
    let process = home.supervisor.spawn(with(HOARD, SMALL)).await.unwrap();
    let Exit { reason, .. } = process.handle.exited().await;
    let reason = reason.unwrap();
    assert!(
        reason.starts_with("killed: ") && reason.ends_with("64 MiB"),
        "{reason}"
    );
    assert_eq!(groups(Path::new("/sys/fs/cgroup")), Vec::<String>::new());
}

#[tokio::test]
async fn a_bounded_tree_is_in_a_group_of_its_own_and_its_shim_is_not() {
    let home = Home::new();
    let process = home
        .supervisor
        .spawn(with("sleep 1000", SMALL))
        .await
        .unwrap();
    let made = groups(Path::new("/sys/fs/cgroup"));
    let groups_of = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let child = process.handle.pid();
    let within = groups_of(child).contains(&format!("/vaxel-{}-", std::process::id()));
    if made.is_empty() {
        eprintln!("SKIPPED: no control group can be made here");
    } else {
        assert!(within, "{}", groups_of(child));
        assert_eq!(groups_of(parent(child)), groups_of(std::process::id()));
    }
    process.handle.kill("killed: seen enough");
    process.handle.exited().await;
}

/// Control groups that this process made.
fn groups(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path().display().to_string();
            if path.contains(&format!("vaxel-{}-", std::process::id())) {
                found.push(path);
            }
            found.extend(groups(&entry.path()));
        }
    }
    found
}

#[tokio::test]
async fn a_tree_with_too_many_processes_is_killed_and_says_so() {
    let home = Home::new();
    let limits = Limits {
        processes: Some(8),
        ..Limits::default()
    };
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do setsid sleep 1000 & done; wait";
    let process = home.supervisor.spawn(with(script, limits)).await.unwrap();
    let reason = process.handle.exited().await.reason.unwrap();
    // The watch may look while they are being made.
    let count = reason.strip_prefix("killed: ").unwrap_or_default();
    let count = count.strip_suffix(" processes, limit 8");
    let count: Option<u32> = count.and_then(|count| count.parse().ok());
    assert!(
        count.is_some_and(|count| (9..=13).contains(&count)),
        "{reason}"
    );
    until("nothing is left", || home.living().is_empty()).await;
}

#[tokio::test]
async fn a_tree_within_its_bounds_is_left_alone() {
    let home = Home::new();
    let limits = Limits {
        memory_bytes: Some(256 << 20),
        processes: Some(20),
        open_files: Some(128),
    };
    let mut process = home
        .supervisor
        .spawn(with("ulimit -n; ulimit -Hn; cat", limits))
        .await
        .unwrap();
    assert_eq!(line(&mut process.stdout).await, "128");
    assert_eq!(line(&mut process.stdout).await, "128");
    // Two looks of the watch.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    drop(process.stdin);
    let exit = process.handle.exited().await;
    assert_eq!((exit.code, exit.reason), (Some(0), None));
}

#[tokio::test]
async fn usage_counts_the_whole_tree() {
    let home = Home::new();
    let script = "setsid sleep 1000 & sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo worked; sleep 1000";
    let mut process = home.sh(script).await;
    assert_eq!(line(&mut process.stdout).await, "worked");
    until("it is seen", || process.handle.usage().processes == 3).await;
    let usage = process.handle.usage();
    assert!(
        usage.cpu > std::time::Duration::ZERO,
        "also what was waited for: {usage:?}"
    );
    assert!(
        usage.memory_bytes > 100_000 && usage.memory_bytes < 100_000_000,
        "{usage:?}"
    );
    process.handle.kill("killed: seen enough");
    process.handle.exited().await;
    until("nothing is used any more", || {
        process.handle.usage().processes == 0
    })
    .await;
    assert_eq!(all(&mut process.stdout).await, "");
}
