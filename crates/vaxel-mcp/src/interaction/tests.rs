use proptest::prelude::*;
use serde_json::json;

use super::*;

fn boxed(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

fn question(method: &str, params: &Value) -> Question {
    Question::read(&boxed(&json!({"method": method, "params": params}))).unwrap()
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_legacy_servers_request_becomes_a_question_without_what_belongs_to_its_era() {
    let params = boxed(&json!({
        "mode": "url", "message": "m", "url": "https://x", "elicitationId": "e",
        "task": {"ttl": 1}, "_meta": {"progressToken": 1}, "vendor": 1.0,
    }));
    let question = Question::of_legacy("elicitation/create", Some(&params)).unwrap();
    let round = input_required([("k", &question)], "s");
    assert_eq!(
        read(&round),
        json!({
            "resultType": "input_required", "requestState": "s",
            "inputRequests": {"k": {
                "method": "elicitation/create",
                "params": {"mode": "url", "message": "m", "url": "https://x", "vendor": 1.0},
            }},
        })
    );
    assert!(Question::of_legacy("ping", None).is_none());
    assert!(Question::of_legacy("roots/list", None).is_some());
}

#[test]
fn only_what_a_client_declared_is_asked_of_it() {
    let form = question(
        "elicitation/create",
        &json!({"message": "m", "requestedSchema": {}}),
    );
    let url = question("elicitation/create", &json!({"mode": "url", "url": "u"}));
    let plain = question("sampling/createMessage", &json!({"messages": []}));
    let tools = question(
        "sampling/createMessage",
        &json!({"messages": [], "tools": []}),
    );
    let roots = question("roots/list", &json!({}));
    let all = [&form, &url, &plain, &tools, &roots];
    let asked = |declared: Value| {
        let answers = Answers::of(Revision::LATEST, &boxed(&declared));
        all.map(|one| one.is_answered_by(&answers))
    };
    assert_eq!(asked(json!({})), [false; 5]);
    assert_eq!(
        asked(json!({"elicitation": {}})),
        [true, false, false, false, false]
    );
    assert_eq!(
        asked(json!({"elicitation": {"url": {}}})),
        [false, true, false, false, false]
    );
    assert_eq!(
        asked(json!({"sampling": {}})),
        [false, false, true, false, false]
    );
    assert_eq!(
        asked(json!({"sampling": {"tools": {}}, "roots": {}})),
        [false, false, true, true, true]
    );
}

#[test]
fn a_legacy_client_is_asked_in_the_words_of_its_revision() {
    let schema = json!({"type": "object", "properties": {
        "size": {"type": "string", "oneOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]},
        "count": {"type": "integer", "default": 3},
    }});
    let form = question(
        "elicitation/create",
        &json!({"mode": "form", "message": "m", "requestedSchema": schema}),
    );
    let to = |question: &Question, revision| {
        question
            .to_legacy(revision, "id")
            .map(|params| read(&params))
    };
    let newest = to(&form, Revision::V2025_11_25).unwrap();
    assert_eq!(newest["mode"], "form");
    assert_eq!(newest["requestedSchema"], schema);
    let older = to(&form, Revision::V2025_06_18).unwrap();
    assert!(older.get("mode").is_none());
    assert_eq!(
        older["requestedSchema"]["properties"]["size"],
        json!({"type": "string", "enum": ["s", "l"], "enumNames": ["Small", "Large"]})
    );
    assert_eq!(to(&form, Revision::V2025_03_26), None);
    let several = question(
        "elicitation/create",
        &json!({"message": "m", "requestedSchema": {"properties": {"a": {"type": "array"}}}}),
    );
    assert_eq!(to(&several, Revision::V2025_06_18), None);
    let url = question(
        "elicitation/create",
        &json!({"mode": "url", "url": "u", "message": "m"}),
    );
    assert_eq!(
        to(&url, Revision::V2025_11_25).unwrap()["elicitationId"],
        "id"
    );
    assert_eq!(to(&url, Revision::V2025_06_18), None);
}

#[test]
fn sampling_loses_only_what_an_older_client_cannot_read() {
    let to = |params: Value, revision| {
        let question = question("sampling/createMessage", &params);
        question
            .to_legacy(revision, "id")
            .map(|params| read(&params))
    };
    let text = |text: &str| json!({"type": "text", "text": text});
    let one = json!({"messages": [{"role": "user", "content": [text("a")]}], "maxTokens": 5});
    let older = to(one, Revision::V2025_06_18).unwrap();
    assert_eq!(older["messages"][0]["content"], text("a"));
    let two = json!({"messages": [{"role": "user", "content": [text("a"), text("b")]}]});
    assert_eq!(to(two.clone(), Revision::V2024_11_05), None);
    assert_eq!(to(two.clone(), Revision::V2025_11_25), Some(two));
    let tools = json!({"messages": [], "tools": [{"name": "t"}]});
    assert_eq!(to(tools.clone(), Revision::V2025_03_26), None);
    assert!(to(tools, Revision::V2025_11_25).is_some());
}

#[test]
fn a_round_is_read_with_its_keys_in_order() {
    let result = json!({"resultType": "input_required", "requestState": "x y", "inputRequests": {
        "b": {"method": "roots/list", "params": {}},
        "a": {"method": "elicitation/create", "params": {"message": "m"}},
    }});
    let round = Round::read(&boxed(&result)).unwrap();
    let mut keys: Vec<&str> = round.questions.iter().map(|(key, _)| &**key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(round.state.unwrap().get(), r#""x y""#);
    let only_state = json!({"resultType": "input_required", "requestState": "x"});
    assert!(
        Round::read(&boxed(&only_state))
            .unwrap()
            .questions
            .is_empty()
    );
    for wrong in [
        json!({"resultType": "input_required"}),
        json!({"inputRequests": {}}),
        json!({"inputRequests": []}),
        json!({"inputRequests": {"a": {"method": "tools/call"}}}),
        json!({"inputRequests": {"a": 5}}),
    ] {
        assert!(Round::read(&boxed(&wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn the_same_arguments_are_known_again_however_they_are_written() {
    let same = canonical(r#"{"a": [1, {"y":2,"x":"\u0061"}], "b":null}"#);
    assert_eq!(same, canonical(r#"{"b":null,"a":[1,{"x":"a","y":2}]}"#));
    assert_ne!(same, canonical(r#"{"b":null,"a":[1,{"x":"a","y":3}]}"#));
    assert_ne!(canonical(r#"["a","b"]"#), canonical(r#"["a,b"]"#));
    assert_eq!(canonical("{"), None);
}

proptest! {
    #[test]
    fn hostile_rounds_never_panic(
        members in "(\"(inputRequests|requestState|method|params|mode|messages|content|a)\":(\\{|\\}|\\[|\\]|\"(url|elicitation/create|sampling/createMessage)\"|5),?){0,8}",
    ) {
        for text in [format!("{{{members}}}"), members] {
            let Ok(raw) = RawValue::from_string(text) else { continue };
            // Only that they return is of interest here.
            let _ = Round::read(&raw);
            let _ = canonical(raw.get());
            for method in ["elicitation/create", "sampling/createMessage", "roots/list"] {
                let question = Question::of_legacy(method, Some(&raw)).unwrap();
                for revision in Revision::ALL.into_iter().filter(|one| one.era() == Era::Legacy) {
                    let _ = question.to_legacy(revision, "id");
                }
            }
        }
    }
}
