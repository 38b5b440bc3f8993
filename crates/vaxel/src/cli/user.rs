//! `vaxel user …`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use vaxel_client::{Client, segment};

use super::{
    Context, Why,
    edit::{self, Subject},
    passphrase, role,
    service::yaml,
};
use crate::output;

/// Where the management API has them.
const USERS: &str = "/api/v1/users";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a user
    #[command(
        after_help = "A person has the role `user` and a program the role `service` unless roles are named. The name never changes and is never given to another one.\n\nExamples:\n  vaxel user add anna@example.com --title 'Anna Lind'\n  vaxel user add ci --program --role client"
    )]
    Add(AddArgs),
    /// List users
    #[command(visible_alias = "list", after_help = "Example:\n  vaxel user ls")]
    Ls(super::Format),
    /// Show a user
    #[command(after_help = "Example:\n  vaxel user show anna@example.com")]
    Show {
        /// Name
        name: String,
        #[command(flatten)]
        format: super::Format,
    },
    /// Change title, roles, limits and state of a user
    #[command(
        after_help = "Without flags it opens your editor.\n\nExamples:\n  EDITOR=vi vaxel user edit anna@example.com\n  vaxel user edit anna@example.com --role user --role analyst\n  vaxel user edit ci --state disabled -m 'lost its laptop'"
    )]
    Edit(EditArgs),
    /// Set a password: your own, or one for somebody who has to choose another one then
    #[command(
        after_help = "Passwords are asked for, or read from the input, a line each: the one before (of your own; empty where there is none), then the new one.\n\nExamples:\n  vaxel user password anna@example.com\n  printf '%s\\n' \"$OLD\" \"$NEW\" | vaxel user password anna@example.com"
    )]
    Password {
        /// Name
        name: String,
        #[command(flatten)]
        why: Why,
    },
    /// List the sign-ins of a user, or end some
    #[command(
        after_help = "Examples:\n  vaxel user sessions anna@example.com\n  vaxel user sessions anna@example.com --end 01937c3e-5a10-7cc3-98c4-dc0c0c07398f"
    )]
    Sessions {
        /// Name
        name: String,
        /// Sign-in to end
        #[arg(long, value_name = "ID")]
        end: Vec<String>,
        #[command(flatten)]
        format: super::Format,
    },
    /// Remove users, with their keys and what is shared with them; their names stay taken
    #[command(
        visible_alias = "remove",
        after_help = "Example:\n  vaxel user rm anna@example.com --transfer-to otto@example.com"
    )]
    Rm {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
        /// User who gets their services
        #[arg(long, value_name = "USER")]
        transfer_to: Option<String>,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Args)]
pub(super) struct AddArgs {
    /// Name: a-z, 0-9 and `.`, `_`, `-`, `+`, `@`, at most 100 characters
    name: String,
    /// A program, which has keys and no password
    #[arg(long)]
    program: bool,
    /// Role that it has, built in or made
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// How much it may take, in the place of what its roles say: requests, calls and creations in some time,
    /// concurrent calls; `none` for no limit
    #[arg(long, value_name = "LIMIT=RATE")]
    limit: Vec<String>,
    /// Name that people read
    #[arg(long)]
    title: Option<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    format: super::Format,
}

#[derive(Args)]
pub(super) struct EditArgs {
    /// Name
    name: String,
    /// Role that it has from now on; those that are not named it loses
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// How much it may take from now on, in the place of what its roles say; `none` for no limit
    #[arg(long, value_name = "LIMIT=RATE")]
    limit: Vec<String>,
    /// Name that people read
    #[arg(long)]
    title: Option<String>,
    /// Whether what it shows counts
    #[arg(long, value_enum)]
    state: Option<State>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Enabled,
    Disabled,
}

impl Command {
    pub(super) const fn format(&self) -> super::Format {
        match self {
            Self::Add(args) => args.format,
            Self::Ls(format) | Self::Show { format, .. } | Self::Sessions { format, .. } => *format,
            Self::Edit { .. } | Self::Password { .. } | Self::Rm { .. } => {
                super::Format { json: false }
            }
        }
    }
}

pub(super) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    match command {
        Command::Add(args) => {
            let kind = if args.program { "program" } else { "person" };
            let mut draft = json!({"name": args.name, "kind": kind});
            if !args.role.is_empty() {
                draft["roles"] = args.role.into();
            }
            if !args.limit.is_empty() {
                draft["limits"] = role::limits(&args.limit)?;
            }
            if let Some(title) = args.title {
                draft["title"] = title.into();
            }
            let user: Value = client.post(&args.why.on(USERS.to_owned()), &draft).await?;
            if context.style.json {
                output::json(&user);
            } else {
                let roles = super::words(&user["roles"]);
                output::note(format!("Added {}, with the roles: {roles}", args.name));
                output::note(format!(
                    "`vaxel key create NAME --user {}` makes a key for it",
                    args.name
                ));
            }
        }
        Command::Ls(_) => list(&client.get(USERS).await?, context),
        Command::Show { name, .. } => {
            let user: Value = client.get(&path(&name)).await?;
            if context.style.json {
                output::json(&user);
            } else {
                output::raw(&yaml(&user)?);
            }
        }
        Command::Edit(args) => edit(args, &client).await?,
        Command::Password { name, why } => password(&name, &why, &client).await?,
        Command::Sessions { name, end, .. } => sessions(&name, &end, (&client, context)).await?,
        Command::Rm {
            names,
            transfer_to,
            why,
        } => {
            for name in names {
                let mut path = why.on(path(&name));
                if let Some(heir) = &transfer_to {
                    let mark = if path.contains('?') { '&' } else { '?' };
                    path = format!("{path}{mark}transfer_to={}", segment(heir));
                }
                client.delete(&path).await?;
                output::note(format!("Removed {name}"));
            }
        }
    }
    Ok(())
}

fn path(name: &str) -> String {
    format!("{USERS}/{}", segment(name))
}

async fn password(name: &str, why: &Why, client: &Client) -> anyhow::Result<()> {
    let path = why.on(format!("{}/password", path(name)));
    let who: Value = client.get("/api/v1/auth/whoami").await?;
    let is_own = who["name"] == name;
    let mut body = json!({});
    if is_own {
        let old = passphrase::password("Password as it is now (empty: none): ");
        if let Some(old) = old.ok().filter(|old| !old.expose().is_empty()) {
            body["old"] = old.expose().as_str().into();
        }
    }
    let new = passphrase::new_password("New password: ")?;
    body["password"] = new.expose().as_str().into();
    client.put::<Value>(&path, &body, None).await?;
    output::note(if is_own {
        "Set; your other sign-ins have ended".to_owned()
    } else {
        format!("Set; {name} has to choose another one at the next sign-in")
    });
    Ok(())
}

async fn sessions(
    name: &str,
    end: &[String],
    (client, context): (&Client, &Context),
) -> anyhow::Result<()> {
    const SESSIONS: &str = "/api/v1/auth/sessions";
    for id in end {
        client
            .delete(&format!("{SESSIONS}/{}", segment(id)))
            .await?;
        output::note(format!("Ended {id}"));
    }
    if !end.is_empty() {
        return Ok(());
    }
    let all: Value = client
        .get(&format!("{SESSIONS}?user={}", segment(name)))
        .await?;
    if context.style.json {
        output::json(&all["items"]);
        return Ok(());
    }
    let mut table = output::table(&["ID", "LAST USED", "EXPIRES", "FROM", "PROGRAM"]);
    for item in all["items"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        table.add_row(["id", "last_used_at", "expires_at", "address", "agent"].map(text));
    }
    output::rows(table, context.style);
    Ok(())
}

async fn edit(args: EditArgs, client: &vaxel_client::Client) -> anyhow::Result<()> {
    let EditArgs {
        name,
        role,
        limit,
        title,
        state,
        why,
    } = args;
    if role.is_empty() && limit.is_empty() && title.is_none() && state.is_none() {
        let subject = Subject {
            what: "user",
            hint: "Name and kind never change. Without `limits` those of its roles hold.",
            path: path(&name),
            editable,
            why,
        };
        return edit::run(&name, &subject, client).await;
    }
    let user: Value = client.get(&path(&name)).await?;
    let mut draft = editable(&user);
    if !role.is_empty() {
        draft["roles"] = role.into();
    }
    if !limit.is_empty() {
        draft["limits"] = role::limits(&limit)?;
    }
    if let Some(title) = title {
        draft["title"] = title.into();
    }
    if let Some(state) = state {
        draft["disabled"] = (state == State::Disabled).into();
    }
    let version = user["version"].as_u64();
    let path = why.on(path(&name));
    let _: Value = client.put(&path, &draft, version).await?;
    output::note(format!("Changed {name}"));
    Ok(())
}

fn list(page: &Value, context: &Context) {
    if context.style.json {
        return output::json(&page["items"]);
    }
    let mut table = output::table(&["NAME", "KIND", "ROLES", "STATE", "TITLE"]);
    for item in page["items"].as_array().into_iter().flatten() {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let is_disabled = item["disabled"] == true;
        let state = if is_disabled { "disabled" } else { "enabled" };
        table.add_row([
            text("name"),
            text("kind"),
            super::words(&item["roles"]),
            state.to_owned(),
            text("title"),
        ]);
    }
    output::rows(table, context.style);
}

/// The parts of a user that a person can change.
fn editable(user: &Value) -> Value {
    super::parts(
        user,
        &["name", "kind", "title", "roles", "limits", "disabled"],
    )
}
