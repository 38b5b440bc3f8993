//! Many resources at once: who may, in which order, and what is refused.

use serde_json::{Value, json};
use vaxel_control::{Plan, Step, Terms};
use vaxel_core::{
    bundle::{Bundle, Parts, StepAction, WantedService},
    failure::{Failure, Kind},
    principal::{Permission, Permissions, Principal},
};

use crate::home::{Home, demo, folder, open};

fn someone(permissions: &[Permission]) -> Principal {
    Principal {
        permissions: Permissions::of(permissions),
        name: "someone".into(),
        ..Principal::system()
    }
}

fn read(document: &Value) -> Bundle {
    Bundle::read(Parts::of(document), WantedService::from_json)
}

async fn plan(home: &Home, who: &Principal, document: &Value) -> Result<Plan, Failure> {
    home.control.plan(who, read(document), None).await
}

async fn apply(home: &Home, document: &Value) -> Result<Plan, Failure> {
    let bundle = read(document);
    home.control.apply_bundle(&home.admin, bundle, None).await
}

fn steps(plan: &Plan) -> Vec<(&str, StepAction)> {
    plan.steps
        .iter()
        .map(|step| (step.name.as_str(), step.action))
        .collect()
}

fn needing(name: &str, needs: &[&str]) -> Value {
    let mut draft = demo(name);
    draft["spec"]["depends_on"] = json!(needs);
    draft
}

fn remote(name: &str, url: &str, key: &str) -> Value {
    let source = json!({"mcp": {"url": url, "headers": {"x-key": key}}});
    json!({"name": name, "enabled": false, "spec": {"source": source}})
}

fn process(name: &str) -> Value {
    let source = json!({"process": {"command": "true"}});
    json!({"name": name, "enabled": false, "spec": {"source": source}})
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_needs_what_the_change_alone_would_need() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(process("there")).await.unwrap();
    let mut tagged = demo("tagged");
    tagged["tags"] = json!(["old"]);
    home.create(tagged).await.unwrap();
    let writer = someone(&[Permission::McpRead, Permission::McpWrite]);
    let set = json!({"name": "s", "services": [{"service": "there"}]});
    let template = json!({"name": "t", "spec": {"source": {"builtin": "demo"}}});
    let mut stopped = demo("tagged");
    stopped["tags"] = json!(["old"]);
    stopped["enabled"] = false.into();
    let cases = [
        (json!([demo("new")]), true),
        (json!([process("there")]), true), // as it is: nothing is written
        (json!([process("new")]), false),
        (json!([stopped]), false),
        (json!({"vaxel": 1, "toolsets": [set]}), false),
        (json!({"vaxel": 1, "templates": [template]}), false),
    ];
    for (document, allowed) in cases {
        let planned = plan(&home, &writer, &document).await;
        match planned {
            Ok(_) => assert!(allowed, "{document}"),
            Err(failure) => {
                assert!(!allowed, "{document}: {failure}");
                assert_eq!(failure.kind, Kind::NotPermitted, "{document}");
            }
        }
        plan(&home, &home.admin, &document).await.unwrap();
    }
    let new = read(&json!([demo("new")]));
    let prune = home.control.apply_bundle(&writer, new, Some("old")).await;
    assert_eq!(prune.unwrap_err().kind, Kind::NotPermitted);
    let unknown = ["new".parse().unwrap()];
    let nothing = home.control.export(&home.admin, &unknown, false);
    assert_eq!(nothing.await.unwrap_err().kind, Kind::UnknownService);
    for who in [&[Permission::McpRead][..], &[Permission::McpWrite]] {
        let refused = plan(&home, &someone(who), &json!([demo("new")])).await;
        assert_eq!(refused.unwrap_err().kind, Kind::NotPermitted);
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_come_after_what_they_need_also_when_the_need_is_turned_round() {
    let folder = folder();
    let home = open(folder.path()).await;
    let first = json!([needing("a", &["b"]), needing("b", &["c"]), demo("c")]);
    let made = apply(&home, &first).await.unwrap();
    let created = StepAction::Create;
    assert_eq!(
        steps(&made),
        [("c", created), ("b", created), ("a", created)]
    );
    let said = |step: &Step| -> Vec<String> {
        let all = step.differences.iter();
        all.map(|one| one.path.clone()).collect()
    };
    // Of what is new, only what is no default.
    assert_eq!(said(&made.steps[0]), ["spec.source"]);
    let mut needed = said(&made.steps[1]);
    needed.sort();
    assert_eq!(needed, ["spec.depends_on", "spec.source"]);
    let again = apply(&home, &first).await.unwrap();
    assert!(
        steps(&again)
            .iter()
            .all(|step| step.1 == StepAction::Unchanged)
    );
    // Written one by one in any other order, one of these would close a circle.
    let turned = json!([needing("c", &["b"]), needing("b", &["a"]), demo("a")]);
    let done = apply(&home, &turned).await.unwrap();
    let updated = StepAction::Update;
    assert_eq!(
        steps(&done),
        [("a", updated), ("b", updated), ("c", updated)]
    );
    // With what is stored already, one service is enough for a circle.
    let circle = apply(&home, &json!([needing("a", &["c"])]))
        .await
        .unwrap_err();
    assert_eq!(circle.kind, Kind::Invalid);
    assert_eq!(circle.issues[0].path, "[0].spec.depends_on");
    assert!(
        circle.issues[0].message.contains("a → c → b → a"),
        "{:?}",
        circle.issues
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn references_keep_values_in_their_own_service_and_at_their_own_place_alone() {
    let folder = folder();
    let home = open(folder.path()).await;
    let here = "http://127.0.0.1:9/mcp";
    let one = home.create(remote("one", here, "hidden")).await.unwrap();
    let stored = serde_json::to_value(&one.resource.spec).unwrap();
    let reference = stored["source"]["mcp"]["headers"]["x-key"]
        .as_str()
        .unwrap();
    let kept = apply(&home, &json!([remote("one", here, reference)]))
        .await
        .unwrap();
    assert_eq!(steps(&kept), [("one", StepAction::Unchanged)]);
    let same = apply(&home, &json!([remote("one", here, "hidden")]))
        .await
        .unwrap();
    assert_eq!(steps(&same), [("one", StepAction::Unchanged)]);
    let elsewhere = remote("one", "http://127.0.0.1:10/mcp", reference);
    for stolen in [elsewhere, remote("two", here, reference)] {
        let refused = apply(&home, &json!([stolen])).await.unwrap_err();
        let issue = &refused.issues[0];
        assert_eq!(issue.path, "[0].spec.source.mcp.headers.x-key");
        assert!(issue.message.contains("${NAME}"), "{issue}");
    }
    // A value in clear is not shown, not even where it would go.
    let moved = json!([remote("one", "http://127.0.0.1:10/mcp", "hidden")]);
    let planned = plan(&home, &home.admin, &moved).await.unwrap();
    let shown = format!("{:?}", planned.steps[0].differences);
    assert!(
        shown.contains("***") && !shown.contains("hidden"),
        "{shown}"
    );
    assert_eq!(planned.steps[0].action, StepAction::Update);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_come_before_what_is_made_from_them() {
    let folder = folder();
    let home = open(folder.path()).await;
    let document = |title: &str| {
        json!({
            "vaxel": 1,
            "services": [{"name": "made", "extends": {"template": "upper", "with": {"key": "hidden"}}}],
            "templates": [
                {"name": "upper", "parameters": {"key": {"type": "secret"}},
                 "extends": {"template": "lower", "with": {"key": "${key}"}}},
                {"name": "lower", "parameters": {"key": {"type": "secret"}}, "spec": {
                    "title": title,
                    "source": {"mcp": {"url": "http://127.0.0.1:9/mcp", "headers": {"x-key": "${key}"}}}}},
            ],
        })
    };
    let planned = plan(&home, &home.admin, &document("One")).await.unwrap();
    let made = apply(&home, &document("One")).await.unwrap();
    let created = StepAction::Create;
    assert_eq!(
        steps(&made),
        [("lower", created), ("upper", created), ("made", created)]
    );
    assert_eq!(steps(&planned), steps(&made));
    let again = apply(&home, &document("One")).await.unwrap();
    assert!(
        steps(&again)
            .iter()
            .all(|step| step.1 == StepAction::Unchanged),
        "{:?}",
        steps(&again)
    );
    let changed = apply(&home, &document("Two")).await.unwrap();
    let expected = [
        ("lower", StepAction::Update),
        ("upper", StepAction::Unchanged),
        ("made", StepAction::Update),
    ];
    assert_eq!(steps(&changed), expected);
    let seen = home
        .control
        .service(&home.admin, &"made".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(seen.resource.spec.title.as_deref(), Some("Two"));
    let again = apply(&home, &document("Two")).await.unwrap();
    assert!(
        steps(&again)
            .iter()
            .all(|step| step.1 == StepAction::Unchanged),
        "{:?}",
        steps(&again)
    );

    let mut wrong = document("Three");
    wrong["services"][0]["extends"] = json!({"template": "upper", "with": {"kye": "x"}});
    let services = wrong["services"].as_array_mut().unwrap();
    services.push(json!({"name": "other", "extends": "nowhere"}));
    let templates = wrong["templates"].as_array_mut().unwrap();
    templates.push(json!({"name": "time", "spec": {}}));
    templates.push(json!({"name": "lost", "extends": "nowhere"}));
    let refused = apply(&home, &wrong).await.unwrap_err();
    let mut paths: Vec<&str> = refused.issues.iter().map(|one| one.path.as_str()).collect();
    paths.sort_unstable();
    let expected = [
        "services[0].parameters.kye",
        "services[1].extends",
        "templates[2]",
        "templates[3].extends",
    ];
    assert_eq!(paths, expected, "{:?}", refused.issues);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_something_is_applied_stands_in_the_history() {
    let folder = folder();
    let home = open(folder.path()).await;
    let on = |message: &str| {
        home.control.on(Terms {
            expected: None,
            message: Some(message.to_owned()),
        })
    };
    let bundle = || read(&json!([demo("a")]));
    let long = "x".repeat(501);
    let refused = on(&long).apply_bundle(&home.admin, bundle(), None).await;
    assert_eq!(refused.unwrap_err().kind, Kind::Invalid);
    let applied = on("as in git")
        .apply_bundle(&home.admin, bundle(), None)
        .await;
    applied.unwrap();
    let service = "a".parse().unwrap();
    let current = "current".into();
    let revision = home
        .control
        .revision(&home.admin, &service, &current)
        .await
        .unwrap();
    assert_eq!(revision.message.as_deref(), Some("as in git"));
    home.control.stop().await;
}
