//! `vaxel call`.

use std::{io::Read, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use vaxel_client::segment;

use super::Context;
use crate::output;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Exposed name, `service__tool`
    tool: String,
    /// `-` reads the arguments as JSON from standard input
    #[arg(value_parser = ["-"], conflicts_with_all = ["arg", "json"])]
    stdin: Option<String>,
    /// Argument; the tool's schema decides whether the value is text, number or JSON. NAME:=JSON is
    /// JSON whatever the schema says
    #[arg(long, value_name = "NAME=VALUE")]
    arg: Vec<String>,
    /// All arguments as a JSON object
    #[arg(long, value_name = "JSON", conflicts_with = "arg")]
    json: Option<String>,
    /// Longest wait
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// Print the whole answer as JSON
    #[arg(long)]
    raw: bool,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let client = context.client()?;
    let path = format!("/api/v1/tools/{}", segment(&args.tool));
    let arguments = match (&args.stdin, &args.json) {
        (Some(_), _) => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("standard input cannot be read")?;
            object(&text)?
        }
        (None, Some(text)) => object(text)?,
        (None, None) if args.arg.is_empty() => Map::new(),
        (None, None) => {
            let tool: Value = client.get(&path).await?;
            typed(&args.arg, &tool["definition"]["inputSchema"])?
        }
    };
    let mut body = json!({ "arguments": arguments });
    if let Some(timeout) = &args.timeout {
        body["timeout"] = timeout.as_str().into();
    }
    let patient = client.with_timeout(Duration::from_hours(1));
    let answer: Value = patient.post(&format!("{path}/call"), &body).await?;
    if args.raw || context.style.json {
        output::json(&answer);
    } else {
        show(&answer["result"]);
    }
    let failed = answer["is_error"] == true;
    Ok(ExitCode::from(if failed { output::TOOL_ERROR } else { 0 }))
}

fn object(text: &str) -> anyhow::Result<Map<String, Value>> {
    match serde_json::from_str(text).context("the arguments are no JSON")? {
        Value::Object(object) => Ok(object),
        other => bail!("the arguments must be a JSON object, not {other}"),
    }
}

/// Arguments as the tool's schema wants them. Without a schema that says otherwise, what reads as
/// JSON number, boolean, object or list is one.
fn typed(args: &[String], schema: &Value) -> anyhow::Result<Map<String, Value>> {
    let mut arguments = Map::new();
    for arg in args {
        let (name, text) = arg
            .split_once('=')
            .with_context(|| format!("--arg takes NAME=VALUE, not `{arg}`"))?;
        if let Some(name) = name.strip_suffix(':') {
            let value = serde_json::from_str(text)
                .with_context(|| format!("`{name}` must be JSON, not `{text}`"))?;
            arguments.insert(name.to_owned(), value);
            continue;
        }
        let kind = schema["properties"][name]["type"].as_str();
        let parsed = serde_json::from_str::<Value>(text).ok();
        let value = match (kind, parsed) {
            (Some("string"), _) => Value::String(text.to_owned()),
            (Some(kind @ ("integer" | "number" | "boolean" | "array" | "object")), parsed) => {
                parsed.with_context(|| format!("`{name}` must be of type {kind}, not `{text}`"))?
            }
            (_, Some(parsed)) if !parsed.is_string() && !parsed.is_null() => parsed,
            _ => Value::String(text.to_owned()),
        };
        arguments.insert(name.to_owned(), value);
    }
    Ok(arguments)
}

/// The content for people: text as it is, everything else by kind.
fn show(result: &Value) {
    let blocks = result["content"].as_array().cloned().unwrap_or_default();
    for block in &blocks {
        match block["type"].as_str() {
            Some("text") => output::line(block["text"].as_str().unwrap_or_default()),
            Some(kind @ ("image" | "audio")) => {
                let size = block["data"].as_str().map_or(0, str::len) * 3 / 4;
                let mime = block["mimeType"].as_str().unwrap_or_default();
                output::line(format!(
                    "[{kind}: {mime}, about {size} bytes; --raw prints it]"
                ));
            }
            _ => output::line(block),
        }
    }
    if blocks.is_empty() && !result["structuredContent"].is_null() {
        output::json(&result["structuredContent"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_decides_what_a_value_is() {
        let schema = json!({"properties": {"a": {"type": "string"}, "n": {"type": "integer"}}});
        let args = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            typed(&list, &schema).map(Value::Object)
        };
        assert_eq!(
            args(&["a=5", "n=5", "x=true", "y=text", "z=a=b", "j:=\"5\""]).unwrap(),
            json!({"a": "5", "n": 5, "x": true, "y": "text", "z": "a=b", "j": "5"})
        );
        for wrong in ["n=five", "nothing", "j:=five"] {
            assert!(args(&[wrong]).is_err(), "{wrong}");
        }
    }
}
