//! Roles: named sets of permissions that users have. Some are built in and stay as they are.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::{
    failure::Issue,
    fields::Fields,
    name::RoleName,
    principal::{Permission, Permissions},
    quota::Quota,
    time::Timestamp,
};

/// Longest description, characters.
const DESCRIPTION_MAX: usize = 1_000;
/// Ends the text of a permission that holds for what is one's own.
const OWN: &str = ":own";

/// Permissions, each for everything or for what is one's own. Written as a list of texts: `mcp:read`,
/// `mcp:write:own`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reach {
    /// For everything.
    pub everywhere: Permissions,
    /// For what belongs to the user, and nothing else.
    pub own: Permissions,
}

/// A role that somebody made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleResource {
    /// Unique; never that of a built-in role.
    pub name: RoleName,
    /// Counts every write; `If-Match` compares it.
    pub version: u64,
    /// One sentence for people.
    pub description: Option<String>,
    /// What it allows.
    pub permissions: Reach,
    /// How much of it.
    pub limits: Quota,
    /// First accepted.
    pub created_at: Timestamp,
    /// Last written.
    pub updated_at: Timestamp,
}

/// What someone sends to create or replace a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RoleDraft {
    /// The same grammar as a service's name; not that of a built-in role.
    #[schema(value_type = String, example = "analyst", max_length = 32)]
    pub name: RoleName,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it allows, at least one: `mcp:read` for everything, `mcp:read:own` for what is the user's own.
    #[schema(value_type = Vec<String>, example = json!(["mcp:read", "mcp:write:own"]))]
    pub permissions: Reach,
    /// How much its users may take: of several roles the more generous limit counts, and none is the most
    /// generous.
    #[serde(default, skip_serializing_if = "is_unlimited")]
    pub limits: Quota,
}

/// A role that is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    /// Everything.
    Admin,
    /// What a person needs who has services of their own.
    User,
    /// What a program needs that registers itself and calls others.
    Service,
    /// What an MCP client needs: see and call.
    Client,
    /// What a monitoring system needs.
    Monitor,
}

impl Reach {
    /// Everything everywhere.
    pub const ALL: Self = Self {
        everywhere: Permissions::ALL,
        own: Permissions::NONE,
    };

    /// What either allows.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        let everywhere = self.everywhere.union(other.everywhere);
        let own = self.own.union(other.own).without(everywhere);
        Self { everywhere, own }
    }

    /// Everything that is allowed of anything.
    pub const fn any(self) -> Permissions {
        self.everywhere.union(self.own)
    }

    /// Whether this allows all that `other` does.
    pub const fn covers(self, other: Self) -> bool {
        self.everywhere.covers(other.everywhere) && self.any().covers(other.own)
    }

    /// The texts.
    pub fn texts(self) -> Vec<String> {
        let everywhere = self.everywhere.iter().map(|one| one.to_string());
        let own = self.own.iter().map(|one| format!("{one}{OWN}"));
        everywhere.chain(own).collect()
    }

    /// Reads texts; each that is none goes to `wrong` with its index.
    fn read(texts: &[String], mut wrong: impl FnMut(usize, String)) -> Self {
        let mut reach = Self::default();
        for (index, text) in texts.iter().enumerate() {
            let (name, is_own) = match text.strip_suffix(OWN) {
                Some(name) => (name, true),
                None => (text.as_str(), false),
            };
            match name.parse::<Permission>() {
                Ok(one) if is_own && !one.has_owner() => {
                    let message = format!("nobody owns what `{one}` is about: leave `{OWN}` out");
                    wrong(index, message);
                }
                Ok(one) => {
                    let mut read = Self::default();
                    let set = Permissions::of(&[one]);
                    *(if is_own {
                        &mut read.own
                    } else {
                        &mut read.everywhere
                    }) = set;
                    reach = reach.union(read);
                }
                Err(error) => wrong(index, error.to_string()),
            }
        }
        reach
    }
}

impl Serialize for Reach {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.texts())
    }
}
impl<'de> Deserialize<'de> for Reach {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let mut problem = None;
        let reach = Self::read(&texts, |_, message| _ = problem.get_or_insert(message));
        problem.map_or(Ok(reach), |message| Err(de::Error::custom(message)))
    }
}

fn is_unlimited(quota: &Quota) -> bool {
    *quota == Quota::NONE
}

impl RoleDraft {
    /// Reads a draft from JSON that a person wrote: `Err` holds every problem with its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let draft = Fields::read(value, "", &mut issues, read).flatten();
        match draft {
            Some(draft) if issues.is_empty() => Ok(draft),
            _ => Err(issues),
        }
    }
}

fn read(fields: &mut Fields<'_>) -> Option<RoleDraft> {
    let name = fields.required_string("name").and_then(|text| {
        text.parse::<RoleName>()
            .map_err(|error| fields.issue("name", error.to_string()))
            .ok()
    });
    if let Some(name) = &name
        && BuiltIn::named(name.as_str()).is_some()
    {
        fields.issue("name", format!("`{name}` is built in: choose another name"));
    }
    let description = fields.string("description");
    let is_long = |text: &String| text.chars().count() > DESCRIPTION_MAX;
    if description.as_ref().is_some_and(is_long) {
        let message = format!("must have at most {DESCRIPTION_MAX} characters");
        fields.issue("description", message);
    }
    let texts = fields.strings("permissions");
    if texts.as_ref().is_none_or(Vec::is_empty) {
        fields.issue("permissions", "must name at least one permission");
    }
    let wrong = |index, message| fields.issue(&format!("permissions[{index}]"), message);
    let permissions = Reach::read(&texts.unwrap_or_default(), wrong);
    let limits = fields.nested("limits", Quota::read).unwrap_or_default();
    Some(RoleDraft {
        name: name?,
        description,
        permissions,
        limits,
    })
}

impl BuiltIn {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Admin,
        Self::User,
        Self::Service,
        Self::Client,
        Self::Monitor,
    ];

    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Service => "service",
            Self::Client => "client",
            Self::Monitor => "monitor",
        }
    }

    /// One sentence for people.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Admin => "Everything",
            Self::User => "Services and keys of one's own, and what others share",
            Self::Service => "A program that registers itself and calls others",
            Self::Client => "See and call every service",
            Self::Monitor => "See services, calls, figures and the server's state",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }

    /// What it allows.
    pub fn reach(self) -> Reach {
        use Permission as P;
        let reach = |everywhere: &[Permission], own: &[Permission]| Reach {
            everywhere: Permissions::of(everywhere),
            own: Permissions::of(own),
        };
        let mcp = [P::McpRead, P::McpWrite, P::McpExecute, P::McpManage];
        match self {
            Self::Admin => Reach::ALL,
            Self::User => reach(&[], &[&mcp[..], &[P::KeysManage, P::CallsRead]].concat()),
            Self::Service => reach(&[P::McpRead, P::McpExecute], &[P::McpWrite, P::McpManage]),
            Self::Client => reach(&[P::McpRead, P::McpExecute], &[]),
            Self::Monitor => reach(
                &[P::McpRead, P::CallsRead, P::SystemRead, P::MetricsRead],
                &[],
            ),
        }
    }

    /// What a key of this role is limited to.
    pub fn permissions(self) -> Permissions {
        self.reach().any()
    }
}

/// A text that names no built-in role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: one of admin, user, service, client, monitor")]
pub struct UnknownRole(String);

impl FromStr for BuiltIn {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::named(text).ok_or_else(|| UnknownRole(text.chars().take(80).collect()))
    }
}
impl fmt::Display for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names of roles that somebody wrote, at `key`: each once, in their order; problems are reported.
pub(crate) fn names(fields: &mut Fields<'_>, key: &'static str) -> Option<BTreeSet<RoleName>> {
    let texts = fields.strings(key)?;
    let mut names = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(name) => _ = names.insert(name),
            Err(error) => fields.issue(&format!("{key}[{index}]"), format!("{error}")),
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn permissions_and_limits_are_read_as_they_are_written() {
        let value = json!({"name": "analyst", "permissions": ["mcp:read", "mcp:write:own"],
            "limits": {"calls": "20/1m", "concurrent": 4}});
        let draft = RoleDraft::from_json(&value).unwrap();
        assert!(draft.permissions.everywhere.contains(Permission::McpRead));
        assert!(draft.permissions.own.contains(Permission::McpWrite));
        assert!(!draft.permissions.everywhere.contains(Permission::McpWrite));
        assert_eq!(serde_json::to_value(&draft).unwrap(), value);
        assert_eq!(serde_json::from_value::<RoleDraft>(value).unwrap(), draft);
    }

    #[test]
    fn every_problem_of_a_role_is_named() {
        let value = json!({"name": "admin", "description": "x".repeat(1_001),
            "permissions": ["mcp:all", "system:read:own"], "perms": 1, "limits": {"calls": "0/1m"}});
        let issues = RoleDraft::from_json(&value).unwrap_err();
        let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
        let expected = [
            "name",
            "description",
            "permissions[0]",
            "permissions[1]",
            "limits.calls",
            "perms",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn everything_holds_for_ones_own_too() {
        let read = Permissions::of(&[Permission::McpRead]);
        let (everywhere, own) = (
            Reach {
                everywhere: read,
                ..Reach::default()
            },
            Reach {
                own: read,
                ..Reach::default()
            },
        );
        assert_eq!(everywhere.union(own), everywhere);
        assert!(everywhere.covers(own));
        assert!(!own.covers(everywhere));
        assert!(Reach::ALL.covers(BuiltIn::User.reach()));
        assert!(!BuiltIn::Client.reach().covers(BuiltIn::Monitor.reach()));
    }

    #[test]
    fn only_an_admin_may_run_programs_here() {
        for role in BuiltIn::ALL {
            let may = role.permissions().contains(Permission::HostExecute);
            assert_eq!(may, role == BuiltIn::Admin, "{role}");
        }
    }
}
