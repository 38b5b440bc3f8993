//! Services that say that they live.

use axum::{Json as Answer, extract::State};
use serde::Serialize;
use vaxel_control::Heartbeat;
use vaxel_core::time::Timestamp;

use crate::{
    context::Context,
    extract::{Caller, Path},
    problem::Refusal,
};

/// Until when a service has to say again that it lives.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct HeartbeatView {
    /// When it was heard.
    #[schema(value_type = String, format = DateTime)]
    heard_at: Timestamp,
    /// After this it is unhealthy.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl From<Heartbeat> for HeartbeatView {
    fn from(
        Heartbeat {
            heard_at,
            expires_at,
        }: Heartbeat,
    ) -> Self {
        Self {
            heard_at,
            expires_at,
        }
    }
}

/// Say that a service lives
///
/// For services with a `lease`: one that is silent for longer is unhealthy, and removed after three leases.
#[utoipa::path(
    post, path = "/api/v1/services/{service}/heartbeat", operation_id = "renew_service_lease",
    tag = "services", params(("service" = String, Path, description = "Id or name")),
    responses(
        (status = 200, description = "Heard", body = HeartbeatView),
        (status = 409, description = "It has no lease", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn renew(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
) -> Result<Answer<HeartbeatView>, Refusal> {
    let heard = context
        .control
        .heartbeat(&caller, &service.parse()?)
        .await?;
    Ok(Answer(heard.into()))
}
