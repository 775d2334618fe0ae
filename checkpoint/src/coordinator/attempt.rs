//! The epoch in flight, and the epoch whose commit is outstanding.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, BarrierKind, Job, Options};
use crate::manifest::{Contradiction, Manifest, Parts, Prepared};
use crate::{Epoch, Generation, TaskId};

/// The epoch in flight: being taken, or being stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) epoch: Epoch,
    pub(super) kind: BarrierKind,
    began: Duration,
    pub(super) acknowledged: BTreeMap<TaskId, Parts>,
    /// The output of failed epochs that the manifest includes.
    pub(super) carried: Vec<(String, Prepared)>,
    /// Who waits for this very epoch.
    pub(super) requests: Vec<u64>,
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Waiting for acknowledgements, or for the commit of the epoch before.
    Taking,
    Storing {
        manifest: Arc<Manifest>,
        since: Duration,
        /// Some put of this epoch may have landed or may land yet: the epoch can no more be given up.
        in_doubt: bool,
        retry: Retry,
    },
}

/// When to repeat something that failed, with pauses that double.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(super) struct Retry {
    at: Option<Duration>,
    attempts: u32,
    reason: Option<String>,
}

/// The stored epoch whose commit is outstanding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Committing {
    pub(super) epoch: Epoch,
    pub(super) kind: BarrierKind,
    pub(super) requests: Vec<u64>,
    since: Duration,
    /// What is left to do, by task.
    tasks: BTreeMap<TaskId, (Vec<(String, Prepared)>, Retry)>,
}

impl Attempt {
    pub(super) const fn new(epoch: Epoch, kind: BarrierKind, began: Duration, requests: Vec<u64>) -> Self {
        Self {
            epoch,
            kind,
            began,
            acknowledged: BTreeMap::new(),
            carried: Vec::new(),
            requests,
            stage: Stage::Taking,
        }
    }

    pub(super) fn expires_at(&self, options: &Options) -> Duration {
        match &self.stage {
            Stage::Taking => self.began.saturating_add(options.timeout),
            Stage::Storing { since, .. } => since.saturating_add(options.store_timeout),
        }
    }

    pub(super) fn wake_at(&self, options: &Options) -> Duration {
        let expires = self.expires_at(options);
        match &self.stage {
            Stage::Storing { retry: Retry { at: Some(at), .. }, .. } => expires.min(*at),
            _ => expires,
        }
    }

    /// What the epoch is waiting for, for an error.
    pub(super) fn missing(
        &self,
        tasks: impl Iterator<Item = TaskId>,
        committing: Option<&Committing>,
    ) -> String {
        let missing: Vec<String> =
            tasks.filter(|task| !self.acknowledged.contains_key(task)).map(|task| task.to_string()).collect();
        match committing {
            _ if !missing.is_empty() => format!("no acknowledgement from task {}", missing.join(", ")),
            Some(committing) => format!("checkpoint {} is not committed yet", committing.epoch),
            None => "nothing is missing".to_owned(),
        }
    }

    /// The manifest of what the tasks acknowledged and what earlier, failed epochs left to commit.
    pub(super) fn manifest(
        &self,
        job: &Job,
        generation: Generation,
        parent: Option<Epoch>,
    ) -> Result<Manifest, Contradiction> {
        let began_ms = i64::try_from(self.began.as_millis()).unwrap_or(i64::MAX);
        let mut manifest = Manifest {
            flow: job.flow.clone(),
            version: job.version,
            epoch: self.epoch,
            generation,
            parent,
            created_at_ms: job.origin_ms.saturating_add(began_ms),
            key_groups: job.key_groups,
            workers: job.workers.get(),
            sources: BTreeMap::new(),
            operators: BTreeMap::new(),
            sinks: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            ends: BTreeMap::new(),
            is_end: self.kind == BarrierKind::Final,
            stops: Vec::new(),
            stops_ahead: Vec::new(),
            counters: BTreeMap::new(),
            output_ends: BTreeMap::new(),
        };
        for (sink, prepared) in &self.carried {
            manifest.sinks.entry(sink.clone()).or_default().push(prepared.clone());
        }
        for (task, parts) in &self.acknowledged {
            manifest.add(*task, parts.clone())?;
        }
        Ok(manifest)
    }
}

impl Stage {
    pub(super) fn storing(since: Duration, manifest: Arc<Manifest>) -> Self {
        Self::Storing { manifest, since, in_doubt: false, retry: Retry::default() }
    }
}

impl Retry {
    pub(super) fn schedule(&mut self, now: Duration, reason: String, options: &Options) {
        let doubled = options.min_retry.saturating_mul(1 << self.attempts.min(16));
        self.attempts += 1;
        self.at = Some(now.saturating_add(doubled.min(options.max_retry)));
        self.reason = Some(reason);
    }

    /// Whether the time has come; it does once for each time scheduled.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    pub(super) fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("no answer")
    }
}

impl Committing {
    /// Hands each token to the task that prepared it, or, with fewer tasks than then, to one in its stead.
    pub(super) fn new(
        since: Duration,
        manifest: &Manifest,
        workers: NonZeroU32,
        kind: BarrierKind,
        requests: Vec<u64>,
    ) -> Self {
        let mut tasks: BTreeMap<TaskId, (Vec<_>, Retry)> =
            (0..workers.get()).map(|task| (TaskId(task), Default::default())).collect();
        for (sink, tokens) in &manifest.sinks {
            for prepared in tokens {
                let (tokens, _) = tasks.entry(TaskId(prepared.task.0 % workers)).or_default();
                tokens.push((sink.clone(), prepared.clone()));
            }
        }
        Self { epoch: manifest.epoch, kind, requests, since, tasks }
    }

    pub(super) fn action(&self, task: TaskId) -> Action {
        let tokens = self.tasks.get(&task).map(|(tokens, _)| tokens.clone()).unwrap_or_default();
        Action::Commit { task, epoch: self.epoch, tokens }
    }

    /// Notes that `task` has committed and returns whether all have.
    pub(super) fn done(&mut self, task: TaskId) -> bool {
        self.tasks.remove(&task);
        self.tasks.is_empty()
    }

    pub(super) fn refused(&mut self, now: Duration, task: TaskId, reason: String, options: &Options) {
        if let Some((_, retry)) = self.tasks.get_mut(&task) {
            retry.schedule(now, reason, options);
        }
    }

    pub(super) fn take_retries(&mut self, now: Duration) -> Vec<Action> {
        let due: Vec<TaskId> =
            self.tasks.iter_mut().filter_map(|(task, (_, retry))| retry.take(now).then_some(*task)).collect();
        due.into_iter().map(|task| self.action(task)).collect()
    }

    /// The first task that is missing once the time is up, and what it said last.
    pub(super) fn expired(&self, now: Duration, options: &Options) -> Option<(TaskId, String)> {
        let (task, (_, retry)) = self.tasks.first_key_value()?;
        (self.since.saturating_add(options.commit_timeout) <= now).then(|| (*task, retry.reason().to_owned()))
    }

    pub(super) fn wake_at(&self, options: &Options) -> Duration {
        let retries = self.tasks.values().filter_map(|(_, retry)| retry.at);
        retries.fold(self.since.saturating_add(options.commit_timeout), Duration::min)
    }
}
