//! State at rest: the state of one operator in a snapshot, read and changed without the program that wrote it.
//!
//! 1. *Opening* ([`StateImage::open`]): each part of a snapshot gets a backend of its own, a scratch, with its base. Its deltas are applied
//!    in order, in batches, one file at a time. From then on a part is what the module [`snapshot`](crate::snapshot) says that a snapshot
//!    means: rows. Memory holds the largest delta file and, where scratch is in memory, the rows.
//! 2. *Reading* a state ([`StateImage::entries`]) checks its kind, types and version by the rules of a start, and then scans rows a page at a
//!    time and decodes them. Values of an older version go through the migrations on their way.
//! 3. *Changing* it ([`StateImage::put`], [`StateImage::update`]) writes rows, into the part that owns the key's group. A state of an older
//!    version is first migrated as a whole, as at a start.
//! 4. *Writing* ([`StateImage::write`]) makes snapshots of the parts that were changed: the backend's own files where the part had such, and
//!    deltas otherwise, which any backend can start from. What was not changed stays what it is, to the byte.
//!
//! Entries come in the order of key group and key bytes within a part, parts in the order in which they were handed in: a function of the
//! snapshot.

mod change;
mod cursor;
mod described;
mod expiring;
pub(crate) mod part;
pub(crate) mod place;
mod write;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use self::cursor::Cursor;
pub use self::described::DescribedEntry;
pub use self::part::Part;
pub use self::place::AtRest;
use self::place::Rows;
pub use self::write::Written;
use crate::backend::{Backends, Visit, successor};
use crate::codec::{self, CodecError, StateValue};
use crate::error::{Result, StateError};
use crate::handle::{List, Map, StateKind};
use crate::hash::hash_key;
use crate::key::{Key, KeyGroup, KeyGroupRange, key_group};
use crate::migrate::{Migrations, Path};
use crate::schema::schema_of;
use crate::snapshot::restore::{check_overlaps, ids_of, layout_of, read_meta, union};
use crate::snapshot::{RestorePart, StateDescription, TableMeta};
use crate::store::opening::{Asked, of_handle};
use crate::table::timers::TIME_WIDTH;
use crate::table::window::Namespace;

/// The state of one operator at rest: all parts of a snapshot, of whatever types. See the [module](self).
pub type StateImage = Image<Vec<Mutex<Part>>>;

/// The state of one operator, as rows that lie in parts `P`, read typed: of a snapshot at rest ([`StateImage`]), or of an epoch of a flow that
/// runs ([`StateView`](crate::StateView)).
pub struct Image<P> {
    pub(crate) operator: Arc<str>,
    pub(crate) groups: u16,
    layout: Option<String>,
    /// All tables of all parts; each part has ids of its own for them.
    pub(crate) tables: Vec<TableMeta>,
    pub(crate) parts: P,
    migrations: Vec<(&'static str, Migrations)>,
}

/// Where the rows of an image lie. Keys begin with the part's own id of the table.
pub trait RowParts {
    /// How many parts there are.
    fn count(&self) -> usize;
    /// The key groups of a part.
    fn range(&self, part: usize) -> KeyGroupRange;
    /// The part's id of a table, by the image's.
    fn id_of(&self, part: usize, table: u16) -> Option<u16>;
    /// Reads a row into `value`; false where there is none.
    fn get(&self, part: usize, key: &[u8], value: &mut Vec<u8>) -> Result<bool>;
    /// Visits the rows of `from..to` in order until told to stop.
    fn scan(&self, part: usize, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()>;
}

impl RowParts for Vec<Mutex<Part>> {
    fn count(&self) -> usize {
        self.len()
    }
    fn range(&self, part: usize) -> KeyGroupRange {
        self[part].lock().range
    }
    fn id_of(&self, part: usize, table: u16) -> Option<u16> {
        self[part].lock().id_of(table)
    }
    fn get(&self, part: usize, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        let mut part = self[part].lock();
        part.flush()?;
        part.backend.get(key, value)
    }
    fn scan(&self, part: usize, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        let mut part = self[part].lock();
        part.flush()?;
        part.backend.scan(from, to, visit)
    }
}

/// The entries of a state at rest, read a page at a time. After an error there are no more.
pub struct Entries<'a, T> {
    next: Box<dyn FnMut() -> Result<Option<T>> + 'a>,
    is_over: bool,
}

impl<T> Iterator for Entries<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.is_over {
            return None;
        }
        let next = (self.next)().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<'a, T> Entries<'a, T> {
    /// Entries made of others.
    pub fn of(mut entries: impl Iterator<Item = Result<T>> + 'a) -> Self {
        Entries { next: Box::new(move || entries.next().transpose()), is_over: false }
    }
}

impl<T> fmt::Debug for Entries<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

/// A table that was found to be what was asked for, and how its rows are to be read.
struct Opened<'a> {
    table: &'a TableMeta,
    /// The steps that values go through, if they are of an older version.
    path: Option<Path<'a>>,
    schema: String,
}

/// One entry, and the rows that it is made of.
struct Entry<P, E> {
    part: usize,
    place: P,
    value: E,
    rows: Vec<Box<[u8]>>,
}

impl StateImage {
    /// Opens the state of `operator`, of a flow of so many key groups, from all parts of its snapshot. Costs linking or copying the base files
    /// and applying the deltas; `backends` makes the scratch, and must know the kind of backend that the base is of.
    ///
    /// # Errors
    /// A file is missing or damaged, or of a backend that `backends` does not open, or parts contradict each other.
    pub fn open(
        operator: &str,
        groups: u16,
        backends: &dyn Backends,
        parts: Vec<RestorePart>,
    ) -> Result<Self> {
        let operator: Arc<str> = operator.into();
        let metas = parts.iter().map(|part| read_meta(groups, &operator, &part.meta));
        let metas = metas.collect::<Result<Vec<_>>>()?;
        check_overlaps(&operator, &metas.iter().map(|meta| meta.range).collect::<Vec<_>>())?;
        let layout = layout_of(&operator, metas.iter())?;
        let tables = union(&operator, metas.iter())?;
        let mut opened = Vec::with_capacity(parts.len());
        for (index, (meta, part)) in metas.iter().zip(&parts).enumerate() {
            let ids = ids_of(meta, &tables).into_iter().map(|(theirs, ours)| (ours, theirs)).collect();
            let name = format!("{operator}-{index}");
            opened.push(Mutex::new(Part::open(&operator, &name, backends, meta, part, ids)?));
        }
        Ok(Self { operator, groups, layout, tables, parts: opened, migrations: Vec::new() })
    }

    /// The empty state of an operator, in a part for each of `ranges`, which must cover all key groups.
    ///
    /// # Errors
    /// A backend cannot be created.
    pub fn empty(
        operator: &str,
        groups: u16,
        backends: &dyn Backends,
        ranges: &[KeyGroupRange],
    ) -> Result<Self> {
        let parts = ranges.iter().enumerate().map(|(index, range)| {
            Ok(Mutex::new(Part::create(&format!("{operator}-{index}"), backends, *range)?))
        });
        Ok(Self {
            operator: operator.into(),
            groups,
            layout: None,
            tables: Vec::new(),
            parts: parts.collect::<Result<_>>()?,
            migrations: Vec::new(),
        })
    }

    /// Says how older versions of the state `name` become the present one; see [`Migrations`].
    pub fn migrate(&mut self, name: &'static str, migrations: Migrations) {
        self.migrations.push((name, migrations));
    }
}

impl<R: RowParts> Image<R> {
    /// An image whose rows are in `parts`.
    pub(crate) fn over(
        operator: Arc<str>,
        groups: u16,
        layout: Option<String>,
        tables: Vec<TableMeta>,
        parts: R,
    ) -> Self {
        Self { operator, groups, layout, tables, parts, migrations: Vec::new() }
    }

    /// The operator.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// What it holds: states of handles, and those that operators keep besides.
    pub fn states(&self) -> Vec<StateDescription> {
        self.tables.iter().map(TableMeta::describe).collect()
    }

    /// All entries of a state: pairs of the place (a key; of a map, a key and a map key) and what is there (of a list, all of its items).
    /// One page and one list are in memory at a time.
    ///
    /// # Errors
    /// There is no such state, or it has another kind, other types, or a version from which nothing leads to that of the handle. Items are
    /// errors where rows cannot be read or decoded.
    pub fn entries<P, H: AtRest<P>>(&self, handle: H) -> Result<Entries<'_, (P, H::Entry)>>
    where
        P: 'static,
    {
        let opened = self.open_table::<H::Single>(handle.asked())?;
        let mut cursor = Cursor::over(opened.table);
        let next = move || {
            let entry = self.next_entry::<P, H>(&mut cursor, &opened)?;
            Ok(entry.map(|entry| (entry.place, entry.value)))
        };
        Ok(Entries { next: Box::new(next), is_over: false })
    }

    /// The items of all lists of a state, with their keys, those of a key in their order: for lists that are larger than memory.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub fn items<K: Key, T: StateValue>(&self, handle: List<T>) -> Result<Entries<'_, (K, T)>> {
        let opened = self.open_table::<T>(Rows::<K>::asked(&handle))?;
        let mut cursor = Cursor::over(opened.table);
        let mut chunk: std::vec::IntoIter<T> = Vec::new().into_iter();
        let mut key: Option<K> = None;
        let next = move || loop {
            if let (Some(item), Some(key)) = (chunk.next(), &key) {
                return Ok(Some((key.clone(), item)));
            }
            let Some((row, value)) = cursor.next(&self.parts)? else { return Ok(None) };
            let failed = |error| self.codec_error(&opened, error);
            key = Some(<List<T> as Rows<K>>::place(&row).map_err(failed)?);
            chunk = opened.read::<K, List<T>>(&value).map_err(failed)?.into_iter();
        };
        Ok(Entries { next: Box::new(next), is_over: false })
    }

    /// What is at one place of a state; `None` if nothing is. Reads no other rows.
    ///
    /// # Errors
    /// As [`entries`](Self::entries), or the place does not encode.
    pub fn get<P, H: AtRest<P>>(&self, handle: H, place: &P) -> Result<Option<H::Entry>> {
        let opened = self.open_table::<H::Single>(handle.asked())?;
        let (part, row) = self.locate::<P, H>(&opened, place)?;
        if H::IS_CHUNKED {
            let mut cursor = Cursor::at(opened.table, part, &row, true);
            return Ok(self.next_entry::<P, H>(&mut cursor, &opened)?.map(|entry| entry.value));
        }
        let Some(id) = self.parts.id_of(part, opened.table.id) else { return Ok(None) };
        let mut value = Vec::new();
        match self.parts.get(part, &[&id.to_be_bytes(), &*row].concat(), &mut value)? {
            true => opened.read::<P, H>(&value).map(Some).map_err(|error| self.codec_error(&opened, error)),
            false => Ok(None),
        }
    }

    /// The entries of a map that are of one key, in the order of the map keys' bytes. Reads no other rows.
    ///
    /// # Errors
    /// As [`entries`](Self::entries), or the key does not encode.
    pub fn entries_of<K: Key, MK: Key, V: StateValue>(
        &self,
        handle: Map<MK, V>,
        key: &K,
    ) -> Result<Entries<'_, (MK, V)>> {
        let opened = self.open_table::<V>(Rows::<(K, MK)>::asked(&handle))?;
        let group = key_group(hash_key(key), self.groups);
        let mut prefix = group.0.to_be_bytes().to_vec();
        codec::encode_into(key, &mut prefix).map_err(|error| self.codec_error(&opened, error))?;
        let mut cursor = Cursor::at(opened.table, self.part_of(group)?, &prefix, true);
        let next = move || {
            let entry = self.next_entry::<(K, MK), Map<MK, V>>(&mut cursor, &opened)?;
            Ok(entry.map(|entry| (entry.place.1, entry.value)))
        };
        Ok(Entries { next: Box::new(next), is_over: false })
    }

    /// The accumulators of windows: of the slices `N` that an operator calls `name`, for each key.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub fn windows<N: Namespace, K: Key, A: StateValue>(&self, name: &str) -> Result<Entries<'_, (N, K, A)>> {
        let keys = vec![schema_of::<N>(), schema_of::<K>()];
        let asked = Asked { width: N::WIDTH, ..of_handle::<A>(name, StateKind::Window, 1, keys) };
        let opened = self.open_table::<A>(asked)?;
        let mut cursor = Cursor::over(opened.table);
        let next = move || {
            let Some((row, value)) = cursor.next(&self.parts)? else { return Ok(None) };
            let namespace = N::from_bytes(&row).ok_or_else(|| self.short_row(&opened, &row))?;
            let key = decode_at(&row, N::WIDTH + 2).map_err(|error| self.codec_error(&opened, error))?;
            let value = codec::decode(&value).map_err(|error| self.codec_error(&opened, error))?;
            Ok(Some((namespace, key, value)))
        };
        Ok(Entries { next: Box::new(next), is_over: false })
    }

    /// The accumulators of one key's windows: of the slices from `from` on and before `to`, in their order. Reads one row a slice, whoever's
    /// it is.
    ///
    /// # Errors
    /// As [`entries`](Self::entries), or the key does not encode.
    pub fn windows_of<N: Namespace, K: Key, A: StateValue>(
        &self,
        name: &str,
        key: &K,
        from: N,
        to: N,
    ) -> Result<Vec<(N, A)>> {
        let keys = vec![schema_of::<N>(), schema_of::<K>()];
        let asked = Asked { width: N::WIDTH, ..of_handle::<A>(name, StateKind::Window, 1, keys) };
        let opened = self.open_table::<A>(asked)?;
        let group = key_group(hash_key(key), self.groups);
        let mut row = group.0.to_be_bytes().to_vec();
        codec::encode_into(key, &mut row).map_err(|error| self.codec_error(&opened, error))?;
        let part = self.part_of(group)?;
        let Some(id) = self.parts.id_of(part, opened.table.id) else { return Ok(Vec::new()) };
        let id = id.to_be_bytes();
        let (mut at, to) = ([&id, from.to_bytes().as_ref()].concat(), [&id, to.to_bytes().as_ref()].concat());
        let (mut found, mut bytes) = (Vec::new(), Vec::new());
        while at < to {
            // The next slice that anybody has.
            let mut slice = None;
            self.parts.scan(part, &at, &to, &mut |key, _| {
                slice = key.get(..id.len() + N::WIDTH).map(<[u8]>::to_vec);
                Ok(ControlFlow::Break(()))
            })?;
            let Some(slice) = slice else { break };
            if self.parts.get(part, &[&*slice, &*row].concat(), &mut bytes)? {
                let namespace =
                    N::from_bytes(&slice[id.len()..]).ok_or_else(|| self.short_row(&opened, &slice))?;
                let value = codec::decode(&bytes).map_err(|error| self.codec_error(&opened, error))?;
                found.push((namespace, value));
            }
            let Some(next) = successor(&slice) else { break };
            at = next;
        }
        Ok(found)
    }

    /// The timers that an operator calls `name`: times in milliseconds and keys.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub fn timers<K: Key>(&self, name: &str) -> Result<Entries<'_, (i64, K)>> {
        let opened = self.open_table::<K>(of_timers::<K>(name))?;
        let mut cursor = Cursor::over(opened.table);
        let next = move || {
            let Some((row, _)) = cursor.next(&self.parts)? else { return Ok(None) };
            let time = i64::from_bytes(&row).ok_or_else(|| self.short_row(&opened, &row))?;
            let key = decode_at(&row, TIME_WIDTH + 2).map_err(|error| self.codec_error(&opened, error))?;
            Ok(Some((time, key)))
        };
        Ok(Entries { next: Box::new(next), is_over: false })
    }

    /// The table that is asked for, by the rules of a start.
    fn open_table<V: 'static>(&self, asked: Asked<'_>) -> Result<Opened<'_>> {
        let found = self.tables.iter().find(|table| table.is_called(asked.name, asked.kind));
        let table = found.ok_or_else(|| self.no_such_state(&asked))?;
        asked.check(&self.operator, table)?;
        let path = match table.schema_version == asked.version {
            true => None,
            false => Some(asked.path::<V>(&self.operator, &self.migrations, table.schema_version)?),
        };
        Ok(Opened { table, path, schema: asked.schema() })
    }

    /// The next entry behind a cursor; of a list, all chunks of it.
    fn next_entry<P, H: AtRest<P>>(
        &self,
        cursor: &mut Cursor,
        opened: &Opened<'_>,
    ) -> Result<Option<Entry<P, H::Entry>>> {
        let Some((row, bytes)) = cursor.next(&self.parts)? else { return Ok(None) };
        let part = cursor.part();
        let failed = |error| self.codec_error(opened, error);
        let place = H::place(&row).map_err(failed)?;
        let mut value = opened.read::<P, H>(&bytes).map_err(failed)?;
        let prefix = row.len().saturating_sub(size_of::<u64>());
        let mut rows = vec![row];
        while H::IS_CHUNKED
            && cursor.peek(&self.parts)?.is_some_and(|next| same_list(&rows[0][..prefix], next))
        {
            let Some((row, bytes)) = cursor.next(&self.parts)? else { break };
            H::extend(&mut value, opened.read::<P, H>(&bytes).map_err(failed)?);
            rows.push(row);
        }
        Ok(Some(Entry { part, place, value, rows }))
    }

    /// The part that owns a place, and the row there, or the prefix of its rows.
    fn locate<P, H: AtRest<P>>(&self, opened: &Opened<'_>, place: &P) -> Result<(usize, Vec<u8>)> {
        let group = key_group(H::hash(place), self.groups);
        let mut row = group.0.to_be_bytes().to_vec();
        H::write(place, &mut row).map_err(|error| self.codec_error(opened, error))?;
        Ok((self.part_of(group)?, row))
    }

    fn part_of(&self, group: KeyGroup) -> Result<usize> {
        let owns = |part: &usize| self.parts.range(*part).contains(group);
        (0..self.parts.count()).find(owns).ok_or_else(|| StateError::Mismatch {
            operator: self.operator.clone(),
            reason: format!("no part of the snapshot has key group {}", group.0),
        })
    }

    fn no_such_state(&self, asked: &Asked<'_>) -> StateError {
        let existing = self.tables.iter().filter(|table| table.kind.has_handle() == asked.kind.has_handle());
        StateError::NoSuchState {
            operator: self.operator.clone(),
            state: format!("{} {}", asked.kind, asked.name),
            existing: existing
                .map(|table| format!("{} {} of {}", table.kind, table.name, table.schema))
                .collect(),
        }
    }

    #[cold]
    fn codec_error(&self, opened: &Opened<'_>, source: CodecError) -> StateError {
        StateError::Codec {
            operator: self.operator.clone(),
            state: opened.table.name.as_str().into(),
            schema: opened.schema.clone(),
            source,
        }
    }

    #[cold]
    fn short_row(&self, opened: &Opened<'_>, row: &[u8]) -> StateError {
        StateError::Mismatch {
            operator: self.operator.clone(),
            reason: format!("a row of state {} has only {} bytes", opened.table.name, row.len()),
        }
    }
}

impl Opened<'_> {
    /// What the bytes of a row hold, migrated if need be.
    fn read<P, H: AtRest<P>>(&self, bytes: &[u8]) -> Result<H::Entry, CodecError> {
        match &self.path {
            None => H::entry(bytes),
            Some(path) => H::entry(&path.apply(bytes)?),
        }
    }
}

fn of_timers<K: Key>(name: &str) -> Asked<'_> {
    Asked { width: TIME_WIDTH, ..of_handle::<K>(name, StateKind::Timers, 1, Vec::new()) }
}

/// Whether a row is of the list whose rows begin with `prefix`. Encodings of keys are prefix-free, so no other key's do.
fn same_list(prefix: &[u8], row: &[u8]) -> bool {
    row.len() == prefix.len() + size_of::<u64>() && row.starts_with(prefix)
}

fn decode_at<T: serde::de::DeserializeOwned + 'static>(row: &[u8], at: usize) -> Result<T, CodecError> {
    codec::decode(row.get(at..).unwrap_or_default())
}

impl<R: RowParts> fmt::Debug for Image<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateImage")
            .field("operator", &self.operator)
            .field("states", &self.states())
            .field("parts", &self.parts.count())
            .finish_non_exhaustive()
    }
}
