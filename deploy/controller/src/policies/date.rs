//! Moments as RFC 3339 writes them. Called by `authentication` and `status`.
//!
//! Never: a local time, a clock.

// SPDX-License-Identifier: Apache-2.0

use std::time::{Duration, UNIX_EPOCH};

/// Seconds of the Unix epoch; `None` for what is no moment since it began.
pub(super) fn unix_seconds(text: &str) -> Option<u64> {
    // Its reader knows UTC alone, and the offset is all that is left besides.
    let at = text.find(['T', 't']).filter(|at| *at == 10)?;
    let place = text.get(at..)?.find(['Z', 'z', '+', '-']).map(|found| at + found)?;
    let (moment, offset) = text.split_at_checked(place)?;
    let (date, time) = moment.split_at_checked(at)?;
    let utc = humantime::parse_rfc3339(&format!("{date}T{}Z", time.get(1..)?)).ok()?;
    let utc = i64::try_from(utc.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    u64::try_from(utc - offset_seconds(offset)?).ok()
}

/// East of Greenwich is positive.
fn offset_seconds(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes() {
        b"Z" | b"z" => return Some(0),
        [b'+', ..] => (1, &text[1..]),
        [b'-', ..] => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    Some(sign * (number(hours, 24)? * 3_600 + number(minutes, 60)? * 60))
}

/// Of two digits.
fn number(text: &str, below: i64) -> Option<i64> {
    let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = text.parse().ok()?;
    (plain && number < below).then_some(number)
}

pub(super) fn rfc3339(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
