//! What records keep of calls, sealed where the configuration says so.
//!
//! There is a lot of it, so it is sealed with a random key of its own, and only that key with the root key.

use vaxel_auth::seal::Sealer;
use vaxel_core::{
    call::CallRecord,
    failure::Failure,
    id::{Call, Id},
    time::Timestamp,
};
use vaxel_store::{CallRow, Store};

/// What the key is for: in the store, and what its values are bound to.
const PURPOSE: &str = "call bodies";
/// What it is sealed for.
const CONTEXT: &[u8] = b"data key of call bodies";

/// Seals parameters and results of calls on their way into the store, and opens them on their way out.
pub(crate) struct Bodies {
    /// None: nothing was ever sealed.
    sealer: Option<Sealer>,
    /// Whether new ones are sealed.
    is_on: bool,
}

impl Bodies {
    /// With the key that is stored; with a new one when there is none, or the root key does not open it, and new
    /// bodies are to be sealed.
    pub(crate) async fn open(
        (store, values): (&Store, &Sealer),
        is_on: bool,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let mut sealer = None;
        if let Some(sealed) = store.data_key(PURPOSE).await? {
            match values.open(CONTEXT, &sealed) {
                Ok(key) => sealer = Some(Sealer::of_key(&key, PURPOSE)?),
                Err(error) => {
                    tracing::error!(%error, "what records keep of earlier calls cannot be opened any more");
                }
            }
        }
        if is_on && sealer.is_none() {
            let key = Sealer::new_key();
            let sealed = values.seal(CONTEXT, key.expose());
            store.put_data_key(PURPOSE, sealed, now).await?;
            sealer = Some(Sealer::of_key(&key, PURPOSE)?);
        }
        Ok(Self { sealer, is_on })
    }

    /// Another root key seals from now on.
    pub(crate) async fn renew(store: &Store, values: &Sealer) -> Result<(), Failure> {
        let Some(sealed) = store.data_key(PURPOSE).await? else {
            return Ok(());
        };
        match values.renewed(CONTEXT, &sealed)? {
            Some(renewed) => Ok(store.reseal_data_key(PURPOSE, renewed).await?),
            None => Ok(()),
        }
    }

    /// Seals what a record keeps.
    pub(crate) fn seal(&self, record: &mut CallRecord) {
        let Some(sealer) = self.sealer.as_ref().filter(|_| self.is_on) else {
            return;
        };
        let id = record.id;
        let seal = |part: Part, body: &bytes::Bytes| sealer.seal(&context(id, part), body).into();
        record.request = record
            .request
            .as_ref()
            .map(|body| seal(Part::Request, body));
        record.response = record
            .response
            .as_ref()
            .map(|body| seal(Part::Response, body));
    }

    /// Opens what a record keeps; what does not open is as if it had not been kept.
    pub(crate) fn reveal(&self, row: &mut CallRow) {
        let id = row.id;
        let open = |part: Part, body: Vec<u8>| {
            if !Sealer::is_sealed(&body) {
                return Some(body);
            }
            let opened = self.sealer.as_ref()?.open(&context(id, part), &body);
            opened.ok().map(|plain| plain.expose().clone())
        };
        row.request = row
            .request
            .take()
            .and_then(|body| open(Part::Request, body));
        row.response = row
            .response
            .take()
            .and_then(|body| open(Part::Response, body));
    }
}

#[derive(Clone, Copy)]
enum Part {
    Request,
    Response,
}

/// A sealed body opens only in its own record and place.
fn context(call: Id<Call>, part: Part) -> [u8; 17] {
    let mut context = [0; 17];
    context[..16].copy_from_slice(call.as_bytes());
    context[16] = match part {
        Part::Request => 0,
        Part::Response => 1,
    };
    context
}
