//! The top of windows against sorting what the definition says they hold, with any number of workers and through crashes. Tables have theirs among
//! the other tables.

use crate::case::time;
use crate::crashes::simulate;
use crate::model::{self, Shape};
use crate::support::{Event, Script, labs};
use crate::windows::{config, partitions, sliding};
use proptest::prelude::*;
use rivermark::connectors::{Collect, FromVec};
use rivermark::source::Source;
use rivermark::{Flow, Watermarks, Window, Windowed, millis};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

const N: usize = 3;

#[derive(Clone, Debug)]
struct Case {
    partitions: Vec<Vec<Event>>,
    bound: i64,
    shape: Shape,
}

#[derive(Default)]
struct Outputs {
    top: Collect<Windowed<u8, Vec<(u8, i64)>>>,
    rows: Collect<(Window, Vec<(u8, u64)>)>,
}

fn case() -> impl Strategy<Value = Case> {
    let case = |(partitions, bound, shape)| Case { partitions, bound, shape };
    (partitions(), 0..100_i64, sliding()).prop_map(case)
}

/// Many have the same.
fn score(value: i64) -> i64 {
    value % 5
}

impl Case {
    fn describe(&self, flow: &Flow, source: impl Source<Item = Event>, outputs: &Outputs) {
        let events = flow.source(source).event_time(time, Watermarks::bounded(millis(self.bound as u64)));
        let records = events.map(|event| (event.key, event.value));
        let by_key = records.clone().key_by(|(key, _)| *key).window(self.shape.windows());
        by_key.top_n(N, |(_, value)| score(*value)).sink(outputs.top.clone());
        let counts = records.key_by(|(key, _)| *key).window(self.shape.windows()).count();
        counts.top_n(N - 1, |key, count| (*count, Reverse(*key))).sink(outputs.rows.clone());
    }

    fn judge(&self, outputs: &Outputs, name: &str) {
        let stamped = model::stamped(&self.partitions, model::bounded(self.bound));
        let held = model::expected(&stamped, self.shape, 0).rows;
        let mut counts: BTreeMap<(i64, i64), Vec<(u8, u64)>> = BTreeMap::new();
        let mut top = BTreeMap::new();
        for ((key, start, end), held) in held {
            counts.entry((start, end)).or_default().push((key, held.all.len() as u64));
            let mut values = held.all;
            // What is encoded is a small number: one byte tells the order.
            values.sort_by_key(|value| (Reverse(score(*value)), *value));
            values.truncate(N);
            top.insert((key, start, end), values.into_iter().map(|value| (key, value)).collect::<Vec<_>>());
        }
        let found = outputs.top.rows();
        let rows = found.len();
        let at = |row: &Windowed<u8, _>| (row.key, row.window.start.millis(), row.window.end.millis());
        let found: BTreeMap<_, _> = found.into_iter().map(|row| (at(&row), row.value)).collect();
        assert_eq!(found.len(), rows, "{name}: a window has one row");
        assert_eq!(found, top, "{name}: records of windows");
        for rows in counts.values_mut() {
            rows.sort_by_key(|(key, count)| (Reverse(*count), *key));
            rows.truncate(N - 1);
        }
        let found = outputs.rows.rows();
        let rows = found.len();
        let bounds = |window: Window| (window.start.millis(), window.end.millis());
        let found: BTreeMap<_, _> = found.into_iter().map(|(window, rows)| (bounds(window), rows)).collect();
        assert_eq!(found.len(), rows, "{name}: a window has one list");
        assert_eq!(found, counts, "{name}: rows of windows");
    }
}

#[test]
fn the_top_of_windows_is_what_sorting_says_on_any_number_of_workers() {
    let labs = labs();
    proptest!(config(40), |(case in case())| {
        for lab in &labs {
            let (flow, outputs) = (lab.flow(), Outputs::default());
            case.describe(&flow, FromVec::partitions(case.partitions.clone()), &outputs);
            lab.engine().run(flow).unwrap();
            case.judge(&outputs, &lab.name);
            let (flow, outputs) = (lab.flow(), Outputs::default());
            case.describe(&flow, Script::of(&case.partitions), &outputs);
            lab.engine().run(flow).unwrap();
            case.judge(&outputs, &format!("{}, one by one", lab.name));
        }
    });
}

#[test]
fn the_top_of_windows_is_the_same_through_every_crash() {
    let crashes = Cell::new(0);
    proptest!(config(100), |(case in case(), seed in any::<u64>())| {
        let outputs = Outputs::default();
        let report = simulate(seed, || {
            let flow = Flow::new("top");
            case.describe(&flow, Script::of(&case.partitions), &outputs);
            flow
        });
        case.judge(&outputs, &format!("seed {seed}"));
        crashes.set(crashes.get() + report.crashes);
    });
    assert!(crashes.get() > 30, "{} crashes of 100 cases: too few to get wrong", crashes.get());
}
