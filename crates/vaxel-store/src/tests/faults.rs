//! A server that goes away, hangs, or takes its answers with it.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};
use tokio_postgres::config::Host;

use super::{contract::contract, postgres::Schema, put};
use crate::{
    error::Error,
    postgres::DatabaseUrl,
    store::{Config, Store},
};

contract!(a_passing_fault_is_met_again_and_a_lasting_one_is_told);

/// Works that meet others at the same moment: once or twice, or every time.
async fn a_passing_fault_is_met_again_and_a_lasting_one_is_told(store: &Store) {
    for (faults, expected) in [(1, true), (2, true), (100, false)] {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tries);
        let written = store.write("contended", move |tx| {
            put(tx, &format!("{faults}"), "")?;
            if counted.fetch_add(1, Ordering::Relaxed) < faults {
                return Err(Error::Contended);
            }
            Ok(())
        });
        let written = written.await;
        assert_eq!(written.is_ok(), expected, "{written:?}");
        let tries = tries.load(Ordering::Relaxed);
        assert_eq!(tries, if expected { faults + 1 } else { 4 });
    }
    assert_eq!(store.demo_notes().await.unwrap(), ["1", "2"]);
}

/// What a proxy does with what passes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Nothing passes, and nobody is told.
    Hang,
    /// The next answer of the server is the last one, and nobody reads it.
    Swallow,
    /// New connections end at once.
    Refuse,
}

/// Stands before the server.
struct Proxy {
    url: String,
    mode: watch::Sender<Mode>,
    /// Counts up to cut every connection.
    cut: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn before(schema: &Schema) -> Self {
        let server: DatabaseUrl = schema.url().parse().expect("a URL");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let user = server.config.get_user().unwrap_or_default();
        let name = server.config.get_dbname().unwrap_or_default();
        let options = format!("options=-csearch_path%3D{}", schema.name);
        let url = format!("postgres://{user}@127.0.0.1:{port}/{name}?{options}");
        let (mode, cut) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let mut tasks = JoinSet::new();
        let (modes, cuts) = (mode.clone(), cut.clone());
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (mode, mut cut) = (modes.subscribe(), cuts.subscribe());
                if *mode.borrow() == Mode::Refuse {
                    continue;
                }
                let server = server.clone();
                open.spawn(async move {
                    tokio::select! {
                        () = carry(client, &server, mode) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            url,
            mode,
            cut,
            _tasks: tasks,
        }
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    fn cut(&self) {
        self.cut.send_modify(|cut| *cut += 1);
    }

    fn store(&self, schema: &Schema, patience: Duration) -> Store {
        let config = Config {
            url: Some(self.url.parse().expect("a URL")),
            write_timeout: patience,
            ..schema.config()
        };
        Store::open(&config).expect("the store opens")
    }
}

async fn carry(client: TcpStream, server: &DatabaseUrl, mode: watch::Receiver<Mode>) {
    let port = server.config.get_ports().first().copied().unwrap_or(5_432);
    match server.config.get_hosts().first().expect("a host") {
        Host::Tcp(name) => {
            let server = TcpStream::connect((name.as_str(), port)).await;
            both(client, server.expect("the server is there"), mode).await;
        }
        Host::Unix(path) => {
            let socket = path.join(format!(".s.PGSQL.{port}"));
            let server = UnixStream::connect(socket).await;
            both(client, server.expect("the server is there"), mode).await;
        }
    }
}

async fn both(client: TcpStream, server: impl AsyncRead + AsyncWrite, mode: watch::Receiver<Mode>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(server);
    tokio::select! {
        () = pass(from_client, to_server, mode.clone(), false) => {}
        () = pass(from_server, to_client, mode, true) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
    is_answer: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(size @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let is_over = mode.wait_for(|mode| *mode != Mode::Hang).await.is_err();
        if is_over || (is_answer && *mode.borrow() == Mode::Swallow) {
            return;
        }
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_lost_is_opened_again_unnoticed() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let proxy = Proxy::before(&schema).await;
    let store = proxy.store(&schema, PATIENCE);
    for round in 0..3 {
        let name = format!("n{round}");
        store
            .write("put", move |tx| put(tx, &name, ""))
            .await
            .unwrap();
        assert_eq!(store.demo_notes().await.unwrap().len(), round + 1);
        proxy.cut();
    }
    assert_eq!(store.stats().last_error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_named_at_once_and_used_when_it_is_back() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let proxy = Proxy::before(&schema).await;
    let store = proxy.store(&schema, PATIENCE);
    store.write("put", |tx| put(tx, "a", "")).await.unwrap();
    proxy.set(Mode::Refuse);
    proxy.cut();
    let writes = tokio::join!(
        store.write("put", |tx| put(tx, "b", "")),
        store.write("put", |tx| put(tx, "c", "")),
    );
    for refused in [writes.0, writes.1, store.probe().await] {
        let Err(error @ Error::Unreachable { .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            error.to_string().contains("PostgreSQL at 127.0.0.1"),
            "{error}"
        );
    }
    proxy.set(Mode::Pass);
    store.write("put", |tx| put(tx, "d", "")).await.unwrap();
    assert_eq!(store.demo_notes().await.unwrap(), ["a", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_connection_breaks_before_its_commit_is_done_again() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let proxy = Arc::new(Proxy::before(&schema).await);
    let store = proxy.store(&schema, PATIENCE);
    let tries = Arc::new(AtomicUsize::new(0));
    let (breaking, counted) = (Arc::clone(&proxy), Arc::clone(&tries));
    let written = store.write("put", move |tx| {
        put(tx, "first", "")?;
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            breaking.cut();
        }
        put(tx, "second", "")
    });
    written.await.unwrap();
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    assert_eq!(store.demo_notes().await.unwrap(), ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_commit_is_not_answered_is_called_unknown_and_not_done_again() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let proxy = Arc::new(Proxy::before(&schema).await);
    let store = proxy.store(&schema, PATIENCE);
    let tries = Arc::new(AtomicUsize::new(0));
    let (breaking, counted) = (Arc::clone(&proxy), Arc::clone(&tries));
    let written = store.write("put", move |tx| {
        put(tx, "a", "")?;
        counted.fetch_add(1, Ordering::Relaxed);
        breaking.set(Mode::Swallow);
        Ok(())
    });
    let unknown = written.await;
    assert!(matches!(unknown, Err(Error::Unknown { .. })), "{unknown:?}");
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    proxy.set(Mode::Pass);
    // It was written here; the next one may as well not have been.
    assert_eq!(store.demo_notes().await.unwrap(), ["a"]);
    store.write("put", |tx| put(tx, "b", "")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_not_waited_for_forever() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let proxy = Proxy::before(&schema).await;
    // What the server answers has to come in this time, too.
    let store = proxy.store(&schema, Duration::from_secs(2));
    store.write("put", |tx| put(tx, "a", "")).await.unwrap();
    proxy.set(Mode::Hang);
    let late = store.write("put", |tx| put(tx, "b", "")).await;
    assert!(matches!(late, Err(Error::Late)), "{late:?}");
    let late = store.demo_notes().await;
    let is_told = matches!(late, Err(Error::Unreachable { .. } | Error::Busy));
    assert!(is_told, "{late:?}");
    // The server still has the lock of the connection that was given up; it is told.
    proxy.set(Mode::Pass);
    let back = async {
        while store.write("put", |tx| put(tx, "c", "")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, back)
        .await
        .expect("it is back");
    let notes = store.demo_notes().await.unwrap();
    assert!(notes.contains(&"c".to_owned()), "{notes:?}");
}

#[tokio::test]
async fn what_somebody_else_keeps_locked_is_not_waited_for_forever() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = Store::open(&Config {
        write_timeout: Duration::from_secs(4),
        ..schema.config()
    })
    .unwrap();
    let url: DatabaseUrl = schema.url().parse().unwrap();
    let (client, connection) = url.config.connect(tokio_postgres::NoTls).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        connection.await.expect("it holds");
        pending::<()>().await;
    });
    client
        .batch_execute("BEGIN; LOCK TABLE notes")
        .await
        .unwrap();
    let refused = store.write("put", |tx| put(tx, "a", "")).await;
    let is_told = matches!(refused, Err(Error::Busy | Error::Late));
    assert!(is_told, "{refused:?}");
    client.batch_execute("ROLLBACK").await.unwrap();
    store.write("put", |tx| put(tx, "b", "")).await.unwrap();
    // Of what was called late nobody knows whether it came to be.
    let mut notes = store.demo_notes().await.unwrap();
    notes.retain(|note| note != "a" || !matches!(refused, Err(Error::Late)));
    assert_eq!(notes, ["b"]);
}
