//! What an upstream says about itself, in either era, and how its era is told from its answers.

pub mod capabilities;

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
    // Credentials of a proxy, a request that came too slowly or too early, too many of them.
    if matches!(status, 401 | 403 | 407 | 408 | 425 | 429 | 500..) {
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
        code: i64,
        #[serde(default)]
        data: Option<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Versions {
        #[serde(default, alias = "supportedVersions")]
        supported: Vec<String>,
    }
    let versions = |raw: &RawValue| {
        serde_json::from_str::<Versions>(raw.get()).map_or_else(|_| Vec::new(), |v| v.supported)
    };
    let response = Response::read(bytes::Bytes::copy_from_slice(body)).ok()?;
    let error = match response.payload() {
        Ok(result) => return Some(speaks_modern(&versions(result)) == Some(true)),
        Err(error) => serde_json::from_str::<Error>(error.get()).ok()?,
    };
    Some(match i32::try_from(error.code) {
        Ok(UNSUPPORTED_VERSION) => {
            let supported = error.data.map(|data| versions(&data)).unwrap_or_default();
            speaks_modern(&supported) != Some(false)
        }
        Ok(HEADER_MISMATCH | MISSING_CAPABILITY) => true,
        _ => false,
    })
}

/// What a server's list of versions says: a revision that we share decides; without one, a date after
/// ours is modern too, so that the reason people read is the version and not a failed `initialize`.
fn speaks_modern(versions: &[String]) -> Option<bool> {
    let known = |era| {
        let mut revisions = versions
            .iter()
            .filter_map(|text| text.parse::<Revision>().ok());
        revisions.any(|revision| revision.era() == era)
    };
    let is_later = |text: &String| {
        let digits = |byte: u8| byte.is_ascii_digit() || byte == b'-';
        text.len() == 10 && text.bytes().all(digits) && &**text > Revision::LATEST.as_str()
    };
    if known(Era::Modern) {
        Some(true)
    } else if known(Era::Legacy) {
        Some(false)
    } else {
        versions.iter().any(is_later).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        for status in [401, 403, 407, 408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(http(status, uninitialised), Verdict::Unknown, "{status}");
        }
        let versions = |list: &str| {
            format!(
                r#"{{"id":1,"error":{{"code":-32022,"message":"","data":{{"supported":[{list}]}}}}}}"#
            )
        };
        assert_eq!(http(400, &versions("\"2026-07-28\"")), Verdict::Modern);
        assert_eq!(http(400, &versions("\"2025-11-25\"")), Verdict::Legacy);
        assert_eq!(http(400, &versions("")), Verdict::Modern);
        assert_eq!(http(400, &versions("\"2027-01-01\"")), Verdict::Modern);
        let later_or_legacy = versions("\"2027-01-01\",\"2025-06-18\"");
        assert_eq!(http(400, &later_or_legacy), Verdict::Legacy);
        let unexplained = r#"{"id":1,"error":{"code":-32020,"message":"","data":"Mcp-Method"}}"#;
        assert_eq!(http(400, unexplained), Verdict::Modern);
        let unknown = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"?"}}"#;
        assert_eq!(verdict(ProbeAnswer::Stdio(unknown)), Verdict::Legacy);
        let only_old =
            br#"{"id":1,"result":{"supportedVersions":["2025-11-25"],"capabilities":{}}}"#;
        assert_eq!(verdict(ProbeAnswer::Stdio(only_old)), Verdict::Legacy);
    }
    #[test]
    fn a_server_that_is_too_new_is_refused_by_its_version() {
        let later = br#"{"id":1,"result":{"supportedVersions":["2027-01-01"],"capabilities":{}}}"#;
        assert_eq!(verdict(ProbeAnswer::Stdio(later)), Verdict::Modern);
        let refused = ServerFacts::from_discover(later).unwrap_err();
        assert_eq!(refused, Unusable::Revision("2027-01-01".to_owned()));
    }

    #[test]
    fn a_result_of_any_other_kind_is_no_evidence_of_a_modern_server() {
        for result in [
            "{}",
            "null",
            "[]",
            r#"{"supportedVersions":7}"#,
            r#"{"supportedVersions":["x"]}"#,
        ] {
            let answer = format!(r#"{{"id":1,"result":{result}}}"#);
            assert_eq!(
                verdict(ProbeAnswer::Stdio(answer.as_bytes())),
                Verdict::Legacy,
                "{result}"
            );
        }
    }

    #[test]
    fn odd_introductions_are_read_as_far_as_they_go() {
        let odd = br#"{"id":1,"result":{"protocolVersion":"2024-10-07","capabilities":null,"serverInfo":"x","instructions":null}}"#;
        let facts = ServerFacts::from_initialize(odd).unwrap();
        assert_eq!(facts.revision, Revision::V2024_11_05);
        assert_eq!(
            (facts.capabilities.get(), facts.server_info.get()),
            ("{}", "{}")
        );
        let modern = br#"{"id":1,"result":{"protocolVersion":"2026-07-28","capabilities":{}}}"#;
        assert!(matches!(
            ServerFacts::from_initialize(modern),
            Err(Unusable::Revision(_))
        ));
        let refused = br#"{"id":1,"error":{"code":-1,"message":"no"}}"#;
        assert!(matches!(
            ServerFacts::from_initialize(refused),
            Err(Unusable::Refused(_))
        ));
    }

    proptest! {
        #[test]
        fn hostile_answers_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            members in "(\"(result|error|code|data|supported|supportedVersions|id)\":(\\{|\\}|\\[|\\]|-?[0-9]{1,12}|\"2026-07-28\"),?){0,6}",
            status: u16,
        ) {
            for body in [&bytes[..], format!("{{{members}}}").as_bytes()] {
                verdict(ProbeAnswer::Http { status, body });
                verdict(ProbeAnswer::Stdio(body));
                // Only that they return is of interest here.
                let _ = ServerFacts::from_initialize(body);
                let _ = ServerFacts::from_discover(body);
            }
        }
    }
}
