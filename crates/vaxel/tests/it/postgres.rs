//! Vaxel on PostgreSQL: a server of the test's own, encrypted and with a password, that is stopped and
//! started again.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    doors::Raw,
    harness::{PATIENCE, TestVaxel, free_port, lives, text, wait_at_most, wait_for},
};

const PASSWORD: &str = "s3cret-of-the-test";

/// A server; stopped when dropped.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
}

impl Cluster {
    /// A running one. `None`, loudly, outside `./dev test`.
    pub(crate) fn start() -> Option<Self> {
        if std::env::var_os("VAXEL_TEST_POSTGRES").is_none() {
            println!("SKIPPED: VAXEL_TEST_POSTGRES is not set; `./dev test` sets it");
            return None;
        }
        let found = Command::new("sh")
            .args(["-c", "ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1"])
            .output()
            .unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        let cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            programs: PathBuf::from(found.trim()),
            port: free_port(),
        };
        cluster.make();
        cluster.up();
        cluster.ok(
            "createdb",
            &[
                "-h",
                &cluster.path(""),
                "-p",
                &cluster.port.to_string(),
                "-U",
                "vaxel",
                "vaxel",
            ],
        );
        Some(cluster)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn make(&self) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert.der(), made.signing_key.serialize_der());
        fs::write(self.path("cert.pem"), pem("CERTIFICATE", cert)).unwrap();
        fs::write(self.path("key.pem"), pem("PRIVATE KEY", &key)).unwrap();
        fs::write(self.path("password"), PASSWORD).unwrap();
        let dir = self.path("");
        if is_root() {
            let own = Command::new("chown")
                .args(["-R", "postgres", &dir])
                .status();
            assert!(own.unwrap().success());
        }
        let shut = Command::new("chmod")
            .args(["600", &self.path("key.pem")])
            .status();
        assert!(shut.unwrap().success());
        let (data, pwfile) = (self.path("data"), self.path("password"));
        let all = [
            "-D",
            &data,
            "-U",
            "vaxel",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--pwfile",
            &pwfile,
        ];
        self.ok("initdb", &all);
    }

    fn up(&self) {
        let settings = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories='{}' -c fsync=off \
             -c ssl=on -c ssl_cert_file='{}' -c ssl_key_file='{}'",
            self.port,
            self.path(""),
            self.path("cert.pem"),
            self.path("key.pem"),
        );
        let (data, log) = (self.path("data"), self.path("log"));
        self.ok(
            "pg_ctl",
            &["-D", &data, "-l", &log, "-w", "-o", &settings, "start"],
        );
    }

    fn down(&self) {
        self.ok(
            "pg_ctl",
            &["-D", &self.path("data"), "-m", "fast", "-w", "stop"],
        );
    }

    /// Sends a signal to every process of the server.
    fn signal_all(&self, signal: &str) {
        let pid = fs::read_to_string(self.path("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let script = format!("kill -{signal} {pid} $(pgrep -P {pid})");
        let sent = Command::new("sh").args(["-c", &script]).status();
        assert!(sent.unwrap().success());
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let program = self.programs.join(program);
        // It refuses to be root.
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        // A server that stays must not keep the pipes of this test.
        let out = fs::File::create(self.dir.path().join("out")).unwrap();
        let err = out.try_clone().unwrap();
        command
            .current_dir(self.dir.path())
            .args(args)
            .stdout(out)
            .stderr(err);
        let status = command.status().unwrap();
        let stdout = fs::read(self.dir.path().join("out")).unwrap();
        Output {
            status,
            stdout,
            stderr: Vec::new(),
        }
    }

    fn ok(&self, program: &str, args: &[&str]) {
        let done = self.run(program, args);
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert!(done.status.success(), "{program}: {}\n{log}", text(&done));
    }

    /// A configuration file that names it.
    pub(crate) fn configured(&self, folder: &Path) -> String {
        let url = format!(
            "postgres://vaxel:{PASSWORD}@localhost:{}/vaxel?sslmode=verify-full&sslrootcert={}",
            self.port,
            self.path("cert.pem"),
        );
        let file = folder.join("postgres.toml");
        fs::write(&file, format!("[store]\nurl = \"{url}\"\n")).unwrap();
        file.display().to_string()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run(
            "pg_ctl",
            &["-D", &self.path("data"), "-m", "immediate", "stop"],
        );
    }
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!(
        "-----BEGIN {what}-----\n{}\n-----END {what}-----\n",
        lines.join("\n")
    )
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn echo(vaxel: &TestVaxel, message: &str) {
    let said = vaxel.ok(&["call", "demo__echo", "--arg", &format!("message={message}")]);
    assert!(said.contains(message), "{said}");
}

fn store(vaxel: &TestVaxel) -> Value {
    vaxel.json(&["status"])["store"].clone()
}

#[test]
fn vaxel_lives_on_postgresql_and_through_its_absence() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = cluster.configured(folder.path());
    let mut vaxel = TestVaxel::start_with(&["--config", &file, "--demo"]);
    let seen = store(&vaxel);
    assert_eq!(
        (&seen["engine"], &seen["reachable"]),
        (&"postgresql".into(), &true.into())
    );
    let place = format!("PostgreSQL at localhost:{}/vaxel", cluster.port);
    assert_eq!(seen["place"], place);
    let shown = vaxel.ok(&["config", "show", "--config", &file]);
    assert!(
        shown.contains("vaxel:***@localhost") && !shown.contains(PASSWORD),
        "{shown}"
    );
    assert!(!vaxel.data_dir().join("vaxel.db").exists());
    echo(&vaxel, "first");

    // A second one on the same database, with a home of its own.
    let other = TestVaxel::start();
    other.ok(&["down"]);
    let refused = other.cli(&["up", "--listen", "127.0.0.1:0", "--config", &file]);
    assert!(
        text(&refused).contains("in use by another Vaxel"),
        "{}",
        text(&refused)
    );

    // Everything is there after a restart, also one that was not asked for.
    vaxel.kill();
    vaxel.set_args(&["--config", &file]);
    vaxel.launch();
    echo(&vaxel, "second");
    vaxel.ok(&["down"]);
    vaxel.launch();
    assert!(
        vaxel.ok(&["calls"]).contains("demo"),
        "records outlive a restart"
    );

    cluster.down();
    echo(&vaxel, "without a database");
    let refused = vaxel.cli(&["key", "create", "nobody"]);
    assert!(!refused.status.success());
    let said = text(&refused);
    assert!(
        said.contains("cannot be reached") && said.contains(&place),
        "{said}"
    );
    assert_eq!(store(&vaxel)["reachable"], false);
    let found = vaxel.cli(&["doctor"]);
    assert!(
        text(&found).contains("cannot be reached"),
        "{}",
        text(&found)
    );
    echo(&vaxel, "still without");
    cluster.up();
    wait_for("the database to be used again", || {
        vaxel.cli(&["key", "create", "somebody"]).status.success()
    });
    assert_eq!(store(&vaxel)["reachable"], true);
    echo(&vaxel, "with it");
    let held = vaxel.ok(&["audit", "verify"]);
    assert!(held.contains("The audit holds"), "{held}");

    // To files, and on with those.
    let home = vaxel.data_dir().display().to_string();
    let moving = ["store", "move", "--config", &file, "--to", &home];
    let refused = vaxel.cli(&moving);
    assert!(text(&refused).contains("vaxel down"), "{}", text(&refused));
    vaxel.ok(&["down"]);
    let moved = text(&vaxel.cli(&moving));
    assert!(
        moved.contains("checked them") && moved.contains("store.url"),
        "{moved}"
    );
    assert!(!moved.contains(PASSWORD), "{moved}");
    let again = text(&vaxel.cli(&moving));
    assert!(again.contains("is not empty"), "{again}");
    vaxel.set_args(&[]);
    vaxel.launch();
    assert_eq!(store(&vaxel)["engine"], "sqlite");
    echo(&vaxel, "from files");
    assert!(vaxel.ok(&["key", "ls"]).contains("somebody"));
    assert!(!vaxel.log().contains(PASSWORD));
}

#[test]
fn a_backup_of_files_is_restored_to_an_empty_database_and_one_of_that_to_files() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = cluster.configured(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (first, second) = (file("first"), file("second"));
    let mut vaxel = TestVaxel::start_with(&["--demo"]);
    vaxel.ok(&["key", "create", "somebody"]);
    let backup = |vaxel: &TestVaxel, file: &str| {
        let mut command = vaxel.command(&["backup", file, "--with-keys"]);
        command.env("VAXEL_BACKUP_PASSPHRASE", "correct horse");
        let written = command.output().unwrap();
        assert!(written.status.success(), "{}", text(&written));
    };
    let restore = |vaxel: &TestVaxel, args: &[&str]| {
        let mut command = vaxel.command(&[&["restore"], args].concat());
        command.env("VAXEL_BACKUP_PASSPHRASE", "correct horse");
        text(&command.output().unwrap())
    };
    backup(&vaxel, &first);
    vaxel.ok(&["down"]);
    let said = restore(&vaxel, &[&first, "--config", &config, "--force"]);
    assert!(said.contains("Restored"), "{said}");
    vaxel.set_args(&["--config", &config]);
    vaxel.launch();
    assert_eq!(store(&vaxel)["engine"], "postgresql");
    echo(&vaxel, "on a database");
    // Numbers go on behind those that were restored.
    vaxel.ok(&["key", "create", "another"]);
    backup(&vaxel, &second);
    vaxel.ok(&["down"]);
    let refused = restore(&vaxel, &[&second, "--config", &config]);
    assert!(!refused.contains("Restored"), "{refused}");
    // The first one again, over what is there; then the second one.
    for (file, has_another) in [(&first, false), (&second, true)] {
        let said = restore(&vaxel, &[file, "--config", &config, "--force"]);
        assert!(
            said.contains("Restored") && said.contains("is gone"),
            "{said}"
        );
        vaxel.launch();
        let keys = vaxel.ok(&["key", "ls"]);
        assert_eq!(keys.contains("another"), has_another, "{keys}");
        echo(&vaxel, "over what was there");
        vaxel.ok(&["down"]);
    }
    let said = restore(&vaxel, &[&second, "--force"]);
    assert!(said.contains("Restored"), "{said}");
    vaxel.set_args(&[]);
    vaxel.launch();
    assert_eq!(store(&vaxel)["engine"], "sqlite");
    echo(&vaxel, "from files");
    let keys = vaxel.ok(&["key", "ls"]);
    assert!(
        keys.contains("somebody") && keys.contains("another"),
        "{keys}"
    );
}

#[test]
fn who_follows_the_feed_is_told_what_others_write_into_the_database() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = cluster.configured(folder.path());
    let vaxel = TestVaxel::start_with(&["--config", &config]);
    let sql = |text: &str| {
        let dir = cluster.path("");
        let port = cluster.port.to_string();
        let done = cluster.run(
            "psql",
            &[
                "-h", &dir, "-p", &port, "-U", "vaxel", "-Atc", text, "vaxel",
            ],
        );
        let said = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{said}");
        said.trim().to_owned()
    };
    wait_for("Vaxel to listen", || {
        sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'") == "1"
    });
    let stream = ("accept", "text/event-stream");
    let path = "/api/v1/events?types=service.test";
    let mut feed = BufReader::new(Raw::of(&vaxel).open("GET", path, &[stream], ""));
    feed.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let write = |name: &str, after: &str| {
        sql(&format!(
            "INSERT INTO outbox (seq, at, action, target_kind, target_id, target_name, actor, detail) \
             SELECT max(seq) + 1, 0, 'service.test', 'service', 'x', '{name}', 'other', '{{}}' \
             FROM outbox; {after}"
        ));
    };
    // The stream begins with what it is when it is there: then it misses nothing.
    let mut line = String::new();
    while !line.starts_with("HTTP/1.1 200") {
        line.clear();
        feed.read_line(&mut line).unwrap();
    }
    let mut next = || {
        let mut line = String::new();
        while !line.starts_with("data:") || !line.contains("service.test") {
            line.clear();
            assert!(feed.read_line(&mut line).unwrap() > 0, "the feed goes on");
        }
        line
    };
    // As a Vaxel would, and as something that tells nobody.
    write(
        "told",
        "SELECT pg_notify('vaxel_' || hashtext(current_schema()), '')",
    );
    assert!(next().contains("told"));
    write("untold", "");
    assert!(next().contains("untold"));
}

#[test]
fn a_database_that_hangs_does_not_keep_vaxel_from_ending() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = cluster.configured(folder.path());
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("write_timeout = \"30s\"\n[server]\nshutdown_grace = \"2s\"\n[process]\nstop_grace = \"1s\"\n");
    fs::write(&file, text).unwrap();
    let vaxel = TestVaxel::start_with(&["--config", &file, "--demo"]);
    let pid = u32::try_from(vaxel.run_file().unwrap()["pid"].as_u64().unwrap()).unwrap();
    cluster.signal_all("STOP");
    // Its record waits to be written from now on.
    echo(&vaxel, "without an answer of the database");
    let told = Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status();
    assert!(told.unwrap().success());
    // Half of what one write alone would take to be given up.
    wait_at_most(Duration::from_secs(20), "Vaxel to end", || !lives(pid));
    cluster.signal_all("CONT");
    let log = vaxel.log();
    assert!(
        log.contains("did not end in time") || log.contains("did not close in time"),
        "{log}"
    );
}

#[test]
fn a_move_names_what_is_wrong_with_it() {
    let vaxel = TestVaxel::start();
    vaxel.ok(&["down"]);
    let check = |args: &[&str], part: &str| {
        let refused = vaxel.cli(args);
        let said = text(&refused);
        assert!(!refused.status.success() && said.contains(part), "{said}");
        assert!(!said.contains("s3cr"), "{said}");
    };
    let home = vaxel.data_dir().display().to_string();
    let to = ["store", "move", "--to"];
    check(&[&to[..], &[&home]].concat(), "already");
    let wrong = "mysql://me:s3cr@db/vaxel";
    check(&[&to[..], &[wrong]].concat(), "is no URL such as");
    let gone = "postgres://me:s3cr@127.0.0.1:1/vaxel";
    check(&[&to[..], &[gone]].concat(), "cannot be reached");
    let empty = vaxel.home.path().join("empty").display().to_string();
    let from = [&["--data-dir", &empty], &to[..], &[&home]].concat();
    check(&from, "nothing is stored");
}
