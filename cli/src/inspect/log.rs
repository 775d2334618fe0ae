//! `log`: topics, verification, compaction.

use super::append::Append;
use super::place::{Place, STOP_IT};
use super::tail::Tail;
use crate::exit::{Exit, Failure, Result};
use crate::output::{Table, bytes, or_dash, progress_bar};
use crate::when::{now_ms, shown};
use clap::{Args, Subcommand};
use rivermark_engine::Options;
use rivermark_log::{LogOptions, PartitionInfo, Topic, Verification, verify_with};
use serde_json::{Value, json};
use std::path::Path;

/// The commands about the log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Lists topics, or the partitions of one
    Topics(Topics),
    /// Prints records of a topic
    Tail(Tail),
    /// Appends lines from standard input to a topic, a record each
    Append(Append),
    /// Reads everything through and compares checksums; changes nothing, also beside a running pipeline
    Verify(Verify),
    /// Leaves of each key of a compacted topic the last record, now
    Compact(Compact),
}

impl LogCommand {
    pub(crate) fn run(self, place: &mut Place) -> Result<()> {
        match self {
            LogCommand::Topics(topics) => topics.run(place),
            LogCommand::Tail(tail) => tail.run(place),
            LogCommand::Append(append) => append.run(place),
            LogCommand::Verify(verify) => verify.run(place),
            LogCommand::Compact(compact) => compact.run(place),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Topics {
    /// The topic whose partitions are listed
    topic: Option<String>,
}

fn infos(topic: &Topic) -> Result<Vec<PartitionInfo>> {
    Ok((0..topic.partitions()).map(|partition| topic.info(partition)).collect::<Result<_, _>>()?)
}

fn partition_json(partition: usize, info: &PartitionInfo) -> Value {
    json!({
        "partition": partition,
        "earliest": info.earliest,
        "end": info.end,
        "records": info.records,
        "bytes": info.bytes,
        "segments": info.segments,
        "max_timestamp_ms": info.max_timestamp,
    })
}

fn topic_json(topic: &Topic, infos: &[PartitionInfo]) -> Value {
    json!({
        "topic": topic.name(),
        "compacted": topic.options().is_compacted(),
        "records": infos.iter().map(|info| info.records).sum::<u64>(),
        "bytes": infos.iter().map(|info| info.bytes).sum::<u64>(),
        "partitions": infos.iter().enumerate().map(|(at, info)| partition_json(at, info)).collect::<Vec<_>>(),
    })
}

impl Topics {
    fn run(self, place: &mut Place) -> Result<()> {
        let log = place.directory()?.log()?;
        let Some(name) = &self.topic else { return all_topics(&log.topics()?, place) };
        let topic = place.topic("listing partitions", &log, name)?;
        let infos = infos(&topic)?;
        if place.output.is_json() {
            return place.output.document(&topic_json(&topic, &infos));
        }
        let mut table = Table::new(["partition", "earliest", "end", "records", "size", "segments", "newest"]);
        for (partition, info) in infos.iter().enumerate() {
            let numbers = [partition as u64, info.earliest, info.end, info.records].map(|n| n.to_string());
            let rest = [bytes(info.bytes), info.segments.to_string(), or_dash(info.max_timestamp.map(shown))];
            table.row(numbers.into_iter().chain(rest));
        }
        place.output.table(table)
    }
}

fn all_topics(topics: &[Topic], place: &mut Place) -> Result<()> {
    let mut documents = Vec::new();
    let mut table = Table::new(["topic", "partitions", "records", "size", "newest", "kept"]);
    for topic in topics {
        let infos = infos(topic)?;
        documents.push(topic_json(topic, &infos));
        let newest = infos.iter().filter_map(|info| info.max_timestamp).max();
        table.row([
            topic.name().to_owned(),
            topic.partitions().to_string(),
            infos.iter().map(|info| info.records).sum::<u64>().to_string(),
            bytes(infos.iter().map(|info| info.bytes).sum()),
            or_dash(newest.map(shown)),
            if topic.options().is_compacted() { "last of a key" } else { "all" }.to_owned(),
        ]);
    }
    if place.output.is_json() {
        return place.output.document(&json!({ "topics": documents }));
    }
    place.output.table(table)
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The topic [default: all]
    topic: Option<String>,
}

/// The size of all segments below a folder, in bytes: an upper bound while somebody appends.
fn segment_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |path: &Path| match path.extension() {
        Some(extension) if extension == "log" => std::fs::metadata(path).map_or(0, |file| file.len()),
        _ => 0,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.map(|path| if path.is_dir() { segment_bytes(&path) } else { size(&path) }).sum()
}

impl Verify {
    fn run(self, place: &mut Place) -> Result<()> {
        let folder = place.directory()?.log_folder();
        let topics = folder.join("topics");
        let below = self.topic.as_ref().map_or(topics.clone(), |topic| topics.join(topic));
        if let Some(name) = self.topic.as_ref().filter(|_| !below.is_dir()) {
            let entries = std::fs::read_dir(&topics).into_iter().flatten().flatten();
            let names: Vec<String> =
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            return Err(crate::nearest::unknown("verifying a topic", "topic", name, &names));
        }
        let bar = progress_bar(segment_bytes(&below), place.output.is_json()).with_message("verifying");
        let mut progress = |found: &Verification| bar.set_position(found.bytes);
        let found = verify_with(&folder, LogOptions::new(), self.topic.as_deref(), &mut progress);
        bar.finish_and_clear();
        report(&found?, place)
    }
}

fn report(found: &Verification, place: &mut Place) -> Result<()> {
    let damage: Vec<String> = found.damage.iter().map(ToString::to_string).collect();
    let unfinished: Vec<Value> = found
        .unfinished
        .iter()
        .map(|torn| {
            json!({
                "topic": &*torn.place.topic,
                "partition": torn.place.partition,
                "segment": torn.segment,
                "offset": torn.offset,
                "bytes": torn.bytes,
                "problem": torn.problem,
            })
        })
        .collect();
    if place.output.is_json() {
        place.output.document(&json!({
            "segments": found.segments,
            "batches": found.batches,
            "records": found.records,
            "bytes": found.bytes,
            "unfinished": unfinished,
            "damage": damage,
        }))?;
    } else {
        let Verification { segments, records, .. } = found;
        place
            .output
            .line(format!("{records} records in {segments} segments, {}: read", bytes(found.bytes)))?;
        for torn in &found.unfinished {
            place.output.line(format!(
                "{}: {} bytes behind offset {} are no whole batch: being written, or cut off at the next start",
                torn.place, torn.bytes, torn.offset
            ))?;
        }
        damage.iter().try_for_each(|damage| place.output.line(format!("damaged: {damage}")))?;
    }
    place.output.flush()?;
    match damage.len() {
        0 => Ok(()),
        1 => Err(Failure::new(
            Exit::Found,
            "verifying the log: it is damaged in one place; restore that file from a copy",
        )),
        n => Err(Failure::new(
            Exit::Found,
            format!("verifying the log: it is damaged in {n} places; restore those files from a copy"),
        )),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    /// The topic [default: all that are compacted]
    topic: Option<String>,
}

impl Compact {
    fn run(self, place: &mut Place) -> Result<()> {
        // An engine would make what is not there.
        place.directory()?;
        let engine = place.engine("compacting", STOP_IT, Options::new())?;
        let log = engine.log();
        let topics = match &self.topic {
            Some(name) => vec![place.topic("compacting a topic", log, name)?],
            None => log.topics()?.into_iter().filter(|topic| topic.options().is_compacted()).collect(),
        };
        let (mut documents, mut table) = (Vec::new(), Table::new(["topic", "records", "now", "size", "now"]));
        for topic in topics {
            let of = |infos: &[PartitionInfo]| -> (u64, u64) {
                infos
                    .iter()
                    .fold((0, 0), |(records, bytes), info| (records + info.records, bytes + info.bytes))
            };
            let before = of(&infos(&topic)?);
            topic.compact(now_ms())?;
            let after = of(&infos(&topic)?);
            documents.push(json!({
                "topic": topic.name(),
                "records_before": before.0,
                "records": after.0,
                "bytes_before": before.1,
                "bytes": after.1,
            }));
            table.row([
                topic.name().to_owned(),
                before.0.to_string(),
                after.0.to_string(),
                bytes(before.1),
                bytes(after.1),
            ]);
        }
        if place.output.is_json() {
            return place.output.document(&json!({ "topics": documents }));
        }
        place.output.table(table)
    }
}
