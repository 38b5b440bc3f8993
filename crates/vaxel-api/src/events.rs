//! The feed of changes: as pages, or as a stream that goes on.

use std::convert::Infallible;

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::{json, value::RawValue};
use vaxel_control::{FeedEvent, FeedItem, FeedPage, FeedQuery, FeedReader, Page};
use vaxel_core::{
    failure::{Failure, Issue},
    fields::Fields,
    time::Timestamp,
};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, Query},
    problem::Refusal,
};

/// One change.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct EventView {
    /// In the order in which changes were made, without holes.
    #[schema(example = 42)]
    number: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// What: `service.create`, `service.update`, `service.lifecycle`, `service.health`, …
    #[schema(example = "service.update")]
    r#type: String,
    /// What kind of thing it happened to.
    #[schema(example = "service")]
    kind: String,
    /// Its id.
    id: String,
    /// Its name at that time.
    #[schema(example = "files")]
    name: String,
    /// Name of the user who did it; `vaxel` for what happened by itself.
    by: String,
    /// Why, when that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// More about it: the new version, what differs, the states that were passed.
    #[schema(value_type = serde_json::Value)]
    detail: Box<RawValue>,
}

impl From<&FeedEvent> for EventView {
    fn from(event: &FeedEvent) -> Self {
        let FeedEvent {
            number,
            at,
            action,
            kind,
            id,
            name,
            actor,
            message,
            detail,
        } = event.clone();
        Self {
            number,
            at,
            r#type: action,
            kind,
            id,
            name,
            by: actor,
            message,
            detail,
        }
    }
}

/// One page of changes.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct EventListView {
    /// Oldest first.
    items: Vec<EventView>,
    /// Send it as `after` to read on.
    next_after: u64,
    /// Number of the newest change there is.
    newest: u64,
    /// The changes after the number that was asked for are not kept any more: read what you need anew,
    /// and go on after `next_after`.
    reset: bool,
}

impl From<FeedPage> for EventListView {
    fn from(page: FeedPage) -> Self {
        let FeedPage {
            items,
            next_after,
            newest,
            reset,
        } = page;
        Self {
            items: items
                .iter()
                .map(|event| EventView::from(&**event))
                .collect(),
            next_after,
            newest,
            reset,
        }
    }
}

/// Which changes.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct EventsQuery {
    /// Those after this number. Without it a stream begins now, and a page has the newest ones. The
    /// header `Last-Event-ID` says the same, and wins.
    after: Option<u64>,
    /// Only those of these types, separated by commas; `*` stands for any run of characters.
    #[param(example = "service.*,key.create")]
    types: Option<String>,
    /// Longest page, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
}

/// [`EventsQuery`], read.
pub(crate) struct Wanted(FeedQuery, u32);

impl FromQuery for Wanted {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let after = fields.parsed("after");
        let types = fields.string("types").unwrap_or_default();
        let types = types
            .split(',')
            .map(str::trim)
            .filter(|one| !one.is_empty());
        let types = types.map(str::to_owned).collect();
        let limit: Option<u32> = fields.parsed("limit");
        if limit.is_some_and(|limit| !(1..=Page::LIMIT_MAX).contains(&limit)) {
            fields.issue(
                "limit",
                format!("must be between 1 and {}", Page::LIMIT_MAX),
            );
        }
        Self(FeedQuery { after, types }, limit.unwrap_or(Page::LIMIT))
    }
}

/// Follow the changes
///
/// With `Accept: text/event-stream` a stream that goes on with every change as it happens; otherwise a
/// page. The `id` of an event is the number of the change, its `event` the type: a client that comes
/// back with `Last-Event-ID` (as browsers do) or `after` misses nothing. An event `reset` (with
/// `{"newest": n}`) says that the changes since are not kept any more: read what you need anew. An event
/// `end` (with `{"reason": …, "after": n}`) is the last one. What the key may not see is left out.
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "list_events", tag = "events",
    params(EventsQuery, (
        "Last-Event-ID" = Option<u64>, Header, description = "The number of the last change that was read"
    )),
    responses((status = 200, description = "The changes", content(
        (EventListView = "application/json"),
        (EventView = "text/event-stream"),
    ))),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
    headers: HeaderMap,
    Query(Wanted(mut query, limit)): Query<Wanted>,
) -> Result<Response, Refusal> {
    query.after = last_event_id(&headers)?.or(query.after);
    if !wants_stream(&headers) {
        let page = context.control.changes(&caller, &query, limit).await?;
        return Ok(Answer(EventListView::from(page)).into_response());
    }
    let (reader, first) = context.control.follow(&caller, query).await?;
    Ok(Sse::new(events(reader, first)).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream"))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let number = number.ok_or_else(|| {
        let issue = Issue::new("Last-Event-ID", "must be the id of an event of this feed");
        Failure::invalid("The request", vec![issue])
    })?;
    Ok(Some(number))
}

/// Nothing is read ahead: the reader is asked when the client has taken what came before.
fn events(
    reader: FeedReader,
    first: Option<FeedItem>,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    // So that a client whose connection breaks before the first change has a number to come back with.
    let begin = Event::default()
        .id(reader.after().to_string())
        .comment("changes follow");
    let begin = stream::iter([begin].into_iter().chain(first.map(event)));
    let later = stream::unfold(reader, |mut reader| async {
        let items = reader.next().await?;
        Some((stream::iter(items.into_iter().map(event)), reader))
    });
    begin.chain(later.flatten()).map(Ok)
}

fn event(item: FeedItem) -> Event {
    match item {
        FeedItem::Change(change) => {
            let text = serde_json::to_string(&EventView::from(&*change));
            Event::default()
                .id(change.number.to_string())
                .event(change.action.clone())
                .data(text.expect("a change has only text and numbers"))
        }
        FeedItem::Reset(newest) => Event::default()
            .id(newest.to_string())
            .event("reset")
            .data(json!({ "newest": newest }).to_string()),
        FeedItem::Alive(number) => Event::default().id(number.to_string()).comment("alive"),
        FeedItem::End(reason, after) => Event::default()
            .event("end")
            .data(json!({ "reason": reason, "after": after }).to_string()),
    }
}
