//! Every field that a user can write, written by one who wants more than he has: what he can do afterwards is what
//! he could do before. The fields are those of the API's document; one that is in no table here fails.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use vaxel_api::Api;
use vaxel_core::user::UserDraft;

use crate::home::{As, Home, open};

const MALLORY: As = As::User("mallory");

/// Operations with a body that a user with the role `user` is refused whatever it says, and how.
const REFUSED: &[(&str, u16)] = &[
    ("create_backup", 403),
    ("create_policy", 403),
    ("update_policy", 403),
    ("create_role", 403),
    ("update_role", 403),
    ("rotate_root_key", 403),
    ("create_template", 403),
    ("update_template", 403),
    ("create_toolset", 403),
    ("update_toolset", 403),
    ("create_user", 403),
    ("update_user", 403),
    ("set_user_password", 403),
];

/// Operations whose body says what is asked, and changes nothing of what anybody may do; those about passwords and
/// tokens are attacked in `sign_ins`.
const ASKING: &[&str] = &[
    "explain_access",
    "sign_in",
    "renew_sign_in",
    "call_service_tool",
    "call_tool",
];

/// A field, how a draft that sets it differs from the usual one, and what comes of it.
type Row = (&'static str, &'static str, u16);

/// Of services, made new, replaced, or applied: `$secret` is a reference to what another user's service has sealed.
const OF_SERVICES: &[Row] = &[
    ("name", r#"{"name":"victim"}"#, 409),
    ("enabled", r#"{"enabled":false}"#, 200),
    ("environment", r#"{"environment":"prod"}"#, 200),
    ("tags[]", r#"{"tags":["admin"]}"#, 200),
    (
        "extends.template",
        r#"{"extends":{"template":"runs"},"spec":null}"#,
        422,
    ),
    (
        "extends.with",
        r#"{"extends":{"template":"runs","with":{"a":"b"}},"spec":null}"#,
        422,
    ),
    (
        "spec",
        r#"{"spec":{"source":{"builtin":null,"process":{"command":"id"}}}}"#,
        403,
    ),
    ("spec.balance", r#"{"spec":{"balance":"weighted"}}"#, 200),
    (
        "spec.depends_on[]",
        r#"{"spec":{"depends_on":["victim"]}}"#,
        200,
    ),
    ("spec.description", r#"{"spec":{"description":"x"}}"#, 200),
    ("spec.title", r#"{"spec":{"title":"x"}}"#, 200),
    ("spec.era", r#"{"spec":{"era":"modern"}}"#, 200),
    (
        "spec.health.dependency[].tcp",
        r#"{"spec":{"health":{"dependency":[{"tcp":"example.com:80"}]}}}"#,
        200,
    ),
    (
        "spec.health.dependency[].url",
        r#"{"spec":{"health":{"dependency":[{"url":"https://example.com"}]}}}"#,
        200,
    ),
    ("spec.health.fall", r#"{"spec":{"health":{"fall":2}}}"#, 200),
    ("spec.health.rise", r#"{"spec":{"health":{"rise":2}}}"#, 200),
    (
        "spec.health.interval",
        r#"{"spec":{"health":{"interval":"40s"}}}"#,
        200,
    ),
    (
        "spec.health.timeout",
        r#"{"spec":{"health":{"timeout":"4s"}}}"#,
        200,
    ),
    (
        "spec.health.functional[].tool",
        r#"{"spec":{"health":{"functional":[{"tool":"echo","arguments":{"message":"x"}}]}}}"#,
        200,
    ),
    (
        "spec.health.functional[].arguments",
        r#"{"spec":{"health":{"functional":[{"tool":"echo","arguments":{"message":"x"}}]}}}"#,
        200,
    ),
    ("spec.identity", r#"{"spec":{"identity":"none"}}"#, 200),
    (
        "spec.identity.jwt.header",
        r#"{"spec":{"identity":{"jwt":{"header":"X-A"}},"source":{"builtin":null,"mcp":{"url":"https://example.com/mcp"}}}}"#,
        200,
    ),
    (
        "spec.limits.rate",
        r#"{"spec":{"limits":{"rate":"1000000/1s"}}}"#,
        200,
    ),
    ("spec.replicas", r#"{"spec":{"replicas":64}}"#, 422),
    (
        "spec.idle_timeout",
        r#"{"spec":{"idle_timeout":"1m"}}"#,
        422,
    ),
    ("spec.lease", r#"{"spec":{"lease":"1h"}}"#, 200),
    (
        "spec.source.builtin",
        r#"{"spec":{"source":{"builtin":"admin"}}}"#,
        422,
    ),
    (
        "spec.source.http.headers.*",
        r#"{"spec":{"source":{"builtin":null,"http":{"instances":[{"host":"example.com","port":80}],"headers":{"x":"$secret"}}}}}"#,
        422,
    ),
    (
        "spec.source.mcp.headers.*",
        r#"{"spec":{"source":{"builtin":null,"mcp":{"url":"https://example.com/mcp","headers":{"x":"$secret"}}}}}"#,
        422,
    ),
    (
        "spec.source.mcp.auth.oauth.client_secret",
        r#"{"spec":{"source":{"builtin":null,"mcp":{"url":"https://example.com/mcp","auth":{"oauth":{"grant":"client_credentials","client_id":"a","client_secret":"$secret"}}}}}}"#,
        422,
    ),
    (
        "spec.source.process.args[]",
        r#"{"spec":{"source":{"builtin":null,"process":{"command":"sh","args":["-c","id"]}}}}"#,
        403,
    ),
    (
        "spec.source.process.command",
        r#"{"spec":{"source":{"builtin":null,"process":{"command":"/usr/bin/id"}}}}"#,
        403,
    ),
    (
        "spec.source.process.cwd",
        r#"{"spec":{"source":{"builtin":null,"process":{"command":"id","cwd":"/"}}}}"#,
        403,
    ),
    (
        "spec.source.process.env.*",
        r#"{"spec":{"source":{"builtin":null,"process":{"command":"id","env":{"x":"$secret"}}}}}"#,
        403,
    ),
    (
        "spec.tools.allow[]",
        r#"{"spec":{"tools":{"allow":["*"]}}}"#,
        200,
    ),
    (
        "spec.tools.deny[]",
        r#"{"spec":{"tools":{"deny":["echo"]}}}"#,
        200,
    ),
    ("spec.validate", r#"{"spec":{"validate":"all"}}"#, 200),
];

/// Below these a field of a service says how much of it there is, or where and how it is reached: all of it is of that
/// service alone.
const OF_ITS_OWN: &[&str] = &[
    "spec.health.functional[].expect.",
    "spec.health.performance.",
    "spec.health.recovery.",
    "spec.health.security.",
    "spec.limits.",
    "spec.source.http.",
    "spec.source.mcp.",
];

/// What no document speaks of, written all the same.
const NOT_THERE: &[&str] = &[
    r#"{"owner":"admin"}"#,
    r#"{"id":"01890a5d-ac96-774b-bcce-b302099a8057"}"#,
    r#"{"version":99}"#,
    r#"{"revision":1}"#,
    r#"{"permissions":["host:execute"]}"#,
    r#"{"spec":{"owner":"admin"}}"#,
    r#"{"spec":{"sandbox":"none"}}"#,
    r#"{"spec":{"access":["*"]}}"#,
    r#"{"spec":{"extends":{"template":"runs","sealed":{"a":"$secret"}}}}"#,
];

const OF_KEYS: &[Row] = &[
    ("name", r#"{"name":"admin"}"#, 409),
    ("user", r#"{"user":"admin"}"#, 403),
    ("role", r#"{"role":"admin"}"#, 403),
    ("permissions[]", r#"{"permissions":["host:execute"]}"#, 403),
    ("services[]", r#"{"services":["*"]}"#, 201),
    ("environments[]", r#"{"environments":["prod"]}"#, 201),
    ("expires_in", r#"{"expires_in":"3650d"}"#, 201),
    ("rotate_every", r#"{"rotate_every":"30d"}"#, 201),
];

const OF_GRANTS: &[Row] = &[
    ("to", r#"{"to":"user:admin"}"#, 201),
    (
        "service",
        r#"{"service":"victim","to":"user:mallory"}"#,
        404,
    ),
    ("permissions[]", r#"{"permissions":["host:execute"]}"#, 422),
];

/// Bodies of one field each, about a service or a key of another user.
const OF_OTHERS: &[(&str, &[Row])] = &[
    (
        "label_service_revision",
        &[("revision", r#"{"revision":1}"#, 404)],
    ),
    ("rollback_service", &[("to", r#"{"to":1}"#, 404)]),
    (
        "rotate_key",
        &[
            ("overlap", r#"{"overlap":"0s"}"#, 404),
            ("expires_in", r#"{"expires_in":"1d"}"#, 404),
        ],
    ),
];

/// Method and path of an operation, and the fields of its body.
struct Operation {
    method: String,
    path: String,
    fields: BTreeSet<String>,
}

fn operation(name: &str) -> Operation {
    let found = operations().into_iter().find(|(one, _)| one == name);
    found.unwrap_or_else(|| panic!("there is no {name}")).1
}

/// Those that take a body.
fn operations() -> Vec<(String, Operation)> {
    let document: Value = serde_json::from_str(&Api::openapi()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() {
                continue;
            }
            let mut fields = BTreeSet::new();
            gather(&document, schema, String::new(), &mut fields);
            let found = Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                fields,
            };
            all.push((operation["operationId"].as_str().unwrap().to_owned(), found));
        }
    }
    all
}

/// The places of values in what a schema describes.
fn gather(document: &Value, schema: &Value, path: String, fields: &mut BTreeSet<String>) {
    assert!(path.len() < 200, "{path}");
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return gather(document, target, path, fields);
    }
    if schema["readOnly"] == true || schema["type"] == "null" {
        return;
    }
    let choices = ["oneOf", "anyOf", "allOf"];
    let choices = choices.iter().filter_map(|key| schema[*key].as_array());
    let choices: Vec<&Value> = choices.flatten().collect();
    for choice in &choices {
        gather(document, choice, path.clone(), fields);
    }
    let dot = if path.is_empty() { "" } else { "." };
    let members = schema["properties"].as_object();
    for (name, member) in members.into_iter().flatten() {
        gather(document, member, format!("{path}{dot}{name}"), fields);
    }
    if schema["additionalProperties"].is_object() {
        let member = &schema["additionalProperties"];
        gather(document, member, format!("{path}{dot}*"), fields);
    }
    if schema["items"].is_object() {
        gather(document, &schema["items"], format!("{path}[]"), fields);
    }
    let is_leaf = choices.is_empty()
        && members.is_none()
        && !schema["additionalProperties"].is_object()
        && !schema["items"].is_object();
    if is_leaf && !path.is_empty() {
        fields.insert(path);
    }
}

/// Merges as RFC 7396 says.
fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        into.clone_from(patch);
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let object = into.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            object.remove(name);
        } else {
            merge(object.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// What one who wants more has to begin with: a service of his own, another user's with something sealed, and a
/// template that runs programs and is not approved.
struct World {
    home: Home,
    secret: String,
    before: Vec<String>,
}

impl World {
    async fn new() -> Self {
        let home = open().await;
        for name in ["mallory", "victoria"] {
            let draft = json!({"name": name, "roles": ["user"], "limits": {}});
            UserDraft::from_json(&draft).unwrap();
            made(&home, As::User("admin"), "users", &draft).await;
        }
        let remote = json!({"name": "victim", "enabled": false, "spec": {"source": {"mcp": {
            "url": "https://example.com/mcp", "headers": {"Authorization": "Bearer hers"}}}}});
        let victim = made(&home, As::User("victoria"), "services", &remote).await;
        let secret = victim["spec"]["source"]["mcp"]["headers"]["Authorization"].as_str();
        let secret = secret.unwrap_or_else(|| panic!("{victim}")).to_owned();
        let runs = json!({"name": "runs", "spec": {"source": {"process": {"command": "id"}}}});
        made(&home, As::User("admin"), "templates", &runs).await;
        made(
            &home,
            As::User("admin"),
            "toolsets",
            &json!({"name": "hers", "services": [{"service": "victim"}]}),
        )
        .await;
        let key = json!({"name": "her-key"});
        made(&home, As::User("victoria"), "keys", &key).await;
        let mut world = Self {
            home,
            secret,
            before: Vec::new(),
        };
        world.make_mine("mine").await;
        world.before = world.power().await;
        world
    }

    async fn make_mine(&self, name: &str) {
        let mine = json!({"name": name, "enabled": false, "spec": {"source": {"builtin": "demo"}}});
        made(&self.home, MALLORY, "services", &mine).await;
    }

    /// What he can do and see, beside what is his own.
    async fn power(&self) -> Vec<String> {
        let mut power = Vec::new();
        let command = json!({"name": "t-runs", "spec": {"source": {"process": {"command": "id"}}}});
        let empty = json!({});
        for (method, path, body) in [
            ("GET", "auth/whoami", None),
            ("GET", "users", None),
            ("GET", "roles", None),
            ("GET", "policies", None),
            ("GET", "audit", None),
            ("GET", "status", None),
            ("GET", "templates/runs", None),
            ("GET", "toolsets/hers", None),
            ("GET", "services/victim", None),
            ("GET", "services/victim/calls", None),
            ("GET", "services/victim/logs", None),
            ("DELETE", "services/victim", None),
            ("POST", "services/victim/start", Some(&empty)),
            ("POST", "services/victim/tools/echo/call", Some(&empty)),
            ("POST", "services", Some(&command)),
            ("DELETE", "keys/her-key", None),
        ] {
            let path = format!("/api/v1/{path}");
            let answer = match body {
                Some(body) => self.home.ask_with(MALLORY, (method, &path), body).await,
                None => self.home.ask(MALLORY, method, &path).await,
            };
            let is_whoami = path.ends_with("whoami");
            let whoami = if is_whoami {
                answer.json()
            } else {
                Value::Null
            };
            let (held, roles) = (&whoami["permissions"], &whoami["user"]["roles"]);
            power.push(format!("{method} {path}: {} {held} {roles}", answer.status));
        }
        for list in ["services", "keys", "grants", "toolsets", "events"] {
            let path = format!("/api/v1/{list}");
            let answer = self.home.ask(MALLORY, "GET", &path).await;
            for hers in [r#""name":"victim""#, r#""service":"victim""#, "her-key"] {
                assert!(!answer.text().contains(hers), "{path}: {}", answer.text());
            }
        }
        power
    }

    /// Writes, and looks what came of it.
    async fn tries(&self, asked: (&str, &str), draft: &Value, row: (&str, u16)) -> Option<String> {
        let text = draft.to_string().replace("$secret", &self.secret);
        let draft: Value = serde_json::from_str(&text).unwrap();
        let answer = self.home.ask_with(MALLORY, asked, &draft).await;
        let seen = answer.status.as_u16();
        let power = self.power().await;
        assert_eq!(power, self.before, "after {asked:?} {draft}");
        if seen / 100 == 2 {
            assert!(!answer.text().contains("Bearer hers"), "{}", answer.text());
        }
        (seen != row.1).then(|| {
            format!(
                "{asked:?} {}: {seen}, not {}: {}",
                row.0,
                row.1,
                answer.text()
            )
        })
    }
}

async fn made(home: &Home, who: As, list: &str, draft: &Value) -> Value {
    let path = format!("/api/v1/{list}");
    let answer = home.ask_with(who, ("POST", &path), draft).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text());
    answer.json()
}

/// Every field of an operation stands in its rows, or below what is its own.
fn is_whole(name: &str, rows: &[Row], own: &[&str]) -> Vec<String> {
    let fields = operation(name).fields;
    let known = |field: &String| {
        rows.iter().any(|row| row.0 == field) || own.iter().any(|part| field.starts_with(part))
    };
    let lacking = fields.iter().filter(|field| !known(field));
    let lacking = lacking.map(|field| format!("{name}: there is no row for {field}"));
    let gone = rows.iter().filter(|row| !fields.contains(row.0));
    let gone = gone.map(|row| format!("{name}: there is no field {}", row.0));
    lacking.chain(gone).collect()
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_operation_with_a_body_is_in_a_table() {
    let own = [
        "create_service",
        "update_service",
        "apply_bundle",
        "create_key",
        "create_grant",
    ];
    let mut wrong = Vec::new();
    for (name, _) in operations() {
        let is_known = own.contains(&&*name)
            || ASKING.contains(&&*name)
            || REFUSED.iter().any(|row| row.0 == name)
            || OF_OTHERS.iter().any(|row| row.0 == name);
        if !is_known {
            wrong.push(name);
        }
    }
    wrong.extend(is_whole("create_service", OF_SERVICES, OF_ITS_OWN));
    wrong.extend(is_whole("update_service", OF_SERVICES, OF_ITS_OWN));
    wrong.extend(is_whole("create_key", OF_KEYS, &[]));
    wrong.extend(is_whole("create_grant", OF_GRANTS, &[]));
    for (name, rows) in OF_OTHERS {
        wrong.extend(is_whole(name, rows, &[]));
    }
    none(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_of_a_service_gives_its_writer_more() {
    let world = World::new().await;
    let (create, update) = (operation("create_service"), operation("update_service"));
    let mut wrong = Vec::new();
    let all = OF_SERVICES.iter().map(|row| (row.0, row.1, row.2));
    let others = NOT_THERE.iter().map(|patch| (*patch, *patch, 422));
    for (number, (field, patch, status)) in all.chain(others).enumerate() {
        let patch: Value = serde_json::from_str(patch).unwrap();
        let draft = |name: &str| {
            let mut draft =
                json!({"name": name, "enabled": false, "spec": {"source": {"builtin": "demo"}}});
            merge(&mut draft, &patch);
            draft
        };
        let fine = if status == 200 { 201 } else { status };
        let asked = (&*create.method, &*create.path);
        wrong.extend(
            world
                .tries(asked, &draft(&format!("t-{number}")), (field, fine))
                .await,
        );
        let mine = format!("m-{number}");
        world.make_mine(&mine).await;
        let path = update.path.replace("{service}", &mine);
        wrong.extend(
            world
                .tries((&update.method, &path), &draft(&mine), (field, status))
                .await,
        );
        // Another user's is not there.
        let path = update.path.replace("{service}", "victim");
        let answer = world
            .home
            .ask_with(MALLORY, (&update.method, &path), &draft("victim"))
            .await;
        assert!(!answer.status.is_success(), "{field}: {}", answer.text());
    }
    none(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_of_a_key_or_a_grant_gives_its_writer_more() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    for (number, (field, patch, status)) in OF_KEYS.iter().enumerate() {
        let mut draft = json!({"name": format!("t-{number}")});
        merge(&mut draft, &serde_json::from_str(patch).unwrap());
        wrong.extend(
            world
                .tries(("POST", "/api/v1/keys"), &draft, (field, *status))
                .await,
        );
    }
    for (field, patch, status) in OF_GRANTS {
        let mut draft =
            json!({"service": "mine", "to": "role:client", "permissions": ["mcp:read"]});
        merge(&mut draft, &serde_json::from_str(patch).unwrap());
        wrong.extend(
            world
                .tries(("POST", "/api/v1/grants"), &draft, (field, *status))
                .await,
        );
    }
    // Of what is shared with him he can share nothing on.
    let shared = json!({"service": "victim", "to": "user:mallory", "permissions": ["mcp:read"]});
    let grant = made(&world.home, As::User("victoria"), "grants", &shared).await;
    let on = json!({"service": "victim", "to": "user:mallory", "permissions": ["mcp:manage"]});
    let answer = world
        .home
        .ask_with(MALLORY, ("POST", "/api/v1/grants"), &on)
        .await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let path = format!("/api/v1/grants/{}", grant["id"].as_str().unwrap());
    world.home.ask(As::User("victoria"), "DELETE", &path).await;
    none(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_gives_what_an_operation_refuses() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    for (name, status) in REFUSED {
        let Operation { method, path, .. } = operation(name);
        let path = path
            .replace("{user}", "mallory")
            .replace("{role}", "user")
            .replace("{template}", "runs")
            .replace("{toolset}", "hers")
            .replace("{policy}", "none");
        let body = json!({
            "name": "t", "roles": ["admin"], "permissions": ["mcp:manage"], "approved": true, "effect": "allow",
            "users": ["mallory"], "spec": {"source": {"builtin": "demo"}}, "services": [{"service": "victim"}],
            "password": "a good long password", "limits": {},
        });
        let fitting = operation(name).fields;
        let mut body = body;
        let members = body.as_object_mut().unwrap();
        members.retain(|member, _| {
            fitting
                .iter()
                .any(|field| field.starts_with(member.as_str()))
        });
        if name.ends_with("_policy") {
            members.insert("services".to_owned(), json!(["victim"]));
        }
        wrong.extend(world.tries((&method, &path), &body, (name, *status)).await);
    }
    for (name, rows) in OF_OTHERS {
        let Operation { method, path, .. } = operation(name);
        let path = path
            .replace("{service}", "victim")
            .replace("{label}", "x")
            .replace("{key}", "her-key");
        for (field, body, status) in *rows {
            let body: Value = serde_json::from_str(body).unwrap();
            wrong.extend(world.tries((&method, &path), &body, (field, *status)).await);
        }
    }
    none(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_applied_gives_no_more_than_its_parts() {
    let world = World::new().await;
    let fields = operation("apply_bundle").fields;
    let services = operation("create_service").fields;
    let mut wrong = Vec::new();
    for field in &fields {
        let is_of_service = field
            .strip_prefix("services[].")
            .is_some_and(|own| services.contains(own));
        let is_refused = ["services[]", "toolsets[]", "templates[]"];
        let is_refused = is_refused.iter().any(|part| field.starts_with(part));
        let is_form = matches!(&**field, "vaxel" | "format");
        if !(is_of_service || is_refused || is_form) {
            wrong.push(format!("apply_bundle: there is no row for {field}"));
        }
    }
    for (number, (field, patch, status)) in OF_SERVICES.iter().enumerate() {
        if *status == 200 {
            continue;
        }
        let mut draft = json!({"name": format!("t-{number}"), "enabled": false, "spec": {"source": {"builtin": "demo"}}});
        merge(&mut draft, &serde_json::from_str(patch).unwrap());
        let text = json!([draft]).to_string().replace("$secret", &world.secret);
        let document: Value = serde_json::from_str(&text).unwrap();
        let answer = world
            .home
            .ask_with(MALLORY, ("POST", "/api/v1/apply"), &document)
            .await;
        if answer.status.is_success() {
            wrong.push(format!("{field} was applied: {}", answer.text()));
        }
        assert_eq!(world.power().await, world.before, "{field}");
    }
    let set = json!({"name": "t", "services": [{"service": "victim"}]});
    let template =
        json!({"name": "t", "approved": true, "spec": {"source": {"process": {"command": "id"}}}});
    let document =
        |part: &str, value: &Value| json!({"vaxel": "bundle", "format": 1, part: [value]});
    for (part, value) in [("toolsets", &set), ("templates", &template)] {
        let apply = ("POST", "/api/v1/apply");
        let answer = world
            .home
            .ask_with(MALLORY, apply, &document(part, value))
            .await;
        assert!(!answer.status.is_success(), "{part}: {}", answer.text());
        assert_eq!(world.power().await, world.before, "{part}");
    }
    none(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_runs_what_an_approved_template_runs_and_nothing_else() {
    let world = World::new().await;
    let runs = json!({"source": {"process": {"command": "id"}}});
    let open = json!({"name": "open", "approved": true, "spec": runs});
    made(&world.home, As::User("admin"), "templates", &open).await;
    let mut draft = json!({"name": "t-open", "enabled": false, "extends": {"template": "open"}});
    let mine = made(&world.home, MALLORY, "services", &draft).await;
    assert_eq!(mine["owner"], "mallory");
    for (field, value) in [
        ("command", json!("sh")),
        ("args", json!(["-c", "id"])),
        ("env", json!({"LD_PRELOAD": "/tmp/x"})),
        ("cwd", json!("/")),
    ] {
        draft["spec"] = json!({"source": {"process": {field: value}}});
        draft["name"] = json!(format!("t-{field}"));
        let asked = ("POST", "/api/v1/services");
        let answer = world.home.ask_with(MALLORY, asked, &draft).await;
        assert_eq!(answer.status, 403, "{field}: {}", answer.text());
    }
    assert_eq!(world.power().await, world.before);
}
