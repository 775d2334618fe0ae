//! The golden files of what was decided at the moment: when records were read, what a service answered, and how it failed.
//!
//! As in [`crate::golden`], but kept is what a later version of a flow repeats. The version that wrote the files goes on from its savepoint; the
//! next one begins anew, asks another service, and gives the same rows.

use crate::support::{copy, open, rows, wait_for};
use rivermark::connectors::{FromVec, LogSink, LogSource};
use rivermark::log::{Log, RecordBatch, TopicOptions};
use rivermark::{Engine, Flow, LookUp, Reply, Savepoint, StateBackend, Windows, millis};
use std::path::{Path, PathBuf};

const HALF: u64 = 1_200;
const ALL: u64 = 1_500;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1/journals")
}

fn append(log: &Log, requests: std::ops::Range<u64>) {
    let topic =
        log.topic("requests").or_else(|_| log.create_topic("requests", TopicOptions::new(2))).unwrap();
    for partition in 0..2 {
        let mut batch = RecordBatch::new();
        for request in requests.clone().filter(|n| n % 2 == partition) {
            batch.push(None, Some(&serde_json::to_vec(&request).unwrap()), 0);
        }
        topic.append(partition as u32, &mut batch).unwrap();
    }
}

/// Counts requests in windows of when they were read, and asks about each a service that has a mind of its own.
fn flow(version: u64, mind: u64, live: bool) -> Flow {
    let flow = Flow::new("journals").version(version);
    let source = LogSource::<u64>::topic("requests");
    let requests = flow.source(if live { source } else { source.until_end() });
    requests
        .clone()
        .processing_time(millis(1))
        .key_by(|request| request % 3)
        .window(Windows::tumbling(millis(2)))
        .count()
        .map(|row| (row.window.start.millis(), row.key, row.value))
        .sink(LogSink::topic(format!("times-{version}")));
    let ask = move |request: u64, reply: Reply<u64>| {
        let answer =
            if request.is_multiple_of(7) { Err(format!("no, says {mind}").into()) } else { Ok(mind) };
        reply.send(answer);
    };
    let answers = requests.look_up(
        LookUp::new(ask).retries(0, millis(1)),
        |request: &u64| *request,
        |request, answer: u64| (request, answer),
    );
    answers
        .dead_letters()
        .map(|letter| (letter.partition().unwrap_or_default().to_string(), letter.offset(), letter.error))
        .sink(LogSink::topic(format!("letters-{version}")));
    answers.sink(LogSink::topic(format!("answers-{version}")));
    flow
}

type Letter = (String, Option<u64>, String);
type Published = (Vec<(i64, u64, u64)>, Vec<(u64, u64)>, Vec<Letter>);

fn published(engine: &Engine, version: u64) -> Published {
    let topic = |name: &str| format!("{name}-{version}");
    let log = engine.log();
    (rows(log, &topic("times")), rows(log, &topic("answers")), rows(log, &topic("letters")))
}

#[test]
#[ignore = "writes the golden files of a new format"]
fn writes_golden_journals() {
    assert!(!folder().exists(), "{} is there: golden files are never changed", folder().display());
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2, StateBackend::Memory);
    append(engine.log(), 0..HALF);
    let job = engine.start(flow(1, 1, true)).unwrap();
    wait_for(&job, HALF);
    let savepoint = job.stop_with_savepoint("golden").unwrap();
    drop(engine);
    copy(&directory.path().join("log"), &folder().join("log"));
    std::fs::remove_file(folder().join("log/LOCK")).unwrap();
    copy(&savepoint.folder().unwrap(), &folder().join("savepoint"));
}

#[test]
fn the_journals_of_every_format_are_repeated_by_the_next_version_of_their_flow() {
    for (workers, replaying) in [(2, 3), (1, 2)] {
        let directory = tempfile::tempdir().unwrap();
        copy(&folder().join("log"), &directory.path().join("log"));
        copy(&folder().join("savepoint"), &directory.path().join("golden"));
        let savepoint = Savepoint::open(directory.path().join("golden")).unwrap();
        savepoint.verify().unwrap();
        let engine = open(directory.path(), workers, StateBackend::Memory);
        append(engine.log(), HALF..ALL);
        let job = engine.start_from(flow(1, 2, false), savepoint).unwrap();
        assert_eq!(job.wait().unwrap().records_read, ALL - HALF);
        drop(engine);
        // What it was started from is of no use any more: all is in the flow's own checkpoints.
        std::fs::remove_dir_all(directory.path().join("golden")).unwrap();

        let engine = open(directory.path(), replaying, StateBackend::Memory);
        engine.run(flow(2, 3, false)).unwrap();
        let (times, answers, letters) = published(&engine, 1);
        assert_eq!(published(&engine, 2), (times.clone(), answers.clone(), letters.clone()));
        assert_eq!(times.iter().map(|row| row.2).sum::<u64>(), ALL);
        let of = |mind: u64, range: std::ops::Range<u64>| {
            range.filter(|n| n % 7 != 0).map(move |request| (request, mind))
        };
        assert_eq!(answers, of(1, 0..HALF).chain(of(2, HALF..ALL)).collect::<Vec<_>>());
        let of =
            |mind: u64| letters.iter().filter(|letter| letter.2.contains(&format!("says {mind}"))).count();
        let failed = |range: std::ops::Range<u64>| range.filter(|n| n % 7 == 0).count();
        assert_eq!((of(1), of(2), letters.len()), (failed(0..HALF), failed(HALF..ALL), failed(0..ALL)));
    }
}

/// Asks a service about each request; or, for a time, reads something else.
fn asking(version: u64, mind: u64, reads_requests: bool) -> Flow {
    let flow = Flow::new("asking").version(version);
    let answers = if reads_requests {
        flow.drop_source("nothing");
        let requests = flow.source(LogSource::<u64>::topic("requests").until_end()).named("requests");
        let look_up = LookUp::new(move |_: u64, reply: Reply<u64>| reply.send(Ok(mind)));
        requests.look_up(look_up, |request: &u64| *request, |request, answer| (request, answer))
    } else {
        flow.drop_source("requests");
        flow.source(FromVec::new(vec![(0, 0); 0])).named("nothing")
    };
    answers.sink(LogSink::topic(format!("answers-{version}")));
    flow
}

#[test]
fn the_journal_of_a_source_that_was_dropped_for_a_time_is_there_when_it_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2, StateBackend::Memory);
    append(engine.log(), 0..HALF);
    engine.run(asking(1, 1, true)).unwrap();
    engine.run(asking(1, 2, false)).unwrap();
    append(engine.log(), HALF..ALL);
    engine.run(asking(1, 3, true)).unwrap();
    engine.run(asking(2, 4, true)).unwrap();
    let answers = |version| rows::<(u64, u64)>(engine.log(), &format!("answers-{version}"));
    let expected: Vec<_> = (0..ALL).map(|request| (request, if request < HALF { 1 } else { 3 })).collect();
    assert_eq!(answers(1), expected);
    assert_eq!(answers(2), expected);
}
