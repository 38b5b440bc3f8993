//! `vaxel store …`: what is stored, while no server runs.

use std::path::PathBuf;

use anyhow::bail;
use clap::Subcommand;
use vaxel_client::Local;
use vaxel_store::{Config, DatabaseUrl, Moved};

use super::Context;
use crate::{
    config::{Merged, Sources},
    output, paths,
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Copy everything that is stored to an empty database or directory; Vaxel must not run
    ///
    /// What is stored where the configuration says (services, keys, audit, calls) is copied and checked;
    /// it also stays where it is. The root key, which opens sealed values, and the logs of services stay in
    /// the data directory.
    #[command(
        after_help = "Examples:\n  vaxel store move --to postgres://vaxel:password@db.example.com/vaxel\n  vaxel store move --to ~/.local/share/vaxel"
    )]
    Move {
        /// URL of an empty PostgreSQL database, or a directory for files (SQLite)
        #[arg(
            long,
            value_name = "URL|DIR",
            env = "VAXEL_MOVE_TO",
            hide_env_values = true
        )]
        to: String,
        /// Configuration file that says where it is now [default: as of `vaxel up`]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let Command::Move { to, config } = command;
    if let Some(local) = Local::find(&context.data_dir) {
        bail!(
            "Vaxel runs (process {}) and would write on; stop it with `vaxel down`, then move",
            local.pid
        );
    }
    let from = configured(config, context)?;
    if from.url.is_none() && !vaxel_store::has_files(&from.dir) {
        bail!(
            "nothing is stored in {}: there is nothing to move",
            from.dir.display()
        );
    }
    let to = target(&to, &from)?;
    output::note(format!("From {}", place(&from)));
    output::note(format!("To   {}", place(&to)));
    let moved = vaxel_store::transfer(&from, &to, tell).await?;
    let rows: u64 = moved.iter().map(|moved| moved.rows).sum();
    let tables = moved.len();
    output::note(format!(
        "Moved {rows} rows of {tables} tables, and checked them"
    ));
    for line in what_next(&from, &to) {
        output::note(line);
    }
    Ok(())
}

fn tell(moved: &Moved) {
    output::note(format!("  {:<24} {:>10}", moved.table, moved.rows));
}

/// Where things are stored.
pub(super) fn configured(file: Option<PathBuf>, context: &Context) -> anyhow::Result<Config> {
    let merged = Merged::of(&Sources {
        file,
        data_dir: context.data_dir.clone(),
        env: paths::environment(),
        flags: Vec::new(),
    });
    let config = merged.resolve(&context.data_dir).map_err(|issues| {
        let count = issues.len();
        anyhow::anyhow!("the configuration has {count} problem(s); see `vaxel config check`")
    })?;
    Ok(config.store)
}

fn target(to: &str, from: &Config) -> anyhow::Result<Config> {
    let is_url = to.contains("://");
    let to = if is_url {
        let url = to.parse::<DatabaseUrl>();
        let url = url.map_err(|error| anyhow::anyhow!("what is given with --to {error}"))?;
        Config {
            url: Some(url),
            ..from.clone()
        }
    } else {
        Config {
            dir: std::path::absolute(to)?,
            url: None,
            ..from.clone()
        }
    };
    if place(&to) == place(from) {
        bail!("it is stored in {} already", place(from));
    }
    Ok(to)
}

/// Where it is, without a password.
fn place(config: &Config) -> String {
    match &config.url {
        Some(url) => url.to_string(),
        None => config.dir.display().to_string(),
    }
}

fn what_next(from: &Config, to: &Config) -> Vec<String> {
    let dir = from.dir.display();
    let mut lines = match &to.url {
        Some(url) => vec![
            format!("Next: set store.url = \"{url}\" in {dir}/config.toml, with the password in"),
            "the place of ***, or VAXEL_STORE_URL; then `vaxel up`".to_owned(),
        ],
        None if to.dir == from.dir => {
            vec!["Next: take store.url out of the configuration; then `vaxel up`".to_owned()]
        }
        None => vec![
            format!(
                "Next: copy root.key and admin.key from {dir} to {}, and take",
                to.dir.display()
            ),
            format!(
                "store.url out of the configuration; then `vaxel up --data-dir {}`",
                to.dir.display()
            ),
        ],
    };
    lines.push(format!("What is in {} stays as it is", place(from)));
    lines
}
