//! Templates: services with blanks, those of the binary and own ones.

use std::collections::BTreeMap;

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};
use vaxel_control::{Change, TemplateEntry};
use vaxel_core::{
    failure::{Failure, Issue},
    template::{Extends, Parameter, Template},
    time::Timestamp,
};

use crate::{
    context::Context,
    extract::{Caller, Json, On, Path},
    problem::{Refusal, tag},
};

/// A template.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TemplateView {
    /// Unique.
    #[schema(example = "filesystem")]
    name: String,
    /// Counts every write; stands in the `ETag`.
    version: u64,
    /// Whether it is part of Vaxel and cannot be changed.
    builtin: bool,
    /// Whether callers without `host:execute` may start programs by it.
    approved: bool,
    /// One sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// What it lets be filled in itself.
    parameters: BTreeMap<String, Parameter>,
    /// What it is laid over.
    #[serde(skip_serializing_if = "Option::is_none")]
    extends: Option<Extends>,
    /// Every template that it is laid over, the nearest first.
    chain: Vec<String>,
    /// Every parameter that it takes: its own, and what it leaves open of what it extends.
    accepts: BTreeMap<String, Parameter>,
    /// A part of a spec, with `${parameter}` in its texts.
    #[schema(value_type = Object)]
    spec: Map<String, Value>,
    /// Why it cannot be used as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<crate::problem::IssueView>)]
    problems: Vec<Issue>,
    /// Name of the user who wrote it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    /// First made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    /// Last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
}

impl From<TemplateEntry> for TemplateView {
    fn from(entry: TemplateEntry) -> Self {
        let TemplateEntry {
            template,
            version,
            written,
            chain,
            accepts,
            problems,
        } = entry;
        let Template {
            name,
            description,
            parameters,
            extends,
            spec,
            approved,
        } = template;
        Self {
            name: name.to_string(),
            version,
            builtin: written.is_none(),
            approved,
            description,
            parameters,
            extends,
            chain: chain.iter().map(ToString::to_string).collect(),
            accepts,
            spec,
            problems,
            author: written.as_ref().map(|one| one.author.clone()),
            created_at: written.as_ref().map(|one| one.created_at),
            updated_at: written.as_ref().map(|one| one.updated_at),
        }
    }
}

/// Every template.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TemplateListView {
    /// In the order of their names.
    items: Vec<TemplateView>,
}

/// What a template is made from.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body, which `Template::from_json` reads"
)]
pub(crate) struct TemplateBody {
    /// Unique; a-z, 0-9, `-` and `_`, at most 32 characters.
    #[schema(example = "team-files", max_length = 32)]
    name: String,
    /// One sentence for people.
    description: Option<String>,
    /// What can be filled in, by name.
    parameters: Option<BTreeMap<String, Parameter>>,
    /// What it is laid over: a template's name, or with values of its parameters.
    extends: Option<Extends>,
    /// A part of a spec. `${parameter}` in its texts stands for a value, `$$` for `$`; `null` takes away
    /// what is beneath.
    #[schema(value_type = Object)]
    spec: Option<Map<String, Value>>,
    /// Lets callers without `host:execute` start programs by it; needs that permission.
    approved: Option<bool>,
}

/// List the templates
///
/// Those that are part of Vaxel among them.
#[utoipa::path(
    get, path = "/api/v1/templates", operation_id = "list_templates", tag = "templates",
    responses((status = 200, description = "Every template, by name", body = TemplateListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<TemplateListView>, Refusal> {
    let templates = context.control.templates(&caller).await?;
    Ok(Answer(TemplateListView {
        items: templates.into_iter().map(Into::into).collect(),
    }))
}

/// Create a template
#[utoipa::path(
    post, path = "/api/v1/templates", operation_id = "create_template", tag = "templates",
    params(On),
    request_body(content = TemplateBody, example = json!({
        "name": "team-files",
        "parameters": { "team": { "type": "string", "required": true, "pattern": "[a-z]+" } },
        "extends": { "template": "filesystem", "with": { "root": "/srv/${team}" } },
        "spec": { "limits": { "memory": "256MiB" } }
    })),
    responses(
        (status = 201, description = "Stored", body = TemplateView, headers(
            ("Location" = String, description = "The template"),
            ("ETag" = String, description = "Its version"),
        )),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn create(
    Caller(caller): Caller,
    State(context): State<Context>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let change = Change::CreateTemplate(Box::new(template(&body)?));
    let entry = context
        .control
        .on(terms)
        .submit(&caller, change)
        .await?
        .into_template()?;
    let location = format!("/api/v1/templates/{}", entry.template.name);
    let mut response = tagged(StatusCode::CREATED, entry);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Get a template
#[utoipa::path(
    get, path = "/api/v1/templates/{template}", operation_id = "get_template", tag = "templates",
    params(("template" = String, Path, description = "Name")),
    responses((status = 200, description = "The template", body = TemplateView, headers(
        ("ETag" = String, description = "Its version"),
    ))),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let entry = context.control.template(&caller, &name).await?;
    Ok(tagged(StatusCode::OK, entry))
}

/// Replace a template
///
/// Services that were made from it stay as they are until they are refreshed.
#[utoipa::path(
    put, path = "/api/v1/templates/{template}", operation_id = "update_template",
    tag = "templates",
    params(
        ("template" = String, Path, description = "Name"),
        On,
    ),
    request_body = TemplateBody,
    responses(
        (status = 200, description = "Stored", body = TemplateView, headers(
            ("ETag" = String, description = "Its new version"),
        )),
        (status = 409, description = "It is part of Vaxel", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn update(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(name): Path<String>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let template = Box::new(template(&body)?);
    let change = Change::UpdateTemplate {
        name,
        template,
        expected: terms.expected,
    };
    let entry = context
        .control
        .on(terms)
        .submit(&caller, change)
        .await?
        .into_template()?;
    Ok(tagged(StatusCode::OK, entry))
}

/// Delete a template
///
/// Services that were made from it stay as they are. One that others extend is not deleted.
#[utoipa::path(
    delete, path = "/api/v1/templates/{template}", operation_id = "delete_template",
    tag = "templates",
    params(
        ("template" = String, Path, description = "Name"),
        On,
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 409, description = "Others extend it, or it is part of Vaxel", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn delete(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(name): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    let change = Change::DeleteTemplate {
        name,
        expected: terms.expected,
    };
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn template(body: &Value) -> Result<Template, Failure> {
    Template::from_json(body).map_err(|issues| Failure::invalid("The template", issues))
}

/// The template with its version as `ETag`.
fn tagged(status: StatusCode, entry: TemplateEntry) -> Response {
    let version = entry.version;
    let mut response = (status, Answer(TemplateView::from(entry))).into_response();
    tag(response.headers_mut(), version);
    response
}
