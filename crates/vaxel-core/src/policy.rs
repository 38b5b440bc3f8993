//! Policies: rules about services, tools and arguments that stand above what roles and grants allow. What
//! one denies is denied, whoever asks; what one allows needs no role.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    failure::Issue,
    fields::Fields,
    grant,
    id::{Id, Policy},
    name::{PolicyName, RoleName, UserName},
    principal::{Permission, Permissions},
    role,
    service::matches,
    time::Timestamp,
};

mod condition;

pub use condition::{ARGUMENTS_MAX, CONDITION_MAX, Condition, Facts};

/// Most entries of each of a policy's lists.
pub const ENTRIES_MAX: usize = 1_000;
/// Longest pattern, bytes.
const PATTERN_MAX: usize = 256;
/// Longest description, characters.
const DESCRIPTION_MAX: usize = 1_000;

/// A policy as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyResource {
    /// Never changes.
    pub id: Id<Policy>,
    /// Counts every write; `If-Match` compares it.
    pub version: u64,
    /// What it says.
    pub draft: PolicyDraft,
    /// First accepted.
    pub created_at: Timestamp,
    /// Last written.
    pub updated_at: Timestamp,
    /// Why it cannot be read; then `draft` is [`PolicyDraft::unreadable`].
    pub issues: Vec<Issue>,
}

/// What a policy says. An absent list fits everything; in patterns `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PolicyDraft {
    /// The same grammar as a service's name.
    #[schema(value_type = String, example = "no-writes-in-prod", max_length = 32)]
    pub name: PolicyName,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it allows or denies. What is denied stays denied.
    pub effect: Effect,
    /// Whom it concerns: these users, and whoever has one of `roles`; without both, everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub users: Option<BTreeSet<UserName>>,
    /// See `users`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["analyst"]))]
    pub roles: Option<BTreeSet<RoleName>>,
    /// What it is about: of `mcp:read`, `mcp:write`, `mcp:execute`, `mcp:manage`; default `mcp:execute`.
    #[serde(default = "execute")]
    #[schema(value_type = Vec<String>, example = json!(["mcp:execute"]))]
    pub permissions: Permissions,
    /// Names of services, or patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["github", "db-*"]))]
    pub services: Option<Vec<String>>,
    /// Environments of services, or patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["prod"]))]
    pub environments: Option<Vec<String>>,
    /// Tags, or patterns; a service fits that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Names of tools as their services have them, or patterns. With this it is about tools only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["delete_*", "write_file"]))]
    pub tools: Option<Vec<String>>,
    /// A condition in CEL over `arguments`, `user`, `service`, `tool` and `time`, at most 1,000 bytes. One
    /// that cannot be decided denies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "arguments.path.startsWith('/srv/')")]
    pub when: Option<Condition>,
    /// Without it the policy is kept and does nothing; default true.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// What follows from a policy that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It is allowed, unless another one denies it.
    Allow,
    /// It is denied.
    Deny,
}

const fn yes() -> bool {
    true
}

fn execute() -> Permissions {
    Permissions::of(&[Permission::McpExecute])
}

impl PolicyDraft {
    /// What stands for a policy that cannot be read: it denies everything of every service to everyone,
    /// until somebody writes it anew or removes it, which policies cannot deny.
    pub fn unreadable(name: PolicyName) -> Self {
        let everything = [
            Permission::McpRead,
            Permission::McpWrite,
            Permission::McpExecute,
            Permission::McpManage,
        ];
        Self {
            name,
            description: None,
            effect: Effect::Deny,
            users: None,
            roles: None,
            permissions: Permissions::of(&everything),
            services: None,
            environments: None,
            tags: None,
            tools: None,
            when: None,
            enabled: true,
        }
    }

    /// Reads a draft from JSON that a person wrote: `Err` holds every problem with its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let draft = Fields::read(value, "", &mut issues, read).flatten();
        match draft {
            Some(draft) if issues.is_empty() => Ok(draft),
            _ => Err(issues),
        }
    }

    /// Whether it concerns this user, who has these roles.
    pub fn concerns<'a>(&self, user: &str, mut roles: impl Iterator<Item = &'a str>) -> bool {
        let named = self
            .users
            .as_ref()
            .is_some_and(|users| users.contains(user));
        let of_role = self
            .roles
            .as_ref()
            .is_some_and(|wanted| roles.any(|role| wanted.contains(role)));
        (self.users.is_none() && self.roles.is_none()) || named || of_role
    }

    /// Whether it is about tools only, and this is not one that it names.
    pub fn spares(&self, tool: Option<&str>) -> bool {
        let Some(tools) = &self.tools else {
            return false;
        };
        tool.is_none_or(|tool| !tools.iter().any(|pattern| matches(pattern, tool)))
    }
}

fn read(fields: &mut Fields<'_>) -> Option<PolicyDraft> {
    let name = fields.required_string("name").and_then(|text| {
        text.parse()
            .map_err(|error| fields.issue("name", format!("{error}")))
            .ok()
    });
    let description = fields.string("description");
    let is_long = |text: &String| text.chars().count() > DESCRIPTION_MAX;
    if description.as_ref().is_some_and(is_long) {
        let message = format!("must have at most {DESCRIPTION_MAX} characters");
        fields.issue("description", message);
    }
    if !fields.has("effect") {
        fields.issue("effect", "is missing: allow or deny");
    }
    let effect = fields.parsed("effect");
    let users = users(fields);
    let roles = role::names(fields, "roles");
    let permissions = grant::permissions(fields, Permission::of_services).unwrap_or_else(execute);
    let services = patterns(fields, "services");
    let environments = patterns(fields, "environments");
    let tags = patterns(fields, "tags");
    let tools = patterns(fields, "tools");
    let when = fields.string("when").and_then(|text| {
        Condition::compile(&text)
            .map_err(|message| fields.issue("when", message))
            .ok()
    });
    let enabled = fields.boolean("enabled").unwrap_or(true);
    Some(PolicyDraft {
        name: name?,
        description,
        effect: effect?,
        users,
        roles,
        permissions,
        services,
        environments,
        tags,
        tools,
        when,
        enabled,
    })
}

fn users(fields: &mut Fields<'_>) -> Option<BTreeSet<UserName>> {
    let texts = fields.strings("users")?;
    let mut users = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(name) => _ = users.insert(name),
            Err(error) => fields.issue(&format!("users[{index}]"), format!("{error}")),
        }
    }
    Some(users)
}

fn patterns(fields: &mut Fields<'_>, key: &'static str) -> Option<Vec<String>> {
    let patterns = fields.strings(key)?;
    if patterns.is_empty() || patterns.len() > ENTRIES_MAX {
        let message = format!("must name 1 to {ENTRIES_MAX}; leave it out for all");
        fields.issue(key, message);
    }
    for (index, pattern) in patterns.iter().enumerate() {
        if pattern.is_empty() || pattern.len() > PATTERN_MAX {
            let message = format!("must have 1 to {PATTERN_MAX} bytes");
            fields.issue(&format!("{key}[{index}]"), message);
        }
    }
    Some(patterns)
}

impl Effect {
    /// The text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A text that is no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an effect: allow or deny")]
pub struct UnknownEffect(String);

impl FromStr for Effect {
    type Err = UnknownEffect;
    fn from_str(text: &str) -> Result<Self, UnknownEffect> {
        let all = [Self::Allow, Self::Deny];
        let found = all.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| UnknownEffect(text.chars().take(80).collect()))
    }
}
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
