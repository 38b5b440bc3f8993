//! Reads an [`HttpSource`].

use std::collections::HashSet;

use serde_json::Value;
use url::Url;

use super::{
    http::{HttpInstance, HttpSource, HttpTool, Scheme, ToolDeclaration},
    read::header_problem,
};
use crate::fields::Fields;

/// Most instances of one service.
const INSTANCES: usize = 256;
/// Most tools of one service.
const TOOLS: usize = 1_000;
/// Longest name of a tool (MCP 2025-11-25, Tools, "Tool Names").
const NAME: usize = 128;
/// Longest path, bytes.
const PATH: usize = 1_024;
/// Longest schema or set of annotations, bytes.
const SCHEMA: usize = 64 * 1024;

pub(super) fn http(fields: &mut Fields<'_>) -> HttpSource {
    let instances = instances(fields);
    let scheme = match fields.string("scheme").as_deref() {
        None | Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        Some(other) => {
            fields.issue("scheme", format!("`{other}` is neither http nor https"));
            Scheme::Http
        }
    };
    let base_path = path(fields, "base_path", "?#");
    let health_path = path(fields, "health_path", "#");
    let headers = fields.string_map("headers").unwrap_or_default();
    for (name, value) in &headers {
        if let Some(problem) = header_problem(name, value) {
            fields.issue(&format!("headers.{name}"), problem);
        }
    }
    HttpSource {
        instances,
        scheme,
        base_path: base_path
            .map(|path| path.trim_end_matches('/').to_owned())
            .unwrap_or_default(),
        health_path,
        headers,
        tools: tools(fields),
    }
}

fn instances(fields: &mut Fields<'_>) -> Vec<HttpInstance> {
    let read = |value: &Value, path: &str, issues: &mut Vec<_>| {
        Fields::read(value, path, issues, instance).flatten()
    };
    let given = fields.value("instances").and_then(Value::as_array);
    let given = given.map_or(0, Vec::len);
    let instances = fields.items("instances", read).unwrap_or_default();
    let mut known = HashSet::new();
    let twice = instances.iter().find(|one| !known.insert(one.to_string()));
    if let Some(twice) = twice {
        fields.issue("instances", format!("{twice} stands there twice"));
    }
    if given == 0 || given > INSTANCES {
        let problem = format!("must name 1 to {INSTANCES} instances, with host and port each");
        fields.issue("instances", problem);
    }
    instances
}

fn instance(fields: &mut Fields<'_>) -> Option<HttpInstance> {
    let host = fields.required_string("host");
    if !fields.has("port") {
        fields.value("port");
        fields.issue("port", "is missing");
    }
    let port = fields.integer("port", 1..=u64::from(u16::MAX));
    let weight = fields.integer("weight", 1..=1_000).unwrap_or(1);
    let small = |number: u64| u16::try_from(number).ok();
    let instance = HttpInstance {
        host: host?,
        port: small(port?)?,
        weight: small(weight)?,
    };
    if !is_authority(&instance) {
        let problem = format!("`{}` is neither a host name nor an address", instance.host);
        fields.issue("host", problem);
        return None;
    }
    Some(instance)
}

/// Whether host and port are that and nothing else.
fn is_authority(instance: &HttpInstance) -> bool {
    let is_odd = |byte: u8| b"/\\?#@ \t".contains(&byte) || !byte.is_ascii_graphic();
    if instance.host.bytes().any(is_odd) {
        return false;
    }
    Url::parse(&format!("http://{instance}/"))
        .is_ok_and(|url| url.host_str().is_some_and(|host| !host.is_empty()) && url.path() == "/")
}

/// A path that begins with a slash and holds none of the characters `without`.
fn path(fields: &mut Fields<'_>, key: &'static str, without: &str) -> Option<String> {
    let path = fields.string(key)?;
    let visible = |c: char| c.is_ascii_graphic() && !without.contains(c) && c != '\\';
    if !path.starts_with('/') || !path.chars().all(visible) || path.len() > PATH {
        let problem = format!("`{path}` is no path: it begins with `/` and is percent-encoded");
        fields.issue(key, problem);
        return None;
    }
    Some(path)
}

fn tools(fields: &mut Fields<'_>) -> Vec<HttpTool> {
    let read = |value: &Value, path: &str, issues: &mut Vec<_>| match value {
        Value::String(name) => Some(HttpTool::Name(name.clone())),
        declared => Fields::read(declared, path, issues, declaration)
            .flatten()
            .map(|declared| HttpTool::Declared(Box::new(declared))),
    };
    let tools = fields.items("tools", read).unwrap_or_default();
    if tools.len() > TOOLS {
        fields.issue("tools", format!("more than {TOOLS} tools"));
    }
    let mut known = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let name = tool.name();
        if !is_tool_name(name) {
            let allowed = format!("1 to {NAME} of A-Z, a-z, 0-9, `_`, `-` and `.`");
            let problem = format!("`{name}` is not the name of a tool: {allowed}");
            fields.issue(&format!("tools[{index}]"), problem);
        } else if !known.insert(name) {
            fields.issue(
                &format!("tools[{index}]"),
                format!("`{name}` stands there twice"),
            );
        }
    }
    tools
}

fn is_tool_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    // A path takes these as steps and not as names.
    let is_step = matches!(name, "." | "..");
    !name.is_empty() && name.len() <= NAME && name.bytes().all(allowed) && !is_step
}

fn declaration(fields: &mut Fields<'_>) -> Option<ToolDeclaration> {
    let name = fields.required_string("name");
    let title = fields.string("title");
    let description = fields.string("description");
    let input_schema = object(fields, "input_schema");
    if let Some(schema) = &input_schema
        && schema.get("type") != Some(&Value::from("object"))
    {
        fields.issue("input_schema", "its `type` must be `object`");
    }
    Some(ToolDeclaration {
        title,
        description,
        input_schema,
        output_schema: object(fields, "output_schema"),
        annotations: object(fields, "annotations"),
        name: name?,
    })
}

fn object(fields: &mut Fields<'_>, key: &'static str) -> Option<Value> {
    let value = fields.value(key)?;
    if !value.is_object() {
        fields.issue(key, "must be an object");
        return None;
    }
    if value.to_string().len() > SCHEMA {
        fields.issue(
            key,
            format!("must not be longer than {} KiB", SCHEMA / 1024),
        );
        return None;
    }
    Some(value.clone())
}
