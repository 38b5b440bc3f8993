//! How much callers, services and tools take: what is counted where, and what is refused.
//!
//! What a caller may take is in its rights, with what it has taken, so that a caller without a limit costs a
//! branch and one with a limit an atomic number. What a service or a tool takes is in its [`Bounds`], which
//! only services with such limits have.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use vaxel_core::{
    failure::Failure,
    principal::Principal,
    quota::{self, Level, Limit, Place, Places},
    rate::{Bucket, Rate},
    rights::Rights,
    service::{Limits, ToolLimits},
    time::{Clock, Stopwatch},
};
use vaxel_mcp::{envelope::Envelope, revision::Era};

use crate::{
    gateway::Shared,
    respond::{self, Response},
    snapshot::{Offer, Shard},
};

/// Callers whose calls of one thing are counted each for itself. What more there are at the same time are
/// counted together.
const CALLERS: usize = 10_000;
/// Tools of one service that are remembered although it does not offer them now.
const TOOLS: usize = 10_000;
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// Time for everything that is counted. It never goes back.
pub(crate) struct Meters(Stopwatch);

impl Meters {
    pub(crate) fn new(clock: Clock) -> Self {
        Self(Stopwatch::new(clock))
    }
}

/// What calls of one service and of its tools are bounded by, with what was taken.
pub(crate) struct Bounds {
    rate: Option<Rate>,
    caller_rate: Option<Rate>,
    taken: Arc<Taken>,
    tools: HashMap<Arc<str>, (ToolLimits, Arc<Taken>)>,
}

/// What was taken of a service, or of a tool.
#[derive(Default)]
struct Taken {
    all: Bucket,
    callers: Callers,
    places: Places,
}

impl Bounds {
    /// Those of a service with these limits and tools; nothing when calls have no such limits. What was taken
    /// of the `old` ones stays taken.
    pub(crate) fn of(limits: &Limits, tools: &[Offer], old: Option<&Self>) -> Option<Arc<Self>> {
        let (rate, caller_rate) = (limits.rate, limits.caller_rate);
        if rate.is_none() && caller_rate.is_none() && limits.tools.is_empty() {
            return None;
        }
        let known = |tool: &str| old.and_then(|old| Some(Arc::clone(&old.tools.get(tool)?.1)));
        let bounded = |tool: &Arc<str>| {
            let limits = limits.of_tool(tool);
            let is_bounded = limits != ToolLimits::default();
            is_bounded.then(|| (Arc::clone(tool), (limits, known(tool).unwrap_or_default())))
        };
        let offered = tools.iter().filter_map(|tool| bounded(&tool.own));
        // A server that is away for a moment offers nothing; its tools come back.
        let away = old.filter(|old| old.tools.len() <= TOOLS);
        let away = away.into_iter().flat_map(|old| old.tools.keys());
        let tools = away.filter_map(bounded).chain(offered).collect();
        let taken = old.map(|old| Arc::clone(&old.taken)).unwrap_or_default();
        Some(Arc::new(Self {
            rate,
            caller_rate,
            taken,
            tools,
        }))
    }

    fn tool(&self, tool: &str) -> Option<(&ToolLimits, &Taken)> {
        let (limits, taken) = self.tools.get(tool)?;
        Some((limits, &**taken))
    }
}

/// What each caller took of one thing, by name. Found without a lock; only a caller's first call adds to it.
#[derive(Default)]
struct Callers {
    known: ArcSwap<imbl::HashMap<Arc<str>, Arc<Bucket>>>,
    others: Arc<Bucket>,
}

impl Callers {
    fn find(&self, caller: &str) -> Option<Arc<Bucket>> {
        self.known.load().get(caller).cloned()
    }

    fn of(&self, caller: &Arc<str>, meters: &Meters) -> Arc<Bucket> {
        if let Some(bucket) = self.find(caller) {
            return bucket;
        }
        self.known.rcu(|known| {
            let mut next = imbl::HashMap::clone(known);
            if next.len() >= CALLERS {
                // A full bucket is as good as a new one.
                let now = meters.0.elapsed();
                next.retain(|_, bucket| !bucket.is_full(now));
            }
            if next.len() < CALLERS {
                next.entry(Arc::clone(caller)).or_default();
            }
            next
        });
        let found = self.find(caller);
        found.unwrap_or_else(|| Arc::clone(&self.others))
    }
}

/// The calls in flight of a caller and of a tool, one of each where they are bounded.
#[derive(Default)]
pub(crate) struct Held {
    _caller: Option<Place>,
    _tool: Option<Place>,
}

impl Shared {
    /// Counts a request of a caller.
    pub(crate) fn count_request(&self, caller: &Principal) -> Result<(), Failure> {
        let Some(rate) = caller.rights.quota().requests else {
            return Ok(());
        };
        let bucket = &caller.rights.used().requests;
        self.take(caller, (Limit::Requests, bucket, rate))
    }

    /// Counts a service that a caller creates.
    pub(crate) fn count_creation(&self, caller: &Principal) -> Result<(), Failure> {
        let Some(rate) = caller.rights.quota().creations else {
            return Ok(());
        };
        let bucket = &caller.rights.used().creations;
        self.take(caller, (Limit::Creations, bucket, rate))
    }

    /// Nothing came of a service that was counted.
    pub(crate) fn uncount_creation(caller: &Principal) {
        if let Some(rate) = caller.rights.quota().creations {
            caller.rights.used().creations.give_back(rate);
        }
    }

    fn take(
        &self,
        caller: &Principal,
        (limit, bucket, rate): (Limit, &Bucket, Rate),
    ) -> Result<(), Failure> {
        match bucket.take(rate, self.meters.0.elapsed()) {
            Ok(_) => Ok(()),
            Err(wait) => {
                let level = Level::empty(limit, rate, wait);
                Err(self.over(level, &format!("`{}`", caller.name)))
            }
        }
    }

    /// Takes a place among the calls in flight of a caller, and among those of a tool.
    pub(crate) fn hold(
        &self,
        caller: &Principal,
        (shard, tool): (&Shard, Option<&str>),
    ) -> Result<Held, Failure> {
        let most = caller.rights.quota().concurrent;
        if most.is_none() && shard.bounds.is_none() {
            return Ok(Held::default());
        }
        let take = |limit, (places, most): (&Places, Option<u32>), who: &dyn Fn() -> String| {
            let Some(most) = most else {
                return Ok(None);
            };
            match places.take(most) {
                Some(place) => Ok(Some(place)),
                None => Err(self.over(places.level(limit, most), &who())),
            }
        };
        let own = (&caller.rights.used().in_flight, most);
        let caller = take(Limit::Concurrent, own, &|| format!("`{}`", caller.name))?;
        let bounds = shard.bounds.as_deref();
        let tool = match (bounds, tool) {
            (Some(bounds), Some(tool)) => bounds.tool(tool).map(|found| (tool, found)),
            _ => None,
        };
        let tool = match tool {
            Some((tool, (limits, taken))) => {
                let places = (&taken.places, limits.concurrent);
                let who = || format!("`{tool}` of `{}`", shard.name);
                take(Limit::ToolConcurrent, places, &who)?
            }
            None => None,
        };
        Ok(Held {
            _caller: caller,
            _tool: tool,
        })
    }

    /// Counts a call of a tool, with its caller, its service and the tool. A call that is refused by one of
    /// them counts with none.
    pub(crate) fn count_call(
        &self,
        caller: &Principal,
        (shard, tool): (&Shard, &str),
    ) -> Result<(), Failure> {
        let calls = caller.rights.quota().calls;
        let bounds = shard.bounds.as_deref();
        if calls.is_none() && bounds.is_none() {
            return Ok(());
        }
        let of_tool = bounds.and_then(|bounds| bounds.tool(tool));
        let mine = |taken: &Taken, rate: Option<Rate>| {
            rate.map(|rate| (taken.callers.of(&caller.name, &self.meters), rate))
        };
        let in_service = bounds.and_then(|bounds| mine(&bounds.taken, bounds.caller_rate));
        let in_tool = of_tool.and_then(|(limits, taken)| mine(taken, limits.caller_rate));
        let steps = [
            // Its own first: who is over one of these takes nothing of what all share.
            calls.map(|rate| (Limit::Calls, &caller.rights.used().calls, rate)),
            in_service
                .as_ref()
                .map(|(bucket, rate)| (Limit::ServiceCaller, &**bucket, *rate)),
            in_tool
                .as_ref()
                .map(|(bucket, rate)| (Limit::ToolCaller, &**bucket, *rate)),
            bounds.and_then(|one| Some((Limit::Service, &one.taken.all, one.rate?))),
            of_tool.and_then(|(limits, taken)| Some((Limit::Tool, &taken.all, limits.rate?))),
        ];
        let now = self.meters.0.elapsed();
        for (index, (limit, bucket, rate)) in steps.iter().flatten().enumerate() {
            let Err(wait) = bucket.take(*rate, now) else {
                continue;
            };
            for (_, bucket, rate) in steps.iter().flatten().take(index) {
                bucket.give_back(*rate);
            }
            let who = match limit {
                Limit::Service | Limit::ServiceCaller => format!("`{}`", shard.name),
                Limit::Tool | Limit::ToolCaller => format!("`{tool}` of `{}`", shard.name),
                _ => format!("`{}`", caller.name),
            };
            return Err(self.over(Level::empty(*limit, *rate, wait), &who));
        }
        Ok(())
    }

    /// Every limit that holds for a caller, with what is left of it: its own, and those of a service and of
    /// a tool.
    pub(crate) fn levels(
        &self,
        caller: &Principal,
        (shard, tool): (Option<&Shard>, Option<&str>),
    ) -> Vec<Level> {
        let now = self.meters.0.elapsed();
        let mut levels = caller.rights.used().left(caller.rights.quota(), now);
        let Some(bounds) = shard.and_then(|shard| shard.bounds.as_deref()) else {
            return levels;
        };
        let mut add = |limits: [Limit; 2], (rate, caller_rate), taken: &Taken| {
            let whole = |rate| Level::of(limits[0], (&taken.all, rate), now);
            let mine = taken.callers.find(&caller.name).unwrap_or_default();
            let own = |rate| Level::of(limits[1], (&mine, rate), now);
            levels.extend(Option::map(rate, whole));
            levels.extend(Option::map(caller_rate, own));
        };
        let limits = [Limit::Service, Limit::ServiceCaller];
        add(limits, (bounds.rate, bounds.caller_rate), &bounds.taken);
        if let Some((own, taken)) = tool.and_then(|tool| bounds.tool(tool)) {
            let limits = [Limit::Tool, Limit::ToolCaller];
            add(limits, (own.rate, own.caller_rate), taken);
            let places = |most| taken.places.level(Limit::ToolConcurrent, most);
            levels.extend(own.concurrent.map(places));
        }
        levels
    }

    fn over(&self, level: Level, who: &str) -> Failure {
        self.metrics.over(level.limit);
        level.refusal(who)
    }

    /// Tells a caller what is left, unless the answer says already which limit was reached.
    pub(crate) fn tell<B>(&self, response: &mut http::Response<B>, rights: &Rights) {
        if !response.headers().contains_key(LEFT) {
            let now = self.meters.0.elapsed();
            let levels = rights.used().left(rights.quota(), now);
            write(response.headers_mut(), &levels);
        }
    }
}

/// Whose limits an answer tells of, when there are any.
pub(crate) fn told(caller: &Principal) -> Option<Arc<Rights>> {
    let quota = caller.rights.quota();
    let has_limits = quota.requests.is_some() || quota.calls.is_some();
    has_limits.then(|| Arc::clone(&caller.rights))
}

/// Says in headers which limits there are, and what is left.
pub(crate) fn write(headers: &mut HeaderMap, levels: &[Level]) {
    let said = [
        (POLICY, quota::policies(levels)),
        (LEFT, quota::service_limits(levels)),
    ];
    for (name, text) in said {
        // Numbers and names of limits are always a header's value.
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
}

/// The refusal of a message whose JSON-RPC request, if it is one, is answered under its id.
pub(crate) fn refused(message: &Bytes, failure: &Failure) -> Option<Response> {
    let envelope = Envelope::parse(message).ok()?;
    let id = envelope.id?;
    Some(respond::failure(id.get().as_bytes(), failure, Era::Modern))
}

/// Counts the request of a caller that the [`Fallback`](crate::Fallback) answers, once it is known that it is
/// no public one. Stands in its extensions when its caller has a limit.
#[derive(Clone)]
pub struct Toll(pub(crate) Arc<Shared>);

impl Toll {
    /// Counts it.
    ///
    /// # Errors
    /// [`Kind::RateLimited`](vaxel_core::failure::Kind::RateLimited) when it is one too many.
    pub fn pay(self, caller: &Principal) -> Result<(), Failure> {
        self.0.count_request(caller)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vaxel_core::time::Timestamp;

    use super::*;

    #[test]
    fn callers_beyond_the_bound_share_until_others_are_forgotten() {
        let clock = Clock::manual(Timestamp::from_millis(1));
        let (meters, callers) = (Meters::new(clock.clone()), Callers::default());
        let rate: Rate = "1/1h".parse().unwrap();
        let take = |name: &str| {
            let bucket = callers.of(&name.into(), &meters);
            bucket.take(rate, meters.0.elapsed()).is_ok()
        };
        for number in 0..CALLERS {
            assert!(take(&format!("caller-{number}")));
        }
        assert!(!take("caller-7"), "each is remembered");
        assert!(take("one more"));
        assert!(!take("another"), "it shares with the one before");
        assert_eq!(callers.known.load().len(), CALLERS);
        // Those who could take one again are as good as unknown.
        clock.advance(Duration::from_hours(1));
        assert!(take("another") && take("one more"));
        assert_eq!(callers.known.load().len(), 2);
    }
}
