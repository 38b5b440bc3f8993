//! Sealed values: nowhere in clear, and only where they belong.

use serde_json::{Value, json};
use vaxel_control::Change;
use vaxel_core::{
    failure::Kind,
    lifecycle::Lifecycle,
    service::{ServiceDraft, Source},
};

use crate::home::{Home, everything_in, folder, open, reference, scripted};

const PLANTED: &str = "planted-9f86d081884c7d65";

fn remote(name: &str, url: &str, token: &str) -> Value {
    json!({ "name": name, "enabled": false, "spec": { "source": { "mcp": {
        "url": url, "headers": { "Authorization": token }
    } } } })
}

async fn update(
    home: &Home,
    name: &str,
    draft: &Value,
) -> Result<(), vaxel_core::failure::Failure> {
    let draft = Box::new(ServiceDraft::from_json(draft).unwrap());
    let change = Change::UpdateService {
        service: reference(name),
        draft,
        expected: None,
    };
    home.submit(change).await.map(drop)
}

fn header(source: &Source) -> String {
    match source {
        Source::Mcp(mcp) => mcp.headers["Authorization"].clone(),
        Source::Process(_) | Source::Http(_) | Source::Builtin(_) => panic!("not a remote server"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_reaches_its_process_and_stands_nowhere_in_clear() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = scripted("files", &["ok"]);
    draft["spec"]["source"]["process"]["env"] = json!({ "TOKEN": PLANTED });
    let made = home.create(draft).await.unwrap();
    assert!(!format!("{:?}", made.resource).contains(PLANTED));
    home.wait_for("files", Lifecycle::Active).await;
    let seen = home
        .call("files__env", json!({ "name": "TOKEN" }))
        .await
        .unwrap();
    assert_eq!(seen, PLANTED);

    // What was read can be written back: the reference stands for the value.
    let read = home.get("files").await.resource;
    let again = json!({ "name": "files", "tags": ["x"], "spec": read.spec });
    update(&home, "files", &again).await.unwrap();
    let seen = home
        .call("files__env", json!({ "name": "TOKEN" }))
        .await
        .unwrap();
    assert_eq!(seen, PLANTED);
    home.control.stop().await;
    let kept = everything_in(folder.path());
    let planted = PLANTED.as_bytes();
    assert!(!kept.windows(planted.len()).any(|window| window == planted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_works_in_its_own_service_and_towards_its_own_host_only() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(remote("one", "https://one.example/mcp", PLANTED))
        .await
        .unwrap();
    let reference = header(&home.get("one").await.resource.spec.source);
    assert!(reference.starts_with("secret:"));

    let refused = home
        .create(remote("two", "https://one.example/mcp", &reference))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid);
    assert_eq!(
        refused.issues[0].path,
        "spec.source.mcp.headers.Authorization"
    );

    let moved = remote("one", "https://evil.example/mcp", &reference);
    let refused = update(&home, "one", &moved).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Invalid);
    update(
        &home,
        "one",
        &remote("one", "https://one.example/v2/mcp", &reference),
    )
    .await
    .unwrap();
    assert_eq!(
        header(&home.get("one").await.resource.spec.source),
        reference
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_root_key_is_not_needed_after_the_next_start() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = scripted("files", &["ok"]);
    draft["spec"]["source"]["process"]["env"] = json!({ "TOKEN": PLANTED });
    home.create(draft).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    home.control.stop().await;
    drop(home);
    let key = folder.path().join("data/root.key");
    let old = folder.path().join("data/root.key.old");
    std::fs::rename(&key, &old).unwrap();
    // The start after the next one does without it.
    for is_there in [true, false] {
        let home = open(folder.path()).await;
        home.wait_for("files", Lifecycle::Active).await;
        let token = home.call("files__env", json!({ "name": "TOKEN" })).await;
        assert_eq!(token.unwrap(), PLANTED);
        home.control.stop().await;
        if is_there {
            std::fs::remove_file(&old).unwrap();
        }
    }
}
