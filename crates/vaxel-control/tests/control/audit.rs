//! The audit as a whole: it holds from the first start on, what was put back shows, and an export says the same.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::json;
use vaxel_auth::{
    root::RootKeys,
    stamp::{AuditKey, Unsealed},
};
use vaxel_control::{AuditQuery, AuditVerdict, Page, expect_another_audit, open_audit_key};
use vaxel_core::{
    audit::{
        Entry,
        chain::{Checker, Stamp},
        export::Record,
    },
    failure::Kind,
    principal::{Permissions, Principal},
    time::{Clock, Timestamp},
};

use crate::home::{Home, folder, open, open_at, until};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

impl Home {
    /// Stops it and lets go of its data.
    async fn end(self) {
        self.control.stop().await;
    }

    async fn demo(&self, name: &str) {
        let draft = json!({ "name": name, "enabled": false,
            "spec": { "source": { "builtin": "demo" } } });
        self.create(draft).await.unwrap();
    }

    async fn lines(&self, query: AuditQuery) -> Vec<Entry> {
        let lines = self.control.audit_lines(&self.admin, &query, &Page::FIRST);
        lines.await.unwrap().items
    }

    async fn of_action(&self, action: &str) -> Vec<Entry> {
        let query = AuditQuery {
            action: Some(action.to_owned()),
            ..AuditQuery::default()
        };
        self.lines(query).await
    }

    async fn verify(&self) -> AuditVerdict {
        self.verify_behind(0).await
    }

    async fn verify_behind(&self, number: u64) -> AuditVerdict {
        let verified = self.control.verify_audit(&self.admin, number).await;
        verified.unwrap()
    }

    /// What the status says of it.
    async fn problem(&self) -> Option<String> {
        self.control
            .status(&self.admin)
            .await
            .unwrap()
            .audit_problem
    }

    async fn export(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> String {
        let export = self.control.export_audit(&self.admin, (since, until));
        let mut export = export.await.unwrap();
        let mut all = String::new();
        while let Some(piece) = export.next().await.unwrap() {
            all.push_str(&piece);
        }
        all
    }
}

/// Checks an export; how many lines and seals were right, and whether it said that it ends with the newest.
fn check(export: &str, key: Option<&Path>) -> Result<(u64, u64, bool), String> {
    let mut lines = export.lines();
    let Some(Ok(Record::Head(head))) = lines.next().map(Record::read) else {
        return Err("no head".to_owned());
    };
    let opened: Option<AuditKey> = key.map(|root| {
        let sealer = RootKeys::load_or_create(root.parent().unwrap())
            .unwrap()
            .sealer("service values");
        let key = head.keys.last().unwrap();
        open_audit_key(&sealer, (key.since, &key.sealed)).unwrap()
    });
    let stamp: &dyn Stamp = match &opened {
        Some(key) => key,
        None => &Unsealed,
    };
    let mut checker = Checker::new(stamp, 1, head.after);
    for line in lines {
        let record = Record::read(line).map_err(|error| error.to_string())?;
        let done = record
            .check(&mut checker)
            .map_err(|flaw| flaw.to_string())?;
        if let (true, Record::End(end)) = (done, &record) {
            return Ok((checker.lines, checker.sealed, end.is_newest));
        }
    }
    Err("no end".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_holds_from_the_first_start_on_and_over_further_ones() {
    let dir = folder();
    let home = open(dir.path()).await;
    home.demo("one").await;
    let first = home.verify().await;
    assert_eq!(first.flaw, None);
    assert_eq!((first.lines, first.sealed), (first.newest, first.newest));
    assert_eq!((first.next, first.notes), (None, Vec::new()));
    assert_eq!(home.of_action("audit.begin").await.len(), 1);
    home.end().await;
    let home = open(dir.path()).await;
    home.demo("two").await;
    let second = home.verify().await;
    assert_eq!(second.flaw, None);
    assert!(second.newest > first.newest);
    assert_eq!(home.of_action("audit.begin").await.len(), 1);
    let made = &home.of_action("service.create").await[0];
    let after: serde_json::Value =
        serde_json::from_str(made.after.as_ref().unwrap().get()).unwrap();
    assert_eq!(after["name"], "two");
    assert!(made.before.is_none());
    let same = home.control.audit_line(&home.admin, made.number).await;
    assert_eq!(same.unwrap().hash, made.hash);
    let none = home
        .control
        .audit_line(&home.admin, 9_999)
        .await
        .unwrap_err();
    assert_eq!(none.kind, Kind::NotFound);
    home.end().await;
}

/// Puts a database back to an earlier state; the newest line that there was.
async fn put_back(dir: &Path) -> u64 {
    let home = open(dir).await;
    home.demo("one").await;
    home.end().await;
    let (db, copy) = (dir.join("data/vaxel.db"), dir.join("copy"));
    fs::copy(&db, &copy).unwrap();
    let home = open(dir).await;
    home.demo("two").await;
    let newest = home.verify().await.newest;
    home.end().await;
    fs::copy(&copy, &db).unwrap();
    newest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_put_back_leaves_a_line_and_shows_until_then() {
    let dir = folder();
    let newest = put_back(dir.path()).await;
    let home = open(dir.path()).await;
    let verdict = home.verify().await;
    let rewound = home.of_action("audit.rewind").await;
    assert_eq!(rewound.len(), 1);
    let detail: serde_json::Value =
        serde_json::from_str(rewound[0].detail.as_ref().unwrap().get()).unwrap();
    assert_eq!(detail["expected"]["number"], newest);
    let flaw = verdict.flaw.unwrap();
    assert_eq!(flaw.number, rewound[0].number);
    assert!(flaw.what.contains("earlier state"), "{flaw}");
    assert!(home.problem().await.unwrap().contains("earlier state"));
    home.end().await;
    let home = open(dir.path()).await;
    assert_eq!(home.of_action("audit.rewind").await.len(), 1, "said once");
    assert_eq!(home.verify().await.flaw, Some(flaw.clone()), "from then on");
    assert_eq!(home.verify_behind(flaw.number).await.flaw, None);
    // While it runs, the file is ahead of what is there.
    let head = dir.path().join("data/audit.head");
    let ahead = json!({ "number": 9_999, "hash": "00".repeat(32) });
    fs::write(&head, ahead.to_string()).unwrap();
    let ahead = home.verify_behind(flaw.number).await.flaw.unwrap();
    assert!(ahead.what.contains("lines up to 9999"), "{ahead}");
    home.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_put_back_while_vaxel_runs_leaves_a_line() {
    let dir = folder();
    let home = open(dir.path()).await;
    home.demo("one").await;
    let head = dir.path().join("data/audit.head");
    let newest = home.verify().await.newest;
    until("the file to know of it", async || {
        let kept = fs::read_to_string(&head).ok()?;
        kept.contains(&format!("\"number\":{newest},"))
            .then_some(())
    })
    .await;
    tamper(
        dir.path(),
        &format!("UPDATE audit SET hash = seal WHERE seq = {newest}"),
    );
    home.demo("two").await;
    let line = until("a line about it", async || {
        home.of_action("audit.rewind").await.pop()
    })
    .await;
    assert!(line.number > newest);
    home.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_is_no_surprise_to_the_start_behind_it() {
    let dir = folder();
    put_back(dir.path()).await;
    expect_another_audit(&dir.path().join("data")).unwrap();
    let home = open(dir.path()).await;
    let verdict = home.verify().await;
    assert_eq!(verdict.flaw, None);
    assert!(
        verdict.notes[0].contains("backup had been restored"),
        "{verdict:?}"
    );
    assert_eq!(home.of_action("audit.restore").await.len(), 1);
    assert_eq!(home.problem().await, None);
    home.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_the_chain_and_was_taken_away_or_spoiled_is_no_beginning() {
    for (what, change, part) in [
        (
            "the key",
            "DELETE FROM audit_keys",
            "the key of the lines before",
        ),
        (
            "its bytes",
            "UPDATE audit_keys SET sealed = replace(sealed, substr(sealed, 9, 9), 'AAAAAAAAA')",
            "the key of the lines before",
        ),
        (
            "the first line that it sealed",
            "UPDATE audit_keys SET since = 9999",
            "the key of the lines before",
        ),
        (
            "the newest link",
            "DELETE FROM audit_head",
            "which line is the newest",
        ),
        (
            "all of that",
            "DELETE FROM audit_head; DELETE FROM audit_keys; DELETE FROM audit_gaps",
            "which line is the newest",
        ),
        (
            "all that a chain leaves",
            "DELETE FROM audit_head; DELETE FROM audit_keys; DELETE FROM audit_gaps;
             UPDATE audit SET hash = NULL, seal = NULL, actor = 'eve'",
            "the key of the lines before",
        ),
    ] {
        let dir = folder();
        let home = open(dir.path()).await;
        home.demo("one").await;
        home.end().await;
        tamper(dir.path(), change);
        let home = open(dir.path()).await;
        let said = home.problem().await.expect(what);
        assert!(said.contains(part), "{what}: {said}");
        let line = home.of_action("audit.broken").await.pop().expect(what);
        let flaw = home.verify().await.flaw.expect(what);
        assert!(flaw.number <= line.number, "{what}: {flaw}");
        home.demo("two").await;
        home.end().await;
        let home = open(dir.path()).await;
        assert_eq!(home.verify().await.flaw, Some(flaw), "{what}: from then on");
        assert_eq!(home.of_action("audit.broken").await.len(), 1, "{what}");
        home.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_end_of_the_audit_is_not_taken_for_a_missing_one() {
    let dir = folder();
    let home = open(dir.path()).await;
    home.demo("one").await;
    let head = dir.path().join("data/audit.head");
    until("the file to be there", async || head.exists().then_some(())).await;
    fs::write(&head, "{\"number\":3").unwrap();
    let flaw = home.verify().await.flaw.unwrap();
    assert!(flaw.what.contains("audit.head is damaged"), "{flaw}");
    home.end().await;
    // At its end it was written anew.
    fs::write(&head, "").unwrap();
    let home = open(dir.path()).await;
    let line = home.of_action("audit.broken").await.pop().unwrap();
    let flaw = home.verify().await.flaw.unwrap();
    assert_eq!(flaw.number, line.number);
    assert!(flaw.what.contains("is damaged"), "{flaw}");
    home.end().await;
    let text = fs::read_to_string(&head).unwrap();
    assert!(text.contains("\"root\""), "{text}");
    fs::remove_file(&head).unwrap();
    let home = open(dir.path()).await;
    assert_eq!(
        home.of_action("audit.broken").await.len(),
        1,
        "none is none"
    );
    home.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_root_key_seals_on_and_a_lost_one_begins_anew_and_says_so() {
    let dir = folder();
    let home = open(dir.path()).await;
    home.demo("one").await;
    home.end().await;
    let root = dir.path().join("data/root.key");
    fs::rename(&root, dir.path().join("data/root.key.old")).unwrap();
    let home = open(dir.path()).await;
    let verdict = home.verify().await;
    assert_eq!((verdict.flaw, verdict.sealed), (None, verdict.lines));
    // It goes away by itself once everything is sealed anew.
    let old = dir.path().join("data/root.key.old");
    until("the old key to go", async || (!old.exists()).then_some(())).await;
    home.end().await;
    let home = open(dir.path()).await;
    let verdict = home.verify().await;
    assert_eq!((verdict.flaw, verdict.sealed), (None, verdict.lines));
    home.end().await;
    fs::remove_file(&root).unwrap();
    let home = open(dir.path()).await;
    home.demo("two").await;
    let verdict = home.verify().await;
    assert_eq!(verdict.flaw, None);
    assert!(verdict.sealed < verdict.lines, "{verdict:?}");
    assert!(verdict.notes[0].contains("cannot be known"), "{verdict:?}");
    assert_eq!(home.of_action("audit.begin").await.len(), 2);
    home.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_verified_without_the_server_and_what_was_changed_in_it_shows() {
    let dir = folder();
    let home = open(dir.path()).await;
    for name in ["one", "two", "three"] {
        home.demo(name).await;
    }
    let export = home.export(None, None).await;
    let root = dir.path().join("data/root.key");
    let (count, sealed, is_newest) = check(&export, Some(&root)).unwrap();
    assert_eq!((count, is_newest), (sealed, true));
    assert_eq!(check(&export, None), Ok((count, 0, true)));
    assert_eq!(home.of_action("audit.export").await.len(), 1);
    let changed = export.replace("\"two\"", "\"tow\"");
    assert!(
        check(&changed, None)
            .unwrap_err()
            .contains("it was changed")
    );
    let lines: Vec<&str> = export.lines().collect();
    let cut = lines[..4].join("\n");
    assert_eq!(check(&cut, None), Err("no end".to_owned()));
    let without = [&lines[..3], &lines[4..]].concat().join("\n");
    assert!(
        check(&without, None)
            .unwrap_err()
            .contains("line 3: it is missing")
    );
    home.end().await;
}

/// Changes a database past Vaxel, by the SQLite of Python.
fn tamper(dir: &Path, change: &str) {
    const SCRIPT: &str = "import sqlite3, sys\n\
        link = sqlite3.connect(sys.argv[1])\n\
        link.executescript(sys.argv[2])\n\
        link.close()";
    let changed = Command::new("python3")
        .args(["-c", SCRIPT])
        .arg(dir.join("data/vaxel.db"))
        .arg(change)
        .output()
        .unwrap();
    assert!(changed.status.success(), "{changed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_takes_nothing_of_an_audit_that_was_tampered_with_and_the_status_says_why() {
    let dir = folder();
    let clock = Clock::manual(START);
    let home = open_at(dir.path(), clock.clone(), |_| {}).await;
    home.demo("one").await;
    assert_eq!(home.problem().await, None);
    home.end().await;
    tamper(dir.path(), "UPDATE audit SET actor = 'eve' WHERE seq = 3");
    let day = Duration::from_hours(24);
    clock.advance(2 * day);
    let home = open_at(dir.path(), clock.clone(), |config| {
        config.audit.retention = day;
    })
    .await;
    let said = until("the status to say so", async || home.problem().await).await;
    assert!(
        said.contains("line 3: it was changed") && said.contains("no old lines are removed"),
        "{said}"
    );
    assert!(home.control.audit_line(&home.admin, 1).await.is_ok());
    assert_eq!(home.verify().await.flaw.unwrap().number, 3);
    home.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_lines_go_and_exports_of_some_time_hold() {
    let dir = folder();
    let clock = Clock::manual(START);
    let home = open_at(dir.path(), clock.clone(), |_| {}).await;
    home.demo("one").await;
    let day = Duration::from_hours(24);
    clock.advance(day);
    home.demo("two").await;
    clock.advance(day);
    home.demo("three").await;
    let (since, until) = (START.plus(day), START.plus(day + day / 2));
    let part = home.export(Some(since), Some(until)).await;
    assert!(part.contains("\"two\"") && !part.contains("\"one\"") && !part.contains("\"three\""));
    let (_, _, is_newest) = check(&part, None).unwrap();
    assert!(!is_newest);
    let later = home.export(Some(START.plus(9 * day)), None).await;
    assert_eq!(check(&later, None), Ok((0, 0, true)));
    home.end().await;
    let home = open_at(dir.path(), clock.clone(), |config| {
        config.audit.retention = day + day / 2;
    })
    .await;
    tokio::time::timeout(Duration::from_mins(1), async {
        while home.control.audit_line(&home.admin, 1).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the first line goes");
    assert_eq!(home.verify().await.flaw, None);
    let names = home.of_action("service.create").await.into_iter();
    let names: Vec<_> = names.map(|line| line.resource_name).collect();
    assert_eq!(names, ["three", "two"]);
    let export = home.export(None, None).await;
    assert!(export.contains("{\"gap\":"));
    assert!(check(&export, Some(&dir.path().join("data/root.key"))).is_ok());
    home.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_the_audit_reads_nothing_of_it() {
    let dir = folder();
    let home = open(dir.path()).await;
    let nobody = Principal {
        permissions: Permissions::NONE,
        ..Principal::system()
    };
    let (query, first) = (AuditQuery::default(), Page::FIRST);
    let control = &home.control;
    let kinds = [
        control
            .audit_lines(&nobody, &query, &first)
            .await
            .unwrap_err()
            .kind,
        control.audit_line(&nobody, 1).await.unwrap_err().kind,
        control.verify_audit(&nobody, 0).await.unwrap_err().kind,
        control
            .export_audit(&nobody, (None, None))
            .await
            .err()
            .unwrap()
            .kind,
    ];
    assert_eq!(kinds, [Kind::NotPermitted; 4]);
    home.end().await;
}
