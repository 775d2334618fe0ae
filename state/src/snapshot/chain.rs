//! The files that make up the current snapshot: a base and the deltas since.

use super::{FileRole, SharedBytes, Snapshot, SnapshotFile, SnapshotSource};
use crate::backend::BaseFile;
use crate::key::KeyGroupRange;
use crate::limits::Limits;

/// The length of a base file does not matter to the chain.
const UNMEASURED: u64 = 0;

#[derive(Debug, Clone)]
struct Link {
    file: SnapshotFile,
    /// The epoch whose snapshot listed it first.
    epoch: u64,
    bytes: u64,
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
            links.push(Link { file, epoch: 0, bytes });
        }
        chain
    }

    /// Whether the next snapshot should start over: the deltas since the first outgrow it, or restoring would take too long.
    pub fn is_outgrown(&self, limits: &Limits, incremental: bool) -> bool {
        let first = self.deltas.first().map_or(0, |link| link.bytes);
        let since: u64 = self.deltas.iter().skip(1).map(|link| link.bytes).sum();
        let allowed = first.max(limits.delta_min as u64);
        let most = limits.delta_max as u64;
        // A restart opens every file. Where all state is in the first one, starting over is put off in proportion.
        let count = limits.delta_count.max((first >> 20) as usize);
        self.deltas.len() >= count
            || since > allowed
            || (incremental && first + since > most && since > most / 4)
    }

    /// Appends a delta.
    pub fn push(&mut self, epoch: u64, range: KeyGroupRange, bytes: Vec<u8>) {
        let name = format!("{epoch}-{}-{}.delta", range.start, range.end);
        let length = bytes.len() as u64;
        let source = SnapshotSource::Bytes(SharedBytes::from(bytes));
        let file = SnapshotFile { name, role: FileRole::Delta, source, reused: false };
        self.deltas.push(Link { file, epoch, bytes: length });
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
                Link { file, epoch, bytes: UNMEASURED }
            })
            .collect();
        if !bytes.is_empty() {
            self.push(epoch, range, bytes);
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

    fn recycle(&mut self, source: SnapshotSource) {
        if let SnapshotSource::Bytes(bytes) = source
            && let Some(buffer) = bytes.reclaim()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_small_checkpoints_are_never_a_thousand_files() {
        let (limits, range) = (Limits::default(), KeyGroupRange::all(8));
        let mut chain = Chain::default();
        let mut rebases = 0;
        for epoch in 1..=1000 {
            if chain.is_outgrown(&limits, true) {
                chain.replace(epoch, range, Vec::new(), vec![0; 100]);
                rebases += 1;
            } else {
                chain.push(epoch, range, vec![0; 100]);
            }
            assert!(chain.deltas.len() <= 64);
        }
        assert_eq!(rebases, 1000 / 64);
    }

    #[test]
    fn a_large_first_delta_is_rewritten_in_proportion() {
        let (limits, range) = (Limits { delta_count: 2, ..Limits::default() }, KeyGroupRange::all(8));
        let mut chain = Chain::default();
        chain.push(1, range, vec![0; 5 << 20]);
        (2..=4).for_each(|epoch| chain.push(epoch, range, vec![0; 10]));
        assert!(!chain.is_outgrown(&limits, false));
        chain.push(5, range, vec![0; 10]);
        assert!(chain.is_outgrown(&limits, false));
    }
}
