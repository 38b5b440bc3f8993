//! What an upstream says about itself, in either era, and how its era is told from its answers.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::{HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION},
    response::Response,
    revision::{Era, Revision},
};

/// What an upstream says about itself.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// The revision that is spoken with it.
    pub revision: Revision,
    /// In the dialect of `revision`; an object.
    pub capabilities: Box<RawValue>,
    /// Name and version, unverified; an object.
    pub server_info: Box<RawValue>,
    /// For models.
    pub instructions: Option<String>,
}

/// Why an introduction cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// An error instead of an introduction.
    #[error("it is the error {0}")]
    Refused(String),
    /// Not what the specification says.
    #[error("{0}")]
    Shape(String),
    /// No revision in common.
    #[error("it speaks {0}, which Vaxel does not")]
    Revision(String),
}

#[derive(Deserialize)]
struct Introduction {
    #[serde(default, rename = "protocolVersion")]
    version: Option<String>,
    #[serde(default, rename = "supportedVersions")]
    supported: Vec<String>,
    #[serde(default)]
    capabilities: Option<Box<RawValue>>,
    #[serde(default, rename = "serverInfo")]
    info: Option<Box<RawValue>>,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default, rename = "_meta")]
    meta: Option<IntroductionMeta>,
}

#[derive(Deserialize)]
struct IntroductionMeta {
    #[serde(default, rename = "io.modelcontextprotocol/serverInfo")]
    info: Option<Box<RawValue>>,
}

impl ServerFacts {
    /// Reads the answer to `initialize`.
    pub fn from_initialize(answer: &[u8]) -> Result<Self, Unusable> {
        let introduction = read(answer)?;
        let version = introduction.version.clone().unwrap_or_default();
        let revision: Revision = version.parse().map_err(|_| Unusable::Revision(version))?;
        if revision.era() == Era::Modern {
            return Err(Unusable::Revision(revision.to_string()));
        }
        Ok(Self::of(revision, introduction))
    }

    /// Reads the answer to `server/discover`. Servers may list legacy revisions too; only modern
    /// ones count here.
    pub fn from_discover(answer: &[u8]) -> Result<Self, Unusable> {
        let introduction = read(answer)?;
        let modern = introduction
            .supported
            .iter()
            .filter_map(|version| version.parse::<Revision>().ok())
            .filter(|revision| revision.era() == Era::Modern)
            .max();
        let spoken = introduction.supported.join(", ");
        let revision = modern.ok_or(Unusable::Revision(spoken))?;
        Ok(Self::of(revision, introduction))
    }

    fn of(revision: Revision, introduction: Introduction) -> Self {
        let info = introduction
            .info
            .or_else(|| introduction.meta.and_then(|meta| meta.info));
        Self {
            revision,
            capabilities: object_or_empty(introduction.capabilities),
            server_info: object_or_empty(info),
            instructions: introduction.instructions,
        }
    }
}

fn object_or_empty(value: Option<Box<RawValue>>) -> Box<RawValue> {
    let object = value.filter(|value| value.get().starts_with('{'));
    object
        .or_else(|| RawValue::from_string("{}".to_owned()).ok())
        .unwrap_or_else(|| RawValue::NULL.to_owned())
}

fn read(answer: &[u8]) -> Result<Introduction, Unusable> {
    let response = Response::read(bytes::Bytes::copy_from_slice(answer))
        .map_err(|error| Unusable::Shape(error.to_string()))?;
    match response.payload() {
        Ok(result) => serde_json::from_str(result.get())
            .map_err(|error| Unusable::Shape(format!("it has not the right shape ({error})"))),
        Err(error) => Err(Unusable::Refused(error.get().chars().take(200).collect())),
    }
}

/// What a probe with `server/discover` got.
#[derive(Debug, Clone, Copy)]
pub enum ProbeAnswer<'a> {
    /// Over stdio: the answering message.
    Stdio(&'a [u8]),
    /// Over HTTP.
    Http {
        /// Its status.
        status: u16,
        /// Its body, or the first answer on its stream.
        body: &'a [u8],
    },
}

/// What a probe says about the era of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Speaks 2026-07-28.
    Modern,
    /// Does not; `initialize` is worth trying.
    Legacy,
    /// An outage or a refusal of credentials, which says nothing about the era.
    Unknown,
}

/// The verdict on a probe (MCP 2026-07-28, versioning: the fallback is not keyed to one error code;
/// 401, 403 and 5xx are no evidence).
pub fn verdict(probe: ProbeAnswer<'_>) -> Verdict {
    let (status, body) = match probe {
        ProbeAnswer::Stdio(body) => (200, body),
        ProbeAnswer::Http { status, body } => (status, body),
    };
    if matches!(status, 401 | 403 | 429 | 500..) {
        return Verdict::Unknown;
    }
    match spoken(body) {
        Some(true) => Verdict::Modern,
        Some(false) | None => Verdict::Legacy,
    }
}

/// Whether the answer is that of a modern server; `None` when it is no JSON-RPC answer.
fn spoken(body: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    struct Error {
        code: i32,
        #[serde(default)]
        data: Option<Supported>,
    }
    #[derive(Deserialize)]
    struct Supported {
        #[serde(default)]
        supported: Vec<String>,
    }
    let is_modern = |version: &String| {
        version
            .parse::<Revision>()
            .is_ok_and(|revision| revision.era() == Era::Modern)
    };
    let response = Response::read(bytes::Bytes::copy_from_slice(body)).ok()?;
    let error = match response.payload() {
        Ok(_) => return Some(ServerFacts::from_discover(body).is_ok()),
        Err(error) => serde_json::from_str::<Error>(error.get()).ok()?,
    };
    Some(match error.code {
        UNSUPPORTED_VERSION => {
            let supported = error.data.map(|data| data.supported).unwrap_or_default();
            supported.is_empty() || supported.iter().any(is_modern)
        }
        HEADER_MISMATCH | MISSING_CAPABILITY => true,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn introductions_of_both_eras_are_read() {
        let legacy = br#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"x","version":"1"},"instructions":"hi"}}"#;
        let facts = ServerFacts::from_initialize(legacy).unwrap();
        assert_eq!(facts.revision, Revision::V2025_06_18);
        assert_eq!(facts.instructions.as_deref(), Some("hi"));
        let modern = br#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2025-11-25","2026-07-28"],"capabilities":{},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"y"}}}}"#;
        let facts = ServerFacts::from_discover(modern).unwrap();
        assert_eq!(facts.revision, Revision::V2026_07_28);
        assert_eq!(facts.server_info.get(), r#"{"name":"y"}"#);
        assert!(matches!(
            ServerFacts::from_initialize(modern),
            Err(Unusable::Revision(_))
        ));
    }

    #[test]
    fn probes_are_judged_as_servers_in_the_wild_answer_them() {
        let http = |status, body: &str| {
            verdict(ProbeAnswer::Http {
                status,
                body: body.as_bytes(),
            })
        };
        let uninitialised = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#;
        assert_eq!(http(400, uninitialised), Verdict::Legacy);
        assert_eq!(http(404, ""), Verdict::Legacy);
        assert_eq!(http(405, "no"), Verdict::Legacy);
        assert_eq!(http(401, ""), Verdict::Unknown);
        assert_eq!(http(503, ""), Verdict::Unknown);
        let versions = |list: &str| {
            format!(
                r#"{{"id":1,"error":{{"code":-32022,"message":"","data":{{"supported":[{list}]}}}}}}"#
            )
        };
        assert_eq!(http(400, &versions("\"2026-07-28\"")), Verdict::Modern);
        assert_eq!(http(400, &versions("\"2025-11-25\"")), Verdict::Legacy);
        let unknown = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"?"}}"#;
        assert_eq!(verdict(ProbeAnswer::Stdio(unknown)), Verdict::Legacy);
        let only_old =
            br#"{"id":1,"result":{"supportedVersions":["2025-11-25"],"capabilities":{}}}"#;
        assert_eq!(verdict(ProbeAnswer::Stdio(only_old)), Verdict::Legacy);
    }
}
