//! A WebSocket client that says exactly what it is told.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        handshake::client::Response,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{PATIENCE, client};

/// An open connection.
pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<TcpStream>,
    pub(crate) handshake: Response,
}

impl Socket {
    /// Opens a connection that offers `mcp`.
    pub(crate) async fn open(address: SocketAddr, path: &str, key: &str) -> Self {
        let key = format!("Bearer {key}");
        let headers = [("authorization", &*key), ("sec-websocket-protocol", "mcp")];
        Self::try_open(address, path, &headers).await.unwrap()
    }

    /// The same with these headers; `Err` is the status of the refusal.
    pub(crate) async fn try_open(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let url = format!("ws://{address}{path}");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        match timeout(PATIENCE, client_async(request, stream))
            .await
            .unwrap()
        {
            Ok((stream, handshake)) => Ok(Self { stream, handshake }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.put(Message::text(message.to_string())).await;
    }

    pub(crate) async fn put(&mut self, frame: Message) {
        self.stream.send(frame).await.unwrap();
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        match self.frame().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("no message but {other:?}"),
        }
    }

    /// The next message that answers `id`; what comes before it is passed over.
    pub(crate) async fn answer(&mut self, id: &Value) -> Value {
        loop {
            let message = self.next().await;
            if message["id"] == *id && message.get("method").is_none() {
                return message;
            }
        }
    }

    /// Why the connection was ended; messages before that are passed over.
    pub(crate) async fn closed(&mut self) -> Option<CloseCode> {
        loop {
            match self.frame().await {
                Some(Message::Close(frame)) => return frame.map(|CloseFrame { code, .. }| code),
                Some(_) => {}
                None => return None,
            }
        }
    }

    /// Whether the connection ended as the protocol says, or broke.
    pub(crate) async fn end(&mut self) -> &'static str {
        loop {
            match timeout(PATIENCE, self.stream.next()).await.unwrap() {
                Some(Ok(Message::Close(_))) => return "closed",
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return "broken",
            }
        }
    }

    async fn frame(&mut self) -> Option<Message> {
        loop {
            let frame = timeout(PATIENCE, self.stream.next()).await;
            match frame.expect("nothing more came")? {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(frame) => return Some(frame),
                Err(_) => return None,
            }
        }
    }

    /// Opens a legacy session.
    pub(crate) async fn initialize(&mut self, version: &str, capabilities: &Value) -> Value {
        let params = json!({"protocolVersion": version, "capabilities": capabilities,
            "clientInfo": {"name": "test", "version": "1"}});
        self.send(
            &json!({"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": params}),
        )
        .await;
        let answer = self.answer(&json!("hello")).await;
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await;
        answer
    }
}

/// A modern request.
pub(crate) fn modern(id: u64, method: &str, params: Value) -> Value {
    let mut params = params;
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": client::MODERN,
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}
