//! What each method leads to: an answer of our own, a list from the catalog, a stream, or a call.

use http::StatusCode;
use serde::Deserialize;
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{error::METHOD_NOT_FOUND, level::Level, method::Method, response, revision::Era};

use crate::{
    edge::{Client, Exchange},
    lists,
    pipeline::Context,
    relay,
    respond::{self, Body, Response},
    route::Scope,
    subscribe,
    unhurried::Unhurried,
};

/// Answers one request.
pub(crate) async fn dispatch(context: Context, exchange: Exchange) -> Response {
    let era = exchange.client.era();
    let answered = match exchange.request.method() {
        method if is_for_service(method, &context.scope) => {
            let tasks = context.shared.tasks.clone();
            let call = relay::call(context, exchange);
            return match era {
                Era::Modern => call.await,
                Era::Legacy => Unhurried::new(call, &tasks).await,
            };
        }
        Method::Ping => Ok(own_result(&exchange, b"{}")),
        Method::Discover => lists::discover(&context, &exchange),
        Method::ToolsList | Method::PromptsList | Method::ResourcesList | Method::TemplatesList => {
            lists::page(&context, &exchange)
        }
        Method::SetLevel => set_level(&exchange),
        Method::Subscribe => watch_resource(&context, &exchange, true),
        Method::Unsubscribe => watch_resource(&context, &exchange, false),
        Method::Listen => subscribe::listen(&context, &exchange),
        _ => return unknown_method(&exchange),
    };
    answered.unwrap_or_else(|failure| respond::failure(exchange.request.id(), &failure, era))
}

/// What only the service can answer. What we have no name for belongs to an extension, which a service
/// that stands alone may speak.
const fn is_for_service(method: Method, scope: &Scope) -> bool {
    match method {
        Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead | Method::Complete => true,
        Method::Other => !scope.is_federated(),
        _ => false,
    }
}

fn own_result(exchange: &Exchange, result: &'static [u8]) -> Response {
    respond::shared_result(exchange.request.id(), bytes::Bytes::from_static(result))
}

fn watch_resource(
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
    subscribe::watch_resource(context, session, &uri, wanted)?;
    Ok(own_result(exchange, b"{}"))
}

fn set_level(exchange: &Exchange) -> Result<Response, Failure> {
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
