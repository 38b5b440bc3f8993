//! `vaxel service …` and `vaxel ls`.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use vaxel_client::{Client, segment};

use super::{
    Context, Why, dependencies,
    edit::{self, Subject},
    health, history, http, settings, template,
};
use crate::output;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a service
    #[command(
        after_help = "Examples:\n  vaxel service add everything -- npx -y @modelcontextprotocol/server-everything\n  vaxel service add github --url https://api.example.com/mcp --header 'Authorization=Bearer …'\n  vaxel service add wallet --http 127.0.0.1:8000 --http 127.0.0.1:8001=2 --tool create_wallet --health-path /health\n  vaxel service add files --env DEBUG=1 --tag local -- npx -y @modelcontextprotocol/server-filesystem /tmp\n  vaxel service add files --template filesystem --set root=/data"
    )]
    Add(Box<AddArgs>),
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
    /// Change a service in your editor
    #[command(after_help = "Example:\n  EDITOR=vi vaxel service edit everything")]
    Edit {
        /// Name or id
        name: String,
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
    #[command(flatten)]
    History(history::Command),
}

#[derive(Args)]
pub(super) struct AddArgs {
    /// Name: a-z, 0-9, `-` and `_`, at most 32 characters
    name: String,
    /// MCP endpoint of a remote server: http, https, ws or wss
    #[arg(
        id = "upstream",
        long = "url",
        value_name = "URL",
        conflicts_with_all = ["command", "template"]
    )]
    url: Option<String>,
    /// Base URL of another Vaxel than the one on this machine; elsewhere this is --url
    #[arg(id = "url", long = "vaxel", value_name = "URL")]
    _vaxel: Option<url::Url>,
    #[command(flatten)]
    http: http::HttpArgs,
    /// Program and arguments of a stdio server, after `--`
    #[arg(last = true, conflicts_with = "template")]
    command: Vec<String>,
    /// Template that it is made from; `vaxel template list` shows which there are
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Value of a parameter of the template; a path may be relative
    #[arg(long, value_name = "PARAMETER=VALUE", requires = "template")]
    set: Vec<String>,
    /// Environment variable of the program; sealed at rest
    #[arg(long, value_name = "K=V")]
    env: Vec<String>,
    /// Working directory of the program
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Header sent to a remote server; sealed at rest
    #[arg(long, value_name = "K=V")]
    header: Vec<String>,
    /// Which callers share a session with a remote server that has sessions
    #[arg(
        long,
        value_name = "SCOPE",
        value_parser = ["shared", "per-principal", "per-client"],
        requires = "upstream"
    )]
    session: Option<String>,
    /// MCP era to speak [default: auto]
    #[arg(long, value_parser = ["auto", "legacy", "modern"])]
    era: Option<String>,
    /// Check tool calls against the tools' schemas: their arguments, or results too [default: none]
    #[arg(long, value_parser = ["none", "arguments", "all"])]
    validate: Option<String>,
    /// Health checks and what follows from them, as the JSON of the service's `health`
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    health: Option<Value>,
    /// Processes that share the calls [default: 1]
    #[arg(long)]
    replicas: Option<u16>,
    /// Which instance takes the next call, where there are several; by default by speed and load
    #[arg(
        long,
        value_name = "WAY",
        value_parser = ["round_robin", "least_connections", "weighted", "peak_ewma", "consistent_hash"]
    )]
    balance: Option<String>,
    /// Stop the program when nobody has called it for so long; the next call starts it
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<String>,
    /// Service that it needs: it starts after that one
    #[arg(long, value_name = "NAME")]
    depends_on: Vec<String>,
    /// Tag, for filters
    #[arg(long)]
    tag: Vec<String>,
    /// dev, staging, prod or own
    #[arg(long)]
    environment: Option<String>,
    /// One sentence for people
    #[arg(long)]
    description: Option<String>,
    /// Do not start it
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    why: Why,
    /// Do not wait until it is ready
    #[arg(long)]
    no_wait: bool,
    /// Longest wait
    #[arg(long, default_value = "90s", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    pub(super) format: super::Format,
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

fn json_object(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.is_object() {
        return Ok(value);
    }
    Err("write an object, such as {\"functional\": [{\"tool\": \"echo\"}]}".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<vaxel_core::quantity::Span>()
        .map(|span| span.0)
        .map_err(|error| error.to_string())
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    if matches!(command, Command::Schema) {
        // It is that of this program: no Vaxel has to run.
        output::json(&vaxel_core::service::draft_schema());
        return Ok(ExitCode::SUCCESS);
    }
    let client = context.client()?;
    match command {
        Command::Add(args) => return add(&args, &client, context).await,
        Command::Ls(args) => list(&args, context).await?,
        Command::Health(args) => return health::run(&args, &client, context).await,
        Command::Show { name, .. } => show(&name, &client, context).await?,
        Command::Config { name, .. } => settings::show(&name, &client, context).await?,
        Command::Refresh { name, why } => act((&name, &why), "refresh", &client, context).await?,
        Command::Schema => {}
        Command::Edit { name, why } => {
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

async fn add(args: &AddArgs, client: &Client, context: &Context) -> anyhow::Result<ExitCode> {
    let source = match &args.template {
        Some(_) => overridden(args)?,
        None => Some(source(args)?),
    };
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let depends_on = (!args.depends_on.is_empty()).then(|| json!(args.depends_on));
    let given = [
        ("source", source),
        ("replicas", args.replicas.map(Value::from)),
        ("era", text(&args.era)),
        ("validate", text(&args.validate)),
        ("depends_on", depends_on),
        ("health", args.health.clone()),
        ("balance", text(&args.balance)),
        ("idle_timeout", text(&args.idle_timeout)),
        ("description", text(&args.description)),
    ];
    let given = given
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let spec: Map<String, Value> = given.collect();
    let mut draft = json!({
        "name": args.name, "enabled": !args.disabled, "tags": args.tag, "spec": spec,
    });
    if let Some(name) = &args.template {
        draft["extends"] = template::extends(name, &args.set, client).await?;
    }
    if let Some(environment) = &args.environment {
        draft["environment"] = environment.as_str().into();
    }
    let created: Value = client
        .post(&args.why.on("/api/v1/services".to_owned()), &draft)
        .await?;
    if args.no_wait || args.disabled {
        if context.style.json {
            output::json(&created);
        } else {
            output::note(format!("Added {}", args.name));
        }
        return Ok(ExitCode::SUCCESS);
    }
    wait_until_ready(&args.name, args.timeout, client, context).await
}

/// What the flags change of the source of a template.
fn overridden(args: &AddArgs) -> anyhow::Result<Option<Value>> {
    let mut source = Map::new();
    let mut process = Map::new();
    if !args.env.is_empty() {
        process.insert("env".to_owned(), pairs(&args.env, "--env")?.into());
    }
    if let Some(cwd) = &args.cwd {
        process.insert("cwd".to_owned(), absolute(cwd)?.into());
    }
    if !process.is_empty() {
        source.insert("process".to_owned(), process.into());
    }
    if !args.header.is_empty() {
        let headers = pairs(&args.header, "--header")?;
        source.insert("mcp".to_owned(), json!({ "headers": headers }));
    }
    Ok((!source.is_empty()).then(|| source.into()))
}

fn source(args: &AddArgs) -> anyhow::Result<Value> {
    if !args.http.http.is_empty() {
        if !args.env.is_empty() || args.cwd.is_some() {
            bail!("--env and --cwd belong to a program; an HTTP service takes --header");
        }
        return args.http.source(&pairs(&args.header, "--header")?);
    }
    match (&args.url, args.command.split_first()) {
        (Some(url), _) => {
            if !args.env.is_empty() || args.cwd.is_some() {
                bail!("--env and --cwd belong to a program; a remote server takes --header");
            }
            let mut mcp = json!({"url": url, "headers": pairs(&args.header, "--header")?});
            if let Some(session) = &args.session {
                mcp["session"] = session.as_str().into();
            }
            Ok(json!({ "mcp": mcp }))
        }
        (None, Some((program, rest))) => {
            if !args.header.is_empty() {
                bail!("--header belongs to a remote server (--url, --http); a program takes --env");
            }
            let env = pairs(&args.env, "--env")?;
            let program = if program.starts_with("./") || program.starts_with("../") {
                absolute(program)?
            } else {
                program.clone()
            };
            let mut process = json!({"command": program, "args": rest, "env": env});
            if let Some(cwd) = &args.cwd {
                process["cwd"] = absolute(cwd)?.into();
            }
            Ok(json!({ "process": process }))
        }
        (None, None) => bail!(
            "say what to run or reach: `vaxel service add {0} -- COMMAND ARGS…`, \
             `vaxel service add {0} --url URL`, `vaxel service add {0} --http HOST:PORT --tool NAME` or \
             `vaxel service add {0} --template NAME`",
            args.name
        ),
    }
}

/// The path from where the command is typed; services start elsewhere.
pub(super) fn absolute(path: &str) -> anyhow::Result<String> {
    let here = std::path::absolute(path).with_context(|| format!("`{path}` is no path"))?;
    // `.` and `..` are resolved where the path exists.
    let here = here.canonicalize().unwrap_or(here);
    Ok(here.display().to_string())
}

fn pairs(texts: &[String], flag: &str) -> anyhow::Result<Map<String, Value>> {
    texts
        .iter()
        .map(|text| {
            let (key, value) = text
                .split_once('=')
                .with_context(|| format!("{flag} takes NAME=VALUE, not `{text}`"))?;
            Ok((key.to_owned(), value.into()))
        })
        .collect()
}

async fn wait_until_ready(
    name: &str,
    timeout: Duration,
    client: &Client,
    context: &Context,
) -> anyhow::Result<ExitCode> {
    let spinner = output::can_show_progress().then(|| {
        let spinner = indicatif::ProgressBar::new_spinner();
        spinner.set_message(format!("starting {name}"));
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    });
    let patient = client
        .clone()
        .with_timeout(timeout + Duration::from_secs(10));
    let question = path(name, &format!("/health?wait={}s", timeout.as_secs()));
    let health: anyhow::Result<Value> = patient.get(&question).await.map_err(Into::into);
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let health = health?;
    if health["ready"] == true {
        let service: Value = client.get(&path(name, "")).await?;
        if context.style.json {
            output::json(&service);
        } else {
            let tools = service["status"]["tools"].as_u64().unwrap_or(0);
            output::note(format!(
                "{name} is ready with {tools} tools; next: vaxel tools --service {name}"
            ));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if context.style.json {
        output::json(&health);
    }
    let state = health["lifecycle"].as_str().unwrap_or("not ready");
    let reason = health["reason"]
        .as_str()
        .unwrap_or("it gave no answer in time");
    output::note(match state {
        "error" => format!("error: {name} did not start: {reason}"),
        _ => format!("error: {name} is not ready but {state}: {reason}"),
    });
    let logs: Value = client
        .get(&path(name, "/logs?tail=10"))
        .await
        .unwrap_or_default();
    for line in logs["items"].as_array().into_iter().flatten() {
        output::note(format!("  {}", line["text"].as_str().unwrap_or_default()));
    }
    output::note(format!(
        "It stays registered: change it with `vaxel service edit {name}`, or remove it with \
         `vaxel service rm {name}`"
    ));
    Ok(ExitCode::from(output::FAILED))
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
