use serde_json::json;

use super::*;

fn problems(value: &Value) -> Vec<String> {
    let issues = ToolsetDraft::from_json(value).err().unwrap_or_default();
    issues
        .iter()
        .map(|one| format!("{}: {}", one.path, one.message))
        .collect()
}

#[test]
fn a_draft_is_read_as_it_is_written() {
    let value = json!({"name": "work", "description": "For work", "services": [
        {"service": "time"},
        {"service": "files", "tools": ["read_*"], "prompts": [], "resources": ["file:///docs/*"]},
    ]});
    let draft = ToolsetDraft::from_json(&value).unwrap();
    assert_eq!(draft.services[0], Selected::all_of("time".parse().unwrap()));
    assert_eq!(serde_json::to_value(&draft).unwrap(), value);
    assert_eq!(
        serde_json::from_value::<ToolsetDraft>(value).unwrap(),
        draft
    );
}

#[test]
fn every_problem_is_named_with_its_place() {
    let value = json!({"name": "sets", "service": [], "services": [
        {"service": "Files", "tools": "all"},
        {"tools": ["", 1], "tool": []},
        {"service": "a"}, {"service": "a"}, 7,
    ]});
    let expected = [
        "name: `sets` is not a set name: the word is reserved for an endpoint",
        "services[0].service: `Files` is not a service name: only a-z, 0-9, `-` and `_` are allowed",
        "services[0].tools: expected a list of strings, found the string \"all\"",
        "services[1].service: is missing",
        "services[1].tools[1]: expected a string, found 1",
        "services[1].tools[0]: must have 1 to 2048 bytes",
        "services[1].tool: is not a known key; did you mean `tools`?",
        "services[4]: expected an object, found 7",
        "services: name `a` more than once; put its patterns together",
        "service: is not a known key; did you mean `services`?",
    ];
    assert_eq!(problems(&value), expected);
    for empty in [json!({"name": "a"}), json!({"name": "a", "services": []})] {
        assert_eq!(problems(&empty).len(), 1, "{empty}");
    }
}

#[test]
fn what_is_absent_selects_everything_and_what_is_empty_nothing() {
    let some = ["read_*".to_owned(), "stat".to_owned()];
    for (patterns, name, selected) in [
        (None, "anything", true),
        (Some(&some[..0]), "read_file", false),
        (Some(&some[..]), "read_file", true),
        (Some(&some[..]), "stat", true),
        (Some(&some[..]), "statx", false),
    ] {
        assert_eq!(selects(patterns, name), selected, "{name}");
    }
}
