//! `vaxel template …`, and services from templates.

use std::{fs, io::Read, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use vaxel_client::{Client, segment};

use super::{
    Context, Why,
    add::absolute,
    edit::{self, Subject},
    service::yaml,
};
use crate::output;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List templates
    #[command(visible_alias = "list", after_help = "Example:\n  vaxel template ls")]
    Ls(super::Format),
    /// Show a template with every parameter that it takes
    #[command(after_help = "Example:\n  vaxel template show filesystem")]
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// Add a template from a file
    #[command(
        after_help = "Examples:\n  vaxel template add team-files.yaml\n  vaxel template add --approve team-files.json\n  vaxel template show filesystem | vaxel template add --name my-files -\n\nA template:\n  name: team-files\n  parameters:\n    team: { type: string, required: true, pattern: '[a-z]+' }\n  extends: { template: filesystem, with: { root: '/srv/${team}' } }\n  spec:\n    limits: { memory: 256MiB }"
    )]
    Add {
        /// YAML or JSON; `-` reads standard input
        file: PathBuf,
        /// Another name than the one in the file
        #[arg(long)]
        name: Option<String>,
        /// Let callers without `host:execute` start programs by it
        #[arg(long)]
        approve: bool,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        format: super::Format,
    },
    /// Change a template in your editor
    #[command(after_help = "Example:\n  EDITOR=vi vaxel template edit team-files")]
    Edit {
        /// Name
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// Remove templates; services that were made from them stay as they are
    #[command(
        visible_alias = "remove",
        after_help = "Example:\n  vaxel template rm team-files"
    )]
    Rm {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        why: Why,
    },
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        match self {
            Self::Ls(format) | Self::Show { format, .. } | Self::Add { format, .. } => *format,
            Self::Edit { .. } | Self::Rm { .. } => super::Format { json: false },
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match command {
        Command::Ls(_) => list(&client.get("/api/v1/templates").await?, context),
        Command::Show { name, .. } => {
            let template: Value = client.get(&path(&name)).await?;
            if context.style.json {
                output::json(&template);
            } else {
                output::raw(&yaml(&template)?);
            }
        }
        Command::Add {
            file,
            name,
            approve,
            why,
            ..
        } => add((&file, &why), (name, approve), &client, context).await?,
        Command::Edit { name, why } => {
            let subject = Subject {
                what: "template",
                hint: "Services that were made from it stay as they are until they are refreshed.",
                path: path(&name),
                editable,
                why,
            };
            edit::run(&name, &subject, &client).await?;
        }
        Command::Rm { names, why } => {
            for name in names {
                client.delete(&why.on(path(&name))).await?;
                output::note(format!("Removed the template {name}"));
            }
        }
    }
    Ok(())
}

fn path(name: &str) -> String {
    format!("/api/v1/templates/{}", segment(name))
}

/// The parts of a template that a person can change.
fn editable(template: &Value) -> Value {
    let keys = [
        "name",
        "description",
        "approved",
        "parameters",
        "extends",
        "spec",
    ];
    let given = keys.into_iter().filter(|key| !template[*key].is_null());
    given
        .map(|key| (key.to_owned(), template[key].clone()))
        .collect::<Map<_, _>>()
        .into()
}

async fn add(
    (file, why): (&PathBuf, &Why),
    (name, approve): (Option<String>, bool),
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input cannot be read")?;
    } else {
        text = fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
    }
    // JSON is YAML.
    let template: Value = serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is neither YAML nor JSON", file.display()))?;
    let mut template = match template {
        // What `template show` prints can be added again.
        shown if shown["accepts"].is_object() => editable(&shown),
        other => other,
    };
    if let Some(object) = template.as_object_mut() {
        object.extend(name.map(|name| ("name".to_owned(), name.into())));
        if approve {
            object.insert("approved".to_owned(), true.into());
        }
    }
    let made: Value = client
        .post(&why.on("/api/v1/templates".to_owned()), &template)
        .await?;
    if context.style.json {
        output::json(&made);
    } else {
        let name = made["name"].as_str().unwrap_or_default();
        output::note(format!(
            "Added the template {name}; next: vaxel service add NAME --template {name}{}",
            needed(&made)
        ));
    }
    Ok(())
}

/// `--set` for each parameter that must be given.
fn needed(template: &Value) -> String {
    let accepts = template["accepts"].as_object().into_iter().flatten();
    let needed = accepts.filter(|(_, parameter)| parameter["required"] == true);
    let flags: Vec<String> = needed.map(|(name, _)| format!(" --set {name}=…")).collect();
    flags.concat()
}

fn list(page: &Value, context: &Context) {
    if context.style.json {
        return output::json(&page["items"]);
    }
    let mut table = output::table(&["NAME", "KIND", "PARAMETERS", "DESCRIPTION"]);
    for item in page["items"].as_array().into_iter().flatten() {
        let accepts = item["accepts"].as_object().into_iter().flatten();
        let parameters: Vec<String> = accepts
            .map(|(name, parameter)| match &parameter["required"] {
                Value::Bool(true) => name.clone(),
                _ => format!("[{name}]"),
            })
            .collect();
        let kind = match (item["builtin"] == true, item["approved"] == true) {
            (true, _) => "builtin",
            (false, true) => "own, approved",
            (false, false) => "own",
        };
        table.add_row([
            item["name"].as_str().unwrap_or_default(),
            kind,
            &parameters.join(" "),
            item["description"].as_str().unwrap_or_default(),
        ]);
    }
    output::rows(table, context.style);
}

/// `extends` of a draft: the template, and what `--set` says, typed as the template wants it.
pub(super) async fn extends(
    template: &str,
    sets: &[String],
    client: &Client,
) -> anyhow::Result<Value> {
    let known: Value = client.get(&path(template)).await?;
    let mut with = Map::new();
    for set in sets {
        let Some((name, text)) = set.split_once('=') else {
            bail!("--set takes PARAMETER=VALUE, not `{set}`");
        };
        // What does not fit goes as it is: Vaxel says what is wrong with it, and with the others.
        let value = match known["accepts"][name]["type"].as_str() {
            Some("integer") => text
                .parse::<i64>()
                .map_or_else(|_| text.into(), Value::from),
            Some("boolean") => text
                .parse::<bool>()
                .map_or_else(|_| text.into(), Value::from),
            Some("path") => absolute(text)?.into(),
            _ => text.into(),
        };
        if with.insert(name.to_owned(), value).is_some() {
            bail!("--set {name} is given twice");
        }
    }
    Ok(json!({ "template": template, "with": with }))
}
