//! People sign in on the command line, and their tokens go everywhere that a key goes.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use crate::harness::{Door, TestVaxel, text};

const GOOD: &str = "a good long password";

#[test]
fn somebody_signs_in_works_and_signs_out_on_the_command_line() {
    let vaxel = TestVaxel::start();
    vaxel.ok(&["user", "add", "anna"]);
    let set = vaxel.with_input(&["user", "password", "anna"], "set by the admin\n");
    assert!(set.status.success(), "{}", text(&set));
    let wrong = vaxel.with_input(&["login", "anna"], "not her password\n");
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    let given = format!("set by the admin\n{GOOD}\n");
    let done = vaxel.with_input(&["login", "anna"], &given);
    assert!(done.status.success(), "{}", text(&done));
    let file = vaxel.home().join(".config/vaxel/logins.json");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(vaxel.json(&["whoami"])["name"], "anna");
    let refused = vaxel.cli(&["user", "ls"]);
    assert!(!refused.status.success(), "{}", text(&refused));
    // The access token is over: the next command renews it, and the one after uses that.
    let mut kept: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let before = kept.clone();
    for signed_in in kept.as_object_mut().unwrap().values_mut() {
        signed_in["expires_at"] = json!("2020-01-01T00:00:00Z");
    }
    fs::write(&file, kept.to_string()).unwrap();
    assert_eq!(vaxel.json(&["whoami"])["name"], "anna");
    let after: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_ne!(before, after);
    let sessions = vaxel.json(&["user", "sessions", "anna"]);
    assert_eq!(sessions.as_array().unwrap().len(), 1, "{sessions}");
    vaxel.ok(&["logout"]);
    assert_eq!(vaxel.json(&["whoami"])["name"], "admin");
    assert_eq!(vaxel.json(&["user", "sessions", "anna"]), json!([]));
}

#[test]
fn an_access_token_calls_over_mcp_until_its_sign_in_ends() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    vaxel.ok(&["user", "add", "anna", "--role", "client"]);
    vaxel.with_input(&["user", "password", "anna"], "set by the admin\n");
    let mut door = Door::of(&vaxel);
    let body = json!({ "username": "anna", "password": "set by the admin", "new_password": GOOD });
    let (status, tokens) = door.ask("POST", "/authenticate", Some(&body)).unwrap();
    assert_eq!(status, 200, "{tokens}");
    door.key = tokens["token"].as_str().unwrap().to_owned();
    let call = json!({ "arguments": { "message": "hello" } });
    let path = "/api/v1/tools/demo__echo/call";
    let (status, answer) = door.ask("POST", path, Some(&call)).unwrap();
    assert_eq!(status, 200, "{answer}");
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let over_mcp = |door: &Door| door.ask("POST", "/mcp", Some(&initialize)).unwrap().0;
    assert_eq!(over_mcp(&door), 200);
    let (status, valid) = door.ask("GET", "/validate?role=client", None).unwrap();
    assert_eq!(
        (status, valid),
        (
            200,
            json!({ "valid": true, "user": "anna", "roles": ["client"] })
        )
    );
    let (status, valid) = door.ask("GET", "/validate?role=admin", None).unwrap();
    assert_eq!(
        (status, valid),
        (403, json!({ "detail": "Insufficient permissions" }))
    );
    let sessions = vaxel.json(&["user", "sessions", "anna"]);
    let id = sessions[0]["id"].as_str().unwrap();
    vaxel.ok(&["user", "sessions", "anna", "--end", id]);
    assert_eq!(over_mcp(&door), 401);
    let (status, valid) = door.ask("GET", "/validate", None).unwrap();
    assert_eq!((status, valid), (401, json!({ "detail": "Invalid token" })));
}
