//! Clients: those that registered themselves, those that are described at an address of theirs, and our own
//! command line.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};
use url::Url;
use vaxel_auth::{
    digest,
    oauth::{
        client::{self, ClientMetadata, ClientProof, DOCUMENT_MAX},
        redirect,
    },
    random,
};
use vaxel_core::{
    failure::{Failure, Kind},
    secret::Secret,
    time::Timestamp,
};
use vaxel_store::OauthClientRow;

use crate::control::Control;

/// What our own command line is called.
pub(crate) const OWN: &str = "vaxel-cli";
/// Marks of what is given out.
const ID_MARK: &str = "vxc_";
const SECRET_MARK: &str = "vxs_";
/// Registrations that are kept.
const MOST: u64 = 5_000;
/// One that nobody used goes after this, sooner when there are too many; one that was used, after the longest.
const UNUSED: Duration = Duration::from_hours(24);
const UNUSED_CROWDED: Duration = Duration::from_mins(10);
const IDLE: Duration = Duration::from_hours(180 * 24);
/// Documents that are remembered, how long, and how many are asked for at once.
const DOCUMENTS: usize = 1_000;
const FRESH: Duration = Duration::from_mins(10);
const AT_ONCE: usize = 4;
/// Longest wait for a document.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Names it in requests.
    pub id: String,
    /// What it calls itself; nobody proves that.
    pub name: String,
    /// The host that vouches for it: whoever has that host wrote its description.
    pub host: Option<String>,
    pub(super) metadata: Arc<ClientMetadata>,
    secret: Option<[u8; 32]>,
}

/// A client that registered itself.
#[derive(Debug)]
pub struct Registered {
    /// Names it in requests.
    pub id: String,
    /// Shown once.
    pub secret: Option<Secret<String>>,
    /// When it registered.
    pub at: Timestamp,
    /// What was taken of what it said.
    pub metadata: ClientMetadata,
}

/// Descriptions that were found, until they are old.
pub(crate) struct Documents {
    known: Mutex<HashMap<String, (Timestamp, Arc<ClientMetadata>)>>,
    asking: Semaphore,
}

impl Default for Documents {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            asking: Semaphore::new(AT_ONCE),
        }
    }
}

impl Client {
    /// Where the answer goes: one of its addresses. It need not name the only one that it has.
    pub(crate) fn redirect(&self, asked: Option<&str>) -> Result<String, Failure> {
        let known = &self.metadata.redirects;
        match (asked, known.as_slice()) {
            (Some(asked), _) if self.metadata.knows(asked) && redirect::is_allowed(asked) => {
                Ok(asked.to_owned())
            }
            (None, [only]) => Ok(only.clone()),
            _ => Err(Failure::new(
                Kind::Malformed,
                "The client wants its answer sent to an address that is not one of its own, so nothing is sent \
                 there. Begin again in the client; if this comes again, remove this server there and add it anew",
            )),
        }
    }

    /// Whether `secret` proves that it is this client.
    pub(crate) fn is_proven_by(&self, secret: Option<&str>) -> bool {
        match (&self.secret, secret) {
            (None, None) => true,
            (Some(kept), Some(secret)) => {
                digest::are_equal(kept, &digest::sha256(secret.as_bytes()))
            }
            _ => false,
        }
    }

    /// A client that is named by the address of its description, which was not read.
    pub(super) fn undescribed(id: &str) -> Option<Self> {
        client::is_address(id).then(|| Self {
            id: id.to_owned(),
            name: client::host_of(id),
            host: None,
            metadata: Arc::new(ClientMetadata {
                name: id.to_owned(),
                redirects: Vec::new(),
                proof: ClientProof::None,
            }),
            secret: None,
        })
    }

    pub(super) fn is_own(&self) -> bool {
        self.id == OWN
    }

    fn own() -> Self {
        let redirects = vec![
            "http://127.0.0.1/callback".to_owned(),
            "http://[::1]/callback".to_owned(),
        ];
        Self {
            id: OWN.to_owned(),
            name: "the command line of Vaxel".to_owned(),
            host: None,
            metadata: Arc::new(ClientMetadata {
                name: OWN.to_owned(),
                redirects,
                proof: ClientProof::None,
            }),
            secret: None,
        }
    }
}

impl Control {
    /// The client that is called `id`.
    ///
    /// # Errors
    /// `Malformed`, when there is none or its description cannot be had.
    pub(crate) async fn oauth_client(&self, id: &str) -> Result<Client, Failure> {
        if id == OWN {
            return Ok(Client::own());
        }
        if client::is_address(id) {
            let metadata = self.described_at(id).await?;
            return Ok(Client {
                id: id.to_owned(),
                name: metadata.name.clone(),
                host: Some(client::host_of(id)),
                metadata,
                secret: None,
            });
        }
        let row = if id.starts_with(ID_MARK) {
            self.store().oauth_client(id).await?
        } else {
            None
        };
        let client = row.and_then(of_row);
        client.ok_or_else(|| {
            let detail = "This client is not known here (any more). Remove this server in the client and add it \
                          anew, so that it registers again";
            Failure::new(Kind::Malformed, detail)
        })
    }

    /// Registers a client (RFC 7591). It may do nothing by that: what is audited is what a user lets it do.
    ///
    /// # Errors
    /// `NotPermitted` where that is off; `Busy` when too many came from there, or there are too many.
    pub async fn register_client(
        &self,
        metadata: ClientMetadata,
        from: IpAddr,
    ) -> Result<Registered, Failure> {
        if !self.oauth_registers() {
            let detail = "Clients do not register themselves here (`oauth.registration` is off)";
            return Err(Failure::new(Kind::NotPermitted, detail));
        }
        let now = self.now();
        self.inner.oauth.registrations.count(from, now)?;
        let secret = match metadata.proof {
            ClientProof::None => None,
            _ => Some(Secret::new(format!("{SECRET_MARK}{}", random::token(32)))),
        };
        let row = OauthClientRow {
            id: format!("{ID_MARK}{}", random::token(24)),
            metadata: json!({ "name": metadata.name, "redirects": metadata.redirects, "proof": metadata.proof.as_str() })
                .to_string(),
            secret: secret.as_ref().map(|secret| digest::sha256(secret.expose().as_bytes())),
            created_at: now,
            used_at: None,
        };
        let mut added = false;
        for unused in [UNUSED, UNUSED_CROWDED] {
            let room = (MOST, (now.minus(unused), now.minus(IDLE)));
            added = added || self.store().add_oauth_client(row.clone(), room).await?;
        }
        if !added {
            let detail = "Too many clients are registered here; try again in some minutes";
            return Err(Failure::new(Kind::Busy, detail).retry_after(600));
        }
        Ok(Registered {
            id: row.id,
            secret,
            at: now,
            metadata,
        })
    }

    /// Notes that a client is used, so that it is kept. Nothing depends on this one note.
    pub(super) async fn note_use(&self, client: &str) {
        if !client.starts_with(ID_MARK) {
            return;
        }
        let noted = self.store().note_oauth_client_use(client, self.now()).await;
        if let Err(error) = noted {
            tracing::warn!(%error, client, "the use of a client was not noted");
        }
    }

    /// What a client says about itself at the address that is its name.
    async fn described_at(&self, address: &str) -> Result<Arc<ClientMetadata>, Failure> {
        let documents = &self.inner.oauth.documents;
        let now = self.now();
        let known = documents.known.lock().get(address).cloned();
        if let Some((at, metadata)) = known
            && now.since(at) < FRESH
        {
            return Ok(metadata);
        }
        let unusable = |why: String| {
            let detail = format!("The client's description at {address} cannot be used: {why}");
            Failure::new(Kind::Malformed, detail)
        };
        let _place = documents.asking.try_acquire().map_err(|_| {
            let detail = "Too many clients are being looked up; try again in a moment";
            Failure::new(Kind::Busy, detail).retry_after(1)
        })?;
        let url = Url::parse(address).map_err(|error| unusable(error.to_string()))?;
        let limits = (DOCUMENT_MAX, Instant::now() + PATIENCE);
        let (status, document) = match self.inner.oauth.egress()?.document(&url, limits).await {
            Ok(found) => found,
            Err(error) => {
                tracing::info!(%error, address, "the description of a client cannot be had");
                // What was tried in whose name, and how it failed, is not for strangers.
                return Err(unusable(
                    "it cannot be had from the public internet".to_owned(),
                ));
            }
        };
        if status != 200 {
            return Err(unusable(format!("the answer has the status {status}")));
        }
        let metadata = ClientMetadata::of_document(address, &document);
        let metadata = Arc::new(metadata.map_err(|unfit| unusable(unfit.to_string()))?);
        let mut known = documents.known.lock();
        if known.len() >= DOCUMENTS {
            known.retain(|_, (at, _)| now.since(*at) < FRESH);
        }
        if known.len() >= DOCUMENTS {
            known.clear();
        }
        known.insert(address.to_owned(), (now, Arc::clone(&metadata)));
        Ok(metadata)
    }
}

/// A client as it was stored; nothing when that cannot be read.
pub(super) fn of_row(row: OauthClientRow) -> Option<Client> {
    let said: Value = serde_json::from_str(&row.metadata).ok()?;
    let proof = said["proof"].as_str()?;
    let redirects = said["redirects"].as_array()?.iter();
    let metadata = ClientMetadata {
        name: said["name"].as_str()?.to_owned(),
        redirects: redirects
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect(),
        proof: ClientProof::called(proof)?,
    };
    Some(Client {
        id: row.id,
        name: metadata.name.clone(),
        host: None,
        metadata: Arc::new(metadata),
        secret: row.secret,
    })
}
