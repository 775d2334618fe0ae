//! What the log promises, on both disks.

use crate::support::*;
use proptest::prelude::*;
use rivermark_log::*;

#[test]
fn what_is_appended_is_read_in_order_from_any_offset() {
    on_both_disks(|place| {
        let topic = place.open().create_topic("t", TopicOptions::new(2).segment_bytes(2_000)).unwrap();
        for i in 0..100 {
            assert_eq!(append(&topic, 0, i * 10..i * 10 + 10), i * 10);
        }
        append(&topic, 1, [7]);
        assert!(topic.info(0).unwrap().segments > 5);
        for offset in 0..=1000 {
            let mut reader = topic.reader(0, Position::Offset(offset), Isolation::ReadCommitted).unwrap();
            let read: Vec<u64> = rest(&mut reader).iter().map(|r| r.0).collect();
            assert_eq!(read, (offset..1000).collect::<Vec<_>>());
            assert_eq!(reader.position(), 1000);
        }
        assert_eq!(values(&topic, 1), [7]);
        let beyond = topic.reader(0, Position::Offset(1001), Isolation::ReadCommitted).unwrap_err();
        assert!(matches!(beyond, Error::OffsetOutOfRange { offset: 1001, end: 1000, .. }), "{beyond}");
    });
}

#[test]
fn any_offset_is_found_by_the_index_of_large_segments_open_and_closed_and_in_batches_larger_than_the_buffer()
{
    on_both_disks(|place| {
        let topic = place.open().create_topic("t", TopicOptions::new(1).segment_bytes(3_000_000)).unwrap();
        let mut batch = RecordBatch::new();
        let mut end = 0_u64;
        for i in 0..1_000 {
            for _ in 0..1 + i % 7 {
                let size = if i % 100 == 50 { 300_000 } else { 1_000 };
                batch.push(Some(&end.to_le_bytes()), Some(&vec![7; size]), 0);
                end += 1;
            }
            topic.append(0, &mut batch).unwrap();
        }
        assert!(topic.info(0).unwrap().segments >= 3);
        for offset in (0..end).step_by(37) {
            let mut reader = topic.reader(0, Position::Offset(offset), Isolation::ReadCommitted).unwrap();
            for next in offset..(offset + 10).min(end) {
                let mut records = match reader.next_batch().unwrap() {
                    Some(records) => records,
                    None => panic!("{next} is missing"),
                };
                let record = records.next().unwrap();
                assert_eq!(
                    (record.offset >= next, record.key),
                    (true, Some(&record.offset.to_le_bytes()[..]))
                );
                if next == offset {
                    assert_eq!(record.offset, offset);
                }
                if reader.position() == end {
                    break;
                }
            }
        }
    });
}

#[test]
fn a_log_that_is_opened_again_goes_on_where_it_was() {
    on_both_disks(|place| {
        for round in 0..5 {
            let log = place.open();
            let topic = log.ensure_topic("t", TopicOptions::new(1).segment_bytes(300)).unwrap();
            assert_eq!(log.recovery(), &Recovery::default());
            assert_eq!(values(&topic, 0), (0..round * 20).collect::<Vec<_>>());
            for i in 0..4 {
                append(&topic, 0, round * 20 + i * 5..round * 20 + i * 5 + 5);
            }
        }
    });
}

#[test]
fn keys_values_tombstones_timestamps_and_headers_come_back_with_every_compression() {
    on_both_disks(|place| {
        let log = place.open();
        for (name, compression) in
            [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd(3))]
        {
            let topic = log.create_topic(name, TopicOptions::new(1).compression(compression)).unwrap();
            let mut batch = RecordBatch::new();
            let long = "the same again ".repeat(100);
            batch.push(Some(b"k"), Some(long.as_bytes()), -5);
            batch.push(None, None, i64::MAX);
            batch.push_with_headers(
                Some(b""),
                Some(b""),
                i64::MIN,
                &[("a", Some(b"1")), ("a", None), ("b", Some(b""))],
            );
            let appended = topic.append(0, &mut batch).unwrap();
            assert_eq!(appended, Appended { base_offset: 0, count: 3, duplicate: false });
            assert!(batch.is_empty(), "appending leaves an empty batch");
            let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
            let records: Vec<_> = reader.next_batch().unwrap().unwrap().collect();
            assert_eq!((records[0].key, records[0].value), (Some(&b"k"[..]), Some(long.as_bytes())));
            assert_eq!((records[1].key, records[1].value, records[1].timestamp), (None, None, i64::MAX));
            let headers: Vec<_> = records[2].headers().collect();
            assert_eq!(headers, [("a", Some(&b"1"[..])), ("a", None), ("b", Some(&b""[..]))]);
            assert_eq!(records[2].header("b"), Some(Some(&b""[..])));
            assert_eq!(records[2].header("c"), None);
            assert_eq!(topic.info(0).unwrap().bytes < 1000, compression != Compression::None);
        }
    });
}

#[test]
fn a_timestamp_leads_to_the_first_record_that_is_not_older() {
    on_both_disks(|place| {
        let topic = place.open().create_topic("t", TopicOptions::new(1).segment_bytes(100_000)).unwrap();
        // Out of order, over several segments and index entries.
        let timestamps: Vec<i64> = (0..30_000).map(|i: i64| i * 10 - (i % 7) * 25).collect();
        for chunk in timestamps.chunks(50) {
            let mut batch = RecordBatch::new();
            chunk.iter().for_each(|t| batch.push(None, Some(&[0; 20]), *t));
            topic.append(0, &mut batch).unwrap();
        }
        for at in (-200..300_200).step_by(1_373) {
            let expected = timestamps.iter().position(|t| *t >= at).unwrap_or(timestamps.len());
            assert_eq!(topic.offset_at(0, at, Isolation::ReadCommitted).unwrap(), expected as u64, "{at}");
        }
    });
}

#[test]
fn latest_is_behind_what_is_there_and_sees_what_comes() {
    on_both_disks(|place| {
        let topic = place.open().create_topic("t", TopicOptions::new(1)).unwrap();
        append(&topic, 0, 0..5);
        let mut reader = topic.reader(0, Position::Latest, Isolation::ReadCommitted).unwrap();
        assert!(reader.next_batch().unwrap().is_none());
        append(&topic, 0, 5..7);
        assert_eq!(rest(&mut reader).iter().map(|r| r.0).collect::<Vec<_>>(), [5, 6]);
    });
}

#[test]
fn a_second_writer_is_told_who_holds_the_log_and_a_reader_is_not_hindered() {
    on_both_disks(|place| {
        let log = place.open();
        let topic = log.create_topic("t", TopicOptions::new(1)).unwrap();
        append(&topic, 0, [1]);
        let refused = Log::open(&place.path, place.options()).unwrap_err();
        assert!(
            matches!(refused, Error::Locked { holder: Holder::Process(pid), .. } if pid == std::process::id())
        );
        let reader = Log::open_read_only(&place.path, place.options()).unwrap();
        assert_eq!(values(&reader.topic("t").unwrap(), 0), [1]);
        append(&topic, 0, [2]);
        assert_eq!(values(&reader.topic("t").unwrap(), 0), [1, 2]);
        let refused = reader.topic("t").unwrap().append(0, &mut RecordBatch::new()).unwrap_err();
        assert!(matches!(refused, Error::ReadOnly { .. }));
        drop((log, topic));
        assert_eq!(values(&place.open().topic("t").unwrap(), 0), [1, 2]);
    });
}

#[test]
fn a_batch_sent_again_is_acknowledged_and_not_appended_also_after_a_restart() {
    on_both_disks(|place| {
        let send = |topic: &Topic, sequence: u64, values: &[u64]| {
            let mut batch = RecordBatch::new();
            values.iter().for_each(|v| batch.push(None, Some(v.to_string().as_bytes()), 0));
            topic.append_once(0, &mut batch, Sequence { producer: 9, sequence })
        };
        {
            let topic = place.open().create_topic("t", TopicOptions::new(1).segment_bytes(200)).unwrap();
            send(&topic, 0, &[0, 1]).unwrap();
            send(&topic, 2, &[2]).unwrap();
            (3..8).for_each(|i| assert!(!send(&topic, i, &[i]).unwrap().duplicate));
            append(&topic, 0, 8..20);
        }
        let topic = place.open().topic("t").unwrap();
        let again = send(&topic, 2, &[2]).unwrap();
        assert_eq!(again, Appended { base_offset: 2, count: 1, duplicate: true });
        let gap = send(&topic, 9, &[9]).unwrap_err();
        assert!(matches!(gap, Error::SequenceGap { expected: 8, sequence: 9, .. }));
        assert_eq!(gap.effect(), Effect::None);
        send(&topic, 8, &[20]).unwrap();
        assert_eq!(values(&topic, 0), (0..21).collect::<Vec<_>>());
    });
}

#[test]
fn records_and_batches_beyond_the_limits_are_refused_and_keep_their_place() {
    on_both_disks(|place| {
        let options = place.options().max_record_bytes(1000).max_batch_bytes(3000);
        let topic = Log::open(&place.path, options).unwrap().create_topic("t", TopicOptions::new(1)).unwrap();
        let mut batch = RecordBatch::new();
        batch.push(None, Some(&[0; 1001]), 0);
        assert!(matches!(topic.append(0, &mut batch), Err(Error::RecordTooLarge { limit: 1000, .. })));
        assert_eq!(batch.len(), 1, "a batch that was refused is as it was");
        batch.clear();
        (0..4).for_each(|_| batch.push(None, Some(&[0; 900]), 0));
        assert!(matches!(topic.append(0, &mut batch), Err(Error::BatchTooLarge { limit: 3000, .. })));
        append(&topic, 0, [1]);
        assert_eq!(values(&topic, 0), [1]);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Append { partition: u32, timestamps: Vec<i64> },
    Resend { partition: u32 },
    Reopen,
    Crash,
    Roll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (0_u32..2, proptest::collection::vec(-50_i64..50, 1..6));
    let step = prop_oneof![
        8 => append.prop_map(|(partition, timestamps)| Step::Append { partition, timestamps }),
        1 => (0_u32..2).prop_map(|partition| Step::Resend { partition }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        1 => Just(Step::Roll),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_appends_reads_as_a_list_from_every_position(
        steps in steps(), compression in 0_usize..3, segment_bytes in 100_u64..1000,
    ) {
        let mut disk = MemoryDisk::new();
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd(1)][compression];
        let options = TopicOptions::new(2).segment_bytes(segment_bytes).compression(compression);
        let open = |disk: &MemoryDisk| {
            let log = Log::open("/log", memory(disk).durability(Durability::Always)).unwrap();
            log.ensure_topic("t", options.clone()).unwrap()
        };
        let mut topic = open(&disk);
        let mut model: [Vec<i64>; 2] = Default::default();
        let mut last: [Vec<i64>; 2] = Default::default();
        let send = |topic: &Topic, partition: u32, timestamps: &[i64], sequence| {
            let mut batch = RecordBatch::new();
            timestamps.iter().for_each(|t| batch.push(Some(b"key"), Some(t.to_string().as_bytes()), *t));
            topic.append_once(partition, &mut batch, Sequence { producer: 5, sequence }).unwrap()
        };
        for step in steps {
            match step {
                Step::Append { partition, timestamps } => {
                    let list = &mut model[partition as usize];
                    let appended = send(&topic, partition, &timestamps, list.len() as u64);
                    prop_assert_eq!((appended.base_offset, appended.duplicate), (list.len() as u64, false));
                    list.extend(&timestamps);
                    last[partition as usize] = timestamps;
                }
                Step::Resend { partition } => {
                    let again = &last[partition as usize];
                    let sequence = (model[partition as usize].len() - again.len()) as u64;
                    if !again.is_empty() {
                        let appended = send(&topic, partition, again, sequence);
                        prop_assert_eq!((appended.base_offset, appended.duplicate), (sequence, true));
                    }
                }
                Step::Reopen => {
                    drop(topic);
                    topic = open(&disk);
                }
                Step::Crash => {
                    disk = disk.after(Crash::Power(0));
                    topic = open(&disk);
                }
                Step::Roll => topic.roll().unwrap(),
            }
        }
        for (partition, list) in (0_u32..).zip(&model) {
            for from in 0..=list.len() {
                let mut reader = topic.reader(partition, Position::Offset(from as u64), Isolation::ReadCommitted).unwrap();
                let read: Vec<i64> = rest(&mut reader).iter().map(|record| record.3).collect();
                prop_assert_eq!(&read[..], &list[from..]);
            }
            for at in -51..=51 {
                let expected = list.iter().position(|t| *t >= at).unwrap_or(list.len());
                prop_assert_eq!(topic.offset_at(partition, at, Isolation::ReadCommitted).unwrap(), expected as u64);
            }
        }
    }
}
