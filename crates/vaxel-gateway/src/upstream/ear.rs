//! What servers say unasked: that their lists or single resources have changed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use vaxel_core::{
    failure::Failure,
    id::{Id, Service},
};
use vaxel_mcp::{
    envelope::Envelope, handshake::ServerFacts, hello::Offered, meta, method::Method, revision::Era,
};

use super::{OnBehalf, Wire};
use crate::{
    gateway::Shared,
    interest::{Interest, Wanted},
};

/// Pause before a broken stream of changes is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(15);
/// Longest wait for a server to take note of a subscription.
const SUBSCRIBE: Duration = Duration::from_secs(30);

/// Whom a link tells what its server says unasked.
#[derive(Clone)]
pub(crate) struct Ear {
    pub(crate) changed: Arc<Notify>,
    interest: Arc<Interest>,
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

/// Listens to a server until the guard is dropped, which its link holds.
pub(crate) fn listen(
    shared: &Shared,
    wire: &Arc<Wire>,
    facts: &ServerFacts,
    ear: &Ear,
) -> Option<DropGuard> {
    let takes_subscriptions = Offered::of(&facts.capabilities).subscribe;
    if !takes_subscriptions && !announces(facts) {
        return None;
    }
    let stop = shared.stop.child_token();
    let stopped = stop.clone();
    let (wire, ear, era) = (Arc::clone(wire), ear.clone(), facts.revision.era());
    shared.tasks.spawn(async move {
        let listening = async {
            match era {
                Era::Modern => modern(&wire, &ear).await,
                Era::Legacy => {
                    let lost = Notify::new();
                    let subscribing = async {
                        if takes_subscriptions {
                            subscribe(&wire, &ear, &lost).await;
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
            Wire::Connections(all) => all.lost().await,
            Wire::Http(_) | Wire::Stdio { .. } | Wire::Builtin(_) | Wire::Tools(_) => return,
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
        lost.notify_one();
        ear.missed();
    }
}

/// Tells a legacy server which resources are watched, as that changes.
async fn subscribe(wire: &Wire, ear: &Ear, lost: &Notify) {
    let mut wanted = ear.interest.wanted();
    let mut told = BTreeSet::new();
    loop {
        let now = wanted.now();
        for uri in now.difference(&told) {
            note_failure(tell(wire, Method::Subscribe, uri).await);
        }
        for uri in told.difference(&now) {
            note_failure(tell(wire, Method::Unsubscribe, uri).await);
        }
        wanted.noted(now.clone());
        told = now;
        tokio::select! {
            () = wanted.changed() => {}
            // What a server was told in a session that is gone is forgotten.
            () = lost.notified() => told.clear(),
        }
    }
}

async fn tell(wire: &Wire, method: Method, uri: &str) -> Result<(), Failure> {
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
/// is acknowledged, so that nothing falls between the two.
async fn modern(wire: &Wire, ear: &Ear) {
    let mut wanted = ear.interest.wanted();
    let mut current = open(wire, ear, wanted.now());
    loop {
        tokio::select! {
            listened = &mut current.listening => {
                if listened == Listened::NotOffered {
                    return;
                }
                current = again(wire, ear, &mut wanted).await;
            }
            uris = acknowledged(&current.told, &mut current.uris) => wanted.noted(uris),
            () = wanted.changed() => {
                let mut next = open(wire, ear, wanted.now());
                let is_over = tokio::select! {
                    uris = acknowledged(&next.told, &mut next.uris) => {
                        wanted.noted(uris);
                        false
                    }
                    _ = &mut current.listening => false,
                    _ = &mut next.listening => true,
                };
                current = if is_over { again(wire, ear, &mut wanted).await } else { next };
            }
        }
    }
}

/// A stream of changes.
struct Opened<'a> {
    listening: BoxFuture<'a, Listened>,
    told: Arc<Notify>,
    /// What it is for, until that is acknowledged.
    uris: Option<BTreeSet<Arc<str>>>,
}

fn open<'a>(wire: &'a Wire, ear: &'a Ear, uris: BTreeSet<Arc<str>>) -> Opened<'a> {
    let told = Arc::new(Notify::new());
    Opened {
        listening: Box::pin(wire.listen(uris.clone(), ear, Arc::clone(&told))),
        told,
        uris: Some(uris),
    }
}

/// Resolves once, when the server has taken note of what a stream is for.
async fn acknowledged(told: &Notify, uris: &mut Option<BTreeSet<Arc<str>>>) -> BTreeSet<Arc<str>> {
    if uris.is_some() {
        told.notified().await;
    }
    match uris.take() {
        Some(uris) => uris,
        None => std::future::pending().await,
    }
}

async fn again<'a>(wire: &'a Wire, ear: &'a Ear, wanted: &mut Wanted) -> Opened<'a> {
    tokio::time::sleep(LISTEN_AGAIN).await;
    ear.missed();
    open(wire, ear, wanted.now())
}
