//! Specs as they are stored, with the number of their format: what an earlier Vaxel wrote is read by a
//! later one, and what cannot be read is said and kept.
//!
//! A new format is one function at the end of [`STEPS`] and its test. Specs of revisions stay as they were
//! accepted and are taken to the newest format whenever they are read; those of services are also
//! rewritten at start, so that every row is of one format from then on. That is no revision: what is
//! wanted stays the same, only how it is written changes.

use serde_json::{Map, Value};

use super::{
    Builtin, HttpSource, McpSource, ProcessSource, ServiceDraft, ServiceResource, ServiceSpec,
    Source,
};
use crate::failure::Issue;

/// Takes the members of a spec from one format to the next. It gets whatever was stored, so that it
/// changes nothing which does not look as the format before says.
pub type Step = fn(&mut Map<String, Value>);

/// `STEPS[0]` leads from format 1 to 2, and so on.
const STEPS: &[Step] = &[];

/// The format of what is written now.
pub const FORMAT: usize = STEPS.len() + 1;

/// Where a stored spec says its format. One that does not is of the first.
const KEY: &str = "format";

/// What is wrong with what is stored of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Defect {
    /// Every problem with its path.
    pub issues: Vec<Issue>,
    /// The spec as it is stored, where it cannot be read. It stays as long as nobody replaces it.
    pub text: Option<String>,
}

/// The text of a spec, to be stored.
///
/// # Errors
/// None in practice: those of JSON.
pub fn write(spec: &ServiceSpec) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(spec)?;
    // A spec is an object with a source.
    Ok(format!(
        "{},{}",
        prefix(),
        json.get(1..).unwrap_or_default()
    ))
}

/// Whether the text was written in the newest format, and needs not be rewritten.
pub fn is_newest(text: &str) -> bool {
    text.strip_prefix(&prefix())
        .is_some_and(|rest| rest.starts_with(','))
}

/// A stored spec; `Err` says why it cannot be read.
pub fn read(text: &str) -> Result<ServiceSpec, Issue> {
    let spec = if is_newest(text) {
        serde_json::from_str(text)
    } else {
        serde_json::from_value(value(text)?)
    };
    spec.map_err(|error| unreadable(&error))
}

/// The text of a stored spec in the newest format, when it is in an earlier one.
pub fn renewed(text: &str) -> Option<String> {
    if is_newest(text) {
        return None;
    }
    let json = serde_json::to_string(&value(text).ok()?).ok()?;
    read(&json).ok()?;
    Some(format!("{},{}", prefix(), json.get(1..)?))
}

/// What every text of the newest format begins with.
pub fn beginning() -> String {
    prefix() + ","
}

/// The JSON of a stored spec in the newest format; `Err` says why there is none.
pub fn value(text: &str) -> Result<Value, Issue> {
    let mut value: Value = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    let Value::Object(members) = &mut value else {
        return Err(Issue::new("spec", "cannot be read: it is no object"));
    };
    upgrade_marked(members)?;
    Ok(value)
}

/// Writes the number of the newest format into a part of a spec, as templates hold one.
pub fn mark(members: &mut Map<String, Value>) {
    members.insert(KEY.to_owned(), FORMAT.into());
}

/// Takes the number out of a spec, or of a part of one, and brings it to the newest format.
///
/// # Errors
/// When no such format is known.
pub fn upgrade_marked(members: &mut Map<String, Value>) -> Result<(), Issue> {
    let format = members.remove(KEY).unwrap_or(Value::from(1));
    upgrade(members, &format, STEPS)
}

/// Takes a spec that was written in `format` to the newest one.
///
/// # Errors
/// When no such format is known.
pub fn from_format(spec: &mut Value, format: &Value) -> Result<(), Issue> {
    let mut none = Map::new();
    upgrade(spec.as_object_mut().unwrap_or(&mut none), format, STEPS)
}

fn upgrade(members: &mut Map<String, Value>, format: &Value, steps: &[Step]) -> Result<(), Issue> {
    let known = steps.len() + 1;
    let number = format
        .as_u64()
        .and_then(|number| usize::try_from(number).ok());
    match number {
        Some(number @ 1..) if number <= known => {
            steps[number - 1..].iter().for_each(|step| step(members));
            Ok(())
        }
        Some(number @ 1..) => Err(Issue::new(
            "spec.format",
            format!(
                "is {number}, which a newer Vaxel wrote (this one knows up to {known}): use that one again, or \
                 write the service anew"
            ),
        )),
        _ => Err(Issue::new(
            "spec.format",
            format!("is {format}, not a number from 1 on"),
        )),
    }
}

fn prefix() -> String {
    format!("{{\"{KEY}\":{FORMAT}")
}

fn unreadable(error: &serde_json::Error) -> Issue {
    Issue::new("spec", format!("cannot be read: {error}"))
}

impl ServiceSpec {
    /// What stands for a spec that cannot be read: nothing of its `kind` (see [`Source::kind`]). It is
    /// never started.
    pub fn unread(kind: &str) -> Self {
        Self::new(match kind {
            "process" => Source::Process(ProcessSource::default()),
            "http" => Source::Http(HttpSource::default()),
            "builtin" => Source::Builtin(Builtin::Demo),
            _ => Source::Mcp(McpSource::default()),
        })
    }
}

impl ServiceResource {
    /// Everything that is wrong with what is stored, as the validation of today sees it; empty for what
    /// can be started.
    pub fn problems(&self) -> Vec<Issue> {
        if let Some(defect) = &self.defect {
            return defect.issues.clone();
        }
        let value = serde_json::to_value(ServiceDraft::from(self.clone()));
        let read = value.map(|value| ServiceDraft::from_json(&value));
        match read {
            Ok(Ok(_)) => Vec::new(),
            Ok(Err(issues)) => issues,
            Err(error) => vec![unreadable(&error)],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The steps of a Vaxel to come: `patience` became `limits.timeout`, then `limits` became `bounds`.
    fn patience_is_a_limit(spec: &mut Map<String, Value>) {
        if let Some(patience) = spec.remove("patience") {
            let limits = spec.entry("limits").or_insert_with(|| json!({}));
            limits["timeout"] = patience;
        }
    }
    fn limits_are_bounds(spec: &mut Map<String, Value>) {
        if let Some(limits) = spec.remove("limits") {
            spec.insert("bounds".to_owned(), limits);
        }
    }
    const TO_COME: &[Step] = &[patience_is_a_limit, limits_are_bounds];

    fn upgraded(spec: &Value, format: u64) -> Result<Value, Issue> {
        let mut spec = spec.clone();
        upgrade(spec.as_object_mut().unwrap(), &format.into(), TO_COME)?;
        Ok(spec)
    }

    #[test]
    fn every_step_from_the_format_on_is_taken_in_order() {
        let newest = json!({ "bounds": { "timeout": "5s" } });
        let first = json!({ "patience": "5s" });
        assert_eq!(upgraded(&first, 1).unwrap(), newest);
        let second = json!({ "limits": { "timeout": "5s" } });
        assert_eq!(upgraded(&second, 2).unwrap(), newest);
        assert_eq!(upgraded(&newest, 3).unwrap(), newest);
        // What a later format does not know is not taken for what it was in an earlier one.
        assert_eq!(upgraded(&first, 3).unwrap(), first);
    }

    #[test]
    fn a_format_that_nobody_knows_is_a_problem_and_no_change() {
        let spec = json!({ "patience": "5s" });
        let issue = upgraded(&spec, 4).unwrap_err();
        assert_eq!(issue.path, "spec.format");
        assert!(
            issue
                .message
                .contains("is 4, which a newer Vaxel wrote (this one knows up to 3)")
        );
        assert!(upgraded(&spec, 0).unwrap_err().message.contains("is 0"));
        let newer = format!(
            "{{\"format\":{},\"source\":{{\"builtin\":\"demo\"}}}}",
            FORMAT + 1
        );
        assert_eq!(read(&newer).unwrap_err().path, "spec.format");
        assert_eq!(read("{\"format\":\"x\"}").unwrap_err().path, "spec.format");
    }

    #[test]
    fn what_is_written_is_read_with_and_without_its_number() {
        let spec = ServiceSpec::new(Source::Builtin(Builtin::Demo));
        let text = write(&spec).unwrap();
        assert!(is_newest(&text), "{text}");
        assert_eq!(read(&text).unwrap(), spec);
        assert_eq!(value(&text).unwrap(), serde_json::to_value(&spec).unwrap());
        // As it was stored before there were formats.
        let plain = serde_json::to_string(&spec).unwrap();
        assert!(!is_newest(&plain));
        assert_eq!(read(&plain).unwrap(), spec);
        let new = renewed(&plain).unwrap();
        assert!(is_newest(&new), "{new}");
        assert_eq!(read(&new).unwrap(), spec);
        assert_eq!(renewed(&text), None);
        assert_eq!(renewed("{\"source\":7}"), None, "it stays as it is");
        let other = text.replacen("\"format\":1", "\"format\":12", 1);
        assert!(!is_newest(&other), "{other}");
    }

    #[test]
    fn a_part_of_a_spec_keeps_its_number_too() {
        let part = json!({ "limits": { "timeout": "5s" } });
        let mut stored = part.clone();
        mark(stored.as_object_mut().unwrap());
        assert_eq!(stored["format"], FORMAT);
        upgrade_marked(stored.as_object_mut().unwrap()).unwrap();
        assert_eq!(stored, part);
        let mut newer = json!({ "format": FORMAT + 1 });
        let refused = upgrade_marked(newer.as_object_mut().unwrap());
        assert_eq!(refused.unwrap_err().path, "spec.format");
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            "{\"format\":1,\"source\":7}",
            "{\"format\":1}",
        ] {
            let issue = read(text).unwrap_err();
            assert_eq!(issue.path, "spec", "{text}");
            assert!(
                issue.message.starts_with("cannot be read: "),
                "{}",
                issue.message
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            _ = read(&text);
            _ = value(&text);
        }
    }
}
