//! `vaxel config …`.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use serde_json::{Value, json};

use super::Context;
use crate::{
    config::{MANUAL, Merged, Sources},
    output, paths,
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print every effective value and where it comes from
    #[command(after_help = "Example:\n  vaxel config show")]
    Show {
        /// Configuration file [default: config.toml in the data directory, else in ~/.config/vaxel]
        #[arg(long)]
        config: Option<PathBuf>,
        #[command(flatten)]
        format: super::Format,
    },
    /// Name every problem of the configuration
    #[command(after_help = "Example:\n  vaxel config check vaxel.toml")]
    Check {
        /// Configuration file [default: config.toml in the data directory, else in ~/.config/vaxel]
        file: Option<PathBuf>,
    },
    /// Print the manual: every key with its default
    #[command(after_help = "Example:\n  vaxel config manual > config.toml")]
    Manual,
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        match self {
            Self::Show { format, .. } => *format,
            Self::Check { .. } | Self::Manual => super::Format { json: false },
        }
    }
}

pub(super) fn run(command: &Command, context: &Context) -> ExitCode {
    match command {
        Command::Show { config, .. } => show(config.clone(), context),
        Command::Check { file } => return check(file.clone(), context),
        Command::Manual => output::raw(MANUAL),
    }
    ExitCode::SUCCESS
}

fn merged(file: Option<PathBuf>, context: &Context) -> Merged {
    let merged = Merged::of(&Sources {
        file,
        data_dir: context.data_dir.clone(),
        env: paths::environment(),
        flags: Vec::new(),
    });
    for note in merged.notes() {
        output::note(format!("note: {note}"));
    }
    merged
}

fn show(file: Option<PathBuf>, context: &Context) {
    let merged = merged(file, context);
    if context.style.json {
        let entries: Vec<Value> = merged
            .layers()
            .entries()
            .map(|(key, value, origin)| {
                json!({"key": key, "value": shown(key, value), "origin": origin.to_string()})
            })
            .collect();
        return output::json(&entries);
    }
    let mut table = output::table(&["KEY", "VALUE", "FROM"]);
    for (key, value, origin) in merged.layers().entries() {
        let value = shown(key, value).to_string();
        table.add_row([key.to_owned(), value, origin.to_string()]);
    }
    output::rows(table, context.style);
}

/// A value without its secret part; what cannot be read may be nothing but secret.
fn shown(key: &str, value: &Value) -> Value {
    match value.as_str() {
        Some(text) if key == "store.url" && !text.is_empty() => {
            let url = text.parse::<vaxel_store::DatabaseUrl>();
            url.map_or_else(|_| "[secret]".to_owned(), |url| url.to_string())
                .into()
        }
        Some(text) if key == "oauth.issuer_secret" && !text.is_empty() => "[secret]".into(),
        _ => value.clone(),
    }
}

fn check(file: Option<PathBuf>, context: &Context) -> ExitCode {
    match merged(file, context).resolve(&context.data_dir) {
        Ok(_) => {
            output::note("The configuration has no problem");
            ExitCode::SUCCESS
        }
        Err(issues) => {
            for issue in &issues {
                output::line(format!("{}: {}", issue.path, issue.message));
            }
            ExitCode::from(output::FAILED)
        }
    }
}
