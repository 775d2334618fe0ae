//! Tables, change by change and across restarts.

use crate::at;
use rivermark_operators::join::{BroadcastContext, BroadcastFunction};
use rivermark_operators::testing;
use rivermark_operators::{BoxError, Change, Timestamp, Upsert, Value, millis};

fn put(key: u8, time: i64, value: i64) -> (Timestamp, Upsert<u8, i64>) {
    (at(time), Upsert { key, value: Some(value), time: at(time) })
}

fn gone(key: u8, time: i64) -> (Timestamp, Upsert<u8, i64>) {
    (at(time), Upsert { key, value: None, time: at(time) })
}

fn update<V>(before: V, after: V) -> Change<V> {
    Change::Update { before, after }
}

#[test]
fn a_table_has_the_newest_row_by_event_time_and_tells_what_it_takes_back() {
    testing::check(|it| {
        let (input, stream) = it.input();
        let rows = it.output(stream.to_table().changes());
        for (time, upsert) in [put(1, 20, 2), put(1, 10, 1), gone(1, 30), gone(1, 31), put(1, 40, 4)] {
            it.push(&input, time, upsert);
        }
        it.expect(&rows, []);
        it.watermark(&input, at(31));
        let expected = [(at(10), Change::Insert(1)), (at(20), update(1, 2)), (at(30), Change::Delete(2))];
        it.expect_at(&rows, expected.map(|(time, change)| (time, (1, change))));
        it.push(&input, at(30), put(1, 30, 9).1);
        it.end(&input);
        it.expect_at(&rows, [(at(40), (1, Change::Insert(4)))]);
        assert_eq!(it.late_records(), 1);
    });
}

#[test]
fn filters_turn_updates_into_inserts_and_deletes() {
    testing::check(|it| {
        let (input, stream) = it.input();
        let even =
            stream.to_table().filter(|_, value: &i64| value % 2 == 0).map_values(|_, value| value * 10);
        let rows = it.output(even.to_stream());
        for (time, upsert) in
            [put(1, 1, 1), put(1, 2, 2), put(1, 3, 4), put(1, 4, 5), put(1, 5, 7), gone(1, 6)]
        {
            it.push(&input, time, upsert);
        }
        it.end(&input);
        it.expect_at(&rows, [put(1, 2, 20), put(1, 3, 40), gone(1, 4)]);
    });
}

#[test]
fn a_row_that_moves_between_groups_leaves_one_and_enters_the_other_at_one_time() {
    testing::check(|it| {
        let (input, stream) = it.input();
        let sums = stream.to_table().group_by(|_, value: &i64| value % 2).sum(|value| *value);
        let rows = it.output(sums.changes());
        for (time, upsert) in [put(1, 1, 2), put(2, 1, 4), put(1, 2, 3), put(2, 3, 4), gone(2, 4)] {
            it.push(&input, time, upsert);
        }
        it.watermark(&input, at(1));
        it.expect(&rows, []);
        it.end(&input);
        let mut told = it.take_at(&rows);
        told.sort();
        assert_eq!(
            told,
            [
                (at(1), (0, Change::Insert(6))),
                (at(2), (0, update(6, 4))),
                (at(2), (1, Change::Insert(3))),
                (at(4), (0, Change::Delete(4))),
            ],
            "a row that is told again as it was changes no sum"
        );
    });
}

#[test]
fn a_join_of_tables_tells_one_change_a_time_whichever_side_comes_first() {
    for right_first in [false, true] {
        testing::check(|it| {
            let ((left, lefts), (right, rights)) = (it.input(), it.input());
            let joined = lefts.to_table().join(rights.to_table());
            let rows = it.output(
                joined.full(|_, a: Option<&i64>, b: Option<&i64>| (a.copied(), b.copied())).changes(),
            );
            let from_left = [put(1, 1, 10), put(1, 5, 11), gone(1, 7)];
            let from_right = [put(1, 3, 20), put(1, 5, 21), gone(1, 9)];
            if right_first {
                from_right.iter().for_each(|(time, upsert)| it.push(&right, *time, upsert.clone()));
            }
            from_left.iter().for_each(|(time, upsert)| it.push(&left, *time, upsert.clone()));
            if !right_first {
                from_right.iter().for_each(|(time, upsert)| it.push(&right, *time, upsert.clone()));
            }
            it.end(&left);
            it.end(&right);
            let expected = [
                (1, Change::Insert((Some(10), None))),
                (3, update((Some(10), None), (Some(10), Some(20)))),
                (5, update((Some(10), Some(20)), (Some(11), Some(21)))),
                (7, update((Some(11), Some(21)), (None, Some(21)))),
                (9, Change::Delete((None, Some(21)))),
            ];
            it.expect_at(&rows, expected.map(|(time, change)| (at(time), (1, change))));
        });
    }
}

#[test]
fn a_foreign_key_join_follows_references_and_what_they_refer_to() {
    testing::check(|it| {
        let ((left, lefts), (right, rights)) = (it.input(), it.input());
        let joined = lefts.to_table().join_on(rights.to_table(), |_, value: &i64| (value % 10) as u8);
        let rows = it.output(joined.inner(|_, a, b: &i64| (*a, *b)).changes());
        for (time, upsert) in [put(1, 1, 101), put(1, 4, 102), put(1, 6, 202), gone(1, 9)] {
            it.push(&left, time, upsert);
        }
        for (time, upsert) in [put(1, 2, -1), put(2, 3, -2), put(2, 5, -3), gone(2, 7), put(2, 8, -4)] {
            it.push(&right, time, upsert);
        }
        it.end(&left);
        it.end(&right);
        let expected = [
            (2, Change::Insert((101, -1))),
            (4, update((101, -1), (102, -2))),
            (5, update((102, -2), (102, -3))),
            (6, update((102, -3), (202, -3))),
            (7, Change::Delete((202, -3))),
            (8, Change::Insert((202, -4))),
            (9, Change::Delete((202, -4))),
        ];
        it.expect_at(&rows, expected.map(|(time, change)| (at(time), (1, change))));
    });
}

#[test]
fn a_record_meets_the_table_as_it_was_at_its_time_and_late_ones_can_be_had() {
    testing::check(|it| {
        let ((records, stream), (changes, table)) = (it.input::<&str>(), it.input());
        let (sender, receiver) = std::sync::mpsc::channel();
        let joined = stream.map(str::to_string).key_by(|_| 1_u8).join_table(table.to_table());
        let joined = joined.late_output(move |late| sender.send(late).unwrap());
        let rows = it.output(joined.left(|_, record, row: Option<&i64>| (record, row.copied())));
        let late = it.output(receiver.recv().unwrap());
        for (time, record) in [(4, "before"), (5, "at"), (8, "during"), (9, "deleted")] {
            it.push(&records, at(time), record);
        }
        for (time, upsert) in [gone(1, 9), put(1, 5, 70), put(1, 7, 71)] {
            it.push(&changes, time, upsert);
        }
        it.watermark(&records, at(20));
        it.push(&records, at(19), "late");
        it.end(&records);
        it.end(&changes);
        let expected = [("before", None), ("at", Some(70)), ("during", Some(71)), ("deleted", None)];
        it.expect(&rows, expected.map(|(record, row)| (record.to_string(), row)));
        assert_eq!((it.take_at(&late).len(), it.late_records()), (1, 1));
    });
}

#[test]
fn a_keyed_stream_is_a_table_of_its_newest_records() {
    testing::check(|it| {
        let (input, stream) = it.input::<i64>();
        let counted =
            stream.key_by(|_| 0_u8).window(rivermark_operators::Windows::tumbling(millis(10))).count();
        let table = counted.map(|row| row.value).key_by(|_| 0_u8).to_table();
        let rows = it.output(table.changes());
        [1, 2, 11].into_iter().for_each(|time| it.push(&input, at(time), time));
        it.end(&input);
        it.expect(&rows, [(0, Change::Insert(2)), (0, update(2, 1))]);
    });
}

/// Remembers what it sees of the broadcast table at each record, and looks again three milliseconds later.
#[derive(Clone)]
struct Looking;

const RECORDS: Value<u64> = Value::new("records");
type Seen = (u64, i64, Vec<(u8, i64)>);

impl Looking {
    fn look(cx: &mut BroadcastContext<'_, '_, u8, u8, i64, Seen>) -> Result<(), BoxError> {
        let records = cx.state(RECORDS).get()?.unwrap_or(0);
        let mut rows = cx.broadcast_rows()?;
        rows.sort_unstable();
        let time = cx.time().millis();
        cx.emit((records, time, rows));
        Ok(())
    }
}

impl BroadcastFunction<u8, u8, u8, i64> for Looking {
    type Out = Seen;

    fn on_record(
        &mut self,
        _: &u8,
        _: u8,
        cx: &mut BroadcastContext<'_, '_, u8, u8, i64, Seen>,
    ) -> Result<(), BoxError> {
        cx.state(RECORDS).update(|| 0, |records| *records += 1)?;
        cx.timer(cx.time() + millis(3))?;
        Self::look(cx)
    }

    fn on_timer(
        &mut self,
        _: &u8,
        _: Timestamp,
        cx: &mut BroadcastContext<'_, '_, u8, u8, i64, Seen>,
    ) -> Result<(), BoxError> {
        Self::look(cx)
    }
}

#[test]
fn a_record_sees_the_broadcast_table_of_its_time_and_a_timer_that_before_it() {
    testing::check(|it| {
        let ((records, stream), (rules, table)) = (it.input::<u8>(), it.input());
        let looked = stream.key_by(|key| *key).process_with_broadcast(table.to_table(), Looking);
        let rows = it.output(looked);
        it.push(&records, at(1), 9);
        it.push(&records, at(5), 9);
        for (time, upsert) in [put(1, 2, 10), put(2, 4, 20), gone(1, 5), put(2, 8, 21)] {
            it.push(&rules, time, upsert);
        }
        it.expect(&rows, []);
        it.end(&records);
        it.end(&rules);
        let expected = [(1, 1, vec![]), (1, 4, vec![(1, 10)]), (2, 5, vec![(2, 20)]), (2, 8, vec![(2, 20)])];
        it.expect(&rows, expected);
    });
}
