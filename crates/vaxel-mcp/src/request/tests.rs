use super::*;

fn read(text: &str) -> (Request, Claims) {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let envelope = Envelope::parse(&body).unwrap();
    Request::read(body.clone(), &envelope).unwrap()
}

fn forward(text: &str, forward: &Forward<'_>) -> String {
    String::from_utf8(read(text).0.forward(forward).to_vec()).unwrap()
}

const KEEP: Forward<'_> = Forward {
    id: None,
    key: None,
    progress_token: None,
    meta: MetaChange::Keep,
    identity: None,
};

fn session() -> ModernMeta {
    ModernMeta {
        capabilities: "{}".into(),
        info: r#"{"name":"c"}"#.into(),
        log_level: None,
    }
}

#[test]
fn only_what_is_named_changes() {
    let text = r#"{ "jsonrpc":"2.0", "extra":[1, 2], "id":"x", "method":"tools/call",
        "params":{"name":"a__b","arguments":{"n":1.0},"odd":null} }"#;
    let told = forward(
        text,
        &Forward {
            id: Some(7),
            key: Some("\"b\""),
            ..KEEP
        },
    );
    assert_eq!(told, text.replace("\"x\"", "7").replace("a__b", "b"));
}

#[test]
fn an_untouched_request_is_the_same_bytes() {
    let (request, _) = read(r#"{"id":1,"method":"tools/list"}"#);
    let told = request.forward(&KEEP);
    assert_eq!(told.as_ptr(), request.body().as_ptr());
}

#[test]
fn a_progress_token_is_replaced_in_place() {
    let text = r#"{"id":1,"method":"tools/call","params":{"name":"b","_meta":{"progressToken":"t","v/x":[1]}}}"#;
    let told = forward(
        text,
        &Forward {
            progress_token: Some(9),
            ..KEEP
        },
    );
    assert_eq!(told, text.replace("\"t\"", "9"));
}

#[test]
fn a_legacy_session_speaks_for_its_requests() {
    let facts = session();
    let add = Forward {
        meta: MetaChange::Add(&facts),
        ..KEEP
    };
    let expected = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"c"}}"#;
    assert_eq!(
        forward(r#"{"id":1,"method":"tools/list"}"#, &add),
        format!(r#"{{"id":1,"params":{{{expected}}},"method":"tools/list"}}"#)
    );
    assert_eq!(
        forward(r#"{"id":1,"method":"tools/list","params":{ }}"#, &add),
        format!(r#"{{"id":1,"method":"tools/list","params":{{{expected} }}}}"#)
    );
    assert_eq!(
        forward(
            r#"{"id":1,"method":"tools/call","params":{"name":"b"}}"#,
            &add
        ),
        format!(r#"{{"id":1,"method":"tools/call","params":{{{expected},"name":"b"}}}}"#)
    );
    let told = forward(
        r#"{"id":1,"method":"tools/call","params":{"_meta":{"progressToken":1,"k":2},"name":"b"}}"#,
        &Forward {
            progress_token: Some(5),
            ..add
        },
    );
    assert!(
        told.contains(r#""_meta":{"k":2,"progressToken":5,"#),
        "{told}"
    );
}

#[test]
fn null_is_the_same_as_nothing_and_is_not_left_beside_what_is_said() {
    let session = session();
    let told = |text: &str| {
        forward(
            text,
            &Forward {
                meta: MetaChange::Add(&session),
                ..KEEP
            },
        )
    };
    let said = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"c"}}"#;
    assert_eq!(
        told(r#"{"id":1,"method":"tools/call","params":{"_meta":null,"name":"b"}}"#),
        format!(r#"{{"id":1,"method":"tools/call","params":{{{said},"name":"b"}}}}"#)
    );
    assert_eq!(
        told(r#"{"id":1,"params": null,"method":"tools/list"}"#),
        format!(r#"{{"id":1,"params": {{{said}}},"method":"tools/list"}}"#)
    );
    let text = r#"{"id":1,"method":"tools/call","params":{"_meta":null}}"#;
    assert_eq!(forward(text, &KEEP), text);
}

#[test]
fn reserved_keys_never_reach_a_legacy_upstream() {
    let text = r#"{"id":1,"method":"tools/call","params":{"name":"b","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"progressToken":"p","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}"#;
    let told = forward(
        text,
        &Forward {
            meta: MetaChange::Strip,
            ..KEEP
        },
    );
    assert!(!told.contains("io.modelcontextprotocol"), "{told}");
    assert!(told.contains(r#""progressToken":"p""#) && told.contains("traceparent"));
    let (_, claims) = read(text);
    assert_eq!(
        claims.trace_id.as_deref(),
        Some("0af7651916cd43dd8448eb211c80319c")
    );
    assert_eq!(claims.version.as_deref(), Some("2026-07-28"));
}

#[test]
fn names_are_read_whether_escaped_or_not() {
    let (request, _) = read(r#"{"id":1,"method":"tools/call","params":{"name":"a\u0062"}}"#);
    assert_eq!(request.key().as_deref(), Some("ab"));
    let (request, _) = read(r#"{"id":1,"method":"resources/read","params":{"uri":"file:///x"}}"#);
    assert_eq!(request.key().as_deref(), Some("file:///x"));
    let (request, _) = read(r#"{"id":1,"method":"tools/call","params":{"name":5}}"#);
    assert_eq!(request.key(), None);
}

#[test]
fn requests_that_cannot_be_answered_are_refused() {
    for text in [
        r#"{"id":null,"method":"x"}"#,
        r#"{"id":1.5,"method":"x"}"#,
        r#"{"id":1,"method":"x","params":[1]}"#,
        r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":5}}}"#,
        r#"{"id":1,"method":"x","params":{"_meta":["2026-07-28",{}]}}"#,
    ] {
        let body = Bytes::copy_from_slice(text.as_bytes());
        let envelope = Envelope::parse(&body).unwrap();
        assert!(Request::read(body.clone(), &envelope).is_err(), "{text}");
    }
}

#[test]
fn a_retry_brings_answers_and_state_and_is_otherwise_the_same() {
    let (first, _) = read(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1.0},"v":2}}"#,
    );
    assert!(first.input().is_none());
    let responses = RawValue::from_string(r#"{"k":{"action":"accept"}}"#.to_owned()).unwrap();
    let state = RawValue::from_string(r#""s\u0041""#.to_owned()).unwrap();
    let input = Input {
        responses: Some(&responses),
        state: Some(&state),
    };
    let retry = first.retried(b"\"again\"", &input).unwrap();
    assert_eq!(
        std::str::from_utf8(retry.body()).unwrap(),
        r#"{"jsonrpc":"2.0","id":"again","method":"tools/call","params":{"name":"a","arguments":{"x":1.0},"v":2,"inputResponses":{"k":{"action":"accept"}},"requestState":"s\u0041"}}"#
    );
    let brought = retry.input().unwrap();
    assert_eq!(brought.state.unwrap().get(), state.get());
    let without = Input {
        responses: None,
        state: None,
    };
    assert_eq!(retry.retried(b"1", &without).unwrap().body(), first.body());
}

#[test]
fn who_calls_is_said_by_the_gateway_alone() {
    let session = session();
    let claimed = r#"{"id":1,"method":"tools/call","params":{"_meta":{"dev.vaxel/identity":"forged","a":1.0},"name":"b"}}"#;
    let spelled = claimed.replace("/identity", r"\/\u0069dentity");
    let plain = r#"{"id":1,"method":"tools/call","params":{"name":"b"}}"#;
    let bare = r#"{"id":1,"method":"tools/list"}"#;
    let changes = [
        MetaChange::Keep,
        MetaChange::Strip,
        MetaChange::Add(&session),
    ];
    for meta in changes {
        for text in [claimed, &spelled, plain, bare] {
            let said = |identity| {
                let told = forward(
                    text,
                    &Forward {
                        meta,
                        identity,
                        ..KEEP
                    },
                );
                serde_json::from_str::<serde_json::Value>(&told).unwrap()["params"]["_meta"].clone()
            };
            assert_eq!(
                said(None).get("dev.vaxel/identity"),
                None,
                "{meta:?} {text}"
            );
            let told = said(Some("\"token\""));
            assert_eq!(told["dev.vaxel/identity"], "token", "{meta:?} {text}");
            if text == claimed {
                assert_eq!(
                    (said(None)["a"].as_f64(), told["a"].as_f64()),
                    (Some(1.0), Some(1.0))
                );
            }
        }
    }
    let twice = claimed.replace("\"a\":1.0", "\"dev.vaxel/identity\":1");
    let body = Bytes::from(twice);
    let envelope = Envelope::parse(&body).unwrap();
    assert!(Request::read(body.clone(), &envelope).is_err());
}
