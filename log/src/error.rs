//! What can go wrong, on what, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A result of the log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One partition of one topic, as errors and reports name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {}, partition {}", self.topic, self.partition)
    }
}

/// Whether what failed can have had an effect.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It definitely did not happen: nothing was changed, and trying again is safe.
    None,
    /// It may have happened. Ask (read, list prepared epochs) or repeat an idempotent call; do not assume either.
    Unknown,
}

/// An error of the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk refused an operation.
    #[error("{attempt} {}: {source}", path.display())]
    Io {
        /// What was attempted, as in "writing to".
        attempt: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
        /// Whether it may have happened none the less.
        effect: Effect,
    },
    /// The disk is full. What was being written is not in the log, which is intact and goes on once there is room.
    #[error("{attempt} {}: the disk is full; nothing was appended, free some space and try again", path.display())]
    DiskFull {
        /// What was attempted, as in "writing to".
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// The disk's answer.
        source: io::Error,
    },
    /// Another process (or another [`Log`](crate::Log) of this one) writes to the log.
    #[error(
        "opening the log in {} for writing: {holder} holds it; stop that one, or open the log read-only",
        directory.display()
    )]
    Locked {
        /// The log's folder.
        directory: PathBuf,
        /// The process that holds it.
        holder: Holder,
    },
    /// The lock file was removed or replaced while this process held it, so another writer may be at work.
    #[error("the lock file {} is no longer ours: another process may write to the log; stop one of them", path.display())]
    LockLost {
        /// The lock file.
        path: PathBuf,
    },
    /// The log was opened read-only.
    #[error("{attempt}: the log was opened read-only")]
    ReadOnly {
        /// What was attempted.
        attempt: &'static str,
    },
    /// Bytes that were once written are not what they were. Nothing is skipped: restore the file, or cut the log off there.
    #[error(
        "{place}: segment {segment} is damaged at byte {position}, where offset {offset} belongs: {problem}"
    )]
    Corrupt {
        /// Which partition.
        place: Place,
        /// The segment's file name.
        segment: String,
        /// Where in the file the damage was found, in bytes.
        position: u64,
        /// The offset of the first record that cannot be read.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A file other than a segment holds what it should not.
    #[error("reading {}: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A record exceeds [`LogOptions::max_record_bytes`](crate::LogOptions::max_record_bytes).
    #[error(
        "{place}: a record of {bytes} bytes exceeds the limit of {limit}; raise max_record_bytes, or split it"
    )]
    RecordTooLarge {
        /// Which partition.
        place: Place,
        /// The record's encoded size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A batch exceeds [`LogOptions::max_batch_bytes`](crate::LogOptions::max_batch_bytes), stored or decompressed.
    #[error(
        "{place}: a batch of {bytes} bytes exceeds the limit of {limit}; raise max_batch_bytes, or append less at once"
    )]
    BatchTooLarge {
        /// Which partition.
        place: Place,
        /// The batch's size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A record without a key in a topic that is compacted by key.
    #[error("{place}: a record without a key cannot be kept in a compacted topic")]
    KeyRequired {
        /// Which partition.
        place: Place,
    },
    /// An offset that is not in the partition, most often because retention removed it.
    #[error("{place}: offset {offset} is not there: the partition holds {earliest} to {end} (exclusive)")]
    OffsetOutOfRange {
        /// Which partition.
        place: Place,
        /// The offset that was asked for.
        offset: u64,
        /// The first offset there is.
        earliest: u64,
        /// One past the last.
        end: u64,
    },
    /// A name that cannot name a topic or a transactional id.
    #[error("{name:?} cannot be a name: 1 to 200 of a-z, A-Z, 0-9, '.', '_' and '-', not beginning with '.'")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// Options that make no sense.
    #[error("topic {topic}: {problem}")]
    InvalidOptions {
        /// The topic.
        topic: String,
        /// What is wrong with them.
        problem: String,
    },
    /// No such topic.
    #[error("there is no topic {topic}; create it first")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic is there already.
    #[error("topic {topic} is there already")]
    TopicExists {
        /// Its name.
        topic: String,
    },
    /// No such partition.
    #[error("{place} is not there: the topic has {partitions} partitions")]
    UnknownPartition {
        /// Which one.
        place: Place,
        /// How many there are.
        partitions: u32,
    },
    /// An idempotent producer left something out, or was forgotten.
    #[error(
        "{place}: producer {producer} sent sequence {sequence} where {expected} was expected; nothing was appended"
    )]
    SequenceGap {
        /// Which partition.
        place: Place,
        /// The producer's id.
        producer: u64,
        /// The sequence of the first record that was sent.
        sequence: u64,
        /// The sequence that would have been next.
        expected: u64,
    },
    /// An idempotent producer sent again what was appended, but so long ago, or cut into batches so differently, that the
    /// offsets are not remembered.
    #[error(
        "{place}: producer {producer} sent sequence {sequence} again, which was appended ({expected} comes next); \
         its offset is no longer known"
    )]
    ForgottenDuplicate {
        /// Which partition.
        place: Place,
        /// The producer's id.
        producer: u64,
        /// The sequence of the first record that was sent.
        sequence: u64,
        /// The sequence that would have been next.
        expected: u64,
    },
    /// A newer generation of the transactional id has taken over.
    #[error(
        "transactional id {id}: generation {generation} is fenced by generation {current}; it must not go on"
    )]
    Fenced {
        /// The transactional id.
        id: String,
        /// The generation that asked.
        generation: u64,
        /// The generation that holds the id now.
        current: u64,
    },
    /// The epoch is not in the state that the call needs.
    #[error("transactional id {id}, epoch {epoch}: cannot {attempt}, it is {state}")]
    EpochState {
        /// The transactional id.
        id: String,
        /// The epoch.
        epoch: u64,
        /// What was attempted.
        attempt: &'static str,
        /// What the epoch is instead.
        state: &'static str,
    },
    /// Bytes of a file could not be made durable, so what the file holds is not known any more. The partition takes no
    /// appends until the log is opened again, which finds out.
    #[error("{place}: an earlier sync failed ({cause}); open the log again to recover")]
    Poisoned {
        /// Which partition.
        place: Place,
        /// What the sync said.
        cause: String,
    },
}

/// Who holds the lock of a log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The process of this id.
    Process(u32),
    /// A process that has not written its id yet.
    Unknown,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holder::Process(pid) => write!(f, "process {pid}"),
            Holder::Unknown => f.write_str("a process that has not named itself yet"),
        }
    }
}

impl Error {
    /// Whether the operation that failed may have happened none the less.
    pub fn effect(&self) -> Effect {
        match self {
            Error::Io { effect, .. } => *effect,
            Error::Poisoned { .. } => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// An operation of the disk that changed nothing.
    pub(crate) fn io(attempt: &'static str, path: &Path, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::StorageFull {
            return Error::DiskFull { attempt, path: path.to_path_buf(), source };
        }
        Error::Io { attempt, path: path.to_path_buf(), source, effect: Effect::None }
    }

    /// An operation of the disk that may have happened.
    pub(crate) fn unknown(attempt: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { attempt, path: path.to_path_buf(), source, effect: Effect::Unknown }
    }
}
