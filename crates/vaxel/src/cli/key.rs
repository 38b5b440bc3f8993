//! `vaxel key …`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};
use vaxel_client::segment;

use super::{Context, Why, server_key};
use crate::output;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create a key; it is shown once
    #[command(
        after_help = "A key can do what its user may, and no more than its role or permissions, services and environments say.\n\nExamples:\n  vaxel key create laptop --role client --expires 90d\n  vaxel key create ci --user ci --service 'db-*' --environment test"
    )]
    Create {
        /// Name
        name: String,
        /// Whose it is [default: yours]
        #[arg(long)]
        user: Option<String>,
        /// What it is limited to: admin, user, service, client or monitor
        #[arg(long, default_value = "client", conflicts_with = "permission")]
        role: String,
        /// Single permission, such as mcp:read
        #[arg(long)]
        permission: Vec<String>,
        /// Only for this service, or pattern
        #[arg(long)]
        service: Vec<String>,
        /// Only for services in this environment
        #[arg(long)]
        environment: Vec<String>,
        /// Time until it is refused, such as 90d
        #[arg(long)]
        expires: Option<String>,
        /// Give it another secret so often, such as 30d, and write each into the file keys/NAME.key of the
        /// server's data directory
        #[arg(long)]
        rotate_every: Option<String>,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        format: super::Format,
    },
    /// List keys: what they may do, when they were used, what becomes of them
    #[command(after_help = "Examples:\n  vaxel key ls\n  vaxel key ls --user ci --json")]
    Ls {
        /// Only those of this user
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        format: super::Format,
    },
    /// Give a key another secret, which is shown once; both work until the overlap is over
    #[command(
        after_help = "Examples:\n  vaxel key rotate ci\n  vaxel key rotate ci --overlap 1h --expires 90d\n  vaxel key rotate ci --overlap 0s      # somebody has it: the secret before ends now"
    )]
    Rotate {
        /// Name or id
        name: String,
        /// How long the secret before works, too [default: 24h, or half of what it rotates by]
        #[arg(long)]
        overlap: Option<String>,
        /// Time until the key is refused, such as 90d [default: as it was]
        #[arg(long)]
        expires: Option<String>,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        format: super::Format,
    },
    /// Show the root key's state: which one it is, where it comes from, how far replacing it has come
    #[command(after_help = "Example:\n  vaxel key root")]
    Root(super::Format),
    /// Put another root key in the place of the one there is, without a stop
    #[command(
        after_help = "A root key in its file is made anew by the server. One that the environment or a command gives is read from\nNEW_KEY_FILE (`-`: standard input); have it given from the next start on.\n\nExamples:\n  vaxel key rotate-root\n  openssl rand -hex 32 > new.key && vaxel key rotate-root --new-key-file new.key"
    )]
    RotateRoot {
        /// File with the new key, where the key is given: 64 hexadecimal digits or base64
        #[arg(long)]
        new_key_file: Option<PathBuf>,
        /// Do not wait until everything is sealed anew
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        why: Why,
    },
    /// List the keys that sign tokens
    #[command(after_help = "Example:\n  vaxel key signing")]
    Signing(super::Format),
    /// Have the next key sign tokens from now on; those of the one before are good until they expire
    #[command(after_help = "Example:\n  vaxel key rotate-signing")]
    RotateSigning {
        #[command(flatten)]
        why: Why,
    },
    /// Revoke a key
    #[command(after_help = "Example:\n  vaxel key revoke laptop")]
    Revoke {
        /// Name or id
        name: String,
        #[command(flatten)]
        why: Why,
    },
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        match self {
            Self::Create { format, .. } | Self::Ls { format, .. } | Self::Rotate { format, .. } => {
                *format
            }
            Self::Root(format) | Self::Signing(format) => *format,
            Self::Revoke { .. } | Self::RotateRoot { .. } | Self::RotateSigning { .. } => {
                super::Format { json: false }
            }
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match command {
        Command::Create {
            name,
            user,
            role,
            permission,
            service,
            environment,
            expires,
            rotate_every,
            why,
            format: _,
        } => {
            let mut draft = json!({ "name": name });
            if let Some(user) = user {
                draft["user"] = user.into();
            }
            for (key, list) in [("services", service), ("environments", environment)] {
                if !list.is_empty() {
                    draft[key] = list.into();
                }
            }
            if permission.is_empty() {
                draft["role"] = role.into();
            } else {
                draft["permissions"] = permission.into();
            }
            for (key, span) in [("expires_in", expires), ("rotate_every", rotate_every)] {
                if let Some(span) = span {
                    draft[key] = span.into();
                }
            }
            let key: Value = client
                .post(&why.on("/api/v1/keys".to_owned()), &draft)
                .await?;
            show(&key, context);
        }
        Command::Ls { user, format: _ } => {
            let user = user.map(|user| format!("user={}", segment(&user)));
            let query = Vec::from_iter(user);
            let keys = super::service::all_pages(&client, "/api/v1/keys", &query).await?;
            list(&keys, context);
        }
        Command::Rotate {
            name,
            overlap,
            expires,
            why,
            format: _,
        } => {
            let mut wanted = json!({});
            for (key, span) in [("overlap", overlap), ("expires_in", expires)] {
                if let Some(span) = span {
                    wanted[key] = span.into();
                }
            }
            let path = format!("/api/v1/keys/{}/rotate", segment(&name));
            let key: Value = client.post(&why.on(path), &wanted).await?;
            show(&key, context);
            if let Some(until) = key["earlier"]["until"].as_str() {
                output::note(format!("The one before works until {until}"));
            }
        }
        Command::Root(_) => server_key::show_root(&client, context).await?,
        Command::RotateRoot {
            new_key_file,
            no_wait,
            why,
        } => server_key::rotate_root(&client, (new_key_file.as_deref(), !no_wait), &why).await?,
        Command::Signing(_) => {
            let keys: Value = client.get("/api/v1/signing-keys").await?;
            server_key::list_signing(&keys, context);
        }
        Command::RotateSigning { why } => {
            let path = why.on("/api/v1/signing-keys/rotate".to_owned());
            let keys: Value = client.post(&path, &json!({})).await?;
            server_key::list_signing(&keys, context);
        }
        Command::Revoke { name, why } => {
            client
                .delete(&why.on(format!("/api/v1/keys/{}", segment(&name))))
                .await?;
            output::note(format!("Revoked {name}"));
        }
    }
    Ok(())
}

/// A key with its text.
fn show(key: &Value, context: &Context) {
    if context.style.json {
        return output::json(key);
    }
    output::note("This key is shown once:");
    output::line(key["key"].as_str().unwrap_or_default());
    if let Some(file) = key["file"].as_str() {
        output::note(format!(
            "It stands in {file} of the server's data directory, and so will each after it"
        ));
    }
}

fn list(keys: &[Value], context: &Context) {
    if context.style.json {
        return output::json(&keys);
    }
    let mut table = output::table(&[
        "NAME",
        "USER",
        "PREFIX",
        "PERMISSIONS",
        "LAST USED",
        "FROM",
        "STATE",
    ]);
    for item in keys {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let mut permissions = super::words(&item["permissions"]);
        for key in ["services", "environments"] {
            if item[key].is_array() {
                permissions = format!("{permissions}; {key}: {}", super::words(&item[key]));
            }
        }
        let state = match (item["revoked_at"].as_str(), item["expires_at"].as_str()) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(at)) => format!("until {at}"),
            (None, None) => "valid".to_owned(),
        };
        let state = [Some(state), next_rotation(item), earlier(item)];
        let state: Vec<String> = state.into_iter().flatten().collect();
        table.add_row([
            text("name"),
            text("user"),
            text("prefix"),
            permissions,
            output::when(&text("last_used_at")),
            text("last_used_from"),
            state.join("; "),
        ]);
    }
    output::rows(table, context.style);
}

fn next_rotation(item: &Value) -> Option<String> {
    let due = item["rotation_due_at"].as_str()?;
    Some(format!("another secret at {due}"))
}

/// What is to know of the secret before, as long as it works.
fn earlier(item: &Value) -> Option<String> {
    let earlier = &item["earlier"];
    let until: jiff::Timestamp = earlier["until"].as_str()?.parse().ok()?;
    if item["revoked_at"].is_string() || until <= jiff::Timestamp::now() {
        return None;
    }
    let used = match earlier["last_used_at"].as_str() {
        Some(at) => format!("used {}", output::when(at)),
        None => "not used since".to_owned(),
    };
    Some(format!("the one before until {until} ({used})"))
}
