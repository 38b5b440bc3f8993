//! What clients get: tokens for a code, for a refresh token, for a device; and the end of that.

use std::{borrow::Cow, time::Duration};

use serde_json::json;
use vaxel_auth::oauth::scope;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, SignIn, User},
    secret::Secret,
};
use vaxel_store::Delegation;

use super::{
    Client,
    code::{Code, Shown},
};
use crate::{
    control::Control,
    sign_in::{CODE_REUSED, Origin, SignedIn},
};

/// Why a client gets nothing, in the words of RFC 6749 §5.2.
#[derive(Debug)]
pub struct OauthError {
    /// `invalid_grant`, …
    pub code: &'static str,
    /// For whoever wrote the client.
    pub sentence: Cow<'static, str>,
    /// What stands behind it, when it is no mistake of the client's.
    pub failure: Option<Box<Failure>>,
}

/// Who says it is which client.
#[derive(Debug, Default)]
pub struct Presented {
    /// `client_id`
    pub id: Option<String>,
    /// Its secret.
    pub secret: Option<Secret<String>>,
}

/// What a client gets.
#[derive(Debug)]
pub struct Tokens {
    /// Goes with requests.
    pub access: Secret<String>,
    /// How long that is good.
    pub expires_in: Duration,
    /// Gets the next two; good once.
    pub refresh: Secret<String>,
    /// What they let through.
    pub scope: String,
    /// Who let the client.
    pub user: String,
}

impl OauthError {
    /// A mistake of the client's.
    pub fn new(code: &'static str, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
            failure: None,
        }
    }
}

impl From<Failure> for OauthError {
    fn from(failure: Failure) -> Self {
        let code = match failure.kind {
            Kind::Busy => "slow_down",
            Kind::NotPermitted => "access_denied",
            Kind::Malformed | Kind::Invalid => "invalid_request",
            _ => "server_error",
        };
        Self {
            code,
            sentence: failure.detail.clone(),
            failure: Some(Box::new(failure)),
        }
    }
}

impl Control {
    /// Tokens for a code.
    ///
    /// # Errors
    /// [`OauthError`]; a code that comes twice ends what the first one gave.
    pub async fn tokens_for_code(
        &self,
        client: &Presented,
        (code, redirect, verifier): (&str, Option<&str>, &str),
        (resource, base, origin): (Option<&str>, &str, Origin),
    ) -> Result<Tokens, OauthError> {
        let client = self.proven_client(client).await?;
        let refused = |sentence: &'static str| Err(OauthError::new("invalid_grant", sentence));
        let id = Id::new(self.now());
        let found = match self.inner.oauth.codes.take(code, id, self.now()) {
            Shown::Taken(found) => *found,
            Shown::Again(sign_in) => {
                self.end_stolen(sign_in, CODE_REUSED).await?;
                return refused("the code was used before: what it gave has ended");
            }
            Shown::Unknown => return refused("the code is not known here, or older than a minute"),
        };
        if found.client != client.id {
            return refused("the code was given to another client");
        }
        if redirect.is_some_and(|redirect| redirect != found.redirect) {
            return refused("redirect_uri is another one than the code was sent to");
        }
        if !found.challenge.is_met_by(verifier) {
            return refused("code_verifier is not what code_challenge was made of");
        }
        if resource.is_some() && self.endpoint_of(resource, base).as_ref() != Some(&found.endpoint)
        {
            let sentence = "resource is another one than the user was asked about";
            return Err(OauthError::new("invalid_target", sentence));
        }
        let tokens = self
            .delegate(
                (id, found.user, found.sign_in),
                (delegation(found), "code"),
                origin,
            )
            .await?;
        if self.inner.oauth.codes.came_again(code) {
            self.end_stolen(id, CODE_REUSED).await?;
            return refused("the code was used twice: what it gave has ended");
        }
        Ok(tokens)
    }

    /// The next tokens of a client.
    ///
    /// # Errors
    /// [`OauthError`]; a refresh token that was used before ends its sign-in.
    pub async fn tokens_for_refresh(
        &self,
        client: &Presented,
        (token, scope, resource): (&str, Option<&str>, Option<&str>),
        (base, origin): (&str, Origin),
    ) -> Result<Tokens, OauthError> {
        let client = self.proven_client(client).await?;
        let wanted = scope.map(|scope| scope::read(Some(scope)));
        let wanted = wanted
            .transpose()
            .map_err(|error| OauthError::new("invalid_scope", error.to_string()))?;
        if let Some(delegation) = self.delegation_of(token).await? {
            let endpoint = self.endpoint_of(resource, base);
            if resource.is_some() && endpoint.is_none_or(|one| one.path() != delegation.endpoint) {
                let sentence = "resource is another one than the user was asked about";
                return Err(OauthError::new("invalid_target", sentence));
            }
            if wanted.is_some_and(|wanted| !delegation.permissions.covers(wanted)) {
                let sentence = "scope goes beyond what the user was asked about: log in again";
                return Err(OauthError::new("invalid_scope", sentence));
            }
        }
        let asked = Some((client.id.as_str(), wanted));
        let renewed = self.renew_for(token, asked, origin).await;
        match renewed {
            Ok(signed_in) => {
                self.note_use(&client.id).await;
                Ok(Tokens::of(signed_in))
            }
            Err(failure) if failure.kind == Kind::Unauthenticated => {
                Err(OauthError::new("invalid_grant", failure.detail))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Ends what a token belongs to, when it is the client's (RFC 7009).
    ///
    /// # Errors
    /// [`OauthError`] when the client is another one than it says.
    pub async fn revoke_token(&self, client: &Presented, token: &str) -> Result<(), OauthError> {
        let client = self.proven_client(client).await?;
        let id = match self.refresh_of(token).await? {
            Some(id) => Some(id),
            None => self.bearer(token).ok().map(|bearer| bearer.sign_in),
        };
        let Some(id) = id else { return Ok(()) };
        let row = self.store().sign_in(id).await.map_err(Failure::from)?;
        let is_its = |delegation: &Delegation| delegation.client == client.id;
        if row
            .as_ref()
            .and_then(|row| row.delegation.as_ref())
            .is_some_and(is_its)
        {
            self.end_stolen(id, "oauth.revoke").await?;
        }
        Ok(())
    }

    /// A client that proved who it is, as far as it can. Nothing is fetched: everybody can ask this.
    pub(super) async fn proven_client(&self, presented: &Presented) -> Result<Client, OauthError> {
        let unknown = || {
            OauthError::new(
                "invalid_client",
                "this client is not known here, or its secret is wrong",
            )
        };
        let id = presented.id.as_deref().ok_or_else(unknown)?;
        if let Some(client) = Client::undescribed(id) {
            return Ok(client);
        }
        let client = self
            .oauth_client(id)
            .await
            .map_err(|failure| match failure.kind {
                Kind::Malformed => unknown(),
                _ => failure.into(),
            })?;
        let secret = presented
            .secret
            .as_ref()
            .map(|secret| secret.expose().as_str());
        if client.is_proven_by(secret) {
            Ok(client)
        } else {
            Err(unknown())
        }
    }

    /// Begins the sign-in of a client, which its user let in with the sign-in `by`.
    pub(super) async fn delegate(
        &self,
        (id, user, by): (Id<SignIn>, Id<User>, Id<SignIn>),
        (delegation, credential): (Delegation, &'static str),
        origin: Origin,
    ) -> Result<Tokens, OauthError> {
        let by = self.store().sign_in(by).await.map_err(Failure::from)?;
        if by.is_none_or(|by| by.ended_at.is_some()) {
            let sentence = "the sign-in of the user who let the client in has ended";
            return Err(OauthError::new("invalid_grant", sentence));
        }
        let person = self.inner.people.with_id(user);
        let person = person
            .ok_or_else(|| OauthError::new("invalid_grant", "the user is disabled or gone"))?;
        let client = delegation.client.clone();
        let signed_in = self
            .begin_delegated(&person, (id, delegation, credential), origin)
            .await?;
        self.note_use(&client).await;
        Ok(Tokens::of(signed_in))
    }

    /// Ends a sign-in that somebody else may have, or that its client gives up.
    async fn end_stolen(&self, id: Id<SignIn>, action: &'static str) -> Result<(), Failure> {
        let Some(row) = self.store().sign_in(id).await? else {
            return Ok(());
        };
        match self.store().user_by_id(row.user).await? {
            Some(user) => self.end_quietly(&user, (id, action)).await,
            None => Ok(()),
        }
    }
}

impl Tokens {
    fn of(signed_in: SignedIn) -> Self {
        let SignedIn {
            access,
            expires_in,
            refresh,
            id: _,
            user,
            permissions,
        } = signed_in;
        Self {
            access,
            expires_in,
            refresh,
            scope: permissions.map(scope::text).unwrap_or_default(),
            user: user.name.to_string(),
        }
    }
}

fn delegation(code: Code) -> Delegation {
    Delegation {
        client: code.client,
        name: code.name,
        endpoint: code.endpoint.path().to_owned(),
        permissions: code.permissions,
    }
}

/// What the audit says of a delegation.
pub(crate) fn audited(delegation: &Delegation) -> serde_json::Value {
    json!({
        "client": delegation.client,
        "name": delegation.name,
        "endpoint": delegation.endpoint,
        "scope": scope::text(delegation.permissions),
    })
}
