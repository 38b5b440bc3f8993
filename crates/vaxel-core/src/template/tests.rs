use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::service::{ServiceDraft, ServiceSpec, leaves, settings};

fn template(value: &Value) -> Template {
    Template::from_json(value).unwrap_or_else(|issues| panic!("{issues:?}"))
}

/// The templates, the named one first.
fn chain(templates: &[Value]) -> Chain {
    let mut chain = Chain::new();
    let last = templates.len() - 1;
    for (at, value) in templates.iter().enumerate() {
        let next = chain.add(template(value), 1).unwrap();
        assert_eq!(next.is_some(), at < last);
    }
    chain
}

fn derived(value: &Value) -> DerivedDraft {
    DerivedDraft::from_json(value).unwrap_or_else(|issues| panic!("{issues:?}"))
}

fn told(issues: Vec<Issue>) -> Vec<String> {
    let lines = issues
        .into_iter()
        .map(|one| format!("{}: {}", one.path, one.message));
    lines.collect()
}

fn problems(chain: &Chain, draft: &Value) -> Vec<String> {
    told(chain.render(&derived(draft)).err().unwrap_or_default())
}

fn base() -> Value {
    json!({
        "name": "base",
        "parameters": {
            "root": { "type": "path", "required": true, "doc": "The folder" },
            "also": { "type": "path" },
            "level": { "type": "choice", "choices": ["low", "high"], "default": "low" },
            "copies": { "type": "integer", "min": 1, "max": 4, "default": 1 },
            "token": { "type": "secret", "pattern": "[a-z]+" },
        },
        "spec": {
            "source": { "process": {
                "command": "server", "args": ["--level=${level}", "${root}", "${also}", "$${root}"],
                "env": { "TOKEN": "Bearer ${token}", "PLAIN": "x" },
            } },
            "replicas": "${copies}",
            "limits": { "memory": "64MiB", "timeout": "5s" },
        },
    })
}

fn three_levels() -> Chain {
    let middle = json!({
        "name": "middle", "extends": { "template": "base", "with": { "root": "/data/${team}", "token": "${token}" } },
        "parameters": { "team": { "type": "string", "required": true }, "token": { "type": "secret", "required": true } },
        "spec": { "limits": { "memory": "128MiB" }, "description": "of ${team}" },
    });
    let top = json!({
        "name": "top", "extends": "middle",
        "parameters": { "team": { "type": "string", "default": "red" } },
        "spec": { "tools": { "deny": ["write_*"] }, "limits": { "timeout": null } },
    });
    chain(&[top, middle, base()])
}

#[test]
fn three_levels_and_a_service_lie_over_each_other_and_each_value_knows_its_giver() {
    let chain = three_levels();
    let accepted: Vec<&str> = chain.accepts().into_keys().collect();
    assert_eq!(accepted, ["also", "copies", "level", "team", "token"]);
    let draft = derived(&json!({
        "name": "files", "tags": ["a"],
        "extends": { "template": "top", "with": { "copies": 2, "token": "abc" } },
        "spec": { "era": "legacy", "source": { "process": { "env": { "PLAIN": null, "OWN": "1" } } } },
    }));
    let made = chain.render(&draft).unwrap();
    let effective = made.spec.effective();
    assert_eq!(
        effective["source"]["process"],
        json!({
            "command": "server", "args": ["--level=low", "/data/red", "${root}"],
            "env": { "TOKEN": "Bearer abc", "OWN": "1" },
        })
    );
    assert_eq!(
        (&effective["replicas"], &effective["description"]),
        (&json!(2), &json!("of red"))
    );
    assert_eq!(effective["limits"], json!({ "memory": "128MiB" }));
    let origins = settings(&made.spec);
    let from = |path: &str| {
        let found = origins.iter().find(|one| one.path == path);
        found.unwrap_or_else(|| panic!("{path}")).from.to_string()
    };
    assert_eq!(from("source.process.command"), "template:base");
    assert_eq!(from("replicas"), "template:base");
    assert_eq!(from("limits.memory"), "template:middle");
    assert_eq!(from("description"), "template:middle");
    assert_eq!(from("tools.deny"), "template:top");
    assert_eq!(
        (from("era"), from("source.process.env.OWN")),
        ("own".into(), "own".into())
    );
    assert_eq!(
        (from("validate"), from("limits.timeout")),
        ("default".into(), "default".into())
    );
    let derivation = made.spec.extends.as_deref().unwrap();
    let names: Vec<&str> = derivation
        .chain
        .iter()
        .map(|link| link.template.as_str())
        .collect();
    assert_eq!(names, ["top", "middle", "base"]);
    assert_eq!(
        derivation.with,
        BTreeMap::from([("copies".to_owned(), json!(2))])
    );
    assert_eq!(derivation.sealed["token"], "abc");
    // What it overrides can be told again from what is kept.
    assert_eq!(made.spec.own(), draft.own);
    let kept = serde_json::to_value(&made).unwrap();
    assert_eq!(ServiceDraft::from_json(&kept).unwrap(), made);
}

#[test]
fn every_problem_of_parameters_and_draft_is_told_at_once() {
    let chain = chain(&[base()]);
    let draft = json!({ "name": "files", "extends": { "template": "base", "with": {
        "also": "relative", "level": "medium", "copies": 9, "token": "ABC", "rot": "/x",
    } } });
    assert_eq!(
        problems(&chain, &draft),
        [
            "parameters.rot: is no parameter of `base`; did you mean `root`?",
            "parameters.also: `relative` is not an absolute path",
            "parameters.copies: 9 is not 1 to 4",
            "parameters.level: `medium` is not one of low, high",
            "parameters.root: is missing: The folder",
            "parameters.token: does not match `[a-z]+`",
        ]
    );
    let draft = json!({ "name": "Files", "colour": 1, "extends": { "template": "Base", "wth": {} }, "spec": [] });
    let found = told(DerivedDraft::from_json(&draft).unwrap_err());
    let paths: Vec<&str> = found
        .iter()
        .filter_map(|one| one.split(':').next())
        .collect();
    assert_eq!(
        paths,
        ["spec", "extends.template", "extends.wth", "name", "colour"]
    );
}

#[test]
fn a_problem_of_the_result_says_who_gave_the_value() {
    let chain = three_levels();
    let draft = json!({ "name": "files", "extends": { "template": "top", "with": { "token": "abc" } },
        "spec": { "limits": { "memory": "much", "processes": 0 }, "replicas": 100, "eras": 1 } });
    assert_eq!(
        problems(&chain, &draft),
        [
            "spec.replicas: 100 is not between 1 and 64 (from own)",
            "spec.limits.memory: `much` is not a size: write 512, 64KiB, 4MiB or 1GiB (from own)",
            "spec.limits.processes: 0 is not between 1 and 100000 (from own)",
            "spec.eras: is not a known key; did you mean `era`? (from own)",
        ]
    );
    let mut bad = base();
    bad["spec"]["limits"]["timeout"] = json!("${level}");
    let chain = super::tests::chain(&[bad]);
    let draft =
        json!({ "name": "files", "extends": { "template": "base", "with": { "root": "/" } } });
    assert_eq!(
        problems(&chain, &draft),
        [
            "spec.limits.timeout: `low` is not a duration: write 250ms, 30s, 1m30s, 24h or 7d (from template:base)"
        ]
    );
}

#[test]
fn a_secret_is_refused_where_it_would_be_read() {
    let leaky = json!({
        "name": "leaky", "parameters": { "token": { "type": "secret" } },
        "extends": { "template": "args", "with": { "flag": "x${token}" } },
    });
    let args = json!({ "name": "args", "parameters": { "flag": { "type": "string" } },
        "spec": { "source": { "mcp": { "url": "${flag}", "headers": { "A": "${flag}" } } }, "description": "${flag}" } });
    let chain = chain(&[leaky, args]);
    let draft = |token: &str| json!({ "name": "a", "extends": { "template": "leaky", "with": { "token": token } } });
    let found = problems(&chain, &draft("planted"));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("spec.source.mcp.url: is not accepted"),
        "{found:?}"
    );
    let mut url = super::tests::chain(&[
        json!({ "name": "leaky", "parameters": { "token": { "type": "secret" } }, "extends": { "template": "args", "with": { "flag": "http://${token}/" } } }),
        json!({ "name": "args", "parameters": { "flag": { "type": "string" } },
            "spec": { "source": { "mcp": { "url": "${flag}", "headers": { "A": "${flag}" } } }, "description": "${flag}" } }),
    ]);
    let found = problems(&url, &draft("planted"));
    let paths: Vec<&str> = found
        .iter()
        .filter_map(|one| one.split(':').next())
        .collect();
    assert_eq!(paths, ["spec.description", "spec.source.mcp.url"]);
    assert!(
        found.iter().all(|one| !one.contains("planted")),
        "{found:?}"
    );
    // A text that is refused on the way down is not repeated either.
    url.links[1].0.parameters.get_mut("flag").unwrap().max = Some(3);
    let found = problems(&url, &draft("planted"));
    assert_eq!(
        found,
        ["parameters.flag: does not fit (the template `leaky` gives it to `args`)"]
    );
}

#[test]
fn templates_that_turn_in_a_circle_or_never_end_are_refused_by_name() {
    let link = |name: &str, next: &str| template(&json!({ "name": name, "extends": next }));
    let mut chain = Chain::new();
    chain.add(link("a", "b"), 1).unwrap();
    chain.add(link("b", "c"), 1).unwrap();
    let issue = chain.add(link("c", "a"), 1).unwrap_err();
    assert_eq!(
        issue.message,
        "the templates extend each other in a circle: a → b → c → a"
    );
    let own = Chain::new().add(link("a", "a"), 1).unwrap_err();
    assert!(own.message.ends_with("a → a"), "{}", own.message);
    let mut chain = Chain::new();
    for level in 1..8 {
        chain
            .add(link(&format!("t{level}"), &format!("t{}", level + 1)), 1)
            .unwrap();
    }
    assert_eq!(
        chain.add(template(&json!({ "name": "t8" })), 1).unwrap(),
        None
    );
    let mut long = Chain::new();
    for level in 1..8 {
        long.add(link(&format!("t{level}"), &format!("t{}", level + 1)), 1)
            .unwrap();
    }
    let issue = long.add(link("t8", "t9"), 1).unwrap_err();
    assert!(
        issue.message.starts_with("more than 8 templates"),
        "{}",
        issue.message
    );
}

#[test]
fn a_template_is_refused_with_every_problem() {
    let value = json!({
        "name": "Bad Name", "colour": "red", "extends": 3, "approved": "yes",
        "parameters": {
            "Upper": { "type": "string" },
            "a": { "type": "text" },
            "b": { "type": "choice" },
            "c": { "type": "string", "pattern": "(" },
            "d": { "type": "integer", "min": 5, "max": 1, "default": 7, "choices": ["x"] },
            "e": { "type": "secret", "default": "hidden" },
            "f": { "type": "path", "required": true, "default": "/x" },
            "g": 1,
        },
        "spec": { "extends": "x" },
    });
    let found = told(Template::from_json(&value).unwrap_err());
    let paths: Vec<&str> = found
        .iter()
        .filter_map(|one| one.split(':').next())
        .collect();
    assert_eq!(
        paths,
        [
            "name",
            "parameters.Upper",
            "parameters.a.type",
            "parameters.b.choices",
            "parameters.c.pattern",
            "parameters.d.choices",
            "parameters.d.min",
            "parameters.d.default",
            "parameters.e.default",
            "parameters.f.default",
            "parameters.g",
            "extends",
            "spec.extends",
            "approved",
            "colour",
        ],
        "{found:#?}"
    );
}

#[test]
fn what_does_not_fit_together_is_found_without_values() {
    let top = json!({
        "name": "top", "extends": { "template": "base", "with": { "root": "/${tem}", "rot": 1 } },
        "parameters": { "team": { "type": "string" } },
        "spec": { "description": "${team}'s", "source": { "process": { "args": ["${team}", "${", "${copies}x"] } } },
    });
    let chain = chain(&[top, base()]);
    assert_eq!(
        told(chain.check()),
        [
            "extends.with.root: `${tem}` is no parameter of this template",
            "extends.with.rot: is no parameter of `base`; did you mean `root`?",
            "spec.description: `${team}` may be left out and then leaves a gap here: give it a default, or let it stand alone",
            "spec.source.process.args[1]: `${` has no `}`: write `$$` for a dollar sign",
        ]
    );
}

#[test]
fn texts_that_multiply_are_stopped() {
    let multiply = "${a}".repeat(8_000);
    let templates = [
        json!({ "name": "x1", "parameters": { "a": { "type": "string", "required": true } },
            "extends": { "template": "x2", "with": { "a": multiply } } }),
        json!({ "name": "x2", "parameters": { "a": { "type": "string", "required": true } },
            "spec": { "source": { "process": { "command": "x", "args": ["${a}"] } } } }),
    ];
    let draft = |size: usize| json!({ "name": "a", "extends": { "template": "x1", "with": { "a": "x".repeat(size) } } });
    let found = problems(&chain(&templates), &draft(32_000));
    assert!(
        found[0].ends_with("comes out longer than 32 KiB"),
        "{}",
        found[0]
    );
    let many: Vec<Value> = (0..100).map(|_| json!("${a}")).collect();
    let wide = json!({ "name": "x2", "parameters": { "a": { "type": "string", "required": true } },
        "spec": { "source": { "process": { "command": "x", "args": many } } } });
    let found = problems(
        &chain(&[wide]),
        &json!({ "name": "a", "extends": { "template": "x2", "with": { "a": "x".repeat(32_000) } } }),
    );
    assert_eq!(
        found,
        ["spec.source.process.args[32]: the whole comes out longer than 1 MiB"]
    );
}

#[test]
fn who_approved_what_is_asked_of_every_template_that_can_change() {
    let mut chain = three_levels();
    let fixed = |name: &TemplateName| name.as_str() == "base";
    let open = |chain: &Chain| -> Vec<String> {
        chain
            .unapproved(fixed)
            .into_iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(open(&chain), ["top", "middle"]);
    chain.links[0].0.approved = true;
    assert_eq!(open(&chain), ["middle"]);
    chain.links[1].0.approved = true;
    assert!(open(&chain).is_empty());
    chain.links.drain(..2);
    assert_eq!(open(&chain), ["base"], "by itself it is approved by nobody");
}

#[test]
fn who_changes_a_value_of_the_effective_spec_overrides_it() {
    let chain = three_levels();
    let draft = json!({ "name": "files", "extends": { "template": "top", "with": { "token": "abc" } },
        "spec": { "era": "legacy" } });
    let old = chain.render(&derived(&draft)).unwrap().spec;
    let mut new: ServiceSpec = old.clone();
    new.limits.memory = None;
    new.replicas = 3;
    new.tools.deny = Vec::new();
    new.extends.as_mut().unwrap().from.clear();
    new.follow(&old);
    assert_eq!(
        new.own(),
        json!({ "era": "legacy", "replicas": 3, "limits": { "memory": null }, "tools": { "deny": null } })
    );
    // A spec that came from elsewhere keeps what it says of itself.
    let mut other = old.clone();
    other.extends.as_mut().unwrap().chain[0].version = 9;
    other.replicas = 4;
    let sent = other.clone();
    other.follow(&old);
    assert_eq!(other, sent);
}

fn words() -> impl Strategy<Value = String> {
    "[a-z/ .]{0,8}"
}

proptest! {
    #[test]
    fn no_placeholder_survives_and_every_value_is_somebodys(
        texts in proptest::collection::vec((words(), 0..3_usize, words()), 1..6),
        values in proptest::array::uniform3(words()),
        own in proptest::option::of(words()),
    ) {
        let names = ["one", "two", "three"];
        let args: Vec<String> = texts.iter().map(|(a, name, b)| format!("{a}${{{}}}{b}", names[*name])).collect();
        let parameter = json!({ "type": "string", "required": true });
        let base = json!({ "name": "base", "parameters": { "one": parameter, "two": parameter, "three": parameter },
            "spec": { "source": { "process": { "command": "x", "args": args, "env": { "E": args[0] } } } } });
        let top = json!({ "name": "top", "parameters": { "one": parameter },
            "extends": { "template": "base", "with": { "two": "${one}" } },
            "spec": { "description": "${one}${three}" } });
        let chain = chain(&[top, base]);
        prop_assert_eq!(chain.check(), Vec::new());
        let mut draft = json!({ "name": "a", "extends": { "template": "top",
            "with": { "one": values[0], "three": values[2] } }, "spec": {} });
        if let Some(own) = &own {
            draft["spec"]["source"]["process"]["env"]["OWN"] = json!(own);
        }
        let made = chain.render(&derived(&draft)).unwrap();
        let effective = made.spec.effective();
        let survives = effective.to_string().contains("${");
        prop_assert!(!survives);
        let expected: Vec<String> = texts.iter().map(|(a, name, b)| {
            let value = if *name == 2 { &values[2] } else { &values[0] };
            format!("{a}{value}{b}")
        }).collect();
        prop_assert_eq!(&effective["source"]["process"]["args"], &json!(expected));
        let from = &made.spec.extends.as_ref().unwrap().from;
        let defaults = ["replicas", "era", "tools", "validate", "limits", "balance"];
        for (path, _) in leaves(&effective) {
            let is_default = defaults.contains(&path[0].as_str());
            prop_assert_eq!(from.contains_key(&path.join(".")), !is_default, "{}", path.join("."));
        }
        prop_assert_eq!(made.spec.own(), draft["spec"].clone());
    }

    #[test]
    fn any_json_is_a_template_or_has_problems(value in hostile()) {
        if let Ok(template) = Template::from_json(&value) {
            let kept = serde_json::to_value(&template).unwrap();
            prop_assert_eq!(Template::from_json(&kept), Ok(template.clone()));
            let mut chain = Chain::new();
            if chain.add(template, 1) == Ok(None) {
                chain.check();
                let _ = chain.render(&derived(&json!({ "name": "a", "extends": "x" })));
            }
        }
        if let Ok(draft) = DerivedDraft::from_json(&value) {
            let _ = chain_of_base().render(&draft);
        }
    }
}

fn chain_of_base() -> Chain {
    chain(&[base()])
}

/// Objects that nearly are templates and drafts.
fn hostile() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[${}a-z/]{0,8}".prop_map(Value::from),
        Just(json!("string")),
        Just(json!("secret")),
    ];
    let key = prop_oneof![
        Just("name"),
        Just("parameters"),
        Just("extends"),
        Just("template"),
        Just("with"),
        Just("spec"),
        Just("type"),
        Just("a"),
        Just("env"),
        Just("source"),
        Just("process"),
        Just("default"),
        Just("pattern"),
        Just("required"),
    ];
    let tree = leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    tree.prop_map(|mut value| {
        if let Some(object) = value.as_object_mut() {
            object.insert("name".to_owned(), json!("a"));
        }
        value
    })
}
