//! What the data plane counts. Handles are made once per service, at its first call: no later one hashes
//! a label, and of ten thousand services those that nobody calls cost nothing.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::breaker::Breaker;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use vaxel_core::{
    call::Outcome,
    health::traffic::{Figures, Traffic},
    name::ServiceName,
    quota::Limit,
    time::Timestamp,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    service: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

/// What is counted per service.
struct Families {
    calls: Family<CallLabels, Counter>,
    duration: Family<ServiceLabels, Histogram>,
    in_flight: Family<ServiceLabels, Gauge>,
}

/// Everything the data plane counts.
pub(crate) struct Metrics {
    families: Arc<Families>,
    pub(crate) requests: Counter,
    pub(crate) refused: Counter,
    pub(crate) lists: Counter,
    pub(crate) connections: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) records_lost: Counter,
    over: [Counter; Limit::ALL.len()],
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let families = Families {
            calls: Family::default(),
            duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_1, 2.5, 14))
            }),
            in_flight: Family::default(),
        };
        let over = Family::<LimitLabels, Counter>::default();
        let of = |limit: Limit| LimitLabels {
            limit: limit.as_str(),
        };
        let metrics = Self {
            over: Limit::ALL.map(|limit| over.get_or_create(&of(limit)).clone()),
            families: Arc::new(families),
            requests: Counter::default(),
            refused: Counter::default(),
            lists: Counter::default(),
            connections: Gauge::default(),
            sessions: Gauge::default(),
            streams: Gauge::default(),
            records_lost: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("vaxel");
        registry.register(
            "calls",
            "Calls by service and outcome",
            metrics.families.calls.clone(),
        );
        registry.register_with_unit(
            "call_duration",
            "Time from arrival of a call to the end of its answer",
            Unit::Seconds,
            metrics.families.duration.clone(),
        );
        registry.register(
            "calls_in_flight",
            "Calls in flight",
            metrics.families.in_flight.clone(),
        );
        registry.register("http_requests", "HTTP requests", metrics.requests.clone());
        registry.register(
            "http_requests_refused",
            "HTTP requests refused for their host, origin or credential",
            metrics.refused.clone(),
        );
        registry.register(
            "list_requests",
            "Lists served from the catalog",
            metrics.lists.clone(),
        );
        registry.register(
            "connections",
            "Open client connections",
            metrics.connections.clone(),
        );
        registry.register(
            "sessions",
            "Legacy sessions of clients",
            metrics.sessions.clone(),
        );
        registry.register(
            "streams",
            "Open streams to clients",
            metrics.streams.clone(),
        );
        registry.register(
            "call_records_lost",
            "Call records dropped because their queue was full",
            metrics.records_lost.clone(),
        );
        registry.register(
            "limit_refusals",
            "Requests, calls and creations refused because a limit of a caller, service or tool was reached",
            over,
        );
        metrics
    }

    /// Counts a refusal.
    pub(crate) fn over(&self, limit: Limit) {
        self.over[limit as usize].inc();
    }

    pub(crate) fn meter(&self, service: &ServiceName) -> Arc<Meter> {
        Arc::new(Meter {
            breaker: Breaker::default(),
            in_flight: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            service: service.clone(),
            families: Arc::clone(&self.families),
            series: OnceLock::new(),
            is_judged: AtomicBool::new(false),
            traffic: Mutex::default(),
        })
    }
}

/// The counters of one service; they outlive its shards.
pub(crate) struct Meter {
    pub(crate) breaker: Breaker,
    in_flight: AtomicU32,
    calls: AtomicU64,
    errors: AtomicU64,
    service: ServiceName,
    families: Arc<Families>,
    /// Made when the service is called first.
    series: OnceLock<Box<Series>>,
    /// Spares the calls of all other services the lock.
    is_judged: AtomicBool,
    /// The last calls, of a service that is judged by them.
    traffic: Mutex<Option<Traffic>>,
}

/// What others see of one service.
struct Series {
    by_outcome: [Counter; Outcome::ALL.len()],
    duration: Histogram,
    in_flight: Gauge,
}

impl Families {
    fn of(&self, service: &ServiceName) -> Series {
        let service = service.to_string();
        let by_outcome = Outcome::ALL.map(|outcome| {
            let labels = CallLabels {
                service: service.clone(),
                outcome: outcome.as_str(),
            };
            self.calls.get_or_create(&labels).clone()
        });
        let labels = ServiceLabels { service };
        Series {
            by_outcome,
            duration: self.duration.get_or_create(&labels).clone(),
            in_flight: self.in_flight.get_or_create(&labels).clone(),
        }
    }
}

impl Meter {
    fn series(&self) -> &Series {
        let make = || Box::new(self.families.of(&self.service));
        self.series.get_or_init(make)
    }

    /// Counts a call in, unless `limit` are already in flight.
    pub(crate) fn enter(&self, limit: u32) -> bool {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if before >= limit {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.series().in_flight.inc();
        true
    }

    /// Counts a call out.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.series().in_flight.dec();
    }

    /// Counts how a call ended.
    pub(crate) fn record(&self, outcome: Outcome, duration: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !matches!(outcome, Outcome::Ok) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        let series = self.series();
        series.by_outcome[outcome as usize].inc();
        series.duration.observe(duration.as_secs_f64());
    }

    /// From now on the calls of the last `window` are remembered; none are without one.
    pub(crate) fn judge(&self, window: Option<Duration>) {
        let mut traffic = self.traffic.lock();
        let is_over = |window| traffic.as_ref().is_some_and(|known| known.is_over(window));
        if !window.is_some_and(is_over) {
            *traffic = window.map(Traffic::new);
        }
        self.is_judged.store(window.is_some(), Ordering::Relaxed);
    }

    /// Remembers how a call ended, where calls are remembered.
    pub(crate) fn remember(&self, outcome: Outcome, duration: Duration, ended: Timestamp) {
        if self.is_judged.load(Ordering::Relaxed)
            && let Some(traffic) = &mut *self.traffic.lock()
        {
            traffic.note(outcome, duration, ended);
        }
    }

    /// What the remembered calls come to.
    pub(crate) fn figures(&self, now: Timestamp) -> Figures {
        // A copy, so that no call waits for the sums.
        let traffic = self.traffic.lock().clone();
        traffic.map_or_else(Figures::default, |traffic| traffic.figures(now))
    }

    /// Calls in flight, calls since start, and how many of those did not end well.
    pub(crate) fn read(&self) -> (u32, u64, u64) {
        (
            self.in_flight.load(Ordering::Relaxed),
            self.calls.load(Ordering::Relaxed),
            self.errors.load(Ordering::Relaxed),
        )
    }
}
