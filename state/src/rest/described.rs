//! State at rest as its description has it: for tools that do not have the types.

use super::cursor::Cursor;
use super::{Entries, Image, RowParts, StateImage, same_list};
use crate::described::{Shape, Types, opaque};
use crate::error::{Result, StateError};
use crate::handle::StateKind;
use crate::snapshot::{StateDescription, TableMeta};
use crate::table::window::Namespace;
use serde_json::Value;

/// An entry of a state, read without its types.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedEntry {
    /// The key group that the key belongs to.
    pub group: u16,
    /// What a window's operator calls the slice, or when a timer fires: times in milliseconds. Empty for states of handles.
    pub times: Vec<i64>,
    /// The key.
    pub key: Value,
    /// The key within a map.
    pub map_key: Option<Value>,
    /// The value; of a list, all of its items; of a timer, nothing.
    pub value: Value,
    /// How many bytes it takes, encoded: its keys and its value.
    pub bytes: u64,
}

/// How the rows of a table are read.
struct Reading<'a> {
    types: &'a Types,
    table: &'a TableMeta,
    keys: Vec<Shape>,
    value: Shape,
}

impl<'a> Reading<'a> {
    fn of(table: &'a TableMeta, types: &'a Types) -> Reading<'a> {
        let unknown = || vec![Shape::Named(table.schema.clone(), Vec::new())];
        let mut shapes = Shape::parse_schema(&table.schema).unwrap_or_else(|_| unknown());
        let unit = Shape::Tuple(Vec::new());
        // Timers have keys alone.
        let value = if table.kind == StateKind::Timers { unit } else { shapes.pop().unwrap_or(unit) };
        // The first type of a window is that of its slices, which are encoded in another way.
        let keys = shapes.split_off(usize::from(table.kind == StateKind::Window && !shapes.is_empty()));
        Reading { types, table, keys, value }
    }

    fn entry(&self, row: &[u8], value: &[u8]) -> Option<DescribedEntry> {
        let width = self.table.namespace_width as usize;
        let (namespace, behind) = row.split_at_checked(width)?;
        let (group, mut place) = behind.split_first_chunk()?;
        if self.table.kind == StateKind::List {
            // The number of the chunk.
            place = place.get(..place.len().checked_sub(size_of::<u64>())?)?;
        }
        let bytes = (place.len() + value.len()) as u64;
        let mut keys = self.keys.iter().map(|shape| self.types.read(shape, &mut place)).collect::<Vec<_>>();
        let map_key = (keys.len() > 1).then(|| keys.pop()).flatten();
        Some(DescribedEntry {
            group: u16::from_be_bytes(*group),
            times: namespace.chunks_exact(i64::WIDTH).filter_map(i64::from_bytes).collect(),
            key: keys.pop().unwrap_or_else(|| opaque("key", place)),
            map_key,
            value: self.value(value),
            bytes,
        })
    }

    fn value(&self, mut bytes: &[u8]) -> Value {
        if self.table.kind != StateKind::List {
            return self.types.read_all(&self.value, bytes);
        }
        let mut items = Vec::new();
        while !bytes.is_empty() {
            items.push(self.types.read(&self.value, &mut bytes));
        }
        Value::Array(items)
    }

    /// What rows of this key begin with behind their key group.
    fn place(&self, key: &Value) -> Result<Vec<u8>, String> {
        let mut place = Vec::new();
        let shape = self.keys.first().ok_or("the state has no keys")?;
        self.types.write(shape, key, &mut place)?;
        Ok(place)
    }
}

impl<R: RowParts> Image<R> {
    fn described_table(&self, state: &StateDescription) -> Result<&TableMeta> {
        let found = self.tables.iter().find(|table| table.is_called(&state.name, state.kind));
        found.ok_or_else(|| StateError::NoSuchState {
            operator: self.operator.clone(),
            state: format!("{} {}", state.kind, state.name),
            existing: self.tables.iter().map(|table| format!("{} {}", table.kind, table.name)).collect(),
        })
    }
}

impl StateImage {
    /// All entries of a state, read by its description and what `types` knows besides. One page and one list are in memory at a time.
    ///
    /// # Errors
    /// There is no such state. Items are errors where rows cannot be read.
    pub fn described<'a>(
        &'a self,
        state: &StateDescription,
        types: &'a Types,
    ) -> Result<Entries<'a, DescribedEntry>> {
        let table = self.described_table(state)?;
        let (reading, mut cursor) = (Reading::of(table, types), Cursor::over(table));
        let next = move || self.next_described(&mut cursor, &reading);
        Ok(Entries { next: Box::new(next), is_over: false })
    }

    /// The entries of one key, as far as its type is known. The group of a key is a matter of its type, so all groups are looked at: costs a
    /// look-up a group, and for windows and timers reading all of them.
    ///
    /// # Errors
    /// As [`StateImage::described`], or `key` is not of the type of the state's keys.
    pub fn described_at(
        &self,
        state: &StateDescription,
        types: &Types,
        key: &Value,
    ) -> Result<Vec<DescribedEntry>> {
        let table = self.described_table(state)?;
        let reading = Reading::of(table, types);
        let place = reading.place(key).map_err(|problem| StateError::Mismatch {
            operator: self.operator.clone(),
            reason: format!("looking for a key of state {}: {problem}", state.name),
        })?;
        if !table.kind.has_handle() {
            let same =
                |entry: &Result<DescribedEntry>| entry.as_ref().map_or(true, |entry| entry.key == *key);
            return self.described(state, types)?.filter(same).collect();
        }
        let is_prefix = matches!(table.kind, StateKind::List | StateKind::Map);
        let mut found = Vec::new();
        for part in 0..self.parts.count() {
            let range = self.parts.range(part);
            for group in range.start..range.end {
                let row = [&group.to_be_bytes(), &*place].concat();
                let mut cursor = Cursor::at(table, part, &row, is_prefix);
                while let Some(entry) = self.next_described(&mut cursor, &reading)? {
                    found.push(entry);
                }
            }
        }
        Ok(found)
    }

    fn next_described(&self, cursor: &mut Cursor, reading: &Reading<'_>) -> Result<Option<DescribedEntry>> {
        let Some((row, value)) = cursor.next(&self.parts)? else { return Ok(None) };
        let mut value = value.into_vec();
        if reading.table.kind == StateKind::List {
            let prefix = row.len().saturating_sub(size_of::<u64>());
            while cursor.peek(&self.parts)?.is_some_and(|next| same_list(&row[..prefix], next)) {
                let Some((_, more)) = cursor.next(&self.parts)? else { break };
                value.extend_from_slice(&more);
            }
        }
        let entry = reading.entry(&row, &value);
        let short = || StateError::Mismatch {
            operator: self.operator.clone(),
            reason: format!("a row of state {} has only {} bytes", reading.table.name, row.len()),
        };
        entry.map(Some).ok_or_else(short)
    }
}
