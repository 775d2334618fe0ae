//! The stores of all workers of an operator, whose snapshots are kept as an engine keeps them.

use std::collections::BTreeMap;

use rivermark_state::*;

/// One store a range of key groups, and the snapshots they can be restored from.
pub struct Stores<'a> {
    backends: &'a dyn Backends,
    budget: MemoryBudget,
    groups: u16,
    stores: Vec<KeyedStore>,
    epoch: u64,
    snapshots: Vec<RestorePart>,
    /// Content of every file ever handed out, by worker and name, as an engine's uploads would have it.
    uploaded: BTreeMap<String, RestoreFile>,
}

/// Limits so small that everything happens at once.
const TINY: Limits =
    Limits { delta_min: 600, delta_max: 3000, delta_files: 7, delta_kept: 400, evict_batch: 4 };

impl<'a> Stores<'a> {
    /// One store of all key groups, with nothing in it.
    pub fn new(backends: &'a dyn Backends, budget: usize, groups: u16) -> Self {
        let mut stores = Self {
            backends,
            budget: MemoryBudget::new(budget),
            groups,
            stores: Vec::new(),
            epoch: 0,
            snapshots: Vec::new(),
            uploaded: BTreeMap::new(),
        };
        stores.open(1);
        stores
    }

    fn open(&mut self, workers: u16) {
        self.stores.clear();
        let open = |worker| {
            let spec = StoreSpec {
                operator: "op".to_owned(),
                groups: self.groups,
                range: range_of(worker, self.groups, workers),
                budget: self.budget.clone(),
                limits: TINY,
            };
            KeyedStore::open(spec, self.backends, self.snapshots.clone()).unwrap()
        };
        self.stores = (0..workers).map(open).collect();
    }

    pub fn len(&self) -> usize {
        self.stores.len()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut KeyedStore> {
        self.stores.iter_mut()
    }

    /// The store that has `key`, and the key's hash.
    pub fn owner<K: Key>(&mut self, key: &K) -> (&mut KeyedStore, u64) {
        let hash = hash_key(key);
        let worker = worker_of(key_group(hash, self.groups), self.groups, self.len() as u16);
        (&mut self.stores[worker as usize], hash)
    }

    /// Takes a snapshot of all stores and keeps its files, as an engine does.
    pub fn snapshot(&mut self, stored: bool) {
        self.epoch += 1;
        let mut parts = Vec::new();
        for store in &mut self.stores {
            let snapshot = store.snapshot(self.epoch).unwrap();
            let mut files = Vec::new();
            for file in &snapshot.files {
                let key = format!("{}-{}", snapshot.range.start, file.name);
                match &file.source {
                    SnapshotSource::Bytes(bytes) => {
                        let source = RestoreSource::Bytes(bytes.clone());
                        let file = RestoreFile { name: file.name.clone(), role: file.role, source };
                        if let Some(old) = self.uploaded.get(&key) {
                            assert_eq!(content(old), content(&file), "{key} changed");
                        }
                        self.uploaded.insert(key.clone(), file);
                    }
                    SnapshotSource::Path(held) => {
                        let bytes: SharedBytes = std::fs::read(held.path()).unwrap().into();
                        let source = RestoreSource::Bytes(bytes);
                        let new = RestoreFile { name: file.name.clone(), role: file.role, source };
                        if let Some(old) = self.uploaded.get(&key).filter(|_| file.reused) {
                            assert_eq!(content(old), content(&new), "{key} changed");
                        }
                        self.uploaded.insert(key.clone(), new);
                    }
                    SnapshotSource::Stored => assert!(file.reused),
                }
                files.push(self.uploaded[&key].clone());
            }
            if stored {
                store.stored(self.epoch);
            }
            parts.push(RestorePart { meta: snapshot.meta, files });
        }
        self.snapshots = parts;
    }

    /// Restores all stores from the last snapshot, for `workers` of them; 0: as many as before.
    pub fn restore(&mut self, workers: u16) {
        let workers = if workers == 0 { self.stores.len() as u16 } else { workers };
        if workers != self.stores.len() as u16 {
            // File names are per range: start the archive anew, as the new workers do.
            self.uploaded.clear();
        }
        self.open(workers);
        let archive: Vec<(String, RestoreFile)> = self
            .snapshots
            .iter()
            .zip(0..)
            .flat_map(|(part, worker)| {
                let start = range_of(worker, self.groups, workers).start;
                part.files.iter().map(move |file| (format!("{start}-{}", file.name), file.clone()))
            })
            .collect();
        self.uploaded.extend(archive);
    }
}

fn content(file: &RestoreFile) -> SharedBytes {
    match &file.source {
        RestoreSource::Bytes(bytes) => bytes.clone(),
        RestoreSource::Path(path) => std::fs::read(path).unwrap().into(),
    }
}
