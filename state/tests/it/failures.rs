//! What is damaged, missing or of another type is an error that says so.

use rivermark_state::*;

const COUNTS: Value<u64> = Value::new("counts");

fn snapshot() -> RestorePart {
    let mut store = KeyedStore::open(StoreSpec::new("shop"), &MemoryBackends, Vec::new()).unwrap();
    for key in 0..100u64 {
        store.value(COUNTS).unwrap().set(hash_key(&key), key, key).unwrap();
    }
    store.snapshot(7).unwrap().to_restore().unwrap()
}

fn open(part: RestorePart) -> Result<KeyedStore> {
    KeyedStore::open(StoreSpec::new("shop"), &MemoryBackends, vec![part])
}

#[test]
fn a_damaged_delta_is_an_error_naming_file_and_position() {
    let mut part = snapshot();
    let RestoreSource::Bytes(bytes) = &part.files[0].source else { panic!("a delta is in memory") };
    let mut damaged = bytes.to_vec();
    damaged[60] ^= 1;
    part.files[0].source = RestoreSource::Bytes(damaged.into());
    let error = open(part).unwrap_err();
    assert!(
        matches!(&error, StateError::Corrupt { file, position: 16, .. } if file == "7-0-128.delta"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let mut part = snapshot();
    part.files.clear();
    let error = open(part).unwrap_err().to_string();
    assert!(error.contains("shop") && error.contains("7-0-128.delta"), "{error}");
}

#[test]
fn another_type_or_kind_is_an_error_naming_both() {
    let mut store = open(snapshot()).unwrap();
    let error = store.value::<u64, String>(Value::new("counts")).unwrap_err().to_string();
    assert!(error.contains("u64 -> u64") && error.contains("u64 -> String"), "{error}");
    let error = store.list::<u64, u64>(List::new("counts")).unwrap_err().to_string();
    assert!(error.contains("is Value") && error.contains("as List") && error.contains("shop"), "{error}");
}

#[test]
fn another_number_of_key_groups_is_refused() {
    let spec = StoreSpec { groups: 64, range: KeyGroupRange::all(64), ..StoreSpec::new("shop") };
    let error = KeyedStore::open(spec, &MemoryBackends, vec![snapshot()]).unwrap_err().to_string();
    assert!(error.contains("128") && error.contains("64"), "{error}");
}

#[test]
fn overlapping_snapshots_are_refused() {
    let error =
        KeyedStore::open(StoreSpec::new("shop"), &MemoryBackends, vec![snapshot(), snapshot()]).unwrap_err();
    assert!(error.to_string().contains("same key groups"), "{error}");
}

#[test]
fn a_state_that_the_program_dropped_is_carried_over() {
    let mut part = snapshot();
    for epoch in 8..12 {
        let mut store = open(part).unwrap();
        let id = store.value_table::<u64, u64>(Value::new("other")).unwrap();
        store.table(id).set(hash_key(&1u64), 1, 1).unwrap();
        store.force_rebase();
        part = store.snapshot(epoch).unwrap().to_restore().unwrap();
    }
    let mut store = open(part).unwrap();
    assert_eq!(store.value(COUNTS).unwrap().get(hash_key(&42u64), &42u64).unwrap(), Some(&42));
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_damaged_base_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let budget = MemoryBudget::unlimited();
    let options = RocksOptions { cache: 8 << 20, write_buffers: 4 << 20, background_jobs: 2 };
    let backends = RocksBackends::new(folder.path(), &budget, options).unwrap();
    let mut store = KeyedStore::open(StoreSpec::new("shop"), &backends, Vec::new()).unwrap();
    for key in 0..5_000u64 {
        store.value(COUNTS).unwrap().set(hash_key(&key), key, key).unwrap();
    }
    store.evict(4_000).unwrap();
    let snapshot = store.snapshot(1).unwrap();
    let mut part = snapshot.to_restore().unwrap();
    let table = part.files.iter_mut().find(|file| file.name.ends_with(".sst")).unwrap();
    let RestoreSource::Path(path) = &table.source else { panic!("a base file is on disk") };
    let mut bytes = std::fs::read(path).unwrap();
    bytes[..2_000].iter_mut().for_each(|byte| *byte ^= 0x55);
    table.source = RestoreSource::Bytes(bytes.into());
    let failed = KeyedStore::open(StoreSpec::new("shop"), &backends, vec![part]).and_then(|mut store| {
        let table = store.value::<u64, u64>(COUNTS)?;
        for key in 0..5_000 {
            table.get(hash_key(&key), &key)?;
        }
        Ok(())
    });
    let error = failed.unwrap_err().to_string();
    assert!(error.contains(".sst") && error.contains("backend"), "{error}");
}
