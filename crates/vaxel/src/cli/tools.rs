//! `vaxel tools` and `vaxel tool show`.

use clap::{Args, Subcommand};
use serde_json::Value;
use vaxel_client::segment;

use super::{Context, service::all_pages};
use crate::output;

#[derive(Args)]
pub(super) struct ListArgs {
    /// Part of name or description
    text: Option<String>,
    /// Of this service
    #[arg(long)]
    service: Option<String>,
    #[command(flatten)]
    pub(super) format: super::Format,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show a tool with its schema
    #[command(after_help = "Example:\n  vaxel tool show everything__echo")]
    Show {
        /// Exposed name, `service__tool`
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
}

pub(super) async fn list(args: &ListArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    let mut query = Vec::new();
    query.extend(
        args.service
            .as_ref()
            .map(|name| format!("service={}", segment(name))),
    );
    query.extend(
        args.text
            .as_ref()
            .map(|text| format!("text={}", segment(text))),
    );
    let items = all_pages(&client, "/api/v1/tools", &query).await?;
    if context.style.json {
        output::json(&items);
        return Ok(());
    }
    if items.is_empty() {
        output::note("There are no tools; `vaxel ls` shows how the services are");
        return Ok(());
    }
    let mut table = output::table(&["TOOL", "DESCRIPTION"]);
    for item in &items {
        let text = item["description"]
            .as_str()
            .or_else(|| item["title"].as_str());
        let first = text.unwrap_or_default().lines().next().unwrap_or_default();
        let short: String = first.chars().take(100).collect();
        table.add_row([item["name"].as_str().unwrap_or_default(), &short]);
    }
    output::rows(table, context.style);
    Ok(())
}

pub(super) async fn run(command: &Command, context: &Context) -> anyhow::Result<()> {
    let Command::Show { name, .. } = command;
    let tool: Value = context
        .client()?
        .get(&format!("/api/v1/tools/{}", segment(name)))
        .await?;
    if context.style.json {
        output::json(&tool);
    } else {
        output::raw(&serde_saphyr::to_string(&tool)?);
    }
    Ok(())
}
