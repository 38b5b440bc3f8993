//! The chain of the audit: what was touched past Vaxel shows, and where.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use vaxel_core::audit::{
    AuditLine,
    chain::{Checker, Flaw, Hash, Link, Stamp},
};

use super::{NOW, contract::contract, line, service};
use crate::{
    AuditKeyRow, AuditQuery, AuditSeal, audit::append, error::Error, stmt::Stmt, store::Store,
};

contract!(
    a_line_that_was_changed_shows_whatever_was_changed_of_it,
    a_line_that_is_missing_or_in_another_place_shows,
    what_is_written_past_the_chain_shows,
    a_chain_whose_newest_link_or_key_was_taken_away_is_not_begun_anew,
    lines_that_were_there_before_the_chain_are_in_it_and_later_ones_are_not_taken_for_such,
    the_chain_goes_on_over_what_retention_took,
    nothing_is_taken_away_that_was_touched_past_vaxel_or_lies_beside_it,
    a_change_whose_line_cannot_be_written_does_not_happen,
    lines_that_are_written_together_are_chained_and_those_that_fail_leave_nothing,
    lines_are_found_by_what_is_in_them,
    keys_are_kept_with_the_line_from_which_on_they_seal,
);

/// No real digest: enough to see what it covers. `None` has no key.
#[derive(Debug)]
struct Toy(Option<u8>);

impl Stamp for Toy {
    fn digest(&self, bytes: &[u8]) -> Hash {
        use std::hash::{DefaultHasher, Hasher};
        let mut all = [0; 32];
        for (at, part) in all.chunks_exact_mut(8).enumerate() {
            let mut digest = DefaultHasher::new();
            digest.write_usize(at);
            digest.write(bytes);
            part.copy_from_slice(&digest.finish().to_be_bytes());
        }
        Hash(all)
    }

    fn seal(&self, hash: &Hash) -> Option<Hash> {
        let key = self.0?;
        Some(self.digest(&[&[key], &hash.0[..]].concat()))
    }
}

fn numbered(name: &str) -> AuditLine {
    let mut line = line(&service(name), "service.update");
    line.detail = json!({ "why": name });
    line.message = Some("because".to_owned());
    line.credential_id = Some("id".to_owned());
    line.on_behalf = Some("anna".to_owned());
    let address = "203.0.113.7".parse().unwrap();
    line.came = Some(Arc::new(vaxel_core::audit::Came {
        address,
        door: vaxel_core::audit::Door::Rest,
        request: Some(vaxel_core::id::Id::new(NOW)),
        sign_in: None,
    }));
    line.changing(json!({ "a": 1 }), json!({ "a": 2 }))
}

fn key() -> AuditSeal {
    AuditSeal {
        stamp: Arc::new(Toy(Some(7))),
        since: 1,
    }
}

/// A chain of lines with these names.
async fn chained(store: &Store, names: &[&str]) {
    let begun = store.begin_audit_chain(key(), None, 100).await;
    begun.unwrap();
    for name in names {
        store.audit(numbered(name)).await.unwrap();
    }
}

/// Goes along the whole chain, a few lines at a time.
async fn verify(store: &Store) -> Result<u64, Flaw> {
    let stamp = Toy(Some(7));
    let mut checker = Checker::new(&stamp, 1, Link::default());
    loop {
        let page = store.audit_page(checker.at().number, 2).await.unwrap();
        checker.page(&page.lines, &page.gaps)?;
        if page.is_last {
            let (head, seal) = page.head.unwrap_or_default();
            checker.end(&head, seal.as_ref())?;
            return Ok(checker.sealed);
        }
    }
}

async fn run(store: &Store, stmt: &'static Stmt) {
    let ran = store.write("test", move |tx| tx.execute(stmt, &[]).map(drop));
    ran.await.unwrap();
}

async fn a_line_that_was_changed_shows_whatever_was_changed_of_it(store: &Store) {
    macro_rules! changes {
        ($($column:literal = $value:literal),* $(,)?) => {
            [$((
                $column,
                Stmt::new(concat!("UPDATE audit SET ", $column, " = ", $value, " WHERE seq = 3")),
                Stmt::new(concat!(
                    "UPDATE audit SET ", $column, " = (SELECT ", $column,
                    " FROM kept) WHERE seq = 3"
                )),
            )),*]
        };
    }
    static CHANGES: [(&str, Stmt, Stmt); 19] = changes!(
        "at" = "at + 1",
        "actor" = "'eve'",
        "credential" = "NULL",
        "actor_key" = "'other'",
        "on_behalf" = "NULL",
        "action" = "'service.create'",
        "target_kind" = "'key'",
        "target_id" = "'other'",
        "target_name" = "'other'",
        "detail" = "'{}'",
        "was" = "'{\"a\":2}'",
        "became" = "'no json'",
        "message" = "NULL",
        "address" = "'203.0.113.8'",
        "door" = "'mcp'",
        "request" = "NULL",
        "outcome" = "'refused:not-permitted'",
        "hash" = "seal",
        "seal" = "hash",
    );
    static KEEP: Stmt = Stmt::new("CREATE TABLE kept AS SELECT * FROM audit WHERE seq = 3");
    static DROP: Stmt = Stmt::new("DROP TABLE kept");
    chained(store, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(verify(store).await, Ok(5));
    run(store, &KEEP).await;
    for (column, change, undo) in &CHANGES {
        run(store, change).await;
        let flaw = verify(store).await.expect_err(column);
        assert_eq!(flaw.number, 3, "{column}: {flaw}");
        run(store, undo).await;
    }
    run(store, &DROP).await;
    assert_eq!(verify(store).await, Ok(5));
}

async fn a_line_that_is_missing_or_in_another_place_shows(store: &Store) {
    static TAKE_THIRD: Stmt = Stmt::new("UPDATE audit SET seq = 103 WHERE seq = 3");
    static PUT_THIRD: Stmt = Stmt::new("UPDATE audit SET seq = 3 WHERE seq = 103");
    static TAKE_LAST: Stmt = Stmt::new("DELETE FROM audit WHERE seq = 5");
    static LOWER: Stmt = Stmt::new("UPDATE audit SET seq = 4 WHERE seq = 104");
    static RAISE: Stmt = Stmt::new("UPDATE audit SET seq = 104 WHERE seq = 3");
    static MIDDLE: Stmt = Stmt::new("UPDATE audit SET seq = 3 WHERE seq = 4");
    static REWIND: Stmt = Stmt::new(
        "UPDATE audit_head SET number = 4, hash = (SELECT hash FROM audit WHERE seq = 4) WHERE id = 1",
    );
    chained(store, &["a", "b", "c", "d", "e"]).await;
    run(store, &TAKE_THIRD).await;
    assert_eq!(verify(store).await.unwrap_err().number, 3);
    run(store, &PUT_THIRD).await;
    assert_eq!(verify(store).await, Ok(5));
    for swap in [&RAISE, &MIDDLE, &LOWER] {
        run(store, swap).await;
    }
    assert_eq!(
        verify(store).await.unwrap_err().number,
        3,
        "two are swapped"
    );
    for swap in [&RAISE, &MIDDLE, &LOWER] {
        run(store, swap).await;
    }
    assert_eq!(verify(store).await, Ok(5));
    run(store, &TAKE_LAST).await;
    assert_eq!(verify(store).await.unwrap_err().number, 5, "the newest one");
    run(store, &REWIND).await;
    assert_eq!(
        verify(store).await.unwrap_err().number,
        4,
        "no seal says so"
    );
    // The chain goes on, and what is missing stays missing.
    store.audit(numbered("f")).await.unwrap();
    assert!(verify(store).await.is_err());
}

async fn what_is_written_past_the_chain_shows(store: &Store) {
    static FORGE: Stmt = Stmt::new(
        "INSERT INTO audit (seq, at, actor, action, target_kind, target_id, target_name, detail) \
         VALUES (3, 1, 'eve', 'key.create', 'key', '', '', 'null')",
    );
    chained(store, &["a", "b"]).await;
    run(store, &FORGE).await;
    assert_eq!(verify(store).await.unwrap_err().number, 3);
}

async fn a_chain_whose_newest_link_or_key_was_taken_away_is_not_begun_anew(store: &Store) {
    static FORGE: Stmt = Stmt::new("UPDATE audit SET actor = 'eve' WHERE seq = 2");
    static HEADLESS: Stmt = Stmt::new("DELETE FROM audit_head");
    static KEYLESS: Stmt = Stmt::new("DELETE FROM audit_keys");
    let row = AuditKeyRow {
        since: 1,
        sealed: "sealed".to_owned(),
        created_at: NOW,
    };
    let begin = async |new| store.begin_audit_chain(key(), new, 10).await.unwrap();
    begin(Some(row)).await;
    for name in ["a", "b", "c"] {
        store.audit(numbered(name)).await.unwrap();
    }
    run(store, &FORGE).await;
    run(store, &HEADLESS).await;
    run(store, &KEYLESS).await;
    let found = store.audit_chain().await.unwrap();
    assert_eq!((found.head, found.last, found.has_begun), (None, 3, true));
    assert_eq!(begin(None).await, 0, "nothing is chained as it stands");
    store.audit(numbered("d")).await.unwrap();
    assert_eq!(verify(store).await.unwrap_err().number, 2);
    // Taken away while it runs: what is built from then on does not hold.
    run(store, &HEADLESS).await;
    store.audit(numbered("e")).await.unwrap();
    let stamp = Toy(Some(7));
    let at = store.audit_link(4).await.unwrap();
    let mut checker = Checker::new(&stamp, 1, at);
    let page = store.audit_page(4, 10).await.unwrap();
    let flaw = checker.page(&page.lines, &page.gaps).unwrap_err();
    assert_eq!(flaw.number, 5);
}

async fn lines_that_were_there_before_the_chain_are_in_it_and_later_ones_are_not_taken_for_such(
    store: &Store,
) {
    static HOLE: Stmt = Stmt::new("DELETE FROM audit WHERE seq IN (1, 4)");
    static FORGE: Stmt = Stmt::new(
        "INSERT INTO audit (seq, at, actor, action, target_kind, target_id, target_name, detail) \
         VALUES (8, 1, 'eve', 'key.create', 'key', '', '', 'null')",
    );
    for name in ["a", "b", "c", "d", "e", "f"] {
        store.audit(numbered(name)).await.unwrap();
    }
    run(store, &HOLE).await;
    assert_eq!(store.begin_audit_chain(key(), None, 2).await.unwrap(), 4);
    assert_eq!(verify(store).await, Ok(4));
    store.audit(numbered("g")).await.unwrap();
    assert_eq!(verify(store).await, Ok(5));
    run(store, &FORGE).await;
    assert_eq!(store.begin_audit_chain(key(), None, 2).await.unwrap(), 0);
    assert_eq!(verify(store).await.unwrap_err().number, 8);
}

async fn the_chain_goes_on_over_what_retention_took(store: &Store) {
    static ANCHOR: Stmt = Stmt::new("DELETE FROM audit_gaps");
    chained(store, &["a", "b"]).await;
    let mut transition = numbered("c");
    transition.action = "service.lifecycle";
    let later = NOW.plus(Duration::from_mins(1));
    let mut recent = numbered("d");
    recent.at = later;
    for line in [transition.clone(), recent.clone(), transition, recent] {
        store.audit(line).await.unwrap();
    }
    assert_eq!(verify(store).await, Ok(6));
    let trim = async |step| store.trim_transitions(later, step).await.unwrap();
    assert_eq!((trim(1).await, trim(5).await, trim(5).await), (1, 1, 0));
    assert_eq!(verify(store).await, Ok(4), "two gaps");
    let trim = async |step| store.trim_audit(later, step).await.unwrap();
    assert_eq!((trim(1).await, trim(5).await, trim(5).await), (1, 1, 0));
    assert_eq!(verify(store).await, Ok(2));
    let page = store.audit_page(0, 10).await.unwrap();
    let gaps: Vec<_> = page.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
    assert_eq!(gaps, [(1, 3), (5, 5)], "gaps side by side are one");
    // All that is old goes, but for the newest line.
    let end = later.plus(Duration::from_mins(1));
    assert_eq!(store.trim_audit(end, 10).await.unwrap(), 1);
    assert_eq!(store.trim_audit(end, 10).await.unwrap(), 0);
    store.audit(numbered("e")).await.unwrap();
    assert_eq!(verify(store).await, Ok(2));
    run(store, &ANCHOR).await;
    assert_eq!(verify(store).await.unwrap_err().number, 1);
}

async fn nothing_is_taken_away_that_was_touched_past_vaxel_or_lies_beside_it(store: &Store) {
    macro_rules! tampering {
        ($($what:literal, $first:literal);* $(;)?) => {
            [$(($what, Stmt::new($what), $first)),*]
        };
    }
    // Each is undone by the copies of both tables.
    static CHANGES: [(&str, Stmt, u64); 9] = tampering!(
        "UPDATE audit SET actor = 'eve' WHERE seq = 4", 4;
        "UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = 2) WHERE seq = 4", 4;
        "UPDATE audit SET seal = hash WHERE seq = 5", 5;
        "DELETE FROM audit WHERE seq = 4", 4;
        "UPDATE audit_gaps SET last_line = 2 WHERE first_line = 1", 1;
        "UPDATE audit_gaps SET hash_after = hash_before WHERE first_line = 1", 1;
        "UPDATE audit_gaps SET seal = hash_after WHERE first_line = 1", 1;
        "DELETE FROM audit_gaps", 1;
        "DELETE FROM audit_head WHERE id = 1", 1;
    );
    static SAVE: [Stmt; 3] = [
        Stmt::new("CREATE TABLE kept AS SELECT * FROM audit"),
        Stmt::new("CREATE TABLE kept_gaps AS SELECT * FROM audit_gaps"),
        Stmt::new("CREATE TABLE kept_heads AS SELECT * FROM audit_head"),
    ];
    static UNDO: [Stmt; 6] = [
        Stmt::new("DELETE FROM audit"),
        Stmt::new("INSERT INTO audit SELECT * FROM kept"),
        Stmt::new("DELETE FROM audit_gaps"),
        Stmt::new("INSERT INTO audit_gaps SELECT * FROM kept_gaps"),
        Stmt::new("DELETE FROM audit_head"),
        Stmt::new("INSERT INTO audit_head SELECT * FROM kept_heads"),
    ];
    static COUNT: Stmt = Stmt::new("SELECT COUNT(*) FROM audit");
    static DROP: [Stmt; 3] = [
        Stmt::new("DROP TABLE kept"),
        Stmt::new("DROP TABLE kept_gaps"),
        Stmt::new("DROP TABLE kept_heads"),
    ];
    chained(store, &["a", "b", "c", "d", "e", "f"]).await;
    let later = NOW.plus(Duration::from_mins(1));
    let mut recent = numbered("g");
    recent.at = later;
    store.audit(recent).await.unwrap();
    assert_eq!(store.trim_audit(later, 3).await.unwrap(), 3);
    for save in &SAVE {
        run(store, save).await;
    }
    let count = async || {
        let counted = store.read("count", |tx| tx.find(&COUNT, &[], |row| row.count(0)));
        counted.await.unwrap().unwrap()
    };
    for (what, change, number) in &CHANGES {
        run(store, change).await;
        let there = count().await;
        let refused = store.trim_audit(later, 10).await;
        assert!(
            matches!(refused, Err(Error::Flawed(_))),
            "{what}: {refused:?}"
        );
        assert_eq!(count().await, there, "{what}");
        assert_eq!(verify(store).await.unwrap_err().number, *number, "{what}");
        for undo in &UNDO {
            run(store, undo).await;
        }
    }
    for drop in &DROP {
        run(store, drop).await;
    }
    assert_eq!(verify(store).await, Ok(4));
    assert_eq!(store.trim_audit(later, 10).await.unwrap(), 3);
    assert_eq!(verify(store).await, Ok(1));
}

async fn a_change_whose_line_cannot_be_written_does_not_happen(store: &Store) {
    static BEGIN: Stmt =
        Stmt::new("INSERT INTO audit_head (id, number, hash, seal) VALUES (1, 0, 'x', 'y')");
    let files = service("files");
    let keyless = AuditSeal {
        stamp: Arc::new(Toy(None)),
        since: 1,
    };
    let created = store.begin_audit_chain(keyless, None, 10).await;
    assert!(matches!(created, Err(Error::Unsealed)), "{created:?}");
    run(store, &BEGIN).await;
    let line = line(&files, "service.create");
    let refused = store.create_service(&files, Vec::new(), line).await;
    assert!(matches!(refused, Err(Error::Unsealed)), "{refused:?}");
    assert!(store.service(files.id).await.unwrap().is_none());
    assert_eq!(store.last_change().await.unwrap(), 0);
}

async fn lines_that_are_written_together_are_chained_and_those_that_fail_leave_nothing(
    store: &Store,
) {
    chained(store, &["a"]).await;
    let writes = (0..60_u32).map(|number| {
        let lines = [numbered("b"), numbered("c")];
        store.write("together", move |tx| {
            lines.iter().try_for_each(|line| append(tx, line))?;
            if number % 3 == 0 {
                return Err(Error::Missing);
            }
            Ok(())
        })
    });
    let written = futures_util::future::join_all(writes).await;
    assert_eq!(written.iter().filter(|one| one.is_ok()).count(), 40);
    assert_eq!(verify(store).await, Ok(81));
}

async fn lines_are_found_by_what_is_in_them(store: &Store) {
    chained(store, &["a", "b", "c_d"]).await;
    let mut other = numbered("e");
    other.action = "key.create";
    other.actor = "anna".to_owned();
    other.at = NOW.plus(Duration::from_mins(1));
    other.outcome = vaxel_core::audit::Outcome::Refused(vaxel_core::failure::Kind::NotPermitted);
    store.audit(other).await.unwrap();
    let numbers = async |query: AuditQuery| {
        let (found, next) = store.search_audit(query, (u64::MAX, 10)).await.unwrap();
        assert_eq!(next, None);
        found.iter().map(|entry| entry.number).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    let all = AuditQuery::default;
    assert_eq!(numbers(all()).await, [4, 3, 2, 1]);
    let action = |text| AuditQuery {
        action: some(text),
        ..all()
    };
    assert_eq!(numbers(action("key.*")).await, [4]);
    assert_eq!(numbers(action("key")).await, [0; 0]);
    let outcome = |text| AuditQuery {
        outcome: some(text),
        ..all()
    };
    assert_eq!(numbers(outcome("refused")).await, [4]);
    assert_eq!(numbers(outcome("refused:not-permitted")).await, [4]);
    let text = |text| AuditQuery {
        text: some(text),
        ..all()
    };
    assert_eq!(numbers(text("C_D")).await, [3]);
    assert_eq!(numbers(text("%")).await, [0; 0]);
    assert_eq!(numbers(text("203.0.113.7")).await, [4, 3, 2, 1]);
    let (actor, resource) = (some("anna"), some("b"));
    assert_eq!(numbers(AuditQuery { actor, ..all() }).await, [4]);
    assert_eq!(numbers(AuditQuery { resource, ..all() }).await, [2]);
    let since = Some(NOW.plus(Duration::from_secs(1)));
    assert_eq!(numbers(AuditQuery { since, ..all() }).await, [4]);
    let until = since;
    assert_eq!(numbers(AuditQuery { until, ..all() }).await, [3, 2, 1]);
    let (found, next) = store.search_audit(all(), (4, 2)).await.unwrap();
    assert_eq!((found[0].number, found.len(), next), (3, 2, Some(2)));
    let one = store.audit_entry(3).await.unwrap().expect("it is there");
    assert_eq!(one.after.expect("what is").get(), r#"{"a":2}"#);
    assert!(store.audit_entry(9).await.unwrap().is_none());
}

async fn keys_are_kept_with_the_line_from_which_on_they_seal(store: &Store) {
    let key = |since, byte| AuditKeyRow {
        since,
        sealed: format!("{byte}"),
        created_at: NOW,
    };
    for one in [key(9, 2), key(1, 1), key(1, 3)] {
        store.put_audit_key(one).await.unwrap();
    }
    let chain = store.audit_chain().await.unwrap();
    assert_eq!(chain.keys, [key(1, 3), key(9, 2)]);
    assert_eq!(chain.head, None);
}
