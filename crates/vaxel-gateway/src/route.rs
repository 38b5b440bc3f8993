//! What a request means: which service, and what it is called there.

use std::sync::Arc;

use serde::Deserialize;
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{federation, headers::params::ParamHeaders, method::Method, request::Request};

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
    /// Some of the service's resources are known to the client under a prefix.
    pub(crate) shares_addresses: bool,
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
            shares_addresses: false,
            mirrored: None,
            schemas: None,
        }
    }

    /// To a resource that its client knows under another address than its service.
    fn to_prefixed(shard: &Arc<Shard>, own: &str) -> Self {
        Self {
            own_json: Some(json_string(own)),
            ..Self::to_uri(shard, own)
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

    fn federated(snapshot: &Snapshot, shard: &Arc<Shard>, offer: &Offer) -> Self {
        Self {
            shares_addresses: snapshot.has_prefixed(shard.id),
            ..Self::to(shard, offer, true)
        }
    }

    pub(crate) fn to(shard: &Arc<Shard>, offer: &Offer, renamed: bool) -> Self {
        Self {
            shard: Arc::clone(shard),
            own: Arc::clone(&offer.own),
            own_json: renamed.then(|| offer.own_json.clone()),
            instance: None,
            shares_addresses: false,
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
            .map(|(shard, offer)| Route::federated(snapshot, shard, offer)),
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
            .map(|(shard, offer)| Route::federated(snapshot, shard, offer)),
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

/// Resources keep their URIs, but for those that an older service offers, too: they have a prefix that
/// names their service. On a single service every URI goes through: servers serve resources that they
/// do not list.
pub(crate) fn resource(snapshot: &Snapshot, scope: &Scope, uri: &str) -> Result<Route, Failure> {
    if let Scope::Service(shard) = scope {
        return Ok(Route::to_uri(shard, uri));
    }
    if let Some(shard) = snapshot.owner_of(uri) {
        return Ok(Route::to_uri(shard, uri));
    }
    if let Some(route) = prefixed(snapshot, uri) {
        return Ok(route);
    }
    let shard = snapshot.with_template_for(uri).ok_or_else(|| {
        Failure::new(
            Kind::UnknownResource,
            format!("Unknown resource: {}", short(uri)),
        )
    })?;
    Ok(Route::to_uri(shard, uri))
}

fn prefixed(snapshot: &Snapshot, uri: &str) -> Option<Route> {
    let (service, own) = federation::unprefixed_uri(uri)?;
    let shard = snapshot.shards.get(service)?;
    Some(Route::to_prefixed(shard, &own))
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
    if let Scope::All = scope
        && let Some(shard) = snapshot.owner_of_template(uri)
    {
        return Ok(Route::to_uri(shard, uri));
    }
    resource(snapshot, scope, uri)
}

fn short(text: &str) -> String {
    text.chars().take(120).collect()
}
