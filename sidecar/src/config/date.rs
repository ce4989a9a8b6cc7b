//! TOML dates as seconds since the Unix epoch. Called by `Field::date`.
//!
//! Never: a time zone database, a local time without an offset, a clock.

// SPDX-License-Identifier: Apache-2.0

use toml::value::{Date, Datetime, Offset};

const SECONDS_PER_DAY: i64 = 86_400;

/// `None` for a time without a date, a time without an offset, or a moment before 1970.
pub(super) fn unix_seconds(value: &Datetime) -> Option<u64> {
    let midnight = days_since_epoch(value.date?) * SECONDS_PER_DAY;
    let seconds = match (value.time, value.offset) {
        (None, None) => midnight,
        (Some(time), Some(offset)) => {
            let minutes = match offset {
                Offset::Z => 0,
                Offset::Custom { minutes } => i64::from(minutes),
            };
            let of_day = i64::from(time.hour) * 3_600
                + i64::from(time.minute) * 60
                + i64::from(time.second.unwrap_or(0));
            midnight + of_day - minutes * 60
        }
        _ => return None,
    };
    u64::try_from(seconds).ok()
}

/// Days of the proleptic Gregorian calendar, counted in eras of 400 years that start in March.
fn days_since_epoch(date: Date) -> i64 {
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}
