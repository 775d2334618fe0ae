//! Reading a history from its newest entry down, and no further than needed: below the retained checkpoints lie only
//! the fences of every start there ever was.

use super::{Checkpoints, Error, RestoreFrom};
use crate::history::{Entry, Slot};
use crate::{Epoch, Manifest};

/// A history that is being read.
pub(super) struct Scan {
    /// What has been read, the newest first.
    entries: Vec<(Slot, Result<Entry, Error>)>,
    /// What has not, the newest last.
    unread: Vec<Slot>,
}

impl Scan {
    pub(super) fn new(slots: Vec<Slot>) -> Self {
        Self { entries: Vec::new(), unread: slots }
    }

    /// Reads on until it is known which checkpoint is meant, and returns its slot. For [`RestoreFrom::Latest`], its
    /// damage is an error.
    pub(super) fn find(
        &mut self,
        checkpoints: &Checkpoints,
        from: RestoreFrom,
    ) -> Result<Option<(Slot, Manifest)>, Error> {
        let found = loop {
            if let Some(found) = self.look(from) {
                break found;
            }
            if !self.read_next(checkpoints)? {
                return self.nothing_found(checkpoints, from);
            }
        };
        let slot = self.entries[found].0;
        match &self.entries[found].1 {
            Ok(Entry::Manifest(manifest)) => Ok(Some((slot, (**manifest).clone()))),
            _ => self.take_damage(found).map_or(Ok(None), Err),
        }
    }

    /// Reads the rest.
    pub(super) fn read_all(&mut self, checkpoints: &Checkpoints) -> Result<(), Error> {
        while self.read_next(checkpoints)? {}
        Ok(())
    }

    /// What has been read, the newest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &(Slot, Result<Entry, Error>)> {
        self.entries.iter()
    }

    /// The manifests that have been read and are intact, the newest first.
    pub(super) fn manifests(&self) -> impl DoubleEndedIterator<Item = (Slot, &Manifest)> {
        self.entries.iter().filter_map(|(slot, entry)| match entry {
            Ok(Entry::Manifest(manifest)) => Some((*slot, &**manifest)),
            _ => None,
        })
    }

    /// The slots that have not been read.
    pub(super) fn into_unread(self) -> Vec<Slot> {
        self.unread
    }

    /// The slot of what [`RestoreFrom::Latest`] means, intact or not.
    pub(super) fn head(&self) -> Option<Slot> {
        self.entries.iter().find_map(|(slot, entry)| match entry {
            Ok(Entry::Fence { .. }) => None,
            Ok(Entry::Rewind { to_slot, .. }) => Some(*to_slot),
            Ok(Entry::Manifest(_)) | Err(_) => Some(*slot),
        })
    }

    /// The slot of the newest entry that is or may be a checkpoint.
    pub(super) fn newest(&self) -> Option<Slot> {
        let checkpoint = |entry: &Result<Entry, Error>| matches!(entry, Ok(Entry::Manifest(_)) | Err(_));
        self.entries.iter().find(|(_, entry)| checkpoint(entry)).map(|(slot, _)| *slot)
    }

    /// The first epoch that no entry uses, once a checkpoint is found: epochs rise with the slots. A damaged entry may
    /// have used one more than those that can be read.
    pub(super) fn next_epoch(&self) -> Epoch {
        let newest = self.manifests().map(|(_, manifest)| manifest.epoch.0).max();
        let damaged = self.entries.iter().filter(|(_, entry)| entry.is_err()).count() as u64;
        Epoch(newest.unwrap_or(0) + damaged + 1)
    }

    /// The damaged entries above a slot.
    pub(super) fn damaged_above(&self, slot: Slot) -> impl Iterator<Item = (Slot, &Error)> {
        let above = self.entries.iter().take_while(move |(other, _)| *other > slot);
        above.filter_map(|(slot, entry)| Some((*slot, entry.as_ref().err()?)))
    }

    /// The index of the entry meant, if it has been read.
    fn look(&self, from: RestoreFrom) -> Option<usize> {
        let mut rewound_to = Slot::MAX;
        self.entries.iter().position(|(slot, entry)| match (from, entry) {
            (RestoreFrom::Epoch(epoch), Ok(Entry::Manifest(manifest))) => manifest.epoch == epoch,
            (RestoreFrom::Epoch(_), _) => false,
            // What a rewind has left behind.
            _ if *slot > rewound_to => false,
            (_, Ok(Entry::Rewind { to_slot, .. })) => {
                rewound_to = *to_slot;
                false
            }
            (_, Ok(Entry::Fence { .. })) => false,
            (_, Ok(Entry::Manifest(_))) => true,
            (from, Err(_)) => from == RestoreFrom::Latest,
        })
    }

    fn nothing_found(
        &mut self,
        checkpoints: &Checkpoints,
        from: RestoreFrom,
    ) -> Result<Option<(Slot, Manifest)>, Error> {
        match (from, self.head()) {
            (RestoreFrom::Epoch(epoch), _) => Err(checkpoints.no_such_epoch(epoch)),
            (_, None) => Ok(None),
            // Starting from nothing although there was something is not for us to decide.
            (_, Some(head)) => {
                let damaged = self.entries.iter().position(|(_, entry)| entry.is_err());
                let missing = || Error::MissingFile {
                    file: "checkpoint manifest".to_owned(),
                    object: checkpoints.history.name(head),
                };
                Err(damaged.and_then(|damaged| self.take_damage(damaged)).unwrap_or_else(missing))
            }
        }
    }

    fn take_damage(&mut self, index: usize) -> Option<Error> {
        self.entries.remove(index).1.err()
    }

    /// Reads the next older entry; `false` where there is none.
    fn read_next(&mut self, checkpoints: &Checkpoints) -> Result<bool, Error> {
        let Some(slot) = self.unread.pop() else { return Ok(false) };
        // Where there is nothing it was collected since the listing: as if that had come later.
        if let Some(bytes) = checkpoints.history.get(slot)? {
            self.entries.push((slot, checkpoints.decode(slot, &bytes)));
        }
        Ok(true)
    }
}
