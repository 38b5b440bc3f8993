//! Who gives the tokens that a server wants (RFC 9728, RFC 8414, `OpenID` Connect Discovery).
//!
//! Addresses that the server or its authorization server names come from strangers: they are asked over `https`
//! and the public internet, unless their origin is the server's own or that of the configured issuer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use parking_lot::Mutex;
use tokio::time::Instant;
use url::{Host, Url};
use vaxel_auth::oauth::{
    discovery::{
        Challenge, DOCUMENT_MAX, ResourceMetadata, ServerMetadata, resource_addresses,
        server_addresses,
    },
    grant::Form,
};
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
    time::Timestamp,
};
use vaxel_egress::Body;

use super::Wanted;
use crate::control::Control;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what was found is good for further users who have no token.
const FRESH: Duration = Duration::from_mins(1);

/// What was found last, by service; those that are gone are few and small.
pub(super) type Known = Mutex<HashMap<Id<Service>, (Timestamp, String, Arc<Found>)>>;

/// Who gives the tokens of a server.
#[derive(Debug)]
pub(super) struct Found {
    /// What they are to be meant for.
    pub(super) resource: String,
    /// All scopes that the server knows.
    pub(super) scopes: Vec<String>,
    pub(super) server: ServerMetadata,
}

/// What is posted, and as what.
pub(super) enum Post<'a> {
    Form(&'a Form),
    Json(String),
}

impl Control {
    /// Who gives the tokens of a server that refused a request with this challenge. What was found a moment ago
    /// is taken where `may_know`.
    pub(super) async fn found(
        &self,
        wanted: &Wanted,
        challenge: &Challenge,
        may_know: bool,
    ) -> Result<Arc<Found>, Failure> {
        let (service, now) = (wanted.resource.id, self.now());
        let mark = format!("{}{challenge:?}", wanted.mark());
        let known = self
            .inner
            .upstream_tokens
            .found
            .lock()
            .get(&service)
            .cloned();
        if let Some((at, of, found)) = known
            && may_know
            && of == mark
            && now.since(at) < FRESH
        {
            return Ok(found);
        }
        let found = Arc::new(self.look_for(wanted, challenge).await?);
        let entry = (now, mark, Arc::clone(&found));
        self.inner
            .upstream_tokens
            .found
            .lock()
            .insert(service, entry);
        Ok(found)
    }

    async fn look_for(&self, wanted: &Wanted, challenge: &Challenge) -> Result<Found, Failure> {
        let Some(resource) = self.resource_metadata(wanted, challenge).await? else {
            // A server of MCP 2025-03-26 is its own authorization server.
            let origin = wanted.url.origin().ascii_serialization();
            let issuer = wanted.oauth.issuer.clone().unwrap_or(origin);
            let server = self.server_metadata(wanted, &issuer).await?;
            let is_own = wanted.oauth.issuer.is_none();
            let server = server.or_else(|| is_own.then(|| ServerMetadata::presumed(&wanted.url)));
            return Ok(Found {
                resource: canonical(&wanted.url),
                scopes: Vec::new(),
                server: server.ok_or_else(|| says_nothing(wanted, &issuer))?,
            });
        };
        let issuer = match &wanted.oauth.issuer {
            Some(issuer) if resource.servers.contains(issuer) => issuer,
            Some(issuer) => {
                let detail = format!(
                    "it names the authorization server {}, and `issuer` says {issuer}",
                    resource.servers.join(", ")
                );
                return Err(wanted.failed(Kind::UpstreamUnavailable, detail));
            }
            // There is at least one.
            None => resource
                .servers
                .first()
                .ok_or_else(|| says_nothing(wanted, ""))?,
        };
        let server = self.server_metadata(wanted, issuer).await?;
        Ok(Found {
            server: server.ok_or_else(|| says_nothing(wanted, issuer))?,
            resource: resource.resource,
            scopes: resource.scopes,
        })
    }

    /// What the server says of itself: where its challenge says, else where such things are.
    async fn resource_metadata(
        &self,
        wanted: &Wanted,
        challenge: &Challenge,
    ) -> Result<Option<ResourceMetadata>, Failure> {
        let said = challenge.resource_metadata.clone();
        let places = resource_addresses(&wanted.url)
            .into_iter()
            .map(String::from);
        for place in said.into_iter().chain(places) {
            let (status, document) = self.reach(wanted, &place, None).await?;
            if status == 200 {
                let read = ResourceMetadata::read(&document, &wanted.url);
                return read.map(Some).map_err(|why| {
                    let detail = format!("what it says of itself at {place} cannot be used, {why}");
                    wanted.failed(Kind::UpstreamProtocol, detail)
                });
            }
            says_none(wanted, &place, status)?;
        }
        Ok(None)
    }

    async fn server_metadata(
        &self,
        wanted: &Wanted,
        issuer: &str,
    ) -> Result<Option<ServerMetadata>, Failure> {
        let url = Url::parse(issuer).map_err(|_| says_nothing(wanted, issuer))?;
        for place in server_addresses(&url) {
            let (status, document) = self.reach(wanted, place.as_str(), None).await?;
            if status == 200 {
                let read = ServerMetadata::read(&document, issuer);
                return read.map(Some).map_err(|why| {
                    let detail =
                        format!("what {issuer} says of itself at {place} cannot be used, {why}");
                    wanted.failed(Kind::UpstreamProtocol, detail)
                });
            }
            says_none(wanted, place.as_str(), status)?;
        }
        Ok(None)
    }

    /// Asks an address, or posts something there: status and body. Redirects are not followed.
    pub(super) async fn reach(
        &self,
        wanted: &Wanted,
        address: &str,
        post: Option<Post<'_>>,
    ) -> Result<(u16, Bytes), Failure> {
        let failed = |why: String| {
            let detail = format!("{address} cannot be asked, {why}");
            wanted.failed(Kind::UpstreamUnavailable, detail)
        };
        let url = Url::parse(address).map_err(|error| failed(error.to_string()))?;
        let is_near = is_near(&wanted.url, wanted.oauth.issuer.as_deref(), &url);
        if url.scheme() != "https" && !is_near {
            return Err(failed("since it is not https".to_owned()));
        }
        let egress = if is_near {
            self.inner.context.egress(&wanted.resource)
        } else {
            self.inner.oauth.egress()?
        };
        let deadline = Instant::now() + PATIENCE;
        let asked = async {
            let target = egress.origin(&url)?;
            let mut request = request_of(post);
            *request.uri_mut() = target.uri().clone();
            let reply = target.send(request, deadline).await?;
            let status = reply.parts.status.as_u16();
            Ok::<_, vaxel_egress::Error>((
                status,
                reply.body.collect(DOCUMENT_MAX, deadline).await?,
            ))
        };
        asked.await.map_err(|error| failed(error.to_string()))
    }
}

/// An outage is not taken for the word that there is no such document.
fn says_none(wanted: &Wanted, place: &str, status: u16) -> Result<(), Failure> {
    if status < 500 && status != 429 {
        return Ok(());
    }
    let detail = format!("{place} answered with status {status}");
    Err(wanted.failed(Kind::UpstreamUnavailable, detail))
}

/// Whether an address belongs to what whoever configured the service named: the origin of the server, or that of
/// its issuer. Port and scheme count: what else listens on a host was not named. A server on this machine may have
/// its authorization server at another port of it, as it is in development and in tests.
fn is_near(server: &Url, issuer: Option<&str>, url: &Url) -> bool {
    let issuer = issuer.and_then(|issuer| Url::parse(issuer).ok());
    let mut named = [Some(server), issuer.as_ref()].into_iter().flatten();
    let is_web = matches!(url.scheme(), "http" | "https");
    named.any(|known| {
        let is_safe = known.scheme() == "http" || url.scheme() == "https";
        let is_same_machine = is_here(known) && known.host() == url.host() && is_safe;
        known.origin() == url.origin() || is_same_machine
    }) && is_web
}

/// Whether the host of an address is this machine, whatever a name server says.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn request_of(post: Option<Post<'_>>) -> Request<Body> {
    let mut request = Request::new(Body::Empty);
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let (kind, body) = match post {
        None => return request,
        Some(Post::Form(form)) => {
            let authorization = form.authorization.as_ref();
            if let Some(Ok(mut value)) =
                authorization.map(|text| HeaderValue::from_str(text.expose()))
            {
                value.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, value);
            }
            ("application/x-www-form-urlencoded", form.body.clone())
        }
        Some(Post::Json(text)) => ("application/json", text),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    *request.method_mut() = Method::POST;
    *request.body_mut() = Body::Full(body.into());
    request
}

/// The server as what a token is meant for (RFC 8707 §2).
fn canonical(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    let text = String::from(url.clone());
    if url.path() == "/" && url.query().is_none() {
        return text.trim_end_matches('/').to_owned();
    }
    text
}

fn says_nothing(wanted: &Wanted, issuer: &str) -> Failure {
    let detail = format!("nothing says what its authorization server {issuer} is");
    wanted.failed(Kind::UpstreamUnavailable, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_configured_is_near_and_another_port_only_on_this_machine() {
        let near = |server: &str, issuer: Option<&str>, url: &str| {
            is_near(&server.parse().unwrap(), issuer, &url.parse().unwrap())
        };
        let intranet = "http://10.0.0.5:8080/mcp";
        for (server, issuer, url) in [
            (intranet, None, "http://10.0.0.5:8080/token"),
            (
                intranet,
                Some("https://sso.corp/realms/x"),
                "https://sso.corp/token",
            ),
            ("https://a.example/mcp", None, "https://a.example:443/token"),
            (
                "http://127.0.0.1:3000/mcp",
                None,
                "http://127.0.0.1:4000/token",
            ),
            (
                "http://localhost:3000/mcp",
                None,
                "http://localhost:4000/token",
            ),
            ("http://[::1]:3000/mcp", None, "https://[::1]:4000/token"),
            (
                intranet,
                Some("http://localhost:1/x"),
                "http://localhost:2/token",
            ),
        ] {
            assert!(near(server, issuer, url), "{server} {issuer:?} {url}");
        }
        for (server, issuer, url) in [
            (intranet, None, "http://10.0.0.5:6379/token"),
            (intranet, None, "http://10.0.0.5/token"),
            (intranet, None, "https://10.0.0.5:8080/token"),
            (intranet, None, "http://127.0.0.1:8080/token"),
            (
                intranet,
                Some("https://sso.corp"),
                "https://sso.corp:8443/token",
            ),
            (intranet, Some("https://sso.corp"), "http://sso.corp/token"),
            (
                "https://a.example/mcp",
                None,
                "https://a.example:8443/token",
            ),
            ("https://a.example/mcp", None, "https://b.a.example/token"),
            (
                "https://localhost:3000/mcp",
                None,
                "http://localhost:4000/token",
            ),
            (
                "http://localhost:3000/mcp",
                None,
                "http://127.0.0.1:3000/token",
            ),
            (
                "http://127.0.0.1:3000/mcp",
                None,
                "http://127.0.0.2:3000/token",
            ),
            (
                "http://x.localhost:3000/mcp",
                None,
                "http://x.localhost:4000/token",
            ),
            (intranet, None, "file:///etc/passwd"),
        ] {
            assert!(!near(server, issuer, url), "{server} {issuer:?} {url}");
        }
    }
}
