//! How fast the engines are, for whoever decides between them. Nothing here can fail by being slow:
//! `cargo nextest run -p vaxel-store --run-ignored only --no-capture figures`.

use tokio::task::JoinSet;
use vaxel_core::time::Clock;

use super::{fresh, line, postgres::Schema, service};
use crate::store::Store;

const WRITERS: u32 = 64;
const EACH: u32 = 40;
const READS: u32 = 2_000;

async fn measure(engine: &str, store: Store) {
    let clock = Clock::system();
    let begun = clock.instant();
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0..EACH {
                let one = service(&format!("s{writer}-{number}"));
                let made = line(&one, "service.create");
                let created = store.create_service(&one, Vec::new(), made).await;
                created.expect("it is created");
            }
        });
    }
    tasks.join_all().await;
    let took = begun.elapsed();
    let stats = store.stats();
    let writes = f64::from(WRITERS * EACH) / took.as_secs_f64();
    println!(
        "{engine}: {writes:.0} services created per second by {WRITERS} writers, {} in one commit",
        stats.writes / stats.commits.max(1)
    );
    let begun = clock.instant();
    for number in 0..EACH {
        let one = service(&format!("alone-{number}"));
        let made = line(&one, "service.create");
        store
            .create_service(&one, Vec::new(), made)
            .await
            .expect("it is created");
    }
    println!(
        "{engine}: {:?} for one creation, alone",
        begun.elapsed() / EACH
    );
    let name = "s0-0".parse().expect("a name");
    let begun = clock.instant();
    for _ in 0..READS {
        store.service_by_name(&name).await.expect("it is read");
    }
    println!("{engine}: {:?} for one read", begun.elapsed() / READS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn figures_of_both_engines() {
    let (_dir, store) = fresh();
    measure("sqlite", store).await;
    if let Some(schema) = Schema::fresh() {
        measure("postgresql", schema.open()).await;
    }
}
