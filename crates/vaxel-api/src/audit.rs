//! The audit: who did what.

use std::io;

use axum::{
    Json as Answer,
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use serde::Serialize;
use vaxel_control::{AuditExport, AuditQuery, AuditVerdict, List, Page};
use vaxel_core::{
    audit::{Entry, chain::Flaw},
    fields::Fields,
    time::Timestamp,
};

use crate::{
    calls::time,
    context::Context,
    extract::{Caller, FromQuery, Path, Query, page},
    problem::Refusal,
};

/// One page of the audit.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AuditListView {
    /// Newest first.
    items: Vec<Entry>,
    /// Send it as `cursor` to read on; absent on the last page. There may be one although `items` is short or
    /// empty: the search goes on there.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What verifying came to.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AuditVerdictView {
    /// Whether nothing was found that does not fit.
    holds: bool,
    /// Lines whose hash was looked at.
    lines: u64,
    /// Of these, those whose seal could be looked at, too.
    sealed: u64,
    /// Number of the last one.
    to: u64,
    /// Number of the newest line.
    newest: u64,
    /// The first line that does not fit; nothing behind it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    flaw: Option<Flaw>,
    /// Send it as `after` to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// What cannot be known, and what else is to be said, one sentence each.
    notes: Vec<String>,
}

impl From<AuditVerdict> for AuditVerdictView {
    fn from(verdict: AuditVerdict) -> Self {
        let AuditVerdict {
            lines,
            sealed,
            to,
            newest,
            flaw,
            next,
            notes,
        } = verdict;
        Self {
            holds: flaw.is_none(),
            lines,
            sealed,
            to,
            newest,
            flaw,
            next,
            notes,
        }
    }
}

/// Which lines.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct AuditListQuery {
    /// Only those by this user, by name.
    actor: Option<String>,
    /// Only those with this action; `*` stands for any run of characters.
    action: Option<String>,
    /// Only those about something of this kind, such as `service`.
    kind: Option<String>,
    /// Only those about what has this id or name.
    resource: Option<String>,
    /// Only those with an outcome that begins so: `done`, `refused`, `failed`.
    outcome: Option<String>,
    /// Only those of this time (RFC 3339) or later.
    since: Option<String>,
    /// Only those before this time (RFC 3339).
    until: Option<String>,
    /// Only those with this text in any field.
    text: Option<String>,
    /// Longest page, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// [`AuditListQuery`], read.
pub(crate) struct Listing(AuditQuery, Page);

impl FromQuery for Listing {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let query = AuditQuery {
            actor: fields.string("actor"),
            action: fields.string("action"),
            kind: fields.string("kind"),
            resource: fields.string("resource"),
            outcome: fields.string("outcome"),
            since: time(fields, "since"),
            until: time(fields, "until"),
            text: fields.string("text"),
        };
        Self(query, page(fields))
    }
}

/// Of which time.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct AuditExportQuery {
    /// From the first line of this time (RFC 3339) or later; without it from the beginning.
    since: Option<String>,
    /// To the last line before this time (RFC 3339); without it to the end.
    until: Option<String>,
}

/// [`AuditExportQuery`], read.
pub(crate) struct Times(Option<Timestamp>, Option<Timestamp>);

impl FromQuery for Times {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self(time(fields, "since"), time(fields, "until"))
    }
}

/// Where to begin.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct AuditVerifyQuery {
    /// Behind this line: `next` of the answer before; 0 is the beginning.
    #[param(default = 0)]
    after: Option<u64>,
}

/// [`AuditVerifyQuery`], read.
pub(crate) struct After(u64);

impl FromQuery for After {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self(fields.parsed("after").unwrap_or(0))
    }
}

/// Search the audit
///
/// Every change, and every act that matters for security, newest first, a page at a time.
#[utoipa::path(
    get, path = "/api/v1/audit", operation_id = "list_audit", tag = "audit",
    params(AuditListQuery),
    responses((status = 200, description = "One page", body = AuditListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(Listing(query, page)): Query<Listing>,
) -> Result<Answer<AuditListView>, Refusal> {
    let List { items, next_cursor } = context.control.audit_lines(&caller, &query, &page).await?;
    Ok(Answer(AuditListView { items, next_cursor }))
}

/// Get a line of the audit
#[utoipa::path(
    get, path = "/api/v1/audit/{number}", operation_id = "get_audit_line", tag = "audit",
    params(("number" = u64, Path, description = "Number")),
    responses((status = 200, description = "The line", body = Entry)),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(number): Path<String>,
) -> Result<Answer<Entry>, Refusal> {
    // No line has the number 0.
    let number = number.parse().unwrap_or(0);
    Ok(Answer(context.control.audit_line(&caller, number).await?))
}

/// Export the audit
///
/// A line of JSON each, with hashes and seals, for `vaxel audit verify FILE`. The export is audited itself.
#[utoipa::path(
    get, path = "/api/v1/audit/export", operation_id = "export_audit", tag = "audit",
    params(AuditExportQuery),
    responses((
        status = 200, description = "The lines, oldest first", body = String,
        content_type = "application/x-ndjson",
    )),
)]
pub(crate) async fn export(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(Times(since, until)): Query<Times>,
) -> Result<Response, Refusal> {
    let export = context
        .control
        .export_audit(&caller, (since, until))
        .await?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(pieces(export))).into_response())
}

/// The lines, piece by piece, as fast as they are taken. One that cannot be read ends the answer before its
/// end, which is missing then.
fn pieces(export: AuditExport) -> impl Stream<Item = io::Result<String>> + Send + 'static {
    stream::try_unfold(export, |mut export| async move {
        let piece = export.next().await.map_err(io::Error::other)?;
        Ok(piece.map(|piece| (piece, export)))
    })
}

/// Verify the audit
///
/// Goes along the chain of hashes and seals, as many lines as one request may: repeat it with `next`.
#[utoipa::path(
    post, path = "/api/v1/audit/verify", operation_id = "verify_audit", tag = "audit",
    params(AuditVerifyQuery),
    responses(
        (status = 200, description = "What was found", body = AuditVerdictView),
        (status = 429, description = "It is being verified already", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn verify(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(After(after)): Query<After>,
) -> Result<Answer<AuditVerdictView>, Refusal> {
    let verdict = context.control.verify_audit(&caller, after).await?;
    Ok(Answer(verdict.into()))
}
