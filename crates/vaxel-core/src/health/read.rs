//! Reads a [`HealthSpec`] field by field, so that every problem is named at once.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use serde_json::Map;
use url::Url;

use super::{
    expect::{Expectation, pattern},
    spec::{
        Dependency, FunctionalCheck, HealthSpec, PerformanceLimits, RecoveryAction, RecoverySpec,
        SecurityChecks,
    },
};
use crate::{fields::Fields, quantity::Span};

/// Most tools, and most dependencies, of one service: each costs something at every check.
const MANY: usize = 16;
/// Longest text of a tool name, address or expectation, in bytes.
const TEXT_MAX: usize = 4 * 1024;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

/// What stands at `health` of a service.
pub(crate) fn health(fields: &mut Fields<'_>) -> HealthSpec {
    let times = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    let spec = HealthSpec {
        interval: span(fields, "interval", SECOND..=DAY),
        timeout: span(
            fields,
            "timeout",
            Duration::from_millis(10)..=Duration::from_mins(10),
        ),
        rise: times(fields.integer("rise", 1..=100)),
        fall: times(fields.integer("fall", 1..=100)),
        functional: all(fields.objects("functional", functional)),
        performance: fields
            .nested("performance", performance)
            .unwrap_or_default(),
        dependency: all(fields.objects("dependency", dependency)),
        security: fields.nested("security", security).unwrap_or_default(),
        recovery: fields.nested("recovery", recovery).unwrap_or_default(),
    };
    for (key, count) in [
        ("functional", spec.functional.len()),
        ("dependency", spec.dependency.len()),
    ] {
        if count > MANY {
            fields.issue(
                key,
                format!("holds {count} checks; at most {MANY} are made"),
            );
        }
    }
    spec
}

/// Those that could be read; the others have left a problem each.
fn all<T>(read: Option<Vec<Option<T>>>) -> Vec<T> {
    read.into_iter().flatten().flatten().collect()
}

fn functional(fields: &mut Fields<'_>) -> Option<FunctionalCheck> {
    let tool = fields.required_string("tool");
    if tool.as_ref().is_some_and(|tool| tool.len() > TEXT_MAX) {
        fields.issue("tool", "is no name of a tool: it is too long");
    }
    let arguments = match fields.value("arguments") {
        None => Map::new(),
        Some(serde_json::Value::Object(arguments)) => arguments.clone(),
        Some(_) => {
            fields.issue(
                "arguments",
                "must be an object, such as {\"message\": \"hello\"}",
            );
            Map::new()
        }
    };
    let expect = fields.nested("expect", expectation).unwrap_or_default();
    Some(FunctionalCheck {
        tool: tool?,
        arguments,
        expect,
    })
}

fn expectation(fields: &mut Fields<'_>) -> Expectation {
    let expect = Expectation {
        is_error: fields.boolean("is_error"),
        contains: fields.string("contains"),
        equals: fields.value("equals").cloned(),
        matches: fields.string("matches"),
    };
    let texts = [("contains", &expect.contains), ("matches", &expect.matches)];
    for (key, text) in texts {
        if text.as_ref().is_some_and(|text| text.len() > TEXT_MAX) {
            fields.issue(key, "is longer than 4 KiB");
        }
    }
    if let Some(Err(error)) = expect.matches.as_deref().map(pattern) {
        fields.issue("matches", error);
    }
    expect
}

fn performance(fields: &mut Fields<'_>) -> PerformanceLimits {
    let call = Duration::from_millis(1)..=DAY;
    PerformanceLimits {
        p50: span(fields, "p50", call.clone()),
        p95: span(fields, "p95", call),
        error_rate: fields.parsed("error_rate"),
        cpu: fields.parsed("cpu"),
        memory: fields.parsed("memory"),
        window: span(fields, "window", 10 * SECOND..=DAY),
    }
}

fn dependency(fields: &mut Fields<'_>) -> Option<Dependency> {
    let (url, tcp) = (fields.string("url"), fields.string("tcp"));
    match (url, tcp) {
        (Some(url), None) => {
            if let Some(problem) = url_problem(&url) {
                fields.issue("url", problem);
            }
            Some(Dependency::Url(url))
        }
        (None, Some(address)) => {
            let dependency = Dependency::Tcp(address.clone());
            if dependency.url().is_none() || address.len() > TEXT_MAX {
                let message = format!("`{address}` is not a host and port such as db.local:5432");
                fields.issue("tcp", message);
            }
            Some(dependency)
        }
        _ => {
            fields.issue("url", "give exactly one of url and tcp");
            None
        }
    }
}

fn url_problem(text: &str) -> Option<String> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return Some(format!("`{text}` is not a URL: {error}")),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Some(format!(
            "the scheme `{}` is neither http nor https",
            url.scheme()
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("a check sends no credentials: leave them out of the URL".to_owned());
    }
    (text.len() > TEXT_MAX).then(|| "is longer than 4 KiB".to_owned())
}

fn security(fields: &mut Fields<'_>) -> SecurityChecks {
    let default = SecurityChecks::default();
    SecurityChecks {
        definitions: fields.boolean("definitions").unwrap_or(default.definitions),
        expiry: span(fields, "expiry", Duration::ZERO..=365 * DAY).unwrap_or(default.expiry),
        unauthenticated: fields
            .boolean("unauthenticated")
            .unwrap_or(default.unauthenticated),
    }
}

fn recovery(fields: &mut Fields<'_>) -> RecoverySpec {
    let actions = fields.strings("actions").map(|names| {
        let mut actions: Vec<RecoveryAction> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match name.parse() {
                Ok(action) if actions.contains(&action) => {
                    fields.issue(
                        &format!("actions[{index}]"),
                        format!("`{name}` is given twice"),
                    );
                }
                Ok(action) => actions.push(action),
                Err(error) => fields.issue(&format!("actions[{index}]"), error),
            }
        }
        actions
    });
    let budget = fields.integer("budget", 0..=1_000);
    RecoverySpec {
        actions,
        budget: budget.and_then(|budget| u32::try_from(budget).ok()),
        window: span(fields, "window", SECOND..=7 * DAY),
        backoff: span(fields, "backoff", Duration::ZERO..=DAY),
    }
}

fn span(
    fields: &mut Fields<'_>,
    key: &'static str,
    bounds: RangeInclusive<Duration>,
) -> Option<Span> {
    bounded(fields, key, Span(*bounds.start())..=Span(*bounds.end()))
}

fn bounded<T>(fields: &mut Fields<'_>, key: &'static str, bounds: RangeInclusive<T>) -> Option<T>
where
    T: FromStr<Err: Display> + Display + PartialOrd,
{
    let found = fields.parsed::<T>(key)?;
    if !bounds.contains(&found) {
        let (low, high) = (bounds.start(), bounds.end());
        fields.issue(key, format!("{found} is not between {low} and {high}"));
        return None;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::failure::Issue;

    fn read(value: &Value) -> (HealthSpec, Vec<String>) {
        let mut issues = Vec::new();
        let spec = Fields::read(value, "health", &mut issues, health).unwrap();
        let text = |issue: &Issue| format!("{}: {}", issue.path, issue.message);
        (spec, issues.iter().map(text).collect())
    }

    #[test]
    fn everything_can_be_said_and_is_read_back_as_it_was() {
        let value = json!({
            "interval": "10s", "timeout": "2s", "rise": 2, "fall": 4,
            "functional": [{
                "tool": "echo", "arguments": {"message": "x"},
                "expect": {"is_error": false, "contains": "x", "equals": {"a": 1}, "matches": "^x$"}
            }],
            "performance": {
                "p50": "100ms", "p95": "1s", "error_rate": "2.5%", "cpu": "90%",
                "memory": "100MiB", "window": "1m"
            },
            "dependency": [{"url": "https://db.example/health"}, {"tcp": "[::1]:5432"}],
            "security": {"definitions": false, "expiry": "30d", "unauthenticated": false},
            "recovery": {
                "actions": ["replace", "eject"], "budget": 2, "window": "10m", "backoff": "1s"
            }
        });
        let (spec, problems) = read(&value);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(serde_json::to_value(&spec).unwrap(), value);
        assert_eq!(serde_json::from_value::<HealthSpec>(value).unwrap(), spec);
        let nothing = HealthSpec::default();
        assert_eq!(read(&json!({})), (nothing.clone(), Vec::new()));
        assert_eq!(serde_json::to_value(&nothing).unwrap(), json!({}));
    }

    #[test]
    fn every_problem_is_named_with_its_place() {
        let (_, problems) = read(&json!({
            "interval": "1ms", "fall": 0, "interva": 1,
            "functional": [{"arguments": 1, "expect": {"matches": "("}}, "echo"],
            "performance": {"error_rate": "much"},
            "dependency": [{}, {"url": "ftp://x"}, {"tcp": "db"}, {"tcp": "a/b:1"}],
            "recovery": {"actions": ["pray", "eject", "eject"]}
        }));
        let starts = [
            "health.interval: 1ms is not between 1s and 1d",
            "health.fall:",
            "health.functional[0].tool: is missing",
            "health.functional[0].arguments: must be an object",
            "health.functional[0].expect.matches:",
            "health.functional[1]: expected an object",
            "health.performance.error_rate:",
            "health.dependency[0].url: give exactly one",
            "health.dependency[1].url:",
            "health.dependency[2].tcp:",
            "health.dependency[3].tcp:",
            "health.recovery.actions[0]:",
            "health.recovery.actions[2]: `eject` is given twice",
            "health.interva: is not a known key; did you mean `interval`?",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(
                problem.starts_with(start),
                "{problem} does not start with {start}"
            );
        }
    }
}
