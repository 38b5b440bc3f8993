use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use vaxel_core::secret::Secret;

use super::*;
use crate::{
    restore::{Restoring, restore},
    store::Config,
};

fn lines(dump: &[u8]) -> Vec<Vec<u8>> {
    let lines = dump.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    lines.filter(|line| !line.is_empty()).collect()
}

fn heads(lines: &[Vec<u8>]) -> Vec<TableHead> {
    let heads = lines.iter().filter(|line| line.starts_with(b"{"));
    heads.map(|line| TableHead::read(line).unwrap()).collect()
}

fn restoring(lines: &[Vec<u8>], schema: Schema) -> Restoring {
    Restoring {
        schema,
        tables: heads(lines),
        files: vec![("root.key".to_owned(), Secret::new(vec![7; 32]))],
        aside: None,
    }
}

async fn restored(dir: &Path, lines: &[Vec<u8>], schema: Schema) -> Result<(), Error> {
    let what = restoring(lines, schema);
    let lines: Vec<_> = lines.iter().cloned().map(Ok).collect();
    let done = restore(&Config::new(dir), what, Box::new(lines.into_iter())).await;
    done.map(drop)
}

#[tokio::test]
async fn what_is_dumped_and_restored_is_dumped_the_same_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(&Config::new(from.path())).unwrap();
    for number in 0..250 {
        let text = format!("a \"line\"\nand {number} \u{1F980}");
        let name: &'static str = Box::leak(format!("fact-{number}").into_boxed_str());
        store.put_meta(name, text).await.unwrap();
    }
    let before = store.dump(&[], Vec::new()).await.unwrap();
    let before = lines(&before);
    restored(to.path(), &before, Schema::NEWEST).await.unwrap();
    let store = Store::open(&Config::new(to.path())).unwrap();
    let after = lines(&store.dump(&[], Vec::new()).await.unwrap());
    assert_eq!(before, after);
    assert_eq!(std::fs::read(to.path().join("root.key")).unwrap(), [7; 32]);
    assert!(!to.path().join("restore.new").exists());
}

#[tokio::test]
async fn lines_that_are_cut_or_wrong_leave_an_empty_directory_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(&Config::new(from.path())).unwrap();
    store.put_meta("fact", "text".to_owned()).await.unwrap();
    let whole = lines(&store.dump(&[], Vec::new()).await.unwrap());
    let cut = whole[..whole.len() - 1].to_vec();
    let mut longer = whole.clone();
    longer.push(b"[1]".to_vec());
    let mut other = whole.clone();
    let row = other
        .iter_mut()
        .find(|line| line.starts_with(b"["))
        .unwrap();
    *row = b"[1,2]".to_vec();
    for wrong in [cut, longer, other] {
        let what = restoring(&whole, Schema::NEWEST);
        let wrong = Box::new(wrong.into_iter().map(Ok));
        let refused = restore(&Config::new(to.path()), what, wrong).await;
        assert!(matches!(refused, Err(Error::NoRow(_))), "{refused:?}");
        let left = std::fs::read_dir(to.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }
}

#[tokio::test]
async fn an_earlier_schema_is_brought_up_to_date_and_a_later_one_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Schema {
        resources: 1,
        records: 1,
    };
    let store = Store::open_unlocked_at(&Config::new(from.path()), first).unwrap();
    let (steps, notes) = (first.resource_steps(), vec!["notes".to_owned()]);
    assert!(tables_of(steps).contains(&notes[0]));
    let writing = store.write("note", |tx| {
        static NOTE: crate::stmt::Stmt = crate::stmt::Stmt::new(
            "INSERT INTO notes (name, text, updated_at) VALUES ('one', 'kept', 5)",
        );
        tx.execute(&NOTE, &[])
    });
    writing.await.unwrap();
    let writing = store.read("backup", move |tx| {
        let mut out = Vec::new();
        for table in tables(tx, &notes)? {
            write_table(tx, &table, &mut out)?;
        }
        Ok(out)
    });
    let lines = lines(&writing.await.unwrap());
    restored(to.path(), &lines, first).await.unwrap();
    let store = Store::open(&Config::new(to.path())).unwrap();
    let after = store.dump(&[], Vec::new()).await.unwrap();
    let after = String::from_utf8(after).unwrap();
    assert!(after.contains(r#"["one","kept",5]"#), "{after}");
    let later = Schema {
        resources: Schema::NEWEST.resources + 1,
        ..Schema::NEWEST
    };
    let dir = tempfile::tempdir().unwrap();
    let refused = restored(dir.path(), &lines, later).await;
    assert!(matches!(refused, Err(Error::Newer { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_there_is_refused_and_moved_aside_when_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path());
    let store = Store::open(&config).unwrap();
    let lines = lines(&store.dump(&[], Vec::new()).await.unwrap());
    store.put_meta("fact", "later".to_owned()).await.unwrap();
    store.close().await;
    drop(store);
    let refused = restored(dir.path(), &lines, Schema::NEWEST).await;
    assert!(matches!(refused, Err(Error::Occupied(_))), "{refused:?}");
    let mut what = restoring(&lines, Schema::NEWEST);
    what.aside = Some("before".to_owned());
    let given = Box::new(lines.into_iter().map(Ok));
    restore(&config, what, given).await.unwrap();
    assert!(dir.path().join("vaxel.db.before").exists());
    let store = Store::open(&config).unwrap();
    assert_eq!(store.meta("fact").await.unwrap(), None);
}

#[tokio::test]
async fn every_table_with_bytes_of_vaxel_db_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Config::new(dir.path())).unwrap();
    let public = store.read("backup", |tx| {
        let mut names = tables_of(migrations::RESOURCES);
        names.retain(|name| !PRIVATE.contains(&name.as_str()));
        tables(tx, &names)
    });
    for table in public.await.unwrap() {
        let bytes = table.columns.iter().find(|(_, kind)| *kind == Kind::Blob);
        assert!(
            bytes.is_none(),
            "{}: bytes of resources are keys and sealed values; is this table private?",
            table.name
        );
    }
}

#[tokio::test]
async fn tables_with_sealed_values_are_those_that_are_sealed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Config::new(dir.path())).unwrap();
    let all = store.read("backup", |tx| tables(tx, &tables_of(migrations::RESOURCES)));
    let all = all.await.unwrap().into_iter();
    let sealed = all.filter(|table| table.columns.iter().any(|(name, _)| name == "sealed"));
    let sealed: Vec<String> = sealed.map(|table| table.name).collect();
    assert_eq!(
        sealed, SEALED,
        "a root key that is replaced would lose values"
    );
}

fn cell() -> impl Strategy<Value = Value<'static>> {
    use proptest::prop_oneof;
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<String>().prop_map(|text| Value::Text(text.into())),
        any::<Vec<u8>>().prop_map(|bytes| Value::Blob(bytes.into())),
        proptest::sample::select(vec![Kind::Int, Kind::Text, Kind::Blob]).prop_map(Value::Null),
    ]
}

proptest! {
    #[test]
    fn hostile_lines_are_refused_and_never_panic(line in any::<Vec<u8>>()) {
        let columns = vec![("a".to_owned(), Kind::Text), ("b".to_owned(), Kind::Blob)];
        let head = TableHead { table: "t".to_owned(), columns, rows: 1 };
        prop_assert!(TableHead::read(&line).is_err());
        prop_assert!(head.check(&line).is_err());
    }

    #[test]
    fn a_row_of_anything_reads_as_it_was_written(row in proptest::collection::vec(cell(), 0..6)) {
        let kinds = row.iter().map(Value::kind).enumerate();
        let columns = kinds.map(|(at, kind)| (at.to_string(), kind)).collect();
        let head = TableHead { table: "t".to_owned(), columns, rows: 1 };
        let text: Vec<String> = row.iter().map(|value| match value {
            Value::Null(_) => "null".to_owned(),
            Value::Int(number) => number.to_string(),
            Value::Text(text) => serde_json::to_string(text).unwrap(),
            Value::Blob(bytes) => format!("\"{}\"", STANDARD.encode(bytes)),
        }).collect();
        let line = format!("[{}]", text.join(","));
        prop_assert_eq!(head.row(line.as_bytes()).unwrap(), row);
    }
}
