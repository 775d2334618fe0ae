//! Event-time timers: a set of (time, key), popped in order of time, then of key bytes.
//!
//! 1. `set` holds the timers, for deduplication and deletion. Order is kept beside it in 16-byte pairs (time, hash): times of the
//!    *open* bucket and before in a heap, later ones unsorted in buckets of 1,024 time units. Registering is an append; a bucket
//!    is heaped when its time comes. (A calendar queue, R. Brown 1988, with a heap for the day at hand.)
//! 2. A deleted timer leaves its pair behind, which is skipped when it comes up: its (time, hash) finds nothing in `set`.
//! 3. Timers of one time are taken out together and sorted by key bytes, so the order depends neither on the history nor on the
//!    number of workers.
//! 4. Fired timers are recorded in the next delta as one operation, "all up to time t"; what is registered late follows it.
//! 5. What the next delta has to hold is noted in a list, or, when that grows long for the number of timers, found by looking through `set`: most
//!    timers of a busy flow fire before any snapshot comes, and a list would remember all of them.
//! 6. Over budget, whole buckets are spilled from the far end. `cold_min` is the earliest time in the backend; when time gets
//!    there, that bucket's rows are moved back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::{ControlFlow, Range};

use hashbrown::HashTable;

use super::undo::Changes;
use super::window::Namespace;
use super::{ErasedTable, Flush, Part, owned};
use crate::backend::{Batch, successor};
use crate::codec;
use crate::delta::{DeltaWriter, Op};
use crate::error::{Result, StateError};
use crate::hash::hash_key;
use crate::key::{Key, KeyArg, KeyGroupRange, key_group};
use crate::scope::{Cold, Scope, heap_size};

/// Bytes of a row before its key group: the time.
pub(crate) const TIME_WIDTH: usize = 8;
const BUCKET_SHIFT: u32 = 10;
/// What a timer takes outside of `set`: 16 bytes in the order beside it, a quarter of that among the dirty ones, and room to grow.
const PAIRS: usize = 32;
/// The key bytes of timers that fire together keep so much memory at most.
const FIRING_BYTES: usize = 1 << 20;

struct Timer<K> {
    time: i64,
    key: K,
    /// Not in any snapshot yet.
    dirty: bool,
    charged: u32,
}

/// The event-time timers of one task.
///
/// Registering and popping cost about one hash look-up and one heap operation each.
pub struct Timers<K> {
    scope: Scope,
    set: HashTable<Timer<K>>,
    /// Pairs of all buckets up to and including this one are in `open`.
    open_bucket: i64,
    open: BinaryHeap<Reverse<(i64, u64)>>,
    later: BTreeMap<i64, Vec<(i64, u64)>>,
    /// What was taken out of one time and not handed out yet, by key bytes.
    firing: VecDeque<Firing<K>>,
    /// The key bytes of `firing`, where there are several to put in order.
    firing_bytes: Vec<u8>,
    firing_time: i64,
    /// Timers up to this time have fired since the last delta, some of which snapshots have.
    fired: Option<i64>,
    cold_min: Option<i64>,
    dirty: Vec<(i64, u64)>,
    /// The list was given up: timers that are dirty are to be looked for.
    sweep: bool,
    changes: Changes<(i64, u64, K, bool)>,
}

struct Firing<K> {
    /// In `firing_bytes`; empty while nothing needed them.
    bytes: Range<usize>,
    /// `None` was deleted meanwhile.
    fired: Option<Fired<K>>,
}

struct Fired<K> {
    hash: u64,
    key: K,
    charged: u32,
}

/// The hash of (time, key), from the key's.
#[inline]
fn timer_hash(time: i64, hash: u64) -> u64 {
    let mixed =
        u128::from(hash ^ (time as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) * 0xa076_1d64_78bd_642f_u128;
    (mixed as u64) ^ ((mixed >> 64) as u64)
}

fn rehash<K: Key>(timer: &Timer<K>) -> u64 {
    timer_hash(timer.time, hash_key(&timer.key))
}

/// Where the key's bytes are, which are appended to the others.
fn encode_at_end<K: Key>(scope: &Scope, bytes: &mut Vec<u8>, key: &K) -> Result<Range<usize>> {
    let start = bytes.len();
    scope.encode(key, bytes)?;
    Ok(start..bytes.len())
}

const fn bucket_of(time: i64) -> i64 {
    time >> BUCKET_SHIFT
}

impl<K: Key> Timers<K> {
    pub(crate) fn open(scope: Scope) -> Result<Self> {
        let mut timers = Self {
            scope,
            set: HashTable::new(),
            open_bucket: i64::MIN,
            open: BinaryHeap::new(),
            later: BTreeMap::new(),
            firing: VecDeque::new(),
            firing_bytes: Vec::new(),
            firing_time: i64::MIN,
            fired: None,
            cold_min: None,
            dirty: Vec::new(),
            sweep: false,
            changes: Changes::default(),
        };
        timers.cold_min = timers.first_cold()?;
        Ok(timers)
    }

    /// Registers a timer; false if there was one of this time and key.
    ///
    /// # Errors
    /// When timers cannot be spilled to make room.
    #[inline]
    pub fn register(&mut self, time: i64, hash: u64, key: impl KeyArg<K>) -> Result<bool> {
        if self.changes.are_kept() {
            self.note(time, hash, key.borrow())?;
        }
        let slot = timer_hash(time, hash);
        if self.set.find(slot, |timer| timer.time == time && timer.key == *key.borrow()).is_some() {
            return Ok(false);
        }
        if time <= self.firing_time && !self.firing.is_empty() {
            if time == self.firing_time {
                return self.register_firing(hash, key.into_key());
            }
            self.refire();
        }
        if self.scope.is_exceeded() {
            self.make_room()?;
        }
        self.add(time, slot, key.into_key(), true);
        Ok(true)
    }

    /// Removes a timer. Says whether one in memory was removed; one that was spilled is removed as well.
    ///
    /// # Errors
    /// When a spilled timer's row cannot be deleted.
    pub fn delete(&mut self, time: i64, hash: u64, key: &K) -> Result<bool> {
        if self.changes.are_kept() {
            self.note(time, hash, key)?;
        }
        let slot = timer_hash(time, hash);
        let mut recorded = false;
        let mut existed = false;
        if let Ok(found) = self.set.find_entry(slot, |timer| timer.time == time && timer.key == *key) {
            let (timer, _) = found.remove();
            self.scope.account.refund(timer.charged as usize);
            (existed, recorded) = (true, !timer.dirty);
        } else if self.firing_time == time && self.unfire(key)? {
            return Ok(true);
        }
        let cold = self.cold_min.is_some_and(|min| min <= time);
        if recorded || cold {
            let row = self.row(time, hash, key)?;
            self.scope.record_delete(&row);
            if cold {
                let mut batch = Batch::default();
                batch.delete(&self.scope.cold_key(&row));
                self.scope.lock().backend.apply(&batch)?;
                self.deleted_cold(time)?;
            }
        }
        Ok(existed)
    }

    /// The time of the earliest timer.
    pub fn next_time(&mut self) -> Option<i64> {
        if self.firing.iter().any(|firing| firing.fired.is_some()) {
            return Some(self.firing_time);
        }
        match (self.first_hot(), self.cold_min) {
            (Some(hot), Some(cold)) => Some(hot.min(cold)),
            (hot, cold) => hot.or(cold),
        }
    }

    /// Takes the earliest timer with time <= `watermark`: its time, its key's hash and its key.
    ///
    /// Timers that are registered between two calls take part in the order.
    ///
    /// # Errors
    /// When spilled timers cannot be read.
    pub fn pop(&mut self, watermark: i64) -> Result<Option<(i64, u64, K)>> {
        if self.firing_time > watermark {
            self.refire();
        }
        loop {
            while let Some(firing) = self.firing.pop_front() {
                if let Some(fired) = firing.fired {
                    self.scope.account.refund(fired.charged as usize);
                    return Ok(Some((self.firing_time, fired.hash, fired.key)));
                }
            }
            let Some(time) = self.next_time().filter(|&time| time <= watermark) else { return Ok(None) };
            if self.cold_min.is_some_and(|cold| cold <= time) {
                self.load_bucket(bucket_of(time))?;
                continue;
            }
            self.take_time(time)?;
        }
    }

    /// How many timers are in memory.
    pub fn resident(&self) -> usize {
        self.set.len() + self.firing.len()
    }

    /// Visits all timers in no particular order, spilled ones included (some of those twice, if registered again).
    ///
    /// # Errors
    /// When rows cannot be read or decoded.
    pub fn for_each(&self, mut visit: impl FnMut(i64, &K)) -> Result<()> {
        self.scope.scan_rows(&[], |row, _| {
            let (time, key) = self.parse(row)?;
            visit(time, &key);
            Ok(ControlFlow::Continue(()))
        })?;
        self.set.iter().for_each(|timer| visit(timer.time, &timer.key));
        let fired = self.firing.iter().filter_map(|firing| firing.fired.as_ref());
        fired.for_each(|fired| visit(self.firing_time, &fired.key));
        Ok(())
    }

    /// Notes whether there is such a timer, before it is registered or deleted.
    #[cold]
    fn note(&mut self, time: i64, hash: u64, key: &K) -> Result<()> {
        let is_set = self.set.find(timer_hash(time, hash), |timer| timer.time == time && timer.key == *key);
        let fires = |firing: &Firing<K>| firing.fired.as_ref().is_some_and(|fired| fired.key == *key);
        let exists = is_set.is_some()
            || (self.firing_time == time && self.firing.iter().any(fires))
            || (self.cold_min.is_some_and(|min| min <= time) && self.is_cold(time, hash, key)?);
        self.changes.note((time, hash, key.clone(), exists));
        Ok(())
    }

    fn is_cold(&self, time: i64, hash: u64, key: &K) -> Result<bool> {
        let row = self.scope.cold_key(&self.row(time, hash, key)?);
        let mut cold = self.scope.lock();
        let cold = &mut *cold;
        cold.backend.get(&row, &mut cold.value)
    }

    fn row(&self, time: i64, hash: u64, key: &K) -> Result<Vec<u8>> {
        let mut row = time.to_bytes().to_vec();
        row.extend_from_slice(&key_group(hash, self.scope.groups).0.to_be_bytes());
        self.scope.encode(key, &mut row)?;
        Ok(row)
    }

    fn parse(&self, row: &[u8]) -> Result<(i64, K)> {
        let time = i64::from_bytes(row).filter(|_| row.len() >= TIME_WIDTH + 2);
        let time = time.ok_or_else(|| StateError::Mismatch {
            operator: self.scope.operator.clone(),
            reason: format!("a row of timers {} has only {} bytes", self.scope.state, row.len()),
        })?;
        Ok((time, self.scope.decode(&row[TIME_WIDTH + 2..])?))
    }

    /// What a timer of this key takes, in bytes: its place in `set`, in the order beside it, and its share of the list of dirty ones. What
    /// it takes while it fires is not more.
    fn charge_of(key: &K) -> u32 {
        (heap_size(key) + 2 * size_of::<Timer<K>>() + PAIRS) as u32
    }

    /// Adds a timer that is known not to be in `set`.
    fn add(&mut self, time: i64, slot: u64, key: K, dirty: bool) {
        let charged = Self::charge_of(&key);
        self.scope.account.charge(charged as usize);
        if dirty && !self.sweep {
            self.dirty.push((time, slot));
            if self.dirty.len() > self.set.len() / 4 + 64 {
                (self.sweep, self.dirty) = (true, Vec::new());
            }
        }
        self.set.insert_unique(slot, Timer { time, key, dirty, charged }, rehash);
        let bucket = bucket_of(time);
        if bucket <= self.open_bucket {
            self.open.push(Reverse((time, slot)));
        } else {
            self.later.entry(bucket).or_default().push((time, slot));
        }
    }

    /// The earliest time in memory; opens buckets until there is one.
    fn first_hot(&mut self) -> Option<i64> {
        loop {
            while let Some(&Reverse((time, slot))) = self.open.peek() {
                if self.set.find(slot, |timer| timer.time == time).is_some() {
                    return Some(time);
                }
                self.open.pop();
            }
            let (bucket, pairs) = self.later.pop_first()?;
            self.open_bucket = bucket;
            self.open = pairs.into_iter().map(Reverse).collect();
        }
    }

    /// Moves all timers of `time`, the earliest, from `set` to `firing`, which is empty.
    fn take_time(&mut self, time: i64) -> Result<()> {
        self.firing_bytes.clear();
        self.firing_bytes.shrink_to(FIRING_BYTES);
        let mut recorded = false;
        while let Some(&Reverse((_, slot))) = self.open.peek().filter(|pair| pair.0.0 == time) {
            self.open.pop();
            let Ok(found) = self.set.find_entry(slot, |timer| timer.time == time) else { continue };
            let (Timer { key, dirty, charged, .. }, _) = found.remove();
            recorded |= !dirty;
            let fired = Fired { hash: hash_key(&key), key, charged };
            self.firing.push_back(Firing { bytes: 0..0, fired: Some(fired) });
        }
        if self.firing.len() > 1 {
            self.encode_firing()?;
            let Self { firing, firing_bytes, .. } = self;
            let bytes = |firing: &Firing<K>| &firing_bytes[firing.bytes.clone()];
            firing.make_contiguous().sort_unstable_by(|a, b| bytes(a).cmp(bytes(b)));
        }
        if recorded {
            self.fired = Some(self.fired.map_or(time, |fired| fired.max(time)));
        }
        self.firing_time = time;
        Ok(())
    }

    /// Encodes the keys that fire and are not encoded yet.
    fn encode_firing(&mut self) -> Result<()> {
        let Self { firing, firing_bytes, scope, .. } = self;
        for Firing { bytes, fired } in firing.iter_mut().filter(|firing| firing.bytes.is_empty()) {
            let Some(fired) = fired else { continue };
            *bytes = encode_at_end(scope, firing_bytes, &fired.key)?;
        }
        Ok(())
    }

    /// Where the timer of these key bytes is in `firing`, or belongs.
    fn position(&self, bytes: &Range<usize>) -> std::result::Result<usize, usize> {
        let bytes = &self.firing_bytes[bytes.clone()];
        self.firing.binary_search_by(|firing| self.firing_bytes[firing.bytes.clone()].cmp(bytes))
    }

    /// Adds a timer of the time at hand where it belongs; false if it is there.
    fn register_firing(&mut self, hash: u64, key: K) -> Result<bool> {
        self.encode_firing()?;
        let bytes = encode_at_end(&self.scope, &mut self.firing_bytes, &key)?;
        let position = self.position(&bytes);
        if let Ok(index) = position
            && self.firing[index].fired.is_some()
        {
            self.firing_bytes.truncate(bytes.start);
            return Ok(false);
        }
        let charged = Self::charge_of(&key);
        self.scope.account.charge(charged as usize);
        let fired = Some(Fired { hash, key, charged });
        match position {
            Ok(index) => {
                self.firing_bytes.truncate(bytes.start);
                self.firing[index].fired = fired;
            }
            Err(index) => self.firing.insert(index, Firing { bytes, fired }),
        }
        Ok(true)
    }

    /// Removes a timer of the time at hand that has not been handed out.
    fn unfire(&mut self, key: &K) -> Result<bool> {
        let index = if self.firing.len() < 2 {
            0
        } else {
            let bytes = encode_at_end(&self.scope, &mut self.firing_bytes, key)?;
            let position = self.position(&bytes);
            self.firing_bytes.truncate(bytes.start);
            let Ok(index) = position else { return Ok(false) };
            index
        };
        let Some(Firing { fired, .. }) = self.firing.get_mut(index) else { return Ok(false) };
        let Some(fired) = fired.take_if(|fired| fired.key == *key) else { return Ok(false) };
        self.scope.account.refund(fired.charged as usize);
        Ok(true)
    }

    /// Puts back what was taken out and not handed out: a snapshot must hold it.
    fn refire(&mut self) {
        let time = self.firing_time;
        for fired in std::mem::take(&mut self.firing).into_iter().filter_map(|firing| firing.fired) {
            self.scope.account.refund(fired.charged as usize);
            let slot = timer_hash(time, fired.hash);
            if self.set.find(slot, |timer| timer.time == time && timer.key == fired.key).is_none() {
                self.add(time, slot, fired.key, true);
            }
        }
    }

    /// Writes "all up to `fired` are gone", before anything registered since.
    fn encode_fired(scope: &Scope, fired: &mut Option<i64>, delta: &mut DeltaWriter) {
        if let Some(time) = fired.take() {
            delta.drop_prefix(scope.id, &time.to_bytes(), scope.range);
        }
    }

    fn first_cold(&self) -> Result<Option<i64>> {
        let mut first = None;
        self.scope.scan_rows(&[], |row, _| {
            first = i64::from_bytes(row);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first)
    }

    /// Looks for the earliest cold timer anew, if it is one of its time that is gone.
    fn deleted_cold(&mut self, time: i64) -> Result<()> {
        if self.cold_min == Some(time) {
            self.cold_min = self.first_cold()?;
        }
        Ok(())
    }

    /// Moves the rows of a bucket from the backend into memory.
    fn load_bucket(&mut self, bucket: i64) -> Result<()> {
        let from = self.scope.cold_key(&(bucket << BUCKET_SHIFT).to_bytes());
        let to = match bucket.checked_add(1).filter(|_| bucket < bucket_of(i64::MAX)) {
            Some(next) => self.scope.cold_key(&(next << BUCKET_SHIFT).to_bytes()),
            None => successor(&self.scope.id.to_be_bytes()).unwrap_or_else(|| vec![u8::MAX; 3]),
        };
        let mut loaded = Vec::new();
        self.scope.lock().backend.scan(&from, &to, &mut |key, _| {
            loaded.push(self.parse(&key[2..])?);
            Ok(ControlFlow::Continue(()))
        })?;
        self.scope.delete_cold_range(&from, &to)?;
        for (time, key) in loaded {
            let slot = timer_hash(time, hash_key(&key));
            match self.set.find_mut(slot, |timer| timer.time == time && timer.key == key) {
                // Registered again meanwhile: snapshots have it, so its firing must be recorded.
                Some(timer) => timer.dirty = false,
                None => self.add(time, slot, key, false),
            }
        }
        self.cold_min = self.first_cold()?;
        Ok(())
    }

    #[cold]
    fn make_room(&mut self) -> Result<()> {
        if self.set.len() < 256 {
            return Ok(());
        }
        self.spill(self.scope.evict_batch).map(|_| ())
    }

    /// Spills whole buckets from the far end until `count` timers are out; how many it was.
    fn spill(&mut self, count: usize) -> Result<usize> {
        let mut spilled = 0;
        let cold = self.scope.cold.clone();
        let mut cold = cold.lock();
        let mut batch = Batch::default();
        while spilled < count {
            let Some((_, pairs)) = self.later.pop_last() else { break };
            Self::encode_pending_fired(&self.scope, &mut self.fired, &mut cold);
            for (time, slot) in pairs {
                while let Ok(found) = self.set.find_entry(slot, |timer| timer.time == time) {
                    let (timer, _) = found.remove();
                    self.scope.account.refund(timer.charged as usize);
                    let row = self.row(time, hash_key(&timer.key), &timer.key)?;
                    if timer.dirty && !cold.rebase {
                        cold.pending.push(self.scope.id, Op::Put { row: &row, value: &[] });
                    }
                    let key = self.scope.cold_key(&row);
                    batch.put(&key, &[]);
                    self.cold_min = Some(self.cold_min.map_or(time, |min| min.min(time)));
                    spilled += 1;
                }
            }
        }
        cold.bound_pending();
        batch.sort();
        cold.backend.apply(&batch)?;
        Ok(spilled)
    }

    fn encode_pending_fired(scope: &Scope, fired: &mut Option<i64>, cold: &mut Cold) {
        if cold.rebase {
            *fired = None;
        } else {
            Self::encode_fired(scope, fired, &mut cold.pending);
        }
    }

    /// Removes timers up to `time` of some key groups, in memory and in the backend.
    fn restore_fired(&mut self, time: i64, groups: KeyGroupRange) -> Result<()> {
        let count = self.scope.groups;
        let account = &mut self.scope.account;
        self.set.retain(|timer| {
            let keep = timer.time > time || !groups.contains(key_group(hash_key(&timer.key), count));
            if !keep {
                account.refund(timer.charged as usize);
            }
            keep
        });
        if self.cold_min.is_none_or(|min| min > time) {
            return Ok(());
        }
        let mut batch = Batch::default();
        self.scope.scan_rows(&[], |row, _| {
            let (at, key) = self.parse(row)?;
            if at > time {
                return Ok(ControlFlow::Break(()));
            }
            if groups.contains(key_group(hash_key(&key), count)) {
                batch.delete(&self.scope.cold_key(row));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.scope.lock().backend.apply(&batch)?;
        self.cold_min = self.first_cold()?;
        Ok(())
    }
}

impl<K> std::fmt::Debug for Timers<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scope.describe("Timers", f)
    }
}

impl<K: Key> ErasedTable for Timers<K> {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn encode(&mut self, part: Part, delta: &mut DeltaWriter) -> Result<()> {
        self.refire();
        let Self { set, scope, dirty, fired, sweep, .. } = self;
        let encode = |timer: &mut Timer<K>, delta: &mut DeltaWriter| {
            timer.dirty = false;
            let group = key_group(hash_key(&timer.key), scope.groups);
            let row = |out: &mut Vec<u8>| {
                out.extend_from_slice(&timer.time.to_bytes());
                out.extend_from_slice(&group.0.to_be_bytes());
                codec::encode_into(&timer.key, out)
            };
            delta.put(scope.id, row, |_| Ok(())).map_err(|error| scope.codec_error(error))
        };
        match part {
            Part::Changed => {
                Self::encode_fired(scope, fired, delta);
                if *sweep {
                    set.iter_mut().filter(|timer| timer.dirty).try_for_each(|timer| encode(timer, delta))?;
                }
                for &(time, slot) in dirty.iter() {
                    for timer in set.iter_hash_mut(slot).filter(|timer| timer.time == time && timer.dirty) {
                        encode(timer, delta)?;
                    }
                }
            }
            Part::Unflushed => {
                *fired = None;
                for timer in set.iter_mut() {
                    encode(timer, delta)?;
                }
            }
        }
        dirty.clear();
        dirty.shrink_to(1 << 16);
        *sweep = false;
        Ok(())
    }

    /// Timers in memory are never in the backend, so there is nothing to copy: they are moved.
    fn flush(&mut self, which: Flush) -> Result<()> {
        if which == Flush::All {
            self.spill(usize::MAX)?;
        }
        Ok(())
    }

    fn evict(&mut self, count: usize) -> Result<usize> {
        self.spill(count)
    }

    fn keep_changes(&mut self) {
        self.changes.keep();
    }

    fn mark(&mut self) {
        self.changes.mark();
    }

    fn undo(&mut self) -> Result<()> {
        for (time, hash, key, existed) in self.changes.take() {
            match existed {
                true => self.register(time, hash, &key)?,
                false => self.delete(time, hash, &key)?,
            };
        }
        self.changes.keep();
        Ok(())
    }

    fn restore(&mut self, op: Op<'_>) -> Result<()> {
        match op {
            Op::Put { row, .. } => {
                let (time, key) = self.parse(row)?;
                let slot = timer_hash(time, hash_key(&key));
                if self.set.find(slot, |timer| timer.time == time && timer.key == key).is_none() {
                    self.add(time, slot, key, false);
                }
                if self.scope.is_exceeded() { self.make_room() } else { Ok(()) }
            }
            Op::Delete { row } => {
                let (time, key) = self.parse(row)?;
                let slot = timer_hash(time, hash_key(&key));
                if let Ok(found) = self.set.find_entry(slot, |timer| timer.time == time && timer.key == key) {
                    self.scope.account.refund(found.remove().0.charged as usize);
                }
                if self.cold_min.is_some_and(|min| min <= time) {
                    let mut batch = Batch::default();
                    batch.delete(&self.scope.cold_key(row));
                    self.scope.lock().backend.apply(&batch)?;
                    self.deleted_cold(time)?;
                }
                Ok(())
            }
            Op::Drop { prefix, groups } => {
                let time = i64::from_bytes(prefix);
                match (time, owned(groups, self.scope.range)) {
                    (Some(time), Some(groups)) => self.restore_fired(time, groups),
                    _ => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
