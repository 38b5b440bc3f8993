//! What this server says of itself, so that clients find their way: as protected resource (RFC 9728), as
//! authorization server (RFC 8414), and in the challenge of a refusal (RFC 6750 §3).

use serde_json::{Value, json};
use vaxel_core::principal::Permission;

use super::{client::ClientProof, endpoint::Endpoint, scope};
use crate::jwt::Algorithm;

/// Where the metadata of protected resources is; the path of the resource follows (RFC 9728 §3.1).
pub const RESOURCE_PATH: &str = "/.well-known/oauth-protected-resource";
/// Where that of the authorization server is.
pub const SERVER_PATH: &str = "/.well-known/oauth-authorization-server";

/// The metadata of an endpoint of the server at `base`, whose tokens come from `issuer`.
pub fn of_resource(base: &str, endpoint: &Endpoint, issuer: &str) -> Value {
    json!({
        "resource": endpoint.address(base),
        "resource_name": "Vaxel",
        "authorization_servers": [issuer],
        "scopes_supported": scope::USUAL.map(Permission::as_str),
        "bearer_methods_supported": ["header"],
        "resource_documentation": format!("{base}/docs/"),
    })
}

/// The metadata of the authorization server at `base`.
pub fn of_server(base: &str, registers: bool) -> Value {
    let at = |path: &str| format!("{base}{path}");
    let mut document = json!({
        "issuer": base,
        "authorization_endpoint": at("/oauth/authorize"),
        "token_endpoint": at("/oauth/token"),
        "revocation_endpoint": at("/oauth/revoke"),
        "device_authorization_endpoint": at("/oauth/device_authorization"),
        "jwks_uri": at("/.well-known/jwks.json"),
        "scopes_supported": scope::USUAL.map(Permission::as_str),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_GRANT],
        "token_endpoint_auth_methods_supported": ClientProof::ALL.map(ClientProof::as_str),
        "revocation_endpoint_auth_methods_supported": ClientProof::ALL.map(ClientProof::as_str),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": true,
        "service_documentation": at("/docs/"),
    });
    if registers {
        document["registration_endpoint"] = at("/oauth/register").into();
    }
    document
}

/// The grant of programs without a browser (RFC 8628 §3.4).
pub const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The same for clients that look where `OpenID` providers say it: what such a document must have besides. There
/// are no ID tokens here.
pub fn as_openid(mut document: Value, algorithm: Algorithm) -> Value {
    document["subject_types_supported"] = json!(["public"]);
    document["id_token_signing_alg_values_supported"] = json!([algorithm.as_str()]);
    document
}

/// What a refused request is told. `base` and `path` are those of the request.
pub fn challenge(base: &str, path: &str, why: Why) -> String {
    let metadata = format!("resource_metadata=\"{base}{RESOURCE_PATH}{path}\"");
    match why {
        Why::NoToken => format!("Bearer {metadata}, scope=\"{}\"", scope::USUAL_TEXT),
        Why::BadToken => format!(
            "Bearer error=\"invalid_token\", error_description=\"the token is not good here\", {metadata}, scope=\"{}\"",
            scope::USUAL_TEXT
        ),
        Why::Narrow => format!(
            "Bearer error=\"insufficient_scope\", error_description=\"the token lacks a scope that this needs\", \
             {metadata}, scope=\"{}\"",
            scope::USUAL_TEXT
        ),
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It came with no credential.
    NoToken,
    /// It came with one that is not good.
    BadToken,
    /// Its token lacks a scope that its user could give it.
    Narrow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_names_every_place_under_its_own_issuer() {
        let document = of_server("https://v.example", true);
        assert_eq!(document["issuer"], "https://v.example");
        for (key, value) in document.as_object().unwrap() {
            if key.ends_with("_endpoint") || key.ends_with("_uri") {
                assert!(
                    value.as_str().unwrap().starts_with("https://v.example/"),
                    "{key}"
                );
            }
        }
        assert_eq!(
            document["code_challenge_methods_supported"],
            json!(["S256"])
        );
        assert!(of_server("https://v.example", false)["registration_endpoint"].is_null());
        let endpoint = Endpoint::at("/mcp/files").unwrap();
        let resource = of_resource("https://v.example", &endpoint, "https://v.example");
        assert_eq!(resource["resource"], "https://v.example/mcp/files");
    }

    #[test]
    fn a_challenge_leads_to_the_metadata_of_the_endpoint() {
        let text = challenge("https://v.example", "/mcp/files", Why::NoToken);
        assert_eq!(
            text,
            "Bearer resource_metadata=\"https://v.example/.well-known/oauth-protected-resource/mcp/files\", \
             scope=\"mcp:read mcp:execute\""
        );
        assert!(challenge("x", "/mcp", Why::Narrow).contains("error=\"insufficient_scope\""));
    }
}
