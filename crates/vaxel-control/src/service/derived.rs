//! Services that are made from templates: rendered on their way in, and again when someone asks.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use vaxel_core::{
    access::require_anywhere,
    failure::{Failure, Issue, Kind},
    principal::{Permission, Principal},
    secret::Secret,
    service::{
        Derivation, SecretRef, ServiceDraft, ServiceResource, ServiceSpec, Setting, settings,
    },
    template::{Chain, DerivedDraft, Extends, Origin},
};

use super::{Made, compare, same_destination};
use crate::{
    change::{Outcome, ServiceRef},
    control::{Control, conflict},
    template::is_fixed,
};

impl Control {
    pub(crate) async fn create_derived(
        &self,
        caller: &Principal,
        derived: DerivedDraft,
    ) -> Result<Outcome, Failure> {
        require_anywhere(caller, Permission::McpWrite)?;
        let (draft, made) = self.rendered(caller, derived, None).await?;
        self.create_service(caller, (draft, made)).await
    }

    pub(crate) async fn update_derived(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        (derived, expected): (DerivedDraft, Option<u64>),
    ) -> Result<Outcome, Failure> {
        let old = self.find_for(caller, Permission::McpWrite, service).await?;
        compare(&old, expected)?;
        let (draft, made) = self.rendered(caller, derived, Some(&old)).await?;
        let draft = (draft, Some(old.version));
        self.update_service(caller, &ServiceRef::Id(old.id), draft, made)
            .await
    }

    /// Renders the template again as it is now; the values and overrides of the service stay.
    pub(crate) async fn refresh_service(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        expected: Option<u64>,
    ) -> Result<Outcome, Failure> {
        let old = self.find_for(caller, Permission::McpWrite, service).await?;
        compare(&old, expected)?;
        let Some(derived) = again(&old)? else {
            return Err(conflict(format!(
                "`{}` was not made from a template",
                old.name
            )));
        };
        let (draft, made) = self.rendered(caller, derived, Some(&old)).await?;
        if draft.spec == old.spec {
            return Ok(Outcome::Service(Box::new(self.observe(old).await)));
        }
        let draft = (draft, Some(old.version));
        self.update_service(caller, &ServiceRef::Id(old.id), draft, made)
            .await
    }

    /// Every value of a service's configuration, and where it came from. `mcp:read`.
    pub async fn service_config(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Vec<Setting>, Failure> {
        let service = self.find_for(caller, Permission::McpRead, service).await?;
        Ok(settings(&service.spec))
    }

    /// The draft that comes of a template, and who answers for the program in it. Sealed parameters of
    /// `old` that are kept stand in it as references, and so do values that come out the same.
    pub(crate) async fn rendered(
        &self,
        caller: &Principal,
        mut derived: DerivedDraft,
        old: Option<&ServiceResource>,
    ) -> Result<(ServiceDraft, Made), Failure> {
        let template = &derived.extends.template;
        let before = old.and_then(|old| old.spec.extends.as_deref());
        let chain = if before.is_some_and(|before| before.template() == Some(template)) {
            self.chain(template).await?
        } else {
            self.chain_for(caller, template).await?
        };
        let chain = chain.map_err(|issue| invalid(vec![issue]))?;
        let sent = derived.extends.with.clone();
        let kept = self.open_kept(&chain, &mut derived.extends, old).await?;
        let mut draft = chain.render(&derived).map_err(invalid)?;
        if let Some(old) = old
            && !same_destination(&old.spec.source, &draft.spec.source)
        {
            let moved = "was sealed for another destination: send the value itself";
            let issues = kept
                .iter()
                .map(|name| Issue::new(format!("parameters.{name}"), moved));
            let issues: Vec<Issue> = issues.collect();
            if !issues.is_empty() {
                return Err(invalid(issues));
            }
        }
        let may_execute = caller.permissions.contains(Permission::HostExecute);
        let made = if draft.spec.runs_on_host() && !may_execute {
            let before = old.and_then(|old| old.spec.extends.as_deref());
            may_start(&chain, &mut draft.spec, before.filter(|_| !kept.is_empty()))?;
            Made::FromApproved
        } else {
            Made::FromTemplate
        };
        let references = draft.spec.sealed_parameters();
        for (name, value) in references.filter(|(name, _)| kept.iter().any(|one| one == name)) {
            if let Some(Value::String(reference)) = sent.get(name) {
                value.clone_from(reference);
            }
        }
        if let Some(old) = old {
            self.reuse(old, &mut draft.spec).await?;
        }
        Ok((draft, made))
    }

    /// Opens the references that stand for secret parameters of the same template in `old`; answers the
    /// names of those parameters. Any other reference is refused.
    async fn open_kept(
        &self,
        chain: &Chain,
        extends: &mut Extends,
        old: Option<&ServiceResource>,
    ) -> Result<Vec<String>, Failure> {
        let references = |value: &Value| value.as_str().and_then(SecretRef::parse).is_some();
        if !extends.with.values().any(references) {
            return Ok(Vec::new());
        }
        let known = old.and_then(|old| old.spec.extends.as_deref());
        let known = known.filter(|known| known.template() == Some(&extends.template));
        let mut opened: BTreeMap<String, Secret<String>> = BTreeMap::new();
        if let (Some(old), Some(_)) = (old, known) {
            opened = self
                .inner
                .context
                .vault
                .open_parameters(old.id, &old.spec)
                .await?;
        }
        let (mut kept, mut issues) = (Vec::new(), Vec::new());
        for (name, value) in extends
            .with
            .iter_mut()
            .filter(|(_, value)| references(value))
        {
            let same = known
                .and_then(|known| known.sealed.get(name))
                .map(String::as_str);
            let is_it = chain.is_secret(name) && same == value.as_str();
            match opened.get(name).filter(|_| is_it) {
                Some(secret) => {
                    *value = secret.expose().as_str().into();
                    kept.push(name.clone());
                }
                None => issues.push(Issue::new(
                    format!("parameters.{name}"),
                    "refers to a secret that is not this parameter's: send the value itself",
                )),
            }
        }
        if issues.is_empty() {
            Ok(kept)
        } else {
            Err(invalid(issues))
        }
    }

    /// Puts the references of `old` in the place of values that are the same, so that what did not
    /// change does not look changed.
    async fn reuse(&self, old: &ServiceResource, spec: &mut ServiceSpec) -> Result<(), Failure> {
        if !same_destination(&old.spec.source, &spec.source) {
            return Ok(());
        }
        let opened = self.inner.context.vault.open(old.id, &old.spec).await?;
        let mut before = old.spec.clone();
        let references: HashMap<String, String> = before
            .sensitive_values()
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect();
        for (name, value) in spec.sensitive_values() {
            let same = opened
                .get(name)
                .is_some_and(|before| before.expose() == value);
            if let Some(reference) = references.get(name).filter(|_| same) {
                value.clone_from(reference);
            }
        }
        Ok(())
    }
}

/// What a caller without `host:execute` may start: what comes of templates that were all approved, with
/// the source as they say. With `before`, sealed values are kept: then everything else stays, too, or
/// they could be sent where nobody meant them to go.
fn may_start(
    chain: &Chain,
    spec: &mut ServiceSpec,
    before: Option<&Derivation>,
) -> Result<(), Failure> {
    let refuse = |reason: String| {
        let detail = format!("{reason}; that needs the permission `host:execute`");
        Err(Failure::new(Kind::NotPermitted, detail))
    };
    let open: Vec<String> = chain
        .unapproved(is_fixed)
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect();
    if !open.is_empty() {
        return refuse(format!(
            "This starts a program by a template that is not approved: {}",
            open.join(", ")
        ));
    }
    let has_references = spec
        .sensitive_values()
        .any(|(_, value)| SecretRef::parse(value).is_some());
    let Some(derivation) = spec.extends.as_deref() else {
        return refuse("This starts a program".to_owned());
    };
    let mut given = derivation.from.iter();
    let overrides = given.any(|(path, from)| *from == Origin::Own && path.starts_with("source."))
        || derivation
            .removed
            .iter()
            .any(|path| path.starts_with("/source"));
    if overrides || has_references {
        return refuse("This changes the `source` of an approved template".to_owned());
    }
    if before.is_some_and(|before| before.with != derivation.with) {
        return refuse("This keeps sealed parameters and changes others".to_owned());
    }
    Ok(())
}

/// The draft that a service was made from.
fn again(service: &ServiceResource) -> Result<Option<DerivedDraft>, Failure> {
    let Some(derivation) = service.spec.extends.as_deref() else {
        return Ok(None);
    };
    let template = derivation
        .template()
        .ok_or_else(|| Failure::internal("a derivation names no template"))?;
    let sealed = derivation.sealed.iter();
    let sealed = sealed.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let with = derivation.with.clone().into_iter().chain(sealed);
    let draft = ServiceDraft {
        name: service.name.clone(),
        enabled: service.enabled,
        tags: service.tags.clone(),
        environment: service.environment.clone(),
        spec: service.spec.clone(),
    };
    let mut rest = serde_json::to_value(&draft).map_err(Failure::internal)?;
    let rest = rest.as_object_mut().map(std::mem::take);
    let mut rest = rest.unwrap_or_default();
    rest.remove("spec");
    Ok(Some(DerivedDraft {
        extends: Extends {
            template: template.clone(),
            with: with.collect(),
        },
        own: service.spec.own(),
        rest,
    }))
}

fn invalid(issues: Vec<Issue>) -> Failure {
    Failure::invalid("The service", issues)
}
