//! What a snapshot consists of, and why restoring it yields the state at its barrier.
//!
//! The state of a store is the backend's rows overlaid with the *unflushed* entries in memory (those that differ from the
//! backend, deletions included). A snapshot is a **base**, then **deltas** in order.
//!
//! 1. *Rebase* at a barrier: take a checkpoint of the backend as it is, and write all unflushed entries as the first delta. By the
//!    definition above, base + first delta is the state at this barrier. Nothing is sorted, and entries in use need not be
//!    written to the backend at all; while nothing was ever spilled, there is no base.
//! 2. *Any other barrier*: write one more delta with every entry that changed since the last barrier. An entry that was
//!    changed and then spilled has written its row into this delta when it was spilled; deletions and dropped windows likewise, in the
//!    order in which they happened, before the entries still in memory. So base + deltas is again the state at this barrier.
//! 3. Spills between barriers go to the live backend and not to the checkpoint the base refers to (its files are immutable),
//!    so it does not matter what they overwrite: restore opens the base, never the live directory.
//! 4. *Restore* opens the base and reads the deltas into memory as unflushed entries, which is the state of 1 again.
//!
//! Small deltas are merged, so that a snapshot never consists of more than some dozens of files (`chain.rs`).
//! A chain is replaced (rebase) when its deltas outgrow [`Limits`](crate::Limits). If the first delta itself would be too large,
//! entries that were not used lately are flushed to the backend before its checkpoint is taken.
//!
//! Files are handed out as [`SnapshotSource`]s, which keep them readable for as long as somebody holds one.

pub(crate) mod chain;
pub(crate) mod restore;

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Result, StateError};
use crate::handle::StateKind;
use crate::key::KeyGroupRange;

/// Immutable bytes; clones share them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SharedBytes(Arc<Vec<u8>>);

impl SharedBytes {
    /// The buffer, if nobody else holds it.
    pub(crate) fn reclaim(self) -> Option<Vec<u8>> {
        Arc::try_unwrap(self.0).ok()
    }
}
impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}
impl Deref for SharedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// A local file that is not removed while this (or a clone) is held.
#[derive(Clone)]
pub struct HeldFile {
    path: PathBuf,
    _folder: Arc<dyn Send + Sync>,
}

impl HeldFile {
    /// A file whose folder lives as long as `folder`.
    pub fn new(path: PathBuf, folder: Arc<dyn Send + Sync>) -> Self {
        Self { path, _folder: folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
impl fmt::Debug for HeldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// Whether a file is part of the backend's checkpoint or holds changes since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileRole {
    /// A file of the backend's checkpoint.
    Base,
    /// Changes, to be applied in order.
    Delta,
}

/// Where the content of a snapshot's file is.
#[derive(Clone, Debug)]
pub enum SnapshotSource {
    /// A local file, kept until the last clone of this is dropped.
    Path(HeldFile),
    /// In memory.
    Bytes(SharedBytes),
    /// Where an earlier snapshot's file of this name was stored; the store no longer has it.
    /// Only after [`KeyedStore::stored`](crate::KeyedStore::stored) or a restore said that it is.
    Stored,
}

/// One file of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    /// Unique among the files of this store, over its life and that of the snapshot it was restored from:
    /// two files of one name have the same content.
    pub name: String,
    /// Base or delta.
    pub role: FileRole,
    /// Where to read it.
    pub source: SnapshotSource,
    /// Whether an earlier snapshot (or the one restored from) listed it: if that was stored, it need not be stored again.
    pub reused: bool,
}

/// The state of one store at a barrier.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The epoch given to [`KeyedStore::snapshot`](crate::KeyedStore::snapshot).
    pub epoch: u64,
    /// The key groups it covers.
    pub range: KeyGroupRange,
    /// All its files, base first, then deltas in order. Few: at most some dozens of deltas.
    pub files: Vec<SnapshotFile>,
    /// What [`KeyedStore::open`](crate::KeyedStore::open) needs besides the files; opaque, small.
    pub meta: Vec<u8>,
    /// Bytes of the files that no earlier snapshot listed and that are in memory: what this barrier cost.
    pub delta_bytes: u64,
}

/// A file handed back at restore.
#[derive(Clone, Debug)]
pub struct RestoreFile {
    /// The name it had in the snapshot.
    pub name: String,
    /// The role it had.
    pub role: FileRole,
    /// Where its content is now.
    pub source: RestoreSource,
}

/// Where a file to restore from is.
#[derive(Clone, Debug)]
pub enum RestoreSource {
    /// A local file; base files are hard-linked where possible and never written to.
    Path(PathBuf),
    /// In memory.
    Bytes(SharedBytes),
}

impl RestoreSource {
    /// The whole content.
    pub(crate) fn read(&self) -> Result<SharedBytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Path(path) => std::fs::read(path).map(SharedBytes::from).map_err(|source| StateError::Io {
                attempted: "read",
                path: path.clone(),
                source,
            }),
        }
    }
}

/// The snapshot of one old task.
#[derive(Clone, Debug)]
pub struct RestorePart {
    /// [`Snapshot::meta`].
    pub meta: Vec<u8>,
    /// [`Snapshot::files`].
    pub files: Vec<RestoreFile>,
}

impl RestorePart {
    /// Whether some of it is files of a backend on disk, so that only that kind of backend opens it.
    pub fn is_native(&self) -> bool {
        self.files.iter().any(|file| is_native(&file.name, file.role))
    }
}

/// Whether a file of that name and role is one of a backend on disk: not a delta, and not the image of a backend in memory.
pub fn is_native(name: &str, role: FileRole) -> bool {
    role == FileRole::Base && !crate::backend::memory::is_image(name)
}

impl Snapshot {
    /// This snapshot as something to restore from, for files that are still local: `None` if some are only stored.
    pub fn to_restore(&self) -> Option<RestorePart> {
        let files = self.files.iter().map(|file| {
            let source = match &file.source {
                SnapshotSource::Path(held) => RestoreSource::Path(held.path().to_owned()),
                SnapshotSource::Bytes(bytes) => RestoreSource::Bytes(bytes.clone()),
                SnapshotSource::Stored => return None,
            };
            Some(RestoreFile { name: file.name.clone(), role: file.role, source })
        });
        Some(RestorePart { meta: self.meta.clone(), files: files.collect::<Option<_>>()? })
    }
}

/// The version of [`Meta`].
pub(crate) const META_VERSION: u32 = 3;

/// What a snapshot says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub version: u32,
    pub groups: u16,
    pub range: KeyGroupRange,
    pub tables: Vec<TableMeta>,
    /// What the operator said of how it lays out its rows.
    pub layout: Option<String>,
    /// Name, role and length in bytes (of deltas), in order.
    pub files: Vec<(String, FileRole, u64)>,
}

/// A table as a snapshot knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TableMeta {
    pub id: u16,
    pub name: String,
    pub kind: StateKind,
    pub schema: String,
    /// The version of the handle.
    pub schema_version: u32,
    /// Bytes of a row before its key group.
    pub namespace_width: u16,
    /// A table's own counter (a list's next sequence number).
    pub counter: u64,
}

impl TableMeta {
    /// Whether this is the table of that name: among those of handles, which a user names, or those that an operator keeps besides.
    pub fn is_called(&self, name: &str, kind: StateKind) -> bool {
        self.name == name && self.kind.has_handle() == kind.has_handle()
    }

    /// What it is, for others.
    pub fn describe(&self) -> StateDescription {
        StateDescription {
            name: self.name.clone(),
            kind: self.kind,
            schema: self.schema.clone(),
            version: self.schema_version,
        }
    }
}

/// One of the states that a snapshot holds, as its description has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDescription {
    /// Its name.
    pub name: String,
    /// What kind of state it is.
    pub kind: StateKind,
    /// The types of its keys and values.
    pub schema: String,
    /// The version of its schema.
    pub version: u32,
}

/// The states that the snapshot of `operator` holds whose description ([`Snapshot::meta`]) this is, in the order in which they were opened: those
/// of handles, and those that operators keep besides. Reads no file.
///
/// # Errors
/// It is no such description, or one of another format.
pub fn states_of(operator: &str, meta: &[u8]) -> Result<Vec<StateDescription>> {
    let meta = restore::decode_meta(&operator.into(), meta)?;
    Ok(meta.tables.iter().map(TableMeta::describe).collect())
}
