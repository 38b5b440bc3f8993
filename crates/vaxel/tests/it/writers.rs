//! Two hundred writers at once, over REST: every acknowledged write is there, also after a `kill -9`, and
//! none is lost on the way.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    harness::{PATIENCE, TestVaxel},
    postgres::Cluster,
};

const WRITERS: usize = 200;
/// How many services the writers share: few, which they fight for, and many. Each of them takes turns.
const POOLS: [usize; 2] = [3, 150];

/// How long they write. `VAXEL_TEST_WRITERS` says otherwise, in seconds.
fn span(usual: u64) -> Duration {
    let said = std::env::var_os("VAXEL_TEST_WRITERS");
    Duration::from_secs(said.map_or(usual, |text| text.to_str().unwrap().parse().unwrap()))
}

#[expect(clippy::disallowed_methods, reason = "a test lasts in real time")]
fn now() -> Instant {
    Instant::now()
}

/// One connection that stays.
struct Caller {
    link: BufReader<TcpStream>,
    key: String,
}

/// Status, version in the `ETag`, body.
type Answer = (u16, Option<u64>, Value);

impl Caller {
    fn of(vaxel: &TestVaxel) -> Self {
        let address = vaxel.url().trim_start_matches("http://").to_owned();
        let link = TcpStream::connect(address).unwrap();
        link.set_read_timeout(Some(PATIENCE)).unwrap();
        link.set_nodelay(true).unwrap();
        Self {
            link: BufReader::new(link),
            key: vaxel.key(),
        }
    }

    fn ask(&mut self, verb: &str, path: &str, (on, body): (Option<u64>, Option<&Value>)) -> Answer {
        let on = on.map_or(String::new(), |version| {
            format!("if-match: \"{version}\"\r\n")
        });
        let body = body.map(ToString::to_string).unwrap_or_default();
        let text = format!(
            "{verb} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n{on}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        self.link.get_mut().write_all(text.as_bytes()).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Answer {
        let mut line = String::new();
        self.link.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let (mut version, mut length) = (None, None);
        loop {
            line.clear();
            self.link.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "etag" => version = value.trim_matches('"').parse().ok(),
                "content-length" => length = Some(value.parse().unwrap()),
                _ => {}
            }
        }
        let mut body = vec![0; length.expect("an answer says how long it is")];
        self.link.read_exact(&mut body).unwrap();
        (status, version, serde_json::from_slice(&body).unwrap())
    }

    fn get(&mut self, path: &str) -> (Option<u64>, Value) {
        let (status, version, body) = self.ask("GET", path, (None, None));
        assert_eq!(status, 200, "{path}: {body}");
        (version, body)
    }
}

fn name(pool: usize, number: usize) -> String {
    format!("p{pool}-s{number}")
}

fn draft(name: &str, text: &str) -> Value {
    json!({ "name": name, "enabled": false, "spec": {
        "description": text, "source": { "builtin": "demo" }
    } })
}

/// An acknowledged write: of which service, under which revision, what.
type Written = (String, u64, String);

/// Reads a service, writes it on that version, and remembers what was acknowledged; until `end`.
fn write(vaxel: &TestVaxel, (writer, end): (usize, Instant), beaten: &AtomicU64) -> Vec<Written> {
    let mut caller = Caller::of(vaxel);
    let mut written = Vec::new();
    for round in 0.. {
        if now() > end {
            break;
        }
        let pool = POOLS[round % POOLS.len()];
        let name = name(pool, (writer + round / POOLS.len()) % pool);
        let path = format!("/api/v1/services/{name}");
        let (version, _) = caller.get(&path);
        let version = version.unwrap();
        let text = format!("{writer}-{round}");
        let change = (Some(version), Some(&draft(&name, &text)));
        let (status, made, body) = caller.ask("PUT", &format!("{path}?message={text}"), change);
        if status == 200 {
            assert_eq!(made, Some(version + 1), "{body}");
            written.push((name, body["revision"].as_u64().unwrap(), text));
        } else {
            assert_eq!(status, 412, "{body}");
            assert!(made > Some(version), "{version} is not stale: {body}");
            beaten.fetch_add(1, Ordering::Relaxed);
        }
    }
    written
}

/// What is kept of a service: the texts by revision, each whole, none twice.
fn kept(caller: &mut Caller, name: &str) -> BTreeMap<u64, String> {
    let mut kept = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/services/{name}/revisions?limit=500{cursor}");
        let (_, page) = caller.get(&path);
        for item in page["items"].as_array().unwrap() {
            if item["action"] == "service.create" {
                continue;
            }
            let (text, message) = (&item["draft"]["spec"]["description"], &item["message"]);
            assert_eq!(text, message, "{name}");
            let number = item["revision"].as_u64().unwrap();
            let before = kept.insert(number, message.as_str().unwrap().to_owned());
            assert_eq!(before, None, "{name}: a revision was given twice");
        }
        let Some(next) = page["next_cursor"].as_str() else {
            return kept;
        };
        cursor = format!("&cursor={next}");
    }
}

/// How many updates the feed tells, from its beginning and without a hole.
fn told(caller: &mut Caller) -> usize {
    let (mut told, mut after) = (0, 0);
    loop {
        let (_, page) = caller.get(&format!("/api/v1/events?limit=500&after={after}"));
        assert_eq!(page["reset"], false);
        let items = page["items"].as_array().unwrap();
        for item in items {
            after += 1;
            assert_eq!(item["number"], after, "a hole");
            told += usize::from(item["type"] == "service.update");
        }
        if items.is_empty() {
            return told;
        }
    }
}

fn every_acknowledged_write_is_there(vaxel: &mut TestVaxel, span: Duration) {
    let mut caller = Caller::of(vaxel);
    let all = POOLS.map(|pool| (0..pool).map(move |number| name(pool, number)));
    let all: Vec<String> = all.into_iter().flatten().collect();
    for name in &all {
        let made = caller.ask(
            "POST",
            "/api/v1/services",
            (None, Some(&draft(name, "first"))),
        );
        assert_eq!(made.0, 201, "{}", made.2);
    }
    let (beaten, end) = (AtomicU64::new(0), now() + span);
    let shared: &TestVaxel = vaxel;
    let written: Vec<Written> = thread::scope(|scope| {
        let write = |writer| {
            scope.spawn({
                let beaten = &beaten;
                move || write(shared, (writer, end), beaten)
            })
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        let joined = writers.into_iter().map(|writer| writer.join().unwrap());
        joined.flatten().collect()
    });
    let beaten = beaten.into_inner();
    let of = |pool: usize| {
        let mark = format!("p{pool}-");
        written
            .iter()
            .filter(|one| one.0.starts_with(&mark))
            .count()
    };
    let counts = POOLS.map(|pool| format!("{} on {pool} services", of(pool)));
    println!(
        "{span:?}: {} writes were acknowledged ({}), {beaten} came too late",
        written.len(),
        counts.join(", ")
    );
    assert!(POOLS.iter().all(|pool| of(*pool) > 0) && beaten > 0);

    vaxel.kill();
    vaxel.launch();
    let mut caller = Caller::of(vaxel);
    for name in &all {
        let mine = written.iter().filter(|(of, ..)| of == name);
        let mine: Vec<_> = mine
            .map(|(_, revision, text)| (*revision, text.clone()))
            .collect();
        // Each raised the version by one, and nothing else did.
        let (version, _) = caller.get(&format!("/api/v1/services/{name}"));
        assert_eq!(version, Some(1 + mine.len() as u64), "{name}");
        let kept = kept(&mut caller, name);
        assert_eq!(kept.len(), mine.len(), "{name}");
        assert_eq!(kept, mine.into_iter().collect(), "{name}");
    }
    assert_eq!(told(&mut caller), written.len(), "each is told once");
}

/// From here on this thread and what it starts stand back for the tests beside it.
fn stand_back() {
    rustix::process::nice(15).unwrap();
}

#[test]
fn two_hundred_writers_lose_nothing_in_files() {
    stand_back();
    every_acknowledged_write_is_there(&mut TestVaxel::start(), span(30));
}

#[test]
fn two_hundred_writers_lose_nothing_in_postgresql() {
    stand_back();
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = cluster.configured(folder.path());
    let mut vaxel = TestVaxel::start_with(&["--config", &config]);
    every_acknowledged_write_is_there(&mut vaxel, span(8));
}
