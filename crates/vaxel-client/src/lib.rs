//! What a program needs to talk to Vaxel: a client of the management API.
//!
//! The command line uses it, and servers can embed it. It knows addresses, keys, problem documents
//! and streams; what the resources mean, its callers know.
mod local;
mod problem;
mod trust; // certificates of servers

pub use local::{ADMIN_KEY, Local, RunFile, is_alive};
pub use problem::{Error, FieldProblem, Problem};
pub use trust::fingerprint;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use url::Url;
use vaxel_core::sse;
use vaxel_egress::{Body, Egress, Reply, ReplyBody, Roots, Target};

/// Largest answer, bytes.
const ANSWER_MAX: usize = 64 << 20;
/// Largest event of a stream, bytes.
const EVENT_MAX: usize = 16 << 20;
/// Longest wait for an answer, unless the caller says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for the next piece of a long answer.
const PIECE_TIMEOUT: Duration = Duration::from_mins(1);

/// A client of one Vaxel.
#[derive(Clone)]
pub struct Client {
    target: Target,
    base: Url,
    headers: HeaderMap,
    timeout: Duration,
}

impl Client {
    /// A client of the Vaxel at `base`, showing `key` when there is one.
    pub fn new(base: &Url, key: Option<&str>) -> Result<Self, Error> {
        Self::trusting(base, key, Roots::System)
    }

    /// The same of one whose certificate nobody else may know.
    pub fn trusting(base: &Url, key: Option<&str>, roots: Roots) -> Result<Self, Error> {
        let egress = Egress::new(vaxel_egress::Config {
            roots,
            ..vaxel_egress::Config::default()
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            let value = HeaderValue::from_str(&format!("Bearer {}", key.trim()));
            let mut value = value.map_err(|_| Error::BadKey)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Self {
            target: egress.origin(base)?,
            base: base.clone(),
            headers,
            timeout: TIMEOUT,
        })
    }

    /// The same client with another longest wait.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same client, saying which program it is (`User-Agent`).
    pub fn named(mut self, agent: &'static str) -> Self {
        let agent = HeaderValue::from_static(agent);
        self.headers.insert(header::USER_AGENT, agent);
        self
    }

    /// Where it leads.
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// Reads `path`, such as `/api/v1/services`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.json(Method::GET, path, Bytes::new(), None).await
    }

    /// Posts `body` to `path`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Error> {
        self.json(Method::POST, path, to_bytes(body)?, None).await
    }

    /// Posts a form to `path`, as the endpoints of OAuth take it.
    pub async fn post_form<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<T, Error> {
        let mut asking = self.clone();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        asking.headers.insert(header::CONTENT_TYPE, kind);
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        asking.json(Method::POST, path, body.into(), None).await
    }

    /// Puts `body` in the place of what is at `path`, when it still has `version`.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        version: Option<u64>,
    ) -> Result<T, Error> {
        self.json(Method::PUT, path, to_bytes(body)?, version).await
    }

    /// Deletes what is at `path`.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let reply = self.send(Method::DELETE, path, Bytes::new(), None).await?;
        self.read(reply).await.map(drop)
    }

    /// The body at `path` as text.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        let reply = self.send(Method::GET, path, Bytes::new(), None).await?;
        let body = self.read(reply).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The events of a stream at `path`.
    pub async fn stream(&self, path: &str) -> Result<Events, Error> {
        let mut asking = self.clone();
        let events = HeaderValue::from_static("text/event-stream");
        asking.headers.insert(header::ACCEPT, events);
        let reply = asking.send(Method::GET, path, Bytes::new(), None).await?;
        if !reply.parts.status.is_success() {
            return Err(self.failed(reply).await);
        }
        let mut body = reply.body;
        body.detach();
        Ok(Events {
            body,
            decoder: sse::Decoder::new(EVENT_MAX),
        })
    }

    /// Posts `body` to `path`, and takes an answer of any length, piece by piece.
    pub async fn download(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<Download, Error> {
        let reply = self.send(Method::POST, path, to_bytes(body)?, None).await?;
        if !reply.parts.status.is_success() {
            return Err(self.failed(reply).await);
        }
        Ok(Download(reply.body))
    }

    /// Reads `path`, and takes an answer of any length, piece by piece.
    pub async fn read_all(&self, path: &str) -> Result<Download, Error> {
        let reply = self.send(Method::GET, path, Bytes::new(), None).await?;
        if !reply.parts.status.is_success() {
            return Err(self.failed(reply).await);
        }
        Ok(Download(reply.body))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        version: Option<u64>,
    ) -> Result<T, Error> {
        let reply = self.send(method, path, body, version).await?;
        let body = self.read(reply).await?;
        let body = if body.is_empty() {
            Bytes::from_static(b"null")
        } else {
            body
        };
        serde_json::from_slice(&body).map_err(Error::Unreadable)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        version: Option<u64>,
    ) -> Result<Reply, Error> {
        let mut request = http::Request::new(Body::Empty);
        *request.headers_mut() = self.headers.clone();
        if !body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            let headers = request.headers_mut();
            headers.entry(header::CONTENT_TYPE).or_insert(json);
            *request.body_mut() = Body::Full(body);
        }
        if let Some(version) = version
            && let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\""))
        {
            request.headers_mut().insert(header::IF_MATCH, tag);
        }
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| Error::BadPath(path.to_owned()))?;
        let sent = self.target.send(request, deadline(self.timeout)).await;
        sent.map_err(|error| Error::unreachable(&self.base, error))
    }

    async fn read(&self, reply: Reply) -> Result<Bytes, Error> {
        if !reply.parts.status.is_success() {
            return Err(self.failed(reply).await);
        }
        Ok(reply
            .body
            .collect(ANSWER_MAX, deadline(self.timeout))
            .await?)
    }

    async fn failed(&self, reply: Reply) -> Error {
        let status: StatusCode = reply.parts.status;
        match reply.body.collect(ANSWER_MAX, deadline(self.timeout)).await {
            Ok(body) => Error::Problem(Box::new(Problem::read(status, &body))),
            Err(error) => error.into(),
        }
    }
}

/// A path segment that may hold any character.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn to_bytes(body: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(Error::Unreadable)
}

fn deadline(within: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(within).unwrap_or(now)
}

/// An answer that is read piece by piece.
pub struct Download(ReplyBody);

impl Download {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = tokio::time::timeout(PIECE_TIMEOUT, self.0.frame()).await;
            let Some(frame) = frame.map_err(|_| Error::Silent)? else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// Server-sent events as they come.
pub struct Events {
    body: ReplyBody,
    decoder: sse::Decoder,
}

impl Events {
    /// The next event: its kind (`message` when it has none) and its data. `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(String, String)>, Error> {
        loop {
            if let Some(event) = self.decoder.next() {
                return event.map(readable).map(Some).map_err(Error::Endless);
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.decoder.push(&data);
            }
        }
    }
}

fn readable(event: sse::Event) -> (String, String) {
    let kind = match event.kind {
        kind if kind.is_empty() => "message".to_owned(),
        kind => kind,
    };
    (kind, String::from_utf8_lossy(&event.data).into_owned())
}
