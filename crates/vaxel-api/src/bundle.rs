//! Many resources at once: one document out, one document in.

use axum::{Json as Answer, extract::State};
use serde::Serialize;
use serde_json::Value;
use vaxel_control::{Plan, ServiceRef, Step, Terms};
use vaxel_core::{
    bundle::{Bundle, FORM, Parts, StepAction, StepResource, WantedService},
    difference::Difference,
    failure::{Failure, Issue},
    fields::Fields,
    service::{ServiceDraft, stored::FORMAT},
    template::Template,
    toolset::ToolsetDraft,
};

use crate::{
    compat::stage6,
    context::Context,
    extract::{Caller, FromQuery, Json, Query},
    problem::Refusal,
    services::Form,
};

/// Services and sets in one document; what an apply reads.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct BundleView {
    /// The form of the document.
    #[schema(example = 1)]
    vaxel: u64,
    /// The format of the specs in it.
    #[schema(example = 1)]
    format: usize,
    /// In the order of their names. Sealed values stand as `secret:` references.
    #[schema(value_type = Vec<ServiceDraft>)]
    services: Vec<Value>,
    /// In the order of their names; absent when only some services, or the archive, were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    toolsets: Option<Vec<ToolsetDraft>>,
    /// Own templates, in the order of their names; absent like the sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<crate::templates::TemplateBody>>)]
    templates: Option<Vec<Template>>,
}

/// What is exported.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct ExportQuery {
    /// Only these, by id or name, separated by commas.
    #[param(example = "files,web")]
    services: Option<String>,
    /// The archive instead of what is in use.
    deleted: Option<bool>,
    /// `stage6` for services in the form of the Stage 6 registry.
    form: Option<String>,
}

/// [`ExportQuery`], read.
pub(crate) struct Export {
    services: Vec<String>,
    deleted: bool,
    form: Form,
}

impl FromQuery for Export {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let services = fields.string("services").unwrap_or_default();
        let named = services.split(',').filter(|name| !name.is_empty());
        let services: Vec<String> = named.map(str::to_owned).collect();
        let deleted = fields.parsed("deleted").unwrap_or(false);
        if deleted && !services.is_empty() {
            fields.issue(
                "deleted",
                "takes the whole archive: give no `services` with it",
            );
        }
        Self {
            services,
            deleted,
            form: Form::from_query(fields),
        }
    }
}

/// Export services and sets
///
/// One document with everything that was asked for of them, which `apply` reads. It holds no secret:
/// sealed values stand as references.
#[utoipa::path(
    get, path = "/api/v1/export", operation_id = "export_bundle", tag = "bundle",
    params(ExportQuery),
    responses((status = 200, description = "The document", body = BundleView)),
)]
pub(crate) async fn export(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(query): Query<Export>,
) -> Result<Answer<BundleView>, Refusal> {
    let control = &context.control;
    let names: Result<Vec<ServiceRef>, Failure> =
        query.services.iter().map(|name| name.parse()).collect();
    let names = names?;
    let mut services = Vec::new();
    for service in control.export(&caller, &names, query.deleted).await? {
        services.push(match query.form {
            Form::Canonical => serde_json::to_value(ServiceDraft::from(service.resource))
                .map_err(Failure::internal)?,
            Form::Stage6 => stage6::shown(&context, &caller, &service).await?,
        });
    }
    let mut bundle = BundleView {
        vaxel: FORM,
        format: FORMAT,
        services,
        toolsets: None,
        templates: None,
    };
    if !query.deleted && names.is_empty() {
        let all = control.toolsets(&caller).await?.into_iter();
        bundle.toolsets = Some(all.map(|one| one.resource.into()).collect());
        let all = control.templates(&caller).await?.into_iter();
        let own = all.filter(|one| one.written.is_some());
        bundle.templates = Some(own.map(|one| one.template).collect());
    }
    Ok(Answer(bundle))
}

/// How a document is applied.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct ApplyQuery {
    /// Only say what would be done.
    dry_run: Option<bool>,
    /// Remove services with this tag that the document does not hold; they go to the archive.
    #[param(example = "team-a")]
    prune: Option<String>,
    /// Why, for whoever reads the history
    #[param(max_length = 500)]
    message: Option<String>,
}

/// [`ApplyQuery`], read.
pub(crate) struct Apply {
    dry_run: bool,
    prune: Option<String>,
    message: Option<String>,
}

impl FromQuery for Apply {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let prune = fields.string("prune");
        if prune.as_deref() == Some("") {
            fields.issue("prune", "must name a tag");
        }
        Self {
            dry_run: fields.parsed("dry_run").unwrap_or(false),
            prune,
            message: fields.string("message"),
        }
    }
}

/// What was done, or would be.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ApplyView {
    /// Whether nothing was written because nothing was to be written.
    dry_run: bool,
    /// In the order in which it is done: services after what they need, removals last.
    steps: Vec<StepView>,
    /// What was taken otherwise than it stands, from the configuration of a client.
    #[schema(value_type = Vec<String>)]
    notes: Vec<String>,
}

/// What is done with one resource.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct StepView {
    /// What it is.
    resource: StepResource,
    /// Its name.
    #[schema(example = "files")]
    name: String,
    /// What is done.
    action: StepAction,
    /// Place by place. New values that may be secret are `***`.
    differences: Vec<Difference>,
}

impl From<Step> for StepView {
    fn from(step: Step) -> Self {
        Self {
            resource: step.resource,
            name: step.name,
            action: step.action,
            differences: step.differences,
        }
    }
}

/// Make everything as a document asks for
///
/// The document is what `export` answers, a list of services, one service, or a client's configuration
/// with `mcpServers`. What is there already as it is asked for is not written, so that the same document
/// can be applied again. Every problem of every resource is named before anything is written; then each
/// service is one change, and the first that fails ends it, saying what was done before.
#[utoipa::path(
    post, path = "/api/v1/apply", operation_id = "apply_bundle", tag = "bundle",
    params(ApplyQuery),
    request_body(content = BundleView, example = json!({
        "vaxel": 1,
        "services": [{ "name": "time", "spec": { "source": { "builtin": "demo" } } }],
        "toolsets": [{ "name": "work", "services": [{ "service": "time" }] }]
    })),
    responses(
        (status = 200, description = "What was done, or would be", body = ApplyView),
        (status = 409, description = "A name was taken meanwhile", body = crate::problem::Problem),
        (status = 412, description = "A service was changed meanwhile", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn apply(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(query): Query<Apply>,
    Json(body): Json,
) -> Result<Answer<ApplyView>, Refusal> {
    let mut parts = Parts::of(&body);
    let notes = std::mem::take(&mut parts.notes);
    let read = |body: &Value| match Form::of(body) {
        Form::Canonical => WantedService::from_json(body),
        Form::Stage6 => stage6::wanted(body),
    };
    let bundle = Bundle::read(parts, read);
    let control = context.control.on(Terms {
        expected: None,
        message: query.message,
    });
    let prune = query.prune.as_deref();
    let Plan { steps } = if query.dry_run {
        control.plan(&caller, bundle, prune).await?
    } else {
        control.apply_bundle(&caller, bundle, prune).await?
    };
    Ok(Answer(ApplyView {
        dry_run: query.dry_run,
        steps: steps.into_iter().map(Into::into).collect(),
        notes: notes.iter().map(Issue::to_string).collect(),
    }))
}
