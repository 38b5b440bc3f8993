//! How a client finds out who gives the tokens that a server wants: the challenge of a refusal (RFC 6750 §3),
//! the metadata of the resource (RFC 9728), that of its authorization server (RFC 8414, or `OpenID` Connect
//! Discovery).

use serde::Deserialize;
use url::Url;
use vaxel_core::name::printable;

use super::metadata::{RESOURCE_PATH, SERVER_PATH};

/// Longest document that is read, bytes.
pub const DOCUMENT_MAX: usize = 256 << 10;
/// Where providers of `OpenID` Connect say what they are.
const OPENID_PATH: &str = "/.well-known/openid-configuration";
/// Most authorization servers and scopes that are looked at.
const MOST: usize = 200;

/// What a refusal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// Where the metadata of the resource is.
    pub resource_metadata: Option<String>,
    /// What is to be asked for.
    pub scopes: Vec<String>,
}

/// What a protected resource says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceMetadata {
    /// What tokens are to be meant for (RFC 8707).
    pub resource: String,
    /// Who gives them, in its order.
    pub servers: Vec<String>,
    /// All scopes that it knows.
    pub scopes: Vec<String>,
}

/// What an authorization server says of itself, as far as a client needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ServerMetadata {
    /// What it calls itself.
    pub issuer: String,
    /// Where users go.
    #[serde(default)]
    pub authorization_endpoint: Option<String>,
    /// Where tokens are given.
    pub token_endpoint: String,
    /// Where clients register themselves.
    #[serde(default)]
    pub registration_endpoint: Option<String>,
    /// What can be asked for.
    #[serde(default)]
    pub scopes_supported: Vec<String>,
    /// How clients prove themselves where tokens are given; absent is `client_secret_basic`.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// How codes are bound to who asked for them.
    #[serde(default)]
    pub code_challenge_methods_supported: Vec<String>,
    /// Whether a client may be called by the address of a document about it.
    #[serde(default)]
    pub client_id_metadata_document_supported: bool,
    /// Whether it says who it is when it sends a user back (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

impl Challenge {
    /// Reads `WWW-Authenticate`, whatever else stands in it: the first challenge of the scheme `Bearer`.
    pub fn read(text: &str) -> Self {
        let mut challenge = Self::default();
        let mut is_bearer = false;
        let mut rest = text;
        while !rest.is_empty() {
            rest = rest.trim_start_matches([' ', ',', '\t']);
            let end = rest.find([' ', ',', '=', '\t']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let Some(value) = after.strip_prefix('=') else {
                is_bearer = word.eq_ignore_ascii_case("bearer");
                rest = after;
                if word.is_empty() && !rest.is_empty() {
                    // Nothing that is known begins here.
                    rest = rest.get(1..).unwrap_or_default();
                }
                continue;
            };
            let (value, after) = value_of(value);
            rest = after;
            if !is_bearer {
                continue;
            }
            if word.eq_ignore_ascii_case("resource_metadata")
                && challenge.resource_metadata.is_none()
            {
                challenge.resource_metadata = Some(value);
            } else if word.eq_ignore_ascii_case("scope") && challenge.scopes.is_empty() {
                challenge.scopes = words(&value);
            }
        }
        challenge
    }
}

/// The value of a parameter, quoted or not, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter => value.push(letter),
        }
    }
    (value, "")
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace()
        .take(MOST)
        .map(str::to_owned)
        .collect()
}

/// Where the metadata of a server may be that does not say where: under its path, then for the whole host.
pub fn resource_addresses(server: &Url) -> Vec<Url> {
    let path = server.path().trim_end_matches('/');
    let mut paths = vec![format!("{RESOURCE_PATH}{path}"), RESOURCE_PATH.to_owned()];
    paths.dedup();
    paths.iter().map(|path| at(server, path)).collect()
}

/// Where the metadata of an authorization server may be (MCP 2026-07-28, authorization server metadata
/// discovery).
pub fn server_addresses(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let mut paths = vec![
        format!("{SERVER_PATH}{path}"),
        format!("{OPENID_PATH}{path}"),
    ];
    if !path.is_empty() {
        paths.push(format!("{path}{OPENID_PATH}"));
    }
    paths.iter().map(|path| at(issuer, path)).collect()
}

fn at(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

impl ResourceMetadata {
    /// Reads the document about the server at `server`.
    ///
    /// # Errors
    /// Why it cannot be used, as a clause: it is about another resource, or names nobody.
    pub fn read(document: &[u8], server: &Url) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Raw {
            resource: String,
            #[serde(default)]
            authorization_servers: Vec<String>,
            #[serde(default)]
            scopes_supported: Vec<String>,
        }
        let raw: Raw = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        let resource =
            Url::parse(&raw.resource).map_err(|_| "its `resource` is no URL".to_owned())?;
        // RFC 9728 §3.3; servers say their host, or a part of the path, where they are one resource.
        let covered = resource.path().trim_end_matches('/');
        let below = server.path().strip_prefix(covered);
        let covers = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if resource.origin() != server.origin() || !covers {
            return Err(format!(
                "it is about another server, {}",
                printable(&raw.resource, 200)
            ));
        }
        if raw.authorization_servers.is_empty() {
            return Err("it names no authorization server".to_owned());
        }
        Ok(Self {
            resource: raw.resource,
            servers: raw.authorization_servers.into_iter().take(MOST).collect(),
            scopes: raw.scopes_supported.into_iter().take(MOST).collect(),
        })
    }
}

impl ServerMetadata {
    /// Reads the document of the authorization server that is called `issuer`.
    ///
    /// # Errors
    /// Why it cannot be used, as a clause: it is that of another one (RFC 8414 §3.3), or lacks something.
    pub fn read(document: &[u8], issuer: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        if read.issuer != issuer {
            return Err(format!(
                "it is that of another one, {}",
                printable(&read.issuer, 200)
            ));
        }
        let endpoints = [
            Some(&read.token_endpoint),
            read.authorization_endpoint.as_ref(),
            read.registration_endpoint.as_ref(),
        ];
        if let Some(bad) = endpoints
            .into_iter()
            .flatten()
            .find(|text| !is_endpoint(text))
        {
            return Err(format!(
                "{} is no address of http or https",
                printable(bad, 200)
            ));
        }
        Ok(read)
    }

    /// What a server of MCP 2025-03-26 is taken for that says nothing of itself.
    pub fn presumed(origin: &Url) -> Self {
        let place = |path| at(origin, path).to_string();
        Self {
            issuer: origin.origin().ascii_serialization(),
            authorization_endpoint: Some(place("/authorize")),
            token_endpoint: place("/token"),
            registration_endpoint: Some(place("/register")),
            code_challenge_methods_supported: vec!["S256".to_owned()],
            token_endpoint_auth_methods_supported: Some(vec![
                "none".to_owned(),
                "client_secret_post".to_owned(),
            ]),
            ..Self::default()
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_challenge_is_read_among_others_and_however_it_is_quoted() {
        let text = r#"Basic realm="a, Bearer x=\"1\"", bearer error="invalid_token", scope="a b", resource_metadata=https://a.example/x, DPoP scope="c""#;
        let challenge = Challenge::read(text);
        assert_eq!(challenge.resource_metadata.unwrap(), "https://a.example/x");
        assert_eq!(challenge.scopes, ["a", "b"]);
        assert_eq!(Challenge::read("Bearer"), Challenge::default());
        assert_eq!(Challenge::read(r#"Basic scope="a""#), Challenge::default());
    }

    #[test]
    fn metadata_is_looked_for_under_the_path_and_then_for_the_host() {
        let places = |all: Vec<Url>| all.iter().map(Url::to_string).collect::<Vec<_>>();
        assert_eq!(
            places(resource_addresses(&url("https://a.example/mcp/x?y=1"))),
            [
                "https://a.example/.well-known/oauth-protected-resource/mcp/x",
                "https://a.example/.well-known/oauth-protected-resource"
            ]
        );
        assert_eq!(
            places(resource_addresses(&url("https://a.example/"))).len(),
            1
        );
        assert_eq!(
            places(server_addresses(&url("https://a.example/t"))),
            [
                "https://a.example/.well-known/oauth-authorization-server/t",
                "https://a.example/.well-known/openid-configuration/t",
                "https://a.example/t/.well-known/openid-configuration"
            ]
        );
        assert_eq!(places(server_addresses(&url("https://a.example"))).len(), 2);
    }

    #[test]
    fn metadata_about_another_resource_is_refused() {
        let server = url("https://a.example/mcp/x");
        let of = |resource: &str| {
            let document = format!(
                r#"{{"resource":"{resource}","authorization_servers":["https://b.example"]}}"#
            );
            ResourceMetadata::read(document.as_bytes(), &server)
        };
        for good in [
            "https://a.example/mcp/x",
            "https://a.example",
            "https://a.example/mcp/",
        ] {
            assert_eq!(of(good).unwrap().resource, good);
        }
        for bad in [
            "https://a.example/mcp/xy",
            "https://a.example/m",
            "http://a.example/mcp/x",
            "https://b.example",
            "x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let nobody = br#"{"resource":"https://a.example"}"#;
        assert!(ResourceMetadata::read(nobody, &server).is_err());
    }

    #[test]
    fn metadata_of_another_issuer_is_refused() {
        let of = |issuer: &str, token: &str| {
            let document = format!(r#"{{"issuer":"{issuer}","token_endpoint":"{token}"}}"#);
            ServerMetadata::read(document.as_bytes(), "https://b.example")
        };
        assert!(of("https://b.example", "https://b.example/token").is_ok());
        assert!(of("https://b.example/", "https://b.example/token").is_err());
        assert!(of("https://c.example", "https://b.example/token").is_err());
        assert!(of("https://b.example", "javascript:alert(1)").is_err());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_readers(text: String, bytes: Vec<u8>) {
            let _ = Challenge::read(&text);
            let _ = Challenge::read(&format!("Bearer {text}"));
            let _ = ResourceMetadata::read(&bytes, &url("https://a.example"));
            let _ = ServerMetadata::read(&bytes, "x");
        }
    }
}
