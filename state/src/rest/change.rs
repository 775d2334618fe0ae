//! Changing state at rest.

use super::part::Part;
use super::place::AtRest;
use super::{Cursor, Opened, StateImage, of_timers};
use crate::codec;
use crate::error::{Result, StateError};
use crate::hash::hash_key;
use crate::key::{Key, key_group};
use crate::store::opening::Asked;
use crate::table::window::Namespace;

impl StateImage {
    /// Puts an entry where there may be another; the state begins to be if it was not. An empty list is removed.
    ///
    /// # Errors
    /// As [`entries`](Self::entries), but for a state that is not there; or something does not encode, or cannot be written.
    pub fn put<P, H: AtRest<P>>(&mut self, handle: H, place: P, entry: H::Entry) -> Result<()> {
        self.put_all(handle, [(place, entry)]).map(|_| ())
    }

    /// As [`put`](Self::put), one entry after another; the last of a place counts. Answers how many they were.
    ///
    /// # Errors
    /// As there. Entries before the one that failed are put.
    pub fn put_all<P, H: AtRest<P>>(
        &mut self,
        handle: H,
        entries: impl IntoIterator<Item = (P, H::Entry)>,
    ) -> Result<u64> {
        let id = self.open_to_put::<H::Single>(&handle.asked())?;
        let mut number = self.tables.iter().find(|table| table.id == id).map_or(0, |table| table.counter);
        let opened = self.open_table::<H::Single>(handle.asked())?;
        let (mut count, mut bytes) = (0, Vec::new());
        for (place, entry) in entries {
            let (part, mut row) = self.locate::<P, H>(&opened, &place)?;
            bytes.clear();
            H::encode(&entry, &mut bytes).map_err(|error| self.codec_error(&opened, error))?;
            number += 1;
            count += 1;
            self.in_part(part, id, |part, id| {
                if H::IS_CHUNKED {
                    part.delete_prefix_if_any(id, &row)?;
                    row.extend_from_slice(&number.to_be_bytes());
                }
                if H::is_empty(&entry) { Ok(()) } else { part.put(id, &row, &bytes) }
            })?;
        }
        if let Some(table) = self.tables.iter_mut().find(|table| table.id == id) {
            table.counter = table.counter.max(if H::IS_CHUNKED { number } else { 0 });
        }
        Ok(count)
    }

    /// Removes the entry of a place, if there is one.
    ///
    /// # Errors
    /// As [`entries`](Self::entries), or it cannot be written.
    pub fn remove<P, H: AtRest<P>>(&mut self, handle: H, place: &P) -> Result<()> {
        let id = self.open_to_change::<H::Single>(&handle.asked())?;
        let opened = self.open_table::<H::Single>(handle.asked())?;
        let (part, row) = self.locate::<P, H>(&opened, place)?;
        self.in_part(part, id, |part, id| match H::IS_CHUNKED {
            true => part.delete_prefix(id, &row),
            false => part.delete(id, &row),
        })
    }

    /// Puts in the place of every entry what `change` makes of it, and removes it where that is `None`. Answers how many entries there were.
    /// One page of them is in memory at a time.
    ///
    /// # Errors
    /// As [`entries`](Self::entries), or something does not encode or cannot be written; then some entries are changed and some are not.
    pub fn update<P, H: AtRest<P>>(
        &mut self,
        handle: H,
        mut change: impl FnMut(&P, H::Entry) -> Option<H::Entry>,
    ) -> Result<u64> {
        let id = self.open_to_change::<H::Single>(&handle.asked())?;
        let opened = self.open_table::<H::Single>(handle.asked())?;
        let (mut cursor, mut count, mut bytes) = (Cursor::over(opened.table), 0, Vec::new());
        while let Some(entry) = self.next_entry::<P, H>(&mut cursor, &opened)? {
            count += 1;
            let changed = change(&entry.place, entry.value).filter(|changed| !H::is_empty(changed));
            bytes.clear();
            if let Some(changed) = &changed {
                H::encode(changed, &mut bytes).map_err(|error| self.codec_error(&opened, error))?;
            }
            // All rows of the entry have been read: what the first becomes is not read again.
            let kept = usize::from(changed.is_some());
            self.in_part(entry.part, id, |part, id| {
                entry.rows[..kept].iter().try_for_each(|row| part.put(id, row, &bytes))?;
                entry.rows[kept..].iter().try_for_each(|row| part.delete(id, row))
            })?;
        }
        Ok(count)
    }

    /// Registers a timer among those that an operator calls `name`, at `time` milliseconds.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_timer<K: Key>(&mut self, name: &str, time: i64, key: &K) -> Result<()> {
        let id = self.open_to_put::<K>(&of_timers::<K>(name))?;
        let (part, row) = self.timer::<K>(name, time, key)?;
        self.in_part(part, id, |part, id| part.put(id, &row, &[]))
    }

    /// Removes a timer, if there is one.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn remove_timer<K: Key>(&mut self, name: &str, time: i64, key: &K) -> Result<()> {
        let id = self.open_to_change::<K>(&of_timers::<K>(name))?;
        let (part, row) = self.timer::<K>(name, time, key)?;
        self.in_part(part, id, |part, id| part.delete(id, &row))
    }

    /// Removes a state that a handle names, with all of its entries. Answers whether there was one.
    ///
    /// # Errors
    /// Rows cannot be deleted.
    pub fn drop_state(&mut self, name: &str) -> Result<bool> {
        let is_it = |table: &crate::snapshot::TableMeta| table.name == name && table.kind.has_handle();
        let Some(at) = self.tables.iter().position(is_it) else { return Ok(false) };
        let id = self.tables.remove(at).id;
        for part in &mut self.parts {
            let part = part.get_mut();
            part.is_changed = true;
            // The id stays taken, so that no other table finds anything of it.
            if let Some(theirs) = part.id_of(id) {
                part.delete_prefix(theirs, &[])?;
            }
        }
        Ok(true)
    }

    /// The part and row of a timer.
    fn timer<K: Key>(&self, name: &str, time: i64, key: &K) -> Result<(usize, Vec<u8>)> {
        let opened = self.open_table::<K>(of_timers::<K>(name))?;
        let group = key_group(hash_key(key), self.groups);
        let mut row = time.to_bytes().to_vec();
        row.extend_from_slice(&group.0.to_be_bytes());
        codec::encode_into(key, &mut row).map_err(|error| self.codec_error(&opened, error))?;
        Ok((self.part_of(group)?, row))
    }

    /// The id of the table that is asked for, which is new if it was not there.
    fn open_to_put<V: 'static>(&mut self, asked: &Asked<'_>) -> Result<u16> {
        if !self.tables.iter().any(|table| table.is_called(asked.name, asked.kind)) {
            self.check_keys(asked)?;
            let ids = self.parts.iter().flat_map(|part| part.lock().ids.keys().copied().collect::<Vec<_>>());
            let id = ids.chain(self.tables.iter().map(|table| table.id)).map(|id| id + 1).max().unwrap_or(0);
            self.tables.push(asked.new_table(id));
            for part in &mut self.parts {
                part.get_mut().add_table(id);
                part.get_mut().is_changed = true;
            }
        }
        self.open_to_change::<V>(asked)
    }

    /// A state that is new has the keys of the operator's others, or the program would find it only to stumble over the next.
    fn check_keys(&self, asked: &Asked<'_>) -> Result<()> {
        let key_of = |table: &crate::snapshot::TableMeta| {
            table.kind.has_handle().then(|| table.schema.split(" -> ").next().map(str::to_owned)).flatten()
        };
        let other = self.tables.iter().find(|table| key_of(table).is_some());
        match (other, asked.keys.first()) {
            (Some(other), Some(key)) if asked.kind.has_handle() && key_of(other).as_ref() != Some(key) => {
                Err(StateError::Schema {
                    operator: self.operator.clone(),
                    state: other.name.as_str().into(),
                    kind: asked.kind,
                    schema: asked.schema(),
                    found_kind: other.kind,
                    found_schema: other.schema.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// The id of the table that is asked for; one of an older version is migrated.
    fn open_to_change<V: 'static>(&mut self, asked: &Asked<'_>) -> Result<u16> {
        let Opened { table, path, schema } =
            self.open_table::<V>(Asked { keys: asked.keys.clone(), value: asked.value.clone(), ..*asked })?;
        let id = table.id;
        let Some(path) = path else { return Ok(id) };
        let found = table.clone();
        let operator = &self.operator;
        let failed = |source| StateError::Codec {
            operator: operator.clone(),
            state: found.name.as_str().into(),
            schema: found.schema.clone(),
            source,
        };
        for part in &self.parts {
            let mut part = part.lock();
            part.flush()?;
            part.is_changed = true;
            if let Some(theirs) = part.id_of(id) {
                path.rewrite(&mut *part.backend, theirs, failed)?;
            }
        }
        let table = self.tables.iter_mut().find(|table| table.id == id);
        let table = table.expect("it was found above");
        (table.schema, table.schema_version) = (schema, asked.version);
        Ok(id)
    }

    /// Changes a part, by its own id of a table.
    fn in_part(
        &self,
        part: usize,
        table: u16,
        change: impl FnOnce(&mut Part, u16) -> Result<()>,
    ) -> Result<()> {
        let mut part = self.parts[part].lock();
        part.is_changed = true;
        let id = part.add_table(table);
        change(&mut part, id)
    }
}
