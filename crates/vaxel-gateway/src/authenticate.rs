//! Credential → principal.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::{HeaderMap, HeaderName, header};
use vaxel_auth::key::KeyRing;
use vaxel_core::{
    failure::{Failure, Kind},
    principal::Principal,
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

/// An alternative to `Authorization` that some clients can set more easily.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The caller that the request's key belongs to.
pub(crate) fn authenticate(
    headers: &HeaderMap,
    keys: &KeyRing<Arc<Caller>>,
    now: Timestamp,
) -> Result<Arc<Caller>, Failure> {
    let key = presented(headers).ok_or_else(|| {
        Failure::new(
            Kind::Unauthenticated,
            "This server needs a key: send `Authorization: Bearer <key>`; \
             `vaxel key create NAME` makes one",
        )
    })?;
    match keys.find(key, now) {
        Ok(caller) => {
            caller.last_used.store(now.as_millis(), Ordering::Relaxed);
            Ok(Arc::clone(caller))
        }
        Err(refused) => Err(Failure::new(
            Kind::Unauthenticated,
            format!("Refused: {refused}"),
        )),
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    bearer.or_else(|| headers.get(API_KEY).and_then(|value| value.to_str().ok()))
}
