//! What the demo offers, in the words of MCP 2026-07-28.

use serde_json::{Value, json};

/// URI of the one resource.
pub(super) const ABOUT_URI: &str = "demo://about";

/// How long clients may keep the lists; they only change with the binary.
const LISTS_TTL_MS: u64 = 3_600_000;

const ABOUT: &str = "This server is part of Vaxel. It shows that a client reaches tools, prompts \
and resources through one address, and it needs no other program on this machine. Its notes are \
kept in Vaxel's own store.";

pub(super) fn discover() -> Value {
    cacheable(json!({
        "supportedVersions": ["2026-07-28"],
        "capabilities": { "tools": {}, "prompts": {}, "resources": {} },
        "instructions": "A small demo: `clock` tells the time, `echo` repeats a message, the \
    `note_` tools keep short texts.",
    }))
}

pub(super) fn tools() -> Value {
    cacheable(json!({ "tools": [
        {
            "name": "clock",
            "title": "Clock",
            "description": "Tells the time now, in UTC or in the time zone that is asked for.",
            "inputSchema": object(&json!({
                "zone": {
                    "type": "string",
                    "description": "An offset such as +02:00, or a name such as Europe/Stockholm."
                }
            }), &[]),
            "annotations": { "readOnlyHint": true, "openWorldHint": false },
        },
        {
            "name": "echo",
            "title": "Echo",
            "description": "Answers with the message it was given.",
            "inputSchema": object(&json!({
                "message": { "type": "string", "description": "What to repeat." }
            }), &["message"]),
            "annotations": { "readOnlyHint": true, "idempotentHint": true, "openWorldHint": false },
        },
        {
            "name": "note_write",
            "title": "Write a note",
            "description": "Keeps a text under a name; an earlier text under that name is replaced.",
            "inputSchema": object(&json!({
                "name": { "type": "string", "minLength": 1, "maxLength": 128 },
                "text": { "type": "string" }
            }), &["name", "text"]),
            "annotations": {
                "readOnlyHint": false, "destructiveHint": true, "idempotentHint": true,
                "openWorldHint": false
            },
        },
        {
            "name": "note_read",
            "title": "Read a note",
            "description": "Answers with the text that was kept under a name.",
            "inputSchema": object(&json!({ "name": { "type": "string" } }), &["name"]),
            "annotations": { "readOnlyHint": true, "openWorldHint": false },
        },
        {
            "name": "note_list",
            "title": "List the notes",
            "description": "Answers with the names of all notes, one per line.",
            "inputSchema": object(&json!({}), &[]),
            "annotations": { "readOnlyHint": true, "openWorldHint": false },
        },
    ]}))
}

pub(super) fn prompts() -> Value {
    cacheable(json!({ "prompts": [{
        "name": "introduce",
        "title": "Introduce Vaxel",
        "description": "Asks the model to explain what Vaxel does.",
        "arguments": [{
            "name": "name", "description": "Who the explanation is for.", "required": false
        }],
    }]}))
}

pub(super) fn resources() -> Value {
    cacheable(json!({ "resources": [{
        "uri": ABOUT_URI,
        "name": "about",
        "title": "About this demo",
        "mimeType": "text/plain",
    }]}))
}

pub(super) fn templates() -> Value {
    cacheable(json!({ "resourceTemplates": [] }))
}

pub(super) fn about() -> Value {
    cacheable(json!({
        "contents": [{ "uri": ABOUT_URI, "mimeType": "text/plain", "text": ABOUT }]
    }))
}

pub(super) fn introduction(reader: Option<&str>) -> Value {
    let reader = reader.unwrap_or("someone who has never heard of it");
    let text = format!(
        "Explain in three sentences to {reader} what an MCP gateway such as Vaxel does: it runs and \
reaches MCP servers, and every client finds all of their tools at one address."
    );
    json!({
        "resultType": "complete",
        "description": "An introduction to Vaxel",
        "messages": [{ "role": "user", "content": { "type": "text", "text": text } }],
    })
}

/// A complete result that clients may keep (MCP 2026-07-28, `CacheableResult`).
fn cacheable(mut result: Value) -> Value {
    result["resultType"] = json!("complete");
    result["ttlMs"] = json!(LISTS_TTL_MS);
    result["cacheScope"] = json!("public");
    result
}

fn object(properties: &Value, required: &[&str]) -> Value {
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
