use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    grant::{GrantResource, Grantee},
    id::User,
    principal::Proof,
    quota::{Quota, RoleQuotas},
    rights::{Limits, Sources},
    role::{BuiltIn, Reach, RoleResource},
    user::{UserKind, UserResource},
};

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn id(number: u8) -> Id<Service> {
    Id::from_slice(&[number; 16]).unwrap()
}

fn user(name: &str, roles: &[&str]) -> UserResource {
    UserResource {
        id: Id::<User>::new(NOW),
        name: name.parse().unwrap(),
        kind: UserKind::Person,
        version: 1,
        title: None,
        roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
        limits: None,
        disabled: false,
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
    }
}

fn role(name: &str, everywhere: &[Permission], own: &[Permission]) -> RoleResource {
    RoleResource {
        name: name.parse().unwrap(),
        version: 1,
        description: None,
        permissions: Reach {
            everywhere: Permissions::of(everywhere),
            own: Permissions::of(own),
        },
        limits: Quota::NONE,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn grant(to: &str, service: Id<Service>, permissions: &[Permission]) -> GrantResource {
    GrantResource {
        id: Id::new(NOW),
        to: to.parse::<Grantee>().unwrap(),
        service,
        permissions: Permissions::of(permissions),
        granted_by: "admin".to_owned(),
        created_at: NOW,
    }
}

fn policy(value: &serde_json::Value) -> PolicyDraft {
    PolicyDraft::from_json(value).unwrap()
}

fn principal(sources: &Sources, user: &UserResource, limits: Option<Limits>) -> Principal {
    let rights = Arc::new(sources.rights_of(user));
    let who = (Proof::User(user.id), user.name.shared().clone());
    Principal::of_user(who, rights, limits.map(Arc::new))
}

/// `files` belongs to anna, is in `prod` and has the tag `eu`.
fn files(tags: &[String]) -> Target<'_> {
    Target {
        id: id(1),
        name: "files",
        owner: "anna",
        environment: "prod",
        tags,
    }
}

fn ask(who: &Principal, permission: Permission, tool: Option<&str>, arguments: &str) -> Verdict {
    let tags = ["eu".to_owned()];
    let raw: Box<RawValue> = serde_json::from_str(arguments).unwrap();
    decide_on(&Asked {
        who,
        permission,
        on: &files(&tags),
        tool,
        arguments: Some(&raw),
        now: NOW,
    })
}

fn may(who: &Principal, permission: Permission) -> bool {
    ask(who, permission, None, "{}").allowed
}

#[test]
fn without_a_role_nothing_is_allowed() {
    let sources = Sources::default();
    let nobody = principal(&sources, &user("nobody", &[]), None);
    let unknown = principal(&sources, &user("unknown", &["no-such-role"]), None);
    for permission in Permission::ALL {
        assert!(!may(&nobody, permission) && !may(&unknown, permission));
        assert!(!decide(&nobody, permission).allowed);
    }
    assert!(require_anywhere(&nobody, Permission::McpRead).is_err());
}

#[test]
fn a_user_may_do_with_ones_own_what_nobody_else_may() {
    let sources = Sources::new([], [], []);
    let anna = principal(&sources, &user("anna", &["user"]), None);
    let bob = principal(&sources, &user("bob", &["user"]), None);
    for permission in Permission::of_services().iter() {
        assert!(may(&anna, permission));
        assert!(!may(&bob, permission));
        assert!(
            require_anywhere(&bob, permission).is_ok(),
            "bob may have services, too"
        );
    }
    let because = ask(&anna, Permission::McpRead, None, "{}")
        .because
        .to_string();
    assert_eq!(because, "the role `user` allows it of one's own");
}

#[test]
fn what_is_shared_may_be_used_as_far_as_it_is_shared() {
    let grants = [
        grant("user:bob", id(1), &[Permission::McpRead]),
        grant("role:analyst", id(1), &[Permission::McpExecute]),
        grant("user:eve", id(2), &[Permission::McpRead]),
    ];
    let sources = Sources::new([role("analyst", &[], &[])], grants, []);
    let bob = principal(&sources, &user("bob", &["analyst"]), None);
    assert!(may(&bob, Permission::McpRead) && may(&bob, Permission::McpExecute));
    assert!(!may(&bob, Permission::McpWrite));
    let eve = principal(&sources, &user("eve", &["user"]), None);
    assert!(
        !may(&eve, Permission::McpRead),
        "another service was shared with eve"
    );
}

#[test]
fn what_a_policy_denies_is_denied_whoever_asks() {
    let deny = json!({"name": "no-writes", "effect": "deny", "tools": ["write_*"], "tags": ["eu"],
        "environments": ["prod"], "services": ["f*"]});
    let allow = json!({"name": "all", "effect": "allow"});
    let sources = Sources::new([], [], [policy(&deny), policy(&allow)]);
    let admin = principal(&sources, &user("root", &["admin"]), None);
    let denied = ask(&admin, Permission::McpExecute, Some("write_file"), "{}");
    assert!(!denied.allowed);
    assert_eq!(
        denied.because.to_string(),
        "the policy `no-writes` denies it"
    );
    assert!(ask(&admin, Permission::McpExecute, Some("read_file"), "{}").allowed);
    assert!(
        may(&admin, Permission::McpWrite),
        "the policy is about calls of tools"
    );
}

#[test]
fn a_policy_can_allow_what_no_role_does() {
    let allow = json!({"name": "reading", "effect": "allow", "users": ["bob"], "tools": ["read_file"],
        "when": "arguments.path.startsWith('/srv/')"});
    let sources = Sources::new([], [], [policy(&allow)]);
    let bob = principal(&sources, &user("bob", &[]), None);
    let call = |tool, arguments| ask(&bob, Permission::McpExecute, Some(tool), arguments).allowed;
    assert!(call("read_file", r#"{"path": "/srv/x"}"#));
    assert!(!call("read_file", r#"{"path": "/etc/x"}"#));
    assert!(
        !call("read_file", "{}"),
        "what cannot be decided is not allowed"
    );
    assert!(!call("write_file", r#"{"path": "/srv/x"}"#));
    let eve = principal(&sources, &user("eve", &[]), None);
    assert!(
        !ask(
            &eve,
            Permission::McpExecute,
            Some("read_file"),
            r#"{"path": "/srv/x"}"#
        )
        .allowed
    );
}

#[test]
fn a_condition_that_cannot_be_decided_denies() {
    let deny = json!({"name": "no-root", "effect": "deny", "when": "arguments.path == '/'"});
    let sources = Sources::new([], [], [policy(&deny)]);
    let admin = principal(&sources, &user("root", &["admin"]), None);
    let call = |arguments| ask(&admin, Permission::McpExecute, Some("rm"), arguments);
    assert!(call(r#"{"path": "/tmp"}"#).allowed);
    assert!(!call(r#"{"path": "/"}"#).allowed);
    let undecided = call("{}");
    assert!(!undecided.allowed);
    assert!(undecided.because.to_string().contains("cannot be decided"));
}

#[test]
fn a_credential_can_do_less_than_its_user_and_never_more() {
    let sources = Sources::new([], [], []);
    let limits = Limits {
        permissions: Permissions::of(&[Permission::McpRead]),
        services: Some(vec!["f*".to_owned()]),
        environments: Some(BTreeSet::from(["prod".to_owned()])),
    };
    let admin = user("root", &["admin"]);
    let key = principal(&sources, &admin, Some(limits.clone()));
    assert!(may(&key, Permission::McpRead) && !may(&key, Permission::McpExecute));
    let elsewhere = Limits {
        environments: Some(BTreeSet::from(["dev".to_owned()])),
        ..limits.clone()
    };
    assert!(!may(
        &principal(&sources, &admin, Some(elsewhere)),
        Permission::McpRead
    ));
    let nobody = principal(&sources, &user("nobody", &[]), Some(limits));
    assert!(!may(&nobody, Permission::McpRead));
}

#[test]
fn who_may_not_see_a_service_is_told_that_there_is_none() {
    let sources = Sources::new([], [grant("user:bob", id(1), &[Permission::McpRead])], []);
    let refused = |who: &Principal| {
        let tags = [];
        let asked = Asked {
            who,
            permission: Permission::McpManage,
            on: &files(&tags),
            tool: None,
            arguments: None,
            now: NOW,
        };
        require_on(&asked).unwrap_err().kind
    };
    let eve = principal(&sources, &user("eve", &["user"]), None);
    assert_eq!(refused(&eve), Kind::UnknownService);
    let bob = principal(&sources, &user("bob", &["user"]), None);
    assert_eq!(refused(&bob), Kind::NotPermitted);
}

#[test]
fn lists_show_what_may_be_called_with_some_arguments() {
    let policies = [
        json!({"name": "a", "effect": "allow", "tools": ["read_file"], "when": "arguments.a == 1"}),
        json!({"name": "b", "effect": "deny", "tools": ["write_*"]}),
        json!({"name": "c", "effect": "deny", "tools": ["list"], "when": "arguments.b == 1"}),
    ];
    let sources = Sources::new([], [], policies.each_ref().map(policy));
    let tags = [];
    let shown = |roles: &[&str]| {
        let who = principal(&sources, &user("bob", roles), None);
        let local = Local::of(&who, &files(&tags));
        ["read_file", "write_file", "list", "stat"]
            .map(|tool| local.is_possible(&who, Permission::McpExecute, Some(tool)))
    };
    assert_eq!(shown(&["admin"]), [true, false, true, true]);
    assert_eq!(shown(&[]), [true, false, false, false]);
}

fn any_policy() -> impl Strategy<Value = PolicyDraft> {
    let tools = prop::option::of(prop::sample::select(vec!["read_*", "*", "write_file"]));
    let services = prop::option::of(prop::sample::select(vec!["files", "db-*", "f*"]));
    let when = prop::option::of(prop::sample::select(vec![
        "arguments.n > 1",
        "true",
        "arguments.none == 1",
    ]));
    (any::<bool>(), tools, services, when).prop_map(|(allows, tools, services, when)| {
        let mut value = json!({"name": "p", "effect": if allows { "allow" } else { "deny" }});
        if let Some(tools) = tools {
            value["tools"] = json!([tools]);
        }
        if let Some(services) = services {
            value["services"] = json!([services]);
        }
        if let Some(when) = when {
            value["when"] = json!(when);
        }
        policy(&value)
    })
}

proptest! {
    #[test]
    fn a_denial_more_never_allows_more_and_a_tool_alone_decides_as_with_all(
        policies in prop::collection::vec(any_policy(), 0..6),
        more in any_policy(),
        roles in prop::sample::subsequence(vec!["admin", "user", "client"], 0..3),
        tool in prop::sample::select(vec!["read_file", "write_file", "x"]),
        count in 0..4_u8,
    ) {
        let denial = PolicyDraft { effect: Effect::Deny, ..more };
        let with = [policies.clone(), vec![denial]].concat();
        let user = user("anna", &roles);
        let raw: Box<RawValue> = serde_json::from_str(&format!(r#"{{"n": {count}}}"#)).unwrap();
        let answer = |policies: Vec<PolicyDraft>| {
            let sources = Sources::new([], [], policies);
            let who = principal(&sources, &user, None);
            let tags = [];
            let asked = Asked {
                who: &who,
                permission: Permission::McpExecute,
                on: &files(&tags),
                tool: Some(tool),
                arguments: Some(&raw),
                now: NOW,
            };
            let local = Local::of(&who, asked.on);
            let allowed = local.decide(&asked).allowed;
            assert_eq!(allowed, local.for_tool(tool).decide(&asked).allowed);
            assert!(!allowed || local.is_possible(&who, Permission::McpExecute, Some(tool)));
            allowed
        };
        prop_assert!(answer(policies) || !answer(with));
    }
}

#[test]
fn built_in_roles_stay_what_they_are() {
    let impostor = role("admin", &[], &[]);
    let sources = Sources::new([impostor], [], []);
    let admin = principal(&sources, &user("root", &["admin"]), None);
    assert!(decide(&admin, Permission::SystemManage).allowed);
    assert_eq!(admin.permissions, BuiltIn::Admin.permissions());
}

#[test]
fn who_has_several_roles_has_the_more_generous_limits_unless_there_are_own_ones() {
    let quota = |text: &str| Quota {
        calls: Some(text.parse().unwrap()),
        ..Quota::NONE
    };
    let limited = |name, text: &str| RoleResource {
        limits: quota(text),
        ..role(name, &[], &[])
    };
    let sources = || {
        let roles = [limited("few", "1/1m"), limited("many", "9/1m")];
        Sources::new(roles, [], [])
    };
    let of = |roles: &[&str]| *sources().rights_of(&user("anna", roles)).quota();
    assert_eq!(of(&["few"]), quota("1/1m"));
    assert_eq!(of(&["few", "many"]), quota("9/1m"));
    assert_eq!(of(&["few", "client"]), Quota::NONE);
    assert_eq!(of(&["few", "gone"]), quota("1/1m"));
    assert_eq!(of(&["user"]).calls, Some("20/1m".parse().unwrap()));
    assert_eq!(of(&["admin", "user"]), Quota::NONE);

    let mut anna = user("anna", &["admin"]);
    anna.limits = Some(quota("2/1m"));
    assert_eq!(*sources().rights_of(&anna).quota(), quota("2/1m"));

    let mut quotas = RoleQuotas::default();
    quotas.0[0].1 = quota("3/1m");
    let admin = sources().with_quotas(&quotas);
    let admin = admin.rights_of(&user("anna", &["admin"]));
    assert_eq!(*admin.quota(), quota("3/1m"));
}

#[test]
fn what_was_taken_outlives_a_change_of_rights() {
    let sources = Sources::new([], [], []);
    let before = sources.rights_of(&user("anna", &["user"]));
    let rate = before.quota().calls.unwrap();
    before.used().calls.take(rate, Duration::ZERO).unwrap();
    let after = sources.rights_of(&user("anna", &["client", "user"]));
    assert_ne!(before, after);
    let after = after.after(&before);
    assert_eq!(after.used().calls.look(rate, Duration::ZERO).count, 19);
}
