//! Every operation of the document, asked by everybody: what each may do stands in one table, and an
//! operation that is not in it fails.

use axum::http::StatusCode;
use serde_json::{Value, json};
use vaxel_api::Api;

use crate::home::{Answer, As, Home, open};

/// Nobody; a user without a role; one with the role `user` whose it is not; the one with the role `user`
/// whose it is; an admin.
const ASKERS: [As; 5] = [
    As::Nobody,
    As::User("bare"),
    As::User("other"),
    As::User("owner"),
    As::User("admin"),
];

/// What they are answered, in the order of [`ASKERS`]. What belongs to another user is as if it were not
/// there (404); what a user may do with nothing at all is refused (403).
const EXPECTED: &[(&str, [u16; 5])] = &[
    ("get_key_set", [200, 200, 200, 200, 200]),
    ("apply_bundle", [401, 403, 200, 200, 200]),
    ("list_audit", [401, 403, 403, 403, 200]),
    ("export_audit", [401, 403, 403, 403, 200]),
    ("verify_audit", [401, 403, 403, 403, 200]),
    ("get_audit_line", [401, 403, 403, 403, 200]),
    ("explain_access", [401, 403, 403, 200, 200]),
    ("sign_in", [401, 401, 401, 401, 401]),
    ("sign_out", [401, 409, 409, 409, 409]),
    ("renew_sign_in", [401, 401, 401, 401, 401]),
    ("list_sign_ins", [401, 200, 200, 200, 200]),
    ("end_sign_in", [401, 403, 403, 403, 404]),
    ("list_oauth_clients", [401, 403, 403, 403, 200]),
    ("delete_oauth_client", [401, 403, 403, 403, 404]),
    ("get_whoami", [401, 200, 200, 200, 200]),
    ("create_backup", [401, 403, 403, 403, 200]),
    ("list_calls", [401, 403, 200, 200, 200]),
    ("get_dependencies", [401, 403, 200, 200, 200]),
    ("list_events", [401, 403, 200, 200, 200]),
    ("export_bundle", [401, 403, 200, 200, 200]),
    ("list_grants", [401, 403, 200, 200, 200]),
    ("create_grant", [401, 403, 404, 201, 201]),
    ("delete_grant", [401, 403, 404, 204, 204]),
    ("get_grant", [401, 403, 404, 200, 200]),
    ("list_keys", [401, 403, 200, 200, 200]),
    ("create_key", [401, 403, 201, 201, 201]),
    ("revoke_key", [401, 403, 404, 204, 204]),
    ("rotate_key", [401, 403, 404, 200, 200]),
    ("get_root_key", [401, 403, 403, 403, 200]),
    ("rotate_root_key", [401, 403, 403, 403, 200]),
    ("list_signing_keys", [401, 403, 403, 403, 200]),
    ("rotate_signing_keys", [401, 403, 403, 403, 200]),
    ("list_policies", [401, 403, 403, 403, 200]),
    ("create_policy", [401, 403, 403, 403, 201]),
    ("delete_policy", [401, 403, 403, 403, 204]),
    ("get_policy", [401, 403, 403, 403, 200]),
    ("update_policy", [401, 403, 403, 403, 200]),
    ("list_roles", [401, 403, 403, 403, 200]),
    ("create_role", [401, 403, 403, 403, 201]),
    ("delete_role", [401, 403, 403, 403, 204]),
    ("get_role", [401, 403, 403, 403, 200]),
    ("update_role", [401, 403, 403, 403, 200]),
    ("list_services", [401, 403, 200, 200, 200]),
    ("create_service", [401, 403, 201, 201, 201]),
    ("delete_service", [401, 403, 404, 200, 200]),
    ("get_service", [401, 403, 404, 200, 200]),
    ("update_service", [401, 403, 404, 200, 200]),
    ("list_service_calls", [401, 403, 404, 200, 200]),
    ("get_service_config", [401, 403, 404, 200, 200]),
    ("diff_service_revisions", [401, 403, 404, 200, 200]),
    ("get_service_health", [401, 403, 404, 200, 200]),
    ("accept_service_definitions", [401, 403, 404, 200, 200]),
    ("check_service_health", [401, 403, 404, 200, 200]),
    ("renew_service_lease", [401, 403, 404, 409, 409]),
    ("get_service_authorization", [401, 403, 404, 409, 409]),
    ("forget_service_authorization", [401, 403, 404, 409, 409]),
    ("get_service_impact", [401, 403, 404, 200, 200]),
    ("unlabel_service_revision", [401, 403, 404, 204, 204]),
    ("label_service_revision", [401, 403, 404, 204, 204]),
    ("get_service_logs", [401, 403, 404, 200, 200]),
    ("list_service_prompts", [401, 403, 404, 200, 200]),
    ("purge_service", [401, 403, 404, 204, 204]),
    ("refresh_service", [401, 403, 404, 409, 409]),
    ("list_service_resource_templates", [401, 403, 404, 200, 200]),
    ("list_service_resources", [401, 403, 404, 200, 200]),
    ("restart_service", [401, 403, 404, 202, 202]),
    ("restore_service", [401, 403, 404, 202, 202]),
    ("list_service_revisions", [401, 403, 404, 200, 200]),
    ("get_service_revision", [401, 403, 404, 200, 200]),
    ("rollback_service", [401, 403, 404, 200, 200]),
    ("start_service", [401, 403, 404, 202, 202]),
    ("get_service_stats", [401, 403, 404, 200, 200]),
    ("stop_service", [401, 403, 404, 202, 202]),
    ("list_service_tools", [401, 403, 404, 200, 200]),
    ("call_service_tool", [401, 403, 404, 200, 200]),
    ("get_service_usage", [401, 403, 404, 200, 200]),
    ("get_status", [401, 403, 403, 403, 200]),
    ("list_templates", [401, 403, 200, 200, 200]),
    ("create_template", [401, 403, 403, 403, 201]),
    ("delete_template", [401, 403, 403, 403, 204]),
    ("get_template", [401, 403, 404, 404, 200]),
    ("update_template", [401, 403, 403, 403, 200]),
    ("list_tools", [401, 403, 200, 200, 200]),
    ("get_tool", [401, 403, 404, 200, 200]),
    ("call_tool", [401, 403, 404, 200, 200]),
    ("list_toolsets", [401, 403, 200, 200, 200]),
    ("create_toolset", [401, 403, 403, 403, 201]),
    ("delete_toolset", [401, 403, 403, 403, 204]),
    ("get_toolset", [401, 403, 404, 200, 200]),
    ("update_toolset", [401, 403, 403, 403, 200]),
    ("get_usage", [401, 403, 200, 200, 200]),
    ("list_users", [401, 403, 403, 403, 200]),
    ("create_user", [401, 403, 403, 403, 201]),
    ("delete_user", [401, 403, 403, 403, 204]),
    ("get_user", [401, 403, 403, 403, 200]),
    ("update_user", [401, 403, 403, 403, 200]),
    ("set_user_password", [401, 403, 403, 403, 204]),
    ("get_liveness", [200, 200, 200, 200, 200]),
    ("get_readiness", [200, 200, 200, 200, 200]),
    ("get_metrics", [401, 403, 403, 403, 200]),
    ("shut_down", [401, 403, 403, 403, 202]),
];

/// One operation of the document.
struct Operation {
    name: String,
    method: String,
    path: String,
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&Api::openapi()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push(Operation {
                name: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase(),
                path: path.clone(),
            });
        }
    }
    // Nothing is answered after the end.
    all.sort_by_key(|operation| operation.name == "shut_down");
    all
}

/// What an operation is asked about: all of it is made for this one question.
#[derive(Default)]
struct Things {
    service: String,
    user: String,
    policy: String,
    role: String,
    toolset: String,
    template: String,
    grant: String,
    key: String,
}

impl Home {
    async fn must(&self, who: As, asked: (&str, &str), body: &Value) -> Value {
        let answer = self.ask_with(who, asked, body).await;
        assert!(answer.status.is_success(), "{asked:?}: {}", answer.text());
        if answer.body.is_empty() {
            return Value::Null;
        }
        answer.json()
    }

    async fn make(&self, list: &str, draft: Value) -> Value {
        let path = format!("/api/v1/{list}");
        self.must(As::User("admin"), ("POST", &path), &draft).await
    }

    /// Makes what the path of an operation names, each called `NAME-NUMBER`.
    async fn things_of(&self, operation: &Operation, number: usize) -> Things {
        let mut things = Things::default();
        let named = |what: &str| operation.path.contains(&format!("{{{what}}}"));
        if named("service") || named("exposed") || operation.name == "create_grant" {
            things.service = format!("service-{number}");
            self.make_service(&things.service, &operation.name).await;
        }
        if named("user") || named("key") {
            things.user = format!("user-{number}");
            let draft = json!({ "name": things.user, "roles": ["user"] });
            self.make("users", draft).await;
        }
        if named("role") {
            things.role = format!("role-{number}");
            let draft = json!({ "name": things.role, "permissions": ["mcp:read"] });
            self.make("roles", draft).await;
        }
        if named("policy") {
            things.policy = format!("policy-{number}");
            let draft = json!({ "name": things.policy, "effect": "deny", "services": ["none"] });
            self.make("policies", draft).await;
        }
        if named("toolset") {
            things.toolset = format!("set-{number}");
            let service = format!("service-{number}");
            self.make_service(&service, "").await;
            let services = json!([{ "service": service }, { "service": "none" }]);
            let draft = json!({ "name": things.toolset, "services": services });
            self.make("toolsets", draft).await;
        }
        if named("template") {
            things.template = format!("template-{number}");
            let draft =
                json!({ "name": things.template, "spec": { "source": { "builtin": "demo" } } });
            self.make("templates", draft).await;
        }
        if named("grant") {
            let service = format!("service-{number}");
            self.make_service(&service, "").await;
            let draft = json!({ "to": "role:client", "service": service });
            let made = self.make("grants", draft).await;
            made["id"].as_str().unwrap().clone_into(&mut things.grant);
        }
        if named("key") {
            things.key = format!("key-{number}");
            let draft = json!({ "name": things.key, "user": "owner" });
            self.make("keys", draft).await;
        }
        things
    }

    /// A service of the user `owner`, in the state that the operation is about.
    async fn make_service(&self, name: &str, operation: &str) {
        let draft = json!({ "name": name, "spec": { "source": { "builtin": "demo" } } });
        let list = ("POST", "/api/v1/services");
        self.must(As::User("owner"), list, &draft).await;
        let (admin, path) = (As::User("admin"), format!("/api/v1/services/{name}"));
        let label = json!({ "revision": 1 });
        let labelled = format!("{path}/labels/good");
        self.must(admin, ("PUT", &labelled), &label).await;
        if matches!(operation, "restore_service" | "purge_service") {
            let gone = self.ask(admin, "DELETE", &path).await;
            assert!(gone.status.is_success(), "{}", gone.text());
        } else {
            let health = format!("{path}/health?wait=20s");
            let health = self.ask(admin, "GET", &health).await;
            assert_eq!(health.json()["ready"], true, "{}", health.text());
        }
    }
}

impl Things {
    fn path(&self, operation: &Operation, number: usize) -> String {
        let exposed = format!("{}__echo", self.service);
        let label = if operation.method == "DELETE" {
            "good".to_owned()
        } else {
            format!("l{number}")
        };
        let parts = [
            ("{service}", &*self.service),
            ("{user}", &self.user),
            ("{policy}", &self.policy),
            ("{role}", &self.role),
            ("{toolset}", &self.toolset),
            ("{template}", &self.template),
            ("{grant}", &self.grant),
            ("{key}", &self.key),
            ("{exposed}", &exposed),
            ("{tool}", "echo"),
            ("{revision}", "1"),
            ("{number}", "1"),
            ("{label}", &label),
            ("{client}", "vxc_none"),
            ("{session}", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ];
        let mut path = operation.path.clone();
        for (part, value) in parts {
            path = path.replace(part, value);
        }
        match &*operation.name {
            "diff_service_revisions" => path + "?from=1&to=1",
            _ => path,
        }
    }

    /// A body that the operation takes.
    fn body(&self, operation: &Operation, number: usize) -> Option<Value> {
        let demo = json!({ "source": { "builtin": "demo" } });
        let new = format!("new-{number}");
        Some(match &*operation.name {
            "create_service" | "create_template" => json!({ "name": new, "spec": demo }),
            "update_service" => json!({ "name": self.service, "spec": demo }),
            "create_toolset" => json!({ "name": new, "services": [{ "service": "none" }] }),
            "update_toolset" => {
                json!({ "name": self.toolset, "services": [{ "service": "none" }] })
            }
            "update_template" => json!({ "name": self.template, "spec": demo }),
            "apply_bundle" => json!([{ "name": new, "spec": demo }]),
            "create_user" => json!({ "name": new, "roles": ["user"] }),
            "update_user" => json!({ "name": self.user, "roles": ["user"], "title": "x" }),
            "create_role" => json!({ "name": new, "permissions": ["mcp:read"] }),
            "update_role" => json!({ "name": self.role, "permissions": ["mcp:read:own"] }),
            "create_grant" => json!({ "to": "role:client", "service": self.service }),
            "create_policy" => json!({ "name": new, "effect": "deny", "services": ["none"] }),
            "update_policy" => json!({ "name": self.policy, "effect": "deny", "services": ["no"] }),
            "explain_access" => json!({ "user": "owner", "permission": "mcp:read" }),
            "sign_in" => json!({ "username": "owner", "password": "not the password" }),
            "renew_sign_in" => json!({ "refresh_token": "vxr_" }),
            "set_user_password" => json!({ "password": "a good long password" }),
            "create_key" => json!({ "name": new }),
            "rotate_key" | "rotate_root_key" => json!({}),
            "rollback_service" => json!({ "to": 1 }),
            "label_service_revision" => json!({ "revision": 1 }),
            "call_tool" | "call_service_tool" => json!({ "arguments": { "message": "x" } }),
            _ => return None,
        })
    }
}

fn says_why(answer: &Answer, place: &str) {
    let kind = answer.header("content-type");
    assert_eq!(kind, "application/problem+json", "{place}");
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status.as_u16(), "{place}");
    if answer.status == StatusCode::UNAUTHORIZED {
        assert_eq!(problem["type"], "/errors/unauthenticated", "{place}");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer"), "{place}: {challenge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_everybody_as_the_table_says() {
    let home = open().await;
    for (name, roles) in [
        ("bare", json!([])),
        ("other", json!(["user"])),
        ("owner", json!(["user"])),
    ] {
        home.make(
            "users",
            json!({ "name": name, "roles": roles, "limits": {} }),
        )
        .await;
    }
    let mut wrong = Vec::new();
    for (index, operation) in operations().iter().enumerate() {
        let mut seen = [0; 5];
        for (asker, who) in ASKERS.into_iter().enumerate() {
            let number = index * ASKERS.len() + asker;
            let things = home.things_of(operation, number).await;
            let path = things.path(operation, number);
            let asked = (&*operation.method, &*path);
            let answer = match things.body(operation, number) {
                Some(body) => home.ask_with(who, asked, &body).await,
                None => home.ask(who, asked.0, asked.1).await,
            };
            seen[asker] = answer.status.as_u16();
            if !answer.status.is_success() {
                says_why(&answer, &format!("{asked:?}"));
            }
        }
        let name = &*operation.name;
        let expected = EXPECTED.iter().find(|(one, _)| *one == name);
        if expected.is_none_or(|(_, expected)| *expected != seen) {
            wrong.push(format!("    (\"{name}\", {seen:?}),"));
        }
    }
    assert!(
        wrong.is_empty(),
        "they were answered:\n{}",
        wrong.join("\n")
    );
    for (name, _) in EXPECTED {
        assert!(
            operations().iter().any(|one| one.name == *name),
            "there is no {name}"
        );
    }
}
