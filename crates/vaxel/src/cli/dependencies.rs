//! `vaxel service map` and `vaxel service impact`.

use serde_json::Value;
use vaxel_client::Client;

use super::{Context, service::path};
use crate::output;

/// The map as a table.
pub(super) async fn map(client: &Client, context: &Context) -> anyhow::Result<()> {
    let found: Value = client.get("/api/v1/dependencies").await?;
    if context.style.json {
        output::json(&found);
        return Ok(());
    }
    let mut table = output::table(&["NAME", "HEALTH", "DEPENDS ON"]);
    for node in items(&found["services"]) {
        let missing = names(&node["missing"]);
        let shown = |need: String| {
            if missing.contains(&need) {
                format!("{need} (missing)")
            } else {
                need
            }
        };
        let needs: Vec<String> = names(&node["depends_on"]).into_iter().map(shown).collect();
        let name = node["name"].as_str().unwrap_or_default();
        let health = node["health"].as_str().unwrap_or_default();
        table.add_row([name, health, &needs.join(", ")]);
    }
    output::rows(table, context.style);
    Ok(())
}

/// The map as a chart.
pub(super) async fn chart(client: &Client) -> anyhow::Result<()> {
    output::raw(&client.text("/api/v1/dependencies?format=mermaid").await?);
    Ok(())
}

/// What breaks when the service stops.
pub(super) async fn impact(name: &str, client: &Client, context: &Context) -> anyhow::Result<()> {
    let found: Value = client.get(&path(name, "/impact")).await?;
    if context.style.json {
        output::json(&found);
        return Ok(());
    }
    let affected = items(&found["affected"]);
    if affected.is_empty() {
        output::note(format!("No service depends on {name}"));
        return Ok(());
    }
    let mut table = output::table(&["NAME", "BECAUSE"]);
    for one in affected {
        let because = names(&one["path"]).join(" → ");
        table.add_row([one["name"].as_str().unwrap_or_default(), &because]);
    }
    output::rows(table, context.style);
    Ok(())
}

/// Says who misses a service that was stopped.
pub(super) async fn warn(name: &str, client: &Client) -> anyhow::Result<()> {
    let found: Value = client.get(&path(name, "/impact")).await?;
    let affected: Vec<&str> = items(&found["affected"])
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    if !affected.is_empty() {
        output::note(format!("Degraded without it: {}", affected.join(", ")));
    }
    Ok(())
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn names(value: &Value) -> Vec<String> {
    let text = |item: &Value| item.as_str().map(str::to_owned);
    items(value).iter().filter_map(text).collect()
}
