//! What can go wrong on the way to an upstream, by what the caller can do about it.

use std::{borrow::Cow, fmt, io, net::IpAddr, sync::Arc};

use vaxel_core::failure::{Failure, Kind};

use crate::policy::Reach;

/// The underlying error, for the log.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A request that got no answer, or an answer that could not be read.
///
/// [`Error::was_sent`] says whether the upstream may have seen the request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one that can be connected to. Change it.
    #[error("the URL `{url}` cannot be used: {reason}")]
    BadUrl {
        /// As given, without credentials.
        url: String,
        /// What is wrong and what would be right.
        reason: &'static str,
    },
    /// A configured root certificate cannot be used, or no certificate of the machine could be read.
    #[error("no secure connection can be made: {reason}")]
    Roots {
        /// What is wrong and what to do.
        reason: Cow<'static, str>,
    },
    /// The host name leads to no address.
    #[error("the host name of {origin} cannot be resolved; check the name and the DNS")]
    Dns {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nothing accepts connections there.
    #[error("cannot connect to {origin} ({reason}); check that it runs and listens there")]
    Connect {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The TLS handshake failed: certificate, name or protocol version.
    #[error(
        "no secure connection to {origin} ({reason}); check its certificate and the trusted roots"
    )]
    Tls {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// What TLS said.
        reason: io::Error,
    },
    /// The policy forbids that address.
    #[error(
        "{origin} leads to {address}, a {reach} address, which may not be connected to; `upstream.networks` in the \
         configuration names local networks that may"
    )]
    Refused {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// The address that the name resolved to.
        address: IpAddr,
        /// Its class.
        reach: Reach,
    },
    /// The deadline passed.
    #[error("{origin} did not answer in time (while {stage})")]
    TimedOut {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// What was waited for.
        stage: Stage,
    },
    /// Several connections in a row were closed before a byte of the request left: safe to repeat.
    #[error("{origin} closes every connection before a request can be sent")]
    NotSent {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// What HTTP said.
        #[source]
        source: Cause,
    },
    /// The connection broke after the request was, or may have been, sent.
    #[error("{origin} broke the connection while {stage}")]
    Broken {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// What was waited for.
        stage: Stage,
        /// What HTTP said.
        #[source]
        source: Cause,
    },
    /// The body of the request could not be read to its end.
    #[error("the body of the request to {origin} could not be read")]
    Request {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// What the body said.
        #[source]
        source: Cause,
    },
    /// The answer is not HTTP/1.
    #[error("{origin} answered with something that is not HTTP/1.1")]
    Protocol {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// What HTTP said.
        #[source]
        source: Cause,
    },
    /// The answer is over its limit.
    #[error("the {part} of the answer of {origin} is larger than {limit} bytes")]
    TooLarge {
        /// `scheme://host:port`.
        origin: Arc<str>,
        /// `head` or `body`.
        part: &'static str,
        /// The limit, bytes.
        limit: usize,
    },
}

/// What was waited for when a deadline passed or a connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// For a free connection of a busy origin.
    Queueing,
    /// For name resolution, TCP or TLS.
    Connecting,
    /// For the head of the answer.
    Answer,
    /// For the rest of the answer.
    Body,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queueing => "waiting for a free connection",
            Self::Connecting => "connecting",
            Self::Answer => "waiting for the answer",
            Self::Body => "sending the answer's body",
        })
    }
}

impl Error {
    /// Whether the upstream may have received the request. When it may not, repeating it is safe
    /// whatever its method.
    pub const fn was_sent(&self) -> bool {
        match self {
            Self::BadUrl { .. }
            | Self::Roots { .. }
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Refused { .. }
            | Self::NotSent { .. } => false,
            Self::TimedOut { stage, .. } => matches!(stage, Stage::Answer | Stage::Body),
            Self::Broken { .. }
            | Self::Request { .. }
            | Self::Protocol { .. }
            | Self::TooLarge { .. } => true,
        }
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::BadUrl { .. } => Kind::Invalid,
            Self::Roots { .. }
            | Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::NotSent { .. } => Kind::UpstreamUnavailable,
            Self::Refused { .. } => Kind::NotPermitted,
            Self::TimedOut { .. } => Kind::UpstreamTimeout,
            Self::Broken { .. } => Kind::UpstreamLost,
            Self::Request { .. } => Kind::Malformed,
            Self::Protocol { .. } | Self::TooLarge { .. } => Kind::UpstreamProtocol,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string()).caused_by(error)
    }
}
