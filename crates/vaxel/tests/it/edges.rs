//! Attacks on the door itself: connections that hold places, heads that two readers read differently, names of
//! others, paths that climb.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{IpAddr, TcpStream, UdpSocket},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;

use crate::{
    doors::Raw,
    harness::{TestVaxel, repository, wait_for},
};

/// Everything that comes on a connection until it ends.
fn all_of(mut link: TcpStream) -> String {
    link.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut bytes = Vec::new();
    // It ends, by a close or by a reset.
    let _ = link.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn opened(address: &str, bytes: &[u8]) -> TcpStream {
    let mut link = TcpStream::connect(address).unwrap();
    link.write_all(bytes).unwrap();
    link
}

fn impatient(args: &[&str], env: &[(&str, &str)]) -> TestVaxel {
    TestVaxel::prepared(|vaxel| {
        vaxel.set_args(args);
        vaxel.set_env(env);
    })
}

#[test]
fn slow_loris() {
    let vaxel = impatient(&[], &[("VAXEL_LIMITS_HEADER_TIMEOUT", "2s")]);
    let raw = Raw::of(&vaxel);
    // Nothing, half a line, and a head that never ends.
    let starts: [&[u8]; 3] = [
        b"",
        b"GET /health",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx-a: ",
    ];
    let mut slow: Vec<TcpStream> = (0..300)
        .map(|number| opened(&raw.address, starts[number % 3]))
        .collect();
    assert_eq!(raw.send("GET", "/health/live", &[], "").status, 200);
    // A byte now and then is no head either: it has one deadline in all.
    for link in slow.iter_mut().skip(2).step_by(3) {
        // It may have been closed already.
        let _ = link.write_all(b"a");
    }
    for link in slow {
        let told = all_of(link);
        assert!(!told.contains(" 200 "), "{told}");
    }
    assert_eq!(raw.send("GET", "/health/live", &[], "").status, 200);
}

/// An address of this machine that others would use, when it has one.
fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this asks which address would be used.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn connections_without_end_from_one_address() {
    let Some(outward) = outward() else {
        println!("SKIPPED: this machine has no address but loopback");
        return;
    };
    let env = [
        ("VAXEL_LIMITS_CONNECTIONS_PER_ADDRESS", "20"),
        ("VAXEL_LIMITS_CONNECTIONS", "60"),
        ("VAXEL_LIMITS_HEADER_TIMEOUT", "60s"),
    ];
    let vaxel = impatient(&["--listen", "0.0.0.0:0"], &env);
    let local = Raw::of(&vaxel);
    let address = format!("{outward}:{}", local.address.rsplit(':').next().unwrap());
    let held: Vec<TcpStream> = (0..20)
        .map(|_| opened(&address, b"GET / HTTP/1.1\r\n"))
        .collect();
    // What is accepted one after the other is refused from here on, in words.
    for _ in 0..100 {
        let told = all_of(TcpStream::connect(&address).unwrap());
        assert!(
            told.starts_with("HTTP/1.1 429 ") && told.contains("close some"),
            "{told}"
        );
    }
    // This machine and everyone else have their places.
    assert_eq!(local.send("GET", "/health/live", &[], "").status, 200);
    assert!(
        vaxel.log().contains("limits.connections_per_address"),
        "{}",
        vaxel.log()
    );
    drop(held);
    let remote = Raw {
        address,
        key: vaxel.key(),
    };
    wait_for("places to be free again", || {
        let link = TcpStream::connect(&remote.address);
        link.is_ok_and(|mut link| {
            let asked = link.write_all(
                b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            );
            asked.is_ok() && all_of(link).starts_with("HTTP/1.1 200")
        })
    });
}

#[test]
fn no_file_descriptors_left() {
    let vaxel = TestVaxel::start();
    let raw = Raw::of(&vaxel);
    let pid = vaxel.run_file().unwrap()["pid"].as_i64().unwrap();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let limit = |current| Rlimit {
        current: Some(current),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(Some(pid), Resource::Nofile, limit(open + 8)).unwrap();
    let many: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(&raw.address).unwrap())
        .collect();
    wait_for("the want of descriptors to be told", || {
        vaxel.log().contains("connections cannot be accepted")
    });
    drop(many);
    wait_for("an answer", || {
        let mut link = TcpStream::connect(&raw.address).unwrap();
        let asked = link.write_all(
            b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        );
        asked.is_ok() && all_of(link).starts_with("HTTP/1.1 200")
    });
    let told = vaxel
        .log()
        .matches("connections cannot be accepted")
        .count();
    assert!(told < 20, "it is not said at every attempt: {told}");
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
}

/// A request that must not be answered: another reader would see it as a part of the body before it.
const HIDDEN: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[test]
fn header_smuggling() {
    let vaxel = TestVaxel::start();
    let address = Raw::of(&vaxel).address;
    let chunked = format!("0\r\n\r\n{HIDDEN}");
    let refused = smuggled(&chunked);
    for (what, bytes) in &refused {
        let mut link = TcpStream::connect(&address).unwrap();
        // What is too large is not taken to its end.
        let _ = link.write_all(bytes.as_bytes());
        let _ = link.shutdown(std::net::Shutdown::Write);
        let told = all_of(link);
        let first = told.split(' ').nth(1).unwrap_or_default();
        assert!(first.starts_with('4') || told.is_empty(), "{what}: {told}");
        // Where the first request was whole, the second may be one of its own.
        let whole = matches!(*what, "two hosts" | "no host" | "an address of others");
        assert!(
            whole || !told.contains("\"status\":\"ok\""),
            "{what}: {told}"
        );
    }
    // Both a length and chunks: the chunks count, and nothing after them does (RFC 9112 §6.3).
    for both in [
        "content-length: 47\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 47\r\n",
    ] {
        let told = all_of(opened(&address, post(both, &chunked).as_bytes()));
        assert_eq!(told.matches("HTTP/1.1 ").count(), 1, "{told}");
        assert!(told.starts_with("HTTP/1.1 4"), "{told}");
    }
    // Sizes of chunks that lie.
    for lie in ["-1", "ffffffffffffffffff", "0x5", "5;\n"] {
        let bytes = post(
            "authorization: Bearer x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n",
            &format!("{lie}\r\n{HIDDEN}"),
        );
        let told = all_of(opened(&address, bytes.as_bytes()));
        assert!(!told.contains("\"status\":\"ok\""), "{lie}: {told}");
    }
    // Lines that end in LF alone are lines (RFC 9112 §2.2), and one request stays one.
    let told = all_of(opened(
        &address,
        b"GET /health/live HTTP/1.1\nhost: localhost\nconnection: close\n\n",
    ));
    assert_eq!(told.matches("HTTP/1.1 200").count(), 1, "{told}");
    assert!(vaxel.cli(&["status"]).status.success());
}

/// Requests in which one reader sees another request where the next one does not.
fn smuggled(chunked: &str) -> Vec<(&'static str, String)> {
    vec![
        (
            "two lengths that differ",
            post("content-length: 0\r\ncontent-length: 47\r\n", HIDDEN),
        ),
        (
            "a length with a sign",
            post("content-length: +0\r\n", HIDDEN),
        ),
        (
            "a list of lengths",
            post("content-length: 0, 47\r\n", HIDDEN),
        ),
        (
            "a length that is too long for a number",
            post("content-length: 99999999999999999999\r\n", ""),
        ),
        (
            "an unknown encoding",
            post("transfer-encoding: xchunked\r\n", chunked),
        ),
        (
            "chunked that is not the last",
            post("transfer-encoding: chunked, identity\r\n", chunked),
        ),
        (
            "a folded header",
            post("x-a: b\r\n transfer-encoding: chunked\r\n", chunked),
        ),
        (
            "a space before the colon",
            post("transfer-encoding : chunked\r\n", chunked),
        ),
        ("a null in a value", post("x-a: b\0c\r\n", "")),
        (
            "a carriage return in a value",
            post("x-a: b\rtransfer-encoding: chunked\r\n", chunked),
        ),
        (
            "an encoding in HTTP/1.0",
            format!(
                "POST /mcp HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"
            ),
        ),
        (
            "two hosts",
            format!(
                "GET /health/live HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n{HIDDEN}"
            ),
        ),
        (
            "no host",
            format!("GET /health/live HTTP/1.1\r\n\r\n{HIDDEN}"),
        ),
        (
            "an address of others",
            format!(
                "GET http://evil.example/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n{HIDDEN}"
            ),
        ),
        (
            "more headers than there may be",
            format!(
                "GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
                "a: b\r\n".repeat(200)
            ),
        ),
        (
            "a head that is too large",
            format!(
                "GET / HTTP/1.1\r\nhost: localhost\r\na: {}\r\n\r\n",
                "b".repeat(100 << 10)
            ),
        ),
        (
            "an address that is too long",
            format!(
                "GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n",
                "b".repeat(100 << 10)
            ),
        ),
    ]
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /mcp HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}")
}

/// Every kind of door: verb and path.
const DOORS: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/docs/"),
    ("GET", "/errors"),
    ("GET", "/errors/not-found"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/services"),
    ("POST", "/api/v1/services"),
    ("GET", "/api/v1/events"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/shutdown"),
    ("GET", "/api/mcp"),
    ("GET", "/api/services"),
    ("POST", "/register"),
    ("GET", "/services"),
    ("POST", "/authenticate"),
    ("GET", "/validate"),
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("POST", "/mcp/demo"),
    ("POST", "/mcp/sets/any"),
    ("GET", "/sse"),
    ("GET", "/sse/demo"),
    ("POST", "/messages?session=x"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/oauth-protected-resource/mcp"),
    ("GET", "/oauth/authorize"),
    ("POST", "/oauth/sign-in"),
    ("POST", "/oauth/consent"),
    ("POST", "/oauth/token"),
    ("POST", "/oauth/register"),
    ("GET", "/oauth/device"),
    ("GET", "/nothing"),
    ("OPTIONS", "/mcp"),
    ("OPTIONS", "*"),
];

#[test]
fn dns_rebinding_and_pages_of_others_at_every_door() {
    let vaxel = TestVaxel::start();
    let raw = Raw::of(&vaxel);
    let upgrade = [
        ("upgrade", "websocket"),
        ("connection", "upgrade, close"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut tried = 0;
    for (verb, path) in DOORS {
        for strange in [
            ("host", "evil.example"),
            ("host", "evil.example:3010"),
            ("host", "localhost.evil.example"),
            ("host", "0.0.0.0"),
            ("origin", "https://evil.example"),
            ("origin", "http://localhost.evil.example"),
            ("origin", "null"),
        ] {
            let answer = raw.send(verb, path, &[strange], "");
            assert_eq!(
                answer.status, 403,
                "{verb} {path} {strange:?}: {}",
                answer.body
            );
            tried += 1;
        }
    }
    for strange in [("host", "evil.example"), ("origin", "https://evil.example")] {
        let mut headers = upgrade.to_vec();
        headers.push(strange);
        for path in ["/mcp", "/mcp/demo"] {
            assert_eq!(
                raw.send("GET", path, &headers, "").status,
                403,
                "{path} {strange:?}"
            );
        }
    }
    assert_eq!(tried, DOORS.len() * 7);
    assert!(vaxel.cli(&["status"]).status.success(), "nobody stopped it");
}

/// Texts that climb out of a folder, as a segment of a path.
const CLIMBS: &[&str] = &[
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fvaxel.db",
    "..%5c..%5cetc%5cpasswd",
    "..%252f..%252fetc%252fpasswd",
    "%2fetc%2fpasswd",
    "....%2f%2f....%2f%2fetc%2fpasswd",
    "..%c0%af..%c0%afetc%c0%afpasswd",
    "..%00",
    "admin.key",
    "..%2fadmin.key",
    "%2e%2e",
    "%2e",
];

#[test]
fn path_traversal_by_every_parameter_of_a_path() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    let document = fs::read_to_string(repository("docs/openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let paths: BTreeMap<String, Value> = serde_json::from_value(document["paths"].clone()).unwrap();
    let mut doors: Vec<(String, String)> = Vec::new();
    for (path, operations) in paths.iter().filter(|(path, _)| path.contains('{')) {
        for verb in ["get", "put", "post", "delete"] {
            if operations.get(verb).is_some() {
                doors.push((verb.to_uppercase(), path.clone()));
            }
        }
    }
    let more = [
        "/docs/{file}",
        "/errors/{slug}",
        "/mcp/{service}",
        "/mcp/sets/{set}",
        "/sse/{service}",
        "/service/{service}/tools",
        "/api/mcp/{server}",
        "/api/mcp/{server}/logs",
        "/api/services/{service}/health",
        "/.well-known/oauth-protected-resource/{path}",
    ];
    doors.extend(more.map(|path| ("GET".to_owned(), path.to_owned())));
    assert!(doors.len() > 40, "{}", doors.len());
    let key = vaxel.key();
    for (verb, path) in &doors {
        for climb in CLIMBS {
            let mut filled = String::new();
            for segment in path.split('/').skip(1) {
                filled.push('/');
                filled.push_str(if segment.starts_with('{') {
                    climb
                } else {
                    segment
                });
            }
            let answer = raw.send(verb, &filled, &[], "");
            let is_shown = answer.body.contains("root:x")
                || answer.body.contains(&key)
                || answer.body.contains("SQLite format");
            // The door of an earlier system has no tools of a service that there is not.
            let is_nothing = answer.body == "[]" && path == "/service/{service}/tools";
            assert!(
                ((400..500).contains(&answer.status) || is_nothing) && !is_shown,
                "{verb} {filled}: {} {}",
                answer.status,
                answer.body
            );
        }
    }
    // Paths that climb as they are: nobody resolves them.
    for path in [
        "/../etc/passwd",
        "/docs/../../etc/passwd",
        "/docs//etc/passwd",
        "/errors/../docs/index.html",
        "//etc/passwd",
    ] {
        let answer = raw.send("GET", path, &[], "");
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
    }
    assert!(
        vaxel
            .cli(&["call", "demo__echo", "--arg", "message=x"])
            .status
            .success()
    );
}
