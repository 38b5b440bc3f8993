//! `vaxel usage`.

use serde_json::Value;
use vaxel_client::segment;

use super::{Context, calls::time, service::path};
use crate::output;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name or id of a service; without it, all services
    name: Option<String>,
    /// Hours, or days of UTC
    #[arg(long, value_parser = ["hour", "day"], default_value = "hour")]
    by: String,
    /// From this time on (RFC 3339), or since so long ago, such as 7d [default: a day, by days 30 days]
    #[arg(long, value_parser = time)]
    from: Option<String>,
    /// Until this time, said in the same way
    #[arg(long, value_parser = time)]
    to: Option<String>,
    #[command(flatten)]
    pub(super) format: super::Format,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let mut query = vec![format!("by={}", args.by)];
    for (key, value) in [("from", &args.from), ("to", &args.to)] {
        query.extend(
            value
                .as_ref()
                .map(|value| format!("{key}={}", segment(value))),
        );
    }
    let query = query.join("&");
    let place = match &args.name {
        Some(name) => path(name, &format!("/usage?{query}")),
        None => format!("/api/v1/usage?{query}"),
    };
    let usage: Value = context.client()?.get(&place).await?;
    if context.style.json {
        output::json(&usage);
        return Ok(());
    }
    let (head, parts) = match args.name {
        Some(_) => ("TOOL", &usage["tools"]),
        None => ("SERVICE", &usage["services"]),
    };
    let begin = if args.by == "day" { "DAY" } else { "HOUR" };
    rows(begin, "at", &usage["series"], context);
    output::line("");
    let all = Value::from(vec![usage["total"].clone()]);
    let parts = parts.as_array().into_iter().chain(all.as_array()).flatten();
    rows(head, "name", &parts.cloned().collect(), context);
    Ok(())
}

fn rows(head: &str, key: &str, items: &Value, context: &Context) {
    let heads = [
        head, "CALLS", "ERRORS", "CALLERS", "MEAN MS", "P50", "P95", "P99",
    ];
    let mut table = output::table(&heads);
    for item in items.as_array().into_iter().flatten() {
        let number = |key: &str| output::number(&item[key]);
        let millis =
            |key: &str| output::number(format!("{:.1}", item[key].as_f64().unwrap_or(0.0)));
        table.add_row(vec![
            comfy_table::Cell::new(item[key].as_str().unwrap_or("all")),
            number("calls"),
            number("errors"),
            number("callers"),
            millis("average_ms"),
            millis("p50_ms"),
            millis("p95_ms"),
            millis("p99_ms"),
        ]);
    }
    output::rows(table, context.style);
}
