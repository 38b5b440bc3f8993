//! What would be done with each resource of a document: compared with what is stored, allowed, and
//! with every problem at its place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde_json::{Value, json};
use vaxel_core::{
    access::{require, require_anywhere},
    bundle::{Bundle, Entry, StepAction, StepResource, WantedService, below},
    dependencies::Dependencies,
    difference::{Difference, differences},
    failure::{Failure, Issue, Kind},
    id::{Id, SecretValue},
    name::ServiceName,
    principal::{Permission, Principal},
    secret::Secret,
    service::{SecretRef, ServiceDraft, ServiceResource, ServiceSpec},
    template::Template,
    toolset::ToolsetDraft,
};

use super::{Plan, Step};
use crate::{
    change::{Change, ServiceRef, ToolsetRef},
    control::Control,
    seal::place,
    service::{Made, may_write},
    template::may_write_template,
};

/// What stands in a plan where a value is new: it may be secret.
const MASKED: &str = "***";

impl Control {
    /// What [`Control::apply_bundle`] would do. Each step is allowed to the caller; `prune` names the tag
    /// of services that are removed when the document does not hold them. `mcp:read`, and what the changes
    /// need.
    ///
    /// # Errors
    /// `Invalid` with every problem of every resource, `NotPermitted`.
    pub async fn plan(
        &self,
        caller: &Principal,
        bundle: Bundle,
        prune: Option<&str>,
    ) -> Result<Plan, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        require_anywhere(caller, Permission::McpWrite)?;
        let Bundle {
            services,
            toolsets,
            templates,
            mut issues,
        } = bundle;
        let names = services.iter().map(|entry| entry.value.name().clone());
        let pruned = self.pruned(&names.collect(), prune).await?;
        let planned = self.plan_templates(caller, templates, &mut issues).await?;
        let (mut steps, control) = planned;
        let mut wanted = Vec::with_capacity(services.len());
        for Entry { path, value } in services {
            let step = control.plan_service(caller, value).await;
            let step = at_its_place(&path, step, &mut issues)?;
            wanted.extend(step.map(|(needs, step)| (path, needs, step)));
        }
        let map = self.wanted_dependencies(&wanted, &pruned).await?;
        issues.extend(circles(&map, &wanted));
        let order: HashMap<&str, usize> = map
            .order()
            .into_iter()
            .map(ServiceName::as_str)
            .zip(0..)
            .collect();
        wanted.sort_by_key(|(_, _, step)| order.get(&*step.name).copied());
        steps.extend(wanted.into_iter().map(|(_, _, step)| step));
        for Entry { path: _, value } in toolsets {
            steps.push(self.plan_toolset(caller, value).await?);
        }
        // Who needs goes before what it needs.
        for service in pruned.into_iter().rev() {
            self.may(caller, Permission::McpManage, &service)?;
            steps.push(removal(&service));
        }
        if issues.is_empty() {
            Ok(Plan { steps })
        } else {
            Err(Failure::invalid("What is to be applied", issues))
        }
    }

    /// The steps of templates, each after what it extends, and a control that knows them all already.
    async fn plan_templates(
        &self,
        caller: &Principal,
        templates: Vec<Entry<Template>>,
        issues: &mut Vec<Issue>,
    ) -> Result<(Vec<Step>, Self), Failure> {
        let mut control = self.clone();
        let mut known = Vec::with_capacity(templates.len());
        let mut wanted = Vec::with_capacity(templates.len());
        for Entry { path, value } in templates {
            let stored = self.store().template(&value.name).await?;
            let version = stored.as_ref().map_or(1, |stored| stored.version);
            let old = stored.as_ref().map(|stored| &stored.template);
            let new = serde_json::to_value(&value).map_err(Failure::internal)?;
            let differences = differing(old, &new)?;
            let version = version + u64::from(stored.is_some() && !differences.is_empty());
            known.push((value.clone(), version));
            wanted.push((
                path,
                value,
                version,
                stored.map(|stored| stored.version),
                differences,
            ));
        }
        control.planned = known.into();
        let mut steps = Vec::with_capacity(wanted.len());
        for (path, template, version, stored, differences) in wanted {
            let action = action(stored.is_some(), &differences);
            if action != StepAction::Unchanged {
                let checked = match may_write_template(caller, &template) {
                    Ok(()) => control.fits(&template, version).await,
                    Err(failure) => Err(failure),
                };
                at_its_place(&path, checked, issues)?;
            }
            steps.push((template, action, stored, differences));
        }
        let steps = extended_first(steps).into_iter();
        let step = |(template, action, stored, differences): TemplateStep| Step {
            resource: StepResource::Template,
            name: template.name.to_string(),
            action,
            differences,
            change: match (action, stored) {
                (StepAction::Unchanged, _) => None,
                (_, None) => Some(Box::new(Change::CreateTemplate(Box::new(template)))),
                (_, expected) => Some(Box::new(Change::UpdateTemplate {
                    name: template.name.to_string(),
                    template: Box::new(template),
                    expected,
                })),
            },
        };
        Ok((steps.map(step).collect(), control))
    }

    /// What is done with a service, and what it needs then.
    async fn plan_service(
        &self,
        caller: &Principal,
        wanted: WantedService,
    ) -> Result<(Vec<ServiceName>, Step), Failure> {
        let stored = self.store().service_by_name(wanted.name()).await?;
        let (mut draft, made) = match &wanted {
            WantedService::Plain(draft) => ((**draft).clone(), Made::Manually),
            WantedService::Derived { draft, .. } => {
                let derived = (**draft).clone();
                self.rendered(caller, derived, stored.as_ref()).await?
            }
        };
        let issues = self.keep_values(stored.as_ref(), &mut draft).await?;
        if !issues.is_empty() {
            return Err(Failure::invalid("The service", issues));
        }
        if let (Some(old), Made::Manually) = (&stored, made) {
            draft.spec.follow(&old.spec);
        }
        // What cannot be read is replaced, whatever is left of it.
        let sound = stored.clone().filter(|old| old.defect.is_none());
        let differences = match sound.map(ServiceDraft::from) {
            Some(old) => differing(Some(&old), &shown(&draft)?)?,
            None => new_settings(&draft)?,
        };
        let action = action(stored.is_some(), &differences);
        if action != StepAction::Unchanged {
            may_write(caller, &draft.spec, made)?;
            let old = stored.as_ref();
            old.map_or(Ok(()), |old| self.may(caller, Permission::McpWrite, old))?;
        }
        if let Some(old) = stored.as_ref().filter(|old| old.enabled != draft.enabled) {
            self.may(caller, Permission::McpManage, old)?;
        }
        let (name, needs) = (draft.name.to_string(), draft.spec.depends_on.clone());
        let change = match (action, stored, wanted) {
            (StepAction::Unchanged, _, _) => None,
            (_, None, WantedService::Plain(_)) => Some(Change::CreateService(Box::new(draft))),
            (_, None, WantedService::Derived { draft, .. }) => Some(Change::CreateDerived(draft)),
            (_, Some(old), WantedService::Plain(_)) => Some(Change::UpdateService {
                service: ServiceRef::Id(old.id),
                draft: Box::new(draft),
                expected: Some(old.version),
            }),
            (_, Some(old), WantedService::Derived { draft, .. }) => Some(Change::UpdateDerived {
                service: ServiceRef::Id(old.id),
                draft,
                expected: Some(old.version),
            }),
        };
        let step = Step {
            resource: StepResource::Service,
            name,
            action,
            differences,
            change: change.map(Box::new),
        };
        Ok((needs, step))
    }

    async fn plan_toolset(&self, caller: &Principal, draft: ToolsetDraft) -> Result<Step, Failure> {
        let stored = self.store().toolset_by_name(&draft.name).await?;
        let old = stored.clone().map(ToolsetDraft::from);
        let new = serde_json::to_value(&draft).map_err(Failure::internal)?;
        let differences = differing(old.as_ref(), &new)?;
        let action = action(stored.is_some(), &differences);
        if action != StepAction::Unchanged {
            require(caller, Permission::McpManage)?;
        }
        let name = draft.name.to_string();
        let change = match (action, stored) {
            (StepAction::Unchanged, _) => None,
            (_, None) => Some(Change::CreateToolset(draft)),
            (_, Some(old)) => Some(Change::UpdateToolset {
                toolset: ToolsetRef::Id(old.id),
                draft,
                expected: Some(old.version),
            }),
        };
        Ok(Step {
            resource: StepResource::Toolset,
            name,
            action,
            differences,
            change: change.map(Box::new),
        })
    }

    /// Lets `draft` refer to the sealed values that it says in clear, so that what did not change does
    /// not look as if it had; answers the references that lead nowhere.
    async fn keep_values(
        &self,
        old: Option<&ServiceResource>,
        draft: &mut ServiceDraft,
    ) -> Result<Vec<Issue>, Failure> {
        let (mut own, mut kept, mut opened) = (
            HashSet::new(),
            [const { BTreeMap::new() }; 2],
            [const { BTreeMap::new() }; 2],
        );
        if let Some(old) = old {
            own = self.secrets_to_keep(old, &draft.spec).await?;
            kept = references(&old.spec);
        }
        if let Some(old) = old.filter(|_| !own.is_empty()) {
            // What cannot be opened cannot be compared either: it is written anew.
            let vault = &self.inner.context.vault;
            let parameters = vault.open_parameters(old.id, &old.spec).await;
            opened = [
                vault.open(old.id, &old.spec).await.unwrap_or_default(),
                parameters.unwrap_or_default(),
            ];
        }
        let mut issues = Vec::new();
        let [opened, parameters] = opened;
        let [kept, sealed] = kept;
        let place = place(&draft.spec);
        for (name, value) in draft.spec.sensitive_values() {
            let known = (opened.get(name), kept.get(name));
            let problem = keep_value(value, known, &own);
            issues.extend(problem.map(|text| Issue::new(format!("{place}.{name}"), text)));
        }
        for (name, value) in draft.spec.sealed_parameters() {
            let known = (parameters.get(name), sealed.get(name));
            let problem = keep_value(value, known, &own);
            let place = format!("spec.extends.sealed.{name}");
            issues.extend(problem.map(|text| Issue::new(place, text)));
        }
        Ok(issues)
    }

    /// The services with the tag that `wanted` does not hold, each after what it needs.
    async fn pruned(
        &self,
        wanted: &BTreeSet<ServiceName>,
        tag: Option<&str>,
    ) -> Result<Vec<ServiceResource>, Failure> {
        let Some(tag) = tag else {
            return Ok(Vec::new());
        };
        let all = self.store().all_services().await?.into_iter();
        let mut left: BTreeMap<ServiceName, ServiceResource> = all
            .filter(|one| one.tags.iter().any(|own| own == tag) && !wanted.contains(&one.name))
            .map(|one| (one.name.clone(), one))
            .collect();
        let map = left.values();
        let map: Dependencies = map
            .map(|one| (one.name.clone(), one.spec.depends_on.clone()))
            .collect();
        let order: Vec<ServiceName> = map.order().into_iter().cloned().collect();
        Ok(order.iter().filter_map(|name| left.remove(name)).collect())
    }

    /// Who needs whom when everything is as it is asked for.
    async fn wanted_dependencies(
        &self,
        wanted: &[(String, Vec<ServiceName>, Step)],
        pruned: &[ServiceResource],
    ) -> Result<Dependencies, Failure> {
        let stored = self.store().dependencies().await?;
        let mut needs: BTreeMap<ServiceName, Vec<ServiceName>> = stored
            .iter()
            .map(|(name, needs)| (name.clone(), needs.iter().cloned().collect()))
            .collect();
        for (_, own, step) in wanted {
            let name: Result<ServiceName, _> = step.name.parse();
            needs.extend(name.map(|name| (name, own.clone())));
        }
        for service in pruned {
            needs.remove(&service.name);
        }
        Ok(needs.into_iter().collect())
    }
}

/// A template that is written, or is there already: what is done, the version that is stored, and what
/// differs.
type TemplateStep = (Template, StepAction, Option<u64>, Vec<Difference>);

/// Every template after the one that it extends.
fn extended_first(mut steps: Vec<TemplateStep>) -> Vec<TemplateStep> {
    let mut ordered: Vec<TemplateStep> = Vec::with_capacity(steps.len());
    while !steps.is_empty() {
        let waits = |step: &TemplateStep| {
            let extends = step.0.extends.as_ref();
            extends.is_some_and(|extends| steps.iter().any(|one| one.0.name == extends.template))
        };
        // Circles are refused before.
        let next = steps.iter().position(|step| !waits(step)).unwrap_or(0);
        ordered.push(steps.remove(next));
    }
    ordered
}

/// What came of one resource; its problems go where it stands, other failures end everything.
fn at_its_place<T>(
    path: &str,
    result: Result<T, Failure>,
    issues: &mut Vec<Issue>,
) -> Result<Option<T>, Failure> {
    let failure = match result {
        Ok(value) => return Ok(Some(value)),
        Err(failure) => failure,
    };
    match failure.kind {
        Kind::Invalid if !failure.issues.is_empty() => {
            let found = failure.issues.into_iter();
            issues.extend(found.map(|one| Issue::new(below(path, &one.path), one.message)));
        }
        Kind::Invalid | Kind::Conflict => issues.push(Issue::new(path, failure.detail)),
        _ => return Err(failure),
    }
    Ok(None)
}

/// Every circle, once, at the first service of the document that is part of it.
fn circles(map: &Dependencies, wanted: &[(String, Vec<ServiceName>, Step)]) -> Vec<Issue> {
    let mut seen: BTreeSet<ServiceName> = BTreeSet::new();
    let mut issues = Vec::new();
    for (path, needs, step) in wanted {
        let Ok(name) = step.name.parse() else {
            continue;
        };
        if needs.is_empty() || seen.contains(&name) {
            continue;
        }
        if let Some(circle) = map.cycle(&name, needs) {
            let names: Vec<&str> = circle.iter().map(ServiceName::as_str).collect();
            let message = format!("closes a circle: {}", names.join(" → "));
            issues.push(Issue::new(below(path, "spec.depends_on"), message));
            seen.extend(circle);
        }
    }
    issues
}

/// Lets a value that is sealed already be the reference that is `kept`; what is wrong with a reference.
fn keep_value(
    value: &mut String,
    (opened, kept): (Option<&Secret<String>>, Option<&String>),
    own: &HashSet<Id<SecretValue>>,
) -> Option<String> {
    match SecretRef::parse(value) {
        Some(SecretRef(id)) if own.contains(&id) => None,
        Some(_) => Some(format!(
            "`{value}` refers to a value that is not here: write the value, or `${{NAME}}` to take it \
             from the environment of `vaxel apply`"
        )),
        None => {
            let is_same = opened.is_some_and(|old| old.expose() == value);
            if let Some(reference) = kept.filter(|_| is_same) {
                value.clone_from(reference);
            }
            None
        }
    }
}

fn removal(service: &ServiceResource) -> Step {
    Step {
        resource: StepResource::Service,
        name: service.name.to_string(),
        action: StepAction::Delete,
        differences: Vec::new(),
        change: Some(Box::new(Change::DeleteService {
            service: ServiceRef::Id(service.id),
            expected: Some(service.version),
        })),
    }
}

fn action(exists: bool, differences: &[Difference]) -> StepAction {
    match (exists, differences.is_empty()) {
        (false, _) => StepAction::Create,
        (true, false) => StepAction::Update,
        (true, true) => StepAction::Unchanged,
    }
}

/// Both in their canonical forms, in which everything is said, defaults too.
fn differing<T: Serialize>(old: Option<&T>, new: &Value) -> Result<Vec<Difference>, Failure> {
    let old = match old {
        Some(old) => serde_json::to_value(old).map_err(Failure::internal)?,
        None => json!({}),
    };
    Ok(differences(&old, new))
}

/// What a new service says that is no default.
fn new_settings(draft: &ServiceDraft) -> Result<Vec<Difference>, Failure> {
    let source = draft.spec.source.clone();
    let plain = ServiceDraft::new(draft.name.clone(), source);
    let mut plain = serde_json::to_value(plain).map_err(Failure::internal)?;
    if let Some(spec) = plain["spec"].as_object_mut() {
        spec.remove("source");
    }
    Ok(differences(&plain, &shown(draft)?))
}

/// A draft without the values that it says in clear.
fn shown(draft: &ServiceDraft) -> Result<Value, Failure> {
    let mut draft = draft.clone();
    let mask = |(_, value): (&str, &mut String)| {
        if SecretRef::parse(value).is_none() {
            MASKED.clone_into(value);
        }
    };
    draft.spec.sensitive_values().for_each(mask);
    draft.spec.sealed_parameters().for_each(mask);
    serde_json::to_value(draft).map_err(Failure::internal)
}

/// The references of a stored spec, by the names of their values, and by those of their parameters.
fn references(spec: &ServiceSpec) -> [BTreeMap<String, String>; 2] {
    let mut spec = spec.clone();
    let owned = |(name, value): (&str, &mut String)| (name.to_owned(), value.clone());
    let values = spec.sensitive_values().map(owned).collect();
    [values, spec.sealed_parameters().map(owned).collect()]
}
