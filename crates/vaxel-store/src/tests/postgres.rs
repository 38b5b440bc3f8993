//! What only a server can do to a store, and places for the tests on a real one.

use std::sync::Arc;

use vaxel_core::{
    id::{Id, Service},
    time::Clock,
};

use crate::{
    error::Error,
    postgres::{DatabaseUrl, Role, Server, Session},
    stmt::Stmt,
    store::{Config, Store},
};

/// Where the server is: a URL of a database in which schemas may be made.
const WHERE: &str = "VAXEL_TEST_POSTGRES";

/// A schema of its own, and a directory; both go away with it.
pub(super) struct Schema {
    pub(super) dir: tempfile::TempDir,
    pub(super) name: String,
    base: String,
}

impl Schema {
    /// A new one. `None`, loudly, when no server was named; one that was named must be there.
    pub(super) fn fresh() -> Option<Self> {
        let Some(base) = std::env::var_os(WHERE) else {
            println!("SKIPPED: {WHERE} names no PostgreSQL (./dev test starts one)");
            eprintln!("SKIPPED: {WHERE} names no PostgreSQL (./dev test starts one)");
            return None;
        };
        let id = Id::<Service>::new(Clock::system().now()).to_string();
        let schema = Self {
            dir: tempfile::tempdir().expect("a temporary folder can be made"),
            name: format!("t_{}", id.replace('-', "_")),
            base: base.into_string().expect("a URL"),
        };
        schema.run(&format!("CREATE SCHEMA {};", schema.name));
        Some(schema)
    }

    pub(super) fn url(&self) -> String {
        let Self { base, name, .. } = self;
        let sign = if base.contains('?') { '&' } else { '?' };
        format!("{base}{sign}options=-csearch_path%3D{name}")
    }

    pub(super) fn config(&self) -> Config {
        Config {
            url: Some(self.url().parse().expect("a URL")),
            ..Config::new(self.dir.path())
        }
    }

    pub(super) fn open(&self) -> Store {
        Store::open(&self.config()).expect("the store opens")
    }

    /// One of several that write to it.
    pub(super) fn open_another(&self, number: usize) -> Store {
        let config = Config {
            dir: self.dir.path().join(number.to_string()),
            ..self.config()
        };
        Store::open_as(&config, true).expect("the store opens")
    }

    /// Runs statements on a connection of their own.
    pub(super) fn run(&self, texts: &str) {
        let url: DatabaseUrl = self.url().parse().expect("a URL");
        let limit = std::time::Duration::from_mins(1);
        let work = || -> Result<(), Error> {
            let server = Arc::new(Server::new(&url, limit, true)?);
            Session::new(server, Role::Reader)?.run(texts)
        };
        // A session blocks, and a test may be where nothing may.
        let done = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, work);
            thread.expect("a thread").join().expect("no panic")
        });
        done.expect("it is run");
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.run(&format!("DROP SCHEMA {} CASCADE;", self.name));
        }
    }
}

fn refused(config: &Config) -> Error {
    match Store::open(config) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_second_vaxel_on_one_schema_is_refused_and_told_who_has_it() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.open();
    let elsewhere = Config {
        dir: schema.dir.path().join("elsewhere"),
        ..schema.config()
    };
    let error = refused(&elsewhere);
    let said = error.to_string();
    let me = format!("vaxel {} at", std::process::id());
    assert!(matches!(error, Error::Shared { .. }), "{error:?}");
    assert!(
        said.contains("in use by another Vaxel") && said.contains(&me),
        "{said}"
    );
    // Also when the first one has not closed its store, but let go of it.
    drop(store);
    Store::open(&elsewhere).expect("it opens");
}

#[tokio::test]
async fn a_schema_of_a_newer_vaxel_is_refused_and_stays_as_it_was() {
    for part in ["resources", "records"] {
        let Some(schema) = Schema::fresh() else {
            return;
        };
        drop(schema.open());
        schema.run(&format!(
            "UPDATE schema_steps SET steps = 4711 WHERE part = '{part}';"
        ));
        for _ in 0..2 {
            let error = refused(&schema.config());
            let is_newer = matches!(error, Error::Newer { found: 4711, .. });
            assert!(is_newer, "{error:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_said_without_the_password() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let check = |url: &str, part: &str| {
        let config = Config {
            url: Some(url.parse().expect("a URL")),
            ..schema.config()
        };
        let said = refused(&config).to_string();
        assert!(
            said.contains(part) && said.contains("PostgreSQL at"),
            "{said}"
        );
        assert!(!said.contains("s3cr"), "{said}");
    };
    check("postgres://me:s3cr@127.0.0.1:1/x", "refused");
    check(
        "postgres://me:s3cr@nowhere.invalid/x?sslmode=disable",
        "cannot be reached",
    );
    let (base, _) = schema.base.split_once('?').unwrap_or((&schema.base, ""));
    let other = |name: &str| {
        let (server, _) = base.rsplit_once('/').expect("a URL");
        format!("{server}/{name}")
    };
    check(&other("nothing_here"), "does not exist");
    let url = format!("{}?options=-csearch_path%3Dnothing_here", other("postgres"));
    check(&url, "no schema");
}

#[tokio::test]
async fn a_text_with_what_postgresql_cannot_hold_is_written_with_a_sign_in_its_place() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.open();
    let text = "a\0b".to_owned();
    store.write_demo_note("n", text, super::NOW).await.unwrap();
    let kept = store.demo_note("n").await.unwrap();
    assert_eq!(kept.as_deref(), Some("a\u{FFFD}b"));
}

#[tokio::test]
async fn a_server_that_does_not_keep_its_promises_is_found_by_the_check() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let store = schema.open();
    let off = store.read("setting", |tx| {
        static OFF: Stmt = Stmt::new(
            "SELECT count(*) FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') \
             AND setting = 'off'",
        );
        tx.find(&OFF, &[], |row| row.count(0))
    });
    let off = off.await.unwrap().unwrap_or(0);
    let problems = store.check().await.unwrap();
    assert_eq!(problems.len() as u64, off, "{problems:?}");
    store.probe().await.unwrap();
    let stats = store.stats();
    assert_eq!(stats.engine, "postgresql");
    assert!(
        stats.bytes > 10_000 && !stats.version.is_empty(),
        "{stats:?}"
    );
}
