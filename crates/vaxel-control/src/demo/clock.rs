//! The demo's clock: the time now, in UTC or where the caller asks.

use jiff::tz::{Offset, TimeZone};
use serde::Deserialize;
use vaxel_core::time::Clock;

/// Arguments of the tool.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// `+02:00`, or a name of the time zone database of this machine.
    #[serde(default)]
    zone: Option<String>,
}

/// The time as RFC 3339, with the offset that was asked for.
pub(super) fn tell(clock: &Clock, asked: &Asked) -> Result<String, String> {
    let millis = i64::try_from(clock.now().as_millis()).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(millis)
        .map_err(|_| "The clock of this machine is out of range".to_owned())?;
    let zone = match asked.zone.as_deref() {
        None | Some("") => TimeZone::UTC,
        Some(text) => zone(text)?,
    };
    let there = at.to_zoned(zone);
    Ok(there.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
}

fn zone(text: &str) -> Result<TimeZone, String> {
    if text.starts_with(['+', '-']) {
        return offset(text)
            .map(TimeZone::fixed)
            .ok_or_else(|| unknown(text));
    }
    TimeZone::get(text).map_err(|_| unknown(text))
}

fn unknown(text: &str) -> String {
    format!("`{text}` is no time zone: write an offset such as +02:00, or a name such as UTC")
}

/// `±HH`, `±HHMM` or `±HH:MM`.
fn offset(text: &str) -> Option<Offset> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text[1..].replace(':', "");
    let whole = digits.len() == 2 || digits.len() == 4;
    if !whole || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = digits
        .get(2..)
        .filter(|rest| !rest.is_empty())
        .map_or(Ok(0), str::parse)
        .ok()?;
    (hours <= 14 && minutes < 60)
        .then(|| Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use vaxel_core::time::Timestamp;

    use super::*;

    #[test]
    fn the_time_is_told_where_it_was_asked_for() {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let told = |zone: &str| {
            tell(
                &clock,
                &Asked {
                    zone: Some(zone.to_owned()),
                },
            )
        };
        assert_eq!(
            tell(&clock, &Asked::default()).unwrap(),
            "2023-11-14T22:13:20+00:00"
        );
        assert_eq!(told("+02:00").unwrap(), "2023-11-15T00:13:20+02:00");
        assert_eq!(told("-0330").unwrap(), "2023-11-14T18:43:20-03:30");
        assert_eq!(told("UTC").unwrap(), "2023-11-14T22:13:20+00:00");
        for wrong in ["+99", "+1", "+ab:cd", "Nowhere/Nothing", "+02:0é"] {
            assert!(told(wrong).unwrap_err().contains(wrong));
        }
    }
}
