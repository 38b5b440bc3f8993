//! The ring that the data plane checks keys with: read whole once, at the start, and then changed key by key.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use vaxel_auth::ring::{Entry, Filling, State};
use vaxel_core::{
    failure::Failure,
    id::{Id, Key},
    name::UserName,
    rights::Limits,
};
use vaxel_gateway::{Holder, Standing};
use vaxel_store::KeyRow;

use super::limits;
use crate::{control::Control, rights::Person};

/// Keys that are read at once.
const READ: u32 = 5_000;

/// Whom keys stand for: one for all keys of a user with the same limits.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    known: Mutex<HashMap<(UserName, Limits), Arc<Holder>>>,
}

impl Holders {
    fn of(&self, person: &Person, limits: Limits) -> Arc<Holder> {
        let mut known = self.known.lock();
        let holder = known.entry((person.user.name.clone(), limits));
        let holder = holder.or_insert_with_key(|(_, limits)| {
            let limits = Arc::new(limits.clone());
            Arc::new(Holder::new(standing(person, Some(limits))))
        });
        Arc::clone(holder)
    }

    /// What users may do has changed. Holders without keys are forgotten.
    fn refresh(&self, people: &HashMap<UserName, Person>) {
        let mut known = self.known.lock();
        known.retain(|_, holder| Arc::strong_count(holder) > 1);
        for ((user, _), holder) in known.iter() {
            let before = holder.standing();
            let Some(person) = people.get(user) else {
                continue;
            };
            let is_same = Arc::ptr_eq(&before.rights, &person.rights)
                && before.is_enabled == person.is_enabled();
            if !is_same {
                holder.put(standing(person, before.limits.clone()));
            }
        }
    }
}

impl Control {
    /// Gives the data plane all keys as they are stored: at the start.
    pub(crate) async fn fill_key_ring(&self) -> Result<(), Failure> {
        let _turn = self.inner.key_ring.lock().await;
        let count = self.store().count_keys().await?;
        let mut filling = Filling::new(usize::try_from(count).unwrap_or_default());
        let mut after = None;
        loop {
            let page = self.store().keys_after(after, READ).await?;
            if page.last.is_none() {
                break;
            }
            after = page.last;
            for row in &page.rows {
                for entry in self.entries(row) {
                    filling.push(entry);
                }
            }
        }
        self.inner.context.gateway.keys().fill(filling);
        Ok(())
    }

    /// Gives the data plane one key as it is stored now. One at a time: the last one to read is the last one
    /// to publish.
    pub(crate) async fn publish_key(&self, id: Id<Key>) -> Result<(), Failure> {
        let _turn = self.inner.key_ring.lock().await;
        if let Some(row) = self.store().key(id).await? {
            self.put_key(&row);
        }
        Ok(())
    }

    /// Gives the data plane a key that was stored just now. For who has the turn, so that nobody stores it meanwhile.
    pub(super) async fn put_new_key(&self, row: &KeyRow) {
        let _turn = self.inner.key_ring.lock().await;
        self.put_key(row);
    }

    /// The same for all keys of a user who is gone.
    pub(crate) async fn publish_keys_of(&self, user: UserName) -> Result<(), Failure> {
        let _turn = self.inner.key_ring.lock().await;
        for row in self.store().keys_of(user).await? {
            self.put_key(&row);
            self.remove_key_file(&row).await;
        }
        Ok(())
    }

    /// What users may do has changed. For who has the turn.
    pub(crate) fn publish_standings(&self) {
        self.inner.holders.refresh(&self.inner.people.all());
        self.publish_users();
    }

    fn put_key(&self, row: &KeyRow) {
        let ring = self.inner.context.gateway.keys();
        for entry in self.entries(row) {
            ring.put(entry);
        }
    }

    /// What the ring has of a key: its secret, and the one before.
    fn entries(&self, row: &KeyRow) -> Vec<Entry<Holder>> {
        let people = self.inner.people.all();
        let Some(person) = people.get(&row.user) else {
            tracing::error!(key.id = %row.id, "the user of a stored key is not known: it is left out");
            return Vec::new();
        };
        let holder = self.inner.holders.of(person, limits(row));
        let entry = |digest, expires_at, usually| Entry {
            digest,
            id: row.id,
            holder: Arc::clone(&holder),
            expires_at,
            state: if row.revoked_at.is_some() {
                State::Revoked
            } else {
                usually
            },
        };
        let earlier = row.earlier.as_ref().map(|earlier| {
            let until = row
                .expires_at
                .map_or(earlier.until, |end| end.min(earlier.until));
            entry(earlier.digest, Some(until), State::Replaced)
        });
        let current = entry(row.digest, row.expires_at, State::Good);
        std::iter::once(current).chain(earlier).collect()
    }
}

fn standing(person: &Person, limits: Option<Arc<Limits>>) -> Standing {
    Standing {
        name: Arc::clone(person.user.name.shared()),
        rights: Arc::clone(&person.rights),
        limits,
        is_enabled: person.is_enabled(),
    }
}
