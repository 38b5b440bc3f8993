//! Vaxel as a client of OAuth: tokens that remote servers want to be shown, got and kept per holder.
//!
//! The data plane asks here when it has no token, or one that a server refuses ([`TokenRequest`]); calls wait
//! for the answer with their own deadline. Of one holder one request is worked on at a time: those that wait
//! for it find its token. What a caller came with is never part of any of this.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use url::Url;
use vaxel_auth::{digest, oauth::discovery::Challenge};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    service::{Grant, McpSource, ServiceResource, Source, UpstreamOauth},
};
use vaxel_gateway::{Bearer, Refused, TokenRequest};

use crate::control::Control;

mod consent; // a user lets Vaxel in
mod finding; // who gives the tokens of a server
mod kept; // what was got
mod token; // getting one

pub use consent::{AuthorizationState, CALLBACK_PATH, CLIENT_PATH, CONNECT_PATH, Leaving};
use finding::Found;
use kept::Kept;
pub(crate) use kept::context;

/// Requests of the data plane that wait; further ones are refused as busy.
pub(crate) const WAITING: usize = 1_024;
/// Requests that are worked on at once; others wait.
const AT_ONCE: usize = 64;
/// What everyone shares where users have no tokens of their own.
const EVERYONE: &str = "service";
/// Holders whose turns are remembered before those that nobody waits for are forgotten.
const TURNS: usize = 4_096;

/// Everything of this that is in memory.
#[derive(Default)]
pub(crate) struct UpstreamTokens {
    turns: Mutex<HashMap<(Id<Service>, String), Turn>>,
    found: finding::Known,
    pending: consent::PendingConsents,
}

/// Longest wait for what is on its way when Vaxel ends.
const FINISH: Duration = Duration::from_secs(3);

/// Held while one request for a holder is worked on.
type Turn = Arc<tokio::sync::Mutex<()>>;

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
    format!("user:{user}")
}

/// Answers the data plane's requests for tokens until `stop`.
pub(crate) async fn serve(
    control: Control,
    mut queue: mpsc::Receiver<TokenRequest>,
    stop: CancellationToken,
) {
    let mut working = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = working.join_next() => {}
            request = queue.recv(), if working.len() < AT_ONCE => {
                let Some(request) = request else { break };
                let control = control.clone();
                working.spawn(async move {
                    let answer = Box::pin(control.bearer_for(&request)).await;
                    // Who asked may not wait any more; what was got is kept.
                    let _ = request.answer.send(answer);
                });
            }
        }
    }
    // What was got in exchange for a token that is good once has to be kept.
    let finishing = async { while working.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH, finishing).await.is_err() {
        tracing::warn!("requests for tokens of remote servers were broken off");
    }
}

impl Control {
    async fn bearer_for(&self, request: &TokenRequest) -> Result<Option<Bearer>, Failure> {
        let resource = self.store().service(request.service).await?;
        let gone = || Failure::new(Kind::UnknownService, "The service is not there any more");
        let wanted = Wanted::of(resource.ok_or_else(gone)?)?;
        let holder = match (wanted.oauth.grant, &request.user) {
            (Grant::ClientCredentials, _) => EVERYONE.to_owned(),
            (Grant::AuthorizationCode, Some(user)) => of_user(user),
            (Grant::AuthorizationCode, None) => match self.stand_in(&wanted).await? {
                Some(holder) => holder,
                None if request.refused.is_none() => return Ok(None),
                None => return Err(nobody(&wanted)),
            },
        };
        let turn = self.turn(request.service, &holder);
        let _turn = turn.lock().await;
        let kept = self.kept(&wanted, &holder).await?;
        let now = self.now();
        match (&request.refused, kept) {
            (None, None) => Ok(None),
            (None, Some(kept)) if kept.is_fresh(now) => self.shown(&kept).map(Some),
            (None, Some(kept)) => {
                let renewed = self.renewed(&wanted, &holder, &kept).await?;
                renewed.map(|kept| self.shown(&kept)).transpose()
            }
            (Some(refused), kept) => {
                // Somebody may have got another one meanwhile.
                if let Some(kept) = kept.as_ref().filter(|kept| kept.is_fresh(now)) {
                    let bearer = self.shown(kept)?;
                    if refused.token.as_ref() != Some(&bearer.value) {
                        return Ok(Some(bearer));
                    }
                }
                let refusal = (refused, kept.as_ref());
                let user = request.user.as_deref();
                let kept = self.obtained(&wanted, (&holder, user), refusal).await?;
                self.shown(&kept).map(Some)
            }
        }
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
        if let Some(kept) = kept.filter(|kept| !refused.is_narrow && kept.is_of(&found))
            && let Some(renewed) = self.renewed(wanted, holder, kept).await?
        {
            return Ok(renewed);
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

    /// Whose token Vaxel's own requests come with, where users have their own: its owner's, else that of
    /// whoever let it in last.
    async fn stand_in(&self, wanted: &Wanted) -> Result<Option<String>, Failure> {
        let rows = self.store().upstream_tokens(wanted.resource.id).await?;
        let owner = of_user(&wanted.resource.owner);
        let mut holders: Vec<String> = rows.into_iter().map(|row| row.holder).collect();
        holders.retain(|holder| holder.starts_with("user:"));
        if holders.contains(&owner) {
            return Ok(Some(owner));
        }
        Ok(holders.into_iter().next())
    }

    fn turn(&self, service: Id<Service>, holder: &str) -> Turn {
        let mut turns = self.inner.upstream_tokens.turns.lock();
        if turns.len() >= TURNS {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        let turn = turns.entry((service, holder.to_owned())).or_default();
        Arc::clone(turn)
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
