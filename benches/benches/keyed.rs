//! What is done to each key's records, on one worker, beside loops over hash maps that take the same records in the order of their times, and so
//! need not wait.
//!
//! Ten records come at each moment, each of one of some thousand keys; a key of a thousand has one a minute.
#![allow(missing_docs, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use rivermark::{Flow, Keep, KeyedStream, StateBackend, Timestamp, Watermarks, Windows, minutes, secs};
use rivermark_benches::measure::{Running, options};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of, time_of};
use std::cell::LazyCell;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 200_000;
const KEYS: u64 = 1000;
const MINUTE: i64 = 60_000;
const TOP: usize = 10;
const GROUPS: u64 = 100;

/// The records with time and key.
fn records() -> impl Iterator<Item = (i64, u64, u64)> {
    (0..RECORDS).map(|n| (time_of(n), key_of(n, KEYS), n))
}

/// Measures a flow in its steady state: what `describe` puts behind the keyed stream.
fn compare(
    c: &mut Criterion,
    name: &str,
    operator: &'static str,
    by_hand: fn(),
    describe: impl FnOnce(KeyedStream<u64, u64>),
) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    group.bench_function("speed_of_light", |b| b.iter(by_hand));
    let job = LazyCell::new(|| {
        let flow = Flow::new("bench");
        let numbers = flow.source(Numbers { events: u64::MAX, partitions: 1 });
        let timed = numbers.event_time(|n| Timestamp::from_millis(time_of(*n)), Watermarks::monotonous());
        describe(timed.key_by(|n| key_of(*n, KEYS)));
        let options = options(1, StateBackend::Memory).checkpoint_every(secs(1));
        Running::start(options, flow, operator, RECORDS)
    });
    group.bench_function("engine", |b| {
        let job = &*job;
        b.iter_custom(|times| job.time_of(times * RECORDS));
    });
    group.finish();
}

fn reduce_by_hand() {
    let mut totals: HashMap<u64, u64> = HashMap::new();
    for (_, key, n) in records() {
        let total = totals.entry(key).or_default();
        *total = total.wrapping_add(n);
        black_box(*total);
    }
}

fn first_by_hand() {
    let mut open: HashMap<u64, i64> = HashMap::new();
    for (time, key, n) in records() {
        let end = open.entry(key).or_insert(i64::MIN);
        if time > *end {
            *end = time + 2 * MINUTE;
            black_box(n);
        }
    }
}

fn last_by_hand() {
    let mut open: HashMap<u64, (i64, u64)> = HashMap::new();
    for (time, key, n) in records() {
        let (end, last) = open.entry(key).or_insert((time + 2 * MINUTE, n));
        if time > *end {
            black_box(*last);
            *end = time + 2 * MINUTE;
        }
        *last = n;
    }
}

/// As good as drawn by lot.
fn score(n: u64) -> u64 {
    key_of(n, u64::MAX)
}

fn top_of_windows_by_hand() {
    let mut open: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    let mut end = 60 * MINUTE;
    for (time, key, n) in records() {
        if time >= end {
            open.drain().for_each(|top| {
                black_box(top);
            });
            end += 60 * MINUTE;
        }
        let (top, score) = (open.entry(key).or_default(), score(n));
        let place = top.partition_point(|(other, _)| *other > score);
        if place < TOP {
            top.truncate(TOP - 1);
            top.insert(place, (score, n));
        }
    }
}

/// Of the newest number of each key, the greatest of each group.
fn top_of_tables_by_hand() {
    let mut rows: HashMap<u64, u64> = HashMap::new();
    let mut groups: HashMap<u64, BTreeSet<(Reverse<u64>, u64)>> = HashMap::new();
    for (_, key, n) in records() {
        let group = groups.entry(key % GROUPS).or_default();
        if let Some(before) = rows.insert(key, n) {
            group.remove(&(Reverse(score(before)), before));
        }
        group.insert((Reverse(score(n)), n));
        group.iter().take(TOP).for_each(|(_, n)| {
            black_box(n);
        });
    }
}

fn keyed(c: &mut Criterion) {
    compare(c, "reduce", "reduce-1", reduce_by_hand, |keyed| {
        keyed.reduce(|total, n| *total = total.wrapping_add(n)).sink(Nowhere);
    });
    compare(c, "deduplicate_first", "deduplicate-1", first_by_hand, |keyed| {
        keyed.deduplicate(Keep::First, minutes(2)).sink(Nowhere);
    });
    compare(c, "deduplicate_last", "deduplicate-1", last_by_hand, |keyed| {
        keyed.deduplicate(Keep::Last, minutes(2)).sink(Nowhere);
    });
    compare(c, "top_of_windows", "window-1", top_of_windows_by_hand, |keyed| {
        keyed.window(Windows::tumbling(minutes(60))).top_n(TOP, |n| score(*n)).sink(Nowhere);
    });
    compare(c, "top_of_tables", "table-1", top_of_tables_by_hand, |keyed| {
        let groups = keyed.to_table().group_by(|_, n| key_of(*n, KEYS) % GROUPS);
        groups.top_n(TOP, |n| score(*n)).changes().sink(Nowhere);
    });
}

criterion_group!(benches, keyed);
criterion_main!(benches);
