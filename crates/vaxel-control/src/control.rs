//! The handle: what every door may ask or change.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vaxel_auth::root::RootKeys;
use vaxel_core::{
    audit::AuditLine,
    call::CallRecord,
    failure::{Failure, Kind},
    principal::Principal,
    secret::Secret,
    template::Template,
    time::{Clock, Timestamp},
};
use vaxel_gateway::Gateway;
use vaxel_store::Store;
use vaxel_supervisor::Supervisor;

use crate::{
    audit::Audit,
    bodies::Bodies,
    change::{Change, Outcome, Terms},
    event::Event,
    feed::Feed,
    key::{ring::Holders, rotation::Unsettled, uses::KeyUses},
    oauth::Oauth,
    password::Guesses,
    reconcile::Signals,
    recorder::RecordCounts,
    rights::People,
    root_key::Roots,
    runner::Context,
    service::Made,
    signing::Signing,
    upstream_oauth::UpstreamTokens,
};

/// What the end takes beside the grace of requests and the time of programs: the store's, and that of what is
/// still written.
pub const STOP_REST: Duration = Duration::from_secs(10);

/// The control plane. Cheap to clone; [`Control::stop`] ends it for every clone.
#[derive(Clone)]
pub struct Control {
    pub(crate) inner: Arc<Inner>,
    /// On what terms this handle makes changes.
    pub(crate) terms: Terms,
    /// Templates that a plan will have written before they are needed, with their versions then.
    pub(crate) planned: Arc<[(Template, u64)]>,
}

/// What the control plane stands on.
pub struct Deps {
    /// Where time comes from.
    pub clock: Clock,
    /// Where resources and records are kept.
    pub store: Store,
    /// Starts and stops processes.
    pub supervisor: Supervisor,
    /// The data plane.
    pub gateway: Gateway,
    /// Seal what may be secret.
    pub roots: RootKeys,
    /// Call records, as the data plane makes them.
    pub records: mpsc::Receiver<CallRecord>,
}

/// What a start found or made.
#[derive(Debug)]
pub struct Started {
    /// The first admin key, made because there was no key at all. It is in no other place: write it
    /// where its owner finds it.
    pub admin_key: Option<Secret<String>>,
    /// How many services were found.
    pub services: usize,
}

pub(crate) struct Inner {
    pub(crate) context: Arc<Context>,
    pub(crate) signals: Arc<Signals>,
    /// Uses of keys that are not written yet.
    pub(crate) key_uses: Arc<KeyUses>,
    /// Whom keys stand for.
    pub(crate) holders: Holders,
    /// Keys of which it is not known what is stored.
    pub(crate) unsettled: Unsettled,
    /// What every user may do.
    pub(crate) people: Arc<People>,
    /// Keys of tokens, and who may come with one.
    pub(crate) signing: Signing,
    /// Clients that log in for users.
    pub(crate) oauth: Oauth,
    /// What seals, and how far replacing it has come.
    pub(crate) roots: Roots,
    /// Held by changes, which seal and then store; alone by who replaces the root key.
    pub(crate) sealing: tokio::sync::RwLock<()>,
    /// Services that let users in by OAuth.
    pub(crate) upstream_tokens: UpstreamTokens,
    /// Checks of passwords.
    pub(crate) guesses: Guesses,
    /// Serializes changes of who may do what: each is checked against what the one before it left.
    pub(crate) access: tokio::sync::Mutex<()>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) records: Arc<RecordCounts>,
    /// Seals what records keep.
    pub(crate) bodies: Arc<Bodies>,
    /// Changes being made: they are finished even when nobody waits for their answer.
    pub(crate) changes: TaskTracker,
    /// Serializes what reads keys and rights and publishes them.
    pub(crate) key_ring: tokio::sync::Mutex<()>,
    pub(crate) audit: Audit,
    /// Held while a backup is written.
    pub(crate) backup: tokio::sync::Mutex<()>,
    /// Serializes what reads all sets and publishes them.
    pub(crate) toolsets: tokio::sync::Mutex<()>,
    /// Someone asked for the end.
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: Mutex<Vec<Task>>,
}

/// A background task, in the order in which they are ended.
pub(crate) struct Task {
    pub(crate) name: &'static str,
    pub(crate) stop: CancellationToken,
    pub(crate) handle: JoinHandle<()>,
}

impl Task {
    /// Has it end by then, and breaks it off when it does not.
    async fn end(mut self, by: Instant) {
        self.stop.cancel();
        if timeout_at(by, &mut self.handle).await.is_err() {
            tracing::warn!(
                task = self.name,
                "a task did not end in time and is broken off"
            );
            self.handle.abort();
        }
    }
}

impl Control {
    /// The same control plane; changes that are submitted to this handle are made on these terms.
    pub fn on(&self, terms: Terms) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            terms,
            planned: Arc::clone(&self.planned),
        }
    }

    /// Makes one change: authorized, validated, written and audited whole, or refused whole. When it
    /// answers, the change is on disk.
    ///
    /// # Errors
    /// `NotPermitted`, `Invalid` with every problem, `Conflict`, `VersionMismatch`, an unknown name,
    /// `StoreUnavailable`.
    pub async fn submit(&self, caller: &Principal, change: Change) -> Result<Outcome, Failure> {
        self.terms.check()?;
        self.terms.fit(&change)?;
        let (control, caller) = (self.clone(), caller.clone());
        let working = self
            .inner
            .changes
            .spawn(async move { control.apply(&caller, change).await });
        working.await.map_err(Failure::internal)?
    }

    pub(crate) async fn apply(
        &self,
        caller: &Principal,
        change: Change,
    ) -> Result<Outcome, Failure> {
        let change = match change {
            Change::ReplaceRootKey(new) => return self.replace_root_key(caller, new).await,
            // These wait for others before they seal anything.
            Change::ForgetAuthorization(service) => {
                return self.forget_authorization(caller, &service).await;
            }
            Change::FinishAuthorization(back) => {
                return self.finish_authorization(caller, back).await;
            }
            other => other,
        };
        let _sealing = self.inner.sealing.read().await;
        match change {
            Change::CreateService(draft) => {
                let draft = (*draft, Made::Manually);
                self.create_service(caller, draft).await
            }
            Change::CreateDerived(draft) => self.create_derived(caller, *draft).await,
            Change::UpdateService {
                service,
                draft,
                expected,
            } => {
                self.update_service(caller, &service, (*draft, expected), Made::Manually)
                    .await
            }
            Change::UpdateDerived {
                service,
                draft,
                expected,
            } => {
                self.update_derived(caller, &service, (*draft, expected))
                    .await
            }
            Change::RefreshService { service, expected } => {
                self.refresh_service(caller, &service, expected).await
            }
            Change::CreateTemplate(template) => self.create_template(caller, *template).await,
            Change::UpdateTemplate {
                name,
                template,
                expected,
            } => {
                self.update_template(caller, &name, (*template, expected))
                    .await
            }
            Change::DeleteTemplate { name, expected } => {
                self.delete_template(caller, &name, expected).await
            }
            Change::DeleteService { service, expected } => {
                self.delete_service(caller, &service, expected).await
            }
            Change::RestoreService(service) => self.restore_service(caller, &service).await,
            Change::StartService(service) => self.enable_service(caller, &service, true).await,
            Change::StopService(service) => self.enable_service(caller, &service, false).await,
            Change::RestartService(service) => self.restart_service(caller, &service).await,
            Change::AcceptDefinitions(service) => self.accept_definitions(caller, &service).await,
            Change::PurgeService(service) => self.purge_service(caller, &service).await,
            Change::RollBackService { service, to } => self.roll_back(caller, &service, &to).await,
            Change::LabelRevision {
                service,
                label,
                revision,
            } => {
                self.label_revision(caller, &service, (label, &revision))
                    .await
            }
            Change::UnlabelRevision { service, label } => {
                self.unlabel_revision(caller, &service, label).await
            }
            Change::CreateToolset(draft) => self.create_toolset(caller, draft).await,
            Change::UpdateToolset {
                toolset,
                draft,
                expected,
            } => {
                self.update_toolset(caller, &toolset, (draft, expected))
                    .await
            }
            Change::DeleteToolset { toolset, expected } => {
                self.delete_toolset(caller, &toolset, expected).await
            }
            Change::User(change) => self.change_user(caller, change).await,
            Change::Role(change) => self.change_role(caller, change).await,
            Change::Grant(change) => self.change_grant(caller, change).await,
            Change::Policy(change) => self.change_policy(caller, change).await,
            Change::SetPassword(change) => self.set_password(caller, change).await,
            Change::EndSignIn(id) => self.end_sign_in(caller, id).await,
            Change::RemoveClient(id) => self.remove_client(caller, &id).await,
            Change::CreateKey(draft) => self.create_key(caller, draft).await,
            Change::ReplaceRootKey(_)
            | Change::ForgetAuthorization(_)
            | Change::FinishAuthorization(_) => Err(Failure::internal("it was made before")),
            Change::RotateSigningKeys => self.rotate_signing_keys(caller).await,
            Change::RotateKey(key, wanted) => self.rotate_key(caller, &key, wanted).await,
            Change::RevokeKey(key) => self.revoke_key(caller, &key).await,
            Change::Shutdown => self.shut_down(caller).await,
        }
    }

    /// Resolves when someone asked the server to end ([`Change::Shutdown`]).
    pub async fn shutdown_asked(&self) {
        self.inner.shutdown.cancelled().await;
    }

    /// Says that the server is about to end: it is not ready any more, and those who follow the feed are
    /// told, so that nobody waits for them.
    pub fn announce_end(&self) {
        self.inner.shutdown.cancel();
    }

    /// Ends everything as [`Control::stop_by`] does, within the configured grace and a while for programs and
    /// the store.
    pub async fn stop(&self) {
        let grace = self.inner.context.config.grace;
        self.stop_by(Instant::now() + grace + STOP_REST).await;
    }

    /// Ends everything: changes in flight are finished, services are drained and stopped, records are
    /// written, the store is closed. Each takes at most the configured grace, and all of it is over at
    /// `until`; what did not end by then is broken off, and the log says what that was.
    pub async fn stop_by(&self, until: Instant) {
        let grace = self.inner.context.config.grace;
        let begun = Instant::now();
        let within = until.saturating_duration_since(begun);
        let by = |end: Instant| end.min(Instant::now() + grace);
        self.inner.shutdown.cancel();
        self.inner.changes.close();
        let changes = timeout_at(by(begun + within / 4), self.inner.changes.wait());
        if changes.await.is_err() {
            tracing::warn!("changes were still being made when the server ended");
        }
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock()).into_iter();
        // The first one is the reconciler: it needs the others, and nothing runs after it.
        if let Some(reconciler) = tasks.next() {
            reconciler.end(by(begun + within / 2)).await;
        }
        let Context {
            supervisor, store, ..
        } = &*self.inner.context;
        // Programs need no store to end, and a store that hangs must not take their time.
        let programs = async {
            if timeout_at(until, supervisor.shutdown()).await.is_err() {
                tracing::warn!("programs did not end in time; their shims end them");
            }
        };
        let writing = async {
            for task in tasks {
                task.end(by(until)).await;
            }
            if timeout_at(until, store.close()).await.is_err() {
                tracing::warn!("the store did not close in time; it is left as it is");
            }
        };
        tokio::join!(programs, writing);
    }

    /// The changes from now on. A reader that is too slow is told so and misses the oldest ones.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.context.store
    }

    /// The time by which everything here is dated.
    pub fn now(&self) -> Timestamp {
        self.inner.context.clock.now()
    }

    pub(crate) fn announce(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.inner.events.send(event);
    }

    /// A line for the audit, with why.
    pub(crate) fn line(
        &self,
        caller: &Principal,
        action: &'static str,
        target: (&'static str, String, String),
    ) -> AuditLine {
        let mut line = AuditLine::new(self.now(), caller, action, target);
        line.message.clone_from(&self.terms.message);
        line
    }
}

/// Refuses a change that is meant for another version than the one there is.
pub(crate) fn compare_version(
    (what, name): (&str, &str),
    version: u64,
    expected: Option<u64>,
) -> Result<(), Failure> {
    match expected {
        Some(expected) if expected != version => Err(Failure::new(
            Kind::VersionMismatch,
            format!(
                "The {what} `{name}` has version {version}, not {expected}: read it again and repeat \
                 the change"
            ),
        )
        .at_version(version)),
        Some(_) | None => Ok(()),
    }
}

/// A state that does not allow the change.
pub(crate) fn conflict(detail: String) -> Failure {
    Failure::new(Kind::Conflict, detail)
}
