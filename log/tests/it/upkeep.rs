//! Retention and compaction, against models.

use crate::support::*;
use proptest::prelude::*;
use rivermark_log::*;
use std::collections::BTreeMap;
use std::time::Duration;

fn put(topic: &Topic, records: &[(u8, Option<u64>)], timestamp: i64) {
    let mut batch = RecordBatch::new();
    for (key, value) in records {
        let value = value.map(|value| value.to_string());
        batch.push(Some(&[b'a' + key]), value.as_ref().map(String::as_bytes), timestamp);
    }
    topic.append(0, &mut batch).unwrap();
}

fn all(topic: &Topic) -> Vec<Owned> {
    rest(&mut topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap())
}

#[test]
fn retention_by_time_and_by_bytes_removes_the_oldest_segments_and_readers_learn_of_it() {
    on_both_disks(|place| {
        let log = place.open();
        let retention = Retention { time: Some(Duration::from_millis(100)), bytes: None };
        let timed =
            log.create_topic("timed", TopicOptions::new(1).segment_bytes(500).retention(retention)).unwrap();
        let retention = Retention { time: None, bytes: Some(1000) };
        let sized =
            log.create_topic("sized", TopicOptions::new(1).segment_bytes(500).retention(retention)).unwrap();
        for topic in [&timed, &sized] {
            (0..50).for_each(|i| assert_eq!(append(topic, 0, i * 10..i * 10 + 10), i * 10));
        }
        let mut lagging = timed.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
        let mut stale = timed.reader(0, Position::Offset(100), Isolation::ReadCommitted).unwrap();
        assert!(lagging.next_batch().unwrap().is_some());
        log.maintain(550).unwrap();
        let info = timed.info(0).unwrap();
        assert!(info.earliest > 400 && info.earliest <= 450, "{info:?}");
        assert_eq!(all(&timed)[0].0, info.earliest);
        assert!(matches!(stale.next_batch(), Err(Error::OffsetOutOfRange { offset: 100, .. })));
        assert_eq!(
            lagging.next_batch().unwrap().unwrap().next().unwrap().offset,
            10,
            "an open segment is read on"
        );
        let info = sized.info(0).unwrap();
        assert!(info.bytes >= 1000 && info.bytes < 1600, "{info:?}");
        log.maintain(10_000).unwrap();
        assert_eq!(
            timed.info(0).unwrap().earliest,
            500,
            "the last segment is closed when all in it is too old"
        );
        assert_eq!(append(&timed, 0, [1]), 500, "offsets go on");
        drop((log, timed, sized, lagging, stale));
        assert_eq!(place.open().topic("timed").unwrap().info(0).unwrap().earliest, 500);
    });
}

#[test]
fn a_producer_is_remembered_when_retention_has_removed_all_it_wrote() {
    on_both_disks(|place| {
        let send = |topic: &Topic, sequence| {
            let mut batch = RecordBatch::new();
            batch.push(None, Some(b"1"), 0);
            topic.append_once(0, &mut batch, Sequence { producer: 3, sequence })
        };
        {
            let log = place.open();
            let retention = Retention { time: Some(Duration::from_millis(100)), bytes: None };
            let topic =
                log.create_topic("t", TopicOptions::new(1).segment_bytes(500).retention(retention)).unwrap();
            (0..20).for_each(|sequence| assert_eq!(send(&topic, sequence).unwrap().base_offset, sequence));
            (0..20).for_each(|i| assert_eq!(append(&topic, 0, [1000]), 20 + i));
            log.maintain(500).unwrap();
            assert!(topic.info(0).unwrap().earliest >= 16);
        }
        let topic = place.open().topic("t").unwrap();
        assert!(send(&topic, 19).unwrap().duplicate);
        assert!(!send(&topic, 20).unwrap().duplicate);
        assert!(matches!(send(&topic, 22), Err(Error::SequenceGap { expected: 21, .. })));
    });
}

#[test]
fn a_tombstone_is_kept_for_its_time_and_then_goes_with_all_that_it_deleted() {
    on_both_disks(|place| {
        let log = place.open();
        let compaction = Compaction { delete_retention: Duration::from_millis(100), min_dirty_ratio: 0.0 };
        let topic = log.create_topic("t", TopicOptions::new(1).compaction(compaction)).unwrap();
        put(&topic, &[(0, Some(1)), (1, Some(2)), (0, Some(3))], 0);
        put(&topic, &[(1, None)], 0);
        topic.roll().unwrap();
        log.maintain(1000).unwrap();
        let offsets = |topic: &Topic| all(topic).iter().map(|r| (r.0, r.2.is_some())).collect::<Vec<_>>();
        assert_eq!(offsets(&topic), [(2, true), (3, false)]);
        log.maintain(1099).unwrap();
        assert_eq!(offsets(&topic), [(2, true), (3, false)]);
        log.maintain(1100).unwrap();
        assert_eq!(offsets(&topic), [(2, true)]);
        put(&topic, &[(5, Some(9))], 0);
        assert_eq!(offsets(&topic), [(2, true), (4, true)], "offsets are kept, with gaps");
        let mut keyless = RecordBatch::new();
        keyless.push(None, Some(b"1"), 0);
        assert!(matches!(topic.append(0, &mut keyless), Err(Error::KeyRequired { .. })));
    });
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(u8, Option<u64>)>),
    Maintain(i64),
    Reopen,
    Roll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = proptest::collection::vec((0_u8..6, proptest::option::weighted(0.8, 0_u64..1000)), 1..8);
    let step = prop_oneof![
        6 => put.prop_map(Step::Put),
        2 => (0_i64..200).prop_map(Step::Maintain),
        1 => Just(Step::Reopen),
        1 => Just(Step::Roll),
    ];
    proptest::collection::vec(step, 1..60)
}

fn options(compression: Compression) -> TopicOptions {
    let compaction = Compaction { delete_retention: Duration::from_millis(150), min_dirty_ratio: 0.3 };
    TopicOptions::new(1).segment_bytes(400).compression(compression).compaction(compaction)
}

/// What must hold after any history: every record is one that was appended, in order, the last of every key is there (or a tombstone may have
/// gone), and everything from the last closed segment on.
fn check(topic: &Topic, appended: &[(u8, Option<u64>)]) {
    let found = all(topic);
    for from in (0..=appended.len() as u64).step_by(7) {
        let mut reader = topic.reader(0, Position::Offset(from), Isolation::ReadCommitted).unwrap();
        let behind = found.partition_point(|record| record.0 < from);
        assert_eq!(rest(&mut reader), found[behind..], "from {from}");
    }
    assert!(found.is_sorted_by(|a, b| a.0 < b.0));
    for (offset, key, value, _) in &found {
        let (expected_key, expected_value) = &appended[*offset as usize];
        assert_eq!(key.as_deref(), Some(&*char::from(b'a' + expected_key).to_string()));
        assert_eq!(value.as_deref(), expected_value.map(|v| v.to_string()).as_deref());
    }
    let fold = |records: &mut dyn Iterator<Item = (String, Option<String>)>| {
        let mut table = BTreeMap::new();
        for (key, value) in records {
            match value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
        table
    };
    let all = appended.iter().map(|(k, v)| (char::from(b'a' + k).to_string(), v.map(|v| v.to_string())));
    let expected = fold(&mut { all });
    assert_eq!(fold(&mut found.into_iter().map(|r| (r.1.unwrap(), r.2))), expected);
    assert_eq!(topic.info(0).unwrap().end, appended.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn compaction_never_changes_what_the_topic_amounts_to(steps in steps(), lz4 in any::<bool>()) {
        let disk = MemoryDisk::new();
        let mut log = Log::open("/log", memory(&disk)).unwrap();
        let compression = if lz4 { Compression::Lz4 } else { Compression::None };
        let mut topic = log.create_topic("t", options(compression)).unwrap();
        let (mut appended, mut now) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Put(records) => {
                    put(&topic, &records, now);
                    appended.extend(records);
                }
                Step::Maintain(later) => {
                    now += later;
                    log.maintain(now).unwrap();
                }
                Step::Roll => topic.roll().unwrap(),
                Step::Reopen => {
                    drop((log, topic));
                    log = Log::open("/log", memory(&disk)).unwrap();
                    topic = log.topic("t").unwrap();
                }
            }
            check(&topic, &appended);
        }
        prop_assert!(log.verify().unwrap().damage.is_empty());
        for offset in 0..=appended.len() as u64 {
            let mut reader = topic.reader(0, Position::Offset(offset), Isolation::ReadCommitted).unwrap();
            let expected: Vec<u64> = all(&topic).iter().map(|r| r.0).filter(|o| *o >= offset).collect();
            prop_assert_eq!(rest(&mut reader).iter().map(|r| r.0).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn retention_removes_only_whole_old_segments_from_the_front(
        batches in proptest::collection::vec((1_u64..10, 0_i64..1000, any::<bool>()), 1..40), keep in 0_u64..3000, by_time in any::<bool>(),
    ) {
        let disk = MemoryDisk::new();
        let log = Log::open("/log", memory(&disk)).unwrap();
        let time = by_time.then_some(Duration::from_millis(300));
        let retention = Retention { time, bytes: (!by_time).then_some(keep) };
        let topic = log.create_topic("t", TopicOptions::new(1).segment_bytes(600).retention(retention)).unwrap();
        let mut timestamps = Vec::new();
        for (count, timestamp, maintain) in batches {
            let mut batch = RecordBatch::new();
            (0..count).for_each(|_| batch.push(None, Some(&[7; 30]), timestamp));
            topic.append(0, &mut batch).unwrap();
            timestamps.extend((0..count).map(|_| timestamp));
            if maintain {
                let before = topic.info(0).unwrap();
                log.maintain(1000).unwrap();
                let after = topic.info(0).unwrap();
                let gone = &timestamps[before.earliest as usize..after.earliest as usize];
                let is_right = if by_time { gone.iter().all(|t| 1000 - t > 300) } else { after.bytes >= keep.min(before.bytes) };
                prop_assert!(is_right, "{gone:?}, {before:?}, {after:?}");
                let oldest = &timestamps[after.earliest as usize..];
                prop_assert!(!by_time || oldest.is_empty() || oldest.iter().any(|t| 1000 - t <= 300));
            }
            let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
            let mut read = Vec::new();
            while let Some(records) = reader.next_batch().unwrap() {
                read.extend(records.map(|record| record.timestamp));
            }
            prop_assert_eq!(&read[..], &timestamps[topic.info(0).unwrap().earliest as usize..]);
        }
    }
}

#[test]
fn a_crash_anywhere_in_a_compaction_loses_no_keys_last_record() {
    let history = |disk: &MemoryDisk| -> Result<()> {
        let log = Log::open("/log", memory(disk))?;
        let topic = log.ensure_topic("t", options(Compression::None))?;
        let mut batch = RecordBatch::new();
        for i in 0..60_u64 {
            let value = (i % 11 != 10).then(|| i.to_string());
            batch.push(Some(&[b'a' + (i % 5) as u8]), value.as_ref().map(String::as_bytes), 0);
            if i % 5 == 4 {
                topic.append(0, &mut batch)?;
            }
        }
        topic.roll()?;
        log.maintain(1000)?;
        log.maintain(1150)
    };
    let appended: Vec<(u8, Option<u64>)> =
        (0..60).map(|i| ((i % 5) as u8, (i % 11 != 10).then_some(i))).collect();
    let whole = MemoryDisk::new();
    history(&whole).unwrap();
    let mut checked = 0;
    for cut in 0..whole.operations() {
        let disk = MemoryDisk::new();
        disk.cut_power_before(cut);
        history(&disk).unwrap_err();
        for crash in [Crash::Process].into_iter().chain((0..12).map(Crash::Power)) {
            let log = Log::open("/log", memory(&disk.after(crash)))
                .unwrap_or_else(|e| panic!("{cut} {crash:?}: {e}"));
            let Ok(topic) = log.topic("t") else { continue };
            let end = topic.info(0).unwrap().end as usize;
            check(&topic, &appended[..end]);
            log.maintain(2000).unwrap();
            check(&topic, &appended[..end]);
            checked += usize::from(end == 60);
        }
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn a_compaction_that_is_asked_for_leaves_one_record_a_key_and_no_other_topic_can_be_compacted() {
    on_both_disks(|place| {
        let log = place.open();
        // By itself it would not be worth it before all of it is new.
        let compaction = Compaction { delete_retention: Duration::from_secs(1), min_dirty_ratio: 1.0 };
        let topic = log.create_topic("t", TopicOptions::new(2).compaction(compaction)).unwrap();
        for round in 0..10_i64 {
            for partition in 0..2 {
                let mut batch = RecordBatch::new();
                ["a", "b"].iter().for_each(|key| {
                    batch.push(Some(key.as_bytes()), Some(round.to_string().as_bytes()), round);
                });
                topic.append(partition, &mut batch).unwrap();
            }
            topic.compact(round).unwrap();
        }
        for partition in 0..2 {
            assert_eq!(values(&topic, partition), [9, 9]);
            assert_eq!(topic.info(partition).unwrap().records, 2);
        }
        let plain = log.create_topic("plain", TopicOptions::new(1)).unwrap();
        let error = plain.compact(0).unwrap_err().to_string();
        assert!(error.contains("topic plain") && error.contains("keeps all records"), "{error}");
    });
}

#[test]
fn a_verification_of_one_topic_reads_no_other_and_tells_how_far_it_is() {
    on_both_disks(|place| {
        let log = place.open();
        for name in ["a", "b"] {
            let topic = log.create_topic(name, TopicOptions::new(1)).unwrap();
            (0..3).for_each(|value| _ = append(&topic, 0, [value]));
        }
        let mut told = Vec::new();
        let found =
            verify_with(&place.path, place.options(), Some("a"), &mut |found| told.push(found.records))
                .unwrap();
        assert_eq!((found.records, found.damage.len(), told), (3, 0, vec![1, 2, 3]));
        assert_eq!(verify_with(&place.path, place.options(), None, &mut |_| {}).unwrap().records, 6);
    });
}
