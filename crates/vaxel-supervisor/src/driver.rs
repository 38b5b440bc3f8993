//! The life of one process, seen from our side: launched, kept, ended, reported. One task per
//! process, which owns its shim.

use std::{io, process::ExitStatus, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::{
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    process::Child,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    Error, Exit, Order, Process, ProcessHandle,
    census::Census,
    launch::{Launched, launch},
    logs::capture,
    orphans::{self, kill},
    process::{Shared, Wanted},
    supervisor::Inner,
    watch::out_of_memory,
    wire::{self, FromShim, ToShim},
};

/// How long a shim has to end its tree before that is done from here.
const SHIM_BOUND: Duration = Duration::from_secs(1);
/// How long the last lines of standard error are waited for.
const CAPTURE_BOUND: Duration = Duration::from_millis(500);

/// Starts the process of `order`, answers, and stays with it until its tree is gone.
pub(crate) async fn run(
    inner: Arc<Inner>,
    order: Order,
    answer: oneshot::Sender<Result<Process, Error>>,
) {
    let logs = inner.logs(&order.name);
    let replica = order.replica;
    let launched = match launch(&inner, &order).await {
        Ok(launched) => launched,
        Err(error) => {
            // Whoever asked may have gone away.
            let _ = answer.send(Err(error));
            return;
        }
    };
    let Launched {
        shim,
        shim_pid,
        pipes,
        socket,
        pid,
        sandbox,
        cgroup,
    } = launched;
    let started_at = inner.clock.now();
    let captured = inner.tasks.spawn(capture(pipes.stderr, logs, replica));
    let (ended, exit) = watch::channel(None);
    let (wanted, wishes) = watch::channel(Wanted::Running);
    let shared = Shared {
        name: order.name,
        replica,
        pid,
        shim: shim_pid,
        started_at,
        sandbox,
        limits: order.limits,
        cgroup,
        reason: Mutex::new(None),
        exit,
        wanted,
        inner: Arc::clone(&inner),
    };
    let handle = ProcessHandle {
        shared: Arc::new(shared),
    };
    inner.running.lock().insert(shim_pid, handle.clone());
    let process = Process {
        stdin: pipes.stdin,
        stdout: pipes.stdout,
        handle: handle.clone(),
    };
    if inner.stopped.is_cancelled() {
        // `shutdown` may have looked at what runs before this did.
        handle.kill("stopped");
    }
    if answer.send(Ok(process)).is_err() {
        handle.kill("killed: nobody waited for it any more");
    }
    let (from_shim, to_shim) = socket.into_split();
    let keeper = Keeper {
        shim,
        pid: shim_pid,
        to_shim,
        wishes,
        grace: inner.config.stop_grace,
        next: None,
    };
    let end = keeper.keep(from_shim).await;
    let last = finish(&handle, captured, end).await;
    inner.running.lock().remove(&shim_pid);
    ended.send_replace(Some(last));
}

/// Owns the shim of a running process.
struct Keeper {
    shim: Child,
    pid: u32,
    to_shim: OwnedWriteHalf,
    wishes: watch::Receiver<Wanted>,
    grace: Duration,
    /// What is done next, unless the shim ends before.
    next: Option<(Instant, Step)>,
}

/// The ways to end a tree, from polite to certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Terminate,
    Kill,
    Force,
}

/// Code and signal of a main process.
type Report = (Option<i32>, Option<i32>);

/// What is known when a shim has ended.
struct End {
    /// Absent when the shim did not live to say it.
    report: Option<Report>,
    shim: io::Result<ExitStatus>,
}

impl Keeper {
    /// Waits for the shim to end, and does meanwhile what is wanted.
    async fn keep(mut self, from_shim: OwnedReadHalf) -> End {
        let reading = read_report(from_shim);
        tokio::pin!(reading);
        let (mut read, mut report) = (false, None);
        let shim = loop {
            let (at, step) = self.next.unwrap_or_else(|| (Instant::now(), Step::Force));
            tokio::select! {
                status = self.shim.wait() => break status,
                said = &mut reading, if !read => {
                    (read, report) = (true, said);
                    self.main_ended();
                }
                Ok(()) = self.wishes.changed() => {
                    let wanted = *self.wishes.borrow_and_update();
                    match wanted {
                        Wanted::Running => {}
                        Wanted::Stopped => self.plan(self.grace / 4, Step::Terminate),
                        Wanted::Killed => self.take(Step::Kill).await,
                    }
                }
                () = sleep_until(at), if self.next.is_some() => self.take(step).await,
            }
        };
        // The report may be in the socket when the end of the shim was seen first.
        if !read && let Ok(said) = timeout(SHIM_BOUND, reading).await {
            report = said;
        }
        End { report, shim }
    }

    fn plan(&mut self, after: Duration, step: Step) {
        self.next = Some((Instant::now() + after, step));
    }

    /// After SIGTERM the rest of the tree has the grace to finish; otherwise the shim kills it now.
    fn main_ended(&mut self) {
        if !matches!(self.next, Some((_, Step::Kill | Step::Force))) {
            self.plan(SHIM_BOUND, Step::Force);
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Terminate => {
                self.tell(&ToShim::Terminate).await;
                self.plan(self.grace, Step::Kill);
            }
            Step::Kill => {
                self.tell(&ToShim::Kill).await;
                self.plan(SHIM_BOUND, Step::Force);
            }
            Step::Force => {
                self.force();
                self.plan(SHIM_BOUND, Step::Force);
            }
        }
    }

    async fn tell(&mut self, message: &ToShim) {
        if let Ok(bytes) = wire::encode(message) {
            // A shim that cannot be told has ended, or is ended by force.
            let _ = timeout(SHIM_BOUND, wire::send(&mut self.to_shim, &bytes)).await;
        }
    }

    /// Kills the tree from here, the shim last: something keeps it from doing so (it was stopped, or
    /// a process cannot be killed at the moment).
    fn force(&self) {
        let census = Census::take();
        for pid in census.descendants(self.pid).into_iter().chain([self.pid]) {
            kill(pid, Signal::KILL);
        }
    }
}

/// How the main process ended; `None` when the shim ended before it could say so.
async fn read_report(mut from_shim: OwnedReadHalf) -> Option<Report> {
    while let Ok(Some(message)) = wire::receive::<FromShim>(&mut from_shim).await {
        if let FromShim::Exited { code, signal } = message {
            return Some((code, signal));
        }
    }
    None
}

/// Clears up after the shim and puts together how its process ended.
async fn finish(handle: &ProcessHandle, captured: JoinHandle<()>, end: End) -> Exit {
    let shared = &*handle.shared;
    shared.inner.shims.lock().remove(&shared.shim);
    let clean = matches!(&end.shim, Ok(status) if status.success());
    if !clean {
        orphans::sweep(&shared.inner).await;
    }
    // Whoever still holds standard error cannot be killed; what it writes is not waited for.
    let _ = timeout(CAPTURE_BOUND, captured).await;
    let known = shared.reason.lock().clone();
    let reason = known.or_else(|| out_of_memory(handle)).or_else(|| {
        let how = end
            .shim
            .as_ref()
            .map_or_else(ToString::to_string, ToString::to_string);
        (!clean).then(|| format!("its shim ended first ({how}), so the tree was killed"))
    });
    shared.cgroup.remove();
    let (code, signal) = end.report.unwrap_or((None, None));
    Exit {
        code,
        signal,
        reason,
        at: shared.inner.clock.now(),
    }
}
