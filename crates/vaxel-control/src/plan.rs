//! What has to be done so that a running service becomes what is wanted. Pure, so that every case is
//! a line in a table.

use vaxel_core::service::{Limits, ServiceResource};

/// The step from what runs to what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing runs and nothing should, or what runs is what is wanted.
    Rest,
    /// Nothing runs, something should.
    Start,
    /// Something runs that nobody wants any more.
    Stop,
    /// New instances take over from the running ones.
    Replace,
    /// The running instances serve on under other limits, names or filters.
    Retune,
}

/// Compares what is `wanted` (the stored resource, `None` when there is none) with what is `running`.
pub(crate) fn plan(wanted: Option<&ServiceResource>, running: Option<&ServiceResource>) -> Action {
    let wanted = wanted.filter(|one| one.enabled && one.deleted_at.is_none());
    match (wanted, running) {
        (None, None) => Action::Rest,
        (None, Some(_)) => Action::Stop,
        (Some(_), None) => Action::Start,
        (Some(wanted), Some(running)) if wanted.version == running.version => Action::Rest,
        (Some(wanted), Some(running)) if needs_new_instances(wanted, running) => Action::Replace,
        (Some(_), Some(_)) => Action::Retune,
    }
}

/// Whether the difference is one that only a new process or connection can show.
fn needs_new_instances(wanted: &ServiceResource, running: &ServiceResource) -> bool {
    let bounds = |limits: &Limits| (limits.memory, limits.processes, limits.open_files);
    let (new, old) = (&wanted.spec, &running.spec);
    new.source != old.source
        || new.replicas != old.replicas
        || new.era != old.era
        || new.identity != old.identity
        || bounds(&new.limits) != bounds(&old.limits)
        || wanted.name != running.name
}

#[cfg(test)]
mod tests {
    use vaxel_core::{
        id::Id,
        quantity::Size,
        service::{Builtin, EraChoice, Identity, IdentityToken, ServiceSpec, Source, Validate},
        time::Timestamp,
    };

    use super::*;

    fn resource() -> ServiceResource {
        let at = Timestamp::from_millis(1);
        ServiceResource {
            id: Id::new(at),
            name: "files".parse().unwrap(),
            version: 1,
            revision: 1,
            enabled: true,
            tags: Vec::new(),
            environment: "default".to_owned(),
            owner: "admin".to_owned(),
            spec: ServiceSpec::new(Source::Builtin(Builtin::Demo)),
            created_at: at,
            updated_at: at,
            activated_at: None,
            deleted_at: None,
            defect: None,
        }
    }

    fn changed(change: impl FnOnce(&mut ServiceResource)) -> ServiceResource {
        let mut next = resource();
        next.version = 2;
        change(&mut next);
        next
    }

    #[test]
    fn each_difference_asks_for_the_smallest_step() {
        let now = resource();
        let check = |wanted: &ServiceResource| plan(Some(wanted), Some(&now));
        assert_eq!(plan(None, None), Action::Rest);
        assert_eq!(plan(Some(&now), None), Action::Start);
        assert_eq!(plan(None, Some(&now)), Action::Stop);
        assert_eq!(check(&resource()), Action::Rest);
        assert_eq!(
            check(&changed(|one| one.tags.push("a".into()))),
            Action::Retune
        );
        assert_eq!(
            check(&changed(|one| one.spec.tools.deny.push("a".into()))),
            Action::Retune
        );
        assert_eq!(
            check(&changed(|one| one.spec.validate = Validate::All)),
            Action::Retune
        );
        assert_eq!(
            check(&changed(|one| one.spec.limits.concurrency = Some(1))),
            Action::Retune
        );
        assert_eq!(
            check(&changed(|one| one.spec.limits.memory = Some(Size(1)))),
            Action::Replace
        );
        assert_eq!(
            check(&changed(|one| one.spec.era = EraChoice::Modern)),
            Action::Replace
        );
        let told = Identity::Jwt(IdentityToken::default());
        assert_eq!(
            check(&changed(|one| one.spec.identity = told.clone())),
            Action::Replace
        );
        assert_eq!(
            check(&changed(|one| one.spec.replicas = 2)),
            Action::Replace
        );
        assert_eq!(
            check(&changed(|one| one.name = "other".parse().unwrap())),
            Action::Replace
        );
        assert_eq!(check(&changed(|one| one.enabled = false)), Action::Stop);
        let gone = changed(|one| one.deleted_at = Some(Timestamp::from_millis(2)));
        assert_eq!(check(&gone), Action::Stop);
        assert_eq!(plan(Some(&gone), None), Action::Rest);
    }
}
