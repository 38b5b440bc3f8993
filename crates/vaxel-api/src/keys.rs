//! API keys: made once, shown once, revoked at any time.

use std::collections::BTreeSet;

use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::Serialize;
use vaxel_control::{
    Change, EarlierSecret, KeyDraft, KeyRotation, KeyRow, List, NewKey, Page, key_file,
};
use vaxel_core::{
    failure::Failure,
    fields::Fields,
    id::{Id, Key},
    name::UserName,
    principal::Permissions,
    quantity::Span,
    time::Timestamp,
};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, Json, On, Path, Query, page},
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
    /// From where that was: the address of the connection, which is that of a proxy when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "192.0.2.7")]
    last_used_from: Option<String>,
    /// When it got another secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    rotated_at: Option<Timestamp>,
    /// How often it gets another secret by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30d")]
    rotate_every: Option<Span>,
    /// When it gets the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    rotation_due_at: Option<Timestamp>,
    /// The file, in the data directory of the server, in which that stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "keys/ci.key")]
    file: Option<String>,
    /// The secret that it had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier: Option<EarlierView>,
}

/// The secret that a key had before it was rotated.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct EarlierView {
    /// Beginning of that text.
    #[schema(example = "vxl_0Zw8aTf3kQ")]
    prefix: String,
    /// From when on it is refused.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// When somebody came with it last, since the key was rotated.
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
            last_used_from,
            rotated_at,
            rotate_every,
            earlier,
        } = row;
        let begun = rotated_at.unwrap_or(created_at);
        let rotates = rotate_every.filter(|_| revoked_at.is_none());
        Self {
            last_used_from,
            rotated_at,
            rotate_every: rotate_every.map(Span),
            rotation_due_at: rotates.map(|every| begun.plus(every)),
            file: rotates.map(|_| key_file(&name)),
            earlier: earlier.map(Into::into),
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

impl From<EarlierSecret> for EarlierView {
    fn from(earlier: EarlierSecret) -> Self {
        let EarlierSecret {
            prefix,
            digest: _,
            until,
            used_at,
        } = earlier;
        Self {
            prefix,
            until,
            last_used_at: used_at,
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

/// Some keys.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct KeyListView {
    /// Newest first.
    items: Vec<KeyView>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which keys.
pub(crate) struct Keys {
    user: Option<UserName>,
    page: Page,
}

impl FromQuery for Keys {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self {
            user: fields.parsed("user"),
            page: page(fields),
        }
    }
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
    /// It gets another secret by itself, so long after the one before; at least `1h`. Each is written into the file
    /// `keys/NAME.key` of the data directory.
    #[schema(example = "30d")]
    rotate_every: Option<String>,
}

/// How a key gets another secret.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body, which `KeyRotation::from_json` reads"
)]
pub(crate) struct KeyRotationBody {
    /// How long the secret before works, too; at most `90d`, and `0s` ends it at once. Default `24h`, or half of
    /// `rotate_every`.
    #[schema(example = "24h")]
    overlap: Option<String>,
    /// After which time the key stops working; default: when it would have.
    #[schema(example = "90d")]
    expires_in: Option<String>,
}

/// List the API keys
#[utoipa::path(
    get, path = "/api/v1/keys", operation_id = "list_keys", tag = "keys",
    params(
        ("user" = Option<String>, Query, description = "Only those of this user"),
        ("limit" = Option<u32>, Query, description = "Longest page, 1 to 500; default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "The keys that the caller manages, also revoked ones", body = KeyListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(Keys { user, page }): Query<Keys>,
) -> Result<Answer<KeyListView>, Refusal> {
    let which = (user.as_ref(), &page);
    let List { items, next_cursor } = context.control.keys(&caller, which).await?;
    Ok(Answer(KeyListView {
        items: items.into_iter().map(Into::into).collect(),
        next_cursor,
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

/// Rotate an API key
///
/// It gets another secret, which this answer is the only place to show. Both work until the overlap is over.
#[utoipa::path(
    post, path = "/api/v1/keys/{key}/rotate", operation_id = "rotate_key", tag = "keys",
    params(("key" = String, Path, description = "Id or name"), On), request_body = KeyRotationBody,
    responses(
        (status = 200, description = "The key", body = NewKeyView),
        (status = 409, description = "It is revoked, has expired or is being rotated", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn rotate(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(key): Path<String>,
    On(terms): On,
    Json(body): Json,
) -> Result<Answer<NewKeyView>, Refusal> {
    let wanted = KeyRotation::from_json(&body);
    let wanted = wanted.map_err(|issues| Failure::invalid("The rotation", issues))?;
    let change = Change::RotateKey(key.as_str().into(), wanted);
    let control = context.control.on(terms);
    let NewKey { stored, text } = control.submit(&caller, change).await?.into_key()?;
    Ok(Answer(NewKeyView {
        view: stored.into(),
        key: text.expose().clone(),
    }))
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
