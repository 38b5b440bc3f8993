//! `vaxel service history`, `diff`, `rollback`, `label` and `purge`.

use clap::Subcommand;
use serde_json::{Value, json};
use vaxel_client::{Client, segment};

use super::{
    Context, Why,
    service::{all_pages, path, yaml},
};
use crate::output;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show who wanted what of a service, when and why
    #[command(
        after_help = "Examples:\n  vaxel service history everything\n  vaxel service history everything --revision 2"
    )]
    History {
        /// Name or id
        name: String,
        /// All that one revision says: its number, its label or `current`
        #[arg(long, value_name = "REVISION")]
        revision: Option<String>,
        #[command(flatten)]
        format: super::Format,
    },
    /// Show what differs between two revisions of a service
    #[command(
        after_help = "Examples:\n  vaxel service diff everything\n  vaxel service diff everything known-good current"
    )]
    Diff {
        /// Name or id
        name: String,
        /// Number or label; default is the one before the other
        from: Option<String>,
        /// Number or label; default is the current one
        to: Option<String>,
        #[command(flatten)]
        format: super::Format,
    },
    /// Go back to an earlier revision of a service
    #[command(
        after_help = "Example:\n  vaxel service rollback everything known-good -m 'the new one leaks'"
    )]
    Rollback {
        /// Name or id
        name: String,
        /// Number or label
        to: String,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        format: super::Format,
    },
    /// Give a revision of a service a name
    #[command(
        after_help = "Examples:\n  vaxel service label everything known-good\n  vaxel service label everything known-good 3\n  vaxel service label everything known-good --remove"
    )]
    Label {
        /// Name or id
        name: String,
        /// a-z, 0-9, `-`, `_` and `.`, beginning with a letter
        label: String,
        /// Number or label of the revision
        #[arg(default_value = "current", conflicts_with = "remove")]
        revision: String,
        /// No revision should have the label any more
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Remove services that were removed before for good
    #[command(after_help = "Example:\n  vaxel service purge everything")]
    Purge {
        /// Names or ids
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        match self {
            Self::History { format, .. }
            | Self::Diff { format, .. }
            | Self::Rollback { format, .. } => *format,
            Self::Label { .. } | Self::Purge { .. } => super::Format { json: false },
        }
    }
}

pub(super) async fn run(
    command: Command,
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    match command {
        Command::History {
            name,
            revision: Some(revision),
            ..
        } => {
            let place = format!("/revisions/{}", segment(&revision));
            let found: Value = client.get(&path(&name, &place)).await?;
            if context.style.json {
                output::json(&found);
            } else {
                output::raw(&yaml(&found)?);
            }
        }
        Command::History {
            name,
            revision: None,
            ..
        } => history(&name, client, context).await?,
        Command::Diff { name, from, to, .. } => diff(&name, (from, to), (client, context)).await?,
        Command::Rollback { name, to, why, .. } => {
            let place = why.on(path(&name, "/rollback"));
            let service: Value = client.post(&place, &json!({ "to": to })).await?;
            if context.style.json {
                output::json(&service);
            } else {
                let revision = &service["revision"];
                output::note(format!(
                    "{name} is as it was in {to}, as revision {revision}"
                ));
            }
        }
        Command::Label {
            name,
            label,
            revision,
            remove,
            why,
        } => {
            let place = why.on(path(&name, &format!("/labels/{}", segment(&label))));
            if remove {
                client.delete(&place).await?;
                output::note(format!("No revision of {name} is called {label} any more"));
            } else {
                client
                    .put::<Value>(&place, &json!({ "revision": revision }), None)
                    .await?;
                output::note(format!("Revision {revision} of {name} is called {label}"));
            }
        }
        Command::Purge { names, why } => {
            for name in names {
                client
                    .post::<Value>(&why.on(path(&name, "/purge")), &Value::Null)
                    .await?;
                output::note(format!("Removed {name} for good"));
            }
        }
    }
    Ok(())
}

async fn history(name: &str, client: &Client, context: &Context) -> anyhow::Result<()> {
    let items = all_pages(client, &path(name, "/revisions"), &[]).await?;
    if context.style.json {
        output::json(&items);
        return Ok(());
    }
    let mut table = output::table(&["REVISION", "LABELS", "AT", "BY", "ACTION", "WHY"]);
    for item in &items {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let labels = item["labels"].as_array().into_iter().flatten();
        let mut labels: Vec<&str> = labels.filter_map(Value::as_str).collect();
        if item["current"] == true {
            labels.insert(0, "current");
        }
        table.add_row(vec![
            output::number(&item["revision"]),
            comfy_table::Cell::new(labels.join(", ")),
            comfy_table::Cell::new(output::when(&text("created_at"))),
            comfy_table::Cell::new(text("author")),
            comfy_table::Cell::new(text("action")),
            comfy_table::Cell::new(text("message")),
        ]);
    }
    output::rows(table, context.style);
    Ok(())
}

async fn diff(
    name: &str,
    (from, to): (Option<String>, Option<String>),
    (client, context): (&Client, &Context),
) -> anyhow::Result<()> {
    let one = |key: &str, value: &Option<String>| {
        value
            .as_ref()
            .map(|value| format!("{key}={}", segment(value)))
    };
    let query: Vec<String> = [one("from", &from), one("to", &to)]
        .into_iter()
        .flatten()
        .collect();
    let place = format!("/diff?{}", query.join("&"));
    let diff: Value = client.get(&path(name, &place)).await?;
    if context.style.json {
        output::json(&diff);
        return Ok(());
    }
    output::line(format!("revision {} → {}", diff["from"], diff["to"]));
    for item in diff["differences"].as_array().into_iter().flatten() {
        output::line(item["path"].as_str().unwrap_or_default());
        for (sign, key) in [("-", "old"), ("+", "new")] {
            if let Some(value) = item.get(key) {
                output::line(format!("  {sign} {value}"));
            }
        }
    }
    Ok(())
}
