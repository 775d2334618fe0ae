//! What state costs a record, beside the floor: the same loop on one bare hash table.
//!
//! `count/*` count over a million keys in an order drawn once. Everything is in one process and one run, so ratios are meaningful.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "a benchmark")]

use std::collections::BTreeMap;
use std::hash::BuildHasherDefault;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use rivermark_state::*;

const KEYS: u64 = 1 << 20;
const OPS: usize = 1_000_000;
const COUNTS: Value<u64> = Value::new("counts");

/// Keys as a stream brings them: pseudo-random, uniform, the same each time.
fn keys(seed: u64, n: usize) -> Vec<u64> {
    (0..n as u64).map(|i| hash_key(&(i ^ (seed << 40))) % KEYS * 2).collect()
}

fn filled(backends: &dyn Backends, budget: MemoryBudget) -> (KeyedStore, TableId<ValueTable<u64, u64>>) {
    let spec = StoreSpec { budget, ..StoreSpec::new("bench") };
    let mut store = KeyedStore::open(spec, backends, Vec::new()).unwrap();
    let id = store.value_table(COUNTS).unwrap();
    for key in 0..KEYS {
        let key = key * 2;
        store.table(id).set(hash_key(&key), key, 0).unwrap();
    }
    (store, id)
}

fn count(c: &mut Criterion) {
    let keys = keys(1, OPS);
    let mut group = c.benchmark_group("count");
    group.throughput(Throughput::Elements(OPS as u64)).sample_size(20);
    group.bench_function("speed_of_light", |b| {
        let mut map: HashMap<u64, u64, BuildHasherDefault<StableHasher>> =
            (0..KEYS).map(|key| (key * 2, 0)).collect();
        b.iter(|| keys.iter().for_each(|&key| *map.entry(key).or_insert(0) += 1));
        black_box(map.len());
    });
    group.bench_function("keyed_store", |b| {
        let (mut store, id) = filled(&MemoryBackends, MemoryBudget::unlimited());
        store.snapshot(1).unwrap();
        b.iter(|| add_all(store.table(id), &keys));
    });
    group.bench_function("warmed_by_64", |b| {
        let (mut store, id) = filled(&MemoryBackends, MemoryBudget::unlimited());
        store.snapshot(1).unwrap();
        b.iter(|| add_all_warmed(&mut store, id, &keys));
    });
    group.bench_function("resolved_by_handle", |b| {
        let (mut store, _) = filled(&MemoryBackends, MemoryBudget::unlimited());
        b.iter(|| {
            for &key in &keys {
                *store.value(COUNTS).unwrap().upsert(hash_key(&key), key, || 0).unwrap() += 1;
            }
        });
    });
    group.bench_function("snapshot_every_million", |b| {
        let (mut store, id) = filled(&MemoryBackends, MemoryBudget::unlimited());
        let mut epoch = 0;
        b.iter(|| {
            add_all(store.table(id), &keys);
            epoch += 1;
            drop(black_box(store.snapshot(epoch).unwrap()));
            store.stored(epoch);
        });
    });
    group.finish();
}

fn add_all(table: &mut ValueTable<u64, u64>, keys: &[u64]) {
    for &key in keys {
        *table.upsert(hash_key(&key), key, || 0).unwrap() += 1;
    }
}

fn add_all_warmed(store: &mut KeyedStore, id: TableId<ValueTable<u64, u64>>, keys: &[u64]) {
    let mut hashes = [0; WARM_CHUNK];
    for batch in keys.chunks(WARM_CHUNK) {
        hashes.iter_mut().zip(batch).for_each(|(hash, key)| *hash = hash_key(key));
        store.warm(&hashes[..batch.len()]);
        let table = store.table(id);
        for (&hash, &key) in hashes.iter().zip(batch) {
            *table.upsert(hash, key, || 0).unwrap() += 1;
        }
    }
}

fn windows(c: &mut Criterion) {
    let keys = keys(2, 100_000);
    let mut group = c.benchmark_group("window");
    group.throughput(Throughput::Elements(keys.len() as u64)).sample_size(20);
    let open = || {
        let mut store = KeyedStore::open(StoreSpec::new("bench"), &MemoryBackends, Vec::new()).unwrap();
        let id = store.window_table::<i64, u64, u64>("w").unwrap();
        (store, id)
    };
    group.bench_function("fill_and_drain_a_slice", |b| {
        let (mut store, id) = open();
        let mut slice = 0;
        b.iter(|| {
            let table = store.table(id);
            slice += 1;
            for &key in &keys {
                *table.upsert(slice, hash_key(&key), key, || 0).unwrap() += 1;
            }
            let mut sum = 0;
            table.drain(slice, |_, n| sum += n).unwrap();
            assert_eq!(sum, keys.len() as u64);
        });
    });
    group.bench_function("drain_a_slice", |b| {
        let fill = || {
            let (mut store, id) = open();
            for &key in &keys {
                *store.table(id).upsert(0, hash_key(&key), key, || 0).unwrap() += 1;
            }
            (store, id)
        };
        let drain = |(mut store, id): (KeyedStore, TableId<WindowTable<i64, u64, u64>>)| {
            let mut sum = 0;
            store.table(id).drain(0, |_, n| sum += n).unwrap();
            (sum, store)
        };
        b.iter_batched(fill, drain, BatchSize::LargeInput);
    });
    group.finish();
}

fn timers(c: &mut Criterion) {
    let keys = keys(3, 200_000);
    let mut group = c.benchmark_group("timers");
    group.throughput(Throughput::Elements(keys.len() as u64)).sample_size(20);
    group.bench_function("speed_of_light_btreemap", |b| {
        b.iter(|| {
            let mut set = BTreeMap::new();
            for (i, &key) in keys.iter().enumerate() {
                set.insert(((i / 10) as i64 + (key % 60_000) as i64, key), ());
            }
            while let Some(first) = set.pop_first() {
                black_box(first);
            }
        });
    });
    group.bench_function("register_and_pop", |b| {
        let mut store = KeyedStore::open(StoreSpec::new("bench"), &MemoryBackends, Vec::new()).unwrap();
        let id = store.timers::<u64>("t").unwrap();
        b.iter(|| {
            let timers = store.table(id);
            for (i, &key) in keys.iter().enumerate() {
                timers.register((i / 10) as i64 + (key % 60_000) as i64, hash_key(&key), key).unwrap();
            }
            while let Some(fired) = timers.pop(i64::MAX).unwrap() {
                black_box(fired);
            }
        });
    });
    group.finish();
}

#[cfg(feature = "rocksdb")]
mod cold {
    use super::*;

    pub fn rocks(budget: &MemoryBudget) -> (tempfile::TempDir, RocksBackends) {
        let folder = tempfile::tempdir().unwrap();
        let backends = RocksBackends::new(folder.path(), budget, RocksOptions::for_budget(budget)).unwrap();
        (folder, backends)
    }

    /// State of ten times the budget, uniform access: nearly every record reads and writes RocksDB.
    pub fn spill(c: &mut Criterion) {
        let keys = keys(4, 4_000_000);
        let mut rounds = keys.chunks(20_000).cycle();
        let mut group = c.benchmark_group("spill");
        group.throughput(Throughput::Elements(20_000)).sample_size(10);
        group.bench_function("ten_times_the_budget", |b| {
            // A million entries take about 50 MB in memory.
            let budget = MemoryBudget::new((8 << 20) + (5 << 20));
            let (_folder, backends) = rocks(&budget);
            let (mut store, id) = filled(&backends, budget.clone());
            b.iter(|| add_all(store.table(id), rounds.next().unwrap()));
            assert!(budget.used() < budget.limit() + (1 << 20), "{budget:?}");
        });
        group.finish();
    }

    /// A snapshot of a gigabyte of values of 100 bytes, opened and read once.
    pub fn restore(c: &mut Criterion) {
        const TEXTS: Value<[u64; 16]> = Value::new("wide");
        let budget = MemoryBudget::new(3 << 30);
        let (_folder, backends) = rocks(&budget);
        let spec = || StoreSpec { budget: budget.clone(), ..StoreSpec::new("bench") };
        let part = std::cell::LazyCell::new(|| {
            let mut store = KeyedStore::open(spec(), &backends, Vec::new()).unwrap();
            for key in 0..7_000_000u64 {
                store.value(TEXTS).unwrap().set(hash_key(&key), key, [hash_key(&key); 16]).unwrap();
            }
            let start = std::time::Instant::now();
            let snapshot = store.snapshot(1).unwrap();
            let bytes = snapshot.delta_bytes + store.cold_bytes();
            eprintln!("the snapshot took {:?} for {bytes} bytes", start.elapsed());
            (snapshot.to_restore().unwrap(), snapshot)
        });
        let mut group = c.benchmark_group("restore");
        group.sample_size(10);
        group.bench_function("a_gigabyte", |b| {
            b.iter(|| {
                let mut store = KeyedStore::open(spec(), &backends, vec![part.0.clone()]).unwrap();
                let key = 4_711u64;
                let wide = store.value(TEXTS).unwrap().get(hash_key(&key), &key).unwrap().unwrap()[3];
                assert_eq!(wide, hash_key(&key));
                store
            });
        });
        group.finish();
    }
}

#[cfg(not(feature = "rocksdb"))]
criterion_group!(benches, count, windows, timers);
#[cfg(feature = "rocksdb")]
criterion_group!(benches, count, windows, timers, cold::spill, cold::restore);
criterion_main!(benches);
