use serde_json::json;

use super::*;

#[test]
fn a_policy_is_read_as_it_is_written() {
    let value = json!({
        "name": "no-writes", "effect": "deny", "roles": ["analyst"], "permissions": ["mcp:execute"],
        "services": ["db-*"], "environments": ["prod"], "tools": ["write_*"],
        "when": "arguments.force == true", "enabled": true,
    });
    let draft = PolicyDraft::from_json(&value).unwrap();
    assert_eq!(serde_json::to_value(&draft).unwrap(), value);
    assert_eq!(serde_json::from_value::<PolicyDraft>(value).unwrap(), draft);
}

#[test]
fn every_problem_of_a_policy_is_named() {
    let value = json!({
        "name": "No", "effect": "maybe", "users": ["A"], "roles": "x", "permissions": ["keys:manage"],
        "services": [], "tools": [""], "when": "arguments.", "tool": [],
    });
    let issues = PolicyDraft::from_json(&value).unwrap_err();
    let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
    let expected = [
        "name",
        "effect",
        "users[0]",
        "roles",
        "permissions[0]",
        "services",
        "tools[0]",
        "when",
        "tool",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn a_policy_concerns_whom_it_names_or_everyone() {
    let policy = |users: serde_json::Value, roles: serde_json::Value| {
        let mut value = json!({"name": "p", "effect": "deny"});
        if !users.is_null() {
            value["users"] = users;
        }
        if !roles.is_null() {
            value["roles"] = roles;
        }
        PolicyDraft::from_json(&value).unwrap()
    };
    let null = serde_json::Value::Null;
    let anna = |policy: PolicyDraft| policy.concerns("anna", ["analyst"].into_iter());
    assert!(anna(policy(null.clone(), null.clone())));
    assert!(anna(policy(json!(["anna"]), null.clone())));
    assert!(anna(policy(json!(["bob"]), json!(["analyst"]))));
    assert!(!anna(policy(json!(["bob"]), null.clone())));
    assert!(!anna(policy(null, json!(["admin"]))));
}

#[test]
fn a_policy_about_tools_spares_everything_else() {
    let value = json!({"name": "p", "effect": "deny", "tools": ["write_*"]});
    let policy = PolicyDraft::from_json(&value).unwrap();
    assert!(!policy.spares(Some("write_file")));
    assert!(policy.spares(Some("read_file")));
    assert!(policy.spares(None));
}
