//! `vaxel role …`.

use clap::Subcommand;
use serde_json::{Value, json};
use vaxel_client::segment;

use super::{
    Context, Why,
    edit::{self, Subject},
    service::yaml,
};
use crate::output;

/// Where the management API has them.
const ROLES: &str = "/api/v1/roles";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a role
    #[command(
        after_help = "`mcp:read` holds for everything, `mcp:read:own` for what is the user's own.\n\nExample:\n  vaxel role add analyst mcp:read mcp:execute calls:read:own"
    )]
    Add {
        /// Name: a-z, 0-9, `-` and `_`, at most 32 characters
        name: String,
        /// What it allows
        #[arg(required = true)]
        permissions: Vec<String>,
        /// One sentence for people
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        format: super::Format,
    },
    /// List roles, those that are built in first
    #[command(visible_alias = "list", after_help = "Example:\n  vaxel role ls")]
    Ls(super::Format),
    /// Show a role
    #[command(after_help = "Example:\n  vaxel role show analyst")]
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// Change a role in your editor
    #[command(after_help = "Example:\n  EDITOR=vi vaxel role edit analyst")]
    Edit {
        /// Name
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Remove roles that nobody has, with what is shared with them
    #[command(
        visible_alias = "remove",
        after_help = "Example:\n  vaxel role rm analyst"
    )]
    Rm {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        match self {
            Self::Add { format, .. } | Self::Ls(format) | Self::Show { format, .. } => *format,
            Self::Edit { .. } | Self::Rm { .. } => super::Format { json: false },
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match command {
        Command::Add {
            name,
            permissions,
            description,
            why,
            format: _,
        } => {
            let mut draft = json!({"name": name, "permissions": permissions});
            if let Some(description) = description {
                draft["description"] = description.into();
            }
            let role: Value = client.post(&why.on(ROLES.to_owned()), &draft).await?;
            if context.style.json {
                output::json(&role);
            } else {
                output::note(format!("Added {name}"));
            }
        }
        Command::Ls(_) => list(&client.get(ROLES).await?, context),
        Command::Show { name, .. } => {
            let role: Value = client.get(&path(&name)).await?;
            if context.style.json {
                output::json(&role);
            } else {
                output::raw(&yaml(&role)?);
            }
        }
        Command::Edit { name, why } => {
            let subject = Subject {
                what: "role",
                hint: "The name never changes; `:own` after a permission: of what is the user's own.",
                path: path(&name),
                editable,
                why,
            };
            edit::run(&name, &subject, &client).await?;
        }
        Command::Rm { names, why } => {
            for name in names {
                client.delete(&why.on(path(&name))).await?;
                output::note(format!("Removed {name}"));
            }
        }
    }
    Ok(())
}

fn path(name: &str) -> String {
    format!("{ROLES}/{}", segment(name))
}

fn list(page: &Value, context: &Context) {
    if context.style.json {
        return output::json(&page["items"]);
    }
    let mut table = output::table(&["NAME", "PERMISSIONS", "DESCRIPTION"]);
    for item in page["items"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let is_everything = item["name"] == "admin" && item["built_in"] == true;
        let permissions = if is_everything {
            "everything".to_owned()
        } else {
            super::words(&item["permissions"])
        };
        table.add_row([text("name"), permissions, text("description")]);
    }
    output::rows(table, context.style);
}

/// The parts of a role that a person can change.
fn editable(role: &Value) -> Value {
    super::parts(role, &["name", "description", "permissions"])
}
