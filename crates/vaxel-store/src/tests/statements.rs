//! Every statement is one that the engine takes, and is found by this test.

use std::fs;

use super::fresh;
use crate::{
    audit, call, catalog, dependency, health, key, meta, note, outbox, revision, secret, service,
    session, stmt::Stmt, usage,
};

/// Every resource's file, where its statements are, and whether they are of `records.db`.
static ALL: &[(&str, &[&Stmt], bool)] = &[
    ("service", service::STATEMENTS, false),
    ("dependency", dependency::STATEMENTS, false),
    ("revision", revision::STATEMENTS, false),
    ("secret", secret::STATEMENTS, false),
    ("key", key::STATEMENTS, false),
    ("catalog", catalog::STATEMENTS, false),
    ("audit", audit::STATEMENTS, false),
    ("outbox", outbox::STATEMENTS, false),
    ("note", note::STATEMENTS, false),
    ("session", session::STATEMENTS, false),
    ("health", health::STATEMENTS, false),
    ("meta", meta::STATEMENTS, false),
    ("call", call::STATEMENTS, true),
    ("usage", usage::STATEMENTS, true),
];

#[tokio::test]
async fn every_statement_is_prepared() {
    let (_dir, store) = fresh();
    for (file, statements, of_records) in ALL {
        let prepare_all = |tx: &mut crate::sqlite::Tx<'_>| {
            for stmt in *statements {
                tx.prepare(stmt)?;
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
        if matches!(name, "tests" | "stmt" | "store") {
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
