//! The greatest records of windows, rows of windows, and rows of tables.

use crate::at;
use rivermark_operators::testing::{self, Harness};
use rivermark_operators::{Change, Upsert, Windows, millis};
use std::cmp::Reverse;

/// Group, score, name.
type Row = (u8, u32, String);

fn row(group: u8, score: u32, name: &str) -> Row {
    (group, score, name.to_string())
}

/// Every order of some rows.
fn orders(rows: &[Row]) -> Vec<Vec<Row>> {
    if rows.is_empty() {
        return vec![vec![]];
    }
    let with_first = |first: usize| {
        let mut rest = rows.to_vec();
        let first = rest.remove(first);
        orders(&rest).into_iter().map(move |mut rest| {
            rest.push(first.clone());
            rest
        })
    };
    (0..rows.len()).flat_map(with_first).collect()
}

#[test]
fn the_top_of_a_window_is_the_same_in_every_order_of_its_records() {
    let records = ["b", "c", "a", "d"].map(|name| row(1, if name == "d" { 9 } else { 5 }, name));
    for order in orders(&records) {
        testing::check(|it| {
            let (input, stream) = it.input::<Row>();
            let windows =
                stream.key_by(|(group, ..)| *group).window(Windows::sliding(millis(20), millis(10)));
            let top = windows.top_n(3, |(_, score, _)| *score);
            let names = |rows: Vec<Row>| rows.into_iter().map(|(_, _, name)| name).collect::<String>();
            let rows = it.output(top.map(move |row| (row.window.start.millis(), names(row.value))));
            order.iter().for_each(|record| it.push(&input, at(5), record.clone()));
            it.push(&input, at(15), row(1, 6, "e"));
            it.end(&input);
            let expected = [(-10, "dab"), (0, "dea"), (10, "e")];
            it.expect(&rows, expected.map(|(start, names)| (start, names.to_string())));
        });
    }
}

#[test]
fn the_top_rows_of_windows_and_of_sessions_are_those_of_all_keys() {
    for windows in [Windows::tumbling(millis(10)), Windows::session(millis(3))] {
        testing::check(|it| {
            let (input, stream) = it.input::<char>();
            let counts = stream.key_by(|c| *c).window(windows).count();
            let top = counts.top_n(2, |letter, count| (*count, Reverse(*letter)));
            let rows = it.output(top.map(|(window, rows)| (window.end.millis(), rows)));
            "abcabcba".chars().for_each(|letter| it.push(&input, at(1), letter));
            it.push(&input, at(12), 'c');
            it.end(&input);
            let ends = if windows.to_string().starts_with("tumbling") { (10, 20) } else { (4, 15) };
            it.expect(&rows, [(ends.0, vec![('a', 3), ('b', 3)]), (ends.1, vec![('c', 1)])]);
        });
    }
}

#[test]
fn rows_that_correct_a_window_are_late_for_its_top() {
    testing::check(|it| {
        let (input, stream) = it.input::<char>();
        let counts =
            stream.key_by(|c| *c).window(Windows::tumbling(millis(10))).allowed_lateness(millis(50)).count();
        let rows = it.output(counts.top_n(1, |_, count| *count));
        it.push(&input, at(1), 'a');
        it.watermark(&input, at(10));
        assert_eq!(it.take(&rows).len(), 1);
        it.push(&input, at(1), 'a');
        it.end(&input);
        it.expect(&rows, []);
        assert_eq!(it.late_records(), 1, "it is late for the list, and within the lateness of the window");
    });
}

#[test]
fn the_top_of_a_group_is_told_when_it_changes_and_what_leaves_makes_room() {
    let push = |it: &mut Harness,
                input: &testing::Input<Upsert<u8, (u8, u32)>>,
                steps: &[(i64, u8, Option<u32>)]| {
        for (time, key, score) in steps {
            let value = score.map(|score| (*key, score));
            it.push(input, at(*time), Upsert { key: *key, value, time: at(*time) });
        }
    };
    testing::check(|it| {
        let (input, stream) = it.input();
        let top = stream.to_table().group_by(|_, _| 0_u8).top_n(2, |(_, score)| *score);
        let keys = |rows: Vec<(u8, u32)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<u8>>();
        let rows = it.output(top.map_values(move |_, rows| keys(rows)).changes().map(|(_, change)| change));
        push(it, &input, &[(1, 1, Some(10)), (1, 2, Some(20)), (1, 3, Some(5)), (2, 4, Some(1))]);
        push(it, &input, &[(3, 2, None), (4, 3, Some(30)), (5, 4, Some(30)), (6, 1, None)]);
        push(it, &input, &[(7, 3, None), (8, 4, None)]);
        it.end(&input);
        let update =
            |before: &[u8], after: &[u8]| Change::Update { before: before.to_vec(), after: after.to_vec() };
        it.expect_at(
            &rows,
            [
                (at(1), Change::Insert(vec![2, 1])),
                (at(3), update(&[2, 1], &[1, 3])),
                (at(4), update(&[1, 3], &[3, 1])),
                (at(5), update(&[3, 1], &[3, 4])),
                (at(7), update(&[3, 4], &[4])),
                (at(8), Change::Delete(vec![4])),
            ],
        );
    });
}
