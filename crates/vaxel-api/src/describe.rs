//! What every operation of the OpenAPI document has in common, written once: the head, the security
//! scheme, and the failures that follow from an operation's shape.

use utoipa::openapi::{
    ContentBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder,
    path::{Operation, Parameter, ParameterIn},
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    tag::TagBuilder,
};

const INTRODUCTION: &str = "The management API of Vaxel: everything that the command line does. \
Send an API key as `Authorization: Bearer KEY` (or `X-API-Key: KEY`); the first one stands in \
`admin.key` in the data directory. Times are RFC 3339. Every answer that is no success is an \
`application/problem+json` document (RFC 9457) whose `type` is a page on this server.";

const SCHEME: &str = "api_key";

/// The document before the routes are added.
pub(crate) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Vaxel")
        .version("1")
        .description(Some(INTRODUCTION))
        .license(Some(utoipa::openapi::License::new("Apache-2.0")))
        .build();
    let tags = [
        ("services", "What runs or is reached"),
        ("revisions", "What was wanted of services, and the way back"),
        ("events", "Every change, as it happens"),
        ("tools", "What services offer, and calling it"),
        (
            "toolsets",
            "Sets: selections of what services offer, at addresses of their own",
        ),
        ("bundle", "Many services and sets in one document"),
        ("calls", "Records of calls, and what they add up to"),
        ("templates", "Services with blanks"),
        ("access", "Users, and what they may do"),
        ("keys", "API keys"),
        ("audit", "Who did what, and whether nobody touched that"),
        ("server", "The server itself"),
    ];
    let tags =
        tags.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    OpenApiBuilder::new()
        .info(info)
        .tags(Some(tags))
        .security(Some([SecurityRequirement::new(
            SCHEME,
            Vec::<String>::new(),
        )]))
        .build()
}

/// Adds the security scheme and, to each operation, the failures that its shape makes possible.
pub(crate) fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme(SCHEME, scheme);
    for item in document.paths.paths.values_mut() {
        let operations = [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Put, &mut item.put),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Delete, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                add_failures(&method, operation);
            }
        }
    }
}

fn add_failures(method: &HttpMethod, operation: &mut Operation) {
    let parameters: Vec<&Parameter> = operation
        .parameters
        .iter()
        .flatten()
        .filter_map(|one| match one {
            RefOr::T(parameter) => Some(parameter),
            RefOr::Ref(_) => None,
        })
        .collect();
    let has = |place: &ParameterIn| parameters.iter().any(|one| one.parameter_in == *place);
    let (by_path, by_query) = (has(&ParameterIn::Path), has(&ParameterIn::Query));
    let by_header = parameters.iter().any(|one| one.name == "If-Match");
    let body = operation.request_body.is_some();
    let open = operation.security.as_ref().is_some_and(|needed| {
        needed
            .iter()
            .all(|one| *one == SecurityRequirement::default())
    });
    let writes = !matches!(method, HttpMethod::Get);
    let failures: [(bool, u16, &str); 10] = [
        (body, 400, "The body is not JSON"),
        (
            !open,
            401,
            "No API key, or one that is unknown, expired or revoked",
        ),
        (!open, 403, "The key lacks a permission"),
        (by_path, 404, "There is no such thing"),
        (by_header, 412, "Changed by someone else meanwhile"),
        (body, 413, "The body is too long"),
        (
            body || by_query || by_header,
            422,
            "The input has problems; `errors` names them all",
        ),
        (
            !open,
            429,
            "Too much at once; try again after `retry_after` seconds",
        ),
        (!open, 500, "A fault of the server; its log has the details"),
        (writes, 503, "Nothing can be written or reached right now"),
    ];
    for (_, status, description) in failures.into_iter().filter(|(possible, _, _)| *possible) {
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.to_string())
            .or_insert_with(|| problem(description));
    }
    // Failures that a handler declares itself are the same kind of document.
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.as_str() >= "400"
            && let Some(content) = response.content.swap_remove("application/json")
        {
            response
                .content
                .insert("application/problem+json".to_owned(), content);
        }
    }
}

fn problem(description: &str) -> RefOr<utoipa::openapi::Response> {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content)
        .build();
    RefOr::T(response)
}
