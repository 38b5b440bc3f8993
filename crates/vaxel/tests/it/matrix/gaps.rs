//! What does not work, each with the sentence that explains it on the page.

use std::collections::BTreeMap;

use super::{Cell, Outcome, THINGS, clients::Client, servers::Server};

/// Something that does not work between some clients and some servers.
pub(super) struct Gap {
    /// What the titles of its clients contain; empty for every client.
    clients: &'static [&'static str],
    /// The names of its servers.
    servers: &'static [&'static str],
    thing: &'static str,
    /// It is a matter of luck: then the page says that it does not work, and either is expected.
    by_luck: bool,
    /// Why, in one sentence.
    pub(super) sentence: &'static str,
}

pub(super) const GAPS: &[Gap] = &[
    Gap {
        clients: &[],
        servers: &["streamable", "sse"],
        thing: "list",
        by_luck: false,
        sentence: "`server-everything` keeps what a call adds to a list in the session of that call. \
                   Vaxel hears of it and reads the lists anew, but in a session of its own, the same \
                   for everyone, where nothing has changed: there is nothing to tell.",
    },
    Gap {
        clients: &[],
        servers: &["streamable", "sse"],
        thing: "update",
        by_luck: false,
        sentence: "`server-everything` tells of a changed resource only the session that both called \
                   its switch and watches the resource; Vaxel watches resources once for everyone, in a \
                   session of its own, in which nobody calls.",
    },
    Gap {
        clients: &["modern", "auto", "server/discover"],
        servers: &["streamable"],
        thing: "log",
        by_luck: true,
        sentence: "`server-everything` logs on the stream of its session, beside the answer of the call. \
                   In MCP 2026-07-28 log lines belong to the answer, so what comes later can be told only \
                   to older clients.",
    },
];

impl Gap {
    fn covers(&self, client: &Client, server: &Server, thing: &str) -> bool {
        let is_client = |part: &&str| client.title.contains(*part);
        self.thing == thing
            && self.servers.contains(&server.name)
            && (self.clients.is_empty() || self.clients.iter().any(is_client))
    }
}

/// The number of the gap, from 0, that explains why something does not work.
pub(super) fn of(client: &Client, server: &Server, thing: &str) -> Option<usize> {
    GAPS.iter()
        .position(|gap| gap.covers(client, server, thing))
}

/// Where what was seen is not what the gaps say, in either direction.
pub(super) fn surprises(
    clients: &[Client],
    servers: &[Server],
    cells: &BTreeMap<(usize, usize), Cell>,
) -> Vec<String> {
    let mut surprises = Vec::new();
    for ((client, server), cell) in cells {
        let (client, server) = (&clients[*client], &servers[*server]);
        let place = format!("{} before {}", client.title, server.title);
        for (thing, _) in THINGS {
            let gap = of(client, server, thing);
            match cell.get(thing) {
                Some(Outcome::Fails(why)) if gap.is_none() => {
                    surprises.push(format!("{place}, {thing}: {why}"));
                }
                Some(Outcome::Works) if gap.is_some_and(|gap| !GAPS[gap].by_luck) => {
                    surprises.push(format!("{place}, {thing}: it works"));
                }
                _ => {}
            }
        }
    }
    surprises
}
