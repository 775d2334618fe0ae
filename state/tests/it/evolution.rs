//! States whose types change between two versions of a program.

use std::collections::BTreeMap;

use rivermark_state::*;

const OLD: Value<u32> = Value::new("clicks");
const NEW: Value<(u64, String)> = Value::new("clicks").version(3);
const OLD_LIST: List<u8> = List::new("pages");
const NEW_LIST: List<String> = List::new("pages").version(2);
const OLD_MAP: Map<u8, u16> = Map::new("visits");
const NEW_MAP: Map<u8, u64> = Map::new("visits").version(2);
const OLD_BEST: Reducing<u16> = Reducing::new("best");
const NEW_BEST: Reducing<u64> = Reducing::new("best").version(2);
const OTHER: Value<u64> = Value::new("other");
const GROUPS: u16 = 16;
const KEYS: u64 = 600;

fn spec(groups: KeyGroupRange) -> StoreSpec {
    StoreSpec { groups: GROUPS, range: groups, ..StoreSpec::new("count") }
}

fn all() -> StoreSpec {
    spec(KeyGroupRange::all(GROUPS))
}

fn steps() -> Migrations {
    Migrations::new()
        .from(2, |(clicks, note): (u32, String)| (u64::from(clicks), note))
        .from(1, |clicks: u32| (clicks, format!("was {clicks}")))
}

fn migrating(store: &mut KeyedStore) {
    store.migrate("clicks", steps());
    store.migrate("pages", Migrations::new().from(1, |page: u8| format!("page {page}")));
    store.migrate("visits", Migrations::new().from(1, |visits: u16| u64::from(visits) * 10));
    store.migrate("best", Migrations::new().from(1, |best: u16| u64::from(best)));
}

/// Rows of the first version: some in the backend, some in a base's delta, some in later deltas, some of them deleted again.
fn old_rows(backends: &dyn Backends) -> KeyedStore {
    let mut store = KeyedStore::open(all(), backends, Vec::new()).unwrap();
    for key in 0..KEYS {
        let hash = hash_key(&key);
        store.value(OLD).unwrap().set(hash, key, key as u32).unwrap();
        store.reducing(OLD_BEST).unwrap().set(hash, key, 7).unwrap();
        store.list(OLD_LIST).unwrap().append(hash, key, (key % 100) as u8).unwrap();
        store.map(OLD_MAP).unwrap().put(hash, key, 3u8, key as u16).unwrap();
        if key == 300 {
            while store.evict(1000).unwrap() > 0 {}
            store.snapshot(1).unwrap();
        }
    }
    store.snapshot(2).unwrap();
    for key in (0..KEYS).step_by(5) {
        let hash = hash_key(&key);
        store.value(OLD).unwrap().remove(hash, &key).unwrap();
        store.list(OLD_LIST).unwrap().append(hash, key, 200).unwrap();
        store.map(OLD_MAP).unwrap().clear(hash, &key).unwrap();
    }
    store
}

type Rows = (BTreeMap<u64, (u64, String)>, BTreeMap<u64, Vec<String>>, BTreeMap<u64, u64>);

fn expected() -> Rows {
    let mut rows = Rows::default();
    for key in 0..KEYS {
        let mut pages = vec![format!("page {}", key % 100)];
        if key % 5 == 0 {
            pages.push("page 200".into());
        } else {
            rows.0.insert(key, (key, format!("was {key}")));
            rows.2.insert(key, key * 10);
        }
        rows.1.insert(key, pages);
    }
    rows
}

fn new_rows(stores: &mut [KeyedStore]) -> Rows {
    let mut rows = Rows::default();
    for store in stores {
        for key in 0..KEYS {
            let hash = hash_key(&key);
            let group = key_group(hash, GROUPS).0;
            if !(store.range().start..store.range().end).contains(&group) {
                continue;
            }
            if let Some(value) = store.value(NEW).unwrap().get(hash, &key).unwrap() {
                rows.0.insert(key, value.clone());
            }
            rows.1.insert(key, store.list(NEW_LIST).unwrap().get(hash, &key).unwrap().to_vec());
            if let Some(visits) = store.map(NEW_MAP).unwrap().get(hash, &key, &3).unwrap() {
                rows.2.insert(key, *visits);
            }
            assert_eq!(store.reducing(NEW_BEST).unwrap().get(hash, &key).unwrap(), Some(&7));
        }
    }
    rows
}

fn open_new(store: &mut KeyedStore) {
    store.value_table::<u64, _>(NEW).unwrap();
    store.list_table::<u64, _>(NEW_LIST).unwrap();
    store.map_table::<u64, _, _>(NEW_MAP).unwrap();
    store.reducing_table::<u64, _>(NEW_BEST).unwrap();
    store.seal().unwrap();
}

fn rows_migrate_wherever_they_are(backends: &dyn Backends) {
    let mut old = old_rows(backends);
    let part = old.snapshot(3).unwrap().to_restore().unwrap();
    for workers in [1, 3] {
        let open = |worker| {
            let spec = spec(range_of(worker, GROUPS, workers));
            let mut store = KeyedStore::open(spec, backends, vec![part.clone()]).unwrap();
            migrating(&mut store);
            open_new(&mut store);
            store
        };
        let mut stores: Vec<KeyedStore> = (0..workers).map(open).collect();
        assert_eq!(new_rows(&mut stores), expected(), "{workers} workers");
        // From their own snapshots the rows come back without any migration.
        let parts: Vec<RestorePart> =
            stores.iter_mut().map(|store| store.snapshot(4).unwrap().to_restore().unwrap()).collect();
        let mut again = KeyedStore::open(all(), backends, parts).unwrap();
        open_new(&mut again);
        assert_eq!(new_rows(&mut [again]), expected(), "again, after {workers} workers");
    }
}

#[test]
fn rows_of_older_versions_go_through_every_step_wherever_they_are() {
    rows_migrate_wherever_they_are(&MemoryBackends);
}

#[cfg(feature = "rocksdb")]
#[test]
fn rows_of_older_versions_in_rocksdb_go_through_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let budget = MemoryBudget::new(64 << 20);
    let backends = RocksBackends::new(folder.path(), &budget, RocksOptions::for_budget(&budget)).unwrap();
    rows_migrate_wherever_they_are(&backends);
}

/// A backend of more than one batch.
#[test]
fn no_row_is_migrated_twice_or_left_out_between_two_batches() {
    let mut store = KeyedStore::open(all(), &MemoryBackends, Vec::new()).unwrap();
    const TEXTS: Value<String> = Value::new("texts");
    for key in 0..40u64 {
        store.value(TEXTS).unwrap().set(hash_key(&key), key, "x".repeat(100_000)).unwrap();
    }
    while store.evict(1000).unwrap() > 0 {}
    store.force_rebase();
    let part = store.snapshot(1).unwrap().to_restore().unwrap();
    let mut store = KeyedStore::open(all(), &MemoryBackends, vec![part]).unwrap();
    store.migrate("texts", Migrations::new().from(1, |text: String| text + "y"));
    let texts = store.value::<u64, _>(TEXTS.version(2)).unwrap();
    for key in 0..40u64 {
        let text = texts.get(hash_key(&key), &key).unwrap().unwrap();
        assert!(text.len() == 100_001 && text.ends_with("xy"), "{key}: {} bytes", text.len());
    }
}

fn refused(open: impl FnOnce(&mut KeyedStore) -> Result<()>) -> String {
    let mut old = KeyedStore::open(all(), &MemoryBackends, Vec::new()).unwrap();
    old.value(OLD).unwrap().set(hash_key(&1u64), 1u64, 1).unwrap();
    old.value(OTHER).unwrap().set(hash_key(&1u64), 1u64, 1).unwrap();
    let part = old.snapshot(1).unwrap().to_restore().unwrap();
    let mut store = KeyedStore::open(all(), &MemoryBackends, vec![part]).unwrap();
    open(&mut store).unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_an_error_that_names_it() {
    let says = |error: String, parts: &[&str]| {
        parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not in: {error}"));
    };
    let opens = |migrations: Migrations| {
        refused(move |store| {
            store.migrate("clicks", migrations);
            store.value_table::<u64, _>(NEW).map(|_| ())
        })
    };
    let names = ["operator count", "state clicks", "version 1", "version 3"];
    says(opens(Migrations::new()), &[&names[..], &["no migration from version 1 to 2"]].concat());
    let first = Migrations::new().from(1, |clicks: u32| (clicks, String::new()));
    says(opens(first), &[&names[..], &["no migration from version 2 to 3"]].concat());
    says(opens(steps().from(1, |clicks: u32| clicks)), &["two migrations from version 1"]);
    let gap = Migrations::new().from(1, |n: u32| n).from(2, |(n, s): (u64, String)| (n, s));
    says(opens(gap), &["from version 1 gives `u32`", "from version 2 takes `(u64, "]);
    let wrong = Migrations::new().from(1, |n: u32| n).from(2, |n: u32| n);
    says(opens(wrong), &["from version 2 gives `u32`", "version 3 holds `(u64, "]);
    let not_theirs = Migrations::new().from(1, |n: u64| n).from(2, |n: u64| (n, String::new()));
    says(opens(not_theirs), &["operator count, state clicks (u64 -> u32)", "cannot decode a u64"]);
    // Another type of key, and another kind of state.
    let keys = refused(|store| store.value_table::<String, _>(NEW).map(|_| ()));
    says(keys, &["Value of u64 -> u32", "Value of String -> (u64, String)"]);
    let kind = refused(|store| store.list_table::<u64, u32>(List::new("clicks").version(2)).map(|_| ()));
    says(kind, &["it is Value of u64 -> u32", "List of u64 -> u32"]);
    let gone = refused(|store| {
        store.value_table::<u64, _>(OTHER)?;
        store.seal()
    });
    says(gone, &["Value clicks", "drop_state"]);
    let both = refused(|store| {
        store.value_table::<u64, _>(OLD)?;
        store.drop_state("clicks")
    });
    says(both, &["state clicks is to be dropped", "declares it"]);
    let late = refused(|store| {
        store.drop_state("clicks")?;
        store.drop_state("other")?;
        store.seal()?;
        store.value::<u64, _>(OTHER).map(|_| ())
    });
    says(late, &["state other", "was not declared"]);
}

#[test]
fn a_program_of_an_older_version_does_not_open_newer_rows() {
    let mut store = KeyedStore::open(all(), &MemoryBackends, Vec::new()).unwrap();
    store.value_table::<u64, _>(NEW).unwrap();
    let part = store.snapshot(1).unwrap().to_restore().unwrap();
    let mut store = KeyedStore::open(all(), &MemoryBackends, vec![part]).unwrap();
    let error = store.value_table::<u64, _>(OLD).unwrap_err().to_string();
    assert!(error.contains("stored as version 3, and the program has version 1"), "{error}");
    // A state that is opened on first use has no version but the first.
    store.open_on_first_use();
    assert!(matches!(store.value::<u64, _>(NEW), Err(StateError::Undeclared { .. })));
}

#[test]
fn a_dropped_state_leaves_nothing_and_its_neighbours_alone() {
    let mut store = old_rows(&MemoryBackends);
    for key in 0..KEYS {
        store.value(OTHER).unwrap().set(hash_key(&key), key, key).unwrap();
    }
    while store.evict(1000).unwrap() > 0 {}
    let part = store.snapshot(3).unwrap().to_restore().unwrap();
    let mut store = KeyedStore::open(all(), &MemoryBackends, vec![part]).unwrap();
    store.value_table::<u64, _>(OTHER).unwrap();
    for state in ["clicks", "pages", "visits", "best", "never there"] {
        store.drop_state(state).unwrap();
    }
    store.seal().unwrap();
    let part = store.snapshot(4).unwrap().to_restore().unwrap();
    let mut store = KeyedStore::open(all(), &MemoryBackends, vec![part]).unwrap();
    // What comes later under a dropped name begins with nothing, whatever its type.
    let visits = store.map_table::<u64, String, String>(Map::new("visits")).unwrap();
    for key in 0..KEYS {
        let hash = hash_key(&key);
        assert_eq!(store.value(OTHER).unwrap().get(hash, &key).unwrap(), Some(&key));
        assert!(store.value(OLD).unwrap().get(hash, &key).unwrap().is_none());
        assert!(store.list(OLD_LIST).unwrap().get(hash, &key).unwrap().is_empty());
        assert!(store.table(visits).get(hash, &key, &"a".into()).unwrap().is_none());
    }
}
