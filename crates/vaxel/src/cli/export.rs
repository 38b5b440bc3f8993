//! `vaxel export`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Value, json};
use vaxel_client::segment;
use vaxel_core::bundle::escape;

use super::{Context, service::yaml};
use crate::output;

/// Where the management API has it.
const EXPORT: &str = "/api/v1/export";

#[derive(clap::Args)]
pub(super) struct Args {
    /// Names or ids of services; without any, all services and sets
    names: Vec<String>,
    /// In which form
    #[arg(long, value_enum, default_value_t = Form::Yaml)]
    format: Form,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write a folder instead: `active` and `archive` with a file per service, `sets`
    #[arg(long, value_name = "DIR", conflicts_with_all = ["names", "format", "output"])]
    folder: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Yaml,
    Json,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    if let Some(folder) = &args.folder {
        return write_folder(folder, context).await;
    }
    let names: Vec<String> = args.names.iter().map(|name| segment(name)).collect();
    let query = if names.is_empty() {
        String::new()
    } else {
        format!("?services={}", names.join(","))
    };
    let mut bundle: Value = context.client()?.get(&format!("{EXPORT}{query}")).await?;
    escape(&mut bundle);
    let text = match args.format {
        Form::Yaml => yaml(&bundle)?,
        Form::Json => pretty(&bundle)?,
    };
    match &args.output {
        Some(file) => write(file, &text)?,
        None => output::raw(&text),
    }
    Ok(())
}

async fn write_folder(folder: &Path, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    let mut active: Value = client.get(&format!("{EXPORT}?form=stage6")).await?;
    let mut archive: Value = client
        .get(&format!("{EXPORT}?form=stage6&deleted=true"))
        .await?;
    escape(&mut active);
    escape(&mut archive);
    let mut index = Vec::new();
    for one in list(&active["services"]) {
        index.push(json!({
            "service_id": one["service_id"], "service_name": one["service_name"],
            "name": one["name"], "status": one["status"],
            "file": format!("{}.json", text(&one["service_id"])),
        }));
    }
    let by_id = |one: &Value| format!("{}.json", text(&one["service_id"]));
    let by_name = |one: &Value| format!("{}.json", text(&one["name"]));
    let services = write_all(&folder.join("active"), &active["services"], by_id)?;
    write(
        &folder.join("active/index.json"),
        &pretty(&json!({ "services": index }))?,
    )?;
    write_all(&folder.join("archive"), &archive["services"], by_id)?;
    let sets = write_all(&folder.join("sets"), &active["toolsets"], by_name)?;
    write_all(&folder.join("templates"), &active["templates"], by_name)?;
    output::note(format!(
        "Wrote {services} services and {sets} sets to {}",
        folder.display()
    ));
    Ok(())
}

/// Writes each value to a file of its own, and removes what earlier exports left of others.
fn write_all(
    folder: &Path,
    values: &Value,
    name: impl Fn(&Value) -> String,
) -> anyhow::Result<usize> {
    let unusable = || format!("{} cannot be made", folder.display());
    fs::create_dir_all(folder).with_context(unusable)?;
    let mut written = Vec::new();
    for value in list(values) {
        let file = folder.join(name(value));
        write(&file, &pretty(value)?)?;
        written.push(file);
    }
    for entry in fs::read_dir(folder).with_context(unusable)?.flatten() {
        let file = entry.path();
        if !written.contains(&file) && is_ours(&file) {
            fs::remove_file(&file).with_context(|| format!("{} stays", file.display()))?;
        }
    }
    Ok(written.len())
}

/// Whether an export wrote this file: it is named by what it holds.
fn is_ours(file: &Path) -> bool {
    let Some(stem) = file.file_stem().and_then(|stem| stem.to_str()) else {
        return false;
    };
    let is_json = file.extension().is_some_and(|kind| kind == "json");
    let content =
        || -> Option<Value> { serde_json::from_str(&fs::read_to_string(file).ok()?).ok() };
    is_json
        && content().is_some_and(|one| {
            one["service_id"] == stem
                || (one["name"] == stem && one.get("spec").or(one.get("services")).is_some())
        })
}

fn list(values: &Value) -> impl Iterator<Item = &Value> {
    values.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn pretty(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)?)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let text = format!("{}\n", text.trim_end());
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
