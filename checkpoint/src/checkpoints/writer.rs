//! The one process, and the one attempt in it, that may store checkpoints of a flow.

use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;

use super::scan::Scan;
use super::{Checkpoints, Error, Recovered, RestoreFrom, Source, unreadable};
use crate::coordinator::StoreReply;
use crate::files::{self, Digest, FileRef};
use crate::history::{Entry, Fenced, Slot};
use crate::retention::{Claim, Kept, Ledger};
use crate::{Epoch, Generation, Manifest};

/// The writer of one generation of a flow. All methods take `&self` and may be called from several threads; uploads
/// run beside each other, beside a collection and beside a store.
#[derive(Debug)]
pub struct Writer {
    checkpoints: Checkpoints,
    fenced: Fenced,
    /// The slot that this generation's next entry goes to.
    next: Mutex<Slot>,
    ledger: Mutex<Ledger>,
    /// Slots below the fence that are not in the ledger yet.
    unread: Mutex<Vec<Slot>>,
}

/// What a collection did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Entries deleted.
    pub entries: usize,
    /// State files deleted.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

impl Writer {
    pub(super) fn new(checkpoints: Checkpoints, fenced: Fenced, retained: NonZeroUsize) -> Self {
        let ledger = Mutex::new(Ledger::new(fenced.generation, retained));
        Self { checkpoints, fenced, next: Mutex::new(fenced.slot + 1), ledger, unread: Mutex::default() }
    }

    /// The generation that this writer claimed.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.fenced.generation
    }

    /// The flow's checkpoints, for reading.
    #[must_use]
    pub const fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// Reads the checkpoint to continue from. Call it once, before anything else.
    ///
    /// # Errors
    /// The checkpoint is damaged or not there, another process runs the flow now, or the store failed.
    pub fn read(&self, from: RestoreFrom) -> Result<Recovered, Error> {
        let mut scan = self.checkpoints.scan(Some(self.fenced.slot))?;
        let chosen = scan.find(&self.checkpoints, from)?;
        let slot = chosen.as_ref().map(|(slot, _)| *slot);
        let rewound = slot != scan.newest();
        let damaged = self.damaged_above(&scan, slot);
        self.enter_into_ledger(&scan);
        if let Some((slot, manifest)) = &chosen {
            // A rewind that an earlier generation recorded stands, and moves the head.
            if scan.head() != Some(*slot) {
                self.rewind(*slot, manifest.epoch, &damaged)?;
            }
            if !rewound {
                self.ledger.lock().build_on(manifest);
            }
        }
        let next_epoch = scan.next_epoch();
        *self.unread.lock() = scan.into_unread();
        let checkpoint = chosen.map(|(_, manifest)| Arc::new(manifest));
        Ok(Recovered { checkpoint, next_epoch, rewound, damaged })
    }

    /// Reads the whole history and chooses nothing from it, for a checkpoint that does not follow on any here. Returns the first epoch
    /// number that no stored checkpoint has used. Call it once, before anything else, in place of [`Writer::read`].
    ///
    /// # Errors
    /// The store failed.
    pub fn pass_over(&self) -> Result<Epoch, Error> {
        let mut scan = self.checkpoints.scan(Some(self.fenced.slot))?;
        scan.read_all(&self.checkpoints)?;
        self.enter_into_ledger(&scan);
        Ok(scan.next_epoch())
    }

    /// Stores a manifest: performs [`crate::Action::Store`]. After [`StoreReply::Unknown`] the only right thing is to
    /// call it again with the same manifest, or to recover with a new writer.
    pub fn store(&self, manifest: &Manifest) -> StoreReply {
        if manifest.generation != self.generation() {
            let reason =
                format!("the manifest is of generation {}, not {}", manifest.generation, self.generation());
            return StoreReply::Refused { reason };
        }
        let mut next = self.next.lock();
        let reply = self.checkpoints.history.append(&Entry::from(manifest.clone()), *next);
        if reply == StoreReply::Stored {
            self.ledger.lock().stored(*next, manifest);
            *next += 1;
        }
        reply
    }

    /// Makes the content of a state file part of `epoch`, uploading it unless the store has it. Costs a SHA-256 of the
    /// content, about a second a gigabyte; [`Writer::keep`] saves that for a file known to be unchanged.
    ///
    /// # Errors
    /// The file cannot be read, or the store failed; uploading again is always right.
    pub fn upload(&self, epoch: Epoch, source: Source<'_>) -> Result<FileRef, Error> {
        let (digest, bytes) = match source {
            Source::Path(path) => Digest::of_file(path).map_err(unreadable("read", path))?,
            Source::Bytes(bytes) => (Digest::of(bytes), bytes.len() as u64),
        };
        let claim = self.ledger.lock().claim(epoch, digest, bytes);
        let file = match claim {
            Claim::Present(file) => return Ok(file),
            Claim::Upload(file) => file,
        };
        let object = self.checkpoints.file_object(&file);
        // The name is unique to this upload: whether it was created by this put or by one whose answer was lost, the
        // content is the same.
        match source {
            Source::Path(path) => self.checkpoints.store.put_file(&object, path)?,
            Source::Bytes(bytes) => self.checkpoints.store.put(&object, bytes)?,
        };
        self.ledger.lock().uploaded(file);
        Ok(file)
    }

    /// Makes a file that an earlier epoch uploaded part of `epoch`; `false` if it must be uploaded again.
    #[must_use]
    pub fn keep(&self, epoch: Epoch, file: &FileRef) -> bool {
        self.ledger.lock().keep(epoch, file)
    }

    /// Deletes expired checkpoints and the files that nobody needs any more. Costs a listing of the flow's files, and the
    /// first time reading what is left of the history below the checkpoint restored.
    ///
    /// # Errors
    /// The store failed; what is left is found by the next collection.
    pub fn collect(&self) -> Result<Collected, Error> {
        self.read_the_rest()?;
        let mut collected = Collected::default();
        let expired = self.ledger.lock().expired();
        for slot in expired {
            self.checkpoints.history.delete(slot)?;
            self.ledger.lock().deleted(slot);
            collected.entries += 1;
        }
        let prefix = &self.checkpoints.prefix;
        let listed = self.checkpoints.store.list(&format!("{prefix}{}", files::PREFIX))?;
        let parse = |name: &str, bytes| FileRef::parse(name.strip_prefix(prefix.as_str())?, bytes);
        let listed = listed.iter().filter_map(|object| parse(&object.name, object.bytes));
        let garbage = self.ledger.lock().garbage(listed);
        for file in garbage {
            self.checkpoints.store.delete(&self.checkpoints.file_object(&file))?;
            collected.files += 1;
            collected.bytes += file.bytes;
        }
        Ok(collected)
    }

    fn enter_into_ledger(&self, scan: &Scan) {
        let mut ledger = self.ledger.lock();
        for (slot, entry) in scan.entries() {
            match entry {
                Ok(Entry::Fence { .. }) => {}
                Ok(Entry::Manifest(manifest)) => {
                    ledger.found(*slot, Kept::Manifest(manifest.files().map(|file| file.content).collect()));
                }
                Ok(Entry::Rewind { to_slot, .. }) => ledger.found(*slot, Kept::Rewind(*to_slot)),
                Err(_) => ledger.found(*slot, Kept::Unreadable),
            }
        }
    }

    fn damaged_above(&self, scan: &Scan, slot: Option<Slot>) -> Vec<(String, String)> {
        let named = |(slot, error): (Slot, &Error)| {
            let object = self.checkpoints.history.name(slot);
            tracing::warn!(%object, %error, "passing over a damaged checkpoint entry");
            (object, error.to_string())
        };
        scan.damaged_above(slot.unwrap_or(0)).map(named).collect()
    }

    /// Reads the entries that recovery had no need of. They must be known before anything may be deleted.
    fn read_the_rest(&self) -> Result<(), Error> {
        let mut unread = self.unread.lock();
        if !unread.is_empty() {
            let mut scan = Scan::new(unread.clone());
            scan.read_all(&self.checkpoints)?;
            self.enter_into_ledger(&scan);
            unread.clear();
        }
        Ok(())
    }

    /// Records that this generation continues from the checkpoint in `to_slot`.
    fn rewind(&self, to_slot: Slot, to_epoch: Epoch, damaged: &[(String, String)]) -> Result<(), Error> {
        let flow = &self.checkpoints.flow.name;
        tracing::warn!(%flow, epoch = %to_epoch, damaged = damaged.len(), "restoring an older checkpoint");
        let mut next = self.next.lock();
        let entry = Entry::Rewind { generation: self.generation(), to_slot, to_epoch };
        match self.checkpoints.history.append(&entry, *next) {
            StoreReply::Stored => {
                self.ledger.lock().found(*next, Kept::Rewind(to_slot));
                *next += 1;
                Ok(())
            }
            StoreReply::Fenced { .. } => {
                Err(Error::Fenced { flow: flow.clone(), generation: self.generation() })
            }
            StoreReply::Refused { reason } | StoreReply::Unknown { reason } => {
                Err(Error::Rewind { flow: flow.clone(), epoch: to_epoch, reason })
            }
        }
    }
}
