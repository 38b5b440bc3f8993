//! A control plane with everything real under it, in a folder of its own.

use std::{path::Path, time::Duration};

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use vaxel_auth::{root::RootKeys, web::WebRules};
use vaxel_control::{
    Change, Config, Control, Deps, FeedConfig, KeyRow, Observed, Page, ProcessConfig,
    RecordsConfig, ServerFacts, ServiceRef, ToolInput, ToolTarget,
};
use vaxel_core::{
    backoff::Backoff, failure::Failure, lifecycle::Lifecycle, principal::Principal, secret::Secret,
    service::ServiceDraft, status::ServiceStatus, time::Clock,
};
use vaxel_egress::Egress;
use vaxel_gateway::Gateway;
use vaxel_store::Store;
use vaxel_supervisor::Supervisor;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running control plane.
pub(crate) struct Home {
    pub(crate) control: Control,
    pub(crate) gateway: Gateway,
    /// The text of the first key, when this start made it.
    pub(crate) admin_key: Option<Secret<String>>,
    pub(crate) admin: Principal,
}

/// A new folder for a data directory.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A control plane over the data in `dir`, with short waits.
pub(crate) async fn open(dir: &Path) -> Home {
    open_with(dir, |_| {}).await
}

pub(crate) async fn open_with(dir: &Path, change: impl FnOnce(&mut Config)) -> Home {
    open_at(dir, Clock::system(), change).await
}

/// The same with a time of its own.
pub(crate) async fn open_at(dir: &Path, clock: Clock, change: impl FnOnce(&mut Config)) -> Home {
    open_over(vaxel_store::Config::new(dir.join("data")), clock, change).await
}

/// The same over such a store.
pub(crate) async fn open_over(
    store: vaxel_store::Config,
    clock: Clock,
    change: impl FnOnce(&mut Config),
) -> Home {
    let data = store.dir.clone();
    let store = Store::open(&store).unwrap();
    let roots = RootKeys::load_or_create(&data).unwrap();
    let supervisor = Supervisor::without_cgroups(supervisor(&data), clock.clone());
    let web = WebRules::new("127.0.0.1:3010".parse().unwrap(), &[]).unwrap();
    let (sender, records) = mpsc::channel(1_024);
    let deps = vaxel_gateway::Deps {
        clock: clock.clone(),
        egress: Egress::new(vaxel_egress::Config::default()).unwrap(),
        sealer: roots.sealer("sessions"),
        records: sender,
        runtime: tokio::runtime::Handle::current(),
        tunables: vaxel_gateway::Tunables::new(web),
    };
    let config = vaxel_gateway::Config {
        probe_timeout: Duration::from_millis(300),
        ..vaxel_gateway::Config::default()
    };
    let gateway = Gateway::new(config, deps, &mut Registry::default());
    let mut config = settings(&data, &clock);
    change(&mut config);
    let deps = Deps {
        clock,
        store,
        supervisor,
        gateway: gateway.clone(),
        roots: roots.clone(),
        records,
    };
    let (control, started) = Control::start(config, deps).await.unwrap();
    Home {
        control,
        gateway,
        admin_key: started.admin_key,
        admin: Principal::system(),
    }
}

fn settings(data: &Path, clock: &Clock) -> Config {
    Config {
        server: ServerFacts {
            version: "1.2.3".to_owned(),
            started_at: clock.now(),
            listen: "127.0.0.1:3010".parse().unwrap(),
            url: "http://127.0.0.1:3010".to_owned(),
            data_dir: data.to_owned(),
            auth: true,
            notes: Vec::new(),
        },
        process: ProcessConfig {
            start_timeout: PATIENCE,
            drain: PATIENCE,
            backoff: Backoff {
                initial: Duration::from_millis(20),
                max: Duration::from_millis(200),
                reset_after: Duration::from_mins(1),
                max_retries: 2,
            },
            ..ProcessConfig::default()
        },
        catalog_ttl: Duration::from_mins(10),
        health: vaxel_control::HealthConfig::default(),
        tokens: vaxel_control::TokensConfig::default(),
        oauth: vaxel_control::OauthConfig::default(),
        callers: vaxel_core::quota::RoleQuotas::default(),
        records: RecordsConfig::default(),
        feed: FeedConfig::default(),
        audit: vaxel_control::AuditConfig::default(),
        archive: None,
        name_max: 50,
        grace: Duration::from_secs(15),
    }
}

fn supervisor(data: &Path) -> vaxel_supervisor::Config {
    let path = std::env::var_os("PATH").unwrap().into_string().unwrap();
    vaxel_supervisor::Config {
        program: env!("CARGO_BIN_EXE_vaxel-control-test-shim").into(),
        shim_args: Vec::new(),
        base_env: [("PATH".to_owned(), path)].into(),
        start_timeout: PATIENCE,
        stop_grace: Duration::from_secs(1),
        log_dir: data.join("logs"),
        log_max_bytes: 1 << 20,
        log_files: 2,
        log_line_max: 4_096,
        log_tail: 100,
    }
}

impl Home {
    /// Submits as admin.
    pub(crate) async fn create(&self, draft: Value) -> Result<Observed, Failure> {
        let draft = ServiceDraft::from_json(&draft).expect("the test's draft is valid");
        let change = Change::CreateService(Box::new(draft));
        self.control
            .submit(&self.admin, change)
            .await?
            .into_service()
    }

    /// The first page of the keys that somebody manages.
    pub(crate) async fn keys_of(&self, who: &Principal) -> Vec<KeyRow> {
        let page = (None, &Page::FIRST);
        self.control.keys(who, page).await.unwrap().items
    }

    pub(crate) async fn submit(&self, change: Change) -> Result<Observed, Failure> {
        self.control
            .submit(&self.admin, change)
            .await?
            .into_service()
    }

    pub(crate) async fn get(&self, name: &str) -> Observed {
        self.control
            .service(&self.admin, &reference(name))
            .await
            .unwrap()
    }

    /// Waits until the service is as `wanted` says, and answers its status.
    pub(crate) async fn wait(
        &self,
        name: &str,
        wanted: impl Fn(&ServiceStatus) -> bool,
    ) -> ServiceStatus {
        let deadline = tokio::time::timeout(PATIENCE, async {
            loop {
                let status = self.get(name).await.status;
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        match deadline.await {
            Ok(status) => status,
            Err(late) => panic!(
                "{late}: {name} never was as expected: {:?}",
                self.get(name).await.status
            ),
        }
    }

    /// The status once nothing more is about to happen to what is stored.
    pub(crate) async fn settled(&self, name: &str) -> ServiceStatus {
        let name = reference(name);
        let report = self.control.health(&self.admin, &name, Some(PATIENCE));
        report.await.unwrap().status
    }

    pub(crate) async fn wait_for(&self, name: &str, state: Lifecycle) -> ServiceStatus {
        self.wait(name, |status| status.lifecycle == state).await
    }

    /// Calls a tool for a caller with so much patience.
    pub(crate) async fn call_within(&self, exposed: &str, wait: Duration) -> Result<(), Failure> {
        let input = ToolInput {
            arguments: None,
            timeout: Some(wait),
        };
        let target = ToolTarget::Exposed(exposed.to_owned());
        let called = self.control.call_tool(&self.admin, &target, input);
        called.await.map(drop)
    }

    /// Calls a tool and answers the text of its result.
    pub(crate) async fn call(&self, exposed: &str, arguments: Value) -> Result<String, Failure> {
        let input = ToolInput {
            arguments: Some(serde_json::value::to_raw_value(&arguments).unwrap()),
            timeout: None,
        };
        let target = ToolTarget::Exposed(exposed.to_owned());
        let reply = self.control.call_tool(&self.admin, &target, input).await?;
        let result: Value = serde_json::from_slice(&reply.result).unwrap();
        Ok(result["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }
}

/// Looks until there is something, or fails.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

pub(crate) fn reference(name: &str) -> ServiceRef {
    name.parse().unwrap()
}

/// The demo server under `name`.
pub(crate) fn demo(name: &str) -> Value {
    json!({ "name": name, "spec": { "source": { "builtin": "demo" } } })
}

/// The scripted server under `name`.
pub(crate) fn scripted(name: &str, args: &[&str]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bin/server.py");
    let mut all = vec![script];
    all.extend(args);
    json!({ "name": name, "spec": { "source": { "process": { "command": "python3", "args": all } } } })
}

/// Every byte that is kept in `dir`.
pub(crate) fn everything_in(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(everything_in(&path));
        } else {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    bytes
}
