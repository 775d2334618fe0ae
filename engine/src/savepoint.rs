//! Savepoints, as a program holds them: taken, opened, carried, and, without a job, checked, read and edited.

mod check;
mod edit;
mod state;

pub(crate) use self::check::check_plan;
pub use self::check::{CheckedState, SavepointCheck};
pub use self::edit::{OperatorEditor, SavepointEditor};
pub use self::state::{Entries, OperatorState};

use rivermark_checkpoint::store::{LocalStore, MemoryStore};
use rivermark_checkpoint::{Checkpoints, Epoch, Manifest, Place, RestoreFrom, SavepointError, Store};
use rivermark_operators::{Error, Flow, Result, Timestamp};
use rivermark_state::StateDescription;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A savepoint: a checkpoint that somebody has named.
///
/// - It is never collected: only [`Engine::delete_savepoint`](crate::Engine::delete_savepoint) removes it.
/// - It is whole in one folder, `DATA/savepoints/FLOW/NAME`, which can be copied with any tool, or exported by [`Savepoint::export`], and
///   opened wherever it is by [`Savepoint::open`]. Its files are hard links where the file system has them, so it costs little beside the
///   checkpoints it was taken among.
/// - It owes nothing to any sink: it exists once all output of its checkpoint is committed. What is in the sinks and in the log is not part
///   of it: it has positions in the sources, and whoever carries it elsewhere carries what its sources read, too.
/// - It can be started ([`Engine::start_from`](crate::Engine::start_from)) by another number of workers, with another state backend's
///   settings, in another data directory, and by another version of the flow, or a flow of another name. Operators find their
///   state by name. The number of key groups stays what it is, and so does the kind of backend once state was spilled to RocksDB.
///
/// A crash while one is taken leaves none, and the next one of that name clears away what there was of it.
///
/// As the savepoints of Flink; those in its native format, to be exact.
#[derive(Clone, Debug)]
pub struct Savepoint {
    inner: rivermark_checkpoint::Savepoint,
    /// Where scratch databases go.
    scratch: Option<PathBuf>,
}

/// Where a job starts.
#[derive(Clone, Debug)]
pub enum StartFrom {
    /// A checkpoint of this version of the flow. From then on the flow continues from there: what came after it is processed a second time,
    /// and rows that were committed since are written a second time.
    Checkpoint(RestoreFrom),
    /// A savepoint, whatever checkpoints this version of the flow has: the first thing that happens is that it becomes the newest of them.
    /// Where the version has run on from that savepoint already, it goes back: rows that were committed since are written a second time.
    Savepoint(Savepoint),
    /// A savepoint if this version of the flow has no checkpoint yet, and the newest checkpoint if it has. For a program that is started
    /// again with the same arguments, after a crash too.
    SavepointAtFirst(Savepoint),
}

impl Default for StartFrom {
    fn default() -> Self {
        StartFrom::Checkpoint(RestoreFrom::Latest)
    }
}

impl From<RestoreFrom> for StartFrom {
    fn from(from: RestoreFrom) -> Self {
        StartFrom::Checkpoint(from)
    }
}

impl From<Savepoint> for StartFrom {
    fn from(savepoint: Savepoint) -> Self {
        StartFrom::Savepoint(savepoint)
    }
}

impl From<&Savepoint> for StartFrom {
    fn from(savepoint: &Savepoint) -> Self {
        StartFrom::Savepoint(savepoint.clone())
    }
}

impl Savepoint {
    /// The savepoint in a folder: in a data directory, or wherever it was copied to. Only its record is read; see [`Savepoint::verify`].
    ///
    /// # Errors
    /// There is none, or its record is damaged.
    pub fn open(folder: impl AsRef<Path>) -> Result<Savepoint> {
        let folder = folder.as_ref();
        let place = Place::root(Arc::new(LocalStore::existing(folder)));
        let opened = place.open().map_err(|e| failed("opening a savepoint", e))?;
        Ok(Savepoint::of(opened))
    }

    /// A checkpoint where it lies; see [`DataDirectory`](crate::DataDirectory).
    pub(crate) fn of_checkpoint(checkpoints: &Checkpoints, manifest: Manifest) -> Savepoint {
        Savepoint::of(rivermark_checkpoint::Savepoint::of_checkpoint(checkpoints, manifest))
    }

    /// Compares a file with its digest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn verify_file(
        &self,
        file: &rivermark_checkpoint::StateFile,
    ) -> std::result::Result<(), String> {
        self.inner.verify_file(file).map_err(|e| e.to_string())
    }

    fn of(inner: rivermark_checkpoint::Savepoint) -> Savepoint {
        Savepoint { inner, scratch: None }
    }

    /// Says where scratch databases go, in which large state is read and edited ([`OperatorState`]): a folder on a disk with room for a copy of
    /// an operator's state, best of the savepoint's own file system, where links take the place of copies. Default: the system's temporary
    /// folder.
    #[must_use]
    pub fn scratch_in(self, folder: impl Into<PathBuf>) -> Savepoint {
        Savepoint { scratch: Some(folder.into()), ..self }
    }

    /// The state of an operator, for reading it. Costs applying what changed since its last full snapshot: up to a few seconds for gigabytes.
    ///
    /// # Errors
    /// The savepoint has none of that name (the error names those that it has), or its files are missing or damaged.
    pub fn operator(&self, name: &str) -> Result<OperatorState> {
        OperatorState::open(self, name)
    }

    /// Begins a new savepoint that is this one with other state.
    pub fn edit(&self) -> SavepointEditor {
        SavepointEditor::new(self)
    }

    /// Checks whether a flow could start from this savepoint, and what would become of every state: whether it is there, of the same types and
    /// version or one that migrations lead from, and what would be dropped. Nothing is started, and nothing but the record is read.
    ///
    /// It is the start itself that is asked: each operator opens its state by the very code that runs then, on tables without rows. What is not
    /// checked is what a start finds outside of state: whether sources have the partitions that they had, and sinks can be opened.
    ///
    /// # Errors
    /// The flow as such is not valid, or the record is of another format. That the flow cannot start is no error, but the answer.
    pub fn check(&self, flow: Flow) -> Result<SavepointCheck> {
        check::check(self, flow)
    }

    fn no_operator(&self, name: &str, attempt: &str) -> Error {
        let problem = match self.operators().join("`, `") {
            none if none.is_empty() => "it has no state of any operator".to_owned(),
            names => format!("it has no state of such an operator; there are `{names}`"),
        };
        Error::state(name, format!("{attempt} savepoint {self}"), problem)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// The folder that it is.
    pub fn folder(&self) -> Option<PathBuf> {
        self.inner.folder()
    }

    /// The flow that it was taken of.
    pub fn flow(&self) -> &str {
        &self.manifest().flow
    }

    /// The version of the flow that it was taken of.
    pub fn version(&self) -> u64 {
        self.manifest().version
    }

    /// The checkpoint that it is.
    pub fn epoch(&self) -> Epoch {
        self.manifest().epoch
    }

    /// When its barrier began, by the clock of the process that took it.
    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_millis(self.manifest().created_at_ms)
    }

    /// How many key groups its state has; a flow that starts from it has as many.
    pub fn key_groups(&self) -> u16 {
        self.manifest().key_groups
    }

    /// The operators that have state in it, by name.
    pub fn operators(&self) -> Vec<&str> {
        self.manifest().operators.keys().map(String::as_str).collect()
    }

    /// The states that it holds of an operator, by name, kind, types and version: those of a function's handles, and those that operators keep
    /// besides. Empty for an operator that has no state in it. Reads nothing but the record.
    ///
    /// # Errors
    /// The record was not written by this engine, or by one of another format.
    pub fn states(&self, operator: &str) -> Result<Vec<StateDescription>> {
        let mut states: Vec<StateDescription> = Vec::new();
        for task in self.manifest().operators.get(operator).into_iter().flatten() {
            let of_task = rivermark_state::states_of(operator, &task.meta.0)
                .map_err(|e| Error::state(operator, format!("reading savepoint {self}"), e))?;
            let new = of_task.into_iter().filter(|state| !states.contains(state));
            states.extend(new.collect::<Vec<_>>());
        }
        Ok(states)
    }

    /// The size of its state files in bytes.
    pub fn state_bytes(&self) -> u64 {
        self.manifest().files().map(|file| file.content.bytes).sum()
    }

    /// Reads every file and compares it with the checksum in the record, and sees that each operator's state says what it is. Costs about a
    /// second a gigabyte.
    ///
    /// # Errors
    /// A file is missing or damaged, or state is of a format that this program does not read; the error names it.
    pub fn verify(&self) -> Result<()> {
        self.operators().into_iter().try_for_each(|operator| self.states(operator).map(|_| ()))?;
        self.inner.verify().map_err(|e| failed(format!("verifying savepoint {self}"), e))
    }

    /// Makes the same savepoint in another folder, which must not have one: hard links on the same file system, copies elsewhere.
    ///
    /// # Errors
    /// There is one, or a file is missing or cannot be written.
    pub fn export(&self, to: impl AsRef<Path>) -> Result<Savepoint> {
        let attempt = || format!("exporting savepoint {self} to {}", to.as_ref().display());
        let place = folder(to.as_ref()).map_err(|e| failed(attempt(), e))?;
        let inner = self.inner.copy_to(self.name(), &place).map_err(|e| failed(attempt(), e))?;
        Ok(Savepoint::of(inner))
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        self.inner.manifest()
    }

    pub(crate) fn install(
        &self,
        writer: &rivermark_checkpoint::Writer,
        now_ms: i64,
    ) -> std::result::Result<Epoch, SavepointError> {
        self.inner.install(writer, now_ms)
    }
}

/// Its name, and where it lies.
impl fmt::Display for Savepoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder() {
            Some(folder) => write!(f, "`{}` ({})", self.name(), folder.display()),
            None => write!(f, "`{}`", self.name()),
        }
    }
}

/// A place that is a folder of its own.
fn folder(folder: &Path) -> std::result::Result<Place, SavepointError> {
    Ok(Place::root(Arc::new(LocalStore::open(folder)?)))
}

fn failed(attempt: impl Into<String>, error: SavepointError) -> Error {
    Error::engine(attempt, error)
}

/// The savepoints of a data directory.
#[derive(Clone)]
pub(crate) struct Savepoints(At);

#[derive(Clone)]
enum At {
    /// Made when the first one is taken.
    Directory(PathBuf),
    Memory(Arc<dyn Store>),
}

impl Savepoints {
    pub(crate) fn new(root: PathBuf) -> Savepoints {
        Savepoints(At::Directory(root))
    }

    pub(crate) fn in_memory() -> Savepoints {
        Savepoints(At::Memory(Arc::new(MemoryStore::default())))
    }

    fn store(&self) -> Arc<dyn Store> {
        match &self.0 {
            At::Directory(root) => Arc::new(LocalStore::existing(root)),
            At::Memory(store) => Arc::clone(store),
        }
    }

    fn place(&self, flow: &str, name: &str) -> Result<Place> {
        Place::named(self.store(), flow, name)
            .map_err(|e| failed(format!("looking for savepoint `{name}` of flow `{flow}`"), e))
    }

    /// Fails if the name is taken or cannot be one.
    pub(crate) fn check_free(&self, flow: &str, name: &str) -> Result<()> {
        let taken = self.place(flow, name)?.check_free();
        taken.map_err(|e| failed(format!("taking savepoint `{name}` of flow `{flow}`"), e))
    }

    /// Makes a savepoint of a checkpoint whose output is committed.
    pub(crate) fn take(
        &self,
        name: &str,
        checkpoints: &Checkpoints,
        manifest: &Manifest,
    ) -> std::result::Result<Savepoint, SavepointError> {
        let store: Arc<dyn Store> = match &self.0 {
            At::Directory(root) => Arc::new(LocalStore::open(root)?),
            At::Memory(store) => Arc::clone(store),
        };
        let inner = Place::named(store, &manifest.flow, name)?.take(name, checkpoints, manifest)?;
        Ok(Savepoint::of(inner))
    }

    /// Makes a savepoint of what another one has written down about partitions, without the state of operators.
    pub(crate) fn keep_journals(
        &self,
        name: &str,
        from: &Savepoint,
    ) -> std::result::Result<Savepoint, SavepointError> {
        let store: Arc<dyn Store> = match &self.0 {
            At::Directory(root) => Arc::new(LocalStore::open(root)?),
            At::Memory(store) => Arc::clone(store),
        };
        let journals = Manifest { operators: Default::default(), ..from.manifest().clone() };
        let place = Place::named(store, &journals.flow, name)?;
        let mut filling = place.begin()?;
        for file in journals.files() {
            filling.keep(&from.inner, file)?;
        }
        Ok(Savepoint::of(filling.finish(name, &journals)?))
    }

    pub(crate) fn list(&self, flow: &str) -> Result<Vec<Savepoint>> {
        let names = Place::names(&*self.store(), flow)
            .map_err(|e| failed(format!("listing the savepoints of flow `{flow}`"), e))?;
        names.iter().map(|name| self.get(flow, name)).collect()
    }

    pub(crate) fn get(&self, flow: &str, name: &str) -> Result<Savepoint> {
        let opened = self.place(flow, name)?.open();
        let inner = opened.map_err(|e| failed(format!("opening savepoint `{name}` of flow `{flow}`"), e))?;
        Ok(Savepoint::of(inner))
    }

    pub(crate) fn delete(&self, flow: &str, name: &str) -> Result<()> {
        let deleted = self.place(flow, name)?.delete();
        deleted.map_err(|e| failed(format!("deleting savepoint `{name}` of flow `{flow}`"), e))
    }
}
