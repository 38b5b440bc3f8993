//! Who did what, as the audit tells it: every kind of act through its door, and nothing that is secret.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::harness::{Door, TestVaxel, echo_server, text, wait_for};

const GOOD: &str = "a good long password";
const PLANTED: [&str; 3] = [
    "planted-in-env-1",
    "planted-password-2",
    "planted-in-a-key-3",
];

impl TestVaxel {
    /// The newest lines with this action.
    fn audited(&self, action: &str) -> Vec<Value> {
        let lines = self.json(&["audit", "list", "--action", action]);
        lines.as_array().unwrap().clone()
    }

    /// Waits for a line with this action for which `is_it` says so.
    fn waits_for(&self, action: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        wait_for(&format!("a line of {action}"), || {
            found = self.audited(action).into_iter().find(|line| is_it(line));
            found.is_some()
        });
        found.unwrap()
    }

    fn export(&self) -> String {
        self.ok(&["audit", "export"])
    }
}

/// What is known of every line of a change that somebody made.
fn has_origin(line: &Value, door: &str) {
    assert_eq!(line["door"], door, "{line}");
    assert_eq!(line["address"], "127.0.0.1", "{line}");
    assert_eq!(line["credential"], "key", "{line}");
    assert!(line["credential_id"].is_string(), "{line}");
    assert!(line["request"].is_string(), "{line}");
    assert_eq!(line["actor"], "admin", "{line}");
    assert_eq!(line["outcome"], "done", "{line}");
    for mark in ["hash", "seal"] {
        assert_eq!(line[mark].as_str().unwrap().len(), 64, "{line}");
    }
}

#[test]
fn every_change_leaves_a_line_that_says_who_from_where_what_was_and_what_is() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let script = echo_server(vaxel.home()).display().to_string();
    let secret = format!("TOKEN={}", PLANTED[0]);
    let commands: &[(&[&str], &str, &str)] = &[
        (
            &[
                "service", "add", "files", "--env", &secret, "--", "python3", &script,
            ],
            "service.create",
            "files",
        ),
        (&["service", "stop", "files"], "service.stop", "files"),
        (&["service", "start", "files"], "service.start", "files"),
        (&["service", "restart", "files"], "service.restart", "files"),
        (&["user", "add", "anna"], "user.create", "anna"),
        (
            &["user", "edit", "anna", "--title", "Anna Lind"],
            "user.update",
            "anna",
        ),
        (
            &["role", "add", "analyst", "mcp:read"],
            "role.create",
            "analyst",
        ),
        (&["role", "rm", "analyst"], "role.delete", "analyst"),
        (
            &["policy", "add", "quiet", "--deny", "--tool", "die"],
            "policy.create",
            "quiet",
        ),
        (&["policy", "rm", "quiet"], "policy.delete", "quiet"),
        (
            &["grant", "add", "files", "--user", "anna"],
            "grant.create",
            "user:anna files",
        ),
        (&["set", "add", "work", "demo"], "toolset.create", "work"),
        (&["set", "rm", "work"], "toolset.delete", "work"),
        (&["key", "create", "ci"], "key.create", "ci"),
        (&["key", "revoke", "ci"], "key.revoke", "ci"),
        (&["backup", "saved.backup"], "backup.create", ""),
        (&["service", "rm", "files"], "service.delete", "files"),
    ];
    for (args, action, name) in commands {
        let done = vaxel
            .command(args)
            .current_dir(vaxel.home())
            .output()
            .unwrap();
        assert!(done.status.success(), "{args:?}: {}", text(&done));
        let line = &vaxel.audited(action)[0];
        has_origin(line, "cli");
        assert_eq!(line["resource_name"], *name, "{line}");
        let (was, is) = (line["before"].is_object(), line["after"].is_object());
        let expected = match action.rsplit('.').next().unwrap() {
            "create" if *action == "backup.create" => (false, false),
            "create" => (false, true),
            "delete" if *action == "service.delete" => (true, true),
            "delete" => (true, false),
            _ => (true, true),
        };
        assert_eq!((was, is), expected, "{line}");
    }
    let stopped = &vaxel.audited("service.stop")[0];
    assert_eq!(
        (&stopped["before"]["enabled"], &stopped["after"]["enabled"]),
        (&json!(true), &json!(false))
    );
    let number = stopped["number"].to_string();
    let shown = vaxel.ok(&["audit", "show", &number]);
    assert!(
        shown.contains("service.stop") && shown.contains("\"enabled\": false"),
        "{shown}"
    );
    // The same through the other door.
    let door = Door::of(&vaxel);
    let body = json!({ "name": "other", "permissions": ["mcp:read"] });
    let (status, _) = door.ask("POST", "/api/v1/roles", Some(&body)).unwrap();
    assert_eq!(status, 201);
    has_origin(&vaxel.audited("role.create")[0], "rest");
    // What services go through is Vaxel's own, on behalf of whoever wanted it.
    let own = vaxel.waits_for("service.lifecycle", |line| line["resource_name"] == "files");
    assert_eq!(
        (&own["actor"], &own["door"], &own["on_behalf"]),
        (&json!("vaxel"), &json!("system"), &json!("admin"))
    );
    let table = vaxel.ok(&[
        "audit", "list", "--actor", "admin", "--text", "ANALYST", "-n", "1",
    ]);
    assert!(
        table.contains("role.delete") && !table.contains("role.create"),
        "{table}"
    );
    let held = vaxel.ok(&["audit", "verify"]);
    assert!(held.contains("The audit holds"), "{held}");
    assert!(!vaxel.export().contains(PLANTED[0]));
}

#[test]
fn sign_ins_and_their_failures_leave_lines_and_passwords_none() {
    let vaxel = TestVaxel::start();
    vaxel.ok(&["user", "add", "anna", "--role", "client"]);
    vaxel.with_input(&["user", "password", "anna"], "set by the admin\n");
    has_origin(&vaxel.audited("user.password")[0], "cli");
    let door = Door::of(&vaxel);
    let sign_in = |body: Value| door.ask("POST", "/api/v1/auth/login", Some(&body)).unwrap();
    let (status, tokens) = sign_in(json!({
        "username": "anna", "password": "set by the admin", "new_password": GOOD }));
    assert_eq!(status, 200, "{tokens}");
    let line = &vaxel.audited("user.sign_in")[0];
    let found = ["actor", "credential", "address", "door", "outcome"].map(|key| line[key].clone());
    assert_eq!(
        found,
        ["anna", "password", "127.0.0.1", "rest", "done"].map(Value::from)
    );
    assert!(line["request"].is_string(), "{line}");
    // A token that is used twice.
    let again = json!({ "refresh_token": tokens["refresh_token"] });
    let renew = || {
        door.ask("POST", "/api/v1/auth/refresh", Some(&again))
            .unwrap()
            .0
    };
    assert_eq!((renew(), renew()), (200, 401));
    let line = &vaxel.audited("user.token_reused")[0];
    assert_eq!(
        (&line["actor"], &line["outcome"]),
        (&json!("anna"), &json!("refused:unauthenticated"))
    );
    assert_eq!(line["address"], "127.0.0.1");
    for _ in 0..5 {
        let (status, _) = sign_in(json!({ "username": "anna", "password": PLANTED[1] }));
        assert_eq!(status, 401);
    }
    let failed = vaxel.audited("user.sign_in_failed");
    assert_eq!(failed.len(), 5);
    assert_eq!(failed[0]["outcome"], "refused:unauthenticated");
    let locked = vaxel.audited("user.lock");
    assert_eq!((locked.len(), &locked[0]["actor"]), (1, &json!("anna")));
    assert!(locked[0]["detail"]["until"].is_string());
    // What stands in the place of a name may be a password.
    sign_in(json!({ "username": PLANTED[1], "password": PLANTED[1] }));
    let export = vaxel.export();
    for secret in [PLANTED[1], GOOD, "set by the admin", "vxr_", "eyJ"] {
        assert!(!export.contains(secret), "{secret}");
    }
}

#[test]
fn what_is_refused_leaves_few_lines_with_their_numbers() {
    let mut vaxel = TestVaxel::start_with(&["--demo"]);
    vaxel.ok(&["user", "add", "anna", "--role", "client"]);
    let made = vaxel.json(&["key", "create", "of-anna", "--user", "anna"]);
    let anna = made["key"].as_str().unwrap().to_owned();
    let mut door = Door::of(&vaxel);
    // A key that nobody knows, through both doors, many times.
    door.key = format!("vxl_0123456789_{}", PLANTED[2]);
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    for _ in 0..40 {
        assert_eq!(door.ask("GET", "/api/v1/services", None).unwrap().0, 401);
        assert_eq!(door.ask("POST", "/mcp", Some(&initialize)).unwrap().0, 401);
    }
    let line = vaxel.waits_for("credential.refuse", |_| true);
    assert_eq!(
        ["actor", "credential", "address", "outcome"].map(|key| line[key].clone()),
        ["anyone", "key", "127.0.0.1", "refused:unauthenticated"].map(Value::from)
    );
    assert!(line["credential_id"].is_null(), "{line}");
    // What she may not do, and what she may not know of.
    door.key.clone_from(&anna);
    assert_eq!(door.ask("GET", "/api/v1/keys", None).unwrap().0, 403);
    let line = vaxel.waits_for("access.refuse", |line| line["actor"] == "anna");
    assert_eq!(
        ["credential", "resource_name", "door", "outcome"].map(|key| line[key].clone()),
        ["key", "GET /api/v1/keys", "rest", "refused:not-permitted"].map(Value::from)
    );
    vaxel.ok(&["user", "add", "otto", "--role", "client"]);
    let made = vaxel.json(&["key", "create", "of-otto", "--user", "otto"]);
    made["key"].as_str().unwrap().clone_into(&mut door.key);
    vaxel.ok(&[
        "policy",
        "add",
        "hidden",
        "--deny",
        "--service",
        "demo",
        "--user",
        "otto",
        "--permission",
        "mcp:read",
        "--permission",
        "mcp:execute",
    ]);
    assert_eq!(
        door.ask("GET", "/api/v1/services/demo", None).unwrap().0,
        404
    );
    let line = vaxel.waits_for("access.refuse", |line| line["actor"] == "otto");
    assert_eq!(line["outcome"], "refused:not-found");
    assert_eq!(line["resource_name"], "GET /api/v1/services/demo");
    vaxel.ok(&["policy", "rm", "hidden"]);
    // Over MCP.
    vaxel.ok(&["user", "add", "ida", "--role", "client"]);
    let made = vaxel.json(&["key", "create", "of-ida", "--user", "ida"]);
    made["key"].as_str().unwrap().clone_into(&mut door.key);
    vaxel.ok(&[
        "policy", "add", "quiet", "--deny", "--tool", "echo", "--user", "ida",
    ]);
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "demo__echo", "arguments": { "message": "x" }, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {} } } });
    let answer = call_over_mcp(&door, &call);
    assert!(!answer.contains("\"x\""), "{answer}");
    let line = vaxel.waits_for("access.refuse", |line| line["actor"] == "ida");
    assert_eq!(
        (&line["door"], &line["resource_name"]),
        (&json!("mcp"), &json!("tools/call demo__echo"))
    );
    let named = format!("x-request-id: {}\r\n", line["request"].as_str().unwrap());
    assert!(answer.contains(&named), "{named} {answer}");
    // A key that was good once is named by its public part.
    vaxel.ok(&["key", "revoke", "of-anna"]);
    door.key.clone_from(&anna);
    assert_eq!(door.ask("GET", "/api/v1/services", None).unwrap().0, 401);
    let line = vaxel.waits_for("credential.refuse", |line| {
        line["credential_id"].is_string()
    });
    assert_eq!(line["credential_id"], anna[..14]);
    assert!(line["detail"]["why"].as_str().unwrap().contains("revoked"));
    let export = vaxel.export();
    assert!(!export.contains(PLANTED[2]) && !export.contains(&anna));
    // The rest of the flood is written when its minute is over, or when Vaxel ends.
    vaxel.ok(&["down"]);
    vaxel.launch();
    let refused: u64 = vaxel
        .audited("credential.refuse")
        .iter()
        .map(|line| line["detail"]["count"].as_u64().unwrap())
        .sum();
    assert!(vaxel.audited("credential.refuse").len() <= 4, "few lines");
    assert_eq!(refused, 81, "and none of them lost");
}

/// What the modern MCP endpoint answers to a call.
fn call_over_mcp(door: &Door, call: &Value) -> String {
    let mut link = TcpStream::connect(&door.address).unwrap();
    let body = call.to_string();
    write!(
        link,
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: demo__echo\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        door.key,
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    link.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn an_export_is_verified_by_whoever_has_it_and_a_killed_vaxel_leaves_a_chain_that_holds() {
    let mut vaxel = TestVaxel::start_with(&["--demo"]);
    for round in 0..3 {
        let name = format!("user-{round}");
        let adding = vaxel.command(&["user", "add", &name]).spawn();
        wait_for("it to be there", || {
            vaxel.cli(&["user", "show", &name]).status.success()
        });
        vaxel.kill();
        // Its command may have been told so.
        let _ = adding.unwrap().wait();
        vaxel.launch();
        vaxel.ok(&["audit", "verify"]);
    }
    let whole = vaxel.home().join("audit.jsonl");
    fs::write(&whole, vaxel.export()).unwrap();
    let file = whole.display().to_string();
    let verdict = vaxel.json(&["audit", "verify", &file]);
    assert_eq!(
        (&verdict["holds"], &verdict["sealed"]),
        (&json!(true), &verdict["lines"])
    );
    vaxel.ok(&["down"]);
    vaxel.ok(&["audit", "verify", &file]);
    // Elsewhere, without the key.
    let elsewhere = vaxel.home().join("elsewhere").display().to_string();
    let known = vaxel.json(&["--data-dir", &elsewhere, "audit", "verify", &file]);
    assert_eq!(
        (&known["holds"], &known["sealed"]),
        (&json!(true), &json!(0))
    );
    assert!(
        known["notes"][0]
            .as_str()
            .unwrap()
            .contains("cannot be known")
    );
    let text_of = fs::read_to_string(&whole).unwrap();
    let mut forged = fs::File::create(&whole).unwrap();
    forged
        .write_all(text_of.replace("user-1", "user-9").as_bytes())
        .unwrap();
    let refused = vaxel.cli(&["audit", "verify", &file]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused).contains("The audit does not hold: line "),
        "{}",
        text(&refused)
    );
}
