//! The tasks that a modern client's stream tells of (SEP-2663, "Task Status Notifications").
//!
//! A task is watched until it has ended or the stream has. There is no word for "it may have changed":
//! where word of one may have been missed (its instance went away, its server stopped to tell of it or was
//! not heard for a while, the stream lagged behind, its set shows it no longer) the stream ends with its result. Its
//! client listens anew, sees in what is acknowledged which tasks it still hears of, and asks for the
//! others as it would have done without a stream.

use std::{collections::HashSet, ops::ControlFlow};

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::value::RawValue;
use vaxel_mcp::{envelope::span, meta, method::Method, splice::Splice};

use crate::{
    authorize,
    interest::{News, Update, Watched},
    pipeline::Context,
    route::ScopeId,
    snapshot::Snapshot,
    tasks::{self, Claims},
};

/// Something was missed that cannot be told any more.
pub(super) struct Missed;

/// The tasks that one stream tells of.
#[derive(Default)]
pub(super) struct WatchedTasks(Vec<(Claims, Watched)>);

impl WatchedTasks {
    /// Watches those of `ids` of which this caller may hear here, and an instance can tell.
    pub(super) fn of(context: &Context, ids: &[String]) -> Self {
        let mut seen = HashSet::new();
        let once = ids.iter().filter(|id| seen.insert(id.as_str()));
        Self(once.filter_map(|id| watch(context, id)).collect())
    }

    /// Waits until the servers have said of which of them they tell, and forgets the others.
    pub(super) async fn settle(&mut self) {
        let granted = join_all(self.0.iter().map(|(_, one)| one.granted())).await;
        let mut granted = granted.into_iter();
        self.0.retain(|_| granted.next() == Some(true));
    }

    /// What their client calls them.
    pub(super) fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|(_, one)| one.known_as()).collect()
    }

    /// What an update says, as the client of `subscription` reads it.
    pub(super) fn hear(
        &mut self,
        update: &Update,
        (snapshot, scope): (&Snapshot, &ScopeId),
        subscription: &[u8],
    ) -> ControlFlow<Missed, Vec<Bytes>> {
        let mut notes = Vec::new();
        for (claims, one) in self.0.iter().filter(|(_, one)| one.is(update)) {
            let is_seen = claims.shard(snapshot, scope).is_some();
            let note = match &update.news {
                News::Stands { params, .. } if is_seen => {
                    outward(params, one.known_as(), subscription)
                }
                _ => None,
            };
            match note {
                Some(note) => notes.push(note),
                None => return ControlFlow::Break(Missed),
            }
        }
        if matches!(update.news, News::Stands { is_over: true, .. }) {
            self.0.retain(|(_, one)| !one.is(update));
        }
        ControlFlow::Continue(notes)
    }

    /// Updates were missed, nobody knows which.
    pub(super) fn miss(&self) -> ControlFlow<Missed, Vec<Bytes>> {
        if self.0.is_empty() {
            return ControlFlow::Continue(Vec::new());
        }
        ControlFlow::Break(Missed)
    }
}

/// Only of an instance that is there: a task is no other's, and one that another server took over is asked
/// for.
fn watch(context: &Context, id: &str) -> Option<(Claims, Watched)> {
    let claims = tasks::open(context, id)?;
    let shard = claims.shard(&context.snapshot, &context.scope.id())?;
    // It tells what came of a call.
    authorize::check_begun(&context.principal, claims.route(shard)).ok()?;
    let mut links = shard.links.iter();
    let link = links.find(|link| link.id() == claims.instance)?;
    if !link.is_open() || !link.tells_of_tasks() {
        return None;
    }
    let interest = context.shared.interests.of(shard.id);
    let watched = interest.watch_task((claims.instance, &claims.own), id);
    Some((claims, watched))
}

/// A server's word about a task, with the ids of this client and otherwise as it came.
fn outward(params: &str, id: &str, subscription: &[u8]) -> Option<Bytes> {
    let members = meta::members(params)?;
    let only = |name: &str| -> Result<Option<&RawValue>, ()> {
        let mut found = members.iter().filter(|(key, _)| key == name);
        let first = found.next().map(|(_, value)| *value);
        // Of two it is not known which one is read.
        found.next().map_or(Ok(first), |_| Err(()))
    };
    let own = only("taskId").ok()??;
    let about = only("_meta").ok()?;
    let ours = [(meta::SUBSCRIPTION_ID, subscription)];
    let mut written = meta::rewrite(about, |_| false, &ours);
    let mut quoted = Vec::with_capacity(id.len() + 2);
    meta::quote(&mut quoted, id);
    let mut splice = Splice::new(params.as_bytes());
    splice.replace(span(params.as_bytes(), own)?, &quoted);
    let place = if let Some(about) = about {
        span(params.as_bytes(), about)?
    } else {
        written.splice(..0, *b"\"_meta\":");
        written.push(b',');
        1..1
    };
    splice.replace(place, &written);
    let mut note = br#"{"jsonrpc":"2.0""#.to_vec();
    let mut method = Vec::new();
    meta::quote(&mut method, Method::TaskStands.as_str());
    meta::member(&mut note, "method", &method);
    meta::member(&mut note, "params", &splice.apply());
    note.push(b'}');
    Some(note.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_about_a_task_keeps_its_bytes_but_for_the_ids() {
        let told = |params: &str| outward(params, "mine\"", b"7").map(|note| note.to_vec());
        let key = meta::SUBSCRIPTION_ID;
        let note = |params: String| {
            let text =
                format!(r#"{{"jsonrpc":"2.0","method":"notifications/tasks","params":{params}}}"#);
            Some(text.into_bytes())
        };
        assert_eq!(
            told(r#"{ "taskId" : "own","x":1.0, "result":{"taskId":"own"}}"#),
            note(format!(
                r#"{{"_meta":{{"{key}":7}}, "taskId" : "mine\"","x":1.0, "result":{{"taskId":"own"}}}}"#
            ))
        );
        let theirs = format!(r#"{{"task\u0049d":"own","_meta":{{"{key}":"s","b": 1.0}}}}"#);
        assert_eq!(
            told(&theirs),
            note(format!(
                r#"{{"task\u0049d":"mine\"","_meta":{{"b":1.0,"{key}":7}}}}"#
            ))
        );
        assert_eq!(
            told(r#"{"taskId":"own","_meta":null}"#),
            note(format!(r#"{{"taskId":"mine\"","_meta":{{"{key}":7}}}}"#))
        );
        for wrong in ["[]", "{}", r#"{"taskId":"a","taskId":"b"}"#] {
            assert_eq!(told(wrong), None, "{wrong}");
        }
    }
}
