//! Calls summed up by hour and by day, so that months are answered without reading the calls.
//!
//! A sum has counts, a histogram of durations and the set of callers. Each call is in four sums: of its
//! tool and of its service, by hour and by day; and in those of all services together, which stand
//! under an id of zeros. Days are those of UTC.

use std::collections::{BTreeSet, HashMap};

use vaxel_core::{
    call::{CallRecord, Outcome},
    histogram::Histogram,
    id::{Id, Service},
    time::Timestamp,
};

use crate::{
    error::Error,
    stmt::{Row, Stmt, Value, values},
    store::Store,
    tx::Tx,
};

mod among; // of some services together

/// Tools that are told apart in one batch; calls of further ones are in the sums of their service.
const TOOLS_MAX: usize = 4_096;
/// Stands for all services.
const ALL: [u8; 16] = [0; 16];

/// How long the time is that one sum is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grain {
    /// One hour.
    Hour,
    /// One day of UTC.
    Day,
}

impl Grain {
    /// Milliseconds.
    pub const fn millis(self) -> u64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 24 * 3_600_000,
        }
    }

    /// The beginning of the hour or day that `at` is in.
    pub const fn begin(self, at: Timestamp) -> Timestamp {
        let millis = at.as_millis();
        Timestamp::from_millis(millis - millis % self.millis())
    }

    const fn of_services(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 2,
        }
    }

    const fn of_tools(self) -> i64 {
        match self {
            Self::Hour => 3,
            Self::Day => 4,
        }
    }
}

/// What is known of some calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageSum {
    /// How many.
    pub calls: u64,
    /// Those that did not end well.
    pub errors: u64,
    /// Their time together, microseconds.
    pub total_us: u64,
    /// Their durations, microseconds.
    pub times: Histogram,
    /// How many different callers.
    pub callers: u64,
}

impl UsageSum {
    fn merge(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.errors = self.errors.saturating_add(other.errors);
        self.total_us = self.total_us.saturating_add(other.total_us);
        self.times.merge(&other.times);
    }
}

/// Usage over a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageRows {
    /// All of it.
    pub total: UsageSum,
    /// Hour by hour, or day by day; those without a call are left out.
    pub series: Vec<(Timestamp, UsageSum)>,
    /// By tool, for one service; the most called first.
    pub tools: Vec<(String, UsageSum)>,
    /// By service, for all of them; the most called first.
    pub services: Vec<(Id<Service>, UsageSum)>,
}

/// Calls on their way into the sums. Bounded by the number of services and tools.
#[derive(Debug, Default)]
pub struct UsageBatch {
    /// By hour, service and tool; without a tool for everything else that is called.
    sums: HashMap<(Timestamp, Id<Service>, Box<str>), Gathered>,
}

#[derive(Debug, Default, Clone)]
struct Gathered {
    sum: UsageSum,
    callers: BTreeSet<Vec<u8>>,
}

impl UsageBatch {
    /// One more call.
    pub fn note(&mut self, record: &CallRecord) {
        let hour = Grain::Hour.begin(record.at);
        let is_tool = record.method == "tools/call" && self.sums.len() < TOOLS_MAX;
        let tool = if is_tool { &*record.target } else { "" };
        let key = (hour, record.service, Box::from(tool));
        let Gathered { sum, callers } = self.sums.entry(key).or_default();
        let micros = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
        sum.calls += 1;
        sum.errors += u64::from(record.outcome != Outcome::Ok);
        sum.total_us = sum.total_us.saturating_add(micros);
        sum.times.note(micros);
        let caller = match &record.principal {
            Some(id) => &id.as_bytes()[..],
            None => record.principal_name.as_bytes(),
        };
        if !callers.contains(caller) {
            callers.insert(caller.to_vec());
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Every sum that the calls are part of.
    fn rows(&self) -> HashMap<Place, Gathered> {
        let mut rows: HashMap<Place, Gathered> = HashMap::new();
        for ((hour, service, tool), gathered) in &self.sums {
            for grain in [Grain::Hour, Grain::Day] {
                let at = grain.begin(*hour);
                let mut add = |grain, service: [u8; 16], target: &str| {
                    let target = Box::from(target);
                    let row = rows
                        .entry(Place {
                            grain,
                            service,
                            at,
                            target,
                        })
                        .or_default();
                    row.sum.merge(&gathered.sum);
                    row.callers.extend(gathered.callers.iter().cloned());
                };
                add(grain.of_services(), ALL, "");
                add(grain.of_services(), *service.as_bytes(), "");
                if !tool.is_empty() {
                    add(grain.of_tools(), *service.as_bytes(), tool);
                }
            }
        }
        rows
    }
}

/// A time, and what is summed up of it: whole days by their own sums, and what is left of hours at both ends,
/// so that a month of hours is no more to read than a month of days.
struct Span<'a> {
    id: &'a [u8],
    head: (Timestamp, Timestamp),
    days: (Timestamp, Timestamp),
    tail: (Timestamp, Timestamp),
}

impl<'a> Span<'a> {
    fn of(
        tx: &mut Tx<'_>,
        id: &'a [u8; 16],
        (grain, from, to): (Grain, Timestamp, Timestamp),
    ) -> Result<Self, Error> {
        let days = match grain {
            Grain::Day => (from, to),
            Grain::Hour => {
                let mut oldest = |grain: Grain| {
                    let key = values![grain.of_services(), &id[..]];
                    let oldest = tx.find(&OLDEST, &key, |row| row.maybe_time(0))?;
                    Ok::<_, Error>(oldest.flatten().unwrap_or(to))
                };
                // Hours and days are kept for different times: where there are both they say the same.
                let both = from.max(oldest(Grain::Hour)?);
                let step = Grain::Day.millis();
                let whole = both.as_millis().next_multiple_of(step);
                let begin = Timestamp::from_millis(whole).max(oldest(Grain::Day)?);
                let end = Grain::Day.begin(to);
                if begin < end { (begin, end) } else { (to, to) }
            }
        };
        Ok(Self {
            id,
            head: (from, days.0),
            days,
            tail: (days.1, to),
        })
    }

    const fn parts(&self) -> [(Grain, (Timestamp, Timestamp)); 3] {
        [
            (Grain::Hour, self.head),
            (Grain::Day, self.days),
            (Grain::Hour, self.tail),
        ]
    }

    /// For the statements over all three.
    fn values(&self, code: impl Fn(Grain) -> i64) -> [Value<'a>; 9] {
        let Self {
            id,
            head,
            days,
            tail,
        } = *self;
        let (hours, of_days) = (code(Grain::Hour), code(Grain::Day));
        values![
            hours, id, head.0, head.1, of_days, days.0, days.1, tail.0, tail.1
        ]
    }
}

/// Where a sum stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Place {
    grain: i64,
    service: [u8; 16],
    at: Timestamp,
    target: Box<str>,
}

/// A statement over the three parts of a time: hours, days, hours.
macro_rules! parts {
    ($before:literal, $part:literal, $after:literal) => {
        concat!(
            $before,
            $part,
            " AND grain = $1 AND at >= $3 AND at < $4 UNION ",
            $part,
            " AND grain = $5 AND at >= $6 AND at < $7 UNION ",
            $part,
            " AND grain = $1 AND at >= $8 AND at < $9",
            $after
        )
    };
}

static TIMES: Stmt = Stmt::new(
    "SELECT times FROM usage WHERE grain = $1 AND service = $2 AND at = $3 AND target = $4",
);
// From here to the commit the row is ours, whoever else adds to it: that comes before its times are read.
static ADD: Stmt = Stmt::new(
    "INSERT INTO usage (grain, service, at, target, calls, errors, total_us, times) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (grain, service, at, target) DO UPDATE SET \
     calls = usage.calls + excluded.calls, errors = usage.errors + excluded.errors, \
     total_us = usage.total_us + excluded.total_us",
);
static PUT_TIMES: Stmt = Stmt::new(
    "UPDATE usage SET times = $5 \
     WHERE grain = $1 AND service = $2 AND at = $3 AND target = $4",
);
static ADD_CALLER: Stmt = Stmt::new(
    "INSERT INTO usage_callers (grain, service, at, target, caller) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (grain, service, at, target, caller) DO NOTHING",
);
static SERIES: Stmt = Stmt::new(
    "SELECT at, calls, errors, total_us, times FROM usage \
     WHERE grain = $1 AND service = $2 AND at >= $3 AND at < $4 ORDER BY at",
);
static SERIES_CALLERS: Stmt = Stmt::new(
    "SELECT at, count(*) FROM usage_callers \
     WHERE grain = $1 AND service = $2 AND at >= $3 AND at < $4 GROUP BY at",
);
static OLDEST: Stmt = Stmt::new("SELECT min(at) FROM usage WHERE grain = $1 AND service = $2");
// Whoever called in several of the parts of a time (see `Span`) is one caller.
static CALLERS: Stmt = Stmt::new(parts!(
    "SELECT count(*) FROM (",
    "SELECT caller FROM usage_callers WHERE service = $2",
    ") AS parts"
));
static TOOLS: Stmt = Stmt::new(
    "SELECT target, calls, errors, total_us, times FROM usage \
     WHERE grain = $1 AND service = $2 AND at >= $3 AND at < $4",
);
static TOOLS_CALLERS: Stmt = Stmt::new(parts!(
    "SELECT target, count(*) FROM (",
    "SELECT target, caller FROM usage_callers WHERE service = $2",
    ") AS parts GROUP BY target"
));
static SERVICES: Stmt = Stmt::new(
    "SELECT service, calls, errors, total_us, times FROM usage \
     WHERE grain = $1 AND service <> $2 AND at >= $3 AND at < $4",
);
static SERVICES_CALLERS: Stmt = Stmt::new(parts!(
    "SELECT service, count(*) FROM (",
    "SELECT service, caller FROM usage_callers WHERE service <> $2",
    ") AS parts GROUP BY service"
));
static CALLER_NAMES: Stmt = Stmt::new(parts!(
    "SELECT caller FROM (",
    "SELECT caller FROM usage_callers WHERE service = $2",
    ") AS parts"
));
static SERIES_CALLER_NAMES: Stmt = Stmt::new(
    "SELECT at, caller FROM usage_callers \
     WHERE grain = $1 AND service = $2 AND at >= $3 AND at < $4",
);
// An hour or a day at a time, so that writers wait little.
static SWEEP: Stmt = Stmt::new(
    "DELETE FROM usage WHERE grain = $1 AND at = (SELECT at FROM usage \
     WHERE grain = $1 AND at < $2 ORDER BY at LIMIT 1)",
);
static SWEEP_CALLERS: Stmt = Stmt::new(
    "DELETE FROM usage_callers WHERE grain = $1 AND at = (SELECT at FROM usage_callers \
     WHERE grain = $1 AND at < $2 ORDER BY at LIMIT 1)",
);

impl Store {
    /// Adds a batch to the sums, in one transaction.
    pub async fn add_usage(&self, batch: UsageBatch) -> Result<(), Error> {
        // In the same order by all who write, so that none waits for one who waits for it.
        let mut rows: Vec<(Place, Gathered)> = batch.rows().into_iter().collect();
        rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        self.records()
            .write("add_usage", move |tx| {
                rows.iter().try_for_each(|(place, row)| add(tx, place, row))
            })
            .await
    }

    /// The usage of a service, or of all, in the hours or days that begin at `from` or later and
    /// before `to`. Of services at most `limit` are told apart.
    pub async fn usage(
        &self,
        service: Option<Id<Service>>,
        (grain, from, to): (Grain, Timestamp, Timestamp),
        limit: u32,
    ) -> Result<UsageRows, Error> {
        self.records()
            .read("usage", move |tx| {
                let id = service.map_or(ALL, |id| *id.as_bytes());
                let span = Span::of(tx, &id, (grain, from, to))?;
                let services = |grain: Grain| grain.of_services();
                let mut rows = series(tx, &values![services(grain), &id[..], from, to])?;
                let all = tx.find(&CALLERS, &span.values(services), |row| row.count(0))?;
                rows.total.callers = all.unwrap_or(0);
                if service.is_some() {
                    let of = (&span, |grain: Grain| grain.of_tools());
                    let text = |row: &Row<'_>| row.text(0);
                    rows.tools = grouped(tx, (&TOOLS, &TOOLS_CALLERS), of, text)?;
                } else {
                    let of = (&span, services);
                    let id = |row: &Row<'_>| {
                        let read = Id::from_slice(&row.blob(0)?);
                        read.ok_or_else(|| Error::unreadable("id", "it has not 16 bytes"))
                    };
                    rows.services = grouped(tx, (&SERVICES, &SERVICES_CALLERS), of, id)?;
                    rows.services.truncate(limit as usize);
                }
                Ok(rows)
            })
            .await
    }

    /// Deletes the oldest hour and day before these times; returns how many sums they had. Call it
    /// until it returns 0.
    pub async fn sweep_usage(&self, hours: Timestamp, days: Timestamp) -> Result<usize, Error> {
        self.records()
            .write("sweep_usage", move |tx| {
                let mut deleted = 0;
                for (grain, before) in [(Grain::Hour, hours), (Grain::Day, days)] {
                    for code in [grain.of_services(), grain.of_tools()] {
                        for sweep in [&SWEEP, &SWEEP_CALLERS] {
                            deleted += tx.execute(sweep, &values![code, before])?;
                        }
                    }
                }
                Ok(deleted)
            })
            .await
    }
}

fn add(tx: &mut Tx<'_>, place: &Place, row: &Gathered) -> Result<(), Error> {
    let Place {
        grain,
        service,
        at,
        target,
    } = place;
    let key = values![*grain, &service[..], *at, &**target];
    let sum = values![row.sum.calls, row.sum.errors, row.sum.total_us, &[][..]];
    tx.put(&ADD, &[key.as_slice(), sum.as_slice()].concat())?;
    let kept = tx.find(&TIMES, &key, |row| row.blob(0))?;
    // What cannot be read is begun anew: the counts stay right.
    let mut times = kept
        .and_then(|bytes| Histogram::from_bytes(&bytes))
        .unwrap_or_default();
    times.merge(&row.sum.times);
    let times = times.to_bytes();
    tx.put(&PUT_TIMES, &[key.as_slice(), &values![&times[..]]].concat())?;
    for caller in &row.callers {
        let caller = Value::from(&caller[..]);
        tx.put(&ADD_CALLER, &[key.as_slice(), &[caller]].concat())?;
    }
    Ok(())
}

fn series(tx: &mut Tx<'_>, values: &[Value<'_>]) -> Result<UsageRows, Error> {
    let mut rows = UsageRows {
        series: tx.query(&SERIES, values, |row| Ok((row.time(0)?, sum(row)?)))?,
        ..UsageRows::default()
    };
    let callers = tx.query(&SERIES_CALLERS, values, |row| {
        Ok((row.time(0)?, row.count(1)?))
    })?;
    let callers: HashMap<Timestamp, u64> = callers.into_iter().collect();
    for (at, sum) in &mut rows.series {
        sum.callers = callers.get(at).copied().unwrap_or(0);
        rows.total.merge(sum);
    }
    Ok(rows)
}

/// The sums of a time by what `key` reads, the most called first.
fn grouped<K: Clone + Ord + std::hash::Hash>(
    tx: &mut Tx<'_>,
    (sums, callers): (&Stmt, &Stmt),
    (span, code): (&Span<'_>, impl Fn(Grain) -> i64),
    key: impl Fn(&Row<'_>) -> Result<K, Error>,
) -> Result<Vec<(K, UsageSum)>, Error> {
    let mut groups: HashMap<K, UsageSum> = HashMap::new();
    for (grain, (from, to)) in span.parts() {
        let values = values![code(grain), span.id, from, to];
        for (key, sum) in tx.query(sums, &values, |row| Ok((key(row)?, sum(row)?)))? {
            groups.entry(key).or_default().merge(&sum);
        }
    }
    let values = span.values(code);
    for (key, count) in tx.query(callers, &values, |row| Ok((key(row)?, row.count(1)?)))? {
        groups.entry(key).or_default().callers = count;
    }
    let mut groups: Vec<(K, UsageSum)> = groups.into_iter().collect();
    groups.sort_by(|(key, sum), (other, of)| of.calls.cmp(&sum.calls).then_with(|| key.cmp(other)));
    Ok(groups)
}

fn sum(row: &Row<'_>) -> Result<UsageSum, Error> {
    Ok(UsageSum {
        calls: row.count(1)?,
        errors: row.count(2)?,
        total_us: row.count(3)?,
        times: Histogram::from_bytes(&row.blob(4)?).unwrap_or_default(),
        callers: 0,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &TIMES,
    &ADD,
    &PUT_TIMES,
    &ADD_CALLER,
    &SERIES,
    &SERIES_CALLERS,
    &OLDEST,
    &CALLERS,
    &TOOLS,
    &TOOLS_CALLERS,
    &SERVICES,
    &SERVICES_CALLERS,
    &CALLER_NAMES,
    &SERIES_CALLER_NAMES,
    &SWEEP,
    &SWEEP_CALLERS,
];
