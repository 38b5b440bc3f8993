//! Sealed values: nowhere in clear, and only where they belong.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use vaxel_auth::{root::RootKeys, web::WebRules};
use vaxel_control::{CallFilter, Change, Page, RootKeyReport};
use vaxel_core::{
    failure::{Failure, Kind},
    lifecycle::Lifecycle,
    principal::{Permission, Permissions, Principal},
    secret::Secret,
    service::{ServiceDraft, Source},
};
use vaxel_gateway::{Keep, Tunables};
use vaxel_store::Store;

use crate::home::{Home, everything_in, folder, open, open_with, reference, scripted, until};

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
    // The next start seals everything anew and removes it; the one after that does without it.
    for _ in 0..2 {
        let home = open(folder.path()).await;
        home.wait_for("files", Lifecycle::Active).await;
        let token = home.call("files__env", json!({ "name": "TOKEN" })).await;
        assert_eq!(token.unwrap(), PLANTED);
        home.sealed_anew().await;
        assert!(!old.exists());
        home.control.stop().await;
    }
}

impl Home {
    async fn replace_root_key(&self) -> Result<RootKeyReport, Failure> {
        let change = Change::ReplaceRootKey(None);
        let replaced = self.control.submit(&self.admin, change).await?;
        replaced.into_root_key()
    }

    /// Waits until nothing is sealed with an earlier root key any more.
    async fn sealed_anew(&self) {
        let waiting = async {
            while self
                .control
                .root_key(&self.admin)
                .unwrap()
                .replacing
                .is_some()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
        waited.expect("everything is sealed anew in time");
    }
}

/// How many values are stored, all of which the key in the file opens; nothing runs over the folder.
async fn all_that_opens(dir: &Path) -> usize {
    let data = dir.join("data");
    let sealer = RootKeys::load_or_create(&data)
        .unwrap()
        .sealer("service values");
    let store = Store::open(&vaxel_store::Config::new(&data)).unwrap();
    let values = store.secrets_after(None, 10_000).await.unwrap();
    let signing = store.signing_keys().await.unwrap();
    let sealed = values.iter().map(|row| &row.sealed);
    let sealed: Vec<&Vec<u8>> = sealed
        .chain(signing.iter().map(|row| &row.sealed))
        .collect();
    for one in &sealed {
        // In no place of their own: what is asked is which key they need.
        let opened = sealer.open(b"", one).map(drop);
        assert!(
            matches!(opened, Err(vaxel_auth::Error::Unsealable)),
            "{opened:?}"
        );
    }
    store.close().await;
    sealed.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_is_replaced_while_everything_runs_and_the_one_before_is_nowhere_any_more() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = scripted("files", &["ok"]);
    draft["spec"]["source"]["process"]["env"] = json!({ "TOKEN": PLANTED });
    home.create(draft.clone()).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let file = folder.path().join("data/root.key");
    let mut before = Vec::new();
    for round in 0..2 {
        before.push(std::fs::read(&file).unwrap());
        let report = home.replace_root_key().await.unwrap();
        assert_eq!(report.facts.earlier.len(), 1);
        home.sealed_anew().await;
        let seen = home.call("files__env", json!({ "name": "TOKEN" })).await;
        assert_eq!(seen.unwrap(), PLANTED);
        draft["name"] = format!("more-{round}").into();
        home.create(draft.clone()).await.unwrap();
        home.wait_for(&format!("more-{round}"), Lifecycle::Active)
            .await;
    }
    before.push(std::fs::read(&file).unwrap());
    home.control.stop().await;
    drop(home);
    assert_eq!(all_that_opens(folder.path()).await, 3 + 2);
    std::fs::remove_file(&file).unwrap();
    let kept = everything_in(folder.path());
    for key in &before {
        let hex = key
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        for planted in [&key[..], hex.as_bytes(), PLANTED.as_bytes()] {
            assert!(!kept.windows(planted.len()).any(|window| window == planted));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_while_the_root_key_is_replaced_opens_afterwards() {
    let folder = folder();
    let home = std::sync::Arc::new(open(folder.path()).await);
    let mut makers = tokio::task::JoinSet::new();
    for maker in 0..4 {
        let home = std::sync::Arc::clone(&home);
        makers.spawn(async move {
            for number in 0..12 {
                let name = format!("remote-{maker}-{number}");
                home.create(remote(&name, "https://one.example/mcp", PLANTED))
                    .await
                    .unwrap();
            }
        });
    }
    let mut replaced = 0;
    while !makers.is_empty() {
        match home.replace_root_key().await {
            Ok(_) => replaced += 1,
            Err(failure) => assert_eq!(failure.kind, Kind::Conflict, "{failure}"),
        }
        while makers.try_join_next().is_some_and(|made| made.is_ok()) {}
        tokio::task::yield_now().await;
    }
    assert!(replaced > 0);
    home.sealed_anew().await;
    home.control.stop().await;
    drop(home);
    assert_eq!(all_that_opens(folder.path()).await, 48 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_is_replaced_only_by_who_manages_the_server_and_keys_and_never_given_to_a_file()
{
    let folder = folder();
    let home = open(folder.path()).await;
    let may = Permissions::ALL.without(Permissions::of(&[Permission::KeysManage]));
    let nearly = Principal {
        permissions: may,
        ..Principal::system()
    };
    let refused = home
        .control
        .submit(&nearly, Change::ReplaceRootKey(None))
        .await;
    assert_eq!(refused.unwrap_err().kind, Kind::NotPermitted);
    for text in ["x", &"ab".repeat(32)] {
        let given = Change::ReplaceRootKey(Some(Secret::new(text.to_owned())));
        let refused = home.control.submit(&home.admin, given).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Invalid, "{refused}");
        assert!(!refused.to_string().contains(text) || text == "x");
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_records_keep_of_calls_is_sealed_where_that_is_asked_for() {
    let folder = folder();
    let home = open_with(folder.path(), |config| config.records.seal = true).await;
    let web = WebRules::new("127.0.0.1:3010".parse().unwrap(), &[]).unwrap();
    home.gateway.tune(Tunables {
        keep: Keep::All,
        ..Tunables::new(web.clone())
    });
    let mut draft = scripted("files", &["ok"]);
    draft["spec"]["source"]["process"]["env"] = json!({ "TOKEN": "x" });
    home.create(draft).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let seen = async |home: &Home| {
        let request = until("the record of the call", async || {
            let filter = CallFilter::default();
            let which = (&filter, &Page::FIRST);
            let calls = home.control.calls(&home.admin, None, which).await.unwrap();
            let mut calls = calls.items.into_iter();
            let call = calls.find(|call| call.target == "env");
            call.map(|call| call.request.unwrap_or_default())
        });
        String::from_utf8(request.await).unwrap()
    };
    home.call("files__env", json!({ "name": "TOKEN", "note": PLANTED }))
        .await
        .unwrap();
    assert!(seen(&home).await.contains(PLANTED));
    home.replace_root_key().await.unwrap();
    home.sealed_anew().await;
    home.control.stop().await;
    drop(home);
    let kept = everything_in(folder.path());
    let planted = PLANTED.as_bytes();
    assert!(!kept.windows(planted.len()).any(|window| window == planted));
    // It opens also when new ones are not sealed any more, and with another root key; not with a strange one.
    let home = open(folder.path()).await;
    assert!(seen(&home).await.contains(PLANTED));
    home.control.stop().await;
    drop(home);
    std::fs::write(folder.path().join("data/root.key"), [7; 32]).unwrap();
    let home = open(folder.path()).await;
    assert_eq!(seen(&home).await, "");
    home.control.stop().await;
}
