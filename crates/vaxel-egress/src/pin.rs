//! Certificates that are known by their fingerprint: whoever has that needs no authority to vouch for them.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Says whether a certificate with this SHA-256 is good.
type IsGood = dyn Fn(&[u8; 32]) -> bool + Send + Sync;

/// Which certificates are good: asked with the SHA-256 of each that a server shows. Neither names nor dates
/// count then.
#[derive(Clone)]
pub struct Pins(Arc<IsGood>);

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pins")
    }
}

impl Pins {
    /// Asks `is_good` at every handshake. It must not wait.
    pub fn new(is_good: impl Fn(&[u8; 32]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_good))
    }

    /// This one certificate.
    pub fn one(fingerprint: [u8; 32]) -> Self {
        Self::new(move |shown| *shown == fingerprint)
    }
}

/// Takes what the pins take. That the server has the key of its certificate is checked as ever.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) pins: Pins,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let digest = digest::digest(&digest::SHA256, certificate);
        let is_good = <[u8; 32]>::try_from(digest.as_ref()).is_ok_and(|one| (self.pins.0)(&one));
        if is_good {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
