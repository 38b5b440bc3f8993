//! Clients of others log in with a real browser: they are refused, find their way, a person lets them in, and they
//! call a tool. And what their tokens are good for at the data plane.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    doors::{Answer, Raw},
    harness::{Door, TestVaxel, free_port, repository, text, tools, wait_for},
};

const GOOD: &str = "a good long password";

/// A Vaxel with the demo server and a user `anna`, who calls every service.
fn with_anna() -> TestVaxel {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    vaxel.ok(&["user", "add", "anna", "--role", "client"]);
    vaxel.with_input(&["user", "password", "anna"], "set by the admin\n");
    let change =
        json!({ "username": "anna", "password": "set by the admin", "new_password": GOOD });
    let (status, answer) = Door::of(&vaxel)
        .ask("POST", "/authenticate", Some(&change))
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    vaxel
}

fn run(tools: &Path, (program, script): (&Path, &str), asked: &Value) -> Child {
    let mut child = Command::new(program)
        .arg(repository("tests/peers/oauth").join(script))
        .env("VAXEL_TEST_TOOLS", tools)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(asked.to_string().as_bytes()).unwrap();
    child
}

/// Anna at her browser: what she saw.
fn visit(tools: &Path, url: &str, answer: &str) -> Value {
    let asked = json!({ "url": url, "name": "anna", "password": GOOD, "answer": answer });
    visit_with(tools, &asked)
}

pub(crate) fn visit_with(tools: &Path, asked: &Value) -> Value {
    let done = run(tools, (&tools.join("node22/bin/node"), "person.mjs"), asked)
        .wait_with_output()
        .unwrap();
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{}", text(&done)))
}

/// Runs a client to its end; what it said last. Anna answers when it sends her somewhere.
fn log_in(client: (&Path, &str), tools: &Path, asked: &Value, answer: &str) -> Value {
    let mut child = run(tools, client, asked);
    let mut last = Value::Null;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = serde_json::from_str(&line.unwrap()).unwrap();
        if let Some(url) = last["visit"].as_str() {
            let seen = visit(tools, url, answer);
            let titles: Vec<&str> = seen["titles"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one.as_str().unwrap())
                .collect();
            assert_eq!(
                titles[..2],
                ["Sign in · Vaxel", "Let a client in · Vaxel"],
                "{seen}"
            );
            assert_eq!(seen["text"], "Back in the client", "{seen}");
        }
    }
    child.wait().unwrap();
    last
}

#[test]
fn the_typescript_sdks_log_in_with_a_browser_and_renew_their_tokens() {
    let Some(tools) = tools() else { return };
    let vaxel = with_anna();
    let node = tools.join("node22/bin/node");
    for (sdk, method, era) in [
        ("v1", "client_secret_post", "legacy"),
        ("v2", "none", "auto"),
    ] {
        let asked = json!({ "url": format!("{}/mcp", vaxel.url()), "sdk": sdk, "method": method, "era": era,
            "tool": "demo__echo", "arguments": { "message": "hello" } });
        let said = log_in((&node, "ts.mjs"), &tools, &asked, "allow");
        assert_eq!(
            (&said["text"], &said["renewed"]),
            (&json!("hello"), &json!(true)),
            "{sdk}: {said}"
        );
        assert_eq!(said["scope"], "mcp:read mcp:execute");
    }
    let asked = json!({ "url": format!("{}/mcp", vaxel.url()), "sdk": "v2", "tool": "demo__echo", "arguments": {} });
    let said = log_in((&node, "ts.mjs"), &tools, &asked, "deny");
    assert!(
        said["error"].as_str().unwrap().contains("access_denied"),
        "{said}"
    );
}

#[test]
fn the_python_sdk_logs_in_with_a_browser() {
    let Some(tools) = tools() else { return };
    let vaxel = with_anna();
    let python = tools.join("py/bin/python");
    for (method, era) in [("none", "legacy"), ("client_secret_basic", "2026-07-28")] {
        let asked = json!({ "url": format!("{}/mcp/demo", vaxel.url()), "method": method, "era": era,
            "tool": "echo", "arguments": { "message": "hello" } });
        let said = log_in((&python, "py.py"), &tools, &asked, "allow");
        assert_eq!(said["text"], "hello", "{said}");
    }
}

/// With a client without a secret only. With `--client-secret` the suite shows the secret nowhere as soon as the
/// metadata lists `none` among `token_endpoint_auth_methods_supported`, and a client that registered with a secret is
/// refused without it, rightly. Not to list `none` would hide from public clients that they can register.
#[test]
fn the_conformance_suite_finds_an_authorization_server() {
    let Some(tools) = tools() else { return };
    let vaxel = with_anna();
    let port = free_port();
    let metadata = json!({ "client_name": "suite", "token_endpoint_auth_method": "none",
        "redirect_uris": [format!("http://127.0.0.1:{port}/callback")] });
    let (_, registered) = Door::of(&vaxel)
        .ask("POST", "/oauth/register", Some(&metadata))
        .unwrap();
    let mut suite = Command::new(tools.join("node22/bin/node"))
        .arg(tools.join("npm/node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .args([
            "authorization",
            "--url",
            &vaxel.url(),
            "--client-id",
            registered["client_id"].as_str().unwrap(),
        ])
        .args([
            "--resource",
            &format!("{}/mcp", vaxel.url()),
            "--port",
            &port.to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    for line in BufReader::new(suite.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("/oauth/authorize?") {
            visit(&tools, line.trim(), "allow");
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert!(suite.wait().unwrap().success(), "{said}");
    assert!(said.contains("Total: 3 passed, 0 failed"), "{said}");
}

/// A token of a client that anna let in, by the shortest way: no browser is needed for what is tested here.
fn token(vaxel: &TestVaxel, resource: &str, scope: &str) -> String {
    let script = repository("tests/peers/oauth/short.mjs");
    let node = tools().unwrap().join("node22/bin/node");
    let done = Command::new(node)
        .arg(script)
        .args([&vaxel.url(), resource, scope, "anna", GOOD])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", text(&done));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A call of `echo` at an endpoint, with a token.
fn call(vaxel: &TestVaxel, token: &str, path: &str) -> Answer {
    let mut raw = Raw::of(vaxel);
    token.clone_into(&mut raw.key);
    let head = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
    ];
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} });
    let params = json!({ "name": "echo", "arguments": { "message": "hello" }, "_meta": meta });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    raw.send("POST", path, &head, &message.to_string())
}

#[test]
fn a_token_for_one_endpoint_is_refused_at_every_other() {
    if tools().is_none() {
        return;
    }
    let vaxel = with_anna();
    let resource = format!("{}/mcp/demo", vaxel.url());
    let token = token(&vaxel, &resource, "mcp:read mcp:execute");
    let good = call(&vaxel, &token, "/mcp/demo");
    assert_eq!(good.status, 200, "{}", good.body);
    for other in [
        "/mcp",
        "/mcp/other",
        "/mcp/sets/demo",
        "/sse",
        "/messages?session=x",
    ] {
        let refused = call(&vaxel, &token, other);
        assert_eq!(refused.status, 401, "{other}: {}", refused.body);
        assert!(
            refused.body.contains("it is for /mcp/demo"),
            "{}",
            refused.body
        );
    }
    let mut door = Door::of(&vaxel);
    door.key = token;
    for path in [
        "/api/v1/services",
        "/api/v1/auth/sessions",
        "/api/v1/whoami",
    ] {
        assert_ne!(door.ask("GET", path, None).unwrap().0, 200, "{path}");
    }
    // Its user's own token goes everywhere, as it did.
    let login = json!({ "username": "anna", "password": GOOD });
    let own = door
        .ask("POST", "/api/v1/auth/login", Some(&login))
        .unwrap()
        .1;
    door.key = own["access_token"].as_str().unwrap().to_owned();
    assert_eq!(door.ask("GET", "/api/v1/services", None).unwrap().0, 200);
    assert_eq!(call(&vaxel, &door.key, "/mcp/demo").status, 200);
    vaxel.ok(&["user", "edit", "anna", "--state", "disabled"]);
    assert_eq!(call(&vaxel, &door.key, "/mcp/demo").status, 401);
}

#[test]
fn a_call_beyond_the_scope_of_a_token_is_told_which_scope_it_needs() {
    if tools().is_none() {
        return;
    }
    let vaxel = with_anna();
    let resource = format!("{}/mcp/demo", vaxel.url());
    let narrow = token(&vaxel, &resource, "mcp:read");
    let metadata = format!(
        "resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp/demo\"",
        vaxel.url()
    );
    for (token, status, error) in [
        (narrow.as_str(), 403, "error=\"insufficient_scope\""),
        ("eyJhbGciOiJub25lIn0.e30.", 401, "error=\"invalid_token\""),
        ("vxk_wrong", 401, "error=\"invalid_token\""),
    ] {
        let refused = call(&vaxel, token, "/mcp/demo");
        assert_eq!(refused.status, status, "{}", refused.body);
        let challenge = refused.header("www-authenticate").unwrap();
        for part in [error, &metadata, "scope=\"mcp:read mcp:execute\""] {
            assert!(challenge.contains(part), "{part}: {challenge}");
        }
    }
}

/// Runs `vaxel login` with these flags, while anna does what it says.
fn sign_in(vaxel: &TestVaxel, args: &[&str], act: impl FnOnce(&str)) {
    let mut child = vaxel
        .command(args)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find_map(|line| line.ok().filter(|line| line.contains("/oauth/")));
    act(line.as_deref().unwrap_or_default().trim());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
}

#[test]
fn the_command_line_signs_in_with_a_browser_and_with_a_code() {
    let Some(tools) = tools() else { return };
    let vaxel = with_anna();
    sign_in(&vaxel, &["login"], |url| {
        let seen = visit(&tools, url, "allow");
        assert!(
            seen["text"]
                .as_str()
                .unwrap()
                .contains("Back to the terminal"),
            "{seen}"
        );
    });
    assert_eq!(vaxel.json(&["whoami"])["name"], "anna");
    // The access token is over: the next command renews it.
    let file = vaxel.home().join(".config/vaxel/logins.json");
    let mut kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for signed_in in kept.as_object_mut().unwrap().values_mut() {
        signed_in["expires_at"] = json!("2020-01-01T00:00:00Z");
    }
    std::fs::write(&file, kept.to_string()).unwrap();
    assert_eq!(vaxel.json(&["whoami"])["name"], "anna");
    vaxel.ok(&["logout"]);
    assert_eq!(vaxel.json(&["whoami"])["name"], "admin");
    sign_in(&vaxel, &["login", "--device"], |line| {
        let code = line
            .split(' ')
            .find(|word| word.contains('-') && !word.contains('/'))
            .unwrap();
        let page = format!(
            "{}/oauth/device?user_code={}",
            vaxel.url(),
            code.trim_end_matches(',')
        );
        let seen = visit(&tools, &page, "allow");
        assert!(
            seen["text"].as_str().unwrap().contains("is let in"),
            "{seen}"
        );
    });
    assert_eq!(vaxel.json(&["whoami"])["name"], "anna");
}

/// An authorization server of others; ended when dropped.
pub(crate) struct Issuer(Child);

impl Issuer {
    fn start(tools: &Path, port: u16) -> Self {
        Self::with(tools, port, &[])
    }

    /// One with a client that comes back to this address.
    pub(crate) fn with(tools: &Path, port: u16, redirect: &[&str]) -> Self {
        let child = Command::new(tools.join("node22/bin/node"))
            .arg(repository("tests/peers/oauth/issuer.mjs"))
            .arg(port.to_string())
            .args(redirect)
            .env("VAXEL_TEST_TOOLS", tools)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("oidc-provider to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self(child)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn clients_log_in_at_another_authorization_server() {
    let Some(tools) = tools() else { return };
    let port = free_port();
    let _issuer = Issuer::start(&tools, port);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(
        &file,
        format!("[oauth]\nissuer = \"http://127.0.0.1:{port}\"\nuser_claim = \"email\"\n"),
    )
    .unwrap();
    let vaxel = TestVaxel::start_with(&["--demo", "--config", file.to_str().unwrap()]);
    // Whom the issuer names is nobody here yet.
    let refused = log_in_there(&vaxel, &tools, port, "anna");
    assert!(refused["error"].is_string(), "{refused}");
    vaxel.ok(&["user", "add", "anna@example.com", "--role", "client"]);
    let said = log_in_there(&vaxel, &tools, port, "anna");
    assert_eq!(said["text"], "hello", "{said}");
}

#[test]
fn roles_come_from_another_authorization_server_where_its_words_mean_some() {
    let Some(tools) = tools() else { return };
    let port = free_port();
    let _issuer = Issuer::start(&tools, port);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let config = format!(
        "[oauth]\nissuer = \"http://127.0.0.1:{port}\"\nuser_claim = \"email\"\n\
         roles_claim = \"roles\"\nroles = [\"staff=client\"]\n"
    );
    std::fs::write(&file, &config).unwrap();
    let vaxel = TestVaxel::start_with(&["--demo", "--config", file.to_str().unwrap()]);
    for name in ["anna@example.com", "bob@example.com"] {
        // Who monitors calls nothing.
        vaxel.ok(&["user", "add", name, "--role", "monitor"]);
    }
    // Anna's token says `staff`, which is a client here.
    let said = log_in_there(&vaxel, &tools, port, "anna");
    assert_eq!(said["text"], "hello", "{said}");
    // Bob's says `admin`, which means nothing here.
    let refused = log_in_there(&vaxel, &tools, port, "bob");
    assert!(refused["error"].is_string(), "{refused}");
    // Without such a token Anna has the roles that were given here.
    let shown = vaxel.json(&["auth", "why", "anna@example.com", "mcp:execute", "demo"]);
    assert_eq!(shown["allowed"], false, "{shown}");

    std::fs::write(&file, config.replace("staff=client", "staff=x=")).unwrap();
    let wrong = vaxel.cli(&["config", "check", file.to_str().unwrap()]);
    assert!(text(&wrong).contains("oauth.roles[0]"), "{}", text(&wrong));
}

/// A client logs in for somebody at the other authorization server, and calls a tool: what came of it.
fn log_in_there(vaxel: &TestVaxel, tools: &Path, port: u16, name: &str) -> Value {
    let asked = json!({ "url": format!("{}/mcp", vaxel.url()), "sdk": "v2", "renews": false,
        "tool": "demo__echo", "arguments": { "message": "hello" } });
    let mut child = run(tools, (&tools.join("node22/bin/node"), "ts.mjs"), &asked);
    let mut last = Value::Null;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        last = serde_json::from_str(&line.unwrap()).unwrap();
        if let Some(url) = last["visit"].as_str() {
            assert!(
                url.starts_with(&format!("http://127.0.0.1:{port}/")),
                "{url}"
            );
            let asked = json!({ "url": url, "name": name, "password": "x", "elsewhere": true });
            visit_with(tools, &asked);
        }
    }
    child.wait().unwrap();
    last
}

#[test]
fn without_authentication_nobody_is_sent_to_log_in() {
    let vaxel = TestVaxel::start_with(&["--no-auth", "--demo"]);
    let door = Door::of(&vaxel);
    for path in [
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-authorization-server",
        "/oauth/authorize",
    ] {
        assert_eq!(door.ask("GET", path, None).unwrap().0, 404, "{path}");
    }
}
