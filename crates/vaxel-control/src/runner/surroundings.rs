//! Checks what is around a service, once for all its instances: what it needs, and whether it is what
//! was accepted and reached safely.
//!
//! Runs only for services that have anything of the kind, and never makes one unhealthy.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use url::{Host, Url};
use vaxel_auth::token;
use vaxel_core::{
    health::{
        check::{Finding, Kind, Record},
        spec::{Dependency, HealthSpec, Rules},
    },
    service::{ServiceResource, Source},
    time::Timestamp,
};

use super::{
    Context,
    instance::random,
    watched::{Watched, in_turn},
};
use crate::definitions;

/// Between two looks at what changes slowly: certificates, tokens, definitions.
const SLOWLY: Duration = Duration::from_hours(1);
/// Between a result that speaks against what is believed and the next check.
const RECHECK: Duration = Duration::from_secs(5);

pub(super) struct Surroundings {
    pub(super) context: Arc<Context>,
    pub(super) resource: Arc<ServiceResource>,
    pub(super) watched: Watched,
    /// Told when there is another state.
    pub(super) changed: Arc<Notify>,
}

/// Whether there is anything around a service that has to be looked at again and again.
pub(super) fn are_worth_it(resource: &ServiceResource) -> bool {
    let spec = &resource.spec;
    let holds_values = match &spec.source {
        Source::Process(process) => !process.env.is_empty(),
        Source::Mcp(_) | Source::Http(_) => true,
        Source::Builtin(_) => false,
    };
    holds_values || !spec.health.dependency.is_empty()
}

impl Surroundings {
    pub(super) async fn run(self) {
        let spec = &self.resource.spec.health;
        let rules = self.context.config.rules(spec);
        let needs_something = !spec.dependency.is_empty();
        self.watched
            .keep(|kind| kind != Kind::Dependency || needs_something);
        // What changes slowly is looked at when the start is over: many services begin together.
        let first = if needs_something {
            rules.interval.min(RECHECK)
        } else {
            rules.interval
        };
        let mut wait = first.mul_f64(f64::from(random()) / f64::from(u32::MAX));
        let mut slowly_due: Option<Instant> = None;
        loop {
            tokio::select! {
                () = sleep(wait) => {}
                () = self.watched.rung() => {}
            }
            let asked = self.watched.pending();
            // On the heap while it lasts: most of its life this waits, and there are many.
            let mut is_news = Box::pin(self.dependencies(spec, &rules)).await;
            if asked.is_some() || slowly_due.is_none_or(|due| due <= Instant::now()) {
                is_news |= Box::pin(self.security(spec, &rules)).await;
                slowly_due = Some(Instant::now() + SLOWLY.mul_f64(0.9));
            }
            if is_news {
                self.changed.notify_one();
            }
            if let Some(number) = asked {
                self.watched.carried_out(number);
            }
            wait = if self.watched.read(Record::is_undecided) {
                rules.interval.min(RECHECK)
            } else if spec.dependency.is_empty() {
                SLOWLY
            } else {
                rules.next_wait(random())
            };
        }
    }

    /// Whether everything is there that the service needs; answers whether that is news.
    async fn dependencies(&self, spec: &HealthSpec, rules: &Rules) -> bool {
        if spec.dependency.is_empty() {
            return false;
        }
        let begun = self.context.clock.now();
        let looks = spec
            .dependency
            .iter()
            .map(|one| self.dependency(one, rules.timeout));
        let findings = in_turn(&self.context.checks, join_all(looks)).await;
        let Some(finding) = Finding::worst(findings) else {
            return false;
        };
        self.note((Kind::Dependency, finding), begun, rules)
    }

    async fn dependency(&self, dependency: &Dependency, within: Duration) -> Finding {
        let egress = self.context.egress(&self.resource);
        let Some(url) = dependency.url() else {
            return Finding::fail(format!("`{dependency}` is no address"));
        };
        let deadline = Instant::now() + within;
        let looked = match dependency {
            Dependency::Url(_) => match egress.status(&url, deadline).await {
                Ok(status) if status >= 400 => {
                    return Finding::fail(format!("{dependency} answers with status {status}"));
                }
                other => other.map(drop),
            },
            Dependency::Tcp(_) => egress.connect(&url, deadline).await.map(drop),
        };
        match looked {
            Ok(()) => Finding::pass("Everything that it needs is there"),
            Err(error) => Finding::fail(format!("{dependency} is not there: {error}")),
        }
    }

    /// Whether it is what was accepted and reached safely; answers whether that is news.
    async fn security(&self, spec: &HealthSpec, rules: &Rules) -> bool {
        let begun = self.context.clock.now();
        let mut findings = vec![Finding::pass("Nothing is conspicuous")];
        if spec.security.definitions {
            findings.extend(self.definitions().await);
        }
        findings.extend(self.tokens(spec.security.expiry.0, begun).await);
        let (ways, has_headers) = ways(&self.resource.spec.source);
        for url in ways {
            if spec.security.unauthenticated {
                findings.extend(unguarded(has_headers, &url));
            }
            if matches!(url.scheme(), "https" | "wss") {
                let within = (spec.security.expiry.0, rules.timeout);
                findings.extend(self.certificate(&url, within, begun).await);
            }
        }
        let Some(finding) = Finding::worst(findings) else {
            return false;
        };
        // What is looked at once an hour needs no second opinion.
        let at_once = Rules {
            rise: 1,
            fall: 1,
            ..rules.clone()
        };
        self.note((Kind::Security, finding), begun, &at_once)
    }

    async fn definitions(&self) -> Option<Finding> {
        let id = self.resource.id;
        let catalog = self.context.board.find(id)?.catalog.clone()?;
        let accepted = match self.context.store.accepted_definitions(id).await {
            Ok(accepted) => accepted?,
            Err(error) => {
                tracing::warn!(service.name = %self.resource.name, %error, "its accepted definitions could not be read");
                return None;
            }
        };
        let name = &self.resource.name;
        let drift = definitions::drift(&accepted, &definitions::digests(&catalog))?;
        Some(Finding::warn(format!(
            "{drift}; `vaxel service health {name} --accept` accepts them as they are"
        )))
    }

    /// Tokens in the values of the service that say when they end.
    async fn tokens(&self, soon: Duration, now: Timestamp) -> Vec<Finding> {
        let spec = &self.resource.spec;
        let values = match self.context.vault.open(self.resource.id, spec).await {
            Ok(values) => values,
            Err(failure) => {
                tracing::warn!(service.name = %self.resource.name, "its values could not be opened: {failure}");
                return Vec::new();
            }
        };
        let ends = values
            .into_iter()
            .filter_map(|(name, value)| Some((name, token::expiry(value.expose())?)));
        let finding = |(name, end)| ending(&format!("the token in `{name}`"), end, (soon, now));
        ends.filter_map(finding).collect()
    }

    async fn certificate(
        &self,
        url: &Url,
        (soon, within): (Duration, Duration),
        now: Timestamp,
    ) -> Option<Finding> {
        let egress = self.context.egress(&self.resource);
        let look = egress.certificate_end(url, Instant::now() + within);
        // What cannot be reached is another check's business.
        let end = timeout(within, in_turn(&self.context.checks, look))
            .await
            .ok()?
            .ok()??;
        ending("its certificate", end, (soon, now))
    }

    fn note(&self, found: (Kind, Finding), begun: Timestamp, rules: &Rules) -> bool {
        self.watched
            .note(found, (begun, &self.context.clock), rules)
    }
}

/// What is to be said of something that ends then.
fn ending(what: &str, end: Timestamp, (soon, now): (Duration, Timestamp)) -> Option<Finding> {
    if end <= now {
        return Some(Finding::fail(format!("{what} ended at {end}")));
    }
    let left = end.since(now);
    let days = left.as_secs() / 86_400;
    (left < soon).then(|| Finding::warn(format!("{what} ends at {end}, in {days} days")))
}

/// Where a service is reached over the network, and whether headers of its own go there.
fn ways(source: &Source) -> (Vec<Url>, bool) {
    match source {
        Source::Mcp(mcp) => (
            mcp.url.parse().into_iter().collect(),
            !mcp.headers.is_empty(),
        ),
        Source::Http(http) => {
            let instances = 0..u16::try_from(http.instances.len()).unwrap_or(u16::MAX);
            let urls = instances.filter_map(|instance| http.base_url(instance)?.parse().ok());
            (urls.collect(), !http.headers.is_empty())
        }
        Source::Process(_) | Source::Builtin(_) => (Vec::new(), false),
    }
}

/// What is to be said of the way to a server elsewhere.
fn unguarded(has_headers: bool, url: &Url) -> Option<Finding> {
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => true,
    };
    if is_here {
        return None;
    }
    if !has_headers {
        let message =
            "it is on another machine and asks for no credential: whoever reaches it can use it";
        return Some(Finding::warn(message));
    }
    let in_clear = matches!(url.scheme(), "http" | "ws");
    in_clear.then(|| Finding::warn("its headers go to another machine without encryption"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vaxel_core::health::check::Verdict;

    #[test]
    fn what_ends_is_announced_and_what_ended_is_a_fault() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        let day = Duration::from_hours(24);
        let verdict = |end| ending("it", end, (14 * day, now)).map(|finding| finding.verdict);
        assert_eq!(verdict(now.plus(30 * day)), None);
        assert_eq!(verdict(now.plus(13 * day)), Some(Verdict::Warn));
        assert_eq!(verdict(now), Some(Verdict::Fail));
    }

    #[test]
    fn only_what_is_elsewhere_needs_a_guard() {
        let warned = |url: &str, guarded: bool| unguarded(guarded, &url.parse().unwrap()).is_some();
        for here in [
            "http://127.0.0.1/mcp",
            "http://[::1]:9/",
            "http://localhost:3000/mcp",
        ] {
            assert!(!warned(here, false), "{here}");
        }
        assert!(warned("https://mcp.example.com/", false));
        assert!(!warned("https://mcp.example.com/", true));
        assert!(warned("http://10.0.0.5/mcp", true));
    }
}
