//! What can go wrong between a program and Vaxel.

use std::path::PathBuf;

use http::StatusCode;
use serde::Deserialize;
use url::Url;

/// A request that did not come to its answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None uses this data directory.
    #[error("No Vaxel runs on {}; `vaxel up` starts one", .0.display())]
    NotRunning(PathBuf),
    /// Nothing answers there.
    #[error("No Vaxel answers at {url}; `vaxel up` starts one on this machine")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        source: vaxel_egress::Error,
    },
    /// Vaxel refused, and says why.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The connection broke.
    #[error("The connection to Vaxel broke")]
    Broken(#[from] vaxel_egress::Error),
    /// An answer stopped on its way.
    #[error("Vaxel stopped in the middle of its answer; try again")]
    Silent,
    /// A stream that cannot be read any further.
    #[error("Vaxel's stream cannot be read: {0}")]
    Endless(vaxel_core::sse::TooLong),
    /// Not what was expected.
    #[error("Vaxel's answer cannot be read: {0}")]
    Unreadable(serde_json::Error),
    /// The key holds characters that no key has.
    #[error("The key holds characters that no key has")]
    BadKey,
    /// The path is not one.
    #[error("`{0}` is not a path")]
    BadPath(String),
}

impl Error {
    pub(crate) fn unreachable(base: &Url, source: vaxel_egress::Error) -> Self {
        if source.was_sent() {
            return Self::Broken(source);
        }
        Self::Unreachable {
            url: base.to_string(),
            source,
        }
    }
}

/// A problem document (RFC 9457).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// Page about the problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short summary.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened, to what, what to do.
    pub detail: String,
    /// For the log.
    pub request_id: String,
    /// Every problem of an invalid input.
    pub errors: Vec<FieldProblem>,
}

/// One problem of an input.
#[derive(Debug, Clone, Deserialize)]
pub struct FieldProblem {
    /// Where.
    pub path: String,
    /// What.
    pub message: String,
}

/// An answer of OAuth that is no success.
#[derive(Deserialize)]
struct Told {
    error: String,
    error_description: String,
}

impl Problem {
    pub(crate) fn read(status: StatusCode, body: &[u8]) -> Self {
        let mut problem: Self = serde_json::from_slice(body).unwrap_or_default();
        problem.status = status.as_u16();
        // Endpoints of OAuth say it in their own way (RFC 6749 §5.2).
        if let Ok(told) = serde_json::from_slice::<Told>(body) {
            (problem.kind, problem.detail) = (told.error, told.error_description);
        }
        if problem.detail.is_empty() {
            let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
            problem.detail = format!("Vaxel answered {status} {text}");
        }
        problem
    }
}
