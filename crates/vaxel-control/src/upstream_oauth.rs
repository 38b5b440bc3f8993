//! Vaxel as a client of OAuth: tokens that remote servers want to be shown, got and kept per holder.
//!
//! The data plane asks here when it has no token, or one that a server refuses ([`vaxel_gateway::TokenRequest`]); calls wait
//! for the answer with their own deadline. Of one holder one request is worked on at a time: those that wait
//! for it find its token. What a caller came with is never part of any of this.

use std::{sync::Arc, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use url::Url;
use vaxel_auth::{digest, oauth::discovery::Challenge};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    principal::Permission,
    service::{Grant, McpSource, ServiceResource, Source, UpstreamOauth},
};
use vaxel_gateway::{Bearer, Refused};

use crate::control::Control;

mod consent; // a user lets Vaxel in
mod finding; // who gives the tokens of a server
mod kept; // what was got
mod token; // getting one
mod turns; // who waits for whom

pub use consent::{AuthorizationState, CALLBACK_PATH, CLIENT_PATH, CONNECT_PATH, Leaving};
use finding::Found;
use kept::Kept;
pub(crate) use kept::context;
use turns::Place;
pub(crate) use turns::{WAITING, serve};

/// What everyone shares where users have no tokens of their own.
const EVERYONE: &str = "service";
/// What tokens of users are kept as, before their names.
const USER: &str = "user:";
/// Everything of this that is in memory.
#[derive(Default)]
pub(crate) struct UpstreamTokens {
    turns: turns::Turns,
    found: finding::Known,
    pending: consent::PendingConsents,
}

/// A token that is asked for.
struct Asked {
    service: Id<Service>,
    /// Who calls; `None` is Vaxel itself, or everyone.
    user: Option<Arc<str>>,
    refused: Option<Refused>,
}

/// A request whose turn it is.
enum Begun {
    /// What is kept is the answer, or that there is nothing.
    Known(Option<Bearer>),
    /// There is something to do first.
    Work(Box<Work>),
}

/// What there is to do, and with what.
struct Work {
    wanted: Wanted,
    holder: String,
    kept: Option<Kept>,
    _turn: Place,
    _place: OwnedSemaphorePermit,
}

/// What a service wants, read once per request.
struct Wanted {
    resource: ServiceResource,
    /// The MCP endpoint.
    url: Url,
    oauth: UpstreamOauth,
}

impl Wanted {
    fn of(resource: ServiceResource) -> Result<Self, Failure> {
        let Source::Mcp(McpSource { url, auth, .. }) = &resource.spec.source else {
            return Err(no_tokens(&resource));
        };
        let oauth = auth.oauth().cloned().ok_or_else(|| no_tokens(&resource))?;
        let url = url.parse().map_err(Failure::internal)?;
        Ok(Self {
            resource,
            url,
            oauth,
        })
    }

    /// What tokens are good for: those that were got for another address, client or scope are not shown.
    fn mark(&self) -> String {
        let oauth = UpstreamOauth {
            client_secret: None,
            ..self.oauth.clone()
        };
        let text = serde_json::json!([self.url.as_str(), oauth]).to_string();
        let digest = digest::sha256(text.as_bytes());
        let first = digest.first_chunk().copied().unwrap_or_default();
        format!("{:016x}", u64::from_be_bytes(first))
    }

    fn failed(&self, kind: Kind, what: impl std::fmt::Display) -> Failure {
        let name = &self.resource.name;
        Failure::new(kind, format!("`{name}` cannot be shown a token: {what}"))
    }
}

fn no_tokens(resource: &ServiceResource) -> Failure {
    let detail = format!(
        "`{}` is shown no tokens of OAuth: it has no `source.mcp.auth.oauth`",
        resource.name
    );
    Failure::new(Kind::Conflict, detail)
}

fn of_user(user: &str) -> String {
    format!("{USER}{user}")
}

impl Control {
    /// Waits until it is this request's turn, and answers it where that takes nothing. Nothing is lost when it is
    /// dropped.
    async fn begun(&self, asked: &Asked) -> Result<Begun, Failure> {
        let resource = self.store().service(asked.service).await?;
        let gone = || Failure::new(Kind::UnknownService, "The service is not there any more");
        let wanted = Wanted::of(resource.ok_or_else(gone)?)?;
        let holder = match (wanted.oauth.grant, &asked.user) {
            (Grant::ClientCredentials, _) => EVERYONE.to_owned(),
            (Grant::AuthorizationCode, Some(user)) => of_user(user),
            (Grant::AuthorizationCode, None) => match self.stand_in(&wanted).await? {
                Some(holder) => holder,
                None if asked.refused.is_none() => return Ok(Begun::Known(None)),
                None => return Err(nobody(&wanted)),
            },
        };
        let turn = self.turn_of(asked.service, &holder).await;
        let kept = self.kept(&wanted, &holder).await?;
        let fresh = kept.as_ref().filter(|kept| kept.is_fresh(self.now()));
        let bearer = fresh.map(|kept| self.shown(kept)).transpose()?;
        match (&asked.refused, &bearer) {
            (None, Some(_)) => return Ok(Begun::Known(bearer)),
            (None, None) if kept.is_none() => return Ok(Begun::Known(None)),
            // Somebody may have got another one meanwhile.
            (Some(refused), Some(other)) if refused.token.as_ref() != Some(&other.value) => {
                return Ok(Begun::Known(bearer));
            }
            _ => {}
        }
        Ok(Begun::Work(Box::new(Work {
            wanted,
            holder,
            kept,
            _place: turn.at_work().await?,
            _turn: turn,
        })))
    }

    /// Gets a token. It is kept, whoever waits for it.
    async fn worked(&self, asked: &Asked, work: Work) -> Result<Option<Bearer>, Failure> {
        let (wanted, holder) = (&work.wanted, work.holder.as_str());
        let got = match (&asked.refused, &work.kept) {
            (Some(refused), kept) => {
                let user = asked.user.as_deref();
                let refusal = (refused, kept.as_ref());
                Some(self.obtained(wanted, (holder, user), refusal).await?)
            }
            (None, None) => None,
            (None, Some(kept)) => match self.renewed(wanted, holder, kept).await {
                Ok(renewed) => renewed,
                // It may have some time left; and when the server refuses it, it says who gives tokens now.
                Err(failure) => {
                    let name = &wanted.resource.name;
                    tracing::info!(service.name = %name, holder, "a token was not renewed: {failure}");
                    return self.shown(kept).map(Some);
                }
            },
        };
        let bearer = got.map(|kept| self.shown(&kept)).transpose()?;
        Ok(bearer.map(|bearer| Bearer {
            is_new: true,
            ..bearer
        }))
    }

    /// Another token than the one that was refused.
    async fn obtained(
        &self,
        wanted: &Wanted,
        (holder, user): (&str, Option<&str>),
        (refused, kept): (&Refused, Option<&Kept>),
    ) -> Result<Kept, Failure> {
        let challenge = Challenge::read(&refused.challenge);
        let found = self.found(wanted, &challenge, kept.is_none()).await?;
        let before = kept.filter(|_| refused.is_narrow);
        let scopes = scopes(wanted, (&challenge, before), &found)?;
        if wanted.oauth.grant == Grant::ClientCredentials {
            return self.own_token(wanted, holder, (&found, &scopes)).await;
        }
        // A token that ended, or was taken back, is followed by the next one; a narrow one is not made wider so.
        if let Some(kept) = kept.filter(|kept| !refused.is_narrow && kept.is_of(&found)) {
            let kept = kept.clone().given_at(&found);
            if let Some(renewed) = self.renewed(wanted, holder, &kept).await? {
                return Ok(renewed);
            }
        }
        if kept.is_some() && !refused.is_narrow {
            // It is good for nothing any more: whoever asks how they stand is told so.
            let place = (wanted.resource.id, holder.to_owned());
            self.store().forget_upstream_token(place, None).await?;
        }
        match user {
            Some(user) => {
                let link = self.consent_link(wanted, user, (found, scopes)).await?;
                Err(consent_needed(wanted, &link))
            }
            None => Err(nobody(wanted)),
        }
    }

    /// Whose token Vaxel's own requests come with, where users have their own: its owner's, else that of the user
    /// who comes first by name. Only of those who may call it themselves.
    async fn stand_in(&self, wanted: &Wanted) -> Result<Option<String>, Failure> {
        let service = &wanted.resource;
        let rows = self.store().upstream_tokens(service.id).await?;
        let holders = rows.iter().filter_map(|row| row.holder.strip_prefix(USER));
        let able = holders.filter(|user| self.may_lend(user, service));
        let first = able.min_by_key(|user| (**user != *service.owner, *user));
        Ok(first.map(of_user))
    }

    fn may_lend(&self, user: &str, service: &ServiceResource) -> bool {
        if let Some(everyone) = self.everyone() {
            return *everyone.name == *user;
        }
        let user = self.as_user(user);
        user.is_some_and(|user| self.may(&user, Permission::McpExecute, service).is_ok())
    }

    fn shown(&self, kept: &Kept) -> Result<Bearer, Failure> {
        let text = format!("Bearer {}", kept.access);
        let mut value = http::HeaderValue::try_from(text).map_err(Failure::internal)?;
        value.set_sensitive(true);
        let now = self.now();
        let left = |until: vaxel_core::time::Timestamp| {
            let left = until.as_millis().saturating_sub(now.as_millis());
            Instant::now() + Duration::from_millis(left)
        };
        Ok(Bearer {
            value,
            until: kept.until.map(left),
            is_new: false,
        })
    }
}

/// What is asked for: what the configuration says, else what the server says that it needs, together with what
/// there was where that was too little.
fn scopes(
    wanted: &Wanted,
    (challenge, before): (&Challenge, Option<&Kept>),
    found: &Found,
) -> Result<Vec<String>, Failure> {
    let had: &[String] = before.map_or(&[], |kept| &kept.scopes);
    let lacks = challenge.scopes.iter().any(|scope| !had.contains(scope));
    if before.is_some() && (!lacks || !wanted.oauth.scopes.is_empty()) {
        let detail = format!(
            "it wants the scopes `{}`, which its authorization server does not give or `scopes` leaves out",
            challenge.scopes.join(" ")
        );
        return Err(wanted.failed(Kind::UpstreamUnavailable, detail));
    }
    let asked = if !wanted.oauth.scopes.is_empty() {
        &wanted.oauth.scopes
    } else if !challenge.scopes.is_empty() {
        &challenge.scopes
    } else {
        &found.scopes
    };
    let mut all = had.to_vec();
    all.extend(asked.iter().filter(|scope| !had.contains(scope)).cloned());
    // What keeps a user from being asked every hour (OpenID Connect Core §11).
    let offline = "offline_access".to_owned();
    if wanted.oauth.grant == Grant::AuthorizationCode
        && wanted.oauth.scopes.is_empty()
        && !all.contains(&offline)
        && found.server.scopes_supported.contains(&offline)
    {
        all.push(offline);
    }
    Ok(all)
}

fn consent_needed(wanted: &Wanted, link: &str) -> Failure {
    let name = &wanted.resource.name;
    let detail = format!(
        "`{name}` wants you to log in there. Open {link} in a browser, or type `vaxel service authorize {name}`; \
         then repeat the call"
    );
    Failure::new(Kind::ConsentNeeded, detail).to_be_done_at(link)
}

fn nobody(wanted: &Wanted) -> Failure {
    let name = &wanted.resource.name;
    let detail = format!(
        "`{name}` wants to know whose data it shows, and nobody has logged in there yet: type \
         `vaxel service authorize {name}`"
    );
    Failure::new(Kind::ConsentNeeded, detail)
}
