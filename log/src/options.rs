//! Settings and limits of a log and of its topics, with their defaults.

use crate::clock::{Clock, SystemClock};
use crate::compression::Compression;
use crate::disk::{Disk, FileDisk};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Largest encoded record: 16 MiB.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 16 << 20;
/// Largest batch, stored or decompressed: 32 MiB.
pub const DEFAULT_MAX_BATCH_BYTES: usize = 32 << 20;
/// Size at which a segment is closed and the next begins: 256 MiB.
pub const DEFAULT_SEGMENT_BYTES: u64 = 256 << 20;
/// A segment has an index entry every so many bytes: looking up an offset or a timestamp reads this much at most.
pub(crate) const INDEX_INTERVAL_BYTES: u64 = 64 << 10;
/// What a reader asks the disk for at once. More does not make page-cache reads faster; less costs system calls.
pub(crate) const READ_AHEAD_BYTES: usize = 256 << 10;
/// Batches of each idempotent producer whose offsets are remembered, to acknowledge duplicates with. Kafka remembers 5.
pub(crate) const REMEMBERED_BATCHES: usize = 8;
/// Idempotent producers that a partition remembers; beyond, the one that has been silent for longest is forgotten.
pub(crate) const REMEMBERED_PRODUCERS: usize = 4096;
/// Memory for the keys of one compaction pass; what does not fit is left for the next.
pub(crate) const COMPACTION_MEMORY_BYTES: usize = 128 << 20;

/// When appended records are durable, that is, survive a power cut. They survive the death of the process in any case.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before `append` returns, and before read-committed readers of this process see them. Appends of several threads to one partition
    /// share a sync.
    Always,
    /// At most so long after they were appended, provided that the embedder calls [`Log::maintain`](crate::Log::maintain) or
    /// goes on appending. Called twice in that time, `maintain` syncs before an append has to: appends wait for no disk.
    Interval(Duration),
    /// When the operating system writes them back, or [`Log::sync`](crate::Log::sync) is called, or their segment is full.
    OsBuffered,
}

/// What to do about damage in the part of a partition that was possibly never synced, when the log is opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Damage {
    /// Bad bytes with valid records after them are an error; only a torn tail is cut off.
    #[default]
    Refuse,
    /// The last segment is cut off at the first bad byte, whatever follows. What is lost is reported. For a log that was not
    /// synced when the power went, on a file system that writes back out of order; and to go on after damage that cannot be restored.
    CutOff,
}

/// Settings of a log.
///
/// ```
/// use rivermark_log::{Durability, LogOptions};
/// use std::time::Duration;
/// let options = LogOptions::new().durability(Durability::Interval(Duration::from_millis(200)));
/// ```
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub(crate) durability: Durability,
    pub(crate) damage: Damage,
    pub(crate) max_record_bytes: usize,
    pub(crate) max_batch_bytes: usize,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            durability: Durability::Interval(Duration::from_secs(1)),
            damage: Damage::Refuse,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            max_batch_bytes: DEFAULT_MAX_BATCH_BYTES,
            disk: Arc::new(FileDisk),
            clock: Arc::new(SystemClock),
        }
    }
}

impl LogOptions {
    /// The defaults: files of the operating system, its clock, synced every second.
    pub fn new() -> Self {
        Self::default()
    }

    /// When appended records are durable. Every second unless told otherwise. Transactions are always durable when they say so.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long records may wait to be synced, with [`Durability::Interval`]: [`Log::maintain`](crate::Log::maintain) is to be called twice in that
    /// time.
    pub fn sync_interval(&self) -> Option<Duration> {
        match self.durability {
            Durability::Interval(interval) => Some(interval),
            Durability::Always | Durability::OsBuffered => None,
        }
    }

    /// What to do about damage that a power cut can have caused.
    pub fn damage(mut self, damage: Damage) -> Self {
        self.damage = damage;
        self
    }

    /// The largest record that can be appended, encoded, in bytes. [`DEFAULT_MAX_RECORD_BYTES`] unless told otherwise.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// The largest batch that can be appended or read, stored or decompressed, in bytes; at most 1 GiB. [`DEFAULT_MAX_BATCH_BYTES`]
    /// unless told otherwise. Nothing larger is ever allocated, whatever a file says.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes.min(1 << 30);
        self
    }

    /// The disk to use.
    pub fn disk(mut self, disk: impl Disk + 'static) -> Self {
        self.disk = Arc::new(disk);
        self
    }

    /// The clock to use.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

/// Which old segments [`Log::maintain`](crate::Log::maintain) removes. As in Kafka, a whole segment at a time, never the last.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Removes a segment once all its records' timestamps are older than this. Judged by the records' own timestamps: an event from
    /// last year is a year old when it is appended.
    pub time: Option<Duration>,
    /// Removes the oldest segments while the partition would still hold this much without them.
    pub bytes: Option<u64>,
}

/// Whether only the last record of a key is kept.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compaction {
    /// How long a tombstone is kept after compaction has first seen it, so that readers that lag behind less than that learn of
    /// the deletion.
    pub delete_retention: Duration,
    /// Share of a partition's closed bytes that must be new since the last compaction to make another worth it: 0 to 1.
    pub min_dirty_ratio: f64,
}

impl Default for Compaction {
    /// Kafka's defaults: a day, and half.
    fn default() -> Self {
        Compaction { delete_retention: Duration::from_secs(24 * 3600), min_dirty_ratio: 0.5 }
    }
}

/// Settings of a topic, kept with it.
///
/// ```
/// use rivermark_log::{Compression, TopicOptions};
/// let options = TopicOptions::new(8).compression(Compression::Lz4);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopicOptions {
    pub(crate) partitions: u32,
    pub(crate) compression: Compression,
    pub(crate) segment_bytes: u64,
    pub(crate) retention: Retention,
    pub(crate) compaction: Option<Compaction>,
}

impl TopicOptions {
    /// Whether older records of a key are removed.
    pub fn is_compacted(&self) -> bool {
        self.compaction.is_some()
    }

    /// A topic of so many partitions: not compressed, kept for ever.
    pub fn new(partitions: u32) -> Self {
        TopicOptions {
            partitions,
            compression: Compression::None,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            retention: Retention::default(),
            compaction: None,
        }
    }

    /// How batches are compressed.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Size at which a segment is closed and the next begins. [`DEFAULT_SEGMENT_BYTES`] unless told otherwise. Where records come fast
    /// [`Log::maintain`](crate::Log::maintain) does so ahead of time, from half of it on; it may be twice as much while that is under way.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// What is removed, and when.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Keeps only the last record of each key.
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.compaction = Some(compaction);
        self
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }
}
