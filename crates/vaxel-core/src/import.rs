//! Configurations of MCP clients, read as services: `mcpServers` (Claude, Cursor and most others),
//! `servers` (VS Code), `context_servers` (Zed), `mcp_servers` (Codex, given as JSON), `mcp`
//! (opencode).
//!
//! Nothing is imported as something else than it was: what Vaxel cannot keep is an issue.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    failure::Issue,
    jsonc,
    name::ServiceName,
    service::{McpSource, ProcessSource, ServiceDraft, Source, ToolFilter},
};

/// What a configuration holds.
#[derive(Debug, Default)]
pub struct Imported {
    /// One draft per server that can be used.
    pub drafts: Vec<ServiceDraft>,
    /// Why others cannot.
    pub refused: Vec<Issue>,
    /// What was changed or left out.
    pub issues: Vec<Issue>,
}

/// Said of a server that would lead back here; clients that use Vaxel have it among theirs.
const ITSELF: &str = "is Vaxel itself, which would call itself without end: left out";

/// Where the servers may stand.
const PLACES: &[&[&str]] = &[
    &["mcpServers"],
    &["servers"],
    &["mcp", "servers"],
    &["context_servers"],
    &["mcp_servers"],
    &["mcp"],
];

/// Members that decide what a server gets, and that only the client itself can follow.
const ONLY_THE_CLIENT: &[&str] = &[
    "envFile",
    "env_vars",
    "env_http_headers",
    "bearer_token_env_var",
    "headersHelper",
    "auth",
    "oauth",
];

/// Reads a configuration. Comments and trailing commas, which several clients allow, are passed
/// over.
///
/// # Errors
/// A sentence on why the text is no configuration at all; problems of single servers are issues.
pub fn import(text: &str) -> Result<Imported, String> {
    from_value(&jsonc::parse(text).map_err(|error| error.to_string())?)
}

/// Reads a configuration that was parsed elsewhere (TOML, YAML).
pub fn from_value(value: &Value) -> Result<Imported, String> {
    let mut groups: Vec<(String, &Map<String, Value>)> = Vec::new();
    groups.extend(PLACES.iter().find_map(|place| {
        let servers = place.iter().try_fold(value, |value, key| value.get(key))?;
        Some((place.join("."), servers.as_object()?))
    }));
    // Claude Code keeps the servers of single folders beside those of everywhere.
    for (folder, project) in value["projects"].as_object().into_iter().flatten() {
        let servers = project["mcpServers"].as_object();
        groups.extend(servers.map(|servers| (format!("projects.{folder}.mcpServers"), servers)));
    }
    if groups.is_empty() {
        return Err("it has no `mcpServers` or `servers` object".to_owned());
    }
    let mut imported = Imported::default();
    let mut taken = BTreeSet::new();
    for (place, key, server) in groups.iter().flat_map(|(place, servers)| {
        servers
            .iter()
            .map(move |(key, server)| (place, key, server))
    }) {
        let path = format!("{place}.{key}");
        let Some(server) = server.as_object() else {
            imported.refused.push(Issue::new(path, "is no object"));
            continue;
        };
        let issues = &mut imported.issues;
        match source(server, &path, issues) {
            Ok(source) => {
                let Some(name) = free_name(key, &mut taken) else {
                    let message = "no service name can be made of this key";
                    imported.refused.push(Issue::new(path, message));
                    continue;
                };
                let draft = draft((key, name), server, source, (&path, issues));
                imported.drafts.push(draft);
            }
            Err(issue) if issue.message == ITSELF => issues.push(issue),
            Err(issue) => imported.refused.push(issue),
        }
    }
    Ok(imported)
}

fn draft(
    (key, name): (&str, ServiceName),
    server: &Map<String, Value>,
    source: Source,
    (path, issues): (&str, &mut Vec<Issue>),
) -> ServiceDraft {
    if name.as_str() != key {
        issues.push(Issue::new(path, format!("is imported as `{name}`")));
    }
    let mut draft = ServiceDraft::new(name, source);
    let is = |key: &str| server.get(key).and_then(Value::as_bool);
    draft.enabled = !is("disabled").unwrap_or(false) && is("enabled").unwrap_or(true);
    draft.spec.tools = tools(server);
    for variable in placeholders(&draft) {
        issues.push(Issue::new(
            path,
            format!("uses the placeholder `{variable}`: set the value with `vaxel service edit`"),
        ));
    }
    for member in ONLY_THE_CLIENT {
        if server.get(*member).is_some_and(|value| !value.is_null()) {
            let message = format!(
                "has `{member}`, which only the client could follow: set the values with `vaxel \
                 service edit`"
            );
            issues.push(Issue::new(path, message));
        }
    }
    draft
}

fn source(
    server: &Map<String, Value>,
    path: &str,
    issues: &mut Vec<Issue>,
) -> Result<Source, Issue> {
    let text = |key: &str| server.get(key).and_then(Value::as_str).map(str::to_owned);
    let kind = text("type").or_else(|| text("transport"));
    match kind.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "stdio" | "local" | "remote" | "http" | "streamable-http" | "streamable_http"
        | "streamablehttp" | "streamable" | "sse" => {}
        other => {
            let message = format!("speaks `{other}`, which is no transport that Vaxel knows");
            return Err(Issue::new(path, message));
        }
    }
    let url = text("url")
        .or_else(|| text("serverUrl"))
        .or_else(|| text("httpUrl"));
    if let Some(url) = url {
        let headers = server.get("headers").or_else(|| server.get("http_headers"));
        let headers = map(headers);
        return Ok(Source::Mcp(McpSource {
            url,
            headers,
            ..McpSource::default()
        }));
    }
    process(server, path, issues)
}

/// Most clients write `command` and `args`; Zed once nested them, opencode writes one list.
fn process(
    server: &Map<String, Value>,
    path: &str,
    issues: &mut Vec<Issue>,
) -> Result<Source, Issue> {
    let list = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        items.map(plain_text).collect()
    };
    let mut holder = server;
    let mut words = match server.get("command") {
        Some(Value::String(command)) => vec![command.clone()],
        Some(Value::Array(_)) => list(server.get("command")),
        Some(Value::Object(nested)) => {
            holder = nested;
            list(Some(&Value::Array(
                nested.get("path").cloned().into_iter().collect(),
            )))
        }
        _ => Vec::new(),
    };
    words.extend(list(holder.get("args")));
    let mut words = words.into_iter();
    let Some(command) = words.next().filter(|command| !command.is_empty()) else {
        return Err(Issue::new(path, "has neither a `command` nor a `url`"));
    };
    let args: Vec<String> = words.collect();
    let program = command.rsplit(['/', '\\']).next().unwrap_or_default();
    if program == "vaxel" && args.iter().any(|arg| arg == "stdio") {
        return Err(Issue::new(path, ITSELF));
    }
    let cwd = server.get("cwd").and_then(Value::as_str);
    if let Some(cwd) = cwd.filter(|cwd| !cwd.starts_with('/')) {
        let message = format!(
            "has the working directory `{cwd}`, which is not absolute: left out; set it with \
             `vaxel service edit`"
        );
        issues.push(Issue::new(path, message));
    }
    Ok(Source::Process(ProcessSource {
        command,
        args,
        env: map(holder.get("env").or_else(|| server.get("environment"))),
        cwd: cwd.filter(|cwd| cwd.starts_with('/')).map(str::to_owned),
    }))
}

/// Which tools a client may see: several clients have such lists, under various names.
fn tools(server: &Map<String, Value>) -> ToolFilter {
    let list = |keys: [&str; 3]| -> Option<Vec<String>> {
        let found = keys.iter().find_map(|key| server.get(*key)?.as_array())?;
        Some(found.iter().map(plain_text).collect())
    };
    ToolFilter {
        allow: list(["includeTools", "enabledTools", "enabled_tools"]),
        deny: list(["excludeTools", "disabledTools", "disabled_tools"]).unwrap_or_default(),
    }
}

fn map(value: Option<&Value>) -> BTreeMap<String, String> {
    let object = value.and_then(Value::as_object);
    object
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), plain_text(value)))
        .collect()
}

fn plain_text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn free_name(key: &str, taken: &mut BTreeSet<String>) -> Option<ServiceName> {
    let base = ServiceName::closest(key)?;
    let mut name = base.clone();
    let mut number = 1;
    while !taken.insert(name.to_string()) {
        number += 1;
        let short: String = base.as_str().chars().take(28).collect();
        name = ServiceName::closest(&format!("{short}-{number}"))?;
    }
    Some(name)
}

/// Every `${…}` that only the client itself could have filled in, each once.
fn placeholders(draft: &ServiceDraft) -> BTreeSet<String> {
    let texts: Vec<&String> = match &draft.spec.source {
        Source::Process(process) => {
            let words = [&process.command].into_iter().chain(&process.args);
            words
                .chain(process.env.values())
                .chain(&process.cwd)
                .collect()
        }
        Source::Mcp(mcp) => [&mcp.url].into_iter().chain(mcp.headers.values()).collect(),
        Source::Http(http) => http.headers.values().collect(),
        Source::Builtin(_) => Vec::new(),
    };
    let mut found = BTreeSet::new();
    for text in texts {
        let starts = text.match_indices("${").map(|(start, _)| &text[start..]);
        found.extend(starts.filter_map(|rest| Some(rest[..=rest.find('}')?].to_owned())));
    }
    found
}

#[cfg(test)]
mod tests;
