//! Aggregation before the exchange: many records of one key and slice cross it as one.
//!
//! 1. In front of the exchange a small table keeps an accumulator a key and slice. A record is added to its accumulator instead of being
//!    sent; the accumulators go out when the table is full, and before every watermark, barrier or silence, so that nothing overtakes them.
//! 2. The window's operator merges what comes into its own accumulator of that key and slice.
//! 3. Only records that are on time for all their windows are combined, by what this end of the exchange knows of time: the record's own
//!    watermark, the one that was passed on, the one restored from. The others go as they are, since each is late by itself.
//! 4. Whether it is worth it is found out: now and then the keys and slices of a batch are counted, roughly, and records are combined from
//!    then on as long as [`WORTH_IT`] of them become one.
//!
//! Step 3 is right because the receiving end's time is at most what this end has passed on: it is a minimum in which this end always takes
//! part (see [`crate::clocks`]).
//!
//! Only for aggregates whose result does not depend on how records are grouped ([`Aggregate::is_exact`]): where the groups end depends on
//! the moment. (Flink's local-global aggregation; Yu et al., "Distributed Aggregation for Data-Parallel Computing", SOSP 2009.)

use super::Aggregate;
use super::assign::{LastSlice, Slices};
use crate::batch::{Batch, Stamp};
use crate::context::{BlameCell, TaskContext};
use crate::edge::{Operator, Signal};
use crate::error::Result;
use crate::exchange::{Keyed, Router};
use crate::time::Timestamp;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rivermark_state::Key;
use std::ops::Range;
use std::sync::Arc;

/// Accumulators in the table. Few enough to stay in the second-level cache.
const ACCUMULATORS: usize = 1024;
/// While nothing is combined, the keys of one batch in so many are counted; fewer and fewer as long as it is not worth it.
const BATCHES_PER_LOOK: Range<u32> = 16..1024;
/// How many records must become one, on average: below it, looking for the key twice costs more than sending the record.
const WORTH_IT: usize = 4;

/// What records of one key and slice were combined to.
pub(super) struct Combined<A> {
    /// The slice's start.
    pub(super) slice: Timestamp,
    /// The end of the first window that covers the slice.
    pub(super) first_end: Timestamp,
    /// How many records it holds.
    pub(super) records: usize,
    pub(super) acc: A,
}

/// Whether to combine, judged by what came of it.
struct Worth {
    combining: bool,
    /// Batches until the next look, and from that one to the one after it.
    wait: u32,
    next_wait: u32,
    /// Records added since the table was last emptied.
    records: usize,
}

impl Worth {
    fn new() -> Self {
        Worth { combining: false, wait: 0, next_wait: BATCHES_PER_LOOK.start, records: 0 }
    }

    /// Whether the next batch is to be looked at.
    fn is_time_to_look(&mut self) -> bool {
        let now = self.wait == 0;
        self.wait = if now { self.next_wait } else { self.wait };
        self.wait -= 1;
        now
    }

    /// So many records are, or were combined to, so many. What little there is to judge by tells nothing.
    fn judge(&mut self, records: usize, distinct: usize) {
        if records < 4 * WORTH_IT {
            return;
        }
        let worth_it = records >= WORTH_IT * distinct;
        self.next_wait = match worth_it {
            true => BATCHES_PER_LOOK.start,
            false => (2 * self.next_wait).min(BATCHES_PER_LOOK.end),
        };
        self.combining = worth_it;
    }

    /// The table is emptied of so many accumulators.
    fn emptied(&mut self, accumulators: usize) {
        let records = std::mem::take(&mut self.records);
        self.judge(records, accumulators);
    }
}

/// Counts what is distinct among a batch's hashes: as many as bits that they set (Whang et al., "A Linear-Time Probabilistic Counting
/// Algorithm", 1990). With eight bits a record it misses one in sixteen, which is near enough.
fn count_distinct(hashes: impl Iterator<Item = u64>) -> usize {
    let mut seen = [0_u64; 128];
    for hash in hashes {
        seen[(hash >> 6) as usize % seen.len()] |= 1 << (hash % 64);
    }
    seen.iter().map(|word| word.count_ones() as usize).sum()
}

struct Slot<K, A> {
    hash: u64,
    key: K,
    /// Of the first record: who to blame if merging fails.
    stamp: Stamp,
    combined: Combined<A>,
}

/// The sending end of an exchange that combines.
pub(super) struct Combining<K: Key, V, A: Aggregate<V>> {
    name: Arc<str>,
    blame: BlameCell,
    slices: Slices,
    last: LastSlice,
    aggregate: A,
    /// No receiver is beyond it.
    floor: Timestamp,
    worth: Worth,
    table: HashTable<Slot<K, A::Acc>>,
    records: Router<Keyed<K, V>>,
    combined: Router<Keyed<K, Combined<A::Acc>>>,
}

impl<K: Key, V: Send + 'static, A: Aggregate<V>> Combining<K, V, A> {
    /// `restored` is the watermark that the receiving ends begin with.
    pub(super) fn new(
        (name, blame): (Arc<str>, BlameCell),
        (slices, aggregate): (Slices, A),
        restored: Timestamp,
        records: Router<Keyed<K, V>>,
        combined: Router<Keyed<K, Combined<A::Acc>>>,
    ) -> Self {
        Combining {
            name,
            blame,
            slices,
            last: LastSlice::none(),
            aggregate,
            floor: restored,
            worth: Worth::new(),
            table: HashTable::new(),
            records,
            combined,
        }
    }

    /// Finds out whether it is worth it to combine a batch such as this one.
    fn look(&mut self, batch: &Batch<Keyed<K, V>>) {
        let slice = |time| self.slices.slice_of(time).millis() as u64;
        // Multiplied by an odd number, the bits of the slice reach those that count.
        let of = |(stamp, record): (&Stamp, &Keyed<K, V>)| {
            record.hash ^ slice(stamp.time).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
        };
        self.worth.judge(batch.len(), count_distinct(batch.iter().map(of)));
    }

    fn combine(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        batch.try_drain(|stamp, record| {
            watch.at(stamp);
            let (slice, first_end) = self.last.of(&self.slices, stamp.time);
            if stamp.watermark.max(self.floor) >= first_end {
                self.records.push(record.hash, *stamp, record, cx);
                return Ok(());
            }
            self.worth.records += 1;
            self.add(*stamp, slice, first_end, record);
            if self.table.len() >= ACCUMULATORS {
                self.empty(cx);
            }
            Ok(())
        })
    }

    #[inline]
    fn add(&mut self, stamp: Stamp, slice: Timestamp, first_end: Timestamp, record: Keyed<K, V>) {
        let Keyed { hash, key, value } = record;
        // Slices are told apart by comparing: they are few at a time, and so the hash stays the key's.
        let same =
            |slot: &Slot<K, A::Acc>| slot.hash == hash && slot.combined.slice == slice && slot.key == key;
        match self.table.entry(hash, same, |slot| slot.hash) {
            Entry::Occupied(slot) => {
                let combined = &mut slot.into_mut().combined;
                combined.records += 1;
                self.aggregate.add(&mut combined.acc, &value);
            }
            Entry::Vacant(slot) => {
                let mut acc = self.aggregate.create();
                self.aggregate.add(&mut acc, &value);
                slot.insert(Slot {
                    hash,
                    key,
                    stamp,
                    combined: Combined { slice, first_end, records: 1, acc },
                });
            }
        }
    }

    fn empty(&mut self, cx: &mut TaskContext<'_>) {
        self.worth.emptied(self.table.len());
        for Slot { hash, key, stamp, combined } in self.table.drain() {
            self.combined.push(hash, stamp, Keyed { hash, key, value: combined }, cx);
        }
    }

    /// Sends everything that was combined: it must not be overtaken by what comes next.
    fn send_combined(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        if !self.table.is_empty() {
            self.empty(cx);
        }
        self.combined.flush(cx)
    }
}

impl<K: Key, V: Send + 'static, A: Aggregate<V>> Operator<Keyed<K, V>> for Combining<K, V, A> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        if !self.worth.combining && self.worth.is_time_to_look() {
            self.look(batch);
        }
        if self.worth.combining { self.combine(batch, cx) } else { self.records.on_batch(batch, cx) }
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        if let Signal::Watermark(to) = signal {
            self.floor = self.floor.max(to);
        }
        // A watermark waits in the router until the next flush, which sends what was combined first; but for the end of time, which lets the one
        // before it go.
        let waits = matches!(signal, Signal::Watermark(to) if to < Timestamp::MAX);
        if !waits && !matches!(signal, Signal::Partition(_)) {
            self.send_combined(cx)?;
        }
        self.records.on_signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.send_combined(cx)?;
        self.records.flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rarer_while_it_is_not_worth_it() {
        let mut worth = Worth::new();
        let mut looks = Vec::new();
        for batch in 0..200 {
            if worth.is_time_to_look() {
                looks.push(batch);
                worth.judge(1024, 1000);
            }
        }
        assert_eq!(looks, [0, 16, 48, 112]);
        worth.judge(1024, 100);
        assert!(worth.combining);
        worth.judge(3, 3);
        assert!(worth.combining, "three records tell nothing");
        worth.judge(1024, 300);
        assert!(!worth.combining);
    }

    #[test]
    fn distinct_hashes_are_counted_well_enough() {
        let spread = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        for distinct in [1, 10, 100, 1024] {
            let counted = count_distinct((0..1024).map(|n| spread(n % distinct)));
            assert!(
                counted <= distinct as usize && counted >= distinct as usize * 15 / 16,
                "{distinct}: {counted}"
            );
        }
    }
}
