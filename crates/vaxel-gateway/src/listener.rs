//! Accepts connections and serves HTTP/1.1 on them; what is encrypted goes on in `tls`.

use std::{
    convert::Infallible,
    io::{self, Write as _},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    gateway::Shared,
    pipeline,
    places::{Place, Places},
    tls,
};

/// Wait after an `accept` that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// It is said so often that it still does.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// What a client reads whose address has all the connections that it may have.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\n\
retry-after: 5\r\nconnection: close\r\ncontent-length: 147\r\n\r\n\
{\"type\":\"/errors/rate-limited\",\"title\":\"Too many requests\",\"status\":429,\"detail\":\"\
Your address has as many connections as it may have: close some\"}";

/// Time for calls that have to end to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves until `stop`, then drains.
pub(crate) async fn run(
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let connections = TaskTracker::new();
    let config = &shared.config;
    let places = Arc::new(Places::new(
        config.connections_max,
        config.connections_per_address,
        config.connections_exempt.clone(),
    ));
    let draining = CancellationToken::new();
    tokio::select! {
        () = accept(&shared, &listener, &connections, &places, &draining) => {}
        () = sweep(&shared) => {}
        () = stop.cancelled() => {}
    }
    drop(listener);
    drain(&shared, &connections, &draining).await;
    Ok(())
}

async fn accept(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    connections: &TaskTracker,
    places: &Arc<Places>,
    draining: &CancellationToken,
) {
    let mut said: Option<Instant> = None;
    loop {
        // When all places are taken, further clients wait in the kernel's queue.
        let Some(place) = places.wait().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => match places.take(place, peer.ip()) {
                Some(place) => {
                    let serving = serve(Arc::clone(shared), stream, peer, draining.clone(), place);
                    connections.spawn(serving);
                }
                None if shared.tls.is_on() => {}
                None => send_away(stream),
            },
            // This one is gone; the next may be fine.
            Err(error) if is_of_one(&error) => {}
            Err(error) => {
                let now = Instant::now();
                if said.is_none_or(|said| now.duration_since(said) > SAY_AGAIN) {
                    said = Some(now);
                    tracing::warn!(%error, "connections cannot be accepted; it is tried again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Closes a connection with a word. Whether its client reads that is its own concern.
fn send_away(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        // It does not wait, and there is room for so little.
        let _ = stream.write(TOO_MANY);
    }
}

/// Whether an `accept` failed because of the connection and not of the listener (accept(2)).
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    draining: CancellationToken,
    _place: Place,
) {
    // Without it every answer that leaves in two writes waits 40 ms for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "a client was gone before it was served");
    }
    shared.metrics.connections.inc();
    match shared.tls.config() {
        None => http1(Arc::clone(&shared), TokioIo::new(stream), peer, draining).await,
        // In a box: a plain connection need not be as large.
        Some(tls) => {
            let serving = tls::serve(Arc::clone(&shared), (stream, peer), tls, draining);
            Box::pin(serving).await;
        }
    }
    shared.metrics.connections.dec();
}

/// Serves HTTP/1.1 on one connection to its end.
pub(crate) async fn http1<I>(
    shared: Arc<Shared>,
    io: I,
    peer: SocketAddr,
    draining: CancellationToken,
) where
    I: Read + Write + Unpin + Send + 'static,
{
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let answer = pipeline::serve(Arc::clone(&shared), request, peer);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.head_timeout)
        .max_buf_size(shared.config.head_max.max(8 << 10))
        .half_close(false);
    let connection = builder.serve_connection(io, service).with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            shared.cut.drive(connection).await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}

async fn sweep(shared: &Shared) {
    let mut every = tokio::time::interval(shared.config.sweep_every);
    loop {
        every.tick().await;
        shared.sessions.sweep(shared.clock.now());
        shared.sweep_upstreams();
        shared
            .metrics
            .sessions
            .set(i64::try_from(shared.sessions.len()).unwrap_or(i64::MAX));
    }
}

async fn drain(shared: &Shared, connections: &TaskTracker, draining: &CancellationToken) {
    shared.stop.cancel();
    shared.interactions.clear();
    draining.cancel();
    connections.close();
    shared.tasks.close();
    let grace = shared.config.shutdown_grace;
    let last_words = LAST_WORDS.min(grace / 4);
    let mut ended = pin!(async { tokio::join!(connections.wait(), shared.tasks.wait()) });
    if timeout(grace.saturating_sub(last_words), &mut ended)
        .await
        .is_ok()
    {
        return;
    }
    shared.cut.now();
    if timeout(last_words, ended).await.is_err() {
        let (open, tasks) = (connections.len(), shared.tasks.len());
        tracing::warn!(open, tasks, "connections did not end in time");
    }
}
