//! The keys of the server itself: the root key, which all sealed values hang on, and those that sign tokens.

use axum::{Json as Answer, extract::State};
use serde::Serialize;
use vaxel_control::{Change, Progress, RootKeyReport, SigningKey};
use vaxel_core::{failure::Failure, fields::Fields, secret::Secret, time::Timestamp};

use crate::{
    context::Context,
    extract::{Caller, Json, On},
    problem::Refusal,
};

/// The root key. Nothing in here helps anybody to find it.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RootKeyView {
    /// What it is recognised by.
    #[schema(example = "9f86d081884c7d65")]
    id: String,
    /// Where it comes from: `file`, `environment` or `command`.
    #[schema(example = "file")]
    source: &'static str,
    /// It was replaced, and the one that was given at the start is the one before: the new one has to be given from
    /// the next start on.
    is_stale: bool,
    /// How far it has come to take the place of another one; absent when it is the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    replacing: Option<ReplacingView>,
}

/// How far a root key has come to take the place of another one.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ReplacingView {
    /// What the keys before are recognised by.
    earlier: Vec<String>,
    /// Values that were looked at, and sealed anew where they had to be.
    done: u64,
    /// Values that there are.
    total: u64,
}

impl From<RootKeyReport> for RootKeyView {
    fn from(report: RootKeyReport) -> Self {
        let RootKeyReport { facts, replacing } = report;
        let earlier = facts.earlier;
        let view = |Progress { done, total }| ReplacingView {
            earlier,
            done,
            total,
        };
        Self {
            id: facts.id,
            source: facts.given.map_or("file", |given| given.as_str()),
            is_stale: facts.is_stale,
            replacing: replacing.map(view),
        }
    }
}

/// How the root key is replaced.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which `new_key` reads")]
pub(crate) struct RootKeyBody {
    /// The new key, where it is given by the environment or a command: 32 bytes as 64 hexadecimal digits or in
    /// base64. Where it is kept in a file the server makes it.
    new_key: Option<String>,
}

/// A key that signs tokens, or did, or will.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SigningKeyView {
    /// Names it in tokens.
    kid: String,
    /// How it signs.
    #[schema(example = "EdDSA")]
    algorithm: &'static str,
    /// `next` (known, signs nothing yet), `current` (signs) or `previous` (what it signed is still good).
    #[schema(example = "current")]
    stage: &'static str,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// When that is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

impl From<SigningKey> for SigningKeyView {
    fn from(key: SigningKey) -> Self {
        let SigningKey {
            kid,
            algorithm,
            stage,
            since,
            until,
        } = key;
        Self {
            kid,
            algorithm,
            stage: stage.as_str(),
            since,
            until,
        }
    }
}

/// The keys that sign tokens.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SigningKeyListView {
    /// The next one, the one that signs, the one before.
    items: Vec<SigningKeyView>,
}

/// Get what is known of the root key
#[utoipa::path(
    get, path = "/api/v1/root-key", operation_id = "get_root_key", tag = "keys",
    responses((status = 200, description = "Which one it is, and how far replacing it has come", body = RootKeyView)),
)]
pub(crate) async fn root_key(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<RootKeyView>, Refusal> {
    Ok(Answer(context.control.root_key(&caller)?.into()))
}

/// Replace the root key
///
/// The new one seals from now on; what the one before sealed is sealed anew in the background.
#[utoipa::path(
    post, path = "/api/v1/root-key/rotate", operation_id = "rotate_root_key", tag = "keys",
    params(On), request_body = RootKeyBody,
    responses(
        (status = 200, description = "It has begun", body = RootKeyView),
        (status = 409, description = "It is being replaced already", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn rotate_root_key(
    Caller(caller): Caller,
    State(context): State<Context>,
    On(terms): On,
    Json(body): Json,
) -> Result<Answer<RootKeyView>, Refusal> {
    let mut issues = Vec::new();
    let new = Fields::read(&body, "", &mut issues, |fields| fields.string("new_key"));
    if !issues.is_empty() {
        return Err(Failure::invalid("The root key", issues).into());
    }
    let new = new.flatten().map(Secret::new);
    let control = context.control.on(terms);
    let outcome = control.submit(&caller, Change::ReplaceRootKey(new)).await?;
    Ok(Answer(outcome.into_root_key()?.into()))
}

/// List the keys that sign tokens
#[utoipa::path(
    get, path = "/api/v1/signing-keys", operation_id = "list_signing_keys", tag = "keys",
    responses((status = 200, description = "All of them", body = SigningKeyListView)),
)]
pub(crate) async fn signing_keys(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<SigningKeyListView>, Refusal> {
    let keys = context.control.signing_keys(&caller)?;
    Ok(Answer(SigningKeyListView {
        items: keys.into_iter().map(Into::into).collect(),
    }))
}

/// Rotate the keys that sign tokens
///
/// The next one signs from now on; what the one before signed is good until it expires.
#[utoipa::path(
    post, path = "/api/v1/signing-keys/rotate", operation_id = "rotate_signing_keys", tag = "keys",
    params(On),
    responses((status = 200, description = "The keys as they are then", body = SigningKeyListView)),
)]
pub(crate) async fn rotate_signing_keys(
    Caller(caller): Caller,
    State(context): State<Context>,
    On(terms): On,
) -> Result<Answer<SigningKeyListView>, Refusal> {
    let control = context.control.on(terms);
    control.submit(&caller, Change::RotateSigningKeys).await?;
    let keys = context.control.signing_keys(&caller)?;
    Ok(Answer(SigningKeyListView {
        items: keys.into_iter().map(Into::into).collect(),
    }))
}
