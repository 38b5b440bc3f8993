//! Every method of MCP, asked by everybody on every kind of endpoint, by every transport in both eras: what each
//! is answered stands in one table. A method that is not in it does not compile, or fails.

use std::sync::Arc;

use serde_json::{Value, json};
use vaxel_core::{
    id::Id,
    principal::{Principal, Proof},
    quota::Quota,
    rights::Sources,
    time::Timestamp,
    user::{UserDraft, UserResource},
};
use vaxel_mcp::method::Method;

use crate::{
    harness::{
        Client, Rig,
        client::{LEGACY, Message},
        socket::Socket,
    },
    oldest_clients::Oldest,
    sets::{serve, world},
};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const TASKS: &str = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;

/// Nobody; a user without a role; one with the role `user` whose it is not; the one with the role `user` whose it
/// is; an admin.
const ASKERS: [&str; 5] = ["nobody", "bare", "bob", "anna", "root"];

/// The kinds of endpoints, and what the one with a name is called.
const SCOPES: [(&str, &str); 3] = [("all", ""), ("service", "/new"), ("set", "/sets/some")];

/// How a message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ModernPost,
    ModernSocket,
    LegacyPost,
    LegacySocket,
    Oldest,
}

const MODERN: [Way; 2] = [Way::ModernPost, Way::ModernSocket];
const OLD: [Way; 3] = [Way::LegacyPost, Way::LegacySocket, Way::Oldest];

/// An endpoint, what is answered there, in the order of [`ASKERS`], and to which methods. `ok`; how many entries a
/// list has, or addresses are acknowledged; `denied`; `unknown` as what is not there; `404` where the endpoint itself
/// is as if it were not there; `401`; `shut` where there is no session to ask in; `no method`; `taken` of what has no
/// answer. All transports of an era answer the same.
type Row = (&'static str, [&'static str; 5], &'static [&'static str]);

/// Messages that nobody waits for an answer to.
const NOTIFICATIONS: &[&str] = &[
    "notifications/progress",
    "notifications/message",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
    "notifications/subscriptions/acknowledged",
    "notifications/tasks",
];

const IN_2026: &[Row] = &[
    (
        "all",
        ["401", "denied", "unknown", "ok", "ok"],
        &[
            "tools/call",
            "prompts/get",
            "resources/read",
            "completion/complete",
        ],
    ),
    (
        "all",
        ["401", "denied", "0", "9", "9"],
        &["tools/list", "resources/list"],
    ),
    (
        "all",
        ["401", "taken", "taken", "taken", "taken"],
        NOTIFICATIONS,
    ),
    (
        "all",
        ["401", "no method", "no method", "no method", "no method"],
        &[
            "initialize",
            "ping",
            "resources/subscribe",
            "resources/unsubscribe",
            "logging/setLevel",
            "sampling/createMessage",
            "roots/list",
            "elicitation/create",
            "vendor/thing",
        ],
    ),
    (
        "all",
        ["401", "denied", "ok", "ok", "ok"],
        &["server/discover"],
    ),
    (
        "all",
        ["401", "denied", "0", "6", "6"],
        &["prompts/list", "resources/templates/list"],
    ),
    (
        "all",
        ["401", "denied", "0", "1", "1"],
        &["subscriptions/listen"],
    ),
    (
        "all",
        ["401", "denied", "unknown", "ok", "unknown"],
        &["tasks/get", "tasks/update", "tasks/cancel"],
    ),
    (
        "service",
        ["401", "denied", "404", "ok", "ok"],
        &["tools/call", "prompts/get", "completion/complete"],
    ),
    (
        "service",
        ["401", "denied", "404", "3", "3"],
        &["tools/list", "resources/list"],
    ),
    (
        "service",
        ["401", "taken", "404", "taken", "taken"],
        NOTIFICATIONS,
    ),
    (
        "service",
        ["401", "no method", "404", "no method", "no method"],
        &[
            "initialize",
            "ping",
            "resources/subscribe",
            "resources/unsubscribe",
            "logging/setLevel",
            "sampling/createMessage",
            "roots/list",
            "elicitation/create",
        ],
    ),
    (
        "service",
        ["401", "denied", "404", "ok", "ok"],
        &["server/discover", "resources/read"],
    ),
    (
        "service",
        ["401", "denied", "404", "2", "2"],
        &["prompts/list", "resources/templates/list"],
    ),
    (
        "service",
        ["401", "denied", "404", "1", "1"],
        &["subscriptions/listen"],
    ),
    (
        "service",
        ["401", "denied", "404", "ok", "unknown"],
        &["tasks/get", "tasks/update", "tasks/cancel"],
    ),
    (
        "service",
        ["401", "no method", "404", "ok", "ok"],
        &["vendor/thing"],
    ),
    (
        "set",
        ["401", "denied", "404", "ok", "ok"],
        &[
            "tools/call",
            "prompts/get",
            "resources/read",
            "completion/complete",
        ],
    ),
    ("set", ["401", "denied", "404", "2", "2"], &["tools/list"]),
    (
        "set",
        ["401", "taken", "404", "taken", "taken"],
        NOTIFICATIONS,
    ),
    (
        "set",
        ["401", "no method", "404", "no method", "no method"],
        &[
            "initialize",
            "ping",
            "resources/subscribe",
            "resources/unsubscribe",
            "logging/setLevel",
            "sampling/createMessage",
            "roots/list",
            "elicitation/create",
            "vendor/thing",
        ],
    ),
    (
        "set",
        ["401", "denied", "404", "ok", "ok"],
        &["server/discover"],
    ),
    (
        "set",
        ["401", "denied", "404", "1", "1"],
        &[
            "prompts/list",
            "resources/list",
            "resources/templates/list",
            "subscriptions/listen",
        ],
    ),
    (
        "set",
        ["401", "denied", "404", "ok", "unknown"],
        &["tasks/get", "tasks/update", "tasks/cancel"],
    ),
];
const BEFORE: &[Row] = &[
    (
        "all",
        ["401", "shut", "unknown", "ok", "ok"],
        &[
            "tools/call",
            "prompts/get",
            "resources/read",
            "resources/subscribe",
            "completion/complete",
        ],
    ),
    (
        "all",
        ["401", "shut", "0", "9", "9"],
        &["tools/list", "resources/list"],
    ),
    (
        "all",
        ["401", "shut", "taken", "taken", "taken"],
        NOTIFICATIONS,
    ),
    ("all", ["401", "denied", "ok", "ok", "ok"], &["initialize"]),
    (
        "all",
        ["401", "shut", "ok", "ok", "ok"],
        &[
            "ping",
            "server/discover",
            "resources/unsubscribe",
            "logging/setLevel",
        ],
    ),
    (
        "all",
        ["401", "shut", "0", "6", "6"],
        &["prompts/list", "resources/templates/list"],
    ),
    (
        "all",
        ["401", "shut", "no method", "no method", "no method"],
        &[
            "subscriptions/listen",
            "tasks/get",
            "tasks/update",
            "tasks/cancel",
            "sampling/createMessage",
            "roots/list",
            "elicitation/create",
            "vendor/thing",
        ],
    ),
    (
        "service",
        ["401", "shut", "404", "ok", "ok"],
        &[
            "tools/call",
            "ping",
            "server/discover",
            "prompts/get",
            "resources/read",
            "resources/subscribe",
            "resources/unsubscribe",
            "completion/complete",
            "logging/setLevel",
            "vendor/thing",
        ],
    ),
    (
        "service",
        ["401", "shut", "404", "3", "3"],
        &["tools/list", "resources/list"],
    ),
    (
        "service",
        ["401", "shut", "404", "taken", "taken"],
        NOTIFICATIONS,
    ),
    (
        "service",
        ["401", "denied", "404", "ok", "ok"],
        &["initialize"],
    ),
    (
        "service",
        ["401", "shut", "404", "2", "2"],
        &["prompts/list", "resources/templates/list"],
    ),
    (
        "service",
        ["401", "shut", "404", "no method", "no method"],
        &[
            "subscriptions/listen",
            "tasks/get",
            "tasks/update",
            "tasks/cancel",
            "sampling/createMessage",
            "roots/list",
            "elicitation/create",
        ],
    ),
    (
        "set",
        ["401", "shut", "404", "ok", "ok"],
        &[
            "tools/call",
            "prompts/get",
            "resources/read",
            "resources/subscribe",
            "completion/complete",
        ],
    ),
    ("set", ["401", "shut", "404", "2", "2"], &["tools/list"]),
    (
        "set",
        ["401", "shut", "404", "taken", "taken"],
        NOTIFICATIONS,
    ),
    ("set", ["401", "denied", "404", "ok", "ok"], &["initialize"]),
    (
        "set",
        ["401", "shut", "404", "ok", "ok"],
        &[
            "ping",
            "server/discover",
            "resources/unsubscribe",
            "logging/setLevel",
        ],
    ),
    (
        "set",
        ["401", "shut", "404", "1", "1"],
        &["prompts/list", "resources/list", "resources/templates/list"],
    ),
    (
        "set",
        ["401", "shut", "404", "no method", "no method"],
        &[
            "subscriptions/listen",
            "tasks/get",
            "tasks/update",
            "tasks/cancel",
            "sampling/createMessage",
            "roots/list",
            "elicitation/create",
            "vendor/thing",
        ],
    ),
];

/// What is asked: the members of `params`. No wildcard, so that a new method has to say.
fn params(method: Method, scope: &str, task: &str) -> String {
    let own = |name: &str| match scope {
        "service" => name.to_owned(),
        _ => format!("new__{name}"),
    };
    match method {
        Method::Initialize => r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}"#.to_owned(),
        Method::ToolsCall => format!(r#""name":"{}","arguments":{{}}"#, own("read")),
        Method::PromptsGet => format!(r#""name":"{}""#, own("greet")),
        Method::ResourcesRead | Method::Subscribe | Method::Unsubscribe => {
            r#""uri":"new://open/1""#.to_owned()
        }
        Method::Complete => format!(
            r#""ref":{{"type":"ref/prompt","name":"{}"}},"argument":{{"name":"a","value":"b"}}"#,
            own("greet")
        ),
        Method::Listen => {
            r#""notifications":{"toolsListChanged":true,"resourceSubscriptions":["new://open/1"]}"#
                .to_owned()
        }
        Method::TasksGet | Method::TasksUpdate | Method::TasksCancel => {
            format!(r#""taskId":"{task}""#)
        }
        Method::SetLevel => r#""level":"info""#.to_owned(),
        Method::Cancelled => r#""requestId":"none""#.to_owned(),
        Method::Progress => r#""progressToken":"none","progress":1"#.to_owned(),
        Method::ResourceUpdated => r#""uri":"new://open/1""#.to_owned(),
        Method::LogMessage => r#""level":"info","data":"forged""#.to_owned(),
        Method::Ping
        | Method::Discover
        | Method::ToolsList
        | Method::PromptsList
        | Method::ResourcesList
        | Method::TemplatesList
        | Method::CreateMessage
        | Method::RootsList
        | Method::Elicit
        | Method::Initialized
        | Method::ToolsChanged
        | Method::PromptsChanged
        | Method::ResourcesChanged
        | Method::Acknowledged
        | Method::TaskStands
        | Method::Other => String::new(),
    }
}

/// Its name on the wire; what has no name of its own stands for every extension.
fn name(method: Method) -> &'static str {
    match method {
        Method::Other => "vendor/thing",
        known => known.as_str(),
    }
}

fn is_told(method: Method) -> bool {
    name(method).starts_with("notifications/")
}

fn principal(name: &str) -> Principal {
    let roles = match name {
        "bare" => json!([]),
        "root" => json!(["admin"]),
        _ => json!(["user"]),
    };
    let draft = UserDraft::from_json(&json!({"name": name, "roles": roles})).unwrap();
    let user = UserResource {
        id: Id::new(NOW),
        name: draft.name,
        kind: draft.kind,
        version: 1,
        title: None,
        roles: draft.roles,
        // What is counted is tested elsewhere.
        limits: Some(Quota::NONE),
        disabled: false,
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
    };
    let rights = Sources::new([], [], []).rights_of(&user);
    let who = (Proof::User(user.id), user.name.shared().clone());
    Principal::of_user(who, Arc::new(rights), None)
}

/// An open way of one asker, or the word for why there is none.
enum Line {
    Post(Client),
    Socket(Client, Box<Socket>),
    Oldest(Box<Oldest>),
    Shut(String),
}

impl Line {
    async fn open(rig: &Rig, key: &str, way: Way, below: &str) -> Self {
        let path = format!("/mcp{below}");
        let client = match way {
            Way::ModernPost | Way::ModernSocket => Client::modern(rig.address, key).able(TASKS),
            Way::LegacyPost | Way::LegacySocket | Way::Oldest => Client::silent(rig.address, key),
        };
        let mut client = client.at(&path);
        match way {
            Way::ModernPost => Self::Post(client),
            Way::LegacyPost => {
                let hello = client.initialize(LEGACY).await;
                let Some(id) = hello.header("mcp-session-id") else {
                    return Self::Shut(word(hello.status, &hello.json()));
                };
                client.set("mcp-session-id", id);
                client.set("mcp-protocol-version", LEGACY);
                Self::Post(client)
            }
            Way::ModernSocket | Way::LegacySocket => {
                let key = format!("Bearer {key}");
                let headers = [("authorization", &*key), ("sec-websocket-protocol", "mcp")];
                let opened = Socket::try_open(rig.address, &path, &headers).await;
                let mut socket = match opened {
                    Ok(socket) => socket,
                    Err(status) => return Self::Shut(status.to_string()),
                };
                if way == Way::LegacySocket {
                    let hello = socket.initialize(LEGACY, &json!({})).await;
                    if hello.get("result").is_none() {
                        return Self::Shut(word(200, &hello));
                    }
                }
                Self::Socket(client, Box::new(socket))
            }
            Way::Oldest => {
                let path = format!("/sse{below}");
                match Oldest::open_as(rig, key, &path).await {
                    Err(status) => Self::Shut(status.to_string()),
                    Ok(mut oldest) => {
                        let hello = params(Method::Initialize, "", "");
                        let hello = oldest.say(&Message::new("initialize", &hello)).await;
                        if hello.get("result").is_none() {
                            return Self::Shut(word(200, &hello));
                        }
                        Self::Oldest(Box::new(oldest))
                    }
                }
            }
        }
    }

    /// The word for what is answered.
    async fn ask(&mut self, method: Method, params: &str) -> String {
        let message = Message::new(name(method), params).id("\"asked\"");
        match self {
            Self::Shut(word) if method == Method::Initialize && word != "403" => word.clone(),
            Self::Shut(word) => match word.as_str() {
                "401" | "404" => word.clone(),
                _ => "shut".to_owned(),
            },
            // A session was opened.
            _ if method == Method::Initialize && self.is_old() => "ok".to_owned(),
            Self::Post(client) => {
                let id: Value = serde_json::from_str(&format!("{{{params}}}")).unwrap();
                let mut client = client.clone();
                if let Some(task) = id["taskId"].as_str() {
                    client.set("mcp-name", task);
                }
                if is_told(method) {
                    let body = format!(
                        r#"{{"jsonrpc":"2.0","method":"{}","params":{{{params}}}}}"#,
                        message.method
                    );
                    let told = client.with("mcp-method", &message.method).post(&body).await;
                    return match told.status {
                        202 => "taken".to_owned(),
                        status => word(status, &told.json()),
                    };
                }
                let mut stream = client.open(&message).await;
                let status = stream.status.as_u16();
                if stream.is_events() {
                    return word(status, &stream.event().await.unwrap());
                }
                word(status, &stream.read().await.json())
            }
            Self::Socket(client, socket) => {
                if is_told(method) {
                    socket.send(&told(&message)).await;
                    let is_modern = client.modern;
                    let next = if is_modern { "server/discover" } else { "ping" };
                    let next = client.body(&Message::new(next, "").id("\"next\""));
                    socket.send(&serde_json::from_str(&next).unwrap()).await;
                    let answer = socket.answer(&json!("next")).await;
                    assert!(answer.is_object());
                    return "taken".to_owned();
                }
                let body = client.body(&message);
                socket.send(&serde_json::from_str(&body).unwrap()).await;
                if method == Method::Listen {
                    return word(200, &socket.next().await);
                }
                word(200, &socket.answer(&json!("asked")).await)
            }
            Self::Oldest(oldest) => {
                if is_told(method) {
                    oldest.tell(&told(&message)).await;
                    oldest.say(&Message::new("ping", "")).await;
                    return "taken".to_owned();
                }
                word(200, &oldest.say(&message).await)
            }
        }
    }

    const fn is_old(&self) -> bool {
        match self {
            Self::Post(client) | Self::Socket(client, _) => !client.modern,
            Self::Oldest(_) => true,
            Self::Shut(_) => false,
        }
    }
}

fn told(message: &Message) -> Value {
    let params: Value = serde_json::from_str(&format!("{{{}}}", message.params)).unwrap();
    json!({"jsonrpc": "2.0", "method": message.method, "params": params})
}

/// Whether an answer is more than a refusal.
fn gives(word: &str) -> bool {
    word == "ok"
        || word
            .parse::<usize>()
            .is_ok_and(|count| (1..400).contains(&count))
}

fn word(status: u16, answer: &Value) -> String {
    if matches!(status, 401) || (status == 404 && answer.get("jsonrpc").is_none()) {
        return status.to_string();
    }
    if let Some(error) = answer.get("error") {
        let message = error["message"].as_str().unwrap_or_default();
        return match error["code"].as_i64() {
            Some(-32601) => "no method".to_owned(),
            _ if message.starts_with("Unknown") || message.starts_with("There is no such") => {
                "unknown".to_owned()
            }
            Some(1403) => "denied".to_owned(),
            _ => answer.to_string(),
        };
    }
    if answer["method"] == "notifications/subscriptions/acknowledged" {
        let known = answer["params"]["notifications"]["resourceSubscriptions"].as_array();
        return known.map_or(0, Vec::len).to_string();
    }
    let Some(result) = answer.get("result") else {
        return answer.to_string();
    };
    let lists = ["tools", "prompts", "resources", "resourceTemplates"];
    let list = lists.iter().find_map(|list| result[*list].as_array());
    list.map_or_else(|| "ok".to_owned(), |list| list.len().to_string())
}

/// A task of anna's at an endpoint.
async fn task(rig: &Rig, key: &str, (scope, below): (&str, &str)) -> String {
    let client = Client::modern(rig.address, key).able(TASKS);
    let client = client.at(&format!("/mcp{below}"));
    let message = Message::new("tools/call", &params(Method::ToolsCall, scope, ""));
    let begun = client.say(&message).await.json();
    let id = begun["result"]["taskId"].as_str();
    id.unwrap_or_else(|| panic!("{begun}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_answers_everybody_as_the_table_says() {
    let rig = Rig::start();
    let _upstreams = world(&rig).await;
    serve(
        &rig,
        &[(
            "some",
            json!([{"service": "new", "tools": ["read*"], "prompts": ["greet"],
        "resources": ["new://open/*"]}]),
        )],
    );
    let keys = ASKERS.map(|who| match who {
        "nobody" => "no-key".to_owned(),
        who => rig.admit(principal(who)),
    });
    let mut wrong = Vec::new();
    for (table, ways) in [(IN_2026, &MODERN[..]), (BEFORE, &OLD[..])] {
        let era = ways[0];
        for (scope, below) in SCOPES {
            let task = task(&rig, &keys[3], (scope, below)).await;
            let mut lines = Vec::new();
            for key in &keys {
                for way in ways {
                    lines.push(Line::open(&rig, key, *way, below).await);
                }
            }
            for method in Method::all() {
                let params = params(method, scope, &task);
                let mut seen = Vec::new();
                for lines in lines.chunks_mut(ways.len()) {
                    let mut words = Vec::new();
                    for line in lines {
                        words.push(line.ask(method, &params).await);
                    }
                    // What comes over a connection is refused when that is opened, all at once.
                    if words.iter().all(|word| !gives(word))
                        && words.iter().any(|word| word != "shut")
                    {
                        words.retain(|word| word != "shut");
                    }
                    words.dedup();
                    seen.push(words.join(" or "));
                }
                let name = name(method);
                let found = |row: &&Row| row.0 == scope && row.2.contains(&name);
                let expected = table.iter().find(found).map(|row| row.1);
                if expected.is_none_or(|expected| seen != expected) {
                    wrong.push(format!("{era:?} {scope} {name}: {seen:?}"));
                }
            }
        }
        for method in table.iter().flat_map(|row| row.2) {
            assert!(
                Method::all().any(|one| name(one) == *method),
                "there is no {method}"
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "they were answered:\n{}",
        wrong.join("\n")
    );
}
