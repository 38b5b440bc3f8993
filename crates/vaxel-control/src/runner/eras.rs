//! Which era the programs of a service were found to speak, so that not every start asks again: a
//! legacy server that ignores the question costs a wait, one that ends of it costs a start.
//!
//! Only a legacy verdict is remembered, and not for ever: it would go on working long after it became
//! untrue, while a modern server answers the question at once.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use vaxel_core::{
    id::{Id, Service},
    service::{EraChoice, ServiceResource},
    time::Timestamp,
};
use vaxel_mcp::revision::Era;

/// How long a verdict is believed.
const BELIEVED: Duration = Duration::from_hours(24);

/// The legacy verdicts.
#[derive(Default)]
pub(crate) struct Eras(Mutex<HashMap<Id<Service>, Verdict>>);

struct Verdict {
    /// Of the service that it is about.
    revision: u64,
    at: Timestamp,
}

impl Eras {
    /// How to speak to a program of this service.
    pub(super) fn choice(&self, resource: &ServiceResource, now: Timestamp) -> EraChoice {
        if resource.spec.era != EraChoice::Auto {
            return resource.spec.era;
        }
        let known = self.0.lock();
        let is_legacy = known.get(&resource.id).is_some_and(|verdict| {
            verdict.revision == resource.revision && now.since(verdict.at) < BELIEVED
        });
        if is_legacy {
            EraChoice::Legacy
        } else {
            EraChoice::Auto
        }
    }

    /// Notes what a program answered when it was asked.
    pub(super) fn learn(&self, resource: &ServiceResource, era: Era, now: Timestamp) {
        let mut known = self.0.lock();
        let is_fresh = |verdict: &mut Verdict| now.since(verdict.at) < BELIEVED;
        known.retain(|_, verdict| is_fresh(verdict));
        match era {
            Era::Legacy => {
                let revision = resource.revision;
                let known_one = known.get(&resource.id);
                // A start that believed a verdict does not make it any younger.
                if known_one.is_none_or(|verdict| verdict.revision != revision) {
                    known.insert(resource.id, Verdict { revision, at: now });
                }
            }
            Era::Modern => {
                known.remove(&resource.id);
            }
        }
    }

    /// A program did not take what was believed of it.
    pub(super) fn forget(&self, resource: &ServiceResource) {
        self.0.lock().remove(&resource.id);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vaxel_core::{service::ServiceDraft, time::Clock};

    use super::*;

    fn service(revision: u64) -> ServiceResource {
        let draft = json!({"name": "a", "spec": {"source": {"process": {"command": "a"}}}});
        let draft = ServiceDraft::from_json(&draft).unwrap();
        let now = Clock::system().now();
        ServiceResource {
            id: Id::new(Timestamp::from_millis(1)),
            name: draft.name,
            version: 1,
            revision,
            enabled: true,
            tags: Vec::new(),
            environment: String::new(),
            owner: String::new(),
            spec: draft.spec,
            created_at: now,
            updated_at: now,
            activated_at: None,
            deleted_at: None,
            defect: None,
        }
    }

    #[test]
    fn a_legacy_verdict_holds_for_a_day_and_for_its_revision() {
        let (eras, mut one) = (Eras::default(), service(1));
        let at = |hours: u64| Timestamp::from_millis(hours * 3_600_000);
        assert_eq!(eras.choice(&one, at(1)), EraChoice::Auto);
        eras.learn(&one, Era::Legacy, at(1));
        assert_eq!(eras.choice(&one, at(2)), EraChoice::Legacy);
        // A start that believed it proves nothing new.
        eras.learn(&one, Era::Legacy, at(20));
        assert_eq!(eras.choice(&one, at(26)), EraChoice::Auto);

        eras.learn(&one, Era::Legacy, at(30));
        let mut changed = service(2);
        changed.id = one.id;
        assert_eq!(eras.choice(&changed, at(31)), EraChoice::Auto);
        eras.learn(&changed, Era::Modern, at(31));
        assert_eq!(eras.choice(&one, at(31)), EraChoice::Auto);
        one.spec.era = EraChoice::Modern;
        assert_eq!(eras.choice(&one, at(31)), EraChoice::Modern);
    }
}
