//! A store in memory, for tests and the deterministic simulation.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Certainty, Listed, Put, Store, StoreError, check_name, invalid_name};

/// A [`Store`] in memory. Clones share the objects, so that a simulated process that is "killed" and started again
/// finds what it had stored.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<String, Arc<[u8]>>>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the bytes of `name`, as bit rot would: no call of [`Store`] can. For tests of damage.
    pub fn damage(&self, name: &str, bytes: &[u8]) {
        self.objects.lock().insert(name.to_owned(), bytes.into());
    }

    fn error(attempt: &'static str, name: &str, reason: io::Error) -> StoreError {
        let store = "memory".to_owned();
        StoreError { attempt, name: name.to_owned(), store, certainty: Certainty::Determinate, reason }
    }
}

impl Store for MemoryStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        if !check_name(name) {
            return Err(invalid_name("put", name, "memory".to_owned()));
        }
        let mut objects = self.objects.lock();
        if objects.contains_key(name) {
            return Ok(Put::AlreadyExists);
        }
        objects.insert(name.to_owned(), bytes.into());
        Ok(Put::Created)
    }

    fn put_file(&self, name: &str, path: &Path) -> Result<Put, StoreError> {
        let bytes = std::fs::read(path).map_err(|reason| Self::error("put", name, reason))?;
        self.put(name, &bytes)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.objects.lock().get(name).map(|bytes| bytes.to_vec()))
    }

    fn fetch_file(&self, name: &str, to: &Path, _link: bool) -> Result<bool, StoreError> {
        let Some(bytes) = self.objects.lock().get(name).cloned() else { return Ok(false) };
        let write = || {
            let mut file = std::fs::File::create_new(to)?;
            io::Write::write_all(&mut file, &bytes)
        };
        write().map_err(|reason| Self::error("get", name, reason))?;
        Ok(true)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let objects = self.objects.lock();
        let matching = objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        Ok(matching.map(|(name, bytes)| Listed { name: name.clone(), bytes: bytes.len() as u64 }).collect())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.objects.lock().remove(name);
        Ok(())
    }
}
