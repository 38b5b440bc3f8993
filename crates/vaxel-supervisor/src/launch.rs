//! Starts a shim and hands it its order.
//!
//! The shim connects back over a socket in the abstract namespace whose name only its command line
//! holds; that the peer is the shim and nobody else is checked by its process id (`SO_PEERCRED`).

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener as StdListener},
    },
    process::{ExitStatus, Stdio},
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
    orphans,
    process::KILL_BOUND,
    sandbox::{Hiding, View},
    shim,
    supervisor::Inner,
    wire::{self, FromShim, Refusal, StartOrder, ToShim},
};

/// A process that runs, and everything that belongs to it.
pub(crate) struct Launched {
    pub(crate) shim: Child,
    pub(crate) shim_pid: u32,
    pub(crate) pipes: Pipes,
    pub(crate) socket: UnixStream,
    pub(crate) pid: u32,
    pub(crate) sandbox: SandboxReport,
    pub(crate) cgroup: Cgroup,
}

/// The standard streams, which the shim passes on to the child.
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// Starts the process of `order`, at most within the configured time. After an error nothing of it
/// is left.
pub(crate) async fn launch(inner: &Inner, order: &Order) -> Result<Launched, Error> {
    let name = format!("vaxel-{}", Uuid::now_v7().simple());
    let listener = listen(&name).map_err(|error| Error::io("listening for the shim", error))?;
    let view = if order.hidden.is_empty() {
        None
    } else {
        view(inner).await
    };
    let cgroup = inner.cgroups.create(order.limits);
    let start_order = describe(inner, order, Some(&cgroup), view);
    let (mut shim, shim_pid, pipes) = start(inner, &name).inspect_err(|_| cgroup.remove())?;
    let after = inner.config.start_timeout;
    let introduced = timeout(after, introduce(&listener, &mut shim, start_order)).await;
    match introduced.unwrap_or(Err(Error::Timeout { after })) {
        Ok((socket, pid, sandbox)) => Ok(Launched {
            shim,
            shim_pid,
            pipes,
            socket,
            pid,
            sandbox,
            cgroup,
        }),
        Err(error) => {
            // No socket is left: the shim ends whatever it has begun, and then itself.
            drop(listener);
            reap(inner, shim, shim_pid).await;
            cgroup.remove();
            Err(error)
        }
    }
}

/// Why the process of `order` cannot be started, as far as can be seen without starting it.
pub(crate) fn problems(inner: &Inner, order: &Order) -> Vec<Error> {
    let order = describe(inner, order, None, None);
    let refused = |refusal| refused(order.program.clone(), refusal);
    shim::start::problems(&order)
        .into_iter()
        .map(refused)
        .collect()
}

fn listen(name: &str) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// What the sandbox can do here; found out once, by a process that ends at once.
async fn view(inner: &Inner) -> Option<View> {
    *inner.view.get_or_init(|| try_view(inner)).await
}

async fn try_view(inner: &Inner) -> Option<View> {
    let mut command = command(inner, shim::PROBE);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (mut probe, pid) = {
        let mut shims = inner.shims.lock();
        let probe = command.spawn().ok()?;
        let pid = probe.id()?;
        shims.insert(pid);
        (probe, pid)
    };
    let status = timeout(inner.config.start_timeout, probe.wait()).await;
    if status.is_err() {
        // It ended this moment, or is ended now; nothing waits for it.
        let _ = probe.start_kill();
    }
    inner.shims.lock().remove(&pid);
    View::probed(status.ok()?.ok()?.code())
}

fn command(inner: &Inner, name: &str) -> Command {
    let mut command = Command::new(&inner.config.program);
    command
        .args(&inner.config.shim_args)
        .arg(name)
        .env_clear()
        .current_dir("/");
    command
}

fn start(inner: &Inner, name: &str) -> Result<(Child, u32, Pipes), Error> {
    let mut command = command(inner, name);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut shims = inner.shims.lock();
    let mut shim = command.spawn().map_err(|error| {
        Error::io(
            format!("starting the shim `{}`", inner.config.program.display()),
            error,
        )
    })?;
    let parts = (
        shim.id(),
        shim.stdin.take(),
        shim.stdout.take(),
        shim.stderr.take(),
    );
    let (Some(pid), Some(stdin), Some(stdout), Some(stderr)) = parts else {
        unreachable!("a child that was not waited for has a pid, and its streams are pipes")
    };
    shims.insert(pid);
    Ok((
        shim,
        pid,
        Pipes {
            stdin,
            stdout,
            stderr,
        },
    ))
}

async fn introduce(
    listener: &UnixListener,
    shim: &mut Child,
    order: StartOrder,
) -> Result<(UnixStream, u32, SandboxReport), Error> {
    let talking = |error| Error::io("talking to the shim", error);
    let program = order.program.clone();
    let pid = shim.id();
    let mut socket = tokio::select! {
        socket = accept(listener, pid) => socket.map_err(talking)?,
        status = shim.wait() => return Err(ended_early(&status)),
    };
    let bytes = wire::encode(&ToShim::Start(Box::new(order))).map_err(|error| Error::BadOrder {
        why: error.to_string(),
    })?;
    wire::send(&mut socket, &bytes).await.map_err(talking)?;
    match wire::receive(&mut socket).await.map_err(talking)? {
        Some(FromShim::Started { pid, sandbox }) => Ok((socket, pid, sandbox)),
        Some(FromShim::Refused(refusal)) => Err(refused(program, refusal)),
        Some(FromShim::Exited { .. }) | None => Err(ended_early(&shim.wait().await)),
    }
}

/// The connection of the shim. Every process of the machine can reach an abstract socket, so the
/// kernel's word on who connects decides; others are turned away.
async fn accept(listener: &UnixListener, shim: Option<u32>) -> io::Result<UnixStream> {
    loop {
        let (socket, _) = listener.accept().await?;
        let peer = socket
            .peer_cred()?
            .pid()
            .and_then(|pid| u32::try_from(pid).ok());
        if peer.is_some() && peer == shim {
            return Ok(socket);
        }
        tracing::warn!(
            ?peer,
            "A process that is not the shim connected to the shim's socket"
        );
    }
}

fn ended_early(status: &io::Result<ExitStatus>) -> Error {
    let how = status
        .as_ref()
        .map_or_else(ToString::to_string, ToString::to_string);
    Error::io(
        "running the shim",
        io::Error::other(format!("it ended early ({how})")),
    )
}

fn describe(
    inner: &Inner,
    order: &Order,
    cgroup: Option<&Cgroup>,
    view: Option<View>,
) -> StartOrder {
    let own = order.env.iter().map(|(name, value)| (name, value.expose()));
    let env = inner.config.base_env.iter().chain(own);
    StartOrder {
        program: order.program.clone(),
        args: order.args.clone(),
        // Nothing of Vaxel's own reaches a child.
        env: env
            .filter(|(name, _)| !name.starts_with("VAXEL_"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        cwd: order.cwd.clone(),
        open_files: order.limits.open_files,
        hiding: Hiding {
            paths: order.hidden.clone(),
            view,
        },
        join: cgroup.map(Cgroup::join).unwrap_or_default(),
        leave: cgroup.map(Cgroup::leave).unwrap_or_default(),
    }
}

fn refused(program: String, refusal: Refusal) -> Error {
    match refusal {
        Refusal::NotFound { place } => Error::NotFound { program, place },
        Refusal::Denied { why } => Error::Denied { program, why },
        Refusal::BadCwd { cwd, why } => Error::BadCwd { cwd, why },
        Refusal::BadOrder { why } => Error::BadOrder { why },
        Refusal::Failed { doing, errno, why } => {
            let source = errno.map_or_else(|| io::Error::other(why), io::Error::from_raw_os_error);
            Error::io(doing, source)
        }
    }
}

/// Waits for a shim whose socket is closed; kills it when it does not end.
async fn reap(inner: &Inner, mut shim: Child, pid: u32) {
    let ended = timeout(KILL_BOUND, shim.wait()).await;
    if ended.is_err() {
        // It may have ended this moment; the next wait decides.
        let _ = shim.start_kill();
        // One that cannot even be killed is left to the kernel.
        let _ = timeout(KILL_BOUND, shim.wait()).await;
    }
    inner.shims.lock().remove(&pid);
    if !matches!(ended, Ok(Ok(status)) if status.success()) {
        orphans::sweep(inner).await;
    }
}
