//! Services that ask who calls: what they are told, by which way, and that nobody else tells them.

use std::sync::Arc;

use serde_json::{Map, Value};
use vaxel_auth::{
    identity::{Issuer, TYPE},
    jwks::{KeySet, OwnKey},
    jwt::{self, Algorithm, Rules},
};
use vaxel_core::{
    principal::{Permissions, Principal},
    time::Clock,
};
use vaxel_gateway::{Introduced, Transport};

use crate::harness::{Reply, Rig, Script, Terms, Upstream, client::Message};

const VAXEL: &str = "http://vaxel.example.com";
const HEADER: &str = "x-who";
const CLAIMED: &str = r#""dev.vaxel/identity":"forged","progressToken":"p""#;

/// A rig that signs.
fn signing() -> (Rig, OwnKey) {
    let rig = Rig::start();
    let key = OwnKey::generate(Algorithm::EdDsa).unwrap();
    rig.gateway.publish_issuer(Issuer::new(key.signer(), VAXEL));
    (rig, key)
}

fn asking() -> Terms {
    Terms {
        introduced: Some(Introduced {
            audience: "bank".to_owned(),
            header: "X-Who".to_owned(),
        }),
        ..Terms::default()
    }
}

/// What a token says, when it is good for the bank.
fn read(token: &str, key: &OwnKey) -> Map<String, Value> {
    let rules = Rules {
        issuer: VAXEL.to_owned(),
        audiences: vec!["bank".to_owned()],
        below: false,
        types: &[TYPE],
    };
    let keys = KeySet::of_own([key]);
    let verified = jwt::verify(token, &keys, &rules, Clock::system().now());
    verified
        .unwrap_or_else(|error| panic!("{token}: {error}"))
        .claims
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_over_http_reads_who_calls_in_its_header() {
    let (rig, key) = signing();
    let modern = Upstream::modern(|_| None).await;
    let legacy = Upstream::legacy(|_| None).await;
    for (name, upstream) in [("new", &modern), ("old", &legacy)] {
        rig.add_http_on(name, upstream, asking()).await;
        let message = Message::call(&format!("{name}__echo"), "{}").meta(CLAIMED);
        let clients = [rig.modern(), rig.legacy().await];
        for client in clients.map(|client| client.with(HEADER, "forged")) {
            client.say(&message).await;
            let seen = upstream.seen("tools/call").pop().unwrap();
            let said = read(seen.header(HEADER).unwrap(), &key);
            assert_eq!(
                (&said["sub"], &said["kind"]),
                (&"someone".into(), &"vaxel".into())
            );
            assert!(!seen.text.contains("forged"), "{}", seen.text);
            assert_eq!(seen.headers.get_all(HEADER).iter().count(), 1);
        }
        for seen in upstream.seen("") {
            // Its own requests are Vaxel's.
            let said = read(seen.header(HEADER).unwrap(), &key);
            let is_call = seen.method() == "tools/call";
            assert_eq!(said["sub"] == "vaxel", !is_call, "{}", seen.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reads_who_calls_in_the_meta_of_a_request() {
    let (rig, key) = signing();
    for (name, script) in [
        ("new", Script::modern(Script::ECHO)),
        ("old", Script::legacy(Script::ECHO)),
    ] {
        rig.add_stdio_on(name, &script, asking()).await;
        for meta in ["", CLAIMED] {
            let message = Message::call(&format!("{name}__echo"), "{}").meta(meta);
            for client in [rig.modern(), rig.legacy().await] {
                client.say(&message).await;
                let told = rig.told(name).pop().unwrap();
                let told: Value = serde_json::from_str(&told).unwrap();
                let meta = &told["params"]["_meta"];
                let token = meta["dev.vaxel/identity"].as_str();
                assert_eq!(read(token.unwrap(), &key)["sub"], "someone", "{told}");
                assert!(!told.to_string().contains("forged"), "{told}");
                assert_eq!(meta["progressToken"].is_u64(), message.meta == CLAIMED);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_is_told_nothing_and_nobody_can_claim_to_be_somebody() {
    let (rig, _key) = signing();
    let upstream = Upstream::modern(|_| None).await;
    rig.add_http("http", &upstream).await;
    rig.add_stdio("new", &Script::modern(Script::ECHO)).await;
    rig.add_stdio("old", &Script::legacy(Script::ECHO)).await;
    // The same key, spelled in another way.
    let spelled = r#""dev.vaxel\/\u0069dentity":"forged","progressToken":"p""#;
    for name in ["http", "new", "old"] {
        for client in [rig.modern(), rig.legacy().await] {
            for claim in [CLAIMED, spelled] {
                let message = Message::call(&format!("{name}__echo"), "{}").meta(claim);
                let client = client.clone().with("x-vaxel-identity", "forged");
                client.say(&message).await;
            }
        }
    }
    let lines = [rig.told("new"), rig.told("old")].concat();
    let requests = upstream.seen("");
    assert!(
        requests
            .iter()
            .all(|seen| seen.header("x-vaxel-identity").is_none())
    );
    let all = requests.iter().map(|seen| &seen.text).chain(&lines);
    let calls: Vec<_> = all.filter(|text| text.contains("tools/call")).collect();
    assert!(calls.len() >= 12);
    for text in calls {
        assert!(
            !text.contains("forged") && !text.contains("dentity"),
            "{text}"
        );
    }
    let twice = format!("{CLAIMED},{spelled}");
    let message = Message::call("new__echo", "{}").meta(&twice);
    let body = rig.modern().body(&message);
    let client = rig.modern().with("mcp-method", "tools/call");
    let answer = client.with("mcp-name", "new__echo").post(&body).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_mcp_reads_it_too() {
    let (rig, key) = signing();
    let upstream = Upstream::modern(|_| Some(Reply::Json(200, "{}".to_owned()))).await;
    let tool = r#"{"name":"pay","inputSchema":{"type":"object"}}"#;
    let transport = Transport::Tools {
        base: upstream.url(),
        health: None,
        headers: Vec::new(),
        tools: vec![serde_json::from_str(tool).unwrap()],
    };
    rig.add("bank", transport, asking()).await.unwrap();
    rig.modern().call("bank__pay", "{}").await;
    let seen = upstream.seen("").pop().unwrap();
    assert_eq!(read(seen.header(HEADER).unwrap(), &key)["sub"], "someone");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_is_told_as_itself_over_one_link() {
    let (rig, key) = signing();
    let upstream = Upstream::modern(|_| None).await;
    rig.add_http_on("bank", &upstream, asking()).await;
    let other = Principal {
        proof: vaxel_core::principal::Proof::Key(vaxel_core::id::Id::new(Clock::system().now())),
        name: Arc::from("bob"),
        permissions: Permissions::ALL,
        ..Principal::system()
    };
    let bob = rig
        .modern()
        .with("authorization", &format!("Bearer {}", rig.admit(other)));
    for (client, name) in [
        (rig.modern(), "someone"),
        (bob, "bob"),
        (rig.modern(), "someone"),
    ] {
        client.call("bank__echo", "{}").await;
        let seen = upstream.seen("tools/call").pop().unwrap();
        assert_eq!(read(seen.header(HEADER).unwrap(), &key)["sub"], name);
    }
    // One signature for one caller.
    let seen = upstream.seen("tools/call");
    assert_eq!(seen[0].header(HEADER), seen[2].header(HEADER));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_asks_is_not_reached_while_nothing_signs() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let transport = crate::harness::over_http(upstream.url());
    let refused = rig.add("bank", transport, asking()).await;
    assert!(refused.is_err());
    assert!(upstream.seen("").is_empty());
}
