//! `vaxel service health`: how a service is, what was checked, how it was.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use vaxel_client::Client;

use super::{Context, service::path};
use crate::output;

#[derive(Args)]
pub(super) struct HealthArgs {
    /// Name or id
    name: String,
    /// Check everything now
    #[arg(long)]
    check: bool,
    /// Show how it was: changes, failed checks, availability per day
    #[arg(long)]
    history: bool,
    /// Accept what it offers as it is now
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    pub(super) format: super::Format,
}

/// Exits with 1 when the service is not healthy or degraded, so that scripts can ask.
pub(super) async fn run(
    args: &HealthArgs,
    client: &Client,
    context: &Context,
) -> anyhow::Result<ExitCode> {
    let name = &args.name;
    if args.accept {
        let _: Value = client
            .post(&path(name, "/health/accept"), &Value::Null)
            .await?;
        output::note(format!("Accepted what {name} offers now"));
    }
    let health: Value = if args.check || args.accept {
        client
            .post(&path(name, "/health/check"), &Value::Null)
            .await?
    } else {
        client.get(&path(name, "/health")).await?
    };
    if context.style.json {
        output::json(&health);
    } else {
        show(&health, context);
        if args.history {
            show_history(&health, context);
        }
    }
    let works = matches!(text(&health["health"]), "HEALTHY" | "DEGRADED");
    Ok(if works {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(output::FAILED)
    })
}

fn show(health: &Value, context: &Context) {
    let reason = health["reason"].as_str();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    output::line(format!("{}{reason}", text(&health["health"])));
    let checks = items(&health["checks"]);
    if checks.is_empty() {
        output::note("Nothing was checked yet; `--check` does so now");
        return;
    }
    checks_table(checks, context);
}

fn show_history(health: &Value, context: &Context) {
    let mut table = output::table(&["CHANGED", "HEALTH", "REASON"]);
    for change in items(&health["history"]["transitions"]) {
        table.add_row(vec![
            comfy_table::Cell::new(output::when(text(&change["at"]))),
            output::state(text(&change["health"]), context.style),
            comfy_table::Cell::new(text(&change["reason"])),
        ]);
    }
    output::line("");
    output::rows(table, context.style);
    let results = items(&health["history"]["results"]);
    if !results.is_empty() {
        output::line("");
        checks_table(results, context);
    }
    let mut table = output::table(&["DAY", "AVAILABLE", "DOWN"]);
    for day in items(&health["availability"]) {
        let Some(percent) = day["percent"].as_f64() else {
            continue;
        };
        let down = day["down_seconds"].as_u64().unwrap_or(0);
        table.add_row(vec![
            comfy_table::Cell::new(text(&day["day"]).chars().take(10).collect::<String>()),
            output::number(format!("{percent}%")),
            output::number(output::ago(down.saturating_mul(1_000))),
        ]);
    }
    output::line("");
    output::rows(table, context.style);
}

fn checks_table(checks: &[Value], context: &Context) {
    let mut table = output::table(&["CHECK", "OF", "RESULT", "WHEN", "TOOK", "MESSAGE"]);
    for check in checks {
        let of = check["replica"].as_u64();
        table.add_row(vec![
            comfy_table::Cell::new(text(&check["kind"])),
            comfy_table::Cell::new(of.map_or("service".to_owned(), |of| format!("replica {of}"))),
            output::state(text(&check["verdict"]), context.style),
            comfy_table::Cell::new(output::when(text(&check["at"]))),
            output::number(format!("{} ms", check["duration_ms"])),
            comfy_table::Cell::new(text(&check["message"])),
        ]);
    }
    output::rows(table, context.style);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
