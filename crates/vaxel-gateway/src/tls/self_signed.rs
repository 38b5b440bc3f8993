//! The certificate that Vaxel makes for itself, for development: it encrypts, and whoever was given it, or its
//! fingerprint, knows that Vaxel is at the other end.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use vaxel_core::time::Timestamp;
use zeroize::Zeroizing;

/// How long one is good, from a day before it is made.
pub const VALID: Duration = Duration::from_hours(365 * 24);

const DAY: Duration = Duration::from_hours(24);

/// A certificate and its key, as text (PEM).
pub struct SelfSigned {
    /// For everyone.
    pub certificate: String,
    /// For nobody else.
    pub key: Zeroizing<String>,
}

/// Makes one for these hosts and addresses.
///
/// # Errors
/// A sentence, when a name is none that a certificate can hold.
pub fn make(names: &[String], now: Timestamp) -> Result<SelfSigned, String> {
    let failed = |error: rcgen::Error| format!("no certificate can be made ({error})");
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Vaxel, self-signed");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let yesterday = Timestamp::from_millis(now.as_millis().saturating_sub(millis(DAY)));
    for (date, time) in [
        (&mut params.not_before, yesterday),
        (&mut params.not_after, yesterday.plus(VALID)),
    ] {
        let (year, month, day) = day_of(time);
        *date = rcgen::date_time_ymd(year, month, day);
    }
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let key = Zeroizing::new(key.serialize_der());
    Ok(SelfSigned {
        certificate: (*pem("CERTIFICATE", certificate.der())).clone(),
        key: pem("PRIVATE KEY", &key),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Year, month and day, from the text of a time (RFC 3339).
fn day_of(time: Timestamp) -> (i32, u8, u8) {
    let text = time.to_string();
    let mut parts = text.split(['-', 'T']);
    let mut next = || parts.next().unwrap_or_default();
    let (year, month, day) = (next(), next(), next());
    (
        year.parse().unwrap_or(2_000),
        month.parse().unwrap_or(1),
        day.parse().unwrap_or(1),
    )
}

fn pem(kind: &str, der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(format!("-----BEGIN {kind}-----\n"));
    for (index, letter) in encoded.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str("\n-----END ");
    text.push_str(kind);
    text.push_str("-----\n");
    text
}
