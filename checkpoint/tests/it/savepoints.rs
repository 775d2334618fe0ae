//! A crash at any call to the store, while a savepoint is taken, installed or deleted: it is whole or not there.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rivermark_checkpoint::store::{Listed, MemoryStore};
use rivermark_checkpoint::{
    Certainty, Checkpoints, Epoch, FileRole, FlowId, JournalState, KeyGroups, Manifest, PartitionState,
    Place, Put, RestoreFrom, Savepoint, SavepointError, Source, StateFile, Store, StoreError, StoreReply,
    TaskId, TaskState,
};

use crate::driver::manifest;

const KEPT: NonZeroUsize = NonZeroUsize::MIN;
/// Three files of an operator's state, and one of a journal.
const CONTENTS: [&[u8]; 4] = [b"base", b"first delta", b"second delta", b"journal"];

/// Performs so many calls that change something, then nothing any more: a process that has died. The last one may happen and not be
/// answered.
#[derive(Debug)]
struct Mortal {
    store: Arc<MemoryStore>,
    left: AtomicUsize,
    last_happens: bool,
}

impl Mortal {
    fn new(store: &Arc<MemoryStore>, calls: usize, last_happens: bool) -> Arc<Mortal> {
        Arc::new(Mortal { store: Arc::clone(store), left: AtomicUsize::new(calls), last_happens })
    }

    fn change<T>(&self, change: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.left.load(Ordering::Relaxed) {
            0 => Err(dead()),
            1 => {
                self.left.store(0, Ordering::Relaxed);
                if self.last_happens {
                    change()?;
                }
                Err(dead())
            }
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                change()
            }
        }
    }
}

fn dead() -> StoreError {
    StoreError {
        attempt: "call",
        name: String::new(),
        store: "mortal".into(),
        certainty: Certainty::Indeterminate,
        reason: io::Error::other("dead"),
    }
}

impl Store for Mortal {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        self.change(|| self.store.put(name, bytes))
    }

    fn put_file(&self, name: &str, path: &Path) -> Result<Put, StoreError> {
        self.change(|| self.store.put_file(name, path))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(name)
    }

    fn fetch_file(&self, name: &str, to: &Path, link: bool) -> Result<bool, StoreError> {
        self.store.fetch_file(name, to, link)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.change(|| self.store.delete(name))
    }
}

fn checkpoints(store: Arc<dyn Store>, version: u64) -> Checkpoints {
    Checkpoints::new(store, FlowId { name: "flow".into(), version }).unwrap()
}

/// A stored checkpoint of these files.
fn stored(store: &Arc<MemoryStore>) -> (Checkpoints, Manifest) {
    let checkpoints = checkpoints(Arc::clone(store) as Arc<dyn Store>, 1);
    let writer = checkpoints.fence("test", 0, KEPT).unwrap();
    let epoch = writer.read(RestoreFrom::Latest).unwrap().next_epoch;
    let files = CONTENTS.iter().enumerate().map(|(at, content)| StateFile {
        name: format!("file-{at}"),
        role: FileRole::Delta,
        content: writer.upload(epoch, Source::Bytes(content)).unwrap(),
    });
    let mut files: Vec<_> = files.collect();
    let journal = JournalState { files: files.split_off(3), tail: vec![8].into() };
    let journals = [("times".to_owned(), journal)].into();
    let partition = PartitionState { journals, ..PartitionState::default() };
    let groups = KeyGroups { start: 0, end: 128 };
    let task = TaskState { task: TaskId(0), groups, files, meta: vec![7].into() };
    let mut manifest =
        Manifest { flow: "flow".into(), version: 1, ..manifest(writer.generation(), epoch, Vec::new()) };
    manifest.operators = [("operator".to_owned(), vec![task])].into();
    manifest.sources = [("source".to_owned(), [("0".to_owned(), partition)].into())].into();
    assert_eq!(writer.store(&manifest), StoreReply::Stored);
    (checkpoints, manifest)
}

fn place(store: Arc<dyn Store>) -> Place {
    Place::named(store, "flow", "kept").unwrap()
}

fn is_whole(savepoint: &Savepoint) {
    savepoint.verify().unwrap();
    let files: Vec<_> =
        savepoint.manifest().files().map(|file| savepoint.fetch_bytes(file).unwrap()).collect();
    assert_eq!(files, CONTENTS);
    assert!(savepoint.manifest().sinks.is_empty());
}

/// Runs `act` against a process that dies after each number of calls, until one lives; answers how many died.
fn with_every_death(
    prepare: impl Fn() -> Arc<MemoryStore>,
    act: impl Fn(Arc<Mortal>) -> bool,
    check: impl Fn(&Arc<MemoryStore>),
) -> usize {
    for calls in 1.. {
        let mut lived = true;
        for last_happens in [false, true] {
            let store = prepare();
            lived &= act(Mortal::new(&store, calls, last_happens));
            check(&store);
        }
        if lived {
            return calls - 1;
        }
    }
    unreachable!("nothing takes calls without end")
}

#[test]
fn a_crash_while_it_is_taken_leaves_none_or_a_whole_one_and_does_not_hinder_the_next() {
    let savepoints = Arc::new(MemoryStore::default());
    let (checkpoints, manifest) = stored(&savepoints);
    let deaths = with_every_death(
        Arc::default,
        |mortal| place(mortal).take("kept", &checkpoints, &manifest).is_ok(),
        |store| {
            let place = place(Arc::clone(store) as Arc<dyn Store>);
            match place.open() {
                Ok(savepoint) => is_whole(&savepoint),
                Err(SavepointError::Missing { .. }) => {
                    is_whole(&place.take("kept", &checkpoints, &manifest).unwrap());
                }
                Err(error) => panic!("{error}"),
            }
            assert!(matches!(
                place.take("kept", &checkpoints, &manifest),
                Err(SavepointError::Exists { .. })
            ));
        },
    );
    assert_eq!(deaths, CONTENTS.len() + 1, "each file and the record");
}

#[test]
fn a_crash_while_it_is_deleted_leaves_none_or_a_whole_one() {
    let deaths = with_every_death(
        || {
            let store = Arc::new(MemoryStore::default());
            let (checkpoints, manifest) = stored(&store);
            place(Arc::clone(&store) as Arc<dyn Store>).take("kept", &checkpoints, &manifest).unwrap();
            store
        },
        |mortal| place(mortal).delete().is_ok(),
        |store| {
            let place = place(Arc::clone(store) as Arc<dyn Store>);
            if let Ok(savepoint) = place.open() {
                is_whole(&savepoint);
            }
            // What is left can be deleted in any case.
            match place.delete() {
                Ok(()) | Err(SavepointError::Missing { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(store.list("flow/kept/").unwrap().is_empty());
        },
    );
    assert_eq!(deaths, CONTENTS.len() + 1);
}

#[test]
fn a_crash_while_it_is_installed_leaves_the_newest_checkpoint_or_the_savepoint() {
    let savepoints = Arc::new(MemoryStore::default());
    let (from, manifest) = stored(&savepoints);
    let savepoint = place(Arc::clone(&savepoints) as Arc<dyn Store>).take("kept", &from, &manifest).unwrap();
    let deaths = with_every_death(
        Arc::default,
        |mortal| {
            let installed = checkpoints(mortal, 2).fence("dies", 0, KEPT);
            installed.is_ok_and(|writer| savepoint.install(&writer, 5).is_ok())
        },
        |store| {
            let version = checkpoints(Arc::clone(store) as Arc<dyn Store>, 2);
            let writer = version.fence("next", 0, KEPT).unwrap();
            let found = writer.read(RestoreFrom::Latest).unwrap().checkpoint;
            let Some(found) = found else { return assert!(version.is_empty().unwrap()) };
            assert!(!version.is_empty().unwrap());
            assert_eq!((found.version, found.operators.len(), found.created_at_ms), (2, 1, 5));
            assert_eq!(found.epoch, savepoint.manifest().epoch.next(), "names of state files contain epochs");
            let files: Vec<_> = found.files().map(|file| version.fetch_bytes(file).unwrap()).collect();
            assert_eq!(files, CONTENTS);
        },
    );
    assert_eq!(deaths, 1 + CONTENTS.len() + 1, "the fence, each file, the manifest");
}

#[test]
fn installed_over_newer_checkpoints_it_is_the_newest_and_its_epoch_is_new() {
    let store = Arc::new(MemoryStore::default());
    let (checkpoints, manifest) = stored(&store);
    let savepoint =
        place(Arc::clone(&store) as Arc<dyn Store>).take("kept", &checkpoints, &manifest).unwrap();
    for expected in [Epoch(2), Epoch(3)] {
        let writer = checkpoints.fence("test", 0, KEPT).unwrap();
        assert_eq!(savepoint.install(&writer, 0).unwrap(), expected);
        writer.collect().unwrap();
        let next = checkpoints.fence("test", 0, KEPT).unwrap();
        let found = next.read(RestoreFrom::Latest).unwrap();
        assert_eq!((found.checkpoint.unwrap().epoch, found.rewound), (expected, false));
        is_whole(&savepoint);
    }
}

/// Makes a savepoint of another: two of its files of state, and one that is new.
fn edited(from: &Savepoint, to: &Place) -> Result<Savepoint, SavepointError> {
    let mut manifest = from.manifest().clone();
    let mut filling = to.begin()?;
    let task = &mut manifest.operators.get_mut("operator").unwrap()[0];
    task.files[1].content = filling.add(Some(from), Source::Bytes(b"edited"))?;
    for at in [0, 2] {
        filling.keep(from, &task.files[at])?;
    }
    filling.keep(from, &manifest.sources["source"]["0"].journals["times"].files[0])?;
    filling.finish("edited", &manifest)
}

#[test]
fn a_crash_while_an_edited_one_is_written_leaves_none_or_a_whole_one_and_the_old_one_as_it_is() {
    let savepoints = Arc::new(MemoryStore::default());
    let (checkpoints, manifest) = stored(&savepoints);
    let from =
        place(Arc::clone(&savepoints) as Arc<dyn Store>).take("kept", &checkpoints, &manifest).unwrap();
    let is_edited = |savepoint: &Savepoint| {
        savepoint.verify().unwrap();
        let files: Vec<_> =
            savepoint.manifest().files().map(|file| savepoint.fetch_bytes(file).unwrap()).collect();
        assert_eq!(files, [CONTENTS[0], b"edited", CONTENTS[2], CONTENTS[3]]);
        assert_eq!(savepoint.name(), "edited");
    };
    let deaths = with_every_death(
        Arc::default,
        |mortal| edited(&from, &place(mortal)).is_ok(),
        |store| {
            let place = place(Arc::clone(store) as Arc<dyn Store>);
            match place.open() {
                Ok(savepoint) => is_edited(&savepoint),
                Err(SavepointError::Missing { .. }) => is_edited(&edited(&from, &place).unwrap()),
                Err(error) => panic!("{error}"),
            }
            assert!(matches!(edited(&from, &place), Err(SavepointError::Exists { .. })));
            is_whole(&from);
        },
    );
    assert_eq!(deaths, CONTENTS.len() + 1, "each file and the record");
}
