//! What every table of a store shares: who it is, the cold tier, and its account with the memory budget.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, Batch, successor};
use crate::budget::Account;
use crate::codec::{self, CodecError};
use crate::delta::DeltaWriter;
use crate::error::{Result, StateError};
use crate::key::{KeyGroupRange, key_group};

/// The cold tier of one store. The lock is never contended: it lets tables be self-contained and still `Send`, and is taken
/// only where a row is read, written or deleted cold.
pub(crate) struct Cold {
    pub backend: Box<dyn Backend>,
    /// Changes since the last snapshot that are no longer in memory: spilled entries, deletions, dropped windows.
    pub pending: DeltaWriter,
    /// The next snapshot writes everything anew, so `pending` is not kept.
    pub rebase: bool,
    /// Beyond this many bytes `pending` is given up for a rebase.
    pub pending_limit: usize,
    pub value: Vec<u8>,
}

impl Cold {
    /// Gives `pending` up when it has grown beyond its limit: the next snapshot is then a rebase, which needs none of it.
    pub fn bound_pending(&mut self) {
        if self.pending.len() > self.pending_limit {
            self.rebase = true;
            self.pending = DeltaWriter::default();
        }
    }
}

pub(crate) type SharedCold = Arc<Mutex<Cold>>;

/// A table's surroundings.
pub(crate) struct Scope {
    pub id: u16,
    pub operator: Arc<str>,
    pub state: Arc<str>,
    pub schema: String,
    pub groups: u16,
    pub range: KeyGroupRange,
    pub evict_batch: usize,
    pub account: Account,
    pub cold: SharedCold,
}

impl Scope {
    pub fn lock(&self) -> MutexGuard<'_, Cold> {
        self.cold.lock()
    }

    /// Adds the operator, state and schema to a codec's complaint.
    #[cold]
    pub fn codec_error(&self, source: CodecError) -> StateError {
        StateError::Codec {
            operator: self.operator.clone(),
            state: self.state.clone(),
            schema: self.schema.clone(),
            source,
        }
    }

    pub fn encode<T: Serialize + 'static>(&self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        codec::encode_into(value, out).map_err(|error| self.codec_error(error))
    }

    pub fn decode<T: DeserializeOwned + 'static>(&self, bytes: &[u8]) -> Result<T> {
        codec::decode(bytes).map_err(|error| self.codec_error(error))
    }

    /// The backend's key of a row of this table.
    pub fn cold_key(&self, row: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(2 + row.len());
        key.extend_from_slice(&self.id.to_be_bytes());
        key.extend_from_slice(row);
        key
    }

    /// Whether the backend has any row of this table: one seek.
    pub fn has_cold_rows(&self) -> Result<bool> {
        let mut found = false;
        self.scan_rows(&[], |_, _| {
            found = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Visits the cold rows under `prefix`; rows come without the table's id.
    pub fn scan_rows(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (from, to) = self.cold_range(prefix);
        self.lock().backend.scan(&from, &to, &mut |key, value| visit(&key[2..], value))
    }

    /// The backend's keys of the rows under `prefix`, as `from..to`.
    pub fn cold_range(&self, prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let from = self.cold_key(prefix);
        let to = successor(&from).unwrap_or_else(|| vec![u8::MAX; from.len() + 1]);
        (from, to)
    }

    /// The backend's keys of the rows under `prefix` and some key groups, as `from..to`.
    pub fn cold_groups(&self, prefix: &[u8], groups: KeyGroupRange) -> (Vec<u8>, Vec<u8>) {
        let mut from = self.cold_key(prefix);
        let mut to = from.clone();
        from.extend_from_slice(&groups.start.to_be_bytes());
        to.extend_from_slice(&groups.end.to_be_bytes());
        (from, to)
    }

    /// Deletes the cold rows under `prefix` at once.
    pub fn delete_cold(&self, prefix: &[u8]) -> Result<()> {
        let (from, to) = self.cold_range(prefix);
        self.delete_cold_range(&from, &to)
    }

    /// Deletes the backend's keys `from..to` at once.
    pub fn delete_cold_range(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let mut batch = Batch::default();
        batch.delete_range(from, to);
        self.lock().backend.apply(&batch)
    }

    /// Notes in the next delta that `row` is gone.
    pub fn record_delete(&self, row: &[u8]) {
        let mut cold = self.lock();
        if !cold.rebase {
            cold.pending.delete(self.id, row);
            cold.bound_pending();
        }
    }

    /// Notes in the next delta that all rows under `prefix` are gone.
    pub fn record_drop(&self, prefix: &[u8], groups: KeyGroupRange) {
        let mut cold = self.lock();
        if !cold.rebase {
            cold.pending.drop_prefix(self.id, prefix, groups);
            cold.bound_pending();
        }
    }

    /// A table's `Debug`: which it is and what it holds in memory.
    pub fn describe(&self, kind: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{kind}({}/{}: {}, {} bytes)", self.operator, self.state, self.schema, self.account.held())
    }

    /// Whether `bytes` more of memory would exceed the budget.
    pub fn would_exceed(&self, bytes: usize) -> bool {
        self.account.budget().would_exceed(bytes)
    }

    /// Whether the budget is exceeded.
    pub fn is_exceeded(&self) -> bool {
        self.account.budget().is_exceeded()
    }
}

/// How the rows of a hash table are named.
pub(crate) trait Rows<K> {
    /// Appends the row's key, without the table's id.
    fn write(&self, hash: u64, key: &K, out: &mut Vec<u8>) -> Result<(), CodecError>;
    /// What all its rows start with.
    fn prefix(&self) -> &[u8];
    /// Where in a row the key begins.
    fn key_at(&self) -> usize;
}

/// `namespace, key group, key`.
#[derive(Clone, Copy)]
pub(crate) struct Grouped<'a> {
    pub namespace: &'a [u8],
    pub groups: u16,
}

impl<K: Serialize + 'static> Rows<K> for Grouped<'_> {
    #[inline]
    fn write(&self, hash: u64, key: &K, out: &mut Vec<u8>) -> Result<(), CodecError> {
        if !self.namespace.is_empty() {
            out.extend_from_slice(self.namespace);
        }
        out.extend_from_slice(&key_group(hash, self.groups).0.to_be_bytes());
        codec::encode_into(key, out)
    }
    fn prefix(&self) -> &[u8] {
        self.namespace
    }
    fn key_at(&self) -> usize {
        self.namespace.len() + 2
    }
}

/// `prefix, key`: the entries of one key's map.
#[derive(Clone, Copy)]
pub(crate) struct Under<'a> {
    pub prefix: &'a [u8],
}

impl<K: Serialize + 'static> Rows<K> for Under<'_> {
    fn write(&self, _hash: u64, key: &K, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(self.prefix);
        codec::encode_into(key, out)
    }
    fn prefix(&self) -> &[u8] {
        self.prefix
    }
    fn key_at(&self) -> usize {
        self.prefix.len()
    }
}

/// About what `value` owns on the heap, in bytes: nothing for plain data, otherwise its encoded size plus an allocation's overhead.
#[inline]
pub(crate) fn heap_size<T: Serialize + 'static>(value: &T) -> usize {
    if !std::mem::needs_drop::<T>() {
        return 0;
    }
    codec::encoded_len(value) + 16
}
