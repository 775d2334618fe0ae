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

use crate::partitions::Partitions;
use crate::time::Timestamp;
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
    /// It has been silent for long: nobody waits for it.
    Idle,
    /// It has no more records, ever.
    Ended,
}

/// One partition by one reading of time.
#[derive(Debug)]
pub(crate) struct Clock {
    watermark: AtomicI64,
    status: AtomicU8,
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
        let status = match self.status.load(Ordering::SeqCst) {
            0 => Status::Active,
            1 => Status::Idle,
            _ => Status::Ended,
        };
        (status, Timestamp::from_millis(self.watermark.load(Ordering::SeqCst)))
    }
}

/// Operators that tell time for streams that meet downstream, each with the sources that it reads.
#[derive(Clone, Debug)]
pub(crate) struct TimeGroup(pub(crate) Vec<(Arc<str>, Vec<Arc<str>>)>);

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

    /// Where event time is by all partitions of a group: the minimum over those that are active; where none is, the greatest that an idle
    /// one reached, for none holds another back any more; where all have ended, the end of time. `None` while a partition has yet to be
    /// opened by its worker, and where there are none. Costs a look at each partition.
    pub(crate) fn follow(&self, group: &TimeGroup, partitions: &Partitions) -> Option<Timestamp> {
        if !partitions.are_known() {
            return None;
        }
        let clocks = self.clocks.read();
        let (mut active, mut idle, mut ended) = (None, None, None);
        for entry in partitions.all() {
            let reads = |(_, sources): &&(Arc<str>, Vec<Arc<str>>)| sources.contains(&entry.source);
            for (operator, _) in group.0.iter().filter(reads) {
                let (status, at) = clocks.get(&(Arc::clone(operator), entry.index))?.read();
                match status {
                    Status::Active => active = Some(active.unwrap_or(at).min(at)),
                    Status::Idle => idle = idle.max(Some(at)),
                    Status::Ended => ended = Some(Timestamp::MAX),
                }
            }
        }
        active.or(idle).or(ended)
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
        assert_eq!(follow(), Some(t(3)));

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
        assert_eq!(follow(), Some(t(5)));
        first.set(Status::Idle);
        assert_eq!(follow(), Some(t(9)));
        second.set(Status::Idle);
        assert_eq!(follow(), Some(t(9)), "of those that are idle the one furthest on");
        second.set(Status::Ended);
        assert_eq!(follow(), Some(t(5)), "its end is not the end of one that is merely silent");
        first.set(Status::Ended);
        assert_eq!(follow(), Some(Timestamp::MAX));
    }

    #[test]
    fn partitions_of_other_groups_are_not_followed() {
        let (partitions, group) = two();
        partitions.add("views".into(), 0, "views[0]".into(), Remembered::default(), Remembered::default());
        partitions.set_known();
        for index in 0..2 {
            partitions.clocks().open(&"time".into(), index, t(40));
        }
        assert_eq!(partitions.clocks().follow(&group, &partitions), Some(t(40)));
        let none = TimeGroup(vec![("time".into(), vec!["nothing".into()])]);
        assert_eq!(partitions.clocks().follow(&none, &partitions), None);
    }
}
