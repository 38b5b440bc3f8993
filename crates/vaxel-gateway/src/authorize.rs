//! Principal and route → the right to call. Only [`check`] makes an [`Authorized`], and an upstream
//! accepts nothing else, so that skipping it does not compile.

use vaxel_core::{
    access,
    failure::Failure,
    principal::{Permission, Principal},
};

use crate::route::Route;

/// A route that its caller may take.
pub(crate) struct Authorized<T>(T);

impl<T> Authorized<T> {
    pub(crate) const fn get(&self) -> &T {
        &self.0
    }
}

/// Whether `principal` may take `route`.
pub(crate) fn check(principal: &Principal, route: Route) -> Result<Authorized<Route>, Failure> {
    access::require(principal, Permission::McpExecute)?;
    Ok(Authorized(route))
}

/// Whether `principal` may see what there is.
pub(crate) fn may_list(principal: &Principal) -> Result<(), Failure> {
    access::require(principal, Permission::McpRead)
}
