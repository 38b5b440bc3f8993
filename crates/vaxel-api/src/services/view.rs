//! How services are shown.

use serde::Serialize;
use serde_json::Value;
use vaxel_control::{List, Observed, Stats};
use vaxel_core::{
    id::{Id, Service},
    service::{Derivation, ServiceDraft, ServiceResource, ServiceSpec},
    status::ServiceStatus,
    template::Extends,
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
    /// Name of the user whose it is.
    owner: String,
    /// Desired state; sealed values stand as `secret:` references.
    spec: ServiceSpec,
    /// The template that it was made from, and the values of its parameters; secret ones stand as
    /// `secret:` references. Can be sent as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    extends: Option<Extends>,
    /// What it overrides of its template: can be sent as `spec` beside `extends`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    own: Option<Value>,
    /// Whether a template that it was made from is another one now; a refresh takes that over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    behind: bool,
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
            behind,
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
            defect: _, // its issues stand in the status
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
            extends: spec.extends.as_deref().and_then(extends),
            own: spec.extends.is_some().then(|| spec.own()),
            behind,
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

/// What was said when a service was made from a template.
fn extends(derivation: &Derivation) -> Option<Extends> {
    let sealed = derivation.sealed.iter();
    let sealed = sealed.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    Some(Extends {
        template: derivation.template()?.clone(),
        with: derivation.with.clone().into_iter().chain(sealed).collect(),
    })
}

/// A service as it is sent.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the body, which `Change::create` reads")]
pub(crate) enum ServiceBody {
    /// With a whole spec.
    Whole(Box<ServiceDraft>),
    /// Made from a template.
    Derived(DerivedBody),
}

/// A service that is made from a template.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DerivedBody {
    /// As without a template.
    #[schema(example = "files", max_length = 32)]
    name: String,
    /// Whether it should run; default true.
    enabled: Option<bool>,
    /// For people and filters.
    tags: Option<Vec<String>>,
    /// `dev`, `staging`, `prod` or own.
    environment: Option<String>,
    /// The template; its name alone will do.
    extends: Extends,
    /// What is to be different from the template: objects key by key, everything else as a whole;
    /// `null` takes away.
    #[schema(value_type = Option<Object>)]
    spec: Option<Value>,
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
