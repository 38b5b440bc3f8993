//! What is started or reached: a stored spec becomes an order for the supervisor or an address for
//! the gateway, with its sealed values opened at the last moment.

use std::sync::Arc;

use vaxel_core::{
    failure::Failure,
    service::{Builtin, EraChoice, ServiceResource, Source},
};
use vaxel_gateway::{ConnectTarget, Transport};
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

/// A server that is not started by Vaxel: remote, or part of the binary.
pub(super) async fn remote(
    context: &Context,
    resource: &ServiceResource,
) -> Result<ConnectTarget, Failure> {
    let transport = match &resource.spec.source {
        Source::Mcp(mcp) => {
            let headers = context.vault.open(resource.id, &resource.spec).await?;
            let url = mcp.url.parse().map_err(Failure::internal)?;
            Transport::Http {
                url,
                headers: headers.into_iter().collect(),
                session: mcp.session,
            }
        }
        Source::Builtin(Builtin::Demo) => Transport::Builtin(Arc::clone(&context.demo) as _),
        Source::Process(_) => return Err(Failure::internal("a process source is not remote")),
    };
    Ok(target(resource, transport))
}

fn target(resource: &ServiceResource, transport: Transport) -> ConnectTarget {
    ConnectTarget {
        service: resource.id,
        name: resource.name.clone(),
        era: resource.spec.era,
        transport,
    }
}
