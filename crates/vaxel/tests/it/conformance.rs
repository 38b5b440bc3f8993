//! The official conformance suite, through Vaxel, in front of a server of our own that is pinned to one
//! era: what passes directly passes here, and across eras everything that has a meaning there.

use std::{path::Path, process::Command};

use crate::{
    fixture::Fixture,
    harness::{TestVaxel, repository, text, tools},
};

/// Runs the suite for `revision` against a service whose server speaks `era` only.
fn conforms(era: &str, revision: &str) {
    let Some(tools) = tools() else { return };
    let fixture = Fixture::start(era);
    // The suite shows no key.
    let vaxel = TestVaxel::start_with(&["--no-auth"]);
    vaxel.ok(&["service", "add", "fixture", "--url", &fixture.url]);
    let url = format!("{}/mcp/fixture", vaxel.url());
    let results = vaxel.home.path().join("results");
    let mut suite = suite(&tools);
    suite.args(["--url", &url, "--output-dir"]).arg(&results);
    match revision {
        // The suite froze no set of requirements for it.
        "2025-06-18" => suite.args(["--suite", "all", "--spec-version", revision]),
        _ => suite.args(["--requirements", revision]),
    };
    let expected = repository("tests/conformance").join(format!("{era}-{revision}.yml"));
    if expected.exists() {
        suite.arg("--expected-failures").arg(expected);
    }
    let output = suite.output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{era}, {revision}:\n{said}");
    assert!(said.contains("passed"), "{said}");
}

fn suite(tools: &Path) -> Command {
    let mut command = Command::new(tools.join("node22/bin/node"));
    command
        .arg(tools.join("npm/node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .arg("server");
    command
}

#[test]
fn clients_of_2025_06_before_a_legacy_server() {
    conforms("legacy", "2025-06-18");
}

#[test]
fn clients_of_2025_06_before_a_modern_server() {
    conforms("modern", "2025-06-18");
}

#[test]
fn clients_of_2025_11_before_a_legacy_server() {
    conforms("legacy", "2025-11-25");
}

#[test]
fn clients_of_2025_11_before_a_modern_server() {
    conforms("modern", "2025-11-25");
}

#[test]
fn clients_of_2026_07_before_a_legacy_server() {
    conforms("legacy", "2026-07-28");
}

#[test]
fn clients_of_2026_07_before_a_modern_server() {
    conforms("modern", "2026-07-28");
}
