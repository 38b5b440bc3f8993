//! Schemas of tools: what a tool takes and gives, checked.
//!
//! A schema is what a server wrote and a value is what anybody sent, so neither may cost more than is
//! known beforehand. A schema is measured before it is compiled (`shape`): nothing outside of it is
//! ever fetched, and one that could unfold without an end is refused. A value is measured against that
//! before it is looked at ([`Schema::read`]): how deep the check would go and how many steps it can
//! take at most. JSON Schema 2020-12, and draft-07 where `$schema` says so (MCP 2026-07-28, Basic,
//! "JSON Schema Usage"); `format` says something to people and asserts nothing.

use std::cell::Cell;

use jsonschema::{Draft, PatternOptions, Validator};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use vaxel_core::{failure::Issue, unambiguous};

use self::shape::Shape;

mod explain;
mod shape;

/// Longest schema, in bytes.
const SIZE: usize = 256 * 1024;
/// Deepest way of a check through schema and value, in parts of the schema: it fits half a megabyte of
/// stack, also in a debug build.
const LEVELS: usize = 384;
/// Most steps of one check. A step is some 10 to 100 ns.
const STEPS: u64 = 20_000_000;
/// A check of fewer steps ends in about a millisecond and needs no thread of its own.
const QUICK: u64 = 20_000;
/// Levels down to which a check needs little of a thread's stack.
const SHALLOW: usize = 96;
/// Longest text that is read without a thread of its own, in bytes.
const QUICK_TEXT: usize = 64 * 1024;
/// Steps up to which a misfit is explained; collecting its places costs much more than finding it.
const EXPLAINED: u64 = 200_000;
/// Bytes that explaining may copy.
const COPIED: u64 = 16 * 1024 * 1024;
/// Steps of backtracking in one match of a pattern that needs it.
const BACKTRACKS: usize = 50_000;
/// Largest automaton of one pattern, in bytes.
const PATTERN: usize = 512 * 1024;

/// A schema that values can be checked against.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    shape: Shape,
}

/// A value that was read to be checked.
#[derive(Debug)]
pub struct Instance {
    value: Value,
    bytes: u64,
    levels: usize,
    /// Steps of a check that remembers nothing of what it has seen, as one does that explains.
    naive: u64,
}

/// Why values cannot be checked against a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Over the limit.
    #[error("it is longer than {} KiB", SIZE / 1024)]
    TooLong,
    /// Not JSON, or nested deeper than is read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Another dialect than those that are known.
    #[error("it is written in `{0}`; known are JSON Schema 2020-12 and draft-07")]
    Dialect(String),
    /// Leads out of the schema, or to where nothing is.
    #[error("it refers to `{0}`, which is not in it, and nothing is fetched from elsewhere")]
    Reference(String),
    /// A reference that leads to itself before any part of the value is entered.
    #[error("it refers to itself without an end")]
    Endless,
    /// Would cost more than any sensible schema.
    #[error("its references unfold to more parts than can be checked")]
    TooMuch,
    /// No schema of its dialect.
    #[error("it is not valid: {0}")]
    Invalid(String),
}

/// The schemas in the definition of a tool, raw.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct OfTool<'a> {
    /// What it takes.
    #[serde(borrow, default, rename = "inputSchema")]
    pub input: Option<&'a RawValue>,
    /// What it gives as structured content.
    #[serde(borrow, default, rename = "outputSchema")]
    pub output: Option<&'a RawValue>,
}

impl<'a> OfTool<'a> {
    /// Reads the definition of a tool; one that cannot be read has no schemas.
    pub fn read(definition: &'a RawValue) -> Self {
        serde_json::from_str(definition.get()).unwrap_or_default()
    }
}

impl Schema {
    /// Compiles a schema, which takes up to some 100 ms for the largest.
    pub fn compile(schema: &RawValue) -> Result<Self, Unusable> {
        if schema.get().len() > SIZE {
            return Err(Unusable::TooLong);
        }
        let schema: Value = serde_json::from_str(schema.get())
            .map_err(|error| Unusable::Unreadable(why(&error)))?;
        let draft = dialect(&schema)?;
        let shape = Shape::of(&schema)?;
        let patterns = PatternOptions::fancy_regex()
            .backtrack_limit(BACKTRACKS)
            .size_limit(PATTERN)
            .dfa_size_limit(PATTERN);
        let validator = jsonschema::options()
            .with_draft(draft)
            .offline()
            .should_validate_formats(false)
            .with_pattern_options(patterns)
            .build(&schema)
            .map_err(|error| Unusable::Invalid(explain::of_schema(&error)))?;
        Ok(Self { validator, shape })
    }

    /// Whether text of this length is read in well under a millisecond.
    pub const fn reads_quickly(text: &str) -> bool {
        text.len() <= QUICK_TEXT
    }

    /// Reads a value and measures what checking it can cost. `Err` says in what it is too much.
    pub fn read(&self, text: &str) -> Result<Instance, Issue> {
        let value = unambiguous::read(text)
            .map_err(|error| Issue::new("", format!("cannot be read: {}", why(&error))))?;
        let (depth, nodes) = measure(&value);
        let levels = depth.saturating_mul(self.shape.chain + 1);
        if levels > LEVELS {
            let most = LEVELS / (self.shape.chain + 1);
            let message = format!("is nested {depth} levels deep; {most} can be checked");
            return Err(Issue::new("", message));
        }
        let naive = self.shape.naive(nodes, depth);
        let steps = naive.min(self.shape.remembering(nodes));
        if steps > STEPS {
            let message = format!("holds {nodes} values, more than can be checked in a short time");
            return Err(Issue::new("", message));
        }
        Ok(Instance {
            value,
            bytes: text.len() as u64,
            levels,
            naive,
        })
    }

    /// Whether a value fits. `Err` names the places where it does not, each once and not all of them
    /// when they are many, as JSON pointers.
    pub fn check(&self, instance: &Instance) -> Result<(), Vec<Issue>> {
        if self.validator.is_valid(&instance.value) {
            return Ok(());
        }
        let copied = instance.bytes.saturating_mul(self.shape.weight);
        if instance.naive > EXPLAINED || copied > COPIED {
            let message = "does not fit; it is too large to say where";
            return Err(vec![Issue::new("", message)]);
        }
        Err(explain::of_value(
            self.validator.iter_errors(&instance.value),
        ))
    }
}

impl Instance {
    /// Whether its check ends in about a millisecond, on little stack.
    pub const fn is_quick(&self) -> bool {
        self.naive <= QUICK && self.levels <= SHALLOW
    }
}

/// Without the place in the text, which says nothing to who wrote a part of it.
fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn dialect(schema: &Value) -> Result<Draft, Unusable> {
    let Some(said) = schema.get("$schema") else {
        return Ok(Draft::Draft202012);
    };
    let text = said.as_str().unwrap_or_default();
    let name = text.trim_end_matches('#');
    let name = name
        .strip_prefix("https://")
        .or(name.strip_prefix("http://"));
    match name {
        Some("json-schema.org/draft/2020-12/schema") => Ok(Draft::Draft202012),
        Some("json-schema.org/draft-07/schema") => Ok(Draft::Draft7),
        _ => Err(Unusable::Dialect(text.chars().take(120).collect())),
    }
}

/// How deep a value is nested, and how many values it is made of.
fn measure(value: &Value) -> (usize, u64) {
    let nodes = Cell::new(0);
    (depth(value, &nodes), nodes.get())
}

/// Recursion ends where the reader of JSON ended it: at 128 levels.
fn depth(value: &Value, nodes: &Cell<u64>) -> usize {
    nodes.set(nodes.get() + 1);
    let deepest = match value {
        Value::Array(items) => items.iter().map(|item| depth(item, nodes)).max(),
        Value::Object(members) => members.values().map(|member| depth(member, nodes)).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    1 + deepest.unwrap_or(0)
}

#[cfg(test)]
mod tests;
