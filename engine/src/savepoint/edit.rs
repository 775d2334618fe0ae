//! Making a savepoint of another one with other state.

use super::state::{OperatorState, groups};
use super::{Savepoint, failed, folder};
use crate::parts;
use rivermark_checkpoint::{
    Blob, FileRef, Filling, Place, SavepointError, Source, StateFile, TaskId, TaskState,
};
use rivermark_operators::{BoxError, Error, Key, Migrations, Result, Timestamp};
use rivermark_state::{AtRest, KeyGroupRange, SnapshotFile, SnapshotSource, StateError, Written};
use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;
use std::path::Path;

/// Makes a new savepoint of one: its state changed where somebody changes it, everything else (positions in the sources, watermarks, other
/// operators, to the byte) as it is. The old one is never changed. By [`Savepoint::edit`].
///
/// Nothing is written before [`SavepointEditor::write_to`]. Until then changes are in memory, or in a scratch database as
/// [`OperatorState`] says.
///
/// As Flink's `SavepointWriter`.
///
/// ```
/// use rivermark_engine::Savepoint;
/// use rivermark_operators::{Result, Value};
///
/// const CLICKS: Value<u64> = Value::new("clicks");
/// const LIMIT: Value<u32> = Value::new("limit");
///
/// /// Halves what was counted twice, forgets a user, and gives the new operator `limits` something to begin with.
/// fn corrected(savepoint: &Savepoint, to: &std::path::Path) -> Result<Savepoint> {
///     let mut editor = savepoint.edit();
///     let mut sessions = editor.operator("sessions")?;
///     sessions.update(CLICKS, |_user: &String, clicks| Some(clicks / 2))?;
///     sessions.remove(CLICKS, &"test".to_string())?;
///     let limits = [("ann".to_string(), 10), ("bob".to_string(), 20)];
///     editor.add_operator("limits")?.put_all(LIMIT, limits)?;
///     editor.drop_operator("experiment")?;
///     editor.write_to(to)
/// }
/// ```
#[derive(Debug)]
pub struct SavepointEditor {
    from: Savepoint,
    name: String,
    /// What was done about operators, by name.
    edits: BTreeMap<String, Edit>,
}

#[derive(Debug)]
enum Edit {
    /// Its state was opened for changes.
    Changed(OperatorState),
    /// It is added.
    Added(OperatorState),
    /// It is dropped.
    Dropped,
}

/// The state of one operator, for changing it; by [`SavepointEditor::operator`]. It can be read, too, as an [`OperatorState`]: with what was
/// changed so far.
///
/// A state of an older version than the handle's is first migrated as a whole.
#[derive(Debug)]
pub struct OperatorEditor<'a>(&'a mut OperatorState);

impl Deref for OperatorEditor<'_> {
    type Target = OperatorState;

    fn deref(&self) -> &OperatorState {
        self.0
    }
}

impl SavepointEditor {
    pub(super) fn new(from: &Savepoint) -> SavepointEditor {
        SavepointEditor { from: from.clone(), name: from.name().to_owned(), edits: BTreeMap::new() }
    }

    /// Gives the new savepoint another name than the old one's.
    pub fn named(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = name.into();
        self
    }

    /// The state of an operator, for changing it.
    ///
    /// # Errors
    /// The savepoint has none of that name, or it was dropped; or its state cannot be read.
    pub fn operator(&mut self, name: &str) -> Result<OperatorEditor<'_>> {
        if !self.edits.contains_key(name) {
            let state = OperatorState::open(&self.from, name)?;
            self.edits.insert(name.to_owned(), Edit::Changed(state));
        }
        match self.edits.get_mut(name) {
            Some(Edit::Changed(state) | Edit::Added(state)) => Ok(OperatorEditor(state)),
            _ => Err(self.from.no_operator(name, "editing")),
        }
    }

    /// Adds an operator without state, for putting some into it: what a flow that has an operator of this name will find (Flink's bootstrap).
    /// It fills the place of one that was dropped.
    ///
    /// # Errors
    /// The savepoint has one of that name.
    pub fn add_operator(&mut self, name: &str) -> Result<OperatorEditor<'_>> {
        let is_dropped = matches!(self.edits.get(name), Some(Edit::Dropped));
        let is_there = self.from.manifest().operators.contains_key(name) || self.edits.contains_key(name);
        if is_there && !is_dropped {
            let problem = "it has state there already: change that, or drop the operator first";
            return Err(Error::state(name, format!("adding it to savepoint {}", self.from), problem));
        }
        let state = OperatorState::empty(&self.from, name, self.is_native())?;
        self.edits.insert(name.to_owned(), Edit::Added(state));
        self.operator(name)
    }

    /// Drops an operator: a flow that has one of this name will find no state for it.
    ///
    /// # Errors
    /// The savepoint has none of that name.
    pub fn drop_operator(&mut self, name: &str) -> Result<()> {
        match self.edits.get(name) {
            Some(Edit::Added(_)) if !self.from.manifest().operators.contains_key(name) => {
                self.edits.remove(name);
                Ok(())
            }
            None if !self.from.manifest().operators.contains_key(name) => {
                Err(self.from.no_operator(name, "editing"))
            }
            Some(Edit::Dropped) => Err(self.from.no_operator(name, "editing")),
            _ => {
                self.edits.insert(name.to_owned(), Edit::Dropped);
                Ok(())
            }
        }
    }

    /// Writes the new savepoint into a folder, which must not have one, whole or not at all: it is there once its record is. Files of what was
    /// not changed are hard links where the file system has them. Costs writing all state of the tasks in which something was changed.
    ///
    /// # Errors
    /// There is one, or something cannot be read or written; then there is none, and the same call may be tried again.
    pub fn write_to(&mut self, to: impl AsRef<Path>) -> Result<Savepoint> {
        let attempt =
            format!("writing savepoint {} with its changes to {}", self.from, to.as_ref().display());
        let place = folder(to.as_ref()).map_err(|e| failed(attempt.clone(), e))?;
        let inner = self.fill(&place).map_err(|e| Error::engine(attempt, e))?;
        Ok(Savepoint { inner, scratch: self.from.scratch.clone() })
    }

    fn fill(&mut self, place: &Place) -> std::result::Result<rivermark_checkpoint::Savepoint, WriteError> {
        let is_native = self.is_native();
        let mut manifest = self.from.manifest().clone();
        let mut filling = place.begin()?;
        for (name, edit) in &mut self.edits {
            let before = manifest.operators.remove(name).unwrap_or_default();
            let (state, native) = match edit {
                Edit::Dropped => {
                    manifest.watermarks.remove(name);
                    manifest.ends.remove(name);
                    continue;
                }
                Edit::Changed(state) => (state, false),
                Edit::Added(state) => (state, is_native),
            };
            let tasks = write(&self.from, &mut filling, state, before, native)?;
            manifest.operators.insert(name.clone(), tasks);
        }
        let old: HashSet<FileRef> = self.from.manifest().files().map(|file| file.content).collect();
        for file in manifest.files().filter(|file| old.contains(&file.content)) {
            filling.keep(&self.from.inner, file)?;
        }
        Ok(filling.finish(&self.name, &manifest)?)
    }

    /// Whether some of the savepoint's state is files of RocksDB, so that it is started with that.
    fn is_native(&self) -> bool {
        let tasks = self.from.manifest().operators.values().flatten();
        let names = tasks.flat_map(|task| &task.files).map(|file| (file.name.as_str(), file.role));
        names.into_iter().any(|(name, role)| rivermark_state::is_native(name, parts::restored_role(role)))
    }
}

/// Writes an operator's state; what was not changed is what it was.
fn write(
    from: &Savepoint,
    filling: &mut Filling<'_>,
    state: &mut OperatorState,
    before: Vec<TaskState>,
    native: bool,
) -> std::result::Result<Vec<TaskState>, WriteError> {
    let mut files: Vec<(KeyGroupRange, StateFile)> = Vec::new();
    let epoch = from.epoch().0;
    let written = state.image.write(epoch, native, |range, file| {
        files.push((range, add(from, filling, file)?));
        Ok::<_, WriteError>(())
    })?;
    let mut tasks = Vec::with_capacity(written.len());
    for (index, Written { range, meta }) in written.into_iter().enumerate() {
        let old = before.get(index);
        let Some(meta) = meta else {
            tasks.extend(old.cloned());
            continue;
        };
        let of_range = files.iter().filter(|(of, _)| *of == range).map(|(_, file)| file.clone());
        tasks.push(TaskState {
            task: old.map_or(TaskId(index as u32), |old| old.task),
            groups: groups(range),
            files: of_range.collect(),
            meta: Blob(meta),
        });
    }
    Ok(tasks)
}

/// Brings a new file to the savepoint's place.
fn add(
    from: &Savepoint,
    filling: &mut Filling<'_>,
    file: SnapshotFile,
) -> std::result::Result<StateFile, WriteError> {
    let from = Some(&from.inner);
    let content = match &file.source {
        SnapshotSource::Path(held) => filling.add(from, Source::Path(held.path()))?,
        SnapshotSource::Bytes(bytes) => filling.add(from, Source::Bytes(bytes))?,
        SnapshotSource::Stored => return Err(WriteError(format!("`{}` is nowhere", file.name).into())),
    };
    Ok(StateFile { name: file.name, role: parts::role_of(file.role), content })
}

/// What kept a savepoint from being written.
struct WriteError(BoxError);

impl From<StateError> for WriteError {
    fn from(error: StateError) -> Self {
        WriteError(error.into())
    }
}

impl From<SavepointError> for WriteError {
    fn from(error: SavepointError) -> Self {
        WriteError(error.into())
    }
}

impl From<WriteError> for BoxError {
    fn from(error: WriteError) -> Self {
        error.0
    }
}

impl OperatorEditor<'_> {
    /// Puts an entry, where there may be another. A state that is not there begins to be, of the handle's types and version. What says where
    /// an entry is, and what it is, is as in [`OperatorState::entries`]; an empty list is removed.
    ///
    /// # Errors
    /// The state is of another kind or other types, or of a version from which nothing leads to the handle's; or it cannot be written.
    pub fn put<P, H: AtRest<P>>(&mut self, handle: H, place: P, entry: H::Entry) -> Result<()> {
        let put = self.0.image.put(handle, place, entry);
        put.map_err(|error| self.0.failed("editing", error))
    }

    /// As [`OperatorEditor::put`], for many entries: about a microsecond each. Answers how many they were; the last of a place counts.
    ///
    /// # Errors
    /// As there; entries before the one that failed are put.
    pub fn put_all<P, H: AtRest<P>>(
        &mut self,
        handle: H,
        entries: impl IntoIterator<Item = (P, H::Entry)>,
    ) -> Result<u64> {
        let put = self.0.image.put_all(handle, entries);
        put.map_err(|error| self.0.failed("editing", error))
    }

    /// Removes an entry, if it is there.
    ///
    /// # Errors
    /// As [`OperatorEditor::put`], and if there is no such state.
    pub fn remove<P, H: AtRest<P>>(&mut self, handle: H, place: &P) -> Result<()> {
        let removed = self.0.image.remove(handle, place);
        removed.map_err(|error| self.0.failed("editing", error))
    }

    /// Puts in the place of every entry what `change` makes of it, and removes it where that is `None`. Answers how many entries there were.
    ///
    /// # Errors
    /// As [`OperatorEditor::remove`]. Then some entries are changed: begin anew with another editor.
    pub fn update<P, H: AtRest<P>>(
        &mut self,
        handle: H,
        change: impl FnMut(&P, H::Entry) -> Option<H::Entry>,
    ) -> Result<u64> {
        let updated = self.0.image.update(handle, change);
        updated.map_err(|error| self.0.failed("editing", error))
    }

    /// Sets a timer among those that an operator calls `name`; a function's are `timers`.
    ///
    /// # Errors
    /// As [`OperatorEditor::put`].
    pub fn put_timer<K: Key>(&mut self, name: &str, time: Timestamp, key: &K) -> Result<()> {
        let put = self.0.image.put_timer(name, time.millis(), key);
        put.map_err(|error| self.0.failed("editing", error))
    }

    /// Removes a timer, if it is set.
    ///
    /// # Errors
    /// As [`OperatorEditor::remove`].
    pub fn remove_timer<K: Key>(&mut self, name: &str, time: Timestamp, key: &K) -> Result<()> {
        let removed = self.0.image.remove_timer(name, time.millis(), key);
        removed.map_err(|error| self.0.failed("editing", error))
    }

    /// Drops a state that a handle names, with all of its entries.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn drop_state(&mut self, name: &str) -> Result<()> {
        match self.0.image.drop_state(name).map_err(|error| self.0.failed("editing", error))? {
            true => Ok(()),
            false => {
                let states =
                    self.states().into_iter().map(|state| state.name).collect::<Vec<_>>().join("`, `");
                let problem = format!("it has no state `{name}` to be dropped; there are `{states}`");
                Err(Error::state(self.name(), "editing a savepoint", problem))
            }
        }
    }

    /// Says how older versions of the state `name` become the present one.
    pub fn migrate(&mut self, name: &'static str, migrations: Migrations) -> &mut Self {
        self.0.image.migrate(name, migrations);
        self
    }
}
