//! JSON Web Tokens (RFC 7519): made with our own keys, and read with keys that we trust.
//!
//! What a token says of itself decides nothing: which algorithm is right follows from the key that is found
//! here under its `kid`; keys, addresses and certificates in its header are not looked at.

use std::{fmt, str::FromStr, time::Duration};

use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value};
use vaxel_core::time::Timestamp;

use crate::failure::Error;

/// How far the clocks of two machines may be apart.
pub const LEEWAY: Duration = Duration::from_mins(1);
/// Longest token that is looked at, bytes.
pub const LONGEST: usize = 16 << 10;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    #[default]
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 §3.4).
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSA PKCS #1 v1.5 with SHA-256 (RFC 7518 §3.3).
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256 (RFC 7518 §3.5).
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
    /// HMAC with SHA-256, by a secret that both sides know (RFC 7518 §3.2): only where it is configured.
    Hs256,
}

/// Checks signatures of one key.
#[derive(Clone)]
pub struct VerifyingKey {
    /// How this key signs, and no other way.
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Signs with one key.
#[derive(Clone)]
pub struct Signer {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
}

/// Finds the key that a token names.
pub trait Keys {
    /// The key called `kid`; of a token that names none, the only one that there is.
    fn find(&self, kid: Option<&str>) -> Option<&VerifyingKey>;
}

/// What a token must say to be good here.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Its `iss`.
    pub issuer: String,
    /// One of these must be in its `aud`.
    pub audiences: Vec<String>,
    /// Whether an address below one of them is good, too: who asks then looks which it is.
    pub below: bool,
    /// Its `typ` must be one of these, whatever the case; an empty text stands for none.
    pub types: &'static [&'static str],
}

/// A token whose signature, issuer, audience, type and times are good.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Everything that it says.
    pub claims: Map<String, Value>,
    /// Until when it is good; [`LEEWAY`] is in it.
    pub expires_at: Timestamp,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no token, or longer than tokens are.
    #[error("it cannot be read")]
    Malformed,
    /// It names no key that is known.
    #[error("it was signed with a key that is not known here")]
    UnknownKey,
    /// It wants to be checked in another way than its key signs.
    #[error("it names another algorithm than that of its key")]
    Algorithm,
    /// It was changed, or signed by someone else.
    #[error("its signature is wrong")]
    Signature,
    /// It is a token of another type.
    #[error("it is of another type than the tokens that are read here")]
    Type,
    /// Somebody else issued it.
    #[error("it was issued by somebody else")]
    Issuer,
    /// It is for another server.
    #[error("it is for another server")]
    Audience,
    /// It was good once.
    #[error("it has expired")]
    Expired,
    /// It will be good.
    #[error("it is not valid yet")]
    NotYet,
    /// It does not say what it must.
    #[error("it lacks `{0}`, or says it in another form")]
    Lacks(&'static str),
    /// Who got it has signed out, or was signed out.
    #[error("its sign-in was ended")]
    Ended,
}

impl Algorithm {
    /// Those of our own keys.
    pub const OWN: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// The name in `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Hs256 => "HS256",
        }
    }

    const fn jose(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as A;
        match self {
            Self::EdDsa => A::EdDSA,
            Self::Es256 => A::ES256,
            Self::Es384 => A::ES384,
            Self::Rs256 => A::RS256,
            Self::Rs384 => A::RS384,
            Self::Rs512 => A::RS512,
            Self::Ps256 => A::PS256,
            Self::Ps384 => A::PS384,
            Self::Ps512 => A::PS512,
            Self::Hs256 => A::HS256,
        }
    }
}

/// A text that names none of the algorithms of own keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to sign tokens here: EdDSA, ES256 or RS256")]
pub struct UnknownAlgorithm(String);

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;
    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let found = Self::OWN.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| UnknownAlgorithm(text.chars().take(40).collect()))
    }
}

impl VerifyingKey {
    pub(crate) const fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        Self { algorithm, key }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.algorithm.as_str())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} {})", self.algorithm.as_str(), self.kid)
    }
}

impl Signer {
    /// A token of the type `typ` that says `claims`.
    ///
    /// # Errors
    /// [`Error::Unsignable`] when the key cannot sign.
    pub fn sign(&self, typ: &str, claims: &Map<String, Value>) -> Result<String, Error> {
        let mut header = Header::new(self.algorithm.jose());
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| Error::Unsignable)
    }
}

/// Whether a text looks as tokens do, so that it is worth to be verified. Keys of this server do not.
pub fn looks_like(text: &str) -> bool {
    // Every header begins with `{"`.
    text.starts_with("ey") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// What `token` says, when it is good.
///
/// # Errors
/// [`Refused`].
pub fn verify(
    token: &str,
    keys: &impl Keys,
    rules: &Rules,
    now: Timestamp,
) -> Result<Verified, Refused> {
    if token.len() > LONGEST {
        return Err(Refused::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Malformed)?;
    // RFC 7515 §4.1.11: whoever does not understand what is critical must refuse.
    if header.crit.is_some() {
        return Err(Refused::Malformed);
    }
    let key = keys.find(header.kid.as_deref());
    let VerifyingKey { algorithm, key } = key.ok_or(Refused::UnknownKey)?;
    if header.alg != algorithm.jose() {
        return Err(Refused::Algorithm);
    }
    let claims = signed(token, *algorithm, key)?;
    is_of(rules, header.typ.as_deref(), &claims)?;
    let expires_at = times(&claims, now)?;
    Ok(Verified { claims, expires_at })
}

/// The claims, when the signature is right. What they say is judged by us: the library asks its own clock.
fn signed(
    token: &str,
    algorithm: Algorithm,
    key: &DecodingKey,
) -> Result<Map<String, Value>, Refused> {
    let mut validation = Validation::new(algorithm.jose());
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation);
    match decoded {
        Ok(token) => Ok(token.claims),
        Err(error) => Err(match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => Refused::Signature,
            jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => Refused::Algorithm,
            _ => Refused::Malformed,
        }),
    }
}

fn is_of(rules: &Rules, typ: Option<&str>, claims: &Map<String, Value>) -> Result<(), Refused> {
    // RFC 7515 §4.1.9: `application/` may be left out.
    let typ = typ.unwrap_or_default();
    let typ = typ.strip_prefix("application/").unwrap_or(typ);
    if !rules.types.iter().any(|one| one.eq_ignore_ascii_case(typ)) {
        return Err(Refused::Type);
    }
    if claims.get("iss").and_then(Value::as_str) != Some(&rules.issuer) {
        return Err(Refused::Issuer);
    }
    let is_ours = |one: &Value| {
        let audience = one.as_str();
        let below = |rest: &str| rules.below && rest.starts_with('/');
        audience.is_some_and(|audience| {
            let rest = |ours: &String| audience.strip_prefix(ours.as_str());
            rules
                .audiences
                .iter()
                .filter_map(rest)
                .any(|rest| rest.is_empty() || below(rest))
        })
    };
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    };
    if is_for_us {
        Ok(())
    } else {
        Err(Refused::Audience)
    }
}

/// Until when the token is good, when it is good now.
fn times(claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, Refused> {
    let ends = time(claims, "exp")?.ok_or(Refused::Lacks("exp"))?;
    let expires_at = ends.plus(LEEWAY);
    if now >= expires_at {
        return Err(Refused::Expired);
    }
    let begins = time(claims, "nbf")?.max(time(claims, "iat")?);
    if begins.is_some_and(|begins| begins > now.plus(LEEWAY)) {
        return Err(Refused::NotYet);
    }
    Ok(expires_at)
}

/// A `NumericDate` (RFC 7519 §2): seconds, which may have a fraction.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, Refused> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value.as_f64().filter(|exp| (0.0..1e11).contains(exp));
    let seconds = seconds.ok_or(Refused::Lacks(name))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the bounds were checked"
    )]
    let millis = (seconds * 1_000.0) as u64;
    Ok(Some(Timestamp::from_millis(millis)))
}

#[cfg(test)]
pub(crate) mod tests;
