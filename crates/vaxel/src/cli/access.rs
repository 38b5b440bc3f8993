//! `vaxel auth why` and `vaxel whoami`.

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{Context, role};
use crate::output;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Say whether a user may do something, and why
    #[command(
        after_help = "It is the very decision that every call goes through.\n\nExamples:\n  vaxel auth why anna@example.com mcp:execute files\n  vaxel auth why ci mcp:execute files write_file --arguments '{\"path\":\"/srv/a\"}'"
    )]
    Why {
        /// User
        user: String,
        /// What it wants to do, such as mcp:execute
        permission: String,
        /// With which service
        service: Option<String>,
        /// With which of its tools, by the service's own name for it
        tool: Option<String>,
        /// With which arguments, as JSON
        #[arg(long, value_name = "JSON", requires = "tool")]
        arguments: Option<String>,
        #[command(flatten)]
        format: super::Format,
    },
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        let Self::Why { format, .. } = self;
        *format
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let Command::Why {
        user,
        permission,
        service,
        tool,
        arguments,
        format: _,
    } = command;
    let mut query = json!({"user": user, "permission": permission});
    for (key, value) in [("service", service), ("tool", tool)] {
        if let Some(value) = value {
            query[key] = value.into();
        }
    }
    if let Some(text) = arguments {
        query["arguments"] = serde_json::from_str(&text).context("--arguments is no JSON")?;
    }
    let answer: Value = context
        .client()?
        .post("/api/v1/auth/explain", &query)
        .await?;
    if context.style.json {
        output::json(&answer);
        return Ok(());
    }
    let said = if answer["allowed"] == true {
        "yes"
    } else {
        "no"
    };
    let because = answer["because"].as_str().unwrap_or_default();
    output::line(format!("{said}: {because}"));
    let limits = role::levels(&answer["limits"]);
    if !limits.is_empty() {
        output::line(format!("limits: {limits}"));
    }
    Ok(())
}

pub(super) async fn whoami(context: &Context) -> anyhow::Result<()> {
    let who: Value = context.client()?.get("/api/v1/auth/whoami").await?;
    if context.style.json {
        output::json(&who);
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = vec![("name", text(&who["name"]))];
    if who["user"].is_object() {
        rows.push(("kind", text(&who["user"]["kind"])));
        rows.push(("title", text(&who["user"]["title"])));
        rows.push(("roles", super::words(&who["user"]["roles"])));
    }
    if who["key"].is_object() {
        rows.push(("key", text(&who["key"]["name"])));
    }
    rows.push(("permissions", super::words(&who["permissions"])));
    rows.push(("services", super::words(&who["services"])));
    rows.push(("environments", super::words(&who["environments"])));
    rows.push(("limits", role::levels(&who["limits"])));
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        output::line(format!("{name:<13}{value}"));
    }
    Ok(())
}
