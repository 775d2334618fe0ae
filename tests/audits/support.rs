//! A flow with windows, sessions, a function of its own and a join, over records that are out of order, late, and at times silent.

use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Isolation, Log, Position, RecordBatch, TopicOptions};
use rivermark::{
    Audit, AuditReport, BoxError, Context, Engine, Flow, Interval, Job, Options, ProcessFunction, Restart,
    StateBackend, Timestamp, Value, Watermarks, Windows, millis, secs,
};
use std::path::Path;
use std::time::{Duration, Instant};

pub const FLOW: &str = "audited";
pub const PARTITIONS: u32 = 3;
pub const TOPICS: [&str; 5] = ["windows", "late", "sessions", "totals", "pairs"];
pub const DEADLINE: Duration = Duration::from_secs(60);

const TOTAL: Value<u64> = Value::new("total");

/// A number, its key and its time in milliseconds.
pub type Number = (u64, u64, i64);

/// The numbers `from..to`: out of order, and every eleventh so late that its window is over.
pub fn numbers(from: u64, to: u64) -> impl Iterator<Item = Number> {
    (from..to).map(|n| {
        let delay = if n % 11 == 0 { 3000 } else { n * 7919 % 400 };
        (n, n % 7, n as i64 * 10 - delay as i64)
    })
}

/// Appends numbers: those of a key to one partition.
pub fn append(log: &Log, numbers: impl Iterator<Item = Number>) {
    let topic = log.ensure_topic("numbers", TopicOptions::new(PARTITIONS)).unwrap();
    let mut batches: Vec<_> = (0..PARTITIONS).map(|_| RecordBatch::new()).collect();
    for number in numbers {
        let partition = (number.1 % u64::from(PARTITIONS)) as usize;
        batches[partition].push(None, Some(&serde_json::to_vec(&number).unwrap()), number.2);
    }
    for (partition, batch) in (0..).zip(&mut batches).filter(|(_, batch)| !batch.is_empty()) {
        topic.append(partition, batch).unwrap();
    }
}

/// Adds up the numbers of a key, one by one; `salt` makes it forget that it should depend on nothing else.
#[derive(Clone)]
struct Total {
    salt: fn() -> u64,
}

impl ProcessFunction<u64, Number> for Total {
    type Out = (u64, u64, u64);

    fn on_record(
        &mut self,
        key: &u64,
        number: Number,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        let total = cx.state(TOTAL).get()?.unwrap_or(0) + number.0 + (self.salt)();
        cx.state(TOTAL).set(total)?;
        cx.emit((number.0, *key, total));
        Ok(())
    }
}

/// The flow. With `silence`, partitions that say nothing for so long are not waited for.
pub fn flow(silence: Option<Duration>, until_end: bool) -> Flow {
    salted(silence, until_end, || 0)
}

pub fn salted(silence: Option<Duration>, until_end: bool, salt: fn() -> u64) -> Flow {
    let flow = Flow::new(FLOW);
    let source = LogSource::<Number>::topic("numbers");
    let source = if until_end { source.until_end() } else { source };
    let watermarks = Watermarks::bounded(millis(500));
    let watermarks = silence.into_iter().fold(watermarks, Watermarks::idle_after);
    let numbers = flow.source(source).event_time(|n| Timestamp::from_millis(n.2), watermarks);
    numbers
        .clone()
        .key_by(|n| n.1)
        .window(Windows::tumbling(secs(1)))
        .late_output(|late| late.map(|late| late.value).sink_as("late", LogSink::topic("late")))
        .sum(|n: &Number| n.0)
        .map(|row| (row.key, row.window.start.millis(), row.value))
        .sink_as("windows", LogSink::topic("windows").key(|row: &(u64, i64, u64)| vec![row.0 as u8]));
    numbers
        .clone()
        .key_by(|n| n.0 % 50)
        .window(Windows::session(millis(300)))
        .count()
        .map(|row| (row.key, row.window.start.millis(), row.value))
        .sink_as("sessions", LogSink::topic("sessions"));
    numbers.clone().key_by(|n| n.1).process(Total { salt }).sink_as(
        "totals",
        LogSink::topic("totals").partitions(2).key(|row: &(u64, u64, u64)| vec![row.1 as u8]),
    );
    let thirds = numbers.clone().filter(|n| n.0 % 3 == 0).key_by(|n| n.1);
    let fifths = numbers.filter(|n| n.0 % 5 == 0).key_by(|n| n.1);
    thirds
        .interval_join(fifths, Interval::after(millis(200)))
        .inner(|_, third, fifth| (third.0, fifth.0))
        .sink_as("pairs", LogSink::topic("pairs"));
    flow
}

pub fn open(directory: &Path, workers: usize) -> Engine {
    let options = Options::new()
        .workers(workers)
        .state_backend(StateBackend::Memory)
        .checkpoint_every(millis(10))
        .restart(Restart::Never);
    Engine::open_with(directory, options).unwrap()
}

/// Waits until a job has read so many records, and then for a checkpoint.
pub fn read(job: &Job, records: u64) {
    let until = Instant::now() + DEADLINE;
    assert!(job.wait_until(|job| job.metrics().records_read >= records || Instant::now() > until));
    assert!(Instant::now() < until, "it hangs: {:?}", job.status());
    job.checkpoint().unwrap();
}

/// Audits from the earliest, with `workers`.
pub fn audit(engine: &Engine, flow: Flow, workers: usize) -> AuditReport {
    engine.audit(flow, Audit::from_earliest().workers(workers)).unwrap().wait().unwrap()
}

pub fn rows_of(report: &AuditReport, topic: &str) -> u64 {
    report.outputs.iter().find(|output| output.topic == topic).unwrap().published
}

/// A row of a topic: key, value, timestamp.
pub type Row = (Option<Vec<u8>>, Option<Vec<u8>>, i64);

/// Replaces a topic's rows by others, partition by partition.
pub fn tamper(log: &Log, topic: &str, change: impl Fn(u32, &mut Vec<Row>)) {
    let found = log.topic(topic).unwrap();
    let mut partitions = Vec::new();
    for partition in 0..found.partitions() {
        let mut reader = found.reader(partition, Position::Earliest, Isolation::ReadCommitted).unwrap();
        let mut rows: Vec<Row> = Vec::new();
        while let Some(batch) = reader.next_batch().unwrap() {
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            rows.extend(batch.map(|row| (owned(row.key), owned(row.value), row.timestamp)));
        }
        change(partition, &mut rows);
        partitions.push(rows);
    }
    drop(found);
    log.delete_topic(topic).unwrap();
    let changed = log.create_topic(topic, TopicOptions::new(partitions.len() as u32)).unwrap();
    for (partition, rows) in (0..).zip(partitions).filter(|(_, rows)| !rows.is_empty()) {
        let mut batch = RecordBatch::new();
        rows.iter().for_each(|(key, value, time)| batch.push(key.as_deref(), value.as_deref(), *time));
        changed.append(partition, &mut batch).unwrap();
    }
}
