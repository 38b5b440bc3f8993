//! Browsers in which somebody signed in. A sign-in as any other stands behind each: when that ends, so does this.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use vaxel_auth::{digest, random};
use vaxel_core::{
    failure::Failure,
    id::{Id, SignIn, User},
    secret::Secret,
    time::Timestamp,
    user::UserResource,
};

use crate::{
    control::Control,
    sign_in::{Credentials, Origin},
};

/// How long somebody who signed in need not do so again.
pub(crate) const LASTS: Duration = Duration::from_hours(12);
/// Browsers at once; the oldest makes room.
const MOST: usize = 10_000;
/// Letters of what the browser keeps.
const LETTERS: usize = 40;

/// Somebody who signed in with a browser.
#[derive(Debug, Clone)]
pub struct Browser {
    /// Who.
    pub user: UserResource,
    /// The sign-in.
    pub sign_in: Id<SignIn>,
}

#[derive(Default)]
pub(crate) struct Browsers(Mutex<HashMap<[u8; 32], Known>>);

#[derive(Clone, Copy)]
struct Known {
    user: Id<User>,
    sign_in: Id<SignIn>,
    until: Timestamp,
    /// Programs at other ports of this host have seen its cookie: it lets nobody in any more.
    is_shown: bool,
}

impl Browsers {
    fn add(&self, known: Known, now: Timestamp) -> Secret<String> {
        let text = random::token(LETTERS);
        let mut all = self.0.lock();
        if all.len() >= MOST {
            all.retain(|_, one| now < one.until);
        }
        if all.len() >= MOST
            && let Some(oldest) = all
                .iter()
                .min_by_key(|(_, one)| one.until)
                .map(|(key, _)| *key)
        {
            all.remove(&oldest);
        }
        all.insert(digest::sha256(text.as_bytes()), known);
        Secret::new(text)
    }
}

impl Control {
    /// Signs somebody in with a browser: what the browser keeps.
    ///
    /// # Errors
    /// Those of [`Control::sign_in`].
    pub async fn sign_in_browser(
        &self,
        credentials: Credentials,
        origin: Origin,
    ) -> Result<Secret<String>, Failure> {
        let signed_in = self.sign_in_for(credentials, origin, LASTS).await?;
        let now = self.now();
        let known = Known {
            user: signed_in.user.id,
            sign_in: signed_in.id,
            until: now.plus(LASTS),
            is_shown: false,
        };
        Ok(self.inner.oauth.browsers.add(known, now))
    }

    /// Who signed in with the browser that keeps `cookie`; nobody when that is over, or others saw the cookie.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn browser(&self, cookie: &str) -> Result<Option<Browser>, Failure> {
        let key = digest::sha256(cookie.as_bytes());
        let known = self.inner.oauth.browsers.0.lock().get(&key).copied();
        match known.filter(|known| !known.is_shown) {
            Some(known) => self.person_at(key, known).await,
            None => Ok(None),
        }
    }

    /// The same for the way to a service of somebody else and back, which lets nobody in: also when others saw the
    /// cookie.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn browser_on_its_way(&self, cookie: &str) -> Result<Option<Browser>, Failure> {
        let key = digest::sha256(cookie.as_bytes());
        let known = self.inner.oauth.browsers.0.lock().get(&key).copied();
        match known {
            Some(known) => self.person_at(key, known).await,
            None => Ok(None),
        }
    }

    /// The browser goes to a program that sees its cookie, and comes back: from now on that lets nobody in.
    pub fn browser_is_shown(&self, cookie: &str) {
        let key = digest::sha256(cookie.as_bytes());
        if let Some(known) = self.inner.oauth.browsers.0.lock().get_mut(&key) {
            known.is_shown = true;
        }
    }

    /// The browser goes to a program that sees its cookie: from now on that is nothing. Codes that were given
    /// are good as long as the sign-in.
    pub fn forget_browser(&self, cookie: &str) {
        let key = digest::sha256(cookie.as_bytes());
        self.inner.oauth.browsers.0.lock().remove(&key);
    }

    async fn person_at(&self, key: [u8; 32], known: Known) -> Result<Option<Browser>, Failure> {
        if self.now() >= known.until {
            return Ok(None);
        }
        let row = self.store().sign_in(known.sign_in).await?;
        let holds = row.is_some_and(|row| row.ended_at.is_none());
        let person = self.inner.people.with_id(known.user).filter(|_| holds);
        if person.is_none() {
            self.inner.oauth.browsers.0.lock().remove(&key);
        }
        Ok(person.map(|person| Browser {
            user: person.user,
            sign_in: known.sign_in,
        }))
    }

    /// Ends what a browser's sign-in is.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sign_out_browser(&self, cookie: &str) -> Result<(), Failure> {
        let Some(browser) = self.browser(cookie).await? else {
            return Ok(());
        };
        self.forget_browser(cookie);
        self.end_quietly(&browser.user, (browser.sign_in, "user.sign_out"))
            .await
    }
}
