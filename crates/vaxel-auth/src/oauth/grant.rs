//! What a client sends to get tokens, and what it is answered (OAuth 2.1 §3.2, §4).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::{Url, form_urlencoded};
use vaxel_core::{name::printable, secret::Secret};

use super::{client::ClientProof, discovery::ServerMetadata};

/// Longest token, bytes; longer ones fit no header.
const TOKEN_MAX: usize = 16 << 10;

/// A client, as its authorization server knows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What it is called.
    pub id: String,
    /// What proves that.
    pub secret: Option<String>,
    /// How the secret is shown, where it is: `client_secret_post` or `client_secret_basic`.
    pub proof: String,
}

/// What is posted for a token.
pub struct Form {
    /// `application/x-www-form-urlencoded`
    pub body: String,
    /// `Authorization`, where the client proves itself so.
    pub authorization: Option<Secret<String>>,
}

/// Tokens that were given.
pub struct Given {
    /// Shown to the server.
    pub access: Secret<String>,
    /// Gets the next one.
    pub refresh: Option<Secret<String>>,
    /// For how many seconds the first is good, where that is said.
    pub expires_in: Option<u64>,
    /// What it lets through, where that differs from what was asked for.
    pub scope: Option<String>,
}

/// Why no token was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct NotGiven {
    /// Of RFC 6749 §5.2, where the answer was such; empty otherwise.
    pub code: String,
    /// For people.
    pub text: String,
}

impl Identity {
    /// A client that somebody registered, or that has just registered itself without being told how to prove it.
    pub fn new(id: String, secret: Option<String>, server: &ServerMetadata) -> Self {
        let supported = server.token_endpoint_auth_methods_supported.as_deref();
        let takes = |proof: ClientProof| {
            supported.is_none_or(|all| all.iter().any(|one| one == proof.as_str()))
        };
        let proof = match &secret {
            None => ClientProof::None,
            Some(_) if takes(ClientProof::SecretBasic) => ClientProof::SecretBasic,
            Some(_) => ClientProof::SecretPost,
        };
        let proof = proof.as_str().to_owned();
        Self { id, secret, proof }
    }

    /// The same with the secret that it has now; the way of showing it stays, as far as there is one.
    #[must_use]
    pub fn with_secret(self, secret: Option<String>) -> Self {
        let proof = match (&self.secret, &secret) {
            (Some(_), Some(_)) | (None, None) => self.proof,
            (None, Some(_)) => ClientProof::SecretBasic.as_str().to_owned(),
            (Some(_), None) => ClientProof::None.as_str().to_owned(),
        };
        Self {
            id: self.id,
            secret,
            proof,
        }
    }

    /// What an authorization server answered to a registration (RFC 7591 §3.2.1).
    ///
    /// # Errors
    /// What it said instead.
    pub fn registered(status: u16, body: &[u8], server: &ServerMetadata) -> Result<Self, NotGiven> {
        #[derive(Deserialize)]
        struct Raw {
            client_id: String,
            client_secret: Option<String>,
            token_endpoint_auth_method: Option<String>,
        }
        if !matches!(status, 200 | 201) {
            return Err(refusal(status, body));
        }
        let raw: Raw = serde_json::from_slice(body).map_err(|_| refusal(status, body))?;
        let mut identity = Self::new(raw.client_id, raw.client_secret, server);
        if let Some(proof) = raw.token_endpoint_auth_method {
            identity.proof = proof;
        }
        Ok(identity)
    }

    /// The form that asks for a token by `grant`, with these parameters.
    pub fn form(&self, grant: &str, parameters: &[(&str, &str)]) -> Form {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", grant);
        form.extend_pairs(parameters);
        let mut authorization = None;
        match (&self.secret, self.proof.as_str()) {
            (Some(secret), "client_secret_basic") => {
                // RFC 6749 §2.3.1: both are encoded as in a form before they are put together.
                let encoded = |text: &str| {
                    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>()
                };
                let both = format!("{}:{}", encoded(&self.id), encoded(secret));
                authorization = Some(Secret::new(format!("Basic {}", STANDARD.encode(both))));
            }
            (Some(secret), "client_secret_post") => {
                form.append_pair("client_id", &self.id);
                form.append_pair("client_secret", secret);
            }
            _ => {
                form.append_pair("client_id", &self.id);
            }
        }
        Form {
            body: form.finish(),
            authorization,
        }
    }
}

impl Given {
    /// Reads the answer to such a form.
    ///
    /// # Errors
    /// What it said instead.
    pub fn read(status: u16, body: &[u8]) -> Result<Self, NotGiven> {
        #[derive(Deserialize)]
        struct Raw {
            access_token: String,
            token_type: Option<String>,
            refresh_token: Option<String>,
            expires_in: Option<Value>,
            scope: Option<String>,
        }
        if status != 200 {
            return Err(refusal(status, body));
        }
        let raw: Raw = serde_json::from_slice(body).map_err(|_| refusal(status, body))?;
        let is_bearer = raw
            .token_type
            .as_deref()
            .is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
        let is_token = |text: &str| {
            (1..=TOKEN_MAX).contains(&text.len())
                && text.bytes().all(|byte| (b'!'..0x7f).contains(&byte))
        };
        if !is_bearer || !is_token(&raw.access_token) {
            return Err(NotGiven {
                code: String::new(),
                text: "the token that it gave is none that can be sent as `Bearer`".to_owned(),
            });
        }
        // Some say it as text.
        let expires_in = raw.expires_in.and_then(|value| match value {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        Ok(Self {
            access: Secret::new(raw.access_token),
            refresh: raw.refresh_token.map(Secret::new),
            expires_in,
            scope: raw.scope,
        })
    }
}

fn refusal(status: u16, body: &[u8]) -> NotGiven {
    #[derive(Deserialize, Default)]
    struct Raw {
        #[serde(default)]
        error: String,
        #[serde(default)]
        error_description: String,
    }
    let raw: Raw = serde_json::from_slice(body).unwrap_or_default();
    let (code, more) = (
        printable(&raw.error, 200),
        printable(&raw.error_description, 200),
    );
    let text = match (code.as_str(), more.as_str()) {
        ("", _) => format!("it answered {status} with nothing that can be used"),
        (code, "") => format!("it says `{code}`"),
        (code, more) => format!("it says `{code}`: {more}"),
    };
    NotGiven { code, text }
}

/// Where a user is sent to let the client in.
///
/// # Errors
/// When that place is no URL.
pub fn authorize_url(endpoint: &str, parameters: &[(&str, &str)]) -> Result<Url, url::ParseError> {
    let mut url = Url::parse(endpoint)?;
    url.query_pairs_mut().extend_pairs(parameters);
    Ok(url)
}

/// Whether an answer came from who was asked (RFC 9207 §2.4): compared to the letter, and missed where it was
/// announced.
pub fn is_from(server: &ServerMetadata, iss: Option<&str>) -> bool {
    match iss {
        Some(iss) => iss == server.issuer,
        None => !server.authorization_response_iss_parameter_supported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(methods: Option<&[&str]>) -> ServerMetadata {
        ServerMetadata {
            issuer: "https://b.example".to_owned(),
            token_endpoint_auth_methods_supported: methods
                .map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
            ..ServerMetadata::default()
        }
    }

    #[test]
    fn a_client_proves_itself_as_its_server_takes_it() {
        let secret = || Some("s:1".to_owned());
        let basic =
            Identity::new("a b".to_owned(), secret(), &server(None)).form("x", &[("scope", "y")]);
        assert_eq!(basic.body, "grant_type=x&scope=y");
        assert_eq!(basic.authorization.unwrap().expose(), "Basic YStiOnMlM0Ex");
        let post = Identity::new(
            "a".to_owned(),
            secret(),
            &server(Some(&["client_secret_post"])),
        );
        assert_eq!(
            post.form("x", &[]).body,
            "grant_type=x&client_id=a&client_secret=s%3A1"
        );
        let public = Identity::new("a".to_owned(), None, &server(None)).form("x", &[]);
        assert_eq!(
            (public.body.as_str(), public.authorization.is_none()),
            ("grant_type=x&client_id=a", true)
        );
    }

    #[test]
    fn an_answer_is_a_token_or_the_reason_why_not() {
        let given = Given::read(
            200,
            br#"{"access_token":"t","token_type":"bearer","expires_in":"60"}"#,
        )
        .ok()
        .unwrap();
        assert_eq!(
            (given.access.expose().as_str(), given.expires_in),
            ("t", Some(60))
        );
        let refused = Given::read(
            400,
            br#"{"error":"invalid_grant","error_description":"gone\n"}"#,
        )
        .err()
        .unwrap();
        assert_eq!(
            (refused.code.as_str(), refused.text.as_str()),
            ("invalid_grant", "it says `invalid_grant`: gone")
        );
        for bad in [
            &br#"{"access_token":"a b"}"#[..],
            br#"{"access_token":"a","token_type":"DPoP"}"#,
            b"<html>",
        ] {
            assert!(Given::read(200, bad).is_err());
        }
    }

    #[test]
    fn an_answer_of_another_issuer_is_not_taken() {
        let silent = server(None);
        let told = ServerMetadata {
            authorization_response_iss_parameter_supported: true,
            ..server(None)
        };
        assert!(is_from(&silent, None) && is_from(&silent, Some("https://b.example")));
        assert!(is_from(&told, Some("https://b.example")) && !is_from(&told, None));
        assert!(
            !is_from(&told, Some("https://b.example/"))
                && !is_from(&silent, Some("https://c.example"))
        );
    }
}
