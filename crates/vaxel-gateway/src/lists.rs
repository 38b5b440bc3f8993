//! Lists and introductions, from the catalog: no upstream is asked.
//!
//! A page is put together once per snapshot and then shared: its bytes go out without being copied.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use vaxel_core::{
    catalog::CacheHint,
    failure::{Failure, Kind},
    name::ServiceName,
};
use vaxel_mcp::{
    cursor::Cursor,
    definition,
    federation::{self, ListKind, ListPage},
    handshake::capabilities::TASKS,
    hello::{self, Introduction, Offered},
    method::Method,
    revision::{Era, Revision},
};

use crate::{
    addresses,
    authorize::{self, Sight},
    edge::Exchange,
    meta,
    pipeline::Context,
    respond::{self, Response},
    route::{Scope, ScopeId},
    snapshot::{Offer, Offers, Shard, Snapshot},
};

/// Pages kept per snapshot; further ones are made anew each time.
const PAGES: usize = 512;
/// How long a client may keep a list at most, milliseconds: an operator may change what is offered at
/// any time. Clients that listen hear of changes at once.
const TTL_MS: u64 = 5_000;
/// The same in the steps in which it runs out, so that pages can be shared.
const TTL_STEP_MS: u64 = 1_000;
/// Longest cursor that is looked at, bytes.
const CURSOR_MAX: usize = 200;

/// Ready list results of one snapshot.
#[derive(Default)]
pub(crate) struct Pages(Mutex<HashMap<PageKey, Bytes>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct PageKey {
    scope: ScopeId,
    method: Method,
    revision: Revision,
    offset: usize,
    cache: CacheHint,
    /// Whose eyes it is for.
    sight: Sight,
}

/// `tools/list`, `prompts/list`, `resources/list`, `resources/templates/list`.
pub(crate) fn page(context: &Context, exchange: &Exchange) -> Result<Response, Failure> {
    authorize::may_list(&context.principal)?;
    context.shared.metrics.lists.inc();
    let method = exchange.request.method();
    if method == Method::ToolsList && meta::is_asked_for(context) {
        let result = meta_page(context, exchange);
        return Ok(respond::shared_result(exchange.request.id(), result));
    }
    let key = PageKey {
        scope: context.scope.id(),
        method,
        revision: exchange.client.revision(),
        offset: offset(context, exchange)?,
        cache: cache_hint(context),
        sight: Sight::of(&context.principal),
    };
    let pages = &context.snapshot.pages;
    let known = pages.0.lock().get(&key).cloned();
    let result = known.unwrap_or_else(|| {
        let result = build(context, &key);
        let mut pages = pages.0.lock();
        if pages.len() < PAGES {
            pages.insert(key, result.clone());
        }
        result
    });
    Ok(respond::shared_result(exchange.request.id(), result))
}

/// Where the page starts. A cursor of other lists than the present ones is refused, so that the
/// client starts again instead of missing or doubling entries.
fn offset(context: &Context, exchange: &Exchange) -> Result<usize, Failure> {
    #[derive(Deserialize)]
    struct Params {
        cursor: Option<String>,
    }
    let params: Option<Params> = exchange.request.read_params();
    let invalid = || Failure::new(Kind::Invalid, "The cursor is not valid here: list anew");
    let Some(cursor) = params.ok_or_else(invalid)?.cursor else {
        return Ok(0);
    };
    if cursor.len() > CURSOR_MAX {
        return Err(invalid());
    }
    let method = exchange.request.method();
    let binding = cursor_binding(&context.scope, method);
    let opened = context.shared.sealer.open_text(&binding, &cursor);
    let opened = opened.map_err(|_| invalid())?;
    let cursor = Cursor::of_bytes(opened.expose()).ok_or_else(invalid)?;
    if cursor.generation != digest(context, method) {
        return Err(invalid());
    }
    usize::try_from(cursor.offset).map_err(|_| invalid())
}

/// A cursor belongs to one list of one endpoint.
fn cursor_binding(scope: &Scope, method: Method) -> Vec<u8> {
    let mut binding = format!("cursor of {}", method.as_str()).into_bytes();
    match scope {
        Scope::All => {}
        Scope::Service(shard) => {
            binding.push(b' ');
            binding.extend_from_slice(shard.id.as_bytes());
        }
        Scope::Set(set) => binding.extend_from_slice(format!(" in set {}", set.name).as_bytes()),
    }
    binding
}

fn digest(context: &Context, method: Method) -> u64 {
    let digests = match &context.scope {
        Scope::All => context.snapshot.digests,
        Scope::Service(shard) => shard.offers.digests,
        Scope::Set(set) => set.digests(&context.snapshot),
    };
    match method {
        Method::ToolsList => digests.tools,
        Method::PromptsList => digests.prompts,
        _ => digests.resources,
    }
}

fn build(context: &Context, key: &PageKey) -> Bytes {
    let size = context.shared.config.page_size;
    let all = all(context, key.method);
    let mut offers = all.iter().skip(key.offset);
    let page: Vec<&Entry<'_>> = offers.by_ref().take(size).collect();
    let more = offers.next().is_some();
    let next = more.then(|| {
        let cursor = Cursor {
            generation: digest(context, key.method),
            offset: (key.offset + size) as u64,
        };
        let binding = cursor_binding(&context.scope, key.method);
        (context.shared.sealer).seal_text(&binding, &cursor.to_bytes())
    });
    let definitions: Vec<Cow<'_, [u8]>> = page.iter().map(|entry| entry.outward(key)).collect();
    let items: Vec<_> = definitions
        .iter()
        .map(|definition| definition::for_revision(definition, key.revision))
        .collect();
    let about = hello::implementation(context.shared.config.version);
    federation::list_result(
        list_kind(key.method),
        items.iter().map(|item| &**item),
        &ListPage {
            revision: key.revision,
            next_cursor: next.as_deref(),
            cache: key.cache,
            server_info: Some(&about),
        },
    )
}

/// The tools of the meta view, which are the same for everyone and always.
fn meta_page(context: &Context, exchange: &Exchange) -> Bytes {
    let revision = exchange.client.revision();
    let outward = |text: &'static str| definition::for_revision(text.as_bytes(), revision);
    let items = meta::definitions().map(outward);
    let about = hello::implementation(context.shared.config.version);
    let page = ListPage {
        revision,
        next_cursor: None,
        cache: cache_hint(context),
        server_info: Some(&about),
    };
    federation::list_result(ListKind::Tools, items.iter().map(|item| &**item), &page)
}

/// What clients may do with a list: the least that its contributors allow, for as long as they still
/// allow it. A legacy service allows nothing. With keys, what there is depends on who asks, so that it
/// is never for everyone.
fn cache_hint(context: &Context) -> CacheHint {
    let now = context.shared.clock.now();
    let hint = match &context.scope {
        Scope::All => context.snapshot.cache_hint(now),
        Scope::Service(shard) => shard.cache_hint(now),
        Scope::Set(set) => set.cache_hint(&context.snapshot, now),
    };
    let ttl_ms = hint.ttl_ms.min(TTL_MS);
    CacheHint {
        ttl_ms: ttl_ms - ttl_ms % TTL_STEP_MS,
        is_public: hint.is_public && !context.shared.config.auth,
    }
}

fn list_kind(method: Method) -> ListKind {
    match method {
        Method::PromptsList => ListKind::Prompts,
        Method::ResourcesList => ListKind::Resources,
        Method::TemplatesList => ListKind::Templates,
        _ => ListKind::Tools,
    }
}

/// One entry of a list.
struct Entry<'a> {
    offer: &'a Offer,
    /// Its service, where its name says so.
    named: Option<&'a ServiceName>,
    /// Its service, when an older one has its address.
    prefix: Option<&'a ServiceName>,
    /// Its service, when the address of its app may be such a one.
    app_of: Option<(&'a Snapshot, &'a Shard)>,
}

impl<'a> Entry<'a> {
    /// The definition as this list shows it.
    fn outward(&self, list: &PageKey) -> Cow<'a, [u8]> {
        let Some(service) = self.prefix else {
            let definition = match self.named {
                Some(service) => self.offer.federated(service),
                None => Cow::Borrowed(self.offer.definition.get().as_bytes()),
            };
            return match self.app_of {
                Some((snapshot, shard)) => addresses::of_app(snapshot, shard, definition),
                None => definition,
            };
        };
        let address = federation::prefixed_uri(service.as_str(), &self.offer.own);
        let definition = &self.offer.definition;
        Cow::Owned(definition::readdressed(definition, list.method, &address))
    }
}

fn all(context: &Context, method: Method) -> Vec<Entry<'_>> {
    let plain = |offer| Entry {
        offer,
        named: None,
        prefix: None,
        app_of: None,
    };
    let snapshot = &context.snapshot;
    let (sight, principal) = (Sight::of(&context.principal), &context.principal);
    let is_shown = |shard: &Shard, offer: &Offer| {
        let tool = (method == Method::ToolsList).then_some(&*offer.own);
        sight.is_whole() || sight.shows(principal, shard, tool)
    };
    if let Scope::Service(shard) = &context.scope {
        let offers = of(&shard.offers, method).iter();
        return offers
            .filter(|offer| is_shown(shard, offer))
            .map(plain)
            .collect();
    }
    let owner = |offer: &Offer| match method {
        Method::ResourcesList => snapshot.owner_of(&offer.own),
        Method::TemplatesList => snapshot.owner_of_template(&offer.own),
        _ => None,
    };
    let mut entries = Vec::new();
    for shard in shards(context) {
        let shares = method == Method::ToolsList && snapshot.has_prefixed(shard.id);
        let app_of = shares.then_some((&**snapshot, &**shard));
        for (index, offer) in of(&shard.offers, method).iter().enumerate() {
            if let Scope::Set(set) = &context.scope
                && !set.shows(shard, method, index)
            {
                continue;
            }
            if !is_shown(shard, offer) {
                continue;
            }
            let is_taken = owner(offer).is_some_and(|owner| owner.id != shard.id);
            entries.push(Entry {
                offer,
                named: Some(&shard.name),
                prefix: is_taken.then_some(&shard.name),
                app_of,
            });
        }
    }
    entries
}

/// Every tool that an endpoint of many services has, with its service.
pub(crate) fn tools(context: &Context) -> Vec<(&ServiceName, &Offer)> {
    let entries = all(context, Method::ToolsList).into_iter();
    entries
        .filter_map(|entry| Some((entry.named?, entry.offer)))
        .collect()
}

/// The services of the scope, in the order of lists.
fn shards(context: &Context) -> Vec<&Arc<Shard>> {
    match &context.scope {
        Scope::All => context.snapshot.shards.values().collect(),
        Scope::Service(shard) => vec![shard],
        Scope::Set(set) => set.shards(&context.snapshot).collect(),
    }
}

fn of(offers: &Offers, method: Method) -> &[Offer] {
    match method {
        Method::PromptsList => &offers.prompts,
        Method::ResourcesList => &offers.resources,
        Method::TemplatesList => &offers.templates,
        _ => &offers.tools,
    }
}

/// `server/discover`.
pub(crate) fn discover(context: &Context, exchange: &Exchange) -> Result<Response, Failure> {
    authorize::may_list(&context.principal)?;
    let mut introduction = introduction(context, Era::Modern);
    introduction.cache = cache_hint(context);
    let result = hello::discover_result(&introduction);
    Ok(respond::shared_result(exchange.request.id(), result))
}

/// The result of `initialize`.
pub(crate) fn initialize_result(context: &Context, revision: Revision) -> Bytes {
    hello::initialize_result(revision, &introduction(context, Era::Legacy))
}

/// What this endpoint says about itself.
fn introduction(context: &Context, era: Era) -> Introduction {
    let mut shards = shards(context);
    shards.retain(|shard| authorize::may_know(&context.principal, shard));
    let catalogs = shards
        .iter()
        .filter_map(|shard| Some((shard, shard.catalog.as_ref()?)));
    let offers = catalogs
        .clone()
        .map(|(shard, catalog)| {
            let offered = Offered::of(&catalog.capabilities);
            match &context.scope {
                Scope::Set(set) => set.limit(shard, offered),
                Scope::All | Scope::Service(_) => offered,
            }
        })
        .fold(Offered::default(), Offered::or);
    let extensions = catalogs
        .clone()
        .flat_map(|(_, catalog)| hello::extensions(&catalog.capabilities))
        .filter(|(name, _)| era == Era::Modern || &**name != TASKS)
        .collect();
    let instructions: Vec<(&str, &str)> = catalogs
        .filter_map(|(shard, catalog)| {
            Some((shard.name.as_str(), catalog.instructions.as_deref()?))
        })
        .collect();
    Introduction {
        info: hello::implementation(context.shared.config.version),
        // The federated endpoint may get tools at any time: clients ask only what is announced.
        offers: Offered {
            tools: offers.tools || context.scope.is_federated(),
            ..offers
        },
        extensions,
        instructions: instructions_text(&instructions),
        cache: CacheHint::default(),
    }
}

/// Many services' instructions as one text; a single one's stays as it is.
fn instructions_text(all: &[(&str, &str)]) -> Option<String> {
    match all {
        [] => None,
        [(_, only)] => Some((*only).to_owned()),
        many => Some(
            many.iter()
                .map(|(name, text)| format!("## {name}\n{text}"))
                .collect::<Vec<_>>()
                .join("\n\n"),
        ),
    }
}
