//! `vaxel login` without a name: the browser signs in and lets the command line in, as it does any other client
//! (RFC 8252), or a code is typed on another machine (RFC 8628).

use std::{process::Stdio, time::Duration};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout, timeout_at},
};
use vaxel_auth::{
    oauth::{metadata::DEVICE_GRANT, pkce, scope},
    random,
};
use vaxel_client::{Client, Error};
use vaxel_core::principal::Permissions;

use super::login::Tokens;
use crate::output;

/// What the command line is called there.
const CLIENT: &str = "vaxel-cli";
/// How long a person may take.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long a browser may take for its request, and how long that is, bytes.
const REQUEST: Duration = Duration::from_secs(5);
const REQUEST_MAX: usize = 8 << 10;
const BACK: &str = "<!doctype html><meta charset=utf-8><title>Vaxel</title><p>Back to the terminal: \
                    you can close this page.";

/// What the server says of itself (RFC 8414), as far as it is needed.
#[derive(Deserialize)]
struct Server {
    issuer: String,
    authorization_endpoint: String,
}

#[derive(Deserialize)]
struct Started {
    device_code: String,
    user_code: String,
    verification_uri: String,
    interval: u64,
}

/// By a browser on this machine.
pub(super) async fn with_browser(client: &Client) -> anyhow::Result<Tokens> {
    let server = server(client).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.context("no port of this machine can be listened at")?;
    let redirect = format!("http://{}/callback", listener.local_addr()?);
    let (verifier, state) = (random::token(64), random::token(32));
    let scope = scope::text(Permissions::ALL);
    let challenge = pkce::challenge(&verifier);
    let asked = [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", redirect.as_str()),
        ("scope", &scope),
        ("resource", &server.issuer),
        ("state", &state),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let page = url::Url::parse_with_params(&server.authorization_endpoint, asked)?;
    output::note(format!(
        "Sign in with your browser, within ten minutes:\n\n  {page}\n"
    ));
    open(page.as_str());
    let code = callback(&listener, (&state, &server.issuer)).await?;
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", CLIENT),
        ("code", &code),
        ("redirect_uri", &redirect),
        ("code_verifier", &verifier),
    ];
    Ok(client.post_form("/oauth/token", &form).await?)
}

/// By a code that is typed elsewhere.
pub(super) async fn with_code(client: &Client) -> anyhow::Result<Tokens> {
    let server = server(client).await?;
    let scope = scope::text(Permissions::ALL);
    let asked = [
        ("client_id", CLIENT),
        ("scope", &scope),
        ("resource", &server.issuer),
    ];
    let started: Started = client
        .post_form("/oauth/device_authorization", &asked)
        .await?;
    output::note(format!(
        "Open {} and type the code {}, within ten minutes",
        started.verification_uri, started.user_code
    ));
    let mut every = Duration::from_secs(started.interval.clamp(1, 60));
    let end = Instant::now() + PATIENCE;
    let form = [
        ("grant_type", DEVICE_GRANT),
        ("client_id", CLIENT),
        ("device_code", &started.device_code),
    ];
    loop {
        sleep(every).await;
        match client.post_form("/oauth/token", &form).await {
            Err(Error::Problem(problem)) if problem.kind == "slow_down" => every *= 2,
            Err(Error::Problem(problem)) if problem.kind == "authorization_pending" => {}
            answer => return Ok(answer?),
        }
        anyhow::ensure!(Instant::now() < end, "nobody typed the code in time");
    }
}

/// The next tokens.
pub(super) async fn renew(client: &Client, refresh: &str) -> Result<Tokens, Error> {
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT),
        ("refresh_token", refresh),
    ];
    client.post_form("/oauth/token", &form).await
}

async fn server(client: &Client) -> anyhow::Result<Server> {
    let server = client.get("/.well-known/oauth-authorization-server").await;
    server.context("nobody can sign in there with a browser")
}

/// The code that the browser brings.
async fn callback(listener: &TcpListener, (state, issuer): (&str, &str)) -> anyhow::Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let came = timeout_at(end, listener.accept()).await;
        let (mut stream, _) = came.context("nobody signed in within ten minutes")??;
        let Some(query) = asked(&mut stream).await else {
            continue;
        };
        let get = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        // What does not know the state was not sent by our browser.
        if get("state").as_deref() != Some(state) {
            continue;
        }
        anyhow::ensure!(
            get("iss").as_deref() == Some(issuer),
            "the answer came from another server than {issuer}"
        );
        if let Some(error) = get("error") {
            anyhow::bail!("{}", get("error_description").unwrap_or(error));
        }
        return get("code").context("the answer holds no code");
    }
}

/// The query of a browser's request for `/callback`, which is answered.
async fn asked(stream: &mut TcpStream) -> Option<String> {
    let mut head = vec![0; REQUEST_MAX];
    let mut length = 0;
    let read = async {
        while !head[..length].windows(4).any(|end| end == b"\r\n\r\n") && length < head.len() {
            match stream.read(&mut head[length..]).await {
                Ok(more) if more > 0 => length += more,
                _ => return,
            }
        }
    };
    timeout(REQUEST, read).await.ok()?;
    let line = std::str::from_utf8(&head[..length]).ok()?.lines().next()?;
    let path = line.strip_prefix("GET ")?.split(' ').next()?;
    let query = path.strip_prefix("/callback?").map(str::to_owned);
    let (status, body) = match query {
        Some(_) => ("200 OK", BACK),
        None => ("404 Not Found", ""),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // The code is here, whether or not the browser sees the page.
    let _ = timeout(REQUEST, stream.write_all(answer.as_bytes())).await;
    query
}

/// Opens a page where there is a desktop. It is no matter when that fails: the address was shown.
pub(super) fn open(page: &str) {
    if !output::is_terminal() {
        return;
    }
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let _ = std::process::Command::new(program)
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}
