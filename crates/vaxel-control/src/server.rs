//! Queries of the server itself, and its end.

use std::{sync::atomic::Ordering, time::Duration};

use vaxel_core::{
    access::require,
    audit::AuditLine,
    failure::{Failure, Kind},
    principal::{Permission, Principal},
};
use vaxel_supervisor::Logs;

use crate::{
    change::{Outcome, ServiceRef},
    control::Control,
    query::{CallTotals, RecordFacts, ServerStatus, StoreFacts},
};

/// Whoever asks for the status is not kept longer by a store that is gone.
const STORE_ANSWERS: Duration = Duration::from_secs(2);

impl Control {
    /// The running server. `system:read`.
    pub async fn status(&self, caller: &Principal) -> Result<ServerStatus, Failure> {
        require(caller, Permission::SystemRead)?;
        let inner = &self.inner;
        let mut calls = CallTotals::default();
        for id in inner.context.board.ids() {
            let load = inner.context.gateway.load(id);
            calls.calls += load.calls;
            calls.errors += load.errors;
            calls.in_flight += load.in_flight;
        }
        let problem = self.problem_of_the_store().await;
        let store = self.store().stats();
        Ok(ServerStatus {
            server: inner.context.config.server.clone(),
            pid: std::process::id(),
            services: inner.context.board.totals(),
            certificate: inner.context.gateway.certificate(),
            calls,
            store: StoreFacts {
                engine: store.engine.to_owned(),
                version: store.version,
                place: store.place,
                problem,
                schema: store.schema,
                bytes: store.bytes,
            },
            records: RecordFacts {
                queued: inner.records.queued.load(Ordering::Relaxed),
                lost: inner.records.lost.load(Ordering::Relaxed)
                    + inner.context.gateway.records_lost(),
            },
            left_out: self.store().left_out(),
            audit_problem: self.problem_of_the_audit(),
        })
    }

    /// Why the store does not answer, when it does not.
    async fn problem_of_the_store(&self) -> Option<String> {
        match tokio::time::timeout(STORE_ANSWERS, self.store().probe()).await {
            Ok(answer) => answer.err().map(|error| error.to_string()),
            Err(_) => Some(format!(
                "it did not answer within {} s",
                STORE_ANSWERS.as_secs()
            )),
        }
    }

    /// The log of a service. `calls:read`.
    pub async fn logs(&self, caller: &Principal, service: &ServiceRef) -> Result<Logs, Failure> {
        let resource = self
            .find_for(caller, Permission::CallsRead, service)
            .await?;
        Ok(self.inner.context.supervisor.logs(resource.name.as_str()))
    }

    /// Whether the server takes calls: it is not ending. Open to everyone.
    pub fn ready(&self) -> Result<(), Failure> {
        if self.inner.shutdown.is_cancelled() {
            let detail = "The server is ending";
            return Err(Failure::new(Kind::UpstreamUnavailable, detail).retry_after(5));
        }
        Ok(())
    }

    /// Whether the caller may see and change what others own. `mcp:manage`.
    pub fn may_manage(&self, caller: &Principal) -> Result<(), Failure> {
        require(caller, Permission::McpManage)
    }

    /// Whether the caller may read the metrics. `metrics:read`.
    pub fn may_read_metrics(&self, caller: &Principal) -> Result<(), Failure> {
        require(caller, Permission::MetricsRead)
    }

    pub(crate) async fn shut_down(&self, caller: &Principal) -> Result<Outcome, Failure> {
        require(caller, Permission::SystemManage)?;
        let target = ("server", String::new(), String::new());
        let audit = AuditLine::new(self.now(), caller, "server.shutdown", target);
        // A server whose store cannot write must still be stoppable.
        if let Err(error) = self.store().audit(audit).await {
            tracing::error!(%error, "the end of the server could not be audited");
        }
        self.inner.shutdown.cancel();
        Ok(Outcome::Done)
    }
}
