//! The audit as a file: a head, lines with what is missing between them, and an end; each one a line of JSON.

use serde::{Deserialize, Serialize};

use super::{
    Entry,
    chain::{Checker, Flaw, Gap, Link},
};
use crate::time::Timestamp;

/// The form of such files.
pub const FORM: u32 = 1;

/// What a file begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`FORM`].
    pub vaxel_audit: u32,
    /// Version of the Vaxel that wrote it.
    pub version: String,
    /// When.
    pub at: Timestamp,
    /// The link before the first line.
    pub after: Link,
    /// What lines are sealed with, sealed itself.
    pub keys: Vec<SealedKey>,
}

/// A key that only its installation can open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The first line that it sealed.
    pub since: u64,
    /// The key.
    pub sealed: String,
}

/// What a file ends with: one without it was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The last link.
    pub end: Link,
    /// Whether there were no later lines when it was written.
    pub is_newest: bool,
}

/// What is missing between two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// It.
    pub gap: Gap,
}

/// A line of such a file.
#[derive(Debug, Clone)]
pub enum Record {
    /// The first one.
    Head(Head),
    /// A line of the audit.
    Line(Box<Entry>),
    /// Lines that are gone.
    Gap(Gap),
    /// The last one.
    End(End),
}

impl Record {
    /// Reads a line of a file.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(line: &str) -> Result<Self, serde_json::Error> {
        if line.starts_with("{\"vaxel_audit\"") {
            return serde_json::from_str(line).map(Self::Head);
        }
        if line.starts_with("{\"gap\"") {
            let missing: Missing = serde_json::from_str(line)?;
            return Ok(Self::Gap(missing.gap));
        }
        if line.starts_with("{\"end\"") {
            return serde_json::from_str(line).map(Self::End);
        }
        serde_json::from_str(line).map(|entry| Self::Line(Box::new(entry)))
    }

    /// Checks what follows the head; whether it was the end.
    ///
    /// # Errors
    /// The [`Flaw`] that it shows.
    pub fn check(&self, checker: &mut Checker<'_>) -> Result<bool, Flaw> {
        match self {
            Self::Line(entry) => checker.line(entry)?,
            Self::Gap(gap) => checker.gap(gap)?,
            Self::Head(_) => {
                let number = checker.at().number + 1;
                return Err(Flaw::new(
                    number,
                    "another export begins before this one ends",
                ));
            }
            Self::End(end) => {
                let at = checker.at();
                if end.end != at {
                    return Err(Flaw::new(
                        at.number + 1,
                        "it is missing: the export had more lines",
                    ));
                }
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            AuditLine,
            chain::{Hash, Stamp},
        },
        principal::Principal,
    };

    #[derive(Debug)]
    struct Same;

    impl Stamp for Same {
        fn digest(&self, bytes: &[u8]) -> Hash {
            Hash([u8::try_from(bytes.len() % 256).unwrap_or(0); 32])
        }

        fn seal(&self, _: &Hash) -> Option<Hash> {
            None
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_one_that_was_cut_off_shows() {
        let at = Timestamp::from_millis(5);
        let target = ("key", String::new(), "end".to_owned());
        let line = AuditLine::new(at, &Principal::system(), "key.create", target);
        let mut entry = line.entry(1).unwrap();
        let link = Link::default().then(&Same, &entry);
        entry.hash = Some(link.hash);
        let end = End {
            end: link,
            is_newest: true,
        };
        let head = Head {
            vaxel_audit: FORM,
            version: "1".to_owned(),
            at,
            after: Link::default(),
            keys: Vec::new(),
        };
        let read = |text: String| Record::read(&text).unwrap();
        assert!(matches!(read(head.json()), Record::Head(found) if found == head));
        let mut checker = Checker::new(&Same, 1, Link::default());
        let early = read(end.json()).check(&mut checker).unwrap_err();
        assert_eq!(early.number, 1);
        assert_eq!(read(entry.json()).check(&mut checker), Ok(false));
        assert_eq!(read(end.json()).check(&mut checker), Ok(true));
        assert!(Record::read("{\"number\":1}").is_err());
    }

    trait Json {
        fn json(&self) -> String;
    }
    impl<T: Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}
