//! The files that make up the current snapshot: a base and the deltas since.
//!
//! A restart reads every file, and most checkpoints change little: thousands of small files would be what a restart waits for. So the bytes
//! of small deltas are kept, up to [`Limits::delta_kept`], and when there are half as many as a chain may have, or the bytes are together, they
//! become one file. That one is kept in turn until it is large. Merging copies blocks, and reads nothing back. Should a chain come to
//! [`Limits::delta_files`] none the less, of deltas too large to be kept, it is replaced.

use super::{FileRole, SharedBytes, Snapshot, SnapshotFile, SnapshotSource};
use crate::backend::BaseFile;
use crate::delta::DeltaWriter;
use crate::key::KeyGroupRange;
use crate::limits::Limits;

/// The length of a base file does not matter to the chain.
const UNMEASURED: u64 = 0;

/// A buffer of four times this many bytes is always worth keeping.
const SPARE: usize = 1 << 20;

#[derive(Debug, Clone)]
struct Link {
    file: SnapshotFile,
    /// The epoch whose snapshot listed it first.
    epoch: u64,
    bytes: u64,
    /// Its content, if it is small enough to be merged.
    kept: Option<Box<[u8]>>,
}

/// What the next snapshot consists of, but for its own delta.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    base: Vec<Link>,
    deltas: Vec<Link>,
    /// A buffer that was handed out and came back.
    spare: Option<Vec<u8>>,
}

impl Chain {
    /// The chain of a snapshot that was restored as it is: all its files are stored.
    pub fn restored(files: impl Iterator<Item = (String, FileRole, u64)>) -> Self {
        let mut chain = Self::default();
        for (name, role, bytes) in files {
            let file = SnapshotFile { name, role, source: SnapshotSource::Stored, reused: true };
            let links = if role == FileRole::Base { &mut chain.base } else { &mut chain.deltas };
            links.push(Link { file, epoch: 0, bytes, kept: None });
        }
        chain
    }

    /// Whether the next snapshot should start over: the deltas since the first outgrow it, they are too many, or restoring would take too
    /// long.
    pub fn is_outgrown(&self, limits: &Limits, incremental: bool) -> bool {
        let first = self.deltas.first().map_or(0, |link| link.bytes);
        let since: u64 = self.deltas.iter().skip(1).map(|link| link.bytes).sum();
        let allowed = first.max(limits.delta_min as u64);
        let most = limits.delta_max as u64;
        since > allowed
            || self.deltas.len() >= limits.delta_files
            || (incremental && first + since > most && since > most / 4)
    }

    /// Appends a delta, and merges the small ones at the end if it is time.
    pub fn push(&mut self, epoch: u64, range: KeyGroupRange, bytes: Vec<u8>, limits: &Limits) {
        // The first delta is what the others are measured by.
        let kept =
            (bytes.len() <= limits.delta_kept && !self.deltas.is_empty()).then(|| bytes.as_slice().into());
        self.append(epoch, range, bytes, kept);
        let small = self.deltas.iter().rev().take_while(|link| link.kept.is_some());
        let (count, total) = small.fold((0, 0), |(count, total), link| (count + 1, total + link.bytes));
        let due = count >= (limits.delta_files / 2).max(2) || total > limits.delta_kept as u64;
        if due && count > 1 {
            self.merge(epoch, range, self.deltas.len() - count, limits);
        }
    }

    fn append(&mut self, epoch: u64, range: KeyGroupRange, bytes: Vec<u8>, kept: Option<Box<[u8]>>) {
        let name = format!("{epoch}-{}-{}.delta", range.start, range.end);
        let length = bytes.len() as u64;
        let source = SnapshotSource::Bytes(SharedBytes::from(bytes));
        let file = SnapshotFile { name, role: FileRole::Delta, source, reused: false };
        self.deltas.push(Link { file, epoch, bytes: length, kept });
    }

    /// Replaces the deltas from `first` on, all of them kept, by one of all their operations.
    fn merge(&mut self, epoch: u64, range: KeyGroupRange, first: usize, limits: &Limits) {
        let mut merged = DeltaWriter::reusing(self.spare());
        for link in self.deltas.split_off(first) {
            link.kept.iter().for_each(|file| merged.append_file(file));
            self.recycle(link.file.source);
        }
        let bytes = merged.finish();
        let kept = (bytes.len() <= limits.delta_kept).then(|| bytes.as_slice().into());
        self.append(epoch, range, bytes, kept);
    }

    /// Starts over with a checkpoint and one delta.
    pub fn replace(&mut self, epoch: u64, range: KeyGroupRange, base: Vec<BaseFile>, bytes: Vec<u8>) {
        for link in std::mem::take(&mut self.deltas) {
            self.recycle(link.file.source);
        }
        self.base = base
            .into_iter()
            .map(|file| {
                let BaseFile { name, source, reused } = file;
                let file = SnapshotFile { name, role: FileRole::Base, source, reused };
                Link { file, epoch, bytes: UNMEASURED, kept: None }
            })
            .collect();
        if !bytes.is_empty() {
            self.append(epoch, range, bytes, None);
        }
    }

    fn mark_listed(&mut self) {
        for link in self.base.iter_mut().chain(&mut self.deltas) {
            link.file.reused = true;
        }
    }

    /// Notes that the files first listed up to `epoch` are stored.
    pub fn stored(&mut self, epoch: u64) {
        let mut freed = Vec::new();
        for link in self.deltas.iter_mut().filter(|link| link.epoch <= epoch) {
            freed.push(std::mem::replace(&mut link.file.source, SnapshotSource::Stored));
        }
        for source in freed {
            self.recycle(source);
        }
    }

    /// Keeps a buffer that came back for the next delta, the largest that one may need: not that of a rebase, for good.
    fn recycle(&mut self, source: SnapshotSource) {
        let recent = self.deltas.last().map_or(0, |link| link.bytes as usize);
        if let SnapshotSource::Bytes(bytes) = source
            && let Some(buffer) = bytes.reclaim()
            && buffer.capacity() <= 4 * recent.max(SPARE)
            && self.spare.as_ref().is_none_or(|spare| spare.capacity() < buffer.capacity())
        {
            self.spare = Some(buffer);
        }
    }

    /// A buffer for the next delta, with the pages of an earlier one if that came back.
    pub fn spare(&mut self) -> Vec<u8> {
        self.spare.take().unwrap_or_default()
    }

    /// Name, role and length of every file, in order.
    pub fn files(&self) -> Vec<(String, FileRole, u64)> {
        let links = self.base.iter().chain(&self.deltas);
        links.map(|link| (link.file.name.clone(), link.file.role, link.bytes)).collect()
    }

    /// The snapshot of `epoch`. Its new files count as reused from the next one on.
    pub fn describe(&mut self, epoch: u64, range: KeyGroupRange, meta: Vec<u8>) -> Snapshot {
        let links = self.base.iter().chain(&self.deltas);
        let files: Vec<SnapshotFile> = links.map(|link| link.file.clone()).collect();
        let fresh = self.deltas.iter().filter(|link| !link.file.reused);
        let delta_bytes = fresh.map(|link| link.bytes).sum();
        self.mark_listed();
        Snapshot { epoch, range, files, meta, delta_bytes }
    }
}
