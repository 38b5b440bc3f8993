//! The decision: may this principal do that? One rule book, so that every door asks the same question and
//! every answer can be explained.
//!
//! In this order: what the credential is limited to, what a policy denies, what a role allows (everywhere,
//! or of one's own), what is granted, what a policy allows. Everything else is denied.

use std::{fmt, sync::Arc};

use serde_json::value::RawValue;

use crate::{
    failure::{Failure, Kind},
    id::{Id, Service},
    name::RoleName,
    policy::{Effect, Facts, PolicyDraft},
    principal::{Permission, Permissions, Principal},
    service::matches,
    time::Timestamp,
};

/// What a question is about: a service.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Which.
    pub id: Id<Service>,
    /// Its name.
    pub name: &'a str,
    /// Name of the user whose it is.
    pub owner: &'a str,
    /// Where it belongs.
    pub environment: &'a str,
    /// How it is marked.
    pub tags: &'a [String],
}

/// A whole question.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who asks.
    pub who: &'a Principal,
    /// For what.
    pub permission: Permission,
    /// Of which service.
    pub on: &'a Target<'a>,
    /// Of which tool, by the service's own name for it; `None`: of the service itself, or of something that
    /// is no tool.
    pub tool: Option<&'a str>,
    /// With which arguments.
    pub arguments: Option<&'a RawValue>,
    /// When.
    pub now: Timestamp,
}

/// The answer, and why.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Yes or no.
    pub allowed: bool,
    /// What decided.
    pub because: Reason,
}

/// What decided a question.
#[derive(Debug, Clone)]
pub enum Reason {
    /// Vaxel itself asks, or authentication is switched off.
    Unlimited,
    /// The credential is limited to other permissions.
    CredentialLacks(Permission),
    /// The credential is limited to other services or environments.
    CredentialElsewhere,
    /// A role allows it everywhere.
    Role(RoleName),
    /// A role allows it of what is one's own, and it is.
    Own(RoleName),
    /// It was granted.
    Granted,
    /// A policy says so.
    Policy(Arc<PolicyDraft>),
    /// A policy that denies has a condition that cannot be decided.
    Undecided(Arc<PolicyDraft>, String),
    /// Nothing allows it.
    Nothing(Permission),
}

/// What a principal's rights come to on one service: made once for both, and then asked for each call.
#[derive(Debug, Clone)]
pub struct Local {
    /// What roles and grants allow.
    held: Permissions,
    /// The policies that are about this service.
    policies: Vec<Arc<PolicyDraft>>,
    /// The credential may be used for it.
    is_within: bool,
}

/// Whether `who` may do what is about no service.
pub fn decide(who: &Principal, permission: Permission) -> Verdict {
    if who.permissions.contains(permission) {
        return Verdict::allow(role_for(who, permission));
    }
    if !who.ceiling().contains(permission) {
        return Verdict::deny(Reason::CredentialLacks(permission));
    }
    Verdict::deny(Reason::Nothing(permission))
}

/// [`decide`] as a gate: the failure says who lacks which permission.
///
/// # Errors
/// [`Kind::NotPermitted`].
pub fn require(who: &Principal, permission: Permission) -> Result<(), Failure> {
    if who.permissions.contains(permission) {
        return Ok(());
    }
    Err(refusal(who, permission, &decide(who, permission).because))
}

/// Whether there can be anything of which `who` may do this: for lists, which then hold what that is.
///
/// # Errors
/// [`Kind::NotPermitted`].
pub fn require_anywhere(who: &Principal, permission: Permission) -> Result<(), Failure> {
    if who.permissions.contains(permission) || anywhere(who).contains(permission) {
        return Ok(());
    }
    Err(refusal(who, permission, &decide(who, permission).because))
}

/// What `who` may do of anything at all.
pub fn anywhere(who: &Principal) -> Permissions {
    let rights = &who.rights;
    if rights.user().is_none() {
        return who.permissions;
    }
    let allowing = rights
        .policies()
        .iter()
        .filter(|policy| policy.effect == Effect::Allow);
    let allowed = allowing.map(|policy| policy.permissions);
    let held = rights.reach().any().union(rights.granted_anywhere());
    let held = allowed.fold(held, Permissions::union);
    who.permissions.union(held.intersection(who.ceiling()))
}

/// Whether the question is answered with yes, and why.
pub fn decide_on(asked: &Asked<'_>) -> Verdict {
    Local::of(asked.who, asked.on).decide(asked)
}

/// [`decide_on`] as a gate. Who may not even see the service is told that there is none.
///
/// # Errors
/// [`Kind::UnknownService`] or [`Kind::NotPermitted`].
pub fn require_on(asked: &Asked<'_>) -> Result<(), Failure> {
    let local = Local::of(asked.who, asked.on);
    let verdict = local.decide(asked);
    if verdict.allowed {
        return Ok(());
    }
    let seen = Asked {
        permission: Permission::McpRead,
        tool: None,
        ..*asked
    };
    if asked.permission != Permission::McpRead && local.decide(&seen).allowed {
        return Err(refusal(asked.who, asked.permission, &verdict.because));
    }
    // Who lacks it altogether learns nothing from hearing so.
    require_anywhere(asked.who, asked.permission)?;
    let detail = format!(
        "There is no service called `{}`; `vaxel ls` shows which there are",
        asked.on.name
    );
    Err(Failure::new(Kind::UnknownService, detail).hiding())
}

impl Local {
    /// What `who` may do with this service.
    pub fn of(who: &Principal, target: &Target<'_>) -> Self {
        let rights = &who.rights;
        let is_owner = rights
            .user()
            .is_some_and(|user| user.as_str() == target.owner);
        let own = if is_owner {
            rights.reach().own
        } else {
            Permissions::NONE
        };
        let held = own
            .union(rights.granted(target.id))
            .intersection(who.ceiling());
        let policies = rights.policies().iter();
        let limits = who.limits.as_deref();
        let is_within = limits.is_none_or(|limits| {
            let environments = limits.environments.as_ref();
            fits(limits.services.as_deref(), target.name)
                && environments.is_none_or(|known| known.contains(target.environment))
        });
        Self {
            held: who.permissions.union(held),
            policies: policies
                .filter(|policy| is_about(policy, target))
                .cloned()
                .collect(),
            is_within,
        }
    }

    /// The same for one tool: what is asked again and again need not go through the policies for others.
    #[must_use]
    pub fn for_tool(&self, tool: &str) -> Self {
        let policies = self
            .policies
            .iter()
            .filter(|policy| !policy.spares(Some(tool)));
        Self {
            policies: policies.cloned().collect(),
            ..*self
        }
    }

    /// Whether the answer depends on nothing but the permission: no policy is about this service.
    pub fn is_simple(&self) -> bool {
        self.policies.is_empty()
    }

    /// Whether the question is answered with yes, and why.
    pub fn decide(&self, asked: &Asked<'_>) -> Verdict {
        let permission = asked.permission;
        if !asked.who.ceiling().contains(permission) {
            return Verdict::deny(Reason::CredentialLacks(permission));
        }
        if !self.is_within {
            return Verdict::deny(Reason::CredentialElsewhere);
        }
        let mut facts = Facts::of(asked);
        for policy in self.fitting(asked, Effect::Deny) {
            match policy.when.as_ref().map(|when| when.holds(&mut facts)) {
                Some(Ok(false)) => {}
                Some(Err(why)) => return Verdict::deny(Reason::Undecided(Arc::clone(policy), why)),
                None | Some(Ok(true)) => return Verdict::deny(Reason::Policy(Arc::clone(policy))),
            }
        }
        if self.held.contains(permission) {
            return Verdict::allow(why_held(asked));
        }
        let holds = |policy: &&Arc<PolicyDraft>| {
            let holds = policy.when.as_ref().map(|when| when.holds(&mut facts));
            holds.is_none_or(|holds| holds == Ok(true))
        };
        match self.fitting(asked, Effect::Allow).find(holds) {
            Some(policy) => Verdict::allow(Reason::Policy(Arc::clone(policy))),
            None => Verdict::deny(Reason::Nothing(permission)),
        }
    }

    /// Whether it may be so for some arguments at some time: what lists show.
    pub fn is_possible(&self, who: &Principal, permission: Permission, tool: Option<&str>) -> bool {
        let fitting = |policy: &&Arc<PolicyDraft>| {
            policy.permissions.contains(permission) && !policy.spares(tool)
        };
        let mut fitting = self.policies.iter().filter(fitting);
        let mut allowed = self.held.contains(permission);
        let is_denied = fitting.any(|policy| {
            allowed |= policy.effect == Effect::Allow;
            policy.effect == Effect::Deny && policy.when.is_none()
        });
        self.is_within && allowed && !is_denied && who.ceiling().contains(permission)
    }

    fn fitting<'a>(
        &'a self,
        asked: &'a Asked<'_>,
        effect: Effect,
    ) -> impl Iterator<Item = &'a Arc<PolicyDraft>> {
        self.policies.iter().filter(move |policy| {
            policy.effect == effect
                && policy.permissions.contains(asked.permission)
                && !policy.spares(asked.tool)
        })
    }
}

/// Whether a policy is about a service.
fn is_about(policy: &PolicyDraft, target: &Target<'_>) -> bool {
    let tagged = |patterns: &[String]| target.tags.iter().any(|tag| fits(Some(patterns), tag));
    fits(policy.services.as_deref(), target.name)
        && fits(policy.environments.as_deref(), target.environment)
        && policy.tags.as_deref().is_none_or(tagged)
}

fn fits(patterns: Option<&[String]>, text: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, text)))
}

/// Why roles or grants allow what they do: only looked for when somebody wants to know.
fn why_held(asked: &Asked<'_>) -> Reason {
    let Asked {
        who, permission, ..
    } = *asked;
    if who.permissions.contains(permission) {
        return role_for(who, permission);
    }
    let mut roles = who.rights.roles().iter();
    match roles.find(|(_, reach)| reach.own.contains(permission)) {
        Some((role, _)) if is_owner(asked) => Reason::Own(role.clone()),
        _ => Reason::Granted,
    }
}

fn is_owner(asked: &Asked<'_>) -> bool {
    let user = asked.who.rights.user();
    user.is_some_and(|user| user.as_str() == asked.on.owner)
}

fn role_for(who: &Principal, permission: Permission) -> Reason {
    let mut roles = who.rights.roles().iter();
    let role = roles.find(|(_, reach)| reach.everywhere.contains(permission));
    role.map_or(Reason::Unlimited, |(role, _)| Reason::Role(role.clone()))
}

fn refusal(who: &Principal, permission: Permission, because: &Reason) -> Failure {
    let detail = match because {
        Reason::CredentialLacks(_) | Reason::Nothing(_) => format!(
            "`{}` lacks the permission `{permission}`; an admin can give it a role or a key that has it",
            who.name
        ),
        other => format!("`{}` may not do this (`{permission}`): {other}", who.name),
    };
    Failure::new(Kind::NotPermitted, detail)
}

impl Verdict {
    const fn allow(because: Reason) -> Self {
        Self {
            allowed: true,
            because,
        }
    }

    const fn deny(because: Reason) -> Self {
        Self {
            allowed: false,
            because,
        }
    }

    /// The failure that says no; `None` when the answer is yes.
    pub fn refusal(&self, who: &Principal, permission: Permission) -> Option<Failure> {
        (!self.allowed).then(|| refusal(who, permission, &self.because))
    }
}

/// As a part of a sentence.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("nothing limits this caller"),
            Self::CredentialLacks(permission) => {
                write!(
                    f,
                    "the credential is limited to permissions without `{permission}`"
                )
            }
            Self::CredentialElsewhere => {
                f.write_str("the credential is limited to other services or environments")
            }
            Self::Role(role) => write!(f, "the role `{role}` allows it"),
            Self::Own(role) => write!(f, "the role `{role}` allows it of one's own"),
            Self::Granted => f.write_str("it was granted"),
            Self::Policy(policy) => match policy.effect {
                Effect::Allow => write!(f, "the policy `{}` allows it", policy.name),
                Effect::Deny => write!(f, "the policy `{}` denies it", policy.name),
            },
            Self::Undecided(policy, why) => write!(
                f,
                "the policy `{}` denies it, since its condition cannot be decided: {why}",
                policy.name
            ),
            Self::Nothing(permission) => write!(f, "nothing allows `{permission}`"),
        }
    }
}

#[cfg(test)]
mod tests;
