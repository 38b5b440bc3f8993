//! The root key of an installation: where it is kept, and how another one takes its place.
//!
//! It is a file (mode 0600) that Vaxel makes, or it is *given*: by the environment or a command. While it is being
//! replaced there are two, and both open. At every moment of that what lies on the disk is enough to go on, also
//! after a `kill -9`:
//!
//! - *A file*: the key before is copied to a second file first, then the new one takes its place.
//! - *Given*: a note beside the database has each of the two sealed with the other, so that whichever is given
//!   leads to both.

use std::{
    fmt,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use vaxel_core::secret::Secret;

use crate::{
    failure::Error,
    private,
    seal::{self, RootKey, Sealer, Shared},
};

/// Name of the file of the root key in the data directory.
pub const FILE: &str = "root.key";
/// That of the one before, while it is being replaced.
pub const OLD: &str = "root.key.old";
/// Says where a key comes from that is given.
pub const NOTE: &str = "root.json";
/// What the two keys seal each other for.
const PURPOSE: &str = "root key";

/// Where a root key comes from that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Given {
    /// The environment of the process.
    Environment,
    /// What a command writes.
    Command,
}

impl Given {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Command => "command",
        }
    }
}

/// The root keys of an installation. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct RootKeys(Arc<Inner>);

struct Inner {
    /// The data directory; `None`: nothing is kept.
    dir: Option<PathBuf>,
    given: Option<Given>,
    keys: Mutex<Keys>,
}

struct Keys {
    current: RootKey,
    /// They open, until all that they sealed is sealed anew.
    earlier: Vec<RootKey>,
    /// What the key is recognised by that was given at the start.
    given: String,
    sealers: Vec<Weak<Shared>>,
}

/// What is to be said of root keys. None of it helps anybody to find one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFacts {
    /// What the current one is recognised by.
    pub id: String,
    /// Where it comes from; `None`: its file.
    pub given: Option<Given>,
    /// The same of those that it replaces.
    pub earlier: Vec<String>,
    /// Whether the key that was given is one that was replaced: the current one has to be given at the next
    /// start, or the one after that.
    pub is_stale: bool,
}

/// What lies beside the database when the key is given.
#[derive(Serialize, Deserialize)]
struct Note {
    source: Given,
    /// What the key is recognised by.
    current: String,
    /// The same of the key before, while it is being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earlier: Option<Pair>,
}

/// Two keys that lead to each other.
#[derive(Serialize, Deserialize)]
struct Pair {
    /// What the key before is recognised by.
    id: String,
    /// It, sealed with the current one.
    sealed: String,
    /// The current one, sealed with it.
    current: String,
}

impl RootKeys {
    /// The key in the file of the data directory, which is made when there never was one, and the one before
    /// while it is being replaced.
    ///
    /// # Errors
    /// As [`RootKey::load_or_create`]; [`Error::RootKeyElsewhere`] when the key was given until now and the file has
    /// another one, or is not there.
    pub fn load_or_create(dir: &Path) -> Result<Self, Error> {
        let note = Note::read(dir)?;
        let path = dir.join(FILE);
        let is_other = |key: RootKey, note: &Note| key.id() != note.current;
        if let Some(note) = &note
            && RootKey::load(&path)?.is_none_or(|key| is_other(key, note))
        {
            return Err(Error::RootKeyElsewhere {
                expected: note.current.clone(),
                source_of: note.source.as_str(),
                path,
            });
        }
        let current = RootKey::load_or_create(&path)?;
        let mut earlier = Vec::from_iter(RootKey::load(&dir.join(OLD))?);
        if let Some(pair) = note.and_then(|note| note.earlier) {
            earlier.push(pair.before(&current)?);
        }
        Ok(Self::new(Some(dir), None, current, earlier))
    }

    /// A key that was given, by the environment or a command. What a file beside has is a key that it
    /// replaces, as is what a note says.
    ///
    /// # Errors
    /// [`Error::RootKeyOther`] when it is another one than was given until now.
    pub fn from_given(dir: &Path, given: Given, key: &RootKey) -> Result<Self, Error> {
        let (mut current, mut earlier) = (key.clone(), Vec::new());
        match Note::read(dir)? {
            Some(note) if note.current == key.id() => {
                if let Some(pair) = note.earlier {
                    earlier.push(pair.before(key)?);
                }
            }
            Some(Note {
                current: expected,
                earlier: pair,
                ..
            }) => {
                let pair = pair.filter(|pair| pair.id == key.id());
                let other = || Error::RootKeyOther {
                    given: key.id(),
                    expected,
                };
                current = pair.ok_or_else(other)?.after(key)?;
                earlier.push(key.clone());
            }
            None => Note::of(given, &current, None).write(dir)?,
        }
        for name in [FILE, OLD] {
            earlier.extend(RootKey::load(&dir.join(name))?);
        }
        let keys = Self::new(Some(dir), Some(given), current, earlier);
        keys.0.keys.lock().given = key.id();
        Ok(keys)
    }

    /// Keys that were kept in a backup, as their files held them: the current one, and the one before it.
    ///
    /// # Errors
    /// [`Error::OtherKey`] when one is not 32 bytes long.
    pub fn from_bytes(current: &[u8], earlier: Option<&[u8]>) -> Result<Self, Error> {
        let read = |bytes| RootKey::from_bytes(bytes).ok_or(Error::OtherKey);
        let earlier = earlier.map(read).transpose()?;
        let earlier = Vec::from_iter(earlier);
        Ok(Self::new(None, None, read(current)?, earlier))
    }

    /// A key that lives only as long as this value: for tests and experiments.
    pub fn ephemeral() -> Self {
        Self::new(None, None, RootKey::ephemeral(), Vec::new())
    }

    /// The sealer of `purpose`, as [`Sealer::new`]. It follows when the root key is replaced.
    pub fn sealer(&self, purpose: &str) -> Sealer {
        let mut keys = self.0.keys.lock();
        let sealer = Sealer::with(&keys.current, &keys.earlier, purpose);
        keys.sealers.retain(|sealer| sealer.strong_count() > 0);
        keys.sealers.push(Arc::downgrade(sealer.shared()));
        sealer
    }

    /// What is to be said of them.
    pub fn facts(&self) -> RootFacts {
        let keys = self.0.keys.lock();
        let id = keys.current.id();
        RootFacts {
            given: self.0.given,
            earlier: keys.earlier.iter().map(RootKey::id).collect(),
            is_stale: self.0.given.is_some() && keys.given != id,
            id,
        }
    }

    /// Whether something may still be sealed with a key that is being replaced.
    pub fn has_earlier(&self) -> bool {
        !self.0.keys.lock().earlier.is_empty()
    }

    /// Begins to replace the key: it is on the disk, every sealer seals with the new one, and what was sealed
    /// until now opens. `new` is the new one where keys are given, and nothing where Vaxel keeps it in a file.
    ///
    /// # Errors
    /// [`Error::RootKeyReplacing`]; [`Error::RootKeyWanted`]; [`Error::RootKeyFile`].
    pub fn replace(&self, new: Option<RootKey>) -> Result<(), Error> {
        let mut keys = self.0.keys.lock();
        if !keys.earlier.is_empty() {
            return Err(Error::RootKeyReplacing);
        }
        let next = match (self.0.given, new) {
            (None, None) => RootKey::ephemeral(),
            (Some(_), Some(key)) if key.id() != keys.current.id() => key,
            (Some(_), Some(_)) => {
                return Err(Error::RootKeyWanted("this is the root key that is in use"));
            }
            (Some(_), None) => {
                return Err(Error::RootKeyWanted(
                    "the root key is given by the environment or a command: say which one is to be used from now on",
                ));
            }
            (None, Some(_)) => {
                return Err(Error::RootKeyWanted(
                    "the root key is kept in a file, and a new one is made here: give none",
                ));
            }
        };
        if let Some(dir) = &self.0.dir {
            self.write(dir, &keys.current, &next)?;
        }
        keys.sealers.retain(|sealer| match sealer.upgrade() {
            Some(sealer) => {
                sealer.follow(&next);
                true
            }
            None => false,
        });
        let before = std::mem::replace(&mut keys.current, next);
        keys.earlier.push(before);
        Ok(())
    }

    /// Everything that the keys before sealed was sealed anew: they are thrown away. What was handed out, such as
    /// ids of sessions, opens until this process ends.
    ///
    /// # Errors
    /// [`Error::RootKeyFile`].
    pub fn forget_earlier(&self) -> Result<(), Error> {
        let mut keys = self.0.keys.lock();
        let Some(dir) = &self.0.dir else {
            keys.earlier.clear();
            return Ok(());
        };
        remove(dir, OLD)?;
        match self.0.given {
            None => remove(dir, NOTE)?,
            Some(given) => {
                remove(dir, FILE)?;
                // As long as the key before is the one that is given, it has to lead to this one.
                if keys.given == keys.current.id() {
                    Note::of(given, &keys.current, None).write(dir)?;
                }
            }
        }
        keys.earlier.clear();
        Ok(())
    }

    /// What a backup keeps of them: names of files, and what stands in them.
    pub fn files(&self) -> Vec<(&'static str, Secret<Vec<u8>>)> {
        let keys = self.0.keys.lock();
        let all = [(FILE, Some(&keys.current)), (OLD, keys.earlier.first())];
        let file =
            |(name, key): (_, Option<&RootKey>)| Some((name, Secret::new(key?.bytes().to_vec())));
        all.into_iter().filter_map(file).collect()
    }

    fn new(
        dir: Option<&Path>,
        given: Option<Given>,
        current: RootKey,
        mut earlier: Vec<RootKey>,
    ) -> Self {
        let id = current.id();
        // The same key twice: it was copied, and not replaced yet.
        earlier.retain(|key| key.id() != id);
        Self(Arc::new(Inner {
            dir: dir.map(Path::to_owned),
            given,
            keys: Mutex::new(Keys {
                current,
                earlier,
                given: id,
                sealers: Vec::new(),
            }),
        }))
    }

    fn write(&self, dir: &Path, before: &RootKey, next: &RootKey) -> Result<(), Error> {
        let steps = steps(self.0.given, before, next);
        steps.iter().try_for_each(|step| step.take(dir))
    }
}

/// What is done on the disk for another key. However many of them are done, a start finds what it needs.
enum Step {
    /// There is no such file any more.
    Remove(&'static str),
    Key(&'static str, RootKey),
    Note(Note),
}

/// In this order.
fn steps(given: Option<Given>, before: &RootKey, next: &RootKey) -> Vec<Step> {
    match given {
        Some(given) => vec![Step::Note(Note::of(given, next, Some(before)))],
        // A note is there when the key before was given once: it would refuse the next one.
        None => vec![
            Step::Remove(NOTE),
            Step::Key(OLD, before.clone()),
            Step::Key(FILE, next.clone()),
        ],
    }
}

impl Step {
    fn take(&self, dir: &Path) -> Result<(), Error> {
        match self {
            Self::Remove(name) => remove(dir, name),
            Self::Key(name, key) => {
                let path = dir.join(name);
                let written = private::replace(&path, key.bytes());
                written.map_err(|reason| seal::file_error(&path, "written", reason))
            }
            Self::Note(note) => note.write(dir),
        }
    }
}

fn remove(dir: &Path, name: &str) -> Result<(), Error> {
    let path = dir.join(name);
    private::remove(&path).map_err(|reason| seal::file_error(&path, "removed", reason))
}

impl fmt::Debug for RootKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKeys")
    }
}

impl Note {
    fn of(source: Given, current: &RootKey, before: Option<&RootKey>) -> Self {
        Self {
            source,
            current: current.id(),
            earlier: before.map(|before| Pair {
                id: before.id(),
                sealed: sealed(current, before),
                current: sealed(before, current),
            }),
        }
    }

    fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(NOTE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(seal::file_error(&path, "read", error)),
        };
        let note = serde_json::from_slice(&text);
        note.map(Some).map_err(|_| Error::RootNote { path })
    }

    fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(NOTE);
        let failed = |reason| seal::file_error(&path, "written", reason);
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        private::replace(&path, &text).map_err(failed)
    }
}

impl Pair {
    /// The key before, for who has the current one.
    fn before(&self, current: &RootKey) -> Result<RootKey, Error> {
        opened(current, &self.sealed)
    }

    /// The current key, for who has the one before.
    fn after(&self, before: &RootKey) -> Result<RootKey, Error> {
        opened(before, &self.current)
    }
}

fn sealed(with: &RootKey, key: &RootKey) -> String {
    Sealer::new(with, PURPOSE).seal_text(b"", key.bytes())
}

fn opened(with: &RootKey, text: &str) -> Result<RootKey, Error> {
    let bytes = Sealer::new(with, PURPOSE).open_text(b"", text)?;
    RootKey::from_bytes(bytes.expose()).ok_or(Error::Unsealable)
}

#[cfg(test)]
mod tests;
