//! Joins on one worker, beside loops over hash maps that take the same records in the order of their times.
//!
//! Even numbers are the left stream, odd ones the right. Ten records come at each moment, each of one of a thousand keys, and a key has one a
//! minute.
#![allow(missing_docs, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use rivermark::{Flow, Interval, KeyedStream, StateBackend, Timestamp, Watermarks, Windows, minutes, secs};
use rivermark_benches::measure::{Running, options};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of, time_of};
use std::cell::LazyCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 200_000;
const KEYS: u64 = 1000;
const MINUTE: i64 = 60_000;

/// The records with time, key and side.
fn records() -> impl Iterator<Item = (i64, u64, u64)> {
    (0..RECORDS).map(|n| (time_of(n), key_of(n, KEYS), n))
}

type Keyed = KeyedStream<u64, u64>;

/// Measures a flow in its steady state: what `join` puts behind the two streams.
fn compare(
    c: &mut Criterion,
    name: &str,
    operator: &'static str,
    by_hand: fn(),
    join: impl FnOnce(Keyed, Keyed),
) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    group.bench_function("speed_of_light", |b| b.iter(by_hand));
    let job = LazyCell::new(|| {
        let flow = Flow::new("bench");
        let numbers = flow.source(Numbers { events: u64::MAX, partitions: 1 });
        let timed = numbers.event_time(|n| Timestamp::from_millis(time_of(*n)), Watermarks::monotonous());
        let left = timed.clone().filter(|n| n % 2 == 0).key_by(|n| key_of(*n, KEYS));
        join(left, timed.filter(|n| n % 2 == 1).key_by(|n| key_of(*n, KEYS)));
        let options = options(1, StateBackend::Memory).checkpoint_every(secs(1));
        Running::start(options, flow, operator, RECORDS)
    });
    group.bench_function("engine", |b| {
        let job = &*job;
        b.iter_custom(|times| job.time_of(times * RECORDS));
    });
    group.finish();
}

fn intervals_by_hand() {
    let mut kept: HashMap<u64, [VecDeque<(i64, u64)>; 2]> = HashMap::new();
    for (time, key, n) in records() {
        let sides = kept.entry(key).or_default();
        let (own, other) = ((n % 2) as usize, (n + 1) as usize % 2);
        for side in sides.iter_mut() {
            while side.front().is_some_and(|(before, _)| *before < time - MINUTE) {
                side.pop_front();
            }
        }
        sides[other].iter().for_each(|(_, m)| {
            black_box(n + m);
        });
        sides[own].push_back((time, n));
    }
}

fn windows_by_hand() {
    let mut open: HashMap<u64, [Vec<u64>; 2]> = HashMap::new();
    let mut end = 2 * MINUTE;
    for (time, key, n) in records() {
        if time >= end {
            for (_, [left, right]) in open.drain() {
                for a in &left {
                    right.iter().for_each(|b| {
                        black_box(a + b);
                    });
                }
            }
            end += 2 * MINUTE;
        }
        open.entry(key).or_default()[(n % 2) as usize].push(n);
    }
}

/// For the as-of join and the join of a stream with a table.
fn newest_by_hand() {
    let mut newest: HashMap<u64, u64> = HashMap::new();
    for (_, key, n) in records() {
        if n % 2 == 1 {
            newest.insert(key, n);
        } else {
            black_box(newest.get(&key).map(|m| n + m));
        }
    }
}

fn tables_by_hand() {
    let mut rows: HashMap<u64, [Option<u64>; 2]> = HashMap::new();
    for (_, key, n) in records() {
        let row = rows.entry(key).or_default();
        let before = *row;
        row[(n % 2) as usize] = Some(n);
        black_box((before, *row));
    }
}

fn joins(c: &mut Criterion) {
    compare(c, "interval", "interval_join-1", intervals_by_hand, |left, right| {
        let interval = Interval::around(minutes(1), minutes(1));
        left.interval_join(right, interval).inner(|_, a, b| a + b).sink(Nowhere);
    });
    compare(c, "window", "window_join-1", windows_by_hand, |left, right| {
        left.window_join(right, Windows::tumbling(minutes(2))).inner(|_, _, a, b| a + b).sink(Nowhere);
    });
    compare(c, "as_of", "as_of_join-1", newest_by_hand, |left, right| {
        left.as_of_join(right, minutes(10)).inner(|_, a, b| a + b).sink(Nowhere);
    });
    compare(c, "stream_table", "stream_table_join-1", newest_by_hand, |left, right| {
        left.join_table(right.to_table()).inner(|_, a, b| a + b).sink(Nowhere);
    });
    compare(c, "tables", "table_join-1", tables_by_hand, |left, right| {
        left.to_table().join(right.to_table()).inner(|_, a, b| a + b).changes().sink(Nowhere);
    });
}

criterion_group!(benches, joins);
criterion_main!(benches);
