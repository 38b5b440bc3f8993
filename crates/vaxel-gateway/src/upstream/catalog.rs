//! Reads everything a server offers: all pages of the lists that it says it has.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;
use vaxel_core::{
    catalog::{CacheHint, Catalog, Item},
    failure::{Failure, Kind},
    time::Clock,
};
use vaxel_mcp::{definition::Page, meta, method::Method};

use super::Link;

/// Longest wait for one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most pages of one list: a server that never ends is cut off.
const PAGES: usize = 1_000;

pub(super) async fn fetch(link: &Link, items_max: usize) -> Result<Catalog, Failure> {
    let facts = link.facts();
    let offered = Offered::of(&facts.capabilities);
    let list = |offered: bool, method: Method| async move {
        if offered {
            list(link, method, items_max).await
        } else {
            Ok(List::default())
        }
    };
    let tools = list(offered.tools.is_some(), Method::ToolsList).await?;
    let prompts = list(offered.prompts.is_some(), Method::PromptsList).await?;
    let resources = list(offered.resources.is_some(), Method::ResourcesList).await?;
    let templates = list(offered.resources.is_some(), Method::TemplatesList).await?;
    let lists = [&tools, &prompts, &resources, &templates];
    let read = lists.into_iter().filter_map(|list| list.cache);
    Ok(Catalog {
        fetched_at: Clock::system().now(),
        revision: facts.revision.as_str().to_owned(),
        cache: read.reduce(CacheHint::and).unwrap_or_default(),
        tools: tools.items,
        prompts: prompts.items,
        resources: resources.items,
        templates: templates.items,
        capabilities: facts.capabilities.clone(),
        server_info: facts.server_info.clone(),
        instructions: facts.instructions.clone(),
    })
}

/// One list, whole.
#[derive(Default)]
struct List {
    items: Vec<Item>,
    /// What may be done with it; none when it was not read.
    cache: Option<CacheHint>,
}

impl List {
    fn add(&mut self, page: Page) {
        let hint = CacheHint {
            ttl_ms: page.ttl_ms.unwrap_or_default(),
            is_public: page.is_public,
        };
        self.cache = Some(self.cache.map_or(hint, |so_far| so_far.and(hint)));
        let items = page.items.into_iter().map(|(key, definition)| Item {
            key: key.into(),
            definition: Arc::from(definition),
        });
        self.items.extend(items);
    }
}

/// Which lists a server says it has.
#[derive(Deserialize, Default)]
struct Offered<'a> {
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resources: Option<&'a RawValue>,
}

impl<'a> Offered<'a> {
    fn of(capabilities: &'a RawValue) -> Self {
        serde_json::from_str(capabilities.get()).unwrap_or_default()
    }
}

async fn list(link: &Link, method: Method, items_max: usize) -> Result<List, Failure> {
    let mut list = List::default();
    let mut cursor: Option<String> = None;
    for _ in 0..PAGES {
        let mut params = vec![b'{'];
        if let Some(cursor) = &cursor {
            let mut text = Vec::new();
            meta::quote(&mut text, cursor);
            meta::member(&mut params, "cursor", &text);
        }
        params.push(b'}');
        let answered = link.ask(method, &params, PAGE_TIMEOUT).await?;
        let page = match answered.payload() {
            Ok(result) => Page::read(method, result),
            // Servers announce lists that they then do not have.
            Err(error) if is_unknown_method(error) => return Ok(list),
            Err(error) => {
                let said: String = error.get().chars().take(200).collect();
                return Err(broken(method, &said));
            }
        };
        let mut page = page.map_err(|error| broken(method, &error.to_string()))?;
        let next = page.next_cursor.take();
        list.add(page);
        if list.items.len() > items_max {
            let said = format!("it has more than {items_max} entries (upstream.catalog_items)");
            return Err(broken(method, &said));
        }
        match next {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(list),
        }
    }
    Err(broken(method, "it has no end"))
}

fn is_unknown_method(error: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Error {
        code: i32,
    }
    serde_json::from_str::<Error>(error.get())
        .is_ok_and(|error| error.code == vaxel_mcp::error::METHOD_NOT_FOUND)
}

fn broken(method: Method, said: &str) -> Failure {
    let list = method.as_str();
    Failure::new(
        Kind::UpstreamProtocol,
        format!("Its answer to {list} cannot be used: {said}"),
    )
}
