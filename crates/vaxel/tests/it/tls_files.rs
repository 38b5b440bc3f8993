//! Certificates in files of the operator: what is wrong with them, and what happens when they change.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair};

use crate::{
    harness::{TestVaxel, text, wait_for},
    tls::{address, handshake},
};

/// A certificate and its key (PEM).
pub(crate) struct Made {
    certificate: String,
    key: String,
}

impl Made {
    pub(crate) fn of(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pem = |kind: &str, der: &[u8]| {
            let text = STANDARD.encode(der);
            format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
        };
        Self {
            certificate: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", &key.serialize_der()),
        }
    }

    fn for_localhost() -> Self {
        Self::of(&CertificateParams::new(["localhost".to_owned()]).unwrap())
    }

    pub(crate) fn write(&self, certificate: &Path, key: &Path) {
        fs::write(certificate, &self.certificate).unwrap();
        fs::write(key, &self.key).unwrap();
    }

    fn put(&self, vaxel: &TestVaxel) {
        fs::create_dir_all(vaxel.data_dir()).unwrap();
        self.write(
            &vaxel.data_dir().join("server.crt"),
            &vaxel.data_dir().join("server.key"),
        );
    }
}

const FILES: &[(&str, &str)] = &[
    ("VAXEL_TLS_CERT", "server.crt"),
    ("VAXEL_TLS_KEY", "server.key"),
];

fn with(made: &Made) -> TestVaxel {
    TestVaxel::prepared(|vaxel| {
        made.put(vaxel);
        vaxel.set_env(FILES);
    })
}

fn fingerprint(vaxel: &TestVaxel) -> String {
    let status = vaxel.json(&["status"]);
    status["tls"]["fingerprint"].as_str().unwrap().to_owned()
}

/// Has it look at the files at once.
fn hang_up(vaxel: &TestVaxel) {
    let pid = vaxel.run_file().unwrap()["pid"].to_string();
    let told = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(told.success());
}

#[test]
fn a_new_pair_is_shown_to_whoever_comes_and_who_is_there_stays() {
    let vaxel = with(&Made::for_localhost());
    let before = fingerprint(&vaxel);
    let mut open = Open::to(&vaxel);
    assert_eq!(open.ask(), "HTTP/1.1 200 OK");
    Made::for_localhost().put(&vaxel);
    hang_up(&vaxel);
    wait_for("the new certificate", || fingerprint(&vaxel) != before);
    let shown = text(&handshake(&vaxel, &["-showcerts"]));
    let file = fs::read_to_string(vaxel.data_dir().join("server.crt")).unwrap();
    let body: String = file.lines().nth(1).unwrap().to_owned();
    assert!(shown.replace('\n', "").contains(&body), "{shown}");
    assert_eq!(
        open.ask(),
        "HTTP/1.1 200 OK",
        "on the connection from before"
    );
}

#[test]
fn a_pair_that_does_not_fit_is_told_and_the_one_before_stays() {
    let first = Made::for_localhost();
    let vaxel = with(&first);
    let before = fingerprint(&vaxel);
    let crossed = Made {
        key: Made::for_localhost().key,
        ..Made::for_localhost()
    };
    crossed.put(&vaxel);
    hang_up(&vaxel);
    let problem = || vaxel.json(&["status"])["tls"]["problem"].clone();
    wait_for("the problem to be told", || problem().is_string());
    let told = problem().to_string();
    assert!(
        told.contains("the key does not belong to the certificate"),
        "{told}"
    );
    assert_eq!(fingerprint(&vaxel), before);
    let doctor = vaxel.cli(&["doctor"]);
    assert!(
        !doctor.status.success() && text(&doctor).contains("does not belong"),
        "{}",
        text(&doctor)
    );
    assert!(
        vaxel.log().contains("the one before stays"),
        "{}",
        vaxel.log()
    );
    // Without a signal, when somebody has mended it.
    first.put(&vaxel);
    wait_for("the problem to be gone", || problem().is_null());
    assert_eq!(fingerprint(&vaxel), before);
}

#[test]
fn a_start_with_a_pair_that_is_no_good_says_everything_that_is_wrong() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let mut vaxel = TestVaxel::start();
        vaxel.down();
        vaxel.set_env(FILES);
        prepare(&vaxel.data_dir());
        let doctor = vaxel
            .command(&["doctor"])
            .envs(FILES.iter().copied())
            .output()
            .unwrap();
        let said = vaxel.refuses_to_start();
        (said, text(&doctor))
    };
    let (said, doctor) = refused(&|_| {});
    for part in [
        "the certificate ",
        "server.crt cannot be read",
        "server.key cannot be read",
    ] {
        assert!(
            said.contains(part) && doctor.contains(part),
            "{said}\n{doctor}"
        );
    }
    let (said, doctor) = refused(&|dir| {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        let crossed = Made {
            key: Made::for_localhost().key,
            ..Made::of(&params)
        };
        crossed.write(&dir.join("server.crt"), &dir.join("server.key"));
    });
    for part in [
        "expired at 2020-01-01",
        "the key does not belong to the certificate",
    ] {
        assert!(
            said.contains(part) && doctor.contains(part),
            "{said}\n{doctor}"
        );
    }
}

/// A connection that OpenSSL holds open.
struct Open {
    client: Child,
    answers: BufReader<ChildStdout>,
}

impl Open {
    fn to(vaxel: &TestVaxel) -> Self {
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &address(vaxel)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let answers = BufReader::new(client.stdout.take().unwrap());
        Self { client, answers }
    }

    /// The first line of an answer.
    fn ask(&mut self) -> String {
        let question = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let input = self.client.stdin.as_mut().unwrap();
        input.write_all(question.as_bytes()).unwrap();
        input.flush().unwrap();
        let (mut first, mut line) = (String::new(), String::new());
        self.answers.read_line(&mut first).unwrap();
        while !matches!(line.as_str(), "\r\n") {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "it ended");
        }
        let mut body = [0; 15];
        std::io::Read::read_exact(&mut self.answers, &mut body).unwrap();
        assert_eq!(&body, br#"{"status":"ok"}"#);
        first.trim_end().to_owned()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
