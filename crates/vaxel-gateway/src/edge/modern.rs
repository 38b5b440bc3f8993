//! The modern edge (2026-07-28): every request stands alone, and its headers must say what its body
//! says, so that whoever reads only the headers is not deceived.

use http::StatusCode;
use vaxel_mcp::{
    error::{HEADER_MISMATCH, INVALID_PARAMS, METHOD_NOT_FOUND, unsupported_version},
    headers, meta,
    request::{Claims, Request},
    response,
    revision::{Era, Revision},
};

use super::header;
use crate::{
    pipeline::{Carrier, Context},
    respond::{self, Body, Response},
};

/// Whether the request is one that this server can answer; the answer is boxed by the caller.
#[expect(
    clippy::result_large_err,
    reason = "the error is the answer, made once per refusal"
)]
pub(super) fn check(
    context: &Context,
    request: &Request,
    claims: &Claims,
    version: Option<&str>,
) -> Result<(), Response> {
    let id = request.id();
    let Some(said) = claims.version.as_deref() else {
        return Err(refuse(id, INVALID_PARAMS, &missing(claims)));
    };
    let has_headers = context.carrier == Carrier::Post;
    if has_headers && version != Some(said) {
        let detail = mismatch("MCP-Protocol-Version", version, said);
        return Err(refuse(id, HEADER_MISMATCH, &detail));
    }
    let claimed = match said.parse::<Revision>() {
        Ok(revision) if revision.era() == Era::Modern => revision,
        Ok(_) | Err(_) => return Err(unsupported(id, said)),
    };
    if !claims.has_capabilities {
        return Err(refuse(id, INVALID_PARAMS, &missing(claims)));
    }
    if request.method().is_legacy_only() {
        let detail = format!("`{}` does not exist in {claimed}", request.method_name());
        let body = response::error(id, METHOD_NOT_FOUND, &detail, None);
        return Err(respond::json(StatusCode::NOT_FOUND, Body::full(body)));
    }
    if has_headers {
        check_mirrors(context, request)?;
    }
    Ok(())
}

/// `Mcp-Method` and `Mcp-Name` mirror the body (SEP-2243).
#[expect(
    clippy::result_large_err,
    reason = "the error is the answer, made once per refusal"
)]
fn check_mirrors(context: &Context, request: &Request) -> Result<(), Response> {
    let said = header(context, headers::MCP_METHOD);
    if said != Some(request.method_name()) {
        let detail = mismatch("Mcp-Method", said, request.method_name());
        return Err(refuse(request.id(), HEADER_MISMATCH, &detail));
    }
    let Some(key) = request.method().addressed_by().and_then(|_| request.key()) else {
        return Ok(());
    };
    let said = header(context, headers::MCP_NAME);
    if said == Some(&*key) {
        return Ok(());
    }
    let decoded = said.and_then(|said| headers::decode_value(said).ok());
    if decoded.as_deref() == Some(&*key) {
        return Ok(());
    }
    let detail = mismatch("Mcp-Name", said, &key);
    Err(refuse(request.id(), HEADER_MISMATCH, &detail))
}

fn mismatch(name: &str, said: Option<&str>, body: &str) -> String {
    let body: String = body.chars().take(120).collect();
    match said {
        None => format!("The header {name} is missing; the body says `{body}`"),
        Some(said) => {
            let said: String = said.chars().take(120).collect();
            format!("The header {name} says `{said}`, the body says `{body}`")
        }
    }
}

fn missing(claims: &Claims) -> String {
    let mut keys = Vec::new();
    if claims.version.is_none() {
        keys.push(meta::PROTOCOL_VERSION);
    }
    if !claims.has_capabilities {
        keys.push(meta::CLIENT_CAPABILITIES);
    }
    let revision = Revision::LATEST;
    format!(
        "A {revision} request must carry in `_meta`: {}",
        keys.join(", ")
    )
}

pub(crate) fn refuse(id: &[u8], code: i32, detail: &str) -> Response {
    let body = response::error(id, code, detail, None);
    respond::json(StatusCode::BAD_REQUEST, Body::full(body))
}

fn unsupported(id: &[u8], requested: &str) -> Response {
    respond::json(
        StatusCode::BAD_REQUEST,
        Body::full(unsupported_version(id, requested)),
    )
}
