//! A client that says exactly what it is told, on a connection per request.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::PATIENCE;

pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const LEGACY: &str = "2025-11-25";

/// Who speaks, and in which era.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// What it declares that it can do, an object.
    capabilities: String,
    pub(crate) modern: bool,
}

/// A request as it is put on the wire.
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) method: String,
    /// The members of `params` as JSON, without `_meta`.
    pub(crate) params: String,
    /// Further members of `_meta` as JSON.
    pub(crate) meta: String,
}

impl Message {
    pub(crate) fn new(method: &str, params: &str) -> Self {
        Self {
            id: "1".to_owned(),
            method: method.to_owned(),
            params: params.to_owned(),
            meta: String::new(),
        }
    }

    pub(crate) fn call(tool: &str, arguments: &str) -> Self {
        Self::new(
            "tools/call",
            &format!(r#""name":"{tool}","arguments":{arguments}"#),
        )
    }

    pub(crate) fn id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    pub(crate) fn meta(mut self, meta: &str) -> Self {
        meta.clone_into(&mut self.meta);
        self
    }

    /// Asks for progress under this token, raw.
    pub(crate) fn token(self, token: &str) -> Self {
        self.meta(&format!(r#""progressToken":{token}"#))
    }
}

impl Client {
    pub(crate) fn modern(address: SocketAddr, key: &str) -> Self {
        let mut client = Self::silent(address, key);
        client.modern = true;
        client.set("mcp-protocol-version", MODERN);
        client
    }

    /// Has opened no session.
    pub(crate) fn silent(address: SocketAddr, key: &str) -> Self {
        let headers = [
            ("host", address.to_string()),
            ("authorization", format!("Bearer {key}")),
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
        ];
        Self {
            address,
            path: "/mcp".to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            modern: false,
            capabilities: "{}".to_owned(),
        }
    }

    /// Declares these capabilities from now on, an object.
    pub(crate) fn able(mut self, capabilities: &str) -> Self {
        capabilities.clone_into(&mut self.capabilities);
        self
    }

    pub(crate) async fn legacy(address: SocketAddr, key: &str) -> Self {
        Self::silent(address, key).opened(LEGACY).await
    }

    /// Opens a session.
    pub(crate) async fn opened(mut self, version: &str) -> Self {
        let answer = self.initialize(version).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        self.set("mcp-session-id", answer.header("mcp-session-id").unwrap());
        self.set("mcp-protocol-version", version);
        let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(self.post(told).await.status, 202);
        self
    }

    pub(crate) async fn initialize(&self, version: &str) -> Answer {
        let able: Value = serde_json::from_str(&self.capabilities).unwrap();
        let params = json!({"protocolVersion": version, "capabilities": able,
            "clientInfo": {"name": "test", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        self.post(&body.to_string()).await
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// The same client, with its session, at another gateway.
    pub(crate) fn moved(&self, address: SocketAddr) -> Self {
        let mut moved = self.clone().with("host", &address.to_string());
        moved.address = address;
        moved
    }

    pub(crate) fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The body of a message in the client's era.
    pub(crate) fn body(&self, message: &Message) -> String {
        let Message {
            id,
            method,
            params,
            meta,
        } = message;
        let mut all = meta.clone();
        if self.modern {
            let claims = format!(
                r#""io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{{"name":"test","version":"1"}}"#,
                self.capabilities
            );
            all = if all.is_empty() {
                claims
            } else {
                format!("{claims},{all}")
            };
        }
        let comma = if params.is_empty() { "" } else { "," };
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{comma}"_meta":{{{all}}}}}}}"#
        )
    }

    /// Sends a message and reads the whole answer.
    pub(crate) async fn say(&self, message: &Message) -> Answer {
        self.open(message).await.read().await
    }

    /// Calls a tool and returns the JSON of the answer.
    pub(crate) async fn call(&self, tool: &str, arguments: &str) -> Value {
        self.say(&Message::call(tool, arguments)).await.json()
    }

    /// The names on all pages of `tools/list`.
    pub(crate) async fn tools(&self) -> Vec<String> {
        let answer = self.say(&Message::new("tools/list", "")).await.json();
        names(&answer)
    }

    /// Sends a message; the answer is read later.
    pub(crate) async fn open(&self, message: &Message) -> Stream {
        let mut client = self.clone();
        if self.modern {
            let body: Value = serde_json::from_str(&self.body(message)).unwrap();
            client.set("mcp-method", &message.method);
            let name = body["params"]["name"]
                .as_str()
                .or(body["params"]["uri"].as_str());
            if let Some(name) = name {
                client.set("mcp-name", name);
            }
        }
        client.send(Method::POST, self.body(message)).await
    }

    pub(crate) async fn post(&self, body: &str) -> Answer {
        self.send(Method::POST, body.to_owned()).await.read().await
    }

    /// Posts a body in pieces, without saying how long it will be.
    pub(crate) async fn post_unannounced(&self, pieces: Vec<Bytes>) -> Answer {
        let pieces = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        self.request(Method::POST, body.boxed_unsync())
            .await
            .read()
            .await
    }

    /// One request; the connection ends with what is returned.
    pub(crate) async fn send(&self, verb: Method, body: impl Into<Bytes>) -> Stream {
        self.request(verb, Full::new(body.into()).boxed_unsync())
            .await
    }

    async fn request(&self, verb: Method, body: UnsyncBoxBody<Bytes, Infallible>) -> Stream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // The request says itself how it ended.
            let _ = connection.await;
        });
        let mut request = Request::new(body);
        *request.method_mut() = verb;
        *request.uri_mut() = self.path.parse().unwrap();
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let response = timeout(PATIENCE, sender.send_request(request)).await;
        let (head, body) = response.expect("no answer").unwrap().into_parts();
        Stream {
            status: head.status,
            headers: head.headers,
            body,
            text: String::new(),
            _connection: tasks,
        }
    }
}

pub(crate) fn names(answer: &Value) -> Vec<String> {
    let tools = answer["result"]["tools"].as_array();
    let tools = tools.unwrap_or_else(|| panic!("no tools in {answer}"));
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

/// An answer that is being read. Dropped, the client is gone.
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    text: String,
    _connection: JoinSet<()>,
}

impl Stream {
    /// Whether it is a stream of events, and no single answer.
    pub(crate) fn is_events(&self) -> bool {
        let kind = self.headers.get(http::header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
    }

    /// The next message; `None` at the end.
    pub(crate) async fn event(&mut self) -> Option<Value> {
        let data = self.data().await?;
        Some(serde_json::from_str(&data).unwrap())
    }

    /// The same as it was written.
    pub(crate) async fn data(&mut self) -> Option<String> {
        loop {
            let (data, _) = self.raw_event().await?;
            if !data.is_empty() {
                return Some(data);
            }
        }
    }

    /// The next event, which may be empty, and its id.
    pub(crate) async fn event_with_id(&mut self) -> (Value, Option<String>) {
        let (data, id) = self.raw_event().await.expect("the stream ended");
        (serde_json::from_str(&data).unwrap_or_default(), id)
    }

    /// The next event, which may be empty, and its id; `None` at the end.
    pub(crate) async fn next_with_id(&mut self) -> Option<(Value, Option<String>)> {
        let (data, id) = self.raw_event().await?;
        Some((serde_json::from_str(&data).unwrap_or_default(), id))
    }

    async fn raw_event(&mut self) -> Option<(String, Option<String>)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let found = event.lines().find_map(|line| line.strip_prefix(name));
                    found.map(str::to_owned)
                };
                let (data, id) = (field("data: "), field("id: "));
                self.text = String::from(rest);
                if let Some(data) = data {
                    return Some((data, id));
                }
                continue;
            }
            let frame = timeout(PATIENCE, self.body.frame()).await;
            let data = frame
                .expect("nothing more came")?
                .unwrap()
                .into_data()
                .unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// Whether the answer comes in events.
    pub(crate) fn is_stream(&self) -> bool {
        let kind = self.headers.get("content-type");
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
    }

    /// Everything to the end.
    pub(crate) async fn read(mut self) -> Answer {
        let whole = timeout(PATIENCE, self.body.collect()).await;
        let bytes = whole.expect("the answer did not end").unwrap().to_bytes();
        self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        Answer {
            status: self.status.as_u16(),
            headers: self.headers,
            text: self.text,
        }
    }
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The JSON-RPC messages, in order.
    pub(crate) fn messages(&self) -> Vec<Value> {
        if !self.text.contains("data: ") {
            return vec![
                serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text)),
            ];
        }
        let data = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| !data.is_empty());
        data.map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    /// The last message.
    pub(crate) fn json(&self) -> Value {
        self.messages().pop().unwrap()
    }

    /// The id as it was written.
    pub(crate) fn id(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            id: &'a serde_json::value::RawValue,
        }
        let envelope: Envelope<'_> = serde_json::from_str(&self.text).unwrap();
        envelope.id.get().to_owned()
    }

    pub(crate) fn code(&self) -> i64 {
        let answer = self.json();
        answer["error"]["code"]
            .as_i64()
            .unwrap_or_else(|| panic!("no error in {answer}"))
    }
}
