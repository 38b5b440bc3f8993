use proptest::{prelude::*, proptest};
use serde_json::json;

use super::*;

fn paths(issues: &[Issue]) -> Vec<&str> {
    issues.iter().map(|issue| issue.path.as_str()).collect()
}

fn read(document: &Value) -> Bundle {
    Bundle::read(Parts::of(document), WantedService::from_json)
}

fn demo(name: &str) -> Value {
    json!({"name": name, "spec": {"source": {"builtin": "demo"}}})
}

#[test]
fn each_form_of_a_document_gives_its_services_with_their_places() {
    let clients = json!({"mcpServers": {"a": {"command": "a"}, "b": {"url": "http://b/mcp"}}});
    let cases = [
        (
            json!({"vaxel": 1, "services": [demo("a"), demo("b")]}),
            ["services[0]", "services[1]"],
        ),
        (json!([demo("a"), demo("b")]), ["[0]", "[1]"]),
        (clients, ["a", "b"]),
    ];
    for (document, expected) in cases {
        let bundle = read(&document);
        assert_eq!(bundle.issues, [], "{document}");
        let found: Vec<(&str, &str)> = bundle
            .services
            .iter()
            .map(|entry| (&*entry.path, entry.value.name().as_str()))
            .collect();
        assert_eq!(found, [(expected[0], "a"), (expected[1], "b")]);
    }
    let one = read(&demo("a"));
    assert_eq!((one.services.len(), &*one.services[0].path), (1, ""));
    assert_eq!(one.issues, []);
}

#[test]
fn every_problem_of_every_resource_is_named_at_its_place() {
    let bundle = read(&json!({
        "vaxel": 2, "servces": [],
        "services": [demo("a"), {"name": "b"}, demo("a"), 3],
        "toolsets": [{"name": "s", "services": []}],
        "templates": [{}],
    }));
    let mut found = paths(&bundle.issues);
    found.sort_unstable();
    let expected = [
        "servces",
        "services[1].spec",
        "services[2].name",
        "services[3]",
        "templates[0].name",
        "toolsets[0].services",
        "vaxel",
    ];
    assert_eq!(found, expected);
    let listed = read(&json!([demo("a"), demo("a"), {"name": "B C", "spec": {}}]));
    let mut found = paths(&listed.issues);
    found.sort_unstable();
    assert_eq!(found, ["[1].name", "[2].name", "[2].spec.source"]);
    for nothing in [
        json!(1),
        json!({}),
        json!({"a": 1}),
        json!({"services": {}}),
    ] {
        assert_eq!(paths(&read(&nothing).issues), [""], "{nothing}");
    }
}

#[test]
fn a_clients_server_that_cannot_be_used_is_a_problem_and_vaxel_itself_is_not() {
    let document = json!({"mcpServers": {
        "broken": {}, "vaxel": {"command": "vaxel", "args": ["stdio"]}, "fine": {"command": "x"}}});
    let parts = Parts::of(&document);
    assert_eq!(paths(&parts.issues), ["mcpServers.broken"]);
    assert_eq!(paths(&parts.notes), ["mcpServers.vaxel"]);
    assert_eq!(parts.services.len(), 1);
}

#[test]
fn variables_are_replaced_and_all_that_are_missing_are_named() {
    let mut document = json!({
        "env": {"A.B": "x${HOME}y", "C": "$$${HOME}$$", "D": "${NONE}"},
        "args": ["$HOME", "${NONE}${NOR}", "${input:x}", "${open", "$"]
    });
    let issues = expand(&mut document, |name| {
        (name == "HOME").then(|| "/h".to_owned())
    });
    assert_eq!(
        document,
        json!({
            "env": {"A.B": "x/hy", "C": "$/h$", "D": "${NONE}"},
            "args": ["$HOME", "${NONE}${NOR}", "${input:x}", "${open", "$"]
        })
    );
    let mut found: Vec<String> = issues.iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "args[1] `${NONE}` is not set in the environment",
            "args[1] `${NOR}` is not set in the environment",
            "args[2] `${input:x}` names no variable; write `$${` for a text with `${`",
            "args[3] `${open` names no variable; write `$${` for a text with `${`",
            "env.D `${NONE}` is not set in the environment",
        ]
    );
}

#[test]
fn templates_keep_their_blanks() {
    let before = json!({"vaxel": 1, "templates": [{"spec": {"title": "${root} $$"}}]});
    let mut document = before.clone();
    assert_eq!(expand(&mut document, |_| None), []);
    escape(&mut document);
    assert_eq!(document, before);
}

#[test]
fn a_service_may_be_made_from_a_template() {
    let bundle = read(&json!([
        {"name": "a", "extends": "filesystem"},
        {"name": "b", "extends": {"template": "filesystem", "wth": {}}, "spec": {"limits": {}}},
    ]));
    assert_eq!(bundle.services[0].value.name().as_str(), "a");
    assert_eq!(paths(&bundle.issues), ["[1].extends.wth"]);
}

proptest! {
    #[test]
    fn what_is_escaped_comes_back_as_it_was(text in "[$a{}]{0,12}") {
        let mut value = json!({ "k": [text] });
        let before = value.clone();
        escape(&mut value);
        let issues = expand(&mut value, |_| Some("replaced".to_owned()));
        prop_assert_eq!(issues, []);
        prop_assert_eq!(value, before);
    }

    #[test]
    fn no_text_breaks_the_replacement(text in "\\PC{0,20}") {
        let mut value = Value::String(text);
        expand(&mut value, |_| None);
    }
}

#[test]
fn specs_of_another_format_are_read_as_what_they_are_or_not_at_all() {
    let document = |format: Value| json!({"vaxel": 1, "format": format, "services": [demo("a")]});
    let parts = Parts::of(&document(json!(1)));
    assert_eq!((parts.issues, parts.services.len()), (Vec::new(), 1));
    for unknown in [json!(stored::FORMAT + 1), json!(0), json!("new")] {
        let issues = Parts::of(&document(unknown)).issues;
        let paths: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(paths, ["format"]);
    }
}
