//! Where the root key comes from: its file, the environment, or what a command writes.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use rustix::process::DumpableBehavior;
use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};
use vaxel_auth::{
    root::{Given, RootKeys},
    seal::RootKey,
};
use vaxel_core::secret::Secret;
use zeroize::Zeroizing;

use crate::{config::Config, paths};

/// Holds the root key.
pub(crate) const VARIABLE: &str = "VAXEL_ROOT_KEY";
/// Longest time that a command takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than any root key has, bytes.
const OUTPUT_MAX: usize = 4 << 10;

/// The root keys, wherever they come from.
pub(crate) async fn load(config: &Config) -> anyhow::Result<RootKeys> {
    let command = &config.root_key_command;
    let variable = paths::environment().remove(VARIABLE).map(Secret::new);
    let (given, text) = match (variable, command.is_empty()) {
        (None, true) => return Ok(RootKeys::load_or_create(&config.data_dir)?),
        (Some(_), false) => bail!(
            "the root key is given twice, by ${VARIABLE} and by `secrets.root_key_command`: leave out one of them"
        ),
        (Some(text), true) => {
            hide();
            (Given::Environment, text)
        }
        (None, false) => (Given::Command, ask(command).await?),
    };
    from_text(&config.data_dir, given, &text)
}

/// Programs of this user, such as the services that run here, cannot read the environment of this process from now
/// on (`/proc/PID/environ`), nor its memory.
fn hide() {
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = hidden {
        tracing::warn!(%error, "programs of this user can read the environment of this process");
    }
}

fn from_text(dir: &Path, given: Given, text: &Secret<String>) -> anyhow::Result<RootKeys> {
    let key = RootKey::from_text(text.expose());
    let from = given.as_str();
    let key = key.with_context(|| format!("the {from} gives no root key"))?;
    Ok(RootKeys::from_given(dir, given, &key)?)
}

/// What the command writes. It sees the environment that programs see, and what it says on its standard error goes
/// where ours goes.
async fn ask(command: &[String]) -> anyhow::Result<Secret<String>> {
    let [program, arguments @ ..] = command else {
        bail!("`secrets.root_key_command` names no program");
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(paths::base_env(&paths::environment()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("`{program}`, which gives the root key, cannot be started"))?;
    let mut output = child.stdout.take().context("its output is not there")?;
    let asking = async {
        // With room for all of it, so that no copy is left behind by growing.
        let mut read = Zeroizing::new(Vec::with_capacity(OUTPUT_MAX));
        let most = u64::try_from(OUTPUT_MAX)?;
        (&mut output).take(most).read_to_end(&mut read).await?;
        // Who writes on is not listened to.
        drop(output);
        let status = child.wait().await?;
        let text = std::str::from_utf8(&read).context("it is no text")?;
        anyhow::Ok((Secret::new(text.to_owned()), status))
    };
    let (text, status) = timeout(PATIENCE, asking).await.with_context(|| {
        format!(
            "`{program}` gave no root key within {}s",
            PATIENCE.as_secs()
        )
    })??;
    if !status.success() {
        bail!("`{program}`, which gives the root key, failed: {status}");
    }
    Ok(text)
}
