//! Hears of changes that others commit: `LISTEN` on a connection of its own.
//!
//! What is heard has no content: it only wakes who waits, and those look for themselves. A word that
//! is lost while the connection is opened anew costs them the time until they look anyway.

use std::{future::poll_fn, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Runtime,
    sync::{oneshot, watch},
};
use tokio_postgres::{AsyncMessage, Connection, NoTls, Socket};

use super::server::Server;
use crate::error::Error;

/// In the transaction of every write of resources.
pub(super) const NOTIFY: &str = "SELECT pg_notify('vaxel_' || hashtext(current_schema()), '');";
const CHANNEL: &str = "SELECT quote_ident('vaxel_' || hashtext(current_schema()))";

/// Before a lost connection is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// A thread that listens until it is dropped.
pub(crate) struct Ear {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    /// Listens, and counts up `ticks` whenever something was heard.
    pub(crate) fn open(server: Arc<Server>, ticks: watch::Sender<u64>) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Engine(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("vaxel-store-ear".to_owned())
            .spawn(move || run(&runtime, stopped, &server, &ticks))
            .map_err(failed)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.stop.take();
        // It waits for nothing else than to be stopped.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ear of the store panicked");
        }
    }
}

fn run(
    runtime: &Runtime,
    stopped: oneshot::Receiver<()>,
    server: &Server,
    ticks: &watch::Sender<u64>,
) {
    let listening = async {
        loop {
            if let Err(error) = listen(server, ticks).await {
                tracing::debug!(%error, "changes of others are not heard");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = listening => {}
            _ = stopped => {}
        }
    });
}

async fn listen(server: &Server, ticks: &watch::Sender<u64>) -> Result<(), Error> {
    let sorted = |error| server.sorted(&error).0;
    match server.tls() {
        None => {
            let (client, connection) = server.config().connect(NoTls).await.map_err(sorted)?;
            hear(server, (client, connection), ticks).await
        }
        Some(tls) => {
            let (client, connection) = server.config().connect(tls).await.map_err(sorted)?;
            hear(server, (client, connection), ticks).await
        }
    }
}

async fn hear<T>(
    server: &Server,
    (client, mut connection): (tokio_postgres::Client, Connection<Socket, T>),
    ticks: &watch::Sender<u64>,
) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let asking = async {
        let channel: String = client.query_one(CHANNEL, &[]).await?.try_get(0)?;
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        // What was said before this connection listened.
        ticks.send_modify(|tick| *tick += 1);
        std::future::pending::<Result<(), tokio_postgres::Error>>().await
    };
    let hearing = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message?, AsyncMessage::Notification(_)) {
                ticks.send_modify(|tick| *tick += 1);
            }
        }
        Ok(())
    };
    let ended = tokio::select! {
        failed = asking => failed,
        ended = hearing => ended,
    };
    ended.map_err(|error| server.sorted(&error).0)
}
