//! Whether all workers of a job have come to rest: nothing is on its way between them, and nothing fires any more.
//!
//! While sources are not read (a pause, a line) everything that the offsets imply comes out in the end: watermarks reach all workers, windows
//! fire in parts. That all of it has come out is seen by two looks, without stopping anybody (the double collection of Mattern's termination
//! detection, 1987):
//! 1. A worker counts its steps, and those in which it did, sent or waited for anything.
//! 2. The first look notes both counts of every worker.
//! 3. The second look comes when every worker has begun *and* finished a step since. If no count of deeds has changed, all steps in between did
//!    nothing: whatever had been on its way would have been taken in by one of them, and who does nothing sends nothing.

use rivermark_checkpoint::TaskId;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counts of a job's workers; they go on across its attempts.
#[derive(Debug)]
pub(crate) struct Pulses(Vec<Pulse>);

#[derive(Debug, Default)]
struct Pulse {
    steps: AtomicU64,
    deeds: AtomicU64,
}

/// What a look has seen: steps and deeds, by worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look(Vec<(u64, u64)>);

impl Pulses {
    pub(crate) fn of(workers: usize) -> Pulses {
        Pulses((0..workers).map(|_| Pulse::default()).collect())
    }

    /// A worker has finished a step, in which it did something or nothing.
    pub(crate) fn beat(&self, worker: TaskId, did_something: bool) {
        let Some(pulse) = self.0.get(worker.0 as usize) else { return };
        // The deed first: who sees the step sees it too.
        if did_something {
            pulse.deeds.fetch_add(1, Ordering::SeqCst);
        }
        pulse.steps.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn look(&self) -> Look {
        let look = |pulse: &Pulse| (pulse.steps.load(Ordering::SeqCst), pulse.deeds.load(Ordering::SeqCst));
        Look(self.0.iter().map(look).collect())
    }
}

/// Looks again and again.
#[derive(Debug)]
pub(crate) struct Watch(Look);

impl Watch {
    /// The first look.
    pub(crate) fn begin(pulses: &Pulses) -> Watch {
        Watch(pulses.look())
    }

    /// The next look: whether all have rested since one before it. To be asked while the job runs.
    pub(crate) fn sees_rest(&mut self, pulses: &Pulses) -> bool {
        let now = pulses.look();
        if !self.0.is_followed_by(&now) {
            return false;
        }
        let have_rested = self.0.has_rested_until(&now);
        self.0 = now;
        have_rested
    }
}

impl Look {
    /// Whether every worker has begun and finished a step since, as `now` has seen it. The first that was finished may have begun before.
    pub(crate) fn is_followed_by(&self, now: &Look) -> bool {
        self.0.iter().zip(&now.0).all(|(before, now)| now.0 >= before.0 + 2)
    }

    /// Whether nobody has done anything in between.
    pub(crate) fn has_rested_until(&self, now: &Look) -> bool {
        self.0.iter().zip(&now.0).all(|(before, now)| now.1 == before.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deed_of_a_step_that_was_under_way_at_the_first_look_is_seen_by_the_second() {
        let pulses = Pulses::of(2);
        let first = pulses.look();
        pulses.beat(TaskId(0), false);
        pulses.beat(TaskId(0), false);
        assert!(!first.is_followed_by(&pulses.look()), "the other has not stepped");
        // It was in the middle of a step in which it sent something.
        pulses.beat(TaskId(1), true);
        assert!(!first.is_followed_by(&pulses.look()), "that step may have begun before");
        pulses.beat(TaskId(1), false);
        let second = pulses.look();
        assert!(first.is_followed_by(&second) && !first.has_rested_until(&second));
        for worker in [0, 1, 0, 1] {
            pulses.beat(TaskId(worker), false);
        }
        let third = pulses.look();
        assert!(second.is_followed_by(&third) && second.has_rested_until(&third));
    }
}
