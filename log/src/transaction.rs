//! Transactions tied to an epoch, for a sink that is exactly-once.
//!
//! A transactional id (one a sink task) writes epochs. Any number of them may be open or prepared at once: epoch n waits for its commit while
//! n + 1 is being written.
//!
//! # Staged, not marked
//!
//! Kafka appends a transaction's records to their partitions at once, and a marker later that says whether they count. Here
//! they wait in a file of their own, and are moved into their partitions at commit. The reasons:
//!
//! - With markers, readers of a partition stop at its oldest open transaction. Ours are open always, for a whole checkpoint interval,
//!   and overlap, so every other producer's records would wait behind them. Staged, they keep nobody waiting.
//! - Offsets of committed records are dense, there is nothing to filter when reading, compacting or looking up a timestamp, and an aborted
//!   epoch leaves nothing behind.
//! - Preparing is one sync of one file, however many partitions are written to.
//!
//! The price is that transactional records are written twice, and read once in between, most often from the page cache; and that they get
//! their offsets at commit.
//!
//! # The protocol
//!
//! What an epoch is lies in its file's name: `transactions/ID/gGENERATION/EPOCH.open`, `.prepared`, `.committed` or `.done`.
//!
//! 1. *Begin* makes `EPOCH.open`; *append* adds batches to it, addressed to their partitions; *seal* adds a summary: nothing follows.
//! 2. *Prepare* seals it if that was not done, syncs the file, renames it to `.prepared`, and syncs the folder. Whoever must not wait for a
//!    disk seals, and has another thread prepare: while it syncs, other epochs can be written.
//! 3. *Commit* renames it to `.committed` and syncs the folder: this decides. Then it completes: the batches are appended to
//!    their partitions, which hide them from read-committed readers; the partitions are synced; all of them let readers see the records;
//!    the file becomes `.done`. If a crash or a full disk comes between, the rest is completed when the log is opened, at the next commit, or by
//!    `maintain`: a batch carries its id's producer number, its epoch, and its number within epoch and partition, so the partition
//!    knows what it has already. No other epoch of the id is decided before, so knowing the last epoch suffices.
//! 4. *Abort* removes the file.
//! 5. *Opening* the id with a higher generation renames the folder `gGENERATION`. That fences: an older handle of this process
//!    is refused because the generation in memory is not its own; an older process that has lost its lock and wakes finds the folder of its
//!    generation gone, so that no rename of its own can succeed. Its open epochs are removed; the prepared ones are kept and listed.
//!
//! `.done` names are gathered into `identity.json` from time to time, as ranges, so that committing again what was committed long ago
//! is known to be that.

mod ranges;
mod staged;

pub use staged::{PreparedEpoch, PreparedPartition};

use crate::batch::RecordBatch;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::partition::{Partition, TRANSACTIONAL_PRODUCERS};
use crate::recovery::Recovery;
use crate::topic::{Topic, check_name};
use parking_lot::Mutex;
use ranges::Ranges;
use serde::{Deserialize, Serialize};
use staged::{Staged, Staging};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `.done` names that are left lying before they are gathered.
const LOOSE_DONE: usize = 64;
const IDENTITY: &str = "identity.json";
const LOST: &str = "of unknown content after a failed sync: abort it";

/// Finds a topic of the log.
pub(crate) type FindTopic<'a> = &'a dyn Fn(&str) -> Result<Topic>;

/// All transactional ids of a log that is open for writing.
#[derive(Debug)]
pub(crate) struct Transactions {
    environment: Arc<Environment>,
    ids: Mutex<BTreeMap<String, Arc<Id>>>,
}

#[derive(Debug)]
struct Id {
    environment: Arc<Environment>,
    name: String,
    /// Locked first, while an epoch is committed or a generation fenced; writing other epochs goes on meanwhile.
    commits: Mutex<Commits>,
    state: Mutex<State>,
}

/// What remains of epochs that are done.
#[derive(Debug, Default)]
struct Commits {
    /// `.done` names that lie about.
    loose: usize,
    /// Those whose space is not freed. It must not be before the name is durable: a crash may bring `.committed` back.
    to_free: Vec<u64>,
}

#[derive(Debug)]
struct State {
    /// 0 until the id is opened for the first time; generations are from 1.
    generation: u64,
    producer: u64,
    done: Ranges,
    epochs: BTreeMap<u64, Epoch>,
}

#[derive(Debug)]
enum Epoch {
    Open(Staging),
    Prepared(PreparedEpoch),
    /// Decided, and not completed.
    Committed,
}

impl Epoch {
    fn name(&self) -> &'static str {
        match self {
            Epoch::Open(_) => "open",
            Epoch::Prepared(_) => "prepared",
            Epoch::Committed => "committed",
        }
    }
}

/// The content of `identity.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    producer: u64,
    done: Vec<(u64, u64)>,
}

fn generation_name(generation: u64) -> String {
    format!("g{generation:020}")
}

fn parse_generation(name: &str) -> Option<u64> {
    name.strip_prefix('g')?.parse().ok()
}

/// A transactional id, held by one generation. Cheap to clone, usable from any thread; calls of one id wait for each other.
///
/// ```
/// # use rivermark_log::*;
/// # let log = Log::open("log", LogOptions::new().disk(MemoryDisk::new()))?;
/// # let clicks = log.create_topic("clicks", TopicOptions::new(1))?;
/// # let mut batch = RecordBatch::new();
/// # batch.push(None, Some(b"a click"), 0);
/// let sink = log.transactional("clicks-per-minute", 1)?;
/// sink.begin(7)?;
/// sink.append(7, &clicks, 0, &mut batch)?;
/// sink.prepare(7)?; // durable, invisible
/// sink.commit(7)?; // visible, atomically; again as often as need be
/// # assert_eq!(clicks.info(0)?.stable, 1);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Transactional {
    id: Arc<Id>,
    generation: u64,
    topics: Arc<dyn TopicSource>,
}

/// Where a handle finds topics at commit.
pub(crate) trait TopicSource: std::fmt::Debug + Send + Sync {
    fn topic(&self, name: &str) -> Result<Topic>;
}

/// What is to be known about a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionalInfo {
    /// The id.
    pub id: String,
    /// The generation that holds it.
    pub generation: u64,
    /// Its prepared epochs.
    pub prepared: Vec<u64>,
}

impl Transactions {
    /// Reads which ids there are, and completes what was decided before a crash.
    pub(crate) fn open(
        environment: Arc<Environment>,
        topics: FindTopic<'_>,
        recovery: &mut Recovery,
    ) -> Result<Self> {
        let directory = environment.transactions();
        let names = environment.disk.list(&directory).map_err(|e| Error::io("listing", &directory, e))?;
        let mut ids = BTreeMap::new();
        for name in names {
            let Some(id) = Id::open(&environment, &name)? else { continue };
            let pending: Vec<u64> = id.state.lock().decided().collect();
            match id.complete_all(&mut id.commits.lock(), topics) {
                Ok(()) => {
                    recovery.completed_commits.extend(pending.iter().map(|epoch| (name.clone(), *epoch)))
                }
                Err(error @ Error::DiskFull { .. }) => {
                    tracing::warn!(id = name, ?pending, %error, "a decided commit waits for space");
                    recovery.pending_commits.extend(pending.iter().map(|epoch| (name.clone(), *epoch)));
                }
                Err(error) => return Err(error),
            }
            ids.insert(name, Arc::new(id));
        }
        Ok(Transactions { environment, ids: Mutex::new(ids) })
    }

    /// Takes an id over for a generation.
    pub(crate) fn take(
        &self,
        name: &str,
        generation: u64,
        topics: Arc<dyn TopicSource>,
    ) -> Result<Transactional> {
        check_name(name)?;
        self.environment.check_writer("opening a transactional id")?;
        let mut ids = self.ids.lock();
        let id = match ids.get(name) {
            Some(id) => Arc::clone(id),
            None => {
                let numbers = ids.values().map(|id| id.state.lock().producer);
                let producer = numbers.max().unwrap_or(TRANSACTIONAL_PRODUCERS) + 1;
                let id = Arc::new(Id::create(&self.environment, name, producer)?);
                ids.insert(name.to_owned(), Arc::clone(&id));
                id
            }
        };
        drop(ids);
        id.take(generation, &|name| topics.topic(name))?;
        Ok(Transactional { id, generation, topics })
    }

    pub(crate) fn maintain(&self, topics: FindTopic<'_>) -> Result<()> {
        let ids: Vec<_> = self.ids.lock().values().cloned().collect();
        ids.iter().try_for_each(|id| id.maintain(topics))
    }

    pub(crate) fn list(&self) -> Vec<TransactionalInfo> {
        let ids: Vec<_> = self.ids.lock().values().cloned().collect();
        let info = |id: &Arc<Id>| {
            let state = id.state.lock();
            let prepared = state.prepared().map(|prepared| prepared.epoch).collect();
            TransactionalInfo { id: id.name.clone(), generation: state.generation, prepared }
        };
        ids.iter().map(info).collect()
    }
}

impl State {
    fn decided(&self) -> impl Iterator<Item = u64> {
        let decided = |(&epoch, state): (&u64, &Epoch)| matches!(state, Epoch::Committed).then_some(epoch);
        self.epochs.iter().filter_map(decided)
    }

    fn prepared(&self) -> impl Iterator<Item = &PreparedEpoch> {
        self.epochs
            .values()
            .filter_map(|state| if let Epoch::Prepared(prepared) = state { Some(prepared) } else { None })
    }
}

impl Id {
    fn directory(&self) -> PathBuf {
        self.environment.transactions().join(&self.name)
    }

    fn folder(&self, generation: u64) -> PathBuf {
        self.directory().join(generation_name(generation))
    }

    fn file(&self, generation: u64, epoch: u64, ending: &str) -> PathBuf {
        self.folder(generation).join(format!("{epoch:020}.{ending}"))
    }

    fn new(environment: &Arc<Environment>, name: &str, generation: u64, producer: u64) -> Id {
        let state = State { generation, producer, done: Ranges::default(), epochs: BTreeMap::new() };
        let (commits, state) = (Mutex::default(), Mutex::new(state));
        Id { environment: Arc::clone(environment), name: name.to_owned(), commits, state }
    }

    /// Makes an id that was never used: of generation 0, with a number that no other id has.
    fn create(environment: &Arc<Environment>, name: &str, producer: u64) -> Result<Id> {
        let id = Id::new(environment, name, 0, producer);
        let folder = id.folder(0);
        let failed = |e| Error::io("making the transactional id", &folder, e);
        environment.disk.create_dir_all(&folder).map_err(failed)?;
        id.write_identity(&id.state.lock())?;
        environment.disk.sync_dir(&id.directory()).map_err(failed)?;
        environment.disk.sync_dir(&environment.transactions()).map_err(failed)?;
        Ok(id)
    }

    fn write_identity(&self, state: &State) -> Result<()> {
        let path = self.folder(state.generation).join(IDENTITY);
        let failed = |e| Error::io("writing", &path, e);
        let identity = Identity { producer: state.producer, done: state.done.iter().collect() };
        let text = serde_json::to_vec(&identity).map_err(|e| failed(e.into()))?;
        crate::disk::replace(&*self.environment.disk, &path, &text).map_err(failed)
    }

    /// Reads what is there of an id; `None` if its making was interrupted.
    fn open(environment: &Arc<Environment>, name: &str) -> Result<Option<Id>> {
        let disk = &environment.disk;
        let directory = environment.transactions().join(name);
        let listed = disk.list(&directory).map_err(|e| Error::io("listing", &directory, e))?;
        let generation = listed.iter().filter_map(|name| parse_generation(name)).max().unwrap_or(0);
        let id = Id::new(environment, name, generation, 0);
        let found = id.read(&mut id.commits.lock(), &mut id.state.lock())?;
        if !found {
            // Nothing was ever written under it.
            disk.remove_dir_all(&directory).map_err(|e| Error::io("removing", &directory, e))?;
        }
        Ok(found.then_some(id))
    }

    fn read(&self, commits: &mut Commits, state: &mut State) -> Result<bool> {
        let disk = &self.environment.disk;
        let folder = self.folder(state.generation);
        let path = folder.join(IDENTITY);
        let bytes = match crate::disk::read_all(&**disk, &path, 1 << 30) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && state.generation == 0 => {
                return Ok(false);
            }
            read => read.map_err(|e| Error::io("reading", &path, e))?,
        };
        let identity: Identity =
            serde_json::from_slice(&bytes).map_err(|e| Error::BadFile { path, problem: e.to_string() })?;
        (state.producer, state.done) = (identity.producer, Ranges::from_pairs(&identity.done));
        for name in disk.list(&folder).map_err(|e| Error::io("listing", &folder, e))? {
            let path = folder.join(&name);
            let Some((epoch, ending)) = name.split_once('.') else { continue };
            match (epoch.parse::<u64>(), ending) {
                (Ok(epoch), "prepared") => {
                    let staged = Staged::open(&**disk, &path, self.environment.max_batch_bytes)?;
                    state.epochs.insert(epoch, Epoch::Prepared(staged.summary));
                }
                (Ok(epoch), "committed") => {
                    state.epochs.insert(epoch, Epoch::Committed);
                }
                (Ok(epoch), "done") => {
                    state.done.insert(epoch);
                    commits.loose += 1;
                    commits.to_free.push(epoch);
                }
                (_, "open" | "json.tmp") => {
                    disk.remove(&path).map_err(|e| Error::io("removing", &path, e))?
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Fences older generations.
    fn take(&self, generation: u64, topics: FindTopic<'_>) -> Result<()> {
        let mut commits = self.commits.lock();
        self.complete_all(&mut commits, topics)?;
        let mut state = self.state.lock();
        if generation < state.generation || generation == 0 {
            return Err(self.fenced(generation, state.generation));
        }
        if generation == state.generation {
            return Ok(());
        }
        let disk = &self.environment.disk;
        let open: Vec<u64> = state
            .epochs
            .iter()
            .filter(|(_, e)| matches!(e, Epoch::Open(_)))
            .map(|(&epoch, _)| epoch)
            .collect();
        for epoch in open {
            self.remove(&mut state, epoch)?;
        }
        let (from, to) = (self.folder(state.generation), self.folder(generation));
        disk.rename(&from, &to).map_err(|e| Error::io("fencing older generations of", &to, e))?;
        state.generation = generation;
        disk.sync_dir(&self.directory()).map_err(|e| Error::unknown("fencing older generations of", &to, e))
    }

    fn fenced(&self, generation: u64, current: u64) -> Error {
        Error::Fenced { id: self.name.clone(), generation, current }
    }

    /// An error of a step whose paths contain the generation: if they are gone, a newer generation has taken over.
    fn failed(&self, attempt: &'static str, generation: u64, path: PathBuf, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
            let listed = self.environment.disk.list(&self.directory()).unwrap_or_default();
            let newest = listed.iter().filter_map(|name| parse_generation(name)).max();
            if let Some(current) = newest.filter(|newest| *newest > generation) {
                return self.fenced(generation, current);
            }
        }
        Error::io(attempt, &path, error)
    }

    fn refused(&self, epoch: u64, attempt: &'static str, state: &'static str) -> Error {
        Error::EpochState { id: self.name.clone(), epoch, attempt, state }
    }

    fn rename(&self, state: &State, attempt: &'static str, epoch: u64, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.file(state.generation, epoch, from), self.file(state.generation, epoch, to));
        self.environment.disk.rename(&from, &to).map_err(|e| self.failed(attempt, state.generation, to, e))
    }

    fn sync_folder(&self, generation: u64, attempt: &'static str) -> Result<()> {
        let folder = self.folder(generation);
        self.environment.disk.sync_dir(&folder).map_err(|e| Error::unknown(attempt, &folder, e))
    }

    fn remove(&self, state: &mut State, epoch: u64) -> Result<()> {
        let ending = match state.epochs.get(&epoch) {
            Some(Epoch::Open(_)) => "open",
            Some(Epoch::Prepared(_)) => "prepared",
            _ => return Ok(()),
        };
        let path = self.file(state.generation, epoch, ending);
        match self.environment.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("aborting", &path, e)),
            Err(e) => {
                // Gone with its folder, or removed by an attempt whose answer was lost.
                if let fenced @ Error::Fenced { .. } = self.failed("aborting", state.generation, path, e) {
                    return Err(fenced);
                }
            }
            Ok(()) => {}
        }
        state.epochs.remove(&epoch);
        // An open epoch is thrown away after a crash in any case; a prepared one would come back.
        if ending == "prepared" { self.sync_folder(state.generation, "aborting") } else { Ok(()) }
    }

    /// Completes every epoch that is decided.
    fn complete_all(&self, commits: &mut Commits, topics: FindTopic<'_>) -> Result<()> {
        let decided: Vec<u64> = self.state.lock().decided().collect();
        decided.into_iter().try_for_each(|epoch| self.complete(commits, epoch, topics))
    }

    /// Moves a decided epoch's records to where they belong. Goes on where an earlier attempt stopped.
    fn complete(&self, commits: &mut Commits, epoch: u64, topics: FindTopic<'_>) -> Result<()> {
        let (generation, producer) = {
            let state = self.state.lock();
            (state.generation, state.producer)
        };
        let folder = self.folder(generation);
        let synced = self.environment.disk.sync_dir(&folder);
        synced.map_err(|e| Error::unknown("deciding a commit in", &folder, e))?;
        self.free(commits, generation);
        self.apply(&self.file(generation, epoch, "committed"), producer, epoch, topics)?;
        let mut state = self.state.lock();
        self.rename(&state, "completing a commit of", epoch, "committed", "done")?;
        state.epochs.remove(&epoch);
        state.done.insert(epoch);
        commits.loose += 1;
        commits.to_free.push(epoch);
        if commits.loose >= LOOSE_DONE {
            self.gather(commits, &state)?;
        }
        Ok(())
    }

    /// Appends a decided epoch's records to their partitions, then shows them all.
    fn apply(&self, path: &Path, producer: u64, epoch: u64, topics: FindTopic<'_>) -> Result<()> {
        let limit = self.environment.max_batch_bytes;
        let staged = Staged::open(&*self.environment.disk, path, limit)?;
        let mut partitions: BTreeMap<(&str, u32), Arc<Partition>> = BTreeMap::new();
        for part in &staged.summary.partitions {
            let partition = Arc::clone(topics(&part.topic)?.partition(part.partition)?);
            partition.hold(producer, epoch)?;
            partitions.insert((&part.topic, part.partition), partition);
        }
        staged.each(limit, |topic, number, header, bytes| match partitions.get(&(topic, number)) {
            Some(partition) => partition.apply(header, bytes),
            None => {
                let problem = format!("topic {topic}, partition {number} is not in its summary");
                Err(Error::BadFile { path: path.to_path_buf(), problem })
            }
        })?;
        for partition in partitions.values() {
            partition.sync_to(partition.end())?;
        }
        partitions.values().for_each(|partition| partition.release(producer));
        Ok(())
    }

    /// Frees the space of epochs whose `.done` is durable. What fails here is tried again when the log is opened.
    fn free(&self, commits: &mut Commits, generation: u64) {
        for epoch in commits.to_free.drain(..) {
            let path = self.file(generation, epoch, "done");
            if let Err(error) = self.environment.disk.create(&path).and_then(|file| file.truncate(0)) {
                tracing::warn!(path = %path.display(), %error, "the space of a committed epoch could not be freed");
            }
        }
    }

    /// Notes what is done in one file, and removes the names.
    fn gather(&self, commits: &mut Commits, state: &State) -> Result<()> {
        self.write_identity(state)?;
        let (disk, folder) = (&self.environment.disk, self.folder(state.generation));
        let names = disk.list(&folder).map_err(|e| Error::io("listing", &folder, e))?;
        for name in names.iter().filter(|name| name.ends_with(".done")) {
            let path = folder.join(name);
            disk.remove(&path).map_err(|e| Error::io("removing", &path, e))?;
        }
        (commits.loose, commits.to_free) = (0, Vec::new());
        Ok(())
    }

    /// Completes what a full disk has kept from completing, and frees what can be freed.
    fn maintain(&self, topics: FindTopic<'_>) -> Result<()> {
        let mut commits = self.commits.lock();
        self.complete_all(&mut commits, topics)?;
        if !commits.to_free.is_empty() {
            let generation = self.state.lock().generation;
            self.sync_folder(generation, "freeing space in")?;
            self.free(&mut commits, generation);
        }
        Ok(())
    }
}

impl Transactional {
    /// The transactional id.
    pub fn id(&self) -> &str {
        &self.id.name
    }

    /// The generation of this handle.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The state, if this handle is not fenced.
    fn state(&self) -> Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.id.state.lock();
        if state.generation != self.generation {
            return Err(self.id.fenced(self.generation, state.generation));
        }
        Ok(state)
    }

    /// The epochs that are prepared and neither committed nor aborted, ascending. After a restart: commit those whose checkpoint is
    /// stored, abort the others.
    pub fn prepared(&self) -> Result<Vec<PreparedEpoch>> {
        Ok(self.state()?.prepared().cloned().collect())
    }

    /// Begins an epoch. Epoch numbers are the caller's; each is used once in an id's life, but for those that were aborted.
    ///
    /// # Errors
    /// [`Error::EpochState`] if it is open, prepared or committed already.
    pub fn begin(&self, epoch: u64) -> Result<()> {
        let mut state = self.state()?;
        self.id.environment.check_writer("beginning an epoch")?;
        if let Some(found) = state.epochs.get(&epoch) {
            return Err(self.id.refused(epoch, "begin it", found.name()));
        }
        if state.done.contains(epoch) {
            return Err(self.id.refused(epoch, "begin it", "committed"));
        }
        let path = self.id.file(state.generation, epoch, "open");
        let staging = Staging::create(&*self.id.environment.disk, path.clone(), epoch)
            .map_err(|e| self.id.failed("beginning", self.generation, path, e))?;
        state.epochs.insert(epoch, Epoch::Open(staging));
        Ok(())
    }

    /// Adds a batch to an open epoch, and leaves the batch empty. Nobody sees it, and it has no offset, before the epoch is committed.
    ///
    /// # Errors
    /// As [`Topic::append`]; also [`Error::EpochState`] if the epoch is not open.
    pub fn append(&self, epoch: u64, topic: &Topic, partition: u32, batch: &mut RecordBatch) -> Result<()> {
        let partition = topic.partition(partition)?;
        partition.check(batch)?;
        let mut state = self.state()?;
        let producer = state.producer;
        match state.epochs.get_mut(&epoch) {
            Some(Epoch::Open(staging)) if staging.is_lost => {
                Err(self.id.refused(epoch, "append to it", LOST))
            }
            Some(Epoch::Open(staging)) if staging.is_sealed => {
                Err(self.id.refused(epoch, "append to it", "sealed"))
            }
            Some(Epoch::Open(staging)) => staging.append(partition, producer, batch),
            Some(other) => Err(self.id.refused(epoch, "append to it", other.name())),
            None => Err(self.id.refused(epoch, "append to it", self.absent(&state, epoch))),
        }
    }

    fn absent(&self, state: &State, epoch: u64) -> &'static str {
        if state.done.contains(epoch) { "committed" } else { "not begun, or aborted" }
    }

    /// Hands all of an epoch's records to the operating system: nothing can be appended to it any more. They are durable once the epoch is
    /// [prepared](Transactional::prepare). Waits for no disk, so that a thread which must not can leave that to another. Again does nothing.
    ///
    /// # Errors
    /// A full disk leaves the epoch open: seal it again or abort.
    pub fn seal(&self, epoch: u64) -> Result<()> {
        let mut state = self.state()?;
        self.id.environment.check_writer("sealing an epoch")?;
        match state.epochs.get_mut(&epoch) {
            Some(Epoch::Open(staging)) if staging.is_lost => Err(self.id.refused(epoch, "seal it", LOST)),
            Some(Epoch::Open(staging)) => staging.seal(),
            Some(Epoch::Prepared(_)) => Ok(()),
            Some(other) => Err(self.id.refused(epoch, "seal it", other.name())),
            None => Err(self.id.refused(epoch, "seal it", self.absent(&state, epoch))),
        }
    }

    /// Makes an epoch's records durable, yet invisible. Again does nothing. Other epochs of the id can be written meanwhile.
    ///
    /// # Errors
    /// If [`Error::effect`] is unknown, prepare again. A full disk leaves the epoch open: prepare again or abort.
    pub fn prepare(&self, epoch: u64) -> Result<PreparedEpoch> {
        let mut state = self.state()?;
        self.id.environment.check_writer("preparing an epoch")?;
        let sealed = match state.epochs.get_mut(&epoch) {
            Some(Epoch::Open(staging)) if staging.is_lost => {
                return Err(self.id.refused(epoch, "prepare it", LOST));
            }
            Some(Epoch::Open(staging)) => staging.sealed()?,
            Some(Epoch::Prepared(summary)) => {
                let summary = summary.clone();
                drop(state);
                self.id.sync_folder(self.generation, "preparing")?;
                return Ok(summary);
            }
            Some(other) => return Err(self.id.refused(epoch, "prepare it", other.name())),
            None => return Err(self.id.refused(epoch, "prepare it", self.absent(&state, epoch))),
        };
        drop(state);
        let synced = sealed.sync();
        // Meanwhile it may have been aborted or fenced.
        let mut state = self.state()?;
        match state.epochs.get_mut(&epoch) {
            Some(Epoch::Open(staging)) => {
                staging.is_lost |= synced.is_err();
                synced?;
                self.id.rename(&state, "preparing", epoch, "open", "prepared")?;
                state.epochs.insert(epoch, Epoch::Prepared(sealed.summary.clone()));
            }
            // Another thread was quicker.
            Some(Epoch::Prepared(_)) => {}
            Some(other) => return Err(self.id.refused(epoch, "prepare it", other.name())),
            None => return Err(self.id.refused(epoch, "prepare it", self.absent(&state, epoch))),
        }
        drop(state);
        self.id.sync_folder(self.generation, "preparing")?;
        Ok(sealed.summary)
    }

    /// Moves a prepared epoch's records to where readers see them: all of them, also across a crash. Again does nothing.
    ///
    /// Costs two syncs, one of each partition written to, and copying the records.
    ///
    /// # Errors
    /// [`Error::EpochState`] if it is not prepared. If [`Error::effect`] is unknown, or for a full disk, commit again: it may
    /// be decided already, and is then completed by whoever opens the log, too.
    pub fn commit(&self, epoch: u64) -> Result<()> {
        let mut commits = self.id.commits.lock();
        drop(self.state()?);
        self.id.environment.check_writer("committing an epoch")?;
        let topics = |name: &str| self.topics.topic(name);
        self.id.complete_all(&mut commits, &topics)?;
        let mut state = self.state()?;
        match state.epochs.get(&epoch) {
            Some(Epoch::Prepared(_)) => {}
            Some(other) => return Err(self.id.refused(epoch, "commit it", other.name())),
            None if state.done.contains(epoch) => return Ok(()),
            None => return Err(self.id.refused(epoch, "commit it", "not begun, or aborted")),
        }
        self.id.rename(&state, "committing", epoch, "prepared", "committed")?;
        state.epochs.insert(epoch, Epoch::Committed);
        drop(state);
        self.id.complete(&mut commits, epoch, &topics)
    }

    /// Throws an open or prepared epoch away. Again, or of an epoch that never began, does nothing.
    ///
    /// # Errors
    /// [`Error::EpochState`] if it is committed.
    pub fn abort(&self, epoch: u64) -> Result<()> {
        let mut state = self.state()?;
        self.id.environment.check_writer("aborting an epoch")?;
        if state.done.contains(epoch) || matches!(state.epochs.get(&epoch), Some(Epoch::Committed)) {
            return Err(self.id.refused(epoch, "abort it", "committed"));
        }
        self.id.remove(&mut state, epoch)
    }
}
