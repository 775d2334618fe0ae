//! The embedded log of Rivermark: partitioned, replayable, transactional.
//!
//! Topics of partitions, as in Kafka, in files of this process: a partition is a sequence of records with dense offsets, appended to in
//! batches that are checksummed and, if wanted, compressed; read from any position, by any number of readers, in this process and in others.
//!
//! ```
//! use rivermark_log::{Isolation, Log, LogOptions, MemoryDisk, Position, RecordBatch, TopicOptions};
//!
//! let log = Log::open("log", LogOptions::new().disk(MemoryDisk::new()))?;
//! let clicks = log.create_topic("clicks", TopicOptions::new(1))?;
//!
//! let mut batch = RecordBatch::new();
//! batch.push(Some(b"page"), Some(b"a click"), 1_700_000_000_000);
//! clicks.append(0, &mut batch)?;
//!
//! let mut reader = clicks.reader(0, Position::Earliest, Isolation::ReadCommitted)?;
//! while let Some(records) = reader.next_batch()? {
//!     for record in records {
//!         assert_eq!((record.offset, record.value), (0, Some(&b"a click"[..])));
//!     }
//! }
//! # Ok::<(), rivermark_log::Error>(())
//! ```
//!
//! It knows nothing of streams, has no thread of its own, and reads neither clock nor disk but through [`Clock`] and [`Disk`].

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod alias;
mod batch;
mod batches;
mod clock;
mod compaction;
mod compression;
mod disk;
mod environment;
mod error;
mod follow;
mod header;
mod log;
mod options;
mod partition;
mod producers;
mod reader;
mod record;
mod recovery;
mod retention;
mod scan;
mod segment;
mod tail;
mod topic;
mod transaction;
mod varint;
mod verify;

pub use alias::{AliasRange, AliasReader, AliasRecords, AliasSegment, Aliases};
pub use batch::RecordBatch;
pub use clock::{Clock, SystemClock};
pub use compression::Compression;
pub use disk::{Crash, Disk, DiskFile, DiskLock, Fault, FileDisk, MemoryDisk, Operation};
pub use error::{Effect, Error, Holder, Place, Result};
pub use log::Log;
pub use options::{
    Compaction, DEFAULT_MAX_BATCH_BYTES, DEFAULT_MAX_RECORD_BYTES, DEFAULT_SEGMENT_BYTES, Damage, Durability,
    LogOptions, Retention, TopicOptions,
};
pub use partition::{Appended, PartitionInfo, Sequence};
pub use reader::{Isolation, Position, Reader};
pub use record::{Headers, RecordHeader, RecordView, Records};
pub use recovery::{Recovery, Truncated};
pub use topic::Topic;
pub use transaction::{PreparedEpoch, PreparedPartition, Transactional, TransactionalInfo};
pub use verify::{Verification, verify, verify_with};
