//! The data directory: one process at a time, and what lies where in it.
//!
//! | path | what |
//! | --- | --- |
//! | `LOCK` | held while an engine runs; names its process |
//! | `log/` | the embedded log |
//! | `checkpoints/` | manifests and state files of all flows |
//! | `deployments/FLOW` | which version of a flow is live, and what its readers see |
//! | `savepoints/FLOW/NAME/` | savepoints, each a folder that can be copied |
//! | `state/FLOW/VERSION/` | local state: a cache, thrown away at every start |
//! | `queries/` | links to state files that queries read; emptied when an engine opens |
//! | `audits/` | a data directory for each audit that runs; emptied when an engine opens |

use rivermark_operators::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Another process holds a data directory: the source of the error of [`Engine::open`](crate::Engine::open), for programs that want to tell it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryInUse {
    /// The process, as in `process 17 (flights)`.
    pub holder: String,
}

impl fmt::Display for DirectoryInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is in use by {}; stop that one, or use another directory", self.holder)
    }
}

impl std::error::Error for DirectoryInUse {}

/// A locked data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    /// Held until dropped; the kernel lets go of it when the process dies, however it dies.
    lock: File,
}

impl Directory {
    /// Creates the directory if need be, and locks it.
    pub(crate) fn lock(root: &Path) -> Result<Directory> {
        create(root)
            .map_err(|e| Error::engine(format!("creating the data directory {}", root.display()), e))?;
        let path = root.join("LOCK");
        let attempt = || format!("locking the data directory {}", root.display());
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::engine(attempt(), e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // The name of the holder is a courtesy; without it the message is still right.
            let _ = lock.read_to_string(&mut holder);
            let holder = if holder.is_empty() { "another process" } else { holder.trim() }.to_owned();
            return Err(Error::engine(attempt(), DirectoryInUse { holder }));
        }
        let name = std::env::current_exe().ok();
        let name = name.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "process {} ({name})", std::process::id()))
            .map_err(|e| Error::engine(attempt(), e))?;
        Ok(Directory { root: root.to_path_buf(), lock })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    pub(crate) fn deployments(&self) -> PathBuf {
        self.root.join("deployments")
    }

    pub(crate) fn savepoints(&self) -> PathBuf {
        self.root.join("savepoints")
    }

    /// Where queries open state files.
    pub(crate) fn queries(&self) -> PathBuf {
        self.root.join("queries")
    }

    /// Where audits replay.
    pub(crate) fn audits(&self) -> PathBuf {
        self.root.join("audits")
    }

    /// Removes what a process that was killed has left of its queries and audits.
    pub(crate) fn clear_left_overs(&self) -> Result<()> {
        for folder in [self.queries(), self.audits()] {
            match std::fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::engine(format!("clearing {}", folder.display()), e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The local state of a flow's versions.
    pub(crate) fn states(&self, flow: &str) -> PathBuf {
        self.root.join("state").join(flow)
    }

    /// The local state of one version of a flow.
    pub(crate) fn state(&self, flow: &str, version: u64) -> PathBuf {
        self.states(flow).join(version.to_string())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A process that is being started at this moment has a copy of the file until it has become another program, and closing ours alone would
        // leave it locked. If this fails, closing is what is left.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Creates a folder and those it lies in, so that they are still there when the power comes back.
pub(crate) fn create(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create(parent)?;
    }
    match std::fs::create_dir(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(e),
        _ => {}
    }
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_created_with_those_it_lies_in() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        drop(Directory::lock(&deep).unwrap());
        Directory::lock(&deep).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let error = Directory::lock(&root.path().join("file/d")).unwrap_err().to_string();
        assert!(error.contains("creating the data directory") && error.contains("file/d"), "{error}");
    }

    #[test]
    fn a_second_engine_is_told_who_holds_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::lock(root.path()).unwrap();
        let error = Directory::lock(root.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Directory::lock(root.path()).unwrap();
    }
}

/// A folder for what is needed for a while: gone with this value.
#[derive(Debug)]
pub(crate) struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// A new folder in `parent`, or in the system's temporary folder.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn create(parent: Option<&Path>) -> Result<ScratchFolder> {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let failed =
            |path: &Path, e| Error::engine(format!("creating the scratch folder {}", path.display()), e);
        std::fs::create_dir_all(&parent).map_err(|e| failed(&parent, e))?;
        loop {
            let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = parent.join(format!("rivermark-scratch-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(ScratchFolder(path)),
                // Of a process that had this number and was killed.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path, e)),
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a scratch folder could not be removed");
        }
    }
}
