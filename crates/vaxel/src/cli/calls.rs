//! `vaxel calls`.

use serde_json::Value;
use vaxel_client::segment;
use vaxel_core::quantity::Span;

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
    /// By the user of this name
    #[arg(long)]
    principal: Option<String>,
    /// Arrived then or later: a time (RFC 3339), or how long ago, such as 15m
    #[arg(long, value_parser = time)]
    since: Option<String>,
    /// Arrived before then, said in the same way
    #[arg(long, value_parser = time)]
    until: Option<String>,
    /// So many, the newest first
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    pub(super) format: super::Format,
}

/// A time, from itself or from how long ago it was.
pub(super) fn time(text: &str) -> Result<String, String> {
    let wrong = || "write 2026-11-21T12:00:00Z, or how long ago: 30s, 15m, 2h, 7d".to_owned();
    if let Ok(Span(ago)) = text.parse() {
        let then = jiff::Timestamp::now().checked_sub(ago);
        return then.map(|then| then.to_string()).map_err(|_| wrong());
    }
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map(|_| text.to_owned()).map_err(|_| wrong())
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let mut query = vec![format!("limit={}", args.limit)];
    let filters = [
        ("service", &args.service),
        ("tool", &args.tool),
        ("outcome", &args.outcome),
        ("principal", &args.principal),
        ("since", &args.since),
        ("until", &args.until),
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
            comfy_table::Cell::new(output::when(&text("at"))),
            comfy_table::Cell::new(text("service")),
            comfy_table::Cell::new(text("method")),
            comfy_table::Cell::new(text("target")),
            comfy_table::Cell::new(text("principal")),
            output::state(&text("outcome"), context.style),
            output::number(format!(
                "{:.1}",
                item["duration_ms"].as_f64().unwrap_or(0.0)
            )),
        ]);
    }
    output::rows(table, context.style);
    Ok(())
}
