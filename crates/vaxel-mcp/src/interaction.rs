//! What a server asks of its client in the middle of a request, in the words of MCP 2026-07-28
//! (Patterns, "Multi Round-Trip Requests"): questions under keys, answers under the same keys.
//!
//! A legacy server asks by requests of its own, which become such questions; a legacy client gets
//! each question as such a request. What a revision has no words for cannot be asked in it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    envelope::Malformed,
    error::URL_ELICITATION_REQUIRED,
    handshake::capabilities::Answers,
    meta,
    method::Method,
    revision::{Era, Revision},
};

/// One thing that a server wants to know from its client.
#[derive(Debug, Clone)]
pub struct Question {
    method: Method,
    /// `{"method":…,"params":…}`
    body: Box<RawValue>,
}

/// What an `input_required` result asks.
#[derive(Debug, Clone)]
pub struct Round {
    /// The questions under their keys, in the server's order.
    pub questions: Vec<(Box<str>, Question)>,
    /// What the server wants to have back with the answers, a raw JSON string.
    pub state: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl Question {
    /// Reads a question as it is embedded in a result; `None` when it is none that this revision
    /// knows.
    pub fn read(body: &RawValue) -> Option<Self> {
        let read: Body<'_> = serde_json::from_str(body.get()).ok()?;
        let method = asked_by(&read.method)?;
        Some(Self {
            method,
            body: body.to_owned(),
        })
    }

    /// What a legacy server asks with a request of its own; `None` when its method is no question.
    pub fn of_legacy(method: &str, params: Option<&RawValue>) -> Option<Self> {
        let method = asked_by(method)?;
        // The ids of completion notices, of tasks and of progress have no place in an embedded request.
        let gone = |name: &str| matches!(name, "elicitationId" | "task" | "_meta");
        let params = meta::rewrite(params, gone, &[]);
        let mut name = Vec::new();
        meta::quote(&mut name, method.as_str());
        let body = meta::rewrite(None, |_| false, &[("method", &name), ("params", &params)]);
        Some(Self {
            method,
            body: meta::object(body),
        })
    }

    /// The method that a legacy server would ask by.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Whether a client that declared `answers` can be asked this.
    pub fn is_answered_by(&self, answers: &Answers) -> bool {
        match self.method {
            Method::RootsList => answers.roots,
            Method::CreateMessage if self.uses_tools() => answers.sampling_tools,
            Method::CreateMessage => answers.sampling,
            _ if self.is_url() => answers.urls,
            _ => answers.forms,
        }
    }

    /// `params` of the request that asks a legacy client of `revision`; `None` when that revision has
    /// no words for it. `elicitation_id` names the interaction where a revision wants a name.
    pub fn to_legacy(&self, revision: Revision, elicitation_id: &str) -> Option<Vec<u8>> {
        debug_assert_eq!(revision.era(), Era::Legacy);
        let params = self.params();
        let newest = revision == Revision::LATEST_LEGACY;
        match self.method {
            Method::Elicit if self.is_url() => {
                let mut id = Vec::new();
                meta::quote(&mut id, elicitation_id);
                newest.then(|| meta::rewrite(params, |_| false, &[("elicitationId", &id)]))
            }
            Method::Elicit if revision < Revision::V2025_06_18 => None,
            Method::Elicit if revision < Revision::LATEST_LEGACY => {
                let schema = self.member("requestedSchema")?;
                let schema = plain_form(schema)?;
                let gone = |name: &str| name == "mode";
                Some(meta::rewrite(params, gone, &[("requestedSchema", &schema)]))
            }
            Method::CreateMessage if !newest => {
                if self.uses_tools() {
                    return None;
                }
                let messages = single_blocks(self.member("messages")?)?;
                Some(meta::rewrite(params, |_| false, &[("messages", &messages)]))
            }
            _ => Some(meta::rewrite(params, |_| false, &[])),
        }
    }

    fn params(&self) -> Option<&RawValue> {
        let body: Body<'_> = serde_json::from_str(self.body.get()).ok()?;
        body.params
    }

    fn member(&self, name: &str) -> Option<&RawValue> {
        let members = meta::members(self.params()?.get())?;
        let found = members.iter().rfind(|(key, _)| key == name);
        found.map(|(_, value)| *value)
    }

    fn is_url(&self) -> bool {
        self.method == Method::Elicit
            && self
                .member("mode")
                .is_some_and(|mode| mode.get() == r#""url""#)
    }

    fn uses_tools(&self) -> bool {
        self.member("tools").is_some() || self.member("toolChoice").is_some()
    }
}

impl Round {
    /// Reads an `input_required` result.
    ///
    /// # Errors
    /// When it asks nothing and hands nothing over, or asks what no client can answer.
    pub fn read(result: &RawValue) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        struct InputRequired<'a> {
            #[serde(borrow, default, rename = "inputRequests")]
            requests: Option<&'a RawValue>,
            #[serde(borrow, default, rename = "requestState")]
            state: Option<&'a RawValue>,
        }
        const SHAPE: Malformed =
            Malformed::Message("an input_required result needs inputRequests or a requestState");
        let read: InputRequired<'_> = serde_json::from_str(result.get()).map_err(|_| SHAPE)?;
        let asked = match read.requests {
            Some(requests) => meta::members(requests.get()).ok_or(SHAPE)?,
            None => Vec::new(),
        };
        if asked.is_empty() && read.state.is_none() {
            return Err(SHAPE);
        }
        let read_one = |(key, body): (Cow<'_, str>, &RawValue)| {
            let question = Question::read(body)?;
            Some((key.into(), question))
        };
        let questions: Option<Vec<_>> = asked.into_iter().map(read_one).collect();
        Ok(Self {
            questions: questions
                .ok_or(Malformed::Message("it asks for what is no input request"))?,
            state: read.state.map(ToOwned::to_owned),
        })
    }
}

/// What a legacy server wants its client to visit before it is asked again; empty when `error` is not
/// `-32042` (MCP 2025-11-25, Client, Elicitation, "URL Elicitation Required Error").
pub fn required_urls(error: &RawValue) -> Vec<Question> {
    #[derive(Deserialize)]
    struct Error<'a> {
        code: i32,
        #[serde(borrow, default)]
        data: Option<Data<'a>>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow, default)]
        elicitations: Vec<&'a RawValue>,
    }
    let Ok(error) = serde_json::from_str::<Error<'_>>(error.get()) else {
        return Vec::new();
    };
    let data = error
        .data
        .filter(|_| error.code == URL_ELICITATION_REQUIRED);
    let elicitations = data.map(|data| data.elicitations).unwrap_or_default();
    let asked = elicitations
        .into_iter()
        .filter_map(|params| Question::of_legacy(Method::Elicit.as_str(), Some(params)));
    asked.filter(Question::is_url).collect()
}

/// The `input_required` result that asks `questions`; `state` comes back with the answers.
pub fn input_required<'a>(
    questions: impl IntoIterator<Item = (&'a str, &'a Question)>,
    state: &str,
) -> Vec<u8> {
    let mut asked = vec![b'{'];
    for (key, question) in questions {
        meta::member(&mut asked, key, question.body.get().as_bytes());
    }
    asked.push(b'}');
    let mut quoted = Vec::new();
    meta::quote(&mut quoted, state);
    let mut set: Vec<(&str, &[u8])> = vec![("resultType", b"\"input_required\"")];
    if asked.len() > 2 {
        set.push(("inputRequests", &asked));
    }
    set.push(("requestState", &quoted));
    meta::rewrite(None, |_| false, &set)
}

/// A JSON text whose white space and order of members say nothing: two texts of the same value have
/// the same canonical form.
pub fn canonical(text: &str) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut out = Vec::with_capacity(text.len());
    write_canonical(&value, &mut out);
    Some(out)
}

fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, value) in sorted {
                meta::quote(out, name);
                out.push(b':');
                write_canonical(value, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Array(elements) => {
            out.push(b'[');
            for element in elements {
                write_canonical(element, out);
                out.push(b',');
            }
            out.push(b']');
        }
        // Writing a scalar to a `Vec` has no error to report.
        scalar => drop(serde_json::to_writer(out, scalar)),
    }
}

/// The questions that a server may ask: three methods and no others.
fn asked_by(method: &str) -> Option<Method> {
    let method = Method::of(method);
    matches!(
        method,
        Method::Elicit | Method::CreateMessage | Method::RootsList
    )
    .then_some(method)
}

/// A form's schema in the words of 2025-06-18, which has enumerations without `oneOf` and no choice of
/// several.
fn plain_form(schema: &RawValue) -> Option<Vec<u8>> {
    let mut schema: Value = serde_json::from_str(schema.get()).ok()?;
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        if property["type"] == "array" {
            return None;
        }
        let Some(titled) = property.get("oneOf").and_then(Value::as_array) else {
            continue;
        };
        let column = |name: &str| -> Value { titled.iter().map(|one| one[name].clone()).collect() };
        let (values, names) = (column("const"), column("title"));
        let property = property.as_object_mut()?;
        property.remove("oneOf");
        property.insert("enum".to_owned(), values);
        property.insert("enumNames".to_owned(), names);
    }
    serde_json::to_vec(&schema).ok()
}

/// Messages as they were before 2025-11-25: each has one block, not a list of them.
fn single_blocks(messages: &RawValue) -> Option<Vec<u8>> {
    let mut messages: Vec<Value> = serde_json::from_str(messages.get()).ok()?;
    for message in &mut messages {
        let content = message.get_mut("content")?;
        if let Value::Array(blocks) = content {
            let only = blocks.pop()?;
            if !blocks.is_empty() {
                return None;
            }
            *content = only;
        }
    }
    serde_json::to_vec(&messages).ok()
}

#[cfg(test)]
mod tests;
