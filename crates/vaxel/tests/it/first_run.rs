//! A first run from nothing, and what a person meets on the way.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::harness::{TestVaxel, echo_server, text, wait_for};

#[test]
fn a_first_run_needs_nothing_and_a_second_finds_everything_as_it_was() {
    let mut vaxel = TestVaxel::start_with(&["--demo"]);
    assert_eq!(
        vaxel
            .ok(&["call", "demo__echo", "--arg", "message=hello"])
            .trim(),
        "hello"
    );
    vaxel.ok(&[
        "call",
        "demo__note_write",
        "--arg",
        "name=a",
        "--arg",
        "text=kept",
    ]);
    let banner = vaxel.log();
    for expected in ["/mcp", "admin.key", "vaxel call demo__echo"] {
        assert!(
            banner.contains(expected),
            "{expected} is missing in\n{banner}"
        );
    }
    for file in [
        "admin.key",
        "root.key",
        "vaxel.db",
        "records.db",
        "run.json",
    ] {
        let mode = fs::metadata(vaxel.data_dir().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let key = vaxel.key();
    vaxel.ok(&["down"]);
    assert!(
        vaxel.run_file().is_none(),
        "the run file outlives the server"
    );
    vaxel.launch();
    assert_eq!(vaxel.key(), key);
    assert_eq!(
        vaxel
            .ok(&["call", "demo__note_read", "--arg", "name=a"])
            .trim(),
        "kept"
    );
}

#[test]
fn every_mistake_gets_a_sentence_and_a_code() {
    let vaxel = TestVaxel::start();
    let fails = |args: &[&str], code: i32, expected: &str| {
        let output = vaxel.cli(args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            text(&output)
        );
        assert!(
            text(&output).contains(expected),
            "{args:?} said\n{}",
            text(&output)
        );
    };
    fails(&["call", "nothing__here"], 4, "nothing__here");
    fails(
        &["service", "show", "nothing"],
        4,
        "There is no service called `nothing`",
    );
    fails(
        &["service", "add", "Bad Name", "--", "x"],
        1,
        "is not a service name",
    );
    fails(&["service", "add", "a"], 1, "say what to run or reach");
    fails(
        &["service", "add", "a", "--url", "ftp://x"],
        1,
        "is none of http, https, ws and wss",
    );
    fails(
        &["service", "add", "a", "--", "no-such-program"],
        1,
        "There is no program",
    );
    fails(&["key", "revoke", "nobody"], 4, "There is no such key");
    fails(&["nonsense"], 2, "unrecognized subcommand");
    fails(
        &["--url", "http://127.0.0.1:9", "ls"],
        3,
        "No Vaxel answers",
    );
    fails(&["--key", "vxl_wrong", "ls"], 1, "key");
}

#[test]
fn a_second_vaxel_on_the_same_directory_or_port_is_refused() {
    let vaxel = TestVaxel::start();
    let second = vaxel.cli(&["up", "--listen", "127.0.0.1:0"]);
    assert!(!second.status.success());
    assert!(
        text(&second).contains("is in use by another Vaxel"),
        "{}",
        text(&second)
    );
    let address = vaxel.url().replace("http://", "");
    let other = tempfile::tempdir().unwrap();
    let dir = other.path().display().to_string();
    let second = vaxel.cli(&["up", "--listen", &address, "--data-dir", &dir]);
    assert!(!second.status.success());
    assert!(
        text(&second).contains("is in use by another program"),
        "{}",
        text(&second)
    );
}

#[test]
fn open_to_the_network_without_authentication_is_refused() {
    let vaxel = TestVaxel::start();
    let dir = vaxel.home.path().join("other").display().to_string();
    let output = vaxel.cli(&[
        "up",
        "--listen",
        "0.0.0.0:0",
        "--no-auth",
        "--data-dir",
        &dir,
    ]);
    assert!(!output.status.success());
    assert!(
        text(&output).contains("only loopback is served"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_service_lives_through_stop_start_restart_edit_and_removal() {
    let vaxel = TestVaxel::start();
    let script = echo_server(vaxel.home.path()).display().to_string();
    vaxel.add("echo", &["python3", &script]);
    assert_eq!(
        vaxel
            .ok(&["call", "echo__echo", "--arg", "text=one"])
            .trim(),
        "one"
    );
    vaxel.ok(&["service", "stop", "echo"]);
    let state = |name: &str| {
        let list = vaxel.json(&["ls"]);
        let found = list
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == name)
            .cloned();
        found.map(|one| one["status"]["lifecycle"].as_str().unwrap().to_owned())
    };
    wait_for("it to stop", || {
        state("echo").as_deref() == Some("inactive")
    });
    let refused = vaxel.cli(&["call", "echo__echo", "--arg", "text=two"]);
    assert!(!refused.status.success(), "{}", text(&refused));
    vaxel.ok(&["service", "start", "echo"]);
    wait_for("it to start", || state("echo").as_deref() == Some("active"));
    assert_eq!(
        vaxel
            .ok(&["call", "echo__echo", "--arg", "text=three"])
            .trim(),
        "three"
    );
    vaxel.ok(&["service", "rm", "echo"]);
    assert_eq!(state("echo"), None);
    vaxel.ok(&["service", "restore", "echo"]);
    wait_for("it to come back", || {
        state("echo").as_deref() == Some("active")
    });
    assert_eq!(
        vaxel
            .ok(&["call", "echo__echo", "--arg", "text=four"])
            .trim(),
        "four"
    );
}

#[test]
fn a_clients_configuration_is_imported() {
    let vaxel = TestVaxel::start();
    let script = echo_server(vaxel.home.path()).display().to_string();
    let file = vaxel.home.path().join("claude_desktop_config.json");
    let config = serde_json::json!({"mcpServers": {
        "My Echo": {"command": "python3", "args": [script], "env": {"TOKEN": "planted-import"}},
        "odd": {"type": "carrier-pigeon", "url": "http://127.0.0.1:1/coop"},
    }});
    fs::write(&file, config.to_string()).unwrap();
    let path = file.display().to_string();
    let said = text(&vaxel.cli(&["import", &path]));
    assert!(
        said.contains("added my-echo") && said.contains("no transport that Vaxel knows"),
        "{said}"
    );
    wait_for("it to start", || {
        vaxel
            .cli(&["call", "my-echo__echo", "--arg", "text=x"])
            .status
            .success()
    });
    assert_eq!(
        vaxel
            .ok(&["call", "my-echo__env", "--arg", "text=TOKEN"])
            .trim(),
        "planted-import"
    );
}

#[test]
fn arguments_come_from_flags_json_or_standard_input() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let json = r#"{"message":"from json"}"#;
    assert_eq!(
        vaxel.ok(&["call", "demo__echo", "--json", json]).trim(),
        "from json"
    );
    let piped = vaxel.with_input(&["call", "demo__echo", "-"], r#"{"message":"piped"}"#);
    assert_eq!(text(&piped).trim(), "piped");
    let failed = vaxel.cli(&["call", "demo__note_read", "--arg", "name=nothing"]);
    assert_eq!(failed.status.code(), Some(5), "{}", text(&failed));
}

#[test]
fn connect_writes_a_clients_configuration_and_keeps_the_rest() {
    let vaxel = TestVaxel::start();
    let file = vaxel.home.path().join(".cursor/mcp.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, r#"{"mcpServers":{"other":{"command":"x"}}}"#).unwrap();
    for _ in 0..2 {
        vaxel.ok(&["connect", "cursor"]);
    }
    let written: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written["mcpServers"]["other"]["command"], "x");
    let header = written["mcpServers"]["vaxel"]["headers"]["Authorization"]
        .as_str()
        .unwrap();
    let key = header.strip_prefix("Bearer ").unwrap();
    let list = vaxel.cli(&["--url", &vaxel.url(), "--key", key, "tools"]);
    assert!(list.status.success(), "{}", text(&list));
    let keys = vaxel.json(&["key", "ls"]);
    let live =
        |one: &&serde_json::Value| one["name"] == "connect-cursor" && one["revoked_at"].is_null();
    assert_eq!(keys.as_array().unwrap().iter().filter(live).count(), 1);
    let backups = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert!(backups >= 2, "no backup was made");
}
