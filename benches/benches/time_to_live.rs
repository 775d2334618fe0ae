//! State with a time to live on one worker: a count a key, and one in a map of each key, beside the same without expiry and beside loops over
//! hash maps that keep deadlines.
//!
//! A record comes every 60 ms, of one of 200,000 keys or of 2,000 with a map of 100 each: so a count is changed every three hours and twenty
//! minutes on average, and with a time to live of four hours three in ten are gone when they are to be changed.
#![allow(missing_docs, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use rivermark::{
    BoxError, Context, Expiring, Flow, Map, ProcessFunction, StateBackend, Timestamp, Ttl, Value, Watermarks,
    hours, secs,
};
use rivermark_benches::measure::{Running, options};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of, time_of};
use std::cell::LazyCell;
use std::hash::Hash;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 200_000;
const COUNTS: u64 = 200_000;
/// How many counts a key's map has.
const EACH: u64 = 100;
const LIVES_MS: i64 = 4 * 3_600_000;

const PLAIN: Value<u64> = Value::new("plain");
const WRITTEN: Expiring<Value<u64>> = Value::new("written").expiring(Ttl::after_write(hours(4)));
const READ: Expiring<Value<u64>> = Value::new("read").expiring(Ttl::after_access(hours(4)));
const PLAIN_MAP: Map<u64, u64> = Map::new("plain-map");
const WRITTEN_MAP: Expiring<Map<u64, u64>> = Map::new("written-map").expiring(Ttl::after_write(hours(4)));

/// A function of a function: what it does to the state of the key in hand.
#[derive(Clone)]
struct Doing(fn(u64, &mut Context<'_, u64, ()>) -> Result<(), BoxError>);

impl ProcessFunction<u64, u64> for Doing {
    type Out = ();

    fn on_record(&mut self, _key: &u64, n: u64, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        (self.0)(n, cx)
    }
}

/// Counts by hand: a map with deadlines, gone through once an eighth of the time to live.
struct Counts<K> {
    counts: HashMap<K, (i64, u64)>,
    next: u64,
    cleaned: i64,
}

impl<K: Hash + Eq> Counts<K> {
    fn new() -> Self {
        Counts { counts: HashMap::new(), next: 0, cleaned: 0 }
    }

    fn count(&mut self, records: u64, key: impl Fn(u64) -> K) {
        for n in self.next..self.next + records {
            let now = time_of(n);
            let (deadline, count) = self.counts.entry(key(n)).or_insert((0, 0));
            *count = if now < *deadline { *count + 1 } else { 1 };
            *deadline = now + LIVES_MS;
            if now >= self.cleaned + LIVES_MS / 8 {
                self.cleaned = now;
                self.counts.retain(|_, (deadline, _)| now < *deadline);
            }
        }
        self.next += records;
    }
}

fn job(keys: u64, function: Doing) -> Running {
    let flow = Flow::new("bench");
    flow.source(Numbers { events: u64::MAX, partitions: 1 })
        .event_time(|n| Timestamp::from_millis(time_of(*n)), Watermarks::monotonous())
        .key_by(move |n| key_of(*n, COUNTS) % keys)
        .process(function)
        .sink(Nowhere);
    let options = options(1, StateBackend::Memory).checkpoint_every(secs(1));
    Running::start(options, flow, "process-1", 3 * COUNTS)
}

fn compare<K: Hash + Eq>(
    c: &mut Criterion,
    name: &str,
    keys: u64,
    by_hand: fn(u64) -> K,
    functions: &[(&str, Doing)],
) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    group.bench_function("speed_of_light", |b| {
        let mut counts = Counts::new();
        counts.count(3 * COUNTS, by_hand);
        b.iter(|| counts.count(RECORDS, by_hand));
        black_box(counts.counts);
    });
    for (name, function) in functions {
        let job = LazyCell::new(|| job(keys, function.clone()));
        group.bench_function(*name, |b| {
            // Filled here, so that criterion does not plan with the time that this takes.
            let job = &*job;
            b.iter_custom(|times| job.time_of(times * RECORDS));
        });
    }
    group.finish();
}

fn value(c: &mut Criterion) {
    let plain = Doing(|_, cx| cx.state(PLAIN).update(|| 0, |count| *count += 1));
    let written = Doing(|_, cx| cx.state(WRITTEN).update(|| 0, |count| *count += 1));
    let reads = Doing(|_, cx| {
        if cx.state(PLAIN).get()?.is_none() {
            cx.state(PLAIN).set(1)?;
        }
        Ok(())
    });
    let renews = Doing(|_, cx| {
        if cx.state(READ).get()?.is_none() {
            cx.state(READ).set(1)?;
        }
        Ok(())
    });
    let by_hand = |n| key_of(n, COUNTS);
    let functions =
        [("plain", plain), ("after_write", written), ("plain/reading", reads), ("after_access", renews)];
    compare(c, "value", COUNTS, by_hand, &functions);
}

fn map(c: &mut Criterion) {
    let plain = Doing(|n, cx| {
        let at = key_of(n, COUNTS) / (COUNTS / EACH);
        let count = cx.state(PLAIN_MAP).get(&at)?.unwrap_or(0);
        cx.state(PLAIN_MAP).put(at, count + 1)
    });
    let written = Doing(|n, cx| {
        let at = key_of(n, COUNTS) / (COUNTS / EACH);
        let count = cx.state(WRITTEN_MAP).get(&at)?.unwrap_or(0);
        cx.state(WRITTEN_MAP).put(at, count + 1)
    });
    let by_hand = |n| (key_of(n, COUNTS) % (COUNTS / EACH), key_of(n, COUNTS) / (COUNTS / EACH));
    compare(c, "map", COUNTS / EACH, by_hand, &[("plain", plain), ("after_write", written)]);
}

criterion_group!(benches, value, map);
criterion_main!(benches);
