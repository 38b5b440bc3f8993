//! What a scripted server does with what it is told, whatever carries it.

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use vaxel_core::service::SessionScope;

use super::{
    schedule::{Ask, Beat, Finish},
    world::{CALLERS, Ledger, SERVERS, Speaks, Via, marks},
};

/// A request to call a tool, as its server sees it.
pub(super) struct Job {
    pub(super) call: usize,
    pub(super) server: usize,
    session: String,
    id: Value,
    progress: Value,
    /// The beat that comes next.
    at: usize,
    /// Questions that are not answered.
    waiting: usize,
    got: Map<String, Value>,
    /// Where its answer goes; `None` when it is over.
    outlet: Option<mpsc::Sender<String>>,
    is_silent: bool,
    /// How it ended, when its server did not end it.
    pub(super) lost: Option<&'static str>,
}

/// A question that a server asked by a request.
pub(super) struct Asked {
    job: usize,
    name: String,
    ask: Ask,
    is_answered: bool,
}

impl Job {
    /// Whether nothing more comes of it by itself.
    pub(super) fn waits_for_steps(&self) -> bool {
        self.is_open() && self.waiting == 0
    }

    pub(super) fn is_open(&self) -> bool {
        self.outlet.is_some()
    }

    pub(super) const fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Its server may still be working on it.
    pub(super) fn is_left_alone(&self) -> bool {
        self.outlet
            .as_ref()
            .is_some_and(|outlet| !outlet.is_closed())
    }

    fn say(&self, message: &Value) {
        if let Some(outlet) = &self.outlet {
            // Whoever hears may be gone.
            let _ = outlet.try_send(message.to_string());
        }
    }
}

impl Ledger {
    /// `tools/call`.
    pub(super) fn called(
        &mut self,
        (server, session): (usize, &str),
        message: &Value,
        outlet: mpsc::Sender<String>,
    ) {
        self.moves += 1;
        let params = &message["params"];
        let Some(call) = params["arguments"]["call"].as_u64() else {
            return self.fault(format!("a call of nobody: {message}"));
        };
        let call = usize::try_from(call).unwrap();
        let Some(known) = self.calls.get(call) else {
            return self.fault(format!("a call that nobody made: {message}"));
        };
        let rounds = known.plan.beats.iter().filter(|beat| **beat != Beat::Note);
        let limit = match (SERVERS[server], CALLERS[known.caller].0) {
            (Via::Modern, Speaks::Modern) => known.requests,
            // Once at first, and once for each round.
            (Via::Modern, _) => 1 + rounds.count(),
            _ => 1,
        };
        let caller = known.caller;
        self.keep_apart(server, session, caller);
        if self.jobs.iter().filter(|job| job.call == call).count() >= limit {
            self.fault(format!("c{call} was done more than {limit} times"));
        }
        let mut job = Job {
            call,
            server,
            session: session.to_owned(),
            id: message["id"].clone(),
            progress: params["_meta"]["progressToken"].clone(),
            at: 0,
            waiting: 0,
            got: Map::new(),
            outlet: Some(outlet),
            is_silent: false,
            lost: None,
        };
        if let Some(state) = params["requestState"].as_str() {
            let state: Value = serde_json::from_str(state).unwrap_or_default();
            if state["call"] != call {
                self.fault(format!("c{call} came with a state of another: {state}"));
            }
            job.at = serde_json::from_value(state["at"].clone()).unwrap_or_default();
            job.got = state["got"].as_object().cloned().unwrap_or_default();
            for (name, answer) in params["inputResponses"].as_object().into_iter().flatten() {
                self.check(call, name, answer);
                job.got.insert(name.clone(), answer.clone());
            }
        }
        let place = (server, session.to_owned(), job.id.to_string());
        if self.cancelled_early.contains(&place) {
            job.outlet = None;
            job.lost = Some("cancelled before it came");
        }
        self.jobs.push(job);
        self.go(self.jobs.len() - 1, false);
    }

    /// What a server remembers of one principal is not shown to another.
    fn keep_apart(&mut self, server: usize, session: &str, caller: usize) {
        let is_shared = self.scope == SessionScope::Shared;
        if is_shared || matches!(SERVERS[server], Via::Modern | Via::Pipes) {
            return;
        }
        let (speaks, principal) = CALLERS[caller];
        let is_own = self.scope == SessionScope::PerClient && speaks != Speaks::Modern;
        let user = (principal, is_own.then_some(caller));
        let used_by = self
            .sessions
            .entry((server, session.to_owned()))
            .or_default();
        if used_by.is_some_and(|other| other != user) {
            self.faults
                .push(format!("session {session} serves {used_by:?} and {user:?}"));
        }
        *used_by = Some(user);
    }

    /// Does what comes next, as far as nothing is waited for.
    pub(super) fn go(&mut self, index: usize, mut is_let: bool) {
        loop {
            let gates_open = self.gates_open;
            let job = &mut self.jobs[index];
            let plan = self.calls[job.call].plan.clone();
            let is_shut = plan.is_gated && !gates_open && !is_let;
            if !job.is_open() || job.waiting > 0 || job.is_silent || is_shut {
                return;
            }
            is_let = false;
            match plan.beats.get(job.at) {
                Some(Beat::Note) => {
                    job.at += 1;
                    if !job.progress.is_null() {
                        let text = format!("c{}/e", job.call);
                        job.say(
                            &json!({"jsonrpc": "2.0", "method": "notifications/progress",
                            "params": {"progressToken": job.progress, "progress": job.at,
                                "message": text}}),
                        );
                    }
                }
                Some(Beat::Ask(asks)) => {
                    let before = plan.beats[..job.at].iter().map(|beat| match beat {
                        Beat::Ask(asks) => asks.len(),
                        Beat::Note => 0,
                    });
                    let first: usize = before.sum();
                    let named = asks.iter().enumerate();
                    let named = named.map(|(index, ask)| (format!("q{}", first + index), *ask));
                    let left = named
                        .filter(|(name, _)| !job.got.contains_key(name))
                        .collect();
                    if SERVERS[job.server] == Via::Modern {
                        self.ask_by_result(index, left);
                    } else {
                        self.ask_by_requests(index, left);
                    }
                }
                None => self.finish(index, plan.end),
            }
        }
    }

    fn ask_by_result(&mut self, index: usize, left: Vec<(String, Ask)>) {
        let job = &mut self.jobs[index];
        if left.is_empty() {
            job.at += 1;
            return;
        }
        let call = job.call;
        let asked: Map<String, Value> = left
            .into_iter()
            .map(|(name, ask)| {
                let question = question(call, &name, ask);
                (name, question)
            })
            .collect();
        let state = json!({"call": call, "at": job.at, "got": job.got}).to_string();
        job.say(&json!({"jsonrpc": "2.0", "id": job.id, "result": {
            "resultType": "input_required", "inputRequests": asked, "requestState": state}}));
        job.outlet = None;
    }

    fn ask_by_requests(&mut self, index: usize, left: Vec<(String, Ask)>) {
        let job = &mut self.jobs[index];
        job.at += 1;
        job.waiting = left.len();
        let stream = match SERVERS[job.server] {
            Via::Session => {
                let streams = &self.session_streams;
                streams.get(&(job.server, job.session.clone())).cloned()
            }
            _ => None,
        };
        let outlet = stream.or_else(|| job.outlet.clone());
        for (name, ask) in left {
            let id = format!("s{}-{index}-{name}", job.server);
            let mut question = question(job.call, &name, ask);
            question["jsonrpc"] = "2.0".into();
            question["id"] = id.clone().into();
            let asked = Asked {
                job: index,
                name,
                ask,
                is_answered: false,
            };
            self.asked.insert(id, asked);
            if let Some(outlet) = &outlet {
                // Whoever hears may be gone.
                let _ = outlet.try_send(question.to_string());
            }
        }
    }

    fn finish(&mut self, index: usize, end: Finish) {
        let job = &mut self.jobs[index];
        match end {
            Finish::Result => {
                let text = json!({"call": job.call, "got": job.got}).to_string();
                let content = json!([{"type": "text", "text": text}]);
                job.say(&json!({"jsonrpc": "2.0", "id": job.id,
                    "result": {"content": content, "resultType": "complete"}}));
                job.outlet = None;
            }
            Finish::Error => {
                let message = format!("c{}/e failed", job.call);
                job.say(&json!({"jsonrpc": "2.0", "id": job.id,
                    "error": {"code": -32050, "message": message}}));
                job.outlet = None;
            }
            Finish::Silence => job.is_silent = true,
        }
    }

    /// The answer to a question that a server asked by a request.
    pub(super) fn answered(&mut self, (server, session): (usize, &str), message: &Value) {
        self.moves += 1;
        let asked = message["id"].as_str().and_then(|id| self.asked.get_mut(id));
        let Some(asked) = asked else {
            return self.fault(format!("an answer to what was not asked: {message}"));
        };
        let was_answered = std::mem::replace(&mut asked.is_answered, true);
        let (index, name, ask) = (asked.job, asked.name.clone(), asked.ask);
        let job = &mut self.jobs[index];
        let (call, is_at_home) = (job.call, job.server == server && job.session == session);
        if was_answered {
            return self.fault(format!("{name} of c{call} was answered twice: {message}"));
        }
        let answer = if message["result"].is_object() {
            message["result"].clone()
        } else {
            message["error"].clone()
        };
        job.got.insert(name.clone(), answer.clone());
        job.waiting -= 1;
        if !is_at_home {
            self.fault(format!(
                "{name} of c{call} was answered in session {session}"
            ));
        }
        if answer["code"] != -32601 {
            self.check(call, &name, &answer);
        } else if !self.may_be_refused(call, ask) {
            self.fault(format!("{name} of c{call} was not passed on: {answer}"));
        }
        self.go(index, false);
    }

    /// Whether the call's own caller gave this answer.
    fn check(&mut self, call: usize, name: &str, answer: &Value) {
        let known = &self.calls[call];
        if known
            .given
            .get(name)
            .is_some_and(|given| given.contains(answer))
        {
            return;
        }
        let text = answer.to_string();
        let thief = self.stolen.get(&text).copied();
        if thief.is_some_and(|thief| thief == known.caller) {
            // It had the right id for a question of its own.
            self.calls[call].disturbed = Some("answered by mistake");
            return;
        }
        let whose = marks(&text).next();
        self.fault(format!(
            "{name} of c{call} was answered by {answer} ({whose:?}, {thief:?})"
        ));
    }

    /// `notifications/cancelled`.
    pub(super) fn cancelled(&mut self, (server, session): (usize, &str), id: &Value) {
        let same = |job: &&mut Job| job.server == server && job.session == session && job.id == *id;
        match self.jobs.iter_mut().find(same) {
            Some(job) if job.is_open() => {
                job.outlet = None;
                job.lost = Some("cancelled");
                self.moves += 1;
            }
            Some(_) => {}
            // Two posts may overtake each other.
            None => {
                let early = (server, session.to_owned(), id.to_string());
                self.cancelled_early.insert(early);
            }
        }
    }

    /// The streams of a server end in the middle.
    pub(super) fn cut(&mut self, server: usize, why: &'static str) {
        for job in self.jobs.iter_mut().filter(|job| job.server == server) {
            if job.outlet.take().is_some() {
                job.lost = Some(why);
            }
        }
        self.session_streams.retain(|(of, _), _| *of != server);
    }
}

fn question(call: usize, name: &str, ask: Ask) -> Value {
    let text = format!("c{call}/{name}");
    match ask {
        Ask::Form => json!({"method": "elicitation/create", "params": {
            "mode": "form", "message": text,
            "requestedSchema": {"type": "object", "properties": {"n": {"type": "string"}}}}}),
        Ask::Sampling => json!({"method": "sampling/createMessage", "params": {"maxTokens": 5,
            "messages": [{"role": "user", "content": {"type": "text", "text": text}}]}}),
    }
}
