//! Refusals that say where a client can get a token, or a better one (RFC 9728 §5.1; RFC 6750 §3; MCP 2026-07-28,
//! Authorization).

use http::{HeaderValue, StatusCode, header, request::Parts};
use vaxel_auth::oauth::{
    endpoint::Endpoint,
    metadata::{self, Why},
};
use vaxel_core::{
    access,
    failure::{Failure, Kind},
    id::{Call, Id},
    principal::{Permission, Permissions, Principal, Proof},
};
use vaxel_mcp::{error, method::Method};

use crate::{
    authenticate,
    edge::Exchange,
    gateway::Shared,
    guard,
    pipeline::Context,
    respond::{self, Body, Response},
};

/// Refuses whoever came with no credential, or with one that is not good.
pub(crate) fn refuse(
    shared: &Shared,
    head: &Parts,
    (failure, request): (&Failure, Id<Call>),
) -> Response {
    if failure.kind == Kind::Unauthenticated {
        shared.metrics.refused.inc();
    }
    let mut response = respond::problem(failure, &request.to_string());
    let why = match authenticate::presented(&head.headers) {
        None => Why::NoToken,
        Some(_) => Why::BadToken,
    };
    put(&mut response, shared, head, why);
    response
}

/// Whether a client's token lacks a scope for what is asked, which its user could give it.
pub(crate) fn is_too_narrow(principal: &Principal, method: Method) -> bool {
    let (Some(limits), Proof::User(_)) = (&principal.limits, principal.proof) else {
        return false;
    };
    let needed = needed(method);
    if limits.permissions.covers(needed) {
        return false;
    }
    let (proof, name) = (principal.proof, principal.name.clone());
    let user = Principal::of_user((proof, name), principal.rights.clone(), None);
    access::anywhere(&user).covers(needed)
}

/// Says which scopes are needed.
pub(crate) fn narrow(context: &Context, exchange: &Exchange) -> Response {
    let detail =
        "The token of this client lets less through than this needs: log in again and allow more";
    let failure = Failure::new(Kind::NotPermitted, detail);
    let body = error::render(exchange.request.id(), &failure, exchange.client.era());
    let mut response = respond::json(StatusCode::FORBIDDEN, Body::full(body));
    context.note_denied(exchange.request.method().as_str(), &failure, &mut response);
    put(&mut response, &context.shared, &context.head, Why::Narrow);
    response
}

fn needed(method: Method) -> Permissions {
    match method {
        Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead | Method::Complete => {
            Permissions::of(&[Permission::McpExecute])
        }
        Method::ToolsList
        | Method::PromptsList
        | Method::ResourcesList
        | Method::TemplatesList
        | Method::Subscribe
        | Method::Listen => Permissions::of(&[Permission::McpRead]),
        _ => Permissions::NONE,
    }
}

fn put(response: &mut Response, shared: &Shared, head: &Parts, why: Why) {
    if !shared.config.oauth || !shared.config.auth {
        return;
    }
    let public_url = shared.config.public_url.as_deref();
    let scheme = if shared.tls.is_on() { "https" } else { "http" };
    let Some(base) = guard::base(public_url, scheme, &head.headers, &head.uri) else {
        return;
    };
    let path = head.uri.path().trim_end_matches('/');
    // What is no endpoint has no metadata; messages are posted where none is.
    let path = if Endpoint::at(path).is_some() {
        path
    } else {
        "/mcp"
    };
    if let Ok(value) = HeaderValue::from_str(&metadata::challenge(&base, path, why)) {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value);
    }
}
