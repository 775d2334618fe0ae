//! Dead letters are listed and put in again: once, whatever dies when, and with the same outcome in every later replay.

use crate::support::{audit, open};
use rivermark::connectors::letters::{FROM_HEADER, REDRIVE_HEADER};
use rivermark::connectors::{DeadLetters, FiledLetter, LogSink, LogSource, Redriven};
use rivermark::log::{Isolation, Log, Position, RecordBatch, TopicOptions};
use rivermark::source::RawRecord;
use rivermark::{BoxError, DeadLetter, Engine, Flow, OnError, Timestamp, Watermarks, Windows, secs};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// Numbers as text, of which every tenth has a comma where a point should be; a key and a timestamp each.
fn append(log: &Log, numbers: std::ops::Range<u64>) {
    let topic = log.ensure_topic("texts", TopicOptions::new(2)).unwrap();
    let mut batches = [RecordBatch::new(), RecordBatch::new()];
    for n in numbers {
        let text = if n % 10 == 3 { format!("{n},5") } else { format!("{n}.5") };
        let header = [("origin", Some(&b"shop"[..]))];
        let key = n.to_be_bytes();
        batches[(n % 2) as usize].push_with_headers(Some(&key), Some(text.as_bytes()), n as i64, &header);
    }
    for (partition, batch) in (0..).zip(&mut batches).filter(|(_, batch)| !batch.is_empty()) {
        topic.append(partition, batch).unwrap();
    }
}

/// Sums numbers by second; what is no number becomes a letter.
fn flow(version: u64, topics: &[&str]) -> Flow {
    let flow = Flow::new("parsing").version(version);
    flow.dead_letters_to(LogSink::output("failed"));
    let read = |topic: &&str| {
        let source = LogSource::<String>::topic(*topic).text().until_end();
        let texts = flow.source(source).named(topic);
        let time = |text: &String| {
            let whole = text.split([',', '.']).next().and_then(|whole| whole.parse().ok());
            Timestamp::from_millis(whole.unwrap_or(0) * 100)
        };
        texts.event_time(time, Watermarks::bounded(secs(1)))
    };
    let texts = topics.iter().map(read).reduce(rivermark::Stream::union).unwrap();
    texts
        .try_map(|text| Ok(text.parse::<f64>()?))
        .named("parse")
        .on_error(OnError::DeadLetter)
        .key_by(|_| ())
        .window(Windows::tumbling(secs(10)))
        .late_output(|late| late.map(|late| late.value).sink_as("late", LogSink::output("late")))
        .sum(|number: &f64| *number as u64)
        .map(|row| (row.window.start.millis(), row.value))
        .sink(LogSink::output("sums"));
    flow
}

fn letters(engine: &Engine, version: u64) -> DeadLetters {
    DeadLetters::of_topic(engine.log(), format!("failed.v{version}"))
}

fn listed(letters: &DeadLetters) -> Vec<FiledLetter> {
    letters.list().unwrap().collect::<Result<_, _>>().unwrap()
}

fn mend(letter: &DeadLetter) -> Result<Option<RawRecord>, BoxError> {
    let text = String::from_utf8(letter.value().unwrap_or_default().to_vec())?;
    let value = Some(text.replace(',', ".").into_bytes());
    Ok(Some(RawRecord { key: letter.key().map(<[u8]>::to_vec), value }))
}

/// The records of a topic: partition, value, timestamp, and headers as text.
type Record = (u32, String, i64, BTreeMap<String, String>);

fn records(log: &Log, topic: &str) -> Vec<Record> {
    let topic = log.topic(topic).unwrap();
    let mut records = Vec::new();
    for partition in 0..topic.partitions() {
        let mut reader = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            records.extend(batch.map(|row| {
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                let headers = row.headers().map(|(name, value)| (name.to_owned(), text(value)));
                (partition, text(row.value), row.timestamp, headers.collect())
            }));
        }
    }
    records
}

#[test]
fn letters_are_listed_by_flow_version_operator_error_and_time() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), 0..100);
    engine.run(flow(1, &["texts"])).unwrap();
    let all = letters(&engine, 1);
    assert_eq!(listed(&all).len(), 10);
    let first = &listed(&all)[0];
    assert_eq!((first.letter.partition(), first.letter.offset()), (Some("texts[1]"), Some(1)));
    assert_eq!((first.letter.value(), first.redriven_by.len()), (Some(&b"3,5"[..]), 0));
    let at = Timestamp::from_millis;
    for (some, count) in [
        (all.clone().flow("parsing").version(1).operator("parse").error("invalid float"), 10),
        (all.clone().flow("others"), 0),
        (all.clone().version(2), 0),
        (all.clone().operator("windows"), 0),
        (all.clone().error("timeout"), 0),
        (all.clone().from(at(2300)).before(at(5300)), 3),
    ] {
        assert_eq!(listed(&some).len(), count);
    }
    let error = DeadLetters::of_topic(engine.log(), "texts").list().unwrap().find_map(Result::err);
    let error = error.unwrap().to_string();
    assert!(error.contains("texts[0] offset 0 is no letter"), "{error}");
}

#[test]
fn a_redriven_record_is_put_in_once_where_it_came_from_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), 0..100);
    engine.run(flow(1, &["texts"])).unwrap();
    let all = letters(&engine, 1);
    // Those of the first half, and not the first of all.
    let some = all.clone().before(Timestamp::from_millis(5000));
    let but_one = |letter: &DeadLetter| if letter.offset() == Some(1) { Ok(None) } else { mend(letter) };
    let redriven = some.redrive("first").mend(but_one).run().unwrap();
    assert_eq!((redriven.total(), redriven.left, redriven.already), (4, 1, 0), "{redriven}");
    let again = some.redrive("first").mend(but_one).run().unwrap();
    assert_eq!((again.total(), again.left, again.already), (0, 1, 4), "{again}");
    let rest = all.redrive("rest").mend(mend).run().unwrap();
    assert_eq!((rest.total(), rest.already), (6, 4), "{rest}");
    assert_eq!(listed(&all.clone().not_redriven()).len(), 0);
    let names: Vec<_> = listed(&all).into_iter().map(|filed| filed.redriven_by).collect();
    assert_eq!(names[0], ["rest"]);
    assert_eq!(names[1], ["first"]);

    let put_in: Vec<Record> = records(engine.log(), "texts").split_off(100);
    assert_eq!(put_in.len(), 10);
    let (partition, value, timestamp, headers) = &put_in[0];
    assert_eq!((*partition, &**value, *timestamp), (1, "13.5", 13), "its partition, and its own timestamp");
    assert_eq!(
        (&*headers["origin"], &*headers[REDRIVE_HEADER], &*headers[FROM_HEADER]),
        ("shop", "first", "texts[1]@6")
    );

    // As they were, for whoever says so; under that name once more only.
    let more = || all.redrive("once more").again().run().unwrap();
    assert_eq!((more().total(), more().total()), (10, 0));
    assert_eq!(records(engine.log(), "texts").len(), 120);
}

#[test]
fn a_later_replay_comes_to_the_outcome_that_the_redrive_had() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), 0..500);
    engine.run(flow(1, &["texts"])).unwrap();
    letters(&engine, 1).redrive("points").mend(mend).run().unwrap();
    append(engine.log(), 500..600);
    engine.run(flow(1, &["texts"])).unwrap();
    let outputs = |version: u64| {
        ["sums", "late", "failed"].map(|output| {
            let values = records(engine.log(), &format!("{output}.v{version}"));
            let mut values: Vec<String> = values.into_iter().map(|record| record.1).collect();
            values.iter_mut().for_each(|value| *value = value.replace("\"version\":2", "\"version\":1"));
            values.sort();
            values
        })
    };
    // The end of the run had closed the windows: what came behind is late, and late again.
    let [sums, late, failed] = outputs(1);
    assert!(
        (sums.len(), late.len(), failed.len()) == (6, 50, 60),
        "{} {} {}",
        sums.len(),
        late.len(),
        failed.len()
    );
    engine.run(flow(2, &["texts"])).unwrap();
    assert_eq!(outputs(2), [sums, late, failed]);
    for version in [1, 2] {
        assert!(audit(&engine, flow(version, &["texts"]), 1).is_identical());
    }
    // What both versions have letters of was put in by one of them, and the ten new ones are left.
    assert_eq!(listed(&letters(&engine, 1).not_redriven()).len(), 10);
    let left = letters(&engine, 2).redrive("the rest").mend(mend).run().unwrap();
    assert_eq!((left.total(), left.already), (10, 50), "{left}");
}

#[test]
fn records_that_are_redriven_into_a_topic_of_their_own_come_at_their_time_in_the_next_replay() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), 0..500);
    engine.run(flow(1, &["texts"])).unwrap();
    engine.log().create_topic("mended", TopicOptions::new(1)).unwrap();
    let redriven = letters(&engine, 1).redrive("points").into_topic("mended").mend(mend).run().unwrap();
    assert_eq!(redriven.records, BTreeMap::from([("mended".to_owned(), 50)]));
    engine.run(flow(2, &["texts", "mended"])).unwrap();
    assert_eq!(records(engine.log(), "late.v2").len(), 0);
    let sums: u64 = records(engine.log(), "sums.v2")
        .iter()
        .map(|row| serde_json::from_str::<(i64, u64)>(&row.1).unwrap().1)
        .sum();
    assert_eq!(sums, (0..500).sum::<u64>());
}

const DIRECTORY: &str = "RIVERMARK_TEST_DIRECTORY";
const DIES_AFTER: &str = "RIVERMARK_TEST_DIES_AFTER";
const LETTERS: u64 = 3000;

#[test]
#[ignore = "the process that dies in the test below"]
fn redrives_until_it_dies() {
    let engine = open(std::path::Path::new(&std::env::var_os(DIRECTORY).unwrap()), 1);
    let left: i64 = std::env::var(DIES_AFTER).unwrap().parse().unwrap();
    let left = std::sync::atomic::AtomicI64::new(left);
    let dying = move |letter: &DeadLetter| {
        if left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            let process = rustix::process::getpid();
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        }
        mend(letter)
    };
    let _: Redriven = letters(&engine, 1).redrive("killed").mend(dying).run().unwrap();
}

#[test]
fn a_redrive_that_is_killed_anywhere_has_put_in_every_record_once_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 1);
    append(engine.log(), 0..LETTERS * 10);
    engine.run(flow(1, &["texts"])).unwrap();
    drop(engine);
    let redrive = |dies_after: i64| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "redrive::redrives_until_it_dies"])
            .env(DIRECTORY, directory.path())
            .env(DIES_AFTER, dies_after.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let put_in = |log: &Log| records(log, "texts").len() as u64 - LETTERS * 10;
    let mut seen = Vec::new();
    // By itself between two transactions and within one, and from outside as soon as something has come in.
    for dies_after in [300, 750, -1, 500] {
        let mut process = redrive(dies_after);
        if dies_after < 0 {
            let until = std::time::Instant::now() + crate::support::DEADLINE;
            let before = *seen.last().unwrap();
            let log =
                Log::open_read_only(directory.path().join("log"), rivermark::log::LogOptions::new()).unwrap();
            while put_in(&log) <= before && process.try_wait().unwrap().is_none() {
                assert!(std::time::Instant::now() < until);
                std::thread::yield_now();
            }
            let _ = process.kill();
        }
        let status = process.wait().unwrap();
        assert!(status.signal() == Some(9) || dies_after < 0, "{status}");
        let engine = open(directory.path(), 1);
        seen.push(put_in(engine.log()));
    }
    assert_eq!(seen[..2], [0, 500], "{seen:?}");
    assert!(seen.is_sorted() && *seen.last().unwrap() > 0);
    let engine = open(directory.path(), 1);
    let last = letters(&engine, 1).redrive("killed").mend(mend).run().unwrap();
    assert_eq!((last.total(), last.already), (LETTERS - seen[3], seen[3]), "{seen:?}");
    let mut all: Vec<String> = records(engine.log(), "texts").into_iter().map(|record| record.1).collect();
    all.retain(|text| text.split('.').next().unwrap().parse::<u64>().is_ok_and(|n| n % 10 == 3));
    all.sort();
    let mut expected: Vec<String> = (0..LETTERS).map(|n| format!("{}.5", n * 10 + 3)).collect();
    expected.sort();
    assert!(all == expected, "{} records", all.len());
}
