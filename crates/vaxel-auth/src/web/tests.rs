use proptest::prelude::*;

use super::*;

fn rules(listen: &str, extra: &[&str]) -> WebRules {
    let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
    WebRules::new(listen.parse().unwrap(), &extra).unwrap()
}

fn local() -> WebRules {
    rules("127.0.0.1:3010", &[])
}

#[test]
fn the_names_of_this_machine_are_good_hosts_with_any_port() {
    for host in [
        "localhost",
        "localhost:3010",
        "LocalHost:8080",
        "127.0.0.1",
        "127.0.0.1:3010",
        "127.9.9.9",
        "[::1]",
        "[::1]:3010",
        "[0:0:0:0:0:0:0:1]:1",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7f00:1]:3010",
    ] {
        assert!(local().allows_host(Some(host)), "{host}");
    }
}

#[test]
fn hosts_that_only_look_like_this_machine_are_refused() {
    for host in [
        "",
        "evil.com",
        "localhost.evil.com",
        "evil.com:3010",
        "localhost@evil.com",
        "evil.com@localhost",
        "user:pw@localhost",
        "localhost.",
        "localhost.:3010",
        "127.0.0.1.",
        "127.0.0.1.nip.io",
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "::1",
        "[::1",
        "::1]",
        "[::1]3010",
        "[::1%25lo]",
        "[127.0.0.1]",
        "[localhost]",
        "localhost:",
        "localhost:+80",
        "localhost:65536",
        "localhost:80:80",
        "localhost:80/",
        "localhost/evil",
        "localhost#",
        "localhost?",
        "localhost\\",
        "localhost,evil.com",
        " localhost",
        "localhost ",
        "localhost\t",
        "localhost\0",
        "ⅼocalhost",
        "0.0.0.0",
        "192.168.0.7",
        "http://localhost",
    ] {
        assert!(!local().allows_host(Some(host)), "{host:?}");
    }
    assert!(!local().allows_host(None));
}

#[test]
fn configured_hosts_are_good_as_written() {
    let rules = rules(
        "127.0.0.1:3010",
        &["Vaxel.example.com", "10.0.0.5:3010", "[fd00::5]"],
    );
    for host in [
        "vaxel.example.com",
        "VAXEL.example.com:99",
        "10.0.0.5:3010",
        "[fd00:0::5]:7",
    ] {
        assert!(rules.allows_host(Some(host)), "{host}");
    }
    for host in [
        "a.vaxel.example.com",
        "example.com",
        "10.0.0.5",
        "10.0.0.5:3011",
        "[fd00::6]",
    ] {
        assert!(!rules.allows_host(Some(host)), "{host}");
    }
    assert!(rules.allows_origin(Some("https://vaxel.example.com"), None));
}

#[test]
fn a_listener_on_all_addresses_takes_addresses_but_no_strange_names() {
    let rules = rules("0.0.0.0:3010", &[]);
    assert!(rules.allows_host(Some("192.168.0.7:3010")));
    assert!(rules.allows_host(Some("[2001:db8::7]:3010")));
    assert!(!rules.allows_host(Some("evil.com:3010")));
    // A page from some address is not this server, unless it is where the request went.
    let host = Some("192.168.0.7:3010");
    assert!(!rules.allows_origin(Some("http://203.0.113.9"), host));
    assert!(rules.allows_origin(Some("http://192.168.0.7:3010"), host));
    assert!(!rules.allows_origin(Some("http://192.168.0.7:3011"), host));
}

#[test]
fn a_listener_on_one_address_takes_that_address() {
    let rules = rules("192.168.0.7:3010", &[]);
    assert!(rules.allows_host(Some("192.168.0.7:3010")));
    assert!(!rules.allows_host(Some("192.168.0.8:3010")));
    assert!(rules.allows_origin(Some("http://192.168.0.7:3010"), Some("192.168.0.7:3010")));
}

#[test]
fn an_absent_origin_is_a_program_and_null_is_a_page_that_hides() {
    assert!(local().allows_origin(None, Some("localhost")));
    assert!(!local().allows_origin(Some("null"), Some("localhost")));
    assert!(!local().allows_origin(Some(""), Some("localhost")));
}

#[test]
fn pages_of_this_machine_are_good_origins_and_others_are_not() {
    for origin in [
        "http://localhost:6274",
        "https://localhost",
        "http://127.0.0.1:80",
        "http://[::1]:1",
    ] {
        assert!(
            local().allows_origin(Some(origin), Some("localhost:3010")),
            "{origin}"
        );
    }
    for origin in [
        "http://evil.com",
        "http://localhost.evil.com",
        "http://localhost@evil.com",
        "http://localhost/",
        "http://localhost http://evil.com",
        "//localhost",
        "localhost",
        "ftp://localhost",
        "chrome-extension://localhost",
        "HTTP://localhost",
        "http://",
        "http://localhost:3010:1",
    ] {
        assert!(
            !local().allows_origin(Some(origin), Some("localhost:3010")),
            "{origin:?}"
        );
    }
}

#[test]
fn a_page_with_the_same_strange_name_as_its_host_header_is_still_refused() {
    let (origin, host) = (Some("http://evil.com:3010"), Some("evil.com:3010"));
    assert!(!local().allows_origin(origin, host));
}

#[test]
fn configured_origins_are_compared_whole() {
    let rules = rules(
        "127.0.0.1:3010",
        &["https://app.example.com", "vscode-webview://abc"],
    );
    assert!(rules.allows_origin(Some("https://app.example.com"), None));
    assert!(rules.allows_origin(Some("vscode-webview://abc"), None));
    assert!(!rules.allows_origin(Some("http://app.example.com"), None));
    assert!(!rules.allows_origin(Some("https://app.example.com:8443"), None));
    assert!(!rules.allows_host(Some("app.example.com")));
}

#[test]
fn every_entry_that_is_no_host_and_no_origin_is_named() {
    let extra: Vec<String> = [
        "*",
        "good.example.com",
        "https://a/b",
        "a b",
        "1://x",
        "user@host",
    ]
    .map(Into::into)
    .into();
    let issues = WebRules::new("127.0.0.1:3010".parse().unwrap(), &extra).unwrap_err();
    let paths: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
    assert_eq!(paths, ["[0]", "[2]", "[3]", "[4]", "[5]"]);
}

proptest! {
    #[test]
    fn only_loopback_in_its_plain_forms_gets_through(host in ".{0,30}|[a-z0-9.:@\\[\\]/-]{0,25}") {
        if local().allows_host(Some(&host)) {
            let bare = host.to_ascii_lowercase();
            let bare = match bare.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
                _ => bare,
            };
            let address: Option<IpAddr> = bare.trim_matches(['[', ']']).parse().ok();
            prop_assert!(bare == "localhost" || address.is_some_and(|a| a.to_canonical().is_loopback()));
        }
    }

    #[test]
    fn nothing_can_be_added_to_a_good_host(before in ".{0,8}", after in ".{0,8}") {
        for name in ["localhost", "127.0.0.1", "[::1]"] {
            let host = format!("{before}{name}{after}");
            let port = after.strip_prefix(':').is_some_and(|p| !p.is_empty() && p.parse::<u16>().is_ok());
            let harmless = before.is_empty() && (after.is_empty() || port);
            // `1` before or after an IPv4 address can make another loopback address.
            let address = host.split(':').next().is_some_and(|h| h.parse::<Ipv4Addr>().is_ok());
            if !harmless && !address {
                prop_assert!(!local().allows_host(Some(&host)), "{:?}", host);
                let origin = format!("http://{host}");
                prop_assert!(!local().allows_origin(Some(&origin), Some("localhost")), "{}", origin);
            }
        }
    }

    #[test]
    fn no_origin_gets_through_whose_host_would_not(host in "[a-z0-9.:@\\[\\]/-]{0,25}") {
        let origin = format!("https://{host}");
        let good = local().allows_origin(Some(&origin), Some("localhost"));
        prop_assert_eq!(good, local().allows_host(Some(&host)));
    }
}
