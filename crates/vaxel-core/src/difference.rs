//! What differs between two JSON documents, place by place.

use serde::Serialize;
use serde_json::Value;

/// One place where two documents differ.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Difference {
    /// Where, as a path of keys and positions: `spec.source.process.args[1]`. A key that is no plain
    /// word stands in quotes.
    #[schema(example = "spec.limits.timeout")]
    pub path: String,
    /// What was done there.
    pub change: Change,
    /// What stood there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub old: Option<Value>,
    /// What stands there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub new: Option<Value>,
}

/// What was done at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// There was nothing.
    Added,
    /// There is nothing any more.
    Removed,
    /// Something else stands there.
    Changed,
}

/// Every place where `new` differs from `old`, in the order of `old`, added places last. Only the
/// smallest places are named: an object that differs in one member is named by that member. Lists
/// are compared position by position.
pub fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", (old, new), &mut found);
    found
}

fn compare(path: &str, (old, new): (&Value, &Value), found: &mut Vec<Difference>) {
    match (old, new) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in left {
                let path = member(path, key);
                match right.get(key) {
                    Some(other) => compare(&path, (value, other), found),
                    None => found.push(one(path, Some(value), None)),
                }
            }
            for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
                found.push(one(member(path, key), None, Some(value)));
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            for index in 0..left.len().max(right.len()) {
                let path = format!("{path}[{index}]");
                match (left.get(index), right.get(index)) {
                    (Some(value), Some(other)) => compare(&path, (value, other), found),
                    (value, other) => found.push(one(path, value, other)),
                }
            }
        }
        (left, right) if left == right => {}
        (left, right) => found.push(one(path.to_owned(), Some(left), Some(right))),
    }
}

fn one(path: String, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let change = match (old, new) {
        (None, _) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(_), Some(_)) => Change::Changed,
    };
    Difference {
        path,
        change,
        old: old.cloned(),
        new: new.cloned(),
    }
}

/// The path of the member `key` of what is at `path`.
pub(crate) fn member(path: &str, key: &str) -> String {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    let plain = !key.is_empty() && key.chars().all(is_word);
    match (path.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key:?}]"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, proptest};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_smallest_places_that_differ_are_named_with_both_values() {
        let old = json!({
            "name": "files", "tags": ["a", "b"],
            "spec": {"env": {"A.B": "secret:1", "C": "2"}, "replicas": 1, "same": {"x": []}}
        });
        let new = json!({
            "name": "files", "tags": ["a", "c", "d"], "enabled": true,
            "spec": {"env": {"A.B": "secret:2"}, "replicas": {"of": 1}, "same": {"x": []}}
        });
        let found: Vec<String> = differences(&old, &new)
            .iter()
            .map(|one| {
                let text = |value: &Option<Value>| {
                    value
                        .as_ref()
                        .map_or_else(|| "-".to_owned(), Value::to_string)
                };
                format!("{} {} > {}", one.path, text(&one.old), text(&one.new))
            })
            .collect();
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!(
            sorted,
            [
                "enabled - > true",
                "spec.env.C \"2\" > -",
                "spec.env[\"A.B\"] \"secret:1\" > \"secret:2\"",
                "spec.replicas 1 > {\"of\":1}",
                "tags[1] \"b\" > \"c\"",
                "tags[2] - > \"d\"",
            ]
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0_i32..3).prop_map(Value::from),
            "[a-b.]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-b.]{0,2}", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_differs_exactly_when_the_documents_are_equal(a in value(), b in value()) {
            prop_assert_eq!(differences(&a, &b).is_empty(), a == b);
            let mut paths: Vec<String> = differences(&a, &b).into_iter().map(|one| one.path).collect();
            let all = paths.len();
            paths.sort();
            paths.dedup();
            prop_assert_eq!(paths.len(), all, "no place is named twice");
        }
    }
}
