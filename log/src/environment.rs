//! What all parts of one open log share.

use crate::clock::Clock;
use crate::disk::{Disk, DiskLock};
use crate::error::{Error, Result};
use crate::options::{Damage, Durability, LogOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The lock file's name in the log's folder.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) directory: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) durability: Durability,
    pub(crate) damage: Damage,
    pub(crate) max_record_bytes: usize,
    pub(crate) max_batch_bytes: usize,
    /// `None`: the log is open read-only.
    lock: Option<Box<dyn DiskLock>>,
}

impl Environment {
    /// The environment of a writer, which takes the lock.
    pub(crate) fn of_writer(directory: &Path, options: LogOptions) -> Result<Environment> {
        let disk = Arc::clone(&options.disk);
        disk.create_dir_all(directory).map_err(|e| Error::io("making the log's folder", directory, e))?;
        let path = directory.join(LOCK_FILE);
        let lock = disk.lock(&path).map_err(|e| Error::io("locking", &path, e))?;
        let lock = lock.map_err(|holder| Error::Locked { directory: directory.to_path_buf(), holder })?;
        Ok(Environment { lock: Some(lock), ..Environment::of_reader(directory, options) })
    }

    pub(crate) fn of_reader(directory: &Path, options: LogOptions) -> Environment {
        Environment {
            directory: directory.to_path_buf(),
            disk: options.disk,
            clock: options.clock,
            durability: options.durability,
            damage: options.damage,
            max_record_bytes: options.max_record_bytes,
            max_batch_bytes: options.max_batch_bytes,
            lock: None,
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.lock.is_none()
    }

    /// Refuses if the log is open read-only, or if somebody removed the lock file, so that another process may be writing. Costs two
    /// system calls: for the rare and decisive steps, not for every append.
    pub(crate) fn check_writer(&self, attempt: &'static str) -> Result<()> {
        match &self.lock {
            None => Err(Error::ReadOnly { attempt }),
            Some(lock) if lock.is_held() => Ok(()),
            Some(_) => Err(Error::LockLost { path: self.directory.join(LOCK_FILE) }),
        }
    }

    pub(crate) fn topics(&self) -> PathBuf {
        self.directory.join("topics")
    }

    pub(crate) fn transactions(&self) -> PathBuf {
        self.directory.join("transactions")
    }
}
