//! A user lets Vaxel in at the authorization server of a service (authorization code with PKCE).
//!
//! The link that a caller gets leads to Vaxel first: only the browser of the very user who asked goes on from
//! there, and only that browser may bring back the answer. Otherwise whoever gets somebody else to open a link
//! would hold a token of theirs (MCP 2026-07-28, URL mode elicitation, phishing).

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use vaxel_auth::{
    oauth::{
        discovery::{Challenge, DOCUMENT_MAX},
        grant::{Identity, authorize_url, is_from},
        pkce,
    },
    random,
};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    principal::{Permission, Principal, Proof},
    secret::Secret,
    service::{Grant, Registration},
    time::Timestamp,
};
use vaxel_egress::Body;

use super::{Found, Kept, USER, Wanted, finding::Post, of_user, scopes, token::not_given};
use crate::{
    change::{Outcome, ServiceRef},
    control::Control,
    sign_in::Origin,
};

/// Where the browser comes back to.
pub const CALLBACK_PATH: &str = "/oauth/callback";
/// Where a user begins.
pub const CONNECT_PATH: &str = "/oauth/connect";
/// The document that says what Vaxel is as a client; its address is the client's name.
pub const CLIENT_PATH: &str = "/oauth/client.json";

/// How long somebody may take.
const LASTS: Duration = Duration::from_mins(10);
/// Users who are on their way at once; the oldest makes room.
const MOST: usize = 1_000;
/// What registrations are kept as.
const CLIENT: &str = "client";

/// Users who are on their way, by what their links carry.
pub(super) type PendingConsents = Mutex<HashMap<String, Pending>>;

#[derive(Clone)]
pub(super) struct Pending {
    service: Id<Service>,
    user: String,
    /// What the authorization server gives back.
    state: String,
    verifier: Secret<String>,
    found: Arc<Found>,
    /// What the token will be kept as.
    draft: Kept,
    /// Where the browser goes.
    location: String,
    until: Timestamp,
}

/// How a user stands with a service that is shown tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationState {
    /// Everyone shares Vaxel's own tokens: there is nothing to let in.
    pub is_shared: bool,
    /// There is a token of this user.
    pub is_granted: bool,
    /// Who gave it.
    pub issuer: Option<String>,
    /// What it lets through.
    pub scopes: Vec<String>,
    /// Where the user lets Vaxel in, when that is to be done.
    pub link: Option<String>,
}

/// What came back with a browser.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    /// `state`
    pub state: Option<String>,
    /// `code`
    pub code: Option<Secret<String>>,
    /// `iss` (RFC 9207)
    pub iss: Option<String>,
    /// `error`
    pub error: Option<String>,
}

impl Leaving {
    /// What is said where nobody is waited for.
    pub fn over() -> Failure {
        let detail = "This log-in has ended, or somebody else began it. Repeat the call, or type \
                      `vaxel service authorize NAME`: that brings a new link";
        Failure::new(Kind::NotFound, detail)
    }
}

/// What Vaxel is called at an authorization server where it registered itself.
#[derive(Serialize, Deserialize)]
struct Registered {
    identity: Identity,
    redirect: String,
}

impl Control {
    /// How a user stands with a service, with a link where something is to be done.
    ///
    /// # Errors
    /// An unknown name; `Conflict` for a service that is shown no tokens; whatever keeps the authorization server
    /// from being found.
    pub async fn upstream_authorization(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<AuthorizationState, Failure> {
        let resource = self
            .find_for(caller, Permission::McpExecute, service)
            .await?;
        let wanted = Wanted::of(resource)?;
        let mut state = AuthorizationState {
            is_shared: wanted.oauth.grant == Grant::ClientCredentials,
            is_granted: false,
            issuer: None,
            scopes: Vec::new(),
            link: None,
        };
        if state.is_shared {
            return Ok(state);
        }
        let user = user_of(caller)?;
        if let Some(kept) = self.kept(&wanted, &of_user(&user)).await? {
            state.is_granted = true;
            state.issuer = Some(kept.issuer);
            state.scopes = kept.scopes;
            return Ok(state);
        }
        let challenge = self.challenge(&wanted).await?;
        let found = self.found(&wanted, &challenge, true).await?;
        let asked = scopes(&wanted, (&challenge, None), &found)?;
        state.issuer = Some(found.server.issuer.clone());
        state.link = Some(self.consent_link(&wanted, &user, (found, asked)).await?);
        Ok(state)
    }

    /// Forgets the token of a user ([`Change::ForgetAuthorization`](crate::Change::ForgetAuthorization)). With the
    /// last one goes what Vaxel is called there, so that it can begin anew.
    pub(crate) async fn forget_authorization(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Outcome, Failure> {
        let resource = self
            .find_for(caller, Permission::McpExecute, service)
            .await?;
        let wanted = Wanted::of(resource)?;
        let service = wanted.resource.id;
        let holder = of_user(&user_of(caller)?);
        let _turn = self.turn_of(service, &holder).await;
        let audit = self.audit(caller, "service.forget_authorization", &wanted.resource);
        let place = (service, holder);
        let forgotten = self
            .store()
            .forget_upstream_token(place, Some(audit))
            .await?;
        if forgotten {
            // Its links hold the token, too.
            self.inner.signals.restart(service);
        }
        let rows = self.store().upstream_tokens(service).await?;
        let is_used = rows.iter().any(|row| row.holder.starts_with(USER));
        if !is_used && wanted.oauth.client_id.is_none() {
            for row in rows
                .into_iter()
                .filter(|row| row.holder == client_of(&row.issuer))
            {
                let place = (service, row.holder);
                self.store().forget_upstream_token(place, None).await?;
            }
            let pending = &self.inner.upstream_tokens.pending;
            pending.lock().retain(|_, one| one.service != service);
        }
        Ok(Outcome::Done)
    }

    /// Forgets what Vaxel is called at an authorization server that knows no such client any more, and every link
    /// that leads there under this name.
    pub(super) async fn forget_registration(
        &self,
        wanted: &Wanted,
        (issuer, client): (&str, &str),
    ) -> Result<(), Failure> {
        let service = wanted.resource.id;
        let pending = &self.inner.upstream_tokens.pending;
        pending
            .lock()
            .retain(|_, one| one.service != service || one.draft.identity.id != client);
        let holder = client_of(issuer);
        let known: Option<Registered> = self.unsealed(wanted, &holder).await?;
        if known.is_some_and(|known| known.identity.id == client) {
            self.store()
                .forget_upstream_token((service, holder), None)
                .await?;
        }
        Ok(())
    }

    /// Where a user goes who opened a link.
    ///
    /// # Errors
    /// `NotFound` when it has ended, or is not that user's.
    pub fn begin_upstream_consent(&self, ticket: &str, user: &str) -> Result<String, Failure> {
        let pending = self.inner.upstream_tokens.pending.lock();
        let found = pending.get(ticket);
        let found = found.filter(|one| one.user == user && self.now() < one.until);
        found
            .map(|one| one.location.clone())
            .ok_or_else(Leaving::over)
    }

    /// A user at a browser, who comes from there; `None` when it may not sign in any more.
    pub fn at_browser(&self, user: &str, origin: &Origin) -> Option<Principal> {
        let user = self.as_user(user)?;
        Some(Principal {
            came: Some(origin.came()),
            ..user
        })
    }

    /// Takes what the browser of a user brought back, and what that is good for
    /// ([`Change::FinishAuthorization`](crate::Change::FinishAuthorization)): the service can be called now.
    pub(crate) async fn finish_authorization(
        &self,
        caller: &Principal,
        back: Leaving,
    ) -> Result<Outcome, Failure> {
        let user = user_of(caller)?;
        let pending = self.taken(back.state.as_deref(), &user)?;
        let service = ServiceRef::Id(pending.service);
        let resource = self
            .find_for(caller, Permission::McpExecute, &service)
            .await?;
        let wanted = Wanted::of(resource)?;
        let issuer = &pending.found.server.issuer;
        let refused = |what: String| wanted.failed(Kind::UpstreamUnavailable, what);
        if wanted.mark() != pending.draft.mark {
            return Err(Leaving::over());
        }
        // Before anything else that was said: it may come from somebody else (RFC 9207 §2.4).
        if !is_from(&pending.found.server, back.iss.as_deref()) {
            return Err(refused(format!("the answer does not come from {issuer}")));
        }
        let code = match (back.code, back.error) {
            (Some(code), None) => code,
            (_, error) => {
                let word: String = error.unwrap_or_default().chars().take(60).collect();
                return Err(refused(format!("{issuer} did not let Vaxel in (`{word}`)")));
            }
        };
        let redirect = self.redirect();
        let parameters = [
            ("code", code.expose().as_str()),
            ("redirect_uri", &redirect),
            ("code_verifier", pending.verifier.expose()),
            ("resource", &pending.draft.resource),
        ];
        let holder = of_user(&pending.user);
        let _turn = self.turn_of(pending.service, &holder).await;
        let asked = ("authorization_code", &parameters[..]);
        let kept = match self.given(&wanted, asked, &pending.draft).await? {
            Ok(given) => self.with(&pending.draft, given),
            Err(not) => {
                self.is_forgotten(&wanted, &pending.draft, &not).await?;
                return Err(refused(not_given(&pending.draft, &not)));
            }
        };
        let is_first = self.stand_in(&wanted).await?.is_none();
        let mut audit = self.audit(caller, "service.authorize", &wanted.resource);
        audit.detail = json!({ "issuer": kept.issuer, "scopes": kept.scopes });
        self.keep((&wanted, &holder), (&kept.issuer, &kept), Some(audit))
            .await?;
        if is_first {
            // Nothing could be asked there until now.
            self.inner.signals.restart(pending.service);
        }
        let observed = self.observe(wanted.resource).await;
        Ok(Outcome::Service(Box::new(observed)))
    }

    /// Where a user lets Vaxel in. Who asks twice gets the same link.
    pub(super) async fn consent_link(
        &self,
        wanted: &Wanted,
        user: &str,
        (found, scopes): (Arc<Found>, Vec<String>),
    ) -> Result<String, Failure> {
        let base = &self.inner.context.config.server.url;
        let link = |ticket: &str| format!("{base}{CONNECT_PATH}?ticket={ticket}");
        let (service, mark, now) = (wanted.resource.id, wanted.mark(), self.now());
        let is_same = |one: &Pending| {
            (one.service, one.user.as_str()) == (service, user)
                && (&one.draft.mark, &one.draft.scopes) == (&mark, &scopes)
                && one.found.server.issuer == found.server.issuer
                && now < one.until
        };
        {
            let pending = self.inner.upstream_tokens.pending.lock();
            if let Some((ticket, _)) = pending.iter().find(|(_, one)| is_same(one)) {
                return Ok(link(ticket));
            }
        }
        let identity = self.identity(wanted, &found).await?;
        let (state, verifier) = (random::token(43), random::token(64));
        let location =
            self.location(wanted, (&found, &scopes), (&identity.id, &state, &verifier))?;
        let draft = Kept {
            access: String::new(),
            refresh: None,
            until: None,
            scopes,
            issuer: found.server.issuer.clone(),
            token_endpoint: found.server.token_endpoint.clone(),
            resource: found.resource.clone(),
            identity,
            mark,
        };
        let ticket = random::token(43);
        let one = Pending {
            service,
            user: user.to_owned(),
            state,
            verifier: Secret::new(verifier),
            found,
            draft,
            location,
            until: now.plus(LASTS),
        };
        let mut pending = self.inner.upstream_tokens.pending.lock();
        pending.retain(|_, one| {
            now < one.until && (one.service, one.user.as_str()) != (service, user)
        });
        if pending.len() >= MOST
            && let Some(oldest) = pending.iter().min_by_key(|(_, one)| one.until)
        {
            let oldest = oldest.0.clone();
            pending.remove(&oldest);
        }
        pending.insert(ticket.clone(), one);
        Ok(link(&ticket))
    }

    /// The address of the authorization server's page, with what is asked for.
    fn location(
        &self,
        wanted: &Wanted,
        (found, scopes): (&Found, &[String]),
        (client, state, verifier): (&str, &str, &str),
    ) -> Result<String, Failure> {
        let server = &found.server;
        let lacks = |what: &str| {
            let detail = format!("{} {what}", server.issuer);
            wanted.failed(Kind::UpstreamUnavailable, detail)
        };
        if !server
            .code_challenge_methods_supported
            .iter()
            .any(|one| one == "S256")
        {
            return Err(lacks(
                "does not say that it binds codes to who asked for them (PKCE, S256)",
            ));
        }
        let endpoint = server.authorization_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| lacks("has no page for users"))?;
        let (redirect, challenge, scope) =
            (self.redirect(), pkce::challenge(verifier), scopes.join(" "));
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", &redirect),
            ("state", state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", &found.resource),
        ];
        if !scope.is_empty() {
            parameters.push(("scope", &scope));
        }
        if scopes.iter().any(|scope| scope == "offline_access") {
            parameters.push(("prompt", "consent"));
        }
        let url = authorize_url(endpoint, &parameters);
        url.map(String::from)
            .map_err(|_| lacks("has no page for users"))
    }

    /// What Vaxel is called there: as configured, else by its own address, else by registering.
    async fn identity(&self, wanted: &Wanted, found: &Found) -> Result<Identity, Failure> {
        if let Some(identity) = self.registered_identity(wanted, found).await? {
            return Ok(identity);
        }
        let (server, way) = (&found.server, wanted.oauth.registration);
        let address = format!("{}{CLIENT_PATH}", self.inner.context.config.server.url);
        let has_address =
            address.starts_with("https:") && server.client_id_metadata_document_supported;
        if way != Registration::Dcr && has_address {
            return Ok(Identity::new(address, None, server));
        }
        let redirect = self.redirect();
        let known: Option<Registered> = match way {
            Registration::Cimd => None,
            Registration::Auto | Registration::Dcr => {
                self.unsealed(wanted, &client_of(&server.issuer)).await?
            }
        };
        if let Some(known) = known.filter(|known| known.redirect == redirect) {
            return Ok(known.identity);
        }
        let endpoint = server.registration_endpoint.as_deref();
        let Some(endpoint) = endpoint.filter(|_| way != Registration::Cimd) else {
            let detail = format!(
                "Vaxel cannot become a client of {} by itself. Register it there with the redirect address \
                 {redirect}, and set `client_id` (and `client_secret`)",
                server.issuer
            );
            return Err(wanted.failed(Kind::UpstreamUnavailable, detail));
        };
        let mut asked = self.client_document();
        if let Some(document) = asked.as_object_mut() {
            document.remove("client_id");
        }
        let post = Some(Post::Json(asked.to_string()));
        let (status, body) = self.reach(wanted, endpoint, post).await?;
        let identity = Identity::registered(status, &body, server).map_err(|not| {
            let detail = format!("{} did not register Vaxel, {not}", server.issuer);
            wanted.failed(Kind::UpstreamUnavailable, detail)
        })?;
        let registered = Registered { identity, redirect };
        let holder = client_of(&server.issuer);
        self.keep((wanted, &holder), (&server.issuer, &registered), None)
            .await?;
        Ok(registered.identity)
    }

    /// Who everybody is, where nobody logs in.
    pub fn everyone(&self) -> Option<Principal> {
        let is_open = !self.inner.context.config.server.auth;
        is_open.then(Principal::unguarded)
    }

    /// What Vaxel says of itself as a client (OAuth Client ID Metadata Document).
    pub fn client_document(&self) -> serde_json::Value {
        let base = &self.inner.context.config.server.url;
        let is_web = base.starts_with("https:");
        json!({
            "client_id": format!("{base}{CLIENT_PATH}"),
            "client_name": "Vaxel",
            "client_uri": base,
            "application_type": if is_web { "web" } else { "native" },
            "redirect_uris": [self.redirect()],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        })
    }

    fn redirect(&self) -> String {
        format!("{}{CALLBACK_PATH}", self.inner.context.config.server.url)
    }

    /// What the server says to somebody without a token.
    async fn challenge(&self, wanted: &Wanted) -> Result<Challenge, Failure> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let message = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let asked = async {
            let egress = self.inner.context.egress(&wanted.resource);
            let target = egress.origin(&wanted.url)?;
            let mut request = http::Request::new(Body::Full(message.into()));
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = target.uri().clone();
            let headers = request.headers_mut();
            let kind = |text| http::HeaderValue::from_static(text);
            headers.insert(http::header::CONTENT_TYPE, kind("application/json"));
            headers.insert(
                http::header::ACCEPT,
                kind("application/json, text/event-stream"),
            );
            let reply = target.send(request, deadline).await?;
            let all = reply.parts.headers.get_all(http::header::WWW_AUTHENTICATE);
            let all: Vec<_> = all.iter().filter_map(|one| one.to_str().ok()).collect();
            let text = all.join(", ");
            // Only its head counts.
            let _ = reply.body.collect(DOCUMENT_MAX, deadline).await;
            Ok::<_, vaxel_egress::Error>(Challenge::read(&text))
        };
        asked
            .await
            .map_err(|error| wanted.failed(Kind::UpstreamUnavailable, error))
    }

    /// Takes away who is waited for: an answer counts once.
    fn taken(&self, state: Option<&str>, user: &str) -> Result<Pending, Failure> {
        let mut pending = self.inner.upstream_tokens.pending.lock();
        let now = self.now();
        let is_it = |one: &Pending| {
            Some(one.state.as_str()) == state && one.user == user && now < one.until
        };
        let ticket = pending
            .iter()
            .find(|(_, one)| is_it(one))
            .map(|(ticket, _)| ticket.clone());
        ticket
            .and_then(|ticket| pending.remove(&ticket))
            .ok_or_else(Leaving::over)
    }
}

fn client_of(issuer: &str) -> String {
    format!("{CLIENT}:{issuer}")
}

fn user_of(caller: &Principal) -> Result<String, Failure> {
    let user = match caller.proof {
        Proof::Unguarded => Some(caller.name.to_string()),
        Proof::Key(_) | Proof::User(_) => caller.rights.user().map(ToString::to_string),
        Proof::System => None,
    };
    user.ok_or_else(|| Failure::new(Kind::NotPermitted, "Only users log in to services"))
}
