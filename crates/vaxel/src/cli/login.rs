//! `vaxel login` and `vaxel logout`: sign-ins that later commands go on with.
//!
//! They are kept in one file (0600) under the URLs of their servers. A refresh token is good once, so the file
//! is locked from before it is used until the next one is written.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;
use vaxel_client::{Client, Error};
use vaxel_core::time::{Clock, Timestamp};

use super::{Context, browser_login, passphrase};
use crate::{output, paths, wire::write_private};

/// An access token that is good for less than this is renewed first.
const MARGIN: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(super) struct Args {
    /// Name of the user; without it you sign in with a browser
    name: Option<String>,
    /// Show a code, for a browser on another machine
    #[arg(long, conflicts_with = "name")]
    device: bool,
}

/// What is kept of the sign-ins, by the URLs of their servers.
#[derive(Default, Serialize, Deserialize)]
struct Kept(BTreeMap<Url, SignedIn>);

#[derive(Clone, Serialize, Deserialize)]
struct SignedIn {
    user: String,
    /// It began in a browser, and is renewed as clients renew theirs.
    #[serde(default)]
    by_browser: bool,
    access_token: String,
    expires_at: Timestamp,
    refresh_token: String,
}

/// What the server answers.
#[derive(Deserialize)]
pub(super) struct Tokens {
    #[serde(alias = "username")]
    pub(super) user: String,
    access_token: String,
    expires_in: u64,
    refresh_token: String,
}

/// The file, which nobody else uses meanwhile.
struct Locked {
    path: PathBuf,
    kept: Kept,
    _lock: File,
}

pub(super) async fn login(args: &Args, context: &Context) -> anyhow::Result<()> {
    let (url, _) = context.address()?;
    let client = context.client_at(&url, None)?;
    let (tokens, by_browser) = match &args.name {
        Some(name) => (with_password(&client, name).await?, false),
        None if args.device => (browser_login::with_code(&client).await?, true),
        None => (browser_login::with_browser(&client).await?, true),
    };
    let user = tokens.user.clone();
    let mut locked = Locked::open()?;
    let signed_in = SignedIn::of(tokens, by_browser);
    locked.kept.0.insert(url.clone(), signed_in);
    locked.write()?;
    output::note(format!(
        "You are {user} at {url} now; `vaxel logout` ends it"
    ));
    Ok(())
}

async fn with_password(client: &Client, name: &str) -> anyhow::Result<Tokens> {
    let password = passphrase::password(&format!("Password of {name}: "))?;
    let mut body = json!({ "username": name, "password": password.expose() });
    let path = "/api/v1/auth/login";
    match client.post(path, &body).await {
        Err(Error::Problem(problem)) if problem.status == 403 => {
            output::note(problem.detail.clone());
            let new = passphrase::new_password("New password: ")?;
            body["new_password"] = new.expose().as_str().into();
            Ok(client.post(path, &body).await?)
        }
        answer => Ok(answer?),
    }
}

pub(super) async fn logout(context: &Context) -> anyhow::Result<()> {
    let (url, _) = context.address()?;
    let mut locked = Locked::open()?;
    let Some(signed_in) = locked.kept.0.remove(&url) else {
        output::note(format!("You are not signed in at {url}"));
        return Ok(());
    };
    let client = context.client_at(&url, Some(&signed_in.access_token))?;
    match client
        .post::<Value>("/api/v1/auth/logout", &json!({}))
        .await
    {
        // It is over already.
        Ok(_) | Err(Error::Problem(_)) => {}
        Err(error) => return Err(error.into()),
    }
    locked.write()?;
    output::note(format!("You are signed out at {url}"));
    Ok(())
}

/// Commands go on as who signed in at the Vaxel that is meant, unless a key was named.
pub(super) async fn use_it(context: &mut Context) -> anyhow::Result<()> {
    // Where nobody ever signed in, nothing is looked for.
    if context.global.key.is_some() || !file()?.exists() {
        return Ok(());
    }
    let Ok((url, _)) = context.address() else {
        return Ok(());
    };
    let mut locked = Locked::open()?;
    let Some(signed_in) = locked.kept.0.get(&url).cloned() else {
        return Ok(());
    };
    if signed_in.expires_at > Clock::system().now().plus(MARGIN) {
        context.global.key = Some(signed_in.access_token);
        return Ok(());
    }
    let client = context.client_at(&url, None)?;
    match renewed(&client, &signed_in).await {
        Ok(tokens) => {
            let signed_in = SignedIn::of(tokens, signed_in.by_browser);
            context.global.key = Some(signed_in.access_token.clone());
            locked.kept.0.insert(url, signed_in);
            locked.write()
        }
        Err(Error::Problem(problem))
            if problem.status == 401 || problem.kind == "invalid_grant" =>
        {
            locked.kept.0.remove(&url);
            locked.write()?;
            anyhow::bail!(
                "your sign-in as {} at {url} is over; `vaxel login` begins another one",
                signed_in.user
            );
        }
        // The command itself will say that nobody answers.
        Err(_) => Ok(()),
    }
}

async fn renewed(client: &Client, signed_in: &SignedIn) -> Result<Tokens, Error> {
    let token = signed_in.refresh_token.as_str();
    if signed_in.by_browser {
        return browser_login::renew(client, token).await;
    }
    let body = json!({ "refresh_token": token });
    client.post("/api/v1/auth/refresh", &body).await
}

impl SignedIn {
    fn of(tokens: Tokens, by_browser: bool) -> Self {
        let Tokens {
            user,
            access_token,
            expires_in,
            refresh_token,
        } = tokens;
        let expires_at = Clock::system().now().plus(Duration::from_secs(expires_in));
        Self {
            user,
            by_browser,
            access_token,
            expires_at,
            refresh_token,
        }
    }
}

impl Locked {
    fn open() -> anyhow::Result<Self> {
        let path = file()?;
        let folder = path.parent().context("the file is in no folder")?;
        fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        let lock = File::create(path.with_extension("lock"))
            .with_context(|| format!("{} cannot be locked", path.display()))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let kept = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{} cannot be read; remove it", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                let text = format!("{} cannot be read", path.display());
                return Err(anyhow::Error::new(error).context(text));
            }
        };
        Ok(Self {
            path,
            kept,
            _lock: lock,
        })
    }

    fn write(&self) -> anyhow::Result<()> {
        write_private(&self.path, &serde_json::to_string(&self.kept)?)
    }
}

fn file() -> anyhow::Result<PathBuf> {
    let env = paths::environment();
    let folder = paths::config_home(&env);
    let folder = folder.context("there is no folder for configurations: set HOME")?;
    Ok(folder.join("vaxel/logins.json"))
}
