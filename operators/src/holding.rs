//! What unions hold back while a barrier is aligned, bounded.
//!
//! The inputs of a union may have come different ways, so a barrier may reach one before the other, and what follows it there is held until the
//! other has it too. Who feeds an input that holds much must stop:
//! 1. Each input says how many batches it holds. With as many as a channel takes it is full.
//! 2. While any is full, its worker reads no sources, and drains no inlet that feeds a full input through no other exchange.
//! 3. When the barrier has come, or was given up, everything held goes on, and reading too.
//!
//! This cannot come to a standstill:
//! 1. An input holds something only when the barrier has passed it. So it has passed the inlet that feeds it, which had it from all workers:
//!    all that lies before this inlet, on every worker, has the barrier behind it.
//! 2. The other input still waits for the barrier. What lies before that and has not been passed feeds nothing that is full, on any worker, by
//!    the first point: it would have been passed. So it is drained by the rule for rooms ([`InletTask::feeds`](crate::plan::InletTask)) as
//!    if there were no holds.
//! 3. Barriers begin at the sources without any being read. So this one arrives.
//! 4. Where it cannot, because a checkpoint is given up, every worker is told, and every union lets go of what it holds for that.
//!
//! What an inlet takes in one step is above the bound, as is what a watermark brings about in one go.

use crate::context::TaskContext;
use crate::error::Result;
use rivermark_checkpoint::Epoch;
use std::cell::Cell;
use std::rc::Rc;

/// How much one input of a union holds.
#[derive(Clone, Debug)]
pub struct Hold {
    held: Rc<Cell<usize>>,
    most: usize,
}

impl Hold {
    /// An input that is full with `most` batches and signals.
    pub(crate) fn of(most: usize) -> Hold {
        Hold { held: Rc::default(), most }
    }

    /// Whether it takes no more for now.
    pub fn is_full(&self) -> bool {
        self.held.get() >= self.most
    }

    pub(crate) fn set(&self, held: usize) {
        self.held.set(held);
    }
}

/// An operator that holds records back for a barrier.
pub trait Holding {
    /// The checkpoint is given up: its barrier is waited for no longer, and passed over where it still comes.
    ///
    /// # Errors
    /// As for [`Operator::on_batch`](crate::edge::Operator::on_batch): what was held goes on.
    fn cancel(&mut self, epoch: Epoch, cx: &mut TaskContext<'_>) -> Result<()>;
}
