//! Many services in one document: out of one Vaxel, into another, and again.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};

use crate::harness::{Door, TestVaxel, text};

/// Services of every source with about everything that can be said of them.
fn furnish(vaxel: &TestVaxel) {
    let door = Door::of(vaxel);
    let services = [
        json!({"name": "db", "tags": ["team-a"], "spec": {"source": {"builtin": "demo"}}}),
        json!({
            "name": "files", "tags": ["team-a", "disk"], "environment": "prod",
            "spec": {
                "title": "File System", "description": "Costs $5, ${nothing} and $$",
                "source": {"process": {
                    "command": "sh", "args": ["-c", "exec sleep 1000", "${HOME}"],
                    "env": {"TOKEN": "hidden-1", "MODE": "hidden-2"}, "cwd": "/tmp",
                }},
                "replicas": 2, "era": "legacy", "tools": {"allow": [], "deny": ["rm_*"]},
                "validate": "arguments",
                "limits": {"timeout": "7s", "concurrency": 3, "memory": "64MiB"},
                "depends_on": ["db"],
                "health": {"interval": "2m"},
            }
        }),
        json!({
            "name": "web", "enabled": false, "tags": ["yes", "1"],
            "spec": {"source": {"mcp": {
                "url": "http://127.0.0.1:9/mcp", "headers": {"authorization": "hidden-3"},
                "session": "shared",
            }}, "depends_on": ["files"], "lease": "1h"}
        }),
    ];
    for service in services {
        let (status, answer) = door
            .ask("POST", "/api/v1/services", Some(&service))
            .unwrap();
        assert_eq!(status, 201, "{answer}");
    }
    let template = json!({
        "name": "remote", "parameters": {"key": {"type": "secret", "required": true}},
        "spec": {"title": "Costs $$1", "source": {"mcp": {
            "url": "http://127.0.0.1:9/mcp", "headers": {"x-made": "Bearer ${key}"}}}},
    });
    let template_of = json!({
        "name": "made", "enabled": false, "extends": {"template": "remote", "with": {"key": "hidden-4"}},
        "spec": {"limits": {"timeout": "9s"}},
    });
    let shop = json!({"name": "shop", "enabled": false, "spec": {"source": {"http": {
        "instances": [{"host": "127.0.0.1", "port": 9, "weight": 3}],
        "tools": [{"name": "buy", "description": "Buys"}]}}}});
    for (path, body) in [
        ("templates", template),
        ("services", template_of),
        ("services", shop),
    ] {
        let (status, answer) = door
            .ask("POST", &format!("/api/v1/{path}"), Some(&body))
            .unwrap();
        assert_eq!(status, 201, "{answer}");
    }
    vaxel.ok(&["set", "add", "work", "files", "--tool", "files=read_*"]);
}

/// What is wanted of everything, with the names of sealed values instead of their ids.
fn wanted(vaxel: &TestVaxel) -> Value {
    let mut bundle: Value =
        serde_json::from_str(&vaxel.ok(&["export", "--format", "json"])).unwrap();
    for service in bundle["services"].as_array_mut().unwrap() {
        for place in [
            "/spec/source/process/env",
            "/spec/source/mcp/headers",
            "/spec/extends/sealed",
        ] {
            let values = service.pointer_mut(place).and_then(Value::as_object_mut);
            for (_, value) in values.into_iter().flatten() {
                assert!(value.as_str().unwrap().starts_with("secret:"), "{value}");
                *value = Value::Null;
            }
        }
    }
    bundle
}

fn versions(vaxel: &TestVaxel) -> Vec<(String, u64)> {
    let all = vaxel.json(&["ls"]);
    let all = all.as_array().unwrap().iter();
    let mut all: Vec<_> = all
        .map(|one| {
            (
                one["name"].as_str().unwrap().to_owned(),
                one["version"].as_u64().unwrap(),
            )
        })
        .collect();
    all.sort();
    all
}

/// The text with variables in the place of references to sealed values, by the key before them.
fn with_variables(document: &str) -> String {
    let line = |line: &str| match line.split_once("secret:") {
        Some((before, after)) => {
            let key: String = before.chars().filter(char::is_ascii_alphabetic).collect();
            // What ends a text in JSON stays.
            let end = after.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '-');
            format!("{before}${{SECRET_{}}}{end}", key.to_uppercase())
        }
        None => line.to_owned(),
    };
    document.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn apply(vaxel: &TestVaxel, args: &[&str]) -> Output {
    let all = [&["apply"], args].concat();
    let mut command = vaxel.command(&all);
    for (name, value) in [
        ("SECRET_TOKEN", "hidden-1"),
        ("SECRET_MODE", "hidden-2"),
        ("SECRET_AUTHORIZATION", "hidden-3"),
        ("SECRET_KEY", "hidden-4"),
        ("SECRET_XMADE", "Bearer hidden-4"),
    ] {
        command.env(name, value);
    }
    command.output().unwrap()
}

fn write(vaxel: &TestVaxel, name: &str, content: &str) -> String {
    let file = vaxel.home.path().join(name);
    fs::write(&file, content).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn what_is_exported_makes_the_same_services_elsewhere_and_changes_nothing_again() {
    let here = TestVaxel::start();
    furnish(&here);
    let before = versions(&here);
    let exported = here.ok(&["export"]);
    assert!(!exported.contains("hidden-"), "{exported}");
    assert_eq!(exported, here.ok(&["export"]), "the same each time");
    let file = write(&here, "all.yaml", &exported);
    let again = apply(&here, &["-f", &file]);
    assert!(
        text(&again).contains("0 created, 0 updated, 0 removed, 7 as they were"),
        "{}",
        text(&again)
    );
    assert_eq!(versions(&here), before);

    let there = TestVaxel::start();
    let refused = apply(&there, &["-f", &file]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("5 problems, nothing was written"), "{said}");
    for place in [
        "process.env.TOKEN",
        "process.env.MODE",
        "mcp.headers.authorization",
        "spec.extends.sealed.key",
    ] {
        let line = said.lines().find(|line| line.contains(place)).unwrap();
        assert!(
            line.contains("all.yaml: services[") && line.contains("not here"),
            "{line}"
        );
    }
    assert_eq!(versions(&there), []);

    let file = write(&here, "all.yaml", &with_variables(&exported));
    let missing = text(&there.cli(&["apply", "-f", &file]));
    for name in ["SECRET_TOKEN", "SECRET_MODE", "SECRET_AUTHORIZATION"] {
        assert!(
            missing.contains(&format!("`${{{name}}}` is not set")),
            "{missing}"
        );
    }
    let dry = text(&apply(&there, &["-f", &file, "--dry-run"]));
    assert!(
        dry.contains("7 to create") && !dry.contains("hidden-"),
        "{dry}"
    );
    assert_eq!(versions(&there), []);
    let made = text(&apply(&there, &["-f", &file, "-m", "moved here"]));
    assert!(made.contains("7 created, 0 updated, 0 removed"), "{made}");
    let place = |name: &str| made.find(&format!("+ service {name}\n")).unwrap();
    assert!(
        place("db") < place("files") && place("files") < place("web"),
        "{made}"
    );
    assert_eq!(wanted(&there), wanted(&here));
    let history = there.ok(&["service", "history", "files"]);
    assert!(history.contains("moved here"), "{history}");

    // The values that it says in clear are those that are sealed already.
    let made = versions(&there);
    let again = text(&apply(&there, &["-f", &file]));
    assert!(again.contains("7 as they were"), "{again}");
    assert_eq!(versions(&there), made);
    let other = fs::read_to_string(&file)
        .unwrap()
        .replace("${SECRET_MODE}", "another");
    let changed = text(&apply(&there, &["-f", &write(&here, "all.yaml", &other)]));
    assert!(
        changed.contains("env.MODE: \"secret:") && changed.contains("→ \"***\""),
        "{changed}"
    );
    assert!(changed.contains("0 created, 1 updated"), "{changed}");
    assert!(!changed.contains("env.TOKEN"), "{changed}");
}

#[test]
fn a_folder_in_the_layout_of_the_registry_before_comes_back_as_it_was() {
    let here = TestVaxel::start();
    furnish(&here);
    here.ok(&["service", "rm", "web"]);
    let folder = here.home.path().join("services");
    let place = folder.to_str().unwrap();
    here.ok(&["export", "--folder", place]);
    let names = |below: &str| {
        let all = fs::read_dir(folder.join(below)).unwrap();
        let mut all: Vec<String> = all
            .map(|one| one.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    };
    assert_eq!((names("active").len(), names("archive").len()), (5, 1));
    assert_eq!(names("sets"), ["work.json"]);
    assert_eq!(names("templates"), ["remote.json"]);
    let read = |file: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    };
    let index = read(&folder.join("active/index.json"));
    let files = &index["services"][1];
    assert_eq!(
        (&files["service_name"], &files["name"]),
        (&json!("files"), &json!("File System"))
    );
    let one = read(&folder.join("active").join(files["file"].as_str().unwrap()));
    assert_eq!(
        (&one["type"], &one["hosting_mode"]),
        (&json!("executable"), &json!("stdio"))
    );

    let same = text(&apply(&here, &["-f", place]));
    assert!(
        same.contains("0 created, 0 updated, 0 removed, 6 as they were"),
        "{same}"
    );
    for file in names("active") {
        let file = folder.join("active").join(file);
        let content = fs::read_to_string(&file).unwrap();
        assert!(!content.contains("hidden-"), "{content}");
        fs::write(&file, with_variables(&content)).unwrap();
    }
    let there = TestVaxel::start();
    let made = text(&apply(&there, &["-f", place]));
    assert!(made.contains("6 created"), "{made}");
    assert_eq!(wanted(&there), wanted(&here));

    // What is gone is gone from the folder, and what somebody else put there stays.
    let own = folder.join("active/own.json");
    fs::write(&own, "{}").unwrap();
    here.ok(&["service", "rm", "files"]);
    here.ok(&["set", "rm", "work"]);
    here.ok(&["export", "--folder", place]);
    assert_eq!(
        (
            names("active").len(),
            names("archive").len(),
            names("sets").len()
        ),
        (5, 2, 0)
    );
    assert!(own.exists());
}

#[test]
fn only_services_with_the_tag_that_the_files_do_not_hold_are_removed() {
    let vaxel = TestVaxel::start();
    furnish(&vaxel);
    let demo =
        |name: &str| format!("name: {name}\ntags: [team-a]\nspec: {{source: {{builtin: demo}}}}\n");
    let file = write(
        &vaxel,
        "a.yaml",
        &format!("{}---\n{}", demo("db"), demo("new")),
    );
    let before = versions(&vaxel);
    let prune = ["-f", &file, "--prune", "--tag", "team-a"];
    let dry = text(&apply(&vaxel, &[&prune[..], &["--dry-run"]].concat()));
    for line in ["+ service new", "- service files"] {
        assert!(dry.contains(line), "{line}\n{dry}");
    }
    assert_eq!(versions(&vaxel), before, "a dry run writes nothing");
    let done = text(&apply(&vaxel, &prune));
    assert!(
        done.contains("1 created, 0 updated, 1 removed, 1 as they were"),
        "{done}"
    );
    let left: Vec<String> = versions(&vaxel).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["db", "made", "new", "shop", "web"]);
    vaxel.ok(&["service", "restore", "files"]);
    let without_tag = apply(&vaxel, &["-f", &file, "--prune"]);
    assert_eq!(without_tag.status.code(), Some(2));
    let nothing = text(&vaxel.with_input(
        &["apply", "-f", "-", "--prune", "--tag", "team-a"],
        "# nothing\n",
    ));
    assert!(nothing.contains("no service and no set"), "{nothing}");
}

#[test]
fn every_problem_of_every_file_is_named_and_nothing_is_written() {
    let vaxel = TestVaxel::start();
    let service = |name: &str, needs: &str| {
        format!("name: {name}\nspec: {{source: {{builtin: demo}}, depends_on: [{needs}]}}\n")
    };
    let folder = vaxel.home.path().join("git");
    fs::create_dir(&folder).unwrap();
    let circle = format!(
        "{}---\n{}---\n{}",
        service("a", "b"),
        service("b", "c"),
        service("c", "a")
    );
    fs::write(folder.join("circle.yaml"), circle).unwrap();
    fs::write(
        folder.join("twice.yml"),
        format!("{}---\nname: x\nspec: {{source: {{}}}}\n", service("a", "")),
    )
    .unwrap();
    fs::write(
        folder.join("broken.yaml"),
        "name: d\nspec:\n  source: {builtin: demo\n",
    )
    .unwrap();
    fs::write(
        folder.join("broken.json"),
        "{\"name\": \"e\",\n \"spec\": }",
    )
    .unwrap();
    fs::write(
        folder.join("clients.json"),
        r#"{"mcpServers": {"f": {"command": "${NONE}"}, "g": {}}}"#,
    )
    .unwrap();
    fs::write(folder.join("notes.txt"), "not read").unwrap();
    let refused = apply(&vaxel, &["-f", folder.to_str().unwrap()]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for (file, part) in [
        ("circle.yaml, document 1: spec.depends_on", "a → b → c → a"),
        ("twice.yml, document 1: name", "`a` stands at"),
        (
            "twice.yml, document 1: name",
            "circle.yaml, document 1 as well",
        ),
        ("twice.yml, document 2: spec.source", "exactly one"),
        ("broken.yaml", "line "),
        ("broken.json", "line 2 column "),
        ("clients.json: mcpServers.f.command", "`${NONE}` is not set"),
        (
            "clients.json: mcpServers.g",
            "neither a `command` nor a `url`",
        ),
    ] {
        let line = said
            .lines()
            .find(|line| line.contains(file) && line.contains(part));
        assert!(line.is_some(), "{file}: {part}\n{said}");
    }
    assert_eq!(
        said.matches('→').count(),
        3,
        "the circle is named once: {said}"
    );
    assert_eq!(versions(&vaxel), []);
}
