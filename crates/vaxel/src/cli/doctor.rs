//! `vaxel doctor`: looks at what usually goes wrong.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use serde_json::{Value, json};
use vaxel_client::Local;
use vaxel_core::time::{Clock, Timestamp};

use super::{Context, service::all_pages};
use crate::{
    certificate::{self, Pair},
    config::{Config, Merged, Sources},
    output, paths,
};

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Error,
}

struct Check {
    what: &'static str,
    verdict: Verdict,
    detail: String,
}

impl Check {
    fn new(what: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            what,
            verdict,
            detail: detail.into(),
        }
    }
}

pub(super) async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let mut checks = vec![data_dir(&context.data_dir)];
    let (configuration, config) = configuration(context);
    checks.push(configuration);
    match Local::find(&context.data_dir) {
        Some(local) => checks.extend(running(&local, context).await),
        None => checks.extend(stopped(config).await),
    }
    checks.extend(programs());
    checks.push(isolation());
    report(&checks, context);
    let bad = checks.iter().any(|check| check.verdict == Verdict::Error);
    Ok(ExitCode::from(if bad { output::FAILED } else { 0 }))
}

fn report(checks: &[Check], context: &Context) {
    let word = |verdict| match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "degraded",
        Verdict::Error => "error",
    };
    if context.style.json {
        let list: Vec<Value> = checks
            .iter()
            .map(|one| json!({"check": one.what, "verdict": word(one.verdict), "detail": one.detail}))
            .collect();
        return output::json(&list);
    }
    let mut table = output::table(&["CHECK", "", "DETAIL"]);
    for check in checks {
        let row = vec![
            comfy_table::Cell::new(check.what),
            output::state(word(check.verdict), context.style),
            comfy_table::Cell::new(&check.detail),
        ];
        table.add_row(row);
    }
    output::rows(table, context.style);
}

fn data_dir(dir: &Path) -> Check {
    const WHAT: &str = "data directory";
    let shown = dir.display();
    match std::fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::new(WHAT, Verdict::Ok, format!("{shown} does not exist yet"))
        }
        Err(error) => Check::new(
            WHAT,
            Verdict::Error,
            format!("{shown} cannot be read ({error})"),
        ),
        Ok(facts) if facts.permissions().mode() & 0o077 != 0 => {
            let detail = format!("{shown} can be read by others; chmod 700 {shown}");
            Check::new(WHAT, Verdict::Warning, detail)
        }
        Ok(_) => Check::new(WHAT, Verdict::Ok, shown.to_string()),
    }
}

fn configuration(context: &Context) -> (Check, Option<Config>) {
    let merged = Merged::of(&Sources {
        file: None,
        data_dir: context.data_dir.clone(),
        env: paths::environment(),
        flags: Vec::new(),
    });
    match merged.resolve(&context.data_dir) {
        Ok(config) => {
            let check = Check::new("configuration", Verdict::Ok, "no problem");
            (check, Some(config))
        }
        Err(issues) => {
            let detail = format!("{} problems; see `vaxel config check`", issues.len());
            (Check::new("configuration", Verdict::Error, detail), None)
        }
    }
}

async fn running(local: &Local, context: &Context) -> Vec<Check> {
    let mut checks = vec![Check::new(
        "server",
        Verdict::Ok,
        format!("runs as process {} at {}", local.pid, local.url),
    )];
    if let Ok(client) = context.client()
        && let Ok(status) = client.get::<Value>("/api/v1/status").await
    {
        checks.push(running_database(&status));
        checks.extend(left_out(&status));
        let problem = status["audit_problem"].as_str();
        checks.extend(problem.map(|problem| Check::new("audit", Verdict::Error, problem)));
        checks.extend(running_certificate(&status));
    }
    let services = match context.client() {
        Ok(client) => all_pages(&client, "/api/v1/services", &[]).await,
        Err(error) => Err(error),
    };
    match services {
        Err(error) => {
            checks.push(Check::new(
                "management API",
                Verdict::Error,
                error.to_string(),
            ));
        }
        Ok(services) => {
            let sick: Vec<String> = services
                .iter()
                .filter(|service| service["status"]["lifecycle"] == "error")
                .map(|service| {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    format!(
                        "{}: {}",
                        text(&service["name"]),
                        text(&service["status"]["reason"])
                    )
                })
                .collect();
            checks.push(if sick.is_empty() {
                Check::new(
                    "services",
                    Verdict::Ok,
                    format!("{} in all", services.len()),
                )
            } else {
                Check::new("services", Verdict::Error, sick.join("\n"))
            });
        }
    }
    checks
}

async fn stopped(config: Option<Config>) -> Vec<Check> {
    let mut checks = vec![Check::new(
        "server",
        Verdict::Warning,
        "does not run; `vaxel up` starts it",
    )];
    let Some(config) = config else {
        return checks;
    };
    let listen = config.server.listen;
    checks.push(match TcpListener::bind(listen) {
        Ok(_) => Check::new("address", Verdict::Ok, format!("{listen} is free")),
        Err(error) => Check::new(
            "address",
            Verdict::Error,
            format!("{listen} cannot be used ({error})"),
        ),
    });
    checks.extend(config.tls.as_ref().map(certificate_of));
    if config.store.url.is_some() || config.data_dir.join("vaxel.db").exists() {
        checks.push(database(&config.store).await);
    }
    checks
}

const DATABASE: &str = "database";

async fn database(config: &vaxel_store::Config) -> Check {
    let store = match vaxel_store::Store::open(config) {
        Ok(store) => store,
        Err(error) => return Check::new(DATABASE, Verdict::Error, error.to_string()),
    };
    let stats = store.stats();
    let check = match store.check().await {
        Ok(problems) if problems.is_empty() => {
            let detail = format!("sound; {} {}, {}", stats.engine, stats.version, stats.place);
            Check::new(DATABASE, Verdict::Ok, detail)
        }
        Ok(problems) => Check::new(DATABASE, Verdict::Error, problems.join("\n")),
        Err(error) => Check::new(DATABASE, Verdict::Error, error.to_string()),
    };
    store.close().await;
    check
}

/// What a running server says of its own.
fn running_database(status: &Value) -> Check {
    let text = |key: &str| status["store"][key].as_str().unwrap_or_default();
    match text("problem") {
        "" => {
            let detail = format!("{} {}, {}", text("engine"), text("version"), text("place"));
            Check::new(DATABASE, Verdict::Ok, detail)
        }
        problem => Check::new(DATABASE, Verdict::Error, problem),
    }
}

const CERTIFICATE: &str = "certificate";
/// One that ends sooner is worth a word.
const SOON: Duration = Duration::from_hours(14 * 24);

/// The files that a server would use.
fn certificate_of(pair: &Pair) -> Check {
    if pair.made_for.is_some() && !pair.cert.exists() {
        return Check::new(CERTIFICATE, Verdict::Ok, "made at the first start");
    }
    let now = Clock::system().now();
    match pair.read(now) {
        Ok(read) => {
            let facts = read.facts();
            dated(facts.until, now)
        }
        Err(_) if pair.made_for.is_some() => {
            Check::new(CERTIFICATE, Verdict::Ok, "made anew at the next start")
        }
        Err(problems) => Check::new(CERTIFICATE, Verdict::Error, problems.join("\n")),
    }
}

/// What a running server shows its clients.
fn running_certificate(status: &Value) -> Option<Check> {
    let tls = status["tls"].as_object()?;
    if let Some(problem) = tls.get("problem").and_then(Value::as_str) {
        let detail = format!("the files are not used, the one before them still is: {problem}");
        return Some(Check::new(CERTIFICATE, Verdict::Error, detail));
    }
    let until: Timestamp = serde_json::from_value(tls.get("until")?.clone()).ok()?;
    let now = Clock::system().now();
    Some(dated(until, now))
}

fn dated(until: Timestamp, now: Timestamp) -> Check {
    let verdict = match until {
        until if until < now => Verdict::Error,
        until if until < now.plus(SOON) => Verdict::Warning,
        _ => Verdict::Ok,
    };
    Check::new(CERTIFICATE, verdict, certificate::ends(until, now))
}

/// What is stored there and cannot be read.
fn left_out(status: &Value) -> Option<Check> {
    let rows = status["left_out"].as_array()?;
    let rows: Vec<&str> = rows.iter().filter_map(Value::as_str).collect();
    let found = Check::new("stored data", Verdict::Error, rows.join("\n"));
    (!rows.is_empty()).then_some(found)
}

fn programs() -> Vec<Check> {
    let env = paths::environment();
    let path = env.get("PATH").cloned().unwrap_or_default();
    let find = |name: &str| {
        path.split(':')
            .map(|dir| PathBuf::from(dir).join(name))
            .find(|file| file.is_file())
    };
    [
        ("node", "Node servers"),
        ("npx", "`npx` servers"),
        ("python3", "Python servers"),
        ("uvx", "`uvx` servers"),
    ]
    .into_iter()
    .map(|(name, needed)| match find(name) {
        Some(file) => Check::new(name, Verdict::Ok, file.display().to_string()),
        None => Check::new(
            name,
            Verdict::Warning,
            format!("not in PATH; {needed} need it"),
        ),
    })
    .collect()
}

/// Asks the shim, which tries it, since that is what starts every service.
fn isolation() -> Check {
    const WHAT: &str = "isolation";
    let probe = std::env::current_exe().and_then(|program| {
        std::process::Command::new(program)
            .args(["shim", "probe"])
            .status()
    });
    match probe.map(|exit| exit.code()) {
        Ok(Some(code)) if code > 0 => {
            Check::new(WHAT, Verdict::Ok, "services cannot see the data directory")
        }
        Ok(_) => Check::new(
            WHAT,
            Verdict::Warning,
            "namespaces are refused here: the data directory is hidden by Landlock where the \
             kernel has it; `vaxel service show` says what came of it",
        ),
        Err(error) => Check::new(
            WHAT,
            Verdict::Warning,
            format!("could not be tried ({error})"),
        ),
    }
}
