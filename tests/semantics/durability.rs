//! What is on the disk when the power goes: the log is never behind a checkpoint that was taken of it.

use crate::support::deadline;
use rivermark::connectors::{Collect, LogSource};
use rivermark::log::{
    Crash, Disk, Durability, Log, LogOptions, MemoryDisk, RecordBatch, Retention, TopicOptions,
};
use rivermark::{Engine, Flow, Options, millis};
use std::path::Path;

const RECORDS: u64 = 100;

/// An engine whose log is on a disk that can be looked at as a power cut would leave it.
fn engine(directory: &Path, disk: &MemoryDisk, durability: Durability) -> Engine {
    for folder in directory.ancestors() {
        disk.create_dir_all(folder).unwrap();
        disk.sync_dir(folder).unwrap();
    }
    let log = LogOptions::new().disk(disk.clone()).durability(durability);
    Engine::open_with(directory, Options::new().workers(2).checkpoint_every(None).log(log)).unwrap()
}

fn append(log: &Log, records: u64) {
    let topic = log.topic("numbers").unwrap();
    for n in 0..records {
        let mut batch = RecordBatch::new();
        batch.push(None, Some(&n.to_le_bytes()), 0);
        topic.append(0, &mut batch).unwrap();
    }
}

/// How many records a power cut leaves.
fn left(directory: &Path, disk: &MemoryDisk, seed: u64) -> u64 {
    let options = LogOptions::new().disk(disk.after(Crash::Power(seed)));
    let log = Log::open(directory.join("log"), options).unwrap();
    log.topic("numbers").unwrap().info(0).unwrap().end
}

#[test]
fn a_checkpoint_never_points_past_what_a_power_cut_leaves_of_the_log() {
    for durability in [Durability::OsBuffered, Durability::Interval(millis(1_000_000)), Durability::Always] {
        let (directory, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
        let engine = engine(directory.path(), &disk, durability);
        engine.log().create_topic("numbers", TopicOptions::new(1)).unwrap();
        append(engine.log(), RECORDS);
        let flow = Flow::new("reading");
        flow.source(LogSource::<Vec<u8>>::topic("numbers").raw()).sink(Collect::new());
        let job = engine.start(flow).unwrap();
        let is_late = deadline();
        job.wait_until(|job| job.metrics().records_read == RECORDS || is_late());
        job.checkpoint().unwrap();
        for seed in 0..20 {
            assert_eq!(left(directory.path(), &disk, seed), RECORDS, "{durability:?}, seed {seed}");
        }
    }
}

#[test]
fn an_engine_syncs_its_log_in_the_interval_also_when_nothing_more_is_appended() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
    let engine = engine(directory.path(), &disk, Durability::Interval(millis(10)));
    engine.log().create_topic("numbers", TopicOptions::new(1)).unwrap();
    append(engine.log(), RECORDS);
    let is_late = deadline();
    while (0..5).any(|seed| left(directory.path(), &disk, seed) < RECORDS) {
        assert!(!is_late(), "not synced");
    }
}

#[test]
fn an_engine_removes_what_retention_no_longer_keeps() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
    let engine = engine(directory.path(), &disk, Durability::Interval(millis(10)));
    let retention = Retention { bytes: Some(1000), ..Retention::default() };
    let options = TopicOptions::new(1).segment_bytes(1000).retention(retention);
    let topic = engine.log().create_topic("numbers", options).unwrap();
    append(engine.log(), RECORDS);
    let is_late = deadline();
    while topic.info(0).unwrap().earliest == 0 {
        assert!(!is_late(), "nothing was removed");
    }
}
