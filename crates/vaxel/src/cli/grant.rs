//! `vaxel grant …`.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};
use vaxel_client::segment;

use super::{Context, Why, service::yaml};
use crate::output;

/// Where the management API has them.
const GRANTS: &str = "/api/v1/grants";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Share a service with a user, or with everyone who has a role
    #[command(
        after_help = "Without permissions they can see it and call it (mcp:read, mcp:execute).\n\nExamples:\n  vaxel grant add files --user anna@example.com\n  vaxel grant add files --role analyst --permission mcp:read"
    )]
    Add(AddArgs),
    /// List what is shared with whom
    #[command(visible_alias = "list", after_help = "Example:\n  vaxel grant ls")]
    Ls(super::Format),
    /// Show a grant
    #[command(after_help = "Example:\n  vaxel grant show 01890a5d-ac96-774b-bcce-b302099a8057")]
    Show {
        /// Id
        id: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// End grants
    #[command(
        visible_alias = "remove",
        after_help = "Example:\n  vaxel grant rm 01890a5d-ac96-774b-bcce-b302099a8057"
    )]
    Rm {
        /// Ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Args)]
#[command(group = ArgGroup::new("to").required(true).args(["user", "role"]))]
pub(super) struct AddArgs {
    /// Service that is shared
    service: String,
    /// With this user
    #[arg(long)]
    user: Option<String>,
    /// With everyone who has this role
    #[arg(long)]
    role: Option<String>,
    /// What they may do with it, such as mcp:read
    #[arg(long)]
    permission: Vec<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    format: super::Format,
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        match self {
            Self::Add(args) => args.format,
            Self::Ls(format) | Self::Show { format, .. } => *format,
            Self::Rm { .. } => super::Format { json: false },
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match command {
        Command::Add(args) => {
            let role = args.role.map(|role| format!("role:{role}"));
            let to = args.user.map(|user| format!("user:{user}")).or(role);
            let mut draft = json!({"to": to, "service": args.service});
            if !args.permission.is_empty() {
                draft["permissions"] = args.permission.into();
            }
            let grant: Value = client.post(&args.why.on(GRANTS.to_owned()), &draft).await?;
            if context.style.json {
                output::json(&grant);
            } else {
                let permissions = super::words(&grant["permissions"]);
                let to = grant["to"].as_str().unwrap_or_default();
                output::note(format!("Shared {} with {to}: {permissions}", args.service));
            }
        }
        Command::Ls(_) => list(&client.get(GRANTS).await?, context),
        Command::Show { id, .. } => {
            let grant: Value = client.get(&path(&id)).await?;
            if context.style.json {
                output::json(&grant);
            } else {
                output::raw(&yaml(&grant)?);
            }
        }
        Command::Rm { ids, why } => {
            for id in ids {
                client.delete(&why.on(path(&id))).await?;
                output::note(format!("Ended {id}"));
            }
        }
    }
    Ok(())
}

fn path(id: &str) -> String {
    format!("{GRANTS}/{}", segment(id))
}

fn list(page: &Value, context: &Context) {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    if context.style.json {
        return output::json(&page["items"]);
    }
    if items.is_empty() {
        return output::note("Nothing is shared; `vaxel grant add` shares a service");
    }
    let mut table = output::table(&["SERVICE", "WITH", "PERMISSIONS", "BY", "ID"]);
    for item in items {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        table.add_row([
            text("service"),
            text("to"),
            super::words(&item["permissions"]),
            text("granted_by"),
            text("id"),
        ]);
    }
    output::rows(table, context.style);
}
