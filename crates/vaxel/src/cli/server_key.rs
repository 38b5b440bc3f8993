//! The keys of the server itself: the root key, and those that sign tokens.

use std::{io::Read as _, path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use vaxel_client::Client;
use vaxel_core::secret::Secret;

use super::{Context, Why};
use crate::output;

const ROOT: &str = "/api/v1/root-key";
/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn show_root(client: &Client, context: &Context) -> anyhow::Result<()> {
    let root: Value = client.get(ROOT).await?;
    if context.style.json {
        output::json(&root);
        return Ok(());
    }
    let text = |key: &str| root[key].as_str().unwrap_or_default().to_owned();
    output::line(format!("{} from {}", text("id"), place(&root)));
    if let Some(progress) = progress(&root) {
        output::line(progress);
    }
    say_stale(&root);
    Ok(())
}

pub(super) async fn rotate_root(
    client: &Client,
    (file, wait): (Option<&Path>, bool),
    why: &Why,
) -> anyhow::Result<()> {
    let mut body = json!({});
    if let Some(file) = file {
        let text = read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        body["new_key"] = text.expose().trim().into();
    }
    let mut root: Value = client
        .post(&why.on(format!("{ROOT}/rotate")), &body)
        .await?;
    let mut said = String::new();
    while wait && let Some(progress) = progress(&root) {
        if said != progress {
            output::note(&progress);
            said = progress;
        }
        tokio::time::sleep(LOOK).await;
        root = client.get(ROOT).await?;
    }
    let id = root["id"].as_str().unwrap_or_default();
    if wait {
        output::note(format!("Everything is sealed with the root key {id}"));
    } else {
        output::note(format!(
            "The root key is {id} from now on; `vaxel key root` shows how far it has come"
        ));
    }
    say_stale(&root);
    Ok(())
}

pub(super) fn list_signing(keys: &Value, context: &Context) {
    if context.style.json {
        return output::json(&keys["items"]);
    }
    let mut table = output::table(&["KEY", "ALGORITHM", "STAGE", "SINCE", "UNTIL"]);
    for item in keys["items"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        table.add_row(["kid", "algorithm", "stage", "since", "until"].map(text));
    }
    output::rows(table, context.style);
}

fn read(file: &Path) -> std::io::Result<Secret<String>> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(Secret::new(text));
    }
    std::fs::read_to_string(file).map(Secret::new)
}

fn place(root: &Value) -> &'static str {
    match root["source"].as_str() {
        Some("environment") => "the environment",
        Some("command") => "a command",
        _ => "its file",
    }
}

/// How far it has come, while it is on its way.
fn progress(root: &Value) -> Option<String> {
    let replacing = root.get("replacing")?;
    let (done, total) = (&replacing["done"], &replacing["total"]);
    Some(format!("Sealing anew: {done} of {total} values"))
}

fn say_stale(root: &Value) {
    if root["is_stale"] == true {
        output::note(format!(
            "From the next start on {} has to give the new root key; until then the one before leads to it",
            place(root)
        ));
    }
}
