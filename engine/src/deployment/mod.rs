//! Blue/green deployments: versions of a flow beside each other, of which one is live.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `machine` | the record of a flow's versions and its steps; pure |
//! | `record` | the file that the record is |
//! | `fleet` | the versions that run in this process, and the thread that moves them |
//! | `switch` | how one takes the other's place: the cut, and why it has no gap and no duplicate |
//! | `rows`, `compare` | what versions have written, compared; corrections of upserts |
//! | `plan` | what a deployment would do, before it is started |
//! | `weak` | holding versions without keeping them running |
//! | `progress`, `options` | how far a version is; what can be said about a deployment |
//!
//! [`Engine::deploy`] starts a version. The first of a flow is live. Another one runs beside it, with state, checkpoints, source positions and
//! output topics of its own, and never ahead of it. When it has caught up it can be promoted: readers of the flow's outputs
//! (`AliasSource`, [`Engine::outputs`]) then go on with its rows, from the very input on at which they leave the old one's, and those who query
//! the flow ([`Engine::queries`]) with its state, at no less of the input than they have seen. The old version is kept for a while, goes on behind the new one, and takes its place again with [`Deployment::roll_back`].
//!
//! A version that is not live leaves the live one its cores: its workers offer theirs after each step, and steps are short ([`Replay::at_full_priority`]
//! turns that off). `benches/README.md` has what a replay costs nevertheless. [`Replay::workers`] and [`Replay::rate_limit`] make it less.
//!
//! A process that dies anywhere in this deploys its versions again, with the same calls, and is where it was.

mod compare;
mod fleet;
mod machine;
mod options;
mod plan;
mod progress;
mod record;
mod rows;
mod switch;
mod weak;

pub(crate) use compare::compare_topics;
pub use compare::{ComparedOutput, Comparison, Sample};
pub(crate) use fleet::{Fleet, Folders, publish};
pub use machine::{Cut, Deployments, OutputCut, OutputTopic, Segment, State, Version};
pub use options::{CaughtUp, Replay};
pub use plan::{Becomes, DeploymentPlan, PlannedPartition, PlannedState};
pub use progress::{PartitionProgress, Progress};
pub(crate) use record::RecordFile;
pub(crate) use switch::{Places, ends_of, lines_of, places};
pub use weak::WeakDeployment;

use crate::engine::Engine;
use crate::job::{Job, Status};
use crate::metrics::Metrics;
use crate::queries::{LatestQuery, Queries, Query, View, WindowQuery};
use fleet::Switch;
use rivermark_operators::rate_limit::RateLimit;
use rivermark_operators::{Flow, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Engine {
    /// Deploys a version of a flow: starts it, beside the live one if there is one, or goes on with it where a process before this one had come to.
    /// The first version of a flow is live at once. At least one sink has to be an output under an alias, `LogSink::output(..)`.
    ///
    /// A version that is not live is read no further than the live one's newest checkpoint, so the live one has to take some
    /// ([`Options::checkpoint_every`](crate::Options::checkpoint_every)).
    ///
    /// All versions of the flow run until the last [`Deployment`] of it is dropped.
    ///
    /// # Errors
    /// The flow is not valid, has other outputs or sources than the live version, cannot start from the savepoint, or runs already; the log does not
    /// have any more what it would read; the version was retired or rolled back; or the record of the flow's deployments is damaged or cannot be written.
    pub fn deploy(&self, flow: Flow, replay: Replay) -> Result<Deployment> {
        let fleet = self.fleet(flow.name())?;
        let version = fleet.deploy(self, flow, replay)?;
        Ok(Deployment { fleet, version })
    }

    /// What [`Engine::deploy`] would do, before anything is started: what becomes of each operator's state, which records would be read again and
    /// whether they are still there, about how much that is and how long it takes.
    ///
    /// # Errors
    /// The flow as such is not valid, or what is stored cannot be read. That it cannot start is no error, but the answer.
    pub fn plan(&self, flow: Flow, replay: &Replay) -> Result<DeploymentPlan> {
        self.fleet(flow.name())?.plan(self, flow, replay)
    }

    /// What is deployed of a flow, whether it runs or not.
    ///
    /// # Errors
    /// The record is damaged or cannot be read.
    pub fn deployments(&self, flow: &str) -> Result<Deployments> {
        Ok(self.fleet(flow)?.record())
    }
}

/// A version of a flow that is deployed. All versions run until the last of these is dropped.
#[derive(Clone)]
pub struct Deployment {
    fleet: Arc<Fleet>,
    version: u64,
}

impl Deployment {
    /// The flow's name.
    pub fn flow(&self) -> &str {
        &self.fleet.flow
    }

    /// The version's number.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the version is.
    pub fn state(&self) -> State {
        self.fleet.record().state(self.version).unwrap_or(State::Retired)
    }

    /// The versions of the flow, and what readers of its outputs see.
    pub fn deployments(&self) -> Deployments {
        self.fleet.record()
    }

    /// How far it is behind the live version. `None` if it does not run.
    pub fn progress(&self) -> Option<Progress> {
        self.fleet.progress(self.version)
    }

    /// What its job is doing. `None` if it does not run.
    pub fn status(&self) -> Option<Status> {
        self.fleet.with_job(self.version, |job| job.status())
    }

    /// What its job has done. `None` if it does not run.
    pub fn metrics(&self) -> Option<Metrics> {
        self.fleet.with_job(self.version, |job| job.metrics())
    }

    /// What asks for this version's state, live or not, and may be kept beyond it. [`Engine::queries`] follows the live version instead.
    ///
    /// # Errors
    /// The version does not run.
    pub fn queries(&self) -> Result<Queries> {
        self.fleet.with_job(self.version, Job::queries).ok_or_else(|| {
            let problem = format!("version {} does not run; deploy it", self.version);
            self.fleet.error("asking for the state", problem)
        })
    }

    /// This version's state at the newest epoch that is visible; see [`Queries::view`].
    ///
    /// # Errors
    /// The version does not run, no epoch has been stored yet, or its state cannot be read.
    pub fn view(&self) -> Result<View> {
        // Not with the lock of the deployments held: it may wait.
        self.queries()?.view()
    }

    /// Asks for a state of an operator of this version by its handle, at the newest epoch that is visible; see [`Job::query`].
    pub fn query<H: Copy>(&self, handle: H) -> Query<H> {
        Query::new(self.view(), handle)
    }

    /// Asks for the windows of an operator of this version, at the newest epoch that is visible; see [`Job::windows`].
    pub fn windows(&self, operator: &str) -> WindowQuery {
        WindowQuery::new(self.view(), operator)
    }

    /// Asks the worker of this version that owns a key for what it has there now; see [`Job::latest`].
    ///
    /// # Errors
    /// The version does not run.
    pub fn latest<H: Copy>(&self, handle: H) -> Result<LatestQuery<H>> {
        Ok(self.queries()?.latest(handle))
    }

    /// Reads nothing until [`Deployment::resume`]; see [`Job::pause`](crate::Job::pause).
    pub fn pause(&self) {
        self.fleet.with_job(self.version, |job| job.pause());
    }

    /// Reads again.
    pub fn resume(&self) {
        self.fleet.with_job(self.version, |job| job.resume());
    }

    /// Whether it reads nothing, because it was deployed so or [`Deployment::pause`] was called. `None` if it does not run.
    pub fn is_paused(&self) -> Option<bool> {
        self.fleet.with_job(self.version, |job| job.is_paused())
    }

    /// Changes how fast a source is read; see [`Job::set_rate_limit`](crate::Job::set_rate_limit).
    ///
    /// # Errors
    /// As there, or the version does not run.
    pub fn set_rate_limit(&self, source: &str, limit: Option<RateLimit>) -> Result<()> {
        let set = self.fleet.with_job(self.version, |job| job.set_rate_limit(source, limit));
        set.unwrap_or_else(|| Err(self.fleet.error("changing a rate limit", "the version does not run")))
    }

    /// Waits until the version is in a state, for at most `within`. Answers whether it is.
    pub fn wait_for(&self, state: State, within: Duration) -> bool {
        let until = Instant::now().checked_add(within);
        self.fleet.wait_until(|record| record.state(self.version) == Some(state), until)
    }

    /// What has kept it from being promoted by itself, if that was tried ([`Replay::promote_when_caught_up`]).
    pub fn refused(&self) -> Option<String> {
        self.fleet.refused(self.version)
    }

    /// Compares what it and the live version have written, at the same offsets of every partition: by key, of upserts the newest row. Both
    /// stand still for as long as it takes to bring them there (checkpoints of both), and go on while their output is read.
    ///
    /// Costs reading both outputs, and some 200 bytes of memory a key. Of a version that began from a savepoint, rows from before that are only
    /// in the old one.
    ///
    /// # Errors
    /// They could not be brought to the same offsets in time (the version is far behind, or one of them has failed), or what they wrote cannot
    /// be read.
    pub fn compare(&self) -> Result<Comparison> {
        self.fleet.compare(self.version)
    }

    /// Makes it the live version, if it is caught up: readers of the flow's outputs see the old version's rows up to the cut and this one's from it
    /// on. The cut is at the same offsets of all that both read, and the switch is one write of one file. The old version is kept
    /// ([`Replay::keep_old_for`]). Of the live version it does nothing.
    ///
    /// Both stand still meanwhile: some milliseconds and a checkpoint of each. Where outputs are upserts, readers are led from the one's rows to the
    /// other's by the rows in which they differ.
    ///
    /// # Errors
    /// It is not caught up, they could not be brought to the same offsets in time, or a check vetoes it: then all goes on as it was. If the
    /// record could be neither written nor be left as it was, both stand still until the program is started again.
    pub fn promote(&self) -> Result<Cut> {
        self.fleet.switch(Switch::Promote(self.version))
    }

    /// Makes the version that was live before this one live again, the same way; this one is rolled back, and stopped. `reason` is kept with it.
    ///
    /// # Errors
    /// This version is not live; none that was before is kept any more; or as [`Deployment::promote`]. A version that has failed must run again
    /// to come to rest: deploy it with [`Replay::paused`].
    pub fn roll_back(&self, reason: &str) -> Result<Cut> {
        let record = self.fleet.record();
        if record.live() != Some(self.version) {
            let state = self.state();
            let problem =
                format!("version {} is {state}, and only the live one can be rolled back", self.version);
            return Err(self.fleet.error("rolling back", problem));
        }
        self.fleet.switch(Switch::RollBack(reason.to_owned()))
    }

    /// Stops all versions of the flow that run, this one and the others, each behind a last checkpoint, and waits for them. They are what they were:
    /// deployed again they go on. For a program that ends.
    ///
    /// # Errors
    /// The first failure that one of them ended with.
    pub fn stop_all(&self) -> Result<()> {
        self.fleet.stop()
    }

    /// Lets it be over, and frees its state, checkpoints and output. Readers who have not come to the live version's rows yet find those before
    /// them gone, as by a topic's retention.
    ///
    /// # Errors
    /// It is live, or something cannot be removed; that is tried again at the next start.
    pub fn retire(&self) -> Result<()> {
        self.fleet.retire(self.version)
    }
}
