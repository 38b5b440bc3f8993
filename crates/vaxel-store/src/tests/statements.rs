//! Every statement is one that the engine takes, and is found by this test.

use std::fs;

use super::{fresh, postgres::Schema};
use crate::{
    audit, call, catalog, chain, data_key, dependency,
    error::Error,
    grant, health, key, meta, note, oauth, outbox, password, policy,
    postgres::Session,
    revision, role, secret, service, session, sign_in, signing_key,
    stmt::{Kind, Stmt},
    store::Store,
    template, toolset,
    tx::{Engine, Tx},
    upstream_token, usage, user,
};

/// Every resource's file, where its statements are, and whether they are of `records.db`.
static ALL: &[(&str, &[&Stmt], bool)] = &[
    ("service", service::STATEMENTS, false),
    ("dependency", dependency::STATEMENTS, false),
    ("revision", revision::STATEMENTS, false),
    ("secret", secret::STATEMENTS, false),
    ("data_key", data_key::STATEMENTS, false),
    ("user", user::STATEMENTS, false),
    ("role", role::STATEMENTS, false),
    ("grant", grant::STATEMENTS, false),
    ("policy", policy::STATEMENTS, false),
    ("key", key::STATEMENTS, false),
    ("password", password::STATEMENTS, false),
    ("sign_in", sign_in::STATEMENTS, false),
    ("signing_key", signing_key::STATEMENTS, false),
    ("oauth", oauth::STATEMENTS, false),
    ("template", template::STATEMENTS, false),
    ("toolset", toolset::STATEMENTS, false),
    ("catalog", catalog::STATEMENTS, false),
    ("audit", audit::STATEMENTS, false),
    ("chain", chain::STATEMENTS, false),
    ("chain::removal", chain::removal::STATEMENTS, false),
    ("outbox", outbox::STATEMENTS, false),
    ("note", note::STATEMENTS, false),
    ("session", session::STATEMENTS, false),
    ("health", health::STATEMENTS, false),
    ("meta", meta::STATEMENTS, false),
    ("call", call::STATEMENTS, true),
    ("upstream_token", upstream_token::STATEMENTS, false),
    ("usage", usage::STATEMENTS, true),
];

#[tokio::test]
async fn every_statement_is_prepared() {
    let (_dir, store) = fresh();
    prepare_all(&store).await;
}

#[tokio::test]
async fn every_statement_is_prepared_by_postgresql() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    prepare_all(&schema.open()).await;
}

async fn prepare_all(store: &Store) {
    for (file, statements, of_records) in ALL {
        let prepare_all = |tx: &mut Tx<'_>| {
            for stmt in *statements {
                match &mut tx.engine {
                    Engine::Sqlite(_) => drop(tx.prepare(stmt)?),
                    Engine::Postgres(session) => {
                        let text = stmt.for_postgres();
                        assert!(is_prepared(session, text, &mut Vec::new())?, "{text}");
                    }
                }
            }
            Ok(())
        };
        let prepared = if *of_records {
            store.records().read("prepare", prepare_all).await
        } else {
            store.read("prepare", prepare_all).await
        };
        prepared.unwrap_or_else(|error| panic!("{file}.rs: {error}"));
    }
}

/// Whether there are types of parameters with which a statement can be prepared. Which ones it gets
/// is known when it is run; some must be named then, and are looked for here.
fn is_prepared(
    session: &mut Session,
    text: &'static str,
    kinds: &mut Vec<Option<Kind>>,
) -> Result<bool, Error> {
    // A failure spoils the transaction: each try has one of its own.
    session.roll_back()?;
    session.begin_read();
    let refused = match session.try_kinds(text, kinds) {
        Ok(()) => return Ok(true),
        Err(Error::Engine(refused)) => refused,
        Err(error) => return Err(error),
    };
    let unknown = refused.strip_prefix("could not determine data type of parameter $");
    let Some(number) = unknown.and_then(|rest| rest.split(' ').next()?.parse().ok()) else {
        println!("{kinds:?}: {refused}");
        return Ok(false);
    };
    kinds.resize(kinds.len().max(number), None);
    for kind in [Kind::Text, Kind::Int, Kind::Blob] {
        kinds[number - 1] = Some(kind);
        if is_prepared(session, text, &mut kinds.clone())? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn every_statement_is_registered() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Some("rs") = path.extension().and_then(|ending| ending.to_str()) else {
            continue;
        };
        let name = path.file_stem().unwrap().to_str().unwrap();
        if matches!(name, "tests" | "stmt" | "store" | "transfer") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let written = text.matches("Stmt::new(").count();
        let listed = ALL.iter().find(|(file, ..)| *file == name);
        assert_eq!(
            written,
            listed.map_or(0, |(_, statements, _)| statements.len()),
            "statements in {name}.rs"
        );
        seen += written;
    }
    assert!(seen > 30, "{seen} statements were found");
}

#[tokio::test]
async fn calls_of_one_service_are_found_by_the_index() {
    static PLAN: Stmt = Stmt::new(
        "EXPLAIN QUERY PLAN SELECT id FROM calls WHERE seq < $1 AND service = $2 \
         ORDER BY seq DESC LIMIT 10",
    );
    let (_dir, store) = fresh();
    let plan = store.records().read("plan", |tx| {
        tx.query(&PLAN, &[1_i64.into(), 1_i64.into()], |row| row.text(3))
    });
    let plan = plan.await.unwrap().join("; ");
    assert!(plan.contains("calls_by_service"), "{plan}");
    assert!(!plan.contains("B-TREE"), "{plan}");
}
