//! Who uses a link: the calls on it, and the tasks that its server works on.
//!
//! A link that nobody uses can be closed to calls in one step, and a call that comes a moment later
//! finds it closed: nothing is lost between the two.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Tasks that are remembered per link; the one that ends first makes room.
const TASKS: usize = 1_024;
/// How long a task counts that says nothing of its end.
const TASK: Duration = Duration::from_hours(24);
/// Set while no call may come.
const CLOSED: u32 = 1 << 31;

/// Counts calls, and lets none in while it is closed.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU32);

impl Gate {
    /// Counts a call in; false while it is closed.
    pub(crate) fn enter(&self) -> bool {
        if self.0.fetch_add(1, Ordering::AcqRel) & CLOSED == 0 {
            return true;
        }
        self.leave();
        false
    }

    /// Counts a call out.
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Calls that are in.
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire) & !CLOSED
    }

    /// Whether calls may come.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) & CLOSED == 0
    }

    /// Closes it if no call is in; whether it did.
    pub(crate) fn close_if_empty(&self) -> bool {
        let closed = self
            .0
            .compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        closed.is_ok()
    }

    /// Lets calls in again.
    pub(crate) fn reopen(&self) {
        self.0.fetch_and(!CLOSED, Ordering::AcqRel);
    }
}

/// The tasks that a server works on, each until it may be forgotten.
#[derive(Debug, Default)]
pub(crate) struct OpenTasks(Mutex<HashMap<Box<str>, Instant>>);

impl OpenTasks {
    /// A task was begun, or works still; `ttl` is how long its server keeps it.
    pub(crate) fn note(&self, id: &str, ttl: Option<Duration>, now: Instant) {
        let until = now.checked_add(ttl.unwrap_or(TASK));
        let until = until.unwrap_or(now + TASK);
        let mut open = self.0.lock();
        if open.len() >= TASKS && !open.contains_key(id) {
            let first = open.iter().min_by_key(|(_, until)| **until);
            if let Some(first) = first.map(|(id, _)| id.clone()) {
                open.remove(&first);
            }
        }
        open.insert(id.into(), until);
    }

    /// A task has ended.
    pub(crate) fn ended(&self, id: &str) {
        self.0.lock().remove(id);
    }

    /// Whether any is worked on.
    pub(crate) fn any(&self, now: Instant) -> bool {
        let mut open = self.0.lock();
        open.retain(|_, until| *until > now);
        !open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_gate_closes_only_when_nobody_is_in() {
        let gate = Gate::default();
        assert!(gate.enter() && gate.enter());
        assert!(!gate.close_if_empty());
        gate.leave();
        assert_eq!((gate.count(), gate.is_open()), (1, true));
        gate.leave();
        assert!(gate.close_if_empty() && !gate.close_if_empty());
        assert!(!gate.enter() && !gate.is_open());
        assert_eq!(gate.count(), 0);
        gate.reopen();
        assert!(gate.enter());
    }

    #[test]
    fn nobody_is_in_while_it_is_closed_whatever_the_order() {
        let (gate, away) = (Gate::default(), AtomicBool::new(false));
        let was_closed = AtomicBool::new(false);
        let (mut entered, mut closed) = (0, 0);
        std::thread::scope(|threads| {
            let callers: Vec<_> = (0..4)
                .map(|_| {
                    threads.spawn(|| {
                        let mut entered = 0_u32;
                        let mut tries = 0;
                        while tries < 20_000 || entered == 0 || !was_closed.load(Ordering::SeqCst) {
                            tries += 1;
                            if gate.enter() {
                                // What it stands for is there.
                                assert!(!away.load(Ordering::SeqCst));
                                entered += 1;
                                gate.leave();
                            }
                            std::thread::yield_now();
                        }
                        entered
                    })
                })
                .collect();
            while callers.iter().any(|caller| !caller.is_finished()) {
                if gate.close_if_empty() {
                    away.store(true, Ordering::SeqCst);
                    std::thread::yield_now();
                    away.store(false, Ordering::SeqCst);
                    gate.reopen();
                    was_closed.store(true, Ordering::SeqCst);
                    closed += 1;
                }
                // Where there is one processor, it would be closed whenever a caller looks.
                std::thread::yield_now();
            }
            entered = callers.into_iter().map(|one| one.join().unwrap()).sum();
        });
        assert!(entered > 0 && closed > 0, "{entered} {closed}");
        assert_eq!(gate.count(), 0);
    }

    #[test]
    fn a_task_counts_until_it_ends_or_is_forgotten() {
        let (tasks, now) = (OpenTasks::default(), Instant::now());
        let minute = Duration::from_mins(1);
        tasks.note("a", Some(minute), now);
        tasks.note("b", None, now);
        assert!(tasks.any(now + minute));
        tasks.ended("b");
        assert!(!tasks.any(now + minute));
        for number in 0..2 * TASKS {
            tasks.note(&number.to_string(), None, now);
        }
        assert_eq!(tasks.0.lock().len(), TASKS);
    }
}
