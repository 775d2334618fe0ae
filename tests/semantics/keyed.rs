//! Rolling reduces, distinct and deduplicated records against loops over the records in event-time order, with any number of workers and
//! through crashes.

use crate::case::time;
use crate::crashes::simulate;
use crate::model;
use crate::support::{Event, Script, labs};
use crate::windows::{config, partitions};
use proptest::prelude::*;
use rivermark::connectors::Collect;
use rivermark::{Flow, Keep, KeyedStream, Watermarks, millis};
use std::cell::Cell;
use std::collections::BTreeMap;

/// A record as it is told: key, time and value.
pub type Told = (u8, i64, i64);

/// The records that are not late, by key, and there by time, partition and offset; and how many are late.
pub fn in_event_time_order(partitions: &[Vec<Event>], bound: i64) -> (BTreeMap<u8, Vec<Told>>, u64) {
    let (mut on_time, mut late) = (BTreeMap::new(), 0);
    for (watermark, event) in model::stamped(partitions, model::bounded(bound)) {
        if i128::from(event.time) < watermark {
            late += 1;
        } else {
            let records: &mut Vec<Told> = on_time.entry(event.key).or_default();
            records.push((event.key, event.time, event.value));
        }
    }
    on_time.values_mut().for_each(|records| records.sort_by_key(|(_, time, _)| *time));
    (on_time, late)
}

/// The records of these partitions, read one at a time, by key.
pub fn keyed(flow: &Flow, partitions: &[Vec<Event>], bound: i64) -> KeyedStream<u8, Told> {
    let watermarks = Watermarks::bounded(millis(bound as u64));
    let events = flow.source(Script::of(partitions)).event_time(time, watermarks);
    events.map(|event| (event.key, event.time, event.value)).key_by(|event| event.0)
}

#[derive(Clone, Debug)]
struct Case {
    partitions: Vec<Vec<Event>>,
    bound: i64,
    within: i64,
}

#[derive(Default)]
struct Outputs {
    reduced: Collect<Told>,
    distinct: Collect<Told>,
    first: Collect<Told>,
    last: Collect<Told>,
}

fn case() -> impl Strategy<Value = Case> {
    let case = |(partitions, bound, within)| Case { partitions, bound, within };
    (partitions(), 0..100_i64, 0..150_i64).prop_map(case)
}

/// Merges records so that it shows in which order.
fn merge(before: &mut Told, (_, time, value): Told) {
    before.1 = time;
    before.2 = (before.2 * 31 + value) % 1_000_003;
}

impl Case {
    fn describe(&self, flow: &Flow, outputs: &Outputs) {
        let keyed = || keyed(flow, &self.partitions, self.bound);
        let within = millis(self.within as u64);
        keyed().reduce(merge).sink(outputs.reduced.clone());
        keyed().distinct().sink(outputs.distinct.clone());
        keyed().deduplicate(Keep::First, within).sink(outputs.first.clone());
        keyed().deduplicate(Keep::Last, within).sink(outputs.last.clone());
    }

    /// Judges what came out. Answers how many records are late for one operator.
    fn judge(&self, outputs: &Outputs, name: &str) -> u64 {
        let (by_key, late) = in_event_time_order(&self.partitions, self.bound);
        let (mut reduced, mut distinct, mut first, mut last) = (vec![], vec![], vec![], vec![]);
        for records in by_key.into_values() {
            let mut total = records[0];
            reduced.push(total);
            for record in &records[1..] {
                merge(&mut total, *record);
                reduced.push(total);
            }
            distinct.push(records[0]);
            let mut rest = &records[..];
            while let Some(opening) = rest.first() {
                let duplicates = rest.iter().take_while(|record| record.1 <= opening.1 + self.within).count();
                first.push(*opening);
                last.push(rest[duplicates - 1]);
                rest = &rest[duplicates..];
            }
        }
        let of = |collected: &Collect<Told>| {
            let mut rows = collected.rows();
            rows.sort_by_key(|(key, ..)| *key);
            rows
        };
        assert_eq!(of(&outputs.reduced), reduced, "{name}: reduced");
        assert_eq!(of(&outputs.distinct), distinct, "{name}: distinct");
        assert_eq!(of(&outputs.first), first, "{name}: the first of duplicates");
        assert_eq!(of(&outputs.last), last, "{name}: the last of duplicates");
        late
    }
}

#[test]
fn reduced_distinct_and_deduplicated_records_follow_event_time_on_any_number_of_workers() {
    let labs = labs();
    proptest!(config(40), |(case in case())| {
        for lab in &labs {
            let (flow, outputs) = (lab.flow(), Outputs::default());
            case.describe(&flow, &outputs);
            let metrics = lab.engine().run(flow).unwrap();
            let late = case.judge(&outputs, &lab.name);
            assert_eq!(metrics.late_records, 4 * late, "{}", lab.name);
        }
    });
}

#[test]
fn reduced_distinct_and_deduplicated_records_are_the_same_through_every_crash() {
    let crashes = Cell::new(0);
    proptest!(config(100), |(case in case(), seed in any::<u64>())| {
        let outputs = Outputs::default();
        let report = simulate(seed, || {
            let flow = Flow::new("keyed");
            case.describe(&flow, &outputs);
            flow
        });
        case.judge(&outputs, &format!("seed {seed}"));
        crashes.set(crashes.get() + report.crashes);
    });
    assert!(crashes.get() > 30, "{} crashes of 100 cases: too few to get wrong", crashes.get());
}
