//! `vaxel import`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::Value;
use vaxel_core::import::{self, Imported};

use super::Context;
use crate::output;

#[derive(clap::Args)]
pub(super) struct Args {
    /// A client's configuration: any file with `mcpServers` or `servers`, JSON or TOML
    file: PathBuf,
    /// Only say what would be added
    #[arg(long)]
    dry_run: bool,
    /// Only these
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.file)
        .with_context(|| format!("{} cannot be read", args.file.display()))?;
    let imported = read(&text, args)
        .map_err(|error| anyhow::anyhow!("{} cannot be imported: {error}", args.file.display()))?;
    for issue in &imported.issues {
        output::note(format!("note: {} {}", issue.path, issue.message));
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let drafts = imported
        .drafts
        .iter()
        .filter(|draft| wanted(draft.name.as_str()));
    if args.dry_run {
        for draft in drafts {
            output::line(format!("would add {}: {}", draft.name, draft.spec.source));
        }
        return Ok(());
    }
    let client = context.client()?;
    let mut failed = 0;
    for draft in drafts {
        match client.post::<Value>("/api/v1/services", draft).await {
            Ok(_) => output::line(format!("added {}: {}", draft.name, draft.spec.source)),
            Err(vaxel_client::Error::Problem(problem)) => {
                failed += 1;
                output::note(format!("not added: {}: {}", draft.name, problem.detail));
                for issue in &problem.errors {
                    output::note(format!("  {}: {}", issue.path, issue.message));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    if failed > 0 {
        bail!("{failed} services were not added");
    }
    output::note("`vaxel ls` shows how they start");
    Ok(())
}

fn read(text: &str, args: &Args) -> Result<Imported, String> {
    if args
        .file
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
        let value = serde_json::to_value(table).map_err(|error| error.to_string())?;
        return import::from_value(&value);
    }
    import::import(text)
}
