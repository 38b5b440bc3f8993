use proptest::{collection, prelude::*, proptest};
use serde_json::json;

use super::*;

#[track_caller]
fn check(before: &str, path: &[&str], value: &Value, after: &str) {
    assert_eq!(set(before, path, value).as_deref(), Ok(after));
}

const PLACE: &[&str] = &["mcpServers", "vaxel"];

#[test]
fn a_member_is_added_in_the_layout_of_the_others() {
    check(
        "{\n    // mine\n    \"theme\": \"dark\", // keep\n    \"mcpServers\": {\n        \"a\": {\"url\": \"x//y\"} // the first\n    },\n    \"n\": 1e400000\n}\n".replace("1e400000", "1.50").as_str(),
        PLACE,
        &json!({"url": "u"}),
        "{\n    // mine\n    \"theme\": \"dark\", // keep\n    \"mcpServers\": {\n        \"a\": {\"url\": \"x//y\"}, // the first\n        \"vaxel\": {\n            \"url\": \"u\"\n        }\n    },\n    \"n\": 1.50\n}\n",
    );
}

#[test]
fn a_member_is_replaced_in_its_place() {
    check(
        "{\"mcpServers\":{\"vaxel\":{\"url\":\"old\"},\"z\":{}}}",
        PLACE,
        &json!({"url": "u"}),
        "{\"mcpServers\":{\"vaxel\":{\"url\":\"u\"},\"z\":{}}}",
    );
    check(
        "{\r\n\t\"mcpServers\": {\r\n\t\t\"vaxel\": null, /* ours */\r\n\t}\r\n}",
        PLACE,
        &json!({"url": "u"}),
        "{\r\n\t\"mcpServers\": {\r\n\t\t\"vaxel\": {\r\n\t\t\t\"url\": \"u\"\r\n\t\t}, /* ours */\r\n\t}\r\n}",
    );
}

#[test]
fn objects_that_are_missing_are_made() {
    let made =
        "{\n  \"mcpServers\": {\n    \"vaxel\": {\n      \"args\": [\"stdio\"]\n    }\n  }\n}\n";
    let value = json!({"args": ["stdio"]});
    for empty in ["", " \n", "{}\n", "// nothing yet\n"] {
        check(empty, PLACE, &value, made);
    }
    check(
        "{\n  \"mcpServers\": {\n    // none yet\n  },\n}",
        PLACE,
        &json!(1),
        "{\n  \"mcpServers\": {\n    // none yet\n    \"vaxel\": 1\n  },\n}",
    );
    check(
        "{\"a\":1}",
        PLACE,
        &json!(1),
        "{\"a\":1, \"mcpServers\": {\"vaxel\":1}}",
    );
}

#[test]
fn what_is_no_object_is_left_alone() {
    let error = |text| set(text, PLACE, &json!({})).unwrap_err().to_string();
    assert_eq!(error("[]"), "`the whole` is no object");
    assert_eq!(error("{\"mcpServers\": []}"), "`mcpServers` is no object");
    assert!(error("{\"mcpServers\": ").starts_with("it is neither JSON nor"));
}

#[test]
fn comments_and_trailing_commas_are_read_and_places_stay_right() {
    let text = "\u{feff}{ // a \"b\"\n \"u\": \"http://x/*y*/\", /* , */ \"l\": [1, 2, ], }";
    assert_eq!(parse(text), Ok(json!({"u": "http://x/*y*/", "l": [1, 2]})));
    let error = parse("{ /* a\n b */ \"k\": }").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    for broken in ["{\"a\": 1,, }", "[,]", "\"", "{\"a\": \"\\", "/*", "1/**/2"] {
        let read = parse(broken);
        assert!(
            matches!(read, Err(Error::Malformed(_))) || broken == "/*",
            "{broken}: {read:?}"
        );
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[a\"\\\\/*,{}é ]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::btree_map("[ab\"/]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Writes a value with blanks, comments and trailing commas that `noise` decides.
fn noisy(value: &Value, noise: &mut impl Iterator<Item = u8>, out: &mut String) {
    let mut blank = |out: &mut String| {
        out.push_str(match noise.next().unwrap_or(0) % 8 {
            0 => "\n",
            1 => "\n    ",
            2 => " // x \" { , }\n",
            3 => "/* y \" ] , */",
            4 => "\r\n\t",
            5 => " ",
            _ => "",
        });
        noise.next().unwrap_or(0).is_multiple_of(3)
    };
    let trailing = blank(out);
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                noisy(item, noise, out);
            }
            out.push_str(if trailing && !items.is_empty() {
                ",]"
            } else {
                "]"
            });
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (key, item)) in members.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                noisy(&Value::from(key.as_str()), noise, out);
                out.push(':');
                noisy(item, noise, out);
            }
            out.push_str(if trailing && !members.is_empty() {
                ",}"
            } else {
                "}"
            });
        }
        other => out.push_str(&other.to_string()),
    }
    if noise.next().unwrap_or(0).is_multiple_of(4) {
        out.push_str(" // z\n");
    }
}

proptest! {
    #[test]
    fn setting_a_member_changes_that_member_only(
        value in value(),
        noise in collection::vec(any::<u8>(), 0..200),
        path in collection::vec("[ab\"/]", 1..4),
        new in value(),
    ) {
        let mut text = String::new();
        noisy(&value, &mut noise.into_iter(), &mut text);
        prop_assert_eq!(parse(&text), Ok(value.clone()), "{}", text);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let mut expected = value;
        match (put(&mut expected, &path, &new), set(&text, &path, &new)) {
            (Ok(()), Ok(changed)) => {
                prop_assert_eq!(parse(&changed), Ok(expected));
                // Nothing is lost: every comment is still there.
                for mark in ["// x", "/* y", "// z"] {
                    let count = |text: &str| text.matches(mark).count();
                    prop_assert!(
                        count(&changed) >= count(&text) || replaced(&text, &path),
                        "{} lost a comment:\n{}", text, changed
                    );
                }
            }
            (Err(_), Err(_)) => {}
            (meant, done) => prop_assert!(false, "{:?} {:?}\n{}", meant, done, text),
        }
    }

    #[test]
    fn no_text_is_too_strange(text in "[\\[\\]{}\",:/*\\\\ \na1]{0,40}") {
        // The answer may be an error; a panic would not be.
        drop(parse(&text));
        drop(set(&text, &["a", "b"], &Value::Null));
    }
}

/// Whether the member was there before: a replaced value takes its comments along.
fn replaced(text: &str, path: &[&str]) -> bool {
    let whole = parse(text).unwrap();
    path.iter()
        .try_fold(&whole, |value, key| value.get(*key))
        .is_some()
}
