//! Reads a [`ServiceDraft`] field by field, so that every problem is named at once.

use std::time::Duration;

use url::Url;

use super::{
    Builtin, EraChoice, Limits, McpSource, ProcessSource, ServiceDraft, ServiceSpec, SessionScope,
    Source, ToolFilter, ToolLimits, Validate, default_environment, derivation, identity, read_http,
    upstream_auth,
};
use crate::{balance::Balance, fields::Fields, health, name::ServiceName, quantity::Span};

/// Shortest and longest time without calls after which processes are stopped.
const IDLE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(30 * 24);

/// Bounds of how long a service may be silent.
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_hours(30 * 24);
/// Longest name for people, in characters.
const TITLE_MAX: usize = 120;
/// Services that one may depend on.
const DEPENDENCIES_MAX: usize = 64;
/// Names of tools that have limits of their own.
const LIMITED_TOOLS_MAX: usize = 100;
/// Longest text of one argument, value or pattern, in bytes.
const TEXT_MAX: usize = 32 * 1024;

pub(super) fn draft(fields: &mut Fields<'_>) -> Option<ServiceDraft> {
    let name = fields.required_string("name").and_then(|text| {
        text.parse()
            .map_err(|error| fields.issue("name", format!("{error}")))
            .ok()
    });
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let tags = fields.strings("tags").unwrap_or_default();
    let environment = fields
        .string("environment")
        .unwrap_or_else(default_environment);
    if tags.len() > 64 || tags.iter().any(|tag| tag.is_empty() || tag.len() > 64) {
        fields.issue("tags", "at most 64 tags of 1 to 64 characters");
    }
    if environment.is_empty() || environment.len() > 64 {
        fields.issue("environment", "must have 1 to 64 characters");
    }
    if !fields.has("spec") {
        fields.value("spec");
        fields.issue("spec", "is missing");
    }
    let spec: Option<ServiceSpec> = fields.nested("spec", spec).flatten();
    let name: ServiceName = name?;
    if spec
        .as_ref()
        .is_some_and(|spec| spec.depends_on.contains(&name))
    {
        fields.issue("spec.depends_on", "a service cannot depend on itself");
    }
    Some(ServiceDraft {
        name,
        enabled,
        tags,
        environment,
        spec: spec?,
    })
}

fn spec(fields: &mut Fields<'_>) -> Option<ServiceSpec> {
    let title = fields.string("title");
    if title
        .as_ref()
        .is_some_and(|title| title.chars().count() > TITLE_MAX)
    {
        fields.issue("title", format!("has more than {TITLE_MAX} characters"));
    }
    let description = fields.string("description");
    if !fields.has("source") {
        fields.value("source");
        fields.issue("source", "is missing: give one of process, mcp, http");
    }
    let source = fields.nested("source", source).flatten();
    let replicas = fields.integer("replicas", 1..=64).unwrap_or(1);
    let balance = fields.parsed::<Balance>("balance").unwrap_or_default();
    let idle_timeout = fields.parsed::<Span>("idle_timeout");
    let era = fields.parsed::<EraChoice>("era").unwrap_or_default();
    let tools = fields.nested("tools", tool_filter).unwrap_or_default();
    let validate = fields.parsed::<Validate>("validate").unwrap_or_default();
    let identity = identity::read(fields, source.as_ref());
    let limits = fields.nested("limits", limits).unwrap_or_default();
    let depends_on = depends_on(fields);
    let lease: Option<Span> = fields.parsed("lease");
    if lease.is_some_and(|lease| !(LEASE_MIN..=LEASE_MAX).contains(&lease.0)) {
        fields.issue("lease", "must be between 1s and 30d");
    }
    let health = fields
        .nested("health", health::read_spec)
        .unwrap_or_default();
    let extends = fields.nested("extends", derivation::read).flatten();
    let is_other = source
        .as_ref()
        .is_some_and(|source| !matches!(source, Source::Process(_)));
    if replicas > 1 && is_other {
        fields.issue("replicas", "more than one replica needs a `process` source");
    }
    if idle_timeout.is_some() && is_other {
        fields.issue("idle_timeout", "only a `process` source can be stopped");
    }
    if idle_timeout.is_some_and(|span| !IDLE.contains(&span.0)) {
        fields.issue("idle_timeout", "must be between 1s and 30d");
    }
    let replicas = u16::try_from(replicas).unwrap_or(1);
    Some(ServiceSpec {
        title,
        description,
        source: source?,
        replicas,
        balance,
        idle_timeout,
        era,
        tools,
        validate,
        identity,
        limits,
        depends_on,
        lease,
        health,
        extends: extends.map(Box::new),
    })
}

fn depends_on(fields: &mut Fields<'_>) -> Vec<ServiceName> {
    let texts = fields.strings("depends_on").unwrap_or_default();
    if texts.len() > DEPENDENCIES_MAX {
        fields.issue(
            "depends_on",
            format!("more than {DEPENDENCIES_MAX} services"),
        );
    }
    let mut names = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match text.parse::<ServiceName>() {
            Ok(name) if names.contains(&name) => {
                fields.issue(
                    &format!("depends_on[{index}]"),
                    format!("names `{name}` again"),
                );
            }
            Ok(name) => names.push(name),
            Err(error) => fields.issue(&format!("depends_on[{index}]"), error.to_string()),
        }
    }
    names
}

fn source(fields: &mut Fields<'_>) -> Option<Source> {
    let process = fields
        .nested("process", process)
        .flatten()
        .map(Source::Process);
    let mcp = fields.nested("mcp", mcp).flatten().map(Source::Mcp);
    let http = fields.nested("http", read_http::http).map(Source::Http);
    let builtin = fields.string("builtin").and_then(|name| {
        if name == "demo" {
            return Some(Source::Builtin(Builtin::Demo));
        }
        fields.issue(
            "builtin",
            format!("`{name}` is not part of this binary: known is demo"),
        );
        None
    });
    let given = ["process", "mcp", "http", "builtin"]
        .iter()
        .filter(|key| fields.has(key))
        .count();
    if given != 1 {
        fields.issue(
            "",
            format!("must hold exactly one of process, mcp, http; it holds {given}"),
        );
        return None;
    }
    process.or(mcp).or(http).or(builtin)
}

fn process(fields: &mut Fields<'_>) -> Option<ProcessSource> {
    let command = fields.required_string("command");
    let args = fields.strings("args").unwrap_or_default();
    let env = fields.string_map("env").unwrap_or_default();
    let cwd = fields.string("cwd");
    let texts = command.iter().chain(&args).chain(env.values()).chain(&cwd);
    if texts.clone().any(|text| text.contains('\0')) {
        fields.issue("", "no text may hold a NUL character");
    }
    if texts.clone().any(|text| text.len() > TEXT_MAX) {
        fields.issue("", "no text may be longer than 32 KiB");
    }
    for name in env.keys() {
        if name.is_empty() || name.contains(['=', '\0']) {
            fields.issue(
                &format!("env.{name}"),
                "is not a name of an environment variable",
            );
        }
    }
    if cwd.as_deref().is_some_and(|cwd| !cwd.starts_with('/')) {
        fields.issue("cwd", "must be an absolute path");
    }
    Some(ProcessSource {
        command: command?,
        args,
        env,
        cwd,
    })
}

fn mcp(fields: &mut Fields<'_>) -> Option<McpSource> {
    let url = fields.required_string("url");
    let headers = fields.string_map("headers").unwrap_or_default();
    for (name, value) in &headers {
        if let Some(problem) = header_problem(name, value) {
            fields.issue(&format!("headers.{name}"), problem);
        }
    }
    let session = fields.parsed::<SessionScope>("session").unwrap_or_default();
    let auth = upstream_auth::read(fields);
    let url = url?;
    if let Some(problem) = url_problem(&url) {
        fields.issue("url", problem);
        return None;
    }
    if !auth.is_none() {
        if !url.starts_with("http") {
            fields.issue("auth", "tokens of OAuth are sent over http and https only");
        }
        if headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("authorization"))
        {
            fields.issue(
                "auth",
                "`headers` hold `Authorization` already; leave one of the two out",
            );
        }
    }
    Some(McpSource {
        url,
        headers,
        session,
        auth,
    })
}

fn url_problem(text: &str) -> Option<String> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return Some(format!("`{text}` is not a URL: {error}")),
    };
    if !matches!(url.scheme(), "http" | "https" | "ws" | "wss") {
        return Some(format!(
            "the scheme `{}` is none of http, https, ws and wss",
            url.scheme()
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Some("it names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("credentials do not belong in a URL: use `headers`".to_owned());
    }
    url.fragment()
        .map(|_| "a fragment has no meaning here".to_owned())
}

/// Headers that belong to the connection or the protocol, which the gateway writes itself.
const OWN_HEADERS: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "content-type",
    "accept",
    "transfer-encoding",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "te",
    "trailer",
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
];

pub(super) fn header_problem(name: &str, value: &str) -> Option<&'static str> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Some("is not a header name");
    }
    if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Some("is written by Vaxel itself");
    }
    let visible = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    (!value.bytes().all(visible)).then_some("its value holds control characters")
}

fn tool_filter(fields: &mut Fields<'_>) -> ToolFilter {
    let allow = fields.strings("allow");
    let deny = fields.strings("deny").unwrap_or_default();
    let count = allow.as_ref().map_or(0, Vec::len) + deny.len();
    if count > 1_000 {
        fields.issue("allow", "more than 1000 patterns");
    }
    ToolFilter { allow, deny }
}

fn limits(fields: &mut Fields<'_>) -> Limits {
    let small = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    let tools = fields.map("tools", tool_limits).unwrap_or_default();
    if tools.len() > LIMITED_TOOLS_MAX {
        fields.issue("tools", format!("more than {LIMITED_TOOLS_MAX} names"));
    }
    Limits {
        timeout: fields.parsed("timeout"),
        concurrency: small(fields.integer("concurrency", 1..=1_000_000)),
        rate: fields.parsed("rate"),
        caller_rate: fields.parsed("caller_rate"),
        tools,
        memory: fields.parsed("memory"),
        processes: small(fields.integer("processes", 1..=100_000)),
        open_files: fields.integer("open_files", 16..=1_000_000),
    }
}

fn tool_limits(fields: &mut Fields<'_>) -> ToolLimits {
    let concurrent = fields.integer("concurrent", 1..=1_000_000);
    ToolLimits {
        rate: fields.parsed("rate"),
        caller_rate: fields.parsed("caller_rate"),
        concurrent: concurrent.and_then(|number| u32::try_from(number).ok()),
    }
}
