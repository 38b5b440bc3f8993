//! The line that every change leaves.

use serde_json::Value;

use crate::{principal::Principal, time::Timestamp};

/// Who did what to what; stored in the same transaction as the change itself.
#[derive(Debug, Clone)]
pub struct AuditLine {
    /// When.
    pub at: Timestamp,
    /// Name of the principal.
    pub actor: String,
    /// Its key's id, when it used one.
    pub actor_key: Option<String>,
    /// `service.create`, `key.revoke`, …
    pub action: &'static str,
    /// `service`, `key`, …
    pub target_kind: &'static str,
    /// Id of the target.
    pub target_id: String,
    /// Name of the target.
    pub target_name: String,
    /// What changed; never a secret value.
    pub detail: Value,
    /// Why, in the words of whoever did it.
    pub message: Option<String>,
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
        Self {
            at,
            actor: actor.name.to_string(),
            actor_key: actor.key().map(|id| id.to_string()),
            action,
            target_kind,
            target_id,
            target_name,
            detail: Value::Null,
            message: None,
        }
    }
}
