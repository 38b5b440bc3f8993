//! How services are shown.

use serde::Serialize;
use vaxel_control::{List, Observed, Stats};
use vaxel_core::{
    id::{Id, Service},
    service::{ServiceResource, ServiceSpec},
    status::ServiceStatus,
    time::Timestamp,
};

/// A service: desired state, bookkeeping, and what is seen of it.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ServiceView {
    /// Never changes.
    #[schema(value_type = String, format = "uuid")]
    id: Id<Service>,
    /// The same, under another name.
    #[schema(value_type = String, format = "uuid")]
    service_id: Id<Service>,
    /// Unique among services that are not deleted.
    #[schema(example = "files")]
    name: String,
    /// Counts every write; stands in the `ETag`.
    version: u64,
    /// Number of the current spec.
    revision: u64,
    /// Whether it should run.
    enabled: bool,
    /// For people and filters.
    tags: Vec<String>,
    /// `dev`, `staging`, `prod` or own.
    #[schema(example = "default")]
    environment: String,
    /// Name of the key that created it.
    owner: String,
    /// Desired state; sealed values stand as `secret:` references.
    spec: ServiceSpec,
    /// Observed state.
    status: ServiceStatus,
    /// Its calls.
    stats: StatsView,
    /// First accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Last written.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// First switched on; absent while it is a draft.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    activated_at: Option<Timestamp>,
    /// Set while it is in the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    deleted_at: Option<Timestamp>,
}

impl From<Observed> for ServiceView {
    fn from(
        Observed {
            resource,
            status,
            stats,
        }: Observed,
    ) -> Self {
        let ServiceResource {
            id,
            name,
            version,
            revision,
            enabled,
            tags,
            environment,
            owner,
            spec,
            created_at,
            updated_at,
            activated_at,
            deleted_at,
        } = resource;
        Self {
            id,
            service_id: id,
            name: name.to_string(),
            version,
            revision,
            enabled,
            tags,
            environment,
            owner,
            spec,
            status,
            stats: stats.into(),
            created_at,
            updated_at,
            activated_at,
            deleted_at,
        }
    }
}

/// Figures of a service's calls.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct StatsView {
    /// Calls so far.
    calls: u64,
    /// Those that did not end well.
    errors: u64,
    /// Mean duration in milliseconds.
    average_ms: f64,
    /// Arrival of the last call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// Calls that are being answered now.
    in_flight: u32,
}

impl From<Stats> for StatsView {
    fn from(
        Stats {
            calls,
            errors,
            average_ms,
            last_used_at,
            in_flight,
        }: Stats,
    ) -> Self {
        Self {
            calls,
            errors,
            average_ms,
            last_used_at,
            in_flight,
        }
    }
}

/// One page of services.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ServiceListView {
    /// In the order that was asked for.
    items: Vec<ServiceView>,
    /// Send it as `cursor` to read on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl From<List<Observed>> for ServiceListView {
    fn from(List { items, next_cursor }: List<Observed>) -> Self {
        Self {
            items: items.into_iter().map(Into::into).collect(),
            next_cursor,
        }
    }
}
