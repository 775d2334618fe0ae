//! Telling event time: by partition, whichever way its records come.

use crate::at;
use rivermark_operators::testing::{self, Harness};
use rivermark_operators::{Timestamp, Watermarks, Windows, millis, secs};

#[test]
fn time_cannot_be_told_where_a_partition_comes_two_ways() {
    let mut it = Harness::new();
    let (times, stream) = it.input::<i64>();
    let (even, odd) = (stream.clone().filter(|n| n % 2 == 0), stream.filter(|n| n % 2 != 0));
    let rows = it.output(even.union(odd).event_time(|time| at(*time), Watermarks::monotonous()));
    let error = it.try_push(&times, at(0), 0).unwrap_err().to_string();
    assert!(error.contains("the records of `input-1` come to `event_time-1` two ways"), "{error}");
    drop(rows);
}

#[test]
fn idleness_counts_where_it_was_asked_for_and_nowhere_else() {
    testing::check(|it| {
        let (left, left_stream) = it.input::<i64>();
        let (right, right_stream) = it.input::<i64>();
        let both = left_stream.union(right_stream);
        let mut counted = |watermarks| {
            let timed = both.clone().event_time(|time: &i64| at(*time), watermarks);
            let counts = timed.key_by(|_| 0_u8).window(Windows::tumbling(millis(10))).count();
            it.output(counts.map(|row| (row.window.start.millis(), row.value)))
        };
        let patient = counted(Watermarks::monotonous());
        let impatient = counted(Watermarks::monotonous().idle_after(secs(1)));
        drop(both);
        it.push(&left, Timestamp::MIN, 1);
        it.push(&right, Timestamp::MIN, 2);
        it.idle(&right);
        it.push(&left, Timestamp::MIN, 11);
        it.expect(&impatient, [(0, 2)]);
        it.expect(&patient, []);
        it.active(&right);
        it.push(&right, Timestamp::MIN, 12);
        it.expect(&impatient, []);
        it.expect(&patient, [(0, 2)]);
    });
}

#[test]
fn time_cannot_be_told_behind_an_exchange() {
    let mut it = Harness::new();
    let (times, stream) = it.input::<i64>();
    let counts = stream.key_by(|n| *n).window(Windows::tumbling(millis(10))).count();
    let again = counts.event_time(|row| row.window.start, Watermarks::monotonous());
    let rows = it.output(again);
    let error = it.try_push(&times, at(0), 0).unwrap_err().to_string();
    assert!(error.contains("`event_time-1` comes behind `exchange-1`"), "{error}");
    drop(rows);
}
