//! Writing topics of the embedded log, exactly once.
//!
//! Each worker's writer is a transactional id of the log, named after flow, version, sink and worker. Between two barriers its records go into
//! one transaction, which nobody sees; at the barrier the transaction is sealed, and the token names it. The committer, which knows the
//! ids of all workers there ever were, prepares what tokens name before their checkpoint is stored, so that no worker waits for the disk, and
//! commits them afterwards. Opening the ids with a higher generation fences whatever
//! an older attempt still holds.

use crate::format::{Bincode, Format, Json, Raw, Text};
use crate::log_source::log_of;
use rivermark_log::{Log, RecordBatch, Topic, TopicOptions, Transactional};
use rivermark_operators::sink::{
    Batch, CommitError, Committer, Epoch, Sink, SinkContext, SinkWriter, VersionedOutput, WrittenTopic,
};
use rivermark_operators::source::ConnectorContext;
use rivermark_operators::trace::{ORIGIN_HEADER, Trace};
use rivermark_operators::{BoxError, Stamp, Timestamp, hash_key};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

type Encode<T> = Arc<dyn Fn(&T, &mut Vec<u8>) -> Result<bool, BoxError> + Send + Sync>;
type KeyOf<T> = Arc<dyn Fn(&T) -> Result<Vec<u8>, BoxError> + Send + Sync>;
type PartitionOf<T> = Arc<dyn Fn(&T, u32) -> u32 + Send + Sync>;

/// A topic of the engine's log as a sink. Rows are JSON unless another format is chosen.
///
/// Rows appear once their checkpoint is stored, and never without it: a transaction a worker, one after the other. So a reader may see one
/// worker's rows of a checkpoint before another's; after a crash in between, the rest appear when the job starts again. Each row has the
/// event time of its record as timestamp.
pub struct LogSink<T> {
    /// The topic, or the alias of one for each version.
    topic: String,
    is_alias: bool,
    upserts: bool,
    options: Option<TopicOptions>,
    /// How a topic is created that is not there, where no options say so.
    otherwise: TopicOptions,
    encode: Encode<T>,
    key: Option<KeyOf<T>>,
    partition: Option<PartitionOf<T>>,
}

impl<T> Clone for LogSink<T> {
    fn clone(&self) -> Self {
        LogSink {
            topic: self.topic.clone(),
            is_alias: self.is_alias,
            upserts: self.upserts,
            options: self.options.clone(),
            otherwise: self.otherwise.clone(),
            encode: Arc::clone(&self.encode),
            key: self.key.clone(),
            partition: self.partition.clone(),
        }
    }
}

impl<T: Serialize + 'static> LogSink<T> {
    /// Writes to the topic `topic`, as JSON. It is created with one partition if it is not there; if it is, any number will do.
    pub fn topic(topic: impl Into<String>) -> Self {
        let encode = |row: &T, bytes: &mut Vec<u8>| {
            serde_json::to_writer(bytes, row)?;
            Ok(true)
        };
        LogSink::encoded(topic.into(), encode, TopicOptions::new(1))
    }

    /// Writes the output `alias` of the flow: each version writes a topic of its own, `ALIAS.vVERSION`, and readers of the alias
    /// ([`AliasSource`](crate::AliasSource)) follow the version that is live. For flows that are deployed. Otherwise as [`LogSink::topic`].
    pub fn output(alias: impl Into<String>) -> Self {
        LogSink { is_alias: true, ..LogSink::topic(alias) }
    }
}

impl<T: 'static> LogSink<T> {
    /// As [`LogSink::topic`], with rows as `format` encodes them: for rows that serde knows nothing of.
    ///
    /// ```
    /// use rivermark_connectors::{LogSink, format::Raw};
    ///
    /// let sink: LogSink<Vec<u8>> = LogSink::with_format("frames", Raw);
    /// ```
    pub fn with_format<F: Format<T>>(topic: impl Into<String>, format: F) -> Self {
        let encode = move |row: &T, bytes: &mut Vec<u8>| format.encode(row, bytes).map(|()| true);
        LogSink::encoded(topic.into(), encode, TopicOptions::new(1))
    }

    /// Encodes rows by another format.
    pub fn format<F: Format<T>>(mut self, format: F) -> Self {
        self.encode = Arc::new(move |row, bytes| format.encode(row, bytes).map(|()| true));
        self
    }

    /// Gives each row a key, by which the topic is partitioned and can be compacted.
    pub fn key(self, key: impl Fn(&T) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.try_key(move |row| Ok(key(row)))
    }

    /// Writes a row without a value, a tombstone, where `is_delete` answers true: in a compacted topic, the end of its key.
    pub fn tombstone(mut self, is_delete: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        let encode = self.encode;
        self.encode = Arc::new(move |row, bytes| if is_delete(row) { Ok(false) } else { encode(row, bytes) });
        self
    }

    /// How many partitions the topic is created with, if it is not there, and has to have if it is.
    pub fn partitions(self, partitions: u32) -> Self {
        self.topic_options(TopicOptions::new(partitions))
    }

    /// How the topic is created, if it is not there. One that is there with another number of partitions is an error.
    pub fn topic_options(mut self, options: TopicOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Chooses each row's partition, below the number of partitions that the function is given. Default: by the hash of the key, and the
    /// first partition without a key.
    pub fn partition_by(mut self, partition: impl Fn(&T, u32) -> u32 + Send + Sync + 'static) -> Self {
        self.partition = Some(Arc::new(partition));
        self
    }
}

impl<T: Serialize + DeserializeOwned + 'static> LogSink<T> {
    /// Encodes rows as JSON.
    pub fn json(self) -> Self {
        self.format(Json)
    }

    /// Encodes rows as bincode.
    pub fn bincode(self) -> Self {
        self.format(Bincode)
    }
}

impl LogSink<Vec<u8>> {
    /// Writes rows as the bytes that they are.
    pub fn raw(self) -> Self {
        self.format(Raw)
    }
}

impl LogSink<String> {
    /// Writes rows as UTF-8 text.
    pub fn text(self) -> Self {
        self.format(Text)
    }
}

impl<T> LogSink<T> {
    /// Writes rows as `encode` does; one of which it answers false has no value.
    pub(crate) fn encoded(
        topic: String,
        encode: impl Fn(&T, &mut Vec<u8>) -> Result<bool, BoxError> + Send + Sync + 'static,
        otherwise: TopicOptions,
    ) -> Self {
        LogSink {
            topic,
            is_alias: false,
            upserts: false,
            options: None,
            otherwise,
            encode: Arc::new(encode),
            key: None,
            partition: None,
        }
    }

    /// As an output of upserts under an alias.
    pub(crate) fn upserts_of_alias(self) -> Self {
        LogSink { is_alias: true, upserts: true, ..self }
    }

    /// The topic that a version writes.
    fn topic_of(&self, version: u64) -> String {
        if self.is_alias { format!("{}.v{version}", self.topic) } else { self.topic.clone() }
    }

    /// As [`LogSink::key`], for keys that may not be encodable.
    pub(crate) fn try_key(
        mut self,
        key: impl Fn(&T) -> Result<Vec<u8>, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.key = Some(Arc::new(key));
        self
    }

    fn open_topic(&self, log: &Log, version: u64) -> rivermark_log::Result<Topic> {
        let topic = self.topic_of(version);
        match &self.options {
            Some(options) => log.ensure_topic(&topic, options.clone()),
            None => match log.topic(&topic) {
                Err(rivermark_log::Error::UnknownTopic { .. }) => {
                    log.ensure_topic(&topic, self.otherwise.clone())
                }
                found => found,
            },
        }
    }
}

/// The transactional ids of a sink begin with this; the worker's number follows.
fn id_prefix(cx: &ConnectorContext<'_>) -> String {
    let plain = |name: &str| {
        let mut plain = String::new();
        for byte in name.bytes() {
            match byte {
                b if b.is_ascii_alphanumeric() || b == b'-' => plain.push(char::from(b)),
                // A dot separates the parts, so it is none of their letters.
                b => plain.push_str(&format!("_x{b:02x}")),
            }
        }
        plain
    };
    format!("{}.v{}.{}.", plain(cx.flow), cx.version, plain(cx.name))
}

/// Names a prepared transaction: its number, then its transactional id.
fn token(id: &str, number: u64) -> Vec<u8> {
    [&number.to_le_bytes()[..], id.as_bytes()].concat()
}

fn parse_token(token: &[u8]) -> Result<(&str, u64), CommitError> {
    let parsed = token.split_first_chunk().and_then(|(number, id)| {
        let id = std::str::from_utf8(id).ok()?;
        Some((id, u64::from_le_bytes(*number)))
    });
    parsed.ok_or_else(|| {
        CommitError::Refused("the checkpoint's token does not name a transaction of the log".into())
    })
}

/// A full or failing disk may be well again the next time; whoever is fenced stays so.
fn failed(error: rivermark_log::Error) -> CommitError {
    use rivermark_log::Error::{DiskFull, Io, Poisoned};
    match error {
        // Space may be made and a disk may come back, so that committing again can help.
        DiskFull { .. } | Io { .. } | Poisoned { .. } => CommitError::Unknown(error.into()),
        _ => CommitError::Refused(error.into()),
    }
}

impl<T: Send + 'static> Sink<T> for LogSink<T> {
    type Writer = LogWriter<T>;

    fn writer(&self, cx: &SinkContext<'_>) -> Result<LogWriter<T>, BoxError> {
        let log = log_of(&cx.connector)?;
        let topic = self.open_topic(log, cx.connector.version)?;
        let transaction =
            log.transactional(&format!("{}{}", id_prefix(&cx.connector), cx.worker), cx.generation)?;
        let batches = (0..topic.partitions()).map(|_| RecordBatch::new()).collect();
        Ok(LogWriter {
            sink: self.clone(),
            topic,
            transaction,
            // Unique and rising for the id's life: attempts have rising generations.
            number: (cx.generation << 32) + 1,
            open: false,
            batches,
            value: Vec::new(),
            bytes: 0,
            is_traced: cx.connector.resources.get::<Arc<Trace>>().is_some(),
        })
    }

    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        let log = log_of(&cx.connector)?.clone();
        self.open_topic(&log, cx.connector.version)?;
        Ok(Box::new(LogCommitter { log, prefix: id_prefix(&cx.connector), generation: cx.generation }))
    }

    fn versioned_output(&self, version: u64) -> Option<VersionedOutput> {
        let (alias, topic, upserts) = (self.topic.clone(), self.topic_of(version), self.upserts);
        self.is_alias.then_some(VersionedOutput { alias, topic, upserts })
    }

    fn written_topic(&self, cx: &ConnectorContext<'_>) -> Option<WrittenTopic> {
        Some(WrittenTopic { topic: self.topic_of(cx.version), transactions: id_prefix(cx) })
    }
}

/// Bytes that are gathered for a partition before they go into the transaction.
const BATCH_BYTES: usize = 256 << 10;

/// One worker's share of a [`LogSink`].
pub struct LogWriter<T> {
    sink: LogSink<T>,
    topic: Topic,
    transaction: Transactional,
    /// The number of the transaction that is open or will be opened next.
    number: u64,
    open: bool,
    batches: Vec<RecordBatch>,
    value: Vec<u8>,
    bytes: u64,
    /// Whether the run is one that explains rows.
    is_traced: bool,
}

impl<T> LogWriter<T> {
    fn add(&mut self, stamp: Stamp, row: &T) -> Result<(), BoxError> {
        self.value.clear();
        let has_value = (self.sink.encode)(row, &mut self.value)
            .map_err(|e| format!("a row for topic `{}` cannot be encoded: {e}", self.sink.topic))?;
        let key = self.sink.key.as_ref().map(|key| key(row)).transpose();
        let key = key.map_err(|e| {
            format!("the key of a row for topic `{}` cannot be encoded: {e}", self.sink.topic)
        })?;
        let partitions = self.batches.len() as u32;
        let partition = match (&self.sink.partition, &key) {
            (Some(partition), _) => partition(row, partitions),
            (None, Some(key)) => (hash_key(key) % u64::from(partitions)) as u32,
            (None, None) => 0,
        };
        let Some(batch) = self.batches.get_mut(partition as usize) else {
            return Err(format!(
                "topic `{}` has {partitions} partitions, and a row was sent to {partition}",
                self.sink.topic
            )
            .into());
        };
        let time = if stamp.time == Timestamp::MIN { 0 } else { stamp.time.millis() };
        let value = has_value.then_some(&self.value[..]);
        match self.is_traced {
            false => batch.push(key.as_deref(), value, time),
            true => {
                let origin = stamp.origin.to_bits().to_be_bytes();
                batch.push_with_headers(key.as_deref(), value, time, &[(ORIGIN_HEADER, Some(&origin))]);
            }
        }
        self.bytes += (self.value.len() + key.map_or(0, |key| key.len())) as u64;
        if batch.bytes() >= BATCH_BYTES { self.pass_on(partition as usize) } else { Ok(()) }
    }

    /// Moves a partition's batch into the transaction.
    fn pass_on(&mut self, partition: usize) -> Result<(), BoxError> {
        if self.batches[partition].is_empty() {
            return Ok(());
        }
        if !self.open {
            self.transaction.begin(self.number)?;
            self.open = true;
        }
        Ok(self.transaction.append(
            self.number,
            &self.topic,
            partition as u32,
            &mut self.batches[partition],
        )?)
    }
}

impl<T> SinkWriter<T> for LogWriter<T> {
    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), BoxError> {
        for (stamp, row) in batch.drain() {
            self.add(stamp, &row)?;
        }
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        (0..self.batches.len()).try_for_each(|partition| self.pass_on(partition))?;
        if !std::mem::take(&mut self.open) {
            return Ok(None);
        }
        let number = self.number;
        self.transaction.seal(number)?;
        self.number += 1;
        Ok(Some(token(self.transaction.id(), number)))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

struct LogCommitter {
    log: Log,
    prefix: String,
    generation: u64,
}

impl LogCommitter {
    fn is_ours(&self, id: &str) -> bool {
        id.strip_prefix(&self.prefix)
            .is_some_and(|worker| !worker.is_empty() && worker.bytes().all(|b| b.is_ascii_digit()))
    }
}

impl LogCommitter {
    /// Does it to the transactions that tokens name, those of one id in order, as the log wants them.
    fn each(
        &self,
        tokens: &[Vec<u8>],
        mut act: impl FnMut(&Transactional, u64) -> rivermark_log::Result<()>,
    ) -> Result<(), CommitError> {
        let mut parsed = tokens.iter().map(|token| parse_token(token)).collect::<Result<Vec<_>, _>>()?;
        parsed.sort_unstable();
        for (id, number) in parsed {
            let transaction = self.log.transactional(id, self.generation).map_err(failed)?;
            act(&transaction, number).map_err(failed)?;
        }
        Ok(())
    }
}

impl Committer for LogCommitter {
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        // All ids are taken over before anything is decided: an older attempt can prepare nothing after this.
        let ids = self.log.transactional_ids().map_err(failed)?;
        let ours: Result<Vec<Transactional>, _> = ids
            .iter()
            .filter(|info| self.is_ours(&info.id))
            .map(|info| self.log.transactional(&info.id, self.generation))
            .collect();
        let ours = ours.map_err(failed)?;
        self.commit(Epoch(0), tokens)?;
        for transaction in ours {
            for prepared in transaction.prepared().map_err(failed)? {
                transaction.abort(prepared.epoch).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn sync(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        self.each(tokens, |transaction, number| transaction.prepare(number).map(|_| ()))
    }

    fn commit(&mut self, _epoch: Epoch, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        self.each(tokens, Transactional::commit)
    }
}
