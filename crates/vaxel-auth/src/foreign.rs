//! Tokens of other issuers: which issuer, with which of its keys, and whom such a token stands for here.
//!
//! This part fetches nothing: whoever does hands in what came. A key that is not known
//! ([`Refused::UnknownKey`]) is the sign that an issuer has new ones.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};
use vaxel_core::{secret::Secret, time::Timestamp};

use crate::{
    failure::Error,
    jwks::{self, KeySet},
    jwt::{self, Refused, Rules},
};

/// Types that access tokens of others come with; many say none.
const TYPES: &[&str] = &["at+jwt", "JWT", ""];
/// Most roles of one token that are looked at.
const ROLES_MAX: usize = 100;
/// Longest name of a user or role, characters.
const NAME_MAX: usize = 200;

/// An issuer whose tokens are accepted here.
#[derive(Debug, Clone)]
pub struct Issuer {
    rules: Rules,
    keys: KeysFrom,
    /// Path of claims that leads to the name of the user.
    user: Vec<String>,
    /// Path of claims that leads to names of roles.
    roles: Option<Vec<String>>,
}

/// Where the keys of an issuer come from.
#[derive(Debug, Clone)]
pub enum KeysFrom {
    /// A set of keys at this address (RFC 7517).
    Address(String),
    /// What the issuer says of itself names that address.
    Discovery,
    /// A secret that both know, for `HS256`.
    Secret(Secret<String>),
}

/// Whom a token of another issuer stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// What the issuer calls the user.
    pub user: String,
    /// What the issuer calls the user's roles; none where no claim was named for them.
    pub roles: Vec<String>,
    /// Until when the token is good.
    pub expires_at: Timestamp,
    /// Whom the token is for; one of them is one of ours.
    pub audiences: Vec<String>,
    /// What the token lets through, in the issuer's words.
    pub scope: Option<String>,
}

impl Issuer {
    /// An issuer as it was configured: what it calls itself, for which audiences its tokens are good here,
    /// where its keys are, and which claims hold the user's name (such as `sub` or `email`) and its roles
    /// (such as `roles` or `realm_access.roles`).
    pub fn new(
        issuer: impl Into<String>,
        audiences: Vec<String>,
        keys: KeysFrom,
        (user, roles): (&str, Option<&str>),
    ) -> Self {
        let path = |text: &str| text.split('.').map(str::to_owned).collect();
        Self {
            rules: Rules {
                issuer: issuer.into(),
                audiences,
                below: false,
                types: TYPES,
            },
            keys,
            user: path(user),
            roles: roles.map(path),
        }
    }

    /// The same, with tokens for `server` or an address below it.
    pub fn for_server(
        issuer: impl Into<String>,
        server: &str,
        keys: KeysFrom,
        claims: (&str, Option<&str>),
    ) -> Self {
        let mut made = Self::new(issuer, vec![server.to_owned()], keys, claims);
        made.rules.below = true;
        made
    }

    /// What it calls itself in `iss`.
    pub fn name(&self) -> &str {
        &self.rules.issuer
    }

    /// Where its keys come from.
    pub const fn keys(&self) -> &KeysFrom {
        &self.keys
    }

    /// Where it says of itself where its keys are (`OpenID` Connect Discovery 1.0 §4; RFC 8414 §3), in the order
    /// in which to ask.
    pub fn discovery(&self) -> Vec<String> {
        let issuer = self.name().trim_end_matches('/');
        let (origin, path) = match issuer.split_once("://") {
            Some((scheme, rest)) => {
                let end = rest.find('/').unwrap_or(rest.len());
                issuer.split_at(scheme.len() + "://".len() + end)
            }
            None => (issuer, ""),
        };
        vec![
            format!("{issuer}/.well-known/openid-configuration"),
            format!("{origin}/.well-known/oauth-authorization-server{path}"),
        ]
    }

    /// Where its keys are, of what it says of itself.
    ///
    /// # Errors
    /// [`Error::BadDiscovery`], also when it speaks of another issuer.
    pub fn read_discovery(&self, document: &[u8]) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
            jwks_uri: String,
        }
        if document.len() > jwks::DOCUMENT_MAX {
            return Err(Error::BadDiscovery);
        }
        let said: Metadata = serde_json::from_slice(document).map_err(|_| Error::BadDiscovery)?;
        if said.issuer == self.name() {
            Ok(said.jwks_uri)
        } else {
            Err(Error::BadDiscovery)
        }
    }

    /// Whom `token` stands for, when it is good.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, token: &str, keys: &KeySet, now: Timestamp) -> Result<Stranger, Refused> {
        let verified = jwt::verify(token, keys, &self.rules, now)?;
        let user = at(&verified.claims, &self.user).and_then(Value::as_str);
        let is_name = |text: &&str| !text.is_empty() && text.chars().count() <= NAME_MAX;
        let user = user.filter(is_name).ok_or(Refused::Lacks("user"))?;
        let path = self.roles.as_deref();
        let roles = path.and_then(|path| at(&verified.claims, path));
        Ok(Stranger {
            user: user.to_owned(),
            roles: roles.map(names).unwrap_or_default(),
            expires_at: verified.expires_at,
            audiences: verified.claims.get("aud").map(names).unwrap_or_default(),
            scope: ["scope", "scp"].into_iter().find_map(|name| {
                let scope = names(verified.claims.get(name)?);
                Some(scope.join(" "))
            }),
        })
    }
}

/// Who issued a token, in its own words: only to choose whom to ask. Nothing about it is verified.
pub fn issuer_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    if token.len() > jwt::LONGEST || !jwt::looks_like(token) {
        return None;
    }
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.iss)
}

fn at<'a>(claims: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    // A claim may have dots in its name, as those of namespaces do.
    let whole = claims.get(&path.join("."));
    whole.or_else(|| {
        let (first, rest) = path.split_first()?;
        let first = claims.get(first)?;
        rest.iter().try_fold(first, |value, key| value.get(key))
    })
}

/// Names in a list, or in one text with spaces between them.
fn names(value: &Value) -> Vec<String> {
    let texts: Vec<&str> = match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => text.split_ascii_whitespace().collect(),
        _ => Vec::new(),
    };
    let short = texts
        .into_iter()
        .filter(|text| text.chars().count() <= NAME_MAX);
    short.take(ROLES_MAX).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
