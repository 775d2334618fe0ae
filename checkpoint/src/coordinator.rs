//! The coordinator: decides what happens next, and performs nothing.
//!
//! [`Coordinator::step`] takes the time and an [`Event`] and returns [`Action`]s for the engine's driver. It follows
//! asynchronous barrier snapshotting (Carbone et al., *Lightweight Asynchronous Snapshots for Distributed Dataflows*,
//! 2015) with a two-phase commit of sinks (Carbone et al., *State Management in Apache Flink*, VLDB 2017, section 4.3).
//!
//! Recovery, always and only so, after a crash as after a failed task:
//! 1. **fence**: claim the next generation; from here on no older one can store;
//! 2. **read** the newest stored checkpoint. What an older process of the flow, or an older attempt in this one, had on
//!    its way to the store has either arrived by now or never will ([`crate::history`]);
//! 3. **restore** every task from it;
//! 4. **commit again** what it holds: the crash may have come before the commit.
//!
//! An epoch:
//! 1. **inject** a barrier; sources note their positions;
//! 2. each task aligns, snapshots, **prepares** its sinks (durable, invisible) and acknowledges;
//! 3. **store** the manifest. An answer that leaves it unknown is resolved by repeating the same write-once put, never
//!    by giving the epoch up; if it stays unknown, the job fails and recovery finds out;
//! 4. **commit** the prepared output.
//!
//! *One epoch is in flight at a time*, from 1 to 3. While epoch n commits (4), epoch n+1 may be taken (1, 2), which hides
//! the commit's latency; it is **stored only after n is committed everywhere**. So the newest stored manifest is the only
//! one that can have uncommitted tokens, and recovery, which reads no other, commits all there are.
//!
//! *A failed epoch loses no output.* The tasks run on behind its barrier, so what it prepared is part of the result and
//! is owed with the next epoch: the coordinator carries acknowledged tokens over ([`Action::Cancel`] says what a task
//! does). Tokens are aborted only at recovery, when their records are produced again.
//!
//! *What the driver owes:* actions for one task reach it in order, and what it says arrives in order; an event of an
//! earlier attempt never reaches a later coordinator.
//!
//! *Finished tasks* (bounded sources) still acknowledge. When all have finished, one more epoch is begun, so that the
//! last results are committed too.

mod attempt;
mod protocol;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use attempt::{Attempt, Committing, Stage};
pub use protocol::{Action, BarrierKind, Event, Failure, Job, Options, Outcome, StoreReply};

use crate::manifest::{Manifest, Parts, Prepared};
use crate::{Epoch, Generation, TaskId};

/// The coordinator of one attempt to run a job: from its recovery to its end or failure.
///
/// `Hash` and `Eq` are for exploring its states; a clone is a fork of history.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinator {
    job: Job,
    options: Options,
    phase: Phase,
    generation: Generation,
    /// The newest epoch known to be stored.
    parent: Option<Epoch>,
    next_epoch: Epoch,
    attempt: Option<Attempt>,
    committing: Option<Committing>,
    /// Acknowledged output of epochs that failed, owed with the next one that is stored.
    carried: Vec<(String, Prepared)>,
    finished: BTreeSet<TaskId>,
    checkpoint_requests: Vec<u64>,
    stop_requests: Vec<u64>,
    failures: u32,
    /// The earliest beginning of the next periodic epoch.
    periodic_from: Duration,
    /// The earliest beginning of any epoch.
    any_from: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    New,
    Fencing,
    Reading,
    /// Waiting for these tasks; then commit again what the checkpoint holds.
    Restoring(BTreeSet<TaskId>, Option<Arc<Manifest>>),
    Running,
    Over,
}

impl Coordinator {
    /// A coordinator that waits for [`Event::Start`].
    #[must_use]
    pub fn new(job: Job, options: Options) -> Self {
        Self {
            job,
            options,
            phase: Phase::New,
            generation: Generation::default(),
            parent: None,
            next_epoch: Epoch(1),
            attempt: None,
            committing: None,
            carried: Vec::new(),
            finished: BTreeSet::new(),
            checkpoint_requests: Vec::new(),
            stop_requests: Vec::new(),
            failures: 0,
            periodic_from: Duration::ZERO,
            any_from: Duration::ZERO,
        }
    }

    /// Hears `event` at the monotonic time `now` and says what to do. Costs O(tasks) at most, except for building a
    /// manifest, which costs its size.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase == Phase::Over {
            answer_late_request(event, &mut actions);
            return actions;
        }
        self.hear(now, event, &mut actions);
        self.expire(now, &mut actions);
        self.repeat(now, &mut actions);
        self.begin(now, &mut actions);
        actions
    }

    /// When the next [`Event::Tick`] is due; `None` while only other events matter.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        if self.phase != Phase::Running {
            return None;
        }
        let attempt = match &self.attempt {
            Some(attempt) => Some(attempt.wake_at(&self.options)),
            None => self.due(),
        };
        let committing = self.committing.as_ref().map(|committing| committing.wake_at(&self.options));
        attempt.into_iter().chain(committing).min()
    }

    /// The generation this job runs as; zero before it is fenced.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The newest epoch that is known to be stored.
    #[must_use]
    pub const fn newest_stored(&self) -> Option<Epoch> {
        self.parent
    }

    /// Whether the job is over, well or not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    fn hear(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Start if self.phase == Phase::New => {
                self.phase = Phase::Fencing;
                actions.push(Action::Fence);
            }
            Event::Start | Event::Tick => {}
            Event::Fenced { generation } if self.phase == Phase::Fencing => {
                self.generation = generation;
                self.phase = Phase::Reading;
                actions.push(Action::Read);
            }
            Event::Recovered { checkpoint, next_epoch } if self.phase == Phase::Reading => {
                self.recovered(checkpoint, next_epoch, actions);
            }
            Event::Fenced { .. } | Event::Recovered { .. } => {}
            Event::RecoveryFailed { reason } => self.fail(Failure::Recovery { reason }, actions),
            Event::Restored { task } => self.restored(now, task, actions),
            Event::Acknowledged { task, epoch, parts } => self.acknowledged(now, task, epoch, parts, actions),
            Event::Declined { task, epoch, reason } => self.declined(now, task, epoch, &reason, actions),
            Event::Failed { task, reason } => self.fail(Failure::Task { task, reason }, actions),
            Event::Finished { task } => {
                self.finished.insert(task);
            }
            Event::StoreReplied { epoch, reply } => self.store_replied(now, epoch, reply, actions),
            Event::Committed { task, epoch } => self.committed(now, task, epoch, actions),
            Event::CommitFailed { task, epoch, reason } => {
                if let Some(committing) =
                    self.committing.as_mut().filter(|committing| committing.epoch == epoch)
                {
                    committing.refused(now, task, reason, &self.options);
                }
            }
            Event::CommitRefused { task, epoch, reason } => {
                if self.committing.as_ref().is_some_and(|committing| committing.epoch == epoch) {
                    self.fail(Failure::CommitRefused { epoch, task, reason }, actions);
                }
            }
            Event::CheckpointRequested { request } => self.checkpoint_requests.push(request),
            Event::StopRequested { request } => self.stop_requests.push(request),
        }
    }

    fn recovered(&mut self, checkpoint: Option<Arc<Manifest>>, next_epoch: Epoch, actions: &mut Vec<Action>) {
        self.parent = checkpoint.as_ref().map(|manifest| manifest.epoch);
        self.next_epoch = next_epoch.max(self.parent.map_or(Epoch(1), Epoch::next));
        self.phase = Phase::Restoring(self.tasks().collect(), checkpoint.clone());
        actions.push(Action::Restore { generation: self.generation, checkpoint });
    }

    fn restored(&mut self, now: Duration, task: TaskId, actions: &mut Vec<Action>) {
        let Phase::Restoring(waiting, checkpoint) = &mut self.phase else { return };
        waiting.remove(&task);
        if !waiting.is_empty() {
            return;
        }
        let checkpoint = checkpoint.take();
        self.phase = Phase::Running;
        if let Some(manifest) = checkpoint {
            self.commit(now, &manifest, BarrierKind::Checkpoint, Vec::new(), actions);
        }
        self.periodic_from = now.saturating_add(self.options.interval.unwrap_or_default());
        actions.push(Action::Run);
    }

    fn acknowledged(
        &mut self,
        now: Duration,
        task: TaskId,
        epoch: Epoch,
        parts: Parts,
        actions: &mut Vec<Action>,
    ) {
        match self.attempt.as_mut().filter(|attempt| attempt.epoch == epoch) {
            Some(attempt) => {
                // A second acknowledgement of the same task is the first one's echo.
                attempt.acknowledged.entry(task).or_insert(parts);
                self.store_if_ready(now, actions);
            }
            // The epoch was cancelled before the task heard of it: its output is owed all the same.
            None if epoch < self.next_epoch && self.parent.is_none_or(|stored| epoch > stored) => {
                self.carried.extend(parts.sinks);
            }
            None => {
                let reason = format!("task {task} acknowledges it, and it was stored before or never begun");
                self.fail(Failure::Contradiction { epoch, reason }, actions);
            }
        }
    }

    /// Stores the epoch in flight once every task has acknowledged it and the epoch before it is committed.
    fn store_if_ready(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let workers = self.job.workers.get() as usize;
        let Some(attempt) = self.attempt.as_mut() else { return };
        if attempt.stage != Stage::Taking || attempt.acknowledged.len() < workers || self.committing.is_some()
        {
            return;
        }
        attempt.carried = std::mem::take(&mut self.carried);
        match attempt.manifest(&self.job, self.generation, self.parent) {
            Ok(manifest) => {
                let manifest = Arc::new(manifest);
                attempt.stage = Stage::storing(now, Arc::clone(&manifest));
                actions.push(Action::Store { manifest });
            }
            Err(contradiction) => {
                let failure =
                    Failure::Contradiction { epoch: attempt.epoch, reason: contradiction.to_string() };
                self.fail(failure, actions);
            }
        }
    }

    fn declined(
        &mut self,
        now: Duration,
        task: TaskId,
        epoch: Epoch,
        reason: &str,
        actions: &mut Vec<Action>,
    ) {
        if self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.epoch == epoch && attempt.stage == Stage::Taking)
        {
            self.cancel(now, format!("task {task} declined it: {reason}"), actions);
        }
    }

    fn store_replied(&mut self, now: Duration, epoch: Epoch, reply: StoreReply, actions: &mut Vec<Action>) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.epoch == epoch) else { return };
        let Stage::Storing { in_doubt, retry, .. } = &mut attempt.stage else { return };
        match reply {
            StoreReply::Stored => self.stored(now, actions),
            StoreReply::Fenced { by } => self.fail(Failure::Fenced { by }, actions),
            // An earlier put of the same epoch may still land: this refusal says nothing about that one.
            StoreReply::Refused { reason } if *in_doubt => retry.schedule(now, reason, &self.options),
            StoreReply::Refused { reason } => {
                self.cancel(now, format!("the store refused it: {reason}"), actions)
            }
            StoreReply::Unknown { reason } => {
                *in_doubt = true;
                retry.schedule(now, reason, &self.options);
            }
        }
    }

    fn stored(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(Attempt { kind, requests, stage: Stage::Storing { manifest, .. }, .. }) =
            self.attempt.take()
        else {
            return;
        };
        self.parent = Some(manifest.epoch);
        self.failures = 0;
        self.periodic_from = self.periodic_from.max(now.saturating_add(self.options.min_pause));
        self.commit(now, &manifest, kind, requests, actions);
    }

    fn commit(
        &mut self,
        now: Duration,
        manifest: &Manifest,
        kind: BarrierKind,
        requests: Vec<u64>,
        actions: &mut Vec<Action>,
    ) {
        let committing = Committing::new(now, manifest, self.job.workers, kind, requests);
        actions.extend(self.tasks().map(|task| committing.action(task)));
        self.committing = Some(committing);
    }

    fn committed(&mut self, now: Duration, task: TaskId, epoch: Epoch, actions: &mut Vec<Action>) {
        let Some(committing) = self.committing.as_mut().filter(|committing| committing.epoch == epoch) else {
            return;
        };
        if !committing.done(task) {
            return;
        }
        let (kind, requests) = (committing.kind, std::mem::take(&mut committing.requests));
        self.committing = None;
        actions.push(Action::Completed { epoch });
        answer(requests, Ok(epoch), actions);
        match kind {
            BarrierKind::Checkpoint => self.store_if_ready(now, actions),
            BarrierKind::Stop => self.end(epoch, Outcome::Stopped, actions),
            BarrierKind::Final => self.end(epoch, Outcome::Finished, actions),
        }
    }

    /// Begins an epoch if one is due.
    fn begin(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let kind = self.kind_wanted().unwrap_or(BarrierKind::Checkpoint);
        let epoch = self.next_epoch;
        self.next_epoch = epoch.next();
        self.periodic_from = now.saturating_add(self.options.interval.unwrap_or_default());
        let requests = std::mem::take(&mut self.checkpoint_requests);
        self.attempt = Some(Attempt::new(epoch, kind, now, requests));
        actions.push(Action::Inject { epoch, kind });
    }

    /// When the next epoch is to begin, if none is in flight.
    fn due(&self) -> Option<Duration> {
        let ending =
            self.committing.as_ref().is_some_and(|committing| committing.kind != BarrierKind::Checkpoint);
        if self.phase != Phase::Running || self.attempt.is_some() || ending {
            return None;
        }
        match (self.kind_wanted(), self.options.interval) {
            (Some(_), _) => Some(self.any_from),
            (None, Some(_)) => Some(self.any_from.max(self.periodic_from)),
            (None, None) => None,
        }
    }

    /// The kind of epoch that should begin without waiting for the period.
    fn kind_wanted(&self) -> Option<BarrierKind> {
        if self.finished.len() == self.job.workers.get() as usize {
            Some(BarrierKind::Final)
        } else if !self.stop_requests.is_empty() {
            Some(BarrierKind::Stop)
        } else if !self.checkpoint_requests.is_empty() {
            Some(BarrierKind::Checkpoint)
        } else {
            None
        }
    }

    /// Fails what has taken too long.
    fn expire(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if let Some((task, reason)) = self.committing.as_ref().and_then(|it| it.expired(now, &self.options)) {
            let epoch = self.committing.as_ref().map_or_else(Epoch::default, |committing| committing.epoch);
            return self.fail(Failure::CommitTimedOut { epoch, task, reason }, actions);
        }
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.expires_at(&self.options) <= now)
        else {
            return;
        };
        match &attempt.stage {
            Stage::Taking => {
                let reason = attempt.missing(self.tasks(), self.committing.as_ref());
                self.cancel(now, format!("it timed out: {reason}"), actions);
            }
            Stage::Storing { retry, .. } => {
                let failure =
                    Failure::StoreInDoubt { epoch: attempt.epoch, reason: retry.reason().to_owned() };
                self.fail(failure, actions);
            }
        }
    }

    /// Repeats the store and the commits whose time has come.
    fn repeat(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if let Some(Attempt { stage: Stage::Storing { manifest, retry, .. }, .. }) = &mut self.attempt
            && retry.take(now)
        {
            actions.push(Action::Store { manifest: Arc::clone(manifest) });
        }
        if let Some(committing) = &mut self.committing {
            actions.extend(committing.take_retries(now));
        }
    }

    /// Gives up the epoch in flight, which is certain not to be stored.
    fn cancel(&mut self, now: Duration, reason: String, actions: &mut Vec<Action>) {
        let Some(attempt) = self.attempt.take() else { return };
        let epoch = attempt.epoch;
        self.carried.extend(attempt.carried);
        self.carried.extend(attempt.acknowledged.into_values().flat_map(|parts| parts.sinks));
        self.failures += 1;
        self.any_from = now.saturating_add(self.options.min_pause);
        actions.push(Action::Cancel { epoch, reason: reason.clone() });
        answer(attempt.requests, Err(format!("checkpoint {epoch} failed: {reason}")), actions);
        if self.failures > self.options.tolerated_failures {
            let failures = self.failures;
            self.fail(Failure::TooManyFailedCheckpoints { failures, epoch, reason }, actions);
        }
    }

    fn fail(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        self.phase = Phase::Over;
        answer(self.take_requests(), Err(failure.to_string()), actions);
        actions.push(Action::Fail { failure });
    }

    fn end(&mut self, epoch: Epoch, outcome: Outcome, actions: &mut Vec<Action>) {
        self.phase = Phase::Over;
        answer(self.take_requests(), Ok(epoch), actions);
        actions.push(Action::Done { outcome });
    }

    fn take_requests(&mut self) -> Vec<u64> {
        let mut requests = std::mem::take(&mut self.checkpoint_requests);
        requests.append(&mut self.stop_requests);
        requests.extend(self.attempt.take().into_iter().flat_map(|attempt| attempt.requests));
        requests.extend(self.committing.take().into_iter().flat_map(|committing| committing.requests));
        requests
    }

    fn tasks(&self) -> impl Iterator<Item = TaskId> + use<> {
        (0..self.job.workers.get()).map(TaskId)
    }
}

fn answer(requests: Vec<u64>, outcome: Result<Epoch, String>, actions: &mut Vec<Action>) {
    actions.extend(requests.into_iter().map(|request| Action::Answer { request, outcome: outcome.clone() }));
}

fn answer_late_request(event: Event, actions: &mut Vec<Action>) {
    if let Event::CheckpointRequested { request } | Event::StopRequested { request } = event {
        answer(vec![request], Err("the job is over".to_owned()), actions);
    }
}
