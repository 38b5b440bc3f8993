//! Health as its users see it: on the command line, of a server that is alive and does not do what it
//! should.

use serde_json::{Value, json};

use crate::harness::{TestVaxel, echo_server, text, wait_for};

/// Adds the echo server with checks of its tool `echo`, which answers what it is given.
fn add(vaxel: &TestVaxel, name: &str, expected: &str) {
    let server = echo_server(vaxel.home.path()).display().to_string();
    let health = json!({
        "interval": "1s", "fall": 1,
        "functional": [{
            "tool": "echo", "arguments": { "text": "hello" }, "expect": { "equals": expected }
        }],
        "recovery": { "budget": 1 }
    });
    let health = health.to_string();
    let mut args = vec!["service", "add", name, "--health", &health, "--"];
    args.extend(["python3", &server]);
    vaxel.ok(&args);
}

fn verdict(health: &Value, kind: &str) -> String {
    let checks = health["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["kind"] == kind);
    found.map_or_else(String::new, |check| {
        check["verdict"].as_str().unwrap().to_owned()
    })
}

#[test]
fn a_service_that_works_says_so_and_one_that_lies_says_why_not() {
    let vaxel = TestVaxel::start();
    add(&vaxel, "honest", "hello");
    let health = vaxel.json(&["service", "health", "honest", "--check"]);
    assert_eq!(health["health"], "HEALTHY", "{health}");
    assert_eq!(
        (verdict(&health, "basic"), verdict(&health, "functional")),
        ("pass".into(), "pass".into())
    );
    assert!(
        vaxel
            .ok(&["service", "health", "honest", "--history"])
            .contains("HEALTHY")
    );

    add(&vaxel, "liar", "goodbye");
    let left = || {
        let output = vaxel.cli(&["service", "health", "liar"]);
        !output.status.success() && text(&output).contains("left as it is")
    };
    wait_for("the liar to be left as it is", left);
    let shown = text(&vaxel.cli(&["service", "health", "liar", "--history"]));
    assert!(
        shown.contains("`echo` answers `hello` instead of `goodbye`"),
        "{shown}"
    );
    let status = vaxel.json(&["service", "show", "liar"]);
    assert_eq!(status["status"]["health"], "UNHEALTHY");
    assert_eq!(status["status"]["lifecycle"], "active");
    assert_eq!(
        status["status"]["instances"][0]["restarts"], 1,
        "the budget"
    );
    assert_eq!(status["stats"]["calls"], 0, "checks are no usage");
    // Whoever calls it all the same is served.
    assert_eq!(
        vaxel.ok(&["call", "liar__echo", "--arg", "text=hi"]).trim(),
        "hi"
    );
}

#[test]
fn every_problem_of_a_check_is_named_before_anything_is_added() {
    let vaxel = TestVaxel::start();
    let health = r#"{"interval": "soon", "functional": [{}], "dependency": [{"tcp": "x"}]}"#;
    let refused = vaxel.cli(&["service", "add", "x", "--health", health, "--", "true"]);
    let said = text(&refused);
    assert!(!refused.status.success());
    for place in [
        "health.interval",
        "health.functional[0].tool",
        "health.dependency[0].tcp",
    ] {
        assert!(said.contains(place), "{place} is not in {said}");
    }
}
