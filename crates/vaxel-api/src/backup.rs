//! Backups, as they are written.

use std::io;

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use vaxel_control::Backup;
use vaxel_core::secret::Secret;

use crate::{
    context::Context,
    extract::{Caller, RawJson, malformed},
    problem::Refusal,
};

/// Bytes that are read and sent at once.
const PIECE: usize = 64 << 10;

/// What a backup holds.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupRequest {
    /// With it the backup holds API keys, sealed values and the root key, and is sealed with it; at least 8
    /// characters. Needs `keys:manage`, too.
    #[schema(min_length = 8)]
    passphrase: Option<String>,
}

/// Make a backup
///
/// Everything that is stored, of one moment, in one file for `vaxel restore`. Without a passphrase it
/// holds no API keys and no sealed values.
#[utoipa::path(
    post, path = "/api/v1/backup", operation_id = "create_backup", tag = "server",
    request_body(content = BackupRequest, description = "May be left out"),
    responses(
        (status = 200, description = "The file", body = String, content_type = "application/octet-stream"),
        (status = 409, description = "Another one is being written", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn create(
    Caller(caller): Caller,
    State(context): State<Context>,
    RawJson(body): RawJson,
) -> Result<Response, Refusal> {
    let BackupRequest { passphrase } = match &body[..] {
        [] => BackupRequest::default(),
        body => serde_json::from_slice(body).map_err(|error| malformed(&error))?,
    };
    let passphrase = passphrase.map(Secret::new);
    let backup = context.control.backup(&caller, passphrase).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, backup.bytes.to_string()),
    ];
    Ok((headers, Body::from_stream(pieces(backup))).into_response())
}

/// The file, piece by piece, as fast as it is taken.
fn pieces(backup: Backup) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    let file = tokio::fs::File::from_std(backup.file);
    stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        Ok((read > 0).then_some((piece, file)))
    })
}
