//! Services: what runs or is reached, its desired state and what is seen of it.

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use vaxel_control::{Change, Observed, Page, ServiceFilter};
use vaxel_core::{fields::Fields, lifecycle::Lifecycle, principal::Principal, status::Health};

use crate::{
    compat::stage6,
    context::Context,
    extract::{Caller, FromQuery, Json, On, Path, Query, page},
    problem::{Refusal, tag},
};

pub(crate) mod config;
mod view;

pub(crate) use view::ServiceView;
use view::{ServiceBody, ServiceListView, StatsView};

/// Which services, and which page of them.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct ListQuery {
    /// Only those whose name, description, command or URL holds this text.
    text: Option<String>,
    /// Only those with this tag; with all of them, separated by commas.
    tag: Option<String>,
    /// Only those of this environment.
    environment: Option<String>,
    /// Only those that the key of this name created.
    owner: Option<String>,
    /// Only those of this kind: `process`, `mcp`, `http` or `builtin`.
    source: Option<String>,
    /// Another word for `source`.
    r#type: Option<String>,
    /// Only those in this state of the lifecycle.
    state: Option<Lifecycle>,
    /// Another word for `state`.
    status: Option<Lifecycle>,
    /// Only those that offer a tool of this name, their own or the exposed one; `*` stands for any run
    /// of characters.
    #[param(example = "read_*")]
    tool: Option<String>,
    /// Only those with this health.
    health: Option<Health>,
    /// The archive instead of what is in use.
    deleted: Option<bool>,
    /// `name` (default), `created`, `updated`, `health` (those that need a look first) or `calls`; with
    /// `-` before it the other way round.
    #[param(example = "-calls")]
    sort: Option<String>,
    /// Longest page, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// [`ListQuery`], read.
pub(crate) struct Listing(ServiceFilter, Page);

impl FromQuery for Listing {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let source = (fields.string("source"), fields.string("type"));
        let source = either(fields, ("source", "type"), source);
        let word = |word: Word<Lifecycle>| word.0;
        let state = (
            fields.parsed("state").map(word),
            fields.parsed("status").map(word),
        );
        let state = either(fields, ("state", "status"), state);
        let filter = ServiceFilter {
            text: fields.string("text"),
            tags: tags(fields),
            environment: fields.string("environment"),
            owner: fields.string("owner"),
            source,
            state,
            tool: fields.string("tool"),
            health: fields.parsed::<Word<Health>>("health").map(|word| word.0),
            deleted: fields.parsed("deleted").unwrap_or(false),
            sort: fields.parsed("sort").unwrap_or_default(),
        };
        Self(filter, page(fields))
    }
}

fn tags(fields: &mut Fields<'_>) -> Vec<String> {
    let text = fields.string("tag").unwrap_or_default();
    let tags = text.split(',').filter(|tag| !tag.is_empty());
    tags.map(str::to_owned).collect()
}

/// What stands under one of two words for the same thing.
fn either<T>(
    fields: &mut Fields<'_>,
    (word, other): (&str, &str),
    (one, two): (Option<T>, Option<T>),
) -> Option<T> {
    if one.is_some() && two.is_some() {
        fields.issue(
            other,
            format!("is another word for `{word}`: give one of them"),
        );
    }
    one.or(two)
}

/// A value of one of our closed sets, as it stands in a query string.
struct Word<T>(T);

impl<T: serde::de::DeserializeOwned> std::str::FromStr for Word<T> {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).map(Self)
    }
}

/// List services
///
/// A page at a time, in the order that `sort` names.
#[utoipa::path(
    get, path = "/api/v1/services", operation_id = "list_services", tag = "services",
    params(ListQuery),
    responses((status = 200, description = "One page", body = ServiceListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(Listing(filter, page)): Query<Listing>,
) -> Result<Answer<ServiceListView>, Refusal> {
    let list = context.control.services(&caller, &filter, &page).await?;
    Ok(Answer(list.into()))
}

/// Create a service
///
/// Answers when the service is stored; it is started in the background. See its health for when it is
/// ready. With `extends` it is made from a template, and `spec` holds what is to be different.
#[utoipa::path(
    post, path = "/api/v1/services", operation_id = "create_service", tag = "services",
    params(On),
    request_body(content = ServiceBody, example = json!({
        "name": "everything",
        "spec": { "source": { "process": {
            "command": "npx", "args": ["-y", "@modelcontextprotocol/server-everything"]
        } } }
    })),
    responses(
        (status = 201, description = "Stored", body = ServiceView, headers(
            ("Location" = String, description = "The service"),
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
    let change = match Form::of(&body) {
        Form::Canonical => Change::create(&body)?,
        Form::Stage6 => stage6::create(&body)?,
    };
    let service = context
        .control
        .on(terms)
        .submit(&caller, change)
        .await?
        .into_service()?;
    let location = format!("/api/v1/services/{}", service.resource.id);
    let mut response = match Form::of(&body) {
        Form::Canonical => tagged(StatusCode::CREATED, service),
        Form::Stage6 => {
            let shown = stage6::shown(&context, &caller, &service).await?;
            (StatusCode::CREATED, Answer(shown)).into_response()
        }
    };
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Get a service
#[utoipa::path(
    get, path = "/api/v1/services/{service}", operation_id = "get_service", tag = "services",
    params(("service" = String, Path, description = "Id or name"), FormQuery),
    responses((status = 200, description = "The service", body = ServiceView, headers(
        ("ETag" = String, description = "Its version"),
    ))),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    Query(form): Query<Form>,
) -> Result<Response, Refusal> {
    let service = context.control.service(&caller, &service.parse()?).await?;
    show(&context, &caller, (form, service)).await
}

/// In which form a service is shown.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct FormQuery {
    /// `stage6` for the form of the Stage 6 registry.
    #[param(example = "stage6")]
    form: Option<String>,
}

/// [`FormQuery`], read.
pub(crate) enum Form {
    Canonical,
    Stage6,
}

impl FromQuery for Form {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        match fields.string("form").as_deref() {
            None => Self::Canonical,
            Some("stage6") => Self::Stage6,
            Some(other) => {
                fields.issue(
                    "form",
                    format!("`{other}` is no form of a service: write stage6"),
                );
                Self::Canonical
            }
        }
    }
}

impl Form {
    /// Who writes in a form reads it, too.
    pub(crate) fn of(body: &serde_json::Value) -> Self {
        if stage6::is_one(body) {
            Self::Stage6
        } else {
            Self::Canonical
        }
    }
}

async fn show(
    context: &Context,
    caller: &Principal,
    (form, service): (Form, Observed),
) -> Result<Response, Refusal> {
    Ok(match form {
        Form::Canonical => tagged(StatusCode::OK, service),
        Form::Stage6 => Answer(stage6::shown(context, caller, &service).await?).into_response(),
    })
}

/// Replace a service's desired state
///
/// `If-Match` with the `ETag` of an earlier answer refuses to overwrite what someone else wrote
/// meanwhile. `secret:` references in the body keep the values that they stand for.
#[utoipa::path(
    put, path = "/api/v1/services/{service}", operation_id = "update_service", tag = "services",
    params(
        ("service" = String, Path, description = "Id or name"),
        On,
    ),
    request_body = ServiceBody,
    responses(
        (status = 200, description = "Stored", body = ServiceView, headers(
            ("ETag" = String, description = "Its new version"),
        )),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn update(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let change = match Form::of(&body) {
        Form::Canonical => Change::update(service.parse()?, &body, terms.expected)?,
        Form::Stage6 => stage6::update(service.parse()?, &body, terms.expected)?,
    };
    let service = context
        .control
        .on(terms)
        .submit(&caller, change)
        .await?
        .into_service()?;
    show(&context, &caller, (Form::of(&body), service)).await
}

/// Delete a service
///
/// It is stopped and goes to the archive; `restore` brings it back.
#[utoipa::path(
    delete, path = "/api/v1/services/{service}", operation_id = "delete_service", tag = "services",
    params(
        ("service" = String, Path, description = "Id or name"),
        On,
    ),
    responses((status = 200, description = "In the archive", body = ServiceView)),
)]
pub(crate) async fn delete(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    On(terms): On,
) -> Result<Response, Refusal> {
    let change = Change::DeleteService {
        service: service.parse()?,
        expected: terms.expected,
    };
    let service = context
        .control
        .on(terms)
        .submit(&caller, change)
        .await?
        .into_service()?;
    Ok(tagged(StatusCode::OK, service))
}

/// Bring a service back from the archive
#[utoipa::path(
    post, path = "/api/v1/services/{service}/restore", operation_id = "restore_service",
    tag = "services", params(
        ("service" = String, Path, description = "Id or name"), On,
    ),
    responses(
        (status = 202, description = "Stored; it starts in the background", body = ServiceView),
        (status = 409, description = "The name is taken meanwhile", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn restore(
    caller: Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    terms: On,
) -> Result<Response, Refusal> {
    turn(
        caller,
        (&context, terms),
        Change::RestoreService(service.parse()?),
    )
    .await
}

/// Start a service
#[utoipa::path(
    post, path = "/api/v1/services/{service}/start", operation_id = "start_service",
    tag = "services", params(
        ("service" = String, Path, description = "Id or name"), On,
    ),
    responses((status = 202, description = "Stored; it starts in the background", body = ServiceView)),
)]
pub(crate) async fn start(
    caller: Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    terms: On,
) -> Result<Response, Refusal> {
    turn(
        caller,
        (&context, terms),
        Change::StartService(service.parse()?),
    )
    .await
}

/// Stop a service
#[utoipa::path(
    post, path = "/api/v1/services/{service}/stop", operation_id = "stop_service",
    tag = "services", params(
        ("service" = String, Path, description = "Id or name"), On,
    ),
    responses((status = 202, description = "Stored; it stops in the background", body = ServiceView)),
)]
pub(crate) async fn stop(
    caller: Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    terms: On,
) -> Result<Response, Refusal> {
    turn(
        caller,
        (&context, terms),
        Change::StopService(service.parse()?),
    )
    .await
}

/// Restart a service
///
/// Its instances end, then new ones start.
#[utoipa::path(
    post, path = "/api/v1/services/{service}/restart", operation_id = "restart_service",
    tag = "services", params(
        ("service" = String, Path, description = "Id or name"), On,
    ),
    responses(
        (status = 202, description = "It restarts in the background", body = ServiceView),
        (status = 409, description = "The service is stopped", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn restart(
    caller: Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    terms: On,
) -> Result<Response, Refusal> {
    turn(
        caller,
        (&context, terms),
        Change::RestartService(service.parse()?),
    )
    .await
}

/// Remove a service from the archive for good
///
/// With its revisions and sealed values. Records of its calls and what was audited stay.
#[utoipa::path(
    post, path = "/api/v1/services/{service}/purge", operation_id = "purge_service",
    tag = "services", params(("service" = String, Path, description = "Id or name"), On),
    responses(
        (status = 204, description = "Gone"),
        (status = 409, description = "The service is not deleted", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn purge(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    let change = Change::PurgeService(service.parse()?);
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn turn(
    Caller(caller): Caller,
    (context, On(terms)): (&Context, On),
    change: Change,
) -> Result<Response, Refusal> {
    let service = context
        .control
        .on(terms)
        .submit(&caller, change)
        .await?
        .into_service()?;
    Ok(tagged(StatusCode::ACCEPTED, service))
}

/// Get the figures of a service's calls
#[utoipa::path(
    get, path = "/api/v1/services/{service}/stats", operation_id = "get_service_stats",
    tag = "services", params(("service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The figures", body = StatsView)),
)]
pub(crate) async fn stats(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
) -> Result<Answer<StatsView>, Refusal> {
    let stats = context.control.stats(&caller, &service.parse()?).await?;
    Ok(Answer(stats.into()))
}

/// The service with its version as `ETag`.
pub(crate) fn tagged(status: StatusCode, service: Observed) -> Response {
    let version = service.resource.version;
    let mut response = (status, Answer(ServiceView::from(service))).into_response();
    tag(response.headers_mut(), version);
    response
}
