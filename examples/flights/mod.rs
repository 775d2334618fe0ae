//! The flights that left New York City in 2013, as the examples and tests read them. See `examples/data/README.md`.

#![allow(dead_code, reason = "each example uses its own part of this module")]

pub mod airlines;
pub mod cancellations;
pub mod kill;
pub mod legs;
pub mod picture;
pub mod planes;
pub mod routes;
pub mod service;
pub mod table;
pub mod throttle;
pub mod towers;
pub mod weather;

use rivermark::log::{Compression, Isolation, Log, Position, RecordBatch, TopicOptions};
use rivermark::{BoxError, Timestamp, Windowed, Windows, days};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::PathBuf;

/// The airports; a flight's place in this list is its partition where a topic has one for each.
pub const ORIGINS: [&str; 3] = ["EWR", "JFK", "LGA"];

/// How many departures there are.
pub const DEPARTURES: u64 = 328_521;

/// How many records are appended to the log at once.
const APPEND: usize = 4096;

/// A flight that has left the gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Departure {
    /// When it left, in seconds since 1970: the order of the file.
    pub dep_ts: i64,
    /// When it should have left: the event time.
    pub sched_dep: i64,
    pub flight_id: u32,
    pub carrier: String,
    pub origin: String,
    pub dest: String,
    /// How late it was; negative when early.
    pub dep_delay_min: i64,
}

impl Departure {
    pub fn scheduled(&self) -> Timestamp {
        Timestamp::from_secs(self.sched_dep)
    }

    pub fn departed(&self) -> Timestamp {
        Timestamp::from_secs(self.dep_ts)
    }

    /// Its partition, where there is one for each origin.
    pub fn partition(&self) -> u32 {
        origin_partition(&self.origin)
    }
}

/// The partition of an airport, where there is one for each.
pub fn origin_partition(origin: &str) -> u32 {
    ORIGINS.iter().position(|other| *other == origin).map_or(0, |at| at as u32)
}

/// One window for all of it, which closes when everything is read: from 1970 to 2024.
pub fn whole_year() -> Windows {
    Windows::tumbling(days(20_000))
}

/// What the delay pipeline keeps for an origin and an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    pub n: u64,
    pub sum_delay_min: i64,
    pub min_delay_min: i64,
    pub max_delay_min: i64,
    /// Flights at least a quarter of an hour late.
    pub n_late15: u64,
}

impl Delays {
    /// The delay of one flight.
    pub fn of(departure: &Departure, is_late: bool) -> Delays {
        let delay = departure.dep_delay_min;
        Delays {
            n: 1,
            sum_delay_min: delay,
            min_delay_min: delay,
            max_delay_min: delay,
            n_late15: u64::from(is_late),
        }
    }

    /// Adds a flight.
    pub fn add(&mut self, departure: &Departure) {
        self.merge(&Delays::of(departure, departure.dep_delay_min >= 15));
    }

    /// Adds the flights of another hour, or of another part of this one.
    pub fn merge(&mut self, other: &Delays) {
        if self.n == 0 {
            *self = other.clone();
        } else if other.n > 0 {
            self.n += other.n;
            self.sum_delay_min += other.sum_delay_min;
            self.min_delay_min = self.min_delay_min.min(other.min_delay_min);
            self.max_delay_min = self.max_delay_min.max(other.max_delay_min);
            self.n_late15 += other.n_late15;
        }
    }
}

/// A row of the result, and of the expected files: one origin and one hour of scheduled departures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HourlyDelays {
    pub window_start: i64,
    pub origin: String,
    pub n: u64,
    pub sum_delay_min: i64,
    pub min_delay_min: i64,
    pub max_delay_min: i64,
    pub n_late15: u64,
}

impl From<Windowed<String, Delays>> for HourlyDelays {
    fn from(row: Windowed<String, Delays>) -> Self {
        let Delays { n, sum_delay_min, min_delay_min, max_delay_min, n_late15 } = row.value;
        let window_start = row.window.start.secs();
        HourlyDelays {
            window_start,
            origin: row.key,
            n,
            sum_delay_min,
            min_delay_min,
            max_delay_min,
            n_late15,
        }
    }
}

/// Where the example data lies.
pub fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data")
}

/// All departures, in the order in which the planes left.
pub fn departures() -> Result<Vec<Departure>, BoxError> {
    rows_of("departures.csv.zst")
}

/// The rows of a compressed file of the example data, by name; columns that `T` has not are left out.
pub fn rows_of<T: DeserializeOwned>(name: &str) -> Result<Vec<T>, BoxError> {
    let path = data().join(name);
    let file = std::fs::File::open(&path).map_err(|e| format!("opening {}: {e}", path.display()))?;
    let mut text = Vec::new();
    zstd::Decoder::new(file)?.read_to_end(&mut text)?;
    let mut reader = csv::Reader::from_reader(&text[..]);
    Ok(reader.deserialize().collect::<Result<_, _>>()?)
}

/// The rows of a file of expected answers, by name.
pub fn expected<T: DeserializeOwned>(name: &str) -> Result<Vec<T>, BoxError> {
    let path = data().join("expected").join(name);
    let mut reader = csv::Reader::from_path(&path).map_err(|e| format!("opening {}: {e}", path.display()))?;
    Ok(reader.deserialize().collect::<Result<_, _>>()?)
}

/// Appends departures to a topic with a partition for each origin, unless it is there already.
pub fn append_by_origin(log: &Log, topic: &str, departures: &[Departure]) -> Result<(), BoxError> {
    append(log, topic, 3, departures, Departure::partition, |_| ())
}

/// Appends records to a topic as JSON, each to the partition that `partition` names, and tells `progress` how many there are. A topic
/// that holds records already is left alone, so that an example can be run again on the directory of an earlier run.
pub fn append<T: Serialize>(
    log: &Log,
    topic: &str,
    partitions: u32,
    records: &[T],
    partition: impl Fn(&T) -> u32,
    progress: impl Fn(usize),
) -> Result<(), BoxError> {
    let options = TopicOptions::new(partitions).compression(Compression::Lz4);
    let topic = log.ensure_topic(topic, options)?;
    if topic.info(0)?.end > 0 {
        return Ok(());
    }
    let mut batches: Vec<_> = (0..partitions).map(|_| RecordBatch::new()).collect();
    for chunk in records.chunks(APPEND) {
        for record in chunk {
            let batch = &mut batches[partition(record) as usize];
            batch.push(None, Some(&serde_json::to_vec(record)?), 0);
        }
        for (partition, batch) in (0..partitions).zip(&mut batches) {
            if !batch.is_empty() {
                topic.append(partition, batch)?;
            }
        }
        progress(chunk.len());
    }
    Ok(())
}

/// All JSON records of a topic that are committed, partition after partition.
pub fn read<T: DeserializeOwned>(log: &Log, topic: &str) -> Result<Vec<T>, BoxError> {
    let topic = log.topic(topic)?;
    let mut rows = Vec::new();
    for partition in 0..topic.partitions() {
        let mut reader = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted)?;
        while let Some(records) = reader.next_batch()? {
            for record in records {
                rows.push(serde_json::from_slice(record.value.unwrap_or_default())?);
            }
        }
    }
    Ok(rows)
}

/// The rows of a topic, in order, if they are those of a file of expected answers.
///
/// # Errors
/// With the first row that is not.
pub fn as_expected<T>(log: &Log, topic: &str, file: &str) -> Result<Vec<T>, BoxError>
where
    T: DeserializeOwned + Ord + std::fmt::Debug,
{
    let (mut rows, expected): (Vec<T>, Vec<T>) = (read(log, topic)?, expected(file)?);
    rows.sort();
    if let Some((row, expected)) = rows.iter().zip(&expected).find(|(row, expected)| row != expected) {
        return Err(format!("a row of {topic} is {row:?} and should be {expected:?}").into());
    }
    if rows.len() != expected.len() {
        return Err(format!("{topic} has {} rows and should have {}", rows.len(), expected.len()).into());
    }
    Ok(rows)
}
