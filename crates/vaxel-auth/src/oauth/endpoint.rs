//! Endpoints that tokens are for: the `resource` of RFC 8707, in the form of MCP 2026-07-28 (Authorization,
//! "Canonical Server URI").

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest path that is looked at, bytes.
const LONGEST: usize = 200;

/// An MCP endpoint of this server, or the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(
    /// The path: empty for the whole server, else `/mcp` or what is below it.
    Box<str>,
);

impl Endpoint {
    /// Everything that this server answers to.
    pub fn whole() -> Self {
        Self("".into())
    }

    /// The endpoint at a path. Endpoints of the transport of 2024-11-05 (`/sse…`) are those of `/mcp…`.
    pub fn at(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Some(Self::whole());
        }
        let below = below(path).filter(|_| path.len() <= LONGEST)?;
        let is_name = |name: &str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !name.is_empty() && name.bytes().all(letter)
        };
        match below.strip_prefix("sets/") {
            _ if below.is_empty() => Some(Self("/mcp".into())),
            Some(set) if is_name(set) => Some(Self(format!("/mcp/sets/{set}").into())),
            None if is_name(below) => Some(Self(format!("/mcp/{below}").into())),
            _ => None,
        }
    }

    /// The endpoint that a `resource` names, when it is one of the server at one of `bases`. Case of scheme and
    /// host, a port that is the scheme's own and a slash at the end make no difference; a fragment or a query do.
    pub fn of(resource: &str, bases: &[&str]) -> Option<Self> {
        let canonical = canonical(resource)?;
        bases.iter().find_map(|base| {
            let rest = canonical.strip_prefix(canonical_base(base).as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| Self::at(rest))?
        })
    }

    /// The path; empty for the whole server.
    pub const fn path(&self) -> &str {
        &self.0
    }

    /// Whether a token for it is good at a path of this server.
    pub fn covers(&self, path: &str) -> bool {
        let Some(own) = below(&self.0) else {
            return self.0.is_empty();
        };
        below(path) == Some(own)
    }

    /// Its address, for a server at `base`.
    pub fn address(&self, base: &str) -> String {
        format!("{base}{}", self.0)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::at(&text).ok_or_else(|| de::Error::custom("not a path of an MCP endpoint"))
    }
}

/// What a path of an MCP endpoint has below `/mcp`; empty for `/mcp` itself.
fn below(path: &str) -> Option<&str> {
    let rest = path
        .strip_prefix("/mcp")
        .or_else(|| path.strip_prefix("/sse"))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/'))
}

/// Scheme and host in lower case, without a port that is the scheme's own and without a slash at the end.
fn canonical(address: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    let is_plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && matches!(url.scheme(), "http" | "https");
    is_plain.then(|| url.as_str().trim_end_matches('/').to_owned())
}

fn canonical_base(base: &str) -> String {
    canonical(base).unwrap_or_else(|| base.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASES: &[&str] = &["https://vaxel.example.com", "http://127.0.0.1:3010"];

    fn path(resource: &str) -> Option<String> {
        Endpoint::of(resource, BASES).map(|found| found.path().to_owned())
    }

    #[test]
    fn the_address_of_an_endpoint_is_known_in_its_spellings_and_no_other_is() {
        for (resource, expected) in [
            ("https://vaxel.example.com/mcp", "/mcp"),
            ("HTTPS://Vaxel.Example.com:443/mcp/", "/mcp"),
            ("http://127.0.0.1:3010/mcp/files", "/mcp/files"),
            ("http://127.0.0.1:3010/mcp/sets/daily", "/mcp/sets/daily"),
            ("http://127.0.0.1:3010/sse/files", "/mcp/files"),
            ("https://vaxel.example.com", ""),
            ("https://vaxel.example.com/", ""),
        ] {
            assert_eq!(path(resource).as_deref(), Some(expected), "{resource}");
        }
        for other in [
            "https://vaxel.example.com.evil.example/mcp",
            "https://vaxel.example.com:8443/mcp",
            "http://vaxel.example.com/mcp",
            "https://user@vaxel.example.com/mcp",
            "https://vaxel.example.com/mcp#x",
            "https://vaxel.example.com/mcp?x=1",
            "https://vaxel.example.com/mcp/a/b",
            "https://vaxel.example.com/mcp/../api",
            "https://vaxel.example.com/mcpx",
            "https://vaxel.example.com/api/v1",
            "https://vaxel.example.com/mcp/sets/",
            "vaxel.example.com/mcp",
            "",
        ] {
            // `sets` alone is a name that no service has.
            let found = path(other).filter(|found| found != "/mcp/sets");
            assert_eq!(found, None, "{other}");
        }
    }

    #[test]
    fn a_token_for_one_endpoint_is_not_good_at_another() {
        let files = Endpoint::at("/mcp/files").unwrap();
        assert!(
            files.covers("/mcp/files") && files.covers("/mcp/files/") && files.covers("/sse/files")
        );
        for other in [
            "/mcp",
            "/mcp/",
            "/mcp/file",
            "/mcp/sets/files",
            "/api/v1/services",
            "/messages",
            "/",
        ] {
            assert!(!files.covers(other), "{other}");
        }
        let all = Endpoint::at("/mcp").unwrap();
        assert!(
            all.covers("/mcp")
                && all.covers("/mcp/")
                && !all.covers("/mcp/files")
                && !all.covers("/api")
        );
        assert!(
            Endpoint::whole().covers("/mcp/files") && Endpoint::whole().covers("/api/v1/services")
        );
    }

    proptest! {
        #[test]
        fn what_is_read_is_read_again_as_the_same(text in "[a-z/._-]{0,30}", resource: String) {
            let _ = Endpoint::of(&resource, BASES);
            if let Some(endpoint) = Endpoint::at(&text) {
                prop_assert_eq!(Endpoint::at(endpoint.path()), Some(endpoint.clone()));
                let address = endpoint.address(BASES[0]);
                if let Some(read) = Endpoint::of(&address, BASES) {
                    prop_assert_eq!(read, endpoint);
                }
            }
        }
    }
}
