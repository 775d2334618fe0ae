//! Reading topics of the embedded log.

use crate::format::{Bincode, Json, Raw, Text};
use crate::log_table::DecodeRecord;
use crate::log_topics::Topics;
use rivermark_log::{Isolation, Log, Position, Reader};
use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Survey, Waker,
};
use rivermark_operators::{BoxError, RawRecord, Timestamp};
use std::collections::VecDeque;
use std::marker::PhantomData;

/// A topic of the engine's log as a source, or several: its partitions are the topic's, its positions offsets.
///
/// Values are JSON unless another format is chosen. Records without a value (tombstones) are given to the format as no bytes at
/// all. A live source waits for more at the end; [`LogSource::until_end`] makes it end there.
pub struct LogSource<T, F = Json> {
    topics: Topics,
    format: F,
    start: Position,
    until_end: bool,
    isolation: Isolation,
    records: PhantomData<fn() -> T>,
}

impl<T> LogSource<T, Json> {
    /// Reads the topic `topic` from the earliest record, as JSON, only what is committed, and goes on waiting at the end.
    pub fn topic(topic: impl Into<String>) -> Self {
        Self::of(Topics::Named { name: topic.into(), waits: false })
    }

    /// As [`LogSource::topic`], for all topics whose names match `pattern`: `*` stands for any characters or none, everything else for itself
    /// (Kafka's and Flink's subscription to a topic pattern). There need be none yet: topics that are created while the job runs are found
    /// within the time that the engine's option `discover_every` says, and read from the configured start. With [`LogSource::until_end`] the topics
    /// that are there at the start are read.
    ///
    /// A topic that appears later holds nobody back until it is found; then it begins at the watermark that the others have come to. Where that
    /// makes its records late, it is written down with the checkpoints, and a later version of the flow that replays the log repeats it. A topic
    /// that has been read must not be taken away. Do not let the pattern match what the flow itself writes.
    ///
    /// ```
    /// use rivermark_connectors::LogSource;
    /// use rivermark_operators::{Flow, Timestamp, Watermarks, secs};
    ///
    /// let flow = Flow::new("orders-of-all-shops");
    /// let orders = flow.source(LogSource::<(u32, i64)>::topics_matching("orders-*"));
    /// // A shop that sells nothing for a minute is not waited for.
    /// orders.event_time(|order| Timestamp::from_secs(order.1), Watermarks::bounded(secs(10)).idle_after(secs(60)));
    /// ```
    pub fn topics_matching(pattern: impl Into<String>) -> Self {
        Self::of(Topics::Matching(pattern.into()))
    }

    fn of(topics: Topics) -> Self {
        LogSource {
            topics,
            format: Json,
            start: Position::Earliest,
            until_end: false,
            isolation: Isolation::ReadCommitted,
            records: PhantomData,
        }
    }
}

impl<T, F> LogSource<T, F> {
    /// Where a partition begins that no checkpoint has a position for. Default: the earliest record.
    pub fn starting_from(mut self, start: Position) -> Self {
        self.start = start;
        self
    }

    /// If there is no such topic yet, waits for it, instead of that being an error. It holds no other source back; once it is found, it begins at
    /// the watermark that the others have come to, as in [`LogSource::topics_matching`]. With [`LogSource::until_end`] it ends where the topic ends
    /// when it is found.
    pub fn wait_for_topic(mut self) -> Self {
        if let Topics::Named { waits, .. } = &mut self.topics {
            *waits = true;
        }
        self
    }

    /// Ends each partition at the end that it has when its reader is opened. A restart looks at the end anew: what was appended meanwhile is
    /// read too, since a checkpoint keeps positions and never ends. Windows that were open at the end have fired and are final: what was appended
    /// for them is late. A later version of the flow that begins anew ends there too before it goes on, so what was late for this one is late
    /// for it.
    pub fn until_end(mut self) -> Self {
        self.until_end = true;
        self
    }

    /// Reads also what is not committed yet, or not yet durable. Such a record may be gone after a crash, and the flow's result is then not
    /// a function of the log any more.
    pub fn read_uncommitted(mut self) -> Self {
        self.isolation = Isolation::ReadUncommitted;
        self
    }

    /// Decodes values by another format.
    pub fn format<G>(self, format: G) -> LogSource<T, G> {
        LogSource {
            topics: self.topics,
            format,
            start: self.start,
            until_end: self.until_end,
            isolation: self.isolation,
            records: PhantomData,
        }
    }

    /// Decodes values as JSON.
    pub fn json(self) -> LogSource<T, Json> {
        self.format(Json)
    }

    /// Decodes values as bincode.
    pub fn bincode(self) -> LogSource<T, Bincode> {
        self.format(Bincode)
    }
}

impl<F> LogSource<Vec<u8>, F> {
    /// Takes values as bytes.
    pub fn raw(self) -> LogSource<Vec<u8>, Raw> {
        self.format(Raw)
    }
}

impl<F> LogSource<String, F> {
    /// Takes values as UTF-8 text.
    pub fn text(self) -> LogSource<String, Text> {
        self.format(Text)
    }
}

/// Where a reader begins: at the position of a checkpoint, which is an offset of `what`, or where the source is configured to.
pub(crate) fn start_of(position: Option<&[u8]>, start: Position, what: &str) -> Result<Position, BoxError> {
    let Some(bytes) = position else { return Ok(start) };
    let bytes =
        bytes.try_into().map_err(|_| format!("the checkpoint's position is not an offset of {what}"))?;
    Ok(Position::Offset(u64::from_le_bytes(bytes)))
}

/// The log that the engine offers.
pub(crate) fn log_of<'a>(cx: &ConnectorContext<'a>) -> Result<&'a Log, BoxError> {
    cx.resources.get::<Log>().ok_or_else(|| {
        format!(
            "`{}` needs the embedded log, which this engine does not offer; run the flow with `Engine`",
            cx.name
        )
        .into()
    })
}

impl<T: Send + 'static, F: DecodeRecord<T>> Source for LogSource<T, F> {
    type Item = T;
    type Reader = LogReader<T, F>;

    fn partitions(&self, cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        self.topics.partitions(cx)
    }

    fn waits_for_partitions(&self) -> bool {
        self.topics.waits(self.until_end)
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        waker: Waker,
        cx: &ConnectorContext<'_>,
    ) -> Result<LogReader<T, F>, BoxError> {
        let (topic, place) = self.topics.find(log_of(cx)?, partition)?;
        let start = start_of(position, self.start, "the log")?;
        let mut reader = topic.reader(place, start, self.isolation)?;
        // Registered before the end is looked at: nothing that is appended in between is missed.
        reader.wake_with(move || waker.wake());
        Ok(LogReader {
            next: reader.position(),
            until: self.until_end.then(|| reader.end()),
            format: self.format.clone(),
            reader,
            ahead: VecDeque::new(),
        })
    }

    /// Decodes the first records that would be read, to see whether their schema is one that the format reads.
    fn survey(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        cx: &ConnectorContext<'_>,
    ) -> Result<Option<Survey>, BoxError> {
        let (topic, place) = self.topics.find(log_of(cx)?, partition)?;
        let info = topic.info(place)?;
        let from = match start_of(position, self.start, "the log")? {
            Position::Offset(offset) => offset,
            start => topic.reader(place, start, self.isolation)?.position(),
        };
        let mut survey = Survey {
            from,
            position: Some(from.to_le_bytes().to_vec()),
            end: info.stable,
            earliest: info.earliest,
            is_compacted: topic.options().is_compacted(),
            ..Survey::default()
        };
        // As if records and their sizes were spread evenly.
        let (all, ahead) = (info.end.saturating_sub(info.earliest), info.stable.saturating_sub(from));
        let share = |whole: u64| (u128::from(whole) * u128::from(ahead) / u128::from(all.max(1))) as u64;
        (survey.records, survey.bytes) = (share(info.records).min(ahead), share(info.bytes));
        if from < info.earliest || from > info.end {
            return Ok(Some(survey));
        }
        let mut reader = topic.reader(place, Position::Offset(from), self.isolation)?;
        for record in reader.next_batch()?.into_iter().flatten().take(SURVEYED) {
            let time = Timestamp::from_millis(record.timestamp);
            if let Err(error) = self.format.decode_record(record.key, record.value, time) {
                survey.undecodable = Some(format!("offset {} cannot be decoded: {error}", record.offset));
                break;
            }
        }
        Ok(Some(survey))
    }

    /// With [`Durability::Always`](rivermark_log::Durability::Always) there is nothing left to do; else this is where the log becomes
    /// durable.
    fn sync(&self, cx: &ConnectorContext<'_>) -> Result<(), BoxError> {
        self.topics.now(log_of(cx)?)?.iter().try_for_each(|topic| Ok(topic.sync()?))
    }

    /// Reads from the first on, and over gaps of more than a few batches by the index.
    fn raw_records(
        &self,
        partition: u32,
        offsets: &[u64],
        cx: &ConnectorContext<'_>,
    ) -> Result<Vec<Option<RawRecord>>, BoxError> {
        let (topic, place) = self.topics.find(log_of(cx)?, partition)?;
        let mut reader = topic.reader(place, Position::Earliest, self.isolation)?;
        let mut raw = vec![None; offsets.len()];
        let mut at = 0;
        let passed =
            |at: usize, next: u64| at + offsets[at..].iter().take_while(|wanted| **wanted < next).count();
        while let Some(wanted) = offsets.get(at) {
            if *wanted >= reader.end() {
                break;
            }
            if wanted.saturating_sub(reader.position()) > NEAR {
                reader.seek(Position::Offset(*wanted))?;
            }
            let Some(batch) = reader.next_batch()? else { break };
            for record in batch {
                // What retention or compaction has taken is passed by.
                at = passed(at, record.offset);
                if offsets.get(at) == Some(&record.offset) {
                    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                    raw[at] = Some(RawRecord { key: owned(record.key), value: owned(record.value) });
                    at += 1;
                }
            }
            at = passed(at, reader.position());
        }
        Ok(raw)
    }
}

/// Records that a survey decodes.
const SURVEYED: usize = 1000;
/// Records that are read over rather than found by the index.
const NEAR: u64 = 4096;

/// Reads one partition of a topic.
pub struct LogReader<T, F> {
    reader: Reader,
    format: F,
    /// The offset after the last record that was given out.
    next: u64,
    until: Option<u64>,
    /// Records of a batch that was larger than what was asked for.
    ahead: VecDeque<(u64, Timestamp, T)>,
}

impl<T, F: DecodeRecord<T>> LogReader<T, F> {
    fn give_ahead(&mut self, max: usize, records: &mut Records<'_, T>) -> usize {
        let given = max.min(self.ahead.len());
        for (offset, time, value) in self.ahead.drain(..given) {
            records.push(offset, time, value);
            self.next = offset + 1;
        }
        given
    }
}

impl<T, F: DecodeRecord<T>> SourceReader<T> for LogReader<T, F> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        let mut given = self.give_ahead(max, records);
        while given < max {
            if self.until.is_some_and(|until| self.next >= until) {
                return Ok(Polled::Ended);
            }
            let Some(batch) = self.reader.next_batch()? else {
                // The records before the end may have been compacted away.
                if self.until.is_some_and(|until| self.reader.position() >= until) {
                    return Ok(Polled::Ended);
                }
                return Ok(if given > 0 { Polled::Ready } else { Polled::Pending });
            };
            let mut failed = None;
            for record in batch {
                if record.offset < self.next || self.until.is_some_and(|until| record.offset >= until) {
                    continue;
                }
                records.add_bytes(
                    (record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len)) as u64,
                );
                let time = Timestamp::from_millis(record.timestamp);
                match self.format.decode_record(record.key, record.value, time) {
                    Ok(value) if given < max => {
                        records.push(record.offset, time, value);
                        self.next = record.offset + 1;
                        given += 1;
                    }
                    Ok(value) => {
                        self.ahead.push_back((record.offset, time, value));
                    }
                    // Its turn comes when those before it have been given out.
                    Err(_) if given >= max => {
                        failed = Some((record.offset, None));
                        break;
                    }
                    Err(error) => match records.undecodable(record.offset, record.key, record.value, error) {
                        Ok(()) => {
                            self.next = record.offset + 1;
                            given += 1;
                        }
                        Err(error) => {
                            failed = Some((record.offset, Some(error)));
                            break;
                        }
                    },
                }
            }
            if let Some((offset, error)) = failed {
                self.reader.seek(Position::Offset(offset))?;
                if let Some(error) = error {
                    return Err(error);
                }
            }
        }
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        self.next.to_le_bytes().to_vec()
    }

    fn backlog(&self) -> Option<u64> {
        Some(self.reader.end().saturating_sub(self.next))
    }
}
