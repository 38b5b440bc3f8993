//! The vault: what was got is kept sealed, and opens only for its service, its holder and its issuer.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vaxel_auth::oauth::grant::Identity;
use vaxel_core::{
    audit::AuditLine,
    failure::Failure,
    id::{Id, Service},
    time::Timestamp,
};
use vaxel_store::UpstreamTokenRow;
use zeroize::Zeroizing;

use super::{Found, Wanted};
use crate::control::Control;

/// A token, with all that the next one takes. There is no way to print it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    /// From then on another one should be shown.
    pub(super) until: Option<Timestamp>,
    pub(super) scopes: Vec<String>,
    pub(super) issuer: String,
    pub(super) token_endpoint: String,
    pub(super) resource: String,
    pub(super) identity: Identity,
    /// That of [`Wanted`] when it was got.
    pub(super) mark: String,
}

impl Kept {
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The same, to be followed by the next one where tokens are given now.
    pub(super) fn given_at(self, found: &Found) -> Self {
        Self {
            token_endpoint: found.server.token_endpoint.clone(),
            ..self
        }
    }

    /// Whether it comes from there.
    pub(super) fn is_of(&self, found: &Found) -> bool {
        self.issuer == found.server.issuer
    }
}

impl Control {
    /// The token of a holder, when it was got for what is wanted now.
    pub(super) async fn kept(
        &self,
        wanted: &Wanted,
        holder: &str,
    ) -> Result<Option<Kept>, Failure> {
        let kept: Option<Kept> = self.unsealed(wanted, holder).await?;
        let mark = wanted.mark();
        Ok(kept.filter(|kept| kept.mark == mark))
    }

    /// What is kept of a holder. What cannot be opened is got anew.
    pub(super) async fn unsealed<T: DeserializeOwned>(
        &self,
        wanted: &Wanted,
        holder: &str,
    ) -> Result<Option<T>, Failure> {
        let service = wanted.resource.id;
        let row = self
            .store()
            .upstream_token(service, holder.to_owned())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let context = context((row.service, &row.holder), &row.issuer);
        let opened = match self
            .inner
            .context
            .vault
            .sealer()
            .open(&context, &row.sealed)
        {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(service.name = %wanted.resource.name, %error, "a token that is kept cannot be opened");
                return Ok(None);
            }
        };
        Ok(serde_json::from_slice(opened.expose()).ok())
    }

    pub(super) async fn keep<T: Serialize>(
        &self,
        (wanted, holder): (&Wanted, &str),
        (issuer, what): (&str, &T),
        audit: Option<AuditLine>,
    ) -> Result<(), Failure> {
        let text = Zeroizing::new(serde_json::to_vec(what).map_err(Failure::internal)?);
        // Nobody replaces the root key between this and the end.
        let _sealing = self.inner.sealing.read().await;
        let context = context((wanted.resource.id, holder), issuer);
        let row = UpstreamTokenRow {
            service: wanted.resource.id,
            holder: holder.to_owned(),
            issuer: issuer.to_owned(),
            sealed: self.inner.context.vault.sealer().seal(&context, &text),
            updated_at: self.now(),
        };
        Ok(self.store().put_upstream_token(row, audit).await?)
    }
}

/// A token opens only where it was put.
pub(crate) fn context((service, holder): (Id<Service>, &str), issuer: &str) -> Vec<u8> {
    format!("upstream token\0{service}\0{holder}\0{issuer}").into_bytes()
}
