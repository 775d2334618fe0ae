//! Which letters a topic has.

use super::ledger::Ledger;
use super::redrive::Redrive;
use crate::format::{Format, Json};
use rivermark_log::{Isolation, Log, Position, Reader};
use rivermark_operators::{DeadLetter, Error, Result, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;

type Decode =
    Arc<dyn Fn(&[u8]) -> std::result::Result<DeadLetter, rivermark_operators::BoxError> + Send + Sync>;

/// The dead letters in a topic of the log, or some of them.
#[derive(Clone)]
pub struct DeadLetters {
    pub(super) log: Log,
    pub(super) topic: String,
    decode: Decode,
    wanted: Wanted,
}

#[derive(Clone, Debug, Default)]
struct Wanted {
    flow: Option<String>,
    version: Option<u64>,
    operator: Option<String>,
    error: Option<String>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    not_redriven: bool,
}

/// A letter, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FiledLetter {
    /// The partition of the topic of letters.
    pub partition: u32,
    /// The offset there.
    pub offset: u64,
    /// The names of the redrives that have put its record in again, the first one first.
    pub redriven_by: Vec<String>,
    /// The letter.
    pub letter: DeadLetter,
}

impl DeadLetters {
    /// All letters in a topic to which [`Flow::dead_letters_to`](rivermark_operators::Flow::dead_letters_to), or any sink of letters, has written
    /// them, as JSON.
    pub fn of_topic(log: &Log, topic: impl Into<String>) -> DeadLetters {
        let decode: Decode = Arc::new(|bytes| Format::<DeadLetter>::decode(&Json, bytes));
        DeadLetters { log: log.clone(), topic: topic.into(), decode, wanted: Wanted::default() }
    }

    /// Letters are written in another format.
    pub fn format<F: Format<DeadLetter>>(self, format: F) -> DeadLetters {
        DeadLetters { decode: Arc::new(move |bytes| format.decode(bytes)), ..self }
    }

    fn want(mut self, want: impl FnOnce(&mut Wanted)) -> DeadLetters {
        want(&mut self.wanted);
        self
    }

    /// Only those of a flow.
    pub fn flow(self, flow: impl Into<String>) -> DeadLetters {
        self.want(|wanted| wanted.flow = Some(flow.into()))
    }

    /// Only those of a version.
    pub fn version(self, version: u64) -> DeadLetters {
        self.want(|wanted| wanted.version = Some(version))
    }

    /// Only those of an operator.
    pub fn operator(self, operator: impl Into<String>) -> DeadLetters {
        self.want(|wanted| wanted.operator = Some(operator.into()))
    }

    /// Only those whose error contains a text.
    pub fn error(self, contains: impl Into<String>) -> DeadLetters {
        self.want(|wanted| wanted.error = Some(contains.into()))
    }

    /// Only those of records with an event time from then on. Letters without one, of records that could not be decoded, are left out.
    pub fn from(self, time: Timestamp) -> DeadLetters {
        self.want(|wanted| wanted.from = Some(time))
    }

    /// Only those of records with an event time before then. Letters without one are left out.
    pub fn before(self, time: Timestamp) -> DeadLetters {
        self.want(|wanted| wanted.to = Some(time))
    }

    /// Only those whose records have not been put in again.
    pub fn not_redriven(self) -> DeadLetters {
        self.want(|wanted| wanted.not_redriven = true)
    }

    /// Puts the records of these letters in again, under a name that is new, or that of a redrive that did not come to its end.
    pub fn redrive(&self, name: impl Into<String>) -> Redrive {
        Redrive::new(self.clone(), name.into())
    }

    /// The letters that are there now, partition by partition. Costs reading the topic, and about 100 bytes of memory for each record that was put
    /// in again.
    ///
    /// # Errors
    /// There is no such topic, or it cannot be read.
    pub fn list(&self) -> Result<Letters> {
        let ledger = Ledger::read(&self.log).map_err(|e| self.error_of("listing", e))?;
        self.list_with(ledger)
    }

    pub(super) fn list_with(&self, ledger: Ledger) -> Result<Letters> {
        let failed = |e| self.error_of("listing", e);
        let topic = self.log.topic(&self.topic).map_err(failed)?;
        let open = |partition| {
            let reader = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted)?;
            Ok((partition, reader.end(), reader))
        };
        let readers: rivermark_log::Result<VecDeque<(u32, u64, Reader)>> =
            (0..topic.partitions()).map(open).collect();
        let readers = readers.map_err(failed)?;
        Ok(Letters { of: self.clone(), ledger, readers, ahead: VecDeque::new() })
    }

    pub(super) fn error_of(&self, attempt: &str, error: impl Into<rivermark_operators::BoxError>) -> Error {
        Error::engine(format!("{attempt} the dead letters in topic `{}`", self.topic), error)
    }
}

impl Wanted {
    fn takes(&self, filed: &FiledLetter) -> bool {
        let letter = &filed.letter;
        let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        is(&self.flow, &letter.flow)
            && is(&self.operator, &letter.operator)
            && self.version.is_none_or(|version| version == letter.version)
            && self.error.as_deref().is_none_or(|error| letter.error.contains(error))
            && self.from.is_none_or(|from| letter.time.is_some_and(|time| time >= from))
            && self.to.is_none_or(|to| letter.time.is_some_and(|time| time < to))
            && (!self.not_redriven || filed.redriven_by.is_empty())
    }
}

/// Letters, one after the other.
pub struct Letters {
    of: DeadLetters,
    ledger: Ledger,
    /// Those of the partitions that have not been read to their ends, as these were at the start.
    readers: VecDeque<(u32, u64, Reader)>,
    ahead: VecDeque<FiledLetter>,
}

impl Letters {
    fn read(&mut self) -> Result<()> {
        let Self { of, ledger, readers, ahead } = self;
        while let Some((partition, end, reader)) = readers.front_mut()
            && ahead.is_empty()
        {
            let failed = |e| of.error_of("reading", e);
            let batch = if reader.position() < *end { reader.next_batch().map_err(failed)? } else { None };
            let Some(batch) = batch else {
                readers.pop_front();
                continue;
            };
            for row in batch.take_while(|row| row.offset < *end) {
                let letter = (of.decode)(row.value.unwrap_or_default()).map_err(|e| {
                    let place = format!("{}[{partition}] offset {}", of.topic, row.offset);
                    of.error_of(
                        "reading",
                        format!("{place} is no letter: {e}; say how they are written with `format`"),
                    )
                })?;
                let redriven_by = ledger.names_of(&letter);
                let filed = FiledLetter { partition: *partition, offset: row.offset, redriven_by, letter };
                if of.wanted.takes(&filed) {
                    ahead.push_back(filed);
                }
            }
        }
        Ok(())
    }
}

impl Iterator for Letters {
    type Item = Result<FiledLetter>;

    fn next(&mut self) -> Option<Result<FiledLetter>> {
        if self.ahead.is_empty()
            && let Err(error) = self.read()
        {
            // What cannot be read now is not skipped: nothing follows.
            self.readers.clear();
            return Some(Err(error));
        }
        self.ahead.pop_front().map(Ok)
    }
}
