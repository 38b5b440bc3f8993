//! Attacks by frames of HTTP/2 (RFC 9113), which OpenSSL carries as they are.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

use crate::{harness::TestVaxel, tls::address};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 0xb;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// `GET /health/live`, to `localhost` (RFC 7541).
fn request() -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, 12];
    block.extend(b"/health/live");
    block.extend([0x41, 9]);
    block.extend(b"localhost");
    block
}

/// What comes back, as kinds and bodies, until the connection ends; and whether all was taken until then.
fn told(vaxel: &TestVaxel, frames: &[u8]) -> (Vec<(u8, Vec<u8>)>, bool) {
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-alpn",
            "h2",
            "-connect",
            &address(vaxel),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let mut input = client.stdin.take().unwrap();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    sent.extend(frames);
    // It goes on to read while this is written.
    let mut output = client.stdout.take().unwrap();
    let reading = std::thread::Builder::new()
        .spawn(move || {
            let mut bytes = Vec::new();
            // It ends, by a close or by a reset.
            let _ = output.read_to_end(&mut bytes);
            bytes
        })
        .unwrap();
    let is_taken = input.write_all(&sent).and_then(|()| input.flush()).is_ok();
    let bytes = reading.join().unwrap();
    drop(input);
    let _ = client.kill();
    client.wait().unwrap();
    let (mut rest, mut frames) = (bytes.as_slice(), Vec::new());
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let end = (9 + length).min(rest.len());
        frames.push((rest[3], rest[9..end].to_vec()));
        rest = &rest[end..];
    }
    (frames, is_taken)
}

/// The code of the last GOAWAY.
fn goodbye(frames: &[(u8, Vec<u8>)]) -> Option<u32> {
    let last = frames.iter().rfind(|(kind, _)| *kind == GOAWAY)?;
    Some(u32::from_be_bytes(last.1.get(4..8)?.try_into().unwrap()))
}

fn secure() -> TestVaxel {
    TestVaxel::prepared(|vaxel| {
        vaxel.set_args(&["--self-signed"]);
        vaxel.set_env(&[("VAXEL_LIMITS_HEADER_TIMEOUT", "2s")]);
    })
}

#[test]
fn rapid_reset() {
    let vaxel = secure();
    let mut frames = Vec::new();
    for number in 0..5_000 {
        let stream = 2 * number + 1;
        frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &request()));
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let (told, _) = told(&vaxel, &frames);
    assert_eq!(goodbye(&told), Some(ENHANCE_YOUR_CALM), "{told:?}");
    assert!(vaxel.cli(&["status"]).status.success());
}

#[test]
fn continuation_flood() {
    let vaxel = secure();
    let mut frames = frame(HEADERS, END_STREAM, 1, &request());
    // A header that is never kept, over and over, and no end.
    let mut block = vec![0x10, 1, b'a', 100];
    block.extend([b'b'; 100]);
    let block = block.repeat(150);
    for _ in 0..2_000 {
        frames.extend(frame(CONTINUATION, 0, 1, &block));
    }
    let (told, is_taken) = told(&vaxel, &frames);
    // A reset may have swept the last word away.
    let is_ended = goodbye(&told).is_some_and(|code| code != 0) || !is_taken;
    assert!(is_ended, "30 MB of one head were taken: {told:?}");
    assert!(told.iter().all(|(kind, _)| *kind != DATA), "{told:?}");
    assert!(vaxel.cli(&["status"]).status.success());
}

#[test]
fn connections_of_http2_that_ask_nothing() {
    let vaxel = secure();
    // Nothing at all, and a head without an end: both are closed after a while.
    for start in [Vec::new(), frame(HEADERS, END_STREAM, 1, &request())] {
        let (silent, _) = told(&vaxel, &start);
        assert!(goodbye(&silent).is_some(), "{silent:?}");
    }
    let mut asked = frame(HEADERS, END_STREAM | END_HEADERS, 1, &request());
    asked.extend(frame(GOAWAY, 0, 0, &[0; 8]));
    let (served, _) = told(&vaxel, &asked);
    assert!(
        served
            .iter()
            .any(|(kind, body)| *kind == DATA && body == br#"{"status":"ok"}"#),
        "{served:?}"
    );
}
