//! Principal and route → the right to call, and what a caller gets to see. Only [`check`] makes an
//! [`Authorized`], and an upstream accepts nothing else, so that skipping it does not compile.
//!
//! For nearly everyone a permission decides, the same for all services: a comparison of bits. For the
//! others what their rights come to on a service is kept with the service ([`Reaches`]), until either
//! changes.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use serde_json::value::RawValue;
use vaxel_core::{
    access::{self, Asked, Local},
    failure::{Failure, Kind},
    principal::{Permission, Permissions, Principal},
    rights::{Limits, Rights},
    time::Timestamp,
};

use crate::{
    route::Route,
    snapshot::{Shard, Snapshot, sets::Set},
};

/// Callers whose reach is kept for one service. With more, it is worked out anew.
const REACHES: usize = 1_000;

/// A route that its caller may take.
pub(crate) struct Authorized<T>(T);

impl<T> Authorized<T> {
    pub(crate) const fn get(&self) -> &T {
        &self.0
    }
}

/// Why a route may not be taken.
pub(crate) enum Denied {
    /// Its caller may not even know that it is there.
    Hidden,
    /// Its caller lacks something.
    Refused(Failure),
}

/// Whether `principal` may take `route` with these arguments.
pub(crate) fn check(
    principal: &Principal,
    route: Route,
    (arguments, now): (Option<&str>, Timestamp),
) -> Result<Authorized<Route>, Denied> {
    let sight = Sight::of(principal);
    if sight.is_whole() {
        let permitted = access::require(principal, Permission::McpExecute);
        return permitted
            .map(|()| Authorized(route))
            .map_err(Denied::Refused);
    }
    let (shard, tool) = (&*route.shard, route.tool.as_deref());
    let reach = shard.reaches.of(&sight, principal, shard);
    let raw = arguments.map(serde_json::from_str::<&RawValue>);
    let asked = Asked {
        who: principal,
        permission: Permission::McpExecute,
        on: &shard.target(),
        tool,
        // What is no JSON is refused later on; until then nothing is known of it.
        arguments: raw.and_then(Result::ok),
        now,
    };
    let verdict = reach.local(shard, tool).decide(&asked);
    match verdict.refusal(principal, Permission::McpExecute) {
        None => Ok(Authorized(route)),
        Some(failure) if reach.shows(principal, shard, tool) || calls_nothing(principal) => {
            Err(Denied::Refused(failure))
        }
        Some(_) => Err(Denied::Hidden),
    }
}

/// Whether `principal` may still take a `route` that follows from a call which it was allowed: the task that
/// the call began. Its arguments were judged then.
pub(crate) fn check_begun(
    principal: &Principal,
    route: Route,
) -> Result<Authorized<Route>, Denied> {
    let sight = Sight::of(principal);
    if sight.is_whole() {
        let permitted = access::require(principal, Permission::McpExecute);
        return permitted
            .map(|()| Authorized(route))
            .map_err(Denied::Refused);
    }
    let (shard, tool) = (&*route.shard, route.tool.as_deref());
    let reach = shard.reaches.of(&sight, principal, shard);
    let local = reach.local(shard, tool);
    let may = local.is_possible(principal, Permission::McpExecute, tool);
    if may {
        Ok(Authorized(route))
    } else {
        Err(Denied::Hidden)
    }
}

/// Whether `principal` may see what there is, as far as it may be seen.
pub(crate) fn may_list(principal: &Principal) -> Result<(), Failure> {
    access::require_anywhere(principal, Permission::McpRead)
}

/// Whether `principal` may call anything.
pub(crate) fn may_call(principal: &Principal) -> Result<(), Failure> {
    access::require_anywhere(principal, Permission::McpExecute)
}

/// Whether `principal` may neither see nor call anything.
pub(crate) fn can_nothing(principal: &Principal) -> bool {
    let used = Permissions::of(&[Permission::McpRead, Permission::McpExecute]);
    let none = |held: Permissions| held.intersection(used).is_empty();
    none(principal.permissions) && none(access::anywhere(principal))
}

/// Whether `principal` may know of a service: it may read or call something there.
pub(crate) fn may_know(principal: &Principal, shard: &Shard) -> bool {
    let sight = Sight::of(principal);
    sight.is_whole() || {
        let reach = shard.reaches.of(&sight, principal, shard);
        let is_possible = |permission| reach.whole.is_possible(principal, permission, None);
        is_possible(Permission::McpRead)
            || is_possible(Permission::McpExecute)
            || (shard.offers.tools.iter())
                .any(|tool| reach.shows(principal, shard, Some(&tool.own)))
    }
}

/// Whether `principal` may know of a set: of any service in it.
pub(crate) fn may_know_set(principal: &Principal, set: &Set, snapshot: &Snapshot) -> bool {
    Sight::of(principal).is_whole() || set.shards(snapshot).any(|shard| may_know(principal, shard))
}

/// With whose eyes something is looked at: the same for all who see the same.
#[derive(Clone)]
pub(crate) struct Sight(Option<(Arc<Rights>, Option<Arc<Limits>>)>);

impl Sight {
    pub(crate) fn of(principal: &Principal) -> Self {
        let (rights, limits) = (&principal.rights, &principal.limits);
        let narrows =
            |limits: &Arc<Limits>| limits.services.is_some() || limits.environments.is_some();
        let used = Permissions::of(&[Permission::McpRead, Permission::McpExecute]);
        let is_whole = rights.policies().is_empty()
            && !limits.as_ref().is_some_and(narrows)
            && (principal.permissions.covers(used)
                || access::anywhere(principal) == principal.permissions);
        Self((!is_whole).then(|| (Arc::clone(rights), limits.clone())))
    }

    /// Whether permissions alone decide.
    pub(crate) const fn is_whole(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a tool of a service is shown, or without one the service itself and what else it has.
    pub(crate) fn shows(&self, principal: &Principal, shard: &Shard, tool: Option<&str>) -> bool {
        self.is_whole()
            || shard
                .reaches
                .of(self, principal, shard)
                .shows(principal, shard, tool)
    }
}

impl PartialEq for Sight {
    fn eq(&self, other: &Self) -> bool {
        let same = |one: &Option<Arc<Limits>>, other: &Option<Arc<Limits>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some((rights, limits)), Some((others, their_limits))) => {
                Arc::ptr_eq(rights, others) && same(limits, their_limits)
            }
            _ => false,
        }
    }
}
impl Eq for Sight {}
impl Hash for Sight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let parts = self
            .0
            .as_ref()
            .map(|(rights, limits)| (Arc::as_ptr(rights), limits.as_ref().map(Arc::as_ptr)));
        parts.hash(state);
    }
}

/// What the rights of callers come to on one service, as far as anybody asked.
#[derive(Default)]
pub(crate) struct Reaches(OnceLock<Box<Known>>);

type Known = Mutex<HashMap<Sight, Arc<Reach>>>;

impl Reaches {
    fn of(&self, sight: &Sight, principal: &Principal, shard: &Shard) -> Arc<Reach> {
        let mut known = self.0.get_or_init(Box::default).lock();
        if let Some(reach) = known.get(sight) {
            return Arc::clone(reach);
        }
        let whole = Local::of(principal, &shard.target());
        let tools = if whole.is_simple() {
            0
        } else {
            shard.offers.tools.len()
        };
        let tools = std::iter::repeat_with(OnceLock::new).take(tools).collect();
        let reach = Arc::new(Reach { whole, tools });
        if known.len() >= REACHES {
            known.clear();
        }
        known.insert(sight.clone(), Arc::clone(&reach));
        reach
    }
}

/// What the rights of one caller come to on one service.
struct Reach {
    whole: Local,
    /// The same for each of its tools, where that is less.
    tools: Box<[OnceLock<Local>]>,
}

impl Reach {
    fn local(&self, shard: &Shard, tool: Option<&str>) -> &Local {
        let Some(tool) = tool.filter(|_| !self.whole.is_simple()) else {
            return &self.whole;
        };
        let place = shard.offers.tool_index(tool);
        match place.and_then(|index| self.tools.get(index)) {
            Some(local) => local.get_or_init(|| self.whole.for_tool(tool)),
            None => &self.whole,
        }
    }

    /// What lists show: what can be read and called. Who can call nothing at all sees what there is.
    fn shows(&self, principal: &Principal, shard: &Shard, tool: Option<&str>) -> bool {
        let local = self.local(shard, tool);
        let is_possible = |permission| local.is_possible(principal, permission, tool);
        let calls = || is_possible(Permission::McpExecute);
        is_possible(Permission::McpRead) && (calls() || calls_nothing(principal))
    }
}

/// Whether a caller can call nothing anywhere.
fn calls_nothing(principal: &Principal) -> bool {
    !access::anywhere(principal).contains(Permission::McpExecute)
}

/// The refusal of something that its caller may not know of.
pub(crate) fn unknown(denied: Denied, unknown: impl FnOnce() -> Failure) -> Failure {
    match denied {
        Denied::Hidden => unknown().hiding(),
        Denied::Refused(failure) => failure,
    }
}

/// There is no such service, for whoever may not know of it.
pub(crate) fn no_service(name: &str) -> Failure {
    let name: String = name.chars().take(64).collect();
    Failure::new(
        Kind::UnknownService,
        format!("There is no service `{name}`"),
    )
}
