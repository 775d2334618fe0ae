//! Event-time order: what a function sees is a property of the log.

use crate::at;
use rivermark_operators::process::{Context, ProcessFunction, Side};
use rivermark_operators::testing::{self, Harness, Mode};
use rivermark_operators::{BoxError, Late, Timestamp, Value};

const LOG: Value<String> = Value::new("log");
const LONG: Side<usize> = Side::new("long");

/// Notes what it sees, in the order in which it sees it; a record `t+5` also sets a timer at its time plus five.
#[derive(Clone)]
struct Noting;

impl ProcessFunction<u8, String> for Noting {
    type Out = String;

    fn on_record(
        &mut self,
        _: &u8,
        record: String,
        cx: &mut Context<'_, u8, String>,
    ) -> Result<(), BoxError> {
        assert_eq!(cx.watermark(), cx.time(), "time stands where the record is");
        if let Some((_, after)) = record.split_once('+') {
            cx.timer(cx.time().plus_millis(after.parse()?))?;
        }
        let log = cx.state(LOG).update(String::new, |log| {
            log.push_str(&record);
            log.push(' ');
            log.clone()
        })?;
        if log.len() > 12 {
            cx.emit_to(LONG, log.len());
        }
        cx.emit(log);
        Ok(())
    }

    fn on_timer(
        &mut self,
        _: &u8,
        time: Timestamp,
        cx: &mut Context<'_, u8, String>,
    ) -> Result<(), BoxError> {
        cx.state(LOG).update(String::new, |log| log.push_str(&format!("timer{} ", time.millis())))
    }
}

#[test]
fn records_run_by_time_then_partition_then_offset_with_timers_before_their_time() {
    // The same records, pushed in several orders (never changed within an input) and with watermarks that move in several steps.
    for steps in [vec![100], vec![5, 8, 9, 10, 11, 100], vec![10, 100]] {
        for swapped in [false, true] {
            testing::check(|it| {
                let (left, left_stream) = it.input::<&str>();
                let (right, right_stream) = it.input::<&str>();
                let both = left_stream.union(right_stream).map(str::to_string);
                let noted = both.key_by(|_| 1_u8).in_event_time_order().process(Noting);
                let rows = it.output(noted);
                let mut pushes: Vec<(_, i64, &str)> =
                    vec![(&left, 10, "c"), (&left, 5, "a+5"), (&left, 9, "b")];
                let others = [(&right, 10, "d"), (&right, 10, "e"), (&right, 30, "f")];
                let at_front = if swapped { 0 } else { pushes.len() };
                pushes.splice(at_front..at_front, others);
                pushes.into_iter().for_each(|(input, time, record)| it.push(input, at(time), record));
                it.expect(&rows, []);
                for &watermark in &steps {
                    it.watermark(&left, at(watermark));
                    it.watermark(&right, at(watermark));
                }
                let last = it.take(&rows).pop();
                assert_eq!(last.as_deref(), Some("a+5 b timer10 c d e f "));
            });
        }
    }
}

#[test]
fn a_record_below_the_watermark_of_its_partition_is_late() {
    testing::check(|it| {
        let (input, stream) = it.input::<String>();
        let noted = stream.key_by(|_| 1_u8).in_event_time_order().process(Noting);
        let long = noted.side_output(LONG);
        let (rows, long) = (it.output(noted), it.output(long));
        it.push(&input, at(10), "on-time".into());
        it.watermark(&input, at(20));
        it.push(&input, at(19), "late".into());
        it.push(&input, at(20), "just-so".into());
        it.end(&input);
        it.expect(&rows, ["on-time ".to_string(), "on-time just-so ".to_string()]);
        it.expect(&long, [16]);
        assert_eq!(it.late_records(), 1);
    });
}

#[test]
fn late_records_can_be_had() {
    let mut it = Harness::in_mode(Mode::AllAtOnce);
    let (input, stream) = it.input::<String>();
    let (sender, receiver) = std::sync::mpsc::channel();
    let late = move |late: rivermark_operators::Stream<Late<u8, String>>| sender.send(late).unwrap();
    let noted = stream.key_by(|_| 1_u8).in_event_time_order_with_late_output(late).process(Noting);
    let rows = it.output(noted);
    let late = it.output(receiver.recv().unwrap());
    it.watermark(&input, at(20));
    it.push(&input, at(19), "late".into());
    it.end(&input);
    it.expect(&rows, []);
    it.expect_at(&late, [(at(19), Late { key: 1, value: "late".to_string(), windows_missed: 1 })]);
}

#[test]
fn order_without_event_time_and_side_outputs_of_nothing_are_refused() {
    let refused = |describe: &dyn Fn(&mut Harness)| {
        let mut it = Harness::new();
        describe(&mut it);
        let (input, stream) = it.input::<u8>();
        let _ = it.output(stream);
        it.try_push(&input, at(0), 0).unwrap_err().to_string()
    };
    let error = refused(&|it| {
        let (_, stream) = it.input::<u8>();
        let _ = it.output(stream.map(|n| n).side_output(LONG));
    });
    assert!(error.contains("`map-1` has no side outputs, and `long` is asked for"), "{error}");
    let error = refused(&|it| {
        let (_, stream) = it.input::<String>();
        let noted = stream.key_by(|_| 1_u8).process(Noting);
        let (first, second) = (noted.side_output(LONG), noted.side_output(LONG));
        let _ = (it.output(first), it.output(second), it.output(noted));
    });
    assert!(error.contains("side output `long` of `process-1` is asked for twice"), "{error}");
}

/// Sets a timer at each record's time plus ten, and gives a row for both.
#[derive(Clone)]
struct Twice;

impl ProcessFunction<u64, u64> for Twice {
    type Out = (i64, u64);

    fn on_record(
        &mut self,
        _: &u64,
        record: u64,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        cx.timer(cx.time().plus_millis(10))?;
        cx.emit((cx.time().millis(), record));
        Ok(())
    }

    fn on_timer(
        &mut self,
        key: &u64,
        time: Timestamp,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        cx.emit((time.millis(), *key));
        Ok(())
    }
}

#[test]
fn many_records_and_timers_that_are_due_at_once_all_run_in_their_order() {
    const MANY: u64 = 500;
    testing::check(|it| {
        let (numbers, stream) = it.input::<u64>();
        let ordered = it.output(stream.clone().key_by(|n| *n).in_event_time_order().process(Twice));
        let unordered = it.output(stream.key_by(|n| *n).process(Twice));
        (0..MANY).for_each(|n| it.push(&numbers, at(n as i64 % 5), n));
        it.watermark(&numbers, at(12));
        let rows = |times: std::ops::Range<i64>| {
            let of = |time: i64| (0..MANY).filter(move |n| *n as i64 % 5 == time % 5).map(move |n| (time, n));
            times.flat_map(of).collect::<Vec<_>>()
        };
        let found = it.take(&ordered);
        assert!(found.is_sorted_by_key(|(time, _)| *time), "not in order of time");
        let sorted = |mut rows: Vec<(i64, u64)>| {
            rows.sort_unstable();
            rows
        };
        let expected: Vec<_> = rows(0..5).into_iter().chain(rows(10..13)).collect();
        assert!(sorted(found) == expected && sorted(it.take(&unordered)) == expected);
        it.watermark(&numbers, at(20));
        assert!(sorted(it.take(&ordered)) == rows(13..15) && sorted(it.take(&unordered)) == rows(13..15));
    });
}
