//! What a data directory can be in, and the sentence that a person reads then.

use std::{
    fs,
    os::unix::{
        fs::{FileExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use rusqlite::Connection;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
};

use super::{NOW, fresh, line, open, postgres::Schema, put, service};
use crate::{
    error::Error,
    migrations,
    store::{Config, Store},
};

/// Where a child finds its directory.
const DIR: &str = "VAXEL_TEST_DIR";

fn refused(dir: &Path) -> Error {
    match Store::open(&Config::new(dir)) {
        Ok(_) => panic!("{} was opened", dir.display()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_second_store_on_one_directory_is_refused_and_told_who_has_it() {
    let (dir, store) = fresh();
    let error = refused(dir.path());
    let Error::InUse { pid, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*pid, std::process::id().to_string());
    let failure = Failure::from(error);
    assert_eq!(failure.kind, Kind::StoreUnavailable);
    assert!(
        failure.detail.contains("is in use by another Vaxel"),
        "{failure}"
    );
    drop(store);
    open(dir.path());
}

#[tokio::test]
async fn a_reader_is_opened_when_it_is_needed_and_again_when_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.readers = 1;
    let store = Store::open(&config).unwrap();
    let (file, away) = (dir.path().join("vaxel.db"), dir.path().join("away.db"));
    fs::rename(&file, &away).unwrap();
    let error = store.demo_notes().await.unwrap_err();
    assert!(error.to_string().contains("vaxel.db"), "{error}");
    fs::rename(&away, &file).unwrap();
    assert!(store.demo_notes().await.unwrap().is_empty());
}

#[test]
fn a_database_of_a_newer_vaxel_is_refused_and_stays_as_it_was() {
    for name in ["vaxel.db", "records.db"] {
        let (dir, store) = fresh();
        drop(store);
        let file = dir.path().join(name);
        let raw = Connection::open(&file).unwrap();
        raw.execute_batch("PRAGMA user_version = 4711").unwrap();
        drop(raw);
        let error = refused(dir.path());
        let Error::Newer { found: 4711, .. } = error else {
            panic!("{error:?}");
        };
        let said = error.to_string();
        assert!(
            said.contains(name) && said.contains("newer Vaxel"),
            "{said}"
        );
        let raw = Connection::open(&file).unwrap();
        let version: i64 = raw
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(version, 4711);
    }
}

#[tokio::test]
async fn every_older_schema_is_brought_up_to_date_with_what_it_holds() {
    for version in 1..migrations::RESOURCES.len() {
        let dir = tempfile::tempdir().unwrap();
        let raw = Connection::open(dir.path().join("vaxel.db")).unwrap();
        for step in &migrations::RESOURCES[..version] {
            raw.execute_batch(step).unwrap();
        }
        raw.execute_batch(&format!(
            "PRAGMA user_version = {version}; INSERT INTO notes VALUES ('old', 'text', 0);"
        ))
        .unwrap();
        drop(raw);
        let store = open(dir.path());
        assert_eq!(store.demo_notes().await.unwrap(), ["old"]);
        store.put_meta("step", "works".to_owned()).await.unwrap();
    }
}

#[tokio::test]
async fn revisions_of_an_older_schema_get_what_is_known_of_their_service() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Connection::open(dir.path().join("vaxel.db")).unwrap();
    let id = Id::<Service>::new(NOW);
    raw.execute_batch(migrations::RESOURCES[0]).unwrap();
    raw.execute_batch(&format!(
        "PRAGMA user_version = 1;
        INSERT INTO services VALUES ('{id}', 'files', 3, 2, 0, '[\"a\"]', 'prod', 'admin', \
            'builtin', '{{}}', '', 0, 0, NULL);
        INSERT INTO revisions VALUES ('{id}', 1, '{{\"old\":1}}', 'ann', 5);
        INSERT INTO revisions VALUES ('gone', 1, '{{}}', 'ann', 5);"
    ))
    .unwrap();
    drop(raw);
    let store = open(dir.path());
    let row = store.revision(id, 1).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.enabled), ("files", false));
    assert_eq!(
        (row.tags, row.environment.as_str()),
        (vec!["a".to_owned()], "prod")
    );
    assert_eq!(
        (row.spec.as_str(), row.action.as_str()),
        ("{\"old\":1}", "service.create")
    );
}

#[tokio::test]
async fn keys_of_an_older_schema_are_the_first_users_and_so_is_what_was_made_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Connection::open(dir.path().join("vaxel.db")).unwrap();
    let (mine, vaxels) = (Id::<Service>::new(NOW), Id::<Service>::new(NOW));
    let key = Id::<vaxel_core::id::Key>::new(NOW);
    raw.execute_batch(migrations::RESOURCES[0]).unwrap();
    raw.execute_batch(&format!(
        "PRAGMA user_version = 1;
        INSERT INTO services VALUES ('{mine}', 'files', 1, 1, 0, '[]', 'prod', 'laptop', \
            'builtin', '{{}}', '', 0, 0, NULL);
        INSERT INTO services VALUES ('{vaxels}', 'other', 1, 1, 0, '[]', 'prod', 'vaxel', \
            'builtin', '{{}}', '', 0, 0, NULL);
        INSERT INTO keys VALUES ('{key}', 'laptop', 'vxl_a', zeroblob(32), '[\"mcp:read\"]', 0, NULL, \
            NULL, NULL);"
    ))
    .unwrap();
    drop(raw);
    let store = open(dir.path());
    let keys = store.keys().await.unwrap();
    assert_eq!(
        (keys[0].name.as_str(), keys[0].user.as_str()),
        ("laptop", "admin")
    );
    assert!(keys[0].services.is_none() && keys[0].environments.is_none());
    let owned = store.owned_services(&keys[0].user).await.unwrap();
    assert_eq!(owned, [mine]);
    assert!(store.users().await.unwrap().is_empty());
}

#[tokio::test]
async fn specs_of_before_there_were_formats_are_rewritten_once_and_the_unreadable_stay() {
    let (dir, store) = fresh();
    let mut all = Vec::new();
    for name in ["old", "broken", "newer"] {
        let service = service(name);
        let line = line(&service, "service.create");
        let created = store.create_service(&service, Vec::new(), line);
        created.await.unwrap();
        all.push(service);
    }
    let raw = Connection::open(dir.path().join("vaxel.db")).unwrap();
    raw.execute_batch(
        "UPDATE services SET spec = replace(spec, '\"format\":1,', '') WHERE name = 'old';
        UPDATE services SET spec = '{\"old' WHERE name = 'broken';
        UPDATE services SET spec = '{\"format\":7}' WHERE name = 'newer';",
    )
    .unwrap();
    let text = |name: &str| -> String {
        let of = "SELECT spec FROM services WHERE name = $1";
        raw.query_row(of, [name], |row| row.get(0)).unwrap()
    };
    assert!(!text("old").contains("format"));
    assert_eq!(store.renew_specs().await.unwrap(), 1);
    assert!(text("old").starts_with("{\"format\":1,"));
    assert_eq!(
        (&*text("broken"), &*text("newer")),
        ("{\"old", "{\"format\":7}")
    );
    assert_eq!(store.renew_specs().await.unwrap(), 0, "once is enough");

    // No version and no revision: what is wanted is the same.
    assert_eq!(
        store.service(all[0].id).await.unwrap().as_ref(),
        Some(&all[0])
    );
    for (service, path) in [(&all[1], "spec"), (&all[2], "spec.format")] {
        let read = store.service(service.id).await.unwrap().unwrap();
        let defect = read.defect.unwrap();
        assert_eq!(defect.issues[0].path, path);
        assert!(defect.text.is_some());
    }
    assert_eq!(
        store.all_services().await.unwrap().len(),
        3,
        "none is left out"
    );
}

#[tokio::test]
async fn every_older_schema_of_postgresql_is_brought_up_to_date_with_what_it_holds() {
    for version in 1..migrations::RESOURCES.len() {
        let Some(schema) = Schema::fresh() else {
            return;
        };
        for step in &migrations::RESOURCES[..version] {
            schema.run(&migrations::for_postgres(step));
        }
        let records = migrations::for_postgres(migrations::RECORDS[0]);
        schema.run(&format!(
            "{records}; INSERT INTO notes VALUES ('old', 'text', 0);
             CREATE TABLE schema_steps (part TEXT PRIMARY KEY, steps BIGINT NOT NULL);
             INSERT INTO schema_steps VALUES ('resources', {version}), ('records', 1);"
        ));
        let store = schema.open();
        assert_eq!(store.demo_notes().await.unwrap(), ["old"]);
        store.put_meta("step", "works".to_owned()).await.unwrap();
        store.close().await;
        drop(store);
        // And again, with nothing to do.
        assert_eq!(schema.open().demo_notes().await.unwrap(), ["old"]);
    }
}

#[test]
fn a_file_that_is_no_database_is_called_damaged_by_its_name() {
    for name in ["vaxel.db", "records.db"] {
        let (dir, store) = fresh();
        drop(store);
        fs::write(dir.path().join(name), b"certainly no database".repeat(400)).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(name) && said.contains("damaged"), "{said}");
    }
}

#[tokio::test]
async fn a_damaged_page_is_found_by_the_check() {
    let (dir, store) = fresh();
    for number in 0..200 {
        let name = format!("{number}");
        store
            .write_demo_note(&name, "x".repeat(500), NOW)
            .await
            .unwrap();
    }
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    store.close().await;
    drop(store);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("vaxel.db"))
        .unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in pages - 10..pages {
        file.write_all_at(&[0xAB; 512], page * 4096).unwrap();
    }
    let problems = open(dir.path()).check().await.unwrap();
    assert!(!problems.is_empty());
}

#[tokio::test]
async fn all_files_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("new/folder");
    let store = open(&inner);
    store.write("put", |tx| put(tx, "a", "")).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&inner).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    for name in ["lock", "records.db", "vaxel.db", "vaxel.db-wal"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
}

/// Run by the test below as a person without rights, in the directory that it may not use.
#[test]
#[ignore = "the other half of a test that drops root"]
fn child_opens_a_directory_without_permission() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let error = refused(Path::new(&dir));
    assert!(matches!(error, Error::Unusable { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("cannot be used"), "{said}");
    assert!(said.contains("ermission"), "{said}");
}

#[test]
fn a_directory_without_permission_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let error = refused(&closed);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(error, Error::Unusable { .. }), "{error:?}");
        return;
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // A copy, because the way to the original may be closed to others.
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new(&program)
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=2"])
        .arg("tests::opening::child_opens_a_directory_without_permission")
        .env(DIR, &closed)
        .uid(65_534)
        .gid(65_534)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
