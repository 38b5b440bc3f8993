//! The chain of the audit: each line's hash covers the line and the hash before it, so that what is changed,
//! taken out or moved shows, and at which line.
//!
//! A hash alone can be made by anybody. So each one is sealed with a key that is not in the database: who has
//! the database alone can change lines, but not make the chain anew. What retention takes away leaves a
//! [`Gap`], sealed in the same way, over which the chain goes on.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Entry;

/// What the bytes of a line begin with: its form. Another form gets another number.
const LINE: &[u8] = b"vaxel audit line 1\0";
const GAP: &[u8] = b"vaxel audit gap 1\0";
const HEAD: &[u8] = b"vaxel audit head 1\0";

/// Action of the line that says that the database was put back to an earlier state.
pub const REWIND: &str = "audit.rewind";
/// The same of what belongs to the chain and was taken away or spoiled.
pub const BROKEN: &str = "audit.broken";
/// The same of a backup that was restored: what came after the backup is not there any more.
pub const RESTORE: &str = "audit.restore";

/// 32 bytes that stand for others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// From what was stored.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no [`struct@Hash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: expected 64 hexadecimal digits")]
pub struct InvalidHash;

impl FromStr for Hash {
    type Err = InvalidHash;
    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(InvalidHash);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(InvalidHash);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| InvalidHash)?;
        }
        Ok(Self(bytes))
    }
}
impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// What makes hashes and seals them.
pub trait Stamp: fmt::Debug + Send + Sync {
    /// SHA-256.
    fn digest(&self, bytes: &[u8]) -> Hash;

    /// A hash under the key; `None` where the key is not known.
    fn seal(&self, hash: &Hash) -> Option<Hash>;
}

/// How far the chain has come: the last line, and its hash. Before the first line both are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Link {
    /// Number of the last line.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Link {
    /// What a seal of the newest line covers.
    pub fn digest(&self, stamp: &dyn Stamp) -> Hash {
        let number = self.number.to_be_bytes();
        stamp.digest(&[HEAD, &number, &self.hash.0].concat())
    }

    /// The link behind `entry`, which follows this one.
    #[must_use]
    pub fn then(&self, stamp: &dyn Stamp, entry: &Entry) -> Self {
        let bytes = [LINE, &self.hash.0, &canonical(entry)].concat();
        Self {
            number: entry.number,
            hash: stamp.digest(&bytes),
        }
    }
}

/// Lines that retention took away, all that were between two others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditGap)]
pub struct Gap {
    /// Number of the first of them.
    pub first: u64,
    /// Number of the last of them.
    pub last: u64,
    /// Hash of the line before them; zero when there was none.
    #[schema(value_type = String)]
    pub before: Hash,
    /// Hash of the last of them.
    #[schema(value_type = String)]
    pub after: Hash,
    /// All of this under the key of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub seal: Option<Hash>,
}

impl Gap {
    /// What its seal covers.
    pub fn digest(&self, stamp: &dyn Stamp) -> Hash {
        let (first, last) = (self.first.to_be_bytes(), self.last.to_be_bytes());
        stamp.digest(&[GAP, &first, &last, &self.before.0, &self.after.0].concat())
    }
}

/// The bytes of a line that its hash covers: every field with its length, so that nothing can move from one
/// to the next.
pub fn canonical(entry: &Entry) -> Vec<u8> {
    let Entry {
        number,
        at,
        actor,
        credential,
        credential_id,
        on_behalf,
        action,
        resource_kind,
        resource_id,
        resource_name,
        detail,
        before,
        after,
        message,
        address,
        door,
        request,
        outcome,
        hash: _,
        seal: _,
    } = entry;
    let raw = |part: &Option<Box<serde_json::value::RawValue>>| {
        part.as_ref().map(|part| part.get().as_bytes().to_vec())
    };
    let text = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec());
    let always = |text: &String| Some(text.as_bytes().to_vec());
    let fields = [
        always(actor),
        text(credential),
        text(credential_id),
        text(on_behalf),
        always(action),
        always(resource_kind),
        always(resource_id),
        always(resource_name),
        raw(detail),
        raw(before),
        raw(after),
        text(message),
        text(address),
        text(door),
        text(request),
        always(outcome),
    ];
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&at.as_millis().to_be_bytes());
    for field in fields {
        match field {
            None => bytes.push(0),
            Some(field) => {
                bytes.push(1);
                bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
                bytes.extend_from_slice(&field);
            }
        }
    }
    bytes
}

/// Where the chain does not hold.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, thiserror::Error,
)]
#[schema(as = AuditFlaw)]
#[error("line {number}: {what}")]
pub struct Flaw {
    /// Number of the first line that does not fit.
    pub number: u64,
    /// What is wrong with it.
    #[schema(example = "it was changed: its hash is another one than that of what stands there")]
    pub what: String,
}

impl Flaw {
    /// Something is wrong with the line of this number.
    pub fn new(number: u64, what: impl Into<String>) -> Self {
        Self {
            number,
            what: what.into(),
        }
    }
}

/// Goes along the chain, line by line.
#[derive(Debug)]
pub struct Checker<'a> {
    stamp: &'a dyn Stamp,
    /// From this line on the key of the stamp was used.
    since: u64,
    at: Link,
    /// Lines whose hash was right.
    pub lines: u64,
    /// Of these, those whose seal was right, too.
    pub sealed: u64,
}

impl<'a> Checker<'a> {
    /// Begins behind `at`; seals are looked at from line `since` on.
    pub fn new(stamp: &'a dyn Stamp, since: u64, at: Link) -> Self {
        Self {
            stamp,
            since,
            at,
            lines: 0,
            sealed: 0,
        }
    }

    /// How far it came.
    pub const fn at(&self) -> Link {
        self.at
    }

    /// The next lines, with what is missing between them, both in the order of their numbers.
    ///
    /// # Errors
    /// The [`Flaw`] that they show.
    pub fn page(&mut self, lines: &[Entry], gaps: &[Gap]) -> Result<(), Flaw> {
        let mut gaps = gaps.iter().peekable();
        for line in lines {
            while let Some(gap) = gaps.next_if(|gap| gap.first < line.number) {
                self.gap(gap)?;
            }
            self.line(line)?;
        }
        gaps.try_for_each(|gap| self.gap(gap))
    }

    /// The next line, in the order of numbers. Behind one that says what Vaxel found not to hold, it can go on.
    ///
    /// # Errors
    /// The [`Flaw`] that it shows, or tells of.
    pub fn line(&mut self, entry: &Entry) -> Result<(), Flaw> {
        let held = self.holds(entry);
        match told(entry) {
            // What it says is why it does not fit, if it does not.
            Some(what) if entry.number == self.at.number || held.is_err() => {
                Err(Flaw::new(entry.number, what))
            }
            _ => held,
        }
    }

    /// The same of the line as such, whatever it tells of.
    ///
    /// # Errors
    /// The [`Flaw`] that it shows.
    pub fn holds(&mut self, entry: &Entry) -> Result<(), Flaw> {
        let number = self.at.number.saturating_add(1);
        if entry.number != number {
            return Err(missing(number, entry.number));
        }
        let link = self.at.then(self.stamp, entry);
        if entry.hash != Some(link.hash) {
            let what = match entry.hash {
                Some(_) => {
                    "it was changed: its hash is another one than that of what stands there and of the line before"
                }
                None => "it has no hash: it was added past Vaxel",
            };
            return Err(Flaw::new(number, what));
        }
        if self.is_sealed(&link.hash, entry.seal.as_ref(), number)? {
            self.sealed += 1;
        }
        self.lines += 1;
        self.at = link;
        Ok(())
    }

    /// A gap between the line before and the next one. One that began earlier has grown meanwhile: what
    /// was checked has gone, too.
    ///
    /// # Errors
    /// The [`Flaw`] that it shows.
    pub fn gap(&mut self, gap: &Gap) -> Result<(), Flaw> {
        let number = self.at.number.saturating_add(1);
        if gap.first > number {
            return Err(missing(number, gap.first));
        }
        if gap.last < number {
            return Ok(());
        }
        if gap.first == number && gap.before != self.at.hash {
            let what = "it is said to be old and taken away, but the line before is another one than it was then";
            return Err(Flaw::new(number, what));
        }
        self.is_sealed(&gap.digest(self.stamp), gap.seal.as_ref(), gap.last)
            .map_err(|flaw| {
                let what = "it is said to be old and taken away, but Vaxel did not say so";
                Flaw::new(
                    number,
                    if flaw.number == gap.last {
                        what
                    } else {
                        &flaw.what
                    },
                )
            })?;
        self.at = Link {
            number: gap.last,
            hash: gap.after,
        };
        Ok(())
    }

    /// The end, which is said to be `head`.
    ///
    /// # Errors
    /// The [`Flaw`] that it shows.
    pub fn end(&self, head: &Link, seal: Option<&Hash>) -> Result<(), Flaw> {
        if head.number > self.at.number {
            return Err(missing(self.at.number + 1, head.number + 1));
        }
        if *head != self.at {
            let what =
                "it is newer than the last line that Vaxel knows of: it was added past Vaxel";
            return Err(Flaw::new(head.number + 1, what));
        }
        let sealed = self.is_sealed(&head.digest(self.stamp), seal, head.number);
        sealed.map(drop).map_err(|_| {
            let what = "it is said to be the newest one, but Vaxel did not say so";
            Flaw::new(head.number, what)
        })
    }

    fn is_sealed(&self, hash: &Hash, seal: Option<&Hash>, number: u64) -> Result<bool, Flaw> {
        if number < self.since {
            return Ok(false);
        }
        match self.stamp.seal(hash) {
            None => Ok(false),
            Some(right) if Some(&right) == seal => Ok(true),
            Some(_) => {
                let what = "its seal is not one of Vaxel: the line was written past it";
                Err(Flaw::new(number, what))
            }
        }
    }
}

/// What Vaxel found not to hold when it wrote this line.
fn told(entry: &Entry) -> Option<String> {
    let detail =
        || -> Option<serde_json::Value> { serde_json::from_str(entry.detail.as_ref()?.get()).ok() };
    match entry.action.as_str() {
        REWIND => {
            let detail = detail().unwrap_or_default();
            let [known, found] = ["expected", "found"].map(|part| &detail[part]["number"]);
            Some(format!(
                "the database had been put back to an earlier state when it was written: lines up to {known} were \
                 known, and those up to {found} were there"
            ))
        }
        BROKEN => {
            let why = detail().and_then(|detail| Some(detail["why"].as_str()?.to_owned()));
            Some(why.unwrap_or_else(|| "something was done to the audit past Vaxel".to_owned()))
        }
        _ => None,
    }
}

fn missing(from: u64, next: u64) -> Flaw {
    let what = match next.saturating_sub(from) {
        0 | 1 => "it is missing".to_owned(),
        count => format!(
            "it is missing, and so are the {} lines behind it",
            count - 1
        ),
    };
    Flaw::new(from, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{audit::AuditLine, principal::Principal, time::Timestamp};

    /// No real digest: enough to see what it covers.
    #[derive(Debug)]
    struct Toy(Option<u8>);

    impl Stamp for Toy {
        fn digest(&self, bytes: &[u8]) -> Hash {
            use std::hash::{DefaultHasher, Hasher};
            let mut all = [0; 32];
            for (at, part) in all.chunks_exact_mut(8).enumerate() {
                let mut digest = DefaultHasher::new();
                digest.write_usize(at);
                digest.write(bytes);
                part.copy_from_slice(&digest.finish().to_be_bytes());
            }
            Hash(all)
        }

        fn seal(&self, hash: &Hash) -> Option<Hash> {
            let key = self.0?;
            Some(self.digest(&[&[key], &hash.0[..]].concat()))
        }
    }

    const KEY: Toy = Toy(Some(7));

    fn lines(count: u64) -> Vec<Entry> {
        let mut at = Link::default();
        (1..=count)
            .map(|number| {
                let target = ("service", number.to_string(), "files".to_owned());
                let when = Timestamp::from_millis(number);
                let mut line = AuditLine::new(when, &Principal::system(), "service.update", target);
                line.detail = json!({ "version": number });
                let mut entry = line.entry(number).unwrap();
                at = at.then(&KEY, &entry);
                entry.hash = Some(at.hash);
                entry.seal = KEY.seal(&at.hash);
                entry
            })
            .collect()
    }

    fn head(lines: &[Entry]) -> Link {
        let last = lines.last().unwrap();
        Link {
            number: last.number,
            hash: last.hash.unwrap(),
        }
    }

    fn check(stamp: &Toy, lines: &[Entry], head: &Link) -> Result<u64, Flaw> {
        let mut checker = Checker::new(stamp, 1, Link::default());
        for line in lines {
            checker.line(line)?;
        }
        let seal = KEY.seal(&head.digest(&KEY));
        checker.end(head, seal.as_ref())?;
        Ok(checker.sealed)
    }

    fn gap(lines: &[Entry], first: usize, last: usize) -> Gap {
        let hash = |number: usize| match number {
            0 => Hash::default(),
            number => lines[number - 1].hash.unwrap(),
        };
        let mut gap = Gap {
            first: first as u64,
            last: last as u64,
            before: hash(first - 1),
            after: hash(last),
            seal: None,
        };
        gap.seal = KEY.seal(&gap.digest(&KEY));
        gap
    }

    #[test]
    fn a_chain_that_nobody_touched_holds() {
        let all = lines(5);
        assert_eq!(check(&KEY, &all, &head(&all)), Ok(5));
        assert_eq!(
            check(&Toy(None), &all, &head(&all)),
            Ok(0),
            "no key, no seals"
        );
    }

    #[test]
    fn what_is_missing_shows_at_its_number() {
        let all = lines(5);
        let without = |at: usize| {
            let mut some = all.clone();
            some.remove(at);
            check(&KEY, &some, &head(&all)).unwrap_err().number
        };
        assert_eq!((without(0), without(2), without(4)), (1, 3, 5));
        let added = head(&all[..4]);
        assert_eq!(check(&KEY, &all, &added).unwrap_err().number, 5);
    }

    #[test]
    fn a_chain_that_was_made_anew_is_not_sealed() {
        let all = lines(5);
        let mut forged = all.clone();
        let mut at = Link::default();
        for line in &mut forged {
            line.actor = "somebody else".to_owned();
            at = at.then(&Toy(None), line);
            line.hash = Some(at.hash);
        }
        assert!(check(&Toy(None), &forged, &head(&forged)).is_ok());
        assert_eq!(check(&KEY, &forged, &head(&forged)).unwrap_err().number, 1);
        let other = Toy(Some(8));
        assert_eq!(check(&other, &all, &head(&all)).unwrap_err().number, 1);
    }

    #[test]
    fn the_chain_goes_on_over_what_retention_took_and_over_nothing_else() {
        let all = lines(6);
        let over = |gap: &Gap| {
            let mut checker = Checker::new(&KEY, 1, Link::default());
            checker.line(&all[0])?;
            checker.gap(gap)?;
            checker.line(&all[4])
        };
        let good = gap(&all, 2, 4);
        assert_eq!(over(&good), Ok(()));
        assert_eq!(over(&gap(&all, 1, 4)), Ok(()), "it has grown meanwhile");
        let changed = |change: fn(&mut Gap)| {
            let mut gap = good;
            change(&mut gap);
            over(&gap).unwrap_err().number
        };
        assert_eq!(changed(|gap| gap.seal = None), 2);
        assert_eq!(changed(|gap| gap.before = Hash::default()), 2);
        assert_eq!(changed(|gap| gap.after = Hash::default()), 2);
        assert_eq!(changed(|gap| gap.first = 3), 2);
        assert_eq!(changed(|gap| gap.last = 3), 2);
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = KEY.digest(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Hash>(), Err(InvalidHash));
        }
    }

    proptest! {
        /// Nothing can move from one field to the next.
        #[test]
        fn other_lines_have_other_bytes(one in fields(), other in fields()) {
            prop_assert_eq!(one.0 == other.0, canonical(&one.1) == canonical(&other.1));
        }
    }

    fn fields() -> impl Strategy<Value = (Vec<Option<String>>, Entry)> {
        let text = proptest::option::of("[ab]{0,2}");
        proptest::collection::vec(text, 3).prop_map(|texts| {
            let mut entry = lines(1).remove(0);
            entry.message = texts[0].clone();
            entry.address = texts[1].clone();
            entry.door = texts[2].clone();
            (texts, entry)
        })
    }
}
