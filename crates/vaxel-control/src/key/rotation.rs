//! Another secret for a key: by hand, or by itself after a time. The key stays the same (its id, its name, its
//! limits), and both secrets work until the overlap is over.
//!
//! When the store has it, the data plane is told at once, and what is left to do for files is tried again until it is
//! done. When it is not known whether the store has it, the store is asked until that is known.

use std::{collections::HashSet, time::Duration};

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vaxel_auth::key::ApiKey;
use vaxel_core::{
    failure::{Failure, Issue, Kind},
    id::{Id, Key},
    principal::Principal,
    quantity::Span,
};
use vaxel_store::{EarlierSecret, KeyRow};

use super::{NewKey, file::KeyFile};
use crate::{
    change::{KeyDraft, KeyRef, KeyRotation, Outcome},
    control::{Control, conflict},
    event::Event,
};

/// How long both secrets work when nobody says how long.
const OVERLAP: Duration = Duration::from_hours(24);
/// How often it is looked whether a key is due.
const LOOK: Duration = Duration::from_mins(1);
/// The same while something is to be settled.
const AGAIN: Duration = Duration::from_secs(5);
/// Keys that are read at once.
const AT_ONCE: u32 = 100;

/// Keys of which the data plane may not have what the store has.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    keys: Mutex<HashSet<Id<Key>>>,
    bell: Notify,
}

impl Control {
    /// Does what is left to do for keys that were made or rotated; whether all of it is done.
    async fn settle_keys(&self) -> bool {
        let _turn = self.inner.access.lock().await;
        let files = self.settle_key_files().await;
        let left = std::mem::take(&mut *self.inner.unsettled.keys.lock());
        if left.is_empty() {
            return files;
        }
        let settled = async {
            self.store().settle_writes().await?;
            for id in &left {
                self.publish_key(*id).await?;
            }
            Ok::<_, Failure>(())
        };
        let Err(failure) = settled.await else {
            return files;
        };
        tracing::warn!(%failure, "it is not known yet whether keys were made or rotated");
        self.inner.unsettled.keys.lock().extend(left);
        false
    }

    /// The store has this key: the data plane gets it, and its texts take their place.
    pub(super) async fn publish_new(&self, row: &KeyRow, files: Vec<KeyFile>) {
        self.put_new_key(row).await;
        for file in files {
            if let Err(failure) = file.publish().await {
                tracing::error!(key.name = %row.name, %failure, "the file of a key has its secret before; it is tried again");
                self.inner.unsettled.bell.notify_one();
            }
        }
    }

    /// The store did not say that it has this key: what came of its texts, and what to tell the caller.
    pub(super) fn not_stored(
        &self,
        row: &KeyRow,
        files: Vec<KeyFile>,
        error: vaxel_store::Error,
    ) -> Failure {
        if !error.is_uncertain() {
            files.into_iter().for_each(KeyFile::discard);
            return error.into();
        }
        self.inner.unsettled.keys.lock().insert(row.id);
        self.inner.unsettled.bell.notify_one();
        let detail = format!(
            "It is not known whether `{}` got its new secret, because the store did not say so in time: it is looked \
             for until it is known, and as long as it is not, the secret before works if there is one. \
             `vaxel key ls` says what came of it; do it again if need be",
            row.name
        );
        Failure::new(Kind::StoreUnavailable, detail).caused_by(error)
    }

    pub(crate) async fn rotate_key(
        &self,
        caller: &Principal,
        key: &KeyRef,
        wanted: KeyRotation,
    ) -> Result<Outcome, Failure> {
        let _turn = self.inner.access.lock().await;
        let row = self.managed_key(caller, key).await?;
        let now = self.now();
        if row.revoked_at.is_some() {
            return Err(conflict(format!(
                "`{}` is revoked; create another key",
                row.name
            )));
        }
        if !row.is_live(now) && wanted.expires_in.is_none() {
            let detail = format!(
                "`{}` has expired: say until when it is to work now",
                row.name
            );
            return Err(conflict(detail));
        }
        self.may_hold(caller, &row)?;
        let overlap = wanted.overlap.map_or_else(|| usual(&row), |span| span.0);
        if row.rotate_every.is_some_and(|every| overlap > every) {
            let message = "must not be longer than `rotate_every` of the key";
            let issues = vec![Issue::new("overlap", message)];
            return Err(Failure::invalid("The rotation", issues));
        }
        let still = row.earlier.as_ref().filter(|earlier| earlier.until > now);
        if let Some(earlier) = still
            && !overlap.is_zero()
        {
            return Err(conflict(format!(
                "`{}` was rotated, and the secret before ({}) works until {}: wait until then, or let both end \
                 at once with the overlap `0s`",
                row.name, earlier.prefix, earlier.until
            )));
        }
        let key = self
            .renew_secret(caller, row, (overlap, wanted.expires_in))
            .await?;
        Ok(Outcome::Key(Box::new(key)))
    }

    /// Gives every key that is due another secret, and writes that into its file.
    pub(crate) async fn rotate_due_keys(&self) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let _turn = self.inner.access.lock().await;
            let now = self.now();
            let page = self.store().keys_due(now, after, AT_ONCE).await?;
            let Some(last) = page.last else {
                return Ok(());
            };
            after = Some(last);
            for row in page.rows {
                let person = self.inner.people.find(row.user.as_str());
                if !row.is_live(now) || !person.is_some_and(|person| person.is_enabled()) {
                    continue;
                }
                let (overlap, name) = (usual(&row), row.name.clone());
                let renewed = self
                    .renew_secret(&Principal::system(), row, (overlap, None))
                    .await;
                // The others are not to wait for one whose file cannot be written.
                if let Err(failure) = renewed {
                    tracing::error!(key.name = %name, %failure, "a key that is due was not rotated");
                }
            }
        }
    }

    /// For who has the turn, and asked whether the caller may.
    async fn renew_secret(
        &self,
        caller: &Principal,
        row: KeyRow,
        (overlap, expires_in): (Duration, Option<Span>),
    ) -> Result<NewKey, Failure> {
        let now = self.now();
        let (text, made) = ApiKey::generate();
        let before = row.earlier.as_ref().map(|earlier| earlier.digest);
        let mut files = Vec::from_iter(self.prepare_admin_file(row.digest, &text).await?);
        if row.rotate_every.is_some() {
            files.push(self.prepare_key_file(&row.name, &text).await?);
        }
        let (prefix_before, end_before) = (row.prefix.clone(), row.expires_at);
        let next = KeyRow {
            prefix: made.prefix.to_string(),
            digest: made.digest,
            rotated_at: Some(now),
            expires_at: expires_in.map_or(row.expires_at, |span| Some(now.plus(span.0))),
            earlier: Some(EarlierSecret {
                prefix: row.prefix.clone(),
                digest: row.digest,
                until: row
                    .expires_at
                    .map_or(now.plus(overlap), |end| end.min(now.plus(overlap))),
                used_at: None,
            }),
            ..row
        };
        let target = ("key", next.id.to_string(), next.name.clone());
        let mut audit = self.line(caller, "key.rotate", target);
        audit.detail = json!({
            "prefix": next.prefix, "expires_at": next.expires_at,
            "earlier": next.earlier.as_ref().map(|one| json!({ "prefix": one.prefix, "until": one.until })),
        });
        let was = json!({ "prefix": prefix_before, "expires_at": end_before });
        let became = audit.detail.clone();
        let audit = audit.changing(was, became);
        files.iter_mut().for_each(KeyFile::entrust);
        if let Err(error) = self.store().rotate_key(&next, audit).await {
            let is_gone = matches!(error, vaxel_store::Error::Missing);
            let failure = self.not_stored(&next, files, error);
            if is_gone {
                return Err(conflict(format!(
                    "`{}` was revoked or rotated meanwhile",
                    next.name
                )));
            }
            return Err(failure);
        }
        if let Some(before) = before {
            self.inner.context.gateway.keys().remove(&before);
        }
        self.publish_new(&next, files).await;
        self.announce(Event::Key {
            id: next.id,
            action: "key.rotate",
        });
        Ok(NewKey { stored: next, text })
    }

    /// Who gets the secret of a key must be able to make such a key.
    fn may_hold(&self, caller: &Principal, row: &KeyRow) -> Result<(), Failure> {
        let draft = KeyDraft {
            name: row.name.clone(),
            user: Some(row.user.clone()),
            permissions: row.permissions,
            services: row.services.clone(),
            environments: row.environments.clone(),
            ..KeyDraft::default()
        };
        // What would be narrowed is more than the caller may have.
        if self.accepted_key(caller, draft.clone())? == draft {
            return Ok(());
        }
        Err(Failure::new(
            Kind::NotPermitted,
            format!(
                "`{}` came with a key that is limited to some services, and `{}` is not",
                caller.name, row.name
            ),
        ))
    }
}

/// Looks now and then which keys are due, and what is left to do for others, until `stop`.
pub(crate) async fn rotate(control: Control, stop: CancellationToken) {
    let mut wait = LOOK;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = control.inner.unsettled.bell.notified() => {}
        }
        wait = if control.settle_keys().await {
            LOOK
        } else {
            AGAIN
        };
        if let Err(error) = control.rotate_due_keys().await {
            tracing::warn!(%error, "keys that are due could not be rotated");
        }
    }
}

/// How long both secrets of a key work, unless it is said.
fn usual(row: &KeyRow) -> Duration {
    row.rotate_every
        .map_or(OVERLAP, |every| OVERLAP.min(every / 2))
}
