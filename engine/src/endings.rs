//! Whether all sources have ended, on all workers.
//!
//! A worker says that its sources have ended, also where it has nothing to read. A partition that is found later may be given to it after that, or
//! at the same moment: what it said then counts no more. Only when all have ended together may the last barrier come. The workers that it meets
//! first must not take another for one that goes on: time would not end for them.
//! 1. Whoever gives a worker a partition counts it; so does the worker that takes it, and says the number when it says that it has ended.
//! 2. What it says counts if both numbers are the same.

use rivermark_checkpoint::TaskId;

/// What is known of the workers' sources.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    workers: Vec<Worker>,
}

#[derive(Clone, Debug, Default)]
struct Worker {
    given: u64,
    has_ended: bool,
}

impl Endings {
    /// None has ended.
    pub(crate) fn of(workers: usize) -> Endings {
        Endings { workers: vec![Worker::default(); workers] }
    }

    /// A partition is given to a worker.
    pub(crate) fn give(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        worker.given += 1;
        worker.has_ended = false;
    }

    /// A worker's sources have ended, after it had taken so many partitions. Answers whether that makes all of them.
    pub(crate) fn end(&mut self, worker: TaskId, taken: u64) -> bool {
        let worker = &mut self.workers[worker.0 as usize];
        worker.has_ended |= worker.given == taken;
        self.have_all()
    }

    /// Whether all have ended.
    pub(crate) fn have_all(&self) -> bool {
        self.workers.iter().all(|worker| worker.has_ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_given_a_partition_has_not_ended_until_it_has_taken_it() {
        let mut endings = Endings::of(2);
        endings.give(0);
        assert!(!endings.end(TaskId(1), 0));
        // It said so before it heard of the partition.
        endings.give(1);
        assert!(!endings.end(TaskId(1), 0));
        assert!(!endings.end(TaskId(0), 1));
        assert!(endings.end(TaskId(1), 1));
        assert!(endings.have_all());
    }
}
