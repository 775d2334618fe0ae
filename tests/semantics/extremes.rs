//! Event times at both ends of their range.

use crate::support::{Event, Lab, event, labs};
use rivermark::{Stream, Timestamp, Watermarks, Windowed, Windows, hours, millis};

/// The least and the greatest times there are, and those around zero.
const TIMES: [i64; 9] = [i64::MIN, i64::MIN + 1, -3_600_001, -1, 0, 1, 3_600_000, i64::MAX - 1, i64::MAX];

fn events() -> Vec<Event> {
    TIMES.into_iter().map(|time| event(0, time, 1)).collect()
}

fn run(lab: &Lab, windows: Windows, bound: u64) -> Vec<Windowed<u8, u64>> {
    let describe = |events: Stream<Event>| {
        events
            .event_time(|e| Timestamp::from_millis(e.time), Watermarks::bounded(millis(bound)))
            .key_by(|e| e.key)
            .window(windows)
            .count()
    };
    let (mut rows, metrics) = lab.run(&[events()], describe);
    assert_eq!(metrics.late_records, 0, "{}", lab.name);
    rows.sort_by_key(|row| row.window);
    rows
}

#[test]
fn every_time_is_in_its_hour_also_before_the_epoch_and_at_the_ends() {
    for lab in labs() {
        // The records rise, so nothing is late, whatever the bound.
        for bound in [0, 1, u64::MAX / 2_000_000] {
            let rows = run(&lab, Windows::tumbling(hours(1)), bound);
            let hour = |time: i64| Timestamp::from_millis(time).floor(3_600_000, 0);
            let found: Vec<(Timestamp, u64)> = rows.iter().map(|row| (row.window.start, row.value)).collect();
            let expected = vec![
                (Timestamp::MIN, 2),
                (Timestamp::from_millis(-7_200_000), 1),
                (Timestamp::from_millis(-3_600_000), 1),
                (Timestamp::from_millis(0), 2),
                (Timestamp::from_millis(3_600_000), 1),
                (hour(i64::MAX), 2),
            ];
            assert_eq!(found, expected, "{}, bound {bound}", lab.name);
        }
    }
}

#[test]
fn sliding_windows_count_every_time_at_least_once() {
    for lab in labs() {
        let rows = run(&lab, Windows::sliding(hours(1), millis(600_000)), 0);
        for time in TIMES.map(Timestamp::from_millis) {
            let holds = |row: &&Windowed<u8, u64>| {
                row.window.start <= time && (time < row.window.end || time == Timestamp::MAX)
            };
            assert!(rows.iter().find(holds).is_some(), "{}: no window holds {time}: {rows:?}", lab.name);
        }
        let of_zero = rows.iter().filter(|row| {
            row.window.start.millis() <= 0 && row.window.end.millis() > 0 && row.window.end != Timestamp::MAX
        });
        assert_eq!(of_zero.count(), 6, "{}", lab.name);
    }
}

#[test]
fn sessions_at_the_ends_of_time_stay_apart() {
    for lab in labs() {
        let rows = run(&lab, Windows::session(millis(10)), 0);
        let found: Vec<(i64, u64)> = rows.iter().map(|row| (row.window.start.millis(), row.value)).collect();
        let expected = [(i64::MIN, 2), (-3_600_001, 1), (-1, 3), (3_600_000, 1), (i64::MAX - 1, 2)];
        assert_eq!(found, expected, "{}", lab.name);
    }
}
