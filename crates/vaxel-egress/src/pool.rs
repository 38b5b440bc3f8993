//! The connections of one origin: a stack of unused ones, and a bound on all of them.
//!
//! A connection has no task. It is driven by whoever holds its [`Lease`], and rests undriven in the
//! stack; what happened to it meanwhile (a close by the peer, as a rule) is seen when it is taken
//! out, before anything is written to it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    task::coop::unconstrained,
    time::{Instant, timeout_at},
};

use crate::{
    body::Body,
    config::Config,
    connect::Connector,
    failure::{Error, Stage},
    stream::Stream,
    target::Origin,
};

/// Read and write buffers of a connection grow up to this size. hyper's minimum is 8 KiB.
const BUFFER: usize = 128 << 10;

/// The connections of one origin.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) origin: Origin,
    pub(crate) limits: Limits,
    connector: Arc<Connector>,
    #[expect(
        clippy::vec_box,
        reason = "a connection is large and moves between lease and stack"
    )]
    idle: Mutex<Vec<Box<Wire>>>,
    /// One permit per connection that may be in use.
    permits: Semaphore,
}

/// The parts of [`Config`] that a pool needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) head_bytes: usize,
    idle_timeout: Duration,
    max_idle: usize,
    max_connections: usize,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            head_bytes: config.max_head_bytes,
            idle_timeout: config.idle_timeout,
            max_idle: config.max_idle_per_origin,
            max_connections: config
                .max_connections_per_origin
                .clamp(1, Semaphore::MAX_PERMITS),
        }
    }
}

impl Pool {
    pub(crate) fn new(origin: Origin, limits: Limits, connector: Arc<Connector>) -> Self {
        let permits = Semaphore::new(limits.max_connections);
        Self {
            origin,
            limits,
            connector,
            idle: Mutex::new(Vec::new()),
            permits,
        }
    }

    /// Waits for the right to use a connection; waiters are served in order.
    pub(crate) async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease, Error> {
        if let Ok(permit) = self.permits.try_acquire() {
            permit.forget();
        } else if let Ok(Ok(permit)) = timeout_at(deadline, self.permits.acquire()).await {
            permit.forget();
        } else {
            let origin = Arc::clone(self.origin.text());
            return Err(Error::TimedOut {
                origin,
                stage: Stage::Queueing,
            });
        }
        Ok(Lease {
            wire: None,
            pool: Arc::clone(self),
            counted: true,
        })
    }

    /// Closes the connections that were unused for too long, or that the peer closed.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.lock();
        let closed: Vec<_> = idle
            .extract_if(.., |wire| self.is_stale(wire, now))
            .collect();
        drop(idle);
        // Closing a socket is a system call: not under the lock.
        drop(closed);
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    /// The connection that was used last and still lives.
    fn take(&self) -> Option<Box<Wire>> {
        let mut wire = self.idle.lock().pop()?;
        let now = Instant::now();
        while self.is_stale(&mut wire, now) {
            wire = self.idle.lock().pop()?;
        }
        Some(wire)
    }

    fn is_stale(&self, wire: &mut Wire, now: Instant) -> bool {
        now.saturating_duration_since(wire.idle_since) >= self.limits.idle_timeout
            || !wire.is_ready_when_driven()
    }

    fn put(&self, mut wire: Box<Wire>) {
        wire.idle_since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() < self.limits.max_idle {
            idle.push(wire);
        }
    }

    async fn open(&self, deadline: Instant) -> Result<Box<Wire>, Error> {
        let stream = self.connector.open(&self.origin, deadline).await?;
        let broken = |source: hyper::Error| Error::NotSent {
            origin: Arc::clone(self.origin.text()),
            source: source.into(),
        };
        let (sender, link) = Builder::new()
            .max_buf_size(BUFFER.max(self.limits.head_bytes))
            .max_header_size(self.limits.head_bytes)
            .handshake(stream)
            .await
            .map_err(broken)?;
        Ok(Box::new(Wire {
            sender,
            link: Some(link),
            idle_since: Instant::now(),
        }))
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) sender: SendRequest<Body>,
    /// `None` once the connection has ended.
    link: Option<Connection<Stream, Body>>,
    idle_since: Instant,
}

impl Wire {
    /// Reads and writes what can be read and written now.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = &mut self.link
            && let std::task::Poll::Ready(ended) = Pin::new(link).poll(cx)
        {
            // Dropping the link is what fails the request that it carries, if any.
            self.link = None;
            if let Err(error) = ended {
                tracing::trace!(%error, "A connection ended");
            }
        }
    }

    /// Whether the connection could take a request, as far as is known without looking.
    fn is_ready(&self) -> bool {
        self.link.is_some() && self.sender.is_ready()
    }

    /// Looks whether the peer closed, and whether the connection can take a request.
    fn is_ready_when_driven(&mut self) -> bool {
        // Nobody waits for this connection, so nobody is to be woken by it; and the look must
        // happen even when the task has used up its cooperative budget.
        let look = std::future::poll_fn(|cx| {
            self.drive(cx);
            std::task::Poll::Ready(())
        });
        let mut look = std::pin::pin!(unconstrained(look));
        // The future above is always ready.
        let _ready = look.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.is_ready()
    }
}

/// The right to use one connection of a pool, and that connection once there is one.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Closed when dropped, before the permit is given back.
    wire: Option<Box<Wire>>,
    pub(crate) pool: Arc<Pool>,
    counted: bool,
}

impl Lease {
    /// The connection in use, if there is one.
    pub(crate) fn wire(&mut self) -> Option<&mut Wire> {
        self.wire.as_deref_mut()
    }

    /// Takes an unused connection of the pool in place of the present one; false when there is none.
    pub(crate) fn reuse(&mut self) -> bool {
        self.wire = None;
        self.wire = self.pool.take();
        self.wire.is_some()
    }

    /// Opens a new connection in place of the present one.
    pub(crate) async fn open(&mut self, deadline: Instant) -> Result<&mut Wire, Error> {
        self.wire = None;
        let wire = self.pool.open(deadline).await?;
        Ok(self.wire.insert(wire))
    }

    /// Reads and writes what can be read and written now.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(wire) = &mut self.wire {
            wire.drive(cx);
        }
    }

    /// Gives the connection back when it can carry another request; closes it when it cannot.
    pub(crate) fn give_back(&mut self) {
        if let Some(mut wire) = self.wire.take()
            && self.counted
            && (wire.is_ready() || wire.is_ready_when_driven())
        {
            self.pool.put(wire);
        }
        // Only now: whoever waits for the permit is to find the connection.
        self.detach();
    }

    /// Closes the connection and gives the permit back.
    pub(crate) fn close(&mut self) {
        self.wire = None;
        self.detach();
    }

    /// From now on the connection counts towards no limit, and it is closed at its end.
    pub(crate) fn detach(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.pool.permits.add_permits(1);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.close();
    }
}
