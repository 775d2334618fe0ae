//! Waiting for what comes.

use crate::support::*;
use rivermark_log::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_waiting_reader_wakes_for_every_append_and_misses_none() {
    on_both_disks(|place| {
        let topic = place.open().create_topic("t", TopicOptions::new(1).segment_bytes(2_000)).unwrap();
        let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
        assert!(!reader.wait(Instant::now()).unwrap(), "nothing is there, and the deadline has passed");
        std::thread::scope(|scope| {
            scope.spawn(|| (0..500).for_each(|i| assert_eq!(append(&topic, 0, [i]), i)));
            let mut next = 0;
            while next < 500 {
                assert!(reader.wait(soon()).unwrap());
                for record in rest(&mut reader) {
                    assert_eq!(record.0, next);
                    next += 1;
                }
            }
        });
    });
}

#[test]
fn a_worker_that_parks_is_unparked_by_its_waker_until_its_reader_is_gone() {
    let topic = Log::open("/log", memory(&MemoryDisk::new()))
        .unwrap()
        .create_topic("t", TopicOptions::new(1))
        .unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let worker = {
            let (topic, calls) = (topic.clone(), Arc::clone(&calls));
            scope.spawn(move || {
                let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
                let thread = std::thread::current();
                reader.wake_with(move || {
                    calls.fetch_add(1, Ordering::SeqCst);
                    thread.unpark();
                });
                let mut next = 0;
                while next < 200 {
                    next += rest(&mut reader).len();
                    if next < 200 {
                        std::thread::park_timeout(Duration::from_secs(60));
                    }
                }
            })
        };
        let begun = Instant::now();
        (0..200).for_each(|i| assert_eq!(append(&topic, 0, [i]), i));
        worker.join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(50), "woken, not timed out");
    });
    let before = calls.load(Ordering::SeqCst);
    append(&topic, 0, [200]);
    assert_eq!(calls.load(Ordering::SeqCst), before, "a reader that is gone is not woken");
}

#[test]
fn a_commit_wakes_those_who_wait_for_committed_records() {
    let log = Log::open("/log", memory(&MemoryDisk::new())).unwrap();
    let topic = log.create_topic("t", TopicOptions::new(1)).unwrap();
    let woken = Arc::new(AtomicBool::new(false));
    let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
    let flag = Arc::clone(&woken);
    reader.wake_with(move || flag.store(true, Ordering::SeqCst));
    let sink = log.transactional("sink", 1).unwrap();
    sink.begin(1).unwrap();
    let mut batch = RecordBatch::new();
    batch.push(None, Some(b"1"), 0);
    sink.append(1, &topic, 0, &mut batch).unwrap();
    sink.prepare(1).unwrap();
    assert!(!woken.load(Ordering::SeqCst) && reader.next_batch().unwrap().is_none());
    sink.commit(1).unwrap();
    assert!(woken.load(Ordering::SeqCst));
    assert_eq!(rest(&mut reader).len(), 1);
}

#[test]
fn partitions_are_appended_to_and_read_by_many_threads_at_once() {
    on_both_disks(|place| {
        let topic = place.open().create_topic("t", TopicOptions::new(4).segment_bytes(5_000)).unwrap();
        std::thread::scope(|scope| {
            for partition in 0..4 {
                let topic = &topic;
                scope.spawn(move || (0..300).for_each(|i| assert_eq!(append(topic, partition, [i]), i)));
                for _ in 0..2 {
                    scope.spawn(move || {
                        let mut reader =
                            topic.reader(partition, Position::Earliest, Isolation::ReadCommitted).unwrap();
                        let mut read = Vec::new();
                        while read.len() < 300 {
                            assert!(reader.wait(soon()).unwrap());
                            read.extend(rest(&mut reader).into_iter().map(|r| r.0));
                        }
                        assert_eq!(read, (0..300).collect::<Vec<_>>());
                    });
                }
            }
        });
    });
}

#[test]
fn handles_can_be_shared_by_threads_and_readers_handed_to_them() {
    fn shared<T: Clone + Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<Log>();
    shared::<Topic>();
    shared::<Transactional>();
    moved::<Reader>();
    moved::<RecordBatch>();
    moved::<Error>();
}
