//! A server over WebSocket: one JSON-RPC message per text frame, subprotocol `mcp`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, header};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes, client::IntoClientRequest, protocol::WebSocketConfig,
    },
};
use url::Url;
use vaxel_core::failure::{Failure, Kind};
use vaxel_egress::Egress;

use super::{channel::Channel, connections::Connection, ear::Ear};

/// How often the server is asked for a sign of life.
const PING: Duration = Duration::from_secs(20);
/// Longest silence of a server, which must answer every ping.
const SILENCE: Duration = Duration::from_mins(1);
/// Longest wait for a server to take one message.
const TAKE: Duration = Duration::from_secs(30);

/// How a server is reached.
#[derive(Clone)]
pub(crate) struct WebSocketAddress {
    pub(crate) egress: Egress,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) name: Box<str>,
    pub(crate) response_max: usize,
}

impl WebSocketAddress {
    pub(super) async fn open(&self, ear: &Ear, deadline: Instant) -> Result<Connection, Failure> {
        let stream = self.egress.connect(&self.url, deadline).await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(self.response_max))
            .max_frame_size(Some(self.response_max));
        let shaking = client_async_with_config(self.request()?, stream, Some(config));
        let shaken = timeout_at(deadline, shaking).await;
        let shaken = shaken.map_err(|_| {
            let detail = format!("`{}` did not answer the handshake in time", self.name);
            Failure::new(Kind::UpstreamTimeout, detail)
        })?;
        let (socket, _) = shaken.map_err(|error| self.refused(&error))?;
        let (sink, stream) = socket.split();
        let (channel, queue) = Channel::of_remote(&self.name, ear.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(read(Arc::clone(&channel), stream));
        tasks.spawn(write(Arc::clone(&channel), sink, queue));
        Ok(Connection { channel, tasks })
    }

    fn request(&self) -> Result<http::Request<()>, Failure> {
        let request = self.url.as_str().into_client_request();
        let mut request = request.map_err(Failure::internal)?;
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        let protocol = HeaderValue::from_static("mcp");
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        Ok(request)
    }

    fn refused(&self, error: &Error) -> Failure {
        let name = &self.name;
        let detail = match error {
            Error::Http(response) if matches!(response.status().as_u16(), 401 | 403) => format!(
                "`{name}` refuses the credentials that it is reached with ({})",
                response.status()
            ),
            Error::Http(response) => format!(
                "there is no WebSocket at the URL of `{name}` ({}); check its path",
                response.status()
            ),
            error => format!("`{name}` did not open a WebSocket: {error}"),
        };
        Failure::new(Kind::UpstreamUnavailable, detail)
    }
}

async fn read<S>(channel: Arc<Channel>, mut stream: SplitStream<WebSocketStream<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let reason = loop {
        match timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => channel.receive(text.into()),
            Ok(Some(Ok(Message::Binary(_)))) => channel.found_garbage("a binary frame"),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
            Ok(Some(Ok(Message::Close(Some(frame))))) => {
                break format!(
                    "it closed the connection ({}: {})",
                    frame.code, frame.reason
                );
            }
            Ok(Some(Ok(Message::Close(None))) | None) => {
                break "it closed the connection".to_owned();
            }
            Ok(Some(Err(error))) => break format!("its connection broke ({error})"),
            Err(_) => break "it gave no sign of life".to_owned(),
        }
    };
    channel.end(&reason);
}

async fn write<S>(
    channel: Arc<Channel>,
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut queue: mpsc::Receiver<Bytes>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ping = interval(PING);
    ping.reset();
    loop {
        let frame = tokio::select! {
            message = queue.recv() => match message {
                Some(message) => match Utf8Bytes::try_from(message) {
                    Ok(text) => Message::Text(text),
                    // What was read as JSON is UTF-8.
                    Err(_) => continue,
                },
                None => break,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        if !matches!(timeout(TAKE, sink.send(frame)).await, Ok(Ok(()))) {
            return channel.end("it does not take what it is told");
        }
    }
    // Nothing more is to be said; a server that is gone need not hear so.
    let _ = timeout(TAKE, sink.close()).await;
}
