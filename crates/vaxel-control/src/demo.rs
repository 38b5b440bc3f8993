//! The demo: a small MCP server that is part of the binary, so that a first connection works on a
//! machine without Node or Python.
//!
//! It speaks MCP 2026-07-28 only and is reached like every other upstream, without a socket. Its
//! notes are kept in the store, so they outlive a restart.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vaxel_core::{failure::Failure, time::Clock};
use vaxel_gateway::{BuiltinError, BuiltinRequest, BuiltinServer};
use vaxel_mcp::error::{INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND};
use vaxel_store::Store;

mod clock;
mod definitions;

/// Longest message or note, bytes.
const TEXT_MAX: usize = 64 * 1024;
/// Most notes kept; further ones are refused with a sentence.
const NOTES_MAX: usize = 1_000;

/// The server.
#[derive(Clone)]
pub(crate) struct Demo {
    store: Store,
    clock: Clock,
    version: String,
}

impl Demo {
    pub(crate) const fn new(store: Store, clock: Clock, version: String) -> Self {
        Self {
            store,
            clock,
            version,
        }
    }

    async fn answer(&self, request: BuiltinRequest) -> Result<Bytes, BuiltinError> {
        let params = object(&request.params)?;
        let mut result = match request.method.as_str() {
            "server/discover" => definitions::discover(),
            "tools/list" => definitions::tools(),
            "prompts/list" => definitions::prompts(),
            "resources/list" => definitions::resources(),
            "resources/templates/list" => definitions::templates(),
            "tools/call" => {
                self.call(&text_of(&params, "name")?, params.get("arguments"))
                    .await?
            }
            "prompts/get" => introduce(&text_of(&params, "name")?, params.get("arguments"))?,
            "resources/read" => about(&text_of(&params, "uri")?)?,
            other => {
                let message = format!("The demo does not know the method `{other}`");
                return Err(error(METHOD_NOT_FOUND, message));
            }
        };
        result["_meta"] = json!({
            "io.modelcontextprotocol/serverInfo": { "name": "vaxel-demo", "version": self.version }
        });
        serde_json::to_vec(&result)
            .map(Bytes::from)
            .map_err(|cause| error(INTERNAL_ERROR, cause.to_string()))
    }

    async fn call(&self, tool: &str, arguments: Option<&Value>) -> Result<Value, BuiltinError> {
        let empty = json!({});
        let arguments = arguments.unwrap_or(&empty);
        let done = match tool {
            "clock" => read(arguments).and_then(|given| clock::tell(&self.clock, &given)),
            "echo" => read(arguments).and_then(|Echo { message }| bounded(message)),
            "note_write" => match read(arguments) {
                Ok(note) => self.write_note(note).await,
                Err(problem) => Err(problem),
            },
            "note_read" => match read(arguments) {
                Ok(NoteName { name }) => self.read_note(&name).await,
                Err(problem) => Err(problem),
            },
            "note_list" => match read::<Nothing>(arguments) {
                Ok(Nothing {}) => self.list_notes().await,
                Err(problem) => Err(problem),
            },
            other => {
                return Err(error(INVALID_PARAMS, format!("Unknown tool: {other}")));
            }
        };
        Ok(tool_result(done))
    }

    async fn write_note(&self, Note { name, text }: Note) -> Result<String, String> {
        if name.is_empty() || name.chars().count() > 128 {
            return Err("The name of a note has 1 to 128 characters".to_owned());
        }
        let text = bounded(text)?;
        let names = self
            .store
            .demo_notes()
            .await
            .map_err(|lost| said(&lost.into()))?;
        if names.len() >= NOTES_MAX && !names.contains(&name) {
            return Err(format!("The demo keeps at most {NOTES_MAX} notes"));
        }
        let size = text.len();
        let now = self.clock.now();
        let written = self.store.write_demo_note(&name, text, now).await;
        written.map_err(|lost| said(&lost.into()))?;
        Ok(format!("Wrote {size} bytes to the note `{name}`"))
    }

    async fn read_note(&self, name: &str) -> Result<String, String> {
        let found = self
            .store
            .demo_note(name)
            .await
            .map_err(|lost| said(&lost.into()))?;
        found.ok_or_else(|| format!("There is no note called `{name}`; `note_list` names them all"))
    }

    async fn list_notes(&self) -> Result<String, String> {
        let names = self
            .store
            .demo_notes()
            .await
            .map_err(|lost| said(&lost.into()))?;
        if names.is_empty() {
            return Ok("There are no notes yet; `note_write` makes one".to_owned());
        }
        Ok(names.join("\n"))
    }
}

impl BuiltinServer for Demo {
    fn handle(&self, request: BuiltinRequest) -> BoxFuture<'static, Result<Bytes, BuiltinError>> {
        let demo = self.clone();
        Box::pin(async move { demo.answer(request).await })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Echo {
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    name: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoteName {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The arguments of a tool; a wrong one is the tool's error, which a model can read and correct
/// (MCP 2025-11-25, input validation errors).
fn read<T: for<'de> Deserialize<'de>>(arguments: &Value) -> Result<T, String> {
    T::deserialize(arguments).map_err(|problem| format!("The arguments do not fit: {problem}"))
}

fn bounded(text: String) -> Result<String, String> {
    if text.len() > TEXT_MAX {
        return Err(format!("The text is longer than {TEXT_MAX} bytes"));
    }
    Ok(text)
}

fn tool_result(done: Result<String, String>) -> Value {
    let is_error = done.is_err();
    let (Ok(text) | Err(text)) = done;
    json!({
        "resultType": "complete",
        "content": [{ "type": "text", "text": text }],
        "isError": is_error,
    })
}

fn introduce(name: &str, arguments: Option<&Value>) -> Result<Value, BuiltinError> {
    if name != "introduce" {
        return Err(error(INVALID_PARAMS, format!("Unknown prompt: {name}")));
    }
    let reader = arguments
        .and_then(|given| given.get("name"))
        .and_then(Value::as_str);
    Ok(definitions::introduction(reader))
}

fn about(uri: &str) -> Result<Value, BuiltinError> {
    if uri != definitions::ABOUT_URI {
        return Err(error(INVALID_PARAMS, format!("Resource not found: {uri}")));
    }
    Ok(definitions::about())
}

fn object(params: &[u8]) -> Result<Map<String, Value>, BuiltinError> {
    if params.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(params).map_err(|problem| {
        error(
            INVALID_PARAMS,
            format!("The params are no object: {problem}"),
        )
    })
}

fn text_of(params: &Map<String, Value>, key: &str) -> Result<String, BuiltinError> {
    let text = params.get(key).and_then(Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| error(INVALID_PARAMS, format!("`{key}` is missing or no string")))
}

fn said(lost: &Failure) -> String {
    format!("The note could not be kept: {lost}")
}

const fn error(code: i32, message: String) -> BuiltinError {
    BuiltinError { code, message }
}

#[cfg(test)]
mod tests;
