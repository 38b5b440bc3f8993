//! What is said beside the protocol: kept, bounded, followed, and found again.

use std::{fs, os::unix::fs::PermissionsExt};

use tokio::sync::broadcast::error::RecvError;
use vaxel_core::time::Clock;
use vaxel_supervisor::{LogLine, Order, Stream, Supervisor};

use crate::home::{Home, config, folder, sh};

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test]
async fn standard_error_is_kept_line_by_line_in_memory_and_in_a_private_file() {
    let home = Home::new();
    let order = Order {
        replica: 2,
        ..sh("echo one >&2; printf 'two\\nthree' >&2")
    };
    home.supervisor
        .spawn(order)
        .await
        .unwrap()
        .handle
        .exited()
        .await;
    let logs = home.supervisor.logs("test");
    let tail = logs.tail(10);
    assert_eq!(texts(&tail), ["one", "two", "three"]);
    assert!(
        tail.iter()
            .all(|line| line.replica == 2 && line.stream == Stream::Stderr)
    );
    assert_eq!(texts(&logs.tail(2)), ["two", "three"]);
    home.supervisor.shutdown().await;
    let file = home.path().join("logs/test.log");
    let text = fs::read_to_string(&file).unwrap();
    let expected: Vec<String> = tail.iter().map(ToString::to_string).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert!(
        text.lines().next().unwrap().ends_with("Z stderr[2] one"),
        "{text}"
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        fs::metadata(home.path().join("logs"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
}

#[tokio::test]
async fn an_earlier_run_is_still_in_the_tail_of_the_next() {
    let home = folder();
    let first = Supervisor::new(config(home.path()), Clock::system());
    first
        .logs("test")
        .append(Stream::Vaxel, 0, "of the first run");
    first.logs("test").append(Stream::Garbage, 1, "two\nlines");
    let before = first.logs("test").tail(10);
    first.shutdown().await;
    let second = Supervisor::new(config(home.path()), Clock::system());
    assert_eq!(second.logs("test").tail(10), before);
    assert_eq!(texts(&before), ["of the first run", "two", "lines"]);
}

#[tokio::test]
async fn a_flood_costs_neither_memory_nor_disk_nor_the_process() {
    let home = Home::with(|config| {
        config.log_max_bytes = 100_000;
        config.log_files = 2;
    });
    let mut process = home.sh("yes 'all work and no play' | head -c 20000000 >&2; echo >&2; head -c 5000000 /dev/zero >&2; echo through").await;
    assert_eq!(crate::home::line(&mut process.stdout).await, "through");
    process.handle.exited().await;
    home.supervisor.shutdown().await;
    let tail = home.supervisor.logs("test").tail(usize::MAX);
    assert_eq!(tail.len(), 100);
    assert!(
        tail.last().unwrap().text.ends_with("… [4998976 bytes cut]"),
        "{}",
        tail.last().unwrap().text.len()
    );
    let mut sizes: Vec<(String, u64)> = fs::read_dir(home.path().join("logs"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                entry.metadata().unwrap().len(),
            )
        })
        .collect();
    sizes.sort();
    let names: Vec<&str> = sizes.iter().map(|(name, _)| name.as_str()).collect();
    // The newest one is made with its first line: there is none when the last line filled one.
    let without_newest = names.strip_prefix(&["test.log"]).unwrap_or(&names);
    assert_eq!(without_newest, ["test.log.1", "test.log.2"]);
    assert!(sizes.iter().all(|(_, size)| *size < 110_000), "{sizes:?}");
}

#[tokio::test]
async fn a_follower_sees_new_lines_and_a_slow_one_is_told_what_it_lost() {
    let home = Home::new();
    let logs = home.supervisor.logs("test");
    logs.append(Stream::Vaxel, 0, "before");
    let (tail, mut follower) = logs.tail_and_follow(10);
    assert_eq!(texts(&tail), ["before"]);
    home.sh("echo now >&2").await.handle.exited().await;
    assert_eq!(follower.recv().await.unwrap().text, "now");
    for number in 0..1000 {
        logs.append(Stream::Garbage, 0, &format!("line {number}"));
    }
    let lost = match follower.recv().await {
        Err(RecvError::Lagged(lost)) => lost,
        other => panic!("{other:?}"),
    };
    assert_eq!(follower.recv().await.unwrap().text, format!("line {lost}"));
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_takes_nothing_but_the_file() {
    let home = Home::with(|config| config.log_dir = "/proc/no/such/folder".into());
    home.sh("echo still here >&2").await.handle.exited().await;
    assert_eq!(texts(&home.supervisor.logs("test").tail(1)), ["still here"]);
    home.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_name_cannot_leave_the_folder_of_the_logs() {
    let home = Home::new();
    home.supervisor
        .logs("../../escaped")
        .append(Stream::Vaxel, 0, "caught");
    home.supervisor.shutdown().await;
    let text = fs::read_to_string(home.path().join("logs/______escaped.log")).unwrap();
    assert!(text.ends_with("caught\n"));
}
