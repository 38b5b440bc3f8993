use std::time::Duration;

use super::*;

fn merged(env: &[(&str, &str)], file: Option<&str>) -> (Merged, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    if let Some(text) = file {
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
    }
    let env = env
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let sources = Sources {
        data_dir: dir.path().to_owned(),
        env,
        ..Sources::default()
    };
    (Merged::of(&sources), dir)
}

#[test]
fn the_manual_resolves_to_the_built_in_defaults() {
    let (merged, dir) = merged(&[], None);
    let config = merged.resolve(dir.path()).unwrap();
    let built_in = vaxel_gateway::Config::default();
    assert_eq!(format!("{:?}", config.gateway), format!("{built_in:?}"));
    assert_eq!(
        config.process.backoff,
        vaxel_core::backoff::Backoff::default()
    );
    assert_eq!(config.tunables.call_timeout, Duration::from_mins(1));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:3010");
}

#[test]
fn every_key_of_the_manual_has_a_comment() {
    let mut commented = false;
    for line in MANUAL
        .lines()
        .skip_while(|line| !line.starts_with("[server]"))
    {
        let is_key = line.split_once(" = ").is_some() && !line.starts_with('#');
        assert!(!is_key || commented, "{line} has no comment");
        // A comment may speak for the keys that follow it directly.
        commented = line.starts_with('#') || (is_key && commented);
    }
}

#[test]
fn later_layers_win_and_say_where_they_come_from() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"\n[calls]\ntimeout = \"1s\"\n";
    let env = [
        ("VAXEL_SERVER_LISTEN", "127.0.0.1:2"),
        ("MCP_HEALTH_CHECK_INTERVAL", "1500"),
    ];
    let (merged, dir) = merged(&env, Some(file));
    let config = merged.resolve(dir.path()).unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.tunables.call_timeout, Duration::from_secs(1));
    assert_eq!(config.process.health_interval, Duration::from_millis(1_500));
    let origin = merged
        .entries()
        .find(|(path, _, _)| *path == "server.listen")
        .unwrap()
        .2;
    assert_eq!(origin.to_string(), "$VAXEL_SERVER_LISTEN");
}

#[test]
fn every_problem_is_reported_with_key_and_origin() {
    let file = "[server]\nlisten = \"0.0.0.0:3010\"\nauth = false\nlisen = 1\n[calls]\ntimeout = \"soon\"\n[nonsense]\na = 1\n";
    let (merged, dir) = merged(&[("VAXEL_LIMITS_BODY", "huge")], Some(file));
    let issues = merged.resolve(dir.path()).unwrap_err();
    let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
    for path in [
        "server.auth",
        "server.lisen",
        "calls.timeout",
        "limits.body",
        "nonsense",
    ] {
        assert!(paths.contains(&path), "{path} is missing in {issues:#?}");
    }
    let body = issues
        .iter()
        .find(|issue| issue.path == "limits.body")
        .unwrap();
    assert!(
        body.message.ends_with("(from $VAXEL_LIMITS_BODY)"),
        "{}",
        body.message
    );
}
