//! One file of a snapshot as a sorted run: what it makes of the rows of the files before it.
//!
//! 1. Operations are gone through in order, the later one of a row wins, and a deletion of a range takes rows of the same file before it.
//! 2. What is left is frozen: all bytes in one piece, an index sorted by key over it, and the deleted ranges, disjoint and sorted.
//!
//! 3. One key in sixteen has its first bytes in a table of its own, small enough for a cache: a look-up goes through that, and only then from key to key.
//!
//! A run takes the bytes of its keys and values and 17 bytes a row; while it is made, 24 more and what was overwritten.

use std::collections::BinaryHeap;

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
#[derive(Clone, Copy)]
struct Entry {
    at: usize,
    key: u32,
    value: u32,
}

impl Entry {
    /// Bytes of key and value.
    fn length(&self) -> usize {
        self.key as usize + if self.value == DELETED { 0 } else { self.value as usize }
    }
}

/// Rows of a range that are deleted if they are of some key groups.
struct Groups {
    from: Vec<u8>,
    to: Vec<u8>,
    width: usize,
    groups: KeyGroupRange,
}

/// Rows between two of whose keys the first bytes are in the table.
const STRIDE: usize = 16;

/// The first bytes of a key, padded, as big-endian numbers: these compare as the bytes do.
type First = [u64; 2];

fn first_of(key: &[u8]) -> First {
    let mut padded = [0; 16];
    let length = key.len().min(16);
    padded[..length].copy_from_slice(&key[..length]);
    let first = u128::from_be_bytes(padded);
    [(first >> 64) as u64, first as u64]
}

/// The rows of one file, and what it deletes of older ones.
pub(super) struct Run {
    bytes: Box<[u8]>,
    entries: Box<[Entry]>,
    /// Of each `STRIDE`th entry.
    firsts: Box<[First]>,
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
            // The id comes first.
            Op::Put { row, value } => match row.split_first_chunk() {
                Some((id, row)) => building.set(u16::from_be_bytes(*id), row, Some(value)),
                None => Err(reader.short_row(row.len())),
            },
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
        let of_rows = size_of_val::<[Entry]>(&self.entries) + size_of_val::<[First]>(&self.firsts);
        self.bytes.len() + of_rows + of_ranges.sum::<usize>()
    }

    /// The place of the first row at or behind `key`.
    pub fn seek(&self, key: &[u8]) -> usize {
        let first = first_of(key);
        // Keys with the same first bytes may be on either side of it.
        let below = self.firsts.partition_point(|other| *other < first);
        let above = below + self.firsts[below..].partition_point(|other| *other <= first);
        let from = below.saturating_sub(1) * STRIDE;
        let to = self.entries.len().min(above * STRIDE);
        from + self.entries[from..to].partition_point(|entry| self.key(entry) < key)
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

/// A run that is being made: rows in the order in which they came, and the ranges that were deleted, each with how many rows came before it.
#[derive(Default)]
struct Building {
    bytes: Vec<u8>,
    rows: Vec<Entry>,
    ranges: Vec<(usize, Vec<u8>, Vec<u8>)>,
    groups: Vec<(usize, Groups)>,
}

impl Changes for Building {
    fn set(&mut self, id: u16, row: &[u8], value: Option<&[u8]>) -> Result<()> {
        let (at, key) = (self.bytes.len(), row.len() as u32 + 2);
        let length = value.map_or(DELETED, |value| value.len() as u32);
        self.rows.push(Entry { at, key, value: length });
        self.bytes.extend_from_slice(&id.to_be_bytes());
        self.bytes.extend_from_slice(row);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        Ok(())
    }

    fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) -> Result<()> {
        if from < to {
            self.ranges.push((self.rows.len(), from, to));
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
        self.groups.push((self.rows.len(), Groups { from, to, width, groups }));
        Ok(())
    }
}

impl Building {
    /// Sorts the rows, keeps the last one of each key, and leaves those out that a range behind them deletes.
    fn freeze(self) -> Run {
        let Self { bytes, rows, mut ranges, groups } = self;
        let key = |entry: &Entry| &bytes[entry.at..entry.at + entry.key as usize];
        let order = in_order(&rows, key);
        ranges.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        let mut begun = ranges.iter().peekable();
        // Of the ranges that have begun, the one that was deleted last is on top; those below it may have ended.
        let mut open: BinaryHeap<(usize, &[u8])> = BinaryHeap::new();
        let (mut kept, mut last): (Vec<Entry>, Option<&[u8]>) = (Vec::with_capacity(order.len()), None);
        for Ranked { row: number, .. } in order {
            let key = key(&rows[number]);
            if last.replace(key) == Some(key) {
                continue;
            }
            while let Some((after, _, to)) = begun.next_if(|(_, from, _)| from.as_slice() <= key) {
                open.push((*after, to));
            }
            while open.peek().is_some_and(|(_, to)| *to <= key) {
                open.pop();
            }
            let in_range = open.peek().is_some_and(|(after, _)| number < *after);
            if !in_range && !groups.iter().any(|(after, groups)| number < *after && groups.include(key)) {
                kept.push(rows[number]);
            }
        }
        let ranges = disjoint(ranges.into_iter().map(|(_, from, to)| (from, to)).collect());
        let groups = groups.into_iter().map(|(_, groups)| groups).collect();
        // What was overwritten is not kept for the sake of a copy, unless it is little.
        let (bytes, entries) = compact(bytes, kept);
        let firsts = entries.iter().step_by(STRIDE);
        let firsts = firsts.map(|entry| first_of(&bytes[entry.at..entry.at + entry.key as usize]));
        let firsts = firsts.collect();
        Run { bytes, entries, firsts, ranges, groups }
    }
}

/// A row's place among others: the first bytes of its key decide nearly always, and lie here and not somewhere in the file.
struct Ranked {
    first: First,
    row: usize,
}

/// The rows in the order of their keys, the newest of a key first.
fn in_order<'a>(rows: &[Entry], key: impl Fn(&Entry) -> &'a [u8]) -> Vec<Ranked> {
    let ranked = rows.iter().enumerate().map(|(row, entry)| Ranked { first: first_of(key(entry)), row });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_unstable_by(|a, b| {
        // Where the first bytes are the same, one key may still be longer, or end in zeros that padding looks like.
        let whole = || key(&rows[a.row]).cmp(key(&rows[b.row]));
        a.first.cmp(&b.first).then_with(whole).then(b.row.cmp(&a.row))
    });
    ranked
}

/// The bytes that the entries are of, without others if those are more than a quarter.
fn compact(bytes: Vec<u8>, mut entries: Vec<Entry>) -> (Box<[u8]>, Box<[Entry]>) {
    let used: usize = entries.iter().map(Entry::length).sum();
    if used >= bytes.len() / 4 * 3 {
        return (bytes.into(), entries.into());
    }
    let mut compacted = Vec::with_capacity(used);
    for entry in &mut entries {
        let at = compacted.len();
        compacted.extend_from_slice(&bytes[entry.at..entry.at + entry.length()]);
        entry.at = at;
    }
    (compacted.into(), entries.into())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Keys as alike as can be: of few bytes, with the same first ones, one the beginning of the next, with zeros at their ends.
    fn keys() -> Vec<Vec<u8>> {
        let beginnings = [0, 1, 13, 14, 15].map(|length| vec![7; length]);
        let ends = (0..5_u32).flat_map(|length| (0..3_u8.pow(length)).map(move |number| (length, number)));
        let end = |(length, number): (u32, u8)| (0..length).map(move |at| number / 3_u8.pow(at) % 3);
        let ends: Vec<Vec<u8>> = ends.map(|it| end(it).collect()).collect();
        beginnings.iter().flat_map(|first| ends.iter().map(|end| [&**first, end].concat())).collect()
    }

    #[test]
    fn every_key_is_where_it_belongs_however_alike_they_are() {
        let keys = keys();
        for (step, first) in [(1, 0), (2, 0), (2, 1), (40, 3)] {
            let mut building = Building::default();
            let mut model = BTreeMap::new();
            // Not in order, and some of them twice.
            let some =
                (0..keys.len()).map(|at| at * 7919 % keys.len()).chain((0..keys.len()).rev().step_by(3));
            for (value, key) in some.filter(|at| at % step == first % step).map(|at| &keys[at]).enumerate() {
                let value = value.to_le_bytes();
                building.set(5, key, Some(&value)).expect("a row");
                model.insert(key.clone(), value);
            }
            let run = building.freeze();
            assert_eq!(run.len(), model.len());
            for key in &keys {
                let row = [&[0, 5], &**key].concat();
                assert_eq!(run.get(&row), model.get(key).map(|value| Row::Put(value)), "{key:?} of {step}");
                assert_eq!(run.seek(&row), model.range(..key.clone()).count(), "{key:?} of {step}");
            }
        }
    }
}
