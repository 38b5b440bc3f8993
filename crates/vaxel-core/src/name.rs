//! Names: parsed once at the door, trusted inside.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest service name: with `__` and a tool of its own it must fit the 50 characters that clients
/// and model APIs leave for an exposed tool name.
pub const SERVICE_NAME_MAX: usize = 32;

/// Longest name of a user: an address of mail fits.
pub const USER_NAME_MAX: usize = 100;

/// Names of endpoints under `/mcp/`, which no service can have.
const RESERVED: &[&str] = &["sets"];

/// What others wrote, for people: without letters that break a line or steer a terminal, at most so many.
pub fn printable(text: &str, most: usize) -> String {
    let letters = text.chars().filter(|letter| !letter.is_control());
    letters.take(most).collect()
}

/// The name of a service: `[a-z0-9]` first, then `[a-z0-9_-]`, at most [`SERVICE_NAME_MAX`]
/// characters, no `__` (it joins service and tool in exposed names), not a reserved word.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// The name of a set, under which it is served at `/mcp/sets/`: the same grammar as a
/// [`ServiceName`]'s. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolsetName(Arc<str>);

/// The name of a user, which is also what it signs in with: lower-case letters, digits and `.`, `_`, `-`,
/// `+`, `@`, at most [`USER_NAME_MAX`] characters. It never changes and is never given to another one:
/// what belongs to a user is found by it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

/// The name of a role: the same grammar as a [`ServiceName`]'s. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(Arc<str>);

/// The name of a policy: the same grammar as a [`ServiceName`]'s. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(Arc<str>);

/// A text that is no name of that kind, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what} name: {reason}")]
pub struct InvalidName {
    text: String,
    what: &'static str,
    reason: &'static str,
}

impl ServiceName {
    /// The closest valid name to an arbitrary one, such as a key in a client's configuration:
    /// lower case, every run of other characters one `-`. `None` when nothing is left.
    pub fn closest(text: &str) -> Option<Self> {
        let mut name = String::new();
        for letter in text.chars().flat_map(char::to_lowercase) {
            let kept = matches!(letter, 'a'..='z' | '0'..='9')
                || (letter == '_' && !name.is_empty() && !name.ends_with(['_', '-']));
            if kept {
                name.push(letter);
            } else if !name.is_empty() && !name.ends_with(['_', '-']) {
                name.push('-');
            }
        }
        name.truncate(SERVICE_NAME_MAX);
        name.trim_end_matches(['-', '_']).parse().ok()
    }

    /// The shared text, for maps that are keyed by it.
    pub const fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl UserName {
    /// The shared text.
    pub const fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

fn problem_of_user(text: &str) -> Option<&'static str> {
    let allowed = |byte: u8| {
        let letter = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        letter || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'@')
    };
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > USER_NAME_MAX {
        return Some("it is longer than 100 characters");
    }
    if !text.bytes().all(allowed) {
        return Some("only a-z, 0-9 and `.`, `_`, `-`, `+`, `@` are allowed");
    }
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Some("it must start with a letter or digit");
    }
    None
}

fn problem(text: &str) -> Option<&'static str> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > SERVICE_NAME_MAX {
        return Some("it is longer than 32 characters");
    }
    if !text.bytes().all(allowed) {
        return Some("only a-z, 0-9, `-` and `_` are allowed");
    }
    if text.starts_with(['-', '_']) || text.ends_with(['-', '_']) {
        return Some("it must start and end with a letter or digit");
    }
    if text.contains("__") {
        return Some("`__` separates service and tool in exposed names");
    }
    if RESERVED.contains(&text) {
        return Some("the word is reserved for an endpoint");
    }
    None
}

macro_rules! is_a_name {
    ($name:ident, $what:literal, $problem:path) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match $problem(text) {
                    None => Ok(Self(text.into())),
                    Some(reason) => Err(InvalidName {
                        text: text.chars().take(80).collect(),
                        what: $what,
                        reason,
                    }),
                }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

is_a_name!(ServiceName, "service", problem);
is_a_name!(ToolsetName, "set", problem);
is_a_name!(RoleName, "role", problem);
is_a_name!(PolicyName, "policy", problem);
is_a_name!(UserName, "user", problem_of_user);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_confuse_routing_are_refused() {
        for bad in [
            "",
            "a__b",
            "sets",
            "-a",
            "a-",
            "_a",
            "Upper",
            "ü",
            &"x".repeat(33),
        ] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
        for good in ["a", "files", "my-server_2", "0"] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
    }

    proptest! {
        #[test]
        fn the_closest_name_is_always_a_name(text in ".{0,60}") {
            if let Some(name) = ServiceName::closest(&text) {
                prop_assert!(name.as_str().parse::<ServiceName>().is_ok());
            }
        }
    }

    #[test]
    fn the_closest_name_is_what_a_person_would_choose() {
        let closest = |text| ServiceName::closest(text).map(|name| name.to_string());
        assert_eq!(closest("My Server").as_deref(), Some("my-server"));
        assert_eq!(closest("@scope/pkg__x").as_deref(), Some("scope-pkg_x"));
        assert_eq!(closest("日本"), None);
    }
}
