//! Which old segments go: a pure decision.

use crate::options::Retention;
use crate::segment::Extent;

/// How many of the closed segments, from the oldest on, retention no longer keeps. `closed` are ascending; `active_bytes` are those
/// of the last segment, which stays.
pub(crate) fn expired(closed: &[Extent], active_bytes: u64, retention: &Retention, now_ms: i64) -> usize {
    let too_old = |extent: &Extent| {
        let age = i128::from(now_ms) - i128::from(extent.max_timestamp);
        retention.time.is_some_and(|time| age > time.as_millis() as i128)
    };
    let mut left: u64 = closed.iter().map(|extent| extent.bytes).sum::<u64>() + active_bytes;
    let mut count = 0;
    for extent in closed {
        left -= extent.bytes;
        let is_enough_without = retention.bytes.is_some_and(|bytes| left >= bytes);
        if !too_old(extent) && !is_enough_without {
            break;
        }
        count += 1;
    }
    count
}

/// Whether even the last segment holds nothing that is kept, so that it should be closed.
pub(crate) fn is_stale(active: &Extent, retention: &Retention, now_ms: i64) -> bool {
    active.records > 0 && expired(&[*active], 0, &Retention { bytes: None, ..*retention }, now_ms) == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn segment(bytes: u64, max_timestamp: i64) -> Extent {
        Extent { bytes, next_offset: 0, max_timestamp, records: 1 }
    }

    #[test]
    fn segments_go_by_age_from_the_oldest_on_and_no_younger_one_is_passed_over() {
        let closed = [segment(10, 100), segment(10, 500), segment(10, 200)];
        let retention = Retention { time: Some(Duration::from_millis(50)), bytes: None };
        let at = |now_ms| expired(&closed, 0, &retention, now_ms);
        assert_eq!((at(150), at(151), at(400), at(551)), (0, 1, 1, 3));
        assert_eq!(expired(&closed, 0, &Retention::default(), i64::MAX), 0, "kept for ever");
        assert_eq!(
            expired(&[segment(1, i64::MIN)], 0, &retention, i64::MAX),
            1,
            "extreme timestamps do not overflow"
        );
    }

    #[test]
    fn segments_go_by_size_while_enough_is_left() {
        let closed = [segment(10, 0), segment(10, 0), segment(10, 0)];
        let keep = |bytes| expired(&closed, 5, &Retention { time: None, bytes: Some(bytes) }, 0);
        assert_eq!((keep(36), keep(35), keep(25), keep(24), keep(0)), (0, 0, 1, 1, 3));
    }

    #[test]
    fn the_last_segment_is_stale_once_all_in_it_is_too_old() {
        let retention = Retention { time: Some(Duration::from_millis(50)), bytes: Some(0) };
        assert!(!is_stale(&segment(10, 100), &retention, 150));
        assert!(is_stale(&segment(10, 100), &retention, 151));
    }
}
