//! What waits for its time: appended in any order, taken out in order of time.
//!
//! 1. Waiters lie unsorted in *pages* of 64 time units, found by an ordered map of the pages there are. To wait costs an append.
//! 2. The earliest page is sorted when its time comes, by time and rank, and given out from its front. What comes into it later is sorted in
//!    among what is left: nearly sorted input is the sort's best case. (A calendar queue, R. Brown 1988, with sorting for the day at hand.)
//! 3. To a snapshot a row is what one key has at one time, as if it were a [`WindowTable`](super::window::WindowTable) of vectors, with the same
//!    bytes. Only pages with new waiters are looked at; most waiters of a busy flow are gone before any snapshot comes. A time that is taken out
//!    is recorded as one operation, if a snapshot may have it.
//! 4. Over budget, whole pages are moved to the backend, the latest first, but not the one that is being filled. They come back when their
//!    time does. What waits in such a page meanwhile stays in memory, and is put behind the row in the backend when it is written.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::ControlFlow;

use super::window::Namespace;
use super::{ErasedTable, Flush, Part, owned};
use crate::backend::{Batch, successor};
use crate::codec::{self, CodecError, StateValue};
use crate::delta::{DeltaWriter, Op};
use crate::error::{Result, StateError};
use crate::hash::hash_key;
use crate::key::{Key, KeyGroupRange, key_group};
use crate::scope::{Cold, Scope, heap_size};

/// Bytes of a row before its key group: the time.
pub(crate) const TIME_WIDTH: usize = 8;
const PAGE_SHIFT: u32 = 6;
/// Fewer waiters than this are not worth a write to the backend.
const FEW: usize = 64;
/// The memory of so many emptied pages is kept for new ones, if it is that of so many waiters at most.
const SPARE: (usize, usize) = (4, 1024);

/// Something of a key that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter<K, V> {
    /// The time it waits for.
    pub time: i64,
    /// A number that is kept with it.
    pub mark: i64,
    /// Its place among those of its time: lower ones come first, and of equal ones of a key that which was added first.
    pub rank: u64,
    /// The hash of the key.
    pub hash: u64,
    /// Its key.
    pub key: K,
    /// What waits.
    pub value: V,
}

/// The encoding of what one key has at one time.
pub(crate) type WaitingRow<V> = Vec<(i64, u64, V)>;

struct Entry<K, V> {
    waiter: Waiter<K, V>,
    /// It comes before all of its time that are not.
    is_first: bool,
    /// No snapshot has it.
    is_dirty: bool,
    /// What its key and value own, in bytes.
    charged: u32,
}

impl<K, V> Entry<K, V> {
    fn place(&self) -> (i64, bool, u64) {
        (self.waiter.time, !self.is_first, self.waiter.rank)
    }
}

struct Page<K, V> {
    entries: VecDeque<Entry<K, V>>,
    is_sorted: bool,
    is_dirty: bool,
    /// The backend has rows of it.
    is_cold: bool,
}

impl<K, V> Default for Page<K, V> {
    fn default() -> Self {
        Page { entries: VecDeque::new(), is_sorted: true, is_dirty: false, is_cold: false }
    }
}

/// A table of values that wait for a time, under keys.
///
/// Adding costs an append, and taking out a sort of what was not added in order: some ten nanoseconds each for small values.
pub struct WaitingTable<K, V> {
    scope: Scope,
    is_first: fn(&V) -> bool,
    index: BTreeMap<i64, usize>,
    pages: Vec<Page<K, V>>,
    free: Vec<usize>,
    /// Memory of pages that were emptied.
    spare: Vec<VecDeque<Entry<K, V>>>,
    /// How many are in memory.
    resident: usize,
    /// The page that was added to last.
    current: Option<(i64, usize)>,
    /// Times and hashes of the rows that were restored, as long as only restoring goes on: a row may come again.
    restored: HashSet<(i64, u64)>,
}

const fn page_of(time: i64) -> i64 {
    time >> PAGE_SHIFT
}

impl<K: Key, V: StateValue> WaitingTable<K, V> {
    pub(crate) fn open(scope: Scope, is_first: fn(&V) -> bool) -> Result<Self> {
        let mut table = Self {
            scope,
            is_first,
            index: BTreeMap::new(),
            pages: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            resident: 0,
            current: None,
            restored: HashSet::new(),
        };
        table.find_cold_pages()?;
        Ok(table)
    }

    /// One seek for each page that the backend has.
    fn find_cold_pages(&mut self) -> Result<()> {
        let mut from = self.scope.id.to_be_bytes().to_vec();
        let to = self.end_of_table();
        loop {
            let mut found = None;
            self.scope.lock().backend.scan(&from, &to, &mut |key, _| {
                found = i64::from_bytes(&key[2..]);
                Ok(ControlFlow::Break(()))
            })?;
            let Some(page) = found.map(page_of) else { return Ok(()) };
            let slot = self.slot(page);
            self.pages[slot].is_cold = true;
            from = self.cold_page(page).1;
        }
    }

    fn end_of_table(&self) -> Vec<u8> {
        successor(&self.scope.id.to_be_bytes()).unwrap_or_else(|| vec![u8::MAX; 3])
    }

    /// The backend's keys of a page, as `from..to`.
    fn cold_page(&self, page: i64) -> (Vec<u8>, Vec<u8>) {
        let from = self.scope.cold_key(&(page << PAGE_SHIFT).to_bytes());
        let to = match page < page_of(i64::MAX) {
            true => self.scope.cold_key(&((page + 1) << PAGE_SHIFT).to_bytes()),
            false => self.end_of_table(),
        };
        (from, to)
    }

    /// Adds a waiter.
    ///
    /// # Errors
    /// When others cannot be moved to the backend to make room.
    #[inline]
    pub fn push(&mut self, waiter: Waiter<K, V>) -> Result<()> {
        if !self.restored.is_empty() {
            self.restored = HashSet::new();
        }
        let page = page_of(waiter.time);
        let slot = match self.current {
            Some((current, slot)) if current == page => slot,
            _ => self.slot(page),
        };
        self.add(slot, waiter, true);
        self.pages[slot].is_dirty = true;
        if self.scope.is_exceeded() { self.make_room() } else { Ok(()) }
    }

    /// The earliest time that is not after `until`, if anything waits for it. Costs nothing where nothing does.
    ///
    /// # Errors
    /// When rows of its page cannot be read from the backend.
    #[inline]
    pub fn next_time(&mut self, until: i64) -> Result<Option<i64>> {
        loop {
            let Some((&page, &slot)) = self.index.first_key_value() else { return Ok(None) };
            if page << PAGE_SHIFT > until {
                return Ok(None);
            }
            if self.pages[slot].is_cold {
                self.load(page, slot)?;
            }
            let found = &mut self.pages[slot];
            if !found.is_sorted {
                found.entries.make_contiguous().sort_by_key(Entry::place);
                found.is_sorted = true;
            }
            match found.entries.front() {
                Some(first) => return Ok(Some(first.waiter.time).filter(|time| *time <= until)),
                None => self.release(page),
            }
        }
    }

    /// Takes out all that wait for `time`, which [`Self::next_time`] gave, in order of their ranks.
    pub fn take(&mut self, time: i64, mut visit: impl FnMut(Waiter<K, V>)) {
        let page = page_of(time);
        let Some(&slot) = self.index.get(&page) else { return };
        let Self { pages, scope, resident, .. } = self;
        let entries = &mut pages[slot].entries;
        let mut is_recorded = false;
        while let Some(entry) = entries.pop_front_if(|entry| entry.waiter.time == time) {
            scope.account.refund(entry.charged as usize);
            *resident -= 1;
            is_recorded |= !entry.is_dirty;
            visit(entry.waiter);
        }
        if is_recorded {
            scope.record_drop(&time.to_bytes(), scope.range);
        }
        if entries.is_empty() {
            self.release(page);
        }
    }

    /// How many are in memory.
    pub fn resident(&self) -> usize {
        self.resident
    }

    /// The slot of a page, which becomes the current one.
    fn slot(&mut self, page: i64) -> usize {
        let slot = match self.index.get(&page) {
            Some(&slot) => slot,
            None => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.pages.push(Page::default());
                    self.scope.account.charge(size_of::<Page<K, V>>());
                    self.pages.len() - 1
                });
                if let Some(spare) = self.spare.pop() {
                    self.pages[slot].entries = spare;
                }
                self.index.insert(page, slot);
                slot
            }
        };
        self.current = Some((page, slot));
        slot
    }

    fn add(&mut self, slot: usize, waiter: Waiter<K, V>, is_dirty: bool) {
        let charged = heap_size(&waiter.key) + heap_size(&waiter.value);
        let is_first = (self.is_first)(&waiter.value);
        let entry = Entry { waiter, is_first, is_dirty, charged: charged as u32 };
        let Page { entries, is_sorted, .. } = &mut self.pages[slot];
        *is_sorted &= entries.back().is_none_or(|last| last.place() <= entry.place());
        let capacity = entries.capacity();
        self.resident += 1;
        entries.push_back(entry);
        let grown = (entries.capacity() - capacity) * size_of::<Entry<K, V>>();
        self.scope.account.charge(charged + grown);
    }

    /// Gives up a page that is empty, but for a little of its memory.
    fn release(&mut self, page: i64) {
        let Some(slot) = self.index.remove(&page) else { return };
        if self.spare.len() < SPARE.0 && self.pages[slot].entries.capacity() <= SPARE.1 {
            self.spare.push(std::mem::take(&mut self.pages[slot].entries));
        }
        self.empty(slot);
        self.pages[slot].is_cold = false;
        self.free.push(slot);
        self.current = None;
    }

    /// Forgets what a page has in memory, and gives the memory back.
    fn empty(&mut self, slot: usize) {
        let Self { pages, scope, resident, .. } = self;
        let page = &mut pages[slot];
        *resident -= page.entries.len();
        let entries = std::mem::take(&mut page.entries);
        let charged: usize = entries.iter().map(|entry| entry.charged as usize).sum();
        scope.account.refund(charged + entries.capacity() * size_of::<Entry<K, V>>());
        (page.is_sorted, page.is_dirty) = (true, false);
    }

    /// Moves a page's rows from the backend into memory. They come before what was added since.
    fn load(&mut self, page: i64, slot: usize) -> Result<()> {
        let (from, to) = self.cold_page(page);
        let mut rows = Vec::new();
        self.scope.lock().backend.scan(&from, &to, &mut |row, value| {
            let (time, key) = self.parse(&row[2..])?;
            rows.push((time, key, self.scope.decode::<WaitingRow<V>>(value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        self.scope.delete_cold_range(&from, &to)?;
        let since = std::mem::take(&mut self.pages[slot].entries);
        self.resident -= since.len();
        self.scope.account.refund(since.capacity() * size_of::<Entry<K, V>>());
        for (time, key, row) in rows {
            self.add_row(slot, time, &key, row);
        }
        for entry in since {
            self.scope.account.refund(entry.charged as usize);
            self.add(slot, entry.waiter, entry.is_dirty);
        }
        self.pages[slot].is_cold = false;
        Ok(())
    }

    /// Adds what a snapshot has.
    fn add_row(&mut self, slot: usize, time: i64, key: &K, row: WaitingRow<V>) {
        let hash = hash_key(key);
        for (mark, rank, value) in row {
            self.add(slot, Waiter { time, mark, rank, hash, key: key.clone(), value }, false);
        }
    }

    fn parse(&self, row: &[u8]) -> Result<(i64, K)> {
        let time = i64::from_bytes(row).filter(|_| row.len() >= TIME_WIDTH + 2);
        let time = time.ok_or_else(|| StateError::Mismatch {
            operator: self.scope.operator.clone(),
            reason: format!(
                "a row of state {} has {} bytes, too few for a time",
                self.scope.state,
                row.len()
            ),
        })?;
        Ok((time, self.scope.decode(&row[TIME_WIDTH + 2..])?))
    }

    /// Removes entries from memory.
    fn forget(&mut self, slot: usize, mut doomed: impl FnMut(&Waiter<K, V>) -> bool) {
        let Self { pages, scope, resident, .. } = self;
        pages[slot].entries.retain(|entry| {
            let is_doomed = doomed(&entry.waiter);
            if is_doomed {
                *resident -= 1;
                scope.account.refund(entry.charged as usize);
            }
            !is_doomed
        });
    }

    /// Gives up a page that has become empty in memory and in the backend.
    fn release_if_empty(&mut self, page: i64, slot: usize) {
        if self.pages[slot].entries.is_empty() && !self.pages[slot].is_cold {
            self.release(page);
        }
    }

    #[cold]
    fn make_room(&mut self) -> Result<()> {
        if self.resident < FEW {
            return Ok(());
        }
        self.spill(self.scope.evict_batch).map(|_| ())
    }

    /// Moves whole pages to the backend until `count` waiters are out, the one being filled last; how many it was.
    fn spill(&mut self, count: usize) -> Result<usize> {
        let current = self.current.map(|(page, _)| page);
        let mut victims: Vec<i64> =
            self.index.keys().rev().copied().filter(|page| Some(*page) != current).collect();
        victims.extend(current);
        let cold = self.scope.cold.clone();
        let mut cold = cold.lock();
        let mut spilled = 0;
        for page in victims {
            if spilled >= count {
                break;
            }
            let slot = self.index[&page];
            let entries = self.pages[slot].entries.len();
            if entries == 0 {
                continue;
            }
            self.spill_page(slot, &mut cold)?;
            spilled += entries;
        }
        Ok(spilled)
    }

    fn spill_page(&mut self, slot: usize, cold: &mut Cold) -> Result<()> {
        let mut batch = Batch::default();
        let Self { scope, pages, .. } = self;
        let page = &mut pages[slot];
        for_each_row(scope, page, cold, Part::Unflushed, |cold, row, value, is_dirty| {
            if is_dirty && !cold.rebase {
                cold.pending.push(scope.id, Op::Put { row, value });
            }
            batch.put(&scope.cold_key(row), value);
            Ok(())
        })?;
        cold.bound_pending();
        batch.sort();
        cold.backend.apply(&batch)?;
        self.empty(slot);
        self.pages[slot].is_cold = true;
        Ok(())
    }
}

/// Visits the rows of a page's waiters in memory, each behind what the backend has of it: all, or those with something new. They count as written
/// then. Says of each whether it had something new.
fn for_each_row<K: Key, V: StateValue>(
    scope: &Scope,
    page: &mut Page<K, V>,
    cold: &mut Cold,
    part: Part,
    mut visit: impl FnMut(&mut Cold, &[u8], &[u8], bool) -> Result<()>,
) -> Result<()> {
    let is_cold = page.is_cold;
    let entries = page.entries.make_contiguous();
    let mut places: Vec<usize> = (0..entries.len()).collect();
    let named = |place: &usize| (entries[*place].waiter.time, entries[*place].waiter.hash);
    places.sort_by_key(named);
    let (mut row, mut key, mut value) = (Vec::new(), Vec::new(), Vec::new());
    for run in places.chunk_by(|a, b| named(a) == named(b)) {
        let mut run = run.to_vec();
        while let Some(&one) = run.first() {
            // Those of another key with this hash have their turn after.
            let (same, others): (Vec<_>, Vec<_>) =
                run.iter().partition(|place| entries[**place].waiter.key == entries[one].waiter.key);
            run = others;
            let is_dirty = same.iter().any(|place| entries[*place].is_dirty);
            if part == Part::Changed && !is_dirty {
                continue;
            }
            let Waiter { time, hash, key: named, .. } = &entries[one].waiter;
            write_name(scope, *time, *hash, named, &mut row).map_err(|error| scope.codec_error(error))?;
            value.clear();
            if is_cold {
                key.clear();
                key.extend_from_slice(&scope.id.to_be_bytes());
                key.extend_from_slice(&row);
                cold.backend.get(&key, &mut value)?;
            }
            let waiters = same.iter().map(|place| &entries[*place].waiter);
            append(waiters, &mut value).map_err(|error| scope.codec_error(error))?;
            visit(cold, &row, &value, is_dirty)?;
        }
    }
    // What was left out had nothing new.
    entries.iter_mut().for_each(|entry| entry.is_dirty = false);
    page.is_dirty = false;
    Ok(())
}

fn write_name<K: Key>(
    scope: &Scope,
    time: i64,
    hash: u64,
    key: &K,
    row: &mut Vec<u8>,
) -> Result<(), CodecError> {
    row.clear();
    row.extend_from_slice(&time.to_bytes());
    row.extend_from_slice(&key_group(hash, scope.groups).0.to_be_bytes());
    codec::encode_into(key, row)
}

/// Appends to the encoding of a [`WaitingRow`], which is empty or one.
fn append<'a, K: Key, V: StateValue>(
    waiters: impl Iterator<Item = &'a Waiter<K, V>>,
    row: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let mut count: u64 = match row.is_empty() {
        true => 0,
        false => codec::decode_prefix(row)?.0,
    };
    if count == 0 {
        row.clear();
        codec::encode_into(&count, row)?;
    }
    for waiter in waiters {
        codec::encode_into(&waiter.mark, row)?;
        codec::encode_into(&waiter.rank, row)?;
        codec::encode_into(&waiter.value, row)?;
        count += 1;
    }
    row[..8].copy_from_slice(&count.to_le_bytes());
    Ok(())
}

impl<K, V> std::fmt::Debug for WaitingTable<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scope.describe("WaitingTable", f)
    }
}

impl<K: Key, V: StateValue> ErasedTable for WaitingTable<K, V> {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn encode(&mut self, part: Part, delta: &mut DeltaWriter) -> Result<()> {
        let cold = self.scope.cold.clone();
        let mut cold = cold.lock();
        let Self { scope, index, pages, .. } = self;
        for &slot in index.values() {
            let page = &mut pages[slot];
            if part == Part::Changed && !page.is_dirty {
                continue;
            }
            for_each_row(scope, page, &mut cold, part, |_, row, value, _| {
                let copy = |from: &[u8], to: &mut Vec<u8>| {
                    to.extend_from_slice(from);
                    Ok(())
                };
                let put = delta.put(scope.id, |out| copy(row, out), |out| copy(value, out));
                put.map_err(|error| scope.codec_error(error))
            })?;
        }
        Ok(())
    }

    /// What is in memory is never in the backend, so there is nothing to copy: it is moved.
    fn flush(&mut self, which: Flush) -> Result<()> {
        if which == Flush::All {
            self.spill(usize::MAX)?;
        }
        Ok(())
    }

    fn evict(&mut self, count: usize) -> Result<usize> {
        self.spill(count)
    }

    fn restore(&mut self, op: Op<'_>) -> Result<()> {
        match op {
            Op::Put { row, value } => {
                let (time, key) = self.parse(row)?;
                let value = self.scope.decode(value)?;
                self.restore_delete(row, time, &key)?;
                let slot = self.slot(page_of(time));
                self.add_row(slot, time, &key, value);
                self.restored.insert((time, hash_key(&key)));
                if self.scope.is_exceeded() { self.make_room() } else { Ok(()) }
            }
            Op::Delete { row } => {
                let (time, key) = self.parse(row)?;
                self.restore_delete(row, time, &key)?;
                if let Some(&slot) = self.index.get(&page_of(time)) {
                    self.release_if_empty(page_of(time), slot);
                }
                Ok(())
            }
            Op::Drop { prefix, groups } => {
                let time = i64::from_bytes(prefix);
                match (time, owned(groups, self.scope.range)) {
                    (Some(time), Some(groups)) => self.restore_drop(time, prefix, groups),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl<K: Key, V: StateValue> WaitingTable<K, V> {
    /// Removes a row, in memory and in the backend.
    fn restore_delete(&mut self, row: &[u8], time: i64, key: &K) -> Result<()> {
        let Some(&slot) = self.index.get(&page_of(time)) else { return Ok(()) };
        if self.restored.remove(&(time, hash_key(key))) {
            self.forget(slot, |waiter| waiter.time == time && waiter.key == *key);
        }
        if !self.pages[slot].is_cold {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.delete(&self.scope.cold_key(row));
        self.scope.lock().backend.apply(&batch)
    }

    /// Removes what some key groups have at a time, in memory and in the backend.
    fn restore_drop(&mut self, time: i64, prefix: &[u8], groups: KeyGroupRange) -> Result<()> {
        let page = page_of(time);
        let Some(&slot) = self.index.get(&page) else { return Ok(()) };
        let count = self.scope.groups;
        self.forget(slot, |waiter| waiter.time == time && groups.contains(key_group(waiter.hash, count)));
        if self.pages[slot].is_cold {
            let (from, to) = self.scope.cold_groups(prefix, groups);
            self.scope.delete_cold_range(&from, &to)?;
        }
        self.release_if_empty(page, slot);
        Ok(())
    }
}
