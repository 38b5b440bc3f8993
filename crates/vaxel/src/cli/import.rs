//! `vaxel import`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::Value;
use url::{Host, Url};
use vaxel_client::Client;
use vaxel_core::{
    import::{self, Imported},
    name::ServiceName,
    service::{ServiceDraft, Source},
};

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
    for issue in imported.refused.iter().chain(&imported.issues) {
        output::note(format!("note: {} {}", issue.path, issue.message));
    }
    let drafts = wanted(&imported.drafts, args)?;
    if args.dry_run {
        for draft in drafts {
            output::line(format!("would add {}: {}", draft.name, draft.spec.source));
        }
        return Ok(());
    }
    let client = context.client()?;
    let mut failed = 0;
    for draft in drafts {
        if is_own(draft, &client) {
            output::note(format!(
                "note: {} is this Vaxel itself: left out",
                draft.name
            ));
            continue;
        }
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
    match failed {
        0 => {}
        1 => bail!("one service was not added"),
        _ => bail!("{failed} services were not added"),
    }
    output::note("`vaxel ls` shows how they start");
    Ok(())
}

/// The drafts that `--only` names; all without it.
fn wanted<'a>(drafts: &'a [ServiceDraft], args: &Args) -> anyhow::Result<Vec<&'a ServiceDraft>> {
    let mut found = Vec::new();
    for only in &args.only {
        // The name as it stands in the file will do.
        let name = ServiceName::closest(only);
        let draft = drafts
            .iter()
            .find(|draft| Some(&draft.name) == name.as_ref());
        found.push(draft.with_context(|| {
            let names: Vec<&str> = drafts.iter().map(|draft| draft.name.as_str()).collect();
            format!(
                "there is no `{only}` in the file; it has: {}",
                names.join(", ")
            )
        })?);
    }
    Ok(if args.only.is_empty() {
        drafts.iter().collect()
    } else {
        found
    })
}

/// Whether a draft leads back to where it would be added.
fn is_own(draft: &ServiceDraft, client: &Client) -> bool {
    let Source::Mcp(mcp) = &draft.spec.source else {
        return false;
    };
    let is_here = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let base = client.base();
    Url::parse(&mcp.url).is_ok_and(|url| {
        let same_port = url.port_or_known_default() == base.port_or_known_default();
        url.origin() == base.origin() || (same_port && is_here(&url) && is_here(base))
    })
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
