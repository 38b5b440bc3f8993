//! What a server over HTTP speaks, before there is a link to it: `server/discover` first, then
//! `initialize` (MCP 2026-07-28, versioning).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;
use vaxel_core::{
    failure::{Failure, Kind},
    service::EraChoice,
    sse,
};
use vaxel_egress::ReplyBody;
use vaxel_mcp::{
    envelope::{Envelope, Kind as MessageKind},
    handshake::{self, ProbeAnswer, ServerFacts, Verdict, capabilities::Answers},
    headers, hello,
    method::Method,
    revision::Revision,
};

use super::{
    NowPlus,
    http_events::next_message,
    http_link::{base_headers, is_stream, send},
    read_initialize,
    wallet::Door,
};

/// Where and how a server is reached, before its era is known.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) target: Door,
    pub(crate) name: Box<str>,
    pub(crate) headers: HeaderMap,
    pub(crate) response_max: usize,
}

/// What a probe of an address got.
pub(crate) struct Probe {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) session: Option<HeaderValue>,
}

impl Address {
    /// Posts one message outside any session and reads the whole answer.
    pub(crate) async fn post(
        &self,
        message: Bytes,
        extra: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<Probe, Failure> {
        let mut headers = base_headers(&self.headers);
        for (name, value) in extra {
            headers.insert(name.clone(), value.clone());
        }
        let reply = send(&self.target, headers, message, deadline).await?;
        let status = reply.parts.status;
        let session = reply.parts.headers.get(headers::MCP_SESSION_ID).cloned();
        let body = if is_stream(&reply.parts.headers) {
            let mut body = reply.body;
            let mut decoder = sse::Decoder::new(self.response_max);
            first_response(&mut body, &mut decoder, deadline, &self.name).await?
        } else {
            reply.body.collect(self.response_max, deadline).await?
        };
        Ok(Probe {
            status,
            body,
            session,
        })
    }
}

impl Address {
    /// Posts one message that has no answer.
    pub(crate) async fn post_notification(
        &self,
        message: Bytes,
        extra: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut headers = base_headers(&self.headers);
        for (name, value) in extra {
            headers.insert(name.clone(), value.clone());
        }
        let reply = send(&self.target, headers, message, deadline).await?;
        reply.body.collect(self.response_max, deadline).await?;
        Ok(())
    }
}

/// `None`: the server speaks the legacy era. A refusal of credentials or an outage is no evidence of
/// an era (MCP 2026-07-28, versioning) and fails.
pub(crate) async fn probe_modern(
    address: &Address,
    era: EraChoice,
    wait: Duration,
) -> Result<Option<ServerFacts>, Failure> {
    let revision = Revision::LATEST.as_str();
    let extra = [
        (
            headers::MCP_PROTOCOL_VERSION,
            HeaderValue::from_static(revision),
        ),
        (
            headers::MCP_METHOD,
            HeaderValue::from_static(Method::Discover.as_str()),
        ),
    ];
    let message = hello::discover_request(1);
    let probe = address
        .post(message, &extra, Instant::now_plus(wait))
        .await?;
    let status = probe.status.as_u16();
    let answer = ProbeAnswer::Http {
        status,
        body: &probe.body,
    };
    match (handshake::verdict(answer), era) {
        (Verdict::Modern, _) => read_discover(&probe.body, &address.name).map(Some),
        (Verdict::Legacy, EraChoice::Auto) => Ok(None),
        (Verdict::Legacy, _) => Err(Failure::new(
            Kind::UpstreamProtocol,
            format!(
                "`{}` does not speak MCP {revision} ({status})",
                address.name
            ),
        )),
        (Verdict::Unknown, _) => Err(no_answer(address, status)),
    }
}

/// `None`: nobody takes `initialize` there, as it is with servers of 2024-11-05 (MCP 2025-11-25,
/// Transports, "Backwards Compatibility").
pub(crate) async fn open_legacy(
    address: &Address,
    wait: Duration,
) -> Result<Option<(ServerFacts, Option<HeaderValue>)>, Failure> {
    let deadline = Instant::now_plus(wait);
    let message = hello::initialize_request(1, Revision::LATEST_LEGACY, Answers::RELAYED);
    let Probe {
        status,
        body,
        session,
    } = address.post(message, &[], deadline).await?;
    match status.as_u16() {
        400 | 404 | 405 => return Ok(None),
        _ if status.is_success() => {}
        status => return Err(no_answer(address, status)),
    }
    let facts = read_initialize(&body)?;
    let mut extra = vec![(
        headers::MCP_PROTOCOL_VERSION,
        HeaderValue::from_static(facts.revision.as_str()),
    )];
    extra.extend(session.clone().map(|id| (headers::MCP_SESSION_ID, id)));
    address
        .post_notification(hello::initialized_notification(), &extra, deadline)
        .await?;
    Ok(Some((facts, session)))
}

fn no_answer(address: &Address, status: u16) -> Failure {
    let name = &address.name;
    let (kind, detail) = match status {
        401 | 403 => (
            Kind::UpstreamUnavailable,
            format!("`{name}` refuses the credentials that it is reached with ({status})"),
        ),
        404 => (
            Kind::UpstreamUnavailable,
            format!("there is no MCP endpoint at the URL of `{name}` (404); check its path"),
        ),
        _ => (
            Kind::UpstreamUnavailable,
            format!("`{name}` answered {status}"),
        ),
    };
    Failure::new(kind, detail)
}

pub(crate) fn read_discover(answer: &Bytes, name: &str) -> Result<ServerFacts, Failure> {
    ServerFacts::from_discover(answer).map_err(|error| {
        let detail = format!("{name} answered server/discover with what cannot be used: {error}");
        Failure::new(Kind::UpstreamProtocol, detail)
    })
}

/// Reads a stream up to the first answer, passing over everything else.
async fn first_response(
    body: &mut ReplyBody,
    decoder: &mut sse::Decoder,
    deadline: Instant,
    name: &str,
) -> Result<Bytes, Failure> {
    loop {
        let message = next_message(body, decoder, deadline, name).await?;
        if Envelope::parse(&message).is_ok_and(|one| one.kind() == MessageKind::Response) {
            return Ok(message);
        }
    }
}
