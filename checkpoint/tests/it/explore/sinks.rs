//! The outside world as the sinks change it: what is prepared, committed and aborted. It does not fence by itself, which
//! is the worst a sink can be.

use std::collections::BTreeSet;

use rivermark_checkpoint::{Blob, Epoch, Generation, Prepared, TaskId};

/// Records `start..end` of a task, prepared by a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Output {
    pub generation: Generation,
    pub task: TaskId,
    pub start: u8,
    pub end: u8,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct Sinks {
    pub prepared: BTreeSet<Output>,
    pub committed: BTreeSet<Output>,
    pub aborted: BTreeSet<Output>,
    /// What the manifests that were ever stored hold.
    pub stored: BTreeSet<Output>,
}

impl Output {
    pub fn token(self, epoch: Epoch) -> Prepared {
        let token = Blob(vec![self.generation.0 as u8, self.task.0 as u8, self.start, self.end]);
        Prepared { task: self.task, epoch, token }
    }

    pub fn of(prepared: &Prepared) -> Self {
        let [generation, task, start, end] = *prepared.token.0 else { panic!("not a token: {prepared:?}") };
        Self { generation: Generation(generation.into()), task: TaskId(task.into()), start, end }
    }
}

impl Sinks {
    /// Makes `outputs` of `task` visible.
    pub fn commit(&mut self, task: TaskId, outputs: &[Output]) -> Result<(), String> {
        for output in outputs {
            if self.aborted.contains(output) {
                return Err(format!("{output:?} is committed and was aborted"));
            }
            if !self.stored.contains(output) {
                return Err(format!("{output:?} is committed and is in no stored manifest"));
            }
            self.committed.insert(*output);
        }
        // In order of records each follows the one before: nothing twice, and no gap.
        let mut end = 0;
        let mut of_task: Vec<_> = self.committed.iter().filter(|output| output.task == task).collect();
        of_task.sort_unstable_by_key(|output| output.start);
        for output in of_task {
            if output.start != end {
                return Err(format!("{output:?} is committed, and the records before end at {end}"));
            }
            end = output.end;
        }
        Ok(())
    }

    /// Aborts what older generations of `task` have prepared, except for `keep`.
    pub fn abort(
        &mut self,
        task: TaskId,
        generation: Generation,
        keep: &BTreeSet<Output>,
    ) -> Result<(), String> {
        let doomed = |output: &&Output| {
            let open = !self.committed.contains(output) && !self.aborted.contains(output);
            output.task == task && output.generation < generation && open && !keep.contains(output)
        };
        let doomed: Vec<Output> = self.prepared.iter().filter(doomed).copied().collect();
        for output in doomed {
            if self.stored.contains(&output) {
                return Err(format!("{output:?} is aborted and is stored"));
            }
            self.aborted.insert(output);
        }
        Ok(())
    }

    pub fn records_committed(&self) -> u32 {
        self.committed.iter().map(|output| u32::from(output.end - output.start)).sum()
    }
}
