use serde_json::json;

use super::*;

fn problems(value: &Value) -> Vec<String> {
    let issues = ServiceDraft::from_json(value).err().unwrap_or_default();
    issues
        .into_iter()
        .map(|issue| format!("{}: {}", issue.path, issue.message))
        .collect()
}

#[test]
fn a_minimal_draft_is_accepted_and_round_trips() {
    let value =
        json!({"name": "time", "spec": {"source": {"process": {"command": "mcp-server-time"}}}});
    let draft = ServiceDraft::from_json(&value).unwrap();
    assert_eq!(draft.spec.replicas, 1);
    assert!(draft.enabled && draft.spec.runs_on_host());
    let again = serde_json::to_value(&draft).unwrap();
    assert_eq!(ServiceDraft::from_json(&again).unwrap(), draft);
    assert_eq!(
        serde_json::from_value::<ServiceDraft>(again).unwrap(),
        draft
    );
}

#[test]
fn five_mistakes_are_five_problems_with_their_paths() {
    let value = json!({
        "name": "Bad Name",
        "colour": "red",
        "spec": {
            "source": {"mcp": {"url": "ftp://x", "headers": {"Host": "a"}}},
            "replicas": 0,
            "limits": {"timeout": "soon"},
        }
    });
    let problems = problems(&value);
    let starts = [
        "name:",
        "spec.source.mcp.headers.Host:",
        "spec.source.mcp.url:",
        "spec.replicas:",
        "spec.limits.timeout:",
        "colour:",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(
            problem.starts_with(start),
            "{problem} does not start with {start}"
        );
    }
}

#[test]
fn what_is_validated_is_one_of_three() {
    let draft = |validate: &str| json!({"name": "x", "spec": {"source": {"builtin": "demo"}, "validate": validate}});
    for (text, validate) in [
        ("none", Validate::None),
        ("arguments", Validate::Arguments),
        ("all", Validate::All),
    ] {
        let read = ServiceDraft::from_json(&draft(text)).unwrap();
        assert_eq!(read.spec.validate, validate);
        assert_eq!(serde_json::to_value(validate).unwrap(), text);
    }
    assert_eq!(
        problems(&draft("results")),
        ["spec.validate: `results` is not what can be validated: write none, arguments or all"]
    );
}

#[test]
fn a_source_is_exactly_one() {
    let two = json!({"process": {"command": "x"}, "mcp": {"url": "http://h/mcp"}});
    for source in [json!({}), two] {
        let problems = problems(&json!({"name": "a", "spec": {"source": source}}));
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains("exactly one")),
            "{problems:?}"
        );
    }
}

#[test]
fn credentials_in_urls_are_refused() {
    let value = json!({"name": "a", "spec": {"source": {"mcp": {"url": "https://u:p@h/mcp"}}}});
    assert_eq!(
        problems(&value),
        ["spec.source.mcp.url: credentials do not belong in a URL: use `headers`"]
    );
}

#[test]
fn filters_admit_by_pattern_and_deny_wins() {
    let filter = |allow: Option<&[&str]>, deny: &[&str]| ToolFilter {
        allow: allow.map(|list| list.iter().map(ToString::to_string).collect()),
        deny: deny.iter().map(ToString::to_string).collect(),
    };
    assert!(filter(None, &[]).admits("anything"));
    assert!(filter(Some(&["read_*"]), &[]).admits("read_file"));
    assert!(!filter(Some(&["read_*"]), &[]).admits("write_file"));
    assert!(!filter(Some(&["*"]), &["*_file"]).admits("write_file"));
    assert!(filter(Some(&["a*b*c"]), &[]).admits("aXbYc"));
    assert!(!filter(Some(&["a*b*c"]), &[]).admits("abX"));
    assert!(!filter(Some(&["abc"]), &[]).admits("abcd"));
    assert!(!filter(Some(&[]), &[]).admits("x"));
}

#[test]
fn sensitive_values_are_env_and_headers() {
    let mut spec = ServiceSpec::new(Source::Mcp(McpSource {
        url: "http://h/mcp".to_owned(),
        headers: BTreeMap::from([("authorization".to_owned(), "Bearer x".to_owned())]),
        ..McpSource::default()
    }));
    for (_, value) in spec.sensitive_values() {
        *value = "secret:1".to_owned();
    }
    assert!(!serde_json::to_string(&spec).unwrap().contains("Bearer"));
}

#[test]
fn a_reference_is_told_from_a_value() {
    let id = Id::new(Timestamp::from_millis(1));
    assert_eq!(
        SecretRef::parse(&SecretRef(id).to_string()),
        Some(SecretRef(id))
    );
    assert_eq!(SecretRef::parse("secret:not-an-id"), None);
}
