//! The shim: starts one program and stays until its whole tree is gone.
//!
//! It is the reaper of everything below it (`PR_SET_CHILD_SUBREAPER`), so neither `setsid` nor double
//! forks get away from it. Its socket to Vaxel is its lifeline: when that ends, in whatever way, it
//! kills the tree and ends itself. It is synchronous and small on purpose: one thread reaps, one
//! listens.

use std::{
    collections::BTreeMap,
    fs, io,
    os::linux::net::SocketAddrExt,
    os::unix::{
        fs::PermissionsExt,
        net::{SocketAddr, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use rustix::process::{
    Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getrlimit, set_child_subreaper,
    setrlimit, wait,
};

use crate::{
    SandboxReport,
    census::Census,
    orphans::kill,
    sandbox,
    wire::{FromShim, Refusal, StartOrder, ToShim, receive_blocking, send_blocking},
};

/// Between two rounds of killing.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs the shim that connects to `socket_name`; called by the hidden command `vaxel shim`.
pub fn main(socket_name: &str) -> ExitCode {
    match run(socket_name) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads what a shim could write; Vaxel sees the closed socket.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(socket_name: &str) -> io::Result<()> {
    let socket = UnixStream::connect_addr(&SocketAddr::from_abstract_name(socket_name)?)?;
    let Some(ToShim::Start(order)) = receive_blocking(&socket)? else {
        return Err(io::Error::other("no order came"));
    };
    set_child_subreaper(Some(getpid()))?;
    let (pid, sandbox) = match start(&order) {
        Ok(started) => started,
        Err(refusal) => return send_blocking(&socket, &FromShim::Refused(refusal)),
    };
    drop(order);
    let_go_of_pipes()?;
    send_blocking(&socket, &FromShim::Started { pid, sandbox })?;
    let lifeline = socket.try_clone()?;
    thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(move || listen(&lifeline))?;
    reap(pid, &socket)
}

/// Standard streams belong to the child alone: its end of a pipe must be the last.
fn let_go_of_pipes() -> io::Result<()> {
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn start(order: &StartOrder) -> Result<(u32, SandboxReport), Refusal> {
    let sandbox = sandbox::hide(&order.hidden);
    if let Some(cwd) = &order.cwd {
        let problem = match fs::metadata(cwd) {
            Ok(facts) if facts.is_dir() => None,
            Ok(_) => Some("it is no directory".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = problem {
            return Err(Refusal::BadCwd {
                cwd: cwd.clone(),
                why,
            });
        }
    }
    let program = find(&order.program, &order.env, order.cwd.as_deref())?;
    limit_open_files(order.open_files)?;
    let mine = getpid().as_raw_nonzero().to_string();
    join(&order.join, &mine);
    let mut command = Command::new(&program);
    command
        .args(&order.args)
        .env_clear()
        .envs(&order.env)
        .process_group(0);
    if let Some(cwd) = &order.cwd {
        command.current_dir(cwd);
    } else if let Some(home) = order
        .env
        .get("HOME")
        .filter(|home| Path::new(home).is_dir())
    {
        command.current_dir(home);
    }
    let spawned = command.spawn();
    join(&order.leave, &mine);
    match spawned {
        Ok(child) => Ok((child.id(), sandbox)),
        Err(error) => Err(explain(&program, &error)),
    }
}

/// A group that cannot be joined is a bound that the watch keeps.
fn join(groups: &[PathBuf], pid: &str) {
    for group in groups {
        // As above.
        let _ = fs::write(group, pid);
    }
}

fn limit_open_files(limit: Option<u64>) -> Result<(), Refusal> {
    let Some(limit) = limit else { return Ok(()) };
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = hard.map_or(limit, |hard| limit.min(hard)).max(64);
    let bound = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    setrlimit(Resource::Nofile, bound).map_err(|error| Refusal::Failed {
        doing: "limiting the number of open files".to_owned(),
        errno: Some(error.raw_os_error()),
        why: error.to_string(),
    })
}

/// The file that a program's name means to the child.
fn find(
    program: &str,
    env: &BTreeMap<String, String>,
    cwd: Option<&Path>,
) -> Result<PathBuf, Refusal> {
    if program.contains('/') {
        let path = cwd.map_or_else(|| PathBuf::from(program), |cwd| cwd.join(program));
        return if path.exists() {
            Ok(path)
        } else {
            Err(Refusal::NotFound {
                place: "this file system".to_owned(),
            })
        };
    }
    let path = env
        .get("PATH")
        .map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    let candidates = path.split(':').filter(|dir| !dir.is_empty());
    let mut denied = None;
    for file in candidates.map(|dir| Path::new(dir).join(program)) {
        match fs::metadata(&file) {
            Ok(facts) if facts.is_file() && facts.permissions().mode() & 0o111 != 0 => {
                return Ok(file);
            }
            Ok(facts) if facts.is_file() => denied = Some(file),
            Ok(_) | Err(_) => {}
        }
    }
    Err(match denied {
        Some(file) => Refusal::Denied {
            why: format!("{0} is not executable; chmod +x {0}", file.display()),
        },
        None => Refusal::NotFound {
            place: format!("PATH ({path})"),
        },
    })
}

fn explain(program: &Path, error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::Denied {
            why: format!(
                "the interpreter that {} names is missing",
                program.display()
            ),
        },
        io::ErrorKind::PermissionDenied => Refusal::Denied {
            why: format!("this user may not execute {}", program.display()),
        },
        io::ErrorKind::InvalidInput => Refusal::BadOrder {
            why: error.to_string(),
        },
        io::ErrorKind::ArgumentListTooLong => Refusal::BadOrder {
            why: "arguments and environment are too long".to_owned(),
        },
        _ => Refusal::Failed {
            doing: format!("executing {}", program.display()),
            errno: error.raw_os_error(),
            why: error.to_string(),
        },
    }
}

/// Does what Vaxel says until it says nothing more.
fn listen(socket: &UnixStream) {
    loop {
        match receive_blocking(socket) {
            Ok(Some(ToShim::Terminate)) => signal_tree(Signal::TERM),
            Ok(Some(ToShim::Start(_))) => {}
            Ok(Some(ToShim::Kill) | None) | Err(_) => break,
        }
    }
    // The other thread reaps, and ends the process when nothing is left.
    while signal_tree_counted(Signal::KILL) > 0 {
        thread::sleep(PAUSE);
    }
}

fn signal_tree(signal: Signal) {
    signal_tree_counted(signal);
}

/// How many living processes were signalled.
fn signal_tree_counted(signal: Signal) -> usize {
    let census = Census::take();
    let own = getpid().as_raw_nonzero().get().cast_unsigned();
    let living: Vec<u32> = census
        .descendants(own)
        .into_iter()
        .filter(|pid| census.get(*pid).is_some_and(|entry| !entry.zombie))
        .collect();
    for pid in &living {
        kill(*pid, signal);
    }
    living.len()
}

/// Waits for everything below this process; reports the end of the main child, and then ends what
/// that left behind.
fn reap(main: u32, socket: &UnixStream) -> io::Result<()> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().cast_unsigned() == main => {
                break report(status, socket);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    loop {
        signal_tree(Signal::KILL);
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => thread::sleep(PAUSE),
            // No child is left.
            Err(_) => return Ok(()),
        }
    }
}

fn report(status: WaitStatus, socket: &UnixStream) {
    let exited = FromShim::Exited {
        code: status.exit_status(),
        signal: status.terminating_signal(),
    };
    // Without Vaxel there is nobody to tell.
    let _ = send_blocking(socket, &exited);
}
