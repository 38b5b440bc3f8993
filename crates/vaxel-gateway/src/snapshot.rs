//! What requests are decided on: an immutable view of all services, swapped whole.
//!
//! It is sharded: one immutable [`Shard`] per service, in maps that share structure, so that a change
//! costs what the changed service costs and not what all services cost. `Snapshot::build` makes
//! the same from nothing and is the oracle of the tests.

use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use imbl::{HashMap as Shared, OrdMap};
use serde_json::value::RawValue;
use vaxel_core::{
    access::Target,
    balance::{self, Balance, Candidate, Draw},
    catalog::{CacheHint, Catalog, Item},
    failure::{Failure, Kind},
    id::{Id, Service},
    name::ServiceName,
    principal::Proof,
    service::{Limits, ToolFilter, Validate},
    time::Timestamp,
};
use vaxel_mcp::{definition, headers::params::ParamHeaders, hello::Offered, meta, names};

pub(crate) mod sets;

use self::sets::Sets;
use crate::{
    authorize::Reaches,
    gateway::Unavailable,
    limits::Bounds,
    lists::Pages,
    metrics::Meter,
    upstream::{Engaged, Link},
    validate::{self, Schemas},
};

/// All services at one moment.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    /// In the order of lists.
    pub(crate) shards: OrdMap<ServiceName, Arc<Shard>>,
    names: Shared<Id<Service>, ServiceName>,
    tools: Shared<Arc<str>, Slot>,
    prompts: Shared<Arc<str>, Slot>,
    /// The services that offer a URI, the one that answers for it first: the oldest, so that the
    /// order in which services were reached decides nothing.
    resources: Shared<Arc<str>, Arc<[Id<Service>]>>,
    /// How many of a service's URIs an older one offers, too.
    prefixed: Shared<Id<Service>, usize>,
    sets: Sets,
    /// Sums of the shards' digests: they differ when a list of all services differs.
    pub(crate) digests: Digests,
    /// List pages that were asked for; empty in a new snapshot.
    pub(crate) pages: Arc<Pages>,
}

/// Where an exposed name leads.
#[derive(Clone, Copy)]
struct Slot {
    service: Id<Service>,
    index: u32,
}

/// One service at one moment.
pub(crate) struct Shard {
    pub(crate) id: Id<Service>,
    pub(crate) name: ServiceName,
    pub(crate) catalog: Option<Arc<Catalog>>,
    pub(crate) offers: Arc<Offers>,
    pub(crate) links: Vec<Link>,
    pub(crate) unavailable: Option<Unavailable>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) meter: Arc<Meter>,
    /// What calls are bounded by besides, where they are.
    pub(crate) bounds: Option<Arc<Bounds>>,
    pub(crate) about: About,
    pub(crate) reaches: Reaches,
    balance: Balance,
    turn: AtomicUsize,
}

/// What access to a service is decided by, besides its name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Name of the user whose it is.
    pub owner: Arc<str>,
    /// Where it belongs.
    pub environment: Arc<str>,
    /// How it is marked.
    pub tags: Arc<[String]>,
}

/// What a service offers, in the form that clients see.
#[derive(Default)]
pub(crate) struct Offers {
    pub(crate) tools: Vec<Offer>,
    pub(crate) prompts: Vec<Offer>,
    pub(crate) resources: Vec<Offer>,
    pub(crate) templates: Vec<Offer>,
    tools_by_name: HashMap<Arc<str>, u32>,
    prompts_by_name: HashMap<Arc<str>, u32>,
    pub(crate) digests: Digests,
    filter: ToolFilter,
    pub(crate) validate: Validate,
}

/// One tool, prompt, resource or template.
pub(crate) struct Offer {
    /// The service's own name, URI or template.
    pub(crate) own: Arc<str>,
    /// The same as a JSON string, to be spliced into requests.
    pub(crate) own_json: Box<str>,
    /// The name on the federated endpoint.
    pub(crate) exposed: Arc<str>,
    /// As the service defines it.
    pub(crate) definition: Arc<RawValue>,
    /// Arguments that headers mirror; nearly no tool has any.
    pub(crate) mirrored: Option<Arc<ParamHeaders>>,
    /// What calls are checked against, where the service asks for it.
    pub(crate) schemas: Option<Arc<Schemas>>,
}

impl Offer {
    /// The definition under the exposed name. Made for each list, which is kept as a whole: a copy here
    /// would stay in memory for every tool there is.
    pub(crate) fn federated(&self, service: &ServiceName) -> Cow<'_, [u8]> {
        if self.exposed == self.own {
            return Cow::Borrowed(self.definition.get().as_bytes());
        }
        let full = format!("{service}__{}", self.own);
        let altered = *self.exposed != *full;
        let full = altered.then_some(full.as_str());
        Cow::Owned(definition::renamed(&self.definition, &self.exposed, full))
    }
}

/// Numbers that differ when the lists differ: tools, prompts, resources with templates.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Digests {
    pub(crate) tools: u64,
    pub(crate) prompts: u64,
    pub(crate) resources: u64,
}

impl Digests {
    fn plus(self, other: Self) -> Self {
        Self {
            tools: self.tools.wrapping_add(other.tools),
            prompts: self.prompts.wrapping_add(other.prompts),
            resources: self.resources.wrapping_add(other.resources),
        }
    }
    fn minus(self, other: Self) -> Self {
        Self {
            tools: self.tools.wrapping_sub(other.tools),
            prompts: self.prompts.wrapping_sub(other.prompts),
            resources: self.resources.wrapping_sub(other.resources),
        }
    }
}

/// What a new shard is made of.
pub(crate) struct Parts {
    pub(crate) id: Id<Service>,
    pub(crate) name: ServiceName,
    pub(crate) limits: Limits,
    pub(crate) tools: ToolFilter,
    pub(crate) validate: Validate,
    pub(crate) catalog: Option<Arc<Catalog>>,
    pub(crate) links: Vec<Link>,
    pub(crate) balance: Balance,
    pub(crate) about: About,
    pub(crate) unavailable: Option<Unavailable>,
}

impl Snapshot {
    /// Adds a service or replaces it. `meter` is used when the service is new.
    pub(crate) fn with(
        &self,
        parts: Parts,
        name_max: usize,
        meter: impl FnOnce(&ServiceName) -> Arc<Meter>,
    ) -> Self {
        let old = self.shard(parts.id).cloned();
        let offers = match &old {
            Some(old) if old.offers_still_hold(&parts) => Arc::clone(&old.offers),
            _ => {
                let old = old.as_ref().map(|old| &*old.offers);
                Arc::new(Offers::of(&parts, name_max).with_schemas(old))
            }
        };
        let meter = match &old {
            Some(old) if old.name == parts.name => Arc::clone(&old.meter),
            _ => meter(&parts.name),
        };
        let before = old.as_ref().and_then(|old| old.bounds.as_deref());
        let bounds = Bounds::of(&parts.limits, &offers.tools, before);
        let shard = Arc::new(Shard::new(parts, offers, (meter, bounds)));
        let mut next = self.clone();
        let same_offers = old
            .as_ref()
            .is_some_and(|old| old.name == shard.name && Arc::ptr_eq(&old.offers, &shard.offers));
        if same_offers {
            if old.is_some_and(|old| old.about != shard.about) {
                next.pages = Arc::default();
            }
            next.shards.insert(shard.name.clone(), shard);
            return next;
        }
        if let Some(old) = old {
            next.remove(&old);
        }
        // A service that was deleted may still be here when its name is already another's.
        if let Some(holder) = self
            .shards
            .get(&shard.name)
            .filter(|one| one.id != shard.id)
        {
            next.remove(holder);
        }
        next.insert(shard);
        next.pages = Arc::default();
        next
    }

    /// Takes a service away.
    pub(crate) fn without(&self, id: Id<Service>) -> Self {
        let mut next = self.clone();
        if let Some(old) = self.shard(id).cloned() {
            next.remove(&old);
            next.pages = Arc::default();
        }
        next
    }

    fn insert(&mut self, shard: Arc<Shard>) {
        let slot = |index: usize| Slot {
            service: shard.id,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        };
        for (index, offer) in shard.offers.tools.iter().enumerate() {
            self.tools
                .entry(Arc::clone(&offer.exposed))
                .or_insert(slot(index));
        }
        for (index, offer) in shard.offers.prompts.iter().enumerate() {
            self.prompts
                .entry(Arc::clone(&offer.exposed))
                .or_insert(slot(index));
        }
        for offer in &shard.offers.resources {
            let others = self.resources.get(&offer.own);
            let mut owners = others.map(|owners| owners.to_vec()).unwrap_or_default();
            if let Err(place) = owners.binary_search(&shard.id) {
                owners.insert(place, shard.id);
            }
            self.set_owners(&offer.own, owners);
        }
        self.digests = self.digests.plus(shard.offers.digests);
        self.names.insert(shard.id, shard.name.clone());
        let name = shard.name.clone();
        self.shards.insert(name.clone(), shard);
        self.renew_in_sets(&name);
    }

    fn remove(&mut self, shard: &Shard) {
        let ours = |slot: Option<&Slot>| slot.is_some_and(|slot| slot.service == shard.id);
        for offer in &shard.offers.tools {
            if ours(self.tools.get(&offer.exposed)) {
                self.tools.remove(&offer.exposed);
            }
        }
        for offer in &shard.offers.prompts {
            if ours(self.prompts.get(&offer.exposed)) {
                self.prompts.remove(&offer.exposed);
            }
        }
        for offer in &shard.offers.resources {
            let owners = self
                .resources
                .get(&offer.own)
                .into_iter()
                .flat_map(|owners| owners.iter());
            let others: Vec<Id<Service>> = owners.copied().filter(|id| *id != shard.id).collect();
            self.set_owners(&offer.own, others);
        }
        self.digests = self.digests.minus(shard.offers.digests);
        self.names.remove(&shard.id);
        self.shards.remove(&shard.name);
        self.renew_in_sets(&shard.name);
    }

    /// What clients may do with a list of all services.
    pub(crate) fn cache_hint(&self, now: Timestamp) -> CacheHint {
        let hints = self.shards.values().map(|shard| shard.cache_hint(now));
        hints.fold(CacheHint::UNBOUNDED, CacheHint::and)
    }

    /// Writes down who offers a URI, the oldest first: all others have it under a prefix.
    fn set_owners(&mut self, uri: &Arc<str>, owners: Vec<Id<Service>>) {
        let before = self.resources.get(uri).cloned();
        let before = before.iter().flat_map(|owners| owners.iter().skip(1));
        for id in before {
            let left = self.prefixed.get(id).map_or(0, |count| count - 1);
            if left == 0 {
                self.prefixed.remove(id);
            } else {
                self.prefixed.insert(*id, left);
            }
        }
        for id in owners.iter().skip(1) {
            *self.prefixed.entry(*id).or_insert(0) += 1;
        }
        if owners.is_empty() {
            self.resources.remove(uri);
        } else {
            self.resources.insert(Arc::clone(uri), owners.into());
        }
    }

    /// Whether some URIs of a service are known to clients under a prefix.
    pub(crate) fn has_prefixed(&self, service: Id<Service>) -> bool {
        self.prefixed.contains_key(&service)
    }

    pub(crate) fn shard(&self, id: Id<Service>) -> Option<&Arc<Shard>> {
        self.shards.get(self.names.get(&id)?)
    }

    /// The service and offer behind an exposed tool name.
    pub(crate) fn tool(&self, exposed: &str) -> Option<(&Arc<Shard>, &Offer)> {
        let slot = self.tools.get(exposed)?;
        let shard = self.shard(slot.service)?;
        Some((shard, shard.offers.tools.get(slot.index as usize)?))
    }

    /// The service and offer behind an exposed prompt name.
    pub(crate) fn prompt(&self, exposed: &str) -> Option<(&Arc<Shard>, &Offer)> {
        let slot = self.prompts.get(exposed)?;
        let shard = self.shard(slot.service)?;
        Some((shard, shard.offers.prompts.get(slot.index as usize)?))
    }

    /// The service that answers for a listed URI: the oldest that lists it.
    pub(crate) fn owner_of(&self, uri: &str) -> Option<&Arc<Shard>> {
        let owners = self.resources.get(uri)?;
        self.shard(*owners.first()?)
    }

    /// The oldest service with this template.
    pub(crate) fn owner_of_template(&self, template: &str) -> Option<&Arc<Shard>> {
        let has = |shard: &&Arc<Shard>| {
            shard
                .offers
                .templates
                .iter()
                .any(|one| *one.own == *template)
        };
        self.shards
            .values()
            .filter(has)
            .min_by_key(|shard| shard.id)
    }

    /// The oldest service with a template that a URI fits.
    pub(crate) fn with_template_for(&self, uri: &str) -> Option<&Arc<Shard>> {
        let fits = |shard: &&Arc<Shard>| shard.offers.has_template_for(uri);
        self.shards
            .values()
            .filter(fits)
            .min_by_key(|shard| shard.id)
    }
}

impl Shard {
    fn new(
        parts: Parts,
        offers: Arc<Offers>,
        (meter, bounds): (Arc<Meter>, Option<Arc<Bounds>>),
    ) -> Self {
        Self {
            id: parts.id,
            name: parts.name,
            catalog: parts.catalog,
            offers,
            links: parts.links,
            unavailable: parts.unavailable,
            timeout: parts.limits.timeout.map(|span| span.0),
            concurrency: parts.limits.concurrency,
            meter,
            bounds,
            about: parts.about,
            reaches: Reaches::default(),
            balance: parts.balance,
            turn: AtomicUsize::new(0),
        }
    }

    /// What questions of access are about.
    pub(crate) fn target(&self) -> Target<'_> {
        Target {
            id: self.id,
            name: self.name.as_str(),
            owner: &self.about.owner,
            environment: &self.about.environment,
            tags: &self.about.tags,
        }
    }

    /// What clients may do with its lists, as far as the server still stands by what it said.
    pub(crate) fn cache_hint(&self, now: Timestamp) -> CacheHint {
        let Some(catalog) = &self.catalog else {
            return CacheHint::default();
        };
        let age = now.since(catalog.fetched_at);
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        CacheHint {
            ttl_ms: catalog.cache.ttl_ms.saturating_sub(age),
            ..catalog.cache
        }
    }

    fn offers_still_hold(&self, parts: &Parts) -> bool {
        let same = match (&self.catalog, &parts.catalog) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        let asked = self.offers.filter == parts.tools && self.offers.validate == parts.validate;
        same && asked && self.name == parts.name
    }

    /// The instance that takes the next call: the one that is meant, while it is there.
    pub(crate) fn choose_for(
        &self,
        instance: Option<u64>,
        caller: Proof,
    ) -> Result<Engaged, Failure> {
        let is_meant = |link: &&Link| Some(link.id()) == instance && link.is_open();
        let meant = instance.and_then(|_| self.links.iter().find(is_meant));
        match meant.and_then(Link::engage) {
            Some(link) => Ok(link),
            None => self.choose(caller),
        }
    }

    /// The instance that takes the next call.
    pub(crate) fn choose(&self, caller: Proof) -> Result<Engaged, Failure> {
        if let [only] = &self.links[..]
            && only.is_open()
            && let Some(link) = only.engage()
        {
            return Ok(link);
        }
        self.choose_but(&[], caller).ok_or_else(|| self.not_there())
    }

    /// The instance that takes the next call, none of `others`.
    pub(crate) fn choose_but(&self, others: &[u64], caller: Proof) -> Option<Engaged> {
        let mut candidates: Vec<Candidate> = self.links.iter().map(Link::candidate).collect();
        for (link, candidate) in self.links.iter().zip(&mut candidates) {
            candidate.ready &= !others.contains(&link.id());
        }
        let caller = match self.balance {
            Balance::ConsistentHash => BuildHasherDefault::<DefaultHasher>::new().hash_one(caller),
            _ => 0,
        };
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let chosen = balance::choose(self.balance, &candidates, Draw { turn, caller })?;
            if let Some(link) = self.links[chosen].engage() {
                return Some(link);
            }
            // It was closed in this moment.
            candidates[chosen].ready = false;
        }
    }

    /// Whether an instance is expected: it is being started, or would be if it were asked for, or is
    /// being closed while this is looked at.
    pub(crate) fn is_awaited(&self) -> bool {
        match &self.unavailable {
            Some(Unavailable::Starting | Unavailable::Idle(_)) => self.links.is_empty(),
            Some(Unavailable::Because(_)) | None => self.links.iter().any(Link::is_retired),
        }
    }

    /// Asks for an instance, where there is none because nobody called.
    pub(crate) fn wake(&self) {
        if let Some(Unavailable::Idle(bell)) = &self.unavailable {
            bell.ring();
        }
    }

    /// Whether the server says when a resource has changed. Of one that is not there it is not known.
    pub(crate) fn tells_of_resources(&self) -> bool {
        let tells = |link: &Link| Offered::of(&link.facts().capabilities).subscribe;
        self.links.is_empty() || self.links.iter().any(tells)
    }

    fn not_there(&self) -> Failure {
        let reason = match &self.unavailable {
            Some(Unavailable::Starting | Unavailable::Idle(_)) => {
                "it is starting; try again in a moment"
            }
            Some(Unavailable::Because(reason)) => reason,
            None => "no instance of it is connected",
        };
        let detail = format!("`{}` cannot take calls now: {reason}", self.name);
        Failure::new(Kind::UpstreamUnavailable, detail).retry_after(5)
    }
}

impl Offers {
    fn of(parts: &Parts, name_max: usize) -> Self {
        let Some(catalog) = &parts.catalog else {
            return Self {
                filter: parts.tools.clone(),
                validate: parts.validate,
                ..Self::default()
            };
        };
        let named = |item: &Item| named_offer(item, &parts.name, name_max);
        let admitted = |item: &&Item| parts.tools.admits(&item.key);
        let tools: Vec<Offer> = catalog
            .tools
            .iter()
            .filter(admitted)
            .filter_map(|item| tool_offer(item, &parts.name, name_max))
            .collect();
        let prompts: Vec<Offer> = catalog.prompts.iter().map(named).collect();
        let resources: Vec<Offer> = catalog.resources.iter().map(unnamed_offer).collect();
        let templates: Vec<Offer> = catalog.templates.iter().map(unnamed_offer).collect();
        let digests = Digests {
            tools: digest(&parts.name, &tools),
            prompts: digest(&parts.name, &prompts),
            resources: digest(&parts.name, &resources)
                .wrapping_add(digest(&parts.name, &templates)),
        };
        Self {
            tools_by_name: by_own(&tools),
            prompts_by_name: by_own(&prompts),
            tools,
            prompts,
            resources,
            templates,
            digests,
            filter: parts.tools.clone(),
            validate: parts.validate,
        }
    }

    /// The same with what its calls are checked against. Tools that are as they were keep what was
    /// compiled.
    fn with_schemas(mut self, old: Option<&Self>) -> Self {
        if self.validate == Validate::None {
            return self;
        }
        let threads = validate::threads();
        for tool in &mut self.tools {
            let kept = old.and_then(|old| old.tool(&tool.own)?.schemas.as_ref());
            let kept = kept.filter(|schemas| schemas.are_of(&tool.definition));
            let schemas = kept.cloned();
            tool.schemas =
                Some(schemas.unwrap_or_else(|| Arc::new(Schemas::new(&tool.definition, &threads))));
        }
        self
    }

    /// The tool with the service's own name `own`.
    pub(crate) fn tool(&self, own: &str) -> Option<&Offer> {
        self.tools.get(*self.tools_by_name.get(own)? as usize)
    }

    /// The place of that tool among the service's tools.
    pub(crate) fn tool_index(&self, own: &str) -> Option<usize> {
        Some(*self.tools_by_name.get(own)? as usize)
    }

    /// The tool `own` of another catalog of the service, as far as it would be shown.
    pub(crate) fn tool_in(
        &self,
        catalog: &Catalog,
        own: &str,
        service: &ServiceName,
    ) -> Option<Offer> {
        let item = catalog.tools.iter().find(|item| *item.key == *own)?;
        // Nobody calls it by an exposed name.
        let offer = || tool_offer(item, service, usize::MAX);
        self.filter.admits(own).then(offer).flatten()
    }

    /// The prompt with the service's own name `own`.
    pub(crate) fn prompt(&self, own: &str) -> Option<&Offer> {
        self.prompts.get(*self.prompts_by_name.get(own)? as usize)
    }

    fn has_template_for(&self, uri: &str) -> bool {
        self.templates
            .iter()
            .any(|offer| fits_template(&offer.own, uri))
    }
}

fn by_own(offers: &[Offer]) -> HashMap<Arc<str>, u32> {
    let place = |(index, offer): (usize, &Offer)| {
        (
            Arc::clone(&offer.own),
            u32::try_from(index).unwrap_or(u32::MAX),
        )
    };
    offers.iter().enumerate().map(place).collect()
}

/// A tool whose header annotations are wrong must not be offered (MCP 2026-07-28, Streamable HTTP,
/// "Custom Headers from Tool Parameters").
fn tool_offer(item: &Item, service: &ServiceName, name_max: usize) -> Option<Offer> {
    let mirrored = match ParamHeaders::of_tool(&item.definition) {
        Ok(mirrored) => Some(mirrored).filter(|mirrored| !mirrored.is_empty()),
        Err(error) => {
            tracing::warn!(service.name = %service, tool = %item.key, "the tool is left out: {error}");
            return None;
        }
    };
    Some(Offer {
        mirrored: mirrored.map(Arc::new),
        ..named_offer(item, service, name_max)
    })
}

fn named_offer(item: &Item, service: &ServiceName, name_max: usize) -> Offer {
    let exposed = names::exposed(service.as_str(), &item.key, name_max);
    Offer {
        own: Arc::clone(&item.key),
        own_json: json_string(&item.key),
        exposed: exposed.name.into(),
        definition: Arc::clone(&item.definition),
        mirrored: None,
        schemas: None,
    }
}

/// Resources keep their URIs.
fn unnamed_offer(item: &Item) -> Offer {
    Offer {
        own: Arc::clone(&item.key),
        own_json: json_string(&item.key),
        exposed: Arc::clone(&item.key),
        definition: Arc::clone(&item.definition),
        mirrored: None,
        schemas: None,
    }
}

pub(crate) fn json_string(text: &str) -> Box<str> {
    let mut quoted = Vec::with_capacity(text.len() + 2);
    meta::quote(&mut quoted, text);
    String::from_utf8_lossy(&quoted).into()
}

fn digest<'a>(service: &ServiceName, offers: impl IntoIterator<Item = &'a Offer>) -> u64 {
    let mut hasher = BuildHasherDefault::<DefaultHasher>::new().build_hasher();
    let mut is_empty = true;
    for offer in offers {
        is_empty = false;
        hasher.write(service.as_str().as_bytes());
        hasher.write(offer.definition.get().as_bytes());
        hasher.write_u8(0xff);
    }
    if is_empty { 0 } else { hasher.finish() }
}

/// Whether `uri` can have come from an RFC 6570 template: its literal parts appear in order, with
/// something in the place of every expression.
fn fits_template(template: &str, uri: &str) -> bool {
    let mut parts = template.split('{').peekable();
    let Some(mut rest) = parts.next().and_then(|start| uri.strip_prefix(start)) else {
        return false;
    };
    let mut open = false;
    while let Some(part) = parts.next() {
        let Some((_, literal)) = part.split_once('}') else {
            return false;
        };
        open = literal.is_empty();
        if open {
            continue;
        }
        if parts.peek().is_none() {
            return rest
                .strip_suffix(literal)
                .is_some_and(|filled| !filled.is_empty());
        }
        // An expression stands for at least one character.
        let Some(at) = rest
            .char_indices()
            .skip(1)
            .map(|(at, _)| at)
            .find(|at| rest[*at..].starts_with(literal))
        else {
            return false;
        };
        rest = &rest[at + literal.len()..];
    }
    if open {
        !rest.is_empty()
    } else {
        rest.is_empty()
    }
}

#[cfg(test)]
mod tests;
