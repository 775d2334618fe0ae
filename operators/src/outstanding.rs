//! What the operators of a worker have asked the outside world for and not got.

use std::cell::Cell;
use std::rc::Rc;

/// The operators of one worker that wait for replies from outside, counted. A worker reads no sources while one of them takes no more, and its
/// sources have not ended for the job while one of them has records in hand.
#[derive(Clone, Debug, Default)]
pub struct Outstanding(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    waiting: Cell<usize>,
    full: Cell<usize>,
}

impl Outstanding {
    /// Whether an operator has records in hand that wait for replies.
    pub fn is_any(&self) -> bool {
        self.0.waiting.get() > 0
    }

    /// Whether an operator takes no more for now.
    pub fn is_full(&self) -> bool {
        self.0.full.get() > 0
    }

    /// One operator's share, which begins with nothing.
    pub(crate) fn share(&self) -> Share {
        Share { all: Rc::clone(&self.0), waiting: false, full: false }
    }
}

/// What one operator has told of itself.
pub(crate) struct Share {
    all: Rc<Counts>,
    waiting: bool,
    full: bool,
}

impl Share {
    /// Says how it stands now.
    pub(crate) fn set(&mut self, waiting: bool, full: bool) {
        let count = |cell: &Cell<usize>, before: &mut bool, now: bool| {
            cell.set(cell.get() + usize::from(now) - usize::from(*before));
            *before = now;
        };
        count(&self.all.waiting, &mut self.waiting, waiting);
        count(&self.all.full, &mut self.full, full);
    }
}
