//! Clients of 2024-11-05: one stream for everything that they are told, an address to post to.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{
    Client, Rig, Script, Upstream,
    client::{Message, Stream},
    wait_for,
};

/// A client with its stream.
pub(crate) struct Oldest {
    client: Client,
    stream: Stream,
}

impl Oldest {
    /// Opens a stream at `path` and says hello.
    pub(crate) async fn connect(rig: &Rig, path: &str, capabilities: &str) -> Self {
        let mut oldest = Self::open(rig, path).await;
        let able: Value = serde_json::from_str(capabilities).unwrap();
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2024-11-05", "capabilities": able,
            "clientInfo": {"name": "test", "version": "1"}}});
        oldest.tell(&hello).await;
        let hello = oldest.hear().await;
        assert_eq!(hello["result"]["protocolVersion"], "2024-11-05", "{hello}");
        oldest
            .tell(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await;
        oldest
    }

    async fn open(rig: &Rig, path: &str) -> Self {
        Self::open_as(rig, &rig.keys[0], path).await.unwrap()
    }

    /// Opens a stream with this key, on which nothing was said yet; `Err` is the status of the refusal.
    pub(crate) async fn open_as(rig: &Rig, key: &str, path: &str) -> Result<Self, u16> {
        let client = Client::silent(rig.address, key);
        let mut stream = client.clone().at(path).send(Method::GET, "").await;
        if stream.status != 200 {
            return Err(stream.status.as_u16());
        }
        let endpoint = stream.data().await.unwrap();
        Ok(Self {
            client: client.at(&endpoint),
            stream,
        })
    }

    pub(crate) async fn tell(&self, message: &Value) {
        let taken = self.client.post(&message.to_string()).await;
        assert_eq!((taken.status, &*taken.text), (202, ""));
    }

    pub(crate) async fn hear(&mut self) -> Value {
        self.stream.event().await.expect("the stream ended")
    }

    pub(crate) async fn say(&mut self, message: &Message) -> Value {
        let body = self.client.body(message);
        self.tell(&serde_json::from_str(&body).unwrap()).await;
        self.hear().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_2024_uses_servers_of_both_eras() {
    let rig = Rig::start();
    let modern = Upstream::modern(|_| None).await;
    rig.add_http("new", &modern).await;
    rig.add_stdio("old", &Script::legacy(Script::ECHO)).await;
    let mut oldest = Oldest::connect(&rig, "/sse", "{}").await;
    let list = oldest.say(&Message::new("tools/list", "")).await;
    let names: Vec<&Value> = list["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| &tool["name"])
        .collect();
    assert_eq!(
        names,
        ["new__echo", "new__other", "old__echo", "old__other"]
    );
    for tool in ["new__echo", "old__echo"] {
        let answer = oldest
            .say(&Message::call(tool, r#"{"a":1.0}"#).id("\"x\""))
            .await;
        assert_eq!(answer["id"], "x");
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(r#"{"a":1.0}"#), "{text}");
    }
    let mut single = Oldest::connect(&rig, "/sse/old", "{}").await;
    let answer = single.say(&Message::call("echo", "{}")).await;
    assert!(answer["result"]["content"].is_array(), "{answer}");
    let unknown = oldest.say(&Message::call("nothing", "{}")).await;
    assert_eq!(unknown["error"]["code"], -32602);
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_questions_and_news_come_on_the_same_stream() {
    let rig = Rig::start();
    let script = Script::legacy(
        r#"
note("notifications/progress", progressToken=token, progress=1)
say({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage",
     "params": {"messages": [{"role": "user", "content": {"type": "text", "text": "?"}}], "maxTokens": 1}})
text(json.dumps(hear()["result"]))
"#,
    );
    let served = rig.add_stdio("up", &script).await;
    let mut oldest = Oldest::connect(&rig, "/sse", r#"{"sampling":{}}"#).await;
    let progress = oldest
        .say(&Message::call("up__echo", "{}").token("\"t\""))
        .await;
    assert_eq!(progress["params"]["progressToken"], "t");
    let question = oldest.hear().await;
    assert_eq!(question["method"], "sampling/createMessage");
    let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "!"}});
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
    oldest.tell(&reply).await;
    let answer = oldest.hear().await;
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), said);
    rig.put("up", &served, None, None);
    let news = oldest.hear().await;
    assert_eq!(news["method"], "notifications/tools/list_changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_its_owners_alone_and_ends_with_its_connection() {
    let rig = Rig::start();
    let oldest = Oldest::connect(&rig, "/sse", "{}").await;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let path = oldest.client.path.clone();
    let stranger = Client::silent(rig.address, &rig.keys[1]).at(&path);
    assert_eq!(stranger.post(ping).await.status, 404);
    let nobody = stranger.without("authorization");
    assert_eq!(nobody.post(ping).await.status, 401);
    assert_eq!(oldest.client.post(ping).await.status, 202);
    let Oldest { client, stream } = oldest;
    drop(stream);
    let gone = async {
        while client.post(ping).await.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, gone)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_with_the_stream_that_its_question_was_asked_on() {
    let rig = Rig::start();
    let script = Script::legacy(
        r#"
say({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {"messages": []}})
"#,
    );
    let served = rig.add_stdio("up", &script).await;
    let mut oldest = Oldest::connect(&rig, "/sse", r#"{"sampling":{}}"#).await;
    let question = oldest.say(&Message::call("up__echo", "{}")).await;
    assert_eq!(question["method"], "sampling/createMessage");
    drop(oldest);
    rig.idle(&served).await;
    wait_for("the server to hear of it", || {
        let told = rig.told("up");
        let mut told = told.iter();
        told.any(|line| line.contains("notifications/cancelled"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_nowhere_is_said() {
    let rig = Rig::start();
    let client = Client::silent(rig.address, &rig.keys[0]);
    for (verb, path, status) in [
        (Method::GET, "/sse/nothing", 404),
        (Method::POST, "/sse", 405),
        (Method::GET, "/messages?session=x", 405),
        (Method::POST, "/messages?session=x", 404),
        (Method::POST, "/messages", 404),
    ] {
        let answer = client.clone().at(path).send(verb.clone(), "{}").await;
        assert_eq!(answer.status, status, "{verb} {path}");
    }
    // A client that does not say hello first is told so on its stream.
    let mut rude = Oldest::open(&rig, "/sse").await;
    let answer = rude.say(&Message::new("tools/list", "")).await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("initialize"),
        "{answer}"
    );
    assert_eq!(answer["id"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_find_their_way_past_any_number_of_calls() {
    let rig = Rig::start();
    // Asks once, when as many calls as are answered at once are waiting for it.
    let script = Script::legacy(
        r#"
if not held:
    say({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {"messages": []}})
held.append(id)
if len(held) == 64:
    while hear().get("id") != "q":
        pass
    for one in held:
        text("done", one)
"#,
    );
    rig.add_stdio("up", &script).await;
    let mut oldest = Oldest::connect(&rig, "/sse", r#"{"sampling":{}}"#).await;
    let call = |id: usize| Message::call("up__echo", "{}").id(&id.to_string());
    let question = oldest.say(&call(0)).await;
    assert_eq!(question["method"], "sampling/createMessage");
    for id in 1..64 {
        let body = oldest.client.body(&call(id));
        oldest.tell(&serde_json::from_str(&body).unwrap()).await;
    }
    let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "!"}});
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
    oldest.tell(&reply).await;
    for _ in 0..64 {
        let answer = oldest.hear().await;
        assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
    }
}
