//! Windows: sums of all kinds, and many that are open at once.

use crate::at;
use rivermark_operators::testing;
use rivermark_operators::{Windows, millis};
use std::time::Duration;

#[test]
fn sums_of_durations_and_floats_are_sums() {
    testing::check(|it| {
        let (numbers, stream) = it.input::<u64>();
        let keyed = stream.key_by(|_| 0_u8).window(Windows::session(millis(10)));
        let rows = it.output(keyed.sum(|n| Duration::from_millis(*n)).map(|row| row.value));
        it.push(&numbers, at(1), 5);
        it.push(&numbers, at(9), 7);
        it.end(&numbers);
        it.expect(&rows, [millis(12)]);
    });
}

#[test]
fn thousands_of_open_windows_fire_one_by_one_with_what_is_theirs() {
    testing::check(|it| {
        let (numbers, stream) = it.input::<i64>();
        let keyed = stream.key_by(|n| *n % 2).window(Windows::sliding(millis(40), millis(10)));
        let rows =
            it.output(keyed.allowed_lateness(millis(100)).count().map(|row| row.window.start.millis()));
        (0..300).for_each(|n| it.push(&numbers, at(n * 10), n));
        it.watermark(&numbers, at(1000));
        let mut starts: Vec<i64> = it.take(&rows);
        starts.dedup();
        assert_eq!(starts, (-3..=96).map(|n| n * 10).collect::<Vec<_>>());
        it.push(&numbers, at(955), 0);
        it.expect(&rows, [920, 930, 940, 950]);
    });
}

/// Keys that fire at once: with outputs of one record, more than fires in one go.
const MANY: i64 = 700;

#[test]
fn a_window_of_many_keys_gives_each_a_row_and_then_time_passes() {
    testing::check(|it| {
        let (numbers, stream) = it.input::<i64>();
        let windows = [
            Windows::tumbling(millis(40)),
            Windows::sliding(millis(40), millis(20)),
            Windows::session(millis(5)),
        ];
        let rows = windows.map(|windows| {
            let sums = stream.clone().key_by(|n| *n % MANY).window(windows).sum(|n: &i64| *n);
            // Behind the window: what has come when time passes.
            it.output(sums.map(|row| (row.window.start.millis(), row.key, row.value)))
        });
        let keyed = stream.key_by(|n| *n % MANY);
        let kept = keyed.window(Windows::tumbling(millis(40))).allowed_lateness(millis(20)).sum(|n| *n);
        let kept = it.output(kept.map(|row| (row.window.start.millis(), row.key, row.value)));
        for time in [7, 33, 47] {
            (0..MANY).for_each(|n| it.push(&numbers, at(time), n + MANY * time));
        }
        it.watermark(&numbers, at(100));
        let of = |start: i64, times: &'static [i64]| {
            (0..MANY).map(move |n| (start, n, times.iter().map(|time| n + MANY * time).sum::<i64>()))
        };
        let expected: [Vec<_>; 3] = [
            of(0, &[7, 33]).chain(of(40, &[47])).collect(),
            of(-20, &[7]).chain(of(0, &[7, 33])).chain(of(20, &[33, 47])).chain(of(40, &[47])).collect(),
            of(7, &[7]).chain(of(33, &[33])).chain(of(47, &[47])).collect(),
        ];
        for (rows, mut expected) in rows.iter().zip(expected.clone()) {
            let mut found = it.take(rows);
            found.sort_unstable();
            expected.sort_unstable();
            assert!(found == expected, "{} rows for {}", found.len(), expected.len());
        }
        let mut found = it.take(&kept);
        found.sort_unstable();
        assert!(found == expected[0], "{} rows with allowed lateness", found.len());
    });
}
