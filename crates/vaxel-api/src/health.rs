//! The health of a service: what is seen, what was checked, how it was.

use axum::{Json as Answer, extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use vaxel_control::{Change, Checked, HealthHistory, HealthReport, ServiceRef};
use vaxel_core::{
    fields::Fields,
    health::{
        availability::Day,
        check::{CheckResult, Kind, Verdict},
        tally,
    },
    lifecycle::Lifecycle,
    quantity::Span,
    status::{Health, ServiceStatus},
    time::Timestamp,
};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, On, Path, Query},
    problem::Refusal,
    services::{ServiceView, tagged},
};

/// How a service is.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct HealthView {
    /// What was done.
    lifecycle: Lifecycle,
    /// What is seen.
    health: Health,
    /// Why it is not active or healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Whether it takes calls now.
    ready: bool,
    /// Everything that is seen.
    status: ServiceStatus,
    /// The last result of each kind of check, of each instance and of what is around the service.
    checks: Vec<CheckView>,
    /// How it was.
    history: HistoryView,
    /// How much of each of the last thirty days it worked, the last day first. Days in UTC.
    availability: Vec<DayView>,
}

/// The result of a check.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CheckView {
    /// What was checked.
    kind: Kind,
    /// What it came to.
    verdict: Verdict,
    /// Whether that counts as up or down, by the thresholds of the service; absent for past results.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<CheckState>,
    /// Why.
    message: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How long it took, milliseconds.
    duration_ms: u64,
    /// Which instance; absent for what is around the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<u16>,
}

/// What is believed of something that is checked.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum CheckState {
    /// It works.
    Up,
    /// It does not.
    Down,
}

/// How a service was.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct HistoryView {
    /// Changes of its health, newest first; 100 at most.
    transitions: Vec<TransitionView>,
    /// Results that failed or differed from the one before, since the start, newest first; 32 of each
    /// instance at most.
    results: Vec<CheckView>,
}

/// A change of health.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TransitionView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// What it became.
    health: Health,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// One day.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DayView {
    /// Its beginning.
    #[schema(value_type = String, format = DateTime)]
    day: Timestamp,
    /// The share of the time that counts in which it worked; absent when none counts: it was stopped, or
    /// Vaxel was.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    /// How long it worked, seconds.
    up_seconds: u64,
    /// How long it did not, seconds.
    down_seconds: u64,
}

impl From<Checked> for CheckView {
    fn from(checked: Checked) -> Self {
        let Checked {
            replica,
            result,
            state,
        } = checked;
        let CheckResult {
            kind,
            verdict,
            message,
            at,
            duration,
        } = result;
        Self {
            kind,
            verdict,
            state: match state {
                tally::State::Unknown => None,
                tally::State::Up => Some(CheckState::Up),
                tally::State::Down => Some(CheckState::Down),
            },
            message: message.into_owned(),
            at,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            replica,
        }
    }
}

impl From<Day> for DayView {
    fn from(day: Day) -> Self {
        let percent = day.percent();
        let Day { start, up, down } = day;
        Self {
            day: start,
            percent,
            up_seconds: up.as_secs(),
            down_seconds: down.as_secs(),
        }
    }
}

impl HealthView {
    fn of(report: HealthReport, history: HealthHistory) -> Self {
        let HealthReport {
            ready,
            status,
            checks,
            results,
        } = report;
        let HealthHistory { changes, days } = history;
        let transition = |(at, health, reason)| TransitionView { at, health, reason };
        let (lifecycle, health) = (status.lifecycle, status.health);
        Self {
            lifecycle,
            health,
            reason: status.reason.clone(),
            ready,
            status,
            checks: checks.into_iter().map(Into::into).collect(),
            history: HistoryView {
                transitions: changes.into_iter().map(transition).collect(),
                results: results.into_iter().map(Into::into).collect(),
            },
            availability: days.into_iter().map(Into::into).collect(),
        }
    }
}

/// How long to wait.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct HealthQuery {
    /// Waits so long for the service to be active or in error; at most `5m`.
    #[param(example = "30s")]
    wait: Option<String>,
}

/// [`HealthQuery`], read.
pub(crate) struct Waiting(Option<Span>);

impl FromQuery for Waiting {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self(fields.parsed("wait"))
    }
}

/// Get a service's health
///
/// With `wait`, answers as soon as the service is active or in error, and at the latest after that
/// time.
#[utoipa::path(
    get, path = "/api/v1/services/{service}/health", operation_id = "get_service_health",
    tag = "services",
    params(("service" = String, Path, description = "Id or name"), HealthQuery),
    responses((status = 200, description = "How it is", body = HealthView)),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    Query(Waiting(wait)): Query<Waiting>,
) -> Result<Answer<HealthView>, Refusal> {
    let service: ServiceRef = service.parse()?;
    let control = &context.control;
    let wait = wait.map(|span| span.0);
    let report = control.health(&caller, &service, wait).await?;
    let history = control.health_history(&caller, &service).await?;
    Ok(Answer(HealthView::of(report, history)))
}

/// Check a service now
///
/// Everything that is checked of it, at once; answers with the results.
#[utoipa::path(
    post, path = "/api/v1/services/{service}/health/check", operation_id = "check_service_health",
    tag = "services", params(("service" = String, Path, description = "Id or name")),
    responses(
        (status = 200, description = "How it is", body = HealthView),
        (status = 409, description = "The service is stopped", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn check(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
) -> Result<Answer<HealthView>, Refusal> {
    let service: ServiceRef = service.parse()?;
    let control = &context.control;
    let report = control.check_health(&caller, &service).await?;
    let history = control.health_history(&caller, &service).await?;
    Ok(Answer(HealthView::of(report, history)))
}

/// Accept a service's definitions
///
/// Its tools and prompts are accepted as they are now; later changes show as a warning of its security
/// check.
#[utoipa::path(
    post, path = "/api/v1/services/{service}/health/accept",
    operation_id = "accept_service_definitions", tag = "services",
    params(("service" = String, Path, description = "Id or name"), On),
    responses(
        (status = 200, description = "Accepted", body = ServiceView, headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 409, description = "The service was never reached", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn accept(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    On(terms): On,
) -> Result<Response, Refusal> {
    let change = Change::AcceptDefinitions(service.parse()?);
    let outcome = context.control.on(terms).submit(&caller, change).await?;
    Ok(tagged(StatusCode::OK, outcome.into_service()?))
}
