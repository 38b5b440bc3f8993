use proptest::prelude::*;

use super::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn legacy(revision: Revision, text: &str) -> String {
    let result = raw(text);
    String::from_utf8(result_to_legacy(Method::ToolsCall, revision, &result).to_vec()).unwrap()
}

#[test]
fn a_modern_result_loses_only_what_legacy_clients_refuse() {
    let text = r#"{"content":[{"type":"text","text":"1.0","odd":1}],"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x"},"k":[1.0]}}"#;
    assert_eq!(
        legacy(Revision::V2025_11_25, text),
        r#"{"content":[{"type":"text","text":"1.0","odd":1}],"_meta":{"k":[1.0]}}"#
    );
    let only_ours = r#"{"content":[],"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{}}}"#;
    assert_eq!(
        legacy(Revision::V2025_11_25, only_ours),
        r#"{"content":[]}"#
    );
}

#[test]
fn old_clients_get_text_for_what_they_do_not_know() {
    let text = r#"{"content":[{"type":"resource_link","uri":"f:/x","name":"x"},{"type":"audio","data":"","mimeType":"a/b"}],"structuredContent":{"a":1}}"#;
    let old = legacy(Revision::V2024_11_05, text);
    assert!(old.starts_with(r#"{"content":[{"type":"text","text":"f:/x"},{"type":"text""#));
    assert!(!old.contains("structuredContent"));
    assert_eq!(legacy(Revision::V2025_06_18, text), text);
    assert!(
        !legacy(
            Revision::V2025_11_25,
            r#"{"content":[],"structuredContent":[1]}"#
        )
        .contains("structured")
    );
}

#[test]
fn a_legacy_result_gets_what_modern_clients_need() {
    let result = raw(r#"{"contents":[]}"#);
    let modern = result_to_modern(Method::ResourcesRead, &result, None);
    assert_eq!(
        &*modern,
        br#"{"contents":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#
    );
    let done = raw(r#"{"content":[],"resultType":"complete"}"#);
    assert!(matches!(
        result_to_modern(Method::ToolsCall, &done, None),
        Cow::Borrowed(_)
    ));
}

#[test]
fn errors_have_the_code_of_the_callers_era() {
    let code = |revision, text: &str| {
        let object = raw(text);
        let out = error(Method::ResourcesRead, revision, &object).into_owned();
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()["code"]
            .as_i64()
            .unwrap()
    };
    let missing = r#"{"code":-32002,"message":"x","data":{"uri":"a"}}"#;
    assert_eq!(code(Revision::V2026_07_28, missing), -32602);
    let modern = r#"{"code":-32602,"message":"x","data":{"uri":"a"}}"#;
    assert_eq!(code(Revision::V2025_06_18, modern), -32002);
    assert_eq!(
        code(Revision::V2025_06_18, r#"{"code":-32021,"message":"x"}"#),
        -32600
    );
    assert_eq!(
        code(Revision::V2025_06_18, r#"{"code":-32602,"message":"x"}"#),
        -32602
    );
}

#[test]
fn structured_content_is_never_all_that_is_lost() {
    let only = r#"{"content":[],"structuredContent":[1.0,"a\"b"]}"#;
    let text = r#"{"content":[{"type":"text","text":"[1.0,\"a\\\"b\"]"}]}"#;
    assert_eq!(legacy(Revision::V2025_11_25, only), text);
    let none = r#"{"structuredContent":{"a":1}}"#;
    assert_eq!(
        legacy(Revision::V2024_11_05, none),
        r#"{"content":[{"type":"text","text":"{\"a\":1}"}]}"#
    );
    assert_eq!(legacy(Revision::V2025_06_18, none), none);
    let both = r#"{"content":[{"type":"text","text":"x"}],"structuredContent":null}"#;
    assert_eq!(
        legacy(Revision::V2025_11_25, both),
        r#"{"content":[{"type":"text","text":"x"}]}"#
    );
}

#[test]
fn old_clients_get_text_in_prompts_too() {
    let result = raw(
        r#"{"messages":[{"role":"user","content":{"type":"text","text":"a"}},{"role":"user","content":{"type":"resource_link","uri":"f:/x","name":"x"},"odd":1.0}],"resultType":"complete"}"#,
    );
    let old = result_to_legacy(Method::PromptsGet, Revision::V2025_03_26, &result);
    assert_eq!(
        std::str::from_utf8(&old).unwrap(),
        r#"{"messages":[{"role":"user","content":{"type":"text","text":"a"}},{"role":"user","odd":1.0,"content":{"type":"text","text":"f:/x"}}]}"#
    );
}

#[test]
fn questions_and_tasks_get_nothing_that_answers_have() {
    for kind in ["input_required", "task"] {
        let open = raw(&format!(r#"{{"resultType":"{kind}","requestState":"x"}}"#));
        for method in [Method::ToolsCall, Method::ResourcesRead] {
            let modern = result_to_modern(method, &open, None);
            assert!(matches!(modern, Cow::Borrowed(_)), "{kind}");
        }
    }
}

#[test]
fn what_a_modern_client_needs_is_added_where_it_is_missing() {
    let modern = |method, text: &str| {
        let info = raw(r#"{"name":"x"}"#);
        let result = raw(text);
        String::from_utf8(result_to_modern(method, &result, Some(&info)).to_vec()).unwrap()
    };
    assert_eq!(
        modern(Method::ToolsCall, r#"{"isError":true,"_meta":{"k":1.0}}"#),
        r#"{"isError":true,"resultType":"complete","content":[],"_meta":{"k":1.0,"io.modelcontextprotocol/serverInfo":{"name":"x"}}}"#
    );
    assert_eq!(
        modern(Method::ToolsList, r#"{"tools":[],"ttlMs":5}"#),
        r#"{"tools":[],"ttlMs":5,"resultType":"complete","cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x"}}}"#
    );
    assert!(modern(Method::Complete, "null").starts_with(r#"{"resultType":"complete""#));
}

#[test]
fn what_is_no_error_object_becomes_one() {
    let made = |text: &str| {
        let object = raw(text);
        String::from_utf8(error(Method::ToolsCall, Revision::LATEST, &object).into_owned()).unwrap()
    };
    assert_eq!(made("\"boom\""), r#"{"code":-32603,"message":"boom"}"#);
    assert_eq!(
        made(r#"{"code":"E1","message":"boom","data":[1.0]}"#),
        r#"{"data":[1.0],"code":-32603,"message":"boom"}"#
    );
    assert_eq!(
        made(r#"{"code":-7}"#),
        r#"{"code":-7,"message":"The server answered with an error that it did not explain"}"#
    );
    assert!(made("[1.0]").ends_with(r#","data":[1.0]}"#));
}

#[test]
fn codes_that_a_revision_forbids_do_not_reach_its_clients() {
    let out = |revision, text: &str| {
        let object = raw(text);
        String::from_utf8(error(Method::ToolsCall, revision, &object).into_owned()).unwrap()
    };
    let url = r#"{"code":-32042,"message":"open","data":{"elicitations":[]}}"#;
    assert_eq!(
        out(Revision::V2026_07_28, url),
        r#"{"message":"open","data":{"elicitations":[]},"code":-32603}"#
    );
    assert_eq!(out(Revision::V2025_11_25, url), url);
    let elsewhere = r#"{"code":-32602,"message":"x","data":{"uri":"a"}}"#;
    assert_eq!(out(Revision::V2025_06_18, elsewhere), elsewhere);
}

/// Any JSON value, as text.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1.0".to_owned()),
        Just("\"resource_link\"".to_owned()),
        Just("\"complete\"".to_owned()),
        "[a-z]{0,3}".prop_map(|text| format!("\"{text}\"")),
    ];
    let name = prop::sample::select(vec![
        "content",
        "messages",
        "type",
        "uri",
        "resultType",
        "ttlMs",
        "_meta",
        "data",
        "code",
        "message",
        "structuredContent",
        "io.modelcontextprotocol/serverInfo",
        "k",
    ]);
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((name.clone(), inner), 0..5).prop_map(|members| {
                let members = members
                    .iter()
                    .map(|(name, value)| format!("\"{name}\":{value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

const METHODS: [Method; 4] = [
    Method::ToolsCall,
    Method::PromptsGet,
    Method::ResourcesRead,
    Method::Complete,
];

proptest! {
    #[test]
    fn hostile_results_become_json_and_translating_twice_changes_nothing(
        text in json(),
        revision in prop::sample::select(Revision::ALL.to_vec()),
        method in prop::sample::select(METHODS.to_vec()),
    ) {
        let result = raw(&text);
        let once = raw(std::str::from_utf8(&match revision.era() {
            Era::Modern => result_to_modern(method, &result, None),
            Era::Legacy => result_to_legacy(method, revision, &result),
        }).unwrap());
        let twice = match revision.era() {
            Era::Modern => result_to_modern(method, &once, None),
            Era::Legacy => result_to_legacy(method, revision, &once),
        };
        prop_assert_eq!(&*twice, once.get().as_bytes());
        let wrong = raw(std::str::from_utf8(&error(method, revision, &result)).unwrap());
        let object: serde_json::Value = serde_json::from_str(wrong.get()).unwrap();
        prop_assert!(object["code"].is_i64() && object["message"].is_string());
    }

    #[test]
    fn legacy_results_survive_a_modern_hop(
        odd in "[a-z]{1,5}",
        value in json(),
        revision in prop::sample::select(vec![Revision::V2025_06_18, Revision::V2025_11_25]),
    ) {
        let there = raw(&format!(r#"{{"content":[{{"type":"text","text":"x"}}],"x_{odd}":{value}}}"#));
        let modern = result_to_modern(Method::ToolsCall, &there, None);
        let modern = raw(std::str::from_utf8(&modern).unwrap());
        let back = result_to_legacy(Method::ToolsCall, revision, &modern);
        prop_assert_eq!(&*back, there.get().as_bytes());
    }
}
