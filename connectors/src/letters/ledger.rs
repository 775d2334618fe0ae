//! What was put in again: a topic with a line a record and redrive. One for all letters of a log: two versions of a flow, each with a topic of
//! letters, may have failed on the same record.

use rivermark_log::{Isolation, Log, Position, Topic, TopicOptions};
use rivermark_operators::{BoxError, DeadLetter};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The topic in which it is written down which records of a log were put in again.
pub const REDRIVEN_TOPIC: &str = "rivermark.redriven";

/// The topic, made if it is not there.
pub(super) fn open(log: &Log) -> rivermark_log::Result<Topic> {
    log.ensure_topic(REDRIVEN_TOPIC, TopicOptions::new(1))
}

/// That a record was put in again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// The redrive.
    pub(super) redrive: String,
    /// The partition in which the record lies that failed, in its source's words.
    pub(super) from: String,
    pub(super) offset: u64,
    /// Where it was appended again.
    pub(super) topic: String,
    pub(super) partition: u32,
}

/// By partition and offset of a record, the redrives that have put it in again.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(HashMap<String, HashMap<u64, Vec<String>>>);

impl Ledger {
    pub(super) fn read(log: &Log) -> Result<Ledger, BoxError> {
        let mut ledger = Ledger::default();
        let topic = match log.topic(REDRIVEN_TOPIC) {
            Err(rivermark_log::Error::UnknownTopic { .. }) => return Ok(ledger),
            topic => topic?,
        };
        for partition in 0..topic.partitions() {
            let mut reader = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted)?;
            while let Some(batch) = reader.next_batch()? {
                for row in batch {
                    let line: Line = serde_json::from_slice(row.value.unwrap_or_default())
                        .map_err(|e| format!("{REDRIVEN_TOPIC}[{partition}] offset {}: {e}", row.offset))?;
                    ledger.add(line);
                }
            }
        }
        Ok(ledger)
    }

    pub(super) fn add(&mut self, line: Line) {
        self.0.entry(line.from).or_default().entry(line.offset).or_default().push(line.redrive);
    }

    /// The redrives that have put a record in again.
    pub(super) fn names(&self, from: &str, offset: u64) -> &[String] {
        self.0.get(from).and_then(|offsets| offsets.get(&offset)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn names_of(&self, letter: &DeadLetter) -> Vec<String> {
        let record = letter.record.as_ref();
        record.map_or_else(Vec::new, |record| self.names(&record.name, record.offset).to_vec())
    }
}
