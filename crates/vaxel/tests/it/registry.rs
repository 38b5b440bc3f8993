//! The registry under hard treatment: killed in the middle of changes, and changed under load.

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::harness::{Door, TestVaxel, echo_server, wait_for};

/// What a service is known to be: absent, or with this description.
type State = Option<u64>;

/// One change of a service, and what it makes of it.
#[derive(Clone, Copy)]
enum Change {
    Create(u64),
    Update(u64),
    Delete,
}

impl Change {
    /// The next one that fits the state; `number` makes it unlike all others.
    const fn after(state: State, number: u64) -> Self {
        match state {
            None => Self::Create(number),
            Some(_) if number.is_multiple_of(3) => Self::Delete,
            Some(_) => Self::Update(number),
        }
    }

    const fn makes(self) -> State {
        match self {
            Self::Create(number) | Self::Update(number) => Some(number),
            Self::Delete => None,
        }
    }

    fn make(self, door: &Door, name: &str) -> io::Result<()> {
        let path = format!("/api/v1/services/{name}");
        let draft = |number: u64| {
            json!({ "name": name, "spec": {
                "description": number.to_string(), "source": { "builtin": "demo" }
            } })
        };
        let (status, body) = match self {
            Self::Create(number) => door.ask("POST", "/api/v1/services", Some(&draft(number)))?,
            Self::Update(number) => door.ask("PUT", &path, Some(&draft(number)))?,
            Self::Delete => door.ask("DELETE", &path, None)?,
        };
        // Anything but success would be a state that nobody made.
        assert!(matches!(status, 200 | 201), "{status}: {body}");
        Ok(())
    }
}

/// What writers know of each service: the last acknowledged state, and what the change that was never
/// answered would make of it.
type Known = BTreeMap<String, (State, Option<State>)>;

/// Changes services of its own until no answer comes.
fn write_until_the_end(door: &Door, mut known: Known, first: u64) -> Known {
    for number in first.. {
        for (name, (state, pending)) in &mut known {
            let change = Change::after(*state, number);
            *pending = Some(change.makes());
            if change.make(door, name).is_err() {
                return known;
            }
            (*state, *pending) = (change.makes(), None);
        }
    }
    known
}

/// The state that is stored, and that everything about it is whole.
fn stored(door: &Door, name: &str) -> State {
    let (status, service) = door
        .ask("GET", &format!("/api/v1/services/{name}"), None)
        .unwrap();
    if status == 404 {
        return None;
    }
    assert_eq!(status, 200, "{service}");
    let wait = format!("/api/v1/services/{name}/health?wait=30s");
    let (_, health) = door.ask("GET", &wait, None).unwrap();
    assert_eq!(health["lifecycle"], "active", "{name}: {health}");
    let number = service["spec"]["description"].as_str().unwrap();
    Some(number.parse().unwrap())
}

#[test]
fn fifty_kills_in_the_middle_of_changes_lose_nothing_and_halve_nothing() {
    const WRITERS: usize = 4;
    const SERVICES: usize = 3;
    let mut vaxel = TestVaxel::start();
    let mut all: Vec<Known> = (0..WRITERS)
        .map(|writer| {
            let name = |number| format!("w{writer}-s{number}");
            (0..SERVICES)
                .map(|number| (name(number), (None, None)))
                .collect()
        })
        .collect();
    let mut changes = 1;
    for kill in 0..50_u64 {
        let door = Door::of(&vaxel);
        all = thread::scope(|scope| {
            let write = |known| {
                let door = &door;
                scope.spawn(move || write_until_the_end(door, known, changes))
            };
            let writers: Vec<_> = all.drain(..).map(write).collect();
            // Not a wait for anything: the moment of the kill is to be any.
            thread::sleep(Duration::from_millis(kill * 7 % 60));
            vaxel.kill();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        changes += 1_000;
        vaxel.launch();
        let door = Door::of(&vaxel);
        for (name, (state, pending)) in all.iter_mut().flatten() {
            let found = stored(&door, name);
            assert!(
                found == *state || Some(found) == *pending,
                "{name} is {found:?} after kill {kill}: {state:?} was acknowledged, {pending:?} was asked"
            );
            (*state, *pending) = (found, None);
        }
    }
    vaxel.ok(&["doctor"]);
}

#[test]
fn an_http_service_moves_to_another_address_under_load_without_a_lost_call() {
    const CALLERS: usize = 6;
    let vaxel = TestVaxel::start();
    let behind: Vec<TestVaxel> = (0..2).map(|_| server_over_http()).collect();
    let draft = |number: usize| {
        let server = &behind[number];
        json!({ "name": "far", "spec": { "source": { "mcp": {
            "url": format!("{}/mcp/echo", server.url()),
            "headers": { "Authorization": format!("Bearer {}", server.key()) },
        } } } })
    };
    let newest_call_at = |number: usize| {
        let (_, calls) = Door::of(&behind[number])
            .ask("GET", "/api/v1/calls?limit=1", None)
            .unwrap();
        calls["items"][0]["id"].clone()
    };
    let door = Door::of(&vaxel);
    let (status, body) = door
        .ask("POST", "/api/v1/services", Some(&draft(0)))
        .unwrap();
    assert_eq!(status, 201, "{body}");
    let (_, health) = door
        .ask("GET", "/api/v1/services/far/health?wait=30s", None)
        .unwrap();
    assert_eq!(health["ready"], true, "{health}");
    let done = AtomicBool::new(false);
    let call_on = || {
        while !done.load(Ordering::Relaxed) {
            let call = json!({ "arguments": { "text": "hi" } });
            let path = "/api/v1/tools/far__echo/call";
            let (status, body) = door.ask("POST", path, Some(&call)).unwrap();
            assert_eq!(status, 200, "a call was lost: {body}");
        }
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call_on)).collect();
        for turn in 1..=6 {
            let address = turn % 2;
            let before = newest_call_at(address);
            let (status, body) = door
                .ask("PUT", "/api/v1/services/far", Some(&draft(address)))
                .unwrap();
            assert_eq!(status, 200, "{body}");
            wait_for("calls at the new address", || {
                newest_call_at(address) != before
                    || callers.iter().any(thread::ScopedJoinHandle::is_finished)
            });
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// An MCP server over HTTP: another Vaxel with a program behind it.
fn server_over_http() -> TestVaxel {
    let vaxel = TestVaxel::start();
    let script = echo_server(vaxel.home.path()).display().to_string();
    vaxel.add("echo", &["python3", &script]);
    vaxel
}
