//! Keyed state through the engine: hot, and spilled; a checkpoint and a restore beside the files alone.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rivermark::{BoxError, Context, Engine, Flow, Options, ProcessFunction, Restart, StateBackend, Value};
use rivermark_benches::keeping;
use rivermark_benches::measure::{options, time_to, wait_for};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 1_000_000;
const KEYS: u64 = 200_000;
const COUNT: Value<u64> = Value::new("count");

#[derive(Clone)]
struct Counting;

impl ProcessFunction<u64, u64> for Counting {
    type Out = ();

    fn on_record(&mut self, _key: &u64, _record: u64, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        cx.state(COUNT).update(|| 0, |count| *count += 1)
    }
}

fn count(options: Options, records: u64) -> Duration {
    let flow = Flow::new("count");
    flow.source(Numbers { events: records, partitions: 1 })
        .key_by(|n| key_of(*n, KEYS))
        .process(Counting)
        .sink(Nowhere);
    time_to(options, flow, "process-1", records)
}

fn hot_and_spilled(c: &mut Criterion) {
    let mut group = c.benchmark_group("state");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(RECORDS));
    group.bench_function("speed_of_light", |b| {
        b.iter(|| {
            let mut counts: hashbrown::HashMap<u64, u64> = hashbrown::HashMap::new();
            for n in 0..RECORDS {
                *counts.entry(key_of(n, KEYS)).or_insert(0) += 1;
            }
            black_box(counts)
        });
    });
    for backend in [StateBackend::Memory, StateBackend::RocksDb] {
        group.bench_function(format!("hot/{backend:?}"), |b| {
            b.iter_custom(|times| (0..times).map(|_| count(options(1, backend), RECORDS)).sum());
        });
    }
    // About 8 MB of entries with a tenth of that to stay in.
    const FEWER: u64 = 200_000;
    group.throughput(Throughput::Elements(FEWER));
    group.bench_function("spilled/RocksDb", |b| {
        let options = || options(1, StateBackend::RocksDb).state_budget(800 << 10);
        b.iter_custom(|times| (0..times).map(|_| count(options(), FEWER)).sum());
    });
    group.finish();
}

const KEPT: u64 = 400_000;
const VALUE: usize = 100;

fn all_files(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all_files(&path, visit) } else { visit(&path) }
    }
}

/// A job over 40 MB of state, each checkpoint with nearly all of it changed; and starting it again from there.
fn checkpoint_and_restore(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let start = |engine: &Engine| engine.start(keeping::flow(1 << 40, KEPT, VALUE, 2)).unwrap();
    let engine = Engine::open_with(
        directory.path(),
        Options::new().workers(2).restart(Restart::Never).checkpoint_every(None),
    )
    .unwrap();
    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    let bytes = KEPT * VALUE as u64;
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("speed_of_light", |b| {
        let data = vec![7; 1 << 20];
        let path = directory.path().join("raw");
        b.iter(|| {
            let mut file = std::fs::File::create(&path).unwrap();
            for _ in 0..bytes >> 20 {
                file.write_all(&data).unwrap();
            }
            file.sync_all().unwrap();
        });
        std::fs::remove_file(&path).unwrap();
    });
    group.bench_function("engine", |b| {
        let job = start(&engine);
        let mut records = 0;
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                // Five rounds over all keys: what has not been touched since the last checkpoint is less than a hundredth.
                records = job.metrics().operator(keeping::OPERATOR).map_or(0, |o| o.records_in) + 5 * KEPT;
                wait_for(&job, keeping::OPERATOR, records);
                let started = Instant::now();
                job.checkpoint().unwrap();
                took += started.elapsed();
            }
            took
        });
        black_box(records);
        job.stop();
        job.wait().unwrap();
    });
    group.finish();

    let mut group = c.benchmark_group("restore");
    group.sample_size(10).measurement_time(Duration::from_secs(10)).throughput(Throughput::Bytes(bytes));
    group.bench_function("speed_of_light", |b| {
        let mut buffer = Vec::new();
        b.iter(|| {
            all_files(&directory.path().join("checkpoints"), &mut |path| {
                buffer.clear();
                std::fs::File::open(path).unwrap().read_to_end(&mut buffer).unwrap();
                black_box(&buffer);
            });
        });
    });
    group.bench_function("engine", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let started = Instant::now();
                let job = start(&engine);
                wait_for(&job, keeping::OPERATOR, 1);
                took += started.elapsed();
                job.stop();
                job.wait().unwrap();
            }
            took
        });
    });
    group.finish();
}

criterion_group!(benches, hot_and_spilled, checkpoint_and_restore);
criterion_main!(benches);
