//! What calls say about their server without anybody asking it: an instance that answers calls needs no
//! sign of life, and one that answers none is not well, whatever it says to a ping.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use vaxel_core::failure::{Failure, Kind};

use super::Answer;

/// What the calls of one instance came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Calls that were answered, whatever the answer was.
    pub answered: u64,
    /// Calls in a row since then that were not.
    pub unanswered: u32,
}

#[derive(Debug, Default)]
pub(super) struct Heard {
    answered: AtomicU64,
    unanswered: AtomicU32,
}

impl Heard {
    pub(super) fn note(&self, answer: &Result<Answer, Failure>) {
        match answer {
            Ok(_) => {
                self.answered.fetch_add(1, Relaxed);
                if self.unanswered.load(Relaxed) != 0 {
                    self.unanswered.store(0, Relaxed);
                }
            }
            Err(failure) if is_silence(failure.kind) => {
                self.unanswered.fetch_add(1, Relaxed);
            }
            Err(_) => {}
        }
    }

    pub(super) fn read(&self) -> Evidence {
        Evidence {
            answered: self.answered.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
        }
    }
}

const fn is_silence(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::UpstreamTimeout | Kind::UpstreamLost | Kind::UpstreamUnavailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_counts_against_a_server_and_any_answer_ends_it() {
        let heard = Heard::default();
        let failed = |kind| heard.note(&Err(Failure::new(kind, "x")));
        for kind in [
            Kind::UpstreamTimeout,
            Kind::UpstreamLost,
            Kind::Busy,
            Kind::Invalid,
        ] {
            failed(kind);
        }
        assert_eq!((heard.read().answered, heard.read().unanswered), (0, 2));
        let answer = vaxel_mcp::response::error(b"1", -32_603, "it says so", None);
        let answer = vaxel_mcp::response::Response::read(answer).unwrap();
        heard.note(&Ok(Answer::Done(answer)));
        assert_eq!((heard.read().answered, heard.read().unanswered), (1, 0));
    }
}
