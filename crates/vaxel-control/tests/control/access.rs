//! Users, roles, grants and policies: who can change what, and what follows for everyone.

use std::time::Duration;

use serde_json::{Value, json};
use vaxel_control::{
    AccessEntry, AccessQuery, Change, Explanation, FeedItem, FeedQuery, GrantChange, KeyDraft,
    KeyRef, PolicyChange, RoleChange, Subject, UserChange,
};
use vaxel_core::{
    failure::{Failure, Kind},
    grant::GrantDraft,
    policy::PolicyDraft,
    principal::{Permission, Permissions, Principal},
    role::{BuiltIn, RoleDraft},
    user::{UserDraft, UserResource},
};

use crate::home::{Home, demo, folder, open, reference};

fn user(draft: &Value) -> UserDraft {
    UserDraft::from_json(draft).expect("the test's user is valid")
}

fn role(draft: &Value) -> RoleDraft {
    RoleDraft::from_json(draft).expect("the test's role is valid")
}

fn policy(draft: &Value) -> Box<PolicyDraft> {
    Box::new(PolicyDraft::from_json(draft).expect("the test's policy is valid"))
}

fn share(to: &str, service: &str, permissions: &[&str]) -> Change {
    let draft = json!({"to": to, "service": service, "permissions": permissions});
    let draft = GrantDraft::from_json(&draft).expect("the test's grant is valid");
    Change::Grant(GrantChange::Create(draft))
}

fn paths(failure: &Failure) -> Vec<&str> {
    let issues = failure.issues.iter();
    issues.map(|issue| issue.path.as_str()).collect()
}

impl Home {
    /// A change by somebody, of which only the failure is of interest.
    async fn by(&self, who: &Principal, change: Change) -> Result<Option<AccessEntry>, Failure> {
        let outcome = self.control.submit(who, change).await?;
        Ok(outcome.into_access().ok())
    }

    async fn add_user(&self, draft: Value) -> UserResource {
        let change = Change::User(UserChange::Create(user(&draft)));
        match self.by(&self.admin, change).await.unwrap() {
            Some(AccessEntry::User(user)) => user,
            other => panic!("{other:?}"),
        }
    }

    async fn add_role(&self, draft: Value) {
        let change = Change::Role(RoleChange::Create(role(&draft)));
        self.by(&self.admin, change).await.unwrap();
    }

    async fn add_policy(&self, draft: Value) {
        let change = Change::Policy(PolicyChange::Create(policy(&draft)));
        self.by(&self.admin, change).await.unwrap();
    }

    /// Somebody with these roles, as a caller.
    async fn someone(&self, name: &str, roles: &[&str]) -> Principal {
        self.add_user(json!({"name": name, "roles": roles})).await;
        self.control.as_user(name).unwrap()
    }

    /// The same as its rights are now.
    fn now(&self, who: &Principal) -> Principal {
        self.control.as_user(&who.name).unwrap()
    }

    async fn update_user(&self, by: &Principal, draft: Value) -> Result<(), Failure> {
        let draft = user(&draft);
        let change = UserChange::Update {
            name: draft.name.to_string(),
            draft,
            expected: None,
        };
        self.by(by, Change::User(change)).await.map(drop)
    }

    async fn delete_user(&self, name: &str, heir: Option<&str>) -> Result<(), Failure> {
        let change = UserChange::Delete {
            name: name.to_owned(),
            transfer_to: heir.map(|heir| heir.parse().unwrap()),
            expected: None,
        };
        self.by(&self.admin, Change::User(change)).await.map(drop)
    }

    async fn ask(&self, who: &Principal, query: Value) -> Explanation {
        let query = AccessQuery::from_json(&query).unwrap();
        self.control.explain(who, query).await.unwrap()
    }

    async fn may(&self, who: &Principal, permission: &str, service: &str) -> bool {
        let query = json!({"permission": permission, "service": service});
        let query = AccessQuery::from_json(&query).unwrap();
        let answer = self.control.explain(who, query).await;
        answer.is_ok_and(|answer| answer.allowed)
    }

    async fn key(&self, by: &Principal, draft: KeyDraft) -> Result<(), Failure> {
        let made = self.control.submit(by, Change::CreateKey(draft)).await;
        made.map(drop)
    }
}

fn key(name: &str, user: Option<&str>) -> KeyDraft {
    KeyDraft {
        name: name.to_owned(),
        user: user.map(|user| user.parse().unwrap()),
        permissions: BuiltIn::Client.permissions(),
        ..KeyDraft::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_the_user_admin_whose_the_admin_key_is() {
    let folder = folder();
    let home = open(folder.path()).await;
    let users = home.control.users(&home.admin).await.unwrap();
    let seen: Vec<_> = users
        .iter()
        .map(|user| (user.name.as_str(), user.kind.as_str()))
        .collect();
    assert_eq!(seen, [("admin", "person")]);
    assert!(users[0].roles.contains("admin"));
    let keys = home.keys_of(&home.admin).await;
    assert_eq!(keys[0].user.as_str(), "admin");
    home.control.stop().await;
    drop(home);
    let again = open(folder.path()).await;
    assert_eq!(again.control.users(&again.admin).await.unwrap(), users);
    again.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_user_who_may_more_than_they() {
    let folder = folder();
    let home = open(folder.path()).await;
    let permissions = ["users:manage", "users:read", "mcp:read", "mcp:execute"];
    home.add_role(json!({"name": "clerk", "permissions": permissions}))
        .await;
    let clerk = home.someone("clerk", &["clerk"]).await;
    let create = async |draft: Value| {
        home.by(&clerk, Change::User(UserChange::Create(user(&draft))))
            .await
    };
    create(json!({"name": "cleo", "roles": ["client"]}))
        .await
        .unwrap();
    for role in ["admin", "user", "monitor"] {
        let refused = create(json!({"name": "x", "roles": [role]})).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, Kind::NotPermitted, "{role}");
        assert!(refused.detail.contains("cannot hand out"), "{refused}");
    }
    // Nor does one become so by being changed, whoever it is, nor is one who is touched.
    for (name, roles) in [("cleo", "admin"), ("clerk", "admin"), ("admin", "client")] {
        let refused = home.update_user(&clerk, json!({"name": name, "roles": [roles]}));
        let refused = refused.await.unwrap_err();
        assert_eq!(refused.kind, Kind::NotPermitted, "{name}");
    }
    home.key(&clerk, key("narrow", Some("admin")))
        .await
        .unwrap();
    let wider = KeyDraft {
        permissions: Permissions::ALL,
        ..key("wider", Some("admin"))
    };
    let refused = home.key(&clerk, wider).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    // Who manages no users makes none.
    let cleo = home.control.as_user("cleo").unwrap();
    let change = Change::User(UserChange::Create(user(&json!({"name": "y", "roles": []}))));
    let refused = home.by(&cleo, change).await.unwrap_err();
    assert!(refused.detail.contains("users:manage"), "{refused}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_a_user_is_named_and_name_and_kind_stay() {
    let folder = folder();
    let home = open(folder.path()).await;
    let draft = user(&json!({"name": "vaxel", "roles": ["king", "queen"]}));
    let refused = home.by(&home.admin, Change::User(UserChange::Create(draft)));
    let refused = refused.await.unwrap_err();
    assert_eq!(paths(&refused), ["name", "roles", "roles"]);
    home.add_user(json!({"name": "anna"})).await;
    let change = UserChange::Update {
        name: "anna".to_owned(),
        draft: user(&json!({"name": "otto", "kind": "program", "roles": ["king"]})),
        expected: None,
    };
    let refused = home.by(&home.admin, Change::User(change)).await;
    assert_eq!(paths(&refused.unwrap_err()), ["name", "kind", "roles"]);
    let change = UserChange::Update {
        name: "anna".to_owned(),
        draft: user(&json!({"name": "anna"})),
        expected: Some(7),
    };
    let refused = home
        .by(&home.admin, Change::User(change))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::VersionMismatch);
    let unknown = home.control.user(&home.admin, "otto").await.unwrap_err();
    assert_eq!(unknown.kind, Kind::NotFound);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_stays_one() {
    let folder = folder();
    let home = open(folder.path()).await;
    let attempts = [
        json!({"name": "admin", "roles": ["user"]}),
        json!({"name": "admin", "roles": ["admin"], "disabled": true}),
    ];
    for draft in &attempts {
        let refused = home.update_user(&home.admin, draft.clone()).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict, "{refused}");
        assert!(refused.detail.contains("last user with"), "{refused}");
    }
    let refused = home.delete_user("admin", None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    // One who is disabled is none; one without a key could not let the others in again.
    home.add_user(json!({"name": "anna", "roles": ["admin"], "disabled": true}))
        .await;
    let refused = home.update_user(&home.admin, attempts[0].clone()).await;
    assert_eq!(refused.unwrap_err().kind, Kind::Conflict);
    home.update_user(&home.admin, json!({"name": "anna", "roles": ["admin"]}))
        .await
        .unwrap();
    let refused = home.update_user(&home.admin, attempts[0].clone()).await;
    let refused = refused.unwrap_err();
    assert!(refused.detail.contains("last key"), "{refused}");
    let admins = KeyDraft {
        permissions: Permissions::ALL,
        ..key("anna", Some("anna"))
    };
    home.key(&home.admin, admins).await.unwrap();
    home.delete_user("admin", None).await.unwrap();
    let revoke = Change::RevokeKey(KeyRef::Name("anna".to_owned()));
    let refused = home.by(&home.admin, revoke).await.unwrap_err();
    assert!(refused.detail.contains("last key"), "{refused}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_owns_services_goes_only_when_they_are_somebody_elses() {
    let folder = folder();
    let home = open(folder.path()).await;
    let anna = home.someone("anna", &["admin"]).await;
    let draft = serde_json::from_value(demo("files")).unwrap();
    let create = Change::CreateService(Box::new(draft));
    let made = home.control.submit(&anna, create).await.unwrap();
    assert_eq!(made.into_service().unwrap().resource.owner, "anna");
    home.key(&home.admin, key("laptop", Some("anna")))
        .await
        .unwrap();
    let refused = home.delete_user("anna", None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(refused.detail.contains("--transfer-to"), "{refused}");
    for heir in ["anna", "nobody"] {
        let refused = home.delete_user("anna", Some(heir)).await.unwrap_err();
        assert_eq!(paths(&refused), ["transfer_to"], "{heir}");
    }
    home.delete_user("anna", Some("admin")).await.unwrap();
    assert_eq!(home.get("files").await.resource.owner, "admin");
    assert!(home.control.as_user("anna").is_none());
    let keys = home.keys_of(&home.admin).await;
    let laptop = keys.iter().find(|key| key.name == "laptop").unwrap();
    assert!(laptop.revoked_at.is_some());
    let again = Change::User(UserChange::Create(user(&json!({"name": "anna"}))));
    let taken = home.by(&home.admin, again).await.unwrap_err();
    assert!(taken.detail.contains("not given again"), "{taken}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_gives_no_more_than_its_maker_has_and_stays_while_it_is_in_use() {
    let folder = folder();
    let home = open(folder.path()).await;
    let permissions = ["access:manage", "access:read", "mcp:read", "mcp:write:own"];
    home.add_role(json!({"name": "keeper", "permissions": permissions}))
        .await;
    let keeper = home.someone("kim", &["keeper"]).await;
    let make = async |name: &str, permissions: &[&str]| {
        let draft = role(&json!({"name": name, "permissions": permissions}));
        home.by(&keeper, Change::Role(RoleChange::Create(draft)))
            .await
    };
    make("reader", &["mcp:read", "mcp:write:own"])
        .await
        .unwrap();
    for permissions in [["mcp:write"], ["keys:manage:own"]] {
        let refused = make("writer", &permissions).await.unwrap_err();
        assert_eq!(refused.kind, Kind::NotPermitted);
        assert!(refused.detail.ends_with(permissions[0]), "{refused}");
    }
    let update = |name: &str, draft: Value| {
        Change::Role(RoleChange::Update {
            name: name.to_owned(),
            draft: role(&draft),
            expected: Some(1),
        })
    };
    let wider = json!({"name": "keeper", "permissions": ["mcp:execute"]});
    let refused = home.by(&keeper, update("keeper", wider)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    let renamed = json!({"name": "other", "permissions": ["mcp:read"]});
    let refused = home.by(&keeper, update("reader", renamed)).await;
    assert_eq!(paths(&refused.unwrap_err()), ["name"]);
    let built_in = json!({"name": "x", "permissions": ["mcp:read"]});
    let refused = home.by(&home.admin, update("client", built_in)).await;
    let refused = refused.unwrap_err();
    assert!(refused.detail.contains("built in"), "{refused}");

    let rita = home.someone("rita", &["reader"]).await;
    assert!(rita.permissions.contains(Permission::McpRead));
    let narrower = json!({"name": "reader", "permissions": ["access:read"]});
    home.by(&keeper, update("reader", narrower)).await.unwrap();
    let rita = home.now(&rita);
    assert!(!rita.permissions.contains(Permission::McpRead), "at once");
    let delete = || {
        Change::Role(RoleChange::Delete {
            name: "reader".to_owned(),
            expected: None,
        })
    };
    let refused = home.by(&keeper, delete()).await.unwrap_err();
    assert!(refused.detail.contains("user `rita`"), "{refused}");
    home.update_user(&home.admin, json!({"name": "rita", "roles": []}))
        .await
        .unwrap();
    home.by(&keeper, delete()).await.unwrap();
    let roles = home.control.roles(&keeper).await.unwrap();
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    let expected = ["admin", "user", "service", "client", "monitor", "keeper"];
    assert_eq!(names, expected);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_shares_a_service_and_nobody_what_they_lack() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("files")).await.unwrap();
    home.create(demo("mail")).await.unwrap();
    let anna = home.someone("anna", &["user"]).await;
    let otto = home.someone("otto", &["user"]).await;
    assert!(!home.may(&anna, "mcp:read", "files").await);
    let by_admin = share("user:anna", "files", &["mcp:manage", "mcp:read"]);
    home.by(&home.admin, by_admin).await.unwrap();
    let anna = home.now(&anna);
    assert!(home.may(&anna, "mcp:read", "files").await);
    assert!(!home.may(&anna, "mcp:execute", "files").await);
    assert!(!home.may(&anna, "mcp:read", "mail").await);
    // She manages it, and so shares it, but only what she has herself.
    let more = share("user:otto", "files", &["mcp:read", "mcp:execute"]);
    let refused = home.by(&anna, more).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    assert!(refused.detail.ends_with("have: mcp:execute"), "{refused}");
    let made = home.by(&anna, share("user:otto", "files", &["mcp:read"]));
    let Some(AccessEntry::Grant(grant)) = made.await.unwrap() else {
        panic!("no grant");
    };
    assert_eq!(grant.resource.granted_by, "anna");
    assert!(home.may(&home.now(&otto), "mcp:read", "files").await);
    let twice = home.by(&anna, share("user:otto", "files", &["mcp:read"]));
    assert_eq!(twice.await.unwrap_err().kind, Kind::Conflict);
    // What she does not see is not there for her; who manages access hears every problem.
    let unseen = home.by(&anna, share("user:otto", "mail", &["mcp:read"]));
    assert_eq!(unseen.await.unwrap_err().kind, Kind::UnknownService);
    let wrong = home.by(&home.admin, share("role:king", "mial", &["mcp:read"]));
    assert_eq!(paths(&wrong.await.unwrap_err()), ["to", "service"]);

    let seen = home.control.grants(&home.now(&otto)).await.unwrap();
    assert_eq!(seen.len(), 1, "his own");
    assert_eq!(home.control.grants(&anna).await.unwrap().len(), 2);
    let id = grant.resource.id.to_string();
    let end = || Change::Grant(GrantChange::Delete { id: id.clone() });
    let refused = home.by(&home.now(&otto), end()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    home.by(&anna, end()).await.unwrap();
    assert!(!home.may(&home.now(&otto), "mcp:read", "files").await);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_comes_back_from_the_archive_is_shared_with_nobody() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("files")).await.unwrap();
    home.someone("anna", &["user"]).await;
    home.by(&home.admin, share("role:user", "files", &["mcp:read"]))
        .await
        .unwrap();
    let anna = home.control.as_user("anna").unwrap();
    assert!(home.may(&anna, "mcp:read", "files").await);
    let files = reference("files");
    let delete = Change::DeleteService {
        service: files.clone(),
        expected: None,
    };
    home.submit(delete).await.unwrap();
    home.submit(Change::RestoreService(files)).await.unwrap();
    assert!(!home.may(&home.now(&anna), "mcp:read", "files").await);
    assert!(home.control.grants(&home.admin).await.unwrap().is_empty());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_names_who_is_there_and_allows_no_more_than_its_maker_may() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("files")).await.unwrap();
    home.add_role(json!({"name": "keeper", "permissions": ["access:manage", "mcp:read"]}))
        .await;
    let keeper = home.someone("kim", &["keeper"]).await;
    let create = async |draft: Value| {
        let change = Change::Policy(PolicyChange::Create(policy(&draft)));
        home.by(&keeper, change).await
    };
    let wrong = json!({"name": "x", "effect": "allow", "users": ["nobody"], "roles": ["king"]});
    assert_eq!(paths(&create(wrong).await.unwrap_err()), ["users", "roles"]);
    let refused = create(json!({"name": "x", "effect": "allow"})).await;
    assert_eq!(refused.unwrap_err().kind, Kind::NotPermitted);
    let read = json!({"name": "x", "effect": "allow", "permissions": ["mcp:read"]});
    create(read).await.unwrap();
    create(json!({"name": "y", "effect": "deny"}))
        .await
        .unwrap();
    // Taking away what denies gives something.
    let delete = |name: &str| {
        Change::Policy(PolicyChange::Delete {
            policy: name.to_owned(),
            expected: None,
        })
    };
    let refused = home.by(&keeper, delete("y")).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    home.by(&home.admin, delete("y")).await.unwrap();
    let update = Change::Policy(PolicyChange::Update {
        policy: "x".to_owned(),
        draft: policy(
            &json!({"name": "z", "effect": "allow", "permissions": ["mcp:read"],
            "roles": ["user"]}),
        ),
        expected: Some(1),
    });
    home.by(&keeper, update.clone()).await.unwrap();
    let late = home.by(&keeper, update).await.unwrap_err();
    assert_eq!(late.kind, Kind::NotFound, "its name is another one now");
    let all = home.control.policies(&home.admin).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].draft.name.as_str(), all[0].version), ("z", 2));
    let anna = home.someone("anna", &["user"]).await;
    let answer = home
        .ask(&anna, json!({"permission": "mcp:read", "service": "files"}))
        .await;
    assert_eq!((answer.by, answer.name.as_deref()), ("policy", Some("z")));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_decided() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("files")).await.unwrap();
    home.someone("anna", &["client"]).await;
    home.someone("otto", &["user"]).await;
    home.add_policy(
        json!({"name": "no-writes", "effect": "deny", "tools": ["note_write"],
        "when": "arguments.name != 'mine'"}),
    )
    .await;
    let anna = home.control.as_user("anna").unwrap();
    let execute = |more: Value| {
        let mut query = json!({"permission": "mcp:execute", "service": "files"});
        for (key, value) in more.as_object().unwrap() {
            query[key] = value.clone();
        }
        query
    };
    let writes = |name: &str| json!({"tool": "note_write", "arguments": {"name": name}});
    let cases = [
        (json!({}), true, "role", Some("client")),
        (writes("mine"), true, "role", Some("client")),
        (writes("yours"), false, "policy", Some("no-writes")),
        (
            json!({"tool": "note_write"}),
            false,
            "policy",
            Some("no-writes"),
        ),
    ];
    for (more, allowed, by, name) in cases {
        let answer = home.ask(&anna, execute(more.clone())).await;
        let seen = (answer.allowed, answer.by, answer.name.as_deref());
        assert_eq!(seen, (allowed, by, name), "{more}: {answer:?}");
    }
    // Of others only who may read how access is given.
    let about = |who: &str| execute(json!({"user": who}));
    assert_eq!(home.ask(&home.admin, about("otto")).await.by, "nothing");
    assert!(home.ask(&anna, about("anna")).await.allowed, "herself");
    let query = AccessQuery::from_json(&about("otto")).unwrap();
    let refused = home.control.explain(&anna, query).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    let otto = home.control.as_user("otto").unwrap();
    let query = AccessQuery::from_json(&execute(json!({}))).unwrap();
    let refused = home.control.explain(&otto, query).await.unwrap_err();
    assert_eq!(refused.kind, Kind::UnknownService, "he does not see it");
    let answer = home.ask(&otto, json!({"permission": "mcp:execute"})).await;
    assert!(answer.because.contains("for some services"), "{answer:?}");
    let wrong = AccessQuery::from_json(&json!({"user": "a", "key": "b", "tool": "x"}));
    assert_eq!(wrong.unwrap_err().len(), 3);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_its_users_within_its_limits() {
    let folder = folder();
    let home = open(folder.path()).await;
    for name in ["db-one", "mail"] {
        home.create(demo(name)).await.unwrap();
    }
    home.someone("anna", &["client"]).await;
    let limited = KeyDraft {
        services: Some(vec!["db-*".to_owned()]),
        ..key("limited", Some("anna"))
    };
    home.key(&home.admin, limited).await.unwrap();
    let ask = async |service: &str| {
        let query = json!({"key": "limited", "permission": "mcp:read", "service": service});
        home.ask(&home.admin, query).await
    };
    assert_eq!(ask("db-one").await.by, "role");
    assert_eq!(ask("mail").await.by, "credential");
    home.update_user(
        &home.admin,
        json!({"name": "anna", "roles": ["client"], "disabled": true}),
    )
    .await
    .unwrap();
    let answer = ask("db-one").await;
    assert_eq!((answer.allowed, answer.by), (false, "disabled"));
    assert_eq!(answer.because, "the user `anna` is disabled");
    let refused = home.key(&home.admin, key("more", Some("anna"))).await;
    assert_eq!(paths(&refused.unwrap_err()), ["user"]);
    let refused = home.key(&home.admin, key("more", Some("nobody"))).await;
    assert_eq!(paths(&refused.unwrap_err()), ["user"]);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_manages_its_own_keys_and_no_others() {
    let folder = folder();
    let home = open(folder.path()).await;
    let anna = home.someone("anna", &["user"]).await;
    home.key(&anna, key("laptop", None)).await.unwrap();
    let keys = home.keys_of(&anna).await;
    let seen: Vec<_> = keys
        .iter()
        .map(|key| (key.name.as_str(), key.user.as_str()))
        .collect();
    assert_eq!(seen, [("laptop", "anna")]);
    for user in ["admin", "nobody"] {
        let refused = home.key(&anna, key("other", Some(user))).await;
        assert_eq!(refused.unwrap_err().kind, Kind::NotPermitted, "{user}");
    }
    let more = KeyDraft {
        permissions: Permissions::of(&[Permission::SystemManage]),
        ..key("more", None)
    };
    let refused = home.key(&anna, more).await.unwrap_err();
    assert!(refused.detail.ends_with("system:manage"), "{refused}");
    let revoke = |name: &str| Change::RevokeKey(KeyRef::Name(name.to_owned()));
    let refused = home.by(&anna, revoke("admin")).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotFound);
    home.by(&anna, revoke("laptop")).await.unwrap();
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_with_a_limited_key_is_limited_too() {
    let folder = folder();
    let home = open(folder.path()).await;
    let anna = home.someone("anna", &["admin"]).await;
    let limits = vaxel_core::rights::Limits {
        permissions: Permissions::ALL,
        services: Some(vec!["db-*".to_owned()]),
        environments: None,
    };
    let who = (anna.proof, "anna".into());
    let limited = Principal::of_user(who, anna.rights.clone(), Some(limits.into()));
    home.key(&limited, key("inherits", None)).await.unwrap();
    let narrower = |services: &[&str]| KeyDraft {
        services: Some(services.iter().map(ToString::to_string).collect()),
        ..key("narrower", None)
    };
    home.key(&limited, narrower(&["db-one"])).await.unwrap();
    let refused = home.key(&limited, narrower(&["db-*", "*", "mail"])).await;
    assert_eq!(paths(&refused.unwrap_err()), ["services", "services"]);
    let keys = home.keys_of(&home.admin).await;
    let made = keys.iter().find(|key| key.name == "inherits").unwrap();
    assert_eq!(made.services, Some(vec!["db-*".to_owned()]));
    // What would hold for other services, too, it cannot give at all.
    let create = UserChange::Create(user(&json!({"name": "x", "roles": ["client"]})));
    let refused = home.by(&limited, Change::User(create)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_hears_who_they_are() {
    let folder = folder();
    let home = open(folder.path()).await;
    let anna = home.someone("anna", &["user"]).await;
    let own = home.control.whoami(&anna).await.unwrap();
    assert_eq!(own.name, "anna");
    assert_eq!(own.permissions, BuiltIn::User.reach());
    assert!(own.user.is_some() && own.key.is_none());
    let system = home.control.whoami(&home.admin).await.unwrap();
    assert!(system.user.is_none());
    let about = Subject::User("anna".to_owned());
    let query = AccessQuery {
        who: Some(about),
        permission: Permission::SystemManage,
        service: None,
        tool: None,
        arguments: None,
    };
    assert!(!home.control.explain(&anna, query).await.unwrap().allowed);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_changes_is_told_of_none_once_they_are_disabled() {
    let folder = folder();
    let home = open(folder.path()).await;
    let anna = home.someone("anna", &["client"]).await;
    let follow = home.control.follow(&anna, FeedQuery::default());
    let (mut reader, _) = follow.await.unwrap();
    home.create(demo("before")).await.unwrap();
    let disabled = json!({"name": "anna", "roles": ["client"], "disabled": true});
    home.update_user(&home.admin, disabled).await.unwrap();
    home.create(demo("after")).await.unwrap();
    let mut told = Vec::new();
    let read = async {
        while let Some(items) = reader.next().await {
            told.extend(items);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .expect("the feed ends");
    let is_after =
        |item: &FeedItem| matches!(item, FeedItem::Change(event) if event.name == "after");
    assert!(!told.iter().any(is_after), "{told:?}");
    let Some(FeedItem::End(reason, _)) = told.last() else {
        panic!("{told:?}");
    };
    assert!(reason.contains("disabled"), "{reason}");
    home.control.stop().await;
}
