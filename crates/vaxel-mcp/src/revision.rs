//! The five published revisions of MCP and the two eras they fall into.

use std::{fmt, str::FromStr};

/// A published revision, in order of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// HTTP+SSE, sessions are connections.
    V2024_11_05,
    /// Streamable HTTP, batches.
    V2025_03_26,
    /// No batches, structured output, elicitation.
    V2025_06_18,
    /// Icons, URL elicitation, SSE polling.
    V2025_11_25,
    /// Stateless.
    V2026_07_28,
}

/// How a peer keeps state: the one difference that everything else follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// Up to 2025-11-25: `initialize`, sessions, requests in both directions.
    Legacy,
    /// From 2026-07-28: every request stands alone.
    Modern,
}

impl Revision {
    /// Newest revision of the legacy era.
    pub const LATEST_LEGACY: Self = Self::V2025_11_25;
    /// Newest revision.
    pub const LATEST: Self = Self::V2026_07_28;
    /// Oldest to newest.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];

    /// The date, as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era it belongs to.
    pub const fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => {
                Era::Legacy
            }
            Self::V2026_07_28 => Era::Modern,
        }
    }
}

impl Era {
    /// `legacy` or `modern`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// A text that is no revision we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known MCP revision")]
pub struct UnknownRevision(pub String);

impl FromStr for Revision {
    type Err = UnknownRevision;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // 2024-10-07 was a draft of 2024-11-05 that old SDKs still name.
        let text = if text == "2024-10-07" {
            "2024-11-05"
        } else {
            text
        };
        let found = Self::ALL
            .into_iter()
            .find(|revision| revision.as_str() == text);
        found.ok_or_else(|| UnknownRevision(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
