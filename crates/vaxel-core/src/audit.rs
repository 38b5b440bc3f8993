//! The line that every change leaves, and every act that matters for security.
//!
//! [`AuditLine`] is what somebody did, on its way to the store; [`Entry`] is the line as it stands there,
//! numbered and chained ([`chain`]).

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    failure::{Failure, Kind, facts},
    id::{Call, Id, SignIn},
    principal::{Principal, Proof},
    time::Timestamp,
};

pub mod chain;
pub mod export;

/// Longest JSON that is kept of what was before, what is after, and what else is known, bytes each.
pub const PART_MAX: usize = 16 << 10;
/// What is kept of a longer one, characters.
const BEGINNING: usize = 1_000;
/// Longest other text that somebody outside decides on, characters.
const TEXT_MAX: usize = 500;

/// Through which door somebody came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// The management API, and the doors of earlier systems.
    Rest,
    /// The same, by a program that says that it is Vaxel's command line.
    Cli,
    /// MCP.
    Mcp,
    /// None: Vaxel itself.
    System,
}

impl Door {
    /// What the command line begins its `User-Agent` with.
    pub const CLI_AGENT: &'static str = "vaxel-cli/";

    /// Its name in lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Cli => "cli",
            Self::Mcp => "mcp",
            Self::System => "system",
        }
    }

    /// The door of a program at the management API that says it is `agent`.
    pub fn of_agent(agent: &str) -> Self {
        if agent.starts_with(Self::CLI_AGENT) {
            Self::Cli
        } else {
            Self::Rest
        }
    }
}

/// Where a request came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// The address at the other end of the connection.
    pub address: IpAddr,
    /// Through which door.
    pub door: Door,
    /// Names the request in its answer and in the log.
    pub request: Option<Id<Call>>,
    /// The sign-in whose token came with it.
    pub sign_in: Option<Id<SignIn>>,
}

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Outcome {
    /// It was done.
    #[default]
    Done,
    /// Vaxel refused it.
    Refused(Kind),
    /// It was begun and did not succeed.
    Failed(Kind),
}

impl Outcome {
    /// `done`, `refused:KIND` or `failed:KIND`, the kinds as in the pages of failures.
    pub fn text(self) -> String {
        match self {
            Self::Done => "done".to_owned(),
            Self::Refused(kind) => format!("refused:{}", facts(kind).slug),
            Self::Failed(kind) => format!("failed:{}", facts(kind).slug),
        }
    }
}

/// Who did what to what; stored in the same transaction as the change itself.
#[derive(Debug, Clone)]
pub struct AuditLine {
    /// When.
    pub at: Timestamp,
    /// Name of the user; `vaxel` is Vaxel itself, `anyone` whoever is not known.
    pub actor: String,
    /// What proved that: `key`, `token`, `password`, `code`, `none` or `system`.
    pub credential: &'static str,
    /// Id of the key or of the sign-in.
    pub credential_id: Option<String>,
    /// For whom, where Vaxel follows up on what somebody did earlier.
    pub on_behalf: Option<String>,
    /// `service.create`, `key.revoke`, …
    pub action: &'static str,
    /// `service`, `key`, …
    pub target_kind: &'static str,
    /// Id of the target.
    pub target_id: String,
    /// Name of the target.
    pub target_name: String,
    /// What else is to be known of it; never a secret value. Readers of the feed get it, too.
    pub detail: Value,
    /// The target as it was; never a secret value.
    pub before: Option<Value>,
    /// The target as it is now; never a secret value.
    pub after: Option<Value>,
    /// Why, in the words of whoever did it.
    pub message: Option<String>,
    /// From where.
    pub came: Option<Arc<Came>>,
    /// How it ended.
    pub outcome: Outcome,
}

impl AuditLine {
    /// A line about `target` by `actor`, without detail.
    pub fn new(
        at: Timestamp,
        actor: &Principal,
        action: &'static str,
        target: (&'static str, String, String),
    ) -> Self {
        let (target_kind, target_id, target_name) = target;
        let sign_in = actor.came.as_ref().and_then(|came| came.sign_in);
        let (credential, credential_id) = match actor.proof {
            Proof::Key(id) => ("key", Some(id.to_string())),
            Proof::User(_) => ("token", sign_in.map(|id| id.to_string())),
            Proof::Unguarded => ("none", None),
            Proof::System => ("system", None),
        };
        Self {
            at,
            actor: actor.name.to_string(),
            credential,
            credential_id,
            on_behalf: None,
            action,
            target_kind,
            target_id,
            target_name,
            detail: Value::Null,
            before: None,
            after: None,
            message: None,
            came: actor.came.clone(),
            outcome: Outcome::Done,
        }
    }

    /// The same with the target as it was, and as it is now; `null` is nothing.
    #[must_use]
    pub fn changing(mut self, before: Value, after: Value) -> Self {
        self.before = Some(before).filter(|value| !value.is_null());
        self.after = Some(after).filter(|value| !value.is_null());
        self
    }

    /// The line as it is to be written, under a number.
    ///
    /// # Errors
    /// When a part is no JSON, which no [`Value`] is.
    pub fn entry(&self, number: u64) -> Result<Entry, serde_json::Error> {
        let came = self.came.as_deref();
        let door = came.map_or(Door::System, |came| came.door);
        Ok(Entry {
            number,
            at: self.at,
            actor: shortened(&self.actor),
            credential: Some(self.credential.to_owned()),
            credential_id: self.credential_id.clone(),
            on_behalf: self.on_behalf.clone(),
            action: self.action.to_owned(),
            resource_kind: self.target_kind.to_owned(),
            resource_id: self.target_id.clone(),
            resource_name: shortened(&self.target_name),
            detail: Some(&self.detail)
                .filter(|value| !value.is_null())
                .map(part)
                .transpose()?,
            before: self.before.as_ref().map(part).transpose()?,
            after: self.after.as_ref().map(part).transpose()?,
            message: self.message.clone(),
            address: came.map(|came| came.address.to_canonical().to_string()),
            door: Some(door.as_str().to_owned()),
            request: came.and_then(|came| came.request).map(|id| id.to_string()),
            outcome: self.outcome.text(),
            hash: None,
            seal: None,
        })
    }
}

/// A failure as the end of an act: who may not is refused, what breaks has failed.
impl From<&Failure> for Outcome {
    fn from(failure: &Failure) -> Self {
        if facts(failure.kind).status >= 500 {
            Self::Failed(failure.kind)
        } else {
            Self::Refused(failure.kind)
        }
    }
}

/// JSON as it is written: whole, or its beginning with a mark.
fn part(value: &Value) -> Result<Box<RawValue>, serde_json::Error> {
    let whole = serde_json::value::to_raw_value(value)?;
    let bytes = whole.get().len();
    if bytes <= PART_MAX {
        return Ok(whole);
    }
    let begins: String = whole.get().chars().take(BEGINNING).collect();
    let cut = serde_json::json!({ "cut": { "bytes": bytes, "begins": begins } });
    serde_json::value::to_raw_value(&cut)
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// A line as it was written.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AuditEntry)]
pub struct Entry {
    /// In the order of writing, without holes.
    pub number: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Name of the user; `vaxel` is Vaxel itself, `anyone` whoever is not known.
    #[schema(example = "anna@example.com")]
    pub actor: String,
    /// What proved that: `key`, `token`, `password`, `code`, `none` or `system`; absent in lines of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Id of the key or of the sign-in; of a key that was refused its public part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
    /// For whom, where Vaxel follows up on what somebody did earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf: Option<String>,
    /// What was done.
    #[schema(example = "service.update")]
    pub action: String,
    /// Kind of what it was done to.
    #[schema(example = "service")]
    pub resource_kind: String,
    /// Its id.
    pub resource_id: String,
    /// Its name at that time.
    #[schema(example = "files")]
    pub resource_name: String,
    /// What else is to be known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Box<RawValue>>,
    /// The resource as it was, with secrets masked; only its beginning under `cut`, when it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Box<RawValue>>,
    /// The resource as it is since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Box<RawValue>>,
    /// Why, in the words of whoever did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Address at the other end of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `rest`, `cli`, `mcp` or `system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// Id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// `done`, or `refused:` or `failed:` with the kind of failure.
    #[schema(example = "done")]
    pub outcome: String,
    /// SHA-256 over the line and the hash before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hash: Option<chain::Hash>,
    /// That hash under the key of this installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub seal: Option<chain::Hash>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let target = ("service", String::new(), "x".repeat(2_000));
        let long = json!({ "text": "é".repeat(PART_MAX) });
        let line = AuditLine::new(Timestamp::from_millis(1), &Principal::system(), "a", target);
        let entry = line.changing(Value::Null, long).entry(1).unwrap();
        assert_eq!(entry.resource_name.len(), TEXT_MAX);
        assert!(entry.before.is_none());
        let after: Value = serde_json::from_str(entry.after.unwrap().get()).unwrap();
        assert_eq!(after["cut"]["bytes"], 2 * PART_MAX + 11);
        assert_eq!(
            after["cut"]["begins"].as_str().unwrap().chars().count(),
            BEGINNING
        );
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let target = ("key", "id".to_owned(), "ci".to_owned());
        let mut line = AuditLine::new(Timestamp::from_millis(7), &Principal::system(), "a", target);
        line.detail = json!({ "b": 1, "a": [] });
        let entry = line.entry(3).unwrap();
        let text = serde_json::to_string(&entry).unwrap();
        let read: Entry = serde_json::from_str(&text).unwrap();
        assert_eq!(chain::canonical(&read), chain::canonical(&entry));
    }
}
