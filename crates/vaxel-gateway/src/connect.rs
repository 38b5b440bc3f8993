//! Reaches an upstream for the first time: finds out which era it speaks and what it is. Ready means
//! that it gave a real MCP answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use tokio::{
    process::{ChildStdin, ChildStdout},
    task::JoinSet,
    time::Instant,
};
use url::Url;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    name::ServiceName,
    secret::Secret,
    service::{EraChoice, SessionScope},
};
use vaxel_egress::Egress;
use vaxel_mcp::{
    handshake::{self, ProbeAnswer, ServerFacts, Verdict, capabilities::Answers},
    hello,
    method::Method,
    revision::Era,
};

use crate::{
    gateway::Shared,
    upstream::{
        BuiltinServer, Introduced, Link, NowPlus, PerUser, TokenSource, Wire,
        channel::Channel,
        connections::{Connections, Dial},
        ear::Ear,
        http_link::{HttpLink, Recheck},
        http_probe::{Address, open_legacy, probe_modern, read_discover},
        http_tools::{HttpTools, ToolsAddress},
        introduction::Introduction,
        sse_dial::SseAddress,
        stdio_link,
        wallet::Door,
        websocket_dial::WebSocketAddress,
    },
};

/// Longest wait for the last question to a child. One that installs itself first (`npx`) answers late;
/// whoever started it decides when that is too late, and ends it.
const STDIO_PATIENCE: Duration = Duration::from_mins(10);

/// What is to be reached.
pub struct ConnectTarget {
    /// The service.
    pub service: Id<Service>,
    /// Its name, for errors.
    pub name: ServiceName,
    /// Which era to speak.
    pub era: EraChoice,
    /// How.
    pub transport: Transport,
    /// How it wants to be told who calls; absent: not at all.
    pub introduced: Option<Introduced>,
}

/// How an upstream is reached.
pub enum Transport {
    /// The pipes of a running child.
    Stdio {
        /// Its standard input.
        stdin: ChildStdin,
        /// Its standard output.
        stdout: ChildStdout,
        /// Told of text on standard output that is no protocol.
        garbage: Arc<dyn Fn(&str) + Send + Sync>,
    },
    /// Streamable HTTP, or HTTP+SSE of 2024-11-05; WebSocket when the URL says so.
    Http {
        /// The MCP endpoint.
        url: Url,
        /// Sent with every request.
        headers: Vec<(String, Secret<String>)>,
        /// Which callers share a session there.
        session: SessionScope,
        /// Where tokens come from, when it wants some.
        tokens: Option<TokenSource>,
    },
    /// HTTP without MCP: `POST {base}/tools/{tool}`.
    Tools {
        /// What stands before `/tools/{tool}`.
        base: Url,
        /// Answers 2xx while it works; without it, taking a connection is enough.
        health: Option<Url>,
        /// Sent with every request.
        headers: Vec<(String, Secret<String>)>,
        /// Definitions of its tools, as MCP 2026-07-28 has them.
        tools: Vec<Box<RawValue>>,
    },
    /// A server that is part of the binary.
    Builtin(Arc<dyn BuiltinServer>),
}

/// Reaches `target`, where it is elsewhere by `egress`.
pub(crate) async fn connect(
    shared: Arc<Shared>,
    egress: &Egress,
    target: ConnectTarget,
) -> Result<Link, Failure> {
    let ConnectTarget {
        name,
        era,
        transport,
        service,
        introduced,
    } = target;
    let ear = Ear::new(shared.interests.of(service));
    let introduction =
        introduced.map(|wanted| Introduction::new(&wanted, &shared.issuer, &shared.clock));
    let introduction = introduction.transpose()?;
    match transport {
        Transport::Stdio {
            stdin,
            stdout,
            garbage,
        } => {
            let (channel, queue) = Channel::new(name.as_str(), ear.clone(), garbage);
            let line_max = shared.config.line_max;
            let tasks = stdio_link::open(&channel, queue, (stdin, stdout), line_max);
            let link = stdio(&shared, (channel, tasks), era, &ear).await?;
            Ok(link.introducing(introduction))
        }
        Transport::Http {
            url,
            headers,
            session,
            tokens: None,
        } if matches!(url.scheme(), "ws" | "wss") => {
            let address = WebSocketAddress {
                egress: egress.clone(),
                url,
                headers: header_map(headers)?,
                name: name.as_str().into(),
                response_max: shared.config.response_max,
            };
            let link = websocket(&shared, Dial::WebSocket(address), era, &ear).await?;
            Ok(link.scoped(session).introducing(introduction))
        }
        Transport::Http {
            url,
            headers,
            session,
            tokens,
        } => {
            let headers = header_map(headers)?;
            let address = Address {
                target: Door::new(egress.origin(&url)?, tokens, introduction.clone()),
                name: name.as_str().into(),
                headers: headers.clone(),
                response_max: shared.config.response_max,
            };
            let sse = SseAddress {
                egress: egress.clone(),
                url,
                headers,
                name: name.as_str().into(),
                response_max: shared.config.response_max,
            };
            let link = http(&shared, (address, sse), era, &ear).await?;
            Ok(link.scoped(session).introducing(introduction))
        }
        Transport::Tools {
            base,
            health,
            headers,
            tools,
        } => {
            let address = ToolsAddress {
                egress: egress.clone(),
                name: name.as_str().into(),
                base,
                health,
                headers: header_map(headers)?,
                tools,
                response_max: shared.config.response_max,
            };
            let link = without_mcp(&shared, address, &ear).await?;
            Ok(link.introducing(introduction))
        }
        Transport::Builtin(server) => {
            let params = Bytes::from(hello::modern_params(&[]));
            let request = crate::upstream::BuiltinRequest {
                method: Method::Discover.as_str().to_owned(),
                params,
            };
            let result = server.handle(request).await.map_err(|error| {
                Failure::new(
                    Kind::UpstreamProtocol,
                    format!("The server refuses: {}", error.message),
                )
            })?;
            let answer = vaxel_mcp::response::result(b"1", &result);
            let facts = read_discover(&answer, name.as_str())?;
            Ok(Link::new(&shared, facts, Wire::Builtin(server), &ear))
        }
    }
}

/// A service that speaks HTTP and no MCP: there once it takes connections, or says that it works.
async fn without_mcp(shared: &Shared, address: ToolsAddress, ear: &Ear) -> Result<Link, Failure> {
    let service = HttpTools::new(address)?;
    let wait = shared.config.probe_timeout;
    service.check(Instant::now_plus(wait)).await?;
    let wire = Wire::Tools(Box::new(service));
    Ok(Link::new(shared, HttpTools::facts(), wire, ear))
}

async fn stdio(
    shared: &Shared,
    (channel, tasks): (Arc<Channel>, JoinSet<()>),
    era: EraChoice,
    ear: &Ear,
) -> Result<Link, Failure> {
    let facts = ask(&channel, era, (shared.config.probe_timeout, STDIO_PATIENCE)).await?;
    let wire = Wire::Stdio {
        channel,
        era: facts.revision.era(),
        _tasks: tasks,
    };
    Ok(Link::new(shared, facts, wire, ear))
}

/// A server over WebSocket. One that ends the connection because it was asked what it does not know is
/// asked on another one.
async fn websocket(
    shared: &Shared,
    dial: Dial,
    era: EraChoice,
    ear: &Ear,
) -> Result<Link, Failure> {
    let wait = shared.config.probe_timeout;
    let open = async || dial.open(ear, Instant::now_plus(wait)).await;
    let mut connection = open().await?;
    let facts = match ask(&connection.channel, era, (wait, wait)).await {
        Err(failure) if failure.kind == Kind::UpstreamLost && era == EraChoice::Auto => {
            connection = open().await?;
            ask_legacy(&connection.channel, wait).await?
        }
        asked => asked?,
    };
    let era = facts.revision.era();
    let connections = Connections::new(dial, ear.clone(), era, connection);
    let wire = Wire::Connections(Box::new(connections));
    Ok(Link::new(shared, facts, wire, ear))
}

/// What a server on a channel is, in the era it speaks: `probe` is the wait for the first question when
/// there may be another, `patience` that for the last.
async fn ask(
    channel: &Arc<Channel>,
    era: EraChoice,
    (probe, patience): (Duration, Duration),
) -> Result<ServerFacts, Failure> {
    match era {
        EraChoice::Modern => Ok(ask_modern(channel, patience).await?.1),
        EraChoice::Legacy => ask_legacy(channel, patience).await,
        EraChoice::Auto => match ask_modern(channel, probe).await {
            Ok((Verdict::Modern, facts)) => Ok(facts),
            // A server that ended cannot be asked again; its reason is the answer.
            Err(failure) if failure.kind == Kind::UpstreamLost => Err(failure),
            Ok(_) | Err(_) => ask_legacy(channel, patience).await,
        },
    }
}

async fn ask_modern(
    channel: &Arc<Channel>,
    wait: Duration,
) -> Result<(Verdict, ServerFacts), Failure> {
    let deadline = Instant::now_plus(wait);
    let asked = (Method::Discover, &b"{}"[..]);
    let answered = channel.ask(asked, Era::Modern, deadline).await?;
    let verdict = handshake::verdict(ProbeAnswer::Stdio(answered.body()));
    let facts = read_discover(answered.body(), "The server")?;
    Ok((verdict, facts))
}

async fn ask_legacy(channel: &Arc<Channel>, wait: Duration) -> Result<ServerFacts, Failure> {
    let deadline = Instant::now_plus(wait);
    channel.initialize(Answers::RELAYED, deadline).await
}

async fn http(
    shared: &Shared,
    (address, sse): (Address, SseAddress),
    era: EraChoice,
    ear: &Ear,
) -> Result<Link, Failure> {
    let wait = shared.config.probe_timeout;
    let recheck = (era == EraChoice::Auto).then_some(Recheck {
        every: shared.config.era_recheck,
        wait,
    });
    let (has_tokens, per_user) = (address.target.has_tokens(), address.target.is_per_user());
    let modern = match era {
        EraChoice::Legacy => None,
        EraChoice::Auto | EraChoice::Modern => probe_modern(&address, era, wait).await?,
    };
    let (facts, wire) = match modern {
        Some(facts) => {
            let link = HttpLink::new(address, &facts, None, (recheck, ear));
            (facts, wire_of(link, per_user))
        }
        None => match open_legacy(&address, wait).await? {
            Some((facts, session)) => {
                let link = HttpLink::new(address, &facts, session, (recheck, ear));
                (facts, wire_of(link, per_user))
            }
            None if has_tokens => {
                let detail = format!(
                    "`{}` speaks HTTP+SSE of 2024-11-05, to which Vaxel shows no tokens of OAuth",
                    sse.name
                );
                return Err(Failure::new(Kind::UpstreamProtocol, detail));
            }
            None => open_sse(sse, ear, wait).await?,
        },
    };
    Ok(Link::new(shared, facts, wire, ear))
}

fn wire_of(link: HttpLink, per_user: bool) -> Wire {
    if per_user {
        Wire::PerUser(Box::new(PerUser::new(link)))
    } else {
        Wire::Http(link)
    }
}

async fn open_sse(
    address: SseAddress,
    ear: &Ear,
    wait: Duration,
) -> Result<(ServerFacts, Wire), Failure> {
    let deadline = Instant::now_plus(wait);
    let dial = Dial::Sse(address);
    let first = dial.open(ear, deadline).await?;
    let facts = first.channel.initialize(Answers::RELAYED, deadline).await?;
    let connections = Connections::new(dial, ear.clone(), Era::Legacy, first);
    Ok((facts, Wire::Connections(Box::new(connections))))
}

fn header_map(headers: Vec<(String, Secret<String>)>) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::with_capacity(headers.len() + 8);
    for (name, value) in headers {
        let parsed = HeaderName::try_from(&name).ok();
        let text = HeaderValue::from_str(value.expose()).ok();
        let (Some(parsed), Some(mut text)) = (parsed, text) else {
            let detail = format!("The header `{name}` of this service cannot be sent");
            return Err(Failure::new(Kind::Invalid, detail));
        };
        text.set_sensitive(true);
        map.insert(parsed, text);
    }
    Ok(map)
}
