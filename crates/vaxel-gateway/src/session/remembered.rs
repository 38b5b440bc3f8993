//! What clients have set in their sessions, kept apart from the sessions: it outlives one that was idle
//! for long, and by way of the store also this process.
//!
//! The data plane does not wait for the store: what changed is handed over when the control plane asks
//! for it, the newest state of each session once.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::Notify;
use vaxel_core::{
    id::{Id, Session},
    session::SessionState,
    time::Timestamp,
};

/// Sessions of which something is remembered. When there are more, the oldest is forgotten.
const STATES: usize = 100_000;
/// Changes that are handed over at once.
const AT_ONCE: usize = 1_000;

/// The states of all sessions that have one.
#[derive(Default)]
pub(crate) struct Remembered {
    states: Mutex<States>,
    changed: Notify,
}

/// Ids sort by age.
#[derive(Default)]
struct States {
    by_id: BTreeMap<Id<Session>, SessionState>,
    unsaved: BTreeSet<Id<Session>>,
}

impl Remembered {
    pub(super) fn of(&self, id: Id<Session>) -> Option<SessionState> {
        self.states.lock().by_id.get(&id).cloned()
    }

    /// Takes note of what was set in a session.
    pub(super) fn change(&self, id: Id<Session>, set: impl FnOnce(&mut SessionState)) {
        let mut states = self.states.lock();
        let known = states.by_id.get(&id).cloned();
        let mut state = known.clone().unwrap_or_else(|| SessionState::new(id));
        set(&mut state);
        if known.as_ref().unwrap_or(&SessionState::new(id)) == &state {
            return;
        }
        states.put(state);
        states.mark(id);
        if states.by_id.len() > STATES
            && let Some((oldest, _)) = states.by_id.pop_first()
        {
            states.mark(oldest);
        }
        drop(states);
        self.changed.notify_one();
    }

    /// What was saved by an earlier process.
    pub(crate) fn restore(&self, saved: Vec<SessionState>) {
        let mut states = self.states.lock();
        for state in saved {
            states.put(state);
        }
    }

    /// Waits until something has changed, and takes it. A state that is empty is to be forgotten.
    pub(crate) async fn changed(&self) -> Vec<SessionState> {
        loop {
            let changed = self.take();
            if !changed.is_empty() {
                return changed;
            }
            self.changed.notified().await;
        }
    }

    /// Takes what has changed until now.
    pub(crate) fn take(&self) -> Vec<SessionState> {
        let mut states = self.states.lock();
        let mut taken = Vec::new();
        while taken.len() < AT_ONCE
            && let Some(id) = states.unsaved.pop_first()
        {
            let state = states.by_id.get(&id).cloned();
            taken.push(state.unwrap_or_else(|| SessionState::new(id)));
        }
        taken
    }

    /// These could not be saved: their sessions are handed over again.
    pub(crate) fn not_saved(&self, states: &[SessionState]) {
        let mut all = self.states.lock();
        for state in states {
            all.mark(state.id);
        }
    }

    /// Forgets the sessions that were opened before.
    pub(super) fn forget_before(&self, opened: Timestamp) {
        let mut states = self.states.lock();
        let old = |id: &Id<Session>| id.created_at() < opened;
        states.by_id.retain(|id, _| !old(id));
    }
}

impl States {
    fn put(&mut self, state: SessionState) {
        if state.is_empty() {
            self.by_id.remove(&state.id);
        } else {
            self.by_id.insert(state.id, state);
        }
    }

    /// When nobody takes what has changed, the oldest change is not saved.
    fn mark(&mut self, id: Id<Session>) {
        self.unsaved.insert(id);
        if self.unsaved.len() > STATES {
            self.unsaved.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(at: u64) -> Id<Session> {
        Id::new(Timestamp::from_millis(at))
    }

    #[tokio::test]
    async fn a_session_is_handed_over_once_with_its_newest_state() {
        let remembered = Remembered::default();
        let (one, other) = (session(1), session(2));
        remembered.change(other, |state| state.ended = true);
        remembered.change(one, |state| state.level = Some("debug".into()));
        remembered.change(one, |state| state.level = Some("error".into()));
        let changed = remembered.changed().await;
        let levels: Vec<_> = changed.iter().map(|state| state.level.as_deref()).collect();
        assert_eq!(levels, [Some("error"), None]);
        assert!(remembered.take().is_empty());
        remembered.change(one, |state| state.level = Some("error".into()));
        assert!(remembered.take().is_empty(), "nothing was new");
        remembered.not_saved(&changed);
        assert_eq!(remembered.take(), changed);
        // What has nothing to remember any more is forgotten.
        remembered.change(one, |state| state.level = None);
        assert_eq!(remembered.take(), [SessionState::new(one)]);
        assert_eq!(remembered.of(one), None);
    }

    #[test]
    fn what_was_saved_comes_back_until_it_is_too_old() {
        let remembered = Remembered::default();
        let saved = SessionState {
            ended: true,
            ..SessionState::new(session(1_000))
        };
        remembered.restore(vec![saved.clone()]);
        assert!(remembered.take().is_empty());
        assert_eq!(remembered.of(saved.id), Some(saved.clone()));
        remembered.forget_before(Timestamp::from_millis(1_000));
        assert_eq!(remembered.of(saved.id), Some(saved.clone()));
        remembered.forget_before(Timestamp::from_millis(1_001));
        assert_eq!(remembered.of(saved.id), None);
    }

    #[test]
    fn without_a_reader_memory_stays_bounded() {
        let remembered = Remembered::default();
        for at in 0..(STATES as u64 + 10) {
            remembered.change(session(at), |state| state.ended = true);
        }
        let states = remembered.states.lock();
        assert_eq!((states.by_id.len(), states.unsaved.len()), (STATES, STATES));
    }
}
