//! What can go wrong, said for two audiences: `detail` for the person who asked, `cause` for the log.
//!
//! [`facts`] is the one table that decides how a failure looks on every wire; the HTTP renderer
//! (RFC 9457) and the JSON-RPC renderer both read it, and every slug has a page in `docs/errors/`.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use crate::quota::Level;

/// A failure of one request. Crates with richer errors convert into it at their edge.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// Decides status, code and page.
    pub kind: Kind,
    /// One or two sentences for the caller: what happened, to what, what to do.
    pub detail: Cow<'static, str>,
    /// Every problem of an invalid input, when there is more than a sentence to say.
    pub issues: Vec<Issue>,
    /// After how many seconds a retry makes sense, when that is known.
    pub retry_after: Option<u32>,
    /// Version of what was to be changed, when the change was meant for another one.
    pub version: Option<u64>,
    /// It says that there is nothing because its caller may not know what there is.
    pub hides: bool,
    /// The limit that was reached, when it was one.
    pub level: Option<Box<Level>>,
    /// Where a person does what is missing.
    pub link: Option<Box<str>>,
    /// For the log only.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// A failure with the sentence that the caller reads.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            issues: Vec::new(),
            retry_after: None,
            version: None,
            hides: false,
            level: None,
            link: None,
            cause: None,
        }
    }

    /// Something broke that the caller can do nothing about; the cause stays in the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(
            Kind::Internal,
            "Something went wrong inside Vaxel; its log has the details",
        )
        .caused_by(cause)
    }

    /// An input with these problems. `what` is its name, as in "the service `files`".
    pub fn invalid(what: &str, issues: Vec<Issue>) -> Self {
        let count = issues.len();
        let plural = if count == 1 { "problem" } else { "problems" };
        let mut failure = Self::new(Kind::Invalid, format!("{what} has {count} {plural}"));
        failure.issues = issues;
        failure
    }

    /// The sentence and every problem, for whoever reads a text and nothing beside it.
    pub fn in_full(&self) -> Cow<'_, str> {
        if self.issues.is_empty() {
            return Cow::Borrowed(&self.detail);
        }
        let problems: Vec<String> = self.issues.iter().map(Issue::to_string).collect();
        format!("{}: {}", self.detail, problems.join("; ")).into()
    }

    /// Adds what the log needs.
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds when to try again.
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Says, for the audit, that it hides something.
    pub const fn hiding(mut self) -> Self {
        self.hides = true;
        self
    }

    /// Adds where a person does what is missing.
    pub fn to_be_done_at(mut self, link: impl Into<Box<str>>) -> Self {
        self.link = Some(link.into());
        self
    }

    /// Adds the version that there is.
    pub const fn at_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }
}

/// One problem of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Issue {
    /// Where: a key path such as `source.process.command` or `limits.timeout`.
    pub path: String,
    /// What is wrong and what would be right, as one sentence.
    pub message: String,
}

impl Issue {
    /// A problem at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// As a part of a sentence.
impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match &*self.path {
            "" => "the whole",
            path => path,
        };
        write!(f, "{path} {}", self.message)
    }
}

/// Classifies a [`Failure`] by what its caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The bytes are not what the endpoint reads (JSON, JSON-RPC, HTTP).
    Malformed,
    /// Well formed, but with problems; `issues` names them all.
    Invalid,
    /// The arguments of a tool call do not fit the tool's schema; `issues` says where.
    InvalidArguments,
    /// No credential, or one that is unknown, expired or revoked.
    Unauthenticated,
    /// Known caller, missing permission.
    NotPermitted,
    /// The Origin or Host header is not one that may reach this server.
    ForbiddenOrigin,
    /// No such service.
    UnknownService,
    /// No such set.
    UnknownToolset,
    /// No such tool.
    UnknownTool,
    /// No such prompt.
    UnknownPrompt,
    /// No such MCP resource.
    UnknownResource,
    /// No such thing of another kind.
    NotFound,
    /// The endpoint exists, the HTTP method does not.
    MethodNotAllowed,
    /// The name is taken, or the state does not allow the change.
    Conflict,
    /// `If-Match` names another version than the current one.
    VersionMismatch,
    /// A body, header, line or answer is over its limit.
    TooLarge,
    /// A queue or limit is full.
    Busy,
    /// The caller, or all callers together, have taken as much as they may in some time.
    RateLimited,
    /// The service is stopped, starting or broken.
    UpstreamUnavailable,
    /// The service did not answer in time.
    UpstreamTimeout,
    /// The service answered, but not with what the protocol allows.
    UpstreamProtocol,
    /// The service ended, or its connection broke, while this call was in flight.
    UpstreamLost,
    /// The service needs the client to answer a question that it cannot be asked.
    InteractionUnsupported,
    /// The service wants its user to log in there first; `link` says where.
    ConsentNeeded,
    /// The session is unknown or ended.
    UnknownSession,
    /// Nothing here can do this yet.
    Unsupported,
    /// The store cannot write (full disk, lost connection).
    StoreUnavailable,
    /// A fault of ours.
    Internal,
}

/// What follows from a [`Kind`] on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// HTTP status of REST answers.
    pub status: u16,
    /// Last part of the problem's `type` URL and name of its page.
    pub slug: &'static str,
    /// Short, constant summary.
    pub title: &'static str,
    /// JSON-RPC error code; the MCP edges replace it where the caller's revision has its own.
    pub code: i32,
    /// Whether repeating the same request can succeed.
    pub retry: Retry,
}

/// Whether repeating the same request can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not without changing something.
    Never,
    /// Later, with the same request.
    Later,
}

impl Facts {
    const fn new(
        status: u16,
        slug: &'static str,
        title: &'static str,
        code: i32,
        retry: Retry,
    ) -> Self {
        Self {
            status,
            slug,
            title,
            code,
            retry,
        }
    }
}

/// The table. JSON-RPC codes outside the standard's own are application codes of this server:
/// positive, as the MCP 2026-07-28 error-code policy asks of new ones.
pub const fn facts(kind: Kind) -> Facts {
    use Retry::{Later, Never};
    match kind {
        Kind::Malformed => Facts::new(400, "malformed", "Malformed request", -32700, Never),
        Kind::Invalid => Facts::new(422, "invalid", "Invalid input", -32602, Never),
        Kind::InvalidArguments => Facts::new(
            422,
            "invalid-arguments",
            "Arguments do not fit the tool",
            -32602,
            Never,
        ),
        Kind::Unauthenticated => Facts::new(
            401,
            "unauthenticated",
            "Authentication required",
            1401,
            Never,
        ),
        Kind::NotPermitted => Facts::new(403, "not-permitted", "Not permitted", 1403, Never),
        Kind::ForbiddenOrigin => Facts::new(
            403,
            "forbidden-origin",
            "Origin or host not allowed",
            1403,
            Never,
        ),
        Kind::UnknownService => {
            Facts::new(404, "unknown-service", "Unknown service", -32602, Never)
        }
        Kind::UnknownToolset => Facts::new(404, "unknown-set", "Unknown set", -32602, Never),
        Kind::UnknownTool => Facts::new(404, "unknown-tool", "Unknown tool", -32602, Never),
        Kind::UnknownPrompt => Facts::new(404, "unknown-prompt", "Unknown prompt", -32602, Never),
        Kind::UnknownResource => {
            Facts::new(404, "unknown-resource", "Unknown resource", -32602, Never)
        }
        Kind::NotFound => Facts::new(404, "not-found", "Not found", -32601, Never),
        Kind::MethodNotAllowed => Facts::new(
            405,
            "method-not-allowed",
            "Method not allowed",
            -32601,
            Never,
        ),
        Kind::Conflict => Facts::new(409, "conflict", "Conflict", 1409, Never),
        Kind::VersionMismatch => Facts::new(
            412,
            "version-mismatch",
            "Changed by someone else",
            1412,
            Never,
        ),
        Kind::TooLarge => Facts::new(413, "too-large", "Too large", -32600, Never),
        Kind::Busy => Facts::new(429, "busy", "Too busy", 1429, Later),
        Kind::RateLimited => Facts::new(429, "rate-limited", "Limit reached", 1429, Later),
        Kind::UpstreamUnavailable => Facts::new(
            503,
            "upstream-unavailable",
            "Service unavailable",
            1503,
            Later,
        ),
        Kind::UpstreamTimeout => Facts::new(
            504,
            "upstream-timeout",
            "Service did not answer in time",
            1504,
            Later,
        ),
        Kind::UpstreamProtocol => Facts::new(
            502,
            "upstream-protocol",
            "Service broke the protocol",
            1502,
            Later,
        ),
        Kind::UpstreamLost => Facts::new(
            502,
            "upstream-lost",
            "Service ended during the call",
            1502,
            Later,
        ),
        Kind::InteractionUnsupported => Facts::new(
            422,
            "interaction-unsupported",
            "The service asked a question that cannot be passed on",
            1422,
            Never,
        ),
        Kind::ConsentNeeded => Facts::new(424, "consent-needed", "Log in there first", 1424, Later),
        Kind::UnknownSession => {
            Facts::new(404, "unknown-session", "Unknown session", -32600, Never)
        }
        Kind::Unsupported => Facts::new(501, "unsupported", "Not supported", -32601, Never),
        Kind::StoreUnavailable => {
            Facts::new(503, "store-unavailable", "Store cannot write", 1503, Later)
        }
        Kind::Internal => Facts::new(500, "internal", "Internal error", -32603, Later),
    }
}

/// Every kind, for the tests that walk them (pages, OpenAPI).
pub const KINDS: &[Kind] = &[
    Kind::Malformed,
    Kind::Invalid,
    Kind::InvalidArguments,
    Kind::Unauthenticated,
    Kind::NotPermitted,
    Kind::ForbiddenOrigin,
    Kind::UnknownService,
    Kind::UnknownToolset,
    Kind::UnknownTool,
    Kind::UnknownPrompt,
    Kind::UnknownResource,
    Kind::NotFound,
    Kind::MethodNotAllowed,
    Kind::Conflict,
    Kind::VersionMismatch,
    Kind::TooLarge,
    Kind::Busy,
    Kind::RateLimited,
    Kind::UpstreamUnavailable,
    Kind::UpstreamTimeout,
    Kind::UpstreamProtocol,
    Kind::UpstreamLost,
    Kind::InteractionUnsupported,
    Kind::ConsentNeeded,
    Kind::UnknownSession,
    Kind::Unsupported,
    Kind::StoreUnavailable,
    Kind::Internal,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_alone_says_every_problem() {
        let issues = vec![
            Issue::new("/a", "is missing"),
            Issue::new("", "is too deep"),
        ];
        let failure = Failure::invalid("The call", issues);
        let text = "The call has 2 problems: /a is missing; the whole is too deep";
        assert_eq!(failure.in_full(), text);
        assert_eq!(Failure::new(Kind::Busy, "Full").in_full(), "Full");
    }

    #[test]
    fn slugs_are_unique() {
        let mut slugs: Vec<_> = KINDS.iter().map(|kind| facts(*kind).slug).collect();
        slugs.sort_unstable();
        let all = slugs.len();
        slugs.dedup();
        assert_eq!(slugs.len(), all);
    }
}
