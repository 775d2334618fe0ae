//! The sink whose rows are timed: a topic of the log, written exactly once, by a writer and a committer that look at the clock.
//!
//! 1. A batch of rows comes to a writer: each row's latency so far is counted, then the batch goes on to the log's own writer.
//! 2. At a barrier the log's writer seals what it has, and the token remembers which rows it is for, by the millisecond at which they were due.
//! 3. The committer commits the token: its rows can be read now, and their latency is counted again.

use super::schedule::{Firings, Schedule, Start};
use crate::answer::Row;
use crate::queries::Rows;
use hdrhistogram::Histogram;
use rivermark::connectors::LogSink;
use rivermark::connectors::format::Format;
use rivermark::sink::{Batch, CommitError, Committer, Epoch, Sink, SinkContext, SinkWriter, Stamp};
use rivermark::{BoxError, Stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The topic of the results.
pub(crate) const RESULTS: &str = "nexmark-results";
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Rows as the specification writes them.
#[derive(Copy, Clone)]
struct RowText;

impl<R: Row> Format<R> for RowText {
    fn encode(&self, row: &R, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        row.write(bytes);
        Ok(())
    }

    /// # Errors
    /// Always: results are written, not read.
    fn decode(&self, _bytes: &[u8]) -> Result<R, BoxError> {
        Err("a result is not read back as a row".into())
    }
}

/// Latencies in microseconds, of rows by what became of them.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Of rows that came to the sink.
    pub(crate) arrived: Histogram<u64>,
    /// Of rows that could be read in the topic of results.
    pub(crate) committed: Histogram<u64>,
    /// All rows.
    pub(crate) rows: u64,
    /// Those of them that were due while the program was still warming up, and are in neither histogram.
    pub(crate) warm_up: u64,
    /// Those that no event let fire, but the stream's end, and are in neither histogram.
    pub(crate) at_end: u64,
}

impl Tally {
    fn new() -> Tally {
        // Three digits, to an hour.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are valid");
        Tally { arrived: histogram.clone(), committed: histogram, rows: 0, warm_up: 0, at_end: 0 }
    }

    fn add(&mut self, other: &Tally) {
        self.arrived.add(&other.arrived).expect("bounds are the same");
        self.committed.add(&other.committed).expect("bounds are the same");
        self.rows += other.rows;
        self.warm_up += other.warm_up;
        self.at_end += other.at_end;
    }
}

/// How many rows were due in which millisecond after the beginning.
type Due = Vec<(u64, u64)>;

/// What the writers and the committer share.
pub(crate) struct Timing {
    pub(crate) start: Start,
    pub(crate) partitions: u64,
    /// The schedule and when it began; before that no event is.
    pub(crate) schedule: Mutex<Option<(Schedule, Instant)>>,
    /// Rows that were due before that are not counted.
    pub(crate) warm_up: Duration,
    pub(crate) firings: Mutex<Firings>,
    prepared: Mutex<HashMap<Vec<u8>, Due>>,
    tally: Mutex<Tally>,
}

impl Timing {
    pub(crate) fn new(start: Start, partitions: u64, warm_up: Duration, firings: Firings) -> Timing {
        let (schedule, prepared, tally) = (Mutex::default(), Mutex::default(), Mutex::new(Tally::new()));
        Timing { start, partitions, schedule, warm_up, firings: Mutex::new(firings), prepared, tally }
    }

    pub(crate) fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// The number of the event that a row is counted from.
    fn event_of(&self, stamp: &Stamp, firings: Option<&Firings>) -> Option<u64> {
        match firings {
            Some(firings) => firings.of(stamp.time),
            None => {
                let (partition, offset) = (stamp.origin.partition()?, stamp.origin.offset()?);
                Some(offset * self.partitions + u64::from(partition))
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics with what is timed")
}

/// Writes rows to [`RESULTS`], timed.
#[derive(Clone)]
pub(crate) struct Timed(pub(crate) Arc<Timing>);

impl Rows for Timed {
    fn take<R: Row + Sync>(self, rows: Stream<R>) {
        rows.sink_as("results", TimedSink { log: LogSink::with_format(RESULTS, RowText), timing: self.0 });
    }
}

struct TimedSink<R> {
    log: LogSink<R>,
    timing: Arc<Timing>,
}

impl<R: Row + Sync> Sink<R> for TimedSink<R> {
    type Writer = TimedWriter<<LogSink<R> as Sink<R>>::Writer>;

    fn writer(&self, cx: &SinkContext<'_>) -> Result<Self::Writer, BoxError> {
        let timing = Arc::clone(&self.timing);
        Ok(TimedWriter {
            log: self.log.writer(cx)?,
            timing,
            clock: None,
            tally: Tally::new(),
            due: Vec::new(),
        })
    }

    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        Ok(Box::new(TimedCommitter { log: self.log.committer(cx)?, timing: Arc::clone(&self.timing) }))
    }
}

struct TimedWriter<W> {
    log: W,
    timing: Arc<Timing>,
    clock: Option<(Schedule, Instant)>,
    tally: Tally,
    due: Due,
}

impl<W> TimedWriter<W> {
    fn time(&mut self, stamps: &[Stamp]) -> Result<(), BoxError> {
        let timing = Arc::clone(&self.timing);
        if self.clock.is_none() {
            self.clock = *lock(&timing.schedule);
        }
        let (schedule, beginning) = self.clock.ok_or("a row came before any event was due")?;
        let now = beginning.elapsed().as_nanos() as u64;
        let firings = (timing.start == Start::Window).then(|| lock(&timing.firings));
        self.tally.rows += stamps.len() as u64;
        for stamp in stamps {
            let Some(event) = timing.event_of(stamp, firings.as_deref()) else {
                self.tally.at_end += 1;
                continue;
            };
            let due = schedule.due(event);
            if u128::from(due) < timing.warm_up.as_nanos() {
                self.tally.warm_up += 1;
                continue;
            }
            self.tally.arrived.saturating_record(now.saturating_sub(due) / 1000);
            let due_ms = due / NANOS_PER_MILLI;
            match self.due.last_mut() {
                Some((last, rows)) if *last == due_ms => *rows += 1,
                _ => self.due.push((due_ms, 1)),
            }
        }
        Ok(())
    }
}

impl<R: Row, W: SinkWriter<R>> SinkWriter<R> for TimedWriter<W> {
    fn write(&mut self, batch: &mut Batch<R>) -> Result<(), BoxError> {
        self.time(batch.stamps())?;
        self.log.write(batch)
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        lock(&self.timing.tally).add(&self.tally);
        self.tally = Tally::new();
        let due = std::mem::take(&mut self.due);
        let token = self.log.prepare(epoch)?;
        if let Some(token) = &token {
            lock(&self.timing.prepared).insert(token.clone(), due);
        }
        Ok(token)
    }

    fn bytes(&self) -> u64 {
        self.log.bytes()
    }
}

struct TimedCommitter {
    log: Box<dyn Committer>,
    timing: Arc<Timing>,
}

impl Committer for TimedCommitter {
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        self.log.recover(tokens)
    }

    fn sync(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        self.log.sync(tokens)
    }

    fn commit(&mut self, epoch: Epoch, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        self.log.commit(epoch, tokens)?;
        let Some((_, beginning)) = *lock(&self.timing.schedule) else { return Ok(()) };
        let now = beginning.elapsed().as_nanos() as u64;
        let mut tally = lock(&self.timing.tally);
        for token in tokens {
            // The due times are kept by the millisecond: against a second between checkpoints that is little.
            for (due_ms, rows) in lock(&self.timing.prepared).remove(token).unwrap_or_default() {
                let took = now.saturating_sub(due_ms * NANOS_PER_MILLI) / 1000;
                tally.committed.saturating_record_n(took.max(1), rows);
            }
        }
        Ok(())
    }
}
