//! Everything that is known of one case: calls as their callers see them, the same as servers see
//! them, and what was wrong.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::{sync::watch, task::AbortHandle};
use vaxel_core::service::SessionScope;

use super::{
    schedule::{Ask, Finish, Plan},
    server::Job,
};

/// Who calls: two principals, and clients of every kind.
pub(super) const CALLERS: [(Speaks, usize); 10] = [
    (Speaks::Modern, 0),
    (Speaks::Modern, 1),
    (Speaks::Legacy, 0),
    (Speaks::Legacy, 1),
    (Speaks::Oldest, 0),
    (Speaks::Oldest, 1),
    (Speaks::Modern, 0),
    (Speaks::Unable, 1),
    (Speaks::Socket, 0),
    (Speaks::Socket, 1),
];

/// Who is called.
pub(super) const SERVERS: [Via; 6] = [
    Via::Modern,
    Via::Answers,
    Via::Session,
    Via::Pipes,
    Via::Oldest,
    Via::Socket,
];

/// A principal, and the caller where it shares no session.
pub(super) type User = (usize, Option<usize>);

/// What a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// 2026-07-28.
    Modern,
    /// 2025-11-25 over Streamable HTTP.
    Legacy,
    /// 2024-11-05 over HTTP+SSE.
    Oldest,
    /// 2025-11-25, and answers nothing.
    Unable,
    /// 2025-11-25 over WebSocket.
    Socket,
}

/// How a server is reached, and where it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// 2026-07-28 over HTTP: by its results.
    Modern,
    /// 2025-11-25 over HTTP: on the stream of the call.
    Answers,
    /// The same: on the stream of the session.
    Session,
    /// 2025-11-25 over pipes.
    Pipes,
    /// 2024-11-05 over HTTP+SSE.
    Oldest,
    /// 2025-11-25 over WebSocket.
    Socket,
}

impl Speaks {
    /// Whether all that it says and hears goes over one connection.
    pub(super) const fn is_on_one_connection(self) -> bool {
        matches!(self, Self::Oldest | Self::Socket)
    }

    pub(super) const fn answers(self, ask: Ask) -> bool {
        match self {
            Self::Modern | Self::Legacy | Self::Socket => true,
            Self::Oldest => matches!(ask, Ask::Sampling),
            Self::Unable => false,
        }
    }
}

impl Via {
    /// Whether a question there does not say which call it belongs to.
    pub(super) const fn is_vague(self) -> bool {
        matches!(self, Self::Session | Self::Pipes) || self.is_connection()
    }

    /// Whether a session there is its connection.
    pub(super) const fn is_connection(self) -> bool {
        matches!(self, Self::Oldest | Self::Socket)
    }
}

pub(super) struct World {
    ledger: Mutex<Ledger>,
    stirred: watch::Sender<()>,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) is_hurried: bool,
    /// Who shares a session with a server.
    pub(super) scope: SessionScope,
    /// Nobody's `Go` is waited for any more.
    pub(super) gates_open: bool,
    pub(super) calls: Vec<Call>,
    pub(super) jobs: Vec<Job>,
    /// The questions that servers asked by requests, by id.
    pub(super) asked: HashMap<String, super::server::Asked>,
    /// Sessions that servers know, and whose calls they were used for.
    pub(super) sessions: HashMap<(usize, String), Option<User>>,
    pub(super) session_streams: HashMap<(usize, String), tokio::sync::mpsc::Sender<String>>,
    pub(super) sessions_opened: usize,
    /// What was cancelled before its server heard of it: server, session and id.
    pub(super) cancelled_early: HashSet<(usize, String, String)>,
    /// Answers that were sent by somebody else, and by whom.
    pub(super) stolen: HashMap<String, usize>,
    /// Servers of which a call may fail without a reason of its own.
    pub(super) shaky: HashSet<usize>,
    pub(super) faults: Vec<String>,
    /// Things that happened to calls and to what servers make of them.
    pub(super) moves: u64,
    answers: u64,
}

/// A call as its caller sees it.
#[derive(Default)]
pub(super) struct Call {
    pub(super) caller: usize,
    pub(super) server: usize,
    pub(super) plan: Plan,
    /// The JSON-RPC id of its last request.
    pub(super) id: u64,
    pub(super) standing: Standing,
    /// What its caller is asked, and has not answered.
    pub(super) open: Vec<Open>,
    /// A modern caller's way back.
    pub(super) state: Option<Value>,
    /// What brought its answers earlier.
    pub(super) spent: Vec<String>,
    /// What its caller answered, by the names of the questions.
    pub(super) given: HashMap<String, Vec<Value>>,
    /// Names of questions that its caller was shown and answered.
    pub(super) done: HashSet<String>,
    /// Why it may end otherwise than planned.
    pub(super) disturbed: Option<&'static str>,
    /// Requests that its caller sent, and that may lead to the server.
    pub(super) requests: usize,
    pub(super) reading: Option<AbortHandle>,
    /// Which of its readings counts: what an earlier one still gets nobody reads.
    pub(super) turn: usize,
    /// That it is cancelled is on its way.
    pub(super) is_cancelling: bool,
    /// The last event of its stream that its caller read.
    pub(super) last_event: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Standing {
    #[default]
    Runs,
    /// Its caller holds an `input_required` result.
    Parked,
    Over(Value),
    /// Its caller is not there any more.
    Gone,
}

/// A question as its caller sees it.
#[derive(Clone, Debug)]
pub(super) struct Open {
    /// An id or a key.
    pub(super) under: Value,
    pub(super) name: String,
    pub(super) ask: Ask,
}

impl Call {
    pub(super) const fn is_there(&self) -> bool {
        matches!(self.standing, Standing::Runs | Standing::Parked)
    }
}

impl World {
    pub(super) fn new(is_hurried: bool, scope: SessionScope) -> Self {
        let ledger = Ledger {
            is_hurried,
            scope,
            ..Ledger::default()
        };
        Self {
            ledger: Mutex::new(ledger),
            stirred: watch::Sender::new(()),
        }
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        let done = act(&mut self.ledger.lock());
        self.stirred.send_replace(());
        done
    }

    /// Whether it came to be, in time.
    pub(super) async fn becomes(&self, within: Duration, look: impl Fn(&Ledger) -> bool) -> bool {
        let mut stirred = self.stirred.subscribe();
        let looking = async {
            while !look(&self.ledger.lock()) {
                // The sender is ours.
                let _ = stirred.changed().await;
            }
        };
        tokio::time::timeout(within, looking).await.is_ok()
    }
}

impl Ledger {
    pub(super) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Whether every call waits for a step, or is over.
    pub(super) fn is_settled(&self) -> bool {
        let mut running = self.calls.iter().enumerate();
        running.all(|(number, call)| match call.standing {
            Standing::Runs => {
                let waits = |job: &Job| job.call == number && job.waits_for_steps();
                !call.open.is_empty() || self.jobs.iter().any(waits)
            }
            Standing::Parked | Standing::Over(_) | Standing::Gone => true,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        let mut standings = self.calls.iter().map(|call| &call.standing);
        standings.all(|one| match one {
            Standing::Over(_) | Standing::Gone => true,
            Standing::Parked => self.is_hurried,
            Standing::Runs => false,
        })
    }

    /// Whether a question of this call can be refused without its caller having been asked.
    pub(super) fn may_be_refused(&self, number: usize, ask: Ask) -> bool {
        let call = &self.calls[number];
        let is_running = matches!(call.standing, Standing::Runs | Standing::Parked);
        self.is_hurried
            || !is_running
            || call.disturbed.is_some()
            || SERVERS[call.server].is_vague()
            || !CALLERS[call.caller].0.answers(ask)
    }

    pub(super) fn disturb(&mut self, why: &'static str, which: impl Fn(&Call) -> bool) {
        for call in &mut self.calls {
            if matches!(call.standing, Standing::Runs | Standing::Parked) && which(call) {
                call.disturbed.get_or_insert(why);
            }
        }
    }

    /// An answer to a question, like no other.
    pub(super) fn answer(&mut self, call: usize, name: &str, ask: Ask) -> Value {
        self.answers += 1;
        let text = format!("c{call}/{name}#{}", self.answers);
        match ask {
            Ask::Form => serde_json::json!({"action": "accept", "content": {"n": text}}),
            Ask::Sampling => serde_json::json!({"role": "assistant", "model": "m",
                "stopReason": "endTurn", "content": {"type": "text", "text": text}}),
        }
    }

    /// The answer to a request of this call has come.
    pub(super) fn ended(&mut self, number: usize, message: Value) {
        self.moves += 1;
        let call = &mut self.calls[number];
        if let Standing::Over(before) = &call.standing {
            let fault = format!("c{number} was answered twice: {before} and {message}");
            return self.faults.push(fault);
        }
        let server = call.server;
        call.open.clear();
        let fault = self.judge(number, &message);
        if said(&message).is_some() && self.calls[number].disturbed.is_none() {
            self.shaky.remove(&server);
        }
        self.calls[number].standing = Standing::Over(message);
        self.faults.extend(fault);
    }

    /// What is wrong with the end of a call.
    fn judge(&self, number: usize, message: &Value) -> Option<String> {
        let call = &self.calls[number];
        let at = || {
            let (speaks, via) = (CALLERS[call.caller].0, SERVERS[call.server]);
            format!("c{number} ({speaks:?} of {via:?}, {:?})", call.plan)
        };
        if let Some(other) = marks(&message.to_string()).find(|mark| mark.0 != number) {
            return Some(format!("{} got what is c{}'s: {message}", at(), other.0));
        }
        let Some(said) = said(message) else {
            return self.fails_rightly(call, message).then_some(()).map_or_else(
                || Some(format!("{} failed for no reason: {message}", at())),
                |()| None,
            );
        };
        if said["call"] != number {
            return Some(format!("{} got another's result: {message}", at()));
        }
        let asks = call.plan.asks();
        let got = said["got"].as_object()?;
        for (index, ask) in asks.iter().enumerate() {
            let name = format!("q{index}");
            let Some(got) = got.get(&name) else {
                return Some(format!("{} lost the answer to {name}: {message}", at()));
            };
            let given = call.given.get(&name);
            if given.is_some_and(|given| given.contains(got)) {
                continue;
            }
            let fate = &got["code"];
            if *fate != -32601 || !self.may_be_refused(number, *ask) {
                return Some(format!("{} did not give {got} for {name}", at()));
            }
        }
        None
    }

    fn fails_rightly(&self, call: &Call, message: &Value) -> bool {
        let speaks = CALLERS[call.caller].0;
        let asks = call.plan.asks();
        let cannot_be_asked = SERVERS[call.server] == Via::Modern
            && speaks != Speaks::Modern
            && asks.iter().any(|ask| !speaks.answers(*ask));
        let is_planned = call.plan.end == Finish::Error && message["error"]["code"] == -32050;
        let is_error = message["error"].is_object()
            || message["result"]["isError"] == true
            || message["status"]
                .as_u64()
                .is_some_and(|status| status >= 400);
        is_error && (is_planned || cannot_be_asked || self.is_hurried || call.disturbed.is_some())
    }
}

/// What a server's result says.
pub(super) fn said(message: &Value) -> Option<Value> {
    let text = message["result"]["content"][0]["text"].as_str()?;
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// Calls and questions that are named in a text: `c3/q0` is question `q0` of call 3.
pub(super) fn marks(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices('/').filter_map(|(slash, _)| {
        let call = text[..slash].rsplit(|letter: char| !letter.is_ascii_digit());
        let digits = call.into_iter().next()?;
        let before = &text[..slash - digits.len()];
        let rest = text[slash + 1..].split(|letter: char| !letter.is_ascii_alphanumeric());
        let name = rest.into_iter().next()?;
        let is_mark = before.ends_with('c') && (name.starts_with('q') || name == "e");
        Some((digits.parse().ok().filter(|_| is_mark)?, name))
    })
}
