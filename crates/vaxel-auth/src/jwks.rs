//! Keys that sign tokens: our own, which follow each other, and sets of others (RFC 7517).
//!
//! Of our own there are three at a time. Everyone learns of the *next* one long before it signs, the
//! *current* one signs, and the *previous* one is good until the last token that it signed has ended.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    DecodingKey, EncodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash},
};
use serde::Deserialize;
use serde_json::{Value, json};
use vaxel_core::{secret::Secret, time::Timestamp};

use crate::{
    failure::Error,
    jwt::{Algorithm, Keys, Signer, VerifyingKey},
    seal::Sealer,
};

/// Most keys of a set of others that are looked at.
const KEYS_MAX: usize = 100;
/// Longest document of a set of others, bytes.
pub const DOCUMENT_MAX: usize = 256 << 10;
/// Shortest RSA key that is believed, bytes of its modulus.
const RSA_LEAST: usize = 2_048 / 8;
/// Bytes before the `RSAPrivateKey` in a PKCS #8 document of a key of 2048 bits: lengths, version, algorithm
/// and the head of the octet string (RFC 5208 §5).
const PKCS8_HEAD: usize = 26;

/// One of our own keys.
#[derive(Clone)]
pub struct OwnKey {
    /// Names it in tokens: its thumbprint (RFC 7638).
    pub kid: String,
    /// How it signs.
    pub algorithm: Algorithm,
    private: Secret<Vec<u8>>,
    public: Value,
}

/// What a key is for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Known, signs nothing yet.
    Next,
    /// Signs.
    Current,
    /// Signs nothing any more.
    Previous,
}

/// A stage of an own key, and since when it is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which key.
    pub kid: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// What it is for.
    pub stage: Stage,
    /// Since when.
    pub since: Timestamp,
}

/// When keys follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How new keys sign.
    pub algorithm: Algorithm,
    /// How long a key signs.
    pub every: Duration,
    /// How long one is good after it signed its last token.
    pub overlap: Duration,
}

/// What is to be done with own keys, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Throw this one away.
    Forget(String),
    /// Move this one on.
    Move(String, Stage),
    /// Make a new one.
    Make(Stage),
}

/// What has to be done so that there are keys, and none of them too long. `force`: a new one signs at once,
/// and the current one is only good until its tokens have ended.
pub fn plan(keys: &[Placed], rotation: Rotation, now: Timestamp, force: bool) -> Vec<Step> {
    let at = |stage: Stage| keys.iter().filter(move |key| key.stage == stage);
    let mut steps = Vec::new();
    for old in at(Stage::Previous) {
        if now.since(old.since) >= rotation.overlap {
            steps.push(Step::Forget(old.kid.clone()));
        }
    }
    // A next key of another algorithm than the one that is asked for now never signs.
    let fits = |key: &&Placed| key.algorithm == rotation.algorithm;
    let next = at(Stage::Next).find(fits);
    for other in at(Stage::Next).filter(|key| next.is_none_or(|next| next.kid != key.kid)) {
        steps.push(Step::Forget(other.kid.clone()));
    }
    let current = at(Stage::Current).next();
    let is_due = current.is_none_or(|key| force || now.since(key.since) >= rotation.every);
    if is_due {
        steps.extend(current.map(|key| Step::Move(key.kid.clone(), Stage::Previous)));
        steps.push(match next {
            Some(next) => Step::Move(next.kid.clone(), Stage::Current),
            None => Step::Make(Stage::Current),
        });
    }
    if is_due || next.is_none() {
        steps.push(Step::Make(Stage::Next));
    }
    steps
}

impl Stage {
    /// The text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Previous => "previous",
        }
    }
}

/// A text that is no stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stage of a key: next, current or previous")]
pub struct UnknownStage;

impl FromStr for Stage {
    type Err = UnknownStage;
    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        let all = [Self::Next, Self::Current, Self::Previous];
        let found = all.into_iter().find(|one| one.as_str() == text);
        found.ok_or(UnknownStage)
    }
}

impl OwnKey {
    /// A new key. One of RSA takes up to some seconds: not for threads that serve.
    ///
    /// # Errors
    /// [`Error::Unsignable`] when the library makes none.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Error> {
        let private = match algorithm {
            Algorithm::Es256 => {
                let random = aws_lc_rs::rand::SystemRandom::new();
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                    .map(|made| made.as_ref().to_vec())
            }
            Algorithm::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048)
                .and_then(|pair| pair.as_der())
                .map(|made| made.as_ref().get(PKCS8_HEAD..).unwrap_or_default().to_vec()),
            _ => {
                let pair = Ed25519KeyPair::generate();
                pair.and_then(|pair| pair.to_pkcs8v1())
                    .map(|made| made.as_ref().to_vec())
            }
        };
        let private = private.map_err(|_| Error::Unsignable)?;
        Self::new(algorithm, Secret::new(private))
    }

    /// A key as it was stored.
    ///
    /// # Errors
    /// Those of [`Sealer::open`]; [`Error::Unsignable`] when what was sealed is no key.
    pub fn open(
        (kid, algorithm): (&str, Algorithm),
        sealer: &Sealer,
        sealed: &[u8],
    ) -> Result<Self, Error> {
        let private = sealer.open(&context(kid), sealed)?;
        let key = Self::new(algorithm, private)?;
        if key.kid == kid {
            Ok(key)
        } else {
            Err(Error::Unsignable)
        }
    }

    /// The key as it is to be stored: it opens under its own `kid` only.
    pub fn sealed(&self, sealer: &Sealer) -> Vec<u8> {
        sealer.seal(&context(&self.kid), self.private.expose())
    }

    /// What signs with this key.
    pub fn signer(&self) -> Signer {
        let private = self.private.expose();
        Signer {
            kid: self.kid.clone(),
            algorithm: self.algorithm,
            key: match self.algorithm {
                Algorithm::Es256 => EncodingKey::from_ec_der(private),
                Algorithm::Rs256 => EncodingKey::from_rsa_der(private),
                _ => EncodingKey::from_ed_der(private),
            },
        }
    }

    /// The public half, as it stands in a set.
    pub const fn public(&self) -> &Value {
        &self.public
    }

    fn new(algorithm: Algorithm, private: Secret<Vec<u8>>) -> Result<Self, Error> {
        let mut public = public_half(algorithm, private.expose()).ok_or(Error::Unsignable)?;
        let jwk = Jwk::deserialize(&public).map_err(|_| Error::Unsignable)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256);
        let kid = kid.map_err(|_| Error::Unsignable)?;
        public["kid"] = json!(kid);
        public["use"] = json!("sig");
        public["alg"] = json!(algorithm.as_str());
        Ok(Self {
            kid,
            algorithm,
            private,
            public,
        })
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKey({} {})", self.algorithm.as_str(), self.kid)
    }
}

fn context(kid: &str) -> Vec<u8> {
    [b"signing key ", kid.as_bytes()].concat()
}

fn public_half(algorithm: Algorithm, private: &[u8]) -> Option<Value> {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match algorithm {
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8(private).ok()?;
            let x = text(pair.public_key().as_ref());
            Some(json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
        }
        Algorithm::Es256 => {
            let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(curve, private).ok()?;
            // An uncompressed point (SEC 1 §2.3.3).
            let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
            Some(json!({ "kty": "EC", "crv": "P-256", "x": text(x), "y": text(y) }))
        }
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::from_der(private).ok()?;
            let public = pair.public_key();
            let (n, e) = (public.modulus(), public.exponent());
            let n = text(n.big_endian_without_leading_zero());
            let e = text(e.big_endian_without_leading_zero());
            Some(json!({ "kty": "RSA", "n": n, "e": e }))
        }
        _ => None,
    }
}

/// The document that tells others our public keys (RFC 7517 §5).
pub fn document<'a>(keys: impl IntoIterator<Item = &'a OwnKey>) -> Value {
    let keys: Vec<&Value> = keys.into_iter().map(OwnKey::public).collect();
    json!({ "keys": keys })
}

/// Shortest secret that two share, bytes.
const SECRET_MIN: usize = 32;
/// What keys begin with that are there to be given away: PEM, JSON (RFC 7517), those of SSH, and DER in base64.
const PUBLIC: [&str; 7] = [
    "-----BEGIN",
    "{",
    "ssh-",
    "ecdsa-",
    "MIIBIjANBg",
    "MFkwEwYHKo",
    "MCowBQYDK2",
];

/// Public keys by their names.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    named: BTreeMap<String, VerifyingKey>,
    /// Those that have no name.
    unnamed: Vec<VerifyingKey>,
}

impl KeySet {
    /// The public halves of own keys.
    pub fn of_own<'a>(keys: impl IntoIterator<Item = &'a OwnKey>) -> Self {
        let own = keys.into_iter().filter_map(|key| {
            let jwk = Jwk::deserialize(&key.public).ok()?;
            Some((key.kid.clone(), verifying(&jwk)?))
        });
        Self {
            named: own.collect(),
            unnamed: Vec::new(),
        }
    }

    /// One secret that both sides know, for `HS256`.
    ///
    /// # Errors
    /// [`Error::WeakSecret`] when it has less than 32 bytes (RFC 7518 §3.2), and when it is a public key, which
    /// everybody knows.
    pub fn of_secret(secret: &Secret<String>) -> Result<Self, Error> {
        let text = secret.expose();
        let is_public = PUBLIC
            .iter()
            .any(|mark| text.trim_start().starts_with(mark));
        if text.len() < SECRET_MIN || is_public {
            return Err(Error::WeakSecret);
        }
        let key = DecodingKey::from_secret(text.as_bytes());
        Ok(Self {
            named: BTreeMap::new(),
            unnamed: vec![VerifyingKey::new(Algorithm::Hs256, key)],
        })
    }

    /// The keys of a set that somebody else serves, as far as they sign in a way that is known here. Secrets
    /// have no place in such a set and are left out.
    ///
    /// # Errors
    /// [`Error::BadKeySet`] when it is none, or one without a key that can be used.
    pub fn read(document: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        if document.len() > DOCUMENT_MAX {
            return Err(Error::BadKeySet);
        }
        let set: Set = serde_json::from_slice(document).map_err(|_| Error::BadKeySet)?;
        let mut read = Self::default();
        for value in set.keys.iter().take(KEYS_MAX) {
            let Ok(jwk) = Jwk::deserialize(value) else {
                continue;
            };
            let Some(key) = verifying(&jwk) else { continue };
            match jwk.common.key_id {
                Some(kid) => _ = read.named.insert(kid, key),
                None => read.unnamed.push(key),
            }
        }
        if read.is_empty() {
            return Err(Error::BadKeySet);
        }
        Ok(read)
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_empty()
    }
}

impl Keys for KeySet {
    fn find(&self, kid: Option<&str>) -> Option<&VerifyingKey> {
        let only = || {
            let mut all = self.named.values().chain(&self.unnamed);
            all.next().filter(|_| all.next().is_none())
        };
        match kid {
            Some(kid) => {
                let unnamed = || only().filter(|_| self.named.is_empty());
                self.named.get(kid).or_else(unnamed)
            }
            None => only(),
        }
    }
}

/// What checks signatures of a key; none when it is for something else, too short, or of a kind that is not
/// known here.
fn verifying(jwk: &Jwk) -> Option<VerifyingKey> {
    let signs = |usage: &PublicKeyUse| *usage == PublicKeyUse::Signature;
    if !jwk.common.public_key_use.as_ref().is_none_or(signs) {
        return None;
    }
    let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::RSA(key), algorithm) => {
            let modulus = URL_SAFE_NO_PAD.decode(&key.n).ok()?;
            if modulus.len() < RSA_LEAST {
                return None;
            }
            of_rsa(algorithm)?
        }
        (AlgorithmParameters::EllipticCurve(key), algorithm) => match (&key.curve, algorithm) {
            (EllipticCurve::P256, None | Some(KeyAlgorithm::ES256)) => Algorithm::Es256,
            (EllipticCurve::P384, None | Some(KeyAlgorithm::ES384)) => Algorithm::Es384,
            _ => return None,
        },
        (AlgorithmParameters::OctetKeyPair(key), None | Some(KeyAlgorithm::EdDSA))
            if key.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDsa
        }
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(VerifyingKey::new(algorithm, key))
}

/// Many issuers do not say how their RSA keys sign: as RFC 7518 recommends.
const fn of_rsa(algorithm: Option<KeyAlgorithm>) -> Option<Algorithm> {
    Some(match algorithm {
        None | Some(KeyAlgorithm::RS256) => Algorithm::Rs256,
        Some(KeyAlgorithm::RS384) => Algorithm::Rs384,
        Some(KeyAlgorithm::RS512) => Algorithm::Rs512,
        Some(KeyAlgorithm::PS256) => Algorithm::Ps256,
        Some(KeyAlgorithm::PS384) => Algorithm::Ps384,
        Some(KeyAlgorithm::PS512) => Algorithm::Ps512,
        Some(_) => return None,
    })
}

#[cfg(test)]
mod tests;
