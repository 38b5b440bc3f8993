//! The tables of `docs/compatibility.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{
    Cell, Outcome, THINGS,
    clients::Client,
    gaps::{self, GAPS},
    servers::Server,
};

const BEGIN: &str = "<!-- written by crates/vaxel/tests/it/matrix.rs: begin -->\n";
const END: &str = "<!-- written by crates/vaxel/tests/it/matrix.rs: end -->\n";

/// The page with another table between its two marks.
pub(super) fn with_table(page: &str, table: &str) -> String {
    let (before, rest) = page.split_once(BEGIN).expect("the page has a first mark");
    let (_, after) = rest.split_once(END).expect("the page has a second mark");
    format!("{before}{BEGIN}{table}{END}{after}")
}

/// Everything between the marks.
pub(super) fn render(
    clients: &[Client],
    servers: &[Server],
    cells: &BTreeMap<(usize, usize), Cell>,
) -> String {
    let mut text = String::new();
    let heads: Vec<_> = servers.iter().map(|server| server.title).collect();
    row(&mut text, "client ↓ · server →", heads.iter().copied());
    row(&mut text, "---", heads.iter().map(|_| "---"));
    for (at, client) in clients.iter().enumerate() {
        let seen = (0..servers.len()).map(|server| {
            let cell = &cells[&(at, server)];
            in_short(client, &servers[server], cell)
        });
        row(&mut text, client.title, seen);
    }
    text.push_str("\nThe columns:\n\n");
    for server in servers {
        line(
            &mut text,
            &format!("- **{}**: {}.", server.title, server.about),
        );
    }
    if !GAPS.is_empty() {
        text.push_str("\nThe notes:\n\n");
    }
    for (number, gap) in GAPS.iter().enumerate() {
        line(&mut text, &format!("{}. {}", number + 1, gap.sentence));
    }
    text.push_str("\nWhat a server offers:\n\n");
    row(&mut text, "a client", heads.iter().copied());
    row(&mut text, "---", heads.iter().map(|_| "---"));
    for (thing, words) in THINGS {
        let offers = servers.iter().map(|server| match server.things.get(thing) {
            Some(_) => "yes",
            None => "–",
        });
        row(&mut text, words, offers);
    }
    text.push_str("\nWhat a client has no way to do, with any server:\n\n");
    for (who, what) in cannot(clients, cells) {
        line(&mut text, &format!("- {who}: {what}."));
    }
    text
}

/// How much of what the two have in common works; where it does not, there is a gap that says so.
fn in_short(client: &Client, server: &Server, cell: &Cell) -> String {
    let possible: Vec<_> = THINGS
        .iter()
        .filter(|(thing, _)| !matches!(cell.get(*thing), None | Some(Outcome::Cannot(_))))
        .collect();
    let gaps = possible
        .iter()
        .filter_map(|(thing, _)| gaps::of(client, server, thing));
    let notes: BTreeSet<_> = gaps.map(|gap| gap + 1).collect();
    let shown: Vec<_> = notes.iter().map(ToString::to_string).collect();
    let all = possible.len();
    match notes.len() {
        0 => format!("all {all}"),
        some => format!("{} of {all} ({})", all - some, shown.join(", ")),
    }
}

/// Who cannot do what, those together who cannot do the same.
fn cannot(clients: &[Client], cells: &BTreeMap<(usize, usize), Cell>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (at, client) in clients.iter().enumerate() {
        let mut reasons: Vec<&str> = Vec::new();
        for (thing, _) in THINGS {
            let mut of_client = cells.iter().filter(|((client, _), _)| *client == at);
            let why = of_client.find_map(|(_, cell)| match cell.get(thing) {
                Some(Outcome::Cannot(why)) => Some(why.as_str()),
                _ => None,
            });
            reasons.extend(why.filter(|why| !reasons.contains(why)));
        }
        let what = reasons.join("; ");
        match found.iter_mut().find(|(_, same)| *same == what) {
            Some((who, _)) if !what.is_empty() => {
                who.push_str(", ");
                who.push_str(client.title);
            }
            _ if what.is_empty() => {}
            _ => found.push((client.title.to_owned(), what)),
        }
    }
    found
}

fn row<T: AsRef<str>>(text: &mut String, head: &str, cells: impl Iterator<Item = T>) {
    text.push_str("| ");
    text.push_str(head);
    for cell in cells {
        text.push_str(" | ");
        text.push_str(cell.as_ref());
    }
    text.push_str(" |\n");
}

fn line(text: &mut String, words: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{words}");
}
