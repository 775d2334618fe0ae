//! A flow with windows, timers of its own, and all kinds of state, over numbers in the log.

use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Isolation, Log, Position, RecordBatch, TopicOptions};
use rivermark::{
    BoxError, Context, Engine, Flow, Job, List, Map, Options, ProcessFunction, Restart, StateBackend,
    Timestamp, Value, Watermarks, Windowed, Windows, millis,
};
use std::path::Path;
use std::time::{Duration, Instant};

pub const TOTAL: Value<u64> = Value::new("total");
pub const TIMES: List<i64> = List::new("times");
pub const BY_DIGIT: Map<u8, u64> = Map::new("by-digit");

pub const KEYS: u64 = 40;
const DEADLINE: Duration = Duration::from_secs(60);

/// A number of a key: key, time in milliseconds.
pub type Number = (u64, i64);
/// Key, how many numbers it has had, how many of them with the same last digit of the second.
pub type Running = (u64, u64, u64);

/// The numbers `from..to`; each key has all of its own in one partition, in order.
pub fn numbers(from: u64, to: u64) -> impl Iterator<Item = Number> {
    (from..to).map(|n| (n * 7 % KEYS, n as i64 * 10))
}

pub fn append(log: &Log, numbers: impl Iterator<Item = Number>) {
    let topic = log.topic("numbers").or_else(|_| log.create_topic("numbers", TopicOptions::new(3))).unwrap();
    let mut batches = [RecordBatch::new(), RecordBatch::new(), RecordBatch::new()];
    for (key, time) in numbers {
        let value = serde_json::to_vec(&(key, time)).unwrap();
        batches[(key % 3) as usize].push(None, Some(&value), time);
    }
    for (partition, batch) in batches.iter_mut().enumerate() {
        topic.append(partition as u32, batch).unwrap();
    }
}

#[derive(Clone)]
struct Count;

impl ProcessFunction<u64, Number> for Count {
    type Out = Running;

    fn on_record(
        &mut self,
        key: &u64,
        (_, time): Number,
        cx: &mut Context<'_, u64, Running>,
    ) -> Result<(), BoxError> {
        let total = cx.state(TOTAL).update(
            || 0,
            |total| {
                *total += 1;
                *total
            },
        )?;
        if total % 3 == 0 {
            cx.state(TIMES).push(time)?;
        }
        let digit = (time / 1000 % 10) as u8;
        let same = cx.state(BY_DIGIT).get(&digit)?.unwrap_or(0) + 1;
        cx.state(BY_DIGIT).put(digit, same)?;
        cx.emit((*key, total, same));
        Ok(())
    }
}

/// Counts numbers, one by one into `running`, by second into `counts`.
pub fn flow(name: &str, version: u64, live: bool) -> Flow {
    let flow = Flow::new(name).version(version);
    let source = LogSource::<Number>::topic("numbers");
    let source = if live { source } else { source.until_end() };
    let numbers = flow
        .source(source)
        .event_time(|number| Timestamp::from_millis(number.1), Watermarks::bounded(millis(2000)));
    numbers
        .clone()
        .key_by(|number| number.0)
        .process(Count)
        .named("count")
        .sink(LogSink::topic(format!("{name}-running")));
    numbers
        .key_by(|number| number.0)
        .window(Windows::tumbling(millis(1000)))
        .count()
        .named("by-second")
        .map(|row: Windowed<u64, u64>| (row.window.start.millis(), row.key, row.value))
        .sink(LogSink::topic(format!("{name}-counts")));
    flow
}

/// A budget so small that with RocksDB some of the state is in its files.
pub fn options(workers: usize, backend: StateBackend) -> Options {
    Options::new()
        .workers(workers)
        .state_backend(backend)
        .state_budget(1 << 20)
        .checkpoint_every(millis(10))
        .checkpoints_kept(1)
        .restart(Restart::Never)
}

pub fn open(directory: &Path, workers: usize, backend: StateBackend) -> Engine {
    Engine::open_with(directory, options(workers, backend)).unwrap()
}

pub fn backends() -> Vec<StateBackend> {
    vec![
        StateBackend::Memory,
        #[cfg(feature = "rocksdb")]
        StateBackend::RocksDb,
    ]
}

/// Waits until the job has read so many records since its start.
pub fn wait_for(job: &Job, records: u64) {
    let until = Instant::now() + DEADLINE;
    let read = job.wait_until(|job| job.metrics().records_read >= records || Instant::now() > until);
    assert!(read && Instant::now() <= until, "{:?} {:?}", job.status(), job.metrics());
}

/// The committed rows of a topic, in order of row.
pub fn rows<R: serde::de::DeserializeOwned + Ord>(log: &Log, topic: &str) -> Vec<R> {
    let Ok(topic) = log.topic(topic) else { return Vec::new() };
    let mut rows = Vec::new();
    for partition in 0..topic.partitions() {
        let mut reader = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            rows.extend(
                batch.into_iter().map(|row| serde_json::from_slice::<R>(row.value.unwrap()).unwrap()),
            );
        }
    }
    rows.sort();
    rows
}

/// Both outputs of a flow.
pub fn outputs(log: &Log, name: &str) -> (Vec<Running>, Vec<(i64, u64, u64)>) {
    (rows(log, &format!("{name}-running")), rows(log, &format!("{name}-counts")))
}

/// What a run that nobody disturbs writes about the first so many numbers.
pub fn undisturbed(count: u64) -> (Vec<Running>, Vec<(i64, u64, u64)>) {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 1, StateBackend::Memory);
    append(engine.log(), numbers(0, count));
    engine.run(flow("undisturbed", 1, false)).unwrap();
    let outputs = outputs(engine.log(), "undisturbed");
    assert_eq!(outputs.0.len() as u64, count);
    outputs
}

/// A copy of a folder and all in it: bytes, not links.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
