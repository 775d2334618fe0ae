//! Sources: what a connector implements to be read, and the task that reads it.
//!
//! A source has partitions, each a replayable sequence of records with offsets. Partitions are spread over the workers; each is read
//! by one reader from a position that the reader can name and a checkpoint keeps. "Replayable" is the contract that everything
//! exactly-once rests on: reading again from a position gives the same records again.

use crate::batch::{Batch, Origin, Stamp};
use crate::context::{OperatorMetrics, PositionPart, TaskContext};
use crate::dead_letters::Failures;
pub use crate::dead_letters::{DeadLetter, RawRecord, SourceRecord};
use crate::edge::{Output, PartitionChange, Signal};
use crate::error::{BoxError, Error, Result};
use crate::line::Reach;
use crate::partitions::{PartitionEntry, Partitions};
use crate::plan::Resources;
use crate::rate_limit::{Claim, Silence, Throttle};
use crate::time::{Timestamp, span_millis};
use rivermark_checkpoint::Epoch;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One partition that a source has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePartition {
    /// Its number, fixed for the source's life.
    pub number: u32,
    /// What to call it in messages: `clicks[3]`, `departures.csv`.
    pub name: String,
}

/// What a reader said when it was polled.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// It gave records, and may have more.
    Ready,
    /// It is at the tail. It calls the waker when there is more.
    Pending,
    /// There will never be more.
    Ended,
}

/// Wakes the worker that reads a partition. Cheap to clone and to call; may be called from any thread, also needlessly.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Waker(Arc::new(wake))
    }

    /// A waker that does nothing, for a reader that is polled in a loop.
    pub fn none() -> Self {
        Self::new(|| {})
    }

    /// Wakes the worker.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// What a connector is told when it is opened.
pub struct ConnectorContext<'a> {
    /// The flow's name.
    pub flow: &'a str,
    /// The flow's version: each has output and positions of its own.
    pub version: u64,
    /// The source's or sink's name in the flow.
    pub name: &'a str,
    /// What the embedding engine offers.
    pub resources: &'a Resources,
}

/// What would be read of a partition: see [`Source::survey`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The first offset that would be read.
    pub from: u64,
    /// The same as a position, if the source can tell: reading from there fails once it is not there any more, where a configured start may move on.
    pub position: Option<Vec<u8>>,
    /// One past the last that there is now.
    pub end: u64,
    /// The first offset that is there. Behind `from`, reading from there fails.
    pub earliest: u64,
    /// About how many records that is.
    pub records: u64,
    /// About how many bytes.
    pub bytes: u64,
    /// Whether older records of a key may have been removed.
    pub is_compacted: bool,
    /// The first record that cannot be decoded, of those that were looked at, and why.
    pub undecodable: Option<String>,
}

/// A replayable input of a flow.
pub trait Source: Send + Sync + 'static {
    /// What its records are.
    type Item: Send + 'static;
    /// What reads one partition.
    type Reader: SourceReader<Self::Item> + 'static;

    /// The partitions it has now. Asked at start, and again from time to time: partitions may be added, never removed, and keep their numbers and
    /// names.
    fn partitions(&self, cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError>;

    /// Whether the source has not ended as long as it has no partition: it waits for its first. Default: it does not, and a job whose sources have
    /// no partition ends at once.
    fn waits_for_partitions(&self) -> bool {
        false
    }

    /// Opens a reader of one partition, at a position that a reader of it has given before, or at the source's configured start.
    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        waker: Waker,
        cx: &ConnectorContext<'_>,
    ) -> Result<Self::Reader, BoxError>;

    /// What would be read of a partition, from a position or from the source's configured start to the end that there is now: for planning a
    /// replay. Reads little. Default: the source cannot tell.
    fn survey(
        &self,
        _partition: u32,
        _position: Option<&[u8]>,
        _cx: &ConnectorContext<'_>,
    ) -> Result<Option<Survey>, BoxError> {
        Ok(None)
    }

    /// Makes durable what readers have given so far. Called before a checkpoint with their positions is stored, for a checkpoint must
    /// never point past what a crash leaves of the source. A source that only shows what is durable has nothing to do.
    fn sync(&self, _cx: &ConnectorContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    /// The bytes of the records at these offsets of a partition, which rise, as they lie in the source: for [dead letters](crate::dead_letters) of
    /// records that a reader gave before. `None` for what is not there any more. It is called in a worker's step, like
    /// [`SourceReader::poll`], for at most a batch of records.
    ///
    /// Default: none of them, for a source that cannot read by offset.
    fn raw_records(
        &self,
        _partition: u32,
        offsets: &[u64],
        _cx: &ConnectorContext<'_>,
    ) -> Result<Vec<Option<RawRecord>>, BoxError> {
        Ok(vec![None; offsets.len()])
    }
}

/// Reads one partition, in order.
pub trait SourceReader<T> {
    /// Adds up to `max` records to `records`, without blocking.
    ///
    /// After an error the reader stays before the record that caused it: it is an error again the next time, never skipped.
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError>;

    /// The position after the last record that was polled, in an encoding of the reader's own.
    fn position(&self) -> Vec<u8>;

    /// How many records are known to lie ahead, if it can tell.
    fn backlog(&self) -> Option<u64> {
        None
    }
}

/// Where a reader puts what it reads.
pub struct Records<'a, T> {
    batch: &'a mut Batch<T>,
    dead: Option<&'a mut Batch<DeadLetter>>,
    partition: u16,
    name: &'a str,
    bytes: u64,
}

impl<'a, T> Records<'a, T> {
    /// Collects into `batch` as partition 0; for testing a reader.
    pub fn into_batch(batch: &'a mut Batch<T>) -> Self {
        Records { batch, dead: None, partition: 0, name: "", bytes: 0 }
    }

    /// Collects what cannot be decoded into `dead`, as a flow with a dead-letter output does; for testing a reader. Such letters know of
    /// no flow and source yet.
    pub fn dead_letters_into(mut self, dead: &'a mut Batch<DeadLetter>) -> Self {
        self.dead = Some(dead);
        self
    }

    /// Adds a record. `time` is the source's own timestamp, if it has one; event time is usually told later from the value.
    #[inline]
    pub fn push(&mut self, offset: u64, time: Timestamp, value: T) {
        let origin = Origin::new(self.partition, offset);
        self.batch.push(Stamp { time, watermark: Timestamp::MIN, origin }, value);
    }

    /// Counts bytes read, for the metrics.
    pub fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// A record that cannot be decoded goes to the dead-letter output if the flow has one; otherwise this is the error to return.
    pub fn undecodable(
        &mut self,
        offset: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        error: impl Into<BoxError>,
    ) -> Result<(), BoxError> {
        let error = error.into();
        let Some(dead) = &mut self.dead else {
            return Err(format!(
                "{} offset {offset}: cannot be decoded: {error}; correct the format, or send such records to a dead-letter output",
                self.name
            )
            .into());
        };
        let stamp = Stamp {
            time: Timestamp::MIN,
            watermark: Timestamp::MIN,
            origin: Origin::new(self.partition, offset),
        };
        let raw = RawRecord { key: key.map(<[u8]>::to_vec), value: value.map(<[u8]>::to_vec) };
        let letter = DeadLetter {
            flow: String::new(),
            version: 0,
            operator: String::new(),
            error: error.to_string(),
            time: None,
            record: Some(SourceRecord {
                source: String::new(),
                partition: u32::from(self.partition),
                name: self.name.to_string(),
                offset,
                raw: Some(raw),
            }),
        };
        dead.push(stamp, letter);
        Ok(())
    }

    /// How many records have been added.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether none has been added.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

/// A source whose types are forgotten: what the engine asks of it before tasks exist.
pub trait ErasedSource: Send + Sync {
    /// See [`Source::partitions`].
    fn partitions(&self, cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError>;
    /// See [`Source::survey`].
    fn survey(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        cx: &ConnectorContext<'_>,
    ) -> Result<Option<Survey>, BoxError>;
    /// See [`Source::sync`].
    fn sync(&self, cx: &ConnectorContext<'_>) -> Result<(), BoxError>;
    /// See [`Source::raw_records`].
    fn raw_records(
        &self,
        partition: u32,
        offsets: &[u64],
        cx: &ConnectorContext<'_>,
    ) -> Result<Vec<Option<RawRecord>>, BoxError>;
}

impl<S: Source> ErasedSource for S {
    fn partitions(&self, cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Source::partitions(self, cx)
    }

    fn survey(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        cx: &ConnectorContext<'_>,
    ) -> Result<Option<Survey>, BoxError> {
        Source::survey(self, partition, position, cx)
    }

    fn sync(&self, cx: &ConnectorContext<'_>) -> Result<(), BoxError> {
        Source::sync(self, cx)
    }

    fn raw_records(
        &self,
        partition: u32,
        offsets: &[u64],
        cx: &ConnectorContext<'_>,
    ) -> Result<Vec<Option<RawRecord>>, BoxError> {
        Source::raw_records(self, partition, offsets, cx)
    }
}

/// What a step of a source came to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Records were read.
    Ready,
    /// Nothing to read now; a waker will tell.
    Pending,
    /// A partition waits for slower ones; ask again soon.
    Held,
    /// The source's rate limit is reached; ask again then.
    Throttled(Timestamp),
    /// All partitions of this task have ended.
    Ended,
}

/// One worker's share of a source, types forgotten: what the engine drives.
pub trait SourceTask {
    /// The source's name in the flow.
    fn name(&self) -> &Arc<str>;
    /// Begins to read a partition, at a position from a checkpoint or at the configured start.
    fn assign(
        &mut self,
        partition: Arc<PartitionEntry>,
        position: Option<&[u8]>,
        waker: Waker,
        cx: &mut TaskContext<'_>,
    ) -> Result<()>;
    /// Reads at most one batch of one partition, in turn, and pushes it through the chain.
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Result<Progress>;
    /// Adds the positions to the checkpoint and sends the barrier down the chain.
    fn barrier(&mut self, epoch: Epoch, cx: &mut TaskContext<'_>) -> Result<()>;
    /// Lets every partition end where it stands: as if there were no more to read, now and in this run.
    fn drain(&mut self, cx: &mut TaskContext<'_>) -> Result<()>;
    /// Ends the stream.
    fn end(&mut self, cx: &mut TaskContext<'_>) -> Result<()>;
    /// See [`crate::edge::Operator::flush`].
    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()>;
    /// Records known to lie ahead, where readers can tell.
    fn backlog(&self) -> Option<u64>;
}

struct OpenPartition<R> {
    entry: Arc<PartitionEntry>,
    reader: R,
    /// To open another reader with.
    waker: Waker,
    /// The offset behind the last record.
    read_to: Option<u64>,
    ended: bool,
    idle: bool,
    /// When it was first found to have nothing since its last record: while nobody asks, nobody knows of silence.
    silent_since: Option<Timestamp>,
}

/// Reads the partitions of a typed source.
pub(crate) struct Reading<S: Source> {
    pub(crate) name: Arc<str>,
    pub(crate) flow: String,
    pub(crate) version: u64,
    pub(crate) source: Arc<S>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) table: Arc<Partitions>,
    pub(crate) metrics: Arc<OperatorMetrics>,
    pub(crate) out: Output<S::Item>,
    pub(crate) failures: Failures,
    pub(crate) idle_after: Option<Duration>,
    throttle: Arc<Throttle>,
    open: Vec<OpenPartition<S::Reader>>,
    next: usize,
    /// It was told to end where it stands.
    drained: bool,
    batch: Batch<S::Item>,
    dead: Batch<DeadLetter>,
}

impl<S: Source> Reading<S> {
    #[expect(clippy::too_many_arguments, reason = "one constructor, called in one place")]
    pub(crate) fn new(
        name: Arc<str>,
        flow: String,
        version: u64,
        source: Arc<S>,
        resources: Arc<Resources>,
        table: Arc<Partitions>,
        metrics: Arc<OperatorMetrics>,
        out: Output<S::Item>,
        failures: Failures,
        idle_after: Option<Duration>,
        throttle: Arc<Throttle>,
    ) -> Self {
        Reading {
            name,
            flow,
            version,
            source,
            resources,
            table,
            metrics,
            out,
            failures,
            idle_after,
            throttle,
            open: Vec::new(),
            next: 0,
            drained: false,
            batch: Batch::new(),
            dead: Batch::new(),
        }
    }

    fn change(&mut self, change: PartitionChange, cx: &mut TaskContext<'_>) -> Result<()> {
        self.signal(Signal::Partition(change), cx)
    }

    /// Both outputs have the same partitions, barriers and end.
    fn signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.failures.signal(signal, cx)?;
        self.out.signal(signal, cx)
    }

    /// Whether the partition at `at` has come to its line.
    fn is_at_line(&self, at: usize) -> bool {
        let partition = &self.open[at];
        match self.throttle.reach(partition.entry.number) {
            Reach::Unbounded => false,
            Reach::Nothing => true,
            Reach::Until(line) => {
                line.offset <= partition.read_to || partition.reader.position() == line.position
            }
        }
    }

    /// Opens the reader of a partition again where what was read of it is cut off.
    fn reopen(&mut self, at: usize, position: &[u8]) -> Result<()> {
        let context = ConnectorContext {
            flow: &self.flow,
            version: self.version,
            name: &self.name,
            resources: &self.resources,
        };
        let partition = &mut self.open[at];
        let (number, waker) = (partition.entry.number, partition.waker.clone());
        let reader = self.source.reader(number, Some(position), waker, &context);
        let name = &partition.entry.name;
        partition.reader = reader.map_err(|e| {
            Error::source(&self.name, format!("opening {name} where it is to be read no further"), e)
        })?;
        Ok(())
    }

    /// Reads up to `most` records of the partition at `at`.
    fn read(&mut self, at: usize, most: usize) -> Result<Polled> {
        let partition = &mut self.open[at];
        if partition.entry.stops_at().is_some_and(|stop| stop.offset <= partition.read_to) {
            return Ok(Polled::Ended);
        }
        let mut records = Records {
            batch: &mut self.batch,
            dead: self.failures.are_kept().then_some(&mut self.dead),
            partition: partition.entry.index,
            name: &partition.entry.name,
            bytes: 0,
        };
        let polled = partition.reader.poll(most, &mut records);
        let bytes = records.bytes;
        let polled =
            polled.map_err(|e| Error::source(&self.name, format!("reading {}", partition.entry.name), e))?;
        self.metrics.add_bytes(bytes);
        self.throttle.settle(partition.entry.index, most, self.batch.len() + self.dead.len(), bytes);
        self.end_where_an_earlier_run_did(at, polled)
    }

    /// Notes how far a partition has been read. Where it is to end at a place, what follows that is left for later.
    fn end_where_an_earlier_run_did(&mut self, at: usize, polled: Polled) -> Result<Polled> {
        let stop = self.open[at].entry.stops_at().cloned();
        let mut cut = false;
        if let Some(stop) = &stop
            && self.cut_at(stop.offset)
        {
            cut = true;
            self.reopen(at, &stop.position)?;
        }
        let line = match self.throttle.reach(self.open[at].entry.number) {
            Reach::Until(line) => Some(line),
            Reach::Unbounded | Reach::Nothing => None,
        };
        if let Some(line) = &line
            && self.cut_at(line.offset)
        {
            self.reopen(at, &line.position)?;
        }
        let partition = &mut self.open[at];
        let last = |stamps: &[Stamp]| stamps.last().and_then(|stamp| stamp.origin.offset());
        let last = last(self.batch.stamps()).max(last(self.dead.stamps()));
        partition.read_to = partition.read_to.max(last.map(|offset| offset + 1));
        let Some(stop) = stop else {
            // A line lets nothing end: the partition waits there.
            let is_at_line = line.is_some_and(|line| line.offset <= partition.read_to);
            return Ok(if is_at_line && polled == Polled::Ended { Polled::Ready } else { polled });
        };
        let is_there =
            cut || stop.offset <= partition.read_to || partition.reader.position() == stop.position;
        Ok(if is_there { Polled::Ended } else { polled })
    }

    /// Takes what lies at or behind an offset out of what was read. Answers whether there was any.
    fn cut_at(&mut self, offset: Option<u64>) -> bool {
        let Some(offset) = offset else { return false };
        let before = self.batch.len() + self.dead.len();
        self.batch.retain(|stamp, _| stamp.origin.offset() < Some(offset));
        self.dead.retain(|stamp, _| stamp.origin.offset() < Some(offset));
        self.batch.len() + self.dead.len() < before
    }

    /// Passes on what was read, telling first that the partition is active again if it was idle.
    fn pass_on(&mut self, at: usize, cx: &mut TaskContext<'_>) -> Result<()> {
        let partition = &mut self.open[at];
        partition.silent_since = None;
        if std::mem::take(&mut partition.idle) {
            let index = partition.entry.index;
            self.change(PartitionChange::Active(index), cx)?;
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.out.forward(&mut batch, cx)?;
        batch.clear();
        self.batch = batch;
        for (stamp, letter) in self.dead.drain() {
            self.failures.push(stamp, letter.error, letter.record.and_then(|record| record.raw));
        }
        self.failures.send(cx)
    }

    /// Whether the source has not ended, though there is nothing to read: no task has opened a partition of it.
    fn waits_for_the_first(&self) -> bool {
        !self.drained
            && !self.table.repeats_an_end()
            && self.source.waits_for_partitions()
            && !self.table.any_opened(&self.name)
    }

    /// Tells that a partition is idle once it has been silent for long enough.
    fn watch_silence(&mut self, at: usize, cx: &mut TaskContext<'_>) -> Result<()> {
        let Some(after) = self.idle_after else { return Ok(()) };
        let after = match self.throttle.silence() {
            Silence::Timed => after,
            Silence::Unheeded => return Ok(()),
            Silence::AtOnce => Duration::ZERO,
        };
        let partition = &mut self.open[at];
        let silent_since = *partition.silent_since.get_or_insert(cx.now);
        if partition.idle || partition.ended || cx.now < silent_since.plus_millis(span_millis(after)) {
            return Ok(());
        }
        partition.idle = true;
        let index = partition.entry.index;
        self.change(PartitionChange::Idle(index), cx)
    }
}

impl<S: Source> SourceTask for Reading<S> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn assign(
        &mut self,
        entry: Arc<PartitionEntry>,
        position: Option<&[u8]>,
        waker: Waker,
        cx: &mut TaskContext<'_>,
    ) -> Result<()> {
        let context = ConnectorContext {
            flow: &self.flow,
            version: self.version,
            name: &self.name,
            resources: &self.resources,
        };
        let reader = self
            .source
            .reader(entry.number, position, waker.clone(), &context)
            .map_err(|e| Error::source(&self.name, format!("opening {}", entry.name), e))?;
        let index = entry.index;
        // Others of the source's tasks may have waited for it.
        entry.set_opened();
        if self.source.waits_for_partitions() {
            cx.transport.wake_all();
        }
        let read_to = entry.read_to();
        self.open.push(OpenPartition {
            entry,
            reader,
            waker,
            read_to,
            ended: false,
            idle: false,
            silent_since: None,
        });
        self.change(PartitionChange::Opened(index), cx)
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Result<Progress> {
        let (mut held, mut open, mut throttled) = (false, false, None::<Timestamp>);
        for _ in 0..self.open.len() {
            let at = self.next % self.open.len();
            self.next = at + 1;
            if self.open[at].ended {
                continue;
            }
            open = true;
            if self.table.too_far_ahead(&self.open[at].entry) {
                held = true;
                // Nobody asks it, so nobody knows of silence.
                self.open[at].silent_since = None;
                continue;
            }
            let is_at_line = self.is_at_line(at);
            self.open[at].entry.set_at_line(is_at_line);
            if is_at_line {
                // For all it knows there is no more.
                self.watch_silence(at, cx)?;
                continue;
            }
            let index = self.open[at].entry.index;
            let most = match self.throttle.claim(cx.now, index, Batch::<S::Item>::CAPACITY) {
                Claim::Read(most) => most,
                Claim::Wait(until) => {
                    throttled = Some(throttled.map_or(until, |before| before.min(until)));
                    // What comes meanwhile is found when it is asked next, and if nothing is, it was silent all the time: others that use up
                    // the rate must not keep it from being idle. In a pause it may not even look.
                    if self.throttle.is_paused() {
                        self.open[at].silent_since = None;
                    }
                    continue;
                }
            };
            let polled = self.read(at, most)?;
            let some = !self.batch.is_empty() || !self.dead.is_empty();
            if some {
                self.pass_on(at, cx)?;
            } else {
                self.watch_silence(at, cx)?;
            }
            // Behind the chain: whoever sees this finds the records where they are counted.
            self.open[at].entry.set_reached(self.open[at].read_to);
            if polled == Polled::Ended {
                self.open[at].ended = true;
                self.change(PartitionChange::Ended(index), cx)?;
                return Ok(Progress::Ready);
            }
            if some {
                return Ok(Progress::Ready);
            }
        }
        Ok(match (open, throttled, held) {
            (false, ..) if self.waits_for_the_first() => Progress::Pending,
            (false, ..) => Progress::Ended,
            (true, Some(until), _) => Progress::Throttled(until),
            (true, None, true) => Progress::Held,
            (true, None, false) => Progress::Pending,
        })
    }

    fn barrier(&mut self, epoch: Epoch, cx: &mut TaskContext<'_>) -> Result<()> {
        for partition in &self.open {
            cx.parts.positions.push(PositionPart {
                source: Arc::clone(&self.name),
                partition: partition.entry.index,
                position: partition.reader.position(),
                read_to: partition.read_to,
            });
        }
        self.signal(Signal::Barrier(epoch), cx)
    }

    fn drain(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.drained = true;
        for at in 0..self.open.len() {
            if !std::mem::replace(&mut self.open[at].ended, true) {
                let index = self.open[at].entry.index;
                self.change(PartitionChange::Ended(index), cx)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.signal(Signal::End, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.failures.flush(cx)?;
        self.out.flush(cx)
    }

    fn backlog(&self) -> Option<u64> {
        self.open.iter().map(|partition| partition.reader.backlog()).sum()
    }
}
