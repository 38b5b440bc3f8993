//! What a service offers: tools, prompts, resources and templates, each definition kept as the raw
//! JSON that the server sent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::time::Timestamp;

/// Everything that one service offers, as it was last read from it. Immutable; replaced whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Catalog {
    /// When it was read.
    pub fetched_at: Timestamp,
    /// MCP revision that was spoken.
    pub revision: String,
    /// The server's capabilities, in the dialect of `revision`.
    pub capabilities: Box<RawValue>,
    /// The server's own name and version, unverified.
    pub server_info: Box<RawValue>,
    /// What the server tells models about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// For how long the server stands by all of this, and to whom it may be shown.
    #[serde(default)]
    pub cache: CacheHint,
    /// In the server's order.
    pub tools: Vec<Item>,
    /// In the server's order.
    pub prompts: Vec<Item>,
    /// In the server's order; the key is the URI.
    pub resources: Vec<Item>,
    /// In the server's order; the key is the URI template.
    pub templates: Vec<Item>,
}

/// What may be done with an answer instead of asking again (MCP 2026-07-28, Caching). By default nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct CacheHint {
    /// How long it may be kept, milliseconds.
    pub ttl_ms: u64,
    /// Everyone may be shown it, whoever asked.
    pub is_public: bool,
}

impl CacheHint {
    /// Of nothing, which never changes.
    pub const UNBOUNDED: Self = Self {
        ttl_ms: u64::MAX,
        is_public: true,
    };

    /// What may be done with what consists of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            ttl_ms: self.ttl_ms.min(other.ttl_ms),
            is_public: self.is_public && other.is_public,
        }
    }
}

/// One definition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// Name, URI or URI template: what it is addressed by.
    pub key: Arc<str>,
    /// The definition as the server sent it.
    pub definition: Arc<RawValue>,
}

impl Catalog {
    /// The tool called `name`.
    pub fn tool(&self, name: &str) -> Option<&Item> {
        self.tools.iter().find(|item| &*item.key == name)
    }
}
