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
    let mut suite = suite(&tools, "server");
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

/// Runs the suite's `scenarios` for clients of `revision` with Vaxel as the client.
fn conforms_as_client(revision: &str, scenarios: &[&str]) {
    let Some(tools) = tools() else { return };
    let client = repository("tests/conformance/client.py");
    let command = format!(
        "python3 {} {}",
        client.display(),
        env!("CARGO_BIN_EXE_vaxel")
    );
    let results = tempfile::tempdir().unwrap();
    for scenario in scenarios {
        let mut suite = suite(&tools, "client");
        suite.args(["--command", &command, "--scenario", scenario]);
        suite.args(["--spec-version", revision, "--output-dir"]);
        let output = suite.arg(results.path()).output().unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{scenario}, {revision}:\n{said}");
        assert!(said.contains("0 failed"), "{said}");
    }
}

fn suite(tools: &Path, side: &str) -> Command {
    let mut command = Command::new(tools.join("node22/bin/node"));
    command
        .arg(tools.join("npm/node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .arg(side);
    command
}

#[test]
fn vaxel_as_a_client_of_2025_11() {
    conforms_as_client(
        "2025-11-25",
        &[
            "initialize",
            "tools_call",
            "elicitation-sep1034-client-defaults",
            "sse-retry",
            "json-schema-2020-12-preservation",
        ],
    );
}

#[test]
fn vaxel_as_a_client_of_2026_07() {
    conforms_as_client(
        "2026-07-28",
        &[
            "tools_call",
            "request-metadata",
            "sep-2322-client-request-state",
            "http-standard-headers",
            "http-custom-headers",
            "http-invalid-tool-headers",
            "json-schema-ref-no-deref",
            "json-schema-2020-12-preservation",
        ],
    );
}

/// Not `auth/basic-cimd`: the address of a description must be `https`, and the Vaxel of a test has none.
const LOG_IN: &[&str] = &[
    "auth/metadata-default",
    "auth/metadata-var1",
    "auth/metadata-var2",
    "auth/metadata-var3",
    "auth/scope-from-www-authenticate",
    "auth/scope-from-scopes-supported",
    "auth/scope-omitted-when-undefined",
    "auth/scope-step-up",
    "auth/scope-retry-limit",
    "auth/pre-registration",
    "auth/token-endpoint-auth-basic",
    "auth/token-endpoint-auth-post",
    "auth/token-endpoint-auth-none",
];

const LOG_IN_SINCE_2026_07: &[&str] = &[
    "auth/resource-mismatch",
    "auth/metadata-issuer-mismatch",
    "auth/authorization-server-migration",
    "auth/offline-access-scope",
    "auth/offline-access-not-supported",
    "auth/iss-supported",
    "auth/iss-not-advertised",
    "auth/iss-supported-missing",
    "auth/iss-wrong-issuer",
    "auth/iss-unexpected",
    "auth/iss-normalized",
];

#[test]
fn vaxel_logs_in_to_servers_as_clients_of_2025_11_do() {
    conforms_as_client("2025-11-25", LOG_IN);
}

#[test]
fn vaxel_logs_in_to_servers_as_clients_of_2026_07_do() {
    conforms_as_client("2026-07-28", LOG_IN);
    conforms_as_client("2026-07-28", LOG_IN_SINCE_2026_07);
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
