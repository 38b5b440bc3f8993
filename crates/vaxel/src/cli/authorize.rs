//! `vaxel service authorize`.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::time::Instant;
use vaxel_client::Client;

use super::{Context, browser_login, service::path};
use crate::output;

/// How long the link is good.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two looks whether somebody has logged in.
const LOOK: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name or id
    name: String,
    /// Forget your log-in; the next call asks for another one
    #[arg(long)]
    forget: bool,
    /// Show the link and do not wait
    #[arg(long, conflicts_with = "forget")]
    no_wait: bool,
    #[command(flatten)]
    pub(super) format: super::Format,
}

pub(super) async fn run(args: &Args, client: &Client, context: &Context) -> anyhow::Result<()> {
    let place = path(&args.name, "/authorization");
    if args.forget {
        client.delete(&place).await?;
        output::note(format!("Your log-in at {} is forgotten", args.name));
        return Ok(());
    }
    let mut found: Value = client.get(&place).await?;
    if context.style.json && (args.no_wait || found["link"].is_null()) {
        output::json(&found);
        return Ok(());
    }
    if let Some(link) = found["link"].as_str() {
        output::note(format!("Log in to {} with your browser:", args.name));
        output::line(link);
        if args.no_wait {
            return Ok(());
        }
        browser_login::open(link);
        let end = Instant::now() + PATIENCE;
        while found["state"] == "needed" {
            if Instant::now() > end {
                bail!(
                    "nobody logged in; `vaxel service authorize {}` shows a new link",
                    args.name
                );
            }
            tokio::time::sleep(LOOK).await;
            found = client.get(&place).await?;
        }
    }
    if context.style.json {
        output::json(&found);
        return Ok(());
    }
    match found["state"].as_str() {
        Some("shared") => output::note(format!(
            "{} is called with Vaxel's own tokens: nobody has to log in",
            args.name
        )),
        _ => output::note(format!("{} lets you in", args.name)),
    }
    Ok(())
}
