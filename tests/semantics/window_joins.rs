//! The window join against a model: each side's windows by definition, and all pairs of those that are the same.

use crate::case::time;
use crate::crashes::simulate;
use crate::model::{self, Expected, Shape};
use crate::support::{Event, Script, labs};
use crate::windows::{config, lateness, partitions, sliding};
use proptest::prelude::*;
use rivermark::connectors::Collect;
use rivermark::{Either, Flow, Late, Watermarks, millis};
use std::cell::Cell;
use std::collections::BTreeSet;

/// A record as it is joined: key, time and value.
type Joined = (u8, i64, i64);

/// Key, end of the window, and the values.
type Row = (u8, i64, Option<i64>, Option<i64>);

#[derive(Clone, Debug)]
struct Case {
    left: Vec<Vec<Event>>,
    right: Vec<Vec<Event>>,
    bound: i64,
    shape: Shape,
    lateness: i64,
}

#[derive(Default)]
struct Outputs {
    rows: Collect<Row>,
    late: Collect<(Event, u64)>,
}

fn case() -> impl Strategy<Value = Case> {
    let case = |(left, right, bound, shape, lateness)| Case { left, right, bound, shape, lateness };
    (partitions(), partitions(), 0..100_i64, sliding(), lateness()).prop_map(case)
}

impl Case {
    fn describe(&self, flow: &Flow, outputs: &Outputs) {
        let keyed = |partitions: &[Vec<Event>]| {
            let watermarks = Watermarks::bounded(millis(self.bound as u64));
            let events = flow.source(Script::of(partitions)).event_time(time, watermarks);
            events.map(|event| (event.key, event.time, event.value)).key_by(|event| event.0)
        };
        let late = outputs.late.clone();
        keyed(&self.left)
            .window_join(keyed(&self.right), self.shape.windows())
            .allowed_lateness(millis(self.lateness as u64))
            .late_output(move |stream| {
                let event = |late: Late<u8, Either<Joined, Joined>>| {
                    let (Either::Left((key, time, value)) | Either::Right((key, time, value))) = late.value;
                    (Event { key, time, value }, late.windows_missed)
                };
                stream.map(event).sink(late);
            })
            .full(|key, window, a, b| (*key, window.end.millis(), a.map(|a| a.2), b.map(|b| b.2)))
            .sink(outputs.rows.clone());
    }

    fn side(&self, partitions: &[Vec<Event>]) -> Expected {
        let stamped = model::stamped(partitions, model::bounded(self.bound));
        model::expected(&stamped, self.shape, self.lateness)
    }

    fn judge(&self, outputs: &Outputs, name: &str) {
        let (left, right) = (self.side(&self.left), self.side(&self.right));
        let windows: BTreeSet<_> = left.rows.keys().chain(right.rows.keys()).copied().collect();
        let mut expected: Vec<Row> = Vec::new();
        for window @ (key, _, end) in windows {
            let values = |side: &Expected| -> Vec<Option<i64>> {
                let held = side.rows.get(&window).map(|held| held.all.clone()).unwrap_or_default();
                if held.is_empty() { vec![None] } else { held.into_iter().map(Some).collect() }
            };
            let (lefts, rights) = (values(&left), values(&right));
            let pairs = lefts.iter().flat_map(|a| rights.iter().map(move |b| (*a, *b)));
            expected.extend(pairs.filter(|pair| *pair != (None, None)).map(|(a, b)| (key, end, a, b)));
        }
        expected.sort();
        let mut rows = outputs.rows.rows();
        rows.sort();
        assert_eq!(rows, expected, "{name}: rows");
        let mut expected = [left.late, right.late].concat();
        expected.sort();
        let mut late = outputs.late.rows();
        late.sort();
        assert_eq!(late, expected, "{name}: late records");
    }
}

#[test]
fn windows_of_two_streams_are_joined_as_the_definition_says_on_any_number_of_workers() {
    let labs = labs();
    proptest!(config(40), |(case in case())| {
        for lab in &labs {
            let (flow, outputs) = (lab.flow(), Outputs::default());
            case.describe(&flow, &outputs);
            let metrics = lab.engine().run(flow).unwrap();
            case.judge(&outputs, &lab.name);
            assert_eq!(metrics.late_records, outputs.late.rows().len() as u64, "{}", lab.name);
        }
    });
}

#[test]
fn windows_of_two_streams_are_joined_the_same_through_every_crash() {
    let crashes = Cell::new(0);
    proptest!(config(100), |(case in case(), seed in any::<u64>())| {
        let outputs = Outputs::default();
        let report = simulate(seed, || {
            let flow = Flow::new("window-join");
            case.describe(&flow, &outputs);
            flow
        });
        case.judge(&outputs, &format!("seed {seed}"));
        crashes.set(crashes.get() + report.crashes);
    });
    assert!(crashes.get() > 30, "{} crashes of 100 cases: too few to get wrong", crashes.get());
}
