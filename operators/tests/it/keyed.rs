//! What becomes of each key's records, in event-time order: reduced, made distinct, deduplicated.

use crate::at;
use rivermark_operators::testing::{self, Harness, Input};
use rivermark_operators::{Keep, Stream, Timestamp, Windows, millis};

type Record = (u8, i64);

/// Pushes records of key 1 with these times, which are also their values.
fn push_all(it: &mut Harness, input: &Input<Record>, times: &[i64]) {
    times.iter().for_each(|time| it.push(input, at(*time), (1, *time)));
}

fn deduplicated(records: Stream<Record>, keep: Keep) -> Stream<i64> {
    records.key_by(|(key, _)| *key).deduplicate(keep, millis(10)).map(|(_, value)| value)
}

#[test]
fn a_rolling_reduce_merges_by_event_time_and_each_key_alone() {
    testing::check(|it| {
        let (input, stream) = it.input::<(u8, String)>();
        let joined = stream.key_by(|(key, _)| *key).reduce(|before, (_, next)| before.1.push_str(&next));
        let rows = it.output(joined.map(|(key, text)| format!("{key}{text}")));
        for (time, key, text) in [(30, 1, "c"), (20, 2, "x"), (20, 1, "b"), (10, 1, "a"), (30, 1, "d")] {
            it.push(&input, at(time), (key, text.to_string()));
        }
        it.watermark(&input, at(30));
        let mut told = it.take_at(&rows);
        told.sort();
        assert_eq!(
            told,
            [(10, "1a"), (20, "1ab"), (20, "2x")].map(|(time, row)| (at(time), row.to_string()))
        );
        it.push(&input, at(29), (1, "late".to_string()));
        it.end(&input);
        it.expect_at(&rows, [(at(30), "1abc".to_string()), (at(30), "1abcd".to_string())]);
        assert_eq!(it.late_records(), 1);
    });
}

#[test]
fn windows_reduce_over_slices_and_sessions() {
    for windows in [Windows::sliding(millis(20), millis(10)), Windows::session(millis(10))] {
        testing::check(|it| {
            let (input, stream) = it.input::<Record>();
            let least_and_sum = stream.key_by(|(key, _)| *key).window(windows).reduce(|total, next| {
                total.0 += next.0;
                total.1 = total.1.min(next.1);
            });
            let rows = it.output(least_and_sum.map(|row| (row.window.start.millis(), row.value)));
            push_all(it, &input, &[15, 3, 9]);
            it.end(&input);
            let expected = match windows.to_string().starts_with("sliding") {
                true => vec![(-10, (2, 3)), (0, (3, 3)), (10, (1, 15))],
                false => vec![(3, (3, 3))],
            };
            it.expect(&rows, expected);
        });
    }
}

#[test]
fn distinct_keeps_the_first_by_event_time_however_long_ago_it_was() {
    testing::check(|it| {
        let (input, stream) = it.input::<Record>();
        let rows = it.output(stream.key_by(|(key, _)| *key).distinct());
        it.push(&input, at(9), (2, 0));
        push_all(it, &input, &[7, 5]);
        it.watermark(&input, at(1_000_000));
        push_all(it, &input, &[1_000_000]);
        it.end(&input);
        it.expect_at(&rows, [(at(5), (1, 5)), (at(9), (2, 0))]);
    });
}

#[test]
fn the_first_of_a_span_is_told_at_its_time_and_duplicates_do_not_make_it_longer() {
    testing::check(|it| {
        let (input, stream) = it.input();
        let rows = it.output(deduplicated(stream, Keep::First));
        push_all(it, &input, &[21, 15, 10, 20, 31, 32]);
        it.watermark(&input, at(20));
        it.expect_at(&rows, [(at(10), 10)]);
        it.watermark(&input, at(21));
        it.expect(&rows, []);
        it.end(&input);
        // 20 is still a duplicate of 10, and 31 of 21.
        it.expect_at(&rows, [(at(21), 21), (at(32), 32)]);
    });
}

#[test]
fn the_last_of_a_span_is_told_when_the_span_is_over() {
    testing::check(|it| {
        let (input, stream) = it.input();
        let rows = it.output(deduplicated(stream, Keep::Last));
        push_all(it, &input, &[19, 10, 15, 21]);
        it.watermark(&input, at(20));
        it.expect(&rows, []);
        it.watermark(&input, at(21));
        it.expect_at(&rows, [(at(20), 19)]);
        push_all(it, &input, &[31]);
        it.end(&input);
        it.expect_at(&rows, [(at(31), 31)]);
    });
}

#[test]
fn spans_that_end_beyond_the_range_of_time_end_with_it() {
    for keep in [Keep::First, Keep::Last] {
        testing::check(|it| {
            let (input, stream) = it.input::<Record>();
            let kept = stream.key_by(|(key, _)| *key).deduplicate(keep, std::time::Duration::MAX);
            let rows = it.output(kept.map(|(_, value)| value));
            push_all(it, &input, &[10, 5]);
            it.push(&input, Timestamp::MAX, (1, 7));
            it.end(&input);
            let told = it.take(&rows);
            match keep {
                // The end of all time is the end of the span too.
                Keep::First => assert_eq!(told, [5, 7]),
                Keep::Last => assert_eq!(told, [10, 7]),
            }
        });
    }
}
