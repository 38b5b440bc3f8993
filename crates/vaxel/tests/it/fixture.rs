//! The server under the conformance suite, and that it asks whoever it serves: behind a gateway a
//! client of either era has to be able to use all of its tools.

#![expect(
    deprecated,
    reason = "sampling and roots are deprecated, and still have to be bridged"
)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, CreateMessageRequestParams,
        CreateMessageResult, ElicitRequestParams, ElicitResult, ElicitationAction, Implementation,
        ListRootsResult, ProtocolVersion, Root, SamplingMessage,
    },
    service::{ClientLifecycleMode, RequestContext, serve_client_with_lifecycle},
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::json;

/// The fixture as a program of its own; killed when dropped.
pub(crate) struct Fixture {
    child: Child,
    /// Where it serves.
    pub(crate) url: String,
}

impl Fixture {
    /// Starts one that speaks `legacy`, `modern` or `both`, on a free port.
    pub(crate) fn start(era: &str) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_vaxel"))
            .with_file_name("examples")
            .join("vaxel-conformance-fixture");
        assert!(
            program.exists(),
            "build it first: cargo build -p vaxel --example vaxel-conformance-fixture"
        );
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--era", era])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut url).unwrap();
        let url = url.trim_end().to_owned();
        Self { child, url }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_fixture_asks_clients_of_both_eras_the_same() {
    for (era, lifecycle) in [
        ("legacy", ClientLifecycleMode::Initialize),
        ("modern", modern()),
        ("both", ClientLifecycleMode::Initialize),
        ("both", modern()),
    ] {
        let fixture = Fixture::start(era);
        for (tool, arguments, expected) in [
            (
                "test_sampling",
                json!({"prompt": "how?"}),
                "LLM response: so",
            ),
            (
                "test_elicitation",
                json!({"message": "who?"}),
                "action=accept",
            ),
            (
                "test_elicitation_sep1034_defaults",
                json!({}),
                "action=accept",
            ),
            ("test_elicitation_sep1330_enums", json!({}), "action=accept"),
            ("test_streaming_elicitation", json!({}), "action=accept"),
            (
                "test_input_required_result_elicitation",
                json!({}),
                "Hello, Ada!",
            ),
            (
                "test_input_required_result_sampling",
                json!({}),
                "The model says: so",
            ),
            (
                "test_input_required_result_list_roots",
                json!({}),
                "file:///root",
            ),
            (
                "test_input_required_result_request_state",
                json!({}),
                "state-ok",
            ),
            (
                "test_input_required_result_multiple_inputs",
                json!({}),
                "Ada, so You have 1 roots.",
            ),
            (
                "test_input_required_result_multi_round",
                json!({}),
                "Ada likes blue.",
            ),
            (
                "test_input_required_result_tampered_state",
                json!({}),
                "state-ok",
            ),
            (
                "test_input_required_result_capabilities",
                json!({}),
                "answered 3 questions",
            ),
        ] {
            let arguments = arguments.as_object().unwrap().clone();
            let request = CallToolRequestParams::new(tool).with_arguments(arguments);
            let said = call(&fixture.url, lifecycle.clone(), request);
            assert!(said.contains(expected), "{era} {tool}: {said}");
        }
    }
}

#[test]
fn the_fixture_refuses_the_era_that_it_does_not_speak() {
    for (era, lifecycle) in [
        ("legacy", modern()),
        ("modern", ClientLifecycleMode::Initialize),
    ] {
        let fixture = Fixture::start(era);
        let refused = wait(async {
            let transport = StreamableHttpClientTransport::from_uri(fixture.url.clone());
            serve_client_with_lifecycle(Person, transport, lifecycle)
                .await
                .is_err()
        });
        assert!(refused, "{era}");
    }
}

fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    }
}

fn call(url: &str, lifecycle: ClientLifecycleMode, request: CallToolRequestParams) -> String {
    wait(async {
        let config = StreamableHttpClientTransportConfig::with_uri(url);
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = serve_client_with_lifecycle(Person, transport, lifecycle)
            .await
            .unwrap();
        let answer = client.call_tool(request).await.unwrap();
        client.cancel().await.unwrap();
        serde_json::to_string(&answer).unwrap()
    })
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// A client whose user is called Ada.
struct Person;

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder()
            .enable_sampling()
            .enable_elicitation()
            .enable_roots()
            .build();
        ClientConfig::new(capabilities, Implementation::new("ada", "1.0.0"))
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let answers = json!({
            "name": "Ada", "color": "blue", "ok": true, "value": "v", "username": "ada",
            "email": "ada@example.invalid", "untitledSingle": "option1", "titledSingle": "value1",
            "legacyEnum": "opt1", "untitledMulti": ["option1"], "titledMulti": ["value1"],
        });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(answers))
    }

    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let message = SamplingMessage::assistant_text("so");
        Ok(CreateMessageResult::new(message, "none".to_owned()))
    }

    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![Root::new("file:///root")]))
    }
}
