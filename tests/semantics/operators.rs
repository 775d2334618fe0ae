//! The operators that need no time, and functions with state and timers.

use crate::support::{Event, event, labs};
use rivermark::connectors::{Collect, FromVec};
use rivermark::{
    BoxError, Context, List, Map, ProcessFunction, Reducing, Stream, Timestamp, Value, Watermarks, millis,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort();
    rows
}

#[test]
fn map_filter_flat_map_and_inspect_do_what_iterators_do() {
    let numbers: Vec<u64> = (0..5000).collect();
    for lab in labs() {
        let seen = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&seen);
        let describe = |numbers: Stream<u64>| {
            numbers
                .inspect(move |_| {
                    counts.fetch_add(1, Ordering::Relaxed);
                })
                .filter(|n| n % 3 != 0)
                .map(|n| n * 2)
                .try_map(|n| Ok(n + 1))
                .flat_map(|n| vec![n; (n % 4) as usize])
                .filter_map(|n| (n % 5 != 0).then(|| n.to_string()))
        };
        let (rows, metrics) = lab.run(&[numbers[..2000].to_vec(), numbers[2000..].to_vec()], describe);
        let expected = numbers
            .iter()
            .filter(|n| *n % 3 != 0)
            .map(|n| n * 2 + 1)
            .flat_map(|n| vec![n; (n % 4) as usize])
            .filter(|n| n % 5 != 0)
            .map(|n| n.to_string());
        assert_eq!(sorted(rows), sorted(expected.collect()), "{}", lab.name);
        assert_eq!((seen.load(Ordering::Relaxed), metrics.records_read), (5000, 5000), "{}", lab.name);
    }
}

#[test]
fn a_union_has_the_records_of_both_and_the_lower_watermark() {
    for lab in labs() {
        let (flow, rows) = (lab.flow(), Collect::new());
        let early: Vec<Event> = (0..100).map(|n| event(1, n, 0)).collect();
        let late: Vec<Event> = (0..100).map(|n| event(2, 10_000 + n, 0)).collect();
        let timed = |events: Vec<Event>| {
            flow.source(FromVec::new(events))
                .event_time(|e: &Event| Timestamp::from_millis(e.time), Watermarks::monotonous())
        };
        // If the watermark were that of either side, the other's records would come late.
        timed(late)
            .union(timed(early))
            .key_by(|e| e.key)
            .window(rivermark::Windows::tumbling(millis(100)))
            .count()
            .sink(rows.clone());
        let metrics = lab.engine().run(flow).unwrap();
        let rows =
            sorted(rows.rows().iter().map(|row| (row.key, row.window.start.millis(), row.value)).collect());
        assert_eq!(rows, [(1, 0, 100), (2, 10_000, 100)], "{}", lab.name);
        assert_eq!(metrics.late_records, 0, "{}", lab.name);
    }
}

#[test]
fn a_stream_that_is_cloned_gives_both_consumers_all_records() {
    for lab in labs() {
        let (flow, evens, odds) = (lab.flow(), Collect::new(), Collect::new());
        let numbers = flow.source(FromVec::new((0..1000_u64).collect()));
        numbers.clone().filter(|n| n % 2 == 0).sink(evens.clone());
        numbers.filter(|n| n % 2 == 1).sink(odds.clone());
        lab.engine().run(flow).unwrap();
        assert_eq!((evens.rows().len(), odds.rows().len()), (500, 500), "{}", lab.name);
    }
}

const COUNT: Value<u64> = Value::new("count");
const SUM: Reducing<i64> = Reducing::new("sum");
const VALUES: List<i64> = List::new("values");
const BY_SIGN: Map<bool, u64> = Map::new("by-sign");

/// Keeps all that it is told in every kind of state, and tells it 100 ms after the last record.
#[derive(Clone)]
struct Remembers;

/// Key, count, sum, values in order, and how many there were of each sign.
type Remembered = (u8, u64, i64, Vec<i64>, Vec<(bool, u64)>);

impl ProcessFunction<u8, Event> for Remembers {
    type Out = Remembered;

    fn on_record(
        &mut self,
        _key: &u8,
        event: Event,
        cx: &mut Context<'_, u8, Remembered>,
    ) -> Result<(), BoxError> {
        cx.state(COUNT).update(|| 0, |count| *count += 1)?;
        cx.state(SUM).add(event.value, |sum, value| *sum += value)?;
        cx.state(VALUES).push(event.value)?;
        let sign = event.value < 0;
        let before = cx.state(BY_SIGN).get(&sign)?.unwrap_or(0);
        cx.state(BY_SIGN).put(sign, before + 1)?;
        // Only the timer of the last record is left.
        if event.time > 0 {
            cx.delete_timer(Timestamp::from_millis(event.time - 1 + 100))?;
        }
        cx.timer(Timestamp::from_millis(event.time + 100))
    }

    fn on_timer(
        &mut self,
        key: &u8,
        time: Timestamp,
        cx: &mut Context<'_, u8, Remembered>,
    ) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?.unwrap_or(0);
        assert_eq!(time.millis(), count as i64 - 1 + 100, "the timer of the last record");
        let sum = cx.state(SUM).get()?.unwrap_or(0);
        let values = cx.state(VALUES).get()?;
        let mut by_sign = cx.state(BY_SIGN).entries()?;
        by_sign.sort_unstable();
        cx.emit((*key, count, sum, values, by_sign));
        cx.state(COUNT).clear()?;
        cx.state(SUM).clear()?;
        cx.state(VALUES).clear()?;
        cx.state(BY_SIGN).clear()
    }
}

#[test]
fn every_kind_of_state_keeps_what_it_is_told_a_key_and_timers_fire_once() {
    // Every key has a record at each millisecond, all of a key in one partition.
    let value = |key: u8, time: i64| (time * 7 + i64::from(key) * 3) % 11 - 5;
    let of_key = |key: u8| (0..50).map(|time| event(key, time, value(key, time))).collect::<Vec<_>>();
    let partitions: Vec<Vec<Event>> = (0..20).map(of_key).collect();
    for lab in labs() {
        let describe = |events: Stream<Event>| {
            events
                .event_time(|e| Timestamp::from_millis(e.time), Watermarks::monotonous())
                .key_by(|e| e.key)
                .process(Remembers)
        };
        let (rows, _) = lab.run(&partitions, describe);
        let expected = (0..20_u8).map(|key| {
            let values: Vec<i64> = (0..50).map(|time| value(key, time)).collect();
            let negative = values.iter().filter(|v| **v < 0).count() as u64;
            (key, 50, values.iter().sum(), values, vec![(false, 50 - negative), (true, negative)])
        });
        assert_eq!(sorted(rows), expected.collect::<Vec<Remembered>>(), "{}", lab.name);
    }
}
