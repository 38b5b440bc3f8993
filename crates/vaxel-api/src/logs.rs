//! What services say beside their protocol: the last lines, or a stream of them.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json as Answer,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use vaxel_control::{LogLine, LogStream};
use vaxel_core::{fields::Fields, time::Timestamp};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, Path, Query},
    problem::Refusal,
};

/// Comments between events, so that connections are not taken for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One line.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct LogLineView {
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Which replica of the service.
    replica: u16,
    /// `stderr`; `garbage`: text on standard output that is no protocol; `vaxel`: starts and ends.
    #[schema(value_type = String, example = "stderr")]
    stream: LogStream,
    /// The text, cut at the configured length.
    text: String,
}

impl From<LogLine> for LogLineView {
    fn from(
        LogLine {
            at,
            replica,
            stream,
            text,
        }: LogLine,
    ) -> Self {
        Self {
            at,
            replica,
            stream,
            text,
        }
    }
}

/// The last lines.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct LogsView {
    /// Oldest first.
    items: Vec<LogLineView>,
}

/// Which lines.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct LogsQuery {
    /// How many of the last lines, 0 to 10000.
    #[param(minimum = 0, maximum = 10000, default = 200)]
    tail: Option<u32>,
    /// `true`: a `text/event-stream` that goes on with every new line. Each event's data is one line;
    /// an event `lost` with `{"count": n}` says that the reader was too slow for n lines.
    follow: Option<bool>,
}

/// [`LogsQuery`], read.
pub(crate) struct Wanted {
    tail: usize,
    follow: bool,
}

impl FromQuery for Wanted {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let tail: Option<usize> = fields.parsed("tail");
        if tail.is_some_and(|tail| tail > 10_000) {
            fields.issue("tail", "must be at most 10000");
        }
        Self {
            tail: tail.unwrap_or(200),
            follow: fields.parsed("follow").unwrap_or(false),
        }
    }
}

/// Read a service's log
#[utoipa::path(
    get, path = "/api/v1/services/{service}/logs", operation_id = "get_service_logs",
    tag = "services",
    params(("service" = String, Path, description = "Id or name"), LogsQuery),
    responses((status = 200, description = "The lines", content(
        (LogsView = "application/json"),
        (LogLineView = "text/event-stream"),
    ))),
)]
pub(crate) async fn read(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    Query(Wanted { tail, follow }): Query<Wanted>,
) -> Result<Response, Refusal> {
    let logs = context.control.logs(&caller, &service.parse()?).await?;
    if follow {
        let (before, from_now) = logs.tail_and_follow(tail);
        let alive = KeepAlive::new().interval(KEEP_ALIVE);
        return Ok(Sse::new(events(before, from_now))
            .keep_alive(alive)
            .into_response());
    }
    let items = logs.tail(tail).into_iter().map(Into::into).collect();
    Ok(Answer(LogsView { items }).into_response())
}

/// The lines so far and all that come. What a slow reader misses is counted, never kept.
fn events(
    before: Vec<LogLine>,
    from_now: Receiver<LogLine>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let later = stream::unfold(from_now, |mut lines| async {
        match lines.recv().await {
            Ok(line) => Some((event(line), lines)),
            Err(RecvError::Lagged(count)) => {
                let lost = Event::default()
                    .event("lost")
                    .data(json!({ "count": count }).to_string());
                Some((lost, lines))
            }
            Err(RecvError::Closed) => None,
        }
    });
    stream::iter(before.into_iter().map(event))
        .chain(later)
        .map(Ok)
}

fn event(line: LogLine) -> Event {
    let text = serde_json::to_string(&LogLineView::from(line));
    Event::default().data(text.expect("a line has only text and numbers"))
}
