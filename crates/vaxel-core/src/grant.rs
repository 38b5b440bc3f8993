//! Grants: a service is shared with a user, or with everyone who has a role.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::{
    failure::Issue,
    fields::Fields,
    id::{Grant, Id, Service},
    name::{RoleName, ServiceName, UserName},
    principal::{Permission, Permissions},
    time::Timestamp,
};

/// A grant as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantResource {
    /// Never changes.
    pub id: Id<Grant>,
    /// With whom.
    pub to: Grantee,
    /// What is shared.
    pub service: Id<Service>,
    /// What they may do with it.
    pub permissions: Permissions,
    /// Name of the principal that shared it.
    pub granted_by: String,
    /// From when on.
    pub created_at: Timestamp,
}

/// What someone sends to share a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GrantDraft {
    /// `user:NAME` or `role:NAME`.
    #[schema(value_type = String, example = "role:analyst")]
    pub to: Grantee,
    /// The service that is shared.
    #[schema(value_type = String, example = "files")]
    pub service: ServiceName,
    /// What they may do with it: of `mcp:read`, `mcp:write`, `mcp:execute`, `mcp:manage`; default
    /// `mcp:read` and `mcp:execute`.
    #[schema(value_type = Vec<String>, example = json!(["mcp:read", "mcp:execute"]))]
    #[serde(default = "usual")]
    pub permissions: Permissions,
}

/// Whom something is shared with. Written `user:NAME` or `role:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grantee {
    /// One user.
    User(UserName),
    /// Everyone who has the role.
    Role(RoleName),
}

impl GrantDraft {
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

fn usual() -> Permissions {
    Permissions::of(&[Permission::McpRead, Permission::McpExecute])
}

fn read(fields: &mut Fields<'_>) -> Option<GrantDraft> {
    let to = fields.required_string("to").and_then(|text| {
        text.parse()
            .map_err(|error| fields.issue("to", format!("{error}")))
            .ok()
    });
    let service = fields.required_string("service").and_then(|text| {
        text.parse()
            .map_err(|error| fields.issue("service", format!("{error}")))
            .ok()
    });
    let permissions = permissions(fields, Permission::of_services).unwrap_or_else(usual);
    Some(GrantDraft {
        to: to?,
        service: service?,
        permissions,
    })
}

/// The list `permissions`, of which each must be one of `known`.
pub(crate) fn permissions(
    fields: &mut Fields<'_>,
    known: impl Fn() -> Permissions,
) -> Option<Permissions> {
    let texts = fields.strings("permissions")?;
    if texts.is_empty() {
        fields.issue("permissions", "must name at least one permission");
    }
    let mut permissions = Permissions::NONE;
    for (index, text) in texts.iter().enumerate() {
        match text.parse::<Permission>() {
            Ok(one) if known().contains(one) => {
                permissions = permissions.union(Permissions::of(&[one]));
            }
            Ok(one) => {
                let known: Vec<&str> = known().iter().map(Permission::as_str).collect();
                let message = format!("`{one}` is not about services: one of {}", known.join(", "));
                fields.issue(&format!("permissions[{index}]"), message);
            }
            Err(error) => fields.issue(&format!("permissions[{index}]"), error.to_string()),
        }
    }
    Some(permissions)
}

/// A text that names nobody to share with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrantee {
    /// Neither of the two kinds.
    #[error("`{0}` is neither `user:NAME` nor `role:NAME`")]
    Kind(String),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] crate::name::InvalidName),
}

impl FromStr for Grantee {
    type Err = InvalidGrantee;
    fn from_str(text: &str) -> Result<Self, InvalidGrantee> {
        match text.split_once(':') {
            Some(("user", name)) => Ok(Self::User(name.parse()?)),
            Some(("role", name)) => Ok(Self::Role(name.parse()?)),
            _ => Err(InvalidGrantee::Kind(text.chars().take(80).collect())),
        }
    }
}
impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Role(name) => write!(f, "role:{name}"),
        }
    }
}
impl Serialize for Grantee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Grantee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_grant_lets_see_and_call_unless_said_otherwise() {
        let value = json!({"to": "user:anna", "service": "files"});
        let draft = GrantDraft::from_json(&value).unwrap();
        assert_eq!(draft.permissions, usual());
        assert_eq!(draft.to.to_string(), "user:anna");
        let text = serde_json::to_value(&draft).unwrap();
        assert_eq!(serde_json::from_value::<GrantDraft>(text).unwrap(), draft);
    }

    #[test]
    fn every_problem_of_a_grant_is_named() {
        let value =
            json!({"to": "anna", "service": "Files", "permissions": ["system:manage", "x"]});
        let issues = GrantDraft::from_json(&value).unwrap_err();
        let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(paths, ["to", "service", "permissions[0]", "permissions[1]"]);
    }
}
