//! TLS towards origins. The trust store of the machine is read on first use: it costs megabytes and
//! tens of milliseconds that a set-up without `https` upstreams never pays.

use std::{io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer};
use tokio::{net::TcpStream, sync::OnceCell};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    config::Roots,
    failure::Error,
    pin::{Pinned, Pins},
    target::Origin,
};

/// Makes TLS sessions.
#[derive(Debug)]
pub(crate) struct Tls {
    /// Configured certificates, checked when the egress was made.
    extra: RootCertStore,
    system: bool,
    pins: Option<Pins>,
    connector: OnceCell<Connector>,
}

#[derive(Clone)]
struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Tls {
    pub(crate) fn new(roots: Roots) -> Result<Self, Error> {
        let (system, certificates, pins) = match roots {
            Roots::System => (true, Vec::new(), None),
            Roots::Only(certificates) => (false, certificates, None),
            Roots::SystemAnd(certificates) => (true, certificates, None),
            Roots::Pinned(pins) => (false, Vec::new(), Some(pins)),
        };
        Ok(Self {
            extra: store(certificates)?,
            system,
            pins,
            connector: OnceCell::new(),
        })
    }

    /// Encrypts `stream`. The certificate must name the origin's host.
    pub(crate) async fn wrap(
        &self,
        origin: &Origin,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let failed = |reason| Error::Tls {
            origin: Arc::clone(origin.text()),
            reason,
        };
        let Some(name) = origin.server_name() else {
            return Err(failed(io::Error::other(
                "the host is no valid name of a certificate",
            )));
        };
        let connector = self.connector.get_or_try_init(|| self.connector()).await?;
        connector.0.connect(name, stream).await.map_err(failed)
    }

    async fn connector(&self) -> Result<Connector, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Roots {
                reason: error.to_string().into(),
            })?;
        let mut config = match self.pins.clone() {
            Some(pins) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { pins, provider })),
            None => builder.with_root_certificates(self.roots().await?),
        }
        .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Connector(TlsConnector::from(Arc::new(config))))
    }

    async fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = self.extra.clone();
        if self.system {
            let system = tokio::task::spawn_blocking(system_roots)
                .await
                .map_err(|_| Error::Roots {
                    reason: "Vaxel is shutting down".into(),
                })?;
            roots.roots.extend(system.roots);
        }
        if roots.is_empty() {
            return Err(Error::Roots {
                reason: "this machine has no trusted root certificates; install the package \
                         `ca-certificates` or point SSL_CERT_FILE at a bundle"
                    .into(),
            });
        }
        Ok(roots)
    }
}

fn store(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        store.add(certificate).map_err(|error| Error::Roots {
            reason: format!(
                "configured root certificate {} is unusable: {error}",
                index + 1
            )
            .into(),
        })?;
    }
    Ok(store)
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "A trusted root certificate of this machine cannot be read");
    }
    let mut store = RootCertStore::empty();
    let (_, ignored) = store.add_parsable_certificates(found.certs);
    if ignored > 0 {
        tracing::debug!(
            ignored,
            "Some trusted root certificates of this machine were not understood"
        );
    }
    store
}
