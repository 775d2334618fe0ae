//! The job's table of source partitions: who they are, how far each has come in event time, what to restore for them.
//!
//! Shared by all workers. A stamp names a partition by its index here, so an index is given once and kept for the flow's
//! life (the checkpoint carries the table): the order of records by (time, partition, offset) must not change across restarts.

use crate::clocks::Clocks;
use crate::error::BoxError;
use crate::journal::StoredJournal;
use crate::time::Timestamp;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What a checkpoint has of a partition, by operator.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// What operators had saved for it, in their own encoding.
    pub states: HashMap<String, Vec<u8>>,
    /// What they wrote down about its records.
    pub journals: HashMap<String, StoredJournal>,
}

/// One source partition of a job.
#[derive(Debug)]
pub struct PartitionEntry {
    /// Its index in the table.
    pub index: u16,
    /// The source's name in the flow.
    pub source: Arc<str>,
    /// The partition's number in its source.
    pub number: u32,
    /// What to call it in messages, such as `clicks[3]`.
    pub name: String,
    watermark: AtomicI64,
    idle: AtomicBool,
    ended: AtomicBool,
    max_drift: AtomicI64,
    restored: Remembered,
    earlier: Remembered,
}

impl PartitionEntry {
    /// The partition's watermark, as far as its worker has told.
    pub fn watermark(&self) -> Timestamp {
        Timestamp::from_millis(self.watermark.load(Ordering::Relaxed))
    }

    /// Publishes the partition's watermark. Where a flow tells its time twice, the higher one counts.
    pub(crate) fn set_watermark(&self, watermark: Timestamp) {
        self.watermark.fetch_max(watermark.millis(), Ordering::Relaxed);
    }

    /// Publishes whether the partition is idle.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// Publishes that the partition has ended.
    pub(crate) fn set_ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has no more records, ever.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Sets how far this partition may run ahead of the slowest, in milliseconds of event time. The least that is set counts.
    pub(crate) fn set_max_drift(&self, millis: i64) {
        self.max_drift.fetch_min(millis, Ordering::Relaxed);
    }

    /// What the operator `operator` had saved for this partition in the checkpoint that the job started from.
    pub(crate) fn restored(&self, operator: &str) -> Option<&[u8]> {
        self.restored.states.get(operator).map(Vec::as_slice)
    }

    /// What it had written down about this partition's records, in that checkpoint.
    pub(crate) fn restored_journal(&self, operator: &str) -> Option<&StoredJournal> {
        self.restored.journals.get(operator)
    }

    /// What it had saved for this partition in the last checkpoint of an earlier version of the flow, where that may be of use.
    pub(crate) fn earlier(&self, operator: &str) -> Option<&[u8]> {
        self.earlier.states.get(operator).map(Vec::as_slice)
    }

    /// What `operator` has to repeat of an earlier version: what that had saved for this partition and written down about its records. `repeating`
    /// says whether its own checkpoint was taken while it did so; without one, it begins with it.
    ///
    /// # Errors
    /// It has to go on repeating, and nothing is left of the earlier version.
    pub(crate) fn to_repeat(
        &self,
        operator: &str,
        repeating: bool,
    ) -> Result<Option<(&[u8], &StoredJournal)>, BoxError> {
        let earlier = self.earlier(operator).zip(self.earlier.journals.get(operator));
        match earlier {
            None if repeating && self.restored(operator).is_some() => {
                Err("it was repeating what an earlier version of the flow had written down, and no checkpoint of an earlier version has that any \
                     more; bring those back, or raise the flow's version to begin anew without them"
                    .into())
            }
            earlier => Ok(earlier.filter(|_| repeating)),
        }
    }
}

/// The table; see the module's page.
#[derive(Debug, Default)]
pub struct Partitions {
    entries: RwLock<Vec<Arc<PartitionEntry>>>,
    /// All that are there at the start have been added.
    known: AtomicBool,
    clocks: Clocks,
}

impl Partitions {
    /// Adds a partition and returns it. Called by the engine, in the order that the checkpoint or the first start fixed. `restored` is what the
    /// checkpoint has of it; `earlier` what the last one of an earlier version has, with decisions to repeat.
    ///
    /// # Panics
    /// With more partitions than a stamp can name, [`crate::Origin::MAX_PARTITIONS`]; the engine checks before.
    pub fn add(
        &self,
        source: Arc<str>,
        number: u32,
        name: String,
        restored: Remembered,
        earlier: Remembered,
    ) -> Arc<PartitionEntry> {
        let mut entries = self.entries.write();
        let index = u16::try_from(entries.len()).expect("the engine checks the number of partitions");
        let entry = Arc::new(PartitionEntry {
            index,
            source,
            number,
            name,
            watermark: AtomicI64::new(i64::MIN),
            idle: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            max_drift: AtomicI64::new(i64::MAX),
            restored,
            earlier,
        });
        entries.push(Arc::clone(&entry));
        entry
    }

    /// Says that all partitions which are there at the start have been added. Until then no task speaks of time for others.
    pub fn set_known(&self) {
        self.known.store(true, Ordering::SeqCst);
    }

    pub(crate) fn are_known(&self) -> bool {
        self.known.load(Ordering::SeqCst)
    }

    pub(crate) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// The partition of that index.
    pub fn get(&self, index: u16) -> Option<Arc<PartitionEntry>> {
        self.entries.read().get(usize::from(index)).cloned()
    }

    /// All partitions, in index order.
    pub fn all(&self) -> Vec<Arc<PartitionEntry>> {
        self.entries.read().clone()
    }

    /// Whether `entry` is further ahead of the slowest partition than it may be, so that reading it should wait. It waits for the others
    /// of its source, and for those of other sources that are aligned too: a source that tells no time would be waited for for ever.
    /// Idle and ended partitions hold nobody back. Costs a look at each partition when a drift was set, else nothing.
    pub(crate) fn too_far_ahead(&self, entry: &PartitionEntry) -> bool {
        let drift = entry.max_drift.load(Ordering::Relaxed);
        if drift == i64::MAX {
            return false;
        }
        let entries = self.entries.read();
        let takes_part =
            |e: &PartitionEntry| e.source == entry.source || e.max_drift.load(Ordering::Relaxed) != i64::MAX;
        let holds_back = |e: &&Arc<PartitionEntry>| {
            e.index != entry.index && !e.ended() && !e.idle.load(Ordering::Relaxed) && takes_part(e)
        };
        let slowest = entries.iter().filter(holds_back).map(|e| e.watermark()).min();
        slowest.is_some_and(|slowest| entry.watermark() > slowest.plus_millis(drift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_waits_for_the_slowest_that_is_neither_idle_nor_ended() {
        let table = Partitions::default();
        let add = |n| {
            table.add(
                "clicks".into(),
                n,
                format!("clicks[{n}]"),
                Remembered::default(),
                Remembered::default(),
            )
        };
        let (fast, slow) = (add(0), add(1));
        // A source that is not aligned is nobody's business.
        let other =
            table.add("views".into(), 0, "views[0]".into(), Remembered::default(), Remembered::default());
        fast.set_max_drift(1000);
        fast.set_watermark(Timestamp::from_millis(5001));
        assert!(table.too_far_ahead(&fast), "the other has not begun");
        slow.set_watermark(Timestamp::from_millis(4000));
        assert!(table.too_far_ahead(&fast));
        slow.set_watermark(Timestamp::from_millis(4001));
        assert!(!table.too_far_ahead(&fast));
        assert!(!table.too_far_ahead(&slow), "without a drift set nobody waits");
        fast.set_watermark(Timestamp::from_millis(6000));
        assert!(table.too_far_ahead(&fast));
        slow.set_idle(true);
        assert!(!table.too_far_ahead(&fast));
        other.set_max_drift(1000);
        assert!(table.too_far_ahead(&fast), "what is aligned is aligned across sources");
    }
}
