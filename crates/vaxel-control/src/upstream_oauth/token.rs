//! Getting a token: for Vaxel itself, and the next one of a user.

use std::time::Duration;

use vaxel_auth::oauth::grant::{Given, Identity, NotGiven};
use vaxel_core::{
    failure::{Failure, Kind},
    service::CLIENT_SECRET,
    time::Timestamp,
};

use super::{Found, Kept, Wanted, finding::Post};
use crate::control::Control;

/// So long before its end a token is followed by the next one; of a short one a fifth of its time.
const MARGIN: u64 = 30;

impl Control {
    /// A token for Vaxel itself (`client_credentials`).
    pub(super) async fn own_token(
        &self,
        wanted: &Wanted,
        holder: &str,
        (found, scopes): (&Found, &[String]),
    ) -> Result<Kept, Failure> {
        let identity = self.registered_identity(wanted, found).await?;
        let identity = identity.ok_or_else(|| {
            wanted.failed(
                Kind::Conflict,
                "`client_credentials` needs `client_id` and `client_secret`",
            )
        })?;
        let draft = Kept {
            access: String::new(),
            refresh: None,
            until: None,
            scopes: scopes.to_vec(),
            issuer: found.server.issuer.clone(),
            token_endpoint: found.server.token_endpoint.clone(),
            resource: found.resource.clone(),
            identity,
            mark: wanted.mark(),
        };
        let kept = self.ask_for_own(wanted, draft).await?;
        self.keep((wanted, holder), (&kept.issuer, &kept), None)
            .await?;
        Ok(kept)
    }

    async fn ask_for_own(&self, wanted: &Wanted, draft: Kept) -> Result<Kept, Failure> {
        let scope = draft.scopes.join(" ");
        let mut parameters = vec![("resource", draft.resource.as_str())];
        if !scope.is_empty() {
            parameters.push(("scope", &scope));
        }
        let given = self
            .given(wanted, ("client_credentials", &parameters), &draft)
            .await?;
        given
            .map(|given| self.with(&draft, given))
            .map_err(|not| wanted.failed(Kind::UpstreamUnavailable, not_given(&draft, &not)))
    }

    /// The token that follows one that ends; `None` when there is none to be had, and somebody has to be asked.
    pub(super) async fn renewed(
        &self,
        wanted: &Wanted,
        holder: &str,
        kept: &Kept,
    ) -> Result<Option<Kept>, Failure> {
        let kept = &Kept {
            identity: self.identity_now(wanted, kept).await?,
            ..kept.clone()
        };
        if holder == super::EVERYONE {
            let next = self.ask_for_own(wanted, kept.clone()).await?;
            self.keep((wanted, holder), (&next.issuer, &next), None)
                .await?;
            return Ok(Some(next));
        }
        let Some(refresh) = &kept.refresh else {
            return Ok(None);
        };
        let parameters = [
            ("refresh_token", refresh.as_str()),
            ("resource", kept.resource.as_str()),
        ];
        match self
            .given(wanted, ("refresh_token", &parameters), kept)
            .await?
        {
            Ok(given) => {
                let mut next = self.with(kept, given);
                // One that is not replaced stays good (RFC 6749 §6).
                next.refresh = next.refresh.or_else(|| kept.refresh.clone());
                self.keep((wanted, holder), (&next.issuer, &next), None)
                    .await?;
                Ok(Some(next))
            }
            Err(not)
                if not.code == "invalid_grant" || self.is_forgotten(wanted, kept, &not).await? =>
            {
                tracing::info!(service.name = %wanted.resource.name, holder, "a log-in has ended: {not}");
                let place = (wanted.resource.id, holder.to_owned());
                self.store().forget_upstream_token(place, None).await?;
                Ok(None)
            }
            Err(not) => Err(wanted.failed(Kind::UpstreamUnavailable, not_given(kept, &not))),
        }
    }

    /// Asks the token endpoint; the inner `Err` is its refusal.
    pub(super) async fn given(
        &self,
        wanted: &Wanted,
        (grant, parameters): (&str, &[(&str, &str)]),
        kept: &Kept,
    ) -> Result<Result<Given, NotGiven>, Failure> {
        let form = kept.identity.form(grant, parameters);
        let post = Some(Post::Form(&form));
        let (status, body) = self.reach(wanted, &kept.token_endpoint, post).await?;
        Ok(Given::read(status, &body))
    }

    /// The same with other tokens.
    pub(super) fn with(&self, kept: &Kept, given: Given) -> Kept {
        let until = |seconds: u64| -> Timestamp {
            let seconds = seconds - (seconds / 5).min(MARGIN);
            self.now()
                .plus(Duration::from_secs(seconds.min(u64::from(u32::MAX))))
        };
        let scopes = given
            .scope
            .map(|scope| scope.split_whitespace().map(str::to_owned).collect());
        Kept {
            access: given.access.expose().clone(),
            refresh: given.refresh.map(|refresh| refresh.expose().clone()),
            until: given.expires_in.map(until),
            scopes: scopes.unwrap_or_else(|| kept.scopes.clone()),
            ..kept.clone()
        }
    }

    /// The client that somebody registered, where the configuration names one. It is shown to one authorization
    /// server only: the configured one, or the first that was found.
    pub(super) async fn registered_identity(
        &self,
        wanted: &Wanted,
        found: &Found,
    ) -> Result<Option<Identity>, Failure> {
        let Some(id) = wanted.oauth.client_id.clone() else {
            return Ok(None);
        };
        let issuer = &found.server.issuer;
        let holder = format!("client:{id}");
        match self.unsealed::<String>(wanted, &holder).await? {
            Some(known) if wanted.oauth.issuer.is_none() && known != *issuer => {
                let detail = format!(
                    "its authorization server was {known} and is {issuer} now. If that is right, set \
                     `issuer` to it and `client_id` and `client_secret` to what you got there"
                );
                return Err(wanted.failed(Kind::UpstreamUnavailable, detail));
            }
            Some(known) if known == *issuer => {}
            Some(_) | None => self.keep((wanted, &holder), (issuer, issuer), None).await?,
        }
        let secret = self.client_secret(wanted).await?;
        Ok(Some(Identity::new(id, secret, &found.server)))
    }

    async fn client_secret(&self, wanted: &Wanted) -> Result<Option<String>, Failure> {
        let vault = &self.inner.context.vault;
        let resource = &wanted.resource;
        let mut opened = vault.open(resource.id, &resource.spec).await?;
        let secret = opened.remove(CLIENT_SECRET);
        Ok(secret.map(|secret| secret.expose().clone()))
    }

    /// The client that a token was given to, with the secret that it has now.
    async fn identity_now(&self, wanted: &Wanted, kept: &Kept) -> Result<Identity, Failure> {
        if wanted.oauth.client_id.as_ref() != Some(&kept.identity.id) {
            return Ok(kept.identity.clone());
        }
        let secret = self.client_secret(wanted).await?;
        Ok(kept.identity.clone().with_secret(secret))
    }

    /// Whether an authorization server does not know the client any more as which Vaxel registered itself there:
    /// then Vaxel forgets that, too. A client that somebody configured is for them to mend.
    pub(super) async fn is_forgotten(
        &self,
        wanted: &Wanted,
        kept: &Kept,
        not: &NotGiven,
    ) -> Result<bool, Failure> {
        if not.code != "invalid_client" || wanted.oauth.client_id.is_some() {
            return Ok(false);
        }
        self.forget_registration(wanted, (&kept.issuer, &kept.identity.id))
            .await?;
        Ok(true)
    }
}

pub(super) fn not_given(kept: &Kept, not: &NotGiven) -> String {
    format!("{} gave no token, {not}", kept.issuer)
}
