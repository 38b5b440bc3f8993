//! The flags of an HTTP service, and what they say.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

#[derive(Args)]
pub(super) struct HttpArgs {
    /// Instance of a service that speaks HTTP and no MCP; may be given several times
    #[arg(
        long,
        value_name = "HOST:PORT[=WEIGHT]",
        conflicts_with_all = ["command", "upstream"]
    )]
    pub(super) http: Vec<String>,
    /// Speak to it over TLS
    #[arg(long, requires = "http")]
    https: bool,
    /// Tool of such a service, called by `POST BASE/tools/NAME`; may be given several times
    #[arg(long, value_name = "NAME", requires = "http")]
    tool: Vec<String>,
    /// What stands before its paths, such as /api
    #[arg(long, value_name = "PATH", requires = "http")]
    base_path: Option<String>,
    /// Path that answers 2xx while an instance works, such as /health
    #[arg(long, value_name = "PATH", requires = "http")]
    health_path: Option<String>,
}

impl HttpArgs {
    /// The source that the flags describe.
    pub(super) fn source(&self, headers: &Map<String, Value>) -> anyhow::Result<Value> {
        let instances: anyhow::Result<Vec<Value>> =
            self.http.iter().map(|text| instance(text)).collect();
        let scheme = if self.https { "https" } else { "http" };
        let mut http = json!({
            "instances": instances?, "scheme": scheme, "headers": headers, "tools": self.tool,
        });
        for (key, path) in [
            ("base_path", &self.base_path),
            ("health_path", &self.health_path),
        ] {
            if let Some(path) = path {
                http[key] = path.as_str().into();
            }
        }
        Ok(json!({ "http": http }))
    }
}

/// `HOST:PORT`, or `HOST:PORT=WEIGHT`; an IPv6 address stands in brackets.
fn instance(text: &str) -> anyhow::Result<Value> {
    let wrong = || format!("--http takes HOST:PORT or HOST:PORT=WEIGHT, not `{text}`");
    let (place, weight) = match text.rsplit_once('=') {
        Some((place, weight)) => (place, weight.parse::<u16>().with_context(wrong)?),
        None => (text, 1),
    };
    let (host, port) = place.rsplit_once(':').with_context(wrong)?;
    let port: u16 = port.parse().with_context(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(json!({ "host": host, "port": port, "weight": weight }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_host_port_and_weight() {
        let check = |text: &str, host: &str, port: u16, weight: u16| {
            let expected = json!({ "host": host, "port": port, "weight": weight });
            assert_eq!(instance(text).unwrap(), expected, "{text}");
        };
        check("localhost:3008", "localhost", 3008, 1);
        check("10.0.0.7:80=3", "10.0.0.7", 80, 3);
        check("[::1]:3009=2", "::1", 3009, 2);
        for wrong in ["localhost", "h:x", "h:1=x", "h:70000"] {
            let refused = instance(wrong).unwrap_err().to_string();
            assert!(refused.contains(wrong), "{refused}");
        }
    }
}
