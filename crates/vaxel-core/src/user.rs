//! Users: people and programs that ask, and what they are.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    failure::Issue,
    fields::Fields,
    id::{Id, User},
    name::{RoleName, UserName},
    quota::Quota,
    role,
    time::Timestamp,
};

/// Most roles of one user.
pub const ROLES_MAX: usize = 100;
/// Longest title, characters.
const TITLE_MAX: usize = 120;

/// A user as it is stored; how it proves who it is stands elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserResource {
    /// Never changes.
    pub id: Id<User>,
    /// Unique, also among users that are gone.
    pub name: UserName,
    /// A person or a program.
    pub kind: UserKind,
    /// Counts every write; `If-Match` compares it.
    pub version: u64,
    /// The name that people read; the name itself when absent.
    pub title: Option<String>,
    /// What it may do is what these allow.
    pub roles: BTreeSet<RoleName>,
    /// How much it may take, in the place of what its roles say.
    pub limits: Option<Quota>,
    /// Refused everywhere, whatever it shows.
    pub disabled: bool,
    /// First accepted.
    pub created_at: Timestamp,
    /// Last written.
    pub updated_at: Timestamp,
    /// Since when it is gone: its name stays taken.
    pub deleted_at: Option<Timestamp>,
}

/// Who or what a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UserKind {
    /// Signs in with a password.
    #[default]
    Person,
    /// Has API keys only.
    Program,
}

/// What someone sends to create or replace a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UserDraft {
    /// What it signs in with, too; it never changes.
    #[schema(value_type = String, example = "anna@example.com", max_length = 100)]
    pub name: UserName,
    /// A person, who signs in, or a program, which has keys; never changes.
    #[serde(default)]
    pub kind: UserKind,
    /// The name that people read, at most 120 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Anna Lind", max_length = 120)]
    pub title: Option<String>,
    /// Built-in ones (`admin`, `user`, `service`, `client`, `monitor`) or own ones; default `user` for a
    /// person, `service` for a program.
    #[serde(default)]
    #[schema(value_type = Vec<String>, example = json!(["user"]))]
    pub roles: BTreeSet<RoleName>,
    /// How much it may take, in the place of all that its roles say; `{}`: as much as it wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Quota>,
    /// Refused everywhere, whatever it shows.
    #[serde(default)]
    pub disabled: bool,
}

impl UserDraft {
    /// Reads a draft from JSON that a person wrote: `Err` holds every problem with its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let draft = Fields::read(value, "", &mut issues, Self::read).flatten();
        match draft {
            Some(draft) if issues.is_empty() => Ok(draft),
            _ => Err(issues),
        }
    }

    /// Reads the fields of a draft, of an object that may have others beside.
    pub fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required_string("name").and_then(|text| {
            text.parse()
                .map_err(|error| fields.issue("name", format!("{error}")))
                .ok()
        });
        let kind: UserKind = fields.parsed("kind").unwrap_or_default();
        let title = fields.string("title");
        let is_bad = |text: &String| {
            !(1..=TITLE_MAX).contains(&text.chars().count()) || text.contains(char::is_control)
        };
        if title.as_ref().is_some_and(is_bad) {
            let message =
                format!("must have 1 to {TITLE_MAX} characters and no control characters");
            fields.issue("title", message);
        }
        let roles = role::names(fields, "roles").unwrap_or_else(|| kind.usual_roles());
        if roles.len() > ROLES_MAX {
            fields.issue("roles", format!("must be at most {ROLES_MAX}"));
        }
        let limits = fields.nested("limits", Quota::read);
        let disabled = fields.boolean("disabled").unwrap_or_default();
        Some(Self {
            name: name?,
            kind,
            title,
            roles,
            limits,
            disabled,
        })
    }
}

impl UserKind {
    /// The text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Program => "program",
        }
    }

    /// The roles of one for whom none are named.
    fn usual_roles(self) -> BTreeSet<RoleName> {
        let role = match self {
            Self::Person => role::BuiltIn::User,
            Self::Program => role::BuiltIn::Service,
        };
        role.as_str().parse().into_iter().collect()
    }
}

/// A text that is no kind of user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a kind of user: person or program")]
pub struct UnknownKind(String);

impl FromStr for UserKind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let all = [Self::Person, Self::Program];
        let found = all.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| UnknownKind(text.chars().take(80).collect()))
    }
}
impl fmt::Display for UserKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_has_the_role_of_a_user_unless_said_otherwise() {
        let draft = UserDraft::from_json(&json!({"name": "anna@example.com"})).unwrap();
        assert_eq!(draft.kind, UserKind::Person);
        assert_eq!(draft.roles, BTreeSet::from(["user".parse().unwrap()]));
        let value = json!({"name": "ci", "kind": "program", "roles": []});
        assert!(UserDraft::from_json(&value).unwrap().roles.is_empty());
        let value = json!({"name": "ci", "kind": "program"});
        let draft = UserDraft::from_json(&value).unwrap();
        assert_eq!(draft.roles, BTreeSet::from(["service".parse().unwrap()]));
    }

    #[test]
    fn every_problem_of_a_user_is_named() {
        let value = json!({"name": "Anna", "kind": "robot", "title": "", "roles": ["a b"],
            "disabled": "no", "admin": true});
        let issues = UserDraft::from_json(&value).unwrap_err();
        let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(
            paths,
            ["name", "kind", "title", "roles[0]", "disabled", "admin"]
        );
    }
}
