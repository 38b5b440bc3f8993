//! Accepts connections and serves HTTP/1.1 on them.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{gateway::Shared, pipeline};

/// Wait after an `accept` that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    let places = Arc::new(Semaphore::new(shared.config.connections_max));
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
    places: &Arc<Semaphore>,
    draining: &CancellationToken,
) {
    loop {
        // When all places are taken, further clients wait in the kernel's queue.
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let serving = serve(Arc::clone(shared), stream, peer, draining.clone(), place);
                connections.spawn(serving);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    draining: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    // Without it every answer that leaves in two writes waits 40 ms for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "a client was gone before it was served");
    }
    shared.metrics.connections.inc();
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
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
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
    shared.metrics.connections.dec();
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
