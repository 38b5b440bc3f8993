//! What lies between a question that a modern client was given and the request by which it answers:
//! a sealed `requestState`, and for legacy servers the call itself, which waits here.
//!
//! The state is bound to its caller, service, method, name and arguments, and expires: it opens for no
//! other request (MCP 2026-07-28, Patterns, "Multi Round-Trip Requests": it is attacker-controlled).

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use vaxel_auth::seal::Sealer;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{self, Id},
    principal::{Principal, Proof},
    time::{Clock, Timestamp},
};
use vaxel_mcp::{
    interaction::{self, Question},
    request::Request,
};

use crate::{
    route::Route,
    upstream::{Asked, Engaged, Events},
};

/// Longest state that is looked at, bytes.
const STATE_MAX: usize = 64 << 10;

/// All interactions of modern clients.
pub(crate) struct Interactions {
    sealer: Arc<Sealer>,
    clock: Clock,
    parked: Arc<Mutex<Waiting>>,
    /// Calls that may wait, in all and per caller.
    limits: (usize, usize),
    /// How long a client may take to answer.
    patience: Duration,
    tasks: TaskTracker,
}

/// The calls that wait, each with what ends its waiting.
type Waiting = HashMap<Id<id::Call>, (Parked, AbortOnDropHandle<()>)>;

/// A call of a legacy server that waits for its client's answers. Dropped, it is called off.
pub(crate) struct Parked {
    pub(crate) link: Engaged,
    pub(crate) events: Events,
    pub(crate) open: Vec<OpenQuestion>,
    pub(crate) proof: Proof,
}

/// A question that was asked and not answered yet.
pub(crate) struct OpenQuestion {
    pub(crate) key: Box<str>,
    pub(crate) asked: Asked,
}

/// What a state leads to.
pub(crate) enum Resumed {
    /// The server's own state, raw, which goes back to it.
    Server(Option<Box<RawValue>>),
    /// The call that waits.
    Parked(Box<Parked>),
    /// It waited too long, or this process was started since.
    Gone,
}

/// What a sealed state holds.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// When it expires, Unix milliseconds.
    e: u64,
    /// The server's own state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<Box<RawValue>>,
    /// The call that waits here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<Id<id::Call>>,
}

/// The one request, made again, that a state opens for.
pub(crate) struct Binding(Vec<u8>);

impl Binding {
    /// What `request` of `principal` along `route` is bound to.
    pub(crate) fn of(principal: &Principal, route: &Route, request: &Request) -> Self {
        let arguments = request.arguments().and_then(interaction::canonical);
        let parts = [
            format!("{:?}", principal.proof).into_bytes(),
            route.shard.id.to_string().into_bytes(),
            request.method_name().as_bytes().to_vec(),
            route.own.as_bytes().to_vec(),
            arguments.unwrap_or_default(),
        ];
        let mut bound = b"interaction".to_vec();
        for part in parts {
            bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bound.extend_from_slice(&part);
        }
        Self(bound)
    }
}

impl Interactions {
    pub(crate) fn new(
        sealer: Arc<Sealer>,
        clock: Clock,
        limits: (usize, usize),
        patience: Duration,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            sealer,
            clock,
            parked: Arc::default(),
            limits,
            patience,
            tasks,
        }
    }

    /// How long a client may take to answer.
    pub(crate) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Seals the state of a modern server.
    pub(crate) fn seal(
        &self,
        binding: &Binding,
        state: Option<&RawValue>,
    ) -> Result<String, Failure> {
        self.seal_claims(binding, state.map(ToOwned::to_owned), None)
    }

    /// Lets a call wait for its client; returns the result that asks it.
    pub(crate) fn park(&self, binding: &Binding, parked: Parked) -> Result<Vec<u8>, Failure> {
        let id = Id::new(self.clock.now());
        let state = self.seal_claims(binding, None, Some(id))?;
        let result = ask(&parked.open, &state);
        let mut all = self.parked.lock();
        let (in_all, per_caller) = self.limits;
        let same = |(other, _): &&(Parked, _)| other.proof == parked.proof;
        if all.len() >= in_all || all.values().filter(same).count() >= per_caller {
            let detail = "Too many calls wait for answers of their clients (calls.parked)";
            return Err(Failure::new(Kind::Busy, detail).retry_after(10));
        }
        let expiry = expire(Arc::downgrade(&self.parked), id, self.patience);
        let expiry = AbortOnDropHandle::new(self.tasks.spawn(expiry));
        all.insert(id, (parked, expiry));
        Ok(result)
    }

    /// What the state of a retry leads to.
    pub(crate) fn resume(&self, binding: &Binding, state: &RawValue) -> Result<Resumed, Failure> {
        let refuse = || {
            let detail = "`params.requestState` is not one that this server gave for this request";
            Failure::new(Kind::Invalid, detail)
        };
        let text: String = serde_json::from_str(state.get()).map_err(|_| refuse())?;
        if text.len() > STATE_MAX {
            return Err(refuse());
        }
        let plain = self.sealer.open_text(&binding.0, &text);
        let plain = plain.map_err(|_| refuse())?;
        let claims: Claims = serde_json::from_slice(plain.expose()).map_err(|_| refuse())?;
        let expired = Timestamp::from_millis(claims.e) <= self.clock.now();
        Ok(match claims.p {
            _ if expired => Resumed::Gone,
            None => Resumed::Server(claims.s),
            Some(id) => match self.parked.lock().remove(&id) {
                Some((parked, _)) => Resumed::Parked(Box::new(parked)),
                None => Resumed::Gone,
            },
        })
    }

    /// Ends every waiting call.
    pub(crate) fn clear(&self) {
        let waiting = std::mem::take(&mut *self.parked.lock());
        drop(waiting);
    }

    fn seal_claims(
        &self,
        binding: &Binding,
        state: Option<Box<RawValue>>,
        parked: Option<Id<id::Call>>,
    ) -> Result<String, Failure> {
        let patience = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        let claims = Claims {
            e: self.clock.now().as_millis().saturating_add(patience),
            s: state,
            p: parked,
        };
        let plain = serde_json::to_vec(&claims).map_err(Failure::internal)?;
        Ok(self.sealer.seal_text(&binding.0, &plain))
    }
}

/// A client that does not come back: its call is called off.
async fn expire(parked: Weak<Mutex<Waiting>>, id: Id<id::Call>, after: Duration) {
    tokio::time::sleep(after).await;
    let late = parked.upgrade().and_then(|all| all.lock().remove(&id));
    drop(late);
}

/// The questions of `open`, as a result asks them.
fn ask(open: &[OpenQuestion], state: &str) -> Vec<u8> {
    let questions = open.iter().map(|one| {
        let question: &Question = &one.asked.question;
        (&*one.key, question)
    });
    interaction::input_required(questions, state)
}
