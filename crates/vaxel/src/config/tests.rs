use std::time::Duration;

use vaxel_core::{
    quantity::{Size, Span},
    role::BuiltIn,
};

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
    assert_eq!(config.callers, vaxel_core::quota::RoleQuotas::default());
}

#[test]
fn limits_of_a_built_in_role_are_a_list() {
    let env = [("VAXEL_CALLERS_USER", "calls=1/1h, concurrent=2")];
    let (merged, dir) = merged(&env, Some("[callers]\nadmin = [\"calls=9\", \"x\"]\n"));
    let issues = merged.resolve(dir.path()).unwrap_err();
    let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
    assert_eq!(paths, ["callers.admin[0]", "callers.admin[1]"]);
    let (merged, dir) = self::merged(&env, None);
    let user = merged
        .resolve(dir.path())
        .unwrap()
        .callers
        .of(BuiltIn::User);
    assert_eq!((user.requests, user.concurrent), (None, Some(2)));
    assert_eq!(user.calls, Some("1/1h".parse().unwrap()));
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
    let origin = merged.layers().origin("server.listen").unwrap();
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

#[test]
fn a_wrong_address_hides_no_other_problem_and_invents_none() {
    let file = "[server]\nlisten = \"bogus\"\nallowed_hosts = [\"ok.example\", \"not a host\"]\n\n[calls]\nname_max = 5\n";
    let (merged, dir) = merged(&[("VAXEL_RECORDS_KEEP", "some")], Some(file));
    let issues = merged.resolve(dir.path()).unwrap_err();
    let config = dir.path().join("config.toml").display().to_string();
    let text: Vec<String> = issues
        .iter()
        .map(|issue| format!("{}: {}", issue.path, issue.message).replace(&config, "FILE"))
        .collect();
    assert_eq!(
        text,
        [
            "server.listen: `bogus` is not an address and port such as 127.0.0.1:3010 (from FILE:2)",
            "server.allowed_hosts[1]: `not a host` is neither a host such as vaxel.example.com or \
             10.0.0.5:3010, nor an origin such as https://app.example.com (from FILE:3)",
            "calls.name_max: 5 is not between 24 and 128 (from FILE:6)",
            "records.keep: `some` is none of none, parameters, all (from $VAXEL_RECORDS_KEEP)",
        ]
    );
}

#[test]
fn the_bounds_that_the_manual_names_are_those_that_hold() {
    let mut section = "";
    let mut tried = 0;
    for line in MANUAL.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let Some((key, rest)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let Some((low, high)) = rest
            .split_once(" # ")
            .and_then(|(_, bounds)| bounds.split_once(" to "))
        else {
            let default = rest.trim_matches('"');
            assert!(
                default.parse::<Span>().is_err() && default.parse::<Size>().is_err(),
                "{section}.{key} has no bounds"
            );
            continue;
        };
        let name = format!("VAXEL_{section}_{key}").to_ascii_uppercase();
        let is_fine = |text: &str| {
            let (merged, dir) = merged(&[(&name, text)], None);
            merged.resolve(dir.path()).is_ok()
        };
        assert!(is_fine(low) && is_fine(high), "{name}: {low} to {high}");
        assert!(!is_fine(&beside(high, 1)), "{name} goes beyond {high}");
        assert!(
            low.starts_with('0') || !is_fine(&beside(low, -1)),
            "{name} goes below {low}"
        );
        tried += 1;
    }
    assert!(tried > 35, "{tried}");
}

/// The smallest step away from a count, a size or a duration.
fn beside(text: &str, step: i64) -> String {
    if let Ok(Size(bytes)) = text.parse() {
        return bytes.checked_add_signed(step).unwrap().to_string();
    }
    let Span(span) = text.parse().unwrap();
    let millis = u64::try_from(span.as_millis()).unwrap();
    format!("{}ms", millis.checked_add_signed(step).unwrap())
}

#[test]
fn variables_of_others_are_passed_by_and_old_names_say_what_they_do() {
    let env = [
        ("VAXEL_PORT", "tcp://10.0.0.1:3010"),
        ("VAXEL_PORT_3010_TCP_ADDR", "10.0.0.1"),
        ("VAXEL_SERVICE_HOST", "10.0.0.1"),
        ("VAXEL_SERVICE_PORT_HTTP", "3010"),
        ("MCP_SERVERS_DIR", "/srv"),
        ("MCP_AUTO_RESTART", "0"),
        ("MCP_MAX_RETRIES", "7"),
        ("GATEWAY_TIMEOUT_MS", "2500"),
    ];
    let (layers, dir) = merged(&env, None);
    let config = layers.resolve(dir.path()).unwrap();
    assert!(!config.process.auto_restart);
    assert_eq!(config.process.backoff.max_retries, 7);
    assert_eq!(config.tunables.call_timeout, Duration::from_millis(2_500));
    assert_eq!(layers.notes().len(), 1);
    assert!(layers.notes()[0].starts_with("MCP_SERVERS_DIR has no effect"));
    let (layers, dir) = merged(&[("VAXEL_PORTS", "1")], None);
    assert!(layers.resolve(dir.path()).is_err());
}

#[test]
fn the_users_own_file_holds_where_the_data_directory_has_none() {
    let (_, home) = merged(&[], None);
    std::fs::create_dir(home.path().join("vaxel")).unwrap();
    let own = home.path().join("vaxel/config.toml");
    std::fs::write(&own, "[calls]\ntimeout = \"7s\"\n").unwrap();
    let home = home.path().to_str().unwrap();
    let timeout = |file| {
        let (merged, dir) = merged(&[("XDG_CONFIG_HOME", home)], file);
        merged.resolve(dir.path()).unwrap().tunables.call_timeout
    };
    assert_eq!(timeout(None), Duration::from_secs(7));
    assert_eq!(timeout(Some("")), Duration::from_mins(1));
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_one_problem() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vaxel.toml");
    let check = || {
        let sources = Sources {
            file: Some(file.clone()),
            data_dir: dir.path().to_owned(),
            ..Sources::default()
        };
        let issues = Merged::of(&sources).resolve(dir.path()).unwrap_err();
        assert_eq!(issues.len(), 1, "{issues:#?}");
        issues[0].message.clone()
    };
    assert_eq!(check(), "there is no such file");
    std::fs::write(&file, "[server\n").unwrap();
    assert!(check().starts_with("is no TOML: TOML parse error at line 1"));
}

#[test]
fn the_url_of_a_database_is_read_and_a_wrong_one_told_without_its_password() {
    let url = "postgres://me:s3cr@db.example.com/vaxel";
    let (merged, dir) = merged(&[("VAXEL_STORE_URL", url)], None);
    let config = merged.resolve(dir.path()).unwrap();
    let said = config.store.url.expect("there is one").to_string();
    assert_eq!(said, "postgres://me:***@db.example.com/vaxel");
    for wrong in [
        "mysql://me:s3cr@db/vaxel",
        "postgres://me:s3cr@db/vaxel?sslmode=allow",
    ] {
        let (merged, dir) = super::tests::merged(&[("VAXEL_STORE_URL", wrong)], None);
        let issues = merged.resolve(dir.path()).unwrap_err();
        let said = format!("{issues:?}");
        assert!(
            said.contains("store.url") && said.contains("$VAXEL_STORE_URL"),
            "{said}"
        );
        assert!(!said.contains("s3cr"), "{said}");
    }
}
