//! The file that an epoch's records wait in, before they are moved into their partitions.
//!
//! Frames, one a batch: magic, length of the topic's name, partition, length of the batch, CRC32C of these and of the name; the name; the
//! batch as it will lie in its partition, but for its offset. Preparing adds the summary, as JSON, with its length and CRC32C behind it.

use crate::batch::{Author, RecordBatch};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::header::{HEADER_BYTES, Header};
use crate::partition::Partition;
use crate::scan::Window;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"RVF1");
const FRAME_BYTES: usize = 20;
const TRAILER_BYTES: u64 = 12;
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"RVP1");
/// What is gathered before it is written.
const WRITE_BYTES: usize = 256 << 10;

/// What a prepared epoch holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedEpoch {
    /// The epoch.
    pub epoch: u64,
    /// Records in all partitions.
    pub records: u64,
    /// Bytes that committing will move.
    pub bytes: u64,
    /// How many records go where.
    pub partitions: Vec<PreparedPartition>,
}

/// The part of a prepared epoch that goes to one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// How many records.
    pub records: u64,
}

/// An epoch that is being written.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Bytes in the file.
    written: u64,
    /// Bytes that follow them.
    buffer: Vec<u8>,
    summary: PreparedEpoch,
    /// The summary is at the end: nothing follows.
    pub(super) is_sealed: bool,
    /// A sync failed: nobody knows what the file holds.
    pub(super) is_lost: bool,
}

/// An epoch that is written and not durable yet, to be synced while nothing is locked.
pub(super) struct Sealed {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    pub(super) summary: PreparedEpoch,
}

impl Sealed {
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|error| Error::io("preparing", &self.path, error))
    }
}

impl Staging {
    pub(super) fn create(disk: &dyn Disk, path: PathBuf, epoch: u64) -> std::io::Result<Staging> {
        let file = disk.create(&path)?;
        file.truncate(0)?;
        let summary = PreparedEpoch { epoch, records: 0, bytes: 0, partitions: Vec::new() };
        Ok(Staging { path, file, written: 0, buffer: Vec::new(), summary, is_sealed: false, is_lost: false })
    }

    /// Adds a batch, and empties it.
    pub(super) fn append(
        &mut self,
        partition: &Partition,
        producer: u64,
        batch: &mut RecordBatch,
    ) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        let (epoch, records) = (self.summary.epoch, batch.len() as u64);
        let author = Author { producer, sequence: self.of(partition).records, epoch: Some(epoch) };
        let (header, bytes) = batch.seal(partition.options.compression, partition.salt, author);
        let name = partition.place.topic.as_bytes();
        let from = self.buffer.len();
        for n in [FRAME_MAGIC, name.len() as u32, partition.place.partition, bytes.len() as u32] {
            self.buffer.extend_from_slice(&n.to_le_bytes());
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.buffer[from..]), name);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(name);
        let head = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        if let Some(head) = self.buffer[head..].first_chunk_mut() {
            header.encode(head);
        }
        self.of(partition).records += records;
        self.summary.records += records;
        self.summary.bytes += header.total_bytes();
        batch.clear();
        Ok(())
    }

    /// The part of a partition in the summary. An epoch goes to few partitions, most often the one of before.
    fn of(&mut self, partition: &Partition) -> &mut PreparedPartition {
        let (topic, number) = (&*partition.place.topic, partition.place.partition);
        let parts = &mut self.summary.partitions;
        let found = parts.iter().position(|part| part.partition == number && part.topic == topic);
        let found = found.unwrap_or_else(|| {
            parts.push(PreparedPartition { topic: topic.to_owned(), partition: number, records: 0 });
            parts.len() - 1
        });
        &mut parts[found]
    }

    fn flush(&mut self) -> Result<()> {
        // What a failed write leaves behind is overwritten by the next attempt, or lies behind the end, where prepare cuts it off.
        self.file.write_at(&self.buffer, self.written).map_err(|e| Error::io("staging to", &self.path, e))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes everything out, with a summary at the end.
    pub(super) fn seal(&mut self) -> Result<()> {
        if self.is_sealed {
            return Ok(());
        }
        self.flush()?;
        let failed = |e| Error::io("preparing", &self.path, e);
        let mut end = serde_json::to_vec(&self.summary).map_err(|e| failed(e.into()))?;
        let trailer = [end.len() as u32, crc32c::crc32c(&end), TRAILER_MAGIC];
        end.extend(trailer.iter().flat_map(|n| n.to_le_bytes()));
        self.file.write_at(&end, self.written).map_err(failed)?;
        self.file.truncate(self.written + end.len() as u64).map_err(failed)?;
        self.is_sealed = true;
        Ok(())
    }

    /// What is to be synced, sealed if it was not.
    pub(super) fn sealed(&mut self) -> Result<Sealed> {
        self.seal()?;
        let (path, file) = (self.path.clone(), Arc::clone(&self.file));
        Ok(Sealed { path, file, summary: self.summary.clone() })
    }
}

/// A prepared or committed file, being read.
pub(super) struct Staged {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Where the frames end.
    end: u64,
    pub(super) summary: PreparedEpoch,
}

impl Staged {
    pub(super) fn open(disk: &dyn Disk, path: &Path, max_batch_bytes: usize) -> Result<Staged> {
        let failed = |e| Error::io("reading the staged epoch", path, e);
        let file = disk.open(path).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        let bad = |problem: &str| Error::BadFile { path: path.to_path_buf(), problem: problem.to_owned() };
        let mut trailer = [0; TRAILER_BYTES as usize];
        let at = len.checked_sub(TRAILER_BYTES).ok_or_else(|| bad("the staged epoch has no end"))?;
        let read = file.read_at(&mut trailer, at).map_err(failed)?;
        let n = |i: usize| u32::from_le_bytes([trailer[i], trailer[i + 1], trailer[i + 2], trailer[i + 3]]);
        let end = at.checked_sub(u64::from(n(0))).filter(|_| read == trailer.len() && n(8) == TRAILER_MAGIC);
        let end = end.ok_or_else(|| bad("the staged epoch has no end"))?;
        if at - end > max_batch_bytes as u64 {
            return Err(bad("the staged epoch's summary exceeds max_batch_bytes"));
        }
        let mut summary = vec![0; (at - end) as usize];
        file.read_at(&mut summary, end).map_err(failed)?;
        if crc32c::crc32c(&summary) != n(4) {
            return Err(bad("the staged epoch's summary fails its checksum"));
        }
        let summary = serde_json::from_slice(&summary).map_err(|e| bad(&e.to_string()))?;
        Ok(Staged { path: path.to_path_buf(), file, end, summary })
    }

    /// Hands out every batch, with the topic and partition it is for. All checksums are verified.
    pub(super) fn each(
        &self,
        max_batch_bytes: usize,
        mut each: impl FnMut(&str, u32, &Header, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut window = Window::default();
        window.seek(0);
        while window.position() < self.end {
            let (topic, partition, bytes) = self.frame(&mut window, max_batch_bytes)?;
            let header = self.batch(&mut window, bytes)?;
            each(&topic, partition, &header, window.bytes_mut(0, bytes))?;
            window.consume(bytes);
        }
        Ok(())
    }

    fn bad(&self, position: u64, problem: &str) -> Error {
        Error::BadFile { path: self.path.clone(), problem: format!("damaged at byte {position}: {problem}") }
    }

    fn want(&self, window: &mut Window, bytes: usize) -> Result<()> {
        let wanted = window.want(&*self.file, bytes, self.end);
        if wanted.map_err(|e| Error::io("reading the staged epoch", &self.path, e))? {
            return Ok(());
        }
        Err(self.bad(window.position(), "it ends in the middle of a batch"))
    }

    fn frame(&self, window: &mut Window, max_batch_bytes: usize) -> Result<(String, u32, usize)> {
        let position = window.position();
        self.want(window, FRAME_BYTES)?;
        let head = window.bytes(0, FRAME_BYTES);
        let n = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let (magic, name_len, partition, bytes, crc) = (n(0), n(4), n(8), n(12), n(16));
        if magic != FRAME_MAGIC || name_len > 200 || bytes as usize > max_batch_bytes + HEADER_BYTES {
            return Err(self.bad(position, "no batch begins there, or it exceeds max_batch_bytes"));
        }
        let whole = FRAME_BYTES + name_len as usize;
        self.want(window, whole)?;
        let bytes_of = |from, to| window.bytes(from, to);
        if crc32c::crc32c_append(crc32c::crc32c(bytes_of(0, 16)), bytes_of(FRAME_BYTES, whole)) != crc {
            return Err(self.bad(position, "the frame fails its checksum"));
        }
        let topic = String::from_utf8_lossy(bytes_of(FRAME_BYTES, whole)).into_owned();
        window.consume(whole);
        Ok((topic, partition, bytes as usize))
    }

    fn batch(&self, window: &mut Window, bytes: usize) -> Result<Header> {
        let position = window.position();
        self.want(window, bytes)?;
        let whole = window.bytes(0, bytes);
        let head = whole.first_chunk().ok_or_else(|| self.bad(position, "a batch without a header"))?;
        let header = Header::decode(head).map_err(|problem| self.bad(position, problem))?;
        if header.total_bytes() != bytes as u64 || !header.matches(&whole[HEADER_BYTES..]) {
            return Err(self.bad(position, "the batch fails its checksum"));
        }
        Ok(header)
    }
}
