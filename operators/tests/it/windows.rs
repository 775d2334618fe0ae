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
