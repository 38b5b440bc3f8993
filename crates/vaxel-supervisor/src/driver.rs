//! The life of one process, seen from our side: launched, watched, ended, reported.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    net::unix::OwnedWriteHalf,
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{
    Error, Exit, Order, Process, ProcessHandle,
    launch::{Launched, launch},
    logs, orphans,
    process::{KILL_BOUND, Shared, Wanted},
    supervisor::Inner,
    watch::out_of_memory,
    wire::{self, FromShim, ToShim},
};

/// Starts the process of `order`, answers, and stays with it until its tree is gone.
pub(crate) async fn run(
    inner: Arc<Inner>,
    order: Order,
    answer: oneshot::Sender<Result<Process, Error>>,
) {
    let cgroup = inner.cgroups.create(order.limits);
    let launched = match launch(&inner, &order, &cgroup).await {
        Ok(launched) => launched,
        Err(error) => {
            cgroup.remove();
            // Whoever asked has gone away.
            let _ = answer.send(Err(error));
            return;
        }
    };
    let Launched {
        mut shim,
        socket,
        stdin,
        stdout,
        stderr,
        pid,
        shim_pid,
        sandbox,
    } = launched;
    let wanted = watch::Sender::new(Wanted::Running);
    let mut orders = wanted.subscribe();
    let (ended, exit) = watch::channel(None);
    let handle = ProcessHandle {
        shared: Arc::new(Shared {
            name: order.name.clone(),
            replica: order.replica,
            pid,
            shim: shim_pid,
            started_at: inner.clock.now(),
            sandbox,
            limits: order.limits,
            cgroup,
            reason: Mutex::new(None),
            exit,
            wanted,
            inner: Arc::clone(&inner),
        }),
    };
    inner.running.lock().insert(shim_pid, handle.clone());
    inner.tasks.spawn(logs::capture(
        stderr,
        inner.logs(&order.name),
        order.replica,
    ));
    let process = Process {
        stdin,
        stdout,
        handle: handle.clone(),
    };
    if answer.send(Ok(process)).is_err() {
        handle.kill("nobody waited for it any more");
    }
    let (mut from_shim, mut to_shim) = socket.into_split();
    let mut exited = std::pin::pin!(wire::receive::<FromShim>(&mut from_shim));
    let message = loop {
        tokio::select! {
            message = &mut exited => break message,
            Ok(()) = orders.changed() => {
                let wanted = *orders.borrow_and_update();
                pass_on(wanted, &mut to_shim).await;
            }
        }
    };
    // The shim ends the rest of the tree and then itself; a stuck one is not waited for for ever.
    if timeout(KILL_BOUND, shim.wait()).await.is_err() {
        tracing::warn!(
            service.name = order.name,
            "a process tree could not be ended in time"
        );
    }
    inner.running.lock().remove(&shim_pid);
    inner.shims.lock().remove(&shim_pid);
    let exit = report(&handle, message.ok().flatten().as_ref(), &inner);
    if exit.code.is_none() && exit.signal.is_none() {
        orphans::sweep(&inner).await;
    }
    handle.shared.cgroup.remove();
    ended.send_replace(Some(exit));
}

async fn pass_on(wanted: Wanted, to_shim: &mut OwnedWriteHalf) {
    let message = match wanted {
        Wanted::Running => return,
        Wanted::Terminated => ToShim::Terminate,
        Wanted::Killed => ToShim::Kill,
    };
    let Ok(bytes) = wire::encode(&message) else {
        return;
    };
    // A shim that cannot be told has ended, which is noticed on the other half.
    let _ = wire::send(to_shim, &bytes).await;
}

fn report(handle: &ProcessHandle, message: Option<&FromShim>, inner: &Inner) -> Exit {
    let reason = handle
        .shared
        .reason
        .lock()
        .clone()
        .or_else(|| out_of_memory(handle));
    let at = inner.clock.now();
    match message {
        Some(FromShim::Exited { code, signal }) => Exit {
            code: *code,
            signal: *signal,
            reason,
            at,
        },
        _ => Exit {
            code: None,
            signal: None,
            reason: reason.or_else(|| Some("its shim was killed".to_owned())),
            at,
        },
    }
}
