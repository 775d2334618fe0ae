//! Views of epochs against a model of maps: what is read beside stores is what they had at each barrier, whatever they do afterwards.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::Hasher;

use proptest::prelude::*;
use rivermark_state::snapshot::RestoreSource;
use rivermark_state::view::Content;
use rivermark_state::*;

use crate::rest::{COUNT, GROUPS, Model, NAMES, Step, VISITS, read, run_seen, step};

/// Limits so small that deltas are merged and bases replaced all the time.
const TINY: Limits =
    Limits { delta_min: 300, delta_max: 1500, delta_files: 7, delta_kept: 400, evict_batch: 4 };

/// How often the file of some content was fetched.
type Fetched = RefCell<BTreeMap<Content, usize>>;

fn content(part: &RestorePart, file: &RestoreFile) -> Content {
    let RestoreSource::Bytes(bytes) = &file.source else { panic!("snapshots are kept in memory") };
    let mut content = Content::default();
    for (n, chunk) in content.chunks_mut(8).enumerate() {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_usize(n);
        hasher.write(bytes);
        // Not the same for two parts, so that each may fetch it.
        hasher.write(&part.meta[..12]);
        chunk.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    content
}

fn view(
    backends: &dyn Backends,
    parts: &[RestorePart],
    before: Option<&StateView>,
    fetched: &Fetched,
) -> StateView {
    let of_part = |part: &'_ RestorePart| {
        let files = part.files.iter().map(|file| ViewFile {
            name: file.name.clone(),
            role: file.role,
            content: content(part, file),
        });
        let part = part.clone();
        PartFiles {
            // It outlives the view's opening: tests may leak a little.
            meta: Box::leak(part.meta.clone().into_boxed_slice()),
            files: files.collect(),
            source: Box::new(move |at| {
                *fetched.borrow_mut().entry(content(&part, &part.files[at])).or_default() += 1;
                Ok(part.files[at].source.clone())
            }),
        }
    };
    let parts: Vec<_> = parts.iter().map(of_part).collect();
    StateView::of("it", GROUPS, backends, &parts, before).unwrap()
}

/// Reads what is at every place, one by one.
fn read_places(view: &StateView) -> Model {
    let mut model = Model::default();
    let or_none = |error: StateError| match error {
        StateError::NoSuchState { .. } => {}
        error => panic!("{error}"),
    };
    for key in 0..20u8 {
        let count = view.get(COUNT, &key).map_err(or_none).ok().flatten();
        model.count.extend(count.map(|count| (key, count)));
        let names = view.get(NAMES, &key).map_err(or_none).ok().flatten();
        model.names.extend(names.map(|names| (key, names)));
        let visits = view.entries_of(VISITS, &key).map_err(or_none).into_iter().flatten().map(Result::unwrap);
        model.visits.extend(visits.map(|(at, visits)| ((key, at), visits)));
        for at in 0..4u8 {
            let one = view.get(VISITS, &(key, at)).map_err(or_none).ok().flatten();
            assert_eq!(one, model.visits.get(&(key, at)).copied());
        }
        let windows = view.windows_of::<i64, u8, u32>("slices", &key, 0, 4).map_err(or_none);
        model.windows.extend(windows.into_iter().flatten().map(|(slice, value)| ((slice, key), value)));
        let some = view.windows_of::<i64, u8, u32>("slices", &key, 1, 3).map_err(or_none).unwrap_or_default();
        let expected = model.windows.iter().filter(|((slice, of), _)| *of == key && (1..3).contains(slice));
        assert_eq!(some, expected.map(|((slice, _), value)| (*slice, *value)).collect::<Vec<_>>());
    }
    model
}

fn views_are_what_stores_had(stored: &dyn Backends, reading: &dyn Backends, steps: &[Step]) {
    let fetched = Fetched::default();
    let mut views: Vec<(StateView, Model)> = Vec::new();
    run_seen(stored, TINY, steps, &mut Model::default(), &mut |parts, model| {
        let view = view(reading, parts, views.last().map(|(view, _)| view), &fetched);
        assert_eq!(read(&view), *model, "epoch {}", views.len() + 1);
        views.push((view, model.clone()));
    });
    // An epoch stays what it was, with those before it given up.
    while let Some((view, model)) = views.pop() {
        assert_eq!(read(&view), model);
        let places = Model { timers: model.timers.clone(), ..read_places(&view) };
        assert_eq!(places, model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_view_is_the_state_at_its_barrier(steps in prop::collection::vec(step(), 0..150)) {
        views_are_what_stores_had(&MemoryBackends, &MemoryBackends, &steps);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 25, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_view_over_files_of_rocksdb_is_the_state_at_its_barrier(steps in prop::collection::vec(step(), 0..150)) {
        let folder = tempfile::tempdir().unwrap();
        let budget = MemoryBudget::unlimited();
        let rocks = RocksBackends::new(folder.path(), &budget, RocksOptions::for_budget(&budget)).unwrap();
        views_are_what_stores_had(&rocks, &rocks, &steps);
    }
}

#[test]
fn a_file_that_two_epochs_share_is_read_once() {
    let fetched = Fetched::default();
    let mut last: Option<StateView> = None;
    let step = |n: u32| [Step::Set(n as u8, n), Step::Snapshot];
    let steps: Vec<Step> = (0..20).flat_map(step).collect();
    run_seen(&MemoryBackends, Limits::default(), &steps, &mut Model::default(), &mut |parts, _| {
        last = Some(view(&MemoryBackends, parts, last.as_ref(), &fetched));
    });
    assert!(fetched.borrow().len() >= 20);
    assert!(fetched.borrow().values().all(|times| *times == 1), "{:?}", fetched.borrow());
}

#[test]
fn what_has_expired_is_not_seen() {
    use std::time::Duration;
    const SEEN: Expiring<Value<u32>> =
        Value::new("seen").expiring(Ttl::after_write(Duration::from_millis(10)));
    let entry = Timed::until(15, 7);
    assert_eq!(<Expiring<Value<u32>> as Queried<u8>>::seen(entry.clone(), 14), Some(7));
    assert_eq!(<Expiring<Value<u32>> as Queried<u8>>::seen(entry, 15), None);
    let items = vec![Timed::until(5, 1), Timed::until(15, 2)];
    assert_eq!(<Expiring<List<u32>> as Queried<u8>>::seen(items.clone(), 5), Some(vec![2]));
    assert_eq!(<Expiring<List<u32>> as Queried<u8>>::seen(items, 15), None);
    assert_eq!(Queried::<u8>::name(SEEN), "seen");
}
