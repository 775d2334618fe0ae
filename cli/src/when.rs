//! Times and durations, as people type them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, now.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A duration as `90s`, `10m`, `36h`, `2d`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let wrong = || format!("`{text}` is no duration: write it as 500ms, 90s, 10m, 36h or 2d");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

/// A time as `2013-02-09`, `2013-02-09T12:30`, `2013-02-09T12:30:15.250Z`, or so long ago, as `10m`. In milliseconds since 1970, UTC.
pub(crate) fn time(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Ok(ago) = duration(text) {
        return Ok(now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)));
    }
    let wrong = || {
        format!(
            "`{text}` is no time: write it as 2013-02-09 or 2013-02-09T12:30:15Z (UTC), or how long ago, as 10m"
        )
    };
    let (date, clock) = text.trim_end_matches('Z').split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let mut next = || date.next().and_then(Result::ok).ok_or_else(wrong);
    let (year, month, day) = (next()?, next()?, next()?);
    let mut clock = clock.splitn(3, ':');
    let hour: i64 = clock.next().and_then(|hour| hour.parse().ok()).ok_or_else(wrong)?;
    let minute: i64 = clock.next().and_then(|minute| minute.parse().ok()).ok_or_else(wrong)?;
    let seconds: f64 = clock.next().map_or(Ok(0.0), str::parse).map_err(|_| wrong())?;
    let is_time = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..60.0).contains(&seconds)
        && (0..10_000).contains(&year);
    if !is_time {
        return Err(wrong());
    }
    let minutes = days_from_civil(year, month, day) * 1440 + hour * 60 + minute;
    Ok(minutes * 60_000 + (seconds * 1000.0).round() as i64)
}

/// The days since 1970 of a Gregorian date, by counting eras of 400 years from 1 March of the year 0.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// How long ago something was, in the largest unit that leaves a whole number.
pub(crate) fn ago(then_ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(then_ms).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s ago"),
        120..7200 => format!("{}m ago", seconds / 60),
        7200..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// A time for people.
pub(crate) fn shown(ms: i64) -> String {
    rivermark_operators::Timestamp::from_millis(ms).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_shown() {
        for ms in [0, 951_782_400_000, 1_360_368_000_250, 1_709_164_800_000, -86_400_000] {
            assert_eq!(time(&shown(ms), 0), Ok(ms), "{}", shown(ms));
        }
        assert_eq!(time("2013-02-09", 0), Ok(1_360_368_000_000));
        assert_eq!(time("2013-02-09T12:30", 0), Ok(1_360_413_000_000));
        assert_eq!(time("10m", 1_000_000), Ok(400_000));
        for wrong in ["", "yesterday", "2013-13-01", "2013-02-09T25:00", "2013-02"] {
            assert!(time(wrong, 0).unwrap_err().contains("is no time"), "{wrong}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("36h"), Ok(Duration::from_secs(36 * 3600)));
        assert!(
            duration("5").is_err() && duration("h").is_err() && duration("99999999999999999999d").is_err()
        );
    }

    #[test]
    fn what_was_long_ago_is_told_roughly() {
        assert_eq!(
            [0, 119, 120, 7200, 172_800].map(|s| ago(0, s * 1000)),
            ["0s ago", "119s ago", "2m ago", "2h ago", "2d ago"]
        );
    }
}
