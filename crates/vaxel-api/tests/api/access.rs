//! Who may ask what, where it depends on more than permissions.

use std::net::SocketAddr;

use axum::{body::Body, http::StatusCode};
use serde_json::json;
use vaxel_api::MetricsAccess;
use vaxel_core::principal::{Permission, Permissions};
use vaxel_gateway::Peer;

use crate::home::{As, open, open_with, request};

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_this_machine_for_keys_or_for_nobody() {
    let from = |address: [u8; 4]| {
        let mut request = request("GET", "/metrics").body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(Peer(SocketAddr::from((address, 1))));
        request
    };
    let (here, elsewhere) = ([127, 0, 0, 1], [192, 0, 2, 7]);
    let scraper = As::With(Permissions::of(&[Permission::MetricsRead]));
    let cases = [
        (MetricsAccess::Loopback, here, As::Nobody, 200),
        (MetricsAccess::Loopback, elsewhere, As::Nobody, 401),
        (MetricsAccess::Loopback, elsewhere, scraper, 200),
        (MetricsAccess::Key, here, As::Nobody, 401),
        (MetricsAccess::Key, elsewhere, scraper, 200),
        (MetricsAccess::Off, here, scraper, 404),
    ];
    for (access, address, who, expected) in cases {
        let home = open_with(access).await;
        let answer = home.send(who, from(address)).await;
        assert_eq!(answer.status.as_u16(), expected, "{access:?} {address:?}");
        if expected == 200 {
            assert!(
                answer
                    .header("content-type")
                    .starts_with("application/openmetrics-text")
            );
            assert!(answer.text().trim_end().ends_with("# EOF"));
            assert!(
                answer.text().contains("vaxel_store_size_bytes"),
                "{}",
                answer.text()
            );
        }
        home.control.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_keys_needs_the_permission_to_manage_keys_too() {
    let home = open().await;
    let asked = ("POST", "/api/v1/backup");
    let keeper = As::With(Permissions::of(&[Permission::SystemManage]));
    let sealed = json!({ "passphrase": "correct horse" });
    let refused = home.ask_with(keeper, asked, &sealed).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let given = home.ask(keeper, asked.0, asked.1).await;
    assert_eq!(given.status, StatusCode::OK);
    assert_eq!(given.header("content-length"), given.body.len().to_string());
    assert!(given.text().starts_with("{\"vaxel_backup\":1,"));
    assert!(!given.text().contains("\"table\":\"keys\""));
    let given = home.ask_with(As::admin(), asked, &sealed).await;
    assert_eq!(given.status, StatusCode::OK);
    let short = json!({ "passphrase": "short" });
    let refused = home.ask_with(As::admin(), asked, &short).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text().contains("at least 8"), "{}", refused.text());
}
