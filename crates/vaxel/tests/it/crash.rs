//! What is left when Vaxel or a service ends the hard way.

use std::fs;

use crate::harness::{TestVaxel, echo_server, marked, text, wait_for};

#[test]
fn nothing_outlives_a_killed_vaxel_and_the_next_one_goes_on() {
    let mut vaxel = TestVaxel::start();
    let script = echo_server(vaxel.home.path()).display().to_string();
    // A child of a child, in a session of its own.
    let chain = format!("setsid sleep 1000 '{script}' & exec python3 '{script}'");
    vaxel.add("chain", &["sh", "-c", &chain]);
    assert!(!marked(&script).is_empty());
    vaxel.kill();
    wait_for("every child to end", || marked(&script).is_empty());
    vaxel.launch();
    wait_for("the service to come back", || {
        vaxel
            .cli(&["call", "chain__echo", "--arg", "text=again"])
            .status
            .success()
    });
}

#[test]
fn a_service_that_dies_is_started_again_and_its_call_ends_at_once() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let script = echo_server(vaxel.home.path()).display().to_string();
    vaxel.add("echo", &["python3", &script]);
    let died = vaxel.cli(&["call", "echo__die"]);
    assert!(!died.status.success());
    assert!(
        text(&died).contains("`echo` cannot answer"),
        "{}",
        text(&died)
    );
    assert_eq!(
        vaxel
            .ok(&["call", "demo__echo", "--arg", "message=alive"])
            .trim(),
        "alive"
    );
    wait_for("it to be started again", || {
        vaxel
            .cli(&["call", "echo__echo", "--arg", "text=x"])
            .status
            .success()
    });
    let service = vaxel.json(&["service", "show", "echo"]);
    assert_eq!(service["status"]["instances"][0]["restarts"], 1);
}

#[test]
fn planted_secrets_are_nowhere_in_clear() {
    let vaxel = TestVaxel::start();
    let script = echo_server(vaxel.home.path()).display().to_string();
    let planted = "planted-7f3a9c";
    let env = format!("TOKEN={planted}");
    vaxel.ok(&[
        "service", "add", "echo", "--env", &env, "--", "python3", &script,
    ]);
    assert_eq!(
        vaxel
            .ok(&["call", "echo__env", "--arg", "text=TOKEN"])
            .trim(),
        planted
    );
    let shown = vaxel.ok(&["service", "show", "echo"]);
    assert!(
        shown.contains("secret:") && !shown.contains(planted),
        "{shown}"
    );
    for shim in marked("shim") {
        let line = fs::read(format!("/proc/{shim}/cmdline")).unwrap_or_default();
        let own = fs::read(format!("/proc/{shim}/environ")).unwrap_or_default();
        assert!(
            !holds(&line, planted) && !holds(&own, planted),
            "process {shim}"
        );
    }
    vaxel.ok(&["down"]);
    let mut files = vec![vaxel.data_dir(), vaxel.home.path().join("vaxel.log")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            assert!(
                !holds(&fs::read(&path).unwrap(), planted),
                "{}",
                path.display()
            );
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn the_data_directory_is_hidden_from_services_or_the_status_says_why_not() {
    let vaxel = TestVaxel::start();
    let key = vaxel.data_dir().join("admin.key").display().to_string();
    let script = echo_server(vaxel.home.path()).display().to_string();
    let spy = format!("cat '{key}' >&2; exec python3 '{script}'");
    vaxel.add("spy", &["sh", "-c", &spy]);
    let log = vaxel.ok(&["logs", "spy"]);
    let service = vaxel.json(&["service", "show", "spy"]);
    let notes = service["status"]["instances"][0]["sandbox"].to_string();
    let hidden = !log.contains(&vaxel.key());
    assert!(
        hidden || notes.contains("not hidden"),
        "log:\n{log}\nnotes: {notes}"
    );
}
