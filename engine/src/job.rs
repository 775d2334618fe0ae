//! A running job, as its owner sees it: status, metrics, stop.

use crate::channels::Wake;
use crate::metrics::{
    CheckpointHistory, CheckpointMetrics, FailedCheckpoint, Metrics, OperatorKind, OperatorSnapshot,
};
use crate::pulse::Pulses;
use crate::queries::{Board, JobQueries, LatestQuery, Queries, Query, View, WindowQuery};
use crate::savepoint::{Savepoint, Savepoints};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use rivermark_checkpoint::{Epoch, Manifest, TaskId};
use rivermark_operators::context::OperatorMetrics;
use rivermark_operators::partitions::Partitions;
use rivermark_operators::plan::{Node, NodeKind, Plan};
use rivermark_operators::rate_limit::{RateLimit, Throttle};
use rivermark_operators::{Error, Result, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a job is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Reading its checkpoint and rebuilding state.
    Recovering,
    /// Processing records.
    Running,
    /// It failed and waits to be started again.
    Restarting {
        /// What went wrong.
        failure: String,
        /// Which failure in a row this is.
        failures: u32,
    },
    /// Every source has ended and every result is committed.
    Finished,
    /// It was stopped behind a checkpoint; everything before it is committed.
    Stopped,
    /// It was cancelled: stopped at once, without a checkpoint.
    Cancelled,
    /// It failed and will not be tried again.
    Failed {
        /// What went wrong.
        failure: String,
    },
}

impl Status {
    /// Whether it will not change any more.
    pub fn is_over(&self) -> bool {
        matches!(self, Status::Finished | Status::Stopped | Status::Cancelled | Status::Failed { .. })
    }
}

/// A wish of the job's owner.
pub(crate) enum Wish {
    Checkpoint(Sender<Result<Epoch, String>>),
    Savepoint { name: String, answer: Sender<Result<Savepoint, String>> },
    Stop(Option<LastSavepoint>),
    Drain(Option<LastSavepoint>),
    Cancel,
}

/// A savepoint of the last checkpoint of a job.
pub(crate) struct LastSavepoint {
    pub(crate) name: String,
    pub(crate) answer: Sender<Result<Savepoint, String>>,
}

/// What the job's threads and its owner share.
pub(crate) struct JobShared {
    pub(crate) operators: HashMap<Arc<str>, Arc<OperatorMetrics>>,
    order: Vec<PlannedOperator>,
    /// The counters of exchanges, by their numbers.
    exchanges: Vec<Arc<OperatorMetrics>>,
    sources: Vec<Arc<str>>,
    throttles: HashMap<Arc<str>, Arc<Throttle>>,
    status: Mutex<Status>,
    changed: Condvar,
    checkpoints: Mutex<CheckpointHistory>,
    restarts: AtomicU64,
    steps: AtomicU64,
    backpressured: AtomicU64,
    /// By worker; `u64::MAX` where a reader cannot tell.
    backlogs: Vec<AtomicU64>,
    partitions: Mutex<Arc<Partitions>>,
    /// The epochs that queries may read.
    pub(crate) board: Arc<Board>,
    started: Instant,
    over_after: Mutex<Option<Duration>>,
    /// Whether the workers still have something to do.
    pub(crate) pulses: Pulses,
    /// Whether nothing begins by itself: no periodic checkpoint, no new partition.
    is_quiet: AtomicBool,
    /// Whether its workers offer their cores to others.
    offers_cores: AtomicBool,
    /// Wakes the workers of the attempt that runs.
    wakes: Mutex<Vec<Wake>>,
    /// The newest checkpoint whose output is committed.
    committed: Mutex<Option<Arc<Manifest>>>,
}

/// An operator's place in the plan.
struct PlannedOperator {
    name: Arc<str>,
    kind: OperatorKind,
    inputs: Vec<usize>,
}

impl PlannedOperator {
    fn of(node: &Node) -> PlannedOperator {
        // One that reads two outputs of the same operator is connected to it once.
        let mut inputs = node.upstream.clone();
        inputs.sort_unstable();
        inputs.dedup();
        PlannedOperator { name: Arc::clone(&node.name), kind: OperatorKind::of(&node.kind), inputs }
    }
}

impl JobShared {
    pub(crate) fn new(plan: &Plan, workers: usize) -> JobShared {
        let order: Vec<_> = plan.nodes().iter().map(PlannedOperator::of).collect();
        let counters = |name: &Arc<str>| (Arc::clone(name), Arc::new(OperatorMetrics::new(Arc::clone(name))));
        let operators: HashMap<_, _> = order.iter().map(|operator| counters(&operator.name)).collect();
        let mut exchanges: Vec<_> = plan
            .nodes()
            .iter()
            .filter_map(|node| match node.kind {
                NodeKind::Exchange(id) => Some((id, Arc::clone(&operators[&node.name]))),
                _ => None,
            })
            .collect();
        exchanges.sort_by_key(|(id, _)| *id);
        JobShared {
            operators,
            order,
            exchanges: exchanges.into_iter().map(|(_, metrics)| metrics).collect(),
            sources: plan.sources().map(|(name, _)| Arc::clone(name)).collect(),
            throttles: plan.throttles().map(|(name, limit)| (Arc::clone(name), Arc::clone(limit))).collect(),
            status: Mutex::new(Status::Recovering),
            changed: Condvar::new(),
            checkpoints: Mutex::default(),
            restarts: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            backpressured: AtomicU64::new(0),
            backlogs: (0..workers).map(|_| AtomicU64::new(u64::MAX)).collect(),
            partitions: Mutex::default(),
            board: Arc::default(),
            started: Instant::now(),
            over_after: Mutex::default(),
            pulses: Pulses::of(workers),
            is_quiet: AtomicBool::new(false),
            offers_cores: AtomicBool::new(false),
            wakes: Mutex::default(),
            committed: Mutex::default(),
        }
    }

    pub(crate) fn set_status(&self, status: Status) {
        if status.is_over() {
            self.over_after.lock().get_or_insert_with(|| self.started.elapsed());
        }
        if let Status::Restarting { .. } = status {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
        *self.status.lock() = status;
        self.changed.notify_all();
    }

    /// Lets nothing begin by itself, or lets it again. For a moment: nothing is timed out meanwhile either.
    pub(crate) fn set_quiet(&self, is_quiet: bool) {
        self.is_quiet.store(is_quiet, Ordering::SeqCst);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::SeqCst)
    }

    /// Lets its workers offer their cores after each step, or not any more.
    pub(crate) fn offer_cores(&self, offers: bool) {
        self.offers_cores.store(offers, Ordering::Relaxed);
    }

    pub(crate) fn offers_cores(&self) -> bool {
        self.offers_cores.load(Ordering::Relaxed)
    }

    pub(crate) fn set_wakes(&self, wakes: Vec<Wake>) {
        *self.wakes.lock() = wakes;
    }

    /// Lets workers that have nothing to do look again at once.
    pub(crate) fn wake_workers(&self) {
        self.wakes.lock().iter().for_each(Wake::wake);
    }

    /// Notes the newest checkpoint whose output is committed.
    pub(crate) fn set_committed(&self, manifest: Option<Arc<Manifest>>) {
        *self.committed.lock() = manifest;
    }

    pub(crate) fn committed(&self) -> Option<Arc<Manifest>> {
        self.committed.lock().clone()
    }

    pub(crate) fn partitions(&self) -> Arc<Partitions> {
        Arc::clone(&self.partitions.lock())
    }

    /// The limits of the sources, by name.
    pub(crate) fn throttles(&self) -> &HashMap<Arc<str>, Arc<Throttle>> {
        &self.throttles
    }

    pub(crate) fn set_partitions(&self, partitions: Arc<Partitions>) {
        *self.partitions.lock() = partitions;
    }

    pub(crate) fn checkpoint_completed(&self, checkpoint: CheckpointMetrics) {
        self.checkpoints.lock().complete(checkpoint);
    }

    pub(crate) fn checkpoint_failed(&self, checkpoint: FailedCheckpoint) {
        self.checkpoints.lock().fail(checkpoint);
    }

    pub(crate) fn checkpoints_completed(&self) -> u64 {
        self.checkpoints.lock().completed
    }

    /// The counters of an exchange.
    pub(crate) fn exchange(&self, number: usize) -> Option<&OperatorMetrics> {
        self.exchanges.get(number).map(|metrics| &**metrics)
    }

    pub(crate) fn count_step(&self, backpressured: bool) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        if backpressured {
            self.backpressured.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_backlog(&self, worker: TaskId, backlog: Option<u64>) {
        if let Some(slot) = self.backlogs.get(worker.0 as usize) {
            slot.store(backlog.unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Begins the counts that survive restarts where the checkpoint left them.
    pub(crate) fn restore_counters(&self, checkpoint: Option<&Manifest>) {
        for (name, operator) in &self.operators {
            let counted = checkpoint.and_then(|manifest| manifest.counters.get(&**name));
            operator.restore_late(counted.copied().unwrap_or(0));
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.status.lock().clone()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let snapshot = |planned: &PlannedOperator| {
            let operator = &self.operators[&planned.name];
            OperatorSnapshot {
                name: planned.name.to_string(),
                kind: planned.kind,
                inputs: planned.inputs.clone(),
                records_in: operator.records_in(),
                records_out: operator.records_out(),
                bytes: operator.bytes(),
                late: operator.late(),
                dead_letters: operator.dead_letters(),
                watermark: operator.watermark(),
                backpressured: operator.backpressured(),
            }
        };
        let operators: Vec<_> = self.order.iter().map(snapshot).collect();
        let partitions = self.partitions.lock().all();
        let open = partitions.iter().filter(|partition| !partition.ended());
        let checkpoints = self.checkpoints.lock();
        let backlogs = self.backlogs.iter().map(|backlog| backlog.load(Ordering::Relaxed));
        Metrics {
            backlog: backlogs.map(|backlog| (backlog != u64::MAX).then_some(backlog)).sum(),
            records_read: self.sources.iter().map(|name| self.operators[name].records_out()).sum(),
            late_records: operators.iter().map(|operator| operator.late).sum(),
            dead_letters: operators.iter().map(|operator| operator.dead_letters).sum(),
            watermark: open.map(|partition| partition.watermark()).min().unwrap_or(Timestamp::MAX),
            operators,
            checkpoints: checkpoints.last.iter().cloned().collect(),
            checkpoints_completed: checkpoints.completed,
            failed_checkpoints: checkpoints.last_failed.iter().cloned().collect(),
            checkpoints_failed: checkpoints.failed,
            workers: self.backlogs.len(),
            restarts: self.restarts.load(Ordering::Relaxed),
            running: self.over_after.lock().unwrap_or_else(|| self.started.elapsed()),
            backpressured_steps: self.backpressured.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
        }
    }
}

/// A job: a flow that an engine runs.
///
/// Dropping it stops the job behind a last checkpoint and waits for it.
pub struct Job {
    pub(crate) flow: String,
    pub(crate) shared: Arc<JobShared>,
    pub(crate) queries: Arc<JobQueries>,
    pub(crate) savepoints: Savepoints,
    pub(crate) wishes: Sender<Wish>,
    pub(crate) thread: Option<JoinHandle<()>>,
    pub(crate) outcome: Receiver<Result<()>>,
}

impl Job {
    /// The flow's name.
    pub fn flow(&self) -> &str {
        &self.flow
    }

    /// What the job is doing now.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// What the job has done so far. Costs a look at every operator and partition; disturbs nobody.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    /// What asks for the job's state, and may be kept beside the job and after it.
    pub fn queries(&self) -> Queries {
        Queries::of_job(&self.queries)
    }

    /// The job's state at the newest epoch that is visible to queries; see [`Queries::view`].
    ///
    /// # Errors
    /// No epoch has been stored yet, or its state cannot be read.
    pub fn view(&self) -> Result<View> {
        self.queries().view()
    }

    /// Asks for a state of an operator by its handle, at the newest epoch that is visible. Disturbs no worker.
    ///
    /// ```
    /// use rivermark_engine::Job;
    /// use rivermark_operators::Value;
    ///
    /// const CLICKS: Value<u64> = Value::new("clicks");
    ///
    /// fn clicks_of(user: &String, job: &Job) -> rivermark_operators::Result<u64> {
    ///     Ok(job.query(CLICKS).get(user)?.unwrap_or(0))
    /// }
    /// ```
    pub fn query<H: Copy>(&self, handle: H) -> Query<H> {
        self.queries().query(handle)
    }

    /// Asks the worker that owns a key for what it has there now: newer than any epoch, and not stored yet.
    pub fn latest<H: Copy>(&self, handle: H) -> LatestQuery<H> {
        self.queries().latest(handle)
    }

    /// Asks for the windows of an operator, at the newest epoch that is visible. Disturbs no worker.
    pub fn windows(&self, operator: &str) -> WindowQuery {
        self.queries().windows(operator)
    }

    /// Changes how fast a source is read, from now on until the job is over, or takes its limit away. The next start has that of the flow again
    /// ([`Stream::rate_limit`](rivermark_operators::Stream::rate_limit)).
    ///
    /// # Errors
    /// The flow has no source of that name.
    pub fn set_rate_limit(&self, source: &str, limit: Option<RateLimit>) -> Result<()> {
        let Some(throttle) = self.shared.throttles.get(source) else {
            let attempt = format!("changing the rate limit of source `{source}` of flow `{}`", self.flow);
            let mut sources: Vec<_> = self.shared.sources.iter().map(|name| format!("`{name}`")).collect();
            sources.sort();
            return Err(Error::engine(attempt, format!("it has no such source, but {}", sources.join(", "))));
        };
        throttle.set_limit(limit);
        Ok(())
    }

    /// Reads no source any more until [`Job::resume`]. What was read is processed, and checkpoints, savepoints and [`Job::stop`] go on as
    /// ever. Event time stands still, so windows stay open; a source is not declared idle for it.
    pub fn pause(&self) {
        self.shared.throttles.values().for_each(|throttle| throttle.pause());
    }

    /// Reads sources again after [`Job::pause`], within some milliseconds.
    pub fn resume(&self) {
        self.shared.throttles.values().for_each(|throttle| throttle.resume());
    }

    /// Whether it reads no source, because of [`Job::pause`].
    pub fn is_paused(&self) -> bool {
        self.shared.throttles.values().any(|throttle| throttle.is_paused())
    }

    /// Takes a checkpoint now and waits until it is committed.
    ///
    /// # Errors
    /// If it fails, or the job is over.
    pub fn checkpoint(&self) -> Result<Epoch> {
        let failed =
            |reason: String| Error::engine(format!("taking a checkpoint of flow `{}`", self.flow), reason);
        let (answer, answered) = bounded(1);
        self.wishes.send(Wish::Checkpoint(answer)).map_err(|_| failed("the job is over".into()))?;
        answered.recv().map_err(|_| failed("the job is over".into()))?.map_err(failed)
    }

    /// Asks the job to stop behind a last checkpoint: everything read so far is processed as far as event time allows and
    /// committed; open windows stay in the state. [`Job::wait`] tells when it is done.
    ///
    /// A job that fails before it has stopped is over with that failure and not started again; as after any failure, the next start
    /// continues from its last checkpoint.
    pub fn stop(&self) {
        // A job that is over needs no stopping.
        let _ = self.wishes.send(Wish::Stop(None));
    }

    /// Takes a savepoint of now, while the job goes on, and waits until it is whole: a barrier, as of a checkpoint; everything before it
    /// is stored and committed; then its files are kept under the name. [`Savepoint`] says what it is good for.
    ///
    /// For sinks it is a checkpoint: rows before the barrier are visible when this returns, those after it become visible later.
    /// Costs a checkpoint, and a hard link a state file.
    ///
    /// # Errors
    /// There is a savepoint of that name, the name cannot be part of a path, the checkpoint fails, or the job is over. Then there is no
    /// savepoint.
    pub fn savepoint(&self, name: &str) -> Result<Savepoint> {
        self.savepoints.check_free(&self.flow, name)?;
        let (answer, answered) = bounded(1);
        // A job that is over drops the answer.
        let _ = self.wishes.send(Wish::Savepoint { name: name.to_owned(), answer });
        self.taken(name, &answered)
    }

    /// Stops the job behind a savepoint, and waits for both. The order is: a barrier, behind which nothing more is read; store; commit;
    /// the savepoint; the end. So the sinks show exactly what the savepoint has seen and nothing after it, and whoever starts from it goes
    /// on without a gap or a duplicate. Open windows stay open, in the state.
    ///
    /// # Errors
    /// As [`Job::savepoint`]. Where the savepoint alone could not be written the job has stopped all the same, behind an ordinary
    /// checkpoint: starting the flow goes on from there, and a savepoint can be taken then.
    pub fn stop_with_savepoint(self, name: &str) -> Result<Savepoint> {
        self.end_with_savepoint(name, Wish::Stop)
    }

    /// Asks the job to come to its end where it stands: every source ends now, windows close and time-outs fire as at the end of bounded
    /// sources, everything is flushed and committed. [`Job::wait`] tells when it is done; the status is then [`Status::Finished`].
    ///
    /// For sinks: all that was read is in the output, also the rows of windows that were open. Such windows are closed for good: should the
    /// flow be started again, what comes for them is late.
    pub fn drain(&self) {
        // A job that is over needs no draining.
        let _ = self.wishes.send(Wish::Drain(None));
    }

    /// As [`Job::drain`], with a savepoint of the end, and waits for both.
    ///
    /// # Errors
    /// As [`Job::stop_with_savepoint`].
    pub fn drain_with_savepoint(self, name: &str) -> Result<Savepoint> {
        self.end_with_savepoint(name, Wish::Drain)
    }

    /// Stops the job at once, without a checkpoint. [`Job::wait`] tells when it is done; the status is then [`Status::Cancelled`].
    ///
    /// For sinks it is as a crash: what was committed stays; what came after the last stored checkpoint is not output, and is
    /// processed anew by the next start, which first commits what that checkpoint had stored and not committed yet.
    pub fn cancel(&self) {
        // A job that is over needs no cancelling.
        let _ = self.wishes.send(Wish::Cancel);
    }

    fn end_with_savepoint(
        mut self,
        name: &str,
        wish: fn(Option<LastSavepoint>) -> Wish,
    ) -> Result<Savepoint> {
        self.savepoints.check_free(&self.flow, name)?;
        let (answer, answered) = bounded(1);
        let _ = self.wishes.send(wish(Some(LastSavepoint { name: name.to_owned(), answer })));
        let taken = self.taken(name, &answered);
        self.join()?;
        taken
    }

    fn taken(&self, name: &str, answered: &Receiver<Result<Savepoint, String>>) -> Result<Savepoint> {
        let failed = |reason: String| {
            Error::engine(format!("taking savepoint `{name}` of flow `{}`", self.flow), reason)
        };
        answered.recv().map_err(|_| failed("the job is over".into()))?.map_err(failed)
    }

    /// Waits until `done` answers true of the job, or the job is over. Answers whether `done` did. It is asked again whenever the status
    /// changes, and every few milliseconds.
    pub fn wait_until(&self, mut done: impl FnMut(&Job) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let mut status = self.shared.status.lock();
            if status.is_over() {
                drop(status);
                return done(self);
            }
            self.shared.changed.wait_for(&mut status, Duration::from_millis(5));
        }
    }

    /// Waits until the job is over: finished, stopped, cancelled or failed.
    ///
    /// # Errors
    /// The failure that ended the job.
    pub fn wait(mut self) -> Result<Metrics> {
        self.join()?;
        Ok(self.metrics())
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let outcome = self.outcome.recv();
        let joined = thread.join();
        match (outcome, joined) {
            (Ok(outcome), Ok(())) => outcome,
            _ => Err(Error::engine(format!("running flow `{}`", self.flow), "the job's own thread panicked")),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = self.join() {
            tracing::error!(flow = self.flow, %error, "a job that nobody waited for failed");
        }
    }
}
