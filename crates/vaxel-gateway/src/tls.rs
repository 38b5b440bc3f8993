//! TLS on the listener: a certificate that can be replaced while it serves, handshakes that hold nobody up,
//! and a sentence for whoever speaks plain HTTP.
//!
//! Where no certificate is set, a connection pays one look for that and nothing else.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use vaxel_core::failure::{Failure, Kind};

mod certificate; // a chain and its key, judged before they are used
mod self_signed;

pub use certificate::{Certificate, CertificateFacts};
pub use self_signed::{SelfSigned, VALID, make as make_self_signed};

use crate::{gateway::Shared, http2, listener, pipeline::request_id, respond};

/// Handshakes at once; further ones wait, within their deadline.
const HANDSHAKES: usize = 1_024;
/// First byte of a TLS connection: a record with a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// What the listener encrypts with, when it does.
pub(crate) struct Tls {
    config: ArcSwapOption<ServerConfig>,
    handshakes: Semaphore,
    status: Mutex<Option<CertificateStatus>>,
}

/// The certificate that is shown to clients.
#[derive(Debug, Clone)]
pub struct CertificateStatus {
    /// What stands in it.
    pub facts: CertificateFacts,
    /// What is wrong with the files that should take its place, when something is.
    pub problem: Option<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            config: ArcSwapOption::empty(),
            handshakes: Semaphore::new(HANDSHAKES),
            status: Mutex::default(),
        }
    }
}

impl Tls {
    /// From now on handshakes show this one; connections that are open stay as they are.
    pub(crate) fn show(&self, certificate: Certificate) {
        let (config, facts) = certificate.into_parts();
        self.config.store(Some(config));
        *self.status.lock() = Some(CertificateStatus {
            facts,
            problem: None,
        });
    }

    /// Says why the certificate was not replaced, or that nothing is wrong any more.
    pub(crate) fn note(&self, problem: Option<String>) {
        if let Some(status) = &mut *self.status.lock() {
            status.problem = problem;
        }
    }

    pub(crate) fn status(&self) -> Option<CertificateStatus> {
        self.status.lock().clone()
    }

    /// Whether connections are encrypted.
    pub(crate) fn is_on(&self) -> bool {
        self.config.load().is_some()
    }

    pub(crate) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.config.load_full()
    }
}

/// Serves one connection whose client should begin with a handshake.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    (stream, peer): (TcpStream, SocketAddr),
    config: Arc<ServerConfig>,
    draining: CancellationToken,
) {
    let opening = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => Opened::of(&shared, stream, config).await,
            Ok(1) => Opened::Plain(stream),
            Ok(_) => Opened::Nothing("the client was gone".to_owned()),
            Err(error) => Opened::Nothing(error.to_string()),
        }
    };
    match timeout(shared.config.head_timeout, opening).await {
        Ok(Opened::Tls(stream)) => {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(*stream);
            if is_http2 {
                http2::serve(shared, io, peer, draining).await;
            } else {
                listener::http1(shared, io, peer, draining).await;
            }
        }
        Ok(Opened::Plain(stream)) => send_away(&shared, stream).await,
        Ok(Opened::Nothing(why)) => tracing::debug!(%peer, "no TLS connection came about: {why}"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake did not end in time"),
    }
}

/// How a connection began.
enum Opened {
    Tls(Box<TlsStream<TcpStream>>),
    /// With something else than a handshake.
    Plain(TcpStream),
    Nothing(String),
}

impl Opened {
    async fn of(shared: &Shared, stream: TcpStream, config: Arc<ServerConfig>) -> Self {
        let Ok(_turn) = shared.tls.handshakes.acquire().await else {
            return Self::Nothing("Vaxel is being stopped".to_owned());
        };
        match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => Self::Tls(Box::new(stream)),
            Err(error) => Self::Nothing(error.to_string()),
        }
    }
}

/// Answers one plain request with where it belongs.
async fn send_away(shared: &Shared, stream: TcpStream) {
    let service = service_fn(|_: hyper::Request<Incoming>| {
        let failure = Failure::new(
            Kind::Malformed,
            "This port speaks HTTPS: use the same address with https://",
        );
        let mut answer = respond::problem(&failure, &request_id(shared));
        let close = http::HeaderValue::from_static("close");
        answer.headers_mut().insert(http::header::CONNECTION, close);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.head_timeout)
        .max_buf_size(shared.config.head_max.max(8 << 10))
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whether who speaks the wrong language reads the answer is nobody's concern.
    let _ = timeout(shared.config.head_timeout, connection).await;
}
