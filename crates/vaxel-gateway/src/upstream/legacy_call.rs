//! One request to a legacy server over HTTP: what it is called there, and that it is called off when
//! nobody waits for it any more.
//!
//! In the legacy era a broken connection does not cancel a request; only saying so does
//! (MCP 2025-11-25, Transports, "Sending Messages to the Server").

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::value::RawValue;
use vaxel_egress::Body;
use vaxel_mcp::{
    envelope::{Envelope, span},
    method::Method,
    splice::Splice,
};

use super::{
    Event, Outbound,
    http_link::HttpLink,
    http_sessions::Session,
    session_stream::{Calls, Heard},
};

/// A request in flight. Dropped before [`LegacyCall::ended`], it is called off.
pub(super) struct LegacyCall {
    link: HttpLink,
    /// Its id and progress token in the server's session.
    id: u64,
    /// The client's own progress token, raw.
    token: Option<Bytes>,
    session: Option<HeaderValue>,
    /// Held, so that the session is not taken for idle.
    in_use: Option<Arc<Session>>,
    /// What the server says of it on the stream of its session.
    heard: Option<Heard>,
    progress: Progress,
}

enum Progress {
    Unsent,
    /// The flag says whether it has left.
    Posted(Arc<AtomicBool>),
    /// The server has taken it.
    Begun,
    Ended,
}

/// A call for which nobody waits any more, and that the server has.
pub(super) struct LeftCall {
    pub(super) id: u64,
    pub(super) session: Option<HeaderValue>,
    /// The server has shown that it has taken the request.
    pub(super) has_begun: bool,
    /// Where its server may ask about it on the stream of the session, and the id of the request that
    /// brings a sign that it knows.
    pub(super) calls: Option<(Arc<Calls>, u64)>,
}

impl LegacyCall {
    /// A request that is about to be sent.
    pub(super) const fn new(link: HttpLink, id: u64, token: Option<Bytes>) -> Self {
        Self {
            link,
            id,
            token,
            session: None,
            in_use: None,
            heard: None,
            progress: Progress::Unsent,
        }
    }

    /// Hears what is said on the stream of a session, when that can only be about this call.
    pub(super) fn hear(&mut self, calls: &Arc<Calls>, out: &Outbound<'_>) {
        self.heard = Some(calls.enter(self.id, out));
    }

    /// The next event of that stream.
    pub(super) async fn heard(&mut self) -> Event {
        match &mut self.heard {
            Some(heard) => heard.next().await,
            None => std::future::pending().await,
        }
    }

    /// It is about to be posted; what is returned notes when it leaves.
    pub(super) fn sent(
        &mut self,
        body: Bytes,
        session: Option<HeaderValue>,
        slot: Option<Arc<Session>>,
    ) -> Body {
        let has_left = Arc::<AtomicBool>::default();
        self.session = session;
        self.in_use = slot;
        self.progress = Progress::Posted(Arc::clone(&has_left));
        Body::Noted(body, has_left)
    }

    /// The server has begun to answer.
    pub(super) fn begun(&mut self) {
        self.progress = Progress::Begun;
    }

    /// The server is done with it.
    pub(super) fn ended(&mut self) {
        self.progress = Progress::Ended;
    }

    pub(super) const fn session(&self) -> Option<&HeaderValue> {
        self.session.as_ref()
    }

    /// A notification of the server with the progress token that the client chose.
    pub(super) fn outward(&self, note: &Bytes) -> Bytes {
        let range = self.token.as_ref().zip(self.own_token(note));
        let Some((token, range)) = range else {
            return note.clone();
        };
        let mut splice = Splice::new(note);
        splice.replace(range, token);
        splice.apply()
    }

    /// Where our token stands in a progress notification.
    fn own_token(&self, note: &Bytes) -> Option<std::ops::Range<usize>> {
        #[derive(Deserialize)]
        struct Progress<'a> {
            #[serde(borrow, rename = "progressToken")]
            token: &'a RawValue,
        }
        let envelope = Envelope::parse(note).ok()?;
        if Method::of(envelope.method.as_deref()?) != Method::Progress {
            return None;
        }
        let progress: Progress<'_> = serde_json::from_str(envelope.params?.get()).ok()?;
        let ours = progress.token.get().parse() == Ok(self.id);
        span(note, progress.token).filter(|_| ours)
    }
}

impl Drop for LegacyCall {
    fn drop(&mut self) {
        let has_begun = match &self.progress {
            Progress::Posted(has_left) if has_left.load(Ordering::Relaxed) => false,
            Progress::Begun => true,
            // What never left ended with its connection: there is nothing to call off.
            Progress::Posted(_) | Progress::Unsent | Progress::Ended => return,
        };
        let sign = self.link.next_id();
        self.link.call_off(LeftCall {
            id: self.id,
            session: self.session.take(),
            has_begun,
            calls: self.heard.as_ref().map(|heard| (heard.leave(sign), sign)),
        });
    }
}
