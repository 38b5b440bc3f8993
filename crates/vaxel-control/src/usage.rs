//! Usage: how much services and tools are called, by whom, and how long it takes.

use vaxel_core::{
    failure::{Failure, Issue},
    principal::Principal,
    time::Timestamp,
};
use vaxel_store::{Grain, UsageRows, UsageSum};

use crate::{change::ServiceRef, control::Control, service::query::Whose};

/// Most hours or days of one answer.
const POINTS_MAX: u64 = 2_000;
/// Most services that are told apart in one answer.
const SERVICES_MAX: u32 = 500;

/// Of which time, and how it is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageQuery {
    /// From the hour or day that this is in; `None`: a day ago, by days 30 days ago.
    pub from: Option<Timestamp>,
    /// To the hour or day that this is in, which is part of it; `None`: now.
    pub to: Option<Timestamp>,
    /// Hours or days.
    pub grain: Grain,
}

/// Usage over a time.
#[derive(Debug, Clone)]
pub struct Usage {
    /// Begin of the first hour or day.
    pub from: Timestamp,
    /// End of the last one.
    pub to: Timestamp,
    /// How it is divided.
    pub grain: Grain,
    /// All of it.
    pub total: UsageSum,
    /// Hour by hour, or day by day; those without a call are left out.
    pub series: Vec<(Timestamp, UsageSum)>,
    /// By tool, of one service; the most called first.
    pub tools: Vec<(String, UsageSum)>,
    /// By service, of all; the most called first. By id when the service is gone for good.
    pub services: Vec<(String, UsageSum)>,
}

impl Control {
    /// How much a service, or all of them that the caller may read, were called. `calls:read`.
    pub async fn usage(
        &self,
        caller: &Principal,
        service: Option<&ServiceRef>,
        query: UsageQuery,
    ) -> Result<Usage, Failure> {
        let whose = self.whose_calls(caller, service).await?;
        let (from, to) = bounds(query, self.now())?;
        let (store, time) = (self.store(), (query.grain, from, to));
        let UsageRows {
            total,
            series,
            tools,
            services,
        } = match whose {
            Whose::All => store.usage(None, time, SERVICES_MAX).await?,
            Whose::Of(service) => store.usage(Some(service), time, SERVICES_MAX).await?,
            Whose::Among(own) => store.usage_among(own, time, SERVICES_MAX).await?,
        };
        let ids = services.iter().map(|(id, _)| *id).collect();
        let names = self.store().service_names(ids).await?;
        let named = |(id, sum)| {
            let name = names.get(&id).cloned();
            (name.unwrap_or_else(|| id.to_string()), sum)
        };
        Ok(Usage {
            from,
            to,
            grain: query.grain,
            total,
            series,
            tools,
            services: services.into_iter().map(named).collect(),
        })
    }
}

/// Begin of the first and end of the last hour or day.
fn bounds(query: UsageQuery, now: Timestamp) -> Result<(Timestamp, Timestamp), Failure> {
    let UsageQuery { from, to, grain } = query;
    let step = grain.millis();
    let last = grain.begin(to.unwrap_or(now)).as_millis();
    let end = last.saturating_add(step);
    let default = match grain {
        Grain::Hour => 24 * step,
        Grain::Day => 30 * step,
    };
    let from = from.unwrap_or_else(|| Timestamp::from_millis(end.saturating_sub(default)));
    let begin = grain.begin(from).as_millis();
    let issue = if begin >= end {
        Some("must not be before `from`".to_owned())
    } else if (end - begin) / step > POINTS_MAX {
        Some(format!(
            "must be at most {POINTS_MAX} hours or days after `from`"
        ))
    } else {
        None
    };
    match issue {
        Some(message) => Err(Failure::invalid(
            "The time",
            vec![Issue::new("to", message)],
        )),
        None => Ok((Timestamp::from_millis(begin), Timestamp::from_millis(end))),
    }
}
