//! Configurations of MCP clients, read as services: `mcpServers` (Claude, Cursor and most others),
//! `servers` (VS Code), `context_servers` (Zed), `mcp_servers` (Codex, given as JSON).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    failure::Issue,
    name::ServiceName,
    service::{McpSource, ProcessSource, ServiceDraft, Source},
};

/// What a configuration holds.
#[derive(Debug, Default)]
pub struct Imported {
    /// One draft per server that can be used.
    pub drafts: Vec<ServiceDraft>,
    /// Why the others cannot, and what was changed.
    pub issues: Vec<Issue>,
}

/// Where the servers may stand.
const PLACES: &[&[&str]] = &[
    &["mcpServers"],
    &["servers"],
    &["mcp", "servers"],
    &["context_servers"],
    &["mcp_servers"],
];

/// Reads a configuration. Comments and trailing commas, which several clients allow, are passed
/// over.
pub fn import(text: &str) -> Result<Imported, String> {
    let plain = without_comments(text);
    let value: Value = serde_json::from_str(&plain)
        .map_err(|error| format!("it is neither JSON nor JSON with comments: {error}"))?;
    from_value(&value)
}

/// Reads a configuration that was parsed elsewhere (TOML, YAML).
pub fn from_value(value: &Value) -> Result<Imported, String> {
    let found = PLACES.iter().find_map(|place| {
        let servers = place.iter().try_fold(value, |value, key| value.get(key))?;
        servers
            .as_object()
            .map(|servers| (place.join("."), servers))
    });
    let Some((place, servers)) = found else {
        return Err("it has no `mcpServers` or `servers` object".to_owned());
    };
    let mut imported = Imported::default();
    let mut taken = BTreeSet::new();
    for (key, server) in servers {
        let path = format!("{place}.{key}");
        let Some(server) = server.as_object() else {
            imported.issues.push(Issue::new(path, "is no object"));
            continue;
        };
        match read(key, server, &path, &mut taken, &mut imported.issues) {
            Ok(draft) => imported.drafts.push(draft),
            Err(issue) => imported.issues.push(issue),
        }
    }
    Ok(imported)
}

fn read(
    key: &str,
    server: &Map<String, Value>,
    path: &str,
    taken: &mut BTreeSet<String>,
    issues: &mut Vec<Issue>,
) -> Result<ServiceDraft, Issue> {
    let source = source(server, path)?;
    let name = free_name(key, taken)
        .ok_or_else(|| Issue::new(path, "no service name can be made of this key"))?;
    if name.as_str() != key {
        issues.push(Issue::new(path, format!("is imported as `{name}`")));
    }
    let mut draft = ServiceDraft::new(name, source);
    let is = |key: &str| server.get(key).and_then(Value::as_bool);
    draft.enabled = !is("disabled").unwrap_or(false) && is("enabled").unwrap_or(true);
    if let Some(variable) = placeholder(&draft) {
        issues.push(Issue::new(
            path,
            format!("uses the placeholder `{variable}`: set the value with `vaxel service edit`"),
        ));
    }
    Ok(draft)
}

fn source(server: &Map<String, Value>, path: &str) -> Result<Source, Issue> {
    let text = |key: &str| server.get(key).and_then(Value::as_str).map(str::to_owned);
    let kind = text("type")
        .or_else(|| text("transport"))
        .unwrap_or_default();
    if kind == "sse" {
        let message = "speaks the HTTP+SSE transport of 2024-11-05, which is not supported yet";
        return Err(Issue::new(path, message));
    }
    let url = text("url")
        .or_else(|| text("serverUrl"))
        .or_else(|| text("httpUrl"));
    if let Some(url) = url {
        let headers = map(server.get("headers").or_else(|| server.get("http_headers")));
        return Ok(Source::Mcp(McpSource { url, headers }));
    }
    // Zed nests the command.
    let nested = server.get("command").and_then(Value::as_object);
    let command = nested.map_or_else(
        || text("command"),
        |command| {
            command
                .get("path")
                .and_then(Value::as_str)
                .map(str::to_owned)
        },
    );
    let Some(command) = command else {
        return Err(Issue::new(path, "has neither a `command` nor a `url`"));
    };
    let holder = nested.unwrap_or(server);
    let args = holder.get("args").and_then(Value::as_array);
    let args = args.into_iter().flatten().map(plain_text).collect();
    let cwd = text("cwd").filter(|cwd| cwd.starts_with('/'));
    Ok(Source::Process(ProcessSource {
        command,
        args,
        env: map(holder.get("env")),
        cwd,
    }))
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

/// The first `${…}` that only the client itself could have filled in.
fn placeholder(draft: &ServiceDraft) -> Option<String> {
    let text = serde_json::to_string(&draft.spec).ok()?;
    let start = text.find("${")?;
    let end = text[start..].find('}')?;
    Some(text[start..=start + end].to_owned())
}

/// JSON without `//` and `/* */` comments and without commas before a closing bracket.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let mut in_string = false;
    while let Some(letter) = letters.next() {
        match letter {
            '"' => in_string = !in_string,
            '\\' if in_string => {
                out.push(letter);
                out.extend(letters.next());
                continue;
            }
            '/' if !in_string && letters.peek() == Some(&'/') => {
                while letters.peek().is_some_and(|next| *next != '\n') {
                    letters.next();
                }
                continue;
            }
            '/' if !in_string && letters.peek() == Some(&'*') => {
                letters.next();
                let mut last = ' ';
                for next in letters.by_ref() {
                    if last == '*' && next == '/' {
                        break;
                    }
                    last = next;
                }
                continue;
            }
            '}' | ']' if !in_string => {
                let end = out.trim_end().len();
                if out[..end].ends_with(',') {
                    out.truncate(end - 1);
                }
            }
            _ => {}
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claude_configuration_becomes_services() {
        let text = r#"{"mcpServers": {
            "filesystem": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/tmp"]},
            "My Notes!": {"command": "uvx", "args": ["notes"], "env": {"TOKEN": "t", "PORT": 1}, "disabled": true}
        }}"#;
        let imported = import(text).unwrap();
        assert_eq!(imported.drafts.len(), 2);
        let notes = imported
            .drafts
            .iter()
            .find(|draft| draft.name.as_str() == "my-notes")
            .unwrap();
        assert!(!notes.enabled);
        let Source::Process(process) = &notes.spec.source else {
            panic!("not a process")
        };
        assert_eq!(process.env["PORT"], "1");
        assert_eq!(imported.issues[0].message, "is imported as `my-notes`");
    }

    #[test]
    fn a_vs_code_file_with_comments_is_read() {
        let text = "{\n // the servers\n \"servers\": { /* one */ \"gh\": {\"type\": \"http\", \"url\": \"https://x/mcp//y\", \"headers\": {\"A\": \"${input:key}\",},}, },\n}";
        let imported = import(text).unwrap();
        let Source::Mcp(mcp) = &imported.drafts[0].spec.source else {
            panic!("not remote")
        };
        assert_eq!(mcp.url, "https://x/mcp//y");
        assert!(imported.issues[0].message.contains("${input:key}"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let text = r#"{"mcpServers": {"a": {}, "b": {"type": "sse", "url": "http://x/sse"}, "c": 5, "日本": {"command": "x"}}}"#;
        let imported = import(text).unwrap();
        assert!(imported.drafts.is_empty());
        assert_eq!(imported.issues.len(), 4);
        assert!(import("{}").is_err() && import("nonsense").is_err());
    }

    #[test]
    fn equal_names_are_numbered() {
        let imported = import(r#"{"servers": {"A b": {"command": "x"}, "a-b": {"command": "y"}}}"#);
        let names: Vec<String> = imported
            .unwrap()
            .drafts
            .iter()
            .map(|draft| draft.name.to_string())
            .collect();
        assert_eq!(names, ["a-b", "a-b-2"]);
    }
}
