//! Paths, bodies and answers of the systems that Vaxel takes the place of, exactly as their clients know
//! them: thin views over the same calls of control as the management API. One file per system.

use axum::{
    Json as Answer, Router,
    extract::Request,
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use vaxel_core::{
    failure::{Failure, facts},
    name::ServiceName,
    quota::Level,
};

use crate::{
    context::Context,
    problem::{self, Refusal},
};

mod ai_platform;
mod devq;
mod happyos;
pub(crate) mod stage6;

/// Every path of every system.
pub(crate) fn router() -> Router<Context> {
    Router::new()
        .merge(ai_platform::router())
        .merge(devq::router())
        .merge(happyos::router())
        .layer(middleware::from_fn(tell_limits))
}

/// Who made too many requests is told so in the form that these clients know, too.
async fn tell_limits(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    match problem::take_limit(&mut response) {
        Some(failure) => Told::from(&*failure).into_response(),
        None => response,
    }
}

/// A failure as these clients read it: a status, and the sentence under `error` and `detail`.
struct Told {
    status: StatusCode,
    sentence: String,
    /// After how many seconds to try again.
    retry_after: Option<u32>,
    /// The limit that was reached.
    level: Option<Box<Level>>,
}

impl Told {
    fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        Self {
            status,
            sentence,
            retry_after: None,
            level: None,
        }
    }

    /// The failure under a status that the system has for it.
    fn under(status: StatusCode, failure: &Failure) -> Self {
        let problems: Vec<String> = failure.issues.iter().map(ToString::to_string).collect();
        let sentence = match problems.as_slice() {
            [] => failure.to_string(),
            problems => format!("{failure}: {}", problems.join("; ")),
        };
        Self {
            retry_after: failure.retry_after,
            level: failure.level.clone(),
            ..Self::new(status, sentence)
        }
    }
}

impl From<&Failure> for Told {
    fn from(failure: &Failure) -> Self {
        let status = StatusCode::from_u16(facts(failure.kind).status);
        Self::under(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), failure)
    }
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        Self::from(&failure)
    }
}

impl From<Refusal> for Told {
    fn from(refusal: Refusal) -> Self {
        refusal.0.into()
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.sentence, "detail": self.sentence });
        let mut headers = HeaderMap::new();
        problem::tell_wait(&mut headers, self.retry_after, self.level.as_deref());
        (self.status, headers, Answer(body)).into_response()
    }
}

/// The name under which a service called `text` by people is registered.
fn service_name(text: &str) -> Result<ServiceName, Told> {
    ServiceName::closest(text).ok_or_else(|| {
        let sentence = format!("`{text}` is no name: it needs a letter or a digit");
        Told::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
    })
}

/// The first of `keys` that the object has.
fn first_of<'a>(object: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().find_map(|key| object.get(key))
}
