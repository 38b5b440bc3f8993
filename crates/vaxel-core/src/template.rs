//! Templates: services with blanks, and what becomes of them when the blanks are filled.
//!
//! A template has parameters and a part of a spec that names them as `${parameter}`. It may extend
//! another one; a service extends a template and overrides what it likes. [`Chain::render`] lays the
//! parts over each other, reads the result as any other draft, and says of every value where it came
//! from. Nothing here knows where templates are kept.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::{failure::Issue, fields::Fields, name::ServiceName};

mod chain;
mod layer;
mod parameter;
mod placeholder;
mod render;

pub use chain::{CHAIN_MAX, Chain};
pub use parameter::{Parameter, ParameterKind};
pub use render::DerivedDraft;

/// Most parameters of one template.
const PARAMETERS_MAX: usize = 64;
/// Longest spec of a template as JSON, bytes.
const SPEC_MAX: usize = 64 * 1024;
/// Longest description and longest text about a parameter, bytes.
const TEXT_MAX: usize = 2_000;

/// The name of a template; the grammar is that of services. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateName(Arc<str>);

/// A text that is no name of a template, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a name of a template: a-z, 0-9, `-` and `_`, at most 32 characters, a letter or digit \
     at both ends, no `__`"
)]
pub struct InvalidTemplateName(String);

impl TemplateName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TemplateName {
    type Err = InvalidTemplateName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name: Result<ServiceName, _> = text.parse();
        name.map(|name| Self(Arc::clone(name.shared())))
            .map_err(|_| InvalidTemplateName(text.chars().take(80).collect()))
    }
}
impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl Serialize for TemplateName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for TemplateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Where a value of a spec came from. Written `default`, `template:NAME` and `own`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Origin {
    /// Nobody gave it.
    Default,
    /// This template.
    Template(TemplateName),
    /// The service itself.
    Own,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Template(name) => write!(f, "template:{name}"),
            Self::Own => f.write_str("own"),
        }
    }
}
impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}
impl TryFrom<String> for Origin {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        match (text.as_str(), text.strip_prefix("template:")) {
            ("default", _) => Ok(Self::Default),
            ("own", _) => Ok(Self::Own),
            (_, Some(name)) => match name.parse() {
                Ok(name) => Ok(Self::Template(name)),
                Err(InvalidTemplateName(_)) => Err(format!("`{name}` is not a name of a template")),
            },
            _ => Err(format!(
                "`{text}` is no origin: write default, own or template:NAME"
            )),
        }
    }
}

/// Which template is extended, and with which values of its parameters. Written as an object, or as
/// the name alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Extends {
    /// Name of the template.
    #[schema(value_type = String, example = "filesystem")]
    pub template: TemplateName,
    /// Values of its parameters; in a template they may hold parameters of its own.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({ "root": "/data" }))]
    pub with: BTreeMap<String, Value>,
}

/// A service with blanks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Unique.
    pub name: TemplateName,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What can be filled in, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// What it is laid over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<Extends>,
    /// A part of a spec, an object. `${parameter}` in its texts stands for a value, `$$` for `$`,
    /// `null` takes away what is beneath.
    #[serde(default)]
    pub spec: Map<String, Value>,
    /// Whether callers without `host:execute` may start programs by it.
    #[serde(default)]
    pub approved: bool,
}

impl Template {
    /// Reads a template from JSON that a person wrote: `Err` holds every problem with its path. Whether
    /// it fits what it extends, [`Chain::check`] says.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let template = Fields::read(value, "", &mut issues, read).flatten();
        match template {
            Some(template) if issues.is_empty() => Ok(template),
            _ => Err(issues),
        }
    }
}

fn read(fields: &mut Fields<'_>) -> Option<Template> {
    let name = fields.required_string("name").and_then(|text| {
        let name = text.parse();
        name.map_err(|error: InvalidTemplateName| fields.issue("name", error.to_string()))
            .ok()
    });
    let description = fields.string("description");
    if description
        .as_ref()
        .is_some_and(|text| text.len() > TEXT_MAX)
    {
        fields.issue("description", "must have at most 2000 bytes");
    }
    let parameters = read_parameters(fields);
    let extends = read_extends(fields);
    let spec = match fields.value("spec") {
        None => Map::new(),
        Some(Value::Object(spec)) => spec.clone(),
        Some(_) => {
            fields.issue("spec", "expected an object");
            Map::new()
        }
    };
    if serde_json::to_string(&spec).is_ok_and(|text| text.len() > SPEC_MAX) {
        fields.issue("spec", "is longer than 64 KiB");
    }
    if spec.contains_key("extends") {
        fields.issue("spec.extends", "`extends` stands beside `spec`, not in it");
    }
    let approved = fields.boolean("approved").unwrap_or(false);
    Some(Template {
        name: name?,
        description,
        parameters,
        extends,
        spec,
        approved,
    })
}

fn read_parameters(fields: &mut Fields<'_>) -> BTreeMap<String, Parameter> {
    let mut parameters = BTreeMap::new();
    let Some(value) = fields.value("parameters") else {
        return parameters;
    };
    let Value::Object(given) = value else {
        fields.issue("parameters", "expected an object of parameters");
        return parameters;
    };
    if given.len() > PARAMETERS_MAX {
        fields.issue("parameters", "more than 64 parameters");
    }
    for (name, value) in given {
        if !placeholder::is_name(name) {
            let message =
                "is not a name of a parameter: a-z first, then a-z, 0-9 and `_`, at most 64";
            fields.issue(&format!("parameters.{name}"), message);
        }
        let mut issues = Vec::new();
        let parameter = Parameter::from_json(value, &mut issues);
        for Issue { path, message } in issues {
            let dot = if path.is_empty() { "" } else { "." };
            fields.issue(&format!("parameters.{name}{dot}{path}"), message);
        }
        parameters.extend(parameter.map(|parameter| (name.clone(), parameter)));
    }
    parameters
}

/// `extends`, in a template or in the draft of a service.
fn read_extends(fields: &mut Fields<'_>) -> Option<Extends> {
    let name = |fields: &mut Fields<'_>, key: &str, text: &str| {
        let name = text.parse();
        name.map_err(|error: InvalidTemplateName| fields.issue(key, error.to_string()))
            .ok()
    };
    match fields.value("extends")? {
        Value::String(text) => Some(Extends {
            template: name(fields, "extends", text)?,
            with: BTreeMap::new(),
        }),
        Value::Object(_) => fields
            .nested("extends", |inner| {
                let template = inner
                    .required_string("template")
                    .and_then(|text| name(inner, "template", &text));
                let with = match inner.value("with") {
                    Some(Value::Object(with)) => with.clone(),
                    None => Map::new(),
                    Some(_) => {
                        inner.issue("with", "expected an object of parameters");
                        Map::new()
                    }
                };
                Some(Extends {
                    template: template?,
                    with: with
                        .into_iter()
                        .filter(|(_, value)| !value.is_null())
                        .collect(),
                })
            })
            .flatten(),
        _ => {
            fields.issue(
                "extends",
                "expected a template's name, or `{template, with}`",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests;
