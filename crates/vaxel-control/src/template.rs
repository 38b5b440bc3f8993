//! Changes and queries of templates: those of the binary, and own ones that are stored.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vaxel_core::{
    access::{require, require_anywhere},
    audit::AuditLine,
    failure::{Failure, Issue, Kind},
    principal::{Permission, Principal},
    service::ServiceSpec,
    template::{Chain, Parameter, Template, TemplateName},
    time::Timestamp,
};
use vaxel_store::{Error as StoreError, TemplateRow};

use crate::{
    change::Outcome,
    control::{Control, conflict},
    event::Event,
};

mod builtin;

/// Most templates that are kept: lists of them have no pages.
const TEMPLATES_MAX: usize = 1_000;

/// A template with what is known about it.
#[derive(Debug, Clone)]
pub struct TemplateEntry {
    /// What it says.
    pub template: Template,
    /// Counts every write.
    pub version: u64,
    /// Who wrote it last, and when it was made and written; `None`: it is part of the binary.
    pub written: Option<Written>,
    /// What it is laid over, the nearest first.
    pub chain: Vec<TemplateName>,
    /// The parameters that it takes: its own, and what it leaves open of what it extends.
    pub accepts: BTreeMap<String, Parameter>,
    /// Why it cannot be used as it is.
    pub problems: Vec<Issue>,
}

/// Who wrote a template, and when.
#[derive(Debug, Clone)]
pub struct Written {
    /// Name of the principal.
    pub author: String,
    /// First made.
    pub created_at: Timestamp,
    /// Last written.
    pub updated_at: Timestamp,
    /// Why it cannot be read as it is stored.
    pub issues: Vec<Issue>,
}

impl Control {
    /// Every template by name, those of the binary among them; the approved ones for who reads nothing but
    /// what is its own. `mcp:read`.
    pub async fn templates(&self, caller: &Principal) -> Result<Vec<TemplateEntry>, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        let rows = self.store().templates().await?;
        let mut known: BTreeMap<TemplateName, (Template, u64, Option<Written>)> = builtin::all()
            .iter()
            .map(|(one, version)| (one.name.clone(), (one.clone(), *version, None)))
            .collect();
        for row in rows {
            let (template, version, written) = taken_apart(row);
            known.insert(template.name.clone(), (template, version, Some(written)));
        }
        let find = |name: &TemplateName| {
            let found = known.get(name);
            found.map(|(template, version, _)| (template.clone(), *version))
        };
        let seen = known
            .values()
            .filter(|(template, _, _)| may_see(caller, template));
        let entries = seen.map(|(template, version, written)| {
            let linked = link((template.clone(), *version), find);
            entry((template.clone(), *version, written.clone()), linked)
        });
        Ok(entries.collect())
    }

    /// One template. `mcp:read`.
    pub async fn template(&self, caller: &Principal, name: &str) -> Result<TemplateEntry, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        let name: TemplateName = name.parse().map_err(|_| unknown(name))?;
        let (template, version, written) = if let Some((template, version)) = builtin::find(&name) {
            (template.clone(), *version, None)
        } else {
            let (template, version, written) = taken_apart(self.stored(&name).await?);
            (template, version, Some(written))
        };
        if !may_see(caller, &template) {
            return Err(unknown(name.as_str()));
        }
        let linked = self.chain_of((template.clone(), version)).await?;
        Ok(entry((template, version, written), linked))
    }

    pub(crate) async fn create_template(
        &self,
        caller: &Principal,
        template: Template,
    ) -> Result<Outcome, Failure> {
        may_write_template(caller, &template)?;
        self.fits(&template, 1).await?;
        if self.store().template_versions().await?.len() >= TEMPLATES_MAX {
            return Err(conflict(format!(
                "There are {TEMPLATES_MAX} templates already; remove some first"
            )));
        }
        let mut audit = self.audit_template(caller, "template.create", &template.name);
        audit.detail = facts(&template);
        let audit = audit.changing(Value::Null, json!(template));
        let made = self.store().create_template(&template, audit).await;
        let row = made.map_err(|error| match error {
            StoreError::Taken => conflict(format!(
                "`{}` is taken: another template has this name",
                template.name
            )),
            other => other.into(),
        })?;
        self.template_done(row, "template.create").await
    }

    pub(crate) async fn update_template(
        &self,
        caller: &Principal,
        name: &str,
        (template, expected): (Template, Option<u64>),
    ) -> Result<Outcome, Failure> {
        may_write_template(caller, &template)?;
        if template.name.as_str() != name {
            let message = format!("is another name than `{name}`: a template cannot be renamed");
            let issues = vec![Issue::new("name", message)];
            return Err(Failure::invalid("The template", issues));
        }
        let old = self.stored(&template.name).await?;
        compare(&old, expected)?;
        self.fits(&template, old.version + 1).await?;
        let mut audit = self.audit_template(caller, "template.update", &template.name);
        audit.detail = facts(&template);
        let audit = audit.changing(json!(old.template), json!(template));
        let written = self.store().update_template(&template, old.version, audit);
        let row = match written.await {
            Ok(row) => row,
            Err(error) => return Err(self.overtaken(error, &old).await?),
        };
        self.template_done(row, "template.update").await
    }

    pub(crate) async fn delete_template(
        &self,
        caller: &Principal,
        name: &str,
        expected: Option<u64>,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::McpManage)?;
        let name: TemplateName = name.parse().map_err(|_| unknown(name))?;
        if builtin::find(&name).is_some() {
            return Err(fixed(&name));
        }
        let old = self.stored(&name).await?;
        compare(&old, expected)?;
        let rows = self.store().templates().await?;
        let above = rows.iter().find(|row| {
            let extends = row.template.extends.as_ref();
            extends.is_some_and(|extends| extends.template == name)
        });
        if let Some(above) = above {
            let other = &above.template.name;
            return Err(conflict(format!(
                "`{name}` is extended by the template `{other}`; change or remove that one first"
            )));
        }
        let audit = self.audit_template(caller, "template.delete", &name);
        let audit = audit.changing(json!(old.template), Value::Null);
        let deleted = self
            .store()
            .delete_template(&name, old.version, audit)
            .await;
        if let Err(error) = deleted {
            return Err(self.overtaken(error, &old).await?);
        }
        let action = "template.delete";
        self.announce(Event::Template { name, action });
        Ok(Outcome::Done)
    }

    /// The template with everything that it extends.
    pub(crate) async fn chain(&self, name: &TemplateName) -> Result<Result<Chain, Issue>, Failure> {
        match self.find_template(name).await? {
            Some(found) => self
                .chain_of(found)
                .await
                .map(|(chain, issue)| match issue {
                    Some(issue) => Err(issue),
                    None => Ok(chain),
                }),
            None => Ok(Err(Issue::new("extends", missing(name)))),
        }
    }

    /// The same for who may not see every template: what is hidden is as if it were not there.
    pub(crate) async fn chain_for(
        &self,
        caller: &Principal,
        name: &TemplateName,
    ) -> Result<Result<Chain, Issue>, Failure> {
        match self.find_template(name).await? {
            Some((template, _)) if !may_see(caller, &template) => {
                Ok(Err(Issue::new("extends", missing(name))))
            }
            _ => self.chain(name).await,
        }
    }

    /// The stored templates with their versions, when there is one among `specs` that needs to know.
    pub(crate) async fn versions_for<'a>(
        &self,
        mut specs: impl Iterator<Item = &'a ServiceSpec> + Send,
    ) -> Vec<(String, u64)> {
        if specs.all(|spec| spec.extends.is_none()) {
            return Vec::new();
        }
        self.store().template_versions().await.unwrap_or_default()
    }

    /// As far as it goes, and why it goes no further.
    async fn chain_of(
        &self,
        (template, version): (Template, u64),
    ) -> Result<(Chain, Option<Issue>), Failure> {
        let mut chain = Chain::new();
        let mut next = chain.add(template, version);
        loop {
            let name = match next {
                Ok(Some(name)) => name,
                Ok(None) => return Ok((chain, None)),
                Err(issue) => return Ok((chain, Some(issue))),
            };
            let Some((template, version)) = self.find_template(&name).await? else {
                return Ok((chain, Some(Issue::new("extends", missing(&name)))));
            };
            next = chain.add(template, version);
        }
    }

    async fn find_template(&self, name: &TemplateName) -> Result<Option<(Template, u64)>, Failure> {
        let planned = self.planned.iter().find(|(one, _)| one.name == *name);
        if let Some(found) = builtin::find(name).or(planned) {
            return Ok(Some(found.clone()));
        }
        let row = self.store().template(name).await?;
        if let Some(row) = row.as_ref().filter(|row| !row.issues.is_empty()) {
            let what = format!("The template `{name}`");
            return Err(Failure::invalid(&what, row.issues.clone()));
        }
        Ok(row.map(|row| (row.template, row.version)))
    }

    async fn stored(&self, name: &TemplateName) -> Result<TemplateRow, Failure> {
        let row = self.store().template(name).await?;
        row.ok_or_else(|| unknown(name.as_str()))
    }

    /// Somebody else wrote first: which version there is now, or that there is none.
    async fn overtaken(&self, error: StoreError, old: &TemplateRow) -> Result<Failure, Failure> {
        let StoreError::Changed = error else {
            return Ok(error.into());
        };
        let current = self.stored(&old.template.name).await?;
        Ok(changed(&current, old.version))
    }

    /// Every problem of a template together with those that it extends, and of those that extend it.
    pub(crate) async fn fits(&self, template: &Template, version: u64) -> Result<(), Failure> {
        let (chain, issue) = self.chain_of((template.clone(), version)).await?;
        let mut issues: Vec<Issue> = match issue {
            Some(issue) => vec![issue],
            None => chain.check(),
        };
        if issues.is_empty() {
            issues = self.breaks(template, version).await?;
        }
        if issues.is_empty() {
            return Ok(());
        }
        let what = format!("The template `{}`", template.name);
        Err(Failure::invalid(&what, issues))
    }

    /// What others that extend `template` would not find in it any more.
    async fn breaks(&self, template: &Template, version: u64) -> Result<Vec<Issue>, Failure> {
        let rows = self.store().templates().await?;
        let find = |name: &TemplateName| {
            if *name == template.name {
                return Some((template.clone(), version));
            }
            let stored = rows.iter().find(|row| row.template.name == *name);
            let stored = stored.map(|row| (row.template.clone(), row.version));
            stored.or_else(|| builtin::find(name).cloned())
        };
        let mut issues = Vec::new();
        for row in &rows {
            let (chain, issue) = link((row.template.clone(), row.version), find);
            let concerned = chain.names().skip(1).any(|name| *name == template.name);
            if !concerned {
                continue;
            }
            let found = issue.map_or_else(|| chain.check(), |issue| vec![issue]);
            issues.extend(found.into_iter().map(|Issue { path, message }| {
                let other = &row.template.name;
                Issue::new(
                    "",
                    format!("would break the template `{other}` at {path}: {message}"),
                )
            }));
        }
        Ok(issues)
    }

    fn audit_template(
        &self,
        caller: &Principal,
        action: &'static str,
        name: &TemplateName,
    ) -> AuditLine {
        let target = ("template", name.to_string(), name.to_string());
        self.line(caller, action, target)
    }

    async fn template_done(
        &self,
        row: TemplateRow,
        action: &'static str,
    ) -> Result<Outcome, Failure> {
        let (template, version, written) = taken_apart(row);
        self.announce(Event::Template {
            name: template.name.clone(),
            action,
        });
        let linked = self.chain_of((template.clone(), version)).await?;
        let entry = entry((template, version, Some(written)), linked);
        Ok(Outcome::Template(Box::new(entry)))
    }
}

/// Whether a template is shown: who reads no more than what is its own sees what it may start services by.
fn may_see(caller: &Principal, template: &Template) -> bool {
    let is_open = template.approved || builtin::find(&template.name).is_some();
    is_open || require(caller, Permission::McpRead).is_ok()
}

pub(crate) fn may_write_template(caller: &Principal, template: &Template) -> Result<(), Failure> {
    require(caller, Permission::McpManage)?;
    if template.approved {
        // Whoever approves lets others start programs.
        require(caller, Permission::HostExecute)?;
    }
    if builtin::find(&template.name).is_some() {
        return Err(fixed(&template.name));
    }
    Ok(())
}

/// Whether a template that the spec was made from is another one now; `stored` are those that are
/// stored, with their versions.
pub(crate) fn is_behind(spec: &ServiceSpec, stored: &[(String, u64)]) -> bool {
    let chain = spec.extends.iter().flat_map(|extends| &extends.chain);
    chain.into_iter().any(|link| {
        let is_it = |row: &&(String, u64)| row.0 == link.template.as_str();
        let fixed = builtin::find(&link.template).map(|found| found.1);
        let now = fixed.or_else(|| stored.iter().find(is_it).map(|row| row.1));
        now != Some(link.version)
    })
}

/// Whether the template is part of the binary, so that nobody can change it.
pub(crate) fn is_fixed(name: &TemplateName) -> bool {
    builtin::find(name).is_some()
}

/// The chain over what `find` knows, as far as it goes.
fn link(
    (template, version): (Template, u64),
    find: impl Fn(&TemplateName) -> Option<(Template, u64)>,
) -> (Chain, Option<Issue>) {
    let mut chain = Chain::new();
    let mut next = chain.add(template, version);
    loop {
        let name = match next {
            Ok(Some(name)) => name,
            Ok(None) => return (chain, None),
            Err(issue) => return (chain, Some(issue)),
        };
        let Some((template, version)) = find(&name) else {
            return (chain, Some(Issue::new("extends", missing(&name))));
        };
        next = chain.add(template, version);
    }
}

fn taken_apart(row: TemplateRow) -> (Template, u64, Written) {
    let TemplateRow {
        template,
        issues,
        version,
        author,
        created_at,
        updated_at,
    } = row;
    let written = Written {
        author,
        created_at,
        updated_at,
        issues,
    };
    (template, version, written)
}

fn entry(
    (template, version, written): (Template, u64, Option<Written>),
    (chain, issue): (Chain, Option<Issue>),
) -> TemplateEntry {
    let accepts = chain.accepts().into_iter();
    let unread = written.as_ref().map(|written| written.issues.clone());
    let unread = unread.filter(|issues| !issues.is_empty());
    let of_chain = || issue.map_or_else(|| chain.check(), |issue| vec![issue]);
    let problems = unread.unwrap_or_else(of_chain);
    TemplateEntry {
        accepts: accepts
            .map(|(name, parameter)| (name.to_owned(), parameter.clone()))
            .collect(),
        chain: chain.names().skip(1).cloned().collect(),
        problems,
        template,
        version,
        written,
    }
}

/// For the audit.
fn facts(template: &Template) -> serde_json::Value {
    let extends = template.extends.as_ref().map(|extends| &extends.template);
    json!({ "extends": extends, "approved": template.approved })
}

fn compare(row: &TemplateRow, expected: Option<u64>) -> Result<(), Failure> {
    match expected {
        Some(version) if version != row.version => Err(changed(row, version)),
        Some(_) | None => Ok(()),
    }
}

fn changed(row: &TemplateRow, expected: u64) -> Failure {
    let (name, version) = (&row.template.name, row.version);
    Failure::new(
        Kind::VersionMismatch,
        format!(
            "The template `{name}` has version {version}, not {expected}: read it again and repeat the \
             change"
        ),
    )
    .at_version(version)
}

fn fixed(name: &TemplateName) -> Failure {
    conflict(format!(
        "`{name}` is part of Vaxel and stays as it is; make one of another name that extends it"
    ))
}

fn missing(name: &TemplateName) -> String {
    format!("there is no template called `{name}`; `vaxel template ls` shows which there are")
}

fn unknown(name: &str) -> Failure {
    let name: String = name.chars().take(80).collect();
    Failure::new(
        Kind::NotFound,
        format!(
            "There is no template of yours called `{name}`; `vaxel template ls` shows which there are"
        ),
    )
}
