//! Triggers and their panes, windows by count, global windows, and functions over the records of a window.

use crate::at;
use Timing::{Early, Late, OnTime};
use rivermark_operators::testing::{self, Harness};
use rivermark_operators::window::triggered::{Accumulating, Panes};
use rivermark_operators::{
    Change, KeyedStream, Pane, Paned, Stream, Timing, Trigger, TriggeredWindows, Window, Windows, millis,
};

type Sips = KeyedStream<u8, i64>;

fn hundred(sips: Sips, lateness: u64, trigger: Trigger) -> TriggeredWindows<u8, i64, Accumulating> {
    sips.window(Windows::tumbling(millis(100))).allowed_lateness(millis(lateness)).trigger(trigger)
}

/// Time, timing, number and value of the panes of one key.
type Told<R> = (i64, Timing, u64, R);

/// Runs a script over numbers of one key, with what the panes are.
fn script<R: Send + PartialEq + std::fmt::Debug + 'static>(
    describe: impl Fn(Sips) -> Stream<Paned<u8, R>>,
    script: impl Fn(&mut Harness, &testing::Input<i64>, &mut dyn FnMut(&mut Harness, Vec<Told<R>>)),
) {
    testing::check(|it| {
        let (numbers, stream) = it.input::<i64>();
        let rows = it.output(describe(stream.key_by(|_| 0)).map(|row| (row.pane, row.value)));
        let told = |(time, (Pane { timing, index }, value)): (_, (_, _))| (time, timing, index, value);
        script(it, &numbers, &mut |it, expected| {
            let found: Vec<_> = it.take_at(&rows).into_iter().map(told).collect();
            let found: Vec<_> = found.into_iter().map(|(time, a, b, c)| (time_of(time), a, b, c)).collect();
            assert_eq!(found, expected);
        });
    });
}

fn time_of(time: rivermark_operators::Timestamp) -> i64 {
    time.millis()
}

fn push(it: &mut Harness, numbers: &testing::Input<i64>, records: &[(i64, i64)]) {
    records.iter().for_each(|(time, n)| it.push(numbers, at(*time), *n));
}

#[test]
fn early_panes_of_event_time_hold_what_is_known_then_and_come_where_something_is_new() {
    let trigger = Trigger::on_watermark().early_every(millis(20));
    script(
        |sips| hundred(sips, 0, trigger.clone()).sum(|n| *n),
        |it, numbers, expect| {
            push(it, numbers, &[(5, 1), (20, 2), (19, 4), (75, 8), (110, 16)]);
            it.watermark(numbers, at(20));
            expect(it, vec![(19, Early, 0, 5)]);
            // Behind its watermark, and on time for the window: known at 20, so in the pane of 40.
            push(it, numbers, &[(3, 32)]);
            it.watermark(numbers, at(79));
            expect(it, vec![(39, Early, 1, 39)]);
            it.watermark(numbers, at(300));
            expect(
                it,
                vec![(79, Early, 2, 47), (99, OnTime, 3, 47), (119, Early, 0, 16), (199, OnTime, 1, 16)],
            );
        },
    );
}

#[test]
fn early_panes_on_count_come_with_the_record_that_is_enough_in_order_of_time() {
    let trigger = Trigger::on_watermark().early_on_count(2);
    script(
        |sips| hundred(sips, 0, trigger.clone()).process(|row| Ok(Some(row))),
        |it, numbers, expect| {
            push(it, numbers, &[(30, 3), (10, 1), (20, 2), (90, 5), (40, 4)]);
            it.watermark(numbers, at(31));
            expect(it, vec![(20, Early, 0, vec![1, 2])]);
            it.end(numbers);
            expect(it, vec![(40, Early, 1, vec![1, 2, 3, 4]), (99, OnTime, 2, vec![1, 2, 3, 4, 5])]);
        },
    );
}

#[test]
fn any_part_of_a_trigger_gives_a_pane_and_the_others_begin_anew() {
    let trigger = Trigger::on_watermark().early_every(millis(30)).early_on_count(3);
    script(
        |sips| hundred(sips, 0, trigger.clone()).discarding().process(|row| Ok([row])),
        |it, numbers, expect| {
            push(it, numbers, &[(1, 1), (31, 2), (32, 3), (33, 4), (34, 5), (61, 6), (62, 7), (63, 8)]);
            it.end(numbers);
            let panes = vec![
                (29, Early, 0, vec![1]),
                (33, Early, 1, vec![2, 3, 4]),
                (59, Early, 2, vec![5]),
                (63, Early, 3, vec![6, 7, 8]),
                // Nothing new: what discards says nothing.
            ];
            expect(it, panes);
        },
    );
}

#[test]
fn late_panes_come_for_each_record_until_the_allowed_lateness_is_over() {
    script(
        |sips| hundred(sips, 50, Trigger::on_watermark()).sum(|n| *n),
        |it, numbers, expect| {
            push(it, numbers, &[(5, 1)]);
            it.watermark(numbers, at(110));
            expect(it, vec![(99, OnTime, 0, 1)]);
            // One of a window that had nothing on time: its first pane is late.
            push(it, numbers, &[(6, 2), (7, 4)]);
            it.watermark(numbers, at(149));
            expect(it, vec![(110, Late, 1, 3), (110, Late, 2, 7)]);
            push(it, numbers, &[(8, 8)]);
            it.watermark(numbers, at(150));
            expect(it, vec![(149, Late, 3, 15)]);
            push(it, numbers, &[(9, 16)]);
            it.end(numbers);
            expect(it, vec![]);
            assert_eq!(it.late_records(), 1);
        },
    );
}

#[test]
fn late_panes_together_come_in_their_time_and_at_the_end_of_the_allowed_lateness() {
    let trigger = Trigger::on_watermark().late_on_count(2).late_every(millis(40));
    script(
        |sips| hundred(sips, 60, trigger.clone()).discarding().process(|row| Ok([row])),
        |it, numbers, expect| {
            push(it, numbers, &[(5, 1)]);
            it.watermark(numbers, at(100));
            expect(it, vec![(99, OnTime, 0, vec![1])]);
            push(it, numbers, &[(6, 2), (7, 3), (8, 4)]);
            it.watermark(numbers, at(120));
            expect(it, vec![(100, Late, 1, vec![2, 3]), (119, Late, 2, vec![4])]);
            push(it, numbers, &[(9, 5)]);
            it.watermark(numbers, at(1000));
            expect(it, vec![(159, Late, 3, vec![5])]);
        },
    );
}

#[test]
fn what_is_late_and_not_yet_told_is_told_when_the_stream_ends() {
    let trigger = Trigger::on_watermark().late_on_count(5);
    script(
        |sips| hundred(sips, 60, trigger.clone()).sum(|n| *n),
        |it, numbers, expect| {
            push(it, numbers, &[(5, 1)]);
            it.watermark(numbers, at(110));
            push(it, numbers, &[(6, 2)]);
            it.end(numbers);
            expect(it, vec![(99, OnTime, 0, 1), (159, Late, 1, 3)]);
        },
    );
}

#[test]
fn panes_by_the_clock_come_a_span_after_the_first_new_record() {
    let trigger = Trigger::on_watermark().early_every_by_clock(millis(1000));
    script(
        |sips| hundred(sips, 0, trigger.clone()).sum(|n| *n),
        |it, numbers, expect| {
            push(it, numbers, &[(5, 1)]);
            it.advance_to(at(5000));
            // It is known when its turn has come.
            it.watermark(numbers, at(10));
            it.advance_to(at(5999));
            push(it, numbers, &[(12, 2), (30, 4)]);
            it.watermark(numbers, at(20));
            expect(it, vec![]);
            it.advance_to(at(6000));
            expect(it, vec![(20, Early, 0, 3)]);
            it.advance_to(at(9000));
            expect(it, vec![]);
            it.watermark(numbers, at(40));
            it.advance_to(at(9999));
            expect(it, vec![]);
            it.advance_to(at(10_000));
            expect(it, vec![(40, Early, 1, 7)]);
            push(it, numbers, &[(50, 8)]);
            it.end(numbers);
            it.advance_to(at(20_000));
            expect(it, vec![(99, OnTime, 2, 15)]);
        },
    );
}

#[test]
fn panes_that_retract_say_what_they_take_back() {
    let trigger = Trigger::on_watermark().early_on_count(2);
    script(
        |sips| hundred(sips, 50, trigger.clone()).retracting().sum(|n| *n),
        |it, numbers, expect| {
            push(it, numbers, &[(5, 1), (6, 2), (7, 4)]);
            it.watermark(numbers, at(100));
            let update = |before, after| Change::Update { before, after };
            expect(it, vec![(6, Early, 0, Change::Insert(3)), (99, OnTime, 1, update(3, 7))]);
            push(it, numbers, &[(8, 8)]);
            it.end(numbers);
            expect(it, vec![(100, Late, 2, update(7, 15))]);
        },
    );
}

#[test]
fn a_session_that_grows_takes_back_the_rows_under_its_former_bounds() {
    testing::check(|it| {
        let (numbers, stream) = it.input::<i64>();
        let sessions = stream.key_by(|_| 0_u8).window(Windows::session(millis(10)));
        let trigger = Trigger::on_watermark().early_on_count(1);
        let rows = sessions.trigger(trigger).retracting().count();
        let rows = it.output(rows.map(|row| {
            let Window { start, end } = row.window;
            (start.millis(), end.millis(), row.pane.timing, row.value)
        }));
        push(it, &numbers, &[(0, 0), (20, 0), (29, 0)]);
        it.watermark(&numbers, at(22));
        let told_again = |n| Change::Update { before: n, after: n };
        it.expect(
            &rows,
            [
                (0, 10, Early, Change::Insert(1)),
                (0, 10, OnTime, told_again(1)),
                (20, 30, Early, Change::Insert(1)),
            ],
        );
        it.watermark(&numbers, at(35));
        it.expect(&rows, [(20, 30, Early, Change::Delete(1)), (20, 39, Early, Change::Insert(2))]);
        // Behind the watermark, on time for its own session, and it touches the other.
        push(it, &numbers, &[(31, 0), (47, 0), (48, 0)]);
        it.end(&numbers);
        it.expect(
            &rows,
            [
                (20, 39, Early, Change::Delete(2)),
                (20, 41, Early, Change::Insert(3)),
                (47, 57, Early, Change::Insert(1)),
                (47, 57, Early, Change::Delete(1)),
                (47, 58, Early, Change::Insert(2)),
                (20, 41, OnTime, told_again(3)),
                (47, 58, OnTime, told_again(2)),
            ],
        );
    });
}

#[test]
fn a_global_window_tells_by_its_trigger_and_at_the_end_of_its_stream() {
    let global =
        |sips: Sips, trigger| sips.window(Windows::global()).trigger(trigger).discarding().sum(|n| *n);
    let records = [(5, 1), (-3, 2), (7, 4), (9, 8), (30, 16)];
    script(
        |sips| global(sips, Trigger::on_watermark().early_on_count(2)),
        |it, numbers, expect| {
            push(it, numbers, &records);
            it.watermark(numbers, at(20));
            expect(it, vec![(5, Early, 0, 3), (9, Early, 1, 12)]);
            it.end(numbers);
            expect(it, vec![(i64::MAX - 1, OnTime, 2, 16)]);
        },
    );
    script(
        |sips| global(sips, Trigger::never().early_every(millis(8))),
        |it, numbers, expect| {
            push(it, numbers, &records);
            it.end(numbers);
            expect(it, vec![(-1, Early, 0, 2), (7, Early, 1, 5), (15, Early, 2, 8), (31, Early, 3, 16)]);
        },
    );
}

#[test]
fn windows_by_count_count_in_order_of_time_and_what_is_behind_its_watermark_when_it_comes() {
    testing::check(|it| {
        let (numbers, stream) = it.input::<i64>();
        let tumbling = stream.clone().key_by(|n| n % 2).count_windows(2);
        let tumbling = it.output(tumbling.process(|row| Ok([(row.window, row.key, row.value)])));
        let sliding =
            it.output(stream.key_by(|_| 0).sliding_count_windows(3, 2).sum(|n| *n).map(|row| row.value));
        push(it, &numbers, &[(30, 6), (10, 2), (20, 4), (25, 1)]);
        it.watermark(&numbers, at(27));
        let window = |start, end| Window { start: at(start), end: at(end) };
        it.expect(&tumbling, [(window(10, 21), 0, vec![2, 4])]);
        it.expect(&sliding, [6]);
        push(it, &numbers, &[(5, 3), (6, 5)]);
        it.end(&numbers);
        // The third of the odd ones waits for a fourth.
        it.expect(&tumbling, [(window(5, 26), 1, vec![1, 3])]);
        it.expect(&sliding, [4 + 1 + 3, 3 + 5 + 6]);
        assert_eq!(it.late_records(), 0);
    });
}

#[test]
fn a_function_over_a_windows_records_may_fail_and_the_error_names_the_window() {
    let mut it = Harness::new();
    let (numbers, stream) = it.input::<i64>();
    let windows = stream.key_by(|_| 0_u8).window(Windows::sliding(millis(20), millis(10)));
    let rows = windows.process(|row| match row.value.as_slice() {
        [1, ..] => Ok(row.value.into_iter().map(move |n| (row.window.start.millis(), n))),
        _ => Err("it does not begin with 1".into()),
    });
    let rows = it.output(rows);
    push(&mut it, &numbers, &[(12, 2), (11, 1)]);
    it.watermark(&numbers, at(20));
    it.expect(&rows, [(0, 1), (0, 2)]);
    it.push(&numbers, at(41), 7);
    let mut it = Some(it);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        it.take().unwrap().end(&numbers);
    }));
    let message = failed.unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(message.contains("it does not begin with 1") && message.contains("window-1"), "{message}");
    assert!(message.contains(&at(49).to_string()), "{message}");
}

#[test]
fn a_trigger_that_cannot_be_is_refused_before_any_record() {
    fn refused(windows: Windows, trigger: Trigger, why: &str) {
        let mut it = Harness::new();
        let (numbers, stream) = it.input::<i64>();
        let _rows = it.output(stream.key_by(|_| 0_u8).window(windows).trigger(trigger).count());
        let error = it.try_push(&numbers, at(0), 1).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let hundred = || Windows::tumbling(millis(100));
    refused(hundred(), Trigger::never().early_on_count(3), "would be lost");
    refused(Windows::global(), Trigger::never(), "never gives a pane");
    refused(hundred(), Trigger::on_watermark().early_on_count(0), "every 0 records");
    refused(hundred(), Trigger::on_watermark().late_every(millis(0)), "every 0 ms");
    let mut it = Harness::new();
    let (numbers, stream) = it.input::<i64>();
    let _rows = it.output(stream.key_by(|_| 0_u8).window(Windows::global()).count());
    let error = it.try_push(&numbers, at(0), 1).unwrap_err().to_string();
    assert!(error.contains("never ends") && error.contains(".trigger("), "{error}");
}

/// Keys that are due at once: with outputs of one record, more than fires in one go.
const MANY: i64 = 700;

fn many<M: Panes<Row<i64, u64> = Paned<i64, u64>>>(
    it: &mut Harness,
    windows: impl Fn(KeyedStream<i64, i64>) -> TriggeredWindows<i64, i64, M>,
) {
    let (numbers, stream) = it.input::<i64>();
    let rows =
        it.output(windows(stream.key_by(|n| *n)).count().map(|row| (row.pane.timing, row.key, row.value)));
    (0..2 * MANY).for_each(|n| it.push(&numbers, at(n / MANY), n % MANY));
    it.watermark(&numbers, at(100));
    let mut found = it.take(&rows);
    found.sort_unstable();
    let of = |timing, count| (0..MANY).map(move |n| (timing, n, count));
    let expected: Vec<_> = of(Early, 1).chain(of(OnTime, 2)).collect();
    assert!(found == expected, "{} panes for {}", found.len(), expected.len());
}

#[test]
fn panes_of_many_keys_come_in_parts_and_none_is_lost() {
    let trigger = Trigger::on_watermark().early_every(millis(1));
    testing::check(|it| {
        many(it, |keyed| keyed.window(Windows::tumbling(millis(2))).trigger(trigger.clone()))
    });
}
