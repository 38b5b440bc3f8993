//! What the control plane adds to the metrics: counted when someone scrapes, never on the way.

use std::{
    fmt::{self, Debug},
    sync::{Arc, atomic::Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use vaxel_core::lifecycle::Lifecycle;

use crate::{
    control::{Control, Inner},
    status::Seen,
};

impl Control {
    /// Adds services, restarts, queues and the store to what `/metrics` shows.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Facts(Arc::clone(&self.inner))));
    }
}

struct Facts(Arc<Inner>);

impl Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Facts")
    }
}

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let inner = &self.0;
        let mut seen = inner.context.board.all();
        seen.sort_by(|left, right| left.name.cmp(&right.name));
        let up =
            |one: &Seen| u64::from(one.status.lifecycle == Lifecycle::Active && !one.status.stale);
        let restarts = |one: &Seen| {
            one.status
                .instances
                .iter()
                .map(|instance| u64::from(instance.restarts))
                .sum()
        };
        let gauge = MetricType::Gauge;
        let of_services = ("vaxel_service_up", "Whether the service takes calls");
        each(&mut encoder, of_services, gauge, named(&seen, up))?;
        let of_restarts = (
            "vaxel_service_restarts",
            "Starts after an unwanted end, of the instances that are there",
        );
        each(&mut encoder, of_restarts, gauge, named(&seen, restarts))?;
        let store = inner.context.store.stats();
        let queued = inner.records.queued.load(Ordering::Relaxed);
        let refused = inner.records.lost.load(Ordering::Relaxed);
        let counter = MetricType::Counter;
        let hashed = inner.guesses.hashed.load(Ordering::Relaxed);
        let facts = [
            (
                "vaxel_call_records_queued",
                "Call records that wait to be written",
                gauge,
                queued,
            ),
            (
                "vaxel_call_records_refused",
                "Call records that the store refused",
                counter,
                refused,
            ),
            (
                "vaxel_store_writes",
                "Changes written",
                counter,
                store.writes,
            ),
            (
                "vaxel_store_commits",
                "Transactions they were committed in",
                counter,
                store.commits,
            ),
            (
                "vaxel_store_size_bytes",
                "Size of the store on disk",
                gauge,
                store.bytes,
            ),
            (
                "vaxel_password_hashes",
                "Passwords hashed, to check or to keep one",
                counter,
                hashed,
            ),
        ];
        for (name, help, kind, value) in facts {
            one(&mut encoder, (name, help), kind, value)?;
        }
        Ok(())
    }
}

fn named(seen: &[Arc<Seen>], value: impl Fn(&Seen) -> u64) -> impl Iterator<Item = (String, u64)> {
    seen.iter()
        .map(move |one| (one.name.to_string(), value(one)))
}

fn each(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: MetricType,
    values: impl Iterator<Item = (String, u64)>,
) -> Result<(), fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (service, value) in values {
        let labels = [("service", service)];
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn one(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: MetricType,
    value: u64,
) -> Result<(), fmt::Error> {
    let metric = encoder.encode_descriptor(name, help, None, kind)?;
    match kind {
        MetricType::Counter => ConstCounter::new(value).encode(metric),
        _ => ConstGauge::new(value).encode(metric),
    }
}
