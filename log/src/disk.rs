//! The one way to the disk.
//!
//! Everything the log does to files goes through [`Disk`]: [`FileDisk`] is the operating system's, [`MemoryDisk`] a simulated one that
//! knows what would survive a crash. What both promise, and the log relies on:
//!
//! 1. Bytes are durable after [`DiskFile::sync`]; names (created, renamed, removed) after [`Disk::sync_dir`] of their folder.
//! 2. [`Disk::rename`] replaces atomically: at any time, also after a crash, the name has the old content or the new.
//! 3. A write that fails may have written a part; the caller truncates.
//! 4. A removed file can still be read by those who have it open.

mod file;
mod memory;

pub use file::FileDisk;
pub use memory::{Crash, Fault, MemoryDisk, Operation};

use crate::error::Holder;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A disk: files in folders. See the module's page for what it promises.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder, and those above it, if they are not there. Durable once the folders above are synced.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens a file that is there, for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing, making it if it is not there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file or a folder, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with what is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of a file, which it makes, or says who holds it.
    fn lock(&self, path: &Path) -> io::Result<Result<Box<dyn DiskLock>, Holder>>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads at a position; fewer bytes than asked for means the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all bytes at a position. If it fails, a part may have been written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file off.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes all bytes durable.
    fn sync(&self) -> io::Result<()>;
}

/// A lock, held until dropped.
pub trait DiskLock: fmt::Debug + Send + Sync {
    /// Whether it still excludes others: not if somebody removed or replaced the file.
    fn is_held(&self) -> bool;
}

/// Reads a whole small file.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let len = file.len()?;
    if len > limit {
        let problem = format!("{len} bytes, where at most {limit} are expected");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Replaces a small file durably: a crash leaves the old content or the new, never a mixture.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let file = disk.create(&temporary)?;
    file.truncate(0)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => disk.sync_dir(parent),
        None => Ok(()),
    }
}
