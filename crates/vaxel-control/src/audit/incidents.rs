//! What was refused, on its way into the audit.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use vaxel_core::audit::AuditLine;
use vaxel_gateway::Incident;

use crate::control::Control;

/// So often it is looked whether incidents of a minute are to be written.
const LOOK: Duration = Duration::from_secs(1);

/// Writes what was refused into the audit, until `stop` and then what is left.
pub(crate) async fn write(control: Control, stop: CancellationToken) {
    let gateway = &control.inner.context.gateway;
    let (mut waits, mut last) = (false, false);
    while !last {
        tokio::select! {
            () = stop.cancelled() => last = true,
            () = gateway.refused() => {}
            () = tokio::time::sleep(LOOK), if waits => {}
        }
        let (taken, more) = gateway.take_incidents(control.now(), last);
        waits = more;
        if taken.is_empty() {
            continue;
        }
        let lines = taken.iter().map(line_of).collect();
        if let Err(error) = control.store().audit_all(lines).await {
            tracing::warn!(%error, "what was refused could not be written into the audit; it is tried again");
            gateway.incidents_not_written(taken);
            waits = true;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

fn line_of(incident: &Incident) -> AuditLine {
    let mut line = incident.line.clone();
    if line.detail.is_null() {
        line.detail = json!({});
    }
    line.detail["count"] = incident.count.into();
    if incident.count > 1 {
        line.detail["until"] = json!(incident.until);
    }
    line
}
