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
    route::{Route, Scope},
    upstream::Link,
};

/// Longest id that is looked at, bytes.
const ID_MAX: usize = 8 << 10;

/// Seals and opens ids of tasks.
pub(crate) struct Tasks(Arc<Sealer>);

/// What an id holds.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// The service that works on it.
    s: Id<Service>,
    /// Its instance.
    i: u64,
    /// The server's own id.
    t: Box<str>,
    /// The server's own name of the tool that began it.
    n: Box<str>,
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
                s: route.shard.id,
                i: link.id(),
                t: serde_json::from_str(own.get()).ok()?,
                n: (&*route.own).into(),
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
    let proof = context.principal.proof;
    let claims = context.shared.task_ids.open(proof, &id);
    let claims = claims.ok_or_else(unknown)?;
    let shard = match &context.scope {
        Scope::All => context.snapshot.shard(claims.s),
        Scope::Service(shard) => Some(shard).filter(|shard| shard.id == claims.s),
        Scope::Set(set) => {
            let shard = context.snapshot.shard(claims.s);
            shard.filter(|shard| set.shows_tool(shard, &claims.n))
        }
    };
    let shard = shard.ok_or_else(unknown)?;
    Ok(Route::to_task(shard, (&claims.t, &claims.n), claims.i))
}

/// There is no such task, or it is not this caller's.
pub(crate) fn unknown() -> Failure {
    Failure::new(Kind::Invalid, "There is no such task for this caller")
}

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
        if matches!(
            self.status.as_deref(),
            Some("completed" | "failed" | "cancelled")
        ) {
            return link.tasks().ended(own);
        }
        let ttl = self
            .ttl_ms
            .and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok());
        link.tasks().note(own, ttl, Instant::now());
    }
}

fn task(answered: &Answered) -> Option<(&RawValue, Task<'_>)> {
    let task: Task<'_> = serde_json::from_str(answered.payload().ok()?.get()).ok()?;
    let id = task.id;
    id.get().starts_with('"').then_some((id, task))
}
