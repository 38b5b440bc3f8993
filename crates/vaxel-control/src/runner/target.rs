//! What is started or reached: a stored spec becomes an order for the supervisor or an address for
//! the gateway, with its sealed values opened at the last moment.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use serde_json::value::to_raw_value;
use vaxel_core::{
    failure::Failure,
    secret::Secret,
    service::{
        Builtin, CLIENT_SECRET, EraChoice, Grant, HttpSource, HttpTool, ServiceResource, Source,
    },
};
use vaxel_gateway::{ConnectTarget, Introduced, TokenSource, Transport};
use vaxel_supervisor::{Limits, Order, Process, Stream};

use super::Context;

/// The order for one replica of a `process` source.
pub(super) async fn order(
    context: &Context,
    resource: &ServiceResource,
    replica: u16,
) -> Result<Order, Failure> {
    let opened = context.vault.open(resource.id, &resource.spec).await?;
    let Source::Process(process) = &resource.spec.source else {
        return Err(Failure::internal("only a process source can be ordered"));
    };
    let limits = &resource.spec.limits;
    Ok(Order {
        name: resource.name.to_string(),
        replica,
        program: process.command.clone(),
        args: process.args.clone(),
        env: opened,
        cwd: process.cwd.as_ref().map(Into::into),
        limits: Limits {
            memory_bytes: limits.memory.map(|size| size.0),
            processes: limits.processes,
            open_files: limits.open_files,
        },
        hidden: vec![context.config.server.data_dir.clone()],
    })
}

/// The pipes of a process that was started.
pub(super) fn pipes(
    context: &Context,
    (resource, era): (&ServiceResource, EraChoice),
    replica: u16,
    process: Process,
) -> ConnectTarget {
    let logs = context.supervisor.logs(resource.name.as_str());
    let Process {
        stdin,
        stdout,
        handle: _,
    } = process;
    let garbage = Arc::new(move |text: &str| logs.append(Stream::Garbage, replica, text));
    let transport = Transport::Stdio {
        stdin,
        stdout,
        garbage,
    };
    ConnectTarget {
        era,
        ..target(resource, transport)
    }
}

/// Where an instance is reached, when it is one of several that are: host and port.
pub(super) fn address(resource: &ServiceResource, instance: u16) -> Option<String> {
    match &resource.spec.source {
        Source::Http(http) => http
            .instances
            .get(usize::from(instance))
            .map(ToString::to_string),
        Source::Process(_) | Source::Mcp(_) | Source::Builtin(_) => None,
    }
}

/// The weight of an instance among those of its service, and what tells it from them.
pub(super) fn place(resource: &ServiceResource, instance: u16) -> (u16, u64) {
    match &resource.spec.source {
        Source::Http(http) => {
            let mut hasher = DefaultHasher::new();
            let at = http.instances.get(usize::from(instance));
            at.map(ToString::to_string).hash(&mut hasher);
            (at.map_or(1, |at| at.weight), hasher.finish())
        }
        Source::Process(_) | Source::Mcp(_) | Source::Builtin(_) => (1, instance.into()),
    }
}

/// An instance that is not started by Vaxel: remote, or part of the binary.
pub(super) async fn remote(
    context: &Context,
    resource: &ServiceResource,
    instance: u16,
) -> Result<ConnectTarget, Failure> {
    let transport = match &resource.spec.source {
        Source::Mcp(mcp) => {
            let mut headers = context.vault.open(resource.id, &resource.spec).await?;
            headers.remove(CLIENT_SECRET);
            let url = mcp.url.parse().map_err(Failure::internal)?;
            let tokens = mcp.auth.oauth().map(|oauth| TokenSource {
                service: resource.id,
                per_user: oauth.grant == Grant::AuthorizationCode,
                queue: context.upstream_tokens.clone(),
            });
            Transport::Http {
                url,
                headers: headers.into_iter().collect(),
                session: mcp.session,
                tokens,
            }
        }
        Source::Http(http) => {
            let headers = context.vault.open(resource.id, &resource.spec).await?;
            tools(http, instance, headers.into_iter().collect())?
        }
        Source::Builtin(Builtin::Demo) => Transport::Builtin(Arc::clone(&context.demo) as _),
        Source::Process(_) => return Err(Failure::internal("a process source is not remote")),
    };
    Ok(target(resource, transport))
}

fn tools(
    http: &HttpSource,
    instance: u16,
    headers: Vec<(String, Secret<String>)>,
) -> Result<Transport, Failure> {
    let gone = || Failure::internal("the service has no such instance");
    let base = http.base_url(instance).ok_or_else(gone)?;
    let health = http.health_path.as_ref().and(http.health_url(instance));
    let health = health.map(|url| url.parse().map_err(Failure::internal));
    let definition = |tool: &HttpTool| to_raw_value(&tool.definition()).map_err(Failure::internal);
    let tools: Result<Vec<_>, Failure> = http.tools.iter().map(definition).collect();
    Ok(Transport::Tools {
        base: base.parse().map_err(Failure::internal)?,
        health: health.transpose()?,
        headers,
        tools: tools?,
    })
}

fn target(resource: &ServiceResource, transport: Transport) -> ConnectTarget {
    ConnectTarget {
        service: resource.id,
        name: resource.name.clone(),
        era: resource.spec.era,
        transport,
        introduced: resource.spec.identity.token().map(|token| Introduced {
            audience: resource.spec.audience(&resource.name).to_owned(),
            header: token.header().to_owned(),
        }),
    }
}
