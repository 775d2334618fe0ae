//! Savepoints that hold states with a time to live: read and edited with their deadlines, and gone on with.

use crate::golden::FORMAT;
use crate::support::{Number, append, backends, copy, numbers, open, rows, wait_for};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{
    BoxError, Context, Expiring, Flow, List, Map, ProcessFunction, Reducing, Savepoint, StateBackend, Timed,
    Timestamp, Ttl, Value, Watermarks, millis,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FIRST: Expiring<Value<i64>> = Value::new("first").expiring(Ttl::after_write(millis(1000)));
const COUNT: Expiring<Reducing<u64>> = Reducing::new("count").expiring(Ttl::after_write(millis(450)));
const RECENT: Expiring<List<i64>> = List::new("recent").expiring(Ttl::after_write(millis(1000)));
const BY_DIGIT: Expiring<Map<u8, u64>> = Map::new("by-digit").expiring(Ttl::after_write(millis(2000)));

const HALF: u64 = 1_000;
const ALL: u64 = 1_600;

/// Key, time, the first time in a second, how many in a row, the last ones, how many digits of the last seconds.
type Row = (u64, i64, i64, u64, Vec<i64>, Vec<(u8, u64)>);

#[derive(Clone)]
struct Visits;

impl ProcessFunction<u64, Number> for Visits {
    type Out = Row;

    fn on_record(
        &mut self,
        key: &u64,
        (_, time): Number,
        cx: &mut Context<'_, u64, Row>,
    ) -> Result<(), BoxError> {
        let first = cx.state(FIRST).get()?;
        if first.is_none() {
            cx.state(FIRST).set(time)?;
        }
        cx.state(COUNT).add(1, |count, one| *count += one)?;
        let count = cx.state(COUNT).get()?.unwrap_or(0);
        cx.state(RECENT).push(time)?;
        let digit = (time / 1000 % 10) as u8;
        let same = cx.state(BY_DIGIT).get(&digit)?.unwrap_or(0);
        cx.state(BY_DIGIT).put(digit, same + 1)?;
        let (recent, digits) = (cx.state(RECENT).get()?, cx.state(BY_DIGIT).entries()?);
        cx.emit((*key, time, first.unwrap_or(time), count, recent, digits));
        Ok(())
    }
}

fn flow(live: bool) -> Flow {
    let flow = Flow::new("visits");
    let source = LogSource::<Number>::topic("numbers");
    flow.source(if live { source } else { source.until_end() })
        .event_time(|number| Timestamp::from_millis(number.1), Watermarks::bounded(millis(100)))
        .key_by(|number| number.0)
        .process(Visits)
        .named("visits")
        .sink(LogSink::topic("visits"));
    flow
}

/// The function's state as plain maps of what is stored: values with their deadlines, `i64::MAX` for none.
#[derive(Default, Debug, PartialEq)]
struct Model {
    first: BTreeMap<u64, (i64, i64)>,
    count: BTreeMap<u64, (i64, u64)>,
    recent: BTreeMap<u64, Vec<(i64, i64)>>,
    by_digit: BTreeMap<(u64, u8), (i64, u64)>,
}

impl Model {
    fn behind(count: u64) -> Model {
        let mut model = Model::default();
        numbers(0, count).for_each(|number| _ = model.take(number));
        model
    }

    fn take(&mut self, (key, now): Number) -> Row {
        let first = self.first.get_mut(&key).filter(|(deadline, _)| now < *deadline);
        let first = match first {
            Some((deadline, first)) => {
                // It begins to live when it is used.
                *deadline = if *deadline == i64::MAX { now + 1000 } else { *deadline };
                *first
            }
            None => {
                self.first.insert(key, (now + 1000, now));
                now
            }
        };
        let count = self.count.get(&key).filter(|(deadline, _)| now < *deadline).map_or(1, |(_, n)| n + 1);
        self.count.insert(key, (now + 450, count));
        let recent = self.recent.entry(key).or_default();
        recent.push((now + 1000, now));
        recent.retain(|(deadline, _)| now < *deadline);
        let digit = (now / 1000 % 10) as u8;
        let same = self.by_digit.get(&(key, digit)).filter(|(deadline, _)| now < *deadline);
        let same = same.map_or(1, |(_, n)| n + 1);
        self.by_digit.insert((key, digit), (now + 2000, same));
        let digits = self.by_digit.range((key, 0)..=(key, u8::MAX)).filter(|(_, (d, _))| now < *d);
        let digits = digits.map(|((_, digit), (_, n))| (*digit, *n)).collect();
        (key, now, first, count, recent.iter().map(|(_, time)| *time).collect(), digits)
    }

    /// Without what has expired at `now`: that may be stored or not.
    fn living(mut self, now: i64) -> Model {
        self.first.retain(|_, (deadline, _)| now < *deadline);
        self.count.retain(|_, (deadline, _)| now < *deadline);
        self.recent.values_mut().for_each(|items| items.retain(|(deadline, _)| now < *deadline));
        self.recent.retain(|_, items| !items.is_empty());
        self.by_digit.retain(|_, (deadline, _)| now < *deadline);
        self
    }

    /// What is stored in a savepoint.
    fn stored(savepoint: &Savepoint) -> Model {
        fn of<T>(timed: Timed<T>) -> (i64, T) {
            (timed.deadline().unwrap_or(i64::MAX), timed.into_value())
        }
        let state = savepoint.operator("visits").unwrap();
        let mut model = Model::default();
        for entry in state.entries::<u64, _>(FIRST.stored()).unwrap() {
            let (key, timed) = entry.unwrap();
            model.first.insert(key, of(timed));
        }
        for entry in state.entries::<u64, _>(COUNT.stored()).unwrap() {
            let (key, timed) = entry.unwrap();
            model.count.insert(key, of(timed));
        }
        for entry in state.entries::<u64, _>(RECENT.stored()).unwrap() {
            let (key, items) = entry.unwrap();
            model.recent.insert(key, items.into_iter().map(of).collect());
        }
        for entry in state.entries::<(u64, u8), _>(BY_DIGIT.stored()).unwrap() {
            let (place, timed) = entry.unwrap();
            model.by_digit.insert(place, of(timed));
        }
        model
    }
}

/// The time of the last of the first so many numbers.
fn last(count: u64) -> i64 {
    (count - 1) as i64 * 10
}

fn half_way(directory: &Path, backend: StateBackend) -> Savepoint {
    let engine = open(directory, 2, backend);
    append(engine.log(), numbers(0, HALF));
    let job = engine.start(flow(true)).unwrap();
    wait_for(&job, HALF);
    job.stop_with_savepoint("half").unwrap()
}

/// Goes on from a savepoint; what a model says from there on.
fn goes_on(directory: &Path, backend: StateBackend, savepoint: Savepoint, mut model: Model) {
    let engine = open(directory, 3, backend);
    append(engine.log(), numbers(HALF, ALL));
    engine.start_from(flow(false), savepoint).unwrap().wait().unwrap();
    let mut written = rows::<Row>(engine.log(), "visits");
    written.retain(|row| row.1 > last(HALF));
    let mut expected: Vec<Row> = numbers(HALF, ALL).map(|number| model.take(number)).collect();
    expected.sort();
    assert_eq!(written, expected, "{backend:?}");
}

#[test]
fn states_with_a_time_to_live_are_read_with_their_deadlines_and_gone_on_with() {
    for backend in backends() {
        let directory = tempfile::tempdir().unwrap();
        let savepoint = half_way(directory.path(), backend);
        let stored = Model::stored(&savepoint).living(last(HALF));
        assert_eq!(stored, Model::behind(HALF).living(last(HALF)), "{backend:?}");
        assert_ne!(stored, Model::behind(HALF), "some have expired");
        goes_on(directory.path(), backend, savepoint, stored);
    }
}

#[test]
fn deadlines_that_are_edited_count_when_a_job_goes_on() {
    for backend in backends() {
        let directory = tempfile::tempdir().unwrap();
        let savepoint = half_way(directory.path(), backend);
        let mut model = Model::stored(&savepoint);
        let mut editor = savepoint.edit();
        let mut visits = editor.operator("visits").unwrap();
        let forever = |key: &u64, first: Timed<i64>| match key % 4 {
            0 => Some(Timed::without_deadline(first.into_value())),
            1 => None,
            _ => Some(first),
        };
        visits.update(FIRST.stored(), forever).unwrap();
        model.first.retain(|key, _| key % 4 != 1);
        model.first.iter_mut().filter(|(key, _)| *key % 4 == 0).for_each(|(_, first)| first.0 = i64::MAX);
        let over = |key: &u64, count: Timed<u64>| {
            Some(if key.is_multiple_of(5) { Timed::until(0, count.into_value()) } else { count })
        };
        visits.update(COUNT.stored(), over).unwrap();
        model.count.retain(|key, _| key % 5 != 0);
        let later = last(HALF) + 2500;
        visits.put(RECENT.stored(), 3_u64, vec![Timed::until(later, 7), Timed::until(0, 8)]).unwrap();
        model.recent.insert(3, vec![(later, 7)]);
        visits.put(BY_DIGIT.stored(), (2_u64, 77_u8), Timed::until(later, 5)).unwrap();
        model.by_digit.insert((2, 77), (later, 5));
        let edited = editor.write_to(directory.path().join("edited")).unwrap();
        goes_on(directory.path(), backend, edited, model);
    }
}

fn golden(format: u32, backend: StateBackend) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    golden.join("expiring").join(format.to_string()).join(format!("{backend:?}").to_lowercase())
}

#[test]
#[ignore = "writes the golden files of a new format"]
fn writes_golden_files_of_states_with_a_time_to_live() {
    for backend in backends() {
        let golden = golden(FORMAT, backend);
        assert!(!golden.exists(), "{} is there: golden files are never changed", golden.display());
        let directory = tempfile::tempdir().unwrap();
        let savepoint = half_way(directory.path(), backend);
        copy(&savepoint.folder().unwrap(), &golden);
    }
}

#[test]
fn a_program_goes_on_with_the_states_with_a_time_to_live_of_every_format() {
    for format in 1..=FORMAT {
        for backend in backends() {
            let directory = tempfile::tempdir().unwrap();
            append(open(directory.path(), 1, backend).log(), numbers(0, HALF));
            copy(&golden(format, backend), &directory.path().join("golden"));
            let savepoint = Savepoint::open(directory.path().join("golden")).unwrap();
            savepoint.verify().unwrap();
            let stored = Model::stored(&savepoint).living(last(HALF));
            assert_eq!(stored, Model::behind(HALF).living(last(HALF)), "format {format}, {backend:?}");
            goes_on(directory.path(), backend, savepoint, stored);
        }
    }
}
