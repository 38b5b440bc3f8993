//! A streamed answer of a server over HTTP: its notes and questions as they come, then the answer, on a
//! stream that a legacy server may end and be asked to go on with.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method as Verb};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
};
use vaxel_egress::{Body, Reply, ReplyBody};
use vaxel_mcp::{
    envelope::{Envelope, Kind as MessageKind},
    response::Response,
};

use super::{
    Answer, Asked, Event, Events,
    channel::answer_to_server,
    http_link::{HttpLink, is_stream, request},
    legacy_call::LegacyCall,
};

/// Wait before a stream that ended is taken up again, where the server does not say.
const TAKE_UP: Duration = Duration::from_secs(1);
/// Shortest such wait, whatever the server says.
const TAKE_UP_MIN: Duration = Duration::from_millis(20);
/// Where the pieces of an answer come from.
pub(super) enum Source {
    /// The server has not begun to answer. Meanwhile it may ask, on the stream of its session.
    Awaited(BoxFuture<'static, Result<Reply, Failure>>),
    Begun(ReplyBody),
}

/// The pieces of one streamed answer.
pub(crate) struct HttpEvents {
    source: Source,
    decoder: sse::Decoder,
    link: HttpLink,
    call: Option<LegacyCall>,
    /// A piece that was read to find out what the answer is.
    put_back: Option<Event>,
}

impl HttpEvents {
    pub(super) fn new(link: HttpLink, source: Source, call: Option<LegacyCall>) -> Self {
        Self {
            source,
            decoder: sse::Decoder::new(link.0.response_max),
            link,
            call,
            put_back: None,
        }
    }

    /// An answer that begins with what the server said before it.
    pub(super) fn after(mut self, first: Event) -> Answer {
        self.put_back = Some(first);
        Answer::Stream(Events::Http(Box::new(self)))
    }

    /// Waits for the first piece: most servers stream even when all they say is the answer.
    pub(super) async fn begin(mut self, deadline: Instant) -> Result<Answer, Failure> {
        match self.next(deadline).await? {
            Event::Done(response) => Ok(Answer::Done(response)),
            other => Ok(self.after(other)),
        }
    }

    pub(super) async fn next(&mut self, deadline: Instant) -> Result<Event, Failure> {
        if let Some(event) = self.put_back.take() {
            return Ok(event);
        }
        let name = self.link.0.name.clone();
        loop {
            let message = match &mut self.source {
                Source::Awaited(reply) => {
                    let reply = tokio::select! {
                        biased;
                        event = heard(self.call.as_mut()) => return Ok(event),
                        reply = reply => reply?,
                    };
                    if let Some(answered) = self.started(reply, deadline).await? {
                        return Ok(Event::Done(answered));
                    }
                    continue;
                }
                Source::Begun(body) => tokio::select! {
                    biased;
                    event = heard(self.call.as_mut()) => return Ok(event),
                    message = next_message(body, &mut self.decoder, deadline, &name) => message,
                },
            };
            let message = match message {
                Ok(message) => message,
                Err(failure) if failure.kind == Kind::UpstreamLost => {
                    Box::pin(self.take_up(failure, deadline)).await?;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            // Most streams hold nothing else: it is read once.
            if let Some(response) = Response::if_answer(&message) {
                self.call.iter_mut().for_each(LegacyCall::ended);
                return Ok(Event::Done(response));
            }
            let Ok(envelope) = Envelope::parse(&message) else {
                continue;
            };
            match envelope.kind() {
                MessageKind::Response => {
                    drop(envelope);
                    self.call.iter_mut().for_each(LegacyCall::ended);
                    return Response::read(message).map(Event::Done).map_err(|error| {
                        let detail = format!("`{name}` broke the protocol: {error}");
                        Failure::new(Kind::UpstreamProtocol, detail)
                    });
                }
                // Whoever is concerned hears of it on a stream of their own.
                MessageKind::Notification if self.link.0.ear.hear(&envelope) => {}
                MessageKind::Notification => {
                    let note = self.call.as_ref().map(|call| call.outward(&message));
                    return Ok(Event::Notification(note.unwrap_or(message)));
                }
                // A modern server asks nothing this way.
                MessageKind::Request if self.call.is_some() => {
                    if let Some(asked) = Asked::read(&envelope) {
                        return Ok(Event::Question(asked));
                    }
                    self.reply(answer_to_server(&envelope));
                }
                MessageKind::Request | MessageKind::Invalid => {}
            }
        }
    }

    /// The server has begun to answer: by a stream, or by all there is.
    async fn started(
        &mut self,
        reply: Reply,
        deadline: Instant,
    ) -> Result<Option<Response>, Failure> {
        let Reply { parts, mut body } = reply;
        self.call.iter_mut().for_each(LegacyCall::begun);
        if is_stream(&parts.headers) && parts.status.is_success() {
            body.detach();
            self.source = Source::Begun(body);
            return Ok(None);
        }
        self.call.iter_mut().for_each(LegacyCall::ended);
        let answered = self.link.0.whole(parts.status, body, deadline).await?;
        Ok(Some(answered))
    }

    /// Goes on where the stream of a legacy server ended, when its events have ids: servers may end it
    /// and be asked again (MCP 2025-11-25, Transports, "Sending Messages to the Server"). `Err` is why
    /// that cannot be.
    async fn take_up(&mut self, lost: Failure, deadline: Instant) -> Result<(), Failure> {
        let last = self.decoder.last_id();
        let Some(call) = self.call.as_ref().filter(|_| !last.is_empty()) else {
            return Err(lost);
        };
        let last = HeaderValue::from_str(last).map_err(|_| lost)?;
        let wait = self.decoder.retry().unwrap_or(TAKE_UP).max(TAKE_UP_MIN);
        let shared = &self.link.0;
        let late = |_| {
            let detail = format!("`{}` did not answer in time", shared.name);
            Failure::new(Kind::UpstreamTimeout, detail)
        };
        let waiting = tokio::time::sleep(wait);
        timeout_at(deadline, waiting).await.map_err(late)?;
        let mut map = shared.legacy_headers(call.session());
        map.insert("last-event-id", last);
        let opening = request(Verb::GET, &shared.target, map, Body::Empty);
        let Reply { parts, mut body } = shared.target.send(opening, deadline).await?;
        if !parts.status.is_success() || !is_stream(&parts.headers) {
            let (name, status) = (&shared.name, parts.status);
            let detail = format!(
                "`{name}` ended its answer before it was complete, and does not go on with it ({status})"
            );
            return Err(Failure::new(Kind::UpstreamLost, detail));
        }
        body.detach();
        self.source = Source::Begun(body);
        self.decoder.reconnected();
        Ok(())
    }

    pub(super) fn reply(&self, message: Bytes) {
        let session = self.call.as_ref().and_then(LegacyCall::session);
        self.link.tell(message, session.cloned());
    }
}

pub(super) async fn next_message(
    body: &mut ReplyBody,
    decoder: &mut sse::Decoder,
    deadline: Instant,
    name: &str,
) -> Result<Bytes, Failure> {
    loop {
        match decoder.next() {
            Some(Ok(event)) if event.data.is_empty() => continue,
            Some(Ok(event)) => return Ok(event.data),
            Some(Err(error)) => {
                let detail = format!("`{name}` broke the protocol: {error}");
                return Err(Failure::new(Kind::UpstreamProtocol, detail));
            }
            None => {}
        }
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
            Failure::new(
                Kind::UpstreamTimeout,
                format!("`{name}` did not answer in time"),
            )
        })?;
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    decoder.push(&data);
                }
            }
            Some(Err(error)) => return Err(lost(name).caused_by(error)),
            None => return Err(lost(name)),
        }
    }
}

fn lost(name: &str) -> Failure {
    Failure::new(
        Kind::UpstreamLost,
        format!("`{name}` ended its answer before it was complete"),
    )
}

/// What a legacy server says of a call outside of its answer.
async fn heard(call: Option<&mut LegacyCall>) -> Event {
    match call {
        Some(call) => call.heard().await,
        None => std::future::pending().await,
    }
}
