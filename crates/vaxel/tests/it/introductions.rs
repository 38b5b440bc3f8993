//! A server of others whose tools want roles: it is told who calls, and believes nobody but Vaxel.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Door, TestVaxel, free_port, repository, tools, wait_for};

/// The server over HTTP; killed when dropped.
struct Bank {
    child: Child,
    url: String,
}

impl Bank {
    /// One that takes tokens for itself in `header`, or for `audience`.
    fn start(vaxel: &TestVaxel, audience: Option<&str>, header: &str) -> Option<Self> {
        let python = tools()?.join("py/bin/python");
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}/mcp");
        let mut command = Command::new(python);
        let child = command
            .arg(repository("tests/peers/servers/roles.py"))
            .args([keys(vaxel), vaxel.url()])
            .args([audience.unwrap_or(&url), &port.to_string(), header])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let bank = Self { child, url };
        wait_for("the bank to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(bank)
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keys(vaxel: &TestVaxel) -> String {
    format!("{}/.well-known/jwks.json", vaxel.url())
}

/// A key of a new user with the role `user`, who may call everything.
fn anna(vaxel: &TestVaxel) -> String {
    vaxel.ok(&["user", "add", "anna", "--role", "user", "--role", "client"]);
    let key = vaxel.json(&["key", "create", "anna-key", "--user", "anna"]);
    key["key"].as_str().unwrap().to_owned()
}

/// What a tool answered whoever has this key: what the token says, or why not.
fn call(vaxel: &TestVaxel, key: &str, (service, tool): (&str, &str)) -> Result<Value, String> {
    let door = Door {
        key: key.to_owned(),
        ..Door::of(vaxel)
    };
    let amount = if tool == "pay" {
        json!({ "amount": 1 })
    } else {
        json!({})
    };
    let asked = json!({ "arguments": amount });
    let path = format!("/api/v1/tools/{service}__{tool}/call");
    let (status, answer) = door.ask("POST", &path, Some(&asked)).unwrap();
    assert_eq!(status, 200, "{answer}");
    let result = &answer["result"];
    if result["isError"] == true {
        return Err(result["content"][0]["text"].as_str().unwrap().to_owned());
    }
    Ok(result["structuredContent"].clone())
}

fn refused(answer: Result<Value, String>) -> String {
    answer.unwrap_err()
}

/// Adds it as a remote server that is told who calls.
fn add(vaxel: &TestVaxel, name: &str, url: &str, header: Option<&str>) {
    let mut args = vec!["service", "add", name, "--url", url, "--identity", "jwt"];
    args.extend(header.map(|_| "--identity-header"));
    args.extend(header);
    vaxel.ok(&args);
}

#[test]
fn a_server_requires_a_role_per_tool() {
    let vaxel = TestVaxel::start();
    let Some(bank) = Bank::start(&vaxel, None, "x-vaxel-identity") else {
        return;
    };
    add(&vaxel, "bank", &bank.url, None);
    let (admin, anna) = (vaxel.key(), anna(&vaxel));
    let paid = call(&vaxel, &admin, ("bank", "pay")).unwrap();
    assert_eq!(
        (&paid["sub"], &paid["aud"]),
        (&json!("admin"), &json!(bank.url))
    );
    assert_eq!(paid["kind"], "person");
    let lasts = paid["exp"].as_u64().unwrap() - paid["iat"].as_u64().unwrap();
    assert!(lasts <= 60, "{paid}");
    assert_eq!(
        refused(call(&vaxel, &anna, ("bank", "pay"))),
        "403: Insufficient permissions"
    );
    let seen = call(&vaxel, &anna, ("bank", "look")).unwrap();
    assert_eq!(
        (&seen["sub"], &seen["roles"]),
        (&json!("anna"), &json!(["client", "user"]))
    );
    // What the server learned does not open Vaxel.
    let door = Door {
        key: seen["token"].as_str().unwrap().to_owned(),
        ..Door::of(&vaxel)
    };
    let (status, _) = door.ask("GET", "/api/v1/auth/whoami", None).unwrap();
    assert_eq!(status, 401);
    // A role that was taken away is gone at once.
    vaxel.ok(&["user", "edit", "anna", "--role", "client"]);
    assert_eq!(
        refused(call(&vaxel, &anna, ("bank", "look"))),
        "403: Insufficient permissions"
    );
}

#[test]
fn a_server_believes_the_next_key_at_once_and_no_token_for_another_server() {
    let vaxel = TestVaxel::start();
    let Some(bank) = Bank::start(&vaxel, None, "authorization") else {
        return;
    };
    add(&vaxel, "bank", &bank.url, Some("Authorization"));
    let admin = vaxel.key();
    let key = || call(&vaxel, &admin, ("bank", "pay")).unwrap()["kid"].clone();
    let first = key();
    assert_eq!(first, key());
    vaxel.ok(&["key", "rotate-signing"]);
    assert_ne!(first, key());
    // The same server under another address gets tokens for that one.
    let other = bank.url.replace("127.0.0.1", "localhost");
    add(&vaxel, "other", &other, Some("Authorization"));
    let refusal = refused(call(&vaxel, &admin, ("other", "pay")));
    assert!(refusal.starts_with("401: Audience"), "{refusal}");
    // And one that did not ask is told nothing.
    vaxel.ok(&["service", "add", "silent", "--url", &bank.url]);
    let refusal = refused(call(&vaxel, &admin, ("silent", "pay")));
    assert_eq!(refusal, "401: who are you?");
}

#[test]
fn a_program_requires_a_role_per_tool_in_both_eras() {
    let vaxel = TestVaxel::start();
    let Some(tools) = tools() else { return };
    let python = tools.join("py/bin/python").display().to_string();
    let script = repository("tests/peers/servers/roles.py")
        .display()
        .to_string();
    let (keys, url) = (keys(&vaxel), vaxel.url());
    for (name, era) in [("new", "auto"), ("old", "legacy")] {
        let program = [&*python, &script, &keys, &url, name];
        let mut args = vec![
            "service",
            "add",
            name,
            "--identity",
            "jwt",
            "--era",
            era,
            "--",
        ];
        args.extend(program);
        vaxel.ok(&args);
    }
    let (admin, anna) = (vaxel.key(), anna(&vaxel));
    for name in ["new", "old"] {
        let paid = call(&vaxel, &admin, (name, "pay")).unwrap();
        assert_eq!(
            (&paid["sub"], &paid["aud"]),
            (&json!("admin"), &json!(name))
        );
        assert_eq!(
            refused(call(&vaxel, &anna, (name, "pay"))),
            "403: Insufficient permissions"
        );
        assert_eq!(call(&vaxel, &anna, (name, "look")).unwrap()["sub"], "anna");
    }
}
