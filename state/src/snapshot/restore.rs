//! From the files of old tasks to the backend and deltas of a new one.
//!
//! 1. One part of the same key groups: its base is opened as it is, its chain goes on.
//! 2. Otherwise: the rows of our key groups are copied out of each part's base, range by range, with the ids that the tables have
//!    here; the first snapshot is a rebase.
//! 3. Deltas are verified now and applied, typed, when a table is opened: operations on foreign key groups are skipped. What is
//!    never opened is carried over into later snapshots, so that removing a state from a program loses nothing.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::chain::Chain;
use super::{FileRole, META_VERSION, Meta, RestoreFile, RestorePart, TableMeta};
use crate::backend::{Backend, Backends, Batch, successor};
use crate::codec;
use crate::delta::{DeltaReader, DeltaWriter, Op};
use crate::error::{Result, StateError};
use crate::key::KeyGroupRange;
use crate::store::{Ids, StoreSpec};
use crate::table::group_of_row;

/// Rows are copied in batches of this many bytes.
const COPY_BATCH: usize = 1 << 20;

/// What a store starts with.
pub(crate) struct Restoration {
    pub backend: Box<dyn Backend>,
    pub tables: Vec<TableMeta>,
    pub layout: Option<String>,
    pub restored: Restored,
    /// The chain to go on with; none when the first snapshot has to be a rebase.
    pub chain: Option<Chain>,
}

/// A delta of an old task.
struct PartDelta {
    reader: DeltaReader,
    ids: Ids,
    /// The task's key groups and ours: what its operations count for. Their drops may name more, from tasks before it.
    groups: KeyGroupRange,
}

/// The deltas that tables are still to be filled from.
#[derive(Default)]
pub(crate) struct Restored {
    deltas: Vec<PartDelta>,
    /// Tables that have not been opened, by id.
    unopened: Vec<u16>,
}

impl Restored {
    /// Applies the operations of our key groups on a table, in order; forgets the deltas after the last table.
    pub fn replay(&mut self, table: &TableMeta, apply: &mut dyn FnMut(Op<'_>) -> Result<()>) -> Result<()> {
        if !self.unopened.contains(&table.id) {
            return Ok(());
        }
        self.visit(table, apply)?;
        self.forget(table.id);
        Ok(())
    }

    /// Whether a table of this id was restored and has not been opened.
    pub fn is_unopened(&self, id: u16) -> bool {
        self.unopened.contains(&id)
    }

    /// Lets go of a table that is dropped.
    pub fn forget(&mut self, id: u16) {
        self.unopened.retain(|&unopened| unopened != id);
        if self.unopened.is_empty() {
            self.deltas = Vec::new();
        }
    }

    /// Copies the operations on tables that nobody opened.
    pub fn copy_unopened(&self, tables: &[TableMeta], delta: &mut DeltaWriter) -> Result<()> {
        for table in tables.iter().filter(|table| self.unopened.contains(&table.id)) {
            self.visit(table, &mut |op| {
                delta.push(table.id, op);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn visit(&self, table: &TableMeta, apply: &mut dyn FnMut(Op<'_>) -> Result<()>) -> Result<()> {
        let width = table.namespace_width as usize;
        for PartDelta { reader, ids, groups: ours } in &self.deltas {
            let Some((&theirs, _)) = ids.iter().find(|&(_, &id)| id == table.id) else { continue };
            reader.for_each(theirs, |op| match op {
                Op::Put { row, .. } | Op::Delete { row } => match group_of_row(row, width) {
                    Some(group) if (ours.start..ours.end).contains(&group) => apply(op),
                    Some(_) => Ok(()),
                    None => Err(reader.short_row(row.len())),
                },
                Op::Drop { prefix, groups } => match groups.intersection(*ours) {
                    none if none.is_empty() => Ok(()),
                    groups => apply(Op::Drop { prefix, groups }),
                },
            })?;
        }
        Ok(())
    }
}

impl Restored {
    /// That there are tables, and nothing of what is in them.
    pub fn without_rows(tables: &[TableMeta]) -> Self {
        Self { deltas: Vec::new(), unopened: tables.iter().map(|table| table.id).collect() }
    }
}

/// Prepares what a store starts with.
pub(crate) fn restore(
    spec: &StoreSpec,
    operator: &Arc<str>,
    name: &str,
    backends: &dyn Backends,
    parts: Vec<RestorePart>,
) -> Result<Restoration> {
    let mut read = Vec::with_capacity(parts.len());
    for part in parts {
        let meta = read_meta(spec.groups, operator, &part.meta)?;
        if !meta.range.intersection(spec.range).is_empty() {
            let base = files_of(operator, &meta, &part, FileRole::Base)?;
            let deltas = files_of(operator, &meta, &part, FileRole::Delta)?;
            read.push((meta, base, deltas));
        }
    }
    check_overlaps(operator, &read.iter().map(|(meta, ..)| meta.range).collect::<Vec<_>>())?;
    let layout = layout_of(operator, read.iter().map(|(meta, ..)| meta))?;
    let tables = union(operator, read.iter().map(|(meta, ..)| meta))?;
    let mut restored =
        Restored { deltas: Vec::new(), unopened: tables.iter().map(|table| table.id).collect() };
    for (meta, _, deltas) in &read {
        let ids = ids_of(meta, &tables);
        for file in deltas {
            let reader = DeltaReader::open(&file.name, file.source.read()?)?;
            let groups = meta.range.intersection(spec.range);
            restored.deltas.push(PartDelta { reader, ids: ids.clone(), groups });
        }
    }
    if let [(meta, base, _)] = read.as_slice()
        && meta.range == spec.range
    {
        let backend = if base.is_empty() { backends.create(name)? } else { backends.open(name, base)? };
        let chain = Some(Chain::restored(meta.files.iter().cloned()));
        return Ok(Restoration { backend, tables, layout, restored, chain });
    }
    let mut backend = backends.create(name)?;
    for (index, (meta, base, _)) in read.iter().enumerate().filter(|(_, (_, base, _))| !base.is_empty()) {
        let mut old = backends.open(&format!("{name}-from-{index}"), base)?;
        copy_rows(&mut *old, &mut *backend, meta, &tables, spec.range)?;
    }
    Ok(Restoration { backend, tables, layout, restored, chain: None })
}

/// What a snapshot says about itself, if it is of this format.
pub(super) fn decode_meta(operator: &Arc<str>, bytes: &[u8]) -> Result<Meta> {
    let mismatch = |reason: String| StateError::Mismatch { operator: operator.clone(), reason };
    let (version, _): (u32, usize) = codec::decode_prefix(bytes)
        .map_err(|error| mismatch(format!("the snapshot's description: {error}")))?;
    if version != META_VERSION {
        return Err(mismatch(format!(
            "the snapshot is of format {version}, this program reads {META_VERSION}"
        )));
    }
    codec::decode(bytes).map_err(|error| mismatch(format!("the snapshot's description: {error}")))
}

/// What a snapshot says about itself, if it is of this format and of a flow with so many key groups.
pub(crate) fn read_meta(groups: u16, operator: &Arc<str>, bytes: &[u8]) -> Result<Meta> {
    let meta = decode_meta(operator, bytes)?;
    if meta.groups != groups {
        let reason = format!(
            "the snapshot has {} key groups and the flow {groups}; the number is fixed for a flow's life",
            meta.groups
        );
        return Err(StateError::Mismatch { operator: operator.clone(), reason });
    }
    Ok(meta)
}

/// The handed-in files that `meta` names, in its order.
pub(crate) fn files_of(
    operator: &Arc<str>,
    meta: &Meta,
    part: &RestorePart,
    role: FileRole,
) -> Result<Vec<RestoreFile>> {
    let names = meta.files.iter().filter(|(_, theirs, _)| *theirs == role);
    names
        .map(|(name, ..)| {
            part.files
                .iter()
                .find(|file| file.name == *name)
                .cloned()
                .ok_or_else(|| StateError::MissingFile { operator: operator.clone(), file: name.clone() })
        })
        .collect()
}

/// Refuses two snapshots of the same key groups.
pub(crate) fn check_overlaps(operator: &Arc<str>, ranges: &[KeyGroupRange]) -> Result<()> {
    for (index, left) in ranges.iter().enumerate() {
        for right in &ranges[index + 1..] {
            if !left.intersection(*right).is_empty() {
                return Err(StateError::Mismatch {
                    operator: operator.clone(),
                    reason: format!("two snapshots cover the same key groups: {left:?} and {right:?}"),
                });
            }
        }
    }
    Ok(())
}

/// The layout that all parts have.
pub(crate) fn layout_of<'a>(
    operator: &Arc<str>,
    mut metas: impl Iterator<Item = &'a Meta>,
) -> Result<Option<String>> {
    let Some(first) = metas.next() else { return Ok(None) };
    match metas.find(|meta| meta.layout != first.layout) {
        None => Ok(first.layout.clone()),
        Some(other) => Err(StateError::Mismatch {
            operator: operator.clone(),
            reason: format!("two snapshots differ in layout: {:?} and {:?}", first.layout, other.layout),
        }),
    }
}

/// All tables of all parts, by name; the ids of the first part are kept.
pub(crate) fn union<'a>(
    operator: &Arc<str>,
    metas: impl Iterator<Item = &'a Meta>,
) -> Result<Vec<TableMeta>> {
    let mut tables: Vec<TableMeta> = Vec::new();
    for table in metas.flat_map(|meta| &meta.tables) {
        match tables.iter_mut().find(|known| known.is_called(&table.name, table.kind)) {
            Some(known) if known.schema_version != table.schema_version => {
                return Err(StateError::Mismatch {
                    operator: operator.clone(),
                    reason: format!(
                        "two snapshots differ in the version of state {}: {} and {}",
                        table.name, known.schema_version, table.schema_version
                    ),
                });
            }
            Some(known) if known.kind != table.kind || known.schema != table.schema => {
                return Err(StateError::Schema {
                    operator: operator.clone(),
                    state: table.name.as_str().into(),
                    kind: known.kind,
                    schema: known.schema.clone(),
                    found_kind: table.kind,
                    found_schema: table.schema.clone(),
                });
            }
            Some(known) => known.counter = known.counter.max(table.counter),
            None => {
                let taken = tables.iter().any(|known| known.id == table.id);
                let free = tables.iter().map(|known| known.id + 1).max().unwrap_or(0);
                tables.push(TableMeta { id: if taken { free } else { table.id }, ..table.clone() });
            }
        }
    }
    Ok(tables)
}

/// From the ids of a part to ours.
pub(crate) fn ids_of(meta: &Meta, tables: &[TableMeta]) -> Ids {
    let ours = |theirs: &TableMeta| tables.iter().find(|ours| ours.is_called(&theirs.name, theirs.kind));
    meta.tables.iter().filter_map(|table| Some((table.id, ours(table)?.id))).collect()
}

/// Copies the rows of our key groups from an old base.
fn copy_rows(
    old: &mut dyn Backend,
    new: &mut dyn Backend,
    meta: &Meta,
    tables: &[TableMeta],
    mine: KeyGroupRange,
) -> Result<()> {
    let ids = ids_of(meta, tables);
    for table in &meta.tables {
        let Some(&id) = ids.get(&table.id) else { continue };
        copy_table(old, new, table, id, mine.intersection(meta.range))?;
    }
    Ok(())
}

/// What a scan over a table stopped at.
enum Stop {
    End,
    /// Rows of foreign groups: go on at this key.
    Seek(Vec<u8>),
}

/// Copies one table, skipping from namespace to namespace over foreign key groups.
fn copy_table(
    old: &mut dyn Backend,
    new: &mut dyn Backend,
    table: &TableMeta,
    id: u16,
    groups: KeyGroupRange,
) -> Result<()> {
    let width = table.namespace_width as usize;
    let prefix = table.id.to_be_bytes();
    let to = successor(&prefix).unwrap_or_else(|| vec![u8::MAX; 3]);
    let mut from = prefix.to_vec();
    let mut batch = Batch::default();
    loop {
        let mut stop = Stop::End;
        old.scan(&from, &to, &mut |key, value| {
            let Some(group) = group_of_row(&key[2..], width) else { return Ok(ControlFlow::Continue(())) };
            if group < groups.start {
                stop = Stop::Seek([&key[..2 + width], &groups.start.to_be_bytes()].concat());
                return Ok(ControlFlow::Break(()));
            }
            if group >= groups.end {
                stop = successor(&key[..2 + width]).filter(|_| width > 0).map_or(Stop::End, Stop::Seek);
                return Ok(ControlFlow::Break(()));
            }
            batch.put(&[&id.to_be_bytes(), &key[2..]].concat(), value);
            if batch.bytes() >= COPY_BATCH {
                new.apply(&batch)?;
                batch.clear();
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match stop {
            Stop::End => break,
            Stop::Seek(next) => from = next,
        }
    }
    new.apply(&batch)
}
