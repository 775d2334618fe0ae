//! The store of checkpoints: an object store reduced to what every one of them offers.
//!
//! Five calls: put-if-absent, get, list, delete, and the same put and get for whole files. No rename, no overwrite, no
//! lock, no clock. A put is *write-once*: of all puts that ever reach a name that is not deleted, one creates it. It is
//! the one primitive the protocol rests on ([`crate::history`]), and S3, GCS, Azure and a local file system have it.
//!
//! A call that fails says whether it *did not happen* or *may have happened* ([`Certainty`]). A put that may have
//! happened may also happen later, at any time: a request that timed out can still be on its way.

mod faulty;
mod local;
mod memory;
mod rereading;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use faulty::{Fault, FaultyStore, Odds};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub(crate) use rereading::Rereading;

/// What a put-if-absent that was answered did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Put {
    /// The object did not exist; it does now, durably, with the bytes of this put.
    Created,
    /// An object of that name exists; nothing was written. It may be the work of an earlier attempt of the same
    /// caller, whose answer was lost: read it and compare.
    AlreadyExists,
}

/// Whether a call that failed had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certainty {
    /// It had none and will have none.
    Determinate,
    /// It may have had one, or may still have one later. Only the store itself can tell: repeat or read.
    Indeterminate,
}

/// A call to the store that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} checkpoint object `{name}` in {store}: {reason} ({certainty})")]
pub struct StoreError {
    /// The call: `put`, `get`, `list`, `delete`.
    pub attempt: &'static str,
    /// The object, or the prefix for a list.
    pub name: String,
    /// Which store: its directory or kind.
    pub store: String,
    /// Whether the call had an effect.
    pub certainty: Certainty,
    /// What went wrong.
    #[source]
    pub reason: io::Error,
}

/// An object that a list found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listed {
    /// The object's name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A write-once object store.
///
/// Names are `/`-separated, of letters, digits, `-`, `_` and `.` ([`check_name`]). Calls block; they may come from
/// several threads. Each is atomic and linearizable: a get or list sees every put that was answered before it began.
/// `tests/it/conformance.rs` holds every implementation to this.
pub trait Store: Send + Sync + fmt::Debug {
    /// Creates `name` with `bytes` unless it exists; durable when it returns [`Put::Created`].
    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, StoreError>;

    /// As [`Store::put`], with the bytes of the file at `path`, which must not change afterwards: the store may take a
    /// hard link instead of a copy.
    fn put_file(&self, name: &str, path: &Path) -> Result<Put, StoreError>;

    /// The bytes of `name`, or `None` where there is none.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Brings `name` to the file `to`, which must not exist yet, and returns whether there was such an object. With
    /// `link`, the file may be a hard link to the object: the caller must never write to it in place.
    fn fetch_file(&self, name: &str, to: &Path, link: bool) -> Result<bool, StoreError>;

    /// Where the object `name` lies in the local file system, if this store keeps its objects there: so that another store may link it.
    fn local_path(&self, _name: &str) -> Option<PathBuf> {
        None
    }

    /// Every object whose name begins with `prefix`, in order of name.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes `name`; what is not there is no error.
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Determinate => "it did not happen",
            Self::Indeterminate => "it may have happened",
        })
    }
}

/// Whether `name` may name an object: non-empty parts of ASCII letters, digits, `-`, `_`, `.`, separated by `/`, none
/// of them beginning with a dot (a directory store keeps its own files under such names).
#[must_use]
pub fn check_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain))
}

/// The error of a name that [`check_name`] refuses.
fn invalid_name(attempt: &'static str, name: &str, store: String) -> StoreError {
    let reason = io::Error::new(io::ErrorKind::InvalidInput, "not a valid object name");
    StoreError { attempt, name: name.to_owned(), store, certainty: Certainty::Determinate, reason }
}
