//! What an operator can set about outgoing connections.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{pin::Pins, policy::Policy};

/// Settings of an [`crate::Egress`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Longest time for name resolution, TCP and TLS together; a request's own deadline may end it
    /// sooner.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections kept per origin; more are closed when their request ends.
    pub max_idle_per_origin: usize,
    /// Connections per origin, used and unused together. Further requests wait, in order, until one
    /// is free or their deadline passes. Replies that were detached do not count.
    pub max_connections_per_origin: usize,
    /// Largest status line and headers of an answer, bytes.
    pub max_head_bytes: usize,
    /// Who vouches for the certificates of servers.
    pub roots: Roots,
    /// Which addresses may be connected to.
    pub allow: Policy,
    /// Who says in a test which addresses a name has.
    #[cfg(test)]
    pub(crate) names: Option<fn(&str) -> Vec<std::net::IpAddr>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            max_idle_per_origin: 64,
            max_connections_per_origin: 512,
            max_head_bytes: 64 << 10,
            roots: Roots::System,
            allow: Policy::Any,
            #[cfg(test)]
            names: None,
        }
    }
}

/// Who vouches for the certificates of servers.
#[derive(Debug, Clone)]
pub enum Roots {
    /// The trust store of the machine, read when the first `https` connection is made.
    System,
    /// These certificates and no others.
    Only(Vec<CertificateDer<'static>>),
    /// The trust store of the machine and these certificates.
    SystemAnd(Vec<CertificateDer<'static>>),
    /// Nobody: certificates are known by their fingerprints.
    Pinned(Pins),
}

impl Roots {
    /// The trust store of the machine and the certificates in a text (PEM).
    ///
    /// # Errors
    /// A sentence, when the text holds none.
    pub fn also(pem: &[u8]) -> Result<Self, String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err("it holds no certificate (PEM)".to_owned())
            }
            Ok(certificates) => Ok(Self::SystemAnd(certificates)),
            Err(error) => Err(format!("it is damaged ({error})")),
        }
    }
}
