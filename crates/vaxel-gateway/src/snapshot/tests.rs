use proptest::prelude::*;
use vaxel_core::time::Timestamp;

use super::*;
use crate::metrics::Metrics;

/// One step of a history: a service appears with these tools and this resource, or goes.
#[derive(Debug, Clone)]
enum Step {
    Put {
        service: usize,
        tools: Vec<u8>,
        resource: bool,
    },
    Take {
        service: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (
        0..4_usize,
        proptest::collection::vec(0..5_u8, 0..4),
        any::<bool>(),
    )
        .prop_map(|(service, tools, resource)| Step::Put {
            service,
            tools,
            resource,
        });
    let take = (0..4_usize).prop_map(|service| Step::Take { service });
    proptest::collection::vec(prop_oneof![3 => put, 1 => take], 0..20)
}

fn id(service: usize) -> Id<Service> {
    Id::from_slice(&[u8::try_from(service).unwrap() + 1; 16]).unwrap()
}

fn item(text: &str, key: &str) -> Item {
    let definition = format!(r#"{{"{text}":"{key}"}}"#);
    Item {
        key: key.into(),
        definition: RawValue::from_string(definition).unwrap().into(),
    }
}

fn parts(service: usize, tools: &[u8], resource: bool) -> Parts {
    let mut names: Vec<u8> = tools.to_vec();
    names.sort_unstable();
    names.dedup();
    let catalog = Catalog {
        fetched_at: Timestamp::from_millis(1),
        revision: "2026-07-28".to_owned(),
        capabilities: RawValue::from_string("{}".to_owned()).unwrap(),
        server_info: RawValue::from_string("{}".to_owned()).unwrap(),
        instructions: None,
        tools: names
            .iter()
            .map(|tool| item("name", &format!("t{tool}")))
            .collect(),
        prompts: Vec::new(),
        // One URI that several services may offer.
        resources: if resource {
            vec![item("uri", "file:///shared")]
        } else {
            Vec::new()
        },
        templates: Vec::new(),
    };
    Parts {
        id: id(service),
        name: format!("s{service}").parse().unwrap(),
        limits: Limits::default(),
        tools: ToolFilter::default(),
        catalog: Some(Arc::new(catalog)),
        links: Vec::new(),
        unavailable: None,
    }
}

fn apply(snapshot: &Snapshot, step: &Step) -> Snapshot {
    let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
    match step {
        Step::Put {
            service,
            tools,
            resource,
        } => snapshot.with(parts(*service, tools, *resource), 50, |name| {
            metrics.meter(name)
        }),
        Step::Take { service } => snapshot.without(id(*service)),
    }
}

/// Everything that a request could find out, in the order of lists.
fn seen(snapshot: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for shard in snapshot.shards.values() {
        for offer in &shard.offers.tools {
            let found = snapshot
                .tool(&offer.exposed)
                .map(|(shard, offer)| format!("{} {} {}", shard.name, offer.own, offer.exposed));
            all.push(format!("{found:?}"));
        }
    }
    all
}

proptest! {
    /// A snapshot that grew step by step is the one that is built from its last state at once.
    #[test]
    fn the_way_to_a_snapshot_leaves_no_trace(steps in steps()) {
        let grown = steps.iter().fold(Snapshot::default(), |snapshot, step| apply(&snapshot, step));
        let mut last: HashMap<usize, Step> = HashMap::new();
        for step in &steps {
            match step {
                Step::Put { service, .. } => last.insert(*service, step.clone()),
                Step::Take { service } => last.remove(service),
            };
        }
        let built = last.values().fold(Snapshot::default(), |snapshot, step| apply(&snapshot, step));
        prop_assert_eq!(seen(&grown), seen(&built));
        prop_assert_eq!(grown.digests, built.digests);
        prop_assert_eq!(grown.shards.len(), last.len());
        // The shared resource has an owner exactly when somebody offers it.
        let offered = last.values().any(|step| matches!(step, Step::Put { resource: true, .. }));
        prop_assert_eq!(grown.resource("file:///shared").is_some(), offered, "after {:?}", steps);
    }
}

#[test]
fn a_template_claims_the_uris_that_it_can_make() {
    assert!(fits_template("file:///{path}", "file:///a/b"));
    assert!(fits_template("test://{id}/data", "test://7/data"));
    assert!(!fits_template("test://{id}/data", "test:///data"));
    assert!(!fits_template("test://{id}/data", "test://7/other"));
    assert!(!fits_template("test://{id}", "test://"));
    assert!(fits_template("plain://x", "plain://x"));
}
