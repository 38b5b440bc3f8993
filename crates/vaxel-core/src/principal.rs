//! Who is asking, and what that principal may do.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    audit::Came,
    id::{Id, Key, User},
    rights::{Limits, Rights},
};

/// A caller whose credential was checked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal {
    /// What proved the identity.
    pub proof: Proof,
    /// For people: the user's name, or the key's.
    pub name: Arc<str>,
    /// What it may do everywhere.
    pub permissions: Permissions,
    /// What else decides: whose it is, what it may do with what is its own, grants and policies.
    pub rights: Arc<Rights>,
    /// What its credential is limited to, when it is.
    pub limits: Option<Arc<Limits>>,
    /// Where its request came from, for the audit; known at the doors to which changes come.
    pub came: Option<Arc<Came>>,
}

/// What proved a [`Principal`]'s identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// An API key.
    Key(Id<Key>),
    /// A token that was issued to a user who signed in.
    User(Id<User>),
    /// Nothing: the server runs with `--no-auth` on loopback, everyone is admin.
    Unguarded,
    /// Vaxel itself, for its own reconcilers and for the command line working on a stopped server.
    System,
}

impl Principal {
    /// Vaxel itself.
    pub fn system() -> Self {
        Self {
            proof: Proof::System,
            name: "vaxel".into(),
            permissions: Permissions::ALL,
            rights: Rights::unlimited(),
            limits: None,
            came: None,
        }
    }

    /// Everyone, when authentication is switched off.
    pub fn unguarded() -> Self {
        Self {
            proof: Proof::Unguarded,
            name: "anyone".into(),
            permissions: Permissions::ALL,
            rights: Rights::unlimited(),
            limits: None,
            came: None,
        }
    }

    /// A user, who comes with a credential that may be limited.
    pub fn of_user(
        (proof, name): (Proof, Arc<str>),
        rights: Arc<Rights>,
        limits: Option<Arc<Limits>>,
    ) -> Self {
        let everywhere = rights.reach().everywhere;
        let permissions = limits.as_ref().map_or(everywhere, |limits| {
            everywhere.intersection(limits.permissions)
        });
        Self {
            proof,
            name,
            permissions,
            rights,
            limits,
            came: None,
        }
    }

    /// The API key, when one was shown.
    pub const fn key(&self) -> Option<Id<Key>> {
        match self.proof {
            Proof::Key(id) => Some(id),
            Proof::User(_) | Proof::Unguarded | Proof::System => None,
        }
    }

    /// What the credential itself lets through, whatever its user may do.
    pub fn ceiling(&self) -> Permissions {
        self.limits
            .as_ref()
            .map_or(Permissions::ALL, |limits| limits.permissions)
    }
}

/// One thing that a principal may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Permission {
    /// See services and what they offer.
    McpRead,
    /// Create and change services.
    McpWrite,
    /// Call tools, read resources, get prompts.
    McpExecute,
    /// Start, stop, restart and delete services, also those of others; add, change and remove sets.
    McpManage,
    /// Run a program on this host.
    HostExecute,
    /// Create, list, rotate and revoke API keys.
    KeysManage,
    /// See users, their roles and their sessions.
    UsersRead,
    /// Create, change, disable and remove users; end their sessions.
    UsersManage,
    /// See roles, grants and policies, and ask why something is allowed.
    AccessRead,
    /// Create, change and remove roles, grants and policies.
    AccessManage,
    /// Search, verify and export the audit log.
    AuditRead,
    /// Read records of calls and logs of services.
    CallsRead,
    /// Read the server's status and configuration.
    SystemRead,
    /// Stop the server, reload its configuration.
    SystemManage,
    /// Scrape `/metrics`.
    MetricsRead,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 15] = [
        Self::McpRead,
        Self::McpWrite,
        Self::McpExecute,
        Self::McpManage,
        Self::HostExecute,
        Self::KeysManage,
        Self::UsersRead,
        Self::UsersManage,
        Self::AccessRead,
        Self::AccessManage,
        Self::AuditRead,
        Self::CallsRead,
        Self::SystemRead,
        Self::SystemManage,
        Self::MetricsRead,
    ];

    /// Those that are about services: what grants and policies can speak of.
    pub fn of_services() -> Permissions {
        Permissions::of(&[
            Self::McpRead,
            Self::McpWrite,
            Self::McpExecute,
            Self::McpManage,
        ])
    }

    /// Whether what it is about belongs to somebody, so that one can have it for one's own.
    pub fn has_owner(self) -> bool {
        Self::of_services().contains(self) || matches!(self, Self::KeysManage | Self::CallsRead)
    }

    /// `area:verb`, as it is written in keys and errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::McpRead => "mcp:read",
            Self::McpWrite => "mcp:write",
            Self::McpExecute => "mcp:execute",
            Self::McpManage => "mcp:manage",
            Self::HostExecute => "host:execute",
            Self::KeysManage => "keys:manage",
            Self::UsersRead => "users:read",
            Self::UsersManage => "users:manage",
            Self::AccessRead => "access:read",
            Self::AccessManage => "access:manage",
            Self::AuditRead => "audit:read",
            Self::CallsRead => "calls:read",
            Self::SystemRead => "system:read",
            Self::SystemManage => "system:manage",
            Self::MetricsRead => "metrics:read",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no permission or role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: one of {known}")]
pub struct UnknownGrant {
    text: String,
    what: &'static str,
    known: String,
}

impl FromStr for Permission {
    type Err = UnknownGrant;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| UnknownGrant {
                text: text.to_owned(),
                what: "permission",
                known: Self::ALL.map(Self::as_str).join(", "),
            })
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u32);

impl Permissions {
    /// No permission.
    pub const NONE: Self = Self(0);
    /// Every permission.
    pub const ALL: Self = Self((1 << Permission::ALL.len()) - 1);

    /// The set of `permissions`.
    pub fn of(permissions: &[Permission]) -> Self {
        permissions.iter().copied().collect()
    }

    /// Whether `permission` is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u32) != 0
    }

    /// Whether everything in `other` is in this set: nobody can hand out more than they have.
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The permissions in the set, in their declared order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |one| self.contains(*one))
    }

    /// A number that is equal for equal sets, for caches that are keyed by it.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(
            permissions
                .into_iter()
                .fold(0, |bits, one| bits | (1 << one as u32)),
        )
    }
}
impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Permission::as_str))
            .finish()
    }
}
impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Permission::as_str))
    }
}
impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names
            .iter()
            .map(|name| name.parse::<Permission>().map_err(de::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_written_as_a_list_of_names() {
        let two = Permissions::of(&[Permission::McpRead, Permission::McpExecute]);
        let text = serde_json::to_string(&two).unwrap();
        assert_eq!(text, r#"["mcp:read","mcp:execute"]"#);
        assert_eq!(serde_json::from_str::<Permissions>(&text).unwrap(), two);
        assert!(serde_json::from_str::<Permissions>(r#"["mcp:everything"]"#).is_err());
    }
}
