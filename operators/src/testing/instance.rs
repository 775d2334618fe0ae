//! One worker's tasks under the harness: built, stepped until nothing moves, snapshot.

use super::{Fed, Fill, Mode};
use crate::batch::{Batch, Origin, Stamp};
use crate::context::{
    CheckpointParts, ExchangeId, JournalPart, OperatorMetrics, Payload, TaskContext, Transport,
};
use crate::edge::{Operator, Output, PartitionChange, Signal};
use crate::error::{Error, Result};
use crate::journal::StoredJournal;
use crate::partitions::{PartitionEntry, Partitions, Remembered};
use crate::plan::{InletTask, Plan, Resources, TaskEnvironment, Tasks};
use crate::source::{Progress, SourceTask, Waker};
use crate::time::Timestamp;
use parking_lot::Mutex;
use rivermark_checkpoint::Epoch;
use rivermark_state::snapshot::RestoreSource;
use rivermark_state::{
    KeyedStore, MemoryBackends, RestoreFile, RestorePart, Snapshot, SnapshotSource, StoreSpec,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Key groups of a flow under test.
const KEY_GROUPS: u16 = 128;

/// What outlives an instance: the last snapshot, and counters.
#[derive(Default)]
pub(super) struct Kept {
    epoch: u64,
    states: HashMap<Arc<str>, RestorePart>,
    /// State files by operator and name: a snapshot names earlier ones without their content.
    files: HashMap<(Arc<str>, String), RestoreFile>,
    partitions: HashMap<u16, Remembered>,
    /// Chunks of journals, by operator, partition and name.
    chunks: HashMap<(Arc<str>, u16, String), Vec<u8>>,
    watermarks: BTreeMap<String, i64>,
    ends: BTreeMap<String, i64>,
    pub(super) metrics: HashMap<Arc<str>, Arc<OperatorMetrics>>,
}

impl Kept {
    pub(super) fn begin(&mut self, plan: &Plan) {
        let metrics = |name: &Arc<str>| (Arc::clone(name), Arc::new(OperatorMetrics::new(Arc::clone(name))));
        self.metrics = plan.nodes().iter().map(|node| metrics(&node.name)).collect();
    }

    pub(super) fn next_epoch(&mut self) -> Epoch {
        self.epoch += 1;
        Epoch(self.epoch)
    }

    pub(super) fn keep(&mut self, parts: CheckpointParts) {
        for (operator, snapshot) in parts.states {
            let part = self.part(&operator, snapshot);
            self.states.insert(operator, part);
        }
        self.partitions.clear();
        for part in parts.partition_states {
            let of_partition = self.partitions.entry(part.partition).or_default();
            of_partition.states.insert(part.operator.to_string(), part.state);
        }
        for part in parts.journals {
            let operator = part.operator.to_string();
            let partition = part.partition;
            let journal = self.journal(part);
            self.partitions.entry(partition).or_default().journals.insert(operator, journal);
        }
        let times = |times: &[(Arc<str>, Timestamp)]| {
            times.iter().map(|(name, at)| (name.to_string(), at.millis())).collect()
        };
        self.watermarks = times(&parts.watermarks);
        self.ends = times(&parts.ends);
    }

    fn journal(&mut self, part: JournalPart) -> StoredJournal {
        let JournalPart { operator, partition, chunks, tail } = part;
        let (mut names, mut contents) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let kept = self.chunks.entry((Arc::clone(&operator), partition, chunk.name.clone())).or_default();
            if let Some(content) = chunk.content {
                *kept = content;
            }
            contents.push(kept.clone());
            names.push(chunk.name);
        }
        StoredJournal::new(names, tail, move |index| Ok(contents[index].clone()))
    }

    fn part(&mut self, operator: &Arc<str>, snapshot: Snapshot) -> RestorePart {
        let mut files = Vec::new();
        for file in snapshot.files {
            let id = (Arc::clone(operator), file.name.clone());
            if let SnapshotSource::Bytes(bytes) = file.source {
                let source = RestoreSource::Bytes(bytes);
                self.files.insert(id.clone(), RestoreFile { name: file.name, role: file.role, source });
            }
            // The memory backend has no paths, so what is not here was kept before.
            files.extend(self.files.get(&id).cloned());
        }
        RestorePart { meta: snapshot.meta, files }
    }
}

/// Carries what one worker sends to itself.
#[derive(Default)]
struct Local(HashMap<ExchangeId, VecDeque<Payload>>);

impl Transport for Local {
    fn send(&mut self, exchange: ExchangeId, _to: usize, payload: Payload) {
        self.0.entry(exchange).or_default().push_back(payload);
    }
}

pub(super) struct Instance {
    tasks: Tasks,
    transport: Local,
    parts: CheckpointParts,
}

impl Instance {
    pub(super) fn build(
        plan: &Plan,
        kept: &Kept,
        inputs: usize,
        mode: Mode,
        now: Timestamp,
    ) -> Result<Instance> {
        let partitions = Arc::new(Partitions::default());
        let entries: Vec<Arc<PartitionEntry>> = (0..inputs)
            .map(|number| {
                let restored = kept.partitions.get(&(number as u16)).cloned().unwrap_or_default();
                let name = format!("input[{number}]");
                partitions.add("input".into(), number as u32, name, restored, Remembered::default())
            })
            .collect();
        partitions.set_known();
        let mut open_store = |operator: &Arc<str>| {
            let spec = StoreSpec::new(operator.to_string());
            let part = kept.states.get(operator).cloned();
            KeyedStore::open(spec, &MemoryBackends, part.into_iter().collect())
                .map_err(|e| Error::state(operator, "opening its state in the harness", e))
        };
        let tasks = plan.build(TaskEnvironment {
            worker: 0,
            workers: 1,
            key_groups: KEY_GROUPS,
            generation: 1,
            partitions,
            metrics: &kept.metrics,
            watermarks: &kept.watermarks,
            ends: &kept.ends,
            resources: Arc::new(Resources::default()),
            held_batches: usize::MAX,
            batch_capacity: if mode == Mode::OneOut { 1 } else { Batch::<()>::CAPACITY },
            waker: Waker::none(),
            open_store: &mut open_store,
        })?;
        let mut instance = Instance { tasks, transport: Local::default(), parts: CheckpointParts::default() };
        instance.open(entries, now)?;
        Ok(instance)
    }

    /// Gives each input its partition. Sources were built last to first.
    fn open(&mut self, entries: Vec<Arc<PartitionEntry>>, now: Timestamp) -> Result<()> {
        for (source, entry) in self.tasks.sources.iter_mut().rev().zip(entries) {
            let mut cx = TaskContext { transport: &mut self.transport, now, parts: &mut self.parts };
            source.assign(entry, None, Waker::none(), &mut cx)?;
        }
        Ok(())
    }

    /// Processes until nothing moves any more.
    pub(super) fn settle(&mut self, now: Timestamp) -> Result<()> {
        loop {
            let mut busy = false;
            let mut cx = TaskContext { transport: &mut self.transport, now, parts: &mut self.parts };
            for source in &mut self.tasks.sources {
                busy |= source.poll(&mut cx)? == Progress::Ready;
                source.flush(&mut cx)?;
            }
            self.tasks.inlets.iter_mut().try_for_each(|task| task.inlet.flush(&mut cx))?;
            busy |= self.drain(now)?;
            if !busy {
                return Ok(());
            }
        }
    }

    /// Takes everything out of the exchanges. Answers whether there was anything.
    fn drain(&mut self, now: Timestamp) -> Result<bool> {
        let mut some = false;
        for InletTask { exchange, inlet, .. } in &mut self.tasks.inlets {
            while let Some(payload) = self.transport.0.get_mut(exchange).and_then(VecDeque::pop_front) {
                some = true;
                if let Payload::Signal(Signal::Barrier(_)) = payload {
                    self.parts.ends_reached += 1;
                }
                let mut cx = TaskContext { transport: &mut self.transport, now, parts: &mut self.parts };
                match payload {
                    Payload::Batch(batch) => inlet.on_batch(batch, &mut cx)?,
                    Payload::Signal(signal) => {
                        inlet.on_signal(signal, &mut cx)?;
                        // A worker flushes whenever it likes, so also in between.
                        while !inlet.go_on(&mut cx)? {
                            inlet.flush(&mut cx)?;
                        }
                    }
                }
            }
        }
        Ok(some)
    }

    /// Sends a barrier through all of it.
    ///
    /// # Panics
    /// If the barrier does not reach every end: an operator has kept it.
    pub(super) fn snapshot(&mut self, epoch: Epoch, now: Timestamp) -> Result<CheckpointParts> {
        self.settle(now)?;
        self.parts = CheckpointParts::default();
        for source in &mut self.tasks.sources {
            let mut cx = TaskContext { transport: &mut self.transport, now, parts: &mut self.parts };
            source.barrier(epoch, &mut cx)?;
        }
        self.settle(now)?;
        let ends = self.tasks.ends + self.tasks.inlets.len();
        assert_eq!(self.parts.ends_reached, ends, "a barrier did not reach every end of the stream");
        Ok(std::mem::take(&mut self.parts))
    }
}

/// The source behind an input.
pub(super) struct Feeding<T> {
    name: Arc<str>,
    fill: Arc<Mutex<Fill<T>>>,
    out: Output<T>,
    partition: u16,
}

impl<T> Feeding<T> {
    pub(super) fn new(name: Arc<str>, fill: Arc<Mutex<Fill<T>>>, out: Output<T>) -> Self {
        Feeding { name, fill, out, partition: 0 }
    }

    fn stamp(&self, time: Timestamp) -> Stamp {
        let mut fill = self.fill.lock();
        fill.offset += 1;
        Stamp { time, watermark: fill.watermark, origin: Origin::new(self.partition, fill.offset - 1) }
    }

    /// Passes on what is not a record, and remembers it.
    fn tell(&mut self, fed: Fed<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        match fed {
            Fed::Record(..) => Ok(()),
            Fed::Watermark(to) => self.watermark(to, cx),
            Fed::Idle => {
                self.fill.lock().idle = true;
                self.change(PartitionChange::Idle, cx)?;
                self.out.signal(Signal::Idle, cx)
            }
            Fed::Active => {
                self.fill.lock().idle = false;
                self.change(PartitionChange::Active, cx)?;
                self.out.signal(Signal::Active, cx)
            }
            Fed::End => {
                self.fill.lock().ended = true;
                self.change(PartitionChange::Ended, cx)?;
                self.watermark(Timestamp::MAX, cx)
            }
        }
    }

    fn watermark(&mut self, to: Timestamp, cx: &mut TaskContext<'_>) -> Result<()> {
        let before = self.fill.lock().watermark;
        if to <= before {
            return Ok(());
        }
        self.fill.lock().watermark = to;
        self.out.signal(Signal::Watermark(to), cx)
    }

    fn change(&mut self, change: impl Fn(u16) -> PartitionChange, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(Signal::Partition(change(self.partition)), cx)
    }
}

impl<T> SourceTask for Feeding<T> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn assign(
        &mut self,
        entry: Arc<PartitionEntry>,
        _position: Option<&[u8]>,
        _waker: Waker,
        cx: &mut TaskContext<'_>,
    ) -> Result<()> {
        self.partition = entry.index;
        self.change(PartitionChange::Opened, cx)?;
        // What earlier instances were told holds for this one too.
        let (watermark, idle, ended) = {
            let fill = self.fill.lock();
            (fill.watermark, fill.idle, fill.ended)
        };
        if watermark > Timestamp::MIN {
            self.out.signal(Signal::Watermark(watermark), cx)?;
        }
        if idle {
            self.change(PartitionChange::Idle, cx)?;
            self.out.signal(Signal::Idle, cx)?;
        }
        if ended { self.change(PartitionChange::Ended, cx) } else { Ok(()) }
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Result<Progress> {
        let fed = std::mem::take(&mut self.fill.lock().fed);
        if fed.is_empty() {
            return Ok(Progress::Pending);
        }
        let mut batch = Batch::new();
        for fed in fed {
            if let Fed::Record(time, record) = fed {
                batch.push(self.stamp(time), record);
            } else {
                self.out.forward(&mut batch, cx)?;
                batch.clear();
                self.tell(fed, cx)?;
            }
        }
        self.out.forward(&mut batch, cx)?;
        Ok(Progress::Ready)
    }

    fn barrier(&mut self, epoch: Epoch, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(Signal::Barrier(epoch), cx)
    }

    fn drain(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        if self.fill.lock().ended { Ok(()) } else { self.tell(Fed::End, cx) }
    }

    fn end(&mut self, _cx: &mut TaskContext<'_>) -> Result<()> {
        Ok(())
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }

    fn backlog(&self) -> Option<u64> {
        None
    }
}

/// The sink behind an output.
pub(super) struct Noting<T> {
    pub(super) rows: Arc<Mutex<Vec<(Timestamp, T)>>>,
}

impl<T> Operator<T> for Noting<T> {
    fn on_batch(&mut self, batch: &mut Batch<T>, _cx: &mut TaskContext<'_>) -> Result<()> {
        self.rows.lock().extend(batch.drain().map(|(stamp, row)| (stamp.time, row)));
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        cx.parts.ends_reached += usize::from(matches!(signal, Signal::Barrier(_)));
        Ok(())
    }

    fn flush(&mut self, _cx: &mut TaskContext<'_>) -> Result<()> {
        Ok(())
    }
}
