//! The methods of MCP that a gateway has to know by name. Everything else passes as [`Method::Other`].

/// A request or notification method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `initialize` (legacy).
    Initialize,
    /// `ping` (legacy).
    Ping,
    /// `server/discover` (modern).
    Discover,
    /// `tools/list`
    ToolsList,
    /// `tools/call`
    ToolsCall,
    /// `prompts/list`
    PromptsList,
    /// `prompts/get`
    PromptsGet,
    /// `resources/list`
    ResourcesList,
    /// `resources/templates/list`
    TemplatesList,
    /// `resources/read`
    ResourcesRead,
    /// `resources/subscribe` (legacy).
    Subscribe,
    /// `resources/unsubscribe` (legacy).
    Unsubscribe,
    /// `subscriptions/listen` (modern).
    Listen,
    /// `completion/complete`
    Complete,
    /// `tasks/get` (extension of 2026-07-28).
    TasksGet,
    /// `tasks/update` (extension).
    TasksUpdate,
    /// `tasks/cancel` (extension).
    TasksCancel,
    /// `logging/setLevel` (legacy).
    SetLevel,
    /// `sampling/createMessage`, asked by a legacy server.
    CreateMessage,
    /// `roots/list`, asked by a legacy server.
    RootsList,
    /// `elicitation/create`, asked by a legacy server.
    Elicit,
    /// `notifications/initialized` (legacy).
    Initialized,
    /// `notifications/cancelled`
    Cancelled,
    /// `notifications/progress`
    Progress,
    /// `notifications/message`: a log line of a server.
    LogMessage,
    /// `notifications/tools/list_changed`
    ToolsChanged,
    /// `notifications/prompts/list_changed`
    PromptsChanged,
    /// `notifications/resources/list_changed`
    ResourcesChanged,
    /// `notifications/resources/updated`
    ResourceUpdated,
    /// `notifications/subscriptions/acknowledged` (modern).
    Acknowledged,
    /// `notifications/tasks`: how a task stands (extension).
    TaskStands,
    /// Anything else.
    Other,
}

/// The one table of names.
const NAMES: &[(Method, &str)] = &[
    (Method::ToolsCall, "tools/call"),
    (Method::ToolsList, "tools/list"),
    (Method::Progress, "notifications/progress"),
    (Method::LogMessage, "notifications/message"),
    (Method::Initialize, "initialize"),
    (Method::Initialized, "notifications/initialized"),
    (Method::Ping, "ping"),
    (Method::Discover, "server/discover"),
    (Method::PromptsList, "prompts/list"),
    (Method::PromptsGet, "prompts/get"),
    (Method::ResourcesList, "resources/list"),
    (Method::TemplatesList, "resources/templates/list"),
    (Method::ResourcesRead, "resources/read"),
    (Method::Subscribe, "resources/subscribe"),
    (Method::Unsubscribe, "resources/unsubscribe"),
    (Method::Listen, "subscriptions/listen"),
    (Method::Complete, "completion/complete"),
    (Method::TasksGet, "tasks/get"),
    (Method::TasksUpdate, "tasks/update"),
    (Method::TasksCancel, "tasks/cancel"),
    (Method::SetLevel, "logging/setLevel"),
    (Method::CreateMessage, "sampling/createMessage"),
    (Method::RootsList, "roots/list"),
    (Method::Elicit, "elicitation/create"),
    (Method::Cancelled, "notifications/cancelled"),
    (Method::ToolsChanged, "notifications/tools/list_changed"),
    (Method::PromptsChanged, "notifications/prompts/list_changed"),
    (
        Method::ResourcesChanged,
        "notifications/resources/list_changed",
    ),
    (Method::ResourceUpdated, "notifications/resources/updated"),
    (
        Method::Acknowledged,
        "notifications/subscriptions/acknowledged",
    ),
    (Method::TaskStands, "notifications/tasks"),
];

impl Method {
    /// The method called `name`.
    pub fn of(name: &str) -> Self {
        NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map_or(Self::Other, |(method, _)| *method)
    }

    /// Every method that has a name here, and [`Method::Other`].
    pub fn all() -> impl Iterator<Item = Self> {
        let named = NAMES.iter().map(|(method, _)| *method);
        named.chain([Self::Other])
    }

    /// The name on the wire; `other` for [`Method::Other`], whose name only the message knows.
    pub fn as_str(self) -> &'static str {
        NAMES
            .iter()
            .find(|(method, _)| *method == self)
            .map_or("other", |(_, name)| name)
    }

    /// Whether a server may ask its client something before it answers (MCP 2026-07-28, Patterns,
    /// "Multi Round-Trip Requests").
    pub const fn may_ask(self) -> bool {
        matches!(
            self,
            Self::ToolsCall | Self::PromptsGet | Self::ResourcesRead
        )
    }

    /// Whether the method exists only in the legacy era: a modern request for it is an unknown
    /// method (MCP 2026-07-28, key changes).
    pub const fn is_legacy_only(self) -> bool {
        matches!(
            self,
            Self::Initialize
                | Self::Ping
                | Self::Subscribe
                | Self::Unsubscribe
                | Self::SetLevel
                | Self::Initialized
        )
    }

    /// Whether it asks about work that goes on after its call was answered (SEP-2663).
    pub const fn is_about_task(self) -> bool {
        matches!(self, Self::TasksGet | Self::TasksUpdate | Self::TasksCancel)
    }

    /// The member of `params` that says which tool, prompt, resource or task is meant, where one does.
    pub const fn addressed_by(self) -> Option<&'static str> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some("name"),
            Self::ResourcesRead | Self::Subscribe | Self::Unsubscribe => Some("uri"),
            Self::TasksGet | Self::TasksUpdate | Self::TasksCancel => Some("taskId"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_its_method() {
        for (method, name) in NAMES {
            assert_eq!(Method::of(name), *method);
            assert_eq!(method.as_str(), *name);
        }
        assert_eq!(Method::of("tools/Call"), Method::Other);
    }
}
