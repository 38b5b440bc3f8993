//! A server of 2024-11-05 over HTTP+SSE: a stream on which it says everything, and an address that its
//! first event names, to which everything is posted (MCP 2024-11-05, Transports, "HTTP with SSE").
//!
//! The connection is the session, so there is one per caller and set of answers, opened when it is
//! needed first and again after it broke.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method as Verb, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as Slot, mpsc},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use url::Url;
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
};
use vaxel_egress::{Body, Egress, Reply, ReplyBody, Target};
use vaxel_mcp::{
    handshake::{ServerFacts, capabilities::Answers},
    revision::Era,
};

use super::{
    Answer, NowPlus, OnBehalf, Outbound,
    channel::Channel,
    ear::Ear,
    http_link::{is_stream, request},
};

/// Connections to one server; when there are more, one that nobody uses is closed.
const CONNECTIONS: usize = 256;
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

pub(crate) struct SseLink {
    address: SseAddress,
    ear: Ear,
    by_caller: Mutex<HashMap<OnBehalf, Arc<Slot<Option<Connection>>>>>,
}

/// An open stream. The tasks that read and post end with it.
struct Connection {
    channel: Arc<Channel>,
    _tasks: JoinSet<()>,
}

impl SseLink {
    /// Opens the connection of Vaxel's own requests and finds out what the server is.
    pub(crate) async fn open(
        address: SseAddress,
        ear: Ear,
        deadline: Instant,
    ) -> Result<(Self, ServerFacts), Failure> {
        let system = OnBehalf::SYSTEM;
        let (connection, facts) = address.connect(&ear, system.answers, deadline).await?;
        let slot = Arc::new(Slot::new(Some(connection)));
        let link = Self {
            address,
            ear,
            by_caller: Mutex::new([(system, slot)].into()),
        };
        Ok((link, facts))
    }

    pub(super) async fn exchange(&self, out: &Outbound<'_>) -> Result<Answer, Failure> {
        let channel = self.channel(out.on_behalf, out.deadline).await?;
        channel.exchange(out, Era::Legacy).await
    }

    /// Resolves when the connection of Vaxel's own requests has ended.
    pub(super) async fn lost(&self) {
        let deadline = Instant::now_plus(POST);
        if let Ok(channel) = self.channel(OnBehalf::SYSTEM, deadline).await {
            channel.closed().await;
        }
    }

    pub(super) fn close(&self) {
        self.by_caller.lock().clear();
    }

    async fn channel(&self, caller: OnBehalf, deadline: Instant) -> Result<Arc<Channel>, Failure> {
        let slot = self.slot(caller)?;
        let opening = async {
            let mut slot = slot.lock().await;
            if let Some(open) = slot.as_ref().filter(|one| one.channel.is_open()) {
                return Ok(Arc::clone(&open.channel));
            }
            let connecting = self.address.connect(&self.ear, caller.answers, deadline);
            let (connection, _) = connecting.await?;
            let channel = Arc::clone(&connection.channel);
            *slot = Some(connection);
            Ok(channel)
        };
        let late = |_| {
            let detail = format!("`{}` was not connected in time", self.address.name);
            Failure::new(Kind::UpstreamTimeout, detail)
        };
        timeout_at(deadline, opening).await.map_err(late)?
    }

    fn slot(&self, caller: OnBehalf) -> Result<Arc<Slot<Option<Connection>>>, Failure> {
        let mut all = self.by_caller.lock();
        if let Some(slot) = all.get(&caller) {
            return Ok(Arc::clone(slot));
        }
        if all.len() >= CONNECTIONS {
            let unused = all
                .iter()
                .find(|(of, slot)| **of != OnBehalf::SYSTEM && is_unused(slot));
            let unused = unused.map(|(of, _)| *of).ok_or_else(|| {
                let detail = format!(
                    "`{}` has {CONNECTIONS} connections in use",
                    self.address.name
                );
                Failure::new(Kind::Busy, detail).retry_after(1)
            })?;
            all.remove(&unused);
        }
        Ok(Arc::clone(all.entry(caller).or_default()))
    }
}

fn is_unused(slot: &Slot<Option<Connection>>) -> bool {
    let open = slot.try_lock();
    open.is_ok_and(|open| open.as_ref().is_none_or(|one| one.channel.is_idle()))
}

impl SseAddress {
    async fn connect(
        &self,
        ear: &Ear,
        answers: Answers,
        deadline: Instant,
    ) -> Result<(Connection, ServerFacts), Failure> {
        let mut stream = self.open_stream(deadline).await?;
        let endpoint = stream.endpoint(self, deadline).await?;
        let poster = Poster {
            target: self.egress.origin(&endpoint)?,
            headers: self.post_headers(),
            response_max: self.response_max,
        };
        let name: Arc<str> = (&*self.name).into();
        let garbage = Arc::new(move |text: &str| {
            tracing::debug!(service.name = %name, "what came in is no protocol: {text}");
        });
        let (channel, queue) = Channel::new(&self.name, ear.clone(), garbage);
        let mut tasks = JoinSet::new();
        tasks.spawn(stream.read(Arc::clone(&channel)));
        tasks.spawn(poster.run(Arc::clone(&channel), queue));
        let facts = channel.initialize(answers, deadline).await?;
        let connection = Connection {
            channel,
            _tasks: tasks,
        };
        Ok((connection, facts))
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
