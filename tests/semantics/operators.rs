//! The operators that need no time, and functions with state and timers.

use crate::case::time;
use crate::support::{Event, Lab, event, labs};
use rivermark::connectors::{Collect, FromVec};
use rivermark::{
    BoxError, Context, Expiring, Flow, List, Map, ProcessFunction, Reducing, StateBackend, States, Stream,
    Timestamp, Ttl, Value, Watermarks, Windows, millis,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
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
        let timed =
            |events: Vec<Event>| flow.source(FromVec::new(events)).event_time(time, Watermarks::monotonous());
        // If the watermark were that of either side, the other's records would come late.
        timed(late)
            .union(timed(early))
            .key_by(|e| e.key)
            .window(Windows::tumbling(millis(100)))
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
pub type Remembered = (u8, u64, i64, Vec<i64>, Vec<(bool, u64)>);

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

/// What [`Remembers`] makes of events.
pub fn remember(events: Stream<Event>) -> Stream<Remembered> {
    events.event_time(time, Watermarks::monotonous()).key_by(|event| event.key).process(Remembers)
}

fn value(key: u8, time: i64) -> i64 {
    (time * 7 + i64::from(key) * 3) % 11 - 5
}

/// Every key has a record at each millisecond, all of a key in one partition.
pub fn to_remember() -> Vec<Vec<Event>> {
    let of_key = |key: u8| (0..50).map(|time| event(key, time, value(key, time))).collect();
    (0..20).map(of_key).collect()
}

/// What should be remembered of it.
pub fn remembered() -> Vec<Remembered> {
    let of_key = |key: u8| {
        let values: Vec<i64> = (0..50).map(|time| value(key, time)).collect();
        let negative = values.iter().filter(|v| **v < 0).count() as u64;
        (key, 50, values.iter().sum(), values, vec![(false, 50 - negative), (true, negative)])
    };
    (0..20).map(of_key).collect()
}

#[test]
fn every_kind_of_state_keeps_what_it_is_told_a_key_and_timers_fire_once() {
    for lab in labs() {
        let (rows, _) = lab.run(&to_remember(), remember);
        assert_eq!(sorted(rows), remembered(), "{}", lab.name);
    }
}

/// Sets a timer at each record's value, and one after each timer that is not too late; tells the times of all.
#[derive(Clone)]
struct Echo;

impl ProcessFunction<u8, Event> for Echo {
    type Out = (u8, i64);

    fn on_record(
        &mut self,
        _key: &u8,
        event: Event,
        cx: &mut Context<'_, u8, (u8, i64)>,
    ) -> Result<(), BoxError> {
        cx.timer(Timestamp::from_millis(event.value))?;
        cx.timer(Timestamp::from_millis(event.value))
    }

    fn on_timer(
        &mut self,
        key: &u8,
        at: Timestamp,
        cx: &mut Context<'_, u8, (u8, i64)>,
    ) -> Result<(), BoxError> {
        assert_eq!(cx.time(), at);
        assert!(cx.watermark() >= at, "{at} is not over at {}", cx.watermark());
        cx.emit((*key, at.millis()));
        if (0..30).contains(&at.millis()) { cx.timer(at + millis(10)) } else { Ok(()) }
    }
}

#[test]
fn timers_fire_in_order_of_time_over_the_whole_range_also_those_that_timers_set() {
    let times = [50, i64::MAX, -7, 5, i64::MIN, 0, i64::MAX - 1];
    let of_key = |key: u8| times.map(|at| event(key, 0, at)).to_vec();
    for lab in labs() {
        let describe = |events: Stream<Event>| {
            events.event_time(time, Watermarks::monotonous()).key_by(|event| event.key).process(Echo)
        };
        let (rows, _) = lab.run(&[of_key(0), of_key(1), of_key(2)], describe);
        let expected = [i64::MIN, -7, 0, 5, 10, 15, 20, 25, 30, 35, 50, i64::MAX - 1, i64::MAX];
        for key in 0..3 {
            let found: Vec<i64> = rows.iter().filter(|row| row.0 == key).map(|row| row.1).collect();
            // Rows of one key come in the order in which they were made; the stream's first watermark fires the two that are before zero.
            assert_eq!(found, expected, "{}, key {key}", lab.name);
        }
    }
}

#[test]
fn a_timer_without_event_time_is_an_error_that_says_what_to_do() {
    let lab = Lab::new(1, StateBackend::Memory);
    let flow = lab.flow();
    flow.source(FromVec::new(vec![event(0, 0, 0)]))
        .key_by(|event| event.key)
        .process(Echo)
        .sink(Collect::new());
    let error = lab.engine().run(flow).unwrap_err().to_string();
    assert!(error.contains(".event_time(") && error.contains("vec[0] offset 0"), "{error}");
}

const FORGOTTEN: Expiring<Value<i64>> = Value::new("forgotten").expiring(Ttl::after_write(millis(1)));

/// Has a state with a time to live.
#[derive(Clone)]
struct Forgetful;

impl ProcessFunction<u8, Event> for Forgetful {
    type Out = u8;

    fn states(&self, states: &mut States<'_, u8>) {
        states.has(FORGOTTEN);
    }

    fn on_record(&mut self, _: &u8, event: Event, cx: &mut Context<'_, u8, u8>) -> Result<(), BoxError> {
        cx.state(FORGOTTEN).set(event.value)
    }
}

#[test]
fn a_time_to_live_where_no_time_passes_is_an_error_before_any_record() {
    let lab = Lab::new(1, StateBackend::Memory);
    let flow = lab.flow();
    let events = flow.source(FromVec::new(vec![event(0, 0, 0)]));
    events.key_by(|event| event.key).process(Forgetful).sink(Collect::new());
    let error = lab.engine().run(flow).unwrap_err().to_string();
    assert!(error.contains("state forgotten") && error.contains(".processing_time("), "{error}");
    assert!(!error.contains("offset"), "{error}");
}

#[test]
fn what_needs_event_time_and_has_none_is_refused_before_it_runs() {
    let flow = Flow::new("timeless");
    let timed = flow.source(FromVec::new(vec![event(0, 0, 0)])).event_time(time, Watermarks::monotonous());
    let timeless = flow.source(FromVec::new(vec![event(0, 0, 0)]));
    // A union has event time only where both sides have.
    let union = timed.union(timeless).key_by(|event| event.key);
    union.window(Windows::tumbling(millis(10))).count().sink(Collect::new());
    let error = flow.into_plan().err().unwrap().to_string();
    assert!(error.contains("window-1") && error.contains(".event_time("), "{error}");
}
