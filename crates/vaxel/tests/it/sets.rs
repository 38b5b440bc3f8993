//! Sets, from the command line to clients and back.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::{
    doors::Raw,
    harness::{TestVaxel, text, wait_for},
};

/// A modern request to a set: its answer and status.
fn ask(raw: &Raw, set: &str, method: &str, mut params: Value) -> (u16, Value) {
    let name = params["name"].as_str().unwrap_or_default().to_owned();
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", method),
        ("mcp-name", &name),
    ];
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let path = format!("/mcp/sets/{set}");
    let answer = raw.send("POST", &path, &headers, &body.to_string());
    (answer.status, answer.json())
}

fn tools(answer: &Value) -> Vec<&str> {
    let tools = answer["result"]["tools"].as_array();
    let tools = tools.unwrap_or_else(|| panic!("{answer}"));
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect()
}

#[test]
fn a_set_of_a_service_is_all_that_its_clients_see() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    wait_for("the demo", || {
        vaxel.json(&["ls"])[0]["status"]["lifecycle"] == "active"
    });
    let added = vaxel.cli(&[
        "set",
        "add",
        "notes",
        "demo",
        "later",
        "--tool",
        "demo=note_*",
        "--tool",
        "demo=echo",
        "--prompt",
        "demo=",
        "--description",
        "For notes",
    ]);
    let said = text(&added);
    for part in [
        "Added notes: 4 tools, 0 prompts and 1 resource",
        "There is no service `later`",
        "/mcp/sets/notes",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let list = ask(&raw, "notes", "tools/list", json!({})).1;
    let expected = [
        "demo__echo",
        "demo__note_list",
        "demo__note_read",
        "demo__note_write",
    ];
    let mut names = tools(&list);
    names.sort_unstable();
    assert_eq!(names, expected);
    let call = json!({"name": "demo__echo", "arguments": {"message": "hello"}});
    let (_, said) = ask(&raw, "notes", "tools/call", call);
    assert_eq!(said["result"]["content"][0]["text"], "hello");
    let other = json!({"name": "demo__clock", "arguments": {}});
    let (_, refused) = ask(&raw, "notes", "tools/call", other);
    let refused = refused["error"]["message"].as_str().unwrap();
    assert!(
        refused.contains("demo__clock (not in the set `notes`)"),
        "{refused}"
    );
    let (status, unknown) = ask(&raw, "nots", "tools/list", json!({}));
    assert_eq!(
        (status, unknown["type"].as_str()),
        (404, Some("/errors/unknown-set"))
    );

    let table = vaxel.ok(&["set", "ls"]);
    assert!(table.contains("demo, later (missing)"), "{table}");
    let shown = vaxel.json(&["set", "show", "notes"]);
    assert_eq!(shown["services"][0]["shown"]["tools"], 4);
    let gone = vaxel.cli(&["set", "show", "nots"]);
    assert_eq!(gone.status.code(), Some(4), "{}", text(&gone));
    assert!(text(&gone).contains("vaxel set ls"), "{}", text(&gone));
    let twice = text(&vaxel.cli(&["set", "add", "notes", "demo"]));
    assert!(twice.contains("another set has this name"), "{twice}");

    // Through standard input and output, for clients that speak nothing else.
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"}}});
    let lines = format!(
        "{hello}\n{}\n",
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    );
    let bridged = vaxel.with_input(&["stdio", "--set", "notes"], &lines);
    let last = text(&bridged).lines().last().map(str::to_owned).unwrap();
    assert_eq!(tools(&serde_json::from_str(&last).unwrap()).len(), 4);
    let lost = text(&vaxel.with_input(&["stdio", "--set", "nots"], &format!("{hello}\n")));
    assert!(lost.contains("There is no set `nots`"), "{lost}");
}

#[test]
fn a_set_is_edited_and_removed_and_outlives_a_restart() {
    let mut vaxel = TestVaxel::start_with(&["--demo"]);
    vaxel.ok(&["set", "add", "work", "demo", "--tool", "demo=note_*"]);
    let editor = vaxel.home.path().join("editor");
    fs::write(
        &editor,
        "#!/bin/sh\nsed -i 's/note_\\*/echo/; s/name: work/name: play/' \"$1\"\n",
    )
    .unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o700)).unwrap();
    let edited = vaxel
        .command(&["set", "edit", "work"])
        .env("EDITOR", &editor)
        .output()
        .unwrap();
    assert!(text(&edited).contains("Changed work"), "{}", text(&edited));
    vaxel.kill();
    vaxel.launch();
    let shown = vaxel.json(&["set", "show", "play"]);
    assert_eq!(
        (&shown["version"], &shown["services"][0]["tools"]),
        (&json!(2), &json!(["echo"]))
    );
    let raw = Raw::of(&vaxel);
    assert_eq!(
        tools(&ask(&raw, "play", "tools/list", json!({})).1),
        ["demo__echo"]
    );
    let printed = vaxel.cli(&["connect", "cursor", "--set", "play", "--print"]);
    assert!(
        text(&printed).contains("/mcp/sets/play"),
        "{}",
        text(&printed)
    );
    vaxel.ok(&["set", "remove", "play"]);
    assert_eq!(ask(&raw, "play", "tools/list", json!({})).0, 404);
    let none = vaxel.cli(&["set", "list"]);
    assert!(text(&none).contains("There are no sets"), "{}", text(&none));
}
