//! A worker: one shard of every operator, as a machine that steps.
//!
//! A step never blocks:
//! 1. take what the driver asks for (partitions to read, a barrier, the end);
//! 2. try again to send what did not fit into full channels;
//! 3. drain the inlets of exchanges, the last one first, where the exchanges that they feed have room. Those that feed none always may, so
//!    there is always one that moves. A barrier that is waited for at one exchange never needs room behind it, nor room in exchanges of
//!    another branch, so no cycle of full channels and waiting barriers can hold either;
//!    (what unions hold back for a barrier is bounded like a channel, see [`rivermark_operators::holding`]);
//! 4. if everything sent has found room, no union holds too much, and no operator waits for too many replies from outside, read at most one
//!    batch of each source;
//! 5. if there was nothing to do, or every few steps, flush what was held back to make batches larger.
//!
//! The engine calls `step` in a loop on a thread of its own and parks it when there is nothing to do; the simulation calls the same
//! `step` of all workers on one thread, in an order drawn from a seed.

use crate::channels::Channels;
use crate::inlet::AlignedInlet;
use crate::job::JobShared;
use crossbeam_channel::{Receiver, Sender};
use rivermark_checkpoint::{Epoch, TaskId};
use rivermark_operators::context::{BlameCell, CheckpointParts, TaskContext};
use rivermark_operators::holding::{Hold, Holding};
use rivermark_operators::outstanding::Outstanding;
use rivermark_operators::partitions::{PartitionEntry, Partitions};
use rivermark_operators::plan::Tasks;
use rivermark_operators::source::{Progress, SourceTask, Waker};
use rivermark_operators::{Error, Result, Timestamp, panic_message};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the driver asks of a worker.
pub(crate) enum Command {
    /// Read this partition, from this position.
    Assign { partition: Arc<PartitionEntry>, position: Option<Vec<u8>> },
    /// All partitions known now have been assigned: sources may be polled.
    Start,
    /// Take part in this checkpoint. With `last`, sources are not read after the barrier.
    Barrier { epoch: Epoch, last: bool },
    /// This checkpoint is given up: wait for its barrier no longer.
    Cancel { epoch: Epoch },
    /// Let all partitions end where they stand.
    Drain,
    /// End all streams: nothing follows.
    End,
}

/// What a worker tells the driver.
pub(crate) enum Report {
    /// The worker has rebuilt its operators and their state.
    Restored { worker: TaskId },
    /// The barrier has reached every end of the plan on this worker.
    Acknowledged { worker: TaskId, epoch: Epoch, parts: Box<CheckpointParts> },
    /// Every partition that this worker reads has ended; it had taken so many.
    SourcesEnded { worker: TaskId, taken: u64 },
    /// The worker cannot go on.
    Failed { worker: TaskId, error: Error },
    /// The worker has ended all streams.
    Ended,
}

/// What a step came to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something moved: step again.
    Busy,
    /// Nothing to do until woken.
    Idle,
    /// Nothing to do until another worker's event time has moved.
    Held,
    /// Nothing to do until then, or until woken: a source's rate limit is reached.
    Until(Timestamp),
    /// All streams have ended.
    Done,
}

/// Batches taken from one sender of an inlet in one step, so that none starves the others.
const BATCHES_PER_INLET: usize = 8;
/// The same of a job that offers its cores after each step: others wait for less.
const BATCHES_PER_SHORT_STEP: usize = 1;
/// Steps between flushes while there is always something to do.
const STEPS_PER_FLUSH: u32 = 4;

struct SourceState {
    task: Box<dyn SourceTask>,
    ended: bool,
}

pub(crate) struct Worker {
    id: TaskId,
    sources: Vec<SourceState>,
    inlets: Vec<AlignedInlet>,
    ends: usize,
    blame: BlameCell,
    outstanding: Outstanding,
    holds: Vec<Hold>,
    holding: Vec<Box<dyn Holding>>,
    channels: Channels,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    waker: Waker,
    partitions: Arc<Partitions>,
    shared: Arc<JobShared>,
    /// The newest epoch known to be stored.
    stored: Arc<AtomicU64>,
    parts: CheckpointParts,
    barrier: Option<Epoch>,
    started: bool,
    stopped_reading: bool,
    told_sources_ended: bool,
    /// How many partitions it was given, and took.
    taken: u64,
    steps_since_flush: u32,
    /// When the last step began.
    last_step: Option<Timestamp>,
    ended: bool,
}

/// What connects a worker to the others and to its driver.
pub(crate) struct WorkerSetup {
    pub(crate) id: TaskId,
    pub(crate) workers: usize,
    pub(crate) channels: Channels,
    pub(crate) commands: Receiver<Command>,
    pub(crate) reports: Sender<Report>,
    pub(crate) waker: Waker,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) shared: Arc<JobShared>,
    pub(crate) stored: Arc<AtomicU64>,
}

impl Worker {
    /// A worker over the operators `tasks`. It reports that it is restored.
    pub(crate) fn new(setup: WorkerSetup, tasks: Tasks) -> Worker {
        let workers = setup.workers;
        let inlets: Vec<_> = tasks.inlets.into_iter().map(|task| AlignedInlet::new(task, workers)).collect();
        let worker = Worker {
            id: setup.id,
            sources: tasks.sources.into_iter().map(|task| SourceState { task, ended: false }).collect(),
            // A barrier must have passed every inlet too: what is behind one may have no sink of its own.
            ends: tasks.ends + inlets.len(),
            inlets,
            blame: tasks.blame,
            outstanding: tasks.outstanding,
            holds: tasks.holds,
            holding: tasks.holding,
            channels: setup.channels,
            commands: setup.commands,
            reports: setup.reports,
            waker: setup.waker,
            partitions: setup.partitions,
            shared: setup.shared,
            stored: setup.stored,
            parts: CheckpointParts::default(),
            barrier: None,
            started: false,
            stopped_reading: false,
            told_sources_ended: false,
            taken: 0,
            steps_since_flush: 0,
            last_step: None,
            ended: false,
        };
        worker.report(Report::Restored { worker: worker.id });
        worker
    }

    /// One step at the processing time `now`. An error or a panic of a user's function ends the worker: it is reported
    /// with the operator and the record, and the answer is [`Step::Done`].
    pub(crate) fn step(&mut self, now: Timestamp) -> Step {
        if self.ended {
            return Step::Done;
        }
        let stepped = catch_unwind(AssertUnwindSafe(|| self.try_step(now)));
        let error = match stepped {
            Ok(Ok(step)) => return step,
            Ok(Err(error)) => self.name_partition(error),
            Err(panic) => self.describe_panic(&*panic),
        };
        self.ended = true;
        self.report(Report::Failed { worker: self.id, error });
        Step::Done
    }

    fn try_step(&mut self, now: Timestamp) -> Result<Step> {
        self.count_backpressure(now);
        let mut busy = self.obey(now)?;
        if self.ended {
            return Ok(Step::Done);
        }
        busy |= self.channels.retry();
        busy |= self.drain(now)?;
        let may_read = self.may_read();
        let progress = if may_read { self.read(now)? } else { Progress::Pending };
        busy |= progress == Progress::Ready;
        self.steps_since_flush += 1;
        if !busy || self.steps_since_flush >= STEPS_PER_FLUSH {
            self.steps_since_flush = 0;
            self.flush(now)?;
            self.shared.set_backlog(self.id, self.sources.iter().map(|source| source.task.backlog()).sum());
            // So is reading what replies have made room for.
            busy |= self.started && !may_read && self.may_read();
            // What was flushed to this worker itself is work.
            busy |= self.channels.has_local() && self.drain(now)?;
        }
        self.acknowledge();
        self.channels.wake_others();
        self.shared.count_step(self.started && !may_read && !self.stopped_reading);
        self.shared.pulses.beat(self.id, busy | self.channels.take_sent() | self.outstanding.is_any());
        Ok(match (busy, progress) {
            (true, _) => Step::Busy,
            (false, Progress::Held) => Step::Held,
            (false, Progress::Throttled(until)) => Step::Until(until),
            (false, _) => Step::Idle,
        })
    }

    /// Counts the time since the last step for the exchanges that it left full. Once a millisecond at most.
    fn count_backpressure(&mut self, now: Timestamp) {
        let last = self.last_step.get_or_insert(now);
        let passed = now.millis().saturating_sub(last.millis());
        if passed <= 0 {
            return;
        }
        *last = now;
        for exchange in self.channels.full().filter_map(|exchange| self.shared.exchange(exchange)) {
            exchange.add_backpressured_ms(passed as u64);
        }
    }

    /// Takes all commands that have come.
    fn obey(&mut self, now: Timestamp) -> Result<bool> {
        let mut some = false;
        while let Ok(command) = self.commands.try_recv() {
            some = true;
            let mut cx = TaskContext { transport: &mut self.channels, now, parts: &mut self.parts };
            match command {
                Command::Assign { partition, position } => {
                    let of_partition = |source: &&mut SourceState| *source.task.name() == partition.source;
                    let source = self.sources.iter_mut().find(of_partition);
                    let source = source.expect("partitions are of sources of the plan");
                    source.ended = false;
                    self.told_sources_ended = false;
                    self.taken += 1;
                    source.task.assign(
                        Arc::clone(&partition),
                        position.as_deref(),
                        self.waker.clone(),
                        &mut cx,
                    )?;
                }
                Command::Start => self.started = true,
                Command::Barrier { epoch, last } => {
                    // What an epoch that was given up had collected is void; prepared tokens are not, they were added to `parts`
                    // by sinks whose records will not come again.
                    let tokens = std::mem::take(&mut cx.parts.tokens);
                    let stored = self.stored.load(Ordering::Acquire);
                    *cx.parts = CheckpointParts { tokens, stored, ..CheckpointParts::default() };
                    self.barrier = Some(epoch);
                    self.stopped_reading |= last;
                    self.sources.iter_mut().try_for_each(|source| source.task.barrier(epoch, &mut cx))?;
                }
                Command::Cancel { epoch } => {
                    self.inlets.iter_mut().for_each(|inlet| inlet.cancel(epoch));
                    self.holding.iter_mut().try_for_each(|union| union.cancel(epoch, &mut cx))?;
                }
                Command::Drain => {
                    self.sources.iter_mut().try_for_each(|source| source.task.drain(&mut cx))?;
                }
                Command::End => {
                    self.sources.iter_mut().try_for_each(|source| source.task.end(&mut cx))?;
                    self.ended = true;
                    self.report(Report::Ended);
                    return Ok(true);
                }
            }
        }
        Ok(some)
    }

    /// Whether what has been read before has found its place.
    fn may_read(&self) -> bool {
        let has_room = self.channels.all_have_room() && !self.holds.iter().any(Hold::is_full);
        self.started && !self.stopped_reading && has_room && !self.outstanding.is_full()
    }

    /// Takes batches and signals out of exchanges, later ones first.
    fn drain(&mut self, now: Timestamp) -> Result<bool> {
        let mut some = false;
        let batches = if self.shared.offers_cores() { BATCHES_PER_SHORT_STEP } else { BATCHES_PER_INLET };
        for at in (0..self.inlets.len()).rev() {
            some |= self.inlets[at].drain(batches, &mut self.channels, now, &mut self.parts)?;
        }
        Ok(some)
    }

    fn read(&mut self, now: Timestamp) -> Result<Progress> {
        let (mut ready, mut held, mut throttled) = (false, false, None::<Timestamp>);
        for source in self.sources.iter_mut().filter(|source| !source.ended) {
            let mut cx = TaskContext { transport: &mut self.channels, now, parts: &mut self.parts };
            match source.task.poll(&mut cx)? {
                Progress::Ready => ready = true,
                Progress::Held => held = true,
                Progress::Throttled(until) => {
                    throttled = Some(throttled.map_or(until, |before| before.min(until)));
                }
                Progress::Ended => source.ended = true,
                Progress::Pending => {}
            }
        }
        // What waits for replies is still to come.
        if !self.told_sources_ended
            && !self.outstanding.is_any()
            && self.sources.iter().all(|source| source.ended)
        {
            self.told_sources_ended = true;
            self.report(Report::SourcesEnded { worker: self.id, taken: self.taken });
        }
        Ok(match (ready, held, throttled) {
            (true, ..) => Progress::Ready,
            (false, true, _) => Progress::Held,
            (false, false, Some(until)) => Progress::Throttled(until),
            (false, false, None) => Progress::Pending,
        })
    }

    fn flush(&mut self, now: Timestamp) -> Result<()> {
        let mut cx = TaskContext { transport: &mut self.channels, now, parts: &mut self.parts };
        self.sources.iter_mut().try_for_each(|source| source.task.flush(&mut cx))?;
        self.inlets.iter_mut().try_for_each(|inlet| inlet.flush(&mut cx))
    }

    /// Reports the epoch once its barrier has reached all ends.
    fn acknowledge(&mut self) {
        let Some(epoch) = self.barrier else { return };
        if self.parts.ends_reached == self.ends {
            self.barrier = None;
            let parts = Box::new(std::mem::take(&mut self.parts));
            self.report(Report::Acknowledged { worker: self.id, epoch, parts });
        }
    }

    fn report(&self, report: Report) {
        // Without a driver the job is being torn down, and nobody wants to know.
        let _ = self.reports.send(report);
    }

    /// Puts the partition's own name into an error that knows only its index.
    fn name_partition(&self, mut error: Error) -> Error {
        if let Error::Function { blame, .. } | Error::Panic { blame, .. } = &mut error {
            blame.partition = blame
                .origin
                .partition()
                .and_then(|index| self.partitions.get(index))
                .map(|entry| entry.name.clone());
        }
        error
    }

    fn describe_panic(&self, panic: &(dyn std::any::Any + Send)) -> Error {
        let message = panic_message(panic).unwrap_or_default().to_string();
        match self.blame.take() {
            Some(blame) => self.name_partition(Error::Panic { blame: Box::new(blame), message }),
            None => Error::engine(format!("running worker {}", self.id), format!("panicked: {message}")),
        }
    }
}
