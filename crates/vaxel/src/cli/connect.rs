//! `vaxel connect`: writes Vaxel into the configuration of an MCP client, leaving everything else in
//! it as it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use vaxel_client::{Client, segment};

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
    /// Only this service, under its own tool names
    #[arg(long)]
    service: Option<String>,
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

    fn file(self) -> PathBuf {
        let env = paths::environment();
        let home = paths::home(&env);
        let config = env
            .get("XDG_CONFIG_HOME")
            .map_or_else(|| home.join(".config"), PathBuf::from);
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
    let (base, _) = context.address()?;
    let client = context.client()?;
    let path = args
        .service
        .as_ref()
        .map_or_else(|| "mcp".to_owned(), |name| format!("mcp/{name}"));
    let url = base.join(&path)?.to_string();
    let entry_name = args
        .service
        .as_ref()
        .map_or_else(|| "vaxel".to_owned(), |service| format!("vaxel-{service}"));
    let key = if args.client == Kind::Claude || args.print {
        None
    } else {
        Some(new_key(args.client.name(), &client).await?)
    };
    let key = key.as_deref().unwrap_or("<key: vaxel key create NAME>");
    let entry = entry(args, &url, key)?;
    let file = args.client.file();
    let text = if file.exists() {
        fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?
    } else {
        String::new()
    };
    let changed = match args.client {
        Kind::Codex => in_toml(&text, &entry_name, &entry),
        Kind::Vscode => in_json(&text, "servers", &entry_name, entry),
        _ => in_json(&text, "mcpServers", &entry_name, entry),
    };
    let changed = changed.with_context(|| {
        format!(
            "{} is not what {} writes",
            file.display(),
            args.client.name()
        )
    })?;
    if args.print {
        output::note(format!("# {}", file.display()));
        output::raw(&changed);
        return Ok(());
    }
    write(&file, &text, &changed)?;
    output::note(format!(
        "Wrote {}; restart {} to use it",
        file.display(),
        args.client.name()
    ));
    Ok(())
}

/// A key of the client's own; the one of an earlier `connect` is revoked.
async fn new_key(client_name: &str, client: &Client) -> anyhow::Result<String> {
    let name = format!("connect-{client_name}");
    match client
        .delete(&format!("/api/v1/keys/{}", segment(&name)))
        .await
    {
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

fn entry(args: &Args, url: &str, key: &str) -> anyhow::Result<Value> {
    let authorization = format!("Bearer {key}");
    Ok(match args.client {
        Kind::Claude => {
            let program = std::env::current_exe().context("the path of this binary is unknown")?;
            let mut arguments = vec!["stdio".to_owned()];
            if let Some(service) = &args.service {
                arguments.extend(["--service".to_owned(), service.clone()]);
            }
            json!({"command": program.display().to_string(), "args": arguments})
        }
        Kind::Cursor => json!({"url": url, "headers": {"Authorization": authorization}}),
        Kind::ClaudeCode | Kind::Vscode => {
            json!({"type": "http", "url": url, "headers": {"Authorization": authorization}})
        }
        Kind::Codex => json!({"url": url, "http_headers": {"Authorization": authorization}}),
    })
}

fn in_json(text: &str, place: &str, name: &str, entry: Value) -> anyhow::Result<String> {
    let mut whole: Value = if text.trim().is_empty() {
        json!({})
    } else {
        serde_json::from_str(text).context(
            "it is no plain JSON (comments would be lost); use --print and add it by hand",
        )?
    };
    let object = whole.as_object_mut().context("it holds no object")?;
    let servers = object
        .entry(place)
        .or_insert_with(|| Value::Object(Map::new()));
    let servers = servers
        .as_object_mut()
        .with_context(|| format!("`{place}` is no object"))?;
    servers.insert(name.to_owned(), entry);
    Ok(serde_json::to_string_pretty(&whole)? + "\n")
}

/// Our table is replaced as text, so that everything else stays as it was written.
fn in_toml(text: &str, name: &str, entry: &Value) -> anyhow::Result<String> {
    text.parse::<toml::Table>().context("it is no TOML")?;
    let ours = format!("[mcp_servers.{name}]");
    let nested = format!("[mcp_servers.{name}.");
    let mut kept = Vec::new();
    let mut skipping = false;
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            skipping = line.trim() == ours || line.trim_start().starts_with(&nested);
        }
        if !skipping {
            kept.push(line);
        }
    }
    while kept.last().is_some_and(|line| line.trim().is_empty()) {
        kept.pop();
    }
    let url = entry["url"].as_str().unwrap_or_default();
    let authorization = entry["http_headers"]["Authorization"]
        .as_str()
        .unwrap_or_default();
    let before = if kept.is_empty() {
        String::new()
    } else {
        kept.join("\n") + "\n\n"
    };
    Ok(format!(
        "{before}{ours}\nurl = {url:?}\nhttp_headers = {{ Authorization = {authorization:?} }}\n"
    ))
}

fn write(file: &Path, before: &str, after: &str) -> anyhow::Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("{} cannot be made", parent.display()))?;
    }
    if !before.is_empty() && before != after {
        let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let backup = PathBuf::from(format!("{}.bak-{stamp}", file.display()));
        fs::copy(file, &backup).with_context(|| format!("{} cannot be made", backup.display()))?;
        output::note(format!(
            "The file as it was is kept in {}",
            backup.display()
        ));
    }
    if file.extension().is_none() {
        bail!("{} has no ending", file.display());
    }
    write_private(file, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_else_in_a_file_stays() {
        let before = r#"{"theme": "dark", "mcpServers": {"other": {"command": "x"}}}"#;
        let after = in_json(before, "mcpServers", "vaxel", json!({"url": "u"})).unwrap();
        let after: Value = serde_json::from_str(&after).unwrap();
        assert_eq!(after["theme"], "dark");
        assert_eq!(after["mcpServers"]["other"]["command"], "x");
        assert_eq!(after["mcpServers"]["vaxel"]["url"], "u");
        assert!(in_json("{ // note\n}", "mcpServers", "vaxel", json!({})).is_err());
    }

    #[test]
    fn our_table_is_replaced_and_the_rest_keeps_its_text() {
        let entry = json!({"url": "http://h/mcp", "http_headers": {"Authorization": "Bearer k"}});
        let before = "# mine\nmodel = \"x\"\n\n[mcp_servers.vaxel]\nurl = \"old\"\n\n[other]\na = 1 # note\n";
        let once = in_toml(before, "vaxel", &entry).unwrap();
        assert!(
            once.starts_with("# mine\nmodel = \"x\"\n\n[other]\na = 1 # note\n"),
            "{once}"
        );
        assert!(!once.contains("old"));
        assert_eq!(in_toml(&once, "vaxel", &entry).unwrap(), once);
    }
}
