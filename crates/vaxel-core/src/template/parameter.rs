//! Parameters of templates: what can be filled in, and what fits.

use regex::RegexBuilder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TEXT_MAX;
use crate::{failure::Issue, fields::Fields};

/// Longest value of a parameter, bytes.
const VALUE_MAX: usize = 32 * 1024;
/// Longest pattern, bytes, and what it may take up once compiled.
const PATTERN_MAX: usize = 1_000;
const COMPILED_MAX: usize = 1 << 20;

/// One thing that can be filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Parameter {
    /// What fits.
    #[serde(rename = "type")]
    pub kind: ParameterKind,
    /// Whether it must be given. One that need not be and has no default is left out where it stands
    /// alone.
    #[serde(default)]
    pub required: bool,
    /// Its value when none is given; a secret has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// A regular expression that the whole text must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "[a-z]+")]
    pub pattern: Option<String>,
    /// Least number, or least number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Greatest number, or greatest number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// What a `choice` can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
}

/// What fits a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterKind {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An absolute path.
    Path,
    /// A text that is sealed on arrival and shown nowhere; it can only stand in `env` and `headers`.
    Secret,
    /// One of `choices`.
    Choice,
}

impl ParameterKind {
    const ALL: [Self; 6] = [
        Self::String,
        Self::Integer,
        Self::Boolean,
        Self::Path,
        Self::Secret,
        Self::Choice,
    ];

    /// The name in templates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Path => "path",
            Self::Secret => "secret",
            Self::Choice => "choice",
        }
    }
}

impl std::str::FromStr for ParameterKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| {
                format!(
                    "`{text}` is no type of a parameter: one of {}",
                    Self::ALL.map(Self::as_str).join(", ")
                )
            })
    }
}

impl Parameter {
    /// Reads one parameter; problems go to `issues`, with paths inside of it.
    pub(super) fn from_json(value: &Value, issues: &mut Vec<Issue>) -> Option<Self> {
        Fields::read(value, "", issues, read).flatten()
    }

    /// Whether it is sealed.
    pub const fn is_secret(&self) -> bool {
        matches!(self.kind, ParameterKind::Secret)
    }

    /// What is wrong with `value`, if anything. A secret is not repeated.
    pub(super) fn problem(&self, value: &Value) -> Option<String> {
        let expected = match (self.kind, value) {
            (ParameterKind::Integer, Value::Number(number)) => match number.as_i64() {
                Some(number) => return self.out_of_bounds(number),
                None => "a whole number",
            },
            (ParameterKind::Integer, _) => "a whole number",
            (ParameterKind::Boolean, Value::Bool(_)) => return None,
            (ParameterKind::Boolean, _) => "true or false",
            (_, Value::String(text)) => return self.problem_of_text(text),
            _ => "a text",
        };
        Some(match value {
            _ if self.is_secret() => "must be a text".to_owned(),
            Value::Array(_) | Value::Object(_) => format!("must be {expected}"),
            value => format!("must be {expected}, not {value}"),
        })
    }

    fn problem_of_text(&self, text: &str) -> Option<String> {
        if text.len() > VALUE_MAX {
            return Some("is longer than 32 KiB".to_owned());
        }
        if text.contains('\0') {
            return Some("holds a NUL character".to_owned());
        }
        match self.kind {
            ParameterKind::Path if !text.starts_with('/') => {
                return Some(format!("`{text}` is not an absolute path"));
            }
            ParameterKind::Choice if !self.choices.iter().any(|one| one == text) => {
                return Some(format!(
                    "`{text}` is not one of {}",
                    self.choices.join(", ")
                ));
            }
            _ => {}
        }
        let pattern = self.pattern.as_deref();
        if let Some(pattern) = pattern.filter(|pattern| !fits(pattern, text)) {
            return Some(if self.is_secret() {
                format!("does not match `{pattern}`")
            } else {
                format!("`{text}` does not match `{pattern}`")
            });
        }
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        self.out_of_bounds(length)
            .map(|_| format!("must have {} characters", self.bounds()))
    }

    fn out_of_bounds(&self, number: i64) -> Option<String> {
        let low = self.min.is_some_and(|min| number < min);
        let high = self.max.is_some_and(|max| number > max);
        (low || high).then(|| format!("{number} is not {}", self.bounds()))
    }

    fn bounds(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} or more"),
            (None, Some(max)) => format!("{max} or less"),
            (None, None) => "any".to_owned(),
        }
    }
}

fn read(fields: &mut Fields<'_>) -> Option<Parameter> {
    let kind: Option<ParameterKind> = if fields.has("type") {
        fields.parsed("type")
    } else {
        fields.value("type");
        fields.issue(
            "type",
            "is missing: one of string, integer, boolean, path, secret, choice",
        );
        None
    };
    let bound = |fields: &mut Fields<'_>, key: &'static str| {
        let value = fields.value(key)?;
        if value.as_i64().is_none() {
            fields.issue(key, "must be a whole number");
        }
        value.as_i64()
    };
    let parameter = Parameter {
        kind: kind.unwrap_or(ParameterKind::String),
        required: fields.boolean("required").unwrap_or(false),
        default: fields.value("default").cloned(),
        pattern: fields.string("pattern"),
        min: bound(fields, "min"),
        max: bound(fields, "max"),
        choices: fields.strings("choices").unwrap_or_default(),
        doc: fields.string("doc"),
    };
    kind?;
    check(&parameter, fields);
    Some(parameter)
}

/// Whether the parts of a parameter fit together.
fn check(parameter: &Parameter, fields: &mut Fields<'_>) {
    let is_choice = parameter.kind == ParameterKind::Choice;
    if is_choice == parameter.choices.is_empty() {
        fields.issue("choices", "belong to the type `choice`, and to it alone");
    }
    if let Some(pattern) = &parameter.pattern {
        if let Some(problem) = problem_of_pattern(pattern) {
            return fields.issue("pattern", problem);
        }
        if matches!(
            parameter.kind,
            ParameterKind::Integer | ParameterKind::Boolean
        ) {
            fields.issue("pattern", "belongs to texts");
        }
    }
    if parameter
        .min
        .zip(parameter.max)
        .is_some_and(|(min, max)| min > max)
    {
        fields.issue("min", "is greater than `max`");
    }
    if parameter
        .doc
        .as_ref()
        .is_some_and(|doc| doc.len() > TEXT_MAX)
    {
        fields.issue("doc", "must have at most 2000 bytes");
    }
    let Some(default) = &parameter.default else {
        return;
    };
    if parameter.is_secret() {
        fields.issue(
            "default",
            "a secret has none: everyone who reads the template would see it",
        );
    } else if parameter.required {
        fields.issue("default", "has no meaning when the parameter is required");
    } else if let Some(problem) = parameter.problem(default) {
        fields.issue("default", problem);
    }
}

fn problem_of_pattern(pattern: &str) -> Option<String> {
    if pattern.len() > PATTERN_MAX {
        return Some("is longer than 1000 bytes".to_owned());
    }
    let error = compile(pattern).err()?;
    let reason = error.to_string();
    let last = reason.lines().last().unwrap_or_default();
    Some(format!("is no regular expression: {last}"))
}

fn fits(pattern: &str, text: &str) -> bool {
    compile(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

/// Matching takes time in proportion to the text, whatever the pattern.
fn compile(pattern: &str) -> Result<regex::Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(COMPILED_MAX)
        .dfa_size_limit(COMPILED_MAX)
        .build()
}
