//! Health as its users see it: on the command line, of a server that is alive and does not do what it
//! should.

use serde_json::{Value, json};

use crate::harness::{TestVaxel, echo_server, text};

/// What adds the echo server with checks of its tool `echo`, which answers what it is given.
fn added(vaxel: &TestVaxel, name: &str, expected: &str) -> Vec<String> {
    let server = echo_server(vaxel.home.path()).display().to_string();
    let health = json!({
        "interval": "1s", "fall": 1,
        "functional": [{
            "tool": "echo", "arguments": { "text": "hello" }, "expect": { "equals": expected }
        }],
        "recovery": { "budget": 1 }
    });
    let health = health.to_string();
    let args = [
        "service", "add", name, "--health", &health, "--", "python3", &server,
    ];
    args.map(str::to_owned).to_vec()
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
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
    vaxel.ok(&borrowed(&added(&vaxel, "honest", "hello")));
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

    // One that does not do what it should does not serve, and says what was expected and what came.
    let expected = "`echo` answers `hello` instead of `goodbye`";
    let refused = vaxel.cli(&borrowed(&added(&vaxel, "liar", "goodbye")));
    assert!(!refused.status.success());
    assert!(text(&refused).contains(expected), "{}", text(&refused));
    let status = vaxel.json(&["service", "show", "liar"]);
    assert_eq!(status["status"]["lifecycle"], "error");
    let issue = &status["status"]["issues"][0];
    assert_eq!(issue["path"], "spec.health.functional[0]");
    assert_eq!(issue["message"], expected);
    assert_eq!(status["stats"]["calls"], 0, "checks are no usage");
    let called = vaxel.cli(&["call", "liar__echo", "--arg", "text=hi"]);
    assert!(!called.status.success());
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
