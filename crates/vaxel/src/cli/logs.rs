//! `vaxel logs`.

use serde_json::Value;

use super::{Context, service::path};
use crate::output;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of the service
    service: String,
    /// Go on with new lines as they come
    #[arg(short, long)]
    follow: bool,
    /// Begin with so many old lines
    #[arg(short = 'n', long, default_value_t = 100)]
    tail: u32,
    #[command(flatten)]
    pub(super) format: super::Format,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    if !args.follow {
        let page: Value = client
            .get(&path(&args.service, &format!("/logs?tail={}", args.tail)))
            .await?;
        for item in page["items"].as_array().into_iter().flatten() {
            print(item, context);
        }
        return Ok(());
    }
    let question = path(
        &args.service,
        &format!("/logs?follow=true&tail={}", args.tail),
    );
    let mut events = client.stream(&question).await?;
    while let Some((kind, data)) = events.next().await? {
        let item: Value = serde_json::from_str(&data).unwrap_or_default();
        if kind == "lost" {
            output::note(format!(
                "… {} lines were lost: this terminal is too slow",
                item["count"]
            ));
        } else {
            print(&item, context);
        }
        if !output::is_read() {
            break;
        }
    }
    Ok(())
}

fn print(item: &Value, context: &Context) {
    if context.style.json {
        output::line(item);
        return;
    }
    let text = |key: &str| item[key].as_str().unwrap_or_default();
    output::line(format!(
        "{} {}[{}] {}",
        text("at"),
        text("stream"),
        item["replica"],
        text("text")
    ));
}
