//! A store is a set of plain maps, whatever is snapshotted, restored, evicted, rebased or rescaled in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use proptest::prelude::*;
use rivermark_state::*;

use crate::stores::Stores;

const VALUES: Value<u64> = Value::new("values");
const TEXTS: Value<String> = Value::new("texts");
const LISTS: List<String> = List::new("lists");
const MAPS: Map<u8, u32> = Map::new("maps");
const GROUPS: u16 = 16;

/// What the store should hold.
#[derive(Clone, Default, Debug, PartialEq)]
struct Model {
    values: BTreeMap<u64, u64>,
    texts: BTreeMap<String, String>,
    lists: BTreeMap<u64, Vec<String>>,
    maps: BTreeMap<(u64, u8), u32>,
    windows: BTreeMap<(i64, u64), u64>,
    sessions: BTreeMap<((i64, i64), u64), String>,
    timers: BTreeSet<(i64, u64)>,
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64, u64),
    Set(u64, u64),
    Remove(u64),
    Get(u64),
    SetText(u64, usize),
    RemoveText(u64),
    Append(u64, usize),
    ReadList(u64),
    ClearList(u64),
    Put(u64, u8, u32),
    Bump(u64, u8),
    RemoveEntry(u64, u8),
    ClearMap(u64),
    ReadMap(u64),
    Window(i64, u64),
    WindowGet(i64, u64),
    WindowRange(i64, i64),
    Drain(i64),
    DrainSome(i64, usize, usize),
    ReadGroups(i64, u16, u16),
    DropWindow(i64),
    Session(i64, i64, u64),
    DrainSession(i64, i64),
    Register(i64, u64),
    Delete(i64, u64),
    Advance(i64),
    PopSome(i64, usize),
    NextTime,
    Evict(usize),
    Snapshot {
        stored: bool,
    },
    Rebase,
    Restore {
        workers: u16,
    },
    /// A call that changes state and is taken back.
    Undone(Vec<Step>),
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![40 => simple_step(), 4 => undone()]
}

/// What a function may do in one call, and what may happen to its store meanwhile.
fn undone() -> impl Strategy<Value = Step> {
    let in_a_call = |step: &Step| {
        use Step::*;
        matches!(
            step,
            Add(..)
                | Set(..)
                | Remove(_)
                | Get(_)
                | SetText(..)
                | RemoveText(_)
                | Append(..)
                | ReadList(_)
                | ClearList(_)
                | Put(..)
                | Bump(..)
                | RemoveEntry(..)
                | ClearMap(_)
                | ReadMap(_)
                | Register(..)
                | Delete(..)
                | Evict(_)
        )
    };
    prop::collection::vec(simple_step().prop_filter("not of a call", in_a_call), 1..9).prop_map(Step::Undone)
}

fn simple_step() -> impl Strategy<Value = Step> {
    let key = || 0..24u64;
    let ns = || -2..4i64;
    let time = || prop_oneof![-3000..12_000i64, 0..8i64];
    prop_oneof![
        6 => (key(), 1..9u64).prop_map(|(k, v)| Step::Add(k, v)),
        2 => (key(), 1..9u64).prop_map(|(k, v)| Step::Set(k, v)),
        2 => key().prop_map(Step::Remove),
        2 => key().prop_map(Step::Get),
        3 => (key(), 0..40usize).prop_map(|(k, n)| Step::SetText(k, n)),
        1 => key().prop_map(Step::RemoveText),
        4 => (key(), 0..9usize).prop_map(|(k, n)| Step::Append(k, n)),
        2 => key().prop_map(Step::ReadList),
        1 => key().prop_map(Step::ClearList),
        4 => (key(), 0..6u8, any::<u32>()).prop_map(|(k, m, v)| Step::Put(k, m, v)),
        2 => (key(), 0..6u8).prop_map(|(k, m)| Step::Bump(k, m)),
        2 => (key(), 0..6u8).prop_map(|(k, m)| Step::RemoveEntry(k, m)),
        1 => key().prop_map(Step::ClearMap),
        1 => key().prop_map(Step::ReadMap),
        6 => (ns(), key()).prop_map(|(n, k)| Step::Window(n, k)),
        1 => (ns(), key()).prop_map(|(n, k)| Step::WindowGet(n, k)),
        1 => (ns(), ns()).prop_map(|(a, b)| Step::WindowRange(a, b)),
        1 => ns().prop_map(Step::Drain),
        2 => (ns(), 1..6usize, 0..4usize).prop_map(|(n, most, evict)| Step::DrainSome(n, most, evict)),
        1 => (ns(), 0..GROUPS, 0..=GROUPS).prop_map(|(n, from, to)| Step::ReadGroups(n, from, to)),
        1 => ns().prop_map(Step::DropWindow),
        2 => (ns(), ns(), key()).prop_map(|(a, b, k)| Step::Session(a, b, k)),
        1 => (ns(), ns()).prop_map(|(a, b)| Step::DrainSession(a, b)),
        6 => (time(), key()).prop_map(|(t, k)| Step::Register(t, k)),
        2 => (time(), key()).prop_map(|(t, k)| Step::Delete(t, k)),
        2 => time().prop_map(Step::Advance),
        1 => (time(), 1..4usize).prop_map(|(t, n)| Step::PopSome(t, n)),
        1 => Just(Step::NextTime),
        4 => (1..40usize).prop_map(Step::Evict),
        4 => any::<bool>().prop_map(|stored| Step::Snapshot { stored }),
        1 => Just(Step::Rebase),
        2 => prop_oneof![3 => Just(0u16), 1 => 1..4u16].prop_map(|workers| Step::Restore { workers }),
        1 => Just(Step::Check),
    ]
}

/// The stores, and what they should hold.
struct Harness<'a> {
    stores: Stores<'a>,
    at_snapshot: Model,
    model: Model,
}

fn text(n: usize) -> String {
    "x".repeat(n)
}

impl<'a> Harness<'a> {
    fn new(backends: &'a dyn Backends, budget: usize) -> Self {
        let stores = Stores::new(backends, budget, GROUPS);
        Self { stores, at_snapshot: Model::default(), model: Model::default() }
    }

    fn owner<K: Key>(&mut self, key: &K) -> (&mut KeyedStore, u64) {
        self.stores.owner(key)
    }

    fn windows(store: &mut KeyedStore) -> &mut WindowTable<i64, u64, u64> {
        let id = store.window_table("windows").unwrap();
        store.table(id)
    }

    fn sessions(store: &mut KeyedStore) -> &mut WindowTable<(i64, i64), u64, String> {
        let id = store.window_table("sessions").unwrap();
        store.table(id)
    }

    fn timers(store: &mut KeyedStore) -> &mut Timers<u64> {
        let id = store.timers("timers").unwrap();
        store.table(id)
    }

    fn snapshot(&mut self, stored: bool) {
        self.stores.snapshot(stored);
        self.at_snapshot = self.model.clone();
    }

    fn restore(&mut self, workers: u16) {
        self.stores.restore(workers);
        self.model = self.at_snapshot.clone();
    }

    fn pop(&mut self, watermark: i64, limit: usize) {
        let workers = self.stores.len() as u16;
        for (worker, store) in self.stores.iter_mut().enumerate() {
            let timers = Self::timers(store);
            let mut popped = Vec::new();
            while popped.len() < limit {
                let Some((time, hash, key)) = timers.pop(watermark).unwrap() else { break };
                assert_eq!(hash, hash_key(&key));
                popped.push((time, key));
            }
            let mine =
                |key: &u64| worker_of(key_group(hash_key(key), GROUPS), GROUPS, workers) == worker as u16;
            let mut expected: Vec<(i64, u64)> =
                self.model.timers.iter().filter(|(t, k)| *t <= watermark && mine(k)).copied().collect();
            // Keys below 256 compare as their encodings do.
            expected.sort_unstable();
            expected.truncate(limit);
            assert_eq!(popped, expected);
            self.model.timers.retain(|timer| !expected.contains(timer));
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Add(key, by) => {
                let (store, hash) = self.owner(&key);
                *store.value(VALUES).unwrap().upsert(hash, key, || 0).unwrap() += by;
                *self.model.values.entry(key).or_default() += by;
            }
            Step::Set(key, to) => {
                let (store, hash) = self.owner(&key);
                store.value(VALUES).unwrap().set(hash, key, to).unwrap();
                self.model.values.insert(key, to);
            }
            Step::Remove(key) => {
                let (store, hash) = self.owner(&key);
                let removed = store.value::<u64, u64>(VALUES).unwrap().remove(hash, &key).unwrap();
                assert_eq!(removed, self.model.values.remove(&key));
            }
            Step::Get(key) => {
                let (store, hash) = self.owner(&key);
                let got = store.value::<u64, u64>(VALUES).unwrap().get(hash, &key).unwrap().copied();
                assert_eq!(got, self.model.values.get(&key).copied());
            }
            Step::SetText(key, n) => {
                let key = format!("k{key}");
                let (store, hash) = self.owner(&key);
                store.value(TEXTS).unwrap().upsert(hash, &key, String::new).unwrap().push_str(&text(n));
                self.model.texts.entry(key).or_default().push_str(&text(n));
            }
            Step::RemoveText(key) => {
                let key = format!("k{key}");
                let (store, hash) = self.owner(&key);
                let removed = store.value::<String, String>(TEXTS).unwrap().remove(hash, &key).unwrap();
                assert_eq!(removed, self.model.texts.remove(&key));
            }
            Step::Append(key, n) => {
                let (store, hash) = self.owner(&key);
                store.list(LISTS).unwrap().append(hash, key, text(n)).unwrap();
                self.model.lists.entry(key).or_default().push(text(n));
            }
            Step::ReadList(key) => {
                let mut expected = self.model.lists.get(&key).cloned().unwrap_or_default();
                let (store, hash) = self.owner(&key);
                let list = store.list::<u64, String>(LISTS).unwrap();
                if key.is_multiple_of(3) {
                    assert_eq!(list.get(hash, &key).unwrap(), expected);
                } else {
                    let most = if key.is_multiple_of(2) { usize::MAX } else { 3 };
                    let mut got = Vec::new();
                    let visit = |item: &String| {
                        got.push(item.clone());
                        if got.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    };
                    list.try_for_each(hash, &key, visit).unwrap();
                    expected.truncate(most);
                    assert_eq!(got, expected);
                }
            }
            Step::ClearList(key) => {
                let (store, hash) = self.owner(&key);
                if key.is_multiple_of(2) {
                    store.list::<u64, String>(LISTS).unwrap().clear(hash, &key).unwrap();
                    self.model.lists.remove(&key);
                } else {
                    let taken = store.list::<u64, String>(LISTS).unwrap().take(hash, &key).unwrap();
                    assert_eq!(taken, self.model.lists.remove(&key).unwrap_or_default());
                }
            }
            Step::Put(key, inner, value) => {
                let (store, hash) = self.owner(&key);
                store.map(MAPS).unwrap().put(hash, key, inner, value).unwrap();
                self.model.maps.insert((key, inner), value);
            }
            Step::Bump(key, inner) => {
                let (store, hash) = self.owner(&key);
                let value = store.map(MAPS).unwrap().upsert(hash, key, inner, || 7).unwrap();
                *value = value.wrapping_add(1);
                let value = self.model.maps.entry((key, inner)).or_insert(7);
                *value = value.wrapping_add(1);
            }
            Step::RemoveEntry(key, inner) => {
                let (store, hash) = self.owner(&key);
                let removed = store.map::<u64, u8, u32>(MAPS).unwrap().remove(hash, &key, &inner).unwrap();
                assert_eq!(removed, self.model.maps.remove(&(key, inner)));
            }
            Step::ClearMap(key) => {
                let (store, hash) = self.owner(&key);
                store.map::<u64, u8, u32>(MAPS).unwrap().clear(hash, &key).unwrap();
                self.model.maps.retain(|(k, _), _| *k != key);
            }
            Step::ReadMap(key) => {
                let (store, hash) = self.owner(&key);
                let map = store.map::<u64, u8, u32>(MAPS).unwrap();
                let mut got = Vec::new();
                let most = if key.is_multiple_of(2) { usize::MAX } else { 2 };
                if key.is_multiple_of(3) {
                    map.for_each(hash, &key, |k, v| got.push((*k, *v))).unwrap();
                    got.sort_unstable();
                    got.truncate(most);
                } else {
                    let visit = |k: &u8, v: &u32| {
                        got.push((*k, *v));
                        if got.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    };
                    map.try_for_each(hash, &key, visit).unwrap();
                }
                let expected = self.model.maps.range((key, 0)..(key + 1, 0)).map(|((_, k), v)| (*k, *v));
                assert_eq!(got, expected.take(most).collect::<Vec<_>>());
            }
            Step::Window(ns, key) => {
                let (store, hash) = self.owner(&key);
                *Self::windows(store).upsert(ns, hash, key, || 100).unwrap() += 1;
                *self.model.windows.entry((ns, key)).or_insert(100) += 1;
            }
            Step::WindowGet(ns, key) => {
                let (store, hash) = self.owner(&key);
                let got = Self::windows(store).get(ns, hash, &key).unwrap().copied();
                assert_eq!(got, self.model.windows.get(&(ns, key)).copied());
            }
            Step::WindowRange(from, to) => {
                let range = from..to.max(from);
                let mut got = BTreeSet::new();
                for store in self.stores.iter_mut() {
                    let of_store: Vec<i64> = Self::windows(store).namespaces_in(range.clone()).collect();
                    assert!(of_store.is_sorted());
                    got.extend(of_store);
                }
                let all = self.model.windows.keys().map(|(ns, _)| *ns);
                // A slice whose rows were dropped before a restore may still be named.
                assert!(got.is_superset(&all.filter(|ns| range.contains(ns)).collect()));
                assert!(got.iter().all(|ns| range.contains(ns)));
            }
            Step::Drain(ns) => {
                let mut got = BTreeMap::new();
                for store in self.stores.iter_mut() {
                    Self::windows(store).drain(ns, |k, v| assert!(got.insert((ns, k), v).is_none())).unwrap();
                }
                self.drained(ns, &got);
            }
            Step::DrainSome(ns, most, evict) => {
                let mut got = BTreeMap::new();
                for store in self.stores.iter_mut() {
                    loop {
                        let before = got.len();
                        let visit = |k, v| assert!(got.insert((ns, k), v).is_none());
                        let empty = Self::windows(store).drain_some(ns, most, visit).unwrap();
                        assert!(got.len() - before <= most);
                        if empty {
                            break;
                        }
                        // What happens to a store between two steps of its worker.
                        store.evict(evict).unwrap();
                        store.maintain().unwrap();
                    }
                }
                self.drained(ns, &got);
            }
            Step::ReadGroups(ns, from, to) => {
                let groups = KeyGroupRange::new(from, to.max(from));
                let mut got = BTreeMap::new();
                for store in self.stores.iter_mut() {
                    let visit = |k: &u64, v: &u64| assert!(got.insert((ns, *k), *v).is_none());
                    Self::windows(store).for_each_in(ns, groups, visit).unwrap();
                }
                let of_groups = |key: &u64| groups.contains(key_group(hash_key(key), GROUPS));
                let expected = self.model.windows.iter().filter(|((n, key), _)| *n == ns && of_groups(key));
                assert_eq!(got, expected.map(|(k, v)| (*k, *v)).collect());
            }
            Step::DropWindow(ns) => {
                self.stores.iter_mut().for_each(|store| Self::windows(store).drop_namespace(ns).unwrap());
                self.model.windows.retain(|(n, _), _| *n != ns);
            }
            Step::Session(from, to, key) => {
                let (store, hash) = self.owner(&key);
                Self::sessions(store).upsert((from, to), hash, key, String::new).unwrap().push('s');
                self.model.sessions.entry(((from, to), key)).or_default().push('s');
            }
            Step::DrainSession(from, to) => {
                let mut got = BTreeMap::new();
                for store in self.stores.iter_mut() {
                    Self::sessions(store)
                        .drain((from, to), |k, v| assert!(got.insert(k, v).is_none()))
                        .unwrap();
                }
                let sessions = self.model.sessions.iter().filter(|((n, _), _)| *n == (from, to));
                let expected: BTreeMap<_, _> = sessions.map(|((_, k), v)| (*k, v.clone())).collect();
                assert_eq!(got, expected);
                self.model.sessions.retain(|(n, _), _| *n != (from, to));
            }
            Step::Register(time, key) => {
                let (store, hash) = self.owner(&key);
                Self::timers(store).register(time, hash, key).unwrap();
                self.model.timers.insert((time, key));
            }
            Step::Delete(time, key) => {
                // Half of the time one that exists.
                let nearest = self.model.timers.range((time, 0)..).next().copied();
                let (time, key) = nearest.filter(|_| key.is_multiple_of(2)).unwrap_or((time, key));
                let (store, hash) = self.owner(&key);
                Self::timers(store).delete(time, hash, &key).unwrap();
                self.model.timers.remove(&(time, key));
            }
            Step::Advance(watermark) => self.pop(watermark, usize::MAX),
            Step::PopSome(watermark, limit) => self.pop(watermark, limit),
            Step::NextTime => {
                let next = self.stores.iter_mut().filter_map(|store| Self::timers(store).next_time()).min();
                assert_eq!(next, self.model.timers.first().map(|(time, _)| *time));
            }
            Step::Evict(count) => {
                for store in self.stores.iter_mut() {
                    store.evict(count).unwrap();
                    store.maintain().unwrap();
                }
            }
            Step::Snapshot { stored } => self.snapshot(stored),
            Step::Rebase => self.stores.iter_mut().for_each(KeyedStore::force_rebase),
            Step::Restore { workers } => self.restore(workers),
            Step::Undone(ref steps) => {
                for store in self.stores.iter_mut() {
                    store.make_undoable();
                    store.mark();
                }
                let before = self.model.clone();
                steps.iter().for_each(|step| self.apply(step));
                self.stores.iter_mut().for_each(|store| store.undo().unwrap());
                self.model = before;
            }
            Step::Check => self.check(),
        }
    }

    /// Everything was taken out of a slice.
    fn drained(&mut self, ns: i64, got: &BTreeMap<(i64, u64), u64>) {
        let expected: BTreeMap<_, _> =
            self.model.windows.iter().filter(|((n, _), _)| *n == ns).map(|(k, v)| (*k, *v)).collect();
        assert_eq!(*got, expected);
        self.model.windows.retain(|(n, _), _| *n != ns);
    }

    /// Reads everything back.
    fn check(&mut self) {
        let mut got = Model::default();
        for store in self.stores.iter_mut() {
            store
                .value(VALUES)
                .unwrap()
                .for_each(|k, v| assert!(got.values.insert(*k, *v).is_none()))
                .unwrap();
            let texts = store.value::<String, String>(TEXTS).unwrap();
            texts.for_each(|k, v| assert!(got.texts.insert(k.clone(), v.clone()).is_none())).unwrap();
            let windows = Self::windows(store);
            for ns in windows.namespaces().collect::<Vec<_>>() {
                windows.for_each(ns, |k, v| assert!(got.windows.insert((ns, *k), *v).is_none())).unwrap();
            }
            let sessions = Self::sessions(store);
            for ns in sessions.namespaces().collect::<Vec<_>>() {
                sessions
                    .for_each(ns, |k, v| assert!(got.sessions.insert((ns, *k), v.clone()).is_none()))
                    .unwrap();
            }
            Self::timers(store)
                .for_each(|time, key| {
                    got.timers.insert((time, *key));
                })
                .unwrap();
        }
        for key in 0..24u64 {
            let (store, hash) = self.owner(&key);
            let items = store.list::<u64, String>(LISTS).unwrap().get(hash, &key).unwrap().to_vec();
            if !items.is_empty() {
                got.lists.insert(key, items);
            }
            let map = store.map::<u64, u8, u32>(MAPS).unwrap();
            map.for_each(hash, &key, |k, v| assert!(got.maps.insert((key, *k), *v).is_none())).unwrap();
        }
        assert_eq!(got, self.model);
    }
}

fn run(backends: &dyn Backends, steps: &[Step], budget: usize) {
    let mut harness = Harness::new(backends, budget);
    for step in steps {
        harness.apply(step);
    }
    harness.check();
    harness.snapshot(true);
    harness.restore(0);
    harness.check();
    harness.snapshot(true);
    harness.restore(3);
    harness.check();
    harness.pop(i64::MAX, usize::MAX);
    harness.snapshot(true);
    harness.restore(2);
    harness.check();
}

fn steps(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..longest)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_over_memory_is_a_set_of_plain_maps(steps in steps(300), budget in prop_oneof![Just(usize::MAX), Just(0)]) {
        run(&MemoryBackends, &steps, budget);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_over_rocksdb_is_a_set_of_plain_maps(steps in steps(250), budget in prop_oneof![Just(usize::MAX), Just(0)]) {
        let folder = tempfile::tempdir().unwrap();
        let options = RocksOptions { cache: 8 << 20, write_buffers: 4 << 20, background_jobs: 2 };
        let backends = RocksBackends::new(folder.path(), &MemoryBudget::unlimited(), options).unwrap();
        run(&backends, &steps, budget);
    }
}

/// The rows of pairs that are in memory go with those of the pairs before them; evicted then, they must be written again.
#[test]
fn a_slice_that_is_drained_in_parts_loses_nothing_that_is_evicted_in_between() {
    let mut store = KeyedStore::open(StoreSpec::new("it"), &MemoryBackends, Vec::new()).unwrap();
    let windows = store.window_table::<i64, u64, u64>("slices").unwrap();
    for key in 0..60 {
        *store.table(windows).upsert(1, hash_key(&key), key, || 0).unwrap() = key;
    }
    while store.evict(1000).unwrap() > 0 {}
    for key in (0..60).step_by(2) {
        assert_eq!(store.table(windows).get(1, hash_key(&key), &key).unwrap(), Some(&key));
    }
    let mut drained = BTreeMap::new();
    while !store.table(windows).drain_some(1, 3, |key, value| _ = drained.insert(key, value)).unwrap() {
        store.evict(2).unwrap();
    }
    assert_eq!(drained, (0..60).map(|key| (key, key)).collect());
}
