//! From state at rest to snapshots.

use std::ops::ControlFlow;

use super::StateImage;
use super::part::Part;
use crate::backend::successor;
use crate::codec;
use crate::delta::{DeltaWriter, Op};
use crate::error::{Result, StateError};
use crate::key::KeyGroupRange;
use crate::snapshot::{FileRole, META_VERSION, Meta, SnapshotFile, SnapshotSource, TableMeta};

/// A delta file ends with about so many bytes.
const DELTA: usize = 32 << 20;

/// What a part has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The key groups it covers.
    pub range: KeyGroupRange,
    /// Its description ([`Snapshot::meta`](crate::Snapshot::meta)), if it was changed: then its files were handed out. Otherwise those it was
    /// opened from are what it is.
    pub meta: Option<Vec<u8>>,
}

impl StateImage {
    /// Whether something was changed, so that [`write`](Self::write) would hand out files.
    pub fn is_changed(&self) -> bool {
        self.parts.iter().any(|part| part.lock().is_changed)
    }

    /// Makes snapshots of the parts that were changed, in the order in which they were handed in, and hands each file to `bring`. A part whose
    /// base was of a backend's own files becomes such files, and so does every part if `native`; others become deltas. Costs writing all rows
    /// of those parts; one delta file is in memory at a time.
    ///
    /// # Errors
    /// Rows cannot be read, or those of `bring`.
    pub fn write<E: From<StateError>>(
        &mut self,
        epoch: u64,
        native: bool,
        mut bring: impl FnMut(KeyGroupRange, SnapshotFile) -> Result<(), E>,
    ) -> Result<Vec<Written>, E> {
        let mut written = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut part = part.lock();
            let range = part.range;
            if !part.is_changed {
                written.push(Written { range, meta: None });
                continue;
            }
            part.flush()?;
            let mut files = Vec::new();
            let mut hand_out = |file: SnapshotFile, bytes: u64| {
                files.push((file.name.clone(), file.role, bytes));
                bring(range, file)
            };
            if native || part.is_native {
                for file in part.backend.checkpoint(epoch)? {
                    let source = file.source;
                    let file = SnapshotFile { name: file.name, role: FileRole::Base, source, reused: false };
                    hand_out(file, 0)?;
                }
            } else {
                self.write_deltas(&mut part, epoch, &mut hand_out)?;
            }
            let meta = self.encode_meta(&part, files)?;
            written.push(Written { range, meta: Some(meta) });
        }
        Ok(written)
    }

    fn write_deltas<E: From<StateError>>(
        &self,
        part: &mut Part,
        epoch: u64,
        hand_out: &mut impl FnMut(SnapshotFile, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut number = 0;
        for table in &self.tables {
            let Some(id) = part.id_of(table.id) else { continue };
            let mut from = id.to_be_bytes().to_vec();
            let to = successor(&from).unwrap_or_else(|| vec![u8::MAX; from.len() + 1]);
            loop {
                let mut delta = DeltaWriter::default();
                let mut next = None;
                part.backend.scan(&from, &to, &mut |key, value| {
                    delta.push(id, Op::Put { row: &key[2..], value });
                    if delta.len() < DELTA {
                        return Ok(ControlFlow::Continue(()));
                    }
                    next = Some([key, &[0]].concat());
                    Ok(ControlFlow::Break(()))
                })?;
                if !delta.is_empty() {
                    let bytes = delta.finish();
                    let length = bytes.len() as u64;
                    let name =
                        format!("{epoch}-{}-{}.{number}.rewritten.delta", part.range.start, part.range.end);
                    let source = SnapshotSource::Bytes(bytes.into());
                    hand_out(SnapshotFile { name, role: FileRole::Delta, source, reused: false }, length)?;
                    number += 1;
                }
                match next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn encode_meta(&self, part: &Part, files: Vec<(String, FileRole, u64)>) -> Result<Vec<u8>> {
        let of_part = |table: &TableMeta| Some(TableMeta { id: part.id_of(table.id)?, ..table.clone() });
        let meta = Meta {
            version: META_VERSION,
            groups: self.groups,
            range: part.range,
            tables: self.tables.iter().filter_map(of_part).collect(),
            layout: self.layout.clone(),
            files,
        };
        let mut bytes = Vec::new();
        codec::encode_into(&meta, &mut bytes).map_err(|error| StateError::Mismatch {
            operator: self.operator.clone(),
            reason: format!("the snapshot's description does not encode: {error}"),
        })?;
        Ok(bytes)
    }
}
