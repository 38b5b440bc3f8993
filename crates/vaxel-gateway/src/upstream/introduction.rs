//! A service that asks who calls is told with every request, by a token that is good for it alone.
//!
//! A token is kept per caller until half of its life is over, so that few calls wait for a signature. It is
//! made anew at once when the caller's rights or the key that signs have changed.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue, header};
use parking_lot::RwLock;
use vaxel_auth::identity::{Issuer, LIFETIME};
use vaxel_core::{
    failure::Failure,
    principal::{Principal, Proof},
    rights::{Limits, Rights},
    time::{Clock, Timestamp},
};

/// Callers whose token is kept for one instance of a service. When there are more, those whose tokens are old
/// are forgotten, or else all: they are only signed again.
const KEPT: usize = 4_096;

/// How callers are introduced to an instance of a service.
#[derive(Debug, Clone)]
pub(crate) struct Introduction(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    audience: Box<str>,
    header: HeaderName,
    issuer: Arc<ArcSwapOption<Issuer>>,
    clock: Clock,
    kept: RwLock<HashMap<Who, Kept>>,
}

/// A credential, and what a token of it lets through.
type Who = (Proof, Option<u32>);

/// What an instance is told of a caller.
#[derive(Debug, Clone)]
pub(crate) struct Told(Arc<Words>);

#[derive(Debug)]
struct Words {
    name: HeaderName,
    value: HeaderValue,
    /// The token as a JSON string.
    json: Box<str>,
}

#[derive(Debug)]
struct Kept {
    told: Told,
    issuer: Arc<Issuer>,
    rights: Arc<Rights>,
    limits: Option<Arc<Limits>>,
    since: Timestamp,
}

/// How a service wants to be told who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduced {
    /// For whom the tokens are good.
    pub audience: String,
    /// The header in which they come over HTTP.
    pub header: String,
}

impl Introduction {
    pub(crate) fn new(
        wanted: &Introduced,
        issuer: &Arc<ArcSwapOption<Issuer>>,
        clock: &Clock,
    ) -> Result<Self, Failure> {
        Ok(Self(Arc::new(Inner {
            audience: wanted.audience.as_str().into(),
            header: HeaderName::try_from(&wanted.header).map_err(Failure::internal)?,
            issuer: Arc::clone(issuer),
            clock: clock.clone(),
            kept: RwLock::default(),
        })))
    }

    /// The header that nobody else writes.
    pub(crate) fn header(&self) -> &HeaderName {
        &self.0.header
    }

    /// What is told of `caller` now.
    pub(crate) fn of(&self, caller: &Principal) -> Result<Told, Failure> {
        let inner = &*self.0;
        let missing = || Failure::internal("there is no key that signs tokens");
        let issuer = inner.issuer.load_full().ok_or_else(missing)?;
        let now = inner.clock.now();
        let limits = caller.limits.as_ref();
        let who = (caller.proof, limits.map(|limits| limits.permissions.bits()));
        if let Some(kept) = inner.kept.read().get(&who)
            && kept.is_of(caller, &issuer)
            && kept.is_young(now)
        {
            return Ok(kept.told.clone());
        }
        let token = issuer.issue(caller, &inner.audience, now)?;
        let told = Told::new(&inner.header, &token)?;
        let kept = Kept {
            told: told.clone(),
            issuer,
            rights: Arc::clone(&caller.rights),
            limits: limits.map(Arc::clone),
            since: now,
        };
        keep(&mut inner.kept.write(), who, kept, now);
        Ok(told)
    }
}

impl Kept {
    /// Also a clock that was put back must not make it older than it may be.
    fn is_young(&self, now: Timestamp) -> bool {
        self.since <= now && now < self.since.plus(LIFETIME / 2)
    }

    fn is_of(&self, caller: &Principal, issuer: &Arc<Issuer>) -> bool {
        let same_limits = match (&self.limits, &caller.limits) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_limits
            && Arc::ptr_eq(&self.rights, &caller.rights)
            && Arc::ptr_eq(&self.issuer, issuer)
    }
}

impl Told {
    fn new(name: &HeaderName, token: &str) -> Result<Self, Failure> {
        let text = if *name == header::AUTHORIZATION {
            format!("Bearer {token}")
        } else {
            token.to_owned()
        };
        let mut value = HeaderValue::try_from(text).map_err(Failure::internal)?;
        value.set_sensitive(true);
        Ok(Self(Arc::new(Words {
            name: name.clone(),
            value,
            // Letters, digits, `-`, `_` and dots stand for themselves.
            json: format!("\"{token}\"").into(),
        })))
    }

    /// As a header.
    pub(crate) fn header(&self) -> (HeaderName, HeaderValue) {
        (self.0.name.clone(), self.0.value.clone())
    }

    /// As a value of `_meta`.
    pub(crate) fn json(&self) -> &str {
        &self.0.json
    }
}

fn keep(all: &mut HashMap<Who, Kept>, who: Who, kept: Kept, now: Timestamp) {
    if all.len() >= KEPT {
        all.retain(|_, one| one.is_young(now));
    }
    if all.len() >= KEPT {
        all.clear();
    }
    all.insert(who, kept);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vaxel_auth::{jwks::OwnKey, jwt::Algorithm};

    use super::*;

    fn issuer() -> Arc<Issuer> {
        let key = OwnKey::generate(Algorithm::EdDsa).unwrap();
        Arc::new(Issuer::new(key.signer(), "http://vaxel"))
    }

    fn introduction(clock: &Clock) -> (Introduction, Arc<ArcSwapOption<Issuer>>) {
        let wanted = Introduced {
            audience: "files".to_owned(),
            header: "Authorization".to_owned(),
        };
        let slot = Arc::new(ArcSwapOption::from(Some(issuer())));
        (Introduction::new(&wanted, &slot, clock).unwrap(), slot)
    }

    #[test]
    fn a_token_is_kept_for_half_its_life_and_not_beyond_its_key() {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let (introduction, slot) = introduction(&clock);
        let caller = Principal::system();
        let token = || introduction.of(&caller).unwrap().json().to_owned();
        let first = token();
        assert_eq!(token(), first);
        clock.advance(Duration::from_millis(29_999));
        assert_eq!(token(), first);
        clock.advance(Duration::from_millis(1));
        let second = token();
        assert_ne!(second, first);
        slot.store(Some(issuer()));
        assert_ne!(token(), second);
        let (name, value) = introduction.of(&caller).unwrap().header();
        assert_eq!(name, header::AUTHORIZATION);
        assert!(value.to_str().unwrap().starts_with("Bearer ey"));
    }

    #[test]
    fn no_caller_is_told_as_another_one() {
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let (introduction, _slot) = introduction(&clock);
        let system = introduction.of(&Principal::system()).unwrap();
        let anyone = introduction.of(&Principal::unguarded()).unwrap();
        assert_ne!(system.json(), anyone.json());
    }
}
