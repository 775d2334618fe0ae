//! How a version takes the place of the live one: the cut.
//!
//! The cut has to lie at the same offsets of every partition that both versions read, and each version's output at the cut has to be all that
//! these offsets imply and nothing else. Then the old version's rows before it and the new one's behind it are each input once. The versions are
//! the *leader*, which is live, and the *follower*, whose lines ([`rivermark_operators::line`]) keep it behind the leader's checkpoints.
//!
//! 1. The leader is paused, and one waits until all its workers rest ([`crate::pulse`]): all that its offsets imply, windows that fire in parts
//!    included, has come to its sinks. It takes a checkpoint, so all of this is visible. Its offsets `V` are in the checkpoint.
//! 2. The follower's lines are set to `V`. As it has never been beyond them, it comes to `V` exactly; it rests there, and takes a checkpoint.
//! 3. Both checkpoints must have the same offsets for the same partitions, the same partitions must be idle, and neither job may have been
//!    started again meanwhile. Otherwise there is no cut, and both go on as they were.
//! 4. The ends of their output topics, now, are the cut. Rows appear only with a checkpoint, and no later one was taken: the ends hold exactly
//!    what was visible after 1 and 2.
//! 5. The record is written, readers and those who query ([`crate::queries`]) are told, and only then do the versions read on, each in its new role: the one that is live has no lines,
//!    the other one has those of `V`.
//!
//! **Without a gap or a duplicate:** a row of the old version is before the cut if and only if inputs before `V` imply it, by 1 and 4; a row of the
//! new version is behind it if and only if they do not, by 2 and 4. What a version's output is at `V` depends on the log alone (replay equals
//! live), so it does not matter how either of them came there.
//!
//! The live version stands still for as long as this takes: some steps of its workers and a checkpoint, then the same of the follower. Output of
//! upserts costs its comparison too; most of it is read before (see [`super::rows`]).

use super::rows::View;
use crate::job::{Job, JobShared, Status};
use crate::parts::{self, RestoredPartition};
use crate::pulse::Watch;
use rivermark_checkpoint::{Epoch, Manifest};
use rivermark_log::{Isolation, Log, Position};
use rivermark_operators::line::Line;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a condition is looked at that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The lines that a checkpoint is, by source and partition.
pub(crate) type AllLines = HashMap<String, HashMap<u32, Line>>;

/// Where the partitions of a job are: by source and partition, the offset behind the last record.
pub(crate) type Places = BTreeMap<(String, u32), Option<u64>>;

/// The lines for who follows a version with this checkpoint.
pub(crate) fn lines_of(manifest: &Manifest) -> rivermark_operators::Result<AllLines> {
    let mut lines = AllLines::new();
    for partition in parts::positions_of(manifest)? {
        let RestoredPartition { source, number, position, remembered, .. } = partition;
        let line = Line { position, offset: remembered.read_to };
        lines.entry(source.to_string()).or_default().insert(number, line);
    }
    Ok(lines)
}

/// Sets the lines of a job's sources, or takes them away.
pub(crate) fn set_lines(job: &JobShared, lines: Option<&AllLines>) {
    for (source, throttle) in job.throttles() {
        throttle.set_lines(lines.map(|lines| lines.get(&**source).cloned().unwrap_or_default()));
    }
}

pub(crate) fn places(manifest: &Manifest) -> Result<Places, String> {
    let partitions = parts::positions_of(manifest).map_err(|e| e.to_string())?;
    Ok(partitions.into_iter().map(|p| ((p.source.to_string(), p.number), p.remembered.read_to)).collect())
}

fn idle(job: &JobShared) -> Vec<(String, u32)> {
    let partitions = job.partitions().all();
    let idle = partitions.iter().filter(|partition| partition.is_idle());
    let mut idle: Vec<_> = idle.map(|partition| (partition.source.to_string(), partition.number)).collect();
    idle.sort();
    idle
}

/// One of the two versions.
pub(crate) struct Side<'a> {
    pub(crate) version: u64,
    pub(crate) job: &'a Job,
}

/// Both versions, held at the same offsets. Let go of, they go on as they were; see [`Held::swap`].
pub(crate) struct Held<'a> {
    leader: Side<'a>,
    follower: Side<'a>,
    lines: AllLines,
    /// The follower's checkpoint at these offsets.
    epoch: Epoch,
    is_swapped: bool,
    since: Instant,
}

impl<'a> Held<'a> {
    /// Brings both to the same offsets, or gives up at the deadline.
    ///
    /// # Errors
    /// Why they did not come there.
    pub(crate) fn hold(leader: Side<'a>, follower: Side<'a>, within: Duration) -> Result<Held<'a>, String> {
        let since = Instant::now();
        let until = since + within;
        let (lines, epoch) = (AllLines::new(), Epoch(0));
        let mut held = Held { leader, follower, lines, epoch, is_swapped: false, since };
        let restarts = held.restarts();
        held.leader.job.pause();
        let led = held.leader.rest_and_checkpoint(until)?;
        held.lines = lines_of(&led).map_err(|e| e.to_string())?;
        let wanted = places(&led)?;
        set_lines(&held.follower.job.shared, Some(&held.lines));
        held.follower.job.resume();
        held.follower.come_to(&wanted, until)?;
        let followed = held.follower.rest_and_checkpoint(until)?;
        held.epoch = followed.epoch;
        let found = places(&followed)?;
        if found != wanted {
            let differs = wanted.iter().find(|(partition, offset)| found.get(*partition) != Some(*offset));
            return Err(format!(
                "version {} is not at the offsets of version {}, such as {differs:?}",
                held.follower.version, held.leader.version
            ));
        }
        let (idle_there, idle_here) = (idle(&held.leader.job.shared), idle(&held.follower.job.shared));
        if idle_there != idle_here {
            return Err(format!(
                "version {} takes {idle_there:?} for idle and version {} {idle_here:?}, so that they have fired different windows; try again when \
                 both have been silent for long enough, or speak",
                held.leader.version, held.follower.version
            ));
        }
        if held.restarts() != restarts {
            return Err("a job has failed meanwhile and was started again".into());
        }
        Ok(held)
    }

    fn restarts(&self) -> (u64, u64) {
        (self.leader.job.metrics().restarts, self.follower.job.metrics().restarts)
    }

    /// The follower's checkpoint at the offsets at which both stand.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How long the leader has stood still.
    pub(crate) fn lasted(&self) -> Duration {
        self.since.elapsed()
    }

    /// The record says that the follower is live: the two change roles as they go on.
    pub(crate) fn swap(mut self) {
        set_lines(&self.follower.job.shared, None);
        set_lines(&self.leader.job.shared, Some(&self.lines));
        self.is_swapped = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.leader.job.resume();
        tracing::debug!(
            from = self.leader.version,
            to = self.follower.version,
            swapped = self.is_swapped,
            stood_still = ?self.lasted(),
            "both versions go on"
        );
    }
}

/// A job that begins nothing by itself, until dropped.
struct Quiet<'a>(&'a JobShared);

impl<'a> Quiet<'a> {
    fn of(job: &'a JobShared) -> Quiet<'a> {
        job.set_quiet(true);
        Quiet(job)
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.set_quiet(false);
    }
}

impl Side<'_> {
    fn check_running(&self, until: Instant, what: &str) -> Result<(), String> {
        match self.job.status() {
            Status::Failed { failure } => Err(format!("version {} has failed: {failure}", self.version)),
            status if status.is_over() => Err(format!("version {} is over: {status:?}", self.version)),
            status if Instant::now() > until => {
                Err(format!("version {} {what} in time; it is {status:?}", self.version))
            }
            _ => Ok(()),
        }
    }

    /// Waits until nothing moves any more, and takes a checkpoint.
    fn rest_and_checkpoint(&self, until: Instant) -> Result<Arc<Manifest>, String> {
        // Barriers of periodic checkpoints would be deeds too.
        let quiet = Quiet::of(&self.job.shared);
        let pulses = &self.job.shared.pulses;
        let mut watch = Watch::begin(pulses);
        loop {
            if self.job.status() == Status::Running && watch.sees_rest(pulses) {
                break;
            }
            self.check_running(until, "did not come to rest")?;
            self.job.shared.wake_workers();
            std::thread::sleep(LOOK_AGAIN);
        }
        drop(quiet);
        let epoch = self.job.checkpoint().map_err(|e| e.to_string())?;
        // Or a newer one: the offsets are the same, as long as the job stands still.
        let committed = self.job.shared.committed().filter(|manifest| manifest.epoch >= epoch);
        committed.ok_or_else(|| format!("checkpoint {epoch} of version {} is gone", self.version))
    }

    /// Waits until every partition has been read up to its place.
    fn come_to(&self, places: &Places, until: Instant) -> Result<(), String> {
        loop {
            let partitions = self.job.shared.partitions().all();
            let reached: Places = partitions
                .iter()
                .map(|partition| ((partition.source.to_string(), partition.number), partition.reached()))
                .collect();
            let is_there = places
                .iter()
                .all(|(partition, offset)| reached.get(partition).is_some_and(|reached| reached >= offset));
            if is_there {
                return Ok(());
            }
            self.check_running(until, "did not come to the offsets of the live version")?;
            self.job.shared.wake_workers();
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// The ends of a topic, by partition: what is visible of it.
pub(crate) fn ends_of(log: &Log, topic: &str) -> Result<Vec<u64>, String> {
    let topic = log.topic(topic).map_err(|e| e.to_string())?;
    let end = |partition| {
        let reader = topic.reader(partition, Position::Latest, Isolation::ReadCommitted);
        reader.map(|reader| reader.position()).map_err(|e| e.to_string())
    };
    (0..topic.partitions()).map(end).collect()
}

/// The ends of the two topics of an output, which must have the same partitions.
pub(crate) fn ends_of_both(log: &Log, old: &str, new: &str) -> Result<(Vec<u64>, Vec<u64>), String> {
    let (until, from) = (ends_of(log, old)?, ends_of(log, new)?);
    if until.len() != from.len() {
        return Err(format!(
            "`{old}` has {} partitions and `{new}` has {}: readers of an output read a partition of one version after that of the other, so \
             they need the same number",
            until.len(),
            from.len()
        ));
    }
    Ok((until, from))
}

/// What both versions have written under one alias, as far as it has been read.
#[derive(Debug, Default)]
pub(crate) struct BothViews {
    pub(crate) old: View,
    pub(crate) new: View,
}
