//! Records travel in batches: a column of stamps beside a column of values.
//!
//! The stamps are apart from the values so that an operator that changes values moves the stamps by pointer, and so
//! that the engine can judge time and place without touching (or knowing) the values.

use crate::error::Result;
use crate::time::Timestamp;
use std::fmt;

/// Where a record came from: an index into the job's table of source partitions, and the offset there.
///
/// Packed into eight bytes, since one travels with each record: 16 bits of partition, 48 bits of offset. A derived
/// record (a window's result) has none.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(u64);

impl Origin {
    /// No single record: a result of many, or a test's.
    pub const NONE: Origin = Origin(u64::MAX);
    /// The most partitions a job reads, over all of its sources.
    pub const MAX_PARTITIONS: usize = u16::MAX as usize;
    /// The greatest offset that a stamp can name.
    pub const MAX_OFFSET: u64 = (1 << 48) - 2;

    /// The record at `offset` of the job's source partition `partition`.
    ///
    /// # Panics
    /// If the offset is above [`Origin::MAX_OFFSET`]: at a million records a second, after nine years of one
    /// partition. A wrong provenance would also be a wrong order, so this stops the job.
    #[inline]
    pub fn new(partition: u16, offset: u64) -> Origin {
        assert!(
            offset <= Self::MAX_OFFSET,
            "offset {offset} is above the limit {} of a source",
            Self::MAX_OFFSET
        );
        Origin((u64::from(partition) << 48) | offset)
    }

    /// What a row is marked with in a run that explains rows ([`crate::trace`]): the first 48 bits of a number's 64, or all of a small one.
    pub(crate) fn of_mark(mark: u64) -> Origin {
        let small = 1 << 47;
        let mark = if mark < small { mark } else { (mark >> 16) | small };
        // All ones are no single record.
        Origin(u64::from(u16::MAX) << 48 | mark.min(Self::MAX_OFFSET))
    }

    /// The mark of a row in a run that explains rows. `None` for what has an origin, or nothing.
    pub fn mark(self) -> Option<u64> {
        let is_mark = self.partition().is_none() && self != Self::NONE;
        is_mark.then_some(self.0 & ((1 << 48) - 1))
    }

    /// All of it, as a number.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// What [`Origin::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Origin {
        Origin(bits)
    }

    /// The index of the source partition in the job's table, or `None` for a derived record.
    pub fn partition(self) -> Option<u16> {
        let partition = (self.0 >> 48) as u16;
        (partition != u16::MAX).then_some(partition)
    }

    /// The offset in that partition, or `None` for a derived record.
    pub fn offset(self) -> Option<u64> {
        self.partition().map(|_| self.0 & ((1 << 48) - 1))
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.partition(), self.offset()) {
            (Some(partition), Some(offset)) => write!(f, "{partition}@{offset}"),
            _ => f.write_str("derived"),
        }
    }
}

/// What travels with each record beside its value.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The record's event time.
    pub time: Timestamp,
    /// The watermark of the record's own source partition just before the record. Lateness is judged against this
    /// and nothing else, which makes it a property of the log alone. `Timestamp::MIN` means never late.
    pub watermark: Timestamp,
    /// Where the record came from.
    pub origin: Origin,
}

impl Stamp {
    /// The stamp of a result at `time` that is never late.
    pub fn derived(time: Timestamp) -> Stamp {
        Stamp { time, watermark: Timestamp::MIN, origin: Origin::NONE }
    }
}

/// Records with their stamps, in order. Both columns always have the same length.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    stamps: Vec<Stamp>,
    values: Vec<T>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Batch { stamps: Vec::new(), values: Vec::new() }
    }
}

impl<T> Batch<T> {
    /// How many records a batch holds before it is passed on. Large enough that a virtual call or a channel operation a batch
    /// is nothing, small enough that a batch of 100-byte values stays in the second-level cache.
    pub const CAPACITY: usize = 1024;

    /// An empty batch; it allocates with its first record.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        Batch { stamps: Vec::with_capacity(capacity), values: Vec::with_capacity(capacity) }
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Appends a record.
    #[inline]
    pub fn push(&mut self, stamp: Stamp, value: T) {
        self.stamps.push(stamp);
        self.values.push(value);
    }

    /// The stamps, in order.
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// The stamps, to be changed in place.
    pub fn stamps_mut(&mut self) -> &mut [Stamp] {
        &mut self.stamps
    }

    /// The values, in order.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// Both columns, the stamps to be changed in place.
    pub fn columns_mut(&mut self) -> (&mut [Stamp], &[T]) {
        (&mut self.stamps, &self.values)
    }

    /// The records in order, by reference.
    pub fn iter(&self) -> impl Iterator<Item = (&Stamp, &T)> {
        self.stamps.iter().zip(&self.values)
    }

    /// Gives the records away in order and keeps the memory: [`drain`](Self::drain) for the loops that every record passes. Stamps stay where they
    /// are and are copied once, by whoever needs them; after an error the rest is dropped.
    #[inline]
    pub(crate) fn try_drain(&mut self, mut take: impl FnMut(&Stamp, T) -> Result<()>) -> Result<()> {
        let given =
            self.stamps.iter().zip(self.values.drain(..)).try_for_each(|(stamp, value)| take(stamp, value));
        self.stamps.clear();
        given
    }

    /// Takes the records out in order and keeps the memory.
    pub fn drain(&mut self) -> impl Iterator<Item = (Stamp, T)> {
        self.stamps.drain(..).zip(self.values.drain(..))
    }

    /// Removes the records behind the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.stamps.truncate(len);
        self.values.truncate(len);
    }

    /// Removes all records and keeps the memory.
    pub fn clear(&mut self) {
        self.stamps.clear();
        self.values.clear();
    }

    /// Keeps the records for which `keep` answers true, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&Stamp, &T) -> bool) {
        let mut kept = 0;
        let mut at = 0;
        let stamps = &mut self.stamps;
        self.values.retain(|value| {
            let stamp = stamps[at];
            at += 1;
            let keeps = keep(&stamp, value);
            // `kept` never overtakes `at`; a panic in `keep` leaves columns of unequal length behind, which nobody reads: it
            // stops the task.
            stamps[kept] = stamp;
            kept += usize::from(keeps);
            keeps
        });
        self.stamps.truncate(kept);
    }

    /// Exchanges the contents with another batch: how a batch moves without being copied.
    pub fn swap(&mut self, other: &mut Batch<T>) {
        std::mem::swap(self, other);
    }
}

impl<T> FromIterator<(Stamp, T)> for Batch<T> {
    fn from_iter<I: IntoIterator<Item = (Stamp, T)>>(records: I) -> Self {
        let mut batch = Batch::new();
        for (stamp, value) in records {
            batch.push(stamp, value);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Stamp {
        Stamp { time: Timestamp::from_millis(7), watermark: Timestamp::MIN, origin: Origin::new(3, offset) }
    }

    #[test]
    fn retain_keeps_stamps_beside_their_values() {
        let mut batch: Batch<u64> = (0..10).map(|n| (at(n), n)).collect();
        batch.retain(|_, value| value % 3 == 0);
        assert_eq!(batch.values(), [0, 3, 6, 9]);
        let offsets: Vec<_> = batch.stamps().iter().map(|s| s.origin.offset().unwrap()).collect();
        assert_eq!(offsets, [0, 3, 6, 9]);
    }

    #[test]
    fn an_origin_gives_back_partition_and_offset_to_the_limits() {
        let origin = Origin::new(u16::MAX - 1, Origin::MAX_OFFSET);
        assert_eq!((origin.partition(), origin.offset()), (Some(u16::MAX - 1), Some(Origin::MAX_OFFSET)));
        assert_eq!(Origin::NONE.partition(), None);
    }
}
