//! Credential → principal.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, HeaderName, header};
use vaxel_auth::{
    bearer::Verifier,
    jwt,
    key::{KeyRing, Refused, StoredKey},
    visitor::Visitors,
};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, SignIn, User},
    principal::Principal,
    rights::Limits,
    time::Timestamp,
};

/// A principal that a key leads to, and when the key was last used.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// Milliseconds since the epoch; 0 when it was not used since the start.
    pub last_used: AtomicU64,
}

/// Who may come with an access token of this server, as an immutable value that is swapped whole.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Says whom a token stands for.
    pub verifier: Arc<Verifier>,
    /// Users by their ids; those who are disabled or gone are not here.
    pub users: HashMap<Id<User>, Arc<Caller>>,
    /// The same of tokens of another issuer, where one is configured.
    pub visitors: Option<Arc<Visitors>>,
    /// Users by their names, for those.
    pub names: HashMap<Arc<str>, Arc<Caller>>,
}

impl Tokens {
    /// Who comes with a token to a path.
    fn find(&self, token: &str, path: &str, now: Timestamp) -> Result<Found<'_>, Failure> {
        let refused = |why: &dyn std::fmt::Display| {
            let detail = format!("Refused: the token is not good here: {why}; sign in again");
            Failure::new(Kind::Unauthenticated, detail)
        };
        let visitor = self.visitors.as_ref().and_then(|all| all.check(token, now));
        let (user, delegated) = if let Some(visitor) = visitor {
            let visitor = visitor.map_err(|error| refused(&error))?;
            (self.names.get(&visitor.user), Some(visitor.delegated))
        } else {
            let bearer = self.verifier.check(token, now);
            let bearer = bearer.map_err(|error| refused(&error))?;
            (self.users.get(&bearer.user), bearer.delegated)
        };
        let user = user.ok_or_else(|| refused(&"its user is not known here, disabled or gone"))?;
        let Some(delegated) = delegated else {
            return Ok((user, None));
        };
        if !delegated.endpoint.covers(path) {
            let detail = format!("it is for {} and nothing else", delegated.endpoint.path());
            return Err(refused(&detail));
        }
        Ok((user, Some(delegated.limits)))
    }
}

/// Whom a credential leads to, and what it is limited to besides.
type Found<'a> = (&'a Arc<Caller>, Option<Arc<Limits>>);

/// An alternative to `Authorization` that some clients can set more easily.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Who makes a request to `path`, by the key or token that comes with it.
pub(crate) fn authenticate(
    (headers, path): (&HeaderMap, &str),
    (keys, tokens): (&KeyRing<Arc<Caller>>, &Tokens),
    now: Timestamp,
) -> Result<Principal, Failure> {
    let key = presented(headers).ok_or_else(|| {
        Failure::new(
            Kind::Unauthenticated,
            "This server needs a key: send `Authorization: Bearer <key>`; \
             `vaxel key create NAME` makes one",
        )
    })?;
    let found = if jwt::looks_like(key) {
        Ok(tokens.find(key, path, now)?)
    } else {
        keys.find(key, now).map(|caller| (caller, None))
    };
    match found {
        Ok((caller, limits)) => {
            caller.last_used.store(now.as_millis(), Ordering::Relaxed);
            let principal = caller.principal.clone();
            Ok(match limits {
                None => principal,
                limits => {
                    Principal::of_user((principal.proof, principal.name), principal.rights, limits)
                }
            })
        }
        Err(refused) => Err(Failure::new(
            Kind::Unauthenticated,
            format!("Refused: {refused}"),
        )),
    }
}

/// What a refused request showed: a `key` or a `token`; of a key that is known here, but not good any more, its
/// public part.
pub(crate) fn shown(
    headers: &HeaderMap,
    keys: &KeyRing<Arc<Caller>>,
    now: Timestamp,
) -> Option<(&'static str, Option<String>)> {
    let text = presented(headers)?;
    if jwt::looks_like(text) {
        return Some(("token", None));
    }
    let is_known = !matches!(keys.find(text, now), Err(Refused::Unknown));
    let known = StoredKey::of(text).filter(|_| is_known);
    Some(("key", known.map(|key| key.prefix.to_string())))
}

/// The sign-in of the token of a request that was let in.
pub(crate) fn sign_in(headers: &HeaderMap, tokens: &Tokens, now: Timestamp) -> Option<Id<SignIn>> {
    let token = presented(headers).filter(|text| jwt::looks_like(text))?;
    let bearer = tokens.verifier.check(token, now).ok()?;
    Some(bearer.sign_in)
}

/// The key or token that a request shows.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    bearer.or_else(|| headers.get(API_KEY).and_then(|value| value.to_str().ok()))
}
