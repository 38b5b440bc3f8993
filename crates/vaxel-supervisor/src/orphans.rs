//! The second line: what falls to Vaxel itself when a shim is killed from outside.
//!
//! A shim is the reaper of its tree. When it dies without having ended the tree, the kernel hands the
//! tree's members to the next reaper above, which is Vaxel once [`adopt_orphans`] was called. They
//! are recognised as children of ours that we did not start, killed, and waited for one by one
//! (waiting for *any* child would steal the exit statuses of the shims).

use std::{io, process, time::Duration};

use rustix::process::{
    Pid, Signal, WaitOptions, child_subreaper, getpid, kill_process, set_child_subreaper, waitpid,
};
use tokio::time::sleep;

use crate::{census::Census, supervisor::Inner};

const ROUNDS: u32 = 300;
const PAUSE: Duration = Duration::from_millis(10);

/// Makes this process the reaper of everything below it, so that no descendant of a killed shim gets
/// away. From then on every child of this process that was not started by a
/// [`Supervisor`](crate::Supervisor) counts as an orphan and may be killed: call it only in a process
/// that starts children through a supervisor alone. Errors: the kernel is older than 3.4.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills and reaps what fell to us, until nothing is left or three seconds are over.
pub(crate) async fn sweep(inner: &Inner) {
    if !matches!(child_subreaper(), Ok(Some(_))) {
        return;
    }
    for _ in 0..ROUNDS {
        if sweep_once(inner) == 0 {
            return;
        }
        sleep(PAUSE).await;
    }
    tracing::error!("Processes of a killed shim could not be ended within three seconds");
}

/// How many orphans were seen.
fn sweep_once(inner: &Inner) -> usize {
    // Held over the whole round: a shim that is being started is in the list before it is looked for.
    let shims = inner.shims.lock();
    let census = Census::take();
    let orphans: Vec<u32> = census
        .children(process::id())
        .iter()
        .copied()
        .filter(|pid| !shims.contains(pid))
        .collect();
    for orphan in &orphans {
        for pid in census.descendants(*orphan).into_iter().chain([*orphan]) {
            kill(pid, Signal::KILL);
        }
        if let Some(pid) = to_pid(*orphan) {
            // Still dying: the next round waits for it again.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
    orphans.len()
}

/// Sends a signal to one process; one that is gone already is what was wanted.
pub(crate) fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = to_pid(pid) {
        // Gone, or not ours to signal (set-user-ID): nothing more can be done here.
        let _ = kill_process(pid, signal);
    }
}

pub(crate) fn to_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}
