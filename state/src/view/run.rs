//! One file of a snapshot as a sorted run: what it makes of the rows of the files before it.
//!
//! 1. Operations are gone through in order, the later one of a row wins, and a deletion of a range takes rows of the same file before it.
//! 2. What is left is frozen: all bytes in one piece, an index sorted by key over it, and the deleted ranges, disjoint and sorted.
//!
//! A run takes the bytes of its keys and values and 24 bytes a row.

use std::collections::BTreeMap;

use crate::delta::{DeltaReader, Op};
use crate::error::Result;
use crate::key::KeyGroupRange;
use crate::rest::part::{Changes, apply};
use crate::snapshot::{RestoreFile, TableMeta};
use crate::table::group_of_row;

/// What a row has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row<'a> {
    Put(&'a [u8]),
    Deleted,
}

/// The length of what is deleted.
const DELETED: u32 = u32::MAX;

/// Where a row's key begins, and how long key and value are; the value follows the key.
struct Entry {
    at: usize,
    key: u32,
    value: u32,
}

/// Rows of a range that are deleted if they are of some key groups.
struct Groups {
    from: Vec<u8>,
    to: Vec<u8>,
    width: usize,
    groups: KeyGroupRange,
}

/// The rows of one file, and what it deletes of older ones.
pub(super) struct Run {
    bytes: Box<[u8]>,
    entries: Box<[Entry]>,
    /// Disjoint, in order.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    groups: Vec<Groups>,
}

impl Run {
    /// The run of a delta.
    pub fn of_delta(file: &RestoreFile, tables: &[TableMeta], range: KeyGroupRange) -> Result<Self> {
        let reader = DeltaReader::open(&file.name, file.source.read()?)?;
        let mut building = Building::default();
        apply(&reader, tables, range, &mut building)?;
        Ok(building.freeze())
    }

    /// The run of a checkpoint of a backend in memory, whose rows have the ids of tables in their keys.
    pub fn of_image(file: &RestoreFile) -> Result<Self> {
        let reader = DeltaReader::open(&file.name, file.source.read()?)?;
        let mut building = Building::default();
        reader.for_each_table(|_, op| match op {
            Op::Put { row, value } => building.set(row.to_vec(), Some(value)),
            Op::Delete { .. } | Op::Drop { .. } => Ok(()),
        })?;
        Ok(building.freeze())
    }

    /// How many rows it has, deletions included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        let of_ranges = self.ranges.iter().map(|(from, to)| from.len() + to.len() + 48);
        self.bytes.len() + size_of_val::<[Entry]>(&self.entries) + of_ranges.sum::<usize>()
    }

    /// The place of the first row at or behind `key`.
    pub fn seek(&self, key: &[u8]) -> usize {
        self.entries.partition_point(|entry| self.key(entry) < key)
    }

    /// The row at a place.
    pub fn row(&self, at: usize) -> Option<(&[u8], Row<'_>)> {
        let entry = self.entries.get(at)?;
        let begin = entry.at + entry.key as usize;
        let row = match entry.value {
            DELETED => Row::Deleted,
            length => Row::Put(&self.bytes[begin..begin + length as usize]),
        };
        Some((self.key(entry), row))
    }

    /// What the row of a key has become, if this file says.
    pub fn get(&self, key: &[u8]) -> Option<Row<'_>> {
        match self.row(self.seek(key)) {
            Some((found, row)) if found == key => Some(row),
            _ => self.deletes(key).then_some(Row::Deleted),
        }
    }

    /// Whether it deletes a row of an older file.
    pub fn deletes(&self, key: &[u8]) -> bool {
        let after = self.ranges.partition_point(|(from, _)| from.as_slice() <= key);
        let in_range = after.checked_sub(1).is_some_and(|before| key < self.ranges[before].1.as_slice());
        in_range || self.groups.iter().any(|groups| groups.include(key))
    }

    fn key(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.at..entry.at + entry.key as usize]
    }
}

impl Groups {
    fn include(&self, key: &[u8]) -> bool {
        let group = || group_of_row(key.get(2..)?, self.width);
        self.from.as_slice() <= key
            && key < self.to.as_slice()
            && group().is_some_and(|group| (self.groups.start..self.groups.end).contains(&group))
    }
}

/// A run that is being made.
#[derive(Default)]
struct Building {
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    groups: Vec<Groups>,
    bytes: usize,
}

impl Changes for Building {
    fn set(&mut self, key: Vec<u8>, value: Option<&[u8]>) -> Result<()> {
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        self.rows.insert(key, value.map(<[u8]>::to_vec));
        Ok(())
    }

    fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) -> Result<()> {
        if from < to {
            let within = self.rows.range(from.clone()..to.clone()).map(|(key, _)| key.clone());
            let within: Vec<Vec<u8>> = within.collect();
            within.iter().for_each(|key| _ = self.rows.remove(key));
            self.ranges.push((from, to));
        }
        Ok(())
    }

    fn delete_groups(
        &mut self,
        from: Vec<u8>,
        to: Vec<u8>,
        width: usize,
        groups: KeyGroupRange,
    ) -> Result<()> {
        let deleted = Groups { from, to, width, groups };
        self.rows.retain(|key, _| !deleted.include(key));
        self.groups.push(deleted);
        Ok(())
    }
}

impl Building {
    fn freeze(self) -> Run {
        let mut bytes = Vec::with_capacity(self.bytes);
        let mut entries = Vec::with_capacity(self.rows.len());
        for (key, value) in self.rows {
            let length = value.as_ref().map_or(DELETED, |value| value.len() as u32);
            entries.push(Entry { at: bytes.len(), key: key.len() as u32, value: length });
            bytes.extend_from_slice(&key);
            bytes.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        Run {
            bytes: bytes.into(),
            entries: entries.into(),
            ranges: disjoint(self.ranges),
            groups: self.groups,
        }
    }
}

/// The same ranges, in order, those that touch as one.
fn disjoint(mut ranges: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    ranges.sort_unstable();
    let mut joined: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match joined.last_mut() {
            Some((_, end)) if from <= *end => {
                if *end < to {
                    *end = to;
                }
            }
            _ => joined.push((from, to)),
        }
    }
    joined
}
