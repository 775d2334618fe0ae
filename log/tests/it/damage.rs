//! Damaged files: an error that names the place, or a torn tail that is cut off. Never wrong records, never silence.

use crate::support::*;
use rivermark_log::*;
use std::path::Path;

const RECORDS: u64 = 12;

/// A small log: three segments of two batches of two records.
fn small(compression: Compression) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let log = Log::open("/log", memory(&disk)).unwrap();
    let topic = log.create_topic("t", TopicOptions::new(1).compression(compression)).unwrap();
    let mut batch = RecordBatch::new();
    for i in 0..RECORDS / 2 {
        for value in [i * 2, i * 2 + 1] {
            batch.push(Some(&[b'k'; 60]), Some(value.to_string().as_bytes()), 0);
        }
        topic.append(0, &mut batch).unwrap();
        if i % 2 == 1 && i + 1 < RECORDS / 2 {
            topic.roll().unwrap();
        }
    }
    assert_eq!(topic.info(0).unwrap().segments, 3);
    disk
}

fn expected() -> Vec<u64> {
    (0..RECORDS).collect()
}

fn segments(disk: &MemoryDisk) -> Vec<u64> {
    let names = disk.list(Path::new("/log/topics/t/0")).unwrap();
    names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect()
}

/// Opens and reads; an error anywhere is returned.
fn read(disk: &MemoryDisk) -> Result<(Vec<u64>, Vec<Truncated>)> {
    let log = Log::open("/log", memory(disk))?;
    let mut reader = log.topic("t")?.reader(0, Position::Earliest, Isolation::ReadCommitted)?;
    let mut found = Vec::new();
    while let Some(records) = reader.next_batch()? {
        found.extend(records.map(|r| text(r.value).unwrap().parse::<u64>().unwrap()));
    }
    Ok((found, log.recovery().truncated.clone()))
}

#[test]
fn any_flipped_bit_in_any_segment_is_an_error_that_names_it_or_a_tail_that_is_cut_off() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(3)] {
        let whole = small(compression);
        let bases = segments(&whole);
        let (mut errors, mut truncations) = (0, 0);
        for (i, &base) in bases.iter().enumerate() {
            let path = segment(Path::new("/log"), "t", 0, base);
            let len = whole.open(&path).unwrap().len().unwrap() as usize;
            for at in 0..len {
                let disk = whole.after(Crash::Process);
                disk.damage(&path, |bytes| bytes[at] ^= 1 << (at % 8)).unwrap();
                match read(&disk) {
                    Err(Error::Corrupt { place, segment, position, offset, .. }) => {
                        assert_eq!((&*place.topic, place.partition), ("t", 0));
                        assert_eq!(segment, format!("{base:020}.log"));
                        assert!(position as usize <= at && offset >= base, "{position} {at}");
                        errors += 1;
                        let found = verify("/log", memory(&disk)).unwrap();
                        assert!(matches!(&found.damage[..], [Error::Corrupt { .. }]), "{found:?}");
                        assert!(found.records >= RECORDS - 4 && found.unfinished.is_empty());
                        // Whoever reads beside a writer does not get wrong records either.
                        let beside = Log::open_read_only("/log", memory(&disk));
                        let topic = beside.and_then(|log| log.topic("t"));
                        if let Ok(mut reader) =
                            topic.and_then(|t| t.reader(0, Position::Earliest, Isolation::ReadCommitted))
                        {
                            while let Ok(Some(records)) = reader.next_batch() {
                                records.for_each(|r| assert_eq!(text(r.value), Some(r.offset.to_string())));
                            }
                            assert!(reader.position() < RECORDS);
                        }
                    }
                    Err(error) => panic!("{at} of segment {base}: {error}"),
                    Ok((found, truncated)) => {
                        assert_eq!(i, bases.len() - 1, "only the last segment may have a torn tail");
                        assert_eq!(truncated.len(), 1);
                        assert_eq!(verify("/log", memory(&disk)).unwrap().unfinished, [], "it was cut off");
                        let cut = &truncated[0];
                        assert_eq!(found, expected()[..cut.offset as usize]);
                        assert!(cut.offset >= RECORDS - 2, "only the last batch: {cut:?}");
                        truncations += 1;
                    }
                }
            }
        }
        assert!(errors > 500 && truncations > 80, "{errors} {truncations}");
    }
}

#[test]
fn a_segment_cut_anywhere_is_an_error_or_the_last_one_is_cut_back_to_whole_batches() {
    let whole = small(Compression::None);
    for &base in &segments(&whole) {
        let path = segment(Path::new("/log"), "t", 0, base);
        let len = whole.open(&path).unwrap().len().unwrap() as usize;
        let is_last = base == *segments(&whole).last().unwrap();
        for at in 0..len {
            let disk = whole.after(Crash::Process);
            disk.damage(&path, |bytes| bytes.truncate(at)).unwrap();
            match read(&disk) {
                Err(Error::Corrupt { .. }) => assert!(!is_last, "{at}"),
                Err(error) => panic!("{at} of segment {base}: {error}"),
                Ok((found, truncated)) => {
                    assert!(is_last);
                    assert_eq!(found, expected()[..found.len()]);
                    let between_batches = found.len() % 2 == 0 && truncated.is_empty();
                    assert!(between_batches || truncated[0].offset == found.len() as u64);
                }
            }
        }
    }
}

#[test]
fn indexes_and_tables_may_be_damaged_or_lost_without_losing_a_record() {
    let whole = small(Compression::None);
    let folder = Path::new("/log/topics/t/0");
    let mut damaged = 0;
    for name in whole.list(folder).unwrap().iter().filter(|name| !name.ends_with(".log")) {
        let path = folder.join(name);
        for at in (0..whole.open(&path).unwrap().len().unwrap() as usize).step_by(3) {
            let disk = whole.after(Crash::Process);
            disk.damage(&path, |bytes| bytes[at] ^= 0x10).unwrap();
            assert_eq!(read(&disk).unwrap(), (expected(), Vec::new()));
            damaged += 1;
        }
        let disk = whole.after(Crash::Process);
        disk.remove(&path).unwrap();
        assert_eq!(read(&disk).unwrap(), (expected(), Vec::new()));
        let log = Log::open("/log", memory(&disk)).unwrap();
        assert_eq!(log.recovery(), &Recovery::default(), "an index is rebuilt once");
    }
    assert!(damaged > 20);
}

#[test]
fn a_damaged_batch_is_reported_on_every_read_and_found_by_verify_and_what_is_before_can_be_read() {
    let disk = small(Compression::None);
    let path = segment(Path::new("/log"), "t", 0, 0);
    // In the second of its two batches.
    disk.damage(&path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle + 20] ^= 1;
    })
    .unwrap();
    let log = Log::open("/log", memory(&disk)).unwrap();
    let topic = log.topic("t").unwrap();
    let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().len(), 2);
    for _ in 0..3 {
        assert!(matches!(reader.next_batch(), Err(Error::Corrupt { offset: 2, .. })));
        assert_eq!(reader.position(), 2);
    }
    let found = log.verify().unwrap();
    assert_eq!((found.segments, found.damage.len()), (3, 1));
    assert!(
        matches!(&found.damage[0], Error::Corrupt { offset: 2, segment, .. } if segment.starts_with("000"))
    );
    reader.seek(Position::Offset(6)).unwrap();
    assert_eq!(rest(&mut reader).len(), 6, "what is undamaged can be read, when asked for");
}

#[test]
fn damage_in_front_of_valid_records_can_be_cut_off_when_told_so() {
    let disk = MemoryDisk::new();
    {
        let topic =
            Log::open("/log", memory(&disk)).unwrap().create_topic("t", TopicOptions::new(1)).unwrap();
        (0..5).for_each(|i| assert_eq!(append(&topic, 0, [i]), i));
    }
    disk.damage(&segment(Path::new("/log"), "t", 0, 0), |bytes| bytes[200] ^= 1).unwrap();
    let refused = Log::open("/log", memory(&disk)).unwrap_err();
    assert!(
        matches!(&refused, Error::Corrupt { offset: 2, problem, .. } if problem.contains("valid batch follows")),
        "{refused}"
    );
    let log = Log::open("/log", memory(&disk).damage(Damage::CutOff)).unwrap();
    assert_eq!(log.recovery().truncated[0].offset, 2);
    let topic = log.topic("t").unwrap();
    assert_eq!(append(&topic, 0, [7]), 2);
    assert_eq!(values(&topic, 0), [0, 1, 7]);
}

#[test]
fn a_missing_segment_and_one_from_another_partition_are_errors() {
    let disk = small(Compression::None);
    let path = |base| segment(Path::new("/log"), "t", 0, base);
    let bases = segments(&disk);
    let without = disk.after(Crash::Process);
    without.remove(&path(bases[1])).unwrap();
    let error = Log::open("/log", memory(&without)).unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt { problem, .. } if problem.contains("records are missing")),
        "{error}"
    );

    let log = Log::open("/log", memory(&disk)).unwrap();
    let other = log.create_topic("other", TopicOptions::new(1)).unwrap();
    append(&other, 0, [0, 1]);
    append(&other, 0, [2, 3]);
    drop((log, other));
    let foreign = disk.open(&segment(Path::new("/log"), "other", 0, 0)).unwrap();
    let mut bytes = vec![0; foreign.len().unwrap() as usize];
    foreign.read_at(&mut bytes, 0).unwrap();
    disk.damage(&path(0), |content| *content = bytes).unwrap();
    let error = read(&disk).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { problem, .. } if problem.contains("another topic")), "{error}");
}

#[test]
fn a_batch_beyond_the_limit_is_refused_before_room_is_made_for_it_also_decompressed() {
    let disk = MemoryDisk::new();
    {
        let log = Log::open("/log", memory(&disk)).unwrap();
        let topic = log.create_topic("t", TopicOptions::new(1).compression(Compression::Zstd(3))).unwrap();
        let mut batch = RecordBatch::new();
        batch.push(None, Some(&vec![0; 1_000_000]), 0);
        topic.append(0, &mut batch).unwrap();
        assert!(topic.info(0).unwrap().bytes < 1000, "it compresses well");
    }
    let error = Log::open("/log", memory(&disk).max_batch_bytes(100_000)).unwrap_err();
    assert!(matches!(error, Error::BatchTooLarge { bytes: 1_000_000.., limit: 100_000, .. }), "{error}");
    assert_eq!(
        Log::open("/log", memory(&disk)).unwrap().verify().unwrap().records,
        1,
        "and nothing was cut off"
    );
}

#[test]
fn a_description_from_a_newer_version_is_named() {
    let disk = small(Compression::None);
    let path = Path::new("/log/topics/t/topic.json");
    disk.damage(path, |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap().replace("\"format\": 1", "\"format\": 2");
        *bytes = text.into_bytes();
    })
    .unwrap();
    let error = Log::open("/log", memory(&disk)).unwrap_err().to_string();
    assert!(error.contains("topic.json") && error.contains("format 2"), "{error}");
}

#[test]
fn a_staged_epoch_that_is_damaged_is_never_committed_wrongly() {
    let whole = MemoryDisk::new();
    {
        let log = Log::open("/log", memory(&whole)).unwrap();
        let topic = log.create_topic("t", TopicOptions::new(1)).unwrap();
        let sink = log.transactional("sink", 1).unwrap();
        sink.begin(1).unwrap();
        let mut batch = RecordBatch::new();
        for i in 0..3 {
            batch.push(None, Some(format!("{i}").as_bytes()), 0);
            sink.append(1, &topic, 0, &mut batch).unwrap();
        }
        sink.prepare(1).unwrap();
    }
    let path = Path::new("/log/transactions/sink/g00000000000000000001/00000000000000000001.prepared");
    let len = whole.open(path).unwrap().len().unwrap() as usize;
    for at in 0..len {
        let disk = whole.after(Crash::Process);
        disk.damage(path, |bytes| bytes[at] ^= 1 << (at % 8)).unwrap();
        let committed = Log::open("/log", memory(&disk)).and_then(|log| {
            log.transactional("sink", 1)?.commit(1)?;
            log.topic("t")
        });
        match committed {
            Err(Error::BadFile { path: named, .. }) => {
                assert!(named.starts_with("/log/transactions/sink"), "{named:?}")
            }
            Err(error) => panic!("{at}: {error}"),
            Ok(topic) => panic!("{at}: {:?}", values(&topic, 0)),
        }
    }
}
