use super::*;
use crate::backend::{Backend, Backends, BaseFile, Visit};
use crate::{KeyedStore, MemoryBackend, MemoryBackends, RestoreFile, StoreSpec, TableId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn store<K: Key>(backends: &dyn Backends) -> (KeyedStore, TableId<Timers<K>>) {
    let mut store = KeyedStore::open(StoreSpec::new("op"), backends, Vec::new()).unwrap();
    let id = store.timers("timers").unwrap();
    (store, id)
}

#[test]
fn timers_that_have_fired_are_not_remembered_for_a_snapshot_that_never_comes() {
    let (mut store, id) = store::<u64>(&MemoryBackends);
    let timers = store.table(id);
    for time in 0..100_000 {
        timers.register(time, hash_key(&7u64), 7).unwrap();
        timers.register(time + 300, hash_key(&8u64), 8).unwrap();
        while timers.pop(time).unwrap().is_some() {}
        assert!(timers.dirty.len() <= timers.resident() / 4 + 65, "{}", timers.dirty.len());
    }
    let left = timers.resident();
    let part = store.snapshot(1).unwrap().to_restore().unwrap();
    let mut copy = KeyedStore::open(StoreSpec::new("op"), &MemoryBackends, vec![part]).unwrap();
    let id = copy.timers::<u64>("timers").unwrap();
    assert_eq!((copy.table(id).resident(), left), (left, 299 + 1));
    // What comes after the snapshot is found in the next one, from the list as from the table.
    for more in [10, 1_000] {
        for key in 0..more {
            copy.table(id).register(more as i64, hash_key(&key), key).unwrap();
        }
        let epoch = copy.snapshot(more).unwrap();
        assert!(epoch.delta_bytes > 18 * more && epoch.delta_bytes < 18 * more + 200, "{epoch:?}");
    }
}

#[test]
fn timers_are_charged_until_they_are_handed_out() {
    let (mut store, id) = store::<String>(&MemoryBackends);
    let timers = store.table(id);
    let key = |n: i64| format!("a key of some length, {n}");
    for n in 0..1_000 {
        timers.register(5, hash_key(&key(n)), key(n)).unwrap();
    }
    let before = timers.scope.account.held();
    let first = timers.pop(5).unwrap().unwrap().2;
    let one = before - timers.scope.account.held();
    assert_eq!(first, key(0));
    assert!((100..400).contains(&one), "{one}");
    // Deleted, registered again, put back, and taken out: each is charged once.
    assert!(timers.delete(5, hash_key(&key(1)), &key(1)).unwrap());
    assert!(!timers.delete(5, hash_key(&key(1)), &key(1)).unwrap());
    assert!(timers.scope.account.held() < before - one);
    assert!(timers.register(5, hash_key(&key(1)), key(1)).unwrap());
    assert!(!timers.register(5, hash_key(&key(1)), key(1)).unwrap());
    assert_eq!(timers.scope.account.held(), before - one);
    timers.register(4, hash_key(&key(1)), key(1)).unwrap();
    assert_eq!(timers.scope.account.held(), before);
    let mut handed_out = 0;
    while timers.pop(5).unwrap().is_some() {
        handed_out += 1;
    }
    assert_eq!((handed_out, timers.scope.account.held()), (1_000, 0));
}

/// Counts how often somebody looks for rows.
#[derive(Default)]
struct Counted(MemoryBackend, Arc<AtomicUsize>);

impl Backend for Counted {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        self.0.get(key, value)
    }
    fn apply(&mut self, batch: &Batch) -> Result<()> {
        self.0.apply(batch)
    }
    fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.scan(from, to, visit)
    }
    fn checkpoint(&mut self, epoch: u64) -> Result<Vec<BaseFile>> {
        self.0.checkpoint(epoch)
    }
    fn checkpoint_is_incremental(&self) -> bool {
        self.0.checkpoint_is_incremental()
    }
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

#[derive(Default)]
struct Counting(Arc<AtomicUsize>);

impl Backends for Counting {
    fn create(&self, _name: &str) -> Result<Box<dyn Backend>> {
        Ok(Box::new(Counted(MemoryBackend::default(), Arc::clone(&self.0))))
    }
    fn open(&self, name: &str, _files: &[RestoreFile]) -> Result<Box<dyn Backend>> {
        self.create(name)
    }
}

#[test]
fn deleting_a_spilled_timer_looks_for_the_earliest_only_if_it_was_that() {
    let backends = Counting::default();
    let (mut store, id) = store::<u64>(&backends);
    for key in 0..100u64 {
        store.table(id).register(5_000 + key as i64, hash_key(&key), key).unwrap();
    }
    store.evict(usize::MAX).unwrap();
    let before = backends.0.load(Ordering::Relaxed);
    for key in 50..100u64 {
        store.table(id).delete(5_000 + key as i64, hash_key(&key), &key).unwrap();
    }
    assert_eq!(backends.0.load(Ordering::Relaxed) - before, 0);
    store.table(id).delete(5_000, hash_key(&0u64), &0).unwrap();
    assert_eq!(backends.0.load(Ordering::Relaxed) - before, 1);
    assert_eq!(store.table(id).next_time(), Some(5_001));
}
