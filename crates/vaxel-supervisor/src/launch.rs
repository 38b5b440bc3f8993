//! Starts a shim and hands it its order.
//!
//! The shim connects back over a socket in the abstract namespace whose name only its command line
//! holds; that the peer is the shim and nobody else is checked by its process id (`SO_PEERCRED`).

use std::{
    os::linux::net::SocketAddrExt,
    os::unix::net::{SocketAddr, UnixListener as StdListener},
    process::Stdio,
};

use tokio::{
    net::{UnixListener, UnixStream},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use uuid::Uuid;

use crate::{
    Error, Order, SandboxReport,
    cgroup::Cgroup,
    supervisor::Inner,
    wire::{self, FromShim, Refusal, StartOrder, ToShim},
};

/// A process that runs, and everything that belongs to it.
pub(crate) struct Launched {
    pub(crate) shim: Child,
    pub(crate) socket: UnixStream,
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
    pub(crate) pid: u32,
    pub(crate) shim_pid: u32,
    pub(crate) sandbox: SandboxReport,
}

/// Starts the process of `order`, at most within the configured time.
pub(crate) async fn launch(
    inner: &Inner,
    order: &Order,
    cgroup: &Cgroup,
) -> Result<Launched, Error> {
    let after = inner.config.start_timeout;
    let launched = timeout(after, launch_now(inner, order, cgroup)).await;
    launched.map_err(|_| Error::Timeout { after })?
}

async fn launch_now(inner: &Inner, order: &Order, cgroup: &Cgroup) -> Result<Launched, Error> {
    let name = format!("vaxel-{}", Uuid::now_v7().simple());
    let listener = listen(&name).map_err(|error| Error::io("listening for the shim", error))?;
    let mut command = Command::new(&inner.config.program);
    command
        .args(&inner.config.shim_args)
        .arg(&name)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let (mut shim, shim_pid) = {
        let mut shims = inner.shims.lock();
        let shim = command
            .spawn()
            .map_err(|error| Error::io("starting the shim", error))?;
        let pid = shim.id().unwrap_or_default();
        shims.insert(pid);
        (shim, pid)
    };
    let started = introduce(inner, order, cgroup, (&listener, shim_pid)).await;
    let pipes = (shim.stdin.take(), shim.stdout.take(), shim.stderr.take());
    match (started, pipes) {
        (Ok((socket, pid, sandbox)), (Some(stdin), Some(stdout), Some(stderr))) => Ok(Launched {
            shim,
            socket,
            stdin,
            stdout,
            stderr,
            pid,
            shim_pid,
            sandbox,
        }),
        (Ok(_), _) => Err(Error::io(
            "taking the pipes",
            std::io::Error::other("they are gone"),
        )),
        (Err(error), _) => {
            // The shim ends by itself when its socket is closed; its status means nothing.
            let _ = shim.wait().await;
            inner.shims.lock().remove(&shim_pid);
            Err(error)
        }
    }
}

fn listen(name: &str) -> std::io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn introduce(
    inner: &Inner,
    order: &Order,
    cgroup: &Cgroup,
    (listener, shim): (&UnixListener, u32),
) -> Result<(UnixStream, u32, SandboxReport), Error> {
    let talking = |error| Error::io("talking to the shim", error);
    let mut socket = loop {
        let (socket, _) = listener.accept().await.map_err(talking)?;
        let peer = socket.peer_cred().map_err(talking)?.pid();
        if peer.and_then(|pid| u32::try_from(pid).ok()) == Some(shim) {
            break socket;
        }
    };
    let start = ToShim::Start(Box::new(start_order(inner, order, cgroup)));
    let bytes = wire::encode(&start).map_err(|error| Error::BadOrder {
        why: error.to_string(),
    })?;
    wire::send(&mut socket, &bytes).await.map_err(talking)?;
    match wire::receive(&mut socket).await.map_err(talking)? {
        Some(FromShim::Started { pid, sandbox }) => Ok((socket, pid, sandbox)),
        Some(FromShim::Refused(refusal)) => Err(refused(order, refusal)),
        Some(FromShim::Exited { .. }) | None => Err(talking(std::io::Error::other(
            "it ended before it started the program",
        ))),
    }
}

fn start_order(inner: &Inner, order: &Order, cgroup: &Cgroup) -> StartOrder {
    let mut env = inner.config.base_env.clone();
    let own = order
        .env
        .iter()
        .filter(|(name, _)| !name.starts_with("VAXEL_"));
    env.extend(own.map(|(name, value)| (name.clone(), value.expose().clone())));
    StartOrder {
        program: order.program.clone(),
        args: order.args.clone(),
        env,
        cwd: order.cwd.clone(),
        open_files: order.limits.open_files,
        hidden: order.hidden.clone(),
        join: cgroup.join(),
        leave: cgroup.leave(),
    }
}

fn refused(order: &Order, refusal: Refusal) -> Error {
    let program = order.program.clone();
    match refusal {
        Refusal::NotFound { place } => Error::NotFound { program, place },
        Refusal::Denied { why } => Error::Denied { program, why },
        Refusal::BadCwd { cwd, why } => Error::BadCwd { cwd, why },
        Refusal::BadOrder { why } => Error::BadOrder { why },
        Refusal::Failed { doing, errno, why } => {
            let source = errno.map_or_else(
                || std::io::Error::other(why),
                std::io::Error::from_raw_os_error,
            );
            Error::io(doing, source)
        }
    }
}
