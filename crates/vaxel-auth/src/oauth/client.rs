//! What clients say about themselves: in a registration (RFC 7591), or in a document at the address that is
//! their name (OAuth Client ID Metadata Document).

use serde::Deserialize;
use serde_json::Value;
use url::Url;
use vaxel_core::name::printable;

use super::redirect;

/// Most redirect addresses of one client.
const REDIRECTS: usize = 20;
/// Longest name that is shown, characters.
const NAME_MAX: usize = 80;
/// Longest name of a client that is an address, bytes.
const ADDRESS_MAX: usize = 500;
/// Most that is kept of what one says, bytes.
const KEPT_MAX: usize = 4 << 10;
/// Longest document of a client, bytes.
pub const DOCUMENT_MAX: usize = 32 << 10;

/// A client as it describes itself. Nothing of it is proven but, of a document, where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMetadata {
    /// For people.
    pub name: String,
    /// Where answers may go; at least one.
    pub redirects: Vec<String>,
    /// How it proves who it is where tokens are given.
    pub proof: ClientProof,
}

/// How a client proves who it is where tokens are given: `token_endpoint_auth_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientProof {
    /// Not at all; PKCE shows that who began also finishes.
    None,
    /// A secret in the form (`client_secret_post`).
    SecretPost,
    /// A secret in the head (`client_secret_basic`).
    SecretBasic,
}

/// Why a description is refused, in the words of RFC 7591 §3.2.2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Unfit {
    /// `invalid_redirect_uri` or `invalid_client_metadata`.
    pub code: &'static str,
    /// For whoever wrote it.
    pub sentence: String,
}

impl ClientProof {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::None, Self::SecretPost, Self::SecretBasic];

    /// The way with this name in metadata.
    pub fn called(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }

    /// The name in metadata.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SecretPost => "client_secret_post",
            Self::SecretBasic => "client_secret_basic",
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    client_id: Option<String>,
    client_name: Option<String>,
    redirect_uris: Option<Vec<String>>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    client_secret: Option<Value>,
}

impl ClientMetadata {
    /// Reads the body of a registration. What is not known here is left out, as RFC 7591 §2 allows.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn of_registration(body: &[u8]) -> Result<Self, Unfit> {
        let raw: Raw = serde_json::from_slice(body)
            .map_err(|error| wrong(format!("The body is not read: {error}")))?;
        // The default of RFC 7591 §2; clients that say nothing can hold a secret.
        let proof = match raw.token_endpoint_auth_method.as_deref() {
            None => ClientProof::SecretBasic,
            Some(name) => ClientProof::called(name).ok_or_else(|| wrong("`token_endpoint_auth_method` is none of none, client_secret_post, client_secret_basic"))?,
        };
        raw.fit("client", proof)
    }

    /// Reads the document that was found at `address`, which is the client's name.
    ///
    /// # Errors
    /// [`Unfit`], also when it speaks of another client or wants to prove itself otherwise than by PKCE.
    pub fn of_document(address: &str, document: &[u8]) -> Result<Self, Unfit> {
        let read = serde_json::from_slice::<Raw>(document);
        let raw = read.map_err(|error| wrong(format!("The document is not read: {error}")))?;
        if raw.client_id.as_deref() != Some(address) {
            return Err(wrong(
                "`client_id` in the document is another one than its address",
            ));
        }
        if raw.client_secret.is_some() {
            return Err(wrong(
                "a document that everyone can read holds no `client_secret`",
            ));
        }
        if !matches!(
            raw.token_endpoint_auth_method.as_deref(),
            None | Some("none")
        ) {
            return Err(wrong(
                "`token_endpoint_auth_method` of a document is `none` here",
            ));
        }
        raw.fit(&host_of(address), ClientProof::None)
    }

    /// Whether an answer may go there.
    pub fn knows(&self, redirect: &str) -> bool {
        self.redirects
            .iter()
            .any(|known| redirect::is_same(known, redirect))
    }
}

impl Raw {
    fn fit(self, unnamed: &str, proof: ClientProof) -> Result<ClientMetadata, Unfit> {
        let redirects = self.redirect_uris.unwrap_or_default();
        if redirects.is_empty() || redirects.len() > REDIRECTS {
            return Err(unfit(format!(
                "`redirect_uris` has 1 to {REDIRECTS} addresses"
            )));
        }
        if redirects.iter().map(String::len).sum::<usize>() > KEPT_MAX {
            return Err(unfit(format!(
                "`redirect_uris` has {KEPT_MAX} bytes at most, all together"
            )));
        }
        if let Some(bad) = redirects.iter().find(|one| !redirect::is_allowed(one)) {
            let bad: String = bad.chars().take(200).collect();
            return Err(unfit(format!(
                "`{bad}` is no redirect address: https, http at 127.0.0.1, [::1] or localhost, or a scheme of a program"
            )));
        }
        let lacks = |list: &Option<Vec<String>>, one: &str| {
            list.as_ref()
                .is_some_and(|list| !list.iter().any(|has| has == one))
        };
        if lacks(&self.grant_types, "authorization_code") || lacks(&self.response_types, "code") {
            return Err(wrong(
                "only the grant `authorization_code` with the response `code` is begun here",
            ));
        }
        Ok(ClientMetadata {
            name: shown(self.client_name.as_deref(), unnamed),
            redirects,
            proof,
        })
    }
}

/// Whether the name of a client is an address at which it describes itself: `https` with a path, to the letter as
/// it would be asked for.
pub fn is_address(client: &str) -> bool {
    let Ok(url) = Url::parse(client) else {
        return false;
    };
    url.scheme() == "https"
        && client.len() <= ADDRESS_MAX
        && url.as_str() == client
        && url.path().len() > 1
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

/// The host of such an address.
pub fn host_of(address: &str) -> String {
    let url = Url::parse(address).ok();
    url.and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_default()
}

/// A name that cannot break a page or a line, nor turn around what is written after it.
fn shown(name: Option<&str>, unnamed: &str) -> String {
    let turns = |letter: char| matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let name: String = name
        .unwrap_or_default()
        .chars()
        .filter(|letter| !turns(*letter))
        .collect();
    let name = printable(&name, NAME_MAX);
    match name.trim() {
        "" => unnamed.to_owned(),
        name => name.to_owned(),
    }
}

fn wrong(sentence: impl Into<String>) -> Unfit {
    Unfit {
        code: "invalid_client_metadata",
        sentence: sentence.into(),
    }
}

fn unfit(sentence: String) -> Unfit {
    Unfit {
        code: "invalid_redirect_uri",
        sentence,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn registered(body: &Value) -> Result<ClientMetadata, &'static str> {
        ClientMetadata::of_registration(body.to_string().as_bytes()).map_err(|unfit| unfit.code)
    }

    #[test]
    fn a_registration_says_name_addresses_and_proof() {
        let body = json!({ "client_name": "  Anna's\u{202e} client\n", "redirect_uris": ["http://localhost:1/cb"],
            "token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"], "application_type": "native", "scope": "x" });
        let client = registered(&body).unwrap();
        assert_eq!(
            (client.name.as_str(), client.proof),
            ("Anna's client", ClientProof::None)
        );
        assert!(client.knows("http://localhost:2/cb") && !client.knows("http://localhost:2/other"));
        let plain = registered(&json!({ "redirect_uris": ["https://a.example/cb"] })).unwrap();
        assert_eq!(
            (plain.name.as_str(), plain.proof),
            ("client", ClientProof::SecretBasic)
        );
    }

    #[test]
    fn a_registration_that_cannot_be_used_says_which_part() {
        for (body, code) in [
            (json!({}), "invalid_redirect_uri"),
            (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
            (
                json!({ "redirect_uris": ["http://evil.example/cb"] }),
                "invalid_redirect_uri",
            ),
            (
                json!({ "redirect_uris": ["javascript:alert(1)"] }),
                "invalid_redirect_uri",
            ),
            (
                json!({ "redirect_uris": vec!["https://a.example/cb"; 21] }),
                "invalid_redirect_uri",
            ),
            (
                json!({ "redirect_uris": vec![format!("https://a.example/{}", "x".repeat(1_500)); 3] }),
                "invalid_redirect_uri",
            ),
            (
                json!({ "redirect_uris": "https://a.example/cb" }),
                "invalid_client_metadata",
            ),
            (
                json!({ "redirect_uris": ["https://a.example/cb"], "token_endpoint_auth_method": "private_key_jwt" }),
                "invalid_client_metadata",
            ),
            (
                json!({ "redirect_uris": ["https://a.example/cb"], "grant_types": ["implicit"] }),
                "invalid_client_metadata",
            ),
            (json!([1]), "invalid_client_metadata"),
        ] {
            assert_eq!(registered(&body), Err(code), "{body}");
        }
    }

    #[test]
    fn a_document_speaks_of_its_own_address_only() {
        let at = "https://client.example/meta.json";
        let document = |id: &str| json!({ "client_id": id, "client_name": "C", "redirect_uris": ["https://client.example/cb"] });
        let read = |value: Value| ClientMetadata::of_document(at, value.to_string().as_bytes());
        assert_eq!(read(document(at)).unwrap().name, "C");
        assert!(read(document("https://other.example/meta.json")).is_err());
        let mut with_secret = document(at);
        with_secret["client_secret"] = "x".into();
        assert!(read(with_secret).is_err());
        let mut signed = document(at);
        signed["token_endpoint_auth_method"] = "private_key_jwt".into();
        assert!(read(signed).is_err());
    }

    #[test]
    fn only_a_plain_https_address_names_a_client() {
        assert!(is_address("https://client.example/meta.json"));
        assert!(is_address("https://client.example:8443/a/b?v=1"));
        for bad in [
            "http://client.example/meta.json",
            "https://client.example",
            "https://client.example/",
            "https://client.example/a/../b",
            "https://client.example/a#b",
            "https://user:x@client.example/a",
            "https://CLIENT.example/a",
            "https://client.example:443/a",
            "vxc_abc",
            "",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
