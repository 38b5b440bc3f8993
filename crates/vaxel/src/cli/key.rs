//! `vaxel key …`.

use clap::Subcommand;
use serde_json::{Value, json};
use vaxel_client::segment;

use super::{Context, Why};
use crate::output;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create a key; it is shown once
    #[command(
        after_help = "A key can do what its user may, and no more than its role or permissions, services and environments say.\n\nExamples:\n  vaxel key create laptop --role client --expires 90d\n  vaxel key create ci --user ci --service 'db-*' --environment test"
    )]
    Create {
        /// Name
        name: String,
        /// Whose it is [default: yours]
        #[arg(long)]
        user: Option<String>,
        /// What it is limited to: admin, user, service, client or monitor
        #[arg(long, default_value = "client", conflicts_with = "permission")]
        role: String,
        /// Single permission, such as mcp:read
        #[arg(long)]
        permission: Vec<String>,
        /// Only for this service, or pattern
        #[arg(long)]
        service: Vec<String>,
        /// Only for services in this environment
        #[arg(long)]
        environment: Vec<String>,
        /// Time until it is refused, such as 90d
        #[arg(long)]
        expires: Option<String>,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        format: super::Format,
    },
    /// List keys
    #[command(after_help = "Example:\n  vaxel key ls")]
    Ls(super::Format),
    /// Revoke a key
    #[command(after_help = "Example:\n  vaxel key revoke laptop")]
    Revoke {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        match self {
            Self::Create { format, .. } | Self::Ls(format) => *format,
            Self::Revoke { .. } => super::Format { json: false },
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match command {
        Command::Create {
            name,
            user,
            role,
            permission,
            service,
            environment,
            expires,
            why,
            format: _,
        } => {
            let mut draft = json!({ "name": name });
            if let Some(user) = user {
                draft["user"] = user.into();
            }
            for (key, list) in [("services", service), ("environments", environment)] {
                if !list.is_empty() {
                    draft[key] = list.into();
                }
            }
            if permission.is_empty() {
                draft["role"] = role.into();
            } else {
                draft["permissions"] = permission.into();
            }
            if let Some(expires) = expires {
                draft["expires_in"] = expires.into();
            }
            let key: Value = client
                .post(&why.on("/api/v1/keys".to_owned()), &draft)
                .await?;
            if context.style.json {
                output::json(&key);
            } else {
                output::note("This key is shown once:");
                output::line(key["key"].as_str().unwrap_or_default());
            }
        }
        Command::Ls(_) => list(&client.get("/api/v1/keys").await?, context),
        Command::Revoke { name, why } => {
            client
                .delete(&why.on(format!("/api/v1/keys/{}", segment(&name))))
                .await?;
            output::note(format!("Revoked {name}"));
        }
    }
    Ok(())
}

fn list(page: &Value, context: &Context) {
    if context.style.json {
        return output::json(&page["items"]);
    }
    let mut table = output::table(&[
        "NAME",
        "USER",
        "PREFIX",
        "PERMISSIONS",
        "LAST USED",
        "STATE",
    ]);
    for item in page["items"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let mut permissions = super::words(&item["permissions"]);
        for key in ["services", "environments"] {
            if item[key].is_array() {
                permissions = format!("{permissions}; {key}: {}", super::words(&item[key]));
            }
        }
        let state = match (item["revoked_at"].as_str(), item["expires_at"].as_str()) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(at)) => format!("until {at}"),
            (None, None) => "valid".to_owned(),
        };
        table.add_row([
            text("name"),
            text("user"),
            text("prefix"),
            permissions,
            output::when(&text("last_used_at")),
            state,
        ]);
    }
    output::rows(table, context.style);
}
