//! Records of calls: who called what, when, and how it ended.

use std::time::Duration;

use axum::{Json as Answer, extract::State};
use serde::Serialize;
use serde_json::value::RawValue;
use vaxel_control::{CallFilter, CallRow, List, Page, ServiceRef};
use vaxel_core::{
    call::Outcome,
    fields::Fields,
    id::{Call, Id, Key, Service},
    time::Timestamp,
};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, Path, Query, page},
    problem::Refusal,
};

/// One call.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CallView {
    /// Sorts by arrival.
    #[schema(value_type = String, format = "uuid")]
    id: Id<Call>,
    /// Arrival.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Until the end of the answer.
    duration_ms: f64,
    /// Name of the service at that time.
    service: String,
    /// Id of the service.
    #[schema(value_type = String, format = "uuid")]
    service_id: Id<Service>,
    /// MCP method.
    #[schema(example = "tools/call")]
    method: String,
    /// Name of the tool or prompt, URI of the resource.
    target: String,
    /// Who called: the user's name.
    principal: String,
    /// The key that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    key: Option<Id<Key>>,
    /// How it ended.
    #[schema(example = "ok")]
    outcome: String,
    /// Why it did not end well.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Size of the request.
    request_bytes: u64,
    /// Size of the answer.
    response_bytes: u64,
    /// MCP revision of the client; empty at the REST door.
    client_revision: String,
    /// MCP revision of the service; empty when it was not reached.
    upstream_revision: String,
    /// `mcp` or `rest`.
    door: String,
    /// W3C trace id.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    /// The parameters, when the configuration keeps them; a string when they were cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    request: Option<Box<RawValue>>,
    /// The result, when the configuration keeps it; a string when it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    response: Option<Box<RawValue>>,
}

impl From<CallRow> for CallView {
    fn from(row: CallRow) -> Self {
        let CallRow {
            seq: _,
            id,
            at,
            duration_us,
            service: service_id,
            service_name: service,
            method,
            target,
            principal: key,
            principal_name: principal,
            outcome,
            error,
            request_bytes,
            response_bytes,
            client_revision,
            upstream_revision,
            door,
            trace_id,
            request,
            response,
        } = row;
        Self {
            id,
            at,
            duration_ms: Duration::from_micros(duration_us).as_secs_f64() * 1_000.0,
            service,
            service_id,
            method,
            target,
            principal,
            key,
            outcome,
            error,
            request_bytes,
            response_bytes,
            client_revision,
            upstream_revision,
            door,
            trace_id,
            request: request.as_deref().map(kept),
            response: response.as_deref().map(kept),
        }
    }
}

/// What a record kept: the JSON itself, or, when it was cut at the cap, its beginning as a string.
pub(crate) fn kept(bytes: &[u8]) -> Box<RawValue> {
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(bytes);
        serde_json::value::to_raw_value(&text).expect("a string is JSON")
    })
}

/// One page of calls.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CallListView {
    /// Newest first.
    items: Vec<CallView>,
    /// Send it as `cursor` to read on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl From<List<CallRow>> for CallListView {
    fn from(List { items, next_cursor }: List<CallRow>) -> Self {
        Self {
            items: items.into_iter().map(Into::into).collect(),
            next_cursor,
        }
    }
}

/// Which calls.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct CallQuery {
    /// Only those of this tool, prompt or resource, by the service's own name.
    tool: Option<String>,
    /// Only those that ended so: `ok`, `tool_error`, `error`, `timeout`, `cancelled`, `denied` or
    /// `unavailable`.
    outcome: Option<String>,
    /// Only those of this user, by name.
    principal: Option<String>,
    /// Only those that arrived at this time (RFC 3339) or later.
    since: Option<String>,
    /// Only those that arrived before this time (RFC 3339).
    until: Option<String>,
    /// Longest page, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which service's calls.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct CallServiceQuery {
    /// Only those of this service (id or name).
    service: Option<String>,
}

/// [`CallQuery`], read.
pub(crate) struct Listing(CallFilter, Page);

/// [`CallQuery`] and [`CallServiceQuery`], read.
pub(crate) struct FullListing(Listing, Option<ServiceRef>);

impl FromQuery for Listing {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let filter = CallFilter {
            target: fields.string("tool"),
            outcome: outcome(fields),
            principal: fields.string("principal"),
            since: time(fields, "since"),
            until: time(fields, "until"),
        };
        Self(filter, page(fields))
    }
}

impl FromQuery for FullListing {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let service = fields.parsed("service");
        Self(Listing::from_query(fields), service)
    }
}

fn outcome(fields: &mut Fields<'_>) -> Option<Outcome> {
    let text = fields.string("outcome")?;
    let found = Outcome::ALL.into_iter().find(|one| one.as_str() == text);
    if found.is_none() {
        let known = Outcome::ALL.map(Outcome::as_str).join(", ");
        fields.issue("outcome", format!("`{text}` is no outcome: one of {known}"));
    }
    found
}

pub(crate) fn time(fields: &mut Fields<'_>, key: &'static str) -> Option<Timestamp> {
    let text = fields.string(key)?;
    let read = serde_json::from_value(serde_json::Value::String(text.clone()));
    if read.is_err() {
        fields.issue(
            key,
            format!("`{text}` is no time: write 2026-11-30T12:00:00Z"),
        );
    }
    read.ok()
}

/// List calls
///
/// Newest first, a page at a time. What records keep, and how long, is configured.
#[utoipa::path(
    get, path = "/api/v1/calls", operation_id = "list_calls", tag = "calls",
    params(CallServiceQuery, CallQuery),
    responses((status = 200, description = "One page", body = CallListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(FullListing(Listing(filter, page), service)): Query<FullListing>,
) -> Result<Answer<CallListView>, Refusal> {
    let list = context
        .control
        .calls(&caller, service.as_ref(), (&filter, &page))
        .await?;
    Ok(Answer(list.into()))
}

/// List a service's calls
#[utoipa::path(
    get, path = "/api/v1/services/{service}/calls", operation_id = "list_service_calls",
    tag = "calls", params(("service" = String, Path, description = "Id or name"), CallQuery),
    responses((status = 200, description = "One page", body = CallListView)),
)]
pub(crate) async fn of_service(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    Query(Listing(filter, page)): Query<Listing>,
) -> Result<Answer<CallListView>, Refusal> {
    let service = service.parse()?;
    let list = context
        .control
        .calls(&caller, Some(&service), (&filter, &page))
        .await?;
    Ok(Answer(list.into()))
}
