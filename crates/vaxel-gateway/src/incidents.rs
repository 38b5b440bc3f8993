//! What was refused at a door, for the audit: credentials that are not good, and what somebody may not do.
//!
//! Nothing is dropped, and a flood makes few lines: of each kind, credential and address the first incident is
//! handed over at once, and what follows within a minute is one more, with its number. More senders than are
//! kept apart are counted together. What is refused needs no line to be refused, so that nobody waits here.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::Notify;
use vaxel_core::{
    audit::{AuditLine, Came, Door, Outcome},
    failure::{Failure, Kind},
    id::{Call, Id},
    principal::Principal,
    time::Timestamp,
};

use crate::{authenticate, gateway::Shared, pipeline::Context, respond::Response};

/// Incidents of one sender within so long after the last line are one.
const TOGETHER: Duration = Duration::from_mins(1);
/// Senders that are kept apart.
const SENDERS: usize = 1_000;

/// Something that was refused, once or more often.
#[derive(Debug, Clone)]
pub struct Incident {
    /// The first time.
    pub line: AuditLine,
    /// How often.
    pub count: u64,
    /// The last time.
    pub until: Timestamp,
}

/// What counts as one sender.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sender {
    action: &'static str,
    /// The credential, as far as it is known here, and the address.
    who: Option<(String, IpAddr)>,
}

/// What was refused and is not written yet.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    senders: Mutex<HashMap<Sender, Series>>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Series {
    /// When the last one was handed over.
    told: Option<Timestamp>,
    waiting: Option<Incident>,
}

impl Series {
    fn is_due(&self, now: Timestamp) -> bool {
        let is_over = |told: Timestamp| now.since(told) >= TOGETHER;
        self.waiting.is_some() && self.told.is_none_or(is_over)
    }

    fn add(&mut self, incident: Incident) {
        match &mut self.waiting {
            None => self.waiting = Some(incident),
            Some(waiting) => {
                waiting.count += incident.count;
                waiting.until = waiting.until.max(incident.until);
            }
        }
    }
}

impl Incidents {
    pub(crate) fn note(&self, line: AuditLine) {
        let incident = Incident {
            count: 1,
            until: line.at,
            line,
        };
        self.add(incident);
        self.bell.notify_one();
    }

    /// Takes back what could not be written.
    pub(crate) fn not_written(&self, incidents: Vec<Incident>) {
        for incident in incidents {
            self.add(incident);
        }
    }

    fn add(&self, mut incident: Incident) {
        let mut senders = self.senders.lock();
        let mut sender = Sender::of(&incident.line);
        if senders.len() >= SENDERS && !senders.contains_key(&sender) {
            sender.who = None;
            let line = &mut incident.line;
            (line.credential_id, line.came) = (None, None);
            "anyone".clone_into(&mut line.actor);
        }
        senders.entry(sender).or_default().add(incident);
    }

    /// Waits until there may be something to write.
    pub(crate) async fn changed(&self) {
        self.bell.notified().await;
    }

    /// What is to be written now; `all`: also what would wait for more of its kind. Whether more waits.
    pub(crate) fn take(&self, now: Timestamp, all: bool) -> (Vec<Incident>, bool) {
        let mut senders = self.senders.lock();
        let mut taken = Vec::new();
        for series in senders.values_mut() {
            if all || series.is_due(now) {
                taken.extend(series.waiting.take());
                series.told = Some(now);
            }
        }
        let is_recent = |told: Timestamp| now.since(told) < TOGETHER;
        senders.retain(|_, series| series.waiting.is_some() || series.told.is_some_and(is_recent));
        let waits = senders.values().any(|series| series.waiting.is_some());
        taken.sort_by_key(|incident| incident.line.at);
        (taken, waits)
    }
}

impl Sender {
    fn of(line: &AuditLine) -> Self {
        let address = line.came.as_ref().map(|came| network(came.address));
        let credential = line.credential_id.as_ref().unwrap_or(&line.actor);
        Self {
            action: line.action,
            who: address.map(|address| (credential.clone(), address)),
        }
    }
}

/// What counts as one address: of IPv6 the network, in which one machine may have any number.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

impl Context {
    /// Takes note of a failure that says or hides that the caller may not do something, and names the request in its
    /// answer as the audit does.
    pub(crate) fn note_denied(&self, what: &str, failure: &Failure, answer: &mut Response) {
        let noted = (self.shared).note_denied((&self.principal, self.peer), what, failure);
        if let Some(value) = noted.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
            answer.headers_mut().insert("x-request-id", value);
        }
    }
}

impl Shared {
    /// Takes note of a credential that MCP refused, when there was one. The name of the request, for its answer.
    pub(crate) fn note_refused(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        failure: &Failure,
    ) -> Id<Call> {
        let id = Id::new(self.clock.now());
        self.note_credential(headers, over_mcp(peer, id), failure);
        id
    }

    /// Takes note of a credential that was refused, when there was one.
    pub(crate) fn note_credential(&self, headers: &HeaderMap, came: Came, failure: &Failure) {
        let now = self.clock.now();
        let Some((kind, id)) = authenticate::shown(headers, &self.keys, now) else {
            return;
        };
        let nobody = Principal {
            name: "anyone".into(),
            came: Some(Arc::new(came)),
            ..Principal::system()
        };
        let target = ("credential", id.clone().unwrap_or_default(), String::new());
        let mut line = AuditLine::new(now, &nobody, "credential.refuse", target);
        (line.credential, line.credential_id) = (kind, id);
        line.outcome = Outcome::Refused(failure.kind);
        line.detail = serde_json::json!({ "why": &*failure.detail });
        self.incidents.note(line);
    }

    /// Takes note of a failure of MCP, when it says or hides that its caller may not do something: then the request has
    /// a name.
    pub(crate) fn note_denied(
        &self,
        (who, peer): (&Principal, IpAddr),
        what: &str,
        failure: &Failure,
    ) -> Option<Id<Call>> {
        if failure.kind != Kind::NotPermitted && !failure.hides {
            return None;
        }
        let id = Id::new(self.clock.now());
        let who = Principal {
            came: Some(Arc::new(over_mcp(peer, id))),
            ..who.clone()
        };
        self.note_refusal(&who, what, failure.kind);
        Some(id)
    }

    /// Takes note of something that a caller may not do.
    pub(crate) fn note_refusal(&self, who: &Principal, what: &str, kind: Kind) {
        let target = ("request", String::new(), what.to_owned());
        let mut line = AuditLine::new(self.clock.now(), who, "access.refuse", target);
        line.outcome = Outcome::Refused(kind);
        self.incidents.note(line);
    }
}

/// Where a request to MCP came from.
const fn over_mcp(address: IpAddr, request: Id<Call>) -> Came {
    Came {
        address,
        door: Door::Mcp,
        request: Some(request),
        sign_in: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn line(address: &str, credential: &str) -> AuditLine {
        let nobody = Principal {
            came: Some(Arc::new(Came {
                address: address.parse().unwrap(),
                door: Door::Rest,
                request: None,
                sign_in: None,
            })),
            ..Principal::system()
        };
        let target = ("credential", String::new(), String::new());
        let mut line = AuditLine::new(NOW, &nobody, "credential.refuse", target);
        line.credential_id = Some(credential.to_owned());
        line
    }

    fn counts(taken: &[Incident]) -> Vec<u64> {
        taken.iter().map(|incident| incident.count).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_a_flood_of_the_same_once_a_minute() {
        let incidents = Incidents::default();
        incidents.note(line("203.0.113.7", "a"));
        let (taken, waits) = incidents.take(NOW, false);
        assert_eq!((counts(&taken), waits), (vec![1], false));
        for _ in 0..500 {
            incidents.note(line("203.0.113.7", "a"));
        }
        incidents.note(line("203.0.113.7", "b"));
        let (taken, waits) = incidents.take(NOW.plus(Duration::from_secs(59)), false);
        assert_eq!((counts(&taken), waits), (vec![1], true), "another key");
        let (taken, waits) = incidents.take(NOW.plus(TOGETHER), false);
        assert_eq!((counts(&taken), waits), (vec![500], false));
    }

    #[test]
    fn what_could_not_be_written_and_what_waits_at_the_end_is_not_lost() {
        let incidents = Incidents::default();
        incidents.note(line("2001:db8::1", "a"));
        let (taken, _) = incidents.take(NOW, false);
        incidents.not_written(taken);
        incidents.note(line("2001:db8::2", "a"));
        let (taken, _) = incidents.take(NOW, true);
        assert_eq!(counts(&taken), [2], "one network");
        assert!(incidents.take(NOW, true).0.is_empty());
    }

    #[test]
    fn more_senders_than_are_kept_apart_are_counted_together() {
        let incidents = Incidents::default();
        let all = u32::try_from(SENDERS).unwrap() + 20;
        for number in 0..all {
            let address = std::net::Ipv4Addr::from(0x0A00_0000 + number);
            incidents.note(line(&address.to_string(), "a"));
        }
        let (taken, _) = incidents.take(NOW, true);
        assert_eq!(taken.len(), SENDERS + 1);
        assert_eq!(counts(&taken).iter().sum::<u64>(), u64::from(all));
        let rest = taken.iter().find(|incident| incident.count == 20);
        assert!(rest.is_some_and(|rest| rest.line.came.is_none()));
    }
}
