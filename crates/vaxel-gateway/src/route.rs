//! What a request means: which service, and what it is called there.

use std::sync::Arc;

use serde::Deserialize;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    name::ToolsetName,
    principal::{Principal, Proof},
};
use vaxel_mcp::{federation, headers::params::ParamHeaders, method::Method, request::Request};

use crate::{
    authorize,
    snapshot::{Offer, Shard, Snapshot, json_string, sets::Set},
    validate::Schemas,
};

/// What a client looks at: everything, one service under its own names, or what a set shows.
#[derive(Clone)]
pub(crate) enum Scope {
    /// `/mcp`
    All,
    /// `/mcp/{service}`
    Service(Arc<Shard>),
    /// `/mcp/sets/{toolset}`
    Set(Arc<Set>),
}

/// Identifies a [`Scope`] from one snapshot to the next. A set is its name: what comes back under it
/// is the same endpoint.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum ScopeId {
    All,
    Service(Id<Service>),
    Set(ToolsetName),
}

impl Scope {
    /// What a path after `/mcp/` or `/sse/` lets its clients see; without one, everything.
    pub(crate) fn find(
        snapshot: &Snapshot,
        path: Option<&str>,
        principal: &Principal,
    ) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::All);
        };
        // Whatever is asked here is refused then, and in the same way whether there is such an endpoint or not.
        if authorize::can_nothing(principal) {
            return Ok(Self::All);
        }
        if let Some(name) = path.strip_prefix("sets/") {
            let found = snapshot.set(name);
            let set = found.filter(|set| authorize::may_know_set(principal, set, snapshot));
            let set = set.ok_or_else(|| match found {
                None => unknown_set(name),
                Some(_) => unknown_set(name).hiding(),
            })?;
            return Ok(Self::Set(Arc::clone(set)));
        }
        if path == "sets" {
            let detail = "The address of a set is `/mcp/sets/` and its name; `vaxel set ls` shows \
                          which there are";
            return Err(Failure::new(Kind::UnknownToolset, detail));
        }
        let found = snapshot.shards.get(path);
        let shard = found.filter(|shard| authorize::may_know(principal, shard));
        let shard = shard.ok_or_else(|| match found {
            None => authorize::no_service(path),
            Some(_) => authorize::no_service(path).hiding(),
        })?;
        Ok(Self::Service(Arc::clone(shard)))
    }

    /// Whether names carry their service.
    pub(crate) const fn is_federated(&self) -> bool {
        !matches!(self, Self::Service(_))
    }

    pub(crate) fn id(&self) -> ScopeId {
        match self {
            Self::All => ScopeId::All,
            Self::Service(shard) => ScopeId::Service(shard.id),
            Self::Set(set) => ScopeId::Set(set.name.clone()),
        }
    }
}

fn unknown_set(name: &str) -> Failure {
    let name: String = name.chars().take(64).collect();
    Failure::new(
        Kind::UnknownToolset,
        format!("There is no set `{name}`; `vaxel set ls` shows which there are"),
    )
}

/// Where a call goes.
pub(crate) struct Route {
    pub(crate) shard: Arc<Shard>,
    /// What the service calls the tool, prompt or resource.
    pub(crate) own: Arc<str>,
    /// The same as JSON string, when the client calls it otherwise.
    pub(crate) own_json: Option<Box<str>>,
    /// The service's own name of the tool that is called, when it is one.
    pub(crate) tool: Option<Arc<str>>,
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
            tool: None,
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

    /// To a task of one instance, under the id that it has there; `tool` began it.
    pub(crate) fn to_task(shard: &Arc<Shard>, (own, tool): (&str, &str), instance: u64) -> Self {
        Self {
            own_json: Some(json_string(own)),
            tool: Some(tool.into()),
            instance: Some(instance),
            ..Self::to_uri(shard, own)
        }
    }

    /// To a tool or prompt that its client knows under a name with its service.
    fn federated(self, snapshot: &Snapshot) -> Self {
        Self {
            shares_addresses: snapshot.has_prefixed(self.shard.id),
            ..self
        }
    }

    /// To a tool.
    pub(crate) fn to_tool(shard: &Arc<Shard>, offer: &Offer, renamed: bool) -> Self {
        Self {
            tool: Some(Arc::clone(&offer.own)),
            ..Self::to(shard, offer, renamed)
        }
    }

    fn to(shard: &Arc<Shard>, offer: &Offer, renamed: bool) -> Self {
        Self {
            shard: Arc::clone(shard),
            own: Arc::clone(&offer.own),
            own_json: renamed.then(|| offer.own_json.clone()),
            tool: None,
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
            .map(|(shard, offer)| Route::to_tool(shard, offer, true).federated(snapshot)),
        Scope::Service(shard) => shard
            .offers
            .tool(name)
            .map(|offer| Route::to_tool(shard, offer, false)),
        Scope::Set(set) => set
            .tool(snapshot, name)
            .map(|(shard, offer)| Route::to_tool(shard, offer, true).federated(snapshot)),
    };
    found.ok_or_else(|| {
        // A service without a catalog was never reached: that is what its caller has to hear.
        if let Scope::Service(shard) = scope
            && shard.catalog.is_none()
            && let Err(failure) = shard.choose(Proof::System)
        {
            return failure;
        }
        unknown(Method::ToolsCall, scope, name)
    })
}

fn prompt(snapshot: &Snapshot, scope: &Scope, name: &str) -> Result<Route, Failure> {
    let found = match scope {
        Scope::All => snapshot
            .prompt(name)
            .map(|(shard, offer)| Route::to(shard, offer, true).federated(snapshot)),
        Scope::Service(shard) => shard
            .offers
            .prompt(name)
            .map(|offer| Route::to(shard, offer, false)),
        Scope::Set(set) => set
            .prompt(snapshot, name)
            .map(|(shard, offer)| Route::to(shard, offer, true).federated(snapshot)),
    };
    found.ok_or_else(|| unknown(Method::PromptsGet, scope, name))
}

/// Resources keep their URIs, but for those that an older service offers, too: they have a prefix that
/// names their service. On a single service every URI goes through: servers serve resources that they
/// do not list.
pub(crate) fn resource(snapshot: &Snapshot, scope: &Scope, uri: &str) -> Result<Route, Failure> {
    let plain = |shard: &Arc<Shard>| Route::to_uri(shard, uri);
    let found = match scope {
        Scope::Service(shard) => Some(plain(shard)),
        Scope::All => (snapshot.owner_of(uri).map(plain))
            .or_else(|| prefixed(snapshot, uri))
            .or_else(|| snapshot.with_template_for(uri).map(plain)),
        Scope::Set(set) => (set.owner_of(snapshot, uri).map(plain))
            .or_else(|| prefixed(snapshot, uri).filter(|route| set.reads(&route.shard, &route.own)))
            .or_else(|| set.with_template_for(snapshot, uri).map(plain)),
    };
    found.ok_or_else(|| unknown(Method::ResourcesRead, scope, uri))
}

/// What is asked for is not there; or not for its caller, who is told the same.
pub(crate) fn unknown(method: Method, scope: &Scope, key: &str) -> Failure {
    let (kind, what) = match method {
        Method::PromptsGet => (Kind::UnknownPrompt, "prompt"),
        Method::ToolsCall => (Kind::UnknownTool, "tool"),
        _ => (Kind::UnknownResource, "resource"),
    };
    let here = here(scope);
    Failure::new(kind, format!("Unknown {what}: {}{here}", short(key)))
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
    let owner = match scope {
        Scope::All => snapshot.owner_of_template(uri),
        Scope::Service(_) => None,
        Scope::Set(set) => set.owner_of_template(snapshot, uri),
    };
    match owner {
        Some(shard) => Ok(Route::to_uri(shard, uri)),
        None => resource(snapshot, scope, uri),
    }
}

/// Where something was looked for, when that is less than everything there is.
fn here(scope: &Scope) -> String {
    match scope {
        Scope::All | Scope::Service(_) => String::new(),
        Scope::Set(set) => format!(" (not in the set `{}`)", set.name),
    }
}

fn short(text: &str) -> String {
    text.chars().take(120).collect()
}
