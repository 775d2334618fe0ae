//! What a replay costs the live version beside which it runs, and what the live version costs the replay.
//!
//! `replay [--records N] [--keys K] [--rate R] [--seconds S] [--runs N] [--interval MS] [--workers W] [--full-priority] [--json]` does, in
//! turn:
//!
//! 1. *Alone*: N records (default 60,000,000 of some 30 bytes) lie in a log. A flow that keeps a count for each of K keys (default 1,000,000) reads them,
//!    cold, with nothing beside it.
//! 2. *Live*: the same flow on the same log, caught up, is fed R records a second (default 20,000) for S seconds (default 10), as an open loop: a record
//!    is due at its time, whatever becomes of those before it, and its latency counts from then.
//! 3. *Beside*: as 2, while version 2 is deployed, with the default [`Replay`], and reads the log from offset zero.
//!
//! Latencies are taken twice: when the record's row comes to the sink, and when it can be read in the flow's output, which exactly-once binds to
//! the checkpoint; `--interval` is the time between two of them (default 1000 ms, as that of an engine). `--full-priority` replays with
//! `Replay::at_full_priority`. Producer, reader and jobs share the machine's cores.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use hdrhistogram::Histogram;
use rivermark::connectors::format::Bincode;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Position, RecordBatch, Topic, TopicOptions};
use rivermark::{
    BoxError, Context, Deployment, Engine, Flow, Options, ProcessFunction, Replay, Value, millis,
};
use rivermark_benches::synthetic::key_of;
use rivermark_benches::{median, number};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{park_timeout, scope, sleep};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FLOW: &str = "counts";
const TOPIC: &str = "records";
const OUTPUT: &str = "rows";
const PARTITIONS: u32 = 4;
/// One record in so many of the history has a row; every live one has.
const ROWS: u64 = 16;
/// Records of a batch of the history.
const BATCH: u64 = 10_000;

const COUNT: Value<u64> = Value::new("count");

/// Key, and when it was due: microseconds since the program began; 0 in the history.
type Record = (u64, u64);
type Micros = Arc<Mutex<Histogram<u64>>>;

#[derive(Clone)]
struct Counting;

impl ProcessFunction<u64, Record> for Counting {
    type Out = Record;

    fn on_record(
        &mut self,
        key: &u64,
        record: Record,
        cx: &mut Context<'_, u64, Record>,
    ) -> Result<(), BoxError> {
        cx.state(COUNT).update(|| 0, |count| *count += 1)?;
        if record.1 > 0 || key.is_multiple_of(ROWS) {
            cx.emit(record);
        }
        Ok(())
    }
}

/// The program's clock, and what live records took.
#[derive(Clone)]
struct Clock {
    began: Instant,
    at_sink: Micros,
    /// Records that were due before are not counted.
    from: Arc<std::sync::atomic::AtomicU64>,
}

impl Clock {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn note(&self, into: &Micros, due: u64) {
        if due > 0 && due >= self.from.load(Ordering::Relaxed) {
            into.lock().expect("no panic").saturating_record(self.now().saturating_sub(due).max(1));
        }
    }
}

fn flow(version: u64, clock: &Clock) -> Flow {
    let (flow, clock) = (Flow::new(FLOW).version(version), clock.clone());
    let note = move |record: &Record| {
        if version == 1 {
            clock.note(&clock.at_sink, record.1);
        }
    };
    flow.source(LogSource::<Record>::topic(TOPIC).format(Bincode))
        .key_by(|record: &Record| record.0)
        .process(Counting)
        .inspect(note)
        .sink(LogSink::output(OUTPUT).format(Bincode).partitions(1));
    flow
}

/// What a run is to be like.
#[derive(Clone, Serialize)]
struct Setup {
    records: u64,
    keys: u64,
    rate: u64,
    seconds: u64,
    interval_ms: u64,
    workers: usize,
    full_priority: bool,
}

/// Milliseconds that half, 99 of 100 and 999 of 1,000 took at the most.
#[derive(Clone, Serialize)]
struct Percentiles {
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
}

impl Percentiles {
    fn of(micros: &Micros) -> Percentiles {
        let micros = micros.lock().expect("no panic");
        let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999) }
    }
}

/// One run.
#[derive(Clone, Serialize)]
struct Measured {
    alone_per_second: f64,
    beside_per_second: f64,
    at_sink: [Percentiles; 2],
    readable: [Percentiles; 2],
}

fn engine(directory: &Path, setup: &Setup) -> Engine {
    let options = Options::new().workers(setup.workers).checkpoint_every(millis(setup.interval_ms));
    Engine::open_with(directory, options).expect("an engine")
}

fn append_history(engine: &Engine, setup: &Setup) -> Topic {
    let topic = engine.log().create_topic(TOPIC, TopicOptions::new(PARTITIONS)).expect("a topic");
    for first in (0..setup.records).step_by(BATCH as usize) {
        let mut batch = RecordBatch::new();
        for n in first..(first + BATCH).min(setup.records) {
            push(&mut batch, (key_of(n, setup.keys), 0));
        }
        topic.append((first / BATCH % u64::from(PARTITIONS)) as u32, &mut batch).expect("appended");
    }
    topic
}

fn push(batch: &mut RecordBatch, record: Record) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&record.0.to_le_bytes());
    bytes[8..].copy_from_slice(&record.1.to_le_bytes());
    batch.push(None, Some(&bytes), 0);
}

/// Records a second until the version has read the history.
fn speed(deployed: &Deployment, began: Instant, setup: &Setup) -> f64 {
    while deployed.metrics().is_none_or(|metrics| metrics.records_read < setup.records) {
        assert!(deployed.status().is_none_or(|status| !status.is_over()), "{:?}", deployed.status());
        sleep(millis(1));
    }
    setup.records as f64 / began.elapsed().as_secs_f64()
}

/// Feeds records as they are due until it is over.
fn feed(topic: &Topic, clock: &Clock, setup: &Setup, is_over: &AtomicBool) {
    let (begins, mut sent) = (clock.now() + 1, 0_u64);
    while !is_over.load(Ordering::Relaxed) {
        let due = (clock.now().saturating_sub(begins)) * setup.rate / 1_000_000;
        for partition in 0..PARTITIONS {
            let mut batch = RecordBatch::new();
            let own = (sent..due).filter(|n| n % u64::from(PARTITIONS) == u64::from(partition));
            own.for_each(|n| push(&mut batch, (key_of(n, setup.keys), begins + n * 1_000_000 / setup.rate)));
            if !batch.is_empty() {
                topic.append(partition, &mut batch).expect("appended");
            }
        }
        sent = due;
        park_timeout(millis(1));
    }
}

/// Reads the output as rows become readable, and takes the time of each.
fn read(engine: &Engine, clock: &Clock, readable: &Micros, is_over: &AtomicBool) {
    // The history's rows come first.
    let mut reader = engine.outputs().reader(engine.log(), OUTPUT, 0, Position::Earliest).expect("a reader");
    while !is_over.load(Ordering::Relaxed) {
        match reader.next_batch().expect("rows") {
            Some(batch) => {
                for row in batch {
                    let value = row.value.expect("a row");
                    let due = value[8..].try_into().map_or(0, u64::from_le_bytes);
                    clock.note(readable, due);
                }
            }
            None => park_timeout(Duration::from_micros(500)),
        }
    }
}

/// Of up to a minute, three digits exact.
fn histogram() -> Micros {
    Arc::new(Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds")))
}

fn measure(setup: &Setup) -> Measured {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock { began: Instant::now(), at_sink: histogram(), from: Arc::default() };
    let engine = engine(directory.path(), setup);
    let topic = append_history(&engine, setup);
    engine.log().sync().expect("synced");
    let began = Instant::now();
    let live = engine.deploy(flow(1, &clock), Replay::from_earliest()).expect("deployed");
    let alone = speed(&live, began, setup);
    let (readable, is_over) = (histogram(), AtomicBool::new(false));
    let (mut at_sink, mut readables) = (Vec::new(), Vec::new());
    let mut beside = 0.0;
    scope(|scope| {
        scope.spawn(|| feed(&topic, &clock, setup, &is_over));
        scope.spawn(|| read(&engine, &clock, &readable, &is_over));
        let mut phase = |act: &mut dyn FnMut()| {
            clock.from.store(clock.now(), Ordering::Relaxed);
            clock.at_sink.lock().expect("no panic").reset();
            readable.lock().expect("no panic").reset();
            act();
            at_sink.push(Percentiles::of(&clock.at_sink));
            readables.push(Percentiles::of(&readable));
        };
        // What the start has left is over by then.
        sleep(Duration::from_secs(2));
        phase(&mut || sleep(Duration::from_secs(setup.seconds)));
        phase(&mut || {
            let began = Instant::now();
            let how = Replay::from_earliest();
            let how = if setup.full_priority { how.at_full_priority() } else { how };
            let replay = engine.deploy(flow(2, &clock), how).expect("deployed");
            beside = speed(&replay, began, setup);
        });
        is_over.store(true, Ordering::Relaxed);
    });
    let two = |percentiles: Vec<Percentiles>| percentiles.try_into().ok().expect("two phases");
    Measured {
        alone_per_second: alone,
        beside_per_second: beside,
        at_sink: two(at_sink),
        readable: two(readables),
    }
}

/// A replay that nobody measures.
fn warm_up(setup: &Setup) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock { began: Instant::now(), at_sink: histogram(), from: Arc::default() };
    let engine = engine(directory.path(), setup);
    append_history(&engine, setup);
    let deployed = engine.deploy(flow(1, &clock), Replay::from_earliest()).expect("deployed");
    speed(&deployed, Instant::now(), setup);
}

/// The medians of the runs.
fn medians(runs: &[Measured]) -> Measured {
    let of = |value: &dyn Fn(&Measured) -> f64| median(&mut runs.iter().map(value).collect::<Vec<_>>());
    let percentiles = |which: &dyn Fn(&Measured) -> Percentiles| Percentiles {
        p50_ms: of(&|run| which(run).p50_ms),
        p99_ms: of(&|run| which(run).p99_ms),
        p999_ms: of(&|run| which(run).p999_ms),
    };
    let both = |which: &dyn Fn(&Measured) -> [Percentiles; 2]| {
        [0, 1].map(|phase: usize| percentiles(&|run| which(run)[phase].clone()))
    };
    Measured {
        alone_per_second: of(&|run| run.alone_per_second),
        beside_per_second: of(&|run| run.beside_per_second),
        at_sink: both(&|run| run.at_sink.clone()),
        readable: both(&|run| run.readable.clone()),
    }
}

fn print(setup: &Setup, measured: &Measured) {
    let Setup { records, keys, rate, interval_ms, workers, .. } = setup;
    println!(
        "{records} records over {keys} keys, {workers} workers, live {rate}/s, a checkpoint each {interval_ms} ms"
    );
    let (alone, beside) = (measured.alone_per_second / 1e6, measured.beside_per_second / 1e6);
    println!("  replay alone    {alone:6.2} M/s");
    println!("  replay beside   {beside:6.2} M/s  {:.2} of it", beside / alone);
    println!("  live latency, ms              p50       p99     p99.9");
    for (what, [without, with]) in [("at the sink", &measured.at_sink), ("readable", &measured.readable)] {
        for (when, p) in [("without", without), ("beside", with)] {
            println!("  {what:12} {when:9} {:9.2} {:9.2} {:9.2}", p.p50_ms, p.p99_ms, p.p999_ms);
        }
        let times = |of: fn(&Percentiles) -> f64| of(with) / of(without);
        let (p50, p99, p999) = (times(|p| p.p50_ms), times(|p| p.p99_ms), times(|p| p.p999_ms));
        println!("  {what:12} times     {p50:9.2} {p99:9.2} {p999:9.2}");
    }
}

fn is_said(flag: &str) -> bool {
    std::env::args().any(|argument| argument == flag)
}

fn main() {
    let setup = Setup {
        records: number("--records", 60_000_000),
        keys: number("--keys", 1_000_000),
        rate: number("--rate", 20_000),
        seconds: number("--seconds", 10),
        interval_ms: number("--interval", 1000),
        workers: number("--workers", 2) as usize,
        full_priority: is_said("--full-priority"),
    };
    // The first job of a process has memory to get and code to load that no other has.
    warm_up(&setup);
    let runs: Vec<Measured> = (0..number("--runs", 3)).map(|_| measure(&setup)).collect();
    let measured = medians(&runs);
    match is_said("--json") {
        true => println!("{}", serde_json::json!({ "setup": setup, "medians": measured, "runs": runs })),
        false => print(&setup, &measured),
    }
}
