//! The server itself: its status, its health, its metrics, its end.

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use vaxel_control::{Change, ServerStatus, Totals};
use vaxel_core::{
    failure::{Failure, Kind},
    time::Timestamp,
};
use vaxel_gateway::{
    Peer,
    tls::{CertificateFacts, CertificateStatus},
};

use crate::{
    context::{Context, MetricsAccess},
    extract::{Caller, Public},
    problem::Refusal,
};

/// The running server.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct StatusView {
    /// Of the binary.
    version: String,
    /// Of the process.
    pid: u32,
    /// Start of the process.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// The bound address.
    #[schema(example = "127.0.0.1:3010")]
    listen: String,
    /// Base URL.
    url: String,
    /// The federated MCP endpoint.
    mcp_url: String,
    /// Where everything is kept.
    data_dir: String,
    /// `keys`, or `none` with `--no-auth`.
    auth: &'static str,
    /// What connections are encrypted with; absent: they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsView>,
    /// How many services are in which state.
    services: ServiceTotalsView,
    /// Calls since the start.
    calls: CallTotalsView,
    /// The database.
    store: StoreView,
    /// Call records on their way to the database.
    records: RecordsView,
    /// What cannot be done on this machine.
    notes: Vec<String>,
    /// What is stored and cannot be read, one sentence each: it is as if it were not there.
    left_out: Vec<String>,
    /// Where the audit does not hold, when that was found since the start: `vaxel audit verify` says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_problem: Option<String>,
}

/// The certificate that clients are shown.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TlsView {
    /// Hosts and addresses that it is good for.
    names: Vec<String>,
    /// Good from then on.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// Good until then.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// SHA-256 of the certificate, in hexadecimal.
    fingerprint: String,
    /// Why the files that should take its place are not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl From<CertificateStatus> for TlsView {
    fn from(CertificateStatus { facts, problem }: CertificateStatus) -> Self {
        let CertificateFacts {
            names,
            from,
            until,
            fingerprint,
        } = facts;
        Self {
            names,
            from,
            until,
            fingerprint,
            problem,
        }
    }
}

/// How many services are in which state.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ServiceTotalsView {
    /// Every service that is not deleted.
    total: u32,
    /// Those in service.
    active: u32,
    /// Those that are wanted but do not work.
    error: u32,
}

/// Calls since the start.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CallTotalsView {
    /// All of them.
    total: u64,
    /// Those that did not end well.
    errors: u64,
    /// Those that are being answered now.
    in_flight: u32,
}

/// The database.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct StoreView {
    /// Which engine.
    #[schema(example = "sqlite")]
    engine: String,
    /// Its version.
    version: String,
    /// Where it is: a directory, or a server with its database.
    #[schema(example = "PostgreSQL at db:5432/vaxel")]
    place: String,
    /// Whether it answers. Calls go on when it does not, and changes are refused.
    reachable: bool,
    /// Why it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Number of its layout.
    schema: u64,
    /// Size on disk, bytes.
    bytes: u64,
}

/// Call records on their way to the database.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RecordsView {
    /// Waiting to be written.
    queued: u64,
    /// Lost since the start, because they came faster than they could be written.
    lost: u64,
}

impl From<ServerStatus> for StatusView {
    fn from(status: ServerStatus) -> Self {
        let ServerStatus {
            server,
            pid,
            certificate,
            services,
            calls,
            store,
            records,
            left_out,
            audit_problem,
        } = status;
        let vaxel_control::ServerFacts {
            version,
            started_at,
            listen,
            url,
            data_dir,
            auth,
            notes,
        } = server;
        let Totals {
            total,
            active,
            error,
        } = services;
        let mcp_url = format!("{url}/mcp");
        Self {
            version,
            pid,
            started_at,
            listen: listen.to_string(),
            url,
            mcp_url,
            data_dir: data_dir.display().to_string(),
            tls: certificate.map(TlsView::from),
            auth: if auth { "keys" } else { "none" },
            services: ServiceTotalsView {
                total,
                active,
                error,
            },
            calls: CallTotalsView {
                total: calls.calls,
                errors: calls.errors,
                in_flight: calls.in_flight,
            },
            store: StoreView {
                engine: store.engine,
                version: store.version,
                place: store.place,
                reachable: store.problem.is_none(),
                problem: store.problem,
                schema: store.schema,
                bytes: store.bytes,
            },
            records: RecordsView {
                queued: records.queued,
                lost: records.lost,
            },
            notes,
            left_out,
            audit_problem,
        }
    }
}

/// Get the server's status
#[utoipa::path(
    get, path = "/api/v1/status", operation_id = "get_status", tag = "server",
    responses((status = 200, description = "The running server", body = StatusView)),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<StatusView>, Refusal> {
    Ok(Answer(context.control.status(&caller).await?.into()))
}

/// Stop the server
///
/// Requests in flight are answered, children end, everything is written.
#[utoipa::path(
    post, path = "/api/v1/shutdown", operation_id = "shut_down", tag = "server",
    responses((status = 202, description = "It ends now")),
)]
pub(crate) async fn shutdown(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<StatusCode, Refusal> {
    context.control.submit(&caller, Change::Shutdown).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Whether something is so.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ProbeView {
    /// `ok`
    status: &'static str,
}

/// Is the server alive?
#[utoipa::path(
    get, path = "/health/live", operation_id = "get_liveness", tag = "server", security(()),
    responses((status = 200, description = "It answers", body = ProbeView)),
)]
pub(crate) async fn live(_: Public) -> Answer<ProbeView> {
    Answer(ProbeView { status: "ok" })
}

/// Does the server take calls?
#[utoipa::path(
    get, path = "/health/ready", operation_id = "get_readiness", tag = "server", security(()),
    responses(
        (status = 200, description = "It does", body = ProbeView),
        (status = 503, description = "Not yet, or not any more", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn ready(
    _: Public,
    State(context): State<Context>,
) -> Result<Answer<ProbeView>, Refusal> {
    context.control.ready()?;
    Ok(Answer(ProbeView { status: "ok" }))
}

/// Read the metrics
///
/// In the `OpenMetrics` text format. Programs on the same machine may read them without a key, unless
/// `metrics.access` says otherwise.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "server",
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text")),
)]
pub(crate) async fn metrics(
    State(context): State<Context>,
    request: axum::extract::Request,
) -> Result<Response, Refusal> {
    let parts = request.into_parts().0;
    may_scrape(&parts.extensions, &context)?;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &context.registry)
        .map_err(Failure::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The rule is the configuration's; here it is only asked.
fn may_scrape(extensions: &axum::http::Extensions, context: &Context) -> Result<(), Failure> {
    let local = extensions
        .get::<Peer>()
        .is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    match context.config.metrics {
        MetricsAccess::Off => Err(Failure::new(
            Kind::NotFound,
            "Metrics are switched off (`metrics.access` in the configuration)",
        )),
        MetricsAccess::Loopback if local => Ok(()),
        MetricsAccess::Loopback | MetricsAccess::Key => {
            let caller = crate::extract::caller(extensions)?;
            context.control.may_read_metrics(&caller)
        }
    }
}
