//! What a service is told of its callers: by a token that Vaxel signs for it alone.

use serde::{Deserialize, Serialize};

use super::{McpAuth, Source, read::header_problem};
use crate::fields::Fields;

/// The header in which it is told when the service names none.
const HEADER: &str = "X-Vaxel-Identity";
/// Longest name of a header, bytes.
const HEADER_MAX: usize = 100;
/// Headers that say something else to a service.
const TAKEN: &[&str] = &[
    "baggage",
    "cookie",
    "traceparent",
    "tracestate",
    "x-request-id",
];

/// Whether a service is told who calls, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Not at all.
    #[default]
    None,
    /// By a signed token (JWT) with every request, good for a minute and for this service alone.
    Jwt(IdentityToken),
}

/// How a service is given the token that says who calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IdentityToken {
    /// The header that it comes in, of services that are reached over HTTP; `X-Vaxel-Identity` when absent. In
    /// `Authorization` it follows the word `Bearer`. Programs and connections that last find it in `_meta`,
    /// under `dev.vaxel/identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100, example = "X-Vaxel-Identity")]
    pub header: Option<String>,
}

impl Identity {
    /// Whether it is told nothing.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// How it is given a token, where it is.
    pub const fn token(&self) -> Option<&IdentityToken> {
        match self {
            Self::None => None,
            Self::Jwt(token) => Some(token),
        }
    }
}

impl IdentityToken {
    /// The header that it comes in over HTTP.
    pub fn header(&self) -> &str {
        self.header.as_deref().unwrap_or(HEADER)
    }
}

/// Reads `identity` of a spec with this source.
pub(super) fn read(fields: &mut Fields<'_>, source: Option<&Source>) -> Identity {
    let token = match fields.value("identity") {
        None => return Identity::None,
        Some(value) if value == "none" => return Identity::None,
        Some(_) => fields.nested("identity", |fields| {
            if !fields.has("jwt") {
                fields.issue("jwt", "is missing: write `none` or an object with `jwt`");
            }
            fields.nested("jwt", |fields| token(fields, source))
        }),
    };
    if matches!(source, Some(Source::Builtin(_))) {
        fields.issue(
            "identity",
            "a server that is part of the binary asks for none",
        );
    }
    token.flatten().map_or(Identity::None, Identity::Jwt)
}

fn token(fields: &mut Fields<'_>, source: Option<&Source>) -> IdentityToken {
    let token = IdentityToken {
        header: fields.string("header"),
    };
    if let Some(problem) = source.and_then(|source| problem(token.header(), source)) {
        fields.issue("header", problem);
    }
    token
}

/// Why the token cannot come in this header.
fn problem(name: &str, source: &Source) -> Option<String> {
    if name.len() > HEADER_MAX {
        return Some(format!("has more than {HEADER_MAX} characters"));
    }
    if let Some(problem) = header_problem(name, "") {
        return Some(problem.to_owned());
    }
    let is = |other: &str| other.eq_ignore_ascii_case(name);
    if TAKEN.iter().any(|taken| is(taken)) || name.to_ascii_lowercase().starts_with("mcp-") {
        return Some("says something else to a service".to_owned());
    }
    let (headers, auth) = match source {
        Source::Mcp(mcp) => (&mcp.headers, Some(&mcp.auth)),
        Source::Http(http) => (&http.headers, None),
        Source::Process(_) | Source::Builtin(_) => return None,
    };
    if headers.keys().any(|own| is(own)) {
        return Some(
            "stands in the service's `headers` already; leave one of the two out".to_owned(),
        );
    }
    let is_oauth = auth.is_some_and(|auth| !McpAuth::is_none(auth));
    (is_oauth && is("authorization"))
        .then(|| "holds the service's token of OAuth; name another one".to_owned())
}
