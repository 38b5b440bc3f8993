//! Clients that registered themselves, for those who manage users: listed, and removed by hand.

use serde_json::json;
use vaxel_core::{
    access::require,
    failure::{Failure, Kind},
    principal::{Permission, Principal},
    time::Timestamp,
};
use vaxel_store::Error as StoreError;

use super::client::of_row;
use crate::{change::Outcome, control::Control};

/// A client that registered itself, as it is listed.
#[derive(Debug, Clone)]
pub struct RegisteredClient {
    /// Names it in requests.
    pub id: String,
    /// What it calls itself; nobody proves that.
    pub name: String,
    /// Where its answers go.
    pub redirects: Vec<String>,
    /// How it proves who it is: `token_endpoint_auth_method`.
    pub proof: &'static str,
    /// When it registered.
    pub created_at: Timestamp,
    /// When it was last let in or got a token.
    pub used_at: Option<Timestamp>,
}

impl Control {
    /// The clients that registered themselves, newest first. `users:read`.
    ///
    /// # Errors
    /// `NotPermitted`; those of the store.
    pub async fn registered_clients(
        &self,
        caller: &Principal,
    ) -> Result<Vec<RegisteredClient>, Failure> {
        require(caller, Permission::UsersRead)?;
        let rows = self.store().oauth_clients().await?;
        let listed = rows.into_iter().filter_map(|row| {
            let (created_at, used_at) = (row.created_at, row.used_at);
            let client = of_row(row)?;
            Some(RegisteredClient {
                id: client.id,
                name: client.name,
                redirects: client.metadata.redirects.clone(),
                proof: client.metadata.proof.as_str(),
                created_at,
                used_at,
            })
        });
        Ok(listed.collect())
    }

    /// Removes a client that registered itself: its sign-ins end, whosever they are, and what users let it do is
    /// forgotten. `users:manage`.
    pub(crate) async fn remove_client(
        &self,
        caller: &Principal,
        id: &str,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::UsersManage)?;
        let unknown = || Failure::new(Kind::NotFound, "There is no such client");
        let row = self.store().oauth_client(id).await?.ok_or_else(unknown)?;
        let name = of_row(row).map(|client| client.name).unwrap_or_default();
        let target = ("oauth client", id.to_owned(), name);
        let mut audit = self.line(caller, "oauth.client_remove", target);
        audit.detail = json!({});
        match self.store().remove_oauth_client(id, audit).await {
            Ok(_) => self.sign_ins_ended().await?,
            Err(StoreError::Missing) => return Err(unknown()),
            Err(error) => return Err(error.into()),
        }
        Ok(Outcome::Done)
    }
}
