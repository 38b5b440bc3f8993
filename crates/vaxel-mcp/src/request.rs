//! One request of a client with its era taken off: the bytes as they came, and where in them the
//! things stand that a gateway has to read or change.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{
    envelope::{Envelope, Malformed, is_request_id, span},
    level::Level,
    meta::{self, RequestMeta},
    method::Method,
    revision::Era,
    splice::Splice,
};

/// A request. Ranges are positions in `body`.
#[derive(Debug, Clone)]
pub struct Request {
    body: Bytes,
    id: Range<usize>,
    method: Method,
    /// Name of a method that we do not know.
    other: Option<Box<str>>,
    params: Option<Range<usize>>,
    /// Where `params` stands that is `null`, which means the same as none.
    null_params: Option<Range<usize>>,
    key: Option<Range<usize>>,
    meta: Option<Range<usize>>,
    progress_token: Option<Range<usize>>,
    arguments: Option<Range<usize>>,
    is_retry: bool,
    /// `_meta` says who calls, which is not for the client to say.
    claims_identity: bool,
}

/// What the retry of a request brings (MCP 2026-07-28, Patterns, "Multi Round-Trip Requests").
#[derive(Debug, Clone, Deserialize)]
pub struct Input<'a> {
    /// Answers under the keys of their questions; an object.
    #[serde(borrow, default, rename = "inputResponses")]
    pub responses: Option<&'a RawValue>,
    /// What the server gave with its questions, raw.
    #[serde(borrow, default, rename = "requestState")]
    pub state: Option<&'a RawValue>,
}

/// What a request says besides its target: who asks, in which revision, wanting which logs.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// `_meta` names a protocol version: the request claims to be modern.
    pub version: Option<String>,
    /// `_meta` declares client capabilities.
    pub has_capabilities: bool,
    /// Least severe log message wanted.
    pub log_level: Option<Level>,
    /// W3C trace id (32 hex digits) of `traceparent`.
    pub trace_id: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "taskId")]
    task: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<Reference<'a>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "inputResponses")]
    responses: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestState")]
    state: Option<&'a RawValue>,
    /// `null` too: its place is needed.
    #[serde(borrow, default, rename = "_meta", deserialize_with = "present")]
    meta: Option<&'a RawValue>,
}

/// What `completion/complete` completes.
#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
}

/// How a request is told to an upstream.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// Replaces the id; `None` keeps the client's.
    pub id: Option<u64>,
    /// Replaces name or URI, as raw JSON string; `None` keeps it.
    pub key: Option<&'a str>,
    /// Replaces the progress token when the request has one; `None` keeps it.
    pub progress_token: Option<u64>,
    /// What happens to `_meta`.
    pub meta: MetaChange<'a>,
    /// Who calls, as a JSON string, for a server that asks. What the client says of that goes in any case.
    pub identity: Option<&'a str>,
}

/// What happens to a request's `_meta` on the way to an upstream.
#[derive(Debug, Clone, Copy)]
pub enum MetaChange<'a> {
    /// Both sides are of one era.
    Keep,
    /// Modern client, legacy upstream: the reserved keys go.
    Strip,
    /// Legacy client, modern upstream: what the session knows is said with the request.
    Add(&'a ModernMeta),
}

/// What a legacy session knows that a modern upstream wants to hear with every request; ready JSON.
#[derive(Debug, Clone)]
pub struct ModernMeta {
    /// Client capabilities, an object.
    pub capabilities: Box<str>,
    /// Client name and version, an object.
    pub info: Box<str>,
    /// Least severe log message wanted; absent: none.
    pub log_level: Option<Level>,
}

impl Request {
    /// Reads a request and what it claims about itself.
    pub fn read(body: Bytes, envelope: &Envelope<'_>) -> Result<(Self, Claims), Malformed> {
        let method = Method::of(envelope.method.as_deref().unwrap_or_default());
        let id = envelope.id.filter(|id| is_request_id(id));
        let id = id.ok_or(Malformed::Message("the id must be a string or an integer"))?;
        let place = |raw: &RawValue| span(&body, raw);
        let id = place(id).ok_or(Malformed::Message("the id cannot be located"))?;
        let mut request = Self {
            id,
            method,
            other: (method == Method::Other)
                .then(|| envelope.method.as_deref().unwrap_or_default().into()),
            params: None,
            null_params: None,
            key: None,
            meta: None,
            progress_token: None,
            arguments: None,
            is_retry: false,
            claims_identity: false,
            body: Bytes::new(),
        };
        let mut claims = Claims::default();
        if let Some(raw) = envelope.params {
            if !raw.get().starts_with('{') {
                return Err(Malformed::Message("`params` must be an object"));
            }
            let params: Params<'_> = serde_json::from_str(raw.get())
                .map_err(|_| Malformed::Message("`params` must be an object"))?;
            let key = params.key(method);
            request.params = place(raw);
            request.key = key.filter(|key| key.get().starts_with('"')).and_then(place);
            request.meta = params.meta.and_then(place);
            request.arguments = params.arguments.and_then(place);
            request.is_retry = params.responses.is_some() || params.state.is_some();
            if let Some(meta) = params.meta.filter(|meta| meta.get() != "null") {
                const SHAPE: Malformed =
                    Malformed::Message("`_meta` is not what the revision allows");
                // serde would read an array as a struct, member by member.
                if !meta.get().starts_with('{') {
                    return Err(SHAPE);
                }
                let meta: RequestMeta<'_> = serde_json::from_str(meta.get()).map_err(|_| SHAPE)?;
                request.progress_token = meta.progress_token.and_then(place);
                request.claims_identity = meta.identity.is_some();
                claims.log_level = meta.log_level.as_deref().and_then(Level::of);
                claims.trace_id = meta.traceparent.as_deref().and_then(trace_id);
                claims.has_capabilities = meta
                    .client_capabilities
                    .is_some_and(|raw| raw.get().starts_with('{'));
                claims.version = meta.protocol_version.map(Cow::into_owned);
            }
        } else {
            request.null_params = null_params(&body);
        }
        request.body = body;
        Ok((request, claims))
    }

    /// A request that Vaxel makes itself; `params` is an object.
    pub fn own(id: u64, method: Method, params: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(params.len() + 80);
        out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
        out.extend_from_slice(id.to_string().as_bytes());
        out.extend_from_slice(br#","method":"#);
        meta::quote(&mut out, method.as_str());
        out.extend_from_slice(br#","params":"#);
        out.extend_from_slice(params);
        out.push(b'}');
        out.into()
    }

    /// The method.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The method's name, as the client wrote it.
    pub fn method_name(&self) -> &str {
        self.other
            .as_deref()
            .unwrap_or_else(|| self.method.as_str())
    }

    /// The id, raw.
    pub fn id(&self) -> &[u8] {
        &self.body[self.id.clone()]
    }

    /// The whole message.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// `params`, raw; absent when the request has none.
    pub fn params(&self) -> Option<&str> {
        self.text(self.params.as_ref())
    }

    /// `params.arguments`, raw.
    pub fn arguments(&self) -> Option<&str> {
        self.text(self.arguments.as_ref())
    }

    /// What it brings when it is the retry of an earlier request.
    pub fn input(&self) -> Option<Input<'_>> {
        self.is_retry.then(|| self.read_params())?
    }

    /// The same request as a retry that brings these, under another id (raw).
    pub fn retried(&self, id: &[u8], input: &Input<'_>) -> Result<Self, Malformed> {
        let params = self.params().unwrap_or("{}");
        let params: Option<&RawValue> = serde_json::from_str(params).ok();
        let mut set: Vec<(&str, &[u8])> = Vec::with_capacity(2);
        if let Some(responses) = input.responses {
            set.push(("inputResponses", responses.get().as_bytes()));
        }
        if let Some(state) = input.state {
            set.push(("requestState", state.get().as_bytes()));
        }
        let gone = |name: &str| matches!(name, "inputResponses" | "requestState");
        self.with_params(Some(id), &meta::rewrite(params, gone, &set))
    }

    /// The same call, of another tool with other arguments (raw).
    pub fn turned_to(&self, name: &str, arguments: &str) -> Result<Self, Malformed> {
        let mut quoted = Vec::with_capacity(name.len() + 2);
        meta::quote(&mut quoted, name);
        let params: Option<&RawValue> =
            self.params().and_then(|all| serde_json::from_str(all).ok());
        let gone = |member: &str| matches!(member, "name" | "arguments");
        let set: [(&str, &[u8]); 2] = [("name", &quoted), ("arguments", arguments.as_bytes())];
        self.with_params(None, &meta::rewrite(params, gone, &set))
    }

    /// The same request with other `params`, and under another id where one is given (raw).
    fn with_params(&self, id: Option<&[u8]>, params: &[u8]) -> Result<Self, Malformed> {
        const NONE: Malformed = Malformed::Message("a request without `params` cannot be changed");
        let mut splice = Splice::new(&self.body);
        if let Some(id) = id {
            splice.replace(self.id.clone(), id);
        }
        splice.replace(self.params.clone().ok_or(NONE)?, params);
        let body = splice.apply();
        let envelope = Envelope::parse(&body)?;
        Self::read(body.clone(), &envelope).map(|(request, _)| request)
    }

    /// The client capabilities that a modern request declares, raw.
    pub fn capabilities(&self) -> Option<&RawValue> {
        let meta: RequestMeta<'_> = serde_json::from_str(self.meta()?).ok()?;
        meta.client_capabilities
    }

    /// `params._meta`, raw.
    pub fn meta(&self) -> Option<&str> {
        self.text(self.meta.as_ref())
    }

    /// The progress token, raw.
    pub fn progress_token(&self) -> Option<Bytes> {
        self.progress_token
            .clone()
            .map(|range| self.body.slice(range))
    }

    /// Name of the tool or prompt, or URI of the resource, that is meant; borrowed unless escaped.
    pub fn key(&self) -> Option<Cow<'_, str>> {
        let raw = self.text(self.key.as_ref())?;
        let plain = &raw[1..raw.len() - 1];
        if plain.contains('\\') {
            return serde_json::from_str(raw).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(plain))
    }

    /// `params` read as `T`.
    pub fn read_params<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(self.params().unwrap_or("{}")).ok()
    }

    /// The message for an upstream. Costs one allocation when something changes, none otherwise.
    pub fn forward(&self, forward: &Forward<'_>) -> Bytes {
        let id = forward.id.map(|id| id.to_string());
        let token = forward.progress_token.map(|token| token.to_string());
        let meta = self.changed_meta(forward, token.as_deref());
        let mut splice = Splice::new(&self.body);
        if let Some(id) = &id {
            splice.replace(self.id.clone(), id.as_bytes());
        }
        if let (Some(range), Some(key)) = (&self.key, forward.key) {
            splice.replace(range.clone(), key.as_bytes());
        }
        match (&meta, &token) {
            (Some(NewMeta { range, text }), _) => splice.replace(range.clone(), text),
            (None, Some(token)) => {
                if let Some(range) = &self.progress_token {
                    splice.replace(range.clone(), token.as_bytes());
                }
            }
            (None, None) => {
                if id.is_none() && forward.key.is_none() {
                    return self.body.clone();
                }
            }
        }
        splice.apply()
    }

    /// The new `_meta` and where it goes; `None` when it stays.
    fn changed_meta(&self, forward: &Forward<'_>, token: Option<&str>) -> Option<NewMeta> {
        let identity = forward.identity;
        let old = self
            .meta()
            .and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        let token = token.filter(|_| self.progress_token.is_some());
        let mut set: Vec<(&str, &[u8])> = Vec::with_capacity(6);
        if let Some(token) = token {
            set.push(("progressToken", token.as_bytes()));
        }
        if let Some(identity) = identity {
            set.push((meta::IDENTITY, identity.as_bytes()));
        }
        let claims = |key: &str| self.claims_identity && key == meta::IDENTITY;
        let text = match forward.meta {
            MetaChange::Keep if identity.is_none() && !self.claims_identity => return None,
            MetaChange::Keep => meta::rewrite(old, claims, &set),
            MetaChange::Strip => {
                identity.or(old.map(RawValue::get))?;
                meta::rewrite(old, |key| meta::is_modern_key(key) || claims(key), &set)
            }
            MetaChange::Add(facts) => {
                set.push((meta::PROTOCOL_VERSION, MODERN_VERSION));
                set.push((meta::CLIENT_CAPABILITIES, facts.capabilities.as_bytes()));
                set.push((meta::CLIENT_INFO, facts.info.as_bytes()));
                if let Some(level) = facts.log_level {
                    set.push((meta::LOG_LEVEL, level.as_json().as_bytes()));
                }
                meta::rewrite(old, claims, &set)
            }
        };
        Some(self.place_meta(text))
    }

    /// In place of the old `_meta`, else as first member of `params`, else with new `params`.
    fn place_meta(&self, meta: Vec<u8>) -> NewMeta {
        if let Some(range) = &self.meta {
            return NewMeta {
                range: range.clone(),
                text: meta,
            };
        }
        let mut text = Vec::with_capacity(meta.len() + 24);
        if let Some(params) = &self.params {
            let rest = &self.body[params.start + 1..params.end];
            let empty = rest
                .iter()
                .all(|byte| byte.is_ascii_whitespace() || *byte == b'}');
            text.extend_from_slice(br#""_meta":"#);
            text.extend_from_slice(&meta);
            if !empty {
                text.push(b',');
            }
            return NewMeta {
                range: params.start + 1..params.start + 1,
                text,
            };
        }
        if self.null_params.is_none() {
            text.extend_from_slice(br#","params":"#);
        }
        text.extend_from_slice(br#"{"_meta":"#);
        text.extend_from_slice(&meta);
        text.push(b'}');
        let range = self.null_params.clone();
        NewMeta {
            range: range.unwrap_or(self.id.end..self.id.end),
            text,
        }
    }

    fn text(&self, range: Option<&Range<usize>>) -> Option<&str> {
        // The ranges were cut from valid JSON text, so they are valid UTF-8.
        range.and_then(|range| std::str::from_utf8(&self.body[range.clone()]).ok())
    }
}

impl<'a> Params<'a> {
    /// The member that says what is meant.
    fn key(&self, method: Method) -> Option<&'a RawValue> {
        match method {
            Method::Complete => self.reference.as_ref().and_then(|it| it.name.or(it.uri)),
            method => match method.addressed_by() {
                Some("uri") => self.uri,
                Some("taskId") => self.task,
                _ => self.name,
            },
        }
    }
}

/// A member that is there, whatever its value.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Where `params` stands in a message whose envelope has none.
fn null_params(body: &[u8]) -> Option<Range<usize>> {
    let members = meta::members(std::str::from_utf8(body).ok()?)?;
    let (_, value) = members.iter().find(|(key, _)| key == "params")?;
    span(body, value)
}

struct NewMeta {
    range: Range<usize>,
    text: Vec<u8>,
}

const MODERN_VERSION: &[u8] = br#""2026-07-28""#;

/// The trace id in a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_id(traceparent: &str) -> Option<Box<str>> {
    let id = traceparent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.into())
}

/// What a peer's era means for the `_meta` of a forwarded request.
pub const fn meta_change(client: Era, upstream: Era, facts: &ModernMeta) -> MetaChange<'_> {
    match (client, upstream) {
        (Era::Modern, Era::Modern) | (Era::Legacy, Era::Legacy) => MetaChange::Keep,
        (Era::Modern, Era::Legacy) => MetaChange::Strip,
        (Era::Legacy, Era::Modern) => MetaChange::Add(facts),
    }
}

#[cfg(test)]
mod tests;
