use serde_json::{Value, json};
use vaxel_core::time::Clock;
use vaxel_gateway::{BuiltinRequest, BuiltinServer};
use vaxel_store::{Config, Store};

use super::Demo;

struct Asked {
    demo: Demo,
    _folder: tempfile::TempDir,
}

fn demo() -> Asked {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&Config::new(folder.path())).unwrap();
    Asked {
        demo: Demo::new(store, Clock::system(), "1.2.3".to_owned()),
        _folder: folder,
    }
}

impl Asked {
    async fn ask(&self, method: &str, params: Value) -> Result<Value, i32> {
        let params = params.to_string().into();
        let answer = self
            .demo
            .handle(BuiltinRequest {
                method: method.to_owned(),
                params,
            })
            .await;
        answer
            .map(|bytes| serde_json::from_slice(&bytes).unwrap())
            .map_err(|error| error.code)
    }

    async fn call(&self, tool: &str, arguments: Value) -> (bool, String) {
        let params = json!({ "name": tool, "arguments": arguments });
        let result = self.ask("tools/call", params).await.unwrap();
        let text = result["content"][0]["text"].as_str().unwrap().to_owned();
        (result["isError"] == true, text)
    }
}

#[tokio::test]
async fn every_result_is_complete_and_says_who_made_it() {
    let demo = demo();
    for (method, params) in [
        ("server/discover", json!({})),
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("resources/read", json!({ "uri": "demo://about" })),
        (
            "prompts/get",
            json!({ "name": "introduce", "arguments": { "name": "Ada" } }),
        ),
        ("tools/call", json!({ "name": "clock" })),
    ] {
        let result = demo.ask(method, params).await.unwrap();
        assert_eq!(result["resultType"], "complete", "{method}");
        let server = &result["_meta"]["io.modelcontextprotocol/serverInfo"];
        assert_eq!(server["version"], "1.2.3", "{method}");
        // MCP 2026-07-28, `CacheableResult`: lists and reads say how long they hold.
        let cacheable = method != "prompts/get" && method != "tools/call";
        assert_eq!(result["ttlMs"].is_u64(), cacheable, "{method}");
    }
}

#[tokio::test]
async fn what_the_protocol_does_not_allow_is_a_protocol_error() {
    let demo = demo();
    assert_eq!(demo.ask("ping", json!({})).await, Err(-32601));
    assert_eq!(
        demo.ask("tools/call", json!({ "name": "nothing" })).await,
        Err(-32602)
    );
    assert_eq!(demo.ask("tools/call", json!({})).await, Err(-32602));
    assert_eq!(demo.ask("tools/call", json!([])).await, Err(-32602));
    assert_eq!(
        demo.ask("prompts/get", json!({ "name": "nothing" })).await,
        Err(-32602)
    );
    assert_eq!(
        demo.ask("resources/read", json!({ "uri": "demo://x" }))
            .await,
        Err(-32602)
    );
}

#[tokio::test]
async fn what_a_model_can_correct_is_an_error_of_the_tool() {
    let demo = demo();
    let (failed, text) = demo.call("echo", json!({ "mesage": "x" })).await;
    assert!(failed && text.contains("mesage"), "{text}");
    let (failed, text) = demo.call("note_read", json!({ "name": "missing" })).await;
    assert!(failed && text.contains("`missing`"), "{text}");
    assert!(
        demo.call("note_write", json!({ "name": "", "text": "x" }))
            .await
            .0
    );
    assert!(
        demo.call("echo", json!({ "message": "x".repeat(70_000) }))
            .await
            .0
    );
}

#[tokio::test]
async fn notes_are_kept_under_their_names() {
    let demo = demo();
    demo.call("note_write", json!({ "name": "b", "text": "two" }))
        .await;
    demo.call("note_write", json!({ "name": "a", "text": "one" }))
        .await;
    demo.call("note_write", json!({ "name": "b", "text": "three" }))
        .await;
    assert_eq!(
        demo.call("note_list", json!({})).await,
        (false, "a\nb".to_owned())
    );
    assert_eq!(
        demo.call("note_read", json!({ "name": "b" })).await,
        (false, "three".to_owned())
    );
}
