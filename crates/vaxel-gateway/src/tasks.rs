//! Tasks of servers: work that goes on after its call was answered (SEP-2663), under an id by which its
//! client asks for it.
//!
//! A server's own id means nothing on an endpoint of many services, and knowing one must not be enough
//! to see another caller's work: clients get ids that are sealed to them and hold where the task is.

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use vaxel_auth::seal::Sealer;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    principal::Proof,
};
use vaxel_mcp::{
    envelope::span,
    meta,
    request::Request,
    response::{Response as Answered, Verdict},
    splice::Splice,
};

use crate::{
    pipeline::Context,
    route::{Route, ScopeId},
    snapshot::{Shard, Snapshot},
    upstream::Link,
};

/// Longest id that is looked at, bytes.
const ID_MAX: usize = 8 << 10;

/// Seals and opens ids of tasks.
pub(crate) struct Tasks(Arc<Sealer>);

/// What an id holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The service that works on it.
    #[serde(rename = "s")]
    service: Id<Service>,
    /// Its instance.
    #[serde(rename = "i")]
    pub(crate) instance: u64,
    /// The server's own id.
    #[serde(rename = "t")]
    pub(crate) own: Box<str>,
    /// The server's own name of the tool that began it.
    #[serde(rename = "n")]
    tool: Box<str>,
}

impl Tasks {
    pub(crate) const fn new(sealer: Arc<Sealer>) -> Self {
        Self(sealer)
    }

    /// What a server answered, with the task's id as its client knows it; `None` when the answer is
    /// about no task, and can stay as it is.
    pub(crate) fn outward(
        &self,
        proof: Proof,
        (route, link): (&Route, &Link),
        (request, answered): (&Request, &Answered),
    ) -> Option<Answered> {
        let is_known = request.method().is_about_task();
        if !is_known && answered.verdict != Verdict::Task {
            return None;
        }
        let (own, task) = task(answered)?;
        if let Ok(own) = serde_json::from_str::<Cow<'_, str>>(own.get()) {
            task.note(&own, link);
        }
        let id = if is_known {
            request.key()?.into_owned()
        } else {
            let claims = Claims {
                service: route.shard.id,
                instance: link.id(),
                own: serde_json::from_str(own.get()).ok()?,
                tool: (&*route.own).into(),
            };
            let plain = serde_json::to_vec(&claims).ok()?;
            self.0.seal_text(&context_of(proof), &plain)
        };
        let mut quoted = Vec::with_capacity(id.len() + 2);
        meta::quote(&mut quoted, &id);
        let mut splice = Splice::new(answered.body());
        splice.replace(span(answered.body(), own)?, &quoted);
        Answered::read(splice.apply()).ok()
    }

    fn open(&self, proof: Proof, id: &str) -> Option<Claims> {
        if id.len() > ID_MAX {
            return None;
        }
        let plain = self.0.open_text(&context_of(proof), id).ok()?;
        serde_json::from_slice(plain.expose()).ok()
    }
}

/// Where a request about a task leads.
pub(crate) fn route(context: &Context, request: &Request) -> Result<Route, Failure> {
    let id = request
        .key()
        .ok_or_else(|| Failure::new(Kind::Invalid, "`params.taskId` is missing or not a string"))?;
    let claims = open(context, &id).ok_or_else(unknown)?;
    let scope = context.scope.id();
    let shard = claims
        .shard(&context.snapshot, &scope)
        .ok_or_else(unknown)?;
    Ok(claims.route(shard))
}

/// There is no such task, or it is not this caller's.
pub(crate) fn unknown() -> Failure {
    Failure::new(Kind::Invalid, "There is no such task for this caller")
}

/// What an id holds that was given to this caller.
pub(crate) fn open(context: &Context, id: &str) -> Option<Claims> {
    context.shared.task_ids.open(context.principal.proof, id)
}

impl Claims {
    /// The service of the task, where clients of this scope see it.
    pub(crate) fn shard<'a>(
        &self,
        snapshot: &'a Snapshot,
        scope: &ScopeId,
    ) -> Option<&'a Arc<Shard>> {
        let shard = snapshot.shard(self.service)?;
        let is_seen = match scope {
            ScopeId::All => true,
            ScopeId::Service(id) => *id == shard.id,
            ScopeId::Set(name) => {
                let set = snapshot.set(name.as_str());
                set.is_some_and(|set| set.shows_tool(shard, &self.tool))
            }
        };
        is_seen.then_some(shard)
    }

    /// To the task.
    pub(crate) fn route(&self, shard: &Arc<Shard>) -> Route {
        Route::to_task(shard, (&self.own, &self.tool), self.instance)
    }
}

/// What the `params` of a server's word about a task say: its own id, and whether nothing will follow.
pub(crate) fn stands(params: &str) -> Option<(Cow<'_, str>, bool)> {
    let task: Task<'_> = serde_json::from_str(params).ok()?;
    let id: Text<'_> = serde_json::from_str(task.id.get()).ok()?;
    Some((id.0, task.is_over()))
}

/// Borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn context_of(proof: Proof) -> Vec<u8> {
    format!("task of {proof:?}").into_bytes()
}

/// What is read of a task.
#[derive(Deserialize)]
struct Task<'a> {
    #[serde(borrow, rename = "taskId")]
    id: &'a RawValue,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(default, rename = "ttlMs")]
    ttl_ms: Option<f64>,
}

impl Task<'_> {
    /// Keeps in mind whether its server still works on it.
    fn note(&self, own: &str, link: &Link) {
        if self.is_over() {
            return link.tasks().ended(own);
        }
        let ttl = self
            .ttl_ms
            .and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok());
        link.tasks().note(own, ttl, Instant::now());
    }

    fn is_over(&self) -> bool {
        matches!(
            self.status.as_deref(),
            Some("completed" | "failed" | "cancelled")
        )
    }
}

fn task(answered: &Answered) -> Option<(&RawValue, Task<'_>)> {
    let task: Task<'_> = serde_json::from_str(answered.payload().ok()?.get()).ok()?;
    let id = task.id;
    id.get().starts_with('"').then_some((id, task))
}
