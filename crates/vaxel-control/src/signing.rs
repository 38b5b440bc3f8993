//! The keys that sign tokens: made, put in each other's place and given to the data plane, together with
//! who may come with a token.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use vaxel_auth::{
    bearer::{self, Bearer, Verifier},
    identity::Issuer,
    jwks::{self, KeySet, OwnKey, Placed, Rotation, Stage, Step},
    jwt::{self, Refused, Signer},
    visitor::Visitors,
};
use vaxel_core::{
    access::require,
    failure::Failure,
    principal::{Permission, Principal, Proof},
    time::Timestamp,
};
use vaxel_gateway::{Caller, Tokens};
use vaxel_store::SigningKeyRow;

use crate::{change::Outcome, control::Control};

/// Tokens of a key are good for so long after it signed the last one, and a little more for clocks that
/// others have.
const OVERLAP: Duration = Duration::from_hours(1);
/// How often it is looked whether a key is due.
const LOOK: Duration = Duration::from_mins(10);

/// Everything about tokens that is in memory.
#[derive(Default)]
pub(crate) struct Signing {
    /// Serializes what reads keys and sign-ins and publishes them.
    pub(crate) turn: tokio::sync::Mutex<()>,
    now: Mutex<Current>,
}

#[derive(Default, Clone)]
struct Current {
    keys: Vec<OwnKey>,
    places: Vec<Placed>,
    signer: Option<Signer>,
    /// The key with which the data plane tells services who calls.
    issuer: Option<String>,
    verifier: Arc<Verifier>,
    visitors: Option<Arc<Visitors>>,
}

/// A key with its place.
type Known = (OwnKey, Placed);

/// What is to be said of a key that signs tokens, or did, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Names it in tokens.
    pub kid: String,
    /// How it signs.
    pub algorithm: &'static str,
    /// What it is for.
    pub stage: Stage,
    /// Since when.
    pub since: Timestamp,
    /// When that is over: the current one signs no longer, or the previous one is good no longer.
    pub until: Option<Timestamp>,
}

impl Control {
    /// The public halves of our keys, for whoever verifies our tokens (RFC 7517).
    pub fn key_set(&self) -> Value {
        jwks::document(&self.inner.signing.now.lock().keys)
    }

    /// The keys that sign tokens, the next one first, then the one that signs. `system:read`.
    pub fn signing_keys(&self, caller: &Principal) -> Result<Vec<SigningKey>, Failure> {
        require(caller, Permission::SystemRead)?;
        let rotation = self.rotation();
        let key = |placed: &Placed| SigningKey {
            kid: placed.kid.clone(),
            algorithm: placed.algorithm.as_str(),
            stage: placed.stage,
            since: placed.since,
            until: match placed.stage {
                Stage::Next => None,
                Stage::Current => Some(placed.since.plus(rotation.every)),
                Stage::Previous => Some(placed.since.plus(rotation.overlap)),
            },
        };
        let now = self.inner.signing.now.lock();
        Ok(now.places.iter().map(key).collect())
    }

    /// The next key signs from now on; the one before is good until its tokens have ended.
    pub(crate) async fn rotate_signing_keys(&self, caller: &Principal) -> Result<Outcome, Failure> {
        require(caller, Permission::SystemManage)?;
        require(caller, Permission::KeysManage)?;
        self.look_after_signing_keys(Some(caller)).await?;
        Ok(Outcome::Done)
    }

    /// Whom an access token stands for; nothing is asked about what that user may do.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn bearer(&self, token: &str) -> Result<Bearer, Refused> {
        let verifier = Arc::clone(&self.inner.signing.now.lock().verifier);
        verifier.check(token, self.now())
    }

    /// What signs now.
    pub(crate) fn signer(&self) -> Result<Signer, Failure> {
        let signer = self.inner.signing.now.lock().signer.clone();
        signer.ok_or_else(|| Failure::internal("there is no key that signs tokens"))
    }

    /// Makes keys and puts them in each other's place as far as that is due, and publishes them.
    pub(crate) async fn refresh_signing_keys(&self) -> Result<(), Failure> {
        self.look_after_signing_keys(None).await
    }

    fn rotation(&self) -> Rotation {
        Rotation {
            algorithm: self.inner.context.config.tokens.algorithm,
            every: self.inner.context.config.tokens.rotation,
            overlap: OVERLAP,
        }
    }

    /// Somebody who asks for another key is who it is done for.
    async fn look_after_signing_keys(&self, asked: Option<&Principal>) -> Result<(), Failure> {
        let _turn = self.inner.signing.turn.lock().await;
        let rotation = self.rotation();
        let (mut known, mut is_new) = self.stored_keys().await?;
        let places: Vec<Placed> = known.iter().map(|(_, place)| place.clone()).collect();
        for step in jwks::plan(&places, rotation, self.now(), asked.is_some()) {
            is_new = true;
            self.take_step(&mut known, rotation, step).await?;
        }
        if is_new {
            let system = Principal::system();
            self.store_keys(&known, asked.unwrap_or(&system)).await?;
        }
        known.sort_by_key(|(_, place)| place.stage);
        let current = known
            .iter()
            .find(|(_, place)| place.stage == Stage::Current);
        {
            let mut now = self.inner.signing.now.lock();
            now.signer = current.map(|(key, _)| key.signer());
            if let Some((key, _)) = current.filter(|(key, _)| now.issuer.as_ref() != Some(&key.kid))
            {
                let url = &self.inner.context.config.server.url;
                let issuer = Issuer::new(key.signer(), url);
                self.inner.context.gateway.publish_issuer(issuer);
                now.issuer = Some(key.kid.clone());
            }
            (now.keys, now.places) = known.into_iter().unzip();
        }
        self.publish_verifier().await
    }

    /// A sign-in ended: its tokens are refused from the next request on.
    pub(crate) async fn sign_ins_ended(&self) -> Result<(), Failure> {
        let _turn = self.inner.signing.turn.lock().await;
        self.publish_verifier().await
    }

    /// Gives the data plane who may come with a token, after users or their rights changed.
    pub(crate) fn publish_users(&self) {
        // Held until it is published, so that the last one to look is the last one to publish.
        let now = self.inner.signing.now.lock();
        let people = self.inner.people.all();
        let enabled = people.values().filter(|person| person.is_enabled());
        let users = enabled.map(|person| {
            let who = (
                Proof::User(person.user.id),
                Arc::clone(person.user.name.shared()),
            );
            let principal = Principal::of_user(who, Arc::clone(&person.rights), None);
            let caller = Caller {
                principal,
                last_used: 0.into(),
            };
            (person.user.id, Arc::new(caller))
        });
        let users: HashMap<_, Arc<Caller>> = users.collect();
        let named = |caller: &Arc<Caller>| (Arc::clone(&caller.principal.name), Arc::clone(caller));
        // Nobody is looked for by name where nobody else issues tokens.
        let names = match &now.visitors {
            Some(_) => users.values().map(named).collect(),
            None => HashMap::new(),
        };
        self.inner.context.gateway.publish_tokens(Tokens {
            verifier: Arc::clone(&now.verifier),
            users,
            visitors: now.visitors.clone(),
            names,
            lent: now.visitors.as_ref().map(|_| self.inner.people.lent()),
        });
    }

    /// The keys of another issuer were read: its tokens are good from now on.
    pub(crate) fn publish_visitors(&self, visitors: Visitors) {
        self.inner.signing.now.lock().visitors = Some(Arc::new(visitors));
        self.publish_users();
    }

    /// What is kept in the store; `true` when it has to be written anew. A key that does not open signs and
    /// verifies nothing: whoever has a token of it signs in again.
    async fn stored_keys(&self) -> Result<(Vec<Known>, bool), Failure> {
        let sealer = self.inner.context.vault.sealer();
        let (mut known, mut is_new) = (Vec::new(), false);
        for row in self.store().signing_keys().await? {
            let read = || {
                let place = Placed {
                    kid: row.kid.clone(),
                    algorithm: row.algorithm.parse().ok()?,
                    stage: row.stage.parse().ok()?,
                    since: row.since,
                };
                let named = (row.kid.as_str(), place.algorithm);
                Some((OwnKey::open(named, sealer, &row.sealed).ok()?, place))
            };
            is_new |= sealer.is_outdated(&row.sealed);
            if let Some(key) = read() {
                known.push(key);
            } else {
                tracing::error!(key.id = %row.kid, "a key that signs tokens cannot be opened and is thrown away");
                is_new = true;
            }
        }
        Ok((known, is_new))
    }

    async fn take_step(
        &self,
        known: &mut Vec<Known>,
        rotation: Rotation,
        step: Step,
    ) -> Result<(), Failure> {
        let now = self.now();
        match step {
            Step::Forget(kid) => known.retain(|(key, _)| key.kid != kid),
            Step::Move(kid, stage) => {
                let moved = known.iter_mut().find(|(key, _)| key.kid == kid);
                if let Some((_, place)) = moved {
                    (place.stage, place.since) = (stage, now);
                }
            }
            Step::Make(stage) => {
                let algorithm = rotation.algorithm;
                let made = tokio::task::spawn_blocking(move || OwnKey::generate(algorithm)).await;
                let key = made.map_err(Failure::internal)??;
                let place = Placed {
                    kid: key.kid.clone(),
                    algorithm,
                    stage,
                    since: now,
                };
                known.push((key, place));
            }
        }
        Ok(())
    }

    async fn store_keys(&self, known: &[Known], caller: &Principal) -> Result<(), Failure> {
        let sealer = self.inner.context.vault.sealer();
        let rows = known.iter().map(|(key, place)| SigningKeyRow {
            kid: key.kid.clone(),
            algorithm: key.algorithm.as_str().to_owned(),
            stage: place.stage.as_str().to_owned(),
            since: place.since,
            sealed: key.sealed(sealer),
        });
        let target = ("signing keys", String::new(), String::new());
        let mut audit = self.line(caller, "signing_keys.update", target);
        let stages = known
            .iter()
            .map(|(key, place)| json!([key.kid, place.stage.as_str()]));
        audit.detail = json!({ "keys": stages.collect::<Vec<Value>>() });
        Ok(self.store().put_signing_keys(rows.collect(), audit).await?)
    }

    /// For who has the turn.
    async fn publish_verifier(&self) -> Result<(), Failure> {
        let still_good = bearer::LIFETIME + jwt::LEEWAY;
        let since = self.now().minus(still_good);
        let ended = self.store().ended_sign_ins(since).await?;
        let ended: HashSet<_> = ended.into_iter().collect();
        {
            let mut now = self.inner.signing.now.lock();
            let keys = KeySet::of_own(&now.keys);
            let url = &self.inner.context.config.server.url;
            now.verifier = Arc::new(Verifier::new(keys, url, ended));
        }
        self.publish_users();
        Ok(())
    }
}

/// Looks now and then whether a key is due, until `stop`.
pub(crate) async fn rotate(control: Control, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(error) = control.refresh_signing_keys().await {
            tracing::warn!(%error, "the keys that sign tokens could not be looked after");
        }
    }
}
