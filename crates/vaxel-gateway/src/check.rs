//! Calls of Vaxel's own that find out how an instance is: the way of every other call to its server,
//! authorized and recorded, but to one instance that is meant, and in no figure of usage.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;
use vaxel_core::{
    call::Door,
    catalog::Catalog,
    failure::{Failure, Kind},
    id::{Id, Service},
    principal::Principal,
};
use vaxel_mcp::{
    handshake::capabilities::Answers,
    response::{Response as Answered, Verdict},
    revision::Era,
};

use crate::{
    admit, authorize,
    gateway::Shared,
    record::{Arrival, Recording},
    relay,
    route::Route,
    tool_call::{tool_request, upstream_error},
    upstream::{Answer, Link, NowPlus, Outbound},
};

/// A tool call that finds out how an instance is.
pub struct ToolCheck {
    /// The service.
    pub service: Id<Service>,
    /// Its own name of the tool.
    pub tool: String,
    /// A JSON object.
    pub arguments: Bytes,
    /// Longest wait for the answer.
    pub timeout: Duration,
    /// What an instance offers that is in no snapshot yet; `None` when it is as its service shows. Nobody
    /// else calls such an instance, so that the check takes no place among the calls of its service.
    pub catalog: Option<Arc<Catalog>>,
}

/// What a [`ToolCheck`] came to.
#[derive(Debug, Clone)]
pub struct CheckReply {
    /// `CallToolResult`, raw, as the server sent it.
    pub result: Bytes,
    /// The tool as the server defines it.
    pub definition: Arc<RawValue>,
}

/// Calls the tool on `link`.
pub(crate) async fn call(
    shared: Arc<Shared>,
    link: Link,
    check: ToolCheck,
) -> Result<CheckReply, Failure> {
    let snapshot = shared.snapshot.load_full();
    let gone = || Failure::new(Kind::UnknownService, "The service is not here any more");
    let shard = snapshot.shard(check.service).ok_or_else(gone)?;
    let own = check.catalog.as_deref();
    let own = own.map(|catalog| shard.offers.tool_in(catalog, &check.tool, &shard.name));
    let offer = match &own {
        Some(own) => own.as_ref(),
        None => shard.offers.tool(&check.tool),
    };
    let offer = offer.ok_or_else(|| {
        let detail = format!("`{}` offers no tool `{}`", shard.name, check.tool);
        Failure::new(Kind::UnknownTool, detail)
    })?;
    let principal = Principal::system();
    let route = Route::to_tool(shard, offer, false);
    let authorized = authorize::check(&principal, route, (None, shared.clock.now()));
    let authorized = authorized.map_err(|denied| authorize::unknown(denied, gone))?;
    let _place = match own {
        Some(_) => None,
        None => Some(admit::beside(shard, &shared.tunables.load())?),
    };
    let request = tool_request(&offer.own_json, &check.arguments)?;
    let route = authorized.get();
    let arrival = Arrival {
        method: request.method(),
        target: &route.own,
        principal: &principal,
        door: Door::Health,
        client_revision: "",
        trace_id: None,
        request_bytes: request.body().len(),
        parameters: request.arguments(),
    };
    let mut recording = Recording::start(&shared, shard, arrival);
    recording.reached(link.revision().as_str());
    let mirrored = route.mirrored.as_ref();
    let param_headers = mirrored.map_or_else(Vec::new, |one| one.mirror(request.arguments()));
    let nobody = shared.nobody.load();
    let deadline = Instant::now_plus(check.timeout);
    let told = link.told(&principal)?;
    let out = Outbound {
        request: &request,
        key_json: None,
        key: &route.own,
        client_era: Era::Legacy,
        meta: &nobody,
        on_behalf: link.on_behalf(principal.proof, Answers::default(), None),
        user: Some(&shard.about.owner),
        told: told.as_ref(),
        client: None,
        wants_logs: false,
        param_headers: &param_headers,
        call: recording.id(),
        deadline,
    };
    let answer = match link.exchange_hurriedly(&out).await {
        Ok(Answer::Done(answered)) => Ok(answered),
        Ok(Answer::Stream(events)) => relay::last(events, deadline).await,
        Err(failure) => Err(failure),
    };
    let result = match &answer {
        Ok(answered) => result_of(shard, answered),
        Err(_) => Ok(Bytes::new()),
    };
    match answer {
        Ok(answered) => recording.answered(&answered),
        Err(failure) => {
            recording.failed(&failure);
            return Err(failure);
        }
    }
    Ok(CheckReply {
        result: result?,
        definition: Arc::clone(&offer.definition),
    })
}

fn result_of(shard: &crate::snapshot::Shard, answered: &Answered) -> Result<Bytes, Failure> {
    if answered.verdict == Verdict::InputRequired {
        let detail = "It asks its caller for input, which a health check cannot give";
        return Err(Failure::new(Kind::InteractionUnsupported, detail));
    }
    match answered.payload() {
        Ok(result) => Ok(Bytes::copy_from_slice(result.get().as_bytes())),
        Err(error) => Err(upstream_error(&shard.name, error)),
    }
}
