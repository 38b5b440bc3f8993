use super::*;
use crate::{
    id::Id,
    principal::{Permission, Principal},
    time::Timestamp,
};

fn holds(text: &str, arguments: &str) -> Result<bool, String> {
    let raw: Box<RawValue> = serde_json::from_str(arguments).unwrap();
    with_asked(&raw, |asked| {
        Condition::compile(text)?.holds(&mut Facts::of(asked))
    })
}

fn with_asked<T>(raw: &RawValue, then: impl FnOnce(&Asked<'_>) -> T) -> T {
    let tags = ["eu".to_owned()];
    let target = Target {
        id: Id::new(Timestamp::from_millis(0)),
        name: "files",
        owner: "anna",
        environment: "prod",
        tags: &tags,
    };
    let who = Principal::system();
    let asked = Asked {
        who: &who,
        permission: Permission::McpExecute,
        on: &target,
        tool: Some("read_file"),
        arguments: Some(raw),
        // A Saturday, half past seven.
        now: Timestamp::from_millis(1_795_246_200_000),
    };
    then(&asked)
}

#[test]
fn a_condition_sees_the_call_the_service_the_user_and_the_time() {
    for text in [
        "arguments.path.startsWith('/srv/')",
        "arguments.count <= 10 && arguments.deep.list[1] == 'b'",
        "arguments.deep.list.exists(one, one == 'a')",
        "service.name == 'files' && service.environment == 'prod' && 'eu' in service.tags",
        "user.name == 'vaxel' && size(user.roles) == 0",
        "tool.matches('^read_[a-z]+$')",
        "time.hour == 7 && time.minute == 30 && time.weekday == 6",
        "!has(arguments.force)",
    ] {
        let arguments = r#"{"path": "/srv/a", "count": 3, "deep": {"list": ["a", "b"]}}"#;
        assert_eq!(holds(text, arguments), Ok(true), "{text}");
    }
}

#[test]
fn what_cannot_be_decided_is_neither_yes_nor_no() {
    for (text, arguments) in [
        ("arguments.path.startsWith('/srv/')", "{}"),
        ("arguments.path.startsWith('/srv/')", r#"{"path": 7}"#),
        ("arguments.count", r#"{"count": 1}"#),
        ("arguments.a / arguments.b > 1", r#"{"a": 1, "b": 0}"#),
    ] {
        assert!(holds(text, arguments).is_err(), "{text}");
    }
    for twice in [
        r#"{"path": "/srv/a", "path": "/etc"}"#,
        r#"{"path": "/etc", "\u0070ath": "/srv/a"}"#,
        r#"{"path": "/srv/a", "PATH": "/etc"}"#,
    ] {
        let why = holds("arguments.path.startsWith('/srv/')", twice).unwrap_err();
        assert!(why.contains("stands twice"), "{why}");
    }
    let long = format!(r#"{{"path": "{}"}}"#, "x".repeat(ARGUMENTS_MAX));
    assert!(holds("size(arguments) > 0", &long).is_err());
    assert!(holds("size(arguments) > 0", r#"{"path": "x"}"#).unwrap());
}

#[test]
fn what_cannot_be_looked_at_fails_only_the_conditions_that_look_at_it() {
    let long = serde_json::value::to_raw_value(&"x".repeat(ARGUMENTS_MAX)).unwrap();
    with_asked(&long, |asked| {
        let mut facts = Facts::of(asked);
        let mut holds = |text| Condition::compile(text).unwrap().holds(&mut facts);
        assert!(holds("size(arguments) > 0").is_err());
        assert_eq!(holds("tool == 'read_file'"), Ok(true));
        assert_eq!(
            holds("tool == 'read_file' && user.name == 'vaxel'"),
            Ok(true)
        );
        assert!(holds("size(arguments) > 0").is_err());
    });
}

#[test]
fn what_is_no_condition_is_refused_with_a_sentence() {
    for (text, expected) in [
        ("arguments.", "is not a condition in CEL"),
        ("argument.path == ''", "nothing called `argument`"),
        (&*"a".repeat(1_001), "at most 1000 bytes"),
        (
            "arguments.all(a, arguments.all(b, a == b))",
            "once more for each",
        ),
    ] {
        let refused = Condition::compile(text).unwrap_err();
        assert!(refused.contains(expected), "{text}: {refused}");
    }
}

#[test]
fn what_is_nested_too_deep_is_refused_and_nothing_overflows() {
    for (before, middle, after) in [
        ("(", "1", ")"),
        ("[", "", "]"),
        ("a[", "0", "]"),
        ("-(", "1", ")"),
    ] {
        for levels in [100, 240] {
            let text = format!("{}{middle}{}", before.repeat(levels), after.repeat(levels));
            assert!(Condition::compile(&text).is_err(), "{before} {levels}");
        }
    }
    for link in ["+1", "<1", "[0]", ".b()", "?1:1"] {
        let text = format!("arguments{}", link.repeat(900 / link.len()));
        assert!(Condition::compile(&text).is_err(), "{link}");
    }
    let deepest = format!("{}true{}", "[".repeat(28), "][0]".repeat(28));
    assert!(holds(&deepest, "{}").is_err() || holds(&deepest, "{}") == Ok(true));
    let long = vec!["arguments.a == 1"; 50].join(" || ");
    assert_eq!(holds(&long, r#"{"a": 1}"#), Ok(true));
}
