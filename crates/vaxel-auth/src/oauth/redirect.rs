//! Addresses that the answer to an authorization may go to (OAuth 2.1 §2.3; RFC 8252 §7).

use std::net::IpAddr;

use url::{Host, Url};

/// Longest address, bytes.
pub const LONGEST: usize = 2_000;
/// Schemes that a browser or its system acts on by itself, or that lead to no program of the client's.
const OF_BROWSERS: &str = "javascript data vbscript livescript mocha file filesystem blob about view-source feed ftp ftps \
    sftp gopher ws wss mailto tel sms smsto callto facetime sip sips irc ircs news nntp webcal \
    magnet chrome devtools edge brave opera vivaldi resource wyciwyg jar res mhtml mk its hcp cid \
    mid urn content intent android-app market googlechrome googlechromes firefox search search-ms \
    shell help ldap ldaps ssh telnet smb nfs rdp vnc steam itms itms-apps itms-services extension \
    isolated-app safari-extension safari-web-extension moz-extension";
/// What the schemes of such programs begin with: those of browsers, of Windows, and of sites that take a scheme.
const OF_BROWSERS_BEGIN: &[&str] = &["chrome-", "moz-", "ms-", "web+", "x-apple", "ext+"];

/// Whether a client may give this as one of its redirect addresses: `https`, `http` on the user's own machine,
/// or a scheme of its own (RFC 8252 §7.1). No fragment, no user, nothing that two readers could take differently.
pub fn is_allowed(address: &str) -> bool {
    let is_plain = address.len() <= LONGEST && address.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain || address.contains(['\\', '<', '>', '"', '`', '#', '*']) {
        return false;
    }
    let Ok(url) = Url::parse(address) else {
        return false;
    };
    if !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    // A policy of a page names the host, where these part sources and directives.
    if url
        .host_str()
        .is_some_and(|host| host.contains([';', ',', '\'']))
    {
        return false;
    }
    // `https:x` and `https:///x` are read as `https://x` by browsers, and otherwise by others.
    let is_written_out = |scheme: &str| {
        let rest = address
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"));
        rest.is_some_and(|rest| !rest.starts_with('/'))
    };
    match url.scheme() {
        "https" => is_written_out("https") && url.has_host(),
        "http" => is_written_out("http") && is_on_this_machine(&url),
        own => {
            let begins = |with: &&str| own.starts_with(with);
            !OF_BROWSERS.split(' ').any(|one| one == own) && !OF_BROWSERS_BEGIN.iter().any(begins)
        }
    }
}

/// Whether `asked` is the `registered` address: to the letter, except for the port on the user's own machine,
/// which a program gets from its system (RFC 8252 §7.3).
pub fn is_same(registered: &str, asked: &str) -> bool {
    if registered == asked {
        return true;
    }
    let (Some((one, its)), Some((other, rest))) = (without_port(registered), without_port(asked))
    else {
        return false;
    };
    one == other && its == rest
}

/// Whether an answer goes to a program on the user's own machine: whoever listens there gets it.
pub fn is_local(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| url.scheme() != "https")
}

/// Whether a browser that is sent to `address` shows there what it keeps for the server at `base`: cookies know
/// hosts and no ports (RFC 6265 §8.5). All names of the user's own machine count as one host.
pub fn shows_cookies_of(base: &str, address: &str) -> bool {
    let (Ok(base), Ok(url)) = (Url::parse(base), Url::parse(address)) else {
        return false;
    };
    matches!(url.scheme(), "http" | "https")
        && (base.host() == url.host() || is_on_this_machine(&base) && is_on_this_machine(&url))
}

/// Where an answer goes, for people: the host, or the scheme of a program.
pub fn shown(address: &str) -> String {
    match Url::parse(address) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            url.host_str().unwrap_or_default().to_owned()
        }
        Ok(url) => format!("{}:", url.scheme()),
        Err(_) => String::new(),
    }
}

/// What a page's policy has to name so that its form may lead there (CSP `form-action`).
pub fn source(address: &str) -> String {
    match Url::parse(address) {
        // An IPv6 address is no source that browsers read.
        Ok(url) if matches!(url.host(), Some(Host::Ipv6(_))) => format!("{}:", url.scheme()),
        Ok(url) if matches!(url.scheme(), "http" | "https") => url.origin().ascii_serialization(),
        Ok(url) => format!("{}:", url.scheme()),
        Err(_) => String::new(),
    }
}

/// The address with these parameters added to its query, in the form of RFC 6749 appendix B.
pub fn with(address: &str, parameters: &[(&str, &str)]) -> String {
    // Appended to the text: a registered address stays as it was given.
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish();
    let joint = match address.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{address}{joint}{query}")
}

fn is_on_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What is before the port of an `http` address of the user's own machine, and what is after it.
fn without_port(address: &str) -> Option<(&str, &str)> {
    let url = Url::parse(address).ok()?;
    if url.scheme() != "http" || !is_on_this_machine(&url) {
        return None;
    }
    let authority = address.strip_prefix("http://")?;
    let end = authority.find(['/', '?']).unwrap_or(authority.len());
    let (host, rest) = authority.split_at(end);
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    Some((host, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_programs_and_sites_are_allowed_and_tricks_are_not() {
        for good in [
            "https://claude.ai/api/mcp/auth_callback",
            "https://vscode.dev/redirect",
            "http://127.0.0.1:33418/",
            "http://localhost/callback",
            "http://[::1]:8000/cb",
            "cursor://anysphere.cursor-retrieval/oauth/user-x/callback",
            "com.example.app:/oauth",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "",
            "/callback",
            "//evil.example/x",
            "http://client.example/cb",
            "http://localhost.evil.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://localhost@evil.example/cb",
            "https://client.example@evil.example/cb",
            "https://client.example/cb#token",
            "https://client.example\\@evil.example/",
            "https://*.example/cb",
            "https://client.example/cb\r\nLocation: x",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "https:evil.example/cb",
            "https:/evil.example/cb",
            "https:///evil.example/cb",
            "HTTPS://evil.example/cb",
            "http:127.0.0.1/cb",
            "https://a;script-src.example/cb",
            "https://a,b.example/cb",
            "https://a'b.example/cb",
            "cursor://a;b/cb",
            "intent://scan/#Intent",
            "intent:x",
            "ms-msdt:/id",
            "search-ms:query=x",
            "web+app://x",
            "chrome-extension://abc/x",
            "moz-extension://abc/x",
            "https://client.example/ cb",
            &format!("https://client.example/{}", "x".repeat(LONGEST)),
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn only_the_port_of_a_program_on_this_machine_may_differ() {
        assert!(is_same("http://127.0.0.1/cb", "http://127.0.0.1:4711/cb"));
        assert!(is_same(
            "http://localhost:1/cb?x=1",
            "http://localhost:2/cb?x=1"
        ));
        assert!(is_same("http://[::1]:1/cb", "http://[::1]:2/cb"));
        assert!(is_same("https://a.example/cb", "https://a.example/cb"));
        for (registered, asked) in [
            ("https://a.example/cb", "https://a.example:8443/cb"),
            ("https://a.example/cb", "https://a.example/cb/"),
            ("https://a.example/cb", "https://a.example/cb?x=1"),
            ("https://a.example/cb", "https://a.example/CB"),
            ("https://a.example/cb", "https://a.example/x/../cb"),
            ("https://a.example/cb", "https://a.example.evil.example/cb"),
            ("http://127.0.0.1/cb", "http://localhost/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb2"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1@evil.example/cb"),
            ("http://127.0.0.1/cb", "https://127.0.0.1/cb"),
            ("cursor://x/cb", "cursor://x:1/cb"),
        ] {
            assert!(!is_same(registered, asked), "{registered} {asked}");
        }
    }

    #[test]
    fn an_answer_is_added_to_what_the_address_has() {
        assert_eq!(
            with("https://a.example/cb", &[("code", "a b&c")]),
            "https://a.example/cb?code=a+b%26c"
        );
        assert_eq!(
            with("app:/cb?x=1", &[("iss", "http://h")]),
            "app:/cb?x=1&iss=http%3A%2F%2Fh"
        );
    }

    #[test]
    fn cookies_are_shown_at_every_port_of_their_host_and_nowhere_else() {
        for (base, address) in [
            ("http://127.0.0.1:3010", "http://127.0.0.1:7000/cb"),
            ("http://127.0.0.1:3010", "http://localhost/cb"),
            ("http://localhost:3010", "http://[::1]:1/cb"),
            ("https://v.example", "https://V.example:8443/cb"),
        ] {
            assert!(shows_cookies_of(base, address), "{base} {address}");
        }
        for (base, address) in [
            ("https://v.example", "http://127.0.0.1:7000/cb"),
            ("https://v.example", "https://a.v.example/cb"),
            ("http://127.0.0.1:3010", "cursor://127.0.0.1/cb"),
            ("http://127.0.0.1:3010", "https://a.example/cb"),
        ] {
            assert!(!shows_cookies_of(base, address), "{base} {address}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_leaves_the_origin_of_its_address(path in "[a-z0-9/?=&]{0,20}", value: String) {
            let address = format!("https://a.example/{path}");
            if is_allowed(&address) {
                let to = with(&address, &[("state", &value)]);
                let url = Url::parse(&to).unwrap();
                prop_assert_eq!(url.origin().ascii_serialization(), "https://a.example");
                prop_assert!(url.fragment().is_none());
                let found = url.query_pairs().filter(|(name, _)| name == "state").last().unwrap().1.into_owned();
                prop_assert_eq!(found, value);
            }
        }

        #[test]
        fn no_source_of_a_page_s_policy_has_more_than_one_word(host in "[a-z0-9.;,' -]{1,20}") {
            let address = format!("https://{host}/cb");
            if is_allowed(&address) {
                prop_assert!(!source(&address).contains([';', ',', '\'', ' ']), "{}", source(&address));
            }
        }

        #[test]
        fn no_text_breaks_the_readers(one: String, other: String) {
            let _ = (is_allowed(&one), is_same(&one, &other), source(&one), shown(&one));
        }
    }
}
