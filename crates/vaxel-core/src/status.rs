//! The observed state of a service: written by Vaxel, never accepted from a client.

use serde::{Deserialize, Serialize};

use crate::{failure::Issue, lifecycle::Lifecycle, time::Timestamp};

/// What we see of an instance or, as the best of its instances, of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Health {
    /// Started, has not answered yet.
    Starting,
    /// Answers.
    Healthy,
    /// Answers, but something it needs does not, or only some instances do.
    Degraded,
    /// Does not answer as it should.
    Unhealthy,
    /// Stopped on purpose.
    Stopped,
    /// Cannot be started; see the reason.
    Error,
    /// Not looked at yet.
    Unknown,
}

impl Health {
    /// The name in APIs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Unhealthy => "UNHEALTHY",
            Self::Stopped => "STOPPED",
            Self::Error => "ERROR",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The health of a whole: healthy when all are, degraded when some are, else the most hopeful.
    pub fn of_all(parts: impl IntoIterator<Item = Self>) -> Self {
        let parts: Vec<Self> = parts.into_iter().collect();
        let has = |health| parts.contains(&health);
        let healthy = parts.iter().filter(|part| **part == Self::Healthy).count();
        if parts.is_empty() {
            Self::Unknown
        } else if healthy == parts.len() {
            Self::Healthy
        } else if healthy > 0 || has(Self::Degraded) {
            Self::Degraded
        } else {
            [Self::Starting, Self::Unhealthy, Self::Error, Self::Unknown]
                .into_iter()
                .find(|health| has(*health))
                .unwrap_or(Self::Stopped)
        }
    }
}

/// The observed state of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceStatus {
    /// What we did.
    pub lifecycle: Lifecycle,
    /// What we see.
    pub health: Health,
    /// Why it is not active or healthy, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is wrong with what is wanted, each with its place, as far as a place can be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
    /// Since when `lifecycle` holds.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Number of tools that callers can see.
    pub tools: u32,
    /// Number of prompts.
    pub prompts: u32,
    /// Number of MCP resources (templates not counted).
    pub resources: u32,
    /// `legacy` or `modern`, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub era: Option<String>,
    /// Negotiated MCP revision, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What the server calls itself: name and version (unverified).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When the catalog was read from the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub catalog_at: Option<Timestamp>,
    /// The catalog is the last known one; the server could not be asked since.
    pub stale: bool,
    /// One entry per replica.
    pub instances: Vec<InstanceStatus>,
}

impl ServiceStatus {
    /// The status of a service that nothing was done for yet.
    pub fn new(lifecycle: Lifecycle, now: Timestamp) -> Self {
        Self {
            lifecycle,
            health: Health::Unknown,
            reason: None,
            issues: Vec::new(),
            since: now,
            tools: 0,
            prompts: 0,
            resources: 0,
            era: None,
            revision: None,
            server: None,
            catalog_at: None,
            stale: false,
            instances: Vec::new(),
        }
    }
}

/// The observed state of one replica or remote endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceStatus {
    /// 0-based.
    pub replica: u16,
    /// Where it listens, when it is one of several that are reached over the network: host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What we see.
    pub health: Health,
    /// Process id of the program itself, when it is a process that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Since when this instance runs or is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// How often it was started again after an unwanted end.
    pub restarts: u32,
    /// CPU time of the whole process tree, milliseconds.
    pub cpu_ms: u64,
    /// Resident memory of the whole process tree, bytes.
    pub memory_bytes: u64,
    /// Number of processes in the tree.
    pub processes: u32,
    /// How it last ended or why it could not be reached, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When the next start is due, while backing off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_start_at: Option<Timestamp>,
    /// What the sandbox could and could not do on this kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sandbox: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::Health::{self, Degraded, Healthy, Starting, Stopped, Unhealthy, Unknown};

    #[test]
    fn one_sick_replica_degrades_the_service() {
        assert_eq!(Health::of_all([Healthy, Healthy]), Healthy);
        assert_eq!(Health::of_all([Healthy, Unhealthy]), Degraded);
        assert_eq!(Health::of_all([Starting, Unhealthy]), Starting);
        assert_eq!(Health::of_all([Stopped]), Stopped);
        assert_eq!(Health::of_all([]), Unknown);
    }
}
