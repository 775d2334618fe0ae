//! Counts 10 million records over a million keys, and sets the engine beside one bare hash map a core.
//!
//! `keyed_count [--events N] [--keys K] [--workers W] [--runs R]` prints a table: records a second of bare loops (one a core), of the engine
//! with checkpoints off, and with a checkpoint each second, with the ratios that matter. All in one process, run after run in
//! turn, medians: the machine's mood hits all alike.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::{Engine, Flow, StateBackend, secs};
use rivermark_benches::counting::{self, Counting};
use rivermark_benches::measure::{options, wait_for};
use rivermark_benches::synthetic::{Keys, Nowhere, key_of};
use rivermark_benches::{arguments, median, number};
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The same loop by hand, on as many cores as the engine has: each counts its share of the records in a hash map of its share of the
/// keys, as if an exchange cost nothing. Answers records a second, all together.
fn bare(events: u64, keys: u64, cores: usize) -> f64 {
    let started = Instant::now();
    let (events_each, keys_each) = (events / cores as u64, keys / cores as u64);
    std::thread::scope(|scope| {
        for core in 0..cores as u64 {
            scope.spawn(move || {
                let mut counts: hashbrown::HashMap<u64, u64> = hashbrown::HashMap::new();
                for n in core * events_each..(core + 1) * events_each {
                    *counts.entry(black_box(key_of(n, keys_each))).or_insert(0) += 1;
                }
                black_box(&counts);
            });
        }
    });
    events as f64 / started.elapsed().as_secs_f64()
}

fn engine(
    events: u64,
    keys: u64,
    workers: usize,
    backend: StateBackend,
    checkpoints: bool,
) -> (f64, u64, u64) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options =
        options(workers, backend).state_budget(4 << 30).checkpoint_every(checkpoints.then_some(secs(1)));
    let engine = Engine::open_with(directory.path(), options).expect("an engine");
    let flow = Flow::new("count");
    flow.source(Keys { events, keys, partitions: workers as u32 })
        .key_by(|key| *key)
        .process(Counting)
        .sink(Nowhere);
    let started = Instant::now();
    let job = engine.start(flow).expect("a job");
    // The last checkpoint of all state, at the end of the stream, is not what is measured.
    wait_for(&job, counting::OPERATOR, events);
    let rate = events as f64 / started.elapsed().as_secs_f64();
    let metrics = job.wait().expect("the job's end");
    let slowest = metrics.checkpoints.iter().map(|c| c.duration.as_millis() as u64).max().unwrap_or(0);
    (rate, metrics.checkpoints_completed - 1, slowest)
}

fn main() {
    let (events, keys) = (number("--events", 10_000_000), number("--keys", 1_000_000));
    let (workers, runs) = (number("--workers", 2) as usize, number("--runs", 5) as usize);
    let backend = match arguments("--state").as_deref() {
        Some("memory") => StateBackend::Memory,
        _ => StateBackend::RocksDb,
    };
    let (mut floor, mut off, mut on) = (Vec::new(), Vec::new(), Vec::new());
    let (mut taken, mut slowest) = (0, 0);
    for _ in 0..runs {
        floor.push(bare(events, keys, workers));
        off.push(engine(events, keys, workers, backend, false).0);
        let (rate, checkpoints, longest) = engine(events, keys, workers, backend, true);
        on.push(rate);
        taken += checkpoints;
        slowest = slowest.max(longest);
    }
    let (floor, off, on) = (median(&mut floor), median(&mut off), median(&mut on));
    let million = |rate: f64| rate / 1e6;
    println!("{events} records, {keys} keys, {workers} workers, {backend:?}, medians of {runs}");
    println!("  a bare hash map a core             {:7.2} M/s", million(floor));
    println!(
        "  engine, checkpoints off            {:7.2} M/s  {:5.2}x the bare maps",
        million(off),
        off / floor
    );
    println!(
        "  engine, a checkpoint each second   {:7.2} M/s  {:5.1} % slower than off",
        million(on),
        (1.0 - on / off) * 100.0
    );
    println!("  checkpoints taken {taken}, the longest {slowest} ms");
}
