//! A template with everything that it is laid over.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Extends, Parameter, ParameterKind, Template, TemplateName,
    placeholder::{Part, parts},
};
use crate::failure::Issue;

/// Most templates that lie over each other.
pub const CHAIN_MAX: usize = 8;

/// Templates with their versions: first the one that was named, then what each extends.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    pub(super) links: Vec<(Template, u64)>,
}

impl Chain {
    /// A chain without templates.
    pub const fn new() -> Self {
        Self { links: Vec::new() }
    }

    /// Adds what the last one extends, and answers what comes next.
    ///
    /// # Errors
    /// When the chain gets too long, or leads back to where it was; the sentence names the chain.
    pub fn add(&mut self, template: Template, version: u64) -> Result<Option<TemplateName>, Issue> {
        self.links.push((template, version));
        let (last, _) = &self.links[self.links.len() - 1];
        let Some(Extends { template: next, .. }) = &last.extends else {
            return Ok(None);
        };
        let mut names: Vec<&str> = self.names().map(TemplateName::as_str).collect();
        let is_known = names.contains(&next.as_str());
        names.push(next.as_str());
        let chain = names.join(" → ");
        if is_known {
            return Err(Issue::new(
                "extends",
                format!("the templates extend each other in a circle: {chain}"),
            ));
        }
        if names.len() > CHAIN_MAX {
            let message = format!("more than {CHAIN_MAX} templates extend each other: {chain}");
            return Err(Issue::new("extends", message));
        }
        Ok(Some(next.clone()))
    }

    /// The templates, the one that was named first.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        self.links.iter().map(|(template, _)| template)
    }

    /// Their names, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &TemplateName> {
        self.templates().map(|template| &template.name)
    }

    /// The parameters that the one that was named takes: its own, and those of what it extends that it
    /// gives no value to.
    pub fn accepts(&self) -> BTreeMap<&str, &Parameter> {
        self.accepts_from(0)
    }

    pub(super) fn accepts_from(&self, level: usize) -> BTreeMap<&str, &Parameter> {
        let mut accepted = BTreeMap::new();
        let mut given: Vec<&str> = Vec::new();
        for (template, _) in self.links.iter().skip(level) {
            for (name, parameter) in &template.parameters {
                if !given.contains(&name.as_str()) {
                    accepted.entry(name.as_str()).or_insert(parameter);
                }
            }
            // What is given here is none of the callers', but may be declared anew above.
            let with = template
                .extends
                .iter()
                .flat_map(|extends| extends.with.keys());
            given.extend(with.map(String::as_str));
        }
        accepted
    }

    /// A chain is as trusted as its least trusted part: which templates nobody with `host:execute` has approved; `is_fixed` says which ones are part of
    /// the program and cannot be changed, those count where they are extended.
    pub fn unapproved(&self, is_fixed: impl Fn(&TemplateName) -> bool) -> Vec<&TemplateName> {
        let levels = self.templates().enumerate();
        let open = levels.filter(|(level, template)| {
            let is_given = *level > 0 && is_fixed(&template.name);
            !template.approved && !is_given
        });
        open.map(|(_, template)| &template.name).collect()
    }

    /// Whether a parameter of the first template is sealed.
    pub fn is_secret(&self, name: &str) -> bool {
        self.accepts()
            .get(name)
            .is_some_and(|one| one.kind == ParameterKind::Secret)
    }

    /// Every problem of the first template together with what it extends, that shows without values:
    /// parameters that nobody declares, and texts that would hold a gap.
    pub fn check(&self) -> Vec<Issue> {
        let mut issues = Vec::new();
        let Some((head, _)) = self.links.first() else {
            return issues;
        };
        let known = self.accepts_from(0);
        if let Some(extends) = &head.extends {
            let beneath = self.accepts_from(1);
            for (name, value) in &extends.with {
                let path = format!("extends.with.{name}");
                if !beneath.contains_key(name.as_str()) {
                    let message = unknown(name, &extends.template, &beneath);
                    issues.push(Issue::new(&path, message));
                }
                check_texts(value, &path, &known, &mut issues);
            }
        }
        for (key, value) in &head.spec {
            check_texts(value, &format!("spec.{key}"), &known, &mut issues);
        }
        issues
    }
}

/// Says that the template `of` has no such parameter.
pub(super) fn unknown(name: &str, of: &TemplateName, known: &BTreeMap<&str, &Parameter>) -> String {
    let known: Vec<&str> = known.keys().copied().collect();
    match crate::fields::closest(name, &known) {
        Some(near) => format!("is no parameter of `{of}`; did you mean `{near}`?"),
        None if known.is_empty() => format!("is no parameter of `{of}`, which has none"),
        None => format!("is no parameter of `{of}`; known are {}", known.join(", ")),
    }
}

fn check_texts(
    value: &Value,
    path: &str,
    known: &BTreeMap<&str, &Parameter>,
    issues: &mut Vec<Issue>,
) {
    match value {
        Value::String(text) => {
            let problems = check_text(text, known);
            issues.extend(problems.into_iter().map(|one| Issue::new(path, one)));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_texts(item, &format!("{path}[{index}]"), known, issues);
            }
        }
        Value::Object(object) => {
            for (key, member) in object {
                check_texts(member, &format!("{path}.{key}"), known, issues);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn check_text(text: &str, known: &BTreeMap<&str, &Parameter>) -> Vec<String> {
    let parts = match parts(text) {
        Ok(parts) => parts,
        Err(problem) => return vec![problem],
    };
    let stands_alone = parts.len() == 1;
    let names = parts.iter().filter_map(|part| match part {
        Part::Parameter(name) => Some(*name),
        Part::Text(_) => None,
    });
    let problem = |name: &str| match known.get(name) {
        None => Some(format!("`${{{name}}}` is no parameter of this template")),
        Some(parameter) if !stands_alone && may_be_absent(parameter) => Some(format!(
            "`${{{name}}}` may be left out and then leaves a gap here: give it a default, or let it \
             stand alone"
        )),
        Some(_) => None,
    };
    names.filter_map(problem).collect()
}

const fn may_be_absent(parameter: &Parameter) -> bool {
    !parameter.required && parameter.default.is_none()
}
