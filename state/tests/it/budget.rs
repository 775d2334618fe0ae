//! State of ten times the budget works, and what is charged stays within the budget and a constant.

use std::collections::HashMap;
use std::ops::ControlFlow;

use rivermark_state::*;

/// By how much the charges may exceed the budget: a chunk and a few hundred entries for each table.
const SLACK: usize = 256 << 10;

const COUNTS: Value<u64> = Value::new("counts");
const NAMES: Value<String> = Value::new("names");

/// Counts and names over so many keys that they take ten times the budget, with snapshots and a restore on the way.
fn ten_times_the_budget(backends: &dyn Backends, budget: &MemoryBudget, keys: u64) {
    let spec = || StoreSpec { budget: budget.clone(), ..StoreSpec::new("big") };
    let mut store = KeyedStore::open(spec(), backends, Vec::new()).unwrap();
    let mut counts: HashMap<u64, u64> = HashMap::new();
    let mut part = None;
    for i in 0..4 * keys {
        let key = hash_key(&i) % keys;
        let hash = hash_key(&key);
        *store.value(COUNTS).unwrap().upsert(hash, key, || 0).unwrap() += 1;
        let name = store.value(NAMES).unwrap().upsert(hash, key, || "name".repeat(5)).unwrap();
        name.truncate(20);
        *counts.entry(key).or_default() += 1;
        if i % 97 == 0 {
            store.maintain().unwrap();
            assert!(budget.used() <= budget.limit() + SLACK, "{budget:?} at record {i}");
        }
        if i % keys == keys / 2 {
            let snapshot = store.snapshot(i).unwrap();
            part = Some((snapshot.to_restore().unwrap(), counts.clone(), snapshot));
        }
    }
    check(&mut store, &counts);
    let (part, counts, _snapshot) = part.unwrap();
    drop(store);
    let mut store = KeyedStore::open(spec(), backends, vec![part]).unwrap();
    check(&mut store, &counts);
    assert!(budget.used() <= budget.limit() + SLACK, "{budget:?} after the restore");
}

fn check(store: &mut KeyedStore, counts: &HashMap<u64, u64>) {
    for (key, count) in counts {
        let hash = hash_key(key);
        assert_eq!(store.value(COUNTS).unwrap().get(hash, key).unwrap(), Some(count));
        assert_eq!(store.value(NAMES).unwrap().get(hash, key).unwrap(), Some(&"name".repeat(5)));
    }
}

#[test]
fn state_of_ten_times_the_budget_stays_within_it() {
    // An entry of both tables takes about 150 bytes in memory.
    ten_times_the_budget(&MemoryBackends, &MemoryBudget::new(1 << 20), 70_000);
}

#[cfg(feature = "rocksdb")]
#[test]
fn state_of_ten_times_the_budget_stays_within_it_over_rocksdb() {
    let folder = tempfile::tempdir().unwrap();
    let options = RocksOptions { cache: 8 << 20, write_buffers: 4 << 20, background_jobs: 2 };
    let budget = MemoryBudget::new((8 << 20) + (1 << 20));
    let backends = RocksBackends::new(folder.path(), &budget, options).unwrap();
    ten_times_the_budget(&backends, &budget, 70_000);
}

const ITEMS: List<String> = List::new("items");
const ENTRIES: Map<u64, String> = Map::new("entries");

/// One key, whose list and map each take ten times the budget; nobody calls `maintain`, as within a batch.
fn one_key_of_ten_times_the_budget(backends: &dyn Backends, budget: &MemoryBudget, count: u64) {
    let spec = || StoreSpec { budget: budget.clone(), ..StoreSpec::new("big") };
    let within = |at: u64| assert!(budget.used() <= budget.limit() + SLACK, "{budget:?} at {at}");
    let mut store = KeyedStore::open(spec(), backends, Vec::new()).unwrap();
    let (key, hash) = (7_u8, hash_key(&7_u8));
    let text = |n: u64| format!("number {n:>20}");
    for n in 0..count {
        store.list(ITEMS).unwrap().append(hash, key, text(n)).unwrap();
        store.map(ENTRIES).unwrap().put(hash, key, n, text(n)).unwrap();
        within(n);
        // Look back at what is no longer in memory.
        let back = hash_key(&n) % (n + 1);
        let entry = store.map(ENTRIES).unwrap().upsert(hash, key, back, || panic!("{back} is gone")).unwrap();
        assert_eq!(*entry, text(back));
        within(n);
        if n == count / 10 {
            // What comes after it is in a delta, and a restart has to find room for it.
            store.snapshot(1).unwrap();
        }
    }
    let snapshot = store.snapshot(2).unwrap();
    let deltas = snapshot.files.iter().filter(|file| file.role == FileRole::Delta).map(|file| &file.source);
    let bytes = deltas.map(|source| if let SnapshotSource::Bytes(bytes) = source { bytes.len() } else { 0 });
    assert!(bytes.sum::<usize>() > 3 << 20, "they are small");
    drop(store);
    let mut store = KeyedStore::open(spec(), backends, vec![snapshot.to_restore().unwrap()]).unwrap();
    store.list::<u8, String>(ITEMS).unwrap();
    within(count);
    store.map::<u8, u64, String>(ENTRIES).unwrap();
    within(count);
    let mut next = 0;
    let visit = |item: &String| {
        assert_eq!(*item, text(next));
        next += 1;
        within(next);
        ControlFlow::Continue(())
    };
    store.list(ITEMS).unwrap().try_for_each(hash, &key, visit).unwrap();
    assert_eq!(next, count);
    let mut last = None;
    let mut sum = 0;
    let visit = |n: &u64, value: &String| {
        assert_eq!(*value, text(*n));
        assert!(last.replace(n.to_le_bytes()) < Some(n.to_le_bytes()), "in the order of encoded keys");
        sum += n + 1;
        within(*n);
        ControlFlow::Continue(())
    };
    store.map(ENTRIES).unwrap().try_for_each(hash, &key, visit).unwrap();
    assert_eq!(sum, count * (count + 1) / 2);
}

#[test]
fn a_list_and_a_map_of_one_key_may_be_ten_times_the_budget() {
    // An element takes 67 bytes in the list, and an entry about 130 in the map.
    one_key_of_ten_times_the_budget(&MemoryBackends, &MemoryBudget::new(1 << 20), 100_000);
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_list_and_a_map_of_one_key_may_be_ten_times_the_budget_over_rocksdb() {
    let folder = tempfile::tempdir().unwrap();
    let options = RocksOptions { cache: 8 << 20, write_buffers: 4 << 20, background_jobs: 2 };
    let budget = MemoryBudget::new((8 << 20) + (1 << 20));
    let backends = RocksBackends::new(folder.path(), &budget, options).unwrap();
    one_key_of_ten_times_the_budget(&backends, &budget, 100_000);
}

#[test]
fn a_dropped_store_gives_its_memory_back() {
    let budget = MemoryBudget::new(64 << 20);
    let spec = StoreSpec { budget: budget.clone(), ..StoreSpec::new("brief") };
    let mut store = KeyedStore::open(spec, &MemoryBackends, Vec::new()).unwrap();
    for key in 0..10_000u64 {
        store.value(NAMES).unwrap().set(hash_key(&key), key, key.to_string()).unwrap();
    }
    assert!(budget.used() > 10_000 * 32);
    drop(store);
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_idle_store_gives_way_to_a_growing_one() {
    let budget = MemoryBudget::new(4 << 20);
    let open = |operator: &str| {
        let spec = StoreSpec { budget: budget.clone(), ..StoreSpec::new(operator) };
        KeyedStore::open(spec, &MemoryBackends, Vec::new()).unwrap()
    };
    let fill = |store: &mut KeyedStore, from: u64| {
        for key in from..from + 1_000 {
            store.value(COUNTS).unwrap().set(hash_key(&key), key, key).unwrap();
        }
    };
    let (mut idle, mut growing) = (open("idle"), open("growing"));
    for round in 0..200 {
        fill(&mut idle, round * 1_000);
    }
    let before = idle.memory();
    for round in 0..400 {
        fill(&mut growing, round * 1_000);
        growing.maintain().unwrap();
        idle.maintain().unwrap();
    }
    assert!(budget.used() <= budget.limit() + SLACK, "{budget:?}");
    assert!(growing.memory() > 0 && idle.memory() <= before, "{} {}", growing.memory(), idle.memory());
}
