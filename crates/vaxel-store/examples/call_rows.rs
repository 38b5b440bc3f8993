//! Prints what call records cost, and how long opening takes: `cargo run --release -p vaxel-store
//! --example call_rows [ROWS]`.
#![expect(clippy::print_stdout, reason = "it prints its figures")]

use std::{error::Error, fs, time::Duration};

use vaxel_core::{
    call::{CallRecord, Door, Outcome},
    id::{Id, Service},
    time::{Clock, Timestamp},
};
use vaxel_store::{CallQuery, Config, Store};

/// As many as the recorder writes at once.
const BATCH: usize = 512;

fn record(
    service: Id<Service>,
    number: usize,
    at: Timestamp,
) -> Result<CallRecord, Box<dyn Error>> {
    Ok(CallRecord {
        id: Id::new(at),
        at,
        duration: Duration::from_micros(1_500 + number as u64 % 1_000),
        service,
        service_name: "everything".parse()?,
        method: "tools/call",
        target: "echo".into(),
        principal: Some(Id::new(at)),
        principal_name: "claude-desktop".into(),
        outcome: Outcome::Ok,
        error: None,
        request_bytes: 180,
        response_bytes: 240,
        client_revision: "2026-07-28",
        upstream_revision: "2025-11-25",
        door: Door::Mcp,
        trace_id: None,
        request: None,
        response: None,
    })
}

/// CPU time of the store's writers so far, user and system.
fn writers() -> Result<Duration, Box<dyn Error>> {
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim_end() == "vaxel-store" {
            let spent = fs::read_to_string(task.join("schedstat"))?;
            nanos += spent.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let rows: usize = std::env::args()
        .nth(1)
        .map_or(Ok(1_000_000), |text| text.parse())?;
    let clock = Clock::system();
    let dir = tempfile::tempdir()?;

    let begun = clock.instant();
    let store = Store::open(&Config::new(dir.path()))?;
    println!("open, empty directory:    {:?}", begun.elapsed());

    let services: Vec<Id<Service>> = (0..10).map(|_| Id::new(clock.now())).collect();
    let mut wall = Duration::ZERO;
    let before = writers()?;
    for first in (0..rows).step_by(BATCH) {
        let last = (first + BATCH).min(rows);
        let batch: Result<Vec<_>, _> = (first..last)
            .map(|number| record(services[number % services.len()], number, clock.now()))
            .collect();
        let batch = batch?;
        let begun = clock.instant();
        store.record_calls(batch).await?;
        wall += begun.elapsed();
    }
    let count = u32::try_from(rows)?;
    println!(
        "append, {rows} rows:       {:?} of the writer's CPU per row",
        writers()?.saturating_sub(before) / count
    );
    println!(
        "                          {:?} until answered per row",
        wall / count
    );

    for (what, service) in [("all services", None), ("one service", Some(services[3]))] {
        let query = CallQuery {
            service,
            ..CallQuery::default()
        };
        let begun = clock.instant();
        store.calls(query, 100, None).await?;
        println!("newest 100 of {what}: {:?}", begun.elapsed());
    }
    let begun = clock.instant();
    for _ in 0..1_000 {
        store.call_stats(services[3]).await?;
    }
    println!("figures of a service:     {:?}", begun.elapsed() / 1_000);

    let size = fs::metadata(dir.path().join("records.db"))?.len();
    println!(
        "size:                     {} bytes per row",
        size / rows as u64
    );
    let begun = clock.instant();
    store.close().await;
    println!("close:                    {:?}", begun.elapsed());
    drop(store);
    let begun = clock.instant();
    drop(Store::open(&Config::new(dir.path()))?);
    println!("open, existing directory: {:?}", begun.elapsed());
    Ok(())
}
