//! The harness itself: it shows what an operator does, and finds what is wrong with one.

use crate::at;
use rivermark_operators::process::{Context, ProcessFunction};
use rivermark_operators::testing::{self, Harness, Mode};
use rivermark_operators::{BoxError, Timestamp, Value, Watermarks, Windows, millis};
use std::panic::{AssertUnwindSafe, catch_unwind};

const LAST: Value<i64> = Value::new("last");

/// Gives each number with the one before it, and a zero ten milliseconds after each.
#[derive(Clone)]
struct Pairs;

impl ProcessFunction<u8, i64> for Pairs {
    type Out = (u8, i64, i64);

    fn on_record(
        &mut self,
        key: &u8,
        record: i64,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        let before = cx.state(LAST).get()?.unwrap_or(0);
        cx.state(LAST).set(record)?;
        cx.emit((*key, before, record));
        cx.timer(cx.time().plus_millis(10))
    }

    fn on_timer(
        &mut self,
        key: &u8,
        _time: Timestamp,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        let before = cx.state(LAST).get()?.unwrap_or(0);
        cx.emit((*key, before, 0));
        Ok(())
    }
}

#[test]
fn state_and_timers_survive_a_restore_before_every_step() {
    testing::check(|it| {
        let (numbers, stream) = it.input();
        let rows = it.output(stream.key_by(|n: &i64| (n % 2) as u8).process(Pairs));
        it.push(&numbers, at(1), 1);
        it.push(&numbers, at(2), 2);
        it.push(&numbers, at(3), 3);
        it.expect_at(&rows, [(at(1), (1, 0, 1)), (at(2), (0, 0, 2)), (at(3), (1, 1, 3))]);
        it.watermark(&numbers, at(12));
        it.expect_at(&rows, [(at(11), (1, 3, 0)), (at(12), (0, 2, 0))]);
        it.restore();
        it.end(&numbers);
        it.expect(&rows, [(1, 3, 0)]);
    });
}

#[test]
fn a_union_waits_for_the_slower_input_unless_that_is_idle() {
    testing::check(|it| {
        let (left, left_stream) = it.input::<u8>();
        let (right, right_stream) = it.input::<u8>();
        let counts =
            left_stream.union(right_stream).key_by(|n| *n).window(Windows::tumbling(millis(10))).count();
        let rows = it.output(counts.map(|row| (row.key, row.value)));
        it.push(&left, at(1), 7);
        it.push(&right, at(2), 7);
        it.watermark(&left, at(10));
        it.expect(&rows, []);
        it.watermark(&right, at(10));
        it.expect(&rows, [(7, 2)]);
        it.push(&left, at(11), 7);
        it.idle(&right);
        it.watermark(&left, at(20));
        it.expect(&rows, [(7, 1)]);
        it.active(&right);
        it.push(&right, at(21), 7);
        it.end(&left);
        it.expect(&rows, []);
        it.end(&right);
        it.expect(&rows, [(7, 1)]);
    });
}

#[test]
fn a_stream_may_tell_its_own_time_from_the_records() {
    testing::check(|it| {
        let (times, stream) = it.input();
        let counts = stream
            .event_time(|time: &i64| at(*time), Watermarks::bounded(millis(5)))
            .key_by(|_| 0_u8)
            .window(Windows::tumbling(millis(10)))
            .count();
        let rows = it.output(counts.map(|row| (row.window.start.millis(), row.value)));
        for time in [1, 9, 14, 8, 15, 3] {
            it.push(&times, Timestamp::MIN, time);
        }
        it.expect(&rows, [(0, 3)]);
        assert_eq!(it.late_records(), 1, "3 came when 15 had closed the window up to 10");
    });
}

/// Forgets what it counted when it is restored: its count is not in state.
#[derive(Clone, Default)]
struct Forgetful(u64);

impl ProcessFunction<u8, u8> for Forgetful {
    type Out = u64;

    fn on_record(&mut self, _: &u8, _: u8, cx: &mut Context<'_, u8, u64>) -> Result<(), BoxError> {
        self.0 += 1;
        cx.emit(self.0);
        Ok(())
    }
}

#[test]
fn what_is_not_kept_in_state_is_found_by_restoring_and_shown() {
    let script = |it: &mut Harness| {
        let (input, stream) = it.input();
        let rows = it.output(stream.key_by(|n: &u8| *n).process(Forgetful::default()));
        it.push(&input, at(1), 7);
        it.push(&input, at(2), 7);
        it.expect(&rows, [1, 2]);
    };
    script(&mut Harness::in_mode(Mode::OneByOne));
    let mut restoring = Harness::in_mode(Mode::Restoring);
    let panic = catch_unwind(AssertUnwindSafe(|| script(&mut restoring))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert_eq!(message, "expected 2 rows (-), got 2 (+):\n    1\n  - 2\n  + 1\n");
}

#[test]
fn an_error_names_operator_and_record() {
    let mut it = Harness::new();
    let (numbers, stream) = it.input();
    let parsed = stream.try_map(|text: &str| Ok(text.parse::<u8>()?)).named("parse");
    let rows = it.output(parsed);
    it.push(&numbers, at(1), "1");
    let error = it.try_push(&numbers, at(2), "x").unwrap_err().to_string();
    assert!(error.contains("operator `parse`") && error.contains("offset 1"), "{error}");
    it.expect(&rows, [1]);
}
