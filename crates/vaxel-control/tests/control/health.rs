//! What is checked of services, and what follows from it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};
use vaxel_auth::web::WebRules;
use vaxel_control::{CallFilter, Change, Config, Page};
use vaxel_core::{
    failure::Kind as FailureKind,
    health::check::{Kind, Verdict},
    lifecycle::Lifecycle,
    service::ServiceDraft,
    status::{Health, ServiceStatus},
};
use vaxel_gateway::Tunables;

use crate::home::{Home, demo, folder, open, open_with, reference, scripted, until};

/// Checks follow each other quickly, and nothing is retried for an hour.
fn hurried(config: &mut Config) {
    config.process.health_interval = Duration::from_millis(30);
    config.health.rules.timeout = Duration::from_secs(5);
    config.health.rules.backoff = Duration::ZERO;
    config.health.rules.fall = 2;
}

/// A check of it that is late counts as none at all: by default an answer may take as long as the interval,
/// which is a blink here.
fn patient(mut draft: Value) -> Value {
    draft["spec"]["health"]["timeout"] = json!("20s");
    draft
}

fn bytes(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.len())
}

/// A server whose tool lies while `mark` is there, checked by that tool.
fn liar(name: &str, mark: &Path) -> Value {
    let mut draft = scripted(name, &["lie", &mark.display().to_string()]);
    draft["spec"]["health"] = json!({
        "timeout": "20s",
        "functional": [{ "tool": "greet", "expect": { "equals": "hello" } }],
        "recovery": { "budget": 2 }
    });
    draft
}

async fn check_of(home: &Home, name: &str, kind: Kind) -> Option<(Verdict, String)> {
    let service = reference(name);
    let report = home.control.health(&home.admin, &service, None);
    let checks = report.await.unwrap().checks;
    let found = checks.into_iter().find(|one| one.result.kind == kind)?;
    Some((found.result.verdict, found.result.message.into_owned()))
}

async fn update(home: &Home, name: &str, draft: &Value) {
    let change = Change::UpdateService {
        service: reference(name),
        draft: Box::new(ServiceDraft::from_json(draft).unwrap()),
        expected: None,
    };
    home.submit(change).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_lies_is_restarted_within_the_budget_and_then_left_with_the_reason() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let mark = folder.path().join("liar");
    home.create(liar("liar", &mark)).await.unwrap();
    let well = |seen: &ServiceStatus| seen.health == Health::Healthy;
    home.wait("liar", well).await;

    std::fs::write(&mark, "").unwrap();
    let resigned = |seen: &ServiceStatus| {
        let reason = seen.reason.as_deref().unwrap_or_default();
        seen.health == Health::Unhealthy && reason.contains("left as it is")
    };
    let status = home.wait("liar", resigned).await;
    let reason = status.reason.unwrap();
    assert!(
        reason.contains("`greet` answers `goodbye` instead of `hello`"),
        "{reason}"
    );
    assert!(reason.contains("2 times within 1h"), "{reason}");
    assert_eq!(
        status.lifecycle,
        Lifecycle::Active,
        "health is another thing"
    );
    let starts = mark.with_extension("starts");
    assert_eq!(bytes(&starts), 3, "the first start and the budget");
    // Checks go on, restarts do not; its other tools still answer.
    for _ in 0..3 {
        let checked = home
            .control
            .check_health(&home.admin, &reference("liar"))
            .await;
        assert_eq!(checked.unwrap().status.health, Health::Unhealthy);
    }
    assert_eq!(bytes(&starts), 3);
    home.call("liar__pid", json!({})).await.unwrap();

    // It gets well by itself, and that is seen without a restart.
    std::fs::remove_file(&mark).unwrap();
    home.wait("liar", well).await;
    assert_eq!(bytes(&starts), 3);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_mends_what_a_restart_can_mend() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let mark = folder.path().join("frozen").display().to_string();
    let mut draft = scripted("stiff", &["freeze", &mark]);
    draft["spec"]["health"] = json!({ "timeout": "1s" });
    home.create(draft).await.unwrap();
    home.wait_for("stiff", Lifecycle::Active).await;
    home.call("stiff__pid", json!({})).await.unwrap();
    let mended = |seen: &ServiceStatus| {
        let restarts = seen.instances.first().map_or(0, |one| one.restarts);
        restarts > 0 && seen.health == Health::Healthy
    };
    // Its pings are missed, which takes as long as an answer may.
    home.wait("stiff", mended).await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_pings_and_no_calls_is_not_well() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let mut draft = scripted("deaf", &["deaf"]);
    draft["spec"]["limits"] = json!({ "timeout": "20ms" });
    draft["spec"]["health"] = json!({ "recovery": { "budget": 1 } });
    home.create(patient(draft)).await.unwrap();
    home.wait("deaf", |seen| seen.health == Health::Healthy)
        .await;
    // A caller without patience says nothing about the server.
    for _ in 0..12 {
        let late = home
            .call_within("deaf__greet", Duration::from_millis(1))
            .await;
        assert!(late.is_err());
    }
    let service = reference("deaf");
    let checked = home.control.check_health(&home.admin, &service).await;
    assert_eq!(checked.unwrap().status.health, Health::Healthy);
    home.submit(Change::RestartService(service)).await.unwrap();
    // The instance before it was well, too.
    home.settled("deaf").await;
    let fresh = |seen: &ServiceStatus| {
        seen.health == Health::Healthy && seen.lifecycle == Lifecycle::Active
    };
    home.wait("deaf", fresh).await;
    for _ in 0..10 {
        home.call("deaf__greet", json!({})).await.unwrap_err();
    }
    let restarted = |seen: &ServiceStatus| seen.instances.iter().any(|one| one.restarts == 1);
    let status = home.wait("deaf", restarted).await;
    let reason = status.instances[0].last_error.clone().unwrap();
    assert!(reason.contains("but none of its last 10 calls"), "{reason}");
    home.wait("deaf", |seen| seen.health == Health::Healthy)
        .await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_ended_degrades_its_service() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let mut draft = scripted("files", &["ok"]);
    // {"alg":"none"} and {"exp":1000000000}: it ended in 2001.
    let token = "eyJhbGciOiJub25lIn0.eyJleHAiOjEwMDAwMDAwMDB9.c2ln";
    draft["spec"]["source"]["process"]["env"] = json!({ "API_TOKEN": token });
    home.create(patient(draft)).await.unwrap();
    let status = home
        .wait("files", |seen| seen.health == Health::Degraded)
        .await;
    let reason = status.reason.unwrap();
    let expected = "the token in `API_TOKEN` ended at 2001-09-09T01:46:40.000Z";
    assert_eq!(reason, expected);
    assert_eq!(home.call("files__greet", json!({})).await.unwrap(), "hello");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_promises_is_held_against_it() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    for (name, promised) in [("honest", "integer"), ("wrong", "string")] {
        let mut draft = scripted(name, &["typed", promised]);
        draft["spec"]["health"] = json!({
            "functional": [{ "tool": "greet", "expect": { "equals": { "n": 1 } } }],
            "recovery": { "actions": [] }
        });
        home.create(patient(draft)).await.unwrap();
    }
    let status = home.wait_for("wrong", Lifecycle::Error).await;
    let reason = status.reason.unwrap();
    assert!(reason.contains("breaks its output schema"), "{reason}");
    home.wait_for("honest", Lifecycle::Active).await;
    home.control
        .check_health(&home.admin, &reference("honest"))
        .await
        .unwrap();
    let found = check_of(&home, "honest", Kind::Functional).await;
    assert_eq!(
        found,
        Some((Verdict::Pass, "`greet` does what it should".to_owned()))
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_checks_are_recorded_as_what_they_are_and_are_no_usage() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mark = folder.path().join("liar");
    home.create(liar("liar", &mark)).await.unwrap();
    home.wait_for("liar", Lifecycle::Active).await;
    home.control
        .check_health(&home.admin, &reference("liar"))
        .await
        .unwrap();
    let filter = CallFilter::default();
    let row = until("the record of a check", async || {
        let listed = home
            .control
            .calls(&home.admin, None, (&filter, &Page::FIRST));
        listed.await.unwrap().items.into_iter().next()
    })
    .await;
    assert_eq!(
        (row.door.as_str(), row.principal_name.as_str()),
        ("health", "vaxel")
    );
    assert_eq!((row.target.as_str(), row.outcome.as_str()), ("greet", "ok"));
    let stats = home
        .control
        .stats(&home.admin, &reference("liar"))
        .await
        .unwrap();
    assert_eq!((stats.calls, stats.errors), (0, 0));
    assert!(bytes(&mark.with_extension("calls")) > 0);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_dependency_degrades_a_service_whose_calls_go_on() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut draft = demo("demo");
    draft["spec"]["health"] = json!({ "dependency": [{ "tcp": address.to_string() }] });
    home.create(patient(draft)).await.unwrap();
    home.wait("demo", |seen| seen.health == Health::Healthy)
        .await;
    drop(listener);
    let status = home
        .wait("demo", |seen| seen.health == Health::Degraded)
        .await;
    let reason = status.reason.unwrap();
    assert!(reason.contains(&address.to_string()), "{reason}");
    assert_eq!(status.instances[0].restarts, 0);
    let said = home.call("demo__echo", json!({ "message": "hi" })).await;
    assert_eq!(said.unwrap(), "hi");
    let _listener = TcpListener::bind(address).unwrap();
    home.wait("demo", |seen| seen.health == Health::Healthy)
        .await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_slow_or_fail_degrade_a_service_and_cost_no_restart() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let mut draft = scripted("drowsy", &["drowsy", "0.02"]);
    draft["spec"]["health"] = json!({ "performance": { "p95": "1ms", "window": "1d" } });
    home.create(patient(draft.clone())).await.unwrap();
    home.wait_for("drowsy", Lifecycle::Active).await;
    for _ in 0..6 {
        home.call("drowsy__greet", json!({})).await.unwrap();
    }
    let status = home
        .wait("drowsy", |seen| seen.health == Health::Degraded)
        .await;
    let reason = status.reason.unwrap();
    assert!(
        reason.contains("p95 of its calls is") && reason.contains("limit 1ms"),
        "{reason}"
    );
    assert_eq!(status.instances[0].restarts, 0);
    home.call("drowsy__greet", json!({})).await.unwrap();
    // Without limits there is nothing to judge.
    draft["spec"]["health"] = json!({});
    update(&home, "drowsy", &patient(draft)).await;
    home.wait("drowsy", |seen| seen.health == Health::Healthy)
        .await;

    // Records are not what they are judged by.
    let web = WebRules::new("127.0.0.1:3010".parse().unwrap(), &[]).unwrap();
    let mut tunables = Tunables::new(web);
    tunables.records = false;
    home.gateway.tune(tunables);
    let mut draft = demo("demo");
    draft["spec"]["health"] = json!({ "performance": { "error_rate": "10%", "window": "1d" } });
    home.create(patient(draft)).await.unwrap();
    home.wait_for("demo", Lifecycle::Active).await;
    for _ in 0..10 {
        home.call("demo__note_read", json!({ "name": "missing" }))
            .await
            .unwrap();
    }
    let status = home
        .wait("demo", |seen| seen.health == Health::Degraded)
        .await;
    let reason = status.reason.unwrap();
    assert!(
        reason.contains("100% of its calls fail, limit 10%"),
        "{reason}"
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_over_its_threshold_degrades_and_one_check_names_the_figure() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let mut draft = scripted("large", &["ok"]);
    draft["spec"]["health"] = json!({ "performance": { "memory": "1KiB" } });
    home.create(patient(draft)).await.unwrap();
    let status = home
        .wait("large", |seen| seen.health == Health::Degraded)
        .await;
    let reason = status.reason.unwrap();
    assert!(reason.contains("MiB, limit 1KiB"), "{reason}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_that_lies_gets_no_calls_while_the_other_works() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let mark = folder.path().join("liar");
    let mut draft = liar("liar", &mark);
    draft["spec"]["replicas"] = json!(2);
    draft["spec"]["health"]["recovery"] = json!({ "actions": ["eject"] });
    // Only the first process that looks for the file finds it: it is its own.
    draft["spec"]["source"]["process"]["args"][1] = json!("lie-once");
    home.create(draft).await.unwrap();
    let half = |seen: &ServiceStatus| {
        let health: Vec<Health> = seen.instances.iter().map(|one| one.health).collect();
        seen.health == Health::Degraded
            && health.contains(&Health::Unhealthy)
            && health.contains(&Health::Healthy)
    };
    let status = home.wait("liar", half).await;
    let sick = status
        .instances
        .iter()
        .find(|one| one.health == Health::Unhealthy);
    let sick = sick.unwrap().pid.unwrap().to_string();
    // It leaves the table of the data plane a moment after its health is seen.
    let mut others = 0;
    until("the sick replica to get no more calls", async || {
        let pid = home.call("liar__pid", json!({})).await.unwrap();
        others = if pid == sick { 0 } else { others + 1 };
        (others == 20).then_some(())
    })
    .await;
    assert!(status.instances.iter().all(|one| one.restarts == 0));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_instances_take_over_without_a_gap_when_that_is_what_is_wanted() {
    let folder = folder();
    let home = open_with(folder.path(), hurried).await;
    let mark = folder.path().join("liar");
    let mut draft = liar("liar", &mark);
    draft["spec"]["health"]["recovery"] = json!({ "actions": ["replace"], "budget": 1 });
    home.create(draft).await.unwrap();
    home.wait("liar", |seen| seen.health == Health::Healthy)
        .await;
    let first = home.call("liar__pid", json!({})).await.unwrap();
    std::fs::write(&mark, "").unwrap();
    // No call fails meanwhile.
    let deadline = tokio::time::timeout(Duration::from_mins(1), async {
        while home.call("liar__pid", json!({})).await.unwrap() == first {}
    });
    deadline.await.unwrap();
    std::fs::remove_file(&mark).unwrap();
    home.wait("liar", |seen| seen.health == Health::Healthy)
        .await;
    assert_eq!(bytes(&mark.with_extension("starts")), 2);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_definitions_are_a_warning_until_somebody_accepts_them() {
    let folder = folder();
    let home = open_with(folder.path(), |config| {
        config.catalog_ttl = Duration::from_millis(50);
    })
    .await;
    let mark = folder.path().join("grown");
    let name = mark.display().to_string();
    home.create(scripted("quiet", &["grow", &name]))
        .await
        .unwrap();
    home.wait("quiet", |seen| seen.tools == 3).await;
    assert_eq!(check_of(&home, "quiet", Kind::Security).await, None);
    std::fs::write(&mark, "").unwrap();
    home.wait("quiet", |seen| seen.tools == 4).await;
    let verdict = async |wanted: Verdict| {
        until("the verdict", async || {
            let found = check_of(&home, "quiet", Kind::Security).await;
            let (_, message) = found.filter(|(verdict, _)| *verdict == wanted)?;
            Some(message)
        })
        .await
    };
    let message = verdict(Verdict::Warn).await;
    assert!(message.contains("tool late is new"), "{message}");
    assert_eq!(
        home.get("quiet").await.status.health,
        Health::Healthy,
        "a warning is no fault"
    );
    home.submit(Change::AcceptDefinitions(reference("quiet")))
        .await
        .unwrap();
    verdict(Verdict::Pass).await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_health_are_kept_announced_and_counted_across_restarts() {
    let folder = folder();
    let mark = folder.path().join("liar");
    let events;
    {
        let home = open_with(folder.path(), hurried).await;
        let mut heard = home.control.events();
        let mut draft = liar("liar", &mark);
        draft["spec"]["health"]["recovery"] = json!({ "actions": [] });
        home.create(draft).await.unwrap();
        home.wait("liar", |seen| seen.health == Health::Healthy)
            .await;
        std::fs::write(&mark, "").unwrap();
        home.wait("liar", |seen| seen.health == Health::Unhealthy)
            .await;
        std::fs::remove_file(&mark).unwrap();
        home.wait("liar", |seen| seen.health == Health::Healthy)
            .await;
        home.control.stop().await;
        let mut count = 0;
        while let Ok(event) = heard.try_recv() {
            let event = format!("{event:?}");
            count += usize::from(event.contains("service.health"));
        }
        events = count;
    }
    assert_eq!(events, 3, "transitions are announced, results are not");
    let home = open_with(folder.path(), hurried).await;
    home.wait("liar", |seen| seen.health == Health::Healthy)
        .await;
    let service = reference("liar");
    let history = home.control.health_history(&home.admin, &service);
    let history = history.await.unwrap();
    let healths: Vec<Health> = history
        .changes
        .iter()
        .map(|(_, health, _)| *health)
        .collect();
    assert_eq!(
        healths,
        [Health::Healthy, Health::Unhealthy, Health::Healthy]
    );
    let reason = history.changes[1].2.as_deref().unwrap();
    assert!(reason.contains("goodbye"), "{reason}");
    assert!(!history.days[0].up.is_zero() || !history.days[0].down.is_zero());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_service_is_not_checked_and_who_may_not_manage_may_not_ask() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = demo("demo");
    draft["enabled"] = json!(false);
    home.create(draft).await.unwrap();
    let refused = home
        .control
        .check_health(&home.admin, &reference("demo"))
        .await;
    assert_eq!(refused.unwrap_err().kind, FailureKind::Conflict);
    let reader = vaxel_core::principal::Principal {
        permissions: vaxel_core::role::BuiltIn::Client.permissions(),
        ..home.admin.clone()
    };
    let refused = home.control.check_health(&reader, &reference("demo")).await;
    assert_eq!(refused.unwrap_err().kind, FailureKind::NotPermitted);
    home.control.stop().await;
}

/// An MCP server over HTTP that counts the pings it works on at once, and takes a moment for each.
struct Counting {
    address: std::net::SocketAddr,
    pings: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    hangs: Arc<std::sync::atomic::AtomicBool>,
}

impl Counting {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = Self {
            address: listener.local_addr().unwrap(),
            pings: Arc::default(),
            most: Arc::default(),
            hangs: Arc::default(),
        };
        let (pings, most, hangs) = (one.pings.clone(), one.most.clone(), one.hangs.clone());
        let now = Arc::new(AtomicUsize::new(0));
        std::thread::Builder::new()
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (pings, most, hangs) = (pings.clone(), most.clone(), hangs.clone());
                    let now = now.clone();
                    std::thread::Builder::new()
                        .spawn(move || serve(stream, (&pings, &most, &now), &hangs))
                        .unwrap();
                }
            })
            .unwrap();
        one
    }

    fn draft(&self, name: &str) -> Value {
        let url = format!("http://{}/mcp", self.address);
        json!({ "name": name, "spec": {
            "source": { "mcp": { "url": url, "session": "shared" } }, "era": "legacy"
        } })
    }
}

fn serve(
    stream: TcpStream,
    (pings, most, now): (&AtomicUsize, &AtomicUsize, &AtomicUsize),
    hangs: &std::sync::atomic::AtomicBool,
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({
                "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                "serverInfo": { "name": "counting", "version": "1" }
            }),
            "tools/list" => json!({ "tools": [] }),
            "ping" => {
                pings.fetch_add(1, SeqCst);
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                while hangs.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                std::thread::sleep(Duration::from_millis(5));
                now.fetch_sub(1, SeqCst);
                json!({})
            }
            _ => Value::Null,
        };
        let answer = match (&message["id"], &result) {
            (Value::Null, _) => "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned(),
            (_, Value::Null) => "HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            (id, result) => {
                let body = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
                let length = body.len();
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                )
            }
        };
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_services_that_are_due_at_once_are_checked_a_few_at_a_time() {
    const SERVICES: usize = 60;
    let folder = folder();
    let server = Counting::start();
    let home = open_with(folder.path(), |config| {
        config.process.health_interval = Duration::from_millis(50);
        config.health.rules.timeout = Duration::from_secs(10);
        config.health.checks_at_once = 3;
    })
    .await;
    for index in 0..SERVICES {
        let mut draft = server.draft(&format!("s{index}"));
        draft["spec"]["health"] = json!({ "timeout": "10s" });
        home.create(draft).await.unwrap();
    }
    // Each of them is checked, though all are always due.
    for index in 0..SERVICES {
        let name = format!("s{index}");
        home.wait(&name, |seen| seen.health == Health::Healthy)
            .await;
    }
    let before = server.pings.load(SeqCst);
    until("checks to go on", async || {
        (server.pings.load(SeqCst) >= before + 3 * SERVICES).then_some(())
    })
    .await;
    assert!(
        server.most.load(SeqCst) <= 3,
        "{} at once",
        server.most.load(SeqCst)
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_never_asked_twice_at_once() {
    let folder = folder();
    let server = Counting::start();
    let home = open_with(folder.path(), |config| {
        config.process.health_interval = Duration::from_millis(20);
    })
    .await;
    let mut draft = server.draft("stuck");
    draft["spec"]["health"] = json!({ "timeout": "10m" });
    home.create(draft).await.unwrap();
    home.wait_for("stuck", Lifecycle::Active).await;
    server.hangs.store(true, SeqCst);
    let before = server.pings.load(SeqCst);
    until("a check that hangs", async || {
        (server.pings.load(SeqCst) > before).then_some(())
    })
    .await;
    let asked = server.pings.load(SeqCst);
    // Whoever asks for a check meanwhile waits for the one that is on its way, and makes none beside it.
    let (control, admin) = (&home.control, &home.admin);
    let service = reference("stuck");
    let many = (0..20).map(|_| control.check_health(admin, &service));
    let many = futures_util::future::join_all(many);
    let waited = tokio::time::timeout(Duration::from_millis(300), many).await;
    assert!(waited.is_err(), "nothing could have been answered");
    assert!(server.pings.load(SeqCst) <= asked + 1, "checks piled up");
    assert_eq!(server.most.load(SeqCst), 1);
    server.hangs.store(false, SeqCst);
    home.control
        .check_health(&home.admin, &reference("stuck"))
        .await
        .unwrap();
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_answers_calls_is_not_asked_for_a_sign_of_life() {
    let folder = folder();
    let home = open_with(folder.path(), |config| {
        config.process.health_interval = Duration::from_millis(300);
    })
    .await;
    home.create(scripted("files", &["ok"])).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let busy = async {
        loop {
            home.call("files__pid", json!({})).await.unwrap();
        }
    };
    let seen = async {
        loop {
            if let Some((verdict, message)) = check_of(&home, "files", Kind::Basic).await
                && message.contains("answered calls")
            {
                return verdict;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_mins(1), async {
        tokio::select! {
            verdict = seen => verdict,
            () = busy => Verdict::Fail,
        }
    });
    assert_eq!(found.await.unwrap(), Verdict::Pass);
    home.control.stop().await;
}
