//! Counts 10 million records over a million keys, and sets the engine beside one bare hash map.
//!
//! `keyed_count [--events N] [--keys K] [--workers W] [--runs R]` prints a table: records a second of the bare loop (one core), of the engine
//! with checkpoints off, and with a checkpoint each second, with the ratios that matter. All in one process, run after run in
//! turn, medians: the machine's mood hits all alike.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::sink::{CommitError, Committer, Sink, SinkContext, SinkWriter};
use rivermark::source::{ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker};
use rivermark::{
    BoxError, Context, Engine, Flow, Options, ProcessFunction, Restart, StateBackend, Timestamp, Value, secs,
};
use rivermark_benches::{arguments, median};
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A cheap generator of well-spread keys (splitmix64).
#[inline]
fn key_of(n: u64, keys: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % keys
}

struct Keys {
    events: u64,
    keys: u64,
    partitions: u32,
}

struct KeysReader {
    at: u64,
    end: u64,
    keys: u64,
}

impl Source for Keys {
    type Item = u64;
    type Reader = KeysReader;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Ok((0..self.partitions)
            .map(|number| SourcePartition { number, name: format!("keys[{number}]") })
            .collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<KeysReader, BoxError> {
        let share = self.events / u64::from(self.partitions);
        let start = u64::from(partition) * share;
        let at = position.map_or(Ok(start), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        Ok(KeysReader { at, end: start + share, keys: self.keys })
    }
}

impl SourceReader<u64> for KeysReader {
    fn poll(&mut self, max: usize, records: &mut Records<'_, u64>) -> Result<Polled, BoxError> {
        let end = self.end.min(self.at + max as u64);
        for n in self.at..end {
            records.push(n, Timestamp::MIN, key_of(n, self.keys));
        }
        self.at = end;
        Ok(if end == self.end { Polled::Ended } else { Polled::Ready })
    }

    fn position(&self) -> Vec<u8> {
        self.at.to_le_bytes().to_vec()
    }
}

const COUNT: Value<u64> = Value::new("count");

#[derive(Clone)]
struct Counting;

impl ProcessFunction<u64, u64> for Counting {
    type Out = ();

    fn on_record(&mut self, _key: &u64, _record: u64, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        cx.state(COUNT).update(|| 0, |count| *count += 1)
    }
}

/// Takes nothing, for a flow whose result is its state.
struct Nowhere;
struct NowhereWriter;
struct NowhereCommitter;

impl Sink<()> for Nowhere {
    type Writer = NowhereWriter;

    fn writer(&self, _cx: &SinkContext<'_>) -> Result<NowhereWriter, BoxError> {
        Ok(NowhereWriter)
    }

    fn committer(&self, _cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        Ok(Box::new(NowhereCommitter))
    }
}

impl SinkWriter<()> for NowhereWriter {
    fn write(&mut self, batch: &mut rivermark::sink::Batch<()>) -> Result<(), BoxError> {
        batch.clear();
        Ok(())
    }

    fn prepare(&mut self, _epoch: rivermark::sink::Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(None)
    }
}

impl Committer for NowhereCommitter {
    fn recover(&mut self, _tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        Ok(())
    }

    fn commit(&mut self, _epoch: rivermark::sink::Epoch, _tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        Ok(())
    }

    fn abort(&mut self, _epoch: rivermark::sink::Epoch, _tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        Ok(())
    }
}

/// The same loop by hand: one core, one hash map.
fn bare(events: u64, keys: u64) -> f64 {
    let started = Instant::now();
    let mut counts: hashbrown::HashMap<u64, u64> = hashbrown::HashMap::new();
    for n in 0..events {
        *counts.entry(black_box(key_of(n, keys))).or_insert(0) += 1;
    }
    black_box(&counts);
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
    let options = Options::new()
        .workers(workers)
        .state_backend(backend)
        .state_budget(4 << 30)
        .restart(Restart::Never)
        .checkpoint_every(checkpoints.then_some(secs(1)));
    let engine = Engine::open_with(directory.path(), options).expect("an engine");
    let flow = Flow::new("count");
    flow.source(Keys { events, keys, partitions: workers as u32 })
        .key_by(|key| *key)
        .process(Counting)
        .sink(Nowhere);
    let started = Instant::now();
    let job = engine.start(flow).expect("a job");
    // The last checkpoint of all state, at the end of the stream, is not what is measured.
    assert!(
        job.wait_until(|job| job.metrics().operator("process-1").is_some_and(|o| o.records_in >= events))
    );
    let rate = events as f64 / started.elapsed().as_secs_f64();
    let metrics = job.wait().expect("the job's end");
    let slowest = metrics.checkpoints.iter().map(|c| c.duration.as_millis() as u64).max().unwrap_or(0);
    (rate, metrics.checkpoints_completed - 1, slowest)
}

fn main() {
    let number =
        |name: &str, default: u64| arguments(name).map_or(default, |value| value.parse().expect("a number"));
    let (events, keys) = (number("--events", 10_000_000), number("--keys", 1_000_000));
    let (workers, runs) = (number("--workers", 2) as usize, number("--runs", 5) as usize);
    let backend = match arguments("--state").as_deref() {
        Some("memory") => StateBackend::Memory,
        _ => StateBackend::RocksDb,
    };
    let (mut floor, mut off, mut on) = (Vec::new(), Vec::new(), Vec::new());
    let (mut taken, mut slowest) = (0, 0);
    for _ in 0..runs {
        floor.push(bare(events, keys));
        off.push(engine(events, keys, workers, backend, false).0);
        let (rate, checkpoints, longest) = engine(events, keys, workers, backend, true);
        on.push(rate);
        taken += checkpoints;
        slowest = slowest.max(longest);
    }
    let (floor, off, on) = (median(&mut floor), median(&mut off), median(&mut on));
    let million = |rate: f64| rate / 1e6;
    println!("{events} records, {keys} keys, {workers} workers, {backend:?}, medians of {runs}");
    println!("  one bare hash map, one core        {:7.2} M/s", million(floor));
    println!(
        "  engine, checkpoints off            {:7.2} M/s  {:5.2}x the bare map a core",
        million(off),
        off / workers as f64 / floor
    );
    println!(
        "  engine, a checkpoint each second   {:7.2} M/s  {:5.1} % slower than off",
        million(on),
        (1.0 - on / off) * 100.0
    );
    println!("  checkpoints taken {taken}, the longest {slowest} ms");
}
