//! The typed tables, and what a store asks of all of them.

mod evict;
mod expire;
pub(crate) mod hot;
mod in_order;
pub mod list;
pub mod live;
pub mod map;
pub mod timers;
pub(crate) mod undo;
pub mod value;
pub mod waiting;
pub mod window;

use std::any::Any;

use crate::delta::{DeltaWriter, Op};
use crate::error::Result;
use crate::key::KeyGroupRange;
use crate::scope::Scope;

/// Which entries a table writes into a delta.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Those that changed since the last snapshot.
    Changed,
    /// Those that differ from the backend, and deletions of its rows.
    Unflushed,
}

/// Which entries a table moves to the backend before its checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flush {
    /// Those that were not used since the last time anybody looked.
    Unused,
    /// All.
    All,
}

/// A table whose types the store does not know.
pub(crate) trait ErasedTable: Any + Send {
    fn scope(&self) -> &Scope;

    /// Appends entries to `delta` and counts them as unchanged from now on.
    fn encode(&mut self, part: Part, delta: &mut DeltaWriter) -> Result<()>;

    /// Writes entries that differ from the backend to it; they stay in memory.
    fn flush(&mut self, which: Flush) -> Result<()>;

    /// Evicts about `count` entries, those first that were not used lately; how many it was.
    fn evict(&mut self, count: usize) -> Result<usize>;

    /// Applies an operation of a delta, for rows of this store's key groups only.
    fn restore(&mut self, op: Op<'_>) -> Result<()>;

    /// Looks at about `buckets` more entries and removes those whose deadline is at or below `horizon`. Answers whether it has seen all.
    fn expire(&mut self, _horizon: i64, _buckets: usize) -> Result<bool> {
        Ok(true)
    }

    /// Brings what look-ups of these hashes will touch into the processor's cache.
    fn warm(&self, _hashes: &[u64]) {}

    /// Notes what was there before each change from now on.
    fn keep_changes(&mut self) {}

    /// Forgets the changes noted so far.
    fn mark(&mut self) {}

    /// Puts back what was there at the last mark.
    fn undo(&mut self) -> Result<()> {
        Ok(())
    }

    /// A number that is kept over restarts.
    fn counter(&self) -> u64 {
        0
    }
}

/// The part of a drop's groups that a store owns; `None` when there is none.
pub(crate) fn owned(groups: KeyGroupRange, mine: KeyGroupRange) -> Option<KeyGroupRange> {
    let both = groups.intersection(mine);
    (!both.is_empty()).then_some(both)
}

/// The key group of a row whose namespace takes `width` bytes.
pub(crate) fn group_of_row(row: &[u8], width: usize) -> Option<u16> {
    let bytes = row.get(width..width + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}
