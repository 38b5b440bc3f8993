//! Who is asking, and what that principal may do.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::{Id, Key};

/// A caller whose credential was checked. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What proved the identity.
    pub proof: Proof,
    /// For people: the key's name.
    pub name: Arc<str>,
    /// What it may do.
    pub permissions: Permissions,
}

/// What proved a [`Principal`]'s identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// An API key.
    Key(Id<Key>),
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
            permissions: Role::Admin.permissions(),
        }
    }

    /// Everyone, when authentication is switched off.
    pub fn unguarded() -> Self {
        Self {
            proof: Proof::Unguarded,
            name: "anyone".into(),
            permissions: Role::Admin.permissions(),
        }
    }

    /// The API key, when one was shown.
    pub const fn key(&self) -> Option<Id<Key>> {
        match self.proof {
            Proof::Key(id) => Some(id),
            Proof::Unguarded | Proof::System => None,
        }
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
    /// Create, list and revoke API keys.
    KeysManage,
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
    pub const ALL: [Self; 10] = [
        Self::McpRead,
        Self::McpWrite,
        Self::McpExecute,
        Self::McpManage,
        Self::HostExecute,
        Self::KeysManage,
        Self::CallsRead,
        Self::SystemRead,
        Self::SystemManage,
        Self::MetricsRead,
    ];

    /// `area:verb`, as it is written in keys and errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::McpRead => "mcp:read",
            Self::McpWrite => "mcp:write",
            Self::McpExecute => "mcp:execute",
            Self::McpManage => "mcp:manage",
            Self::HostExecute => "host:execute",
            Self::KeysManage => "keys:manage",
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

/// A named set of permissions that a key is created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// What an MCP client needs: see and call.
    Client,
    /// What a monitoring system needs.
    Monitor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Client, Self::Monitor];

    /// The name, as it is written in keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Client => "client",
            Self::Monitor => "monitor",
        }
    }

    /// What the role may do.
    pub fn permissions(self) -> Permissions {
        match self {
            Self::Admin => Permission::ALL.into_iter().collect(),
            Self::Client => Permissions::of(&[Permission::McpRead, Permission::McpExecute]),
            Self::Monitor => Permissions::of(&[
                Permission::McpRead,
                Permission::CallsRead,
                Permission::SystemRead,
                Permission::MetricsRead,
            ]),
        }
    }
}

impl FromStr for Role {
    type Err = UnknownGrant;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| UnknownGrant {
                text: text.to_owned(),
                what: "role",
                known: Self::ALL.map(Self::as_str).join(", "),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_can_call_but_not_run_programs() {
        let client = Role::Client.permissions();
        assert!(client.contains(Permission::McpExecute));
        assert!(!client.contains(Permission::HostExecute));
        assert!(Role::Admin.permissions().covers(client));
        assert!(!client.covers(Role::Monitor.permissions()));
    }

    #[test]
    fn permissions_are_written_as_a_list_of_names() {
        let text = serde_json::to_string(&Role::Client.permissions()).unwrap();
        assert_eq!(text, r#"["mcp:read","mcp:execute"]"#);
        assert_eq!(
            serde_json::from_str::<Permissions>(&text).unwrap(),
            Role::Client.permissions()
        );
        assert!(serde_json::from_str::<Permissions>(r#"["mcp:everything"]"#).is_err());
    }
}
