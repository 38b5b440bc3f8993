//! Addresses of resources in what is shown to a client of all services: one that an older service has,
//! too, is known to the client under a prefix, and called so wherever it appears.

use std::{borrow::Cow, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;
use vaxel_mcp::{
    envelope::span, federation, meta, method::Method, response::Response as Answered,
    splice::Splice,
};

use crate::{
    route::Route,
    snapshot::{Shard, Snapshot},
};

#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow, default)]
    contents: Vec<Place<'a>>,
    #[serde(borrow, default)]
    content: Vec<Block<'a>>,
    #[serde(borrow, default)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Block<'a>,
}

/// Content of a message or of a tool's result: a link, or a resource itself.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resource: Option<Place<'a>>,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
}

/// An answer with the addresses that its client knows, by what its call was decided on; `None` when it
/// can stay as it is.
pub(crate) fn outward(
    snapshot: Option<&Snapshot>,
    (route, method): (&Route, Method),
    answered: &Answered,
) -> Option<Answered> {
    let was_prefixed = method == Method::ResourcesRead && route.own_json.is_some();
    if !was_prefixed && snapshot.is_none() {
        return None;
    }
    let shown: Shown<'_> = serde_json::from_str(answered.payload().ok()?.get()).ok()?;
    let blocks = shown.messages.iter().map(|message| &message.content);
    let blocks = blocks.chain(&shown.content);
    let in_blocks = blocks.flat_map(|block| {
        let resource = block.resource.as_ref().and_then(|resource| resource.uri);
        [block.uri, resource]
    });
    let read = shown.contents.iter().map(|place| place.uri);
    let body = answered.body();
    let mut changes: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    for uri in in_blocks.flatten().chain(read.flatten()) {
        let own: Cow<'_, str> = serde_json::from_str(uri.get()).ok()?;
        let is_taken = |snapshot| is_taken(snapshot, &route.shard, &own);
        if was_prefixed || snapshot.is_some_and(is_taken) {
            let address = federation::prefixed_uri(route.shard.name.as_str(), &own);
            changes.push((span(body, uri)?, quoted(&address)));
        }
    }
    if changes.is_empty() {
        return None;
    }
    let mut splice = Splice::new(body);
    for (range, address) in &changes {
        splice.replace(range.clone(), address);
    }
    Answered::read(splice.apply()).ok()
}

/// A tool's definition with the address under which its app (`_meta.ui.resourceUri`) can be read here.
pub(crate) fn of_app<'a>(
    snapshot: &Snapshot,
    shard: &Shard,
    definition: Cow<'a, [u8]>,
) -> Cow<'a, [u8]> {
    with_app(snapshot, shard, &definition).map_or(definition, Cow::Owned)
}

fn with_app(snapshot: &Snapshot, shard: &Shard, definition: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Tool<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: Meta<'a>,
    }
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow)]
        ui: App<'a>,
    }
    #[derive(Deserialize)]
    struct App<'a> {
        #[serde(borrow, rename = "resourceUri")]
        uri: &'a RawValue,
    }
    let tool: Tool<'_> = serde_json::from_slice(definition).ok()?;
    let uri = tool.meta.ui.uri;
    let own: Cow<'_, str> = serde_json::from_str(uri.get()).ok()?;
    if !is_taken(snapshot, shard, &own) {
        return None;
    }
    let address = quoted(&federation::prefixed_uri(shard.name.as_str(), &own));
    let mut splice = Splice::new(definition);
    splice.replace(span(definition, uri)?, &address);
    Some(splice.apply().to_vec())
}

fn is_taken(snapshot: &Snapshot, shard: &Shard, uri: &str) -> bool {
    snapshot
        .owner_of(uri)
        .is_some_and(|owner| owner.id != shard.id)
}

fn quoted(text: &str) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    meta::quote(&mut quoted, text);
    quoted
}
