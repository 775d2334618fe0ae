//! A data directory as it lies there: read beside the process that uses it, or when none does.
//!
//! [`DataDirectory`] takes no lock, writes nothing and starts no thread. It relies on how each part is written:
//!
//! 1. The log is opened read-only, as a follower.
//! 2. Checkpoints are immutable; retention may collect one while it is read. What was opened stays readable where files are linked, and an error
//!    that a file is gone means: ask for the newest again. [`DataDirectory::with_checkpoint`] does so.
//! 3. The record of a flow's deployments is replaced as a whole.
//! 4. Savepoints are immutable, and nothing but a person deletes them.

mod compare;
mod summary;

pub use self::compare::ComparedAtRest;
pub use self::summary::{
    CheckpointSummary, DamagedFile, FilesVerified, OperatorSummary, PositionSummary, SinkSummary,
    StateSummary,
};

use crate::deployment::{Deployments, RecordFile};
use crate::savepoint::{Savepoint, Savepoints};
use rivermark_checkpoint::store::LocalStore;
use rivermark_checkpoint::{Checkpoints, Epoch, FlowId, Summary};
use rivermark_log::{Log, LogOptions};
use rivermark_operators::{Error, Result};
use rustix::fs::{major, minor};
use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often the newest checkpoint is asked for again when it is collected while it is read.
const ATTEMPTS: usize = 5;

/// Whether a line of the kernel's table of locks, `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`, is about the lock file, whose holder has this name. The
/// number of a file is one of its device, which not every file system tells as the table does; then the process has to be the one that is named.
fn is_held(line: &str, name: &str, file: &Metadata) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", process, place, ..] = words[..] else { return false };
    let device = format!("{:02x}:{:02x}", major(file.dev()), minor(file.dev()));
    place.rsplit_once(':').is_some_and(|(on, number)| {
        number == file.ino().to_string() && (on == device || name.starts_with(&format!("process {process} ")))
    })
}

/// A data directory, for looking at it, beside the process that uses it or when none does. It takes no lock and writes nothing.
///
/// Checkpoints are immutable, but a running flow collects them: what was opened of one stays readable where its files are linked, and
/// [`DataDirectory::with_checkpoint`] reads again what was collected meanwhile.
///
/// ```no_run
/// use rivermark_engine::DataDirectory;
/// # fn main() -> rivermark_operators::Result<()> {
/// let directory = DataDirectory::open("data")?;
/// for flow in directory.flows()? {
///     let newest = directory.checkpoint(&flow, 1, None)?.summary()?;
///     println!("{flow}: epoch {}, {} bytes of state", newest.epoch, newest.state_bytes);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DataDirectory {
    root: PathBuf,
}

impl DataDirectory {
    /// The data directory of an engine. Touches nothing.
    ///
    /// # Errors
    /// There is no such directory, or no engine has ever used it.
    pub fn open(root: impl Into<PathBuf>) -> Result<DataDirectory> {
        let root = root.into();
        let failed = |problem: String| {
            Error::engine(format!("opening the data directory {}", root.display()), problem)
        };
        if !root.is_dir() {
            return Err(failed("there is no such directory".into()));
        }
        if !root.join("log").is_dir() {
            return Err(failed("no engine has ever used it: it has no folder `log`".into()));
        }
        Ok(DataDirectory { root })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The folder of the embedded log.
    pub fn log_folder(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The embedded log, read-only: what its process appends is seen when one looks again.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub fn log(&self) -> Result<Log> {
        let folder = self.log_folder();
        Log::open_read_only(&folder, LogOptions::new())
            .map_err(|e| Error::engine(format!("opening the log in {} for reading", folder.display()), e))
    }

    /// The process that holds the directory, as in `process 17 (flights)`; `None` if none does. Of Linux, by the kernel's table of locks;
    /// elsewhere it is not known, and the answer is who held it last.
    pub fn holder(&self) -> Option<String> {
        let path = self.root.join("LOCK");
        let name = std::fs::read_to_string(&path).ok()?;
        let name = if name.trim().is_empty() { "another process" } else { name.trim() };
        let file = std::fs::metadata(&path).ok()?;
        match std::fs::read_to_string("/proc/locks") {
            Ok(locks) if !locks.lines().any(|line| is_held(line, name, &file)) => None,
            _ => Some(name.to_owned()),
        }
    }

    /// The flows that have checkpoints, savepoints or deployments here, by name.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn flows(&self) -> Result<Vec<String>> {
        let mut flows = BTreeSet::new();
        for folder in ["checkpoints", "deployments", "savepoints"] {
            let folder = self.root.join(folder);
            let failed = |e| Error::engine(format!("listing the flows in {}", folder.display()), e);
            let entries = match std::fs::read_dir(&folder) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(failed)?,
            };
            for entry in entries {
                flows.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
            }
        }
        // What a crash has left begins with a dot.
        Ok(flows.into_iter().filter(|name| !name.starts_with('.')).collect())
    }

    /// The versions of a flow that have checkpoints, in order.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn versions(&self, flow: &str) -> Result<Vec<u64>> {
        let versions = self.of_flow(flow, 1)?.versions();
        let failed = |e| Error::engine(format!("listing the versions of flow `{flow}`"), e);
        Ok(versions.map_err(failed)?.into_iter().collect())
    }

    /// Which versions of a flow are deployed, and what readers of its outputs see.
    ///
    /// # Errors
    /// The record is damaged, or cannot be read.
    pub fn deployments(&self, flow: &str) -> Result<Deployments> {
        RecordFile::of(&self.root.join("deployments"), flow).read()
    }

    fn of_flow(&self, flow: &str, version: u64) -> Result<Checkpoints> {
        let store = Arc::new(LocalStore::existing(self.root.join("checkpoints")));
        Checkpoints::new(store, FlowId { name: flow.to_owned(), version })
            .map_err(|e| Error::engine(format!("looking for the checkpoints of flow `{flow}`"), e))
    }

    /// The checkpoints of a version that can be read, oldest first. Costs reading the record of each.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn checkpoints(&self, flow: &str, version: u64) -> Result<Vec<Summary>> {
        let listed = self.of_flow(flow, version)?.list();
        listed.map_err(|e| {
            Error::engine(format!("listing the checkpoints of version {version} of flow `{flow}`"), e)
        })
    }

    /// Records of checkpoints of a version that are damaged: the file, and what is wrong with it.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn damaged_checkpoints(&self, flow: &str, version: u64) -> Result<Vec<(String, String)>> {
        let damaged = self.of_flow(flow, version)?.damaged();
        damaged.map_err(|e| {
            Error::engine(format!("reading the checkpoints of version {version} of flow `{flow}`"), e)
        })
    }

    /// A checkpoint, to be read as a savepoint is: of that epoch, or the newest one. While the flow runs it may be collected at any time.
    ///
    /// # Errors
    /// There is none, or its record is damaged.
    pub fn checkpoint(&self, flow: &str, version: u64, epoch: Option<u64>) -> Result<Savepoint> {
        let checkpoints = self.of_flow(flow, version)?;
        let attempt = || format!("opening a checkpoint of version {version} of flow `{flow}`");
        let failed = |e| Error::engine(attempt(), e);
        let manifest = match epoch {
            Some(epoch) => checkpoints.inspect(Epoch(epoch)).map_err(failed)?,
            None => checkpoints
                .newest()
                .map_err(failed)?
                .ok_or_else(|| Error::engine(attempt(), "it has none in this directory"))?,
        };
        Ok(Savepoint::of_checkpoint(&checkpoints, manifest))
    }

    /// Reads a checkpoint with `read`, and once more the one that is newest then if it was collected meanwhile.
    ///
    /// # Errors
    /// As [`DataDirectory::checkpoint`], and those of `read`.
    pub fn with_checkpoint<R>(
        &self,
        flow: &str,
        version: u64,
        epoch: Option<u64>,
        mut read: impl FnMut(&Savepoint) -> Result<R>,
    ) -> Result<R> {
        let mut attempt = 1;
        loop {
            let checkpoint = self.checkpoint(flow, version, epoch)?;
            match read(&checkpoint) {
                Err(_) if attempt < ATTEMPTS && self.is_collected(flow, version, checkpoint.epoch()) => {
                    attempt += 1
                }
                answer => return answer,
            }
        }
    }

    /// Whether a checkpoint that was there is no longer.
    pub fn is_collected(&self, flow: &str, version: u64, epoch: Epoch) -> bool {
        let listed = self.checkpoints(flow, version);
        listed.is_ok_and(|listed| listed.iter().all(|summary| summary.epoch != epoch))
    }

    /// The savepoints of a flow, by name.
    ///
    /// # Errors
    /// The folder cannot be read, or the record of one is damaged.
    pub fn savepoints(&self, flow: &str) -> Result<Vec<Savepoint>> {
        Savepoints::new(self.root.join("savepoints")).list(flow)
    }

    /// A savepoint of a flow.
    ///
    /// # Errors
    /// There is none of that name (the error names those that there are), or its record is damaged.
    pub fn savepoint(&self, flow: &str, name: &str) -> Result<Savepoint> {
        Savepoints::new(self.root.join("savepoints")).get(flow, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_known_by_its_file_and_not_taken_for_another_files() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("LOCK");
        std::fs::write(&path, "process 12 (flights)\n").unwrap();
        let file = std::fs::metadata(&path).unwrap();
        let (device, number) = (format!("{:02x}:{:02x}", major(file.dev()), minor(file.dev())), file.ino());
        let is = |line: &str| is_held(line, "process 12 (flights)", &file);
        assert!(
            is(&format!("1: FLOCK  ADVISORY  WRITE 77 {device}:{number} 0 EOF")),
            "in another name space"
        );
        assert!(is(&format!("1: FLOCK  ADVISORY  WRITE 12 ff:fe:{number} 0 EOF")), "a device told otherwise");
        assert!(!is(&format!("1: FLOCK  ADVISORY  WRITE 77 ff:fe:{number} 0 EOF")), "another file system's");
        assert!(!is(&format!("1: FLOCK  ADVISORY  WRITE 12 {device}:{}0 0 EOF", number)), "another file's");
        assert!(!is(&format!("1: -> FLOCK  ADVISORY  WRITE 12 {device}:{number} 0 EOF")), "one that waits");
        let directory = DataDirectory { root: root.path().to_owned() };
        assert_eq!(directory.holder(), None);
    }
}
