//! `vaxel apply`.

use std::time::Duration;

use anyhow::bail;
use comfy_table::Color;
use serde_json::Value;
use vaxel_client::{Client, Error, segment};

use super::{Context, Why, documents::Documents};
use crate::{
    output::{self, Style},
    paths,
};

/// Longest wait: each service is a write of its own.
const TIMEOUT: Duration = Duration::from_mins(10);

#[derive(clap::Args)]
pub(super) struct Args {
    /// File with services and sets, YAML or JSON; a folder of such files; `-` for standard input
    #[arg(short, long, required = true, value_name = "FILE|DIR|-")]
    file: Vec<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Remove services with the tag of --tag that stand in none of the files; they go to the archive
    #[arg(long, requires = "tag")]
    prune: bool,
    /// Which services --prune may remove
    #[arg(long, visible_alias = "label", value_name = "TAG", requires = "prune")]
    tag: Option<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    pub(super) format: super::Format,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let documents = Documents::read(&args.file, &paths::environment())?;
    for note in &documents.notes {
        output::note(format!("note: {note}"));
    }
    if documents.is_empty() && documents.problems.is_empty() {
        bail!("there is no service and no set in {}", args.file.join(", "));
    }
    let dry_run = args.dry_run || !documents.problems.is_empty();
    let client = context.client()?.with_timeout(TIMEOUT);
    let answer = ask(args, &documents, (&client, dry_run)).await;
    let problems = match &answer {
        Err(Error::Problem(problem)) if !problem.errors.is_empty() => {
            let server = problem.errors.iter().map(|one| documents.place(one));
            documents.problems.iter().cloned().chain(server).collect()
        }
        _ => documents.problems.clone(),
    };
    if !problems.is_empty() {
        let plural = if problems.len() == 1 { "" } else { "s" };
        let count = problems.len();
        bail!(
            "{count} problem{plural}, nothing was written:\n  {}",
            problems.join("\n  ")
        );
    }
    let answer = answer?;
    if context.style.json {
        output::json(&answer);
    } else {
        show(&answer, context.style);
    }
    Ok(())
}

async fn ask(
    args: &Args,
    documents: &Documents,
    (client, dry_run): (&Client, bool),
) -> Result<Value, Error> {
    let mut query = vec![format!("dry_run={dry_run}")];
    query.extend(
        args.tag
            .as_ref()
            .map(|tag| format!("prune={}", segment(tag))),
    );
    let message = args.why.message.as_ref();
    query.extend(message.map(|text| format!("message={}", segment(text))));
    let path = format!("/api/v1/apply?{}", query.join("&"));
    client.post(&path, &documents.bundle()).await
}

fn show(answer: &Value, style: Style) {
    let mut counts = [
        ("create", 0),
        ("update", 0),
        ("delete", 0),
        ("unchanged", 0),
    ];
    for step in answer["steps"].as_array().into_iter().flatten() {
        let action = step["action"].as_str().unwrap_or_default();
        for (name, count) in &mut counts {
            *count += usize::from(*name == action);
        }
        let (sign, colour) = match action {
            "create" => ("+", Color::Green),
            "update" => ("~", Color::Yellow),
            "delete" => ("-", Color::Red),
            _ => continue,
        };
        let kind = match step["resource"].as_str() {
            Some("toolset") => "set",
            Some(kind) => kind,
            None => "",
        };
        let name = step["name"].as_str().unwrap_or_default();
        output::line(output::coloured(
            &format!("{sign} {kind} {name}"),
            colour,
            style,
        ));
        for difference in step["differences"].as_array().into_iter().flatten() {
            show_difference(difference, style);
        }
    }
    let [created, updated, removed, unchanged] = counts.map(|(_, count)| count);
    output::note(if answer["dry_run"] == true {
        format!(
            "Nothing was written; it would be {created} to create, {updated} to update, {removed} to \
             remove, {unchanged} as they are"
        )
    } else {
        format!("{created} created, {updated} updated, {removed} removed, {unchanged} as they were")
    });
}

fn show_difference(difference: &Value, style: Style) {
    let path = difference["path"].as_str().unwrap_or_default();
    let (old, new) = (&difference["old"], &difference["new"]);
    let (line, colour) = match difference["change"].as_str() {
        Some("added") => (format!("    + {path}: {new}"), Color::Green),
        Some("removed") => (format!("    - {path}: {old}"), Color::Red),
        _ => (format!("    ~ {path}: {old} → {new}"), Color::Yellow),
    };
    output::line(output::coloured(&line, colour, style));
}
