//! Sets: named selections of what services offer, each served as one virtual server.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    failure::Issue,
    fields::Fields,
    id::{Id, Toolset},
    name::{ServiceName, ToolsetName},
    service::matches,
    time::Timestamp,
};

/// Most services that one set may name.
pub const SERVICES_MAX: usize = 1_000;
/// Most patterns of one kind for one service.
pub const PATTERNS_MAX: usize = 1_000;
/// Longest pattern, bytes.
pub const PATTERN_MAX: usize = 2_048;
/// Longest description, characters.
const DESCRIPTION_MAX: usize = 1_000;

/// What clients of a set see of its tools. They can call all of them either way.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// Every tool.
    #[default]
    All,
    /// Four tools that list, find, describe and call the others, as with `?view=meta`.
    Meta,
}

impl View {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Meta => "meta",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl std::str::FromStr for View {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::All, Self::Meta].into_iter();
        let mut named = known.filter(|view| view.as_str() == text);
        named.next().ok_or("must be `all` or `meta`")
    }
}

/// A set as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolsetResource {
    /// Never changes.
    pub id: Id<Toolset>,
    /// Unique among sets.
    pub name: ToolsetName,
    /// Counts every write; `If-Match` compares it.
    pub version: u64,
    /// One sentence for people.
    pub description: Option<String>,
    /// What clients see of its tools.
    pub view: View,
    /// What is in it, each service once.
    pub services: Vec<Selected>,
    /// First accepted.
    pub created_at: Timestamp,
    /// Last written.
    pub updated_at: Timestamp,
    /// What cannot be read of what is stored; then `services` is empty.
    pub issues: Vec<Issue>,
}

/// What someone sends to create or replace a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolsetDraft {
    /// The same grammar as a service's name; it stands in the address, `/mcp/sets/NAME`.
    #[schema(value_type = String, example = "work", max_length = 32)]
    pub name: ToolsetName,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What clients see of its tools: `all` of them, or with `meta` four that find and call them.
    #[serde(default, skip_serializing_if = "View::is_default")]
    pub view: View,
    /// What is in it, each service once: 1 to 1,000.
    pub services: Vec<Selected>,
}

/// What a set takes of one service. In patterns `*` stands for any run of characters; names are the
/// service's own. An absent list takes everything of its kind, an empty one nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Selected {
    /// The service. One that is not there shows nothing, until it is.
    #[schema(value_type = String, example = "github")]
    pub service: ServiceName,
    /// Names of tools, or patterns. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["list_*", "get_issue"]))]
    pub tools: Option<Vec<String>>,
    /// Names of prompts, or patterns. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Vec<String>>,
    /// URIs of resources, URI templates, or patterns of both. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["repo://docs/*"]))]
    pub resources: Option<Vec<String>>,
}

/// What was asked for of a set, as someone would send it.
impl From<ToolsetResource> for ToolsetDraft {
    fn from(resource: ToolsetResource) -> Self {
        let ToolsetResource {
            id: _,
            name,
            version: _,
            description,
            view,
            services,
            created_at: _,
            updated_at: _,
            issues: _,
        } = resource;
        Self {
            name,
            description,
            view,
            services,
        }
    }
}

impl ToolsetResource {
    /// Everything that is wrong with what is stored, as the validation of today sees it.
    pub fn problems(&self) -> Vec<Issue> {
        if !self.issues.is_empty() {
            return self.issues.clone();
        }
        let value = serde_json::to_value(ToolsetDraft::from(self.clone()));
        let read = value.map(|value| ToolsetDraft::from_json(&value));
        match read {
            Ok(read) => read.err().unwrap_or_default(),
            Err(error) => vec![Issue::new("", error.to_string())],
        }
    }
}

impl ToolsetDraft {
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

impl Selected {
    /// Everything of a service.
    pub const fn all_of(service: ServiceName) -> Self {
        Self {
            service,
            tools: None,
            prompts: None,
            resources: None,
        }
    }
}

/// Whether one of the patterns fits; without a list everything does.
pub fn selects(patterns: Option<&[String]>, name: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, name)))
}

fn read(fields: &mut Fields<'_>) -> Option<ToolsetDraft> {
    let name = fields.required_string("name").and_then(|text| {
        text.parse()
            .map_err(|error| fields.issue("name", format!("{error}")))
            .ok()
    });
    let description = fields.string("description");
    let length = description
        .as_deref()
        .map_or(0, |text| text.chars().count());
    if length > DESCRIPTION_MAX {
        let message = format!("must have at most {DESCRIPTION_MAX} characters");
        fields.issue("description", message);
    }
    let view = fields.parsed("view").unwrap_or_default();
    if !fields.has("services") {
        fields.value("services");
        fields.issue("services", "is missing: name the services of the set");
    }
    let services = fields.objects("services", selected).unwrap_or_default();
    if fields.has("services") && !(1..=SERVICES_MAX).contains(&services.len()) {
        fields.issue(
            "services",
            format!("must name 1 to {SERVICES_MAX} services"),
        );
    }
    let services: Vec<Selected> = services.into_iter().flatten().collect();
    let mut seen = BTreeSet::new();
    for Selected { service, .. } in &services {
        if !seen.insert(service) {
            let message = format!("name `{service}` more than once; put its patterns together");
            fields.issue("services", message);
        }
    }
    Some(ToolsetDraft {
        name: name?,
        description,
        view,
        services,
    })
}

fn selected(fields: &mut Fields<'_>) -> Option<Selected> {
    let service = fields.required_string("service").and_then(|text| {
        text.parse()
            .map_err(|error| fields.issue("service", format!("{error}")))
            .ok()
    });
    let tools = patterns(fields, "tools");
    let prompts = patterns(fields, "prompts");
    let resources = patterns(fields, "resources");
    Some(Selected {
        service: service?,
        tools,
        prompts,
        resources,
    })
}

fn patterns(fields: &mut Fields<'_>, key: &'static str) -> Option<Vec<String>> {
    let patterns = fields.strings(key)?;
    if patterns.len() > PATTERNS_MAX {
        fields.issue(key, format!("more than {PATTERNS_MAX} patterns"));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        if pattern.is_empty() || pattern.len() > PATTERN_MAX {
            let message = format!("must have 1 to {PATTERN_MAX} bytes");
            fields.issue(&format!("{key}[{index}]"), message);
        }
    }
    Some(patterns)
}

#[cfg(test)]
mod tests;
