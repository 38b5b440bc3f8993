//! Credential → principal.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, header};
use parking_lot::RwLock;
use vaxel_auth::{
    bearer::Verifier,
    jwt,
    key::{Refused, StoredKey},
    ring::KeyRing,
    visitor::Visitors,
};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Key, SignIn, User},
    name::RoleName,
    principal::{Principal, Proof},
    rights::{Limits, Rights},
    time::Timestamp,
};

/// A principal that a token leads to, and when one was last used.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// Milliseconds since the epoch; 0 when it was not used since the start.
    pub last_used: AtomicU64,
}

/// Whom API keys stand for: one value for all keys of a user with the same limits, so that a million keys need
/// few of them. What it says is swapped when that user's rights change.
#[derive(Debug)]
pub struct Holder(ArcSwap<Standing>);

/// What a holder says.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The user's name.
    pub name: Arc<str>,
    /// What that user may do.
    pub rights: Arc<Rights>,
    /// What the keys are limited to.
    pub limits: Option<Arc<Limits>>,
    /// Whether keys of that user are good for anything.
    pub is_enabled: bool,
}

/// A use of an API key, to be noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUse {
    /// Which key.
    pub id: Id<Key>,
    /// When.
    pub at: Timestamp,
    /// Where it came from, as far as that is known: that of a proxy, when there is one.
    pub address: Option<IpAddr>,
    /// Whether it came with the text that the key had before it was rotated.
    pub is_replaced: bool,
}

impl Holder {
    /// One that says this.
    pub fn new(standing: Standing) -> Self {
        Self(ArcSwap::from_pointee(standing))
    }

    /// What it says now.
    pub fn standing(&self) -> Arc<Standing> {
        self.0.load_full()
    }

    /// Has it say something else, from the next request on.
    pub fn put(&self, standing: Standing) {
        self.0.store(Arc::new(standing));
    }

    fn principal(&self, key: Id<Key>) -> Result<Principal, Refused> {
        let standing = self.0.load();
        if !standing.is_enabled {
            return Err(Refused::Disabled(Arc::clone(&standing.name)));
        }
        let who = (Proof::Key(key), Arc::clone(&standing.name));
        let rights = Arc::clone(&standing.rights);
        Ok(Principal::of_user(who, rights, standing.limits.clone()))
    }
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
    /// What roles that come with such a token let do, where any may.
    pub lent: Option<Lent>,
}

/// Users with roles that the issuer of their token gives them besides their own. What that lets them do is found
/// out at the first such request, and kept until rights change.
pub struct Lent {
    rights: Box<RightsWith>,
    known: RwLock<HashMap<LentTo, Arc<Caller>>>,
}

/// What a user may do who has these roles, too; `None` where there is no such user.
type RightsWith = dyn Fn(&str, &[RoleName]) -> Option<Rights> + Send + Sync;
/// A user and roles.
type LentTo = (Arc<str>, Arc<[RoleName]>);

/// Users with such roles that are remembered.
const LENT_MAX: usize = 10_000;

impl Lent {
    /// By what says what users may do with further roles.
    pub fn new(
        rights: impl Fn(&str, &[RoleName]) -> Option<Rights> + Send + Sync + 'static,
    ) -> Self {
        Self {
            rights: Box::new(rights),
            known: RwLock::default(),
        }
    }

    fn caller(&self, own: &Caller, roles: &Arc<[RoleName]>) -> Option<Arc<Caller>> {
        let key = (Arc::clone(&own.principal.name), Arc::clone(roles));
        if let Some(known) = self.known.read().get(&key) {
            return Some(Arc::clone(known));
        }
        let rights = (self.rights)(&own.principal.name, roles)?.after(&own.principal.rights);
        let who = (own.principal.proof, Arc::clone(&own.principal.name));
        let caller = Arc::new(Caller {
            principal: Principal::of_user(who, Arc::new(rights), None),
            last_used: 0.into(),
        });
        let mut known = self.known.write();
        if known.len() >= LENT_MAX {
            known.clear();
        }
        // Somebody may have been faster: everyone goes on with the same rights, which others remember.
        Some(Arc::clone(known.entry(key).or_insert(caller)))
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Who comes with a token to a path.
    fn find(&self, token: &str, path: &str, now: Timestamp) -> Result<Found, Failure> {
        let refused = |why: &dyn std::fmt::Display| {
            let detail = format!("Refused: the token is not good here: {why}; sign in again");
            Failure::new(Kind::Unauthenticated, detail)
        };
        let visitor = self.visitors.as_ref().and_then(|all| all.check(token, now));
        let (user, delegated) = if let Some(visitor) = visitor {
            let visitor = visitor.map_err(|error| refused(&error))?;
            let own = self.names.get(&visitor.user);
            let user = match (&self.lent, own) {
                (Some(lent), Some(own)) if !visitor.roles.is_empty() => {
                    lent.caller(own, &visitor.roles)
                }
                _ => own.cloned(),
            };
            (user, Some(visitor.delegated))
        } else {
            let bearer = self.verifier.check(token, now);
            let bearer = bearer.map_err(|error| refused(&error))?;
            (self.users.get(&bearer.user).cloned(), bearer.delegated)
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
type Found = (Arc<Caller>, Option<Arc<Limits>>);

/// An alternative to `Authorization` that some clients can set more easily.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Who came, and what is to be noted of it.
pub(crate) type Known = (Principal, Option<KeyUse>);

/// Who makes a request to `path`, by the key or token that comes with it.
pub(crate) fn authenticate(
    (headers, path): (&HeaderMap, &str),
    (keys, tokens): (&KeyRing<Holder>, &Tokens),
    now: Timestamp,
) -> Result<Known, Failure> {
    let key = presented(headers).ok_or_else(|| {
        Failure::new(
            Kind::Unauthenticated,
            "This server needs a key: send `Authorization: Bearer <key>`; \
             `vaxel key create NAME` makes one",
        )
    })?;
    if jwt::looks_like(key) {
        let (caller, limits) = tokens.find(key, path, now)?;
        caller.last_used.store(now.as_millis(), Ordering::Relaxed);
        let principal = caller.principal.clone();
        let principal = match limits {
            None => principal,
            limits => {
                Principal::of_user((principal.proof, principal.name), principal.rights, limits)
            }
        };
        return Ok((principal, None));
    }
    let refused = |why: Refused| Failure::new(Kind::Unauthenticated, format!("Refused: {why}"));
    let found = keys.find(key, now).map_err(refused)?;
    let principal = found.holder.principal(found.id).map_err(refused)?;
    let noted = KeyUse {
        id: found.id,
        at: now,
        address: None,
        is_replaced: found.is_replaced,
    };
    Ok((principal, found.is_news.then_some(noted)))
}

/// What a refused request showed: a `key` or a `token`; of a key that is known here, but not good any more, its
/// public part.
pub(crate) fn shown(
    headers: &HeaderMap,
    keys: &KeyRing<Holder>,
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
