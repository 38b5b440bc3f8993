//! Looks at what is there without asking it for anything: whether something listens, with which status
//! it answers, until when its certificate holds.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header::ACCEPT};
use tokio::time::Instant;
use url::Url;
use vaxel_core::time::Timestamp;

use crate::{
    body::Body,
    failure::Error,
    stream::Stream,
    target::{Egress, Origin},
};

impl Egress {
    /// The status with which `url` answers a GET. The body is not read, redirects are not followed, and
    /// the connection is closed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(&self, url: &Url, deadline: Instant) -> Result<u16, Error> {
        let target = self.origin(url)?;
        let request = Request::get(target.uri()).body(Body::Empty);
        let request = request.map_err(|error| Error::Request {
            origin: Arc::clone(target.origin().text()),
            source: error.into(),
        })?;
        let reply = target.send(request, deadline).await?;
        Ok(reply.parts.status.as_u16())
    }

    /// The document at `url`, with the status: at most `limit` bytes of it. Redirects are not followed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn document(
        &self,
        url: &Url,
        (limit, deadline): (usize, Instant),
    ) -> Result<(u16, Bytes), Error> {
        let target = self.origin(url)?;
        let request = Request::get(target.uri()).header(ACCEPT, "application/json");
        let request = request.body(Body::Empty).map_err(|error| Error::Request {
            origin: Arc::clone(target.origin().text()),
            source: error.into(),
        })?;
        let reply = target.send(request, deadline).await?;
        let status = reply.parts.status.as_u16();
        Ok((status, reply.body.collect(limit, deadline).await?))
    }

    /// When the certificate that the server behind `url` shows ends; none when it shows none, or one
    /// that says it in a way that is not known.
    ///
    /// # Errors
    /// Those of connecting: a certificate that does not hold any more is one of them.
    pub async fn certificate_end(
        &self,
        url: &Url,
        deadline: Instant,
    ) -> Result<Option<Timestamp>, Error> {
        let origin = Origin::new(url)?;
        match self.open(&origin, deadline).await? {
            Stream::Plain(_) => Ok(None),
            Stream::Tls(stream) => {
                let (_, session) = stream.inner().get_ref();
                let shown = session.peer_certificates().and_then(<[_]>::first);
                Ok(shown.and_then(|certificate| not_after(certificate)))
            }
        }
    }
}

/// The end of a certificate's validity (RFC 5280 §4.1.2.5).
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (whole, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(whole, SEQUENCE)?;
    if let Some((_, after)) = element(rest, VERSION) {
        rest = after;
    }
    // Serial number, algorithm and issuer stand before the validity.
    for tag in [0x02, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, _, rest) = any_element(validity)?;
    let (tag, text, _) = any_element(rest)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// A time as DER writes it: `UTCTime` with two digits of the year, or `GeneralizedTime` with four.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    const UTC: u8 = 0x17;
    const GENERALIZED: u8 = 0x18;
    let digits = text.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest): (u64, &str) = match (tag, digits.len()) {
        (UTC, 12) => {
            let (short, rest) = digits.split_at(2);
            let short: u64 = short.parse().ok()?;
            (
                if short < 50 {
                    2000 + short
                } else {
                    1900 + short
                },
                rest,
            )
        }
        (GENERALIZED, 14) => {
            let (year, rest) = digits.split_at(4);
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    let seconds = two(4)? * 3_600 + two(6)? * 60 + two(8)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let days = days_since_1970(year, month, day)?;
    Some(Timestamp::from_millis((days * 86_400 + seconds) * 1_000))
}

/// Days from 1970-01-01 in the Gregorian calendar: years that begin with March have their leap day at
/// the end, so that months need no table.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year;
    // 1970-01-01 in the same count.
    days.checked_sub(719_468)
}

/// The content of the next element, which must have this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// The next element: its tag, its content and what follows it (X.690 §8.1, lengths up to four bytes).
fn any_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let value = length
                .iter()
                .fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
            (value, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn made(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_notations() {
        for (date, expected) in [
            ((2029, 2, 28), "2029-02-28T00:00:00.000Z"),
            ((2032, 2, 29), "2032-02-29T00:00:00.000Z"),
            ((2049, 12, 31), "2049-12-31T00:00:00.000Z"),
            ((2051, 1, 1), "2051-01-01T00:00:00.000Z"),
        ] {
            let (year, month, day) = date;
            let end = not_after(&made(year, month, day));
            assert_eq!(end.unwrap().to_string(), expected);
        }
    }

    #[test]
    fn days_count_from_the_first_of_1970() {
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(2000, 3, 1), Some(11_017));
        assert_eq!(days_since_1970(1969, 12, 31), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(
            bytes: Vec<u8>, cut in 0_usize..400, flip in 0_usize..400, to: u8
        ) {
            let _ = not_after(&bytes);
            let mut certificate = made(2030, 1, 1);
            let place = flip % certificate.len();
            certificate[place] = to;
            let _ = not_after(&certificate);
            certificate.truncate(cut);
            let _ = not_after(&certificate);
        }
    }
}
