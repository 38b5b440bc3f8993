//! Who sees and calls what: by roles, grants, policies and limits of credentials, on every kind of endpoint.

use std::sync::Arc;

use serde_json::json;
use vaxel_core::{
    grant::{GrantDraft, GrantResource},
    id::Id,
    policy::PolicyDraft,
    principal::{Permission, Permissions, Principal, Proof},
    rights::{Limits, Sources},
    time::Timestamp,
    user::{UserDraft, UserResource},
};

use crate::{
    harness::{Client, Plan, Rig, Upstream, client::Message},
    sets::{LISTS, complete, list, of, world},
};

const NOW: Timestamp = Timestamp::from_millis(1_000);

/// What decides in one test.
#[derive(Default)]
pub(crate) struct Rules {
    pub(crate) roles: &'static [&'static str],
    pub(crate) grants: Vec<GrantResource>,
    pub(crate) policies: Vec<serde_json::Value>,
    pub(crate) limits: Option<Limits>,
}

impl Rules {
    pub(crate) fn principal(&self, name: &str) -> Principal {
        let draft = json!({"name": name, "roles": self.roles});
        let draft = UserDraft::from_json(&draft).unwrap();
        let user = UserResource {
            id: Id::new(NOW),
            name: draft.name,
            kind: draft.kind,
            version: 1,
            title: None,
            roles: draft.roles,
            limits: None,
            disabled: false,
            created_at: NOW,
            updated_at: NOW,
            deleted_at: None,
        };
        let read = |policy: &serde_json::Value| PolicyDraft::from_json(policy).unwrap();
        let policies = self.policies.iter().map(read);
        let sources = Sources::new([], self.grants.clone(), policies);
        let rights = Arc::new(sources.rights_of(&user));
        let who = (Proof::User(user.id), user.name.shared().clone());
        Principal::of_user(who, rights, self.limits.clone().map(Arc::new))
    }
}

/// A rig with three services that belong to anna, and both kinds of clients of someone else.
pub(crate) async fn someone(
    rules: impl FnOnce(&Rig) -> Rules,
    name: &str,
) -> ((Rig, [Upstream; 3]), [Client; 2]) {
    let plan = Plan::default();
    let rig = Rig::start_with(&plan);
    let upstreams = world(&rig).await;
    let who = rules(&rig).principal(name);
    let key = rig.admit(who);
    let clients = [
        Client::modern(rig.address, &key),
        Client::legacy(rig.address, &key).await,
    ];
    ((rig, upstreams), clients)
}

async fn tools(client: &Client) -> Vec<String> {
    list(client, LISTS[0]).await
}

async fn error_of(client: &Client, message: &Message) -> (i64, String) {
    let answer = client.say(message).await.json();
    let error = &answer["error"];
    let code = error["code"].as_i64();
    let code = code.unwrap_or_else(|| panic!("{}: {answer}", message.params));
    (code, error["message"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_users_is_not_there_until_it_is_shared() {
    let (_world, clients) = someone(
        |_| Rules {
            roles: &["user"],
            ..Rules::default()
        },
        "bob",
    )
    .await;
    for client in clients {
        for kind in LISTS {
            assert!(list(&client, kind).await.is_empty(), "{}", kind.0);
        }
        for message in [
            Message::call("new__read", "{}"),
            of("prompts/get", "new__greet"),
            of("resources/read", "new://open/1"),
            complete(&json!({"type": "ref/prompt", "name": "new__greet"})),
        ] {
            let (code, text) = error_of(&client, &message).await;
            assert!(code == -32602 || code == -32002, "{code} {text}");
            assert!(text.starts_with("Unknown "), "{text}");
        }
        let lists = Message::new("tools/list", "");
        let hidden = client.clone().at("/mcp/new").say(&lists).await.json();
        assert_eq!(hidden["status"], 404, "{hidden}");
        let never = client.clone().at("/mcp/gone").say(&lists).await.json();
        let detail = hidden["detail"]
            .as_str()
            .unwrap()
            .replace("`new`", "`gone`");
        assert_eq!(
            detail,
            never["detail"].as_str().unwrap(),
            "as one that never was"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_owns_a_service_uses_it() {
    let (_world, clients) = someone(
        |_| Rules {
            roles: &["user"],
            ..Rules::default()
        },
        "anna",
    )
    .await;
    for client in clients {
        assert_eq!(tools(&client).await.len(), 9);
        let answer = client.call("new__read", "{}").await;
        assert_eq!(
            answer["result"]["content"][0]["text"], "new read",
            "{answer}"
        );
        assert_eq!(tools(&client.clone().at("/mcp/old")).await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_is_seen_and_called_and_nothing_beside_it() {
    let shared = |rig: &Rig| {
        let draft = GrantDraft::from_json(&json!({"to": "user:bob", "service": "old"})).unwrap();
        let grant = GrantResource {
            id: Id::new(NOW),
            to: draft.to,
            service: rig.gateway.tool("old__read").unwrap().0,
            permissions: draft.permissions,
            granted_by: "anna".to_owned(),
            created_at: NOW,
        };
        Rules {
            grants: vec![grant],
            ..Rules::default()
        }
    };
    let (_world, clients) = someone(shared, "bob").await;
    for client in clients {
        assert_eq!(
            tools(&client).await,
            ["old__read", "old__read_all", "old__write"]
        );
        let answer = client.call("old__read", "{}").await;
        assert_eq!(
            answer["result"]["content"][0]["text"], "old read",
            "{answer}"
        );
        let (_, text) = error_of(&client, &Message::call("new__read", "{}")).await;
        assert!(text.starts_with("Unknown tool"), "{text}");
        let meta = client.call("list_available_tools", "{}").await;
        let told = meta["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            told.contains("old__write") && !told.contains("new__"),
            "{told}"
        );
        let (_, text) = error_of(
            &client,
            &Message::call("call_tool", r#"{"service": "new", "tool": "read"}"#),
        )
        .await;
        assert!(text.starts_with("Unknown tool"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_hide_refuse_and_allow_single_tools() {
    let rules = |_: &Rig| Rules {
        roles: &["client"],
        policies: vec![
            json!({"name": "no-writes", "effect": "deny", "tools": ["write"]}),
            json!({"name": "only-here", "effect": "deny", "services": ["new"], "tools": ["read"],
                "when": "!arguments.path.startsWith('/srv/')"}),
        ],
        ..Rules::default()
    };
    let (_world, clients) = someone(rules, "bob").await;
    for client in clients {
        let names = tools(&client).await;
        assert_eq!(names.len(), 6, "{names:?}");
        assert!(
            !names.iter().any(|name| name.ends_with("write")),
            "{names:?}"
        );
        let (_, text) = error_of(&client, &Message::call("new__write", "{}")).await;
        assert!(text.starts_with("Unknown tool"), "{text}");
        let answer = client.call("new__read", r#"{"path": "/srv/a"}"#).await;
        assert_eq!(
            answer["result"]["content"][0]["text"], "new read",
            "{answer}"
        );
        for arguments in [r#"{"path": "/etc"}"#, "{}", r#"{"path": 7}"#] {
            let (code, text) = error_of(&client, &Message::call("new__read", arguments)).await;
            assert_eq!(code, 1403, "{text}");
            assert!(text.contains("the policy `only-here` denies it"), "{text}");
        }
        let answer = client
            .clone()
            .at("/mcp/new")
            .call("read", r#"{"path": "/srv/a"}"#)
            .await;
        assert_eq!(
            answer["result"]["content"][0]["text"], "new read",
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_alone_lets_call_one_tool() {
    let rules = |_: &Rig| Rules {
        policies: vec![
            json!({"name": "reading", "effect": "allow", "users": ["bob"],
            "permissions": ["mcp:read", "mcp:execute"], "services": ["n*"], "tools": ["read"]}),
        ],
        ..Rules::default()
    };
    let (_world, clients) = someone(rules, "bob").await;
    for client in clients {
        assert_eq!(tools(&client).await, ["new__read"]);
        assert_eq!(tools(&client.clone().at("/mcp/new")).await, ["read"]);
        assert!(list(&client, LISTS[1]).await.is_empty());
        let answer = client.call("new__read", "{}").await;
        assert_eq!(
            answer["result"]["content"][0]["text"], "new read",
            "{answer}"
        );
        let (_, text) = error_of(&client, &of("prompts/get", "new__greet")).await;
        assert!(text.starts_with("Unknown prompt"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_some_services_opens_no_others() {
    let limits = |_: &Rig| Rules {
        roles: &["admin"],
        limits: Some(Limits {
            permissions: Permissions::of(&[Permission::McpRead, Permission::McpExecute]),
            services: Some(vec!["o*".to_owned()]),
            environments: None,
        }),
        ..Rules::default()
    };
    let (_world, clients) = someone(limits, "root").await;
    for client in clients {
        let names = tools(&client).await;
        assert_eq!(names.len(), 6, "{names:?}");
        assert!(
            !names.iter().any(|name| name.starts_with("new__")),
            "{names:?}"
        );
        let (_, text) = error_of(&client, &Message::call("new__read", "{}")).await;
        assert!(text.starts_with("Unknown tool"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_by_one_is_not_shown_to_another() {
    let plan = Plan::default();
    let rig = Rig::start_with(&plan);
    let _upstreams = world(&rig).await;
    let everyone = rig.modern();
    assert_eq!(tools(&everyone).await.len(), 9);
    let bob = Rules {
        roles: &["user"],
        ..Rules::default()
    }
    .principal("bob");
    let bob = Client::modern(rig.address, &rig.admit(bob));
    assert!(tools(&bob).await.is_empty());
    assert_eq!(tools(&everyone).await.len(), 9);
    // The same name with other rights is somebody else.
    let later = Rules {
        roles: &["client"],
        ..Rules::default()
    }
    .principal("bob");
    let later = Client::modern(rig.address, &rig.admit(later));
    assert_eq!(tools(&later).await.len(), 9);
}
