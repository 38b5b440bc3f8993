//! Pages for people: the front page, the API's reading page, and one page per kind of error. Nothing
//! here loads anything from another host, and the pages' policy says so to the browser.

use std::{fmt::Write, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use vaxel_core::failure::{Failure, Kind};

use crate::{
    context::Context,
    extract::{Path, Public},
    markdown::{escape, to_html},
    problem::Refusal,
};

/// Slug and text of every page in `docs/errors`.
const ERROR_PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

/// The API's description; a test holds it to the handlers. Making it would take time and memory at every
/// start, and hardly anyone reads it.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// Our own pages: no script, styles of their own.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
form-action 'none'; frame-ancestors 'none'";
/// The reading page runs its own script, which writes styles and asks this server only.
const READER_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const STYLE: &str = "body{font:16px/1.55 system-ui,sans-serif;max-width:44rem;margin:3rem auto;\
padding:0 1rem;color:#1d2330;background:#fff}code,pre{font:14px/1.5 ui-monospace,monospace;\
background:#f1f3f7;border-radius:4px}code{padding:.1em .3em}pre{padding:.8rem;overflow:auto}\
pre code{padding:0}a{color:#2456c8}h1{font-size:1.6rem}dt{font-weight:600;margin-top:.8rem}\
dd{margin:0}@media(prefers-color-scheme:dark){body{color:#dde2ec;background:#14171d}\
code,pre{background:#232832}a{color:#8fb2ff}}";

/// The front page: where everything is.
pub(crate) async fn home(_: Public, State(context): State<Context>) -> Response {
    let base = escape(&context.config.base);
    let body = format!(
        "<h1>Vaxel</h1><p>This server runs, reaches and guards MCP servers.</p><dl>\
         <dt>For MCP clients</dt><dd><code>{base}/mcp</code> has the tools of every service, \
         <code>{base}/mcp/NAME</code> those of one. <code>vaxel connect</code> writes a client's \
         configuration.</dd>\
         <dt>For programs</dt><dd><code>{base}/api/v1</code>, described in <a href=\"/docs/\">/docs</a> \
         and <a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a></dd>\
         <dt>For people</dt><dd><code>vaxel ls</code>, <code>vaxel tools</code>, \
         <code>vaxel --help</code></dd>\
         <dt>When something goes wrong</dt><dd><a href=\"/errors\">every kind of error, explained</a>\
         </dd></dl>"
    );
    html("Vaxel", &body)
}

/// The list of error pages.
pub(crate) async fn errors(_: Public) -> Response {
    let mut body = String::from(
        "<h1>Errors</h1><p>Every answer that is no success names one of \
these as its <code>type</code>.</p><ul>",
    );
    for (slug, text) in ERROR_PAGES {
        let title = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches('#')
            .trim();
        // Writing to a string cannot fail.
        let _ = write!(
            body,
            "<li><a href=\"/errors/{slug}\">{}</a></li>",
            escape(title)
        );
    }
    body.push_str("</ul>");
    html("Errors", &body)
}

/// The page of one kind of error.
pub(crate) async fn error(_: Public, Path(slug): Path<String>) -> Result<Response, Refusal> {
    let page = ERROR_PAGES.iter().find(|(known, _)| *known == slug);
    let (slug, text) = page.ok_or_else(|| {
        Failure::new(
            Kind::NotFound,
            "There is no such kind of error; `/errors` lists them",
        )
    })?;
    Ok(html(slug, &to_html(text)))
}

/// `/docs` is a folder: the page's files are found beside it.
pub(crate) async fn reader_folder(_: Public) -> Redirect {
    Redirect::permanent("/docs/")
}

/// The reading page.
pub(crate) async fn reader(_: Public) -> Response {
    reader_part("index.html")
}

/// A file of the reading page.
pub(crate) async fn reader_file(_: Public, Path(file): Path<String>) -> Response {
    reader_part(&file)
}

fn reader_part(file: &str) -> Response {
    let config = utoipa_swagger_ui::Config::new(["/api/v1/openapi.json"])
        .validator_url("none")
        .persist_authorization(false)
        .try_it_out_enabled(true);
    let found = utoipa_swagger_ui::serve(file, Arc::new(config))
        .ok()
        .flatten();
    let Some(found) = found else {
        let detail = "The reading page has no such file; it is at `/docs/`";
        return Refusal(Failure::new(Kind::NotFound, detail)).into_response();
    };
    let mut response = found.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&found.content_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if found.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    guarded(response, READER_POLICY)
}

/// The API's description.
pub(crate) async fn openapi(_: Public) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::OK, kind, OPENAPI).into_response()
}

fn html(title: &str, body: &str) -> Response {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>",
        escape(title)
    );
    guarded(Html(page).into_response(), PAGE_POLICY)
}

fn guarded(mut response: Response, policy: &'static str) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(policy),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

#[cfg(test)]
mod tests {
    use vaxel_core::failure::{KINDS, facts};

    use super::*;

    #[test]
    fn every_kind_of_failure_has_a_page_and_every_page_a_kind() {
        let mut slugs: Vec<&str> = KINDS.iter().map(|kind| facts(*kind).slug).collect();
        slugs.sort_unstable();
        let pages: Vec<&str> = ERROR_PAGES.iter().map(|(slug, _)| *slug).collect();
        assert_eq!(slugs, pages);
        for (slug, text) in ERROR_PAGES {
            assert!(
                text.starts_with("# "),
                "docs/errors/{slug}.md begins with its title"
            );
        }
    }

    #[test]
    fn the_reading_page_loads_nothing_from_elsewhere() {
        let config = Arc::new(utoipa_swagger_ui::Config::new(["/api/v1/openapi.json"]));
        for file in ["index.html", "index.css", "swagger-initializer.js"] {
            let found = utoipa_swagger_ui::serve(file, Arc::clone(&config))
                .unwrap()
                .unwrap();
            let text = String::from_utf8(found.bytes.into_owned()).unwrap();
            for place in [
                "src=\"http",
                "href=\"http",
                "src=\"//",
                "href=\"//",
                "@import",
                "url(http",
            ] {
                assert!(!text.contains(place), "{file} holds {place}");
            }
        }
    }
}
