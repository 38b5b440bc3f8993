//! Streams that tell clients of changes: `GET` of a legacy session, `subscriptions/listen` of the
//! modern era. Both compare digests of the lists in their scope whenever the snapshot changed, and hear
//! what servers say of the resources and tasks that their client watches.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::StatusCode;
use serde::Deserialize;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
    time::interval,
};
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
};
use vaxel_mcp::{error, handshake::capabilities::TASKS, hello, meta, method::Method};

mod tasks; // those that a stream tells of

use self::tasks::{Missed, WatchedTasks};
use crate::{
    authorize::Sight,
    dispatch,
    edge::{Client, Exchange, legacy},
    gateway::{OpenStream, Shared},
    interest::{Update, Watched},
    pipeline::Context,
    respond::{self, Body, Response},
    route::{self, Scope, ScopeId, resource},
    session::{Listener, Session},
    snapshot::Digests,
};

/// Events waiting for one client. A client that reads no further than this is dropped; it comes back
/// and reads the lists anew.
const EVENTS: usize = 64;
/// Most single resources that one session or stream may watch, and most tasks.
pub(crate) const RESOURCES: usize = 1_000;
/// How often a comment shows both sides that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which changes of lists a client wants to hear of.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
}

impl Wanted {
    const ALL: Self = Self {
        tools_list_changed: true,
        prompts_list_changed: true,
        resources_list_changed: true,
    };
}

#[derive(Deserialize)]
struct Listen {
    #[serde(default)]
    notifications: Notifications,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Notifications {
    #[serde(flatten)]
    lists: Wanted,
    resource_subscriptions: Vec<String>,
    task_ids: Vec<String>,
}

/// What a stream tells of besides lists.
enum Watching {
    /// The resources of a session, which it changes by requests.
    Session(Listener),
    /// What the stream was opened for.
    Stream(Vec<Watched>, WatchedTasks),
}

impl Watching {
    /// Whether there is no better stream to tell the same client.
    fn is_told(&self) -> bool {
        match self {
            Self::Session(listener) => listener.is_newest(),
            Self::Stream(..) => true,
        }
    }

    /// The resources that an update is about; of all of them when it is not known.
    fn concerned(&self, update: Option<&Update>) -> Vec<String> {
        let concerns = |one: &&Watched| update.is_none_or(|update| one.is(update));
        let uri = |one: &Watched| one.known_as().to_owned();
        match self {
            Self::Session(listener) => {
                let watched = listener.session().watched.lock();
                watched.values().filter(concerns).map(uri).collect()
            }
            Self::Stream(watched, _) => watched.iter().filter(concerns).map(uri).collect(),
        }
    }
}

/// `GET`: everything that concerns the session but belongs to none of its requests.
pub(crate) fn legacy_stream(context: &Context) -> Result<Response, Failure> {
    let session = legacy::session(context)?;
    let last_event = context.head.headers.get("last-event-id");
    let last_event = last_event.and_then(|id| id.to_str().ok());
    if let Some(rest) = last_event.and_then(|id| session.replays.resume(id)) {
        return Ok(rest);
    }
    let scope = context.scope.id();
    let watching = |sender| Watching::Session(session.listen(scope, sender));
    start(context, Wanted::ALL, watching, None)
}

/// `resources/subscribe` and `resources/unsubscribe` of a session. It is answered when the server knows,
/// so that no change from then on is missed.
pub(crate) async fn watch_resource(
    context: &Context,
    session: &Session,
    uri: &str,
    wanted: bool,
) -> Result<(), Failure> {
    crate::authorize::may_list(&context.principal)?;
    let noted = change_watched(context, session, uri, wanted)?;
    context.shared.sessions.remember(session);
    if let Some(noted) = noted {
        noted.await;
    }
    Ok(())
}

/// Changes what a session watches; what is returned waits until the server knows.
fn change_watched(
    context: &Context,
    session: &Session,
    uri: &str,
    wanted: bool,
) -> Result<Option<impl Future<Output = ()> + Send + use<>>, Failure> {
    let mut watched = session.watched.lock();
    if !wanted {
        watched.remove(uri);
        return Ok(None);
    }
    if watched.len() >= RESOURCES && !watched.contains_key(uri) {
        return Err(too_many("resources"));
    }
    let one = watch(context, uri)?;
    let noted = one.noted();
    watched.insert(uri.into(), one);
    Ok(Some(noted))
}

fn too_many(what: &str) -> Failure {
    let detail = format!("More than {RESOURCES} {what} cannot be watched at once");
    Failure::new(Kind::Busy, detail)
}

fn watch(context: &Context, uri: &str) -> Result<Watched, Failure> {
    let route = resource(&context.snapshot, &context.scope, uri)?;
    if !Sight::of(&context.principal).shows(&context.principal, &route.shard, None) {
        return Err(route::unknown(Method::ResourcesRead, &context.scope, uri));
    }
    if !route.shard.tells_of_resources() {
        let detail = format!(
            "`{}` does not tell of changes of its resources",
            route.shard.name
        );
        return Err(Failure::new(Kind::Unsupported, detail));
    }
    let interest = context.shared.interests.of(route.shard.id);
    let watched = interest.watch(&route.own, uri);
    // A server that sleeps tells of nothing.
    route.shard.wake();
    Ok(watched)
}

/// `subscriptions/listen`.
pub(crate) fn listen(context: &Context, exchange: &Exchange) -> Result<Response, Failure> {
    if matches!(exchange.client, Client::Legacy(_)) {
        return Ok(dispatch::unknown_method(exchange));
    }
    let params: Listen = exchange.request.read_params().ok_or_else(|| {
        Failure::new(
            Kind::Invalid,
            "`params.notifications` must be an object of booleans, and of lists of URIs and ids",
        )
    })?;
    let wanted = params.notifications;
    for (what, count) in [
        ("resources", wanted.resource_subscriptions.len()),
        ("tasks", wanted.task_ids.len()),
    ] {
        if count > RESOURCES {
            return Err(too_many(what));
        }
    }
    let id = exchange.request.id().to_vec();
    if !wanted.task_ids.is_empty() && !knows_tasks(exchange) {
        let refusal = error::missing_extension(&id, TASKS);
        return Ok(respond::json(StatusCode::BAD_REQUEST, Body::full(refusal)));
    }
    // Only what can be heard of is acknowledged.
    let uris = wanted.resource_subscriptions.iter();
    let watched: Vec<Watched> = uris.filter_map(|uri| watch(context, uri).ok()).collect();
    let tasks = WatchedTasks::of(context, &wanted.task_ids);
    let watching = |_| Watching::Stream(watched, tasks);
    start(context, wanted.lists, watching, Some(id))
}

fn knows_tasks(exchange: &Exchange) -> bool {
    let declared = exchange.request.capabilities();
    declared.is_some_and(|declared| hello::extensions(declared).contains_key(TASKS))
}

fn start(
    context: &Context,
    wanted: Wanted,
    watching: impl FnOnce(mpsc::Sender<Bytes>) -> Watching,
    subscription: Option<Vec<u8>>,
) -> Result<Response, Failure> {
    crate::authorize::may_list(&context.principal)?;
    let place = context.shared.enter_stream()?;
    let (sender, receiver) = mpsc::channel(EVENTS);
    // The head of the answer leaves with its first piece: without one it would wait.
    let _ = sender.try_send(sse::comment("listening"));
    let shared = &context.shared;
    let wanted = (wanted, watching(sender.clone()));
    let watcher = Watcher::new(shared, &context.scope, wanted, sender);
    let watcher = Watcher {
        subscription,
        _place: Some(place),
        ..watcher
    };
    shared.tasks.spawn(watcher.run(Arc::clone(shared)));
    Ok(respond::stream(receiver))
}

/// The same for a session whose stream is there already.
pub(crate) fn follow(
    shared: &Arc<Shared>,
    scope: &Scope,
    session: &Arc<Session>,
    sender: mpsc::Sender<Bytes>,
) {
    let listener = session.listen(scope.id(), sender.clone());
    let wanted = (Wanted::ALL, Watching::Session(listener));
    let watcher = Watcher::new(shared, scope, wanted, sender);
    shared.tasks.spawn(watcher.run(Arc::clone(shared)));
}

/// Of a service or set that is gone nothing is left.
fn digests(shared: &Shared, scope: &ScopeId) -> Digests {
    let snapshot = shared.snapshot.load();
    match scope {
        ScopeId::All => snapshot.digests,
        ScopeId::Service(id) => snapshot
            .shard(*id)
            .map(|shard| shard.offers.digests)
            .unwrap_or_default(),
        ScopeId::Set(name) => snapshot
            .set(name.as_str())
            .map(|set| set.digests(&snapshot))
            .unwrap_or_default(),
    }
}

/// Whether clients of a scope may still hear of a resource that they began to watch: what a set shows
/// may change meanwhile.
fn still_knows(shared: &Shared, scope: &ScopeId, uri: &str) -> bool {
    let ScopeId::Set(name) = scope else {
        return true;
    };
    let snapshot = shared.snapshot.load();
    let set = snapshot.set(name.as_str());
    set.is_some_and(|set| resource(&snapshot, &Scope::Set(Arc::clone(set)), uri).is_ok())
}

struct Watcher {
    /// Counts the stream while it is open.
    _place: Option<OpenStream>,
    changed: watch::Receiver<()>,
    updates: broadcast::Receiver<Update>,
    watching: Watching,
    seen: Digests,
    scope: ScopeId,
    wanted: Wanted,
    subscription: Option<Vec<u8>>,
    sender: mpsc::Sender<Bytes>,
}

impl Watcher {
    fn new(
        shared: &Shared,
        scope: &Scope,
        (wanted, watching): (Wanted, Watching),
        sender: mpsc::Sender<Bytes>,
    ) -> Self {
        Self {
            _place: None,
            // Before the lists are looked at: a change in between must be heard.
            changed: shared.changed.subscribe(),
            updates: shared.interests.updates(),
            watching,
            seen: digests(shared, &scope.id()),
            scope: scope.id(),
            wanted,
            subscription: None,
            sender,
        }
    }

    async fn run(mut self, shared: Arc<Shared>) {
        self.acknowledge().await;
        let mut keep_alive = interval(KEEP_ALIVE);
        keep_alive.reset();
        loop {
            let told = tokio::select! {
                () = self.sender.closed() => return,
                () = shared.stop.cancelled() => return self.end(),
                _ = keep_alive.tick() => self.sender.try_send(sse::comment("alive")).is_ok(),
                news = self.changed.changed() => news.is_ok() && self.compare(&shared),
                update = self.updates.recv() => match self.hear(&shared, update) {
                    ControlFlow::Continue(told) => told,
                    ControlFlow::Break(Missed) => return self.end(),
                },
            };
            if !told {
                return;
            }
        }
    }

    /// Tells a modern client what it will hear of, as soon as the servers know what is watched.
    async fn acknowledge(&mut self) {
        let (Some(id), Watching::Stream(watched, tasks)) = (&self.subscription, &mut self.watching)
        else {
            return;
        };
        let resources = join_all(watched.iter().map(Watched::noted));
        tokio::join!(resources, tasks.settle());
        let first = acknowledged(id, self.wanted, watched, tasks);
        // The channel is new and has room.
        let _ = self.sender.try_send(sse::event(&first, None));
    }

    /// Tells the client what a server said: whether it reads, or that it has to be told to come anew.
    fn hear(
        &mut self,
        shared: &Shared,
        update: Result<Update, RecvError>,
    ) -> ControlFlow<Missed, bool> {
        let update = match update {
            Ok(update) => Some(update),
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return ControlFlow::Continue(false),
        };
        if let (Some(id), Watching::Stream(_, tasks)) = (&self.subscription, &mut self.watching) {
            let notes = match &update {
                Some(update) => tasks.hear(update, (&shared.snapshot.load(), &self.scope), id)?,
                None => tasks.miss()?,
            };
            for note in notes {
                if self.sender.try_send(sse::event(&note, None)).is_err() {
                    return ControlFlow::Continue(false);
                }
            }
        }
        ControlFlow::Continue(self.tell(shared, update.as_ref()))
    }

    /// Tells the client which of its resources have changed; false when it does not read.
    fn tell(&self, shared: &Shared, update: Option<&Update>) -> bool {
        if !self.watching.is_told() {
            return true;
        }
        let concerned = self.watching.concerned(update);
        let mut known = concerned
            .iter()
            .filter(|uri| still_knows(shared, &self.scope, uri));
        known.all(|uri| {
            let mut quoted = Vec::new();
            meta::quote(&mut quoted, uri);
            let about = Some(("uri", &*quoted));
            let note = notification(Method::ResourceUpdated, self.subscription.as_deref(), about);
            self.sender.try_send(sse::event(&note, None)).is_ok()
        })
    }

    /// Tells the client what differs from what it last heard; false when it does not read.
    fn compare(&mut self, shared: &Shared) -> bool {
        let now = digests(shared, &self.scope);
        let before = std::mem::replace(&mut self.seen, now);
        if !self.watching.is_told() {
            return true;
        }
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
    }
}

fn subscription_meta(id: &[u8]) -> Vec<u8> {
    meta::rewrite(None, |_| false, &[(meta::SUBSCRIPTION_ID, id)])
}

fn acknowledged(id: &[u8], wanted: Wanted, watched: &[Watched], tasks: &WatchedTasks) -> Bytes {
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
    let uris: Vec<&str> = watched.iter().map(Watched::known_as).collect();
    for (name, all) in [("resourceSubscriptions", uris), ("taskIds", tasks.ids())] {
        if !all.is_empty() {
            let all = serde_json::to_vec(&all).unwrap_or_default();
            meta::member(&mut granted, name, &all);
        }
    }
    granted.push(b'}');
    let granted = Some(("notifications", &*granted));
    notification(Method::Acknowledged, Some(id), granted)
}

/// A notification with one member of its own.
fn notification(method: Method, subscription: Option<&[u8]>, own: Option<(&str, &[u8])>) -> Bytes {
    let mut params = vec![b'{'];
    if let Some(id) = subscription {
        meta::member(&mut params, "_meta", &subscription_meta(id));
    }
    if let Some((name, value)) = own {
        meta::member(&mut params, name, value);
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
