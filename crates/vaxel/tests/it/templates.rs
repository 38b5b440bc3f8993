//! Templates from the command line to a real program.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{TestVaxel, echo_server, text, tools, wait_for};

/// Writes a template and adds it.
fn add(vaxel: &TestVaxel, template: &Value) {
    let file = vaxel.home.path().join("template.json");
    fs::write(&file, template.to_string()).unwrap();
    vaxel.ok(&["template", "add", &file.display().to_string()]);
}

/// Where the values of a service came from, by path.
fn origins(vaxel: &TestVaxel, name: &str) -> impl Fn(&str) -> (Value, String) {
    let config = vaxel.json(&["service", "config", name]);
    move |path: &str| {
        let all = config.as_object().unwrap().values();
        let mut all = all.flat_map(|group| group.as_array().unwrap());
        let found = all.find(|one| one["path"] == path);
        let found = found.unwrap_or_else(|| panic!("{path} in {config}"));
        (
            found["value"].clone(),
            found["from"].as_str().unwrap().to_owned(),
        )
    }
}

/// A clock, one for a Swedish city, and one for an office there.
fn add_three_levels(vaxel: &TestVaxel, python: &str) {
    let clock = json!({
        "name": "clock", "description": "A clock",
        "parameters": {
            "python": { "type": "path", "required": true },
            "zone": { "type": "string", "default": "Etc/UTC", "pattern": "[A-Za-z/]+" },
            "token": { "type": "secret" },
        },
        "spec": {
            "source": { "process": {
                "command": "${python}", "args": ["-m", "mcp_server_time", "--local-timezone=${zone}"],
                "env": { "TOKEN": "${token}" },
            } },
            "limits": { "timeout": "10s", "concurrency": 4 }, "validate": "none",
        },
    });
    let with = json!({ "python": python, "zone": "Europe/${city}" });
    let swedish = json!({
        "name": "swedish-clock", "extends": { "template": "clock", "with": with },
        "parameters": { "city": { "type": "string", "required": true } },
        "spec": { "description": "The time in ${city}", "limits": { "timeout": "20s" } },
    });
    let with = json!({ "city": "Stockholm" });
    let office = json!({
        "name": "office-clock", "extends": { "template": "swedish-clock", "with": with },
        "spec": { "validate": "arguments", "limits": { "concurrency": 8 } },
    });
    for template in [clock, swedish, office] {
        add(vaxel, &template);
    }
}

#[test]
fn three_levels_of_templates_make_a_running_service_whose_values_know_their_level() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start();
    let python = tools.join("py/bin/python").display().to_string();
    add_three_levels(&vaxel, &python);
    let planted = "planted-c0ffee1234";
    let token = format!("token={planted}");
    let from = ["--template", "office-clock", "--set", &token];
    let own = ["--replicas", "2", "--tag", "office"];
    vaxel.ok(&[&["service", "add", "time"][..], &from, &own].concat());
    let now = [
        "call",
        "time__get_current_time",
        "--arg",
        "timezone=Europe/Stockholm",
    ];
    assert!(vaxel.ok(&now).contains("Europe/Stockholm"));

    let from = origins(&vaxel, "time");
    let args = json!(["-m", "mcp_server_time", "--local-timezone=Europe/Stockholm"]);
    for (path, value, origin) in [
        ("source.process.command", json!(python), "template:clock"),
        ("source.process.args", args, "template:clock"),
        (
            "description",
            json!("The time in Stockholm"),
            "template:swedish-clock",
        ),
        ("limits.timeout", json!("20s"), "template:swedish-clock"),
        ("limits.concurrency", json!(8), "template:office-clock"),
        ("validate", json!("arguments"), "template:office-clock"),
        ("replicas", json!(2), "own"),
        ("era", json!("auto"), "default"),
    ] {
        assert_eq!(from(path), (value, origin.to_owned()), "{path}");
    }
    let table = vaxel.ok(&["service", "config", "time"]);
    assert!(table.contains("template:swedish-clock"), "{table}");

    // A change of a template waits until someone asks for it.
    edit(&vaxel, "swedish-clock", |template| {
        template["spec"]["limits"]["timeout"] = json!("30s");
    });
    let service = vaxel.json(&["service", "show", "time"]);
    assert_eq!(service["behind"], true);
    assert_eq!(service["spec"]["limits"]["timeout"], "20s");
    vaxel.ok(&["service", "refresh", "time"]);
    let service = vaxel.json(&["service", "show", "time"]);
    assert!(service["behind"].is_null(), "{service}");
    assert_eq!(service["spec"]["limits"]["timeout"], "30s");
    assert_eq!(
        (&service["revision"], &service["own"]),
        (&json!(2), &json!({ "replicas": 2 }))
    );
    assert!(!service.to_string().contains(planted));
    wait_for("the new revision to answer", || {
        vaxel.cli(&now).status.success()
    });
}

/// Changes a template as its owner would in an editor.
fn edit(vaxel: &TestVaxel, name: &str, change: impl FnOnce(&mut Value)) {
    let mut template = vaxel.json(&["template", "show", name]);
    change(&mut template);
    let keys = ["name", "parameters", "extends", "spec"];
    let text: serde_json::Map<_, _> = keys
        .iter()
        .map(|key| ((*key).to_owned(), template[*key].clone()))
        .collect();
    let text = Value::Object(text).to_string();
    let new = vaxel.home.path().join("new.json");
    fs::write(&new, text).unwrap();
    let mut command = vaxel.command(&["template", "edit", name]);
    command.env("EDITOR", format!("cp {}", new.display()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", crate::harness::text(&output));
}

#[test]
fn a_template_is_shown_copied_refused_and_removed() {
    let vaxel = TestVaxel::start();
    let script = echo_server(vaxel.home.path()).display().to_string();
    let list = vaxel.ok(&["template", "ls"]);
    for name in [
        "filesystem",
        "memory",
        "git",
        "time",
        "fetch",
        "postgres",
        "everything",
        "http",
    ] {
        assert!(list.contains(name), "{name} in\n{list}");
    }
    // What is shown can be added under another name.
    let shown = vaxel.ok(&["template", "show", "filesystem"]);
    let added = vaxel.with_input(
        &["template", "add", "--name", "mine", "--approve", "-"],
        &shown,
    );
    assert!(added.status.success(), "{}", text(&added));
    let mine = vaxel.json(&["template", "show", "mine"]);
    assert_eq!(
        (&mine["approved"], &mine["builtin"]),
        (&json!(true), &json!(false))
    );

    let yaml = format!(
        "name: echo\nparameters:\n  words: {{ type: integer, min: 1, default: 1 }}\n  loud: {{ type: boolean, default: false }}\n  folder: {{ type: path }}\n\
         spec:\n  source:\n    process:\n      command: python3\n      args: ['{script}']\n      env: {{ WORDS: '${{words}}', LOUD: 'is ${{loud}}', FOLDER: '${{folder}}' }}\n"
    );
    let added = vaxel.with_input(&["template", "add", "-"], &yaml);
    assert!(added.status.success(), "{}", text(&added));
    let refused = vaxel.cli(&[
        "service",
        "add",
        "echo",
        "--template",
        "echo",
        "--set",
        "words=0",
        "--set",
        "loud=very",
        "--set",
        "word=1",
    ]);
    assert_eq!(refused.status.code(), Some(1));
    for line in [
        "parameters.words: 0 is not 1 or more",
        "parameters.loud: must be true or false",
        "parameters.word: is no parameter of `echo`; did you mean `words`?",
    ] {
        assert!(
            text(&refused).contains(line),
            "{line} in\n{}",
            text(&refused)
        );
    }
    vaxel.ok(&[
        "service",
        "add",
        "echo",
        "--template",
        "echo",
        "--set",
        "words=3",
        "--set",
        "loud=true",
        "--set",
        "folder=.",
        "--env",
        "OWN=1",
    ]);
    let env = |name: &str| vaxel.ok(&["call", "echo__env", "--arg", &format!("text={name}")]);
    assert_eq!(
        (env("WORDS").trim(), env("LOUD").trim(), env("OWN").trim()),
        ("3", "is true", "1")
    );
    assert!(env("FOLDER").starts_with('/'));

    vaxel.ok(&["template", "rm", "echo", "mine"]);
    let gone = vaxel.cli(&["template", "show", "mine"]);
    assert_eq!(gone.status.code(), Some(4), "{}", text(&gone));
    let fixed = vaxel.cli(&["template", "rm", "filesystem"]);
    assert!(
        text(&fixed).contains("is part of Vaxel"),
        "{}",
        text(&fixed)
    );
    // The service stays, and says that its template is another one.
    assert_eq!(vaxel.json(&["service", "show", "echo"])["behind"], true);
    let schema: Value = serde_json::from_str(&vaxel.ok(&["service", "schema"])).unwrap();
    assert_eq!(schema["$id"], "/api/v1/schemas/service");
}
