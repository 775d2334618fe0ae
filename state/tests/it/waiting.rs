//! What waits comes out in order of time, whatever is snapshotted, restored, moved to disk or rescaled in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rivermark_state::*;
use serde::{Deserialize, Serialize};

use crate::stores::Stores;

const GROUPS: u16 = 16;

/// Those whose number is divisible by five come before the others of their time.
#[allow(clippy::ptr_arg, reason = "the table wants a function of its values")]
fn is_first(value: &String) -> bool {
    value.parse::<u64>().unwrap() % 5 == 0
}

/// Time, whether it is one of those behind the first, rank; then keys, each with its values in the order of their coming.
type Model = BTreeMap<(i64, bool, u64), BTreeMap<u64, Vec<(i64, String)>>>;

#[derive(Clone, Debug)]
enum Step {
    Push {
        key: u64,
        time: i64,
        rank: u64,
    },
    /// Takes out what waits for times up to this.
    Take(i64),
    Evict(usize),
    Snapshot {
        stored: bool,
    },
    Rebase,
    Restore {
        workers: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let time = || prop_oneof![8 => 0..300i64, 1 => -3000..3000i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let rank = prop_oneof![3 => 0..40u64, 1 => Just(u64::MAX)];
    let push = (0..12u64, time(), rank).prop_map(|(key, time, rank)| Step::Push { key, time, rank });
    prop_oneof![
        30 => push,
        4 => (-10..320i64).prop_map(Step::Take),
        1 => time().prop_map(Step::Take),
        3 => (1..50usize).prop_map(Step::Evict),
        2 => any::<bool>().prop_map(|stored| Step::Snapshot { stored }),
        1 => Just(Step::Rebase),
        1 => (0..4u16).prop_map(|workers| Step::Restore { workers }),
    ]
}

struct Harness<'a> {
    stores: Stores<'a>,
    model: Model,
    at_snapshot: Model,
    next: u64,
}

fn table(store: &mut KeyedStore) -> &mut WaitingTable<u64, String> {
    let id = store.waiting_table("waiting", is_first).unwrap();
    store.table(id)
}

impl Harness<'_> {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Push { key, time, rank } => {
                let (value, mark) = (self.next.to_string(), time.saturating_sub(7));
                self.next += 1;
                let place = (time, !is_first(&value), rank);
                self.model.entry(place).or_default().entry(key).or_default().push((mark, value.clone()));
                let (store, hash) = self.stores.owner(&key);
                table(store).push(Waiter { time, mark, rank, hash, key, value }).unwrap();
            }
            Step::Take(until) => self.take(until),
            Step::Evict(count) => self.stores.iter_mut().for_each(|store| {
                store.evict(count).unwrap();
            }),
            Step::Snapshot { stored } => {
                self.stores.snapshot(stored);
                self.at_snapshot = self.model.clone();
            }
            Step::Rebase => self.stores.iter_mut().for_each(KeyedStore::force_rebase),
            Step::Restore { workers } => {
                self.stores.restore(workers);
                self.model = self.at_snapshot.clone();
            }
        }
    }

    /// Each store gives what it has in order; together they give all there is, and each key's in the order of its coming.
    fn take(&mut self, until: i64) {
        let behind = self.model.split_off(&(until, true, u64::MAX));
        let mut expected = std::mem::replace(&mut self.model, behind);
        if let Some(last) = self.model.remove(&(until, true, u64::MAX)) {
            expected.insert((until, true, u64::MAX), last);
        }
        let mut got = Model::new();
        for store in self.stores.iter_mut() {
            let mut before = None;
            while let Some(time) = table(store).next_time(until).unwrap() {
                table(store).take(time, |waiter| {
                    assert_eq!((waiter.time, waiter.hash), (time, hash_key(&waiter.key)));
                    let place = (time, !is_first(&waiter.value), waiter.rank);
                    assert!(before <= Some(place), "{before:?} before {place:?}");
                    before = Some(place);
                    let key = got.entry(place).or_default().entry(waiter.key).or_default();
                    key.push((waiter.mark, waiter.value));
                });
            }
        }
        assert_eq!(got, expected);
    }
}

fn run(backends: &dyn Backends, steps: &[Step], budget: usize) {
    let stores = Stores::new(backends, budget, GROUPS);
    let mut harness = Harness { stores, model: Model::new(), at_snapshot: Model::new(), next: 0 };
    steps.iter().for_each(|step| harness.apply(step));
    harness.take(i64::MAX);
    assert!(harness.stores.iter_mut().all(|store| table(store).resident() == 0));
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn over_memory_what_waits_comes_out_in_order(steps in steps(250), budget in prop_oneof![Just(usize::MAX), Just(0)]) {
        run(&MemoryBackends, &steps, budget);
    }
}

/// A key of which all have one hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lump(u8);

impl std::hash::Hash for Lump {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

#[test]
fn keys_of_one_hash_keep_what_is_theirs_through_a_snapshot() {
    let open = |parts| KeyedStore::open(StoreSpec::new("op"), &MemoryBackends, parts).unwrap();
    let mut store = open(Vec::new());
    let id = store.waiting_table::<Lump, u64>("waiting", |_| false).unwrap();
    for n in 0..30 {
        let (key, hash) = (Lump(n as u8 % 3), hash_key(&Lump(0)));
        let waiter = Waiter { time: 5, mark: 0, rank: n, hash, key, value: n };
        store.table(id).push(waiter).unwrap();
    }
    let part = store.snapshot(1).unwrap().to_restore().unwrap();
    let mut store = open(vec![part]);
    let id = store.waiting_table::<Lump, u64>("waiting", |_| false).unwrap();
    assert_eq!(store.table(id).next_time(i64::MAX).unwrap(), Some(5));
    let mut got = Vec::new();
    store.table(id).take(5, |waiter| got.push((waiter.key.0, waiter.value)));
    let expected: Vec<_> = (0..30).map(|n| (n as u8 % 3, n)).collect();
    assert_eq!(got, expected);
}

/// Rows are those of a window table of vectors: state of either is the other's.
#[test]
fn rows_are_those_of_a_window_table() {
    let open = |parts| KeyedStore::open(StoreSpec::new("op"), &MemoryBackends, parts).unwrap();
    let mut store = open(Vec::new());
    let id = store.window_table::<i64, u64, Vec<(i64, u64, String)>>("waiting").unwrap();
    let hash = hash_key(&8_u64);
    let row = vec![(-3, 7, "15".to_owned()), (-2, 6, "16".to_owned())];
    *store.table(id).upsert(5, hash, 8_u64, Vec::new).unwrap() = row.clone();
    let part = store.snapshot(1).unwrap().to_restore().unwrap();

    let mut store = open(vec![part]);
    assert_eq!(table(&mut store).next_time(4).unwrap(), None);
    assert_eq!(table(&mut store).next_time(5).unwrap(), Some(5));
    let waiter = Waiter { time: 5, mark: -1, rank: 9, hash, key: 8, value: "17".to_owned() };
    table(&mut store).push(waiter).unwrap();
    store.force_rebase();
    let part = store.snapshot(2).unwrap().to_restore().unwrap();

    let mut store = open(vec![part]);
    let id = store.window_table::<i64, u64, Vec<(i64, u64, String)>>("waiting").unwrap();
    let mut now = store.table(id).get(5, hash, &8).unwrap().unwrap().clone();
    now.sort();
    assert_eq!(now, [row, vec![(-1, 9, "17".to_owned())]].concat());
}

#[test]
fn what_waits_beyond_the_budget_is_moved_to_disk_and_comes_back_in_order() {
    let budget = MemoryBudget::new(1 << 20);
    let spec = StoreSpec { budget: budget.clone(), ..StoreSpec::new("op") };
    let mut store = KeyedStore::open(spec, &MemoryBackends, Vec::new()).unwrap();
    let count = 100_000_i64;
    for n in 0..count {
        // In no order, over a hundred thousand moments.
        let (time, key) = ((n * 7_919) % count, n as u64 % 1000);
        let waiter =
            Waiter { time, mark: 0, rank: n as u64, hash: hash_key(&key), key, value: n.to_string() };
        table(&mut store).push(waiter).unwrap();
        assert!(budget.used() <= budget.limit() + (128 << 10), "{budget:?} at {n}");
    }
    let mut times = 0;
    while let Some(time) = table(&mut store).next_time(i64::MAX).unwrap() {
        assert_eq!(time, times);
        table(&mut store).take(time, |_| times += 1);
        assert!(budget.used() <= budget.limit() + (128 << 10), "{budget:?} at {time}");
    }
    assert_eq!(times, count);
}

#[cfg(feature = "rocksdb")]
mod over_rocksdb {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn over_rocksdb_what_waits_comes_out_in_order(steps in steps(200), budget in prop_oneof![Just(usize::MAX), Just(0)]) {
            let folder = tempfile::tempdir().unwrap();
            let options = RocksOptions { cache: 8 << 20, write_buffers: 4 << 20, background_jobs: 2 };
            let backends = RocksBackends::new(folder.path(), &MemoryBudget::unlimited(), options).unwrap();
            run(&backends, &steps, budget);
        }
    }
}
