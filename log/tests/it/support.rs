//! What the tests share: both disks, a clock that is set, and short forms.

use rivermark_log::{
    Clock, Durability, FileDisk, Isolation, Log, LogOptions, MemoryDisk, Position, Reader, RecordBatch, Topic,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A record as the tests compare it: offset, key, value, timestamp.
pub type Owned = (u64, Option<String>, Option<String>, i64);

/// A clock that the test sets.
#[derive(Clone, Debug, Default)]
pub struct SetClock(Arc<AtomicI64>);

impl SetClock {
    pub fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A place for a log on one of the disks.
pub struct Place {
    pub memory: Option<MemoryDisk>,
    pub path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    pub fn options(&self) -> LogOptions {
        let options = LogOptions::new().durability(Durability::OsBuffered);
        match &self.memory {
            Some(memory) => options.disk(memory.clone()),
            None => options.disk(FileDisk),
        }
    }

    pub fn open(&self) -> Log {
        Log::open(&self.path, self.options()).unwrap()
    }
}

/// Runs a test on both disks.
pub fn on_both_disks(test: impl Fn(&Place)) {
    let memory = Some(MemoryDisk::new());
    test(&Place { memory, path: PathBuf::from("/log"), _temporary: None });
    let temporary = tempfile::tempdir().unwrap();
    test(&Place { memory: None, path: temporary.path().join("log"), _temporary: Some(temporary) });
}

/// In memory.
pub fn memory(disk: &MemoryDisk) -> LogOptions {
    LogOptions::new().durability(Durability::OsBuffered).disk(disk.clone())
}

/// Appends one batch of values without keys, each with its number as timestamp.
pub fn append(topic: &Topic, partition: u32, values: impl IntoIterator<Item = u64>) -> u64 {
    let mut batch = RecordBatch::new();
    for value in values {
        batch.push(None, Some(value.to_string().as_bytes()), value as i64);
    }
    topic.append(partition, &mut batch).unwrap().base_offset
}

pub fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// Everything that a reader sees now.
pub fn rest(reader: &mut Reader) -> Vec<Owned> {
    let mut all = Vec::new();
    while let Some(records) = reader.next_batch().unwrap() {
        all.extend(records.map(|r| (r.offset, text(r.key), text(r.value), r.timestamp)));
    }
    all
}

/// The values of a partition, read-committed.
pub fn values(topic: &Topic, partition: u32) -> Vec<u64> {
    values_as(topic, partition, Isolation::ReadCommitted)
}

pub fn values_as(topic: &Topic, partition: u32, isolation: Isolation) -> Vec<u64> {
    let mut reader = topic.reader(partition, Position::Earliest, isolation).unwrap();
    rest(&mut reader).into_iter().map(|record| record.2.unwrap().parse().unwrap()).collect()
}

/// The files of a partition.
pub fn segment(path: &Path, topic: &str, partition: u32, base: u64) -> PathBuf {
    path.join("topics").join(topic).join(partition.to_string()).join(format!("{base:020}.log"))
}
