//! A hash table of typed entries over the rows of one namespace: the part that a record's cost consists of.
//!
//! 1. An entry carries four flags and a stamp. A change sets two of the flags and the stamp of the present snapshot interval; in the
//!    steady state all are as they should be, so a change costs one comparison. A snapshot moves on to the next stamp instead of
//!    clearing anything: sweeping a table that is larger than the cache then reads it and writes nothing back.
//! 2. An entry that becomes dirty appends its hash (not its key) to a list. A snapshot looks up those hashes, or sweeps the table once
//!    when more than a quarter of it is dirty: its cost is in proportion to what changed.
//! 3. `absent` remembers keys known not to exist although the backend may have a row: deletions not written yet, and misses
//!    that were looked up once and need not be again.
//! 4. Eviction (`evict.rs`) is a clock over the buckets, second chance by the `REFERENCED` flag.

use std::ops::ControlFlow;

use hashbrown::HashTable;

use super::Part;
use crate::codec::{self, StateValue};
use crate::delta::DeltaWriter;
use crate::error::Result;
use crate::hash::hash_key;
use crate::key::{Key, KeyGroupRange, key_group};
use crate::scope::{Grouped, Rows, Scope, heap_size};

/// Differs from the backend.
pub(super) const UNFLUSHED: u32 = 2;
/// Used since the clock's hand passed.
pub(super) const REFERENCED: u32 = 4;
/// The backend may hold a row of this key.
pub(super) const COLD: u32 = 8;
/// A snapshot may hold this key, so that a deletion must be recorded.
pub(super) const SNAPPED: u32 = 16;
const FLAGS: u32 = 31;
/// Eight bits hold the stamp of the snapshot interval in which the entry changed last; 0 for none.
const STAMP_SHIFT: u32 = 5;
const STAMP: u32 = 0xff << STAMP_SHIFT;
/// The rest of `bits` is what was charged for the entry's heap, in units of 64 bytes.
const UNIT_SHIFT: u32 = 13;
const UNIT: usize = 64;
/// What a change sets: the stamp of the present interval and these.
const TOUCHED: u32 = UNFLUSHED | REFERENCED;

pub(super) struct Entry<K, V> {
    pub key: K,
    pub value: V,
    bits: u32,
}

impl<K, V> Entry<K, V> {
    #[inline]
    pub fn has(&self, flags: u32) -> bool {
        self.bits & flags != 0
    }
    #[inline]
    pub fn set(&mut self, flags: u32) {
        self.bits |= flags;
    }
    #[inline]
    pub fn clear(&mut self, flags: u32) {
        self.bits &= !flags;
    }
    /// Whether it changed in the interval of `present`.
    #[inline]
    fn is_stamped(&self, present: u32) -> bool {
        self.bits & STAMP == present & STAMP
    }
    /// Bytes charged for its heap.
    pub fn charged(&self) -> usize {
        (self.bits >> UNIT_SHIFT) as usize * UNIT
    }
    fn set_charged(&mut self, bytes: usize) {
        let units = (bytes.div_ceil(UNIT) as u32).min(u32::MAX >> UNIT_SHIFT);
        self.bits = (self.bits & (FLAGS | STAMP)) | (units << UNIT_SHIFT);
    }
}

impl<K: Key, V: StateValue> Entry<K, V> {
    /// Measures its heap again and charges the difference.
    pub fn measure(&mut self, scope: &mut Scope) {
        if std::mem::needs_drop::<K>() || std::mem::needs_drop::<V>() {
            let before = self.charged();
            self.set_charged(heap_size(&self.key) + heap_size(&self.value));
            scope.account.adjust(before, self.charged());
        }
    }
}

/// A key known not to exist.
pub(super) struct Absent<K> {
    pub key: K,
    /// The backend may have a row that is to be deleted.
    pub unflushed: bool,
    pub charged: usize,
}

pub(crate) struct HotMap<K, V> {
    pub(super) live: HashTable<Entry<K, V>>,
    pub(super) absent: HashTable<Absent<K>>,
    dirty: Vec<u64>,
    sweep: bool,
    /// The backend may have rows of this namespace.
    pub cold: bool,
    /// Rows of this namespace may be in a snapshot.
    pub snapped: bool,
    pub(super) hand: usize,
    /// The bucket from which on the search for expired entries goes on.
    pub(super) expiring: usize,
    changes: u32,
    /// The stamp of the present interval, in place, and what else a change sets.
    present: u32,
    /// The address of bucket 0, for prefetching only; 0 while unknown.
    pub(super) first_bucket: usize,
}

impl<K, V> Default for HotMap<K, V> {
    fn default() -> Self {
        Self {
            live: HashTable::new(),
            absent: HashTable::new(),
            dirty: Vec::new(),
            sweep: false,
            cold: false,
            snapped: false,
            hand: 0,
            expiring: 0,
            changes: 0,
            present: 1 << STAMP_SHIFT | TOUCHED,
            first_bucket: 0,
        }
    }
}

/// A table of at most this size stays in the processor's cache by itself.
const WARM_FROM_BYTES: usize = 512 << 10;

impl<K: Key, V: StateValue> HotMap<K, V> {
    /// A namespace of which the backend may have rows.
    pub fn over_cold_rows() -> Self {
        Self { cold: true, snapped: true, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether nothing at all is known of it, in memory or below.
    pub fn is_vacant(&self) -> bool {
        self.holds_nothing() && !self.cold
    }

    /// Whether nothing is known of it in memory.
    pub fn holds_nothing(&self) -> bool {
        self.live.is_empty() && self.absent.is_empty()
    }

    #[inline]
    pub fn find(&self, hash: u64, key: &K) -> Option<usize> {
        self.live.find_bucket_index(hash, |entry| entry.key == *key)
    }

    /// Asks the processor for the memory where entries of these hashes would be.
    ///
    /// A look-up in a large table waits for memory, and what an operator does between two look-ups keeps the processor from
    /// beginning the next one early. Here nothing waits: a prefetch that misses the entry is harmless.
    #[inline]
    pub fn warm(&self, hashes: &[u64]) {
        let size = size_of::<Entry<K, V>>();
        let mask = self.live.num_buckets().wrapping_sub(1);
        if self.live.num_buckets() * size <= WARM_FROM_BYTES {
            return;
        }
        for &hash in hashes {
            // hashbrown's buckets lie before each other: bucket i ends where bucket i - 1 begins, and behind bucket 0 there is a byte a
            // bucket, which is looked at first.
            let index = hash as usize & mask;
            prefetch_line(self.first_bucket.wrapping_add(size).wrapping_add(index));
            let bucket = self.first_bucket.wrapping_sub(index.wrapping_mul(size));
            prefetch_line(bucket);
            prefetch_line(bucket.wrapping_sub(size));
            // An entry seldom lies in one line.
            prefetch_line(bucket.wrapping_add(size - 1));
        }
    }

    /// The value of `key` for reading, if it is in memory.
    #[inline(always)]
    pub fn peek(&mut self, hash: u64, key: &K) -> Option<&V> {
        let entry = self.live.find_mut(hash, |entry| entry.key == *key)?;
        if !entry.has(REFERENCED) {
            entry.set(REFERENCED);
        }
        Some(&entry.value)
    }

    /// The value in bucket `index`, for reading.
    #[inline]
    pub fn read(&mut self, index: usize) -> &V {
        let entry = self.live.get_bucket_mut(index).expect("the index was just found");
        if !entry.has(REFERENCED) {
            entry.set(REFERENCED);
        }
        &entry.value
    }

    /// The value of `key` for writing, if it is in memory: marks it dirty. The path of nearly every record.
    #[inline(always)]
    pub fn update(&mut self, scope: &mut Scope, hash: u64, key: &K) -> Option<&mut V> {
        let buckets = self.live.num_buckets();
        let entry = self.live.find_mut(hash, |entry| entry.key == *key)?;
        if entry.bits & (STAMP | TOUCHED) != self.present {
            touch(entry, self.present, &mut self.dirty, &mut self.sweep, buckets, hash);
        }
        if std::mem::needs_drop::<V>() {
            self.changes = self.changes.wrapping_add(1);
            if self.changes.is_multiple_of(64) {
                entry.measure(scope);
            }
        }
        Some(&mut entry.value)
    }

    /// The value in bucket `index`, for writing: marks it dirty.
    pub fn write(&mut self, hash: u64, index: usize) -> &mut V {
        let buckets = self.live.num_buckets();
        let entry = self.live.get_bucket_mut(index).expect("the index was just found");
        touch(entry, self.present, &mut self.dirty, &mut self.sweep, buckets, hash);
        &mut entry.value
    }

    /// Looks for a key that is not in memory: reads its row, if there may be one, into memory. Not asked twice.
    pub fn load(
        &mut self,
        scope: &mut Scope,
        rows: &impl Rows<K>,
        hash: u64,
        key: &K,
    ) -> Result<Option<usize>> {
        if !self.cold || self.absent.find(hash, |absent| absent.key == *key).is_some() {
            return Ok(None);
        }
        let mut row = scope.id.to_be_bytes().to_vec();
        rows.write(hash, key, &mut row).map_err(|error| scope.codec_error(error))?;
        let value = {
            let mut cold = scope.lock();
            let cold = &mut *cold;
            cold.backend.get(&row, &mut cold.value)?.then(|| codec::decode::<V>(&cold.value))
        };
        match value {
            Some(value) => {
                let value = value.map_err(|error| scope.codec_error(error))?;
                Ok(Some(self.place(scope, hash, key.clone(), value, REFERENCED | COLD | SNAPPED)))
            }
            None => {
                self.note_absent(scope, hash, key.clone(), false);
                Ok(None)
            }
        }
    }

    /// Adds a key that is not in memory. Does not ask the backend; whoever needs its row calls `load` first.
    pub fn insert(&mut self, scope: &mut Scope, hash: u64, key: K, value: V) -> &mut V {
        let unknown = if self.cold { COLD | SNAPPED } else { 0 };
        let flags = self.forget_absent(scope, hash, &key).unwrap_or(unknown);
        note_dirty(&mut self.dirty, &mut self.sweep, self.live.num_buckets(), hash);
        let index = self.place(scope, hash, key, value, self.present | flags);
        &mut self.live.get_bucket_mut(index).expect("it was just placed").value
    }

    /// Puts an entry into the table and charges for it.
    fn place(&mut self, scope: &mut Scope, hash: u64, key: K, value: V, flags: u32) -> usize {
        let mut entry = Entry { key, value, bits: flags };
        entry.measure(scope);
        let buckets = self.live.num_buckets();
        let allocated = if self.live.len() == self.live.capacity() { self.live.allocation_size() } else { 0 };
        let placed = self.live.insert_unique(hash, entry, |entry| hash_key(&entry.key));
        let index = placed.bucket_index();
        self.first_bucket =
            (std::ptr::from_ref(placed.get()) as usize).wrapping_add(index * size_of::<Entry<K, V>>());
        if self.live.num_buckets() != buckets {
            scope.account.adjust(allocated, self.live.allocation_size());
        }
        index
    }

    /// Takes a key out of `absent`: the flags that an entry of it must have, if it was there.
    fn forget_absent(&mut self, scope: &mut Scope, hash: u64, key: &K) -> Option<u32> {
        if self.absent.is_empty() {
            return None;
        }
        let (absent, _) = self.absent.find_entry(hash, |absent| absent.key == *key).ok()?.remove();
        scope.account.refund(absent.charged);
        Some(if absent.unflushed { COLD } else { 0 })
    }

    fn note_absent(&mut self, scope: &mut Scope, hash: u64, key: K, unflushed: bool) {
        let charged = heap_size(&key) + 2 * size_of::<Absent<K>>();
        scope.account.charge(charged);
        self.absent.insert_unique(hash, Absent { key, unflushed, charged }, |absent| hash_key(&absent.key));
    }

    /// Removes the entry in bucket `index` and records what a restart must know.
    pub fn remove_at(
        &mut self,
        scope: &mut Scope,
        rows: &impl Rows<K>,
        hash: u64,
        index: usize,
    ) -> Result<V> {
        let found = self.live.get_bucket(index).expect("the index was just found");
        if found.has(SNAPPED | COLD) {
            let mut row = Vec::new();
            rows.write(hash, &found.key, &mut row).map_err(|error| scope.codec_error(error))?;
            scope.record_delete(&row);
        }
        let (entry, _) = self
            .live
            .get_bucket_entry(index)
            .unwrap_or_else(|_| unreachable!("the index was just found"))
            .remove();
        scope.account.refund(entry.charged());
        if entry.has(COLD) {
            self.note_absent(scope, hash, entry.key, true);
        }
        Ok(entry.value)
    }

    /// Applies a put of a delta: the entry is as if it had been snapshotted here.
    pub fn restore_put(&mut self, scope: &mut Scope, key: K, value: V) {
        let hash = hash_key(&key);
        self.snapped = true;
        if let Some(index) = self.find(hash, &key) {
            let entry = self.live.get_bucket_mut(index).expect("the index was just found");
            entry.value = value;
            entry.measure(scope);
            return;
        }
        self.forget_absent(scope, hash, &key);
        let flags = if self.cold { COLD } else { 0 };
        self.place(scope, hash, key, value, UNFLUSHED | SNAPPED | flags);
    }

    /// Applies a delete of a delta.
    pub fn restore_delete(&mut self, scope: &mut Scope, key: K) {
        let hash = hash_key(&key);
        if let Ok(found) = self.live.find_entry(hash, |entry| entry.key == key) {
            let (entry, _) = found.remove();
            scope.account.refund(entry.charged());
        }
        if self.cold && self.absent.find(hash, |absent| absent.key == key).is_none() {
            self.note_absent(scope, hash, key, true);
        }
    }

    /// Removes the entries of some key groups from memory alone.
    pub fn forget_groups(&mut self, scope: &mut Scope, mut doomed: impl FnMut(u64) -> bool) {
        let account = &mut scope.account;
        self.live.retain(|entry| {
            let keep = !doomed(hash_key(&entry.key));
            if !keep {
                account.refund(entry.charged());
            }
            keep
        });
        self.absent.retain(|absent| {
            let keep = !doomed(hash_key(&absent.key));
            if !keep {
                account.refund(absent.charged);
            }
            keep
        });
    }

    /// Writes entries into a delta.
    pub fn encode(
        &mut self,
        scope: &mut Scope,
        rows: &impl Rows<K>,
        part: Part,
        delta: &mut DeltaWriter,
    ) -> Result<()> {
        let present = self.present;
        let wanted = |entry: &Entry<K, V>| match part {
            Part::Changed => entry.is_stamped(present),
            Part::Unflushed => entry.has(UNFLUSHED),
        };
        let before = delta.len();
        let dirty = std::mem::take(&mut self.dirty);
        let swept = part == Part::Unflushed || self.sweep || dirty.len() > self.live.len() / 4;
        let mut written = 0;
        if swept {
            for entry in self.live.iter_mut().filter(|entry| wanted(entry)) {
                encode_entry(scope, rows, entry, delta)?;
                written += 1;
                if delta.is_full() {
                    break;
                }
            }
        } else {
            for &hash in &dirty {
                for entry in self.live.iter_hash_mut(hash).filter(|entry| wanted(entry)) {
                    // An entry of another hash may come along: its own counts.
                    encode_entry(scope, rows, entry, delta)?;
                    entry.clear(STAMP);
                }
            }
        }
        if part == Part::Unflushed {
            let mut row = Vec::new();
            for absent in self.absent.iter().filter(|absent| absent.unflushed) {
                row.clear();
                rows.write(hash_key(&absent.key), &absent.key, &mut row)
                    .map_err(|error| scope.codec_error(error))?;
                delta.delete(scope.id, &row);
            }
        }
        self.begin_interval();
        self.dirty = dirty;
        self.dirty.clear();
        if self.dirty.capacity() > 4 * self.live.len() + 64 {
            self.dirty = Vec::new();
        }
        // What was mostly dirty will be again: a list of it would be written for nothing.
        self.sweep = part == Part::Changed && swept && written > self.live.len() / 4;
        self.snapped |= delta.len() > before;
        Ok(())
    }

    /// Makes all entries count as unchanged, by moving on to the next stamp. Stamps come again after 255 intervals; then old ones
    /// are cleared.
    fn begin_interval(&mut self) {
        let next = ((self.present & STAMP) >> STAMP_SHIFT) + 1;
        if next <= 255 {
            self.present = next << STAMP_SHIFT | TOUCHED;
            return;
        }
        self.live.iter_mut().for_each(|entry| entry.clear(STAMP));
        self.present = 1 << STAMP_SHIFT | TOUCHED;
    }

    /// Whether the last snapshot lacks what an entry holds.
    pub(super) fn is_dirty(&self, entry: &Entry<K, V>) -> bool {
        entry.is_stamped(self.present)
    }

    /// Hands out every pair, in memory or cold, and forgets them here; the caller drops the rows.
    pub fn drain(
        &mut self,
        scope: &mut Scope,
        rows: &impl Rows<K>,
        mut visit: impl FnMut(K, V),
    ) -> Result<()> {
        self.for_each_cold(scope, rows, None, &mut visit)?;
        for entry in self.live.drain() {
            scope.account.refund(entry.charged());
            visit(entry.key, entry.value);
        }
        self.release(scope);
        Ok(())
    }

    /// Hands out up to `most` pairs, cold ones first, and takes them out of the table. Answers whether none is left.
    pub fn drain_some(
        &mut self,
        scope: &mut Scope,
        rows: &impl Rows<K>,
        most: usize,
        mut visit: impl FnMut(K, V),
    ) -> Result<bool> {
        let mut left = most;
        if self.cold {
            let (from, to) = scope.cold_range(rows.prefix());
            let (mut next, mut shadowed) = (None, Vec::new());
            let start = rows.key_at();
            scope.lock().backend.scan(&from, &to, &mut |row, value| {
                let row = &row[2..];
                let key: K = scope.decode(&row[start..])?;
                let hash = hash_key(&key);
                if let Some(index) = self.find(hash, &key) {
                    shadowed.push(index);
                    return Ok(ControlFlow::Continue(()));
                }
                if self.absent.find(hash, |absent| absent.key == key).is_some() {
                    return Ok(ControlFlow::Continue(()));
                }
                if left == 0 {
                    next = Some(scope.cold_key(row));
                    return Ok(ControlFlow::Break(()));
                }
                left -= 1;
                visit(key, scope.decode(value)?);
                Ok(ControlFlow::Continue(()))
            })?;
            // Their rows go with the others. Whoever evicts them before their turn has to write them again.
            for index in shadowed {
                if let Some(entry) = self.live.get_bucket_mut(index) {
                    entry.set(UNFLUSHED);
                }
            }
            scope.delete_cold_range(&from, next.as_ref().unwrap_or(&to))?;
            if next.is_some() {
                return Ok(false);
            }
            self.cold = false;
        }
        let account = &mut scope.account;
        for entry in self.live.extract_if(|_| true).take(left) {
            account.refund(entry.charged());
            visit(entry.key, entry.value);
        }
        Ok(self.live.is_empty())
    }

    /// Visits every pair, in memory or cold.
    pub fn for_each(&self, scope: &Scope, rows: &impl Rows<K>, mut visit: impl FnMut(&K, &V)) -> Result<()> {
        self.for_each_cold(scope, rows, None, &mut |key, value| visit(&key, &value))?;
        for entry in &self.live {
            visit(&entry.key, &entry.value);
        }
        Ok(())
    }

    /// Visits every pair of some key groups, in memory or cold. Looks at all that is in memory, and at what is cold of these groups.
    pub fn for_each_in(
        &self,
        scope: &Scope,
        rows: &Grouped<'_>,
        groups: KeyGroupRange,
        mut visit: impl FnMut(&K, &V),
    ) -> Result<()> {
        self.for_each_cold(scope, rows, Some(groups), &mut |key, value| visit(&key, &value))?;
        for entry in &self.live {
            if groups.contains(key_group(hash_key(&entry.key), rows.groups)) {
                visit(&entry.key, &entry.value);
            }
        }
        Ok(())
    }

    /// Visits the rows that memory does not supersede, of some key groups where the rows have any.
    fn for_each_cold(
        &self,
        scope: &Scope,
        rows: &impl Rows<K>,
        groups: Option<KeyGroupRange>,
        visit: &mut impl FnMut(K, V),
    ) -> Result<()> {
        if !self.cold {
            return Ok(());
        }
        let (from, to) = match groups {
            Some(groups) => scope.cold_groups(rows.prefix(), groups),
            None => scope.cold_range(rows.prefix()),
        };
        self.scan_cold(scope, rows, (&from, &to), |_, key, value| {
            visit(key, value);
            ControlFlow::Continue(())
        })
    }

    /// Visits the rows among the backend's keys `from..to` that memory does not supersede, with the bytes of each.
    fn scan_cold(
        &self,
        scope: &Scope,
        rows: &impl Rows<K>,
        (from, to): (&[u8], &[u8]),
        mut visit: impl FnMut(&[u8], K, V) -> ControlFlow<()>,
    ) -> Result<()> {
        let start = rows.key_at();
        scope.lock().backend.scan(from, to, &mut |row, value| {
            let row = &row[2..];
            let key: K = scope.decode(&row[start..])?;
            let hash = hash_key(&key);
            let superseded = self.find(hash, &key).is_some()
                || self.absent.find(hash, |absent| absent.key == key).is_some();
            if superseded {
                return Ok(ControlFlow::Continue(()));
            }
            Ok(visit(row, key, scope.decode(value)?))
        })
    }

    /// Gives back all memory.
    pub fn release(&mut self, scope: &mut Scope) {
        for entry in self.live.drain() {
            scope.account.refund(entry.charged());
        }
        for absent in self.absent.drain() {
            scope.account.refund(absent.charged);
        }
        scope.account.refund(self.live.allocation_size());
        *self = Self::default();
    }
}

/// Marks an entry as changed and used.
#[inline]
fn touch<K, V>(
    entry: &mut Entry<K, V>,
    present: u32,
    dirty: &mut Vec<u64>,
    sweep: &mut bool,
    buckets: usize,
    hash: u64,
) {
    if !entry.is_stamped(present) {
        note_dirty(dirty, sweep, buckets, hash);
    }
    entry.bits = (entry.bits & !STAMP) | present;
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch does not access memory; any address is allowed.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) }
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch_line(_address: usize) {}

/// Remembers that an entry of this hash is dirty; gives the list up for a sweep when it is long for the table.
#[inline]
fn note_dirty(dirty: &mut Vec<u64>, sweep: &mut bool, buckets: usize, hash: u64) {
    if *sweep {
        return;
    }
    if dirty.len() == dirty.capacity() && dirty.len() > buckets / 4 + 64 {
        *sweep = true;
        *dirty = Vec::new();
        return;
    }
    dirty.push(hash);
}

/// Writes one entry and counts it as unchanged from now on.
#[inline(always)]
fn encode_entry<K: Key, V: StateValue>(
    scope: &mut Scope,
    rows: &impl Rows<K>,
    entry: &mut Entry<K, V>,
    delta: &mut DeltaWriter,
) -> Result<()> {
    let written = delta.put(
        scope.id,
        |out| rows.write(hash_key(&entry.key), &entry.key, out),
        |out| codec::encode_into(&entry.value, out),
    );
    if let Err(error) = written {
        return Err(scope.codec_error(error));
    }
    // In the steady state nothing is written here: a sweep over a large table then only reads it.
    if !entry.has(SNAPPED) {
        entry.set(SNAPPED);
    }
    entry.measure(scope);
    Ok(())
}
