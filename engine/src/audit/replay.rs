//! The replay of an audit: the version once more, up to the cut, at rest.

use super::prepare::{Cut, Prepared, Published, Scratch};
use super::{Shared, Stage};
use crate::deployment::ends_of;
use crate::engine::launch;
use crate::job::{Job, Status};
use crate::pulse::Watch;
use crate::savepoint::StartFrom;
use rivermark_checkpoint::RestoreFrom;
use rivermark_operators::rate_limit::Silence;
use rivermark_operators::{Error, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a condition is looked at that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Where the output of the replay ends, by topic.
pub(crate) type Ends = BTreeMap<String, Vec<u64>>;

/// What the replay has computed.
pub(crate) struct Replayed {
    /// What the cut implies.
    pub(crate) sure: Ends,
    /// And what else comes out if every partition falls silent there.
    pub(crate) all: Ends,
    pub(crate) records: u64,
}

/// Replays up to the cut.
pub(crate) fn replay(prepared: Prepared, shared: &Shared) -> Result<(Replayed, Scratch, Vec<Published>)> {
    let Prepared { environment, from, scratch, cut, outputs, .. } = prepared;
    let may_be_silent = environment.plan.may_be_silent();
    let from = from.map_or(StartFrom::Checkpoint(RestoreFrom::Latest), StartFrom::Savepoint);
    let job = launch(environment, from, None)?;
    *shared.job.lock() = Some(std::sync::Arc::clone(&job.shared));
    let replaying = Replaying { job, shared, cut: &cut };
    let ends = |_: ()| -> Result<Ends> {
        let of = |output: &Published| {
            let ends = ends_of(&scratch.log, &output.topic).map_err(|e| shared.error(e))?;
            Ok((output.topic.clone(), ends))
        };
        outputs.iter().map(of).collect()
    };
    let sure = replaying.come_to_the_cut().and_then(ends);
    let all = match (&sure, may_be_silent) {
        (Ok(_), true) => replaying.fall_silent().and_then(ends),
        (Ok(sure), false) => Ok(sure.clone()),
        (Err(_), _) => Ok(Ends::new()),
    };
    let records = replaying.job.metrics().records_read;
    replaying.job.cancel();
    let over = replaying.job.wait();
    let replayed = Replayed { sure: sure?, all: all?, records };
    over?;
    Ok((replayed, scratch, outputs))
}

struct Replaying<'a> {
    job: Job,
    shared: &'a Shared,
    cut: &'a Cut,
}

impl Replaying<'_> {
    /// Reads everything up to the cut, through all ends of runs before it, until nothing fires any more and all of it can be read.
    fn come_to_the_cut(&self) -> Result<()> {
        loop {
            self.wait_until(|| self.is_read())?;
            self.rest()?;
            // At the end of a run the job begins again: then the checkpoint is of no account.
            let Ok(epoch) = self.job.checkpoint() else {
                self.check()?;
                std::thread::sleep(LOOK_AGAIN);
                continue;
            };
            let committed = self.job.shared.committed().filter(|manifest| manifest.epoch >= epoch);
            if let Some(manifest) = committed
                && self.cut.is_reached(&manifest)?
            {
                return Ok(());
            }
        }
    }

    /// Lets out what waits for partitions that say nothing more.
    fn fall_silent(&self) -> Result<()> {
        for throttle in self.job.shared.throttles().values() {
            throttle.set_silence(Silence::AtOnce);
        }
        self.rest()?;
        self.job.checkpoint().map(drop)
    }

    fn is_read(&self) -> bool {
        let partitions = self.job.shared.partitions().all();
        self.cut.places.iter().all(|((source, number), offset)| {
            let is_it = |p: &&std::sync::Arc<rivermark_operators::partitions::PartitionEntry>| {
                *p.source == **source && p.number == *number
            };
            partitions.iter().find(is_it).is_some_and(|partition| partition.reached() >= *offset)
        })
    }

    /// Waits until nothing is on its way and nothing fires.
    fn rest(&self) -> Result<()> {
        let pulses = &self.job.shared.pulses;
        let mut watch = Watch::begin(pulses);
        self.wait_until(|| self.job.status() == Status::Running && watch.sees_rest(pulses))
    }

    fn wait_until(&self, mut done: impl FnMut() -> bool) -> Result<()> {
        while !done() {
            self.check()?;
            self.job.shared.wake_workers();
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.shared.set(Stage::Replaying);
        if self.shared.is_cancelled() {
            return Err(self.shared.cancelled());
        }
        match self.job.status() {
            Status::Failed { failure } => Err(self.shared.error(format!("the replay has failed: {failure}"))),
            status if status.is_over() => Err(self.shared.error(format!("the replay is over: {status:?}"))),
            _ => Ok(()),
        }
    }
}

impl Shared {
    pub(crate) fn error(&self, problem: impl Into<rivermark_operators::BoxError>) -> Error {
        Error::engine(format!("replaying version {} of flow `{}`", self.version, self.flow), problem)
    }

    pub(crate) fn cancelled(&self) -> Error {
        self.error("it was cancelled")
    }
}
