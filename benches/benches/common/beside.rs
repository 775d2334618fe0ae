//! An operator beside a loop by hand that takes the same records, in the order of their times, and gives the same answer.

use criterion::{Criterion, Throughput};
use rivermark::connectors::Collect;
use rivermark::{Engine, Flow, StateBackend, Stream, Timestamp, Watermarks, secs};
use rivermark_benches::measure::{Running, options};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of, time_of};
use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Duration;

/// Records of an iteration.
pub const RECORDS: u64 = 200_000;
/// How many keys there are; each has a record a minute.
pub const KEYS: u64 = 1000;
/// A minute in milliseconds.
pub const MINUTE: i64 = 60_000;

/// The key of a record.
pub fn key(n: &u64) -> u64 {
    key_of(*n, KEYS)
}

/// What came out: how many rows, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Digest {
    rows: u64,
    sum: u64,
}

impl Digest {
    /// Takes a row.
    #[inline]
    pub fn add(&mut self, row: u64) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(row);
    }
}

/// The records by moment, with the moment's time: ten have the same.
pub fn moments() -> impl Iterator<Item = (i64, std::ops::Range<u64>)> {
    (0..RECORDS).step_by(10).map(|n| (time_of(n), n..n + 10))
}

/// A flow of `events` numbers and what `operator` makes of them.
fn flow(events: u64, operator: impl FnOnce(Stream<u64>) -> Stream<u64>) -> (Flow, Stream<u64>) {
    let flow = Flow::new("bench");
    let numbers = flow.source(Numbers { events, partitions: 1 });
    let timed = numbers.event_time(|n| Timestamp::from_millis(time_of(*n)), Watermarks::monotonous());
    let rows = operator(timed.named("numbers"));
    (flow, rows)
}

/// Checks that both give the same of the first records, and measures the loop, and the operator on one worker in its steady state.
pub fn compare(
    c: &mut Criterion,
    name: &str,
    by_hand: fn() -> Digest,
    operator: fn(Stream<u64>) -> Stream<u64>,
) {
    let (bounded, rows) = flow(RECORDS, operator);
    let collected = Collect::new();
    rows.sink(collected.clone());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = Engine::open_with(directory.path(), options(1, StateBackend::Memory)).expect("an engine");
    engine.run(bounded).expect("a job that ends");
    let mut digest = Digest::default();
    collected.rows().into_iter().for_each(|row| digest.add(row));
    assert_eq!(digest, by_hand(), "{name}: the loop gives another answer");
    assert!(digest.rows > 0, "{name}: there is nothing to compare");

    let mut group = c.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.bench_function("speed_of_light", |b| b.iter(|| black_box(by_hand())));
    let job = LazyCell::new(|| {
        let (endless, rows) = flow(u64::MAX, operator);
        rows.sink(Nowhere);
        let options = options(1, StateBackend::Memory).checkpoint_every(secs(1));
        Running::start(options, endless, "numbers", RECORDS)
    });
    group.bench_function("engine", |b| {
        let job = &*job;
        b.iter_custom(|times| job.time_of(times * RECORDS));
    });
    group.finish();
}
