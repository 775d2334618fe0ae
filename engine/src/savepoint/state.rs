//! The state of one operator of a savepoint, read without a job.

use super::{Savepoint, failed};
use crate::directory::ScratchFolder;
use crate::parts;
use rivermark_checkpoint::{KeyGroups, TaskState};
use rivermark_operators::{Error, Key, List, Migrations, Result, StateValue, Timestamp};
use rivermark_state::snapshot::RestoreSource;
use rivermark_state::{
    AtRest, Backends, DescribedEntry, KeyGroupRange, MemoryBackends, RestoreFile, RestorePart,
    StateDescription, StateError, StateImage, Types, range_of,
};
use std::fmt;
use std::sync::Arc;

/// Up to so many bytes of state files are read into memory; more, or state that was spilled, goes into a scratch database.
const IN_MEMORY: u64 = 64 << 20;

/// The state of one operator in a savepoint, by [`Savepoint::operator`]: read by the handles of the function that wrote it, and by the rules
/// that hold at a start. Nothing of the savepoint is changed.
///
/// - Entries stream from the files: a page of them is in memory at a time, and of a list all of it (but see [`OperatorState::items`]). What
///   is more than 64 MiB, or was spilled to RocksDB, is read through a scratch database, whose folder [`Savepoint::scratch_in`] names and
///   which is gone with this value.
/// - They come in an order that is a function of the savepoint: by task, key group and key bytes.
/// - Files are not compared with their digests while they are read (their own checksums are); [`Savepoint::verify`] does that.
///
/// As Flink's `SavepointReader`, as a library's function instead of a job.
pub struct OperatorState {
    // Before the scratch that it is in.
    pub(super) image: StateImage,
    /// The savepoint, for errors.
    of: String,
    _scratch: Scratch,
}

/// Entries of a state, each a result: an error ends them. They are read as they are asked for.
pub struct Entries<'a, T> {
    entries: rivermark_state::Entries<'a, T>,
    failed: Box<dyn Fn(StateError) -> Error + 'a>,
}

impl<'a, T> Entries<'a, T> {
    /// Entries whose errors `failed` makes the program's.
    pub(crate) fn new(
        entries: rivermark_state::Entries<'a, T>,
        failed: impl Fn(StateError) -> Error + 'a,
    ) -> Self {
        Entries { entries, failed: Box::new(failed) }
    }
}

impl<T> Iterator for Entries<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        Some(self.entries.next()?.map_err(&self.failed))
    }
}

impl<T> fmt::Debug for Entries<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.fmt(f)
    }
}

impl OperatorState {
    pub(super) fn open(savepoint: &Savepoint, operator: &str) -> Result<OperatorState> {
        let tasks = savepoint.manifest().operators.get(operator);
        let tasks = tasks.ok_or_else(|| savepoint.no_operator(operator, "reading"))?;
        let of = savepoint.to_string();
        let restored = tasks.iter().map(|task| part(savepoint, task));
        let restored = restored.collect::<Result<Vec<_>>>()?;
        let bytes: u64 = tasks.iter().flat_map(|task| &task.files).map(|file| file.content.bytes).sum();
        let is_native = restored.iter().any(RestorePart::is_native);
        if is_native && !cfg!(feature = "rocksdb") {
            let problem = "it was spilled to RocksDB: build this program with the feature `rocksdb`";
            return Err(Error::state(operator, format!("reading savepoint {of}"), problem));
        }
        let scratch = Scratch::new(savepoint, is_native || bytes > IN_MEMORY)?;
        let image = StateImage::open(operator, savepoint.key_groups(), &*scratch.backends, restored);
        let image = image.map_err(|e| Error::state(operator, format!("reading savepoint {of}"), e))?;
        Ok(OperatorState { image, of, _scratch: scratch })
    }

    /// The state of an operator that a savepoint does not have yet.
    pub(super) fn empty(
        savepoint: &Savepoint,
        operator: &str,
        needs_database: bool,
    ) -> Result<OperatorState> {
        let of = savepoint.to_string();
        let scratch = Scratch::new(savepoint, needs_database)?;
        let (groups, workers) = (savepoint.key_groups(), savepoint.manifest().workers);
        let workers = u16::try_from(workers).unwrap_or(u16::MAX).clamp(1, groups);
        let ranges: Vec<KeyGroupRange> =
            (0..workers).map(|worker| range_of(worker, groups, workers)).collect();
        let image = StateImage::empty(operator, groups, &*scratch.backends, &ranges);
        let image = image.map_err(|e| Error::state(operator, format!("adding it to savepoint {of}"), e))?;
        Ok(OperatorState { image, of, _scratch: scratch })
    }

    /// The operator's name.
    pub fn name(&self) -> &str {
        self.image.operator()
    }

    /// What it holds: states of handles, and those that operators keep besides.
    pub fn states(&self) -> Vec<StateDescription> {
        self.image.states()
    }

    /// Says how older versions of the state `name` become the present one, as
    /// [`States::has_migrated`](rivermark_operators::process::States::has_migrated) does.
    #[must_use]
    pub fn migrated(mut self, name: &'static str, migrations: Migrations) -> Self {
        self.image.migrate(name, migrations);
        self
    }

    /// All entries of a state: where each is, and what is there. Of a [`Value`](rivermark_operators::Value) or
    /// [`Reducing`](rivermark_operators::Reducing) these are keys and values, of a [`List`] keys and vectors, of a
    /// [`Map`](rivermark_operators::Map) pairs of a key and a map key, and values.
    ///
    /// ```
    /// # fn main() -> Result<(), rivermark_operators::BoxError> {
    /// use rivermark_engine::Savepoint;
    /// use rivermark_operators::Value;
    ///
    /// const CLICKS: Value<u64> = Value::new("clicks");
    ///
    /// fn most(savepoint: &Savepoint) -> rivermark_operators::Result<Option<(u64, String)>> {
    ///     let sessions = savepoint.operator("sessions")?;
    ///     let clicks = sessions.entries::<String, _>(CLICKS)?;
    ///     let swapped = clicks.map(|entry| entry.map(|(user, clicks)| (clicks, user)));
    ///     Ok(swapped.collect::<rivermark_operators::Result<Vec<_>>>()?.into_iter().max())
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// There is no such state, or it has another kind, other types, or a version from which nothing leads to the handle's; the error names
    /// both, the operator and the savepoint.
    pub fn entries<P: 'static, H: AtRest<P>>(&self, handle: H) -> Result<Entries<'_, (P, H::Entry)>> {
        let entries = self.image.entries::<P, H>(handle);
        self.wrap(entries)
    }

    /// What is at one place of a state, such as a key of a [`Value`](rivermark_operators::Value); `None` if nothing is. Reads nothing else.
    ///
    /// # Errors
    /// As [`OperatorState::entries`].
    pub fn get<P, H: AtRest<P>>(&self, handle: H, place: &P) -> Result<Option<H::Entry>> {
        self.image.get(handle, place).map_err(|error| self.failed("reading", error))
    }

    /// The items of all lists of a state, one by one, with their keys: for lists that are larger than memory.
    ///
    /// # Errors
    /// As [`OperatorState::entries`].
    pub fn items<K: Key, T: StateValue>(&self, handle: List<T>) -> Result<Entries<'_, (K, T)>> {
        let entries = self.image.items(handle);
        self.wrap(entries)
    }

    /// What the windows of an operator hold so far: where each slice of them begins, the key, and the accumulator of the aggregate (of
    /// `count()` a `u64`). A slice is the longest span that no window's edge divides; one may come in several pieces, by the window for which
    /// its records were first on time. Not of sessions, and without what is kept for late records.
    ///
    /// # Errors
    /// As [`OperatorState::entries`].
    pub fn windows<K: Key, A: StateValue>(&self) -> Result<Entries<'_, (Timestamp, K, A)>> {
        let entries = self.image.windows::<(i64, i64), K, A>("slices").map(|entries| {
            rivermark_state::Entries::of(entries.map(|entry| {
                let ((start, _), key, accumulator) = entry?;
                Ok((Timestamp::from_millis(start), key, accumulator))
            }))
        });
        self.wrap(entries)
    }

    /// The timers that an operator calls `name`; a function's are `timers`.
    ///
    /// # Errors
    /// As [`OperatorState::entries`].
    pub fn timers<K: Key>(&self, name: &str) -> Result<Entries<'_, (Timestamp, K)>> {
        let entries = self.image.timers::<K>(name).map(|entries| {
            rivermark_state::Entries::of(entries.map(|entry| {
                let (time, key) = entry?;
                Ok((Timestamp::from_millis(time), key))
            }))
        });
        self.wrap(entries)
    }

    /// All entries of a state by its description, for a tool that does not have the types: what they are as far as the names of the types and
    /// `types` lead, and bytes beyond.
    ///
    /// # Errors
    /// There is no such state.
    pub fn described<'a>(
        &'a self,
        state: &StateDescription,
        types: &'a Types,
    ) -> Result<Entries<'a, DescribedEntry>> {
        self.wrap(self.image.described(state, types))
    }

    /// As [`OperatorState::described`], the entries of one key, which is written as the state's type of keys is: a string, a number, an array
    /// of a tuple's fields. Costs a look-up a key group; of windows and timers, reading all.
    ///
    /// # Errors
    /// As there, or the key is not of the type of the state's keys, or of a type that is not known.
    pub fn described_at(
        &self,
        state: &StateDescription,
        types: &Types,
        key: &serde_json::Value,
    ) -> Result<Vec<DescribedEntry>> {
        self.image.described_at(state, types, key).map_err(|error| self.failed("reading", error))
    }

    fn wrap<'a, T>(
        &'a self,
        entries: std::result::Result<rivermark_state::Entries<'a, T>, StateError>,
    ) -> Result<Entries<'a, T>> {
        let entries = entries.map_err(|error| self.failed("reading", error))?;
        Ok(Entries::new(entries, |error| self.failed("reading", error)))
    }

    pub(super) fn failed(&self, attempt: &str, error: StateError) -> Error {
        Error::state(self.name(), format!("{attempt} savepoint {}", self.of), error)
    }
}

impl fmt::Debug for OperatorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorState")
            .field("of", &self.of)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

/// One task's part of an operator's state, where it lies.
fn part(savepoint: &Savepoint, task: &TaskState) -> Result<RestorePart> {
    let inner = &savepoint.inner;
    let files = task.files.iter().map(|file| {
        let source = match inner.local_path(file) {
            Some(path) => RestoreSource::Path(path),
            None => {
                let bytes = inner.fetch_bytes(file);
                RestoreSource::Bytes(
                    bytes.map_err(|e| failed(format!("reading savepoint {savepoint}"), e))?.into(),
                )
            }
        };
        Ok(RestoreFile { name: file.name.clone(), role: parts::restored_role(file.role), source })
    });
    Ok(RestorePart { meta: task.meta.0.clone(), files: files.collect::<Result<_>>()? })
}

/// The other direction of a task's key groups.
pub(super) fn groups(range: KeyGroupRange) -> KeyGroups {
    KeyGroups { start: range.start, end: range.end }
}

/// Where state at rest is laid out.
struct Scratch {
    backends: Arc<dyn Backends>,
    _folder: Option<ScratchFolder>,
}

impl Scratch {
    fn new(savepoint: &Savepoint, needs_database: bool) -> Result<Scratch> {
        if needs_database {
            return Scratch::database(savepoint);
        }
        Ok(Scratch { backends: Arc::new(MemoryBackends), _folder: None })
    }

    #[cfg(feature = "rocksdb")]
    fn database(savepoint: &Savepoint) -> Result<Scratch> {
        use rivermark_state::{MemoryBudget, RocksBackends, RocksOptions};
        let folder = ScratchFolder::create(savepoint.scratch.as_deref())?;
        let options = RocksOptions { cache: 32 << 20, write_buffers: 16 << 20, background_jobs: 2 };
        let backends = RocksBackends::new(folder.path(), &MemoryBudget::unlimited(), options);
        let backends = backends.map_err(|e| {
            Error::engine(format!("opening a scratch database in {}", folder.path().display()), e)
        })?;
        Ok(Scratch { backends: Arc::new(backends), _folder: Some(folder) })
    }

    /// Without RocksDB all of it is in memory.
    #[cfg(not(feature = "rocksdb"))]
    fn database(_: &Savepoint) -> Result<Scratch> {
        Ok(Scratch { backends: Arc::new(MemoryBackends), _folder: None })
    }
}
