//! Passwords: how they are kept, checked and chosen.
//!
//! What is kept is an Argon2id hash (RFC 9106) in the PHC string format, which names its own parameters, so
//! that they can grow: a password that was kept with others is hashed anew when its user next signs in.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use vaxel_core::{failure::Issue, secret::Secret};
use zeroize::Zeroizing;

use crate::random;

/// How many characters a new password may have.
pub const LENGTH: std::ops::RangeInclusive<usize> = 12..=256;
/// Longest text that is hashed at all, bytes: the longest password in the widest letters.
const BYTES_MAX: usize = 4 * *LENGTH.end();

/// Memory in KiB, passes and lanes: what OWASP asks for at least; a fiftieth of a second.
const COST: Cost = Cost {
    memory: 19 << 10,
    passes: 2,
    lanes: 1,
};
/// What is believed of a stored hash.
const MOST: Cost = Cost {
    memory: 1 << 20,
    passes: 16,
    lanes: 16,
};
const SALT: usize = 16;
const HASH: usize = 32;

/// Passwords of twelve characters and more that are tried first everywhere.
const COMMON: &[&str] = &[
    "000000000000",
    "111111111111",
    "123123123123",
    "1234567890123",
    "123456789012",
    "1234567890ab",
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "abcdefghijkl",
    "abcd12345678",
    "adminadminadmin",
    "administrator",
    "administrator1",
    "changemechangeme",
    "correcthorsebatterystaple",
    "iloveyou1234",
    "letmeinletmein",
    "password1234",
    "password12345",
    "password123456",
    "passwordpassword",
    "qwerty123456",
    "qwertyuiop12",
    "qwertyuiop123",
    "qwertyqwerty",
    "qwertyuiopasdfghjkl",
    "welcome12345",
    "zxcvbnm12345",
];

/// What is kept of a password: `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept(String);

/// What a check of a password came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It is the password.
    Right {
        /// It was kept with other parameters than those of today: keep it anew.
        outdated: bool,
    },
    /// It is not, or there is none.
    Wrong,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory: u32,
    passes: u32,
    lanes: u32,
}

/// A kept password as it is read: its cost, salt and hash.
struct Parts {
    cost: Cost,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// Every reason why `password` cannot be the new one of the user called `name`.
pub fn problems(password: &str, name: &str) -> Vec<Issue> {
    let issue = |message: String| vec![Issue::new("password", message)];
    if !LENGTH.contains(&password.chars().count()) {
        let (least, most) = (LENGTH.start(), LENGTH.end());
        return issue(format!("must have {least} to {most} characters"));
    }
    let lower = password.to_lowercase();
    if lower == name.to_lowercase() {
        return issue("must not be the user's name".to_owned());
    }
    if COMMON.contains(&lower.as_str()) {
        return issue("is one of the passwords that are tried first: choose another".to_owned());
    }
    Vec::new()
}

impl Kept {
    /// What is kept of `password`, under new salt. Takes a fiftieth of a second and 19 MiB: not for threads
    /// that serve.
    pub fn of(password: &Secret<String>) -> Self {
        let salt = random::bytes::<SALT>();
        let hash = derive(password.expose(), &salt, COST, HASH)
            .expect("the parameters are within what Argon2 takes");
        let Cost {
            memory,
            passes,
            lanes,
        } = COST;
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(&*hash));
        Self(format!(
            "$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}"
        ))
    }

    /// What was stored.
    pub const fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text to be stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

/// Whether a stored text was made with other parameters than those of today.
pub fn is_outdated(stored: &str) -> bool {
    Parts::read(stored).is_some_and(|parts| parts.cost != COST)
}

/// Whether `password` is the one that `kept` was made of. Without one (no such user, no password) the same
/// work is done, so that nobody can tell by the time it takes. As slow as [`Kept::of`].
pub fn check(password: &Secret<String>, kept: Option<&Kept>) -> Check {
    let parts = kept.and_then(|kept| Parts::read(&kept.0));
    let is_real = parts.is_some() && password.expose().len() <= BYTES_MAX;
    let parts = parts.unwrap_or_else(|| Parts {
        cost: COST,
        salt: vec![0; SALT],
        hash: vec![0; HASH],
    });
    let text = password.expose();
    // What is longer is no password of anybody.
    let text = text
        .get(..text.floor_char_boundary(BYTES_MAX))
        .unwrap_or("");
    let derived = derive(text, &parts.salt, parts.cost, parts.hash.len());
    let is_same = derived.is_some_and(|derived| {
        constant_time::verify_slices_are_equal(&derived, &parts.hash).is_ok()
    });
    if is_same && is_real {
        Check::Right {
            outdated: parts.cost != COST,
        }
    } else {
        Check::Wrong
    }
}

fn derive(password: &str, salt: &[u8], cost: Cost, length: usize) -> Option<Zeroizing<Vec<u8>>> {
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(length)).ok()?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut hash = Zeroizing::new(vec![0; length]);
    argon
        .hash_password_into(password.as_bytes(), salt, &mut hash)
        .ok()?;
    Some(hash)
}

impl Parts {
    fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("$argon2id$v=19$")?;
        let mut parts = rest.split('$');
        let (cost, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let mut costs = cost.split(',');
        let mut number = |key: &str| costs.next()?.strip_prefix(key)?.parse::<u32>().ok();
        let cost = Cost {
            memory: number("m=")?,
            passes: number("t=")?,
            lanes: number("p=")?,
        };
        let is_bearable =
            cost.memory <= MOST.memory && cost.passes <= MOST.passes && cost.lanes <= MOST.lanes;
        let salt = STANDARD_NO_PAD.decode(salt).ok()?;
        let hash = STANDARD_NO_PAD.decode(hash).ok()?;
        let is_whole = parts.next().is_none() && costs.next().is_none();
        let is_long = (8..=64).contains(&salt.len()) && (16..=64).contains(&hash.len());
        (is_bearable && is_whole && is_long).then_some(Self { cost, salt, hash })
    }
}

#[cfg(test)]
mod tests;
