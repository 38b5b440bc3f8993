//! A certificate and its key: every problem of the two is found before they are used, and told at once.

use std::{fmt::Write, net::IpAddr, sync::Arc};

use aws_lc_rs::digest;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs as provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
};
use vaxel_core::time::Timestamp;
use x509_cert::{
    Certificate as X509,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// A certificate with its key, good to be shown to clients.
pub struct Certificate {
    config: Arc<ServerConfig>,
    facts: CertificateFacts,
}

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Hosts and addresses that it is good for.
    pub names: Vec<String>,
    /// Good from then on.
    pub from: Timestamp,
    /// Good until then.
    pub until: Timestamp,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Certificate").field(&self.facts).finish()
    }
}

impl Certificate {
    /// Reads a chain (PEM, the server's own certificate first) and its key (PEM: PKCS#8, PKCS#1 or SEC1).
    /// What is `None` could not be read at all, which the caller tells.
    ///
    /// # Errors
    /// Every problem, as a sentence each; none when one of the two is `None` and the other one is fine.
    pub fn read(
        chain: Option<&[u8]>,
        key: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let provider = Arc::new(provider::default_provider());
        let chain = chain.and_then(|chain| {
            let chain = certificates(chain);
            chain.map_err(|text| problems.push(text)).ok()
        });
        let key: Option<Arc<dyn SigningKey>> = key.and_then(|key| {
            let key = private_key(key, &provider);
            key.map_err(|text| problems.push(text)).ok()
        });
        let facts = chain.as_ref().and_then(|chain| {
            let facts = facts(&chain[0]).map_err(|text| problems.push(text));
            facts.ok()
        });
        if let Some(facts) = &facts {
            problems.extend(out_of_date(facts, now));
        }
        if let (Some(chain), Some(key)) = (&chain, &key) {
            problems.extend(mismatch(chain, key));
        }
        match (chain, key, facts) {
            (Some(chain), Some(key), Some(facts)) if problems.is_empty() => {
                let key = CertifiedKey::new(chain, key);
                let config = config(provider, key).map_err(|error| vec![error.to_string()])?;
                Ok(Self { config, facts })
            }
            _ => Err(problems),
        }
    }

    /// What stands in it.
    pub const fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    pub(super) fn into_parts(self) -> (Arc<ServerConfig>, CertificateFacts) {
        (self.config, self.facts)
    }
}

fn config(
    provider: Arc<CryptoProvider>,
    key: CertifiedKey,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// At least one.
fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| format!("the certificate is damaged ({error})"))?;
    if chain.is_empty() {
        return Err(
            "the certificate's file holds none: it must have a block BEGIN CERTIFICATE (PEM)"
                .into(),
        );
    }
    Ok(chain)
}

fn private_key(text: &[u8], provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, String> {
    let holds = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
    if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(
            "the key is encrypted, and there is nobody to ask for its passphrase: `openssl pkey -in KEY \
             -out PLAIN` decrypts it"
                .into(),
        );
    }
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            "the key's file holds none: it must have a block BEGIN PRIVATE KEY (PEM)".to_owned()
        }
        error => format!("the key is damaged ({error})"),
    })?;
    let key = provider.key_provider.load_private_key(key);
    key.map_err(|error| {
        format!("the key is of a kind that is not used here ({error}): take ECDSA, Ed25519 or RSA")
    })
}

fn mismatch(chain: &[CertificateDer<'static>], key: &Arc<dyn SigningKey>) -> Option<String> {
    let is_of = |certificate: &CertificateDer<'static>| {
        let pair = CertifiedKey::new(vec![certificate.clone()], Arc::clone(key));
        pair.keys_match().is_ok()
    };
    let place = chain.iter().position(is_of);
    match place {
        Some(0) => None,
        Some(place) => Some(format!(
            "the key belongs to certificate {} of the chain: the server's own must be the first",
            place + 1
        )),
        None => Some("the key does not belong to the certificate".into()),
    }
}

fn facts(certificate: &CertificateDer<'_>) -> Result<CertificateFacts, String> {
    let unreadable = |error| format!("the certificate cannot be read ({error})");
    let read = X509::from_der(certificate).map_err(unreadable)?;
    let body = &read.tbs_certificate;
    let time = |time: x509_cert::time::Time| {
        let millis = time.to_unix_duration().as_millis();
        Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    };
    let names = body.get::<SubjectAltName>().map_err(unreadable)?;
    let names = names.map_or_else(Vec::new, |(_, names)| names.0);
    Ok(CertificateFacts {
        names: names.iter().filter_map(name).collect(),
        from: time(body.validity.not_before),
        until: time(body.validity.not_after),
        fingerprint: fingerprint(certificate),
    })
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(address) => {
            let bytes = address.as_bytes();
            let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    let mut text = String::with_capacity(64);
    for byte in digest.as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn out_of_date(facts: &CertificateFacts, now: Timestamp) -> Option<String> {
    if now > facts.until {
        return Some(format!(
            "the certificate is good no more: it expired at {}",
            facts.until
        ));
    }
    (now < facts.from).then(|| {
        format!(
            "the certificate is not good yet: it begins at {} (is the clock right?)",
            facts.from
        )
    })
}

#[cfg(test)]
mod tests;
