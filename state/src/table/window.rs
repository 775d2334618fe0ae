//! One value a window slice and key: a hash table for each slice, drained as a whole when the slice closes.
//!
//! Rows are ordered by slice first, so that a closed slice is one range of the backend: one scan, one range delete.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeBounds};

use super::hot::HotMap;
use super::{ErasedTable, Flush, Part, owned};
use crate::backend::successor;
use crate::codec::StateValue;
use crate::delta::{DeltaWriter, Op};
use crate::error::{Result, StateError};
use crate::key::{Key, KeyArg, KeyGroupRange, key_group};
use crate::scope::{Grouped, Scope};

/// What slices are named by: ordered, of fixed width, encoded so that bytes compare as values do.
pub trait Namespace: Ord + Copy + Send + 'static {
    /// The encoding.
    type Bytes: AsRef<[u8]> + Copy + Send;
    /// How many bytes the encoding takes.
    const WIDTH: usize;
    /// Encodes so that the order of bytes is the order of values.
    fn to_bytes(self) -> Self::Bytes;
    /// Decodes; `None` if the bytes are too few.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Namespace for i64 {
    type Bytes = [u8; 8];
    const WIDTH: usize = 8;
    #[inline]
    fn to_bytes(self) -> [u8; 8] {
        ((self as u64) ^ (1 << 63)).to_be_bytes()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some((u64::from_be_bytes(*bytes.first_chunk()?) ^ (1 << 63)) as i64)
    }
}

impl Namespace for (i64, i64) {
    type Bytes = [u8; 16];
    const WIDTH: usize = 16;
    #[inline]
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_bytes());
        bytes[8..].copy_from_slice(&self.1.to_bytes());
        bytes
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some((i64::from_bytes(bytes)?, i64::from_bytes(bytes.get(8..)?)?))
    }
}

/// A table of one `A` a slice `N` and key `K`.
///
/// Consecutive records of one slice cost one look-up each; a change of slice one more, in a small ordered map.
pub struct WindowTable<N: Namespace, K, A> {
    scope: Scope,
    index: BTreeMap<N, usize>,
    maps: Vec<HotMap<K, A>>,
    free: Vec<usize>,
    current: Option<(N, usize)>,
    /// The slice that was evicted from last.
    hand: Option<N>,
}

impl<N: Namespace, K: Key, A: StateValue> WindowTable<N, K, A> {
    pub(crate) fn open(scope: Scope) -> Result<Self> {
        let mut table = Self {
            scope,
            index: BTreeMap::new(),
            maps: Vec::new(),
            free: Vec::new(),
            current: None,
            hand: None,
        };
        table.find_cold_namespaces()?;
        Ok(table)
    }

    /// One seek for each namespace that the backend has.
    fn find_cold_namespaces(&mut self) -> Result<()> {
        let id = self.scope.id.to_be_bytes();
        let mut from = id.to_vec();
        let to = successor(&id).unwrap_or_else(|| vec![u8::MAX; 3]);
        loop {
            let mut found = None;
            self.scope.lock().backend.scan(&from, &to, &mut |key, _| {
                found = N::from_bytes(&key[2..]);
                Ok(ControlFlow::Break(()))
            })?;
            let Some(namespace) = found else { return Ok(()) };
            let slot = self.slot(namespace);
            self.maps[slot] = HotMap::over_cold_rows();
            let Some(next) = successor(&self.scope.cold_key(namespace.to_bytes().as_ref())) else {
                return Ok(());
            };
            from = next;
        }
    }

    /// The accumulator of `key` in slice `namespace`, made by `init` if there is none.
    ///
    /// # Errors
    /// When its row cannot be read or decoded, or entries cannot be spilled to make room.
    #[inline]
    pub fn upsert(
        &mut self,
        namespace: N,
        hash: u64,
        key: impl KeyArg<K>,
        init: impl FnOnce() -> A,
    ) -> Result<&mut A> {
        let slot = match self.current {
            Some((current, slot)) if current == namespace => slot,
            _ => self.slot(namespace),
        };
        if let Some(value) = self.maps[slot].update(&mut self.scope, hash, key.borrow()) {
            // SAFETY: the borrow that made `value` is the one returned here, and nothing else happens on this path. The
            // borrow checker extends it over the other path (rust-lang/rust#54663).
            return Ok(unsafe { &mut *std::ptr::from_mut(value) });
        }
        self.upsert_missing(namespace, hash, key.into_key(), init)
    }

    #[inline(never)]
    fn upsert_missing(
        &mut self,
        namespace: N,
        hash: u64,
        key: K,
        init: impl FnOnce() -> A,
    ) -> Result<&mut A> {
        if let Some((slot, index)) = self.load(namespace, hash, &key)? {
            return Ok(self.maps[slot].write(hash, index));
        }
        self.make_room(namespace)?;
        let slot = self.slot(namespace);
        Ok(self.maps[slot].insert(&mut self.scope, hash, key, init()))
    }

    /// The accumulator of `key` in slice `namespace`.
    ///
    /// # Errors
    /// When its row cannot be read or decoded.
    pub fn get(&mut self, namespace: N, hash: u64, key: &K) -> Result<Option<&A>> {
        let found = self.locate(namespace, hash, key)?;
        Ok(found.map(|(slot, index)| self.maps[slot].read(index)))
    }

    /// All slices with anything in them, in order.
    pub fn namespaces(&self) -> impl DoubleEndedIterator<Item = N> {
        self.index.keys().copied()
    }

    /// The slices in `range` with anything in them, in order; after a restore also some that have become empty. Costs what it gives, however many others there are.
    pub fn namespaces_in(&self, range: impl RangeBounds<N>) -> impl DoubleEndedIterator<Item = N> {
        self.index.range(range).map(|(namespace, _)| *namespace)
    }

    /// Visits every pair of a slice in no particular order, spilled ones included.
    ///
    /// # Errors
    /// When rows cannot be read or decoded.
    pub fn for_each(&self, namespace: N, visit: impl FnMut(&K, &A)) -> Result<()> {
        let Some(&slot) = self.index.get(&namespace) else { return Ok(()) };
        let bytes = namespace.to_bytes();
        let rows = Grouped { namespace: bytes.as_ref(), groups: self.scope.groups };
        self.maps[slot].for_each(&self.scope, &rows, visit)
    }

    /// Visits the pairs of a slice whose keys are of some key groups, spilled ones included. Looks at every pair in memory, and reads
    /// what is spilled of these groups.
    ///
    /// # Errors
    /// When rows cannot be read or decoded.
    pub fn for_each_in(&self, namespace: N, groups: KeyGroupRange, visit: impl FnMut(&K, &A)) -> Result<()> {
        let Some(&slot) = self.index.get(&namespace) else { return Ok(()) };
        let bytes = namespace.to_bytes();
        let rows = Grouped { namespace: bytes.as_ref(), groups: self.scope.groups };
        self.maps[slot].for_each_in(&self.scope, &rows, groups, visit)
    }

    /// How many pairs of a slice are in memory, and whether there may be spilled ones.
    pub fn held_in(&self, namespace: N) -> (usize, bool) {
        self.index.get(&namespace).map_or((0, false), |&slot| (self.maps[slot].len(), self.maps[slot].cold))
    }

    /// The key groups that the store holds.
    pub fn groups(&self) -> KeyGroupRange {
        self.scope.range
    }

    /// Takes up to `most` pairs out of a slice, spilled ones included. Answers whether none was left; then the slice is dropped. No
    /// snapshot may come between the first of these calls and the last.
    ///
    /// # Errors
    /// When rows cannot be read, decoded or deleted; some pairs may have been visited.
    pub fn drain_some(&mut self, namespace: N, most: usize, visit: impl FnMut(K, A)) -> Result<bool> {
        let Some(&slot) = self.index.get(&namespace) else { return Ok(true) };
        let bytes = namespace.to_bytes();
        let rows = Grouped { namespace: bytes.as_ref(), groups: self.scope.groups };
        let map = &mut self.maps[slot];
        // A snapshot may know rows that are cold now; afterwards nobody would.
        map.snapped |= map.cold;
        let empty = map.drain_some(&mut self.scope, &rows, most, visit)?;
        if empty {
            self.drop_namespace(namespace)?;
        }
        Ok(empty)
    }

    /// Takes everything out of a slice, spilled pairs included, and drops it. Costs what is in it.
    ///
    /// # Errors
    /// When rows cannot be read, decoded or deleted; some pairs may have been visited.
    pub fn drain(&mut self, namespace: N, visit: impl FnMut(K, A)) -> Result<()> {
        let Some(&slot) = self.index.get(&namespace) else { return Ok(()) };
        let bytes = namespace.to_bytes();
        let bytes = bytes.as_ref();
        let (cold, snapped) = (self.maps[slot].cold, self.maps[slot].snapped);
        let rows = Grouped { namespace: bytes, groups: self.scope.groups };
        self.maps[slot].drain(&mut self.scope, &rows, visit)?;
        if cold {
            self.scope.delete_cold(bytes)?;
        }
        if cold || snapped {
            self.scope.record_drop(bytes, self.scope.range);
        }
        self.release(namespace);
        Ok(())
    }

    /// Drops a slice without looking at what is in it.
    ///
    /// # Errors
    /// When rows cannot be deleted.
    pub fn drop_namespace(&mut self, namespace: N) -> Result<()> {
        let Some(&slot) = self.index.get(&namespace) else { return Ok(()) };
        let (cold, snapped) = (self.maps[slot].cold, self.maps[slot].snapped);
        if cold {
            self.scope.delete_cold(namespace.to_bytes().as_ref())?;
        }
        if cold || snapped {
            self.scope.record_drop(namespace.to_bytes().as_ref(), self.scope.range);
        }
        self.release(namespace);
        Ok(())
    }

    /// How many pairs are in memory.
    pub fn resident(&self) -> usize {
        self.index.values().map(|&slot| self.maps[slot].len()).sum()
    }

    fn locate(&mut self, namespace: N, hash: u64, key: &K) -> Result<Option<(usize, usize)>> {
        let slot = match self.current {
            Some((current, slot)) if current == namespace => slot,
            _ => match self.index.get(&namespace) {
                Some(&slot) => slot,
                None => return Ok(None),
            },
        };
        match self.maps[slot].find(hash, key) {
            Some(index) => Ok(Some((slot, index))),
            None => self.load(namespace, hash, key),
        }
    }

    fn load(&mut self, namespace: N, hash: u64, key: &K) -> Result<Option<(usize, usize)>> {
        let Some(&slot) = self.index.get(&namespace) else { return Ok(None) };
        if !self.maps[slot].cold {
            return Ok(None);
        }
        self.make_room(namespace)?;
        let bytes = namespace.to_bytes();
        let rows = Grouped { namespace: bytes.as_ref(), groups: self.scope.groups };
        Ok(self.maps[slot].load(&mut self.scope, &rows, hash, key)?.map(|index| (slot, index)))
    }

    /// The slot of a slice, which becomes the current one.
    fn slot(&mut self, namespace: N) -> usize {
        let slot = match self.index.get(&namespace) {
            Some(&slot) => slot,
            None => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.maps.push(HotMap::default());
                    self.maps.len() - 1
                });
                self.scope.account.charge(size_of::<HotMap<K, A>>());
                self.index.insert(namespace, slot);
                slot
            }
        };
        self.current = Some((namespace, slot));
        slot
    }

    fn release(&mut self, namespace: N) {
        let Some(slot) = self.index.remove(&namespace) else { return };
        self.maps[slot].release(&mut self.scope);
        self.scope.account.refund(size_of::<HotMap<K, A>>());
        self.free.push(slot);
        self.current = None;
    }

    /// Evicts before a pair is added to `current`, from other slices first.
    fn make_room(&mut self, current: N) -> Result<()> {
        let slot = self.slot(current);
        let crowded = self.maps[slot].needs_room(&self.scope);
        let others = self.index.len() > 1 && self.scope.is_exceeded();
        if !crowded && !others {
            return Ok(());
        }
        let evicted = self.evict_sparing(Some(current), self.scope.evict_batch)?;
        if crowded && (evicted == 0 || self.maps[slot].needs_room(&self.scope)) {
            let bytes = current.to_bytes();
            let rows = Grouped { namespace: bytes.as_ref(), groups: self.scope.groups };
            self.maps[slot].make_room(&mut self.scope, &rows)?;
        }
        Ok(())
    }

    /// Evicts up to `count` pairs from slice after slice, going on where it stopped last time.
    fn evict_sparing(&mut self, spared: Option<N>, count: usize) -> Result<usize> {
        let mut taken = 0;
        let mut visited = 0;
        while taken < count && visited < self.index.len() {
            let after = self.hand.map_or(Bound::Unbounded, Bound::Excluded);
            let next =
                self.index.range((after, Bound::Unbounded)).next().or_else(|| self.index.iter().next());
            let Some((&namespace, &slot)) = next else { break };
            visited += 1;
            self.hand = Some(namespace);
            if Some(namespace) != spared && self.maps[slot].len() > 0 {
                let bytes = namespace.to_bytes();
                let rows = Grouped { namespace: bytes.as_ref(), groups: self.scope.groups };
                taken += self.maps[slot].evict(&mut self.scope, &rows, count - taken)?;
                if self.maps[slot].len() > 0 {
                    break;
                }
            }
        }
        Ok(taken)
    }

    fn namespace_of(&self, row: &[u8]) -> Result<N> {
        N::from_bytes(row).ok_or_else(|| StateError::Mismatch {
            operator: self.scope.operator.clone(),
            reason: format!(
                "a row of state {} has {} bytes, too few for a namespace",
                self.scope.state,
                row.len()
            ),
        })
    }
}

impl<N: Namespace, K, A> std::fmt::Debug for WindowTable<N, K, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.scope.describe("WindowTable", f)
    }
}

impl<N: Namespace, K: Key, A: StateValue> ErasedTable for WindowTable<N, K, A> {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Most records are of the slice of the record before.
    fn warm(&self, hashes: &[u64]) {
        if let Some((_, slot)) = self.current {
            self.maps[slot].warm(hashes);
        }
    }

    fn encode(&mut self, part: Part, delta: &mut DeltaWriter) -> Result<()> {
        for (&namespace, &slot) in &self.index {
            let bytes = namespace.to_bytes();
            let rows = Grouped { namespace: bytes.as_ref(), groups: self.scope.groups };
            self.maps[slot].encode(&mut self.scope, &rows, part, delta)?;
        }
        Ok(())
    }

    fn flush(&mut self, which: Flush) -> Result<()> {
        for (&namespace, &slot) in &self.index {
            let bytes = namespace.to_bytes();
            let rows = Grouped { namespace: bytes.as_ref(), groups: self.scope.groups };
            self.maps[slot].flush(&mut self.scope, &rows, which)?;
        }
        Ok(())
    }

    fn evict(&mut self, count: usize) -> Result<usize> {
        self.evict_sparing(None, count)
    }

    fn restore(&mut self, op: Op<'_>) -> Result<()> {
        match op {
            Op::Put { row, value } => {
                let namespace = self.namespace_of(row)?;
                let (key, value) = (self.scope.decode(&row[N::WIDTH + 2..])?, self.scope.decode(value)?);
                let slot = self.slot(namespace);
                self.maps[slot].restore_put(&mut self.scope, key, value);
                self.make_room(namespace)
            }
            Op::Delete { row } => {
                let namespace = self.namespace_of(row)?;
                let key = self.scope.decode(&row[N::WIDTH + 2..])?;
                let Some(&slot) = self.index.get(&namespace) else { return Ok(()) };
                self.maps[slot].restore_delete(&mut self.scope, key);
                if self.maps[slot].is_vacant() {
                    self.release(namespace);
                }
                Ok(())
            }
            Op::Drop { prefix, groups } => {
                let namespace = self.namespace_of(prefix)?;
                let Some(groups) = owned(groups, self.scope.range) else { return Ok(()) };
                let Some(&slot) = self.index.get(&namespace) else { return Ok(()) };
                let count = self.scope.groups;
                self.maps[slot]
                    .forget_groups(&mut self.scope, |hash| groups.contains(key_group(hash, count)));
                if self.maps[slot].cold {
                    let (from, to) = self.scope.cold_groups(prefix, groups);
                    self.scope.delete_cold_range(&from, &to)?;
                    if groups == self.scope.range {
                        self.maps[slot].cold = false;
                    }
                }
                if self.maps[slot].is_vacant() {
                    self.release(namespace);
                }
                Ok(())
            }
        }
    }
}
