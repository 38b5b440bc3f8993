//! The Rust SDK as a client, in this process: the same things that `tests/peers/clients/things.mjs`
//! describes.

#![expect(
    deprecated,
    reason = "sampling, log levels and subscriptions of sessions still have to be bridged"
)]

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult,
        ElicitRequestParams, ElicitResult, ElicitationAction, Implementation,
        LoggingMessageNotificationParam, ProgressNotificationParam, ProtocolVersion,
        ResourceUpdatedNotificationParam, SamplingMessage, ServerNotification, SubscriptionFilter,
    },
    service::{
        ClientLifecycleMode, NotificationContext, RequestContext, RunningService, Subscription,
        serve_client_with_lifecycle,
    },
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Cell, Outcome, clients::Report};

/// Between two looks at what a server counts.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Meets one server, as the request says.
pub(super) fn meet(request: &Value) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut cell = Cell::new();
        let peer = match Peer::connect(request).await {
            Ok(peer) => peer,
            Err(error) => {
                return Report {
                    cell,
                    revision: String::new(),
                    failure: Some(format!("no connection: {error:#}")),
                };
            }
        };
        for (thing, wanted) in request["things"].as_object().unwrap() {
            let patience = request["patience"][thing].as_u64().unwrap();
            let patience = Duration::from_millis(patience);
            let done = tokio::time::timeout(patience, peer.does(thing, wanted));
            let outcome = match done.await {
                Ok(Ok(())) => Outcome::Works,
                Ok(Err(error)) => Outcome::Fails(format!("{error:#}")),
                Err(late) => Outcome::Fails(late.to_string()),
            };
            cell.insert(thing.clone(), outcome);
        }
        let revision = peer.revision.clone();
        // Whatever comes of the farewell, the things are done.
        let _ = peer.client.cancel().await;
        Report {
            cell,
            revision,
            failure: None,
        }
    })
}

struct Peer {
    client: RunningService<RoleClient, Person>,
    heard: Arc<Heard>,
    is_modern: bool,
    revision: String,
}

impl Peer {
    async fn connect(request: &Value) -> Result<Self> {
        let text = |member: &str| request[member].as_str().unwrap().to_owned();
        let is_modern = text("era") == "modern";
        let lifecycle = if is_modern {
            let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
            ClientLifecycleMode::Discover { preferred_versions }
        } else {
            ClientLifecycleMode::Initialize
        };
        let config = StreamableHttpClientTransportConfig::with_uri(text("url"));
        let config = config.auth_header(text("key"));
        let transport = StreamableHttpClientTransport::from_config(config);
        let heard = Arc::<Heard>::default();
        let person = Person(Arc::clone(&heard));
        let client = serve_client_with_lifecycle(person, transport, lifecycle).await?;
        let info = client.peer_info().context("the server said nothing")?;
        let revision = info.protocol_version.to_string();
        Ok(Self {
            client,
            heard,
            is_modern,
            revision,
        })
    }

    async fn does(&self, thing: &str, wanted: &Value) -> Result<()> {
        match thing {
            "tool" => self.tool(wanted).await,
            "resource" => self.resource(wanted).await,
            "prompt" => self.prompt(wanted).await,
            "completion" => self.completion(wanted).await,
            "error" | "form" | "sampling" => self.answers(wanted, &Value::Null).await,
            "progress" => self.progress(wanted).await,
            "list" => self.list(wanted).await,
            "update" => self.update(wanted).await,
            "cancel" => self.cancel(wanted).await,
            "log" => self.log(wanted).await,
            other => bail!("`{other}` is not known here"),
        }
    }

    async fn tool(&self, wanted: &Value) -> Result<()> {
        let names = self.names("tools").await?;
        for call in wanted["calls"].as_array().unwrap() {
            let name = call["tool"].as_str().unwrap();
            ensure!(
                names.iter().any(|each| each == name),
                "{name} is not listed"
            );
            self.answers(call, &Value::Null).await?;
        }
        Ok(())
    }

    async fn resource(&self, wanted: &Value) -> Result<()> {
        let uri = wanted["uri"].as_str().unwrap();
        let uris = self.names("resources").await?;
        ensure!(uris.iter().any(|each| each == uri), "{uri} is not listed");
        let params = serde_json::from_value(json!({"uri": uri}))?;
        holds(&self.client.read_resource(params).await?, wanted)
    }

    async fn prompt(&self, wanted: &Value) -> Result<()> {
        let params = json!({"name": wanted["name"], "arguments": wanted["arguments"]});
        let params = serde_json::from_value(params)?;
        holds(&self.client.get_prompt(params).await?, wanted)
    }

    async fn completion(&self, wanted: &Value) -> Result<()> {
        let params = json!({"ref": wanted["ref"], "argument": wanted["argument"]});
        let params = serde_json::from_value(params)?;
        let values = self.client.complete(params).await?.completion.values;
        holds(&values.join(" "), wanted)
    }

    async fn progress(&self, wanted: &Value) -> Result<()> {
        let mark = self.heard.mark();
        self.answers(wanted, &Value::Null).await?;
        self.heard.next(mark, "progress").await;
        Ok(())
    }

    /// After a notification the list is another one.
    async fn list(&self, wanted: &Value) -> Result<()> {
        let kind = wanted["kind"].as_str().unwrap();
        let before = self.names(kind).await?;
        let filter = SubscriptionFilter::builder();
        let filter = match kind {
            "tools" => filter.tools_list_changed(),
            _ => filter.resources_list_changed(),
        };
        let mut watching = self.watch(filter.build()).await?;
        self.answers(wanted, &Value::Null).await?;
        loop {
            watching.next(kind).await?;
            if self.names(kind).await? != before {
                return Ok(());
            }
        }
    }

    async fn update(&self, wanted: &Value) -> Result<()> {
        let uri = wanted["uri"].as_str().unwrap();
        let filter = SubscriptionFilter::builder().resource_subscription(uri);
        if !self.is_modern {
            let params = serde_json::from_value(json!({"uri": uri}))?;
            self.client.subscribe(params).await?;
        }
        let mut watching = self.watch(filter.build()).await?;
        self.answers(wanted, &Value::Null).await?;
        watching.next(uri).await?;
        if !self.is_modern {
            let params = serde_json::from_value(json!({"uri": uri}))?;
            self.client.unsubscribe(params).await?;
        }
        Ok(())
    }

    /// A call that runs, as its progress shows, ends unanswered, and where the server counts, it knows.
    async fn cancel(&self, wanted: &Value) -> Result<()> {
        let witness = wanted["witness"].as_str();
        let before = self.count(witness).await?;
        let mark = self.heard.mark();
        let params = serde_json::from_value(call_of(wanted, &Value::Null))?;
        // What is dropped is cancelled.
        tokio::select! {
            answer = self.client.call_tool(params) => bail!("the call ended by itself: {answer:?}"),
            _ = self.heard.next(mark, "progress") => {}
        }
        while witness.is_some() && self.count(witness).await? == before {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn count(&self, witness: Option<&str>) -> Result<String> {
        let Some(witness) = witness else {
            return Ok(String::new());
        };
        let params = serde_json::from_value(json!({"name": witness}))?;
        let answer = self.client.call_tool(params).await?;
        Ok(serde_json::to_string(&answer.content)?)
    }

    async fn log(&self, wanted: &Value) -> Result<()> {
        let mark = self.heard.mark();
        let mut meta = Value::Null;
        if self.is_modern {
            meta = json!({"io.modelcontextprotocol/logLevel": "debug"});
        } else {
            let params = serde_json::from_value(json!({"level": "debug"}))?;
            self.client.set_level(params).await?;
        }
        let mut call = wanted.clone();
        call["expect"].take();
        self.answers(&call, &meta).await?;
        let expected = wanted["expect"].as_str().unwrap();
        self.heard.next(mark, expected).await;
        Ok(())
    }

    /// Calls a tool, again when it is a switch that first has to be off, and looks at the answer.
    async fn answers(&self, wanted: &Value, meta: &Value) -> Result<()> {
        let until = wanted["until"].as_str().unwrap_or_default();
        let params: rmcp::model::CallToolRequestParams =
            serde_json::from_value(call_of(wanted, meta))?;
        let mut answer = self.client.call_tool(params.clone()).await?;
        if !serde_json::to_string(&answer)?.contains(until) {
            answer = self.client.call_tool(params).await?;
        }
        let failed = answer.is_error == Some(true);
        ensure!(
            failed == (wanted["fails"] == true),
            "an error, or none: {answer:?}"
        );
        holds(&answer, wanted)
    }

    async fn names(&self, kind: &str) -> Result<Vec<String>> {
        if kind == "tools" {
            let tools = self.client.list_all_tools().await?;
            return Ok(tools.into_iter().map(|tool| tool.name.into()).collect());
        }
        let resources = self.client.list_all_resources().await?;
        Ok(resources.into_iter().map(|each| each.uri.clone()).collect())
    }

    /// Asks to hear of changes; a session hears of lists without asking.
    async fn watch(&self, filter: SubscriptionFilter) -> Result<Watching<'_>> {
        if self.is_modern {
            let stream = self.client.listen(filter).await?;
            return Ok(Watching::Stream(Box::new(stream)));
        }
        Ok(Watching::Session(&self.heard, self.heard.mark()))
    }
}

enum Watching<'a> {
    Stream(Box<Subscription>),
    Session(&'a Heard, usize),
}

impl Watching<'_> {
    /// Waits for news of `what`: a kind of list, or the address of a resource.
    async fn next(&mut self, what: &str) -> Result<()> {
        match self {
            Self::Session(heard, mark) => *mark = heard.next(*mark, what).await,
            Self::Stream(subscription) => loop {
                let news = subscription.next().await?.context("the stream ended")?;
                let told = match news {
                    ServerNotification::ToolListChangedNotification(_) => "tools".to_owned(),
                    ServerNotification::ResourceListChangedNotification(_) => {
                        "resources".to_owned()
                    }
                    ServerNotification::ResourceUpdatedNotification(update) => update.params.uri,
                    _ => continue,
                };
                if told == what {
                    break;
                }
            },
        }
        Ok(())
    }
}

fn call_of(wanted: &Value, meta: &Value) -> Value {
    let mut call = json!({"name": wanted["tool"]});
    for (member, value) in [("arguments", &wanted["arguments"]), ("_meta", meta)] {
        if !value.is_null() {
            call[member] = value.clone();
        }
    }
    call
}

fn holds<T: serde::Serialize>(answer: &T, wanted: &Value) -> Result<()> {
    let said = serde_json::to_string(answer)?;
    let expected = wanted["expect"].as_str().unwrap_or_default();
    ensure!(said.contains(expected), "expected {expected}, got {said}");
    Ok(())
}

/// What came unasked, in words, for whoever waits for it.
#[derive(Default)]
struct Heard {
    all: Mutex<Vec<String>>,
    more: Notify,
}

impl Heard {
    fn add(&self, words: String) {
        self.all.lock().push(words);
        self.more.notify_waiters();
    }

    /// Where to begin to look for what comes from now on.
    fn mark(&self) -> usize {
        self.all.lock().len()
    }

    /// The place behind the next words that hold `part`, from `mark` on.
    async fn next(&self, mark: usize, part: &str) -> usize {
        loop {
            let more = self.more.notified();
            let found = self.all.lock()[mark..]
                .iter()
                .position(|words| words.contains(part));
            if let Some(found) = found {
                return mark + found + 1;
            }
            more.await;
        }
    }
}

/// A client whose user is called Ada.
struct Person(Arc<Heard>);

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder()
            .enable_sampling()
            .enable_elicitation()
            .build();
        ClientConfig::new(capabilities, Implementation::new("ada", "1.0.0"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let asks_for_name = serde_json::to_string(&request).is_ok_and(|it| it.contains("\"name\""));
        let answers = if asks_for_name {
            json!({"name": "Ada"})
        } else {
            json!({})
        };
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(answers))
    }

    async fn create_message(
        &self,
        request: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let asked = serde_json::to_value(&request.messages[0]).unwrap_or_default();
        let block = match &asked["content"] {
            Value::Array(blocks) => blocks[0].clone(),
            one => one.clone(),
        };
        let said = format!("you said: {}", block["text"].as_str().unwrap_or_default());
        let message = SamplingMessage::assistant_text(said);
        Ok(CreateMessageResult::new(message, "test".to_owned()))
    }

    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.add("progress".to_owned());
    }

    async fn on_logging_message(
        &self,
        message: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.0.add(message.data.to_string());
    }

    async fn on_resource_updated(
        &self,
        update: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.0.add(update.uri);
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.add("resources".to_owned());
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.add("tools".to_owned());
    }
}
