//! State with a time to live is a set of plain maps from which nothing is ever removed, read through its deadlines: whatever is cleaned up,
//! snapshotted, restored, evicted or rescaled in between.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use proptest::prelude::*;
use rivermark_state::*;

use crate::stores::Stores;

const GROUPS: u16 = 16;
const TTL: i64 = 10;
const WRITTEN: Ttl = Ttl::after_write(Duration::from_millis(TTL as u64));
const USED: Ttl = Ttl::after_access(Duration::from_millis(TTL as u64));

const COUNTS: Expiring<Value<u64>> = Value::new("counts").expiring(WRITTEN);
const TEXTS: Expiring<Value<String>> = Value::new("texts").expiring(USED);
const SUMS: Expiring<Reducing<u64>> = Reducing::new("sums").expiring(WRITTEN);
const RECENT: Expiring<List<String>> = List::new("recent").expiring(WRITTEN);
const RECALLED: Expiring<List<u64>> = List::new("recalled").expiring(USED);
const PRICES: Expiring<Map<u8, u32>> = Map::new("prices").expiring(WRITTEN);
const CACHED: Expiring<Map<String, String>> = Map::new("cached").expiring(USED);

/// A value and its deadline.
type Entry<V> = (i64, V);

/// What was written, with the deadline it has come to have.
#[derive(Clone, Default, Debug)]
struct Model {
    counts: BTreeMap<u64, Entry<u64>>,
    texts: BTreeMap<u64, Entry<String>>,
    sums: BTreeMap<u64, Entry<u64>>,
    recent: BTreeMap<u64, Vec<Entry<String>>>,
    recalled: BTreeMap<u64, Vec<Entry<u64>>>,
    prices: BTreeMap<(u64, u8), Entry<u32>>,
    cached: BTreeMap<(u64, String), Entry<String>>,
    horizon: i64,
}

/// The value of an entry that is there at `at`, renewed if asked for.
fn live<V>(entry: Option<&mut Entry<V>>, at: i64, renews: bool) -> Option<&mut V> {
    let (deadline, value) = entry.filter(|entry| at < entry.0)?;
    if renews {
        *deadline = (*deadline).max(at + TTL);
    }
    Some(value)
}

#[derive(Clone, Debug)]
enum Step {
    Count(u64, u64),
    SetCount(u64, u64),
    GetCount(u64),
    RemoveCount(u64),
    SetText(u64, usize),
    ChangeText(u64),
    GetText(u64),
    Sum(u64, u64),
    GetSum(u64),
    Remember(u64, usize),
    Recent(u64),
    ForgetRecent(u64),
    Note(u64, u64),
    Recalled(u64),
    Price(u64, u8, u32),
    GetPrice(u64, u8),
    Prices(u64),
    RemovePrice(u64, u8),
    Cache(u64, u8, usize),
    GetCached(u64, u8),
    Cached(u64),
    /// The first so many elements or entries.
    FirstRecent(u64, usize),
    FirstRecalled(u64, usize),
    FirstPrices(u64, usize),
    FirstCached(u64, usize),
    /// A call that changes state and is taken back.
    Undone(Vec<(Step, i64)>),
    Advance(i64),
    Maintain,
    Evict(usize),
    Snapshot {
        stored: bool,
    },
    Rebase,
    Restore {
        workers: u16,
    },
}

/// A step at a time so much after the horizon.
fn step() -> impl Strategy<Value = (Step, i64)> {
    prop_oneof![40 => simple_step(), 4 => undone()]
}

/// What a function may do in one call, at its one time, and what may happen to its store meanwhile.
fn undone() -> impl Strategy<Value = (Step, i64)> {
    use Step::*;
    let in_a_call = |(step, _): &(Step, i64)| {
        !matches!(step, Advance(_) | Maintain | Snapshot { .. } | Rebase | Restore { .. } | Undone(_))
    };
    let step = simple_step().prop_filter("not of a call", in_a_call);
    (prop::collection::vec(step, 1..12), 0..12i64).prop_map(|(mut steps, after)| {
        steps.iter_mut().for_each(|(_, at)| *at = after);
        (Undone(steps), after)
    })
}

fn simple_step() -> impl Strategy<Value = (Step, i64)> {
    let key = || 0..12u64;
    let step = prop_oneof![
        3 => (key(), 1..9u64).prop_map(|(k, v)| Step::Count(k, v)),
        1 => (key(), 1..9u64).prop_map(|(k, v)| Step::SetCount(k, v)),
        3 => key().prop_map(Step::GetCount),
        1 => key().prop_map(Step::RemoveCount),
        2 => (key(), 0..20usize).prop_map(|(k, n)| Step::SetText(k, n)),
        1 => key().prop_map(Step::ChangeText),
        3 => key().prop_map(Step::GetText),
        2 => (key(), 1..9u64).prop_map(|(k, v)| Step::Sum(k, v)),
        2 => key().prop_map(Step::GetSum),
        5 => (key(), 0..20usize).prop_map(|(k, n)| Step::Remember(k, n)),
        3 => key().prop_map(Step::Recent),
        1 => key().prop_map(Step::ForgetRecent),
        5 => (key(), 0..99u64).prop_map(|(k, n)| Step::Note(k, n)),
        3 => key().prop_map(Step::Recalled),
        4 => (key(), 0..5u8, any::<u32>()).prop_map(|(k, m, v)| Step::Price(k, m, v)),
        3 => (key(), 0..5u8).prop_map(|(k, m)| Step::GetPrice(k, m)),
        2 => key().prop_map(Step::Prices),
        1 => (key(), 0..5u8).prop_map(|(k, m)| Step::RemovePrice(k, m)),
        4 => (key(), 0..5u8, 0..20usize).prop_map(|(k, m, n)| Step::Cache(k, m, n)),
        3 => (key(), 0..5u8).prop_map(|(k, m)| Step::GetCached(k, m)),
        2 => key().prop_map(Step::Cached),
        2 => (key(), 1..4usize).prop_map(|(k, n)| Step::FirstRecent(k, n)),
        2 => (key(), 1..4usize).prop_map(|(k, n)| Step::FirstRecalled(k, n)),
        2 => (key(), 1..4usize).prop_map(|(k, n)| Step::FirstPrices(k, n)),
        2 => (key(), 1..4usize).prop_map(|(k, n)| Step::FirstCached(k, n)),
        6 => (0..7i64).prop_map(Step::Advance),
        6 => Just(Step::Maintain),
        4 => (1..30usize).prop_map(Step::Evict),
        4 => any::<bool>().prop_map(|stored| Step::Snapshot { stored }),
        1 => Just(Step::Rebase),
        2 => prop_oneof![3 => Just(0u16), 1 => 1..4u16].prop_map(|workers| Step::Restore { workers }),
    ];
    (step, 0..12i64)
}

struct Harness<'a> {
    stores: Stores<'a>,
    at_snapshot: Model,
    model: Model,
}

impl<'a> Harness<'a> {
    fn new(backends: &'a dyn Backends, budget: usize) -> Self {
        let mut stores = Stores::new(backends, budget, GROUPS);
        stores.iter_mut().for_each(|store| store.expire_until(i64::MIN));
        Self { stores, at_snapshot: Model::default(), model: Model::default() }
    }

    fn apply(&mut self, step: &Step, after: i64) {
        let at = self.model.horizon + after;
        match step {
            Step::Advance(by) => {
                self.model.horizon += by;
                let horizon = self.model.horizon;
                self.stores.iter_mut().for_each(|store| store.expire_until(horizon));
            }
            Step::Maintain => self.stores.iter_mut().for_each(|store| store.maintain().unwrap()),
            Step::Evict(count) => {
                for store in self.stores.iter_mut() {
                    store.evict(*count).unwrap();
                }
            }
            Step::Snapshot { stored } => {
                self.stores.snapshot(*stored);
                self.at_snapshot = self.model.clone();
            }
            Step::Rebase => self.stores.iter_mut().for_each(KeyedStore::force_rebase),
            Step::Restore { workers } => {
                self.stores.restore(*workers);
                self.model = self.at_snapshot.clone();
                // How far time had come is not kept with the state.
                self.stores.iter_mut().for_each(|store| store.expire_until(i64::MIN));
            }
            Step::Undone(steps) => {
                for store in self.stores.iter_mut() {
                    store.make_undoable();
                    store.mark();
                }
                let before = self.model.clone();
                steps.iter().for_each(|(step, after)| self.apply(step, *after));
                self.stores.iter_mut().for_each(|store| store.undo().unwrap());
                self.model = before;
            }
            _ => self.value(step, at),
        }
    }

    fn value(&mut self, step: &Step, at: i64) {
        let Self { stores, model, .. } = self;
        match *step {
            Step::Count(key, by) => {
                let (store, hash, access) = owner(stores, key, at, COUNTS);
                let count = store.expiring_value(COUNTS).unwrap();
                *count.upsert_live(access, hash, key, || 100).unwrap() += by;
                match live(model.counts.get_mut(&key), at, true) {
                    Some(count) => *count += by,
                    None => _ = model.counts.insert(key, (at + TTL, 100 + by)),
                }
            }
            Step::SetCount(key, to) => {
                let (store, hash, access) = owner(stores, key, at, COUNTS);
                store.expiring_value(COUNTS).unwrap().set_live(access, hash, key, to).unwrap();
                model.counts.insert(key, (at + TTL, to));
            }
            Step::GetCount(key) => {
                let (store, hash, access) = owner(stores, key, at, COUNTS);
                let got =
                    store.expiring_value(COUNTS).unwrap().get_live(access, hash, &key).unwrap().copied();
                assert_eq!(got, live(model.counts.get_mut(&key), at, false).copied());
            }
            Step::RemoveCount(key) => {
                let (store, hash, access) = owner(stores, key, at, COUNTS);
                let removed = store.expiring_value(COUNTS).unwrap().remove_live(access, hash, &key).unwrap();
                assert_eq!(removed, live(model.counts.remove(&key).as_mut(), at, false).copied());
            }
            Step::SetText(key, n) => {
                let (store, hash, access) = owner(stores, key, at, TEXTS);
                store.expiring_value(TEXTS).unwrap().set_live(access, hash, key, text(n)).unwrap();
                model.texts.insert(key, (at + TTL, text(n)));
            }
            Step::ChangeText(key) => {
                let (store, hash, access) = owner(stores, key, at, TEXTS);
                let found = store.expiring_value(TEXTS).unwrap().change_live(access, hash, &key).unwrap();
                let found = found.map(|text| text.push('!')).is_some();
                let expected = live(model.texts.get_mut(&key), at, true).map(|text| text.push('!'));
                assert_eq!(found, expected.is_some());
            }
            Step::GetText(key) => {
                let (store, hash, access) = owner(stores, key, at, TEXTS);
                let got = store.expiring_value(TEXTS).unwrap().get_live(access, hash, &key).unwrap().cloned();
                assert_eq!(got, live(model.texts.get_mut(&key), at, true).cloned());
            }
            Step::Sum(key, by) => {
                let (store, hash, access) = owner(stores, key, at, SUMS);
                let sums = store.expiring_reducing(SUMS).unwrap();
                sums.reduce_live(access, hash, key, by, |sum, by| *sum += by).unwrap();
                match live(model.sums.get_mut(&key), at, true) {
                    Some(sum) => *sum += by,
                    None => _ = model.sums.insert(key, (at + TTL, by)),
                }
            }
            Step::GetSum(key) => {
                let (store, hash, access) = owner(stores, key, at, SUMS);
                let sums = store.expiring_reducing(SUMS).unwrap();
                let got = sums.get_live(access, hash, &key).unwrap().copied();
                assert_eq!(got, live(model.sums.get_mut(&key), at, false).copied());
            }
            _ => self.list(step, at),
        }
    }

    fn list(&mut self, step: &Step, at: i64) {
        let Self { stores, model, .. } = self;
        match *step {
            Step::Remember(key, n) => {
                let (store, hash, access) = owner(stores, key, at, RECENT);
                store.expiring_list(RECENT).unwrap().append_live(access, hash, key, text(n)).unwrap();
                model.recent.entry(key).or_default().push((at + TTL, text(n)));
            }
            Step::Recent(key) => {
                let (store, hash, access) = owner(stores, key, at, RECENT);
                let got = store.expiring_list(RECENT).unwrap().live(access, hash, &key).unwrap();
                assert_eq!(got, items(model.recent.get_mut(&key), at, false));
            }
            Step::ForgetRecent(key) => {
                let (store, hash, _) = owner(stores, key, at, RECENT);
                let recent: &mut ExpiringListTable<u64, String> = store.expiring_list(RECENT).unwrap();
                recent.clear(hash, &key).unwrap();
                model.recent.remove(&key);
            }
            Step::Note(key, n) => {
                let (store, hash, access) = owner(stores, key, at, RECALLED);
                store.expiring_list(RECALLED).unwrap().append_live(access, hash, key, n).unwrap();
                model.recalled.entry(key).or_default().push((at + TTL, n));
            }
            Step::Recalled(key) => {
                let (store, hash, access) = owner(stores, key, at, RECALLED);
                let got = store.expiring_list(RECALLED).unwrap().live(access, hash, &key).unwrap();
                assert_eq!(got, items(model.recalled.get_mut(&key), at, true));
            }
            Step::FirstRecent(key, most) => {
                let (store, hash, access) = owner(stores, key, at, RECENT);
                let mut got: Vec<String> = Vec::new();
                let visit = |item: &String| {
                    got.push(item.clone());
                    until(got.len() == most)
                };
                store.expiring_list(RECENT).unwrap().try_for_each_live(access, hash, &key, visit).unwrap();
                let items = model.recent.get_mut(&key).into_iter().flatten();
                let expected = items.filter_map(|item| live(Some(item), at, false).cloned());
                assert_eq!(got, expected.take(most).collect::<Vec<_>>());
            }
            Step::FirstRecalled(key, most) => {
                let (store, hash, access) = owner(stores, key, at, RECALLED);
                let mut got: Vec<u64> = Vec::new();
                let visit = |item: &u64| {
                    got.push(*item);
                    until(got.len() == most)
                };
                store.expiring_list(RECALLED).unwrap().try_for_each_live(access, hash, &key, visit).unwrap();
                let items = model.recalled.get_mut(&key).into_iter().flatten();
                let expected = items.filter_map(|item| live(Some(item), at, true).copied());
                assert_eq!(got, expected.take(most).collect::<Vec<_>>());
            }
            _ => self.map(step, at),
        }
    }

    fn map(&mut self, step: &Step, at: i64) {
        let Self { stores, model, .. } = self;
        match *step {
            Step::Price(key, of, price) => {
                let (store, hash, access) = owner(stores, key, at, PRICES);
                store.expiring_map(PRICES).unwrap().put_live(access, hash, key, of, price).unwrap();
                model.prices.insert((key, of), (at + TTL, price));
            }
            Step::GetPrice(key, of) => {
                let (store, hash, access) = owner(stores, key, at, PRICES);
                let prices = store.expiring_map(PRICES).unwrap();
                let got = prices.get_live(access, hash, &key, &of).unwrap().copied();
                assert_eq!(got, live(model.prices.get_mut(&(key, of)), at, false).copied());
            }
            Step::Prices(key) => {
                let (store, hash, access) = owner(stores, key, at, PRICES);
                let mut got = BTreeMap::new();
                let visit = |of: &u8, price: &u32| {
                    assert!(got.insert(*of, *price).is_none());
                    ControlFlow::Continue(())
                };
                store.expiring_map(PRICES).unwrap().try_for_each_live(access, hash, &key, visit).unwrap();
                let all = model.prices.range_mut((key, 0)..=(key, u8::MAX));
                let expected = all.filter_map(|((_, of), e)| Some((*of, *live(Some(e), at, false)?)));
                assert_eq!(got, expected.collect());
            }
            Step::RemovePrice(key, of) => {
                let (store, hash, access) = owner(stores, key, at, PRICES);
                let prices = store.expiring_map(PRICES).unwrap();
                let removed = prices.remove_live(access, hash, &key, &of).unwrap();
                assert_eq!(removed, live(model.prices.remove(&(key, of)).as_mut(), at, false).copied());
            }
            Step::Cache(key, of, n) => {
                let (store, hash, access) = owner(stores, key, at, CACHED);
                let cached = store.expiring_map(CACHED).unwrap();
                cached.put_live(access, hash, key, name(of), text(n)).unwrap();
                model.cached.insert((key, name(of)), (at + TTL, text(n)));
            }
            Step::GetCached(key, of) => {
                let (store, hash, access) = owner(stores, key, at, CACHED);
                let cached = store.expiring_map(CACHED).unwrap();
                let got = cached.get_live(access, hash, &key, &name(of)).unwrap().cloned();
                assert_eq!(got, live(model.cached.get_mut(&(key, name(of))), at, true).cloned());
            }
            Step::Cached(key) => {
                let (store, hash, access) = owner(stores, key, at, CACHED);
                let mut got = BTreeMap::new();
                let visit = |of: &String, v: &String| {
                    assert!(got.insert(of.clone(), v.clone()).is_none());
                    ControlFlow::Continue(())
                };
                store.expiring_map(CACHED).unwrap().try_for_each_live(access, hash, &key, visit).unwrap();
                let all = model.cached.iter_mut().filter(|((k, _), _)| *k == key);
                let expected =
                    all.filter_map(|((_, of), e)| Some((of.clone(), live(Some(e), at, true)?.clone())));
                assert_eq!(got, expected.collect());
            }
            Step::FirstPrices(key, most) => {
                let (store, hash, access) = owner(stores, key, at, PRICES);
                let mut got = Vec::new();
                let visit = |of: &u8, value: &u32| {
                    got.push((*of, *value));
                    until(got.len() == most)
                };
                store.expiring_map(PRICES).unwrap().try_for_each_live(access, hash, &key, visit).unwrap();
                let all = model.prices.iter_mut().filter(|((k, _), _)| *k == key);
                let expected = all.filter_map(|((_, of), e)| Some((*of, *live(Some(e), at, false)?)));
                assert_eq!(got, expected.take(most).collect::<Vec<_>>());
            }
            Step::FirstCached(key, most) => {
                let (store, hash, access) = owner(stores, key, at, CACHED);
                let mut got = Vec::new();
                let visit = |of: &String, value: &String| {
                    got.push((of.clone(), value.clone()));
                    until(got.len() == most)
                };
                store.expiring_map(CACHED).unwrap().try_for_each_live(access, hash, &key, visit).unwrap();
                let all = model.cached.iter_mut().filter(|((k, _), _)| *k == key);
                let expected =
                    all.filter_map(|((_, of), e)| Some((of.clone(), live(Some(e), at, true)?.clone())));
                assert_eq!(got, expected.take(most).collect::<Vec<_>>());
            }
            _ => unreachable!("steps of stores, values and lists were applied before"),
        }
    }
}

/// The store of `key`, its hash, and an access to `handle` at `at`.
fn owner<'s, H: Copy>(
    stores: &'s mut Stores<'_>,
    key: u64,
    at: i64,
    handle: Expiring<H>,
) -> (&'s mut KeyedStore, u64, Access) {
    let (store, hash) = stores.owner(&key);
    store.set_time(at);
    let access = store.access(handle.ttl());
    (store, hash, access)
}

fn items<V: Clone>(items: Option<&mut Vec<Entry<V>>>, at: i64, renews: bool) -> Vec<V> {
    let items = items.into_iter().flatten();
    items.filter_map(|item| live(Some(item), at, renews).cloned()).collect()
}

fn until(enough: bool) -> ControlFlow<()> {
    if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn text(n: usize) -> String {
    "x".repeat(n)
}

fn name(of: u8) -> String {
    format!("of {of}")
}

fn run(backends: &dyn Backends, steps: &[(Step, i64)], budget: usize) {
    let mut harness = Harness::new(backends, budget);
    for (step, after) in steps {
        harness.apply(step, *after);
    }
    let read = |harness: &mut Harness<'_>| {
        for key in 0..12 {
            let reads = [Step::GetCount(key), Step::GetText(key), Step::GetSum(key), Step::Recent(key)];
            let more = [Step::Recalled(key), Step::Prices(key), Step::Cached(key)];
            reads.iter().chain(&more).for_each(|step| harness.apply(step, 0));
        }
    };
    read(&mut harness);
    harness.apply(&Step::Snapshot { stored: true }, 0);
    harness.apply(&Step::Restore { workers: 3 }, 0);
    read(&mut harness);
}

fn steps(longest: usize) -> impl Strategy<Value = Vec<(Step, i64)>> {
    prop::collection::vec(step(), 1..longest)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn over_memory_what_is_seen_depends_on_deadlines_alone(steps in steps(300), budget in prop_oneof![Just(usize::MAX), Just(0)]) {
        run(&MemoryBackends, &steps, budget);
    }
}

#[test]
fn a_state_with_a_time_to_live_where_nobody_tells_time_is_an_error_that_names_it() {
    let mut store = KeyedStore::open(StoreSpec::new("visits"), &MemoryBackends, Vec::new()).unwrap();
    let error = store.expiring_value_table::<u64, u64>(COUNTS).unwrap_err().to_string();
    assert!(error.starts_with("operator visits, state counts: it has a time to live"), "{error}");
}

#[test]
fn memory_holds_no_more_than_what_lives_and_an_eighth() {
    const LIVING: u64 = 1_000;
    let mut store = KeyedStore::open(StoreSpec::new("op"), &MemoryBackends, Vec::new()).unwrap();
    store.expire_until(0);
    const SEEN: Expiring<Value<u64>> =
        Value::new("seen").expiring(Ttl::after_write(Duration::from_millis(LIVING)));
    let mut most = 0;
    for at in 0..20 * LIVING {
        store.set_time(at as i64);
        let access = store.access(SEEN.ttl());
        store.expiring_value(SEEN).unwrap().set_live(access, hash_key(&at), at, at).unwrap();
        if at.is_multiple_of(16) {
            store.expire_until(at as i64);
            store.maintain().unwrap();
        }
        if at == 2 * LIVING {
            most = store.memory();
        }
    }
    assert!(store.memory() <= most, "{} bytes of a growing store, {most} at first", store.memory());
    // All of a table is gone when all has expired, without anybody reading it.
    store.expire_until(1 << 40);
    for _ in 0..8 {
        store.maintain().unwrap();
    }
    assert!(store.memory() < 2_000, "{}", store.memory());
}

#[test]
fn what_was_stored_without_a_time_to_live_gets_one_when_it_is_used() {
    const OLD: Value<u64> = Value::new("seen");
    const NEW: Expiring<Value<u64>> = Value::new("seen").version(2).expiring(WRITTEN);
    let mut store = KeyedStore::open(StoreSpec::new("op"), &MemoryBackends, Vec::new()).unwrap();
    let hash = hash_key(&1_u64);
    store.value(OLD).unwrap().set(hash, 1_u64, 5).unwrap();
    let snapshot = store.snapshot(1).unwrap();
    let files = snapshot.files.iter().map(|file| {
        let SnapshotSource::Bytes(bytes) = &file.source else { panic!("{} is in memory", file.name) };
        let source = RestoreSource::Bytes(bytes.clone());
        RestoreFile { name: file.name.clone(), role: file.role, source }
    });
    let parts = vec![RestorePart { meta: snapshot.meta.clone(), files: files.collect() }];

    let mut store = KeyedStore::open(StoreSpec::new("op"), &MemoryBackends, parts).unwrap();
    store.migrate("seen", Migrations::new().from(1, Timed::<u64>::without_deadline));
    store.expire_until(1_000);
    let mut seen_at = |at| {
        store.set_time(at);
        let access = store.access(NEW.ttl());
        store.expiring_value(NEW).unwrap().get_live(access, hash, &1_u64).unwrap().copied()
    };
    assert_eq!(seen_at(1_000), Some(5), "it had no deadline");
    assert_eq!(seen_at(1_000 + TTL - 1), Some(5), "a first look gave it one, a second does not move it");
    assert_eq!(seen_at(1_000 + TTL), None);
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use super::*;
    use std::time::Instant;

    fn backends(folder: &tempfile::TempDir) -> RocksBackends {
        let options = RocksOptions { cache: 8 << 20, write_buffers: 4 << 20, background_jobs: 2 };
        RocksBackends::new(folder.path(), &MemoryBudget::unlimited(), options).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn over_rocksdb_what_is_seen_depends_on_deadlines_alone(steps in steps(250), budget in prop_oneof![Just(usize::MAX), Just(0)]) {
            let folder = tempfile::tempdir().unwrap();
            run(&backends(&folder), &steps, budget);
        }
    }

    #[test]
    fn compaction_removes_what_has_expired() {
        const ROUND: i64 = 1_000;
        const SEEN: Expiring<Value<[u64; 4]>> =
            Value::new("seen").expiring(Ttl::after_write(Duration::from_millis(ROUND as u64)));
        let folder = tempfile::tempdir().unwrap();
        let spec = StoreSpec { budget: MemoryBudget::new(0), ..StoreSpec::new("op") };
        let mut store = KeyedStore::open(spec, &backends(&folder), Vec::new()).unwrap();
        store.expire_until(0);
        let written_and_kept = |store: &mut KeyedStore, round: i64| {
            store.expire_until(round * ROUND);
            store.set_time(round * ROUND);
            let access = store.access(SEEN.ttl());
            for key in (round as u64 * 20_000..).take(20_000) {
                let hash = hash_key(&key);
                let value = [1, 2, 3, 4].map(|n| hash_key(&(key, n as u64)));
                store.expiring_value(SEEN).unwrap().set_live(access, hash, key, value).unwrap();
            }
            store.evict(usize::MAX).unwrap();
            store.snapshot(round as u64 + 1).unwrap();
            store.cold_bytes()
        };
        let of_one_round = written_and_kept(&mut store, 0);
        let mut round = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        // Compactions run when RocksDB sees fit; sooner or later there is less than what was written without end.
        loop {
            round += 1;
            let kept = written_and_kept(&mut store, round);
            if round >= 16 && kept < of_one_round * 12 {
                break;
            }
            assert!(Instant::now() < deadline, "{kept} bytes are kept of {round} rounds of {of_one_round}");
        }
    }
}
