//! What is wrong with a value, for a person or a model that is to put it right. Values themselves are
//! not repeated: they may be secret, and whoever sent them has them.

use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use serde_json::Value;
use vaxel_core::failure::Issue;

/// Most problems that are named.
const NAMED: usize = 8;
/// Longest quotation of a schema, in characters.
const QUOTED: usize = 160;

/// Why a schema is none.
pub(super) fn of_schema(error: &ValidationError<'_>) -> String {
    let place = cut(error.instance_path().as_str());
    let what = match error.kind() {
        Kind::AnyOf { .. } => "is not what the keyword takes".to_owned(),
        Kind::Referencing(_) => "a reference in it leads nowhere".to_owned(),
        _ => problem(error),
    };
    if place.is_empty() {
        what
    } else {
        format!("{place} {what}")
    }
}

/// The first problems of a value.
pub(super) fn of_value<'i>(errors: impl Iterator<Item = ValidationError<'i>>) -> Vec<Issue> {
    let mut issues: Vec<Issue> = Vec::new();
    let mut more = 0_usize;
    for error in errors {
        let issue = Issue::new(path(&error), problem(&error));
        if issues.contains(&issue) {
            continue;
        }
        if issues.len() < NAMED {
            issues.push(issue);
        } else {
            more += 1;
        }
    }
    if more > 0 {
        let what = if more == 1 { "problem" } else { "problems" };
        issues.push(Issue::new("", format!("has {more} more {what}")));
    }
    issues
}

/// JSON pointer (RFC 6901) of the place; of a member that is missing, where it should be.
fn path(error: &ValidationError<'_>) -> String {
    let place = cut(error.instance_path().as_str());
    match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            let name = name.replace('~', "~0").replace('/', "~1");
            format!("{place}/{}", cut(&name))
        }
        _ => place,
    }
}

fn problem(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Kind::Required { .. } => "is missing".to_owned(),
        Kind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => with_article(*one).to_owned(),
                TypeKind::Multiple(many) => {
                    let names: Vec<&str> = many.iter().map(with_article).collect();
                    names.join(" or ")
                }
            };
            format!("must be {wanted}, and is {}", found(error.instance()))
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let names: Vec<String> = unexpected.iter().map(|name| format!("`{name}`")).collect();
            format!("must not have {}", cut(&names.join(", ")))
        }
        Kind::Enum { options } => format!("must be one of {}", list(options)),
        Kind::Constant { expected_value } => {
            format!("must be {}", cut(&expected_value.to_string()))
        }
        Kind::Pattern { pattern } => format!("must match the pattern `{}`", cut(pattern)),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "could not be matched against its pattern within bounds".to_owned()
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => alternatives(context),
        Kind::OneOfMultipleValid { .. } => {
            "fits more than one of the forms of which it must fit exactly one".to_owned()
        }
        Kind::Not { .. } => "has a form that is excluded".to_owned(),
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::PropertyNames { error } => format!("has a member whose name {}", problem(error)),
        _ => bound(error),
    }
}

/// Limits of sizes and numbers.
fn bound(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Kind::Minimum { limit } => format!("must be {limit} or more"),
        Kind::Maximum { limit } => format!("must be {limit} or less"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("must have {limit} characters or more"),
        Kind::MaxLength { limit } => format!("must have {limit} characters or fewer"),
        Kind::MinItems { limit } => format!("must have {limit} items or more"),
        Kind::MaxItems { limit } => format!("must have {limit} items or fewer"),
        Kind::AdditionalItems { limit } => format!("must have {limit} items or fewer"),
        Kind::UnevaluatedItems { .. } => "has items that are not allowed".to_owned(),
        Kind::MinProperties { limit } => format!("must have {limit} members or more"),
        Kind::MaxProperties { limit } => format!("must have {limit} members or fewer"),
        Kind::UniqueItems => "must not have the same item twice".to_owned(),
        Kind::Contains => "must have an item of the form that `contains` asks for".to_owned(),
        other => format!("does not fit `{}` of the schema", other.keyword()),
    }
}

/// The alternative that comes nearest: the one that went wrong deepest, and then the least.
fn alternatives(context: &[Vec<ValidationError<'static>>]) -> String {
    let depth = |error: &ValidationError<'_>| error.instance_path().as_str().matches('/').count();
    let nearest = context.iter().filter(|errors| !errors.is_empty());
    let nearest = nearest.max_by_key(|errors| {
        let deepest = errors.iter().map(depth).max();
        (deepest, std::cmp::Reverse(errors.len()))
    });
    let forms = context.len();
    match nearest.and_then(|errors| errors.first()) {
        Some(error) => {
            let place = path(error);
            let problem = problem(error);
            format!("fits none of {forms} forms; in the nearest, {place} {problem}")
        }
        None => format!("fits none of {forms} forms"),
    }
}

fn list(options: &Value) -> String {
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<String> = options.iter().take(32).map(Value::to_string).collect();
    cut(&texts.join(", "))
}

fn cut(text: &str) -> String {
    if text.chars().nth(QUOTED).is_none() {
        return text.to_owned();
    }
    let start: String = text.chars().take(QUOTED).collect();
    format!("{start}…")
}

const fn with_article(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
