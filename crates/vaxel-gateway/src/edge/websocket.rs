//! WebSocket (RFC 6455) on the MCP endpoints: every text frame is one JSON-RPC message, of either era,
//! in the dialect of stdio: what HTTP says in headers and by closing connections is said in messages.
//!
//! A legacy session ends with its connection. The credential of the handshake is looked at again with
//! every message, so that a key that was revoked ends the connection.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
};

use super::duplex::Duplex;
use crate::{
    authorize,
    gateway::{OpenStream, Shared},
    pipeline::{Carrier, Context},
    respond::{self, Response},
    route::Scope,
};

/// Requests of one client that are being answered at once; further ones are refused as busy.
const AT_ONCE: usize = 256;
/// How often the client is asked for a sign of life. One that gave none until the second time is gone.
const PING: Duration = Duration::from_secs(20);
/// Longest wait for a client to take one message.
const TAKE: Duration = Duration::from_secs(30);
/// Longest wait for a client to take the last ones.
const FAREWELL: Duration = Duration::from_secs(2);
/// What an idle client costs, bytes; longer messages get room of their own.
const READ_BUFFER: usize = 4 << 10;
/// The subprotocol of MCP.
const MCP: &str = "mcp";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let wanted = headers.get(header::UPGRADE);
    wanted.is_some_and(|wanted| wanted.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Answers the handshake (RFC 6455, section 4.2.2); the connection goes on as a task.
pub(crate) fn open(mut context: Context, path: Option<&str>) -> Result<Response, Failure> {
    authorize::may_list(&context.principal)?;
    let headers = &context.head.headers;
    let accept = accept_key(headers)?;
    let speaks_mcp = offers_mcp(headers)?;
    let upgrade = context.head.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| malformed("This connection cannot become a WebSocket"))?;
    let shared = Arc::clone(&context.shared);
    let client = Client {
        _place: shared.enter_stream()?,
        path: path.map(Into::into),
        head: context.head,
        peer: context.peer,
        shared,
    };
    let tasks = client.shared.tasks.clone();
    tasks.spawn(client.serve(upgrade));
    let mut response = respond::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if speaks_mcp {
        let protocol = HeaderValue::from_static(MCP);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Failure> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        return Err(malformed("Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| malformed("Sec-WebSocket-Key is missing"))?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Failure::internal)
}

/// Whether the client offers the subprotocol. One that offers others only expects something else here.
fn offers_mcp(headers: &HeaderMap) -> Result<bool, Failure> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered = offered.iter().filter_map(|value| value.to_str().ok());
    let mut offered = offered
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .peekable();
    let is_silent = offered.peek().is_none();
    let speaks_mcp = offered.any(|protocol| protocol == MCP);
    if speaks_mcp || is_silent {
        return Ok(speaks_mcp);
    }
    Err(malformed(
        "None of the offered subprotocols is spoken here: offer `mcp`, or none",
    ))
}

fn malformed(detail: &str) -> Failure {
    Failure::new(Kind::Malformed, detail.to_owned())
}

/// One client: what its handshake said, and what is held for it.
struct Client {
    shared: Arc<Shared>,
    head: Parts,
    peer: IpAddr,
    /// What it sees, as the path says it.
    path: Option<Box<str>>,
    _place: OpenStream,
}

impl Client {
    async fn serve(self, upgrade: OnUpgrade) {
        let upgraded = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "a client left before it was served"),
        };
        let limit = self.shared.config.body_max;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let socket = Socket::from_raw_socket(upgraded, Role::Server, Some(config)).await;
        let (mut sink, stream) = socket.split();
        let (duplex, mut events) = Duplex::new(AT_ONCE);
        let is_alive = AtomicBool::new(true);
        let stopping = async {
            self.shared.stop.cancelled().await;
            duplex.settled().await;
        };
        let goodbye = tokio::select! {
            goodbye = self.read(stream, &duplex, &is_alive) => goodbye,
            () = write(&mut sink, &mut events, &is_alive) => None,
            () = duplex.stays_silent() => Some(close(CloseCode::Policy, "nothing was said")),
            () = stopping => Some(close(CloseCode::Away, "the server is stopping")),
        };
        duplex.end(&self.shared);
        let farewell = async {
            while let Ok(event) = events.try_recv() {
                say(&mut sink, &event).await?;
            }
            match goodbye {
                Some(goodbye) => sink.send(Message::Close(Some(goodbye))).await,
                // Also what a client that closes is waiting for.
                None => sink.close().await,
            }
        };
        // A client that is gone, or does not read, misses nothing that it could act upon.
        let _ = timeout(FAREWELL, farewell).await;
    }

    /// Takes frames until the client is gone; says why when it is sent away.
    async fn read(
        &self,
        mut stream: SplitStream<Socket>,
        duplex: &Arc<Duplex>,
        is_alive: &AtomicBool,
    ) -> Option<CloseFrame> {
        while let Some(frame) = stream.next().await {
            is_alive.store(true, Ordering::Relaxed);
            match frame {
                Ok(Message::Text(text)) => {
                    if let Err(failure) = self.hear(duplex, text.into()) {
                        return Some(close(CloseCode::Policy, &failure.detail));
                    }
                }
                Ok(Message::Binary(_)) => {
                    return Some(close(CloseCode::Unsupported, "messages are text frames"));
                }
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(Error::Capacity(error)) => {
                    return Some(close(CloseCode::Size, &error.to_string()));
                }
                Err(Error::Utf8(_)) => return Some(close(CloseCode::Invalid, "no UTF-8")),
                Ok(Message::Close(_)) | Err(_) => return None,
            }
        }
        None
    }

    /// Takes one message. `Err`: its sender may not be here any more.
    fn hear(&self, duplex: &Arc<Duplex>, message: Bytes) -> Result<(), Failure> {
        let shared = &self.shared;
        let principal = shared
            .authenticate(&self.head, self.peer)
            .inspect_err(|failure| {
                shared.note_refused(&self.head.headers, self.peer, failure);
            })?;
        let Ok(turn) = duplex.turn_now(&message) else {
            let detail = format!("{AT_ONCE} requests of this connection are being answered");
            duplex.refuse(&message, &Failure::new(Kind::Busy, detail).retry_after(1));
            return Ok(());
        };
        // What is no request may be what a call waits for.
        if turn.is_some()
            && let Err(failure) = shared.count_request(&principal)
        {
            duplex.refuse(&message, &failure);
            return Ok(());
        }
        let snapshot = shared.snapshot.load_full();
        let scope = match Scope::find(&snapshot, self.path.as_deref(), &principal) {
            Ok(scope) => scope,
            Err(failure) => {
                let what = self.head.uri.path();
                shared.note_denied((&principal, self.peer), what, &failure);
                duplex.refuse(&message, &failure);
                return Ok(());
            }
        };
        let context = Context {
            shared: Arc::clone(shared),
            snapshot,
            principal,
            scope,
            head: self.head.clone(),
            peer: self.peer,
            carrier: Carrier::Stream,
        };
        duplex.hear(context, message, turn);
        Ok(())
    }
}

/// Writes what goes onto the stream, until the client does not take it or gives no sign of life.
async fn write(
    sink: &mut SplitSink<Socket, Message>,
    events: &mut mpsc::Receiver<Bytes>,
    is_alive: &AtomicBool,
) {
    let mut ping = interval(PING);
    ping.reset();
    loop {
        let written = tokio::select! {
            event = events.recv() => match event {
                Some(event) => timeout(TAKE, say(sink, &event)).await,
                None => return,
            },
            _ = ping.tick() => {
                if !is_alive.swap(false, Ordering::Relaxed) {
                    return;
                }
                timeout(TAKE, sink.send(Message::Ping(Bytes::new()))).await
            }
        };
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// The message of an event as a frame; comments are none.
async fn say(sink: &mut SplitSink<Socket, Message>, event: &[u8]) -> Result<(), Error> {
    let mut decoder = sse::Decoder::new(usize::MAX);
    decoder.push(event);
    while let Some(Ok(event)) = decoder.next() {
        // Whatever was read as JSON is UTF-8.
        if let Ok(text) = Utf8Bytes::try_from(event.data)
            && !text.is_empty()
        {
            sink.feed(Message::Text(text)).await?;
        }
    }
    sink.flush().await
}

/// A close frame holds at most 123 bytes of reason (RFC 6455, section 5.5).
fn close(code: CloseCode, reason: &str) -> CloseFrame {
    let reason = &reason[..reason.floor_char_boundary(123)];
    CloseFrame {
        code,
        reason: reason.into(),
    }
}
