//! A backend in memory: for tests, for deterministic simulation, and for builds without RocksDB.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Backend, Backends, BaseFile, Batch, Visit};
use crate::delta::{DeltaReader, DeltaWriter, Op};
use crate::error::{Result, StateError};
use crate::expire::Expiry;
use crate::snapshot::{RestoreFile, SnapshotSource};

/// What the name of a checkpoint's file ends with.
const IMAGE: &str = ".image";

/// Whether a file of that name is the checkpoint of a backend in memory: rows in a delta file, which any backend can be filled from.
pub(crate) fn is_image(name: &str) -> bool {
    name.ends_with(IMAGE)
}

/// A `BTreeMap`. Its checkpoint is one encoded file, so it costs what exists; the store above therefore keeps state
/// in deltas as long as it can.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    rows: BTreeMap<Box<[u8]>, Box<[u8]>>,
    bytes: u64,
    expiry: Arc<Expiry>,
}

impl MemoryBackend {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.bytes += (key.len() + value.len()) as u64;
        if let Some(old) = self.rows.insert(key.into(), value.into()) {
            self.bytes -= (key.len() + old.len()) as u64;
        }
    }

    fn delete(&mut self, key: &[u8]) {
        if let Some(old) = self.rows.remove(key) {
            self.bytes -= (key.len() + old.len()) as u64;
        }
    }

    fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        let doomed: Vec<_> = self.range(from, to).map(|(key, _)| key.clone()).collect();
        for key in doomed {
            self.delete(&key);
        }
    }

    fn remove_expired(&mut self) {
        let expired = self.expiry.now();
        if !expired.is_empty() {
            let bytes = &mut self.bytes;
            self.rows.retain(|key, value| {
                let keeps = !expired.includes(key, value);
                *bytes -= if keeps { 0 } else { (key.len() + value.len()) as u64 };
                keeps
            });
        }
    }

    fn range(&self, from: &[u8], to: &[u8]) -> impl Iterator<Item = (&Box<[u8]>, &Box<[u8]>)> {
        let empty = from >= to;
        let to = if empty { from } else { to };
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        self.rows.range::<[u8], _>(bounds_or_none(bounds, empty))
    }
}

/// `BTreeMap::range` panics on `(Included(x), Excluded(x))` reversed; an empty range is written so that it does not.
fn bounds_or_none<'a>(
    bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>),
    empty: bool,
) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    if empty { (Bound::Included(&[]), Bound::Excluded(&[])) } else { bounds }
}

impl Backend for MemoryBackend {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        value.clear();
        let Some(found) = self.rows.get(key) else { return Ok(false) };
        value.extend_from_slice(found);
        Ok(true)
    }

    fn apply(&mut self, batch: &Batch) -> Result<()> {
        for (from, to) in batch.ranges() {
            self.delete_range(from, to);
        }
        for (key, value) in batch.ops() {
            match value {
                Some(value) => self.put(key, value),
                None => self.delete(key),
            }
        }
        Ok(())
    }

    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        for (key, value) in self.range(from, to) {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, epoch: u64) -> Result<Vec<BaseFile>> {
        self.remove_expired();
        if self.rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut writer = DeltaWriter::default();
        for (key, value) in &self.rows {
            writer.push(0, Op::Put { row: key, value });
        }
        let source = SnapshotSource::Bytes(writer.finish().into());
        Ok(vec![BaseFile { name: format!("{epoch}{IMAGE}"), source, reused: false }])
    }

    fn checkpoint_is_incremental(&self) -> bool {
        false
    }

    fn expiry(&self) -> Option<Arc<Expiry>> {
        Some(Arc::clone(&self.expiry))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Makes [`MemoryBackend`]s. Touches no disk, but to read a file that a snapshot hands in as a path.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryBackends;

impl Backends for MemoryBackends {
    fn create(&self, _name: &str) -> Result<Box<dyn Backend>> {
        Ok(Box::new(MemoryBackend::default()))
    }

    fn open(&self, _name: &str, files: &[RestoreFile]) -> Result<Box<dyn Backend>> {
        let mut backend = MemoryBackend::default();
        for file in files {
            let reader = DeltaReader::open(&file.name, file.source.read()?)?;
            reader.for_each_table(|_, op| match op {
                Op::Put { row, value } => {
                    backend.put(row, value);
                    Ok(())
                }
                _ => Err(StateError::Corrupt {
                    file: file.name.clone(),
                    position: 0,
                    reason: "an image holds more than rows".to_owned(),
                }),
            })?;
        }
        Ok(Box::new(backend))
    }
}
