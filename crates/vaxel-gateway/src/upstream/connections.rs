//! Servers that are reached by connections which last: HTTP+SSE of 2024-11-05, WebSocket.
//!
//! A legacy session is its connection there, so there is one per caller and set of answers, opened when
//! it is needed first and again after it broke. A modern server gets one connection for all callers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Mutex as Slot,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::revision::Era;

use super::{
    Answer, NowPlus, OnBehalf, Outbound,
    channel::Channel,
    ear::{Acknowledged, Ear, Listened},
    sse_dial::SseAddress,
    told_level::ToldLevel,
    websocket_dial::WebSocketAddress,
};

/// Connections to one server; when there are more, one that nobody uses is closed.
const CONNECTIONS: usize = 256;
/// Longest wait for a connection that is opened for no call.
const OPEN: Duration = Duration::from_secs(30);
/// How long a polite end may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where and how a server is reached.
pub(crate) enum Dial {
    Sse(SseAddress),
    WebSocket(WebSocketAddress),
}

/// An open connection. The tasks that read and write end with it.
pub(crate) struct Connection {
    pub(crate) channel: Arc<Channel>,
    pub(super) tasks: JoinSet<()>,
}

/// All connections to one server.
pub(crate) struct Connections {
    dial: Dial,
    ear: Ear,
    era: Era,
    by_caller: Mutex<HashMap<OnBehalf, Known>>,
}

/// The connection of one caller.
struct Known {
    slot: Arc<Slot<Option<Connection>>>,
    used: Instant,
}

impl Known {
    fn new(connection: Option<Connection>) -> Self {
        Self {
            slot: Arc::new(Slot::new(connection)),
            used: Instant::now(),
        }
    }

    fn is_unused(&self) -> bool {
        let open = self.slot.try_lock();
        open.is_ok_and(|open| open.as_ref().is_none_or(|one| one.channel.is_idle()))
    }
}

impl Dial {
    /// Opens a connection, on which nothing has been said yet.
    pub(crate) async fn open(&self, ear: &Ear, deadline: Instant) -> Result<Connection, Failure> {
        match self {
            Self::Sse(address) => address.open(ear, deadline).await,
            Self::WebSocket(address) => address.open(ear, deadline).await,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Sse(address) => &address.name,
            Self::WebSocket(address) => &address.name,
        }
    }
}

impl Connections {
    /// All connections to a server that was found to speak `era` on `first`, which serves Vaxel's own
    /// requests from now on.
    pub(crate) fn new(dial: Dial, ear: Ear, era: Era, first: Connection) -> Self {
        let first = Known::new(Some(first));
        Self {
            dial,
            ear,
            era,
            by_caller: Mutex::new([(OnBehalf::SYSTEM, first)].into()),
        }
    }

    pub(super) async fn exchange(&self, out: &Outbound<'_>) -> Result<Answer, Failure> {
        let caller = match self.era {
            Era::Legacy => out.on_behalf,
            Era::Modern => OnBehalf::SYSTEM,
        };
        let channel = self.channel(caller, out.deadline).await?;
        channel.exchange(out, self.era).await
    }

    /// What the server was told in the session of these callers, which is opened where there is none.
    pub(super) async fn told_level(
        &self,
        caller: OnBehalf,
        within: Duration,
    ) -> Option<Arc<ToldLevel>> {
        let channel = self.channel(caller, Instant::now_plus(within)).await.ok()?;
        Some(Arc::clone(&channel.told_level))
    }

    /// Resolves when the connection of Vaxel's own requests has ended.
    pub(super) async fn lost(&self) {
        let deadline = Instant::now_plus(OPEN);
        if let Ok(channel) = self.channel(OnBehalf::SYSTEM, deadline).await {
            channel.closed().await;
        }
    }

    /// Asks a modern server to tell of changes.
    pub(super) async fn subscribe(
        &self,
        message: &Bytes,
        acknowledged: Arc<Acknowledged>,
    ) -> Listened {
        let deadline = Instant::now_plus(OPEN);
        match self.channel(OnBehalf::SYSTEM, deadline).await {
            Ok(channel) => channel.subscribe(message, acknowledged).await,
            Err(_) => Listened::Broken,
        }
    }

    /// Ends all connections, after what was said last has been written.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *self.by_caller.lock());
        let farewell = async {
            for known in all.into_values() {
                if let Some(mut connection) = known.slot.lock().await.take() {
                    connection.channel.close();
                    connection.tasks.join_next().await;
                }
            }
        };
        // What takes longer is cut.
        let _ = timeout(FAREWELL, farewell).await;
    }

    async fn channel(&self, caller: OnBehalf, deadline: Instant) -> Result<Arc<Channel>, Failure> {
        let slot = self.slot(caller)?;
        let opening = async {
            let mut slot = slot.lock().await;
            if let Some(open) = slot.as_ref().filter(|one| one.channel.is_open()) {
                return Ok(Arc::clone(&open.channel));
            }
            let connection = self.dial.open(&self.ear, deadline).await?;
            let channel = Arc::clone(&connection.channel);
            if self.era == Era::Legacy {
                channel.initialize(caller.answers, deadline).await?;
            }
            *slot = Some(connection);
            Ok(channel)
        };
        let late = |_| {
            let detail = format!("`{}` was not connected in time", self.dial.name());
            Failure::new(Kind::UpstreamTimeout, detail)
        };
        timeout_at(deadline, opening).await.map_err(late)?
    }

    fn slot(&self, caller: OnBehalf) -> Result<Arc<Slot<Option<Connection>>>, Failure> {
        let mut all = self.by_caller.lock();
        if let Some(known) = all.get_mut(&caller) {
            known.used = Instant::now();
            return Ok(Arc::clone(&known.slot));
        }
        if all.len() >= CONNECTIONS {
            let unused = all.iter();
            let unused = unused.filter(|(of, one)| **of != OnBehalf::SYSTEM && one.is_unused());
            let oldest = unused.min_by_key(|(_, known)| known.used);
            let oldest = oldest.map(|(of, _)| *of).ok_or_else(|| {
                let name = self.dial.name();
                let detail = format!("`{name}` has {CONNECTIONS} connections in use");
                Failure::new(Kind::Busy, detail).retry_after(1)
            })?;
            all.remove(&oldest);
        }
        let known = Known::new(None);
        let slot = Arc::clone(&known.slot);
        all.insert(caller, known);
        Ok(slot)
    }

    /// Closes the connections that nobody has used for so long; Vaxel's own stays.
    pub(super) fn sweep(&self, idle: Duration) {
        let now = Instant::now();
        self.by_caller.lock().retain(|caller, known| {
            if *caller == OnBehalf::SYSTEM || !known.is_unused() {
                known.used = now;
            }
            known.used + idle > now
        });
    }
}
