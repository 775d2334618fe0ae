//! How much memory the state of an engine may take, shared by all its stores.
//!
//! A store charges what it holds (table allocations, and an estimate of what keys and values own on the heap) in chunks, so that
//! the shared counter is touched once in thousands of insertions. Whoever inserts while the budget is exceeded evicts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Charges reach the shared counter in steps of this many bytes; the budget may be exceeded by one a table.
const CHUNK: usize = 16 << 10;

/// A limit in bytes for all stores of an engine. Clones share it.
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    limit: usize,
    used: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { shared: Arc::new(Shared { limit: bytes, used: AtomicUsize::new(0) }) }
    }

    /// A budget that is never exceeded: nothing is ever evicted.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// What all stores together have charged, in bytes.
    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Whether more is charged than allowed.
    #[inline]
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.shared.limit
    }

    /// Whether `bytes` more would exceed it.
    pub(crate) fn would_exceed(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) > self.shared.limit
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBudget({} of {} bytes)", self.used(), self.limit())
    }
}

/// One table's share of a budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Account {
    budget: MemoryBudget,
    held: usize,
    reserved: usize,
}

impl Account {
    pub fn new(budget: MemoryBudget) -> Self {
        Self { budget, held: 0, reserved: 0 }
    }

    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    pub fn held(&self) -> usize {
        self.held
    }

    /// Charges `bytes`; a shared counter is touched only when the chunk is used up.
    #[inline]
    pub fn charge(&mut self, bytes: usize) {
        self.held += bytes;
        if self.held > self.reserved {
            self.resize();
        }
    }

    /// Gives `bytes` back.
    #[inline]
    pub fn refund(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.held, "refund of {bytes} from {}", self.held);
        self.held = self.held.saturating_sub(bytes);
        if self.held + 2 * CHUNK < self.reserved {
            self.resize();
        }
    }

    /// Charges or refunds the difference.
    pub fn adjust(&mut self, before: usize, after: usize) {
        if after >= before {
            self.charge(after - before);
        } else {
            self.refund(before - after);
        }
    }

    #[cold]
    fn resize(&mut self) {
        let target = self.held.div_ceil(CHUNK) * CHUNK;
        if target >= self.reserved {
            self.budget.shared.used.fetch_add(target - self.reserved, Ordering::Relaxed);
        } else {
            self.budget.shared.used.fetch_sub(self.reserved - target, Ordering::Relaxed);
        }
        self.reserved = target;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.shared.used.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_are_visible_up_to_a_chunk_and_returned_on_drop() {
        let budget = MemoryBudget::new(1 << 20);
        let mut account = Account::new(budget.clone());
        for _ in 0..100_000 {
            account.charge(7);
        }
        assert!(budget.used() >= 700_000 && budget.used() <= 700_000 + CHUNK);
        account.refund(600_000);
        assert!(budget.used() <= 100_000 + 3 * CHUNK);
        assert!(!budget.is_exceeded() && budget.would_exceed(1 << 20));
        drop(account);
        assert_eq!(budget.used(), 0);
    }
}
