//! Which `Host` and `Origin` headers may reach this server.
//!
//! A web page can make the browser of a person send requests here: through a name of its own that
//! it points at this machine (DNS rebinding: the `Host` is its name), or across origins (the
//! `Origin` is its own). Both headers are written by the browser, so refusing strange ones stops
//! such pages, whatever key or cookie the browser would add. Programs that are no browser send no
//! `Origin`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use vaxel_core::failure::Issue;

/// The rules of one listener. Values are compared in place: checking allocates nothing.
#[derive(Debug, Clone)]
pub struct WebRules {
    listen: IpAddr,
    /// Configured hosts: good as `Host`, and as the host of an `http` or `https` origin.
    hosts: Vec<Named>,
    /// Configured origins, `scheme://host` or `scheme://host:port`: good as `Origin` only.
    origins: Vec<String>,
}

/// A configured host.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    address: Option<IpAddr>,
    /// Any, when absent.
    port: Option<u16>,
}

impl WebRules {
    /// The rules of a listener at `listen`. Each of `extra` is a host (`vaxel.example.com`,
    /// `10.0.0.5`, `[fd00::5]`), a host with a port, or an origin (`https://app.example.com`).
    ///
    /// # Errors
    /// All entries that are none of these; the paths are their indices, such as `[2]`.
    pub fn new(listen: SocketAddr, extra: &[String]) -> Result<Self, Vec<Issue>> {
        let (mut hosts, mut origins, mut issues) = (Vec::new(), Vec::new(), Vec::new());
        for (index, entry) in extra.iter().enumerate() {
            let origin = entry.split_once("://");
            match (origin, Authority::parse(origin.map_or(entry, |(_, authority)| authority))) {
                (Some((scheme, _)), Some(_)) if is_scheme(scheme) => origins.push(entry.clone()),
                (None, Some(authority)) => hosts.push(authority.to_named()),
                _ => issues.push(Issue::new(
                    format!("[{index}]"),
                    format!(
                        "`{entry}` is neither a host such as vaxel.example.com or 10.0.0.5:3010, nor \
                         an origin such as https://app.example.com"
                    ),
                )),
            }
        }
        let listen = listen.ip().to_canonical();
        if issues.is_empty() {
            Ok(Self {
                listen,
                hosts,
                origins,
            })
        } else {
            Err(issues)
        }
    }

    /// Whether a request with this `Host` header may come in. None at all may not: HTTP/1.1 requires
    /// it (RFC 9112 §3.2) and every browser sends it.
    ///
    /// Good are the names of this machine's loopback with any port (a tunnel has its own), the
    /// address that is listened at (any address when all are listened at: a rebinding page comes
    /// with a name), and the configured hosts.
    pub fn allows_host(&self, host: Option<&str>) -> bool {
        let Some(host) = host.and_then(Authority::parse) else {
            return false;
        };
        let everywhere = self.listen.is_unspecified() && host.address.is_some();
        everywhere || self.knows(host)
    }

    /// Whether a request with this `Origin` header may come in, given its `Host`.
    ///
    /// None at all is good: programs send none. `null` (a sandboxed frame, a file) is not. Good are
    /// the same hosts as in `Host`, except that an address is good only when it is one of our own or
    /// the very one that the request went to; and the configured origins.
    pub fn allows_origin(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self
            .origins
            .iter()
            .any(|configured| configured.eq_ignore_ascii_case(origin))
        {
            return true;
        }
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let Some(authority) = Authority::parse(authority) else {
            return false;
        };
        self.knows(authority) || {
            self.allows_host(host)
                && host.and_then(Authority::parse).is_some_and(|host| {
                    host.is_host_of(authority)
                        && host.port.unwrap_or(default_port)
                            == authority.port.unwrap_or(default_port)
                })
        }
    }

    fn knows(&self, host: Authority<'_>) -> bool {
        let here = match host.address {
            Some(address) => address.is_loopback() || address == self.listen,
            None => host.name.eq_ignore_ascii_case("localhost"),
        };
        here || self.hosts.iter().any(|configured| configured.matches(host))
    }
}

impl Named {
    fn matches(&self, host: Authority<'_>) -> bool {
        let same = match (self.address, host.address) {
            (Some(configured), Some(address)) => configured == address,
            (None, None) => self.name.eq_ignore_ascii_case(host.name),
            _ => false,
        };
        same && (self.port.is_none() || self.port == host.port)
    }
}

/// `host` or `host:port` (RFC 3986 §3.2), without user information.
#[derive(Debug, Clone, Copy)]
struct Authority<'a> {
    name: &'a str,
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, address, port) = if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = inside.parse().ok()?;
            // A mapped IPv4 address is that address, also when it is listened at.
            (inside, Some(IpAddr::V6(address).to_canonical()), after)
        } else {
            let end = text.find(':').unwrap_or(text.len());
            let (name, after) = text.split_at(end);
            // Other notations of an IPv4 address (`127.1`, `0x7f000001`) stay names, and no one's.
            (name, name.parse::<Ipv4Addr>().ok().map(IpAddr::V4), after)
        };
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if address.is_none() && (name.is_empty() || !name.bytes().all(letters)) {
            return None;
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            None | Some(_) => return None,
        };
        Some(Self {
            name,
            address,
            port,
        })
    }

    fn is_host_of(self, other: Self) -> bool {
        match (self.address, other.address) {
            (Some(one), Some(other)) => one == other,
            (None, None) => self.name.eq_ignore_ascii_case(other.name),
            _ => false,
        }
    }

    fn to_named(self) -> Named {
        Named {
            name: self.name.to_owned(),
            address: self.address,
            port: self.port,
        }
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests;
