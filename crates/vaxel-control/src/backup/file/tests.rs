use std::fs;

use vaxel_core::time::Clock;
use vaxel_store::{Config, Store};

use super::*;

const PASSPHRASE: &str = "correct horse";

/// A backup of a store with one fact, and of a root key when it is sealed.
async fn backup(passphrase: Option<&str>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Config::new(dir.path())).unwrap();
    store.put_meta("fact", "text".to_owned()).await.unwrap();
    let mut head = BackupHead::new(
        "0.0.0".to_owned(),
        "sqlite".to_owned(),
        Clock::system().now(),
        Schema::NEWEST,
    );
    let (recipe, key) = passphrase
        .map(|passphrase| Recipe::invent(passphrase).unwrap())
        .unzip();
    head.keys = recipe;
    let mut writer = Writer::begin(Vec::new(), &head, key.as_ref()).unwrap();
    if key.is_some() {
        writer.file("root.key", &Secret::new(vec![7; 32])).unwrap();
    }
    store.dump(&[], writer).await.unwrap().finish().unwrap()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// What is said of a file of these bytes; `key` spares the passphrase.
    fn read(&self, bytes: &[u8], key: Option<&StreamKey>) -> Result<BackupContents, String> {
        let path = self.0.path().join("file");
        fs::write(&path, bytes).unwrap();
        let mut file = BackupFile::open(&path).map_err(|failure| failure.to_string())?;
        file.key = key.cloned();
        file.verify().map_err(|failure| failure.to_string())
    }

    fn refuses_every_cut_and_flip(&self, whole: &[u8], key: Option<&StreamKey>) {
        // What is sealed is slow to open without optimization, and one byte of it is like another.
        let head = whole.iter().position(|byte| *byte == b'\n').unwrap();
        let step = if key.is_some() { 7 } else { 1 };
        for at in (0..=head).chain((head + 1..whole.len()).step_by(step)) {
            assert!(self.read(&whole[..at], key).is_err(), "cut at {at}");
            let mut changed = whole.to_vec();
            changed[at] ^= 1 << (at % 8);
            let refused = self.read(&changed, key);
            assert!(refused.is_err(), "changed at {at}");
        }
        let longer = [whole, b"\n"].concat();
        assert!(self.read(&longer, key).is_err());
    }
}

#[tokio::test]
async fn a_backup_that_is_cut_or_changed_anywhere_is_refused() {
    let whole = backup(None).await;
    let place = Place::new();
    let read = place.read(&whole, None).unwrap();
    let meta = read.tables.iter().find(|table| table.table == "meta");
    assert_eq!(meta.unwrap().rows, 1);
    place.refuses_every_cut_and_flip(&whole, None);
}

#[tokio::test]
async fn a_sealed_backup_that_is_cut_or_changed_anywhere_is_refused() {
    let whole = backup(Some(PASSPHRASE)).await;
    let place = Place::new();
    let path = place.0.path().join("file");
    fs::write(&path, &whole).unwrap();
    let mut file = BackupFile::open(&path).unwrap();
    file.unlock(PASSPHRASE).unwrap();
    let key = file.key.clone().unwrap();
    let read = place.read(&whole, Some(&key)).unwrap();
    assert_eq!(read.files[0].0, "root.key");
    assert_eq!(read.files[0].1.expose(), &vec![7; 32]);
    assert!(!whole.windows(4).any(|bytes| bytes == b"fact"));
    place.refuses_every_cut_and_flip(&whole, Some(&key));
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said() {
    let place = Place::new();
    let path = place.0.path().join("file");
    let said = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        BackupFile::open(&path).unwrap_err().to_string()
    };
    assert!(said(b"").ends_with("is not a backup of Vaxel"));
    assert!(said(b"{\"a\":1}\n").ends_with("is not a backup of Vaxel"));
    let newer = said(b"{\"vaxel_backup\":2,\"x\":1}\n");
    assert!(newer.contains("newer Vaxel"), "{newer}");
    let whole = String::from_utf8(backup(None).await).unwrap();
    let steps = format!("\"resources\":{}", Schema::NEWEST.resources);
    let newer = said(whole.replacen(&steps, "\"resources\":4711", 1).as_bytes());
    assert!(newer.contains("newer Vaxel"), "{newer}");
    let cut = place.read(&whole.as_bytes()[..whole.len() - 90], None);
    let cut = cut.unwrap_err();
    assert!(cut.contains("cut short"), "{cut}");

    fs::write(&path, backup(Some(PASSPHRASE)).await).unwrap();
    let mut file = BackupFile::open(&path).unwrap();
    let wrong = file.unlock("another one").unwrap_err().to_string();
    assert!(wrong.contains("the passphrase is wrong"), "{wrong}");
    assert!(file.verify().is_err());
}
