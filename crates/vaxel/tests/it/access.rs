//! Users, roles, grants and policies from the command line, and what follows for whoever calls.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use crate::harness::{TestVaxel, text};

impl TestVaxel {
    /// A new key of a user.
    fn key_of(&self, user: &str, more: &[&str]) -> String {
        let name = format!("{user}-key");
        let mut args = vec!["key", "create", &name, "--user", user];
        args.extend(more);
        let key = self.json(&args);
        assert_eq!(key["user"], user, "{key}");
        key["key"].as_str().unwrap().to_owned()
    }

    /// A command of whoever has the key.
    fn with_key(&self, key: &str, args: &[&str]) -> Output {
        let mut all = vec!["--key", key];
        all.extend(args);
        self.cli(&all)
    }

    fn why(&self, args: &[&str]) -> String {
        let mut all = vec!["auth", "why"];
        all.extend(args);
        let said = self.ok(&all);
        said.lines().next().unwrap_or_default().to_owned()
    }
}

#[test]
fn what_a_user_may_do_changes_at_once_and_is_explained() {
    let mut vaxel = TestVaxel::start_with(&["--demo"]);
    vaxel.ok(&["user", "add", "anna@example.com", "--role", "client"]);
    vaxel.ok(&["user", "add", "otto", "--program", "--role", "user"]);
    let anna = vaxel.key_of("anna@example.com", &[]);
    let who = text(&vaxel.with_key(&anna, &["whoami"]));
    for part in ["anna@example.com", "person", "client", "mcp:execute"] {
        assert!(who.contains(part), "{who}");
    }
    let echo = ["call", "demo__echo", "--arg", "message=hello"];
    let said = vaxel.with_key(&anna, &echo);
    assert!(said.status.success(), "{}", text(&said));

    // What is denied stays denied, whatever a role says.
    vaxel.ok(&[
        "policy",
        "add",
        "quiet",
        "--deny",
        "--tool",
        "echo",
        "--user",
        "anna@example.com",
    ]);
    let asked = ["anna@example.com", "mcp:execute", "demo", "echo"];
    let because = vaxel.why(&asked);
    assert_eq!(because, "no: the policy `quiet` denies it");
    let refused = vaxel.with_key(&anna, &echo);
    assert!(!refused.status.success(), "{}", text(&refused));
    vaxel.ok(&["policy", "rm", "quiet"]);
    assert_eq!(vaxel.why(&asked), "yes: the role `client` allows it");
    assert!(vaxel.with_key(&anna, &echo).status.success());

    // What is shared is allowed of that service.
    let asked = ["otto", "mcp:execute", "demo"];
    assert_eq!(vaxel.why(&asked), "no: nothing allows `mcp:execute`");
    vaxel.ok(&["grant", "add", "demo", "--user", "otto"]);
    assert_eq!(vaxel.why(&asked), "yes: it was granted");
    let grants = vaxel.json(&["grant", "ls"]);
    assert_eq!(grants[0]["to"], "user:otto");
    let id = grants[0]["id"].as_str().unwrap();
    vaxel.ok(&["grant", "rm", id]);
    assert_eq!(vaxel.why(&asked), "no: nothing allows `mcp:execute`");

    vaxel.ok(&["user", "edit", "anna@example.com", "--state", "disabled"]);
    let refused = vaxel.with_key(&anna, &["whoami"]);
    assert!(!refused.status.success());
    let refused = text(&refused);
    assert!(
        refused.contains("the user `anna@example.com` is disabled"),
        "{refused}"
    );
    vaxel.kill();
    vaxel.launch();
    let refused = text(&vaxel.with_key(&anna, &["whoami"]));
    assert!(
        refused.contains("is disabled"),
        "also after a restart: {refused}"
    );
    vaxel.ok(&["user", "edit", "anna@example.com", "--state", "enabled"]);
    assert!(vaxel.with_key(&anna, &["whoami"]).status.success());
    vaxel.ok(&["user", "rm", "anna@example.com", "--transfer-to", "otto"]);
    let refused = text(&vaxel.with_key(&anna, &["whoami"]));
    assert!(refused.contains("was revoked"), "{refused}");
}

#[test]
fn roles_and_policies_are_listed_shown_edited_and_removed() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    vaxel.ok(&["role", "add", "analyst", "mcp:read", "mcp:execute:own"]);
    let table = vaxel.ok(&["role", "ls"]);
    for part in ["admin", "everything", "analyst", "mcp:execute:own"] {
        assert!(table.contains(part), "{table}");
    }
    let editor = vaxel.home.path().join("editor");
    fs::write(
        &editor,
        "#!/bin/sh\nsed -i 's/mcp:execute:own/mcp:write:own/; s/deny/allow/' \"$1\"\n",
    )
    .unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o700)).unwrap();
    let edit = |args: &[&str]| {
        let edited = vaxel.command(args).env("EDITOR", &editor).output().unwrap();
        assert!(text(&edited).contains("Changed"), "{}", text(&edited));
    };
    edit(&["role", "edit", "analyst"]);
    let role = vaxel.json(&["role", "show", "analyst"]);
    assert_eq!(
        role["permissions"],
        serde_json::json!(["mcp:read", "mcp:write:own"])
    );
    vaxel.ok(&[
        "policy",
        "add",
        "time",
        "--deny",
        "--role",
        "analyst",
        "--service",
        "t*",
        "--when",
        "time.hour < 8",
    ]);
    let table = vaxel.ok(&["policy", "ls"]);
    for part in [
        "time",
        "deny",
        "roles: analyst",
        "services: t*",
        "time.hour < 8",
    ] {
        assert!(table.contains(part), "{table}");
    }
    edit(&["policy", "edit", "time"]);
    assert_eq!(vaxel.json(&["policy", "show", "time"])["effect"], "allow");
    let refused = vaxel.cli(&["role", "rm", "analyst"]);
    assert!(
        text(&refused).contains("policy `time`"),
        "{}",
        text(&refused)
    );
    vaxel.ok(&["policy", "rm", "time"]);
    vaxel.ok(&["role", "rm", "analyst"]);
    let gone = vaxel.cli(&["role", "show", "analyst"]);
    assert_eq!(gone.status.code(), Some(4), "{}", text(&gone));
    let users = vaxel.ok(&["user", "ls"]);
    assert!(
        users.contains("admin") && users.contains("person"),
        "{users}"
    );
    let built_in = vaxel.cli(&["role", "rm", "admin"]);
    assert!(text(&built_in).contains("built in"), "{}", text(&built_in));
    let limited = vaxel.key_of("admin", &["--service", "db-*", "--environment", "test"]);
    let who = text(&vaxel.with_key(&limited, &["whoami"]));
    assert!(who.contains("db-*") && who.contains("test"), "{who}");
    let keys = vaxel.ok(&["key", "ls"]);
    assert!(
        keys.contains("services: db-*; environments: test"),
        "{keys}"
    );
}
