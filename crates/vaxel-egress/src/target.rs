//! The way of a request: wait for a permit, take or open a connection, send, wait for the head.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    pin::pin,
    sync::{Arc, OnceLock, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderValue, Request, Response, Uri, header::HOST, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinHandle, coop::unconstrained},
    time::{Instant, sleep, sleep_until},
};
use url::{Host, Url};

use crate::{
    body::Body,
    config::Config,
    connect::Connector,
    failure::{Error, Stage},
    pool::{Lease, Limits, Pool},
    reply::Reply,
    stream::Stream,
};

/// How often a request that did not leave is tried on another unused connection, before a new one
/// is opened for it.
const REUSES: usize = 2;

/// Makes targets. Cheap to clone; connections close when it and all its targets are gone.
#[derive(Debug, Clone)]
pub struct Egress {
    shared: Arc<Shared>,
}

impl Egress {
    /// Checks the configuration. Opens nothing and reads no file.
    ///
    /// # Errors
    /// [`Error::Roots`] when a configured root certificate cannot be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        let outside = Config {
            allow: config.allow.outside(),
            ..config.clone()
        };
        let limits = Limits::from(&config);
        let (pools, sweeper) = (Mutex::new(HashMap::new()), OnceLock::new());
        let period = (config.idle_timeout / 2).clamp(Duration::from_millis(20), SWEEP);
        let connector = Arc::new(Connector::new(config)?);
        Ok(Self {
            shared: Arc::new(Shared {
                connector,
                limits,
                pools,
                period,
                sweeper,
                outside,
            }),
        })
    }

    /// The same for URLs of others ([`Policy::outside`](crate::Policy::outside)), with connections of its own.
    ///
    /// # Errors
    /// As [`Egress::new`].
    pub fn outside(&self) -> Result<Self, Error> {
        Self::new(self.shared.outside.clone())
    }

    /// A handle for requests to the origin of `url`. Targets of one origin share its connections.
    ///
    /// # Errors
    /// [`Error::BadUrl`] unless the URL is one of HTTP or WebSocket, has a host and holds no
    /// credentials.
    pub fn origin(&self, url: &Url) -> Result<Target, Error> {
        let origin = Origin::new(url)?;
        let uri = path_of(url)?;
        let mut pools = self.shared.pools.lock();
        if let Some(pool) = pools.get(origin.text()).and_then(Weak::upgrade) {
            return Ok(Target {
                pool,
                uri,
                shared: Arc::clone(&self.shared),
            });
        }
        pools.retain(|_, pool| pool.strong_count() > 0);
        let text = Arc::clone(origin.text());
        let connector = Arc::clone(&self.shared.connector);
        let pool = Arc::new(Pool::new(origin, self.shared.limits, connector));
        pools.insert(text, Arc::downgrade(&pool));
        Ok(Target {
            pool,
            uri,
            shared: Arc::clone(&self.shared),
        })
    }
}

impl Egress {
    /// An open byte stream to the origin of `url`, of its own, for what goes on after HTTP (RFC 9110
    /// §7.8). It closes when it is dropped.
    ///
    /// # Errors
    /// [`Error::BadUrl`] as [`Egress::origin`] has it, and what connecting may bring.
    pub async fn connect(
        &self,
        url: &Url,
        deadline: Instant,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, Error> {
        let origin = Origin::new(url)?;
        Ok(TokioIo::new(self.open(&origin, deadline).await?))
    }

    pub(crate) async fn open(&self, origin: &Origin, deadline: Instant) -> Result<Stream, Error> {
        self.shared.connector.open(origin, deadline).await
    }
}

/// Sends requests to one origin. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Target {
    pool: Arc<Pool>,
    uri: Uri,
    /// Keeps the sweeper of unused connections.
    shared: Arc<Shared>,
}

impl Target {
    /// Path and query of the URL that the target was made from: the URI for its requests.
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Where requests go.
    pub fn origin(&self) -> &Origin {
        &self.pool.origin
    }

    /// Sends `request` and waits for the head of the answer, at most until `deadline`.
    ///
    /// Of the request's URI only path and query are used; `Host` is set here. A kept connection that
    /// turns out to be closed before the request has left is replaced, unseen by the caller. When
    /// the future is dropped, the connection is closed.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::was_sent`] tells whether repeating the request is safe.
    pub async fn send(&self, request: Request<Body>, deadline: Instant) -> Result<Reply, Error> {
        let mut request = self.prepare(request);
        let mut lease = self.pool.lease(deadline).await?;
        for _ in 0..REUSES {
            if !lease.reuse() {
                break;
            }
            match self.exchange(&mut lease, request, deadline).await {
                Ok(response) => return Ok(Reply::new(response, lease)),
                Err(Setback::Final(error)) => return Err(error),
                Err(Setback::Unsent(unsent, _)) => request = *unsent,
            }
        }
        lease.open(deadline).await?;
        self.shared.keep_swept();
        match self.exchange(&mut lease, request, deadline).await {
            Ok(response) => Ok(Reply::new(response, lease)),
            Err(Setback::Final(error)) => Err(error),
            Err(Setback::Unsent(_, source)) => {
                let origin = Arc::clone(self.pool.origin.text());
                Err(Error::NotSent {
                    origin,
                    source: source.into(),
                })
            }
        }
    }

    #[cfg(test)]
    pub(crate) async fn lease(&self, deadline: Instant) -> Lease {
        self.pool.lease(deadline).await.expect("a free connection")
    }

    #[cfg(test)]
    pub(crate) fn sweep(&self) {
        self.pool.sweep(Instant::now());
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.pool.idle()
    }

    fn prepare(&self, mut request: Request<Body>) -> Request<Body> {
        request
            .headers_mut()
            .insert(HOST, self.pool.origin.authority.clone());
        if request.uri().authority().is_some() {
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        }
        request
    }

    /// One attempt on the connection that the lease holds.
    ///
    /// The answer can only appear while the connection is driven, which happens right here: so it is
    /// asked for with a waker that wakes nobody, and without the cooperative budget, whose
    /// exhaustion would otherwise hide an answer that has arrived.
    pub(crate) async fn exchange(
        &self,
        lease: &mut Lease,
        request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Setback> {
        let wire = lease
            .wire()
            .expect("a lease has a wire after `reuse` and `open`");
        let mut answer = pin!(unconstrained(wire.sender.try_send_request(request)));
        let mut timer = pin!(sleep_until(deadline));
        let mut written = false;
        let answered = std::future::poll_fn(|cx| {
            let nobody = &mut Context::from_waker(Waker::noop());
            if std::mem::replace(&mut written, true) {
                wire.drive(nobody);
                if let Poll::Ready(answer) = answer.as_mut().poll(nobody) {
                    return Poll::Ready(Some(answer));
                }
            }
            wire.drive(cx);
            if let Poll::Ready(answer) = answer.as_mut().poll(nobody) {
                return Poll::Ready(Some(answer));
            }
            timer.as_mut().poll(cx).map(|()| None)
        });
        let origin = || Arc::clone(self.pool.origin.text());
        match answered.await {
            Some(Ok(response)) => Ok(response),
            None => Err(Setback::Final(Error::TimedOut {
                origin: origin(),
                stage: Stage::Answer,
            })),
            Some(Err(mut failed)) => Err(match failed.take_message() {
                Some(request) => Setback::Unsent(Box::new(request), failed.into_error()),
                None => Setback::Final(self.explain(failed.into_error())),
            }),
        }
    }

    fn explain(&self, error: hyper::Error) -> Error {
        let origin = Arc::clone(self.pool.origin.text());
        if error.is_parse_too_large() {
            Error::TooLarge {
                origin,
                part: "head",
                limit: self.pool.limits.head_bytes,
            }
        } else if error.is_parse() {
            Error::Protocol {
                origin,
                source: error.into(),
            }
        } else if error.is_user() {
            Error::Request {
                origin,
                source: error.into(),
            }
        } else {
            Error::Broken {
                origin,
                stage: Stage::Answer,
                source: error.into(),
            }
        }
    }
}

/// Why an attempt brought no answer.
pub(crate) enum Setback {
    /// The request did not leave; here it is.
    Unsent(Box<Request<Body>>, hyper::Error),
    Final(Error),
}

/// Scheme, host and port of an upstream, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    text: Arc<str>,
    host: Box<str>,
    address: Option<IpAddr>,
    port: u16,
    secure: bool,
    /// What `Host` says (RFC 9112 §3.2).
    authority: HeaderValue,
}

impl Origin {
    /// The origin of `url`.
    ///
    /// # Errors
    /// [`Error::BadUrl`] unless the URL is one of HTTP or WebSocket, has a host and holds no
    /// credentials.
    pub fn new(url: &Url) -> Result<Self, Error> {
        let secure = match url.scheme() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => {
                return Err(bad(
                    url,
                    "it must begin with http://, https://, ws:// or wss://",
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                url,
                "it must not hold a user or password; send them in a header",
            ));
        }
        let no_host = || bad(url, "it names no host");
        let name = url
            .host_str()
            .filter(|name| !name.is_empty())
            .ok_or_else(no_host)?;
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        let authority = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        Ok(Self {
            text: format!("{}://{authority}", url.scheme()).into(),
            host: name.into(),
            address,
            port: url.port_or_known_default().ok_or_else(no_host)?,
            secure,
            authority: HeaderValue::try_from(authority).map_err(|_| no_host())?,
        })
    }

    /// `scheme://host:port`, the port only when it is not the scheme's own.
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The host; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, given or implied by the scheme.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether connections are encrypted.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, when it is an address and no name.
    pub(crate) const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// What the certificate must name.
    pub(crate) fn server_name(&self) -> Option<ServerName<'static>> {
        match self.address {
            Some(address) => Some(ServerName::from(address)),
            None => ServerName::try_from(self.host.to_string()).ok(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn bad(url: &Url, reason: &'static str) -> Error {
    let mut url = url.clone();
    // Both fail for URLs that cannot have credentials: those have none to hide.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Error::BadUrl {
        url: url.into(),
        reason,
    }
}

fn path_of(url: &Url) -> Result<Uri, Error> {
    let text = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let path = PathAndQuery::try_from(text).map_err(|_| bad(url, "its path is no valid one"))?;
    Ok(Uri::from(path))
}

/// Longest time between two looks for unused connections.
const SWEEP: Duration = Duration::from_secs(15);

/// What all targets of an egress have in common.
#[derive(Debug)]
struct Shared {
    connector: Arc<Connector>,
    limits: Limits,
    pools: Mutex<HashMap<Arc<str>, Weak<Pool>>>,
    period: Duration,
    sweeper: OnceLock<JoinHandle<()>>,
    /// What [`Egress::outside`] is made from.
    outside: Config,
}

impl Shared {
    /// Starts the sweeper with the first connection; it ends with its owner.
    fn keep_swept(self: &Arc<Self>) {
        self.sweeper.get_or_init(|| {
            let (shared, period) = (Arc::downgrade(self), self.period);
            tokio::runtime::Handle::current().spawn(async move {
                loop {
                    sleep(period).await;
                    let Some(shared) = shared.upgrade() else {
                        return;
                    };
                    let pools: Vec<_> = shared.pools.lock().values().cloned().collect();
                    for pool in pools.iter().filter_map(Weak::upgrade) {
                        pool.sweep(Instant::now());
                    }
                }
            })
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.get() {
            sweeper.abort();
        }
    }
}
