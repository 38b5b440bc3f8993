//! What a remote server wants to be shown beside headers: tokens of OAuth, and how Vaxel gets them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::fields::Fields;

/// Longest text of a client's id, secret or scope, bytes.
const TEXT_MAX: usize = 2_000;
/// Most scopes that are asked for.
const SCOPES_MAX: usize = 100;

/// How Vaxel proves itself to a remote server, beside the headers that are configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum McpAuth {
    /// Not at all: the configured headers are all there is.
    #[default]
    None,
    /// By tokens of the authorization server that it names when it refuses a request (MCP 2026-07-28,
    /// authorization).
    Oauth(Box<UpstreamOauth>),
}

/// Vaxel as a client of OAuth.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UpstreamOauth {
    /// Whose access the tokens give.
    #[serde(default)]
    pub grant: Grant,
    /// What Vaxel is called there, where somebody registered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2000)]
    pub client_id: Option<String>,
    /// What proves that; sealed on arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2000)]
    pub client_secret: Option<String>,
    /// How Vaxel becomes a client there without `client_id`.
    #[serde(default)]
    pub registration: Registration,
    /// What is asked for, instead of what the server says that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub scopes: Vec<String>,
    /// The only authorization server that is trusted, as it calls itself. Absent: the one that the server
    /// names; one in a private network is asked only when its origin is the server's own or named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://login.example.com")]
    pub issuer: Option<String>,
}

/// Whose access tokens give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// That of each user, who lets Vaxel in with a browser, once.
    #[default]
    AuthorizationCode,
    /// Vaxel's own, for all callers.
    ClientCredentials,
}

/// How Vaxel becomes a client where nobody registered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// By the address of a document about itself where the authorization server takes that, and otherwise by
    /// registering.
    #[default]
    Auto,
    /// By the address of a document about itself (Client ID Metadata Document).
    Cimd,
    /// By registering (RFC 7591).
    Dcr,
}

impl McpAuth {
    /// Whether there is nothing beside the headers.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Vaxel as a client of OAuth, where it is one.
    pub fn oauth(&self) -> Option<&UpstreamOauth> {
        match self {
            Self::None => None,
            Self::Oauth(oauth) => Some(oauth),
        }
    }

    pub(super) fn secret(&mut self) -> Option<&mut String> {
        match self {
            Self::None => None,
            Self::Oauth(oauth) => oauth.client_secret.as_mut(),
        }
    }
}

impl FromStr for Grant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "authorization_code" => Ok(Self::AuthorizationCode),
            "client_credentials" => Ok(Self::ClientCredentials),
            other => Err(format!(
                "`{other}` is no grant: write authorization_code or client_credentials"
            )),
        }
    }
}

impl FromStr for Registration {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cimd" => Ok(Self::Cimd),
            "dcr" => Ok(Self::Dcr),
            other => Err(format!(
                "`{other}` is no way to register: write auto, cimd or dcr"
            )),
        }
    }
}

/// Reads `auth` of a remote server.
pub(super) fn read(fields: &mut Fields<'_>) -> McpAuth {
    match fields.value("auth") {
        None => McpAuth::None,
        Some(value) if value == "none" => McpAuth::None,
        Some(_) => {
            let auth = fields.nested("auth", |fields| {
                if !fields.has("oauth") {
                    fields.issue(
                        "oauth",
                        "is missing: write `none` or an object with `oauth`",
                    );
                }
                fields.nested("oauth", oauth)
            });
            let oauth = auth.flatten();
            oauth.map_or(McpAuth::None, |oauth| McpAuth::Oauth(Box::new(oauth)))
        }
    }
}

fn oauth(fields: &mut Fields<'_>) -> UpstreamOauth {
    let oauth = UpstreamOauth {
        grant: fields.parsed("grant").unwrap_or_default(),
        client_id: fields.string("client_id"),
        client_secret: fields.string("client_secret"),
        registration: fields.parsed("registration").unwrap_or_default(),
        scopes: fields.strings("scopes").unwrap_or_default(),
        issuer: fields.string("issuer"),
    };
    let is_text = |text: &String| {
        (1..=TEXT_MAX).contains(&text.len())
            && text.bytes().all(|byte| (b' '..0x7f).contains(&byte))
    };
    for (key, text) in [
        ("client_id", &oauth.client_id),
        ("client_secret", &oauth.client_secret),
    ] {
        if text.as_ref().is_some_and(|text| !is_text(text)) {
            fields.issue(key, "must have 1 to 2000 visible ASCII characters");
        }
    }
    // RFC 6749 §3.3.
    let is_scope = |scope: &String| is_text(scope) && !scope.contains([' ', '"', '\\']);
    if oauth.scopes.len() > SCOPES_MAX || !oauth.scopes.iter().all(is_scope) {
        fields.issue(
            "scopes",
            "at most 100 words of visible ASCII without quotes and backslashes",
        );
    }
    if oauth.client_secret.is_some() && oauth.client_id.is_none() {
        fields.issue("client_secret", "needs `client_id`, which it proves");
    }
    if oauth.grant == Grant::ClientCredentials && oauth.client_secret.is_none() {
        fields.issue(
            "grant",
            "`client_credentials` needs `client_id` and `client_secret`",
        );
    }
    if let Some(issuer) = &oauth.issuer {
        let url = Url::parse(issuer).ok();
        let is_issuer = url.is_some_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if !is_issuer {
            fields.issue(
                "issuer",
                "must be a URL of http or https without query, fragment and credentials",
            );
        }
    }
    oauth
}
