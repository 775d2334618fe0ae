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
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Where an earlier version's run of the flow had ended in a partition: this one ends there too, before it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopsAt {
    /// Where to read on from there, in the source's own encoding.
    pub position: Vec<u8>,
    /// The offset behind the last record; `None` where there was none.
    pub offset: Option<u64>,
}

/// What a checkpoint has of a partition, by operator.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The offset behind the last record that was read, if any was.
    pub read_to: Option<u64>,
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
    /// The offset behind the last record that was read, and one; 0 where there was none.
    reached: AtomicU64,
    opened: AtomicBool,
    idle: AtomicBool,
    /// Whether it has come to its line ([`crate::line`]).
    at_line: AtomicBool,
    ended: AtomicBool,
    /// Its position, if its source is not in the flow any more.
    dropped: Option<Vec<u8>>,
    /// How far it may run ahead of the slowest that it is aligned with, in milliseconds of event time; `i64::MAX` for as far as it gets.
    max_drift: AtomicI64,
    /// The alignment groups that it is in, a bit each.
    groups: AtomicU64,
    restored: Remembered,
    earlier: Remembered,
    stops_at: OnceLock<StopsAt>,
}

impl PartitionEntry {
    /// Lets it end at a place in this attempt. To be said before it is read; the first word counts.
    pub fn stop_at(&self, stop: StopsAt) {
        let _ = self.stops_at.set(stop);
    }

    /// Where it ends in this attempt, whatever follows.
    pub(crate) fn stops_at(&self) -> Option<&StopsAt> {
        self.stops_at.get()
    }

    /// The offset behind the last record that was read of it before the checkpoint, if any was.
    pub fn read_to(&self) -> Option<u64> {
        self.restored.read_to
    }

    /// The offset behind the last record that has been read by now, if any was.
    pub fn reached(&self) -> Option<u64> {
        self.reached.load(Ordering::SeqCst).checked_sub(1)
    }

    /// Publishes how far it has been read.
    pub(crate) fn set_reached(&self, read_to: Option<u64>) {
        self.reached.store(read_to.map_or(0, |offset| offset + 1), Ordering::SeqCst);
    }

    /// Whether it is idle now.
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// The partition's watermark, as far as its worker has told.
    pub fn watermark(&self) -> Timestamp {
        Timestamp::from_millis(self.watermark.load(Ordering::Relaxed))
    }

    /// Publishes the partition's watermark. Where a flow tells its time twice, the higher one counts.
    pub(crate) fn set_watermark(&self, watermark: Timestamp) {
        self.watermark.fetch_max(watermark.millis(), Ordering::Relaxed);
    }

    /// Publishes that a task has begun to read it.
    pub(crate) fn set_opened(&self) {
        self.opened.store(true, Ordering::SeqCst);
    }

    /// The position where it was left, if the flow has dropped its source. It keeps its index, so that no other partition's records are taken for
    /// its own, and checkpoints carry it on.
    pub fn dropped(&self) -> Option<&[u8]> {
        self.dropped.as_deref()
    }

    /// What operators had saved for it, by name.
    pub fn restored_states(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.restored.states.iter()
    }

    /// What operators had written down about its records, by name.
    pub fn restored_journals(&self) -> impl Iterator<Item = (&String, &StoredJournal)> {
        self.restored.journals.iter()
    }

    /// Publishes whether the partition is idle.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// Publishes whether it may be read no further for now.
    pub(crate) fn set_at_line(&self, at_line: bool) {
        self.at_line.store(at_line, Ordering::Relaxed);
    }

    /// Publishes that the partition has ended.
    pub(crate) fn set_ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has no more records, ever.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Aligns it with the others of `groups`. Of several drifts the least counts.
    fn align(&self, alignment: &Alignment) {
        self.max_drift.fetch_min(alignment.drift, Ordering::Relaxed);
        self.groups.fetch_or(alignment.groups, Ordering::Relaxed);
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

/// How the partitions of a source are aligned.
#[derive(Clone, Debug)]
struct Alignment {
    /// A bit for each group.
    groups: u64,
    /// In milliseconds of event time.
    drift: i64,
}

/// Sources that are aligned, and the names of groups: the place of a name is its bit.
#[derive(Debug, Default)]
struct Alignments {
    sources: HashMap<Arc<str>, Alignment>,
    groups: Vec<Option<Arc<str>>>,
}

impl Alignments {
    /// The bit of a group. Groups beyond the 63rd share the last: they wait for each other without need, which changes no result.
    fn bit(&mut self, group: Option<&Arc<str>>) -> u64 {
        let at = self.groups.iter().position(|known| known.as_ref() == group).unwrap_or_else(|| {
            self.groups.push(group.cloned());
            self.groups.len() - 1
        });
        1 << at.min(63)
    }
}

/// The table; see the module's page.
#[derive(Debug, Default)]
pub struct Partitions {
    entries: RwLock<Vec<Arc<PartitionEntry>>>,
    alignments: RwLock<Alignments>,
    /// All that are there at the start have been added.
    known: AtomicBool,
    /// This attempt repeats the end of a run: what is not there will not come.
    repeats_an_end: AtomicBool,
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
        self.push(source, number, name, restored, earlier, None)
    }

    /// Adds a partition of a source that the flow does not have any more: nobody reads it, and as far as others are concerned it has ended.
    ///
    /// # Panics
    /// As [`Partitions::add`].
    pub fn add_dropped(
        &self,
        source: Arc<str>,
        number: u32,
        name: String,
        restored: Remembered,
        position: Vec<u8>,
    ) {
        self.push(source, number, name, restored, Remembered::default(), Some(position)).set_ended();
    }

    fn push(
        &self,
        source: Arc<str>,
        number: u32,
        name: String,
        restored: Remembered,
        earlier: Remembered,
        dropped: Option<Vec<u8>>,
    ) -> Arc<PartitionEntry> {
        let mut entries = self.entries.write();
        let index = u16::try_from(entries.len()).expect("the engine checks the number of partitions");
        let entry = Arc::new(PartitionEntry {
            index,
            source,
            number,
            name,
            watermark: AtomicI64::new(i64::MIN),
            reached: AtomicU64::new(restored.read_to.map_or(0, |offset| offset + 1)),
            opened: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            at_line: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            dropped,
            max_drift: AtomicI64::new(i64::MAX),
            groups: AtomicU64::new(0),
            restored,
            earlier,
            stops_at: OnceLock::new(),
        });
        if let Some(alignment) = self.alignments.read().sources.get(&entry.source) {
            entry.align(alignment);
        }
        entries.push(Arc::clone(&entry));
        entry
    }

    /// Says that all partitions which are there at the start have been added. Until then no task speaks of time for others.
    pub fn set_known(&self) {
        self.known.store(true, Ordering::SeqCst);
    }

    /// Says that this attempt ends where a run of an earlier version did: partitions which that did not have are no part of it.
    pub fn set_repeats_an_end(&self) {
        self.repeats_an_end.store(true, Ordering::SeqCst);
    }

    /// Whether it does.
    pub fn repeats_an_end(&self) -> bool {
        self.repeats_an_end.load(Ordering::SeqCst)
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

    /// Whether a task has begun to read a partition of `source`.
    pub(crate) fn any_opened(&self, source: &Arc<str>) -> bool {
        let opened = |e: &Arc<PartitionEntry>| e.source == *source && e.opened.load(Ordering::SeqCst);
        self.entries.read().iter().any(opened)
    }

    /// All partitions, in index order.
    pub fn all(&self) -> Vec<Arc<PartitionEntry>> {
        self.entries.read().clone()
    }

    /// Aligns all partitions of `sources`, those to come too, with all others of the group: none of them is read while it is more than `drift`
    /// milliseconds of event time ahead of the slowest. Without a name it is the group of all that have none. Every worker says it
    /// before any reads.
    pub(crate) fn align(&self, sources: &[Arc<str>], group: Option<&Arc<str>>, drift: i64) {
        // The entries' lock first, as in `add`.
        let entries = self.entries.read();
        let mut alignments = self.alignments.write();
        let groups = alignments.bit(group);
        for source in sources {
            let of_source = alignments.sources.entry(Arc::clone(source));
            let alignment = of_source.or_insert(Alignment { groups, drift });
            alignment.groups |= groups;
            alignment.drift = alignment.drift.min(drift);
            let alignment = alignment.clone();
            entries.iter().filter(|entry| entry.source == *source).for_each(|entry| entry.align(&alignment));
        }
    }

    /// Whether `entry` is further ahead of the slowest partition that it is aligned with than it may be, so that reading it should wait.
    /// Partitions that are idle, have ended, or may be read no further for now hold nobody back. Costs a look at each partition when a drift was set, else nothing.
    ///
    /// It cannot come to nobody being read: who waits is ahead of another one, and of all partitions the slowest waits for none.
    pub(crate) fn too_far_ahead(&self, entry: &PartitionEntry) -> bool {
        let drift = entry.max_drift.load(Ordering::Relaxed);
        if drift == i64::MAX {
            return false;
        }
        let groups = entry.groups.load(Ordering::Relaxed);
        let entries = self.entries.read();
        let holds_back = |e: &&Arc<PartitionEntry>| {
            e.index != entry.index
                && e.groups.load(Ordering::Relaxed) & groups != 0
                && !e.ended()
                && !e.idle.load(Ordering::Relaxed)
                && !e.at_line.load(Ordering::Relaxed)
        };
        let slowest = entries.iter().filter(holds_back).map(|e| e.watermark()).min();
        slowest.is_some_and(|slowest| entry.watermark() > slowest.plus_millis(drift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(table: &Partitions, source: &str, number: u32) -> Arc<PartitionEntry> {
        let name = format!("{source}[{number}]");
        table.add(source.into(), number, name, Remembered::default(), Remembered::default())
    }

    fn align(table: &Partitions, source: &str, group: Option<&str>, drift: i64) {
        table.align(&[source.into()], group.map(Arc::from).as_ref(), drift);
    }

    fn t(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_partition_waits_for_the_slowest_that_is_neither_idle_nor_ended() {
        let table = Partitions::default();
        let (fast, slow) = (add(&table, "clicks", 0), add(&table, "clicks", 1));
        // A source that is not aligned is nobody's business.
        add(&table, "views", 0);
        align(&table, "clicks", None, 1000);
        fast.set_watermark(t(5001));
        assert!(table.too_far_ahead(&fast), "the other has not begun");
        slow.set_watermark(t(4000));
        assert!(table.too_far_ahead(&fast));
        slow.set_watermark(t(4001));
        assert!(!table.too_far_ahead(&fast));
        assert!(!table.too_far_ahead(&slow));
        fast.set_watermark(t(6000));
        assert!(table.too_far_ahead(&fast));
        slow.set_at_line(true);
        assert!(!table.too_far_ahead(&fast), "it may be read no further");
        slow.set_at_line(false);
        slow.set_idle(true);
        assert!(!table.too_far_ahead(&fast));
        align(&table, "views", None, 1000);
        assert!(table.too_far_ahead(&fast), "what is aligned without a group is aligned across sources");
    }

    #[test]
    fn groups_wait_for_their_own_slowest_and_for_partitions_that_appear_later() {
        let table = Partitions::default();
        let [flights, weather, orders] =
            ["flights", "weather", "orders"].map(|source| add(&table, source, 0));
        align(&table, "flights", Some("join"), 100);
        align(&table, "weather", Some("join"), 500);
        align(&table, "orders", Some("shop"), 100);
        [&flights, &weather, &orders].iter().for_each(|entry| entry.set_watermark(t(1000)));
        flights.set_watermark(t(1101));
        assert!(table.too_far_ahead(&flights) && !table.too_far_ahead(&weather));
        orders.set_watermark(t(9000));
        assert!(!table.too_far_ahead(&orders), "it is alone in its group");
        weather.set_ended();
        assert!(!table.too_far_ahead(&flights), "nobody is left to wait for");
        let later = add(&table, "weather", 1);
        assert!(table.too_far_ahead(&flights), "a partition that was found later has not begun");
        later.set_watermark(t(1700));
        assert!(table.too_far_ahead(&later) && !table.too_far_ahead(&flights), "each by its own drift");
    }

    #[test]
    fn a_source_of_two_groups_waits_for_both_and_somebody_can_always_be_read() {
        for times in (0..27).map(|n| [n % 3, n / 3 % 3, n / 9]) {
            let table = Partitions::default();
            let entries = ["a", "b", "c"].map(|source| add(&table, source, 0));
            for (source, group) in [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2")] {
                align(&table, source, Some(group), 10);
            }
            entries.iter().zip(times).for_each(|(entry, time)| entry.set_watermark(t(time * 100)));
            let waits = entries.each_ref().map(|entry| table.too_far_ahead(entry));
            let [a, b, c] = times;
            assert_eq!(waits, [a > b, b > a.min(c), c > b], "{times:?}");
            assert_ne!(waits, [true; 3], "{times:?}");
        }
        let mut alignments = Alignments::default();
        let bits = (0..70).map(|n| alignments.bit(Some(&Arc::from(format!("{n}")))));
        assert_eq!(bits.max(), Some(1 << 63), "there may be any number of groups");
    }
}
