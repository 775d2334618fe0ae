//! One part of a snapshot as rows in a backend of its own.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::backend::{Backend, Backends, Batch, successor};
use crate::delta::{DeltaReader, Op};
use crate::error::Result;
use crate::handle::StateKind;
use crate::key::KeyGroupRange;
use crate::snapshot::restore::files_of;
use crate::snapshot::{FileRole, Meta, RestoreFile, RestorePart, TableMeta, is_native};
use crate::table::group_of_row;

/// Changes are applied in batches of about this many bytes.
const BATCH: usize = 1 << 20;

/// The rows of one part.
pub(super) struct Part {
    pub range: KeyGroupRange,
    pub backend: Box<dyn Backend>,
    /// From the image's ids of tables to the part's.
    pub ids: HashMap<u16, u16>,
    /// Whether its base is of a backend's own files, so that what is written must be.
    pub is_native: bool,
    /// Whether it is not what the snapshot has any more.
    pub is_changed: bool,
    pending: Pending,
}

/// Changes that are not in the backend yet: ranges are deleted first, then rows are put and deleted.
#[derive(Default)]
struct Pending {
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Part {
    /// An empty part.
    pub fn create(name: &str, backends: &dyn Backends, range: KeyGroupRange) -> Result<Self> {
        Ok(Self {
            range,
            backend: backends.create(name)?,
            ids: HashMap::new(),
            is_native: false,
            is_changed: true,
            pending: Pending::default(),
        })
    }

    /// The rows of a part of a snapshot.
    pub fn open(
        operator: &Arc<str>,
        name: &str,
        backends: &dyn Backends,
        meta: &Meta,
        files: &RestorePart,
        ids: HashMap<u16, u16>,
    ) -> Result<Self> {
        let base = files_of(operator, meta, files, FileRole::Base)?;
        let (images, native): (Vec<_>, Vec<_>) =
            base.into_iter().partition(|file| !is_native(&file.name, file.role));
        let has_native = !native.is_empty();
        let backend = if has_native { backends.open(name, &native)? } else { backends.create(name)? };
        let mut part = Self {
            range: meta.range,
            backend,
            ids,
            is_native: has_native,
            is_changed: false,
            pending: Pending::default(),
        };
        for image in &images {
            part.apply_image(image)?;
        }
        for file in files_of(operator, meta, files, FileRole::Delta)? {
            part.apply_delta(meta, &file)?;
        }
        part.flush()?;
        Ok(part)
    }

    /// The part's id of a table.
    pub fn id_of(&self, table: u16) -> Option<u16> {
        self.ids.get(&table).copied()
    }

    /// Gives a table that the image has an id here, if it has none.
    pub fn add_table(&mut self, table: u16) -> u16 {
        let free = self.ids.values().map(|id| id + 1).max().unwrap_or(0);
        *self.ids.entry(table).or_insert(free)
    }

    /// Puts a row of a table, by the part's id.
    pub fn put(&mut self, id: u16, row: &[u8], value: &[u8]) -> Result<()> {
        self.pending.set([&id.to_be_bytes(), row].concat(), Some(value.to_vec()));
        self.bound()
    }

    /// Deletes a row of a table.
    pub fn delete(&mut self, id: u16, row: &[u8]) -> Result<()> {
        self.pending.set([&id.to_be_bytes(), row].concat(), None);
        self.bound()
    }

    /// Deletes all rows of a table that begin with `prefix`.
    pub fn delete_prefix(&mut self, id: u16, prefix: &[u8]) -> Result<()> {
        let from = [&id.to_be_bytes(), prefix].concat();
        let to = successor(&from).unwrap_or_else(|| vec![u8::MAX; from.len() + 1]);
        self.pending.delete_range(from, to);
        self.bound()
    }

    /// As [`delete_prefix`](Self::delete_prefix), but leaves no trace where there is none: a trace costs more than looking.
    pub fn delete_prefix_if_any(&mut self, id: u16, prefix: &[u8]) -> Result<()> {
        let from = [&id.to_be_bytes(), prefix].concat();
        let to = successor(&from).unwrap_or_else(|| vec![u8::MAX; from.len() + 1]);
        let mut is_any = self.pending.rows.range(from.clone()..to.clone()).next().is_some();
        if !is_any {
            self.backend.scan(&from, &to, &mut |_, _| {
                is_any = true;
                Ok(ControlFlow::Break(()))
            })?;
        }
        if is_any { self.delete_prefix(id, prefix) } else { Ok(()) }
    }

    fn bound(&mut self) -> Result<()> {
        if self.pending.bytes < BATCH { Ok(()) } else { self.flush() }
    }

    /// Brings all changes into the backend.
    pub fn flush(&mut self) -> Result<()> {
        let Pending { ranges, rows, bytes } = std::mem::take(&mut self.pending);
        if bytes == 0 {
            return Ok(());
        }
        let mut batch = Batch::default();
        ranges.iter().for_each(|(from, to)| batch.delete_range(from, to));
        for (key, value) in &rows {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.backend.apply(&batch)
    }

    /// Applies the rows of a memory backend's base.
    fn apply_image(&mut self, file: &RestoreFile) -> Result<()> {
        let reader = DeltaReader::open(&file.name, file.source.read()?)?;
        reader.for_each_table(|_, op| {
            if let Op::Put { row, value } = op {
                self.pending.set(row.to_vec(), Some(value.to_vec()));
            }
            self.bound()
        })
    }

    /// Applies a delta, operation by operation, as a table does that is restored from it.
    fn apply_delta(&mut self, meta: &Meta, file: &RestoreFile) -> Result<()> {
        let reader = DeltaReader::open(&file.name, file.source.read()?)?;
        reader.for_each_table(|id, op| {
            let Some(table) = meta.tables.iter().find(|table| table.id == id) else { return Ok(()) };
            let width = table.namespace_width as usize;
            match op {
                Op::Put { row, .. } | Op::Delete { row } => match group_of_row(row, width) {
                    Some(group) if !(self.range.start..self.range.end).contains(&group) => Ok(()),
                    None => Err(reader.short_row(row.len())),
                    Some(_) => match op {
                        Op::Put { value, .. } => self.put(id, row, value),
                        _ => self.delete(id, row),
                    },
                },
                Op::Drop { prefix, groups } => {
                    let groups = groups.intersection(self.range);
                    if groups.is_empty() { Ok(()) } else { self.apply_drop(table, prefix, groups) }
                }
            }
        })
    }

    /// What a drop means to the table of each kind.
    fn apply_drop(&mut self, table: &TableMeta, prefix: &[u8], groups: KeyGroupRange) -> Result<()> {
        match table.kind {
            StateKind::Value | StateKind::Reducing => Ok(()),
            // One key's rows.
            StateKind::List | StateKind::Map => self.delete_prefix(table.id, prefix),
            // One slice's.
            StateKind::Window => {
                let from = [&table.id.to_be_bytes(), prefix, &groups.start.to_be_bytes()].concat();
                let to = [&table.id.to_be_bytes(), prefix, &groups.end.to_be_bytes()].concat();
                self.pending.delete_range(from, to);
                self.bound()
            }
            StateKind::Timers => self.drop_fired(table, prefix, groups),
        }
    }

    /// All timers of some groups up to a time have fired.
    fn drop_fired(&mut self, table: &TableMeta, time: &[u8], groups: KeyGroupRange) -> Result<()> {
        let from = table.id.to_be_bytes().to_vec();
        let last = [&*from, time].concat();
        let to = successor(&last).unwrap_or_else(|| vec![u8::MAX; last.len() + 1]);
        if groups == self.range {
            self.pending.delete_range(from, to);
            return self.bound();
        }
        self.flush()?;
        let width = table.namespace_width as usize;
        let (mut batch, mut fired) = (Batch::default(), Vec::new());
        self.backend.scan(&from, &to, &mut |key, _| {
            if group_of_row(&key[2..], width).is_some_and(|group| (groups.start..groups.end).contains(&group))
            {
                fired.push(key.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        fired.iter().for_each(|key| batch.delete(key));
        self.backend.apply(&batch)
    }
}

impl Pending {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 64;
        self.rows.insert(key, value);
    }

    fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        if from >= to {
            return;
        }
        let within: Vec<Vec<u8>> =
            self.rows.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
        within.iter().for_each(|key| _ = self.rows.remove(key));
        self.bytes += from.len() + to.len() + 64;
        self.ranges.push((from, to));
    }
}
