//! The blocking handle for the engine's driver: a flow's checkpoints in a store.
//!
//! [`Checkpoints`] reads. [`Checkpoints::fence`] claims the next generation and returns its [`Writer`], which alone can
//! store. Every attempt to run the flow has a writer of its own, also after a failure within one process: whatever the
//! old attempt still has on its way belongs to the old writer, and is fenced.
//!
//! Objects of a flow: `<flow>/<version>/history/<slot>` ([`crate::history`]) and
//! `<flow>/<version>/files/..` ([`crate::files`]).

mod error;
mod scan;
mod writer;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::{Corruption, Error};
use scan::Scan;
pub use writer::{Collected, Writer};

use crate::files::{Digest, FileRef};
use crate::history::{Entry, History, Slot};
use crate::store::{Rereading, Store, check_name};
use crate::{Epoch, Generation, Manifest, StateFile};

/// Which flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlowId {
    /// Its name: ASCII letters, digits, `-`, `_` and `.`, not beginning with a dot.
    pub name: String,
    /// The version that is deployed. Each has checkpoints of its own.
    pub version: u64,
}

impl FlowId {
    /// Whether the name can be part of an object's name, and of a path: everything that is kept for a flow is kept under it.
    ///
    /// # Errors
    /// [`Error::FlowName`], which says what a name consists of.
    pub fn check(&self) -> Result<(), Error> {
        if self.name.contains('/') || !check_name(&self.name) {
            return Err(Error::FlowName { name: self.name.clone() });
        }
        Ok(())
    }
}

/// Which checkpoint to continue from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestoreFrom {
    /// The newest; if it is damaged, that is an error.
    #[default]
    Latest,
    /// The newest that is intact.
    LatestValid,
    /// The one of this epoch.
    Epoch(Epoch),
}

/// What recovery found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The checkpoint to continue from; `None` where the flow has none.
    pub checkpoint: Option<Arc<Manifest>>,
    /// The first epoch number that no stored checkpoint has used.
    pub next_epoch: Epoch,
    /// Whether `checkpoint` is older than the newest one, as [`RestoreFrom`] asked for. What came after it is produced
    /// a second time; output of those epochs that was not committed yet should be aborted.
    pub rewound: bool,
    /// Newer entries that were passed over because they are damaged: name and damage.
    pub damaged: Vec<(String, String)>,
}

/// What is known of a stored checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its epoch.
    pub epoch: Epoch,
    /// The generation that took it.
    pub generation: Generation,
    /// When it began, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// The size of its state files in bytes, those shared with other checkpoints included.
    pub state_bytes: u64,
    /// The object that holds its manifest.
    pub object: String,
}

/// The content of a state file to upload.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file that will not change any more. It is linked where the store can.
    Path(&'a Path),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// How to fetch a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// As a hard link where the store can: the file must never be written to in place.
    Link,
    /// As a copy.
    Copy,
}

/// A flow's checkpoints in a store, for reading.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) flow: FlowId,
    prefix: String,
    history: History,
}

impl Checkpoints {
    /// The checkpoints of `flow` in `store`. Touches nothing.
    ///
    /// # Errors
    /// The flow's name cannot be part of an object's name.
    pub fn new(store: Arc<dyn Store>, flow: FlowId) -> Result<Self, Error> {
        flow.check()?;
        let prefix = format!("{}/{}/", flow.name, flow.version);
        let store: Arc<dyn Store> = Arc::new(Rereading(store));
        let history = History::new(Arc::clone(&store), prefix.clone());
        Ok(Self { store, flow, prefix, history })
    }

    /// Claims the next generation: from its return on, no older one can store. The newest `retained` checkpoints are
    /// kept by [`Writer::collect`]. For `owner` and the time see [`crate::history::Fencing::new`].
    ///
    /// # Errors
    /// The store failed, or another process claimed a generation in the same moment and has won. Calling again is always
    /// safe; after a lost race it takes the flow over from the winner.
    pub fn fence(&self, owner: &str, now_ms: i64, retained: NonZeroUsize) -> Result<Writer, Error> {
        let fenced = self.history.fence(owner, now_ms);
        let fenced = fenced.map_err(|reason| Error::Fence { flow: self.flow.name.clone(), reason })?;
        tracing::info!(flow = %self.flow.name, generation = %fenced.generation, "claimed a generation");
        Ok(Writer::new(self.clone(), fenced, retained))
    }

    /// The stored checkpoints that can be read, oldest first. Costs reading every manifest.
    ///
    /// # Errors
    /// The store failed.
    pub fn list(&self) -> Result<Vec<Summary>, Error> {
        let mut scan = self.scan(None)?;
        scan.read_all(self)?;
        Ok(scan.manifests().map(|(slot, manifest)| self.summary(slot, manifest)).rev().collect())
    }

    /// The entries that are damaged, oldest first: their objects, and what is wrong. Costs reading every entry.
    ///
    /// # Errors
    /// The store failed.
    pub fn damaged(&self) -> Result<Vec<(String, String)>, Error> {
        let mut scan = self.scan(None)?;
        scan.read_all(self)?;
        let damaged = scan
            .entries()
            .filter_map(|(slot, entry)| Some((self.history.name(*slot), entry.as_ref().err()?.to_string())));
        let mut damaged: Vec<_> = damaged.collect();
        damaged.reverse();
        Ok(damaged)
    }

    /// What the names of its objects begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether no checkpoint was ever stored, not even one that is damaged now.
    ///
    /// # Errors
    /// The store failed.
    pub fn is_empty(&self) -> Result<bool, Error> {
        let mut scan = self.scan(None)?;
        scan.read_all(self)?;
        Ok(scan.newest().is_none())
    }

    /// Reads the newest checkpoint that is intact, if there is one, without claiming anything.
    ///
    /// # Errors
    /// All that there are are damaged, or the store failed.
    pub fn newest(&self) -> Result<Option<Manifest>, Error> {
        let mut scan = self.scan(None)?;
        let found = scan.find(self, RestoreFrom::LatestValid)?;
        Ok(found.map(|(_, manifest)| manifest))
    }

    /// The versions of this flow that are in the store, in order. Costs listing all that is kept of them.
    ///
    /// # Errors
    /// The store failed.
    pub fn versions(&self) -> Result<BTreeSet<u64>, Error> {
        let prefix = format!("{}/", self.flow.name);
        let listed = self.store.list(&prefix)?;
        let version = |name: &str| name.strip_prefix(&prefix)?.split('/').next()?.parse().ok();
        Ok(listed.iter().filter_map(|listed| version(&listed.name)).collect())
    }

    /// Reads the checkpoint of `epoch` without claiming anything, for queries and inspection.
    ///
    /// # Errors
    /// There is none, it is damaged, or the store failed.
    pub fn inspect(&self, epoch: Epoch) -> Result<Manifest, Error> {
        let mut scan = self.scan(None)?;
        let found = scan.find(self, RestoreFrom::Epoch(epoch))?;
        found.map(|(_, manifest)| manifest).ok_or_else(|| self.no_such_epoch(epoch))
    }

    /// Brings a state file to `to`, which must not exist, and verifies it: costs reading it once.
    ///
    /// # Errors
    /// The store does not have it, or has other bytes than were stored ([`Error::Corrupt`]); nothing is left at `to`.
    pub fn fetch(&self, file: &StateFile, to: &Path, how: Fetch) -> Result<(), Error> {
        let object = self.file_object(&file.content);
        if !self.store.fetch_file(&object, to, how == Fetch::Link)? {
            return Err(Error::MissingFile { file: file.name.clone(), object });
        }
        let verified = verify_file(file, &object, to);
        if verified.is_err() {
            let _ = std::fs::remove_file(to);
        }
        verified
    }

    /// As [`Checkpoints::fetch`], into memory.
    ///
    /// # Errors
    /// As there.
    pub fn fetch_bytes(&self, file: &StateFile) -> Result<Vec<u8>, Error> {
        fetch_bytes(&*self.store, self.file_object(&file.content), file)
    }

    /// Where a state file lies in the local file system, if the store keeps its objects there. It may be collected as soon as no retained
    /// checkpoint names it.
    #[must_use]
    pub fn local_path(&self, file: &StateFile) -> Option<PathBuf> {
        self.store.local_path(&self.file_object(&file.content)).filter(|path| path.exists())
    }

    /// The flow's history below a slot, of which nothing is read yet.
    fn scan(&self, below: Option<Slot>) -> Result<Scan, Error> {
        let mut slots = self.history.list()?;
        slots.retain(|slot| below.is_none_or(|below| *slot < below));
        Ok(Scan::new(slots))
    }

    fn decode(&self, slot: Slot, bytes: &[u8]) -> Result<Entry, Error> {
        let object = self.history.name(slot);
        let entry =
            Entry::decode(bytes).map_err(|damage| Error::Damaged { object: object.clone(), damage })?;
        match &entry {
            Entry::Manifest(manifest)
                if manifest.flow != self.flow.name || manifest.version != self.flow.version =>
            {
                let (found, version) = (manifest.flow.clone(), manifest.version);
                Err(Error::OtherFlow { object, found, version, flow: self.flow.clone() })
            }
            _ => Ok(entry),
        }
    }

    pub(crate) fn file_object(&self, file: &FileRef) -> String {
        format!("{}{}", self.prefix, file.object())
    }

    fn no_such_epoch(&self, epoch: Epoch) -> Error {
        Error::NoSuchEpoch { flow: self.flow.name.clone(), epoch }
    }

    fn summary(&self, slot: Slot, manifest: &Manifest) -> Summary {
        Summary {
            epoch: manifest.epoch,
            generation: manifest.generation,
            created_at_ms: manifest.created_at_ms,
            state_bytes: manifest.files().map(|file| file.content.bytes).sum(),
            object: self.history.name(slot),
        }
    }
}

/// Reads the object of a state file into memory, and verifies it.
pub(crate) fn fetch_bytes(store: &dyn Store, object: String, file: &StateFile) -> Result<Vec<u8>, Error> {
    let missing = || Error::MissingFile { file: file.name.clone(), object: object.clone() };
    let bytes = store.get(&object)?.ok_or_else(missing)?;
    verify(file, &object, Digest::of(&bytes), bytes.len() as u64)?;
    Ok(bytes)
}

/// Verifies what lies at `path` as the object of a state file: costs reading it once.
pub(crate) fn verify_file(file: &StateFile, object: &str, path: &Path) -> Result<(), Error> {
    let (digest, bytes) = Digest::of_file(path).map_err(|reason| Error::File {
        attempt: "verify",
        path: path.to_owned(),
        reason,
    })?;
    verify(file, object, digest, bytes)
}

pub(crate) fn verify(file: &StateFile, object: &str, digest: Digest, bytes: u64) -> Result<(), Error> {
    if digest == file.content.digest {
        return Ok(());
    }
    Err(Error::Corrupt(Box::new(Corruption {
        file: file.name.clone(),
        object: object.to_owned(),
        expected: file.content.digest,
        expected_bytes: file.content.bytes,
        found: digest,
        found_bytes: bytes,
    })))
}

/// The path of a file that could not be read, in an error.
fn unreadable(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = PathBuf::from(path);
    move |reason| Error::File { attempt, path, reason }
}
