//! The five categories of a service's configuration. They are a view: the spec itself is flat.

use std::fmt;

use serde::Serialize;

/// What a value of a spec is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// What runs, how many of it, and within which limits.
    Runtime,
    /// Where it is reached, and how it is spoken to.
    Network,
    /// Credentials, and what callers may see and send.
    Security,
    /// How it is presented to others, and what it needs of them.
    Integration,
    /// How it is watched.
    Monitoring,
}

impl Category {
    /// Every category, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Runtime,
        Self::Network,
        Self::Security,
        Self::Integration,
        Self::Monitoring,
    ];

    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Network => "network",
            Self::Security => "security",
            Self::Integration => "integration",
            Self::Monitoring => "monitoring",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The table: a path in the spec, which stands for everything below it, too, and its category. Of two
/// rows that fit the longer one counts. A test finds what is in no row, and rows of what is not there.
pub const CATEGORIES: &[(&str, Category)] = &[
    ("balance", Category::Network),
    ("depends_on", Category::Integration),
    ("description", Category::Integration),
    ("era", Category::Network),
    ("extends", Category::Integration),
    ("health", Category::Monitoring),
    ("identity", Category::Security),
    ("idle_timeout", Category::Runtime),
    ("lease", Category::Monitoring),
    ("limits", Category::Runtime),
    ("replicas", Category::Runtime),
    ("source.builtin", Category::Runtime),
    ("source.http", Category::Network),
    ("source.http.headers", Category::Security),
    ("source.http.health_path", Category::Monitoring),
    ("source.http.tools", Category::Integration),
    ("source.mcp", Category::Network),
    ("source.mcp.auth", Category::Security),
    ("source.mcp.headers", Category::Security),
    ("source.process", Category::Runtime),
    ("title", Category::Integration),
    ("tools", Category::Security),
    ("validate", Category::Security),
];

/// The category of the value at `path` of a spec, such as `limits.memory`.
pub fn category(path: &str) -> Option<Category> {
    let fits = |row: &&(&str, Category)| {
        let rest = path.strip_prefix(row.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let rows = CATEGORIES.iter().filter(fits);
    rows.max_by_key(|row| row.0.len()).map(|row| row.1)
}
