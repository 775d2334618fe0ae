use rivermark_connectors::conformance::{check_sink, check_source};
use rivermark_connectors::{LogSink, LogSource};
use rivermark_log::{Isolation, Log, LogOptions, MemoryDisk, Position, RecordBatch, Retention, TopicOptions};
use rivermark_operators::plan::Resources;
use rivermark_operators::sink::{Batch, CommitError, Epoch, Sink, SinkContext, SinkWriter};
use rivermark_operators::source::{
    ConnectorContext, Polled, RawRecord, Records, Source, SourceReader, Waker,
};
use rivermark_operators::{Stamp, Timestamp, Upsert};
use std::time::Duration;

fn log() -> (Log, Resources) {
    let log = Log::open("log", LogOptions::new().disk(MemoryDisk::new())).unwrap();
    let mut resources = Resources::default();
    resources.insert(log.clone());
    (log, resources)
}

fn append(log: &Log, partition: u32, values: impl IntoIterator<Item = u64>) {
    let mut batch = RecordBatch::new();
    values.into_iter().for_each(|value| batch.push(None, Some(value.to_string().as_bytes()), 0));
    log.topic("numbers").unwrap().append(partition, &mut batch).unwrap();
}

fn committed(log: &Log, topic: &str) -> Vec<u64> {
    let Ok(topic) = log.topic(topic) else { return Vec::new() };
    let mut rows = Vec::new();
    for partition in 0..topic.partitions() {
        let mut reader = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted).unwrap();
        while let Some(records) = reader.next_batch().unwrap() {
            rows.extend(records.map(|record| serde_json::from_slice::<u64>(record.value.unwrap()).unwrap()));
        }
    }
    rows
}

#[test]
fn a_topic_is_a_source_live_and_bounded() {
    let (log, resources) = log();
    log.create_topic("numbers", TopicOptions::new(2)).unwrap();
    append(&log, 0, 0..5);
    append(&log, 0, 5..6);
    append(&log, 0, 6..9);
    append(&log, 1, 0..3);
    check_source(&LogSource::<u64>::topic("numbers"), &resources);
    check_source(&LogSource::<u64>::topic("numbers").until_end(), &resources);
    check_source(&LogSource::<u64>::topic("numbers").starting_from(Position::Offset(3)), &resources);
}

#[test]
fn a_topic_is_a_sink() {
    let make = || {
        let (log, resources) = log();
        log.create_topic("out", TopicOptions::new(2)).unwrap();
        (LogSink::topic("out").key(|n: &u64| n.to_le_bytes().to_vec()), resources)
    };
    check_sink(make, |n| n, |_, resources| committed(resources.get::<Log>().unwrap(), "out"));
}

#[test]
fn a_bounded_source_ends_where_the_topic_ended_when_it_was_opened() {
    let (log, resources) = log();
    log.create_topic("numbers", TopicOptions::new(1)).unwrap();
    append(&log, 0, 0..5);
    let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
    let mut reader =
        LogSource::<u64>::topic("numbers").until_end().reader(0, None, Waker::none(), &cx).unwrap();
    append(&log, 0, 5..9);
    let mut batch = Batch::new();
    let polled = reader.poll(100, &mut Records::into_batch(&mut batch)).unwrap();
    assert_eq!((batch.values(), polled), (&[0, 1, 2, 3, 4][..], Polled::Ended));
}

#[test]
fn an_append_wakes_a_reader_at_the_tail() {
    let (log, resources) = log();
    log.create_topic("numbers", TopicOptions::new(1)).unwrap();
    let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
    let woken = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counts = std::sync::Arc::clone(&woken);
    let waker = Waker::new(move || {
        counts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    let mut reader = LogSource::<u64>::topic("numbers").reader(0, None, waker, &cx).unwrap();
    let mut batch = Batch::new();
    assert_eq!(reader.poll(9, &mut Records::into_batch(&mut batch)).unwrap(), Polled::Pending);
    append(&log, 0, [1]);
    assert!(woken.load(std::sync::atomic::Ordering::Relaxed) > 0);
    reader.poll(9, &mut Records::into_batch(&mut batch)).unwrap();
    assert_eq!(batch.values(), [1]);
}

#[test]
fn an_undecodable_record_names_its_topic_and_offset_and_stays_in_the_way() {
    let (log, resources) = log();
    log.create_topic("numbers", TopicOptions::new(1)).unwrap();
    append(&log, 0, [1, 2]);
    let mut bad = RecordBatch::new();
    bad.push(None, Some(b"no number"), 0);
    log.topic("numbers").unwrap().append(0, &mut bad).unwrap();
    let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
    let mut reader = LogSource::<u64>::topic("numbers").reader(0, None, Waker::none(), &cx).unwrap();
    for _ in 0..2 {
        let mut batch = Batch::new();
        let error = reader.poll(10, &mut Records::into_batch(&mut batch)).unwrap_err().to_string();
        assert!(error.contains("offset 2: cannot be decoded"), "{error}");
        assert_eq!(reader.position(), 2_u64.to_le_bytes());
    }
}

#[test]
fn a_missing_topic_is_an_error_that_names_it() {
    let (_log, resources) = log();
    let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
    let error = LogSource::<u64>::topic("clicks").partitions(&cx).unwrap_err().to_string();
    assert!(error.contains("clicks"), "{error}");
}

#[test]
fn topics_of_a_pattern_are_one_source_whose_partitions_keep_their_numbers_when_others_come_between() {
    let (log, resources) = log();
    let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
    let source = LogSource::<u64>::topics_matching("numb*");
    assert_eq!(source.partitions(&cx).unwrap(), []);
    log.create_topic("numbers", TopicOptions::new(2)).unwrap();
    append(&log, 0, 0..5);
    append(&log, 1, 10..13);
    check_source(&source, &resources);
    let before = source.partitions(&cx).unwrap();
    log.create_topic("numb", TopicOptions::new(1)).unwrap();
    log.create_topic("others", TopicOptions::new(1)).unwrap();
    let after = source.partitions(&cx).unwrap();
    assert_eq!((after.len(), &after[0].name[..], &after[1..]), (3, "numb[0]", &before[..]));
    check_source(&source.until_end(), &resources);
}

#[test]
fn a_topic_that_is_waited_for_has_no_partition_until_it_is_there() {
    let (log, resources) = log();
    let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
    let source = LogSource::<u64>::topic("numbers").wait_for_topic();
    assert_eq!(source.partitions(&cx).unwrap(), []);
    source.sync(&cx).unwrap();
    assert!(source.waits_for_partitions() && !LogSource::<u64>::topic("numbers").waits_for_partitions());
    log.create_topic("numbers", TopicOptions::new(1)).unwrap();
    append(&log, 0, 0..5);
    check_source(&source, &resources);
}

#[test]
fn a_commit_that_a_full_disk_interrupts_may_be_tried_again_and_one_that_is_fenced_may_not() {
    let disk = MemoryDisk::new();
    let log = Log::open("log", LogOptions::new().disk(disk.clone())).unwrap();
    log.create_topic("out", TopicOptions::new(1)).unwrap();
    let mut resources = Resources::default();
    resources.insert(log.clone());
    let sink = LogSink::<u64>::topic("out");
    let context = |generation| SinkContext {
        connector: ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources },
        worker: 0,
        generation,
    };
    let mut committer = sink.committer(&context(1)).unwrap();
    committer.recover(&[]).unwrap();
    let mut writer = sink.writer(&context(1)).unwrap();
    let mut batch: Batch<u64> =
        (0..500).map(|row| (Stamp::derived(Timestamp::from_millis(0)), row)).collect();
    writer.write(&mut batch).unwrap();
    let token = [writer.prepare(Epoch(1)).unwrap().unwrap()];
    let unsynced = committer.commit(Epoch(1), &token);
    assert!(
        matches!(unsynced, Err(CommitError::Refused(_))),
        "what may be lost is not committed: {unsynced:?}"
    );
    committer.sync(&token).unwrap();

    disk.set_capacity(Some(disk.used()));
    assert!(matches!(committer.commit(Epoch(1), &token), Err(CommitError::Unknown(_))));
    assert!(committed(&log, "out").is_empty());
    disk.set_capacity(None);
    committer.commit(Epoch(1), &token).unwrap();
    assert_eq!(committed(&log, "out").len(), 500);

    sink.committer(&context(2)).unwrap().recover(&[]).unwrap();
    assert!(matches!(committer.commit(Epoch(1), &token), Err(CommitError::Refused(_))));
}

#[test]
fn a_topic_is_a_table_with_deletes_as_a_source_and_as_a_sink() {
    let upsert = |n: u64| {
        let value = (!n.is_multiple_of(3)).then(|| n.to_string());
        Upsert { key: n % 5, value, time: Timestamp::from_millis(n as i64) }
    };
    let (read, resources) = log();
    read.create_topic("table", TopicOptions::new(1)).unwrap();
    let mut batch = RecordBatch::new();
    for Upsert { key, value, time } in (0..9).map(upsert) {
        let value = value.map(|value| serde_json::to_vec(&value).unwrap());
        batch.push(Some(&serde_json::to_vec(&key).unwrap()), value.as_deref(), time.millis());
    }
    read.topic("table").unwrap().append(0, &mut batch).unwrap();
    check_source(&LogSource::<Upsert<u64, String>, _>::table("table"), &resources);
    check_source(&LogSource::<Upsert<u64, String>, _>::table("table").until_end(), &resources);
    let committed = |_: &LogSink<Upsert<u64, String>>, resources: &Resources| {
        let Ok(topic) = resources.get::<Log>().unwrap().topic("out") else { return Vec::new() };
        let mut rows = Vec::new();
        let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
        while let Some(records) = reader.next_batch().unwrap() {
            for record in records {
                let key = serde_json::from_slice(record.key.unwrap()).unwrap();
                let value = record.value.map(|value| serde_json::from_slice(value).unwrap());
                rows.push(Upsert { key, value, time: Timestamp::MIN });
            }
        }
        rows
    };
    let row = |n| Upsert { time: Timestamp::MIN, ..upsert(n) };
    check_sink(|| (LogSink::table("out"), log().1), row, committed);
}

#[test]
fn a_record_without_a_key_is_no_row_of_a_table() {
    let (log, resources) = log();
    log.create_topic("numbers", TopicOptions::new(1)).unwrap();
    append(&log, 0, 0..1);
    let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
    let source = LogSource::<Upsert<u64, u64>, _>::table("numbers");
    let mut reader = source.reader(0, None, Waker::none(), &cx).unwrap();
    let mut batch = Batch::new();
    let error = reader.poll(10, &mut Records::into_batch(&mut batch)).unwrap_err().to_string();
    assert!(error.contains("has no key"), "{error}");
}

#[test]
fn records_are_read_again_by_offset_over_gaps_and_what_is_gone_is_none() {
    let (log, resources) = log();
    let retention = Retention { time: Some(Duration::from_millis(100)), bytes: None };
    let options = TopicOptions::new(1).segment_bytes(4096).retention(retention);
    let topic = log.create_topic("numbers", options).unwrap();
    // As old as their offset, in milliseconds.
    for from in (0..20_000_i64).step_by(50) {
        let mut batch = RecordBatch::new();
        (from..from + 50).for_each(|n| batch.push(Some(b"key"), Some(n.to_string().as_bytes()), n));
        topic.append(0, &mut batch).unwrap();
    }
    let cx = ConnectorContext { flow: "flow", version: 1, name: "source", resources: &resources };
    let source = LogSource::<u64>::topic("numbers");
    let read = |offsets: &[u64]| -> Vec<Option<u64>> {
        let raw = source.raw_records(0, offsets, &cx).unwrap();
        let value = |raw: RawRecord| {
            assert_eq!(raw.key.as_deref(), Some(&b"key"[..]));
            serde_json::from_slice(&raw.value.unwrap()).unwrap()
        };
        raw.into_iter().map(|raw| raw.map(value)).collect()
    };
    let offsets = [0, 1, 49, 50, 6_000, 6_001, 19_998, 19_999];
    assert_eq!(read(&offsets), offsets.map(Some));
    log.maintain(10_000).unwrap();
    assert_eq!(read(&[0, 6_000, 19_998]), [None, None, Some(19_998)]);
    assert_eq!(read(&[19_999, 20_000, 90_000]), [Some(19_999), None, None]);
    assert_eq!(read(&[]), []);
}
