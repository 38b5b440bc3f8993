//! Messages: what is read lies in the message, what is spliced in is there, the rest stays.

use bytes::Bytes;
use serde_json::value::RawValue;
use vaxel_mcp::{
    envelope::{Envelope, Kind, span},
    meta,
    request::{Forward, Input, MetaChange, ModernMeta, Request},
    response::Response,
};

pub(crate) fn check(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let Ok(envelope) = Envelope::parse(&body) else {
        return;
    };
    let parts = [
        envelope.id,
        envelope.params,
        envelope.result,
        envelope.error,
    ];
    for part in parts.into_iter().flatten() {
        let range = span(&body, part).expect("a part of the message");
        assert_eq!(&body[range], part.get().as_bytes());
    }
    if envelope.kind() == Kind::Request
        && let Ok((request, _)) = Request::read(body.clone(), &envelope)
    {
        let facts = ModernMeta {
            capabilities: "{}".into(),
            info: r#"{"name":"x"}"#.into(),
            log_level: None,
        };
        for change in [MetaChange::Keep, MetaChange::Strip, MetaChange::Add(&facts)] {
            forwarded(&request, change);
        }
        retried(&request);
    }
    let at_once = Response::if_answer(&body).map(|answer| answer.verdict);
    let answer = Response::read(body.clone());
    if let Ok(answer) = &answer {
        answered(answer);
    }
    let answer = answer.ok().filter(|_| envelope.kind() == Kind::Response);
    assert_eq!(at_once, answer.map(|answer| answer.verdict));
}

type Members<'a> = Vec<(std::borrow::Cow<'a, str>, &'a RawValue)>;

fn members(text: &str) -> Members<'_> {
    meta::members(text).unwrap_or_else(|| panic!("no object: {text}"))
}

/// The one member of this name.
fn only<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    let mut found = members.iter().filter(|(key, _)| key == name);
    let first = found.next().map(|(_, value)| *value);
    assert!(
        found.next().is_none(),
        "`{name}` is there twice: {members:?}"
    );
    first
}

/// `null` is the same as nothing.
fn some(object: Option<&str>) -> &str {
    object.filter(|text| *text != "null").unwrap_or("{}")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// All members but these are the same, byte for byte and in the same order.
fn same_but(old: &Members<'_>, new: &Members<'_>, names: &[&str]) {
    let rest = |members: &Members<'_>| -> Vec<(String, String)> {
        let others = members.iter().filter(|(key, _)| !names.contains(&&**key));
        others
            .map(|(key, value)| (key.to_string(), value.get().to_owned()))
            .collect()
    };
    assert_eq!(rest(old), rest(new));
}

fn forwarded(request: &Request, change: MetaChange<'_>) {
    forwarded_as(request, change, None);
    forwarded_as(request, change, Some("\"me\""));
}

/// `identity` is what a server is told of the caller.
fn forwarded_as(request: &Request, change: MetaChange<'_>, identity: Option<&str>) {
    let forward = Forward {
        id: Some(77),
        key: Some("\"other\""),
        progress_token: Some(5),
        meta: change,
        identity,
    };
    let out = request.forward(&forward);
    let (old, new) = (members(text(request.body())), members(text(&out)));
    assert_eq!(only(&new, "id").map(RawValue::get), Some("77"));
    same_but(&old, &new, &["id", "params"]);
    let params = some(only(&new, "params").map(RawValue::get));
    let (old, new) = (members(request.params().unwrap_or("{}")), members(params));
    same_but(&old, &new, &["name", "uri", "ref", "_meta"]);
    let old = members(some(request.meta()));
    let about = members(some(only(&new, "_meta").map(RawValue::get)));
    let ours = [
        meta::PROTOCOL_VERSION,
        meta::CLIENT_CAPABILITIES,
        meta::CLIENT_INFO,
        meta::LOG_LEVEL,
        meta::IDENTITY,
        "progressToken",
    ];
    same_but(&old, &about, &ours);
    // A client may write `null`, which says nothing.
    let told = only(&about, meta::IDENTITY).map(RawValue::get);
    assert_eq!(told.filter(|told| *told != "null"), identity);
    let version = only(&about, meta::PROTOCOL_VERSION).map(RawValue::get);
    match change {
        MetaChange::Keep => {}
        MetaChange::Strip => assert!(!about.iter().any(|(key, _)| meta::is_modern_key(key))),
        MetaChange::Add(_) => assert_eq!(version, Some("\"2026-07-28\"")),
    }
    // Whoever reads it next sees the same request.
    let envelope = Envelope::parse(&out).expect("a message");
    let (again, _) = Request::read(out.clone(), &envelope).expect("a request");
    assert_eq!(again.method_name(), request.method_name());
    assert_eq!(again.arguments(), request.arguments());
    // A name that is no text (half of a surrogate pair) is none.
    assert!(request.key().is_none() || again.key().as_deref() == Some("other"));
    let token = request.progress_token().map(|_| Bytes::from_static(b"5"));
    assert_eq!(again.progress_token(), token);
}

fn retried(request: &Request) {
    let answers = RawValue::from_string(r#"{"k":{"action":"accept"}}"#.to_owned()).unwrap();
    let state = RawValue::from_string("\"s\"".to_owned()).unwrap();
    let input = Input {
        responses: Some(&answers),
        state: Some(&state),
    };
    let Ok(retry) = request.retried(b"\"again\"", &input) else {
        assert!(request.params().is_none(), "no retry of {request:?}");
        return;
    };
    assert_eq!(retry.id(), b"\"again\"");
    assert_eq!(retry.arguments(), request.arguments());
    assert_eq!(retry.key(), request.key());
    assert_eq!(retry.meta(), request.meta());
    let brought = retry.input().expect("a retry");
    assert_eq!(brought.responses.map(RawValue::get), Some(answers.get()));
    assert_eq!(brought.state.map(RawValue::get), Some(state.get()));
}

fn answered(answer: &Response) {
    let out = answer.with_id(b"\"me\"");
    let (old, new) = (members(text(answer.body())), members(text(&out)));
    same_but(&old, &new, &["id"]);
    let again = Response::read(out.clone()).expect("an answer");
    assert_eq!(again.verdict, answer.verdict);
    assert!(answer.id().is_empty() || again.id() == b"\"me\"");
    let (Ok(one) | Err(one)) = answer.payload();
    let (Ok(other) | Err(other)) = again.payload();
    assert_eq!(one.get(), other.get());
}
