//! What each method leads to: an answer of our own, a list from the catalog, a stream, or a call.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::mpsc;
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{error::METHOD_NOT_FOUND, level::Level, method::Method, response, revision::Era};

use crate::{
    authorize,
    edge::{self, Client, Exchange},
    lists,
    meta::{self, MetaTool},
    pipeline::{Carrier, Context},
    relay,
    respond::{self, Body, Response},
    route::Scope,
    session::Session,
    subscribe,
    unhurried::Unhurried,
};

/// A legacy client that has heard nothing for so long gets a stream instead of one answer: something to
/// come back to when its connection does not last.
const SILENCE: Duration = Duration::from_secs(5);

/// Answers one request.
pub(crate) async fn dispatch(context: Context, mut exchange: Exchange) -> Response {
    let era = exchange.client.era();
    match MetaTool::of(&context, &exchange.request) {
        None => {}
        Some(MetaTool::Call) => match meta::turn(&context, &exchange.request) {
            Ok(turned) => exchange.request = turned,
            Err(failure) => return respond::failure(exchange.request.id(), &failure, era),
        },
        Some(tool) => {
            let answered = meta::tell(&context, &exchange, tool);
            return answered
                .unwrap_or_else(|failure| respond::failure(exchange.request.id(), &failure, era));
        }
    }
    let answered = match exchange.request.method() {
        // Whether there is such a thing is not for who may see and call nothing.
        method
            if is_for_service(method, &context.scope, era)
                && authorize::can_nothing(&context.principal) =>
        {
            authorize::may_call(&context.principal).map(|()| unknown_method(&exchange))
        }
        method if is_for_service(method, &context.scope, era) => {
            return match &exchange.client {
                Client::Modern => relay::call(context, exchange).await,
                Client::Legacy(session) => {
                    let session = Arc::clone(session);
                    legacy_call(session, context, exchange).await
                }
            };
        }
        Method::Ping => Ok(own_result(&exchange, b"{}")),
        Method::Discover => lists::discover(&context, &exchange),
        Method::ToolsList | Method::PromptsList | Method::ResourcesList | Method::TemplatesList => {
            lists::page(&context, &exchange)
        }
        Method::SetLevel => set_level(&context, &exchange),
        Method::Subscribe => watch_resource(&context, &exchange, true).await,
        Method::Unsubscribe => watch_resource(&context, &exchange, false).await,
        Method::Listen => subscribe::listen(&context, &exchange),
        _ => return unknown_method(&exchange),
    };
    answered.unwrap_or_else(|failure| {
        let what = exchange.request.method().as_str();
        let mut answer = respond::failure(exchange.request.id(), &failure, era);
        context.note_denied(what, &failure, &mut answer);
        answer
    })
}

/// A call of a legacy client: it goes on when its client disconnects, and what was posted by itself and
/// is answered by a stream can be taken up again.
async fn legacy_call(session: Arc<Session>, context: Context, exchange: Exchange) -> Response {
    let shared = Arc::clone(&context.shared);
    let is_resumable = context.carrier == Carrier::Post && edge::accepts_stream(&context.head);
    let request = Bytes::copy_from_slice(exchange.request.id());
    let call = relay::call(context, exchange);
    let mut call = Unhurried::new(call, &shared.tasks);
    if !is_resumable {
        return call.await;
    }
    let events = tokio::select! {
        response = &mut call => match response.into_parts() {
            (_, Body::Stream(events)) => events,
            (head, body) => return Response::from_parts(head, body),
        },
        () = tokio::time::sleep(SILENCE) => {
            let (sender, events) = mpsc::channel(1);
            let late = async move { edge::put(call.await, b"", &sender).await };
            shared.tasks.spawn(late);
            events
        }
    };
    let replays = &session.replays;
    let (stream, response) = replays.open(&request, session.revision, &shared.replayed);
    shared.tasks.spawn(stream.carry(events));
    response
}

/// What only the service can answer. What we have no name for belongs to an extension, which a service
/// that stands alone may speak.
const fn is_for_service(method: Method, scope: &Scope, era: Era) -> bool {
    match method {
        method if method.is_about_task() => matches!(era, Era::Modern),
        Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead | Method::Complete => true,
        Method::Other => !scope.is_federated(),
        _ => false,
    }
}

fn own_result(exchange: &Exchange, result: &'static [u8]) -> Response {
    respond::shared_result(exchange.request.id(), Bytes::from_static(result))
}

async fn watch_resource(
    context: &Context,
    exchange: &Exchange,
    wanted: bool,
) -> Result<Response, Failure> {
    let Client::Legacy(session) = &exchange.client else {
        return Ok(unknown_method(exchange));
    };
    let uri = exchange
        .request
        .key()
        .ok_or_else(|| Failure::new(Kind::Invalid, "`params.uri` is missing or not a string"))?;
    subscribe::watch_resource(context, session, &uri, wanted).await?;
    Ok(own_result(exchange, b"{}"))
}

fn set_level(context: &Context, exchange: &Exchange) -> Result<Response, Failure> {
    #[derive(Deserialize)]
    struct Params {
        level: String,
    }
    let Client::Legacy(session) = &exchange.client else {
        return Ok(unknown_method(exchange));
    };
    let params: Option<Params> = exchange.request.read_params();
    let level = params.as_ref().and_then(|params| Level::of(&params.level));
    let level = level.ok_or_else(|| {
        Failure::new(
            Kind::Invalid,
            "`params.level` must be debug, info, notice, warning, error, critical, alert or \
             emergency",
        )
    })?;
    session.set_level(level);
    context.shared.sessions.remember(session);
    Ok(own_result(exchange, b"{}"))
}

pub(crate) fn unknown_method(exchange: &Exchange) -> Response {
    let name: String = exchange.request.method_name().chars().take(120).collect();
    let detail = format!("Method not found: {name}");
    let body = response::error(exchange.request.id(), METHOD_NOT_FOUND, &detail, None);
    let status = match exchange.client.era() {
        Era::Legacy => StatusCode::OK,
        Era::Modern => StatusCode::NOT_FOUND,
    };
    respond::json(status, Body::full(body))
}
