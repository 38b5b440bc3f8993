use std::collections::BTreeMap;

use proptest::{collection::btree_set, prelude::*};
use vaxel_core::{name::ToolsetName, time::Timestamp, toolset::Selected};
use vaxel_mcp::method::Method;

use super::*;
use crate::{gateway::ServedSet, metrics::Metrics};

/// What one service is published with. Few values, so that services meet in all of them.
#[derive(Debug, Clone)]
struct Put {
    service: u8,
    name: u8,
    tools: Vec<u8>,
    prompts: Vec<u8>,
    resources: Vec<u8>,
    template: bool,
    /// Not served.
    denied: Option<u8>,
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Put(Put),
    Take(u8),
}

fn some() -> impl Strategy<Value = Vec<u8>> {
    btree_set(0..4_u8, 0..4).prop_map(|set| set.into_iter().collect())
}

fn puts() -> impl Strategy<Value = Put> {
    let lists = (some(), some(), some());
    let put = (
        0..4_u8,
        0..5_u8,
        lists,
        any::<bool>(),
        proptest::option::of(0..4_u8),
    );
    put.prop_map(
        |(service, name, (tools, prompts, resources), template, denied)| Put {
            service,
            name,
            tools,
            prompts,
            resources,
            template,
            denied,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let take = (0..4_u8).prop_map(Step::Take);
    let step = prop_oneof![3 => puts().prop_map(Step::Put), 1 => take];
    proptest::collection::vec(step, 0..20)
}

fn id(service: u8) -> Id<Service> {
    Id::from_slice(&[service + 1; 16]).unwrap()
}

fn item(member: &str, key: &str) -> Item {
    let definition = format!(r#"{{"{member}":"{key}"}}"#);
    Item {
        key: key.into(),
        definition: RawValue::from_string(definition).unwrap().into(),
    }
}

fn items(member: &str, prefix: &str, numbers: &[u8]) -> Vec<Item> {
    let item = |number: &u8| item(member, &format!("{prefix}{number}"));
    numbers.iter().map(item).collect()
}

fn nothing() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap()
}

fn parts(put: &Put) -> Parts {
    let templates: &[u8] = if put.template { &[0] } else { &[] };
    let catalog = Catalog {
        fetched_at: Timestamp::from_millis(1),
        revision: "2026-07-28".to_owned(),
        capabilities: nothing(),
        server_info: nothing(),
        instructions: None,
        cache: vaxel_core::catalog::CacheHint::default(),
        tools: items("name", "t", &put.tools),
        prompts: items("name", "p", &put.prompts),
        resources: items("uri", "file:///r", &put.resources),
        templates: items("uriTemplate", "made:///{x}/", templates),
    };
    let denied = put.denied.map(|tool| format!("t{tool}"));
    Parts {
        id: id(put.service),
        name: format!("s{}", put.name).parse().unwrap(),
        limits: Limits::default(),
        tools: ToolFilter {
            allow: None,
            deny: denied.into_iter().collect(),
        },
        validate: Validate::None,
        catalog: Some(Arc::new(catalog)),
        links: Vec::new(),
        balance: Balance::default(),
        about: About {
            owner: "anna".into(),
            environment: "default".into(),
            tags: Arc::default(),
        },
        unavailable: None,
    }
}

fn with(snapshot: &Snapshot, parts: Parts) -> Snapshot {
    let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
    snapshot.with(parts, 50, |name| metrics.meter(name))
}

fn apply(snapshot: &Snapshot, step: &Step) -> Snapshot {
    match step {
        Step::Put(put) => with(snapshot, parts(put)),
        Step::Take(service) => snapshot.without(id(*service)),
    }
}

/// What is left of a history: a name belongs to who took it last.
fn left(steps: &[Step]) -> BTreeMap<u8, Put> {
    let mut left: BTreeMap<u8, Put> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Put(put) => {
                left.retain(|_, other| other.name != put.name);
                left.insert(put.service, put.clone());
            }
            Step::Take(service) => drop(left.remove(service)),
        }
    }
    left
}

/// Everything that a request could find out: lists in their order, and what each name leads to,
/// also the names that lead nowhere.
fn seen(snapshot: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for shard in snapshot.shards.values() {
        let offers = &shard.offers;
        for list in [
            &offers.tools,
            &offers.prompts,
            &offers.resources,
            &offers.templates,
        ] {
            let names: Vec<&str> = list.iter().map(|offer| &*offer.exposed).collect();
            all.push(format!("{} lists {names:?}", shard.name));
        }
    }
    let found = |what: String, found: Option<(&Arc<Shard>, &Offer)>| {
        let to = found.map(|(shard, offer)| (shard.id, shard.name.clone(), Arc::clone(&offer.own)));
        format!("{what}: {to:?}")
    };
    for name in 0..5 {
        for number in 0..4 {
            let tool = format!("s{name}__t{number}");
            all.push(found(tool.clone(), snapshot.tool(&tool)));
            let prompt = format!("s{name}__p{number}");
            all.push(found(prompt.clone(), snapshot.prompt(&prompt)));
        }
    }
    for uri in [0, 1, 2, 3].map(|number| format!("file:///r{number}")) {
        let owner = snapshot.owner_of(&uri).map(|shard| shard.id);
        let shares = (0..4).filter(|service| snapshot.has_prefixed(id(*service)));
        all.push(format!("{uri}: {owner:?} {:?}", shares.collect::<Vec<_>>()));
    }
    let made = snapshot
        .with_template_for("made:///a/0")
        .map(|shard| shard.id);
    all.push(format!("made: {made:?}"));
    for service in 0..4 {
        let name = snapshot.shard(id(service)).map(|shard| shard.name.clone());
        all.push(format!("{service}: {name:?}"));
    }
    all
}

proptest! {
    /// A snapshot that grew step by step is the one that is built from its last state at once, in
    /// whatever order.
    #[test]
    fn the_way_to_a_snapshot_leaves_no_trace(steps in steps()) {
        let grown = steps.iter().fold(Snapshot::default(), |snapshot, step| apply(&snapshot, step));
        let left = left(&steps);
        let forwards = left.values().fold(Snapshot::default(), |all, put| with(&all, parts(put)));
        let backwards = left.values().rev().fold(Snapshot::default(), |all, put| with(&all, parts(put)));
        prop_assert_eq!(grown.shards.len(), left.len());
        for built in [forwards, backwards] {
            prop_assert_eq!(seen(&grown), seen(&built));
            prop_assert_eq!(grown.digests, built.digests);
        }
    }

    /// Every tool that is listed can be called by its exposed name, under its own name.
    #[test]
    fn what_is_listed_is_found(steps in steps()) {
        let snapshot = steps.iter().fold(Snapshot::default(), |snapshot, step| apply(&snapshot, step));
        for put in left(&steps).into_values() {
            let shard = snapshot.shard(id(put.service)).unwrap();
            let served = put.tools.iter().filter(|tool| put.denied != Some(**tool)).count();
            prop_assert_eq!(shard.offers.tools.len(), served);
            for offer in &shard.offers.tools {
                let (found, same) = snapshot.tool(&offer.exposed).unwrap();
                prop_assert_eq!((found.id, &same.own), (shard.id, &offer.own));
                prop_assert!(shard.offers.tool(&offer.own).is_some());
                let expected = format!("{}__{}", shard.name, offer.own);
                prop_assert_eq!(&*offer.exposed, expected);
            }
            for offer in &shard.offers.resources {
                let owner = snapshot.owner_of(&offer.own).unwrap();
                prop_assert!(owner.id <= shard.id, "the oldest answers");
            }
        }
    }
}

fn put(service: u8, name: u8) -> Put {
    Put {
        service,
        name,
        tools: vec![1],
        prompts: vec![1],
        resources: vec![1],
        template: false,
        denied: None,
    }
}

#[test]
fn digests_change_exactly_with_the_lists_that_they_stand_for() {
    let before = with(&Snapshot::default(), parts(&put(0, 0)));
    let again = with(&before, parts(&put(0, 0)));
    assert_eq!(before.digests, again.digests, "the same lists, read anew");
    let mut changed = put(0, 0);
    changed.tools = vec![1, 2];
    let tools = with(&before, parts(&changed)).digests;
    assert_ne!(before.digests.tools, tools.tools);
    assert_eq!(before.digests.prompts, tools.prompts);
    assert_eq!(before.digests.resources, tools.resources);
    changed = put(0, 0);
    changed.template = true;
    let templates = with(&before, parts(&changed)).digests;
    assert_ne!(before.digests.resources, templates.resources);
    assert_eq!(before.digests.tools, templates.tools);
    let renamed = with(&before, parts(&put(0, 1))).digests;
    assert_ne!(before.digests.tools, renamed.tools, "exposed names changed");
    assert_eq!(before.without(id(0)).digests, Digests::default());
}

#[test]
fn pages_are_kept_while_the_lists_hold_and_no_longer() {
    let first = parts(&put(0, 0));
    let catalog = first.catalog.clone();
    let before = with(&Snapshot::default(), first);
    let only_state = Parts {
        catalog,
        unavailable: Some(Unavailable::Starting),
        ..parts(&put(0, 0))
    };
    let same = with(&before, only_state);
    assert!(Arc::ptr_eq(&before.pages, &same.pages));
    let reason = same.shard(id(0)).unwrap().unavailable.clone();
    assert_eq!(reason, Some(Unavailable::Starting));
    let other = with(&before, parts(&put(1, 1)));
    assert!(!Arc::ptr_eq(&before.pages, &other.pages));
    let gone = before.without(id(0));
    assert!(!Arc::ptr_eq(&before.pages, &gone.pages));
}

#[test]
fn a_name_that_is_too_long_or_odd_still_leads_to_its_tool() {
    let long = "x".repeat(100);
    let mut odd = parts(&put(0, 0));
    let mut catalog = (**odd.catalog.as_ref().unwrap()).clone();
    catalog.tools = ["läs fil", "a/b", &long]
        .map(|name| item("name", name))
        .into();
    odd.catalog = Some(Arc::new(catalog));
    let snapshot = with(&Snapshot::default(), odd);
    for offer in &snapshot.shard(id(0)).unwrap().offers.tools {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        assert!(offer.exposed.bytes().all(allowed), "{}", offer.exposed);
        assert!(offer.exposed.len() <= 50, "{}", offer.exposed);
        let (_, found) = snapshot.tool(&offer.exposed).unwrap();
        assert_eq!(found.own, offer.own);
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
    assert!(fits_template("t://{a}/{b}", "t://1/2"));
    assert!(
        fits_template("t://{a}/x", "t://1/x/x"),
        "the last place counts"
    );
}

#[test]
fn what_was_compiled_stays_with_a_tool_that_stays() {
    let asked = |put: &Put| Parts {
        validate: Validate::Arguments,
        ..parts(put)
    };
    let schemas = |snapshot: &Snapshot, tool: &str| {
        let offers = &snapshot.shard(id(0)).unwrap().offers;
        offers.tool(tool).unwrap().schemas.clone()
    };
    let mut two = put(0, 0);
    two.tools = vec![1, 2];
    let unasked = with(&Snapshot::default(), parts(&two));
    assert!(schemas(&unasked, "t1").is_none());
    let before = with(&unasked, asked(&two));
    let first = schemas(&before, "t1").unwrap();
    two.tools = vec![1];
    let after = with(&before, asked(&two));
    assert!(Arc::ptr_eq(&first, &schemas(&after, "t1").unwrap()));
    let mut changed = asked(&two);
    let mut catalog = Catalog::clone(changed.catalog.as_deref().unwrap());
    let other = RawValue::from_string(r#"{"name":"t1","inputSchema":{}}"#.to_owned()).unwrap();
    catalog.tools[0].definition = Arc::from(other);
    changed.catalog = Some(Arc::new(catalog));
    let changed = with(&after, changed);
    assert!(!Arc::ptr_eq(&first, &schemas(&changed, "t1").unwrap()));
}

/// What a set takes of one service: of each kind everything, or only these.
#[derive(Debug, Clone)]
struct Take {
    service: u8,
    tools: Option<Vec<u8>>,
    prompts: Option<Vec<u8>>,
    resources: Option<Vec<u8>>,
}

fn takes() -> impl Strategy<Value = Vec<Take>> {
    let maybe = || proptest::option::of(some());
    let take = (maybe(), maybe(), maybe());
    let all = proptest::collection::btree_map(0..5_u8, take, 0..4);
    all.prop_map(|all| {
        let take = |(service, (tools, prompts, resources))| Take {
            service,
            tools,
            prompts,
            resources,
        };
        all.into_iter().map(take).collect()
    })
}

fn sets(sets: &[Vec<Take>]) -> Vec<ServedSet> {
    let patterns = |prefix: &str, numbers: &Option<Vec<u8>>| {
        let numbers = numbers.as_ref()?.iter();
        Some(numbers.map(|number| format!("{prefix}{number}")).collect())
    };
    let selected = |take: &Take| Selected {
        service: format!("s{}", take.service).parse().unwrap(),
        tools: patterns("t", &take.tools),
        prompts: patterns("p", &take.prompts),
        resources: patterns("file:///r", &take.resources),
    };
    let named = sets.iter().enumerate().map(|(index, takes)| {
        let name: ToolsetName = format!("set{index}").parse().unwrap();
        let services: Vec<Selected> = takes.iter().map(selected).collect();
        (name, services).into()
    });
    named.collect()
}

/// Everything that a client of a set could find out.
fn seen_in(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let set = snapshot.set(name).unwrap();
    let mut all = vec![format!("{:?}", set.digests(snapshot))];
    for shard in set.shards(snapshot) {
        let offers = &shard.offers;
        for (kind, list) in [
            (Method::ToolsList, &offers.tools),
            (Method::PromptsList, &offers.prompts),
            (Method::ResourcesList, &offers.resources),
            (Method::TemplatesList, &offers.templates),
        ] {
            let shown = list.iter().enumerate();
            let shown = shown.filter(|(index, _)| set.shows(shard, kind, *index));
            let names: Vec<&str> = shown.map(|(_, offer)| &*offer.exposed).collect();
            all.push(format!("{} {kind:?}: {names:?}", shard.name));
        }
    }
    for service in 0..5 {
        for number in 0..4 {
            let tool = set.tool(snapshot, &format!("s{service}__t{number}"));
            let prompt = set.prompt(snapshot, &format!("s{service}__p{number}"));
            for (shard, offer) in tool.into_iter().chain(prompt) {
                all.push(format!(
                    "{} leads to {} {}",
                    offer.exposed, shard.id, offer.own
                ));
            }
        }
    }
    for uri in ["file:///r0", "file:///r1", "made:///a/0"] {
        let owner = set.owner_of(snapshot, uri);
        let made = set.with_template_for(snapshot, uri);
        all.push(format!(
            "{uri}: {:?} {:?}",
            owner.map(|one| one.id),
            made.map(|one| one.id)
        ));
    }
    all
}

proptest! {
    /// Sets follow their services one change at a time to where they would be made at once.
    #[test]
    fn what_a_set_shows_depends_on_what_there_is_and_not_on_how_it_came(
        steps in steps(), at in 0..20_usize, wanted in proptest::collection::vec(takes(), 1..3),
    ) {
        let grow = |from: Snapshot, steps: &[Step]| {
            steps.iter().fold(from, |snapshot, step| apply(&snapshot, step))
        };
        let (before, after) = steps.split_at(at.min(steps.len()));
        let followed = grow(grow(Snapshot::default(), before).with_sets(sets(&wanted)), after);
        let made = grow(Snapshot::default(), &steps).with_sets(sets(&wanted));
        for index in 0..wanted.len() {
            let name = format!("set{index}");
            prop_assert_eq!(seen_in(&followed, &name), seen_in(&made, &name));
            let again = followed.with_sets(sets(&wanted));
            prop_assert!(Arc::ptr_eq(again.set(&name).unwrap(), followed.set(&name).unwrap()));
        }
        prop_assert!(made.with_sets(Vec::new()).set("set0").is_none());
    }
}

#[test]
fn a_change_of_a_service_touches_the_sets_that_name_it_and_no_other() {
    let all_of = |name: &str| vec![Selected::all_of(name.parse().unwrap())];
    let wanted = vec![
        ("one".parse().unwrap(), all_of("s0")).into(),
        ("two".parse().unwrap(), all_of("s1")).into(),
    ];
    let before = with(&Snapshot::default(), parts(&put(0, 0))).with_sets(wanted);
    let same = |left: &Snapshot, right: &Snapshot, name: &str| {
        Arc::ptr_eq(left.set(name).unwrap(), right.set(name).unwrap())
    };
    let after = with(&before, parts(&put(1, 1)));
    assert!(same(&before, &after, "one"), "what it names stayed");
    assert!(!same(&before, &after, "two"), "what it waited for came");
    let catalog = after.shard(id(0)).unwrap().catalog.clone();
    let links_only = with(
        &after,
        Parts {
            catalog,
            ..parts(&put(0, 0))
        },
    );
    assert!(same(&after, &links_only, "one"), "its offers are the same");
}
