//! Watches the trees that have bounds, and kills with a clear reason what is over them.
//!
//! An address-space limit would be simpler and is wrong: Node and every garbage-collected runtime
//! reserve far more than they use and do not start under one.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{Limits, ProcessHandle, Usage, supervisor::Inner};

/// How often the trees are looked at.
const EVERY: Duration = Duration::from_millis(500);

/// One task for all processes; ends with the supervisor.
pub(crate) async fn run(inner: Weak<Inner>, stopped: CancellationToken) {
    while stopped.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let Some(inner) = inner.upgrade() else { return };
        let bounded: Vec<ProcessHandle> = inner
            .running
            .lock()
            .values()
            .filter(|handle| handle.shared.limits.bounds_the_tree())
            .cloned()
            .collect();
        if bounded.is_empty() {
            continue;
        }
        // Reading /proc takes milliseconds on a busy machine: not on the runtime's threads.
        if spawn_blocking(move || look(&inner, &bounded))
            .await
            .is_err()
        {
            tracing::error!("Watching the bounds of processes failed once");
        }
    }
}

fn look(inner: &Arc<Inner>, bounded: &[ProcessHandle]) {
    let census = inner.census();
    for handle in bounded {
        let usage = census.usage(handle.shared.shim);
        if let Some(reason) = over(usage, handle.shared.limits).or_else(|| out_of_memory(handle)) {
            handle.kill(&reason);
        }
    }
}

/// The kernel's controller was faster than this watch.
pub(crate) fn out_of_memory(handle: &ProcessHandle) -> Option<String> {
    let limit = handle.shared.limits.memory_bytes?;
    let reason = || format!("killed: more memory than its limit of {}", Mebibytes(limit));
    handle.shared.cgroup.ran_out_of_memory().then(reason)
}

/// What of `usage` is over `limits`, as a reason.
fn over(usage: Usage, limits: Limits) -> Option<String> {
    let Usage {
        cpu: _,
        memory_bytes,
        processes,
    } = usage;
    if let Some(limit) = limits.memory_bytes.filter(|limit| memory_bytes > *limit) {
        let (used, limit) = (Mebibytes(memory_bytes), Mebibytes(limit));
        return Some(format!("killed: {used} of memory, limit {limit}"));
    }
    let limit = limits.processes.filter(|limit| processes > *limit)?;
    Some(format!("killed: {processes} processes, limit {limit}"))
}

struct Mebibytes(u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_names_what_was_used_and_what_was_allowed() {
        let limits = Limits {
            memory_bytes: Some(512 << 20),
            processes: Some(4),
            open_files: None,
        };
        let usage = |memory: u64, processes| Usage {
            cpu: Duration::ZERO,
            memory_bytes: memory << 20,
            processes,
        };
        assert_eq!(over(usage(512, 4), limits), None);
        assert_eq!(
            over(usage(612, 4), limits).unwrap(),
            "killed: 612 MiB of memory, limit 512 MiB"
        );
        assert_eq!(
            over(usage(1, 5), limits).unwrap(),
            "killed: 5 processes, limit 4"
        );
        assert_eq!(over(usage(9999, 9999), Limits::default()), None);
    }
}
