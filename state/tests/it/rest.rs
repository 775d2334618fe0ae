//! State at rest against a model of maps: what stores left in snapshots is read, changed and written, and read by stores again.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rivermark_state::rest::{Image, RowParts};
use rivermark_state::snapshot::RestoreSource;
use rivermark_state::*;

pub const COUNT: Value<u32> = Value::new("count");
pub const NAMES: List<String> = List::new("names");
pub const VISITS: Map<u8, u16> = Map::new("visits");
pub const GROUPS: u16 = 16;

#[derive(Clone, Debug)]
pub enum Step {
    Set(u8, u32),
    Remove(u8),
    Append(u8, u8),
    ClearList(u8),
    Put(u8, u8, u16),
    Delete(u8, u8),
    ClearMap(u8),
    Timer(u8, i64),
    Fire(i64),
    Window(i64, u8, u32),
    Drop(i64),
    Evict,
    Snapshot,
    Rescale(u16),
}

#[derive(Clone, Debug)]
enum Edit {
    Put(u8, u32),
    Remove(u8),
    Update(u32),
    PutList(u8, Vec<u8>),
    UpdateLists,
    RemoveList(u8),
    PutMap(u8, u8, u16),
    UpdateMaps(u16),
    Timer(u8, i64, bool),
    DropCounts,
}

#[derive(Default, Debug, Clone, PartialEq)]
pub struct Model {
    pub count: BTreeMap<u8, u32>,
    pub names: BTreeMap<u8, Vec<String>>,
    pub visits: BTreeMap<(u8, u8), u16>,
    pub timers: BTreeMap<(i64, u8), ()>,
    pub windows: BTreeMap<(i64, u8), u32>,
}

pub fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..20;
    prop_oneof![
        4 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Step::Set(key, value)),
        1 => key.clone().prop_map(Step::Remove),
        4 => (key.clone(), any::<u8>()).prop_map(|(key, item)| Step::Append(key, item)),
        1 => key.clone().prop_map(Step::ClearList),
        4 => (key.clone(), 0u8..4, any::<u16>()).prop_map(|(key, at, value)| Step::Put(key, at, value)),
        1 => (key.clone(), 0u8..4).prop_map(|(key, at)| Step::Delete(key, at)),
        1 => key.clone().prop_map(Step::ClearMap),
        3 => (key.clone(), 0i64..40).prop_map(|(key, time)| Step::Timer(key, time)),
        1 => (0i64..30).prop_map(Step::Fire),
        3 => (0i64..4, key, any::<u32>()).prop_map(|(slice, key, value)| Step::Window(slice, key, value)),
        1 => (0i64..4).prop_map(Step::Drop),
        2 => Just(Step::Evict),
        2 => Just(Step::Snapshot),
        1 => (1u16..4).prop_map(Step::Rescale),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    let key = 0u8..20;
    prop_oneof![
        3 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Edit::Put(key, value)),
        1 => key.clone().prop_map(Edit::Remove),
        1 => any::<u32>().prop_map(Edit::Update),
        2 => (key.clone(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(key, items)| Edit::PutList(key, items)),
        1 => Just(Edit::UpdateLists),
        1 => key.clone().prop_map(Edit::RemoveList),
        2 => (key.clone(), 0u8..4, any::<u16>()).prop_map(|(key, at, value)| Edit::PutMap(key, at, value)),
        1 => any::<u16>().prop_map(Edit::UpdateMaps),
        2 => (key, 0i64..40, any::<bool>()).prop_map(|(key, time, put)| Edit::Timer(key, time, put)),
        1 => Just(Edit::DropCounts),
    ]
}

type Tables = (
    TableId<ValueTable<u8, u32>>,
    TableId<ListTable<u8, String>>,
    TableId<MapTable<u8, u8, u16>>,
    TableId<Timers<u8>>,
    TableId<WindowTable<i64, u8, u32>>,
);

fn tables(store: &mut KeyedStore) -> Tables {
    (
        store.value_table(COUNT).unwrap(),
        store.list_table(NAMES).unwrap(),
        store.map_table(VISITS).unwrap(),
        store.timers("timers").unwrap(),
        store.window_table("slices").unwrap(),
    )
}

fn open(backends: &dyn Backends, workers: u16, parts: &[RestorePart]) -> Vec<KeyedStore> {
    open_with(backends, Limits::default(), workers, parts)
}

fn open_with(
    backends: &dyn Backends,
    limits: Limits,
    workers: u16,
    parts: &[RestorePart],
) -> Vec<KeyedStore> {
    let open = |worker| {
        let range = range_of(worker, GROUPS, workers);
        let spec = StoreSpec { groups: GROUPS, range, limits, ..StoreSpec::new("it") };
        KeyedStore::open(spec, backends, parts.to_vec()).unwrap()
    };
    (0..workers).map(open).collect()
}

fn owner(stores: &mut [KeyedStore], hash: u64) -> &mut KeyedStore {
    let group = key_group(hash, GROUPS);
    stores.iter_mut().find(|store| store.range().contains(group)).unwrap()
}

/// What snapshots have handed out, by key groups and name: a store names what it was restored from, and does not have it.
type Stored = BTreeMap<(u16, u16, String), RestoreSource>;

fn snapshot(stores: &mut [KeyedStore], epoch: &mut u64, stored: &mut Stored) -> Vec<RestorePart> {
    *epoch += 1;
    let mut parts = Vec::new();
    for store in stores {
        let snapshot = store.snapshot(*epoch).unwrap();
        let mut files = Vec::new();
        for file in snapshot.files {
            let at = (snapshot.range.start, snapshot.range.end, file.name.clone());
            let source = match &file.source {
                SnapshotSource::Path(held) => {
                    RestoreSource::Bytes(std::fs::read(held.path()).unwrap().into())
                }
                SnapshotSource::Bytes(bytes) => RestoreSource::Bytes(bytes.clone()),
                SnapshotSource::Stored => stored[&at].clone(),
            };
            stored.insert(at, source.clone());
            files.push(RestoreFile { name: file.name, role: file.role, source });
        }
        parts.push(RestorePart { meta: snapshot.meta, files });
    }
    parts
}

/// Performs the steps on stores and on the model; answers the last snapshot.
fn run(backends: &dyn Backends, steps: &[Step], model: &mut Model) -> Vec<RestorePart> {
    run_seen(backends, Limits::default(), steps, model, &mut |_, _| {})
}

/// As [`run`], and shows every snapshot with the model at its barrier.
pub fn run_seen(
    backends: &dyn Backends,
    limits: Limits,
    steps: &[Step],
    model: &mut Model,
    seen: &mut dyn FnMut(&[RestorePart], &Model),
) -> Vec<RestorePart> {
    let mut stores = open_with(backends, limits, 1, &[]);
    let (mut epoch, mut stored) = (0, Stored::new());
    for step in steps {
        stores.iter_mut().for_each(|store| _ = tables(store));
        // The table of a key, by its place in `Tables`, and the key's hash.
        macro_rules! table {
            ($key:expr, $n:tt) => {{
                let hash = hash_key(&$key);
                let store = owner(&mut stores, hash);
                let tables = tables(store);
                (hash, store.table(tables.$n))
            }};
        }
        match *step {
            Step::Set(key, value) => {
                let (hash, table) = table!(key, 0);
                table.set(hash, key, value).unwrap();
                model.count.insert(key, value);
            }
            Step::Remove(key) => {
                let (hash, table) = table!(key, 0);
                table.remove(hash, &key).unwrap();
                model.count.remove(&key);
            }
            Step::Append(key, item) => {
                let (hash, table) = table!(key, 1);
                table.append(hash, key, item.to_string()).unwrap();
                model.names.entry(key).or_default().push(item.to_string());
            }
            Step::ClearList(key) => {
                let (hash, table) = table!(key, 1);
                table.clear(hash, &key).unwrap();
                model.names.remove(&key);
            }
            Step::Put(key, map_key, value) => {
                let (hash, table) = table!(key, 2);
                table.put(hash, key, map_key, value).unwrap();
                model.visits.insert((key, map_key), value);
            }
            Step::Delete(key, map_key) => {
                let (hash, table) = table!(key, 2);
                table.remove(hash, &key, &map_key).unwrap();
                model.visits.remove(&(key, map_key));
            }
            Step::ClearMap(key) => {
                let (hash, table) = table!(key, 2);
                table.clear(hash, &key).unwrap();
                model.visits.retain(|at, _| at.0 != key);
            }
            Step::Timer(key, time) => {
                let (hash, table) = table!(key, 3);
                table.register(time, hash, key).unwrap();
                model.timers.insert((time, key), ());
            }
            Step::Fire(time) => {
                for store in &mut stores {
                    let timers = tables(store).3;
                    while store.table(timers).pop(time).unwrap().is_some() {}
                }
                model.timers.retain(|at, _| at.0 > time);
            }
            Step::Window(slice, key, value) => {
                let (hash, table) = table!(key, 4);
                *table.upsert(slice, hash, key, || 0).unwrap() = value;
                model.windows.insert((slice, key), value);
            }
            Step::Drop(slice) => {
                for store in &mut stores {
                    let windows = tables(store).4;
                    store.table(windows).drop_namespace(slice).unwrap();
                }
                model.windows.retain(|at, _| at.0 != slice);
            }
            Step::Evict => stores.iter_mut().for_each(|store| while store.evict(1000).unwrap() > 0 {}),
            Step::Snapshot => seen(&snapshot(&mut stores, &mut epoch, &mut stored), model),
            Step::Rescale(workers) => {
                let parts = snapshot(&mut stores, &mut epoch, &mut stored);
                seen(&parts, model);
                stores = open_with(backends, limits, workers, &parts);
            }
        }
    }
    stores.iter_mut().for_each(|store| _ = tables(store));
    let parts = snapshot(&mut stores, &mut epoch, &mut stored);
    seen(&parts, model);
    parts
}

fn all<T>(entries: Result<Entries<'_, T>>) -> Vec<T> {
    match entries {
        Ok(entries) => entries.collect::<Result<_>>().unwrap(),
        Err(StateError::NoSuchState { .. }) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

pub fn read(image: &Image<impl RowParts>) -> Model {
    let mut items = BTreeMap::<u8, Vec<String>>::new();
    all(image.items::<u8, _>(NAMES))
        .into_iter()
        .for_each(|(key, item)| items.entry(key).or_default().push(item));
    let names: BTreeMap<_, _> = all(image.entries::<u8, _>(NAMES)).into_iter().collect();
    assert_eq!(items, names);
    Model {
        count: all(image.entries::<u8, _>(COUNT)).into_iter().collect(),
        names,
        visits: all(image.entries::<(u8, u8), _>(VISITS)).into_iter().collect(),
        timers: all(image.timers::<u8>("timers")).into_iter().map(|at| (at, ())).collect(),
        windows: all(image.windows::<i64, u8, u32>("slices"))
            .into_iter()
            .map(|(slice, key, value)| ((slice, key), value))
            .collect(),
    }
}

/// What stores find that start from a snapshot.
fn restored(backends: &dyn Backends, workers: u16, parts: &[RestorePart]) -> Model {
    let mut model = Model::default();
    for mut store in open(backends, workers, parts) {
        let (count, names, visits, timers, windows) = tables(&mut store);
        store.table(count).for_each(|key, value| _ = model.count.insert(*key, *value)).unwrap();
        for key in 0..20u8 {
            let hash = hash_key(&key);
            if !store.range().contains(key_group(hash, GROUPS)) {
                continue;
            }
            let items = store.table(names).get(hash, &key).unwrap().to_vec();
            if !items.is_empty() {
                model.names.insert(key, items);
            }
            store
                .table(visits)
                .for_each(hash, &key, |at, value| _ = model.visits.insert((key, *at), *value))
                .unwrap();
        }
        store.table(timers).for_each(|time, key| _ = model.timers.insert((time, *key), ())).unwrap();
        for slice in 0..4 {
            let visit = |key: &u8, value: &u32| _ = model.windows.insert((slice, *key), *value);
            store.table(windows).for_each(slice, visit).unwrap();
        }
    }
    model
}

fn apply(image: &mut StateImage, edit: &Edit, model: &mut Model) {
    match edit {
        Edit::Put(key, value) => {
            image.put(COUNT, *key, *value).unwrap();
            model.count.insert(*key, *value);
        }
        Edit::Remove(key) => {
            // The state may have been dropped.
            let _ = image.remove(COUNT, key);
            model.count.remove(key);
        }
        Edit::Update(add) => {
            let _ = image
                .update(COUNT, |key: &u8, value| key.is_multiple_of(2).then(|| value.wrapping_add(*add)));
            model.count.retain(|key, _| key.is_multiple_of(2));
            model.count.values_mut().for_each(|value| *value = value.wrapping_add(*add));
        }
        Edit::PutList(key, items) => {
            let items: Vec<String> = items.iter().map(u8::to_string).collect();
            image.put(NAMES, *key, items.clone()).unwrap();
            if items.is_empty() {
                model.names.remove(key)
            } else {
                model.names.insert(*key, items)
            };
        }
        Edit::UpdateLists => {
            let count =
                image.update(NAMES, |_: &u8, items| Some(items.into_iter().rev().skip(1).collect())).unwrap();
            assert_eq!(count as usize, model.names.len());
            model.names.values_mut().for_each(|items| *items = items.iter().rev().skip(1).cloned().collect());
            model.names.retain(|_, items| !items.is_empty());
        }
        Edit::RemoveList(key) => {
            image.remove(NAMES, key).unwrap();
            model.names.remove(key);
        }
        Edit::PutMap(key, at, value) => {
            image.put(VISITS, (*key, *at), *value).unwrap();
            model.visits.insert((*key, *at), *value);
        }
        Edit::UpdateMaps(add) => {
            image.update(VISITS, |_: &(u8, u8), value| Some(value.wrapping_add(*add))).unwrap();
            model.visits.values_mut().for_each(|value| *value = value.wrapping_add(*add));
        }
        Edit::Timer(key, time, true) => {
            image.put_timer("timers", *time, key).unwrap();
            model.timers.insert((*time, *key), ());
        }
        Edit::Timer(key, time, false) => {
            image.remove_timer("timers", *time, key).unwrap();
            model.timers.remove(&(*time, *key));
        }
        Edit::DropCounts => {
            image.drop_state("count").unwrap();
            model.count.clear();
        }
    }
}

/// Writes the parts anew, those that were not changed as they were.
fn written(image: &mut StateImage, before: &[RestorePart], native: bool) -> Vec<RestorePart> {
    let mut files: Vec<(KeyGroupRange, RestoreFile)> = Vec::new();
    let written = image.write(100, native, |range, file: SnapshotFile| {
        let source = match &file.source {
            SnapshotSource::Path(held) => RestoreSource::Bytes(std::fs::read(held.path()).unwrap().into()),
            SnapshotSource::Bytes(bytes) => RestoreSource::Bytes(bytes.clone()),
            SnapshotSource::Stored => panic!("nothing was stored"),
        };
        files.push((range, RestoreFile { name: file.name, role: file.role, source }));
        Ok::<_, StateError>(())
    });
    let parts = written.unwrap().into_iter().enumerate().map(|(index, part)| match part.meta {
        None => before[index].clone(),
        Some(meta) => {
            let files = files.iter().filter(|(range, _)| *range == part.range);
            RestorePart { meta, files: files.map(|(_, file)| file.clone()).collect() }
        }
    });
    parts.collect()
}

fn round_trip(stored: &dyn Backends, scratch: &dyn Backends, steps: &[Step], edits: &[Edit], workers: u16) {
    let mut model = Model::default();
    let parts = run(stored, steps, &mut model);
    let mut image = StateImage::open("it", GROUPS, scratch, parts.clone()).unwrap();
    assert_eq!(read(&image), model);
    assert!(!image.is_changed());
    assert_eq!(written(&mut image, &parts, false).len(), parts.len());
    for edit in edits {
        apply(&mut image, edit, &mut model);
    }
    assert_eq!(read(&image), model, "after {edits:?}");
    let parts = written(&mut image, &parts, false);
    assert_eq!(restored(stored, workers, &parts), model);
    let again = StateImage::open("it", GROUPS, scratch, parts).unwrap();
    assert_eq!(read(&again), model);
}

fn steps() -> impl Strategy<Value = (Vec<Step>, Vec<Edit>, u16)> {
    (prop::collection::vec(step(), 0..120), prop::collection::vec(edit(), 0..12), 1u16..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn state_at_rest_is_what_the_stores_had_and_stores_find_what_was_written((steps, edits, workers) in steps()) {
        round_trip(&MemoryBackends, &MemoryBackends, &steps, &edits, workers);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 25, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn files_of_rocksdb_are_read_and_written_too((steps, edits, workers) in steps(), in_memory in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let budget = MemoryBudget::unlimited();
        let rocks = |name: &str| {
            RocksBackends::new(folder.path().join(name), &budget, RocksOptions::for_budget(&budget)).unwrap()
        };
        let scratch = rocks("scratch");
        match in_memory {
            // An image of the memory backend fills any other.
            true => round_trip(&MemoryBackends, &scratch, &steps, &edits, workers),
            false => round_trip(&rocks("stored"), &scratch, &steps, &edits, workers),
        }
    }
}

#[test]
fn a_new_operator_is_written_in_parts_for_any_number_of_workers() {
    for native in [false, true] {
        let ranges: Vec<_> = (0..3).map(|worker| range_of(worker, GROUPS, 3)).collect();
        let mut image = StateImage::empty("it", GROUPS, &MemoryBackends, &ranges).unwrap();
        image.put_all(NAMES, (0..20u8).map(|key| (key, vec![key.to_string(), "b".into()]))).unwrap();
        image.put_all(COUNT, (0..20u8).map(|key| (key, 7))).unwrap();
        let model = read(&image);
        assert_eq!((model.names.len(), model.count.len()), (20, 20));
        let parts = written(&mut image, &[], native);
        for workers in 1..5 {
            assert_eq!(restored(&MemoryBackends, workers, &parts), model);
        }
    }
}

#[test]
fn a_rehearsal_notes_every_state_and_refuses_what_a_start_would() {
    let mut store = open(&MemoryBackends, 1, &[]).remove(0);
    tables(&mut store);
    let meta = store.snapshot(1).unwrap().meta;
    let (mut store, rehearsal) = KeyedStore::rehearse("it", GROUPS, &[&meta]).unwrap();
    store.migrate("names", Migrations::new().from(1, |name: String| name.len() as u64));
    store.value_table::<u8, String>(Value::new("count")).unwrap();
    store.list_table::<u8, _>(List::<u64>::new("names").version(2)).unwrap();
    store.value_table::<u8, u8>(Value::new("new")).unwrap();
    store.drop_state("visits").unwrap();
    store.seal().unwrap();
    let verdicts = rehearsal.findings().into_iter().map(|finding| (finding.state, finding.verdict));
    let verdicts: BTreeMap<String, Verdict> = verdicts.collect();
    let Verdict::Refused { reason } = &verdicts["count"] else { panic!("{verdicts:?}") };
    assert!(reason.contains("u8 -> u32") && reason.contains("u8 -> String"), "{reason}");
    assert_eq!(verdicts["names"], Verdict::Migrated { from: 1 });
    assert_eq!((&verdicts["new"], &verdicts["visits"]), (&Verdict::New, &Verdict::Dropped));

    let (mut store, rehearsal) = KeyedStore::rehearse("it", GROUPS, &[&meta]).unwrap();
    store.value_table::<u8, _>(COUNT).unwrap();
    store.seal().unwrap();
    let refused =
        rehearsal.findings().into_iter().filter(|finding| matches!(finding.verdict, Verdict::Refused { .. }));
    assert_eq!(refused.map(|finding| finding.state).collect::<Vec<_>>(), ["names", "visits"]);
}
