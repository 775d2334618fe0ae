//! What survives: crashes at every disk operation, full disks, failing syncs.

use crate::support::*;
use rivermark_log::*;
use std::io;
use std::time::Duration;

const BATCHES: u64 = 12;

/// Appends batches of two, with upkeep behind each if wanted, which begins segments ahead of time; returns how many were acknowledged.
fn history(disk: &MemoryDisk, durability: Durability, upkeep: bool) -> u64 {
    let clock = SetClock::default();
    let options = memory(disk).durability(durability).clock(clock.clone());
    let run = || -> Result<u64> {
        let log = Log::open("/log", options)?;
        let topic = log.create_topic("t", TopicOptions::new(1).segment_bytes(300))?;
        for i in 0..BATCHES {
            clock.set(i as i64 * 10);
            let mut batch = RecordBatch::new();
            batch.push(None, Some((i * 2).to_string().as_bytes()), 0);
            batch.push(None, Some((i * 2 + 1).to_string().as_bytes()), 0);
            if let Err(error) = topic.append_once(0, &mut batch, Sequence { producer: 1, sequence: i * 2 }) {
                assert!(i < BATCHES, "{error}");
                return Ok(i);
            }
            if upkeep && log.maintain(i as i64 * 10).is_err() {
                return Ok(i + 1);
            }
        }
        Ok(BATCHES)
    };
    run().unwrap_or(0)
}

#[test]
fn what_was_acknowledged_survives_every_crash_as_far_as_durability_promises() {
    let durabilities =
        [Durability::Always, Durability::Interval(Duration::from_millis(30)), Durability::OsBuffered];
    for (durability, upkeep) in durabilities.into_iter().flat_map(|d| [(d, false), (d, true)]) {
        let whole = MemoryDisk::new();
        assert_eq!(history(&whole, durability, upkeep), BATCHES);
        for cut in 0..=whole.operations() {
            let disk = MemoryDisk::new();
            disk.cut_power_before(cut);
            let acknowledged = history(&disk, durability, upkeep);
            for crash in [Crash::Process].into_iter().chain((0..16).map(Crash::Power)) {
                let context = format!(
                    "{durability:?}, upkeep {upkeep}, cut before {cut}, {crash:?}, {acknowledged} acknowledged"
                );
                let survivor = disk.after(crash);
                let log = Log::open("/log", memory(&survivor)).unwrap_or_else(|e| panic!("{context}: {e}"));
                let topic = log.ensure_topic("t", TopicOptions::new(1).segment_bytes(300)).unwrap();
                let found = values(&topic, 0);
                assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "{context}");
                assert_eq!(found.len() % 2, 0, "{context}: a batch is whole or absent");
                let certain = match (durability, crash) {
                    (Durability::Always, _) | (_, Crash::Process) => acknowledged,
                    (Durability::Interval(_), _) => acknowledged.saturating_sub(3) / 3 * 3,
                    (Durability::OsBuffered, _) => 0,
                };
                assert!(found.len() as u64 >= certain * 2, "{context}: {found:?}");
                // It goes on, for the producer too.
                let mut batch = RecordBatch::new();
                batch.push(None, Some(b"0"), 0);
                let next = Sequence { producer: 1, sequence: found.len() as u64 };
                let appended =
                    topic.append_once(0, &mut batch, next).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_eq!(
                    (appended.base_offset, appended.duplicate),
                    (found.len() as u64, false),
                    "{context}"
                );
                drop((log, topic));
                let log = Log::open("/log", memory(&survivor)).unwrap();
                assert_eq!(log.recovery(), &Recovery::default(), "{context}: repaired once and for all");
                assert_eq!(values(&log.topic("t").unwrap(), 0).len(), found.len() + 1, "{context}");
            }
        }
    }
}

#[test]
fn a_full_disk_is_an_error_that_leaves_the_log_whole_and_usable() {
    for room in (0..600).step_by(7) {
        let disk = MemoryDisk::new();
        let log = Log::open("/log", memory(&disk)).unwrap();
        let topic = log.create_topic("t", TopicOptions::new(1).segment_bytes(250)).unwrap();
        append(&topic, 0, [0, 1]);
        disk.set_capacity(Some(disk.used() + room));
        let mut acknowledged = 2;
        let error = loop {
            let mut batch = RecordBatch::new();
            batch.push(None, Some(acknowledged.to_string().as_bytes()), 0);
            match topic.append(0, &mut batch) {
                Ok(_) => acknowledged += 1,
                Err(error) => {
                    assert_eq!(batch.len(), 1, "the batch can be appended again");
                    break error;
                }
            }
        };
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert_eq!(error.effect(), Effect::None);
        assert_eq!(values(&topic, 0), (0..acknowledged).collect::<Vec<_>>());
        // Also to whoever opens it now: nothing has to be repaired.
        let other = Log::open("/log", memory(&disk.after(Crash::Process))).unwrap();
        assert_eq!(other.recovery().truncated, []);
        disk.set_capacity(None);
        append(&topic, 0, [acknowledged]);
        assert_eq!(values(&topic, 0), (0..=acknowledged).collect::<Vec<_>>());
    }
}

#[test]
fn a_write_that_fails_halfway_is_cut_off_even_if_cutting_fails_at_first() {
    let disk = MemoryDisk::new();
    let log = Log::open("/log", memory(&disk)).unwrap();
    let topic = log.create_topic("t", TopicOptions::new(1)).unwrap();
    append(&topic, 0, [0]);
    let fault = |operation| Fault { operation, path: ".log".into(), after: 0, kind: io::ErrorKind::TimedOut };
    disk.inject(fault(Operation::Write));
    disk.inject(fault(Operation::Truncate));
    disk.inject(Fault { after: 1, ..fault(Operation::Truncate) });
    let mut batch = RecordBatch::new();
    batch.push(None, Some(&[b'1'; 300]), 0);
    assert!(topic.append(0, &mut batch).is_err());
    append(&topic, 0, [1]);
    assert_eq!(values(&topic, 0), [0, 1]);
    drop((log, topic));
    let log = Log::open("/log", memory(&disk)).unwrap();
    assert_eq!(log.recovery(), &Recovery::default());
}

#[test]
fn after_a_failed_sync_nothing_is_appended_until_the_log_is_opened_again() {
    let disk = MemoryDisk::new();
    let log = Log::open("/log", memory(&disk).durability(Durability::Always)).unwrap();
    let topic = log.create_topic("t", TopicOptions::new(1)).unwrap();
    append(&topic, 0, [0]);
    disk.inject(Fault {
        operation: Operation::Sync,
        path: ".log".into(),
        after: 0,
        kind: io::ErrorKind::TimedOut,
    });
    let mut batch = RecordBatch::new();
    batch.push(None, Some(b"1"), 0);
    let error = topic.append(0, &mut batch).unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    let error = topic.append(0, &mut batch).unwrap_err();
    assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    assert_eq!(values(&topic, 0), [0], "read-committed readers do not see what may not be durable");
    assert_eq!(values_as(&topic, 0, Isolation::ReadUncommitted), [0, 1]);
    drop((log, topic));
    let topic = Log::open("/log", memory(&disk)).unwrap().topic("t").unwrap();
    append(&topic, 0, [2]);
    assert_eq!(values(&topic, 0), [0, 1, 2]);
}

#[test]
fn the_interval_syncs_on_append_when_it_is_due_and_in_maintain_when_half_of_it_is_over() {
    let disk = MemoryDisk::new();
    let clock = SetClock::default();
    let options =
        memory(&disk).durability(Durability::Interval(Duration::from_millis(100))).clock(clock.clone());
    let log = Log::open("/log", options).unwrap();
    let topic = log.create_topic("t", TopicOptions::new(1)).unwrap();
    let durable = || {
        let log = Log::open("/log", memory(&disk.after(Crash::Power(0)))).unwrap();
        values(&log.topic("t").unwrap(), 0).len()
    };
    append(&topic, 0, [0]);
    assert_eq!((durable(), values(&topic, 0).len()), (0, 1), "visible at once, durable later");
    clock.set(100);
    append(&topic, 0, [1]);
    assert_eq!(durable(), 2);
    append(&topic, 0, [2]);
    log.maintain(149).unwrap();
    assert_eq!(durable(), 2);
    log.maintain(150).unwrap();
    assert_eq!(durable(), 3, "upkeep is early, so that an append need not wait");
    append(&topic, 0, [3]);
    clock.set(-50_000);
    append(&topic, 0, [4]);
    assert_eq!(durable(), 5, "a clock that was set back does not put it off");
    append(&topic, 0, [5]);
    log.sync().unwrap();
    assert_eq!(durable(), 6);
}

#[test]
fn appends_of_several_threads_share_syncs_and_each_is_durable_when_it_returns() {
    let disk = MemoryDisk::new();
    let log = Log::open("/log", memory(&disk).durability(Durability::Always)).unwrap();
    let topic = log.create_topic("t", TopicOptions::new(2)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (topic, disk) = (&topic, &disk);
            scope.spawn(move || {
                for i in 0..50 {
                    let offset = append(topic, thread as u32 % 2, [thread * 1000 + i]);
                    if i % 10 == 0 {
                        let log = Log::open("/log", memory(&disk.after(Crash::Power(0)))).unwrap();
                        let durable = values(&log.topic("t").unwrap(), thread as u32 % 2);
                        assert_eq!(durable[offset as usize], thread * 1000 + i);
                    }
                }
            });
        }
    });
    for partition in 0..2 {
        let mut found = values(&topic, partition);
        for thread in (u64::from(partition)..8).step_by(2) {
            let own: Vec<u64> = found.iter().copied().filter(|value| value / 1000 == thread).collect();
            assert_eq!(
                own,
                (0..50).map(|i| thread * 1000 + i).collect::<Vec<_>>(),
                "each thread's own order"
            );
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 200);
    }
}

#[test]
fn upkeep_begins_a_segment_before_an_append_has_to() {
    let disk = MemoryDisk::new();
    let log = Log::open("/log", memory(&disk).durability(Durability::OsBuffered)).unwrap();
    let topic = log.create_topic("t", TopicOptions::new(1).segment_bytes(1000)).unwrap();
    let segments = || topic.info(0).unwrap().segments;
    let grow = |bytes: u64| {
        let until = topic.info(0).unwrap().bytes + bytes;
        while topic.info(0).unwrap().bytes < until {
            append(&topic, 0, [7]);
        }
    };
    log.maintain(0).unwrap();
    grow(400);
    log.maintain(0).unwrap();
    assert_eq!(segments(), 1, "it is not half full");
    grow(200);
    log.maintain(0).unwrap();
    assert_eq!(segments(), 2, "it would have been full in two rounds");
    let durable = Log::open("/log", memory(&disk.after(Crash::Power(0)))).unwrap();
    assert!(values(&durable.topic("t").unwrap(), 0).len() >= 6, "what is closed is durable");
    grow(700);
    log.maintain(0).unwrap();
    log.maintain(0).unwrap();
    let before = segments();
    log.maintain(0).unwrap();
    assert_eq!(segments(), before, "what does not grow is not closed");
}
