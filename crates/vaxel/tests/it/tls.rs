//! TLS on the port, met by clients of others: curl and OpenSSL.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{TestVaxel, text, wait_for};

/// `host:port`.
pub(crate) fn address(vaxel: &TestVaxel) -> String {
    vaxel.url().trim_start_matches("https://").to_owned()
}

fn certificate(vaxel: &TestVaxel) -> String {
    let file = vaxel.data_dir().join("self-signed.crt");
    file.display().to_string()
}

/// The answer of curl, which trusts what Vaxel made for itself: what `-w` prints follows the body.
fn curl(vaxel: &TestVaxel, args: &[&str]) -> Output {
    Command::new("curl")
        .args(["--silent", "--show-error", "--cacert", &certificate(vaxel)])
        .args(args)
        .env_clear()
        .output()
        .expect("curl is installed")
}

fn fetched(output: &Output) -> &str {
    assert!(output.status.success(), "{}", text(output));
    std::str::from_utf8(&output.stdout).unwrap()
}

/// What OpenSSL says of a handshake.
pub(crate) fn handshake(vaxel: &TestVaxel, args: &[&str]) -> Output {
    Command::new("openssl")
        .args(["s_client", "-connect", &address(vaxel)])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed")
}

#[test]
fn a_vaxel_with_its_own_certificate_is_reached_by_all_who_know_that() {
    let vaxel = TestVaxel::start_with(&["--self-signed", "--demo"]);
    for file in ["self-signed.crt", "self-signed.key"] {
        let facts = fs::metadata(vaxel.data_dir().join(file)).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o600, "{file}");
    }
    // Its own command line knows it by what it wrote about itself.
    let status = vaxel.json(&["status"]);
    let fingerprint = status["tls"]["fingerprint"].as_str().unwrap();
    assert!(
        status["url"]
            .as_str()
            .unwrap()
            .starts_with("https://127.0.0.1:")
    );
    assert!(
        status["tls"]["names"]
            .as_array()
            .unwrap()
            .contains(&json!("localhost"))
    );
    let doctor = text(&vaxel.cli(&["doctor"]));
    assert!(
        doctor.contains("is good until") && doctor.contains("certificate"),
        "{doctor}"
    );
    let colons = fingerprint
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|two| std::str::from_utf8(two).unwrap())
        .collect::<Vec<_>>()
        .join(":");
    assert!(
        vaxel.log().contains(&colons),
        "the fingerprint is shown at the start"
    );

    // Another machine's knows it by the certificate or by its fingerprint, and else not at all.
    let (url, key) = (vaxel.url().replace("127.0.0.1", "localhost"), vaxel.key());
    let remote = |more: &[&str]| {
        let mut args = vec!["--url", &url, "--key", &key];
        args.extend(more);
        args.push("whoami");
        vaxel.cli(&args)
    };
    let file = certificate(&vaxel);
    assert!(remote(&["--ca", &file]).status.success());
    assert!(remote(&["--fingerprint", fingerprint]).status.success());
    assert!(remote(&["--fingerprint", &colons]).status.success());
    for unknown in [remote(&[]), remote(&["--fingerprint", &"00".repeat(32)])] {
        assert!(
            !unknown.status.success() && text(&unknown).contains("certificate"),
            "{}",
            text(&unknown)
        );
    }
    let refused = text(&remote(&["--ca", "/nonexistent"]));
    assert!(
        refused.contains("/nonexistent (--ca) cannot be read"),
        "{refused}"
    );
    let refused = text(&remote(&["--fingerprint", "abc"]));
    assert!(refused.contains("64 hexadecimal digits"), "{refused}");
}

#[test]
fn curl_speaks_mcp_over_both_versions_of_http() {
    let vaxel = TestVaxel::start_with(&["--self-signed", "--demo"]);
    let (url, key) = (
        vaxel.url(),
        format!("authorization: Bearer {}", vaxel.key()),
    );
    let mcp = format!("{url}/mcp");
    let body = json!({
        "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "demo__echo", "arguments": {"message": "over TLS"}, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }},
    })
    .to_string();
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let called = curl(
            &vaxel,
            &[
                flag,
                "-w",
                "\n%{http_version}",
                "-H",
                &key,
                "-H",
                "content-type: application/json",
                "-H",
                "accept: application/json, text/event-stream",
                "-H",
                "mcp-protocol-version: 2026-07-28",
                "-H",
                "mcp-method: tools/call",
                "-H",
                "mcp-name: demo__echo",
                "-d",
                &body,
                &mcp,
            ],
        );
        let (answer, spoken) = fetched(&called).rsplit_once('\n').unwrap();
        assert!(answer.contains("over TLS"), "{answer}");
        assert_eq!(spoken, version);
        // REST and the pages, on the same port.
        let listed = curl(
            &vaxel,
            &[flag, "-H", &key, &format!("{url}/api/v1/services")],
        );
        let listed: Value = serde_json::from_str(fetched(&listed)).unwrap();
        assert_eq!(listed["items"][0]["name"], "demo");
        // Whom to log in with is named with the scheme that is spoken.
        let document = format!("{url}/.well-known/oauth-protected-resource/mcp");
        let document = curl(&vaxel, &[flag, &document]);
        let document: Value = serde_json::from_str(fetched(&document)).unwrap();
        assert_eq!(document["resource"], mcp);
        let refused = curl(&vaxel, &[flag, "-D", "-", "-d", "{}", &mcp]);
        let refused = fetched(&refused);
        assert!(
            refused.contains("resource_metadata=\"https://"),
            "{refused}"
        );
        // Names of others are no hosts here, whatever the certificate says.
        let rebound = curl(
            &vaxel,
            &[
                flag,
                "-w",
                "\n%{http_code}",
                "-H",
                "host: evil.example",
                &url,
            ],
        );
        assert!(fetched(&rebound).ends_with("\n403"), "{}", text(&rebound));
    }
    // 200 requests on one connection of HTTP/2, many at once.
    let many = format!("{url}/health/live?[1-200]");
    let many = curl(
        &vaxel,
        &[
            "--http2",
            "--parallel",
            "--parallel-max",
            "50",
            "-w",
            "%{http_version}\n",
            &many,
        ],
    );
    let (answers, versions) = (
        fetched(&many).matches("{\"status\":\"ok\"}").count(),
        fetched(&many).matches("2\n").count(),
    );
    assert_eq!((answers, versions), (200, 200), "{}", text(&many));
}

#[test]
fn old_versions_of_tls_are_refused_and_the_newer_two_are_not() {
    let vaxel = TestVaxel::start_with(&["--self-signed"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let spoken = handshake(
            &vaxel,
            &[
                version,
                "-CAfile",
                &certificate(&vaxel),
                "-verify_return_error",
            ],
        );
        assert!(spoken.status.success(), "{}", text(&spoken));
    }
    for version in ["-tls1", "-tls1_1"] {
        let refused = handshake(&vaxel, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(
            text(&refused).contains("Cipher is (NONE)") && text(&refused).contains("alert"),
            "{}",
            text(&refused)
        );
    }
}

#[test]
fn who_speaks_plain_http_on_the_port_reads_a_sentence() {
    let vaxel = TestVaxel::start_with(&["--self-signed"]);
    let mut link = TcpStream::connect(address(&vaxel)).unwrap();
    write!(link, "GET /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    link.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("This port speaks HTTPS"), "{answer}");
}

#[test]
fn handshakes_that_never_end_keep_nobody_out() {
    let mut vaxel = TestVaxel::prepared(|vaxel| {
        vaxel.set_args(&["--self-signed"]);
        vaxel.set_env(&[("VAXEL_LIMITS_HEADER_TIMEOUT", "2s")]);
    });
    let address = address(&vaxel);
    // Silence, half of a first record, and a first record of which nothing follows.
    let hello: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut silent: Vec<TcpStream> = (0..150)
        .map(|number| {
            let mut link = TcpStream::connect(&address).unwrap();
            link.write_all(&hello[..[0, 3, hello.len()][number % 3]])
                .unwrap();
            link.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
            link
        })
        .collect();
    assert!(vaxel.cli(&["status"]).status.success());
    for link in &mut silent {
        let mut rest = Vec::new();
        // It ends, by a close or by a reset.
        let _ = link.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    }
    vaxel.down();
}

#[test]
fn a_certificate_of_its_own_is_kept_until_it_ends_soon() {
    let mut vaxel = TestVaxel::start_with(&["--self-signed"]);
    let shown = |vaxel: &TestVaxel| vaxel.json(&["status"])["tls"].clone();
    let first = shown(&vaxel);
    vaxel.down();
    vaxel.launch();
    assert_eq!(shown(&vaxel), first, "it is the same after a restart");
    vaxel.down();
    // Another one of the same name, which ends in ten days.
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    let year = first["from"].as_str().unwrap()[..4].parse().unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 2);
    crate::tls_files::Made::of(&params).write(
        &vaxel.data_dir().join("self-signed.crt"),
        &vaxel.data_dir().join("self-signed.key"),
    );
    vaxel.launch();
    let renewed = shown(&vaxel);
    assert_ne!(renewed["fingerprint"], first["fingerprint"]);
    assert!(
        renewed["until"].as_str() >= first["until"].as_str(),
        "{renewed} {first}"
    );
    // A name that was not asked for before.
    vaxel.down();
    vaxel.set_env(&[("VAXEL_SERVER_ALLOWED_HOSTS", "vaxel.example.com")]);
    vaxel.launch();
    let names = shown(&vaxel)["names"].clone();
    assert!(
        names
            .as_array()
            .unwrap()
            .contains(&json!("vaxel.example.com")),
        "{names}"
    );
    wait_for("the command line", || vaxel.cli(&["ls"]).status.success());
}
