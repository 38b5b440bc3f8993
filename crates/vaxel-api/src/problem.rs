//! The one renderer of failures: RFC 9457, `application/problem+json`.
//!
//! Handlers return a [`Refusal`]; what it says on the wire is decided by the table in
//! `vaxel_core::failure`. The document itself is written by [`render`], the outermost layer, because
//! only there the request's id and path are known.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use vaxel_core::{
    failure::{Failure, Kind, facts},
    quota::{self, Level, Limit},
};
use vaxel_gateway::{Hidden, RequestId};

use crate::{context::Context, guards};

/// A failure on its way to the caller.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Failure);

impl<F: Into<Failure>> From<F> for Refusal {
    fn from(failure: F) -> Self {
        Self(failure.into())
    }
}

/// Marks an answer whose body [`render`] writes.
#[derive(Clone)]
struct Unrendered(Arc<Failure>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = status(self.0.kind);
        let mut response = status.into_response();
        response
            .extensions_mut()
            .insert(Unrendered(Arc::new(self.0)));
        response
    }
}

/// The body of every answer that is no success (RFC 9457).
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "describes what `vaxel_core::problem` writes, which knows no HTTP"
)]
pub(crate) struct Problem {
    /// Page on this server that explains this kind of problem.
    #[schema(example = "/errors/unknown-service")]
    r#type: String,
    /// Short summary of the kind.
    #[schema(example = "Unknown service")]
    title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What happened, to what, and what to do.
    #[schema(example = "There is no service called `files`; `vaxel ls` shows which there are")]
    detail: String,
    /// Names this request in the log.
    #[schema(example = "01937c3e-5a10-7cc3-98c4-dc0c0c07398f")]
    request_id: String,
    /// Every problem of the input, with its place.
    errors: Option<Vec<IssueView>>,
    /// After how many seconds a retry makes sense.
    retry_after: Option<u32>,
    /// The version that there is, when the change was meant for another one; also the `ETag` of the answer.
    #[schema(example = 7)]
    version: Option<u64>,
    /// The limit that was reached.
    limit: Option<Limit>,
    /// Where a person does what is missing.
    #[schema(example = "https://vaxel.example.com/oauth/connect?ticket=…")]
    link: Option<String>,
}

/// One problem of an input.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "describes `Issue` of the core, which knows no HTTP"
)]
pub(crate) struct IssueView {
    /// Where, as a path of keys.
    #[schema(example = "spec.source.process.command")]
    path: String,
    /// What is wrong and what would be right.
    #[schema(example = "is missing")]
    message: String,
}

/// The outermost layer: gives every answer its request id and what browsers are told, and failures their document.
pub(crate) async fn render(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Response {
    let id = request
        .extensions()
        .get::<RequestId>()
        .map(|id| id.0.to_string())
        .unwrap_or_default();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(Unrendered(failure)) = response.extensions_mut().remove() {
        log(&failure, &id, &path);
        if failure.hides {
            response.extensions_mut().insert(Hidden);
        }
        document(&failure, &id, &mut response);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", value);
    }
    guards::complete(headers, &path, context.config.only_tls);
    response
}

/// The answer to a request whose handler broke off.
pub(crate) fn broken(id: &str) -> Response {
    alone(&Failure::internal("its handler broke off"), id)
}

/// The answer to a body that says itself that it is longer than what is read.
pub(crate) fn too_large(id: &str) -> Response {
    let detail = "The body is longer than this server reads (`limits.body`)";
    alone(&Failure::new(Kind::TooLarge, detail), id)
}

/// A failure that no handler saw.
fn alone(failure: &Failure, id: &str) -> Response {
    let mut response = status(failure.kind).into_response();
    document(failure, id, &mut response);
    guards::complete(response.headers_mut(), "", false);
    response
}

/// Failures are logged here, once: those of ours. That a caller or a service was wrong is in the
/// answer and in the record of the call.
fn log(failure: &Failure, id: &str, path: &str) {
    if matches!(failure.kind, Kind::Internal | Kind::StoreUnavailable) {
        let cause = failure.cause.as_deref().map(tracing::field::display);
        tracing::error!(request.id = id, path, cause, "a request failed: {failure}");
    }
}

fn document(failure: &Failure, id: &str, response: &mut Response) {
    let body = vaxel_core::problem::render(failure, id);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if failure.kind == Kind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    tell_wait(headers, failure.retry_after, failure.level.as_deref());
    if let Some(version) = failure.version {
        tag(headers, version);
    }
    *response.body_mut() = body.into();
}

/// Writes when to try again, and which limit was reached.
pub(crate) fn tell_wait(headers: &mut HeaderMap, seconds: Option<u32>, level: Option<&Level>) {
    if let Some(seconds) = seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(level) = level {
        let said = [
            ("ratelimit-policy", quota::policies(&[*level])),
            ("ratelimit", quota::service_limits(&[*level])),
        ];
        for (name, text) in said {
            // Numbers and names of limits are always a header's value.
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
    }
}

/// Takes from an answer the failure that would be written into it, when it is that a limit was reached.
pub(crate) fn take_limit(response: &mut Response) -> Option<Arc<Failure>> {
    let unrendered = response.extensions().get::<Unrendered>()?;
    let is_limit = unrendered.0.kind == Kind::RateLimited;
    let taken = || response.extensions_mut().remove::<Unrendered>();
    is_limit.then(taken).flatten().map(|one| one.0)
}

/// Writes the version that an answer is about.
pub(crate) fn tag(headers: &mut HeaderMap, version: u64) {
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        headers.insert(header::ETAG, etag);
    }
}

fn status(kind: Kind) -> StatusCode {
    StatusCode::from_u16(facts(kind).status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A path that nobody serves.
pub(crate) async fn unknown_path(request: Request) -> Refusal {
    let detail = format!(
        "There is nothing at `{}`; `/docs` lists what the management API has",
        shown(request.uri().path())
    );
    Refusal(Failure::new(Kind::NotFound, detail))
}

/// A path that exists, asked with another method. The router adds `Allow`.
pub(crate) async fn wrong_method(request: Request) -> Refusal {
    let detail = format!(
        "`{}` cannot be asked with {}; the Allow header says what can",
        shown(request.uri().path()),
        request.method()
    );
    Refusal(Failure::new(Kind::MethodNotAllowed, detail))
}

fn shown(path: &str) -> String {
    path.chars().take(200).collect()
}
