//! Access tokens of another authorization server, on the way of every request: whom they stand for, and where
//! they are good.
//!
//! As with our own, one that was good once is known again by its SHA-256 until it expires. Nothing ends it sooner
//! but its user: who is disabled here is refused at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::RwLock;
use vaxel_core::{name::RoleName, principal::Permissions, rights::Limits, time::Timestamp};

use crate::{
    bearer::Delegated,
    digest,
    foreign::{self, Issuer},
    jwks::KeySet,
    jwt::{self, Refused},
    oauth::{endpoint::Endpoint, scope},
};

/// Tokens that are remembered.
const SEEN_MAX: usize = 10_000;

/// Whom a token of another issuer stands for.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// What the issuer calls the user.
    pub user: Arc<str>,
    /// Roles here that the issuer gives the user, sorted: those that its words are configured to mean.
    pub roles: Arc<[RoleName]>,
    /// Where the token is good, and for what.
    pub delegated: Delegated,
    expires_at: Timestamp,
}

/// Checks tokens of one other issuer. An immutable value, but for what it remembers: it is replaced when the
/// issuer's keys change.
#[derive(Debug)]
pub struct Visitors {
    issuer: Issuer,
    keys: KeySet,
    server: String,
    /// Which roles here the issuer's words for roles mean.
    roles: HashMap<String, RoleName>,
    seen: RwLock<HashMap<[u8; 32], Visitor>>,
}

impl Visitors {
    /// Tokens of `issuer`, signed with `keys`, for `server` or an endpoint of it.
    pub fn new(issuer: Issuer, keys: KeySet, server: &str) -> Self {
        Self {
            issuer,
            keys,
            server: server.to_owned(),
            roles: HashMap::new(),
            seen: RwLock::default(),
        }
    }

    /// The same, where the issuer's words for roles mean these here. Other words mean nothing, also those that are
    /// names of roles here.
    #[must_use]
    pub fn with_roles(self, roles: HashMap<String, RoleName>) -> Self {
        Self { roles, ..self }
    }

    /// Whom `token` stands for; `None` when it says of itself that somebody else issued it.
    ///
    /// # Errors
    /// [`Refused`], to be shown to the caller.
    pub fn check(&self, token: &str, now: Timestamp) -> Option<Result<Visitor, Refused>> {
        if token.len() > jwt::LONGEST {
            return None;
        }
        let digest = digest::sha256(token.as_bytes());
        let seen = self.seen.read().get(&digest).cloned();
        if let Some(visitor) = seen {
            return Some(if now < visitor.expires_at {
                Ok(visitor)
            } else {
                Err(Refused::Expired)
            });
        }
        if foreign::issuer_of(token).as_deref() != Some(self.issuer.name()) {
            return None;
        }
        let read = self.read(token, now);
        if let Ok(visitor) = &read {
            let mut seen = self.seen.write();
            if seen.len() >= SEEN_MAX {
                seen.clear();
            }
            seen.insert(digest, visitor.clone());
        }
        Some(read)
    }

    fn read(&self, token: &str, now: Timestamp) -> Result<Visitor, Refused> {
        let stranger = self.issuer.verify(token, &self.keys, now)?;
        // RFC 8707: the one audience that is ours says where it is good.
        let mut own = stranger
            .audiences
            .iter()
            .filter_map(|one| Endpoint::of(one, &[&self.server]));
        let endpoint = own.next().ok_or(Refused::Audience)?;
        // Scopes of the issuer that mean nothing here limit nothing: its user's rights do.
        let permissions = match stranger.scope.as_deref() {
            Some(text) => scope::read(Some(text)).unwrap_or(Permissions::ALL),
            None => Permissions::ALL,
        };
        let words = stranger.roles.iter();
        let roles: BTreeSet<&RoleName> = words.filter_map(|word| self.roles.get(word)).collect();
        let limits = Limits {
            permissions,
            services: None,
            environments: None,
        };
        Ok(Visitor {
            user: stranger.user.into(),
            roles: roles.into_iter().cloned().collect(),
            delegated: Delegated {
                endpoint: Arc::new(endpoint),
                limits: Arc::new(limits),
            },
            expires_at: stranger.expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        foreign::KeysFrom,
        jwks::OwnKey,
        jwt::{Algorithm, tests::NOW},
    };

    const ISSUER: &str = "https://login.example.com";
    const SERVER: &str = "https://vaxel.example.com";

    fn claims(change: &Value) -> Value {
        let mut claims = json!({ "iss": ISSUER, "sub": "anna", "aud": format!("{SERVER}/mcp"),
            "exp": NOW.as_millis() / 1_000 + 60 });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    fn check(change: &Value) -> Option<Result<Visitor, Refused>> {
        let key = OwnKey::generate(Algorithm::Es256).unwrap();
        let issuer = Issuer::for_server(ISSUER, SERVER, KeysFrom::Discovery, ("sub", None));
        let visitors = Visitors::new(issuer, KeySet::of_own([&key]), SERVER);
        let token = key
            .signer()
            .sign("at+jwt", claims(change).as_object().unwrap())
            .unwrap();
        let first = visitors.check(&token, NOW);
        let again = visitors.check(&token, NOW);
        assert_eq!(
            first.is_some_and(|one| one.is_ok()),
            again.is_some_and(|one| one.is_ok())
        );
        visitors.check(&token, NOW)
    }

    #[test]
    fn a_token_of_another_issuer_is_good_at_the_endpoint_that_it_is_for() {
        let visitor = check(&json!({ "scope": "mcp:read openid" }))
            .unwrap()
            .unwrap();
        assert_eq!(
            (&*visitor.user, visitor.delegated.endpoint.path()),
            ("anna", "/mcp")
        );
        assert_eq!(
            scope::text(visitor.delegated.limits.permissions),
            "mcp:read"
        );
        let all = check(&json!({ "aud": ["other", SERVER], "scope": "openid" }))
            .unwrap()
            .unwrap();
        assert_eq!(all.delegated.endpoint.path(), "");
        assert_eq!(all.delegated.limits.permissions, Permissions::ALL);
    }

    #[test]
    fn words_of_the_issuer_are_roles_here_only_where_they_are_configured_to_be() {
        let key = OwnKey::generate(Algorithm::Es256).unwrap();
        let claims_for = ("sub", Some("realm_access.roles"));
        let issuer = Issuer::for_server(ISSUER, SERVER, KeysFrom::Discovery, claims_for);
        let role = |text: &str| text.parse::<RoleName>().unwrap();
        let roles = [("ops", "admin"), ("staff", "client"), ("all", "client")];
        let roles = roles.map(|(word, name)| (word.to_owned(), role(name)));
        let visitors = Visitors::new(issuer, KeySet::of_own([&key]), SERVER);
        let visitors = visitors.with_roles(roles.into());
        let given = |said: &Value| {
            let claims = claims(&json!({ "realm_access": { "roles": said } }));
            let token = key.signer().sign("at+jwt", claims.as_object().unwrap());
            let visitor = visitors.check(&token.unwrap(), NOW).unwrap().unwrap();
            visitor.roles.to_vec()
        };
        assert_eq!(
            given(&json!(["staff", "ops", "all"])),
            [role("admin"), role("client")]
        );
        assert_eq!(given(&json!("staff")), [role("client")]);
        for nothing in [
            json!(["admin", "client", "OPS"]),
            json!({ "ops": true }),
            json!(null),
        ] {
            assert_eq!(given(&nothing), [], "{nothing}");
        }
    }

    #[test]
    fn a_token_for_another_server_of_another_issuer_or_over_is_not_good() {
        for audience in [
            json!("https://other.example/mcp"),
            json!(format!("{SERVER}.evil.example/mcp")),
            json!(null),
        ] {
            let refused = check(&json!({ "aud": audience })).unwrap().unwrap_err();
            assert_eq!(refused, Refused::Audience, "{audience}");
        }
        assert!(check(&json!({ "iss": "https://evil.example" })).is_none());
        let over = NOW.as_millis() / 1_000 - 3_600;
        assert_eq!(
            check(&json!({ "exp": over })).unwrap().unwrap_err(),
            Refused::Expired
        );
        let later = NOW.as_millis() / 1_000 + 30;
        let early = json!({ "nbf": NOW.as_millis() / 1_000 + 3_600, "exp": later + 7_200 });
        assert_eq!(check(&early).unwrap().unwrap_err(), Refused::NotYet);
    }

    #[test]
    fn a_key_of_somebody_else_signs_nothing() {
        let (key, other) = (
            OwnKey::generate(Algorithm::Es256).unwrap(),
            OwnKey::generate(Algorithm::Es256).unwrap(),
        );
        let issuer = Issuer::for_server(ISSUER, SERVER, KeysFrom::Discovery, ("sub", None));
        let visitors = Visitors::new(issuer, KeySet::of_own([&key]), SERVER);
        let token = other
            .signer()
            .sign("at+jwt", claims(&json!({})).as_object().unwrap())
            .unwrap();
        assert_eq!(
            visitors.check(&token, NOW).unwrap().unwrap_err(),
            Refused::UnknownKey
        );
    }
}
