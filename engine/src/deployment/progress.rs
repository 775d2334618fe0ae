//! How far a version is behind the live one.

use super::machine::State;
use crate::job::JobShared;
use crate::metrics::Metrics;
use rivermark_operators::Timestamp;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// Over which time the rate is measured.
const RATE_OVER: Duration = Duration::from_secs(5);

/// How far a version has come: as text for people, by serde for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// The flow.
    pub flow: String,
    /// The version.
    pub version: u64,
    /// What it is.
    pub state: State,
    /// Records that the live version has read and this one has not; for the live version, records of the sources that it has not read.
    pub records_behind: u64,
    /// About how many bytes that are, by the size of those that it has read. `None` if the sources do not count bytes, or nothing was read yet.
    pub bytes_behind: Option<u64>,
    /// How far event time has come.
    pub event_time: Timestamp,
    /// How far that is behind the live version's. `None` if it has not begun.
    pub event_time_behind: Option<Duration>,
    /// Records a second, lately.
    pub records_per_second: f64,
    /// When it will have come to where the live version is now, at that rate. `None` if it stands still.
    pub arrives_in: Option<Duration>,
    /// Partition by partition.
    pub partitions: Vec<PartitionProgress>,
}

/// How far a version has come in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PartitionProgress {
    /// The source.
    pub source: String,
    /// What the partition is called, such as `clicks[3]`.
    pub partition: String,
    /// The offset behind the last record that it has read; `None` if it has read none.
    pub offset: Option<u64>,
    /// The same of the live version.
    pub live_offset: Option<u64>,
    /// Offsets between the two. Where the log was compacted there are fewer records.
    pub records_behind: u64,
}

/// Where the partitions of the live version are: by source and number, the offset behind the last record.
pub(crate) type Offsets = HashMap<(String, u32), Option<u64>>;

/// Where the partitions of a job are now.
pub(crate) fn offsets_of(job: &JobShared) -> Offsets {
    let partitions = job.partitions().all();
    partitions.iter().map(|p| ((p.source.to_string(), p.number), p.reached())).collect()
}

/// How far a job is behind in each partition.
pub(crate) fn partitions(job: &JobShared, live: &Offsets) -> Vec<PartitionProgress> {
    let partitions = job.partitions().all();
    let of = |(source, number): &(String, u32)| {
        partitions.iter().find(|p| *p.source == **source && p.number == *number).cloned()
    };
    let mut progress: Vec<_> = live
        .iter()
        .map(|(id, live_offset)| {
            let partition = of(id);
            let offset = partition.as_ref().and_then(|partition| partition.reached());
            let name = partition.map_or_else(|| format!("partition {}", id.1), |p| p.name.clone());
            let records_behind = live_offset.unwrap_or(0).saturating_sub(offset.unwrap_or(0));
            let source = id.0.clone();
            PartitionProgress { source, partition: name, offset, live_offset: *live_offset, records_behind }
        })
        .collect();
    progress.sort_by(|a, b| (&a.source, &a.partition).cmp(&(&b.source, &b.partition)));
    progress
}

/// How many records a second were read lately.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    seen: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Notes how many had been read by now.
    pub(crate) fn note(&mut self, now: Instant, read: u64) {
        let is_due = self.seen.back().is_none_or(|(last, _)| now - *last >= RATE_OVER / 20);
        if is_due {
            self.seen.push_back((now, read));
        }
        while self.seen.len() > 2 && self.seen.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            self.seen.pop_front();
        }
    }

    pub(crate) fn per_second(&self) -> f64 {
        let Some(((first, before), (last, now))) = self.seen.front().zip(self.seen.back()) else {
            return 0.0;
        };
        let seconds = (*last - *first).as_secs_f64();
        if seconds > 0.0 { now.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }
}

/// About how many bytes so many records are.
pub(crate) fn bytes_of(metrics: &Metrics, sources: &[String], records: u64) -> Option<u64> {
    let of_sources = metrics.operators.iter().filter(|operator| sources.contains(&operator.name));
    let (bytes, read) = of_sources.fold((0, 0), |(b, r), o| (b + o.bytes, r + o.records_out));
    (bytes > 0 && read > 0).then(|| (u128::from(bytes) * u128::from(records) / u128::from(read)) as u64)
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { flow, version, state, records_behind, records_per_second, .. } = self;
        write!(f, "flow `{flow}`, version {version}: {state}, {records_behind} records behind")?;
        match self.arrives_in {
            Some(arrives_in) => {
                writeln!(
                    f,
                    ", {records_per_second:.0} records/s, there in {:.1} s",
                    arrives_in.as_secs_f64()
                )?;
            }
            None => writeln!(f)?,
        }
        let width = self.partitions.iter().map(|p| p.partition.chars().count()).max().unwrap_or(0);
        for p in &self.partitions {
            let offset = |offset: Option<u64>| offset.map_or_else(|| "-".to_owned(), |o| o.to_string());
            let (here, there) = (offset(p.offset), offset(p.live_offset));
            writeln!(f, "  {:width$}  {here:>12} of {there:>12}", p.partition)?;
        }
        Ok(())
    }
}
