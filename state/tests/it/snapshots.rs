//! What snapshots cost and what they list.

use rivermark_state::*;

const COUNTS: Value<u64> = Value::new("counts");

fn restored(part: RestorePart) -> KeyedStore {
    KeyedStore::open(StoreSpec::new("op"), &MemoryBackends, vec![part]).unwrap()
}

#[test]
fn a_snapshot_holds_what_changed_and_nothing_else() {
    let mut store = restored_empty();
    for key in 0..10_000u64 {
        store.value(COUNTS).unwrap().set(hash_key(&key), key, 0).unwrap();
    }
    assert!(store.snapshot(1).unwrap().delta_bytes >= 180_000);
    for key in 0..10u64 {
        *store.value(COUNTS).unwrap().upsert(hash_key(&key), key, || 0).unwrap() += 1;
    }
    let second = store.snapshot(2).unwrap();
    assert!((180..400).contains(&second.delta_bytes), "{}", second.delta_bytes);
    assert_eq!(second.files.iter().map(|file| file.reused).collect::<Vec<_>>(), [true, false]);
    let third = store.snapshot(3).unwrap();
    assert_eq!((third.delta_bytes, third.files.len()), (0, 2));
    assert!(third.files.iter().all(|file| file.reused));
}

fn restored_empty() -> KeyedStore {
    KeyedStore::open(StoreSpec::new("op"), &MemoryBackends, Vec::new()).unwrap()
}

/// The marks by which entries count as changed are reused after 255 snapshots.
#[test]
fn no_change_is_lost_over_many_hundred_snapshots() {
    let mut store = restored_empty();
    for key in 0..300u64 {
        store.value(COUNTS).unwrap().set(hash_key(&key), key, 0).unwrap();
    }
    for epoch in 1..=700u64 {
        // Key k changes in every k-th interval, so that marks of all ages are about.
        for key in (1..300u64).filter(|key| epoch.is_multiple_of(*key)) {
            *store.value(COUNTS).unwrap().get_mut(hash_key(&key), &key).unwrap().unwrap() = epoch;
        }
        let snapshot = store.snapshot(epoch).unwrap();
        if epoch.is_multiple_of(97) || (250..265).contains(&epoch) || (505..520).contains(&epoch) {
            let mut copy = restored(snapshot.to_restore().unwrap());
            for key in 1..300u64 {
                let expected = epoch / key * key;
                assert_eq!(
                    copy.value(COUNTS).unwrap().get(hash_key(&key), &key).unwrap(),
                    Some(&expected),
                    "{key}"
                );
            }
        }
    }
}

/// A restart reads every file: after hours of small checkpoints it must not read thousands.
#[test]
fn a_thousand_small_snapshots_consist_of_few_files_and_cost_what_changed() {
    let mut store = restored_empty();
    for key in 0..50_000u64 {
        store.value(COUNTS).unwrap().set(hash_key(&key), key, 0).unwrap();
    }
    let full = store.snapshot(1).unwrap().delta_bytes;
    let (mut cost, mut largest) = (0, 0);
    for epoch in 2..=1_000u64 {
        store.stored(epoch - 1);
        for key in [epoch % 10, epoch] {
            store.value(COUNTS).unwrap().set(hash_key(&key), key, epoch).unwrap();
        }
        store
            .value::<u64, u64>(COUNTS)
            .unwrap()
            .remove(hash_key(&(epoch + 20_000)), &(epoch + 20_000))
            .unwrap();
        let snapshot = store.snapshot(epoch).unwrap();
        assert!(snapshot.files.len() <= 64, "{} files", snapshot.files.len());
        assert!(snapshot.files.iter().filter(|file| !file.reused).count() <= 1);
        cost += snapshot.delta_bytes;
        largest = largest.max(snapshot.delta_bytes);
    }
    assert!(largest < full / 4 && cost < 5 * full, "{largest} at most, {cost} in all, {full} at first");
}

#[test]
fn merged_deltas_restore_as_the_single_ones_did() {
    let limits = Limits { delta_files: 6, ..Limits::default() };
    let spec = || StoreSpec { limits, ..StoreSpec::new("op") };
    let mut store = KeyedStore::open(spec(), &MemoryBackends, Vec::new()).unwrap();
    let (mut merged, mut expected) = (0, std::collections::BTreeMap::new());
    let mut stored = std::collections::HashMap::new();
    for epoch in 1..=40u64 {
        let values = store.value::<u64, u64>(COUNTS).unwrap();
        values.set(hash_key(&(epoch % 7)), epoch % 7, epoch).unwrap();
        values.remove(hash_key(&(epoch % 5)), &(epoch % 5)).unwrap();
        expected.insert(epoch % 7, epoch);
        expected.remove(&(epoch % 5));
        let snapshot = store.snapshot(epoch).unwrap();
        merged += usize::from(snapshot.files.len() == 2 && epoch > 2);
        let files = snapshot.files.iter().map(|file| {
            if let SnapshotSource::Bytes(bytes) = &file.source {
                stored.insert(file.name.clone(), RestoreSource::Bytes(bytes.clone()));
            }
            RestoreFile { name: file.name.clone(), role: file.role, source: stored[&file.name].clone() }
        });
        let part = RestorePart { meta: snapshot.meta.clone(), files: files.collect() };
        let mut copy = KeyedStore::open(spec(), &MemoryBackends, vec![part]).unwrap();
        let mut found = std::collections::BTreeMap::new();
        let values = copy.value::<u64, u64>(COUNTS).unwrap();
        values.for_each(|key, value| assert!(found.insert(*key, *value).is_none())).unwrap();
        assert_eq!(found, expected, "epoch {epoch}");
        // A store that goes on from it has its own share of the files, whose bytes it does not have.
        if epoch.is_multiple_of(9) {
            store = copy;
        }
    }
    assert!(merged > 3, "{merged} times");
}

#[test]
fn stored_deltas_are_referred_to_by_name() {
    let mut store = restored_empty();
    store.value(COUNTS).unwrap().set(hash_key(&1u64), 1u64, 1u64).unwrap();
    let first = store.snapshot(1).unwrap();
    store.value(COUNTS).unwrap().set(hash_key(&2u64), 2u64, 2u64).unwrap();
    let second = store.snapshot(2).unwrap();
    assert!(matches!(second.files[0].source, SnapshotSource::Bytes(_)), "not known to be stored yet");
    store.stored(1);
    let third = store.snapshot(3).unwrap();
    assert!(matches!(third.files[0].source, SnapshotSource::Stored));
    assert!(matches!(third.files[1].source, SnapshotSource::Bytes(_)));
    assert_eq!(third.files[0].name, first.files[0].name);
    assert!(third.to_restore().is_none() && second.to_restore().is_some());
}

#[cfg(feature = "rocksdb")]
#[test]
fn table_files_are_listed_anew_only_once_and_stay_readable() {
    let folder = tempfile::tempdir().unwrap();
    let options = RocksOptions { cache: 8 << 20, write_buffers: 4 << 20, background_jobs: 2 };
    let backends = RocksBackends::new(folder.path(), &MemoryBudget::unlimited(), options).unwrap();
    let mut store = KeyedStore::open(StoreSpec::new("op"), &backends, Vec::new()).unwrap();
    let mut snapshots = Vec::new();
    for epoch in 1..=3u64 {
        for key in 0..2_000u64 {
            let key = epoch << 32 | key;
            store.value(COUNTS).unwrap().set(hash_key(&key), key, key).unwrap();
        }
        store.evict(usize::MAX).unwrap();
        store.force_rebase();
        snapshots.push(store.snapshot(epoch).unwrap());
    }
    let tables = |snapshot: &Snapshot, reused: bool| {
        let wanted = |file: &&SnapshotFile| file.name.ends_with(".sst") && file.reused == reused;
        snapshot.files.iter().filter(wanted).map(|file| file.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(tables(&snapshots[0], true), Vec::<String>::new());
    assert_eq!(tables(&snapshots[1], true), tables(&snapshots[0], false));
    drop(store);
    for (snapshot, epochs) in snapshots.iter().zip(1..) {
        let mut old =
            KeyedStore::open(StoreSpec::new("op"), &backends, vec![snapshot.to_restore().unwrap()]).unwrap();
        let mut rows = 0;
        old.value::<u64, u64>(COUNTS).unwrap().for_each(|_, _| rows += 1).unwrap();
        assert_eq!(rows, epochs * 2_000);
    }
    drop(snapshots);
    let left = std::fs::read_dir(folder.path().join("live-state")).unwrap().count();
    assert_eq!(left, 0, "folders are removed with what refers to them");
}

/// Operators keep tables besides those of a user's handles, and nobody tells a user what they are called.
#[test]
fn a_handle_may_be_called_what_an_operator_calls_its_timers() {
    const MINE: Value<u64> = Value::new("timers");
    let mut store = restored_empty();
    let theirs = store.timers::<u64>("timers").unwrap();
    store.table(theirs).register(9, hash_key(&1u64), 1).unwrap();
    store.value(MINE).unwrap().set(hash_key(&2u64), 2u64, 7).unwrap();
    let part = store.snapshot(1).unwrap().to_restore().unwrap();
    // As it is, and by a task that has only a part of the key groups.
    let narrower = StoreSpec { range: KeyGroupRange::new(0, 127), ..StoreSpec::new("op") };
    for spec in [StoreSpec::new("op"), narrower] {
        let mut copy = KeyedStore::open(spec, &MemoryBackends, vec![part.clone()]).unwrap();
        assert_eq!(copy.value(MINE).unwrap().get(hash_key(&2u64), &2u64).unwrap(), Some(&7));
        let theirs = copy.timers::<u64>("timers").unwrap();
        assert_eq!(copy.table(theirs).pop(10).unwrap(), Some((9, hash_key(&1u64), 1)));
    }
    const OTHER: Map<u64, u64> = Map::new("timers");
    assert!(matches!(store.map_table::<u64, u64, u64>(OTHER), Err(StateError::Schema { .. })));
}

/// Found by another program version, after somebody has tidied up its modules.
#[test]
fn a_type_that_moved_to_another_module_is_restored() {
    mod before {
        #[derive(Clone, serde::Serialize, serde::Deserialize)]
        pub struct Order(pub u64);
    }
    mod after {
        #[derive(Clone, serde::Serialize, serde::Deserialize)]
        pub struct Order(pub u64);
    }
    let mut store = restored_empty();
    let value = before::Order(5);
    store.value(Value::<before::Order>::new("orders")).unwrap().set(hash_key(&1u64), 1u64, value).unwrap();
    let mut copy = restored(store.snapshot(1).unwrap().to_restore().unwrap());
    let orders = copy.value::<u64, after::Order>(Value::new("orders")).unwrap();
    assert_eq!(orders.get(hash_key(&1u64), &1).unwrap().unwrap().0, 5);
    assert!(matches!(copy.value::<u64, u64>(Value::new("orders")), Err(StateError::Schema { .. })));
}
