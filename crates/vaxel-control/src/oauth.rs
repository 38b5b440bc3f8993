//! OAuth: clients log in for users. What a client asks for, whether its user lets it, and what it gets.
//!
//! What a client gets is a sign-in with a delegation beside it (ADR 10): lists, ends and renewal are those of
//! sign-ins. Codes, devices that wait and browsers that signed in are in memory.

use std::sync::OnceLock;

use serde_json::json;
use vaxel_auth::oauth::{endpoint::Endpoint, pkce::Challenge, redirect, scope};
use vaxel_core::{
    audit::AuditLine,
    failure::{Failure, Kind},
    principal::Permissions,
    user::UserResource,
};
use vaxel_egress::{Config as EgressConfig, Egress, Networks, Policy};

use crate::{control::Control, sign_in::acting};

mod browser; // who sits there
mod client; // who asks
mod code; // what goes through the browser
mod device; // programs without one
pub(crate) mod issuer; // another one who gives tokens
mod limit; // how often strangers may make us keep something
mod token; // what comes of it
mod registered; // what those who manage users see of clients

pub use browser::Browser;
pub use client::{Client, Registered};
pub use device::{DeviceStarted, Waiting};
pub use registered::RegisteredClient;
pub(crate) use token::audited;
pub use token::{OauthError, Presented, Tokens};

/// Longest `state`, bytes.
const STATE_MAX: usize = 4_000;

/// Everything of OAuth that is in memory.
#[derive(Default)]
pub(crate) struct Oauth {
    pub(crate) browsers: browser::Browsers,
    pub(crate) codes: code::Codes,
    pub(crate) devices: device::Devices,
    pub(crate) documents: client::Documents,
    pub(crate) registrations: limit::Limiter,
    egress: OnceLock<Egress>,
}

impl Oauth {
    /// Reaches addresses of the public internet only.
    pub(crate) fn egress(&self) -> Result<&Egress, Failure> {
        if let Some(egress) = self.egress.get() {
            return Ok(egress);
        }
        let config = EgressConfig {
            allow: Policy::Public(Networks::default()),
            max_connections_per_origin: 4,
            ..EgressConfig::default()
        };
        let egress = Egress::new(config).map_err(Failure::internal)?;
        Ok(self.egress.get_or_init(|| egress))
    }
}

/// The parameters of an authorization as they came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// `response_type`
    pub response_type: Option<String>,
    /// `client_id`
    pub client_id: Option<String>,
    /// `redirect_uri`
    pub redirect_uri: Option<String>,
    /// `state`
    pub state: Option<String>,
    /// `scope`
    pub scope: Option<String>,
    /// `resource` (RFC 8707)
    pub resource: Option<String>,
    /// `code_challenge` (RFC 7636)
    pub code_challenge: Option<String>,
    /// `code_challenge_method`
    pub code_challenge_method: Option<String>,
}

/// What a user is asked to let a client do.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// Who asks.
    pub client: Client,
    /// Where the answer goes.
    pub redirect: String,
    /// Where the tokens will be good.
    pub endpoint: Endpoint,
    /// What they will let through.
    pub permissions: Permissions,
    state: Option<String>,
    challenge: Challenge,
    issuer: String,
}

/// Why there is nothing to ask.
#[derive(Debug)]
pub enum Stopped {
    /// Shown to the person: nothing is known to which one could go back.
    Here(Failure),
    /// Told to the client.
    Told(Box<Impossible>),
}

/// What a client is told because it asked for what is not possible.
#[derive(Debug)]
pub struct Impossible {
    /// Who asked.
    pub client: Client,
    /// Its address without the answer.
    pub redirect: String,
    /// Why it is not possible.
    pub sentence: &'static str,
    /// Where the browser takes the answer.
    pub to: String,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

impl Control {
    /// The OAuth settings, when there is somebody to log in.
    ///
    /// # Errors
    /// `NotFound` where authentication is off, or OAuth is.
    pub fn oauth_is_on(&self) -> Result<(), Failure> {
        let config = &self.inner.context.config;
        if config.server.auth && config.oauth.enabled {
            return Ok(());
        }
        let detail = "Clients do not log in here: authentication or `oauth.enabled` is off";
        Err(Failure::new(Kind::NotFound, detail))
    }

    /// Whether clients may register themselves.
    pub fn oauth_registers(&self) -> bool {
        self.inner.context.config.oauth.registration
    }

    /// Who gives the tokens that clients of MCP need, for a client that knows this server as `base`.
    pub fn oauth_issuer<'a>(&'a self, base: &'a str) -> &'a str {
        let issuer = self.inner.context.config.oauth.issuer.as_ref();
        issuer.map_or(base, |issuer| &issuer.url)
    }

    /// How access tokens are signed.
    pub fn token_algorithm(&self) -> vaxel_auth::jwt::Algorithm {
        self.inner.context.config.tokens.algorithm
    }

    /// What a client asks for. `base` is the address of this server that it uses. Only for people who signed in:
    /// nobody else is sent anywhere.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn authorization(&self, asked: &Asked, base: &str) -> Result<Authorization, Stopped> {
        let client = asked.client_id.as_deref().unwrap_or_default();
        let client = self.oauth_client(client).await?;
        let redirect = client.redirect(asked.redirect_uri.as_deref())?;
        let state = asked.state.as_deref();
        let stop = |code, description| {
            let to = answer(
                &redirect,
                (state, base),
                &[("error", code), ("error_description", description)],
            );
            Err(Stopped::Told(Box::new(Impossible {
                client: client.clone(),
                redirect: redirect.clone(),
                sentence: description,
                to,
            })))
        };
        if state.is_some_and(|state| state.len() > STATE_MAX) {
            let detail = "The client sent a `state` that is longer than 4,000 bytes";
            return Err(Failure::new(Kind::Malformed, detail).into());
        }
        if asked.response_type.as_deref() != Some("code") {
            return stop("unsupported_response_type", "response_type is code here");
        }
        let challenge = asked.code_challenge.as_deref().and_then(Challenge::read);
        let Some(challenge) =
            challenge.filter(|_| asked.code_challenge_method.as_deref() == Some("S256"))
        else {
            return stop(
                "invalid_request",
                "PKCE with code_challenge_method S256 is needed",
            );
        };
        let Some(endpoint) = self.endpoint_of(asked.resource.as_deref(), base) else {
            return stop(
                "invalid_target",
                "resource is no MCP endpoint of this server",
            );
        };
        let Ok(permissions) = scope::read(asked.scope.as_deref()) else {
            return stop("invalid_scope", "none of the scopes is known here");
        };
        Ok(Authorization {
            state: state.map(str::to_owned),
            issuer: base.to_owned(),
            client,
            redirect,
            endpoint,
            permissions,
            challenge,
        })
    }

    /// Whether a user let this client do all of this before, and nobody else can claim to be it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn has_consented(
        &self,
        browser: &Browser,
        asked: &Authorization,
    ) -> Result<bool, Failure> {
        if redirect::is_local(&asked.redirect) {
            return Ok(false);
        }
        let what = (asked.client.id.as_str(), asked.endpoint.path());
        let before = self.store().oauth_consent(browser.user.id, what).await?;
        Ok(before.is_some_and(|before| before.covers(asked.permissions)))
    }

    /// Whether a user has ever let this client in: only then an answer goes there without a click, since anybody
    /// can register an address and have people follow a link through us.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn is_known_to(&self, browser: &Browser, client: &Client) -> Result<bool, Failure> {
        let user = browser.user.id;
        Ok(client.is_own() || self.store().has_oauth_consent(user, &client.id).await?)
    }

    /// The user lets the client: where to go with the code.
    ///
    /// # Errors
    /// `Busy` when too many codes wait; those of the store.
    pub async fn allow(&self, browser: &Browser, asked: Authorization) -> Result<String, Failure> {
        self.remember_consent(
            &browser.user,
            &asked.client,
            (&asked.endpoint, asked.permissions),
        )
        .await?;
        let code = self
            .inner
            .oauth
            .codes
            .make(code::Code::of(&asked, browser), self.now())?;
        // Between consent and token it is not to be thrown away as one that nobody uses.
        self.note_use(&asked.client.id).await;
        Ok(asked.answer(&[("code", &code)]))
    }

    /// What the audit says of what a user lets a client do.
    fn consent_line(
        &self,
        user: &UserResource,
        client: &Client,
        (endpoint, permissions): (&Endpoint, Permissions),
    ) -> AuditLine {
        let target = ("oauth client", client.id.clone(), client.name.clone());
        let mut audit = self.line(&acting(user), "oauth.consent", target);
        audit.detail = json!({ "endpoint": endpoint.path(), "scope": scope::text(permissions) });
        audit
    }

    async fn remember_consent(
        &self,
        user: &UserResource,
        client: &Client,
        (endpoint, permissions): (&Endpoint, Permissions),
    ) -> Result<(), Failure> {
        let audit = self.consent_line(user, client, (endpoint, permissions));
        let given = (client.id.as_str(), endpoint.path(), permissions);
        Ok(self
            .store()
            .put_oauth_consent(user.id, given, audit)
            .await?)
    }

    /// The endpoint that a `resource` names. Clients of before MCP 2025-06-18 name none: theirs is the whole
    /// server, where their scopes limit them.
    pub(crate) fn endpoint_of(&self, resource: Option<&str>, base: &str) -> Option<Endpoint> {
        match resource {
            None => Some(Endpoint::whole()),
            Some(resource) => {
                Endpoint::of(resource, &[base, &self.inner.context.config.server.url])
            }
        }
    }
}

impl Authorization {
    /// The user does not let the client: where to go.
    pub fn denied(&self) -> String {
        self.answer(&[
            ("error", "access_denied"),
            ("error_description", "The user said no"),
        ])
    }

    fn answer(&self, parameters: &[(&str, &str)]) -> String {
        answer(
            &self.redirect,
            (self.state.as_deref(), &self.issuer),
            parameters,
        )
    }
}

/// An answer with the state of its request and who gives it (RFC 9207).
fn answer(
    redirect: &str,
    (state, issuer): (Option<&str>, &str),
    parameters: &[(&str, &str)],
) -> String {
    let mut all = parameters.to_vec();
    all.extend(state.map(|state| ("state", state)));
    all.push(("iss", issuer));
    redirect::with(redirect, &all)
}
