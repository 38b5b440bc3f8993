//! The history of a service, the feed of changes and the usage, on the command line.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::harness::{TestVaxel, wait_for};

#[test]
fn a_service_goes_back_to_a_labelled_revision() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    vaxel.ok(&["service", "label", "demo", "known-good"]);
    vaxel.ok(&["service", "stop", "demo", "-m", "for the test"]);
    let history = vaxel.json(&["service", "history", "demo"]);
    assert_eq!(history[0]["message"], "for the test");
    assert_eq!(history[1]["labels"][0], "known-good");
    let diff = vaxel.ok(&["service", "diff", "demo"]);
    assert!(diff.contains("enabled\n  - true\n  + false"), "{diff}");
    vaxel.ok(&["service", "rollback", "demo", "known-good", "-m", "enough"]);
    let service = vaxel.json(&["service", "show", "demo"]);
    assert_eq!(service["enabled"], true);
    let table = vaxel.ok(&["service", "history", "demo"]);
    assert!(
        table.contains("service.rollback") && table.contains("enough"),
        "{table}"
    );

    vaxel.ok(&["service", "rm", "demo", "-m", "done with it"]);
    vaxel.ok(&["service", "purge", "demo"]);
    let gone = vaxel.cli(&["service", "restore", "demo"]);
    assert_eq!(gone.status.code(), Some(4));
    let events = vaxel.ok(&["events", "--type", "service.delete"]);
    assert!(
        events.contains("demo") && events.contains("done with it"),
        "{events}"
    );
}

#[test]
fn changes_are_followed_as_they_happen_and_calls_add_up() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    wait_for("the demo to be ready", || {
        vaxel
            .cli(&["call", "demo__echo", "--arg", "message=x"])
            .status
            .success()
    });
    let mut following = vaxel
        .command(&["events", "--follow", "--after", "0", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let mut number = 0;
    let mut until = |kind: &str| loop {
        let event = next();
        number += 1;
        assert_eq!(event["number"], number, "there are no holes");
        if event["type"] == kind {
            return event;
        }
    };
    until("service.create");
    vaxel.ok(&["service", "stop", "demo"]);
    assert_eq!(until("service.stop")["by"], "admin");
    loop {
        if until("service.lifecycle")["detail"]["to"] == "inactive" {
            break;
        }
    }
    following.kill().unwrap();
    following.wait().unwrap();

    wait_for("the call to be summed up", || {
        vaxel.json(&["usage", "demo"])["total"]["calls"].as_u64() > Some(0)
    });
    let table = vaxel.ok(&["usage", "demo", "--by", "day"]);
    assert!(table.contains("echo") && table.contains("P99"), "{table}");
    let list = vaxel.json(&[
        "ls", "--sort", "-calls", "--type", "builtin", "--status", "inactive",
    ]);
    assert_eq!(list[0]["name"], "demo");
}
