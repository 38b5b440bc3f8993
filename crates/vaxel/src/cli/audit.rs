//! `vaxel audit …`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use vaxel_auth::{
    root::{self, RootKeys},
    stamp::{AuditKey, Unsealed},
};
use vaxel_client::{Client, segment};
use vaxel_core::audit::{
    chain::{Checker, Flaw, Stamp},
    export::{End, Head, Record},
};

use super::{Context, calls::time};
use crate::output;

/// What is said of a file whose key is elsewhere.
const NO_KEY: &str = "the key of this audit is not here: that its lines hold together was looked at, that nobody \
                      made all of them anew cannot be known";

#[derive(Subcommand)]
pub(super) enum Command {
    /// List lines, the newest first
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  vaxel audit list --since 7d --actor anna@example.com\n  vaxel audit list --action 'key.*' --json\n  vaxel audit list --outcome refused --resource files"
    )]
    List(Box<ListArgs>),
    /// Show one line with all that is known
    #[command(after_help = "Example:\n  vaxel audit show 42")]
    Show {
        /// Its number
        number: u64,
        #[command(flatten)]
        format: super::Format,
    },
    /// Write lines as JSON, one each, for `vaxel audit verify FILE`
    #[command(after_help = "Example:\n  vaxel audit export --since 30d > audit.jsonl")]
    Export {
        /// From then on: a time (RFC 3339), or how long ago, such as 30d
        #[arg(long, value_parser = time)]
        since: Option<String>,
        /// Until then, said in the same way
        #[arg(long, value_parser = time)]
        until: Option<String>,
    },
    /// Find out whether anybody changed, added or removed lines
    ///
    /// Says the first line that does not fit, and exits with 1. With a file no Vaxel has to run; whether the
    /// whole file was made anew can be known where the `root.key` of its Vaxel is, in the data directory.
    #[command(
        after_help = "Examples:\n  vaxel audit verify\n  vaxel audit verify audit.jsonl\n  vaxel --data-dir /var/lib/vaxel audit verify audit.jsonl"
    )]
    Verify {
        /// An export
        file: Option<PathBuf>,
        /// Go on behind this line, such as one that is known not to fit
        #[arg(
            long,
            default_value_t = 0,
            value_name = "NUMBER",
            conflicts_with = "file"
        )]
        after: u64,
        #[command(flatten)]
        format: super::Format,
    },
}

#[derive(clap::Args)]
pub(super) struct ListArgs {
    /// By the user of this name
    #[arg(long)]
    actor: Option<String>,
    /// With this action; `*` stands for any run of characters
    #[arg(long)]
    action: Option<String>,
    /// About something of this kind, such as service, key or user
    #[arg(long)]
    kind: Option<String>,
    /// About what has this name or id
    #[arg(long)]
    resource: Option<String>,
    /// `done`, `refused` or `failed`
    #[arg(long)]
    outcome: Option<String>,
    /// With this text anywhere
    #[arg(long)]
    text: Option<String>,
    /// Written then or later: a time (RFC 3339), or how long ago, such as 15m
    #[arg(long, value_parser = time)]
    since: Option<String>,
    /// Written before then, said in the same way
    #[arg(long, value_parser = time)]
    until: Option<String>,
    /// So many, the newest first
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    format: super::Format,
}

impl Command {
    pub(super) fn format(&self) -> super::Format {
        match self {
            Self::List(args) => args.format,
            Self::Show { format, .. } | Self::Verify { format, .. } => *format,
            Self::Export { .. } => super::Format::default(),
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(args) => list(&args, context).await?,
        Command::Show { number, .. } => show(number, context).await?,
        Command::Export { since, until } => export([since, until], context).await?,
        Command::Verify { file, after, .. } => {
            let (verdict, said) = match file {
                None => verify(&context.client()?, after).await?,
                Some(file) => verify_file(&file, &context.data_dir)?,
            };
            return Ok(tell(&verdict, &said, context));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &ListArgs, context: &Context) -> anyhow::Result<()> {
    let filters = [
        ("actor", &args.actor),
        ("action", &args.action),
        ("kind", &args.kind),
        ("resource", &args.resource),
        ("outcome", &args.outcome),
        ("text", &args.text),
        ("since", &args.since),
        ("until", &args.until),
    ];
    let given = filters.iter();
    let given =
        given.filter_map(|(key, value)| Some(format!("&{key}={}", segment(value.as_ref()?))));
    let filters: String = given.collect();
    let client = context.client()?;
    let mut items = Vec::new();
    let mut cursor = String::new();
    while items.len() < args.limit {
        let wanted = (args.limit - items.len()).min(500);
        let path = format!("/api/v1/audit?limit={wanted}{filters}{cursor}");
        let mut page: Value = client.get(&path).await?;
        if let Value::Array(found) = page["items"].take() {
            items.extend(found);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", segment(next)),
            None => break,
        }
    }
    if context.style.json {
        output::json(&items);
        return Ok(());
    }
    let mut table = output::table(&[
        "LINE", "AT", "ACTOR", "ACTION", "RESOURCE", "OUTCOME", "FROM",
    ]);
    for item in &items {
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        let resource = match (text("resource_kind"), text("resource_name")) {
            (kind, "") => kind.to_owned(),
            (kind, name) => format!("{kind} {name}"),
        };
        table.add_row(vec![
            output::number(&item["number"]),
            comfy_table::Cell::new(output::when(text("at"))),
            comfy_table::Cell::new(text("actor")),
            comfy_table::Cell::new(text("action")),
            comfy_table::Cell::new(resource),
            comfy_table::Cell::new(text("outcome")),
            comfy_table::Cell::new(format!("{} {}", text("door"), text("address"))),
        ]);
    }
    output::rows(table, context.style);
    Ok(())
}

async fn show(number: u64, context: &Context) -> anyhow::Result<()> {
    let line: Value = context
        .client()?
        .get(&format!("/api/v1/audit/{number}"))
        .await?;
    if context.style.json {
        output::json(&line);
        return Ok(());
    }
    for (name, value) in line.as_object().into_iter().flatten() {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => output::line(format!("{name:<15}{text}")),
            Value::Object(_) | Value::Array(_) => {
                output::line(format!("{name:<15}"));
                output::json(value);
            }
            other => output::line(format!("{name:<15}{other}")),
        }
    }
    Ok(())
}

async fn export([since, until]: [Option<String>; 2], context: &Context) -> anyhow::Result<()> {
    let mut query = Vec::new();
    for (key, value) in [("since", since), ("until", until)] {
        query.extend(value.map(|value| format!("{key}={}", segment(&value))));
    }
    let path = format!("/api/v1/audit/export?{}", query.join("&"));
    let mut coming = context.client()?.read_all(&path).await?;
    let mut out = std::io::stdout().lock();
    let mut last = Vec::new();
    while let Some(piece) = coming.next().await? {
        out.write_all(&piece)
            .context("the export cannot be written")?;
        last.extend_from_slice(&piece);
        last.drain(..last.len().saturating_sub(300));
    }
    out.flush().context("the export cannot be written")?;
    if !String::from_utf8_lossy(&last).contains("{\"end\":") {
        bail!("the export broke off before its end; repeat it");
    }
    Ok(())
}

/// Goes along the whole audit of a running Vaxel; the verdict, and what is said of it.
async fn verify(client: &Client, mut after: u64) -> anyhow::Result<(Value, String)> {
    let (mut lines, mut sealed) = (0, 0);
    let mut notes = Vec::new();
    loop {
        let path = format!("/api/v1/audit/verify?after={after}");
        let mut verdict: Value = client.post(&path, &json!({})).await?;
        lines += verdict["lines"].as_u64().unwrap_or(0);
        sealed += verdict["sealed"].as_u64().unwrap_or(0);
        if let Value::Array(more) = verdict["notes"].take() {
            notes.extend(
                more.into_iter()
                    .filter(|note| !notes.contains(note))
                    .collect::<Vec<_>>(),
            );
        }
        if let Some(next) = verdict["next"].as_u64() {
            if output::can_show_progress() {
                output::note(format!("{next} of {} lines", verdict["newest"]));
            }
            after = next;
            continue;
        }
        verdict["lines"] = lines.into();
        verdict["sealed"] = sealed.into();
        verdict["notes"] = notes.into();
        let said = format!(
            "The audit holds: {lines} lines, the newest is {}",
            verdict["newest"]
        );
        return Ok((verdict, said));
    }
}

/// The same for an export, without any Vaxel.
fn verify_file(file: &Path, data_dir: &Path) -> anyhow::Result<(Value, String)> {
    let name = file.display();
    let opened = File::open(file).with_context(|| format!("{name} cannot be read"))?;
    let mut lines = BufReader::new(opened).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let Ok(Record::Head(head)) = Record::read(&first) else {
        bail!("{name} is no export of the audit: `vaxel audit export` writes one");
    };
    let key = key_of(&head, data_dir);
    let mut notes = Vec::new();
    let (stamp, since): (&dyn Stamp, u64) = if let Some((key, since)) = &key {
        if head.after.number + 1 < *since {
            notes.push(format!(
                "lines before {since} are sealed with a key that is not here"
            ));
        }
        (key, *since)
    } else {
        notes.push(NO_KEY.to_owned());
        (&Unsealed, 0)
    };
    let mut checker = Checker::new(stamp, since, head.after);
    let mut flaw = None;
    match go_along(&mut checker, lines)? {
        Ok(end) if end.is_newest => notes.push(format!(
            "whether there were lines after {} later on is not in the file",
            head.at
        )),
        Ok(_) => notes.push("later lines were there already and are not in the file".to_owned()),
        Err(found) => flaw = Some(found),
    }
    let to = checker.at().number;
    let verdict = json!({
        "holds": flaw.is_none(), "lines": checker.lines, "sealed": checker.sealed, "to": to,
        "flaw": flaw, "notes": notes,
    });
    let said = format!("{name} holds: {} lines, the last is {to}", checker.lines);
    Ok((verdict, said))
}

/// Checks what follows the head, to the end of the file.
fn go_along(
    checker: &mut Checker<'_>,
    lines: impl Iterator<Item = std::io::Result<String>>,
) -> std::io::Result<Result<End, Flaw>> {
    let mut end = None;
    for line in lines {
        let next = checker.at().number + 1;
        if end.is_some() {
            return Ok(Err(Flaw::new(
                next,
                "something follows the end of the file",
            )));
        }
        let record = Record::read(&line?).map_err(|_| Flaw::new(next, "it cannot be read"));
        let checked = record.and_then(|record| Ok((record.check(checker)?, record)));
        match checked {
            Ok((true, Record::End(found))) => end = Some(found),
            Ok(_) => {}
            Err(flaw) => return Ok(Err(flaw)),
        }
    }
    let next = checker.at().number + 1;
    Ok(end.ok_or_else(|| Flaw::new(next, "the file was cut off before its end")))
}

/// The newest key that the root key of a data directory opens, and the first line that it sealed.
fn key_of(head: &Head, data_dir: &Path) -> Option<(AuditKey, u64)> {
    if !data_dir.join(root::FILE).exists() {
        return None;
    }
    let sealer = RootKeys::load_or_create(data_dir)
        .ok()?
        .sealer(vaxel_control::VALUES);
    let mut keys = head.keys.iter().rev();
    keys.find_map(|key| {
        let opened = vaxel_control::open_audit_key(&sealer, (key.since, &key.sealed)).ok()?;
        Some((opened, key.since))
    })
}

fn tell(verdict: &Value, said: &str, context: &Context) -> ExitCode {
    let holds = verdict["flaw"].is_null();
    if context.style.json {
        output::json(verdict);
    } else {
        if holds {
            output::line(said);
        } else {
            let flaw = &verdict["flaw"];
            let what = flaw["what"].as_str().unwrap_or_default();
            output::line(format!(
                "The audit does not hold: line {}: {what}",
                flaw["number"]
            ));
        }
        for note in verdict["notes"].as_array().into_iter().flatten() {
            output::line(format!("note: {}", note.as_str().unwrap_or_default()));
        }
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(output::FAILED)
    }
}
