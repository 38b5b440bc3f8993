//! The lifecycle of a service: what we want and did. Health, what we see, is another thing: see
//! [`crate::status::Health`].

use serde::{Deserialize, Serialize};

/// A state of the closed machine; [`Lifecycle::can_become`] is the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Written down, not checked.
    Draft,
    /// Being checked.
    Validating,
    /// Being started or connected for the first time.
    Deploying,
    /// In service.
    Active,
    /// A new revision is taking over.
    Updating,
    /// Being drained and stopped.
    Deactivating,
    /// Stopped on purpose.
    Inactive,
    /// Wanted, but not working; the status has the reason.
    Error,
}

impl Lifecycle {
    /// Whether the diagram has an arrow from this state to `next`.
    pub const fn can_become(self, next: Self) -> bool {
        use Lifecycle::{
            Active, Deactivating, Deploying, Draft, Error, Inactive, Updating, Validating,
        };
        matches!(
            (self, next),
            (Draft | Inactive | Error, Validating)
                | (Validating, Deploying | Error)
                | (Deploying | Updating, Active | Error | Deactivating)
                | (Active, Updating | Deactivating | Error)
                | (Deactivating, Inactive)
                | (Error, Deactivating)
        )
    }

    /// The name in APIs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Validating => "validating",
            Self::Deploying => "deploying",
            Self::Active => "active",
            Self::Updating => "updating",
            Self::Deactivating => "deactivating",
            Self::Inactive => "inactive",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lifecycle::{Active, Deactivating, Draft, Error, Inactive, Updating, Validating};

    #[test]
    fn a_service_is_checked_before_it_runs_and_drained_before_it_stops() {
        assert!(Draft.can_become(Validating));
        assert!(!Draft.can_become(Active));
        assert!(Active.can_become(Updating) && Updating.can_become(Active));
        assert!(!Active.can_become(Inactive));
        assert!(Error.can_become(Deactivating) && !Error.can_become(Inactive));
    }
}
