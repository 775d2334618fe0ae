//! The ends of bounded runs, which a later version repeats.
//!
//! The end of a run lets everything fire that waits, and what comes for it later is late. Where a source ends that goes on (a topic that is
//! read "until its end", a job that is drained) depends on the moment, so it is written down, and repeated:
//! 1. The last checkpoint of such a run says that it is one, and where each partition was. A next run carries that on: a list of *stops*.
//! 2. A version that begins anew takes over the stops of the version before it, as stops that lie *ahead*.
//! 3. While there are any, an attempt reads each partition up to its place in the first of them and lets it end there. Partitions that were not
//!    there are not opened. When all have ended the attempt ends as any bounded run does, with a last checkpoint.
//! 4. The next attempt restores that checkpoint, as the next run of the earlier version did its own, and goes on to the next stop. So an end is
//!    repeated by what it was: an end and a restart, and no operator knows of it.
//! 5. A stop whose places have all been passed, whatever the reason, is ahead no more.
//!
//! A flow with a source that a stop does not know reads what the earlier version never saw: it has nothing to be equal to, and repeats no ends.
//! What a crash leaves of a run between the end of its sources and its last checkpoint is no end.

use crate::parts::{self, RestoredPartition};
use rivermark_checkpoint::{Blob, Manifest, Stop, StopAt};
use rivermark_operators::Result;
use rivermark_operators::partitions::{PartitionEntry, StopsAt};
use rivermark_operators::source::SourcePartition;
use std::sync::Arc;

/// The ends of runs that a job knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stops {
    /// Of its own, the first one first, and those that it has repeated.
    pub(crate) passed: Vec<Stop>,
    /// Those of an earlier version that it has yet to repeat.
    pub(crate) ahead: Vec<Stop>,
    /// The one that this attempt repeats.
    now: Option<Stop>,
}

impl Stops {
    /// What a flow knows that goes on from a checkpoint.
    ///
    /// # Errors
    /// The checkpoint was not written by this engine.
    pub(crate) fn of(manifest: &Manifest) -> Result<Stops> {
        let mut stops =
            Stops { passed: manifest.stops.clone(), ahead: manifest.stops_ahead.clone(), now: None };
        if manifest.is_end {
            let end = end_of(manifest)?;
            // A run that read nothing has not ended anew.
            if stops.passed.last() != Some(&end) {
                stops.passed.push(end);
            }
        }
        stops.ahead.retain(|stop| !has_passed(manifest, stop));
        Ok(stops)
    }

    /// Takes what lies ahead of a checkpoint from all that another run passed.
    pub(crate) fn set_ahead(&mut self, manifest: &Manifest, all: Vec<Stop>) {
        self.ahead = all;
        self.ahead.retain(|stop| !has_passed(manifest, stop));
    }

    /// What a flow knows that begins anew, behind a version whose runs ended there.
    pub(crate) fn behind(ahead: Vec<Stop>) -> Stops {
        Stops { passed: Vec::new(), ahead, now: None }
    }

    /// Begins an attempt over the partitions `found`: to the first of the stops that lie ahead, or as far as there is something to read. Answers
    /// whether there is a stop. Lets go of all if a source is not what the earlier version read.
    pub(crate) fn begin(&mut self, flow: &str, found: &[(Arc<str>, Vec<SourcePartition>)]) -> bool {
        let Some(first) = self.ahead.first() else { return false };
        let is_known = |(source, partitions): &&(Arc<str>, Vec<SourcePartition>)| {
            let of_source = first.get(&**source);
            let knows = |p: &SourcePartition| {
                of_source.is_some_and(|known| known.contains_key(&parts::partition_key(p.number, &p.name)))
            };
            partitions.is_empty() || partitions.iter().any(knows)
        };
        if let Some((source, _)) = found.iter().find(|source| !is_known(source)) {
            tracing::warn!(
                flow,
                %source,
                "the version before this one did not read this source: the ends of its runs are not repeated"
            );
            self.ahead.clear();
        }
        self.now = self.ahead.first().cloned();
        self.now.is_some()
    }

    /// The sources have ended where this attempt was to end.
    pub(crate) fn has_come(&mut self) {
        if self.now.is_some() {
            self.ahead.remove(0);
        }
    }

    /// Where a partition ends in this attempt: `None` if it is none of it, `Some(None)` if it has no end of this kind.
    pub(crate) fn place(&self, source: &str, number: u32, name: &str) -> Option<Option<StopsAt>> {
        let Some(stop) = &self.now else { return Some(None) };
        let at = stop.get(source)?.get(&parts::partition_key(number, name))?;
        Some(Some(StopsAt { position: at.position.0.clone(), offset: at.offset }))
    }

    /// Lets a partition end where it is to end.
    pub(crate) fn apply(&self, entry: &PartitionEntry) {
        if let Some(Some(stop)) = self.place(&entry.source, entry.number, &entry.name) {
            entry.stop_at(stop);
        }
    }
}

/// Where the partitions are of a checkpoint that is the end of a run.
fn end_of(manifest: &Manifest) -> Result<Stop> {
    let mut stop = Stop::new();
    for partition in parts::positions_of(manifest)? {
        let RestoredPartition { source, number, name, position, remembered, .. } = partition;
        let at = StopAt { position: Blob(position), offset: remembered.read_to };
        stop.entry(source.to_string()).or_default().insert(parts::partition_key(number, &name), at);
    }
    Ok(stop)
}

/// Whether a flow that is at a checkpoint has come to all places of a stop that it can come to.
fn has_passed(manifest: &Manifest, stop: &Stop) -> bool {
    stop.iter().all(|(source, places)| {
        let Some(partitions) = manifest.sources.get(source) else { return true };
        places
            .iter()
            .all(|(partition, at)| partitions.get(partition).is_some_and(|is| is.read_to >= at.offset))
    })
}
