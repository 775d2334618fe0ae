//! Segments: files of batches, named after their first offset, each with a sparse index that can be rebuilt.
//!
//! | file | what |
//! | --- | --- |
//! | `00000000000000000042.log` | batches from offset 42 on |
//! | `00000000000000000042.index` | of a closed segment: its extent, and every 64 KiB a batch's offset, position, and the greatest timestamp before it |
//! | `00000000000000000042.producers` | what was known of producers when the segment began |
//!
//! One index serves both look-ups. For an offset: the last entry at or below it. For a timestamp: the last entry before which all
//! timestamps are smaller. From there batches are walked over, 64 KiB at most.

use crate::disk::{Disk, DiskFile, read_all};
use crate::header::Header;
use crate::options::INDEX_INTERVAL_BYTES;
use parking_lot::{Mutex, RwLock};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

const INDEX_MAGIC: u64 = u64::from_le_bytes(*b"RVINDEX1");
/// An index file of a segment of a terabyte would be smaller.
const INDEX_LIMIT: u64 = 1 << 30;

/// A place in a segment to begin walking from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) position: u64,
    /// Greatest timestamp of all records before.
    pub(crate) max_timestamp: i64,
}

/// What a segment holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) bytes: u64,
    pub(crate) next_offset: u64,
    pub(crate) max_timestamp: i64,
    pub(crate) records: u64,
}

impl Extent {
    pub(crate) fn empty(base: u64) -> Extent {
        Extent { bytes: 0, next_offset: base, max_timestamp: i64::MIN, records: 0 }
    }

    /// Adds a batch that lies at the end.
    pub(crate) fn add(&mut self, header: &Header) {
        self.bytes += header.total_bytes();
        self.next_offset = header.next_offset();
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.records += u64::from(header.records);
    }
}

/// An extent and its index, as both grow.
#[derive(Clone, Debug)]
pub(crate) struct Indexed {
    pub(crate) extent: Extent,
    pub(crate) entries: Vec<Entry>,
}

impl Indexed {
    pub(crate) fn empty(base: u64) -> Indexed {
        Indexed { extent: Extent::empty(base), entries: Vec::new() }
    }

    pub(crate) fn add(&mut self, header: &Header) {
        self.entries.extend(entry_due(&self.entries, &self.extent, header));
        self.extent.add(header);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let extent = self.extent;
        let mut out = INDEX_MAGIC.to_le_bytes().to_vec();
        let head = [extent.bytes, extent.next_offset, extent.max_timestamp as u64, extent.records];
        let entries = self.entries.iter().flat_map(|e| [e.offset, e.position, e.max_timestamp as u64]);
        for n in head.into_iter().chain(entries) {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(&u64::from(crc32c::crc32c(&out)).to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Indexed> {
        let (content, crc) = bytes.split_last_chunk::<8>()?;
        if u64::from(crc32c::crc32c(content)) != u64::from_le_bytes(*crc) {
            return None;
        }
        let numbers: Vec<u64> =
            content.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect();
        let [INDEX_MAGIC, bytes, next_offset, max_timestamp, records, ref entries @ ..] = numbers[..] else {
            return None;
        };
        let extent = Extent { bytes, next_offset, max_timestamp: max_timestamp as i64, records };
        let entry = |e: &[u64]| Entry { offset: e[0], position: e[1], max_timestamp: e[2] as i64 };
        Some(Indexed { extent, entries: entries.chunks_exact(3).map(entry).collect() })
    }
}

/// The entry that the next batch needs, if enough bytes lie behind the last one.
fn entry_due(entries: &[Entry], extent: &Extent, header: &Header) -> Option<Entry> {
    let last = entries.last().map_or(0, |entry| entry.position);
    let due = extent.bytes >= last + INDEX_INTERVAL_BYTES;
    due.then_some(Entry {
        offset: header.base_offset,
        position: extent.bytes,
        max_timestamp: extent.max_timestamp,
    })
}

/// One segment, shared by the writer and by readers.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: u64,
    pub(crate) path: PathBuf,
    bytes: AtomicU64,
    next_offset: AtomicU64,
    max_timestamp: AtomicI64,
    records: AtomicU64,
    /// Entries of a segment that grows; of a closed one they are read when needed.
    growing: RwLock<Option<Vec<Entry>>>,
    file: Mutex<Weak<dyn DiskFile>>,
}

impl Segment {
    pub(crate) fn new(directory: &Path, base: u64, extent: Extent, growing: Option<Vec<Entry>>) -> Segment {
        let nothing: Weak<Nothing> = Weak::new();
        Segment {
            base,
            path: directory.join(log_name(base)),
            bytes: AtomicU64::new(extent.bytes),
            next_offset: AtomicU64::new(extent.next_offset),
            max_timestamp: AtomicI64::new(extent.max_timestamp),
            records: AtomicU64::new(extent.records),
            growing: RwLock::new(growing),
            file: Mutex::new(nothing),
        }
    }

    pub(crate) fn extent(&self) -> Extent {
        // Bytes first: what they hold has been counted before.
        Extent {
            bytes: self.bytes.load(Ordering::Acquire),
            next_offset: self.next_offset.load(Ordering::Acquire),
            max_timestamp: self.max_timestamp.load(Ordering::Acquire),
            records: self.records.load(Ordering::Acquire),
        }
    }

    /// Notes a batch whose bytes are written. Only one thread may do so at a time.
    pub(crate) fn grow(&self, header: &Header) {
        let mut extent = self.extent();
        if let Some(entries) = &mut *self.growing.write() {
            let due = entry_due(entries, &extent, header);
            entries.extend(due);
        }
        extent.add(header);
        self.set(extent);
    }

    /// Sets what the segment holds.
    fn set(&self, extent: Extent) {
        self.max_timestamp.store(extent.max_timestamp, Ordering::Release);
        self.records.store(extent.records, Ordering::Release);
        self.next_offset.store(extent.next_offset, Ordering::Release);
        self.bytes.store(extent.bytes, Ordering::Release);
    }

    /// The file, opened if nobody has it open; `None` if it is gone or replaced.
    pub(crate) fn open(&self, disk: &dyn Disk) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let mut kept = self.file.lock();
        if let Some(file) = kept.upgrade() {
            return Ok(Some(file));
        }
        let file = match disk.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        // The writer's process may have put a compacted file there, which is shorter.
        if file.len()? < self.extent().bytes {
            return Ok(None);
        }
        *kept = Arc::downgrade(&file);
        Ok(Some(file))
    }

    /// Keeps an open file for readers.
    pub(crate) fn opened(&self, file: &Arc<dyn DiskFile>) {
        *self.file.lock() = Arc::downgrade(file);
    }

    /// The index, from memory or from its file. An index that is lost costs time, not records: it is empty then.
    pub(crate) fn entries(&self, disk: &dyn Disk) -> Vec<Entry> {
        if let Some(entries) = &*self.growing.read() {
            return entries.clone();
        }
        let indexed = read_index(disk, &self.path.with_extension("index"));
        match indexed.filter(|indexed| indexed.extent == self.extent()) {
            Some(indexed) => indexed.entries,
            None => {
                tracing::warn!(segment = %self.path.display(), "the index is not usable; walking over the segment instead");
                Vec::new()
            }
        }
    }

    /// Stops keeping the index in memory, and returns it with the extent.
    pub(crate) fn close(&self) -> Indexed {
        Indexed { extent: self.extent(), entries: self.growing.write().take().unwrap_or_default() }
    }

    /// The index of a segment that grows.
    pub(crate) fn indexed(&self) -> Indexed {
        Indexed { extent: self.extent(), entries: self.growing.read().clone().unwrap_or_default() }
    }
}

/// Stands for a file that nobody has open.
#[derive(Debug)]
struct Nothing;

impl DiskFile for Nothing {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn read_index(disk: &dyn Disk, path: &Path) -> Option<Indexed> {
    read_all(disk, path, INDEX_LIMIT).ok().and_then(|bytes| Indexed::decode(&bytes))
}

pub(crate) fn log_name(base: u64) -> String {
    format!("{base:020}.log")
}

pub(crate) fn producers_name(base: u64) -> String {
    format!("{base:020}.producers")
}

/// The first offset that a file of this ending is named after.
pub(crate) fn base_of(name: &str, ending: &str) -> Option<u64> {
    name.strip_suffix(ending).filter(|digits| digits.len() == 20)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_and_no_flipped_bit_goes_unnoticed() {
        let entry = |n| Entry { offset: n, position: n * 10, max_timestamp: -(n as i64) };
        let extent = Extent { bytes: 9, next_offset: 8, max_timestamp: i64::MIN, records: 7 };
        let bytes = Indexed { extent, entries: vec![entry(1), entry(2)] }.encode();
        let back = Indexed::decode(&bytes).unwrap();
        assert_eq!((back.extent, back.entries), (extent, vec![entry(1), entry(2)]));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Indexed::decode(&bad).is_none());
        }
    }
}
