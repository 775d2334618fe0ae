//! What flows along an edge of the plan, and who takes it.
//!
//! The grammar of an edge is `(Batch | Watermark | Idle | Active | Partition | Barrier)* End`. Within a task an edge is a direct
//! call: an operator owns what is downstream of it and pushes a batch at a time, so a chain costs one virtual call a batch and queues
//! nothing. [`Output`] asserts on every edge, always, that nothing follows an end and that watermarks rise: it costs a comparison a batch.

use crate::batch::{Batch, Stamp};
use crate::context::{OperatorMetrics, TaskContext};
use crate::error::Result;
use crate::exchange::Router;
use crate::time::Timestamp;
use rivermark_checkpoint::Epoch;
use std::sync::Arc;

/// Everything but records.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// No record with a lower time follows, except late ones.
    Watermark(Timestamp),
    /// Nothing will come for a while: hold nothing back because of this edge. Behind `event_time` nobody says so: it passes on the
    /// time of partitions that are not silent.
    Idle,
    /// The end of [`Signal::Idle`].
    Active,
    /// A source partition upstream changed. Stays within the task that reads it.
    Partition(PartitionChange),
    /// Records before belong to the epoch's snapshot, records after do not (Carbone et al., "Lightweight Asynchronous
    /// Snapshots for Distributed Dataflows", 2015).
    Barrier(Epoch),
    /// Nothing follows.
    End,
}

/// What happened to a source partition, by its index in the job's table.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PartitionChange {
    /// This task reads it from now on.
    Opened(u16),
    /// It has had nothing for the idle time-out.
    Idle(u16),
    /// It has records again.
    Active(u16),
    /// It has no more records, ever.
    Ended(u16),
}

/// One step of a task: takes records of type `In`, owns what is downstream.
///
/// An implementation forwards every signal, after whatever it has to emit because of it; `Barrier` after it has added
/// its state to the checkpoint. It is called by one thread at a time and must not block.
///
/// Where a watermark brings about more than a few batches, an operator directly behind an exchange may answer it in parts: it
/// holds the signal, and [`Operator::go_on`] is called, with other work of the worker in between, until all is done. So what a million
/// windows give at once waits in their state for room downstream, rather than in memory in front of a full channel.
pub trait Operator<In> {
    /// Takes all records out of `batch` and leaves its memory to the caller.
    fn on_batch(&mut self, batch: &mut Batch<In>, cx: &mut TaskContext<'_>) -> Result<()>;

    /// Takes a signal.
    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()>;

    /// Does some more of what the last signal brought about, and answers whether all of it is done. Nothing else is taken before it is, but
    /// [`Operator::flush`] may be called.
    fn go_on(&mut self, _cx: &mut TaskContext<'_>) -> Result<bool> {
        Ok(true)
    }

    /// Passes on whatever is held back to make batches larger. Called whenever the task is about to have nothing to do.
    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()>;

    /// Itself, if it is the sending end of an exchange and nothing else.
    fn as_router(&mut self) -> Option<&mut Router<In>> {
        None
    }
}

/// Full batches that a watermark brings about before other work has its turn: some tens of milliseconds.
const BATCHES_IN_ONE_GO: usize = 64;

/// How to copy a batch, for a stream that has more than one consumer.
pub(crate) type CloneBatch<T> = fn(&Batch<T>) -> Batch<T>;

/// An operator at the receiving end of an edge, with its counters.
pub(crate) type Consumer<T> = (Box<dyn Operator<T>>, Arc<OperatorMetrics>);

/// The sending end of an edge: a buffer, and the operators that consume it. Counts what goes out and in, a batch at a time.
pub struct Output<T> {
    consumers: Vec<Consumer<T>>,
    metrics: Arc<OperatorMetrics>,
    clone: Option<CloneBatch<T>>,
    buffer: Batch<T>,
    mark: usize,
    capacity: usize,
    sent: u64,
    ended: bool,
    watermark: Timestamp,
}

impl<T> Output<T> {
    /// An edge to `consumers`; more than one needs `clone`. It is full with `capacity` records.
    pub(crate) fn new(
        consumers: Vec<Consumer<T>>,
        metrics: Arc<OperatorMetrics>,
        clone: Option<CloneBatch<T>>,
        capacity: usize,
    ) -> Self {
        assert!(consumers.len() <= 1 || clone.is_some(), "a stream with several consumers must be cloneable");
        let buffer = Batch::new();
        Output {
            consumers,
            metrics,
            clone,
            buffer,
            mark: 0,
            capacity,
            sent: 0,
            ended: false,
            watermark: Timestamp::MIN,
        }
    }

    /// Adds a record to the buffer; [`Output::send`] passes it on.
    #[inline]
    pub fn push(&mut self, stamp: Stamp, value: T) {
        self.buffer.push(stamp, value);
    }

    /// Remembers what is buffered.
    pub(crate) fn mark(&mut self) {
        self.mark = self.buffer.len();
    }

    /// Takes back what was buffered since the mark. Nothing may have been sent meanwhile.
    pub(crate) fn undo(&mut self) {
        self.buffer.truncate(self.mark);
    }

    /// Whether enough is buffered to be worth a [`Output::send`].
    #[inline]
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= self.capacity
    }

    /// Passes on what was buffered.
    pub fn send(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let sent = self.forward(&mut buffer, cx);
        buffer.clear();
        self.buffer = buffer;
        sent
    }

    /// Passes on a batch as it is. The buffer must be empty.
    pub fn forward(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        assert!(!self.ended, "records after the end of a stream");
        if batch.is_empty() {
            return Ok(());
        }
        self.metrics.add_out(batch.len());
        self.sent += batch.len() as u64;
        let Some(((last, metrics), others)) = self.consumers.split_last_mut() else {
            batch.clear();
            return Ok(());
        };
        if let Some(clone) = self.clone {
            for (consumer, metrics) in others {
                metrics.add_in(batch.len());
                consumer.on_batch(&mut clone(batch), cx)?;
            }
        }
        metrics.add_in(batch.len());
        last.on_batch(batch, cx)
    }

    /// Passes on a signal, after what was buffered.
    pub fn signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.send(cx)?;
        assert!(!self.ended, "{signal:?} after the end of a stream");
        match signal {
            Signal::End => self.ended = true,
            Signal::Watermark(to) => {
                assert!(to > self.watermark, "watermark {to} after {}", self.watermark);
                self.watermark = to;
            }
            _ => {}
        }
        self.consumers.iter_mut().try_for_each(|(consumer, _)| consumer.on_signal(signal, cx))
    }

    /// Lets the consumers do some more of what the last signal brought about; answers whether all of them are done.
    pub(crate) fn go_on(&mut self, cx: &mut TaskContext<'_>) -> Result<bool> {
        self.consumers.iter_mut().try_fold(true, |done, (consumer, _)| Ok(consumer.go_on(cx)? && done))
    }

    /// How many records have gone out here.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// How many records a watermark may bring about before other work of the worker has its turn.
    pub(crate) fn in_one_go(&self) -> usize {
        BATCHES_IN_ONE_GO * self.capacity
    }

    /// The exchange's sending end, where it alone consumes this edge: whoever makes records one by one may give them to it without a batch
    /// in between, and says with [`Output::count`] how many. What was buffered here must have been sent.
    #[inline]
    pub(crate) fn router(&mut self) -> Option<&mut Router<T>> {
        assert!(!self.ended, "records after the end of a stream");
        let [(consumer, _)] = &mut self.consumers[..] else { return None };
        consumer.as_router()
    }

    /// Counts records that passed by the buffer.
    pub(crate) fn count(&mut self, records: usize) {
        self.metrics.add_out(records);
        self.sent += records as u64;
        self.consumers.iter().for_each(|(_, metrics)| metrics.add_in(records));
    }

    /// Passes on what was buffered and asks the consumers to do the same.
    pub fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.send(cx)?;
        self.consumers.iter_mut().try_for_each(|(consumer, _)| consumer.flush(cx))
    }
}
