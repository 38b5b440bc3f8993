//! `vaxel policy …`.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};
use vaxel_client::segment;

use super::{
    Context, Why,
    edit::{self, Subject},
    service::yaml,
};
use crate::output;

/// Where the management API has them.
const POLICIES: &str = "/api/v1/policies";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a policy: a rule that stands above roles and grants
    #[command(
        after_help = "A list that is not given fits everything; in patterns `*` stands for any run of characters. What is denied stays denied. Without permissions it is about calls (mcp:execute).\n\nExamples:\n  vaxel policy add no-deletes --deny --environment prod --tool 'delete_*'\n  vaxel policy add own-files --deny --service files --when '!arguments.path.startsWith(\"/home/\" + user.name)'\n  vaxel policy add time-for-all --allow --service time"
    )]
    Add(Box<AddArgs>),
    /// List policies
    #[command(visible_alias = "list", after_help = "Example:\n  vaxel policy ls")]
    Ls(super::Format),
    /// Show a policy
    #[command(after_help = "Example:\n  vaxel policy show no-deletes")]
    Show {
        /// Name or id
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// Change a policy in your editor
    #[command(after_help = "Example:\n  EDITOR=vi vaxel policy edit no-deletes")]
    Edit {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Remove policies
    #[command(
        visible_alias = "remove",
        after_help = "Example:\n  vaxel policy rm no-deletes"
    )]
    Rm {
        /// Names or ids
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Args)]
#[command(group = ArgGroup::new("effect").required(true).args(["allow", "deny"]))]
pub(super) struct AddArgs {
    /// Name: a-z, 0-9, `-` and `_`, at most 32 characters
    name: String,
    /// It allows
    #[arg(long)]
    allow: bool,
    /// It denies
    #[arg(long)]
    deny: bool,
    /// User whom it concerns
    #[arg(long)]
    user: Vec<String>,
    /// Role whose users it concerns
    #[arg(long)]
    role: Vec<String>,
    /// What it is about, such as mcp:execute
    #[arg(long)]
    permission: Vec<String>,
    /// Service, or pattern
    #[arg(long)]
    service: Vec<String>,
    /// Environment of services, or pattern
    #[arg(long)]
    environment: Vec<String>,
    /// Tag of services, or pattern
    #[arg(long)]
    tag: Vec<String>,
    /// Tool by its service's own name for it, or pattern
    #[arg(long)]
    tool: Vec<String>,
    /// Condition in CEL over arguments, user, service, tool and time
    #[arg(long, value_name = "CEL")]
    when: Option<String>,
    /// Keep it, but without effect
    #[arg(long)]
    disabled: bool,
    /// One sentence for people
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    format: super::Format,
}

impl Command {
    pub(super) fn format(&self) -> super::Format {
        match self {
            Self::Add(args) => args.format,
            Self::Ls(format) | Self::Show { format, .. } => *format,
            Self::Edit { .. } | Self::Rm { .. } => super::Format { json: false },
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match command {
        Command::Add(args) => {
            let (name, path) = (args.name.clone(), args.why.on(POLICIES.to_owned()));
            let policy: Value = client.post(&path, &draft(*args)).await?;
            if context.style.json {
                output::json(&policy);
            } else {
                output::note(format!("Added {name}: it holds from now on"));
            }
        }
        Command::Ls(_) => list(&client.get(POLICIES).await?, context),
        Command::Show { name, .. } => {
            let policy: Value = client.get(&path(&name)).await?;
            if context.style.json {
                output::json(&policy);
            } else {
                output::raw(&yaml(&policy)?);
            }
        }
        Command::Edit { name, why } => {
            let subject = Subject {
                what: "policy",
                hint: "A list that is not there fits everything; `*` stands for any run of characters.",
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
    format!("{POLICIES}/{}", segment(name))
}

fn draft(args: AddArgs) -> Value {
    let effect = if args.deny { "deny" } else { "allow" };
    let mut draft = json!({"name": args.name, "effect": effect, "enabled": !args.disabled});
    let lists = [
        ("users", args.user),
        ("roles", args.role),
        ("permissions", args.permission),
        ("services", args.service),
        ("environments", args.environment),
        ("tags", args.tag),
        ("tools", args.tool),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        draft[key] = list.into();
    }
    let texts = [("when", args.when), ("description", args.description)];
    for (key, text) in texts {
        if let Some(text) = text {
            draft[key] = text.into();
        }
    }
    draft
}

fn list(page: &Value, context: &Context) {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    if context.style.json {
        return output::json(&page["items"]);
    }
    if items.is_empty() {
        return output::note("There are no policies; `vaxel policy add` adds one");
    }
    let mut table = output::table(&["NAME", "EFFECT", "WHOM", "WHAT", "WHERE", "WHEN"]);
    for item in items {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let mut effect = text("effect");
        if item["enabled"] == false {
            effect += " (disabled)";
        }
        if item["issues"].is_array() {
            effect += " (cannot be read)";
        }
        table.add_row([
            text("name"),
            effect,
            some_of(item, &["users", "roles"], "everyone"),
            super::words(&item["permissions"]),
            some_of(
                item,
                &["services", "environments", "tags", "tools"],
                "everywhere",
            ),
            text("when"),
        ]);
    }
    output::rows(table, context.style);
}

/// What some lists hold, with their names; `all` when there is none of them.
fn some_of(policy: &Value, keys: &[&str], all: &str) -> String {
    let some = keys.iter().filter(|key| policy[**key].is_array());
    let some: Vec<String> = some
        .map(|key| format!("{key}: {}", super::words(&policy[*key])))
        .collect();
    if some.is_empty() {
        return all.to_owned();
    }
    some.join("; ")
}

/// The parts of a policy that a person can change.
fn editable(policy: &Value) -> Value {
    let keys = [
        "name",
        "description",
        "effect",
        "users",
        "roles",
        "permissions",
        "services",
        "environments",
        "tags",
        "tools",
        "when",
        "enabled",
    ];
    super::parts(policy, &keys)
}
