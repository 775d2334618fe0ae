//! Windows and timers on one worker, beside loops over hash maps and a heap.
//!
//! Ten records come at each moment, ten thousand in ten minutes, each of one of a thousand keys.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use rivermark::{
    Aggregate, BoxError, Context, Flow, KeyedStream, ProcessFunction, StateBackend, Timestamp, Watermarks,
    Windows, hours, minutes, secs,
};
use rivermark_benches::measure::{Running, options};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of, time_of};
use std::cell::LazyCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 1_000_000;
const KEYS: u64 = 1000;
const MINUTE: i64 = 60_000;

fn group_of<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    group
}

/// Measures a flow in its steady state: what `end` puts behind the keyed stream.
fn engine(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    operator: &'static str,
    end: impl FnOnce(KeyedStream<u64, u64>),
) {
    engine_of(1, KEYS, group, name, operator, end);
}

fn engine_of(
    workers: usize,
    keys: u64,
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    operator: &'static str,
    end: impl FnOnce(KeyedStream<u64, u64>),
) {
    let job = LazyCell::new(|| {
        let flow = Flow::new("bench");
        let numbers = flow.source(Numbers { events: u64::MAX, partitions: workers as u32 });
        let timed = numbers.event_time(|n| Timestamp::from_millis(time_of(*n)), Watermarks::monotonous());
        end(timed.key_by(move |n| key_of(*n, keys)));
        // A store remembers what has changed since the last checkpoint. Without any that would be the whole stream.
        let options = options(workers, StateBackend::Memory).checkpoint_every(secs(1));
        Running::start(options, flow, operator, RECORDS)
    });
    group.bench_function(name, |b| {
        let job = &*job;
        b.iter_custom(|times| job.time_of(times * RECORDS));
    });
}

/// A map a window, given out when time has passed its end.
fn windows_by_hand(size: i64, slide: i64) {
    let mut open: HashMap<i64, HashMap<u64, u64>> = HashMap::new();
    let mut next = slide;
    for n in 0..RECORDS {
        let time = time_of(n);
        while time >= next {
            open.remove(&next).into_iter().flatten().for_each(|row| {
                black_box(row);
            });
            next += slide;
        }
        let key = key_of(n, KEYS);
        let mut start = time - time % slide;
        while start + size > time {
            *open.entry(start + size).or_default().entry(key).or_insert(0) += 1;
            start -= slide;
        }
    }
}

/// A map of open sessions: first time, last time, count. The heap has one entry a session, at or before its end: when its time has
/// come, the session is given out, or the entry set anew.
fn sessions_by_hand(gap: i64) {
    let mut open: HashMap<u64, (i64, i64, u64)> = HashMap::new();
    let mut ends: BinaryHeap<Reverse<(i64, u64)>> = BinaryHeap::new();
    for n in 0..RECORDS {
        let time = time_of(n);
        while let Some(&Reverse((at, key))) = ends.peek()
            && at < time
        {
            ends.pop();
            let end = open[&key].1 + gap;
            if end < time {
                black_box(open.remove(&key));
            } else {
                ends.push(Reverse((end, key)));
            }
        }
        let key = key_of(n, KEYS);
        let session = open.entry(key).or_insert_with(|| {
            ends.push(Reverse((time + gap, key)));
            (time, time, 0)
        });
        *session = (session.0, time, session.2 + 1);
    }
}

fn windows(c: &mut Criterion) {
    let tumbling = Windows::tumbling(minutes(10));
    let sliding = Windows::sliding(hours(1), minutes(10));
    // As long as a thousand records, so that a key's next record joins its session or not about as often.
    let sessions = Windows::session(minutes(1));
    let tumble: fn() = || windows_by_hand(10 * MINUTE, 10 * MINUTE);
    let slide: fn() = || windows_by_hand(60 * MINUTE, 10 * MINUTE);
    let meet: fn() = || sessions_by_hand(MINUTE);
    for (name, windows, by_hand) in
        [("tumbling", tumbling, tumble), ("sliding", sliding, slide), ("sessions", sessions, meet)]
    {
        let mut group = group_of(c, name);
        group.bench_function("speed_of_light", |b| b.iter(by_hand));
        engine(&mut group, "engine/count", "window-1", |keyed| keyed.window(windows).count().sink(Nowhere));
        engine(&mut group, "engine/sum", "window-1", |keyed| {
            keyed.window(windows).sum(|n| n % 1024).sink(Nowhere);
        });
        group.finish();
    }
}

/// Windows of a minute that are kept for half a week: thousands of slices at any time, of which one fires at a time.
fn kept(c: &mut Criterion) {
    let mut group = group_of(c, "kept");
    for (name, lateness) in [("not", minutes(0)), ("half_a_week", hours(84))] {
        engine(&mut group, &format!("engine/{name}"), "window-1", |keyed| {
            let windows = keyed.window(Windows::tumbling(minutes(1)));
            windows.allowed_lateness(lateness).count().sink(Nowhere);
        });
    }
    group.finish();
}

/// Counts, without saying that this may be done before the exchange.
#[derive(Clone)]
struct CountArrived;

impl Aggregate<u64> for CountArrived {
    type Acc = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, acc: &mut u64, _value: &u64) {
        *acc += 1;
    }

    fn merge(&self, acc: &mut u64, other: &u64) {
        *acc += other;
    }

    fn finish(&self, acc: &u64) -> u64 {
        *acc
    }
}

/// One worker, which has no exchange to count before; two workers, which count before the exchange where that pays, and behind it. With 100,000 keys it does not.
fn combined(c: &mut Criterion) {
    for (workers, keys) in [(1, 1000), (2, 10), (2, 100), (2, 1000), (2, 100_000)] {
        let mut group = group_of(c, &format!("combined/{workers}_workers/{keys}_keys"));
        let windows = Windows::tumbling(minutes(10));
        engine_of(workers, keys, &mut group, "engine/behind_the_exchange", "window-1", |keyed| {
            keyed.window(windows).aggregate(CountArrived).sink(Nowhere);
        });
        engine_of(workers, keys, &mut group, "engine/before_it", "window-1", |keyed| {
            keyed.window(windows).count().sink(Nowhere);
        });
        group.finish();
    }
}

/// Sets a timer a record, ten minutes ahead: ten thousand of them at any time.
#[derive(Clone)]
struct Remind;

impl ProcessFunction<u64, u64> for Remind {
    type Out = ();

    fn on_record(&mut self, _key: &u64, record: u64, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        cx.timer(Timestamp::from_millis(time_of(record) + 10 * MINUTE))
    }

    fn on_timer(
        &mut self,
        key: &u64,
        _at: Timestamp,
        _cx: &mut Context<'_, u64, ()>,
    ) -> Result<(), BoxError> {
        black_box(key);
        Ok(())
    }
}

fn timers(c: &mut Criterion) {
    let mut group = group_of(c, "timers");
    group.bench_function("speed_of_light", |b| {
        b.iter(|| {
            let mut heap: BinaryHeap<Reverse<(i64, u64)>> = BinaryHeap::new();
            for n in 0..RECORDS {
                let now = time_of(n);
                while heap.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                    black_box(heap.pop());
                }
                heap.push(Reverse((now + 10 * MINUTE, key_of(n, KEYS))));
            }
        });
    });
    engine(&mut group, "engine", "process-1", |keyed| keyed.process(Remind).sink(Nowhere));
    group.finish();
}

criterion_group!(benches, windows, kept, combined, timers);
criterion_main!(benches);
