//! An API with everything real under it, asked without a socket.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, Response, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tower::ServiceExt;
use vaxel_api::{Api, Config, MetricsAccess};
use vaxel_auth::{root::RootKeys, web::WebRules};
use vaxel_control::{Control, FeedConfig, ProcessConfig, RecordsConfig, ServerFacts};
use vaxel_core::{
    failure::{Failure, Kind},
    id::Id,
    principal::{Permissions, Principal},
    rights::Limits,
    role::BuiltIn,
    time::Clock,
};
use vaxel_gateway::{Gateway, Identity, Peer, RequestId};
use vaxel_store::Store;
use vaxel_supervisor::Supervisor;

/// A running API.
pub(crate) struct Home {
    api: Api,
    pub(crate) control: Control,
    pub(crate) supervisor: Supervisor,
    _folder: TempDir,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) enum As {
    /// Nobody: no key.
    Nobody,
    /// A key with these permissions.
    With(Permissions),
    /// A user with all that it may do.
    User(&'static str),
    /// The same with a key that is good for one service.
    Only(&'static str, &'static str),
}

impl As {
    pub(crate) fn admin() -> Self {
        Self::With(BuiltIn::Admin.permissions())
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn open() -> Home {
    open_with(MetricsAccess::Loopback).await
}

pub(crate) async fn open_with(metrics: MetricsAccess) -> Home {
    let folder = tempfile::tempdir().unwrap();
    let (control, supervisor, registry) = control(folder.path()).await;
    let config = Config {
        base: "http://127.0.0.1:3010".to_owned(),
        public_url: None,
        body_max: 1024 * 1024,
        body_timeout: Duration::from_secs(30),
        only_tls: true,
        metrics,
    };
    let deps = vaxel_api::Deps {
        control: control.clone(),
        runtime: tokio::runtime::Handle::current(),
        registry: Arc::new(registry),
    };
    Home {
        api: Api::new(config, deps),
        control,
        supervisor,
        _folder: folder,
    }
}

async fn control(folder: &Path) -> (Control, Supervisor, Registry) {
    let clock = Clock::system();
    let data = folder.join("data");
    let store = Store::open(&vaxel_store::Config::new(&data)).unwrap();
    let roots = RootKeys::ephemeral();
    let mut registry = Registry::default();
    let (sender, records) = mpsc::channel(64);
    let web = WebRules::new("127.0.0.1:3010".parse().unwrap(), &[]).unwrap();
    let deps = vaxel_gateway::Deps {
        clock: clock.clone(),
        egress: vaxel_egress::Egress::new(vaxel_egress::Config::default()).unwrap(),
        sealer: roots.sealer("sessions"),
        records: sender,
        runtime: tokio::runtime::Handle::current(),
        tunables: vaxel_gateway::Tunables::new(web),
    };
    let gateway = Gateway::new(vaxel_gateway::Config::default(), deps, &mut registry);
    let supervisor = Supervisor::without_cgroups(supervisor(&data), clock.clone());
    let deps = vaxel_control::Deps {
        supervisor: supervisor.clone(),
        roots,
        clock: clock.clone(),
        store,
        gateway,
        records,
    };
    let config = vaxel_control::Config {
        server: ServerFacts {
            version: "1.2.3".to_owned(),
            started_at: clock.now(),
            listen: "127.0.0.1:3010".parse().unwrap(),
            url: "http://127.0.0.1:3010".to_owned(),
            data_dir: data,
            auth: true,
            notes: Vec::new(),
        },
        process: ProcessConfig::default(),
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
        grace: Duration::from_secs(5),
    };
    let (control, _) = Control::start(config, deps).await.unwrap();
    control.register_metrics(&mut registry);
    (control, supervisor, registry)
}

/// No process is started in these tests.
fn supervisor(data: &Path) -> vaxel_supervisor::Config {
    vaxel_supervisor::Config {
        program: "/nonexistent".into(),
        shim_args: Vec::new(),
        base_env: [].into(),
        start_timeout: Duration::from_secs(5),
        stop_grace: Duration::from_secs(1),
        log_dir: data.join("logs"),
        log_max_bytes: 1 << 20,
        log_files: 2,
        log_line_max: 4_096,
        log_tail: 100,
    }
}

/// An answer that does not end.
pub(crate) struct Stream(Body);

impl Stream {
    /// The next piece of it.
    pub(crate) async fn next(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_mins(1), self.0.frame()).await;
        let frame = next.expect("the stream went on").unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }
}

impl Home {
    /// A request without a body.
    pub(crate) async fn ask(&self, who: As, method: &str, path: &str) -> Answer {
        self.send(who, request(method, path).body(Body::empty()).unwrap())
            .await
    }

    /// A request with a JSON body.
    pub(crate) async fn ask_with(
        &self,
        who: As,
        (method, path): (&str, &str),
        body: &Value,
    ) -> Answer {
        let request = request(method, path).header(header::CONTENT_TYPE, "application/json");
        self.send(who, request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    /// Any request, as the gateway hands it over.
    pub(crate) async fn send(&self, who: As, request: Request<Body>) -> Answer {
        let (parts, body) = self.response(who, request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// A request whose answer does not end.
    pub(crate) async fn stream(&self, who: As, request: Request<Body>) -> Stream {
        Stream(self.response(who, request).await.into_body())
    }

    async fn response(&self, who: As, mut request: Request<Body>) -> Response<Body> {
        let identity = match who {
            As::Nobody => Err(Arc::new(Failure::new(
                Kind::Unauthenticated,
                "A key is needed",
            ))),
            As::User(name) => Ok(self.control.as_user(name).unwrap()),
            As::Only(name, service) => {
                let user = self.control.as_user(name).unwrap();
                let limits = Limits {
                    permissions: user.permissions.union(user.rights.reach().any()),
                    services: Some(vec![service.to_owned()]),
                    environments: None,
                };
                let who = (user.proof, user.name);
                Ok(Principal::of_user(who, user.rights, Some(limits.into())))
            }
            As::With(permissions) => {
                let name = "someone".into();
                let limits = Limits {
                    permissions,
                    services: None,
                    environments: None,
                };
                Ok(Principal {
                    permissions,
                    name,
                    limits: Some(limits.into()),
                    ..Principal::system()
                })
            }
        };
        let extensions = request.extensions_mut();
        extensions.insert(Identity(identity));
        if extensions.get::<Peer>().is_none() {
            extensions.insert(Peer(SocketAddr::from(([192, 0, 2, 1], 40_000))));
        }
        extensions.insert(RequestId(Id::new(Clock::system().now())));
        self.api.router().oneshot(request).await.unwrap()
    }

    /// The demo server, in service.
    pub(crate) async fn with_demo(&self) {
        let draft =
            serde_json::json!({ "name": "demo", "spec": { "source": { "builtin": "demo" } } });
        let made = self
            .ask_with(As::admin(), ("POST", "/api/v1/services"), &draft)
            .await;
        assert_eq!(made.status, StatusCode::CREATED);
        let health = self
            .ask(As::admin(), "GET", "/api/v1/services/demo/health?wait=20s")
            .await;
        assert_eq!(health.json()["ready"], true, "{}", health.text());
    }
}

pub(crate) fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path)
}
