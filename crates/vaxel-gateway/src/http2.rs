//! HTTP/2 (RFC 9113), which clients choose in the handshake of TLS: many requests on one connection, each
//! with the same life as one of HTTP/1.1.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    rt::{Executor, Read, Write},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    gateway::Shared,
    pipeline::{self, BoxError},
    respond::Body,
};

/// Requests at once on one connection; a client keeps further ones.
const STREAMS: u32 = 128;
/// Bytes of bodies that a client may send before they are read: per request and per connection.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// Bytes of an answer that wait for a client that does not read.
const SEND_BUFFER: usize = 256 << 10;
/// Requests that a client took back before they were looked at; with more the connection is closed (rapid
/// reset, CVE-2023-44487).
const RESETS: usize = 20;
/// Mistakes of a client that end a request and not the connection; with more it is closed.
const MISTAKES: usize = 64;
/// How often a client is asked whether it is still there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// A connection without a request for so long is closed.
const IDLE: Duration = Duration::from_mins(1);

/// Serves one connection to its end.
pub(crate) async fn serve<I>(
    shared: Arc<Shared>,
    io: I,
    peer: SocketAddr,
    draining: CancellationToken,
) where
    I: Read + Write + Unpin + Send + 'static,
{
    let requests = Arc::new(Requests::default());
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let (shared, place) = (Arc::clone(&shared), requests.begin());
        async move {
            name_host(&mut request);
            let answer = pin!(pipeline::serve(Arc::clone(&shared), request, peer));
            let answer = shared.cut.drive(answer).await;
            Ok::<_, Infallible>(answer.map(|body| Held {
                body,
                _place: place,
            }))
        }
    });
    let head_max = u32::try_from(shared.config.head_max).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(Owned(shared.tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(head_max)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(MISTAKES)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    let mut connection = pin!(builder.serve_connection(io, service));
    // A client that says nothing after its handshake has no more time than one of HTTP/1.1.
    let first = Instant::now() + shared.config.head_timeout;
    let mut looks = interval_at(first, IDLE);
    let mut last = Look::Busy(0);
    let served = loop {
        tokio::select! {
            served = connection.as_mut() => break served,
            () = draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            _ = looks.tick() => match requests.look(last) {
                // It was told, and does not go.
                Look::Idle if last == Look::Idle => break Ok(()),
                Look::Idle => {
                    connection.as_mut().graceful_shutdown();
                    looks.reset_after(shared.config.head_timeout);
                    last = Look::Idle;
                }
                busy @ Look::Busy(_) => last = busy,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}

/// Everything after this reads `Host`; here the client says it in `:authority` (RFC 9113 §8.3.1). A `Host`
/// beside it that says something else stays, and is judged as a second one.
fn name_host(request: &mut hyper::Request<Incoming>) {
    let Some(authority) = request.uri().authority() else {
        return;
    };
    let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
        return;
    };
    let headers = request.headers_mut();
    if headers.get(header::HOST) != Some(&host) {
        headers.append(header::HOST, host);
    }
}

/// Bytes of a body that nobody wants, and how long they are waited for.
const UNWANTED: (usize, Duration) = (64 << 10, Duration::from_secs(1));

/// Takes the body of a request that was refused. Else its stream is reset after the answer (RFC 9113 §8.1), and
/// there are clients that then forget the answer.
pub(crate) fn discard(shared: &Shared, mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    shared.tasks.spawn(async move {
        let taking = async {
            let mut taken = 0;
            while let Some(Ok(frame)) = body.frame().await {
                taken += frame.data_ref().map_or(0, Bytes::len);
                if taken > UNWANTED.0 {
                    return;
                }
            }
        };
        // What does not end in time is cut off.
        let _ = timeout(UNWANTED.1, taking).await;
    });
}

/// The requests of one connection.
#[derive(Default)]
struct Requests {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// What a connection has done since the last look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// So many requests had begun.
    Busy(u64),
    Idle,
}

impl Requests {
    fn begin(self: &Arc<Self>) -> Place {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(self))
    }

    fn look(&self, last: Look) -> Look {
        let (ended, begun) = (
            self.ended.load(Ordering::Relaxed),
            self.begun.load(Ordering::Relaxed),
        );
        let is_new = matches!(last, Look::Busy(before) if before != begun);
        if is_new || begun > ended {
            return Look::Busy(begun);
        }
        Look::Idle
    }
}

/// A request until its answer has ended.
struct Place(Arc<Requests>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A body that keeps the place of its request.
struct Held {
    body: Body,
    _place: Place,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Tasks of requests belong to the data plane, which waits for them at its end.
#[derive(Clone)]
struct Owned(TaskTracker);

impl<F> Executor<F> for Owned
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
