//! Programs without a browser (RFC 8628): a person types a short code elsewhere, and lets them.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use vaxel_auth::{
    digest,
    oauth::{endpoint::Endpoint, scope},
    random,
};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, SignIn, User},
    principal::Permissions,
    secret::Secret,
    time::Timestamp,
};
use vaxel_store::Delegation;

use super::{Browser, Client, OauthError, Presented, Tokens, limit::Limiter};
use crate::{control::Control, sign_in::Origin};

/// How long a person may take.
const LASTS: Duration = Duration::from_mins(10);
/// How often a program may ask.
const INTERVAL: Duration = Duration::from_secs(5);
const SOONEST: Duration = Duration::from_secs(4);
/// Programs that wait at once.
const MOST: usize = 1_000;
/// Wrong codes that one person may type within [`LASTS`].
const GUESSES: u32 = 20;
/// Letters of the short code: none that make words or look like others (RFC 8628 §6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const SHORT: usize = 8;

/// What a program is told.
pub struct DeviceStarted {
    /// Kept by the program.
    pub device_code: Secret<String>,
    /// Typed by the person: `BCDF-GHJK`.
    pub user_code: String,
    /// How long both are good.
    pub expires_in: Duration,
    /// How often to ask.
    pub interval: Duration,
}

/// A program that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Which client it says it is.
    pub client: Client,
    /// Where its tokens will be good.
    pub endpoint: Endpoint,
    /// What they will let through.
    pub permissions: Permissions,
    key: [u8; 32],
}

struct Device {
    waiting: Waiting,
    short: String,
    until: Timestamp,
    asked: Option<Timestamp>,
    answer: Answer,
}

/// What the person said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    Yes(Id<User>, Id<SignIn>),
    No,
}

#[derive(Default)]
pub(crate) struct Devices {
    known: Mutex<HashMap<[u8; 32], Device>>,
    guesses: Mutex<HashMap<Id<User>, (Timestamp, u32)>>,
    begun: Limiter,
}

/// Who said yes, with which sign-in.
type Decider = (Id<User>, Id<SignIn>);

impl Control {
    /// Begins the log-in of a program without a browser.
    ///
    /// # Errors
    /// [`OauthError`].
    pub async fn begin_device(
        &self,
        client: &Presented,
        (scope, resource): (Option<&str>, Option<&str>),
        (base, origin): (&str, Origin),
    ) -> Result<DeviceStarted, OauthError> {
        let devices = &self.inner.oauth.devices;
        let now = self.now();
        devices.begun.count(origin.address, now)?;
        let client = self.proven_client(client).await?;
        let unknown = || {
            OauthError::new(
                "invalid_target",
                "resource is no MCP endpoint of this server",
            )
        };
        let endpoint = self.endpoint_of(resource, base).ok_or_else(unknown)?;
        let permissions = scope::read(scope)
            .map_err(|error| OauthError::new("invalid_scope", error.to_string()))?;
        let (long, short) = (random::token(43), short_code());
        let key = digest::sha256(long.as_bytes());
        let waiting = Waiting {
            client,
            endpoint,
            permissions,
            key,
        };
        let mut all = devices.known.lock();
        all.retain(|_, one| now < one.until);
        if all.len() >= MOST {
            let detail = "Too many programs wait to be let in; try again in some minutes";
            return Err(Failure::new(Kind::Busy, detail).retry_after(60).into());
        }
        let user_code = format!("{}-{}", &short[..SHORT / 2], &short[SHORT / 2..]);
        all.insert(
            key,
            Device {
                waiting,
                short,
                until: now.plus(LASTS),
                asked: None,
                answer: Answer::None,
            },
        );
        Ok(DeviceStarted {
            device_code: Secret::new(long),
            user_code,
            expires_in: LASTS,
            interval: INTERVAL,
        })
    }

    /// The program that shows this short code.
    ///
    /// # Errors
    /// `NotFound` when none does; `Busy` for who tries too many.
    pub fn waiting_device(&self, browser: &Browser, typed: &str) -> Result<Waiting, Failure> {
        let devices = &self.inner.oauth.devices;
        let now = self.now();
        let typed: String = typed.chars().filter(char::is_ascii_alphabetic).collect();
        let typed = typed.to_ascii_uppercase();
        {
            let mut guesses = devices.guesses.lock();
            guesses.retain(|_, (since, _)| now.since(*since) < LASTS);
            if guesses
                .get(&browser.user.id)
                .is_some_and(|(_, times)| *times >= GUESSES)
            {
                let detail = "Too many codes were wrong; try again in ten minutes";
                return Err(Failure::new(Kind::Busy, detail).retry_after(600));
            }
        }
        let all = devices.known.lock();
        let found = all
            .values()
            .find(|one| one.short == typed && now < one.until && one.answer == Answer::None);
        if let Some(found) = found {
            return Ok(found.waiting.clone());
        }
        devices
            .guesses
            .lock()
            .entry(browser.user.id)
            .or_insert((now, 0))
            .1 += 1;
        Err(not_waiting())
    }

    /// The person decides about this program, this once: nobody proved which client it is.
    ///
    /// # Errors
    /// `NotFound` when it waits no more; those of the store.
    pub async fn decide_device(
        &self,
        browser: &Browser,
        waiting: &Waiting,
        allows: bool,
    ) -> Result<(), Failure> {
        if allows {
            let given = (&waiting.endpoint, waiting.permissions);
            let audit = self.consent_line(&browser.user, &waiting.client, given);
            self.store().audit(audit).await?;
        }
        let now = self.now();
        let mut all = self.inner.oauth.devices.known.lock();
        let device = all
            .get_mut(&waiting.key)
            .filter(|one| now < one.until && one.answer == Answer::None);
        device.ok_or_else(not_waiting)?.answer = if allows {
            Answer::Yes(browser.user.id, browser.sign_in)
        } else {
            Answer::No
        };
        Ok(())
    }

    /// Tokens for a program that waited.
    ///
    /// # Errors
    /// [`OauthError`]: `authorization_pending` until the person has decided.
    pub async fn tokens_for_device(
        &self,
        client: &Presented,
        code: &str,
        origin: Origin,
    ) -> Result<Tokens, OauthError> {
        let client = self.proven_client(client).await?;
        let ((user, by), waiting) = self.decided(&client, code)?;
        let delegation = Delegation {
            client: waiting.client.id,
            name: waiting.client.name,
            endpoint: waiting.endpoint.path().to_owned(),
            permissions: waiting.permissions,
        };
        let id = Id::new(self.now());
        self.delegate((id, user, by), (delegation, "device"), origin)
            .await
    }

    /// Takes the answer, once: who said yes, with which sign-in, to what.
    fn decided(&self, client: &Client, code: &str) -> Result<(Decider, Waiting), OauthError> {
        let key = digest::sha256(code.as_bytes());
        let now = self.now();
        let mut all = self.inner.oauth.devices.known.lock();
        let device = all
            .get_mut(&key)
            .filter(|one| one.waiting.client.id == client.id);
        let Some(device) = device else {
            return Err(OauthError::new(
                "invalid_grant",
                "the device_code is not known here",
            ));
        };
        if now >= device.until {
            all.remove(&key);
            return Err(OauthError::new(
                "expired_token",
                "nobody let the program in within ten minutes",
            ));
        }
        let user = match device.answer {
            Answer::None => {
                let is_early = device.asked.is_some_and(|asked| now.since(asked) < SOONEST);
                device.asked = Some(now);
                return Err(if is_early {
                    OauthError::new("slow_down", "ask every five seconds")
                } else {
                    OauthError::new("authorization_pending", "nobody has let the program in yet")
                });
            }
            Answer::Yes(user, by) => Ok((user, by)),
            Answer::No => Err(OauthError::new("access_denied", "the user said no")),
        };
        let waiting = device.waiting.clone();
        all.remove(&key);
        Ok((user?, waiting))
    }
}

fn not_waiting() -> Failure {
    let detail = "No program shows this code now: look again, or begin anew there";
    Failure::new(Kind::NotFound, detail)
}

fn short_code() -> String {
    // 240 = 12 × 20: larger bytes are thrown away, so that every letter is equally likely.
    let draws = std::iter::repeat_with(|| random::bytes::<1>()[0]).filter(|byte| *byte < 240);
    let letters = draws.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    letters.take(SHORT).collect()
}
