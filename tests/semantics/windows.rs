//! Tumbling, sliding and session windows over records out of order, in several partitions.

use crate::model::{self, Held, Rows};
use crate::support::{Event, Lab, event, labs};
use proptest::prelude::*;
use rivermark::connectors::{Collect, FromVec};
use rivermark::{Aggregate, KeyedStream, Stream, Timestamp, Watermarks, Windowed, Windows, millis};
use std::collections::BTreeMap;

/// Out of order within a partition, and partitions that are not at the same time.
fn partitions() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let step = (0..3_u8, 0..40_i64, 0..150_i64, -100..100_i64);
    let partition = (-500..500_i64, prop::collection::vec(step, 0..60)).prop_map(|(begin, steps)| {
        let mut now = begin;
        let events = steps.into_iter().map(|(key, forward, back, value)| {
            now += forward;
            event(key, now - back, value)
        });
        events.collect::<Vec<_>>()
    });
    prop::collection::vec(partition, 1..4)
}

/// Keeps every value: the sharpest of all aggregates.
#[derive(Clone)]
struct Everything;

impl Aggregate<Event> for Everything {
    type Acc = Vec<i64>;
    type Out = Vec<i64>;

    fn create(&self) -> Vec<i64> {
        Vec::new()
    }

    fn add(&self, acc: &mut Vec<i64>, event: &Event) {
        acc.push(event.value);
    }

    fn merge(&self, acc: &mut Vec<i64>, other: &Vec<i64>) {
        acc.extend(other);
    }

    fn finish(&self, acc: &Vec<i64>) -> Vec<i64> {
        let mut values = acc.clone();
        values.sort_unstable();
        values
    }
}

fn keyed(events: Stream<Event>, bound: i64) -> KeyedStream<u8, Event> {
    events
        .event_time(|e| Timestamp::from_millis(e.time), Watermarks::bounded(millis(bound as u64)))
        .key_by(|e| e.key)
}

type Values = Vec<i64>;

/// The first and the last row of every key and window.
fn first_and_last(rows: Vec<Windowed<u8, Values>>) -> BTreeMap<(u8, i64, i64), (Values, Values)> {
    let mut found = BTreeMap::new();
    for Windowed { key, window, value } in rows {
        let at = (key, window.start.millis(), window.end.millis());
        let first = value.clone();
        found.entry(at).or_insert((first, Vec::new())).1 = value;
    }
    found
}

/// Runs one case on one engine and compares rows, late records and their number with the model's.
fn check(
    lab: &Lab,
    partitions: &[Vec<Event>],
    bound: i64,
    windows: Windows,
    lateness: i64,
    (expected, expected_late): &(Rows, Vec<Event>),
) {
    let (flow, rows, late) = (lab.flow(), Collect::new(), Collect::new());
    let late_rows = late.clone();
    keyed(flow.source(FromVec::partitions(partitions.to_vec())), bound)
        .window(windows)
        .allowed_lateness(millis(lateness as u64))
        .late_output(|late| late.map(|late| late.value).sink(late_rows))
        .aggregate(Everything)
        .sink(rows.clone());
    let metrics = lab.engine().run(flow).unwrap();
    let found = first_and_last(rows.rows());
    let keys = |rows: &Rows| rows.keys().copied().collect::<Vec<_>>();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), keys(expected), "{}: windows", lab.name);
    for (window, Held { on_time, all }) in expected {
        let (first, last) = &found[window];
        assert_eq!(last, all, "{}: the last row of {window:?}", lab.name);
        // A window of late records alone has no first row to speak of.
        if !on_time.is_empty() {
            assert_eq!(first, on_time, "{}: the first row of {window:?}", lab.name);
        }
    }
    let mut late = late.rows();
    late.sort();
    assert_eq!(&late, expected_late, "{}: late records", lab.name);
    assert_eq!(metrics.late_records, expected_late.len() as u64, "{}: late records", lab.name);
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn sliding_windows_hold_what_the_definition_says_with_any_number_of_workers() {
    let labs = labs();
    // Also a slide that does not divide the size.
    let shapes = prop_oneof![Just((100, 100)), Just((100, 20)), Just((90, 40)), Just((7, 3))];
    let lateness = prop_oneof![Just(0_i64), Just(60)];
    proptest!(config(), |(partitions in partitions(), bound in 0..100_i64, shape in shapes, lateness in lateness)| {
        let expected = model::sliding(&partitions, bound, shape, lateness);
        let windows = Windows::sliding(millis(shape.0 as u64), millis(shape.1 as u64));
        for lab in &labs {
            check(lab, &partitions, bound, windows, lateness, &expected);
        }
    });
}

#[test]
fn sessions_hold_what_the_definition_says_with_any_number_of_workers() {
    let labs = labs();
    proptest!(config(), |(partitions in partitions(), bound in 0..100_i64, gap in 1..60_i64)| {
        let expected = model::sessions(&partitions, bound, gap);
        for lab in &labs {
            check(lab, &partitions, bound, Windows::session(millis(gap as u64)), 0, &expected);
        }
    });
}

#[test]
fn count_sum_min_max_average_and_fold_agree_with_the_values() {
    let events: Vec<Event> =
        (0..500).map(|n| event((n % 7) as u8, n * 3 - n * 5 % 90, n * 13 % 101 - 50)).collect();
    let (expected, _) = model::sliding(std::slice::from_ref(&events), 100, (60, 20), 0);
    let lab = Lab::new(2, rivermark::StateBackend::Memory);
    fn by_window<R>(rows: Vec<Windowed<u8, R>>) -> BTreeMap<(u8, i64, i64), R> {
        let at = |row: &Windowed<u8, R>| (row.key, row.window.start.millis(), row.window.end.millis());
        rows.into_iter().map(|row| (at(&row), row.value)).collect()
    }
    fn of<R>(expected: &Rows, value: impl Fn(&[i64]) -> R) -> BTreeMap<(u8, i64, i64), R> {
        expected.iter().map(|(at, held)| (*at, value(&held.all))).collect()
    }
    macro_rules! check {
        ($aggregate:expr, $by_hand:expr) => {
            let windowed = |events| keyed(events, 100).window(Windows::sliding(millis(60), millis(20)));
            let (rows, _) = lab.run(std::slice::from_ref(&events), |events| $aggregate(windowed(events)));
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
fn an_overflowing_sum_stops_the_job_and_says_so() {
    let lab = Lab::new(1, rivermark::StateBackend::Memory);
    let flow = lab.flow();
    keyed(flow.source(FromVec::new(vec![event(0, 0, i64::MAX), event(0, 1, 1)])), 0)
        .window(Windows::tumbling(millis(10)))
        .sum(|e| e.value)
        .sink(Collect::new());
    let error = lab.engine().run(flow).unwrap_err().to_string();
    assert!(error.contains("overflow") && error.contains("vec[0] offset 1"), "{error}");
}
