//! A second and third look where the first one failed.
//!
//! A recovery reads the fences of all attempts since the last checkpoint. If each failed read failed the recovery, which adds a fence,
//! a store that now and then drops a request would make the next recovery less likely to succeed than the last. (The simulation found a
//! flow that never got up again.) A read has no effect, so repeating it is always right; puts are repeated by the protocol, which knows how.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Listed, Put, Store, StoreError};

/// How often a read is tried at the most. Pauses are the store's own business: it knows its medium.
const ATTEMPTS: usize = 3;

/// A store whose gets and lists are repeated when they fail.
#[derive(Debug)]
pub(crate) struct Rereading(pub(crate) Arc<dyn Store>);

fn repeated<T>(read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 1..ATTEMPTS {
        match read() {
            Ok(found) => return Ok(found),
            Err(error) => tracing::debug!(%error, "a read of the checkpoint store failed; reading again"),
        }
    }
    read()
}

impl Store for Rereading {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        self.0.put(name, bytes)
    }

    fn put_file(&self, name: &str, path: &Path) -> Result<Put, StoreError> {
        self.0.put_file(name, path)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        repeated(|| self.0.get(name))
    }

    // The file may have been made although the call failed: the caller's to clear up.
    fn fetch_file(&self, name: &str, to: &Path, link: bool) -> Result<bool, StoreError> {
        self.0.fetch_file(name, to, link)
    }

    fn local_path(&self, name: &str) -> Option<PathBuf> {
        self.0.local_path(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        repeated(|| self.0.list(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.0.delete(name)
    }
}
