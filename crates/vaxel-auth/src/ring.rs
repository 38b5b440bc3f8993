//! All API keys that are known, for whoever looks one up: a million of them cost a check nothing and the
//! memory little, and a change touches one of many small parts.
//!
//! What is kept of a key is one flat record in a sorted list. Whom it stands for is a *holder* that all keys of
//! one user with the same limits share. Lists are immutable and swapped: who looks never waits for who
//! changes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use vaxel_core::{
    id::{Id, Key},
    time::Timestamp,
};

use crate::{
    digest,
    key::{Refused, StoredKey},
};

/// In so many parts keys are kept, by the first bits of their digests. A change copies one of them: of a million
/// keys 250, which are 18 KB.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 12;
/// A use of a key is told to whoever notes them once in so long.
pub const NOTED_EVERY: Duration = Duration::from_secs(10);
/// No time at all: such a key does not expire.
const NEVER: u64 = u64::MAX;

/// What is known of one text that is or was an API key.
#[derive(Debug)]
pub struct Entry<H> {
    /// SHA-256 of the whole text.
    pub digest: [u8; 32],
    /// Its key. Two texts are of one key while it is being rotated.
    pub id: Id<Key>,
    /// Whom it stands for.
    pub holder: Arc<H>,
    /// From when on it is refused, if ever.
    pub expires_at: Option<Timestamp>,
    /// What becomes of it.
    pub state: State,
}

/// What becomes of a text that is or was an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It works until it expires.
    Good,
    /// Its key has another one since; this one works until it expires.
    Replaced,
    /// It is refused since someone said so.
    Revoked,
}

/// Whom a presented key stands for.
#[derive(Debug)]
pub struct Found<H> {
    /// Which key it is.
    pub id: Id<Key>,
    /// Whom it stands for.
    pub holder: Arc<H>,
    /// Whether the text is the one that the key had before it was rotated.
    pub is_replaced: bool,
    /// Whether this use is to be noted: the first one in [`NOTED_EVERY`].
    pub is_news: bool,
}

/// All keys that are known.
pub struct KeyRing<H> {
    parts: Box<[ArcSwapOption<Part<H>>]>,
    /// Held by who changes a part; who looks does not take it.
    turn: Mutex<()>,
    count: AtomicUsize,
}

/// Entries that are gathered for [`KeyRing::fill`], for those who read them piece by piece.
pub struct Filling<H>(Vec<Vec<Slot<H>>>);

/// Sorted by digest.
struct Part<H>(Box<[Slot<H>]>);

/// An [`Entry`] in as few bytes as it can have, which are 72.
struct Slot<H> {
    digest: [u8; 32],
    id: Id<Key>,
    holder: Arc<H>,
    expires_at: u64,
    /// In which span of [`NOTED_EVERY`] a use was noted last. A change of another key in the same part may
    /// lose it, and then one use is noted twice.
    noted: AtomicU32,
    state: State,
}

impl<H> Default for KeyRing<H> {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| ArcSwapOption::empty()).collect(),
            turn: Mutex::new(()),
            count: AtomicUsize::new(0),
        }
    }
}

impl<H> KeyRing<H> {
    /// Whom the presented key stands for. What its holder says is up to the caller.
    ///
    /// On the way of every request: allocates nothing, waits for nobody. How long it takes tells about digests
    /// only, and nobody finds a text for one.
    ///
    /// # Errors
    /// [`Refused`], to be shown to the caller.
    pub fn find(&self, presented: &str, now: Timestamp) -> Result<Found<H>, Refused> {
        let presented = StoredKey::of(presented).ok_or(Refused::Unknown)?;
        let part = self.parts[part_of(&presented.digest)].load();
        let part = part.as_ref().ok_or(Refused::Unknown)?;
        let slot = part.find(&presented.digest).ok_or(Refused::Unknown)?;
        let is_over = slot.expires_at <= now.as_millis();
        match slot.state {
            State::Revoked => return Err(Refused::Revoked),
            State::Replaced if is_over => return Err(Refused::Replaced),
            State::Good if is_over => return Err(Refused::Expired),
            State::Good | State::Replaced => {}
        }
        Ok(Found {
            id: slot.id,
            holder: Arc::clone(&slot.holder),
            is_replaced: slot.state == State::Replaced,
            is_news: slot.is_news(now),
        })
    }

    /// Adds an entry, or puts it in the place of the one with the same digest. It counts from the next
    /// [`KeyRing::find`] on.
    pub fn put(&self, entry: Entry<H>) {
        let _turn = self.turn.lock();
        let digest = entry.digest;
        let place = &self.parts[part_of(&digest)];
        let before = place.load();
        let slots = before.as_deref().map_or(&[][..], |part| &part.0);
        let others = slots.iter().filter(|slot| slot.digest != digest);
        let mut after: Vec<Slot<H>> = Vec::with_capacity(slots.len() + 1);
        after.extend(others.map(Slot::copy));
        let at = after.partition_point(|slot| slot.digest < digest);
        after.insert(at, entry.into());
        self.count(slots.len(), after.len());
        place.store(Some(Arc::new(Part(after.into_boxed_slice()))));
    }

    /// Forgets the entry of a digest, if there is one.
    pub fn remove(&self, digest: &[u8; 32]) {
        let _turn = self.turn.lock();
        let place = &self.parts[part_of(digest)];
        let before = place.load();
        let slots = before.as_deref().map_or(&[][..], |part| &part.0);
        let others = slots.iter().filter(|slot| slot.digest != *digest);
        let after: Box<[Slot<H>]> = others.map(Slot::copy).collect();
        self.count(slots.len(), after.len());
        let is_empty = after.is_empty();
        place.store((!is_empty).then(|| Arc::new(Part(after))));
    }

    /// Puts everything that was gathered in the place of everything that was known.
    pub fn fill(&self, gathered: Filling<H>) {
        let _turn = self.turn.lock();
        let mut count = 0;
        for (place, mut slots) in self.parts.iter().zip(gathered.0) {
            slots.sort_by_key(|slot| slot.digest);
            slots.dedup_by_key(|slot| slot.digest);
            count += slots.len();
            // Moved into a list of exactly this length: there are many of them, and they stay.
            let slots: Box<[Slot<H>]> = slots.iter().map(Slot::copy).collect();
            let part = (!slots.is_empty()).then(|| Arc::new(Part(slots)));
            place.store(part);
        }
        self.count.store(count, Ordering::Relaxed);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn count(&self, before: usize, after: usize) {
        self.count.fetch_add(after, Ordering::Relaxed);
        self.count.fetch_sub(before, Ordering::Relaxed);
    }
}

impl<H> Filling<H> {
    /// Nothing yet; about `expected` entries are to come.
    pub fn new(expected: usize) -> Self {
        // Digests are spread evenly: few parts have more than this, and those grow.
        let usual = expected / PARTS;
        let room = usual + 3 * usual.isqrt();
        Self((0..PARTS).map(|_| Vec::with_capacity(room)).collect())
    }

    /// Adds an entry. Of two with one digest one counts.
    pub fn push(&mut self, entry: Entry<H>) {
        self.0[part_of(&entry.digest)].push(entry.into());
    }
}

impl<H> fmt::Debug for KeyRing<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.len())
    }
}

impl<H> fmt::Debug for Filling<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filling")
    }
}

impl<H> Part<H> {
    fn find(&self, wanted: &[u8; 32]) -> Option<&Slot<H>> {
        let first = head(wanted);
        let at = self.0.partition_point(|slot| head(&slot.digest) < first);
        let mut alike = self.0[at..]
            .iter()
            .take_while(|slot| head(&slot.digest) == first);
        alike.find(|slot| digest::are_equal(&slot.digest, wanted))
    }
}

impl<H> Slot<H> {
    fn copy(&self) -> Self {
        Self {
            digest: self.digest,
            id: self.id,
            holder: Arc::clone(&self.holder),
            expires_at: self.expires_at,
            noted: AtomicU32::new(self.noted.load(Ordering::Relaxed)),
            state: self.state,
        }
    }

    /// Whether nobody noted a use in this span of time.
    fn is_news(&self, now: Timestamp) -> bool {
        let span = u64::try_from(NOTED_EVERY.as_millis()).unwrap_or(u64::MAX);
        let span = u32::try_from(now.as_millis() / span).unwrap_or(u32::MAX);
        let noted = self.noted.load(Ordering::Relaxed);
        let swap = |noted| {
            let order = Ordering::Relaxed;
            self.noted.compare_exchange(noted, span, order, order)
        };
        noted != span && swap(noted).is_ok()
    }
}

impl<H> From<Entry<H>> for Slot<H> {
    fn from(entry: Entry<H>) -> Self {
        let Entry {
            digest,
            id,
            holder,
            expires_at,
            state,
        } = entry;
        Self {
            digest,
            id,
            holder,
            expires_at: expires_at.map_or(NEVER, Timestamp::as_millis),
            noted: AtomicU32::new(0),
            state,
        }
    }
}

/// The first bytes of a digest, in the order of digests.
fn head(digest: &[u8; 32]) -> u64 {
    let first = digest.first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*first)
}

fn part_of(digest: &[u8; 32]) -> usize {
    let bits = head(digest) >> (u64::BITS - PART_BITS);
    usize::try_from(bits).expect("so few bits are a small number")
}

#[cfg(test)]
mod tests;
