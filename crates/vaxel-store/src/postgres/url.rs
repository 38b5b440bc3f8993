//! What a PostgreSQL URL says, and what is wrong with one.

use std::{fmt, path::PathBuf, str::FromStr};

use tokio_postgres::config::{Host, SslMode};

/// Where the database is, and how to get in. It holds a password: it shows itself without.
#[derive(Clone)]
pub struct DatabaseUrl {
    pub(crate) config: tokio_postgres::Config,
    /// A file of certificates that are trusted besides those of the system.
    pub(super) roots: Option<PathBuf>,
    shown: String,
}

/// Why a text is no URL of a database; never the text itself, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidUrl(String);

impl DatabaseUrl {
    /// `PostgreSQL at HOST:PORT/DATABASE`, for people.
    pub(crate) fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) if name.contains(':') => format!("[{name}]"),
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::from("?"),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5_432);
        let name = self.config.get_dbname().unwrap_or_default();
        format!("PostgreSQL at {host}:{port}/{name}")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let wrong = |message: String| InvalidUrl(message);
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(wrong(
                "is no URL such as postgres://user:password@host:5432/database".to_owned(),
            ));
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut mode = None;
        let mut roots = None;
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(ssl_mode(value)?),
                Some(("sslrootcert", value)) => roots = Some(PathBuf::from(value)),
                _ => rest.push(pair),
            }
        }
        let parsed = format!("{base}?{}", rest.join("&"));
        let mut config: tokio_postgres::Config = parsed.parse().map_err(|error| {
            let reason = reason(&error);
            wrong(format!(
                "is no URL that PostgreSQL's clients know: {reason}"
            ))
        })?;
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        if config.get_hosts().len() > 1 {
            let message = "names several hosts: name one, which may be a proxy in front of them";
            return Err(wrong(message.to_owned()));
        }
        let Some(user) = config.get_user().map(str::to_owned) else {
            return Err(wrong(
                "names no user: postgres://USER@host/database".to_owned(),
            ));
        };
        if config.get_dbname().is_none_or(str::is_empty) {
            config.dbname(user);
        }
        let local = config.get_hosts().iter().all(is_local);
        let default = if local {
            SslMode::Disable
        } else {
            SslMode::Require
        };
        config.ssl_mode(mode.unwrap_or(default));
        Ok(Self {
            config,
            roots,
            shown: without_password(text),
        })
    }
}

/// Encrypted is verified, too: what is encrypted for a stranger is no secret.
fn ssl_mode(text: &str) -> Result<SslMode, InvalidUrl> {
    match text {
        "disable" => Ok(SslMode::Disable),
        "require" | "verify-ca" | "verify-full" => Ok(SslMode::Require),
        _ => Err(InvalidUrl(
            "has an sslmode that is none of disable, require, verify-ca, verify-full (the last \
             three are the same here: the server's certificate and name are checked)"
                .to_owned(),
        )),
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse()
                    .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
    }
}

/// The text without what stands in the place of a password.
fn without_password(text: &str) -> String {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = base.split_once("://").unwrap_or(("", base));
    let base = match rest.rsplit_once('@') {
        Some((login, place)) => {
            let user = login.split(':').next().unwrap_or_default();
            let hidden = if login.contains(':') { ":***" } else { "" };
            format!("{scheme}://{user}{hidden}@{place}")
        }
        None => base.to_owned(),
    };
    let pairs: Vec<&str> = query
        .split('&')
        .map(|pair| {
            if pair.starts_with("password=") {
                "password=***"
            } else {
                pair
            }
        })
        .collect();
    if query.is_empty() {
        base
    } else {
        format!("{base}?{}", pairs.join("&"))
    }
}

fn reason(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let cases = [
            ("postgres://me:s3cr@t@db/x", "postgres://me:***@db/x"),
            (
                "postgresql://me@[::1]:5433/x",
                "postgresql://me@[::1]:5433/x",
            ),
            (
                "postgres://me@h/x?sslmode=disable&password=s3cr",
                "postgres://me@h/x?sslmode=disable&password=***",
            ),
        ];
        for (text, shown) in cases {
            assert_eq!(without_password(text), shown);
            let debug = text.parse::<DatabaseUrl>();
            assert!(!format!("{debug:?}").contains("s3cr"), "{debug:?}");
        }
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_the_url_says_otherwise() {
        let mode = |text: &str| {
            let url: DatabaseUrl = text.parse().expect("a URL");
            url.config.get_ssl_mode()
        };
        assert_eq!(mode("postgres://me@db.example.com/x"), SslMode::Require);
        assert_eq!(
            mode("postgres://me@db.example.com/x?sslmode=disable"),
            SslMode::Disable
        );
        for local in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpg"] {
            assert_eq!(mode(&format!("postgres://me@{local}/x")), SslMode::Disable);
        }
        assert_eq!(
            mode("postgres://me@localhost/x?sslmode=verify-full"),
            SslMode::Require
        );
    }

    #[test]
    fn a_wrong_url_is_told_without_being_shown() {
        let cases = [
            ("mysql://me:s3cr@h/x", "is no URL such as"),
            ("postgres://me:s3cr@h/x?sslmode=prefer", "sslmode"),
            ("postgres://me:s3cr@h/x?colour=red", "colour"),
            ("postgres://h/x", "names no user"),
            ("postgres://me:s3cr@a,b/x", "several hosts"),
            ("postgres://me:s3cr@h:port/x", "port"),
        ];
        for (text, part) in cases {
            let error = text.parse::<DatabaseUrl>().expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("s3cr"), "{error}");
        }
    }

    #[test]
    fn a_database_is_named_by_its_place() {
        let url: DatabaseUrl = "postgres://me:pw@db:5433/main?sslmode=disable"
            .parse()
            .expect("a URL");
        assert_eq!(url.place(), "PostgreSQL at db:5433/main");
        let url: DatabaseUrl = "postgres://me@localhost".parse().expect("a URL");
        assert_eq!(url.place(), "PostgreSQL at localhost:5432/me");
    }
}
