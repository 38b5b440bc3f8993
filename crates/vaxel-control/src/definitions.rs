//! Whether what a server offers is still what somebody accepted: a digest of each definition.

use serde_json::{Value, value::RawValue};
use vaxel_auth::fingerprint;
use vaxel_core::catalog::{Catalog, Item};
use vaxel_store::Digests;

/// Names that a sentence holds; more are counted.
const NAMED: usize = 5;

/// The digest of each tool and prompt, whatever the order of the members in its definition. What changes
/// by itself (resources) has none.
pub(crate) fn digests(catalog: &Catalog) -> Digests {
    let of = |kind: &str, items: &[Item]| -> Vec<(String, String)> {
        let digest = |item: &Item| (format!("{kind} {}", item.key), digest(&item.definition));
        items.iter().map(digest).collect()
    };
    let tools = of("tool", &catalog.tools);
    tools
        .into_iter()
        .chain(of("prompt", &catalog.prompts))
        .collect()
}

fn digest(definition: &RawValue) -> String {
    // Members of a value are in the order of their names.
    let value: Option<Value> = serde_json::from_str(definition.get()).ok();
    let text = value.map_or_else(|| definition.get().to_owned(), |value| value.to_string());
    fingerprint::of(text.as_bytes())
}

/// What is not as it was accepted, as a clause.
pub(crate) fn drift(accepted: &Digests, now: &Digests) -> Option<String> {
    let changed = now
        .iter()
        .filter_map(|(name, digest)| match accepted.get(name) {
            None => Some(format!("{name} is new")),
            Some(before) if before != digest => Some(format!("{name} changed")),
            Some(_) => None,
        });
    let gone = accepted.keys().filter(|name| !now.contains_key(*name));
    let all: Vec<String> = changed
        .chain(gone.map(|name| format!("{name} is gone")))
        .collect();
    if all.is_empty() {
        return None;
    }
    let named = all
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "definitions are not those that were accepted: {named}{more}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests_of(tools: &[(&str, &str)]) -> Digests {
        let digest = |text: &str| {
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            digest(&raw)
        };
        let one = |(name, text): &(&str, &str)| (format!("tool {name}"), digest(text));
        tools.iter().map(one).collect()
    }

    #[test]
    fn the_order_of_members_says_nothing_and_everything_else_does() {
        let before = digests_of(&[("a", r#"{"x":1,"y":[1,2]}"#), ("b", "{}")]);
        let same = digests_of(&[("a", r#"{ "y": [1, 2], "x": 1 }"#), ("b", "{}")]);
        assert_eq!(drift(&before, &same), None);
        let other = digests_of(&[("a", r#"{"x":1,"y":[2,1]}"#), ("c", "{}")]);
        assert_eq!(
            drift(&before, &other).unwrap(),
            "definitions are not those that were accepted: tool a changed, tool c is new, tool b is gone"
        );
        let many: Vec<(String, &str)> = (0..9).map(|n| (format!("t{n}"), "{}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, text)| (&**name, *text)).collect();
        let said = drift(&Digests::new(), &digests_of(&many)).unwrap();
        assert!(said.ends_with("tool t4 is new and 4 more"), "{said}");
    }
}
