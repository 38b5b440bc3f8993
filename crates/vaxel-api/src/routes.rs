//! The route table, and the OpenAPI document that is made from it.

use axum::{Router, extract::DefaultBodyLimit, middleware, routing::get};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    backup, bundle, calls, compat, context::Context, dependencies, describe, docs, events, health,
    keys, leases, logs, problem, revisions, services, status, templates, tools, toolsets, usage,
};

/// Every endpoint that the document describes.
pub(crate) fn described() -> (Router<Context>, OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(describe::head())
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
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(status::get))
        .routes(routes!(status::shutdown))
        .routes(routes!(backup::create))
        .routes(routes!(status::live))
        .routes(routes!(status::ready))
        .routes(routes!(status::metrics))
        .split_for_parts();
    describe::complete(&mut document);
    (router, document)
}

/// The whole router. Layers, outermost first: every answer gets its request id and failures their
/// document; bodies are bounded.
pub(crate) fn router(context: Context, described: Router<Context>) -> Router {
    described
        .merge(compat::router())
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
        .layer(middleware::from_fn(problem::render))
        .with_state(context)
}

#[cfg(test)]
mod tests;
