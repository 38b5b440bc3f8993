//! Ids: UUID version 7 (RFC 9562 §5.7), so that they sort by the time of creation, typed by what they name.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::time::Timestamp;

/// Identifies one `T`. Two ids of different kinds never compare.
pub struct Id<T> {
    raw: Uuid,
    kind: PhantomData<fn() -> T>,
}

/// Marker of [`Id`]: a service.
pub enum Service {}
/// Marker of [`Id`]: a set.
pub enum Toolset {}
/// Marker of [`Id`]: an API key.
pub enum Key {}
/// Marker of [`Id`]: a user: a person or a program.
pub enum User {}
/// Marker of [`Id`]: what begins when a user signs in, and holds until it ends.
pub enum SignIn {}
/// Marker of [`Id`]: a grant.
pub enum Grant {}
/// Marker of [`Id`]: a policy.
pub enum Policy {}
/// Marker of [`Id`]: one call, from its arrival to the end of its answer.
pub enum Call {}
/// Marker of [`Id`]: a sealed value.
pub enum SecretValue {}
/// Marker of [`Id`]: one legacy session of a client.
pub enum Session {}

/// A text that is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct InvalidId(String);

impl<T> Id<T> {
    /// Of nothing: what stands for an id that cannot be read.
    pub const NIL: Self = Self::from_uuid(Uuid::nil());

    /// A new id; the random part comes from the process-wide generator of the `uuid` crate.
    pub fn new(now: Timestamp) -> Self {
        let millis = now.as_millis();
        let at = uuid::Timestamp::from_unix(
            uuid::NoContext,
            millis / 1_000,
            u32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000,
        );
        Self::from_uuid(Uuid::new_v7(at))
    }

    /// Wraps a UUID that was read from storage.
    pub const fn from_uuid(raw: Uuid) -> Self {
        Self {
            raw,
            kind: PhantomData,
        }
    }

    /// From sixteen bytes that were read from storage.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self::from_uuid)
    }

    /// When it was made, to the millisecond.
    pub fn created_at(&self) -> Timestamp {
        let (seconds, nanos) = self.raw.get_timestamp().map_or((0, 0), |at| at.to_unix());
        Timestamp::from_millis(seconds * 1_000 + u64::from(nanos / 1_000_000))
    }

    /// The sixteen bytes, for contexts and keys.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.raw.as_bytes()
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.raw.cmp(&other.raw)
    }
}
impl<T> std::hash::Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.raw.hash(state);
    }
}
impl<T> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.hyphenated().fmt(f)
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl<T> FromStr for Id<T> {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text)
            .map(Self::from_uuid)
            .map_err(|_| InvalidId(text.to_owned()))
    }
}
impl<T> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}
impl<'de, T> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_survive_their_text_form() {
        let early: Id<Service> = Id::new(Timestamp::from_millis(1_000));
        let late: Id<Service> = Id::new(Timestamp::from_millis(2_000));
        assert!(early < late);
        assert_eq!(late.created_at(), Timestamp::from_millis(2_000));
        assert_eq!(early.to_string().parse(), Ok(early));
        assert!("nonsense".parse::<Id<Service>>().is_err());
    }
}
