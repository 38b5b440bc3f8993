//! What can be known to be wrong with a service before anything of it is started: every problem at
//! once, so that a person mends them in one go.

use std::sync::Arc;

use vaxel_core::{
    failure::{Failure, Issue},
    service::{ServiceResource, Source},
};
use vaxel_supervisor::Error as Refusal;

use super::{Context, target};

/// Everything that would keep `resource` from starting; nothing is started to find out.
pub(crate) async fn problems(context: &Arc<Context>, resource: &ServiceResource) -> Vec<Issue> {
    match &resource.spec.source {
        Source::Process(_) => of_process(context, resource).await,
        Source::Mcp(_) | Source::Http(_) | Source::Builtin(_) => {
            let target = target::remote(context, resource, 0).await;
            target
                .err()
                .map(|failure| about("spec.source", &failure))
                .into_iter()
                .collect()
        }
    }
}

async fn of_process(context: &Arc<Context>, resource: &ServiceResource) -> Vec<Issue> {
    let order = match target::order(context, resource, 0).await {
        Ok(order) => order,
        Err(failure) => return vec![about("spec.source.process.env", &failure)],
    };
    let supervisor = context.supervisor.clone();
    let looked = tokio::task::spawn_blocking(move || supervisor.check(&order)).await;
    // A runtime that ends asks for nothing more.
    let refusals = looked.unwrap_or_default();
    refusals.iter().map(issue).collect()
}

fn about(path: &str, failure: &Failure) -> Issue {
    Issue::new(path, failure.detail.clone())
}

fn issue(refusal: &Refusal) -> Issue {
    let field = match refusal {
        Refusal::NotFound { .. } | Refusal::Denied { .. } => "spec.source.process.command",
        Refusal::BadCwd { .. } => "spec.source.process.cwd",
        Refusal::BadOrder { .. }
        | Refusal::Io { .. }
        | Refusal::Timeout { .. }
        | Refusal::ShuttingDown => "spec.source.process",
    };
    Issue::new(field, refusal.to_string())
}
