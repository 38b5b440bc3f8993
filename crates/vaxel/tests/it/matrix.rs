//! Every client does every thing with every server, through one Vaxel; what works is the table of
//! `docs/compatibility.md`.

use std::{collections::BTreeMap, fs};

use parking_lot::Mutex;

use crate::harness::{TestVaxel, repository, tools, wait_for};

use self::{clients::Client, servers::Server};

mod clients;
mod gaps;
mod page;
mod rust_sdk;
mod servers;

/// What the clients do, in the order of the page: a word for the wire, one for people.
const THINGS: [(&str, &str); 12] = [
    ("tool", "lists and calls tools"),
    ("resource", "lists and reads resources"),
    ("prompt", "gets a prompt"),
    ("completion", "completes an argument"),
    ("error", "sees that a tool failed"),
    ("form", "fills in a form (elicitation)"),
    ("sampling", "answers for the model (sampling)"),
    ("progress", "watches progress"),
    ("log", "receives a log message"),
    ("list", "sees that a list changed"),
    ("update", "sees that a resource changed"),
    ("cancel", "cancels a running call"),
];

/// So many clients work at the same time.
const AT_ONCE: usize = 3;

/// What came of one client before one server, by thing.
type Cell = BTreeMap<String, Outcome>;

/// What came of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Works,
    /// The client has no way to do it: why.
    Cannot(String),
    /// What the client saw instead.
    Fails(String),
}

#[test]
fn the_page_of_compatibility_says_what_every_client_can_do_with_every_server() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let (servers, _running) = servers::start(&vaxel, &tools);
    let clients = clients::all();
    let cells = run(&vaxel, &clients, &servers);
    let surprises = gaps::surprises(&clients, &servers, &cells);
    assert!(
        surprises.is_empty(),
        "what works is not what `matrix/gaps.rs` says:\n{}",
        surprises.join("\n")
    );
    cancelled_calls_are_recorded(&vaxel, &servers, &cells);
    compare(&page::render(&clients, &servers, &cells));
}

/// A client's own word that a call was cancelled is not enough: Vaxel has to know it, too.
fn cancelled_calls_are_recorded(
    vaxel: &TestVaxel,
    servers: &[Server],
    cells: &BTreeMap<(usize, usize), Cell>,
) {
    for (number, server) in servers.iter().enumerate() {
        let here = cells.iter().filter(|((_, at), _)| *at == number);
        let cancelled = here.filter(|(_, cell)| cell.get("cancel") == Some(&Outcome::Works));
        let wanted = cancelled.count();
        if server.name.is_empty() {
            continue;
        }
        let show = ["calls", "--service", server.name, "--outcome", "cancelled"];
        wait_for("the records of cancelled calls", || {
            vaxel.json(&show).as_array().unwrap().len() >= wanted
        });
    }
}

/// The page has to hold the table, or gets it.
fn compare(table: &str) {
    let file = repository("docs/compatibility.md");
    let page = fs::read_to_string(&file).unwrap();
    let current = page::with_table(&page, table);
    if page == current {
        return;
    }
    if std::env::var_os("VAXEL_TEST_WRITE").is_some() {
        fs::write(&file, current).unwrap();
        return;
    }
    panic!(
        "docs/compatibility.md differs from what was seen; write it with\n  \
         VAXEL_TEST_WRITE=1 cargo nextest run -p vaxel -E 'test(matrix)'\n{table}"
    );
}

/// Lets every client meet every server, several clients at once, and never two at one server.
fn run(
    vaxel: &TestVaxel,
    clients: &[Client],
    servers: &[Server],
) -> BTreeMap<(usize, usize), Cell> {
    let waiting = Mutex::new((0..clients.len()).rev().collect::<Vec<_>>());
    let seats: Vec<_> = servers.iter().map(|_| Mutex::new(())).collect();
    let cells = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            // The queue is free again before the client starts.
            let next = waiting.lock().pop();
            let Some(number) = next else { return };
            let client = &clients[number];
            let mut running = client.start(vaxel);
            for step in 0..servers.len() {
                let at = (number + step) % servers.len();
                let server = &servers[at];
                // Everyone takes seats in the same order, and whoever waits for a second one is alone.
                let _seats: Vec<_> = server
                    .seats
                    .iter()
                    .map(|seat| seats[*seat].lock())
                    .collect();
                let request = client.request(vaxel, server);
                let report = running.meet(&request);
                let cell = client.judge(server, report);
                cells.lock().insert((number, at), cell);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    cells.into_inner()
}
