//! The policy decision: may this principal do that?
//!
//! One function, so that every door asks the same question. Deny by default.

use crate::{
    failure::{Failure, Kind},
    principal::{Permission, Principal},
};

/// The answer of [`decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No, and what is missing.
    Deny {
        /// The permission that the principal lacks.
        missing: Permission,
    },
}

/// Whether `principal` may use `permission`.
pub const fn decide(principal: &Principal, permission: Permission) -> Decision {
    if principal.permissions.contains(permission) {
        Decision::Allow
    } else {
        Decision::Deny {
            missing: permission,
        }
    }
}

/// [`decide`] as a gate: the failure says which key lacks which permission.
pub fn require(principal: &Principal, permission: Permission) -> Result<(), Failure> {
    match decide(principal, permission) {
        Decision::Allow => Ok(()),
        Decision::Deny { missing } => Err(Failure::new(
            Kind::NotPermitted,
            format!(
                "`{}` lacks the permission `{missing}`; an admin can create a key that has it",
                principal.name
            ),
        )),
    }
}
