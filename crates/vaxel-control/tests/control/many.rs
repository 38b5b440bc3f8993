//! How the control plane bears many services.

use std::sync::Arc;

use serde_json::{json, value::to_raw_value};
use vaxel_core::{
    audit::AuditLine,
    catalog::{Catalog, Item},
    id::Id,
    principal::Principal,
    service::{McpSource, ServiceResource, ServiceSpec, Source},
    time::Clock,
};
use vaxel_store::Store;

use crate::home::{folder, open};

const SERVICES: usize = 1_000;
const TOOLS: usize = 20;

fn catalog(clock: &Clock) -> Catalog {
    let item = |index: usize| {
        let key: Arc<str> = format!("tool_{index}").into();
        let description = "Does something that takes a sentence or two to describe. ".repeat(4);
        let definition = json!({
            "name": &*key, "description": description,
            "inputSchema": { "type": "object", "properties": { "path": { "type": "string" } } }
        });
        Item {
            key,
            definition: to_raw_value(&definition).unwrap().into(),
        }
    };
    Catalog {
        fetched_at: clock.now(),
        revision: "2025-11-25".to_owned(),
        capabilities: to_raw_value(&json!({ "tools": {} })).unwrap(),
        server_info: to_raw_value(&json!({ "name": "x", "version": "1" })).unwrap(),
        instructions: None,
        cache: vaxel_core::catalog::CacheHint::default(),
        tools: (0..TOOLS).map(item).collect(),
        prompts: Vec::new(),
        resources: Vec::new(),
        templates: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_stored_services_are_listed_as_soon_as_the_start_returns() {
    let folder = folder();
    let clock = Clock::system();
    let store = Store::open(&vaxel_store::Config::new(folder.path().join("data"))).unwrap();
    let catalog = catalog(&clock);
    let url = "http://127.0.0.1:9/mcp".to_owned();
    let source = Source::Mcp(McpSource {
        url,
        headers: [].into(),
        ..McpSource::default()
    });
    let writes = (0..SERVICES).map(|index| {
        let now = clock.now();
        let resource = ServiceResource {
            id: Id::new(now),
            name: format!("service-{index}").parse().unwrap(),
            version: 1,
            revision: 1,
            enabled: true,
            tags: Vec::new(),
            environment: "default".to_owned(),
            owner: "admin".to_owned(),
            spec: ServiceSpec::new(source.clone()),
            created_at: now,
            updated_at: now,
            activated_at: None,
            deleted_at: None,
            defect: None,
        };
        let (store, catalog) = (&store, &catalog);
        async move {
            let target = (
                "service",
                resource.id.to_string(),
                resource.name.to_string(),
            );
            let audit = AuditLine::new(now, &Principal::system(), "service.create", target);
            store
                .create_service(&resource, Vec::new(), audit)
                .await
                .unwrap();
            store.put_catalog(resource.id, catalog).await.unwrap();
        }
    });
    futures_util::future::join_all(writes).await;
    store.close().await;
    drop(store);

    let begun = clock.instant();
    let home = open(folder.path()).await;
    println!(
        "a start with {SERVICES} services took {:?}",
        begun.elapsed()
    );
    assert_eq!(
        home.gateway.exposed_tools(&home.admin, None).len(),
        SERVICES * TOOLS
    );
    let begun = clock.instant();
    home.control.stop().await;
    println!("their stop took {:?}", begun.elapsed());
}
