//! A real Vaxel in a temporary home, and the programs that speak to it.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest wait for anything that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A running Vaxel; killed, with everything below it, when dropped.
pub(crate) struct TestVaxel {
    pub(crate) home: tempfile::TempDir,
    child: Option<Child>,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl TestVaxel {
    /// Starts one in an empty home, on a free port.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further flags of `up`.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        Self::prepared(|vaxel| vaxel.set_args(args))
    }

    /// The same with variables of its environment.
    pub(crate) fn start_in(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::prepared(|vaxel| {
            vaxel.set_args(args);
            vaxel.set_env(env);
        })
    }

    /// The same after its home was prepared.
    pub(crate) fn prepared(prepare: impl FnOnce(&mut Self)) -> Self {
        let mut vaxel = Self {
            home: tempfile::tempdir().unwrap(),
            child: None,
            args: Vec::new(),
            env: Vec::new(),
        };
        prepare(&mut vaxel);
        vaxel.launch();
        vaxel
    }

    /// The flags of `up` from the next start on.
    pub(crate) fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(ToString::to_string).collect();
    }

    /// Variables of its environment from the next start on.
    pub(crate) fn set_env(&mut self, env: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.env = env.iter().map(owned).collect();
    }

    /// Ends it in order, to be launched again.
    pub(crate) fn down(&mut self) {
        self.ok(&["down"]);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Has it start, which must fail; what it says.
    pub(crate) fn refuses_to_start(&self) -> String {
        let mut command = self.command(&["up", "--listen", "127.0.0.1:0"]);
        let output = command.envs(self.env.clone()).output().unwrap();
        assert!(!output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// Starts it (again) and waits until it answers.
    pub(crate) fn launch(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("vaxel.log"))
            .unwrap();
        let mut command = self.command(&["up"]);
        if !self.args.iter().any(|arg| arg == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
            .args(&self.args)
            .envs(self.env.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait_for("Vaxel to answer", || {
            self.run_file().is_some() && self.cli(&["status"]).status.success()
        });
        if self.args.iter().any(|arg| arg == "--demo") {
            // What it offers is known a moment after it was added.
            if self.url().starts_with("https") {
                let call = ["call", "demo__echo", "--arg", "message=x"];
                return wait_for("the demo", || self.cli(&call).status.success());
            }
            let ready = "/api/v1/services/demo/health?wait=30s";
            let told = Door::of(self).ask("GET", ready, None).unwrap();
            assert_eq!(told.1["ready"], true, "{}", told.1);
        }
    }

    /// `vaxel` with these arguments, in this home and nothing else of this machine's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vaxel"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs `vaxel` to its end.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs `vaxel`, which must succeed; returns what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(
            output.status.success(),
            "vaxel {args:?} failed:\n{}",
            text(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `vaxel` with text on its standard input.
    pub(crate) fn with_input(&self, args: &[&str], input: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// The printed JSON of a command.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.path().join(".local/share/vaxel")
    }

    pub(crate) fn run_file(&self) -> Option<Value> {
        let text = fs::read_to_string(self.data_dir().join("run.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Base URL.
    pub(crate) fn url(&self) -> String {
        let run = self.run_file().unwrap();
        run["url"]
            .as_str()
            .unwrap()
            .trim_end_matches('/')
            .to_owned()
    }

    pub(crate) fn key(&self) -> String {
        fs::read_to_string(self.data_dir().join("admin.key"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// SIGKILL: no chance to clean up.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("vaxel.log")).unwrap_or_default()
    }

    /// Adds a stdio service and waits until it is ready.
    pub(crate) fn add(&self, name: &str, command: &[&str]) {
        let mut args = vec!["service", "add", name, "--"];
        args.extend(command);
        self.ok(&args);
    }
}

impl Drop for TestVaxel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log of Vaxel\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where and as whom to ask. Unlike the command line it is quick, and what it answers says whether a
/// change was acknowledged.
pub(crate) struct Door {
    pub(crate) address: String,
    pub(crate) key: String,
}

impl Door {
    pub(crate) fn of(vaxel: &TestVaxel) -> Self {
        Self {
            address: vaxel.url().trim_start_matches("http://").to_owned(),
            key: vaxel.key(),
        }
    }

    /// The status and body of an answer; an error when there is none.
    pub(crate) fn ask(
        &self,
        verb: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<(u16, Value)> {
        let (head, body) = self.ask_in_full(verb, path, body)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or_else(broken)?, body))
    }

    /// The head and body of an answer.
    pub(crate) fn ask_in_full(
        &self,
        verb: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<(String, Value)> {
        let mut link = TcpStream::connect(&self.address)?;
        let body = body.map(ToString::to_string).unwrap_or_default();
        write!(
            link,
            "{verb} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        )?;
        let mut answer = String::new();
        link.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
        let body = serde_json::from_str(body).map_err(|_| broken())?;
        Ok((head.to_owned(), body))
    }
}

fn broken() -> io::Error {
    io::Error::other("the answer broke off")
}

/// Waits until `done`, and fails when it never is.
pub(crate) fn wait_for(what: &str, done: impl FnMut() -> bool) {
    wait_at_most(PATIENCE, what, done);
}

/// The same for what is promised within a time.
pub(crate) fn wait_at_most(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
    let end = Instant::now() + patience;
    while !done() {
        #[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
        let now = Instant::now();
        assert!(now < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that nobody listens on and that nobody is given by chance until a program of the test takes
/// it: it is below those that the system hands out, and those of another test are others.
pub(crate) fn free_port() -> u16 {
    const EACH: u16 = 20;
    const TESTS: u32 = 1_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + u16::try_from(std::process::id() % TESTS).unwrap() * EACH;
    let free = std::iter::repeat_with(|| first + TAKEN.fetch_add(1, Ordering::Relaxed) % EACH);
    let mut free = free.take(EACH.into());
    free.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of twenty ports is free")
}

/// Everything a command printed.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Whether a process lives (a zombie does not).
pub(crate) fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with('Z')
    })
}

/// Every process whose command line holds `mark`.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
            && lives(*pid)
    })
    .collect()
}

/// The folder with the programs of others, or `None`, said loudly, outside `./dev test`.
pub(crate) fn tools() -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("VAXEL_TEST_TOOLS").map(PathBuf::from) else {
        println!("SKIPPED: VAXEL_TEST_TOOLS is not set; `./dev test` sets it");
        return None;
    };
    assert!(
        dir.join("py/bin/python").exists(),
        "{} is not set up: ./dev setup",
        dir.display()
    );
    Some(dir)
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
        .canonicalize()
        .unwrap()
}

/// A stdio MCP server in a few lines of Python, for everything that needs no particular server.
pub(crate) fn echo_server(dir: &Path) -> PathBuf {
    let file = dir.join("echo_server.py");
    fs::write(&file, ECHO_SERVER).unwrap();
    file
}

const ECHO_SERVER: &str = r#"
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if id is None:
        continue
    def answer(result):
        print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
    if method == "initialize":
        answer({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo", "version": "1"}})
    elif method == "tools/list":
        schema = {"type": "object", "properties": {"text": {"type": "string"}}}
        answer({"tools": [{"name": "echo", "inputSchema": schema},
                          {"name": "env", "inputSchema": schema},
                          {"name": "die", "inputSchema": {"type": "object"}}]})
    elif method == "tools/call":
        arguments = message["params"].get("arguments", {})
        if message["params"]["name"] == "die":
            os._exit(7)
        text = arguments.get("text", "")
        if message["params"]["name"] == "env":
            text = os.environ.get(text, "")
        answer({"content": [{"type": "text", "text": text}]})
    elif method == "ping":
        answer({})
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": id,
                          "error": {"code": -32601, "message": "unknown"}}), flush=True)
"#;
