//! An instance of a service that speaks HTTP and no MCP: its tools are called by
//! `POST {base}/tools/{tool}`, with their arguments as the body.
//!
//! What is above sees a modern server whose tools are those that were declared and whose results are
//! always complete. Dropping a call closes its connection, which is how the service learns of it.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{sync::Notify, time::Instant};
use url::Url;
use vaxel_core::failure::{Failure, Kind};
use vaxel_egress::{Body, Egress, Reply, Target};
use vaxel_mcp::{
    error::{INVALID_PARAMS, METHOD_NOT_FOUND},
    handshake::ServerFacts,
    method::Method,
    plain::{self, Plain},
    response::{self, Response},
    revision::Revision,
};

use super::{Answer, NowPlus, Outbound, http_link::request, introduction::Told, pulse::was_unsent};

/// Carries the id of the call, under which Vaxel recorded it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest answer to a look at its health, bytes; what is longer counts as well.
const HEALTH_MAX: usize = 64 << 10;
/// Longest wait for that answer when a call found nobody there.
const LOOK: Duration = Duration::from_secs(5);

/// Where and how an instance is called.
pub(crate) struct ToolsAddress {
    pub(crate) egress: Egress,
    pub(crate) name: Box<str>,
    /// What stands before `/tools/{tool}`.
    pub(crate) base: Url,
    /// Answers 2xx while it works; without it, taking a connection is enough.
    pub(crate) health: Option<Url>,
    pub(crate) headers: HeaderMap,
    /// Definitions of MCP 2026-07-28.
    pub(crate) tools: Vec<Box<RawValue>>,
    pub(crate) response_max: usize,
}

pub(crate) struct HttpTools {
    target: Target,
    name: Box<str>,
    /// What every call carries: content type, accept, the service's own headers.
    base: HeaderMap,
    calls: HashMap<Box<str>, Uri>,
    /// The result of `tools/list`.
    list: Bytes,
    check: Check,
    /// A call found nobody there.
    doubt: Notify,
    response_max: usize,
}

/// How it is found out whether an instance works.
enum Check {
    Get { uri: Uri, headers: HeaderMap },
    Connect { egress: Egress, url: Url },
}

impl HttpTools {
    /// Reads the address; asks nothing.
    pub(crate) fn new(address: ToolsAddress) -> Result<Self, Failure> {
        let calls = calls(&address)?;
        let mut base = address.headers.clone();
        let json = HeaderValue::from_static("application/json");
        base.insert(header::CONTENT_TYPE, json);
        let accept = HeaderValue::from_static("application/json, */*;q=0.8");
        base.insert(header::ACCEPT, accept);
        let definitions: Vec<&str> = address.tools.iter().map(|tool| tool.get()).collect();
        let list = format!(
            r#"{{"resultType":"complete","tools":[{}]}}"#,
            definitions.join(",")
        );
        let check = match address.health {
            Some(url) => Check::Get {
                uri: address.egress.origin(&url)?.uri().clone(),
                headers: address.headers,
            },
            None => Check::Connect {
                egress: address.egress.clone(),
                url: address.base.clone(),
            },
        };
        Ok(Self {
            target: address.egress.origin(&address.base)?,
            name: address.name,
            base,
            calls,
            list: list.into(),
            check,
            doubt: Notify::new(),
            response_max: address.response_max,
        })
    }

    /// What such a service is to its callers.
    pub(crate) fn facts() -> ServerFacts {
        let object = |text: &'static str| {
            let read: Option<&RawValue> = serde_json::from_str(text).ok();
            read.unwrap_or(RawValue::NULL).to_owned()
        };
        ServerFacts {
            revision: Revision::LATEST,
            capabilities: object(r#"{"tools":{}}"#),
            server_info: object("{}"),
            instructions: None,
        }
    }

    pub(super) async fn exchange(&self, out: &Outbound<'_>) -> Result<Answer, Failure> {
        let id = out.request.id();
        let body = match out.request.method() {
            Method::ToolsCall => match self.calls.get(out.key) {
                Some(uri) => response::result(id, &self.call(uri, out).await?),
                None => response::error(id, INVALID_PARAMS, "Unknown tool", None),
            },
            Method::ToolsList => response::result(id, &self.list),
            Method::Discover => {
                self.check(out.deadline).await?;
                response::result(id, br#"{"resultType":"complete"}"#)
            }
            _ => response::error(id, METHOD_NOT_FOUND, "The service has tools only", None),
        };
        Response::read(body)
            .map(Answer::Done)
            .map_err(Failure::internal)
    }

    /// Calls a tool; its result.
    async fn call(&self, uri: &Uri, out: &Outbound<'_>) -> Result<Vec<u8>, Failure> {
        let body = match out.request.arguments() {
            // They are a part of the body, as it came.
            Some(arguments) => out.request.body().slice_ref(arguments.as_bytes()),
            None => Bytes::from_static(b"{}"),
        };
        let mut post = request(
            Verb::POST,
            &self.target,
            self.headers(out),
            Body::Full(body),
        );
        *post.uri_mut() = uri.clone();
        let reply = match self.target.send(post, out.deadline).await {
            Ok(reply) => reply,
            Err(error) => {
                let failure = Failure::from(error);
                if was_unsent(&failure) {
                    self.doubt.notify_one();
                }
                return Err(failure);
            }
        };
        self.read(reply, out).await
    }

    /// The headers of a call: the trace that it belongs to, its id, and who asks, where the service wants to know.
    fn headers(&self, out: &Outbound<'_>) -> HeaderMap {
        let mut headers = self.base.clone();
        if let Some(call) = out.call
            && let Ok(id) = HeaderValue::try_from(call.to_string())
        {
            headers.insert(REQUEST_ID, id);
        }
        headers.extend(out.told.map(Told::header));
        let meta = out.request.meta().unwrap_or("{}");
        let meta: Trace<'_> = serde_json::from_str(meta).unwrap_or_default();
        for (name, value) in [
            ("traceparent", meta.traceparent),
            ("tracestate", meta.tracestate),
            ("baggage", meta.baggage),
        ] {
            let value = value.and_then(|text| HeaderValue::from_str(&text).ok());
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// What the service answered, as a result: also where it refuses, since a model can do something
    /// about that. Where it fails there is none.
    async fn read(&self, reply: Reply, out: &Outbound<'_>) -> Result<Vec<u8>, Failure> {
        let Reply { parts, mut body } = reply;
        let status = parts.status;
        if status.is_server_error() {
            // Servers that fail may end the connection a moment later, without having said so: no other
            // call may be on it then.
            body.detach();
        }
        let body = body.collect(self.response_max, out.deadline).await?;
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let plain = Plain {
            content_type: content_type.and_then(|value| value.to_str().ok()),
            body: &body,
        };
        let name = &self.name;
        let said = || match plain.reason() {
            Some(reason) => format!("({status}): {reason}"),
            None => format!("({status})"),
        };
        if status.is_success() {
            let uri = format!("vaxel://{name}/tools/{}", out.key);
            return plain.result(&uri).map_err(|error| {
                let detail = format!("The answer of `{name}` cannot be used: {error}");
                Failure::new(Kind::UpstreamProtocol, detail)
            });
        }
        if status.is_client_error() {
            return Ok(plain::failed(&format!(
                "`{name}` refuses the call {}",
                said()
            )));
        }
        if status.is_server_error() {
            let detail = format!("`{name}` could not answer {}", said());
            let mut failure = Failure::new(Kind::UpstreamUnavailable, detail);
            failure.retry_after = retry_after(&parts.headers);
            return Err(failure);
        }
        let detail = format!(
            "`{name}` answered {status}, which is no answer to a call; check its `base_path`"
        );
        Err(Failure::new(Kind::UpstreamProtocol, detail))
    }

    /// Whether the instance works.
    pub(crate) async fn check(&self, deadline: Instant) -> Result<(), Failure> {
        let (uri, headers) = match &self.check {
            Check::Connect { egress, url } => {
                return Ok(egress.connect(url, deadline).await.map(drop)?);
            }
            Check::Get { uri, headers } => (uri, headers),
        };
        let mut get = request(Verb::GET, &self.target, headers.clone(), Body::Empty);
        *get.uri_mut() = uri.clone();
        let reply = self.target.send(get, deadline).await?;
        let status = reply.parts.status;
        // What it says is not looked at; a short text is read, so that the connection can be kept.
        let _ = reply.body.collect(HEALTH_MAX, deadline).await;
        if status.is_success() {
            return Ok(());
        }
        let name = &self.name;
        let detail = match status {
            StatusCode::NOT_FOUND => {
                format!("`{name}` has no {uri} ({status}); check its `health_path`")
            }
            _ => format!("`{name}` says at {uri} that it does not work ({status})"),
        };
        Err(Failure::new(Kind::UpstreamUnavailable, detail))
    }

    /// Resolves, with the reason, when a call found nobody there and a look finds nobody either.
    pub(super) async fn gone(&self) -> String {
        loop {
            self.doubt.notified().await;
            if let Err(failure) = self.check(Instant::now_plus(LOOK)).await {
                return failure.detail.into_owned();
            }
        }
    }
}

/// The trace that a call belongs to (W3C Trace Context and Baggage), as `_meta` has it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Trace<'a> {
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tracestate: Option<Cow<'a, str>>,
    #[serde(borrow)]
    baggage: Option<Cow<'a, str>>,
}

/// Where each tool is called.
fn calls(address: &ToolsAddress) -> Result<HashMap<Box<str>, Uri>, Failure> {
    #[derive(Deserialize)]
    struct Named {
        name: Box<str>,
    }
    let place = |tool: &RawValue| {
        let Named { name } = serde_json::from_str(tool.get()).map_err(Failure::internal)?;
        let mut url = address.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("tools").push(&name);
        }
        let uri = address.egress.origin(&url)?.uri().clone();
        Ok((name, uri))
    };
    address.tools.iter().map(|tool| place(tool)).collect()
}

fn retry_after(headers: &HeaderMap) -> Option<u32> {
    let value = headers.get(header::RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok()
}
