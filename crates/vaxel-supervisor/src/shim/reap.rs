//! Waits for everything below the shim, and kills it when it is time.

use std::{
    io,
    os::unix::net::UnixStream,
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};

use crate::{
    census::Census,
    orphans::{kill, to_pid},
    wire::{self, FromShim, ToShim},
};

const PAUSE: Duration = Duration::from_millis(5);

/// The processes below this one.
pub(super) struct Tree {
    main: Pid,
    /// SIGTERM was sent: what outlives the main process may finish its work.
    terminating: AtomicBool,
    killing: AtomicBool,
}

impl Tree {
    pub(super) const fn new(main: Pid) -> Self {
        Self {
            main,
            terminating: AtomicBool::new(false),
            killing: AtomicBool::new(false),
        }
    }

    /// Obeys Vaxel until the socket ends, then kills until the process ends.
    pub(super) fn listen(&self, socket: &UnixStream) {
        loop {
            match wire::receive_blocking::<ToShim>(socket) {
                Ok(Some(ToShim::Terminate)) => {
                    self.terminating.store(true, Ordering::SeqCst);
                    for pid in Census::take().descendants(process::id()) {
                        kill(pid, Signal::TERM);
                    }
                }
                Ok(Some(ToShim::Start(_))) => {}
                Ok(Some(ToShim::Kill) | None) | Err(_) => break,
            }
        }
        loop {
            // The main thread may be waiting for a process that was forked during the last round.
            self.kill();
            thread::sleep(PAUSE);
        }
    }

    /// Waits for children until there are none.
    pub(super) fn reap(&self, socket: &UnixStream) -> io::Result<()> {
        loop {
            let killing = self.killing.load(Ordering::SeqCst);
            let options = if killing {
                WaitOptions::NOHANG
            } else {
                WaitOptions::empty()
            };
            match wait(options) {
                Ok(Some((pid, status))) if pid == self.main => {
                    let (code, signal) = (status.exit_status(), status.terminating_signal());
                    // Vaxel may be gone; then nobody wants to know.
                    let _ = wire::send_blocking(socket, &FromShim::Exited { code, signal });
                    if !self.terminating.load(Ordering::SeqCst) {
                        self.killing.store(true, Ordering::SeqCst);
                    }
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => {
                    self.kill();
                    thread::sleep(PAUSE);
                }
                Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One round of killing everything below this process. Groups first: a signal to a group cannot
    /// miss a process that is being forked in it.
    pub(super) fn kill(&self) {
        self.killing.store(true, Ordering::SeqCst);
        let own = process::id();
        let census = Census::take();
        let tree = census.descendants(own);
        let mut groups: Vec<u32> = tree
            .iter()
            .filter_map(|pid| u32::try_from(census.get(*pid)?.group).ok())
            .filter(|group| *group > 1 && *group != own)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups.into_iter().filter_map(to_pid) {
            // Gone meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
        for pid in tree {
            kill(pid, Signal::KILL);
        }
    }
}
