//! The way from one state of the lifecycle to another, along the arrows of its diagram.

use vaxel_core::lifecycle::Lifecycle;

/// The states between `from` (left out) and `to` (included), along the arrows, as few as possible.
pub(super) fn lifecycle_path(from: Lifecycle, to: Lifecycle) -> Vec<Lifecycle> {
    use Lifecycle::{
        Active, Deactivating, Deploying, Draft, Error, Inactive, Updating, Validating,
    };
    if from == to {
        return Vec::new();
    }
    let all = [
        Draft,
        Validating,
        Deploying,
        Active,
        Updating,
        Deactivating,
        Inactive,
        Error,
    ];
    let mut paths = vec![vec![from]];
    for _ in all {
        let mut longer = Vec::new();
        for path in paths {
            let last = path[path.len() - 1];
            for next in all {
                if !last.can_become(next) || path.contains(&next) {
                    continue;
                }
                let mut path = path.clone();
                path.push(next);
                if next == to {
                    return path.split_off(1);
                }
                longer.push(path);
            }
        }
        paths = longer;
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Lifecycle::{
        Active, Deactivating, Deploying, Draft, Error, Inactive, Updating, Validating,
    };

    #[test]
    fn every_move_follows_the_arrows() {
        assert_eq!(lifecycle_path(Draft, Deploying), [Validating, Deploying]);
        assert_eq!(
            lifecycle_path(Error, Active),
            [Validating, Deploying, Active]
        );
        assert_eq!(lifecycle_path(Active, Inactive), [Deactivating, Inactive]);
        assert_eq!(lifecycle_path(Active, Updating), [Updating]);
        assert_eq!(lifecycle_path(Active, Active), []);
        assert_eq!(lifecycle_path(Active, Draft), []);
    }
}
