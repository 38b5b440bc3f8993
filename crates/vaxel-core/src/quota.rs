//! What a caller may take: requests, calls and creations in some time, and calls at once. And how it is said
//! what is left of that, in answers, headers and refusals.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, Kind},
    fields::Fields,
    quantity::Span,
    rate::{Bucket, Left, Rate},
    role::BuiltIn,
};

/// Most calls at once that can be asked for.
const CONCURRENT_MAX: u64 = 1_000_000;

/// What a caller may take. What is absent has no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Quota {
    /// Requests of every kind, in some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "100/1m")]
    pub requests: Option<Rate>,
    /// Calls of tools, in some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "20/1m")]
    pub calls: Option<Rate>,
    /// Services that are created, in some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5/5m")]
    pub creations: Option<Rate>,
    /// Calls in flight at once, 1 to 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 8, minimum = 1, maximum = 1_000_000)]
    pub concurrent: Option<u32>,
}

impl Quota {
    /// Everything, as much as anybody wants.
    pub const NONE: Self = Self {
        requests: None,
        calls: None,
        creations: None,
        concurrent: None,
    };

    /// The more generous of the two, limit by limit: that of whoever has two roles.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        let most = |one: Option<Rate>, other: Option<Rate>| Some(one?.most(other?));
        let at_once = |one: Option<u32>, other: Option<u32>| Some(one?.max(other?));
        Self {
            requests: most(self.requests, other.requests),
            calls: most(self.calls, other.calls),
            creations: most(self.creations, other.creations),
            concurrent: at_once(self.concurrent, other.concurrent),
        }
    }

    /// Whether whoever has this may take all that somebody with the other one may.
    pub fn covers(self, other: Self) -> bool {
        self.most(other) == self
    }

    /// Reads the limits of an object that has nothing else.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let concurrent = fields.integer("concurrent", 1..=CONCURRENT_MAX);
        Self {
            requests: fields.parsed("requests"),
            calls: fields.parsed("calls"),
            creations: fields.parsed("creations"),
            concurrent: concurrent.and_then(|number| u32::try_from(number).ok()),
        }
    }

    /// Reads texts such as `calls=20/1m`; each that is none goes to `wrong` with its index.
    pub fn of_texts(texts: &[String], mut wrong: impl FnMut(usize, String)) -> Self {
        let mut quota = Self::NONE;
        for (index, text) in texts.iter().enumerate() {
            if let Err(message) = quota.set(text) {
                wrong(index, message);
            }
        }
        quota
    }

    fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let rate = || value.parse::<Rate>().map_err(|error| error.to_string());
        match name.trim() {
            "requests" => self.requests = Some(rate()?),
            "calls" => self.calls = Some(rate()?),
            "creations" => self.creations = Some(rate()?),
            "concurrent" => {
                let number = value.trim().parse::<u32>().ok();
                let number = number.filter(|one| (1..=CONCURRENT_MAX).contains(&u64::from(*one)));
                let wrong = || format!("`{value}` is not between 1 and {CONCURRENT_MAX}");
                self.concurrent = Some(number.ok_or_else(wrong)?);
            }
            other => {
                let other: String = other.chars().take(80).collect();
                return Err(format!(
                    "`{other}` is no limit: write requests=100/1m, calls=20/1m, creations=5/5m or \
                     concurrent=8"
                ));
            }
        }
        Ok(())
    }
}

/// What users with built-in roles may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleQuotas(pub [(BuiltIn, Quota); BuiltIn::ALL.len()]);

/// Those of the role `user`: 100 requests and 20 calls in a minute, 5 creations in 5 minutes. Others have none.
impl Default for RoleQuotas {
    fn default() -> Self {
        let rate = |count, mins| Rate::new(count, Duration::from_mins(mins)).ok();
        Self(BuiltIn::ALL.map(|role| {
            let quota = match role {
                BuiltIn::User => Quota {
                    requests: rate(100, 1),
                    calls: rate(20, 1),
                    creations: rate(5, 5),
                    concurrent: None,
                },
                _ => Quota::NONE,
            };
            (role, quota)
        }))
    }
}

impl RoleQuotas {
    /// That of one role.
    pub fn of(&self, role: BuiltIn) -> Quota {
        let found = self.0.iter().find(|(one, _)| *one == role);
        found.map_or(Quota::NONE, |(_, quota)| *quota)
    }
}

/// What one caller has taken. It outlives changes of what the caller may take.
#[derive(Debug, Default)]
pub struct Used {
    /// Requests.
    pub requests: Bucket,
    /// Calls of tools.
    pub calls: Bucket,
    /// Services that were created.
    pub creations: Bucket,
    /// Calls in flight.
    pub in_flight: Places,
}

impl Used {
    /// What is left of each limit in `quota`.
    pub fn left(&self, quota: &Quota, now: Duration) -> Vec<Level> {
        let rates = [
            (Limit::Requests, quota.requests, &self.requests),
            (Limit::Calls, quota.calls, &self.calls),
            (Limit::Creations, quota.creations, &self.creations),
        ];
        let rates = rates
            .into_iter()
            .filter_map(|(limit, rate, bucket)| Some(Level::of(limit, (bucket, rate?), now)));
        let at_once = quota.concurrent;
        let at_once = at_once.map(|most| self.in_flight.level(Limit::Concurrent, most));
        rates.chain(at_once).collect()
    }
}

/// How many are there at once.
#[derive(Debug, Default)]
pub struct Places(Arc<AtomicU32>);

/// One of them; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    /// Takes a place, unless `most` are taken.
    pub fn take(&self, most: u32) -> Option<Place> {
        let more = |taken: u32| (taken < most).then_some(taken + 1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Place(Arc::clone(&self.0)))
    }

    /// How many are left of `most`.
    pub fn level(&self, limit: Limit, most: u32) -> Level {
        Level {
            limit,
            bound: Bound::AtOnce(most),
            left: most.saturating_sub(self.0.load(Ordering::Relaxed)),
            more_in: Duration::ZERO,
        }
    }
}

/// What a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Requests of a caller.
    Requests,
    /// Calls of a caller.
    Calls,
    /// Services that a caller creates.
    Creations,
    /// Calls of a caller that are in flight.
    Concurrent,
    /// Calls of a service, by all.
    Service,
    /// Calls of a service, by each caller.
    ServiceCaller,
    /// Calls of a tool, by all.
    Tool,
    /// Calls of a tool, by each caller.
    ToolCaller,
    /// Calls of a tool that are in flight.
    ToolConcurrent,
}

impl Limit {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Requests,
        Self::Calls,
        Self::Creations,
        Self::Concurrent,
        Self::Service,
        Self::ServiceCaller,
        Self::Tool,
        Self::ToolCaller,
        Self::ToolConcurrent,
    ];

    /// The name in headers, answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Calls => "calls",
            Self::Creations => "creations",
            Self::Concurrent => "concurrent",
            Self::Service => "service",
            Self::ServiceCaller => "service-caller",
            Self::Tool => "tool",
            Self::ToolCaller => "tool-caller",
            Self::ToolConcurrent => "tool-concurrent",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// In some time.
    Rate(Rate),
    /// At once.
    AtOnce(u32),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => fmt::Display::fmt(rate, f),
            Self::AtOnce(most) => fmt::Display::fmt(most, f),
        }
    }
}

/// How far a limit is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Which.
    pub limit: Limit,
    /// How much it allows.
    pub bound: Bound,
    /// What is left now.
    pub left: u32,
    /// When there is one more; zero when it is all there, or when nobody knows.
    pub more_in: Duration,
}

impl Level {
    /// That of a rate.
    pub fn of(limit: Limit, (bucket, rate): (&Bucket, Rate), now: Duration) -> Self {
        let Left { count, more_in } = bucket.look(rate, now);
        Self {
            limit,
            bound: Bound::Rate(rate),
            left: count,
            more_in,
        }
    }

    /// Nothing is left for so long.
    pub const fn empty(limit: Limit, rate: Rate, more_in: Duration) -> Self {
        Self {
            limit,
            bound: Bound::Rate(rate),
            left: 0,
            more_in,
        }
    }

    /// Seconds until there is one more, at least 1; what is in flight may end at any time.
    pub fn seconds(&self) -> u32 {
        let whole = self.more_in.as_millis().div_ceil(1_000).max(1);
        u32::try_from(whole).unwrap_or(u32::MAX)
    }

    /// The refusal of one more, of what `who` does or takes: a caller, a service or a tool, as it stands in a
    /// sentence.
    pub fn refusal(self, who: &str) -> Failure {
        let seconds = self.seconds();
        let (most, span) = match self.bound {
            Bound::Rate(rate) => (rate.count(), format!(" in {}", Span(rate.per()))),
            Bound::AtOnce(most) => (most, " at once".to_owned()),
        };
        let plural = if most == 1 { "" } else { "s" };
        let said = match self.limit {
            Limit::Requests => format!("{who} may make {most} request{plural}{span}"),
            Limit::Calls => format!("{who} may make {most} tool call{plural}{span}"),
            Limit::Concurrent => format!("{who} may make {most} call{plural}{span}"),
            Limit::Creations => format!("{who} may create {most} service{plural}{span}"),
            Limit::Service | Limit::Tool | Limit::ToolConcurrent => {
                format!("{who} takes {most} call{plural}{span}")
            }
            Limit::ServiceCaller | Limit::ToolCaller => {
                format!("{who} takes {most} call{plural}{span} of each caller")
            }
        };
        let detail = format!("{said}; try again in {seconds} s");
        let mut failure = Failure::new(Kind::RateLimited, detail).retry_after(seconds);
        failure.level = Some(Box::new(self));
        failure
    }
}

/// What the header `RateLimit-Policy` says of these limits (draft-ietf-httpapi-ratelimit-headers-10).
pub fn policies(levels: &[Level]) -> String {
    list(levels, |level, text| match level.bound {
        Bound::Rate(rate) => {
            let window = rate.per().as_millis().div_ceil(1_000);
            write!(text, ";q={};w={window}", rate.count())
        }
        Bound::AtOnce(most) => write!(text, ";q={most};qu=\"concurrent-requests\""),
    })
}

/// What the header `RateLimit` says of what is left of them (the same draft): how many, and after how many
/// seconds there is one more.
pub fn service_limits(levels: &[Level]) -> String {
    list(levels, |level, text| {
        write!(text, ";r={}", level.left)?;
        match level.bound {
            Bound::Rate(rate) if level.left >= rate.count() => Ok(()),
            Bound::AtOnce(most) if level.left >= most => Ok(()),
            _ => write!(text, ";t={}", level.seconds()),
        }
    })
}

fn list(levels: &[Level], mut say: impl FnMut(&Level, &mut String) -> fmt::Result) -> String {
    let mut text = String::new();
    for level in levels {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // A text takes all that is written.
        let _ = write!(text, "\"{}\"", level.limit).and_then(|()| say(level, &mut text));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    fn quota(texts: &[&str]) -> Quota {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Quota::of_texts(&texts, |index, message| panic!("{index}: {message}"))
    }

    #[test]
    fn of_two_roles_the_more_generous_counts_and_none_is_the_most_generous() {
        let one = quota(&["calls=20/1m", "requests=1/1s", "concurrent=2"]);
        let other = quota(&["calls=30/1m", "concurrent=4", "creations=1/1h"]);
        assert_eq!(one.most(other), quota(&["calls=30/1m", "concurrent=4"]));
        assert_eq!(one.most(Quota::NONE), Quota::NONE);
        assert!(Quota::NONE.covers(one) && one.covers(one));
        assert!(!one.covers(other) && !one.covers(Quota::NONE));
    }

    #[test]
    fn every_problem_of_limits_is_named() {
        let value = json!({"calls": "20", "requests": 5, "concurrent": 0, "logins": "1/1s"});
        let mut issues = Vec::new();
        Fields::read(&value, "limits", &mut issues, Quota::read);
        let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
        let expected = [
            "limits.concurrent",
            "limits.requests",
            "limits.calls",
            "limits.logins",
        ];
        assert_eq!(paths, expected);
        let texts = ["calls=1/1m", "calls=1", "concurrent=x", "logins=1/1s"].map(String::from);
        let mut wrong = Vec::new();
        Quota::of_texts(&texts, |index, _| wrong.push(index));
        assert_eq!(wrong, [1, 2, 3]);
    }

    #[test]
    fn headers_say_what_there_is_what_is_left_and_when_there_is_more() {
        let (used, quota) = (Used::default(), quota(&["calls=20/1m", "concurrent=2"]));
        let now = Duration::from_secs(9);
        let levels = used.left(&quota, now);
        assert_eq!(
            policies(&levels),
            r#""calls";q=20;w=60, "concurrent";q=2;qu="concurrent-requests""#
        );
        assert_eq!(service_limits(&levels), r#""calls";r=20, "concurrent";r=2"#);
        used.calls.take(rate("20/1m"), now).unwrap();
        let place = used.in_flight.take(2).unwrap();
        let text = service_limits(&used.left(&quota, now));
        assert_eq!(text, r#""calls";r=19;t=3, "concurrent";r=1;t=1"#);
        drop(place);
        assert_eq!(used.left(&quota, now)[1].left, 2);
    }

    #[test]
    fn places_are_as_many_as_are_said_and_come_back() {
        let places = Places::default();
        let (one, _two) = (places.take(2).unwrap(), places.take(2).unwrap());
        assert!(places.take(2).is_none());
        drop(one);
        assert!(places.take(2).is_some());
    }

    #[test]
    fn a_refusal_says_who_what_and_when() {
        let level = |limit| Level::empty(limit, rate("20/1m"), Duration::from_millis(2_001));
        let failure = level(Limit::Calls).refusal("`anna`");
        let text = "`anna` may make 20 tool calls in 1m; try again in 3 s";
        assert_eq!(
            (failure.detail.as_ref(), failure.retry_after),
            (text, Some(3))
        );
        let failure = level(Limit::ToolCaller).refusal("`delete` of `files`");
        let text = "`delete` of `files` takes 20 calls in 1m of each caller; try again in 3 s";
        assert_eq!(failure.detail, text);
    }
}
