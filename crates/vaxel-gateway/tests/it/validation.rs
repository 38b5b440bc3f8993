//! Services whose calls are checked against the schemas of their tools: what does not fit comes back
//! with its places named, whoever calls and whoever is called.

use serde_json::{Value, json};
use vaxel_core::{
    balance::Balance,
    call::{CallRecord, Outcome},
    failure::{Failure, Kind},
    principal::Principal,
    service::Validate,
};
use vaxel_gateway::{ServiceEntry, ToolCall, ToolReply};

use crate::harness::{Client, Reply, Rig, Seen, Served, Terms, Upstream, about, client::Message};

/// Tools with schemas. `echo` says back what it was told; `give` gives as result what its arguments
/// hold, on a stream when they say so; `odd` has schemas that nobody can use; `ask` asks once.
fn typed(seen: &Seen) -> Option<Reply> {
    let input = json!({
        "type": "object",
        "properties": {"limit": {"type": "integer", "minimum": 1}, "path": {"type": "string"}},
        "required": ["path"],
        "additionalProperties": false
    });
    let output =
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let outside = json!({"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:1/x"}}});
    let region = json!({"type": "object", "properties": {
        "region": {"type": "string", "maxLength": 5, "x-mcp-header": "Region"}}});
    let tools = json!([
        {"name": "echo", "inputSchema": input},
        {"name": "give", "inputSchema": {"type": "object"}, "outputSchema": output},
        {"name": "odd", "inputSchema": outside},
        {"name": "oddly", "inputSchema": {"type": "object"}, "outputSchema": outside},
        {"name": "ask", "inputSchema": input, "outputSchema": output},
        {"name": "mirrored", "inputSchema": region},
    ]);
    let params = &seen.json["params"];
    let result = match (seen.method(), params["name"].as_str()) {
        ("tools/list", _) => {
            json!({"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"})
        }
        ("tools/call", Some("give")) => params["arguments"]["result"].clone(),
        ("tools/call", Some("ask")) if params["inputResponses"].is_null() => {
            let form = json!({"type": "object", "properties": {"name": {"type": "string"}}});
            let question = json!({"method": "elicitation/create", "params": {
                "mode": "form", "message": "Who?", "requestedSchema": form}});
            json!({"resultType": "input_required", "inputRequests": {"who": question},
                "requestState": "mine"})
        }
        ("tools/call", Some("ask")) => {
            json!({"resultType": "complete", "content": [], "structuredContent": {"n": "one"}})
        }
        _ => return None,
    };
    let text = seen.result(&result);
    if params["arguments"]["stream"] == true {
        return Some(Reply::Events(vec![text]));
    }
    Some(Reply::Json(200, text))
}

fn validated(validate: Validate) -> Terms {
    Terms {
        validate,
        ..Terms::default()
    }
}

/// The text of a result that a tool marked as an error.
fn tool_error(answer: &Value) -> &str {
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap()
}

async fn rest(
    rig: &Rig,
    served: &Served,
    tool: &str,
    arguments: &Value,
) -> Result<ToolReply, Failure> {
    let call = ToolCall {
        principal: Principal::system(),
        service: served.id,
        tool: tool.to_owned(),
        arguments: arguments.to_string().into(),
        timeout: None,
    };
    rig.gateway.call(call).await
}

async fn failed(rig: &Rig) -> (Outcome, String) {
    let CallRecord { outcome, error, .. } = rig.record().await;
    (outcome, error.unwrap_or_default().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_do_not_fit_come_back_as_an_error_of_the_tool() {
    let rig = Rig::start();
    let modern = Upstream::modern(typed).await;
    let legacy = Upstream::legacy(typed).await;
    rig.add_http_on("new", &modern, validated(Validate::Arguments))
        .await;
    rig.add_http_on("old", &legacy, validated(Validate::Arguments))
        .await;
    let wrong = r#"{"limit":0,"colour":"red"}"#;
    let right = r#"{"path":"/tmp", "limit":1.0}"#;
    for client in [rig.modern(), rig.legacy().await] {
        for (service, upstream) in [("new", &modern), ("old", &legacy)] {
            let alone: Client = client.clone().at(&format!("/mcp/{service}"));
            let doors = [
                (client.clone(), format!("{service}__echo")),
                (alone, "echo".to_owned()),
            ];
            for (client, tool) in doors {
                let before = upstream.seen("tools/call").len();
                let answer = client.say(&Message::call(&tool, wrong)).await;
                assert_eq!(answer.status, 200);
                let answer = answer.json();
                let text = tool_error(&answer);
                for part in [
                    "input schema of `echo`",
                    "/limit must be 1 or more",
                    "/path is missing",
                    "the whole must not have `colour`",
                ] {
                    assert!(text.contains(part), "{text}");
                }
                assert_eq!(answer["result"]["resultType"] == "complete", client.modern);
                let (outcome, error) = failed(&rig).await;
                assert_eq!(outcome, Outcome::Denied);
                assert!(error.contains("/path is missing"), "{error}");
                assert_eq!(upstream.seen("tools/call").len(), before);
                let answer = client.call(&tool, right).await;
                assert!(answer["result"]["isError"].is_null(), "{answer}");
                assert_eq!(rig.record().await.outcome, Outcome::Ok);
                let told = &upstream.seen("tools/call")[before].text;
                assert!(told.contains(right), "as they came: {told}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_checked_unless_the_service_asks() {
    let rig = Rig::start();
    let upstream = Upstream::modern(typed).await;
    rig.add_http("free", &upstream).await;
    rig.add_http_on("half", &upstream, validated(Validate::Arguments))
        .await;
    let client = rig.modern();
    for tool in ["free__echo", "free__odd", "free__oddly", "half__oddly"] {
        let answer = client.call(tool, r#"{"colour":"red"}"#).await;
        assert!(answer["result"]["content"].is_array(), "{tool}: {answer}");
        assert!(answer["result"]["isError"].is_null(), "{tool}: {answer}");
    }
    let broken = r#"{"result":{"content":[],"resultType":"complete"}}"#;
    for tool in ["free__give", "half__give"] {
        let answer = client.call(tool, broken).await;
        assert!(answer["result"]["content"].is_array(), "{tool}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_door_checks_the_same() {
    let rig = Rig::start();
    let upstream = Upstream::modern(typed).await;
    let served = rig
        .add_http_on("new", &upstream, validated(Validate::All))
        .await;
    let refused = rest(&rig, &served, "echo", &json!({"limit": "many"}))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::InvalidArguments);
    let mut paths: Vec<&str> = refused.issues.iter().map(|one| &*one.path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/limit", "/path"]);
    assert_eq!(failed(&rig).await.0, Outcome::Denied);
    assert!(upstream.seen("tools/call").is_empty());
    rest(&rig, &served, "echo", &json!({"path": "/"}))
        .await
        .unwrap();
    let result = json!({"content": [], "structuredContent": {"n": "x"}, "resultType": "complete"});
    let broken = rest(&rig, &served, "give", &json!({ "result": result }))
        .await
        .unwrap_err();
    assert_eq!(broken.kind, Kind::UpstreamProtocol);
    assert_eq!(broken.issues[0].path, "/n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_breaks_its_schema_is_the_fault_of_the_service() {
    let rig = Rig::start();
    let modern = Upstream::modern(typed).await;
    let legacy = Upstream::legacy(typed).await;
    rig.add_http_on("new", &modern, validated(Validate::All))
        .await;
    rig.add_http_on("old", &legacy, validated(Validate::All))
        .await;
    let content = json!([{"type": "text", "text": "SECRET"}]);
    let of = |structured: Value| json!({"resultType": "complete", "content": content, "structuredContent": structured});
    let wrong = [
        (of(json!({"n": "SECRET"})), "/n must be a whole number"),
        (of(json!({})), "/n is missing"),
        (of(Value::Null), "must be an object"),
        (
            json!({"resultType": "complete", "content": content}),
            "has no structured content",
        ),
    ];
    let right = [
        of(json!({"n": 5})),
        json!({"resultType": "complete", "content": content, "isError": true}),
    ];
    for client in [rig.modern(), rig.legacy().await] {
        for tool in ["new__give", "old__give"] {
            for stream in [false, true] {
                let arguments = |result: &Value| json!({"result": result, "stream": stream});
                for (result, problem) in &wrong {
                    let answer = client.call(tool, &arguments(result).to_string()).await;
                    let message = answer["error"]["message"].as_str();
                    let message = message.unwrap_or_else(|| panic!("no error in {answer}"));
                    assert_eq!(answer["error"]["code"], 1502);
                    assert!(message.contains("output schema"), "{message}");
                    assert!(message.contains(problem), "{message}");
                    assert!(!answer.to_string().contains("SECRET"), "{answer}");
                    let (outcome, error) = failed(&rig).await;
                    assert_eq!((outcome, &*error), (Outcome::Error, message));
                }
                for result in &right {
                    let answer = client.call(tool, &arguments(result).to_string()).await;
                    assert_eq!(answer["result"]["content"], content, "{answer}");
                    rig.record().await;
                }
            }
        }
    }
    // A task is not the result yet.
    let task = json!({"resultType": "task", "taskId": "1"});
    let answer = rig
        .modern()
        .call("new__give", &json!({ "result": task }).to_string())
        .await;
    assert_eq!(answer["result"]["resultType"], "task", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_whose_schema_cannot_be_used_says_so_and_harms_no_other() {
    let rig = Rig::start();
    let upstream = Upstream::modern(typed).await;
    let served = rig
        .add_http_on("new", &upstream, validated(Validate::All))
        .await;
    let client = rig.modern();
    for (tool, side) in [("new__odd", "input"), ("new__oddly", "output")] {
        for _ in 0..2 {
            let answer = client.call(tool, r#"{"x":1}"#).await;
            let message = answer["error"]["message"].as_str().unwrap();
            for part in [
                &*format!("{side} schema"),
                "`http://127.0.0.1:1/x`",
                "`validate: none`",
                "`vaxel service edit new`",
            ] {
                assert!(message.contains(part), "{message}");
            }
        }
    }
    assert_eq!(upstream.seen("tools/call").len(), 2, "of `oddly` alone");
    let answer = client.call("new__echo", r#"{"path":"/"}"#).await;
    assert!(answer["result"]["content"].is_array(), "{answer}");
    // What the answer recommends helps.
    rig.gateway.publish(ServiceEntry {
        id: served.id,
        name: "new".parse().unwrap(),
        limits: vaxel_core::service::Limits::default(),
        tools: vaxel_core::service::ToolFilter::default(),
        validate: Validate::None,
        catalog: Some(served.catalog.clone()),
        links: vec![served.link.clone()],
        balance: Balance::default(),
        about: about(),
        unavailable: None,
    });
    let answer = client.call("new__odd", r#"{"x":1}"#).await;
    assert!(answer["result"]["content"].is_array(), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_rounds_is_checked_at_its_ends() {
    let rig = Rig::start();
    let upstream = Upstream::modern(typed).await;
    rig.add_http_on("new", &upstream, validated(Validate::All))
        .await;
    let client = rig.modern().able(r#"{"elicitation":{"form":{}}}"#);
    let answer = client.call("new__ask", r#"{"path":1}"#).await;
    assert!(tool_error(&answer).contains("/path must be a string"));
    let asked = client.call("new__ask", r#"{"path":"/"}"#).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let state = &asked["result"]["requestState"];
    let brought = r#"{"who":{"action":"accept","content":{"name":"Ada"}}}"#;
    let params = format!(
        r#""name":"new__ask","arguments":{{"path":"/"}},"inputResponses":{brought},"requestState":{state}"#
    );
    let ended = client
        .say(&Message::new("tools/call", &params))
        .await
        .json();
    let message = ended["error"]["message"].as_str();
    assert!(
        message.is_some_and(|text| text.contains("/n must be a whole number")),
        "{ended}"
    );
    assert_eq!(upstream.seen("tools/call").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrored_arguments_are_checked_like_others() {
    let rig = Rig::start();
    let upstream = Upstream::modern(typed).await;
    rig.add_http_on("new", &upstream, validated(Validate::Arguments))
        .await;
    let modern = |region: &str| rig.modern().with("mcp-param-region", region);
    let short = Message::call("new__mirrored", r#"{"region":"north"}"#);
    let long = Message::call("new__mirrored", r#"{"region":"northern"}"#);
    assert_eq!(modern("south").say(&short).await.code(), -32020);
    let answer = modern("northern").say(&long).await.json();
    assert!(tool_error(&answer).contains("/region must have 5 characters or fewer"));
    let legacy = rig.legacy().await;
    assert!(tool_error(&legacy.say(&long).await.json()).contains("/region"));
    for client in [modern("north"), legacy] {
        let answer = client.say(&short).await.json();
        assert!(answer["result"]["isError"].is_null(), "{answer}");
    }
    for call in upstream.seen("tools/call") {
        assert_eq!(call.header("mcp-param-region"), Some("north"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_deep_arguments_are_checked_too_or_refused() {
    let rig = Rig::start();
    let upstream = Upstream::modern(typed).await;
    rig.add_http_on("new", &upstream, validated(Validate::Arguments))
        .await;
    let client = rig.modern();
    let long = "x".repeat(600 * 1024);
    let answer = client
        .call("new__echo", &json!({"path": long, "limit": 0}).to_string())
        .await;
    assert!(tool_error(&answer).contains("/limit must be 1 or more"));
    let answer = client
        .call("new__echo", &json!({ "path": long }).to_string())
        .await;
    assert!(answer["result"]["isError"].is_null());
    assert!(upstream.seen("tools/call")[0].text.contains(&long));
    let deep = format!(
        r#"{{"path":{}1{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let answer = rig.legacy().await.call("new__echo", &deep).await;
    let text = tool_error(&answer);
    assert!(
        text.ends_with("the whole cannot be read: recursion limit exceeded"),
        "{text}"
    );
    let no_object = client.call("new__echo", r#"["path"]"#).await;
    assert!(tool_error(&no_object).contains("the whole must be an object, and is an array"));
    let nothing = client
        .say(&Message::new("tools/call", r#""name":"new__echo""#))
        .await
        .json();
    assert!(tool_error(&nothing).contains("/path is missing"));
}
