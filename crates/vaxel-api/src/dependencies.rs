//! Which service needs which.

use axum::{
    Json as Answer,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use vaxel_control::DependencyMap;
use vaxel_core::{dependencies::Affected, fields::Fields, name::ServiceName, status::Health};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, Path, Query},
    problem::Refusal,
};

/// Media type of the map as a chart.
const MERMAID: &str = "text/vnd.mermaid";

/// The map of all services.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DependencyMapView {
    /// In the order in which they start.
    services: Vec<NodeView>,
}

/// A service on the map.
#[derive(Serialize, utoipa::ToSchema)]
struct NodeView {
    /// Its name.
    name: String,
    /// What is seen of it.
    health: Health,
    /// What it needs.
    depends_on: Vec<String>,
    /// Those of them that do not exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

impl From<DependencyMap> for DependencyMapView {
    fn from(DependencyMap { map, health }: DependencyMap) -> Self {
        let needs: std::collections::BTreeMap<_, _> = map.iter().collect();
        let node = |(name, health): (ServiceName, Health)| {
            let depends_on = needs.get(&name).into_iter().flat_map(|needs| needs.iter());
            let missing = depends_on.clone().filter(|need| !needs.contains_key(need));
            NodeView {
                missing: missing.map(ToString::to_string).collect(),
                depends_on: depends_on.map(ToString::to_string).collect(),
                name: name.to_string(),
                health,
            }
        };
        Self {
            services: health.into_iter().map(node).collect(),
        }
    }
}

/// What breaks when a service stops.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ImpactView {
    /// The nearest first.
    affected: Vec<AffectedView>,
}

/// A service that another one's stop reaches.
#[derive(Serialize, utoipa::ToSchema)]
struct AffectedView {
    /// Its name.
    name: String,
    /// How it hangs on the one that stops: from itself to that one.
    #[schema(example = json!(["web", "api", "db"]))]
    path: Vec<String>,
}

impl From<Affected> for AffectedView {
    fn from(Affected { name, path }: Affected) -> Self {
        Self {
            name: name.to_string(),
            path: path.iter().map(ToString::to_string).collect(),
        }
    }
}

/// In which form.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct MapQuery {
    /// `json`, or `mermaid` for a chart.
    #[param(example = "mermaid")]
    format: Option<String>,
}

/// [`MapQuery`], read.
pub(crate) enum Form {
    Json,
    Mermaid,
}

impl FromQuery for Form {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        match fields.string("format").as_deref() {
            None | Some("json") => Self::Json,
            Some("mermaid") => Self::Mermaid,
            Some(other) => {
                let message = format!("`{other}` is no form of the map: write json or mermaid");
                fields.issue("format", message);
                Self::Json
            }
        }
    }
}

/// Get the map of dependencies
///
/// All services in the order in which they start, each with what it needs.
#[utoipa::path(
    get, path = "/api/v1/dependencies", operation_id = "get_dependencies", tag = "services",
    params(MapQuery),
    responses((status = 200, description = "The map", content(
        (DependencyMapView = "application/json"), (String = "text/vnd.mermaid"),
    ))),
)]
pub(crate) async fn map(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(form): Query<Form>,
) -> Result<Response, Refusal> {
    let found = context.control.dependencies(&caller).await?;
    Ok(match form {
        Form::Json => Answer(DependencyMapView::from(found)).into_response(),
        Form::Mermaid => {
            let chart = found.map.to_mermaid();
            ([(header::CONTENT_TYPE, MERMAID)], chart).into_response()
        }
    })
}

/// Get what breaks when a service stops
#[utoipa::path(
    get, path = "/api/v1/services/{service}/impact", operation_id = "get_service_impact",
    tag = "services", params(("service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "What depends on it", body = ImpactView)),
)]
pub(crate) async fn impact(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
) -> Result<Answer<ImpactView>, Refusal> {
    let affected = context.control.impact(&caller, &service.parse()?).await?;
    let affected = affected.into_iter().map(Into::into).collect();
    Ok(Answer(ImpactView { affected }))
}
