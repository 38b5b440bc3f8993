//! Between revisions: what comes out is JSON, members survive as promised, and what was translated
//! once is not changed again.
//!
//! The first byte chooses the method, the second the revision; the rest is JSON.

use std::borrow::Cow;

use serde_json::{Value, value::RawValue};
use vaxel_mcp::{
    handshake::{ServerFacts, capabilities},
    interaction::{self, Question, Round},
    meta,
    method::Method,
    revision::{Era, Revision},
    translate,
};

const METHODS: [Method; 8] = [
    Method::ToolsCall,
    Method::PromptsGet,
    Method::ResourcesRead,
    Method::ToolsList,
    Method::Complete,
    Method::CreateMessage,
    Method::Elicit,
    Method::RootsList,
];

pub(crate) fn check(data: &[u8]) {
    let Some((&[method, revision], text)) = data.split_first_chunk::<2>() else {
        return;
    };
    let Ok(value) = serde_json::from_slice::<&RawValue>(text) else {
        return;
    };
    let method = METHODS[usize::from(method) % METHODS.len()];
    let revision = Revision::ALL[usize::from(revision) % Revision::ALL.len()];
    match revision.era() {
        Era::Modern => to_modern(method, value),
        Era::Legacy => to_legacy(method, revision, value),
    }
    error(method, revision, value);
    questions(method, revision, value);
    let able = capabilities::client_to_modern(revision, value);
    assert!(meta::members(raw(&able).get()).is_some());
    let _ = ServerFacts::from_initialize(text);
    if let Some(canonical) = interaction::canonical(value.get()) {
        // White space says nothing.
        let spaced = format!(" {} ", value.get());
        assert_eq!(interaction::canonical(&spaced), Some(canonical));
    }
}

fn raw(text: &[u8]) -> &RawValue {
    let shown = || String::from_utf8_lossy(text);
    serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", shown()))
}

/// Every member of `old` for which `keeps` says so is in `new`, byte for byte.
fn survive(old: &RawValue, new: &RawValue, keeps: impl Fn(&str) -> bool) {
    let Some(old) = meta::members(old.get()) else {
        return;
    };
    let new = meta::members(new.get()).expect("an object stays one");
    for (key, value) in old.iter().filter(|(key, _)| keeps(key)) {
        let same = |(other, other_value): &(Cow<'_, str>, &RawValue)| {
            other == key && other_value.get() == value.get()
        };
        assert!(new.iter().any(same), "`{key}` was lost or changed");
    }
}

fn to_modern(method: Method, result: &RawValue) {
    let out = translate::result_to_modern(method, result, None);
    let new = raw(&out);
    survive(result, new, |_| true);
    let is_object = meta::members(result.get()).is_some();
    let value: Option<Value> = serde_json::from_str(new.get()).ok();
    if let Some(value) = value.filter(|_| is_object) {
        assert!(!value["resultType"].is_null() || result.get().contains("resultType"));
    }
    let again = translate::result_to_modern(method, new, None);
    assert_eq!(&*again, new.get().as_bytes());
    let info = RawValue::from_string(r#"{"name":"x"}"#.to_owned()).unwrap();
    let out = translate::result_to_modern(method, result, Some(&info));
    let new = raw(&out);
    survive(result, new, |key| key != "_meta");
    let members = meta::members(new.get()).expect("an object");
    let about = members.iter().rfind(|(key, _)| key == "_meta");
    let (_, about) = about.expect("the server is named");
    let named = meta::members(about.get()).expect("an object");
    assert!(
        named
            .iter()
            .any(|(key, value)| { key == meta::SERVER_INFO && value.get() == info.get() })
    );
}

fn to_legacy(method: Method, revision: Revision, result: &RawValue) {
    let out = translate::result_to_legacy(method, revision, result);
    let new = raw(&out);
    survive(result, new, |key| {
        let may_go = match key {
            "resultType" | "ttlMs" | "cacheScope" | "structuredContent" | "_meta" => true,
            "content" => method == Method::ToolsCall,
            "messages" => method == Method::PromptsGet,
            _ => false,
        };
        !may_go
    });
    let members = meta::members(new.get()).unwrap_or_default();
    for gone in ["resultType", "ttlMs", "cacheScope"] {
        assert!(
            !members.iter().any(|(key, _)| key == gone),
            "`{gone}` stayed"
        );
    }
    let again = translate::result_to_legacy(method, revision, new);
    assert_eq!(&*again, new.get().as_bytes());
}

fn error(method: Method, revision: Revision, value: &RawValue) {
    let out = translate::error(method, revision, value);
    let object = raw(&out);
    let members = meta::members(object.get()).expect("an object");
    let find = |name: &str| members.iter().rfind(|(key, _)| key == name);
    let (_, code) = find("code").expect("a code");
    assert!(code.get().parse::<i64>().is_ok(), "code {code}");
    let (_, message) = find("message").expect("a message");
    assert!(message.get().starts_with('"'), "message {message}");
    survive(value, object, |key| !matches!(key, "code" | "message"));
}

fn questions(method: Method, revision: Revision, value: &RawValue) {
    let asked = [
        Question::of_legacy(method.as_str(), Some(value)),
        Question::read(value),
    ];
    for question in asked.into_iter().flatten() {
        if revision.era() == Era::Legacy
            && let Some(params) = question.to_legacy(revision, "id")
        {
            assert!(meta::members(raw(&params).get()).is_some());
        }
        let out = interaction::input_required([("k", &question)], "state");
        let round = Round::read(raw(&out)).expect("what was just written");
        assert_eq!(round.questions.len(), 1);
        assert_eq!(round.questions[0].1.method(), question.method());
    }
    let _ = Round::read(value);
}
