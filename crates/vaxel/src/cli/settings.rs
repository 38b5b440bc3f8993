//! `vaxel service config`: every value, and who gave it.

use serde_json::Value;
use vaxel_client::Client;

use super::{Context, service::path};
use crate::output;

/// The categories, in the order in which they are shown.
const CATEGORIES: [&str; 5] = [
    "runtime",
    "network",
    "security",
    "integration",
    "monitoring",
];
/// Longest value in the table, characters.
const SHOWN_MAX: usize = 60;

pub(super) async fn show(name: &str, client: &Client, context: &Context) -> anyhow::Result<()> {
    let config: Value = client.get(&path(name, "/config")).await?;
    if context.style.json {
        output::json(&config);
        return Ok(());
    }
    let mut table = output::table(&["CATEGORY", "SETTING", "VALUE", "FROM", "DEFAULT"]);
    for category in CATEGORIES {
        for setting in config[category].as_array().into_iter().flatten() {
            table.add_row([
                category,
                setting["path"].as_str().unwrap_or_default(),
                &shown(&setting["value"]),
                setting["from"].as_str().unwrap_or_default(),
                &shown(&setting["default"]),
            ]);
        }
    }
    output::rows(table, context.style);
    Ok(())
}

/// A value in one line; nothing for nothing.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= SHOWN_MAX && line.len() == text.len() {
        return text;
    }
    let start: String = line.chars().take(SHOWN_MAX).collect();
    format!("{start}…")
}
