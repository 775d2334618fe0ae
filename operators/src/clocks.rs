//! How far each source partition has come, by each reading of time, for all workers to see.
//!
//! Event time must not stand still because a task has nothing to tell: its partitions are idle, or have ended, or it has none. Nor may it just
//! be left out of the minimum at an exchange: when one of its partitions speaks again, the others would be somewhere ahead, and nobody
//! could say where. Instead it *follows*: it passes on the minimum over the active partitions of all workers, as if it had read them.
//! 1. Each `event_time` operator publishes the watermark of each of its partitions, and whether it is active, idle or ended.
//! 2. A task without an active partition passes on what [`Clocks::follow`] answers. Nobody waits for idle partitions.
//! 3. So what a task has passed on bounds what any receiver knows of time, always. A partition that becomes active begins there: its
//!    records are late by its own watermark, not by where some operator happens to be, and that can be written down and repeated.
//! 4. Streams that meet downstream are followed together, or a silent source would hold back another one that it is united with.
//! 5. A partition that ends takes nothing back: as far as it had let time come, time has come. Where the others were active then, that is no
//!    further than they were; where they were silent, it is its own watermark. Only when all have ended is it the end of time.
//! 6. A partition that was silent at the checkpoint holds time back after a restart, for there may be much to read since; but what ends before
//!    it has been heard leaves as if it were silent still.

use crate::partitions::{PartitionEntry, Partitions};
use crate::time::Timestamp;
use crate::watermark::was_idle;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};

/// Whether a partition moves time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// Nobody passes it.
    Active,
    /// It was silent at the checkpoint, and may have something to say since. Nobody passes it for now.
    Unheard,
    /// It has been silent for long: nobody waits for it.
    Idle,
    /// It has no more records, ever.
    Ended,
}

impl Status {
    /// Whether others wait for it.
    pub(crate) fn holds_back(self) -> bool {
        matches!(self, Status::Active | Status::Unheard)
    }
}

/// One partition by one reading of time.
#[derive(Debug)]
pub(crate) struct Clock {
    watermark: AtomicI64,
    status: AtomicU8,
    /// How far it had let time come when it ended.
    left: AtomicI64,
}

impl Clock {
    /// Moves it to `watermark`; answers whether that is later than where it was.
    pub(crate) fn advance(&self, watermark: Timestamp) -> bool {
        self.watermark.swap(watermark.millis(), Ordering::SeqCst) < watermark.millis()
    }

    pub(crate) fn set(&self, status: Status) {
        self.status.store(status as u8, Ordering::SeqCst);
    }

    fn read(&self) -> (Status, Timestamp) {
        let of = |status: &Status| *status as u8 == self.status.load(Ordering::SeqCst);
        let known = [Status::Active, Status::Unheard, Status::Idle];
        let status = known.into_iter().find(of).unwrap_or(Status::Ended);
        (status, Timestamp::from_millis(self.watermark.load(Ordering::SeqCst)))
    }
}

/// Where event time is, for a task that has no active partition.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    At(Timestamp),
    /// All partitions have ended. The one furthest on had come this far.
    Ended(Timestamp),
}

/// Operators that tell time for streams that meet downstream, each with the sources that it reads.
#[derive(Clone, Debug)]
pub(crate) struct TimeGroup(pub(crate) Vec<(Arc<str>, Vec<Arc<str>>)>);

impl TimeGroup {
    /// Each partition under each operator that tells its time.
    fn readings<'a>(
        &'a self,
        partitions: &'a [Arc<PartitionEntry>],
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<PartitionEntry>)> {
        partitions.iter().flat_map(|entry| {
            let reads = |(_, sources): &&(Arc<str>, Vec<Arc<str>>)| sources.contains(&entry.source);
            self.0.iter().filter(reads).map(move |(operator, _)| (operator, entry))
        })
    }
}

/// By operator and index of the partition.
type ByPartition = HashMap<(Arc<str>, u16), Arc<Clock>>;

/// The clocks of a job.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    clocks: RwLock<ByPartition>,
    /// Whether any task follows: then it must be woken when time moves.
    followed: AtomicBool,
}

impl Clocks {
    /// The clock of a partition that `operator` begins to read.
    pub(crate) fn open(&self, operator: &Arc<str>, partition: u16, watermark: Timestamp) -> Arc<Clock> {
        let clock = Clock {
            watermark: AtomicI64::new(watermark.millis()),
            status: AtomicU8::new(Status::Active as u8),
            left: AtomicI64::new(i64::MIN),
        };
        let clock = Arc::new(clock);
        self.clocks.write().insert((Arc::clone(operator), partition), Arc::clone(&clock));
        clock
    }

    /// Some task will follow from now on.
    pub(crate) fn begin_to_follow(&self) {
        self.followed.store(true, Ordering::SeqCst);
    }

    /// Whether some task follows.
    pub(crate) fn are_followed(&self) -> bool {
        self.followed.load(Ordering::SeqCst)
    }

    /// The partition of `clock`, which is of `group`, has ended.
    pub(crate) fn leave(&self, clock: &Clock, group: &TimeGroup, partitions: &Partitions) {
        let left = self.least_active(group, partitions).unwrap_or(Timestamp::MIN);
        clock.left.store(left.millis(), Ordering::SeqCst);
        clock.set(Status::Ended);
    }

    /// The minimum over the active partitions of a group. `None` where there are none, or one that has yet to be opened may be active.
    fn least_active(&self, group: &TimeGroup, partitions: &Partitions) -> Option<Timestamp> {
        if !partitions.are_known() {
            return None;
        }
        let clocks = self.clocks.read();
        let mut least = None;
        for (operator, entry) in group.readings(&partitions.all()) {
            match clocks.get(&(Arc::clone(operator), entry.index)).map(|clock| clock.read()) {
                Some((Status::Active, at)) => least = Some(least.unwrap_or(at).min(at)),
                Some(_) => {}
                None if entry.restored(operator).is_some_and(was_idle) => {}
                None => return None,
            }
        }
        least
    }

    /// Where event time is by all partitions of a group: the minimum over those that others wait for; where there are none, the greatest that an
    /// idle one reached or one that has ended let time come to. `None` while a partition has yet to be opened by its worker, and where there are none.
    /// Costs a look at each partition.
    pub(crate) fn follow(&self, group: &TimeGroup, partitions: &Partitions) -> Option<Followed> {
        if !partitions.are_known() {
            return None;
        }
        let clocks = self.clocks.read();
        let (mut active, mut idle, mut left, mut ended) = (None, None, Timestamp::MIN, None);
        for (operator, entry) in group.readings(&partitions.all()) {
            let clock = clocks.get(&(Arc::clone(operator), entry.index))?;
            match clock.read() {
                (Status::Active | Status::Unheard, at) => active = Some(active.unwrap_or(at).min(at)),
                (Status::Idle, at) => idle = idle.max(Some(at)),
                (Status::Ended, at) => {
                    left = left.max(Timestamp::from_millis(clock.left.load(Ordering::SeqCst)));
                    ended = ended.max(Some(at));
                }
            }
        }
        let of_none_active = idle.map(|idle: Timestamp| Followed::At(idle.max(left)));
        active.map(Followed::At).or(of_none_active).or(ended.map(Followed::Ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partitions::Remembered;

    fn t(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn two() -> (Partitions, TimeGroup) {
        let partitions = Partitions::default();
        for n in 0..2 {
            partitions.add(
                "clicks".into(),
                n,
                format!("clicks[{n}]"),
                Remembered::default(),
                Remembered::default(),
            );
        }
        (partitions, TimeGroup(vec![("time".into(), vec!["clicks".into()])]))
    }

    #[test]
    fn who_follows_waits_until_every_partition_is_known_and_opened() {
        let (partitions, group) = two();
        let follow = || partitions.clocks().follow(&group, &partitions);
        let open = |index, at| partitions.clocks().open(&"time".into(), index, t(at));
        open(0, 7);
        partitions.set_known();
        assert_eq!(follow(), None, "the second may begin anywhere");
        open(1, 3);
        assert_eq!(follow(), Some(Followed::At(t(3))));

        let (partitions, group) = two();
        partitions.clocks().open(&"time".into(), 0, t(7));
        partitions.clocks().open(&"time".into(), 1, t(7));
        assert_eq!(partitions.clocks().follow(&group, &partitions), None, "there may be more to come");
    }

    #[test]
    fn active_partitions_count_before_idle_ones_and_those_before_ended_ones() {
        let (partitions, group) = two();
        partitions.set_known();
        let follow = || partitions.clocks().follow(&group, &partitions);
        let [first, second] =
            [5, 9].map(|at| partitions.clocks().open(&"time".into(), u16::from(at == 9), t(at)));
        assert_eq!(follow(), Some(Followed::At(t(5))));
        first.set(Status::Idle);
        assert_eq!(follow(), Some(Followed::At(t(9))));
        second.set(Status::Idle);
        assert_eq!(follow(), Some(Followed::At(t(9))), "of those that are idle the one furthest on");
        second.set(Status::Ended);
        assert_eq!(follow(), Some(Followed::At(t(5))), "its end is not the end of one that is merely silent");
        first.set(Status::Ended);
        assert_eq!(follow(), Some(Followed::Ended(t(9))), "and how far they had come");
    }

    #[test]
    fn a_partition_that_ends_takes_back_nothing_of_the_time_that_had_come() {
        // By the other's status then: whether the watermark of the one that ended counts.
        for (status, come) in [(Status::Active, 5), (Status::Unheard, 9), (Status::Idle, 9)] {
            let (partitions, group) = two();
            partitions.set_known();
            let clocks = partitions.clocks();
            let [silent, ending] = [5, 9].map(|at| clocks.open(&"time".into(), u16::from(at == 9), t(at)));
            silent.set(status);
            clocks.leave(&ending, &group, &partitions);
            silent.set(Status::Idle);
            assert_eq!(clocks.follow(&group, &partitions), Some(Followed::At(t(come))), "{status:?}");
        }
    }

    #[test]
    fn a_partition_that_has_yet_to_be_opened_may_be_active_but_for_one_that_was_silent() {
        let silent = {
            let mut was = crate::watermark::Watermarks::monotonous().start();
            was.set_idle(true);
            was.save()
        };
        let active = crate::watermark::Watermarks::monotonous().start().save();
        for (saved, come) in [(active, 5), (silent, 9)] {
            let partitions = Partitions::default();
            for n in 0..2 {
                let states = [("time".to_string(), saved.clone())].into();
                let restored = Remembered { states, ..Remembered::default() };
                partitions.add("clicks".into(), n, format!("clicks[{n}]"), restored, Remembered::default());
            }
            partitions.set_known();
            let group = TimeGroup(vec![("time".into(), vec!["clicks".into()])]);
            let clocks = partitions.clocks();
            clocks.leave(&clocks.open(&"time".into(), 1, t(9)), &group, &partitions);
            clocks.open(&"time".into(), 0, t(5)).set(Status::Idle);
            assert_eq!(clocks.follow(&group, &partitions), Some(Followed::At(t(come))));
        }
    }

    #[test]
    fn partitions_of_other_groups_are_not_followed() {
        let (partitions, group) = two();
        partitions.add("views".into(), 0, "views[0]".into(), Remembered::default(), Remembered::default());
        partitions.set_known();
        for index in 0..2 {
            partitions.clocks().open(&"time".into(), index, t(40));
        }
        assert_eq!(partitions.clocks().follow(&group, &partitions), Some(Followed::At(t(40))));
        let none = TimeGroup(vec![("time".into(), vec!["nothing".into()])]);
        assert_eq!(partitions.clocks().follow(&none, &partitions), None);
    }
}
