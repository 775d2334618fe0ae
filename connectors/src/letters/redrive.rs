//! Putting records in again, exactly once; see the page of [`letters`](super).

use super::ledger::{self, Ledger, Line};
use super::list::{DeadLetters, FiledLetter};
use rivermark_log::{Isolation, Log, Position, RecordBatch, Topic, Transactional};
use rivermark_operators::{BoxError, DeadLetter, RawRecord, Result, SourceRecord};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Records that go in together.
const TOGETHER: u64 = 500;
/// And their bytes.
const BYTES_TOGETHER: usize = 8 << 20;

/// The transactional id of redrives.
const TRANSACTIONS: &str = "rivermark.redrive";

/// The header of a record that was put in again: the name of the redrive.
pub const REDRIVE_HEADER: &str = "rivermark-redrive";
/// The header with the place of the record that failed.
pub const FROM_HEADER: &str = "rivermark-redriven-from";

type Mend = Arc<dyn Fn(&DeadLetter) -> Result<Option<RawRecord>, BoxError> + Send + Sync>;

/// Puts the records of dead letters in again; made by [`DeadLetters::redrive`].
#[must_use = "nothing happens before `run`"]
pub struct Redrive {
    letters: DeadLetters,
    name: String,
    into: Option<String>,
    again: bool,
    mend: Option<Mend>,
}

/// What a redrive has done, this time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Redriven {
    /// Its name.
    pub name: String,
    /// Records that were put in, by topic.
    pub records: BTreeMap<String, u64>,
    /// Letters whose records had been put in before: by an earlier redrive, by this one before it was interrupted, or for another letter.
    pub already: u64,
    /// Letters that the function has left as they are.
    pub left: u64,
    /// Letters whose records are not known, or not any more: results of windows, timers, and what the source had let go of.
    pub without_record: u64,
}

impl Redriven {
    /// Records that were put in, over all topics.
    pub fn total(&self) -> u64 {
        self.records.values().sum()
    }
}

impl fmt::Display for Redriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Redriven { name, already, left, without_record, .. } = self;
        let total = self.total();
        write!(
            f,
            "redrive `{name}`: {total} records put in, {already} had been before, {left} left as they are"
        )?;
        if *without_record > 0 {
            write!(f, ", {without_record} letters have no record that could be put in")?;
        }
        self.records.iter().try_for_each(|(topic, records)| write!(f, "\n  {topic}: {records}"))
    }
}

impl Redrive {
    pub(super) fn new(letters: DeadLetters, name: String) -> Redrive {
        Redrive { letters, name, into: None, again: false, mend: None }
    }

    /// Appends to another topic than the one in which the record lies: to the partition of the same number, counted round if there are fewer. See the
    /// [page](super) for what that does to event time.
    pub fn into_topic(self, topic: impl Into<String>) -> Redrive {
        Redrive { into: Some(topic.into()), ..self }
    }

    /// Also those that other redrives have put in. What this one has put in, by its name, is not put in again.
    pub fn again(self) -> Redrive {
        Redrive { again: true, ..self }
    }

    /// Changes each record before it is put in, or leaves a letter as it is, with `None`: such a letter counts as not redriven. Default: the record's
    /// own bytes.
    ///
    /// An error stops the redrive; those before it may have been put in.
    pub fn mend(
        self,
        mend: impl Fn(&DeadLetter) -> Result<Option<RawRecord>, BoxError> + Send + Sync + 'static,
    ) -> Redrive {
        Redrive { mend: Some(Arc::new(mend)), ..self }
    }

    /// Puts the records in. Those that have come in are durable, 500 at a time; after an error, or a death of the process, run it again.
    ///
    /// # Errors
    /// A letter cannot be read or mended; a record's topic is not known or not there; the log cannot be written; or another redrive has
    /// been started meanwhile.
    pub fn run(self) -> Result<Redriven> {
        let failed = |e| self.letters.error_of("redriving", e);
        let mut run = Run::begin(&self).map_err(failed)?;
        let listed = self.letters.list_with(run.ledger.clone())?;
        for filed in listed {
            let filed = filed?;
            run.take(&filed).map_err(|e| {
                let FiledLetter { partition, offset, .. } = filed;
                failed(format!("letter at offset {offset} of partition {partition}: {e}").into())
            })?;
        }
        run.commit().map_err(failed)?;
        Ok(run.done)
    }
}

/// A redrive that runs.
struct Run<'a> {
    redrive: &'a Redrive,
    log: &'a Log,
    ledger: Ledger,
    lines: Topic,
    transaction: Transactional,
    /// The transaction that is written now.
    epoch: u64,
    batches: BTreeMap<(String, u32), RecordBatch>,
    written: Vec<Line>,
    done: Redriven,
}

impl<'a> Run<'a> {
    /// Fences whoever redrives, and reads what is done.
    fn begin(redrive: &'a Redrive) -> Result<Run<'a>, BoxError> {
        if redrive.name.is_empty() {
            return Err("a redrive needs a name".into());
        }
        let log = &redrive.letters.log;
        let lines = ledger::open(log)?;
        let known = log.transactional_ids()?.into_iter().find(|info| info.id == TRANSACTIONS);
        let generation = known.map_or(0, |info| info.generation) + 1;
        let transaction = log.transactional(TRANSACTIONS, generation)?;
        for prepared in transaction.prepared()? {
            transaction.abort(prepared.epoch)?;
        }
        // Nobody else adds to it any more.
        let ledger = Ledger::read(log)?;
        Ok(Run {
            redrive,
            log,
            ledger,
            lines,
            transaction,
            epoch: generation << 32,
            batches: BTreeMap::new(),
            written: Vec::new(),
            done: Redriven { name: redrive.name.clone(), ..Redriven::default() },
        })
    }

    fn take(&mut self, filed: &FiledLetter) -> Result<(), BoxError> {
        let letter = &filed.letter;
        let Some(record) = &letter.record else {
            self.done.without_record += 1;
            return Ok(());
        };
        let names = self.ledger.names(&record.name, record.offset);
        let is_done = match self.redrive.again {
            true => names.contains(&self.redrive.name),
            false => !names.is_empty(),
        };
        if is_done {
            self.done.already += 1;
            return Ok(());
        }
        let place = place_of(&record.name);
        let original =
            place.and_then(|(topic, partition)| Original::read(self.log, topic, partition, record));
        let raw = match &self.redrive.mend {
            Some(mend) => mend(letter)?,
            None => record.raw.clone().or_else(|| original.as_ref().map(|original| original.raw.clone())),
        };
        let Some(raw) = raw else {
            match self.redrive.mend.is_some() {
                true => self.done.left += 1,
                false => self.done.without_record += 1,
            }
            return Ok(());
        };
        let (topic, partition) = self.target(record, place)?;
        let time = letter.time.map_or(0, |time| time.millis());
        let (time, headers) =
            original.map_or((time, Vec::new()), |original| (original.time, original.headers));
        self.push(record, topic, partition, &raw, time, &headers);
        let bytes: usize = self.batches.values().map(RecordBatch::bytes).sum();
        if self.written.len() as u64 >= TOGETHER || bytes >= BYTES_TOGETHER {
            self.commit()?;
        }
        Ok(())
    }

    /// Where a record goes.
    fn target(&self, record: &SourceRecord, place: Option<(&str, u32)>) -> Result<(String, u32), BoxError> {
        if let Some(into) = &self.redrive.into {
            let partitions = self.log.topic(into)?.partitions();
            return Ok((into.clone(), place.map_or(record.partition, |place| place.1) % partitions));
        }
        let (topic, partition) = place.ok_or_else(|| {
            format!(
                "`{}` is no partition of a topic of the log; say where its records go with `into_topic`",
                record.name
            )
        })?;
        if partition >= self.log.topic(topic)?.partitions() {
            return Err(format!("topic `{topic}` has no partition {partition} any more").into());
        }
        Ok((topic.to_owned(), partition))
    }

    fn push(
        &mut self,
        record: &SourceRecord,
        topic: String,
        partition: u32,
        raw: &RawRecord,
        time: i64,
        headers: &[(String, Option<Vec<u8>>)],
    ) {
        let from = format!("{}@{}", record.name, record.offset);
        // Of one that was put in before and failed again, the newest.
        let kept = headers.iter().filter(|(name, _)| name != REDRIVE_HEADER && name != FROM_HEADER);
        let mut all: Vec<(&str, Option<&[u8]>)> =
            kept.map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        all.push((REDRIVE_HEADER, Some(self.redrive.name.as_bytes())));
        all.push((FROM_HEADER, Some(from.as_bytes())));
        let batch = self.batches.entry((topic.clone(), partition)).or_default();
        batch.push_with_headers(raw.key.as_deref(), raw.value.as_deref(), time, &all);
        let (redrive, from) = (self.redrive.name.clone(), record.name.clone());
        let line = Line { redrive, from, offset: record.offset, topic, partition };
        self.ledger.add(line.clone());
        self.written.push(line);
    }

    /// Puts in what was gathered, with its lines: all of it or nothing.
    fn commit(&mut self) -> Result<(), BoxError> {
        if self.written.is_empty() {
            return Ok(());
        }
        self.epoch += 1;
        let epoch = self.epoch;
        self.transaction.begin(epoch)?;
        for ((topic, partition), batch) in &mut self.batches {
            self.transaction.append(epoch, &self.log.topic(topic)?, *partition, batch)?;
        }
        let mut lines = RecordBatch::new();
        for line in &self.written {
            lines.push(Some(line.from.as_bytes()), Some(&serde_json::to_vec(line)?), 0);
        }
        self.transaction.append(epoch, &self.lines, 0, &mut lines)?;
        self.transaction.prepare(epoch)?;
        self.transaction.commit(epoch)?;
        self.batches.clear();
        for line in self.written.drain(..) {
            *self.done.records.entry(line.topic).or_default() += 1;
        }
        Ok(())
    }
}

/// The topic and partition that a partition's name says, such as `clicks[3]`.
fn place_of(name: &str) -> Option<(&str, u32)> {
    let (topic, partition) = name.strip_suffix(']')?.rsplit_once('[')?;
    Some((topic, partition.parse().ok()?))
}

/// A record as it lies in the log, if it still does.
struct Original {
    raw: RawRecord,
    time: i64,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Original {
    fn read(log: &Log, topic: &str, partition: u32, record: &SourceRecord) -> Option<Original> {
        let topic = log.topic(topic).ok()?;
        let start = Position::Offset(record.offset);
        let mut reader = topic.reader(partition, start, Isolation::ReadCommitted).ok()?;
        let row = reader.next_batch().ok()??.next().filter(|row| row.offset == record.offset)?;
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let raw = RawRecord { key: owned(row.key), value: owned(row.value) };
        // A topic that was made anew has other records at these offsets.
        let is_it = record.raw.as_ref().is_none_or(|known| *known == raw);
        let headers = row.headers().map(|(name, value)| (name.to_owned(), owned(value))).collect();
        is_it.then_some(Original { raw, time: row.timestamp, headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partitions_name_says_its_topic() {
        assert_eq!(place_of("clicks[3]"), Some(("clicks", 3)));
        assert_eq!(place_of("a[b][12]"), Some(("a[b]", 12)));
        assert_eq!(place_of("departures.csv"), None);
        assert_eq!(place_of("clicks[x]"), None);
    }
}
