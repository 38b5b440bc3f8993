//! Severities of log messages (MCP, "Logging"; RFC 5424 §6.2.1).

use serde::Deserialize;
use serde_json::value::RawValue;

/// A severity, the least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
    /// `error`
    Error,
    /// `critical`
    Critical,
    /// `alert`
    Alert,
    /// `emergency`
    Emergency,
}

impl Level {
    const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// As a JSON string.
    pub const fn as_json(self) -> &'static str {
        match self {
            Self::Debug => "\"debug\"",
            Self::Info => "\"info\"",
            Self::Notice => "\"notice\"",
            Self::Warning => "\"warning\"",
            Self::Error => "\"error\"",
            Self::Critical => "\"critical\"",
            Self::Alert => "\"alert\"",
            Self::Emergency => "\"emergency\"",
        }
    }

    /// The level called `name`.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_json().trim_matches('"') == name)
    }

    /// The level of a `notifications/message`, from its `params`.
    pub fn of_message(params: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Message {
            level: String,
        }
        let message: Message = serde_json::from_str(params.get()).ok()?;
        Self::of(&message.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_by_severity_and_read_back_by_name() {
        assert!(Level::Debug < Level::Info && Level::Alert < Level::Emergency);
        for level in Level::ALL {
            assert_eq!(Level::of(level.as_json().trim_matches('"')), Some(level));
        }
        assert_eq!(Level::of("loud"), None);
        let params = RawValue::from_string(r#"{"level":"error","data":1}"#.to_owned()).unwrap();
        assert_eq!(Level::of_message(&params), Some(Level::Error));
    }
}
