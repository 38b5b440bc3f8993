//! `vaxel role …`.

use clap::Subcommand;
use serde_json::{Value, json};
use vaxel_client::segment;
use vaxel_core::quota::Quota;

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
        after_help = "`mcp:read` holds for everything, `mcp:read:own` for what is the user's own.\n\nExample:\n  vaxel role add analyst mcp:read mcp:execute calls:read:own\n  vaxel role add trial mcp:read mcp:execute --limit calls=20/1m --limit concurrent=2"
    )]
    Add {
        /// Name: a-z, 0-9, `-` and `_`, at most 32 characters
        name: String,
        /// What it allows
        #[arg(required = true)]
        permissions: Vec<String>,
        /// How much its users may take: requests, calls and creations in some time, concurrent calls
        #[arg(long, value_name = "LIMIT=RATE")]
        limit: Vec<String>,
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
            limit,
            description,
            why,
            format: _,
        } => {
            let mut draft = json!({"name": name, "permissions": permissions});
            if !limit.is_empty() {
                draft["limits"] = limits(&limit)?;
            }
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
    let mut table = output::table(&["NAME", "PERMISSIONS", "LIMITS", "DESCRIPTION"]);
    for item in page["items"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let is_everything = item["name"] == "admin" && item["built_in"] == true;
        let permissions = if is_everything {
            "everything".to_owned()
        } else {
            super::words(&item["permissions"])
        };
        let limits = item["limits"].as_object().into_iter().flatten();
        let limits = limits.map(|(name, value)| match value.as_str() {
            Some(rate) => format!("{name}={rate}"),
            None => format!("{name}={value}"),
        });
        let limits = limits.collect::<Vec<String>>().join(" ");
        table.add_row([text("name"), permissions, limits, text("description")]);
    }
    output::rows(table, context.style);
}

/// The parts of a role that a person can change.
fn editable(role: &Value) -> Value {
    super::parts(role, &["name", "description", "permissions", "limits"])
}

/// What `--limit` says, as it stands in a role or a user; `none` is no limit at all.
pub(super) fn limits(texts: &[String]) -> anyhow::Result<Value> {
    if texts == ["none"] {
        return Ok(json!({}));
    }
    let mut problems = Vec::new();
    let quota = Quota::of_texts(texts, |_, message| problems.push(message));
    anyhow::ensure!(problems.is_empty(), "--limit: {}", problems.join("; "));
    Ok(serde_json::to_value(quota)?)
}

/// Limits with what is left of each, for people.
pub(super) fn levels(limits: &Value) -> String {
    let limits = limits.as_array().into_iter().flatten();
    let said = limits.map(|one| {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let left = &one["left"];
        format!("{} {} ({left} left)", text("limit"), text("allows"))
    });
    said.collect::<Vec<String>>().join(", ")
}
