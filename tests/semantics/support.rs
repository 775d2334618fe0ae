//! Engines to try, and the records to try them with.

use rivermark::connectors::{Collect, FromVec};
use rivermark::log::{Isolation, Log, Position};
use rivermark::source::{ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker};
use rivermark::{
    BoxError, Engine, Flow, Job, Metrics, Options, Restart, StateBackend, Stream, Timestamp, millis,
};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything takes that is not broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// A record: what it is about, when it happened, and something to aggregate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    pub key: u8,
    pub time: i64,
    pub value: i64,
}

pub fn event(key: u8, time: i64, value: i64) -> Event {
    Event { key, time, value }
}

/// An engine in a directory of its own that runs one flow after the other.
pub struct Lab {
    engine: Engine,
    runs: Cell<u32>,
    pub name: String,
    _directory: TempDir,
}

impl Lab {
    pub fn new(workers: usize, backend: StateBackend) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new()
            .workers(workers)
            .state_backend(backend)
            .checkpoint_every(None)
            .restart(Restart::Never);
        let engine = Engine::open_with(directory.path(), options).unwrap();
        Lab {
            engine,
            runs: Cell::new(0),
            name: format!("{workers} workers, {backend:?}"),
            _directory: directory,
        }
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A flow that this engine has not run yet.
    pub fn flow(&self) -> Flow {
        self.runs.set(self.runs.get() + 1);
        Flow::new(format!("flow-{}", self.runs.get()))
    }

    /// Runs what `describe` makes of these partitions, to the end. Answers the rows, those of one key in order.
    pub fn run<T: Clone + Send + Sync + 'static, R: Clone + Send + 'static>(
        &self,
        partitions: &[Vec<T>],
        describe: impl FnOnce(Stream<T>) -> Stream<R>,
    ) -> (Vec<R>, Metrics) {
        let (flow, rows) = (self.flow(), Collect::new());
        describe(flow.source(FromVec::partitions(partitions.to_vec()))).sink(rows.clone());
        let metrics = self.engine.run(flow).unwrap();
        (rows.rows(), metrics)
    }
}

/// One worker and several, memory and more.
pub fn labs() -> Vec<Lab> {
    vec![
        Lab::new(1, StateBackend::Memory),
        Lab::new(2, StateBackend::Memory),
        Lab::new(3, StateBackend::Memory),
        #[cfg(feature = "rocksdb")]
        Lab::new(2, StateBackend::RocksDb),
    ]
}

/// Answers whether the deadline has passed, for conditions that are waited for.
pub fn deadline() -> impl Fn() -> bool {
    let until = Instant::now() + DEADLINE;
    move || Instant::now() > until
}

/// Starts a flow on a data directory of its own, with state in memory and checkpoints as often as can be.
pub fn start_with_checkpoints(directory: &TempDir, workers: usize, flow: Flow) -> (Engine, Job) {
    let options =
        Options::new().workers(workers).state_backend(StateBackend::Memory).checkpoint_every(millis(5));
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let job = engine.start(flow).unwrap();
    (engine, job)
}

/// Lets a job run until `enough`, and cancels it there; to the end where that is never.
fn run_until((engine, job): (Engine, Job), enough: Option<impl Fn(&Job) -> bool>) {
    if let Some(enough) = enough {
        job.wait_until(enough);
        job.cancel();
        let _ = job.wait();
    } else {
        job.wait().unwrap();
    }
    drop(engine);
}

/// Runs a flow that publishes more than 160 to the end, with as many workers as `workers` says in turn, cancelled when 60 and when 160 are
/// `published`. Each run goes on where the newest checkpoint of the one before is, wherever that may be.
pub fn run_through_cancels(
    workers: [usize; 3],
    published: impl Fn() -> u64,
    is_late: &impl Fn() -> bool,
    start: impl Fn(usize) -> (Engine, Job),
) {
    for (workers, until) in workers.into_iter().zip([Some(60), Some(160), None]) {
        let reached = |job: &Job, until| published() >= until && job.metrics().checkpoints_completed > 1;
        let enough = until.map(|until| move |job: &Job| reached(job, until) || is_late());
        run_until(start(workers), enough);
    }
}

/// Runs a flow to the end, cancelled twice after some checkpoints. `start` is told the workers and the pauses: slower than the live run ever was,
/// so that it is caught in the middle.
pub fn replay_through_cancels(
    workers: [usize; 3],
    is_late: &impl Fn() -> bool,
    start: impl Fn(usize, u32) -> (Engine, Job),
) {
    for (workers, last) in workers.into_iter().zip([false, false, true]) {
        let (engine, job) = start(workers, if last { 0 } else { 40 });
        let then = job.metrics().checkpoints_completed;
        let enough = |job: &Job| job.metrics().checkpoints_completed > then + 2 || is_late();
        run_until((engine, job), (!last).then_some(enough));
    }
}

/// The values of a topic's committed records, in the first partition.
pub fn values(log: &Log, topic: &str) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut reader =
        log.topic(topic).unwrap().reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
    while let Some(records) = reader.next_batch().unwrap() {
        values.extend(records.map(|record| record.value.unwrap().to_vec()));
    }
    values
}

/// What a partition of a [`Script`] says when it is polled.
#[derive(Clone, Debug)]
pub enum Say<T> {
    Record(T),
    /// That there is nothing, this many times.
    Nothing(u32),
    /// That there is nothing until so many records have been read from all partitions.
    NothingUntil(usize),
}

/// A source that says what it is told to, one record a poll, and notes what was read, in order.
#[derive(Clone)]
pub struct Script<T> {
    partitions: Arc<Vec<Vec<Say<T>>>>,
    pub read: Arc<Mutex<Vec<(u32, T)>>>,
}

impl<T: Clone> Script<T> {
    pub fn new(partitions: Vec<Vec<Say<T>>>) -> Script<T> {
        Script { partitions: Arc::new(partitions), read: Arc::default() }
    }

    /// Partitions that end after these records.
    pub fn of(partitions: &[Vec<T>]) -> Script<T> {
        Self::new(partitions.iter().map(|records| say(records)).collect())
    }
}

/// 260 records of three partitions, with pauses of so many polls, of which the engine makes one in ten milliseconds.
pub fn in_pieces<T: Clone>(polls: u32, records: impl Fn(Range<i64>) -> Vec<Say<T>>) -> Script<T> {
    let pause = || vec![Say::Nothing(polls)];
    let first = [records(0..50), pause(), records(50..90), pause(), records(90..100)].concat();
    let second = [records(0..30), pause(), records(30..100)].concat();
    let third = [pause(), records(0..40), pause(), records(40..60)].concat();
    Script::new(vec![first, second, third])
}

/// Says these records.
pub fn say<T: Clone>(records: &[T]) -> Vec<Say<T>> {
    records.iter().cloned().map(Say::Record).collect()
}

pub struct ScriptReader<T> {
    script: Script<T>,
    partition: u32,
    next: usize,
    /// How often it has said that there is nothing at this point.
    said_nothing: u32,
}

impl<T: Clone + Send + Sync + 'static> Source for Script<T> {
    type Item = T;
    type Reader = ScriptReader<T>;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let partition = |number| SourcePartition { number, name: format!("script[{number}]") };
        Ok((0..self.partitions.len() as u32).map(partition).collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<ScriptReader<T>, BoxError> {
        let next = position.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        Ok(ScriptReader { script: self.clone(), partition, next: next as usize, said_nothing: 0 })
    }
}

impl<T: Clone> SourceReader<T> for ScriptReader<T> {
    fn poll(&mut self, _max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        let mut read = self.script.read.lock().unwrap();
        let goes_on = match self.script.partitions[self.partition as usize].get(self.next) {
            None => return Ok(Polled::Ended),
            Some(Say::Record(record)) => {
                read.push((self.partition, record.clone()));
                records.push(self.next as u64, Timestamp::MIN, record.clone());
                self.next += 1;
                return Ok(Polled::Ready);
            }
            Some(Say::Nothing(times)) => self.said_nothing >= *times,
            Some(Say::NothingUntil(count)) => read.len() >= *count,
        };
        self.said_nothing = if goes_on { 0 } else { self.said_nothing + 1 };
        self.next += usize::from(goes_on);
        Ok(Polled::Pending)
    }

    fn position(&self) -> Vec<u8> {
        (self.next as u64).to_le_bytes().to_vec()
    }
}
