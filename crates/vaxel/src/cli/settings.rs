//! `vaxel service config`: every value, and who gave it. Settings are changed by the same names.

use anyhow::Context as _;
use serde_json::{Map, Value};
use vaxel_client::Client;

use super::{Context, service::path};
use crate::output;

/// The categories, in the order in which they are shown.
const CATEGORIES: [&str; 5] = [
    "runtime",
    "network",
    "security",
    "integration",
    "monitoring",
];
/// Longest value in the table, characters.
const SHOWN_MAX: usize = 60;

pub(super) async fn show(name: &str, client: &Client, context: &Context) -> anyhow::Result<()> {
    let config: Value = client.get(&path(name, "/config")).await?;
    if context.style.json {
        output::json(&config);
        return Ok(());
    }
    let mut table = output::table(&["CATEGORY", "SETTING", "VALUE", "FROM", "DEFAULT"]);
    for category in CATEGORIES {
        for setting in config[category].as_array().into_iter().flatten() {
            table.add_row([
                category,
                setting["path"].as_str().unwrap_or_default(),
                &shown(&setting["value"]),
                setting["from"].as_str().unwrap_or_default(),
                &shown(&setting["default"]),
            ]);
        }
    }
    output::rows(table, context.style);
    Ok(())
}

/// Sets and unsets settings of a draft, by their names: `limits.timeout`. What stands beside the spec in
/// it (`environment`) is named as it is.
pub(super) fn change(draft: &mut Value, set: &[String], unset: &[String]) -> anyhow::Result<()> {
    for text in set {
        let (name, value) = text
            .split_once('=')
            .with_context(|| format!("--set takes SETTING=VALUE, not `{text}`"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        let (parent, key) = place(draft, name)?;
        parent.insert(key.to_owned(), value);
    }
    for name in unset {
        let (parent, key) = place(draft, name)?;
        parent.remove(key);
    }
    Ok(())
}

/// The object that holds a setting, made where it is missing, and the setting's key in it.
fn place<'d, 'n>(
    draft: &'d mut Value,
    name: &'n str,
) -> anyhow::Result<(&'d mut Map<String, Value>, &'n str)> {
    let (parents, key) = name.rsplit_once('.').unwrap_or(("", name));
    let is_beside = parents.is_empty() && draft.get(key).is_some() && key != "spec";
    let mut at = if is_beside { draft } else { &mut draft["spec"] };
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        let object = at.as_object_mut().with_context(|| nothing_below(name))?;
        at = object.entry(parent).or_insert_with(|| Map::new().into());
    }
    let object = at.as_object_mut().with_context(|| nothing_below(name))?;
    Ok((object, key))
}

fn nothing_below(name: &str) -> String {
    format!("`{name}` is no setting; `vaxel service config` shows which there are")
}

/// A value in one line; nothing for nothing.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= SHOWN_MAX && line.len() == text.len() {
        return text;
    }
    let start: String = line.chars().take(SHOWN_MAX).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn draft() -> Value {
        json!({"name": "a", "environment": "default", "spec": {"replicas": 1, "limits": {"memory": "1GiB"}}})
    }

    fn changed(set: &[&str], unset: &[&str]) -> anyhow::Result<Value> {
        let mut draft = draft();
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        change(&mut draft, &owned(set), &owned(unset))?;
        Ok(draft)
    }

    #[test]
    fn settings_are_named_as_they_are_shown() {
        let set = [
            "replicas=2",
            "limits.timeout=20s",
            "health.recovery.actions=[\"restart\"]",
            "environment=prod",
            "title=a=b",
        ];
        assert_eq!(
            changed(&set, &["limits.memory", "era"]).unwrap(),
            json!({"name": "a", "environment": "prod", "spec": {
                "replicas": 2, "limits": {"timeout": "20s"}, "title": "a=b",
                "health": {"recovery": {"actions": ["restart"]}},
            }})
        );
    }

    #[test]
    fn what_is_no_setting_is_said() {
        assert!(
            changed(&["replicas"], &[])
                .unwrap_err()
                .to_string()
                .contains("SETTING=VALUE")
        );
        let deep = changed(&["replicas.x=1"], &[]).unwrap_err().to_string();
        assert!(deep.contains("`replicas.x` is no setting"), "{deep}");
    }
}
