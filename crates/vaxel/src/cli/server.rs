//! `vaxel down`, `vaxel status`, `vaxel stdio`.

use std::{fs::File, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use vaxel_client::Local;

use super::Context;
use crate::{
    output,
    stdio::{self, Bridge},
};

/// Longest wait for a Vaxel to start or stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

#[derive(Args)]
pub(super) struct StdioArgs {
    #[command(flatten)]
    only: super::Only,
}

pub(super) async fn down(context: &Context) -> anyhow::Result<()> {
    let pid = Local::find(&context.data_dir).map(|local| local.pid);
    let client = context.client()?;
    client
        .post::<Value>("/api/v1/shutdown", &Value::Null)
        .await?;
    let gone = async {
        match pid.filter(|_| context.global.url.is_none()) {
            Some(pid) => {
                while vaxel_client::is_alive(pid) {
                    tokio::time::sleep(LOOK).await;
                }
            }
            None => {
                while client.text("/health/live").await.is_ok() {
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    };
    if tokio::time::timeout(PATIENCE, gone).await.is_err() {
        bail!(
            "Vaxel was told to stop but still runs after {} s",
            PATIENCE.as_secs()
        );
    }
    output::note("Vaxel has stopped");
    Ok(())
}

pub(super) async fn status(context: &Context) -> anyhow::Result<()> {
    let status: Value = context.client()?.get("/api/v1/status").await?;
    if context.style.json {
        output::json(&status);
    } else {
        output::raw(&serde_saphyr::to_string(&status)?);
    }
    Ok(())
}

pub(super) async fn stdio(args: &StdioArgs, context: &Context) -> anyhow::Result<()> {
    if context.global.url.is_none() && Local::find(&context.data_dir).is_none() {
        start_in_background(context).await?;
    }
    let (base, key) = context.address()?;
    let endpoint = base
        .join(&args.only.path())
        .context("the base URL has no place for a path")?;
    let roots = context.roots()?;
    stdio::run(Bridge {
        endpoint,
        key,
        roots,
    })
    .await
}

/// Starts `vaxel up` so that it outlives this process, and waits until it answers.
async fn start_in_background(context: &Context) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    std::fs::create_dir_all(context.data_dir.join("logs"))
        .with_context(|| format!("{} cannot be made", context.data_dir.display()))?;
    let log = context.data_dir.join("logs/vaxel.log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("{} cannot be written", log.display()))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command
        .arg("up")
        .arg("--data-dir")
        .arg(&context.data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0);
    let mut child = command.spawn().context("Vaxel cannot be started")?;
    let answering = async {
        loop {
            if let Some(local) = Local::find(&context.data_dir)
                && let Ok(client) = context.client_at(&local.url, None)
                && client.text("/health/live").await.is_ok()
            {
                return Ok(());
            }
            if let Some(exit) = child.try_wait()? {
                // Somebody else may have been faster.
                if Local::find(&context.data_dir).is_none() {
                    bail!(
                        "Vaxel did not start ({exit}); see {}",
                        context.data_dir.join("logs/vaxel.log").display()
                    );
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let answered = tokio::time::timeout(PATIENCE, answering).await;
    answered.context("Vaxel did not start in time")?
}
