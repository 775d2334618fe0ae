//! `log append`: lines of standard input, a record each.

use super::place::{Place, STOP_IT};
use crate::exit::{Failure, Result};
use crate::when::now_ms;
use clap::Args;
use rivermark_engine::Options;
use rivermark_log::{RecordBatch, Topic, TopicOptions};
use rivermark_operators::hash_key;
use serde_json::json;
use std::io::BufRead;

/// A batch is appended when it has so many bytes.
const BATCH_BYTES: usize = 256 << 10;

#[derive(Debug, Args)]
pub(crate) struct Append {
    /// The topic
    topic: String,
    /// What separates a key from its value, at its first place in a line [default: lines are values, without keys]
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// The partition [default: that of the key's hash, as sinks choose it; the first for records without keys]
    #[arg(short, long)]
    partition: Option<u32>,
    /// Creates the topic with so many partitions if it is not there, and the data directory with it
    #[arg(long, value_name = "PARTITIONS")]
    create: Option<u32>,
}

/// What was appended to a partition.
#[derive(Copy, Clone, Debug, Default)]
struct Done {
    records: u64,
    first: Option<u64>,
    end: u64,
}

/// The batches of a topic, by partition.
struct Appending {
    topic: Topic,
    batches: Vec<RecordBatch>,
    done: Vec<Done>,
}

impl Appending {
    fn to(topic: Topic) -> Appending {
        let partitions = topic.partitions() as usize;
        let batches = (0..partitions).map(|_| RecordBatch::new()).collect();
        Appending { topic, batches, done: vec![Done::default(); partitions] }
    }

    fn flush(&mut self, partition: usize) -> Result<()> {
        let batch = &mut self.batches[partition];
        if batch.is_empty() {
            return Ok(());
        }
        let records = batch.len() as u64;
        let appended = self.topic.append(partition as u32, batch)?;
        let done = &mut self.done[partition];
        done.records += records;
        done.first.get_or_insert(appended.base_offset);
        done.end = appended.base_offset + records;
        Ok(())
    }
}

impl Append {
    pub(crate) fn run(self, place: &mut Place) -> Result<()> {
        let attempt = format!("appending to topic `{}`", self.topic);
        if self.create.is_none() {
            place.directory()?;
        }
        let engine = place.engine(&attempt, STOP_IT, Options::new())?;
        let topic = match self.create {
            Some(partitions) => engine.log().ensure_topic(&self.topic, TopicOptions::new(partitions))?,
            None => place.topic(&attempt, engine.log(), &self.topic)?,
        };
        if let Some(partition) = self.partition.filter(|partition| *partition >= topic.partitions()) {
            let partitions = topic.partitions();
            return Err(Failure::missing(format!(
                "{attempt}: there is no partition {partition}; it has {partitions}, from 0 on"
            )));
        }
        let mut appending = Appending::to(topic);
        let read = self.read(&mut appending, &attempt);
        // Also what came before a line that is wrong: it says which.
        (0..appending.batches.len()).try_for_each(|partition| appending.flush(partition))?;
        engine.log().sync()?;
        self.report(&appending.done, place)?;
        read
    }

    fn read(&self, appending: &mut Appending, attempt: &str) -> Result<()> {
        let mut stdin = std::io::stdin().lock();
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            number += 1;
            let read = stdin.read_until(b'\n', &mut line);
            if read.map_err(|e| Failure::of(format!("{attempt}: reading line {number}"), e))? == 0 {
                return Ok(());
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let (key, value) = match &self.key_separator {
                None => (None, &line[..]),
                Some(separator) => {
                    let (key, value) = split(&line, separator.as_bytes()).ok_or_else(|| {
                        Failure::of(attempt, format!("line {number} has no `{separator}` behind a key; the lines before it are appended"))
                    })?;
                    (Some(key), value)
                }
            };
            let partitions = appending.batches.len() as u64;
            let hashed = key.map_or(0, |key| (hash_key(&key.to_vec()) % partitions) as usize);
            let partition = self.partition.map_or(hashed, |partition| partition as usize);
            appending.batches[partition].push(key, Some(value), now_ms());
            if appending.batches[partition].bytes() >= BATCH_BYTES {
                appending.flush(partition)?;
            }
        }
    }

    fn report(&self, done: &[Done], place: &mut Place) -> Result<()> {
        let appended = || done.iter().enumerate().filter(|(_, done)| done.records > 0);
        let records: u64 = done.iter().map(|done| done.records).sum();
        if place.output.is_json() {
            let partitions: Vec<_> = appended()
                .map(|(partition, done)| json!({ "partition": partition, "records": done.records, "first": done.first, "end": done.end }))
                .collect();
            return place
                .output
                .document(&json!({ "topic": self.topic, "records": records, "partitions": partitions }));
        }
        place.output.line(format!("appended {records} records to topic `{}`", self.topic))?;
        for (partition, Done { first, end, .. }) in appended() {
            let (first, last) = (first.unwrap_or_default(), end.saturating_sub(1));
            place.output.line(format!("partition {partition}: offsets {first} to {last}"))?;
        }
        place.output.flush()
    }
}

/// What is before and behind the first place of a separator.
fn split<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    if separator.is_empty() {
        return None;
    }
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    Some((&line[..at], &line[at + separator.len()..]))
}
