//! What can be asked of [`crate::Control::submit`], and what it answers.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use serde_json::Value;
use vaxel_core::{
    failure::{Failure, Issue, Kind},
    fields::Fields,
    id::{Id, Key, Service, SignIn, Toolset},
    name::{ServiceName, ToolsetName, UserName},
    principal::{Permission, Permissions},
    quantity::Span,
    role::BuiltIn,
    secret::Secret,
    service::ServiceDraft,
    template::{DerivedDraft, Template},
    toolset::ToolsetDraft,
};

use crate::{
    access::AccessEntry, grant::GrantChange, key::can_be_named, password::PasswordChange,
    policy::PolicyChange, query::Observed, revision::RevisionRef, role::RoleChange,
    root_key::RootKeyReport, toolset::ObservedToolset, upstream_oauth::Leaving, user::UserChange,
};

/// One change. Each is authorized, validated, written and audited whole, or refused whole.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new service. `mcp:write`.
    CreateService(Box<ServiceDraft>),
    /// A new service from a template. `mcp:write`.
    CreateDerived(Box<DerivedDraft>),
    /// Another desired state for a service. `mcp:write`.
    UpdateService {
        /// Which.
        service: ServiceRef,
        /// The whole new state.
        draft: Box<ServiceDraft>,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// Another desired state for a service, from a template. `mcp:write`.
    UpdateDerived {
        /// Which.
        service: ServiceRef,
        /// The whole new state.
        draft: Box<DerivedDraft>,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// The template that a service was made from is rendered again, as it is now. `mcp:write`.
    RefreshService {
        /// Which.
        service: ServiceRef,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// A new template. `mcp:manage`; `host:execute` to approve it.
    CreateTemplate(Box<Template>),
    /// Another text for a template. `mcp:manage`; `host:execute` when it is approved.
    UpdateTemplate {
        /// Which.
        name: String,
        /// The whole new text.
        template: Box<Template>,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// The template is gone; services that were made from it stay as they are. `mcp:manage`.
    DeleteTemplate {
        /// Which.
        name: String,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// Into the archive; [`Change::RestoreService`] brings it back. `mcp:manage`.
    DeleteService {
        /// Which.
        service: ServiceRef,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// Back from the archive. `mcp:manage`.
    RestoreService(ServiceRef),
    /// It should run. `mcp:manage`.
    StartService(ServiceRef),
    /// It should not run. `mcp:manage`.
    StopService(ServiceRef),
    /// Its instances end and are started again. `mcp:manage`.
    RestartService(ServiceRef),
    /// What it offers is accepted as it is now. `mcp:manage`.
    AcceptDefinitions(ServiceRef),
    /// What the service gave its caller, when the caller logged in there, is forgotten. `mcp:execute`.
    ForgetAuthorization(ServiceRef),
    /// The caller has logged in at a service, and comes back from there. `mcp:execute`.
    FinishAuthorization(Leaving),
    /// Out of the archive, for good: with its revisions and sealed values. `mcp:manage`.
    PurgeService(ServiceRef),
    /// A service as it was in an earlier revision, as a new one. `mcp:write`, and whatever else an
    /// update to it would need.
    RollBackService {
        /// Which.
        service: ServiceRef,
        /// To which revision.
        to: RevisionRef,
    },
    /// A name for a revision; another revision of the service loses it. `mcp:write`.
    LabelRevision {
        /// Of which service.
        service: ServiceRef,
        /// Begins with a letter and holds a-z, 0-9, `-`, `_` and `.`, at most 64 characters.
        label: String,
        /// Which.
        revision: RevisionRef,
    },
    /// The label belongs to no revision any more. `mcp:write`.
    UnlabelRevision {
        /// Of which service.
        service: ServiceRef,
        /// Which label.
        label: String,
    },
    /// A new set. `mcp:manage`.
    CreateToolset(ToolsetDraft),
    /// Another state for a set. `mcp:manage`.
    UpdateToolset {
        /// Which.
        toolset: ToolsetRef,
        /// The whole new state.
        draft: ToolsetDraft,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// The set is gone from now on; there is no archive of sets. `mcp:manage`.
    DeleteToolset {
        /// Which.
        toolset: ToolsetRef,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// Something about users.
    User(UserChange),
    /// Something about roles.
    Role(RoleChange),
    /// Something about grants.
    Grant(GrantChange),
    /// Something about policies.
    Policy(PolicyChange),
    /// Another password: of one's own by who knows the one before, of others `users:manage`.
    SetPassword(PasswordChange),
    /// A sign-in ends at once. `users:manage`, except of one's own.
    EndSignIn(Id<SignIn>),
    /// A client that registered itself is removed, and its sign-ins end. `users:manage`.
    RemoveClient(String),
    /// A new API key. `keys:manage`, or `keys:manage:own` for oneself; never with more permissions than
    /// the caller has.
    CreateKey(KeyDraft),
    /// Another secret for a key; both work for a while. As [`Change::RevokeKey`], and as
    /// [`Change::CreateKey`] for one with the same limits.
    RotateKey(KeyRef, KeyRotation),
    /// The key is worthless from now on. `keys:manage`, or `keys:manage:own` for one's own.
    RevokeKey(KeyRef),
    /// The next key signs tokens from now on. `system:manage` and `keys:manage`.
    RotateSigningKeys,
    /// Another root key takes the place of the one there is: a new one, or this text where the key is given by the
    /// environment or a command. `system:manage` and `keys:manage`.
    ReplaceRootKey(Option<Secret<String>>),
    /// The server ends. `system:manage`.
    Shutdown,
}

/// On what terms a change is made: see [`crate::Control::on`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Refuse when the current version of the service is another one.
    pub expected: Option<u64>,
    /// Why, for whoever reads the history: at most 500 characters.
    pub message: Option<String>,
}

impl Terms {
    const MESSAGE_MAX: usize = 500;

    /// The message must be a text that can be shown.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let text = self.message.as_deref().unwrap_or_default();
        let controls = |letter: char| letter.is_control() && letter != '\n';
        if text.chars().count() > Self::MESSAGE_MAX || text.contains(controls) {
            let message = "must have at most 500 characters and no control characters";
            let issues = vec![Issue::new("message", message)];
            return Err(Failure::invalid("The change", issues));
        }
        Ok(())
    }

    /// A version that was asked for is compared with one, or the change is refused.
    pub(crate) fn fit(&self, change: &Change) -> Result<(), Failure> {
        let what = match change {
            Change::CreateService(_)
            | Change::CreateDerived(_)
            | Change::CreateTemplate(_)
            | Change::CreateToolset(_)
            | Change::User(UserChange::Create(_))
            | Change::Role(RoleChange::Create(_))
            | Change::Policy(PolicyChange::Create(_)) => "What is made here is new",
            Change::Grant(_) => "A grant does not change",
            Change::CreateKey(_) | Change::RotateKey(..) | Change::RevokeKey(_) => {
                "Keys do not change"
            }
            Change::SetPassword(_) => "A password is replaced whatever it was",
            Change::ForgetAuthorization(_) | Change::FinishAuthorization(_) => {
                "A log-in is replaced or forgotten whatever it was"
            }
            Change::EndSignIn(_) => "A sign-in does not change",
            Change::RemoveClient(_) => "A client does not change",
            Change::RotateSigningKeys => "Keys that sign follow each other whatever they were",
            Change::ReplaceRootKey(_) => "The root key is replaced whatever it was",
            Change::Shutdown => "A server does not change",
            _ => return Ok(()),
        };
        self.has_no_version(what)
    }

    /// What is changed has none that could be asked for; `what` begins the sentence that says so.
    pub(crate) fn has_no_version(&self, what: &str) -> Result<(), Failure> {
        match self.expected {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                Kind::VersionMismatch,
                format!("{what} and has no version: leave out `If-Match`"),
            )),
        }
    }
}

/// What [`crate::Control::submit`] answers.
#[derive(Debug)]
pub enum Outcome {
    /// The service as it is after the change.
    Service(Box<Observed>),
    /// The set as it is after the change.
    Toolset(Box<ObservedToolset>),
    /// The new key, with its text: shown here and never again.
    Key(Box<crate::key::NewKey>),
    /// The template as it is after the change.
    Template(Box<crate::template::TemplateEntry>),
    /// The user, role, grant or policy as it is after the change.
    Access(Box<AccessEntry>),
    /// How replacing the root key stands.
    RootKey(Box<RootKeyReport>),
    /// Nothing more to say.
    Done,
}

impl Change {
    /// A new service from JSON that a person wrote, with or without a template. `Err` names every
    /// problem.
    pub fn create(body: &Value) -> Result<Self, Failure> {
        if DerivedDraft::is_one(body) {
            let draft = derived(body)?;
            return Ok(Self::CreateDerived(Box::new(draft)));
        }
        let draft = ServiceDraft::from_json(body).map_err(invalid)?;
        Ok(Self::CreateService(Box::new(draft)))
    }

    /// The same for the desired state of a service that is there.
    pub fn update(
        service: ServiceRef,
        body: &Value,
        expected: Option<u64>,
    ) -> Result<Self, Failure> {
        if DerivedDraft::is_one(body) {
            let draft = Box::new(derived(body)?);
            return Ok(Self::UpdateDerived {
                service,
                draft,
                expected,
            });
        }
        let draft = Box::new(ServiceDraft::from_json(body).map_err(invalid)?);
        Ok(Self::UpdateService {
            service,
            draft,
            expected,
        })
    }
}

fn derived(body: &Value) -> Result<DerivedDraft, Failure> {
    DerivedDraft::from_json(body).map_err(invalid)
}

fn invalid(issues: Vec<Issue>) -> Failure {
    Failure::invalid("The service", issues)
}

impl Outcome {
    /// The service of a change that has one.
    pub fn into_service(self) -> Result<Observed, Failure> {
        match self {
            Self::Service(observed) => Ok(*observed),
            other => Err(other.lacks("service")),
        }
    }

    /// The set of a change that has one.
    pub fn into_toolset(self) -> Result<ObservedToolset, Failure> {
        match self {
            Self::Toolset(observed) => Ok(*observed),
            other => Err(other.lacks("set")),
        }
    }

    /// The key of a change that made one.
    pub fn into_key(self) -> Result<crate::key::NewKey, Failure> {
        match self {
            Self::Key(key) => Ok(*key),
            other => Err(other.lacks("key")),
        }
    }

    /// The template of a change that wrote one.
    pub fn into_template(self) -> Result<crate::template::TemplateEntry, Failure> {
        match self {
            Self::Template(template) => Ok(*template),
            other => Err(other.lacks("template")),
        }
    }

    /// What a change of users, roles, grants or policies wrote.
    pub fn into_access(self) -> Result<AccessEntry, Failure> {
        match self {
            Self::Access(entry) => Ok(*entry),
            other => Err(other.lacks("access")),
        }
    }

    /// How replacing the root key stands.
    pub fn into_root_key(self) -> Result<RootKeyReport, Failure> {
        match self {
            Self::RootKey(report) => Ok(*report),
            other => Err(other.lacks("root key")),
        }
    }

    fn lacks(&self, wanted: &str) -> Failure {
        let what = match self {
            Self::Service(_) => "a service",
            Self::Toolset(_) => "a set",
            Self::Key(_) => "a key",
            Self::Template(_) => "a template",
            Self::Access(_) => "somebody's access",
            Self::RootKey(_) => "the root key",
            Self::Done => "nothing",
        };
        Failure::internal(format!("the change answers {what} and no {wanted}"))
    }
}

/// A service by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceRef {
    /// By id.
    Id(Id<Service>),
    /// By name, among the services that are not deleted.
    Name(ServiceName),
}

impl ServiceRef {
    /// Length of a hyphenated UUID; shorter texts are names, even when they are 32 hex digits.
    const ID_LENGTH: usize = 36;

    /// The failure that says that there is none.
    pub(crate) fn unknown(&self) -> Failure {
        let named = match self {
            Self::Id(id) => format!("There is no service with the id `{id}`"),
            Self::Name(name) => format!("There is no service called `{name}`"),
        };
        Failure::new(
            Kind::UnknownService,
            format!("{named}; `vaxel ls` shows which there are"),
        )
    }
}

impl FromStr for ServiceRef {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let id = (text.len() == Self::ID_LENGTH)
            .then(|| text.parse().ok())
            .flatten();
        if let Some(id) = id {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|error| {
            Failure::new(
                Kind::UnknownService,
                format!("There is no such service: {error}"),
            )
        })
    }
}

/// A set by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolsetRef {
    /// By id.
    Id(Id<Toolset>),
    /// By name.
    Name(ToolsetName),
}

impl ToolsetRef {
    /// The failure that says that there is none.
    pub(crate) fn unknown(&self) -> Failure {
        let named = match self {
            Self::Id(id) => format!("There is no set with the id `{id}`"),
            Self::Name(name) => format!("There is no set called `{name}`"),
        };
        Failure::new(
            Kind::UnknownToolset,
            format!("{named}; `vaxel set ls` shows which there are"),
        )
    }
}

impl FromStr for ToolsetRef {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        // Ids are longer than names can be.
        if let Ok(id) = text.parse()
            && text.len() == ServiceRef::ID_LENGTH
        {
            return Ok(Self::Id(id));
        }
        text.parse().map(Self::Name).map_err(|error| {
            Failure::new(
                Kind::UnknownToolset,
                format!("There is no such set: {error}"),
            )
        })
    }
}

/// A key by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// By id.
    Id(Id<Key>),
    /// By name, among the keys that are not revoked.
    Name(String),
}

impl From<&str> for KeyRef {
    fn from(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }
}

/// What someone sends to create a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyDraft {
    /// For people: what or who uses it. 1 to 64 characters.
    pub name: String,
    /// Whose it is; `None`: that of whoever asks.
    pub user: Option<UserName>,
    /// What it may do, as far as its user may.
    pub permissions: Permissions,
    /// With services of such names (patterns) only.
    pub services: Option<Vec<String>>,
    /// With services in these environments only.
    pub environments: Option<BTreeSet<String>>,
    /// After which time it stops working; `None`: never.
    pub expires_in: Option<Span>,
    /// It gets another secret by itself, so long after the one before, which is written into a file.
    pub rotate_every: Option<Span>,
}

/// How a key gets another secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyRotation {
    /// How long the secret before works, too; `None`: a day, or half of what the key rotates by.
    pub overlap: Option<Span>,
    /// After which time the key stops working; `None`: when it would have.
    pub expires_in: Option<Span>,
}

impl KeyRotation {
    /// Longest overlap.
    const OVERLAP_MAX: Duration = Duration::from_hours(90 * 24);

    /// Reads `{ overlap?, expires_in? }`. `Err` holds every problem with its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let read = Fields::read(value, "", &mut issues, |fields| {
            let rotation = Self {
                overlap: fields.parsed("overlap"),
                expires_in: expiry(fields),
            };
            if rotation
                .overlap
                .is_some_and(|span| span.0 > Self::OVERLAP_MAX)
            {
                fields.issue("overlap", "must be at most 90d");
            }
            rotation
        });
        match read {
            Some(rotation) if issues.is_empty() => Ok(rotation),
            _ => Err(issues),
        }
    }
}

impl KeyDraft {
    /// Most services or environments that a key names.
    const ENTRIES_MAX: usize = 1_000;
    /// Longest of their names and patterns, bytes.
    const ENTRY_MAX: usize = 256;
    /// Shortest time between two secrets of a key.
    const ROTATE_LEAST: Duration = Duration::from_hours(1);

    /// Reads `{ name, user?, role? | permissions?, services?, environments?, expires_in?, rotate_every? }`; without
    /// role and permissions the key is a client's. `Err` holds every problem with its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let draft = Fields::read(value, "", &mut issues, read_key).flatten();
        match draft {
            Some(draft) if issues.is_empty() => Ok(draft),
            _ => Err(issues),
        }
    }
}

fn read_key(fields: &mut Fields<'_>) -> Option<KeyDraft> {
    let name = fields.required_string("name");
    let printable = |name: &String| name.chars().count() <= 64 && !name.contains(char::is_control);
    if name.as_ref().is_some_and(|name| !printable(name)) {
        fields.issue(
            "name",
            "must have 1 to 64 characters and no control characters",
        );
    }
    if fields.has("role") && fields.has("permissions") {
        fields.issue("permissions", "give either role or permissions");
    }
    let role: Option<BuiltIn> = fields.parsed("role");
    let listed = fields.strings("permissions").map(|names| {
        let mut chosen = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            match name.parse::<Permission>() {
                Ok(permission) => _ = chosen.insert(permission.as_str()),
                Err(error) => fields.issue(&format!("permissions[{index}]"), error.to_string()),
            }
        }
        chosen
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect::<Permissions>()
    });
    if listed == Some(Permissions::NONE) {
        fields.issue("permissions", "must name at least one permission");
    }
    let user = fields.parsed("user");
    let services = entries(fields, "services");
    let environments = entries(fields, "environments");
    let expires_in = expiry(fields);
    let rotate_every: Option<Span> = fields.parsed("rotate_every");
    if rotate_every.is_some_and(|span| span.0 < KeyDraft::ROTATE_LEAST) {
        fields.issue("rotate_every", "must be at least 1h");
    }
    if rotate_every.is_some() && name.as_deref().is_some_and(|name| !can_be_named(name)) {
        let message = "must be made of letters, digits, `.`, `_`, `-` and `@` and not begin with a dot when the \
                       key is rotated by itself: its file has that name";
        fields.issue("name", message);
    }
    Some(KeyDraft {
        name: name?,
        user,
        permissions: listed.unwrap_or_else(|| role.unwrap_or(BuiltIn::Client).permissions()),
        services,
        environments: environments.map(BTreeSet::from_iter),
        expires_in,
        rotate_every,
    })
}

fn expiry(fields: &mut Fields<'_>) -> Option<Span> {
    let expires_in: Option<Span> = fields.parsed("expires_in");
    if expires_in.is_some_and(|span| span.0.is_zero()) {
        fields.issue("expires_in", "must be longer than nothing");
    }
    expires_in
}

/// What a key is limited to: texts that are neither empty nor endless.
fn entries(fields: &mut Fields<'_>, key: &'static str) -> Option<Vec<String>> {
    let texts = fields.strings(key)?;
    if texts.is_empty() || texts.len() > KeyDraft::ENTRIES_MAX {
        fields.issue(key, format!("must be 1 to {}", KeyDraft::ENTRIES_MAX));
    }
    for (index, text) in texts.iter().enumerate() {
        if !(1..=KeyDraft::ENTRY_MAX).contains(&text.len()) || text.contains(char::is_control) {
            let message = format!(
                "must have 1 to {} bytes and no control characters",
                KeyDraft::ENTRY_MAX
            );
            fields.issue(&format!("{key}[{index}]"), message);
        }
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_problem_of_a_key_is_named() {
        let value = json!({"role": "king", "permissions": ["mcp:read", "x"], "expires_in": "soon"});
        let issues = KeyDraft::from_json(&value).unwrap_err();
        let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "name",
                "permissions",
                "role",
                "permissions[1]",
                "expires_in"
            ]
        );
    }

    #[test]
    fn a_key_is_a_clients_unless_said_otherwise() {
        let draft = KeyDraft::from_json(&json!({"name": "claude"})).unwrap();
        assert_eq!(draft.permissions, BuiltIn::Client.permissions());
        let draft =
            KeyDraft::from_json(&json!({"name": "x", "permissions": ["mcp:read"]})).unwrap();
        assert_eq!(draft.permissions, Permissions::of(&[Permission::McpRead]));
    }

    #[test]
    fn thirty_two_hex_digits_are_a_name_not_an_id() {
        let text = "0123456789abcdef0123456789abcdef";
        assert!(matches!(text.parse(), Ok(ServiceRef::Name(_))));
        assert!("Not A Name".parse::<ServiceRef>().is_err());
    }
}
