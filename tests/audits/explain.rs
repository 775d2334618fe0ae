//! A published row is explained by the records that it was made of, and those that were late for it: compared with what a plain program says.

use crate::support::{Number, PARTITIONS, append, flow, numbers, open, tamper};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Isolation, Position};
use rivermark::{
    Contribution, Engine, Explain, Explanation, Flow, Made, Timestamp, Watermarks, Windowed, Windows, millis,
    secs,
};
use std::collections::BTreeMap;

/// An engine whose flow has run in three parts, on other workers each time, and what it has read.
fn published() -> (tempfile::TempDir, Engine, Vec<Number>) {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 1000));
    let job = engine.start(flow(None, false)).unwrap();
    crate::support::read(&job, 1000);
    job.stop();
    job.wait().unwrap();
    (directory, engine, numbers(0, 1000).collect())
}

/// The rows of a topic, with their places.
fn rows<T: serde::de::DeserializeOwned>(engine: &Engine, topic: &str) -> Vec<(u32, u64, T)> {
    let found = engine.log().topic(topic).unwrap();
    let mut rows = Vec::new();
    for partition in 0..found.partitions() {
        let mut reader = found.reader(partition, Position::Earliest, Isolation::ReadCommitted).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            let parse = |bytes: Option<&[u8]>| serde_json::from_slice(bytes.unwrap()).unwrap();
            rows.extend(batch.map(|row| (partition, row.offset, parse(row.value))));
        }
    }
    rows
}

fn explain(engine: &Engine, topic: &str, (partition, offset): (u32, u64)) -> Explanation {
    engine.explain(flow(None, false), Explain::row(topic, partition, offset)).unwrap()
}

fn of(contributions: &[Contribution]) -> Vec<Number> {
    let number = |c: &Contribution| {
        let record = c.record.as_ref().unwrap();
        let number: Number = serde_json::from_str(record.value.as_ref().unwrap()).unwrap();
        assert_eq!(c.time, Timestamp::from_millis(number.2));
        let place = c.place.as_ref().unwrap();
        assert_eq!(place.partition, format!("numbers[{}]", number.1 % u64::from(PARTITIONS)));
        number
    };
    let mut numbers: Vec<Number> = contributions.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// The watermark of each number's partition just before it.
fn watermarks(numbers: &[Number]) -> BTreeMap<u64, i64> {
    let mut highest = BTreeMap::new();
    let mut before = BTreeMap::new();
    for number in numbers {
        let highest = highest.entry(number.1 % u64::from(PARTITIONS)).or_insert(i64::MIN);
        before.insert(number.0, highest.saturating_sub(500));
        *highest = number.2.max(*highest);
    }
    before
}

#[test]
fn a_row_of_a_window_is_explained_by_its_records_and_those_that_were_late_for_it() {
    let (_directory, engine, numbers) = published();
    let watermarks = watermarks(&numbers);
    let all = rows::<(u64, i64, u64)>(&engine, "windows");
    for (partition, offset, (key, start, sum)) in all.into_iter().step_by(17) {
        let explained = explain(&engine, "windows", (partition, offset));
        let within = |n: &&Number| n.1 == key && (start..start + 1000).contains(&n.2);
        let (late, on_time): (Vec<Number>, Vec<Number>) =
            numbers.iter().filter(within).partition(|n| start + 1000 <= watermarks[&n.0]);
        assert_eq!(of(&explained.contributing), on_time, "{explained}");
        assert_eq!(of(&explained.left_out), late, "{explained}");
        assert_eq!(explained.contributing.len() as u64, explained.contributing_records);
        assert_eq!(on_time.iter().map(|n| n.0).sum::<u64>(), sum);
        let at = Timestamp::from_millis;
        assert_eq!(explained.made, Made::Window { start: at(start), end: at(start + 1000) });
        assert!(explained.watermark.unwrap() >= at(start + 1000), "{explained}");
        assert_eq!(explained.operator.as_deref(), Some("window-1"));
    }
}

#[test]
fn a_row_of_a_session_is_explained_by_the_records_that_it_counts() {
    let (_directory, engine, _) = published();
    let all = rows::<(u64, i64, u64)>(&engine, "sessions");
    for (partition, offset, (key, start, count)) in all.into_iter().step_by(170) {
        let explained = explain(&engine, "sessions", (partition, offset));
        let contributing = of(&explained.contributing);
        assert_eq!(contributing.len() as u64, count, "{explained}");
        assert!(contributing.iter().all(|n| n.0 % 50 == key), "{explained}");
        let Made::Session { start: found, .. } = explained.made else { panic!("{explained}") };
        assert_eq!(found.millis(), start);
    }
}

#[test]
fn a_row_of_a_function_is_explained_by_what_it_had_been_given_of_the_key() {
    let (_directory, engine, _) = published();
    let all = rows::<(u64, u64, u64)>(&engine, "totals");
    for (partition, offset, (number, key, total)) in all.into_iter().step_by(300) {
        let explained = explain(&engine, "totals", (partition, offset));
        let contributing = of(&explained.contributing);
        assert!(contributing.iter().all(|n| n.1 == key));
        assert_eq!(contributing.iter().map(|n| n.0).sum::<u64>(), total, "{explained}");
        assert_eq!(contributing.last().unwrap().0, number, "the one that it was made on");
    }
    let last = rows::<(u64, u64, u64)>(&engine, "totals").last().map(|row| (row.0, row.1)).unwrap();
    let few = Explain::row("totals", last.0, last.1).at_most(3);
    let few = engine.explain(flow(None, false), few).unwrap();
    assert!(few.contributing.len() == 3 && few.contributing_records > 100, "{few}");
}

#[test]
fn joined_rows_are_explained_by_both_sides_and_rows_of_single_records_by_these() {
    let (_directory, engine, numbers) = published();
    let (partition, offset, (third, fifth)) = rows::<(u64, u64)>(&engine, "pairs").pop().unwrap();
    let explained = explain(&engine, "pairs", (partition, offset));
    let given: Vec<u64> = of(&explained.contributing).into_iter().map(|n| n.0).collect();
    assert!(given.contains(&third) && given.contains(&fifth), "{explained}");
    let (partition, offset, late) = rows::<Number>(&engine, "late").pop().unwrap();
    let explained = explain(&engine, "late", (partition, offset));
    assert_eq!((explained.made, explained.operator.as_deref()), (Made::Record, None));
    let record = explained.contributing[0].record.as_ref().unwrap();
    assert_eq!(serde_json::from_str::<Number>(record.value.as_ref().unwrap()).unwrap(), late);
    assert!(numbers.contains(&late));
}

/// The greatest count of a second's keys, by two keyed operators, one behind the other.
fn greatest() -> Flow {
    let flow = Flow::new("greatest");
    flow.source(LogSource::<Number>::topic("numbers"))
        .event_time(|n| Timestamp::from_millis(n.2), Watermarks::bounded(millis(500)))
        .key_by(|n| n.1)
        .window(Windows::tumbling(secs(1)))
        .count()
        .key_by(|_| ())
        .window(Windows::tumbling(secs(1)))
        .max(|row: &Windowed<u64, u64>| row.value)
        .map(|row| (row.window.start.millis(), row.value))
        .sink(LogSink::topic("greatest"));
    flow
}

#[test]
fn a_row_of_rows_is_explained_by_how_many_there_were_and_when() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 1000));
    let job = engine.start(greatest()).unwrap();
    crate::support::read(&job, 1000);
    job.stop();
    job.wait().unwrap();
    let (partition, offset, (start, _)) = rows::<(i64, u64)>(&engine, "greatest").swap_remove(4);
    let explained = engine.explain(greatest(), Explain::row("greatest", partition, offset)).unwrap();
    assert_eq!((explained.operator.as_deref(), explained.contributing_records), (Some("window-2"), 7));
    let last = Timestamp::from_millis(start + 999);
    assert!(explained.contributing.iter().all(|row| row.place.is_none() && row.time == last), "{explained}");
}

#[test]
fn a_row_that_is_not_there_or_was_not_computed_is_refused_and_says_why() {
    let (_directory, engine, _) = published();
    let refused = |topic: &str, partition, offset| {
        let explained = engine.explain(flow(None, false), Explain::row(topic, partition, offset));
        explained.unwrap_err().to_string()
    };
    let error = refused("windows", 0, 1_000_000);
    assert!(error.contains("windows[0] offset 1000000"), "{error}");
    let error = refused("numbers", 0, 1);
    assert!(error.contains("no sink that writes this topic"), "{error}");
    tamper(engine.log(), "totals", |_, rows| rows[7].1.as_mut().unwrap()[1] ^= 1);
    let error = refused("totals", 0, 7);
    assert!(error.contains("does not compute this row"), "{error}");
}
