//! The meta view: four tools that list, find, describe and call all others, so that a model can use many
//! servers without reading all their catalogs. They can be called on every endpoint of many services, and
//! are all that is listed where the address says `?view=meta`, or a set is to be seen so.

use std::{collections::BTreeMap, fmt::Write};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use vaxel_core::{
    failure::{Failure, Kind},
    name::ServiceName,
    toolset::View,
};
use vaxel_mcp::{definition, method::Method, request::Request, revision::Era};

use crate::{
    answer, authorize,
    edge::Exchange,
    lists,
    pipeline::Context,
    respond::{self, Response},
    route::Scope,
    snapshot::Offer,
};

/// Tools of one answer to a search, unless it asks for fewer.
const FOUND_MAX: usize = 50;
/// Longest search that is looked at, in words.
const WORDS_MAX: usize = 32;

/// What an address says that wants it.
pub(crate) const ASKED: &str = "view=meta";

/// One of the four.
#[derive(Clone, Copy)]
pub(crate) enum MetaTool {
    List,
    Search,
    Describe,
    Call,
}

impl MetaTool {
    /// The one that a call is for. Tools of services have two underscores in their names, and these none.
    pub(crate) fn of(context: &Context, request: &Request) -> Option<Self> {
        if request.method() != Method::ToolsCall || !context.scope.is_federated() {
            return None;
        }
        match &*request.key()? {
            "list_available_tools" => Some(Self::List),
            "search_tools" => Some(Self::Search),
            "describe_tool" => Some(Self::Describe),
            "call_tool" => Some(Self::Call),
            _ => None,
        }
    }
}

/// Whether the address asks for this view, or the set is one of those that are seen so.
pub(crate) fn is_asked_for(context: &Context) -> bool {
    match &context.scope {
        Scope::Service(_) => false,
        Scope::Set(set) if set.view == View::Meta => true,
        Scope::All | Scope::Set(_) => is_in(context.head.uri.query()),
    }
}

/// Whether the query of an address asks for it.
pub(crate) fn is_in(query: Option<&str>) -> bool {
    let mut parts = query.unwrap_or_default().split('&');
    parts.any(|part| part == ASKED)
}

/// Definitions of the four, in the order of their lists.
pub(crate) fn definitions() -> [&'static str; 4] {
    [
        r#"{"name":"list_available_tools","title":"List available tools","description":"All tools that can be called, each with its service and what it does. For many tools, search_tools is shorter.","inputSchema":{"type":"object","properties":{"service":{"type":"string","description":"Only the tools of this service"}}},"annotations":{"readOnlyHint":true}}"#,
        r#"{"name":"search_tools","title":"Search tools","description":"The tools that fit some words best, by name and description.","inputSchema":{"type":"object","properties":{"query":{"type":"string","description":"What the tool should do, in a few words"},"limit":{"type":"integer","minimum":1,"maximum":50,"description":"How many at most; 10 when absent"}},"required":["query"]},"annotations":{"readOnlyHint":true}}"#,
        r#"{"name":"describe_tool","title":"Describe a tool","description":"The whole definition of a tool, with the schema of its arguments.","inputSchema":{"type":"object","properties":{"name":{"type":"string","description":"The tool, as list_available_tools names it"}},"required":["name"]},"annotations":{"readOnlyHint":true}}"#,
        r#"{"name":"call_tool","title":"Call a tool","description":"Calls a tool of a service and answers its result. Name it by service and tool, or by its whole name.","inputSchema":{"type":"object","properties":{"name":{"type":"string","description":"The tool, as list_available_tools names it"},"service":{"type":"string","description":"The service, when the tool is not named whole"},"tool":{"type":"string","description":"The service's own name of the tool"},"arguments":{"type":"object","description":"What the tool is called with; without it, all other members are"}},"additionalProperties":true}}"#,
    ]
}

/// Answers a call of one of the tools that only tell.
pub(crate) fn tell(
    context: &Context,
    exchange: &Exchange,
    tool: MetaTool,
) -> Result<Response, Failure> {
    authorize::may_list(&context.principal)?;
    let arguments = exchange.request.arguments();
    let told = match tool {
        MetaTool::List => list(context, &read(arguments)?),
        MetaTool::Search => search(context, &read(arguments)?),
        MetaTool::Describe => describe(context, &read(arguments)?)?,
        MetaTool::Call => return Err(Failure::internal("a call is turned, not answered")),
    };
    let text = told.to_string();
    let result = json!({
        "content": [{ "type": "text", "text": text }], "structuredContent": told, "isError": false,
        "resultType": "complete",
    });
    let result = to_raw_value(&result).map_err(Failure::internal)?;
    let result = match exchange.client.era() {
        Era::Modern => Bytes::from(result.get().to_owned()),
        Era::Legacy => {
            let revision = exchange.client.revision();
            answer::to_revision(Method::ToolsCall, revision, &result)
                .into_owned()
                .into()
        }
    };
    Ok(respond::shared_result(exchange.request.id(), result))
}

/// The call that a call of `call_tool` stands for: it takes the way of every other.
pub(crate) fn turn(context: &Context, request: &Request) -> Result<Request, Failure> {
    let mut members: BTreeMap<&str, &RawValue> = read(request.arguments())?;
    let mut text = |member: &str| -> Option<String> {
        let raw = members.get(member)?;
        let text = serde_json::from_str(raw.get()).ok()?;
        members.remove(member);
        Some(text)
    };
    let name = match (text("service"), text("tool")) {
        // A `name` beside them is an argument of the tool.
        (Some(service), Some(tool)) => exposed(context, &service, &tool)?,
        _ => text("name").ok_or_else(|| {
            let detail = "call_tool needs `service` and `tool`, or `name`";
            Failure::new(Kind::Invalid, detail)
        })?,
    };
    let given = ["arguments", "args"]
        .into_iter()
        .find_map(|member| members.get(member));
    let rest = serde_json::to_string(&members).map_err(Failure::internal)?;
    let arguments = given.map_or(&*rest, |given| given.get());
    request
        .turned_to(&name, arguments)
        .map_err(|error| Failure::new(Kind::Invalid, error.to_string()))
}

/// The name of a service's tool on endpoints of many services; whether it is there is seen when it is called.
fn exposed(context: &Context, service: &str, tool: &str) -> Result<String, Failure> {
    let shard = context.snapshot.shards.get(service);
    let offer = shard.and_then(|shard| shard.offers.tool(tool));
    offer.map(|offer| offer.exposed.to_string()).ok_or_else(|| {
        let detail = format!(
            "There is no tool `{tool}` of `{service}` here; list_available_tools names all"
        );
        Failure::new(Kind::UnknownTool, detail)
    })
}

fn read<'a, T: Deserialize<'a>>(arguments: Option<&'a str>) -> Result<T, Failure> {
    serde_json::from_str(arguments.unwrap_or("{}")).map_err(|error| {
        Failure::new(
            Kind::Invalid,
            format!("The arguments are not what the tool takes: {error}"),
        )
    })
}

#[derive(Deserialize)]
struct ListArguments {
    service: Option<String>,
}

fn list(context: &Context, wanted: &ListArguments) -> serde_json::Value {
    let of = |service: &ServiceName| {
        wanted
            .service
            .as_deref()
            .is_none_or(|only| only == service.as_str())
    };
    let tools = lists::tools(context)
        .into_iter()
        .filter(|(service, _)| of(service));
    json!({ "tools": tools.map(shown).collect::<Vec<_>>() })
}

/// A tool, in the words of the registry that had these tools first.
fn shown((service, offer): (&ServiceName, &Offer)) -> serde_json::Value {
    let summary = definition::summary(&offer.definition);
    json!({
        "name": &*offer.exposed, "service": service, "tool": &*offer.own,
        "title": summary.title, "description": summary.description,
        "input_schema": schema(offer),
    })
}

fn schema(offer: &Offer) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Tool<'a> {
        #[serde(borrow, rename = "inputSchema")]
        schema: &'a RawValue,
    }
    let tool: Option<Tool<'_>> = serde_json::from_str(offer.definition.get()).ok();
    tool.map(|tool| tool.schema)
}

#[derive(Deserialize)]
struct SearchArguments {
    query: String,
    limit: Option<usize>,
}

/// The best of all tools: a word in a name counts more than one in a description.
fn search(context: &Context, wanted: &SearchArguments) -> serde_json::Value {
    let query = wanted.query.to_lowercase();
    let words: Vec<&str> = query.split_whitespace().take(WORDS_MAX).collect();
    let mut found: Vec<(usize, (&ServiceName, &Offer))> = lists::tools(context)
        .into_iter()
        .map(|tool| (score(tool, &words), tool))
        .filter(|(score, _)| *score > 0)
        .collect();
    // Sorting keeps the order of lists among equals.
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let limit = wanted.limit.unwrap_or(10).clamp(1, FOUND_MAX);
    let tools: Vec<_> = found
        .into_iter()
        .take(limit)
        .map(|(_, tool)| shown(tool))
        .collect();
    json!({ "tools": tools })
}

fn score((service, offer): (&ServiceName, &Offer), words: &[&str]) -> usize {
    let summary = definition::summary(&offer.definition);
    let mut name = format!("{service} {}", offer.own);
    // Writing to a string does not fail.
    let _ = write!(name, " {}", summary.title.unwrap_or_default());
    let name = name.to_lowercase();
    let description = summary.description.unwrap_or_default().to_lowercase();
    let of = |word: &&str| {
        3 * usize::from(name.contains(*word)) + usize::from(description.contains(*word))
    };
    words.iter().map(of).sum()
}

#[derive(Deserialize)]
struct DescribeArguments {
    name: String,
}

fn describe(context: &Context, wanted: &DescribeArguments) -> Result<serde_json::Value, Failure> {
    let found = lists::tools(context)
        .into_iter()
        .find(|(_, offer)| *offer.exposed == *wanted.name);
    let (service, offer) = found.ok_or_else(|| {
        let detail = format!(
            "There is no tool `{}` here; list_available_tools names all",
            wanted.name
        );
        Failure::new(Kind::UnknownTool, detail)
    })?;
    let definition = offer.federated(service);
    serde_json::from_slice(&definition).map_err(Failure::internal)
}
