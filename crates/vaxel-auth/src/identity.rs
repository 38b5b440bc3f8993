//! Tokens that tell a service who calls it: signed by Vaxel, good for that service alone and for a minute.
//!
//! They prove who asks and decide nothing. None of them is taken by Vaxel itself, nor is an access token taken
//! by whoever looks at the type.

use std::time::Duration;

use serde_json::json;
use vaxel_core::{
    principal::{Principal, Proof},
    time::Timestamp,
    user::UserKind,
};

use crate::{failure::Error, jwt::Signer, oauth::scope, random};

/// How long such a token is good.
pub const LIFETIME: Duration = Duration::from_mins(1);
/// Its type, so that nobody takes it for an access token (RFC 8725 §3.11).
pub const TYPE: &str = "identity+jwt";

/// Signs such tokens for this server.
#[derive(Debug)]
pub struct Issuer {
    signer: Signer,
    server: Box<str>,
}

impl Issuer {
    /// One that signs with this key, for this server as others call it.
    pub fn new(signer: Signer, server: &str) -> Self {
        Self {
            signer,
            server: server.into(),
        }
    }

    /// A token that says who `caller` is, to `audience` alone, from `now` on.
    ///
    /// # Errors
    /// [`Error::Unsignable`].
    pub fn issue(
        &self,
        caller: &Principal,
        audience: &str,
        now: Timestamp,
    ) -> Result<String, Error> {
        let seconds = |at: Timestamp| at.as_millis() / 1_000;
        let subject = caller.rights.user();
        let roles: Vec<&str> = caller.rights.role_names().collect();
        let mut claims = json!({
            "iss": self.server,
            "aud": audience,
            "sub": subject.map_or(&*caller.name, |user| user.as_str()),
            "kind": kind(caller),
            "roles": roles,
            "iat": seconds(now),
            "exp": seconds(now.plus(LIFETIME)),
            "jti": random::token(16),
        });
        if let Some(limits) = &caller.limits {
            claims["scope"] = scope::text(limits.permissions).into();
        }
        let claims = claims.as_object().ok_or(Error::Unsignable)?;
        self.signer.sign(TYPE, claims)
    }
}

/// What a caller is, in one word.
fn kind(caller: &Principal) -> &'static str {
    match (caller.proof, caller.rights.kind()) {
        (Proof::Unguarded, _) => "anonymous",
        (Proof::System, _) | (Proof::Key(_) | Proof::User(_), None) => "vaxel",
        (Proof::Key(_) | Proof::User(_), Some(UserKind::Person)) => "person",
        (Proof::Key(_) | Proof::User(_), Some(UserKind::Program)) => "program",
    }
}

#[cfg(test)]
mod tests;
