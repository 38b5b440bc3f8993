//! `vaxel set …`.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use vaxel_client::{Client, segment};

use super::{
    Context, Why,
    edit::{self, Subject},
    service::yaml,
};
use crate::output;

/// Where the management API has them.
const SETS: &str = "/api/v1/toolsets";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a set
    #[command(
        after_help = "In patterns `*` stands for any run of characters. Without a pattern of a kind, everything of that kind is in the set; `SERVICE=` with nothing after it takes nothing.\n\nExamples:\n  vaxel set add work github time\n  vaxel set add reading files --tool 'files=read_*' --tool files=stat --prompt files=\n  vaxel set add docs files --resource 'files=file:///docs/*'\n  vaxel set add many github jira --meta"
    )]
    Add(AddArgs),
    /// List sets
    #[command(visible_alias = "list", after_help = "Example:\n  vaxel set ls")]
    Ls(super::Format),
    /// Show a set
    #[command(after_help = "Example:\n  vaxel set show work")]
    Show {
        /// Name or id
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// Change a set in your editor
    #[command(after_help = "Example:\n  EDITOR=vi vaxel set edit work")]
    Edit {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Remove sets; their services stay as they are
    #[command(visible_alias = "remove", after_help = "Example:\n  vaxel set rm work")]
    Rm {
        /// Names or ids
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Args)]
pub(super) struct AddArgs {
    /// Name: a-z, 0-9, `-` and `_`, at most 32 characters
    name: String,
    /// Services that are in it; they do not have to be there yet
    services: Vec<String>,
    /// Tool of a service, or pattern
    #[arg(long, value_name = "SERVICE=PATTERN")]
    tool: Vec<String>,
    /// Prompt of a service, or pattern
    #[arg(long, value_name = "SERVICE=PATTERN")]
    prompt: Vec<String>,
    /// URI or template of a service's resources, or pattern
    #[arg(long, value_name = "SERVICE=PATTERN")]
    resource: Vec<String>,
    /// One sentence for people
    #[arg(long)]
    description: Option<String>,
    /// Clients see four tools that list, find, describe and call those of the set
    #[arg(long)]
    meta: bool,
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
            Self::Edit { .. } | Self::Rm { .. } => super::Format { json: false },
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match command {
        Command::Add(args) => add(&args, &client, context).await?,
        Command::Ls(_) => list(&client.get(SETS).await?, context),
        Command::Show { name, .. } => {
            let set: Value = client.get(&path(&name)).await?;
            if context.style.json {
                output::json(&set);
            } else {
                output::raw(&yaml(&set)?);
            }
        }
        Command::Edit { name, why } => {
            let subject = Subject {
                what: "set",
                hint: "`*` stands for any run of characters; without a list everything of its kind is in.",
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

pub(super) fn path(name: &str) -> String {
    format!("{SETS}/{}", segment(name))
}

async fn add(args: &AddArgs, client: &Client, context: &Context) -> anyhow::Result<()> {
    let mut draft = json!({"name": args.name, "services": services(args)?});
    if let Some(description) = &args.description {
        draft["description"] = description.as_str().into();
    }
    if args.meta {
        draft["view"] = "meta".into();
    }
    let set: Value = client.post(&args.why.on(SETS.to_owned()), &draft).await?;
    if context.style.json {
        output::json(&set);
        return Ok(());
    }
    output::note(format!("Added {}: {}", args.name, shown(&set)));
    for one in selected(&set).filter(|one| one["exists"] == false) {
        let name = text(&one["service"]);
        output::note(format!(
            "There is no service `{name}`; what it offers is in the set as soon as there is"
        ));
    }
    let address = client
        .base()
        .join(text(&set["path"]).trim_start_matches('/'))?;
    output::note(format!(
        "Clients find it at {address}, or with `vaxel connect CLIENT --set {}`",
        args.name
    ));
    Ok(())
}

/// What is wanted of each service, in the order in which they are named.
fn services(args: &AddArgs) -> anyhow::Result<Vec<Value>> {
    let mut all: Vec<Map<String, Value>> = Vec::new();
    let mut entry = |service: &str| {
        let place = all.iter().position(|one| one["service"] == service);
        place.unwrap_or_else(|| {
            all.push(Map::from_iter([("service".to_owned(), service.into())]));
            all.len() - 1
        })
    };
    let mut wanted = Vec::new();
    for service in &args.services {
        entry(service);
    }
    for (kind, flag, patterns) in [
        ("tools", "--tool", &args.tool),
        ("prompts", "--prompt", &args.prompt),
        ("resources", "--resource", &args.resource),
    ] {
        for given in patterns {
            let (service, pattern) = given.split_once('=').with_context(|| {
                format!("{flag} takes SERVICE=PATTERN, such as `files=read_*`, not `{given}`")
            })?;
            wanted.push((entry(service), kind, pattern));
        }
    }
    for (place, kind, pattern) in wanted {
        let list = all[place].entry(kind).or_insert_with(|| json!([]));
        if let (Value::Array(list), false) = (list, pattern.is_empty()) {
            list.push(pattern.into());
        }
    }
    if all.is_empty() {
        bail!(
            "name the services of the set: `vaxel set add {} SERVICE…`",
            args.name
        );
    }
    Ok(all.into_iter().map(Value::Object).collect())
}

fn list(page: &Value, context: &Context) {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    if context.style.json {
        return output::json(&page["items"]);
    }
    if items.is_empty() {
        return output::note("There are no sets; `vaxel set add` adds one");
    }
    let mut table = output::table(&["NAME", "TOOLS", "PROMPTS", "RESOURCES", "PATH", "SERVICES"]);
    for item in items {
        let services = selected(item).map(|one| {
            let is_missing = one["exists"] == false;
            let note = if is_missing { " (missing)" } else { "" };
            format!("{}{note}", text(&one["service"]))
        });
        table.add_row(vec![
            comfy_table::Cell::new(text(&item["name"])),
            output::number(count(item, "tools")),
            output::number(count(item, "prompts")),
            output::number(count(item, "resources") + count(item, "templates")),
            comfy_table::Cell::new(text(&item["path"])),
            comfy_table::Cell::new(services.collect::<Vec<_>>().join(", ")),
        ]);
    }
    output::rows(table, context.style);
}

/// What a set comes to now: "3 tools, 1 prompt and 2 resources".
fn shown(set: &Value) -> String {
    let some = |kind: &str, also: &str| {
        let number = count(set, kind) + if also.is_empty() { 0 } else { count(set, also) };
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {}{plural}", kind.trim_end_matches('s'))
    };
    format!(
        "{}, {} and {}",
        some("tools", ""),
        some("prompts", ""),
        some("resources", "templates")
    )
}

fn count(set: &Value, kind: &str) -> u64 {
    let counts = selected(set).filter_map(|one| one["shown"][kind].as_u64());
    counts.sum()
}

fn selected(set: &Value) -> impl Iterator<Item = &Value> {
    set["services"].as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The parts of a set that a person can change.
fn editable(set: &Value) -> Value {
    let mut services = set["services"].clone();
    for one in services.as_array_mut().into_iter().flatten() {
        if let Value::Object(one) = one {
            one.remove("exists");
            one.remove("shown");
        }
    }
    let mut draft = json!({"name": set["name"], "services": services});
    if set["description"].is_string() {
        draft["description"] = set["description"].clone();
    }
    if set["view"] == "meta" {
        draft["view"] = set["view"].clone();
    }
    draft
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(services: &[&str], tool: &[&str], prompt: &[&str]) -> AddArgs {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        AddArgs {
            name: "work".to_owned(),
            services: owned(services),
            tool: owned(tool),
            prompt: owned(prompt),
            resource: Vec::new(),
            description: None,
            meta: false,
            why: Why::default(),
            format: super::super::Format::default(),
        }
    }

    #[test]
    fn what_is_typed_is_what_is_selected() {
        let typed = args(
            &["time", "files"],
            &["files=read_*", "new=a=b", "files=stat"],
            &["files="],
        );
        let selected = services(&typed).unwrap();
        assert_eq!(
            Value::Array(selected),
            json!([
                {"service": "time"},
                {"service": "files", "tools": ["read_*", "stat"], "prompts": []},
                {"service": "new", "tools": ["a=b"]},
            ])
        );
        let nothing = services(&args(&[], &[], &[])).unwrap_err();
        assert!(nothing.to_string().contains("vaxel set add work SERVICE"));
        let exposed = services(&args(&[], &["demo__echo"], &[])).unwrap_err();
        assert!(
            exposed.to_string().contains("not `demo__echo`"),
            "{exposed}"
        );
    }

    #[test]
    fn what_is_seen_is_not_edited() {
        let seen = json!({"id": "1", "version": 3, "name": "work", "path": "/x", "services": [
            {"service": "a", "tools": ["x"], "exists": true, "shown": {"tools": 1}}]});
        let expected = json!({"name": "work", "services": [{"service": "a", "tools": ["x"]}]});
        assert_eq!(editable(&seen), expected);
        assert_eq!(shown(&seen), "1 tool, 0 prompts and 0 resources");
    }
}
