//! How processes end: by themselves, asked, and forced.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use vaxel_supervisor::Error;

use crate::home::{Home, line, sh, until};

#[tokio::test]
async fn a_process_speaks_through_its_pipes_and_ends_with_its_code() {
    let home = Home::new();
    let mut process = home.sh("read word; echo \"heard $word\"; exit 3").await;
    process.stdin.write_all(b"hello\n").await.unwrap();
    assert_eq!(line(&mut process.stdout).await, "heard hello");
    let exit = process.handle.exited().await;
    assert_eq!(
        (exit.code, exit.signal, exit.reason.clone()),
        (Some(3), None, None)
    );
    assert_eq!(exit.to_string(), "The process exited with code 3");
    assert_eq!(
        process.handle.exited().await,
        exit,
        "every later question has the same answer"
    );
}

#[tokio::test]
async fn a_process_that_dies_by_a_signal_says_which() {
    let home = Home::new();
    let exit = home.sh("kill -SEGV $$").await.handle.exited().await;
    assert_eq!(exit.to_string(), "The process ended by signal 11 (SIGSEGV)");
}

#[tokio::test]
async fn a_stopped_process_that_follows_the_end_of_its_input_gets_no_signal() {
    let home = Home::with(|config| config.stop_grace = Duration::from_mins(1));
    let process = home.sh("trap 'exit 9' TERM; cat; exit 4").await;
    drop(process.stdin);
    let exit = process.handle.stop().await;
    assert_eq!(
        (exit.code, exit.reason.as_deref()),
        (Some(4), Some("stopped"))
    );
}

#[tokio::test]
async fn a_stopped_process_that_does_not_is_asked_with_sigterm() {
    let home = Home::with(|config| config.stop_grace = Duration::from_secs(4));
    let mut process = home
        .sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
        .await;
    assert_eq!(line(&mut process.stdout).await, "ready");
    assert_eq!(process.handle.stop().await.code, Some(7));
    until("nothing is left", || home.living().is_empty()).await;
}

#[tokio::test]
async fn a_stopped_process_that_ignores_sigterm_is_killed() {
    let home = Home::with(|config| config.stop_grace = Duration::from_millis(400));
    let mut process =
        home.sh("trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000' & echo ready; while :; do sleep 1000; done").await;
    assert_eq!(line(&mut process.stdout).await, "ready");
    assert_eq!(process.handle.stop().await.signal, Some(9));
    until("nothing is left", || home.living().is_empty()).await;
}

#[tokio::test]
async fn what_is_below_a_stopped_process_may_finish_its_work() {
    let home = Home::with(|config| config.stop_grace = Duration::from_secs(8));
    let script = "sh -c 'trap \"echo saved > $HOME/work; exit\" TERM; echo ready; while :; do sleep 0.05; done' & wait";
    let mut process = home.sh(script).await;
    assert_eq!(line(&mut process.stdout).await, "ready");
    let exit = process.handle.stop().await;
    assert_eq!(exit.signal, Some(15), "the main process has no handler");
    assert_eq!(
        std::fs::read_to_string(home.path().join("work")).unwrap(),
        "saved\n"
    );
}

#[tokio::test]
async fn a_stop_goes_on_when_nobody_waits_for_it() {
    let home = Home::with(|config| config.stop_grace = Duration::from_millis(400));
    let mut process = home
        .sh("trap '' TERM; echo ready; while :; do sleep 1000; done")
        .await;
    assert_eq!(line(&mut process.stdout).await, "ready");
    let dropped = tokio::time::timeout(Duration::from_millis(1), process.handle.stop()).await;
    assert!(dropped.is_err());
    assert_eq!(process.handle.exited().await.signal, Some(9));
    assert_eq!(home.living(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_killed_process_ends_with_the_reason_that_was_given_first() {
    let home = Home::new();
    let process = home.sh("sleep 1000").await;
    process.handle.kill("killed: it bored us");
    process.handle.kill("killed: another reason");
    let exit = process.handle.exited().await;
    assert_eq!(
        exit.to_string(),
        "The process ended by signal 9 (SIGKILL) (killed: it bored us)"
    );
}

#[tokio::test]
async fn a_stopped_shim_does_not_keep_its_tree_from_being_killed() {
    let home = Home::new();
    let process = home.sh("sleep 1000 & sleep 1000").await;
    until("all run", || home.living().len() == 3).await;
    let shim = crate::home::parent(process.handle.pid());
    let stopped = std::process::Command::new("kill")
        .args(["-STOP", &shim.to_string()])
        .status();
    assert!(stopped.unwrap().success());
    process.handle.kill("killed: for a test");
    let exit = process.handle.exited().await;
    assert_eq!(exit.reason.as_deref(), Some("killed: for a test"));
    until("nothing is left", || home.living().is_empty()).await;
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_leaves_nothing() {
    let home = Home::new();
    for pause in 0..20 {
        let start = home.supervisor.spawn(sh("sleep 1000"));
        // Given up at a different moment each time, also before and after the start.
        let given_up = tokio::time::timeout(Duration::from_millis(pause), start).await;
        if let Ok(started) = given_up {
            started.unwrap().handle.kill("killed: it was faster");
        }
    }
    home.supervisor.shutdown().await;
    until("nothing is left", || home.living().is_empty()).await;
}

#[tokio::test]
async fn a_shutdown_ends_everything_and_lets_nothing_new_start() {
    let home = Home::with(|config| config.stop_grace = Duration::from_millis(400));
    let mut running = Vec::new();
    for _ in 0..5 {
        running.push(home.sh("setsid sleep 1000 & sleep 1000").await);
    }
    home.supervisor.shutdown().await;
    assert_eq!(home.living(), Vec::<u32>::new());
    for process in running {
        assert_eq!(
            process.handle.exited().await.reason.as_deref(),
            Some("stopped")
        );
    }
    assert!(matches!(
        home.supervisor.spawn(sh("true")).await,
        Err(Error::ShuttingDown)
    ));
}
