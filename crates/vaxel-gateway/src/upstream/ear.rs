//! What servers say unasked: that their lists or single resources have changed, and how tasks stand.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, SetOnce},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use vaxel_core::{
    failure::Failure,
    id::{Id, Service},
};
use vaxel_mcp::{
    envelope::Envelope,
    handshake::{ServerFacts, capabilities::TASKS},
    hello::{self, Offered},
    meta,
    method::Method,
    revision::Era,
};

use super::{OnBehalf, Wire, http_link::STREAM_FOLLOWS, usage::OpenTasks};
use crate::{
    gateway::Shared,
    interest::{Interest, Subject, Wanted},
    tasks,
};

/// Pause before a broken stream of changes is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(15);
/// The same for one that was not opened so in haste just before: shorter than clients wait who come
/// again to watch what they watched.
const LISTEN_SOON: Duration = Duration::from_secs(1);
/// Longest wait for a server to take note of a subscription.
const SUBSCRIBE: Duration = Duration::from_secs(30);

/// Whom a link tells what its server says unasked.
#[derive(Clone)]
pub(crate) struct Ear {
    pub(crate) changed: Arc<Notify>,
    /// Tells the instance from others, of this process and of others.
    pub(super) instance: u64,
    /// The tasks that its server works on.
    pub(super) tasks: Arc<OpenTasks>,
    interest: Arc<Interest>,
}

/// A server's word that it has taken note of what it is listened to for.
pub(super) struct Acknowledged {
    names_tasks: bool,
    /// The tasks that it tells of, by its own ids.
    tasks: SetOnce<Box<[Box<str>]>>,
}

/// How a stream of changes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listened {
    /// The server has no such stream.
    NotOffered,
    /// It may be opened again.
    Broken,
}

impl Ear {
    pub(crate) fn new(interest: Arc<Interest>) -> Self {
        Self {
            changed: Arc::new(Notify::new()),
            instance: u64::from_ne_bytes(vaxel_auth::random::bytes()),
            tasks: Arc::default(),
            interest,
        }
    }

    /// Takes note of a notification; whether it is one of changes.
    pub(super) fn hear(&self, envelope: &Envelope<'_>) -> bool {
        #[derive(Deserialize)]
        struct Updated {
            uri: String,
        }
        match envelope.method.as_deref().map(Method::of) {
            Some(Method::ToolsChanged | Method::PromptsChanged | Method::ResourcesChanged) => {
                self.changed.notify_one();
            }
            Some(Method::ResourceUpdated) => {
                let params = envelope.params.map_or("", |params| params.get());
                if let Ok(Updated { uri }) = serde_json::from_str(params) {
                    self.interest.updated(&uri);
                }
            }
            Some(Method::TaskStands) => {
                let params = envelope.params.map_or("", |params| params.get());
                if let Some((id, is_over)) = tasks::stands(params) {
                    if is_over {
                        self.tasks.ended(&id);
                    }
                    self.interest.stands((self.instance, &id), params, is_over);
                }
            }
            _ => return false,
        }
        true
    }

    /// Whose server it hears.
    pub(super) fn service(&self) -> Id<Service> {
        self.interest.service()
    }

    /// A stream of changes was broken for a while: anything may have happened.
    fn missed(&self) {
        self.changed.notify_one();
        self.interest.all_updated();
    }
}

impl Acknowledged {
    fn of(asked: &BTreeSet<Subject>) -> Self {
        let is_task = |subject: &Subject| matches!(subject, Subject::Task { .. });
        Self {
            names_tasks: asked.iter().any(is_task),
            tasks: SetOnce::new(),
        }
    }

    /// The request is on its way to a server that reads it before any later one. Only of tasks that says
    /// nothing yet: the server decides of which it tells.
    pub(super) fn is_sent(&self) {
        if !self.names_tasks {
            self.note(None);
        }
    }

    /// Waits until it has; the tasks that it tells of. Of a server that stays silent nothing is expected.
    async fn tasks(&self) -> Box<[Box<str>]> {
        let tasks = timeout(SUBSCRIBE, self.tasks.wait()).await;
        tasks.cloned().unwrap_or_default()
    }

    /// The server has taken note; these are the `params` of its notification.
    pub(super) fn note(&self, params: Option<&RawValue>) {
        #[derive(Default, Deserialize)]
        struct Agreed {
            #[serde(default)]
            notifications: Notifications,
        }
        #[derive(Default, Deserialize)]
        struct Notifications {
            #[serde(default, rename = "taskIds")]
            tasks: Box<[Box<str>]>,
        }
        let agreed = params.and_then(|params| serde_json::from_str(params.get()).ok());
        let agreed: Agreed = agreed.unwrap_or_default();
        // Whoever says it twice has said it.
        let _ = self.tasks.set(agreed.notifications.tasks);
    }
}

/// Listens to a server until the guard is dropped, which its link holds.
pub(crate) fn listen(
    shared: &Shared,
    wire: &Arc<Wire>,
    facts: &ServerFacts,
    ear: &Ear,
) -> Option<DropGuard> {
    let takes_subscriptions = Offered::of(&facts.capabilities).subscribe;
    let tells_always = takes_subscriptions || announces(facts);
    if !tells_always && !tells_of_tasks(facts) {
        return None;
    }
    let stop = shared.stop.child_token();
    let stopped = stop.clone();
    let (wire, ear, era) = (Arc::clone(wire), ear.clone(), facts.revision.era());
    // Before anything is known of its link: what is watched there waits for this.
    let mut wanted =
        (era == Era::Modern || takes_subscriptions).then(|| ear.interest.wanted(ear.instance));
    shared.tasks.spawn(async move {
        let listening = async {
            match (era, &mut wanted) {
                (Era::Modern, Some(wanted)) => modern(&wire, &ear, wanted, tells_always).await,
                (_, wanted) => {
                    let lost = Notify::new();
                    let subscribing = async {
                        if let Some(wanted) = wanted {
                            subscribe(&wire, wanted, &lost).await;
                        }
                    };
                    tokio::join!(legacy(&wire, &ear, &lost), subscribing);
                }
            }
        };
        until(stopped, listening).await;
    });
    Some(stop.drop_guard())
}

/// Whether a server may tell how its tasks stand: who speaks the extension can, and decides for each
/// request to listen (SEP-2663, "Task Status Notifications").
pub(super) fn tells_of_tasks(facts: &ServerFacts) -> bool {
    let is_modern = facts.revision.era() == Era::Modern;
    is_modern && hello::extensions(&facts.capabilities).contains_key(TASKS)
}

/// Whether a server says that it tells when its lists change.
pub(super) fn announces(facts: &ServerFacts) -> bool {
    facts.capabilities.get().contains("\"listChanged\"")
}

async fn until(stopped: CancellationToken, listening: impl Future<Output = ()>) {
    tokio::select! {
        () = listening => {}
        () = stopped.cancelled() => {}
    }
}

/// A legacy server over HTTP talks on the stream of its session; on a channel it talks anyway.
async fn legacy(wire: &Wire, ear: &Ear, lost: &Notify) {
    loop {
        match wire {
            Wire::Http(http) if http.listen(ear).await == Listened::Broken => {}
            Wire::PerUser(users) if users.own.listen(ear).await == Listened::Broken => {}
            Wire::Connections(all) => all.lost().await,
            Wire::Http(_)
            | Wire::PerUser(_)
            | Wire::Stdio { .. }
            | Wire::Builtin(_)
            | Wire::Tools(_) => return,
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
        lost.notify_one();
        ear.missed();
    }
}

/// Tells a legacy server which resources are watched, as that changes.
async fn subscribe(wire: &Wire, wanted: &mut Wanted, lost: &Notify) {
    let mut told = BTreeSet::new();
    loop {
        let now = wanted.now();
        for subject in now.difference(&told) {
            note_failure(tell(wire, Method::Subscribe, subject).await);
        }
        for subject in told.difference(&now) {
            note_failure(tell(wire, Method::Unsubscribe, subject).await);
        }
        wanted.noted(&now, &[]);
        told = now;
        tokio::select! {
            () = wanted.changed() => {}
            // What a server was told in a session that is gone is forgotten.
            () = lost.notified() => told.clear(),
        }
    }
}

async fn tell(wire: &Wire, method: Method, subject: &Subject) -> Result<(), Failure> {
    let Subject::Resource(uri) = subject else {
        return Ok(());
    };
    let mut quoted = Vec::new();
    meta::quote(&mut quoted, uri);
    let mut params = vec![b'{'];
    meta::member(&mut params, "uri", &quoted);
    params.push(b'}');
    let asked = wire.ask(OnBehalf::SYSTEM, (method, &params), SUBSCRIBE);
    // On the heap while it lasts: whoever watches a server waits most of the time.
    Box::pin(asked).await.map(drop)
}

fn note_failure(told: Result<(), Failure>) {
    if let Err(failure) = told {
        tracing::debug!(%failure, "a server took no note of a subscription");
    }
}

/// A modern server is asked anew whenever something else is watched; what it is asked for cannot be
/// changed (MCP 2026-07-28, Patterns, "Subscriptions"). The old stream stays open until the new one
/// is acknowledged and what is on its way has come, so that nothing falls between the two; what is said
/// meanwhile is heard twice, in its order.
///
/// One that has nothing to tell but of tasks is listened to while any is watched.
async fn modern(wire: &Wire, ear: &Ear, wanted: &mut Wanted, tells_always: bool) {
    loop {
        if !tells_always {
            wanted.any().await;
        }
        follow(wire, ear, wanted, tells_always).await;
        wanted.lost();
        if tells_always {
            return;
        }
    }
}

/// Listens until the server has no such stream, or there is nothing to be told.
async fn follow(wire: &Wire, ear: &Ear, wanted: &mut Wanted, tells_always: bool) {
    let mut current = open(wire, ear, wanted.now());
    loop {
        tokio::select! {
            biased;
            tasks = current.told.tasks(), if !current.is_noted => {
                wanted.noted(&current.asked, &tasks);
                current.is_noted = true;
            }
            listened = &mut current.listening => {
                current = match listened {
                    Listened::NotOffered if wanted.refuse(&current.asked) => {
                        open(wire, ear, wanted.now())
                    }
                    Listened::NotOffered => return,
                    Listened::Broken => again(wire, ear, wanted, current.haste).await,
                };
            }
            () = wanted.changed() => {
                if !tells_always && wanted.now().is_empty() {
                    return;
                }
                current = renew(current, wire, ear, wanted).await;
            }
        }
        if !tells_always && current.asked.is_empty() {
            return;
        }
    }
}

/// A stream for what is watched now.
async fn renew<'a>(
    mut current: Opened<'a>,
    wire: &'a Wire,
    ear: &'a Ear,
    wanted: &mut Wanted,
) -> Opened<'a> {
    loop {
        let now = wanted.now();
        // It may have been about another instance.
        if now == current.asked {
            return current;
        }
        let mut next = open(wire, ear, now);
        next.haste = current.haste;
        tokio::select! {
            biased;
            tasks = next.told.tasks() => {
                wanted.noted(&next.asked, &tasks);
                next.is_noted = true;
                if matches!(wire, Wire::Http(_)) {
                    // The two are two connections: what was said on the old one before may come after.
                    let _ = timeout(STREAM_FOLLOWS, &mut current.listening).await;
                }
                return next;
            }
            // Some servers end it when they are asked anew: the new one tells what comes.
            _ = &mut current.listening => return next,
            listened = &mut next.listening => {
                if listened == Listened::Broken || !wanted.refuse(&next.asked) {
                    return again(wire, ear, wanted, current.haste).await;
                }
            }
        }
    }
}

/// A stream of changes.
struct Opened<'a> {
    listening: BoxFuture<'a, Listened>,
    /// What it is for.
    asked: BTreeSet<Subject>,
    told: Arc<Acknowledged>,
    /// That was acknowledged.
    is_noted: bool,
    /// When the server was last asked again without much ado.
    haste: Option<Instant>,
}

fn open<'a>(wire: &'a Wire, ear: &'a Ear, asked: BTreeSet<Subject>) -> Opened<'a> {
    let told = Arc::new(Acknowledged::of(&asked));
    Opened {
        listening: Box::pin(wire.listen(asked.clone(), ear, Arc::clone(&told))),
        asked,
        told,
        is_noted: false,
        haste: None,
    }
}

async fn again<'a>(
    wire: &'a Wire,
    ear: &'a Ear,
    wanted: &mut Wanted,
    haste: Option<Instant>,
) -> Opened<'a> {
    wanted.lost();
    let in_haste = haste.is_none_or(|last| last.elapsed() > LISTEN_AGAIN);
    let pause = if in_haste { LISTEN_SOON } else { LISTEN_AGAIN };
    tokio::time::sleep(pause).await;
    ear.missed();
    let mut opened = open(wire, ear, wanted.now());
    opened.haste = if in_haste {
        Some(Instant::now())
    } else {
        haste
    };
    opened
}
