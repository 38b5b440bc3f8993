//! Changes of services; their queries are in `query`.

use std::collections::HashSet;

use serde_json::{Value, json};
use vaxel_core::{
    access::{require, require_anywhere},
    audit::AuditLine,
    failure::{Failure, Issue, Kind},
    id::{Id, SecretValue},
    name::ServiceName,
    principal::{Permission, Principal},
    service::{HttpSource, McpSource, ServiceDraft, ServiceResource, ServiceSpec, Source},
    template::TemplateName,
};
use vaxel_store::{Error as StoreError, SecretRow};

use crate::{
    change::{Outcome, ServiceRef},
    control::{Control, conflict},
    event::Event,
};

mod derived;
mod listing;
pub(crate) mod query;

/// Action of [`crate::Change::RestartService`] in the audit.
const RESTART: &str = "service.restart";

impl Control {
    pub(crate) async fn create_service(
        &self,
        caller: &Principal,
        (mut draft, made): (ServiceDraft, Made),
    ) -> Result<Outcome, Failure> {
        may_write(caller, &draft.spec, made)?;
        let now = self.now();
        let id = Id::new(now);
        let taken = self.store().service_by_name(&draft.name).await?.is_some();
        let sealed = self
            .inner
            .context
            .vault
            .seal(id, &mut draft.spec, &HashSet::new(), now);
        let secrets = accepted(&draft, taken, sealed)?;
        let ServiceDraft {
            name,
            enabled,
            tags,
            environment,
            spec,
        } = draft;
        let resource = ServiceResource {
            id,
            name,
            version: 1,
            revision: 1,
            enabled,
            tags,
            environment,
            owner: caller.name.to_string(),
            spec,
            created_at: now,
            updated_at: now,
            activated_at: enabled.then_some(now),
            deleted_at: None,
            defect: None,
        };
        self.may_become(caller, &resource)?;
        self.inner.context.gateway.count_creation(caller)?;
        let mut audit = self.audit(caller, "service.create", &resource);
        audit.detail["source"] = resource.spec.source.kind().into();
        audit.detail["template"] = template_of(&resource.spec).into();
        let audit = audit.changing(Value::Null, wanted(&resource));
        let created = self.store().create_service(&resource, secrets, audit).await;
        created.map_err(|error| {
            self.inner.context.gateway.uncount_creation(caller);
            match error {
                StoreError::Taken => conflict(in_use(&resource.name)),
                other => other.into(),
            }
        })?;
        self.done(resource, "service.create").await
    }

    pub(crate) async fn update_service(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        (mut draft, expected): (ServiceDraft, Option<u64>),
        made: Made,
    ) -> Result<Outcome, Failure> {
        may_write(caller, &draft.spec, made)?;
        let old = self.find_for(caller, Permission::McpWrite, service).await?;
        compare(&old, expected)?;
        if made == Made::Manually {
            draft.spec.follow(&old.spec);
        }
        let own = self.secrets_to_keep(&old, &draft.spec).await?;
        self.replace_draft(caller, (old, draft), (own, None), made)
            .await
    }

    /// Writes `draft` in the place of what `old` says; `own` are the secrets that it may refer to.
    pub(crate) async fn replace_draft(
        &self,
        caller: &Principal,
        (old, mut draft): (ServiceResource, ServiceDraft),
        (own, rolled_back_to): (HashSet<Id<SecretValue>>, Option<u64>),
        made: Made,
    ) -> Result<Outcome, Failure> {
        may_write(caller, &draft.spec, made)?;
        compare(&old, self.terms.expected)?;
        let now = self.now();
        let named = self.store().service_by_name(&draft.name).await?;
        let taken = named.is_some_and(|other| other.id != old.id);
        if draft.enabled != old.enabled {
            self.may(caller, Permission::McpManage, &old)?;
        }
        let sealed = self
            .inner
            .context
            .vault
            .seal(old.id, &mut draft.spec, &own, now);
        let secrets = accepted(&draft, taken, sealed)?;
        let ServiceDraft {
            name,
            enabled,
            tags,
            environment,
            spec,
        } = draft;
        let next = ServiceResource {
            name,
            version: old.version + 1,
            enabled,
            tags,
            environment,
            spec,
            updated_at: now,
            activated_at: old.activated_at.or(enabled.then_some(now)),
            defect: None,
            ..old.clone()
        };
        self.may_become(caller, &next)?;
        // Its owner's name would lead the caller into local networks.
        if caller.name.as_ref() != old.owner
            && self.inner.context.is_insider(&old.owner)
            && !same_places(&old.spec, &next.spec)
        {
            require(caller, Permission::HostExecute)?;
        }
        let next = revised(&old, next);
        let action = match rolled_back_to {
            Some(_) => "service.rollback",
            None => "service.update",
        };
        let mut audit = self.audit(caller, action, &next);
        audit.detail["changed"] = differences(&old, &next).into();
        if let Some(template) = template_of(&next.spec) {
            audit.detail["template"] = template.into();
        }
        if let Some(revision) = rolled_back_to {
            audit.detail["to"] = revision.into();
        }
        let audit = audit.changing(wanted(&old), wanted(&next));
        self.replace((&old, &next), secrets, audit).await?;
        self.done(next, action).await
    }

    /// Whether a caller may make a service what it is to be: a policy may be about its new name, environment
    /// or tags.
    fn may_become(&self, caller: &Principal, next: &ServiceResource) -> Result<(), Failure> {
        let denied = |failure: Failure| match failure.kind {
            Kind::UnknownService => Failure::new(
                Kind::NotPermitted,
                format!(
                    "`{}` may not have a service such as this would be",
                    caller.name
                ),
            ),
            _ => failure,
        };
        let may = self.may(caller, Permission::McpWrite, next);
        may.map_err(denied)
    }

    pub(crate) async fn delete_service(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        expected: Option<u64>,
    ) -> Result<Outcome, Failure> {
        let _turn = self.inner.access.lock().await;
        let old = self
            .find_for(caller, Permission::McpManage, service)
            .await?;
        compare(&old, expected)?;
        let now = self.now();
        let next = ServiceResource {
            deleted_at: Some(now),
            ..self.touched(&old)
        };
        let deleted = self.write(caller, (&old, next), "service.delete").await?;
        // Its grants went with it.
        if self.inner.people.has_grants_of(old.id) {
            self.publish_access().await?;
        }
        Ok(deleted)
    }

    pub(crate) async fn restore_service(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Outcome, Failure> {
        let old = self
            .find_deleted_for(caller, Permission::McpManage, service)
            .await?;
        compare(&old, self.terms.expected)?;
        if self.store().service_by_name(&old.name).await?.is_some() {
            return Err(conflict(format!(
                "The name `{}` is taken meanwhile; rename the other service first",
                old.name
            )));
        }
        let next = ServiceResource {
            deleted_at: None,
            ..self.touched(&old)
        };
        self.write(caller, (&old, next), "service.restore").await
    }

    pub(crate) async fn enable_service(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        enabled: bool,
    ) -> Result<Outcome, Failure> {
        let old = self
            .find_for(caller, Permission::McpManage, service)
            .await?;
        compare(&old, self.terms.expected)?;
        if old.enabled == enabled {
            return Ok(Outcome::Service(Box::new(self.observe(old).await)));
        }
        let now = self.now();
        let next = ServiceResource {
            enabled,
            activated_at: old.activated_at.or(enabled.then_some(now)),
            ..self.touched(&old)
        };
        let next = revised(&old, next);
        let action = if enabled {
            "service.start"
        } else {
            "service.stop"
        };
        self.write(caller, (&old, next), action).await
    }

    pub(crate) async fn restart_service(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Outcome, Failure> {
        let old = self
            .find_for(caller, Permission::McpManage, service)
            .await?;
        compare(&old, self.terms.expected)?;
        if !old.enabled {
            return Err(conflict(format!(
                "`{0}` is stopped; `vaxel service start {0}` starts it",
                old.name
            )));
        }
        let next = self.touched(&old);
        self.write(caller, (&old, next), RESTART).await
    }

    pub(crate) async fn purge_service(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Outcome, Failure> {
        let old = self
            .find_deleted_for(caller, Permission::McpManage, service)
            .await?;
        compare(&old, self.terms.expected)?;
        let audit = self.audit(caller, "service.purge", &old);
        let audit = audit.changing(wanted(&old), Value::Null);
        match self.store().purge_service(old.id, audit).await {
            Ok(()) => {}
            Err(StoreError::Missing) => return Err(service.unknown()),
            Err(error) => return Err(error.into()),
        }
        self.announce(Event::Service {
            id: old.id,
            action: "service.purge",
        });
        Ok(Outcome::Done)
    }

    /// Which of the secrets of `old` the `next` spec may refer to: all of them, as long as they go
    /// where they went before. Otherwise whoever may change an address could have them sent to it.
    pub(crate) async fn secrets_to_keep(
        &self,
        old: &ServiceResource,
        next: &ServiceSpec,
    ) -> Result<HashSet<Id<SecretValue>>, Failure> {
        if !same_destination(&old.spec.source, &next.source) {
            return Ok(HashSet::new());
        }
        let rows = self.store().secrets(old.id).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// The service with the next version, written now.
    fn touched(&self, old: &ServiceResource) -> ServiceResource {
        ServiceResource {
            version: old.version + 1,
            updated_at: self.now(),
            ..old.clone()
        }
    }

    async fn write(
        &self,
        caller: &Principal,
        (old, next): (&ServiceResource, ServiceResource),
        action: &'static str,
    ) -> Result<Outcome, Failure> {
        let audit = self.audit(caller, action, &next);
        let state = |service: &ServiceResource| json!({ "enabled": service.enabled, "deleted_at": service.deleted_at });
        let audit = audit.changing(state(old), state(&next));
        self.replace((old, &next), Vec::new(), audit).await?;
        self.done(next, action).await
    }

    /// Writes `next` in the place of `old`, unless someone else wrote meanwhile.
    async fn replace(
        &self,
        (old, next): (&ServiceResource, &ServiceResource),
        secrets: Vec<SecretRow>,
        audit: AuditLine,
    ) -> Result<(), Failure> {
        let written = self
            .store()
            .update_service(next, old.version, secrets, audit)
            .await;
        match written {
            Ok(()) => Ok(()),
            Err(StoreError::Changed) => {
                let current = self.store().service(old.id).await?;
                Err(changed(current.as_ref().unwrap_or(old), old.version))
            }
            Err(StoreError::Taken) => Err(conflict(in_use(&next.name))),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn audit(
        &self,
        caller: &Principal,
        action: &'static str,
        service: &ServiceResource,
    ) -> AuditLine {
        let target = ("service", service.id.to_string(), service.name.to_string());
        let mut line = self.line(caller, action, target);
        line.detail = json!({ "version": service.version, "revision": service.revision });
        line
    }

    /// The change is on disk: everyone who acts on it is told.
    pub(crate) async fn done(
        &self,
        resource: ServiceResource,
        action: &'static str,
    ) -> Result<Outcome, Failure> {
        // One signal, not two: nobody may see the new version before its instances are new.
        if action == RESTART {
            self.inner.signals.restart(resource.id);
        } else {
            self.inner.signals.changed(resource.id);
        }
        self.announce(Event::Service {
            id: resource.id,
            action,
        });
        Ok(Outcome::Service(Box::new(self.observe(resource).await)))
    }
}

/// `next` with a revision of its own, when it says something else than `old`.
fn revised(old: &ServiceResource, mut next: ServiceResource) -> ServiceResource {
    let is_mended = old.defect.is_some() && next.defect.is_none();
    let differs = is_mended || !differences(old, &next).is_empty() || old.spec != next.spec;
    next.revision = old.revision + u64::from(differs);
    next
}

/// How a draft was made, and so who answers for the program in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// Whoever sends it wrote it, and answers.
    Manually,
    /// A template was rendered just now; whoever sends it answers.
    FromTemplate,
    /// A template was rendered just now; those who approved it answer.
    FromApproved,
}

pub(crate) fn may_write(caller: &Principal, spec: &ServiceSpec, made: Made) -> Result<(), Failure> {
    require_anywhere(caller, Permission::McpWrite)?;
    if spec.runs_on_host() && made != Made::FromApproved {
        require(caller, Permission::HostExecute)?;
    }
    Ok(())
}

/// What is wanted of a service, for the audit; secrets stand in it as references.
fn wanted(service: &ServiceResource) -> Value {
    json!({
        "name": service.name, "enabled": service.enabled, "tags": service.tags,
        "environment": service.environment, "owner": service.owner, "spec": service.spec,
    })
}

/// For the audit.
fn template_of(spec: &ServiceSpec) -> Option<&str> {
    let extends = spec.extends.as_deref()?;
    extends.template().map(TemplateName::as_str)
}

pub(crate) fn compare(service: &ServiceResource, expected: Option<u64>) -> Result<(), Failure> {
    match expected {
        Some(version) if version != service.version => Err(changed(service, version)),
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn changed(service: &ServiceResource, expected: u64) -> Failure {
    let (name, version) = (&service.name, service.version);
    Failure::new(
        Kind::VersionMismatch,
        format!(
            "`{name}` has version {version}, not {expected}: read it again and repeat the change"
        ),
    )
    .at_version(version)
}

/// Every problem of a draft together; the secrets to store when there is none.
fn accepted(
    draft: &ServiceDraft,
    taken: bool,
    sealed: Result<Vec<SecretRow>, Vec<Issue>>,
) -> Result<Vec<SecretRow>, Failure> {
    let name = &draft.name;
    let in_use = in_use(name);
    match (taken, sealed) {
        (false, Ok(secrets)) => Ok(secrets),
        (true, Ok(_)) => Err(conflict(in_use)),
        (taken, Err(mut issues)) => {
            if taken {
                issues.insert(0, Issue::new("name", in_use));
            }
            Err(Failure::invalid(&format!("The service `{name}`"), issues))
        }
    }
}

fn in_use(name: &ServiceName) -> String {
    format!("`{name}` is taken: another service has this name")
}

/// Whether the URLs of both lead to the same places.
fn same_places(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    let needs = |spec: &ServiceSpec| spec.health.dependency.clone();
    let is_remote = matches!(new.source, Source::Mcp(_) | Source::Http(_));
    needs(old) == needs(new) && (!is_remote || same_destination(&old.source, &new.source))
}

/// Whether sealed values of `old` would reach the same program kind or host as before.
fn same_destination(old: &Source, new: &Source) -> bool {
    let origin = |text: &str| text.parse::<url::Url>().map(|url| url.origin()).ok();
    match (old, new) {
        // Whoever runs programs here needs `host:execute` for every change.
        (Source::Process(_), Source::Process(_)) | (Source::Builtin(_), Source::Builtin(_)) => true,
        (Source::Mcp(old), Source::Mcp(new)) => {
            let issuer = |mcp: &McpSource| mcp.auth.oauth().and_then(|oauth| oauth.issuer.clone());
            origin(&old.url) == origin(&new.url) && issuer(old) == issuer(new)
        }
        // Each header goes to all instances: none may be new.
        (Source::Http(old), Source::Http(new)) => {
            let addresses: HashSet<String> = all_addresses(old).collect();
            all_addresses(new).all(|address| addresses.contains(&address))
        }
        (Source::Process(_) | Source::Mcp(_) | Source::Http(_) | Source::Builtin(_), _) => false,
    }
}

/// Scheme, host and port of every instance.
fn all_addresses(http: &HttpSource) -> impl Iterator<Item = String> {
    let of = |instance| format!("{}://{instance}", http.scheme);
    http.instances.iter().map(of)
}

/// Names of what differs, for the audit; never a value.
fn differences(old: &ServiceResource, new: &ServiceResource) -> Vec<&'static str> {
    let (left, right) = (&old.spec, &new.spec);
    let parts = [
        ("name", old.name != new.name),
        ("enabled", old.enabled != new.enabled),
        ("tags", old.tags != new.tags),
        ("environment", old.environment != new.environment),
        ("title", left.title != right.title),
        ("description", left.description != right.description),
        ("source", left.source != right.source),
        ("replicas", left.replicas != right.replicas),
        ("balance", left.balance != right.balance),
        ("idle_timeout", left.idle_timeout != right.idle_timeout),
        ("era", left.era != right.era),
        ("tools", left.tools != right.tools),
        ("validate", left.validate != right.validate),
        ("identity", left.identity != right.identity),
        ("limits", left.limits != right.limits),
        ("depends_on", left.depends_on != right.depends_on),
        ("lease", left.lease != right.lease),
        ("health", left.health != right.health),
        ("extends", left.extends != right.extends),
    ];
    parts
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| name)
        .collect()
}
