//! Access tokens of this server: what they say, and their check on the way of every request.
//!
//! A token says who, from which sign-in, until when and for which server; what its user may do is looked up.
//! One that was good once is known again by its SHA-256 until it expires, so that its signature is checked
//! once. The ends of sign-ins are looked up each time: who is signed out is refused at once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use serde_json::{Map, Value, json};
use vaxel_core::{
    id::{Id, SignIn, User},
    principal::Permissions,
    rights::Limits,
    time::Timestamp,
};

use crate::{
    digest,
    failure::Error,
    jwks::KeySet,
    jwt::{self, Refused, Rules, Signer},
    oauth::{endpoint::Endpoint, scope},
    random,
};

/// How long an access token is good.
pub const LIFETIME: Duration = Duration::from_mins(15);
/// The type of access tokens (RFC 9068 §2.1).
const TYPE: &str = "at+jwt";
/// Tokens that are remembered, in each of so many parts, so that few requests meet.
const PARTS: usize = 16;
const SEEN_MAX: usize = 1_024;

/// Most sets of permissions that are shared.
const LIMITS_MAX: usize = 1_000;

/// Whom an access token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The user.
    pub user: Id<User>,
    /// The sign-in that it came from.
    pub sign_in: Id<SignIn>,
    /// Until when it is good.
    pub expires_at: Timestamp,
    /// What its user left to a client, when it is a client's.
    pub delegated: Option<Delegated>,
}

/// What a user left to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// Where the token is good.
    pub endpoint: Arc<Endpoint>,
    /// What it lets through; the same value for tokens that let the same through.
    pub limits: Arc<Limits>,
}

/// What an access token is made of.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// This server, as its callers name it: issuer and audience.
    pub server: &'a str,
    /// Whom it stands for.
    pub user: Id<User>,
    /// The user's name; for people and programs that read it.
    pub name: &'a str,
    /// The sign-in that it comes from.
    pub sign_in: Id<SignIn>,
    /// Names of the user's roles; they decide nothing here.
    pub roles: &'a [String],
    /// Which client it is for, where, and what it lets through; absent: for the user, everywhere, everything.
    pub delegation: Option<(&'a str, &'a Endpoint, Permissions)>,
}

/// Checks access tokens of this server. An immutable value, but for what it remembers: it is replaced when
/// keys or ended sign-ins change.
#[derive(Debug)]
pub struct Verifier {
    keys: KeySet,
    rules: Rules,
    ended: HashSet<Id<SignIn>>,
    limits: RwLock<HashMap<u32, Arc<Limits>>>,
    seen: [RwLock<HashMap<[u8; 32], Bearer>>; PARTS],
}

/// An access token, from `now` on.
///
/// # Errors
/// [`Error::Unsignable`].
pub fn issue(signer: &Signer, grant: &Grant<'_>, now: Timestamp) -> Result<String, Error> {
    let seconds = |at: Timestamp| at.as_millis() / 1_000;
    let mut claims = json!({
        "iss": grant.server,
        "aud": grant.server,
        "sub": grant.user,
        "sid": grant.sign_in,
        "username": grant.name,
        "roles": grant.roles,
        "iat": seconds(now),
        "nbf": seconds(now),
        "exp": seconds(now.plus(LIFETIME)),
        "jti": random::token(16),
    });
    if let Some((client, endpoint, permissions)) = grant.delegation {
        claims["aud"] = endpoint.address(grant.server).into();
        claims["client_id"] = client.into();
        claims["scope"] = scope::text(permissions).into();
    }
    let claims = claims.as_object().ok_or(Error::Unsignable)?;
    signer.sign(TYPE, claims)
}

impl Default for Verifier {
    /// Knows no key: every token is refused.
    fn default() -> Self {
        Self::new(KeySet::default(), "", HashSet::new())
    }
}

impl Verifier {
    /// Checks tokens of `server` with `keys`. `ended` are the sign-ins that ended while tokens of theirs may
    /// still be good, which is no longer than [`LIFETIME`] and [`jwt::LEEWAY`].
    pub fn new(keys: KeySet, server: &str, ended: HashSet<Id<SignIn>>) -> Self {
        Self {
            keys,
            rules: Rules {
                issuer: server.to_owned(),
                audiences: vec![server.to_owned()],
                below: true,
                types: &[TYPE],
            },
            ended,
            limits: RwLock::default(),
            seen: Default::default(),
        }
    }

    /// Whom `token` stands for.
    ///
    /// On the way of every request: of a token that was seen before, a digest and two look-ups.
    ///
    /// # Errors
    /// [`Refused`], to be shown to the caller.
    pub fn check(&self, token: &str, now: Timestamp) -> Result<Bearer, Refused> {
        if token.len() > jwt::LONGEST {
            return Err(Refused::Malformed);
        }
        let digest = digest::sha256(token.as_bytes());
        let part = &self.seen[usize::from(digest[0]) % PARTS];
        let seen = part.read().get(&digest).cloned();
        let bearer = match seen {
            Some(bearer) if now < bearer.expires_at => bearer,
            Some(_) => return Err(Refused::Expired),
            None => {
                let bearer = self.read(token, now)?;
                remember(&mut part.write(), digest, bearer.clone(), now);
                bearer
            }
        };
        if self.ended.contains(&bearer.sign_in) {
            return Err(Refused::Ended);
        }
        Ok(bearer)
    }

    fn read(&self, token: &str, now: Timestamp) -> Result<Bearer, Refused> {
        let verified = jwt::verify(token, &self.keys, &self.rules, now)?;
        let text = |name| verified.claims.get(name).and_then(Value::as_str);
        let user = text("sub").and_then(|text| text.parse().ok());
        let sign_in = text("sid").and_then(|text| text.parse().ok());
        Ok(Bearer {
            user: user.ok_or(Refused::Lacks("sub"))?,
            sign_in: sign_in.ok_or(Refused::Lacks("sid"))?,
            expires_at: verified.expires_at,
            delegated: self.delegated(&verified.claims)?,
        })
    }

    /// What was left to a client. A token without a client's name must be for this server itself.
    fn delegated(&self, claims: &Map<String, Value>) -> Result<Option<Delegated>, Refused> {
        let text = |name| claims.get(name).and_then(Value::as_str);
        let audience = text("aud").ok_or(Refused::Audience)?;
        let path = self
            .rules
            .audiences
            .iter()
            .find_map(|ours| audience.strip_prefix(ours.as_str()));
        let path = path.ok_or(Refused::Audience)?;
        if text("client_id").is_none() {
            return if path.is_empty() {
                Ok(None)
            } else {
                Err(Refused::Audience)
            };
        }
        let endpoint = Endpoint::at(path).ok_or(Refused::Audience)?;
        let permissions = scope::read(text("scope")).map_err(|_| Refused::Lacks("scope"))?;
        Ok(Some(Delegated {
            endpoint: Arc::new(endpoint),
            limits: self.limits_of(permissions),
        }))
    }

    /// Shared, so that what is kept per limits is kept once.
    fn limits_of(&self, permissions: Permissions) -> Arc<Limits> {
        if let Some(limits) = self.limits.read().get(&permissions.bits()) {
            return Arc::clone(limits);
        }
        let mut all = self.limits.write();
        if all.len() >= LIMITS_MAX {
            all.clear();
        }
        let limits = all.entry(permissions.bits()).or_insert_with(|| {
            Arc::new(Limits {
                permissions,
                services: None,
                environments: None,
            })
        });
        Arc::clone(limits)
    }
}

/// When there are too many, those that expired are forgotten, or else all: they are only checked again.
fn remember(
    seen: &mut HashMap<[u8; 32], Bearer>,
    digest: [u8; 32],
    bearer: Bearer,
    now: Timestamp,
) {
    if seen.len() >= SEEN_MAX {
        seen.retain(|_, one| now < one.expires_at);
    }
    if seen.len() >= SEEN_MAX {
        seen.clear();
    }
    seen.insert(digest, bearer);
}

#[cfg(test)]
mod tests;
