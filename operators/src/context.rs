//! What a task hands to its operators with each call, and what operators hand back at a barrier.

use crate::batch::{Origin, Stamp};
use crate::edge::Signal;
use crate::error::{Blame, BoxError, Error, Result};
use crate::journal::{Journal, JournalChunk};
use crate::time::Timestamp;
use rivermark_checkpoint::Epoch;
use rivermark_state::{KeyedStore, Snapshot};
use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Names one exchange of a plan.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub u32);

/// What crosses an exchange: a batch whose type only its two ends know, or a signal.
pub enum Payload {
    /// A `Batch<T>`, boxed.
    Batch(Box<dyn Any + Send>),
    /// A signal to every receiver.
    Signal(Signal),
}

/// Carries payloads to other workers. Implemented by the engine over bounded channels and by the test harness.
///
/// Sending never blocks and never fails: what does not fit is kept in order by the transport, which makes its worker
/// stop reading sources until it is gone.
pub trait Transport {
    /// Sends to the worker `to` of an exchange, in order.
    fn send(&mut self, exchange: ExchangeId, to: usize, payload: Payload);

    /// Lets every worker have a step: something that all can see has changed. Default: nothing, for where there is one worker.
    fn wake_all(&mut self) {}
}

/// Everything the operators of one task call may use.
pub struct TaskContext<'a> {
    /// The way to the other workers.
    pub transport: &'a mut dyn Transport,
    /// The processing time of this step. Time is handed in, so that a simulation can own it.
    pub now: Timestamp,
    /// Where operators put their part of the checkpoint when a barrier reaches them.
    pub parts: &'a mut CheckpointParts,
}

/// What one worker adds to a checkpoint.
#[derive(Debug, Default)]
pub struct CheckpointParts {
    /// The newest epoch known to be stored, told to operators with the barrier; 0 for none.
    pub stored: u64,
    /// Positions of source partitions.
    pub positions: Vec<PositionPart>,
    /// What operators remember for each source partition, such as its watermark.
    pub partition_states: Vec<PartitionStatePart>,
    /// What operators have written down about source partitions.
    pub journals: Vec<JournalPart>,
    /// Snapshots of keyed state, by operator.
    pub states: Vec<(Arc<str>, Snapshot)>,
    /// What sinks prepared: durable and invisible until the token is committed.
    pub tokens: Vec<TokenPart>,
    /// The watermarks of operators that keep state. All tasks of one exchange have seen the same one when a barrier is aligned.
    pub watermarks: Vec<(Arc<str>, Timestamp)>,
    /// How far the event time of operators had come when their streams ended. Tasks differ; the greatest counts for all.
    pub ends: Vec<(Arc<str>, Timestamp)>,
    /// Counts that must survive restarts, by operator; each task's since the attempt began.
    pub counters: Vec<(Arc<str>, u64)>,
    /// How many ends of the plan the barrier has reached.
    pub ends_reached: usize,
}

impl CheckpointParts {
    /// Adds the state of the operator `name` at its barrier.
    pub(crate) fn add_state(
        &mut self,
        name: &Arc<str>,
        store: &mut KeyedStore,
        epoch: Epoch,
        watermark: Timestamp,
    ) -> Result<()> {
        if self.stored > 0 {
            store.stored(self.stored);
        }
        let snapshot = store.snapshot(epoch.0);
        let snapshot =
            snapshot.map_err(|e| Error::state(name, format!("taking its snapshot for epoch {epoch}"), e))?;
        self.states.push((Arc::clone(name), snapshot));
        self.watermarks.push((Arc::clone(name), watermark));
        Ok(())
    }

    /// Adds what the operator `name` has written down about the records of a source partition, at its barrier.
    pub(crate) fn add_journal(&mut self, name: &Arc<str>, partition: u16, journal: &mut Journal, epoch: u64) {
        let (chunks, tail) = journal.at_barrier(epoch, self.stored);
        self.journals.push(JournalPart { operator: Arc::clone(name), partition, chunks, tail });
    }
}

/// What a sink prepared on one worker.
#[derive(Clone, Debug)]
pub struct TokenPart {
    /// The sink's name in the flow.
    pub sink: Arc<str>,
    /// The epoch whose barrier made it prepare.
    pub epoch: Epoch,
    /// Names what is prepared, in the sink's own encoding.
    pub token: Vec<u8>,
}

/// The position of one source partition.
#[derive(Clone, Debug)]
pub struct PositionPart {
    /// The source's name in the flow.
    pub source: Arc<str>,
    /// The partition's index in the job's table.
    pub partition: u16,
    /// Where to read on, in the source's own encoding.
    pub position: Vec<u8>,
    /// The offset behind the last record that was read, if any was.
    pub read_to: Option<u64>,
}

/// What an operator remembers for one source partition.
#[derive(Clone, Debug)]
pub struct PartitionStatePart {
    /// The operator's name in the flow.
    pub operator: Arc<str>,
    /// The partition's index in the job's table.
    pub partition: u16,
    /// The operator's own encoding.
    pub state: Vec<u8>,
}

/// What an operator has written down about the records of one source partition.
#[derive(Clone, Debug)]
pub struct JournalPart {
    /// The operator's name in the flow.
    pub operator: Arc<str>,
    /// The partition's index in the job's table.
    pub partition: u16,
    /// Its chunks, in order.
    pub chunks: Vec<JournalChunk>,
    /// What follows the last of them.
    pub tail: Vec<u8>,
}

/// Remembers which record a user's function was working on when it panicked.
///
/// The record is kept in a guard on the stack; only its destructor, and only during a panic, writes it here. So knowing the culprit
/// costs two stores a record and nothing a batch.
#[derive(Clone, Default)]
pub struct BlameCell(Rc<RefCell<Option<Blame>>>);

impl BlameCell {
    /// Starts a run over records by the operator `name`.
    pub(crate) fn watch<'a>(&'a self, name: &'a Arc<str>) -> Watch<'a> {
        Watch { cell: self, name, origin: Origin::NONE, time: Timestamp::MIN }
    }

    /// Takes what the last panic left.
    pub fn take(&self) -> Option<Blame> {
        self.0.borrow_mut().take()
    }
}

/// The record in hand; see [`BlameCell`].
pub(crate) struct Watch<'a> {
    cell: &'a BlameCell,
    name: &'a Arc<str>,
    origin: Origin,
    time: Timestamp,
}

impl Watch<'_> {
    /// The next record is `stamp`'s.
    #[inline]
    pub(crate) fn at(&mut self, stamp: &Stamp) {
        self.origin = stamp.origin;
        self.time = stamp.time;
    }

    fn blame(&self) -> Blame {
        Blame { operator: self.name.to_string(), origin: self.origin, time: self.time, partition: None }
    }

    /// The error of a user's function that failed on the record in hand.
    pub(crate) fn fail(&self, source: BoxError) -> Error {
        Error::Function { blame: Box::new(self.blame()), source }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The innermost guard is dropped first and knows best.
            self.cell.0.borrow_mut().get_or_insert_with(|| self.blame());
        }
    }
}

/// Counters of one operator over all workers. Relaxed: each is exact by itself, together they are a moment's picture.
#[derive(Debug)]
pub struct OperatorMetrics {
    /// The operator's name in the flow.
    pub name: Arc<str>,
    records_in: AtomicU64,
    records_out: AtomicU64,
    bytes: AtomicU64,
    late: AtomicU64,
    dead_letters: AtomicU64,
    watermark: AtomicI64,
    backpressured_ms: AtomicU64,
}

impl OperatorMetrics {
    /// Zeroed counters for the operator `name`.
    pub fn new(name: Arc<str>) -> Self {
        OperatorMetrics {
            name,
            records_in: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            late: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            watermark: AtomicI64::new(i64::MIN),
            backpressured_ms: AtomicU64::new(0),
        }
    }

    /// Counts records that came in.
    pub fn add_in(&self, records: usize) {
        self.records_in.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Counts records that went out.
    pub fn add_out(&self, records: usize) {
        self.records_out.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Counts bytes read or written outside.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts records that were late for at least one of their windows.
    pub fn add_late(&self, records: u64) {
        self.late.fetch_add(records, Ordering::Relaxed);
    }

    /// Counts a record that the operator's function failed on, and that became a dead letter.
    pub fn add_dead_letter(&self) {
        self.dead_letters.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the operator's watermark. With several workers, the last to report.
    pub fn set_watermark(&self, watermark: Timestamp) {
        self.watermark.store(watermark.millis(), Ordering::Relaxed);
    }

    /// Counts time in which a worker had no room for what it sent into this exchange.
    pub fn add_backpressured_ms(&self, millis: u64) {
        self.backpressured_ms.fetch_add(millis, Ordering::Relaxed);
    }

    /// Begins where the checkpoint left off.
    pub fn restore_late(&self, late: u64) {
        self.late.store(late, Ordering::Relaxed);
    }

    /// Records that came in since the job started.
    pub fn records_in(&self) -> u64 {
        self.records_in.load(Ordering::Relaxed)
    }

    /// Records that went out since the job started.
    pub fn records_out(&self) -> u64 {
        self.records_out.load(Ordering::Relaxed)
    }

    /// Bytes read or written outside since the job started.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Records late for at least one of their windows, since the flow's first start.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Dead letters since the job started.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }

    /// For how long what was sent into this exchange has found no room, summed over workers, since the job started.
    pub fn backpressured(&self) -> Duration {
        Duration::from_millis(self.backpressured_ms.load(Ordering::Relaxed))
    }

    /// The watermark last reported.
    pub fn watermark(&self) -> Timestamp {
        Timestamp::from_millis(self.watermark.load(Ordering::Relaxed))
    }
}
