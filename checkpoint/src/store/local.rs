//! A store in a directory.
//!
//! A put is durable and write-once on any POSIX file system:
//! 1. write the bytes to a temporary file in `.tmp/`, and fsync it;
//! 2. hard-link it to its name: the link fails if the name exists, which is the put-if-absent;
//! 3. fsync the folder of the name, then remove the temporary file.
//!
//! A crash leaves either nothing under the name or all of it. What fails before the link certainly did not happen; a
//! failure of the link's fsync may have. A file already on this file system is linked without a copy.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Certainty, Listed, Put, Store, StoreError, check_name, invalid_name};

/// Temporary files live here; no object's name may begin with a dot.
const TEMPORARY: &str = ".tmp";

/// A [`Store`] in a directory of a local (or well-behaved network) file system.
///
/// Several processes may use one directory at once. Temporary files of processes that died stay behind in `.tmp`
/// until [`LocalStore::open`] finds their process gone (on Linux). A process of another host or container counts as
/// gone: at worst a put of its fails, for certain, and is repeated.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    /// Names temporary files uniquely within this process.
    counter: AtomicU64,
    /// Folders whose own entries this store has made durable.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalStore {
    /// Opens the directory `root`, creating it where needed.
    ///
    /// # Errors
    /// The directory cannot be created or made durable.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into(), counter: AtomicU64::new(0), durable: Mutex::default() };
        let prepare = || {
            fs::create_dir_all(store.root.join(TEMPORARY))?;
            sync_folder(&store.root)?;
            match store.root.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
                _ => Ok(()),
            }
        };
        prepare().map_err(|reason| store.error("open", TEMPORARY, Certainty::Determinate, reason))?;
        store.sweep_temporaries();
        Ok(store)
    }

    /// The directory `root` as it is, for reading: touches nothing. What is not there is not found, and nothing can be put.
    pub fn existing(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), counter: AtomicU64::new(0), durable: Mutex::default() }
    }

    /// The directory of this store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn error(
        &self,
        attempt: &'static str,
        name: &str,
        certainty: Certainty,
        reason: io::Error,
    ) -> StoreError {
        StoreError {
            attempt,
            name: name.to_owned(),
            store: self.root.display().to_string(),
            certainty,
            reason,
        }
    }

    fn path(&self, attempt: &'static str, name: &str) -> Result<PathBuf, StoreError> {
        if check_name(name) {
            Ok(self.root.join(name))
        } else {
            Err(invalid_name(attempt, name, self.root.display().to_string()))
        }
    }

    fn temporary(&self) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        // The address tells two stores of one process apart.
        let unique = format!("{}-{:x}-{number}", std::process::id(), std::ptr::from_ref(self).addr());
        self.root.join(TEMPORARY).join(unique)
    }

    /// Removes what processes that no longer exist left in `.tmp`. Best effort: a file that stays costs space alone.
    fn sweep_temporaries(&self) {
        let Ok(entries) = fs::read_dir(self.root.join(TEMPORARY)) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let pid =
                name.to_str().and_then(|name| name.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
            let gone = pid.is_some_and(|pid| {
                Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists()
            });
            if gone {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Links the durable file `from` to `name`; the caller still owns `from`.
    fn link(&self, name: &str, from: &Path) -> Result<Put, StoreError> {
        let to = self.path("put", name)?;
        let folder = to.parent().unwrap_or(&self.root);
        self.create_folder(folder)
            .map_err(|reason| self.error("put", name, Certainty::Determinate, reason))?;
        let put = match fs::hard_link(from, &to) {
            Ok(()) => Put::Created,
            Err(reason) if reason.kind() == io::ErrorKind::AlreadyExists => Put::AlreadyExists,
            Err(reason) => return Err(self.error("put", name, Certainty::Determinate, reason)),
        };
        // Also for AlreadyExists: the one who created it may have died before its own fsync, and the caller is about
        // to rely on the object being there for good.
        sync_folder(folder).map_err(|reason| self.error("put", name, Certainty::Indeterminate, reason))?;
        Ok(put)
    }

    /// Creates `folder` and makes its entry, and those above it, durable: once a folder and store, also if it is there
    /// already, for another process may have created it a moment ago.
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder == self.root || self.durable.lock().contains(folder) {
            return Ok(());
        }
        let parent = folder.parent().unwrap_or(&self.root);
        self.create_folder(parent)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        sync_folder(parent)?;
        self.durable.lock().insert(folder.to_owned());
        Ok(())
    }

    /// Puts what `fill` writes, through a temporary file.
    fn put_with(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<Put, StoreError> {
        self.path("put", name)?;
        let temporary = self.temporary();
        let write = || {
            let mut file = File::create_new(&temporary)?;
            fill(&mut file)?;
            file.sync_all()
        };
        let put = match write() {
            Ok(()) => self.link(name, &temporary),
            Err(reason) => Err(self.error("put", name, Certainty::Determinate, reason)),
        };
        let _ = fs::remove_file(&temporary);
        put
    }

    fn collect(&self, folder: &Path, prefix: &str, found: &mut Vec<Listed>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let Some(name) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) else { continue };
            if !check_name(name) {
                continue;
            }
            // Gone between the listing and the look: deleted, as if the listing had come later.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if metadata.is_dir() {
                // Descend only where a name could begin with the prefix.
                let inside = format!("{name}/");
                if inside.starts_with(prefix) || prefix.starts_with(&inside) {
                    self.collect(&path, prefix, found)?;
                }
            } else if name.starts_with(prefix) {
                found.push(Listed { name: name.to_owned(), bytes: metadata.len() });
            }
        }
        Ok(())
    }
}

impl Store for LocalStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        self.put_with(name, |file| file.write_all(bytes))
    }

    fn put_file(&self, name: &str, path: &Path) -> Result<Put, StoreError> {
        let durable = || File::open(path)?.sync_all();
        durable().map_err(|reason| self.error("put", name, Certainty::Determinate, reason))?;
        match self.link(name, path) {
            // Another file system, or one without links (or a file with too many of them): copy.
            Err(error) if error.certainty == Certainty::Determinate && cannot_link(&error.reason) => {
                self.put_with(name, |file| io::copy(&mut File::open(path)?, file).map(drop))
            }
            other => other,
        }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path("get", name)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(reason) => Err(self.error("get", name, Certainty::Determinate, reason)),
        }
    }

    fn fetch_file(&self, name: &str, to: &Path, link: bool) -> Result<bool, StoreError> {
        let from = self.path("get", name)?;
        let outcome = match link.then(|| fs::hard_link(&from, to)) {
            Some(Err(error)) if cannot_link(&error) => copy(&from, to),
            Some(linked) => linked,
            None => copy(&from, to),
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => Ok(false),
            Err(reason) => Err(self.error("get", name, Certainty::Determinate, reason)),
        }
    }

    fn local_path(&self, name: &str) -> Option<PathBuf> {
        check_name(name).then(|| self.root.join(name))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        self.collect(&self.root, prefix, &mut found)
            .map_err(|reason| self.error("list", prefix, Certainty::Determinate, reason))?;
        found.sort_unstable();
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        // No fsync: an object that reappears after a crash is found by the next collection.
        match fs::remove_file(self.path("delete", name)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.error("delete", name, Certainty::Indeterminate, error))
            }
            _ => Ok(()),
        }
    }
}

/// Copies to a new file, of which nothing stays if it fails.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    io::copy(&mut source, &mut target).map(drop).inspect_err(|_| drop(fs::remove_file(to)))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::CrossesDevices | Kind::Unsupported | Kind::TooManyLinks | Kind::PermissionDenied
    )
}
