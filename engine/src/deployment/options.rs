//! What can be said about a deployment.

use super::compare::Comparison;
use crate::savepoint::{Savepoint, StartFrom};
use rivermark_checkpoint::RestoreFrom;
use rivermark_operators::rate_limit::RateLimit;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// When a version counts as caught up with the live one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CaughtUp {
    pub(crate) records: u64,
    pub(crate) event_time: Duration,
    pub(crate) sustained: Duration,
}

impl Default for CaughtUp {
    fn default() -> Self {
        CaughtUp { records: 10_000, event_time: Duration::from_secs(60), sustained: Duration::from_secs(3) }
    }
}

impl CaughtUp {
    /// The defaults: at most 10,000 records and a minute of event time behind, for three seconds.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most so many records behind the live version, over all partitions. Once caught up, it has fallen behind at twice as many.
    pub fn within_records(self, records: u64) -> Self {
        CaughtUp { records, ..self }
    }

    /// At most so much event time behind the live version.
    pub fn within_event_time(self, event_time: Duration) -> Self {
        CaughtUp { event_time, ..self }
    }

    /// Both for so long without a break.
    pub fn for_at_least(self, sustained: Duration) -> Self {
        CaughtUp { sustained, ..self }
    }
}

type CheckFn = Arc<dyn Fn(&Comparison) -> Result<(), String> + Send + Sync>;

/// A check of the user's, which may veto a promotion.
#[derive(Clone)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) check: CheckFn,
}

/// Where a version begins, and how it takes over from the live one. The first version of a flow is live at once; for later starts of a
/// version that has a checkpoint the place is of no account.
#[derive(Clone)]
pub struct Replay {
    pub(crate) from: Option<Savepoint>,
    pub(crate) workers: Option<usize>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) offers_cores: bool,
    pub(crate) is_paused: bool,
    pub(crate) caught_up: CaughtUp,
    pub(crate) promotes_itself: bool,
    pub(crate) keeps_for: Duration,
    pub(crate) held_for_at_most: Duration,
    pub(crate) checks: Vec<Check>,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("from", &self.from.as_ref().map(Savepoint::name))
            .field("workers", &self.workers)
            .field("rate_limit", &self.rate_limit)
            .field("promotes_itself", &self.promotes_itself)
            .finish_non_exhaustive()
    }
}

impl Replay {
    /// Where the flow's sources begin by themselves: the earliest record, or what [`starting_from`] says of a source.
    ///
    /// [`starting_from`]: https://docs.rs/rivermark-connectors
    pub fn from_earliest() -> Replay {
        Replay {
            from: None,
            workers: None,
            rate_limit: None,
            offers_cores: true,
            is_paused: false,
            caught_up: CaughtUp::default(),
            promotes_itself: false,
            keeps_for: Duration::from_secs(24 * 60 * 60),
            held_for_at_most: Duration::from_secs(10),
            checks: Vec::new(),
        }
    }

    /// From a savepoint, of this or another version: with its state, at its offsets.
    pub fn from_savepoint(savepoint: Savepoint) -> Replay {
        Replay { from: Some(savepoint), ..Replay::from_earliest() }
    }

    /// How many workers the version has; so a replay leaves cores to the live version. Default: those of the engine.
    pub fn workers(self, workers: usize) -> Replay {
        Replay { workers: Some(workers.max(1)), ..self }
    }

    /// How fast each of its sources is read until it is promoted.
    pub fn rate_limit(self, limit: RateLimit) -> Replay {
        Replay { rate_limit: Some(limit), ..self }
    }

    /// Takes cores as the live version does. By default the workers of a version that is not live offer their cores to all others after each step, so
    /// that the live version's records wait for a step at the most and not for as long as the system lets a thread run. Where nobody else wants
    /// the cores that costs next to nothing.
    pub fn at_full_priority(self) -> Replay {
        Replay { offers_cores: false, ..self }
    }

    /// Reads nothing until [`Deployment::resume`](crate::Deployment::resume). Of a version that fails on a record: it comes to rest before it, so
    /// that one can roll back.
    pub fn paused(self) -> Replay {
        Replay { is_paused: true, ..self }
    }

    /// When it counts as caught up.
    pub fn caught_up(self, caught_up: CaughtUp) -> Replay {
        Replay { caught_up, ..self }
    }

    /// Takes the place of the live version as soon as it is caught up and no [check](Replay::check) vetoes it. Default: it waits for
    /// [`Deployment::promote`](crate::Deployment::promote).
    pub fn promote_when_caught_up(self) -> Replay {
        Replay { promotes_itself: true, ..self }
    }

    /// How long the version before it is kept, and goes on processing, after it was promoted. Default: 24 hours.
    pub fn keep_old_for(self, keeps_for: Duration) -> Replay {
        Replay { keeps_for, ..self }
    }

    /// How long the live version may stand still for the switch; after that all goes on as it was. Default: ten seconds.
    pub fn hold_at_most(self, held_for_at_most: Duration) -> Replay {
        Replay { held_for_at_most, ..self }
    }

    /// A check that may veto the promotion, by the comparison of both versions' output at the cut. The reason it gives is in the error of
    /// [`Deployment::promote`](crate::Deployment::promote). With a check the outputs are compared before each promotion: see
    /// [`Deployment::compare`](crate::Deployment::compare) for what that costs.
    pub fn check(
        mut self,
        name: impl Into<String>,
        check: impl Fn(&Comparison) -> Result<(), String> + Send + Sync + 'static,
    ) -> Replay {
        self.checks.push(Check { name: name.into(), check: Arc::new(check) });
        self
    }

    pub(crate) fn start_from(&self) -> StartFrom {
        match &self.from {
            Some(savepoint) => StartFrom::SavepointAtFirst(savepoint.clone()),
            None => StartFrom::Checkpoint(RestoreFrom::Latest),
        }
    }
}
