//! Usage: how much services and tools are called, by whom, and how long it takes.

use axum::{Json as Answer, extract::State};
use serde::Serialize;
use vaxel_control::{Grain, Usage, UsageQuery, UsageSum};
use vaxel_core::{fields::Fields, time::Timestamp};

use crate::{
    calls::time,
    context::Context,
    extract::{Caller, FromQuery, Path, Query},
    problem::Refusal,
};

/// What is known of some calls.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct UsageSumView {
    /// How many.
    calls: u64,
    /// Those that did not end well.
    errors: u64,
    /// How many different keys called.
    callers: u64,
    /// Mean duration in milliseconds.
    average_ms: f64,
    /// Half of the calls took no longer; milliseconds, to one part in sixteen, as the following.
    p50_ms: f64,
    /// 95 of a hundred calls took no longer.
    p95_ms: f64,
    /// 99 of a hundred calls took no longer.
    p99_ms: f64,
}

impl From<UsageSum> for UsageSumView {
    fn from(sum: UsageSum) -> Self {
        let UsageSum {
            calls,
            errors,
            total_us,
            times,
            callers,
        } = sum;
        let share = |share| millis(times.per_mille(share).unwrap_or(0));
        Self {
            calls,
            errors,
            callers,
            average_ms: millis(total_us / calls.max(1)),
            p50_ms: share(500),
            p95_ms: share(950),
            p99_ms: share(990),
        }
    }
}

fn millis(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64() * 1_000.0
}

/// One hour or day.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct UsagePointView {
    /// Its begin, in UTC.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[serde(flatten)]
    sum: UsageSumView,
}

/// One tool or service.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct UsagePartView {
    /// The service's own name of the tool; the name of the service, or its id when it is gone.
    #[schema(example = "echo")]
    name: String,
    #[serde(flatten)]
    sum: UsageSumView,
}

/// Usage over a time.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct UsageView {
    /// Begin of the first hour or day.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// End of the last one.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// `hour` or `day`.
    #[schema(example = "hour")]
    by: &'static str,
    /// All of it.
    total: UsageSumView,
    /// Hour by hour, or day by day; those without a call are left out.
    series: Vec<UsagePointView>,
    /// By tool, of one service; the most called first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<UsagePartView>,
    /// By service, of all; the most called first, at most 500.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<UsagePartView>,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        let Usage {
            from,
            to,
            grain,
            total,
            series,
            tools,
            services,
        } = usage;
        let part = |(name, sum): (String, UsageSum)| UsagePartView {
            name,
            sum: sum.into(),
        };
        let point = |(at, sum): (Timestamp, UsageSum)| UsagePointView {
            at,
            sum: sum.into(),
        };
        Self {
            from,
            to,
            by: match grain {
                Grain::Hour => "hour",
                Grain::Day => "day",
            },
            total: total.into(),
            series: series.into_iter().map(point).collect(),
            tools: tools.into_iter().map(part).collect(),
            services: services.into_iter().map(part).collect(),
        }
    }
}

/// Of which time, and how it is divided.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct UsageTimeQuery {
    /// From the hour or day that this time (RFC 3339) is in; default a day ago, by days 30 days ago.
    from: Option<String>,
    /// To the hour or day that this time is in, included; default now.
    to: Option<String>,
    /// `hour` (default) or `day`, which is one of UTC.
    by: Option<String>,
}

/// [`UsageTimeQuery`], read.
pub(crate) struct Wanted(UsageQuery);

impl FromQuery for Wanted {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let by = fields.string("by");
        let grain = match by.as_deref() {
            None | Some("hour") => Grain::Hour,
            Some("day") => Grain::Day,
            Some(other) => {
                fields.issue("by", format!("`{other}` is neither hour nor day"));
                Grain::Hour
            }
        };
        Self(UsageQuery {
            from: time(fields, "from"),
            to: time(fields, "to"),
            grain,
        })
    }
}

/// Get the usage of all services
///
/// Sums are there within a second of a call. Hours and days are kept as long as is configured.
#[utoipa::path(
    get, path = "/api/v1/usage", operation_id = "get_usage", tag = "calls", params(UsageTimeQuery),
    responses((status = 200, description = "The usage", body = UsageView)),
)]
pub(crate) async fn of_all(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(Wanted(query)): Query<Wanted>,
) -> Result<Answer<UsageView>, Refusal> {
    let usage = context.control.usage(&caller, None, query).await?;
    Ok(Answer(usage.into()))
}

/// Get the usage of a service and its tools
#[utoipa::path(
    get, path = "/api/v1/services/{service}/usage", operation_id = "get_service_usage", tag = "calls",
    params(("service" = String, Path, description = "Id or name"), UsageTimeQuery),
    responses((status = 200, description = "The usage", body = UsageView)),
)]
pub(crate) async fn of_service(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    Query(Wanted(query)): Query<Wanted>,
) -> Result<Answer<UsageView>, Refusal> {
    let service = service.parse()?;
    let usage = context
        .control
        .usage(&caller, Some(&service), query)
        .await?;
    Ok(Answer(usage.into()))
}
