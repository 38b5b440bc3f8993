//! Every command of `vaxel`.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use serde_json::Value;
use url::Url;
use vaxel_client::{Client, Local};
use vaxel_egress::{Pins, Roots};

use crate::{
    output::{self, Style},
    paths,
    up::{self, UpArgs},
};

mod access;
mod authorize;
mod add;
mod backup;
mod apply;
mod audit;
mod calls;
mod call;
mod config;
mod connect;
mod dependencies;
mod doctor;
mod documents;
mod edit;
mod http;
mod events;
mod export;
mod grant;
mod health;
mod history;
mod import;
mod key;
mod server_key; // keys of the server itself
mod login;
mod browser_login;
mod logs;
mod passphrase;
mod policy;
mod role;
mod server;
mod service;
mod set;
mod settings;
mod store;
mod template;
mod tools;
mod usage;
mod user;

/// What the command line says that it is, so that the audit can say so, too.
const AGENT: &str = concat!("vaxel-cli/", env!("CARGO_PKG_VERSION"));

/// Runs, registers, guards and connects MCP servers and the services around them.
#[derive(Parser)]
#[command(
    name = "vaxel",
    version,
    after_help = "Examples:\n  vaxel up\n  vaxel service add everything -- npx -y @modelcontextprotocol/server-everything\n  vaxel ls\n  vaxel call everything__echo --arg message=hello\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 no Vaxel answers, 4 no such thing, 5 the tool says that it failed"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Base URL of another Vaxel than the one on this machine
    #[arg(long, global = true, env = "VAXEL_URL", value_name = "URL")]
    url: Option<Url>,
    /// API key to show there
    #[arg(
        long,
        global = true,
        env = "VAXEL_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    key: Option<String>,
    /// Certificates (PEM) to trust there besides those of this machine
    #[arg(long, global = true, env = "VAXEL_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// SHA-256 of the certificate to expect there; it then need not be trusted
    #[arg(
        long,
        global = true,
        env = "VAXEL_FINGERPRINT",
        value_name = "SHA256",
        conflicts_with = "ca"
    )]
    fingerprint: Option<String>,
    /// Data directory [default: vaxel under the XDG data home]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    color: When,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
enum Command {
    /// Start Vaxel
    #[command(after_help = "Example:\n  vaxel up --demo")]
    Up(UpArgs),
    /// Stop the running Vaxel
    #[command(after_help = "Example:\n  vaxel down")]
    Down,
    /// Show the running Vaxel
    #[command(after_help = "Example:\n  vaxel status")]
    Status(Format),
    /// Add, show, change and remove services
    #[command(subcommand)]
    Service(Box<service::Command>),
    /// Show, add, change and remove templates of services
    #[command(subcommand)]
    Template(template::Command),
    /// List services
    #[command(after_help = "Example:\n  vaxel ls --tag web")]
    Ls(service::ListArgs),
    /// Add the servers of an MCP client's configuration
    #[command(after_help = "Example:\n  vaxel import ~/.config/Claude/claude_desktop_config.json")]
    Import(import::Args),
    /// Make services and sets as files ask for them
    #[command(
        after_help = "`${NAME}` in texts is replaced from the environment, `$$` stands for `$`. What is there already is not written again.\n\nExamples:\n  vaxel apply -f services.yaml --dry-run\n  vaxel apply -f services/ --prune --tag team-a -m 'as in git'\n  vaxel export | vaxel --url http://other:3010 apply -f -"
    )]
    Apply(apply::Args),
    /// Write services and sets as a file that apply reads; secrets stay here
    #[command(
        after_help = "Examples:\n  vaxel export > vaxel.yaml\n  vaxel export files web --format json\n  vaxel export --folder data/services"
    )]
    Export(export::Args),
    /// List tools
    #[command(after_help = "Example:\n  vaxel tools --service everything")]
    Tools(tools::ListArgs),
    /// Show one tool
    #[command(subcommand)]
    Tool(tools::Command),
    /// Call a tool
    #[command(
        after_help = "Examples:\n  vaxel call everything__echo --arg message=hello\n  vaxel call everything__get-sum --arg a=2 --arg b=3\n  vaxel call everything__echo --json '{\"message\":\"hello\"}'\n  echo '{\"message\":\"hello\"}' | vaxel call everything__echo -"
    )]
    Call(call::Args),
    /// Show what a service writes to its standard error
    #[command(after_help = "Example:\n  vaxel logs everything -f")]
    Logs(logs::Args),
    /// List calls
    #[command(after_help = "Example:\n  vaxel calls --service everything --outcome error")]
    Calls(calls::Args),
    /// Show how much services and tools are called
    #[command(
        after_help = "Examples:\n  vaxel usage\n  vaxel usage everything --by day --from 30d"
    )]
    Usage(usage::Args),
    /// Show what changed, and follow the changes
    #[command(after_help = "Example:\n  vaxel events --follow --type 'service.*'")]
    Events(events::Args),
    /// Write Vaxel into an MCP client's configuration
    #[command(after_help = "Examples:\n  vaxel connect cursor\n  vaxel connect claude --print")]
    Connect(connect::Args),
    /// Let a client that only speaks stdio use Vaxel; starts Vaxel when none runs
    #[command(
        after_help = "Example (in a client's configuration):\n  {\"command\": \"vaxel\", \"args\": [\"stdio\"]}"
    )]
    Stdio(server::StdioArgs),
    /// Add, show, change and remove sets: some of what some services offer, at one address
    #[command(subcommand)]
    Set(set::Command),
    /// Add, show, change and remove users: people and programs
    #[command(subcommand)]
    User(user::Command),
    /// Add, show, change and remove roles: what users may do
    #[command(subcommand)]
    Role(role::Command),
    /// Share services with users and roles
    #[command(subcommand)]
    Grant(grant::Command),
    /// Add, show, change and remove policies: rules above roles and grants
    #[command(subcommand)]
    Policy(policy::Command),
    /// Find out who may do what, and why
    #[command(subcommand)]
    Auth(access::Command),
    /// Sign in with a browser, or with name and password, for the commands that follow
    ///
    /// Without a name the address of a page is shown (and opened, on a terminal with a desktop), on which you sign in
    /// and let the command line in. `--device` is for machines without a browser. With a name the password is asked
    /// for, or read from the input.
    ///
    /// What you get is kept in your folder of configurations, for the Vaxel that is meant and no other.
    #[command(
        after_help = "Examples:\n  vaxel --url https://vaxel.example.com login\n  vaxel --url https://vaxel.example.com login --device\n  vaxel login anna@example.com < password.txt"
    )]
    Login(login::Args),
    /// Sign out
    #[command(after_help = "Example:\n  vaxel logout")]
    Logout,
    /// Show who you are for Vaxel, and what you may do
    #[command(after_help = "Example:\n  vaxel whoami")]
    Whoami(Format),
    /// Search, export and verify the audit: who did what
    #[command(subcommand)]
    Audit(audit::Command),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Key(key::Command),
    /// Show and check the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Move what is stored
    #[command(subcommand)]
    Store(store::Command),
    /// Write everything that is stored into a file, while Vaxel runs
    #[command(
        after_help = "Examples:\n  vaxel backup vaxel.backup\n  vaxel backup vaxel.backup --with-keys"
    )]
    Backup(backup::BackupArgs),
    /// Read a backup: all of it while Vaxel does not run, or services while it does
    ///
    /// The whole file is checked first. What is there already is not touched unless --force says so.
    #[command(
        after_help = "Examples:\n  vaxel restore vaxel.backup --dry-run\n  vaxel restore vaxel.backup\n  vaxel restore vaxel.backup --service files"
    )]
    Restore(backup::RestoreArgs),
    /// Find out what is wrong
    #[command(after_help = "Example:\n  vaxel doctor")]
    Doctor(Format),
    /// Print a script that completes commands in a shell
    #[command(
        after_help = "Example:\n  vaxel completions bash > ~/.local/share/bash-completion/completions/vaxel"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// For commands that print tables.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
struct Format {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// For commands that change something.
#[derive(Debug, Clone, Default, clap::Args)]
struct Why {
    /// Why, for whoever reads the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

impl Why {
    /// The path of a change, with why it is made.
    fn on(&self, path: String) -> String {
        match &self.message {
            Some(message) => format!("{path}?message={}", vaxel_client::segment(message)),
            None => path,
        }
    }
}

/// How much of Vaxel a client gets to see.
#[derive(Debug, Clone, Default, clap::Args)]
struct Only {
    /// Only this service, under its own tool names
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only what is in this set
    #[arg(long, value_name = "NAME", conflicts_with = "service")]
    set: Option<String>,
}

impl Only {
    /// The path of the MCP endpoint, without a leading `/`.
    fn path(&self) -> String {
        match (&self.service, &self.set) {
            (Some(service), _) => format!("mcp/{service}"),
            (None, Some(set)) => format!("mcp/sets/{set}"),
            (None, None) => "mcp".to_owned(),
        }
    }

    /// The same as a flag and its value.
    fn flag(&self) -> Option<[String; 2]> {
        let service = self.service.as_ref().map(|name| ["--service", name]);
        let only = service.or(self.set.as_ref().map(|name| ["--set", name]));
        only.map(|only| only.map(str::to_owned))
    }

    /// What is added to the names of what is made for it.
    fn suffix(&self) -> String {
        match (&self.service, &self.set) {
            (Some(service), _) => format!("-{service}"),
            (None, Some(set)) => format!("-set-{set}"),
            (None, None) => String::new(),
        }
    }
}

/// What every command may use.
struct Context {
    global: Global,
    data_dir: PathBuf,
    style: Style,
}

impl Context {
    /// The Vaxel that is meant: the one that was named, else the one on this machine.
    fn client(&self) -> anyhow::Result<Client> {
        let (url, key) = self.address()?;
        self.client_at(&url, key.as_deref())
    }

    /// A client of the Vaxel at `url`.
    fn client_at(&self, url: &Url, key: Option<&str>) -> anyhow::Result<Client> {
        Ok(Client::trusting(url, key, self.roots()?)?.named(AGENT))
    }

    /// Who vouches for the certificate of the Vaxel that is meant.
    fn roots(&self) -> anyhow::Result<Roots> {
        if let Some(text) = &self.global.fingerprint {
            let known = vaxel_client::fingerprint(text).with_context(|| {
                format!("--fingerprint takes the 64 hexadecimal digits of a SHA-256, not `{text}`")
            })?;
            return Ok(Roots::Pinned(Pins::one(known)));
        }
        if let Some(file) = &self.global.ca {
            let text = std::fs::read(file)
                .with_context(|| format!("{} (--ca) cannot be read", file.display()))?;
            return Roots::also(&text)
                .map_err(|why| anyhow::anyhow!("{} (--ca): {why}", file.display()));
        }
        Ok(match &self.global.url {
            Some(_) => Roots::System,
            None => Local::roots(&self.data_dir),
        })
    }

    fn address(&self) -> anyhow::Result<(Url, Option<String>)> {
        if let Some(url) = &self.global.url {
            return Ok((url.clone(), self.global.key.clone()));
        }
        let local = Local::find(&self.data_dir)
            .ok_or_else(|| vaxel_client::Error::NotRunning(self.data_dir.clone()))?;
        Ok((local.url, self.global.key.clone().or(local.key)))
    }
}

impl Cli {
    /// Runs the command.
    pub(crate) async fn run(self) -> ExitCode {
        let env = paths::environment();
        let colour = match self.global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => std::io::stdout().is_terminal() && !env.contains_key("NO_COLOR"),
        };
        let mut context = Context {
            data_dir: paths::data_dir(self.global.data_dir.clone(), &env),
            style: Style {
                json: false,
                colour,
            },
            global: self.global,
        };
        context.style.json = self.command.format().json;
        // What runs for long outlives an access token: it takes a key.
        let takes_none = matches!(
            self.command,
            Command::Up(_) | Command::Stdio(_) | Command::Login(_)
        );
        if !takes_none && let Err(error) = login::use_it(&mut context).await {
            return output::fail(&error);
        }
        match dispatch(self.command, &context).await {
            Ok(code) => code,
            Err(error) => output::fail(&error),
        }
    }
}

impl Command {
    /// How the command's output is wanted.
    fn format(&self) -> Format {
        match self {
            Self::Status(format)
            | Self::Whoami(format)
            | Self::Doctor(format)
            | Self::Tool(tools::Command::Show { format, .. }) => *format,
            Self::Service(command) => command.format(),
            Self::Template(command) => command.format(),
            Self::Ls(args) => args.format,
            Self::Apply(args) => args.format,
            Self::Tools(args) => args.format,
            Self::Logs(args) => args.format,
            Self::Calls(args) => args.format,
            Self::Usage(args) => args.format,
            Self::Events(args) => args.format,
            Self::Set(command) => command.format(),
            Self::User(command) => command.format(),
            Self::Role(command) => command.format(),
            Self::Grant(command) => command.format(),
            Self::Policy(command) => command.format(),
            Self::Auth(command) => command.format(),
            Self::Audit(command) => command.format(),
            Self::Key(command) => command.format(),
            Self::Config(command) => command.format(),
            Self::Up(_)
            | Self::Down
            | Self::Login(_)
            | Self::Logout
            | Self::Import(_)
            | Self::Export(_)
            | Self::Call(_)
            | Self::Connect(_)
            | Self::Stdio(_)
            | Self::Store(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Completions { .. } => Format::default(),
        }
    }
}

async fn dispatch(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => return up::run(args, context.data_dir.clone()).await,
        Command::Down => server::down(context).await?,
        Command::Status(_) => server::status(context).await?,
        Command::Service(command) => return service::run(*command, context).await,
        Command::Template(command) => template::run(command, context).await?,
        Command::Ls(args) => service::list(&args, context).await?,
        Command::Import(args) => import::run(&args, context).await?,
        Command::Apply(args) => apply::run(&args, context).await?,
        Command::Export(args) => export::run(&args, context).await?,
        Command::Tools(args) => tools::list(&args, context).await?,
        Command::Tool(command) => tools::run(&command, context).await?,
        Command::Call(args) => return call::run(&args, context).await,
        Command::Logs(args) => logs::run(&args, context).await?,
        Command::Calls(args) => calls::run(&args, context).await?,
        Command::Usage(args) => usage::run(&args, context).await?,
        Command::Events(args) => events::run(&args, context).await?,
        Command::Connect(args) => connect::run(&args, context).await?,
        Command::Stdio(args) => server::stdio(&args, context).await?,
        Command::Set(command) => set::run(command, context).await?,
        Command::User(command) => user::run(command, context).await?,
        Command::Role(command) => role::run(command, context).await?,
        Command::Grant(command) => grant::run(command, context).await?,
        Command::Policy(command) => policy::run(command, context).await?,
        Command::Auth(command) => access::run(command, context).await?,
        Command::Login(args) => login::login(&args, context).await?,
        Command::Logout => login::logout(context).await?,
        Command::Whoami(_) => access::whoami(context).await?,
        Command::Audit(command) => return audit::run(command, context).await,
        Command::Key(command) => key::run(command, context).await?,
        Command::Config(command) => return Ok(config::run(&command, context)),
        Command::Store(command) => store::run(command, context).await?,
        Command::Backup(args) => backup::backup(args, context).await?,
        Command::Restore(args) => backup::restore(args, context).await?,
        Command::Doctor(_) => return doctor::run(context).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "vaxel", &mut script);
            output::raw(&String::from_utf8_lossy(&script));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The texts of a list, for a table.
fn words(list: &Value) -> String {
    let items = list.as_array().into_iter().flatten();
    let items: Vec<&str> = items.filter_map(Value::as_str).collect();
    items.join(" ")
}

/// Some members of a resource, as far as they are there.
fn parts(resource: &Value, keys: &[&str]) -> Value {
    let there = keys.iter().filter(|key| !resource[**key].is_null());
    there
        .map(|key| ((*key).to_owned(), resource[*key].clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that does something says what, and shows how it is typed.
    #[test]
    fn every_command_explains_itself_with_an_example() {
        let mut whole = Cli::command();
        whole.build();
        whole.clone().debug_assert();
        let mut silent = Vec::new();
        let mut open = vec![(String::from("vaxel"), whole)];
        while let Some((path, command)) = open.pop() {
            let below: Vec<_> = command
                .get_subcommands()
                .filter(|one| !one.is_hide_set())
                .collect();
            let explained = command.get_about().is_some();
            let text = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let shown = text
                .lines()
                .any(|line| line.contains(&path) || line.contains("\"command\""));
            if !explained || (below.is_empty() && !shown) {
                silent.push(path.clone());
            }
            let named = |one: &clap::Command| (format!("{path} {}", one.get_name()), one.clone());
            open.extend(
                below
                    .into_iter()
                    .filter(|one| one.get_name() != "help")
                    .map(named),
            );
        }
        assert_eq!(silent, Vec::<String>::new());
    }
}
