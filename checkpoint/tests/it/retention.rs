//! Uploads, stores, restarts and collections in any order, each collection as slow as it likes: nothing that is needed
//! is ever deleted, and in the end nothing else is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;

use proptest::prelude::*;
use rivermark_checkpoint::history::Slot;
use rivermark_checkpoint::retention::{Claim, Kept, Ledger};
use rivermark_checkpoint::{Digest, Epoch, FileRef, Generation};

use crate::driver::manifest;

const RETAINED: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A process claims a file of this content for its epoch.
    Claim(usize, u8),
    /// Its oldest upload arrives.
    Upload(usize),
    /// It keeps a file of the newest manifest.
    Keep(usize, usize),
    /// The epoch fails; the next one begins.
    Fail,
    /// The newest process stores its epoch.
    Store,
    /// A process deletes the next entry that has expired.
    DeleteEntry(usize),
    /// It lists the files.
    List(usize),
    /// It decides on what it listed.
    Decide(usize),
    /// It deletes the next file.
    DeleteFile(usize),
    /// A new process takes over; the old ones go on.
    TakeOver,
}

struct Process {
    ledger: Ledger,
    generation: Generation,
    epoch: Epoch,
    uploading: VecDeque<FileRef>,
    /// What the next manifest will name.
    parts: BTreeSet<FileRef>,
    listing: Option<Vec<FileRef>>,
    doomed: VecDeque<FileRef>,
}

#[derive(Default)]
struct Model {
    files: BTreeSet<FileRef>,
    manifests: BTreeMap<Slot, (Epoch, BTreeSet<FileRef>)>,
    processes: Vec<Process>,
    next: Slot,
}

impl Model {
    fn take_over(&mut self) {
        let generation = Generation(self.processes.len() as u64 + 1);
        let mut ledger = Ledger::new(generation, NonZeroUsize::new(RETAINED).unwrap());
        for (slot, (_, files)) in &self.manifests {
            ledger.found(*slot, Kept::Manifest(files.clone()));
        }
        let newest = self.manifests.last_key_value();
        if let Some((_, (epoch, files))) = newest {
            ledger.build_on(&manifest(generation, *epoch, files.iter().copied().collect()));
        }
        let epoch = newest.map_or(Epoch(1), |(_, (epoch, _))| epoch.next());
        let (uploading, parts, listing, doomed) = Default::default();
        self.processes.push(Process { ledger, generation, epoch, uploading, parts, listing, doomed });
        self.next += 1;
    }

    fn take(&mut self, step: Step) {
        let count = self.processes.len();
        let newest = count - 1;
        match step {
            Step::Claim(process, content) => {
                let process = &mut self.processes[process % count];
                match process.ledger.claim(process.epoch, Digest::of(&[content]), 1) {
                    Claim::Present(file) => drop(process.parts.insert(file)),
                    Claim::Upload(file) => process.uploading.push_back(file),
                }
            }
            Step::Upload(process) => {
                let process = &mut self.processes[process % count];
                if let Some(file) = process.uploading.pop_front() {
                    assert!(self.files.insert(file), "a name is used twice");
                    process.ledger.uploaded(file);
                    process.parts.insert(file);
                }
            }
            Step::Keep(process, file) => {
                let process = &mut self.processes[process % count];
                let files: Vec<FileRef> =
                    self.manifests.values().flat_map(|(_, files)| files).copied().collect();
                if let Some(file) = files.get(file % files.len().max(1))
                    && process.ledger.keep(process.epoch, file)
                {
                    process.parts.insert(*file);
                }
            }
            Step::Fail => {
                let process = &mut self.processes[newest];
                process.epoch = process.epoch.next();
            }
            Step::Store => self.store(newest),
            Step::DeleteEntry(process) => {
                let process = &mut self.processes[process % count];
                if let Some(slot) = process.ledger.expired().first() {
                    self.manifests.remove(slot);
                    process.ledger.deleted(*slot);
                }
            }
            Step::List(process) => {
                self.processes[process % count].listing = Some(self.files.iter().copied().collect())
            }
            Step::Decide(process) => {
                let process = &mut self.processes[process % count];
                let listing = process.listing.take().unwrap_or_default();
                process.doomed.extend(process.ledger.garbage(listing));
            }
            Step::DeleteFile(process) => {
                if let Some(file) = self.processes[process % count].doomed.pop_front() {
                    self.files.remove(&file);
                }
            }
            Step::TakeOver => self.take_over(),
        }
    }

    fn store(&mut self, process: usize) {
        let process = &mut self.processes[process];
        // An epoch that is stored has all its uploads behind it; others belong to an epoch that failed.
        let files = std::mem::take(&mut process.parts);
        let manifest = manifest(process.generation, process.epoch, files.iter().copied().collect());
        process.uploading.clear();
        process.ledger.stored(self.next, &manifest);
        self.manifests.insert(self.next, (process.epoch, files));
        process.epoch = process.epoch.next();
        self.next += 1;
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let manifests = self.manifests.values().rev().take(RETAINED);
        let making = &self.processes.last().unwrap().parts;
        for file in manifests.flat_map(|(_, files)| files).chain(making) {
            prop_assert!(self.files.contains(file), "{} is needed and was deleted", file.object());
        }
        Ok(())
    }

    /// A quiet collection leaves what is needed, and nothing else.
    fn collect(&mut self) {
        let newest = self.processes.len() - 1;
        self.store(newest);
        while !self.processes[newest].ledger.expired().is_empty() {
            self.take(Step::DeleteEntry(newest));
        }
        self.take(Step::List(newest));
        self.take(Step::Decide(newest));
        while !self.processes[newest].doomed.is_empty() {
            self.take(Step::DeleteFile(newest));
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let process = 0..4_usize;
    let step = prop_oneof![
        4 => (process.clone(), 0..6_u8).prop_map(|(process, content)| Step::Claim(process, content)),
        4 => process.clone().prop_map(Step::Upload),
        2 => (process.clone(), 0..8_usize).prop_map(|(process, file)| Step::Keep(process, file)),
        1 => Just(Step::Fail),
        3 => Just(Step::Store),
        2 => process.clone().prop_map(Step::DeleteEntry),
        2 => process.clone().prop_map(Step::List),
        2 => process.clone().prop_map(Step::Decide),
        3 => process.prop_map(Step::DeleteFile),
        1 => Just(Step::TakeOver),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_collection_never_removes_what_a_manifest_needs_and_leaves_nothing_else(steps in steps()) {
        let mut model = Model::default();
        model.take_over();
        for step in steps {
            model.take(step);
            model.check()?;
        }
        model.collect();
        model.check()?;
        let needed: BTreeSet<FileRef> = model.manifests.values().flat_map(|(_, files)| files).copied().collect();
        prop_assert_eq!(&model.files, &needed);
    }
}

fn file(content: u8) -> FileRef {
    FileRef {
        digest: Digest::of(&[content]),
        bytes: 1,
        generation: Generation(1),
        upload: u64::from(content),
    }
}

fn kept(contents: &[u8]) -> Kept {
    Kept::Manifest(contents.iter().map(|content| file(*content)).collect())
}

fn ledger(entries: impl IntoIterator<Item = (Slot, Kept)>) -> Ledger {
    let mut ledger = Ledger::new(Generation(5), NonZeroUsize::new(RETAINED).unwrap());
    entries.into_iter().for_each(|(slot, entry)| ledger.found(slot, entry));
    ledger
}

#[test]
fn the_target_of_a_rewind_is_kept_until_a_newer_checkpoint_is_stored() {
    let before = [(1, kept(&[1])), (2, kept(&[2])), (3, kept(&[3])), (4, kept(&[4])), (6, Kept::Rewind(1))];
    let mut ledger = ledger(before);
    assert_eq!(ledger.expired(), [2]);
    ledger.stored(7, &manifest(Generation(5), Epoch(9), vec![file(9)]));
    assert_eq!(ledger.expired(), [1, 2, 3, 6]);
}

#[test]
fn while_a_retained_entry_cannot_be_read_no_file_is_garbage() {
    let mut ledger = ledger([(1, kept(&[1])), (2, Kept::Unreadable)]);
    assert_eq!(ledger.garbage([file(1), file(8)]), []);
    ledger.stored(3, &manifest(Generation(5), Epoch(9), vec![file(1)]));
    ledger.stored(4, &manifest(Generation(5), Epoch(10), vec![file(1)]));
    assert_eq!(ledger.expired(), [1, 2]);
    ledger.deleted(1);
    ledger.deleted(2);
    assert_eq!(ledger.garbage([file(1), file(8)]), [file(8)]);
}

#[test]
fn files_of_newer_generations_are_none_of_its_business() {
    let mut ledger = ledger([(1, kept(&[1]))]);
    let newer = FileRef { generation: Generation(6), ..file(8) };
    assert_eq!(ledger.garbage([newer]), []);
}
