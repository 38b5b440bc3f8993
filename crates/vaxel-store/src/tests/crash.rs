//! Nothing acknowledged is lost: processes that are killed while they write, and disks that fill.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use tokio::task::JoinSet;
use vaxel_core::{
    id::{Id, Service},
    time::Clock,
};

use super::{NOW, line, open, service};
use crate::{
    error::Error,
    store::{Config, Store},
};

/// Where a child finds its directory.
const DIR: &str = "VAXEL_TEST_DIR";
/// How often a child is killed.
const ROUNDS: u64 = 24;

/// A number below `limit`; says which, so that a failure can be understood.
fn random(what: &str, limit: u64) -> u64 {
    let bytes = *Id::<Service>::new(Clock::system().now()).as_bytes();
    let tail = bytes[8..].try_into().expect("eight bytes are left");
    let number = u64::from_le_bytes(tail) % limit;
    println!("{what}: {number}");
    number
}

/// This test program again, for one of the ignored tests below; `through` is put before it.
fn child(test: &str, dir: &Path, through: &[&str]) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    let mut words = through.iter().map(OsStr::new).collect::<Vec<_>>();
    words.push(program.as_os_str());
    Command::new(words[0])
        .args(&words[1..])
        // With one thread, as on one processor, the name of the test stands before what it says.
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "--test-threads=2",
            test,
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts")
}

/// Creates services from several tasks and prints the name of each that was acknowledged.
#[test]
#[ignore = "the half that is killed"]
fn child_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = open(Path::new(&dir));
        println!("open");
        let mut tasks = JoinSet::new();
        for _ in 0..6 {
            let store = store.clone();
            tasks.spawn(async move {
                loop {
                    let id = Id::<Service>::new(Clock::system().now()).to_string();
                    let service = service(&format!("s{}", &id[24..]));
                    let line = line(&service, "service.create");
                    let created = store.create_service(&service, Vec::new(), line).await;
                    created.expect("it is created");
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "done {}", service.name).expect("the parent reads");
                    out.flush().expect("the parent reads");
                }
            });
        }
        tasks.join_all().await;
    });
}

/// The names that the child said were written; kills it after `enough` of them.
fn acknowledged(child: &mut Child, enough: u64) -> Vec<String> {
    let out = child.stdout.take().expect("it is piped");
    let mut names = Vec::new();
    let mut killed = enough == 0;
    if killed {
        child.kill().expect("it can be killed");
    }
    for said in BufReader::new(out).lines() {
        // The last line may end in the middle, and then it was not said.
        let Ok(said) = said else { break };
        if let Some(name) = said.strip_prefix("done ")
            && name.len() == 13
        {
            names.push(name.to_owned());
        }
        if !killed && names.len() as u64 >= enough {
            child.kill().expect("it can be killed");
            killed = true;
        }
    }
    child.wait().expect("it has ended");
    names
}

#[tokio::test]
async fn a_writer_that_is_killed_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = BTreeSet::new();
    for round in 0..ROUNDS {
        let enough = if round == 0 {
            0
        } else {
            random("killed after", 400)
        };
        let test = "tests::crash::child_writes_until_it_is_killed";
        let mut child = child(test, dir.path(), &[]);
        let names = acknowledged(&mut child, enough);
        assert!(names.len() as u64 >= enough, "the child ended by itself");
        all.extend(names);

        let store = open(dir.path());
        assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
        let kept = store.all_services().await.unwrap();
        let names: BTreeSet<_> = kept
            .iter()
            .map(|service| service.name.to_string())
            .collect();
        let lost: Vec<_> = all.difference(&names).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        whole_changes_only(&store, kept.len()).await;
    }
    assert!(all.len() > 500, "{} were acknowledged", all.len());
}

/// Every service has its revision, its audit line and its event, and there are no others.
async fn whole_changes_only(store: &Store, services: usize) {
    let lines = store.audit_lines(1_000_000, None).await.unwrap();
    let events = store.changes_after(0, 1_000_000).await.unwrap();
    assert_eq!((lines.len(), events.len()), (services, services));
    let revisions = store.read("revisions", |tx| {
        static COUNT: crate::stmt::Stmt = crate::stmt::Stmt::new(
            "SELECT count(*) FROM services s JOIN revisions r ON r.service = s.id",
        );
        tx.find(&COUNT, &[], |row| row.count(0))
    });
    assert_eq!(revisions.await.unwrap(), Some(services as u64));
}

/// Writes ever larger notes until there is no room, with the answer to each.
async fn fill(store: &Store) -> (BTreeMap<String, usize>, Error) {
    let mut kept = BTreeMap::new();
    for number in 0..100_000 {
        let name = format!("n{number}");
        let text = "x".repeat(3_000);
        match store.write_demo_note(&name, text, NOW).await {
            Ok(()) => kept.insert(name, 3_000),
            Err(error) => return (kept, error),
        };
    }
    panic!("the disk never filled");
}

async fn a_full_disk_is_survived(store: &Store) -> BTreeMap<String, usize> {
    let (kept, error) = fill(store).await;
    assert!(matches!(error, Error::Full), "{error:?}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    // What is there can still be read, and a further write is refused, not lost.
    assert_eq!(store.demo_notes().await.unwrap().len(), kept.len());
    let text = "x".repeat(1 << 20);
    let refused = store.write_demo_note("large", text, NOW).await;
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    assert!(store.stats().last_error.is_some());
    kept
}

#[test]
#[ignore = "the half under a file-size limit"]
fn child_writes_under_a_limit() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = open(Path::new(&dir));
        let kept = a_full_disk_is_survived(&store).await;
        println!("kept {}", kept.len());
        store.close().await;
    });
}

#[tokio::test]
async fn a_file_that_may_not_grow_refuses_writes_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    // 2,000 blocks of 512 bytes; ignored, the signal becomes an error of the write.
    let limit = "trap '' XFSZ; ulimit -f 2000; exec \"$@\"";
    let through = ["/bin/sh", "-c", limit, "sh"];
    let test = "tests::crash::child_writes_under_a_limit";
    let child = child(test, dir.path(), &through);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let kept = said.lines().find_map(|line| line.strip_prefix("kept "));
    let kept: usize = kept.expect("it says how many").parse().unwrap();
    assert!(kept > 10, "{kept}");
    let store = open(dir.path());
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.demo_notes().await.unwrap().len(), kept);
    let text = "x".repeat(3_000);
    store.write_demo_note("later", text, NOW).await.unwrap();
}

/// A small file system that goes away with this.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "vaxel-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self { dir })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.dir.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "it is unmounted"
        );
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: a tmpfs cannot be mounted here (that takes root)");
        return;
    };
    let dir = disk.dir.path();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![0; 600_000]).unwrap();
    let store = open(dir);
    let kept = a_full_disk_is_survived(&store).await;
    std::fs::remove_file(&ballast).unwrap();
    store
        .write_demo_note("later", "text".to_owned(), NOW)
        .await
        .unwrap();
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    drop(store);
    let store = open(dir);
    assert_eq!(store.demo_notes().await.unwrap().len(), kept.len() + 1);
    drop(store);
}

#[test]
fn a_disk_without_any_room_is_named_when_the_store_is_opened() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: a tmpfs cannot be mounted here (that takes root)");
        return;
    };
    let ballast = disk.dir.path().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let Err(error) = Store::open(&Config::new(disk.dir.path())) else {
        panic!("it was opened");
    };
    assert!(matches!(error, Error::Full), "{error:?}");
}
