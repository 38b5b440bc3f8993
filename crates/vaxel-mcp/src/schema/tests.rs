use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

fn compile(schema: &Value) -> Result<Schema, Unusable> {
    Schema::compile(&raw(schema))
}

/// What is wrong, line by line; nothing when the value fits.
fn check(schema: &Value, value: &Value) -> Vec<String> {
    let schema = compile(schema).unwrap();
    let line = |issue: &Issue| format!("{}: {}", issue.path, issue.message);
    match schema.read(&value.to_string()) {
        Err(issue) => vec![line(&issue)],
        Ok(instance) => match schema.check(&instance) {
            Ok(()) => Vec::new(),
            Err(issues) => issues.iter().map(line).collect(),
        },
    }
}

/// Runs on half the stack that threads have, and not for long.
fn within_bounds<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().stack_size(1024 * 1024);
    let thread = thread.spawn(move || done.send(work()));
    let result = result.recv_timeout(Duration::from_mins(1));
    let result = result.expect("it ends, and the thread lives");
    thread.unwrap().join().unwrap().unwrap();
    result
}

fn nested(levels: usize, leaf: Value) -> Value {
    (0..levels).fold(leaf, |inner, _| json!({ "x": inner }))
}

#[test]
fn every_problem_is_named_with_its_place_and_what_was_expected() {
    let schema = json!({
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "a/b": true,
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "mode": {"enum": ["fast", "slow"]},
            "tags": {"type": "array", "items": {"type": ["string", "null"]}, "maxItems": 3},
            "when": {"oneOf": [
                {"type": "object", "properties": {"day": {"type": "integer"}}, "required": ["day"]},
                {"const": "now"}]},
            "id": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 4}
        },
        "required": ["path", "a/b"],
        "additionalProperties": false
    });
    let value = json!({
        "limit": 500, "mode": "medium", "tags": ["a", 1], "when": {"day": "Monday"},
        "id": "SECRET", "colour": "red"
    });
    let mut lines = check(&schema, &value);
    lines[..8].sort_unstable();
    assert_eq!(
        lines,
        [
            "/a~1b: is missing",
            "/id: must have 4 characters or fewer",
            "/id: must match the pattern `^[a-z]+$`",
            "/limit: must be 100 or less",
            "/mode: must be one of \"fast\", \"slow\"",
            "/path: is missing",
            "/tags/1: must be null or a string, and is a number",
            "/when: fits none of 2 forms; in the nearest, /when/day must be a whole number, and is a \
             string",
            ": has 1 more problem",
        ]
    );
    let fine =
        json!({"path": "/tmp", "a/b": 1, "limit": 1, "mode": "fast", "tags": [], "when": "now"});
    assert_eq!(check(&schema, &fine), Vec::<String>::new());
}

#[test]
fn a_dialect_is_what_the_schema_says() {
    let tuple = |dialect: &str| json!({"$schema": dialect, "items": [{"type": "string"}], "additionalItems": false});
    let seven = tuple("http://json-schema.org/draft-07/schema#");
    assert_eq!(check(&seven, &json!(["a"])), Vec::<String>::new());
    assert_eq!(check(&seven, &json!(["a", 1])).len(), 1);
    // In 2020-12 a tuple is `prefixItems`.
    let newer = tuple("https://json-schema.org/draft/2020-12/schema");
    assert!(matches!(compile(&newer), Err(Unusable::Invalid(_))));
    assert!(matches!(
        compile(&json!({"items": [true]})),
        Err(Unusable::Invalid(_))
    ));
    for unknown in [
        json!("http://127.0.0.1:1/meta"),
        json!("http://json-schema.org/draft-04/schema#"),
        json!(7),
    ] {
        let inside = json!({"items": { "$schema": unknown }});
        for schema in [json!({ "$schema": unknown }), inside] {
            let found = compile(&schema);
            assert!(matches!(found, Err(Unusable::Dialect(_))), "{found:?}");
        }
    }
    assert_eq!(
        check(&json!({"format": "email"}), &json!("nobody")),
        Vec::<String>::new()
    );
}

#[test]
fn references_stay_in_the_schema() {
    let inside = json!({
        "$defs": {"a b": {"type": "string"}, "named": {"$anchor": "here", "type": "integer"}},
        "properties": {"x": {"$ref": "#/$defs/a%20b"}, "y": {"$ref": "#here"}}
    });
    assert_eq!(check(&inside, &json!({"x": 1, "y": 1})).len(), 1);
    // As TypeBox writes what contains itself.
    let named = json!({"properties": {"tree": {"$id": "Node", "type": "object", "properties": {
        "nodes": {"type": "array", "items": {"$ref": "Node"}}}, "required": ["nodes"]}}});
    let tree = json!({"tree": {"nodes": [{"nodes": []}, {"nodes": [{}]}]}});
    assert_eq!(
        check(&named, &tree),
        ["/tree/nodes/1/nodes/0/nodes: is missing"]
    );
    for outside in [
        "http://127.0.0.1:1/x.json",
        "https://json-schema.org/draft/2020-12/schema",
        "file:///etc/passwd",
        "other.json",
        "other.json#/$defs/x",
        "#/$defs/absent",
        "#absent",
        "//127.0.0.1/x",
    ] {
        let found = compile(&json!({"properties": {"x": {"$ref": outside}}}));
        assert_eq!(found.err(), Some(Unusable::Reference(outside.to_owned())));
    }
}

#[test]
fn what_is_no_schema_is_told_apart() {
    let invalid = compile(&json!({"properties": {"x": {"type": "text"}}})).unwrap_err();
    assert!(matches!(invalid, Unusable::Invalid(_)), "{invalid}");
    assert!(
        invalid.to_string().contains("/properties/x/type"),
        "{invalid}"
    );
    assert!(matches!(compile(&json!(3)), Err(Unusable::Invalid(_))));
    let long = json!({"description": "x".repeat(SIZE)});
    assert_eq!(compile(&long).err(), Some(Unusable::TooLong));
    let deep = format!("{}true{}", r#"{"not":"#.repeat(200), "}".repeat(200));
    let deep = RawValue::from_string(deep).unwrap();
    assert!(matches!(
        Schema::compile(&deep),
        Err(Unusable::Unreadable(_))
    ));
}

/// Definitions `a0` to `aN`, each made of the next by `link`, the last one a string.
fn ladder(steps: usize, link: impl Fn(Value) -> Value) -> Value {
    let mut all = serde_json::Map::new();
    for step in 0..steps {
        let next = json!({"$ref": format!("#/$defs/a{}", step + 1)});
        all.insert(format!("a{step}"), link(next));
    }
    all.insert(format!("a{steps}"), json!({"type": "string"}));
    json!({"$defs": all, "$ref": "#/$defs/a0"})
}

#[test]
fn schemas_that_unfold_without_an_end_are_refused() {
    let twice = |next: Value| json!({"allOf": [next, next]});
    let below = |next: Value| json!({"anyOf": [{"properties": {"x": next}}, {"items": next}]});
    let long = |next: Value| json!({"not": next});
    let found = within_bounds(move || {
        [
            compile(&ladder(40, twice)),
            compile(&ladder(40, below)),
            compile(&ladder(5_000, long)),
            compile(&json!({"$ref": "#"})),
            compile(&json!({"anyOf": [{"$ref": "#"}, {"type": "string"}]})),
            compile(&json!({"$dynamicAnchor": "n", "not": {"$dynamicRef": "#n"}})),
        ]
        .map(Result::err)
    });
    for error in found {
        let refused = matches!(error, Some(Unusable::TooMuch | Unusable::Endless));
        assert!(refused, "{error:?}");
    }
}

#[test]
fn a_schema_that_contains_itself_costs_what_the_value_is_worth() {
    let forms = json!([
        {"properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]},
        {"properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"], "minProperties": 1},
        {"properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"], "maxProperties": 9},
        {"type": "string"}
    ]);
    for keyword in ["anyOf", "oneOf"] {
        let schema = json!({"$defs": {"a": {keyword: forms}}, "$ref": "#/$defs/a"});
        let (few, many, all) = within_bounds(move || {
            let number = |levels| check(&schema, &nested(levels, json!({})));
            (number(3), number(60), number(120))
        });
        assert!(few[0].contains("fits none of 4 forms"), "{few:?}");
        assert_eq!(many.len(), 1, "{many:?}");
        assert!(all[0].contains("levels deep"), "{all:?}");
    }
}

#[test]
fn deep_checks_fit_the_stack_of_a_thread() {
    let links: [fn(Value) -> Value; 6] = [
        |next| json!({"allOf": [next], "unevaluatedProperties": next}),
        |next| json!({"oneOf": [next, {"type": "null"}]}),
        |next| json!({"if": {"type": "object"}, "then": next, "else": next}),
        |next| json!({"anyOf": [next, false], "additionalProperties": next}),
        |next| json!({"not": {"not": next}}),
        |next| json!({"dependentSchemas": {"x": next}, "patternProperties": {"^x": next}}),
    ];
    for link in links {
        for steps in [1, 2, 4, 7] {
            within_bounds(move || {
                let mut schema = ladder(steps, link);
                schema["$defs"][format!("a{steps}")] =
                    json!({"properties": {"x": {"$ref": "#/$defs/a0"}}});
                let schema = match compile(&schema) {
                    Ok(schema) => schema,
                    Err(Unusable::TooMuch | Unusable::Endless) => return,
                    Err(error) => panic!("{error}"),
                };
                let most = LEVELS / (schema.shape.chain + 1);
                let value = nested(most - 1, json!(1)).to_string();
                let too_deep = nested(most, json!(1)).to_string();
                assert!(schema.read(&too_deep).is_err());
                // That it comes back at all is what counts.
                let _ = schema.read(&value).map(|value| schema.check(&value));
            });
        }
    }
}

#[test]
fn patterns_cannot_run_away() {
    let long = json!(format!("{}!", "a".repeat(200_000)));
    let found = within_bounds(move || {
        let patterns = ["^(a+)+$", "^(?=a)(a|aa)+$", r"^(a|a)*\1$", "(a*)*b"];
        patterns.map(|pattern| check(&json!({ "pattern": pattern }), &long))
    });
    for lines in found {
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
    let huge = json!({"pattern": "((a{1,200}){1,200}){1,200}"});
    assert!(matches!(compile(&huge), Err(Unusable::Invalid(_))));
}

#[test]
fn a_value_of_too_many_steps_is_refused_before_it_is_checked() {
    let options: Vec<Value> = (0..5_000).map(|number| json!({"k": number})).collect();
    let schema = compile(&json!({"items": {"not": {"enum": options}}})).unwrap();
    let items: Vec<Value> = (0..10_000).map(|_| json!({"k": -1})).collect();
    let refused = schema.read(&json!(items).to_string()).unwrap_err();
    assert!(
        refused.message.contains("20001 values"),
        "{}",
        refused.message
    );
    let fewer = schema.read(&json!(items[..100]).to_string()).unwrap();
    assert!(!fewer.is_quick());
    assert!(schema.read("[1]").unwrap().is_quick());
}

/// Schemas that refer to one another in every way.
fn hostile() -> impl Strategy<Value = Value> {
    let place = prop_oneof![
        Just(json!({"$ref": "#"})),
        Just(json!({"$ref": "#/$defs/a"})),
        Just(json!({"$ref": "#/$defs/b"})),
        Just(json!({"$ref": "#/$defs/b/properties/x"})),
        Just(json!({"$ref": "Node"})),
        Just(json!({"$ref": "#n"})),
        Just(json!({"$dynamicRef": "#n"})),
        Just(json!({"$ref": "http://127.0.0.1:1/"})),
        Just(json!({"type": "string"})),
        Just(json!({"type": "object", "required": ["x"]})),
        Just(json!({"enum": [1, null]})),
        Just(json!({"pattern": "^(a+)+$"})),
        Just(json!(true)),
        Just(json!(false)),
    ];
    place.prop_recursive(5, 40, 4, |inner| {
        let keyword = prop::sample::select(vec![
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "if",
            "then",
            "items",
            "prefixItems",
            "contains",
            "additionalProperties",
            "unevaluatedProperties",
            "unevaluatedItems",
            "propertyNames",
            "properties",
            "patternProperties",
            "dependentSchemas",
        ]);
        let members = prop::collection::vec((keyword, prop::collection::vec(inner, 1..4)), 1..4);
        members.prop_map(|members| {
            let mut schema = serde_json::Map::new();
            for (keyword, mut parts) in members {
                let value = match keyword {
                    "allOf" | "anyOf" | "oneOf" | "prefixItems" => json!(parts),
                    "properties" | "patternProperties" | "dependentSchemas" => {
                        let names = ["x", "y", "z"].into_iter().map(str::to_owned);
                        Value::Object(names.zip(parts).collect())
                    }
                    _ => parts.swap_remove(0),
                };
                schema.insert(keyword.to_owned(), value);
            }
            Value::Object(schema)
        })
    })
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(1)),
        "[a!]{0,30}".prop_map(Value::from)
    ];
    leaf.prop_recursive(24, 60, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[xyz]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn hostile_schemas_and_values_come_to_an_end(
        root in hostile(), first in hostile(), second in hostile(), named in hostile(),
        value in values(),
    ) {
        let mut schema = root;
        let mut named = named;
        for (one, name, text) in [(&mut named, "$id", "Node"), (&mut schema, "$dynamicAnchor", "n")] {
            if let Value::Object(members) = one {
                members.insert(name.to_owned(), json!(text));
            }
        }
        if let Value::Object(members) = &mut schema {
            members.insert("$defs".to_owned(), json!({"a": first, "b": second, "c": named}));
        }
        within_bounds(move || {
            if let Ok(schema) = compile(&schema)
                && let Ok(instance) = schema.read(&value.to_string())
            {
                let fits = schema.validator.is_valid(&instance.value);
                prop_assert_eq!(schema.check(&instance).is_ok(), fits);
            }
            Ok(())
        })?;
    }

    #[test]
    fn hostile_text_never_panics(text in r#"(\{|\[|\}|\]|"(\$ref|\$id|type|items|#|x)"|:|,|1|null| ){0,30}"#) {
        if let Ok(raw) = RawValue::from_string(text.clone()) {
            OfTool::read(&raw);
            if let Ok(schema) = Schema::compile(&raw) {
                // Only that it returns is of interest here.
                let _ = schema.read(&text).map(|instance| schema.check(&instance));
            }
        }
    }
}
