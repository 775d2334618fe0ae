//! One case of windows: records, how they are told time, how it is divided; what the engine makes of it, and whether that is right.

use crate::model::{self, Expected, Shape};
use crate::support::{Event, Lab, Script};
use rivermark::connectors::{Collect, FromVec};
use rivermark::source::Source;
use rivermark::{Aggregate, Flow, Paned, Stream, Timestamp, Trigger, Watermarks, Windowed, millis};
use std::collections::BTreeMap;

/// Keeps every value: the sharpest of all aggregates. Before the exchange too, or not.
#[derive(Clone)]
pub struct Everything {
    pub exact: bool,
}

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

    fn is_exact(&self) -> bool {
        self.exact
    }
}

#[derive(Clone, Debug)]
pub struct Case {
    pub partitions: Vec<Vec<Event>>,
    /// How far out of order records may be.
    pub bound: i64,
    pub shape: Shape,
    /// The allowed lateness.
    pub lateness: i64,
}

/// Where a flow of a case puts its rows and its late records.
#[derive(Clone, Default)]
pub struct Outputs {
    rows: Collect<Windowed<u8, Vec<i64>>>,
    late: Collect<(Event, u64)>,
}

pub fn time(event: &Event) -> Timestamp {
    Timestamp::from_millis(event.time)
}

impl Case {
    pub fn expected(&self) -> Expected {
        let stamped = model::stamped(&self.partitions, model::bounded(self.bound));
        model::expected(&stamped, self.shape, self.lateness)
    }

    pub fn describe(&self, flow: &Flow, source: impl Source<Item = Event>) -> Outputs {
        self.describe_as(flow, source, Watermarks::bounded(millis(self.bound as u64)))
    }

    /// As [`Case::describe`], with watermarks that should come to the same.
    pub fn describe_as(
        &self,
        flow: &Flow,
        source: impl Source<Item = Event>,
        watermarks: Watermarks,
    ) -> Outputs {
        let outputs = Outputs::default();
        self.aggregate(flow.source(source).event_time(time, watermarks), &outputs);
        outputs
    }

    /// What follows the telling of time.
    pub fn aggregate(&self, events: Stream<Event>, outputs: &Outputs) {
        self.aggregate_as(events, outputs, true);
    }

    fn aggregate_as(&self, events: Stream<Event>, outputs: &Outputs, exact: bool) {
        let late = outputs.late.clone();
        events
            .key_by(|event| event.key)
            .window(self.shape.windows())
            .allowed_lateness(millis(self.lateness as u64))
            .late_output(|stream| stream.map(|late| (late.value, late.windows_missed)).sink(late))
            .aggregate(Everything { exact })
            .sink(outputs.rows.clone());
    }

    /// The same by the operator of windows with triggers: what it tells on time and late is what is told without one.
    pub fn aggregate_with_trigger(&self, events: Stream<Event>, outputs: &Outputs) {
        let late = outputs.late.clone();
        events
            .key_by(|event| event.key)
            .window(self.shape.windows())
            .allowed_lateness(millis(self.lateness as u64))
            .late_output(|stream| stream.map(|late| (late.value, late.windows_missed)).sink(late))
            .trigger(Trigger::on_watermark())
            .aggregate(Everything { exact: false })
            .map(|Paned { key, window, value, .. }| Windowed { key, window, value })
            .sink(outputs.rows.clone());
    }

    /// Runs the case in an engine: all records of a partition at once, and one at a time, so that windows fire in between.
    pub fn check(&self, lab: &Lab, expected: &Expected) {
        let at_once = lab.flow();
        let outputs = self.describe(&at_once, FromVec::partitions(self.partitions.clone()));
        self.run(lab, at_once, &outputs, expected);
        let uncombined = lab.flow();
        let outputs = Outputs::default();
        let source = uncombined.source(FromVec::partitions(self.partitions.clone()));
        let events = source.event_time(time, Watermarks::bounded(millis(self.bound as u64)));
        self.aggregate_as(events, &outputs, false);
        self.run(lab, uncombined, &outputs, expected);
        let triggered = lab.flow();
        let outputs = Outputs::default();
        let source = triggered.source(FromVec::partitions(self.partitions.clone()));
        let events = source.event_time(time, Watermarks::bounded(millis(self.bound as u64)));
        self.aggregate_with_trigger(events, &outputs);
        self.run(lab, triggered, &outputs, expected);
        let one_by_one = lab.flow();
        let outputs = self.describe(&one_by_one, Script::of(&self.partitions));
        self.run(lab, one_by_one, &outputs, expected);
    }

    fn run(&self, lab: &Lab, flow: Flow, outputs: &Outputs, expected: &Expected) {
        let metrics = lab.engine().run(flow).unwrap();
        self.judge(outputs, expected, &lab.name);
        assert_eq!(metrics.late_records, expected.late.len() as u64, "{}: late records", lab.name);
    }

    /// Compares what came out with what should have.
    pub fn judge(&self, outputs: &Outputs, expected: &Expected, name: &str) {
        let mut late = outputs.late.rows();
        late.sort();
        assert_eq!(late, expected.late, "{name}: late records");
        let rows = outputs.rows.rows();
        let mut found: BTreeMap<(u8, i64, i64), Vec<Vec<i64>>> = BTreeMap::new();
        for Windowed { key, window, value } in &rows {
            let at = (*key, window.start.millis(), window.end.millis());
            found.entry(at).or_default().push(value.clone());
        }
        for (window, held) in &expected.rows {
            let rows = found.get(window).unwrap_or_else(|| panic!("{name}: no row of {window:?}: {found:?}"));
            assert_eq!(rows.last(), Some(&held.all), "{name}: the last row of {window:?}");
            let is_sliding = matches!(self.shape, Shape::Sliding { .. });
            // A window of late records alone has no first row to speak of.
            if is_sliding && !held.on_time.is_empty() {
                assert_eq!(rows[0], held.on_time, "{name}: the first row of {window:?}");
            }
        }
        if self.lateness == 0 {
            let keys: Vec<_> = expected.rows.keys().collect();
            assert_eq!(found.keys().collect::<Vec<_>>(), keys, "{name}: windows");
            assert_eq!(rows.len(), keys.len(), "{name}: a window has one row where nothing is allowed late");
        }
        // A corrected session has rows under the bounds that it had before: they are within it.
        for (key, start, end) in found.keys() {
            let within = expected.rows.keys().any(|at| {
                at.0 == *key
                    && match self.shape {
                        Shape::Sliding { .. } => (at.1, at.2) == (*start, *end),
                        Shape::Session { .. } => at.1 <= *start && *end <= at.2,
                    }
            });
            assert!(within, "{name}: nothing should give a row of key {key} from {start} to {end}");
        }
    }
}
