//! Services whose instances are stopped because nobody calls them: whoever calls then is served, however
//! the two meet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use vaxel_core::{
    balance::Balance,
    id::{Id, Service},
    service::{EraChoice, Limits, SessionScope, ToolFilter, Validate},
    time::Clock,
};
use vaxel_gateway::{Bell, ConnectTarget, Gateway, Link, ServiceEntry, Transport, Unavailable};

use crate::harness::{
    PATIENCE, Reply, Rig, Served, Upstream, about,
    client::{Client, Message},
    wait_for,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_an_idle_service_rings_and_waits() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    assert!(rig.gateway.retire(std::slice::from_ref(&served.link)));
    let bell = rest(&rig, &served);
    let client = rig.modern();
    assert_eq!(client.tools().await, ["up__echo", "up__other"]);
    let mut calls = JoinSet::new();
    for client in [client, rig.legacy().await] {
        calls.spawn(async move { client.say(&Message::call("up__echo", "{}")).await });
    }
    let rung = tokio::time::timeout(PATIENCE, bell.rung()).await;
    rung.expect("nobody rang");
    let again = rig.add_http("up2", &upstream).await;
    rig.put(
        "up",
        &Served {
            link: again.link,
            ..served
        },
        Some(again.catalog),
        None,
    );
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(
            answer.json()["result"]["content"].is_array(),
            "{}",
            answer.text
        );
    }
}

/// Publishes that a service rests.
fn rest(rig: &Rig, served: &Served) -> Bell {
    let bell = Bell::default();
    let idle = Unavailable::Idle(bell.clone());
    rig.put("up", served, Some(Arc::clone(&served.catalog)), Some(idle));
    bell
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_use_is_not_retired() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen| {
        (seen.method() == "tools/call" && seen.text.contains("hang")).then_some(Reply::Never)
    })
    .await;
    let (one, two) = (
        rig.add_http("one", &upstream).await,
        rig.add_http("two", &upstream).await,
    );
    let links = [one.link.clone(), two.link.clone()];
    let client = rig.modern();
    let mut calls = JoinSet::new();
    let caller = client.clone();
    calls.spawn(async move { caller.call("two__echo", r#"{"hang":1}"#).await });
    wait_for("the call", || (two.link.in_flight() == 1).then_some(())).await;
    assert!(!rig.gateway.retire(&links));
    // The other one, which was closed for a moment, takes calls as before.
    assert!(client.call("one__echo", "{}").await["result"].is_object());
    calls.shutdown().await;
    wait_for("the call to end", || {
        (two.link.in_flight() == 0).then_some(())
    })
    .await;
    assert!(rig.gateway.retire(&links));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_works_on_a_task_is_not_retired() {
    let rig = Rig::start();
    let ended = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&ended);
    let upstream = Upstream::modern(move |seen| {
        let is_over = is_over.load(Ordering::SeqCst);
        let (kind, status) = match seen.method() {
            "tools/call" => ("task", "working"),
            "tasks/get" if is_over => ("complete", "completed"),
            "tasks/get" => ("complete", "working"),
            _ => return None,
        };
        let task = serde_json::json!({"resultType": kind, "taskId": "t1", "status": status,
            "createdAt": "2026-11-21T00:00:00Z", "lastUpdatedAt": "2026-11-21T00:00:00Z", "ttlMs": null});
        Some(Reply::Json(200, seen.result(&task)))
    })
    .await;
    let served = rig.add_http("up", &upstream).await;
    let links = [served.link.clone()];
    let able = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
    let client = rig.modern().able(able);
    let begun = client.call("up__echo", "{}").await;
    let id = begun["result"]["taskId"].as_str().unwrap().to_owned();
    rig.idle(&served).await;
    assert!(!rig.gateway.retire(&links));
    let get = async || {
        let params = format!(r#""taskId":"{id}""#);
        let asking = client.clone().with("mcp-name", &id);
        asking.say(&Message::new("tasks/get", &params)).await.json()
    };
    assert_eq!(get().await["result"]["status"], "working");
    assert!(!rig.gateway.retire(&links));
    ended.store(true, Ordering::SeqCst);
    assert_eq!(get().await["result"]["status"], "completed");
    rig.idle(&served).await;
    assert!(rig.gateway.retire(&links));
}

/// What the control plane does, as fast as it can: connects, rests when nobody calls, and starts again
/// when somebody does.
struct Keeper {
    gateway: Gateway,
    id: Id<Service>,
    url: url::Url,
    rests: AtomicUsize,
}

impl Keeper {
    async fn connect(&self) -> Link {
        let target = ConnectTarget {
            introduced: None,
            service: self.id,
            name: "up".parse().unwrap(),
            era: EraChoice::Modern,
            transport: Transport::Http {
                url: self.url.clone(),
                headers: Vec::new(),
                session: SessionScope::default(),
                tokens: None,
            },
        };
        self.gateway.connect(target).await.unwrap()
    }

    async fn keep(self: Arc<Self>) {
        let mut links = [self.connect().await, self.connect().await];
        let catalog = Arc::new(links[0].catalog().await.unwrap());
        loop {
            let publish = |links: &[Link], unavailable| {
                self.gateway.publish(ServiceEntry {
                    id: self.id,
                    name: "up".parse().unwrap(),
                    limits: Limits::default(),
                    tools: ToolFilter::default(),
                    validate: Validate::None,
                    catalog: Some(Arc::clone(&catalog)),
                    links: links.to_vec(),
                    balance: Balance::default(),
                    about: about(),
                    unavailable,
                });
            };
            let calls = || self.gateway.load(self.id).calls;
            let before = calls();
            publish(&links, None);
            // Every other time those who rang are served before it rests again: where there is one processor,
            // they would never find it open.
            let is_patient = self.rests.load(Ordering::Relaxed) % 2 == 1;
            while is_patient && calls() == before {
                tokio::task::yield_now().await;
            }
            while !self.gateway.retire(&links) {
                tokio::task::yield_now().await;
            }
            let bell = Bell::default();
            publish(&[], Some(Unavailable::Idle(bell.clone())));
            // A call that were on one of these now would be lost. Who comes too late is counted, too, for the
            // moment in which it finds that out.
            wait_for("nobody to be on what is closed", || {
                let left: u32 = links.iter().map(Link::in_flight).sum();
                (left == 0).then_some(())
            })
            .await;
            self.rests.fetch_add(1, Ordering::Relaxed);
            bell.rung().await;
            links = [self.connect().await, self.connect().await];
        }
    }
}

/// Calls again and again, with a pause that differs each time, until the service has rested often.
async fn call(client: Client, seed: u64, keeper: Arc<Keeper>) {
    for number in 0.. {
        if number >= 150 && keeper.rests.load(Ordering::Relaxed) > 20 {
            return;
        }
        let pause = (seed * 31 + number * 17) % 23;
        tokio::time::sleep(Duration::from_micros(pause * 100)).await;
        let answer = client.say(&Message::call("up__echo", "{}")).await;
        assert!(
            answer.json()["result"]["content"].is_array(),
            "{}",
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_between_resting_and_starting_whatever_the_moment() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let keeper = Arc::new(Keeper {
        gateway: rig.gateway.clone(),
        id: Id::new(Clock::system().now()),
        url: upstream.url(),
        rests: AtomicUsize::new(0),
    });
    let mut keeping = JoinSet::new();
    keeping.spawn(Arc::clone(&keeper).keep());
    wait_for("the service", || rig.gateway.tool("up__echo")).await;
    let mut calling = JoinSet::new();
    for seed in 0..4 {
        let client = if seed % 2 == 0 {
            rig.modern()
        } else {
            rig.legacy().await
        };
        calling.spawn(call(client, seed, Arc::clone(&keeper)));
    }
    let all = async {
        while let Some(called) = calling.join_next().await {
            called.unwrap();
        }
    };
    tokio::select! {
        () = all => {}
        Some(kept) = keeping.join_next() => kept.unwrap(),
    }
}
