//! A server of 2024-11-05 over HTTP+SSE: a stream on which it says everything, and an address that its
//! first event names, to which everything is posted (MCP 2024-11-05, Transports, "HTTP with SSE").

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method as Verb, header};
use http_body_util::BodyExt;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use url::Url;
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
};
use vaxel_egress::{Body, Egress, Reply, ReplyBody, Target};

use super::{
    NowPlus,
    channel::Channel,
    connections::Connection,
    ear::Ear,
    http_link::{is_stream, request},
};

/// Longest wait for a posted message to be taken.
const POST: Duration = Duration::from_secs(30);

/// How a server is reached.
#[derive(Clone)]
pub(crate) struct SseAddress {
    pub(crate) egress: Egress,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) name: Box<str>,
    pub(crate) response_max: usize,
}

impl SseAddress {
    /// Opens the stream and finds out where to post.
    pub(super) async fn open(&self, ear: &Ear, deadline: Instant) -> Result<Connection, Failure> {
        let mut stream = self.open_stream(deadline).await?;
        let endpoint = stream.endpoint(self, deadline).await?;
        let poster = Poster {
            target: self.egress.origin(&endpoint)?,
            headers: self.post_headers(),
            response_max: self.response_max,
        };
        let (channel, queue) = Channel::of_remote(&self.name, ear.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(stream.read(Arc::clone(&channel)));
        tasks.spawn(poster.run(Arc::clone(&channel), queue));
        Ok(Connection { channel, tasks })
    }

    async fn open_stream(&self, deadline: Instant) -> Result<Stream, Failure> {
        let target = self.egress.origin(&self.url)?;
        let mut headers = self.headers.clone();
        let accept = HeaderValue::from_static("text/event-stream");
        headers.insert(header::ACCEPT, accept);
        let reply = target
            .send(request(Verb::GET, &target, headers, Body::Empty), deadline)
            .await?;
        let Reply { parts, mut body } = reply;
        if !parts.status.is_success() || !is_stream(&parts.headers) {
            let (name, status) = (&self.name, parts.status);
            let detail = format!(
                "there is no MCP endpoint at the URL of `{name}` ({status}); check its path"
            );
            return Err(Failure::new(Kind::UpstreamUnavailable, detail));
        }
        body.detach();
        Ok(Stream {
            body,
            decoder: sse::Decoder::new(self.response_max),
        })
    }

    fn post_headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers
    }
}

/// What the server says.
struct Stream {
    body: ReplyBody,
    decoder: sse::Decoder,
}

impl Stream {
    /// Where messages are posted: the first event says it. It must lie on the server's own origin, so
    /// that nobody is sent elsewhere with the service's credentials.
    async fn endpoint(&mut self, address: &SseAddress, deadline: Instant) -> Result<Url, Failure> {
        let broke = |detail: &str| {
            let detail = format!("`{}` {detail}", address.name);
            Failure::new(Kind::UpstreamProtocol, detail)
        };
        let first = timeout_at(deadline, self.next()).await;
        let first = first.map_err(|_| broke("did not say where to post in time"))?;
        let first = first.ok_or_else(|| broke("ended its stream before it said where to post"))?;
        let uri = std::str::from_utf8(&first.data).unwrap_or_default();
        let endpoint = address.url.join(uri.trim()).ok();
        endpoint
            .filter(|url| first.kind == "endpoint" && url.origin() == address.url.origin())
            .ok_or_else(|| broke("does not name an address of its own to post to"))
    }

    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.decoder.next() {
                return event.ok();
            }
            let data = self.body.frame().await?.ok()?.into_data();
            if let Ok(data) = data {
                self.decoder.push(&data);
            }
        }
    }

    async fn read(mut self, channel: Arc<Channel>) {
        while let Some(event) = self.next().await {
            if !event.data.is_empty() && matches!(&*event.kind, "" | "message") {
                channel.receive(event.data);
            }
        }
        channel.end("its stream ended");
    }
}

/// Posts messages, one after the other, so that they keep their order.
struct Poster {
    target: Target,
    headers: HeaderMap,
    response_max: usize,
}

impl Poster {
    async fn run(self, channel: Arc<Channel>, mut queue: mpsc::Receiver<Bytes>) {
        while let Some(message) = queue.recv().await {
            if let Err(reason) = self.post(message.clone()).await {
                channel.undelivered(&message, &reason);
            }
        }
    }

    async fn post(&self, message: Bytes) -> Result<(), String> {
        let deadline = Instant::now_plus(POST);
        let request = request(
            Verb::POST,
            &self.target,
            self.headers.clone(),
            Body::Full(message),
        );
        let sent = self.target.send(request, deadline).await;
        let reply = sent.map_err(|error| error.to_string())?;
        let status = reply.parts.status;
        // Read to its end, the connection can be used again.
        let _ = reply.body.collect(self.response_max, deadline).await;
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("it refuses the message ({status})"))
        }
    }
}
