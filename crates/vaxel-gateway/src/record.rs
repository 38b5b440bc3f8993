//! The record that every call leaves, whatever happens to it: dropped unfinished, it says that the
//! caller went away.

use std::{borrow::Cow, time::Instant};

use bytes::Bytes;
use vaxel_core::{
    call::{CallRecord, Door, Outcome},
    failure::{Failure, Kind},
    id::{Call, Id},
    time::Timestamp,
};
use vaxel_mcp::{
    method::Method,
    response::{Response, Verdict},
};

use crate::{config::Keep, gateway::Shared, snapshot::Shard};
use std::sync::Arc;
use vaxel_core::principal::Principal;

/// A call that is being recorded.
pub(crate) struct Recording {
    shared: Arc<Shared>,
    shard: Arc<Shard>,
    started: Instant,
    record: Option<CallRecord>,
    /// Its caller waits for less time than the service has.
    is_hurried: bool,
}

/// What is known of a call when it arrives.
pub(crate) struct Arrival<'a> {
    pub(crate) method: Method,
    pub(crate) target: &'a str,
    pub(crate) principal: &'a Principal,
    pub(crate) door: Door,
    pub(crate) client_revision: &'static str,
    pub(crate) trace_id: Option<Box<str>>,
    pub(crate) request_bytes: usize,
    pub(crate) parameters: Option<&'a str>,
}

impl Recording {
    /// Starts to record a call to `shard`.
    pub(crate) fn start(shared: &Arc<Shared>, shard: &Arc<Shard>, arrival: Arrival<'_>) -> Self {
        let tunables = shared.tunables.load();
        let keeps = tunables.keep != Keep::None;
        let request = arrival
            .parameters
            .filter(|_| keeps)
            .map(|text| cut(text, tunables.keep_max));
        let at: Timestamp = shared.clock.now();
        let record = CallRecord {
            id: Id::<Call>::new(at),
            at,
            duration: std::time::Duration::ZERO,
            service: shard.id,
            service_name: shard.name.clone(),
            method: arrival.method.as_str(),
            target: arrival.target.into(),
            principal: arrival.principal.key(),
            principal_name: Arc::clone(&arrival.principal.name),
            outcome: Outcome::Cancelled,
            error: None,
            request_bytes: arrival.request_bytes as u64,
            response_bytes: 0,
            client_revision: arrival.client_revision,
            upstream_revision: "",
            door: arrival.door,
            trace_id: arrival.trace_id,
            request,
            response: None,
        };
        Self {
            shared: Arc::clone(shared),
            shard: Arc::clone(shard),
            started: shared.clock.instant(),
            record: Some(record),
            is_hurried: false,
        }
    }

    /// The caller waits for less time than the service has: that it was not enough says nothing about
    /// the service.
    pub(crate) const fn hurried(&mut self) {
        self.is_hurried = true;
    }

    /// The call's id.
    pub(crate) fn id(&self) -> Option<Id<Call>> {
        self.record.as_ref().map(|record| record.id)
    }

    /// How long the call has taken so far.
    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// Which revision the upstream speaks.
    pub(crate) fn reached(&mut self, revision: &'static str) {
        if let Some(record) = &mut self.record {
            record.upstream_revision = revision;
        }
    }

    /// The call ended with an answer.
    pub(crate) fn answered(mut self, response: &Response) {
        let outcome = match response.verdict {
            Verdict::Complete | Verdict::InputRequired | Verdict::Task => Outcome::Ok,
            Verdict::ToolError => Outcome::ToolError,
            Verdict::Error => Outcome::Error,
        };
        if let Some(record) = &mut self.record {
            record.response_bytes = response.body().len() as u64;
            let tunables = self.shared.tunables.load();
            if tunables.keep == Keep::All
                && let Ok(text) = std::str::from_utf8(response.body())
            {
                record.response = Some(cut(text, tunables.keep_max));
            }
            if outcome != Outcome::Ok {
                record.error = Some(explain(response));
            }
        }
        self.end(outcome);
    }

    /// The call ended without an answer.
    pub(crate) fn failed(mut self, failure: &Failure) {
        if let Some(record) = &mut self.record {
            record.error = Some(failure.in_full().into());
        }
        self.end(match failure.kind {
            Kind::UpstreamTimeout => Outcome::Timeout,
            Kind::NotPermitted | Kind::Busy | Kind::RateLimited | Kind::InvalidArguments => {
                Outcome::Denied
            }
            Kind::UpstreamUnavailable | Kind::UpstreamLost => Outcome::Unavailable,
            _ => Outcome::Error,
        });
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.outcome = outcome;
        record.duration = self.started.elapsed();
        let tunables = self.shared.tunables.load();
        if record.door.is_usage() {
            let meter = &self.shard.meter;
            meter.record(outcome, record.duration);
            let reached = !record.upstream_revision.is_empty();
            let now = record.at.plus(record.duration);
            let says_nothing = self.is_hurried && outcome == Outcome::Timeout;
            if !says_nothing {
                meter.remember(outcome, record.duration, now);
            }
            let tells = reached && !says_nothing;
            meter.breaker.note(outcome, tells, now, tunables.breaker);
        }
        if tunables.records && self.shared.records.try_send(record).is_err() {
            self.shared.metrics.records_lost.inc();
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

/// The first words of what the service said went wrong.
fn explain(response: &Response) -> Box<str> {
    let text: Cow<'_, str> = match response.payload() {
        Err(error) => error.get().into(),
        Ok(result) => result.get().into(),
    };
    text.chars().take(200).collect::<String>().into()
}

/// At most `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> Bytes {
    Bytes::copy_from_slice(&text.as_bytes()[..text.floor_char_boundary(max)])
}
