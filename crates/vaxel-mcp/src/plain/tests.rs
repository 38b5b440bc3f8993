use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn plain<'a>(content_type: &'a str, body: &'a [u8]) -> Plain<'a> {
    Plain {
        content_type: (!content_type.is_empty()).then_some(content_type),
        body,
    }
}

fn result(content_type: &str, body: &[u8]) -> Value {
    let result = plain(content_type, body).result("vaxel://shop/tools/x");
    serde_json::from_slice(&result.unwrap()).unwrap()
}

#[test]
fn every_kind_of_answer_becomes_content_of_its_kind() {
    let text =
        |text: &str| json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
    let check = |content_type: &str, body: &[u8], expected: Value| {
        assert_eq!(result(content_type, body), expected, "{content_type}");
    };
    check(
        "application/json; charset=utf-8",
        br#" {"sum": 1.0} "#,
        json!({"resultType": "complete", "content": [{"type": "text", "text": r#"{"sum": 1.0}"#}],
            "structuredContent": {"sum": 1.0}}),
    );
    check("application/hal+json", b"[1, 2]", text("[1, 2]"));
    check("application/json", br#""a \"word\"""#, text(r#"a "word""#));
    check("", b"42", text("42"));
    check("", b"forty-two", text("forty-two"));
    check("text/html; charset=utf-8", b"<p>", text("<p>"));
    check("text/plain", b"\xff", text("\u{fffd}"));
    check(
        "image/PNG",
        b"\x89P",
        json!({"resultType": "complete",
            "content": [{"type": "image", "data": "iVA=", "mimeType": "image/png"}]}),
    );
    check(
        "application/pdf",
        b"%PDF\xff",
        json!({"resultType": "complete", "content": [{"type": "resource", "resource":
            {"uri": "vaxel://shop/tools/x", "mimeType": "application/pdf", "blob": "JVBERv8="}}]}),
    );
    check(
        "application/xml",
        b"<a/>",
        json!({"resultType": "complete", "content": [{"type": "resource", "resource":
            {"uri": "vaxel://shop/tools/x", "mimeType": "application/xml", "text": "<a/>"}}]}),
    );
    check(
        "application/json",
        b"",
        json!({"resultType": "complete", "content": []}),
    );
}

#[test]
fn an_object_keeps_its_bytes() {
    let body = br#"{"a":1.0,"b":[1e3, "\u00e9"],"a":2}"#;
    let result = plain("application/json", body).result("").unwrap();
    let result = String::from_utf8(result).unwrap();
    let inner = std::str::from_utf8(body).unwrap();
    assert!(
        result.ends_with(&format!(r#""structuredContent":{inner}}}"#)),
        "{result}"
    );
}

#[test]
fn what_already_is_a_result_passes_and_is_complete() {
    let own = br#"{"content":[{"type":"text","text":"x"},{"type":"resource_link","uri":"a:b","name":"b"}],
        "isError":true,"resultType":"input_required"}"#;
    assert_eq!(
        result("application/json", own),
        json!({"content": [{"type": "text", "text": "x"}, {"type": "resource_link", "uri": "a:b", "name": "b"}],
            "isError": true, "resultType": "complete"})
    );
    // Documents have content, too.
    for other in [
        r#"{"content":[{"type":"paragraph","text":"x"}]}"#,
        r#"{"content":[{"type":"text","text":{"bold":true}}]}"#,
        r#"{"content":"x"}"#,
        r#"{"content":[]}"#,
    ] {
        let result = result("application/json", other.as_bytes());
        let whole: Value = serde_json::from_str(other).unwrap();
        assert_eq!(result["structuredContent"], whole, "{other}");
    }
}

#[test]
fn what_is_no_json_although_it_says_so_is_refused() {
    for body in [&b"{"[..], b"{} {}", b"\xff", b"nothing"] {
        assert_eq!(plain("application/json", body).result(""), Err(NotJson));
    }
}

#[test]
fn a_refusal_is_told_in_the_words_of_the_service() {
    let reason = |content_type, body: &str| plain(content_type, body.as_bytes()).reason();
    let said = |body: &str| reason("application/problem+json", body);
    let words = |text: &str| Some(text.to_owned());
    assert_eq!(
        said(r#"{"title":"Bad","detail":"No such wallet"}"#),
        words("No such wallet")
    );
    assert_eq!(said(r#"{"title":"Bad"}"#), words("Bad"));
    assert_eq!(
        said(r#"{"detail":[{"loc":["body","x",0],"msg":"Field required","type":"missing"}]}"#),
        words("body.x.0: Field required")
    );
    assert_eq!(
        said(r#"{"error":{"code":7,"message":"Sold out"}}"#),
        words("Sold out")
    );
    assert_eq!(said(r#"{"ok":false}"#), None);
    let deep = format!("{}1{}", r#"{"detail":"#.repeat(9_000), "}".repeat(9_000));
    assert_eq!(said(&deep), None);
    assert_eq!(said("[1]"), None);
    assert_eq!(reason("text/plain", " not found \n"), words("not found"));
    assert_eq!(reason("text/html", "<html>"), None);
    assert_eq!(reason("", "not found"), None);
    let long = "x".repeat(9_000);
    assert_eq!(reason("text/plain", &long).unwrap().len(), SAID);
}

#[test]
fn a_failure_is_marked_as_one() {
    let result: Value = serde_json::from_slice(&failed("It \"broke\"")).unwrap();
    assert_eq!(
        result,
        json!({"resultType": "complete", "isError": true,
            "content": [{"type": "text", "text": "It \"broke\""}]})
    );
}

proptest! {
    #[test]
    fn any_answer_becomes_a_result_or_is_refused(
        content_type in prop_oneof![
            Just(String::new()), Just("application/json".to_owned()), Just("image/png".to_owned()),
            Just("text/plain".to_owned()), "[ -~]{0,30}",
        ],
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[{}\\[\\]\":,a-z0-9 ]{0,60}".prop_map(String::into_bytes),
        ],
    ) {
        let plain = plain(&content_type, &body);
        // What is said is read or not; it breaks nothing.
        let _ = plain.reason();
        if let Ok(result) = plain.result("a:b") {
            let result: Value = serde_json::from_slice(&result).unwrap();
            prop_assert_eq!(&result["resultType"], "complete");
            prop_assert!(result["content"].is_array());
        }
    }
}
