//! `log tail`: records of a topic, as they lie there and as they come.

use super::place::Place;
use crate::exit::{Failure, Result};
use crate::output::{Output, escaped, hex};
use crate::when::{now_ms, shown, time};
use clap::Args;
use rivermark_log::{Isolation, Position, Reader, RecordView, Topic};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Records of each partition that are shown if nobody says where to begin.
const LAST: u64 = 10;
/// How long one partition is waited for before the others are looked at.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The topic
    topic: String,
    /// Goes on with what is appended, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Where to begin: `earliest`, `latest`, an offset, a time (UTC) as 2013-02-09T12:30, or how long ago, as 10m [default: the last ten records]
    #[arg(long, value_name = "WHERE")]
    from: Option<String>,
    /// Only this partition [default: all, one after the other]
    #[arg(short, long)]
    partition: Option<u32>,
    /// At most so many records; without --from, the last so many of each partition
    #[arg(short = 'n', long)]
    count: Option<u64>,
}

/// Where reading begins.
fn position(from: Option<&str>, last: u64, earliest: u64, end: u64) -> Result<Position> {
    let Some(from) = from else { return Ok(Position::Offset(end.saturating_sub(last).max(earliest))) };
    match from {
        "earliest" => Ok(Position::Earliest),
        "latest" => Ok(Position::Latest),
        _ => match from.parse() {
            Ok(offset) => Ok(Position::Offset(offset)),
            Err(_) => time(from, now_ms()).map(Position::Timestamp).map_err(|problem| {
                Failure::usage(format!(
                    "reading `--from {from}`: {problem}; or say `earliest`, `latest` or an offset"
                ))
            }),
        },
    }
}

impl Tail {
    pub(crate) fn run(self, place: &mut Place) -> Result<()> {
        let log = place.directory()?.log()?;
        let topic = place.topic("reading a topic", &log, &self.topic)?;
        let mut readers = self.readers(&topic)?;
        // Without a beginning the count says where that is.
        let mut left = self.count.filter(|_| self.from.is_some()).unwrap_or(u64::MAX);
        loop {
            for reader in &mut readers {
                print_rest(reader, &mut left, &mut place.output)?;
            }
            place.output.flush()?;
            if left == 0 || !self.follow {
                return Ok(());
            }
            for reader in &mut readers {
                if reader.wait(Instant::now() + LOOK)? {
                    break;
                }
            }
        }
    }

    fn readers(&self, topic: &Topic) -> Result<Vec<Reader>> {
        let partitions = match self.partition {
            Some(partition) => partition..partition.saturating_add(1),
            None => 0..topic.partitions(),
        };
        let mut readers = Vec::new();
        for partition in partitions {
            let info = topic.info(partition)?;
            let position =
                position(self.from.as_deref(), self.count.unwrap_or(LAST), info.earliest, info.end)?;
            readers.push(topic.reader(partition, position, Isolation::ReadCommitted)?);
        }
        Ok(readers)
    }
}

/// Prints what a reader sees now.
fn print_rest(reader: &mut Reader, left: &mut u64, output: &mut Output) -> Result<()> {
    let place = reader.place().clone();
    while *left > 0 {
        let Some(records) = reader.next_batch()? else { return Ok(()) };
        for record in records {
            if *left == 0 {
                return Ok(());
            }
            *left -= 1;
            match output.is_json() {
                true => output.json_line(&document(&place, &record))?,
                false => output.line(line(place.partition, &record))?,
            }
        }
    }
    Ok(())
}

/// Under `name` what is text, and under `name_hex` what is not.
fn put(fields: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => drop(fields.insert(name.to_owned(), Value::Null)),
        Some(Ok(text)) => drop(fields.insert(name.to_owned(), json!(text))),
        Some(Err(_)) => drop(fields.insert(format!("{name}_hex"), json!(hex(bytes.unwrap_or_default())))),
    }
}

fn document(place: &rivermark_log::Place, record: &RecordView<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("topic".into(), json!(&*place.topic));
    fields.insert("partition".into(), json!(place.partition));
    fields.insert("offset".into(), json!(record.offset));
    fields.insert("timestamp_ms".into(), json!(record.timestamp));
    put(&mut fields, "key", record.key);
    put(&mut fields, "value", record.value);
    let mut headers = Map::new();
    record.headers().for_each(|(name, value)| put(&mut headers, name, value));
    if !headers.is_empty() {
        fields.insert("headers".into(), Value::Object(headers));
    }
    Value::Object(fields)
}

/// Partition and offset, time, key and value.
fn line(partition: u32, record: &RecordView<'_>) -> String {
    let text = |bytes: Option<&[u8]>| bytes.map_or_else(|| "-".to_owned(), escaped);
    let (time, key, value) = (shown(record.timestamp), text(record.key), text(record.value));
    let mut line = format!("{partition}:{}  {time}  {key}  {value}", record.offset);
    for (name, value) in record.headers() {
        line += &format!("  {name}={}", text(value));
    }
    line
}
