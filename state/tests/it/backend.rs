//! One suite for all backends: an ordered map of bytes that can be checkpointed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;
use rivermark_state::*;

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<(Vec<u8>, Option<Vec<u8>>)>, Vec<(Vec<u8>, Vec<u8>)>),
    Get(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>, usize),
    Checkpoint,
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![0..4u8, Just(255u8)], 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let put = (key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..9)));
    let ranges = prop::collection::vec((key(), key()).prop_filter("ordered", |(a, b)| a < b), 0..2);
    prop_oneof![
        6 => (prop::collection::vec(put, 0..20), ranges).prop_map(|(ops, ranges)| Step::Apply(ops, ranges)),
        4 => key().prop_map(Step::Get),
        2 => (key(), key(), 1..9usize).prop_map(|(a, b, n)| Step::Scan(a, b, n)),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn scan(backend: &mut dyn Backend, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok(if rows.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    backend.scan(from, to, visit).unwrap();
    rows
}

fn apply(
    backend: &mut dyn Backend,
    model: &mut Rows,
    ops: &[(Vec<u8>, Option<Vec<u8>>)],
    ranges: &[(Vec<u8>, Vec<u8>)],
) {
    let mut batch = Batch::default();
    for (from, to) in ranges {
        batch.delete_range(from, to);
        model.retain(|key, _| key < from || key >= to);
    }
    let distinct: BTreeMap<_, _> = ops.iter().cloned().collect();
    for (key, value) in distinct {
        match value {
            Some(value) => {
                batch.put(&key, &value);
                model.insert(key, value);
            }
            None => {
                batch.delete(&key);
                model.remove(&key);
            }
        }
    }
    batch.sort();
    backend.apply(&batch).unwrap();
}

fn conforms(backends: &dyn Backends, steps: &[Step]) {
    let mut backend = backends.create("task").unwrap();
    let mut model = Rows::new();
    let mut checkpoints: Vec<(Vec<backend::BaseFile>, Rows)> = Vec::new();
    let mut value = Vec::new();
    for step in steps {
        match step {
            Step::Apply(ops, ranges) => apply(&mut *backend, &mut model, ops, ranges),
            Step::Get(key) => {
                let found = backend.get(key, &mut value).unwrap().then(|| value.clone());
                assert_eq!(found.as_ref(), model.get(key));
            }
            Step::Scan(from, to, limit) => {
                let rows = scan(&mut *backend, from, to, *limit);
                let expected: Vec<_> =
                    model.iter().filter(|(key, _)| from <= key && *key < to).take(*limit).collect();
                assert!(rows.iter().map(|(k, v)| (k, v)).eq(expected));
            }
            Step::Checkpoint => {
                let epoch = checkpoints.len() as u64;
                checkpoints.push((backend.checkpoint(epoch).unwrap(), model.clone()));
            }
            Step::Reopen => {
                let Some((files, rows)) = checkpoints.last() else { continue };
                if files.is_empty() {
                    assert!(rows.is_empty());
                    continue;
                }
                backend = backends.open("task", &restore_files(files)).unwrap();
                model = rows.clone();
            }
        }
    }
    // Every checkpoint still holds what it held, whatever was written since.
    for (files, rows) in checkpoints.iter().filter(|(files, _)| !files.is_empty()) {
        let mut old = backends.open("old", &restore_files(files)).unwrap();
        assert_eq!(scan(&mut *old, &[], &[255; 9], usize::MAX), rows.clone().into_iter().collect::<Vec<_>>());
    }
}

fn restore_files(files: &[backend::BaseFile]) -> Vec<RestoreFile> {
    let source = |file: &backend::BaseFile| match &file.source {
        SnapshotSource::Path(held) => RestoreSource::Path(held.path().to_owned()),
        SnapshotSource::Bytes(bytes) => RestoreSource::Bytes(bytes.clone()),
        SnapshotSource::Stored => panic!("a backend has its files"),
    };
    files
        .iter()
        .map(|file| RestoreFile { name: file.name.clone(), role: FileRole::Base, source: source(file) })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_is_an_ordered_map(steps in prop::collection::vec(step(), 1..40)) {
        conforms(&MemoryBackends, &steps);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rocksdb_is_an_ordered_map(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let budget = MemoryBudget::unlimited();
        let options = RocksOptions { cache: 8 << 20, write_buffers: 4 << 20, background_jobs: 2 };
        let backends = RocksBackends::new(folder.path(), &budget, options).unwrap();
        conforms(&backends, &steps);
    }
}
