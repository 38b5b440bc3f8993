//! Arguments that tools want mirrored in `Mcp-Param-*` headers: `x-mcp-header` in their input schema
//! (MCP 2026-07-28, Streamable HTTP, "Custom Headers from Tool Parameters"; SEP-2243).
//!
//! Who speaks to such a tool over HTTP must send the headers, must hide the tool when its annotations
//! are wrong, and must compare headers with bodies when it receives them.

use std::collections::{BTreeMap, HashSet};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{MCP_PARAM_PREFIX, decode_value, encode_value};
use crate::meta;

/// The member of a property's schema that asks for a header.
const ANNOTATION: &str = "x-mcp-header";
/// Largest integer that every JSON implementation holds exactly, 2^53 - 1.
const SAFE: f64 = 9_007_199_254_740_991.0;
/// Most headers of one tool: its calls must fit a request.
const HEADERS: usize = 64;

/// Which arguments of a tool are mirrored, and in which headers.
#[derive(Debug, Clone, Default)]
pub struct ParamHeaders {
    names: Vec<HeaderName>,
    root: Node,
}

/// An object of the arguments, or a value that is mirrored.
#[derive(Debug, Clone, Default)]
struct Node {
    /// Index of the header that mirrors this value.
    header: Option<usize>,
    members: BTreeMap<String, Node>,
}

/// Why a tool must be left out of what clients see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAnnotation {
    /// The input schema cannot be read, so that nobody knows what it asks for.
    #[error("its input schema cannot be read")]
    Schema,
    /// Not a header name.
    #[error("its x-mcp-header `{0}` is not a header name")]
    Name(String),
    /// Two properties want the same header.
    #[error("two of its properties ask for the header `{0}`")]
    Duplicate(HeaderName),
    /// Only strings, integers and booleans can be mirrored.
    #[error("its x-mcp-header `{0}` is on a property that is not a string, integer or boolean")]
    Type(String),
    /// Not on a chain of `properties`, so that its value has no fixed place.
    #[error("its x-mcp-header `{0}` is on a part of the schema that has no fixed place")]
    Place(String),
    /// More than a request can carry.
    #[error("it asks for more than {HEADERS} headers")]
    TooMany,
}

/// A header that does not say what the arguments say; becomes `-32020`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The argument has a value, the header is missing.
    #[error("The header {0} is missing, but the argument it mirrors has a value")]
    Missing(HeaderName),
    /// The header is there, the argument has no value.
    #[error("The header {0} is there, but the argument it mirrors has no value")]
    Unexpected(HeaderName),
    /// Sent twice.
    #[error("The header {0} is there more than once")]
    Repeated(HeaderName),
    /// Not a value that a header can have.
    #[error("The value of the header {0} is malformed")]
    Malformed(HeaderName),
    /// Two values.
    #[error("The header {0} says something else than the argument it mirrors")]
    Different(HeaderName),
}

impl ParamHeaders {
    /// Reads the `inputSchema` of a tool's definition. A definition without one asks for nothing.
    pub fn of_tool(definition: &RawValue) -> Result<Self, InvalidAnnotation> {
        #[derive(Deserialize)]
        struct Tool<'a> {
            #[serde(borrow, default, rename = "inputSchema")]
            input: Option<&'a RawValue>,
        }
        if !definition.get().contains(ANNOTATION) {
            return Ok(Self::default());
        }
        let tool: Tool<'_> =
            serde_json::from_str(definition.get()).map_err(|_| InvalidAnnotation::Schema)?;
        tool.input.map_or_else(|| Ok(Self::default()), Self::of)
    }

    /// Reads an input schema.
    pub fn of(schema: &RawValue) -> Result<Self, InvalidAnnotation> {
        if !schema.get().contains(ANNOTATION) {
            return Ok(Self::default());
        }
        let schema: Value =
            serde_json::from_str(schema.get()).map_err(|_| InvalidAnnotation::Schema)?;
        let mut found = Self::default();
        let mut seen = HashSet::new();
        if let Some(text) = annotation(&schema) {
            return Err(InvalidAnnotation::Place(text));
        }
        found.root = properties(&schema, &mut found.names, &mut seen)?;
        Ok(found)
    }

    /// Whether no argument is mirrored.
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The headers of a call with these `arguments`. Values that are absent or null, or that no header
    /// mirrors (objects, arrays), have none.
    pub fn mirror(&self, arguments: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        let values = self.values(arguments);
        let pairs = self.names.iter().zip(values);
        pairs
            .filter_map(|(name, value)| {
                let text = encode_value(&Mirrored::of(value?)?.to_text());
                Some((name.clone(), HeaderValue::from_str(&text).ok()?))
            })
            .collect()
    }

    /// Compares the headers of a call with its `arguments`.
    pub fn check(&self, arguments: Option<&str>, headers: &HeaderMap) -> Result<(), Mismatch> {
        for (name, value) in self.names.iter().zip(self.values(arguments)) {
            let mut said = headers.get_all(name).iter();
            let first = said.next();
            if said.next().is_some() {
                return Err(Mismatch::Repeated(name.clone()));
            }
            match (first, value.and_then(Mirrored::of)) {
                (None, None) => {}
                (None, Some(_)) => return Err(Mismatch::Missing(name.clone())),
                (Some(_), None) => return Err(Mismatch::Unexpected(name.clone())),
                (Some(said), Some(value)) => {
                    let said = said.to_str().ok().and_then(|said| decode_value(said).ok());
                    let said = said.ok_or_else(|| Mismatch::Malformed(name.clone()))?;
                    if !value.is(&said) {
                        return Err(Mismatch::Different(name.clone()));
                    }
                }
            }
        }
        Ok(())
    }

    /// What stands at each place, in the order of the names.
    fn values<'a>(&self, arguments: Option<&'a str>) -> Vec<Option<&'a RawValue>> {
        let mut values = vec![None; self.names.len()];
        if let Some(arguments) = arguments.filter(|_| !self.is_empty()) {
            self.root.collect(arguments, &mut values);
        }
        values
    }
}

impl Node {
    fn collect<'a>(&self, object: &'a str, values: &mut [Option<&'a RawValue>]) {
        for (key, value) in meta::members(object).unwrap_or_default() {
            let Some(node) = self.members.get(&*key) else {
                continue;
            };
            if let Some(slot) = node.header.and_then(|index| values.get_mut(index)) {
                // Of members with one name, JSON readers see the last.
                *slot = Some(value);
            }
            if !node.members.is_empty() {
                node.collect(value.get(), values);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.header.is_none() && self.members.is_empty()
    }
}

/// The properties of an object schema. Annotations anywhere else in it are errors.
fn properties(
    schema: &Value,
    names: &mut Vec<HeaderName>,
    seen: &mut HashSet<HeaderName>,
) -> Result<Node, InvalidAnnotation> {
    let mut node = Node::default();
    let Value::Object(keywords) = schema else {
        return Ok(node);
    };
    for (keyword, value) in keywords {
        let (Value::Object(members), "properties") = (value, keyword.as_str()) else {
            forbid(keyword, value)?;
            continue;
        };
        for (key, property) in members {
            let mut child = properties(property, names, seen)?;
            if let Some(text) = annotation(property) {
                child.header = Some(names.len());
                let name = header_name(&text, property)?;
                if !seen.insert(name.clone()) {
                    return Err(InvalidAnnotation::Duplicate(name));
                }
                if names.len() == HEADERS {
                    return Err(InvalidAnnotation::TooMany);
                }
                names.push(name);
            }
            if !child.is_empty() {
                node.members.insert(key.clone(), child);
            }
        }
    }
    Ok(node)
}

fn header_name(text: &str, property: &Value) -> Result<HeaderName, InvalidAnnotation> {
    let shown = || text.chars().take(80).collect();
    let name = (!text.is_empty())
        .then(|| HeaderName::try_from(format!("{MCP_PARAM_PREFIX}{text}")).ok())
        .flatten();
    let name = name.ok_or_else(|| InvalidAnnotation::Name(shown()))?;
    let fits = match property.get("type") {
        Some(Value::String(one)) => is_primitive(one),
        // "Or null" is how optional parameters are declared; null has no header.
        Some(Value::Array(many)) => {
            let mut kinds = many.iter().filter(|kind| *kind != "null");
            kinds
                .next()
                .and_then(Value::as_str)
                .is_some_and(is_primitive)
                && kinds.next().is_none()
        }
        _ => false,
    };
    fits.then_some(name)
        .ok_or_else(|| InvalidAnnotation::Type(shown()))
}

fn is_primitive(kind: &str) -> bool {
    matches!(kind, "string" | "integer" | "boolean")
}

/// The annotation of a schema; one that is no string is shown as it stands.
fn annotation(schema: &Value) -> Option<String> {
    let text = schema.get(ANNOTATION)?;
    Some(text.as_str().map_or_else(
        // No header name has a quote, a bracket or a space: what is no string fails there.
        || format!("({text})"),
        str::to_owned,
    ))
}

/// Refuses annotations in what stands under a keyword other than `properties`. Keywords that hold
/// values instead of schemas may hold anything.
fn forbid(keyword: &str, value: &Value) -> Result<(), InvalidAnnotation> {
    match keyword {
        "items"
        | "prefixItems"
        | "additionalItems"
        | "unevaluatedItems"
        | "contains"
        | "oneOf"
        | "anyOf"
        | "allOf"
        | "not"
        | "if"
        | "then"
        | "else"
        | "additionalProperties"
        | "unevaluatedProperties"
        | "propertyNames"
        | "contentSchema" => forbid_schemas(value),
        "$defs" | "definitions" | "patternProperties" | "dependentSchemas" | "dependencies"
        | "properties" => {
            let mut schemas = value.as_object().into_iter().flatten();
            schemas.try_for_each(|(_, schema)| forbid_schemas(schema))
        }
        _ => Ok(()),
    }
}

/// A schema or an array of schemas.
fn forbid_schemas(value: &Value) -> Result<(), InvalidAnnotation> {
    if let Some(text) = annotation(value) {
        return Err(InvalidAnnotation::Place(text));
    }
    match value {
        Value::Array(many) => many.iter().try_for_each(forbid_schemas),
        Value::Object(keywords) => keywords
            .iter()
            .try_for_each(|(keyword, value)| forbid(keyword, value)),
        _ => Ok(()),
    }
}

/// A value that a header can mirror.
enum Mirrored<'a> {
    Text(String),
    /// As it stands in the arguments.
    Number(&'a str),
    Boolean(&'a str),
}

impl<'a> Mirrored<'a> {
    fn of(value: &'a RawValue) -> Option<Self> {
        let text = value.get();
        match text.as_bytes().first()? {
            b'"' => serde_json::from_str(text).ok().map(Self::Text),
            b't' | b'f' => Some(Self::Boolean(text)),
            b'-' | b'0'..=b'9' => Some(Self::Number(text)),
            _ => None,
        }
    }

    /// Decimal for integers however they were written, everything else as it is.
    fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Boolean(text) => (*text).to_owned(),
            Self::Number(text) => {
                integer(text).map_or_else(|| (*text).to_owned(), |n| n.to_string())
            }
        }
    }

    /// Integers are compared as numbers: `42.0` is `42`.
    fn is(&self, said: &str) -> bool {
        match self {
            Self::Text(text) => text == said,
            Self::Boolean(text) => *text == said,
            Self::Number(text) => {
                *text == said || integer(text).is_some_and(|number| integer(said) == Some(number))
            }
        }
    }
}

/// The safe integer that a JSON number is.
fn integer(text: &str) -> Option<i64> {
    let is_number = serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| {
        raw.get() == text && text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
    });
    let number: f64 = is_number.then(|| text.parse().ok()).flatten()?;
    let is_safe = number.fract() == 0.0 && number.abs() <= SAFE;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole and within the range that a float holds exactly"
    )]
    is_safe.then_some(number as i64)
}

#[cfg(test)]
mod tests;
