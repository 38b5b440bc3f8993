//! `vaxel connect`: writes Vaxel into the configuration of an MCP client, leaving everything else in
//! it as it is.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde_json::{Value, json};
use vaxel_client::{Client, segment};
use vaxel_core::jsonc;

use super::Context;
use crate::{output, paths, wire::write_private};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Which client
    #[arg(value_enum)]
    client: Kind,
    /// Print what would be written
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    only: super::Only,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Claude Desktop
    Claude,
    /// Claude Code
    ClaudeCode,
    /// Cursor
    Cursor,
    /// VS Code
    Vscode,
    /// Codex
    Codex,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::ClaudeCode => "claude-code",
            Self::Cursor => "cursor",
            Self::Vscode => "vscode",
            Self::Codex => "codex",
        }
    }

    /// The configuration with `entry` under `name`, everything else as it was.
    fn insert(self, text: &str, name: &str, entry: &Value) -> anyhow::Result<String> {
        match self {
            Self::Codex => in_toml(text, name, entry),
            Self::Vscode => Ok(jsonc::set(text, &["servers", name], entry)?),
            Self::Claude | Self::ClaudeCode | Self::Cursor => {
                Ok(jsonc::set(text, &["mcpServers", name], entry)?)
            }
        }
    }

    fn file(self) -> PathBuf {
        let env = paths::environment();
        let home = paths::home(&env);
        let config = paths::config_home(&env).unwrap_or_else(|| home.join(".config"));
        match self {
            Self::Claude => config.join("Claude/claude_desktop_config.json"),
            Self::ClaudeCode => home.join(".claude.json"),
            Self::Cursor => home.join(".cursor/mcp.json"),
            Self::Vscode => config.join("Code/User/mcp.json"),
            Self::Codex => home.join(".codex/config.toml"),
        }
    }
}

pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let name = format!("vaxel{}", args.only.suffix());
    let file = args.client.file();
    if args.print {
        let entry = entry(args, context, "<key: vaxel key create NAME>")?;
        output::note(format!("# belongs into {}", file.display()));
        output::raw(&args.client.insert("", &name, &entry)?);
        return Ok(());
    }
    // A file that cannot be changed is found before a key is.
    changed(args, (&file, &name), &entry(args, context, "")?)?;
    prepare(&file)?;
    let key = if args.client == Kind::Claude && context.global.url.is_none() {
        String::new()
    } else {
        new_key(args, &context.client()?).await?
    };
    let after = changed(args, (&file, &name), &entry(args, context, &key)?)?;
    // Dotfiles are often links to where they are really kept.
    let real = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
    write_private(&real, &after)?;
    output::note(format!(
        "Wrote `{name}` into {}; restart {} to use it",
        file.display(),
        args.client.name()
    ));
    Ok(())
}

/// A key of the client's own; the one of an earlier `connect` is revoked.
async fn new_key(args: &Args, client: &Client) -> anyhow::Result<String> {
    let name = format!("connect-{}{}", args.client.name(), args.only.suffix());
    if let Some(service) = &args.only.service {
        client
            .get::<Value>(&super::service::path(service, ""))
            .await?;
    }
    if let Some(set) = &args.only.set {
        client.get::<Value>(&super::set::path(set)).await?;
    }
    let path = format!("/api/v1/keys/{}", segment(&name));
    match client.delete(&path).await {
        Ok(()) => {}
        Err(vaxel_client::Error::Problem(problem)) if problem.status == 404 => {}
        Err(error) => return Err(error.into()),
    }
    let draft = json!({"name": name, "role": "client"});
    let key: Value = client.post("/api/v1/keys", &draft).await?;
    key["key"]
        .as_str()
        .map(str::to_owned)
        .context("Vaxel made no key")
}

fn entry(args: &Args, context: &Context, key: &str) -> anyhow::Result<Value> {
    if args.client == Kind::Claude {
        return stdio_entry(args, context, key);
    }
    let (base, _) = context.address()?;
    let url = base.join(&args.only.path())?.to_string();
    let authorization = format!("Bearer {key}");
    Ok(match args.client {
        Kind::Cursor => json!({"url": url, "headers": {"Authorization": authorization}}),
        Kind::Codex => json!({"url": url, "http_headers": {"Authorization": authorization}}),
        Kind::Claude | Kind::ClaudeCode | Kind::Vscode => {
            json!({"type": "http", "url": url, "headers": {"Authorization": authorization}})
        }
    })
}

/// What leads `vaxel stdio` to the same Vaxel as this command: the client knows neither our flags nor
/// our variables.
fn stdio_entry(args: &Args, context: &Context, key: &str) -> anyhow::Result<Value> {
    let program = std::env::current_exe().context("the path of this binary is unknown")?;
    let mut arguments = vec!["stdio".to_owned()];
    arguments.extend(args.only.flag().into_iter().flatten());
    if let Some(url) = &context.global.url {
        arguments.extend(["--url".to_owned(), url.to_string()]);
        return Ok(json!({"command": program, "args": arguments, "env": {"VAXEL_KEY": key}}));
    }
    let mut env = paths::environment();
    env.remove("VAXEL_DATA_DIR");
    if context.data_dir != paths::data_dir(None, &env) {
        let dir = std::path::absolute(&context.data_dir)?;
        arguments.extend(["--data-dir".to_owned(), dir.display().to_string()]);
    }
    Ok(json!({"command": program, "args": arguments}))
}

/// The client's file with our entry in it.
fn changed(args: &Args, (file, name): (&Path, &str), entry: &Value) -> anyhow::Result<String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", file.display()));
        }
    };
    args.client
        .insert(&text, name, entry)
        .with_context(|| format!("{} was not changed", file.display()))
}

/// Makes the folder, and keeps the file as it was.
fn prepare(file: &Path) -> anyhow::Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("{} cannot be made", parent.display()))?;
    }
    if file.exists() {
        let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let backup = PathBuf::from(format!("{}.bak-{stamp}", file.display()));
        fs::copy(file, &backup).with_context(|| format!("{} cannot be made", backup.display()))?;
        output::note(format!("The file as it was: {}", backup.display()));
    }
    Ok(())
}

/// Our table is replaced as text, so that everything else stays as it was written.
fn in_toml(text: &str, name: &str, entry: &Value) -> anyhow::Result<String> {
    let mut expected: toml::Table = text.parse().context("it is no TOML")?;
    let mut kept = Vec::new();
    let mut is_ours = false;
    for line in text.lines() {
        if let Some(header) = line.trim_start().strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default();
            let plain = |key: &str| key.trim().trim_matches(['"', '\'']).to_owned();
            let mut keys = header.split('.').map(plain);
            is_ours = keys.next().as_deref() == Some("mcp_servers")
                && keys.next().as_deref() == Some(name);
        }
        if !is_ours {
            kept.push(line);
        }
    }
    while kept.last().is_some_and(|line| line.trim().is_empty()) {
        kept.pop();
    }
    if !kept.is_empty() {
        kept.push("");
    }
    let before: String = kept.iter().flat_map(|line| [*line, "\n"]).collect();
    let ours: toml::Value = serde_json::from_value(entry.clone())?;
    let table = toml::Table::from_iter([(name.to_owned(), ours.clone())]);
    let table = toml::Table::from_iter([("mcp_servers".to_owned(), toml::Value::Table(table))]);
    let changed = format!("{before}{}", toml::to_string(&table)?);
    let servers = expected
        .entry("mcp_servers")
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    servers
        .as_table_mut()
        .context("`mcp_servers` is no table")?
        .insert(name.to_owned(), ours);
    // The text was cut by hand: what a parser makes of it decides.
    if changed.parse::<toml::Table>().ok() != Some(expected) {
        bail!("it is laid out in a way that cannot be changed safely; add what --print shows");
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_table_is_replaced_and_the_rest_keeps_its_text() {
        let entry = json!({"url": "http://h/mcp", "http_headers": {"Authorization": "Bearer k"}});
        let before = "# mine\nmodel = \"x\"\n\n[mcp_servers.\"vaxel\"] # old\nurl = \"old\"\n[mcp_servers.vaxel.http_headers]\na = \"b\"\n\n[mcp_servers.vaxel-x]\nurl = \"z\" # note\n";
        let once = in_toml(before, "vaxel", &entry).unwrap();
        assert_eq!(
            once,
            "# mine\nmodel = \"x\"\n\n[mcp_servers.vaxel-x]\nurl = \"z\" # note\n\n\
             [mcp_servers.vaxel]\nurl = \"http://h/mcp\"\n\n\
             [mcp_servers.vaxel.http_headers]\nAuthorization = \"Bearer k\"\n"
        );
        assert_eq!(in_toml(&once, "vaxel", &entry).unwrap(), once);
        let fresh = in_toml("", "vaxel", &entry).unwrap();
        assert!(fresh.starts_with("[mcp_servers.vaxel]"), "{fresh}");
    }

    #[test]
    fn a_file_that_cannot_be_changed_safely_is_left_alone() {
        let entry = json!({"url": "u"});
        for text in [
            "mcp_servers = 5",
            "[mcp_servers]\nvaxel = {url = \"old\"}\n",
            "text = \"\"\"\n[mcp_servers.vaxel]\n\"\"\"\n",
            "[mcp_servers",
        ] {
            assert!(in_toml(text, "vaxel", &entry).is_err(), "{text}");
        }
        assert!(Kind::Cursor.insert("[]", "vaxel", &entry).is_err());
    }
}
