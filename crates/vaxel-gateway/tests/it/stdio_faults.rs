//! Children that do everything wrong: each harms only its own calls, which end with a clear error.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use vaxel_core::{call::Outcome, quantity::Span, service::Limits};

use crate::harness::{Client, Plan, Rig, Script, Terms, client::Message, wait_for};

fn said(answer: &Value) -> &str {
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text in {answer}"))
}

fn blamed(answer: &Value) -> &str {
    let message = answer["error"]["message"].as_str();
    message.unwrap_or_else(|| panic!("no error in {answer}"))
}

fn terms(timeout: Duration) -> Terms {
    Terms {
        limits: Limits {
            timeout: Some(Span(timeout)),
            ..Limits::default()
        },
        ..Terms::default()
    }
}

/// Whether something of this kind was reported as garbage.
async fn reported(script: &Script, part: &str) {
    wait_for(part, || {
        let garbage = script.garbage.lock();
        garbage.iter().any(|text| text.contains(part)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_standard_output_is_reported_and_passed_over() {
    let rig = Rig::start();
    let script = Script::modern(
        "os.write(1, b'Listening on nothing\\n{broken\\n\\xff\\xfe\\n[1,2]\\n{\"a\":1}\\n\\n\\r\\n')\ntext('fine')",
    );
    rig.add_stdio("up", &script).await;
    for _ in 0..3 {
        assert_eq!(said(&rig.modern().call("up__echo", "{}").await), "fine");
    }
    for part in ["Listening on nothing", "{broken", "no JSON-RPC message"] {
        reported(&script, part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_over_the_limit_costs_only_the_call_that_it_answers() {
    let mut plan = Plan::default();
    plan.config.line_max = 100_000;
    let rig = Rig::start_with(&plan);
    let script = Script::legacy("text('x' * params['arguments']['size'])");
    let served = rig
        .add_stdio_on("up", &script, terms(Duration::from_millis(500)))
        .await;
    let client = rig.modern();
    let large = client.call("up__echo", r#"{"size":3000000}"#).await;
    assert!(!blamed(&large).is_empty());
    reported(&script, "limit 100000").await;
    rig.limit("up", &served, Limits::default());
    assert_eq!(
        said(&client.call("up__echo", r#"{"size":5}"#).await),
        "xxxxx"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_and_unknown_answers_reach_nobody() {
    let rig = Rig::start();
    let script = Script::legacy(
        "text('once')\ntext('again')\nfor other in [999999, 'x', None, -1, 1.5]:\n    text('stray', other)",
    );
    rig.add_stdio("up", &script).await;
    for client in [rig.modern(), rig.legacy().await] {
        for _ in 0..5 {
            assert_eq!(said(&client.call("up__echo", "{}").await), "once");
        }
    }
    reported(&script, "nobody waits for").await;
}

/// Starts `count` calls and waits until the child has heard of all.
async fn all_waiting(rig: &Rig, client: &Client, count: usize) -> JoinSet<Value> {
    let mut calls = JoinSet::new();
    for number in 0..count {
        let client = client.clone();
        let message = Message::call("up__echo", "{}").id(&number.to_string());
        let message = if number % 2 == 0 {
            message
        } else {
            message.token("1")
        };
        calls.spawn(async move { client.say(&message).await.json() });
    }
    wait_for("all calls to arrive", || {
        let told = rig.told("up");
        let calls = told.iter().filter(|line| line.contains("tools/call"));
        (calls.count() >= count).then_some(())
    })
    .await;
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_exits_ends_every_waiting_call_at_once() {
    let rig = Rig::start();
    let script = Script::modern("held.append(id)\nif len(held) == 6:\n    sys.exit(3)");
    let served = rig.add_stdio("up", &script).await;
    let mut calls = all_waiting(&rig, &rig.modern(), 6).await;
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(
            blamed(&answer).contains("closed its standard output"),
            "{answer}"
        );
    }
    assert!(served.link.closed().await.contains("standard output"));
    let next = rig.modern().call("up__echo", "{}").await;
    assert!(
        blamed(&next).contains("`up` cannot take calls now"),
        "{next}"
    );
    for record in [rig.record().await, rig.record().await] {
        assert_eq!(record.outcome, Outcome::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_closes_only_its_output_is_as_good_as_gone() {
    let rig = Rig::start();
    let script = Script::legacy("os.close(1)\ntime.sleep(1000)");
    let served = rig.add_stdio("up", &script).await;
    let answer = rig.legacy().await.call("up__echo", "{}").await;
    assert!(
        blamed(&answer).contains("closed its standard output"),
        "{answer}"
    );
    rig.idle(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_closes_only_its_input_is_not_waited_for() {
    let rig = Rig::start();
    let script = Script::legacy("os.close(0)\ntext('bye')\ntime.sleep(1000)");
    rig.add_stdio("up", &script).await;
    let client = rig.modern();
    assert_eq!(said(&client.call("up__echo", "{}").await), "bye");
    let refused = wait_for_refusal(&client).await;
    assert!(refused.contains("standard input"), "{refused}");
}

/// The first error that is not about time.
async fn wait_for_refusal(client: &Client) -> String {
    for _ in 0..5 {
        let answer = client.call("up__echo", "{}").await;
        let blamed = blamed(&answer);
        if !blamed.contains("in time") {
            return blamed.to_owned();
        }
    }
    panic!("every call ran into its deadline")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_never_answers_costs_the_deadline_and_hears_of_it() {
    let rig = Rig::start();
    let script = Script::modern("if params['name'] == 'other':\n    text('other')");
    let served = rig
        .add_stdio_on("up", &script, terms(Duration::from_secs(1)))
        .await;
    let client = rig.modern();
    for message in [
        Message::call("up__echo", "{}"),
        Message::call("up__echo", "{}").token("\"t\""),
    ] {
        let answer = client.say(&message).await.json();
        assert!(
            blamed(&answer).contains("did not answer in time"),
            "{answer}"
        );
        assert_eq!(rig.record().await.outcome, Outcome::Timeout);
    }
    wait_for("the cancellations", || {
        let told = rig.told("up");
        let cancelled = told
            .iter()
            .filter(|line| line.contains("notifications/cancelled"));
        (cancelled.count() == 2).then_some(())
    })
    .await;
    rig.limit("up", &served, Limits::default());
    assert_eq!(said(&client.call("up__other", "{}").await), "other");
    rig.idle(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_notifications_drown_neither_the_call_nor_its_neighbours() {
    let rig = Rig::start();
    let script = Script::modern(
        "for n in range(20000):\n    note('notifications/progress', progressToken=token or n, progress=n)\n    note('notifications/message', level='info', data=n)\ntext('after the flood')",
    );
    rig.add_stdio("up", &script).await;
    rig.add_stdio("calm", &Script::modern("text('calm')")).await;
    let client = rig.modern();
    let streamed = client.clone();
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        let message = Message::call("up__echo", "{}").token("7");
        streamed.say(&message).await.json()
    });
    assert_eq!(said(&client.call("calm__echo", "{}").await), "calm");
    assert_eq!(
        said(&calls.join_next().await.unwrap().unwrap()),
        "after the flood"
    );
    assert_eq!(
        said(&client.call("up__echo", "{}").await),
        "after the flood"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_asks_gets_a_pong_or_a_refusal() {
    let rig = Rig::start();
    let script = Script::legacy(
        "answers = []\nfor method in ['ping', 'sampling/createMessage', 'elicitation/create', 'roots/list', 'what/ever']:\n    say({'jsonrpc': '2.0', 'id': 'q-' + method, 'method': method, 'params': {}})\n    reply = hear()\n    answers.append([reply['id'], reply['error']['code'] if 'error' in reply else reply['result']])\ntext(json.dumps(answers))",
    );
    rig.add_stdio("up", &script).await;
    let answer = rig.modern().call("up__echo", "{}").await;
    let answers: Value = serde_json::from_str(said(&answer)).unwrap();
    let expected = serde_json::json!([
        ["q-ping", {}],
        ["q-sampling/createMessage", -32601],
        ["q-elicitation/create", -32601],
        ["q-roots/list", -32601],
        ["q-what/ever", -32601],
    ]);
    assert_eq!(answers, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_read_is_busy_instead_of_a_trap() {
    let rig = Rig::start();
    let script = Script::modern("time.sleep(1000)");
    let mut terms = Terms::default();
    terms.limits.concurrency = Some(10_000);
    rig.add_stdio_on("up", &script, terms).await;
    let client = rig.modern();
    // The pipe takes 64 KiB, the queue 1,024 messages.
    let filler = format!(r#"{{"x":"{}"}}"#, "y".repeat(8_000));
    let mut calls = JoinSet::new();
    for _ in 0..1_100 {
        let (client, filler) = (client.clone(), filler.clone());
        calls.spawn(async move { client.call("up__echo", &filler).await });
    }
    let told = calls.join_next().await.unwrap().unwrap();
    assert!(
        blamed(&told).contains("does not read its requests"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_no_server_is_not_waited_for() {
    let rig = Rig::start();
    let script = Script::broken("sys.exit('no license found')");
    let refused = rig.try_stdio("up", &script).await.err().unwrap();
    assert!(
        refused.to_string().contains("closed its standard output"),
        "{refused}"
    );
}
