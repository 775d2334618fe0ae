//! Panes against a loop over milliseconds, with any number of workers and through crashes; and windows by count against counting.

use crate::case::time;
use crate::crashes::simulate;
use crate::model::{self, Shape};
use crate::support::{Event, Script, labs};
use crate::windows::{config, lateness, partitions, sliding};
use proptest::prelude::*;
use rivermark::connectors::{Collect, FromVec};
use rivermark::source::Source;
use rivermark::{Flow, Pane, Paned, Timing, Trigger, Watermarks, Windowed, millis};
use std::cell::Cell;
use std::collections::BTreeMap;

const COUNT: usize = 3;
const SLIDE: usize = 2;

#[derive(Clone, Debug)]
struct Case {
    partitions: Vec<Vec<Event>>,
    bound: i64,
    shape: Shape,
    lateness: i64,
    every: i64,
    count: u64,
    discards: bool,
}

/// Panes of each key and window, in order; windows by count of each key.
type Panes = BTreeMap<(u8, i64, i64), Vec<(Pane, Vec<i64>)>>;
type Counts = BTreeMap<u8, Vec<Vec<i64>>>;

#[derive(Default)]
struct Outputs {
    panes: Collect<Paned<u8, Vec<i64>>>,
    counts: Collect<Windowed<u8, Vec<i64>>>,
}

fn case() -> impl Strategy<Value = Case> {
    let times = (partitions(), 0..100_i64, sliding(), lateness());
    let trigger = (1..60_i64, 1..6_u64, any::<bool>());
    (times, trigger).prop_map(|((partitions, bound, shape, lateness), (every, count, discards))| Case {
        partitions,
        bound,
        shape,
        lateness,
        every,
        count,
        discards,
    })
}

fn values(records: Vec<Event>) -> Vec<i64> {
    records.into_iter().map(|event| event.value).collect()
}

impl Case {
    fn describe(&self, flow: &Flow, source: impl Source<Item = (u8, i64, i64)>, outputs: &Outputs) {
        let watermarks = Watermarks::bounded(millis(self.bound as u64));
        let records = flow.source(source).event_time(|record| time(&of(*record)), watermarks);
        let keyed = records.key_by(|(key, ..)| *key);
        let trigger =
            Trigger::on_watermark().early_every(millis(self.every as u64)).early_on_count(self.count);
        let windows = keyed.window(self.shape.windows()).allowed_lateness(millis(self.lateness as u64));
        let panes = windows.trigger(trigger);
        let read = |row: Paned<u8, Vec<(u8, i64, i64)>>| {
            let value = values(row.value.into_iter().map(of).collect());
            Ok(Some(Paned { key: row.key, window: row.window, pane: row.pane, value }))
        };
        let panes = if self.discards { panes.discarding().process(read) } else { panes.process(read) };
        panes.sink(outputs.panes.clone());
    }

    fn describe_counts(&self, flow: &Flow, source: impl Source<Item = (u8, i64, i64)>, outputs: &Outputs) {
        let watermarks = Watermarks::bounded(millis(self.bound as u64));
        let records = flow.source(source).event_time(|record| time(&of(*record)), watermarks);
        let windows = records.key_by(|(key, ..)| *key).sliding_count_windows(COUNT as u64, SLIDE as u64);
        let read = |row: Windowed<u8, Vec<(u8, i64, i64)>>| {
            let value = values(row.value.into_iter().map(of).collect());
            Ok(Some(Windowed { key: row.key, window: row.window, value }))
        };
        windows.process(read).sink(outputs.counts.clone());
    }

    fn records(&self) -> Vec<Vec<(u8, i64, i64)>> {
        let record = |event: &Event| (event.key, event.time, event.value);
        self.partitions.iter().map(|events| events.iter().map(record).collect()).collect()
    }

    /// The records of each key with their turns, in turn, and the watermarks that they come behind.
    fn turns(&self) -> BTreeMap<u8, Vec<(i64, i128, Event)>> {
        let mut turns: BTreeMap<u8, Vec<(i64, i128, Event)>> = BTreeMap::new();
        for (watermark, event) in model::stamped(&self.partitions, model::bounded(self.bound)) {
            let turn = i128::from(event.time).max(watermark) as i64;
            turns.entry(event.key).or_default().push((turn, watermark, event.clone()));
        }
        // Stable: of one time, by partition and offset.
        turns.values_mut().for_each(|records| records.sort_by_key(|(turn, _, event)| (*turn, event.time)));
        turns
    }

    /// One millisecond after the other, for each window that holds any record.
    fn panes(&self) -> Panes {
        let windows = model::expected(
            &model::stamped(&self.partitions, model::bounded(self.bound)),
            self.shape,
            self.lateness,
        );
        let turns = self.turns();
        let mut expected = Panes::new();
        for &(key, start, end) in windows.rows.keys() {
            let over = end + self.lateness;
            let is_held = |(_, watermark, event): &&(i64, i128, Event)| {
                (start..end).contains(&event.time) && *watermark < over.into()
            };
            let held: Vec<_> = turns[&key].iter().filter(is_held).collect();
            let panes = expected.entry((key, start, end)).or_default();
            let (mut all, mut told) = (Vec::new(), 0);
            let mut tell = |timing, all: &[i64], told: &mut usize| {
                let index = panes.len() as u64;
                let value = if self.discards { all[*told..].to_vec() } else { all.to_vec() };
                panes.push((Pane { timing, index }, value));
                *told = all.len();
            };
            for now in start..over.max(end + 1) {
                if now == end && !all.is_empty() && (all.len() > told || !self.discards) {
                    tell(Timing::OnTime, &all, &mut told);
                } else if now < end && (now - start) % self.every == 0 && all.len() > told {
                    tell(Timing::Early, &all, &mut told);
                }
                for (.., event) in held.iter().filter(|(turn, ..)| *turn == now) {
                    all.push(event.value);
                    if now >= end {
                        tell(Timing::Late, &all, &mut told);
                    } else if (all.len() - told) as u64 >= self.count {
                        tell(Timing::Early, &all, &mut told);
                    }
                }
            }
        }
        expected
    }

    fn counts(&self) -> Counts {
        let of_key = |(key, records): (u8, Vec<(i64, i128, Event)>)| {
            let values = values(records.into_iter().map(|(.., event)| event).collect());
            let ends = (SLIDE..=values.len()).step_by(SLIDE);
            let windows: Vec<_> = ends.map(|end| values[end.saturating_sub(COUNT)..end].to_vec()).collect();
            (!windows.is_empty()).then_some((key, windows))
        };
        self.turns().into_iter().filter_map(of_key).collect()
    }

    fn judge(&self, outputs: &Outputs, name: &str) {
        let mut panes = Panes::new();
        for row in outputs.panes.rows() {
            let at = (row.key, row.window.start.millis(), row.window.end.millis());
            panes.entry(at).or_default().push((row.pane, row.value));
        }
        assert_eq!(panes, self.panes(), "{name}: panes");
        let mut counts = Counts::new();
        outputs.counts.rows().into_iter().for_each(|row| counts.entry(row.key).or_default().push(row.value));
        assert_eq!(counts, self.counts(), "{name}: windows by count");
    }
}

fn of((key, time, value): (u8, i64, i64)) -> Event {
    Event { key, time, value }
}

#[test]
fn panes_and_windows_by_count_are_what_a_loop_says_on_any_number_of_workers() {
    let labs = labs();
    proptest!(config(40), |(case in case())| {
        for lab in &labs {
            let outputs = Outputs::default();
            let at_once = lab.flow();
            case.describe(&at_once, FromVec::partitions(case.records()), &outputs);
            lab.engine().run(at_once).unwrap();
            let one_by_one = lab.flow();
            case.describe_counts(&one_by_one, Script::of(&case.records()), &outputs);
            lab.engine().run(one_by_one).unwrap();
            case.judge(&outputs, &lab.name);
        }
    });
}

#[test]
fn panes_and_windows_by_count_are_the_same_through_every_crash() {
    let crashes = Cell::new(0);
    proptest!(config(100), |(case in case(), seed in any::<u64>())| {
        let outputs = Outputs::default();
        let report = simulate(seed, || {
            let flow = Flow::new("panes");
            case.describe(&flow, Script::of(&case.records()), &outputs);
            case.describe_counts(&flow, Script::of(&case.records()), &outputs);
            flow
        });
        case.judge(&outputs, &format!("seed {seed}"));
        crashes.set(crashes.get() + report.crashes);
    });
    assert!(crashes.get() > 30, "{} crashes of 100 cases: too few to get wrong", crashes.get());
}
