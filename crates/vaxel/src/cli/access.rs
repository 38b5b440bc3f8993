//! `vaxel auth …` and `vaxel whoami`.

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};
use vaxel_client::segment;

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
    /// List the programs that registered to log in for users, or remove some
    ///
    /// What a removed one got from users ends at once.
    #[command(
        after_help = "Examples:\n  vaxel auth clients\n  vaxel auth clients --remove vxc_3jv2WOr5h2Ucr353PfDBmPe0"
    )]
    Clients {
        /// Client to remove
        #[arg(long, value_name = "ID")]
        remove: Vec<String>,
        #[command(flatten)]
        why: super::Why,
        #[command(flatten)]
        format: super::Format,
    },
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        let (Self::Why { format, .. } | Self::Clients { format, .. }) = self;
        *format
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let (user, permission, service, tool, arguments) = match command {
        Command::Why {
            user,
            permission,
            service,
            tool,
            arguments,
            format: _,
        } => (user, permission, service, tool, arguments),
        Command::Clients { remove, why, .. } => return clients(&remove, &why, context).await,
    };
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

async fn clients(remove: &[String], why: &super::Why, context: &Context) -> anyhow::Result<()> {
    const CLIENTS: &str = "/api/v1/oauth/clients";
    let client = context.client()?;
    for id in remove {
        let path = why.on(format!("{CLIENTS}/{}", segment(id)));
        client.delete(&path).await?;
        output::note(format!("Removed {id}"));
    }
    if !remove.is_empty() {
        return Ok(());
    }
    let all: Value = client.get(CLIENTS).await?;
    if context.style.json {
        output::json(&all["items"]);
        return Ok(());
    }
    let mut table = output::table(&["ID", "NAME", "REGISTERED", "LAST USED", "ANSWERS GO TO"]);
    for item in all["items"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        table.add_row([
            text("id"),
            text("name"),
            text("created_at"),
            text("used_at"),
            super::words(&item["redirect_uris"]),
        ]);
    }
    output::rows(table, context.style);
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
