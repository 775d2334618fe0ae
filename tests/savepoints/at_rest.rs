//! Savepoints read, edited and checked without a job.

use crate::support::{
    BY_DIGIT, KEYS, Number, Running, TIMES, TOTAL, append, backends, flow, numbers, open, rows, wait_for,
};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{
    BoxError, Context, Engine, Flow, List, Map, Migrations, ProcessFunction, Savepoint, StateBackend,
    Timestamp, Value, Verdict,
};
use std::collections::BTreeMap;
use std::path::Path;

const HALF: u64 = 1_000;
const ALL: u64 = 1_600;

/// A savepoint behind the first numbers.
fn half_way(directory: &Path, backend: StateBackend, workers: usize) -> (Engine, Savepoint) {
    let engine = open(directory, workers, backend);
    append(engine.log(), numbers(0, HALF));
    let job = engine.start(flow("numbers", 1, true)).unwrap();
    wait_for(&job, HALF);
    let savepoint = job.stop_with_savepoint("half").unwrap();
    (engine, savepoint)
}

fn collected<T>(entries: rivermark::Result<rivermark::Entries<'_, T>>) -> Vec<T> {
    entries.unwrap().collect::<rivermark::Result<_>>().unwrap()
}

/// What the flow's function has of the first so many numbers, by a plain loop.
#[derive(Default, Debug, PartialEq)]
struct Model {
    totals: BTreeMap<u64, u64>,
    times: BTreeMap<u64, Vec<i64>>,
    by_digit: BTreeMap<(u64, u8), u64>,
}

fn model(count: u64) -> Model {
    let mut model = Model::default();
    for (key, time) in numbers(0, count) {
        let total = model.totals.entry(key).or_default();
        *total += 1;
        if *total % 3 == 0 {
            model.times.entry(key).or_default().push(time);
        }
        *model.by_digit.entry((key, (time / 1000 % 10) as u8)).or_default() += 1;
    }
    model
}

/// All that is in a savepoint of the flow behind the first so many numbers.
pub fn holds(savepoint: &Savepoint, count: u64) {
    let state = savepoint.operator("count").unwrap();
    let read = Model {
        totals: collected(state.entries::<u64, _>(TOTAL)).into_iter().collect(),
        times: collected(state.entries::<u64, _>(TIMES)).into_iter().collect(),
        by_digit: collected(state.entries::<(u64, u8), _>(BY_DIGIT)).into_iter().collect(),
    };
    let expected = model(count);
    assert_eq!(read, expected);
    for key in 0..KEYS {
        assert_eq!(state.get(TOTAL, &key).unwrap(), expected.totals.get(&key).copied());
        assert_eq!(state.get(TIMES, &key).unwrap(), expected.times.get(&key).cloned());
        assert_eq!(state.get(BY_DIGIT, &(key, 3)).unwrap(), expected.by_digit.get(&(key, 3)).copied());
    }
    let mut items = BTreeMap::<u64, Vec<i64>>::new();
    collected(state.items::<u64, _>(TIMES))
        .into_iter()
        .for_each(|(key, time)| items.entry(key).or_default().push(time));
    assert_eq!(items, expected.times);
    assert_eq!(state.get(TOTAL, &KEYS).unwrap(), None);

    // Windows whose end the watermark has not reached are open; it was a little behind the last number of each partition.
    let mut open = BTreeMap::<(i64, u64), u64>::new();
    let by_second = savepoint.operator("by-second").unwrap();
    for (start, key, count) in collected(by_second.windows::<u64, u64>()) {
        *open.entry((start.millis(), key)).or_default() += count;
    }
    let mut counts = BTreeMap::<(i64, u64), u64>::new();
    numbers(0, count).for_each(|(key, time)| *counts.entry((time / 1000 * 1000, key)).or_default() += 1);
    let first = open.keys().next().unwrap().0;
    counts.retain(|(start, _), _| *start >= first);
    assert_eq!(open, counts);
    assert!(first > count as i64 * 10 - 5000, "{first}: windows long over are not held");
}

#[test]
fn all_state_of_a_savepoint_is_read_by_its_handles() {
    for backend in backends() {
        for workers in [1, 3] {
            let directory = tempfile::tempdir().unwrap();
            let (_engine, savepoint) = half_way(directory.path(), backend, workers);
            holds(&savepoint, HALF);
            let scratch = tempfile::tempdir().unwrap();
            holds(&savepoint.clone().scratch_in(scratch.path()), HALF);
            assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "scratch is gone");
            savepoint.verify().unwrap();
        }
    }
}

#[test]
fn an_edited_savepoint_is_started_by_any_number_of_workers_and_the_old_one_stays() {
    for backend in backends() {
        for (before, after) in [(1, 3), (3, 1), (2, 2)] {
            let directory = tempfile::tempdir().unwrap();
            let (engine, savepoint) = half_way(directory.path(), backend, before);
            let edited = directory.path().join("edited");
            let mut editor = savepoint.edit();
            let mut count = editor.operator("count").unwrap();
            let updated =
                count.update(TOTAL, |key: &u64, total| (!key.is_multiple_of(5)).then_some(total + 1000));
            assert_eq!(updated.unwrap(), KEYS);
            count.put(TOTAL, 0_u64, 7).unwrap();
            count.update(TIMES, |_: &u64, times| Some(times.into_iter().rev().collect())).unwrap();
            count.put(TIMES, 1_u64, vec![1, 2, 3]).unwrap();
            count.put(TIMES, 2_u64, vec![]).unwrap();
            count.update(BY_DIGIT, |(_, digit): &(u64, u8), n| (*digit != 1).then_some(n)).unwrap();
            count.remove(BY_DIGIT, &(0_u64, 2_u8)).unwrap();
            assert_eq!(count.get(TOTAL, &0_u64).unwrap(), Some(7), "changes are read at once");
            let edited = editor.named("edited").write_to(&edited).unwrap();
            edited.verify().unwrap();
            assert_eq!((edited.name(), savepoint.name()), ("edited", "half"));
            holds(&savepoint, HALF);
            savepoint.verify().unwrap();

            let mut expected = model(HALF);
            expected.totals.retain(|key, _| key % 5 != 0);
            expected.totals.values_mut().for_each(|total| *total += 1000);
            expected.totals.insert(0, 7);
            expected.times.values_mut().for_each(|times| times.reverse());
            expected.times.insert(1, vec![1, 2, 3]);
            expected.times.remove(&2);
            expected.by_digit.retain(|&(key, digit), _| digit != 1 && (key, digit) != (0, 2));
            drop(engine);
            let engine = open(directory.path(), after, backend);
            append(engine.log(), numbers(HALF, ALL));
            let written = rows::<Running>(engine.log(), "numbers-running");
            let job = engine.start_from(flow("numbers", 2, true), &edited).unwrap();
            wait_for(&job, ALL - HALF);
            let last = job.stop_with_savepoint("last").unwrap();
            // The function goes on from what was edited.
            let mut running = written;
            for (key, time) in numbers(HALF, ALL) {
                let total = expected.totals.entry(key).or_default();
                *total += 1;
                if total.is_multiple_of(3) {
                    expected.times.entry(key).or_default().push(time);
                }
                let same = expected.by_digit.entry((key, (time / 1000 % 10) as u8)).or_default();
                *same += 1;
                running.push((key, *total, *same));
            }
            running.sort();
            assert_eq!(
                rows::<Running>(engine.log(), "numbers-running"),
                running,
                "{backend:?} {before} {after}"
            );
            let state = last.operator("count").unwrap();
            assert_eq!(
                collected(state.entries::<u64, _>(TOTAL)).into_iter().collect::<BTreeMap<_, _>>(),
                expected.totals
            );
            assert_eq!(
                collected(state.entries::<u64, _>(TIMES)).into_iter().collect::<BTreeMap<_, _>>(),
                expected.times
            );
        }
    }
}

const LIMIT: Value<u64> = Value::new("limit");
const NOTES: List<String> = List::new("notes");

/// Emits the limit of a key, how many notes it has, and the timers that fire.
#[derive(Clone)]
struct Limits;

impl ProcessFunction<u64, Number> for Limits {
    type Out = (u64, u64, u64);

    fn states(&self, states: &mut rivermark::States<'_, u64>) {
        states.has(LIMIT);
        states.has(NOTES);
    }

    fn on_record(
        &mut self,
        key: &u64,
        _: Number,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        let notes = cx.state(NOTES).get()?.len() as u64;
        let limit = cx.state(LIMIT).get()?.unwrap_or(0);
        cx.emit((*key, limit, notes));
        Ok(())
    }

    fn on_timer(
        &mut self,
        key: &u64,
        time: Timestamp,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        cx.emit((*key, u64::MAX, time.millis() as u64));
        Ok(())
    }
}

/// The flow with `limits` in the place of `by-second`.
fn with_limits() -> Flow {
    let flow = Flow::new("numbers").version(2);
    flow.source(LogSource::<Number>::topic("numbers").until_end())
        .event_time(
            |number| Timestamp::from_millis(number.1),
            rivermark::Watermarks::bounded(rivermark::millis(2000)),
        )
        .key_by(|number| number.0)
        .process(Limits)
        .named("limits")
        .sink(LogSink::topic("limits"));
    flow
}

#[test]
fn an_operator_is_bootstrapped_and_others_are_dropped() {
    for backend in backends() {
        for workers in [1, 3] {
            let directory = tempfile::tempdir().unwrap();
            let (engine, savepoint) = half_way(directory.path(), backend, 2);
            let mut editor = savepoint.edit();
            editor.drop_operator("count").unwrap();
            editor.drop_operator("by-second").unwrap();
            let mut limits = editor.add_operator("limits").unwrap();
            assert_eq!(limits.put_all(LIMIT, (0..KEYS).map(|key| (key, key * 10))).unwrap(), KEYS);
            limits
                .put_all(NOTES, (0..KEYS).map(|key| (key, vec!["x".to_owned(); key as usize % 4])))
                .unwrap();
            limits.put_timer("timers", Timestamp::from_millis(20_000), &3_u64).unwrap();
            limits.put_timer("timers", Timestamp::from_millis(20_000), &4_u64).unwrap();
            limits.remove_timer("timers", Timestamp::from_millis(20_000), &4_u64).unwrap();
            assert_eq!(collected(limits.timers::<u64>("timers")), [(Timestamp::from_millis(20_000), 3)]);
            let edited = editor.write_to(directory.path().join("edited")).unwrap();
            assert_eq!(edited.operators(), ["limits"]);
            assert!(edited.check(with_limits()).unwrap().can_start);
            drop(engine);
            let engine = open(directory.path(), workers, backend);
            append(engine.log(), numbers(HALF, HALF + KEYS));
            engine.start_from(with_limits(), edited).unwrap().wait().unwrap();
            let mut expected: Vec<_> = (0..KEYS).map(|key| (key, key * 10, key % 4)).collect();
            expected.push((3, u64::MAX, 20_000));
            expected.sort();
            assert_eq!(rows::<(u64, u64, u64)>(engine.log(), "limits"), expected);
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_its_operator_and_savepoint() {
    let directory = tempfile::tempdir().unwrap();
    let (_engine, savepoint) = half_way(directory.path(), StateBackend::Memory, 2);
    let says = |error: rivermark::Error, parts: &[&str]| {
        let error = error.to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not in: {error}"));
    };
    let named = ["`half`", "`count`"];
    let nobody = savepoint.operator("nobody").unwrap_err();
    says(nobody, &["`half`", "`nobody`", "there are `by-second`, `count`"]);
    let count = savepoint.operator("count").unwrap();
    let wrong = count.entries::<u64, _>(Value::<String>::new("total")).unwrap_err();
    says(wrong, &[&named[..], &["total", "Value of u64 -> u64", "Value of u64 -> String"]].concat());
    let kind = count.entries::<u64, _>(List::<u64>::new("total")).unwrap_err();
    says(kind, &[&named[..], &["Value of u64 -> u64", "List of u64 -> u64"]].concat());
    let gone = count.get(Value::<u64>::new("sum"), &1_u64).unwrap_err();
    says(gone, &[&named[..], &["no state Value sum", "Map by-digit of u64 -> u8 -> u64"]].concat());
    let newer = count.get(Value::<u64>::new("total").version(2), &1_u64).unwrap_err();
    says(newer, &[&named[..], &["version 1", "version 2", "no migration from version 1"]].concat());
    let migrated = savepoint.operator("count").unwrap();
    let migrated = migrated.migrated("total", Migrations::new().from(1, |total: u64| total.to_string()));
    let text = migrated.get(Value::<String>::new("total").version(2), &1_u64).unwrap();
    assert_eq!(text, Some(model(HALF).totals[&1].to_string()));

    let mut editor = savepoint.edit();
    says(editor.add_operator("count").unwrap_err(), &["`count`", "`half`", "drop the operator first"]);
    says(editor.drop_operator("nobody").unwrap_err(), &["`nobody`", "`half`"]);
    let mut count = editor.operator("count").unwrap();
    says(count.drop_state("sum").unwrap_err(), &["no state `sum`", "`total`"]);
    let key = count.put(Map::<u8, u8>::new("other"), ("text".to_owned(), 1), 1).unwrap_err();
    says(key, &["String -> u8 -> u8", "u64"]);
    let taken = editor.write_to(savepoint.folder().unwrap()).unwrap_err();
    says(taken, &["`half`", "there is a savepoint in"]);
    editor.write_to(directory.path().join("again")).unwrap().verify().unwrap();
}

/// Whether a flow starts from a savepoint, by starting it.
fn starts(directory: &Path, flow: Flow, savepoint: &Savepoint) -> bool {
    let engine = open(directory, 2, StateBackend::Memory);
    engine.start_from(flow, savepoint).and_then(|job| job.wait()).is_ok()
}

/// A flow, whether it can start, and what the check says besides.
type Case = (fn() -> Flow, bool, &'static [&'static str]);

#[test]
fn a_check_says_what_the_start_does() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, savepoint) = half_way(directory.path(), StateBackend::Memory, 2);
    drop(engine);
    let same = savepoint.check(flow("numbers", 2, false)).unwrap();
    assert!(same.can_start, "{same}");
    assert!(
        same.to_string().contains("version 2 of flow `numbers` can start from savepoint `half`"),
        "{same}"
    );
    let flows: [Case; 3] = [
        (|| flow("numbers", 2, false), true, &["count", "by-second", "checked when it is first used"]),
        (with_limits, false, &["holds state of `by-second`", "holds state of `count`"]),
        (
            || {
                let flow = with_limits();
                flow.drop_operator("count");
                flow.drop_operator("by-second");
                flow
            },
            true,
            &["dropped", "limits", "new"],
        ),
    ];
    for (flow, can_start, says) in &flows {
        let (flow, can_start) = (*flow, *can_start);
        let check = savepoint.check(flow()).unwrap();
        let text = check.to_string();
        for part in *says {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        assert_eq!(check.can_start, can_start, "{text}");
        assert_eq!(starts(directory.path(), flow(), &savepoint), can_start, "{text}");
        let json = serde_json::to_value(&check).unwrap();
        assert_eq!((&json["can_start"], &json["savepoint"]), (&can_start.into(), &"half".into()));
    }
    let dropped = savepoint.check(flows[2].0()).unwrap();
    let total = dropped.states.iter().find(|state| state.state == "total").unwrap();
    assert_eq!((total.operator.as_str(), &total.verdict), ("count", &Verdict::Dropped));
}
