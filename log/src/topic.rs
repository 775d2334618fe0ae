//! Topics: named sets of partitions, and the file that describes each.

use crate::batch::RecordBatch;
use crate::compaction::compact;
use crate::disk::{Disk, read_all};
use crate::environment::Environment;
use crate::error::{Error, Place, Result};
use crate::options::{Compaction, TopicOptions};
use crate::partition::{Appended, Partition, PartitionInfo, Sequence, TRANSACTIONAL_PRODUCERS};
use crate::reader::{Isolation, Position, Reader};
use crate::recovery::Recovery;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DESCRIPTION: &str = "topic.json";
const FORMAT: u32 = 1;
/// A topic has at most so many partitions.
const MAX_PARTITIONS: u32 = 1 << 16;

/// A topic of an open log. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Topic {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    options: TopicOptions,
    partitions: Vec<Arc<Partition>>,
}

/// The content of `topic.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    #[serde(flatten)]
    options: TopicOptions,
}

/// Whether a name can be a folder's on every file system, and cannot lead out of its own.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(is_fine) {
        return Err(Error::InvalidName { name: name.to_owned() });
    }
    Ok(())
}

fn check_options(topic: &str, options: &TopicOptions) -> Result<()> {
    let problem = if !(1..=MAX_PARTITIONS).contains(&options.partitions) {
        format!("{} partitions, where 1 to {MAX_PARTITIONS} are possible", options.partitions)
    } else if options.segment_bytes == 0 {
        "segments of no bytes".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::InvalidOptions { topic: topic.to_owned(), problem })
}

/// Makes a topic's folder, so that a crash leaves all of it or nothing.
pub(crate) fn create(environment: &Environment, name: &str, options: &TopicOptions) -> Result<()> {
    check_options(name, options)?;
    let disk = &*environment.disk;
    let topics = environment.topics();
    let temporary = topics.join(format!(".{name}.tmp"));
    let failed = |e| Error::io("making the topic", &temporary, e);
    // An earlier attempt may have been interrupted.
    let _ = disk.remove_dir_all(&temporary);
    disk.create_dir_all(&temporary).map_err(failed)?;
    for partition in 0..options.partitions {
        disk.create_dir_all(&temporary.join(partition.to_string())).map_err(failed)?;
    }
    let description = Description { format: FORMAT, options: options.clone() };
    let text = serde_json::to_vec_pretty(&description).map_err(|e| failed(e.into()))?;
    crate::disk::replace(disk, &temporary.join(DESCRIPTION), &text).map_err(failed)?;
    disk.sync_dir(&temporary).map_err(failed)?;
    let path = topics.join(name);
    disk.rename(&temporary, &path).map_err(|e| Error::io("making the topic", &path, e))?;
    disk.sync_dir(&topics).map_err(|e| Error::unknown("making the topic durable", &path, e))
}

/// Removes a topic's folder, so that a crash leaves all of it or nothing.
pub(crate) fn delete(environment: &Environment, name: &str) -> Result<()> {
    let disk = &*environment.disk;
    let topics = environment.topics();
    let (path, gone) = (topics.join(name), topics.join(format!(".{name}.gone")));
    let failed = |e| Error::io("removing the topic", &path, e);
    // An earlier attempt may have been interrupted.
    let _ = disk.remove_dir_all(&gone);
    match disk.rename(&path, &gone) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(failed)?,
    }
    disk.sync_dir(&topics).map_err(failed)?;
    disk.remove_dir_all(&gone).map_err(failed)
}

/// The names of all topics there are.
pub(crate) fn list(environment: &Environment) -> Result<Vec<String>> {
    let topics = environment.topics();
    match environment.disk.list(&topics) {
        Ok(names) => Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("listing", &topics, error)),
    }
}

pub(crate) fn describe(disk: &dyn Disk, path: &Path) -> Result<TopicOptions> {
    let path = path.join(DESCRIPTION);
    let bytes = read_all(disk, &path, 1 << 20).map_err(|e| Error::io("reading", &path, e))?;
    let bad = |problem: String| Error::BadFile { path: path.clone(), problem };
    let format: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    match format.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(newer) => {
            return Err(bad(format!("the topic has format {newer}; this version reads format {FORMAT}")));
        }
        None => return Err(bad("it does not say which format the topic has".to_owned())),
    }
    let description: Description = serde_json::from_value(format).map_err(|e| bad(e.to_string()))?;
    Ok(description.options)
}

impl Topic {
    /// Opens a topic that is there.
    pub(crate) fn open(environment: &Arc<Environment>, name: &str, recovery: &mut Recovery) -> Result<Topic> {
        let directory: PathBuf = environment.topics().join(name);
        let options = describe(&*environment.disk, &directory)?;
        check_options(name, &options)?;
        let name: Arc<str> = name.into();
        let open = |partition: u32| {
            let place = Place { topic: Arc::clone(&name), partition };
            let directory = directory.join(partition.to_string());
            Partition::open(environment, place, directory, options.clone(), recovery).map(Arc::new)
        };
        let partitions = (0..options.partitions).map(open).collect::<Result<_>>()?;
        Ok(Topic { inner: Arc::new(Inner { name, options, partitions }) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> u32 {
        self.inner.options.partitions
    }

    /// Its options, as it was created with.
    pub fn options(&self) -> &TopicOptions {
        &self.inner.options
    }

    pub(crate) fn partition(&self, partition: u32) -> Result<&Arc<Partition>> {
        self.inner.partitions.get(partition as usize).ok_or_else(|| Error::UnknownPartition {
            place: Place { topic: Arc::clone(&self.inner.name), partition },
            partitions: self.partitions(),
        })
    }

    pub(crate) fn all(&self) -> &[Arc<Partition>] {
        &self.inner.partitions
    }

    /// Appends a batch to a partition, and leaves the batch empty. Partitions are appended to in parallel; one partition by one thread
    /// at a time.
    ///
    /// # Errors
    /// If [`Error::effect`] is [`Effect::None`](crate::Effect::None), nothing was appended and the batch is as it was. Otherwise it may have
    /// been.
    pub fn append(&self, partition: u32, batch: &mut RecordBatch) -> Result<Appended> {
        self.partition(partition)?.append(batch, None)
    }

    /// Appends a batch of an idempotent producer: once, however often it is sent.
    ///
    /// # Errors
    /// As [`Topic::append`]; also [`Error::SequenceGap`] if records before this batch are missing.
    pub fn append_once(
        &self,
        partition: u32,
        batch: &mut RecordBatch,
        sequence: Sequence,
    ) -> Result<Appended> {
        if sequence.producer == 0 || sequence.producer >= TRANSACTIONAL_PRODUCERS {
            let problem = format!("producer {} is not between 1 and 2^63 - 1", sequence.producer);
            return Err(Error::InvalidOptions { topic: self.name().to_owned(), problem });
        }
        self.partition(partition)?.append(batch, Some(sequence))
    }

    /// Reads a partition from a position.
    pub fn reader(&self, partition: u32, position: Position, isolation: Isolation) -> Result<Reader> {
        Reader::new(Arc::clone(self.partition(partition)?), position, isolation)
    }

    /// The first offset whose record's timestamp is at least this, or one past the last that is visible.
    pub fn offset_at(&self, partition: u32, timestamp: i64, isolation: Isolation) -> Result<u64> {
        Ok(self.reader(partition, Position::Timestamp(timestamp), isolation)?.position())
    }

    /// What is in a partition. Costs a look at each of its segments, in memory.
    pub fn info(&self, partition: u32) -> Result<PartitionInfo> {
        let partition = self.partition(partition)?;
        partition.refresh()?;
        Ok(partition.info())
    }

    /// Closes the last segment of every partition and begins another, so that retention and compaction reach what has been appended.
    pub fn roll(&self) -> Result<()> {
        self.inner.partitions.iter().try_for_each(|partition| partition.roll_now())
    }

    /// Compacts all partitions now, whether [`Log::maintain`](crate::Log::maintain) would find it worth it or not: closes their last segments, and
    /// leaves of each key the last record. Costs reading and writing the partitions once.
    ///
    /// `now_ms` is the time in milliseconds since the Unix epoch, for tombstones: they are kept as long as the topic's options say.
    ///
    /// # Errors
    /// [`Error::InvalidOptions`] if the topic is not one that is compacted; or a partition is damaged or cannot be written, and what was compacted
    /// before stays so.
    pub fn compact(&self, now_ms: i64) -> Result<()> {
        let Some(compaction) = &self.inner.options.compaction else {
            let problem = "it keeps all records of a key, as it was created to; only a topic that was created with \
                           `TopicOptions::compaction` can be compacted";
            return Err(Error::InvalidOptions { topic: self.name().to_owned(), problem: problem.to_owned() });
        };
        self.roll()?;
        let always = Compaction { min_dirty_ratio: 0.0, ..*compaction };
        for partition in self.all() {
            // A pass ends where the keys do not fit into memory any more.
            while compact(partition, &always, now_ms)? {}
        }
        Ok(())
    }

    /// Makes everything appended to all partitions so far durable.
    pub fn sync(&self) -> Result<()> {
        self.inner.partitions.iter().try_for_each(|partition| partition.sync_to(partition.end()))
    }
}
