//! Queries of what services offer, and calling a tool without MCP.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use vaxel_core::{
    access::require_anywhere,
    catalog::{Catalog, Item},
    failure::{Failure, Issue, Kind},
    principal::{Permission, Principal},
    service::ServiceResource,
};
use vaxel_gateway::{ExposedTool, ToolCall, ToolReply};
use vaxel_mcp::names::exposed as exposed_name;

use crate::{
    change::ServiceRef,
    control::Control,
    query::{List, Offer, OfferKind, Offers, Page, ToolInput, ToolQuery, ToolTarget},
};

impl Control {
    /// What one service offers of one kind, from its catalog. `mcp:read`.
    pub async fn offers(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        kind: OfferKind,
    ) -> Result<Offers, Failure> {
        let resource = self.find_for(caller, Permission::McpRead, service).await?;
        let seen = self.inner.context.board.find(resource.id);
        let stale = seen
            .as_ref()
            .is_none_or(|seen| seen.status.instances.is_empty() || seen.status.stale);
        let catalog = match seen.and_then(|seen| seen.catalog.clone()) {
            Some(catalog) => Some(catalog),
            None => self.store().catalog(resource.id).await?.map(Arc::new),
        };
        let Some(catalog) = catalog else {
            return Ok(Offers {
                items: Vec::new(),
                stale: true,
                fetched_at: None,
            });
        };
        let name_max = self.inner.context.config.name_max;
        let items = listed(&resource, &catalog, (kind, name_max));
        Ok(Offers {
            items,
            stale,
            fetched_at: Some(catalog.fetched_at),
        })
    }

    /// The tools of all services, as clients see them. `mcp:read`.
    pub async fn tools(
        &self,
        caller: &Principal,
        query: &ToolQuery,
        page: &Page,
    ) -> Result<List<Offer>, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        let service = match &query.service {
            Some(service) => Some(
                self.find_for(caller, Permission::McpRead, service)
                    .await?
                    .id,
            ),
            None => None,
        };
        let gateway = &self.inner.context.gateway;
        let mut tools = gateway.exposed_tools(caller, service);
        tools.sort_by(|left, right| left.name.cmp(&right.name));
        let text = query.text.as_deref().map(str::to_lowercase);
        let after =
            |tool: &ExposedTool| page.cursor.as_deref().is_none_or(|last| *tool.name > *last);
        let mut found = tools
            .into_iter()
            .filter(after)
            .map(exposed)
            .filter(|offer| text.as_deref().is_none_or(|text| mentions(offer, text)));
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let items: Vec<Offer> = found.by_ref().take(limit).collect();
        let more = found.next().is_some();
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|last| last.name.to_string());
        Ok(List { items, next_cursor })
    }

    /// One tool, by its exposed name. `mcp:read`.
    pub fn tool(&self, caller: &Principal, name: &str) -> Result<Offer, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        let (service, _, _) = self
            .inner
            .context
            .gateway
            .tool(name)
            .ok_or_else(|| unknown(name))?;
        let tools = self
            .inner
            .context
            .gateway
            .exposed_tools(caller, Some(service));
        let found = tools.into_iter().find(|tool| *tool.name == *name);
        found.map(exposed).ok_or_else(|| unknown(name))
    }

    /// Calls a tool; authorized (`mcp:execute`), limited and recorded as over MCP.
    pub async fn call_tool(
        &self,
        caller: &Principal,
        target: &ToolTarget,
        input: ToolInput,
    ) -> Result<ToolReply, Failure> {
        require_anywhere(caller, Permission::McpExecute)?;
        let (service, tool) = match target {
            ToolTarget::Exposed(name) => {
                let found = self.inner.context.gateway.tool(name);
                let (id, _, own) = found.ok_or_else(|| unknown(name))?;
                (id, own.to_string())
            }
            ToolTarget::Of { service, tool } => {
                let id = self.find(service).await?.id;
                if !self.inner.context.gateway.may_know(caller, id) {
                    return Err(service.unknown());
                }
                (id, tool.clone())
            }
        };
        let ToolInput { arguments, timeout } = input;
        let arguments = match arguments {
            None => Bytes::from_static(b"{}"),
            Some(raw) if raw.get().starts_with('{') => {
                Bytes::from(String::from(Box::<str>::from(raw)))
            }
            Some(_) => {
                let issue = Issue::new(
                    "arguments",
                    "must be an object, such as {\"message\": \"hello\"}",
                );
                return Err(Failure::invalid("The call", vec![issue]));
            }
        };
        let principal = caller.clone();
        let call = ToolCall {
            principal,
            service,
            tool,
            arguments,
            timeout,
        };
        self.inner.context.gateway.call(call).await
    }
}

fn unknown(name: &str) -> Failure {
    let name: String = name.chars().take(100).collect();
    Failure::new(
        Kind::UnknownTool,
        format!("There is no tool called `{name}`; `vaxel tools` shows which there are"),
    )
}

/// The parts of a definition that people read.
#[derive(Deserialize, Default)]
struct Shown {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
}

impl Shown {
    fn of(definition: &RawValue) -> Self {
        // A definition that is none is shown without them.
        serde_json::from_str(definition.get()).unwrap_or_default()
    }
}

fn exposed(tool: ExposedTool) -> Offer {
    let ExposedTool {
        name,
        service,
        tool,
        definition,
    } = tool;
    let Shown {
        name: _,
        title,
        description,
    } = Shown::of(&definition);
    Offer {
        name,
        own: tool,
        service,
        title,
        description,
        definition,
    }
}

fn listed(
    resource: &ServiceResource,
    catalog: &Catalog,
    (kind, name_max): (OfferKind, usize),
) -> Vec<Offer> {
    let list = match kind {
        OfferKind::Tools => &catalog.tools,
        OfferKind::Prompts => &catalog.prompts,
        OfferKind::Resources => &catalog.resources,
        OfferKind::Templates => &catalog.templates,
    };
    let offer = |Item { key, definition }: &Item| {
        let Shown {
            name: shown,
            title,
            description,
        } = Shown::of(definition);
        let name: Arc<str> = match kind {
            OfferKind::Tools | OfferKind::Prompts => {
                exposed_name(resource.name.as_str(), key, name_max)
                    .name
                    .into()
            }
            OfferKind::Resources | OfferKind::Templates => Arc::clone(key),
        };
        Offer {
            name,
            own: Arc::clone(key),
            service: resource.name.clone(),
            title: title.or(shown),
            description,
            definition: Arc::clone(definition),
        }
    };
    let shown = |item: &&Item| kind != OfferKind::Tools || resource.spec.tools.admits(&item.key);
    list.iter().filter(shown).map(offer).collect()
}

fn mentions(offer: &Offer, text: &str) -> bool {
    let texts = [
        Some(&*offer.name),
        offer.title.as_deref(),
        offer.description.as_deref(),
    ];
    texts
        .into_iter()
        .flatten()
        .any(|one| one.to_lowercase().contains(text))
}
