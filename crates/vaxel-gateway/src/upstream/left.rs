//! Calls that their callers have left, and the questions that a legacy server may still ask about them:
//! such a question is nobody's, and must not be taken for one of the next call.
//!
//! A server that is told that nobody waits any more is asked for a sign of life right after. What it
//! says before that may be about the call that was left; what it says later is not.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use vaxel_mcp::{method::Method, request::Request};

/// Longest time for which a question may belong to a call that was left, when no sign comes.
const LINGER: Duration = Duration::from_secs(30);

/// Whether a question may be about a call that was left.
#[derive(Default)]
pub(super) struct Left(Option<Awaited>);

struct Awaited {
    since: Instant,
    /// Id of the request for a sign.
    sign: u64,
}

impl Left {
    /// A call was left; the sign with this id says that its server knows.
    pub(super) fn note(&mut self, sign: u64) {
        let since = Instant::now();
        self.0 = Some(Awaited { since, sign });
    }

    /// Takes an answer; whether it is the sign.
    pub(super) fn hear(&mut self, id: u64) -> bool {
        self.0.take_if(|awaited| awaited.sign == id).is_some()
    }

    /// Whether a question that comes now may be about such a call.
    pub(super) fn may_be_asked_about(&self) -> bool {
        let since = self.0.as_ref().map(|awaited| awaited.since);
        since.is_some_and(|since| since.elapsed() < LINGER)
    }
}

/// Tells a server that nobody waits for a request.
pub(super) fn cancelled(id: u64) -> Bytes {
    let message = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
    );
    message.into()
}

/// Asks it for a sign.
pub(super) fn ask_for_sign(id: u64) -> Bytes {
    Request::own(id, Method::Ping, b"{}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_may_be_late_until_the_newest_sign_comes() {
        let mut left = Left::default();
        assert!(!left.may_be_asked_about());
        left.note(1);
        left.note(2);
        assert!(!left.hear(1) && left.may_be_asked_about());
        assert!(left.hear(2) && !left.may_be_asked_about());
    }
}
