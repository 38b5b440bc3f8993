//! The route table, and the OpenAPI document that is made from it.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodRouter, get},
};
use utoipa::openapi::OpenApi;
use utoipa_axum::{
    PathItemExt,
    router::{OpenApiRouter, UtoipaMethodRouter},
};

use crate::{
    access, audit, authorization, backup, bundle, calls, compat, context::Context, dependencies,
    describe, docs, events, grants, health, keys, leases, logs, oauth, policies, problem,
    revisions, roles, server_keys, services, sign_ins, status, templates, tools, toolsets, usage,
    users,
};

/// The document that describes every endpoint of the table. It is large and takes a while to make: the
/// server sends the one that is kept in the repository.
pub(crate) fn document() -> OpenApi {
    let described = endpoints(OpenApiRouter::with_openapi(describe::head()));
    let mut document = described.into_openapi();
    describe::complete(&mut document);
    document
}

/// What reads the table.
trait Table {
    fn routes<D>(self, endpoints: Endpoints<D>) -> Self
    where
        D: FnOnce() -> UtoipaMethodRouter<Context>;
}

/// The endpoints of one path: what serves them, and what describes them when that is asked for.
struct Endpoints<D> {
    path: String,
    serve: MethodRouter<Context>,
    describe: D,
}

impl Table for Router<Context> {
    fn routes<D>(self, endpoints: Endpoints<D>) -> Self {
        self.route(&endpoints.path, endpoints.serve)
    }
}

impl Table for OpenApiRouter<Context> {
    fn routes<D>(self, endpoints: Endpoints<D>) -> Self
    where
        D: FnOnce() -> UtoipaMethodRouter<Context>,
    {
        OpenApiRouter::routes(self, (endpoints.describe)())
    }
}

/// Handlers of one path, from what `utoipa::path` says about them.
macro_rules! routes {
    ($($first:ident $(:: $rest:ident)*),+ $(,)?) => {{
        let [path, ..] = [$(utoipa_axum::routes!(@path [path()] of $first $(:: $rest)*)),+];
        let mut serve = MethodRouter::new();
        $(for method in utoipa_axum::routes!(@path [methods()] of $first $(:: $rest)*) {
            serve = serve.on(method.to_method_filter(), $first $(:: $rest)*);
        })+
        let describe = || utoipa_axum::routes!($($first $(:: $rest)*),+);
        Endpoints { path, serve, describe }
    }};
}

/// Every endpoint that the document describes.
fn endpoints<T: Table>(table: T) -> T {
    table
        .routes(routes!(services::list, services::create))
        .routes(routes!(services::get, services::update, services::delete))
        .routes(routes!(services::restore))
        .routes(routes!(services::start))
        .routes(routes!(services::stop))
        .routes(routes!(services::restart))
        .routes(routes!(health::get))
        .routes(routes!(health::check))
        .routes(routes!(health::accept))
        .routes(routes!(services::purge))
        .routes(routes!(revisions::list))
        .routes(routes!(revisions::get))
        .routes(routes!(revisions::diff))
        .routes(routes!(revisions::rollback))
        .routes(routes!(revisions::label, revisions::unlabel))
        .routes(routes!(events::list))
        .routes(routes!(usage::of_all))
        .routes(routes!(usage::of_service))
        .routes(routes!(services::stats))
        .routes(routes!(leases::renew))
        .routes(routes!(authorization::get, authorization::forget))
        .routes(routes!(dependencies::map))
        .routes(routes!(dependencies::impact))
        .routes(routes!(services::config::get))
        .routes(routes!(services::config::refresh))
        .routes(routes!(logs::read))
        .routes(routes!(calls::of_service))
        .routes(routes!(tools::service_tools))
        .routes(routes!(tools::service_prompts))
        .routes(routes!(tools::service_resources))
        .routes(routes!(tools::service_templates))
        .routes(routes!(tools::call_service_tool))
        .routes(routes!(tools::list))
        .routes(routes!(tools::get))
        .routes(routes!(tools::call_tool))
        .routes(routes!(toolsets::list, toolsets::create))
        .routes(routes!(toolsets::get, toolsets::update, toolsets::delete))
        .routes(routes!(bundle::export))
        .routes(routes!(bundle::apply))
        .routes(routes!(calls::list))
        .routes(routes!(templates::list, templates::create))
        .routes(routes!(
            templates::get,
            templates::update,
            templates::delete
        ))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::get, users::update, users::delete))
        .routes(routes!(roles::list, roles::create))
        .routes(routes!(roles::get, roles::update, roles::delete))
        .routes(routes!(grants::list, grants::create))
        .routes(routes!(grants::get, grants::delete))
        .routes(routes!(policies::list, policies::create))
        .routes(routes!(policies::get, policies::update, policies::delete))
        .routes(routes!(access::whoami))
        .routes(routes!(access::explain))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::verify))
        .routes(routes!(audit::get))
        .routes(routes!(sign_ins::login))
        .routes(routes!(sign_ins::renew))
        .routes(routes!(sign_ins::logout))
        .routes(routes!(sign_ins::list))
        .routes(routes!(sign_ins::end))
        .routes(routes!(oauth::clients::list))
        .routes(routes!(oauth::clients::delete))
        .routes(routes!(sign_ins::set_password))
        .routes(routes!(sign_ins::key_set))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(server_keys::root_key))
        .routes(routes!(server_keys::rotate_root_key))
        .routes(routes!(server_keys::signing_keys))
        .routes(routes!(server_keys::rotate_signing_keys))
        .routes(routes!(status::get))
        .routes(routes!(status::shutdown))
        .routes(routes!(backup::create))
        .routes(routes!(status::live))
        .routes(routes!(status::ready))
        .routes(routes!(status::metrics))
}

/// The whole router. Layers, outermost first: every answer gets its request id and what
/// browsers are told, and failures their document; bodies are bounded.
pub(crate) fn router(context: Context) -> Router {
    endpoints(Router::new())
        .merge(compat::router())
        .merge(oauth::router())
        .route("/", get(docs::home))
        .route("/docs", get(docs::reader_folder))
        .route("/docs/", get(docs::reader))
        .route("/docs/{file}", get(docs::reader_file))
        .route("/errors", get(docs::errors))
        .route("/errors/{slug}", get(docs::error))
        .route("/api/v1/openapi.json", get(docs::openapi))
        .route("/api/v1/schemas/service", get(services::config::schema))
        .fallback(problem::unknown_path)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(context.config.body_max))
        .layer(middleware::from_fn_with_state(
            context.clone(),
            problem::render,
        ))
        .with_state(context)
}

#[cfg(test)]
mod tests;
