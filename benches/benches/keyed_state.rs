//! Keyed state through the engine: hot, and spilled; a checkpoint and a restart beside the same bytes in a file.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rivermark::{CheckpointMetrics, Engine, Flow, Job, Options, StateBackend};
use rivermark_benches::counting::{self, Counting};
use rivermark_benches::keeping;
use rivermark_benches::measure::{Running, options, records_in, wait_for};
use rivermark_benches::synthetic::{Held, Nowhere, Numbers, key_of};
use std::cell::LazyCell;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A count of each of `keys` keys, by one worker, once most of them have come.
fn counting(options: Options, keys: u64) -> Running {
    let flow = Flow::new("count");
    flow.source(Numbers { events: u64::MAX, partitions: 1 })
        .key_by(move |n| key_of(*n, keys))
        .process(Counting)
        .sink(Nowhere);
    Running::start(options, flow, counting::OPERATOR, 2 * keys)
}

fn count_by_hand(counts: &mut hashbrown::HashMap<u64, u64>, records: u64, keys: u64) {
    for n in 0..records {
        *counts.entry(key_of(n, keys)).or_insert(0) += 1;
    }
}

fn count(c: &mut Criterion, name: &str, records: u64, keys: u64, jobs: &[(&str, Options)]) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(records));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    group.bench_function("speed_of_light", |b| {
        let mut counts = hashbrown::HashMap::new();
        count_by_hand(&mut counts, 2 * keys, keys);
        b.iter(|| count_by_hand(&mut counts, records, keys));
        black_box(counts);
    });
    for (name, options) in jobs {
        let job = LazyCell::new(|| counting(options.clone(), keys));
        group.bench_function(*name, |b| {
            // Filled here, so that criterion does not plan with the time that this takes.
            let job = &*job;
            b.iter_custom(|times| job.time_of(times * records));
        });
    }
    group.finish();
}

fn hot(c: &mut Criterion) {
    let jobs = [("memory", options(1, StateBackend::Memory)), ("rocksdb", options(1, StateBackend::RocksDb))];
    count(c, "hot", 1_000_000, 200_000, &jobs);
}

/// A tenth of the state has room in memory: half a million counts take about 25 MB there, and the budget has 2.5 beside the 8 of RocksDB's
/// cache, which are its least and count too.
fn spilled(c: &mut Criterion) {
    let options = options(1, StateBackend::RocksDb).state_budget((8 << 20) + (5 << 19));
    count(c, "spilled", 20_000, 500_000, &[("rocksdb", options)]);
}

const KEYS: u64 = 400_000;
const VALUE: usize = 100;
const WORKERS: u32 = 2;
const STATE: u64 = KEYS * VALUE as u64;

/// A flow with 40 MB of state, whose job moves as far as it is let.
struct Kept {
    engine: Engine,
    allowed: Arc<AtomicU64>,
    directory: TempDir,
}

impl Kept {
    fn new() -> Kept {
        let directory = tempfile::tempdir().unwrap();
        let options = options(WORKERS as usize, StateBackend::RocksDb);
        Kept {
            engine: Engine::open_with(directory.path(), options).unwrap(),
            allowed: Arc::default(),
            directory,
        }
    }

    fn start(&self) -> Job {
        let source = Held { keys: KEYS, partitions: WORKERS, allowed: Arc::clone(&self.allowed) };
        self.engine.start(keeping::flow_over(source, VALUE)).unwrap()
    }

    /// Lets so many more records of each partition through.
    fn allow(&self, records: u64) {
        self.allowed.fetch_add(records, Ordering::Relaxed);
    }

    /// A job that has come to every key once.
    fn filled(&self) -> Job {
        let job = self.start();
        self.allow(KEYS / u64::from(WORKERS));
        wait_for(&job, keeping::OPERATOR, KEYS);
        job
    }

    /// A file beside the checkpoints.
    fn raw(&self) -> PathBuf {
        self.directory.path().join("raw")
    }
}

fn last_checkpoint(job: &Job) -> CheckpointMetrics {
    job.metrics().checkpoints.pop().unwrap()
}

fn write_raw(path: &Path, data: &[u8]) {
    let mut file = std::fs::File::create(path).unwrap();
    data.chunks(1 << 20).for_each(|piece| file.write_all(piece).unwrap());
    file.sync_all().unwrap();
}

/// Checkpoints that each have all 40 MB to upload: of a job that stands still, and of one that reads on as fast as it can.
fn checkpoint(c: &mut Criterion) {
    let kept = Kept::new();
    let job = LazyCell::new(|| {
        let job = kept.filled();
        job.checkpoint().unwrap();
        job
    });
    let timed = |job: &Job| {
        let started = Instant::now();
        job.checkpoint().unwrap();
        let took = started.elapsed();
        assert!(last_checkpoint(job).uploaded_bytes >= STATE);
        took
    };
    let mut group = c.benchmark_group("checkpoint");
    group.sample_size(10).throughput(Throughput::Bytes(STATE));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    group.bench_function("speed_of_light", |b| {
        let data = vec![7; last_checkpoint(&job).uploaded_bytes as usize];
        b.iter(|| write_raw(&kept.raw(), &data));
    });
    group.bench_function("engine/still", |b| {
        let once = |_| {
            let before = records_in(&job, keeping::OPERATOR);
            kept.allow(KEYS / u64::from(WORKERS));
            wait_for(&job, keeping::OPERATOR, before + KEYS);
            timed(&job)
        };
        b.iter_custom(|times| (0..times).map(once).sum());
    });
    group.bench_function("engine/reading", |b| {
        kept.allowed.store(u64::MAX, Ordering::Relaxed);
        let once = |_| {
            // Partitions go at about the same pace, so that in three rounds all have come to all of their keys.
            wait_for(&job, keeping::OPERATOR, records_in(&job, keeping::OPERATOR) + 3 * KEYS);
            timed(&job)
        };
        b.iter_custom(|times| (0..times).map(once).sum());
    });
    group.finish();
}

/// From the start of a job until a record has gone through state that a checkpoint has brought back.
fn restore(c: &mut Criterion) {
    let kept = LazyCell::new(|| {
        let kept = Kept::new();
        let job = kept.filled();
        job.stop();
        let bytes = job.wait().unwrap().checkpoints.pop().unwrap().state_bytes;
        write_raw(&kept.raw(), &vec![7; bytes as usize]);
        kept
    });
    let mut group = c.benchmark_group("restore");
    group.sample_size(10).throughput(Throughput::Bytes(STATE));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    group.bench_function("speed_of_light", |b| {
        let mut buffer = Vec::new();
        b.iter(|| {
            buffer.clear();
            std::fs::File::open(kept.raw()).unwrap().read_to_end(&mut buffer).unwrap()
        });
    });
    group.bench_function("engine", |b| {
        let once = |_| {
            // One record a partition: what a restart has to read stays the same.
            kept.allow(1);
            let started = Instant::now();
            let job = kept.start();
            wait_for(&job, keeping::OPERATOR, 1);
            let took = started.elapsed();
            job.stop();
            job.wait().unwrap();
            took
        };
        b.iter_custom(|times| (0..times).map(once).sum());
    });
    group.finish();
}

criterion_group!(benches, hot, spilled, checkpoint, restore);
criterion_main!(benches);
