//! Savepoints: checkpoints that somebody has named. Nothing collects them, they need nothing but themselves, and they can be carried
//! elsewhere.
//!
//! Objects of a savepoint, below its [`Place`]: `files/..`, named as in the checkpoint store ([`crate::files`]), and `savepoint`, the
//! record: its name and the manifest, in the envelope of a history's entries ([`crate::history`]).
//!
//! 1. A savepoint is made of a checkpoint whose output is **committed everywhere**. So it owes nothing to any sink, its manifest has no
//!    tokens, and it can be started from where the sinks of the checkpoint are unknown.
//! 2. Its files are links to those of the checkpoint, or copies where a store cannot link: retention in the checkpoint store takes
//!    away a name, and the savepoint has one of its own.
//! 3. The record is put last, and write-once. A crash before it leaves files without a record: no savepoint, and the next one of that
//!    name clears them away. Deleting goes the other way round, the record first.
//!    A savepoint that is made of another and of new files ([`Place::begin`]) goes the same way.
//! 4. To start from it, a generation of the flow *installs* it ([`Savepoint::install`]): it uploads the files and stores the manifest as
//!    the newest entry of its own history. From then on it is a checkpoint as any other, and recovery is the only way to start.
//!    The installed epoch is above all that the history and the savepoint have used, since names of state files contain epochs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::checkpoints::{self, Checkpoints, Error, Source, Writer};
use crate::coordinator::StoreReply;
use crate::files::{self, Digest, FileRef};
use crate::history::{Damage, seal, unseal};
use crate::store::{Put, Rereading, Store, StoreError, check_name};
use crate::{Epoch, Generation, Manifest, StateFile};

/// The object that makes a savepoint of the files beside it.
pub const RECORD: &str = "savepoint";

const FORMAT: &str = "rivermark-savepoint";

static FILLING: Mutex<()> = Mutex::new(());

/// How often an installation in doubt is repeated.
const STORE_ATTEMPTS: usize = 5;

/// Where a savepoint lies, or will.
#[derive(Debug, Clone)]
pub struct Place {
    store: Arc<dyn Store>,
    prefix: String,
}

/// A whole savepoint.
#[derive(Debug, Clone)]
pub struct Savepoint {
    place: Place,
    record: Record,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    name: String,
    manifest: Manifest,
}

/// What can go wrong with a savepoint.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    /// There is none.
    #[error("there is no savepoint in {place}{}", named(existing))]
    Missing {
        /// Where it was looked for.
        place: String,
        /// The names of those that are there.
        existing: Vec<String>,
    },
    /// The place is taken.
    #[error("there is a savepoint in {place} already: choose another name, or delete that one first")]
    Exists {
        /// Where.
        place: String,
    },
    /// The name cannot be part of an object's name.
    #[error(
        "`{name}` cannot name a savepoint: use ASCII letters, digits, `-`, `_` and `.`, not beginning with a dot"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The record cannot be read.
    #[error(
        "the record of the savepoint in {place} is damaged: {damage}; copy the savepoint there once more"
    )]
    Damaged {
        /// Where.
        place: String,
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
    /// A state file is missing or damaged, or the history into which it should be installed failed.
    #[error(transparent)]
    Checkpoint(#[from] Error),
    /// It could not be made the newest checkpoint of a flow.
    #[error("cannot make savepoint `{name}` the newest checkpoint of flow `{flow}`: {reason}")]
    Install {
        /// The savepoint.
        name: String,
        /// The flow.
        flow: String,
        /// What the store said.
        reason: String,
    },
}

fn named(existing: &[String]) -> String {
    match existing {
        [] => String::new(),
        names => format!("; there are `{}`", names.join("`, `")),
    }
}

impl From<StoreError> for SavepointError {
    fn from(error: StoreError) -> Self {
        Self::Checkpoint(error.into())
    }
}

/// Where an object is as a file, if it is one and is there.
fn local(store: &dyn Store, object: &str) -> Option<PathBuf> {
    store.local_path(object).filter(|path| path.exists())
}

impl Place {
    /// A store of its own.
    pub fn root(store: Arc<dyn Store>) -> Self {
        Self { store: Arc::new(Rereading(store)), prefix: String::new() }
    }

    /// Among the savepoints of a flow.
    ///
    /// # Errors
    /// The name cannot be part of an object's name.
    pub fn named(store: Arc<dyn Store>, flow: &str, name: &str) -> Result<Self, SavepointError> {
        match [flow, name].into_iter().find(|name| name.contains('/') || !check_name(name)) {
            Some(name) => Err(SavepointError::Name { name: name.to_owned() }),
            None => Ok(Self { store: Arc::new(Rereading(store)), prefix: format!("{flow}/{name}/") }),
        }
    }

    /// The names of the savepoints of a flow, in order.
    ///
    /// # Errors
    /// The store failed.
    pub fn names(store: &dyn Store, flow: &str) -> Result<Vec<String>, SavepointError> {
        let prefix = format!("{flow}/");
        let listed = store.list(&prefix)?;
        let name = |object: &str| {
            let (name, object) = object.strip_prefix(&prefix)?.split_once('/')?;
            (object == RECORD).then(|| name.to_owned())
        };
        Ok(listed.iter().filter_map(|object| name(&object.name)).collect())
    }

    /// The savepoint here.
    ///
    /// # Errors
    /// There is none, or its record is damaged.
    pub fn open(&self) -> Result<Savepoint, SavepointError> {
        let Some(bytes) = self.store.get(&self.object(RECORD))? else {
            let existing = match self.prefix.split_once('/') {
                Some((flow, _)) => Self::names(&*self.store, flow)?,
                None => Vec::new(),
            };
            return Err(SavepointError::Missing { place: self.describe(), existing });
        };
        let record = unseal(FORMAT, &bytes)
            .map_err(|damage| SavepointError::Damaged { place: self.describe(), damage })?;
        Ok(Savepoint { place: self.clone(), record })
    }

    /// Fails if there is a savepoint here.
    ///
    /// # Errors
    /// [`SavepointError::Exists`], or the store failed.
    pub fn check_free(&self) -> Result<(), SavepointError> {
        match self.store.get(&self.object(RECORD))? {
            Some(_) => Err(SavepointError::Exists { place: self.describe() }),
            None => Ok(()),
        }
    }

    /// Makes a savepoint here of a checkpoint whose output is committed. Its files must not be collected meanwhile. Costs a link a file,
    /// or a copy where the store cannot link.
    ///
    /// # Errors
    /// The place is taken, or a store failed; then there is no savepoint.
    pub fn take(
        &self,
        name: &str,
        checkpoints: &Checkpoints,
        manifest: &Manifest,
    ) -> Result<Savepoint, SavepointError> {
        self.fill(name, manifest, |file| {
            let object = checkpoints.file_object(&file.content);
            self.copy(&*checkpoints.store, &object, file)
        })
    }

    /// Removes the savepoint, or what an unfinished one has left.
    ///
    /// # Errors
    /// There is neither, or the store failed.
    pub fn delete(&self) -> Result<(), SavepointError> {
        let objects = self.store.list(&self.prefix)?;
        if objects.is_empty() {
            self.open()?;
        }
        self.store.delete(&self.object(RECORD))?;
        self.clear()
    }

    /// Removes the files beside the record.
    fn clear(&self) -> Result<(), SavepointError> {
        for object in self.store.list(&self.object(files::PREFIX))? {
            self.store.delete(&object.name)?;
        }
        Ok(())
    }

    fn fill(
        &self,
        name: &str,
        manifest: &Manifest,
        mut bring: impl FnMut(&StateFile) -> Result<(), SavepointError>,
    ) -> Result<Savepoint, SavepointError> {
        let _filling = self.begin()?;
        for file in manifest.files() {
            bring(file)?;
        }
        self.finish(name, manifest)
    }

    /// Begins a savepoint here, of files that are handed in one by one. Until [`Filling::finish`] there is none; what an unfinished one has
    /// left is cleared away. No other savepoint is filled by this process meanwhile.
    ///
    /// # Errors
    /// The place is taken, or the store failed.
    pub fn begin(&self) -> Result<Filling<'_>, SavepointError> {
        // Two jobs of one process may want the same name: the second must not clear away what the first is bringing.
        let alone = FILLING.lock();
        self.check_free()?;
        self.clear()?;
        Ok(Filling { place: self, uploads: 0, _alone: alone })
    }

    /// Puts the record, which makes a savepoint of the files.
    fn finish(&self, name: &str, manifest: &Manifest) -> Result<Savepoint, SavepointError> {
        let manifest = Manifest { sinks: Default::default(), ..manifest.clone() };
        let record = Record { name: name.to_owned(), manifest };
        match self.store.put(&self.object(RECORD), &seal(FORMAT, &record))? {
            Put::Created => Ok(Savepoint { place: self.clone(), record }),
            Put::AlreadyExists => Err(SavepointError::Exists { place: self.describe() }),
        }
    }

    fn copy(&self, from: &dyn Store, object: &str, file: &StateFile) -> Result<(), SavepointError> {
        let to = self.object(&file.content.object());
        match local(from, object) {
            Some(path) => self.store.put_file(&to, &path)?,
            None => {
                let missing = || Error::MissingFile { file: file.name.clone(), object: object.to_owned() };
                self.store.put(&to, &from.get(object)?.ok_or_else(missing)?)?
            }
        };
        Ok(())
    }

    fn object(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Where that is, for people.
    fn describe(&self) -> String {
        let object = self.object(RECORD);
        match self.store.local_path(&object) {
            Some(path) => path.parent().unwrap_or(&path).display().to_string(),
            None => format!("`{}`", self.prefix),
        }
    }
}

/// A savepoint whose files are being brought to its place.
#[derive(Debug)]
pub struct Filling<'a> {
    place: &'a Place,
    uploads: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Filling<'_> {
    /// Brings a file of another savepoint as it is: a link, or a copy where the store cannot link.
    ///
    /// # Errors
    /// The file is missing, or a store failed.
    pub fn keep(&mut self, from: &Savepoint, file: &StateFile) -> Result<(), SavepointError> {
        self.place.copy(&*from.place.store, &from.file_object(file), file)
    }

    /// Brings a new file, of a savepoint that began as `from`, if it did.
    ///
    /// # Errors
    /// The file cannot be read, or the store failed.
    pub fn add(&mut self, from: Option<&Savepoint>, source: Source<'_>) -> Result<FileRef, SavepointError> {
        let (digest, bytes) = match source {
            Source::Bytes(bytes) => (Digest::of(bytes), bytes.len() as u64),
            Source::Path(path) => Digest::of_file(path).map_err(|reason| Error::File {
                attempt: "read",
                path: path.to_owned(),
                reason,
            })?,
        };
        let kept = from.into_iter().flat_map(|from| from.manifest().files());
        let last = kept.map(|file| file.content.upload).max().unwrap_or(0);
        self.uploads += 1;
        let generation = from.map_or(Generation(1), |from| from.manifest().generation);
        let content = FileRef { digest, bytes, generation, upload: last + self.uploads };
        let object = self.place.object(&content.object());
        match source {
            Source::Bytes(bytes) => self.place.store.put(&object, bytes)?,
            Source::Path(path) => self.place.store.put_file(&object, path)?,
        };
        Ok(content)
    }

    /// Puts the record, which makes a savepoint of the files. Those of the manifest must have been brought.
    ///
    /// # Errors
    /// The store failed, or somebody else took the place; there may be files, and no savepoint.
    pub fn finish(self, name: &str, manifest: &Manifest) -> Result<Savepoint, SavepointError> {
        self.place.finish(name, manifest)
    }
}

impl Savepoint {
    /// A checkpoint where it lies, to be read as a savepoint is. It is none: it may be collected, and may have output that is not committed.
    #[must_use]
    pub fn of_checkpoint(checkpoints: &Checkpoints, manifest: Manifest) -> Self {
        let place = Place { store: Arc::clone(&checkpoints.store), prefix: checkpoints.prefix().to_owned() };
        Self { place, record: Record { name: format!("checkpoint {}", manifest.epoch), manifest } }
    }

    /// Where a state file of it lies in the local file system, if its store keeps its objects there.
    #[must_use]
    pub fn local_path(&self, file: &StateFile) -> Option<PathBuf> {
        local(&*self.place.store, &self.file_object(file))
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The checkpoint that it holds. It has no output to commit.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.record.manifest
    }

    /// The folder that it lies in, if its store is a directory.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        let record = self.place.store.local_path(&self.place.object(RECORD))?;
        record.parent().map(Path::to_owned)
    }

    /// Reads every state file and compares it with its digest: costs about a second a gigabyte.
    ///
    /// # Errors
    /// A file is missing or damaged; the error names it.
    pub fn verify(&self) -> Result<(), SavepointError> {
        self.record.manifest.files().try_for_each(|file| self.verify_file(file))
    }

    /// As [`Savepoint::verify`], of one file.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn verify_file(&self, file: &StateFile) -> Result<(), SavepointError> {
        let object = self.file_object(file);
        match local(&*self.place.store, &object) {
            Some(path) => Ok(checkpoints::verify_file(file, &object, &path)?),
            None => self.fetch_bytes(file).map(drop),
        }
    }

    /// Reads a state file into memory, and verifies it.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn fetch_bytes(&self, file: &StateFile) -> Result<Vec<u8>, SavepointError> {
        Ok(checkpoints::fetch_bytes(&*self.place.store, self.file_object(file), file)?)
    }

    /// Makes the same savepoint at another place, under a name that may be another.
    ///
    /// # Errors
    /// The place is taken, a file is missing, or a store failed.
    pub fn copy_to(&self, name: &str, to: &Place) -> Result<Savepoint, SavepointError> {
        to.fill(name, &self.record.manifest, |file| {
            to.copy(&*self.place.store, &self.file_object(file), file)
        })
    }

    /// Makes this savepoint the newest checkpoint of a flow, through the right to store that `writer` has just claimed and used for nothing
    /// else: whoever recovers afterwards starts from here. Costs a SHA-256 of all files, which verifies them.
    ///
    /// # Errors
    /// A file is missing or damaged, another process took the flow over, or the store failed. Then the newest checkpoint is what it was,
    /// unless the error says that this is unknown.
    pub fn install(&self, writer: &Writer, now_ms: i64) -> Result<Epoch, SavepointError> {
        let epoch = writer.pass_over()?.max(self.record.manifest.epoch.next());
        let flow = &writer.checkpoints().flow;
        let mut manifest = Manifest {
            flow: flow.name.clone(),
            version: flow.version,
            epoch,
            generation: writer.generation(),
            parent: None,
            created_at_ms: now_ms,
            // Where the output of another history ended.
            output_ends: Default::default(),
            ..self.record.manifest.clone()
        };
        for file in manifest.files_mut() {
            file.content = self.upload(writer, epoch, file)?;
        }
        let install = |reason: String| SavepointError::Install {
            name: self.record.name.clone(),
            flow: flow.name.clone(),
            reason,
        };
        let mut last = String::new();
        for _ in 0..STORE_ATTEMPTS {
            match writer.store(&manifest) {
                StoreReply::Stored => return Ok(epoch),
                StoreReply::Refused { reason } | StoreReply::Unknown { reason } => last = reason,
                StoreReply::Fenced { .. } => {
                    return Err(install("another process runs the flow now".to_owned()));
                }
            }
        }
        Err(install(format!("{last}; whether it was stored shows at the next start")))
    }

    fn upload(&self, writer: &Writer, epoch: Epoch, file: &StateFile) -> Result<FileRef, SavepointError> {
        let object = self.file_object(file);
        let uploaded = match local(&*self.place.store, &object) {
            Some(path) => writer.upload(epoch, Source::Path(&path))?,
            None => writer.upload(epoch, Source::Bytes(&self.fetch_bytes(file)?))?,
        };
        checkpoints::verify(file, &object, uploaded.digest, uploaded.bytes)?;
        Ok(uploaded)
    }

    fn file_object(&self, file: &StateFile) -> String {
        self.place.object(&file.content.object())
    }
}
