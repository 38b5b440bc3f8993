//! The process between Vaxel and each of its children (`vaxel shim`): synchronous, small, and the
//! reaper of everything below it.
//!
//! Its life: connect to the socket it was given, take the order, start the child, let go of the pipes,
//! then do two things at once. One thread listens to the socket, whose end (Vaxel is gone, by any
//! signal or crash) means to kill. The main thread waits for children; when there are none left it
//! returns, and that is the end. A process that leaves its group or session (`setsid`, double forks)
//! still has this one as its last ancestor, so it cannot get away.
//!
//! A session of its own keeps the terminal's signals away from the tree, and guarantees that a process
//! group found below the shim belongs to the tree.

mod program;
mod reap;
pub(crate) mod start;

use std::{
    fs,
    io::{self, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    process::ExitCode,
    sync::Arc,
    thread,
};

use nix::sys::signal::{SigSet, Signal};
use rustix::{
    net::sockopt::socket_peercred,
    process::{
        DumpableBehavior, getpid, getppid, getsid, set_child_subreaper, set_dumpable_behavior,
        setsid,
    },
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use crate::{
    sandbox,
    wire::{self, FromShim, StartOrder, ToShim},
};

/// Instead of a socket: find out what the sandbox can do here, and say it by the exit code.
pub(crate) const PROBE: &str = "probe";

/// Runs as shim until nothing is left of the child and its descendants. `socket_name` is the abstract
/// socket on which Vaxel waits.
pub fn main(socket_name: &str) -> ExitCode {
    close_inherited();
    if socket_name == PROBE {
        return sandbox::probe();
    }
    match run(socket_name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is captured by Vaxel until the child runs. If even that is closed,
            // the exit code is all that is left to say.
            let _ = writeln!(io::stderr(), "vaxel shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(socket_name: &str) -> io::Result<()> {
    settle()?;
    let stream = connect(socket_name)?;
    let Some(ToShim::Start(order)) = wire::receive_blocking(&stream)? else {
        return Ok(());
    };
    let order: StartOrder = *order;
    let (child, sandbox) = match start::start(order) {
        Ok(started) => started,
        Err(refusal) => return wire::send_blocking(&stream, &FromShim::Refused(refusal)),
    };
    be_deaf()?;
    // What is left of the order's secrets in memory is not for other processes of the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let tree = Arc::new(reap::Tree::new(child));
    let pid = child.as_raw_pid().unsigned_abs();
    // If Vaxel is gone already, the listener below finds out and kills.
    let told = wire::send_blocking(&stream, &FromShim::Started { pid, sandbox });
    let released = release_pipes();
    let listener = thread::Builder::new().name("listen".to_owned());
    let (socket, listening) = (stream.try_clone(), Arc::clone(&tree));
    let heard = listener.spawn(move || match socket {
        Ok(socket) => listening.listen(&socket),
        Err(_) => listening.kill(),
    });
    if told.and(released).is_err() || heard.is_err() {
        tree.kill();
    }
    tree.reap(&stream)
}

/// From here on only the socket and SIGKILL end this process: whoever signals all processes of a
/// service at once (`systemd` does) must not take the tree's reaper before the tree. The child does
/// not inherit this, because it was started before.
fn be_deaf() -> io::Result<()> {
    let polite = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ];
    SigSet::from_iter(polite).thread_block()?;
    Ok(())
}

/// What Vaxel inherited from whoever started it is not for its children. Called before this process
/// has opened anything of its own.
fn close_inherited() {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd").map_or_else(
        |_| Vec::new(),
        |all| {
            all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect()
        },
    );
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The listing's own descriptor is closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// Makes this process fit to be the root of a tree.
fn settle() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    // Fails when this process leads a group already, which is fine if it leads a session too.
    if setsid().is_err() && getsid(None)? != getpid() {
        return Err(io::Error::other("`shim` is started by Vaxel, not by hand"));
    }
    Ok(())
}

fn connect(name: &str) -> io::Result<UnixStream> {
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    // Whoever listens must be who started this process: an abstract name can be taken by anyone.
    if Some(socket_peercred(&stream)?.pid) != getppid() {
        return Err(io::Error::other(
            "the socket does not belong to the parent process",
        ));
    }
    Ok(stream)
}

/// Lets go of the child's pipes, so that their other ends see when the child closes them.
fn release_pipes() -> io::Result<()> {
    let null = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
