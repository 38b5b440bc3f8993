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
    /// Every state, in the order of the diagram.
    pub const ALL: [Self; 8] = [
        Self::Draft,
        Self::Validating,
        Self::Deploying,
        Self::Active,
        Self::Updating,
        Self::Deactivating,
        Self::Inactive,
        Self::Error,
    ];

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

    /// The states between this one (left out) and `to` (included), along the arrows, as few as possible;
    /// `None` when no way leads there.
    pub fn path(self, to: Self) -> Option<Vec<Self>> {
        let mut paths = vec![vec![self]];
        for _ in Self::ALL {
            if let Some(found) = paths.iter().find(|path| path.last() == Some(&to)) {
                return Some(found[1..].to_vec());
            }
            let longer = |path: &Vec<Self>| {
                let last = path[path.len() - 1];
                let next = Self::ALL.into_iter().filter(|next| last.can_become(*next));
                let new: Vec<Self> = next.filter(|next| !path.contains(next)).collect();
                let path = path.clone();
                new.into_iter()
                    .map(move |next| [&path[..], &[next]].concat())
            };
            paths = paths.iter().flat_map(longer).collect();
        }
        None
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
    use proptest::prelude::*;

    use super::Lifecycle::{
        self, Active, Deactivating, Deploying, Draft, Error, Inactive, Updating, Validating,
    };

    /// The diagram, arrow by arrow; what is not here must not happen.
    const ARROWS: &[(Lifecycle, &[Lifecycle])] = &[
        (Draft, &[Validating]),
        (Validating, &[Deploying, Error]),
        (Deploying, &[Active, Error, Deactivating]),
        (Active, &[Updating, Deactivating, Error]),
        (Updating, &[Active, Error, Deactivating]),
        (Deactivating, &[Inactive]),
        (Inactive, &[Validating]),
        (Error, &[Validating, Deactivating]),
    ];

    #[test]
    fn the_machine_has_the_arrows_of_the_diagram_and_no_others() {
        for (from, arrows) in ARROWS {
            for to in Lifecycle::ALL {
                assert_eq!(
                    from.can_become(to),
                    arrows.contains(&to),
                    "{from:?} → {to:?}"
                );
            }
        }
    }

    #[test]
    fn the_shortest_way_is_taken() {
        let path = |from: Lifecycle, to| from.path(to);
        assert_eq!(path(Draft, Deploying).unwrap(), [Validating, Deploying]);
        assert_eq!(
            path(Error, Active).unwrap(),
            [Validating, Deploying, Active]
        );
        assert_eq!(path(Active, Inactive).unwrap(), [Deactivating, Inactive]);
        assert_eq!(path(Active, Active).unwrap(), []);
        assert_eq!(path(Active, Draft), None);
    }

    fn state() -> impl Strategy<Value = Lifecycle> {
        proptest::sample::select(&Lifecycle::ALL[..])
    }

    proptest! {
        #[test]
        fn every_way_follows_the_arrows_and_never_passes_a_state_twice(from in state(), to in state()) {
            let Some(path) = from.path(to) else {
                // Nothing leads back to a draft; everything else can be reached from everywhere.
                prop_assert!(to == Draft && from != Draft);
                return Ok(());
            };
            let whole = [&[from][..], &path[..]].concat();
            for step in whole.windows(2) {
                prop_assert!(step[0].can_become(step[1]));
            }
            for (index, state) in whole.iter().enumerate() {
                prop_assert!(!whole[index + 1..].contains(state));
            }
            prop_assert_eq!(whole.last(), Some(&to));
        }

        #[test]
        fn nothing_serves_that_was_not_checked_and_started(path in proptest::collection::vec(state(), 1..24)) {
            let mut now = Draft;
            let (mut checked, mut started) = (false, false);
            for next in path {
                if !now.can_become(next) {
                    continue;
                }
                checked = match next { Validating => true, Inactive => false, _ => checked };
                started = match next { Deploying => true, Inactive | Validating => false, _ => started };
                if next == Active {
                    prop_assert!(checked && started);
                }
                now = next;
            }
        }
    }
}
