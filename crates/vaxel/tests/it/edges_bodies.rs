//! Attacks by bodies: that never end, that are too large, too deep, or grow when they are unpacked; and what
//! strangers may ask for at all.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    doors::Raw,
    harness::{TestVaxel, repository, wait_for},
};

/// Doors that read a body, and of which type.
const READERS: &[(&str, &str)] = &[
    ("/mcp", "application/json"),
    ("/mcp/demo", "application/json"),
    ("/api/v1/services", "application/json"),
    ("/api/v1/apply", "application/json"),
    ("/api/v1/tools/demo__echo/call", "application/json"),
    ("/api/v1/auth/login", "application/json"),
    ("/authenticate", "application/json"),
    ("/register", "application/json"),
    ("/api/mcp", "application/json"),
    ("/oauth/register", "application/json"),
    ("/oauth/token", "application/x-www-form-urlencoded"),
    ("/oauth/sign-in", "application/x-www-form-urlencoded"),
];

fn answer(mut link: TcpStream) -> String {
    link.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut bytes = Vec::new();
    // It ends, by a close or by a reset.
    let _ = link.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn slow_bodies() {
    let vaxel = TestVaxel::prepared(|vaxel| {
        vaxel.set_args(&["--demo"]);
        vaxel.set_env(&[("VAXEL_LIMITS_BODY_TIMEOUT", "1s")]);
    });
    let (raw, mut slow) = (Raw::of(&vaxel), Vec::new());
    for (path, kind) in READERS {
        for (length, start) in [
            ("content-length: 1000", "{"),
            ("transfer-encoding: chunked", "1\r\n{\r\n"),
        ] {
            let mut link = TcpStream::connect(&raw.address).unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\n{length}\r\n\r\n{start}",
                raw.address, raw.key
            );
            link.write_all(head.as_bytes()).unwrap();
            slow.push((*path, link));
        }
    }
    assert_eq!(raw.send("GET", "/health/live", &[], "").status, 200);
    for (path, link) in slow {
        let told = answer(link);
        assert!(told.starts_with("HTTP/1.1 4"), "{path}: {told}");
    }
}

#[test]
fn oversized_bodies() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    for (path, kind) in READERS {
        // Announced, and not sent: it is refused by what it says.
        let announced = raw.send(
            "POST",
            path,
            &[("content-type", kind), ("content-length", "50000000")],
            "",
        );
        assert!(
            matches!(announced.status, 400 | 413),
            "{path}: {} {}",
            announced.status,
            announced.body
        );
        // Not announced: it is read up to the limit and no further.
        let mut link = TcpStream::connect(&raw.address).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n",
            raw.address, raw.key
        );
        link.write_all(head.as_bytes()).unwrap();
        let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x1_0000));
        let taken = (0..200)
            .take_while(|_| link.write_all(chunk.as_bytes()).is_ok())
            .count();
        let told = answer(link);
        // The rest of what was sent may have swept the answer away.
        assert!(
            taken < 200 || told.starts_with("HTTP/1.1 4"),
            "{path}: {taken} {told}"
        );
    }
    assert!(vaxel.cli(&["status"]).status.success());
}

#[test]
fn deeply_nested_json() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for deep in [deep.as_str(), &deep[..200_000], &objects] {
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"demo__echo","arguments":{{"message":{deep}}}}}}}"#
        );
        let list = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{deep}}}"#);
        let name = format!(r#"{{"name":{deep}}}"#);
        let source = format!(r#"{{"name":"x","source":{deep}}}"#);
        for (path, _) in READERS
            .iter()
            .filter(|(_, kind)| *kind == "application/json")
        {
            for body in [deep, &call, &list, &name, &source] {
                let told = raw.send("POST", path, &[], body);
                assert!(
                    told.status < 500,
                    "{path}: {} {}",
                    told.status,
                    &told.body[..told.body.len().min(300)]
                );
            }
        }
        // Nothing of it is anybody's program: a refusal, not an echo of half of it.
        let called = raw.send("POST", "/api/v1/tools/demo__echo/call", &[], deep);
        assert!(
            matches!(called.status, 400 | 422),
            "{}",
            &called.body[..called.body.len().min(300)]
        );
    }
    assert!(
        vaxel
            .cli(&["call", "demo__echo", "--arg", "message=x"])
            .status
            .success()
    );
}

/// 100 MB of zeros, packed.
fn bomb() -> Vec<u8> {
    let packed = Command::new("sh")
        .args(["-c", "head -c 100000000 /dev/zero | gzip -9"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(packed.status.success() && packed.stdout.len() < 200_000);
    packed.stdout
}

#[test]
fn compression_bombs_in_requests_are_never_unpacked() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let (raw, bomb) = (Raw::of(&vaxel), bomb());
    let before = resident(&vaxel);
    for (path, kind) in READERS {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let mut link = TcpStream::connect(&raw.address).unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\n\
                 content-encoding: {coding}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                raw.address,
                raw.key,
                bomb.len()
            );
            link.write_all(head.as_bytes()).unwrap();
            let _ = link.write_all(&bomb);
            let told = answer(link);
            assert!(told.starts_with("HTTP/1.1 4"), "{path} {coding}: {told}");
        }
    }
    let grown = resident(&vaxel).saturating_sub(before);
    assert!(grown < 60_000, "{grown} KiB more than before");
}

/// KiB.
fn resident(vaxel: &TestVaxel) -> u64 {
    let pid = vaxel.run_file().unwrap()["pid"].to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn compression_bombs_in_answers_are_never_unpacked() {
    let vaxel = TestVaxel::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let (bomb, asked) = (bomb(), Arc::new(Mutex::new(String::new())));
    let heard = Arc::clone(&asked);
    std::thread::Builder::new()
        .spawn(move || {
            for link in listener.incoming() {
                let mut link = link.unwrap();
                let mut head = [0; 8 << 10];
                let read = link.read(&mut head).unwrap_or(0);
                heard.lock().push_str(&String::from_utf8_lossy(&head[..read]));
                let told = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\nconnection: close\r\n\
                     content-length: {}\r\n\r\n",
                    bomb.len()
                );
                // Vaxel may have enough of it.
                let _ = link.write_all(told.as_bytes()).and_then(|()| link.write_all(&bomb));
            }
        })
        .unwrap();
    let before = resident(&vaxel);
    let raw = Raw::of(&vaxel);
    let draft = json!({"name": "bomb", "spec": {"source": {"mcp": {"url": url}}}});
    let added = raw.send("POST", "/api/v1/services", &[], &draft.to_string());
    assert_eq!(added.status, 201, "{}", added.body);
    wait_for("the service to be in error", || {
        let shown = raw.send("GET", "/api/v1/services/bomb", &[], "").json();
        shown["status"]["lifecycle"] == "error"
    });
    let asked = asked.lock().to_ascii_lowercase();
    assert!(
        asked.contains("post /mcp") && !asked.contains("accept-encoding"),
        "{asked}"
    );
    let grown = resident(&vaxel).saturating_sub(before);
    assert!(grown < 60_000, "{grown} KiB more than before");
}

/// What strangers may ask for: each is a look at memory, or is bounded as it says.
const OPEN: &[(&str, &str, &str)] = &[
    ("GET", "/", "a fixed text"),
    ("GET", "/docs/", "a file of the binary"),
    ("GET", "/errors", "a fixed text"),
    ("GET", "/errors/not-found", "a fixed text"),
    ("GET", "/api/v1/openapi.json", "a file of the binary"),
    ("GET", "/api/v1/schemas/service", "a fixed text"),
    ("GET", "/health/live", "nothing"),
    ("GET", "/health/ready", "a look at memory"),
    ("GET", "/.well-known/jwks.json", "a look at memory"),
    (
        "GET",
        "/.well-known/oauth-authorization-server",
        "a small document",
    ),
    (
        "GET",
        "/.well-known/oauth-protected-resource/mcp",
        "a small document",
    ),
];

#[test]
fn strangers_are_answered_by_what_is_listed_and_by_nothing_else() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    let stranger = |verb: &str, path: &str| raw.send(verb, path, &[("authorization", "")], "");
    for (verb, path, why) in OPEN {
        let told = stranger(verb, path);
        assert_eq!(told.status, 200, "{path} ({why}): {}", told.body);
    }
    let document = fs::read_to_string(repository("docs/openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for verb in ["get", "put", "post", "delete"]
            .iter()
            .filter(|verb| operations.get(*verb).is_some())
        {
            let told = stranger(&verb.to_uppercase(), &path.replace(['{', '}'], ""));
            let is_listed = OPEN.iter().any(|(_, open, _)| open == path);
            // Whoever signs in is a stranger until then; of an address that has tried often little is taken.
            let is_sign_in = path.starts_with("/api/v1/auth/") && *verb == "post";
            // Programs of this machine may read the metrics.
            let is_metrics = path == "/metrics";
            assert!(
                told.status == 401 || is_listed || is_metrics || (is_sign_in && told.status < 500),
                "{verb} {path}: {} {}",
                told.status,
                told.body
            );
        }
    }
}
