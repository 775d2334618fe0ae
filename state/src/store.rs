//! One task's state: its tables, its backend, its snapshots.

mod expiring;
pub(crate) mod opening;
mod rehearsal;

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;

pub use self::expiring::{ExpiringListTable, ExpiringMapTable, ExpiringValueTable};
use self::opening::{Asked, MayOpen, of_handle};
pub use self::rehearsal::{Finding, Rehearsal, Verdict};
use crate::backend::Backends;
use crate::budget::MemoryBudget;
use crate::codec::{self, StateValue};
use crate::delta::DeltaWriter;
use crate::error::{Result, StateError};
use crate::expire::{Expiry, Turn};
use crate::handle::{List, Map, Reducing, StateKind, Value};
use crate::key::{DEFAULT_KEY_GROUPS, Key, KeyGroupRange};
use crate::latest::Questions;
use crate::limits::Limits;
use crate::migrate::Migrations;
use crate::schema::schema_of;
use crate::scope::{Cold, SharedCold};
use crate::snapshot::chain::Chain;
use crate::snapshot::restore::{Restored, restore};
use crate::snapshot::{META_VERSION, Meta, RestorePart, Snapshot, TableMeta};
use crate::table::list::ListTable;
use crate::table::map::MapTable;
use crate::table::timers::{TIME_WIDTH, Timers};
use crate::table::value::ValueTable;
use crate::table::waiting::{self, WaitingRow, WaitingTable};
use crate::table::window::{Namespace, WindowTable};
use crate::table::{ErasedTable, Flush, Part};

/// How many records ahead [`KeyedStore::warm`] pays: enough misses at once to fill the memory's queue, few enough that their pages are
/// still in the processor's translation buffer when the records' turn comes.
pub const WARM_CHUNK: usize = 16;

/// Whose state a store is.
#[derive(Clone, Debug)]
pub struct StoreSpec {
    /// The operator's uid: names the state in errors, and with the range the backend's directory.
    pub operator: String,
    /// How many key groups the flow has; fixed for its life.
    pub groups: u16,
    /// The key groups of this task.
    pub range: KeyGroupRange,
    /// Shared by all stores of the engine.
    pub budget: MemoryBudget,
    /// When to rebase and how much to evict.
    pub limits: Limits,
}

impl StoreSpec {
    /// All of the default number of key groups, with no limit on memory.
    pub fn new(operator: impl Into<String>) -> Self {
        Self {
            operator: operator.into(),
            groups: DEFAULT_KEY_GROUPS,
            range: KeyGroupRange::all(DEFAULT_KEY_GROUPS),
            budget: MemoryBudget::unlimited(),
            limits: Limits::default(),
        }
    }
}

/// A table of a store: what an operator keeps instead of its name. Of use only with the store that made it.
pub struct TableId<T> {
    index: u16,
    table: PhantomData<fn() -> T>,
}

impl<T> Clone for TableId<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for TableId<T> {}
impl<T> fmt::Debug for TableId<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableId({})", self.index)
    }
}

/// A handle as it was resolved before: the address of its name and the type of its table.
struct Resolved {
    name: *const u8,
    length: usize,
    table: TypeId,
    index: u16,
}

// SAFETY: the pointer is only compared, never read; it came from a `&'static str`.
unsafe impl Send for Resolved {}

/// The keyed state of one task, owned by it and used from one thread at a time.
///
/// After an error of any method the store must be dropped and restored from the last snapshot: what was applied is unknown.
pub struct KeyedStore {
    spec: StoreSpec,
    operator: Arc<str>,
    tables: Vec<Box<dyn ErasedTable>>,
    /// What `tables` were boxed as.
    types: Vec<TypeId>,
    resolved: Vec<Resolved>,
    /// All tables that the snapshots name, by their order of registration first.
    known: Vec<TableMeta>,
    layout: Option<String>,
    restored: Restored,
    cold: SharedCold,
    chain: Chain,
    /// By the name of the state.
    migrations: Vec<(&'static str, Migrations)>,
    may_open: MayOpen,
    /// The time of the access in hand.
    time: i64,
    /// No access is below it; `None` as long as nobody tells time.
    horizon: Option<i64>,
    /// What the backend may remove; `None` if it does not.
    expiry: Option<Arc<Expiry>>,
    /// One for each table with a time to live.
    turns: Vec<Turn>,
    /// What is noted, if it is a rehearsal.
    rehearsal: Option<Rehearsal>,
    /// Whether tables keep their changes, so that they can be taken back.
    undoable: bool,
    /// What other threads ask, if they may.
    pub(crate) questions: Option<Questions>,
}

impl KeyedStore {
    /// Opens the store of a task: empty, or from the snapshots of all old tasks whose key groups overlap its own.
    ///
    /// With one part of the same range, the base is opened as it is; otherwise the rows of this task's key groups are
    /// copied out of each part's base. Deltas are read when a table is opened.
    ///
    /// # Errors
    /// When files are missing, damaged or of another flow.
    pub fn open(spec: StoreSpec, backends: &dyn Backends, parts: Vec<RestorePart>) -> Result<Self> {
        let operator: Arc<str> = spec.operator.as_str().into();
        let name = format!("{}-{}-{}", spec.operator, spec.range.start, spec.range.end);
        let restoration = restore(&spec, &operator, &name, backends, parts)?;
        let expiry = restoration.backend.expiry();
        let cold = Cold {
            backend: restoration.backend,
            pending: DeltaWriter::default(),
            rebase: restoration.chain.is_none(),
            pending_limit: spec.limits.delta_min,
            value: Vec::new(),
        };
        let chain = restoration.chain.unwrap_or_default();
        Ok(Self {
            operator,
            tables: Vec::new(),
            types: Vec::new(),
            resolved: Vec::new(),
            known: restoration.tables,
            layout: restoration.layout,
            restored: restoration.restored,
            cold: Arc::new(Mutex::new(cold)),
            chain,
            migrations: Vec::new(),
            may_open: MayOpen::Any,
            time: i64::MIN,
            horizon: None,
            expiry,
            turns: Vec::new(),
            rehearsal: None,
            undoable: false,
            questions: None,
            spec,
        })
    }

    /// The key groups of this store.
    pub fn range(&self) -> KeyGroupRange {
        self.spec.range
    }

    /// The number of key groups of the flow.
    pub(crate) fn groups(&self) -> u16 {
        self.spec.groups
    }

    /// How far time has come, as far as anybody has said.
    pub(crate) fn horizon(&self) -> i64 {
        self.horizon.unwrap_or(i64::MIN)
    }

    pub(crate) fn operator_name(&self) -> Arc<str> {
        Arc::clone(&self.operator)
    }

    /// Refuses a state that is not open, or not as it is asked for.
    pub(crate) fn check_open(&self, asked: &Asked<'_>) -> Result<()> {
        let open = self
            .tables
            .iter()
            .filter_map(|table| self.known.iter().find(|known| known.id == table.scope().id));
        let found = open.clone().find(|known| known.is_called(asked.name, asked.kind));
        let Some(found) = found else {
            let existing = open.filter(|known| known.kind.has_handle() == asked.kind.has_handle());
            return Err(StateError::NoSuchState {
                operator: self.operator_name(),
                state: format!("{} {}", asked.kind, asked.name),
                existing: existing
                    .map(|known| format!("{} {} of {}", known.kind, known.name, known.schema))
                    .collect(),
            });
        };
        asked.check(&self.operator, found)?;
        if found.schema_version == asked.version {
            return Ok(());
        }
        let reason =
            format!("state {} is of version {}, not {}", asked.name, found.schema_version, asked.version);
        Err(StateError::Mismatch { operator: self.operator_name(), reason })
    }

    /// The table that is open under a name, if it is a `T`.
    pub(crate) fn opened<T: 'static>(&mut self, name: &str, kind: StateKind) -> Option<&mut T> {
        let id = self.known.iter().find(|known| known.is_called(name, kind))?.id;
        let index = self.tables.iter().position(|table| table.scope().id == id)?;
        let is_it = self.types[index] == TypeId::of::<T>();
        is_it.then(|| self.table(TableId { index: index as u16, table: PhantomData }))
    }

    /// What all tables have charged to the budget, in bytes.
    pub fn memory(&self) -> usize {
        self.tables.iter().map(|table| table.scope().account.held()).sum()
    }

    /// About how many bytes are in the backend.
    pub fn cold_bytes(&self) -> u64 {
        self.cold.lock().backend.bytes()
    }

    /// Says how the operator lays out its rows, where their types do not say it: the windows that its slices are of. It is kept in
    /// snapshots, and rows of one layout are not taken for rows of another.
    ///
    /// # Errors
    /// When the state that was restored has another layout.
    pub fn declare_layout(&mut self, layout: &str) -> Result<()> {
        match &self.layout {
            Some(found) if found != layout => self.refuse(StateError::Layout {
                operator: self.operator.clone(),
                layout: layout.to_owned(),
                found: found.clone(),
            }),
            _ => {
                self.layout = Some(layout.to_owned());
                Ok(())
            }
        }
    }

    /// The table of a handle, opened on first use. The name is looked up: call it once a task, or use
    /// [`value`](Self::value) and its like.
    ///
    /// # Errors
    /// When the name belongs to another kind or type, or the table cannot be restored. So for all of these.
    pub fn value_table<K: Key, V: StateValue>(
        &mut self,
        handle: Value<V>,
    ) -> Result<TableId<ValueTable<K, V>>> {
        let keys = vec![schema_of::<K>()];
        let asked = of_handle::<V>(handle.name(), StateKind::Value, handle.schema_version(), keys);
        self.open_table::<_, V>(asked, |scope, _| ValueTable::open(scope))
    }

    /// The table of a reducing handle.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn reducing_table<K: Key, V: StateValue>(
        &mut self,
        handle: Reducing<V>,
    ) -> Result<TableId<ValueTable<K, V>>> {
        let keys = vec![schema_of::<K>()];
        let asked = of_handle::<V>(handle.name(), StateKind::Reducing, handle.schema_version(), keys);
        self.open_table::<_, V>(asked, |scope, _| ValueTable::open(scope))
    }

    /// The table of a list handle.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn list_table<K: Key, V: StateValue>(&mut self, handle: List<V>) -> Result<TableId<ListTable<K, V>>> {
        let keys = vec![schema_of::<K>()];
        let asked = of_handle::<V>(handle.name(), StateKind::List, handle.schema_version(), keys);
        self.open_table::<_, V>(asked, ListTable::open)
    }

    /// The table of a map handle.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn map_table<K: Key, MK: Key, V: StateValue>(
        &mut self,
        handle: Map<MK, V>,
    ) -> Result<TableId<MapTable<K, MK, V>>> {
        let keys = vec![schema_of::<K>(), schema_of::<MK>()];
        let asked = of_handle::<V>(handle.name(), StateKind::Map, handle.schema_version(), keys);
        self.open_table::<_, V>(asked, |scope, _| MapTable::open(scope))
    }

    /// The window table of this name. Names of windows and timers are an operator's own: a handle of the same name is another state.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn window_table<N: Namespace, K: Key, A: StateValue>(
        &mut self,
        name: &str,
    ) -> Result<TableId<WindowTable<N, K, A>>> {
        let keys = vec![schema_of::<N>(), schema_of::<K>()];
        let asked = Asked { width: N::WIDTH, ..of_handle::<A>(name, StateKind::Window, 1, keys) };
        self.open_table::<_, A>(asked, |scope, _| WindowTable::open(scope))
    }

    /// The table of what waits for a time, of this name. `is_first` says which of one time come before the others; it is asked again when rows
    /// come back from disk. Its rows are those of a window table of `Vec<(i64, u64, V)>`: mark, rank and value of each.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn waiting_table<K: Key, V: StateValue>(
        &mut self,
        name: &str,
        is_first: fn(&V) -> bool,
    ) -> Result<TableId<WaitingTable<K, V>>> {
        let keys = vec![schema_of::<i64>(), schema_of::<K>()];
        let asked = of_handle::<WaitingRow<V>>(name, StateKind::Window, 1, keys);
        let asked = Asked { width: waiting::TIME_WIDTH, ..asked };
        self.open_table::<_, WaitingRow<V>>(asked, |scope, _| WaitingTable::open(scope, is_first))
    }

    /// The timers of this name.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table).
    pub fn timers<K: Key>(&mut self, name: &'static str) -> Result<TableId<Timers<K>>> {
        let asked = Asked { width: TIME_WIDTH, ..of_handle::<K>(name, StateKind::Timers, 1, Vec::new()) };
        self.open_table::<_, K>(asked, |scope, _| Timers::open(scope))
    }

    /// The table of an id: a bounds check and a comparison of types.
    #[inline]
    pub fn table<T: 'static>(&mut self, id: TableId<T>) -> &mut T {
        let index = id.index as usize;
        assert!(self.types[index] == TypeId::of::<T>(), "a table id is used with the store that made it");
        let table: *mut dyn ErasedTable = &mut *self.tables[index];
        // SAFETY: `types[index]` is the type that the table was boxed as, and it is `T`. (Downcasting through `Any` costs two
        // virtual calls, which is what a record may cost.)
        unsafe { &mut *table.cast::<T>() }
    }

    /// The table of a handle, by comparing the address of its name: about a nanosecond once it is open.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), on first use.
    #[inline]
    pub fn value<K: Key, V: StateValue>(&mut self, handle: Value<V>) -> Result<&mut ValueTable<K, V>> {
        self.resolve(handle.name(), |store| store.value_table(handle))
    }

    /// As [`value`](Self::value), for a reducing handle.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), on first use.
    #[inline]
    pub fn reducing<K: Key, V: StateValue>(&mut self, handle: Reducing<V>) -> Result<&mut ValueTable<K, V>> {
        self.resolve(handle.name(), |store| store.reducing_table(handle))
    }

    /// As [`value`](Self::value), for a list handle.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), on first use.
    #[inline]
    pub fn list<K: Key, V: StateValue>(&mut self, handle: List<V>) -> Result<&mut ListTable<K, V>> {
        self.resolve(handle.name(), |store| store.list_table(handle))
    }

    /// As [`value`](Self::value), for a map handle.
    ///
    /// # Errors
    /// As [`value_table`](Self::value_table), on first use.
    #[inline]
    pub fn map<K: Key, MK: Key, V: StateValue>(
        &mut self,
        handle: Map<MK, V>,
    ) -> Result<&mut MapTable<K, MK, V>> {
        self.resolve(handle.name(), |store| store.map_table(handle))
    }

    #[inline(always)]
    fn resolve<T: 'static>(
        &mut self,
        name: &'static str,
        open: impl FnOnce(&mut Self) -> Result<TableId<T>>,
    ) -> Result<&mut T> {
        let wanted = TypeId::of::<T>();
        let known = self.resolved.iter().find(|known| {
            std::ptr::eq(known.name, name.as_ptr()) && known.length == name.len() && known.table == wanted
        });
        let index = match known {
            Some(known) => known.index,
            None => self.resolve_first(name, wanted, open)?,
        };
        Ok(self.table(TableId { index, table: PhantomData }))
    }

    #[cold]
    fn resolve_first<T: 'static>(
        &mut self,
        name: &'static str,
        table: TypeId,
        open: impl FnOnce(&mut Self) -> Result<TableId<T>>,
    ) -> Result<u16> {
        let index = open(self)?.index;
        self.resolved.push(Resolved { name: name.as_ptr(), length: name.len(), table, index });
        Ok(index)
    }

    /// The state as of now. Costs what changed since the last call, but for a rebase (see [`snapshot`](crate::snapshot)).
    ///
    /// # Errors
    /// When something does not encode or cannot be written.
    pub fn snapshot(&mut self, epoch: u64) -> Result<Snapshot> {
        let asked = self.cold.lock().rebase;
        if asked || self.chain.is_outgrown(&self.spec.limits, self.is_incremental()) {
            self.rebase(epoch)?;
        } else {
            self.extend(epoch)?;
        }
        let meta = self.encode_meta()?;
        Ok(self.chain.describe(epoch, self.spec.range, meta))
    }

    /// Adds a delta to the chain.
    fn extend(&mut self, epoch: u64) -> Result<()> {
        let mut delta = std::mem::take(&mut self.cold.lock().pending);
        for table in &mut self.tables {
            table.encode(Part::Changed, &mut delta)?;
        }
        if !delta.is_empty() {
            self.chain.push(epoch, self.spec.range, delta.finish(), &self.spec.limits);
        }
        self.cold.lock().pending = DeltaWriter::reusing(self.chain.spare());
        Ok(())
    }

    /// Replaces the chain by a checkpoint of the backend and one delta of what it lacks.
    fn rebase(&mut self, epoch: u64) -> Result<()> {
        let mut delta = self.bounded_unflushed()?;
        let files = self.cold.lock().backend.checkpoint(epoch)?;
        let bytes = if delta.is_empty() { Vec::new() } else { delta.finish() };
        self.chain.replace(epoch, self.spec.range, files, bytes);
        let mut cold = self.cold.lock();
        cold.rebase = false;
        cold.pending = DeltaWriter::reusing(self.chain.spare());
        Ok(())
    }

    /// A delta of everything that the backend lacks, after flushing to a backend with cheap checkpoints what would make it too large.
    fn bounded_unflushed(&mut self) -> Result<DeltaWriter> {
        if !self.is_incremental() {
            return self.unflushed(0);
        }
        let most = self.spec.limits.delta_max / 2;
        for which in [Flush::Unused, Flush::All] {
            let delta = self.unflushed(most)?;
            if !delta.is_full() {
                return Ok(delta);
            }
            for table in &mut self.tables {
                table.flush(which)?;
            }
        }
        self.unflushed(0)
    }

    /// A delta of everything that the backend lacks, given up beyond `cap` bytes unless that is 0: tables that nobody opened included.
    fn unflushed(&mut self, cap: usize) -> Result<DeltaWriter> {
        // What was pending is part of what is unflushed; only its memory is of use.
        let mut delta = std::mem::take(&mut self.cold.lock().pending).restarted(cap);
        for table in &mut self.tables {
            table.encode(Part::Unflushed, &mut delta)?;
            if delta.is_full() {
                return Ok(delta);
            }
        }
        self.restored.copy_unopened(&self.known, &mut delta)?;
        Ok(delta)
    }

    fn is_incremental(&self) -> bool {
        self.cold.lock().backend.checkpoint_is_incremental()
    }

    fn encode_meta(&mut self) -> Result<Vec<u8>> {
        for table in &self.tables {
            let id = table.scope().id;
            if let Some(known) = self.known.iter_mut().find(|known| known.id == id) {
                known.counter = table.counter();
            }
        }
        let meta = Meta {
            version: META_VERSION,
            groups: self.spec.groups,
            range: self.spec.range,
            tables: self.known.clone(),
            layout: self.layout.clone(),
            files: self.chain.files(),
        };
        let mut bytes = Vec::new();
        codec::encode_into(&meta, &mut bytes).map_err(|error| StateError::Mismatch {
            operator: self.operator.clone(),
            reason: format!("the snapshot's description does not encode: {error}"),
        })?;
        Ok(bytes)
    }

    /// Says that all files of the snapshot of `epoch` are stored elsewhere, so that later ones may refer to them by name
    /// ([`SnapshotSource::Stored`](crate::SnapshotSource::Stored)) and their memory can be given back.
    ///
    /// Not calling it is safe and keeps deltas in memory until the next rebase.
    pub fn stored(&mut self, epoch: u64) {
        self.chain.stored(epoch);
    }

    /// Lets tables keep what each change since the last [`mark`](Self::mark) replaces, so that [`undo`](Self::undo) can take the changes back.
    /// Costs a look-up and a clone of the old value a change, which is why it is off until this is called.
    ///
    /// Values, lists, maps and timers are kept; window tables are not.
    pub fn make_undoable(&mut self) {
        self.undoable = true;
        self.tables.iter_mut().for_each(|table| table.keep_changes());
    }

    /// From here on [`undo`](Self::undo) takes changes back, and not further.
    pub fn mark(&mut self) {
        self.tables.iter_mut().for_each(|table| table.mark());
    }

    /// Takes back what has changed since the last [`mark`](Self::mark), in a store that [is undoable](Self::make_undoable).
    ///
    /// # Errors
    /// When rows cannot be read or written.
    pub fn undo(&mut self) -> Result<()> {
        if !self.undoable {
            return Ok(());
        }
        self.tables.iter_mut().try_for_each(|table| table.undo())
    }

    /// Brings what look-ups of these hashes will touch into the processor's cache, in all tables. Call it with the hashes of
    /// [`WARM_CHUNK`] records before working on as many others that come first: in tables beyond the cache it halves the cost of the
    /// look-ups, in smaller ones it costs nothing.
    pub fn warm(&self, hashes: &[u64]) {
        self.tables.iter().for_each(|table| table.warm(hashes));
    }

    /// Evicts from the largest tables while the budget is exceeded, whoever exceeds it, at most sixteen batches. Call it once a batch
    /// of records, so that a store which does not grow gives memory back to those that do. Looks for what has expired, too, where
    /// states have a time to live. Answers what other threads have asked ([`mailbox`](Self::mailbox)). Costs one atomic load otherwise.
    ///
    /// # Errors
    /// When entries cannot be spilled.
    #[inline]
    pub fn maintain(&mut self) -> Result<()> {
        if self.questions.is_some() {
            self.answer();
        }
        if !self.turns.is_empty() {
            self.clean()?;
        }
        if self.spec.budget.is_exceeded() { self.give_way() } else { Ok(()) }
    }

    #[cold]
    fn give_way(&mut self) -> Result<()> {
        for _ in 0..16 {
            let evicted = self.evict(self.spec.limits.evict_batch)?;
            if evicted == 0 || !self.spec.budget.is_exceeded() {
                break;
            }
        }
        Ok(())
    }

    /// Evicts about `count` entries from the largest table, whatever the budget; how many it was.
    ///
    /// # Errors
    /// When entries cannot be spilled.
    pub fn evict(&mut self, count: usize) -> Result<usize> {
        match self.tables.iter_mut().max_by_key(|table| table.scope().account.held()) {
            Some(table) => table.evict(count),
            None => Ok(0),
        }
    }

    /// Makes the next snapshot replace the chain of deltas.
    pub fn force_rebase(&mut self) {
        let mut cold = self.cold.lock();
        cold.rebase = true;
        cold.pending.clear();
    }
}

impl fmt::Debug for KeyedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedStore")
            .field("operator", &self.operator)
            .field("range", &self.spec.range)
            .field("tables", &self.tables.len())
            .field("memory", &self.memory())
            .finish_non_exhaustive()
    }
}

/// The ids that a part's tables have in this store.
pub(crate) type Ids = HashMap<u16, u16>;
