//! Bytes → body, within limits of size and time.

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use vaxel_core::failure::{Failure, Kind};

/// The whole body, at most `limit` bytes, before `deadline`. One that arrives in one piece is not
/// copied.
pub(crate) async fn body(
    mut body: Incoming,
    limit: usize,
    deadline: Instant,
) -> Result<Bytes, Failure> {
    let announced = body.size_hint().upper();
    if announced.is_some_and(|size| size > limit as u64) {
        return Err(too_large(limit));
    }
    let whole = announced.and_then(|size| usize::try_from(size).ok());
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => {
                return Err(Failure::new(
                    Kind::Malformed,
                    "The body did not arrive in time",
                ));
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                let failure =
                    Failure::new(Kind::Malformed, "The body ended before it was complete");
                return Err(failure.caused_by(error));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        match (&first, rest.is_empty()) {
            (None, true) if whole == Some(data.len()) => return Ok(data),
            (None, true) => first = Some(data),
            (Some(_), true) => {
                rest.reserve(whole.unwrap_or(0));
                rest.extend_from_slice(&first.take().unwrap_or_default());
                rest.extend_from_slice(&data);
            }
            (_, false) => rest.extend_from_slice(&data),
        }
        if rest.len().max(first.as_ref().map_or(0, Bytes::len)) > limit {
            return Err(too_large(limit));
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

fn too_large(limit: usize) -> Failure {
    Failure::new(
        Kind::TooLarge,
        format!("The body is larger than {limit} bytes (limits.body)"),
    )
}
