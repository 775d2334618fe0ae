//! Tables against a plain model: at every event time the tables are computed anew from all records up to it, and what differs from the
//! time before is what should have been told.

use crate::crashes::simulate;
use crate::sips::Sips;
use crate::support::{Event, Script, event, labs};
use crate::windows::config;
use proptest::prelude::*;
use rivermark::connectors::{Collect, LogSink, LogSource};
use rivermark::join::{BroadcastContext, BroadcastFunction};
use rivermark::log::{Isolation, Log, Position, RecordBatch, TopicOptions};
use rivermark::simulation::Simulation;
use rivermark::{BoxError, Change, Flow, Options, Table, Timestamp, Upsert, Value, Watermarks, millis};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Debug;

type Row = Upsert<u8, i64>;
type Rows = BTreeMap<u8, i64>;
/// What was told of each key, in order.
type Told<K, V> = BTreeMap<K, Vec<Change<V>>>;
type Full = (Option<i64>, Option<i64>);
type Referred = (i64, Option<i64>);

#[derive(Clone, Debug)]
struct Case {
    left: Vec<Vec<Row>>,
    right: Vec<Vec<Row>>,
    records: Vec<Vec<Event>>,
}

/// Partitions whose times rise, sometimes not at all.
fn partitions() -> impl Strategy<Value = Vec<Vec<(u8, i64, Option<i64>)>>> {
    let record = (0..5_u8, 0..3_i64, prop::option::weighted(0.8, 0..20_i64));
    let partition = prop::collection::vec(record, 0..25).prop_map(|steps| {
        let mut time = 0;
        let rising = steps.into_iter().map(|(key, step, value)| {
            time += step;
            (key, time, value)
        });
        rising.collect()
    });
    prop::collection::vec(partition, 1..3)
}

fn case() -> impl Strategy<Value = Case> {
    let each = |partitions: Vec<Vec<(u8, i64, Option<i64>)>>| -> Vec<Vec<Row>> {
        let row = |(key, time, value)| Upsert { key, value, time: Timestamp::from_millis(time) };
        partitions.into_iter().map(|partition| partition.into_iter().map(row).collect()).collect()
    };
    (partitions(), partitions(), partitions()).prop_map(move |(left, right, records)| {
        let record = |(key, time, value): (u8, i64, Option<i64>)| event(key, time, value.unwrap_or(-1));
        let records =
            records.into_iter().map(|partition| partition.into_iter().map(record).collect()).collect();
        Case { left: each(left), right: each(right), records }
    })
}

/// In event-time order: by time, then by partition and offset.
fn ordered(partitions: &[Vec<Row>]) -> Vec<Row> {
    let mut rows = partitions.concat();
    rows.sort_by_key(|row| row.time);
    rows
}

fn table_at(rows: &[Row], time: i64) -> Rows {
    let mut table = Rows::new();
    for row in rows.iter().take_while(|row| row.time.millis() <= time) {
        match row.value {
            Some(value) => table.insert(row.key, value),
            None => table.remove(&row.key),
        };
    }
    table
}

/// What differs from one time to the next.
fn differences<K: Ord + Copy, V: Clone + PartialEq>(view: impl Fn(i64) -> BTreeMap<K, V>) -> Told<K, V> {
    let mut told = Told::new();
    let mut before = BTreeMap::new();
    for time in 0..100 {
        let after = view(time);
        let mut keys: Vec<K> = before.keys().chain(after.keys()).copied().collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let (old, new) = (before.get(&key).cloned(), after.get(&key).cloned());
            if old != new {
                told.entry(key).or_default().extend(Change::between(old, new));
            }
        }
        before = after;
    }
    told
}

fn refers_to(value: i64) -> u8 {
    (value % 5) as u8
}

/// A record, the how manieth of its key it is, the rule for it, and how many rules there are.
type Ruled = (Event, u64, Option<i64>, usize);

const SEEN: Value<u64> = Value::new("seen");

/// Looks up the rule for each record in a broadcast table.
#[derive(Clone)]
struct Ruling;

impl BroadcastFunction<u8, (u8, i64, i64), u8, i64> for Ruling {
    type Out = Ruled;

    fn on_record(
        &mut self,
        key: &u8,
        (_, time, value): (u8, i64, i64),
        cx: &mut BroadcastContext<'_, '_, u8, u8, i64, Ruled>,
    ) -> Result<(), BoxError> {
        let nth = cx.state(SEEN).update(
            || 0,
            |seen| {
                *seen += 1;
                *seen
            },
        )?;
        let rule = cx.broadcast(&refers_to(value.abs()))?;
        let rules = cx.broadcast_rows()?.len();
        cx.emit((event(*key, time, value), nth, rule, rules));
        Ok(())
    }
}

/// What a flow of a case gives.
#[derive(Default)]
struct Outputs {
    table: Collect<(u8, Change<i64>)>,
    sums: Collect<(i64, Change<i64>)>,
    top: Collect<(i64, Change<Vec<i64>>)>,
    full: Collect<(u8, Change<Full>)>,
    inner: Collect<(u8, Change<(i64, i64)>)>,
    referred: Collect<(u8, Change<Referred>)>,
    enriched: Collect<(Event, Option<i64>)>,
    ruled: Collect<Ruled>,
}

impl Case {
    fn describe(&self, flow: &Flow, outputs: &Outputs) {
        let table = |partitions: &[Vec<Row>]| -> Table<u8, i64> {
            let rows = flow.source(Script::of(partitions));
            rows.event_time(|row| row.time, Watermarks::monotonous()).to_table()
        };
        let (left, right) = (table(&self.left), table(&self.right));
        left.clone().changes().sink(outputs.table.clone());
        left.clone().group_by(|_, value| value % 3).sum(|value| *value).changes().sink(outputs.sums.clone());
        let grouped = left.clone().group_by(|_, value| value % 3);
        grouped.top_n(2, |value| value / 4).changes().sink(outputs.top.clone());
        let full = left.clone().join(right.clone());
        full.full(|_, a, b| (a.copied(), b.copied())).changes().sink(outputs.full.clone());
        let inner = left.clone().join(right.clone());
        inner.inner(|_, a, b| (*a, *b)).changes().sink(outputs.inner.clone());
        let records = flow
            .source(Script::of(&self.records))
            .event_time(|event| Timestamp::from_millis(event.time), Watermarks::monotonous())
            .map(|event| (event.key, event.time, event.value));
        let ruled = records.clone().key_by(|(key, _, _)| *key);
        ruled.process_with_broadcast(right.clone(), Ruling).sink(outputs.ruled.clone());
        let referred = left.clone().join_on(right, |_, value| refers_to(*value));
        referred.left(|_, a, b| (*a, b.copied())).changes().sink(outputs.referred.clone());
        records
            .key_by(|(key, _, _)| *key)
            .join_table(left)
            .left(|_, (key, time, value), row| (event(key, time, value), row.copied()))
            .sink(outputs.enriched.clone());
    }

    fn judge(&self, outputs: &Outputs, name: &str) {
        let (left, right) = (ordered(&self.left), ordered(&self.right));
        let mut every = Told::new();
        let mut rows = Rows::new();
        for Upsert { key, value, .. } in &left {
            let before = rows.remove(key);
            rows.extend(value.map(|value| (*key, value)));
            every.entry(*key).or_insert_with(Vec::new).extend(Change::between(before, *value));
        }
        every.retain(|_, changes| !changes.is_empty());
        assert_eq!(by_key(outputs.table.rows()), every, "{name}: the table");
        let sums = differences(|time| {
            let mut sums = BTreeMap::new();
            table_at(&left, time).values().for_each(|value| *sums.entry(value % 3).or_insert(0) += value);
            sums
        });
        assert_eq!(by_key(outputs.sums.rows()), sums, "{name}: sums");
        let top = differences(|time| {
            let mut groups: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            table_at(&left, time)
                .values()
                .for_each(|value| groups.entry(value % 3).or_default().push(*value));
            for rows in groups.values_mut() {
                rows.sort_by_key(|value| (Reverse(value / 4), *value));
                rows.truncate(2);
            }
            groups
        });
        assert_eq!(by_key(outputs.top.rows()), top, "{name}: top");
        let full = differences(|time| {
            let (left, right) = (table_at(&left, time), table_at(&right, time));
            let keys = left.keys().chain(right.keys());
            keys.map(|key| (*key, (left.get(key).copied(), right.get(key).copied()))).collect()
        });
        assert_eq!(changing(by_key(outputs.full.rows())), full, "{name}: full join");
        let inner = differences(|time| {
            let (left, right) = (table_at(&left, time), table_at(&right, time));
            left.iter().filter_map(|(key, a)| Some((*key, (*a, *right.get(key)?)))).collect()
        });
        assert_eq!(changing(by_key(outputs.inner.rows())), inner, "{name}: inner join");
        let referred = differences(|time| {
            let (left, right) = (table_at(&left, time), table_at(&right, time));
            left.iter().map(|(key, a)| (*key, (*a, right.get(&refers_to(*a)).copied()))).collect()
        });
        assert_eq!(changing(by_key(outputs.referred.rows())), referred, "{name}: foreign-key join");
        let mut enriched: Vec<(Event, Option<i64>)> = self
            .records
            .concat()
            .into_iter()
            .map(|event| {
                let row = table_at(&left, event.time).get(&event.key).copied();
                (event, row)
            })
            .collect();
        enriched.sort();
        let mut found = outputs.enriched.rows();
        found.sort();
        assert_eq!(found, enriched, "{name}: stream-table join");
        let mut records = self.records.concat();
        records.sort_by_key(|event| (event.key, event.time));
        let mut ruled: Vec<Ruled> = Vec::new();
        for event in records {
            let rules = table_at(&right, event.time);
            let nth =
                ruled.last().filter(|(before, ..)| before.key == event.key).map_or(1, |(_, nth, ..)| nth + 1);
            let rule = rules.get(&refers_to(event.value.abs())).copied();
            ruled.push((event, nth, rule, rules.len()));
        }
        let mut found = outputs.ruled.rows();
        found.sort_by_key(|(event, nth, ..)| (event.key, *nth));
        assert_eq!(found, ruled, "{name}: broadcast");
    }
}

fn by_key<K: Ord, V>(rows: Vec<(K, Change<V>)>) -> Told<K, V> {
    let mut told = Told::new();
    for (key, change) in rows {
        told.entry(key).or_insert_with(Vec::new).push(change);
    }
    told
}

/// Without changes that leave a row as it was, which joins may tell.
fn changing<K: Ord, V: PartialEq + Debug>(mut told: Told<K, V>) -> Told<K, V> {
    told.values_mut().for_each(|changes| changes.retain(|change| change.before() != change.after()));
    told.retain(|_, changes| !changes.is_empty());
    told
}

#[test]
fn tables_are_what_the_records_up_to_each_time_make_them_on_any_number_of_workers() {
    let labs = labs();
    proptest!(config(48), |(case in case())| {
        for lab in &labs {
            let (flow, outputs) = (lab.flow(), Outputs::default());
            case.describe(&flow, &outputs);
            lab.engine().run(flow).unwrap();
            case.judge(&outputs, &lab.name);
        }
    });
}

#[test]
fn tables_are_the_same_through_every_crash_and_on_other_workers_after_it() {
    let crashes = Cell::new(0);
    proptest!(config(100), |(case in case(), seed in any::<u64>())| {
        let outputs = Outputs::default();
        let report = simulate(seed, || {
            let flow = Flow::new("tables");
            case.describe(&flow, &outputs);
            flow
        });
        case.judge(&outputs, &format!("seed {seed}"));
        crashes.set(crashes.get() + report.crashes);
    });
    assert!(crashes.get() > 30, "{} crashes of 100 cases: too few to get wrong", crashes.get());
}

/// The newest value of each key in a topic, by reading it from the beginning.
fn newest<K: serde::de::DeserializeOwned + Ord>(log: &Log, topic: &str) -> BTreeMap<K, i64> {
    let mut rows = BTreeMap::new();
    let topic = log.topic(topic).unwrap();
    for partition in 0..topic.partitions() {
        let mut reader = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted).unwrap();
        while let Some(records) = reader.next_batch().unwrap() {
            for record in records {
                let key: K = serde_json::from_slice(record.key.unwrap()).unwrap();
                match record.value {
                    Some(value) => rows.insert(key, serde_json::from_slice(value).unwrap()),
                    None => rows.remove(&key),
                };
            }
        }
    }
    rows
}

#[test]
fn a_table_goes_from_topic_to_topic_with_its_deletes_through_every_crash() {
    let crashes = Cell::new(0);
    proptest!(config(60), |(case in case(), seed in any::<u64>())| {
        let fill = |log: &Log| {
            let topic = log.create_topic("values", TopicOptions::new(case.left.len() as u32)).unwrap();
            for (partition, rows) in (0..).zip(&case.left) {
                let mut batch = RecordBatch::new();
                for row in rows {
                    let value = row.value.map(|value| serde_json::to_vec(&value).unwrap());
                    batch.push(Some(&serde_json::to_vec(&row.key).unwrap()), value.as_deref(), row.time.millis());
                }
                if !rows.is_empty() {
                    topic.append(partition, &mut batch).unwrap();
                }
            }
        };
        let prepare = |log: &Log| {
            fill(log);
            Ok(())
        };
        let simulation = Simulation::seed(seed).crashes(6).options(Options::new().checkpoint_every(millis(5)));
        let report = simulation.run(prepare, || {
            let flow = Flow::new("topics");
            let source = Sips { source: LogSource::<Row, _>::table("values").until_end(), most: 2 };
            let rows = flow.source(source).event_time(|row| row.time, Watermarks::monotonous());
            let table = rows.to_table();
            let kept = table.clone().filter(|_, value| value % 4 != 0);
            kept.to_stream().sink_as("kept", LogSink::table("kept"));
            table.group_by(|_, value| value % 3).sum(|value| *value).to_stream().sink_as("sums", LogSink::table("sums"));
            flow
        }).unwrap();
        let last = table_at(&ordered(&case.left), i64::MAX);
        let kept: Rows = last.iter().filter(|(_, value)| **value % 4 != 0).map(|(key, value)| (*key, *value)).collect();
        let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
        last.values().for_each(|value| *sums.entry(value % 3).or_insert(0) += value);
        assert_eq!(newest::<u8>(&report.log, "kept"), kept, "seed {seed}");
        assert_eq!(newest::<i64>(&report.log, "sums"), sums, "seed {seed}");
        crashes.set(crashes.get() + report.crashes);
    });
    assert!(crashes.get() > 20, "{} crashes of 60 cases: too few to get wrong", crashes.get());
}
