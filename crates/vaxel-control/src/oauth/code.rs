//! Codes: what goes through the browser, and is good once, for a minute, for the client that began.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use vaxel_auth::{
    digest,
    oauth::{endpoint::Endpoint, pkce::Challenge},
    random,
};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, SignIn, User},
    principal::Permissions,
    time::Timestamp,
};

use super::{Authorization, Browser};

/// How long a code is good.
pub(crate) const GOOD: Duration = Duration::from_mins(1);
/// How long it is known of one that was taken, so that a second use ends what the first one gave.
const KNOWN: Duration = Duration::from_mins(15);
/// Codes at once.
const MOST: usize = 10_000;
const LETTERS: usize = 43;

/// What a code stands for.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub(crate) client: String,
    pub(crate) name: String,
    pub(crate) redirect: String,
    pub(crate) challenge: Challenge,
    pub(crate) user: Id<User>,
    /// With which the user let it in: a code is not good for longer.
    pub(crate) sign_in: Id<SignIn>,
    pub(crate) endpoint: Endpoint,
    pub(crate) permissions: Permissions,
}

struct Kept {
    code: Code,
    made: Timestamp,
    taken: Option<Taken>,
}

struct Taken {
    by: Id<SignIn>,
    again: bool,
}

/// What became of a code that was shown.
#[derive(Debug)]
pub(crate) enum Shown {
    /// It is the first time.
    Taken(Box<Code>),
    /// It was taken before; this came of it.
    Again(Id<SignIn>),
    /// It is none, or was one once.
    Unknown,
}

#[derive(Default)]
pub(crate) struct Codes(Mutex<HashMap<[u8; 32], Kept>>);

impl Code {
    pub(crate) fn of(asked: &Authorization, browser: &Browser) -> Self {
        Self {
            client: asked.client.id.clone(),
            name: asked.client.name.clone(),
            redirect: asked.redirect.clone(),
            challenge: asked.challenge.clone(),
            user: browser.user.id,
            sign_in: browser.sign_in,
            endpoint: asked.endpoint.clone(),
            permissions: asked.permissions,
        }
    }
}

impl Codes {
    pub(crate) fn make(&self, code: Code, now: Timestamp) -> Result<String, Failure> {
        let text = random::token(LETTERS);
        let mut all = self.0.lock();
        if all.len() >= MOST {
            all.retain(|_, kept| {
                now.since(kept.made) < if kept.taken.is_some() { KNOWN } else { GOOD }
            });
        }
        if all.len() >= MOST {
            let detail = "Too many clients are being let in; try again in a minute";
            return Err(Failure::new(Kind::Busy, detail).retry_after(60));
        }
        let kept = Kept {
            code,
            made: now,
            taken: None,
        };
        all.insert(digest::sha256(text.as_bytes()), kept);
        Ok(text)
    }

    /// Takes a code for the sign-in `by`, whatever comes of it: nobody tries twice.
    pub(crate) fn take(&self, text: &str, by: Id<SignIn>, now: Timestamp) -> Shown {
        let mut all = self.0.lock();
        let Some(kept) = all.get_mut(&digest::sha256(text.as_bytes())) else {
            return Shown::Unknown;
        };
        if let Some(taken) = &mut kept.taken {
            taken.again = true;
            return Shown::Again(taken.by);
        }
        kept.taken = Some(Taken { by, again: false });
        if now.since(kept.made) >= GOOD {
            return Shown::Unknown;
        }
        Shown::Taken(Box::new(kept.code.clone()))
    }

    /// Whether a code was shown again since it was taken.
    pub(crate) fn came_again(&self, text: &str) -> bool {
        let all = self.0.lock();
        let kept = all.get(&digest::sha256(text.as_bytes()));
        kept.and_then(|kept| kept.taken.as_ref())
            .is_some_and(|taken| taken.again)
    }
}
