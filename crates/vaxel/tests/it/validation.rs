//! `--validate`, from the command line to the tool and back.

use serde_json::json;

use crate::harness::{TestVaxel, text, wait_for};

/// Counts, and says how often it was asked to. Its result is what its schema says unless it is told
/// to count backwards.
const COUNTER: &str = r#"
import json, sys
asked = 0
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if id is None:
        continue
    result = {}
    if method == "initialize":
        result = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "counter", "version": "1"},
                  "capabilities": {"tools": {}}}
    elif method == "tools/list":
        result = {"tools": [{"name": "count",
            "inputSchema": {"type": "object", "required": ["to"],
                "additionalProperties": False, "properties": {
                "to": {"type": "integer", "maximum": 9}, "backwards": {"type": "boolean"}}},
            "outputSchema": {"type": "object", "properties": {"sum": {"type": "integer"}}}}]}
    elif method == "tools/call":
        asked += 1
        wrong = message["params"]["arguments"].get("backwards")
        result = {"content": [{"type": "text", "text": "asked %d times" % asked}],
                  "structuredContent": {"sum": "many" if wrong else 45}}
    print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
"#;

#[test]
fn a_service_that_is_validated_hears_only_what_its_tools_take() {
    let vaxel = TestVaxel::start();
    let script = vaxel.home.path().join("counter.py");
    std::fs::write(&script, COUNTER).unwrap();
    let script = script.display().to_string();
    let add = |validate: &'static str| {
        let args = ["service", "add", "counter", "--era", "legacy", "--validate"];
        [&args[..], &[validate, "--", "python3", &script]].concat()
    };
    let refused = text(&vaxel.cli(&add("sometimes")));
    assert!(refused.contains("none, arguments, all"), "{refused}");
    vaxel.ok(&add("all"));
    let shown = vaxel.json(&["service", "show", "counter"]);
    assert_eq!(shown["spec"]["validate"], "all");

    let call = |arguments: &str| vaxel.cli(&["call", "counter__count", "--json", arguments]);
    let wrong = call(r#"{"to":10,"backwards":"no","by":2}"#);
    assert!(!wrong.status.success());
    let said = text(&wrong);
    for part in [
        "The arguments do not fit the input schema of `count`",
        "  it must not have `by`",
        "/to: must be 9 or less",
        "/backwards: must be true or false, and is a string",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let right = call(r#"{"to":9}"#);
    assert_eq!(text(&right).trim(), "asked 1 times");
    let broken = text(&call(r#"{"to":9,"backwards":true}"#));
    assert!(broken.contains("output schema"), "{broken}");
    assert!(broken.contains("/sum: must be a whole number"), "{broken}");
    let expected = [json!("error"), json!("ok"), json!("denied")];
    wait_for("the records of three calls", || {
        let calls = vaxel.json(&["calls"]);
        let calls = calls.as_array().map(Vec::as_slice).unwrap_or_default();
        calls.iter().map(|call| &call["outcome"]).eq(&expected)
    });
}
