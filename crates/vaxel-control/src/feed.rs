//! The feed of changes: every change by its number, for any number of readers, without holes.
//!
//! One task reads the outbox, when the store says that something was written (here or by another
//! process), and keeps the newest changes in a ring. Readers take what comes next from the ring; those that are further behind
//! read pages from the store. Nothing is kept for a reader but its number, so that a slow one costs
//! nothing; one that takes nothing for a while although much waits loses its place, and comes back
//! with its number.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    access::{decide, require_anywhere},
    failure::{Failure, Kind},
    principal::{Permission, Principal},
    service::matches,
    time::{Clock, Timestamp},
};
use vaxel_store::{Event as Row, Store};

use crate::{config::FeedConfig, control::Control};

/// Changes that a reader takes at once.
const PAGE: u32 = 128;
/// Changes that are read from the store at once.
const STEP: u32 = 512;
/// How often it is looked after readers that take nothing, and after a store that does not answer.
const LOOK: Duration = Duration::from_secs(1);
/// Between two signs of life to a reader for whom nothing happens.
const ALIVE: Duration = Duration::from_secs(15);

/// One change.
#[derive(Debug, Clone)]
pub struct FeedEvent {
    /// In the order of commits, without holes.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What: `service.create`, `service.lifecycle`, …
    pub action: String,
    /// What kind of thing it happened to: `service`, `key`, …
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name at that time.
    pub name: String,
    /// Who did it; `vaxel` for what happened by itself.
    pub actor: String,
    /// Why, when somebody said so.
    pub message: Option<String>,
    /// More about it.
    pub detail: Box<RawValue>,
}

/// What a reader is told.
#[derive(Debug, Clone)]
pub enum FeedItem {
    /// Something changed.
    Change(Arc<FeedEvent>),
    /// The changes after the reader's number are not kept any more (or never were): what it knows has
    /// to be read anew, and the feed goes on after this number.
    Reset(u64),
    /// Nothing that the reader may see and asked for happened up to this number.
    Alive(u64),
    /// The feed ends, for this reason; it can be taken up after this number.
    End(String, u64),
}

/// Which changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedQuery {
    /// Those after this number; without it, those from now on (a page: the newest ones).
    pub after: Option<u64>,
    /// Those of these types, `*` stands for any run of characters; none: of all types.
    pub types: Vec<String>,
}

/// One page of changes.
#[derive(Debug, Clone)]
pub struct FeedPage {
    /// Oldest first.
    pub items: Vec<Arc<FeedEvent>>,
    /// The number to go on after.
    pub next_after: u64,
    /// Number of the newest change there is.
    pub newest: u64,
    /// The changes after the number that was asked for are not kept any more.
    pub reset: bool,
}

/// What all readers share.
#[derive(Debug)]
pub(crate) struct Feed {
    config: FeedConfig,
    /// Consecutive numbers; the newest is that of `newest`.
    ring: RwLock<VecDeque<Arc<FeedEvent>>>,
    newest: watch::Sender<u64>,
    /// At most `config.readers` that still have their place.
    seats: Mutex<Vec<Weak<Seat>>>,
}

/// The place of one reader.
#[derive(Debug)]
struct Seat {
    at: AtomicU64,
    /// When it took something last, milliseconds since the epoch.
    moved: AtomicU64,
    lost: AtomicBool,
}

/// What comes next from the ring.
enum Next {
    Ring(Vec<Arc<FeedEvent>>),
    Nothing,
    Store,
}

impl Feed {
    pub(crate) fn new(config: FeedConfig) -> Self {
        Self {
            config,
            ring: RwLock::default(),
            newest: watch::Sender::new(0),
            seats: Mutex::default(),
        }
    }

    /// What was there before the start is not in the ring.
    pub(crate) fn begin(&self, newest: u64) {
        self.newest.send_replace(newest);
    }

    fn sit(&self, at: u64, now: Timestamp) -> Result<Arc<Seat>, Failure> {
        let mut seats = self.seats.lock();
        seats.retain(|seat| seat.upgrade().is_some_and(|seat| !seat.is_lost()));
        if seats.len() >= self.config.readers {
            let detail = "As many readers of the feed as are allowed (`feed.readers`) are there; \
                          read pages of it, or try again later";
            return Err(Failure::new(Kind::Busy, detail).retry_after(5));
        }
        let seat = Arc::new(Seat {
            at: AtomicU64::new(at),
            moved: AtomicU64::new(now.as_millis()),
            lost: AtomicBool::new(false),
        });
        seats.push(Arc::downgrade(&seat));
        Ok(seat)
    }

    /// Takes the place of readers that take nothing although more waits than the ring holds.
    fn unseat(&self, now: Timestamp) {
        let oldest = self.ring.read().front().map_or(0, |event| event.number);
        let patience = self.config.patience;
        self.seats.lock().retain(|seat| {
            let Some(seat) = seat.upgrade() else {
                return false;
            };
            let moved = Timestamp::from_millis(seat.moved.load(Ordering::Relaxed));
            let is_behind = seat.at.load(Ordering::Relaxed) + 1 < oldest;
            if is_behind && now.since(moved) >= patience {
                seat.lost.store(true, Ordering::Relaxed);
            }
            !seat.is_lost()
        });
    }

    fn next(&self, after: u64) -> Next {
        let ring = self.ring.read();
        if after >= *self.newest.borrow() {
            return Next::Nothing;
        }
        let Some(first) = ring.front().map(|event| event.number) else {
            return Next::Store;
        };
        let Some(skip) = (after + 1).checked_sub(first) else {
            return Next::Store;
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Next::Ring(
            ring.iter()
                .skip(skip)
                .take(PAGE as usize)
                .cloned()
                .collect(),
        )
    }

    fn push(&self, rows: Vec<Row>) {
        let Some(last) = rows.last().map(|row| row.seq) else {
            return;
        };
        let mut ring = self.ring.write();
        for row in rows {
            let follows = ring.back().is_none_or(|event| event.number + 1 == row.seq);
            if !follows {
                ring.clear();
            }
            ring.push_back(Arc::new(row.into()));
        }
        let surplus = ring.len().saturating_sub(self.config.ring.max(1));
        ring.drain(..surplus);
        // While the ring is held: whoever sees the number finds the change.
        self.newest.send_replace(last);
    }
}

impl Seat {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn take(&self, at: u64, now: Timestamp) {
        self.at.store(at, Ordering::Relaxed);
        self.moved.store(now.as_millis(), Ordering::Relaxed);
    }
}

/// Follows the outbox until `stop`. The store says when there is something: at once after a commit, its own
/// or one that it hears of, and otherwise when it looks by itself.
pub(crate) async fn follow(
    (store, clock): (Store, Clock),
    feed: Arc<Feed>,
    stop: CancellationToken,
) {
    let mut timer = tokio::time::interval(LOOK);
    let mut is_lost = false;
    loop {
        let newest = *feed.newest.borrow();
        let waiting = store.wait_for_events(newest);
        let mut waiting = std::pin::pin!(waiting);
        let woken = loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = timer.tick() => feed.unseat(clock.now()),
                woken = &mut waiting => break woken,
            }
        };
        let read = match woken {
            Ok(_) => store.changes_after(newest, STEP).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(rows) => {
                feed.push(rows);
                is_lost = false;
            }
            Err(error) => {
                if !is_lost {
                    tracing::warn!(%error, "the feed of changes cannot be read; it is tried again");
                }
                is_lost = true;
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = timer.tick() => feed.unseat(clock.now()),
                }
            }
        }
    }
}

/// One reader. It is asked for what comes next; between two questions nothing is kept for it.
pub struct FeedReader {
    control: Control,
    caller: Principal,
    types: Vec<String>,
    after: u64,
    seat: Arc<Seat>,
    newest: watch::Receiver<u64>,
    /// When the caller's key is worthless.
    expires_at: Option<Timestamp>,
    is_over: bool,
}

impl FeedReader {
    /// The number that it goes on after.
    pub const fn after(&self) -> u64 {
        self.after
    }

    /// Waits for what comes next, at most fifteen seconds; at least one item. `None` after the end.
    pub async fn next(&mut self) -> Option<Vec<FeedItem>> {
        if self.is_over {
            return None;
        }
        let deadline = tokio::time::Instant::now() + ALIVE;
        let items = loop {
            if let Some(reason) = self.over() {
                break self.end(reason);
            }
            match self.step().await {
                Ok(Some(items)) if !items.is_empty() => break items,
                Ok(Some(_)) => {}
                Ok(None) => {
                    let shutdown = &self.control.inner.shutdown;
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        _ = self.newest.changed() => {}
                        () = tokio::time::sleep_until(deadline) => {
                            break vec![FeedItem::Alive(self.after)];
                        }
                    }
                }
                Err(failure) => break self.end(&failure.detail),
            }
        };
        Some(items)
    }

    fn over(&self) -> Option<&'static str> {
        if self.seat.is_lost() {
            let reason = "You took nothing for too long while changes were waiting; ask for those \
                          after your number again";
            return Some(reason);
        }
        if self.expires_at.is_some_and(|end| end <= self.control.now()) {
            return Some("Your key expired");
        }
        let ends = self.control.inner.shutdown.is_cancelled();
        ends.then_some("The server is ending")
    }

    fn end(&mut self, reason: &str) -> Vec<FeedItem> {
        self.is_over = true;
        vec![FeedItem::End(reason.to_owned(), self.after)]
    }

    /// What is there: changes (of which none may be for this reader), or nothing yet.
    async fn step(&mut self) -> Result<Option<Vec<FeedItem>>, Failure> {
        // What the reader may do may have changed since it began.
        match self.control.as_now(&self.caller) {
            Some(caller) => self.caller = caller,
            None => return Ok(Some(self.end("Your user is disabled or gone"))),
        }
        let feed = &self.control.inner.feed;
        let events = match feed.next(self.after) {
            Next::Ring(events) => events,
            Next::Nothing => return Ok(None),
            Next::Store => {
                let rows = self.control.store().changes_after(self.after, PAGE).await?;
                if rows.first().is_none_or(|row| row.seq != self.after + 1) {
                    self.after = *feed.newest.borrow();
                    return Ok(Some(vec![FeedItem::Reset(self.after)]));
                }
                rows.into_iter().map(|row| Arc::new(row.into())).collect()
            }
        };
        let mut items = Vec::new();
        for event in events {
            self.after = event.number;
            if self.is_revoked_by(&event) {
                items.extend(self.end("Your key was revoked"));
                break;
            }
            if self.control.is_for(&self.caller, &self.types, &event) {
                items.push(FeedItem::Change(event));
            }
        }
        self.seat.take(self.after, self.control.now());
        Ok(Some(items))
    }

    fn is_revoked_by(&self, event: &FeedEvent) -> bool {
        let own = || {
            self.caller
                .key()
                .is_some_and(|id| id.to_string() == event.id)
        };
        event.action == "key.revoke" && own()
    }
}

impl Control {
    /// The changes after a number, or from now on, as they come. `mcp:read`; of what the caller may not
    /// see nothing is told.
    ///
    /// # Errors
    /// `NotPermitted`; `Busy` when as many readers as are allowed are there.
    pub async fn follow(
        &self,
        caller: &Principal,
        query: FeedQuery,
    ) -> Result<(FeedReader, Option<FeedItem>), Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        let feed = &self.inner.feed;
        let newest = feed.newest.subscribe();
        // What the ring has may be a moment behind.
        let now = self.store().last_change().await?;
        // A number that is still to come is of another database.
        let reset = query.after.filter(|after| *after > now);
        let reset = reset.map(|_| FeedItem::Reset(now));
        let after = query.after.unwrap_or(now).min(now);
        let expires_at = match caller.key() {
            Some(id) => {
                let own = self.store().key(id).await?;
                own.and_then(|row| row.expires_at)
            }
            None => None,
        };
        let reader = FeedReader {
            control: self.clone(),
            caller: caller.clone(),
            types: query.types,
            after,
            seat: feed.sit(after, self.now())?,
            newest,
            expires_at,
            is_over: false,
        };
        Ok((reader, reset))
    }

    /// A page of changes: the oldest after a number, or the newest. `mcp:read`; what the caller may not
    /// see is left out.
    pub async fn changes(
        &self,
        caller: &Principal,
        query: &FeedQuery,
        limit: u32,
    ) -> Result<FeedPage, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let newest = self.store().last_change().await?;
        match query.after {
            Some(after) => {
                self.changes_after(caller, (query, after), (newest, limit))
                    .await
            }
            None => self.newest_changes(caller, query, (newest, limit)).await,
        }
    }

    async fn changes_after(
        &self,
        caller: &Principal,
        (query, after): (&FeedQuery, u64),
        (newest, limit): (u64, usize),
    ) -> Result<FeedPage, Failure> {
        let mut page = FeedPage {
            items: Vec::new(),
            next_after: after,
            newest,
            reset: false,
        };
        while page.items.len() < limit {
            let rows = self.store().changes_after(page.next_after, STEP).await?;
            let is_cut = match rows.first() {
                Some(first) => first.seq != page.next_after + 1,
                None => page.next_after > newest,
            };
            if is_cut {
                (page.next_after, page.reset) = (newest, true);
                page.items.clear();
                break;
            }
            if rows.is_empty() {
                break;
            }
            for row in rows {
                page.next_after = row.seq;
                let event = FeedEvent::from(row);
                if self.is_for(caller, &query.types, &event) {
                    page.items.push(Arc::new(event));
                }
                if page.items.len() == limit {
                    break;
                }
            }
        }
        page.newest = page.newest.max(page.next_after);
        Ok(page)
    }

    async fn newest_changes(
        &self,
        caller: &Principal,
        query: &FeedQuery,
        (newest, limit): (u64, usize),
    ) -> Result<FeedPage, Failure> {
        let mut items = VecDeque::new();
        let mut before = newest + 1;
        while items.len() < limit {
            let rows = self.store().changes_before(before, STEP).await?;
            let Some(oldest) = rows.last().map(|row| row.seq) else {
                break;
            };
            before = oldest;
            for row in rows {
                let event = FeedEvent::from(row);
                if items.len() < limit && self.is_for(caller, &query.types, &event) {
                    items.push_front(Arc::new(event));
                }
            }
        }
        Ok(FeedPage {
            items: items.into(),
            next_after: newest,
            newest,
            reset: false,
        })
    }
}

impl Control {
    /// Whether the caller asked for it and may see it.
    fn is_for(&self, caller: &Principal, types: &[String], event: &FeedEvent) -> bool {
        let is_wanted = types.is_empty() || types.iter().any(|one| matches(one, &event.action));
        is_wanted && self.is_seen(caller, event)
    }

    fn is_seen(&self, caller: &Principal, event: &FeedEvent) -> bool {
        let service = (event.kind == "service")
            .then(|| event.id.parse())
            .and_then(Result::ok);
        match service {
            Some(service) => self.inner.context.gateway.may_know(caller, service),
            None => decide(caller, needed(&event.kind)).allowed,
        }
    }
}

/// The permission that one needs to see what happens to things of this kind.
fn needed(kind: &str) -> Permission {
    match kind {
        "service" | "template" | "toolset" => Permission::McpRead,
        "key" => Permission::KeysManage,
        "user" => Permission::UsersRead,
        "role" | "grant" | "policy" => Permission::AccessRead,
        _ => Permission::SystemRead,
    }
}

impl From<Row> for FeedEvent {
    fn from(row: Row) -> Self {
        let Row {
            seq,
            at,
            action,
            target_kind,
            target_id,
            target_name,
            actor,
            message,
            detail,
        } = row;
        Self {
            number: seq,
            at,
            action,
            kind: target_kind,
            id: target_id,
            name: target_name,
            actor,
            message,
            detail: RawValue::from_string(detail).unwrap_or_default(),
        }
    }
}
