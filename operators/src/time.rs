//! Event time: milliseconds since the Unix epoch over the whole range of `i64`.
//!
//! Every operation saturates: a timestamp plus a span that would leave the range is the end of the range, never a
//! wrapped value, so that a corrupt record far in the future is late or early but not somewhere else.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in event time, in milliseconds since 1970-01-01T00:00:00Z; times before it are negative.
///
/// As a watermark, `t` promises that no record with a time below `t` follows, except late ones (Akidau et al., "The
/// Dataflow Model", VLDB 2015, section 2.3).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time. As a watermark: nothing is promised yet.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The latest time. As a watermark: the stream has ended.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// The time `millis` milliseconds after the Unix epoch.
    #[inline]
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis)
    }

    /// The time `secs` seconds after the Unix epoch, or the end of the range beyond it.
    pub const fn from_secs(secs: i64) -> Self {
        Timestamp(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[inline]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded towards the past.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The start of the slice of `step` milliseconds that holds this time, counting from `offset`: the greatest
    /// `offset + n * step` that is not after it, or the start of the range. Times before the epoch round towards the past too.
    #[inline]
    pub const fn floor(self, step: i64, offset: i64) -> Timestamp {
        self.minus_millis(self.into_slice(step, offset))
    }

    /// How far into its slice this time is, in milliseconds: its distance from [`Timestamp::floor`], and exact where that is cut off at
    /// the start of the range.
    #[inline]
    pub(crate) const fn into_slice(self, step: i64, offset: i64) -> i64 {
        match self.0.checked_sub(offset) {
            Some(distance) => distance.rem_euclid(step),
            None => (self.0 as i128 - offset as i128).rem_euclid(step as i128) as i64,
        }
    }

    /// This time plus `millis`, at most the end of the range.
    #[inline]
    pub const fn plus_millis(self, millis: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis))
    }

    /// This time less `millis`, at least the start of the range.
    #[inline]
    pub const fn minus_millis(self, millis: i64) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis))
    }
}

/// A span in whole milliseconds; spans beyond `i64::MAX` are that.
pub(crate) fn span_millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        self.plus_millis(span_millis(span))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        self.minus_millis(span_millis(span))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// ISO 8601 in UTC, as `2013-01-01T10:15:00Z`; `-inf` and `+inf` for the ends of the range.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Timestamp::MIN => return f.write_str("-inf"),
            Timestamp::MAX => return f.write_str("+inf"),
            _ => {}
        }
        let (days, in_day) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let (secs, millis) = (in_day / 1000, in_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)?;
        if millis != 0 {
            write!(f, ".{millis:03}")?;
        }
        f.write_str("Z")
    }
}

/// The proleptic Gregorian date of a day number since 1970-01-01, by counting eras of 400 years from 1 March of the
/// year 0, so that the leap day is the last of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    let since_march_0 = days + 719_468;
    let (era, day_of_era) = (since_march_0.div_euclid(DAYS_PER_ERA), since_march_0.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// A span of `n` milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A span of `n` seconds.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A span of `n` minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// A span of `n` hours.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

/// A span of `n` days of 24 hours.
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_utc_dates_on_both_sides_of_the_epoch() {
        assert_eq!(Timestamp::from_secs(1_357_035_300).to_string(), "2013-01-01T10:15:00Z");
        assert_eq!(Timestamp::from_millis(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_secs(951_782_400).to_string(), "2000-02-29T00:00:00Z");
    }

    #[test]
    fn floor_rounds_towards_the_past_over_the_whole_range() {
        assert_eq!(Timestamp::from_millis(-1).floor(1000, 0), Timestamp::from_millis(-1000));
        assert_eq!(Timestamp::from_millis(999).floor(1000, 0), Timestamp::from_millis(0));
        assert_eq!(Timestamp::from_millis(999).floor(1000, 500), Timestamp::from_millis(500));
        assert_eq!(Timestamp::MIN.floor(1000, 0), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.floor(1, -1), Timestamp::MAX);
    }

    #[test]
    fn arithmetic_stops_at_the_ends_of_the_range() {
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::MIN - hours(1), Timestamp::MIN);
    }
}
