//! What handlers take: who asks, the body, the query, the version. Every wrong input becomes a
//! [`Refusal`], so that nothing but the one renderer answers.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{Extensions, HeaderValue, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::openapi::{
    Required,
    path::{Parameter, ParameterBuilder, ParameterIn},
    schema::{Object, Type},
};
use vaxel_control::{Page, Terms};
use vaxel_core::{
    failure::{Failure, Issue, Kind},
    fields::Fields,
    principal::Principal,
};
use vaxel_gateway::{Identity, Toll};

use crate::problem::Refusal;

/// The caller, whose credential was checked and whose request is counted. Handlers without it must take
/// [`Public`].
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = caller(&parts.extensions)?;
        // Once for each request, however many want to know who it is.
        if let Some(toll) = parts.extensions.remove::<Toll>() {
            toll.pay(&caller)?;
        }
        Ok(Self(caller))
    }
}

/// Who makes a request with these extensions.
pub(crate) fn caller(extensions: &Extensions) -> Result<Principal, Failure> {
    match extensions.get::<Identity>() {
        Some(Identity(Ok(principal))) => Ok(principal.clone()),
        Some(Identity(Err(failure))) => Err(again(failure)),
        None => Err(Failure::new(
            Kind::Unauthenticated,
            "This needs an API key: send it as `Authorization: Bearer KEY`",
        )),
    }
}

/// The same failure for another answer; the cause stays where the first one was logged.
fn again(failure: &Arc<Failure>) -> Failure {
    let mut copy = Failure::new(failure.kind, failure.detail.clone());
    copy.issues.clone_from(&failure.issues);
    copy.retry_after = failure.retry_after;
    copy.version = failure.version;
    copy.hides = failure.hides;
    copy.level.clone_from(&failure.level);
    copy
}

/// Says that an endpoint is open to everyone who reaches the listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Public;

impl<S: Send + Sync> FromRequestParts<S> for Public {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self)
    }
}

/// A JSON body, whatever its shape.
#[derive(Debug)]
pub(crate) struct Json(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = RawJson::from_request(request, state).await?;
        serde_json::from_slice(&body.0)
            .map(Self)
            .map_err(|error| malformed(&error))
    }
}

/// The bytes of a JSON body, within the limit; not looked at yet.
#[derive(Debug)]
pub(crate) struct RawJson(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for RawJson {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = match Bytes::from_request(request, state).await {
            Ok(bytes) => bytes,
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let detail = "The body is longer than this server reads (`limits.body`)";
                return Err(Refusal(Failure::new(Kind::TooLarge, detail)));
            }
            Err(rejection) => {
                let detail = "The body could not be read to its end";
                let failure = Failure::new(Kind::Malformed, detail);
                return Err(Refusal(failure.caused_by(rejection.to_string())));
            }
        };
        // A browser can send other types across origins without asking first.
        if !bytes.is_empty() && !is_json(kind.as_ref()) {
            let detail = "The body must be JSON: send `Content-Type: application/json`";
            return Err(Refusal(Failure::new(Kind::Malformed, detail)));
        }
        Ok(Self(bytes))
    }
}

fn is_json(kind: Option<&HeaderValue>) -> bool {
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// A body that is no JSON; the sentence says where.
pub(crate) fn malformed(error: &serde_json::Error) -> Refusal {
    Refusal(Failure::new(
        Kind::Malformed,
        format!("The body is not the JSON that is read here: {error}"),
    ))
}

/// What a query string says, field by field: see [`read_query`].
pub(crate) trait FromQuery: Sized {
    /// Reads the parameters; problems go to `fields`.
    fn from_query(fields: &mut Fields<'_>) -> Self;
}

/// The query string as `T`, with every problem at once.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: FromQuery, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        read_query(parts.uri.query().unwrap_or_default(), T::from_query)
            .map(Self)
            .map_err(|issues| Refusal(Failure::invalid("The query string", issues)))
    }
}

fn read_query<T>(query: &str, read: impl FnOnce(&mut Fields<'_>) -> T) -> Result<T, Vec<Issue>> {
    let mut issues = Vec::new();
    let mut object = Map::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if object
            .insert(key.to_string(), Value::String(value.into_owned()))
            .is_some()
        {
            issues.push(Issue::new(key, "is given more than once"));
        }
    }
    let read = Fields::read(&Value::Object(object), "", &mut issues, read);
    match read {
        Some(value) if issues.is_empty() => Ok(value),
        _ => Err(issues),
    }
}

/// The version in `If-Match`, when one is given; `*` stands for any (RFC 9110 §13.1.1).
#[derive(Debug, Clone, Copy)]
pub(crate) struct IfMatch(pub(crate) Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let inner = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let version: Option<u64> = inner.and_then(|version| version.parse().ok());
        if version.is_some() {
            return Ok(Self(version));
        }
        let message = "must be the ETag of an earlier answer, such as \"3\"";
        let issues = vec![Issue::new("If-Match", message)];
        Err(Refusal(Failure::invalid("The request", issues)))
    }
}

/// On what terms a change is made: `If-Match`, and `message` in the query string.
#[derive(Debug, Clone, Default)]
pub(crate) struct On(pub(crate) Terms);

impl<S: Send + Sync> FromRequestParts<S> for On {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let IfMatch(expected) = IfMatch::from_request_parts(parts, state).await?;
        let Query(Message(message)) = Query::from_request_parts(parts, state).await?;
        Ok(Self(Terms { expected, message }))
    }
}

struct Message(Option<String>);

impl FromQuery for Message {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self(fields.string("message"))
    }
}

impl utoipa::IntoParams for On {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = || Object::builder().schema_type(Type::String);
        let parameter = |name: &str, place, description: &str| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(place)
                .required(Required::False)
                .description(Some(description))
        };
        let version =
            "ETag of the version that the change is meant for; it is refused on another one";
        let message = "Why, for whoever reads the history";
        vec![
            parameter("If-Match", ParameterIn::Header, version)
                .schema(Some(text().build()))
                .build(),
            parameter("message", ParameterIn::Query, message)
                .schema(Some(text().max_length(Some(500)).build()))
                .build(),
        ]
    }
}

/// The variable parts of a path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| {
                let detail =
                    "The path is not one that is read here: it holds bytes that are no UTF-8";
                Refusal(Failure::new(Kind::NotFound, detail).caused_by(rejection.to_string()))
            })
    }
}

/// `limit` and `cursor`, which every list takes.
pub(crate) fn page(fields: &mut Fields<'_>) -> Page {
    let limit: Option<u32> = fields.parsed("limit");
    if limit.is_some_and(|limit| !(1..=Page::LIMIT_MAX).contains(&limit)) {
        fields.issue(
            "limit",
            format!("must be between 1 and {}", Page::LIMIT_MAX),
        );
    }
    Page {
        limit: limit.unwrap_or(Page::LIMIT),
        cursor: fields.string("cursor"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_a_query_is_named() {
        let issues = read_query("limit=0&limt=3&tag=a&tag=b", |fields| {
            fields.string("tag");
            fields.parsed::<std::num::NonZeroU32>("limit");
        })
        .unwrap_err();
        let text: Vec<String> = issues
            .iter()
            .map(|one| format!("{}: {}", one.path, one.message))
            .collect();
        assert_eq!(
            text,
            [
                "tag: is given more than once",
                "limit: number would be zero for non-zero type",
                "limt: is not a known key; did you mean `limit`?",
            ]
        );
    }
}
