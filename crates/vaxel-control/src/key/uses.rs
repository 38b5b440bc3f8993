//! When and from where keys were used last: told by the data plane once per key and ten seconds, gathered here,
//! and written many at a time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vaxel_core::id::{Id, Key};
use vaxel_gateway::KeyUse;
use vaxel_store::{KeyRow, KeyUseRow, Store};

/// Between two writes.
const EVERY: Duration = Duration::from_secs(10);
/// When so many keys wait to be written they are written at once.
const WAITING_MAX: usize = 10_000;

/// Uses that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct KeyUses {
    waiting: Mutex<HashMap<(Id<Key>, bool), KeyUse>>,
}

impl KeyUses {
    /// Adds to keys as they are stored what is not written yet.
    pub(crate) fn add_to(&self, keys: &mut [KeyRow]) {
        let waiting = self.waiting.lock();
        for key in keys {
            for is_replaced in [true, false] {
                let Some(noted) = waiting.get(&(key.id, is_replaced)) else {
                    continue;
                };
                if key.last_used_at < Some(noted.at) {
                    key.last_used_at = Some(noted.at);
                    key.last_used_from = noted.address.map(|address| address.to_string());
                }
                if let Some(earlier) = key.earlier.as_mut().filter(|_| is_replaced) {
                    earlier.used_at = earlier.used_at.max(Some(noted.at));
                }
            }
        }
    }

    /// How many wait then.
    fn note(&self, noted: KeyUse) -> usize {
        let mut waiting = self.waiting.lock();
        waiting.insert((noted.id, noted.is_replaced), noted);
        waiting.len()
    }

    fn rows(&self) -> Vec<KeyUseRow> {
        let waiting = self.waiting.lock();
        let mut rows: Vec<KeyUseRow> = waiting.values().map(row).collect();
        // Of two uses of a key the later one stays.
        rows.sort_by_key(|row| row.at);
        rows
    }

    /// Those of `rows` are written, unless there was another one since.
    fn written(&self, rows: &[KeyUseRow]) {
        let mut waiting = self.waiting.lock();
        for row in rows {
            let place = (row.id, row.is_earlier);
            if waiting.get(&place).is_some_and(|noted| noted.at == row.at) {
                waiting.remove(&place);
            }
        }
    }
}

/// Writes uses every ten seconds and at the end.
pub(crate) async fn write(
    store: Store,
    (mut noted, uses): (mpsc::Receiver<KeyUse>, Arc<KeyUses>),
    stop: CancellationToken,
) {
    let mut due = tokio::time::interval(EVERY);
    let mut is_last = false;
    while !is_last {
        let is_due = tokio::select! {
            () = stop.cancelled() => {
                noted.close();
                while let Ok(one) = noted.try_recv() {
                    uses.note(one);
                }
                is_last = true;
                true
            }
            one = noted.recv() => {
                is_last = one.is_none();
                one.is_none_or(|one| uses.note(one) >= WAITING_MAX)
            }
            _ = due.tick() => true,
        };
        let rows = if is_due { uses.rows() } else { Vec::new() };
        if rows.is_empty() {
            continue;
        }
        let count = rows.len();
        match store.note_key_uses(rows.clone()).await {
            Ok(()) => uses.written(&rows),
            Err(error) => {
                tracing::warn!(%error, "the last uses of keys could not be written");
                if count >= WAITING_MAX {
                    // They are not worth more memory.
                    uses.written(&rows);
                }
            }
        }
    }
}

fn row(noted: &KeyUse) -> KeyUseRow {
    KeyUseRow {
        id: noted.id,
        at: noted.at,
        from: noted.address.map(|address| address.to_string()),
        is_earlier: noted.is_replaced,
    }
}
