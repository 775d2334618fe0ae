//! Tumbling, sliding and session windows over records out of order, in several partitions.

use crate::case::{Case, time};
use crate::model::{self, Rows, Shape};
use crate::support::{Event, Lab, event, labs};
use proptest::prelude::*;
use rivermark::connectors::{Collect, FromVec};
use rivermark::{KeyedStream, StateBackend, Stream, Timestamp, Watermarks, Windowed, Windows, millis};
use std::collections::BTreeMap;

/// Out of order within a partition, and partitions that are not at the same time.
pub fn partitions() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let step = (0..3_u8, 0..40_i64, 0..150_i64);
    let partition = (-500..500_i64, prop::collection::vec(step, 0..60)).prop_map(|(begin, steps)| {
        let mut now = begin;
        let events = steps.into_iter().zip(0..).map(|((key, forward, back), value)| {
            now += forward;
            event(key, now - back, value)
        });
        events.collect::<Vec<_>>()
    });
    prop::collection::vec(partition, 1..4)
}

/// Also slides that do not divide the size, and windows that do not begin at the epoch.
pub fn sliding() -> impl Strategy<Value = Shape> {
    let shape = |(size, slide, offset)| Shape::Sliding { size, slide, offset };
    let shapes = [(100, 100, 0), (100, 20, 0), (90, 40, 0), (7, 3, 0), (100, 100, 33), (90, 40, 17)];
    prop::sample::select(shapes.map(shape).to_vec())
}

pub fn sessions() -> impl Strategy<Value = Shape> {
    (1..60_i64).prop_map(|gap| Shape::Session { gap })
}

pub fn lateness() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0_i64), Just(60)]
}

pub fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn check(labs: &[Lab], case: &Case) {
    let expected = case.expected();
    labs.iter().for_each(|lab| case.check(lab, &expected));
}

#[test]
fn sliding_windows_hold_what_the_definition_says_with_any_number_of_workers() {
    let labs = labs();
    proptest!(config(60), |(partitions in partitions(), bound in 0..100_i64, shape in sliding(), lateness in lateness())| {
        check(&labs, &Case { partitions, bound, shape, lateness });
    });
}

#[test]
fn sessions_hold_what_the_definition_says_with_any_number_of_workers() {
    let labs = labs();
    proptest!(config(60), |(partitions in partitions(), bound in 0..100_i64, shape in sessions(), lateness in lateness())| {
        check(&labs, &Case { partitions, bound, shape, lateness });
    });
}

pub fn keyed(events: Stream<Event>, bound: u64) -> KeyedStream<u8, Event> {
    events.event_time(time, Watermarks::bounded(millis(bound))).key_by(|event| event.key)
}

fn by_window<R>(rows: Vec<Windowed<u8, R>>) -> BTreeMap<(u8, i64, i64), R> {
    let at = |row: &Windowed<u8, R>| (row.key, row.window.start.millis(), row.window.end.millis());
    rows.into_iter().map(|row| (at(&row), row.value)).collect()
}

fn in_order(n: i64) -> Vec<Event> {
    (0..n).map(|n| event((n % 7) as u8, n * 3 - n * 5 % 90, n * 13 % 101 - 50)).collect()
}

#[test]
fn count_sum_min_max_average_and_fold_agree_with_the_values() {
    let events = in_order(500);
    let partitions = std::slice::from_ref(&events);
    let shape = Shape::Sliding { size: 60, slide: 20, offset: 0 };
    let expected = model::expected(&model::stamped(partitions, model::bounded(100)), shape, 0).rows;
    let lab = Lab::new(2, StateBackend::Memory);
    fn of<R>(expected: &Rows, value: impl Fn(&[i64]) -> R) -> BTreeMap<(u8, i64, i64), R> {
        expected.iter().map(|(at, held)| (*at, value(&held.all))).collect()
    }
    macro_rules! check {
        ($aggregate:expr, $by_hand:expr) => {
            let windowed = |events| keyed(events, 100).window(shape.windows());
            let (rows, _) = lab.run(partitions, |events| $aggregate(windowed(events)));
            assert_eq!(by_window(rows), of(&expected, $by_hand));
        };
    }
    type W = rivermark::WindowedStream<u8, Event>;
    check!(|w: W| w.count(), |values| values.len() as u64);
    check!(|w: W| w.sum(|e| e.value), |values| values.iter().sum::<i64>());
    check!(|w: W| w.min(|e| e.value), |values| values[0]);
    check!(|w: W| w.max(|e| e.value), |values| values[values.len() - 1]);
    check!(|w: W| w.average(|e| e.value as f64), |values| {
        values.iter().sum::<i64>() as f64 / values.len() as f64
    });
    let fold = |w: W| {
        w.fold((0, 0), |acc: &mut (i64, i64), e| acc.0 += e.value * e.value, |acc, other| acc.0 += other.0)
    };
    check!(fold, |values| (values.iter().map(|v| v * v).sum::<i64>(), 0));
}

#[test]
fn windows_over_the_rows_of_windows_lose_none_of_them() {
    let events = in_order(2000);
    let mut expected: BTreeMap<(u8, i64, i64), u64> = BTreeMap::new();
    for event in &events {
        let start = event.time.div_euclid(1000) * 1000;
        *expected.entry((event.key % 2, start, start + 1000)).or_default() += 1;
    }
    for lab in labs() {
        let describe = |events| {
            let by_key = keyed(events, 100).window(Windows::tumbling(millis(100))).count();
            let by_parity = by_key.key_by(|row| row.key % 2).window(Windows::tumbling(millis(1000)));
            by_parity.sum(|row| row.value)
        };
        let (rows, metrics) = lab.run(&[events.clone(), Vec::new()], describe);
        assert_eq!(by_window(rows), expected, "{}", lab.name);
        assert_eq!(metrics.late_records, 0, "{}", lab.name);
    }
}

#[test]
fn a_hot_key_crosses_the_exchange_as_one_record_a_batch_and_is_counted_in_full() {
    const RECORDS: i64 = 40_000;
    let lab = Lab::new(2, StateBackend::Memory);
    let hot: Vec<Event> = (0..RECORDS).map(|n| event(0, n / 100, n)).collect();
    let (flow, counts) = (lab.flow(), Collect::new());
    let events = keyed(flow.source(FromVec::partitions(vec![hot.clone(), hot])), 0);
    events.window(Windows::tumbling(millis(100))).count().sink(counts.clone());
    let metrics = lab.engine().run(flow).unwrap();
    let rows = by_window(counts.rows());
    assert_eq!(rows.values().copied().collect::<Vec<u64>>(), [20_000; 4]);
    let exchange = metrics.operator("exchange-1").unwrap();
    assert_eq!(exchange.records_in, 2 * RECORDS as u64);
    assert!(exchange.records_out < exchange.records_in / 100, "{exchange:?}");
    assert_eq!(metrics.operator("window-1").unwrap().records_in, exchange.records_in);

    // Not where the result could depend on how records are grouped.
    let flow = lab.flow();
    let events = (0..1000).map(|n| event(0, n, n)).collect();
    keyed(flow.source(FromVec::new(events)), 0)
        .window(Windows::tumbling(millis(100)))
        .average(|event| event.value as f64)
        .sink(Collect::new());
    let metrics = lab.engine().run(flow).unwrap();
    assert_eq!(metrics.operator("exchange-1").unwrap().records_out, 1000);
}

#[test]
fn an_overflowing_sum_stops_the_job_and_says_so() {
    let lab = Lab::new(1, StateBackend::Memory);
    let flow = lab.flow();
    keyed(flow.source(FromVec::new(vec![event(0, 0, i64::MAX), event(0, 1, 1)])), 0)
        .window(Windows::tumbling(millis(10)))
        .sum(|e| e.value)
        .sink(Collect::new());
    let error = lab.engine().run(flow).unwrap_err().to_string();
    assert!(error.contains("overflow") && error.contains("vec[0] offset 1"), "{error}");
}

#[test]
fn slices_whose_sums_overflow_together_stop_the_job_and_say_which_window() {
    let lab = Lab::new(1, StateBackend::Memory);
    let flow = lab.flow();
    keyed(flow.source(FromVec::new(vec![event(0, 0, i64::MAX), event(0, 10, 1)])), 0)
        .window(Windows::sliding(millis(20), millis(10)))
        .sum(|e| e.value)
        .sink(Collect::new());
    let error = lab.engine().run(flow).unwrap_err().to_string();
    let window_end = Timestamp::from_millis(19).to_string();
    assert!(error.contains("window-1") && error.contains(&window_end), "{error}");
    assert!(error.contains("the sum overflows `i64`"), "{error}");
}
