//! `vaxel service add`.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};
use vaxel_client::Client;

use super::{Context, Why, http, service::path, template};
use crate::output;

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
    /// Template that it is made from; `vaxel template ls` shows which there are
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
    /// Get tokens that a remote server wants by OAuth: each user logs in, or as the JSON of `auth.oauth` says
    #[arg(
        long,
        value_name = "JSON",
        num_args = 0..=1,
        default_missing_value = "{}",
        value_parser = json_object,
        requires = "upstream"
    )]
    oauth: Option<Value>,
    /// MCP era to speak [default: auto]
    #[arg(long, value_parser = ["auto", "legacy", "modern"])]
    era: Option<String>,
    /// Check tool calls against the tools' schemas: their arguments, or results too [default: none]
    #[arg(long, value_parser = ["none", "arguments", "all"])]
    validate: Option<String>,
    /// Tell it who calls, by a signed token with every call [default: none]
    #[arg(long, value_parser = ["none", "jwt"])]
    identity: Option<String>,
    /// Header in which it reads that [default: X-Vaxel-Identity]
    #[arg(long, value_name = "NAME", requires = "identity")]
    identity_header: Option<String>,
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
    /// Tool calls that it takes in some time, by all callers together
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// The same, by each caller
    #[arg(long, value_name = "RATE")]
    caller_rate: Option<String>,
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

pub(super) async fn run(
    args: &AddArgs,
    client: &Client,
    context: &Context,
) -> anyhow::Result<ExitCode> {
    let source = match &args.template {
        Some(_) => overridden(args)?,
        None => Some(source(args)?),
    };
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let depends_on = (!args.depends_on.is_empty()).then(|| json!(args.depends_on));
    let rates = [
        ("rate", text(&args.rate)),
        ("caller_rate", text(&args.caller_rate)),
    ];
    let rates = rates
        .into_iter()
        .filter_map(|(key, rate)| Some((key.to_owned(), rate?)));
    let rates: Map<String, Value> = rates.collect();
    let given = [
        ("source", source),
        ("replicas", args.replicas.map(Value::from)),
        ("era", text(&args.era)),
        ("validate", text(&args.validate)),
        ("identity", identity(args)),
        ("depends_on", depends_on),
        ("health", args.health.clone()),
        ("balance", text(&args.balance)),
        ("idle_timeout", text(&args.idle_timeout)),
        ("limits", (!rates.is_empty()).then(|| rates.into())),
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

fn identity(args: &AddArgs) -> Option<Value> {
    Some(match (args.identity.as_deref()?, &args.identity_header) {
        ("jwt", None) => json!({ "jwt": {} }),
        ("jwt", Some(header)) => json!({ "jwt": { "header": header } }),
        (other, _) => other.into(),
    })
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
            if let Some(oauth) = &args.oauth {
                mcp["auth"] = json!({ "oauth": oauth });
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
