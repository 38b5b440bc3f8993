//! Who somebody is, and why something is allowed or not: the same decision that every door asks for,
//! with its reason.

use serde_json::{Value, value::RawValue};
use vaxel_core::{
    access::{Asked, Reason, Verdict, anywhere, decide, decide_on, require},
    failure::{Failure, Issue, Kind},
    fields::Fields,
    id::{Id, Service},
    policy::PolicyResource,
    principal::{Permission, Principal, Proof},
    quota::Level,
    rights::Limits,
    role::Reach,
    user::UserResource,
};
use vaxel_store::KeyRow;

use crate::{
    change::{KeyRef, ServiceRef},
    control::Control,
    grant::GrantEntry,
    role::RoleEntry,
    service::query::target,
};

/// What a change of who may do what answers.
#[derive(Debug)]
pub enum AccessEntry {
    /// The user as it is after the change.
    User(UserResource),
    /// The role as it is after the change.
    Role(RoleEntry),
    /// The grant that was made.
    Grant(GrantEntry),
    /// The policy as it is after the change.
    Policy(PolicyResource),
}

/// Who a caller is.
#[derive(Debug, Clone)]
pub struct Whoami {
    /// The user's name; of nobody's credential, what Vaxel calls such callers.
    pub name: String,
    /// The user, when the credential is one's.
    pub user: Option<UserResource>,
    /// The key, when one was shown.
    pub key: Option<KeyRow>,
    /// What the roles allow, as far as the credential lets it through.
    pub permissions: Reach,
    /// What the credential is limited to.
    pub limits: Option<Limits>,
    /// How much it may take, and what is left of that.
    pub levels: Vec<Level>,
}

/// A question about access.
#[derive(Debug, Clone)]
pub struct AccessQuery {
    /// Who; `None`: whoever asks.
    pub who: Option<Subject>,
    /// May do what.
    pub permission: Permission,
    /// With which service, by name or id.
    pub service: Option<String>,
    /// With which of its tools, by the service's own name for it.
    pub tool: Option<String>,
    /// With which arguments.
    pub arguments: Option<Box<RawValue>>,
}

/// Whom a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A user, by name.
    User(String),
    /// A key, by name or id: its user, within its limits.
    Key(String),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Yes or no.
    pub allowed: bool,
    /// Why, as a sentence.
    pub because: String,
    /// What kind of thing decided: `role`, `own`, `grant`, `policy`, `credential`, `unlimited`,
    /// `disabled` or `nothing`.
    pub by: &'static str,
    /// The name of the role or policy.
    pub name: Option<String>,
    /// How much of it, where it is allowed, and what is left of that: of the caller, of the service and of
    /// the tool.
    pub levels: Vec<Level>,
}

impl AccessQuery {
    /// Reads `{ user? | key?, permission, service?, tool?, arguments? }`. `Err` holds every problem with
    /// its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let query = Fields::read(value, "", &mut issues, read_query).flatten();
        match query {
            Some(query) if issues.is_empty() => Ok(query),
            _ => Err(issues),
        }
    }
}

fn read_query(fields: &mut Fields<'_>) -> Option<AccessQuery> {
    let user = fields.string("user");
    let key = fields.string("key");
    if user.is_some() && key.is_some() {
        fields.issue("key", "give either user or key");
    }
    if !fields.has("permission") {
        fields.issue("permission", "is missing, such as mcp:execute");
    }
    let permission = fields.parsed("permission");
    let service = fields.string("service");
    let tool = fields.string("tool");
    if tool.is_some() && service.is_none() {
        fields.issue("tool", "is one of a service: name that, too");
    }
    let arguments = fields.value("arguments");
    if arguments.is_some() && tool.is_none() {
        fields.issue("arguments", "are those of a tool: name that, too");
    }
    let arguments = arguments.and_then(|value| serde_json::value::to_raw_value(value).ok());
    Some(AccessQuery {
        who: user.map(Subject::User).or(key.map(Subject::Key)),
        permission: permission?,
        service,
        tool,
        arguments,
    })
}

impl Control {
    /// Who the caller is, and what it may do.
    pub async fn whoami(&self, caller: &Principal) -> Result<Whoami, Failure> {
        let user = caller.rights.user();
        let user = user.and_then(|name| self.inner.people.find(name.as_str()));
        let key = match caller.key() {
            Some(id) => self.find_key(&KeyRef::Id(id)).await?,
            None => None,
        };
        Ok(Whoami {
            name: caller.name.to_string(),
            user: user.map(|person| person.user),
            key,
            permissions: Reach {
                everywhere: caller.permissions,
                own: caller.rights.reach().own.intersection(caller.ceiling()),
            },
            limits: caller.limits.as_deref().cloned(),
            levels: self.inner.context.gateway.levels(caller, None, None),
        })
    }

    /// Whether somebody may do something, and why. `access:read`; nothing for oneself.
    pub async fn explain(
        &self,
        caller: &Principal,
        query: AccessQuery,
    ) -> Result<Explanation, Failure> {
        let (who, refused) = self.subject(caller, query.who.as_ref()).await?;
        if let Some(because) = refused {
            return Ok(Explanation {
                allowed: false,
                because,
                by: "disabled",
                name: None,
                levels: Vec::new(),
            });
        }
        let permission = query.permission;
        let Some(service) = &query.service else {
            let verdict = decide(&who, permission);
            if !verdict.allowed && anywhere(&who).contains(permission) {
                let mut partly = Explanation::of(&verdict);
                partly.because = format!(
                    "`{}` has `{permission}` for some services only: name one",
                    who.name
                );
                return Ok(partly);
            }
            return Ok(self.with_levels(Explanation::of(&verdict), &who, (None, None)));
        };
        let reference: ServiceRef = service.parse()?;
        let service = self.find(&reference).await?;
        let on = target(&service);
        // Who asks must not learn here of what it cannot see.
        let seen = decide_on(&self.asked(caller, Permission::McpRead, &on)).allowed;
        if !seen && !caller.permissions.contains(Permission::AccessRead) {
            return Err(reference.unknown());
        }
        let verdict = decide_on(&Asked {
            tool: query.tool.as_deref(),
            arguments: query.arguments.as_deref(),
            ..self.asked(&who, permission, &on)
        });
        let on = (Some(service.id), query.tool.as_deref());
        Ok(self.with_levels(Explanation::of(&verdict), &who, on))
    }

    /// What is allowed, with how much of it.
    fn with_levels(
        &self,
        mut explanation: Explanation,
        who: &Principal,
        (service, tool): (Option<Id<Service>>, Option<&str>),
    ) -> Explanation {
        if explanation.allowed {
            let gateway = &self.inner.context.gateway;
            explanation.levels = gateway.levels(who, service, tool);
        }
        explanation
    }

    /// Whom a question is about, and why nothing of that one counts at all.
    async fn subject(
        &self,
        caller: &Principal,
        who: Option<&Subject>,
    ) -> Result<(Principal, Option<String>), Failure> {
        let is_self = |name: &str| caller.rights.user().is_some_and(|own| own.as_str() == name);
        let (name, key) = match who {
            None => return Ok((caller.clone(), None)),
            Some(Subject::User(name)) => (name.clone(), None),
            Some(Subject::Key(key)) => {
                let found = self.find_key(&KeyRef::from(key.as_str())).await?;
                let visible = found.filter(|row| {
                    is_self(row.user.as_str())
                        || caller.permissions.contains(Permission::AccessRead)
                });
                let Some(row) = visible else {
                    require(caller, Permission::AccessRead)?;
                    let detail = "There is no such key; `vaxel key ls` lists them";
                    return Err(Failure::new(Kind::NotFound, detail));
                };
                (row.user.to_string(), Some(row))
            }
        };
        if !is_self(&name) {
            require(caller, Permission::AccessRead)?;
        }
        let person = self.inner.people.find(&name).ok_or_else(|| {
            let name: String = name.chars().take(100).collect();
            let detail =
                format!("There is no user called `{name}`; `vaxel user ls` shows which there are");
            Failure::new(Kind::NotFound, detail)
        })?;
        let refused = match &key {
            _ if !person.is_enabled() => Some(format!("the user `{name}` is disabled")),
            Some(row) if !row.is_live(self.now()) => {
                Some(format!("the key `{}` is revoked or has expired", row.name))
            }
            _ => None,
        };
        let proof = match &key {
            Some(row) => Proof::Key(row.id),
            None => Proof::User(person.user.id),
        };
        let limits = key.as_ref().map(|row| crate::key::limits(row).into());
        let who = (proof, person.user.name.as_str().into());
        Ok((Principal::of_user(who, person.rights, limits), refused))
    }
}

impl Explanation {
    fn of(verdict: &Verdict) -> Self {
        let (by, name) = match &verdict.because {
            Reason::Unlimited => ("unlimited", None),
            Reason::CredentialLacks(_) | Reason::CredentialElsewhere => ("credential", None),
            Reason::Role(role) => ("role", Some(role.to_string())),
            Reason::Own(role) => ("own", Some(role.to_string())),
            Reason::Granted => ("grant", None),
            Reason::Policy(policy) | Reason::Undecided(policy, _) => {
                ("policy", Some(policy.name.to_string()))
            }
            Reason::Nothing(_) => ("nothing", None),
        };
        Self {
            allowed: verdict.allowed,
            because: verdict.because.to_string(),
            by,
            name,
            levels: Vec::new(),
        }
    }
}
