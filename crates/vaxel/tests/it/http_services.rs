//! A `FastAPI` service with two instances, and a stdio server that rests when nobody calls it.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    doors::Raw,
    harness::{TestVaxel, free_port, marked, repository, text, tools, wait_for},
};

/// One instance of the service; killed when dropped.
struct Shop {
    child: Child,
    port: u16,
}

impl Shop {
    fn start(tools: &Path, name: &str, port: u16) -> Self {
        let child = Command::new(tools.join("py/bin/python"))
            .arg(repository("tests/peers/servers/shop.py"))
            .args([&port.to_string(), name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let shop = Self { child, port };
        wait_for("the shop to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        shop
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The structured result of a call, over REST.
fn call(raw: &Raw, tool: &str, arguments: &Value) -> Value {
    let path = format!("/api/v1/tools/shop__{tool}/call");
    let body = json!({ "arguments": arguments }).to_string();
    let answer = raw.send("POST", &path, &[], &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// Which instances answered so many calls.
fn shares(raw: &Raw, calls: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        let answer = call(raw, "who", &json!({}));
        let by = answer["result"]["structuredContent"]["by"].as_str();
        let by = by.unwrap_or_else(|| panic!("{answer}")).to_owned();
        *shares.entry(by).or_default() += 1;
    }
    shares
}

#[test]
fn a_fastapi_service_is_called_like_any_other() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start();
    let raw = Raw::of(&vaxel);
    let shop = Shop::start(&tools, "one", free_port());
    let http = format!("127.0.0.1:{}", shop.port);
    let all = [
        "create_wallet",
        "who",
        "say",
        "picture",
        "missing",
        "broken",
    ];
    let mut add = vec!["service", "add", "shop", "--http", &http];
    add.extend([
        "--health-path",
        "/health",
        "--header",
        "Authorization=Bearer k",
    ]);
    add.extend(all.iter().flat_map(|tool| ["--tool", tool]));
    vaxel.ok(&add);
    let shown = vaxel.json(&["service", "show", "shop"]);
    assert_eq!(shown["status"]["instances"][0]["address"], http);
    assert_eq!(shown["status"]["tools"], 6);
    let listed = vaxel.ok(&["ls"]);
    assert!(listed.contains("http"), "{listed}");

    let wallet = vaxel.ok(&[
        "call",
        "shop__create_wallet",
        "--json",
        r#"{"owner":"Ada","coins":3}"#,
    ]);
    assert!(wallet.contains("Ada-1"), "{wallet}");
    let who = call(&raw, "who", &json!({}));
    let told = &who["result"]["structuredContent"];
    assert_eq!(told["key"], "Bearer k");
    assert_eq!(told["call"], who["call_id"]);
    let refused = vaxel.cli(&["call", "shop__create_wallet", "--json", "{}"]);
    assert!(
        text(&refused).contains("body.owner: Field required"),
        "{}",
        text(&refused)
    );
    let missing = call(&raw, "missing", &json!({}));
    assert_eq!(missing["is_error"], true, "{missing}");
    let broken = vaxel.cli(&["call", "shop__broken"]);
    assert!(
        text(&broken).contains("500 Internal Server Error"),
        "{}",
        text(&broken)
    );
    assert!(
        !text(&broken).contains("nobody outside"),
        "{}",
        text(&broken)
    );

    let params = |tool: &str| json!({"name": format!("shop__{tool}"), "arguments": {}});
    let modern = raw.modern("tools/call", params("say")).json();
    assert_eq!(modern["result"]["content"][0]["text"], "plain words");
    assert_eq!(modern["result"]["resultType"], "complete");
    let (session, _) = raw.session("2025-06-18");
    let message =
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params("picture")});
    let headers = [("mcp-session-id", session.as_str())];
    let legacy = raw
        .send("POST", "/mcp", &headers, &message.to_string())
        .json();
    assert_eq!(
        legacy,
        json!({"jsonrpc": "2.0", "id": 7, "result":
            {"content": [{"type": "image", "data": "iVBORw==", "mimeType": "image/png"}]}})
    );
}

#[test]
fn calls_are_shared_over_instances_and_go_on_without_one_of_them() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start();
    let raw = Raw::of(&vaxel);
    let ports = [free_port(), free_port()];
    let one = Shop::start(&tools, "one", ports[0]);
    let two = Shop::start(&tools, "two", ports[1]);
    let wallet = json!({"name": "create_wallet", "description": "Makes one.", "input_schema": {
        "type": "object", "required": ["owner"], "properties": {"owner": {"type": "string"}}}});
    let instance =
        |port: u16, weight: u16| json!({"host": "localhost", "port": port, "weight": weight});
    // Signs of life every half minute would make it a test of patience.
    let draft = json!({"name": "shop", "spec": {"balance": "weighted", "validate": "arguments",
        "health": {"interval": "1s", "timeout": "20s"}, "source": {"http": {"instances": [instance(ports[0], 1), instance(ports[1], 3)],
            "health_path": "/health", "tools": [wallet, "who"]}}}});
    let made = raw.send("POST", "/api/v1/services", &[], &draft.to_string());
    assert_eq!(made.status, 201, "{}", made.body);
    let health = || vaxel.json(&["service", "show", "shop"])["status"]["health"].clone();
    wait_for("both instances", || health() == "HEALTHY");
    let all = shares(&raw, 40);
    assert!((6..=16).contains(&all["one"]), "{all:?}");
    let wrong = vaxel.cli(&["call", "shop__create_wallet", "--json", r#"{"owner":1}"#]);
    assert!(
        text(&wrong).contains("/owner: must be a string"),
        "{}",
        text(&wrong)
    );

    drop(two);
    assert_eq!(shares(&raw, 12), BTreeMap::from([("one".to_owned(), 12)]));
    wait_for("the loss to be seen", || health() == "DEGRADED");
    drop(one);
    // A call that meets it says so; without one it would take a few signs of life.
    let who = || {
        let path = "/api/v1/tools/shop__who/call";
        raw.send("POST", path, &[], r#"{"arguments":{}}"#)
    };
    wait_for("the loss of all to be seen", || {
        who().status != 200 && health() != "DEGRADED"
    });
    let answer = who();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("5"))
    );
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("check that it runs and listens there"),
        "{detail}"
    );

    let _again = Shop::start(&tools, "again", ports[1]);
    wait_for("the instance that is there again", || who().status == 200);
}

#[test]
fn a_server_that_nobody_calls_rests_until_somebody_does() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start();
    let program = tools.join("py/bin/mcp-server-time").display().to_string();
    let flags = ["--idle-timeout", "1s", "--replicas", "2", "--", &program];
    vaxel.ok(&[&["service", "add", "time"][..], &flags].concat());
    let status = || vaxel.json(&["service", "show", "time"])["status"].clone();
    let first: Vec<Value> = status()["instances"].as_array().unwrap().clone();
    wait_for("it to rest", || status()["health"] == "STOPPED");
    let resting = status();
    assert_eq!(resting["lifecycle"], "active");
    let reason = resting["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("idle: nobody has called it for 1s"),
        "{reason}"
    );
    let pids: Vec<u64> = first.iter().filter_map(|one| one["pid"].as_u64()).collect();
    wait_for("its processes to end", || {
        let left = marked(&program);
        !pids
            .iter()
            .any(|pid| left.iter().any(|one| u64::from(*one) == *pid))
    });
    let offered = vaxel.ok(&["tools", "--service", "time"]);
    assert!(offered.contains("get_current_time"), "{offered}");
    let asked = ["call", "time__get_current_time", "--arg", "timezone=UTC"];
    let said = vaxel.ok(&asked);
    assert!(said.contains("UTC"), "{said}");
    assert_eq!(status()["lifecycle"], "active");
}
