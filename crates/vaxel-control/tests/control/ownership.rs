//! What is another user's: not there for who may not see it, not to be changed by who may only see it.

use std::sync::Arc;

use serde_json::json;
use vaxel_control::{
    Change, FeedQuery, Grain, OfferKind, Outcome, Page, RevisionRef, ServiceFilter, ToolInput,
    ToolQuery, ToolTarget, UsageQuery,
};
use vaxel_core::{
    failure::{Failure, Kind},
    grant::{GrantResource, Grantee},
    id::Id,
    policy::PolicyDraft,
    principal::{Permission, Permissions, Principal, Proof},
    rights::Sources,
    time::Timestamp,
    user::{UserDraft, UserResource},
};

use crate::home::{Home, demo, folder, open, reference};

fn user(name: &str, sources: &Sources) -> Principal {
    user_with(name, &["user"], sources)
}

fn user_with(name: &str, roles: &[&str], sources: &Sources) -> Principal {
    let draft = UserDraft::from_json(&json!({"name": name, "roles": roles})).unwrap();
    let now = Timestamp::from_millis(1);
    let user = UserResource {
        id: Id::new(now),
        name: draft.name,
        kind: draft.kind,
        version: 1,
        title: None,
        roles: draft.roles,
        limits: None,
        disabled: false,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    };
    let rights = Arc::new(sources.rights_of(&user));
    let who = (Proof::User(user.id), user.name.shared().clone());
    Principal::of_user(who, rights, None)
}

async fn create(home: &Home, who: &Principal, name: &str) -> Result<Outcome, Failure> {
    let change = Change::create(&demo(name)).unwrap();
    home.control.submit(who, change).await
}

/// Everything that can be asked about a service, with what it came to.
async fn everything_about(
    home: &Home,
    who: &Principal,
    name: &str,
) -> Vec<(String, Result<(), Failure>)> {
    let (control, service) = (&home.control, reference(name));
    let mut all = Vec::new();
    let mut note = |what: &str, result: Result<(), Failure>| all.push((what.to_owned(), result));
    note("get", control.service(who, &service).await.map(drop));
    note(
        "health",
        control.health(who, &service, None).await.map(drop),
    );
    note(
        "config",
        control.service_config(who, &service).await.map(drop),
    );
    note(
        "offers",
        control
            .offers(who, &service, OfferKind::Tools)
            .await
            .map(drop),
    );
    note(
        "revisions",
        control
            .revisions(who, &service, &Page::FIRST)
            .await
            .map(drop),
    );
    let first = RevisionRef::Number(1);
    note(
        "revision",
        control.revision(who, &service, &first).await.map(drop),
    );
    note("impact", control.impact(who, &service).await.map(drop));
    let usage = UsageQuery {
        from: None,
        to: None,
        grain: Grain::Hour,
    };
    note(
        "usage",
        control.usage(who, Some(&service), usage).await.map(drop),
    );
    for (what, change) in changes(name) {
        note(what, control.submit(who, change).await.map(drop));
    }
    let target = ToolTarget::Of {
        service,
        tool: "echo".to_owned(),
    };
    let input = ToolInput::default();
    note(
        "call",
        control.call_tool(who, &target, input).await.map(drop),
    );
    all
}

fn changes(name: &str) -> Vec<(&'static str, Change)> {
    let service = || reference(name);
    let update = Change::update(service(), &demo(name), None).unwrap();
    vec![
        ("update", update),
        ("stop", Change::StopService(service())),
        ("start", Change::StartService(service())),
        ("restart", Change::RestartService(service())),
        ("accept", Change::AcceptDefinitions(service())),
        (
            "roll back",
            Change::RollBackService {
                service: service(),
                to: RevisionRef::Number(1),
            },
        ),
        (
            "label",
            Change::LabelRevision {
                service: service(),
                label: "mine".to_owned(),
                revision: RevisionRef::Number(1),
            },
        ),
        (
            "delete",
            Change::DeleteService {
                service: service(),
                expected: None,
            },
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_another_user_is_as_if_it_were_not_there() {
    let folder = folder();
    let home = open(folder.path()).await;
    let sources = Sources::new([], [], []);
    let (anna, bob) = (user("anna", &sources), user("bob", &sources));
    create(&home, &anna, "files").await.unwrap();
    home.settled("files").await;
    let never = everything_about(&home, &bob, "never").await;
    for ((what, result), (_, expected)) in everything_about(&home, &bob, "files")
        .await
        .into_iter()
        .zip(never)
    {
        let refused = result.expect_err(&what);
        assert_eq!(refused.kind, Kind::UnknownService, "{what}: {refused}");
        let text = refused.detail.replace("`files`", "`never`");
        assert_eq!(
            text,
            expected.expect_err(&what).detail,
            "{what} tells them apart"
        );
    }
    let filter = ServiceFilter::default();
    let page = Page::FIRST;
    let names = async |who: &Principal| {
        let list = home.control.services(who, &filter, &page).await.unwrap();
        let names = list
            .items
            .into_iter()
            .map(|one| one.resource.name.to_string());
        names.collect::<Vec<_>>()
    };
    assert!(names(&bob).await.is_empty());
    assert_eq!(names(&anna).await, ["files"]);
    let tools = home.control.tools(&bob, &ToolQuery::default(), &page).await;
    assert!(tools.unwrap().items.is_empty());
    assert!(home.control.tool(&bob, "files__echo").is_err());
    assert!(home.control.tool(&anna, "files__echo").is_ok());
    let map = home.control.dependencies(&bob).await.unwrap();
    assert_eq!(map.map.iter().count(), 0);
    let events = home
        .control
        .changes(&bob, &FeedQuery::default(), 100)
        .await
        .unwrap();
    assert!(events.items.is_empty(), "{:?}", events.items);
    assert!(
        !home
            .control
            .changes(&anna, &FeedQuery::default(), 100)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_owns_a_service_may_do_everything_with_it() {
    let folder = folder();
    let home = open(folder.path()).await;
    let anna = user("anna", &Sources::new([], [], []));
    create(&home, &anna, "files").await.unwrap();
    home.settled("files").await;
    let call = (
        ToolTarget::Of {
            service: reference("files"),
            tool: "echo".to_owned(),
        },
        ToolInput {
            arguments: serde_json::from_str(r#"{"message": "hi"}"#).ok(),
            ..ToolInput::default()
        },
    );
    home.control
        .call_tool(&anna, &call.0, call.1)
        .await
        .unwrap();
    for (what, change) in changes("files") {
        let done = home.control.submit(&anna, change).await;
        done.unwrap_or_else(|refused| panic!("{what}: {refused}"));
    }
    home.control
        .submit(&anna, Change::RestoreService(reference("files")))
        .await
        .unwrap();
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_for_reading_is_read_and_refused_otherwise() {
    let folder = folder();
    let home = open(folder.path()).await;
    let nobody = Sources::new([], [], []);
    let anna = user("anna", &nobody);
    create(&home, &anna, "files").await.unwrap();
    home.settled("files").await;
    let grant = GrantResource {
        id: Id::new(Timestamp::from_millis(1)),
        to: "user:bob".parse::<Grantee>().unwrap(),
        service: home.get("files").await.resource.id,
        permissions: Permissions::of(&[Permission::McpRead]),
        granted_by: "anna".to_owned(),
        created_at: Timestamp::from_millis(1),
    };
    let bob = user("bob", &Sources::new([], [grant], []));
    let read = [
        "get",
        "health",
        "config",
        "offers",
        "revisions",
        "revision",
        "impact",
    ];
    for (what, result) in everything_about(&home, &bob, "files").await {
        match result {
            Ok(()) => assert!(read.contains(&&*what), "{what}"),
            Err(refused) => {
                assert!(!read.contains(&&*what), "{what}: {refused}");
                let expected = [Kind::NotPermitted, Kind::UnknownTool];
                assert!(expected.contains(&refused.kind), "{what}: {refused}");
            }
        }
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_about_an_environment_is_not_evaded_by_changing_it() {
    let folder = folder();
    let home = open(folder.path()).await;
    let deny = json!({"name": "no-prod", "effect": "deny", "permissions": ["mcp:write"],
        "environments": ["prod"], "roles": ["user"]});
    let sources = Sources::new([], [], [PolicyDraft::from_json(&deny).unwrap()]);
    let anna = user("anna", &sources);
    let in_prod = |name: &str| {
        let mut draft = demo(name);
        draft["environment"] = json!("prod");
        draft
    };
    let change = Change::create(&in_prod("files")).unwrap();
    let refused = home.control.submit(&anna, change).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted, "{refused}");
    create(&home, &anna, "files").await.unwrap();
    let change = Change::update(reference("files"), &in_prod("files"), None).unwrap();
    let refused = home
        .control
        .submit(&anna, change.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted, "{refused}");
    assert!(refused.detail.contains("`no-prod`"), "{refused}");
    home.submit(change).await.unwrap();
    let back = Change::update(reference("files"), &demo("files"), None).unwrap();
    let refused = home.control.submit(&anna, back).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted, "{refused}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_role_nothing_can_be_asked() {
    let folder = folder();
    let home = open(folder.path()).await;
    let sources = Sources::new([], [], []);
    create(&home, &user("anna", &sources), "files")
        .await
        .unwrap();
    let nobody = user_with("nobody", &[], &sources);
    for (what, result) in everything_about(&home, &nobody, "files").await {
        assert_eq!(result.expect_err(&what).kind, Kind::NotPermitted, "{what}");
    }
    let refused = home
        .control
        .services(&nobody, &ServiceFilter::default(), &Page::FIRST)
        .await;
    assert_eq!(refused.unwrap_err().kind, Kind::NotPermitted);
    home.control.stop().await;
}
