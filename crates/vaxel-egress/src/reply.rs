//! Answers. The body drives its connection while it is read, gives it back at its end, and closes
//! it when it is abandoned: that is how an upstream learns that nobody waits any more.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::{
    failure::{Error, Stage},
    pool::Lease,
};

/// An answer whose head has arrived.
#[derive(Debug)]
pub struct Reply {
    /// Status and headers.
    pub parts: Parts,
    /// The body, as it comes.
    pub body: ReplyBody,
}

impl Reply {
    pub(crate) fn new(response: http::Response<Incoming>, lease: Lease) -> Self {
        let (parts, incoming) = response.into_parts();
        let mut body = ReplyBody {
            incoming,
            lease,
            ended: false,
        };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        Self { parts, body }
    }
}

/// The body of an answer. Dropping it before its end closes the connection.
///
/// It has no deadline of its own: [`ReplyBody::collect`] takes one, whoever reads frames brings one.
#[derive(Debug)]
pub struct ReplyBody {
    incoming: Incoming,
    lease: Lease,
    /// There is nothing more to read; the lease holds nothing.
    ended: bool,
}

impl ReplyBody {
    /// The whole body, at most `limit` bytes, before `deadline`. A body that arrived in one piece is
    /// returned without copying it.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TimedOut`] or [`Error::Broken`]; each closes the connection.
    pub async fn collect(mut self, limit: usize, deadline: Instant) -> Result<Bytes, Error> {
        let result = timeout_at(deadline, self.read_all(limit)).await;
        let origin = || Arc::clone(self.lease.pool.origin.text());
        match result {
            Ok(Ok(whole)) => Ok(whole),
            Ok(Err(Shortfall::TooLarge)) => Err(Error::TooLarge {
                origin: origin(),
                part: "body",
                limit,
            }),
            Ok(Err(Shortfall::Failed(error))) => Err(error),
            Err(_) => Err(Error::TimedOut {
                origin: origin(),
                stage: Stage::Body,
            }),
        }
    }

    /// Declares that this answer may last for as long as the connection does (an event stream): it
    /// stops counting towards `max_connections_per_origin`, so that a few listeners cannot keep
    /// every call waiting. Its connection is closed at its end.
    pub fn detach(&mut self) {
        self.lease.detach();
    }

    async fn read_all(&mut self, limit: usize) -> Result<Bytes, Shortfall> {
        let announced = usize::try_from(self.size_hint().lower()).unwrap_or(usize::MAX);
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut length = announced;
        while length <= limit {
            let Some(chunk) = self.next_data().await? else {
                return Ok(if rest.is_empty() {
                    first
                } else {
                    rest.freeze()
                });
            };
            if first.is_empty() && rest.is_empty() {
                length = chunk.len();
                first = chunk;
                continue;
            }
            if rest.is_empty() {
                rest.reserve(announced.max(first.len() + chunk.len()));
                rest.extend_from_slice(&first);
            }
            length = rest.len() + chunk.len();
            if length <= limit {
                rest.extend_from_slice(&chunk);
            }
        }
        Err(Shortfall::TooLarge)
    }

    async fn next_data(&mut self) -> Result<Option<Bytes>, Shortfall> {
        while let Some(frame) = self.frame().await {
            let frame = frame.map_err(Shortfall::Failed)?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The next frame, driving the connection as long as there is none.
    ///
    /// The connection is all that can make a frame appear, and it is driven right here: so a frame
    /// wakes nobody, and only the last drive before giving up registers the caller.
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let nobody = &mut Context::from_waker(Waker::noop());
        let frame = Pin::new(&mut self.incoming).poll_frame(nobody);
        if frame.is_ready() {
            return frame;
        }
        self.lease.drive(nobody);
        let frame = Pin::new(&mut self.incoming).poll_frame(nobody);
        if frame.is_ready() {
            return frame;
        }
        self.lease.drive(cx);
        Pin::new(&mut self.incoming).poll_frame(nobody)
    }

    fn finish(&mut self) {
        self.ended = true;
        self.lease.give_back();
    }
}

/// Why a body was not read to its end.
enum Shortfall {
    TooLarge,
    Failed(Error),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        match this.poll_incoming(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                // Whoever knows the length does not ask for the end, so the end is acted upon here.
                if this.incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.ended = true;
                this.lease.close();
                let origin = Arc::clone(this.lease.pool.origin.text());
                Poll::Ready(Some(Err(Error::Broken {
                    origin,
                    stage: Stage::Body,
                    source: error.into(),
                })))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            SizeHint::with_exact(0)
        } else {
            self.incoming.size_hint()
        }
    }
}
