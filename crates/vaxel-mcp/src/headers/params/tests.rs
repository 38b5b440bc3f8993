use proptest::prelude::*;

use super::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn read(schema: &str) -> Result<ParamHeaders, InvalidAnnotation> {
    ParamHeaders::of(&raw(schema))
}

fn mirror(schema: &str, arguments: &str) -> Vec<(String, String)> {
    let headers = read(schema).unwrap().mirror(Some(arguments));
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

const SCHEMA: &str = r#"{"type":"object","properties":{
    "region":{"type":"string","x-mcp-header":"Region"},
    "query":{"type":"string"},
    "options":{"type":"object","properties":{
        "limit":{"type":"integer","x-mcp-header":"Limit"},
        "dry":{"type":["boolean","null"],"x-mcp-header":"Dry"}}}}}"#;

#[test]
fn annotated_arguments_are_mirrored_from_their_exact_place() {
    let arguments =
        r#"{"options":{"limit":42,"dry":false},"region":"us-west1","limit":7,"query":"x"}"#;
    let mut found = mirror(SCHEMA, arguments);
    found.sort();
    let pair = |name: &str, value: &str| (format!("mcp-param-{name}"), value.to_owned());
    assert_eq!(
        found,
        [
            pair("dry", "false"),
            pair("limit", "42"),
            pair("region", "us-west1")
        ]
    );
}

#[test]
fn what_has_no_value_has_no_header() {
    assert_eq!(mirror(SCHEMA, "{}"), []);
    assert_eq!(
        mirror(SCHEMA, r#"{"region":null,"options":[{"limit":1}]}"#),
        []
    );
    assert_eq!(mirror(SCHEMA, "[1]"), []);
    assert!(read(SCHEMA).unwrap().mirror(None).is_empty());
}

#[test]
fn values_are_written_as_the_specification_shows() {
    let value = |argument: &str| {
        let schema = r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}"#;
        mirror(schema, &format!(r#"{{"a":{argument}}}"#))[0]
            .1
            .clone()
    };
    assert_eq!(value(r#""Hello, 世界""#), "=?base64?SGVsbG8sIOS4lueVjA==?=");
    assert_eq!(value(r#"" padded ""#), "=?base64?IHBhZGRlZCA=?=");
    assert_eq!(value(r#""line1\nline2""#), "=?base64?bGluZTEKbGluZTI=?=");
    assert_eq!(
        value(r#""=?base64?literal?=""#),
        "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="
    );
    assert_eq!(value("-7"), "-7");
    assert_eq!(value("42.0"), "42");
    assert_eq!(value("1e2"), "100");
    assert_eq!(value("1.5"), "1.5");
    assert_eq!(value("-0"), "0");
}

#[test]
fn of_repeated_arguments_the_last_counts() {
    let found = mirror(SCHEMA, r#"{"region":"a","region":"b"}"#);
    assert_eq!(found[0].1, "b");
}

#[test]
fn wrong_annotations_make_the_tool_unusable() {
    let property = |text: &str| read(&format!(r#"{{"properties":{{"a":{text}}}}}"#)).unwrap_err();
    let name = |text: &str| property(&format!(r#"{{"type":"string","x-mcp-header":{text}}}"#));
    for text in [
        "\"\"",
        "\"a b\"",
        "\"a:b\"",
        "\"ä\"",
        "\"a\\r\\nb\"",
        "7",
        "null",
        "{}",
    ] {
        assert!(matches!(name(text), InvalidAnnotation::Name(_)), "{text}");
    }
    for kind in [
        r#""number""#,
        r#""object""#,
        r#"["string","integer"]"#,
        r#"["null"]"#,
    ] {
        let found = property(&format!(r#"{{"type":{kind},"x-mcp-header":"A"}}"#));
        assert_eq!(found, InvalidAnnotation::Type("A".to_owned()), "{kind}");
    }
    assert_eq!(
        property(r#"{"x-mcp-header":"A"}"#),
        InvalidAnnotation::Type("A".to_owned())
    );
    let twice = r#"{"properties":{"a":{"type":"string","x-mcp-header":"X"},
        "b":{"properties":{"c":{"type":"string","x-mcp-header":"x"}}}}}"#;
    assert!(matches!(read(twice), Err(InvalidAnnotation::Duplicate(_))));
}

#[test]
fn annotations_without_a_fixed_place_make_the_tool_unusable() {
    let leaf = r#"{"type":"string","x-mcp-header":"A"}"#;
    let inner = format!(r#"{{"properties":{{"a":{leaf}}}}}"#);
    for schema in [
        leaf.to_owned(),
        format!(r#"{{"items":{inner}}}"#),
        format!(r#"{{"properties":{{"l":{{"items":{leaf}}}}}}}"#),
        format!(r#"{{"anyOf":[{{}},{inner}]}}"#),
        format!(r#"{{"properties":{{"o":{{"oneOf":[{leaf}]}}}}}}"#),
        format!(r#"{{"if":{inner}}}"#),
        format!(r#"{{"not":{inner}}}"#),
        format!(r#"{{"$defs":{{"D":{inner}}}}}"#),
        format!(r#"{{"additionalProperties":{leaf}}}"#),
        format!(r#"{{"patternProperties":{{"^a":{leaf}}}}}"#),
    ] {
        assert_eq!(
            read(&schema).unwrap_err(),
            InvalidAnnotation::Place("A".to_owned()),
            "{schema}"
        );
    }
}

#[test]
fn values_and_property_names_are_no_annotations() {
    let named = r#"{"properties":{"x-mcp-header":{"type":"string"}},
        "examples":[{"x-mcp-header":"no"}],"default":{"x-mcp-header":"no"}}"#;
    assert!(read(named).unwrap().is_empty());
    assert!(
        read(r#"{"properties":{"a":true},"description":"x-mcp-header"}"#)
            .unwrap()
            .is_empty()
    );
    let tool = raw(r#"{"name":"x-mcp-header","inputSchema":{"type":"object"}}"#);
    assert!(ParamHeaders::of_tool(&tool).unwrap().is_empty());
}

#[test]
fn a_tool_cannot_ask_for_more_than_a_request_carries() {
    let properties: Vec<String> = (0..=HEADERS)
        .map(|n| format!(r#""p{n}":{{"type":"string","x-mcp-header":"H{n}"}}"#))
        .collect();
    let schema = format!(r#"{{"properties":{{{}}}}}"#, properties.join(","));
    assert_eq!(read(&schema).unwrap_err(), InvalidAnnotation::TooMany);
}

#[test]
fn headers_are_held_against_the_arguments() {
    let wants = read(SCHEMA).unwrap();
    let check = |arguments: &str, said: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            let name: HeaderName = format!("mcp-param-{name}").parse().unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        wants.check(Some(arguments), &headers)
    };
    let region = HeaderName::from_static("mcp-param-region");
    let limit = HeaderName::from_static("mcp-param-limit");
    let both = r#"{"region":"us","options":{"limit":42}}"#;
    assert_eq!(check(both, &[("region", "us"), ("limit", "42.0")]), Ok(()));
    assert_eq!(
        check(both, &[("region", "=?base64?dXM=?="), ("limit", "4.2e1")]),
        Ok(())
    );
    assert_eq!(check("{}", &[("other", "x")]), Ok(()));
    assert_eq!(
        check(both, &[("limit", "42")]),
        Err(Mismatch::Missing(region.clone()))
    );
    assert_eq!(
        check("{}", &[("region", "us")]),
        Err(Mismatch::Unexpected(region.clone()))
    );
    assert_eq!(
        check(both, &[("region", "US"), ("limit", "42")]),
        Err(Mismatch::Different(region.clone()))
    );
    assert_eq!(
        check(both, &[("region", "us"), ("limit", "43")]),
        Err(Mismatch::Different(limit))
    );
    for value in ["=?base64?%?=", "h\u{e4}lsa"] {
        assert_eq!(
            check(r#"{"region":"us"}"#, &[("region", value)]),
            Err(Mismatch::Malformed(region.clone()))
        );
    }
    assert_eq!(
        check(r#"{"region":"us"}"#, &[("region", "us"), ("region", "us")]),
        Err(Mismatch::Repeated(region))
    );
}

proptest! {
    #[test]
    fn what_is_mirrored_passes_the_check(
        region in ".{0,40}",
        limit in -9_007_199_254_740_991_i64..9_007_199_254_740_991,
        dry: bool,
    ) {
        let wants = read(SCHEMA).unwrap();
        let arguments =
            serde_json::json!({"region": region, "options": {"limit": limit, "dry": dry}}).to_string();
        let headers: HeaderMap = wants.mirror(Some(&arguments)).into_iter().collect();
        prop_assert_eq!(headers.len(), 3);
        prop_assert_eq!(wants.check(Some(&arguments), &headers), Ok(()));
    }

    #[test]
    fn hostile_schemas_and_arguments_never_panic(
        name in ".{0,10}",
        schema in r#"\{"(properties|items|type)":(\{"a":\{"type":"(string|number)","x-mcp-header":"[a-c ]?"\}\}|\[1\]|"object")\}"#,
        arguments in ".{0,60}",
        deep in 0_usize..300,
    ) {
        let escaped = serde_json::json!({"properties": {"a": {"type": "string", "x-mcp-header": name}}});
        for text in [schema, escaped.to_string()] {
            if let Ok(wants) = read(&text) {
                wants.mirror(Some(&arguments));
                wants.mirror(Some(&format!(r#"{{"a":{arguments}}}"#)));
            }
        }
        let nested = format!(r#"{}{{"x-mcp-header":"A"}}{}"#, r#"{"not":"#.repeat(deep), "}".repeat(deep));
        prop_assert!(deep == 0 || read(&nested).is_err());
    }
}
