//! What a request means: which service, and what it is called there.

use std::sync::Arc;

use serde::Deserialize;
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{headers::params::ParamHeaders, method::Method, request::Request};

use crate::{
    snapshot::{Offer, Shard, Snapshot, json_string},
    validate::Schemas,
};

/// What a client looks at: everything, or one service under its own names.
#[derive(Clone)]
pub(crate) enum Scope {
    /// `/mcp`
    All,
    /// `/mcp/{service}`
    Service(Arc<Shard>),
}

impl Scope {
    /// Whether names carry their service.
    pub(crate) const fn is_federated(&self) -> bool {
        matches!(self, Self::All)
    }
}

/// Where a call goes.
pub(crate) struct Route {
    pub(crate) shard: Arc<Shard>,
    /// What the service calls the tool, prompt or resource.
    pub(crate) own: Arc<str>,
    /// The same as JSON string, when the client calls it otherwise.
    pub(crate) own_json: Option<Box<str>>,
    /// The instance that is meant, where not any can answer.
    pub(crate) instance: Option<u64>,
    /// Arguments that headers mirror.
    pub(crate) mirrored: Option<Arc<ParamHeaders>>,
    /// What calls are checked against, where the service asks for it.
    pub(crate) schemas: Option<Arc<Schemas>>,
}

impl Route {
    /// To a resource, under its URI; to a service itself, without one.
    fn to_uri(shard: &Arc<Shard>, uri: &str) -> Self {
        Self {
            shard: Arc::clone(shard),
            own: uri.into(),
            own_json: None,
            instance: None,
            mirrored: None,
            schemas: None,
        }
    }

    /// To a task of one instance, under the id that it has there.
    pub(crate) fn to_task(shard: &Arc<Shard>, own: &str, instance: u64) -> Self {
        Self {
            own_json: Some(json_string(own)),
            instance: Some(instance),
            ..Self::to_uri(shard, own)
        }
    }

    pub(crate) fn to(shard: &Arc<Shard>, offer: &Offer, renamed: bool) -> Self {
        Self {
            shard: Arc::clone(shard),
            own: Arc::clone(&offer.own),
            own_json: renamed.then(|| offer.own_json.clone()),
            instance: None,
            mirrored: offer.mirrored.clone(),
            schemas: offer.schemas.clone(),
        }
    }
}

/// Finds the service that a call is for.
pub(crate) fn route(
    snapshot: &Snapshot,
    scope: &Scope,
    request: &Request,
) -> Result<Route, Failure> {
    match (request.method(), scope) {
        (Method::Complete, _) => return completion(snapshot, scope, request),
        (Method::Other, Scope::Service(shard)) => return Ok(Route::to_uri(shard, "")),
        _ => {}
    }
    let key = request.key().ok_or_else(|| {
        let member = request.method().addressed_by().unwrap_or("name");
        Failure::new(
            Kind::Malformed,
            format!("`params.{member}` is missing or not a string"),
        )
    });
    let key = key.map_err(|mut failure| {
        failure.kind = Kind::Invalid;
        failure
    })?;
    match request.method() {
        Method::ToolsCall => tool(snapshot, scope, &key),
        Method::PromptsGet => prompt(snapshot, scope, &key),
        _ => resource(snapshot, scope, &key),
    }
}

fn tool(snapshot: &Snapshot, scope: &Scope, name: &str) -> Result<Route, Failure> {
    let found = match scope {
        Scope::All => snapshot
            .tool(name)
            .map(|(shard, offer)| Route::to(shard, offer, true)),
        Scope::Service(shard) => shard
            .offers
            .tool(name)
            .map(|offer| Route::to(shard, offer, false)),
    };
    found.ok_or_else(|| {
        // A service without a catalog was never reached: that is what its caller has to hear.
        if let Scope::Service(shard) = scope
            && shard.catalog.is_none()
            && let Err(failure) = shard.choose()
        {
            return failure;
        }
        Failure::new(Kind::UnknownTool, format!("Unknown tool: {}", short(name)))
    })
}

fn prompt(snapshot: &Snapshot, scope: &Scope, name: &str) -> Result<Route, Failure> {
    let found = match scope {
        Scope::All => snapshot
            .prompt(name)
            .map(|(shard, offer)| Route::to(shard, offer, true)),
        Scope::Service(shard) => shard
            .offers
            .prompt(name)
            .map(|offer| Route::to(shard, offer, false)),
    };
    found.ok_or_else(|| {
        Failure::new(
            Kind::UnknownPrompt,
            format!("Unknown prompt: {}", short(name)),
        )
    })
}

/// Resources keep their URIs. On a single service every URI goes through: servers serve resources
/// that they do not list.
pub(crate) fn resource(snapshot: &Snapshot, scope: &Scope, uri: &str) -> Result<Route, Failure> {
    let shard = match scope {
        Scope::All => snapshot.resource(uri),
        Scope::Service(shard) => Some(shard),
    };
    let shard = shard.ok_or_else(|| {
        Failure::new(
            Kind::UnknownResource,
            format!("Unknown resource: {}", short(uri)),
        )
    })?;
    Ok(Route::to_uri(shard, uri))
}

/// `completion/complete` names what it completes in `params.ref`; only prompts are renamed.
fn completion(snapshot: &Snapshot, scope: &Scope, request: &Request) -> Result<Route, Failure> {
    #[derive(Deserialize)]
    struct Params {
        #[serde(rename = "ref")]
        reference: Reference,
    }
    #[derive(Deserialize)]
    #[serde(tag = "type")]
    enum Reference {
        #[serde(rename = "ref/prompt")]
        Prompt { name: String },
        #[serde(rename = "ref/resource")]
        Resource { uri: String },
    }
    match request.read_params().map(|params: Params| params.reference) {
        Some(Reference::Prompt { name }) => prompt(snapshot, scope, &name),
        Some(Reference::Resource { uri }) => template(snapshot, scope, &uri),
        None => Err(Failure::new(
            Kind::Invalid,
            "`params.ref` must be a ref/prompt with a name or a ref/resource with a uri",
        )),
    }
}

/// A completion may name a resource or the template itself.
fn template(snapshot: &Snapshot, scope: &Scope, uri: &str) -> Result<Route, Failure> {
    let listed = |shard: &&Arc<Shard>| shard.offers.templates.iter().any(|one| &*one.own == uri);
    if let Scope::All = scope
        && let Some(shard) = snapshot.shards.values().find(listed)
    {
        return Ok(Route::to_uri(shard, uri));
    }
    resource(snapshot, scope, uri)
}

fn short(text: &str) -> String {
    text.chars().take(120).collect()
}
