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
pub struct Part {
    pub(super) range: KeyGroupRange,
    pub(super) backend: Box<dyn Backend>,
    /// From the image's ids of tables to the part's.
    pub(super) ids: HashMap<u16, u16>,
    /// Whether its base is of a backend's own files, so that what is written must be.
    pub(super) is_native: bool,
    /// Whether it is not what the snapshot has any more.
    pub(super) is_changed: bool,
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
    pub(super) fn create(name: &str, backends: &dyn Backends, range: KeyGroupRange) -> Result<Self> {
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
    pub(super) fn open(
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
    pub(super) fn id_of(&self, table: u16) -> Option<u16> {
        self.ids.get(&table).copied()
    }

    /// Gives a table that the image has an id here, if it has none.
    pub(super) fn add_table(&mut self, table: u16) -> u16 {
        let free = self.ids.values().map(|id| id + 1).max().unwrap_or(0);
        *self.ids.entry(table).or_insert(free)
    }

    /// Puts a row of a table, by the part's id.
    pub(super) fn put(&mut self, id: u16, row: &[u8], value: &[u8]) -> Result<()> {
        self.pending.set([&id.to_be_bytes(), row].concat(), Some(value.to_vec()));
        self.bound()
    }

    /// Deletes a row of a table.
    pub(super) fn delete(&mut self, id: u16, row: &[u8]) -> Result<()> {
        self.pending.set([&id.to_be_bytes(), row].concat(), None);
        self.bound()
    }

    /// Deletes all rows of a table that begin with `prefix`.
    pub(super) fn delete_prefix(&mut self, id: u16, prefix: &[u8]) -> Result<()> {
        let from = [&id.to_be_bytes(), prefix].concat();
        let to = successor(&from).unwrap_or_else(|| vec![u8::MAX; from.len() + 1]);
        self.pending.delete_range(from, to);
        self.bound()
    }

    /// As [`delete_prefix`](Self::delete_prefix), but leaves no trace where there is none: a trace costs more than looking.
    pub(super) fn delete_prefix_if_any(&mut self, id: u16, prefix: &[u8]) -> Result<()> {
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
    pub(super) fn flush(&mut self) -> Result<()> {
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
        apply(&reader, &meta.tables, meta.range, self)
    }
}

/// What changes of rows are made to, in order. The keys of ranges begin with the id of the table.
pub(crate) trait Changes {
    /// A row is put or deleted.
    fn set(&mut self, table: u16, row: &[u8], value: Option<&[u8]>) -> Result<()>;
    /// The rows of `from..to` are deleted.
    fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) -> Result<()>;
    /// Of the rows of `from..to`, those of some of the part's key groups are deleted, which follow `width` bytes behind the table's id.
    fn delete_groups(
        &mut self,
        from: Vec<u8>,
        to: Vec<u8>,
        width: usize,
        groups: KeyGroupRange,
    ) -> Result<()>;
}

impl Changes for Part {
    fn set(&mut self, table: u16, row: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.pending.set([&table.to_be_bytes(), row].concat(), value.map(<[u8]>::to_vec));
        self.bound()
    }

    fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) -> Result<()> {
        self.pending.delete_range(from, to);
        self.bound()
    }

    fn delete_groups(
        &mut self,
        from: Vec<u8>,
        to: Vec<u8>,
        width: usize,
        groups: KeyGroupRange,
    ) -> Result<()> {
        self.flush()?;
        let (mut batch, mut doomed) = (Batch::default(), Vec::new());
        self.backend.scan(&from, &to, &mut |key, _| {
            if group_of_row(&key[2..], width).is_some_and(|group| (groups.start..groups.end).contains(&group))
            {
                doomed.push(key.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        doomed.iter().for_each(|key| batch.delete(key));
        self.backend.apply(&batch)
    }
}

/// Makes the changes of a delta file, as far as they are of the key groups of `range`.
pub(crate) fn apply(
    reader: &DeltaReader,
    tables: &[TableMeta],
    range: KeyGroupRange,
    changes: &mut impl Changes,
) -> Result<()> {
    reader.for_each_table(|id, op| {
        let Some(table) = tables.iter().find(|table| table.id == id) else { return Ok(()) };
        let width = table.namespace_width as usize;
        let (row, value) = match op {
            Op::Put { row, value } => (row, Some(value)),
            Op::Delete { row } => (row, None),
            Op::Drop { prefix, groups } => {
                let groups = groups.intersection(range);
                return if groups.is_empty() {
                    Ok(())
                } else {
                    apply_drop(table, prefix, groups, range, changes)
                };
            }
        };
        match group_of_row(row, width) {
            Some(group) if (range.start..range.end).contains(&group) => changes.set(id, row, value),
            Some(_) => Ok(()),
            None => Err(reader.short_row(row.len())),
        }
    })
}

/// What a drop means to the table of each kind.
fn apply_drop(
    table: &TableMeta,
    prefix: &[u8],
    groups: KeyGroupRange,
    range: KeyGroupRange,
    changes: &mut impl Changes,
) -> Result<()> {
    let id = table.id.to_be_bytes();
    let begins = [&id, prefix].concat();
    let end = || successor(&begins).unwrap_or_else(|| vec![u8::MAX; begins.len() + 1]);
    match table.kind {
        StateKind::Value | StateKind::Reducing => Ok(()),
        // One key's rows.
        StateKind::List | StateKind::Map => changes.delete_range(begins.clone(), end()),
        // One slice's.
        StateKind::Window => {
            let from = [&*begins, &groups.start.to_be_bytes()].concat();
            let to = [&*begins, &groups.end.to_be_bytes()].concat();
            changes.delete_range(from, to)
        }
        // All timers of some groups up to a time have fired.
        StateKind::Timers if groups == range => changes.delete_range(id.to_vec(), end()),
        StateKind::Timers => {
            changes.delete_groups(id.to_vec(), end(), table.namespace_width as usize, groups)
        }
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
