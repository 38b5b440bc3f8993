//! `vaxel service …` and `vaxel ls`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vaxel_client::{Client, segment};

use super::{
    Context, Why, add, authorize, dependencies,
    edit::{self, Subject},
    health, history, settings,
};
use crate::output;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a service
    #[command(
        after_help = "Examples:\n  vaxel service add everything -- npx -y @modelcontextprotocol/server-everything\n  vaxel service add github --url https://api.example.com/mcp --header 'Authorization=Bearer …'\n  vaxel service add wallet --http 127.0.0.1:8000 --http 127.0.0.1:8001=2 --tool create_wallet --health-path /health\n  vaxel service add files --env DEBUG=1 --tag local -- npx -y @modelcontextprotocol/server-filesystem /tmp\n  vaxel service add files --template filesystem --set root=/data"
    )]
    Add(Box<add::AddArgs>),
    /// List services
    #[command(after_help = "Example:\n  vaxel service ls --state error")]
    Ls(ListArgs),
    /// Show a service
    #[command(after_help = "Example:\n  vaxel service show everything")]
    Show {
        /// Name or id
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// Show every value of a service's configuration, and where it came from
    #[command(after_help = "Example:\n  vaxel service config everything")]
    Config {
        /// Name or id
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// Render the template of a service again, as it is now
    #[command(after_help = "Example:\n  vaxel service refresh files")]
    Refresh {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Print the JSON Schema of what can be sent to create a service
    #[command(after_help = "Example:\n  vaxel service schema > service.schema.json")]
    Schema,
    /// Change a service in your editor, or single settings of it
    #[command(
        after_help = "Without --set and --unset it opens your editor. `vaxel service config` shows the names of settings.\n\nExamples:\n  EDITOR=vi vaxel service edit everything\n  vaxel service edit everything --set limits.timeout=20s --set replicas=2 -m 'it is slow'\n  vaxel service edit everything --set 'tools.deny=[\"delete_*\"]' --unset limits.memory"
    )]
    Edit {
        /// Name or id
        name: String,
        /// Setting and its value: a text, or JSON
        #[arg(long, value_name = "SETTING=VALUE")]
        set: Vec<String>,
        /// Setting that goes back to its default
        #[arg(long, value_name = "SETTING")]
        unset: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
    /// Remove services; `restore` brings them back
    #[command(after_help = "Example:\n  vaxel service rm everything")]
    Rm {
        /// Names or ids
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
    /// Bring a removed service back
    #[command(after_help = "Example:\n  vaxel service restore everything")]
    Restore {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Show how a service is, what was checked of it, and how it was
    #[command(
        after_help = "Examples:\n  vaxel service health everything\n  vaxel service health everything --check --history"
    )]
    Health(health::HealthArgs),
    /// Start a stopped service
    #[command(after_help = "Example:\n  vaxel service start everything")]
    Start {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Stop a service
    #[command(after_help = "Example:\n  vaxel service stop everything")]
    Stop {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Show which service needs which, in the order in which they start
    #[command(
        after_help = "Examples:\n  vaxel service map\n  vaxel service map --mermaid > services.mmd"
    )]
    Map {
        /// As a Mermaid chart
        #[arg(long)]
        mermaid: bool,
        #[command(flatten)]
        format: super::Format,
    },
    /// Show what breaks when a service stops
    #[command(after_help = "Example:\n  vaxel service impact db")]
    Impact {
        /// Name or id
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// End the instances of a service and start them again
    #[command(after_help = "Example:\n  vaxel service restart everything")]
    Restart {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Log in to a service of somebody else that wants to know whose data it shows
    #[command(
        after_help = "Examples:\n  vaxel service authorize tracker\n  vaxel service authorize tracker --forget"
    )]
    Authorize(authorize::Args),
    #[command(flatten)]
    History(history::Command),
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// Part of name, description, command or URL
    text: Option<String>,
    /// With this tag; with all of them, when there are several
    #[arg(long)]
    tag: Vec<String>,
    /// In this environment
    #[arg(long)]
    environment: Option<String>,
    /// Created by the key of this name
    #[arg(long)]
    owner: Option<String>,
    /// Of this kind: process, mcp, builtin, …
    #[arg(long = "type", visible_alias = "source", value_name = "TYPE")]
    source: Option<String>,
    /// In this state: active, inactive, error, …
    #[arg(long, visible_alias = "status")]
    state: Option<String>,
    /// With this health: HEALTHY, DEGRADED, ERROR, …
    #[arg(long)]
    health: Option<String>,
    /// Offering a tool of this name; `*` stands for any run of characters
    #[arg(long)]
    tool: Option<String>,
    /// By name, created, updated, health or calls; with `-` before it the other way round
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true)]
    sort: Option<String>,
    /// What was removed
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    pub(super) format: super::Format,
}

impl Command {
    pub(super) fn format(&self) -> super::Format {
        match self {
            Self::Add(args) => args.format,
            Self::Ls(args) => args.format,
            Self::Show { format, .. }
            | Self::Config { format, .. }
            | Self::Map { format, .. }
            | Self::Impact { format, .. } => *format,
            Self::Health(args) => args.format,
            Self::Authorize(args) => args.format,
            Self::History(command) => command.format(),
            Self::Schema
            | Self::Refresh { .. }
            | Self::Edit { .. }
            | Self::Rm { .. }
            | Self::Restore { .. }
            | Self::Start { .. }
            | Self::Stop { .. }
            | Self::Restart { .. } => super::Format::default(),
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    if matches!(command, Command::Schema) {
        // It is that of this program: no Vaxel has to run.
        output::json(&vaxel_core::service::draft_schema());
        return Ok(ExitCode::SUCCESS);
    }
    let client = context.client()?;
    match command {
        Command::Add(args) => return add::run(&args, &client, context).await,
        Command::Ls(args) => list(&args, context).await?,
        Command::Health(args) => return health::run(&args, &client, context).await,
        Command::Show { name, .. } => show(&name, &client, context).await?,
        Command::Config { name, .. } => settings::show(&name, &client, context).await?,
        Command::Refresh { name, why } => act((&name, &why), "refresh", &client, context).await?,
        Command::Schema => {}
        Command::Edit {
            name,
            set,
            unset,
            why,
        } if !(set.is_empty() && unset.is_empty()) => {
            let found: Value = client.get(&path(&name, "")).await?;
            let mut draft = editable(&found);
            settings::change(&mut draft, &set, &unset)?;
            let version = found["version"].as_u64();
            let path = why.on(path(&name, ""));
            client.put::<Value>(&path, &draft, version).await?;
            output::note(format!("Changed {name}"));
        }
        Command::Edit { name, why, .. } => {
            let subject = Subject {
                what: "service",
                hint: "`secret:` stands for a value that is kept sealed; replace it to set another one.",
                path: path(&name, ""),
                editable,
                why,
            };
            edit::run(&name, &subject, &client).await?;
        }
        Command::Rm { names, why } => {
            for name in names {
                client.delete(&why.on(path(&name, ""))).await?;
                output::note(format!(
                    "Removed {name}; `vaxel service restore {name}` brings it back"
                ));
            }
        }
        Command::Restore { name, why } => {
            act((&name, &why), "restore", &client, context).await?;
        }
        Command::Start { name, why } => {
            act((&name, &why), "start", &client, context).await?;
        }
        Command::Stop { name, why } => {
            act((&name, &why), "stop", &client, context).await?;
            dependencies::warn(&name, &client).await?;
        }
        Command::Map { mermaid: true, .. } => dependencies::chart(&client).await?,
        Command::Map { .. } => dependencies::map(&client, context).await?,
        Command::Impact { name, .. } => dependencies::impact(&name, &client, context).await?,
        Command::Restart { name, why } => {
            act((&name, &why), "restart", &client, context).await?;
        }
        Command::Authorize(args) => authorize::run(&args, &client, context).await?,
        Command::History(command) => history::run(command, &client, context).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The parts of a service that a person can change.
fn editable(service: &Value) -> Value {
    if service["extends"].is_object() {
        return json!({
            "name": service["name"], "enabled": service["enabled"], "tags": service["tags"],
            "environment": service["environment"], "extends": service["extends"],
            "spec": service["own"],
        });
    }
    json!({
        "name": service["name"], "enabled": service["enabled"], "tags": service["tags"],
        "environment": service["environment"], "spec": service["spec"],
    })
}

pub(super) fn path(name: &str, rest: &str) -> String {
    format!("/api/v1/services/{}{rest}", segment(name))
}

pub(super) async fn list(args: &ListArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    let mut query: Vec<String> = vec!["limit=500".to_owned()];
    let tags = Some(args.tag.join(",")).filter(|tags| !tags.is_empty());
    let health = args.health.as_ref().map(|health| health.to_uppercase());
    let filters = [
        ("text", &args.text),
        ("tag", &tags),
        ("environment", &args.environment),
        ("owner", &args.owner),
        ("source", &args.source),
        ("state", &args.state),
        ("health", &health),
        ("tool", &args.tool),
        ("sort", &args.sort),
    ];
    for (key, value) in filters {
        query.extend(
            value
                .as_ref()
                .map(|value| format!("{key}={}", segment(value))),
        );
    }
    if args.deleted {
        query.push("deleted=true".to_owned());
    }
    let items = all_pages(&client, "/api/v1/services", &query).await?;
    if context.style.json {
        output::json(&items);
        return Ok(());
    }
    if items.is_empty() {
        output::note("There are no services; `vaxel service add` adds one");
        return Ok(());
    }
    let mut table = output::table(&[
        "NAME", "SOURCE", "STATE", "HEALTH", "TOOLS", "CALLS", "UPTIME",
    ]);
    for item in &items {
        let status = &item["status"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        table.add_row(vec![
            comfy_table::Cell::new(text(&item["name"])),
            comfy_table::Cell::new(source_kind(item)),
            output::state(&text(&status["lifecycle"]), context.style),
            output::state(&text(&status["health"]), context.style),
            output::number(&status["tools"]),
            output::number(&item["stats"]["calls"]),
            comfy_table::Cell::new(uptime(status)),
        ]);
    }
    output::rows(table, context.style);
    Ok(())
}

/// Every page of a list.
pub(super) async fn all_pages(
    client: &Client,
    path: &str,
    query: &[String],
) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        query.extend(cursor.map(|cursor| format!("cursor={}", segment(&cursor))));
        let separator = if query.is_empty() { "" } else { "?" };
        let page: Value = client
            .get(&format!("{path}{separator}{}", query.join("&")))
            .await?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

fn source_kind(item: &Value) -> String {
    let kinds = item["spec"]["source"].as_object();
    kinds
        .and_then(|kinds| kinds.keys().next().cloned())
        .unwrap_or_default()
}

fn uptime(status: &Value) -> String {
    let started = status["instances"][0]["started_at"].as_str();
    let started = started.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    started.map_or_else(String::new, |started| output::ago(output::since(started)))
}

async fn show(name: &str, client: &Client, context: &Context) -> anyhow::Result<()> {
    let service: Value = client.get(&path(name, "")).await?;
    if context.style.json {
        output::json(&service);
    } else {
        output::raw(&yaml(&service)?);
    }
    Ok(())
}

async fn act(
    (name, why): (&str, &Why),
    action: &str,
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    let service: Value = client
        .post(&why.on(path(name, &format!("/{action}"))), &Value::Null)
        .await?;
    if context.style.json {
        output::json(&service);
    } else {
        let done = match action {
            "stop" => "Stopping",
            "restore" => "Restored",
            "refresh" => "Refreshed",
            "restart" => "Restarting",
            _ => "Starting",
        };
        output::note(format!("{done} {name}"));
    }
    Ok(())
}

pub(super) fn yaml(value: &Value) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}
