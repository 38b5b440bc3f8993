//! Who one is, and why something is allowed or not.

use std::collections::BTreeSet;

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use vaxel_control::{AccessQuery, Explanation, Whoami};
use vaxel_core::{
    failure::Failure,
    quota::{Bound, Level, Limit},
    rights::Limits,
    role::Reach,
};

use crate::{
    context::Context,
    extract::{Caller, Json},
    keys::KeyView,
    problem::Refusal,
    users::UserView,
};

/// Who a caller is.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct WhoamiView {
    /// The user's name.
    #[schema(example = "anna@example.com")]
    name: String,
    /// The user; absent when authentication is switched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserView>,
    /// The key that was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyView>,
    /// What its roles allow, as far as the credential lets it through.
    #[schema(value_type = Vec<String>, example = json!(["mcp:read", "mcp:write:own"]))]
    permissions: Reach,
    /// The services that the credential is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<String>>,
    /// The environments that the credential is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    environments: Option<BTreeSet<String>>,
    /// How much it may take, and what is left of that; absent when nothing is limited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<LevelView>,
}

/// A limit, and what is left of it.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct LevelView {
    /// Which.
    limit: Limit,
    /// How much it allows: so many in so much time, or so many at once.
    #[schema(example = "20/1m")]
    allows: String,
    /// What is left now.
    #[schema(example = 19)]
    left: u32,
    /// After how many seconds there is one more; absent when it is all there, and for what is counted at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 3)]
    more_after: Option<u32>,
}

impl From<Level> for LevelView {
    fn from(level: Level) -> Self {
        let Level {
            limit,
            bound,
            left,
            more_in: _,
        } = level;
        let is_waiting = matches!(bound, Bound::Rate(rate) if left < rate.count());
        Self {
            limit,
            allows: bound.to_string(),
            left,
            more_after: is_waiting.then(|| level.seconds()),
        }
    }
}

impl From<Whoami> for WhoamiView {
    fn from(who: Whoami) -> Self {
        let Whoami {
            name,
            user,
            key,
            permissions,
            limits,
            levels,
        } = who;
        let limits = limits.map(
            |Limits {
                 permissions: _,
                 services,
                 environments,
             }| (services, environments),
        );
        let (services, environments) = limits.unwrap_or_default();
        Self {
            name,
            user: user.map(Into::into),
            key: key.map(Into::into),
            permissions,
            services,
            environments,
            limits: levels.into_iter().map(Into::into).collect(),
        }
    }
}

/// What somebody asks about access.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body, which `AccessQuery::from_json` reads"
)]
pub(crate) struct ExplainBody {
    /// About whom; default: whoever asks. Not together with `key`.
    #[schema(example = "anna@example.com")]
    user: Option<String>,
    /// About the user of this key (name or id), within its limits.
    key: Option<String>,
    /// What that one wants to do.
    #[schema(example = "mcp:execute")]
    permission: String,
    /// With which service, by name or id.
    #[schema(example = "files")]
    service: Option<String>,
    /// With which of its tools, by the service's own name for it.
    #[schema(example = "delete_file")]
    tool: Option<String>,
    /// With which arguments.
    arguments: Option<Value>,
}

/// The answer, with its reason.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ExplanationView {
    /// Yes or no.
    allowed: bool,
    /// Why.
    #[schema(example = "the policy `no-deletes` denies it")]
    because: String,
    /// What decided.
    by: DeciderView,
    /// How much of it, where it is allowed, and what is left of that: of the user, of the service and of the
    /// tool. Absent when nothing is limited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<LevelView>,
}

/// What decided.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeciderView {
    /// `role`, `own` (a role, of what is one's own), `grant`, `policy`, `credential` (its limits),
    /// `unlimited` (Vaxel itself, or authentication is switched off), `disabled` or `nothing`.
    #[schema(example = "policy")]
    kind: &'static str,
    /// The role or policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "no-deletes")]
    name: Option<String>,
}

impl From<Explanation> for ExplanationView {
    fn from(explanation: Explanation) -> Self {
        let Explanation {
            allowed,
            because,
            by: kind,
            name,
            levels,
        } = explanation;
        Self {
            allowed,
            because,
            by: DeciderView { kind, name },
            limits: levels.into_iter().map(Into::into).collect(),
        }
    }
}

/// Who am I?
#[utoipa::path(
    get, path = "/api/v1/auth/whoami", operation_id = "get_whoami", tag = "access",
    responses((status = 200, description = "Whoever asks", body = WhoamiView)),
)]
pub(crate) async fn whoami(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<WhoamiView>, Refusal> {
    let who = context.control.whoami(&caller).await?;
    Ok(Answer(who.into()))
}

/// Say why something is allowed or not
///
/// It is the very decision that every door asks for. About others it needs `access:read`.
#[utoipa::path(
    post, path = "/api/v1/auth/explain", operation_id = "explain_access", tag = "access",
    request_body = ExplainBody,
    responses((status = 200, description = "The answer, with its reason", body = ExplanationView)),
)]
pub(crate) async fn explain(
    Caller(caller): Caller,
    State(context): State<Context>,
    Json(body): Json,
) -> Result<Answer<ExplanationView>, Refusal> {
    let query =
        AccessQuery::from_json(&body).map_err(|issues| Failure::invalid("The question", issues))?;
    let explanation = context.control.explain(&caller, query).await?;
    Ok(Answer(explanation.into()))
}

/// A resource with its version as `ETag`, and, when it is new, with the place where it is.
pub(crate) fn tagged(
    version: Option<u64>,
    place: Option<String>,
    view: impl Serialize,
) -> Response {
    let status = match &place {
        Some(_) => StatusCode::CREATED,
        None => StatusCode::OK,
    };
    let mut response = (status, Answer(view)).into_response();
    let etag = version.map(|version| format!("\"{version}\""));
    for (name, text) in [(header::ETAG, etag), (header::LOCATION, place)] {
        let value = text.and_then(|text| HeaderValue::from_str(&text).ok());
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
