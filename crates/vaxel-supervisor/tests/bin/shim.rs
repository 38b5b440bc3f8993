//! Stands in for `vaxel shim` in the tests of this crate, and (as `host`) for Vaxel itself where a
//! test has to kill it or run it as somebody else.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use vaxel_core::time::Clock;
use vaxel_supervisor::{Config, Limits, Order, Process, Supervisor, adopt_orphans, shim};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [host, rest @ ..] if host == "host" => match run_host(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("failed {error}")).map_or(ExitCode::FAILURE, |()| ExitCode::FAILURE)
            }
        },
        [socket] => shim::main(socket),
        _ => ExitCode::FAILURE,
    }
}

/// `host SHIM HOME HIDDEN SCRIPT`: runs a script of `sh` under a supervisor, says what becomes of it
/// line by line, and stays until its own standard input ends.
fn run_host(args: &[String]) -> io::Result<()> {
    let [shim, home, hidden, script] = args else {
        return Err(io::Error::other("usage: host SHIM HOME HIDDEN SCRIPT"));
    };
    adopt_orphans()?;
    let base_env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("HOME".to_owned(), home.clone()),
        ("MARK".to_owned(), home.clone()),
    ]);
    let config = Config {
        program: shim.into(),
        shim_args: Vec::new(),
        base_env,
        start_timeout: Duration::from_mins(1),
        stop_grace: Duration::from_secs(1),
        log_dir: PathBuf::from(home).join("logs"),
        log_max_bytes: 1 << 20,
        log_files: 1,
        log_line_max: 1024,
        log_tail: 100,
    };
    let order = Order {
        name: "hosted".to_owned(),
        replica: 0,
        program: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.clone()],
        env: BTreeMap::new(),
        cwd: None,
        limits: Limits::default(),
        hidden: if hidden.is_empty() {
            Vec::new()
        } else {
            vec![hidden.into()]
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(host(Supervisor::new(config, Clock::system()), order))?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn host(supervisor: Supervisor, order: Order) -> io::Result<()> {
    let Process {
        stdin: _stdin,
        mut stdout,
        handle,
    } = supervisor.spawn(order).await.map_err(io::Error::other)?;
    say(&format!(
        "hidden {} {:?}",
        handle.sandbox().data_dir_hidden,
        handle.sandbox().notes
    ))?;
    say(&format!("started {}", handle.pid()))?;
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut said).await?;
    for line in said.lines() {
        say(&format!("child {line}"))?;
    }
    say(&format!("ended {}", handle.exited().await))
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}
