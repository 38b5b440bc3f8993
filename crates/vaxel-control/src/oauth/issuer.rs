//! Another authorization server: its keys are read now and then, and given to the data plane.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;
use vaxel_auth::{
    foreign::{Issuer, KeysFrom},
    jwks::{DOCUMENT_MAX, KeySet},
    visitor::Visitors,
};

use crate::{config::IssuerConfig, control::Control};

/// How often the keys are read: a new one is taken so long after it is published, at most.
const EVERY: Duration = Duration::from_mins(5);
/// The same after a failure.
const AGAIN: Duration = Duration::from_secs(15);
/// Longest wait for one document.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the keys of `config`'s server until `stop`. The last ones stay good while it does not answer. Where a secret
/// is shared, that is the one key, and nothing is fetched.
pub(crate) async fn follow(control: Control, config: IssuerConfig, stop: CancellationToken) {
    let server = &control.inner.context.config.server.url;
    let claims = (config.user_claim.as_str(), config.roles_claim.as_deref());
    if let Some(secret) = config.secret {
        match KeySet::of_secret(&secret) {
            Ok(keys) => {
                let from = KeysFrom::Secret(secret);
                let issuer = Issuer::for_server(config.url.as_str(), server, from, claims);
                control.publish_visitors(Visitors::new(issuer, keys, server));
            }
            Err(error) => {
                tracing::error!(issuer = config.url, %error, "no token of this issuer is good");
            }
        }
        return;
    }
    let issuer = Issuer::for_server(config.url.as_str(), server, KeysFrom::Discovery, claims);
    let mut last = None;
    loop {
        let wait = match read(&control, &issuer).await {
            Ok(document) => {
                if last.as_ref() != Some(&document)
                    && let Ok(keys) = KeySet::read(&document)
                {
                    let visitors = Visitors::new(issuer.clone(), keys, server);
                    let visitors = visitors.with_roles(config.roles.clone());
                    control.publish_visitors(visitors);
                    tracing::info!(
                        issuer = config.url,
                        "the keys of the authorization server were read"
                    );
                    last = Some(document);
                }
                EVERY
            }
            Err(error) => {
                tracing::warn!(
                    issuer = config.url,
                    error,
                    "the keys of the authorization server cannot be read"
                );
                AGAIN
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The document with the issuer's keys.
async fn read(control: &Control, issuer: &Issuer) -> Result<Vec<u8>, String> {
    let mut why = String::new();
    for address in issuer.discovery() {
        let found = match fetch(control, &address).await {
            Ok(found) => issuer
                .read_discovery(&found)
                .map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match found {
            Ok(keys) => {
                let document = fetch(control, &keys).await?;
                KeySet::read(&document).map_err(|error| error.to_string())?;
                return Ok(document);
            }
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}

async fn fetch(control: &Control, address: &str) -> Result<Vec<u8>, String> {
    let url = Url::parse(address).map_err(|error| error.to_string())?;
    let limits = (DOCUMENT_MAX, Instant::now() + PATIENCE);
    let found = control
        .inner
        .context
        .gateway
        .egress()
        .document(&url, limits)
        .await;
    match found.map_err(|error| error.to_string())? {
        (200, document) => Ok(document.to_vec()),
        (status, _) => Err(format!("the answer has the status {status}")),
    }
}
