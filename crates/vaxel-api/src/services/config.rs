//! The configuration of a service: what holds, who said so, what would hold otherwise.

use axum::{
    Json as Answer,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use vaxel_control::Change;
use vaxel_core::{
    service::{Setting, category::Category, draft_schema},
    template::Origin,
};

use super::{ServiceView, tagged};
use crate::{
    context::Context,
    extract::{Caller, On, Path, Public},
    problem::Refusal,
};

/// One value.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SettingView {
    /// Where it stands in the spec.
    #[schema(example = "limits.memory")]
    path: String,
    /// What holds; null is nothing. Sealed values stand as `secret:` references.
    value: Value,
    /// Who said so: `default`, `template:NAME` or `own`.
    #[schema(value_type = String, example = "template:filesystem")]
    from: Origin,
    /// What holds when nobody says; null where one must be given, or where the configuration of the
    /// server decides.
    default: Value,
}

/// Every value of a service's configuration, by category.
#[derive(Default, Serialize, utoipa::ToSchema)]
pub(crate) struct ConfigView {
    /// What runs, how many of it, and within which limits.
    runtime: Vec<SettingView>,
    /// Where it is reached, and how it is spoken to.
    network: Vec<SettingView>,
    /// Credentials, and what callers may see and send.
    security: Vec<SettingView>,
    /// How it is presented to others, and what it needs of them.
    integration: Vec<SettingView>,
    /// How it is watched.
    monitoring: Vec<SettingView>,
}

impl From<Vec<Setting>> for ConfigView {
    fn from(settings: Vec<Setting>) -> Self {
        let mut view = Self::default();
        for Setting {
            path,
            category,
            value,
            from,
            default,
        } in settings
        {
            let group = match category {
                Category::Runtime => &mut view.runtime,
                Category::Network => &mut view.network,
                Category::Security => &mut view.security,
                Category::Integration => &mut view.integration,
                Category::Monitoring => &mut view.monitoring,
            };
            group.push(SettingView {
                path,
                value,
                from,
                default,
            });
        }
        view
    }
}

/// Get the effective configuration of a service
///
/// Every value by category, with who gave it. `/api/v1/schemas/service` is the JSON Schema of what can
/// be sent.
#[utoipa::path(
    get, path = "/api/v1/services/{service}/config", operation_id = "get_service_config",
    tag = "services", params(("service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The values", body = ConfigView)),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
) -> Result<Answer<ConfigView>, Refusal> {
    let settings = context
        .control
        .service_config(&caller, &service.parse()?)
        .await?;
    Ok(Answer(settings.into()))
}

/// Render the template of a service again
///
/// A change of a template changes no service by itself. This takes it over as a new revision; the values
/// of parameters and the overrides of the service stay.
#[utoipa::path(
    post, path = "/api/v1/services/{service}/refresh", operation_id = "refresh_service",
    tag = "services",
    params(
        ("service" = String, Path, description = "Id or name"),
        On,
    ),
    responses(
        (status = 202, description = "Stored", body = ServiceView),
        (status = 409, description = "It was not made from a template", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn refresh(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    On(terms): On,
) -> Result<Response, Refusal> {
    let change = Change::RefreshService {
        service: service.parse()?,
        expected: terms.expected,
    };
    let service = context
        .control
        .on(terms)
        .submit(&caller, change)
        .await?
        .into_service()?;
    Ok(tagged(StatusCode::ACCEPTED, service))
}

/// The JSON Schema of a service's draft: nothing in it is anybody's.
pub(crate) async fn schema(_: Public) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/schema+json")];
    (StatusCode::OK, kind, draft_schema().to_string()).into_response()
}
