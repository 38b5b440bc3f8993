//! Conditions of policies, in CEL (Common Expression Language, <https://cel.dev>): compiled when they are
//! read, bounded in length and in what they can cost.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, Program, Value,
    common::ast::{EntryExpr, Expr, IdedExpr},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{json, value::RawValue};

use crate::{
    access::{Asked, Target},
    unambiguous,
};

/// Longest condition, bytes.
pub const CONDITION_MAX: usize = 1_000;
/// Longest arguments that a condition looks into, bytes: what it costs grows with them.
pub const ARGUMENTS_MAX: usize = 64 << 10;
/// How deep a condition may be nested: what it takes to decide it grows with that.
const DEPTH_MAX: usize = 32;
/// Room in which even the deepest text of [`CONDITION_MAX`] is understood, bytes; taken for that moment.
const ROOM_TO_READ: usize = 64 << 20;
/// Room in which one of [`DEPTH_MAX`] is decided; taken when there is less than a fourth of it.
const ROOM_TO_DECIDE: usize = 4 << 20;
/// The functions that there are.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
/// What a condition may look at.
const VARIABLES: [&str; 5] = ["arguments", "service", "time", "tool", "user"];

/// A condition that was understood. Cheap to clone.
#[derive(Clone)]
pub struct Condition {
    text: Arc<str>,
    program: Arc<Program>,
    /// Which of [`VARIABLES`] it looks at.
    looks_at: [bool; VARIABLES.len()],
}

/// What the conditions that one question is about look at: each variable is worked out once, when the
/// first of them looks at it.
pub struct Facts<'a> {
    asked: &'a Asked<'a>,
    /// Made when the first condition is to be decided: most questions are about none.
    context: Option<Context<'static, 'static>>,
    known: [bool; VARIABLES.len()],
}

impl Condition {
    /// Understands a condition, or says why not.
    ///
    /// # Errors
    /// A sentence for whoever wrote it: not CEL, too long, too costly, or about something unknown.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > CONDITION_MAX {
            return Err(format!("must have at most {CONDITION_MAX} bytes"));
        }
        let program = stacker::grow(ROOM_TO_READ, || understood(text))?;
        let references = program.references();
        let looks_at = VARIABLES.map(|name| references.has_variable(name));
        Ok(Self {
            text: text.into(),
            program: Arc::new(program),
            looks_at,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// Why that cannot be said: something that it looks at is not there, or is of another kind. Whoever
    /// asks must take that for a no.
    pub fn holds(&self, facts: &mut Facts<'_>) -> Result<bool, String> {
        let context = facts.know(self.looks_at)?;
        let decide = || self.program.execute(context);
        match stacker::maybe_grow(ROOM_TO_DECIDE / 4, ROOM_TO_DECIDE, decide) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err("it is neither true nor false".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl<'a> Facts<'a> {
    /// Nothing is worked out yet.
    pub fn of(asked: &'a Asked<'a>) -> Self {
        Self {
            asked,
            context: None,
            known: [false; VARIABLES.len()],
        }
    }

    fn know(
        &mut self,
        wanted: [bool; VARIABLES.len()],
    ) -> Result<&Context<'static, 'static>, String> {
        let functions = || Context::with_env(Arc::clone(&FUNCTIONS));
        let context = self.context.get_or_insert_with(functions);
        for (index, name) in VARIABLES.into_iter().enumerate() {
            if wanted[index] && !self.known[index] {
                context.add_variable_from_value(name, value(name, self.asked)?);
                self.known[index] = true;
            }
        }
        Ok(context)
    }
}

fn understood(text: &str) -> Result<Program, String> {
    let program = Program::compile(text).map_err(|errors| {
        let all = errors.to_string();
        let first = all.lines().next().unwrap_or_default();
        let first = first.replace("ERROR: <input>:", "at ");
        format!("is not a condition in CEL: {first}")
    })?;
    let whole = program.expression();
    if depth(whole) > DEPTH_MAX {
        return Err(format!("is nested more than {DEPTH_MAX} levels deep"));
    }
    if loops(whole) > 1 {
        return Err("may go through a list, but not once more for each of its items".to_owned());
    }
    let references = program.references();
    let is_unknown =
        |name: &&str| !VARIABLES.contains(name) && !name.starts_with('@') && !is_bound(whole, name);
    if let Some(name) = references.variables().into_iter().filter(is_unknown).min() {
        let known = VARIABLES.join(", ");
        return Err(format!("knows nothing called `{name}`: there are {known}"));
    }
    Ok(program)
}

fn depth(expression: &IdedExpr) -> usize {
    1 + inner(expression).into_iter().map(depth).max().unwrap_or(0)
}

fn value(name: &str, asked: &Asked<'_>) -> Result<Value, String> {
    let made = match name {
        "arguments" => return arguments(asked.arguments),
        "tool" => return Ok(asked.tool.unwrap_or_default().into()),
        "time" => cel::to_value(time(asked)?),
        "user" => cel::to_value(json!({
            "name": asked.who.name,
            "roles": asked.who.rights.role_names().collect::<Vec<_>>(),
        })),
        _ => cel::to_value(service(asked.on)),
    };
    made.map_err(|error| error.to_string())
}

fn service(target: &Target<'_>) -> serde_json::Value {
    json!({
        "name": target.name,
        "owner": target.owner,
        "environment": target.environment,
        "tags": target.tags,
    })
}

/// Of the clock of the world (UTC).
fn time(asked: &Asked<'_>) -> Result<serde_json::Value, String> {
    let millis = i64::try_from(asked.now.as_millis()).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(millis).map_err(|error| error.to_string())?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    Ok(json!({
        "unix": at.timestamp().as_second(),
        "hour": at.hour(),
        "minute": at.minute(),
        "weekday": at.weekday().to_monday_one_offset(),
    }))
}

fn arguments(raw: Option<&RawValue>) -> Result<Value, String> {
    let text = raw.map_or("{}", RawValue::get);
    if text.len() > ARGUMENTS_MAX {
        return Err(format!(
            "the arguments have more than {ARGUMENTS_MAX} bytes"
        ));
    }
    // The server may take the other one of two values under one name.
    let value = unambiguous::read_in_any_case(text).map_err(|error| error.to_string())?;
    cel::to_value(value).map_err(|error| error.to_string())
}

/// How many loops stand within each other at most.
fn loops(expression: &IdedExpr) -> usize {
    let own = usize::from(matches!(expression.expr, Expr::Comprehension(_)));
    own + inner(expression).into_iter().map(loops).max().unwrap_or(0)
}

/// Whether a loop names its items so.
fn is_bound(expression: &IdedExpr, name: &str) -> bool {
    let here = match &expression.expr {
        Expr::Comprehension(one) => {
            one.iter_var == name || one.accu_var == name || one.iter_var2.as_deref() == Some(name)
        }
        _ => false,
    };
    here || inner(expression).into_iter().any(|one| is_bound(one, name))
}

/// What an expression is made of.
fn inner(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::Comprehension(one) => vec![
            &one.iter_range,
            &one.accu_init,
            &one.loop_cond,
            &one.loop_step,
            &one.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map
            .entries
            .iter()
            .flat_map(|entry| of_entry(&entry.expr))
            .collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Struct(one) => one
            .entries
            .iter()
            .flat_map(|entry| of_entry(&entry.expr))
            .collect(),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Condition {}
impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}
impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::compile(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
