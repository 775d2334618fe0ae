//! The cold tier: an ordered map of bytes that can be checkpointed.
//!
//! The store above writes to it only when memory runs out or a chain of deltas grows long, always in sorted batches.

pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocks;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::expire::Expiry;
use crate::snapshot::{RestoreFile, SnapshotSource};

/// Puts, deletes and range deletes that are applied together.
///
/// Range deletes take effect before the puts and deletes, which must be of distinct keys.
#[derive(Debug, Default)]
pub struct Batch {
    arena: Vec<u8>,
    ops: Vec<(Range<usize>, Option<Range<usize>>)>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Batch {
    /// Adds a put.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let key = self.push(key);
        let value = self.push(value);
        self.ops.push((key, Some(value)));
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8]) {
        let key = self.push(key);
        self.ops.push((key, None));
    }

    /// Adds a delete of all keys in `from..to`.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        self.ranges.push((from.to_vec(), to.to_vec()));
    }

    fn push(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        start..self.arena.len()
    }

    /// Puts and deletes, not counting ranges.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.ranges.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.ops.clear();
        self.ranges.clear();
    }

    /// Orders the puts and deletes by key.
    pub fn sort(&mut self) {
        let arena = &self.arena;
        self.ops.sort_unstable_by(|a, b| arena[a.0.clone()].cmp(&arena[b.0.clone()]));
    }

    /// The range deletes.
    pub fn ranges(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.ranges.iter().map(|(from, to)| (from.as_slice(), to.as_slice()))
    }

    /// The puts (with a value) and deletes (without), in the order added or sorted.
    pub fn ops(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.ops.iter().map(|(key, value)| {
            (&self.arena[key.clone()], value.as_ref().map(|value| &self.arena[value.clone()]))
        })
    }
}

/// What a scan calls with every row's key and value, until it says to stop.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>;

/// A file of a backend's checkpoint.
#[derive(Debug, Clone)]
pub struct BaseFile {
    /// Its name, the same in a later checkpoint only if its content is.
    pub name: String,
    /// Where to read it.
    pub source: SnapshotSource,
    /// Whether an earlier checkpoint of this backend held it.
    pub reused: bool,
}

/// An ordered map of bytes. One store owns it; it is `Send`, not shared.
pub trait Backend: Send {
    /// Reads `key` into `value` (cleared first); false when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool>;

    /// Applies a batch that [`Batch::sort`] has ordered.
    ///
    /// # Errors
    /// When it cannot be written; what was applied is unknown and the store must be restored.
    fn apply(&mut self, batch: &Batch) -> Result<()>;

    /// Visits the rows of `from..to` in order until told to stop.
    ///
    /// # Errors
    /// When they cannot be read, or those of `visit`.
    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()>;

    /// The current content as immutable files; `epoch` makes their names unique. No files when nothing is in it.
    ///
    /// # Errors
    /// When they cannot be written.
    fn checkpoint(&mut self, epoch: u64) -> Result<Vec<BaseFile>>;

    /// Whether a checkpoint costs what changed, so that it pays to move state here for the sake of smaller deltas.
    fn checkpoint_is_incremental(&self) -> bool;

    /// Which rows it may remove without being told, when that suits it. `None`: it removes none.
    fn expiry(&self) -> Option<Arc<Expiry>> {
        None
    }

    /// About how many bytes it holds, on disk or in memory.
    fn bytes(&self) -> u64;
}

/// An ordered map of bytes that does not change any more: the content of a checkpoint, read by any number of threads at once.
pub trait Frozen: Send + Sync {
    /// Reads `key` into `value` (cleared first); false when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool>;

    /// Visits the rows of `from..to` in order until told to stop.
    ///
    /// # Errors
    /// When they cannot be read, or those of `visit`.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()>;
}

/// Any backend is frozen when nobody writes to it. Its readers take turns.
impl Frozen for Mutex<Box<dyn Backend>> {
    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        self.lock().get(key, value)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.lock().scan(from, to, visit)
    }
}

/// Makes backends: one for each store of an engine.
pub trait Backends: Send + Sync {
    /// The content of a checkpoint, for reading alone. The files stay as they are.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    fn open_frozen(&self, name: &str, files: &[RestoreFile]) -> Result<Arc<dyn Frozen>> {
        Ok(Arc::new(Mutex::new(self.open(name, files)?)))
    }

    /// An empty backend for the task `name`; whatever an earlier process left under that name is removed.
    ///
    /// # Errors
    /// When it cannot be created.
    fn create(&self, name: &str) -> Result<Box<dyn Backend>>;

    /// A backend of the task `name` with the content of a checkpoint. The files stay as they are.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    fn open(&self, name: &str, files: &[RestoreFile]) -> Result<Box<dyn Backend>>;
}

/// The first key after all keys that start with `prefix`; `None` when there is none.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}
