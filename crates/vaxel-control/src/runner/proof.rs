//! Whether what is newly wanted does what it should, before it takes over: the functional check of the
//! workflow draft, validate, deploy, check, active.
//!
//! Once a revision has served, what is found out about it is its health, and keeps none of its instances
//! from serving, nor those that replace them: a result that fails never ends anything by itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use vaxel_core::{
    catalog::Catalog,
    failure::Issue,
    health::check::{Finding, Kind, Verdict},
};
use vaxel_gateway::Link;

use super::{
    functional::{self, Schemas},
    instance::Instance,
    watched::in_turn,
};

/// Whether what is wanted has taken over. All clones are about the same revision.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// It has taken over.
    pub(super) fn open(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Calls every tool of the functional check on an instance that answered and offers `catalog`. What does
/// not do what it should keeps the instance from serving while its revision has not taken over.
pub(super) async fn prove(
    instance: &Instance,
    link: &Link,
    catalog: &Arc<Catalog>,
) -> Result<(), Vec<Issue>> {
    let (context, watched) = (&instance.context, &instance.watched);
    let spec = watched.spec();
    if spec.functional.is_empty() || instance.gate.is_open() {
        return Ok(());
    }
    let rules = context.config.rules(&spec);
    let begun = context.clock.now();
    let mut schemas = Schemas::default();
    let mut findings = Vec::new();
    for check in &spec.functional {
        let look = functional::look(
            (&context.gateway, link, Some(catalog)),
            instance.resource.id,
            (check, rules.timeout),
            &mut schemas,
        );
        findings.push(in_turn(&context.checks, Box::pin(look)).await);
    }
    let issues = issues(&findings);
    // What earlier attempts found does not speak against this one.
    watched.keep(|kind| kind != Kind::Functional);
    if let Some(finding) = Finding::worst(findings) {
        let when = (begun, &context.clock);
        watched.note((Kind::Functional, finding), when, &rules);
    }
    if issues.is_empty() {
        Ok(())
    } else {
        Err(issues)
    }
}

fn issues(findings: &[Finding]) -> Vec<Issue> {
    let failed = |(index, finding): (usize, &Finding)| {
        let path = format!("spec.health.functional[{index}]");
        let is_failed = finding.verdict == Verdict::Fail;
        is_failed.then(|| Issue::new(path, finding.message.clone()))
    };
    findings.iter().enumerate().filter_map(failed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fails_speaks_against_taking_over_and_is_named_by_its_place() {
        let findings = [
            Finding::pass("well"),
            Finding::fail("`add` answers `3` instead of `4`"),
            Finding::warn("its schema cannot be used"),
            Finding::skip("broken off"),
        ];
        let expected = Issue::new(
            "spec.health.functional[1]",
            "`add` answers `3` instead of `4`",
        );
        assert_eq!(issues(&findings), [expected]);
    }

    #[test]
    fn all_instances_of_a_revision_go_through_one_gate() {
        let gate = Gate::default();
        let other = gate.clone();
        assert!(!other.is_open());
        gate.open();
        assert!(other.is_open());
    }
}
