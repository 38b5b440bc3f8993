//! API keys: made once, shown once, revoked at any time.

use std::collections::BTreeSet;

use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::Serialize;
use vaxel_control::{Change, KeyDraft, KeyRow, NewKey};
use vaxel_core::{
    failure::Failure,
    id::{Id, Key},
    name::UserName,
    principal::Permissions,
    time::Timestamp,
};

use crate::{
    context::Context,
    extract::{Caller, Json, On, Path},
    problem::Refusal,
};

/// An API key, without its secret part.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct KeyView {
    /// Never changes.
    #[schema(value_type = String, format = "uuid")]
    id: Id<Key>,
    /// What or who uses it.
    #[schema(example = "claude-desktop")]
    name: String,
    /// Beginning of the key, to recognise it.
    #[schema(example = "vxl_8aTf3kQw0Z")]
    prefix: String,
    /// Whose it is: what that user may do, the key may, within its limits.
    #[schema(value_type = String, example = "anna@example.com")]
    user: UserName,
    /// Nothing but these.
    #[schema(value_type = Vec<String>, example = json!(["mcp:read", "mcp:execute"]))]
    permissions: Permissions,
    /// With services of such names (patterns) only.
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<String>>,
    /// With services in these environments only.
    #[serde(skip_serializing_if = "Option::is_none")]
    environments: Option<BTreeSet<String>>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// From when on it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Since when it is refused because someone said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// Its last use, to within ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

impl From<KeyRow> for KeyView {
    fn from(row: KeyRow) -> Self {
        let KeyRow {
            id,
            name,
            prefix,
            digest: _,
            user,
            permissions,
            services,
            environments,
            created_at,
            expires_at,
            revoked_at,
            last_used_at,
        } = row;
        Self {
            id,
            name,
            prefix,
            user,
            permissions,
            services,
            environments,
            created_at,
            expires_at,
            revoked_at,
            last_used_at,
        }
    }
}

/// A new key, with its text.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct NewKeyView {
    #[serde(flatten)]
    view: KeyView,
    /// The key itself: shown here and never again.
    #[schema(example = "vxl_8aTf3kQw0Z_…")]
    key: String,
}

/// Every key.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct KeyListView {
    /// Newest first.
    items: Vec<KeyView>,
}

/// What a key is made from.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body, which `KeyDraft::from_json` reads"
)]
pub(crate) struct KeyBody {
    /// What or who uses it; 1 to 64 characters.
    #[schema(example = "claude-desktop", max_length = 64)]
    name: String,
    /// Whose it is; default: that of whoever asks.
    #[schema(example = "anna@example.com")]
    user: Option<String>,
    /// It may what this built-in role may, as far as its user does: `admin`, `user`, `service`, `client`
    /// (default) or `monitor`; not together with `permissions`.
    role: Option<String>,
    /// What it may do, one by one, as far as its user may; never more than whoever asks.
    #[schema(example = json!(["mcp:read"]))]
    permissions: Option<Vec<String>>,
    /// With services of such names only; `*` stands for any run of characters.
    #[schema(example = json!(["db-*"]))]
    services: Option<Vec<String>>,
    /// With services in these environments only.
    #[schema(example = json!(["prod"]))]
    environments: Option<Vec<String>>,
    /// After which time it stops working; default never.
    #[schema(example = "90d")]
    expires_in: Option<String>,
}

/// List the API keys
#[utoipa::path(
    get, path = "/api/v1/keys", operation_id = "list_keys", tag = "keys",
    responses((status = 200, description = "Every key that the caller manages, also revoked ones", body = KeyListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<KeyListView>, Refusal> {
    let keys = context.control.keys(&caller).await?;
    Ok(Answer(KeyListView {
        items: keys.into_iter().map(Into::into).collect(),
    }))
}

/// Create an API key
///
/// The answer is the only place where the key is ever shown.
#[utoipa::path(
    post, path = "/api/v1/keys", operation_id = "create_key", tag = "keys",
    params(On), request_body = KeyBody,
    responses(
        (status = 201, description = "The key", body = NewKeyView),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn create(
    Caller(caller): Caller,
    State(context): State<Context>,
    On(terms): On,
    Json(body): Json,
) -> Result<(StatusCode, Answer<NewKeyView>), Refusal> {
    let draft = KeyDraft::from_json(&body).map_err(|issues| Failure::invalid("The key", issues))?;
    let change = Change::CreateKey(draft);
    let control = context.control.on(terms);
    let NewKey { stored, text } = control.submit(&caller, change).await?.into_key()?;
    let view = NewKeyView {
        view: stored.into(),
        key: text.expose().clone(),
    };
    Ok((StatusCode::CREATED, Answer(view)))
}

/// Revoke an API key
///
/// It is refused from the next request on.
#[utoipa::path(
    delete, path = "/api/v1/keys/{key}", operation_id = "revoke_key", tag = "keys",
    params(("key" = String, Path, description = "Id or name"), On),
    responses((status = 204, description = "Revoked")),
)]
pub(crate) async fn revoke(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(key): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    context
        .control
        .on(terms)
        .submit(&caller, Change::RevokeKey(key.as_str().into()))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
