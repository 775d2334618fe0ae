//! Which checkpoints and files may go. Pure: [`Ledger`] decides, [`crate::Writer::collect`] deletes.
//!
//! A state file is needed by the stored manifests that name it, and by the manifest that is being made right now. The
//! ledger of a generation knows both, because all that makes a file needed passes through it:
//! 1. [`Ledger::claim`] and [`Ledger::keep`] *pin* a file for an epoch before a byte of it is uploaded;
//! 2. [`Ledger::stored`] makes the files of a manifest *live* and, in the same moment, unpins that epoch and those
//!    before it (an epoch that failed keeps its pins until then: the next one may build on its files);
//! 3. [`Ledger::expired`] names the entries to delete; [`Ledger::deleted`] says that one is gone, and only then do its
//!    files stop being live;
//! 4. [`Ledger::garbage`] picks from a listing what is neither live nor pinned, *dooms* it (it is never handed out
//!    again by [`Ledger::claim`]) and returns it for deletion. A name is never used twice ([`crate::files`]), so a
//!    deletion may take as long as it likes.
//!
//! Across generations:
//! - files of newer generations than its own are never garbage to a ledger;
//! - of older generations' files, a generation builds only on those of the newest checkpoint below its fence. Its
//!   predecessor holds these for live or pinned, since that manifest is the last it stored, or tried to. So a paused old
//!   process that wakes in the middle of a collection cannot harm its successor;
//! - after a rewind to an older checkpoint, which a predecessor may just be collecting, nothing is built upon: the files
//!   are uploaded anew with the first checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use crate::files::{Digest, FileRef};
use crate::history::Slot;
use crate::{Epoch, Generation, Manifest};

/// What a generation knows of the entries and files of its flow.
#[derive(Debug, Clone)]
pub struct Ledger {
    generation: Generation,
    retained: NonZeroUsize,
    entries: BTreeMap<Slot, Kept>,
    /// Files that can be built upon, by content.
    known: BTreeMap<Digest, FileRef>,
    pins: BTreeMap<Epoch, BTreeSet<FileRef>>,
    uploads: u64,
}

/// An entry that may expire one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A manifest and the files it names.
    Manifest(BTreeSet<FileRef>),
    /// A rewind to the manifest in that slot.
    Rewind(Slot),
    /// An entry that cannot be read, so that it is unknown which files it needs.
    Unreadable,
}

/// What to do for a file that an epoch needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is in the store.
    Present(FileRef),
    /// Upload it under this name, then call [`Ledger::uploaded`].
    Upload(FileRef),
}

impl Ledger {
    /// The ledger of `generation`, which keeps the newest `retained` checkpoints.
    #[must_use]
    pub fn new(generation: Generation, retained: NonZeroUsize) -> Self {
        let (entries, known, pins) = Default::default();
        Self { generation, retained, entries, known, pins, uploads: 0 }
    }

    /// Notes an entry found below the fence. Its files are live, yet not to be built upon.
    pub fn found(&mut self, slot: Slot, entry: Kept) {
        self.entries.insert(slot, entry);
    }

    /// Allows building on the files of `manifest`, the newest checkpoint below the fence.
    pub fn build_on(&mut self, manifest: &Manifest) {
        self.known.extend(manifest.files().map(|file| (file.content.digest, file.content)));
    }

    /// Pins a file of this content for `epoch`, and says whether it must be uploaded.
    pub fn claim(&mut self, epoch: Epoch, digest: Digest, bytes: u64) -> Claim {
        let claim = match self.known.get(&digest) {
            Some(file) => Claim::Present(*file),
            None => {
                self.uploads += 1;
                Claim::Upload(FileRef { digest, bytes, generation: self.generation, upload: self.uploads })
            }
        };
        let (Claim::Present(file) | Claim::Upload(file)) = claim;
        self.pins.entry(epoch).or_default().insert(file);
        claim
    }

    /// Notes that an upload is done, so that others may build on it.
    pub fn uploaded(&mut self, file: FileRef) {
        if self.is_pinned(&file) {
            self.known.insert(file.digest, file);
        }
    }

    /// Pins `file`, which an earlier epoch used, for `epoch`; `false` if it may be gone, so that the content must be
    /// claimed again.
    #[must_use]
    pub fn keep(&mut self, epoch: Epoch, file: &FileRef) -> bool {
        let known = self.known.get(&file.digest) == Some(file);
        if known {
            self.pins.entry(epoch).or_default().insert(*file);
        }
        known
    }

    /// Notes that `manifest` is stored in `slot`.
    pub fn stored(&mut self, slot: Slot, manifest: &Manifest) {
        self.entries.insert(slot, Kept::Manifest(manifest.files().map(|file| file.content).collect()));
        self.pins.retain(|epoch, _| *epoch > manifest.epoch);
    }

    /// The entries that are no longer needed, oldest first: all but the newest `retained` manifests and whatever a
    /// recovery now would start from.
    #[must_use]
    pub fn expired(&self) -> Vec<Slot> {
        // An unreadable entry may be a manifest. It counts as one, and goes as one.
        let is_checkpoint = |entry: &Kept| !matches!(entry, Kept::Rewind(_));
        let checkpoints =
            || self.entries.iter().rev().filter(|(_, entry)| is_checkpoint(entry)).map(|(slot, _)| *slot);
        let newest = checkpoints().next();
        let Some(oldest_kept) = checkpoints().take(self.retained.get()).last() else { return Vec::new() };
        let rewind = self.entries.iter().rev().find_map(|(slot, entry)| match entry {
            Kept::Rewind(target) if newest.is_none_or(|newest| *slot > newest) => Some((*slot, *target)),
            _ => None,
        });
        let needed = |slot: Slot, entry: &Kept| match entry {
            Kept::Rewind(_) => rewind.is_some_and(|(current, _)| slot == current),
            _ => slot >= oldest_kept || rewind.is_some_and(|(_, target)| slot == target),
        };
        self.entries.iter().filter(|(slot, entry)| !needed(**slot, entry)).map(|(slot, _)| *slot).collect()
    }

    /// Notes that the entry in `slot` is deleted.
    pub fn deleted(&mut self, slot: Slot) {
        self.entries.remove(&slot);
    }

    /// Of the files `listed`, those that nobody needs or will need; the caller must delete them. While an unreadable
    /// entry is kept, none.
    #[must_use]
    pub fn garbage(&mut self, listed: impl IntoIterator<Item = FileRef>) -> Vec<FileRef> {
        if self.entries.values().any(|entry| *entry == Kept::Unreadable) {
            return Vec::new();
        }
        let mut needed: BTreeSet<FileRef> = self.pins.values().flatten().copied().collect();
        for entry in self.entries.values() {
            if let Kept::Manifest(files) = entry {
                needed.extend(files);
            }
        }
        // A listing tells the size that an object has, which an unfinished upload may get wrong: names decide.
        let name = |file: &FileRef| (file.generation, file.upload, file.digest);
        let needed: BTreeSet<_> = needed.iter().map(name).collect();
        let ours = |file: &FileRef| file.generation <= self.generation;
        let garbage: Vec<FileRef> =
            listed.into_iter().filter(|file| ours(file) && !needed.contains(&name(file))).collect();
        for file in &garbage {
            if self.known.get(&file.digest).is_some_and(|known| name(known) == name(file)) {
                self.known.remove(&file.digest);
            }
        }
        garbage
    }

    fn is_pinned(&self, file: &FileRef) -> bool {
        self.pins.values().any(|pinned| pinned.contains(file))
    }
}
