//! How Vaxel introduces itself: as a client to upstreams, as a server to clients.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use vaxel_core::catalog::CacheHint;

use crate::{
    handshake::capabilities::{Answers, TASKS},
    meta,
    method::Method,
    request::Request,
    revision::{Era, Revision},
};

/// `{"name":"vaxel","version":…}`
pub fn implementation(version: &str) -> Box<RawValue> {
    let mut text = Vec::new();
    meta::quote(&mut text, version);
    let object = meta::rewrite(
        None,
        |_| false,
        &[("name", b"\"vaxel\""), ("version", &text)],
    );
    meta::object(object)
}

/// `params` of `initialize` as Vaxel sends it for clients that answer `answers`.
pub fn initialize_params(revision: Revision, answers: Answers) -> Vec<u8> {
    let version = format!("\"{revision}\"");
    let capabilities = answers.declared(revision);
    let info = implementation(env!("CARGO_PKG_VERSION"));
    meta::rewrite(
        None,
        |_| false,
        &[
            ("protocolVersion", version.as_bytes()),
            ("capabilities", &capabilities),
            ("clientInfo", info.get().as_bytes()),
        ],
    )
}

/// `initialize` as Vaxel sends it.
pub fn initialize_request(id: u64, revision: Revision, answers: Answers) -> Bytes {
    Request::own(
        id,
        Method::Initialize,
        &initialize_params(revision, answers),
    )
}

/// `notifications/initialized`
pub const fn initialized_notification() -> Bytes {
    Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
}

/// `server/discover` as Vaxel sends it.
pub fn discover_request(id: u64) -> Bytes {
    Request::own(id, Method::Discover, &modern_params(&[]))
}

/// `subscriptions/listen` for every list, these resources and these tasks, as Vaxel sends it. A server
/// tells of tasks only who declares that it knows them (SEP-2663, "Task Status Notifications").
pub fn listen_request<'a>(
    id: u64,
    resources: impl IntoIterator<Item = &'a str>,
    tasks: impl IntoIterator<Item = &'a str>,
) -> Bytes {
    let tasks = strings(tasks);
    let declared = match tasks {
        Some(_) => format!(r#"{{"extensions":{{"{TASKS}":{{}}}}}}"#),
        None => "{}".to_owned(),
    };
    let wanted = listened(strings(resources), tasks);
    let members: [(&str, &[u8]); 1] = [("notifications", &wanted)];
    let params = params_of_one_who_declares(declared.as_bytes(), &members);
    Request::own(id, Method::Listen, &params)
}

/// What is listened for: every list, and these resources and tasks.
fn listened(resources: Option<Vec<u8>>, tasks: Option<Vec<u8>>) -> Vec<u8> {
    let mut wanted = vec![b'{'];
    for list in [
        "toolsListChanged",
        "promptsListChanged",
        "resourcesListChanged",
    ] {
        meta::member(&mut wanted, list, b"true");
    }
    for (name, values) in [("resourceSubscriptions", resources), ("taskIds", tasks)] {
        if let Some(values) = values {
            meta::member(&mut wanted, name, &values);
        }
    }
    wanted.push(b'}');
    wanted
}

/// An array of strings, unless it is empty.
fn strings<'a>(all: impl IntoIterator<Item = &'a str>) -> Option<Vec<u8>> {
    let mut array = vec![b'['];
    for one in all {
        if array.len() > 1 {
            array.push(b',');
        }
        meta::quote(&mut array, one);
    }
    array.push(b']');
    (array.len() > 2).then_some(array)
}

/// `params` of a modern request of Vaxel's own, with `members` besides `_meta`.
pub fn modern_params(members: &[(&str, &[u8])]) -> Vec<u8> {
    params_of_one_who_declares(b"{}", members)
}

fn params_of_one_who_declares(capabilities: &[u8], members: &[(&str, &[u8])]) -> Vec<u8> {
    let info = implementation(env!("CARGO_PKG_VERSION"));
    let about = meta::rewrite(
        None,
        |_| false,
        &[
            (meta::PROTOCOL_VERSION, b"\"2026-07-28\""),
            (meta::CLIENT_CAPABILITIES, capabilities),
            (meta::CLIENT_INFO, info.get().as_bytes()),
        ],
    );
    let mut all = members.to_vec();
    all.push(("_meta", &about));
    meta::rewrite(None, |_| false, &all)
}

/// The revision that a legacy client which asked for `version` gets: its own when it is one of that
/// era, else the newest of that era (MCP 2025-11-25, Lifecycle, "Version Negotiation").
pub fn negotiate(version: &str) -> Revision {
    match version.parse::<Revision>() {
        Ok(revision) if revision.era() == Era::Legacy => revision,
        Ok(_) | Err(_) => Revision::LATEST_LEGACY,
    }
}

/// What an endpoint says about itself.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Name and version, an object.
    pub info: Box<RawValue>,
    /// What the services behind it can do together.
    pub offers: Offered,
    /// Extensions that they speak, by their names; settings are raw.
    pub extensions: BTreeMap<Box<str>, Box<RawValue>>,
    /// For models.
    pub instructions: Option<String>,
    /// What a modern client may do with the introduction.
    pub cache: CacheHint,
}

/// Which areas the services behind an endpoint have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "six independent areas")]
pub struct Offered {
    /// Tools.
    pub tools: bool,
    /// Prompts.
    pub prompts: bool,
    /// Resources.
    pub resources: bool,
    /// Word of changes of single resources.
    pub subscribe: bool,
    /// Completion of arguments.
    pub completions: bool,
    /// Log messages.
    pub logging: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Capabilities<'a> {
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    prompts: Option<&'a RawValue>,
    #[serde(borrow)]
    resources: Option<&'a RawValue>,
    #[serde(borrow)]
    completions: Option<&'a RawValue>,
    #[serde(borrow)]
    logging: Option<&'a RawValue>,
}

impl Offered {
    /// What one server's `capabilities` say.
    pub fn of(capabilities: &RawValue) -> Self {
        let found: Capabilities<'_> = serde_json::from_str(capabilities.get()).unwrap_or_default();
        Self {
            tools: found.tools.is_some(),
            prompts: found.prompts.is_some(),
            resources: found.resources.is_some(),
            subscribe: found.resources.is_some_and(takes_subscriptions),
            completions: found.completions.is_some(),
            logging: found.logging.is_some(),
        }
    }

    /// What either can do.
    pub const fn or(self, other: Self) -> Self {
        Self {
            tools: self.tools || other.tools,
            prompts: self.prompts || other.prompts,
            resources: self.resources || other.resources,
            subscribe: self.subscribe || other.subscribe,
            completions: self.completions || other.completions,
            logging: self.logging || other.logging,
        }
    }

    /// The same as a `capabilities` object. Lists change at run time whatever the servers say, since
    /// services come and go.
    fn to_json(self, extensions: &BTreeMap<Box<str>, Box<RawValue>>) -> Vec<u8> {
        const LIST: &[u8] = br#"{"listChanged":true}"#;
        let resources: &[u8] = if self.subscribe {
            br#"{"subscribe":true,"listChanged":true}"#
        } else {
            LIST
        };
        let areas: [(bool, &str, &[u8]); 5] = [
            (self.tools, "tools", LIST),
            (self.prompts, "prompts", LIST),
            (self.resources, "resources", resources),
            (self.completions, "completions", b"{}"),
            (self.logging, "logging", b"{}"),
        ];
        let mut object = vec![b'{'];
        for (_, name, settings) in areas.into_iter().filter(|(has, _, _)| *has) {
            meta::member(&mut object, name, settings);
        }
        if !extensions.is_empty() {
            let mut all = vec![b'{'];
            for (name, settings) in extensions {
                meta::member(&mut all, name, settings.get().as_bytes());
            }
            all.push(b'}');
            meta::member(&mut object, "extensions", &all);
        }
        object.push(b'}');
        object
    }
}

/// The extensions that `capabilities` name, of a client or a server.
pub fn extensions(capabilities: &RawValue) -> BTreeMap<Box<str>, Box<RawValue>> {
    #[derive(Deserialize)]
    struct Extended {
        #[serde(default)]
        extensions: BTreeMap<Box<str>, Box<RawValue>>,
    }
    let read: Result<Extended, _> = serde_json::from_str(capabilities.get());
    read.map(|read| read.extensions).unwrap_or_default()
}

fn takes_subscriptions(resources: &RawValue) -> bool {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Resources {
        subscribe: bool,
    }
    let read: Resources = serde_json::from_str(resources.get()).unwrap_or_default();
    read.subscribe
}

/// The result of `initialize`.
pub fn initialize_result(revision: Revision, introduction: &Introduction) -> Bytes {
    let version = format!("\"{revision}\"");
    let capabilities = introduction.offers.to_json(&introduction.extensions);
    let mut result = vec![b'{'];
    meta::member(&mut result, "protocolVersion", version.as_bytes());
    meta::member(&mut result, "capabilities", &capabilities);
    meta::member(
        &mut result,
        "serverInfo",
        introduction.info.get().as_bytes(),
    );
    instructions(&mut result, introduction);
    result.push(b'}');
    result.into()
}

/// The result of `server/discover`.
pub fn discover_result(introduction: &Introduction) -> Bytes {
    let capabilities = introduction.offers.to_json(&introduction.extensions);
    let about = meta::rewrite(
        None,
        |_| false,
        &[(meta::SERVER_INFO, introduction.info.get().as_bytes())],
    );
    let mut result = vec![b'{'];
    meta::member(&mut result, "resultType", b"\"complete\"");
    meta::member(&mut result, "supportedVersions", b"[\"2026-07-28\"]");
    meta::member(&mut result, "capabilities", &capabilities);
    instructions(&mut result, introduction);
    meta::member(
        &mut result,
        "ttlMs",
        introduction.cache.ttl_ms.to_string().as_bytes(),
    );
    let scope: &[u8] = if introduction.cache.is_public {
        b"\"public\""
    } else {
        b"\"private\""
    };
    meta::member(&mut result, "cacheScope", scope);
    meta::member(&mut result, "_meta", &about);
    result.push(b'}');
    result.into()
}

fn instructions(result: &mut Vec<u8>, introduction: &Introduction) {
    if let Some(text) = &introduction.instructions {
        let mut quoted = Vec::with_capacity(text.len() + 2);
        meta::quote(&mut quoted, text);
        meta::member(result, "instructions", &quoted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legacy_client_gets_its_own_revision_or_the_newest_of_its_era() {
        assert_eq!(negotiate("2025-03-26"), Revision::V2025_03_26);
        assert_eq!(negotiate("2026-07-28"), Revision::V2025_11_25);
        assert_eq!(negotiate("1999-01-01"), Revision::V2025_11_25);
    }

    #[test]
    fn introductions_are_what_each_era_reads() {
        let capabilities =
            RawValue::from_string(r#"{"tools":{},"logging":{}}"#.to_owned()).unwrap();
        let introduction = Introduction {
            info: implementation("1.0"),
            offers: Offered::of(&capabilities),
            extensions: BTreeMap::new(),
            instructions: Some("use \"it\"".to_owned()),
            cache: CacheHint {
                ttl_ms: 5,
                is_public: false,
            },
        };
        let legacy = initialize_result(Revision::V2025_06_18, &introduction);
        assert_eq!(
            String::from_utf8_lossy(&legacy),
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"logging":{}},"serverInfo":{"name":"vaxel","version":"1.0"},"instructions":"use \"it\""}"#
        );
        let modern: serde_json::Value =
            serde_json::from_slice(&discover_result(&introduction)).unwrap();
        assert_eq!(modern["resultType"], "complete");
        assert_eq!(
            modern["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
            "vaxel"
        );
    }
}
