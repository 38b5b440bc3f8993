//! The templates that are part of the binary, one readable file each. They cannot be changed.

use std::sync::LazyLock;

use serde_json::Value;
use vaxel_core::template::{Template, TemplateName};

/// Their texts. A file counts its own `version`: count on when you change one.
const FILES: [&str; 8] = [
    include_str!("builtin/everything.json"),
    include_str!("builtin/fetch.json"),
    include_str!("builtin/filesystem.json"),
    include_str!("builtin/git.json"),
    include_str!("builtin/http.json"),
    include_str!("builtin/memory.json"),
    include_str!("builtin/postgres.json"),
    include_str!("builtin/time.json"),
];

static ALL: LazyLock<Vec<(Template, u64)>> =
    LazyLock::new(|| FILES.into_iter().filter_map(read).collect());

/// Every one with its version, by name.
pub(super) fn all() -> &'static [(Template, u64)] {
    &ALL
}

/// The one of this name.
pub(super) fn find(name: &TemplateName) -> Option<&'static (Template, u64)> {
    ALL.iter().find(|(template, _)| template.name == *name)
}

/// A test reads them all.
fn read(text: &str) -> Option<(Template, u64)> {
    let mut value: Value = serde_json::from_str(text).ok()?;
    let version = value.as_object_mut()?.remove("version")?.as_u64()?;
    let template = Template::from_json(&value).ok()?;
    Some((template, version))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vaxel_core::{
        service::draft_schema,
        template::{Chain, DerivedDraft},
    };
    use vaxel_mcp::schema::Schema;

    use super::*;

    #[test]
    fn every_template_of_the_binary_can_be_used() {
        let names: Vec<&str> = all().iter().map(|(one, _)| one.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "everything",
                "fetch",
                "filesystem",
                "git",
                "http",
                "memory",
                "postgres",
                "time"
            ]
        );
        let schema = serde_json::value::to_raw_value(&draft_schema()).unwrap();
        let schema = Schema::compile(&schema).unwrap();
        let fits = |draft: &Value| {
            let instance = schema.read(&draft.to_string()).unwrap();
            schema.check(&instance).is_ok()
        };
        assert!(!fits(
            &json!({ "name": "a", "spec": { "source": { "process": { "command": 1 } } } })
        ));
        for (template, version) in all() {
            assert!(template.description.is_some(), "{}", template.name);
            let documented = template.parameters.values().all(|one| one.doc.is_some());
            assert!(documented, "{}", template.name);
            let mut chain = Chain::new();
            assert_eq!(chain.add(template.clone(), *version), Ok(None));
            assert_eq!(chain.check(), []);
            let given = json!({
                "root": "/data", "repository": "/data", "url": match template.name.as_str() {
                    "postgres" => "postgresql://u:p@h/d",
                    _ => "https://mcp.example.com/mcp",
                }
            });
            let with: serde_json::Map<String, Value> = template
                .parameters
                .iter()
                .filter(|(_, parameter)| parameter.required)
                .map(|(name, _)| (name.clone(), given[name].clone()))
                .collect();
            let draft =
                json!({ "name": "a", "extends": { "template": template.name, "with": with } });
            assert!(fits(&draft), "{draft}");
            let draft = DerivedDraft::from_json(&draft).unwrap();
            let mut made = chain.render(&draft).unwrap();
            made.spec.extends = None;
            let made = serde_json::to_value(&made).unwrap();
            assert!(fits(&made), "{made}");
        }
    }
}
