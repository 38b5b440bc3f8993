//! The usage of some services together, for who may know of those alone: who called several of them is one
//! caller.

use std::collections::{BTreeMap, BTreeSet};

use super::{CALLER_NAMES, Gathered, Grain, SERIES, SERIES_CALLER_NAMES, Span, UsageRows, sum};
use crate::{error::Error, stmt::values, store::Store, tx::Tx};
use vaxel_core::{
    id::{Id, Service},
    time::Timestamp,
};

#[derive(Default)]
struct Among {
    whole: Gathered,
    series: BTreeMap<Timestamp, Gathered>,
    rows: UsageRows,
}

impl Store {
    /// The usage of these services, as [`Store::usage`] has it of all. What it costs grows with their number.
    pub async fn usage_among(
        &self,
        services: Vec<Id<Service>>,
        time: (Grain, Timestamp, Timestamp),
        limit: u32,
    ) -> Result<UsageRows, Error> {
        self.records()
            .read("usage_among", move |tx| {
                let mut all = Among::default();
                for service in services {
                    all.add(tx, service, time)?;
                }
                Ok(all.rows(limit as usize))
            })
            .await
    }
}

impl Among {
    fn add(
        &mut self,
        tx: &mut Tx<'_>,
        service: Id<Service>,
        (grain, from, to): (Grain, Timestamp, Timestamp),
    ) -> Result<(), Error> {
        let id = *service.as_bytes();
        let values = values![grain.of_services(), &id[..], from, to];
        let mut own = Gathered::default();
        for (at, sum) in tx.query(&SERIES, &values, |row| Ok((row.time(0)?, sum(row)?)))? {
            own.sum.merge(&sum);
            self.series.entry(at).or_default().sum.merge(&sum);
        }
        if own.sum.calls == 0 {
            return Ok(());
        }
        let named = |row: &crate::stmt::Row<'_>| Ok((row.time(0)?, row.blob(1)?));
        for (at, caller) in tx.query(&SERIES_CALLER_NAMES, &values, named)? {
            self.series.entry(at).or_default().callers.insert(caller);
        }
        let span = Span::of(tx, &id, (grain, from, to))?;
        let values = span.values(|grain: Grain| grain.of_services());
        let callers = tx.query(&CALLER_NAMES, &values, |row| row.blob(0))?;
        own.callers = callers.into_iter().collect::<BTreeSet<_>>();
        self.whole.sum.merge(&own.sum);
        self.whole.callers.extend(own.callers.iter().cloned());
        self.rows.services.push((service, own.counted()));
        Ok(())
    }

    fn rows(self, limit: usize) -> UsageRows {
        let mut rows = self.rows;
        rows.total = self.whole.counted();
        let series = self.series.into_iter();
        rows.series = series.map(|(at, one)| (at, one.counted())).collect();
        let by_calls = |(key, sum): &(Id<Service>, super::UsageSum)| (u64::MAX - sum.calls, *key);
        rows.services.sort_by_key(by_calls);
        rows.services.truncate(limit);
        rows
    }
}

impl Gathered {
    fn counted(self) -> super::UsageSum {
        super::UsageSum {
            callers: self.callers.len() as u64,
            ..self.sum
        }
    }
}
