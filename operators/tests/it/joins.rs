//! Joins, record by record and across restarts.

use crate::at;
use rivermark_operators::testing::{self, Harness};
use rivermark_operators::{Either, Interval, Late, Stream, Windows, millis};
use std::collections::BTreeSet;

type Row = (Option<i64>, Option<i64>);

/// A full join of numbers, which are their own times, up to 2 before and 5 after.
fn full(left: Stream<i64>, right: Stream<i64>) -> Stream<Row> {
    let interval = Interval::around(millis(2), millis(5));
    let joined = left.key_by(|_| 0_u8).interval_join(right.key_by(|_| 0_u8), interval);
    joined.full(|_, left, right| (left.copied(), right.copied()))
}

#[test]
fn pairs_have_both_ends_of_the_interval_and_time_out_rows_come_when_nothing_can() {
    testing::check(|it| {
        let ((left, lefts), (right, rights)) = (it.input(), it.input());
        let rows = it.output(full(lefts, rights));
        it.push(&left, at(10), 10);
        [7, 8, 15, 16].into_iter().for_each(|time| it.push(&right, at(time), time));
        it.expect_at(&rows, [(at(10), (Some(10), Some(8))), (at(15), (Some(10), Some(15)))]);
        it.push(&left, at(30), 30);
        for input in [&left, &right] {
            it.watermark(input, at(9));
        }
        it.expect_at(&rows, []);
        for input in [&left, &right] {
            it.watermark(input, at(10));
        }
        it.expect_at(&rows, [(at(10), (None, Some(7)))]);
        it.push(&right, at(35), 35);
        it.expect_at(&rows, [(at(35), (Some(30), Some(35)))]);
        it.end(&left);
        it.end(&right);
        it.expect_at(&rows, [(at(19), (None, Some(16)))]);
    });
}

#[test]
fn late_records_are_counted_and_joined_with_none_even_where_a_partner_is_there() {
    testing::check(|it| {
        let ((left, lefts), (right, rights)) = (it.input(), it.input());
        let rows = it.output(full(lefts, rights));
        it.push(&left, at(10), 10);
        it.watermark(&right, at(12));
        it.push(&right, at(11), 11);
        it.push(&right, at(12), 12);
        it.expect(&rows, [(Some(10), Some(12))]);
        assert_eq!(it.late_records(), 1);
    });
}

#[test]
fn the_pairs_do_not_depend_on_which_record_came_first() {
    let (lefts, rights) = ([1_i64, 4, 9, 9, 20], [0_i64, 2, 9, 14, 15, 27]);
    let expected: BTreeSet<Row> = {
        let near = |l: i64, r: i64| (l - 2..=l + 5).contains(&r);
        let pairs =
            lefts.iter().flat_map(|l| rights.iter().map(move |r| (*l, *r))).filter(|(l, r)| near(*l, *r));
        let alone = |l: &&i64| !rights.iter().any(|r| near(**l, *r));
        let alone_right = |r: &&i64| !lefts.iter().any(|l| near(*l, **r));
        pairs
            .map(|(l, r)| (Some(l), Some(r)))
            .chain(lefts.iter().filter(alone).map(|l| (Some(*l), None)))
            .chain(rights.iter().filter(alone_right).map(|r| (None, Some(*r))))
            .collect()
    };
    // Every order in which the two streams can be interleaved, by which stream the next record is taken from.
    for order in 0..1_u32 << (lefts.len() + rights.len()) {
        if order.count_ones() as usize != lefts.len() {
            continue;
        }
        let mut it = Harness::new();
        let ((left, left_stream), (right, right_stream)) = (it.input(), it.input());
        let rows = it.output(full(left_stream, right_stream));
        let (mut left_at, mut right_at) = (0, 0);
        for step in 0..lefts.len() + rights.len() {
            if order >> step & 1 == 1 {
                it.push(&left, at(lefts[left_at]), lefts[left_at]);
                it.watermark(&left, at(lefts[left_at]));
                left_at += 1;
            } else {
                it.push(&right, at(rights[right_at]), rights[right_at]);
                it.watermark(&right, at(rights[right_at]));
                right_at += 1;
            }
        }
        it.end(&left);
        it.end(&right);
        assert_eq!(it.take(&rows).into_iter().collect::<BTreeSet<_>>(), expected, "order {order:b}");
    }
}

#[test]
fn a_record_is_joined_with_the_newest_version_that_was_there_at_its_time() {
    testing::check(|it| {
        let ((orders, order_stream), (prices, price_stream)) = (it.input::<u32>(), it.input::<&str>());
        let prices_by_key = price_stream.map(str::to_string).key_by(|_| 0_u8);
        let joined = order_stream.key_by(|_| 0_u8).as_of_join(prices_by_key, millis(10));
        let rows = it.output(joined.left(|_, order, price| (order, price.cloned())));
        let row = |order, price: Option<&str>| (order, price.map(str::to_string));
        it.push(&orders, at(4), 1);
        it.push(&orders, at(20), 3);
        it.push(&orders, at(10), 2);
        it.push(&orders, at(31), 4);
        it.push(&prices, at(21), "d");
        it.push(&prices, at(20), "c");
        it.push(&prices, at(5), "b");
        for input in [10, 32] {
            it.watermark(&orders, at(input));
            it.watermark(&prices, at(input));
        }
        let expected = [(at(4), row(1, None)), (at(10), row(2, Some("b"))), (at(20), row(3, Some("c")))];
        it.expect_at(&rows, expected.into_iter().chain([(at(31), row(4, Some("d")))]));
        it.push(&orders, at(32), 5);
        it.end(&orders);
        it.end(&prices);
        it.expect(&rows, [row(5, None)]);
    });
}

#[test]
fn late_records_of_joins_can_be_had() {
    testing::check(|it| {
        let ((left, lefts), (right, rights)) = (it.input::<i64>(), it.input::<i64>());
        let (sender, receiver) = std::sync::mpsc::channel();
        let also = sender.clone();
        let close = lefts
            .clone()
            .key_by(|_| 0_u8)
            .interval_join(rights.clone().key_by(|_| 0_u8), Interval::after(millis(5)));
        let close = close.late_output(move |late| sender.send(late).unwrap());
        let close = it.output(close.inner(|_, left, right| (*left, *right)));
        let newest = lefts.key_by(|_| 0_u8).as_of_join(rights.key_by(|_| 0_u8), millis(5));
        let newest = newest.late_output(move |late| also.send(late).unwrap());
        let newest = it.output(newest.inner(|_, left, right| (left, *right)));
        let late: Vec<_> = receiver.try_iter().map(|late| it.output(late)).collect();
        it.push(&right, at(10), 10);
        it.watermark(&left, at(10));
        it.push(&left, at(9), 9);
        it.push(&left, at(10), 11);
        it.end(&left);
        it.end(&right);
        it.expect(&close, [(11, 10)]);
        it.expect(&newest, [(11, 10)]);
        let expected = Late { key: 0_u8, value: Either::Left(9), windows_missed: 1 };
        for late in &late {
            it.expect_at(late, [(at(9), expected.clone())]);
        }
        assert_eq!((late.len(), it.late_records()), (2, 2));
    });
}

#[test]
fn windows_are_joined_once_with_what_came_within_the_allowed_lateness() {
    testing::check(|it| {
        let ((left, lefts), (right, rights)) = (it.input::<i64>(), it.input::<i64>());
        let (sender, receiver) = std::sync::mpsc::channel();
        let windows = Windows::sliding(millis(10), millis(5));
        let joined = lefts.key_by(|_| 0_u8).window_join(rights.key_by(|_| 0_u8), windows);
        let joined = joined.allowed_lateness(millis(3)).late_output(move |late| sender.send(late).unwrap());
        let rows = it.output(joined.full(|_, window, a, b| (window.end.millis(), a.copied(), b.copied())));
        let late = it.output(receiver.recv().unwrap());
        it.push(&left, at(7), 7);
        it.push(&left, at(3), 3);
        it.watermark(&left, at(9));
        it.push(&right, at(2), 2);
        it.expect(&rows, []);
        it.watermark(&right, at(9));
        it.expect_at(&rows, [(at(7), (5, Some(3), Some(2)))]);
        it.push(&right, at(1), 1);
        it.watermark(&left, at(13));
        it.push(&left, at(4), 4);
        it.push(&left, at(6), 6);
        it.watermark(&right, at(13));
        let pairs = [(3, 1), (3, 2), (7, 1), (7, 2)].map(|(a, b)| (at(12), (10, Some(a), Some(b))));
        it.expect_at(&rows, pairs);
        it.end(&left);
        it.end(&right);
        it.expect_at(&rows, [(at(17), (15, Some(6), None)), (at(17), (15, Some(7), None))]);
        let missed = |value, windows_missed| Late { key: 0_u8, value, windows_missed };
        it.expect(
            &late,
            [missed(Either::Right(1), 1), missed(Either::Left(4), 2), missed(Either::Left(6), 1)],
        );
        assert_eq!(it.late_records(), 3);
    });
}
