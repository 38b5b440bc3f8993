//! Processes that nobody calls, and HTTP services that are not processes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use vaxel_control::Change;
use vaxel_core::{
    failure::Kind,
    lifecycle::Lifecycle,
    service::ServiceDraft,
    status::{Health, ServiceStatus},
};

use crate::home::{Home, folder, open, reference, scripted};

/// The scripted server, stopped when nobody calls it for a second.
fn lazy(name: &str, replicas: u16) -> Value {
    let mut draft = scripted(name, &["ok"]);
    draft["spec"]["idle_timeout"] = json!("1s");
    draft["spec"]["replicas"] = json!(replicas);
    draft
}

fn is_resting(status: &ServiceStatus) -> bool {
    status.health == Health::Stopped && status.lifecycle == Lifecycle::Active
}

async fn update(home: &Home, draft: &Value) {
    let change = Change::UpdateService {
        service: reference(draft["name"].as_str().unwrap()),
        draft: Box::new(ServiceDraft::from_json(draft).unwrap()),
        expected: None,
    };
    home.submit(change).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_nobody_calls_are_stopped_and_started_by_the_next_call() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(lazy("files", 2)).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let first = home.call("files__pid", json!({})).await.unwrap();
    let status = home.wait("files", is_resting).await;
    let reason = status.reason.unwrap();
    assert_eq!(
        reason,
        "idle: nobody has called it for 1s; the next call starts it"
    );
    assert_eq!((status.instances.len(), status.stale), (0, false));
    assert_eq!(status.tools, 3);
    assert_eq!(home.gateway.exposed_tools(&home.admin, None).len(), 3);
    let pid: u32 = first.parse().unwrap();
    let is_gone = || !std::path::Path::new(&format!("/proc/{pid}")).exists();
    home.wait("files", |_| is_gone()).await;

    let second = home.call("files__pid", json!({})).await.unwrap();
    assert_ne!(second, first);
    let status = home
        .wait("files", |status| status.health == Health::Healthy)
        .await;
    assert_eq!(
        (status.lifecycle, status.instances.len()),
        (Lifecycle::Active, 2)
    );
    assert_eq!(status.instances[0].restarts, 0);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_however_it_meets_the_stop() {
    let folder = folder();
    let home = Arc::new(open(folder.path()).await);
    home.create(lazy("files", 1)).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let mut callers = JoinSet::new();
    for caller in 0..6_u64 {
        let home = Arc::clone(&home);
        callers.spawn(async move {
            for call in 0..4_u64 {
                // Around the moment at which the process is stopped, before it and after it.
                let pause = 900 + (caller * 37 + call * 61) % 300;
                tokio::time::sleep(Duration::from_millis(pause)).await;
                home.call("files__pid", json!({})).await.unwrap();
            }
        });
    }
    while let Some(called) = callers.join_next().await {
        called.unwrap();
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_can_be_changed_restarted_and_stopped() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = lazy("files", 1);
    home.create(draft.clone()).await.unwrap();
    home.wait("files", is_resting).await;
    // What needs no process wakes none.
    draft["spec"]["tools"] = json!({ "deny": ["greet"] });
    update(&home, &draft).await;
    let status = home.wait("files", |status| status.tools == 2).await;
    assert!(is_resting(&status), "{status:?}");

    draft["spec"]["source"]["process"]["env"] = json!({ "COLOUR": "blue" });
    update(&home, &draft).await;
    home.wait("files", |status| status.health == Health::Healthy)
        .await;
    home.wait("files", is_resting).await;
    let asked = json!({ "name": "COLOUR" });
    assert_eq!(home.call("files__env", asked).await.unwrap(), "blue");
    home.wait("files", is_resting).await;

    home.submit(Change::RestartService(reference("files")))
        .await
        .unwrap();
    home.wait("files", |status| status.health == Health::Healthy)
        .await;
    home.wait("files", is_resting).await;

    // Who wants it to run for ever need not call it.
    draft["spec"]["idle_timeout"] = Value::Null;
    update(&home, &draft).await;
    home.wait("files", |status| status.health == Health::Healthy)
        .await;
    draft["spec"]["idle_timeout"] = json!("1s");
    update(&home, &draft).await;
    home.wait("files", is_resting).await;
    home.submit(Change::StopService(reference("files")))
        .await
        .unwrap();
    home.wait_for("files", Lifecycle::Inactive).await;
    let refused = home.call("files__pid", json!({})).await.unwrap_err();
    assert_eq!(refused.kind, Kind::UnknownTool);
    home.control.stop().await;
}

/// An HTTP service in a few lines: every tool says the address at which it is asked.
struct Shop {
    address: SocketAddr,
    closing: CancellationToken,
    serving: JoinSet<()>,
}

impl Shop {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (closing, mut serving) = (CancellationToken::new(), JoinSet::new());
        let closed = closing.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(Ok((stream, _))) = closed.run_until_cancelled(listener.accept()).await {
                connections.spawn(answer(stream, address));
            }
            drop(listener);
            connections.shutdown().await;
        });
        Self {
            address,
            closing,
            serving,
        }
    }

    /// Ends as a process does: nothing of it is there any more when this returns.
    async fn close(mut self) {
        self.closing.cancel();
        while self.serving.join_next().await.is_some() {}
    }

    fn instance(&self) -> Value {
        json!({ "host": "127.0.0.1", "port": self.address.port() })
    }
}

/// Answers request after request, until the other side ends.
async fn answer(stream: TcpStream, address: SocketAddr) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length, mut has_key) = (String::new(), 0, false);
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let header = line.trim().to_ascii_lowercase();
            has_key |= header == "x-key: k";
            if let Some(number) = header.strip_prefix("content-length:") {
                length = number.trim().parse().unwrap();
            }
            if header.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let said = json!({ "at": address.to_string(), "key": has_key }).to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
        let whole = format!("{head}: {}\r\n\r\n{said}", said.len());
        if stream.write_all(whole.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn shop(instances: &[Value]) -> Value {
    let http = json!({ "instances": instances, "health_path": "/health", "tools": ["where"],
        "headers": { "X-Key": "k" } });
    json!({ "name": "shop", "spec": { "source": { "http": http }, "balance": "round_robin" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_of_an_http_service_is_watched_by_itself() {
    let folder = folder();
    let home = open(folder.path()).await;
    let (one, two) = (Shop::open().await, Shop::open().await);
    let draft = shop(&[one.instance(), two.instance()]);
    home.create(draft.clone()).await.unwrap();
    let is_whole = |status: &ServiceStatus| status.health == Health::Healthy;
    let status = home.wait("shop", is_whole).await;
    let addresses: Vec<_> = status
        .instances
        .iter()
        .map(|one| one.address.clone())
        .collect();
    let both = [one.address, two.address].map(|address| Some(address.to_string()));
    assert_eq!(addresses, both);
    assert_eq!(
        (status.tools, status.revision.as_deref()),
        (1, Some("2026-07-28"))
    );
    let stored = serde_json::to_string(&home.get("shop").await.resource.spec).unwrap();
    assert!(
        stored.contains("secret:") && !stored.contains("\"k\""),
        "{stored}"
    );
    let ask = async || home.call("shop__where", json!({})).await;
    let said: Value = serde_json::from_str(&ask().await.unwrap()).unwrap();
    assert_eq!(said["key"], true);

    // That the other end of a kept connection is closed is known a moment after, and a call that finds it
    // out is lost, since it may have arrived.
    let ask_on = async || loop {
        match ask().await {
            Err(failure) if failure.kind == Kind::UpstreamLost => {}
            answer => return answer,
        }
    };
    one.close().await;
    for _ in 0..4 {
        let said = ask_on().await.unwrap();
        assert!(said.contains(&two.address.to_string()), "{said}");
    }
    let status = home
        .wait("shop", |status| status.health == Health::Degraded)
        .await;
    assert_eq!(status.lifecycle, Lifecycle::Active);
    let error = status.instances[0].last_error.clone().unwrap();
    assert!(error.contains("cannot connect to"), "{error}");

    two.close().await;
    let is_lost = |status: &ServiceStatus| {
        let mut instances = status.instances.iter();
        instances.all(|one| one.health != Health::Healthy)
    };
    // The first call finds out, the second is told.
    for failure in [ask_on().await, ask_on().await].map(Result::unwrap_err) {
        assert_eq!(
            (failure.kind, failure.retry_after),
            (Kind::UpstreamUnavailable, Some(5))
        );
        assert!(failure.detail.contains("cannot connect to"), "{failure}");
        home.wait("shop", is_lost).await;
    }

    // A new address with the old headers: they go only where they were sent to go.
    let three = Shop::open().await;
    let mut moved = serde_json::to_value(&home.get("shop").await.resource.spec).unwrap();
    moved["source"]["http"]["instances"] = json!([three.instance()]);
    let change = Change::UpdateService {
        service: reference("shop"),
        draft: Box::new(ServiceDraft::from_json(&json!({"name": "shop", "spec": moved})).unwrap()),
        expected: None,
    };
    let refused = home.submit(change).await.unwrap_err();
    assert_eq!(refused.issues[0].path, "spec.source.http.headers.X-Key");
    update(&home, &shop(&[three.instance()])).await;
    home.wait("shop", is_whole).await;
    assert!(ask().await.unwrap().contains(&three.address.to_string()));
    home.control.stop().await;
}
