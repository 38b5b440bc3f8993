//! Services from templates: what is stored, who may, and what a change of a template does.

use serde_json::{Value, json};
use vaxel_control::{Change, Observed};
use vaxel_core::{
    failure::{Failure, Kind},
    lifecycle::Lifecycle,
    principal::{Permission, Permissions, Principal},
    service::{ServiceDraft, Source},
    template::Template,
};

use crate::home::{Home, everything_in, folder, open, reference};

const PLANTED: &str = "planted-5e884898da280471";

fn someone(permissions: &[Permission]) -> Principal {
    Principal {
        permissions: Permissions::of(permissions),
        name: "someone".into(),
        ..Principal::system()
    }
}

fn writer() -> Principal {
    someone(&[Permission::McpRead, Permission::McpWrite])
}

fn manager() -> Principal {
    someone(&[
        Permission::McpRead,
        Permission::McpWrite,
        Permission::McpManage,
    ])
}

fn text(value: &Value) -> Box<Template> {
    Box::new(Template::from_json(value).unwrap())
}

/// The scripted server, with a folder and a secret in its environment.
fn scripted_template(name: &str) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bin/server.py");
    json!({
        "name": name,
        "parameters": {
            "mode": { "type": "string", "default": "ok" },
            "greeting": { "type": "string", "default": "hello" },
            "token": { "type": "secret" },
        },
        "spec": { "source": { "process": {
            "command": "python3", "args": [script, "${mode}"],
            "env": { "TOKEN": "${token}", "GREETING": "${greeting}" },
        } } },
    })
}

async fn by(home: &Home, who: &Principal, change: Change) -> Result<(), Failure> {
    home.control.submit(who, change).await.map(drop)
}

async fn make(home: &Home, template: &Value) {
    let change = Change::CreateTemplate(text(template));
    by(home, &home.admin, change).await.unwrap();
}

async fn remake(home: &Home, who: &Principal, template: &Value) -> Result<(), Failure> {
    let change = Change::UpdateTemplate {
        name: template["name"].as_str().unwrap().to_owned(),
        template: text(template),
        expected: None,
    };
    by(home, who, change).await
}

fn from_template(name: &str, template: &str, with: Value) -> Value {
    let mut extends = json!({ "template": template });
    extends["with"] = with;
    json!({ "name": name, "extends": extends })
}

async fn create(home: &Home, who: &Principal, draft: &Value) -> Result<Observed, Failure> {
    let change = Change::create(draft)?;
    home.control.submit(who, change).await?.into_service()
}

async fn update(home: &Home, who: &Principal, draft: &Value) -> Result<Observed, Failure> {
    let name = draft["name"].as_str().unwrap();
    let change = Change::update(reference(name), draft, None)?;
    home.control.submit(who, change).await?.into_service()
}

async fn refresh(home: &Home, who: &Principal, name: &str) -> Result<Observed, Failure> {
    let change = Change::RefreshService {
        service: reference(name),
        expected: None,
    };
    home.control.submit(who, change).await?.into_service()
}

fn sealed(service: &Observed, name: &str) -> String {
    let extends = service.resource.spec.extends.as_ref().unwrap();
    extends.sealed[name].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_changes_no_running_service_until_someone_asks_for_it() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut template = scripted_template("scripted");
    make(&home, &template).await;
    let mut draft = from_template("files", "scripted", json!({ "token": PLANTED }));
    draft["spec"] = json!({ "limits": { "concurrency": 3 } });
    let made = create(&home, &home.admin, &draft).await.unwrap();
    assert!(!made.behind);
    assert!(!format!("{:?}", made.resource).contains(PLANTED));
    home.wait_for("files", Lifecycle::Active).await;
    let env = async |name: &str| {
        home.call("files__env", json!({ "name": name }))
            .await
            .unwrap()
    };
    assert_eq!(
        (env("TOKEN").await, env("GREETING").await),
        (PLANTED.into(), "hello".into())
    );

    template["parameters"]["greeting"]["default"] = json!("good morning");
    template["spec"]["limits"] = json!({ "concurrency": 9, "timeout": "9s" });
    remake(&home, &home.admin, &template).await.unwrap();
    let seen = home.get("files").await;
    assert!(seen.behind);
    assert_eq!(seen.resource, made.resource);
    assert_eq!(env("GREETING").await, "hello");

    let fresh = refresh(&home, &home.admin, "files").await.unwrap();
    assert_eq!((fresh.behind, fresh.resource.revision), (false, 2));
    let limits = &fresh.resource.spec.limits;
    assert_eq!(
        (limits.concurrency, limits.timeout.is_some()),
        (Some(3), true)
    );
    home.wait("files", |status| status.lifecycle == Lifecycle::Active)
        .await;
    let deadline = async {
        while env("GREETING").await != "good morning" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), deadline)
        .await
        .unwrap();
    assert_eq!(env("TOKEN").await, PLANTED);
    // What did not change keeps its reference, and once more changes nothing.
    assert_eq!(sealed(&fresh, "token"), sealed(&made, "token"));
    let Source::Process(process) = &fresh.resource.spec.source else {
        panic!()
    };
    let Source::Process(before) = &made.resource.spec.source else {
        panic!()
    };
    assert_eq!(process.env["TOKEN"], before.env["TOKEN"]);
    let again = refresh(&home, &home.admin, "files").await.unwrap();
    assert_eq!(again.resource, fresh.resource);

    home.control.stop().await;
    let kept = everything_in(folder.path());
    let planted = PLANTED.as_bytes();
    assert!(!kept.windows(planted.len()).any(|window| window == planted));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_enough_to_say_where_each_value_came_from() {
    let folder = folder();
    let home = open(folder.path()).await;
    make(&home, &scripted_template("scripted")).await;
    make(&home, &json!({ "name": "team", "extends": { "template": "scripted", "with": { "token": "${token}" } },
        "parameters": { "token": { "type": "secret", "required": true } }, "spec": { "era": "legacy" } }))
    .await;
    let mut draft = from_template("files", "team", json!({ "token": PLANTED }));
    draft["enabled"] = json!(false);
    draft["spec"] =
        json!({ "description": "mine", "source": { "process": { "env": { "OWN": PLANTED } } } });
    create(&home, &home.admin, &draft).await.unwrap();
    let from = async |path: &str| {
        let all = home
            .control
            .service_config(&home.admin, &reference("files"))
            .await
            .unwrap();
        assert!(!format!("{all:?}").contains(PLANTED));
        let found = all.into_iter().find(|one| one.path == path);
        found.map(|one| one.from.to_string()).unwrap_or_default()
    };
    assert_eq!(from("source.process.command").await, "template:scripted");
    assert_eq!(from("source.process.env.TOKEN").await, "template:scripted");
    assert_eq!(from("era").await, "template:team");
    assert_eq!(from("description").await, "own");
    assert_eq!(from("source.process.env.OWN").await, "own");
    assert_eq!(from("replicas").await, "default");
    // Whoever changes the effective spec overrides.
    let read = home.get("files").await.resource;
    let mut spec = serde_json::to_value(&read.spec).unwrap();
    spec["era"] = json!("modern");
    let edited = update(
        &home,
        &home.admin,
        &json!({ "name": "files", "enabled": false, "spec": spec }),
    )
    .await
    .unwrap();
    assert_eq!(from("era").await, "own");
    let own = edited.resource.spec.own();
    assert_eq!(own["era"], "modern");
    // What it was made from, sent again, gives the same.
    let extends = json!({ "template": "team", "with": { "token": sealed(&edited, "token") } });
    let again = json!({ "name": "files", "enabled": false, "extends": extends, "spec": own });
    let same = update(&home, &home.admin, &again).await.unwrap();
    assert_eq!(same.resource.spec, edited.resource.spec);
    assert_eq!(same.resource.revision, 2);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_permission_only_approved_templates_start_programs_and_nothing_of_them_is_changed()
 {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut template = scripted_template("scripted");
    make(&home, &template).await;
    let writer = writer();
    let refused = async |draft: &Value| {
        let failure = create(&home, &writer, draft).await.unwrap_err();
        assert_eq!(failure.kind, Kind::NotPermitted, "{failure}");
        failure.detail.into_owned()
    };
    let plain = from_template("files", "scripted", json!({ "token": PLANTED }));
    assert!(refused(&plain).await.contains("not approved: `scripted`"));
    let own_program = from_template("files", "filesystem", json!({ "root": "/" }));
    assert!(
        refused(&own_program)
            .await
            .contains("not approved: `filesystem`")
    );

    template["approved"] = json!(true);
    remake(&home, &home.admin, &template).await.unwrap();
    for own in [
        json!({ "source": { "process": { "env": { "LD_PRELOAD": "/x" } } } }),
        json!({ "source": { "process": { "args": null } } }),
        json!({ "source": { "process": { "command": "sh" } } }),
    ] {
        let mut draft = plain.clone();
        draft["spec"] = own;
        assert!(refused(&draft).await.contains("changes the `source`"));
    }
    // An approved one over one that is not, is not.
    make(
        &home,
        &json!({ "name": "open", "spec": template["spec"], "parameters": template["parameters"] }),
    )
    .await;
    make(
        &home,
        &json!({ "name": "above", "extends": "open", "approved": true }),
    )
    .await;
    let over = from_template("files", "above", json!({}));
    assert!(refused(&over).await.contains("not approved: `open`"));
    // One over what is part of the binary is.
    make(&home, &json!({ "name": "tmp", "approved": true, "extends": { "template": "filesystem", "with": { "root": "/tmp" } } })).await;
    let mut fixed = from_template("tmp", "tmp", json!({}));
    fixed["enabled"] = json!(false);
    create(&home, &writer, &fixed).await.unwrap();
    // By hand it is a program as any other, whatever is said about where it came from.
    let made = home.get("tmp").await.resource.spec;
    let forged = json!({ "name": "forged", "spec": made });
    assert!(refused(&forged).await.contains("host:execute"));

    let mut allowed = plain.clone();
    allowed["spec"] = json!({ "limits": { "concurrency": 2 } });
    let made = create(&home, &writer, &allowed).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let token = sealed(&made, "token");

    // What is sealed stays where it was meant to go.
    let change = async |draft: Value| update(&home, &writer, &draft).await;
    let kept = change(from_template(
        "files",
        "scripted",
        json!({ "token": token }),
    ))
    .await
    .unwrap();
    assert_eq!(sealed(&kept, "token"), token);
    let moved = from_template(
        "files",
        "scripted",
        json!({ "token": token, "greeting": "x" }),
    );
    let failure = change(moved).await.unwrap_err();
    assert!(
        failure.detail.contains("keeps sealed parameters"),
        "{failure}"
    );
    let abused = from_template("files", "scripted", json!({ "greeting": token }));
    let failure = change(abused).await.unwrap_err();
    assert_eq!(failure.issues[0].path, "parameters.greeting");
    let elsewhere = from_template("other", "scripted", json!({ "token": token }));
    let other = create(&home, &writer, &elsewhere);
    assert_eq!(other.await.unwrap_err().issues[0].path, "parameters.token");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_template_needs_its_permission_and_leaves_its_trace() {
    let folder = folder();
    let home = open(folder.path()).await;
    let kind = |result: Result<(), Failure>| result.unwrap_err().kind;
    let mut template = scripted_template("scripted");
    let made = |value: &Value| Change::CreateTemplate(text(value));
    assert_eq!(
        kind(by(&home, &writer(), made(&template)).await),
        Kind::NotPermitted
    );
    template["approved"] = json!(true);
    assert_eq!(
        kind(by(&home, &manager(), made(&template)).await),
        Kind::NotPermitted
    );
    let builtin = json!({ "name": "filesystem" });
    assert_eq!(
        kind(by(&home, &home.admin, made(&builtin)).await),
        Kind::Conflict
    );
    let mut events = home.control.events();
    make(&home, &template).await;
    assert_eq!(
        kind(by(&home, &home.admin, made(&template)).await),
        Kind::Conflict
    );

    // Who may not approve takes the approval away with any change.
    assert_eq!(
        kind(remake(&home, &manager(), &template).await),
        Kind::NotPermitted
    );
    template["approved"] = json!(false);
    remake(&home, &manager(), &template).await.unwrap();
    let stale = Change::UpdateTemplate {
        name: "scripted".to_owned(),
        template: text(&template),
        expected: Some(1),
    };
    assert_eq!(
        kind(by(&home, &home.admin, stale).await),
        Kind::VersionMismatch
    );

    make(&home, &json!({ "name": "above", "extends": "scripted" })).await;
    let delete = |name: &str| Change::DeleteTemplate {
        name: name.to_owned(),
        expected: None,
    };
    assert_eq!(
        kind(by(&home, &home.admin, delete("scripted")).await),
        Kind::Conflict
    );
    assert_eq!(
        kind(by(&home, &home.admin, delete("filesystem")).await),
        Kind::Conflict
    );
    assert_eq!(
        kind(by(&home, &writer(), delete("above")).await),
        Kind::NotPermitted
    );
    by(&home, &manager(), delete("above")).await.unwrap();
    by(&home, &manager(), delete("scripted")).await.unwrap();
    let gone = from_template("a", "scripted", json!({}));
    let failure = create(&home, &home.admin, &gone).await;
    assert!(
        failure.unwrap_err().issues[0]
            .message
            .contains("no template called `scripted`")
    );

    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let vaxel_control::Event::Template { action, .. } = event {
            seen.push(action);
        }
    }
    assert_eq!(
        seen,
        [
            "template.create",
            "template.update",
            "template.create",
            "template.delete",
            "template.delete"
        ]
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_secret_does_not_follow_a_service_to_another_host() {
    let folder = folder();
    let home = open(folder.path()).await;
    let at = |host: &str| {
        from_template(
            "remote",
            "http",
            json!({ "url": format!("https://{host}/mcp"), "authorization": PLANTED }),
        )
    };
    let mut draft = at("one.example");
    draft["enabled"] = json!(false);
    let made = create(&home, &home.admin, &draft).await.unwrap();
    let reference = sealed(&made, "authorization");
    let mut moved = at("two.example");
    moved["enabled"] = json!(false);
    moved["extends"]["with"]["authorization"] = json!(reference);
    let failure = update(&home, &home.admin, &moved).await.unwrap_err();
    assert_eq!(failure.issues[0].path, "parameters.authorization");
    moved["extends"]["with"]["url"] = json!("https://one.example/v2/mcp");
    let moved = update(&home, &home.admin, &moved).await.unwrap();
    assert_eq!(sealed(&moved, "authorization"), reference);
    // A draft by hand cannot take it along either.
    let read = moved.resource.spec;
    let stolen = json!({ "name": "stolen", "enabled": false, "spec": read });
    let change = Change::CreateService(Box::new(ServiceDraft::from_json(&stolen).unwrap()));
    let failure = by(&home, &home.admin, change).await.unwrap_err();
    let paths: Vec<&str> = failure.issues.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "spec.source.mcp.headers.Authorization",
            "extends.with.authorization"
        ]
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_would_break_others_or_turn_in_a_circle_is_refused() {
    let folder = folder();
    let home = open(folder.path()).await;
    let template = scripted_template("scripted");
    make(&home, &template).await;
    make(&home, &json!({ "name": "above", "extends": { "template": "scripted", "with": { "mode": "ok" } } })).await;
    let mut narrower = template.clone();
    narrower["parameters"]
        .as_object_mut()
        .unwrap()
        .remove("mode");
    narrower["spec"]["source"]["process"]["args"] = json!([]);
    let failure = remake(&home, &home.admin, &narrower).await.unwrap_err();
    assert!(
        failure.issues[0]
            .message
            .contains("would break the template `above`"),
        "{failure:?}"
    );
    let mut circle = template.clone();
    circle["extends"] = json!("above");
    let failure = remake(&home, &home.admin, &circle).await.unwrap_err();
    assert!(
        failure.issues[0]
            .message
            .contains("scripted → above → scripted"),
        "{failure:?}"
    );
    home.control.stop().await;
}
