//! `vaxel calls`.

use serde_json::Value;
use vaxel_client::segment;

use super::Context;
use crate::output;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Of this service
    #[arg(long)]
    service: Option<String>,
    /// Of this tool, under the service's own name
    #[arg(long)]
    tool: Option<String>,
    /// `ok`, `tool_error`, `error`, `timeout`, `cancelled`, `denied` or `unavailable`
    #[arg(long)]
    outcome: Option<String>,
    /// By the key of this name
    #[arg(long)]
    principal: Option<String>,
    /// Arrived then or later (RFC 3339)
    #[arg(long)]
    since: Option<String>,
    /// So many, the newest first
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    pub(super) format: super::Format,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let mut query = vec![format!("limit={}", args.limit)];
    let filters = [
        ("service", &args.service),
        ("tool", &args.tool),
        ("outcome", &args.outcome),
        ("principal", &args.principal),
        ("since", &args.since),
    ];
    for (key, value) in filters {
        query.extend(
            value
                .as_ref()
                .map(|value| format!("{key}={}", segment(value))),
        );
    }
    let page: Value = context
        .client()?
        .get(&format!("/api/v1/calls?{}", query.join("&")))
        .await?;
    if context.style.json {
        output::json(&page["items"]);
        return Ok(());
    }
    let mut table = output::table(&["AT", "SERVICE", "METHOD", "TARGET", "BY", "OUTCOME", "MS"]);
    for item in page["items"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        table.add_row(vec![
            comfy_table::Cell::new(text("at")),
            comfy_table::Cell::new(text("service")),
            comfy_table::Cell::new(text("method")),
            comfy_table::Cell::new(text("target")),
            comfy_table::Cell::new(text("principal")),
            output::state(&text("outcome"), context.style),
            output::number(&item["duration_ms"]),
        ]);
    }
    output::line(table);
    Ok(())
}
