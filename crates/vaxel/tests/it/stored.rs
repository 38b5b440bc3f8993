//! What is stored and is not what it should be: shown with what is wrong, in nobody's way, and mended by
//! whoever writes it anew.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Door, TestVaxel, text, wait_for};

/// Changes the database behind Vaxel's back, by the SQLite of Python.
const SPOIL: &str = "
import sqlite3, sys
link = sqlite3.connect(sys.argv[1])
for change in sys.argv[2:]:
    assert link.execute(change).rowcount > 0, change
link.commit()
link.close()
";

/// Stops Vaxel, changes its database and starts it again.
fn spoil(vaxel: &mut TestVaxel, changes: &[&str]) {
    vaxel.ok(&["down"]);
    let changed = Command::new("python3")
        .args(["-c", SPOIL])
        .arg(vaxel.data_dir().join("vaxel.db"))
        .args(changes)
        .output()
        .unwrap();
    assert!(changed.status.success(), "{}", text(&changed));
    vaxel.launch();
}

/// A Vaxel with three services of the demo's kind.
fn start() -> TestVaxel {
    let vaxel = TestVaxel::start();
    let door = Door::of(&vaxel);
    for name in ["good", "broken", "far"] {
        let draft = json!({ "name": name, "spec": { "source": { "builtin": "demo" } } });
        let (status, body) = door.ask("POST", "/api/v1/services", Some(&draft)).unwrap();
        assert_eq!(status, 201, "{body}");
    }
    vaxel
}

fn get(vaxel: &TestVaxel, path: &str) -> Value {
    let (status, body) = Door::of(vaxel).ask("GET", path, None).unwrap();
    assert_eq!(status, 200, "{body}");
    body
}

fn state(vaxel: &TestVaxel, name: &str) -> (Value, Value) {
    let mut seen = get(vaxel, &format!("/api/v1/services/{name}"));
    (
        seen["status"]["lifecycle"].take(),
        seen["status"]["issues"].take(),
    )
}

fn calls(vaxel: &TestVaxel, name: &str) -> bool {
    let tool = format!("{name}__echo");
    let called = vaxel.cli(&["call", &tool, "--arg", "message=x"]);
    called.status.success()
}

#[test]
fn services_that_are_stored_badly_say_so_and_are_mended_by_an_update() {
    let mut vaxel = start();
    spoil(
        &mut vaxel,
        &[
            "UPDATE services SET spec = '{\"source\": {\"built' WHERE name = 'broken'",
            "UPDATE services SET spec = replace(spec, '\"replicas\":1', '\"replicas\":3') \
             WHERE name = 'far'",
        ],
    );
    wait_for("the good one to be ready", || calls(&vaxel, "good"));

    // In the list and alone, by name and by id.
    let list = vaxel.ok(&["ls"]);
    assert_eq!(list.matches("error").count(), 2, "{list}");
    let listed = get(&vaxel, "/api/v1/services?state=error");
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    let (lifecycle, issues) = state(&vaxel, "broken");
    assert_eq!(
        (&lifecycle, &issues[0]["path"]),
        (&json!("error"), &json!("spec"))
    );
    let said = issues[0]["message"].as_str().unwrap();
    assert!(said.starts_with("cannot be read: "), "{said}");
    let (lifecycle, issues) = state(&vaxel, "far");
    assert_eq!(
        (&lifecycle, &issues[0]["path"]),
        (&json!("error"), &json!("spec.replicas"))
    );
    let id = get(&vaxel, "/api/v1/services/broken")["id"].clone();
    let by_id = get(
        &vaxel,
        &format!("/api/v1/services/{}", id.as_str().unwrap()),
    );
    assert_eq!(by_id["name"], "broken");
    let shown = vaxel.ok(&["service", "show", "far"]);
    assert!(shown.contains("spec.replicas"), "{shown}");
    let refused = vaxel.cli(&["call", "far__echo", "--arg", "message=x"]);
    assert!(!refused.status.success());

    // What cannot be read is exported by nobody, and stays what it was when it is stopped and started.
    let exported = vaxel.cli(&["export"]);
    assert!(
        !exported.status.success() && text(&exported).contains("broken"),
        "{}",
        text(&exported)
    );
    vaxel.ok(&["service", "stop", "broken"]);
    vaxel.ok(&["service", "start", "broken"]);
    wait_for("it to be in error again", || {
        state(&vaxel, "broken").0 == "error"
    });

    // An update mends the one, the way back the other.
    let door = Door::of(&vaxel);
    let draft = json!({ "name": "broken", "spec": { "source": { "builtin": "demo" } } });
    let (status, body) = door
        .ask("PUT", "/api/v1/services/broken", Some(&draft))
        .unwrap();
    assert_eq!(status, 200, "{body}");
    wait_for("it to be mended", || calls(&vaxel, "broken"));
    assert_eq!(state(&vaxel, "broken"), (json!("active"), Value::Null));
    vaxel.ok(&["service", "rollback", "far", "1"]);
    wait_for("it to be back", || calls(&vaxel, "far"));
    vaxel.ok(&["export"]);
}

#[test]
fn a_service_that_cannot_be_read_can_be_removed() {
    let mut vaxel = start();
    spoil(
        &mut vaxel,
        &["UPDATE services SET spec = 'x', tags = '[' WHERE name = 'broken'"],
    );
    let (lifecycle, issues) = state(&vaxel, "broken");
    assert_eq!(
        (lifecycle, issues.as_array().unwrap().len()),
        (json!("error"), 2)
    );
    vaxel.ok(&["service", "rm", "broken"]);
    assert_eq!(
        get(&vaxel, "/api/v1/services?state=error")["items"],
        json!([])
    );
    vaxel.ok(&["service", "purge", "broken"]);
}

#[test]
fn a_spec_of_a_newer_format_is_an_issue_and_stays_untouched() {
    let mut vaxel = start();
    spoil(
        &mut vaxel,
        &["UPDATE services SET spec = '{\"format\":9,\"novel\":1}' WHERE name = 'broken'"],
    );
    let (lifecycle, issues) = state(&vaxel, "broken");
    assert_eq!(
        (&lifecycle, &issues[0]["path"]),
        (&json!("error"), &json!("spec.format"))
    );
    let said = issues[0]["message"].as_str().unwrap();
    assert!(said.contains("is 9, which a newer Vaxel wrote"), "{said}");
    vaxel.ok(&["service", "stop", "broken"]);
    // Nothing was changed: the row is there as it was.
    spoil(
        &mut vaxel,
        &["UPDATE services SET name = 'same' WHERE spec = '{\"format\":9,\"novel\":1}'"],
    );
    assert_eq!(get(&vaxel, "/api/v1/services/same")["name"], "same");
}

#[test]
fn sets_and_templates_that_are_stored_badly_say_so() {
    let mut vaxel = start();
    let door = Door::of(&vaxel);
    let set = json!({ "name": "work", "services": [{ "service": "good" }] });
    let template = json!({ "name": "mine", "spec": { "source": { "builtin": "demo" } } });
    let newer = json!({ "name": "newer", "spec": { "source": { "builtin": "demo" } } });
    for (path, body) in [
        ("toolsets", &set),
        ("templates", &template),
        ("templates", &newer),
    ] {
        let (status, said) = door
            .ask("POST", &format!("/api/v1/{path}"), Some(body))
            .unwrap();
        assert_eq!(status, 201, "{said}");
        assert_eq!(said["spec"]["format"], Value::Null, "{said}");
    }
    spoil(
        &mut vaxel,
        &[
            "UPDATE toolsets SET services = '[7' WHERE name = 'work'",
            "UPDATE templates SET template = '[]' WHERE name = 'mine'",
            "UPDATE templates SET template = replace(template, '\"format\":1', '\"format\":9') \
             WHERE template LIKE '%\"format\":1%' AND name = 'newer'",
        ],
    );
    let seen = get(&vaxel, "/api/v1/templates/newer");
    assert_eq!(seen["problems"][0]["path"], "spec.format", "{seen}");
    let seen = get(&vaxel, "/api/v1/toolsets");
    assert_eq!(seen["items"][0]["issues"][0]["path"], "services", "{seen}");
    let seen = get(&vaxel, "/api/v1/templates/mine");
    assert_eq!(seen["problems"].as_array().unwrap().len(), 1, "{seen}");
    let door = Door::of(&vaxel);
    let made = json!({ "name": "made", "extends": { "template": "mine" } });
    let (status, said) = door.ask("POST", "/api/v1/services", Some(&made)).unwrap();
    assert_eq!(status, 422, "{said}");
    for (path, body) in [("toolsets/work", &set), ("templates/mine", &template)] {
        let path = format!("/api/v1/{path}");
        let (status, said) = door.ask("PUT", &path, Some(body)).unwrap();
        assert_eq!(status, 200, "{said}");
        let seen = get(&vaxel, &path);
        assert_eq!(seen["issues"], Value::Null, "{seen}");
    }
}

#[test]
fn a_policy_that_cannot_be_read_denies_everything_until_it_is_written_anew_or_removed() {
    let mut vaxel = start();
    vaxel.ok(&["policy", "add", "calm", "--deny", "--tool", "delete_*"]);
    vaxel.ok(&["policy", "add", "other", "--deny", "--tool", "write_*"]);
    wait_for("the good one to be ready", || calls(&vaxel, "good"));
    spoil(
        &mut vaxel,
        &["UPDATE policies SET policy = '{\"na' WHERE name IN ('calm', 'other')"],
    );
    assert!(!calls(&vaxel, "good"));
    let seen = get(&vaxel, "/api/v1/policies/calm");
    let said = seen["issues"][0]["message"].as_str().unwrap();
    assert!(
        said.starts_with("the stored policy cannot be read: "),
        "{said}"
    );
    let listed = vaxel.ok(&["policy", "ls"]);
    assert_eq!(listed.matches("(cannot be read)").count(), 2, "{listed}");

    let calm = json!({ "name": "calm", "effect": "deny", "tools": ["delete_*"] });
    let door = Door::of(&vaxel);
    let (status, said) = door
        .ask("PUT", "/api/v1/policies/calm", Some(&calm))
        .unwrap();
    assert_eq!((status, &said["issues"]), (200, &Value::Null), "{said}");
    assert!(!calls(&vaxel, "good"), "the other one still denies");
    vaxel.ok(&["policy", "rm", "other"]);
    wait_for("what it denied to be allowed", || calls(&vaxel, "good"));
}

#[test]
fn rows_of_which_nothing_can_be_said_are_named_in_the_status_and_harm_no_others() {
    let mut vaxel = start();
    let door = Door::of(&vaxel);
    let set = json!({ "name": "work", "services": [{ "service": "good" }] });
    let template = json!({ "name": "mine", "spec": { "source": { "builtin": "demo" } } });
    for (list, body) in [("toolsets", &set), ("templates", &template)] {
        let path = format!("/api/v1/{list}");
        let (status, said) = door.ask("POST", &path, Some(body)).unwrap();
        assert_eq!(status, 201, "{said}");
    }
    vaxel.ok(&["role", "add", "analyst", "mcp:read"]);
    vaxel.ok(&["user", "add", "anna", "--role", "analyst"]);
    vaxel.ok(&["grant", "add", "good", "--user", "anna"]);
    spoil(
        &mut vaxel,
        &[
            "UPDATE services SET id = 'x' WHERE name = 'broken'",
            "UPDATE toolsets SET id = 'x' WHERE name = 'work'",
            "UPDATE templates SET name = 'No Name' WHERE name = 'mine'",
            "UPDATE roles SET permissions = '[' WHERE name = 'analyst'",
            "UPDATE users SET kind = 'x' WHERE name = 'anna'",
            "UPDATE grants SET permissions = '[' WHERE grantee = 'user:anna'",
        ],
    );
    wait_for("the good one to be ready", || calls(&vaxel, "good"));
    for list in ["services", "toolsets", "templates", "roles", "users"] {
        get(&vaxel, &format!("/api/v1/{list}"));
    }
    let status = get(&vaxel, "/api/v1/status");
    let left_out = status["left_out"].as_array().unwrap();
    let about = |what: &str| {
        let what = format!("the {what}");
        let mut all = left_out.iter().filter_map(Value::as_str);
        all.any(|said| said.starts_with(&what))
    };
    for what in [
        "service `broken`",
        "set `work`",
        "template `No Name`",
        "role `analyst`",
        "user `anna`",
        "grant ",
    ] {
        assert!(about(what), "{what}: {status}");
    }
    let examined = text(&vaxel.cli(&["doctor"]));
    assert!(examined.contains("service `broken`"), "{examined}");
}
