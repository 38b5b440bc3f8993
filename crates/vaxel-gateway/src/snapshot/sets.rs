//! Sets: what of many services is shown on an endpoint of its own, under the names and addresses that
//! it has on the endpoint of all.
//!
//! A set holds one [`Part`] per service that it names and that is there. When what a service offers
//! changes, its part is made anew in the sets that name it, which looks at that service's offers and
//! nothing else; other sets, and changes of links alone, cost nothing. A call on a set costs one look
//! into a map more than one on the endpoint of all.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use imbl::{HashMap as Shared, OrdMap};
use vaxel_core::{
    catalog::CacheHint,
    id::{Id, Service},
    name::{ServiceName, ToolsetName},
    time::Timestamp,
    toolset::{Selected, View, selects},
};
use vaxel_mcp::{hello::Offered, method::Method};

use crate::gateway::{ServedSet, ShownOf};

use super::{Digests, Offer, Offers, Shard, Snapshot, digest, fits_template};

/// Every set, and which of them name a service.
#[derive(Clone, Default)]
pub(super) struct Sets {
    by_name: OrdMap<ToolsetName, Arc<Set>>,
    /// Also of services that are not there.
    naming: Shared<ServiceName, Vec<ToolsetName>>,
}

/// One set at one moment.
#[derive(Clone)]
pub(crate) struct Set {
    pub(crate) name: ToolsetName,
    pub(crate) view: View,
    services: Arc<[Selected]>,
    /// Of the services that are there, in the order of lists.
    parts: OrdMap<ServiceName, Arc<Part>>,
    digests: Digests,
}

/// What a set shows of one service.
struct Part {
    service: Id<Service>,
    /// Place in [`Set::services`].
    selected: usize,
    tools: Shown,
    prompts: Shown,
    resources: Shown,
    templates: Shown,
    digests: Digests,
}

/// Which offers of one kind are shown, by their places.
enum Shown {
    All,
    Some(Box<[bool]>),
}

impl Snapshot {
    /// The same with these sets and no others. Those that stay as they are cost a comparison.
    pub(crate) fn with_sets(&self, sets: Vec<ServedSet>) -> Self {
        let mut next = self.clone();
        next.sets = Sets::default();
        for set in sets {
            let name = set.name.clone();
            for selected in &set.services {
                let naming = next.sets.naming.entry(selected.service.clone());
                naming.or_default().push(name.clone());
            }
            let old = self.set(name.as_str());
            let is_same = |old: &&Arc<Set>| *old.services == *set.services && old.view == set.view;
            let set = match old.filter(is_same) {
                Some(old) => Arc::clone(old),
                None => Arc::new(Set::new(set, self)),
            };
            next.sets.by_name.insert(name, set);
        }
        next.pages = Arc::default();
        next
    }

    /// The set of this name.
    pub(crate) fn set(&self, name: &str) -> Option<&Arc<Set>> {
        self.sets.by_name.get(name)
    }

    /// What the service of this name offers is another thing from now on.
    pub(super) fn renew_in_sets(&mut self, service: &ServiceName) {
        let Some(naming) = self.sets.naming.get(service) else {
            return;
        };
        let shard = self.shards.get(service);
        for name in naming {
            if let Some(set) = self.sets.by_name.get_mut(name) {
                Arc::make_mut(set).renew(service, shard.map(|shard| &**shard));
            }
        }
    }
}

impl Set {
    fn new(served: ServedSet, snapshot: &Snapshot) -> Self {
        let mut set = Self {
            name: served.name,
            view: served.view,
            services: served.services.into(),
            parts: OrdMap::new(),
            // Another view is another list.
            digests: Digests {
                tools: u64::from(served.view == View::Meta),
                ..Digests::default()
            },
        };
        for Selected { service, .. } in &*Arc::clone(&set.services) {
            let shard = snapshot.shards.get(service);
            set.renew(service, shard.map(|shard| &**shard));
        }
        set
    }

    fn renew(&mut self, service: &ServiceName, shard: Option<&Shard>) {
        if let Some(old) = self.parts.remove(service) {
            self.digests = self.digests.minus(old.digests);
        }
        let named = |one: &Selected| one.service == *service;
        let selected = self.services.iter().position(named);
        if let (Some(shard), Some(selected)) = (shard, selected) {
            let part = Part::new(shard, (selected, &self.services[selected]));
            self.digests = self.digests.plus(part.digests);
            self.parts.insert(service.clone(), Arc::new(part));
        }
    }

    fn part(&self, shard: &Shard) -> Option<&Part> {
        let part = self.parts.get(&shard.name)?;
        (part.service == shard.id).then_some(part)
    }

    /// Its services that are there, in the order of lists.
    pub(crate) fn shards<'a>(
        &'a self,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = &'a Arc<Shard>> {
        let names = self.parts.keys();
        names.filter_map(|name| snapshot.shards.get(name))
    }

    /// The service and offer behind an exposed tool name.
    pub(crate) fn tool<'a>(
        &self,
        snapshot: &'a Snapshot,
        exposed: &str,
    ) -> Option<(&'a Arc<Shard>, &'a Offer)> {
        let slot = snapshot.tools.get(exposed)?;
        let shard = snapshot.shard(slot.service)?;
        let index = slot.index as usize;
        let is_shown = self.part(shard)?.tools.has(index);
        Some((shard, shard.offers.tools.get(index)?)).filter(|_| is_shown)
    }

    /// The service and offer behind an exposed prompt name.
    pub(crate) fn prompt<'a>(
        &self,
        snapshot: &'a Snapshot,
        exposed: &str,
    ) -> Option<(&'a Arc<Shard>, &'a Offer)> {
        let slot = snapshot.prompts.get(exposed)?;
        let shard = snapshot.shard(slot.service)?;
        let index = slot.index as usize;
        let is_shown = self.part(shard)?.prompts.has(index);
        Some((shard, shard.offers.prompts.get(index)?)).filter(|_| is_shown)
    }

    /// Whether a tool is shown, by its service's own name of it.
    pub(crate) fn shows_tool(&self, shard: &Shard, own: &str) -> bool {
        let index = shard.offers.tools_by_name.get(own);
        let part = self.part(shard);
        index.is_some_and(|index| part.is_some_and(|part| part.tools.has(*index as usize)))
    }

    /// Whether the entry at this place of a service's list is shown.
    pub(crate) fn shows(&self, shard: &Shard, list: Method, index: usize) -> bool {
        self.part(shard).is_some_and(|part| match list {
            Method::PromptsList => part.prompts.has(index),
            Method::ResourcesList => part.resources.has(index),
            Method::TemplatesList => part.templates.has(index),
            _ => part.tools.has(index),
        })
    }

    /// Whether a resource can be read, listed or not: a pattern fits its URI, or a template that is
    /// shown does.
    pub(crate) fn reads(&self, shard: &Shard, uri: &str) -> bool {
        let Some(part) = self.part(shard) else {
            return false;
        };
        let patterns = self.services[part.selected].resources.as_deref();
        let templates = shard.offers.templates.iter().enumerate();
        let mut shown = templates.filter(|(index, _)| part.templates.has(*index));
        selects(patterns, uri) || shown.any(|(_, offer)| fits_template(&offer.own, uri))
    }

    /// The service that answers for a listed URI: the oldest of the set that lists it. It may be one
    /// that has another address for it, because a service outside of the set is older.
    pub(crate) fn owner_of<'a>(&self, snapshot: &'a Snapshot, uri: &str) -> Option<&'a Arc<Shard>> {
        let owners = snapshot.resources.get(uri)?.iter();
        let mut owners = owners.filter_map(|id| snapshot.shard(*id));
        owners.find(|shard| self.reads(shard, uri))
    }

    /// The oldest service with this template.
    pub(crate) fn owner_of_template<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        template: &str,
    ) -> Option<&'a Arc<Shard>> {
        let has = |shard: &&Arc<Shard>| {
            let mut templates = shard.offers.templates.iter().enumerate();
            templates.any(|(index, offer)| {
                *offer.own == *template && self.shows(shard, Method::TemplatesList, index)
            })
        };
        self.shards(snapshot).filter(has).min_by_key(|one| one.id)
    }

    /// The oldest service with a template that a URI fits.
    pub(crate) fn with_template_for<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        uri: &str,
    ) -> Option<&'a Arc<Shard>> {
        let fits =
            |shard: &&Arc<Shard>| shard.offers.has_template_for(uri) && self.reads(shard, uri);
        self.shards(snapshot).filter(fits).min_by_key(|one| one.id)
    }

    /// How much it shows of its services that are there, in the order of lists.
    pub(crate) fn counts(&self, snapshot: &Snapshot) -> Vec<ShownOf> {
        let count = |shown: &Shown, offers: &[Offer]| shown.among(offers).count();
        let shown_of = |shard: &Arc<Shard>| {
            let (part, offers) = (self.part(shard)?, &shard.offers);
            Some(ShownOf {
                service: shard.name.clone(),
                tools: count(&part.tools, &offers.tools),
                prompts: count(&part.prompts, &offers.prompts),
                resources: count(&part.resources, &offers.resources),
                templates: count(&part.templates, &offers.templates),
            })
        };
        self.shards(snapshot).filter_map(shown_of).collect()
    }

    /// What of a service's areas there is in the set.
    pub(crate) fn limit(&self, shard: &Shard, offered: Offered) -> Offered {
        let Some(part) = self.part(shard) else {
            return Offered::default();
        };
        let selected = &self.services[part.selected];
        let some =
            |patterns: &Option<Vec<String>>| patterns.as_ref().is_none_or(|all| !all.is_empty());
        let resources = some(&selected.resources);
        Offered {
            tools: offered.tools && some(&selected.tools),
            prompts: offered.prompts && some(&selected.prompts),
            resources: offered.resources && resources,
            subscribe: offered.subscribe && resources,
            ..offered
        }
    }

    /// What clients may do with a list of the set.
    pub(crate) fn cache_hint(&self, snapshot: &Snapshot, now: Timestamp) -> CacheHint {
        let hints = self.shards(snapshot).map(|shard| shard.cache_hint(now));
        hints.fold(CacheHint::UNBOUNDED, CacheHint::and)
    }

    /// Numbers that differ when a list of the set differs. The addresses in them depend on services
    /// outside of it, too: those that are older and offer the same.
    pub(crate) fn digests(&self, snapshot: &Snapshot) -> Digests {
        if snapshot.prefixed.is_empty() {
            return self.digests;
        }
        let prefixed = |part: &Arc<Part>| {
            let count = snapshot.prefixed.get(&part.service)?;
            let mut hasher = std::hash::DefaultHasher::new();
            (part.service, count).hash(&mut hasher);
            Some(hasher.finish())
        };
        let hashes = self.parts.values().filter_map(prefixed);
        let shift = hashes.fold(0, u64::wrapping_add);
        Digests {
            tools: self.digests.tools.wrapping_add(shift),
            resources: self.digests.resources.wrapping_add(shift),
            ..self.digests
        }
    }
}

impl Part {
    fn new(shard: &Shard, (selected, entry): (usize, &Selected)) -> Self {
        let Offers {
            tools,
            prompts,
            resources,
            templates,
            ..
        } = &*shard.offers;
        let part = Self {
            service: shard.id,
            selected,
            tools: Shown::of(tools, entry.tools.as_deref()),
            prompts: Shown::of(prompts, entry.prompts.as_deref()),
            resources: Shown::of(resources, entry.resources.as_deref()),
            templates: Shown::of(templates, entry.resources.as_deref()),
            digests: shard.offers.digests,
        };
        let digest = |shown: &Shown, offers| match shown {
            Shown::All => None,
            Shown::Some(_) => Some(digest(&shard.name, shown.among(offers))),
        };
        let digests = Digests {
            tools: digest(&part.tools, tools).unwrap_or(part.digests.tools),
            prompts: digest(&part.prompts, prompts).unwrap_or(part.digests.prompts),
            resources: digest(&part.resources, resources)
                .zip(digest(&part.templates, templates))
                .map_or(part.digests.resources, |(one, other)| {
                    one.wrapping_add(other)
                }),
        };
        Self { digests, ..part }
    }
}

impl Shown {
    fn of(offers: &[Offer], patterns: Option<&[String]>) -> Self {
        match patterns {
            None => Self::All,
            Some(_) => Self::Some(
                offers
                    .iter()
                    .map(|one| selects(patterns, &one.own))
                    .collect(),
            ),
        }
    }

    fn has(&self, index: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(shown) => shown.get(index).is_some_and(|shown| *shown),
        }
    }

    fn among<'a>(&'a self, offers: &'a [Offer]) -> impl Iterator<Item = &'a Offer> {
        let shown = offers.iter().enumerate();
        shown
            .filter(|(index, _)| self.has(*index))
            .map(|(_, offer)| offer)
    }
}
