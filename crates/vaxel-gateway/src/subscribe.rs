//! Streams that tell clients of changes: `GET` of a legacy session, `subscriptions/listen` of the
//! modern era. Both compare digests of the lists in their scope whenever the snapshot changed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, watch},
    time::interval,
};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    sse,
};
use vaxel_mcp::{meta, method::Method};

use crate::{
    dispatch,
    edge::{Client, Exchange, legacy},
    gateway::{OpenStream, Shared},
    pipeline::Context,
    respond::{self, Response},
    route::Scope,
    snapshot::Digests,
};

/// Events waiting for one client. A client that reads no further than this is dropped; it comes back
/// and reads the lists anew.
const EVENTS: usize = 16;
/// How often a comment shows both sides that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which changes a client wants to hear of.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
}

#[derive(Deserialize)]
struct Listen {
    #[serde(default)]
    notifications: Wanted,
}

/// `GET`: everything that concerns the session but belongs to none of its requests.
pub(crate) fn legacy_stream(context: &Context) -> Result<Response, Failure> {
    legacy::session(context)?;
    let wanted = Wanted {
        tools_list_changed: true,
        prompts_list_changed: true,
        resources_list_changed: true,
    };
    start(context, wanted, None, Vec::new())
}

/// `subscriptions/listen`.
pub(crate) fn listen(context: &Context, exchange: &Exchange) -> Result<Response, Failure> {
    if matches!(exchange.client, Client::Legacy(_)) {
        return Ok(dispatch::unknown_method(exchange));
    }
    let params: Listen = exchange.request.read_params().ok_or_else(|| {
        Failure::new(
            Kind::Invalid,
            "`params.notifications` must be an object of booleans",
        )
    })?;
    let id = exchange.request.id().to_vec();
    let first = vec![acknowledged(&id, params.notifications)];
    start(context, params.notifications, Some(id), first)
}

fn start(
    context: &Context,
    wanted: Wanted,
    subscription: Option<Vec<u8>>,
    first: Vec<Bytes>,
) -> Result<Response, Failure> {
    crate::authorize::may_list(&context.principal)?;
    let (sender, receiver) = mpsc::channel(EVENTS);
    for event in first {
        // The channel is new and has room.
        let _ = sender.try_send(sse::event(&event, None));
    }
    // The head of the answer leaves with its first piece: without one it would wait.
    let _ = sender.try_send(sse::comment("listening"));
    let watcher = Watcher {
        open: context.shared.enter_stream()?,
        // Before the lists are looked at: a change in between must be heard.
        changed: context.shared.changed.subscribe(),
        seen: digests(&context.shared, scope_id(&context.scope)),
        scope: scope_id(&context.scope),
        wanted,
        subscription,
        sender,
    };
    context
        .shared
        .tasks
        .spawn(watcher.run(Arc::clone(&context.shared)));
    Ok(respond::stream(receiver))
}

/// `None`: all services.
fn scope_id(scope: &Scope) -> Option<Id<Service>> {
    match scope {
        Scope::All => None,
        Scope::Service(shard) => Some(shard.id),
    }
}

fn digests(shared: &Shared, scope: Option<Id<Service>>) -> Digests {
    let snapshot = shared.snapshot.load();
    match scope {
        None => snapshot.digests,
        Some(id) => snapshot
            .shard(id)
            .map(|shard| shard.offers.digests)
            .unwrap_or_default(),
    }
}

struct Watcher {
    open: OpenStream,
    changed: watch::Receiver<()>,
    seen: Digests,
    scope: Option<Id<Service>>,
    wanted: Wanted,
    subscription: Option<Vec<u8>>,
    sender: mpsc::Sender<Bytes>,
}

impl Watcher {
    async fn run(mut self, shared: Arc<Shared>) {
        let mut keep_alive = interval(KEEP_ALIVE);
        keep_alive.reset();
        loop {
            let told = tokio::select! {
                () = self.sender.closed() => return,
                () = shared.stop.cancelled() => return self.end(),
                _ = keep_alive.tick() => self.sender.try_send(sse::comment("alive")).is_ok(),
                news = self.changed.changed() => news.is_ok() && self.compare(&shared),
            };
            if !told {
                return;
            }
        }
    }

    /// Tells the client what differs from what it last heard; false when it does not read.
    fn compare(&mut self, shared: &Shared) -> bool {
        let now = digests(shared, self.scope);
        let before = std::mem::replace(&mut self.seen, now);
        let changes = [
            (
                self.wanted.tools_list_changed && before.tools != now.tools,
                Method::ToolsChanged,
            ),
            (
                self.wanted.prompts_list_changed && before.prompts != now.prompts,
                Method::PromptsChanged,
            ),
            (
                self.wanted.resources_list_changed && before.resources != now.resources,
                Method::ResourcesChanged,
            ),
        ];
        changes
            .into_iter()
            .filter(|(changed, _)| *changed)
            .all(|(_, method)| {
                let note = notification(method, self.subscription.as_deref(), None);
                self.sender.try_send(sse::event(&note, None)).is_ok()
            })
    }

    /// A modern subscription ends with its result (MCP 2026-07-28, patterns, subscriptions).
    fn end(self) {
        if let Some(id) = &self.subscription {
            let mut result = br#"{"resultType":"complete","_meta":"#.to_vec();
            result.extend_from_slice(&subscription_meta(id));
            result.push(b'}');
            let answer = vaxel_mcp::response::result(id, &result);
            // A client that does not read learns of the end from the connection.
            let _ = self.sender.try_send(sse::event(&answer, None));
        }
        drop(self.open);
    }
}

fn subscription_meta(id: &[u8]) -> Vec<u8> {
    meta::rewrite(None, |_| false, &[(meta::SUBSCRIPTION_ID, id)])
}

fn acknowledged(id: &[u8], wanted: Wanted) -> Bytes {
    let mut granted = vec![b'{'];
    for (name, given) in [
        ("toolsListChanged", wanted.tools_list_changed),
        ("promptsListChanged", wanted.prompts_list_changed),
        ("resourcesListChanged", wanted.resources_list_changed),
    ] {
        if given {
            meta::member(&mut granted, name, b"true");
        }
    }
    granted.push(b'}');
    notification(Method::Acknowledged, Some(id), Some(&granted))
}

fn notification(method: Method, subscription: Option<&[u8]>, granted: Option<&[u8]>) -> Bytes {
    let mut params = vec![b'{'];
    if let Some(id) = subscription {
        meta::member(&mut params, "_meta", &subscription_meta(id));
    }
    if let Some(granted) = granted {
        meta::member(&mut params, "notifications", granted);
    }
    params.push(b'}');
    let mut out = br#"{"jsonrpc":"2.0""#.to_vec();
    let mut name = Vec::new();
    meta::quote(&mut name, method.as_str());
    meta::member(&mut out, "method", &name);
    if params.len() > 2 {
        meta::member(&mut out, "params", &params);
    }
    out.push(b'}');
    out.into()
}
